"""Walk-forward: what is read, which rows a window has, and what was left out of sample."""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.errors import ConfigError
from passivx.optimizer.walk_forward import WalkForward, Window, efficiency, read_walk_forward

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T0 = 1_700_000_000_000


def times(*moments: int) -> npt.NDArray[np.int64]:
    return np.array(moments, np.int64)


def walk(in_sample: int, out_of_sample: int, step: int) -> WalkForward:
    return WalkForward("x/y/z", in_sample, out_of_sample, step)


# --- reading


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("30/10/10", (30 * DAY, 10 * DAY, 10 * DAY)),
        ("30d/10d/5d", (30 * DAY, 10 * DAY, 5 * DAY)),
        ("12h/4h/4h", (12 * HOUR, 4 * HOUR, 4 * HOUR)),
        ("45m/15m/1", (45 * MINUTE, 15 * MINUTE, DAY)),
        ("1.5/.5h/0.25", (DAY + DAY // 2, HOUR // 2, DAY // 4)),
        (" 2 / 1 h/1m ", (2 * DAY, HOUR, MINUTE)),
    ],
)
def test_lengths_are_days_or_have_a_unit(text: str, lengths: tuple[int, int, int]) -> None:
    assert read_walk_forward(text) == (WalkForward(text, *lengths), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be IS/OOS/STEP"),
        ("30", "must be three lengths > 0"),
        ("30/10", "must be three lengths > 0"),
        ("30/10/10/10", "must be three lengths > 0"),
        ("30/10/0", "must be three lengths > 0"),
        ("0/10/10", "must be three lengths > 0"),
        ("30/0h/10", "must be three lengths > 0"),
        ("30/10/0.000000001", "must be three lengths > 0"),  # not even a millisecond
        ("30/10/-1", "must be IS/OOS/STEP"),
        ("30/10/", "must be IS/OOS/STEP"),
        ("30/10/w", "must be IS/OOS/STEP"),
        ("30/10/1w", "must be IS/OOS/STEP"),
        ("30/10/1e3", "must be IS/OOS/STEP"),
        ("30/10/1D", "must be IS/OOS/STEP"),
        ("30/10/nan", "must be IS/OOS/STEP"),
        ("30/10/1 0", "must be IS/OOS/STEP"),
        ("30,10,10", "must be IS/OOS/STEP"),
        ("३०/१०/१०", "must be IS/OOS/STEP"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    read, (problem,) = read_walk_forward(text)
    assert read is None
    assert (problem.field, problem.value) == ("walk_forward", text)
    assert message in problem.message
    assert problem.remedy == "such as 30/10/10 (days) or 12h/4h/4h"


@given(st.text("0123456789.dhm/ -", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    read, problems = read_walk_forward(text)
    assert (read is None) == bool(problems)
    if read is not None:
        assert min(read.in_sample_ms, read.out_of_sample_ms, read.step_ms) >= 1


# --- windows


def test_windows_by_hand() -> None:
    # A tick every second from 0 to 10 s; windows of 4 s + 2 s, a new one every 3 s.
    ticks = times(*range(0, 10_001, 1000))
    assert walk(4000, 2000, 3000).windows(ticks) == [
        Window(1, 0, 4, 6),
        Window(2, 3, 7, 9),
        # 6000 + 6000 is beyond 10,000
    ]
    # One every second: the last begins at 4 s; it ends with, and without, the tick at 10 s.
    windows = walk(4000, 2000, 1000).windows(ticks)
    assert windows == [Window(i + 1, i, i + 4, i + 6) for i in range(5)]
    # A millisecond more than the ticks have: [4000, 10001) is the last one.
    assert walk(4000, 2001, 1000).windows(ticks)[-1] == Window(5, 4, 8, 11)
    assert walk(8000, 2001, 1000).windows(ticks) == [Window(1, 0, 8, 11)]


def test_windows_begin_at_the_first_tick_whenever_that_is() -> None:
    ticks = T0 + times(*range(0, 10_001, 1000))
    assert walk(4000, 2000, 3000).windows(ticks) == [Window(1, 0, 4, 6), Window(2, 3, 7, 9)]


def test_a_tick_at_a_boundary_belongs_to_what_follows() -> None:
    ticks = times(0, 1, 1999, 2000, 2000, 2001, 2999, 3000, 3000, 9000)
    (window, *_) = walk(2000, 1000, 10_000).windows(ticks)
    assert window == Window(1, 0, 3, 7)
    assert ticks[window.first : window.middle].tolist() == [0, 1, 1999]
    assert ticks[window.middle : window.end].tolist() == [2000, 2000, 2001, 2999]


def test_windows_without_two_ticks_on_either_side_are_left_out() -> None:
    # [0, 10) holds three ticks, [10, 20) one, [20, 30) none, [30, 40) and [40, 50) two.
    ticks = times(0, 4, 9, 15, 30, 39, 40, 49)
    assert walk(10, 10, 10).windows(ticks) == [Window(1, 4, 6, 8)]  # counted among those there are
    # [0, 10) | [10, 20) has one tick out of sample, [10, 20) | [20, 30) one in sample.
    with pytest.raises(ConfigError):
        walk(10, 10, 10).windows(ticks[:5])


@pytest.mark.parametrize(
    ("ticks", "lengths", "covered"),
    [
        (times(T0, T0 + DAY), (DAY, DAY, DAY), "1 days"),
        (times(T0, T0 + 1, T0 + 2), (2, 2, 1), "2.31481e-08 days"),
        (times(T0), (1, 1, 1), "0 days"),
        (times(T0, T0, T0, T0), (1, 1, 1), "0 days"),
    ],
)
def test_ticks_that_hold_no_window_are_refused(
    ticks: npt.NDArray[np.int64], lengths: tuple[int, int, int], covered: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        walk(*lengths).windows(ticks)
    (problem,) = caught.value.problems
    assert str(problem) == (
        f"walk_forward: must fit into the ticks, which cover {covered}, was 'x/y/z'; shorten it"
    )


def windows_twin(
    ticks: list[int], in_sample: int, out_of_sample: int, step: int
) -> list[tuple[int, int, int]]:
    """The rows of every window, looked for one by one."""
    out = []
    begin = ticks[0]
    # Whole: its last millisecond is not after the last tick.
    while begin + in_sample + out_of_sample - 1 <= ticks[-1]:
        rows = [
            bisect.bisect_left(ticks, moment)
            for moment in (begin, begin + in_sample, begin + in_sample + out_of_sample)
        ]
        inside = [t for t in ticks if begin <= t < begin + in_sample]
        outside = [t for t in ticks if begin + in_sample <= t < begin + in_sample + out_of_sample]
        assert inside == ticks[rows[0] : rows[1]]
        assert outside == ticks[rows[1] : rows[2]]
        if len(inside) >= 2 and len(outside) >= 2:
            out.append((rows[0], rows[1], rows[2]))
        begin += step
    return out


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_windows_are_those_looked_for_one_by_one(
    moments: list[int], in_sample: int, out_of_sample: int, step: int
) -> None:
    ticks = sorted(moments)
    wanted = windows_twin(ticks, in_sample, out_of_sample, step)
    forward = walk(in_sample, out_of_sample, step)
    if not wanted:
        with pytest.raises(ConfigError):
            forward.windows(times(*ticks))
        return
    found = forward.windows(times(*ticks))
    assert [(w.first, w.middle, w.end) for w in found] == wanted
    assert [w.number for w in found] == [*range(1, len(wanted) + 1)]


# --- efficiency


def adg(*daily: float) -> list[dict[str, Any]]:
    return [{"average_daily_gain": each, "gain": 7.0} for each in daily]


def test_efficiency_by_hand() -> None:
    assert efficiency(adg(1.1), adg(1.1)) == 1.0
    assert efficiency(adg(1.21), adg(1.1)) == pytest.approx(0.5)
    assert efficiency(adg(1.1), adg(1.0)) == 0.0
    assert efficiency(adg(1.1), adg(1 / 1.1)) == pytest.approx(-1.0)
    # ln 2 + ln 2 = 2 ln 2; ln 4 + ln ½ = ln 2.
    assert efficiency(adg(2.0, 2.0), adg(4.0, 0.5)) == pytest.approx(0.5)
    # One that lost in sample is made up for by the other: ln ½ + ln 8 = 2 ln 2.
    assert efficiency(adg(0.5, 8.0), adg(2.0, 1.0)) == pytest.approx(0.5)


def test_no_efficiency_where_nothing_grew() -> None:
    assert efficiency([], []) is None
    assert efficiency(adg(1.0), adg(1.1)) is None
    assert efficiency(adg(0.9), adg(1.1)) is None
    assert efficiency(adg(2.0, 0.5), adg(1.1, 1.1)) is None


def test_no_efficiency_where_somebody_lost_everything_or_grew_without_bound() -> None:
    assert efficiency(adg(2.0, 0.0), adg(1.1, 1.1)) is None
    assert efficiency(adg(2.0, -1.0), adg(1.1, 1.1)) is None
    assert efficiency(adg(math.inf), adg(1.1)) is None


def test_a_window_that_lost_everything_leaves_no_growth_to_compare() -> None:
    assert efficiency(adg(1.1), adg(0.0)) is None


def test_too_many_windows_are_refused() -> None:
    walk, problems = read_walk_forward("1h/1h/0.00001d")
    assert walk is not None
    assert problems == []
    with pytest.raises(ConfigError, match="at most 10,000 windows"):
        walk.windows(np.arange(0, 86_400_000, 10_000, dtype=np.int64))
