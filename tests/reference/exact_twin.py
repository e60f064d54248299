"""The exact engine in slow, plain Python, written from docs/backtest.md; the core must equal it.

Quantities are whole numbers of quantity steps (``*_k``, signed for a position), prices the doubles
of the price grid. Money is Decimal, but for what a formula of the page decides by: the average
entry, the liquidation price, the levels and the equity the planner sees are doubles.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import VIEW_DTYPE, Kind

from .formulas_twin import (
    Step,
    Tier,
    average_entry,
    ceil_to,
    cost,
    floor_to,
    steps_above,
    steps_below,
    steps_near,
)
from .grid_twin import Order as Want
from .grid_twin import budget_of, level_reached, plan_ideal, plan_sent, rules_of, unpack

HOUR_MS = 3_600_000
WHOLE = 10**18  # what a print brings that takes every order whole
STOPS = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)
FUNDING_DTYPE = np.dtype([("ts_ms", "<i8"), ("rate", "<f8")])

Array = npt.NDArray[Any]
Record = dict[str, Any]
Slot = tuple[int, float, int, int]


@dataclass(frozen=True)
class Scenario:
    """Everything one run depends on."""

    price: npt.NDArray[np.float64]
    qty: npt.NDArray[np.float64]
    ts_ms: npt.NDArray[np.int64]
    buyer_maker: npt.NDArray[np.uint8]
    strategy: Array  # STRATEGY_DTYPE, shape (1,)
    market: Array  # MARKET_DTYPE, shape (1,)
    tiers: Array  # TIER_DTYPE
    ema_span: float
    starting_balance: float
    venue_leverage: float
    cross_mode: bool
    liquidation_fee: float
    market_stop_loss: bool
    requote_ms: int
    requote_tolerance: float
    orders_per_batch: int
    latency_ms: float
    cancel_latency_ms: float
    fill: str  # cross, touch, volume
    queue_share: float
    funding: Array  # FUNDING_DTYPE, possibly empty


@dataclass(frozen=True)
class Outcome:
    records: list[Record]
    equity: list[tuple[int, float, float]]  # ts_ms, wallet, wallet + open pnl
    outcome: str  # end, long_liquidation, shrt_liquidation
    worst_open_loss: float
    closest_liq: float


class LiquidatedError(Exception):
    """The run is over."""


class Book:
    """One price a side, from the prints alone."""

    def __init__(self, first: float, step: Step) -> None:
        self.step = step
        self.last = first
        self.raw_bid = self.just_below(first)
        self.raw_ask = self.just_above(first)

    def just_below(self, price: float) -> float:
        return self.step.value(steps_above(price, self.step) - 1)

    def just_above(self, price: float) -> float:
        return self.step.value(steps_below(price, self.step) + 1)

    def take(self, price: float, buyer_maker: bool) -> None:
        if buyer_maker:
            self.raw_bid = price
            if price >= self.raw_ask:
                self.raw_ask = self.just_above(price)
        else:
            self.raw_ask = price
            if price <= self.raw_bid:
                self.raw_bid = self.just_below(price)
        self.last = price

    @property
    def bid(self) -> float:
        """As the planner and the venue see it: on the grid, at least one step."""
        return max(floor_to(self.raw_bid, self.step), self.step.value(1))

    @property
    def ask(self) -> float:
        return max(ceil_to(self.raw_ask, self.step), self.just_above(self.bid))


class Ema:
    def __init__(self, first: float, span: float) -> None:
        self.value = first
        self.price = first
        self.alpha = 2.0 / (span + 1.0)
        self.beta = 1.0 - self.alpha

    def take(self, price: float) -> None:
        if price != self.price:
            self.value = self.value * self.beta + price * self.alpha
            self.price = price


def money_pnl(closed: float, entry: float, exit_: float, side: int, inverse: bool) -> Decimal:
    """What closing earns; exact but for Decimal's 28 digits."""
    q, e, x = Decimal(closed), Decimal(entry), Decimal(exit_)
    if inverse:
        bought, sold = (e, x) if side > 0 else (x, e)
        return q * (1 / bought - 1 / sold)
    return q * (x - e) * side


