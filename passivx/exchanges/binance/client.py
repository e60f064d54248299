"""Binance USDⓈ-M as the bot sees it: one symbol, one account, `exchanges.base.Exchange`."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Future
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final

from passivx._core.wire import BinanceOrderText
from passivx.clock import Clock, WallClock
from passivx.errors import UnavailableError, VenueError
from passivx.exchanges.base import (
    Account,
    Fill,
    Link,
    MarkPrice,
    NewOrder,
    Order,
    Outcome,
    Payment,
    PublicTrade,
    Rules,
    Sink,
    Verdict,
    text,
)
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.rest import (
    MAX_CANCELS,
    MAX_PLACES,
    WINDOWS,
    BinanceDialect,
    BinanceRest,
)
from passivx.exchanges.binance.streams import BookStream, PrivateStream, TradeStream
from passivx.exchanges.binance.trade import CANCEL_COSTS, PLACE_COSTS, OrderSocket
from passivx.exchanges.binance.wire import Steps
from passivx.exchanges.budget import Budget
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.http import Http, Reply
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.sending import Sending
from passivx.exchanges.stream import Stream

__all__ = ["Binance"]

log = logging.getLogger(__name__)

# The history of funding lags behind its event; asked so often, so long apart.
_FUNDING_TRIES: Final = 5
_FUNDING_PAUSE_S: Final = 2.0
_FUNDING_SINCE_MS: Final = 60_000


class Binance:
    """One USDⓈ-M perpetual. Use it on one event loop, and close it.

    ``rules`` must have been read once before anything is placed: texts of prices depend on them.
    """

    name = "binance"

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        symbol: str,
        key: ApiKey,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if endpoints.ws_market is None:
            raise VenueError("ws_market: must be given for Binance, which has three stream sockets")
        self.symbol = symbol
        self._endpoints = endpoints
        self._ws_market = endpoints.ws_market
        self._key = key
        self._clock = clock or WallClock()
        self._rng = rng
        self._budget = Budget(WINDOWS, self._clock)
        dialect = BinanceDialect(key)
        self._http = Http(endpoints.rest, dialect, self._clock, self._budget, rng=rng)
        self.rest = BinanceRest(self._http, symbol=symbol)
        self._steps: Steps | None = None
        self._margin_asset = ""
        self._asset = ""  # what the wallet is in: the margin asset, or the EU's credits
        self._orders: OrderSocket | None = None
        self._sending = Sending(self._budget)
        self._tasks: set[asyncio.Task[None]] = set()

    # --- reads ---

    async def rules(self) -> Rules:
        """Return steps, limits, tiers and fees; orders are written by these from now on.

        The venue's rate limits come with them, and hold from now on too.
        """
        info = await self.rest.exchange_info()
        self._budget.set_limits(wire.windows_of(info))
        rules = await self.rest.rules(info)
        self._margin_asset = text(wire.symbol_info(info, self.symbol), "marginAsset")
        steps = Steps.of(rules.market)
        if self._orders is not None and steps != self._steps:
            self._orders.use(self._texts(steps))
        self._steps = steps
        return rules

    async def account(self) -> Account:
        """Return wallet, position and modes, read together.

        Raises
        ------
        VenueError
            Also when there are hedge-mode positions.
        """
        if not self._margin_asset:
            await self.rules()
        balances, positions, modes, (leverage, cross) = await asyncio.gather(
            self.rest.balances(),
            self.rest.positions(),
            self.rest.account_modes(),
            self.rest.symbol_modes(),
        )
        wallet, available, self._asset = wire.wallet_of(balances, self._margin_asset)
        return Account(
            wallet=wallet,
            available=available,
            position=wire.position_of(positions, self.symbol),
            leverage=leverage,
            cross_mode=cross,
            one_way=modes.one_way,
            can_trade=modes.can_trade,
            ts_ms=self._http.venue_time_ms(),
        )

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        return await self.rest.mark()

    async def open_orders(self) -> list[Order]:
        """Return every live order of the symbol."""
        return await self.rest.open_orders()

    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None only when the venue says that there is none."""
        return await self.rest.find(client_id)

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every fill since then, oldest first; they know no client ids."""
        return await self.rest.fills(since_ms)

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first."""
        return await self.rest.payments(since_ms)

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to 20,000 of the newest aggregate trades, oldest first."""
        return await self.rest.recent_trades(limit)

    # --- settings ---

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        """Set one-way mode, margin mode and leverage, and look again.

        Raises
        ------
        VenueError
            If the account cannot trade this, or something does not hold afterwards.
        """
        await self._check_account()
        held, cross = await self.rest.symbol_modes()
        if cross is not cross_mode:
            _must(
                await self.rest.set_cross(cross_mode),
                f"{self.symbol}: margin mode {_word(cross_mode)}",
                f"cancel {self.symbol}'s orders and close its position first",
            )
        if held != leverage:
            _must(
                await self.rest.set_leverage(leverage),
                f"{self.symbol}: leverage {leverage}",
                "choose another one, or reduce the position first",
            )
        modes = await self.rest.account_modes()
        held, cross = await self.rest.symbol_modes()
        if not modes.one_way or cross is not cross_mode or held != leverage:
            raise VenueError(
                f"{self.symbol}: must be one-way, {_word(cross_mode)}, leverage {leverage}; was "
                f"{'one-way' if modes.one_way else 'hedge mode'}, {_word(cross)}, {held:g} after "
                "that was set"
            )

    async def _check_account(self) -> None:
        modes = await self.rest.account_modes()
        if not modes.can_trade:
            raise VenueError("canTrade: must be true; the account may not trade futures")
        if modes.multi_assets:
            raise VenueError(
                "multiAssetsMargin: must be off; switch to single-asset mode in the futures "
                "settings",
                code=-4168,
            )
        if not modes.one_way:
            _must(
                await self.rest.set_one_way(),
                "one-way mode",
                "close all positions and orders, COIN-M too, or switch in the futures settings",
            )

    async def dead_man(self, timeout_s: float) -> bool:
        """Have the venue cancel all orders of the symbol unless called again in time."""
        await self.rest.dead_man(timeout_s)
        return True

    # --- orders ---

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        """Send orders now: a frame each over the order socket, else in batches over REST."""
        if self._steps is None:
            raise VenueError("rules: must be read before an order is placed")
        steps, socket = self._steps, self._live_socket()
        if socket is not None:
            return [
                self._sending.now(PLACE_COSTS, order.reduce_only, partial(socket.place, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            MAX_PLACES,
            check=lambda order: wire.order_params(order, self.symbol, steps),
            one=lambda order: self.rest.place(order, steps),
            many=lambda part: self.rest.place_batch(part, steps),
        )

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        """Send cancels now, like `place`."""
        socket = self._live_socket()
        if socket is not None:
            return [
                self._sending.now(CANCEL_COSTS, True, partial(socket.cancel, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            MAX_CANCELS,
            check=lambda order: None,
            one=self.rest.cancel,
            many=self.rest.cancel_batch,
        )

    def amend(
        self, order: Order, *, price: float | None = None, qty: float | None = None
    ) -> Future[Outcome]:
        """Change an order now; see `BinanceRest.amend` for when that cancels it."""
        if self._steps is None:
            raise VenueError("rules: must be read before an order is amended")
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        socket = self._live_socket()
        if socket is not None:
            return self._sending.now(
                PLACE_COSTS, order.reduce_only, lambda: socket.amend(order, price=price, qty=qty)
            )
        steps = self._steps
        return self._sending.checked(
            lambda: self.rest.amend(
                order, wire.amend_params(order, self.symbol, steps, price=price, qty=qty)
            )
        )

    async def cancel_all(self) -> Outcome:
        """Cancel every order of the symbol."""
        return await self.rest.cancel_all()

    def _live_socket(self) -> OrderSocket | None:
        return self._orders if self._orders is not None and self._orders.stream.live else None

    # --- events ---

    async def listen(self, sink: Sink) -> None:
        """Connect the three stream sockets and the order socket; return once all are live."""
        if not self._asset:
            await self.account()
        assert self._steps is not None
        await self._http.sync_clock()
        trades = TradeStream(
            self._ws_market,
            symbol=self.symbol,
            recent=self._newest_trade,
            venue_ms=self._http.venue_time_ms,
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        book = BookStream(
            self._endpoints.ws_public,
            symbol=self.symbol,
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        private = PrivateStream(
            self._endpoints.ws_private,
            symbol=self.symbol,
            asset=self._asset,
            listen_key=self.rest.listen_key,
            keep_listen_key=self.rest.keep_listen_key,
            on_funding=lambda ts_ms: self._aside(self._tell_payments(sink, ts_ms)),
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        streams: list[Stream] = [trades.stream, book.stream, private.stream]
        # The order socket's texts cannot be signed for names that must be percent-encoded.
        if self._endpoints.ws_trade is not None and self.symbol.isascii():
            self._orders = OrderSocket(
                self._endpoints.ws_trade,
                texts=self._texts(self._steps),
                stamp_ms=self._http.stamp_ms,
                venue_ms=self._http.venue_time_ms,
                on_clock=lambda: self._aside(self._look_at_clock()),
                budget=self._budget,
                sink=sink,
                clock=self._clock,
                rng=self._rng,
            )
            streams.append(self._orders.stream)
        await self._sending.run(streams, self._http.keep_clock(), private.keep(), trades.watch())

    def _texts(self, steps: Steps) -> BinanceOrderText:
        return BinanceOrderText(
            self._key.key, self.symbol, steps.price, steps.qty, self._key.signer()
        )

    async def _newest_trade(self) -> PublicTrade | None:
        trades = await self.rest.recent_trades(1)
        return trades[-1] if trades else None

    async def _look_at_clock(self) -> None:
        try:
            await self._http.sync_clock()
        except UnavailableError as e:
            log.warning("clock not read: %s", e)

    async def _tell_payments(self, sink: Sink, ts_ms: int) -> None:
        """Tell the payments of a settlement: its event names neither their ids nor amounts."""
        for _ in range(_FUNDING_TRIES):
            try:
                paid = await self.rest.payments(ts_ms - _FUNDING_SINCE_MS)
            except VenueError as e:
                log.warning("funding not read: %s", e)
                paid = []
            for payment in paid:
                sink.on_payment(payment)
            if paid:
                return
            await self._clock.sleep(_FUNDING_PAUSE_S)
        sink.on_gap(Link.PRIVATE, "a funding settlement could not be read")

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what a callback of a socket must not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the client failed: %s", type(error).__name__)

    async def close(self) -> None:
        """Close every connection; what is on its way resolves as UNKNOWN."""
        await self._sending.close()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.close()


def _word(cross: bool) -> str:
    return "cross" if cross else "isolated"


def _must(reply: Reply, what: str, remedy: str) -> None:
    # What is not known is decided by looking again.
    if reply.verdict is Verdict.REJECTED:
        raise VenueError(
            f"{what}: could not be set: {reply.text}; {remedy}",
            code=reply.code,
            reaction=reply.reaction,
        )
