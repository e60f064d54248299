"""The record of failures on real files, read by a new breaker each time, as by a new process."""

from __future__ import annotations

import json
import stat

import pytest

from passivx.clock import VirtualClock
from passivx.errors import PassivxError
from passivx.live.breaker import Breaker


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def start(tmp_path, clock):
    """Return what a new process would see."""

    def start(**options):
        return Breaker(tmp_path / "state" / "breaker.json", clock, **options)

    return start


def fail(start, times, **options):
    for i in range(times):
        start(**options).failed(f"reason {i}")


def test_nothing_on_record_is_closed_and_waits_for_nothing(start):
    breaker = start()
    assert (breaker.open, breaker.why(), breaker.wait_s()) == (False, "", 0.0)
    breaker.ended_well()


def test_waits_double_up_to_a_minute(start):
    waits = []
    for _ in range(9):
        start(most=99).failed("x")
        waits.append(start(most=99).wait_s())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_wait_counts_from_the_last_failure(start, clock):
    fail(start, 4)
    clock.advance(3_000)
    assert start().wait_s() == 5.0
    clock.advance(5_000)
    assert start().wait_s() == 0.0


def test_so_many_failures_open_it_and_say_why(start, tmp_path):
    fail(start, 4)
    assert not start().open
    fail(start, 1)
    breaker = start()
    assert breaker.open
    assert breaker.why() == (
        "5 failures within 600 s, the last: reason 0; nothing is started until the cause is mended "
        f"and this is removed: rm {tmp_path}/state/breaker.json"
    )


def test_failures_that_are_long_ago_do_not_count(start, clock):
    for _ in range(20):
        start().failed("now and then")
        clock.advance(150_001)
    assert not start().open


def test_an_open_one_stays_open_until_it_is_reset(start, clock):
    fail(start, 5)
    for ms in (86_400_000, -3_600_000, 10**12):
        clock.step_wall(ms)
        start().ended_well()
        start().failed("again")
        assert "5 failures" in start().why()
    start().reset()
    assert not start().open
    fail(start, 5)
    start()._path.unlink()
    assert not start().open


def test_a_good_end_forgets(start):
    fail(start, 4)
    start().ended_well()
    assert start().wait_s() == 0.0
    fail(start, 4)
    assert not start().open


def test_a_clock_set_back_keeps_failures_recent_and_waits_bounded(start, clock):
    fail(start, 3)
    clock.step_wall(-3_600_000)
    assert start().wait_s() == 4.0
    fail(start, 2)
    assert start().open


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "damaged"),
        (b'{"schema":1,"open":fal', "damaged"),
        (b"[]", "damaged"),
        (b'{"schema":1}', "damaged"),
        (b'{"schema":1,"open":true,"failures":[]}', "damaged"),
        (b'{"schema":1,"open":false,"failures":[{"ms":"x","reason":""}]}', "damaged"),
        (b'{"schema":2,"open":false,"failures":[]}', "another version"),
        (None, "cannot be read"),
    ],
)
def test_a_record_that_cannot_be_read_counts_as_open_and_is_kept(start, content, told):
    path = start()._path
    if content is None:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(content)
    breaker = start()
    assert breaker.open
    assert told in breaker.why()
    assert f"remove it: rm {path}" in breaker.why()
    breaker.failed("x")
    breaker.ended_well()
    assert start().open
    if content is None:
        with pytest.raises(PassivxError, match="cannot be removed"):
            breaker.reset()
    else:
        assert path.read_bytes() == content
        breaker.reset()
        assert not breaker.open
        assert not start().open


def test_reasons_are_short_and_steer_no_terminal(start):
    fail(start, 4)
    start().failed("\x1b[31mred\r\n\u202edesrever " + "x" * 1000)
    text = start().why()
    assert text.isprintable()
    assert len(text) < 700
    start().failed("")
    assert "no reason was given" in start().why()


def test_the_record_is_private(start):
    fail(start, 1)
    assert stat.S_IMODE(start()._path.stat().st_mode) == 0o600
    assert json.loads(start()._path.read_text())["failures"][0]["reason"] == "reason 0"


def test_a_failure_that_cannot_be_written_counts_all_the_same(start):
    breaker = start(most=1)
    breaker._path.parent.touch()
    with pytest.raises(PassivxError, match="cannot be written"):
        breaker.failed("x")
    assert breaker.open


@pytest.mark.parametrize("options", [{"most": 0}, {"within_s": 0.0}, {"within_s": float("nan")}])
def test_bounds_that_cannot_be_are_refused(start, options):
    with pytest.raises(ValueError, match="must be > 0"):
        start(**options)
