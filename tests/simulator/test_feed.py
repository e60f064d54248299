"""Where prints come from, and that they are played at their times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passivx._core.calc import near_to
from passivx.clock import VirtualClock, WallClock
from passivx.data.synthetic import BTCUSD, BTCUSDT, synthetic_trades
from passivx.data.ticks import Ticks, load_ticks
from passivx.errors import ConfigError, DataError
from passivx.models import step_parts
from passivx.simulator.feed import Feed, Replay, find_listing
from passivx.simulator.ledger import Ledger
from passivx.simulator.venue import SimVenue
from tests.simulator.worlds import BYBIT, MARKET, World, world

Run = Callable[[Coroutine[Any, Any, Any]], Any]
MIDNIGHT_MS = 1_704_067_200_000
HOUR_MS = 3_600_000


def ticks(times: list[int], prices: list[float] | None = None, **columns: Any) -> Ticks:
    n = len(times)
    return Ticks.from_arrays(
        price=prices or [100.0 + i % 3 for i in range(n)],
        qty=[1.0] * n,
        ts_ms=[MIDNIGHT_MS + t for t in times],
        buyer_maker=[i % 2 for i in range(n)],
        **columns,
    )


def replay(source: Ticks, speed: Any = "step", **changes: Any) -> tuple[World, Replay]:
    w = world(listing=changes)
    clock = w.clock if speed == "step" else WallClock()
    return w, Replay(Feed.from_ticks(source, MARKET), w.venue, clock, ledger=w.ledger, speed=speed)


def printed(w: World) -> list[str]:
    return [x.removeprefix("print ") for x in w.heard() if x.startswith("print ")]


# --- what is listed ---


def test_a_symbol_is_listed_by_the_example_of_its_market() -> None:
    listing = find_listing("binance", "BTCUSDT")
    assert (listing.base, listing.quote, listing.settle) == ("BTC", "USDT", "USDT")
    assert listing.market.qty_step == 0.001
    assert (listing.max_qty, listing.max_market_qty, listing.max_orders) == (1000.0, 120.0, 200)
    assert listing.min_price == 0.1
    listing = find_listing("bybit", "BTCUSD")
    assert (listing.base, listing.quote, listing.settle) == ("BTC", "USD", "BTC")
    assert (listing.max_qty, listing.max_orders) == (25e6, 500)


def test_a_market_may_be_given_or_lie_in_the_workspace(tmp_path: Path) -> None:
    assert find_listing("binance", "ABCUSDC", MARKET).market is MARKET
    coarse = find_listing("binance", "ABCUSDC", replace(MARKET, qty_step=5.0, price_step=0.25))
    assert (coarse.max_qty, coarse.max_market_qty, coarse.max_price) == (5e6, 6e5, 2.5e6)
    (tmp_path / "markets").mkdir()
    (tmp_path / "markets" / "bybit_XYZUSD.json").write_text(MARKET.to_json())
    assert find_listing("bybit", "XYZUSD", workspace=tmp_path).market == MARKET


def test_what_cannot_be_listed_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"symbol: has no rules for bybit.*--market"):
        find_listing("bybit", "XYZUSD", workspace=tmp_path)
    for symbol in ("BTCEUR", "btcusdt", "USDT", "", "../USDT"):
        with pytest.raises(ConfigError, match="symbol: must be a coin and"):
            find_listing("binance", symbol, MARKET)


# --- where prints come from ---


def test_recorded_trades_come_as_they_are() -> None:
    source = ticks([0, 5, 5], trade_id=[7, 8, 11])
    feed = Feed.from_ticks(source, MARKET)
    assert (feed.name, feed.start_ts_ms, feed.start_price) == ("trades", MIDNIGHT_MS, 100.0)
    rows = list(feed)
    assert rows == [
        (7, 100.0, 1.0, MIDNIGHT_MS, False),
        (8, 101.0, 1.0, MIDNIGHT_MS + 5, True),
        (11, 102.0, 1.0, MIDNIGHT_MS + 5, False),
    ]
    assert [type(x) for x in rows[0]] == [int, float, float, int, bool]


@pytest.mark.parametrize("ids", [None, "fall"])
def test_trades_without_rising_ids_are_numbered(ids: str | None) -> None:
    n = 10_000  # more than one piece
    given = {} if ids is None else {"trade_id": [1, 1, *range(2, n)]}
    rows = list(Feed.from_ticks(ticks(list(range(n)), **given), MARKET))
    assert [row[0] for row in rows] == list(range(1, n + 1))
    assert [row[3] for row in rows] == [MIDNIGHT_MS + i for i in range(n)]


def test_prices_off_the_grid_name_the_first_and_the_way_out() -> None:
    source = ticks([0, 1, 2], [100.0, 100.25, 100.5])
    with pytest.raises(
        ConfigError, match=r"price_step: .*100\.25 of trade 2, was 1\.0; .*--market"
    ):
        Feed.from_ticks(source, MARKET)
    assert Feed.from_ticks(source, replace(MARKET, price_step=0.25)).start_price == 100.0


def test_no_trades_are_no_feed() -> None:
    with pytest.raises(DataError, match="no trades"):
        Feed.from_ticks(ticks([0])[:0], MARKET)


@pytest.mark.parametrize(("exchange", "profile"), [("binance", BTCUSDT), ("bybit", BTCUSD)])
def test_a_synthetic_market_is_the_seeds(exchange: str, profile: Any) -> None:
    feed = Feed.synthetic(3, exchange)
    wanted = synthetic_trades(3, 9000, profile=profile)
    rows = list(islice(feed, 9000))
    assert [row[0] for row in rows] == wanted.trade_id.tolist()
    assert [row[1] for row in rows] == wanted.price.tolist()
    assert feed.start_ts_ms == wanted.ts_ms[0]


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
@pytest.mark.parametrize(
    ("price_step", "qty_step", "start_price"),
    [
        (5.0, 0.25, 60_000.0),
        (0.25, 10.0, 60_000.0),
        (0.01, 0.1, 60_000.0),
        (1e-3, 1.0, None),
        (5e-4, 1.0, None),
        (1e-5, 1.0, None),
        (100.0, 1e-4, None),
    ],
)
def test_what_is_made_up_is_on_the_markets_steps(
    exchange: str, price_step: float, qty_step: float, start_price: float | None
) -> None:
    market = replace(MARKET, price_step=price_step, qty_step=qty_step, min_qty=qty_step)
    own = {"binance": BTCUSDT, "bybit": BTCUSD}[exchange]
    feed = Feed.synthetic(3, exchange, market)
    assert feed.start_price < find_listing(exchange, "ABCUSDT", market).max_price / 1.2
    rows = list(islice(feed, 3000))
    # Within its first trades it has not gone far.
    wanted = start_price or own.start_price / own.price_step * price_step
    assert abs(feed.start_price / wanted - 1.0) < 0.01
    for _, price, qty, _, _ in rows:
        assert near_to(price, step_parts(price_step)) == price
        assert near_to(qty, step_parts(qty_step)) == qty >= qty_step


def test_the_markets_own_steps_change_nothing() -> None:
    market = replace(MARKET, price_step=BTCUSDT.price_step, qty_step=BTCUSDT.qty_step)
    given, own = (islice(Feed.synthetic(3, "binance", m), 500) for m in (market, None))
    assert list(given) == list(own)


def test_quantities_that_the_market_cannot_show_name_the_first_and_the_way_out() -> None:
    source = replace(ticks([0, 1, 2]), qty=np.array([1.0, 0.4, 0.1]))
    with pytest.raises(ConfigError, match=r"qty_step: .*0\.4 of trade 2, was 1\.0; .*--market"):
        Feed.from_ticks(source, MARKET)
    finer = replace(MARKET, qty_step=0.1, min_qty=0.1)
    assert [row[2] for row in Feed.from_ticks(source, finer)] == [1.0, 0.4, 0.1]


def test_what_cannot_be_made_up() -> None:
    with pytest.raises(ConfigError, match=r"exchange: .*did you mean 'bybit'"):
        Feed.synthetic(1, "bybitt")
    with pytest.raises(ConfigError, match="seed: must be >= 0"):
        Feed.synthetic(-1, "bybit")


@pytest.mark.real_data
def test_a_recorded_day_replays_on_its_example_market(real_data: Path, run: Run) -> None:
    async def main() -> None:
        source = load_ticks(real_data / "binance_usdm" / "BTCUSDT-trades-2024-08-08T2354.csv.gz")
        w = world(listing={"market": find_listing("binance", "BTCUSDT").market})
        feed = Feed.from_ticks(source, w.venue.listing.market)
        r = Replay(feed, w.venue, w.clock, ledger=w.ledger, speed="step")
        await r.step(ticks=len(source))
        assert r.ended
        prints = [x.split()[1:] for x in w.heard() if x.startswith("print")]
        assert source.trade_id is not None
        assert np.array_equal([int(x[0]) for x in prints], source.trade_id)
        assert w.clock.time_ms() == source.ts_ms[-1]

    run(main())


# --- in steps ---


def test_steps_by_ticks_move_the_clock_to_each_print(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 500, 500, 2000]))
        assert w.clock.time_ms() == MIDNIGHT_MS == r.ts_ms
        assert await r.step(ticks=1) == 1
        assert (w.clock.time_ms(), printed(w)) == (MIDNIGHT_MS, ["1 100"])
        assert await r.step(ticks=2) == 2
        assert (w.clock.time_ms(), printed(w)) == (MIDNIGHT_MS + 500, ["2 101", "3 102"])
        assert await r.step(ticks=0) == 0
        assert not r.ended
        assert await r.step(ticks=9) == 1
        assert (r.ended, r.ticks, r.ts_ms) == (True, 4, MIDNIGHT_MS + 2000)
        assert await r.step(ticks=1) == 0
        assert [x["what"] for x in w.ledger.entries("replay")] == ["ended"]

    run(main())


def test_steps_by_time_play_the_whole_millisecond(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 500, 500, 2000]))
        assert await r.step(until_ms=MIDNIGHT_MS + 500) == 3
        assert await r.step(ms=1499) == 0
        assert w.clock.time_ms() == MIDNIGHT_MS + 1999
        assert await r.step(ms=0) == 0
        assert await r.step(ms=1) == 1
        assert await r.step(ms=60_000) == 0  # time goes on behind the last print
        assert w.clock.time_ms() == r.ts_ms == MIDNIGHT_MS + 62_000
        assert w.venue.replay_ts_ms == MIDNIGHT_MS + 2000

    run(main())


def test_what_is_due_between_prints_happens_at_its_time(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 10_000]))
        woken = []

        async def sleeper() -> None:
            for _ in range(5):
                await w.clock.sleep(2.0)
                woken.append((w.clock.time_ms() - MIDNIGHT_MS, w.venue.trade_id))

        task = asyncio.create_task(sleeper())
        await r.step(ticks=1)
        await asyncio.sleep(0)
        await r.step(ticks=1)
        await task
        assert woken == [(2000 * i, 1) for i in range(1, 6)]  # the last one just before the print

    run(main())


def test_what_a_print_brings_about_at_once_is_done_after_it(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 0, 0]))
        seen = []
        w.clock.call_later(0.0, lambda: seen.append(w.venue.trade_id))
        await r.step(ticks=1)
        assert seen in ([0], [1])
        w.clock.call_later(0.0, lambda: seen.append(w.venue.trade_id))
        await r.step(ticks=1)
        assert seen[1:] == [2]

    run(main())


def test_fundings_are_settled_at_their_time(run: Run) -> None:
    async def main() -> None:
        due = 8 * HOUR_MS
        times = [0, due, due + 5, 3 * due + 1]
        w, r = replay(ticks(times, [100.0, 110.0, 120.0, 130.0]), funding_rate=0.001)
        w.order("a", 1, 10.0)
        await r.step(ticks=2)
        assert w.venue.payments == []
        await r.step(ticks=1)
        assert w.venue.payments == [(MIDNIGHT_MS + due, 0.001, -1.1, 10.0)]
        await r.step(until_ms=MIDNIGHT_MS + 2 * due)  # no print is near
        assert w.venue.payments[1:] == [(MIDNIGHT_MS + 2 * due, 0.001, -1.2, 10.0)]
        await r.step(ms=2 * due)
        assert [p[0] - MIDNIGHT_MS for p in w.venue.payments[2:]] == [3 * due, 4 * due]
        assert [p[2] for p in w.venue.payments[2:]] == [-1.2, -1.3]

    run(main())


def test_a_step_is_one_thing_and_leads_forward(run: Run) -> None:
    async def main() -> None:
        _, r = replay(ticks([0, 5]))
        for asked in ({}, {"ticks": 1, "ms": 1}, {"ms": 1, "until_ms": MIDNIGHT_MS}):
            with pytest.raises(ValueError, match="give one of"):
                await r.step(**asked)
        for asked in ({"ticks": -1}, {"ms": -1}, {"until_ms": MIDNIGHT_MS - 1}):
            with pytest.raises(ValueError, match="forward"):
                await r.step(**asked)
        assert r.ticks == 0
        await r.run()  # does nothing: only steps move it
        assert r.ticks == 0
        _, playing = replay(ticks([0, 5]), speed=1.0)
        with pytest.raises(ValueError, match="takes no steps"):
            await playing.step(ticks=1)

    run(main())


def test_steps_that_are_asked_for_at_once_are_taken_in_turn(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 1000, 2000, 3000]))
        w.clock.call_later(0.5, lambda: None)  # makes a step wait
        assert await asyncio.gather(r.step(ticks=2), r.step(ticks=1)) == [2, 1]
        assert printed(w) == ["1 100", "2 101", "3 102"]

    run(main())


def test_a_long_step_lets_others_have_their_turn(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks(list(range(100_000))))
        w.venue._observers.clear()
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await r.step(ticks=100_000)
        task.cancel()
        assert turns > 10

    run(main())


# --- by itself ---


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf"), "fast", ""])
def test_no_such_speed(speed: Any) -> None:
    with pytest.raises(ConfigError, match="speed"):
        replay(ticks([0]), speed=speed)


def test_steps_need_a_clock_that_can_be_moved() -> None:
    w = world()
    with pytest.raises(ConfigError, match="virtual"):
        Replay(
            Feed.from_ticks(ticks([0]), MARKET),
            w.venue,
            WallClock(),
            ledger=w.ledger,
            speed="step",
        )


def test_prints_come_at_their_times_without_drift(run: Run) -> None:
    times = [0, 10, 10, 2000, 2000 + 8 * HOUR_MS]

    async def main() -> None:
        # A virtual clock makes a replay in real time exact: what it slept is what it waited for.
        w = world(listing={"funding_rate": 0.001})
        feed = Feed.from_ticks(ticks(times), MARKET)
        r = Replay(feed, w.venue, w.clock, ledger=w.ledger, speed=4.0)
        w.order("a", 1, 10.0)
        w.clock.advance(7_000)  # a clock has its own beginning
        heard: list[tuple[float, int]] = []
        task = asyncio.create_task(r.run())
        for _ in range(20):
            await w.clock.run(100)
            if not heard or heard[-1][1] != r.ticks:
                heard.append((round(w.clock.monotonic_s() - 7.0, 3), r.ticks))
        assert heard == [(0.1, 3), (0.5, 4)]
        await w.clock.run(2 * HOUR_MS - 2000 - 1)
        assert w.venue.payments == []
        await w.clock.run(1)  # a funding waits for no print
        assert len(w.venue.payments) == 1
        assert r.ticks == 4
        await w.clock.run(499)
        assert r.ticks == 4
        await w.clock.run(1)
        await task
        assert (r.ticks, r.ended) == (5, True)

    run(main())


def test_a_replay_that_is_late_catches_up_and_yields(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0] * 60_000 + [1000]), speed=1000.0)
        w.venue._observers.clear()
        turns = 0
        task = asyncio.create_task(r.run())
        while not task.done():
            await asyncio.sleep(0)
            turns += 0 < r.ticks < 60_000
        assert r.ended
        assert turns >= 5  # some 60 where it was written: it lets go every 2 ms

    run(main())


def test_as_fast_as_it_goes(run: Run) -> None:
    async def main() -> None:
        clock = WallClock()
        ledger = Ledger(clock)
        listing = find_listing("bybit", "BTCUSD")
        feed = Feed.synthetic(1, "bybit")
        venue = SimVenue(
            listing, BYBIT, clock=clock, ledger=ledger, price=feed.start_price, wallet=1.0
        )
        r = Replay(feed, venue, clock, ledger=ledger, speed="max")
        task = asyncio.create_task(r.run())
        while r.ticks < 20_000:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not r.ended
        assert venue.replay_ts_ms == r.ts_ms > feed.start_ts_ms

    run(main())


def test_the_ledger_says_that_a_feed_has_ended(run: Run) -> None:
    async def main() -> None:
        w, r = replay(ticks([0, 1]), speed="max")
        await r.run()
        (line,) = w.ledger.entries("replay")
        assert (line["what"], line["ticks"]) == ("ended", 2)
        w.order("still", 1, 1.0, 98.0)
        json.loads(next(iter(w.ledger.since())))

    run(main())


def test_a_virtual_clock_starts_at_the_first_print() -> None:
    w = world()
    clock = VirtualClock(5)
    Replay(Feed.from_ticks(ticks([0]), MARKET), w.venue, clock, ledger=w.ledger, speed="step")
    assert clock.time_ms() == MIDNIGHT_MS
