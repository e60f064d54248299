"""Bybit as the bot sees it: one symbol, one account, `exchanges.base.Exchange`."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from passivx._core.wire import BybitOrderText
from passivx.clock import Clock, WallClock
from passivx.errors import BadReplyError, UnavailableError, VenueError
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
    flag,
    number,
    number_or_none,
    text,
)
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.rest import MAX_BATCH, WINDOWS, BybitDialect, BybitRest
from passivx.exchanges.bybit.streams import Login, PrivateStream, PublicStream
from passivx.exchanges.bybit.trade import TradeSocket
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.http import Http, Reply, clean
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.sending import Sending
from passivx.exchanges.stream import Stream

__all__ = ["Bybit"]

log = logging.getLogger(__name__)

_MODES: Final = {True: "REGULAR_MARGIN", False: "ISOLATED_MARGIN"}
# unifiedMarginStatus of UTA 2.0, the only one with inverse contracts in it.
_UNIFIED: Final = (5, 6)
# cancel-all takes up to 500 orders at a time, and its answer comes before they are gone.
_MOST_SWEEPS: Final = 5
_SWEEP_S: Final = 0.25


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
        # The demo has no trade socket, and takes batches of linear contracts alone. One by one is
        # no slower: either way it is so many orders a second.
        single = category == "inverse" and endpoints.ws_trade is None
        self._most = 1 if single else MAX_BATCH
        self._coin = ""
        self._trade: TradeSocket | None = None
        self._sending = Sending(self._budget)

    # --- reads ---

    async def rules(self) -> Rules:
        """Return steps, limits, tiers and fees; orders are written by these from now on."""
        rules = await self.rest.rules()
        self._steps = wire.Steps(rules.market)
        if self._trade is not None:
            self._trade.use(self._texts(self._steps))
        return rules

    async def account(self) -> Account:
        """Return wallet, position and modes, read together.

        Raises
        ------
        VenueError
            Also in hedge mode, and in portfolio margin.
        """
        coin = await self._settle_coin()
        # What happens while it is read is newer than it.
        ts_ms = await self.rest.now_ms()
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
            ts_ms=ts_ms,
        )

    async def _available(self, wallet: Any, held: Any, cross: bool) -> float:
        """Return what is free of the coin, as the docs compute it for either margin mode."""
        if not cross:
            used = sum(number(held, key) for key in ("totalPositionIM", "totalOrderIM"))
            # Left out where there is no spot order and no bonus.
            kept = sum(number_or_none(held, key) or 0.0 for key in ("locked", "bonus"))
            return number(held, "walletBalance") - used - kept
        free_usd = number(wallet, "totalAvailableBalance")
        if self._category != "inverse":
            return free_usd
        return free_usd / await self.rest.index_price()

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
            _must(
                await self.rest.set_one_way(),
                "one-way mode",
                f"close {self.symbol}'s positions and orders first",
            )
        if _cross(info) is not cross_mode:
            _must(
                await self.rest.set_margin_mode(_MODES[cross_mode]),
                f"margin mode {_word(cross_mode)}",
                "it is the whole account's: close its positions and orders, or switch by hand",
            )
        if not await self.rest.refuses_price_moves():
            _must(
                await self.rest.refuse_price_moves(),
                "refusing orders out of the price band",
                "allow the key to change settings",
            )
        # Also where it is so already: a key that may only read is found out here.
        _must(
            await self.rest.set_leverage(leverage),
            f"leverage {leverage}",
            "choose another one, or reduce the position first",
        )
        if self._category == "inverse" and cross_mode:
            await self._check_collateral()
        await self._check_settings(leverage, cross_mode)

    async def _check_settings(self, leverage: int, cross_mode: bool) -> None:
        """Raise unless everything holds, whatever the venue said when it was set."""
        account = await self.account()
        if not account.can_trade:
            raise VenueError(
                f"positionStatus: must be Normal; {self.symbol}'s position is being liquidated or "
                "may only be reduced: wait until it is over"
            )
        if not await self.rest.refuses_price_moves():
            raise VenueError(
                "lpaPerp: must be true, was false after it was set: the venue would move orders "
                "out of its price band; set limit price behaviour to reject by hand"
            )
        if account.cross_mode is not cross_mode or account.leverage != leverage:
            raise VenueError(
                f"leverage and margin mode must be {leverage} and {_word(cross_mode)}, were "
                f"{account.leverage:g} and {_word(account.cross_mode)} after they were set"
            )

    async def _check_collateral(self) -> None:
        coin = await self._settle_coin()
        held = wire.wallet_of(await self.rest.wallet(coin), coin)
        if held is None or not flag(held, "collateralSwitch"):
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
            self._most,
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
            self._most,
            check=lambda order: None,
            one=self.rest.cancel,
            many=self.rest.cancel_batch,
        )

    def amend(
        self, order: Order, *, price: float | None = None, qty: float | None = None
    ) -> Future[Outcome]:
        """Change an order now; ``qty`` is the new total. Accepted means that the stream tells."""
        if self._steps is None:
            raise VenueError("rules: must be read before an order is amended")
        steps, trade = self._steps, self._live_trade()
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if trade is not None:
            return self._sending.now(
                {"amend": 1},
                order.reduce_only,
                partial(trade.amend, order, price=price, qty=qty),
            )
        return self._sending.checked(
            lambda: self.rest.amend(order, wire.amend_fields(order, steps, price=price, qty=qty))
        )

    async def cancel_all(self) -> Outcome:
        """Cancel every order of the symbol, until none is left."""
        for _ in range(_MOST_SWEEPS):
            outcome = await self.rest.cancel_all()
            if outcome.verdict is not Verdict.OK:
                return outcome
            try:
                left = await self.rest.open_orders()
            except VenueError as e:
                return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, e.code, f"not looked at: {e}")
            if not left:
                return outcome
            await self._clock.sleep(_SWEEP_S)
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
        login = Login(
            self._key.key,
            self._key.signer(),
            self._http.venue_time_ms,
            on_refused=self._look_at_clock,
        )
        public = PublicStream(
            self._endpoints.ws_public,
            symbol=self.symbol,
            recent=self._newest_trade,
            venue_ms=self._http.venue_time_ms,
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        private = PrivateStream(
            self._endpoints.ws_private,
            symbol=self.symbol,
            category=self._category,
            coin=coin,
            login=login,
            sink=sink,
            clock=self._clock,
            rng=self._rng,
        )
        streams: list[Stream] = [public.stream, private.stream]
        if self._endpoints.ws_trade is not None:
            self._trade = TradeSocket(
                self._endpoints.ws_trade,
                texts=self._texts(self._steps),
                login=login,
                stamp_ms=self._http.stamp_ms,
                on_clock=self._look_at_clock,
                budget=self._budget,
                sink=sink,
                clock=self._clock,
                rng=self._rng,
            )
            streams.append(self._trade.stream)
        await self._sending.run(streams, self._http.keep_clock(), public.watch())

    def _texts(self, steps: wire.Steps) -> BybitOrderText:
        return BybitOrderText(self.symbol, self._category, steps.price, steps.qty)

    async def _newest_trade(self) -> PublicTrade | None:
        trades = await self.rest.recent_trades(1)
        return trades[-1] if trades else None

    def _look_at_clock(self) -> None:
        self._sending.aside(self._sync_clock())

    async def _sync_clock(self) -> None:
        try:
            await self._http.sync_clock()
        except UnavailableError as e:
            log.warning("clock not read: %s", e)

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


def _must(reply: Reply, what: str, remedy: str) -> None:
    # What is not known is decided by looking again.
    if reply.verdict is Verdict.REJECTED:
        raise VenueError(
            f"{what}: could not be set: {reply.text}{_why(reply.data)}; {remedy}",
            code=reply.code,
            reaction=reply.reaction,
        )


def _why(data: Any) -> str:
    """Return the reasons that a refused margin mode comes with."""
    try:
        reasons = wire.rows_of(data.get("result") if isinstance(data, dict) else None, "reasons")
    except BadReplyError:
        return ""
    told = ", ".join(clean(str(reason.get("reasonMsg", ""))) for reason in reasons)
    return f" ({told})" if told else ""
