"""Time of the exact scan, on real trades held in memory.

What every night of an optimizer is made of: prints, messages, plans and fills of a whole run,
without the figures drawn from it. Run it with

    pytest benchmarks/bench_exact.py --benchmark-only -s

The target is a median over the golden RIVERUSDT configs of at most 15 ns per tick, best round
each. Every recorded trade is a tick; a run that is liquidated counts the ticks it has played.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from benchmarks.memory import needs_peak_counter, peak_growth
from benchmarks.river import DATA, medians, note_scan, river_cases
from passivx import Ticks, load_ticks
from passivx._core import exact
from passivx._core.types import FUNDING_DTYPE
from passivx.backtesting import backtest_flat
from passivx.candidates import exact_from_flat, with_defaults

TARGET_NS = 15.0
NO_FUNDING = np.zeros(0, FUNDING_DTYPE)

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def figures() -> Any:
    """ns per tick of every config; the summary is printed when the last one is done."""
    yield from medians("exact", TARGET_NS)


@lru_cache(maxsize=1)
def trades(name: str) -> Ticks:
    return load_ticks(DATA / name)


@pytest.mark.parametrize("case", river_cases())
def test_scan(benchmark: Any, figures: dict[str, float], case: dict[str, Any]) -> None:
    ticks = trades(case["ticks"])
    settings = with_defaults(case["settings"], "exact")
    run = exact_from_flat(settings, fill="cross", queue_share=0.0)
    columns = (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)
    fills, _, _, _, played, _, _ = benchmark.pedantic(
        exact.run,
        args=(*columns, run.record(), run.market.tier_records(), NO_FUNDING),
        rounds=40,
        iterations=1,
        warmup_rounds=3,
    )
    note_scan(benchmark, figures, case, played, len(fills))


@pytest.mark.parametrize(
    "limits",
    [None, {}, {"max_loss": 0.001, "max_hours_between_fills": 4.0}],
    ids=["no limits", "loose", "tight"],
)
def test_many(benchmark: Any, limits: dict[str, float] | None) -> None:
    """All golden configs in one call, as a worker of an optimizer runs candidates.

    Limits that nothing breaks should cost nothing; those that something breaks save its rest.
    """
    if not DATA.is_dir():
        pytest.skip(f"no real market data at {DATA}")
    cases = [case.values[0] for case in river_cases()]
    ticks = trades(cases[0]["ticks"])
    runs = [
        exact_from_flat(with_defaults(case["settings"], "exact"), fill="cross", queue_share=0.0)
        for case in cases
        if case["ticks"] == cases[0]["ticks"]
    ]
    record = None
    if limits is not None:
        record = np.array([(np.inf, -np.inf, np.inf, np.inf, -np.inf, 1.0)], exact.LIMITS_DTYPE)
        for name, limit in limits.items():
            record[name] = limit
    candidates = np.concatenate([run.record() for run in runs])
    tiers = runs[0].market.tier_records()
    columns = (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)
    answers = benchmark.pedantic(
        exact.run_many,
        args=(*columns, candidates, tiers, NO_FUNDING),
        kwargs={"limits": record},
        rounds=40,
        warmup_rounds=3,
    )
    ended = sum(answer[2] == exact.Outcome.LIMIT for answer in answers)
    print(f"\n{len(answers)} candidates on {len(ticks)} ticks, {ended} ended by a limit")


@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_public_call_with_summary(benchmark: Any, engine: str) -> None:
    """Settings checked, run, figures drawn: what one candidate costs through the Python face."""
    if not DATA.is_dir():
        pytest.skip(f"no real market data at {DATA}")
    case = river_cases()[0].values[0]
    ticks = trades(case["ticks"])
    benchmark.pedantic(
        lambda: backtest_flat(ticks, case["settings"], engine=engine).summary,
        rounds=40,
        warmup_rounds=3,
    )


@needs_peak_counter
def test_memory(benchmark: Any) -> None:
    """The scan keeps its records and a fixed state, nothing per tick."""
    if not DATA.is_dir():
        pytest.skip(f"no real market data at {DATA}")
    case = river_cases()[0].values[0]
    ticks = trades(case["ticks"])
    run = exact_from_flat(with_defaults(case["settings"], "exact"), fill="cross", queue_share=0.0)
    columns = (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)
    args = (*columns, run.record(), run.market.tier_records(), NO_FUNDING)
    fills, equity, *_ = benchmark.pedantic(exact.run, args=args, rounds=3)
    grown = peak_growth(lambda: exact.run(*args))
    records = fills.nbytes + equity.nbytes
    print(
        f"\nexact scan of {len(ticks)} ticks: {grown / 1024:.0f} KiB grown, {records} B of records"
    )
    # What grows are the records, held twice while they are handed over, and the allocator's slack.
    assert grown <= 4 * records + (1 << 20)
