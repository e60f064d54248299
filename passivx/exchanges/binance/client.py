"""Binance USDⓈ-M as the bot sees it: one symbol, one account, `exchanges.base.Exchange`."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from passivx._core.wire import BinanceOrderText
from passivx.clock import Clock
from passivx.errors import VenueError
from passivx.exchanges.base import Account, Link, Outcome, Rules, Sink, Steps, text
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.rest import (
    MAX_CANCELS,
    MAX_PLACES,
    WINDOWS,
    BinanceDialect,
    BinanceRest,
)
from passivx.exchanges.binance.streams import BookStream, PrivateStream, TradeStream
from passivx.exchanges.binance.trade import OrderSocket
from passivx.exchanges.client import Client, mode_word, must
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.stream import Stream
from passivx.models import Market

__all__ = ["Binance"]

log = logging.getLogger(__name__)

# The history of funding lags behind its event; asked so often, so long apart.
_FUNDING_TRIES: Final = 5
_FUNDING_PAUSE_S: Final = 2.0
_FUNDING_SINCE_MS: Final = 60_000


class Binance(Client[BinanceRest, OrderSocket]):
    """One USDⓈ-M perpetual, as `Client` says. Fills over REST know no client ids."""

    name = "binance"
    _most_places = MAX_PLACES
    _most_cancels = MAX_CANCELS

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        symbol: str,
        key: ApiKey | None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if endpoints.ws_market is None:
            raise VenueError("ws_market: must be given for Binance, which has three stream sockets")
        super().__init__(
            BinanceDialect(key),
            WINDOWS,
            endpoints=endpoints,
            symbol=symbol,
            key=key,
            clock=clock,
            rng=rng,
        )
        self.rest = BinanceRest(self._http, symbol=symbol, key_rights_url=endpoints.key_rights)
        self._ws_market = endpoints.ws_market
        self._margin_asset = ""
        self._asset = ""  # what the wallet is in: the margin asset, or the EU's credits

    # --- reads ---

    async def rules(self) -> Rules:
        """Return steps, limits, tiers and fees; orders are written by these from now on.

        The venue's rate limits come with them, and hold from now on too.
        """
        info = await self.rest.exchange_info()
        self._budget.set_limits(wire.windows_of(info))
        rules = await self.rest.rules(info)
        self._margin_asset = text(wire.symbol_info(info, self.symbol), "marginAsset")
        self._write_by(rules)
        return rules

    async def public_rules(self, assumed: Market) -> Rules:
        """Return steps and limits; tiers, largest leverage and fees are those of ``assumed``.

        The venue's rate limits hold from now on here too.
        """
        info = await self.rest.exchange_info()
        self._budget.set_limits(wire.windows_of(info))
        return await self.rest.public_rules(info, assumed)

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
            must(
                await self.rest.set_cross(cross_mode),
                f"{self.symbol}: margin mode {mode_word(cross_mode)}",
                f"cancel {self.symbol}'s orders and close its position first",
            )
        if held != leverage:
            must(
                await self.rest.set_leverage(leverage),
                f"{self.symbol}: leverage {leverage}",
                "choose another one, or reduce the position first",
            )
        modes = await self.rest.account_modes()
        held, cross = await self.rest.symbol_modes()
        if not modes.one_way or cross is not cross_mode or held != leverage:
            raise VenueError(
                f"{self.symbol}: must be one-way, {mode_word(cross_mode)}, leverage {leverage}; "
                f"was {'one-way' if modes.one_way else 'hedge mode'}, {mode_word(cross)}, "
                f"{held:g} after that was set"
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
            must(
                await self.rest.set_one_way(),
                "one-way mode",
                "close all positions and orders, COIN-M too, or switch in the futures settings",
            )

    async def dead_man(self, timeout_s: float) -> bool:
        """Have the venue cancel all orders of the symbol unless called again in time."""
        await self.rest.dead_man(timeout_s)
        return True

    # --- orders ---

    async def cancel_all(self) -> Outcome:
        """Cancel every order of the symbol."""
        return await self.rest.cancel_all()

    # --- events ---

    async def listen(self, sink: Sink) -> None:
        """Connect the three stream sockets and the order socket; return once all are live."""
        if not self._asset:
            await self.account()
        assert self._steps is not None
        await self._http.sync_clock()
        trades, book = self._market_streams(sink)
        private = PrivateStream(
            self._endpoints.ws_private,
            symbol=self.symbol,
            asset=self._asset,
            listen_key=self.rest.listen_key,
            keep_listen_key=self.rest.keep_listen_key,
            on_funding=lambda ts_ms: self._sending.aside(self._tell_payments(sink, ts_ms)),
            sink=sink,
            clock=self._clock,
            held_s=self._held_s,
            rng=self._rng,
        )
        streams: list[Stream] = [trades.stream, book.stream, private.stream]
        # The order socket's texts cannot be signed for names that must be percent-encoded.
        if self._endpoints.ws_trade is not None and self.symbol.isascii():
            self._entry = OrderSocket(
                self._endpoints.ws_trade,
                texts=self._texts(self._steps),
                stamp_ms=self._http.stamp_ms,
                venue_ms=self._http.venue_time_ms,
                on_clock=self._look_at_clock,
                budget=self._budget,
                sink=sink,
                clock=self._clock,
                rng=self._rng,
            )
            streams.append(self._entry.stream)
        await self._sending.run(streams, self._http.keep_clock(), private.keep(), trades.watch())

    async def listen_to_market(self, sink: Sink) -> None:
        """Connect the two sockets that need no key; return once both are live."""
        await self._http.sync_clock()
        trades, book = self._market_streams(sink)
        streams = (trades.stream, book.stream)
        await self._sending.run(streams, self._http.keep_clock(), trades.watch())

    def _market_streams(self, sink: Sink) -> tuple[TradeStream, BookStream]:
        trades = TradeStream(
            self._ws_market,
            symbol=self.symbol,
            recent=self._newest_trade,
            venue_ms=self._http.venue_time_ms,
            sink=sink,
            clock=self._clock,
            held_s=self._held_s,
            rng=self._rng,
        )
        book = BookStream(
            self._endpoints.ws_public,
            symbol=self.symbol,
            sink=sink,
            clock=self._clock,
            held_s=self._held_s,
            rng=self._rng,
        )
        return trades, book

    def _texts(self, steps: Steps) -> BinanceOrderText:
        assert self._key is not None
        return BinanceOrderText(
            self._key.key, self.symbol, steps.price, steps.qty, self._key.signer()
        )

    async def _tell_payments(self, sink: Sink, ts_ms: int) -> None:
        """Tell the payments of a settlement: its event names neither their ids nor amounts."""
        for _ in range(_FUNDING_TRIES):
            try:
                paid = await self.rest.payments(ts_ms - _FUNDING_SINCE_MS)
            except VenueError as e:
                log.warning("funding not read: %s", e)
                paid = []
            try:
                for payment in paid:
                    sink.on_payment(payment)
            except Exception:
                sink.on_gap(Link.PRIVATE, "a payment could not be handed on")
                raise
            if paid:
                return
            await self._clock.sleep(_FUNDING_PAUSE_S)
        sink.on_gap(Link.PRIVATE, "a funding settlement could not be read")
