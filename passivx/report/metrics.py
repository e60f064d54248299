"""Figures of a run, from its fills alone; nothing here knows an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import Kind

__all__ = ["EQUITY_DTYPE", "compat_summary", "equity_at_fills"]

EQUITY_DTYPE = np.dtype([("ts_ms", "<i8"), ("wallet", "<f8"), ("equity", "<f8")])

MS_PER_HOUR = 3_600_000.0
MS_PER_DAY = 24 * MS_PER_HOUR


def equity_at_fills(fills: npt.NDArray[np.void], *, inverse: bool) -> npt.NDArray[np.void]:
    """Return wallet and equity after each fill, EQUITY_DTYPE, shape (n,).

    Equity = wallet + size × (price − entry) linear, wallet + size × (1/entry − 1/price) inverse,
    at the fill's own price.
    """
    out = np.zeros(len(fills), EQUITY_DTYPE)
    size, entry, price = fills["pos_size"], fills["pos_price"], fills["price"]
    open_pnl = np.zeros(len(fills))
    held = size != 0.0
    if inverse:
        open_pnl[held] = size[held] * (1.0 / entry[held] - 1.0 / price[held])
    else:
        open_pnl[held] = size[held] * (price[held] - entry[held])
    out["ts_ms"] = fills["ts_ms"]
    out["wallet"] = fills["balance"]
    out["equity"] = fills["balance"] + open_pnl
    return out


def compat_summary(
    fills: npt.NDArray[np.void], *, starting_balance: float, start_ms: int, end_ms: int
) -> dict[str, Any]:
    """Return the figures the original printed, by its names.

    net_pnl_plus_fees = Σ (pnl + fee); profit_sum = Σ pnl of all but stops, loss_sum = Σ pnl of
    stops, fee_sum = Σ fee (negative = paid); gain = (starting_balance + net_pnl_plus_fees) /
    starting_balance, the open position left out; average_daily_gain = gain ** (1 / n_days), 0 when
    gain <= 0 or no time passed, infinite where that overflows; closest_liq = least relative
    distance of a print to the liquidation price; hours between consecutive fills; biggest position.
    No fill at all: gain 1, sums 0, distances 1.
    """
    kind = fills["kind"]
    stops = (kind == Kind.STOP_LOSS_LIQ_DIFF) | (kind == Kind.STOP_LOSS_POS_PRICE_DIFF)
    net = float(fills["pnl_plus_fees_cumsum"][-1]) if len(fills) else 0.0
    gain = (net + starting_balance) / starting_balance
    n_days = (end_ms - start_ms) / MS_PER_DAY
    gaps_ms = np.diff(fills["ts_ms"])
    closest_long = float(fills["closest_long_liq"].min(initial=1.0))
    closest_short = float(fills["closest_short_liq"].min(initial=1.0))
    return {
        "starting_balance": starting_balance,
        "net_pnl_plus_fees": net,
        "profit_sum": float(fills["pnl"][~stops].sum()),
        "loss_sum": float(fills["pnl"][stops].sum()),
        "fee_sum": float(fills["fee"].sum()),
        "gain": gain,
        "n_days": n_days,
        "average_daily_gain": _daily(gain, n_days),
        "n_trades": len(fills),
        "n_entries": int((kind == Kind.ENTRY).sum()),
        "n_reentries": int((kind == Kind.REENTRY).sum()),
        "n_closes": int((kind == Kind.CLOSE).sum()),
        "n_stop_losses": int(stops.sum()),
        "biggest_pos_size": float(np.abs(fills["pos_size"]).max(initial=0.0)),
        "closest_liq": min(closest_long, closest_short),
        "closest_long_liq": closest_long,
        "closest_shrt_liq": closest_short,
        "max_n_hours_between_consec_trades": float(gaps_ms.max(initial=0)) / MS_PER_HOUR,
    }


def _daily(gain: float, n_days: float) -> float:
    if gain <= 0.0 or n_days <= 0.0:
        return 0.0
    try:
        return float(gain ** (1.0 / n_days))
    except OverflowError:
        return float("inf")
