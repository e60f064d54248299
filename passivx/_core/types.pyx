"""NumPy twins of the core's C structs, and what this build was made with."""

import numpy as np

cdef extern from *:
    """
    #if defined(__VERSION__)
    #define PASSIVX_COMPILER __VERSION__
    #else
    #define PASSIVX_COMPILER "unknown"
    #endif
    """
    const char* PASSIVX_COMPILER
    int PASSIVX_DEBUG


STEP_DTYPE = np.dtype([("units", "<f8"), ("scale", "<f8")])
MARKET_DTYPE = np.dtype([
    ("price_step", STEP_DTYPE), ("qty_step", STEP_DTYPE), ("min_qty", "<f8"), ("min_cost", "<f8"),
    ("maker_fee", "<f8"), ("taker_fee", "<f8"), ("notional_cap", "<f8"), ("inverse", "<i8"),
])
TIER_DTYPE = np.dtype([("floor", "<f8"), ("maintenance_rate", "<f8"), ("deduction", "<f8")])
STRATEGY_DTYPE = np.dtype(
    [(name, "<f8") for name in (
        "balance_pct", "leverage", "entry_qty_pct", "ddown_factor", "grid_spacing",
        "grid_coefficient", "min_markup", "max_markup", "min_close_qty_multiplier",
        "stop_loss_liq_diff", "stop_loss_pos_price_diff", "stop_loss_pos_reduction",
        "ema_spread", "max_order_distance",
    )]
    + [(name, "<i8") for name in (
        "n_close_orders", "n_entry_orders", "do_long", "do_short", "funding_fee_collect_mode",
    )]
)
VIEW_DTYPE = np.dtype(
    [(name, "<f8") for name in (
        "wallet", "equity", "size", "entry_price", "liq_price", "last_price", "bid", "ask", "ema",
        "funding_rate", "close_base", "stop_price", "stop_qty",
    )]
    + [("stop_kind", "<i8"), ("stop_due", "<i8")]
)
ORDER_DTYPE = np.dtype([
    ("side", "<i8"), ("price", "<f8"), ("qty", "<f8"), ("reduce_only", "<i8"), ("kind", "<i8"),
])
FILL_DTYPE = np.dtype(
    [(name, "<i8") for name in ("tick", "ts_ms", "position_side", "kind")]
    + [(name, "<f8") for name in (
        "price", "qty", "pos_size", "pos_price", "liq_price", "pnl", "fee", "balance",
        "closest_liq",
    )]
)
EQUITY_DTYPE = np.dtype([("ts_ms", "<i8"), ("wallet", "<f8"), ("equity", "<f8")])
FUNDING_DTYPE = np.dtype([("ts_ms", "<i8"), ("rate", "<f8")])

KIND_NAMES = {
    Kind.ENTRY: "entry",
    Kind.REENTRY: "reentry",
    Kind.CLOSE: "close",
    Kind.STOP_LOSS_LIQ_DIFF: "stop_loss_liq_diff",
    Kind.STOP_LOSS_POS_PRICE_DIFF: "stop_loss_pos_price_diff",
    Kind.FUNDING: "funding",
    Kind.LIQUIDATION: "liquidation",
}

for _size, _dtype in (
    (sizeof(Step), STEP_DTYPE), (sizeof(Market), MARKET_DTYPE), (sizeof(Tier), TIER_DTYPE),
    (sizeof(Strategy), STRATEGY_DTYPE), (sizeof(View), VIEW_DTYPE), (sizeof(Order), ORDER_DTYPE),
    (sizeof(Fill), FILL_DTYPE), (sizeof(Equity), EQUITY_DTYPE), (sizeof(Funding), FUNDING_DTYPE),
):
    if _size != _dtype.itemsize:
        raise ImportError(f"passivx._core: a struct and its dtype disagree: {_dtype}")


def build_info():
    """Return how the core was compiled: ``{"debug": bool, "compiler": str}``."""
    return {"debug": bool(PASSIVX_DEBUG), "compiler": PASSIVX_COMPILER.decode()}
