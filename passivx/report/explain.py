"""A config in plain words: what each field does to the grid, with this file's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from passivx._core.grid import INVERSE_SHARE, LINEAR_SHARE, WIDEST_GAP
from passivx.config import Config
from passivx.documents import fields_of

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One field: dotted path, its value here, what it means, what it does with this value."""

    field: str
    value: bool | int | float | str
    meaning: str
    effect: str


def explain(config: Config) -> list[Explanation]:
    """Return every field of ``config`` in the order of its model.

    Sizes leave the venue's steps and minimums out, so they hold on any market; `passivx grid` shows
    the orders themselves.
    """
    out = []
    for path, info in fields_of(Config):
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        out.append(Explanation(path, value, info.description or "", _EFFECTS[path](config)))
    return out


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.4g} %"


def _number(value: float) -> str:
    return f"{value:,.6g}"


def _count(n: int, what: str, plural: str) -> str:
    return f"{n} {what if n == 1 else plural}"


def _balance(c: Config) -> str:
    rest = 1 - c.balance_pct
    spare = f"; {_percent(rest)} stays in reserve" if rest > 0 else "; nothing in reserve"
    return f"sizes are computed from {_percent(c.balance_pct)} of the wallet{spare}"


def _leverage(c: Config) -> str:
    linear, inverse = (
        share * c.balance_pct * c.leverage for share in (LINEAR_SHARE, INVERSE_SHARE)
    )
    return (
        f"the venue is set to {c.venue_leverage}x; a full position is about {linear:.3g} times the "
        f"wallet ({inverse:.3g} on an inverse market)"
    )


def _entry(c: Config) -> str:
    wallet = c.balance_pct * c.leverage * c.entry_qty_pct
    return (
        f"first entry uses {_percent(c.entry_qty_pct)} of balance × leverage, "
        f"worth {_percent(wallet)} of the wallet"
    )


def _filled(c: Config) -> list[float]:
    """Return the margin, as a share of the balance, before each re-entry that has room."""
    shares = [c.entry_qty_pct]
    while len(shares) < c.n_entry_orders and shares[-1] * (1 + c.ddown_factor) < LINEAR_SHARE:
        shares.append(shares[-1] * (1 + c.ddown_factor))
    return shares


def _re_entry(c: Config) -> str:
    if c.ddown_factor == 0:
        return "each re-entry is the smallest order the venue takes"
    text = f"each re-entry makes the position {_number(1 + c.ddown_factor)} times as large"
    fills = (math.log(LINEAR_SHARE) - math.log(c.entry_qty_pct)) / math.log1p(c.ddown_factor)
    if fills <= 0:
        return f"{text}; the first entry already fills the maximum position"
    if fills > 1000:
        return f"{text}; the maximum position is out of reach"
    count = _count(math.ceil(fills), "re-entry", "re-entries")
    return f"{text}; the maximum position is reached within {count}"


def _spacing(c: Config) -> str:
    gap = c.grid_spacing * (1 + c.entry_qty_pct * c.grid_coefficient)
    return f"{_percent(c.grid_spacing)} at least; after a first entry it is {_percent(gap)}"


def _coefficient(c: Config) -> str:
    if c.grid_coefficient == 0:
        return f"every re-entry is {_percent(c.grid_spacing)} from the average entry"
    gaps = [c.grid_spacing * (1 + share * c.grid_coefficient) for share in _filled(c)[:4]]
    more = ", ..." if len(_filled(c)) > 4 else ""
    return (
        f"re-entries are {', '.join(map(_percent, gaps))}{more} from the average entry of the "
        "position then held"
    )


def _re_entries(c: Config) -> str:
    at_most = f"at most {_count(c.n_entry_orders, 're-entry', 're-entries')} at once"
    return f"{at_most}, those within {_percent(c.max_order_distance)} of the last price"


def _close_gap(c: Config) -> float | None:
    """Return the first gap of the close grid of a large position; None when it is one price."""
    if c.n_close_orders == 1 or c.max_markup == c.min_markup:
        return None
    return (c.max_markup - c.min_markup) / (c.n_close_orders - 1) / (1 + c.min_markup)


def _closes(c: Config) -> str:
    gap = _close_gap(c)
    if gap is None:
        return f"one order closes everything {_percent(c.min_markup)} from the average entry"
    if gap > WIDEST_GAP:
        return (
            f"{c.n_close_orders} closes would be {_percent(gap)} apart, wider than "
            f"{_percent(WIDEST_GAP)}: one order closes everything at min_markup instead"
        )
    return f"up to {c.n_close_orders} closes, {_percent(gap)} or more apart"


def _farthest(c: Config) -> str:
    gap = _close_gap(c)
    if gap is None or gap > WIDEST_GAP:
        return "no effect here: see n_close_orders"
    return f"the last part of a position closes {_percent(c.max_markup)} from the average entry"


