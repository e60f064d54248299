"""The simulated venue once more, slow and clear: exact fractions, one rule after the other.

It is written from docs/backtest.md and from what the venues document, not from `SimVenue`. Prices
and quantities are given as `Fraction`; money is never rounded. Margin is cross and there is no
maintenance margin: a position is liquidated where nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

ZERO = Fraction(0)


class RefusedError(Exception):
    """A request is refused, for the reason in words of `Reason`."""


@dataclass(frozen=True)
class Rules:
    """What the venue asks of orders."""

    price_step: Fraction
    qty_step: Fraction
    min_qty: Fraction
    max_qty: Fraction
    max_market_qty: Fraction
    min_cost: Fraction
    min_price: Fraction
    max_price: Fraction
    max_orders: int
    band_up: Fraction
    band_down: Fraction
    maker_fee: Fraction
    taker_fee: Fraction
    inverse: bool
    leverage: Fraction
    binance: bool  # else Bybit


@dataclass
class Order:
    name: str
    side: int
    price: Fraction
    qty: Fraction
    reduce_only: bool
    tif: str
    filled: Fraction = ZERO
    status: str = "open"  # filled, canceled, expired
    reason: str = ""

    @property
    def left(self) -> Fraction:
        return self.qty - self.filled


@dataclass
class Twin:
    rules: Rules
    last: Fraction
    wallet: Fraction
    size: Fraction = ZERO
    entry: Fraction = ZERO
    bid: Fraction = ZERO
    ask: Fraction = ZERO
    level: Fraction = ZERO  # where the position is liquidated; 0 = nowhere
    fixed_at: Fraction = ZERO  # the price at which that was found
    book: list[Order] = field(default_factory=list)  # by arrival
    names: dict[str, Order] = field(default_factory=dict)
    fills: list[tuple[str, Fraction, Fraction, Fraction, Fraction]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bid, self.ask = self.last - self.rules.price_step, self.last + self.rules.price_step

    # --- money ---

    def value(self, qty: Fraction, price: Fraction) -> Fraction:
        return abs(qty) / price if self.rules.inverse else abs(qty) * price

    def gain(self, size: Fraction, start: Fraction, end: Fraction) -> Fraction:
        """Of a signed position that goes from one price to another."""
        if self.rules.inverse:
            return size * (1 / start - 1 / end)
        return size * (end - start)

    @property
    def equity(self) -> Fraction:
        return self.wallet + (self.gain(self.size, self.entry, self.last) if self.size else ZERO)

    def fix_level(self, price: Fraction) -> None:
        self.level, self.fixed_at = ZERO, price
        if self.size == 0:
            return
        if self.rules.inverse:
            inverted = 1 / self.entry + self.wallet / self.size
            self.level = 1 / inverted if inverted > 0 else ZERO
        else:
            self.level = max(self.entry - self.wallet / self.size, ZERO)

    def beyond_level(self, price: Fraction) -> bool:
        return self.level > 0 and (price <= self.level if self.size > 0 else price >= self.level)

    def liquidate(self) -> None:
        price = (min if self.size > 0 else max)(self.level, self.fixed_at)
        pnl = self.gain(self.size, self.entry, price)
        fee = -self.value(self.size, price) * self.rules.taker_fee
        if self.wallet + pnl + fee < 0:
            pnl = -self.wallet - fee
        self.wallet += pnl + fee
        self.fills.append(("", -self.size, price, pnl, fee))
        self.size = self.entry = self.level = ZERO
        for order in list(self.book):
            self.end(order, "expired", "liquidation")

    def take(self, order: Order) -> None:
        """Fill all of it at the opposite best, unless that is where the position is gone."""
        best = self.ask if order.side > 0 else self.bid
        if self.beyond_level(best):
            self.liquidate()
            self.end(order, "expired", "liquidation")
        else:
            self.trade(order, order.left, best, self.rules.taker_fee)

    def trade(self, order: Order, qty: Fraction, price: Fraction, rate: Fraction) -> None:
        signed = order.side * qty
        closed = ZERO
        if self.size * signed < 0:
            closed = min(qty, abs(self.size)) * (1 if self.size > 0 else -1)
        pnl = self.gain(closed, self.entry, price) if closed else ZERO
        fee = -self.value(qty, price) * rate
        new = self.size + signed
        if self.size * signed >= 0:
            if self.rules.inverse:
                self.entry = new / ((self.size / self.entry if self.size else 0) + signed / price)
            else:
                self.entry = (self.size * self.entry + signed * price) / new
        elif new * self.size < 0:
            self.entry = price
        if new == 0:
            self.entry = ZERO
        self.size = new
        self.wallet += pnl + fee
        self.fix_level(price)
        order.filled += qty
        self.fills.append((order.name, signed, price, pnl, fee))
        if order.left == 0:
            order.status = "filled"
            self.drop(order)
        for other in list(self.book):
            if other.reduce_only and -other.side * self.size <= 0:
                self.end(other, "expired", "reduce_only")

    # --- orders ---

    def drop(self, order: Order) -> None:
        self.book = [other for other in self.book if other is not order]

    def end(self, order: Order, status: str, reason: str) -> None:
        self.drop(order)
        order.status, order.reason = status, reason

    def check_numbers(self, price: Fraction | None, qty: Fraction) -> None:
        r = self.rules
        if price is not None and not (
            r.min_price <= price <= r.max_price and price % r.price_step == 0
        ):
            raise RefusedError("bad_price")
        if qty < r.min_qty:
            raise RefusedError("qty_too_small")
        if qty > (r.max_market_qty if price is None else r.max_qty):
            raise RefusedError("qty_too_large")
        if qty % r.qty_step:
            raise RefusedError("bad_qty")

    def check_notional(self, qty: Fraction, price: Fraction) -> None:
        if not self.rules.inverse and qty * price < self.rules.min_cost:
            raise RefusedError("notional_too_small")

    def in_band(self, side: int, price: Fraction) -> Fraction:
        r = self.rules
        highest, lowest = self.last * r.band_up, self.last * r.band_down
        if side > 0 and price > highest:
            moved = highest // r.price_step * r.price_step
        elif side < 0 and price < lowest:
            moved = -(-lowest // r.price_step) * r.price_step
        else:
            return price
        if r.binance:
            raise RefusedError("out_of_band")
        return min(max(moved, r.min_price), r.max_price)

    def check_reduces(self, order: Order, qty: Fraction, at_market: bool) -> None:
        held = -order.side * self.size
        if held <= 0:
            raise RefusedError("would_not_reduce")
        if not self.rules.binance or (at_market and qty >= held):
            return
        if qty > held:
            raise RefusedError("would_not_reduce")
        others = sum(
            o.left for o in self.book if o.reduce_only and o.side == order.side and o is not order
        )
        if others + qty > held:
            raise RefusedError("reduce_only_sum")

    def needs(self, side: int, orders: list[Order], extra: Fraction) -> Fraction:
        held = self.value(self.size, self.last) * (1 if self.size > 0 else -1)
        mine = sum(
            (self.value(o.left, o.price) for o in orders if o.side == side and not o.reduce_only),
            ZERO,
        )
        return abs(held + side * (mine + extra))

    def check_margin(self, order: Order, qty: Fraction, price: Fraction) -> None:
        side = order.side
        before = max(self.needs(s, self.book, ZERO) for s in (1, -1))
        others = [o for o in self.book if o is not order]
        after = self.needs(side, others, self.value(qty, price))
        if after > before and after > self.equity * self.rules.leverage:
            raise RefusedError("margin")

    def crosses(self, side: int, price: Fraction) -> bool:
        return price >= self.ask if side > 0 else price <= self.bid

    def place(
        self,
        name: str,
        side: int,
        price: Fraction | None,
        qty: Fraction,
        *,
        reduce_only: bool,
        tif: str,
    ) -> Order:
        """``price`` None is a market order; ``tif`` GTC, IOC, FOK or POST_ONLY."""
        same = self.names.get(name)
        if same and (not self.rules.binance or same.status == "open"):
            raise RefusedError("duplicate_id")
        self.check_numbers(price, qty)
        if not reduce_only:
            self.check_notional(qty, self.last if price is None else price)
        best = self.ask if side > 0 else self.bid
        if price is not None:
            price = self.in_band(side, price)
            if len(self.book) >= self.rules.max_orders:
                raise RefusedError("too_many_orders")
        order = Order(name, side, ZERO if price is None else price, qty, reduce_only, tif)
        takes = price is None or self.crosses(side, price)
        if reduce_only:
            self.check_reduces(order, qty, price is None)
            if takes:
                order.qty = min(qty, abs(self.size))
        else:
            self.check_margin(order, qty, best if price is None else price)
        ending = "post_only" if tif == "POST_ONLY" and takes else ""
        ending = "fok" if tif == "FOK" and not takes else ending
        if ending and self.rules.binance:
            raise RefusedError("would_take" if takes else "cannot_fill")
        self.names[name] = order
        if ending:
            order.status, order.reason = "canceled", ending
        elif takes:
            self.take(order)
        elif tif == "IOC":
            order.status, order.reason = "expired", "ioc"
        else:
            self.book.append(order)
        return order

    def amend(self, order: Order, price: Fraction, qty: Fraction) -> None:
        if order.status != "open":
            raise RefusedError("finished_order")
        if (price, qty) == (order.price, order.qty):
            raise RefusedError("unchanged")
        self.check_numbers(price, qty)
        if qty <= order.filled:
            if self.rules.binance:
                self.end(order, "canceled", "amended")
            raise RefusedError("already_filled")
        if not order.reduce_only:
            self.check_notional(qty, price)
        price = self.in_band(order.side, price)
        left = qty - order.filled
        takes = self.crosses(order.side, price)
        if order.reduce_only:
            self.check_reduces(order, left, False)
            if takes:
                left = min(left, abs(self.size))
        else:
            self.check_margin(order, left, price)
        if takes and order.tif == "POST_ONLY":
            self.end(order, "canceled", "post_only")
            if self.rules.binance:
                raise RefusedError("would_take")
            return
        self.drop(order)
        order.price, order.qty = price, order.filled + left
        if takes:
            self.take(order)
        else:
            self.book.append(order)

    def cancel(self, order: Order) -> None:
        if order.status != "open":
            raise RefusedError("finished_order")
        self.end(order, "canceled", "user")

    # --- the market ---

    def print(self, price: Fraction, buyer_maker: bool) -> None:
        step = self.rules.price_step
        self.last = price
        if buyer_maker:
            self.bid = price
            self.ask = price + step if price >= self.ask else self.ask
        else:
            self.ask = price
            self.bid = price - step if price <= self.bid else self.bid
        side = 1 if buyer_maker else -1
        while hit := [o for o in self.book if o.side == side and side * price < side * o.price]:
            best = max(hit, key=lambda o: side * o.price)  # the oldest of them
            if self.beyond_level(best.price):
                self.liquidate()
                return
            qty = min(best.left, abs(self.size)) if best.reduce_only else best.left
            self.trade(best, qty, best.price, self.rules.maker_fee)
        if side * self.size > 0 and self.beyond_level(price):
            self.liquidate()

    def fill(self, order: Order, qty: Fraction) -> None:
        if self.beyond_level(order.price):
            self.liquidate()
            return
        if order.reduce_only:
            qty = min(qty, abs(self.size))
        self.trade(order, qty, order.price, self.rules.maker_fee)

    def deposit(self, amount: Fraction) -> None:
        self.wallet += amount
        self.fix_level(self.last)

    def fund(self, rate: Fraction) -> Fraction:
        value = self.value(self.size, self.last) * (1 if self.size > 0 else -1)
        self.wallet -= value * rate
        self.fix_level(self.last)
        return -value * rate
