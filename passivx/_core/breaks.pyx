"""The stack machine behind break_on: does a record end the run?

Numbers mean what they mean in Python (a comparison is 1 or 0, `and` and `or` return an operand, NaN
counts as true), except that a division by zero gives infinity or NaN, and that a condition whose
value is NaN does not hold.
"""

import numpy as np

from libc.math cimport NAN, copysign, fabs, floor, fmod, pow
from libc.string cimport memcpy
from passivx._core.types cimport Kind

cdef extern from *:
    """
    #define PASSIVX_MS_PER_DAY 86400000.0
    """
    const double MS_PER_DAY "PASSIVX_MS_PER_DAY"


INSTRUCTION_DTYPE = np.dtype([("op", "<i8"), ("arg", "<i8"), ("number", "<f8")])
TRADE_DTYPE = np.dtype(
    [(name, "<i8") for name in ("tick", "ts_ms", "position_side", "kind")]
    + [(name, "<f8") for name in (
        "price", "qty", "pos_size", "pos_price", "liq_price", "pnl", "fee", "balance",
        "apparent_balance", "equity", "closest_long_liq", "closest_short_liq", "tick_price",
    )]
)
if (
    sizeof(Instruction) != INSTRUCTION_DTYPE.itemsize
    or sizeof(Trade) != TRADE_DTYPE.itemsize
    or N_FACTS != len(Fact)
):
    raise ImportError("passivx._core.breaks: a struct and its dtype disagree")


# --- the machine ------------------------------------------------------------------------------

cdef inline int operands(int64_t op) noexcept nogil:
    if op < Op.NEGATIVE:
        return 0
    if op < Op.SELECT:
        return 1
    return 3 if op == Op.SELECT else 2


cdef int check_program(const Instruction[::1] program) except -1:
    """Raise ValueError unless ``watch_trade`` can run it: the door of every engine calls this."""
    cdef Py_ssize_t i
    cdef int64_t op, arg
    cdef int depth = 0
    for i in range(program.shape[0]):
        op, arg = program[i].op, program[i].arg
        if op < 0 or op > <int64_t>Op.CALC_DIFF:
            raise ValueError(f"instruction {i}: no such op, was {op}")
        if op == Op.FACT and not 0 <= arg < 2 * N_FACTS:
            raise ValueError(f"instruction {i}: no such fact, was {arg}")
        if op == Op.HOLDS and arg < 0:
            raise ValueError(f"instruction {i}: a condition's index must be >= 0, was {arg}")
        depth -= operands(op)
        if depth < 0:
            raise ValueError(f"instruction {i}: the stack is empty")
        depth += op != Op.HOLDS
        if depth > STACK_SIZE:
            raise ValueError(f"instruction {i}: the stack is full")
    if depth != 0:
        raise ValueError("the program leaves values behind")
    return 0


cdef inline bint truth(double x) noexcept nogil:
    # As in Python: NaN is true.
    return x != 0.0


cdef double modulo(double a, double b) noexcept nogil:
    # Python's %: the sign of b.
    cdef double rest = fmod(a, b)
    if rest == 0.0:
        return copysign(0.0, b)
    return rest + b if (rest < 0.0) != (b < 0.0) else rest


cdef double floor_divide(double a, double b) noexcept nogil:
    # Python's //, step by step.
    cdef double rest, quotient, whole
    if b == 0.0:
        return a / b
    rest = fmod(a, b)
    quotient = (a - rest) / b
    if rest != 0.0 and (rest < 0.0) != (b < 0.0):
        quotient -= 1.0
    if quotient == 0.0:
        return copysign(0.0, a / b)
    whole = floor(quotient)
    return whole + 1.0 if quotient - whole > 0.5 else whole


