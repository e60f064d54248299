"""Samplers: the schedule and the reach of hops, what a generation shares out, and that chance is
the same every time.

A fine step makes a hop readable from its value: `hops_of` finds which of the 200 points it was.
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passivx.optimizer.samplers import SAMPLERS, Jackrabbit, Plan, Proposal, Random, Result, Sampler
from passivx.optimizer.space import Range, Space
from tests.reference import jackrabbit_twin as twin

Values = npt.NDArray[np.float64]
Ranges = dict[str, twin.Range]
Objective = Callable[[dict[str, float]], float | None]

FINE: Ranges = {"a": (0.0, 1.0, 1e-9), "b": (10.0, 30.0, 1e-8), "c": (-1.0, 1.0, 1e-9)}
COARSE: Ranges = {
    "leverage": (1.0, 20.0, 1.0),
    "markup": (0.0005, 0.03, 1e-5),
    "n": (1.0, 30.0, 1.0),
    "span": (100.0, 50_000.0, 1.0),
    "switch": (1.0, 1.0, 1.0),
}


def plan_of(
    ranges: Ranges,
    *,
    seed: int = 0,
    stream: int = 0,
    first_k: int = 0,
    end_k: int = 50,
    generation: int = 1,
    starts: Sequence[Sequence[float]] = (),
    ordered: bool = False,
) -> Plan:
    return Plan(
        space=Space({name: Range(*each) for name, each in ranges.items()}, ordered=ordered),
        seed=seed,
        stream=stream,
        first_k=first_k,
        end_k=end_k,
        generation=generation,
        starts=np.array(starts, np.float64).reshape(-1, len(ranges)),
    )


def generations_of(sampler: Sampler, plan: Plan, objective: Objective) -> list[list[Result]]:
    """Run a sampler to the end of its plan."""
    out = []
    while proposals := sampler.ask():
        results = [Result(p, objective(plan.space.as_dict(p.values))) for p in proposals]
        sampler.tell(results)
        out.append(results)
    return out


def values_of(generations: Sequence[Sequence[Result]]) -> list[list[float]]:
    return [result.proposal.values.tolist() for results in generations for result in results]


def rejected(values: dict[str, float]) -> float | None:
    return None


def hilly(values: dict[str, float]) -> float | None:
    """Any figure for any point, and a third of them rejected; the same for equal points."""
    digest = hashlib.sha256(repr(sorted(values.items())).encode()).digest()
    return None if digest[0] < 85 else digest[1] / 16.0 // 1.0


def smooth(values: dict[str, float]) -> float:
    """Highest at 0.3, 17 and 0.4 of `FINE`."""
    return -sum(
        ((values[name] - top) / width) ** 2
        for name, top, width in (("a", 0.3, 1.0), ("b", 17.0, 20.0), ("c", 0.4, 2.0))
    )


def points_of(where: twin.Range, parent: float | None, m: float) -> list[float]:
    return [twin.point(where, parent, m, i) for i in range(twin.N_POINTS)]


def hops_of(proposals: Sequence[Proposal], ranges: Ranges, best: Values | None) -> list[list[int]]:
    """Which of its 200 points each value of each proposal was; wants fine steps."""
    out = []
    for proposal in proposals:
        row = []
        for i, name in enumerate(sorted(ranges)):
            parent = None if best is None else float(best[i])
            points = np.array(points_of(ranges[name], parent, proposal.m))
            distances = np.abs(points - proposal.values[i])
            nearest = int(distances.argmin())
            assert distances[nearest] <= ranges[name][2] * 1.001, (name, proposal)
            row.append(nearest)
        out.append(row)
    return out


def evenly_spread(hops: Sequence[int]) -> bool:
    """Whether each of as many equal strata of the 200 points as there are hops is used once."""
    n = len(hops)
    return all(200 * i // n <= hop <= (200 * i + 199) // n for i, hop in enumerate(sorted(hops)))


# --- the schedule


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("first_k", "end_k", "generation"),
    [(0, 1, 1), (0, 1, 16), (7, 8, 3), (0, 10, 1), (200, 237, 16), (5, 37, 16), (0, 40, 100)],
)
def test_iterations_are_counted_up_to_their_end(
    name: str, first_k: int, end_k: int, generation: int
) -> None:
    plan = plan_of(FINE, first_k=first_k, end_k=end_k, generation=generation)
    sampler = SAMPLERS[name](plan)
    generations = generations_of(sampler, plan, hilly)
    assert [r.proposal.k for results in generations for r in results] == [*range(first_k, end_k)]
    sizes = [len(results) for results in generations]
    assert sizes[:-1] == [generation] * (len(sizes) - 1)
    assert 1 <= sizes[-1] <= generation
    assert sampler.ask() == []  # and so it stays
    sampler.tell([])
    assert sampler.ask() == []


def test_m_by_hand() -> None:
    # k = 0, 16, 32 of 33: 1/16, 1/24, 1/32. Scaled: (1/24 − 1/32) / (1/16 − 1/32) = 1/3.
    plan = plan_of(FINE, end_k=33, generation=5)
    generations = generations_of(Jackrabbit(plan), plan, rejected)
    m = [result.proposal.m for results in generations for result in results]
    assert (m[0], m[-1]) == (1.0, 0.0)
    assert m[16] == pytest.approx(1 / 3, rel=1e-12)
    assert all(x > y for x, y in pairwise(m))
    # From k = 200 on to 202: 1/116, 1/116.5, 1/117; the middle one of (1/116 − 1/117) is left with
    # (1/116.5 − 1/117) / (1/116 − 1/117) = (0.5 / 116.5) × 116.
    plan = plan_of(FINE, first_k=200, end_k=203)
    generations = generations_of(Jackrabbit(plan), plan, rejected)
    m = [results[0].proposal.m for results in generations]
    assert m == [1.0, pytest.approx(58 / 116.5, rel=1e-9), 0.0]


@pytest.mark.parametrize(("first_k", "end_k"), [(0, 1), (0, 2), (3, 600), (100_000, 100_050)])
def test_m_is_the_twins(first_k: int, end_k: int) -> None:
    plan = plan_of(FINE, first_k=first_k, end_k=end_k, generation=16)
    generations = generations_of(Jackrabbit(plan), plan, rejected)
    m = [result.proposal.m for results in generations for result in results]
    assert m == pytest.approx(twin.schedule(first_k, end_k), rel=1e-9)


def test_a_single_iteration_may_lead_anywhere() -> None:
    for starts in ((), ((0.0, 10.0, -1.0),)):
        plan = plan_of(FINE, first_k=40, end_k=41, starts=starts)
        (proposal,) = Jackrabbit(plan).ask()
        assert proposal.m == 1.0
    seen = {Jackrabbit(plan_of(FINE, seed=s, end_k=1)).ask()[0].values[0] for s in range(50)}
    assert min(seen) < 0.1
    assert max(seen) > 0.9


# --- where hops lead


class Scripted(random.Random):
    """Chance that was known before."""

    def __init__(self, draws: Sequence[int]) -> None:
        super().__init__(0)
        self.draws = list(draws)

    def randrange(self, *bounds: Any) -> int:
        return self.draws.pop(0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ranges", [FINE, COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("start", [False, True], ids=["anywhere", "from a start"])
def test_a_generation_of_one_is_the_originals_sequence(
    seed: int, ranges: Ranges, start: bool
) -> None:
    """Every value is one of the twin's points; with the same draws the twin finds the same."""
    names = sorted(ranges)
    given_start = [ranges[name][0] for name in names] if start else None
    plan = plan_of(
        ranges, seed=seed, end_k=80, starts=() if given_start is None else (given_start,)
    )
    asked: list[dict[str, float]] = []
    draws: list[int] = []
    best: tuple[float, dict[str, float]] | None = None
    known: set[str] = set()
    parent = None if given_start is None else dict(zip(names, given_start, strict=True))
    for results in generations_of(Jackrabbit(plan), plan, hilly):
        (result,) = results
        values = plan.space.as_dict(result.proposal.values)
        for name in names:
            points = points_of(ranges[name], parent and parent[name], result.proposal.m)
            if start and result.proposal.k == 0:
                draws.append(0)  # the start is tried, wherever a hop would have led
                continue
            assert values[name] in points
            draws.append(points.index(values[name]))
        if (key := repr(values)) not in known:
            known.add(key)
            asked.append(values)
        if result.score is not None and (best is None or result.score > best[0]):
            best = (result.score, values)
            parent = values
    run: list[dict[str, float]] = []

    def objective(values: dict[str, float]) -> float | None:
        run.append(values)
        return hilly(values)

    assert best is not None
    found = twin.search(
        ranges,
        objective,
        first_k=0,
        end_k=80,
        rng=Scripted(draws),
        start=None if given_start is None else dict(zip(names, given_start, strict=True)),
    )
    assert found == (*best, len(known))
    assert run == asked


