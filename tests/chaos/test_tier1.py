"""Chaos on a virtual clock: 500 seeds, runs that repeat, and eight mistakes that are caught."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.chaos.seeded import MISTAKES
from tests.chaos.tier1 import FAULTS, GROUP, Broken, Fault, plan_of, run_seed

SEEDS = 500
# Of the mistakes: each must show within so many seeds.
MOST_SEEDS = 150
BATCHES = 10

# What brings a mistake about that chance seldom does.
PROVOKING = {
    "whole_quantity_for_leaves": (
        Fault(20.0, "partial", 0.3, 1),
        Fault(20.01, "kill", 0.3, 1),
        Fault(40.0, "partial", 0.3, 1),
        Fault(40.01, "kill", 0.3, 1),
    ),
    "entries_during_stall": (
        Fault(20.0, "silent_market", 15.0, 1),
        Fault(32.0, "venue_cancel", 0.3, 4),
        Fault(45.0, "silent_market", 15.0, 1),
        Fault(57.0, "venue_cancel", 0.3, 4),
    ),
}

# What must have been noticed, over all seeds, for the suite to have tested anything.
DETECTORS = (
    *("adl", "adopted", "back_off", "clock_refused", "clock_set", "dead", "duplicate_fill"),
    *("foreign_fill", "foreign_order", "gap_private", "gap_trades", "gate_account"),
    *("gate_journal", "gate_market", "gate_rate_limit", "gate_refusals", "gate_venue"),
    *("held_back", "incoherent", "late_bound", "link_down", "link_up", "mismatch", "not_read"),
    *("pause", "post_only_refused", "refused", "trades_backfilled", "unknown_outcome"),
    *("venue_cancel", "venue_trimmed", "wallet_adopted", "rules_changed", "gate_leverage"),
    *("gate_not_trading", "stop_again"),
)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_nothing_is_sent_twice_and_no_fill_is_lost(batch: int) -> None:
    first = int(os.environ.get("PASSIVX_CHAOS_FIRST", "0"))
    each = int(os.environ.get("PASSIVX_CHAOS_SEEDS", str(SEEDS))) // BATCHES
    fired: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for seed in range(first + batch * each, first + (batch + 1) * each):
        result = run_seed(seed)
        fired += result.fired
        counts += result.counts
    # Each batch by itself sees every group and most detectors.
    groups = {GROUP[name] for name in fired if name in GROUP}
    assert groups == set(FAULTS), f"groups that never fired: {set(FAULTS) - groups}"
    unseen = [name for name in DETECTORS if not counts[name]]
    assert len(unseen) < 8, f"never noticed: {unseen}"


def test_every_fault_fires_and_is_noticed() -> None:
    fired: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    wanted = {name for names in FAULTS.values() for name in names}
    for seed in range(10_000, 10_150):
        result = run_seed(seed)
        fired += result.fired
        counts += result.counts
    assert not wanted - set(fired), f"never fired: {sorted(wanted - set(fired))}"
    assert not [name for name in DETECTORS if not counts[name]], (
        f"never noticed: {[name for name in DETECTORS if not counts[name]]}"
    )


@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_a_seed_is_the_same_run_every_time(seed: int) -> None:
    first, second = run_seed(seed), run_seed(seed)
    assert first.trace == second.trace
    assert first.counts == second.counts


@pytest.mark.parametrize("name", MISTAKES)
def test_a_seeded_mistake_is_caught(name: str) -> None:
    with MISTAKES[name]():
        for seed in range(MOST_SEEDS):
            try:
                run_seed(seed, PROVOKING.get(name, ()))
            except Broken:
                return
    pytest.fail(f"{name} was not caught in {MOST_SEEDS} seeds")


def _run_many() -> None:
    for seed in range(MOST_SEEDS):
        run_seed(seed)


def test_a_failure_says_how_to_see_it_again() -> None:
    with MISTAKES["no_dedupe"](), pytest.raises(Broken) as failed:
        _run_many()
    assert "python -m tests.chaos.tier1 --seed" in str(failed.value)


def test_plans_are_values() -> None:
    assert plan_of(7) == plan_of(7)
    assert plan_of(7) != plan_of(8)
    assert str(plan_of(7).seed) in plan_of(7).text()
