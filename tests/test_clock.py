"""The clocks: order, instants, timeouts."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock, WallClock, timeout


def test_the_wall_clock_is_the_machines():
    async def main():
        clock = WallClock()
        before_ms, before_s = time.time_ns() // 1_000_000, time.monotonic()
        await clock.sleep(0.001)
        called = asyncio.Event()
        clock.call_later(0.001, called.set)
        clock.call_later(0.0, pytest.fail).cancel()
        await called.wait()
        assert before_s + 0.002 <= clock.monotonic_s() <= time.monotonic()
        assert before_ms <= clock.time_ms() <= time.time_ns() // 1_000_000

    asyncio.run(main())


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20), st.integers(0, 60))
def test_calls_are_made_in_order_each_at_its_time(timers, ms):
    clock = VirtualClock(1000)
    calls = []
    for number, (delay_ms, kept) in enumerate(timers):
        timer = clock.call_later(
            delay_ms / 1000, lambda n=number: calls.append((clock.monotonic_s(), n))
        )
        if not kept:
            timer.cancel()
    clock.advance(ms)
    assert calls == sorted(
        (delay_ms / 1000, n) for n, (delay_ms, kept) in enumerate(timers) if kept and delay_ms <= ms
    )
    assert clock.time_ms() == 1000 + ms
    left = [delay_ms - ms for delay_ms, kept in timers if kept and delay_ms > ms]
    assert clock.next_due_s() == (pytest.approx(min(left) / 1000) if left else None)


def test_a_call_may_ask_for_more_calls_within_the_same_move():
    clock = VirtualClock()
    calls = []

    def tick():
        calls.append(clock.monotonic_s())
        clock.call_later(1.0, tick)

    clock.call_later(1.0, tick)
    clock.advance(3500)
    assert calls == [1.0, 2.0, 3.0]


def test_sleepers_that_sleep_again_wake_at_their_times_in_a_run():
    async def main():
        clock, woken = VirtualClock(), []

        async def sleeper(name: str, seconds: float) -> None:
            while True:
                await clock.sleep(seconds)
                woken.append((clock.monotonic_s(), name))

        tasks = [asyncio.create_task(sleeper(*each)) for each in (("a", 2.0), ("b", 1.0))]
        await clock.run(4000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return woken, clock.next_due_s()

    woken, left = asyncio.run(main())
    assert woken == [(1.0, "b"), (2.0, "a"), (2.0, "b"), (3.0, "b"), (4.0, "a"), (4.0, "b")]
    assert left is None, "a cancelled sleeper leaves no timer behind"


def test_a_sleeper_that_is_cancelled_and_due_at_once_is_cancelled():
    async def main():
        clock = VirtualClock()
        task = asyncio.create_task(clock.sleep(1.0))
        await clock.sleep(0.0)
        task.cancel()
        clock.advance(1000)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_the_wall_time_jumps_and_intervals_do_not():
    clock = VirtualClock(1_000_000)
    clock.advance(500)
    clock.step_wall(-3_600_000)
    assert (clock.time_ms(), clock.monotonic_s()) == (1_000_500 - 3_600_000, 0.5)
    with pytest.raises(ValueError, match="step_wall"):
        clock.advance(-1)


def test_a_timeout_is_of_its_clock():
    async def main():
        clock = VirtualClock()
        async with timeout(clock, 1.0):
            clock.advance(900)
        assert clock.next_due_s() is None

        async def late() -> None:
            async with timeout(clock, 1.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(late())
        await clock.run(999)
        assert not task.done()
        await clock.run(1)
        with pytest.raises(TimeoutError):
            await task

        task = asyncio.create_task(late())
        await clock.run(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
