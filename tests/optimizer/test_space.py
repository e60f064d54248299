"""Points of a search space: on their steps, in their ranges, in order, and known by their keys."""

from __future__ import annotations

import hashlib
import itertools
import json
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from passivx.optimizer.space import Range, Space

Values = npt.NDArray[np.float64]

STEPS = ("1e-8", "1e-5", "0.00025", "0.001", "0.01", "0.05", "0.1", "0.3", "1", "2.5", "5", "1000")


def space_of(*, ordered: bool = False, **ranges: tuple[float, float, float]) -> Space:
    return Space({name: Range(*each) for name, each in ranges.items()}, ordered=ordered)


def multiple(step: str, k: int) -> float:
    """The double that the decimal k × step reads as."""
    return float(Decimal(step) * k)


steps_and_ends = st.tuples(
    st.sampled_from(STEPS), st.integers(-(10**9), 10**9), st.integers(0, 10**9)
)


# --- steps and ranges


@pytest.mark.parametrize("step", STEPS)
def test_a_value_on_its_step_is_the_double_of_its_decimal(step: str) -> None:
    ks = [*range(2000), *(10**9 - k for k in range(100)), *(-k for k in range(100))]
    wanted = np.array([multiple(step, k) for k in ks])
    space = space_of(x=(-1e13, 1e13, float(step)))
    off = np.random.default_rng(1).uniform(-0.49, 0.49, len(ks)) * float(step)
    for values in (wanted, wanted + off):
        assert space.settle(values[:, None])[:, 0].tolist() == wanted.tolist()


@given(steps_and_ends, st.floats(-0.2, 1.2))
def test_settled_values_are_on_their_step_and_in_their_range(
    drawn: tuple[str, int, int], share: float
) -> None:
    step, k, n = drawn
    low, high = multiple(step, k), multiple(step, k + n)
    space = space_of(x=(low, high, float(step)))
    value = low + share * (high - low)
    (settled,) = space.settle(np.array([value])).tolist()
    assert low <= settled <= high
    steps = round(Decimal(settled) / Decimal(step))
    assert settled == multiple(step, steps)
    if low <= value <= high:
        # Nearest, but for what the share of a huge range costs in digits.
        assert abs(settled - value) <= float(step) / 2 + 1e-12 * abs(value)
    # Once more changes nothing.
    assert space.settle(np.array([settled])).tolist() == [settled]
    assert space.clamp(np.array([settled])).tolist() == [settled]


@given(
    st.sampled_from(STEPS),
    st.floats(-1e6, 1e6),
    st.floats(0.0, 1e6),
    st.floats(-2e6, 2e6),
)
@example("0.001", 0.0, 0.0304, 0.0304)  # ends off the step are values too: nobody leaves the range
@example("0.001", 0.0306, 0.0094, 0.0306)
def test_ranges_hold_when_their_ends_are_off_the_step(
    step: str, low: float, width: float, value: float
) -> None:
    space = space_of(x=(low, low + width, float(step)))
    for moved in (space.settle(np.array([value])), space.clamp(np.array([value]))):
        assert low <= moved[0] <= low + width
        assert space.clamp(moved).tolist() == moved.tolist()


def test_halves_go_to_the_even_step_and_there_is_no_negative_zero() -> None:
    space = space_of(x=(-10.0, 10.0, 1.0))
    halves = np.array([[0.5], [1.5], [2.5], [-0.5], [-0.2], [9.5]])
    settled = space.settle(halves)[:, 0]
    assert settled.tolist() == [0.0, 2.0, 2.0, 0.0, 0.0, 10.0]
    assert not np.signbit(settled).any()  # it would have another key than 0.0


def test_settling_and_clamping_leave_their_argument_alone() -> None:
    space = space_of(ordered=True, max_markup=(0.0, 1.0, 0.1), min_markup=(0.0, 1.0, 0.1))
    values = np.array([0.33, 7.0])
    space.settle(values)
    space.clamp(values)
    assert values.tolist() == [0.33, 7.0]


