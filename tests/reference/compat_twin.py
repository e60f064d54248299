"""The original backtester in slow, plain Python: what `_core.compat` is checked against.

Every number is a `numpy.float64`, so division by zero gives inf or NaN as it does in C, and the
grid is built with NumPy's own `linspace`, `unique`, `sum` and `round`, which the compiled engine
imitates.

`side` is +1 for a long and -1 for a short. Sizes are signed; the order formulas take absolute
values. `1 - side * x` is exactly `1 - x` or `1 + x`: mirroring through `side` costs no bit.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F = np.float64
Array = npt.NDArray[np.float64]

NO_SHORT_REENTRY = F(9e12)  # a price never reached; for a long it is price_step


# Rounding. Binary noise stays in: dn(0.29, 0.01) is 0.28.


def up(x: Any, step: Any) -> Any:
    return np.round(np.ceil(x / step) * step, 10)


def dn(x: Any, step: Any) -> Any:
    return np.round(np.floor(x / step) * step, 10)


def near(x: Any, step: Any) -> Any:
    return np.round(np.rint(x / step) * step, 10)


def diff(x: Any, y: Any) -> Any:
    return abs(x - y) / abs(y)


@dataclass
class Rules:
    """Settings under the golden cases' names, and every formula that depends on them alone."""

    s: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.inverse = bool(self.s["inverse"])
        for name, value in self.s.items():
            if name not in ("inverse", "do_long", "do_shrt"):
                setattr(self, name, F(value))

    def __getattr__(self, name: str) -> Any:  # tells the type checker that settings are attributes
        raise AttributeError(name)

    def cost(self, qty: Any, price: Any) -> Any:
        return abs(qty / price) if self.inverse else abs(qty * price)

    def margin(self, qty: Any, price: Any) -> Any:
        return self.cost(qty, price) / self.leverage

    def pnl(self, side: int, entry: Any, close: Any, qty: Any) -> Any:
        if self.inverse:
            gain = 1 / entry - 1 / close if side > 0 else 1 / close - 1 / entry
        else:
            gain = close - entry if side > 0 else entry - close
        return abs(qty) * gain

    def max_pos(self, balance: Any, price: Any) -> Any:
        if self.inverse:
            return balance * price * self.leverage
        return (balance / price) * self.leverage

    def min_qty_at(self, price: Any) -> Any:
        if self.inverse:
            return self.min_qty
        return max(self.min_qty, up(self.min_cost / price, self.qty_step))

    def first_qty(self, balance: Any, price: Any) -> Any:
        margin = balance * self.leverage
        most = margin * price if self.inverse else margin / price
        return max(self.min_qty_at(price), dn(most * abs(self.entry_qty_pct), self.qty_step))

    def min_close(self, balance: Any, price: Any) -> Any:
        first = self.first_qty(balance, price)
        return max(self.min_qty, dn(first * self.min_close_qty_multiplier, self.qty_step))

    def reentry_qty(self, size: Any, floor: Any, max_pos: Any) -> Any:
        held = abs(size)
        available = max(F(0.0), dn(max_pos - held, self.qty_step))
        return min(available, max(floor, dn(held * self.ddown_factor, self.qty_step)))

    def stop_qty(self, size: Any) -> Any:
        held = abs(size)
        return min(held, up(held * self.stop_loss_pos_reduction, self.qty_step))

    def liquidation(self, balance: Any, size: Any, entry: Any) -> Any:
        if size == 0:
            return F(0.0)
        price = self._liquidation(balance, size, entry)
        return F(0.0) if price < 0 else price

    def _liquidation(self, balance: Any, size: Any, entry: Any) -> Any:
        a = abs(size)
        if not self.inverse:
            m = a * entry / self.leverage
            d = a * F(0.004) - size
            return F(0.0) if d == 0 else (balance + m - size * entry) / d
        c = a / entry
        m = c / self.max_leverage
        if size > 0:
            bankruptcy = (F(1.00075) * a) / (c + (balance - m))
        else:
            bankruptcy = (F(0.99925) * a) / (c - (balance - m))
        if bankruptcy == 0:
            return F(0.0)
        r = -(balance - m - (a / entry) * F(0.005) - (a * F(0.00075)) / bankruptcy)
        if size > 0:
            return (entry * a) / (a - entry * r)
        return (entry * a) / (entry * r + a)

    def entry_price(self, side: int, ema: Any, ob_bid: Any, ob_ask: Any) -> Any:
        if side > 0:
            return min(ob_bid, dn(ema * (1 - self.ema_spread), self.price_step))
        return max(ob_ask, up(ema * (1 + self.ema_spread), self.price_step))

    def reentry_price(self, side: int, balance: Any, size: Any, entry: Any) -> Any:
        """The formula alone: the book does not limit it yet."""
        used = self.margin(size, entry) / balance
        g = self.grid_spacing * (1 + used * self.grid_coefficient)
        step = up(entry * self.grid_spacing / 4, self.price_step)  # a coarse grid of its own
        away = dn if side > 0 else up
        return away(entry * (1 - side * g), step)

    def first_close(self, side: int, p: Any, balance: Any, size: Any, entry: Any, book: Any) -> Any:
        """Price and quantity (> 0) of the nearest close; `book` is the side it joins."""
        size = abs(size)
        away, farther = (up, max) if side > 0 else (dn, min)
        n = int(np.rint(min(self.n_close_orders, size / self.min_close(balance, p))))
        near_markup = 1 + side * self.min_markup
        far_markup = 1 + side * self.max_markup
        prices = np.linspace(entry * near_markup, entry * far_markup, n)
        prices = np.unique(away(prices, self.price_step))  # ascending
        prices = prices[prices >= book] if side > 0 else prices[prices <= book][::-1]
        lone = len(prices) == 0
        if len(prices) > 1:
            lower, upper = sorted(prices[:2])
            lone = diff(upper, lower) > 0.003
        if lone:
            return farther(book, away(entry * near_markup, self.price_step)), size
        if len(prices) == 1:
            return prices[0], size
        qtys: Array = np.full(len(prices), up(size / len(prices), self.qty_step))
        total = np.sum(qtys)
        order = range(len(qtys)) if side > 0 else range(len(qtys) - 1, -1, -1)
        while total > size:
            for i in order:
                qtys[i] = near(qtys[i] - self.qty_step, self.qty_step)
                total = near(total - self.qty_step, self.qty_step)
                if total <= size:
                    break
        return prices[0], qtys[0]


