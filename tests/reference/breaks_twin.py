"""break_on as the original did it: conditions run as Python on a list of dicts. Tests only.

A record that does not exist yet answers as the engine does: NaN, and no text comparison holds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

NAN = float("nan")
LOSSES = ("stop_loss_liq_diff", "stop_loss_pos_price_diff", "liquidation")
OLD_NAMES = {
    "net_pnl_plus_fees": "pnl_plus_fees_cumsum",
    "daily_gain_ratio": "average_daily_gain",
    "loss_sum": "loss_cumsum",
    "profit_sum": "profit_cumsum",
    "pnl_sum": "pnl_cumsum",
    "fee_sum": "fee_paid_cumsum",
}


class Nothing(str):
    """The type of a record that is not there."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def startswith(self, *args: Any) -> bool:
        return False

    __hash__ = str.__hash__


class Records(list[dict[str, Any]]):
    def __getitem__(self, index: Any) -> Any:
        if index == -2 and len(self) == 1:
            return dict.fromkeys(self[0], NAN) | {"type": Nothing(), "side": Nothing()}
        return super().__getitem__(index)


def open_pnl(size: float, entry: float, price: float, inverse: bool) -> float:
    if size == 0.0:
        return 0.0
    bought, sold = (entry, price) if size > 0.0 else (price, entry)
    with np.errstate(all="ignore"):
        a, b = np.float64(bought), np.float64(sold)
        return float(abs(size) * ((1 / a - 1 / b) if inverse else (b - a)))


def power(base: float, exponent: float) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def complete(
    rows: Sequence[Mapping[str, Any]], *, starting_balance: float, n_ticks: int, start_ms: int
) -> Records:
    """Return the original's records of rows that have what an engine writes, and ``equity``."""
    out = Records()
    pnl = profit = loss = fee = net = worst = 0.0
    peak = starting_balance
    for row in rows:
        record = {name: row[name] for name in row if name != "equity"}
        pnl += row["pnl"]
        if row["type"] in LOSSES:
            loss += row["pnl"]
        else:
            profit += row["pnl"]
        fee += row["fee_paid"]
        net += row["pnl"] + row["fee_paid"]
        peak = max(peak, row["equity"])
        fallen = (peak - row["equity"]) / peak
        worst = max(worst, fallen)
        days = (row["timestamp"] - start_ms) / 86_400_000
        gain = 1 + net / starting_balance
        record |= {
            "pnl_plus_fee": row["pnl"] + row["fee_paid"],
            "pnl_cumsum": pnl,
            "profit_cumsum": profit,
            "loss_cumsum": loss,
            "fee_paid_cumsum": fee,
            "pnl_plus_fees_cumsum": net,
            "average_daily_gain": power(gain, 1 / days) if gain > 0 and days > 0 else 0.0,
            "closest_liq": min(row["closest_long_liq"], row["closest_shrt_liq"]),
            "millis_since_prev_trade": row["timestamp"] - out[-1]["timestamp"] if out else 0,
            "progress": row["trade_id"] / n_ticks,
            "max_drawdown": worst,
        }
        out.append(record | {old: record[new] for old, new in OLD_NAMES.items()})
    return out


class Ticks:
    """``len(ticks)`` and ``ticks[k]`` by the keys that published conditions use."""

    def __init__(self, price: Mapping[int, float], ts_ms: Mapping[int, int], n: int) -> None:
        self.price, self.ts_ms, self.n = price, ts_ms, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, k: int) -> dict[Any, Any]:
        price, ts_ms = self.price[k], self.ts_ms[k]
        return {"price": price, 0: price, "timestamp": ts_ms, 2: ts_ms}


def as_python(text: str) -> Callable[[Records, Ticks, int], Any]:
    def calc_diff(x: float, y: float) -> float:
        return abs(x - y) / abs(y)

    function: Callable[[Records, Ticks, int], Any] = eval(text, {"calc_diff": calc_diff})
    return function


def holds(value: Any) -> bool:
    return bool(value) and value == value


def first_break(conditions: Sequence[str], records: Records, ticks: Ticks) -> tuple[int, int]:
    """Return the first record for which a condition holds, and which; (-1, -1) for none."""
    functions = [as_python(text) for text in conditions]
    for i in range(len(records)):
        seen = Records(records[: i + 1])
        for which, function in enumerate(functions):
            if holds(function(seen, ticks, records[i]["trade_id"])):
                return i, which
    return -1, -1
