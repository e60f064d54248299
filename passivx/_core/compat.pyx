"""The ``compat`` engine: the original Passiv-X (passivbot v2) backtester, fill for fill.

History, not the bot: it keeps that program's quirks (rounding on binary noise, a balance that
never falls below the start, one fill per tick, ticks of equal price dropped) so that published
results can be checked. Nothing outside this module may use its rounding.
"""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, NAN, ceil, fabs, floor, rint
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from passivx._core.breaks cimport (
    Instruction, Trade, Watch, check_program, note_record, watch_start, watch_trade,
)
from passivx._core.ema cimport ema_step
from passivx._core.formulas cimport cost, pnl
from passivx._core.memory cimport with_room
from passivx._core.types cimport Fill as ExactFill
from passivx._core.types cimport Kind


cdef struct Settings:          # COMPAT_DTYPE: one optimizer candidate, as the original names it
    double price_step
    double qty_step
    double min_qty
    double min_cost
    double maker_fee
    double max_leverage
    double starting_balance
    double latency_ms          # least ms between two fills
    double balance_pct
    double leverage
    double entry_qty_pct
    double ddown_factor
    double ema_span
    double ema_spread
    double grid_coefficient
    double grid_spacing
    double min_markup
    double max_markup
    double min_close_qty_multiplier
    double n_close_orders
    double stop_loss_liq_diff
    double stop_loss_pos_price_diff
    double stop_loss_pos_reduction
    int64_t inverse
    int64_t do_long
    int64_t do_short


cdef struct Fill:              # COMPAT_FILL_DTYPE; begins as the exact engine's does
    int64_t tick               # index into the thinned ticks
    int64_t ts_ms
    int64_t position_side      # +1 long, -1 short
    int64_t kind
    double price
    double qty                 # signed: > 0 bought
    double pos_size            # signed, after the fill
    double pos_price
    double liq_price
    double pnl
    double fee                 # negative when paid
    double balance             # "actual" balance, after the fill
    double closest_liq
    double apparent_balance
    double reentry_price
    double closest_long_liq
    double closest_short_liq
    double pnl_plus_fees_cumsum


cdef enum Outcome:
    RUNNING = 0
    LIQUIDATED = 1
    OUT_OF_MEMORY = 2
    BROKEN = 3


cdef struct State:
    double[2] book             # the original's order book: last print at the bid, at the ask
    double ema
    double size                # signed
    double entry               # kept when the position closes
    double liq
    double actual              # balance; never below the start
    double apparent
    double reentry_price
    double reentry_qty         # unsigned
    double stop_liq            # levels
    double stop_pos
    double stop_price          # 0 = no stop armed
    int64_t stop_kind
    int64_t last_ts
    int64_t last_kind          # of the last recorded fill
    double[2] closest          # least distance to liquidation: long, short
    double cumsum
    double previous_price      # of the tick before, to drop ticks of equal price
    int64_t thinned            # ticks kept so far
    Fill* fills
    Py_ssize_t n_fills
    Py_ssize_t capacity
    Watch* watch               # NULL: no break_on conditions
    int64_t broken_by          # index of the condition that held, else -1


COMPAT_DTYPE = np.dtype(
    [(name, "<f8") for name in (
        "price_step", "qty_step", "min_qty", "min_cost", "maker_fee", "max_leverage",
        "starting_balance", "latency_ms", "balance_pct", "leverage", "entry_qty_pct",
        "ddown_factor", "ema_span", "ema_spread", "grid_coefficient", "grid_spacing",
        "min_markup", "max_markup", "min_close_qty_multiplier", "n_close_orders",
        "stop_loss_liq_diff", "stop_loss_pos_price_diff", "stop_loss_pos_reduction",
    )]
    + [(name, "<i8") for name in ("inverse", "do_long", "do_short")]
)
COMPAT_FILL_DTYPE = np.dtype(
    [(name, "<i8") for name in ("tick", "ts_ms", "position_side", "kind")]
    + [(name, "<f8") for name in (
        "price", "qty", "pos_size", "pos_price", "liq_price", "pnl", "fee", "balance",
        "closest_liq", "apparent_balance", "reentry_price", "closest_long_liq",
        "closest_short_liq", "pnl_plus_fees_cumsum",
    )]
)
if sizeof(Settings) != COMPAT_DTYPE.itemsize or sizeof(Fill) != COMPAT_FILL_DTYPE.itemsize:
    raise ImportError("passivx._core.compat: a struct and its dtype disagree")


