"""The planner in slow, plain Python, written from docs/planner.md; ``_core/grid`` must equal it.

Every quantity and price that is rounded is a whole number of steps here (``*_k``), so sums and
shares are exact; everything else is a float, evaluated left to right as the rules write it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .formulas_twin import (
    MOST_STEPS,
    BeyondGridError,
    Step,
    average_entry,
    ceil_to,
    cost,
    floor_to,
    near_to,
    steps_above,
    steps_below,
    steps_near,
)

ENTRY, REENTRY, CLOSE, STOP_LIQ, STOP_PRICE = 1, 2, 3, 4, 5


class Order(NamedTuple):
    side: int
    price: float
    qty: float
    reduce_only: int
    kind: int


def floor_or_inf(x: float, step: Step) -> float:
    """Round down; what is beyond the grid is more than any order may have."""
    return math.inf if x * step.scale / step.units > MOST_STEPS else floor_to(x, step)


def fits(qty: float, step: Step) -> bool:
    return qty * step.scale / step.units <= MOST_STEPS


@dataclass(frozen=True)
class Rules:
    """The market's rules and the config: what does not change from plan to plan."""

    price_step: Step
    qty_step: Step
    min_qty: float
    min_cost: float
    notional_cap: float
    inverse: bool
    leverage: float
    entry_qty_pct: float

    def min_qty_at(self, price: float) -> float:
        """Return the least quantity the venue takes; infinite if that is beyond the grid."""
        least = max(self.min_qty, self.qty_step.value(1))
        if self.inverse:
            return least
        try:
            return max(least, ceil_to(self.min_cost / price, self.qty_step))
        except BeyondGridError:
            return math.inf

    def max_position(self, price: float, budget: float) -> float:
        if self.inverse:
            return 0.95 * budget * price * self.leverage
        return 0.92 * min(budget / price * self.leverage, self.notional_cap / price)

    def first_qty(self, price: float, budget: float) -> float:
        contracts = budget * price if self.inverse else budget / price
        wanted = contracts * self.leverage * self.entry_qty_pct
        return max(self.min_qty_at(price), floor_or_inf(wanted, self.qty_step))


def unpack(record: npt.NDArray[np.void]) -> SimpleNamespace:
    names = record.dtype.names or ()
    return SimpleNamespace(**dict(zip(names, record[0].item(), strict=True)))


def _step(pair: Any) -> Step:
    return Step(int(pair[0]), int(pair[1]))


def rules_of(market: npt.NDArray[np.void], strategy: npt.NDArray[np.void]) -> Rules:
    m, c = unpack(market), unpack(strategy)
    return Rules(
        price_step=_step(m.price_step),
        qty_step=_step(m.qty_step),
        min_qty=m.min_qty,
        min_cost=m.min_cost,
        notional_cap=m.notional_cap,
        inverse=bool(m.inverse),
        leverage=c.leverage,
        entry_qty_pct=c.entry_qty_pct,
    )


def budget_of(view: Any, config: Any) -> float:
    """The share of the wallet that sizes orders, never more than the equity."""
    return min(view.wallet * config.balance_pct, view.equity)


def away_k(x: float, side: int, step: Step) -> int:
    """Down for a buy, up for a sell: the safe side of the book."""
    return steps_below(x, step) if side > 0 else steps_above(x, step)


def flat_entries(view: Any, config: Any, rules: Rules) -> list[Order]:
    out = []
    budget = budget_of(view, config)
    for side, allowed in ((1, config.do_long), (-1, config.do_short)):
        # An unknown rate (NaN) compares false and so allows nothing.
        if config.funding_fee_collect_mode and not side * view.funding_rate < 0.0:
            continue
        if not allowed:
            continue
        try:
            k = away_k(view.ema * (1.0 - side * config.ema_spread), side, rules.price_step)
            if k <= 0:
                continue
            price = rules.price_step.value(k)
            room = floor_or_inf(rules.max_position(price, budget), rules.qty_step)
            if room < rules.min_qty_at(price):
                continue
            qty = min(rules.first_qty(price, budget), room)
            if fits(qty, rules.qty_step):
                out.append(Order(side, price, qty, 0, ENTRY))
        except BeyondGridError:
            continue
    return out


