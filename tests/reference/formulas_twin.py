"""The arithmetic of docs/planner.md, slow and plain: what ``_core/formulas.pxd`` must equal.

Rounding is exact (whole numbers and fractions). Money is Python floats, left to right, as the
rules say; the exact solution of the liquidation equation is a Fraction beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Beyond this many steps the rules promise nothing.
MOST_STEPS = 10**11


class BeyondGridError(ValueError):
    """A value lies more than 1e11 steps from zero, or is not a number at all."""


@dataclass(frozen=True)
class Step:
    """An increment of ``units / scale``; 0.05 is Step(5, 100)."""

    units: int
    scale: int

    def value(self, k: int) -> float:
        """Return the k-th grid value. True division of two ints rounds once, correctly."""
        return k * self.units / self.scale

    def times(self, k: int) -> Step:
        """Return the coarser grid that keeps every k-th value."""
        return Step(self.units * k, self.scale)


def steps_below(x: float, step: Step) -> int:
    """Return the greatest whole k whose grid *double* is <= x."""
    if not abs(x) < float("inf"):
        raise BeyondGridError(x)
    exact = Fraction(x) * step.scale / step.units
    if abs(exact) > MOST_STEPS:
        raise BeyondGridError(x)
    k = exact.numerator // exact.denominator
    # k/s <= x exactly, and rounding is monotone, so its double is <= x as well. The next one may
    # lie above x exactly and still be the same double: 0.29 is a little less than 29/100.
    while step.value(k + 1) <= x:
        k += 1
    return k


def steps_above(x: float, step: Step) -> int:
    """Return the least whole k whose grid double is >= x."""
    return -steps_below(-x, step)


def steps_near(x: float, step: Step) -> int:
    """Return the k whose grid value is nearest; a tie goes to the even k."""
    if not abs(x) < float("inf"):
        raise BeyondGridError(x)
    exact = Fraction(x) * step.scale / step.units
    if abs(exact) > MOST_STEPS:
        raise BeyondGridError(x)
    return round(exact)


def floor_to(x: float, step: Step) -> float:
    return step.value(steps_below(x, step))


def ceil_to(x: float, step: Step) -> float:
    return step.value(steps_above(x, step))


def near_to(x: float, step: Step) -> float:
    return step.value(steps_near(x, step))


def cost(qty: float, price: float, inverse: bool) -> float:
    return abs(qty / price) if inverse else abs(qty * price)


def pnl_exact(
    entry: float, exit_: float, qty: float, position_side: int, inverse: bool
) -> Fraction:
    """Return what closing ``qty`` (> 0) earns, without any rounding."""
    if inverse:
        return position_side * Fraction(qty) * (1 / Fraction(entry) - 1 / Fraction(exit_))
    return position_side * Fraction(qty) * (Fraction(exit_) - Fraction(entry))


def average_entry(size: float, entry: float, qty: float, price: float, inverse: bool) -> float:
    if size == 0.0:
        return price
    if inverse:
        return (size + qty) / (size / entry + qty / price)
    return (size * entry + qty * price) / (size + qty)


@dataclass(frozen=True)
class Tier:
    floor: float
    rate: float
    deduction: float = 0.0


def tier_solution(
    size: float, entry: float, collateral: float, tier: Tier, inverse: bool
) -> Fraction | None:
    """Solve equity = maintenance margin for the price, were ``tier`` the one that counts.

    Linear: ``c + side s (P - E) = s P m - d``; inverse: ``c + side s (1/E - 1/P) = m s/P - d``.
    """
    side = 1 if size > 0 else -1
    s, e, c = Fraction(abs(size)), Fraction(entry), Fraction(collateral)
    m, d = Fraction(tier.rate), Fraction(tier.deduction)
    if inverse:
        above, below = s * (side + m), c + d + side * s / e
    else:
        above, below = side * s * e - c - d, s * (side - m)
    if below == 0 or above / below <= 0:
        return None
    return above / below


def liquidation_prices(
    size: float, entry: float, collateral: float, tiers: Sequence[Tier], inverse: bool
) -> list[Fraction]:
    """Return every price that solves the equation in the very tier its notional falls in."""
    out = []
    for i, tier in enumerate(tiers):
        price = tier_solution(size, entry, collateral, tier, inverse)
        if price is None:
            continue
        s = Fraction(abs(size))
        notional = s / price if inverse else s * price
        top = Fraction(tiers[i + 1].floor) if i + 1 < len(tiers) else None
        if notional >= Fraction(tier.floor) and (top is None or notional < top):
            out.append(price)
    return out