# Every print that may close walks the whole grid, out of Ctrl-C's reach until the chunk ends.
cpdef enum:
    MAX_CLOSE_ORDERS = 10_000


# --- the original's helpers -------------------------------------------------------------------

cdef inline double decimals(double x) noexcept nogil:
    return rint(x * 1e10) / 1e10


cdef inline double up(double x, double step) noexcept nogil:
    return decimals(ceil(x / step) * step)


cdef inline double down(double x, double step) noexcept nogil:
    return decimals(floor(x / step) * step)


cdef inline double near(double x, double step) noexcept nogil:
    return decimals(rint(x / step) * step)


cdef inline double away(double x, double step, int64_t side) noexcept nogil:
    return down(x, step) if side > 0 else up(x, step)


cdef inline double diff(double x, double y) noexcept nogil:
    return fabs(x - y) / fabs(y)


cdef inline double least_qty(double price, const Settings* s) noexcept nogil:
    cdef double least
    if s.inverse:
        return s.min_qty
    least = up(s.min_cost / price, s.qty_step)
    return least if least > s.min_qty else s.min_qty


cdef inline double first_qty(double balance, double price, const Settings* s) noexcept nogil:
    cdef double raw = (
        (balance * s.leverage * price) if s.inverse else ((balance * s.leverage) / price)
    ) * fabs(s.entry_qty_pct)
    cdef double qty = down(raw, s.qty_step)
    cdef double least = least_qty(price, s)
    return qty if qty > least else least


cdef inline double max_position(double balance, double price, const Settings* s) noexcept nogil:
    return balance * price * s.leverage if s.inverse else (balance / price) * s.leverage


cdef double liquidation(
    double balance, double size, double entry, const Settings* s
) noexcept nogil:
    cdef double a = fabs(size)
    cdef double price, d, c, m, b, r
    if size == 0.0:
        return 0.0
    if s.inverse:
        c = a / entry
        m = c / s.max_leverage
        b = (1.00075 * a) / (c + (balance - m)) if size > 0.0 else (
            (0.99925 * a) / (c - (balance - m)))
        if b == 0.0:
            return 0.0
        r = -(balance - m - (a / entry) * 0.005 - (a * 0.00075) / b)
        price = (entry * a) / (a - entry * r) if size > 0.0 else (entry * a) / (entry * r + a)
    else:
        m = a * entry / s.leverage
        d = a * 0.004 - size
        price = 0.0 if d == 0.0 else (balance + m - size * entry) / d
    return 0.0 if price < 0.0 else price


cdef double pairwise_sum(double x, int64_t n) noexcept nogil:
    # numpy's sum of n equal numbers, in numpy's order of additions.
    cdef int64_t _i, half
    cdef double lane, total
    if n < 8:
        total = 0.0
        for _i in range(n):
            total += x
        return total
    if n <= 128:
        lane = x
        for _i in range(8, n - n % 8, 8):
            lane += x
        total = ((lane + lane) + (lane + lane)) + ((lane + lane) + (lane + lane))
        for _i in range(n % 8):
            total += x
        return total
    half = n // 2
    half -= half % 8
    return pairwise_sum(x, half) + pairwise_sum(x, n - half)


