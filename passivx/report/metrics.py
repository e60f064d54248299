"""Figures of a run, from its fills and equity; nothing here knows an engine."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import EQUITY_DTYPE, Kind

__all__ = ["LARGEST", "compat_summary", "equity_at_fills", "exact_summary", "open_pnl_at"]

MS_PER_HOUR = 3_600_000.0
MS_PER_DAY = 24 * MS_PER_HOUR
DAYS_PER_YEAR = 365

# Where a ratio of ``exact_summary`` has no bound of its own, it is held within ±LARGEST.
LARGEST = 1e6

# A mean or a deviation of daily returns below this is rounding.
_NOISE = 1e-12

_N_KINDS = max(Kind) + 1


def open_pnl_at(
    fills: npt.NDArray[np.void], price: npt.NDArray[np.float64], *, inverse: bool
) -> npt.NDArray[np.float64]:
    """Return the open pnl after each fill at ``price``, both of shape (n,).

    size × (price − entry) linear, size × (1/entry − 1/price) inverse; 0 when flat.
    """
    size, entry = fills["pos_size"], fills["pos_price"]
    out = np.zeros(len(fills))
    held = size != 0.0
    if inverse:
        out[held] = size[held] * (1.0 / entry[held] - 1.0 / price[held])
    else:
        out[held] = size[held] * (price[held] - entry[held])
    return out


def equity_at_fills(fills: npt.NDArray[np.void], *, inverse: bool) -> npt.NDArray[np.void]:
    """Return wallet and equity after each fill, EQUITY_DTYPE, shape (n,).

    Equity = wallet + open pnl at the fill's own price.
    """
    out = np.zeros(len(fills), EQUITY_DTYPE)
    out["ts_ms"] = fills["ts_ms"]
    out["wallet"] = fills["balance"]
    out["equity"] = fills["balance"] + open_pnl_at(fills, fills["price"], inverse=inverse)
    return out


def compat_summary(
    fills: npt.NDArray[np.void],
    *,
    starting_balance: float,
    start_ms: int,
    end_ms: int,
    last_price: float,
    inverse: bool,
) -> dict[str, Any]:
    """Return the figures the original printed, by its names, and what it kept quiet about.

    net_pnl_plus_fees = Σ (pnl + fee); profit_sum = Σ pnl of all but stops, loss_sum = Σ pnl of
    stops, fee_sum = Σ fee (negative = paid); gain = (starting_balance + net_pnl_plus_fees) /
    starting_balance, the open position left out; average_daily_gain = gain ** (1 / n_days), 0 when
    gain <= 0 or no time passed, infinite where that overflows; closest_liq = least relative
    distance of a print to the liquidation price; hours between consecutive fills; biggest position.
    No fill at all: gain 1, sums 0, distances 1.

    Kept quiet: open_pnl of the last position at ``last_price``, and final_equity =
    starting_balance + net_pnl_plus_fees + open_pnl, with the losses that the balance floor hides
    from the balance. loss_profit_ratio, volume and max_hours_without_fill are those of
    `exact_summary`. max_loss = max(0, 1 − least equity / starting_balance), 1 when equity reached 0
    or less, where equity is final_equity and, after each fill, starting_balance + Σ (pnl + fee) so
    far + open pnl at the fill's own price: what the balance floor hides counts.
    """
    kind = fills["kind"]
    stops = (kind == Kind.STOP_LOSS_LIQ_DIFF) | (kind == Kind.STOP_LOSS_POS_PRICE_DIFF)
    net = float(fills["pnl_plus_fees_cumsum"][-1]) if len(fills) else 0.0
    gain = (net + starting_balance) / starting_balance
    n_days = (end_ms - start_ms) / MS_PER_DAY
    max_hours = float(np.diff(fills["ts_ms"]).max(initial=0)) / MS_PER_HOUR
    closest_long = float(fills["closest_long_liq"].min(initial=1.0))
    closest_short = float(fills["closest_short_liq"].min(initial=1.0))
    profit_sum, loss_sum = float(fills["pnl"][~stops].sum()), float(fills["pnl"][stops].sum())
    last = fills[-1:]
    open_pnl = float(open_pnl_at(last, np.full(len(last), last_price), inverse=inverse).sum())
    with np.errstate(over="ignore"):
        volume = _volume(fills, inverse)
    final_equity = starting_balance + net + open_pnl
    equity = starting_balance + fills["pnl_plus_fees_cumsum"]
    equity += open_pnl_at(fills, fills["price"], inverse=inverse)
    return {
        "starting_balance": starting_balance,
        "final_equity": final_equity,
        "open_pnl": open_pnl,
        "net_pnl_plus_fees": net,
        "profit_sum": profit_sum,
        "loss_sum": loss_sum,
        "loss_profit_ratio": _loss_profit_ratio(profit_sum, loss_sum),
        "max_loss": _loss_at(float(equity.min(initial=final_equity)), starting_balance),
        "fee_sum": float(fills["fee"].sum()),
        "volume": volume,
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
        "max_n_hours_between_consec_trades": max_hours,
        "max_hours_without_fill": _longest_pause(fills["ts_ms"], max_hours, start_ms, end_ms),
    }


def _daily(gain: float, n_days: float) -> float:
    if gain <= 0.0 or n_days <= 0.0:
        return 0.0
    try:
        return float(gain ** (1.0 / n_days))
    except OverflowError:
        return float("inf")


def exact_summary(
    fills: npt.NDArray[np.void],
    equity: npt.NDArray[np.void],
    *,
    starting_balance: float,
    start_ms: int,
    end_ms: int,
    inverse: bool,
    leverage: float,
    worst_open_loss: float,
    closest_liq: float,
) -> dict[str, Any]:
    """Return the figures of an ``exact`` run; where compat has the same figure, by its name.

    Parameters
    ----------
    fills : structured ndarray, shape (n,)
        Every record in time order, funding (qty 0, its amount in pnl) and liquidation included.
    equity : ndarray of EQUITY_DTYPE, shape (m,), m >= 1
        In time order: the start, every record, every UTC hour, the end.
    starting_balance, leverage : float
        Settle currency, > 0; and what a position's cost is divided by to give its margin, > 0.
    start_ms, end_ms : int
        The time the run covers; records are taken to lie within it.
    worst_open_loss : float
        The most negative open pnl at any print, <= 0, settle currency.
    closest_liq : float
        The least relative distance of any print to the liquidation price: 0 liquidated, 1 never
        held or never near.

    Returns
    -------
    dict
        Plain ints and floats, all finite for finite input whose sums of money are. Money is in
        settle currency. A *fill* is any record but funding; a sum over none is 0.

        Result:

        - starting_balance: as given.
        - final_wallet, final_equity: at the last equity point.
        - open_pnl: final_equity − final_wallet.
        - net_pnl_plus_fees: Σ (pnl + fee) over all records; the change of the wallet.
        - gain: final_equity / starting_balance, the open position included (compat leaves it out).
        - n_days: (end_ms − start_ms) / 86,400,000.
        - average_daily_gain: gain ** (1 / n_days), at most LARGEST; 0 when gain <= 0, else 1 when
          no time passed. A run under a day is extrapolated.

        Where it came from (net_pnl_plus_fees = profit_sum + loss_sum + fee_sum + funding_sum):

        - profit_sum: Σ pnl of entries, re-entries and closes.
        - loss_sum: Σ pnl of both stops and the liquidation; normally < 0.
        - loss_profit_ratio: −loss_sum / profit_sum, at most LARGEST; 0 when neither sum is
          negative, LARGEST when one is and profit_sum is not > 0.
        - fee_sum: Σ fee (negative = paid). funding_sum: Σ pnl of funding (negative = paid).
        - volume: Σ |qty × price| linear, Σ |qty / price| inverse, over the fills.

        Risk:

        - max_drawdown: the greatest 1 − equity / (highest equity so far) over the equity points; 1
          when equity reached 0 or less.
        - max_drawdown_hours: how long that drawdown (the first of equals) took: from the last point
          at its peak to the first point at or above the peak again, or to the last point when
          there is none. 0 without a drawdown.
        - max_loss: max(0, 1 − least equity / starting_balance) over the equity points, the largest
          share of the starting balance that was lost at one; 1 when equity reached 0 or less.
        - sharpe: mean(r) / std(r) × √365, within ±LARGEST. r = the simple returns of equity from
          one UTC midnight to the next, equity there being the last point at or before it; the
          first return begins at the start, the last ends at the end; days without a point are
          left out. Equity below 0 counts as 0, a return from 0 as 0, one above LARGEST as LARGEST.
          std is the sample's (n − 1). 0 with fewer than two returns, or std < 1e-12. No
          risk-free rate.
        - sortino: mean(r) / √mean(min(r, 0)²) × √365, within ±LARGEST. 0 with fewer than two
          returns; with a downside < 1e-12, LARGEST when mean(r) >= 1e-12, else 0.
        - worst_open_loss, closest_liq: as given.
        - biggest_pos_size: the largest |pos_size| after a record.
        - exposure: the share of the time with a position, 0 to 1; 0 when no time passed.
        - mean_margin_use, max_margin_use: margin use = cost / leverage / wallet, where cost =
          |pos_size| × pos_price linear, |pos_size| / pos_price inverse; 0 when flat, at most
          LARGEST, and LARGEST when a position is held with a wallet <= 0. It is taken after each
          record and stays until the next. The mean is over all the time (0 when no time passed),
          the max over the records.

        Counts and pace:

        - n_trades: fills. n_entries, n_reentries, n_closes, n_stop_losses (both kinds together),
          n_stop_loss_liq_diff, n_stop_loss_pos_price_diff, n_liquidations, n_fundings.
        - mean_, median_, max_n_hours_between_consec_trades: hours from one fill to the next; 0 with
          fewer than two.
        - max_hours_without_fill: the longest of these and of the hours from the start to the first
          fill and from the last one to the end; the whole run without one.
    """
    # One candidate of an optimizer, one summary: what counts here is the number of NumPy calls.
    kind, pnl, fee, pos_size = fills["kind"], fills["pnl"], fills["fee"], np.abs(fills["pos_size"])
    counts: list[int] = np.bincount(kind, minlength=_N_KINDS).tolist()
    sums = [float(x) for x in np.bincount(kind, weights=pnl, minlength=_N_KINDS)]
    profit_sum = sums[Kind.ENTRY] + sums[Kind.REENTRY] + sums[Kind.CLOSE]
    loss_sum = (
        sums[Kind.STOP_LOSS_LIQ_DIFF] + sums[Kind.STOP_LOSS_POS_PRICE_DIFF] + sums[Kind.LIQUIDATION]
    )
    n_stop_liq = counts[Kind.STOP_LOSS_LIQ_DIFF]
    n_stop_price = counts[Kind.STOP_LOSS_POS_PRICE_DIFF]
    n_trades = len(fills) - counts[Kind.FUNDING]
    filled_ms = fills["ts_ms"] if n_trades == len(fills) else fills["ts_ms"][kind != Kind.FUNDING]
    mean_hours, median_hours, max_hours = _pauses(filled_ms)
    level, point_ms = np.maximum(equity["equity"], 0.0), equity["ts_ms"]
    drawdown, drawdown_ms = _max_drawdown(level, point_ms)
    with np.errstate(over="ignore"):  # what is too large is bounded after it
        volume = _volume(fills, inverse)
        sharpe, sortino = _sharpe_sortino(level, point_ms)
        exposure, mean_use, max_use = _margin_use(
            fills, pos_size, start_ms, end_ms, inverse, leverage
        )
    final_wallet, final_equity = float(equity["wallet"][-1]), float(equity["equity"][-1])
    gain = _finite(final_equity / starting_balance)
    n_days = (end_ms - start_ms) / MS_PER_DAY
    return {
        "starting_balance": float(starting_balance),
        "final_wallet": final_wallet,
        "final_equity": final_equity,
        "open_pnl": final_equity - final_wallet,
        "net_pnl_plus_fees": float((pnl + fee).sum()),
        "gain": gain,
        "n_days": n_days,
        "average_daily_gain": _bounded_daily(gain, n_days),
        "profit_sum": profit_sum,
        "loss_sum": loss_sum,
        "loss_profit_ratio": _loss_profit_ratio(profit_sum, loss_sum),
        "fee_sum": float(fee.sum()),
        "funding_sum": sums[Kind.FUNDING],
        "volume": volume,
        "max_drawdown": drawdown,
        "max_drawdown_hours": drawdown_ms / MS_PER_HOUR,
        "max_loss": _loss_at(float(level.min()), starting_balance),
        "sharpe": sharpe,
        "sortino": sortino,
        "worst_open_loss": float(worst_open_loss),
        "closest_liq": float(closest_liq),
        "biggest_pos_size": float(pos_size.max(initial=0.0)),
        "exposure": exposure,
        "mean_margin_use": mean_use,
        "max_margin_use": max_use,
        "n_trades": n_trades,
        "n_entries": counts[Kind.ENTRY],
        "n_reentries": counts[Kind.REENTRY],
        "n_closes": counts[Kind.CLOSE],
        "n_stop_losses": n_stop_liq + n_stop_price,
        "n_stop_loss_liq_diff": n_stop_liq,
        "n_stop_loss_pos_price_diff": n_stop_price,
        "n_liquidations": counts[Kind.LIQUIDATION],
        "n_fundings": counts[Kind.FUNDING],
        "mean_n_hours_between_consec_trades": mean_hours,
        "median_n_hours_between_consec_trades": median_hours,
        "max_n_hours_between_consec_trades": max_hours,
        "max_hours_without_fill": _longest_pause(filled_ms, max_hours, start_ms, end_ms),
    }


def _finite(value: float) -> float:
    return min(max(value, -sys.float_info.max), sys.float_info.max)


def _bounded_daily(gain: float, n_days: float) -> float:
    if n_days <= 0.0:
        return 1.0 if gain > 0.0 else 0.0
    return min(_daily(gain, n_days), LARGEST)


def _loss_profit_ratio(profit_sum: float, loss_sum: float) -> float:
    if profit_sum > 0.0:
        return min(max(0.0, -loss_sum / profit_sum), LARGEST)
    return LARGEST if min(profit_sum, loss_sum) < 0.0 else 0.0


def _loss_at(least_equity: float, starting_balance: float) -> float:
    """Return the share of the starting balance that is lost there."""
    return max(0.0, 1.0 - max(least_equity, 0.0) / starting_balance)


def _pauses(filled_ms: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Return mean, median and most of the hours from one fill to the next."""
    if len(filled_ms) < 2:
        return 0.0, 0.0, 0.0
    hours = (filled_ms[1:] - filled_ms[:-1]) / MS_PER_HOUR
    mean = _mean(hours)
    hours.sort()
    half = len(hours) // 2
    median = hours[half] if len(hours) % 2 else (hours[half - 1] + hours[half]) / 2
    return mean, float(median), float(hours[-1])


