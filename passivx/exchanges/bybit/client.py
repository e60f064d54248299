"""Bybit as the bot sees it: one symbol, one account, `exchanges.base.Exchange`."""

from __future__ import annotations

import asyncio
import random
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from passivx._core.wire import BybitOrderText
from passivx.clock import Clock, WallClock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Account,
    Fill,
    MarkPrice,
    NewOrder,
    Order,
    Outcome,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Sink,
    Verdict,
    number,
    number_or_none,
    text,
)
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.rest import MAX_BATCH, WINDOWS, BybitDialect, BybitRest
from passivx.exchanges.bybit.streams import PrivateStream, PublicStream
from passivx.exchanges.bybit.trade import TradeSocket
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.http import Http, Reply
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.sending import Sending
from passivx.exchanges.stream import Stream

__all__ = ["Bybit"]

_MODES: Final = {True: "REGULAR_MARGIN", False: "ISOLATED_MARGIN"}
# unifiedMarginStatus of UTA 2.0, the only one with inverse contracts in it.
_UNIFIED: Final = (5, 6)
# cancel-all takes up to 500 orders at a time.
_MOST_SWEEPS: Final = 5


class Bybit:
    """One perpetual on Bybit V5. Use it on one event loop, and close it.

    ``rules`` must have been read once before anything is placed: texts of prices depend on them.
    """

    name = "bybit"

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        symbol: str,
        key: ApiKey,
        category: str = "inverse",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.symbol = symbol
        self._endpoints = endpoints
        self._category = category
        self._key = key
        self._clock = clock or WallClock()
        self._rng = rng
        self._budget = Budget(WINDOWS, self._clock)
        dialect = BybitDialect(key)
        self._http = Http(endpoints.rest, dialect, self._clock, self._budget, rng=rng)
        self.rest = BybitRest(self._http, symbol=symbol, category=category)
        self._steps: wire.Steps | None = None
        self._coin = ""
        self._trade: TradeSocket | None = None
        self._sending = Sending(self._budget)

    # --- reads ---

    async def rules(self) -> Rules:
        """Return steps, limits, tiers and fees; orders are written by these from now on."""
        rules = await self.rest.rules()
        self._steps = wire.Steps(rules.market)
        return rules

    async def account(self) -> Account:
        """Return wallet, position and modes, read together."""
        coin = await self._settle_coin()
        info, wallet, row = await asyncio.gather(
            self.rest.account_info(), self.rest.wallet(coin), self.rest.position()
        )
        cross = _cross(info)
        held = wire.wallet_of(wallet, coin)
        if held is None:
            raise BadReplyError(f"coin: the wallet does not list {coin}")
        return Account(
            wallet=number(held, "walletBalance"),
            available=await self._available(wallet, held, cross),
            position=wire.position_of(row),
            leverage=number(row, "leverage"),
            cross_mode=cross,
            one_way=True,
            can_trade=row.get("positionStatus") == "Normal" and row.get("isReduceOnly") is not True,
            ts_ms=self._http.venue_time_ms(),
        )

    async def _available(self, wallet: Any, held: Any, cross: bool) -> float:
        """Return what is free of the coin, as the docs compute it for either margin mode."""
        if not cross:
            used = ("totalPositionIM", "totalOrderIM", "locked", "bonus")
            return number(held, "walletBalance") - sum(number_or_none(held, k) or 0.0 for k in used)
        free_usd = number(wallet, "totalAvailableBalance")
        if self._category != "inverse":
            return free_usd
        return free_usd / (await self.rest.mark()).mark_price

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        return await self.rest.mark()

    async def open_orders(self) -> list[Order]:
        """Return every live order of the symbol."""
        return await self.rest.open_orders()

    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None only when live ones and history both have none."""
        return await self.rest.find(client_id)

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every fill since then, oldest first."""
        return await self.rest.fills(since_ms)

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first."""
        return await self.rest.payments(since_ms)

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to 1000 public trades, oldest first."""
        return await self.rest.recent_trades(limit)

    # --- settings ---

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        """Set margin mode and leverage, have out-of-band orders refused, and look again.

        Raises
        ------
        VenueError
            If the account cannot trade this, or something does not hold afterwards.
        """
        info = await self.rest.account_info()
        if self._category == "inverse" and info.get("unifiedMarginStatus") not in _UNIFIED:
            raise VenueError(
                "unifiedMarginStatus: must be 5 or 6 (UTA 2.0), was "
                f"{info.get('unifiedMarginStatus')}; upgrade the account to UTA 2.0"
            )
        if self._category == "linear":
            _must(await self.rest.set_one_way(), "one-way mode")
        if _cross(info) is not cross_mode:
            _must(await self.rest.set_margin_mode(_MODES[cross_mode]), "margin mode")
        _must(await self.rest.refuse_price_moves(), "refusing orders out of the price band")
        _must(await self.rest.set_leverage(leverage), "leverage")
        if self._category == "inverse" and cross_mode:
            await self._check_collateral()
        account = await self.account()
        if account.cross_mode is not cross_mode or account.leverage != leverage:
            raise VenueError(
                f"leverage and margin mode must be {leverage} and {_word(cross_mode)}, were "
                f"{account.leverage:g} and {_word(account.cross_mode)} after they were set"
            )

    async def _check_collateral(self) -> None:
        coin = await self._settle_coin()
        held = wire.wallet_of(await self.rest.wallet(coin), coin)
        if held is not None and held.get("collateralSwitch") is False:
            raise VenueError(
                f"collateralSwitch: must be on for {coin} in cross margin; switch {coin} on as "
                "collateral in the account's settings",
                code=110101,
            )

    async def _settle_coin(self) -> str:
        if not self._coin:
            self._coin = text(await self.rest.instrument(), "settleCoin")
        return self._coin

    async def dead_man(self, timeout_s: float) -> bool:
        """Return False: the venue offers a dead-man switch to institutional accounts only."""
        return False

    # --- orders ---

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        """Send orders now: a frame each over the trade socket, else in batches over REST."""
        if self._steps is None:
            raise VenueError("rules: must be read before an order is placed")
        steps, trade = self._steps, self._live_trade()
        if trade is not None:
            return [
                self._sending.now({"create": 1}, order.reduce_only, partial(trade.place, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            MAX_BATCH,
            check=lambda order: wire.order_fields(order, steps),
            one=lambda order: self.rest.place(order, steps),
            many=lambda part: self.rest.place_batch(part, steps),
        )

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        """Send cancels now, like `place`; accepted means that the stream will tell the end."""
        trade = self._live_trade()
        if trade is not None:
            return [
                self._sending.now({"cancel": 1}, True, partial(trade.cancel, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            MAX_BATCH,
            check=lambda order: None,
            one=self.rest.cancel,
            many=self.rest.cancel_batch,
        )

    async def cancel_all(self) -> Outcome:
        """Cancel every order of the symbol, until none is left."""
        for _ in range(_MOST_SWEEPS):
            outcome = await self.rest.cancel_all()
            if outcome.verdict is not Verdict.OK or not await self.rest.open_orders():
                return outcome
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="orders are left after cancel-all")

    def _live_trade(self) -> TradeSocket | None:
        return self._trade if self._trade is not None and self._trade.stream.live else None

    # --- events ---

    async def listen(self, sink: Sink) -> None:
        """Connect the public, private and trade sockets; return once all are live."""
        if self._steps is None:
            await self.rules()
        assert self._steps is not None
        coin = await self._settle_coin()
        await self._http.sync_clock()
        sign = self._key.signer()
        public = PublicStream(self._endpoints.ws_public, self.symbol, sink, self._clock, self._rng)
        private = PrivateStream(
            self._endpoints.ws_private,
            symbol=self.symbol,
            category=self._category,
            coin=coin,
            key=self._key.key,
            sign=sign,
            venue_ms=self._http.venue_time_ms,
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        streams: list[Stream] = [public.stream, private.stream]
        if self._endpoints.ws_trade is not None:
            self._trade = TradeSocket(
                self._endpoints.ws_trade,
                texts=BybitOrderText(
                    self.symbol, self._category, self._steps.price, self._steps.qty
                ),
                key=self._key.key,
                sign=sign,
                venue_ms=self._http.venue_time_ms,
                stamp_ms=self._http.stamp_ms,
                budget=self._budget,
                sink=sink,
                clock=self._clock,
                rng=self._rng,
            )
            streams.append(self._trade.stream)
        await self._sending.run(streams, self._http.keep_clock())

    async def close(self) -> None:
        """Close every connection; what is on its way resolves as UNKNOWN."""
        await self._sending.close()
        await self._http.close()


def _cross(info: Any) -> bool:
    mode = text(info, "marginMode")
    if mode not in _MODES.values():
        raise VenueError(
            f"marginMode: must be isolated or cross, was {mode:.40}; leave portfolio margin"
        )
    return mode == _MODES[True]


def _word(cross: bool) -> str:
    return "cross" if cross else "isolated"


def _must(reply: Reply, what: str) -> None:
    if reply.verdict is not Verdict.OK:
        raise VenueError(
            f"{what}: could not be set: {reply.text}", code=reply.code, reaction=reply.reaction
        )
