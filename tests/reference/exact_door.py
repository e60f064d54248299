"""The compiled exact engine spoken to in the twin's words, so that their answers compare."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from passivx._core import exact
from passivx._core.matching import FillMode
from passivx._core.types import FUNDING_DTYPE

from .exact_twin import Outcome, Scenario


def to_settings(s: Scenario) -> npt.NDArray[np.void]:
    """The scenario as the engine's one-element array."""
    out = np.zeros(1, exact.EXACT_DTYPE)
    out["strategy"] = s.strategy
    out["market"] = s.market
    for name in ("requote_ms", "requote_tolerance", "orders_per_batch", "market_stop_loss"):
        out["flow"][name] = getattr(s, name)
    for name in (
        "starting_balance", "ema_span", "latency_ms", "cancel_latency_ms", "queue_share",
        "venue_leverage", "liquidation_fee", "cross_mode",
    ):  # fmt: skip
        out[name] = getattr(s, name)
    out["fill_mode"] = FillMode[s.fill.upper()]
    return out


def run_engine(s: Scenario, *, chunk: int = 10_000_000) -> Outcome:
    """`exact_twin.run_exact`, answered by `passivx._core.exact`."""
    fills, equity, ended, _, _, worst_open_loss, closest_liq = exact.run(
        s.price,
        s.qty,
        s.ts_ms,
        s.buyer_maker,
        to_settings(s),
        s.tiers,
        np.asarray(s.funding, FUNDING_DTYPE),
        chunk=chunk,
    )
    outcome = "end"
    if ended == exact.Outcome.LIQUIDATION:
        outcome = "long_liquidation" if fills["position_side"][-1] > 0 else "shrt_liquidation"
    names = fills.dtype.names or ()
    return Outcome(
        records=[dict(zip(names, row, strict=True)) for row in fills.tolist()],
        equity=equity.tolist(),
        outcome=outcome,
        worst_open_loss=worst_open_loss,
        closest_liq=closest_liq,
    )
