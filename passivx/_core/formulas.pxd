# The venue's arithmetic, header only: inlined into every kernel that cimports it.
# Long and short are one formula with side = +1 / -1; linear and inverse part ways only here.
# Everything is evaluated left to right in doubles. Callers see to it that divisors are not zero.
from libc.math cimport ceil, fabs, floor, rint
from libc.stdint cimport int64_t
from passivx._core.types cimport Market, Step, Tier


cdef extern from *:
    """
    #define PASSIVX_MAX_STEPS 1e11
    """
    # Beyond so many steps a double no longer tells neighbouring grid values apart.
    const double MAX_STEPS "PASSIVX_MAX_STEPS"


# --- the venue's grid -------------------------------------------------------------------------
# A grid value is k * units / scale with whole k: one correctly rounded division, so the result is
# the very double that the venue's decimal string parses to, and == and < between them are exact.

cdef inline double grid_value(double k, Step step) noexcept nogil:
    return k * step.units / step.scale


cdef inline double grid_near(double x, Step step) noexcept nogil:
    # Number of steps nearest to x.
    return rint(x * step.scale / step.units)


cdef inline double floor_steps(double x, Step step) noexcept nogil:
    # The greatest k with k * units / scale <= x. The quotient is off by far less than half a
    # step while x / step <= MAX_STEPS, so the nearest whole number is at most one too high.
    cdef double k = grid_near(x, step)
    return k - 1.0 if grid_value(k, step) > x else k


cdef inline double ceil_steps(double x, Step step) noexcept nogil:
    cdef double k = grid_near(x, step)
    return k + 1.0 if grid_value(k, step) < x else k


cdef inline double floor_to(double x, Step step) noexcept nogil:
    return grid_value(floor_steps(x, step), step)


cdef inline double ceil_to(double x, Step step) noexcept nogil:
    return grid_value(ceil_steps(x, step), step)


cdef inline double near_to(double x, Step step) noexcept nogil:
    return grid_value(grid_near(x, step), step)


cdef inline double round_away(double x, Step step, int64_t side) noexcept nogil:
    # Away from the market for an order of this side: a buy down, a sell up.
    return floor_to(x, step) if side > 0 else ceil_to(x, step)


# --- money ------------------------------------------------------------------------------------

cdef inline double cost(double qty, double price, int64_t inverse) noexcept nogil:
    # Notional in settle currency: quote (linear) or base coin (inverse).
    return fabs(qty / price) if inverse else fabs(qty * price)


cdef inline double pnl(
    int64_t side, double entry, double exit, double qty, int64_t inverse
) noexcept nogil:
    # side is the position's; qty its closed part, either sign. Subtracted in the side's own order,
    # not multiplied by it: a short closed at its entry gains 0.0, not -0.0.
    cdef double bought = entry if side > 0 else exit
    cdef double sold = exit if side > 0 else entry
    if inverse:
        return fabs(qty) * (1.0 / bought - 1.0 / sold)
    return fabs(qty) * (sold - bought)


cdef inline double average_entry(
    double size, double entry, double qty, double price, int64_t inverse
) noexcept nogil:
    # Entry of size (at entry) and qty (at price) together, both > 0 or both < 0. Inverse averages
    # harmonically because a contract's coin value is 1 / price.
    if size == 0.0:
        return price
    if inverse:
        return (size + qty) / (size / entry + qty / price)
    return (size * entry + qty * price) / (size + qty)


cdef inline double to_contracts(double balance, double price, int64_t inverse) noexcept nogil:
    # What `balance` of settle currency buys unleveraged: base units or contracts.
    return balance * price if inverse else balance / price


cdef inline double min_order_qty(double price, const Market* market) noexcept nogil:
    # The venue's least quantity at this price: lot minimum and, linear only, least notional.
    cdef double least
    if market.inverse:
        return market.min_qty
    least = ceil_to(market.min_cost / price, market.qty_step)
    return least if least > market.min_qty else market.min_qty


cdef inline double maintenance_price(
    int64_t side, double qty, double entry, double collateral,
    double rate, double deduction, int64_t inverse,
) noexcept nogil:
    # Price at which collateral + open pnl meets the maintenance margin within one tier; 0 = none.
    # Linear: Binance, LP = (WB + cum - side*Q*EP) / (Q*mmr - side*Q).
    # Inverse: Bybit, S*(1 + side*mmr) / (S/EP + side*(collateral + deduction)).
    cdef double below, price
    if inverse:
        below = qty / entry + side * (collateral + deduction)
        price = qty * (1.0 + side * rate) / below if below > 0.0 else 0.0
    else:
        below = qty * rate - side * qty
        price = (collateral + deduction - side * qty * entry) / below if below != 0.0 else 0.0
    return price if price > 0.0 else 0.0


cdef inline double liquidation_price(
    int64_t side, double qty, double entry, double collateral,
    const Tier* tiers, Py_ssize_t n_tiers, int64_t inverse,
) noexcept nogil:
    # The tier counts that the notional AT the liquidation price falls in. The tiers are walked as a
    # losing position meets them, so that in a table without deductions, where the maintenance
    # margin jumps at a floor, the first level reached is the answer: the jump itself, if need be.
    # collateral: wallet (cross) or the position's margin (isolated).
    cdef bint shrinking = side < 0 if inverse else side > 0
    cdef Py_ssize_t i, k
    cdef double price, notional
    for k in range(n_tiers):
        i = n_tiers - 1 - k if shrinking else k
        price = maintenance_price(
            side, qty, entry, collateral, tiers[i].maintenance_rate, tiers[i].deduction, inverse)
        if price == 0.0:
            continue
        notional = cost(qty, price, inverse)
        if shrinking:
            if notional >= tiers[i].floor:
                return price
        elif notional < tiers[i].floor:
            return qty / tiers[i].floor if inverse else tiers[i].floor / qty
        elif i + 1 == n_tiers or notional < tiers[i + 1].floor:
            return price
    return 0.0
