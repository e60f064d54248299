"""Tables and small text pictures from numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

__all__ = ["number", "sparkline", "summary_table"]

# name in the summary -> label, unit: "" plain, "%" a fraction, "%+1" a ratio to 1
_ROWS = {
    "outcome": ("outcome", ""),
    "starting_balance": ("starting balance", ""),
    "net_pnl_plus_fees": ("net pnl + fees", ""),
    "profit_sum": ("profit", ""),
    "loss_sum": ("loss (stops)", ""),
    "fee_sum": ("fees", ""),
    "gain": ("gain", "%+1"),
    "n_days": ("days", ""),
    "average_daily_gain": ("average daily gain", "%+1"),
    "n_trades": ("fills", ""),
    "n_entries": ("entries", ""),
    "n_reentries": ("re-entries", ""),
    "n_closes": ("closes", ""),
    "n_stop_losses": ("stop losses", ""),
    "biggest_pos_size": ("biggest position", ""),
    "closest_liq": ("closest liquidation", "%"),
    "max_n_hours_between_consec_trades": ("longest pause, hours", ""),
}

_BARS = "▁▂▃▄▅▆▇█"


def number(value: float, digits: int = 8) -> str:
    """Return a number with so many significant digits: no exponent, no trailing zeros."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(places, 20)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def summary_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return one column of figures a run, side by side."""
    table = Table("", *summaries)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, (label, unit) in _ROWS.items():
        table.add_row(label, *(_shown(s.get(name), unit) for s in summaries.values()))
    return table


def _shown(value: Any, unit: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value.replace("_", " ")
    if unit == "%":
        return f"{value * 100:.2f} %"
    if unit == "%+1":
        return f"{(value - 1.0) * 100:+.3f} %"
    return number(value, 6)


def sparkline(values: Sequence[float] | npt.NDArray[np.float64], width: int = 60) -> str:
    """Return a line of block characters, low to high, one for each of at most ``width`` samples."""
    if len(values) == 0:
        return ""
    width = min(width, len(values))
    last = len(values) - 1
    picked = [float(values[i * last // max(width - 1, 1)]) for i in range(width)]
    low, high = min(picked), max(picked)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in picked)