cdef double nearest_close(
    double print_price, double touch, const State* st, const Settings* s, double* qty
) noexcept nogil:
    # Price and quantity of the first order of the close grid; only that one can fill.
    cdef int64_t side = 1 if st.size > 0.0 else -1
    cdef double held = fabs(st.size)
    cdef double min_close = down(
        first_qty(st.apparent, print_price, s) * s.min_close_qty_multiplier, s.qty_step)
    cdef double start = st.entry * (1.0 + side * s.min_markup)
    cdef double stop = st.entry * (1.0 + side * s.max_markup)
    cdef double first = 0.0
    cdef double second = 0.0
    cdef double last = 0.0
    cdef double price, whole, step, gap
    cdef int64_t n, i, k, kept = 0
    min_close = min_close if min_close > s.min_qty else s.min_qty
    whole = held / min_close
    whole = rint(s.n_close_orders if s.n_close_orders < whole else whole)
    n = <int64_t>whole if whole > 0.0 else 0
    step = (stop - start) / (n - 1) if n > 1 else 0.0
    for i in range(n):
        # Nearest first, whichever way the markups lie.
        k = i if s.max_markup >= s.min_markup else n - 1 - i
        price = stop if n > 1 and k == n - 1 else k * step + start
        price = away(price, s.price_step, -side)
        if side * price < side * touch or (kept > 0 and price == last):
            continue
        kept += 1
        if kept == 1:
            first = price
        elif kept == 2:
            second = price
        last = price
    if kept > 1:
        gap = diff(second, first) if side > 0 else diff(first, second)
    if kept == 0 or (kept > 1 and gap > 0.003):
        qty[0] = held
        price = away(start, s.price_step, -side)
        return price if side * price > side * touch else touch
    if kept == 1:
        qty[0] = held
        return first
    qty[0] = up(held / kept, s.qty_step)
    whole = pairwise_sum(qty[0], kept)
    while whole > held:
        price = whole
        for i in range(kept):
            if i == (0 if side > 0 else kept - 1):
                qty[0] = near(qty[0] - s.qty_step, s.qty_step)
            whole = near(whole - s.qty_step, s.qty_step)
            if whole <= held:
                break
        if whole >= price:   # a step below the ten decimals: the original would never end
            break
    return first


# --- the loop ---------------------------------------------------------------------------------

cdef Fill* new_fill(State* st) noexcept nogil:
    cdef void* fills = with_room(st.fills, st.n_fills, &st.capacity, sizeof(Fill))
    if fills is NULL:
        return NULL
    st.fills = <Fill*>fills
    st.n_fills += 1
    return &st.fills[st.n_fills - 1]


cdef void plan_next(State* st, const Settings* s) noexcept nogil:
    # Stop levels and the one re-entry that the position just reached asks for.
    cdef int64_t side = 1 if st.size > 0.0 else -1
    cdef double held = fabs(st.size)
    cdef double touch = st.book[side < 0]
    cdef double margin = cost(st.size, st.entry, s.inverse) / s.leverage
    cdef double g = s.grid_spacing * (1.0 + margin / st.apparent * s.grid_coefficient)
    cdef double step = up(st.entry * s.grid_spacing / 4.0, s.price_step)
    cdef double price = away(st.entry * (1.0 - side * g), step, side)
    cdef double least, room, qty
    st.stop_price = 0.0
    st.stop_liq = st.liq * (1.0 + side * s.stop_loss_liq_diff)
    if side < 0 and st.liq <= 0.0:
        st.stop_liq = st.entry * 10000.0
    st.stop_pos = st.entry * (1.0 - side * s.stop_loss_pos_price_diff)
    if not side * price < side * touch:
        price = touch
    st.reentry_price = price if price > s.price_step else s.price_step
    least = least_qty(st.reentry_price, s)
    room = down(max_position(st.apparent, st.reentry_price, s) - held, s.qty_step)
    room = room if room > 0.0 else 0.0
    qty = down(held * s.ddown_factor, s.qty_step)
    qty = qty if qty > least else least
    st.reentry_qty = qty if qty < room else room
    if st.reentry_qty < least:
        st.reentry_price = s.price_step if side > 0 else 9e12


cdef int break_on(State* st, const Settings* s, const Fill* fill, double p) noexcept nogil:
    cdef Trade t
    note_record(&t, <const ExactFill*>fill)
    t.apparent_balance = fill.apparent_balance
    t.equity = fill.balance
    if fill.pos_size != 0.0:
        t.equity += pnl(
            1 if fill.pos_size > 0.0 else -1, fill.pos_price, p, fill.pos_size, s.inverse)
    t.closest_long_liq = fill.closest_long_liq
    t.closest_short_liq = fill.closest_short_liq
    t.tick_price = p
    st.broken_by = watch_trade(st.watch, &t)
    return Outcome.RUNNING if st.broken_by < 0 else Outcome.BROKEN