cdef double result(const Instruction* it, const double* x, const double* facts) noexcept nogil:
    cdef int64_t op = it.op
    if op == Op.NUMBER:
        return it.number
    if op == Op.FACT:
        return facts[it.arg]
    if op == Op.NEGATIVE:
        return -x[0]
    if op == Op.ABS:
        return fabs(x[0])
    if op == Op.NOT:
        return not truth(x[0])
    if op == Op.ONE_OF:
        return 0.0 <= x[0] <= 62.0 and (it.arg >> <int64_t>x[0]) & 1
    if op == Op.SELECT:
        return x[1] if truth(x[0]) else x[2]
    if op == Op.ADD:
        return x[0] + x[1]
    if op == Op.SUBTRACT:
        return x[0] - x[1]
    if op == Op.MULTIPLY:
        return x[0] * x[1]
    if op == Op.DIVIDE:
        return x[0] / x[1]
    if op == Op.FLOOR_DIVIDE:
        return floor_divide(x[0], x[1])
    if op == Op.MODULO:
        return modulo(x[0], x[1])
    if op == Op.POWER:
        return pow(x[0], x[1])
    if op == Op.LESS:
        return x[0] < x[1]
    if op == Op.LESS_EQUAL:
        return x[0] <= x[1]
    if op == Op.EQUAL:
        return x[0] == x[1]
    if op == Op.NOT_EQUAL:
        return x[0] != x[1]
    if op == Op.GREATER_EQUAL:
        return x[0] >= x[1]
    if op == Op.GREATER:
        return x[0] > x[1]
    if op == Op.DIFFERENT:
        return x[0] < x[1] or x[0] > x[1]
    if op == Op.AND:
        return x[1] if truth(x[0]) else x[0]
    if op == Op.OR:
        return x[0] if truth(x[0]) else x[1]
    if op == Op.MIN:
        return x[1] if x[1] < x[0] else x[0]
    if op == Op.MAX:
        return x[1] if x[1] > x[0] else x[0]
    return fabs(x[0] - x[1]) / fabs(x[1])


cdef int64_t first_that_holds(const Watch* w) noexcept nogil:
    cdef double[STACK_SIZE] stack
    cdef double x
    cdef Py_ssize_t i
    cdef int top = 0
    for i in range(w.n):
        top -= operands(w.program[i].op)
        if w.program[i].op == Op.HOLDS:
            x = stack[top]
            if x == x and truth(x):
                return w.program[i].arg
            continue
        stack[top] = result(&w.program[i], &stack[top], w.facts)
        top += 1
    return -1


# --- the records ------------------------------------------------------------------------------

cdef void watch_start(
    Watch* w, const Instruction* program, Py_ssize_t n,
    double starting_balance, int64_t n_ticks, int64_t start_ms,
) noexcept nogil:
    """Begin a run; ``program`` has passed check_program, starting_balance and n_ticks are > 0."""
    cdef Py_ssize_t i
    w.program = program
    w.n = n
    w.starting_balance = starting_balance
    w.n_ticks = n_ticks
    w.start_ms = start_ms
    w.last_ts = 0
    w.n_trades = 0.0
    w.peak = starting_balance
    w.max_drawdown = 0.0
    w.net = 0.0
    for i in range(4):
        w.sums[i] = 0.0
    for i in range(2 * N_FACTS):
        w.facts[i] = NAN


cdef double daily_gain(const Watch* w, int64_t ts_ms) noexcept nogil:
    cdef double gain = 1.0 + w.net / w.starting_balance
    cdef double days = (ts_ms - w.start_ms) / MS_PER_DAY
    return pow(gain, 1.0 / days) if gain > 0.0 and days > 0.0 else 0.0