def money_cost(qty: float, price: float, inverse: bool) -> Decimal:
    q, p = abs(Decimal(qty)), Decimal(price)
    return q / p if inverse else q * p


def liquidation_price(
    size: float, entry: float, collateral: float, tiers: list[Tier], inverse: bool
) -> float:
    """The price where the venue takes the position; 0 for none. Doubles, left to right."""
    side = 1 if size > 0.0 else -1
    s = abs(size)

    def solve(tier: Tier) -> float:
        m, d = tier.rate, tier.deduction
        if inverse:
            below = s / entry + side * (collateral + d)
            price = s * (1 + side * m) / below if below > 0.0 else 0.0
        else:
            below = s * m - side * s
            price = (collateral + d - side * s * entry) / below if below != 0.0 else 0.0
        return max(price, 0.0)

    shrinks = side < 0 if inverse else side > 0
    if shrinks:
        for tier in reversed(tiers):
            price = solve(tier)
            if price > 0.0 and cost(s, price, inverse) >= tier.floor:
                return price
        return 0.0
    for i, tier in enumerate(tiers):
        price = solve(tier)
        if not price > 0.0:
            continue
        notional = cost(s, price, inverse)
        if notional < tier.floor:
            return s / tier.floor if inverse else tier.floor / s
        if i + 1 == len(tiers) or tiers[i + 1].floor > notional:
            return price
    return 0.0


class Account:
    """Wallet and position. After each change L and the planner's equity are fixed anew."""

    def __init__(self, scenario: Scenario) -> None:
        m = unpack(scenario.market)
        self.inverse = bool(m.inverse)
        self.qty_step = Step(int(m.qty_step[0]), int(m.qty_step[1]))
        self.cross = scenario.cross_mode
        self.leverage = scenario.venue_leverage
        self.tiers = [Tier(*tier.item()) for tier in scenario.tiers]
        self.wallet = Decimal(scenario.starting_balance)
        self.size_k = 0
        self.entry = 0.0
        self.liq = 0.0
        self.equity = scenario.starting_balance
        self.fixed_at = 0.0  # the price of the fill or funding that fixed L

    @property
    def closing_price(self) -> float:
        """What the venue closes at: L, or where it was fixed if the price was beyond L then."""
        return min(self.side * self.liq, self.side * self.fixed_at) * self.side

    @property
    def size(self) -> float:
        return self.qty_step.value(self.size_k)

    @property
    def side(self) -> int:
        return (self.size_k > 0) - (self.size_k < 0)

    def open_pnl(self, price: float) -> Decimal:
        if self.size_k == 0:
            return Decimal(0)
        return money_pnl(abs(self.size), self.entry, price, self.side, self.inverse)

    def open_pnl_as_double(self, price: float) -> float:
        if self.size_k == 0:
            return 0.0
        if self.inverse:
            bought, sold = (self.entry, price) if self.side > 0 else (price, self.entry)
            return abs(self.size) * (1.0 / bought - 1.0 / sold)
        return abs(self.size) * (price - self.entry) * self.side

    def fix(self, last: float, price: float) -> None:
        self.fixed_at = price
        self.equity = float(self.wallet) + self.open_pnl_as_double(last)
        self.liq = 0.0
        if self.size_k:
            collateral = float(self.wallet)
            if not self.cross:
                collateral = cost(abs(self.size), self.entry, self.inverse) / self.leverage
            self.liq = liquidation_price(
                self.size, self.entry, collateral, self.tiers, self.inverse
            )

    def fill(self, side: int, qty_k: int, price: float, rate: float) -> tuple[Decimal, Decimal]:
        """Change wallet and position; returns pnl and fee."""
        before_k, after_k = self.size_k, self.size_k + side * qty_k
        pnl = Decimal(0)
        if before_k * side < 0:  # reduces, perhaps beyond zero
            overlap = self.qty_step.value(min(qty_k, abs(before_k)))
            pnl = money_pnl(overlap, self.entry, price, self.side, self.inverse)
            if after_k == 0:
                self.entry = 0.0
            elif after_k * before_k < 0:
                self.entry = price
        else:
            qty = self.qty_step.value(qty_k)
            self.entry = average_entry(abs(self.size), self.entry, qty, price, self.inverse)
        fee = -money_cost(self.qty_step.value(qty_k), price, self.inverse) * Decimal(rate)
        self.wallet = self.wallet + pnl + fee
        self.size_k = after_k
        return pnl, fee

    def fund(self, rate: float, last: float) -> Decimal:
        size, price = Decimal(self.size), Decimal(last)
        notional = size / price if self.inverse else size * price
        pnl = -notional * Decimal(rate)
        self.wallet = self.wallet + pnl
        return pnl

    def liquidate(self, rate: float) -> tuple[Decimal, Decimal]:
        size, price = abs(self.size), self.closing_price
        pnl = money_pnl(size, self.entry, price, self.side, self.inverse)
        fee = -money_cost(size, price, self.inverse) * Decimal(rate)
        least = Decimal(0)
        if not self.cross:
            margin = money_cost(size, self.entry, self.inverse) / Decimal(self.leverage)
            least = max(least, self.wallet - margin)
        if self.wallet + pnl + fee < least:
            pnl = least - self.wallet - fee
        self.wallet = self.wallet + pnl + fee
        self.size_k, self.entry = 0, 0.0
        return pnl, fee


