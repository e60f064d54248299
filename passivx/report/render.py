"""Tables and small text pictures from numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

__all__ = ["number", "sparkline", "summary_table"]

# label -> unit, names in the summary, shown side by side;
# units: "" plain, "~" plain and rough, "%" a fraction, "%+1" a ratio to 1
_ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "outcome": ("", ("outcome",)),
    "days": ("~", ("n_days",)),
    "starting balance": ("", ("starting_balance",)),
    "final equity": ("", ("final_equity",)),
    "gain": ("%+1", ("gain",)),
    "average daily gain": ("%+1", ("average_daily_gain",)),
    "net pnl + fees": ("", ("net_pnl_plus_fees",)),
    "open pnl": ("", ("open_pnl",)),
    "profit": ("", ("profit_sum",)),
    "loss (stops, liquidation)": ("", ("loss_sum",)),
    "loss / profit": ("~", ("loss_profit_ratio",)),
    "fees": ("", ("fee_sum",)),
    "funding": ("", ("funding_sum",)),
    "volume": ("", ("volume",)),
    "max drawdown": ("%", ("max_drawdown",)),
    "drawdown length, hours": ("~", ("max_drawdown_hours",)),
    "Sharpe · Sortino": ("~", ("sharpe", "sortino")),
    "worst open loss": ("", ("worst_open_loss",)),
    "closest liquidation": ("%", ("closest_liq",)),
    "biggest position": ("", ("biggest_pos_size",)),
    "time in position": ("%", ("exposure",)),
    "margin use, mean · max": ("%", ("mean_margin_use", "max_margin_use")),
    "fills": ("", ("n_trades",)),
    "entries · re-entries": ("", ("n_entries", "n_reentries")),
    "closes · stop losses": ("", ("n_closes", "n_stop_losses")),
    "median pause, hours": ("~", ("median_n_hours_between_consec_trades",)),
    "longest pause, hours": ("~", ("max_n_hours_between_consec_trades",)),
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
    """Return one column of figures a run, side by side; "–" where a run has no such figure.

    Figures that no run has are left out.
    """
    table = Table("", *summaries)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, (unit, names) in _ROWS.items():
        rows = [[s.get(name) for name in names] for s in summaries.values()]
        if any(value is not None for row in rows for value in row):
            table.add_row(label, *(_together(row, unit) for row in rows))
    return table


def _together(values: Sequence[Any], unit: str) -> str:
    if all(value is None for value in values):
        return "–"
    return " · ".join(_shown(value, unit) for value in values)


def _shown(value: Any, unit: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value.replace("_", " ")
    if unit == "%":
        return f"{value * 100:.2f} %"
    if unit == "%+1":
        return f"{(value - 1.0) * 100:+.3f} %"
    return number(value, 4 if unit == "~" else 6)


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