def test_many_points_are_settled_as_each_by_itself() -> None:
    space = space_of(
        ordered=True,
        a=(1.0, 9.0, 0.3),
        max_markup=(0.001, 0.01, 1e-4),
        min_markup=(0.0005, 0.02, 1e-5),
    )
    rng = np.random.default_rng(2)
    values = rng.uniform([0.0, 0.0, 0.0], [10.0, 0.012, 0.022], (4, 50, 3))
    for move in (space.settle, space.clamp):
        together = move(values)
        assert together.shape == values.shape
        one_by_one = [[move(point).tolist() for point in plane] for plane in values]
        assert together.tolist() == one_by_one


def test_names_are_sorted_whatever_the_order_given() -> None:
    ranges = {"b": Range(0.0, 1.0, 0.1), "a": Range(5.0, 5.0, 1.0), "c": Range(1.0, 2.0, 1.0)}
    space = Space(ranges, ordered=True)
    assert space.names == ("a", "b", "c")
    assert (space.low.tolist(), space.high.tolist()) == ([5.0, 0.0, 1.0], [5.0, 1.0, 2.0])
    assert space.free.tolist() == [False, True, True]
    assert space.as_dict(np.array([5.0, 0.1, 2.0])) == {"a": 5.0, "b": 0.1, "c": 2.0}
    assert all(type(value) is float for value in space.as_dict(space.low).values())


# --- the two markups


def test_markups_out_of_order_become_one_price() -> None:
    some = [(low, high) for low in range(5) for high in range(low, 5)]
    n_one_price = 0
    for least, most in itertools.product(some, some):
        if least[0] > most[1]:
            continue  # no pair of values is in order: settings refuse such ranges
        space = space_of(ordered=True, min_markup=(*least, 1.0), max_markup=(*most, 1.0))
        for x, y in itertools.product(range(least[0], least[1] + 1), range(most[0], most[1] + 1)):
            most_markup, least_markup = space.settle(np.array([float(y), float(x)])).tolist()
            if x <= y:
                assert (least_markup, most_markup) == (x, y)
            else:
                n_one_price += 1
                assert least_markup == most_markup == min(x, most[1])
                assert least[0] <= least_markup <= least[1]
                assert most[0] <= most_markup <= most[1]
    assert n_one_price > 300


@given(st.lists(st.floats(-1.0, 2.0), min_size=2, max_size=2))
def test_markups_are_in_order_and_settle_for_good(pair: list[float]) -> None:
    space = space_of(
        ordered=True, min_markup=(0.1, 0.9, 0.01), max_markup=(0.05, 0.6, 0.01)
    )  # each sticks out on one side
    for move in (space.settle, space.clamp):
        moved = move(np.array(pair))
        assert moved[1] <= moved[0]
        assert (space.low <= moved).all()
        assert (moved <= space.high).all()
        assert move(moved).tolist() == moved.tolist()


def test_markups_are_ordered_only_when_asked_and_when_both_are_searched() -> None:
    ranges = {"min_markup": (0.0, 1.0, 0.1), "max_markup": (0.0, 1.0, 0.1)}
    assert space_of(**ranges).settle(np.array([0.2, 0.5])).tolist() == [0.2, 0.5]
    assert space_of(ordered=True, **ranges).settle(np.array([0.2, 0.5])).tolist() == [0.5, 0.5]
    for name in ranges:
        alone = space_of(ordered=True, a=(0.0, 1.0, 0.1), **{name: ranges[name]})
        assert alone.settle(np.array([0.2, 0.5])).tolist() == [0.2, 0.5]


# --- keys


def as_json(values: dict[str, float]) -> str:
    """Names sorted, numbers as Python reads and writes them."""
    return "{" + ", ".join(f"{json.dumps(n)}: {values[n]!r}" for n in sorted(values)) + "}"


names = st.text("abcxyz_", min_size=1, max_size=8)
numbers = st.one_of(
    st.just(0.0), st.floats(1e-5, 1e15), st.builds(multiple, st.just("1e-5"), st.integers(0, 10**9))
)


