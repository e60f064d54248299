"""From a trade's frame to the market stop that answers it: the whole live engine, over loopback.

The engine is the one of `passivx run`: client, core, planner, flow, checks, journal on disk, event
log and tape. It holds a position under closes, and a trade reaches its stop level. The venue is a
process of its own (`live_venue.py`); it measures from the trade's send to the stop's last byte,
each time after a bare picows echo, so that both meet the same machine. A round's figures are
divided by the echo's of the same round.

    pytest benchmarks/bench_live.py --benchmark-only -s

No TLS. Each side has a core of its own, and a process of the idle class keeps it awake
(`latency_venue.stay_awake`). On Binance the cancels that make room for the stop leave before it, so
"first" is a cancel there; on Bybit nothing does.

A stop is armed by a requote. With the shortest that a config may have, 100 ms, the bot stands idle
between shots and all of its path is cold. The other benchmarks of this kind measure warm paths, so
there are rounds with one of 1 ms too. PASSIVX_BENCH_ROUNDS sets how many rounds there are (7).
"""

from __future__ import annotations

import asyncio
import gc
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
from picows import ws_connect

from benchmarks.bench_latency import Echo, quantile
from benchmarks.cores import needs_cores, on_core
from benchmarks.latency_venue import stay_awake
from benchmarks.live_venue import LEVERAGE, STOP_DISTANCE
from passivx.clock import WallClock
from passivx.config import Config, load_config
from passivx.exchanges.budget import Window
from passivx.exchanges.client import Client
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.venues import open_exchange
from passivx.live.engine import Engine
from passivx.live.events import OnExit
from passivx.live.journal import Journal
from passivx.live.session import Plan, Records

ROOT = Path(__file__).parents[1]
QUICK = int(os.environ.get("PASSIVX_BENCH_ROWS", "1000000")) < 1_000_000
ROUNDS = int(os.environ.get("PASSIVX_BENCH_ROUNDS", "2" if QUICK else "7"))
# By how often the bot looks at the market: shots of a round.
REPEATS = {1: 10, 100: 5} if QUICK else {1: 400, 100: 50}


def config_for(symbol: str) -> Config:
    """Re-entries too far away to be sent, closes, and a stop of a ten-thousandth at a time."""
    return load_config(
        {
            "config_name": "bench",
            "symbol": symbol,
            "cross_mode": True,
            "balance_pct": 1.0,
            "leverage": LEVERAGE,
            "entry_qty_pct": 0.05,
            "ddown_factor": 0.5,
            "grid_spacing": 0.4,
            "grid_coefficient": 1.0,
            "n_entry_orders": 8,
            "min_markup": 0.002,
            "max_markup": 0.01,
            "n_close_orders": 8,
            "min_close_qty_multiplier": 0.3,
            "indicator_settings": {
                "tick_ema": {"span": 5000, "spread": 0.0005},
                "do_long": True,
                "do_shrt": True,
            },
            "stop_loss_liq_diff": 0.05,
            "stop_loss_pos_price_diff": STOP_DISTANCE,
            "stop_loss_pos_reduction": 0.0001,
            "market_stop_loss": True,
        }
    )


async def measure(venue: subprocess.Popen[str], folder: Path, requote_ms: int) -> dict[str, Any]:
    assert venue.stdout is not None
    assert venue.stdin is not None
    line = venue.stdout.readline()
    (folder / "venue.json").write_text(line)
    endpoints, symbol, key = load_endpoints(folder / "venue.json")
    assert symbol is not None
    # Past the config's own check, for 5 is less than it allows.
    config = config_for(symbol).model_copy(update={"requote_ms": requote_ms})
    clock = WallClock()
    client = open_exchange(endpoints=endpoints, symbol=symbol, key=key, assumed=None, clock=clock)
    assert isinstance(client, Client)
    plan = Plan(
        exchange=endpoints.exchange,
        config=config,
        endpoints=endpoints,
        symbol=symbol,
        key=key,
        key_file=None,
        root=folder,
    )
    records = Records(plan, folder, folder / "bench.log", clock)
    journal = Journal(folder / "journal.db")
    engine = Engine(
        config=config,
        exchange=client,
        journal=journal,
        clock=clock,
        instance="bench",
        watcher=records,
    )
    loop = asyncio.get_running_loop()
    # As `passivx run` does.
    gc.collect()
    gc.freeze()
    running = loop.create_task(engine.run())
    try:
        opened = loop.create_task(engine.opened.wait())
        await asyncio.wait([running, opened], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        # No bot stops ten times a second: no limit to how often it may.
        names = list(client._budget._ledgers)
        client._budget.set_limits(Window(name, 10**9, 1000) for name in names)
        echo, _ = await ws_connect(Echo, json.loads(line)["echo"])
        venue.stdin.write(f"go {ROUNDS} {REPEATS[requote_ms]}\n")
        venue.stdin.flush()
        answer = await loop.run_in_executor(None, venue.stdout.readline)
        assert not running.done()
        echo.disconnect()
        await echo.wait_disconnected()
    finally:
        engine.stop(OnExit.KEEP)
        await asyncio.gather(running, return_exceptions=True)
        gc.unfreeze()
        journal.close()
        records.close()
    figures: dict[str, Any] = json.loads(answer)
    return figures


def figures_of(exchange: str, folder: Path, requote_ms: int) -> dict[str, Any]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.live_venue", exchange, str(requote_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
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
                return uvloop.run(measure(venue, folder, requote_ms))
        finally:
            venue.kill()
            for process in awake:
                process.kill()
                process.join()


@needs_cores
@pytest.mark.parametrize("requote_ms", REPEATS)
@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_tick_to_stop(benchmark: Any, exchange: str, requote_ms: int, tmp_path: Path) -> None:
    """Print and keep the table."""
    figures = figures_of(exchange, tmp_path, requote_ms)
    table: dict[str, dict[str, float]] = {}
    for kind in ("echo", "first", "stop"):
        every = [ns for part in figures[kind] for ns in part]
        table[kind] = {f"p{round(q * 100)}_us": quantile(every, q) / 1e3 for q in (0.5, 0.9, 0.99)}
        for q in (0.5, 0.9):
            table[kind][f"times_echo_p{round(q * 100)}"] = statistics.median(
                quantile(part, q) / quantile(echo, q)
                for part, echo in zip(figures[kind], figures["echo"], strict=True)
            )
    benchmark.extra_info["table"] = table
    benchmark.extra_info["before"] = figures["before"]
    print(f"\n{exchange}, {requote_ms} ms: {figures['missed']} missed, before the stop:", end=" ")
    print(figures["before"])
    for kind, row in table.items():
        print(f"{kind:5}", "  ".join(f"{name} {value:8.2f}" for name, value in row.items()))
    benchmark.pedantic(lambda: None, rounds=1)
