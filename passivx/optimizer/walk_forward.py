"""Walk-forward: search on one window of time, and see what it was worth on the next."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from passivx.errors import ConfigError, Problem

__all__ = ["WalkForward", "Window", "efficiency", "read_walk_forward"]

_UNIT_MS: Final = {"": 86_400_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000}
_MOST_WINDOWS: Final = 10_000
_EXAMPLE: Final = "such as 30/10/10 (days) or 12h/4h/4h"


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of the ticks: [first, middle) to search on, [middle, end) to see what it is worth.

    Without a walk-forward ``middle`` and ``end`` are the same. ``number`` counts from 1.
    """

    number: int
    first: int
    middle: int
    end: int


@dataclass(frozen=True, slots=True)
class WalkForward:
    """Lengths in milliseconds: of the search, of what follows, and from one window to the next."""

    text: str
    in_sample_ms: int
    out_of_sample_ms: int
    step_ms: int

    def windows(self, ts_ms: npt.NDArray[np.int64]) -> list[Window]:
        """Return the windows that lie whole within the ticks; at least two ticks on either side.

        Raises
        ------
        ConfigError
            When there is none.
        """
        start, end = int(ts_ms[0]), int(ts_ms[-1])
        length = self.in_sample_ms + self.out_of_sample_ms
        n = (end + 1 - start - length) // self.step_ms + 1
        if n > _MOST_WINDOWS:
            wanted = f"must make at most {_MOST_WINDOWS:,} windows of these ticks, makes {n:,}"
            raise ConfigError([Problem("walk_forward", self.text, wanted, "take longer steps")])
        windows: list[Window] = []
        for begin in range(start, end - length + 2, self.step_ms):
            moments = (begin, begin + self.in_sample_ms, begin + length)
            first, middle, last = np.searchsorted(ts_ms, moments).tolist()
            if middle - first >= 2 and last - middle >= 2:
                windows.append(Window(len(windows) + 1, first, middle, last))
        if not windows:
            span = (end - start) / _UNIT_MS["d"]
            wanted = f"must fit into the ticks, which cover {span:.6g} days"
            raise ConfigError([Problem("walk_forward", self.text, wanted, "shorten it")])
        return windows


def read_walk_forward(text: str) -> tuple[WalkForward | None, list[Problem]]:
    """Read IS/OOS/STEP, in days or with a unit; return what is wrong with it beside."""
    lengths = []
    for part in text.split("/"):
        match = re.fullmatch(r"\s*([0-9]{0,9}\.?[0-9]{1,9})\s*([dhm]?)\s*", part)
        if match is None:
            return None, [Problem("walk_forward", text, "must be IS/OOS/STEP", _EXAMPLE)]
        lengths.append(round(float(match[1]) * _UNIT_MS[match[2]]))
    if len(lengths) != 3 or min(lengths) < 1:
        wanted = "must be three lengths > 0: IS/OOS/STEP"
        return None, [Problem("walk_forward", text, wanted, _EXAMPLE)]
    return WalkForward(text, *lengths), []


def efficiency(
    in_sample: Sequence[dict[str, Any]], out_of_sample: Sequence[dict[str, Any]]
) -> float | None:
    """Return the growth per day out of sample, as a share of that in sample, over all windows.

    Growth is ln(average_daily_gain), summed over the windows: 1 = as good as it looked, 0 = nothing
    came of it, below 0 = it lost. None when nothing grew in sample, or somebody lost everything.
    """
    both = [sum(map(_growth, figures)) for figures in (in_sample, out_of_sample)]
    return both[1] / both[0] if both[0] > 0.0 and all(map(math.isfinite, both)) else None


def _growth(figures: dict[str, Any]) -> float:
    gain = figures["average_daily_gain"]
    if gain is None:  # compat's can be infinite, and a file has no infinity
        return math.inf
    return math.log(gain) if gain > 0.0 else -math.inf