def reentries(view: Any, config: Any, rules: Rules, side: int) -> list[Order]:
    out: list[Order] = []
    budget = budget_of(view, config)
    size, entry = abs(view.size), view.entry_price
    if not budget > 0.0:
        return out
    try:
        while len(out) < config.n_entry_orders:
            margin = cost(size, entry, rules.inverse) / rules.leverage
            g = config.grid_spacing * (1.0 + margin / budget * config.grid_coefficient)
            coarse = rules.price_step.times(
                steps_above(entry * config.grid_spacing / 4.0, rules.price_step)
            )
            k = away_k(entry * (1.0 - side * g), side, coarse)
            if out and not side * coarse.value(k) < side * out[-1].price:
                # The nearest multiple strictly beyond the rung before.
                k = away_k(out[-1].price, side, coarse)
                if coarse.value(k) == out[-1].price:
                    k -= side
            price = coarse.value(k)
            if not price > 0.0 or k * coarse.units > MOST_STEPS * rules.price_step.units:
                break
            room = floor_or_inf(rules.max_position(price, budget) - size, rules.qty_step)
            least = rules.min_qty_at(price)
            if room < least:
                break
            qty = floor_or_inf(size * config.ddown_factor, rules.qty_step)
            qty = min(max(least, qty), room)
            if not fits(size + qty, rules.qty_step):
                break
            out.append(Order(side, price, qty, 0, REENTRY))
            entry = average_entry(size, entry, qty, price, rules.inverse)
            size = near_to(size + qty, rules.qty_step)
    except BeyondGridError:
        pass
    return out


def close_prices_k(entry: float, config: Any, rules: Rules, side: int, n: int) -> list[int]:
    """Evenly spaced markups, rounded away from the entry, each price once."""
    start = entry * (1.0 + side * config.min_markup)
    end = entry * (1.0 + side * config.max_markup)
    wanted = [start]
    if n > 1:
        wanted = [i * ((end - start) / (n - 1)) + start for i in range(n - 1)] + [end]
    out: list[int] = []
    for price in wanted:
        # A close sells a long: it is rounded as the opposite side's order.
        k = max(1, away_k(price, -side, rules.price_step))
        if k not in out:
            out.append(k)
    return out


def closes_that_fit(base_k: int, entry: float, budget: float, config: Any, rules: Rules) -> int:
    try:
        smallest = rules.min_qty_at(entry)
        if config.min_close_qty_multiplier > 0.0:
            share = rules.first_qty(entry, budget) * config.min_close_qty_multiplier
            smallest = max(smallest, floor_to(share, rules.qty_step))
        return base_k // steps_near(smallest, rules.qty_step)
    except BeyondGridError:
        return 0


def closes(view: Any, config: Any, rules: Rules, side: int, stop_qty: float) -> list[Order]:
    step = rules.qty_step
    size_k = steps_near(abs(view.size), step)
    stop_k = steps_near(stop_qty, step)
    base_k = size_k
    if view.close_base > abs(view.size):
        base_k = steps_near(view.close_base, step)
    entry, budget = view.entry_price, budget_of(view, config)

    def order(price_k: int, qty_k: int) -> Order:
        return Order(-side, rules.price_step.value(price_k), step.value(qty_k), 1, CLOSE)

    n = min(config.n_close_orders, closes_that_fit(base_k, entry, budget, config, rules))
    prices = close_prices_k(entry, config, rules, side, max(n, 1))
    total_k = size_k - stop_k
    if total_k <= 0:
        return []
    single = [order(prices[0], total_k)]
    if n < 1 or len(prices) == 1:
        return single
    first, second = (rules.price_step.value(k) for k in prices[:2])
    if abs(second - first) / first > 0.003:
        return single

    count = len(prices)
    small, larger = divmod(base_k, count)
    shares = [small] * (count - larger) + [small + 1] * larger
    gone = base_k - size_k
    for i in range(count):
        used = min(gone, shares[i])
        shares[i] -= used
        gone -= used
    for i in reversed(range(count)):
        used = min(stop_k, shares[i])
        shares[i] -= used
        stop_k -= used

    kept, homeless = [], 0
    for price_k, share in zip(prices, shares, strict=True):
        if share and step.value(share) >= rules.min_qty_at(rules.price_step.value(price_k)):
            kept.append([price_k, share])
        else:
            homeless += share
    if not kept:
        return single
    kept[-1][1] += homeless
    return [order(price_k, share) for price_k, share in kept]


