"""The 22 recorded runs of the original program, through the engine and through its twin."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.golden.compat_cases import N_CASES, load_cases, load_trades
from tests.reference.compat_door import run_engine
from tests.reference.compat_twin import run_compat

pytestmark = pytest.mark.real_data

EXACT = {"trade_id", "side", "type", "price", "qty", "timestamp"}
SHORT_CASES = (1, 3, 5, 9, 19, 21)  # short files; linear, inverse, both liquidations


def assert_golden(case: dict[str, Any], rows: list[dict[str, Any]], outcome: str) -> None:
    assert outcome == case["outcome"]
    assert len(rows) == len(case["trades"]) == case["n_trades"]
    assert {"price", "qty", "pos_size", "reentry_price"} <= set(case["fields"])
    for row, trade in zip(rows, case["trades"], strict=True):
        for name, want in zip(case["fields"], trade, strict=True):
            where = f"{name} of the fill at tick {row['trade_id']}"
            got = row[name]
            if want is None:
                assert math.isnan(got), where
            elif name in EXACT:
                assert got == want, where
            else:
                assert math.isclose(got, want, rel_tol=1e-9, abs_tol=0.0), where


@pytest.mark.parametrize("number", range(N_CASES))
def test_engine_repeats_the_original(number: int, shared: Path, real_data: Path) -> None:
    case = load_cases(shared)[number]
    rows, outcome, _ = run_engine(*load_trades(real_data / case["ticks"]), case["settings"])
    assert_golden(case, rows, outcome)


@pytest.mark.parametrize("number", SHORT_CASES)
def test_twin_repeats_the_original(number: int, shared: Path, real_data: Path) -> None:
    case = load_cases(shared)[number]
    rows, outcome, _ = run_compat(*load_trades(real_data / case["ticks"]), case["settings"])
    assert_golden(case, rows, outcome)


def test_no_case_is_left_out(shared: Path) -> None:
    cases = load_cases(shared)
    assert len(cases) == N_CASES
    assert {case["outcome"] for case in cases} == {"end", "long_liquidation", "shrt_liquidation"}
    assert {case["settings"]["inverse"] for case in cases} == {False, True}