cdef int record_fill(
    State* st, const Settings* s, double p, int64_t ts, int64_t position_side, int64_t kind,
    double price, double signed_qty,
) noexcept nogil:
    # The fill of a print at p.
    cdef Fill* fill
    cdef double gained = 0.0
    cdef double fee, size
    if ts - st.last_ts < s.latency_ms and not (
        kind == Kind.REENTRY and st.last_kind == Kind.REENTRY
    ):
        return Outcome.RUNNING
    fill = new_fill(st)
    if fill is NULL:
        return Outcome.OUT_OF_MEMORY
    st.last_ts = ts
    st.last_kind = kind
    size = near(st.size + signed_qty, 1e-10)
    if kind == Kind.ENTRY or kind == Kind.REENTRY:
        st.entry = st.entry * fabs(st.size / size) + price * fabs(signed_qty / size)
    else:
        gained = pnl(position_side, st.entry, price, signed_qty, s.inverse)
    fee = -cost(signed_qty, price, s.inverse) * s.maker_fee
    st.size = size
    st.actual = st.actual + gained + fee
    if not st.actual > s.starting_balance:
        st.actual = s.starting_balance
    st.apparent = st.actual * s.balance_pct
    st.liq = liquidation(st.actual, size, st.entry, s)
    st.cumsum += gained + fee
    st.reentry_price = 0.0
    if size != 0.0:
        plan_next(st, s)
    fill.tick = st.thinned
    fill.ts_ms = ts
    fill.position_side = position_side
    fill.kind = kind
    fill.price = price
    fill.qty = signed_qty
    fill.pos_size = size
    fill.pos_price = st.entry
    fill.liq_price = st.liq
    fill.pnl = gained
    fill.fee = fee
    fill.balance = st.actual
    fill.closest_liq = st.closest[st.closest[1] < st.closest[0]]
    fill.apparent_balance = st.apparent
    fill.reentry_price = st.reentry_price if size != 0.0 else NAN
    fill.closest_long_liq = st.closest[0]
    fill.closest_short_liq = st.closest[1]
    fill.pnl_plus_fees_cumsum = st.cumsum
    st.closest[0] = 1.0
    st.closest[1] = 1.0
    return Outcome.RUNNING if st.watch is NULL else break_on(st, s, fill, p)


cdef double flat_entry(
    int64_t side, double p, double ideal, double touch, const Settings* s
) noexcept nogil:
    # Price of the flat entry when this print fills it, else 0.
    cdef double price = away(ideal, s.price_step, side)
    if not side * price < side * touch:
        price = touch
    return price if side * p < side * price else 0.0


cdef int in_position(
    State* st, const Settings* s, int64_t side, double p, int64_t ts,
) noexcept nogil:
    # One print that hits resting orders of `side`.
    cdef int64_t held = 1 if st.size > 0.0 else -1
    cdef double touch = st.book[held < 0]
    cdef double far_touch = st.book[held > 0]
    cdef double price = 0.0
    cdef double qty = 0.0
    cdef int64_t kind = 0
    if held == side:
        if st.liq != st.liq:
            # An entry of quantity 0 (min_qty 0) left no entry price: the original's min() takes
            # the NaN over, the comparison in scan() does not.
            st.closest[held < 0] = NAN
        if side * p <= side * st.liq and st.closest[held < 0] < 0.2:
            return Outcome.LIQUIDATED
        if side * p < side * st.reentry_price:
            kind, price, qty = Kind.REENTRY, st.reentry_price, st.reentry_qty
        if side * p <= side * st.stop_liq:
            st.stop_price, st.stop_kind = far_touch, Kind.STOP_LOSS_LIQ_DIFF
        elif side * p <= side * st.stop_pos:
            st.stop_price, st.stop_kind = far_touch, Kind.STOP_LOSS_POS_PRICE_DIFF
        else:
            st.stop_price = 0.0
        touch = p
    else:
        if held * p >= held * st.entry:
            price = nearest_close(p, far_touch, st, s, &qty)
            if held * p > held * price:
                kind = Kind.CLOSE
        elif st.stop_price > 0.0 and held * p > held * st.stop_price:
            kind, price = st.stop_kind, st.stop_price
            qty = up(fabs(st.size) * s.stop_loss_pos_reduction, s.qty_step)
            if not qty < fabs(st.size):
                qty = fabs(st.size)
        far_touch = p
    st.book[held < 0] = touch
    st.book[held > 0] = far_touch
    if kind == 0:
        return Outcome.RUNNING
    return record_fill(st, s, p, ts, held, kind, price, side * qty)


