"""The figures of an exact run, record by record: what ``report/metrics.exact_summary`` must equal.

Records and points are plain dicts; kinds are the words of ``KIND_NAMES``. Each figure is computed
from its definition in words, with no regard to speed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

HOUR = 3_600_000
DAY = 24 * HOUR
LARGEST = 1e6

Rows = Sequence[dict[str, Any]]


def figures(
    records: Rows,
    points: Rows,
    *,
    starting_balance: float,
    start_ms: int,
    end_ms: int,
    inverse: bool,
    leverage: float,
    worst_open_loss: float,
    closest_liq: float,
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "starting_balance": starting_balance,
        "final_wallet": points[-1]["wallet"],
        "final_equity": points[-1]["equity"],
        "open_pnl": points[-1]["equity"] - points[-1]["wallet"],
        "net_pnl_plus_fees": sum(r["pnl"] + r["fee"] for r in records),
        "gain": points[-1]["equity"] / starting_balance,
        "n_days": (end_ms - start_ms) / DAY,
        "fee_sum": sum(r["fee"] for r in records),
        "worst_open_loss": worst_open_loss,
        "closest_liq": closest_liq,
        "biggest_pos_size": max((abs(r["pos_size"]) for r in records), default=0.0),
    }
    least = min(max(point["equity"], 0.0) for point in points)
    out["max_loss"] = max(0.0, 1.0 - least / starting_balance)
    out["average_daily_gain"] = daily_gain(out["gain"], out["n_days"])
    sums(out, records, inverse)
    out["max_hours_without_fill"] = longest_pause(records, start_ms, end_ms)
    out["max_drawdown"], out["max_drawdown_hours"] = drawdown(points)
    out["sharpe"], out["sortino"] = sharpe_sortino(daily_returns(points))
    margin(out, records, start_ms, end_ms, inverse, leverage)
    return out


def daily_gain(gain: float, n_days: float) -> float:
    if gain <= 0.0:
        return 0.0
    if n_days == 0.0:
        return 1.0
    log_gain = math.log(gain) / n_days
    return LARGEST if log_gain > math.log(LARGEST) else math.exp(log_gain)


def sums(out: dict[str, Any], records: Rows, inverse: bool) -> None:
    def of(*kinds: str) -> list[float]:
        return [r["pnl"] for r in records if r["kind"] in kinds]

    gains = of("entry", "reentry", "close")
    losses = of("stop_loss_liq_diff", "stop_loss_pos_price_diff", "liquidation")
    profit, loss = out["profit_sum"], out["loss_sum"] = sum(gains), sum(losses)
    if profit >= 0.0 and loss >= 0.0:
        out["loss_profit_ratio"] = 0.0
    elif profit <= 0.0:
        out["loss_profit_ratio"] = LARGEST
    else:
        out["loss_profit_ratio"] = min(-loss / profit, LARGEST)
    out["funding_sum"] = sum(of("funding"))
    for kind, plural in {
        "entry": "n_entries",
        "reentry": "n_reentries",
        "close": "n_closes",
        "stop_loss_liq_diff": "n_stop_loss_liq_diff",
        "stop_loss_pos_price_diff": "n_stop_loss_pos_price_diff",
        "liquidation": "n_liquidations",
        "funding": "n_fundings",
    }.items():
        out[plural] = len(of(kind))
    out["n_stop_losses"] = out["n_stop_loss_liq_diff"] + out["n_stop_loss_pos_price_diff"]

    fills = [r for r in records if r["kind"] != "funding"]
    out["n_trades"] = len(fills)
    out["volume"] = sum(cost(r["qty"], r["price"], inverse) for r in fills)
    hours = [(b["ts_ms"] - a["ts_ms"]) / HOUR for a, b in pairwise(fills)]
    out["mean_n_hours_between_consec_trades"] = statistics.mean(hours) if hours else 0.0
    out["median_n_hours_between_consec_trades"] = statistics.median(hours) if hours else 0.0
    out["max_n_hours_between_consec_trades"] = max(hours, default=0.0)


def longest_pause(records: Rows, start_ms: int, end_ms: int) -> float:
    fills = [r["ts_ms"] for r in records if r["kind"] != "funding"]
    return max((b - a) / HOUR for a, b in pairwise([start_ms, *fills, end_ms]))


def cost(qty: float, price: float, inverse: bool) -> float:
    return abs(qty / price if inverse else qty * price)


def drawdown(points: Rows) -> tuple[float, float]:
    deepest, trough, peak_at, peak = 0.0, 0, 0, 0
    for i, point in enumerate(points):
        if point["equity"] >= points[peak]["equity"]:
            peak = i
        depth = 1.0 - max(point["equity"], 0.0) / points[peak]["equity"]
        if depth > deepest:
            deepest, trough, peak_at = depth, i, peak
    if deepest == 0.0:
        return 0.0, 0.0
    top = points[peak_at]["equity"]
    after = [p["ts_ms"] for p in points[trough:] if p["equity"] >= top]
    finish = after[0] if after else points[-1]["ts_ms"]
    return deepest, (finish - points[peak_at]["ts_ms"]) / HOUR


def daily_returns(points: Rows) -> list[float]:
    start = points[0]["ts_ms"]
    level_at: dict[int, float] = {}
    for point in points:
        midnight = -(-point["ts_ms"] // DAY)  # the one at or after the point
        if midnight * DAY == start:
            midnight += 1  # the midnight a run starts at ends none of its days
        level_at[midnight] = max(point["equity"], 0.0)
    returns, before = [], max(points[0]["equity"], 0.0)
    for level in level_at.values():
        returns.append(min(level / before - 1.0, LARGEST) if before > 0.0 else 0.0)
        before = level
    return returns


def sharpe_sortino(returns: list[float]) -> tuple[float, float]:
    if len(returns) < 2:
        return 0.0, 0.0
    mean, deviation = statistics.fmean(returns), statistics.stdev(returns)
    downside = math.sqrt(statistics.fmean(min(r, 0.0) ** 2 for r in returns))
    sharpe = mean / deviation * math.sqrt(365) if deviation >= 1e-12 else 0.0
    if downside >= 1e-12:
        sortino = mean / downside * math.sqrt(365)
    else:
        sortino = LARGEST if mean >= 1e-12 else 0.0
    return max(-LARGEST, min(sharpe, LARGEST)), max(-LARGEST, min(sortino, LARGEST))


def margin(
    out: dict[str, Any], records: Rows, start_ms: int, end_ms: int, inverse: bool, leverage: float
) -> None:
    held_ms, used_ms, most = 0, 0.0, 0.0
    times = [*(r["ts_ms"] for r in records), end_ms]
    for record, until in zip(records, times[1:], strict=True):
        if record["pos_size"] == 0.0:
            continue
        use = LARGEST
        if record["balance"] > 0.0:
            bound = cost(record["pos_size"], record["pos_price"], inverse) / leverage
            use = min(bound / record["balance"], LARGEST)
        held_ms += until - record["ts_ms"]
        used_ms += use * (until - record["ts_ms"])
        most = max(most, use)
    whole = end_ms - start_ms
    out["exposure"] = held_ms / whole if whole else 0.0
    out["mean_margin_use"] = used_ms / whole if whole else 0.0
    out["max_margin_use"] = most