def _longest_pause(
    filled_ms: npt.NDArray[np.int64], between: float, start_ms: int, end_ms: int
) -> float:
    """Return the longest time without a fill in hours, of which ``between`` is one."""
    if len(filled_ms) == 0:
        return (end_ms - start_ms) / MS_PER_HOUR
    before, after = int(filled_ms[0]) - start_ms, end_ms - int(filled_ms[-1])
    return max(between, before / MS_PER_HOUR, after / MS_PER_HOUR)


def _mean(values: npt.NDArray[np.float64]) -> float:
    # As ndarray.mean, to the last bit and without its detours.
    return float(values.sum()) / len(values)


def _cost(size: npt.NDArray[Any], price: npt.NDArray[Any], inverse: bool) -> npt.NDArray[Any]:
    """Return the notional of sizes >= 0 in settle currency; 0 where the price is not > 0."""
    out = np.zeros(len(size))
    (np.divide if inverse else np.multiply)(size, price, out=out, where=price > 0.0)
    return out


def _volume(fills: npt.NDArray[np.void], inverse: bool) -> float:
    return _finite(float(_cost(np.abs(fills["qty"]), fills["price"], inverse).sum()))


def _margin_use(
    fills: npt.NDArray[np.void],
    pos_size: npt.NDArray[np.float64],
    start_ms: int,
    end_ms: int,
    inverse: bool,
    leverage: float,
) -> tuple[float, float, float]:
    """Return exposure, mean and max margin use."""
    held, wallet = pos_size != 0.0, fills["balance"]
    use = held * LARGEST
    margin = _cost(pos_size, fills["pos_price"], inverse) / leverage
    np.divide(margin, wallet, out=use, where=held & (wallet > 0.0))
    np.minimum(use, LARGEST, out=use)
    most = float(use.max(initial=0.0))
    if end_ms <= start_ms:
        return 0.0, 0.0, most
    until_ms = np.empty(len(fills) + 1, np.int64)
    until_ms[:-1], until_ms[-1] = np.minimum(np.maximum(fills["ts_ms"], start_ms), end_ms), end_ms
    stay_ms = until_ms[1:] - until_ms[:-1]
    whole_ms = end_ms - start_ms
    return float(stay_ms @ held) / whole_ms, float(stay_ms @ use) / whole_ms, most


