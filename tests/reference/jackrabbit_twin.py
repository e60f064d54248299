"""Jackrabbit as the original ran it: one candidate after the other, every hop from the best so far.

What ``optimizer/samplers`` proposes with a generation of 1 must keep to these rules, and what a
larger generation costs is measured against this loop.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal

N_POINTS = 200

Range = tuple[float, float, float]  # low, high, step
Values = dict[str, float]
Objective = Callable[[Values], float | None]  # None: the candidate is rejected


def search(
    ranges: Mapping[str, Range],
    objective: Objective,
    *,
    first_k: int,
    end_k: int,
    rng: random.Random,
    start: Values | None = None,
) -> tuple[float | None, Values | None, int]:
    """Return the best score, its candidate, and how many candidates were run.

    Score and candidate are None when every one of them was rejected. Until one was not, hops start
    from ``start`` and, without it, lead anywhere.
    """
    best_score: float | None = None
    best_values: Values | None = None
    parent = start
    known: set[str] = set()
    for i, m in enumerate(schedule(first_k, end_k)):
        candidate = hop(ranges, parent, m, rng)
        if i == 0 and start is not None:
            candidate = dict(start)
        key = json.dumps(candidate, sort_keys=True)
        if key in known:
            continue  # an iteration, but no run
        known.add(key)
        score = objective(candidate)
        if score is not None and (best_score is None or score > best_score):
            best_score, best_values = score, candidate
            parent = candidate
    return best_score, best_values, len(known)


def schedule(first_k: int, end_k: int) -> list[float]:
    """Return how far the hop of every iteration reaches: from 1, all of the ranges, to 0."""
    plain = [1.0 / (k / 2.0 + 16.0) for k in range(first_k, end_k)]
    if len(plain) == 1:
        return [1.0]
    first, last = plain[0], plain[-1]
    return [(m - last) / (first - last) for m in plain]


def hop(ranges: Mapping[str, Range], parent: Values | None, m: float, rng: random.Random) -> Values:
    """Return a candidate with a new value for every parameter."""
    return {
        name: point(
            ranges[name], None if parent is None else parent[name], m, rng.randrange(N_POINTS)
        )
        for name in sorted(ranges)
    }


def point(where: Range, parent: float | None, m: float, i: int) -> float:
    """Return the i-th of the values that one hop may lead to."""
    low, high, step = where
    if parent is None:  # from nowhere: anywhere
        m, parent = 1.0, (low + high) / 2.0
    span = (high - low) * m / 2.0
    midpoint = min(max(parent, low + span), high - span)
    value = midpoint + span * (2.0 * i / (N_POINTS - 1) - 1.0)
    return min(max(to_step(value, step), low), high)


def to_step(value: float, step: float) -> float:
    """Return the nearest multiple of ``step``, as the double that its decimal reads as."""
    exact = Decimal(repr(step))
    steps = (Decimal(repr(value)) / exact).to_integral_value(ROUND_HALF_EVEN)
    return float(steps * exact) + 0.0  # no -0.0