def level_reached(view: Any, config: Any, side: int) -> int:
    """Return the kind of the stop whose level the last price has reached, 0 for none."""
    if not config.stop_loss_pos_reduction > 0.0:
        return 0
    if view.liq_price > 0.0:
        level = view.liq_price * (1.0 + side * config.stop_loss_liq_diff)
        if side * view.last_price <= side * level:
            return STOP_LIQ
    level = view.entry_price * (1.0 - side * config.stop_loss_pos_price_diff)
    return STOP_PRICE if side * view.last_price <= side * level else 0


def stop(view: Any, config: Any, rules: Rules, side: int) -> Order | None:
    size = abs(view.size)
    if view.stop_qty > 0.0:
        return Order(-side, view.stop_price, min(view.stop_qty, size), 1, view.stop_kind)
    kind = view.stop_due
    if not kind:
        return None
    price = view.ask if side > 0 else view.bid
    least = rules.min_qty_at(price)
    step = rules.qty_step
    qty = max(least, ceil_to(size * config.stop_loss_pos_reduction, step))
    if math.isinf(qty) or near_to(size - qty, step) < least:
        qty = size
    return Order(-side, price, qty, 1, kind)


def plan_ideal(
    view_record: npt.NDArray[np.void],
    strategy: npt.NDArray[np.void],
    market: npt.NDArray[np.void],
) -> list[Order]:
    """The stop, then entries or re-entries, then closes, each nearest first."""
    view, config = unpack(view_record), unpack(strategy)
    rules = rules_of(market, strategy)
    if view.size == 0.0:
        return flat_entries(view, config, rules)
    side = 1 if view.size > 0.0 else -1
    out = []
    stopping = stop(view, config, rules, side)
    if stopping:
        out.append(stopping)
    if not stopping and not level_reached(view, config, side):
        out += reentries(view, config, rules, side)
    return out + closes(view, config, rules, side, stopping.qty if stopping else 0.0)


def plan_sent(
    ideal: list[Order],
    view_record: npt.NDArray[np.void],
    strategy: npt.NDArray[np.void],
    market: npt.NDArray[np.void],
) -> list[tuple[Order, bool]]:
    """What each ideal order becomes when it is sent into this book, and whether it may be."""
    view, config = unpack(view_record), unpack(strategy)
    rules = rules_of(market, strategy)
    one_step = rules.price_step.value(1)
    out = []
    rungs_before = 0
    for want in ideal:
        buys = want.side > 0
        if want.kind == ENTRY:
            price = min(want.price, view.bid) if buys else max(want.price, view.ask)
        elif buys:
            price = min(want.price, near_to(view.ask - one_step, rules.price_step))
        else:
            price = max(want.price, near_to(view.bid + one_step, rules.price_step))
        if want.kind == REENTRY:
            far = abs(want.price - view.last_price) / view.last_price > config.max_order_distance
            behind = rungs_before > 0 and price != want.price
            rungs_before += 1
            if far or behind:
                # It waits, and is nothing but its ideal until then.
                out.append((want, False))
                continue
        if not price > 0.0:
            out.append((want, False))
            continue
        qty = want.qty if want.reduce_only else max(want.qty, rules.min_qty_at(price))
        out.append((want._replace(price=price, qty=qty), True))
    return out


def as_orders(orders: npt.NDArray[np.void]) -> list[Order]:
    return [Order(*order.item()) for order in orders]


def is_finite(order: Order) -> bool:
    return math.isfinite(order.price) and math.isfinite(order.qty)
