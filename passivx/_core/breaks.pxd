# Conditions that end a run early: a small stack machine over the records of either engine.
# passivx/breaks.py makes its programs.
from libc.stdint cimport int64_t
from passivx._core.types cimport Fill


cpdef enum Op:
    # No operand, or `arg` and `number`, and one result.
    NUMBER = 0                 # number
    FACT = 1                   # facts[arg]
    # One operand.
    NEGATIVE = 2
    ABS = 3
    NOT = 4
    ONE_OF = 5                 # whether bit x of `arg` is set; NaN has no bit
    HOLDS = 6                  # no result: a true x is the answer `arg`
    # Three.
    SELECT = 7                 # condition, value if true, value if false
    # Two, from here on.
    ADD = 8
    SUBTRACT = 9
    MULTIPLY = 10
    DIVIDE = 11
    FLOOR_DIVIDE = 12
    MODULO = 13
    POWER = 14
    LESS = 15
    LESS_EQUAL = 16
    EQUAL = 17
    NOT_EQUAL = 18
    GREATER_EQUAL = 19
    GREATER = 20
    DIFFERENT = 21             # as NOT_EQUAL, but nothing differs from NaN
    AND = 22
    OR = 23
    MIN = 24
    MAX = 25
    CALC_DIFF = 26


cpdef enum Fact:
    # Of a record, by the original's names.
    PRICE = 0
    QTY = 1
    TYPE = 2                   # Kind
    SIDE = 3                   # 0 short, 1 long
    POS_PRICE = 4
    POS_SIZE = 5
    LIQ_PRICE = 6
    PNL = 7
    FEE_PAID = 8
    PNL_PLUS_FEE = 9
    PNL_CUMSUM = 10
    PROFIT_CUMSUM = 11
    LOSS_CUMSUM = 12
    FEE_PAID_CUMSUM = 13
    PNL_PLUS_FEES_CUMSUM = 14
    ACTUAL_BALANCE = 15
    APPARENT_BALANCE = 16
    AVERAGE_DAILY_GAIN = 17
    CLOSEST_LIQ = 18
    CLOSEST_LONG_LIQ = 19
    CLOSEST_SHRT_LIQ = 20
    TIMESTAMP = 21
    MILLIS_SINCE_PREV_TRADE = 22
    PROGRESS = 23
    MAX_DRAWDOWN = 24
    TRADE_ID = 25
    # Of the run, at the record.
    N_TRADES = 26
    N_TICKS = 27
    TICK_PRICE = 28


cpdef enum:
    N_FACTS = 29               # facts[N_FACTS + i] is fact i of the record before
    STACK_SIZE = 96


cdef struct Instruction:       # INSTRUCTION_DTYPE
    int64_t op
    int64_t arg
    double number


cdef struct Trade:             # TRADE_DTYPE: one record as conditions see it
    int64_t tick               # index into the engine's ticks
    int64_t ts_ms              # of the record and of its tick
    int64_t position_side      # +1 long, -1 short
    int64_t kind
    double price
    double qty                 # signed
    double pos_size            # signed, after the record, as all that follows
    double pos_price
    double liq_price
    double pnl
    double fee                 # negative when paid
    double balance
    double apparent_balance
    double equity
    double closest_long_liq
    double closest_short_liq
    double tick_price


cdef struct Watch:             # a program and what it has seen; facts are NaN before a record is
    const Instruction* program
    Py_ssize_t n
    double starting_balance
    double n_ticks
    int64_t start_ms
    int64_t last_ts
    double n_trades
    double peak                # of equity
    double max_drawdown
    double[4] sums             # pnl of profits and losses together, profits, losses, fees
    double net                 # pnl and fees, added up record by record
    double[2 * N_FACTS] facts


cdef inline void note_record(Trade* t, const Fill* fill) noexcept nogil:
    # What a record itself says; the engine adds the last five fields.
    t.tick = fill.tick
    t.ts_ms = fill.ts_ms
    t.position_side = fill.position_side
    t.kind = fill.kind
    t.price = fill.price
    t.qty = fill.qty
    t.pos_size = fill.pos_size
    t.pos_price = fill.pos_price
    t.liq_price = fill.liq_price
    t.pnl = fill.pnl
    t.fee = fill.fee
    t.balance = fill.balance


cdef int check_program(const Instruction[::1] program) except -1
cdef void watch_start(
    Watch* w, const Instruction* program, Py_ssize_t n,
    double starting_balance, int64_t n_ticks, int64_t start_ms,
) noexcept nogil
cdef int64_t watch_trade(Watch* w, const Trade* t) noexcept nogil
