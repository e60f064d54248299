"""Who proposes what to try next: the ask/tell protocol, Jackrabbit, and plain chance.

A session asks for a generation, runs what it has not run before, tells every result and asks again.
A sampler goes by its plan and by what it was told, in order, and by nothing else: that is what
makes a session the same with any number of workers, and an interrupted one resumable by asking
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from passivx.optimizer.space import Space, Values

__all__ = ["SAMPLERS", "Jackrabbit", "Plan", "Proposal", "Random", "Result", "Sampler"]

# A new value is one of so many points about the middle of its hop.
_POINTS: Final = 200
# So many hops that went up are tried once more, from where they led.
_AGAIN: Final = 4


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sampler is made with.

    ``first_k`` to ``end_k`` (left out) are the iterations, ``generation`` how many are proposed at
    a time; ``starts`` are points to try first, shape (s, p). Equal seed and ``stream`` (the window
    of a walk-forward) mean equal chance.
    """

    space: Space
    seed: int
    stream: int
    first_k: int
    end_k: int
    generation: int
    starts: Values


@dataclass(frozen=True, eq=False, slots=True)
class Proposal:
    """A point to try, within its space, and its key there.

    ``k`` is the iteration, ``m`` the share of the ranges that its hop may cover.
    """

    k: int
    m: float
    values: Values
    key: str


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """What came of a proposal: its score, higher is better; None when it was rejected."""

    proposal: Proposal
    score: float | None


class Sampler(Protocol):
    """Proposes generations, deterministically; what ``copy.copy`` gives goes on by itself."""

    def ask(self) -> list[Proposal]:
        """Return the next generation; empty when the plan is done."""

    def tell(self, results: Sequence[Result]) -> None:
        """Take in the results of the generation asked for last, in its order."""


class _Planned:
    """Counts iterations and deals out chance, a generator a generation."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._k = plan.first_k

    def _next(self) -> tuple[np.random.Generator, npt.NDArray[np.int64]]:
        plan = self._plan
        ks = np.arange(self._k, min(self._k + plan.generation, plan.end_k))
        rng = np.random.default_rng([plan.seed, plan.stream, self._k])
        self._k += len(ks)
        return rng, ks

    def _propose(self, ks: npt.NDArray[np.int64], m: Values, values: Values) -> list[Proposal]:
        plan = self._plan
        # The points to try first take the place of the first ones drawn.
        given = plan.starts[ks[0] - plan.first_k :][: len(ks)] if len(ks) else plan.starts[:0]
        values[: len(given)] = given
        return [
            Proposal(k, share, point, plan.space.key(point))
            for k, share, point in zip(ks.tolist(), m.tolist(), values, strict=True)
        ]


class Random(_Planned):
    """Every point anywhere in the ranges, each by itself: what any search has to beat."""

    def ask(self) -> list[Proposal]:
        """Return the next generation."""
        rng, ks = self._next()
        space = self._plan.space
        values = space.low + (space.high - space.low) * rng.random((len(ks), len(space.names)))
        return self._propose(ks, np.ones(len(ks)), space.settle(values))

    def tell(self, results: Sequence[Result]) -> None:
        """Learn nothing."""


class Jackrabbit(_Planned):
    """The original's search: hops about the best point so far, wide at first, then ever shorter.

    The schedule, over all iterations k: m = 1 / (k / 2 + 16), scaled to [0, 1] (1 when there is
    only one). A new value: span = (high − low) × m / 2; midpoint = the best point's value, moved
    into [low + span, high − span]; one of 200 points of midpoint ± span, rounded to the step and
    moved into the range. Until a candidate has met the criteria, hops start at the first given
    point and, without one, lead anywhere.

    With a generation of 1 this is the original's sequence: every value new, each point drawn
    by itself, the best one known at once. A larger generation learns of its own successes only
    afterwards. To find as much in as many evaluations (docs/performance.md),

    - the 200 points are shared out: every parameter's values in a generation are spread evenly;
    - up to 4 hops that led up are tried again, the same hop from the new best point;
    - every second one of the rest keeps each value of the best point with even chance.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._best: Values | None = plan.starts[0] if len(plan.starts) else None
        self._score = -np.inf
        none = np.zeros((0, len(plan.space.names)), np.int64)
        # A hop is a point for every parameter, and which of them stay at the best one's value.
        self._hops, self._stay = none, none.astype(bool)  # of the generation asked for
        self._again, self._again_stay = self._hops, self._stay  # those to be tried again

    def ask(self) -> list[Proposal]:
        """Return the next generation."""
        rng, ks = self._next()
        again = len(self._again[: len(ks)])
        self._hops = self._draw(rng, len(ks))
        self._hops[:again] = self._again[:again]
        self._stay = np.zeros(self._hops.shape, bool)
        self._stay[:again] = self._again_stay[:again]
        if self._plan.generation > 1 and self._best is not None:
            self._stay_in_part(rng, self._stay[again + 1 :: 2])
        m = self._reach(ks)
        return self._propose(ks, m, self._land(m))

    def tell(self, results: Sequence[Result]) -> None:
        """Move to the best result, if it is better than any before."""
        scored = [
            (result.score, -i) for i, result in enumerate(results) if result.score is not None
        ]
        up = sorted((pair for pair in scored if pair[0] > self._score), reverse=True)
        if up:
            self._score = up[0][0]
            self._best = results[-up[0][1]].proposal.values
        # A point that was given is where no hop led.
        n_given = len(self._plan.starts) + self._plan.first_k
        led = [-i for _, i in up if results[-i].proposal.k >= n_given]
        rows = led[:_AGAIN] if self._plan.generation > 1 else []
        self._again, self._again_stay = self._hops[rows], self._stay[rows]

    def _reach(self, ks: npt.NDArray[np.int64]) -> Values:
        first, last = (1.0 / (k / 2.0 + 16.0) for k in (self._plan.first_k, self._plan.end_k - 1))
        if first == last:
            return np.ones(len(ks))
        return np.asarray((1.0 / (ks / 2.0 + 16.0) - last) / (first - last))

    def _draw(self, rng: np.random.Generator, n: int) -> npt.NDArray[np.int64]:
        # One of n equal strata of the points each, in an order of its own for every parameter.
        strata = np.argsort(rng.random((n, len(self._plan.space.names))), axis=0)
        return (strata * _POINTS + rng.integers(0, _POINTS, strata.shape)) // max(n, 1)

    def _stay_in_part(self, rng: np.random.Generator, stay: npt.NDArray[np.bool_]) -> None:
        free = np.flatnonzero(self._plan.space.free)
        if len(free) > 1:
            stay[:] = rng.random(stay.shape) < 0.5
            # At least one value is new: else the point would be the best one again.
            stay[np.arange(len(stay)), rng.choice(free, len(stay))] = False

    def _land(self, m: Values) -> Values:
        space = self._plan.space
        width = space.high - space.low
        if self._best is None:
            span, middle = width / 2.0, (space.low + space.high) / 2.0
        else:
            span = width * m[:, None] / 2.0
            middle = np.clip(self._best, space.low + span, space.high - span)
        values = space.settle(middle + span * (2.0 * self._hops / (_POINTS - 1) - 1.0))
        if self._best is not None:
            values = space.clamp(np.where(self._stay, self._best, values))
        return values


# Every sampler by its name in settings and on the command line.
SAMPLERS: Final[dict[str, Callable[[Plan], Sampler]]] = {
    "jackrabbit": Jackrabbit,
    "random": Random,
}
