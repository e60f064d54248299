"""The bot against the stepped simulator over real sockets, at the speed of the machine.

Simulator, client and engine share one virtual clock. It moves from one thing that can happen to the
next (a trade, a timer, a settlement), and only once everything that the last one brought about has
been heard: both sides count the messages of all sockets, and nothing moves before each that one has
sent the other has received, every request is answered, and the loop has gone round without news. So
a run is the same every time, and its fills are the backtest's (docs/backtest.md, *One
millisecond*).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from passivx.clock import VirtualClock
from passivx.config import Config
from passivx.data.ticks import Ticks
from passivx.errors import PassivxError
from passivx.exchanges.client import Client
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.venues import open_exchange
from passivx.live.engine import Engine, Watcher
from passivx.live.events import OnExit
from passivx.live.journal import Journal, read_entries
from passivx.models import Market
from passivx.simulator.app import Simulator
from passivx.simulator.feed import Feed

__all__ = ["FILL_DTYPE", "Rehearsal", "rehearse"]

# Within a millisecond: trades at its beginning, a plan, then what arrives, each answered by a plan
# of its own; funding, and the requote. Messages are late by a little more than their latency, so
# that they arrive after the plan of the trades of that millisecond; what one answers, and what that
# brings about, is far less than the half millisecond until the requote.
_GATHER_S: Final = 1e-6
_LATE_S: Final = 2e-6
_FUNDING_S: Final = 0.0004
_REQUOTE_S: Final = 0.0005
_NS_PER_MS: Final = 1_000_000
# So often the loop goes round without a message before the clock moves on. What a message wakes is
# at most a chain of a few tasks, none of which waits for anything outside.
_QUIET_TURNS: Final = 8
# Real time: a message that takes longer is lost, or a read waits for a clock that stands still.
_MOST_WAIT_S: Final = 20.0

FILL_DTYPE: Final = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("kind", "U24"),
        ("price", "<f8"),
        ("qty", "<f8"),
        ("pos_size", "<f8"),
        ("balance", "<f8"),
    ]
)
"""One fill; the names are those of a backtest's records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What the bot did: its fills as its journal has them, and what it and the venue hold then.

    ``funding`` are the venue's settlements (ts_ms, rate); ``counts`` the bot's own of everything
    unusual.
    """

    fills: npt.NDArray[np.void]
    wallet: float
    size: float
    venue_wallet: float
    venue_size: float
    funding: list[tuple[int, float]]
    counts: dict[str, int]
    orders: int
    messages: int


async def rehearse(
    exchange: str,
    config: Config,
    market: Market,
    ticks: Ticks,
    folder: Path,
    *,
    wallet: float,
    latency_ms: float,
    watcher: Watcher | None = None,
) -> Rehearsal:
    """Run the bot over the ticks, and return what it did until the last one.

    Parameters
    ----------
    folder : Path
        Where its journal goes.
    wallet : float
        Settle currency; no more than 8 decimals, for venues tell no more.
    latency_ms : float
        Of orders and cancels alike.

    Raises
    ------
    PassivxError
        If the bot fails, or a message gets lost.
    """
    late_s = latency_ms / 1e3 + _LATE_S
    delays = [
        {"do": "rest.delay_exec", "s": late_s, "when": {"on": on}, "times": 0}
        for on in ("order", "cancel")
    ]
    async with Simulator(
        exchange=exchange,
        symbol=config.symbol,
        market=market,
        feed=Feed.from_ticks(ticks, market),
        wallet=wallet,
        speed="step",
        faults=delays,
        leverage=float(config.venue_leverage),
        cross_mode=config.cross_mode,
    ) as simulator:
        return await _Stage(simulator, config, ticks, folder, watcher).play()


class _Stage:
    def __init__(
        self,
        simulator: Simulator,
        config: Config,
        ticks: Ticks,
        folder: Path,
        watcher: Watcher | None,
    ) -> None:
        assert simulator.stepped is not None
        self._simulator = simulator
        self._clock: VirtualClock = simulator.stepped
        self._start_ms = self._clock.time_ms()
        self._times = ticks.ts_ms.tolist()
        said = simulator.endpoints
        client = open_exchange(
            endpoints=Endpoints(
                **{name: said.get(name) for name in Endpoints.__dataclass_fields__}  # type: ignore[arg-type]
            ),
            symbol=config.symbol,
            key=ApiKey(said["key"], said["secret"]),
            clock=self._clock,
        )
        assert isinstance(client, Client)
        self._client: Client[Any, Any] = client
        self._path = folder / "journal.db"
        self._journal = Journal(self._path)
        self._engine = Engine(
            config=config,
            exchange=client,
            journal=self._journal,
            clock=self._clock,
            instance="rehearsal",
            watcher=watcher,
            gather_s=_GATHER_S,
            requote_phase_s=_REQUOTE_S,
        )

    async def play(self) -> Rehearsal:
        simulator, engine = self._simulator, self._engine
        times = self._times
        n_first = bisect_right(times, times[0])
        await simulator.step(ticks=n_first)
        run = asyncio.get_running_loop().create_task(engine.run())
        try:
            await self._until_open(run)
            for ts_ms in times[n_first:]:
                await self._pass_to(ts_ms)
                # One at a time, so that each trade is heard before the fills of the next.
                await simulator.step(ticks=1)
                await self._quiet()
                if run.done():
                    break
            # The whole millisecond of the last trade, as a backtest plays it.
            await self._pass_to(times[-1] + 1)
            core, venue = engine.core, simulator.venue
            if run.done() or core is None:
                await run
                raise PassivxError("the bot has ended by itself")
            held = core.bot.account
            told: dict[str, Any] = {
                "wallet": held[0],
                "size": held[2],
                "venue_wallet": venue.wallet,
                "venue_size": venue.size,
                "funding": [(ts_ms, rate) for ts_ms, rate, _ in venue.rates],
                "counts": dict(core.counts),
                "orders": len(venue.orders),
                "messages": sum(simulator.server.traffic),
            }
            engine.stop(OnExit.KEEP)
            await self._pass_until(run)
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            self._journal.close()
        return Rehearsal(fills=_fills(self._path, times[-1]), **told)

    # --- time ---

    async def _pass_to(self, ts_ms: int) -> None:
        """Move the clock to the beginning of that millisecond, from one timer to the next."""
        venue = self._simulator.venue
        while 0 < (funding_ms := venue.next_funding_ms) < ts_ms:
            await self._move_to(
                (funding_ms - self._start_ms) * _NS_PER_MS + round(_FUNDING_S * 1e9)
            )
            venue.pass_time(funding_ms)
            await self._quiet()
        await self._move_to((ts_ms - self._start_ms) * _NS_PER_MS)

    async def _move_to(self, at_ns: int) -> None:
        clock = self._clock
        while True:
            ahead_ns = at_ns - round(clock.monotonic_s() * 1e9)
            due_s = clock.next_due_s()
            if due_s is None or due_s * 1e9 > ahead_ns:
                if ahead_ns > 0:
                    clock.advance(ahead_ns / _NS_PER_MS)
                return
            clock.advance(due_s * 1e3)
            await self._quiet()

    async def _until_open(self, run: asyncio.Task[None]) -> None:
        """Wait in real time until the bot trades: it must need none of the clock's."""
        opened = asyncio.get_running_loop().create_task(self._engine.opened.wait())
        await asyncio.wait([run, opened], timeout=_MOST_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if run.done():
            await run
        if not self._engine.opened.is_set():
            raise PassivxError("the bot did not get to trade")
        await self._quiet()

    async def _pass_until(self, run: asyncio.Task[None]) -> None:
        until_s = time.monotonic() + _MOST_WAIT_S
        while not run.done() and time.monotonic() < until_s:
            await self._clock.run(10)
        if not run.done():
            raise PassivxError("the bot did not stop")
        await run

    async def _quiet(self) -> None:
        """Return once all that was sent has been heard, and nothing more comes of it."""
        client, server = self._client, self._simulator.server
        still, before, until_s = 0, None, 0.0
        while still < _QUIET_TURNS:
            await asyncio.sleep(0)
            sent, heard, under_way = client.traffic
            now = sent, heard, server.traffic
            if now == before and not under_way and now[2] == (sent, heard):
                still += 1
                continue
            still, before = 0, now
            if until_s == 0.0:
                until_s = time.monotonic() + _MOST_WAIT_S
            elif time.monotonic() > until_s:
                raise PassivxError(
                    f"a message got lost: client and simulator have sent {sent} and {now[2][1]}, "
                    f"heard {heard} and {now[2][0]}; {under_way} requests under way"
                )


def _fills(journal: Path, last_ms: int) -> npt.NDArray[np.void]:
    rows = [
        (
            body["venue_ts_ms"],
            body["cause"],
            body["price"],
            body["side"] * body["qty"],
            body["pos_size"],
            body["wallet"],
        )
        for body in (entry.body for entry in read_entries(journal, "fill"))
        if body["venue_ts_ms"] <= last_ms
    ]
    return np.array(rows, FILL_DTYPE)
