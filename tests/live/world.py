"""A market, a venue and a bot on one virtual clock: the same run every time it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from passivx.clock import VirtualClock
from passivx.config import Config
from passivx.data.ticks import Ticks
from passivx.live.engine import Engine
from passivx.live.events import OnExit
from passivx.live.journal import Journal
from passivx.models import Market
from passivx.simulator.feed import find_listing
from passivx.simulator.ledger import Ledger
from passivx.simulator.venue import Policy, SimVenue
from tests.live.direct import GATHER_S, REQUOTE_PHASE_S, Direct, turns
from tests.simulator.worlds import BINANCE, BYBIT

Print = tuple[int, float, float, int, bool]


def policy_of(exchange: str) -> Policy:
    return BINANCE if exchange == "binance" else BYBIT


class Shifted:
    """The bot's own clock: the wall may be set, the venue's stays as it is."""

    def __init__(self, clock: VirtualClock) -> None:
        self.offset_ms = 0
        self.monotonic_s = clock.monotonic_s
        self.sleep = clock.sleep
        self.call_later = clock.call_later
        self._clock = clock

    def time_ms(self) -> int:
        return self._clock.time_ms() + self.offset_ms


class World:
    """One venue, and bots on it one after the other."""

    def __init__(
        self,
        exchange: str,
        config: Config,
        market: Market,
        ticks: Ticks,
        journal_path: Path,
        *,
        wallet: float,
        latency_ms: float = 100.0,
        funding_rate: float = 0.0001,
        direct: Callable[..., Direct] = Direct,
    ) -> None:
        self.config = config
        self.ticks = list(prints_of(ticks))
        self.at = 0
        start_ms = self.ticks[0][3]
        self.clock = VirtualClock(start_ms)
        self.bot_clock = Shifted(self.clock)
        listing = find_listing(exchange, config.symbol, market)
        self.ledger = Ledger(self.clock, None)
        self.venue = SimVenue(
            listing,
            policy_of(exchange),
            clock=self.clock,
            ledger=self.ledger,
            price=self.ticks[0][1],
            wallet=wallet,
            leverage=float(config.venue_leverage),
            cross_mode=config.cross_mode,
        )
        self.direct = direct(
            self.venue, self.clock, latency_ms=latency_ms, binance=exchange == "binance"
        )
        self.journal_path = journal_path
        self.journal: Journal | None = None
        self.engine: Engine | None = None
        self.run: asyncio.Task[None] | None = None
        self.starts = 0

    async def start(self, *, journal_class: type[Journal] = Journal, **options: object) -> Engine:
        """Start a bot, and return once it trades."""
        self.starts += 1
        self.journal = journal_class(self.journal_path)
        self.engine = Engine(
            config=self.config,
            exchange=self.direct,
            journal=self.journal,
            clock=self.bot_clock,
            instance=f"run{self.starts}",
            gather_s=GATHER_S,
            requote_phase_s=REQUOTE_PHASE_S,
            **options,  # type: ignore[arg-type]
        )
        self.run = asyncio.get_running_loop().create_task(self.engine.run())
        for _ in range(50):
            await turns()
            if self.engine.opened.is_set() or self.run.done():
                break
        return self.engine

    async def play(self, until_ms: int) -> None:
        """Let the market go on to the end of that millisecond."""
        while True:
            ts_ms = self.ticks[self.at][3] if self.at < len(self.ticks) else until_ms + 1
            if self.venue.next_funding_ms and self.venue.next_funding_ms < min(ts_ms, until_ms + 1):
                funding_ms = self.venue.next_funding_ms
                await self.pass_to(funding_ms, 0.4)
                self.venue.pass_time(funding_ms)
                await turns()
                continue
            if ts_ms > until_ms:
                break
            await self.pass_to(ts_ms, 0.0)
            while self.at < len(self.ticks) and self.ticks[self.at][3] == ts_ms:
                number, price, qty, _, buyer_maker = self.ticks[self.at]
                self.venue.print(number, price, qty, buyer_maker, ts_ms)
                self.at += 1
            if self.venue.next_funding_ms == ts_ms:
                await self.pass_to(ts_ms, 0.4)
                self.venue.pass_time(ts_ms)
            await turns()
        await self.pass_to(until_ms, 0.9)

    async def pass_to(self, ts_ms: int, phase_ms: float) -> None:
        """Move the clock there, and let happen what is due on the way."""
        now_ms = self.clock.time_ms()
        into_ms = self.clock.monotonic_s() * 1e3 % 1.0
        ahead_ms = ts_ms - now_ms + phase_ms - round(into_ms, 6) % 1.0
        if ahead_ms > 0:
            await self.clock.run(ahead_ms)

    async def stop(self, on_exit: OnExit = OnExit.KEEP) -> None:
        """Stop the bot, and see that it ended well."""
        assert self.engine is not None
        assert self.run is not None
        assert self.journal is not None
        self.engine.stop(on_exit)
        for _ in range(600):
            if self.run.done():
                break
            await self.clock.run(10)
        await self.run
        self.journal.close()

    async def kill(self) -> None:
        """End the bot as kill -9 would: nothing more is written, sent or heard."""
        assert self.run is not None
        assert self.journal is not None
        self.direct.sink = None
        self.run.cancel()
        await asyncio.gather(self.run, return_exceptions=True)
        self.journal.close()


async def heartbeat(world: World) -> None:
    """Tell the mark price every second, as venues do."""
    while True:
        world.direct.beat()
        await world.clock.sleep(1.0)


def prints_of(ticks: Ticks) -> Iterator[Print]:
    ids = ticks.trade_id if ticks.trade_id is not None else np.arange(1, len(ticks) + 1)
    return zip(
        ids.tolist(),
        ticks.price.tolist(),
        ticks.qty.tolist(),
        ticks.ts_ms.tolist(),
        ticks.buyer_maker.astype(bool).tolist(),
        strict=True,
    )


def fills_of(world: World) -> list[tuple[int, float, float]]:
    return [(each.ts_ms, each.price, each.side * each.qty) for each in world.venue.executions]


def run_to_end(world: World, **options: object) -> None:
    """Run one bot over all ticks."""

    async def go() -> None:
        beat = None
        try:
            first_ms = world.ticks[0][3]
            while world.at < len(world.ticks) and world.ticks[world.at][3] == first_ms:
                number, price, qty, ts_ms, buyer_maker = world.ticks[world.at]
                world.venue.print(number, price, qty, buyer_maker, ts_ms)
                world.at += 1
            await world.start(**options)
            beat = asyncio.get_running_loop().create_task(heartbeat(world))
            await world.play(world.ticks[-1][3])
            await world.stop()
        finally:
            if beat is not None:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

    asyncio.run(go())


def as_rows(rows: Iterable[Sequence[object]]) -> list[tuple[object, ...]]:
    return [tuple(row) for row in rows]
