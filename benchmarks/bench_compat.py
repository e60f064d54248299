"""Time and memory of the compat scan, on real trades held in memory.

An optimizer replays the same ticks for thousands of candidates, so this loop is where its hours go.
Run it with

    pytest benchmarks/bench_compat.py --benchmark-only -s

The target is a median over the golden RIVERUSDT configs of at most 8 ns per tick, best round each.
A tick is one that is left after dropping repeated prices: those dropped cost time but do not count.
"""

from typing import Any

import numpy as np
import pytest

from benchmarks.memory import needs_peak_counter, peak_growth
from benchmarks.river import DATA, medians, note_scan, river_cases
from passivx._core import compat
from tests.golden.compat_cases import Ticks, load_cases, load_trades
from tests.reference.compat_door import to_settings

TARGET_NS = 8.0
BYTES_PER_TICK = 17  # f8 price, i8 time, u1 side

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def figures() -> Any:
    """ns per tick of every config; the summary is printed when the last one is done."""
    yield from medians("compat", TARGET_NS)


@pytest.mark.parametrize("case", river_cases())
def test_scan(benchmark: Any, figures: dict[str, float], case: dict[str, Any]) -> None:
    ticks = load_trades(DATA / case["ticks"])
    settings = to_settings(case["settings"])
    fills, _, _, thinned = benchmark.pedantic(
        compat.run, args=(*ticks, settings), rounds=60, iterations=1, warmup_rounds=3
    )
    note_scan(benchmark, figures, case, thinned, len(fills))


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
