"""Tables of figures: runs of different engines side by side."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
from rich.console import Console

from passivx.report.metrics import compat_summary
from passivx.report.render import summary_table
from tests.report.test_metrics import BY_HAND, BY_HAND_EQUITY, RECORD_DTYPE, summary


def shown(summaries: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    text = StringIO()
    Console(file=text, width=200).print(summary_table(summaries))
    rows = [line.strip("│ ").split("│") for line in text.getvalue().splitlines() if "│" in line]
    return {label.strip(): [cell.strip() for cell in cells] for label, *cells in rows}


def compat() -> dict[str, Any]:
    extra = ("closest_long_liq", "closest_short_liq", "pnl_plus_fees_cumsum")
    fills = np.zeros(0, [*RECORD_DTYPE.descr, *((name, "<f8") for name in extra)])
    figures = compat_summary(fills, starting_balance=1000.0, start_ms=0, end_ms=86_400_000,
        last_price=1.0, inverse=False)  # fmt: skip
    return {"engine": "compat", "outcome": "end", **figures}


def exact() -> dict[str, Any]:
    figures = summary(BY_HAND, BY_HAND_EQUITY, worst_open_loss=-45.0, closest_liq=0.2)
    return {"engine": "exact", "outcome": "long_liquidation", **figures}


def test_compat_and_exact_side_by_side():
    rows = shown({"compat": compat(), "exact": exact()})
    assert rows["outcome"] == ["end", "long liquidation"]
    assert rows["gain"] == ["+0.000 %", "+1.822 %"]
    assert rows["final equity"] == ["1,000", "1,018.22"]
    assert rows["max drawdown"] == ["–", "5.00 %"]
    assert rows["margin use, mean · max"] == ["–", "1.45 % · 3.81 %"]
    assert rows["closes · stop losses"] == ["0 · 0", "1 · 1"]
    assert rows["loss / profit"] == ["0", "0.3333"]
    assert len(rows) <= 28


def test_compat_alone_has_no_empty_rows():
    rows = shown({"": compat()})
    assert all("–" not in cell for cells in rows.values() for cell in cells)
    assert "fees" in rows
    assert "max drawdown" not in rows
