"""Chaos in one process, on a virtual clock: one seed, one plan, one run, the same every time.

`python -m tests.chaos.tier1 --seed N` runs one and prints everything; `--seeds A:B` a range.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from passivx.config import Config, load_config
from passivx.data.ticks import Ticks
from passivx.exchanges.base import Link, NewOrder
from passivx.live.core import Mode
from passivx.live.events import OnExit
from passivx.live.journal import Journal, JournalError, read_entries
from passivx.live.orders import PREFIX, is_own_id
from passivx.models import Market, Position
from passivx.planner import plan_orders
from passivx.simulator.venue import OrderType, Refusal, TimeInForce
from tests.chaos.faulty import Faulty
from tests.live.world import World, heartbeat

MARKETS = {
    "binance": Market(
        price_step=0.1,
        qty_step=0.001,
        min_qty=0.001,
        min_cost=5.0,
        maker_fee=0.0002,
        taker_fee=0.0005,
        max_leverage=100.0,
        inverse=False,
    ),
    "bybit": Market(
        price_step=0.5,
        qty_step=1.0,
        min_qty=1.0,
        min_cost=0.0,
        maker_fee=-0.00025,
        taker_fee=0.00075,
        max_leverage=100.0,
        inverse=True,
    ),
}
SYMBOLS = {"binance": "BTCUSDT", "bybit": "BTCUSD"}
WARM_S, HEAL_S, LIVE_S = 15, 45, 26
"""Until faults begin, between the last and the healing, and from healing to the judgement."""
STALE_S = 10.0
_LONGEST_S = 10
"""A run takes a fraction of a second; one that hangs must not hang the suite."""

# What may happen, by the group of the catalogue it stands for.
FAULTS = {
    "W": [
        *("silent_private", "silent_trades", "silent_book", "silent_all"),
        *("silent_market", "event_twice", "event_lost", "events_reversed", "gap"),
    ],
    "R": [
        *("drop_before", "drop_after", "delay_exec", "late_answer", "rate_limit", "read_fails"),
        *("read_slow", "stale", "empty", "resync", "unheard_of"),
    ],
    "O": [
        *("cancel_drop_before", "cancel_drop_after", "cancel_delay", "venue_cancel", "partial"),
        *("foreign_order", "foreign_close", "foreign_flip", "clone", "gap_through", "dropped"),
    ],
    "A": ["funding", "withdraw", "leverage", "margin_refused", "adl", "not_trading", "rules"],
    "P": [
        *("kill", "kill_and_lose_journal", "kill_and_old_journal", "disk_full", "clock_set"),
        *("pause", "kill_after_send", "kill_before_fill"),
    ],
}
GROUP = {name: group for group, names in FAULTS.items() for name in names}


@dataclass(frozen=True)
class Fault:
    at_s: float
    what: str
    s: float
    n: int


@dataclass(frozen=True)
class Plan:
    """Everything a run is made of."""

    seed: int
    exchange: str
    latency_ms: float
    config: dict[str, Any]
    faults: tuple[Fault, ...]
    on_exit: str

    def text(self) -> str:
        lines = [f"seed {self.seed} {self.exchange} latency {self.latency_ms} exit {self.on_exit}"]
        lines += [f"  config {self.config}"]
        lines += [f"  {f.at_s:7.2f} s  {f.what} s={f.s:.2f} n={f.n}" for f in self.faults]
        return "\n".join(lines)


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed: a subset of the faults, at times that overlap."""
    rng = random.Random(seed)
    exchange = rng.choice(("binance", "bybit"))
    groups = rng.sample(list(FAULTS), rng.randint(1, 4))
    known = [name for group in groups for name in FAULTS[group]]
    known = rng.sample(known, rng.randint(1, min(8, len(known))))
    faults = sorted(
        (
            Fault(
                at_s=round(rng.uniform(WARM_S, WARM_S + 75), 3),
                what=rng.choice(known),
                s=round(rng.choice((0.3, 1.0, 2.5, 4.0, 8.0, 15.0)), 2),
                n=rng.randint(1, 4),
            )
            for _ in range(rng.randint(3, 14))
        ),
        key=lambda fault: fault.at_s,
    )
    config = {
        "config_name": "chaos",
        "symbol": SYMBOLS[exchange],
        "cross_mode": rng.random() < 0.7,
        "balance_pct": rng.choice((0.3, 0.8)),
        "leverage": rng.choice((3, 7.5, 20)),
        "entry_qty_pct": rng.choice((0.02, 0.1)),
        "ddown_factor": rng.choice((0.5, 1.0, 1.5)),
        "grid_spacing": rng.choice((0.0008, 0.002)),
        "grid_coefficient": rng.choice((0.0, 20.0)),
        "min_markup": 0.0004,
        "max_markup": rng.choice((0.0012, 0.004)),
        "n_close_orders": rng.choice((1, 4, 9)),
        "n_entry_orders": rng.choice((1, 3, 6)),
        "min_close_qty_multiplier": 0.5,
        "indicator_settings": {
            "tick_ema": {"span": rng.choice((1, 20)), "spread": rng.choice((0.0, 0.0002))},
            "do_long": True,
            "do_shrt": rng.random() < 0.8,
        },
        "stop_loss_liq_diff": 0.02,
        "stop_loss_pos_price_diff": rng.choice((0.0012, 0.004, 0.2)),
        "stop_loss_pos_reduction": rng.choice((0.05, 0.3)),
        "market_stop_loss": rng.random() < 0.4,
        "requote_ms": rng.choice((1000, 5000)),
        "orders_per_batch": rng.choice((1, 4)),
        "book": rng.choice(("ticker", "trades")),
    }
    return Plan(
        seed=seed,
        exchange=exchange,
        latency_ms=rng.choice((0.0, 20.0, 100.0)),
        config=config,
        faults=tuple(faults),
        on_exit=rng.choice(("keep", "cancel", "flatten")),
    )


