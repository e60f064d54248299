"""Where the prints come from, what is listed for them, and how fast they are played."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import numpy as np

from passivx.clock import Clock, VirtualClock
from passivx.data.synthetic import BTCUSD, BTCUSDT, MarketProfile, synthetic_chunks
from passivx.data.ticks import Ticks
from passivx.errors import ConfigError, DataError, Problem, nearest
from passivx.models import Market, load_market, step_parts
from passivx.simulator.ledger import Ledger
from passivx.simulator.venue import Listing, SimVenue
from passivx.workspace import find_market

__all__ = ["Feed", "Print", "Replay", "Speed", "find_listing"]

Print = tuple[int, float, float, int, bool]
"""trade_id, price, qty, ts_ms, buyer_maker."""
Speed = float | Literal["max", "step"]

_PROFILES: Final = {"binance": BTCUSDT, "bybit": BTCUSD}
_MAX_ORDERS: Final = {"binance": 200, "bybit": 500}
_QUOTES: Final = re.compile(r"([A-Z0-9]+?)(USDT|USDC|USD)")
_PIECE: Final = 4096  # rows made into Python objects at a time
# So high a price leaves room below the highest that is listed, of 1e7 steps.
_MOST_STEPS: Final = 8_000_000
# How long the loop waits for a replay that has much to do.
_LONGEST_TURN_S: Final = 0.002


def find_listing(
    exchange: str, symbol: str, market: Market | None = None, workspace: Path | None = None
) -> Listing:
    """Return what a venue lists under a symbol, with caps as wide as the venues' own.

    Without a ``market`` it is that of the workspace's market file, else of the package's example.

    Raises
    ------
    ConfigError
        If there is no such file, it cannot be used, or the symbol names no known quote currency.
    """
    names = _QUOTES.fullmatch(symbol)
    if names is None:
        raise ConfigError(
            [Problem("symbol", symbol, "must be a coin and USDT, USDC or USD", "as in BTCUSDT")]
        )
    if market is None:
        path = find_market(exchange, symbol, workspace or Path())
        if path is None:
            remedy = "give a market file with --market"
            raise ConfigError([Problem("symbol", symbol, f"has no rules for {exchange}", remedy)])
        market = load_market(path)
    widest, widest_market = (25e6, 5e6) if market.inverse else (1e6, 1.2e5)
    units, scale = step_parts(market.price_step)
    qty_units, qty_scale = step_parts(market.qty_step)
    return Listing(
        symbol=symbol,
        base=names[1],
        quote=names[2],
        market=market,
        min_price=market.price_step,
        max_price=1e7 * units / scale,
        max_qty=widest * qty_units / qty_scale,
        max_market_qty=widest_market * qty_units / qty_scale,
        max_orders=_MAX_ORDERS.get(exchange, 200),
    )


class Feed:
    """Prints in the order of their time, and of their ids; iterate it once.

    Attributes
    ----------
    name : str
        Where they come from.
    start_ts_ms, start_price
        Of the first print.
    """

    def __init__(self, name: str, pieces: Iterable[Ticks]) -> None:
        pieces = iter(pieces)
        first = next(pieces, None)
        if first is None or len(first) == 0:
            raise DataError("there are no trades to replay", name)
        self.name = name
        self.start_ts_ms = int(first.ts_ms[0])
        self.start_price = float(first.price[0])
        self._pieces = chain([first], pieces)

    @classmethod
    def from_ticks(cls, ticks: Ticks, market: Market) -> Feed:
        """Replay recorded trades on a market.

        Trades without ids, or whose ids do not rise, are numbered from 1.

        Raises
        ------
        ConfigError
            If a price is off the market's grid, or a quantity so small that the market has no name
            for it, naming the first.
        DataError
            If there are none.
        """
        units, scale = step_parts(market.price_step)
        off = np.rint(ticks.price * scale / units) * units / scale != ticks.price
        if off.any():
            row = int(off.argmax())
            price = float(ticks.price[row])
            raise _another_market(
                "price_step",
                market.price_step,
                f"does not divide the price {price!r} of trade {row + 1}",
            )
        # What the tape shows is rounded to the step; a venue shows no trade of nothing.
        small = ticks.qty < 0.5 * market.qty_step
        if small.any():
            row = int(small.argmax())
            qty = float(ticks.qty[row])
            raise _another_market(
                "qty_step",
                market.qty_step,
                f"is too coarse for the quantity {qty!r} of trade {row + 1}",
            )
        sources = ticks.report.sources
        return cls(sources[0] if sources else "trades", [ticks])

    @classmethod
    def synthetic(cls, seed: int, exchange: str, market: Market | None = None) -> Feed:
        """Make up an endless market: BTCUSDT as on Binance, BTCUSD as on Bybit.

        On the steps of ``market``, if one is given; it begins as many price steps high as those,
        where their own price would be fewer than 1,000 of its steps or more than 8 million.

        Raises
        ------
        ConfigError
            If the exchange is neither, the seed negative, or nothing can be made up on those steps.
        """
        profile = _PROFILES.get(exchange)
        if profile is None:
            raise ConfigError(
                [Problem("exchange", exchange, "is not simulated", nearest(exchange, _PROFILES))]
            )
        if seed < 0:
            raise ConfigError([Problem("seed", seed, "must be >= 0")])
        if market is not None:
            profile = _on_steps_of(market, profile)
        chunks = synthetic_chunks(seed, profile=profile, chunk=_PIECE)
        return cls(f"synthetic {profile.symbol}, seed {seed}", chunks)

    def __iter__(self) -> Iterator[Print]:
        for ticks in self._pieces:
            ids = ticks.trade_id
            if ids is None or (np.diff(ids) <= 0).any():
                ids = np.arange(1, len(ticks) + 1)
            for start in range(0, len(ticks), _PIECE):
                rows = slice(start, start + _PIECE)
                yield from zip(
                    ids[rows].tolist(),
                    ticks.price[rows].tolist(),
                    ticks.qty[rows].tolist(),
                    ticks.ts_ms[rows].tolist(),
                    ticks.buyer_maker[rows].astype(bool).tolist(),
                    strict=True,
                )


def _another_market(name: str, step: float, message: str) -> ConfigError:
    remedy = "give the market the trades were recorded on with --market FILE"
    return ConfigError([Problem(name, step, message, remedy)])


def _on_steps_of(market: Market, profile: MarketProfile) -> MarketProfile:
    units, scale = step_parts(market.price_step)
    n_steps = round(profile.start_price / market.price_step)
    if not 1_000 <= n_steps <= _MOST_STEPS:
        n_steps = round(profile.start_price / profile.price_step)
    return replace(
        profile,
        start_price=n_steps * units / scale,
        price_step=market.price_step,
        qty_step=market.qty_step,
    )


class Replay:
    """Plays a feed to a venue.

    Parameters
    ----------
    feed : Feed
    venue : SimVenue
    clock : Clock
        The protocol's; for "step" a `VirtualClock`, whose wall time becomes the first print's.
    ledger : Ledger
        Hears that the feed has ended.
    speed : float, "max" or "step"
        So many times as fast as recorded, whatever the loop can, or only what `step` asks for.

    Attributes
    ----------
    ticks : int
        Prints played.
    ended : bool
        There are no more; the venue stays as it is.

    Raises
    ------
    ConfigError
        If the speed is none.
    """

    def __init__(
        self, feed: Feed, venue: SimVenue, clock: Clock, *, ledger: Ledger, speed: Speed = 1.0
    ) -> None:
        if isinstance(speed, str):
            if speed not in ("max", "step"):
                raise ConfigError([Problem("speed", speed, "must be a number, max or step")])
        elif not 0.0 < speed < math.inf:
            raise ConfigError([Problem("speed", speed, "must be > 0, or max")])
        self.ticks = 0
        self.ended = False
        self.speed = speed
        self._feed = feed
        self._venue = venue
        self._clock = clock
        self._ledger = ledger
        self._prints = iter(feed)
        self._next: Print | None = next(self._prints)
        self._stepping = asyncio.Lock()
        self._virtual: VirtualClock | None = None
        if speed == "step":
            if not isinstance(clock, VirtualClock):
                raise ConfigError([Problem("speed", speed, "needs a virtual clock")])
            clock.step_wall(feed.start_ts_ms - clock.time_ms())
            self._virtual = clock

    @property
    def ts_ms(self) -> int:
        """Time of the replay: of the last print, in steps of the clock."""
        if self._virtual is not None:
            return self._virtual.time_ms()
        return self._venue.replay_ts_ms or self._feed.start_ts_ms

    async def run(self) -> None:
        """Play to the end of the feed, or until cancelled; nothing at speed "step".

        The times of the prints are kept from where the replay began, so that lateness does not add
        up. The loop gets its turn at least every 2 ms.
        """
        if isinstance(self.speed, str):
            if self.speed == "max":
                while self._next is not None:
                    self._play_until(math.inf)
                    await asyncio.sleep(0)
            return
        clock, start_ms, pace = self._clock, self._feed.start_ts_ms, 1e3 * self.speed
        start_s = clock.monotonic_s()
        while self._next is not None:
            now_ms = start_ms + (clock.monotonic_s() - start_s) * pace
            self._play_until(now_ms)
            due_ms = self._due_ms()
            if due_ms is None:
                return
            await clock.sleep(start_s + (due_ms - start_ms) / pace - clock.monotonic_s())

    async def step(
        self, *, ticks: int | None = None, ms: int | None = None, until_ms: int | None = None
    ) -> int:
        """Play some prints and return how many; with one of the arguments.

        Parameters
        ----------
        ticks : int
            So many prints.
        ms : int
            Move the clock by so much and play what it passes.
        until_ms : int
            Move the clock there, and play all prints up to and of that millisecond.

        Raises
        ------
        ValueError
            If the replay runs by itself, not exactly one argument is given or it leads back.
        """
        if self._virtual is None:
            raise ValueError(f"a replay at speed {self.speed} takes no steps: start it with step")
        if (ticks is not None) + (ms is not None) + (until_ms is not None) != 1:
            raise ValueError("give one of ticks, ms and until_ms")
        async with self._stepping:
            if ms is not None:
                until_ms = self.ts_ms + ms
            most = math.inf if ticks is None else ticks
            last_ms = math.inf if until_ms is None else until_ms
            if most < 0 or last_ms < self.ts_ms:
                raise ValueError("a step leads forward")
            before, turn_s = self.ticks, time.monotonic()
            while self._next is not None and self.ticks - before < most:
                ts_ms = self._next[3]
                if ts_ms > last_ms:
                    break
                await self._move_to(ts_ms)
                self._play()
                if self._virtual.next_due_s() == 0.0:  # what the print brought about at once
                    await self._virtual.run(0)
                if time.monotonic() - turn_s > _LONGEST_TURN_S:
                    await asyncio.sleep(0)
                    turn_s = time.monotonic()
            if until_ms is not None:
                await self._move_to(until_ms)
                self._venue.pass_time(until_ms)
            return self.ticks - before

    async def _move_to(self, ts_ms: int) -> None:
        """Move the virtual clock; what is due on the way happens at its time."""
        assert self._virtual is not None
        while 0 < (funding_ms := self._venue.next_funding_ms) < ts_ms:
            await self._move_clock(funding_ms)
            self._venue.pass_time(funding_ms)
        await self._move_clock(ts_ms)

    async def _move_clock(self, ts_ms: int) -> None:
        clock = self._virtual
        assert clock is not None
        ahead_ms = ts_ms - clock.time_ms()
        if ahead_ms <= 0:
            return
        due_s = clock.next_due_s()
        if due_s is not None and due_s * 1e3 <= ahead_ms:
            await clock.run(ahead_ms)
        else:
            clock.advance(ahead_ms)

    def _due_ms(self) -> int | None:
        """Return the replay time of what comes next, None at the end."""
        if self._next is None:
            return None
        funding_ms = self._venue.next_funding_ms
        return min(self._next[3], funding_ms) if funding_ms else self._next[3]

    def _play_until(self, ts_ms: float) -> None:
        """Play what is due by then, but for no longer than a turn."""
        until_s = time.monotonic() + _LONGEST_TURN_S
        while (due_ms := self._due_ms()) is not None and due_ms <= ts_ms:
            assert self._next is not None
            if due_ms < self._next[3]:
                self._venue.pass_time(due_ms)
            else:
                self._play()
            if time.monotonic() > until_s:
                return

    def _play(self) -> None:
        assert self._next is not None
        trade_id, price, qty, ts_ms, buyer_maker = self._next
        self._venue.print(trade_id, price, qty, buyer_maker, ts_ms)
        self.ticks += 1
        self._next = next(self._prints, None)
        if self._next is None:
            self.ended = True
            self._ledger.append("replay", what="ended", ticks=self.ticks)