def test_a_generation_of_one_draws_every_point_alike() -> None:
    ranges: Ranges = {"a": (0.0, 199.0, 1.0), "b": (0.0, 199.0, 1.0)}
    proposals = [Jackrabbit(plan_of(ranges, seed=seed)).ask()[0] for seed in range(4000)]
    drawn = np.array([proposal.values for proposal in proposals])
    # χ² of 200 points has 199 degrees of freedom: mean 199, deviation 20. Same for 20 × 20 pairs.
    for column in drawn.T:
        counts = np.bincount(column.astype(int), minlength=200)
        assert abs(((counts - 20) ** 2 / 20).sum() - 199) < 4 * 20
    pairs = np.histogram2d(*drawn.T, bins=20)[0]
    assert abs(((pairs - 10) ** 2 / 10).sum() - 399) < 4 * 28


def test_a_generation_of_one_finds_as_much_as_the_twin() -> None:
    ours, theirs = [], []
    for seed in range(100):
        plan = plan_of(FINE, seed=seed, end_k=60)
        generations = generations_of(Jackrabbit(plan), plan, smooth)
        ours.append(max(results[0].score for results in generations if results[0].score))
        score, _, n_evaluated = twin.search(
            FINE, smooth, first_k=0, end_k=60, rng=random.Random(seed)
        )
        assert score is not None
        assert n_evaluated >= 59  # the last hop leads nowhere
        theirs.append(score)
    spread = math.hypot(statistics.stdev(ours), statistics.stdev(theirs)) / 10
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) < 4 * spread
    # Both are searches: plain chance finds less.
    chance = []
    for seed in range(100):
        plan = plan_of(FINE, seed=seed, end_k=60)
        generations = generations_of(Random(plan), plan, smooth)
        chance.append(max(results[0].score for results in generations if results[0].score))
    assert statistics.mean(ours) > statistics.mean(chance) + 4 * spread