def _least_close(c: Config) -> str:
    if c.min_close_qty_multiplier == 0:
        return "a close may be as small as the venue allows"
    parts = math.floor(min(c.n_close_orders, 1 / c.min_close_qty_multiplier))
    return f"a position of one first entry closes in {_count(parts, 'order', 'orders')} at most"


def _stop_off(c: Config) -> bool:
    return c.stop_loss_pos_reduction == 0


def _stop_liq(c: Config) -> str:
    if _stop_off(c):
        return "no effect: stop_loss_pos_reduction 0 switches stops off"
    return f"stops begin {_percent(c.stop_loss_liq_diff)} before the liquidation price"


def _stop_entry(c: Config) -> str:
    if _stop_off(c):
        return "no effect: stop_loss_pos_reduction 0 switches stops off"
    if c.stop_loss_pos_price_diff >= 1:
        short = f"; a short at {_number(1 + c.stop_loss_pos_price_diff)} times its entry"
        return f"never for a long (a price cannot fall by 100 %){short}"
    return f"stops begin {_percent(c.stop_loss_pos_price_diff)} on the losing side of the entry"


def _reduction(c: Config) -> str:
    if _stop_off(c):
        return "stops are switched off: a losing position is held until it closes or is liquidated"
    return (
        f"each stop closes {_percent(c.stop_loss_pos_reduction)} of the position; "
        f"the next one not before {_number(c.requote_ms / 1000)} s"
    )


def _market_stop(c: Config) -> str:
    if c.market_stop_loss:
        return "a stop is certain to fill and pays the taker fee"
    return "a stop rests at the best price and may be left behind by a fast market"


def _span(c: Config) -> str:
    span = c.indicator_settings.tick_ema.span
    if span == 1:
        return "entries follow the last price"
    return f"the last {_number(span)} price changes carry about 86 % of the weight"


def _spread(c: Config) -> str:
    spread = c.indicator_settings.tick_ema.spread
    if spread == 0:
        return "entries rest at the average, or at the best price when that is farther"
    return f"longs open {_percent(spread)} below the average, shorts as much above"


def _side(allowed: bool, other: bool) -> str:
    if allowed:
        return "opened" if other else "the only side opened"
    return "never opened" if other else "never opened, nor is the other side: no trading"


_EFFECTS: Final[dict[str, Callable[[Config], str]]] = {
    "config_name": lambda c: "log lines and files carry it",
    "symbol": lambda c: f"only {c.symbol} is traded with this config",
    "cross_mode": lambda c: (
        "the whole wallet backs a position: all of it can be lost"
        if c.cross_mode
        else "a position can lose its own margin, not the rest of the wallet"
    ),
    "balance_pct": _balance,
    "leverage": _leverage,
    "entry_qty_pct": _entry,
    "ddown_factor": _re_entry,
    "grid_spacing": _spacing,
    "grid_coefficient": _coefficient,
    "n_entry_orders": _re_entries,
    "min_markup": lambda c: f"the first close is {_percent(c.min_markup)} from the average entry",
    "max_markup": _farthest,
    "n_close_orders": _closes,
    "min_close_qty_multiplier": _least_close,
    "indicator_settings.tick_ema.span": _span,
    "indicator_settings.tick_ema.spread": _spread,
    "indicator_settings.do_long": lambda c: _side(
        c.indicator_settings.do_long, c.indicator_settings.do_shrt
    ),
    "indicator_settings.do_shrt": lambda c: _side(
        c.indicator_settings.do_shrt, c.indicator_settings.do_long
    ),
    "indicator_settings.funding_fee_collect_mode": lambda c: (
        "a side opens only while funding pays it"
        if c.indicator_settings.funding_fee_collect_mode
        else "funding does not decide which side opens"
    ),
    "stop_loss_liq_diff": _stop_liq,
    "stop_loss_pos_price_diff": _stop_entry,
    "stop_loss_pos_reduction": _reduction,
    "market_stop_loss": _market_stop,
    "logging_level": lambda c: (
        f"written to logs/EXCHANGE/{c.config_name}.log" if c.logging_level else "no log file"
    ),
    "strategy": lambda c: "the rules all of this follows",
    "max_order_distance": lambda c: (
        f"re-entries beyond {_percent(c.max_order_distance)} wait until the price comes nearer"
    ),
    "requote_ms": lambda c: f"orders are reconsidered every {_number(c.requote_ms / 1000)} s",
    "requote_tolerance": lambda c: (
        f"a flat entry moves only when it is {_percent(c.requote_tolerance)} off"
    ),
    "orders_per_batch": lambda c: (
        f"{_count(c.orders_per_batch, 'order', 'orders')} a message group"
    ),
    "book": lambda c: (
        "best bid and ask as the venue streams them"
        if c.book == "ticker"
        else "best bid and ask deduced from the trades, as in a backtest"
    ),
}
