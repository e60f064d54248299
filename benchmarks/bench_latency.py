"""From a trade's frame to the order that answers it, over loopback: what a client adds to the wire.

The venue is a process of its own (`latency_venue.py`) and does as little as one can; it measures
from the trade's send to the order's last byte. Rounds of a bare picows echo, of orders over the
order socket and of orders by REST take turns, so that all three meet the same machine. A round's
figures are divided by the echo's of the same round.

    pytest benchmarks/bench_latency.py --benchmark-only -s

No TLS. Each side has a core of its own, and a process of the idle class keeps it awake
(`latency_venue.stay_awake`): a core that sleeps adds more than all that is measured. The client is
`exchanges.binance.Binance` as the bot uses it: scanner, sink, rate limits, text, signature, socket.
PASSIVX_BENCH_ROUNDS sets how many rounds of 200 there are (15).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.cores import needs_cores, on_core
from benchmarks.latency_venue import KINDS, stay_awake
from passivx.clock import WallClock
from passivx.exchanges.base import NewOrder, Steps
from passivx.exchanges.binance.client import Binance
from passivx.exchanges.budget import Window
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey

ROUNDS = int(os.environ.get("PASSIVX_BENCH_ROUNDS", "15"))
REPEATS = 200
VENUE = Path(__file__).with_name("latency_venue.py")


class Echo(WSListener):
    """The yardstick: the same socket library, doing nothing."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())


class Answering:
    """A sink that answers every trade with an order; the price's last digit says by which way."""

    def __init__(self, client: Binance) -> None:
        self.client = client
        self.n = 0

    def on_trade(self, trade_id: str, price: float, qty: float, ts_ms: int, maker: bool) -> None:
        self.n += 1
        order = NewOrder(client_id=f"bench-{self.n}", side=1, price=59_999.0, qty=0.021)
        if price == 60_000.1:
            self.client.place([order])
        else:
            rest = self.client.rest
            self.client._sending.later(rest.place(order, self.client._steps))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *event: None
        raise AttributeError(name)


async def measure(venue: subprocess.Popen[str], rounds: int) -> dict[str, list[list[int]]]:
    assert venue.stdout is not None
    assert venue.stdin is not None
    ws, http = json.loads(venue.stdout.readline())
    base = f"ws://127.0.0.1:{ws}"
    endpoints = Endpoints(
        exchange="binance",
        rest=f"http://127.0.0.1:{http}",
        ws_public=f"{base}/public",
        ws_market=f"{base}/market",
        ws_private=f"{base}/private",
        ws_trade=f"{base}/ws-fapi/v1",
    )
    client = Binance(
        endpoints=endpoints, symbol="BTCUSDT", key=ApiKey("K" * 64, "s" * 64), clock=WallClock()
    )
    # The bare venue knows no rules, and no limit to how often it is asked.
    client._steps = Steps(price=(1.0, 10.0), qty=(1.0, 1000.0))
    client._asset = "USDT"
    client._budget.set_limits(Window(name, 10**9, 1000) for name in list(client._budget._ledgers))
    loop = asyncio.get_running_loop()
    try:
        await client.listen(Answering(client))
        echo, _ = await ws_connect(Echo, f"{base}/echo")
        venue.stdin.write(f"go {rounds} {REPEATS}\n")
        venue.stdin.flush()
        line = await loop.run_in_executor(None, venue.stdout.readline)
        echo.disconnect()
        await echo.wait_disconnected()
    finally:
        await client.close()
    figures: dict[str, list[list[int]]] = json.loads(line)
    return figures


@pytest.fixture(scope="module")
def figures() -> dict[str, list[list[int]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.latency_venue"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=VENUE.parents[1],
    ) as venue:
        awake = [
            multiprocessing.get_context("spawn").Process(
                target=stay_awake, args=(core,), daemon=True
            )
            for core in (0, 1)
        ]
        try:
            for process in awake:
                process.start()
            with on_core(1):
                return uvloop.run(measure(venue, ROUNDS))
        finally:
            venue.kill()
            for process in awake:
                process.kill()
                process.join()


def quantile(values: list[int], q: float) -> float:
    return float(statistics.quantiles(values, n=100)[round(q * 100) - 1])


@needs_cores
def test_tick_to_order(benchmark: Any, figures: dict[str, list[list[int]]]) -> None:
    """Print and keep the table; the benchmark's own figure is the order socket's p50."""
    table: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        every = [ns for part in figures[kind] for ns in part]
        table[kind] = {f"p{round(q * 100)}_us": quantile(every, q) / 1e3 for q in (0.5, 0.9, 0.99)}
        for q in (0.5, 0.9):
            table[kind][f"times_echo_p{round(q * 100)}"] = statistics.median(
                quantile(part, q) / quantile(echo, q)
                for part, echo in zip(figures[kind], figures["echo"], strict=True)
            )
    benchmark.extra_info["table"] = table
    print()
    for kind, row in table.items():
        print(f"{kind:5}", "  ".join(f"{name} {value:8.2f}" for name, value in row.items()))
    benchmark.pedantic(lambda: None, rounds=1)