@st.composite
def plans(draw: st.DrawFn) -> tuple[Ranges, Plan]:
    ranges: Ranges = {}
    for i in range(draw(st.integers(1, 4))):
        step = draw(st.sampled_from([1e-5, 0.001, 0.05, 0.1, 1.0, 5.0]))
        low = draw(st.integers(-50, 50)) * step + draw(st.sampled_from([0.0, 0.0, 0.3])) * step
        width = draw(st.sampled_from([0.0, 0.4, 1.0, 7.5, 300.0, 1e5])) * step
        ranges[f"p{i}"] = (low, low + width, step)
    space = Space({name: Range(*each) for name, each in ranges.items()}, ordered=False)
    shares = draw(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=5))
    starts = [space.settle(space.low + np.array(row[: len(ranges)]) * (space.high - space.low))
              for row in shares]  # fmt: skip
    first_k = draw(st.integers(0, 300))
    plan = plan_of(
        ranges,
        seed=draw(st.integers(0, 2**53)),
        stream=draw(st.integers(0, 10)),
        first_k=first_k,
        end_k=first_k + draw(st.integers(1, 40)),
        generation=draw(st.sampled_from([1, 2, 3, 16])),
        starts=[point.tolist() for point in starts],
    )
    return ranges, plan


@given(plans(), st.sampled_from([hilly, rejected, lambda values: 1.0, lambda v: sum(v.values())]))
@settings(deadline=None)
def test_values_lie_within_the_hop_from_the_best_or_are_the_bests(
    drawn: tuple[Ranges, Plan], objective: Objective
) -> None:
    ranges, plan = drawn
    space = plan.space
    step = np.array([ranges[name][2] for name in space.names])
    best = plan.starts[0] if len(plan.starts) else None
    score = -math.inf
    n = 0
    for results in generations_of(Jackrabbit(plan), plan, objective):
        for result in results:
            values, m = result.proposal.values, result.proposal.m
            assert result.proposal.key == space.key(values)
            assert (space.low <= values).all()
            assert (values <= space.high).all()
            n += 1
            if n <= len(plan.starts):
                assert values.tolist() == plan.starts[n - 1].tolist()
                continue
            if best is None:
                continue
            span = (space.high - space.low) * m / 2
            midpoint = np.clip(best, space.low + span, space.high - span)
            reached = np.abs(values - midpoint) <= span + step / 2 + 1e-9 * (1 + np.abs(midpoint))
            assert (reached | ((values == best) & (plan.generation > 1))).all()
        for result in results:
            if result.score is not None and result.score > score:
                best, score = result.proposal.values, result.score


