"""The second tier: processes, sockets, kill -9 (`tests.chaos.tier2`).

PASSIVX_CHAOS_RUNS and PASSIVX_CHAOS_SEED set the number of nightly plans and the first seed.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.soak import soak
from tests.chaos.tier2 import Report, run
from tests.chaos.tier2_plans import ABANDONED, CHANGES, Plan, plan_of, plans

# Most of a run is waiting: this many processors more or less keep up with all of these at once.
SIDE_BY_SIDE = 5
FIRST_SEED = int(os.environ.get("PASSIVX_CHAOS_SEED", "1"))
N_SEEDS = int(os.environ.get("PASSIVX_CHAOS_RUNS", "25"))


def run_all(chosen: list[Plan], folder: Path) -> list[Report]:
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return list(pool.map(lambda plan: run(plan, folder / plan.name), chosen))


def test_a_plan_is_a_value() -> None:
    for plan in [*CHANGES, *ABANDONED, *map(plans, range(50))]:
        assert plan_of(plan.to_json()) == plan
    assert plans(7) == plans(7)
    assert plans(7) != plans(8)


def test_plans_of_every_change(tmp_path: Path) -> None:
    """Side by side in one test: pytest's workers would each wait for a part of them in turn."""
    reports = run_all(CHANGES, tmp_path)
    wrong = [report for report in reports if report.wrong]
    assert not wrong, "\n\n".join(map(str, wrong))


@pytest.mark.nightly
def test_generated_plans(tmp_path: Path) -> None:
    reports = run_all(
        ABANDONED + [plans(seed) for seed in range(FIRST_SEED, FIRST_SEED + N_SEEDS)], tmp_path
    )
    wrong = [report for report in reports if report.wrong]
    assert not wrong, "\n\n".join(map(str, wrong))


@pytest.mark.nightly
def test_soak(tmp_path: Path) -> None:
    """An hour of the market and a million messages; the figures are in build/soak.json."""
    report = soak(tmp_path / "soak")
    assert not report.wrong, str(report)
