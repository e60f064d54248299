"""The simulated venue without sockets: `exchanges.base.Exchange` on `simulator.venue.SimVenue`.

Everything runs on a virtual clock, so a run is the same every time. Within a millisecond things
happen in the order of docs/backtest.md, *One millisecond*, at these fractions of it:

  .0 prints · .1 a plan · .2 arrivals · .3 a plan after them · .4 funding · .5 requote · .6 arrivals
"""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from passivx.clock import VirtualClock
from passivx.exchanges.base import (
    Account,
    Fill,
    FillKind,
    Link,
    MarkPrice,
    NewOrder,
    Order,
    OrderStatus,
    Outcome,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Sink,
    Verdict,
)
from passivx.exchanges.stream import StreamState
from passivx.models import Position
from passivx.simulator.venue import (
    Execution,
    OrderType,
    Reason,
    Refusal,
    SimOrder,
    SimVenue,
    Status,
    TimeInForce,
)

GATHER_S = 0.0001
REQUOTE_PHASE_S = 0.0005
_ARRIVE_NS, _REQUOTE_NS, _AGAIN_NS, _MS_NS = 200_000, 500_000, 600_000, 1_000_000

_REACTIONS = {
    Reason.WOULD_TAKE: Reaction.REPRICE,
    Reason.UNKNOWN_ORDER: Reaction.GONE,
    Reason.FINISHED_ORDER: Reaction.GONE,
    Reason.BAD_PRICE: Reaction.REFRESH_RULES,
    Reason.BAD_QTY: Reaction.REFRESH_RULES,
    Reason.QTY_TOO_SMALL: Reaction.REFRESH_RULES,
    Reason.NOT_TRADING: Reaction.HALT,
}
_STATUS = {
    Status.NEW: OrderStatus.NEW,
    Status.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
    Status.FILLED: OrderStatus.FILLED,
    Status.CANCELED: OrderStatus.CANCELED,
    Status.EXPIRED: OrderStatus.EXPIRED,
}
LINKS = (Link.TRADES, Link.BOOK, Link.PRIVATE, Link.ORDERS)