def test_markups_stay_in_order_also_beside_kept_ones() -> None:
    ranges: Ranges = {
        "a": (0.0, 1.0, 0.01),
        "max_markup": (0.001, 0.02, 1e-5),
        "min_markup": (0.0005, 0.01, 1e-5),
    }
    for name in SAMPLERS:
        plan = plan_of(ranges, end_k=400, generation=16, ordered=True)
        tried = np.array(values_of(generations_of(SAMPLERS[name](plan), plan, hilly)))
        assert (tried[:, 1] >= tried[:, 2]).all()
        assert (tried[:, 1] == tried[:, 2]).any()
        assert (tried >= plan.space.low).all()
        assert (tried <= plan.space.high).all()


# --- what a generation shares out


@pytest.mark.parametrize("generation", [2, 3, 7, 16, 64, 200, 333])
def test_the_values_of_a_generation_are_spread_evenly(generation: int) -> None:
    plan = plan_of(FINE, end_k=3 * generation, generation=generation)
    orders = []
    for results in generations_of(Jackrabbit(plan), plan, rejected):
        hops = np.array(hops_of([result.proposal for result in results], FINE, None))
        for column in hops.T:
            assert evenly_spread(column.tolist())
            orders.append(tuple(np.argsort(column, kind="stable").tolist()))
    if generation > 3:
        assert len(set(orders)) == 9  # every parameter of every generation has its own


def test_a_short_last_generation_is_spread_evenly_too() -> None:
    plan = plan_of(FINE, end_k=21, generation=16)
    *_, last = generations_of(Jackrabbit(plan), plan, rejected)
    assert len(last) == 5
    for column in zip(*hops_of([r.proposal for r in last], FINE, None), strict=True):
        assert evenly_spread(column)


def test_one_free_parameter_is_new_every_time() -> None:
    ranges: Ranges = {"a": (0.0, 1.0, 1e-9), "b": (4.0, 4.0, 1.0)}
    plan = plan_of(ranges, end_k=100, generation=12, starts=[(0.5, 4.0)])
    best, score = plan.starts[0], -math.inf
    sampler = Jackrabbit(plan)
    for number in range(5):
        proposals = sampler.ask()
        # Nothing leads up after the first one, so that nothing is tried again.
        results = [Result(p, 1.0 if number == 0 and p.k == 5 else 0.0) for p in proposals]
        if number > 1:
            hops = hops_of(proposals, {"a": ranges["a"]}, best[:1])
            assert evenly_spread([row[0] for row in hops])
        assert all(proposal.values[1] == 4.0 for proposal in proposals)
        for result in results:
            if result.score is not None and result.score > score:
                best, score = result.proposal.values, result.score
        sampler.tell(results)
    assert score == 1.0


def test_every_second_candidate_keeps_half_of_the_best() -> None:
    names = [f"p{i:02}" for i in range(20)]
    ranges: Ranges = dict.fromkeys(names, (0.0, 1.0, 1e-12))
    start = [0.5123456789] * 20
    plan = plan_of(ranges, end_k=960, generation=16, starts=[start])
    kept = []
    for results in generations_of(Jackrabbit(plan), plan, rejected):
        for i, result in enumerate(results):
            if result.proposal.k == 0 or result.proposal.m < 0.01:
                continue
            same = result.proposal.values == plan.starts[0]
            if i % 2 == 0:
                assert not same.any()
            else:
                assert not same.all()
                kept.append(same)
    share = np.mean(kept, axis=0)
    assert len(kept) > 350
    # Half of all, less the twentieth that is always new: 0.475, in every parameter.
    assert share.mean() == pytest.approx(0.475, abs=0.02)
    assert ((share > 0.38) & (share < 0.57)).all()


