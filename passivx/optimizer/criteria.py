"""What a candidate is judged by: one figure to be high, and limits it must keep."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from passivx._core.exact import LIMITS_DTYPE
from passivx.backtesting import Trial
from passivx.documents import is_number
from passivx.errors import Problem

__all__ = ["DONE", "OBJECTIVES", "Criteria", "Limit", "read_limits"]

# The status of a candidate that ran to the end and kept every limit.
DONE: Final = "done"

# name -> figure, and its value for doing nothing
OBJECTIVES: Final[dict[str, tuple[str, float]]] = {
    "gain": ("gain", 1.0),
    "adg": ("average_daily_gain", 1.0),
    "sharpe": ("sharpe", 0.0),
    "sortino": ("sortino", 0.0),
}
# name -> figure; the name says in which direction
_LIMITED: Final = {
    "min_gain": "gain",
    "min_adg": "average_daily_gain",
    "min_sharpe": "sharpe",
    "min_sortino": "sortino",
    "min_closest_liq": "closest_liq",
    "min_n_trades": "n_trades",
    "max_drawdown": "max_drawdown",
    "max_drawdown_hours": "max_drawdown_hours",
    "max_hours_between_fills": "max_hours_without_fill",
    "max_loss": "max_loss",
    "max_loss_profit_ratio": "loss_profit_ratio",
    "max_n_stop_losses": "n_stop_losses",
    "max_exposure": "exposure",
    "max_margin_use": "max_margin_use",
}
# What compat's summary does not have.
_EXACT_ONLY: Final = frozenset(
    {"sharpe", "sortino", "max_drawdown", "max_drawdown_hours", "exposure", "max_margin_use"}
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on a figure of the whole run.

    ``from_progress``, of ``min_adg``: from which share of the time on it ends a run early; 1 = it
    is looked at in the end only.
    """

    name: str
    bound: float
    from_progress: float = 1.0

    def broken_by(self, figures: Mapping[str, Any]) -> bool:
        """Say whether the figures of a run are beyond the bound."""
        figure = figures[_LIMITED[self.name]]
        return bool(figure < self.bound if self.name.startswith("min_") else figure > self.bound)


@dataclass(frozen=True, slots=True)
class Criteria:
    """An objective and limits, as the settings give them."""

    objective: str
    limits: tuple[Limit, ...] = ()

    def record(self) -> npt.NDArray[np.void]:
        """Return the limits that the core ends a run by: LIMITS_DTYPE, shape (1,)."""
        out = np.zeros(1, LIMITS_DTYPE)
        for name in LIMITS_DTYPE.names or ():
            out[name] = -np.inf if name.startswith("min_") else np.inf
        out["min_adg_from"] = 1.0
        for limit in self.limits:
            if limit.name in (LIMITS_DTYPE.names or ()):
                out[limit.name] = limit.bound
            if limit.name == "min_adg":
                out["min_adg_from"] = limit.from_progress
        return out

    def status(self, trial: Trial) -> str:
        """Return DONE, or what the trial was rejected by."""
        if trial.outcome != "end":
            return trial.outcome
        broken = (limit.name for limit in self.limits if limit.broken_by(trial.figures))
        name = next(broken, None)
        return DONE if name is None else f"limit:{name}"

    def score(self, figures: Mapping[str, Any]) -> float:
        """Return the objective, a finite number: higher is better."""
        figure = float(figures[OBJECTIVES[self.objective][0]])
        return min(max(figure, -sys.float_info.max), sys.float_info.max)

    def advantage(self, score: float) -> float:
        """Return how much better a score is than that of doing nothing."""
        return score - OBJECTIVES[self.objective][1]


def read_limits(given: object, engine: str) -> tuple[tuple[Limit, ...], list[Problem]]:
    """Return the limits a settings file gives, and everything that is wrong with them."""
    if not isinstance(given, Mapping):
        example = 'such as { "max_drawdown": 0.3 }'
        shown = "null" if given is None else given
        return (), [Problem("limits", shown, "must be an object { ... }", example)]
    limits, problems = [], []
    for name, value in given.items():
        where = f"limits.{name}"
        if name not in _LIMITED:
            problems.append(Problem(where, value, "is no limit", f"one of {', '.join(_LIMITED)}"))
            continue
        if engine == "compat" and _LIMITED[name] in _EXACT_ONLY:
            problems.append(Problem(where, value, "is for the exact engine", "leave it out"))
            continue
        bound, start = value, 1.0
        if name == "min_adg" and isinstance(value, list | tuple) and len(value) == 2:
            bound, start = value
        if not is_number(bound):
            pair = ", or [bound, from which share of the run on]" if name == "min_adg" else ""
            problems.append(Problem(where, _shown(value), f"must be a finite number{pair}"))
        elif not (is_number(start) and 0.0 <= start <= 1.0):
            problems.append(Problem(where, _shown(value), "must begin at a share in [0, 1]"))
        else:
            limits.append(Limit(name, float(bound), float(start)))
    return tuple(limits), problems


def _shown(value: object) -> object:
    return "null" if value is None else value