class Direct:
    """A venue's client and the venue, in one; also the venue's observer.

    ``binance``: fills that are read know no client ids, and accepted orders come with the answer.
    """

    name = "direct"

    def __init__(
        self, venue: SimVenue, clock: VirtualClock, *, latency_ms: float, binance: bool
    ) -> None:
        self.symbol = venue.listing.symbol
        self.venue = venue
        self.clock = clock
        self.binance = binance
        self.sink: Sink | None = None
        self.trades: list[PublicTrade] = []
        self.latency_ms = math.ceil(latency_ms)
        self.closed = False
        venue.observe(self)

    # --- exchanges.base.Exchange ---

    async def rules(self) -> Rules:
        listing = self.venue.listing
        return Rules(
            market=listing.market,
            trading=self.venue.trading,
            min_price=listing.min_price,
            max_price=listing.max_price,
            max_qty=listing.max_qty,
            max_market_qty=listing.max_market_qty,
            max_orders=listing.max_orders,
            band_up=listing.band_up,
            band_down=listing.band_down,
            funding_interval_ms=listing.funding_interval_ms,
            reduce_only_summed=self.binance,
        )

    async def account(self) -> Account:
        venue = self.venue
        return Account(
            wallet=venue.wallet,
            available=venue.wallet,
            position=Position(venue.size, venue.entry_price, venue.liq_price),
            leverage=venue.leverage,
            cross_mode=venue.cross_mode,
            one_way=not venue.hedge_mode,
            can_trade=True,
            ts_ms=self.clock.time_ms(),
        )

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        if self.venue.leverage != leverage:
            self.venue.set_leverage(leverage)
        if self.venue.cross_mode is not cross_mode:
            self.venue.set_cross_mode(cross_mode)

    async def mark(self) -> MarkPrice:
        return self._mark()

    async def open_orders(self) -> list[Order]:
        return [order_of(order) for order in self.venue.open_orders()]

    async def find(self, client_id: str) -> Order | None:
        try:
            return order_of(self.venue.find(client_id=client_id))
        except Refusal:
            return None

    async def fills(self, since_ms: int) -> list[Fill]:
        return [
            self._fill(each, told=not self.binance)
            for each in self.venue.executions
            if each.ts_ms >= since_ms
        ]

    async def payments(self, since_ms: int) -> list[Payment]:
        return [
            Payment(id=str(ts_ms), ts_ms=ts_ms, amount=amount)
            for ts_ms, _, amount, _ in self.venue.payments
            if ts_ms >= since_ms
        ]

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        return self.trades[-limit:]

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        return [self.sent(partial(self.arrive, order)) for order in orders]

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        return [self.sent(partial(self.arrive_cancel, order.client_id)) for order in orders]

    async def cancel_all(self) -> Outcome:
        self.venue.cancel_all()
        return Outcome(Verdict.OK)

    async def dead_man(self, timeout_s: float) -> bool:
        return False

    async def listen(self, sink: Sink) -> None:
        self.sink = sink
        for link in LINKS:
            sink.on_link(link, StreamState.LIVE, "")

    async def close(self) -> None:
        self.closed = True
        self.sink = None

    # --- messages ---

    def sent(self, act: Callable[[], Outcome]) -> Future[Outcome]:
        """Let a message arrive after the latency; its answer takes no time."""
        answer: Future[Outcome] = asyncio.get_running_loop().create_future()

        def arrives() -> None:
            outcome = act()
            if not answer.done():
                answer.set_result(outcome)

        self.clock.call_later(self._until_arrival_s(), arrives)
        return answer

    def _until_arrival_s(self) -> float:
        now_ns = round(self.clock.monotonic_s() * 1e9)
        into_ns = now_ns % _MS_NS
        if self.latency_ms > 0:
            wait_ns = self.latency_ms * _MS_NS - into_ns + _ARRIVE_NS
        elif into_ns < _ARRIVE_NS:
            wait_ns = _ARRIVE_NS - into_ns
        elif into_ns <= _REQUOTE_NS:
            wait_ns = _AGAIN_NS - into_ns
        else:
            wait_ns = 10_000
        return wait_ns / 1e9

    def arrive(self, order: NewOrder) -> Outcome:
        """Let the venue have an order, and return what it answers."""
        try:
            placed = self.venue.place(
                client_id=order.client_id,
                side=order.side,
                type=OrderType.MARKET if order.at_market else OrderType.LIMIT,
                tif=TimeInForce.GTC if order.at_market else TimeInForce.POST_ONLY,
                price=order.price,
                qty=order.qty,
                reduce_only=order.reduce_only,
            )
        except Refusal as e:
            reaction = _REACTIONS.get(e.reason, Reaction.DROP)
            return Outcome(Verdict.REJECTED, reaction, text=str(e))
        return Outcome(Verdict.OK, order=order_of(placed) if self.binance else None)

    def arrive_cancel(self, client_id: str) -> Outcome:
        """Let the venue cancel, and return what it answers."""
        try:
            ended = self.venue.cancel(self.venue.find(client_id=client_id))
        except Refusal as e:
            return Outcome(Verdict.REJECTED, Reaction.GONE, text=str(e))
        return Outcome(Verdict.OK, order=order_of(ended) if self.binance else None)

    # --- simulator.venue.Observer ---

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        self.trades.append(
            PublicTrade(
                trade_id=str(trade_id), price=price, qty=qty, ts_ms=ts_ms, buyer_maker=buyer_maker
            )
        )
        if self.sink is not None:
            self.sink.on_trade(str(trade_id), price, qty, ts_ms, buyer_maker)

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        if self.sink is not None:
            self.sink.on_quote(bid, 1.0, ask, 1.0, ts_ms)

    def on_order(self, order: SimOrder, what: str) -> None:
        if self.sink is not None:
            self.sink.on_order(order_of(order))

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        if self.sink is not None:
            self.sink.on_fill(self._fill(execution, told=True))

    def on_account(self, why: str) -> None:
        if self.sink is not None:
            venue = self.venue
            now_ms = self.clock.time_ms()
            self.sink.on_wallet(venue.wallet, now_ms)
            held = Position(venue.size, venue.entry_price, math.nan)
            self.sink.on_position(held, now_ms)

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        if self.sink is not None and amount != 0.0:
            self.sink.on_payment(Payment(id=str(ts_ms), ts_ms=ts_ms, amount=amount))

    def on_terms(self, what: str) -> None:
        pass

    def beat(self) -> None:
        """Tell the mark price, as venues do every second."""
        if self.sink is not None:
            self.sink.on_mark(self._mark())

    # --- words ---

    def _mark(self) -> MarkPrice:
        venue = self.venue
        return MarkPrice(
            mark_price=venue.mark_price,
            funding_rate=venue.listing.funding_rate,
            next_funding_ms=venue.next_funding_ms,
            ts_ms=self.clock.time_ms(),
        )

    def _fill(self, each: Execution, *, told: bool) -> Fill:
        return Fill(
            trade_id=str(each.trade_id) if self.binance else each.exec_id,
            order_id=str(each.order_id),
            client_id=each.client_id if told else "",
            side=each.side,
            price=each.price,
            qty=each.qty,
            fee=each.fee,
            fee_currency=self.venue.listing.settle,
            pnl=each.pnl,
            maker=each.maker,
            ts_ms=each.ts_ms,
            kind=FillKind(each.kind.value),
        )


def order_of(order: SimOrder) -> Order:
    """Return an order of the venue as a client tells it."""
    status = _STATUS[order.status]
    return Order(
        client_id=order.client_id,
        order_id=str(order.order_id),
        side=order.side,
        price=order.price,
        qty=order.qty,
        filled_qty=order.filled,
        reduce_only=order.reduce_only,
        status=status,
        ts_ms=order.updated_ms,
        reason=order.reason if status.final and order.reason != "user" else "",
    )


async def turns(n: int = 10) -> None:
    """Let the loop go round."""
    for _ in range(n):
        await asyncio.sleep(0)


def ignored(*_: Any) -> None:
    """Do nothing."""