def test_two_free_parameters_are_never_both_kept() -> None:
    ranges: Ranges = {"a": (0.0, 1.0, 1e-12), "b": (0.0, 1.0, 1e-12), "fixed": (2.0, 2.0, 1.0)}
    plan = plan_of(ranges, end_k=200, generation=8, starts=[(0.31234567, 0.61234567, 2.0)])
    tried = values_of(generations_of(Jackrabbit(plan), plan, rejected))
    assert [row for row in tried if row == plan.starts[0].tolist()] == [
        tried[0],  # the start itself
        tried[-1],  # the last hop reaches nowhere
    ]
    assert all(row[2] == 2.0 for row in tried)


def told(sampler: Jackrabbit, scores: dict[int, float]) -> list[Proposal]:
    """Ask for a generation and tell it scores by place; the others are rejected."""
    proposals = sampler.ask()
    sampler.tell([Result(proposal, scores.get(i)) for i, proposal in enumerate(proposals)])
    return proposals


def test_hops_that_led_up_are_tried_once_more_from_the_best() -> None:
    sampler = Jackrabbit(plan_of(FINE, end_k=64, generation=8))
    first = told(sampler, {1: 3.0, 2: 9.0, 3: 5.0, 4: 5.0, 6: 1.0})
    hops = hops_of(first, FINE, None)
    best = first[2].values
    second = told(sampler, {})
    # The best first, of equals the earlier one; 1.0 is the fifth.
    assert hops_of(second[:4], FINE, best) == [hops[2], hops[3], hops[4], hops[1]]
    assert hops_of([second[4]], FINE, best)[0] not in hops  # all new again
    # Once: nothing of the second led up, and the third starts afresh.
    third = told(sampler, {0: 9.0, 5: 8.9})
    again = hops_of(second[:4], FINE, best)
    assert not any(row in again for row in hops_of(third[::2], FINE, best))
    # As high as before is not up.
    fourth = told(sampler, {})
    assert not any(
        row in hops_of(third[::2], FINE, best) for row in hops_of(fourth[::2], FINE, best)
    )


def test_a_generation_of_one_tries_nothing_again_and_keeps_nothing() -> None:
    sampler = Jackrabbit(plan_of(FINE, end_k=40))
    (first,) = told(sampler, {0: 1.0})
    hops = hops_of([first], FINE, None)
    for _ in range(30):
        (proposal,) = told(sampler, {})
        assert hops_of([proposal], FINE, first.values) != hops
        assert not (proposal.values == first.values).any()


def test_a_smaller_last_generation_takes_as_many_of_the_hops_again_as_fit() -> None:
    sampler = Jackrabbit(plan_of(FINE, end_k=10, generation=8))
    first = told(sampler, {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0})
    hops = hops_of(first, FINE, None)
    last = sampler.ask()
    assert len(last) == 2
    assert hops_of(last[:1], FINE, first[3].values) == [hops[3]]
    assert last[1].values.tolist() == first[3].values.tolist()  # m = 0


# --- starts


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("generation", [1, 3, 4, 16])
def test_starts_are_proposed_first_in_their_order(name: str, generation: int) -> None:
    starts = [(i / 10, 10.0 + i, -1.0 + i / 100) for i in range(7)]
    plan = plan_of(FINE, first_k=5, end_k=25, generation=generation, starts=starts)
    tried = values_of(generations_of(SAMPLERS[name](plan), plan, hilly))
    assert tried[:7] == [list(start) for start in starts]
    assert tried[7] not in tried[:7]
    assert len(tried) == 20


def test_more_starts_than_iterations() -> None:
    plan = plan_of(FINE, end_k=3, generation=2, starts=[(i / 10, 20.0, 0.0) for i in range(9)])
    tried = values_of(generations_of(Jackrabbit(plan), plan, hilly))
    assert [row[0] for row in tried] == [0.0, 0.1, 0.2]


def test_hops_begin_at_the_first_start_until_something_is_better() -> None:
    starts = [(0.1, 12.0, -0.8), (0.9, 28.0, 0.8)]
    sampler = Jackrabbit(plan_of(FINE, first_k=50, end_k=200, generation=2, starts=starts))
    told(sampler, {})
    proposals = told(sampler, {1: -5.0})
    hops_of(proposals[:1], FINE, np.array(starts[0]))  # asserts that it is one
    # Whatever it earned: the first that met the criteria is the best.
    hops_of(sampler.ask()[1:2], FINE, proposals[1].values)


