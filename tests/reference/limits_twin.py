"""Where limits end an exact run, from the arrays of the same run without limits.

Each figure is computed anew at each equity point from its definition in words, with no regard to
speed: `figures_at` is what ``_core/exact`` must compare with its limits, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from passivx._core.types import Kind

from .exact_twin import Scenario

HOUR = 3_600_000
DAY = 24 * HOUR
NAMES = ("max_drawdown", "min_closest_liq", "max_hours_between_fills", "max_loss", "min_adg")

Record = dict[str, Any]
Point = tuple[int, float, float]  # ts_ms, wallet, equity


@dataclass(frozen=True)
class Look:
    """What is known at an equity point."""

    n_records: int  # so far
    n_prints: int
    share: float  # of the run's time; NaN in a run of one millisecond
    figures: dict[str, float | None]  # None: not to be had yet

    def breaks(self, name: str, limits: Mapping[str, float]) -> bool:
        figure, limit = self.figures[name], limits[name]
        if figure is None:
            return False
        if name == "min_adg" and not self.share >= limits["min_adg_from"]:
            return False
        return figure < limit if name.startswith("min_") else figure > limit


def looks(s: Scenario, records: list[Record], points: list[Point]) -> Iterator[Look]:
    """The points at which limits are looked at: all but the last, the end or a liquidation."""
    first, last = int(s.ts_ms[0]), int(s.ts_ms[-1])
    distances = print_distances(s, records)
    n_records = 0
    for i, (ts_ms, _, equity) in enumerate(points[:-1]):
        before = records[:n_records]
        if i == 0:
            n_prints = 0
        elif n_records < len(records) and records[n_records]["ts_ms"] == ts_ms:
            n_prints = records[n_records]["tick"] + 1
            n_records += 1
        else:  # a whole hour, which comes after all records of its millisecond
            n_prints = sum(t <= ts_ms for t in s.ts_ms.tolist())
        fills = [first, *(r["ts_ms"] for r in before if r["kind"] != Kind.FUNDING)]
        levels = [max(point[2], 0.0) for point in points[: i + 1]]
        days = (ts_ms - first) / DAY
        yield Look(
            n_records=n_records,
            n_prints=n_prints,
            share=(ts_ms - first) / (last - first) if last > first else float("nan"),
            figures={
                "max_drawdown": 1.0 - levels[-1] / max(levels),
                "min_closest_liq": min(distances[:n_prints], default=1.0),
                "max_hours_between_fills": (ts_ms - fills[-1]) / HOUR,
                "max_loss": max(0.0, 1.0 - max(equity, 0.0) / s.starting_balance),
                "min_adg": daily_gain(max(equity, 0.0) / s.starting_balance, days),
            },
        )


def print_distances(s: Scenario, records: list[Record]) -> list[float]:
    """Of each print the relative distance to the liquidation price, before its own fills."""
    out = []
    behind, size, liq = 0, 0.0, 0.0
    for tick, price in enumerate(s.price.tolist()):
        # What happened between the print before and this one has the other's tick.
        while behind < len(records) and records[behind]["tick"] < tick:
            size, liq = records[behind]["pos_size"], records[behind]["liq_price"]
            behind += 1
        if size == 0.0 or liq == 0.0:
            out.append(1.0)
        else:
            out.append(max(0.0, (price - liq if size > 0.0 else liq - price) / price))
    return out


def daily_gain(gain: float, days: float) -> float | None:
    if days == 0.0:
        return None
    try:
        return float(gain ** (1.0 / days))
    except OverflowError:
        return float("inf")


def first_broken(some: list[Look], limits: Mapping[str, float]) -> tuple[int, int] | None:
    """The first point that breaks a limit, and the index of the first limit that it breaks."""
    for i, look in enumerate(some):
        for which, name in enumerate(NAMES):
            if look.breaks(name, limits):
                return i, which
    return None
