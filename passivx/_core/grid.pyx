"""The planner of strategy ``grid_v2``: which orders do we want?

One function, ``plan``, for backtest, dry-run and live. It turns an account, a market and a config
into **ideal** orders, whose prices and quantities depend only on wallet, position, EMA (flat) and
config. ``create`` is the other half: what an ideal order becomes when it is sent into the book of
the moment. Long and short are one formula with side = +1 / -1. docs/planner.md states the rules.
"""

import numpy as np

from libc.math cimport INFINITY, fabs, floor
from libc.stdint cimport int64_t
from passivx._core.formulas cimport (
    MAX_STEPS, average_entry, ceil_steps, ceil_to, cost, floor_steps, floor_to, grid_near,
    grid_value, min_order_qty, near_to, round_away, to_contracts,
)
from passivx._core.types cimport Kind, Market, Order, Step, Strategy, View

from passivx._core.types import ORDER_DTYPE as _ORDER_DTYPE

# Part of the maximum position that is used; the rest is for fees and for the price moving.
LINEAR_SHARE = 0.92
INVERSE_SHARE = 0.95
# A close grid whose first gap is wider, relative to the nearer price, becomes one order.
WIDEST_GAP = 0.003

cdef double _linear_share = LINEAR_SHARE
cdef double _inverse_share = INVERSE_SHARE
cdef double _widest_gap = WIDEST_GAP


cdef double budget(const View* view, const Strategy* s) noexcept nogil:
    # The share of the wallet to size by, never more than what the account was last worth.
    cdef double share = view.wallet * s.balance_pct
    return view.equity if view.equity < share else share


cdef inline double floor_qty(double x, Step step) noexcept nogil:
    # Whole steps; what is beyond the grid is more than any order may have.
    return floor_to(x, step) if x * step.scale / step.units <= MAX_STEPS else INFINITY


cdef double max_position(
    double budget, double price, double leverage, const Market* market
) noexcept nogil:
    cdef double most
    if market.inverse:
        return _inverse_share * budget * price * leverage
    most = budget / price * leverage
    if market.notional_cap / price < most:
        most = market.notional_cap / price
    return _linear_share * most


cdef inline double configured_qty(
    double budget, double price, const Strategy* s, const Market* market
) noexcept nogil:
    # The first entry as the config asks for it, before the venue's minimum raises it.
    return floor_qty(
        to_contracts(budget, price, market.inverse) * s.leverage * s.entry_qty_pct,
        market.qty_step)


cdef inline double first_entry_qty(
    double budget, double price, const Strategy* s, const Market* market
) noexcept nogil:
    cdef double qty = configured_qty(budget, price, s, market)
    cdef double least = min_order_qty(price, market)
    return qty if qty > least else least


cdef Levels stop_levels(
    int64_t side, double entry, double liq, const Strategy* s
) noexcept nogil:
    cdef Levels levels
    levels.liq = -side * INFINITY
    levels.pos = -side * INFINITY
    if s.stop_loss_pos_reduction > 0.0:
        if liq > 0.0:
            levels.liq = liq * (1.0 + side * s.stop_loss_liq_diff)
        levels.pos = entry * (1.0 - side * s.stop_loss_pos_price_diff)
    return levels


cdef int64_t stop_reached(int64_t side, double price, Levels levels) noexcept nogil:
    # Kind of the stop whose level a print at this price has reached; 0 = none.
    if side * price <= side * levels.liq:
        return Kind.STOP_LOSS_LIQ_DIFF
    return Kind.STOP_LOSS_POS_PRICE_DIFF if side * price <= side * levels.pos else 0


cdef inline void put(
    Order* out, int64_t side, double price, double qty, int64_t reduce_only, int64_t kind
) noexcept nogil:
    out.side = side
    out.price = price
    out.qty = qty
    out.reduce_only = reduce_only
    out.kind = kind


