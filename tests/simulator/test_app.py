"""The whole simulator in this process: what tests of others build on."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import orjson
import pytest

from passivx.errors import ConfigError
from passivx.simulator.app import SYMBOLS, Simulator
from passivx.simulator.feed import Feed
from passivx.simulator.venue import OrderType, TimeInForce


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_nothing_but_the_exchange_needs_to_be_said(run, exchange):
    async def go():
        async with Simulator(exchange=exchange, speed="step") as sim:
            assert sim.symbol == SYMBOLS[exchange]
            line = orjson.loads(sim.first_line())
            assert line == sim.endpoints
            assert line["secret"] == sim.secret != sim.key
            quote = sim.venue.wallet * (
                sim.venue.mark_price if sim.venue.listing.market.inverse else 1
            )
            assert quote == pytest.approx(1000.0)
            async with aiohttp.ClientSession() as http:
                # Binance's streams begin behind the base.
                behind = "/ws" if exchange == "binance" else ""
                for url in (line["ws_public"] + behind, line["ws_trade"]):
                    await (await http.ws_connect(url)).close()
                async with http.get(f"{line['control']}/state") as reply:
                    state = await reply.json()
            assert state["ts_ms"] == sim.clock.time_ms() == sim.replay.ts_ms
            assert state["replay_ts_ms"] is None

    run(go())


def test_keys_are_made_for_each_run():
    first, second = (Simulator(exchange="bybit", speed="step") for _ in range(2))
    assert len({first.key, first.secret, second.key, second.secret}) == 4
    assert min(len(first.key), len(first.secret)) >= 32


def test_steps_move_replay_and_protocol_together(run):
    async def go():
        async with Simulator(exchange="binance", speed="step") as sim:
            start_ms = sim.clock.time_ms()
            got = await sim.step(ticks=1)
            assert got == {"ts_ms": start_ms, "replay_ts_ms": start_ms, "ticks": 1}
            got = await sim.step(ms=10_000)
            assert got["ts_ms"] == start_ms + 10_000
            assert start_ms < got["replay_ts_ms"] <= got["ts_ms"]
            assert got["ticks"] == sim.replay.ticks - 1 > 0
            got = await sim.step(until_ms=start_ms + 10_000)
            assert got["ticks"] == 0
            for wrong in ({}, {"ticks": 1, "ms": 1}, {"until_ms": start_ms}):
                with pytest.raises(ValueError, match=r"give one of|leads forward"):
                    await sim.step(**wrong)

    run(go())


def test_at_other_speeds_protocol_time_is_the_wall_clocks(run):
    async def go():
        async with Simulator(exchange="binance", speed=1000.0) as sim:
            while sim.replay.ticks < 50:
                await asyncio.sleep(0.001)
            assert sim.ledger.replay_ts_ms < sim.clock.time_ms() - 86_400_000
            with pytest.raises(ValueError, match="step"):
                await sim.step(ticks=1)

    run(go())


def test_the_same_seeds_and_steps_are_the_same_run(run):
    async def go():
        async with Simulator(
            exchange="bybit",
            speed="step",
            seed=5,
            wallet=10.0,
            faults=[
                {"do": "ext.order", "side": "buy", "qty": 100, "when": {"at_ms": 500}},
                {"do": "mkt.jump", "fraction": -0.001, "when": {"event": "fill", "nth": 2}},
            ],
        ) as sim:
            bid, _ = sim.venue.quote
            sim.venue.place(
                client_id="a",
                side=1,
                type=OrderType.LIMIT,
                tif=TimeInForce.POST_ONLY,
                price=bid,
                qty=100.0,
                reduce_only=False,
            )
            await sim.step(ms=600_000)
            return list(sim.ledger.since())

    first = run(go())
    assert first == run(go())
    events = [orjson.loads(row)["event"] for row in first]
    assert {"fill", "fault"} <= set(events)


def test_the_time_of_a_plan_begins_on_entering(run):
    async def go():
        rule = {"do": "acct.balance", "factor": 2, "when": {"at_ms": 1000}}
        sim = Simulator(exchange="binance", speed="step", faults=[rule])
        async with sim:
            wallet = sim.venue.wallet
            await sim.step(ms=999)
            assert sim.venue.wallet == wallet
            await sim.step(ms=1)
            assert sim.venue.wallet == 2 * wallet

    run(go())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exchange": "binanse"}, "did you mean 'binance'?"),
        ({"exchange": "binance", "symbol": "NOPE"}, "NOPE"),
        ({"exchange": "binance", "faults": [{"do": "ws.rts"}]}, "did you mean 'ws.rst'?"),
        ({"exchange": "binance", "speed": -1.0}, "speed"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(options, told):
    with pytest.raises(ConfigError) as caught:
        Simulator(**options)
    assert told in str(caught.value)


def test_a_port_that_is_taken_leaves_nothing_behind(run, tmp_path):
    async def go():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            sim = Simulator(
                exchange="binance", port=taken.getsockname()[1], ledger_path=tmp_path / "l"
            )
            with pytest.raises(OSError, match="in use"):
                await sim.__aenter__()
            assert sim.server.port == 0

    run(go())


def test_only_loopback_is_served(run):
    async def go():
        feed = Feed.synthetic(3, "binance")
        async with Simulator(exchange="binance", speed="step", feed=feed) as sim:
            for runner in (sim.server._runner, sim._control):
                assert {address[0] for address in runner.addresses} == {"127.0.0.1"}

    run(go())