cdef int64_t watch_trade(Watch* w, const Trade* t) noexcept nogil:
    """Take one record in; return the index of the first condition that holds, else -1."""
    cdef double* facts = w.facts
    cdef double fallen
    cdef bint is_loss = (
        t.kind == Kind.STOP_LOSS_LIQ_DIFF or t.kind == Kind.STOP_LOSS_POS_PRICE_DIFF
        or t.kind == Kind.LIQUIDATION
    )
    w.sums[0] += t.pnl
    w.sums[2 if is_loss else 1] += t.pnl
    w.sums[3] += t.fee
    w.net += t.pnl + t.fee
    if t.equity > w.peak:
        w.peak = t.equity
    fallen = (w.peak - t.equity) / w.peak
    if fallen > w.max_drawdown:
        w.max_drawdown = fallen

    memcpy(&facts[N_FACTS], facts, N_FACTS * sizeof(double))
    facts[<int>Fact.PRICE] = t.price
    facts[<int>Fact.QTY] = t.qty
    facts[<int>Fact.TYPE] = t.kind
    facts[<int>Fact.SIDE] = t.position_side > 0
    facts[<int>Fact.POS_PRICE] = t.pos_price
    facts[<int>Fact.POS_SIZE] = t.pos_size
    facts[<int>Fact.LIQ_PRICE] = t.liq_price
    facts[<int>Fact.PNL] = t.pnl
    facts[<int>Fact.FEE_PAID] = t.fee
    facts[<int>Fact.PNL_PLUS_FEE] = t.pnl + t.fee
    facts[<int>Fact.PNL_CUMSUM] = w.sums[0]
    facts[<int>Fact.PROFIT_CUMSUM] = w.sums[1]
    facts[<int>Fact.LOSS_CUMSUM] = w.sums[2]
    facts[<int>Fact.FEE_PAID_CUMSUM] = w.sums[3]
    facts[<int>Fact.PNL_PLUS_FEES_CUMSUM] = w.net
    facts[<int>Fact.ACTUAL_BALANCE] = t.balance
    facts[<int>Fact.APPARENT_BALANCE] = t.apparent_balance
    facts[<int>Fact.AVERAGE_DAILY_GAIN] = daily_gain(w, t.ts_ms)
    facts[<int>Fact.CLOSEST_LIQ] = (
        t.closest_short_liq if t.closest_short_liq < t.closest_long_liq else t.closest_long_liq)
    facts[<int>Fact.CLOSEST_LONG_LIQ] = t.closest_long_liq
    facts[<int>Fact.CLOSEST_SHRT_LIQ] = t.closest_short_liq
    facts[<int>Fact.TIMESTAMP] = t.ts_ms
    facts[<int>Fact.MILLIS_SINCE_PREV_TRADE] = t.ts_ms - w.last_ts if w.n_trades > 0.0 else 0.0
    facts[<int>Fact.PROGRESS] = t.tick / w.n_ticks
    facts[<int>Fact.MAX_DRAWDOWN] = w.max_drawdown
    facts[<int>Fact.TRADE_ID] = t.tick
    w.n_trades += 1.0
    w.last_ts = t.ts_ms
    facts[<int>Fact.N_TRADES] = w.n_trades
    facts[<int>Fact.N_TICKS] = w.n_ticks
    facts[<int>Fact.TICK_PRICE] = t.tick_price
    return first_that_holds(w)


def evaluate(
    const Instruction[::1] program, const Trade[::1] trades, *,
    double starting_balance, int64_t n_ticks, int64_t start_ms,
):
    """Show records to a program until a condition holds.

    Parameters
    ----------
    program : ndarray of INSTRUCTION_DTYPE, shape (n,)
        As ``passivx.breaks.compile_break_on`` makes it; empty: nothing ever holds.
    trades : ndarray of TRADE_DTYPE, shape (m,)
        In time order.
    starting_balance : float
        Settle currency, > 0.
    n_ticks, start_ms : int
        How many ticks the run has, > 0, and when it starts.

    Returns
    -------
    trade, condition : int
        The first record for which one holds, and which; -1 and -1 when none does.

    Raises
    ------
    ValueError
        If the program is not a sound one, or a number is out of range.
    """
    cdef Watch w
    cdef Py_ssize_t i
    cdef int64_t condition
    check_program(program)
    if not starting_balance > 0.0:
        raise ValueError(f"starting_balance must be > 0, was {starting_balance}")
    if n_ticks < 1:
        raise ValueError(f"n_ticks must be > 0, was {n_ticks}")
    if program.shape[0] == 0:
        return -1, -1
    with nogil:
        watch_start(&w, &program[0], program.shape[0], starting_balance, n_ticks, start_ms)
        for i in range(trades.shape[0]):
            condition = watch_trade(&w, &trades[i])
            if condition >= 0:
                break
        else:
            i = condition = -1
    return i, condition