cdef int put_flat_entries(
    Order* out, double budget, const View* view, const Strategy* s, const Market* market
) noexcept nogil:
    cdef int n = 0
    cdef int64_t side
    cdef double price, qty, room
    for side in range(1, -2, -2):
        if not (s.do_long if side > 0 else s.do_short):
            continue
        # An unknown rate is NaN and compares false: nothing is opened on a guess.
        if s.funding_fee_collect_mode and not side * view.funding_rate < 0.0:
            continue
        price = round_away(view.ema * (1.0 - side * s.ema_spread), market.price_step, side)
        if not (0.0 < price and grid_near(price, market.price_step) <= MAX_STEPS):
            continue
        room = floor_qty(max_position(budget, price, s.leverage, market), market.qty_step)
        if not room >= min_order_qty(price, market):
            continue
        qty = first_entry_qty(budget, price, s, market)
        qty = qty if qty < room else room
        if not grid_near(qty, market.qty_step) <= MAX_STEPS:
            continue
        put(&out[n], side, price, qty, 0, Kind.ENTRY)
        n += 1
    return n


cdef int put_reentries(
    Order* out, double budget, const View* view, const Strategy* s, const Market* market
) noexcept nogil:
    # Each rung is where the position that the rung before it would leave wants its next entry.
    cdef int64_t side = 1 if view.size > 0.0 else -1
    cdef double held = fabs(view.size)
    cdef double entry = view.entry_price
    cdef double previous = 0.0
    cdef double price, qty, least, room, g
    cdef Step coarse
    cdef int n = 0
    while n < s.n_entry_orders and n < MAX_RUNGS:
        g = s.grid_spacing * (
            1.0 + cost(held, entry, market.inverse) / s.leverage / budget * s.grid_coefficient)
        coarse.units = market.price_step.units * ceil_steps(
            entry * s.grid_spacing / 4.0, market.price_step)
        coarse.scale = market.price_step.scale
        price = round_away(entry * (1.0 - side * g), coarse, side)
        if n > 0 and not side * price < side * previous:
            price = grid_value(
                ceil_steps(previous, coarse) - 1.0 if side > 0
                else floor_steps(previous, coarse) + 1.0, coarse)
        if not (0.0 < price and grid_near(price, market.price_step) <= MAX_STEPS):
            break
        least = min_order_qty(price, market)
        room = floor_qty(max_position(budget, price, s.leverage, market) - held, market.qty_step)
        if not room >= least:
            break
        qty = floor_qty(held * s.ddown_factor, market.qty_step)
        qty = qty if qty > least else least
        qty = qty if qty < room else room
        if not grid_near(held + qty, market.qty_step) <= MAX_STEPS:
            break
        put(&out[n], side, price, qty, 0, Kind.REENTRY)
        entry = average_entry(held, entry, qty, price, market.inverse)
        held = near_to(held + qty, market.qty_step)
        previous = price
        n += 1
    return n


cdef int put_closes(
    Order* out, double budget, double reserved, const View* view, const Strategy* s,
    const Market* market,
) noexcept nogil:
    # Quantities are counted in whole steps here, so that equal shares and sums are exact.
    cdef int64_t side = 1 if view.size > 0.0 else -1
    cdef Step step = market.qty_step
    cdef double held = grid_near(fabs(view.size), step)
    cdef double stop = grid_near(reserved, step)
    cdef double base = grid_near(view.close_base, step)
    cdef double start = view.entry_price * (1.0 + side * s.min_markup)
    cdef double end = view.entry_price * (1.0 + side * s.max_markup)
    cdef double least = min_order_qty(view.entry_price, market)
    cdef double min_close = floor_to(
        first_entry_qty(budget, view.entry_price, s, market) * s.min_close_qty_multiplier, step)
    cdef double spare = 0.0
    cdef double price, qty, share, taken, gone
    cdef int i, n, kept, last
    if not held > stop:
        return 0
    if not base >= held:
        base = held
    min_close = grid_near(min_close if min_close > least else least, step)
    qty = floor(base / min_close) if min_close > 0.0 else base
    n = <int>min(<double>min(s.n_close_orders, MAX_RUNGS), qty)

    kept = 0
    for i in range(n if n > 1 else 1):
        price = end if n > 1 and i == n - 1 else start
        if 0 < i < n - 1:
            price = i * ((end - start) / (n - 1)) + start
        price = round_away(price, market.price_step, -side)
        if price <= 0.0:
            price = grid_value(1.0, market.price_step)
        if kept == 0 or price != out[kept - 1].price:
            put(&out[kept], -side, price, 0.0, 1, Kind.CLOSE)
            kept += 1
    if kept > 1 and fabs(out[1].price - out[0].price) / out[0].price > _widest_gap:
        kept = 1

    # Equal shares of the size the grid was built from, the odd steps on the farthest orders; what
    # has been closed since is gone from the near end, what a stop will close from the far end.
    share = floor(base / kept)
    gone = base - held
    for i in range(kept):
        qty = share + (1.0 if i >= kept - (base - share * kept) else 0.0)
        taken = gone if gone < qty else qty
        gone -= taken
        out[i].qty = qty - taken
    for i in range(kept - 1, -1, -1):
        taken = stop if stop < out[i].qty else out[i].qty
        stop -= taken
        out[i].qty -= taken

    n = 0
    last = -1
    for i in range(kept):
        qty = out[i].qty
        if grid_value(qty, step) < min_order_qty(out[i].price, market):
            spare += qty
        elif qty > 0.0:
            last = n
            put(&out[n], -side, out[i].price, qty, 1, Kind.CLOSE)
            n += 1
    if last < 0:
        # out[0] still has the first price: nothing was moved down.
        n = 1
        last = 0
        out[0].qty = 0.0
    out[last].qty += spare
    for i in range(n):
        out[i].qty = grid_value(out[i].qty, step)
    return n


