"""What a search costs beside its backtests, what several processes make of it, and what it finds.

People leave an optimizer running overnight: what it loses between backtests it loses all night.

    pytest benchmarks/bench_optimize.py --benchmark-only -s

Sessions run on the recorded RIVERUSDT trades, played to and fro to make them longer; a second
figure is measured beside the first, in turn. PASSIVX_BENCH_SEEDS and PASSIVX_BENCH_ROWS set how
many seeds the two searches get (10) and how many trades the memory test shares (10 million).
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import pytest

from benchmarks.river import DATA
from passivx import Market, Ticks, backtest_flat, load_settings, load_ticks, optimize
from passivx.backtesting import Trials
from passivx.data.columns import mapped
from passivx.optimizer.settings import Settings
from tests.reference.jackrabbit_twin import search

N_ROWS = int(os.environ.get("PASSIVX_BENCH_ROWS", "10_000_000"))
N_SEEDS = int(os.environ.get("PASSIVX_BENCH_SEEDS", "10"))
N_ITERATIONS = 300
# Of the trades: evaluations of about 1, 5 and 25 ms.
COPIES = (1, 5, 25)
MARKET = Market(
    price_step=0.001,
    qty_step=0.1,
    min_qty=0.1,
    min_cost=5.0,
    maker_fee=0.0002,
    taker_fee=0.0005,
    max_leverage=20,
    inverse=False,
)
RANGES = {
    "balance_pct": [0.01, 1.0, 0.001],
    "entry_qty_pct": [0.0001, 0.5, 0.00001],
    "ddown_factor": [0, 5.0, 0.001],
    "ema_span": [100, 50000, 1],
    "ema_spread": [0, 0.01, 0.0001],
    "grid_coefficient": [0, 1000, 0.01],
    "grid_spacing": [0.0002, 0.02, 0.00001],
    "leverage": [1, 10, 1],
    "stop_loss_liq_diff": [0.1, 0.3, 0.0001],
    "stop_loss_pos_price_diff": [0.01, 2.0, 0.0001],
    "max_markup": [0.002, 0.03, 0.00001],
    "min_markup": [0.0005, 0.002, 0.00001],
    "min_close_qty_multiplier": [0, 1, 0.01],
    "n_close_orders": [1, 30, 1],
    "stop_loss_pos_reduction": [0.001, 0.3, 0.001],
    "do_long": [1, 1, 1],
    "do_shrt": [1, 1, 1],
}

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real market data at {DATA}"),
]


def settings(iterations: int = N_ITERATIONS, **changes: Any) -> Settings:
    document = {
        "session_name": "bench",
        "exchange": "binance",
        "symbol": "RIVERUSDT",
        "starting_balance": 1000,
        "objective": "gain",
        "ranges": RANGES,
    }
    return load_settings(document | changes, MARKET, iterations=iterations)


@lru_cache(maxsize=1)
def river() -> Ticks:
    return load_ticks(DATA / "binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz")


def to_and_fro(copies: int) -> Ticks:
    """The recorded trades forwards, backwards, forwards...: prices join, times go on."""
    ticks = river()
    turns = [slice(None, None, -1 if i % 2 else 1) for i in range(copies)]
    pauses = np.diff(ticks.ts_ms, prepend=ticks.ts_ms[0])
    return Ticks.from_arrays(
        price=np.concatenate([ticks.price[turn] for turn in turns]),
        qty=np.concatenate([ticks.qty[turn] for turn in turns]),
        buyer_maker=np.concatenate([ticks.buyer_maker[turn] for turn in turns]),
        ts_ms=ticks.ts_ms[0] + np.cumsum(np.concatenate([pauses[turn] for turn in turns])),
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


@pytest.mark.parametrize("copies", COPIES)
def test_two_processes_beside_one(benchmark: Any, tmp_path: Path, copies: int) -> None:
    """Candidates a second with one job and with two, in turn."""
    session = settings(N_ITERATIONS if copies < 25 else 150)
    ratios, rates = [], {1: [], 2: []}

    def pair() -> None:
        for jobs in (1, 2):
            shutil.rmtree(tmp_path / "s", ignore_errors=True)
            result = optimize(ticks, session, tmp_path / "s", jobs=jobs)
            rates[jobs].append(result.evaluations_per_s)
        ratios.append(rates[2][-1] / rates[1][-1])

    with mapped(lambda: to_and_fro(copies), tmp_path) as ticks:
        benchmark.pedantic(pair, rounds=5)
        n = len(ticks)
    print(
        f"\n{n:,} ticks: {median(rates[1]):.0f} candidates/s with one job, "
        f"{median(rates[2]):.0f} with two: {median(ratios):.2f} times as many"
    )
    benchmark.extra_info["ratio"] = median(ratios)


def test_overhead(benchmark: Any, tmp_path: Path) -> None:
    """What a candidate costs beside its run: a session of one job, less the same runs alone."""
    ticks, session = to_and_fro(5), settings()
    overheads, alone_ms = [], []
    optimize(ticks, session, tmp_path / "first")
    keys = _candidates(tmp_path / "first", session)
    trials = Trials(ticks, session.base, MARKET, session.space.names, starting_balance=1000.0)

    def pair() -> None:
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        result = optimize(ticks, session, tmp_path / "s")
        spent = result.n_evaluated / result.evaluations_per_s
        runs, _ = timed(lambda: trials.run(keys))
        overheads.append((spent - runs) / len(keys) * 1e6)
        alone_ms.append(runs / len(keys) * 1e3)

    benchmark.pedantic(pair, rounds=5)
    print(
        f"\n{median(overheads):.0f} µs beside a run of {median(alone_ms):.2f} ms with its figures: "
        f"{median(overheads) / 5000:.1%} of 5 ms"
    )
    benchmark.extra_info["overhead_us"] = median(overheads)


def _candidates(folder: Path, session: Settings) -> Any:
    lines = [orjson.loads(raw) for raw in (folder / "results.jsonl").read_bytes().splitlines()]
    return np.array([[line[name] for name in session.space.names] for line in lines])


def test_beside_the_sequential_loop(benchmark: Any, tmp_path: Path) -> None:
    """The best gain by seed, and candidates a second, beside the original's loop in Python."""
    ticks, iterations = river(), 200
    flat = {
        "price_step": 0.001, "qty_step": 0.1, "min_qty": 0.1, "min_cost": 5.0,
        "maker_fee": 0.0002, "taker_fee": 0.0005, "max_leverage": 20, "inverse": False,
        "starting_balance": 1000.0,
    }  # fmt: skip

    def gain(values: dict[str, float]) -> float | None:
        result = backtest_flat(ticks, flat | values)
        return result.summary["gain"] if result.outcome == "end" else None

    best: dict[str, list[float]] = {"passivx": [], "loop": []}
    rates: dict[str, list[float]] = {"passivx": [], "loop": []}

    def pair(seed: int) -> None:
        ranges = {name: tuple(map(float, each)) for name, each in RANGES.items()}
        rng = random.Random(seed)
        spent, (score, _, n) = timed(
            lambda: search(ranges, gain, first_k=0, end_k=iterations, rng=rng)
        )
        best["loop"].append(score)
        rates["loop"].append(n / spent)
        session = settings(iterations, seed=seed)
        result = optimize(ticks, session, tmp_path / str(seed), jobs=2)
        best["passivx"].append(result.best["gain"] if result.best else 0.0)
        rates["passivx"].append(result.evaluations_per_s)

    seeds: Iterator[int] = iter(range(N_SEEDS))
    benchmark.pedantic(pair, setup=lambda: ((next(seeds),), {}), rounds=N_SEEDS)
    for name in best:
        print(
            f"\n{name}: median gain {median(best[name]):.5f} of {len(best[name])} seeds, "
            f"{median(rates[name]):.0f} candidates/s"
        )
    benchmark.extra_info |= {name: median(gains) for name, gains in best.items()}


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads Linux's PSS")
def test_memory(benchmark: Any, tmp_path: Path) -> None:
    """Memory of all processes together (PSS), with one and with four, as they share the ticks."""
    session = settings(48)
    copies = max(1, N_ROWS // len(river()))
    highest = {}
    with mapped(lambda: to_and_fro(copies), tmp_path) as ticks:
        n_bytes = 25 * len(ticks)

        def measure() -> None:
            for jobs in (2, 4):
                seen: list[int] = []
                folder = tmp_path / f"m{jobs}"
                optimize(
                    ticks,
                    session,
                    folder,
                    jobs=jobs,
                    watch=lambda progress, s=seen: s.append(_pss()),
                )
                highest[jobs] = max(seen)

        benchmark.pedantic(measure, rounds=1)
        print(
            f"\nticks of {n_bytes / 1e6:.0f} MB; PSS of all processes: "
            + ", ".join(f"{jobs} jobs {pss / 1e6:.0f} MB" for jobs, pss in highest.items())
        )
        # Two more processes cost what a Python with NumPy costs, whatever the ticks.
        assert highest[4] - highest[2] < 2 * 120e6
        assert highest[4] < 1.1 * n_bytes + 5 * 120e6


def _pss() -> int:
    """Return the proportional set size of this process and its children, bytes."""
    total = 0
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for pid in (str(os.getpid()), *children):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total
