"""What must hold of any run of the exact engine, whoever made it: ``check(scenario, outcome)``.

Only the scenario's own data and the records are looked at; nothing here plans, queues or times
orders. What the records do not show (an order's ideal price, the moment it left) is bounded:

The position after a fill that adds to it is at most the planner's maximum at a bounding price with
a bounding budget, one step, and what a clamped price may have added to the venue's least quantity.
Budget: the largest of all earlier equity points. Price, linear (lower is more): the fill's own for
a buy, which is sent at or below its ideal; for a sell the lowest print so far less a step.
Inverse (higher is more): the fill's own for a sell, the highest print so far and a step for a buy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from passivx._core.types import Kind
from tests.reference.exact_twin import HOUR_MS, Outcome, Scenario
from tests.reference.grid_twin import budget_of, rules_of, unpack

STOPS = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)
OPENING = (Kind.ENTRY, Kind.REENTRY)
FIELDS = [
    "tick",
    "ts_ms",
    "position_side",
    "kind",
    "price",
    "qty",
    "pos_size",
    "pos_price",
    "liq_price",
    "pnl",
    "fee",
    "balance",
    "closest_liq",
]

Record = dict[str, Any]


def sign(x: float) -> int:
    return (x > 0.0) - (x < 0.0)


def close_to(a: float, b: float, scale: float = 0.0) -> bool:
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), abs(scale)) + 1e-15


def steps_of(x: float, pair: Any) -> int | None:
    """How many whole steps ``x`` is, None when no decimal string of the venue parses to it."""
    step = Decimal(int(pair[0])) / Decimal(int(pair[1]))
    k = round(Decimal(x) / step)
    return k if float(str(k * step)) == x else None


def check(scenario: Scenario, outcome: Outcome) -> None:
    """Assert everything, naming the record that breaks it."""
    checker = Checker(scenario, outcome)
    previous: Record | None = None
    for i, row in enumerate(outcome.records):
        try:
            checker.check_record(row, previous)
        except AssertionError as e:
            e.add_note(f"record {i}: {row}")
            e.add_note(f"before it: {previous}")
            raise
        previous = row
    checker.check_shares()
    checker.check_equity()
    checker.check_outcome()


def check_deterministic(run: Callable[[Scenario], Outcome], scenario: Scenario) -> Outcome:
    first, second = run(scenario), run(scenario)
    assert repr(first) == repr(second)
    return first


class Checker:
    def __init__(self, scenario: Scenario, outcome: Outcome) -> None:
        self.s, self.outcome = scenario, outcome
        self.market, self.config = unpack(scenario.market), unpack(scenario.strategy)
        self.rules = rules_of(scenario.market, scenario.strategy)
        self.inverse = bool(self.market.inverse)
        self.price, self.ts = scenario.price.tolist(), scenario.ts_ms.tolist()
        self.maker = scenario.buyer_maker.tolist()
        self.shares: dict[int, list[tuple[float, int]]] = defaultdict(list)  # tick: (price, steps)
        self.most_budget = self.budget(scenario.starting_balance, scenario.starting_balance)
        self.n_records = 0
        self.low, self.high = [math.inf], [0.0]
        for price in self.price:
            self.low.append(min(self.low[-1], price))
            self.high.append(max(self.high[-1], price))
        self.books = self.all_books()

    def budget(self, wallet: float, equity: float) -> float:
        return float(budget_of(SimpleNamespace(wallet=wallet, equity=equity), self.config))

    def cost(self, qty: float, price: float) -> float:
        return abs(qty / price) if self.inverse else abs(qty * price)

    def earns(self, size: float, entry: float, exit_: float) -> float:
        """Pnl of a signed position; Decimal, because 1/bought - 1/sold loses half the digits."""
        s, e, x = Decimal(size), Decimal(entry), Decimal(exit_)
        return float(s * (1 / e - 1 / x) if self.inverse else s * (x - e))

    def all_books(self) -> list[tuple[float, float]]:
        """Bid and ask after each print, on the price grid."""
        units, scale = self.market.price_step
        step = Decimal(int(units)) / Decimal(int(scale))

        def below(price: float) -> Decimal:
            return (math.ceil(Decimal(repr(price)) / step) - 1) * step

        def above(price: float) -> Decimal:
            return (math.floor(Decimal(repr(price)) / step) + 1) * step

        bid, ask = below(self.price[0]), above(self.price[0])
        out = []
        for price, maker in zip(self.price, self.maker, strict=True):
            exact = Decimal(repr(price))
            if maker:
                bid, ask = exact, above(price) if exact >= ask else ask
            else:
                ask, bid = exact, below(price) if exact <= bid else bid
            low = max(math.floor(bid / step), 1)
            high = max(math.ceil(ask / step), low + 1)
            out.append((float(low * step), float(high * step)))
        return out

    # --- one record ---

    def check_record(self, row: Record, before: Record | None) -> None:
        assert list(row) == FIELDS
        size_before = before["pos_size"] if before else 0.0
        balance_before = before["balance"] if before else self.s.starting_balance
        self.check_time(row, before)
        self.check_grid(row)
        self.check_position(row, size_before, before["pos_price"] if before else 0.0)

        # Money
        moved = row["pnl"] + row["fee"]
        scale = max(abs(balance_before), abs(row["pnl"]), abs(row["fee"]))
        assert close_to(row["balance"], balance_before + moved, scale)
        if row["kind"] != Kind.FUNDING and balance_before >= 0.0:
            assert row["balance"] >= -1e-9 * scale, "a fill made a debt"

        if row["kind"] == Kind.FUNDING:
            self.check_funding(row, size_before)
        elif row["kind"] == Kind.LIQUIDATION:
            self.check_liquidation(row, before)
        elif row["kind"] in STOPS and self.s.market_stop_loss:
            self.check_market_fill(row)
        else:
            self.check_maker_fill(row)
        if row["kind"] in OPENING:
            self.check_maximum(row, size_before)
        self.n_records += 1
        _, wallet, equity = self.outcome.equity[self.n_records_point(self.n_records)]
        self.most_budget = max(self.most_budget, self.budget(wallet, equity))

    def n_records_point(self, n: int) -> int:
        """Index of the equity point of the n-th record."""
        if not hasattr(self, "_points"):
            self._points, i = [0], 0
            for row in self.outcome.records:
                i += 1
                # Hours lie between; a point on an hour belongs to a record while one fits.
                while i < len(self.outcome.equity) and not self.is_point_of(row, i):
                    i += 1
                assert i < len(self.outcome.equity), f"no equity point for {row}"
                self._points.append(i)
        return self._points[n]

    def is_point_of(self, row: Record, i: int) -> bool:
        at, wallet, _ = self.outcome.equity[i]
        return bool(at == row["ts_ms"] and wallet == row["balance"])

    def check_time(self, row: Record, before: Record | None) -> None:
        tick, ts_ms = row["tick"], row["ts_ms"]
        assert self.ts[0] <= ts_ms <= self.ts[-1]
        if before:
            assert (tick, ts_ms) >= (before["tick"], before["ts_ms"])
            assert ts_ms >= before["ts_ms"]
        # The last print so far: none of the next ones has come yet.
        assert self.ts[tick] <= ts_ms
        if row["kind"] == Kind.LIQUIDATION:
            return  # by a print, or by a market stop that came too late: `check_liquidation`
        at_market = self.s.market_stop_loss and row["kind"] in STOPS
        if row["kind"] != Kind.FUNDING and not at_market:
            assert self.ts[tick] == ts_ms
        elif tick + 1 < len(self.ts):
            assert self.ts[tick + 1] > ts_ms

    def check_grid(self, row: Record) -> None:
        if row["kind"] not in (Kind.FUNDING, Kind.LIQUIDATION):
            assert (steps_of(row["price"], self.market.price_step) or 0) > 0
        assert steps_of(row["qty"], self.market.qty_step) is not None
        assert steps_of(row["pos_size"], self.market.qty_step) is not None

    def check_position(self, row: Record, size: float, entry: float) -> None:
        qty, after, kind = row["qty"], row["pos_size"], row["kind"]
        step = self.market.qty_step
        steps = [steps_of(x, step) for x in (size, qty, after)]
        assert None not in steps
        assert steps[0] + steps[1] == steps[2]  # type: ignore[operator]
        assert (qty == 0.0) == (kind == Kind.FUNDING)
        assert row["position_side"] == (sign(size) or sign(after))
        if after == 0.0:
            assert (row["pos_price"], row["liq_price"], row["closest_liq"]) == (0.0, 0.0, 1.0)
        else:
            assert row["pos_price"] > 0.0
            assert row["liq_price"] >= 0.0
            assert 0.0 <= row["closest_liq"] <= 1.0 or self.high[-1] > 0.0
        if kind not in (*OPENING, Kind.FUNDING):  # reduces, never flips
            assert sign(qty) == -sign(size) != 0
            assert abs(after) <= abs(size)
            assert sign(after) in (0, sign(size))
        if kind == Kind.REENTRY and sign(size) == sign(qty):
            assert abs(after) > abs(size)
        overlap = min(abs(qty), abs(size)) if sign(qty) == -sign(size) else 0.0
        if kind not in (Kind.FUNDING, Kind.LIQUIDATION):
            wanted = self.earns(sign(size) * overlap, entry, row["price"]) if overlap else 0.0
            assert close_to(row["pnl"], wanted, self.cost(overlap or 1.0, row["price"]) * 1e-6)
        if sign(after) == sign(size) and overlap:
            assert row["pos_price"] == entry
        elif after != 0.0 and sign(after) != sign(size):
            assert row["pos_price"] == row["price"]
        elif sign(qty) == sign(size):
            low, high = sorted((entry, row["price"]))
            assert low * (1 - 1e-12) <= row["pos_price"] <= high * (1 + 1e-12)

    def fee_is(self, row: Record, rate: float) -> bool:
        return close_to(row["fee"], -self.cost(row["qty"], row["price"]) * rate)

    def check_maker_fill(self, row: Record) -> None:
        assert self.fee_is(row, self.market.maker_fee)
        tick, price, side = row["tick"], row["price"], sign(row["qty"])
        assert bool(self.maker[tick]) == (side > 0), "the print hit the other side"
        through = side * self.price[tick] < side * price
        at_price = self.price[tick] == price
        assert through or (at_price and self.s.fill in ("touch", "volume"))
        steps = steps_of(abs(row["qty"]), self.market.qty_step)
        assert steps is not None
        self.shares[tick].append((price, steps))

    def check_market_fill(self, row: Record) -> None:
        assert self.fee_is(row, self.market.taker_fee)
        assert row["price"] == self.books[row["tick"]][0 if row["qty"] < 0.0 else 1]

    def check_funding(self, row: Record, size: float) -> None:
        assert size != 0.0
        assert row["fee"] == 0.0
        assert row["price"] == self.price[row["tick"]]
        rates = self.s.funding["rate"][self.s.funding["ts_ms"] == row["ts_ms"]]
        notional = size / row["price"] if self.inverse else size * row["price"]
        assert any(close_to(row["pnl"], -notional * rate) for rate in rates.tolist())

    def check_liquidation(self, row: Record, before: Record | None) -> None:
        assert before is not None
        assert row is self.outcome.records[-1]
        size, entry = before["pos_size"], before["pos_price"]
        side = sign(size)
        # At the level, but at no better price than where it was fixed.
        level = before["liq_price"]
        assert level > 0.0
        assert row["price"] == side * min(side * level, side * before["price"])
        # Reached by a print of the position's own side, or an order that reduces would have filled
        # beyond it: a market stop at the touch, or one that rests, hit by a print.
        tick = row["tick"]
        touch = self.books[tick][0 if side > 0 else 1]
        reached = self.ts[tick] == row["ts_ms"] and (
            bool(self.maker[tick]) != (side > 0) or side * self.price[tick] <= side * level
        )
        assert reached or (self.s.market_stop_loss and side * touch <= side * level)
        assert row["qty"] == -size
        assert row["balance"] >= -1e-9 * self.s.starting_balance
        assert self.fee_is(row, self.market.taker_fee + self.s.liquidation_fee)
        plain = self.earns(size, entry, row["price"])
        least = 0.0
        if not self.s.cross_mode:
            least = max(0.0, before["balance"] - self.cost(size, entry) / self.s.venue_leverage)
        scale = self.cost(size, entry)
        if close_to(row["pnl"], plain, scale):
            assert row["balance"] >= least - 1e-9 * max(scale, abs(before["balance"]))
        else:
            # The wallet would have fallen below what may be lost.
            assert before["balance"] + plain + row["fee"] < least + 1e-9 * scale
            assert close_to(row["balance"], least, scale)

    def check_maximum(self, row: Record, size: float) -> None:
        if abs(row["pos_size"]) <= abs(size):
            return
        after, tick, side = abs(row["pos_size"]), row["tick"], sign(row["qty"])
        one = self.rules.price_step.value(1)
        if self.inverse:
            bound = row["price"] if side < 0 else self.high[tick + 1] + one
        else:
            bound = row["price"] if side > 0 else max(self.low[tick + 1] - one, one)
            bound = min(bound, row["price"])
        most = self.rules.max_position(bound, self.most_budget)
        # An order has the least quantity at its clamped price, which may be more than was planned.
        clamped = 0.0 if self.inverse else self.rules.min_qty_at(row["price"])
        allowed = most + self.rules.qty_step.value(1) + clamped
        assert after <= allowed * (1 + 1e-9), f"{after} > {allowed}"

    # --- the run ---

    def check_shares(self) -> None:
        """What one print fills: best price first, and in volume mode no more than it brought."""
        for tick, filled in self.shares.items():
            side = 1 if self.maker[tick] else -1
            ranks = [-side * price for price, _ in filled]
            assert ranks == sorted(ranks), f"tick {tick}: not the best price first: {filled}"
            if self.s.fill != "volume":
                continue
            brought = self.rules.qty_step
            v = int(Decimal(repr(float(self.s.qty[tick]))) * brought.scale // brought.units)
            through = sum(k for price, k in filled if price != self.price[tick])
            at_price = sum(k for price, k in filled if price == self.price[tick])
            assert through + at_price <= v, f"tick {tick}: {filled} of {v}"
            # Less than a step may have been carried over from earlier prints.
            most = math.floor(v * self.s.queue_share) + 1
            assert at_price <= most, f"tick {tick}: {filled} of {v}"

    def check_equity(self) -> None:
        points, records = self.outcome.equity, self.outcome.records
        first, last = self.ts[0], self.ts[-1]
        assert points[0] == (first, self.s.starting_balance, self.s.starting_balance)
        times = [at for at, _, _ in points]
        assert times == sorted(times)
        ended_early = self.outcome.outcome != "end"
        until = records[-1]["ts_ms"] if ended_early else last
        hours = [t for t in range((first // HOUR_MS + 1) * HOUR_MS, until + 1, HOUR_MS) if t < last]
        if ended_early and hours and hours[-1] == until:
            hours.pop()  # the run ended before the hour's point was due
        wanted = sorted([first, *hours, *(row["ts_ms"] for row in records)])
        wanted += [] if ended_early else [last]
        assert times == wanted
        # Each record's own point: its wallet, and what its position is worth at its tick's price.
        for n, row in enumerate(records, 1):
            _, wallet, equity = points[self.n_records_point(n)]
            assert wallet == row["balance"]
            assert self.is_worth(equity, row, self.price[row["tick"]])
        if not ended_early:
            after = records[-1] if records else None
            assert self.is_worth(points[-1][2], after, self.price[-1])

    def is_worth(self, equity: float, row: Record | None, price: float) -> bool:
        if row is None:
            return equity == self.s.starting_balance
        open_pnl = 0.0
        if row["pos_size"]:
            open_pnl = self.earns(row["pos_size"], row["pos_price"], price)
        return close_to(equity, row["balance"] + open_pnl, max(abs(open_pnl), abs(row["balance"])))

    def check_outcome(self) -> None:
        records, name = self.outcome.records, self.outcome.outcome
        liquidated = bool(records) and records[-1]["kind"] == Kind.LIQUIDATION
        if liquidated:
            side = records[-1]["position_side"]
            assert name == ("long_liquidation" if side > 0 else "shrt_liquidation")
            assert self.outcome.closest_liq == 0.0
            assert self.outcome.worst_open_loss <= records[-1]["pnl"] + abs(
                1e-9 * records[-1]["pnl"]
            )
        else:
            assert name == "end"
        assert self.outcome.worst_open_loss <= 0.0
        assert self.outcome.closest_liq <= min([1.0, *(row["closest_liq"] for row in records)])
        total = math.fsum(row["pnl"] for row in records) + math.fsum(row["fee"] for row in records)
        final = records[-1]["balance"] if records else self.s.starting_balance
        turnover = math.fsum(abs(row["pnl"]) + abs(row["fee"]) for row in records)
        assert close_to(final - self.s.starting_balance, total, turnover + abs(final))
        assert self.outcome.equity[-1][1] == final
