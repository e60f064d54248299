"""Bybit as the bot sees it: one symbol, one account, `exchanges.base.Exchange`."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from passivx._core.wire import BybitOrderText
from passivx.clock import Clock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Account,
    Outcome,
    Reaction,
    Rules,
    Sink,
    Steps,
    Verdict,
    flag,
    number,
    number_or_none,
    text,
)
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.rest import MAX_BATCH, WINDOWS, BybitDialect, BybitRest
from passivx.exchanges.bybit.streams import Login, PrivateStream, PublicStream
from passivx.exchanges.bybit.trade import TradeSocket
from passivx.exchanges.client import Client, mode_word, must
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.http import Reply, clean
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.stream import Stream
from passivx.models import Market

__all__ = ["Bybit"]

_MODES: Final = {True: "REGULAR_MARGIN", False: "ISOLATED_MARGIN"}
# unifiedMarginStatus of UTA 2.0, the only one with inverse contracts in it.
_UNIFIED: Final = (5, 6)
# cancel-all takes up to 500 orders at a time, and its answer comes before they are gone.
_MOST_SWEEPS: Final = 5
_SWEEP_S: Final = 0.25


class Bybit(Client[BybitRest, TradeSocket]):
    """One perpetual on Bybit V5, as `Client` says. An accepted cancel's end is told by the stream.

    The newest 1000 public trades are all there are.
    """

    name = "bybit"

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        symbol: str,
        key: ApiKey | None,
        category: str = "inverse",
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            BybitDialect(key),
            WINDOWS,
            endpoints=endpoints,
            symbol=symbol,
            key=key,
            clock=clock,
            rng=rng,
        )
        self._category = category
        self.rest = BybitRest(self._http, symbol=symbol, category=category)
        # The demo has no trade socket, and takes batches of linear contracts alone. One by one is
        # no slower: either way it is so many orders a second.
        single = category == "inverse" and endpoints.ws_trade is None
        self._most_places = self._most_cancels = 1 if single else MAX_BATCH
        self._coin = ""

    # --- reads ---

    async def rules(self) -> Rules:
        """Return steps, limits, tiers and fees; orders are written by these from now on."""
        rules = await self.rest.rules()
        self._write_by(rules)
        return rules

    async def public_rules(self, assumed: Market) -> Rules:
        """Return steps, limits and tiers; the fees are those of ``assumed``."""
        return await self.rest.public_rules(assumed)

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
                f"margin mode {mode_word(cross_mode)}",
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
                f"leverage and margin mode must be {leverage} and {mode_word(cross_mode)}, were "
                f"{account.leverage:g} and {mode_word(account.cross_mode)} after they were set"
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

    # --- events ---

    async def listen(self, sink: Sink) -> None:
        """Connect the public, private and trade sockets; return once all are live."""
        if self._steps is None:
            await self.rules()
        assert self._steps is not None
        coin = await self._settle_coin()
        await self._http.sync_clock()
        public = self._public_stream(sink)
        private = PrivateStream(
            self._endpoints.ws_private,
            symbol=self.symbol,
            category=self._category,
            coin=coin,
            login=self._login(),
            sink=sink,
            clock=self._clock,
            held_s=self._held_s,
            rng=self._rng,
        )
        streams: list[Stream] = [public.stream, private.stream]
        if self._endpoints.ws_trade is not None:
            self._entry = TradeSocket(
                self._endpoints.ws_trade,
                texts=self._texts(self._steps),
                login=self._login(),
                stamp_ms=self._http.stamp_ms,
                on_clock=self._look_at_clock,
                budget=self._budget,
                sink=sink,
                clock=self._clock,
                rng=self._rng,
            )
            streams.append(self._entry.stream)
        await self._sending.run(streams, self._http.keep_clock(), public.watch())

    async def listen_to_market(self, sink: Sink) -> None:
        """Connect the public socket; return once it is live."""
        await self._http.sync_clock()
        public = self._public_stream(sink)
        await self._sending.run((public.stream,), self._http.keep_clock(), public.watch())

    def _public_stream(self, sink: Sink) -> PublicStream:
        return PublicStream(
            self._endpoints.ws_public,
            symbol=self.symbol,
            recent=self._newest_trade,
            venue_ms=self._http.venue_time_ms,
            sink=sink,
            clock=self._clock,
            held_s=self._held_s,
            rng=self._rng,
        )

    def _login(self) -> Login:
        assert self._key is not None
        return Login(
            self._key.key,
            self._key.signer(),
            self._http.venue_time_ms,
            on_refused=self._look_at_clock,
        )

    def _texts(self, steps: Steps) -> BybitOrderText:
        return BybitOrderText(self.symbol, self._category, steps.price, steps.qty)


def _cross(info: Any) -> bool:
    mode = text(info, "marginMode")
    if mode not in _MODES.values():
        raise VenueError(
            f"marginMode: must be isolated or cross, was {mode:.40}; leave portfolio margin"
        )
    return mode == _MODES[True]


def _must(reply: Reply, what: str, remedy: str) -> None:
    must(reply, what, remedy, _why(reply.data))


def _why(data: Any) -> str:
    """Return the reasons that a refused margin mode comes with."""
    try:
        reasons = wire.rows_in(data.get("result") if isinstance(data, dict) else None, "reasons")
    except BadReplyError:
        return ""
    told = ", ".join(clean(str(reason.get("reasonMsg", ""))) for reason in reasons)
    return f" ({told})" if told else ""
