"""The exact engine against its twin on random runs, biased to nasty corners, and what must hold.

A failure names its seed: ``compare(draw(seed))`` replays it. PASSIVX_FUZZ_RUNS and
PASSIVX_FUZZ_SEED set the number of nightly cases and the first seed.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passivx._core import exact
from passivx._core.types import FUNDING_DTYPE, KIND_NAMES, Kind
from tests.core.exact_invariants import check
from tests.core.exact_scenarios import draw, draw_real
from tests.reference.exact_door import run_engine, to_settings
from tests.reference.exact_twin import Outcome, Scenario, run_exact

BLOCK = 20
BLOCKS = 10
REAL_BLOCKS = 6
NIGHTLY_RUNS = int(os.environ.get("PASSIVX_FUZZ_RUNS", "3000"))
NIGHTLY_SEED = int(os.environ.get("PASSIVX_FUZZ_SEED", "1000000"))
# Equal to the last bit; everything else is money or derived from it.
EXACT = ("tick", "ts_ms", "position_side", "kind", "qty", "pos_size")
MONEY = ("pnl", "fee", "balance")


def close(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b), scale)


def differing(got: dict[str, Any], want: dict[str, Any], scale: float) -> dict[str, Any]:
    """Fields in which two records differ, (engine, twin)."""
    out = {}
    for name, value in want.items():
        if name in EXACT or (name == "price" and want["kind"] != Kind.LIQUIDATION):
            same = got[name] == value
        else:
            same = close(got[name], value, scale if name in MONEY else 1e-3 * abs(value))
        if not same and not (name == "closest_liq" and abs(got[name] - value) <= 1e-9):
            out[name] = (got[name], value)
    return out


def compare(s: Scenario, *, chunk: int = 10_000_000) -> tuple[Outcome, Counter[str]]:
    """Assert that engine and twin agree; return the engine's answer and what the run contained."""
    want = run_exact(s)
    got = run_engine(s, chunk=chunk)
    turnover = s.starting_balance
    for a, b in zip(got.records, want.records, strict=False):
        turnover += abs(b["pnl"]) + abs(b["fee"])
        wrong = differing(a, b, turnover)
        assert not wrong, f"tick {b['tick']} of {KIND_NAMES[Kind(b['kind'])]}: {wrong}"
    assert (len(got.records), got.outcome) == (len(want.records), want.outcome)
    assert [point[0] for point in got.equity] == [point[0] for point in want.equity]
    for a, b in zip(got.equity, want.equity, strict=True):
        assert close(a[1], b[1], turnover), (a, b)
        assert close(a[2], b[2], turnover), (a, b)
    assert close(got.worst_open_loss, want.worst_open_loss, turnover)
    assert abs(got.closest_liq - want.closest_liq) <= 1e-9
    seen = Counter(KIND_NAMES[Kind(record["kind"])] for record in want.records)
    seen[got.outcome] += 1
    return got, seen


def fuzz(seeds: range, real_data: Path | None = None) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        chunk = 1 + seed % 700
        try:
            s = draw(seed) if real_data is None else draw_real(seed, real_data)
            got, kinds = compare(s, chunk=chunk)
            check(s, got)
            # The same run in other bites is the same run, to the last bit.
            assert run_engine(s) == got
        except Exception as e:
            which = "draw" if real_data is None else "draw_real"
            e.add_note(f"replay with: compare({which}({seed}, ...), chunk={chunk})")
            raise
        seen += kinds
    return seen


@pytest.mark.parametrize("block", range(BLOCKS))
def test_engine_equals_twin_on_random_markets(block: int) -> None:
    seen = fuzz(range(block * BLOCK, (block + 1) * BLOCK))
    assert sum(seen.values()) > 20 * BLOCK, "the random markets hardly trade: this proves little"


@pytest.mark.real_data
@pytest.mark.parametrize("block", range(REAL_BLOCKS))
def test_engine_equals_twin_on_windows_of_real_trades(block: int, real_data: Path) -> None:
    fuzz(range(block * BLOCK, (block + 1) * BLOCK), real_data)


def test_random_markets_reach_every_kind_of_record_and_every_end() -> None:
    seen: Counter[str] = Counter()
    for seed in range(5000, 5200):
        got = run_engine(draw(seed))
        seen.update(KIND_NAMES[Kind(record["kind"])] for record in got.records)
        seen[got.outcome] += 1
    assert min(seen[name] for name in KIND_NAMES.values()) >= 20, seen
    assert min(seen[name] for name in ("end", "long_liquidation", "shrt_liquidation")) >= 10, seen


def raw(s: Scenario, **changes: np.ndarray) -> tuple[Any, ...]:
    """Run the core on a scenario whose prints were changed."""
    prints = {"price": s.price, "qty": s.qty, "ts_ms": s.ts_ms, "buyer_maker": s.buyer_maker}
    prints |= changes
    return exact.run(
        *prints.values(), to_settings(s), s.tiers, np.asarray(s.funding, FUNDING_DTYPE)
    )


def test_prints_out_of_order_are_refused_and_never_wait_for_an_end() -> None:
    s = draw(0)
    with pytest.raises(ValueError, match="time order"):
        raw(s, ts_ms=s.ts_ms[::-1].copy())


def test_any_number_but_0_says_that_the_buyer_was_the_maker() -> None:
    for seed in range(20):
        s = draw(seed)
        fills = raw(s)[0]
        assert raw(s, buyer_maker=s.buyer_maker * np.uint8(3))[0].tobytes() == fills.tobytes()


@pytest.mark.nightly
@pytest.mark.real_data
def test_engine_equals_twin_on_many_random_runs(real_data: Path) -> None:
    half = NIGHTLY_RUNS // 2
    seen = fuzz(range(NIGHTLY_SEED, NIGHTLY_SEED + half))
    seen += fuzz(range(NIGHTLY_SEED, NIGHTLY_SEED + half), real_data)
    print(f"\n{2 * half} runs from seed {NIGHTLY_SEED}: {dict(seen)}")