@given(st.dictionaries(names, numbers, min_size=1, max_size=6))
@example({"a": 1e-5, "b": 3.0, "c": 0.1, "d": 1e9})
def test_a_key_is_the_sha256_of_the_values_as_json(values: dict[str, float]) -> None:
    backwards = sorted(values, reverse=True)
    space = Space({name: Range(0.0, 1e16, 1.0) for name in backwards}, ordered=False)
    point = np.array([values[name] for name in sorted(values)])
    key = space.key(point)
    assert key == hashlib.sha256(as_json(values).encode()).hexdigest()
    again = Space({name: Range(0.0, 1e16, 1.0) for name in sorted(values)}, ordered=False)
    assert again.key(point.copy()) == key


def test_keys_of_different_points_differ() -> None:
    space = space_of(a=(0.0, 1.0, 0.01), b=(0.0, 1.0, 0.01))
    points = [np.array(pair) for pair in itertools.product([0.0, 0.01, 0.1, 1.0], repeat=2)]
    assert len({space.key(point) for point in points}) == 16


# --- neighbours


def neighbours(space: Space, *values: float) -> list[tuple[str, list[float]]]:
    return [(name, point.tolist()) for name, point in space.neighbours(np.array(values))]


def test_neighbours_are_a_fiftieth_of_the_range_away_at_least_a_step() -> None:
    # 0.02 × 100 = 2; 0.02 × 1 = 0.02 is less than a step of 0.1; the third is fixed.
    space = space_of(a=(0.0, 100.0, 0.5), b=(0.0, 1.0, 0.1), c=(3.0, 3.0, 1.0))
    assert neighbours(space, 50.0, 0.5, 3.0) == [
        ("a", [48.0, 0.5, 3.0]),
        ("a", [52.0, 0.5, 3.0]),
        ("b", [50.0, 0.4, 3.0]),
        ("b", [50.0, 0.6, 3.0]),
    ]


def test_neighbours_stay_within_the_ranges() -> None:
    space = space_of(a=(0.0, 100.0, 0.5), b=(0.0, 1.0, 0.1))
    assert neighbours(space, 0.0, 1.0) == [("a", [2.0, 1.0]), ("b", [0.0, 0.9])]
    assert neighbours(space, 99.0, 0.0) == [
        ("a", [97.0, 0.0]),
        ("a", [100.0, 0.0]),  # nearer, at the end
        ("b", [99.0, 0.1]),
    ]


def test_neighbours_of_markups_stay_in_order() -> None:
    space = space_of(ordered=True, min_markup=(0.0, 0.5, 0.01), max_markup=(0.0, 0.5, 0.01))
    # max_markup down comes out as before, which is no neighbour; min_markup up takes it along.
    assert neighbours(space, 0.2, 0.2) == [
        ("max_markup", [0.21, 0.2]),
        ("min_markup", [0.2, 0.19]),
        ("min_markup", [0.21, 0.21]),
    ]


@given(
    st.lists(steps_and_ends, min_size=1, max_size=4),
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4),
)
def test_a_neighbour_differs_in_its_parameter_only(
    drawn: list[tuple[str, int, int]], shares: list[float]
) -> None:
    ranges = {
        f"p{i}": (multiple(step, k), multiple(step, k + n), float(step))
        for i, (step, k, n) in enumerate(drawn)
    }
    space = space_of(**ranges)
    best = space.settle(space.low + np.array(shares[: len(drawn)]) * (space.high - space.low))
    before = best.copy()
    seen = set()
    for name, point in space.neighbours(best):
        column = space.names.index(name)
        low, high, step = ranges[name]
        moved = abs(point[column] - best[column])
        reach = max(0.02 * (high - low), step)
        # Rounding takes half a step at most, the range's end any share of it.
        assert moved > 0.0
        assert moved <= (reach + step / 2) * (1 + 1e-9) + 1e-12 * abs(high)
        at_an_end = point[column] in (low, high)
        assert at_an_end or moved >= (reach - step / 2) * (1 - 1e-9) - 1e-12 * abs(high)
        point[column] = best[column]
        assert point.tolist() == best.tolist()
        seen.add(name)
    assert best.tolist() == before.tolist()
    # Whatever can move has a neighbour.
    assert seen == {name for name, (low, high, _) in ranges.items() if low < high}
