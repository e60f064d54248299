"""A paper account: a real market, and orders that only `_core.matching` ever sees."""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from passivx._core.calc import cost, min_order_qty, near_to, pnl
from passivx._core.matching import FillMode, PaperVenue
from passivx.clock import Clock, WallClock
from passivx.errors import VenueError
from passivx.exchanges.base import (
    Account,
    Exchange,
    Fill,
    FillKind,
    KeyRights,
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
    Steps,
    Verdict,
)
from passivx.exchanges.stream import StreamState
from passivx.models import Position

__all__ = ["PaperExchange"]

# The core's number of an execution that is a liquidation.
_LIQUIDATED: Final = 0
_MARKET: Final = (Link.BOOK, Link.TRADES)
# Longer than a stream repeats itself around a reconnect.
_MOST_TRADES: Final = 10_000
# Finished orders that `find` still knows; a bot asks for those of the last minutes.
_MOST_ENDED: Final = 10_000

_Happened = tuple[np.void, np.void, list[int]]


class PaperExchange:
    """`exchanges.base.Exchange` with the market of another one and an account of its own.

    What fills, and what that does to the account, is docs/backtest.md's *A print*, *The account*
    and *Arrival*: of the trades that ``market`` tells while the order rests. Trades that are missed
    fill nothing. Orders and cancels arrive ``latency_ms`` after they were sent, by ``clock``; what
    happens then is told at once.

    Refused is what the venue's rules forbid: steps, least and largest quantities, least notional,
    margin, number of orders. The price band is not looked at: a post-only order out of it would
    take. Funding is settled when a mark price comes whose time is past the one announced, at the
    rate last announced for it; of several that pass unheard only the first. Liquidation goes by the
    last trade, not by the mark price.

    Nothing is kept across restarts: each begins flat, with ``wallet``. Only the ids of fills and
    payments are never used again, since a journal remembers them.

    Parameters
    ----------
    market
        Where rules, trades, mark and best prices come from. What it tells of an account is not
        handed on. It is closed with this.
    wallet
        To begin with, in settle currency.
    settle
        That currency's name, as fees are told in it.
    latency_ms
        Of orders and cancels, at least 0.
    fill_mode, queue_share
        When a trade fills a resting order, as in docs/backtest.md.

    Raises
    ------
    ValueError
        If ``wallet`` or ``latency_ms`` is out of range.
    """

    def __init__(
        self,
        market: Exchange,
        *,
        wallet: float,
        settle: str,
        clock: Clock | None = None,
        latency_ms: float = 100.0,
        fill_mode: FillMode = FillMode.CROSS,
        queue_share: float = 0.0,
    ) -> None:
        if not 0.0 < wallet < math.inf:
            raise ValueError(f"wallet: must be finite and > 0, was {wallet!r}")
        if not 0.0 <= latency_ms < math.inf:
            raise ValueError(f"latency_ms: must be finite and >= 0, was {latency_ms!r}")
        self.name = market.name
        self.symbol = market.symbol
        self._market = market
        self._wallet = wallet
        self._settle = settle
        self._clock = clock or WallClock()
        self._latency_s = latency_ms / 1000
        self._fill_mode, self._queue_share = fill_mode, queue_share
        # Until `prepare` has chosen: what needs the most margin.
        self._leverage = 1
        self._cross_mode = True
        self._known: tuple[PaperVenue, Rules] | None = None
        self._sink: Sink | None = None
        self._news: list[Callable[[Sink], object]] = []
        # Every message takes as long: the first that was sent is the next to arrive.
        self._travelling: deque[tuple[Callable[[], Outcome], Future[Outcome]]] = deque()
        self._order_numbers, self._fill_numbers = count(1), count(1)
        self._open: dict[int, Order] = {}
        self._ended: dict[str, Order] = {}
        self._run = f"paper-{self._clock.time_ms()}"
        self._fills: list[Fill] = []
        self._payments: list[Payment] = []
        self._trades: dict[str, None] = {}
        self._mark: MarkPrice | None = None
        self._funded_ms = 0

    # --- the market ---

    async def rules(self) -> Rules:
        """Return the market's rules; orders are judged by these from now on.

        Raises
        ------
        VenueError
            Also when they changed so that position or orders do not fit them any more.
        """
        rules = await self._market.rules()
        if self._known is None:
            trades = await self._market.recent_trades(1)
            price = trades[-1].price if trades else (await self._market.mark()).mark_price
            # Somebody else may have been as far meanwhile.
            self._known = self._known or (self._opened(rules, price), rules)
        paper, before = self._known
        if rules.market != before.market:
            try:
                paper.set_market(*self._records(rules))
            except ValueError as e:
                raise VenueError(f"rules: the paper account does not fit the new ones: {e}") from e
        self._known = paper, rules
        return rules

    def _opened(self, rules: Rules, price: float) -> PaperVenue:
        return PaperVenue(
            *self._records(rules),
            price=price,
            wallet=self._wallet,
            leverage=self._leverage,
            cross_mode=self._cross_mode,
            fill_mode=self._fill_mode,
            queue_share=self._queue_share,
            liquidation_fee=rules.market.liquidation_fee,
        )

    async def mark(self) -> MarkPrice:
        """Return the market's mark price and predicted funding."""
        return await self._market.mark()

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to ``limit`` of the market's newest trades, oldest first."""
        return await self._market.recent_trades(limit)

    async def listen(self, sink: Sink) -> None:
        """Connect the market's links; the paper account's are live with them."""
        await self._ready()
        self._sink = sink
        await self._market.listen(self)
        for link in (Link.PRIVATE, Link.ORDERS):
            sink.on_link(link, StreamState.LIVE, "paper account")

    async def close(self) -> None:
        """Close the market's connections; what is on its way resolves as UNKNOWN."""
        while self._travelling:
            _, result = self._travelling.popleft()
            _resolve(result, Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="given up"))
        await self._market.close()

    # --- the account ---

    async def account(self) -> Account:
        """Return wallet, position and modes; what is available counts open orders' margin."""
        await self._ready()
        wallet, position = self._held()
        needed = self._exposure() / self._leverage
        return Account(
            wallet=wallet,
            available=max(0.0, self._equity() - needed),
            position=position,
            leverage=float(self._leverage),
            cross_mode=self._cross_mode,
            one_way=True,
            can_trade=True,
            ts_ms=self._clock.time_ms(),
        )

    async def rights(self) -> KeyRights:
        """Return that it may trade, on paper."""
        return KeyRights(
            can_trade=True, can_withdraw=False, read_only=False, detail="paper account"
        )

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        """Set the paper account's margin mode and leverage.

        Raises
        ------
        VenueError
            If the market has no such leverage, the position and orders are beyond what it allows,
            or the margin mode would change under them.
        """
        paper, rules = await self._ready()
        tiers = rules.market.tiers
        most = min([rules.market.max_leverage, *(tier.max_leverage for tier in tiers[:1])])
        if not 1 <= leverage <= most:
            raise VenueError(f"leverage: must be 1 to {most:g} for {self.symbol}, was {leverage}")
        needed = self._exposure()
        if cross_mode is not self._cross_mode and (needed > 0.0 or self._open):
            raise VenueError("margin mode: cancel the orders and close the position first")
        allowed = min(rules.market.notional_cap(leverage), max(0.0, self._equity()) * leverage)
        if leverage != self._leverage and needed > allowed:
            raise VenueError(
                f"leverage: {leverage} is not enough for position and orders; reduce them first"
            )
        if (leverage, cross_mode) != (self._leverage, self._cross_mode):
            paper.set_terms(leverage=leverage, cross_mode=cross_mode)
        self._leverage, self._cross_mode = leverage, cross_mode

    async def open_orders(self) -> list[Order]:
        """Return what rests, oldest first."""
        return list(self._open.values())

    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None when none has arrived under that id, or long ago."""
        if not client_id:
            raise ValueError("client_id: must not be empty")
        return self._named(client_id)

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every fill since then, oldest first."""
        return [fill for fill in self._fills if fill.ts_ms >= since_ms]

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first."""
        return [payment for payment in self._payments if payment.ts_ms >= since_ms]

    # --- orders ---

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        """Send orders now; `rules` must have been read."""
        self._checked()
        return [self._send(partial(self._arrive, order)) for order in orders]

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        """Send cancels now."""
        return [self._send(partial(self._cancel, order)) for order in orders]

    async def cancel_all(self) -> Outcome:
        """Cancel what rests when this arrives."""
        return await self._send(self._cancel_all)

    async def dead_man(self, timeout_s: float) -> bool:
        """Return False: the account lives and dies with this process."""
        return False

    def _send(self, act: Callable[[], Outcome]) -> Future[Outcome]:
        result: Future[Outcome] = asyncio.get_running_loop().create_future()
        self._travelling.append((act, result))
        self._clock.call_later(self._latency_s, self._deliver)
        return result

    def _deliver(self) -> None:
        if not self._travelling:
            return  # closed meanwhile
        act, result = self._travelling.popleft()
        # What hears of it may fail: somebody waits for the outcome all the same.
        outcome = Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="failed on arrival")
        try:
            outcome = act()
            self._publish()
        finally:
            _resolve(result, outcome)

    def _arrive(self, order: NewOrder) -> Outcome:
        paper, rules = self._checked()
        if self._named(order.client_id) is not None:
            return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="client_id: is in use")
        if not rules.trading:
            return _refused(Reaction.HALT, "the venue does not trade the symbol")
        try:
            self._check(order)
        except ValueError as e:
            return _refused(Reaction.DROP, str(e))
        number = next(self._order_numbers)
        answer, happened = paper.place(
            number,
            order.side,
            order.price,
            order.qty,
            reduce_only=order.reduce_only,
            at_market=order.at_market,
        )
        if answer == "would_take":
            return _refused(Reaction.REPRICE, "post-only: it would take")
        if answer == "would_not_reduce":
            return _refused(Reaction.DROP, "reduce_only: there is no position to reduce")
        placed = Order(
            client_id=order.client_id,
            order_id=str(number),
            side=order.side,
            price=0.0 if order.at_market else order.price,
            qty=order.qty,
            filled_qty=0.0,
            reduce_only=order.reduce_only,
            status=OrderStatus.NEW,
            ts_ms=self._clock.time_ms(),
        )
        self._put(number, placed)
        if happened is not None:
            self._book(happened, taker=number)
        return Outcome(Verdict.OK, order=self._named(order.client_id))

    def _check(self, order: NewOrder) -> None:
        """Raise ValueError for an order that the rules forbid, whatever the book is."""
        paper, rules = self._checked()
        market = rules.market
        steps = Steps.of(market)
        order.check()
        steps.qty_text(order.qty)
        price = paper.last
        most = rules.max_market_qty
        if not order.at_market:
            steps.price_text(order.price)
            price, most = order.price, rules.max_qty
            if not rules.min_price <= price <= rules.max_price:
                raise ValueError(
                    f"price: must be {rules.min_price:g} to {rules.max_price:g}, was {price:g}"
                )
            if len(self._open) >= rules.max_orders:
                raise ValueError(f"orders: {rules.max_orders} are open, the venue takes no more")
        record = market.record(self._leverage)
        # The venues ask no least notional of what only reduces.
        least = float(record["min_qty"][0])
        if not order.reduce_only:
            least = min_order_qty(price, record)
        if not least <= order.qty <= most:
            raise ValueError(f"qty: must be {least:g} to {most:g}, was {order.qty:g}")
        if not order.reduce_only:
            self._check_margin(order.side, cost(order.qty, price, inverse=market.inverse))

    def _check_margin(self, side: int, value: float) -> None:
        _, rules = self._checked()
        long, short = self._committed()
        after = abs((long if side > 0 else short) + side * value)
        if after <= max(abs(long), abs(short)):
            return  # the other side's orders need as much already
        if after > rules.market.notional_cap(self._leverage):
            raise ValueError(f"notional: the leverage of {self._leverage} allows no more")
        if after > self._equity() * self._leverage:
            raise ValueError("margin: there is not enough")

    def _cancel(self, order: Order) -> Outcome:
        paper, _ = self._checked()
        number = self._number_of(order)
        if number is None or not paper.cancel(number, order.side):
            return _refused(Reaction.GONE, "no such order is open")
        return Outcome(Verdict.OK, order=self._end(number, OrderStatus.CANCELED))

    def _cancel_all(self) -> Outcome:
        for order in list(self._open.values()):
            self._cancel(order)
        return Outcome(Verdict.OK)

    # --- what happens to them ---

    def _book(self, happened: _Happened, *, taker: int = 0) -> None:
        """Take in what the core says has happened; ``taker``: the market order that made it."""
        record, account, dropped = happened
        number, position_side, price, signed_qty, gained, fee, _ = record.item()
        liquidated = number == _LIQUIDATED
        order = None
        if liquidated:
            for each in [*dropped, *([taker] if taker else [])]:
                self._end(each, OrderStatus.EXPIRED, "liquidation")
        else:
            order = self._filled(number, abs(signed_qty))
        fill = Fill(
            trade_id=f"{self._run}-{next(self._fill_numbers)}",
            order_id=order.order_id if order else "",
            client_id=order.client_id if order else "",
            side=order.side if order else -position_side,
            price=price,
            qty=abs(signed_qty),
            fee=fee,
            fee_currency=self._settle,
            pnl=gained,
            maker=not liquidated and number != taker,
            ts_ms=self._clock.time_ms(),
            kind=FillKind.LIQUIDATION if liquidated else FillKind.TRADE,
        )
        self._fills.append(fill)
        self._news.append(lambda sink: sink.on_fill(fill))
        if order is not None:
            self._put(number, order)
        self._tell_account(account)
        if not liquidated:
            for each in dropped:
                self._end(each, OrderStatus.EXPIRED, "reduce_only")

    def _filled(self, number: int, qty: float) -> Order:
        _, rules = self._checked()
        order = self._open[number]
        step = Steps.of(rules.market).qty
        filled = near_to(order.filled_qty + qty, step)
        # A market order that only reduces is cut to the position; the core fills it at once.
        whole = filled >= order.qty or order.price == 0.0
        return replace(
            order,
            qty=filled if whole else order.qty,
            filled_qty=filled,
            status=OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED,
            ts_ms=self._clock.time_ms(),
        )

    def _end(self, number: int, status: OrderStatus, reason: str = "") -> Order:
        order = replace(
            self._open[number], status=status, reason=reason, ts_ms=self._clock.time_ms()
        )
        self._put(number, order)
        return order

    def _put(self, number: int, order: Order) -> None:
        """Keep an order as it is now, and tell it."""
        if order.status.final:
            del self._open[number]
            self._ended[order.client_id] = order
            if len(self._ended) > _MOST_ENDED:
                del self._ended[next(iter(self._ended))]
        else:
            self._open[number] = order
        self._news.append(lambda sink: sink.on_order(order))

    def _tell_account(self, account: np.void) -> None:
        wallet, position = _read(account)
        ts_ms = self._clock.time_ms()
        self._news.append(lambda sink: sink.on_wallet(wallet, ts_ms))
        self._news.append(lambda sink: sink.on_position(position, ts_ms))

    def _publish(self) -> None:
        news, self._news = self._news, []
        if self._sink is None:
            return
        try:
            for tell in news:
                tell(self._sink)
        except Exception:
            self._sink.on_gap(Link.PRIVATE, "an event could not be handed on")
            raise

    # --- what the market tells: `Sink` ---

    def on_trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None:
        """Let a trade fill what it fills; hand on first the trade, then that."""
        paper, _ = self._checked()
        # What a stream repeats was there before orders that have arrived since.
        if trade_id not in self._trades:
            self._trades[trade_id] = None
            if len(self._trades) > _MOST_TRADES:
                del self._trades[next(iter(self._trades))]
            for happened in paper.print(price, qty, buyer_maker):
                self._book(happened)
        try:
            self._told().on_trade(trade_id, price, qty, ts_ms, buyer_maker)
        finally:
            self._publish()

    def on_quote(self, bid: float, bid_qty: float, ask: float, ask_qty: float, ts_ms: int) -> None:
        """Hand on best prices."""
        self._told().on_quote(bid, bid_qty, ask, ask_qty, ts_ms)

    def on_mark(self, mark: MarkPrice) -> None:
        """Hand on a mark price, then the funding whose time has passed by it."""
        last = self._mark
        if last is None or mark.ts_ms >= last.ts_ms:
            self._mark = mark
            # The venue may go on announcing a time that is over.
            if last is not None and self._funded_ms < last.next_funding_ms <= mark.ts_ms:
                self._funded_ms = last.next_funding_ms
                self._fund(last)
        try:
            self._told().on_mark(mark)
        finally:
            self._publish()

    def _fund(self, announced: MarkPrice) -> None:
        paper, _ = self._checked()
        if paper.account["size"] == 0.0:
            return
        due_ms = announced.next_funding_ms
        amount = paper.settle_funding(announced.funding_rate)
        payment = Payment(id=f"paper-{due_ms}", ts_ms=due_ms, amount=amount)
        self._payments.append(payment)
        self._news.append(lambda sink: sink.on_payment(payment))
        self._tell_account(paper.account)

    def on_link(self, link: Link, state: StreamState, reason: str) -> None:
        """Hand on the state of the market's links."""
        if link in _MARKET:
            self._told().on_link(link, state, reason)

    def on_gap(self, link: Link, reason: str) -> None:
        """Hand on what is missing of the market: it has filled nothing here either."""
        if link in _MARKET:
            self._told().on_gap(link, reason)

    def on_order(self, order: Order) -> None:
        """Take no notice: it is another account's, as is all that follows."""

    def on_fill(self, fill: Fill) -> None:
        """Take no notice."""

    def on_payment(self, payment: Payment) -> None:
        """Take no notice."""

    def on_wallet(self, wallet: float, ts_ms: int) -> None:
        """Take no notice."""

    def on_position(self, position: Position, ts_ms: int) -> None:
        """Take no notice."""

    # --- what is there ---

    async def _ready(self) -> tuple[PaperVenue, Rules]:
        if self._known is None:
            await self.rules()
        return self._checked()

    def _checked(self) -> tuple[PaperVenue, Rules]:
        if self._known is None:
            raise VenueError("rules: must be read before an order is placed")
        return self._known

    def _told(self) -> Sink:
        assert self._sink is not None  # nothing is told before `listen`
        return self._sink

    def _records(self, rules: Rules) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        return rules.market.record(self._leverage), rules.market.tier_records()

    def _named(self, client_id: str) -> Order | None:
        open_ = (order for order in self._open.values() if order.client_id == client_id)
        return next(open_, None) or self._ended.get(client_id)

    def _number_of(self, order: Order) -> int | None:
        """Return the number of an open order: by the venue's id if it is known, else by ours."""
        for number, each in self._open.items():
            same_id = each.order_id == order.order_id
            if same_id if order.order_id else each.client_id == order.client_id:
                return number
        return None

    def _held(self) -> tuple[float, Position]:
        paper, _ = self._checked()
        return _read(paper.account)

    def _equity(self) -> float:
        """Return wallet and open pnl at the last price."""
        paper, rules = self._checked()
        wallet, position = self._held()
        if position.size == 0.0:
            return wallet
        return wallet + pnl(
            position.entry_price,
            paper.last,
            abs(position.size),
            position_side=1 if position.size > 0.0 else -1,
            inverse=rules.market.inverse,
        )

    def _committed(self) -> tuple[float, float]:
        """Return the notional of the position once the buys have filled, and once the sells have.

        Signed, settle currency; orders that only reduce do not count.
        """
        paper, rules = self._checked()
        inverse = rules.market.inverse
        _, position = self._held()
        held = math.copysign(cost(position.size, paper.last, inverse=inverse), position.size)
        values = {1: 0.0, -1: 0.0}
        for order in self._open.values():
            if not order.reduce_only:
                left = order.qty - order.filled_qty
                values[order.side] += cost(left, order.price, inverse=inverse)
        return held + values[1], held - values[-1]

    def _exposure(self) -> float:
        return max(map(abs, self._committed()))


def _read(account: np.void) -> tuple[float, Position]:
    """Return wallet and position of a record of ACCOUNT_DTYPE."""
    wallet, _, size, entry_price, liq_price = account.item()
    return wallet, Position(size=size, entry_price=entry_price, liq_price=liq_price)


def _refused(reaction: Reaction, text: str) -> Outcome:
    return Outcome(Verdict.REJECTED, reaction, text=text)


def _resolve(result: Future[Outcome], outcome: Outcome) -> None:
    # Whoever waited may have given up.
    if not result.done():
        result.set_result(outcome)