def ticks_of(seed: int, market: Market, seconds: float) -> Ticks:
    """Return a market that wanders enough for a small grid to fill every few seconds."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 3)
    ts_ms = 1_700_000_000_000 + np.sort(rng.integers(0, int(seconds * 1000), n))
    moves = rng.normal(0.0, 0.0004, n) - 0.00002 * np.sin(np.arange(n) / 40.0)
    level = 10_000.0 * np.exp(np.cumsum(moves))
    step = market.price_step
    return Ticks(
        price=np.round(np.rint(level / step) * step, 1),
        qty=np.maximum(market.qty_step, np.rint(rng.exponential(5.0, n)) * market.qty_step),
        ts_ms=ts_ms.astype(np.int64),
        buyer_maker=(rng.random(n) < 0.5).astype(np.uint8),
        trade_id=np.arange(1, n + 1),
    )


class Broken(AssertionError):  # noqa: N818 (an invariant, not an error)
    """An invariant does not hold."""


@dataclass
class Checker:
    """What must hold at every order that reaches the venue (FAULTS.md, section 3)."""

    world: World
    config: Config
    committed: set[str] = field(default_factory=set)
    slots: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # by client id
    accepted: Counter[str] = field(default_factory=Counter)
    silent: bool = False  # nothing may be created any more
    journal_is_full: bool = False
    healed_s: float = math.inf
    stale_since_s: float | None = None
    creates: list[float] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)  # not the bot's doing
    largest_wallet: float = 0.0

    def see_create(self, order: NewOrder) -> None:
        """Judge an order as it arrives."""
        venue, market = self.world.venue, self.world.venue.listing.market
        name = order.client_id
        if not is_own_id(name):
            return
        if self.silent and not (order.at_market and order.reduce_only):
            raise Broken(f"I9: {name} was created after the end")
        if name not in self.committed and not (order.reduce_only and self.journal_is_full):
            raise Broken(f"I3: {name} is not in the journal")
        self.accepted[name] += 1
        if self.accepted[name] > 1:
            raise Broken(f"I2: {name} was sent twice")
        self.creates.append(self.world.clock.monotonic_s())
        slot = self.slots.get(name)
        twins = [
            o.client_id
            for o in venue.open_orders()
            if slot is not None and self.slots.get(o.client_id) == slot
        ]
        if twins and not order.at_market:
            raise Broken(f"I2: {name} has the slot of {twins}, which rests")
        if order.at_market and not order.reduce_only:
            raise Broken(f"I8: {name} takes and may enlarge the position")
        if order.reduce_only:
            return
        if self.config.market_stop_loss is False and order.at_market:
            raise Broken(f"I8: {name} takes")
        if self.stale_since_s is not None and (
            self.world.clock.monotonic_s() - self.stale_since_s > STALE_S + 1.5
        ):
            raise Broken(f"I10: {name} was created on market data {STALE_S:g} s old")
        # Exposure: what is held and all that could fill on this side.
        held = order.side * venue.size
        live = sum(
            o.left
            for o in venue.open_orders()
            if o.side == order.side and not o.reduce_only and is_own_id(o.client_id)
        )
        budget = max(self.largest_wallet, venue.wallet) * self.config.balance_pct
        most = (
            0.95 * budget * order.price * self.config.leverage
            if market.inverse
            else 0.92 * budget / order.price * self.config.leverage
        )
        # Orders are sized by their ideal prices, and sent where the book lets them rest.
        slack = market.qty_step + 0.02 * most + max(market.min_qty, market.min_cost / order.price)
        if "exposure" not in self.excused and held + live + order.qty > most + slack:
            raise Broken(
                f"I1: {held:g} held, {live:g} live and {order.qty:g} of {name} are more than "
                f"{most:g}"
            )


class SpyJournal(Journal):
    """A journal whose commits the checker hears of, and whose disk can be full."""

    checker: Checker | None = None
    full_until_s = -math.inf

    def write(self, rows: Any) -> None:
        checker = self.checker
        if checker is not None:
            now_s = checker.world.clock.monotonic_s()
            checker.journal_is_full = now_s < self.full_until_s
            if checker.journal_is_full:
                raise JournalError("database or disk is full")
        super().write(rows)
        if checker is not None:
            for _, kind, key, body in rows:
                if kind == "intent":
                    checker.committed.add(key)
                    names = ("side", "ideal_price", "reduce_only", "kind")
                    checker.slots[key] = tuple(body[name] for name in names)


@dataclass
class Result:
    plan: Plan
    fired: Counter[str]
    counts: Counter[str]
    trace: list[Any]
    n_fills: int


class Run:
    """One plan, from warm-up to the scan of what was left."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        market = MARKETS[plan.exchange]
        self.config = load_config(plan.config)
        seconds = WARM_S + 75 + HEAL_S
        ticks = ticks_of(plan.seed, market, seconds)
        wallet = 2_000.0 if plan.exchange == "binance" else 0.2
        self.world = World(
            plan.exchange,
            self.config,
            market,
            ticks,
            folder / "journal.db",
            wallet=wallet,
            latency_ms=plan.latency_ms,
            direct=Faulty,
        )
        direct = self.world.direct
        assert isinstance(direct, Faulty)
        self.direct = direct
        self.checker = Checker(self.world, self.config, largest_wallet=wallet)
        direct.on_create = self._see_create
        self.broken: BaseException | None = None
        self.fired: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.first_ms = self.world.ticks[0][3]
        self.rng = random.Random(plan.seed * 7919)
        self.adopted = 0.0
        self.halts = False

    def _see_create(self, order: NewOrder) -> None:
        try:
            self.checker.see_create(order)
        except Broken as e:
            self.broken = self.broken or e

    # --- the bot's life ---

    async def start(self) -> None:
        self.direct.restarted()
        SpyJournal.checker = self.checker
        if self.checker.stale_since_s is not None:
            # A new process reads the market anew.
            self.checker.stale_since_s = self.world.clock.monotonic_s()
        await self.world.start(journal_class=SpyJournal)
        for _ in range(100):
            if self.world.engine is not None and self.world.engine.opened.is_set():
                break
            if self.world.run is not None and self.world.run.done():
                await self.world.kill()
                await self.world.start(journal_class=SpyJournal)
            await self.world.clock.run(250)
        self.largest()
        self.check_taken_over()

    def check_taken_over(self) -> None:
        """I5 at a start: what was taken over is what is left of each order at the venue."""
        engine = self.world.engine
        if engine is None or engine.core is None:
            return
        quantities = {id: qty for id, _, _, qty, _ in engine.core.bot.live}
        for order in self.world.venue.open_orders():
            ours = engine.core._ours.get(order.client_id)
            if ours is not None and round(quantities[ours.id] - order.left, 9) != 0:
                raise Broken(
                    f"I5: {order.client_id} was taken over with {quantities[ours.id]}, "
                    f"{order.left} are left"
                )

    def largest(self) -> None:
        self.checker.largest_wallet = max(self.checker.largest_wallet, self.world.venue.wallet)

    async def kill(self) -> None:
        self.take_counts()
        await self.world.kill()

    def take_counts(self) -> None:
        engine = self.world.engine
        if engine is not None and engine.core is not None:
            self.counts += engine.core.counts

    # --- faults ---

    async def fire(self, fault: Fault) -> None:
        direct, clock = self.direct, self.world.clock
        what, s, n = fault.what, fault.s, fault.n
        self.fired[what] += 1
        if what in ("silent_private", "silent_trades", "silent_book"):
            link = Link(what.removeprefix("silent_"))
            direct.lose(link, s, noticed_after_s=min(s * 0.5, 3.0))
        elif what in ("silent_all", "silent_market"):
            private = (Link.PRIVATE,) if what == "silent_all" else ()
            for link in (Link.TRADES, Link.BOOK, *private):
                direct.lose(link, s, noticed_after_s=20.0)
            self.checker.stale_since_s = clock.monotonic_s()
            direct.later(s, self._fresh)
        elif what in ("event_twice", "event_lost", "events_reversed"):
            direct.events_due.append((what, n))
        elif what == "gap":
            direct.lose(Link.TRADES, min(s, 2.0), noticed_after_s=0.2)
        elif what in ("drop_before", "drop_after", "delay_exec", "late_answer", "rate_limit"):
            for _ in range(n if what != "rate_limit" else 1):
                direct.orders_due.append((what, {"s": min(s, 4.0)}))
        elif what == "unheard_of":
            direct.orders_due.append(("drop_after", {"s": s}))
        elif what in ("resync", "margin_refused", "dropped"):
            reaction = {"resync": "resync_clock", "margin_refused": "reduce_only"}.get(what, "drop")
            for _ in range(n):
                direct.orders_due.append((what, {"reaction": reaction}))
        elif what in ("cancel_drop_before", "cancel_drop_after", "cancel_delay"):
            name = what.removeprefix("cancel_").replace("delay", "delay_exec")
            for _ in range(n):
                direct.cancels_due.append((name, {"s": min(s, 4.0)}))
        elif what in ("read_fails", "read_slow"):
            for _ in range(n):
                direct.reads_due.append((what, {"s": min(s, 3.0)}))
        elif what in ("stale", "empty"):
            direct.make_stale(min(s, 4.0), empty=what == "empty")
        else:
            await self.fire_at_venue(what, s, n)

    async def fire_at_venue(self, what: str, s: float, n: int) -> None:
        venue, clock = self.world.venue, self.world.clock
        ours = [o for o in venue.open_orders() if o.client_id.startswith(PREFIX)]
        bid, _ = venue.quote
        if what == "venue_cancel" and ours:
            for order in ours[:n]:
                if order.order_id in {o.order_id for o in venue.open_orders()}:
                    venue.cancel(order, reason="venue")
        elif what == "partial" and ours:
            order = ours[self.rng.randrange(len(ours))]
            step = venue.listing.market.qty_step
            part = math.floor(order.left / step / 2) * step
            part = round(part, 9)
            reduces = not order.reduce_only or order.side * venue.size < 0
            if part > 0 and reduces:
                venue.fill(order, part)
        elif what == "foreign_order":
            self.foreign(1, venue.listing.market, round(bid * 0.97, 0))
        elif what in ("foreign_close", "foreign_flip") and venue.size != 0.0:
            self.checker.excused.add("exposure")
            factor = 1.0 if what == "foreign_close" else 2.0
            self.foreign_take(-1 if venue.size > 0 else 1, abs(venue.size) * factor)
        elif what == "clone" and ours:
            order = ours[0]
            with contextlib.suppress(Refusal):
                venue.place(
                    client_id=f"web_{self.rng.randrange(10**9)}",
                    side=order.side,
                    type=OrderType.LIMIT,
                    tif=TimeInForce.POST_ONLY,
                    price=order.price,
                    qty=order.left,
                    reduce_only=order.reduce_only,
                )
        elif what == "gap_through":
            step = venue.listing.market.price_step
            side = self.rng.choice((1, -1))
            venue.jump(round(round(venue.mark_price * (1 - side * 0.006) / step) * step, 9))
        elif what == "funding":
            venue.settle_funding(0.0005)
        elif what == "withdraw":
            self.checker.excused.add("exposure")
            venue.deposit(-0.4 * venue.wallet)
        elif what == "leverage":
            with contextlib.suppress(Refusal):
                venue.set_leverage(max(1.0, self.config.venue_leverage - 1.0))
        elif what == "not_trading":
            venue.set_trading(False)
            self.direct.later(s, lambda: venue.set_trading(True))
        elif what == "rules":
            market = venue.listing.market
            step = 1.0 if market.price_step < 1.0 else 0.5
            listing = dataclasses.replace(
                venue.listing, market=dataclasses.replace(market, price_step=step)
            )
            venue.set_listing(listing)
        elif what == "adl" and venue.size != 0.0:
            step = venue.listing.market.qty_step
            part = round(math.floor(abs(venue.size) / step / 2) * step, 9)
            if part > 0:
                venue.deleverage(part)
        elif what.startswith("kill"):
            await self.fire_kill(what, s)
        elif what == "disk_full":
            SpyJournal.full_until_s = clock.monotonic_s() + s
        elif what == "clock_set":
            self.world.bot_clock.offset_ms += self.rng.choice((-3_600_000, 3_600_000))
        elif what == "pause":
            await self.pause(11.0 + s)

    async def fire_kill(self, what: str, s: float) -> None:
        await self.kill()
        path = self.world.journal_path
        if what == "kill_and_lose_journal":
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
        elif what == "kill_and_old_journal":
            for end in ("-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
        if "journal" in what:
            # What an order was meant to be, only a whole journal knows.
            self.checker.slots.clear()
        await self.to(self.world.clock.monotonic_s() + min(s, 4.0))
        await self.start()

    async def pause(self, seconds: float) -> None:
        """Stop the process, as SIGSTOP does: the world goes on, and is heard of afterwards."""
        sink = self.direct.sink
        queue: list[Callable[[], None]] = []
        clock = self.world.clock
        self.direct.sink = _Queue(sink, queue) if sink is not None else None  # type: ignore[assignment]
        engine = self.world.engine
        assert engine is not None
        step, engine._step = engine._step, lambda event: queue.append(lambda: step(event))  # type: ignore[method-assign]
        await self.to(clock.monotonic_s() + seconds)
        del engine._step
        self.direct.sink = sink
        for tell in queue:
            tell()

    def foreign(self, side: int, market: Market, price: float) -> None:
        qty = 0.001 if not market.inverse else 1.0
        with contextlib.suppress(Refusal):
            self.world.venue.place(
                client_id=f"web_{self.rng.randrange(10**9)}",
                side=side,
                type=OrderType.LIMIT,
                tif=TimeInForce.GTC,
                price=price,
                qty=qty,
                reduce_only=False,
            )

    def foreign_take(self, side: int, qty: float) -> None:
        with contextlib.suppress(Refusal):
            self.world.venue.place(
                client_id=f"web_{self.rng.randrange(10**9)}",
                side=side,
                type=OrderType.MARKET,
                tif=TimeInForce.GTC,
                price=0.0,
                qty=round(qty, 9),
                reduce_only=False,
            )

    def _fresh(self) -> None:
        self.checker.stale_since_s = None

    # --- the run ---

    async def to(self, at_s: float) -> None:
        """Let market and bot go on until then."""
        world = self.world
        start_ms = self.first_ms
        while (now_s := world.clock.monotonic_s()) < at_s - 1e-6:
            until_s = min(at_s, math.floor(now_s) + 1.0)
            await world.play(start_ms + math.floor(until_s * 1000) - 1)
            ahead_ms = (until_s - world.clock.monotonic_s()) * 1000
            if ahead_ms > 0:
                await world.clock.run(ahead_ms)
            self.check()

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken
        run = self.world.run
        if run is not None and run.done() and not run.cancelled() and run.exception() is not None:
            raise Broken(f"the engine failed: {run.exception()!r}") from run.exception()

    async def go(self) -> Result:
        world = self.world
        while world.at < len(world.ticks) and world.ticks[world.at][3] == self.first_ms:
            number, price, qty, ts_ms, buyer_maker = world.ticks[world.at]
            world.venue.print(number, price, qty, buyer_maker, ts_ms)
            world.at += 1
        await self.start()
        beat = asyncio.get_running_loop().create_task(heartbeat(world))
        try:
            for fault in self.plan.faults:
                await self.to(fault.at_s)
                await self.fire(fault)
            await self.to(WARM_S + 78)
            await self.heal()
            await self.judge()
            await self.end()
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            if world.run is not None:
                world.run.cancel()
                await asyncio.gather(world.run, return_exceptions=True)
        self.fired += self.direct.fired
        return Result(self.plan, self.fired, self.counts, self.trace(), len(world.venue.executions))

    def trace(self) -> list[Any]:
        return [
            (e.ts_ms, e.price, e.side, e.qty, e.client_id) for e in self.world.venue.executions
        ] + [(o.client_id, o.price, o.qty, o.created_ms) for o in self.world.venue.orders.values()]

    async def heal(self) -> None:
        world = self.world
        self.direct.heal()
        world.venue.set_trading(True)
        with contextlib.suppress(Refusal):
            world.venue.set_leverage(float(self.config.venue_leverage))
        self._fresh()
        SpyJournal.full_until_s = -math.inf
        world.ticks = world.ticks[: world.at]  # from now on nobody trades
        wait_s = max(0.0, self.direct.quiet_until_s - world.clock.monotonic_s())
        await self.to(world.clock.monotonic_s() + wait_s + LIVE_S)
        # What was refused again and again is left alone for a minute: that is no fault.
        core = world.engine.core if world.engine is not None else None
        if core is not None:
            now_s = world.clock.monotonic_s()
            until_s = [until for _, until in core.mode_reasons.values() if until < math.inf]
            if until_s:
                await self.to(max(now_s, *until_s) + 16.0)

    async def judge(self) -> None:
        """Look at what must hold once all is well again: I4 (in part), I5, I6, I7."""
        world, venue = self.world, self.world.venue
        engine = world.engine
        assert engine is not None
        assert engine.core is not None
        core = engine.core
        if core.halted:
            self.halts = True
            if "liquidated" not in core.halted:
                raise Broken(f"halted without reason: {core.halted}")
            return
        if core.mode is not Mode.ACTIVE:
            raise Broken(f"I6: not active after healing: {core.mode_reasons}")
        wallet, _, size, entry_price, _ = core.bot.account
        if size != venue.size:
            raise Broken(f"I5: the bot holds {size}, the venue {venue.size}")
        if abs(wallet - venue.wallet) > 1e-7 * max(1.0, abs(venue.wallet)):
            raise Broken(f"I5: the bot's wallet is {wallet}, the venue's {venue.wallet}")
        if size and abs(entry_price - venue.entry_price) > 1e-6 * venue.entry_price:
            raise Broken(f"I5: entry {entry_price}, at the venue {venue.entry_price}")
        mine = {o.client_id: o for o in venue.open_orders() if is_own_id(o.client_id)}
        known = set(core.open_ids)
        if known != set(mine):
            raise Broken(f"I5: known {sorted(known)}, at the venue {sorted(mine)}")
        if core.unresolved:
            raise Broken(f"I6: still unresolved: {core.unresolved}")
        reducing = sum(o.left for o in mine.values() if o.reduce_only)
        if round(reducing - abs(venue.size), 9) > 0:
            raise Broken(f"I7: {reducing} of reduce-only orders, {venue.size} held")
        self.judge_grid(list(mine.values()))
        before = len(self.checker.creates)
        await self.to(world.clock.monotonic_s() + 30)
        if len(self.checker.creates) - before > 2:
            raise Broken(f"I6: {len(self.checker.creates) - before} creates at a constant price")

    def judge_grid(self, mine: list[Any]) -> None:
        """The orders that rest are those that the planner wants."""
        assert self.world.engine is not None
        core = self.world.engine.core
        assert core is not None
        wallet, equity, size, entry_price, liq_price = core.bot.account
        last, bid, ask, ema = core.bot.market
        wanted = plan_orders(
            self.config,
            core.rules.market,  # the bot learns of new ones by a refusal
            wallet=wallet,
            equity=equity,
            last_price=last,
            ema=ema,
            position=Position(size, entry_price, liq_price),
            bid=bid,
            ask=ask,
            close_base=core.bot.close_base or None,
        )
        step = core.rules.market.price_step
        by_id = {ours.id: name for name, ours in core._ours.items()}
        ideals = {by_id[id]: ideal for id, _, _, _, ideal in core.bot.live}
        left = list(mine)
        missing = []
        for want in wanted:
            if not want.now or want.kind.startswith("stop"):
                continue
            for order in left:
                if order.side != want.side or order.reduce_only is not want.reduce_only:
                    continue
                # By its ideal: where a clamped one was sent, the book of that time decided.
                ideal = ideals[order.client_id]
                near = 0.0003 if want.kind == "entry" else 0.0
                close = max(near * want.ideal_price, step if near else 0.0) + 1e-9
                if (
                    abs(ideal - want.ideal_price) <= close
                    and abs(order.left - want.qty) <= 0.06 * want.qty + 1e-9
                ):
                    left.remove(order)
                    break
            else:
                missing.append(want)
        stops = any(want.kind.startswith("stop") for want in wanted) or _beyond(self, last)
        extra = [o for o in left if not (o.client_id[4] == "r" or stops)]
        missing = [want for want in missing if self.has_room(want, mine)]
        if (missing and not stops) or extra:
            resting = [(o.client_id, o.price, ideals[o.client_id], o.left) for o in mine]
            raise Broken(f"I6: missing {missing}; extra {extra}; resting {resting}")

    def has_room(self, want: Any, mine: list[Any]) -> bool:
        """Whether the maximum position leaves room for an order that is missing."""
        if want.reduce_only:
            return True
        venue, market = self.world.venue, self.world.venue.listing.market
        live = sum(o.left for o in mine if o.side == want.side and not o.reduce_only)
        budget = venue.wallet * self.config.balance_pct
        most = (
            0.95 * budget * want.ideal_price * self.config.leverage
            if market.inverse
            else 0.92 * budget / want.ideal_price * self.config.leverage
        )
        return bool(want.side * venue.size + live + want.qty <= most * (1 - 1e-9))

    async def end(self) -> None:
        """Stop, and look at what was left: I4, I9."""
        world = self.world
        engine = world.engine
        assert engine is not None
        self.take_counts()
        began_s = world.clock.monotonic_s()
        self.checker.silent = True
        on_exit = OnExit(self.plan.on_exit)
        await world.stop(on_exit)
        if world.clock.monotonic_s() - began_s > 5.0:
            raise Broken("I9: stopping took more than 5 s")
        self.check()
        mine = [o for o in world.venue.open_orders() if is_own_id(o.client_id)]
        if on_exit is not OnExit.KEEP and mine and not self.halts:
            raise Broken(f"orders were left: {[o.client_id for o in mine]}")
        if on_exit is OnExit.FLATTEN and world.venue.size != 0.0 and not self.halts:
            raise Broken(f"a position of {world.venue.size} was left")
        foreign = [o for o in world.venue.orders.values() if o.client_id.startswith("web_")]
        touched = [o.client_id for o in foreign if o.status == "CANCELED" and o.reason == "user"]
        if touched:
            raise Broken(f"I13: cancelled another's order: {touched}")
        fills = [e.key for e in read_entries(world.journal_path, "fill")]
        told = [
            str(e.trade_id) if world.direct.binance else e.exec_id for e in world.venue.executions
        ]
        if sorted(fills) != sorted(told):
            raise Broken(
                f"I4: not journaled {sorted(set(told) - set(fills))}, "
                f"invented {sorted(set(fills) - set(told))}"
            )
        # Each time the bot learns of it by refusals: of a create, of a close, of a cancel.
        if self.direct.asked_while_quiet > 8 * self.direct.fired["rate_limit"]:
            raise Broken(f"I12: {self.direct.asked_while_quiet} requests before Retry-After")


def _beyond(run: Run, last: float) -> bool:
    engine = run.world.engine
    assert engine is not None
    assert engine.core is not None
    _, _, size, entry, liq = engine.core.bot.account
    if size == 0.0:
        return False
    side = 1 if size > 0 else -1
    stop = entry * (1 - side * run.config.stop_loss_pos_price_diff)
    near_liq = liq > 0 and side * last <= side * liq * (1 + side * run.config.stop_loss_liq_diff)
    return side * last <= side * stop or near_liq


class _Queue:
    """A sink that keeps what it is told for later."""

    def __init__(self, sink: Any, queue: list[Callable[[], None]]) -> None:
        self._sink = sink
        self._queue = queue

    def __getattr__(self, name: str) -> Callable[..., None]:
        told = getattr(self._sink, name)
        return lambda *args: self._queue.append(lambda: told(*args))


def run_plan(plan: Plan, folder: Path) -> Result:
    """Run one plan; `Broken` says which invariant does not hold."""
    SpyJournal.full_until_s = -math.inf

    async def go() -> Result:
        return await Run(plan, folder).go()

    return asyncio.run(go())


class Hangs(BaseException):
    """I15: it makes no progress. Nothing that catches errors may catch this."""


def _hangs(*_: object) -> None:
    raise Hangs


def run_seed(seed: int, more: tuple[Fault, ...] = ()) -> Result:
    """Run the plan of a seed, with more faults if asked, and say how to see a failure again."""
    plan = plan_of(seed)
    faults = sorted((*plan.faults, *more), key=lambda fault: fault.at_s)
    plan = dataclasses.replace(plan, faults=tuple(faults))
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(_LONGEST_S)
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run_plan(plan, Path(folder))
        except (Exception, Hangs) as e:
            raise Broken(
                f"{e!r}\nreplay: python -m tests.chaos.tier1 --seed {seed}\n{plan.text()}"
            ) from e
        finally:
            signal.alarm(0)


def minimal(plan: Plan) -> Plan:
    """Leave out faults as long as the run still fails."""
    faults = list(plan.faults)
    i = 0
    while i < len(faults):
        fewer = dataclasses.replace(plan, faults=tuple(faults[:i] + faults[i + 1 :]))
        with tempfile.TemporaryDirectory() as folder:
            try:
                run_plan(fewer, Path(folder))
                i += 1
            except Exception:
                faults.pop(i)
    return dataclasses.replace(plan, faults=tuple(faults))


def seeds_of(text: str) -> Iterator[int]:
    first, _, last = text.partition(":")
    return iter(range(int(first), int(last or int(first) + 1)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=seeds_of)
    parser.add_argument("--minimal", action="store_true")
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.log else logging.CRITICAL)
    failed = []
    fired: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for seed in options.seeds or iter([options.seed or 0]):
        try:
            result = run_seed(seed)
        except Exception as e:
            if os.environ.get("TRACE"):
                traceback.print_exc()
            failed.append(seed)
            print(f"--- {seed}: {e}" if not options.seeds else f"--- {seed}: {str(e)[:300]}")
            if options.minimal:
                print("minimal:", minimal(plan_of(seed)).text())
        else:
            fired += result.fired
            counts += result.counts
    print("failed", failed)
    print("fired", dict(fired))
    print("counts", dict(counts))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