class State(Enum):
    TRAVELLING = 1
    RESTING = 2
    GONE = 3


@dataclass(eq=False)
class Live:
    """An order of the bot, from the moment it is sent. A fill takes from both quantities."""

    side: int
    ideal: float
    ideal_k: int
    price: float
    qty_k: int
    reduce_only: int
    kind: int
    age: int
    state: State = State.TRAVELLING
    arrival: int = 0
    cancelling: bool = False

    @property
    def slot(self) -> Slot:
        return self.side, self.ideal, self.ideal_k, self.reduce_only


@dataclass(eq=False)
class Stop:
    """A stop that is outstanding."""

    price: float
    qty_k: int
    kind: int


@dataclass(frozen=True)
class Place:
    order: Live


@dataclass(frozen=True)
class Cancel:
    order: Live


@dataclass(frozen=True)
class MarketStop:
    side: int
    stop: Stop


Message = Place | Cancel | MarketStop


@dataclass
class Queue:
    """What one side of the current plan has not sent yet."""

    cancels: list[Live] = field(default_factory=list)
    creates: list[int] = field(default_factory=list)  # indices into the plan
    on_the_way: int = 0


class Run:
    """Clock, venue and recorder; the bot is beside it."""

    def __init__(self, scenario: Scenario) -> None:
        self.s = scenario
        self.market = unpack(scenario.market)
        self.rules = rules_of(scenario.market, scenario.strategy)
        self.price_step, self.qty_step = self.rules.price_step, self.rules.qty_step
        first = float(scenario.price[0])
        self.book = Book(first, self.price_step)
        self.ema = Ema(first, scenario.ema_span)
        self.account = Account(scenario)
        self.tick = 0
        self.now = int(scenario.ts_ms[0])
        self.end = int(scenario.ts_ms[-1])
        self.times = [self.now]
        self.messages: list[tuple[int, int, Message]] = []
        self.n_sent = 0
        self.n_arrived = 0
        self.orders: list[Live] = []  # not gone, in the order they were sent
        self.carried = {1: 0.0, -1: 0.0}  # volume: what floor cut off a share at our price
        self.funding_rate = math.nan
        self.funding_at: dict[int, list[float]] = {}
        self.records: list[Record] = []
        self.points = [(self.now, scenario.starting_balance, scenario.starting_balance)]
        self.closest = 1.0  # since the last record
        self.closest_of_run = 1.0
        self.worst = Decimal(0)
        self.bot = Bot(self)

    # --- time ---

    def play(self) -> Outcome:
        s = self.s
        first, last = self.now, self.end
        for t, rate in s.funding.tolist():
            if t < first:
                self.funding_rate = rate
            self.funding_at.setdefault(t, []).append(rate)
        self.times = sorted({*s.ts_ms.tolist(), *self.funding_at})
        for every in (s.requote_ms, HOUR_MS):
            heapq.heappush(self.times, -(-first // every) * every)
        at, prints = 0, len(s.price)
        try:
            for t in self.milliseconds(first, last):
                self.now = t
                until = at
                while until < prints and s.ts_ms[until] == t:
                    until += 1
                self.millisecond(range(at, until))
                at = until
        except LiquidatedError:
            side = self.records[-1]["position_side"]
            outcome = "long_liquidation" if side > 0 else "shrt_liquidation"
            self.closest_of_run = 0.0
        else:
            outcome = "end"
            self.add_point()
        return Outcome(self.records, self.points, outcome, float(self.worst), self.closest_of_run)

    def milliseconds(self, first: int, last: int) -> Iterator[int]:
        """Every millisecond in which something happens, once."""
        done = first - 1
        while self.times:
            t = heapq.heappop(self.times)
            if t > last:
                return
            if t <= done:
                continue
            done = t
            yield t
            for every in (self.s.requote_ms, HOUR_MS):
                if t % every == 0:
                    heapq.heappush(self.times, t + every)

    def millisecond(self, prints: range) -> None:
        n_records = len(self.records)
        for i in prints:
            self.take_print(i)
        first = bool(prints) and prints[0] == 0
        if first or len(self.records) > n_records or self.bot.plan_due:
            self.bot.plan()
        self.arrivals_and_groups()
        for rate in self.funding_at.get(self.now, ()):
            self.fund(rate)
        if self.now % self.s.requote_ms == 0:
            self.bot.requote()
        while self.messages and self.messages[0][0] <= self.now:
            self.arrivals_and_groups()
        if self.now % HOUR_MS == 0 and int(self.s.ts_ms[0]) < self.now < self.end:
            self.add_point()

    def arrivals_and_groups(self) -> None:
        arriving = []
        while self.messages and self.messages[0][0] <= self.now:
            arriving.append(heapq.heappop(self.messages)[2])
        market_filled = [self.arrive(message) for message in arriving]
        if any(market_filled):
            self.bot.plan()
        self.bot.send_groups()

    def send(self, message: Message) -> None:
        late = self.s.cancel_latency_ms if isinstance(message, Cancel) else self.s.latency_ms
        arrives = self.now + math.ceil(late)
        heapq.heappush(self.messages, (arrives, self.n_sent, message))
        heapq.heappush(self.times, arrives)
        self.n_sent += 1

    # --- the venue ---

    def take_print(self, i: int) -> None:
        price, maker = float(self.s.price[i]), bool(self.s.buyer_maker[i])
        account = self.account
        self.tick = i
        self.book.take(price, maker)
        if account.size_k and account.liq > 0.0:
            distance = max(account.side * (price - account.liq) / price, 0.0)
            self.closest = min(self.closest, distance)
            self.closest_of_run = min(self.closest_of_run, distance)

        hit = 1 if maker else -1
        left_k, at_price_k = WHOLE, WHOLE if self.s.fill == "touch" else 0
        if self.s.fill == "volume":
            left_k = steps_below(float(self.s.qty[i]), self.qty_step)
            if any(self.rests(order, hit) and order.price == price for order in self.orders):
                share = left_k * self.s.queue_share + self.carried[hit]
                at_price_k = math.floor(share)
                self.carried[hit] = share - at_price_k
        while True:
            order, most_k = self.next_to_fill(hit, price, left_k, at_price_k)
            if self.is_liquidated_before(order, price, hit):
                self.liquidate()
            if order is None:
                break
            qty_k = min(order.qty_k, most_k)
            if order.reduce_only:
                qty_k = min(qty_k, abs(account.size_k))
            left_k -= qty_k
            if order.price == price:
                at_price_k -= qty_k
            self.fill_order(order, qty_k)

        if account.size_k:
            self.worst = min(self.worst, account.open_pnl(price))
        self.bot.look_at_levels()
        self.ema.take(price)

    def next_to_fill(
        self, hit: int, price: float, left_k: int, at_price_k: int
    ) -> tuple[Live | None, int]:
        """The best order of the side that was hit which this print still fills, and how far."""
        best: tuple[float, int] = (math.inf, 0)
        found, share_k = None, 0
        for order in self.orders:
            if not self.rests(order, hit):
                continue
            through = hit * price < hit * order.price
            most_k = left_k if through else min(left_k, at_price_k)
            rank = (-hit * order.price, order.arrival)
            if (through or price == order.price) and most_k > 0 and rank < best:
                best, found, share_k = rank, order, most_k
        return found, share_k

    def rests(self, order: Live, side: int) -> bool:
        return order.state is State.RESTING and order.side == side

    def is_liquidated_before(self, order: Live | None, price: float, hit: int) -> bool:
        if order is not None:
            return self.is_beyond_liquidation(order.price)
        return self.account.side == hit and self.is_beyond_liquidation(price)

    def is_beyond_liquidation(self, price: float) -> bool:
        side, liq = self.account.side, self.account.liq
        return side != 0 and liq > 0.0 and side * price <= side * liq

    def fill_order(self, order: Live, qty_k: int) -> None:
        order.qty_k -= qty_k
        order.ideal_k = max(order.ideal_k - qty_k, 0)
        if order.qty_k == 0:
            self.remove(order)
        self.fill(order.side, qty_k, order.price, self.market.maker_fee, order.kind)

    def fill(self, side: int, qty_k: int, price: float, rate: float, kind: int) -> None:
        side_before = self.account.side
        pnl, fee = self.account.fill(side, qty_k, price, rate)
        if self.account.side != side_before:
            # Flat or on the other side now: what does not reduce any more is cancelled.
            for order in list(self.orders):
                if order.state is State.RESTING and order.reduce_only and not self.reduces(order):
                    self.remove(order)
        self.account.fix(self.book.last, price)
        self.bot.on_fill(kind, qty_k, side_before)
        qty = side * self.qty_step.value(qty_k)
        self.record(side_before or self.account.side, kind, price, qty, pnl, fee)

    def reduces(self, order: Live | MarketStop) -> bool:
        return order.side * self.account.size_k < 0

    def remove(self, order: Live) -> None:
        order.state = State.GONE
        self.orders.remove(order)

    def arrive(self, message: Message) -> bool:
        """Let the venue act on a message; whether a market order filled."""
        if isinstance(message, MarketStop):
            qty_k = min(message.stop.qty_k, abs(self.account.size_k))
            fills = self.reduces(message)
            self.bot.on_market_arrival(message.stop)
            if fills:
                price = self.book.bid if message.side < 0 else self.book.ask
                if self.is_beyond_liquidation(price):
                    self.liquidate()
                rate = self.market.taker_fee
                self.fill(message.side, qty_k, price, rate, message.stop.kind)
            return fills
        order = message.order
        self.bot.queues[order.side].on_the_way -= 1
        if isinstance(message, Cancel):
            order.cancelling = False
            if order.state is State.RESTING:
                self.remove(order)
        elif order.reduce_only and not self.reduces(order):
            self.remove(order)
        elif order.price >= self.book.ask if order.side > 0 else order.price <= self.book.bid:
            self.remove(order)
            self.bot.refused.add(order.slot)
        else:
            order.state = State.RESTING
            order.arrival = self.n_arrived
            self.n_arrived += 1
        return False

    def liquidate(self) -> None:
        side, price, size = self.account.side, self.account.closing_price, self.account.size
        pnl, fee = self.account.liquidate(self.market.taker_fee + self.s.liquidation_fee)
        self.account.fix(self.book.last, self.book.last)
        self.worst = min(self.worst, pnl)
        self.record(side, Kind.LIQUIDATION, price, -size, pnl, fee)
        raise LiquidatedError

    def fund(self, rate: float) -> None:
        self.funding_rate = rate
        if self.account.size_k:
            side = self.account.side
            pnl = self.account.fund(rate, self.book.last)
            self.account.fix(self.book.last, self.book.last)
            self.record(side, Kind.FUNDING, self.book.last, 0.0, pnl, Decimal(0))

    # --- the record ---

    def record(
        self, side: int, kind: int, price: float, qty: float, pnl: Decimal, fee: Decimal
    ) -> None:
        held = self.account.size_k != 0
        self.records.append(
            {
                "tick": self.tick,
                "ts_ms": self.now,
                "position_side": side,
                "kind": int(kind),
                "price": price,
                "qty": qty,
                "pos_size": self.account.size,
                "pos_price": self.account.entry,
                "liq_price": self.account.liq,
                "pnl": float(pnl),
                "fee": float(fee),
                "balance": float(self.account.wallet),
                "closest_liq": self.closest if held else 1.0,
            }
        )
        self.closest = 1.0
        self.add_point()

    def add_point(self) -> None:
        wallet = self.account.wallet
        equity = wallet + self.account.open_pnl(self.book.last)
        self.points.append((self.now, float(wallet), float(equity)))


class Bot:
    """Plans, compares, sends in groups, and keeps the stop."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = unpack(run.s.strategy)
        self.queues = {1: Queue(), -1: Queue()}
        self.wanted: list[Want] = []  # the plan
        self.refused: set[Slot] = set()
        self.due = 0  # kind of a stop that the next plan starts
        self.outstanding: Stop | None = None
        self.may_start = True
        self.plan_due = False
        self.planned_beyond = False  # the last plan was made at or beyond a level
        self.close_base_k = 0

    def view(self) -> Array:
        run, stop = self.run, self.outstanding
        out = np.zeros(1, VIEW_DTYPE)
        out["wallet"] = float(run.account.wallet)
        out["equity"] = run.account.equity
        out["size"] = run.account.size
        out["entry_price"] = run.account.entry
        out["liq_price"] = run.account.liq
        out["last_price"] = run.book.last
        out["bid"], out["ask"] = run.book.bid, run.book.ask
        out["ema"] = run.ema.value
        out["funding_rate"] = run.funding_rate
        out["close_base"] = run.qty_step.value(self.close_base_k)
        if stop:
            out["stop_price"], out["stop_kind"] = stop.price, stop.kind
            out["stop_qty"] = run.qty_step.value(stop.qty_k)
        out["stop_due"] = self.due
        return out

    # --- stops ---

    def level_reached(self) -> int:
        """The kind of the level that the last price is at or beyond, 0 for none."""
        account = self.run.account
        seen = SimpleNamespace(
            last_price=self.run.book.last, entry_price=account.entry, liq_price=account.liq
        )
        return level_reached(seen, self.config, account.side)

    def look_at_levels(self) -> None:
        held = self.run.account.size_k != 0
        if not held or self.outstanding or self.due or not (reached := self.level_reached()):
            return
        if self.may_start:
            self.due = reached
            self.plan_due = True
        elif not self.planned_beyond:
            self.plan_due = True

    def on_fill(self, kind: int, qty_k: int, side_before: int) -> None:
        account = self.run.account
        if kind != Kind.CLOSE:
            self.close_base_k = abs(account.size_k)
        if self.outstanding and kind in STOPS and not self.run.s.market_stop_loss:
            self.outstanding.qty_k -= qty_k
            if self.outstanding.qty_k <= 0:
                self.outstanding = None
        if account.side != side_before:
            self.outstanding, self.due = None, 0
        if account.size_k == 0:
            self.close_base_k = 0

    def on_market_arrival(self, stop: Stop) -> None:
        if self.outstanding is stop:
            self.outstanding = None

    def requote(self) -> None:
        self.refused.clear()
        self.may_start = True
        if self.outstanding and not self.run.s.market_stop_loss:
            if self.level_reached():
                book = self.run.book
                price = book.ask if self.run.account.side > 0 else book.bid
                least_k = steps_near(self.run.rules.min_qty_at(price), self.run.qty_step)
                least_k = min(least_k, abs(self.run.account.size_k))
                self.outstanding.price = price
                self.outstanding.qty_k = max(self.outstanding.qty_k, least_k)
            else:
                self.outstanding = None
        self.plan(at_requote=True)

    # --- planning ---

    def plan(self, *, at_requote: bool = False) -> None:
        run, s = self.run, self.run.s
        view = self.view()
        self.plan_due = False
        self.planned_beyond = run.account.size_k != 0 and self.level_reached() != 0
        self.wanted = plan_ideal(view, s.strategy, s.market)
        sent = plan_sent(self.wanted, view, s.strategy, s.market)
        if self.due:
            want = self.wanted[0]
            stop = Stop(want.price, steps_near(want.qty, run.qty_step), want.kind)
            self.outstanding, self.due, self.may_start = stop, 0, False
            if s.market_stop_loss:
                run.send(MarketStop(want.side, stop))

        slots = [self.slot(want) for want in self.wanted]
        open_ = [
            i
            for i, want in enumerate(self.wanted)
            if not (s.market_stop_loss and want.kind in STOPS)
        ]
        cancels: dict[int, list[Live]] = {1: [], -1: []}
        for order in run.orders:
            if order.cancelling:
                continue
            slot = order.slot
            for i in open_:
                want = self.wanted[i]
                same = slot == slots[i]
                if same and at_requote and self.could_be_nearer(order, want, *sent[i]):
                    continue
                if same or self.is_near_enough(order, want):
                    order.kind = want.kind
                    open_.remove(i)
                    break
            else:
                cancels[order.side].append(order)

        for side, queue in self.queues.items():
            queue.cancels = sorted(cancels[side], key=lambda o: (-o.side * o.ideal, o.age))
            queue.creates = [
                i for i in open_ if self.wanted[i].side == side and slots[i] not in self.refused
            ]
        self.send_groups()

    def slot(self, want: Want) -> Slot:
        return want.side, want.price, steps_near(want.qty, self.run.qty_step), want.reduce_only

    def could_be_nearer(self, order: Live, want: Want, could: Want, may: bool) -> bool:
        """Whether an order that was clamped could now rest much nearer to its ideal."""
        if want.kind == Kind.ENTRY or order.price == order.ideal or not may:
            return False
        step = self.run.price_step
        ideal_k = steps_near(order.ideal, step)
        is_off = abs(steps_near(order.price, step) - ideal_k)
        would_be_off = abs(steps_near(could.price, step) - ideal_k)
        return is_off - would_be_off > 0.0005 * ideal_k

    def is_near_enough(self, order: Live, want: Want) -> bool:
        """The tolerance between two flat entries."""
        if (order.side, order.kind, want.kind) != (want.side, Kind.ENTRY, Kind.ENTRY):
            return False
        price_step, qty_step = self.run.price_step, self.run.qty_step
        live_k, want_k = steps_near(order.ideal, price_step), steps_near(want.price, price_step)
        live_n, want_n = order.ideal_k, steps_near(want.qty, qty_step)
        near = abs(live_k - want_k) <= max(1, self.run.s.requote_tolerance * want_k)
        return near and abs(live_n - want_n) <= 0.05 * want_n

    # --- groups ---

    def send_groups(self) -> None:
        for side, queue in self.queues.items():
            if queue.on_the_way == 0:
                self.send_cancels(queue)
            if queue.on_the_way == 0:  # every cancel has been sent or passed over
                self.send_creates(side, queue)

    def send_cancels(self, queue: Queue) -> None:
        while queue.cancels and queue.on_the_way < self.run.s.orders_per_batch:
            order = queue.cancels.pop(0)
            if order.state is not State.GONE:
                order.cancelling = True
                self.run.send(Cancel(order))
                queue.on_the_way += 1

    def send_creates(self, side: int, queue: Queue) -> None:
        run, s = self.run, self.run.s
        if not queue.creates:
            return
        sent = plan_sent(self.wanted, self.view(), s.strategy, s.market)
        while queue.creates and queue.on_the_way < s.orders_per_batch:
            i = queue.creates.pop(0)
            want, (could, may) = self.wanted[i], sent[i]
            if not may or not (want.reduce_only or self.has_room(want)):
                continue
            order = Live(
                side=side,
                ideal=want.price,
                ideal_k=steps_near(want.qty, run.qty_step),
                price=could.price,
                qty_k=steps_near(could.qty, run.qty_step),
                reduce_only=want.reduce_only,
                kind=want.kind,
                age=run.n_sent,
            )
            run.orders.append(order)
            run.send(Place(order))
            queue.on_the_way += 1

    def has_room(self, want: Want) -> bool:
        run = self.run
        total_k = want.side * run.account.size_k + steps_near(want.qty, run.qty_step)
        for order in run.orders:
            if order.side == want.side and not order.reduce_only:
                total_k += order.ideal_k
        budget = budget_of(unpack(self.view()), self.config)
        return not run.qty_step.value(total_k) > run.rules.max_position(want.price, budget)


def run_exact(scenario: Scenario) -> Outcome:
    return Run(scenario).play()
