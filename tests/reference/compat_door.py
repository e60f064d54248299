"""The compiled engine spoken to in the twin's words, so that their answers compare by field."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core import compat
from passivx._core.types import KIND_NAMES, Kind
from passivx.breaks import BreakRules

# engine name -> golden name, where they differ
SETTING_NAMES = {"latency_ms": "latency_simulation_ms", "do_short": "do_shrt"}
FIELD_NAMES = {
    "trade_id": "tick",
    "fee_paid": "fee",
    "actual_balance": "balance",
    "timestamp": "ts_ms",
    "closest_shrt_liq": "closest_short_liq",
}
FIELDS = (
    "trade_id",
    "side",
    "type",
    "price",
    "qty",
    "pos_size",
    "pos_price",
    "liq_price",
    "pnl",
    "fee_paid",
    "actual_balance",
    "apparent_balance",
    "pnl_plus_fees_cumsum",
    "timestamp",
    "closest_long_liq",
    "closest_shrt_liq",
    "reentry_price",
)


def to_settings(golden: Mapping[str, Any]) -> npt.NDArray[np.void]:
    """Settings under the golden names as the engine's one-element array."""
    out = np.zeros(1, compat.COMPAT_DTYPE)
    for name in compat.COMPAT_DTYPE.names or ():
        out[name] = golden[SETTING_NAMES.get(name, name)]
    return out


def to_rows(fills: npt.NDArray[np.void]) -> list[dict[str, Any]]:
    columns = {name: fills[FIELD_NAMES.get(name, name)].tolist() for name in FIELDS[3:]}
    columns["trade_id"] = fills["tick"].tolist()
    columns["side"] = ["long" if s > 0 else "shrt" for s in fills["position_side"]]
    columns["type"] = [KIND_NAMES[Kind(kind)] for kind in fills["kind"]]
    return [{name: columns[name][i] for name in FIELDS} for i in range(len(fills))]


def run_engine(
    price: npt.NDArray[np.float64],
    ts_ms: npt.NDArray[np.int64],
    buyer_maker: npt.NDArray[np.uint8],
    settings: Mapping[str, Any],
    *,
    breaks: BreakRules | None = None,
    chunk: int = 10_000_000,
) -> tuple[list[dict[str, Any]], str, int]:
    """`compat_twin.run_compat`, answered by `passivx._core.compat`; or "break:<name>"."""
    fills, liquidated, broken_by, thinned = compat.run(
        price,
        ts_ms,
        buyer_maker,
        to_settings(settings),
        breaks=breaks.program if breaks else None,
        chunk=chunk,
    )
    outcome = "end"
    if liquidated:
        outcome = "long_liquidation" if fills["pos_size"][-1] > 0 else "shrt_liquidation"
    if breaks and broken_by >= 0:
        outcome = f"break:{breaks.names[broken_by]}"
    return to_rows(fills), outcome, thinned
