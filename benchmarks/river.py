"""The golden RIVERUSDT configs on the recorded trades, for the engines' benchmarks."""

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from passivx._core.types import build_info
from tests.golden.compat_cases import load_cases

REPO = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PASSIVX_REAL_DATA", REPO.parent / "shared" / "data"))


def river_cases() -> list[Any]:
    """The golden cases on RIVERUSDT as test parameters; one skipped where there is no data."""
    if not DATA.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(f"no real market data at {DATA}"))]
    return [
        pytest.param(case, id=f"golden-{number}-{case['outcome']}")
        for number, case in enumerate(load_cases(DATA.parent))
        if "RIVERUSDT" in case["ticks"]
    ]


def medians(engine: str, target_ns: float) -> Iterator[dict[str, float]]:
    """Body of a fixture: collects ns per tick by config, prints the summary at the end."""
    best: dict[str, float] = {}
    yield best
    if best:
        print(
            f"\n{engine} scan: median {median(best.values()):.2f} ns per tick over {len(best)} "
            f"configs (min {min(best.values()):.2f}, max {max(best.values()):.2f}, target "
            f"{target_ns}), debug={build_info()['debug']}"
        )


def note_scan(benchmark: Any, figures: dict[str, float], case: Any, ticks: int, fills: int) -> None:
    """Keep and print what one config's scan took."""
    if benchmark.disabled:
        return
    stats = benchmark.stats.stats
    benchmark.extra_info["ticks"] = ticks
    benchmark.extra_info["fills"] = fills
    benchmark.extra_info["ns_per_tick"] = stats.min / ticks * 1e9
    benchmark.extra_info["ns_per_tick_median_round"] = stats.median / ticks * 1e9
    figures[str(case["settings"])] = benchmark.extra_info["ns_per_tick"]
    print(
        f"\n{ticks} ticks, {fills} fills: best {stats.min / ticks * 1e9:.2f}, "
        f"median round {stats.median / ticks * 1e9:.2f} ns per tick"
    )
