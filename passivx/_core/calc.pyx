"""Python doors onto the arithmetic of ``formulas.pxd``, one value at a time."""

from libc.math cimport floor, isfinite
from libc.stdint cimport int64_t
from passivx._core cimport formulas
from passivx._core.types cimport Market, Step, Tier


MAX_STEPS = formulas.MAX_STEPS
_SCALES = frozenset(float(10**digits) for digits in range(16))


cdef Step _step(step) except *:
    cdef Step s
    s.units, s.scale = step
    if not (
        isfinite(s.units) and s.units > 0.0 and s.units == floor(s.units) and s.scale in _SCALES
    ):
        raise ValueError(f"step must be (whole units > 0, power of ten <= 1e15), was {step}")
    return s


cdef double _gridable(double x, Step step) except? -1.0:
    if not (isfinite(x) and abs(x) * step.scale / step.units <= formulas.MAX_STEPS):
        raise ValueError(f"value must be finite and at most 1e11 steps, was {x}")
    return x


cdef double _positive(str name, double x) except? -1.0:
    if not (isfinite(x) and x > 0.0):
        raise ValueError(f"{name} must be finite and > 0, was {x}")
    return x


def floor_to(double x, step):
    """Return the greatest grid value <= x; step is ``(units, scale)``, 0.05 is ``(5, 100)``.

    Exact: the result is the double that the venue's decimal string parses to. ValueError beyond
    1e11 steps, where a double no longer tells neighbouring quotients apart.
    """
    cdef Step s = _step(step)
    return formulas.floor_to(_gridable(x, s), s)


def ceil_to(double x, step):
    """Return the least grid value >= x; see floor_to."""
    cdef Step s = _step(step)
    return formulas.ceil_to(_gridable(x, s), s)


def near_to(double x, step):
    """Return the grid value nearest to x; see floor_to.

    Meant for values that only rounding noise keeps off the grid: within 1e-4 steps of the middle
    between two grid values either may come out.
    """
    cdef Step s = _step(step)
    return formulas.near_to(_gridable(x, s), s)


def cost(double qty, double price, *, bint inverse):
    """Return the notional in settle currency: qty * price linear, qty / price inverse."""
    return formulas.cost(qty, _positive("price", price), inverse)


def pnl(double entry_price, double exit_price, double qty, *, int64_t position_side, bint inverse):
    """Return the profit of closing ``qty`` of a position (+1 long, -1 short), settle currency.

    Inverse contracts of 1 quote unit pay ``qty * (1/entry - 1/exit)`` of the base coin.
    """
    if position_side != 1 and position_side != -1:
        raise ValueError(f"position_side must be 1 or -1, was {position_side}")
    return formulas.pnl(
        position_side, _positive("entry_price", entry_price), _positive("exit_price", exit_price),
        qty, inverse)


def average_entry(double size, double entry_price, double qty, double price, *, bint inverse):
    """Return the average entry price after adding ``qty`` at ``price`` to ``size``.

    Linear ``(s*E + q*p) / (s + q)``; inverse harmonic ``(s + q) / (s/E + q/p)``. Both sizes > 0;
    size 0 gives the price.
    """
    _positive("qty", qty)
    _positive("price", price)
    if size != 0.0:
        _positive("size", size)
        _positive("entry_price", entry_price)
    return formulas.average_entry(size, entry_price, qty, price, inverse)


def min_order_qty(double price, const Market[::1] market):
    """Return the venue's least quantity at ``price``: lot minimum and, linear only, least notional.

    ``market`` is one MARKET_DTYPE record, shape (1,). ValueError when the least notional is more
    than 1e11 quantity steps.
    """
    if market.shape[0] != 1:
        raise ValueError("market must be one record")
    _positive("price", price)
    if not market[0].inverse:
        _gridable(market[0].min_cost / price, market[0].qty_step)
    return formulas.min_order_qty(price, &market[0])


def liquidation_price(
    double size, double entry_price, double collateral, const Tier[::1] tiers, *, bint inverse,
):
    """Return the price at which the maintenance margin eats up the collateral; 0 = none.

    Parameters
    ----------
    size : float
        Signed position: base units (linear) or contracts (inverse); 0 gives 0.
    collateral : float
        Settle currency: the wallet (cross) or the position's own margin (isolated).
    tiers : ndarray of TIER_DTYPE, shape (n,), n >= 1
        Rising floors; the tier that the notional at the liquidation price falls in counts. Without
        deductions the maintenance margin jumps at a floor: the first level met counts.

    Notes
    -----
    Linear after Binance's published formula (one-way, one contract), inverse after Bybit's help
    centre with the settle coin as the only collateral; fees are left out, as the venues do.
    """
    if tiers.shape[0] == 0:
        raise ValueError("at least one tier is needed")
    if not (isfinite(size) and isfinite(collateral)):
        raise ValueError(f"size and collateral must be finite, were {size} and {collateral}")
    if size == 0.0:
        return 0.0
    return formulas.liquidation_price(
        1 if size > 0.0 else -1, abs(size), _positive("entry_price", entry_price), collateral,
        &tiers[0], tiers.shape[0], inverse)