cdef int put_stop(
    Order* out, const View* view, const Strategy* s, const Market* market
) noexcept nogil:
    # The outstanding stop as it rests, or the one that a print has asked for.
    cdef int64_t side = 1 if view.size > 0.0 else -1
    cdef double held = fabs(view.size)
    cdef double price = view.ask if side > 0 else view.bid
    cdef double least, qty
    if view.stop_qty > 0.0:
        qty = view.stop_qty if view.stop_qty < held else held
        put(out, -side, view.stop_price, qty, 1, view.stop_kind)
        return 1
    if view.stop_due == 0:
        return 0
    least = min_order_qty(price, market)
    qty = ceil_to(held * s.stop_loss_pos_reduction, market.qty_step)
    qty = qty if qty > least else least
    if near_to(held - qty, market.qty_step) < least:
        qty = held
    put(out, -side, price, qty, 1, view.stop_due)
    return 1


cdef int plan(
    Order* out, const View* view, const Strategy* s, const Market* market
) noexcept nogil:
    # Writes up to MAX_ORDERS ideal orders and returns how many: the stop, then what opens or adds,
    # then what closes, each nearest first.
    cdef double balance = budget(view, s)
    cdef int64_t side
    cdef int n
    if view.size == 0.0:
        return put_flat_entries(out, balance, view, s, market)
    side = 1 if view.size > 0.0 else -1
    n = put_stop(out, view, s, market)
    cdef double reserved = out[0].qty if n else 0.0
    # What a stop closes must not be bought back within the minute.
    if n == 0 and balance > 0.0 and 0 == stop_reached(
        side, view.last_price, stop_levels(side, view.entry_price, view.liq_price, s)
    ):
        n += put_reentries(&out[n], balance, view, s, market)
    return n + put_closes(&out[n], balance, reserved, view, s, market)


cdef bint create(
    Order* sent, const Order* ideal, bint nearest,
    const View* view, const Strategy* s, const Market* market,
) noexcept nogil:
    # What an ideal order becomes in the book of the moment; False: it must not be sent now.
    cdef double price = ideal.price
    cdef double limit, least
    cdef Step step = market.price_step
    sent[0] = ideal[0]
    if ideal.kind == Kind.ENTRY:
        limit = view.bid if ideal.side > 0 else view.ask
    elif ideal.side > 0:
        limit = grid_value(grid_near(view.ask, step) - 1.0, step)
    else:
        limit = grid_value(grid_near(view.bid, step) + 1.0, step)
    if ideal.kind == Kind.REENTRY:
        if fabs(price - view.last_price) / view.last_price > s.max_order_distance:
            return False
        if not nearest and ideal.side * price > ideal.side * limit:
            return False
    if ideal.side * price > ideal.side * limit:
        price = limit
    if not price > 0.0:
        return False
    sent.price = price
    if not ideal.reduce_only:
        least = min_order_qty(price, market)
        if least > sent.qty:
            sent.qty = least
    return True


# --- doors ------------------------------------------------------------------------------------