def thin(price: Array) -> npt.NDArray[np.bool_]:
    """True where a tick's price differs from the tick before it."""
    keep = np.ones(len(price), dtype=bool)
    keep[1:] = price[1:] != price[:-1]
    return keep


def run_compat(
    price: Array,
    ts_ms: npt.NDArray[np.int64],
    buyer_maker: npt.NDArray[Any],
    settings: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], str, int]:
    """Replay raw ticks; return the fills, the outcome and how many thinned ticks were looked at.

    The outcome is ``"end"``, ``"long_liquidation"`` or ``"shrt_liquidation"``. A fill has the
    fields of a golden case's row, with NaN for null.
    """
    keep = thin(price)
    price, ts_ms, buyer_maker = price[keep], ts_ms[keep], buyer_maker[keep]
    # Over-leveraged accounts divide by zero and overflow on purpose: C does the same in silence.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return _run(list(price), ts_ms.tolist(), [bool(b) for b in buyer_maker], Rules(settings))


def _run(
    price: list[Any], ts_ms: list[int], buyer_maker: list[bool], r: Rules
) -> tuple[list[dict[str, Any]], str, int]:
    may_open = {1: bool(r.s["do_long"]), -1: bool(r.s["do_shrt"])}
    alpha = 2 / (r.ema_span + 1)
    beta = 1 - alpha

    ema = price[0]
    ob_bid, ob_ask = min(price[0], price[1]), max(price[0], price[1])
    size, entry, liq = F(0.0), F(0.0), F(0.0)
    actual = r.starting_balance
    apparent = actual * r.balance_pct
    closest = {1: F(1.0), -1: F(1.0)}
    stop, stop_kind = F(0.0), ""
    # Set by the first fill, before anything reads them.
    stop_liq, stop_pos, reentry_price, reentry_qty = F(0.0), F(0.0), F(0.0), F(0.0)
    last_fill_ts = 0
    cumsum = F(0.0)
    fills: list[dict[str, Any]] = []

    for i, (p, ts, sold) in enumerate(zip(price, ts_ms, buyer_maker, strict=True)):
        # A taker's sale fills bids, and so opens longs and closes shorts; a purchase the reverse.
        opens = 1 if sold else -1
        passed: Callable[[Any, Any], Any] = operator.lt if sold else operator.gt
        reached: Callable[[Any, Any], Any] = operator.le if sold else operator.ge
        held_side = int(np.sign(size))
        fill = None  # kind, position side, price, signed qty

        if held_side == 0:
            if may_open[opens]:
                at = r.entry_price(opens, ema, ob_bid, ob_ask)
                if passed(p, at):
                    fill = ("entry", opens, at, opens * r.first_qty(apparent, at))
        elif held_side == opens:
            closest[opens] = min(diff(liq, p), closest[opens])
            if reached(p, liq) and closest[opens] < 0.2:
                return fills, "long_liquidation" if opens > 0 else "shrt_liquidation", i + 1
            if passed(p, reentry_price):
                fill = ("reentry", opens, reentry_price, opens * reentry_qty)
            if reached(p, stop_liq):
                stop, stop_kind = ob_ask if opens > 0 else ob_bid, "stop_loss_liq_diff"
            elif reached(p, stop_pos):
                stop, stop_kind = ob_ask if opens > 0 else ob_bid, "stop_loss_pos_price_diff"
            else:
                stop = F(0.0)
        elif reached(p, entry):
            book = ob_ask if held_side > 0 else ob_bid
            at, qty = r.first_close(held_side, p, apparent, size, entry, book)
            if passed(p, at):
                fill = ("close", held_side, at, opens * qty)
        elif stop > 0 and passed(p, stop):
            fill = (stop_kind, held_side, stop, opens * r.stop_qty(size))

        if sold:
            ob_bid = p
        else:
            ob_ask = p
        ema = ema * beta + p * alpha

        if fill is None:
            continue
        kind, side, at, qty = fill
        two_reentries = kind == "reentry" and bool(fills) and fills[-1]["type"] == "reentry"
        if ts - last_fill_ts < r.latency_simulation_ms and not two_reentries:
            continue

        last_fill_ts = ts
        fee = -r.cost(qty, at) * r.maker_fee
        new = near(size + qty, F(1e-10))
        if kind in ("entry", "reentry"):
            pnl = F(0.0)
            entry = entry * abs(size / new) + at * abs(qty / new)
        else:
            pnl = r.pnl(side, entry, at, qty)
        size = new
        actual = max(r.starting_balance, actual + pnl + fee)
        apparent = actual * r.balance_pct
        liq = r.liquidation(actual, size, entry)
        cumsum = cumsum + (pnl + fee)

        stop = F(0.0)
        if size == 0:
            reentry_price = F(np.nan)
        else:
            side_now = 1 if size > 0 else -1
            reentry_price = r.reentry_price(side_now, apparent, size, entry)
            if side_now > 0:
                stop_liq = liq * (1 + r.stop_loss_liq_diff)
                reentry_price = max(r.price_step, min(ob_bid, reentry_price))
                never = r.price_step
            else:
                stop_liq = liq * (1 - r.stop_loss_liq_diff) if liq > 0 else entry * 10000
                reentry_price = max(r.price_step, ob_ask, reentry_price)
                never = NO_SHORT_REENTRY
            stop_pos = entry * (1 - side_now * r.stop_loss_pos_price_diff)
            floor = r.min_qty_at(reentry_price)
            reentry_qty = r.reentry_qty(size, floor, r.max_pos(apparent, reentry_price))
            if reentry_qty < floor:
                reentry_price = never

        fills.append(
            {
                "trade_id": i,
                "side": "long" if side > 0 else "shrt",
                "type": kind,
                "price": float(at),
                "qty": float(qty),
                "pos_size": float(size),
                "pos_price": float(entry),
                "liq_price": float(liq),
                "pnl": float(pnl),
                "fee_paid": float(fee),
                "actual_balance": float(actual),
                "apparent_balance": float(apparent),
                "pnl_plus_fees_cumsum": float(cumsum),
                "timestamp": ts,
                "closest_long_liq": float(closest[1]),
                "closest_shrt_liq": float(closest[-1]),
                "reentry_price": float(reentry_price),
            }
        )
        closest = {1: F(1.0), -1: F(1.0)}
    return fills, "end", len(price)
