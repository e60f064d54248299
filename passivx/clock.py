"""The only source of time: a clock is handed in, and a virtual one moves when it is told to.

Nothing else in the package asks the system for the time where behaviour depends on it. Wall time is
for what venues stamp and check; every interval is measured on the monotonic one, which no NTP step
or daylight saving touches.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Final, Protocol

__all__ = ["Clock", "Timer", "VirtualClock", "WallClock", "timeout"]

_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
# How often `VirtualClock.run` lets the loop go round at one instant: a woken task, what it wakes in
# turn, and so on.
_TURNS: Final = 10


class Timer(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Take the call back; nothing happens if it was made or taken back already."""
        ...


class Clock(Protocol):
    """What tells the time, and wakes."""

    def time_ms(self) -> int:
        """Return the wall time, ms UTC since 1970; it may jump."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some moment; they never jump and never run back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; 0 or less lets the loop go round once."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` in ``delay_s`` seconds, from the loop."""
        ...


class WallClock:
    """The machine's own time."""

    def time_ms(self) -> int:
        """Return the wall time, ms UTC since 1970."""
        return time.time_ns() // _NS_PER_MS

    def monotonic_s(self) -> float:
        """Return the machine's monotonic time, s."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``."""
        await asyncio.sleep(seconds)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` from the running loop in ``delay_s`` seconds."""
        return asyncio.get_running_loop().call_later(delay_s, callback)


class _VirtualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class VirtualClock:
    """A clock that stands still until `advance` or `run` moves it.

    What is due is called in the order of its time, what is due at one time in the order it was
    asked for: the same calls give the same run. Times are kept in whole ns.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._wall_ns = start_ms * _NS_PER_MS
        self._now_ns = 0
        self._turn = count()
        self._due: list[tuple[int, int, _VirtualTimer]] = []

    def time_ms(self) -> int:
        """Return the wall time, ms UTC since 1970."""
        return (self._wall_ns + self._now_ns) // _NS_PER_MS

    def monotonic_s(self) -> float:
        """Return the seconds this clock was moved by so far."""
        return self._now_ns / _NS_PER_S

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, functools.partial(_wake, woken))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` once the clock was moved by ``delay_s``, from within what moves it."""
        timer = _VirtualTimer(callback)
        due_ns = self._now_ns + max(0, round(delay_s * _NS_PER_S))
        heapq.heappush(self._due, (due_ns, next(self._turn), timer))
        return timer

    def next_due_s(self) -> float | None:
        """Return in how many seconds the next call is due; None when nothing waits."""
        while self._due and self._due[0][2].callback is None:
            heapq.heappop(self._due)
        return (self._due[0][0] - self._now_ns) / _NS_PER_S if self._due else None

    def advance(self, ms: float) -> None:
        """Move the clock by ``ms`` and call what falls due on the way, each at its time.

        Tasks that sleep are woken, but run only when the loop does: by then the clock stands at the
        end. `run` lets them run at their time.
        """
        end_ns = self._end_ns(ms)
        while self._call_next(end_ns):
            pass
        self._now_ns = max(self._now_ns, end_ns)

    async def run(self, ms: float) -> None:
        """Move the clock by ``ms``; woken tasks run, and may sleep again, before it moves on."""
        end_ns = self._end_ns(ms)
        await self._settle()
        while self._call_next(end_ns):
            next_s = self.next_due_s()
            if next_s is None or next_s > 0:
                await self._settle()
        self._now_ns = max(self._now_ns, end_ns)
        await self._settle()

    def step_wall(self, ms: int) -> None:
        """Set the wall time forward or back by ``ms``, as NTP would; intervals stay as they are."""
        self._wall_ns += ms * _NS_PER_MS

    def _end_ns(self, ms: float) -> int:
        if ms < 0:
            raise ValueError(f"ms must be >= 0, was {ms!r}; step_wall sets the wall time back")
        return self._now_ns + round(ms * _NS_PER_MS)

    def _call_next(self, end_ns: int) -> bool:
        """Make the next call that is due by then, at its time; False when there is none."""
        while self._due and self._due[0][0] <= end_ns:
            due_ns, _, timer = heapq.heappop(self._due)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                self._now_ns = max(self._now_ns, due_ns)
                callback()
                return True
        return False

    @staticmethod
    async def _settle() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def timeout(clock: Clock, seconds: float) -> AsyncIterator[None]:
    """Cancel what runs within after ``seconds`` of that clock, and raise `TimeoutError` instead."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        timer = clock.call_later(seconds, lambda: scope.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()
