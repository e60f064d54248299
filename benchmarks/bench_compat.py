"""Time and memory of the compat scan, on real trades held in memory.

An optimizer replays the same ticks for thousands of candidates, so this loop is where its hours go.
Run it with

    pytest benchmarks/bench_compat.py --benchmark-only -s

The target is a median over the golden RIVERUSDT configs of at most 8 ns per tick, best round each.
A tick is one that is left after dropping repeated prices: those dropped cost time but do not count.
"""

import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.memory import needs_peak_counter, peak_growth
from passivx._core import compat
from passivx._core.types import build_info
from tests.golden.compat_cases import Ticks, load_cases, load_trades
from tests.reference.compat_door import to_settings

TARGET_NS = 8.0
BYTES_PER_TICK = 17  # f8 price, i8 time, u1 side
REPO = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PASSIVX_REAL_DATA", REPO.parent / "shared" / "data"))

pytestmark = pytest.mark.real_data


def river_cases() -> list[Any]:
    if not DATA.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(f"no real market data at {DATA}"))]
    return [
        pytest.param(case, id=f"golden-{number}-{case['outcome']}")
        for number, case in enumerate(load_cases(DATA.parent))
        if "RIVERUSDT" in case["ticks"]
    ]


@pytest.fixture(scope="module")
def figures() -> Any:
    """ns per tick of every config; the summary is printed when the last one is done."""
    best: dict[str, float] = {}
    yield best
    if best:
        middle = median(best.values())
        print(
            f"\ncompat scan: median {middle:.2f} ns per tick over {len(best)} configs "
            f"(min {min(best.values()):.2f}, max {max(best.values()):.2f}, target {TARGET_NS}), "
            f"debug={build_info()['debug']}"
        )


@pytest.mark.parametrize("case", river_cases())
def test_scan(benchmark: Any, figures: dict[str, float], case: dict[str, Any]) -> None:
    ticks = load_trades(DATA / case["ticks"])
    settings = to_settings(case["settings"])
    fills, _, _, thinned = benchmark.pedantic(
        compat.run, args=(*ticks, settings), rounds=60, iterations=1, warmup_rounds=3
    )
    if benchmark.disabled:
        return
    stats = benchmark.stats.stats
    benchmark.extra_info["ticks"] = thinned
    benchmark.extra_info["fills"] = len(fills)
    benchmark.extra_info["ns_per_tick"] = stats.min / thinned * 1e9
    benchmark.extra_info["ns_per_tick_median_round"] = stats.median / thinned * 1e9
    figures[str(case["settings"])] = benchmark.extra_info["ns_per_tick"]
    print(
        f"\n{thinned} ticks, {len(fills)} fills: best {stats.min / thinned * 1e9:.2f}, "
        f"median round {stats.median / thinned * 1e9:.2f} ns per tick"
    )


def tile(ticks: Ticks, times: int) -> Ticks:
    """The same trades over and over, time running on."""
    price, ts_ms, maker = ticks
    span = ts_ms[-1] - ts_ms[0] + 1
    later = np.repeat(np.arange(times) * span, len(ts_ms))
    return np.tile(price, times), np.tile(ts_ms, times) + later, np.tile(maker, times)


@needs_peak_counter
def test_memory(benchmark: Any) -> None:
    """The scan needs its three columns and the fills, nothing per tick."""
    if not DATA.is_dir():
        pytest.skip(f"no real market data at {DATA}")
    case = load_cases(DATA.parent)[0]
    ticks = tile(load_trades(DATA / case["ticks"]), 25)
    n = len(ticks[0])
    columns = sum(column.nbytes for column in ticks)
    assert columns == BYTES_PER_TICK * n
    settings = to_settings(case["settings"])
    fills, _, _, _ = benchmark.pedantic(compat.run, args=(*ticks, settings), rounds=3)
    grown = peak_growth(lambda: compat.run(*ticks, settings))
    per_tick = (columns + grown) / n
    benchmark.extra_info["bytes_per_tick"] = per_tick
    print(
        f"\ncompat scan of {n} ticks, {len(fills)} fills: {per_tick:.3f} bytes per tick "
        f"({columns / n:.0f} of them the input, {grown / 1024:.0f} KiB grown)"
    )
    # What grows are the fills, held twice while they are handed over, and the allocator's slack.
    assert grown <= 4 * fills.nbytes + (1 << 20)