cdef inline void quiet_levels(
    const State* st, const Settings* s, double* quiet, double* liq
) noexcept nogil:
    # In position, a print with sign * price beyond quiet[row] can neither fill nor arm anything.
    # liq[row] is what the distance to liquidation is measured from: 0 gives 1, which is no news.
    cdef int64_t held = 1 if st.size > 0.0 else -1
    cdef double markup = s.min_markup if s.min_markup < s.max_markup else s.max_markup
    cdef double first = away(st.entry * (1.0 + held * markup), s.price_step, -held)
    # A liquidation price of 0 is none: its distance is always 1, never < 0.2.
    cdef double level = held * st.liq if st.liq > 0.0 else -INFINITY
    liq[held < 0] = st.liq
    liq[held > 0] = 0.0
    if st.stop_price > 0.0 or st.liq != st.liq:
        quiet[0] = INFINITY
        quiet[1] = INFINITY
        return
    # No close is nearer than the first of the grid, nor than the entry price.
    if held * first < held * st.entry:
        first = st.entry
    quiet[held > 0] = -held * first
    if held * st.reentry_price > level:
        level = held * st.reentry_price
    if held * st.stop_liq > level:
        level = held * st.stop_liq
    if held * st.stop_pos > level:
        level = held * st.stop_pos
    quiet[held < 0] = level


cdef int scan(
    State* st, const Settings* s,
    const double* price, const int64_t* ts_ms, const uint8_t* buyer_maker, Py_ssize_t n,
) noexcept nogil:
    # Row 0 of the small tables stands for orders to buy (a seller's print hits the bids), row 1
    # for orders to sell. Most ticks are quiet: they only move the book, the EMA and `closest`.
    cdef double alpha = 2.0 / (s.ema_span + 1.0)
    cdef double beta = 1.0 - alpha
    cdef double[2] sign = [1.0, -1.0]
    cdef double[2] distant = [1.0 - s.ema_spread, 1.0 + s.ema_spread]
    cdef double[2] quiet = [INFINITY, INFINITY]
    cdef double[2] liq = [0.0, 0.0]
    cdef int64_t[2] allowed = [s.do_long, s.do_short]
    cdef double ema = st.ema
    cdef double previous = st.previous_price
    cdef bint flat = st.size == 0.0
    cdef double p, ideal, entry, distance
    cdef Py_ssize_t i
    cdef int row
    cdef int status = Outcome.RUNNING  # a chunk of nothing but repeated prices leaves it so
    if not flat:
        quiet_levels(st, s, quiet, liq)
    for i in range(n):
        p = price[i]
        if p == previous:
            continue
        previous = p
        row = buyer_maker[i] == 0
        status = Outcome.RUNNING
        if flat:
            ideal = ema * distant[row]
            # Rounding moves the ideal price towards the market by no more than the noise of its
            # ten decimals: most prints are turned away before it is rounded at all.
            if (sign[row] * p < sign[row] * st.book[row]) & (
                sign[row] * (p - ideal) <= 1e-9 + 1e-12 * p
            ) & (allowed[row] != 0):
                entry = flat_entry(<int64_t>sign[row], p, ideal, st.book[row], s)
                st.book[row] = p
                if entry != 0.0:
                    status = record_fill(
                        st, s, p, ts_ms[i], <int64_t>sign[row], Kind.ENTRY, entry,
                        sign[row] * first_qty(st.apparent, entry, s))
                    flat = st.size == 0.0
                    if not flat:
                        quiet_levels(st, s, quiet, liq)
            else:
                st.book[row] = p
        else:
            distance = diff(liq[row], p)
            if distance < st.closest[row]:
                st.closest[row] = distance
            if sign[row] * p > quiet[row]:
                st.book[row] = p
            else:
                status = in_position(st, s, <int64_t>sign[row], p, ts_ms[i])
                flat = st.size == 0.0
                if not flat:
                    quiet_levels(st, s, quiet, liq)
        if status != Outcome.RUNNING:
            break
        ema = ema_step(ema, p, alpha, beta)
        st.thinned += 1
    st.ema = ema
    st.previous_price = previous
    return status


cdef int64_t count_thinned(const double[::1] price) noexcept nogil:
    cdef int64_t count = 1
    cdef Py_ssize_t i
    for i in range(1, price.shape[0]):
        count += price[i] != price[i - 1]
    return count