def _max_drawdown(
    level: npt.NDArray[np.float64], ts_ms: npt.NDArray[np.int64]
) -> tuple[float, int]:
    """Return the deepest drawdown and the milliseconds from its peak to its recovery."""
    peak = np.maximum.accumulate(level)
    if peak[0] > 0.0:
        drawdown = 1.0 - level / peak
    else:
        drawdown = 1.0 - np.divide(level, peak, out=np.ones(len(level)), where=peak > 0.0)
    trough = int(drawdown.argmax())
    if drawdown[trough] <= 0.0:
        return 0.0, 0
    begin = trough - int((level[trough::-1] == peak[trough]).argmax())
    recovered = level[trough:] >= peak[trough]
    finish = trough + int(recovered.argmax()) if recovered.any() else -1
    return float(drawdown[trough]), int(ts_ms[finish] - ts_ms[begin])


def _sharpe_sortino(
    level: npt.NDArray[np.float64], ts_ms: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Return both ratios of mean daily return to deviation, for a year."""
    # A midnight ends the day before it, except for the day that starts there.
    day_ms = int(MS_PER_DAY)
    first_day = int(ts_ms[0]) // day_ms
    if (int(ts_ms[-1]) - 1) // day_ms <= first_day:
        return 0.0, 0.0
    day = np.maximum((ts_ms - 1) // day_ms, first_day)
    ends_day = np.ones(len(day), np.bool_)
    np.not_equal(day[1:], day[:-1], out=ends_day[:-1])
    after = level[ends_day]
    before = np.empty(len(after))
    before[0], before[1:] = level[0], after[:-1]
    growth = np.ones(len(after))
    np.divide(after, before, out=growth, where=before > 0.0)
    returns = np.minimum(growth - 1.0, LARGEST)
    mean = _mean(returns)
    deviation = math.sqrt(float(np.square(returns - mean).sum()) / (len(returns) - 1))
    downside = math.sqrt(_mean(np.square(np.minimum(returns, 0.0))))
    sharpe = sortino = 0.0
    if deviation >= _NOISE:
        sharpe = mean / deviation * math.sqrt(DAYS_PER_YEAR)
    if downside >= _NOISE:
        sortino = mean / downside * math.sqrt(DAYS_PER_YEAR)
    elif mean >= _NOISE:
        sortino = LARGEST
    return min(max(sharpe, -LARGEST), LARGEST), min(max(sortino, -LARGEST), LARGEST)
