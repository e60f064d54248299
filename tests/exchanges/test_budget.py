"""What the venue counts is never exceeded, whatever is asked for in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.exchanges.budget import Budget, Window

WEIGHT = Window("REQUEST_WEIGHT", 2400, 60_000)
FAST = Window("ORDERS_10S", 300, 10_000)
SLOW = Window("ORDERS_1M", 1200, 60_000)


def make(*windows: Window, **options) -> tuple[Budget, VirtualClock]:
    clock = VirtualClock()
    return Budget(windows or (WEIGHT, FAST, SLOW), clock, **options), clock


def fill(budget: Budget, costs: dict[str, int], *, urgent: bool = False) -> int:
    """Send until it is refused; how many went."""
    n = 0
    while not budget.delay_s(costs, urgent=urgent):
        budget.charge(costs)
        n += 1
    return n


def test_nothing_waits_while_there_is_room():
    budget, _ = make()
    assert budget.delay_s({"REQUEST_WEIGHT": 40}) == 0.0
    assert budget.used("REQUEST_WEIGHT") == 0


def test_the_reserve_is_for_urgent_messages_only():
    budget, _ = make()
    place = {"ORDERS_10S": 1, "ORDERS_1M": 1}
    assert fill(budget, place) == 270
    assert budget.delay_s(place) > 0
    assert fill(budget, place, urgent=True) == 30
    assert budget.delay_s(place, urgent=True) > 0


def test_a_message_larger_than_what_is_open_goes_when_the_window_is_empty():
    budget, clock = make(Window("create", 10, 1000))
    assert budget.delay_s({"create": 10}) == 0.0
    budget.charge({"create": 1})
    assert budget.delay_s({"create": 10}) > 0
    clock.advance(1051)
    assert budget.delay_s({"create": 10}) == 0.0


def test_room_returns_when_the_oldest_charges_are_too_old_and_a_little_later():
    budget, clock = make(Window("create", 10, 1000), reserve=0.0)
    budget.charge({"create": 6})
    clock.advance(500)
    budget.charge({"create": 4})
    # 50 ms more than the window: messages may arrive closer together than they left.
    assert budget.delay_s({"create": 5}) == pytest.approx(0.551)
    assert budget.delay_s({"create": 7}) == pytest.approx(1.051)
    clock.advance(550)
    assert budget.used("create") == 10
    assert budget.delay_s({"create": 1}) == pytest.approx(0.001)
    clock.advance(1)
    assert budget.delay_s({"create": 6}) == 0.0
    assert budget.used("create") == 4


def test_the_tightest_window_decides():
    budget, clock = make(reserve=0.0)
    place = {"ORDERS_10S": 1, "ORDERS_1M": 1}
    for _ in range(4):
        assert fill(budget, place) == 300
        clock.advance(10_251)
    assert budget.used("ORDERS_1M") == 1200
    assert budget.delay_s(place) == pytest.approx((60_251 - 4 * 10_251) / 1000)


def test_a_higher_count_of_the_venue_counts():
    budget, _ = make()
    budget.charge({"REQUEST_WEIGHT": 5})
    budget.observe("REQUEST_WEIGHT", 2000)
    assert budget.used("REQUEST_WEIGHT") == 2000
    budget.observe("REQUEST_WEIGHT", 3)
    assert budget.used("REQUEST_WEIGHT") == 2000
    budget.observe("REQUEST_WEIGHT", 2600)
    assert budget.delay_s({"REQUEST_WEIGHT": 1}, urgent=True) > 59


@pytest.mark.parametrize("used", [-1, 24_001, 10**30])
def test_counts_that_cannot_be_are_ignored(used):
    budget, _ = make()
    budget.observe("REQUEST_WEIGHT", used)
    assert budget.used("REQUEST_WEIGHT") == 0


def test_a_count_of_a_window_that_is_not_kept_is_ignored():
    budget, _ = make()
    budget.observe("X-UNKNOWN", 5)
    assert budget.delay_s({"ORDERS_10S": 300}) == 0.0


def test_limits_change_and_what_was_sent_stays_counted():
    budget, _ = make(reserve=0.0)
    budget.charge({"ORDERS_10S": 100})
    budget.set_limits([Window("ORDERS_10S", 100, 10_000), Window("BATCH", 5, 1000)])
    assert budget.delay_s({"ORDERS_10S": 1}) > 0
    assert budget.delay_s({"BATCH": 5}) == 0.0
    assert budget.delay_s({"REQUEST_WEIGHT": 2400}) == 0.0


def test_a_window_that_lengthens_counts_back_as_far_as_it_knows():
    budget, clock = make(Window("w", 10, 1000), reserve=0.0)
    budget.charge({"w": 10})
    clock.advance(900)
    budget.set_limits([Window("w", 10, 5000)])
    clock.advance(3000)
    assert budget.used("w") == 10


def test_backing_off_silences_what_charges_the_window_and_nothing_else():
    budget, clock = make()
    budget.back_off(3.0, "ORDERS_10S")
    assert budget.delay_s({"ORDERS_10S": 1}, urgent=True) == pytest.approx(3.0, abs=0.002)
    assert budget.delay_s({"REQUEST_WEIGHT": 1}) == 0.0
    clock.advance(3002)
    assert budget.delay_s({"ORDERS_10S": 1}) == 0.0


def test_backing_off_altogether_is_not_shortened_by_a_shorter_one():
    budget, _ = make()
    budget.back_off(30.0)
    budget.back_off(1.0)
    for costs in ({}, {"REQUEST_WEIGHT": 1}):
        assert budget.delay_s(costs, urgent=True) >= 30.0


def test_an_overloaded_venue_still_takes_urgent_messages():
    budget, _ = make()
    budget.back_off(5.0, spare_urgent=True)
    budget.back_off(9.0, "ORDERS_10S", spare_urgent=True)
    assert budget.delay_s({"ORDERS_10S": 1}, urgent=True) == 0.0
    assert budget.delay_s({"ORDERS_10S": 1}) >= 9.0
    assert budget.delay_s({}) >= 5.0


def test_a_ban_lets_nothing_through_and_then_opens_slowly():
    budget, clock = make(reserve=0.0)
    budget.ban(120.0)
    for costs in ({}, {"REQUEST_WEIGHT": 1}):
        assert budget.delay_s(costs, urgent=True) >= 120.0
    clock.advance(119_999)
    assert budget.delay_s({}, urgent=True) > 0
    assert budget.banned_s > 0
    clock.advance(3)
    assert budget.banned_s == 0
    assert fill(budget, {"REQUEST_WEIGHT": 1}) == pytest.approx(240, abs=2)
    delay_s = budget.delay_s({"REQUEST_WEIGHT": 1}, urgent=True)
    assert 0 < delay_s <= 3.1  # asks to be asked again soon
    clock.advance(30_000)
    assert budget.used("REQUEST_WEIGHT") < 245
    assert fill(budget, {"REQUEST_WEIGHT": 1}) == pytest.approx(1080, abs=5)
    clock.advance(31_000)
    assert budget.delay_s({"REQUEST_WEIGHT": 1000}) == 0.0


def test_setting_the_wall_clock_ends_nothing():
    budget, clock = make()
    budget.ban(60.0)
    budget.charge({"ORDERS_10S": 300})
    clock.step_wall(3_600_000)
    assert budget.banned_s >= 60.0
    assert budget.used("ORDERS_10S") == 300


def test_mistakes_are_named():
    budget, _ = make()
    with pytest.raises(ValueError, match="no window is called 'nope'; one of REQUEST_WEIGHT"):
        budget.delay_s({"nope": 1})
    with pytest.raises(ValueError, match="may cost 0 to 300, not 301"):
        budget.delay_s({"ORDERS_10S": 301})
    with pytest.raises(ValueError, match="not -1"):
        budget.delay_s({"ORDERS_10S": -1})
    with pytest.raises(ValueError, match="limit and interval_ms must be at least 1"):
        Window("w", 0, 1000)
    with pytest.raises(ValueError, match="reserve"):
        make(reserve=1.0)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            budget.ban(seconds)
    assert budget.delay_s({}) == 0.0


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 8), st.booleans()),
    st.tuples(st.just("wait"), st.integers(0, 1500), st.booleans()),
    st.tuples(st.just("heed"), st.integers(1, 8), st.booleans()),
    st.tuples(st.just("observe"), st.integers(-2, 120), st.booleans()),
    st.tuples(st.just("back_off"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("ban"), st.integers(0, 3), st.booleans()),
)


@given(
    st.lists(st.tuples(st.integers(8, 20), st.integers(1, 3000)), min_size=1, max_size=3),
    st.lists(ACTIONS, max_size=60),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_no_window_ever_holds_more_than_its_limit(shapes, actions, reserve):
    windows = [Window(f"w{i}", limit, ms) for i, (limit, ms) in enumerate(shapes)]
    clock = VirtualClock()
    budget = Budget(windows, clock, reserve=reserve)
    sent: list[tuple[float, int]] = []
    banned_until_s = 0.0
    for what, n, flag in actions:
        now_s = clock.monotonic_s()
        if what in ("send", "heed"):
            costs = {window.name: n for window in windows}
            turns = 0
            while what == "heed" and (delay_s := budget.delay_s(costs, urgent=flag)):
                clock.advance(delay_s * 1000)
                turns += 1
                assert turns < 400  # it comes to an end
            if not budget.delay_s(costs, urgent=flag):
                budget.charge(costs)
                sent.append((clock.monotonic_s(), n))
                assert clock.monotonic_s() >= banned_until_s
        elif what == "wait":
            clock.advance(n)
        elif what == "observe":
            budget.observe("w0", n)
        elif what == "back_off":
            budget.back_off(n, "w0" if flag else "", spare_urgent=n == 1)
        else:
            budget.ban(n)
            banned_until_s = max(banned_until_s, now_s + n)
    for window in windows:
        for end_s, _ in sent:
            start_s = end_s - window.interval_ms / 1000
            assert sum(n for at_s, n in sent if start_s < at_s <= end_s) <= window.limit