def run(
    const double[::1] price, const int64_t[::1] ts_ms, const uint8_t[::1] buyer_maker,
    const Settings[::1] settings, *, const Instruction[::1] breaks=None,
    Py_ssize_t chunk=10_000_000, progress=None,
):
    """Replay ticks through the original's loop.

    Parameters
    ----------
    price, ts_ms, buyer_maker : arrays of f8, i8, u1, shape (n,)
        Raw ticks in time order, prices finite and > 0 (not checked here); ticks that repeat the
        price before them are dropped on the fly.
    settings : ndarray of COMPAT_DTYPE, shape (1,)
        Finite numbers; steps, leverages and the starting balance > 0 (not checked here).
    breaks : ndarray of INSTRUCTION_DTYPE, shape (n,), optional
        A program of break_on conditions; the record for which one holds is the run's last.
        ``len(ticks)`` is the number of thinned ticks of the whole run.
    chunk : int
        Ticks between two looks at Ctrl-C and calls of ``progress(ticks_done)``.

    Returns
    -------
    fills : ndarray of COMPAT_FILL_DTYPE, shape (m,)
    liquidated : bool
        The run ended in the liquidation of the position (which has no row).
    broken_by : int
        Index of the condition that ended the run, else -1.
    thinned : int
        Ticks looked at after dropping repeated prices.

    Raises
    ------
    ValueError
        If the arrays differ in length or hold fewer than two different prices, if ``chunk`` is
        below 1 or ``n_close_orders`` above 10,000, or if ``breaks`` is no sound program.
    """
    cdef Py_ssize_t n = price.shape[0]
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t step, stretch
    cdef Py_ssize_t second = 1
    cdef const Settings* s
    cdef State st
    cdef Watch watch
    cdef int outcome = Outcome.RUNNING
    memset(&st, 0, sizeof(State))
    st.broken_by = -1
    if not n == ts_ms.shape[0] == buyer_maker.shape[0]:
        raise ValueError("price, ts_ms and buyer_maker must have the same length")
    if settings.shape[0] != 1:
        raise ValueError("settings must be one record")
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, was {chunk}")
    if not settings[0].n_close_orders <= MAX_CLOSE_ORDERS:
        raise ValueError(
            f"n_close_orders must be <= {MAX_CLOSE_ORDERS}, was {settings[0].n_close_orders}")
    while second < n and price[second] == price[0]:
        second += 1
    if second >= n:
        raise ValueError("at least two ticks of different price are needed")
    s = &settings[0]
    # A print may walk the whole close grid: look up as often in time, not in ticks.
    stretch = chunk
    if s.n_close_orders > 1.0:
        stretch = max(1, <Py_ssize_t>(chunk / s.n_close_orders))
    # The first tick already sees the second one's price, as in the original.
    st.book[0] = min(price[0], price[second])
    st.book[1] = max(price[0], price[second])
    st.ema = price[0]
    st.actual = s.starting_balance
    st.apparent = s.starting_balance * s.balance_pct
    st.closest[0] = 1.0
    st.closest[1] = 1.0
    if breaks is not None and breaks.shape[0] > 0:
        check_program(breaks)
        with nogil:
            watch_start(
                &watch, &breaks[0], breaks.shape[0],
                s.starting_balance, count_thinned(price), ts_ms[0])
        st.watch = &watch
    try:
        while at < n and outcome == Outcome.RUNNING:
            step = min(stretch, n - at)
            with nogil:
                outcome = scan(&st, s, &price[at], &ts_ms[at], &buyer_maker[at], step)
            at += step
            PyErr_CheckSignals()
            if progress is not None:
                progress(at)
        if outcome == Outcome.OUT_OF_MEMORY:
            raise MemoryError("the fill buffer could not grow")
        fills = np.empty(st.n_fills, COMPAT_FILL_DTYPE)
        copy_fills(fills, &st)
    finally:
        free(st.fills)
    # scan() leaves `thinned` at the index of the tick that ended the run: it was looked at too.
    return (
        fills, outcome == Outcome.LIQUIDATED, st.broken_by,
        st.thinned + (outcome != Outcome.RUNNING),
    )


cdef copy_fills(Fill[::1] out, const State* st):
    if st.n_fills:
        memcpy(&out[0], st.fills, st.n_fills * sizeof(Fill))
