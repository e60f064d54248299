"""The space that is searched: a range for each parameter, and the points of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from passivx.models import step_parts

__all__ = ["Range", "Space"]

Values = npt.NDArray[np.float64]

# How far a neighbour lies away, as a share of its range; at least a step.
_NEIGHBOUR = 0.02


@dataclass(frozen=True, slots=True)
class Range:
    """Where one parameter may lie, ends included; ``step`` is a plain decimal > 0."""

    low: float
    high: float
    step: float


class Space:
    """Ranges by parameter, sorted by name; a point is an array of values in that order.

    ``ordered`` says that max_markup is never below min_markup.
    """

    def __init__(self, ranges: Mapping[str, Range], *, ordered: bool) -> None:
        self.names = tuple(sorted(ranges))
        self._quoted = [json.dumps(name) for name in self.names]
        self.ranges = {name: ranges[name] for name in self.names}
        self.low = np.array([each.low for each in self.ranges.values()])
        self.high = np.array([each.high for each in self.ranges.values()])
        parts = np.array([step_parts(each.step) for each in self.ranges.values()]).reshape(-1, 2)
        self._units, self._scale = parts.T
        self._markups: tuple[int, int] | None = None
        if ordered and {"min_markup", "max_markup"} <= set(self.names):
            self._markups = (self.names.index("min_markup"), self.names.index("max_markup"))

    @cached_property
    def free(self) -> npt.NDArray[np.bool_]:
        """Which parameters can take more than one value, shape (p,)."""
        return self.low < self.high

    def clamp(self, values: Values) -> Values:
        """Return points, shape (..., p), moved into the ranges."""
        return self._in_order(np.clip(values, self.low, self.high))

    def settle(self, values: Values) -> Values:
        """Return points, shape (..., p), rounded to the steps and moved into the ranges.

        A value on its step is the double that the decimal is: k × units / scale.
        """
        steps = np.rint(values * self._scale / self._units)
        return self.clamp(steps * self._units / self._scale + 0.0)

    def _in_order(self, values: Values) -> Values:
        if self._markups is not None:
            least, most = self._markups
            swapped = values[..., least] > values[..., most]
            if np.any(swapped):
                # A grid whose ends are out of order is one price: the nearer end, as far as the
                # other's range allows.
                one = np.minimum(values[..., least], self.high[most])
                values[..., least] = np.where(swapped, one, values[..., least])
                values[..., most] = np.where(swapped, one, values[..., most])
        return values

    def as_dict(self, values: Values) -> dict[str, float]:
        """Return one point by parameter name."""
        return dict(zip(self.names, values.tolist(), strict=True))

    def key(self, values: Values) -> str:
        """Return what identifies one point: the SHA-256 of its values by sorted name, as JSON."""
        # What json.dumps writes: other writers write some floats otherwise, one by version.
        pairs = zip(self._quoted, values.tolist(), strict=True)
        text = "{" + ", ".join([f"{name}: {value!r}" for name, value in pairs]) + "}"
        return hashlib.sha256(text.encode()).hexdigest()

    def neighbours(self, values: Values) -> Iterator[tuple[str, Values]]:
        """Yield the points beside one, a fiftieth of a range or a step away, by parameter."""
        steps = self._units / self._scale
        reach = np.maximum(_NEIGHBOUR * (self.high - self.low), steps)
        for column in np.flatnonzero(self.free):
            for side in (-1.0, 1.0):
                moved = values.copy()
                moved[column] += side * reach[column]
                beside = values.copy()
                beside[column] = self.settle(moved)[column]
                beside = self.clamp(beside)
                if not np.array_equal(beside, values):
                    yield self.names[column], beside