def plan_ideal(const View[::1] view, const Strategy[::1] strategy, const Market[::1] market):
    """Return the ideal orders: what the bot wants, before looking at the book of the moment.

    Parameters
    ----------
    view, strategy, market : ndarrays of VIEW_DTYPE, STRATEGY_DTYPE, MARKET_DTYPE, shape (1,)
        Numbers as ``Config``, ``Market`` and the account give them; prices > 0.

    Returns
    -------
    ndarray of ORDER_DTYPE, shape (n,), n <= 401
        The stop, then entries or re-entries, then closes, each nearest first.

    Raises
    ------
    ValueError
        If an input is not one record, or a price the planner divides by is not > 0.
    """
    cdef Order[::1] orders
    cdef int n
    _check(view, strategy, market)
    out = np.zeros(MAX_ORDERS, _ORDER_DTYPE)
    orders = out
    with nogil:
        n = plan(&orders[0], &view[0], &strategy[0], &market[0])
    return out[:n].copy()


def configured_entry_qty(
    double wallet, double price, const Strategy[::1] strategy, const Market[::1] market,
):
    """Return the first entry the config asks for, whole steps, before the venue's minimum.

    ``wallet`` in settle currency, ``price`` > 0; strategy and market are one record each.
    """
    if not strategy.shape[0] == market.shape[0] == 1:
        raise ValueError("strategy and market must be one record each")
    if not 0.0 < price < INFINITY:
        raise ValueError(f"price must be finite and > 0, was {price}")
    return configured_qty(wallet * strategy[0].balance_pct, price, &strategy[0], &market[0])


def due_stop(const View[::1] view, const Strategy[::1] strategy):
    """Return the kind of stop that a print at the view's last price asks for, 0 for none.

    Any print at or beyond a level starts a stop, so a caller that sees every print asks at each of
    them and hands the answer to the plan as ``stop_due``.
    """
    cdef int64_t side
    if not view.shape[0] == strategy.shape[0] == 1:
        raise ValueError("view and strategy must be one record each")
    if view[0].size == 0.0:
        return 0
    side = 1 if view[0].size > 0.0 else -1
    return stop_reached(
        side, view[0].last_price,
        stop_levels(side, view[0].entry_price, view[0].liq_price, &strategy[0]))


def plan_sent(
    const Order[::1] ideal,
    const View[::1] view, const Strategy[::1] strategy, const Market[::1] market,
):
    """Return what each ideal order becomes when it is sent now, and whether it may be.

    Flat entries are clamped to the best bid or ask; orders in position only as far as post-only
    needs. Re-entries further than ``max_order_distance`` from the last price wait, and so do all
    but the nearest that would have to be clamped.

    Returns
    -------
    sent : ndarray of ORDER_DTYPE, shape (n,)
    now : ndarray of bool, shape (n,)
    """
    cdef Order[::1] sent
    cdef unsigned char[::1] now
    cdef Py_ssize_t i
    cdef bint first = True
    _check(view, strategy, market)
    out = np.zeros(ideal.shape[0], _ORDER_DTYPE)
    flags = np.zeros(ideal.shape[0], np.uint8)
    sent = out
    now = flags
    for i in range(ideal.shape[0]):
        now[i] = create(&sent[i], &ideal[i], first, &view[0], &strategy[0], &market[0])
        if ideal[i].kind == Kind.REENTRY:
            first = False
    return out, flags.astype(bool)


cdef _check(const View[::1] view, const Strategy[::1] strategy, const Market[::1] market):
    if not view.shape[0] == strategy.shape[0] == market.shape[0] == 1:
        raise ValueError("view, strategy and market must be one record each")
    for name, price in (
        ("last_price", view[0].last_price), ("bid", view[0].bid), ("ask", view[0].ask),
        ("ema", view[0].ema), ("leverage", strategy[0].leverage),
    ):
        if not 0.0 < price < INFINITY:
            raise ValueError(f"{name} must be finite and > 0, was {price}")
    if view[0].size != 0.0 and not 0.0 < view[0].entry_price < INFINITY:
        raise ValueError(f"entry_price must be finite and > 0, was {view[0].entry_price}")
    for name, number in (
        ("wallet", view[0].wallet), ("equity", view[0].equity), ("size", view[0].size),
        ("liq_price", view[0].liq_price), ("close_base", view[0].close_base),
        ("stop_price", view[0].stop_price), ("stop_qty", view[0].stop_qty),
    ):
        if not -INFINITY < number < INFINITY:
            raise ValueError(f"{name} must be finite, was {number}")