def test_ties_go_to_the_earlier_candidate() -> None:
    sampler = Jackrabbit(plan_of(FINE, first_k=20, end_k=200, generation=4))
    proposals = told(sampler, {1: 2.0, 2: 2.0, 3: 1.0})
    replayed = hops_of(sampler.ask()[:3], FINE, proposals[1].values)
    hops = hops_of(proposals, FINE, None)
    assert replayed == [hops[1], hops[2], hops[3]]


# --- chance


def run_of(name: str, **changes: Any) -> list[list[float]]:
    plan = plan_of(FINE, end_k=64, **{"generation": 8, **changes})
    return values_of(generations_of(SAMPLERS[name](plan), plan, hilly))


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_plans_and_results_are_equal_proposals(name: str) -> None:
    assert run_of(name, seed=3, stream=2) == run_of(name, seed=3, stream=2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_seed_or_stream_is_other_chance(name: str) -> None:
    runs = [run_of(name, seed=seed, stream=stream) for seed in range(4) for stream in range(4)]
    rows = [tuple(row) for run in runs for row in run]
    assert len(set(rows)) > 0.98 * len(rows)  # the last hops may all lead to the best one


@pytest.mark.parametrize("name", SAMPLERS)
def test_generations_are_no_repetition_of_each_other(name: str) -> None:
    plan = plan_of(FINE, end_k=64, generation=8)
    tried = values_of(generations_of(SAMPLERS[name](plan), plan, rejected))
    assert len({tuple(row) for row in tried}) == 64


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("generation", [1, 8])
def test_a_copy_goes_on_by_itself(
    name: str, generation: int, copied: Callable[[Sampler], Sampler]
) -> None:
    plan = plan_of(FINE, end_k=64, generation=generation)
    whole = values_of(generations_of(SAMPLERS[name](plan), plan, hilly))
    sampler = SAMPLERS[name](plan)
    for _ in range(3):
        proposals = sampler.ask()
        sampler.tell([Result(p, hilly(plan.space.as_dict(p.values))) for p in proposals])
    ahead = copied(sampler)
    # A copy that is told other things must not be felt in the one it came from.
    generations_of(ahead, plan, lambda values: values["a"])
    rest = values_of(generations_of(sampler, plan, hilly))
    assert rest == whole[3 * generation :]


def test_a_copy_between_asking_and_telling() -> None:
    plan = plan_of(FINE, end_k=64, generation=8)
    sampler = Jackrabbit(plan)
    proposals = sampler.ask()
    ahead = copy.copy(sampler)
    ahead.tell([Result(proposal, None) for proposal in proposals])
    ahead.ask()
    results = [Result(p, hilly(plan.space.as_dict(p.values))) for p in proposals]
    sampler.tell(results)
    rest = values_of([results, *generations_of(sampler, plan, hilly)])
    assert rest == run_of("jackrabbit")


# --- plain chance


def test_random_is_uniform_and_learns_nothing() -> None:
    plan = plan_of(FINE, end_k=4000, generation=16)
    tried = np.array(values_of(generations_of(Random(plan), plan, smooth)))
    shares = (tried - plan.space.low) / (plan.space.high - plan.space.low)
    for column in shares.T:
        counts = np.histogram(column, bins=20, range=(0.0, 1.0))[0]
        # χ² of 20 bins: mean 19, deviation 6.2
        assert ((counts - 200) ** 2 / 200).sum() < 19 + 4 * 6.2
    assert np.abs(np.corrcoef(shares.T) - np.eye(3)).max() < 0.06
    untold = values_of(generations_of(Random(plan), plan, rejected))
    assert untold == tried.tolist()


def test_random_values_are_on_their_steps_and_reach_both_ends() -> None:
    plan = plan_of(COARSE, end_k=600, generation=16)
    tried = np.array(values_of(generations_of(Random(plan), plan, rejected)))
    assert plan.space.settle(tried).tolist() == tried.tolist()
    assert set(tried[:, plan.space.names.index("n")]) == {float(n) for n in range(1, 31)}
    assert set(tried[:, plan.space.names.index("switch")]) == {1.0}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("generation", [1, 5])
def test_everything_fixed_is_one_point_again_and_again(name: str, generation: int) -> None:
    ranges: Ranges = {"a": (3.0, 3.0, 1.0), "b": (0.25, 0.25, 0.1)}
    plan = plan_of(ranges, end_k=12, generation=generation)
    tried = values_of(generations_of(SAMPLERS[name](plan), plan, lambda values: 1.0))
    assert tried == [[3.0, 0.25]] * 12
