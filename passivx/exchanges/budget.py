"""How much may be sent, and when: the venue's rate limits, counted on this side before it counts.

A venue counts in windows: so much weight, or so many orders, in so much time. Some start on
wall-clock multiples and some roll; what keeps to a rolling window keeps to both, so every window
here rolls. REST and the order socket share the counters of an account, and one `Budget`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from passivx.clock import Clock

__all__ = ["Budget", "Window"]

# Two messages may arrive closer together than they left: a charge counts this part of the window
# longer, at most so long.
_SLACK: Final = 1 / 20
_MOST_SLACK_MS: Final = 250
# A count beyond this multiple of the limit is not one.
_ABSURD: Final = 10
# What of the limits is open when a ban ends; it grows to all of them over the ramp.
_RAMP_FROM: Final = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """At most ``limit`` of something in any ``interval_ms``; both at least 1."""

    name: str
    limit: int
    interval_ms: int

    def __post_init__(self) -> None:
        if self.limit < 1 or self.interval_ms < 1:
            raise ValueError(
                f"window {self.name}: limit and interval_ms must be at least 1, were "
                f"{self.limit!r} and {self.interval_ms!r}"
            )


@dataclass(slots=True)
class _Shut:
    """Until when nothing may go, and until when only urgent messages may."""

    all_ms: int = 0
    plain_ms: int = 0

    def until_ms(self, urgent: bool) -> int:
        return self.all_ms if urgent else max(self.all_ms, self.plain_ms)


@dataclass(slots=True)
class _Ledger:
    """The charges of one window, oldest first, and until when nothing may be added."""

    window: Window
    open_limit: int  # for what is not urgent
    counted_ms: int = field(init=False)  # how long a charge counts
    charges: deque[tuple[int, int]] = field(default_factory=deque)  # when, how much
    used: int = 0
    shut: _Shut = field(default_factory=_Shut)

    def __post_init__(self) -> None:
        interval_ms = self.window.interval_ms
        # Times are cut to whole ms, hence one more.
        self.counted_ms = interval_ms + min(math.ceil(interval_ms * _SLACK), _MOST_SLACK_MS) + 1

    def forget(self, now_ms: int) -> None:
        while self.charges and self.charges[0][0] <= now_ms - self.counted_ms:
            self.used -= self.charges.popleft()[1]

    def add(self, now_ms: int, cost: int) -> None:
        self.charges.append((now_ms, cost))
        self.used += cost

    def room_ms(self, now_ms: int, cost: int, most: int) -> int:
        """Return how long until ``cost`` more is within ``most``, or the window is empty."""
        left = self.used
        at_ms = now_ms
        for when_ms, amount in self.charges:
            if left + cost <= most:
                break
            left -= amount
            at_ms = when_ms + self.counted_ms
        return at_ms - now_ms


class Budget:
    """The limits of one account at one venue, and what was used of them.

    ``costs`` are what a message takes, by window name; a name that no window has is a mistake
    (ValueError). A part of every window, ``reserve``, is kept for urgent messages: cancels and
    reduce-only orders. A message that needs more than what is left without it goes when the window
    is empty. Nothing here waits: ask `delay_s`, and `charge` at the moment of sending.
    """

    def __init__(
        self,
        windows: Iterable[Window],
        clock: Clock,
        *,
        reserve: float = 0.1,
        ramp_s: float = 60.0,
    ) -> None:
        if not 0.0 <= reserve < 1.0:
            raise ValueError(f"reserve must be in [0, 1), was {reserve!r}")
        self._clock = clock
        self._reserve = reserve
        self._ramp_ms = max(1, round(ramp_s * 1000))
        self._shut = _Shut()
        self._banned_ms: int | None = None
        self._ledgers: dict[str, _Ledger] = {}
        self.set_limits(windows)

    def set_limits(self, windows: Iterable[Window]) -> None:
        """Take the venue's own limits; windows not named stay as they are, charges are kept."""
        for window in windows:
            ledger = _Ledger(window, window.limit - int(window.limit * self._reserve))
            if known := self._ledgers.get(window.name):
                ledger.charges, ledger.used, ledger.shut = known.charges, known.used, known.shut
            self._ledgers[window.name] = ledger

    def used(self, name: str) -> int:
        """Return what is counted in a window now."""
        ledger = self._ledger(name)
        ledger.forget(self._now_ms())
        return ledger.used

    def delay_s(self, costs: Mapping[str, int], *, urgent: bool = False) -> float:
        """Return 0 if a message may go now, else after how many seconds to ask again.

        Raises
        ------
        ValueError
            If a cost is negative, or above the window's whole limit: it could never go.
        """
        now_ms = self._now_ms()
        delay_ms = max(self._shut.until_ms(urgent), self._banned_ms or 0) - now_ms
        share = self._share()
        for name, cost in costs.items():
            ledger = self._ledger(name)
            limit = ledger.window.limit
            if not 0 <= cost <= limit:
                raise ValueError(f"{name}: a message may cost 0 to {limit}, not {cost}")
            if not cost:
                continue
            ledger.forget(now_ms)
            most = limit if urgent else ledger.open_limit
            fits = ledger.used + cost <= most
            wait_ms = 0 if fits else ledger.room_ms(now_ms, cost, most)
            if share < 1.0:
                ramped_ms = ledger.room_ms(now_ms, cost, int(most * share))
                # The ramp may be there before the oldest charge ends: ask again soon.
                wait_ms = max(wait_ms, min(ramped_ms, self._ramp_ms // 20 + 1))
            delay_ms = max(delay_ms, ledger.shut.until_ms(urgent) - now_ms, wait_ms)
        return max(0, delay_ms) / 1000

    def charge(self, costs: Mapping[str, int]) -> None:
        """Count a message that is being sent."""
        now_ms = self._now_ms()
        for name, cost in costs.items():
            if cost:
                self._ledger(name).add(now_ms, cost)

    def observe(self, name: str, used: int) -> None:
        """Take the venue's own count, from a reply: a higher one than ours counts.

        A lower one is a window of its own that began later. Negative and absurd counts are ignored
        (Binance sends −1 on order calls), and windows that are not kept.
        """
        ledger = self._ledgers.get(name)
        if ledger is None or used > _ABSURD * ledger.window.limit:
            return
        now_ms = self._now_ms()
        ledger.forget(now_ms)
        if used > ledger.used:
            ledger.add(now_ms, used - ledger.used)

    def back_off(self, seconds: float, window: str = "", *, spare_urgent: bool = False) -> None:
        """Let nothing that charges ``window`` go for so long; "" means nothing at all.

        Urgent messages too: a venue that is asked on after its 429 bans the address. It is only
        where a venue says that it is overloaded that they may pass, with ``spare_urgent``.
        """
        until_ms = self._now_ms() + self._whole_ms(seconds)
        shut = self._ledger(window).shut if window else self._shut
        if spare_urgent:
            shut.plain_ms = max(shut.plain_ms, until_ms)
        else:
            shut.all_ms = max(shut.all_ms, until_ms)

    def ban(self, seconds: float) -> None:
        """Let nothing go for so long, whatever it is; the limits then open slowly."""
        until_ms = self._now_ms() + self._whole_ms(seconds)
        self._banned_ms = max(self._banned_ms or 0, until_ms)

    @property
    def banned_s(self) -> float:
        """For how long the venue lets nothing through, 0 when there is no ban."""
        return max(0, (self._banned_ms or 0) - self._now_ms()) / 1000

    def _share(self) -> float:
        if self._banned_ms is None:
            return 1.0
        since_ms = max(0, self._now_ms() - self._banned_ms)
        return min(1.0, _RAMP_FROM + (1.0 - _RAMP_FROM) * since_ms / self._ramp_ms)

    def _ledger(self, name: str) -> _Ledger:
        try:
            return self._ledgers[name]
        except KeyError:
            known = ", ".join(self._ledgers)
            raise ValueError(f"no window is called {name!r}; one of {known}") from None

    def _now_ms(self) -> int:
        # The wall clock may be set; a window must not end early for it.
        return int(self._clock.monotonic_s() * 1000)

    @staticmethod
    def _whole_ms(seconds: float) -> int:
        if not 0.0 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and not negative, was {seconds!r}")
        return math.ceil(seconds * 1000) + 1
