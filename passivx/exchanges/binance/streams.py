"""What Binance tells over its three stream sockets, handed on as values.

``/market`` has trades and the mark price, ``/public`` the best prices, ``/private`` orders, fills,
position and wallet. On the wrong path a subscription is acknowledged and stays silent
(docs/protocol facts, path split of 2026), so a topic counts only by its data. Trades and quotes are
read in C; whatever the scanner does not take is read again the slow way.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Final

import orjson

from passivx._core.frames import QUOTE, TRADE, BinanceFrames
from passivx.clock import Clock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import Link, PublicTrade, Reaction, Sink, row_of, rows_of, whole
from passivx.exchanges.binance import wire
from passivx.exchanges.silence import TradeWatch
from passivx.exchanges.stream import (
    Connection,
    NoEntryError,
    Stream,
    StreamLimits,
    StreamState,
    TopicAges,
    free,
)

__all__ = ["BookStream", "PrivateStream", "TradeStream"]

log = logging.getLogger(__name__)

# The mark price comes every second whatever the market does: it tells a dead socket from a quiet
# market. Best prices of a small market may rest for long.
_MARK_AGE_S: Final = 10.0
_QUOTE_AGE_S: Final = 60.0
# A listenKey lives for 60 minutes from its last renewal.
_KEEP_KEY_S: Final = 1800.0
_MOST_KEY_AGE_S: Final = 3000.0
_KEY_CHECK_S: Final = 60.0
# The only refusal of a renewal that proves the key dead.
_DEAD_KEY: Final = Reaction.RECREATE
_ids = count(1)


class _Subscriber:
    """A socket's topics, asked for after every connect; answered by id."""

    def __init__(self, topics: list[str]) -> None:
        self.topics = topics
        self._asked = 0

    async def subscribe(self, connection: Connection) -> None:
        """Subscribe, and wait for the venue's answer."""
        # Of a rotation's two connections only the new one asks.
        self._asked = id = next(_ids)
        request = {"method": "SUBSCRIBE", "params": self.topics, "id": id}
        answer = await connection.request(id, orjson.dumps(request))
        if "error" in answer or "code" in answer or answer.get("result") is not None:
            raise VenueError("subscribe: refused by the venue")

    def control(self, stream: Stream, message: Mapping[str, Any]) -> bool:
        """Deal with an answer; False when it is none."""
        if "e" in message:
            return False
        id = message.get("id")
        # Its refusals may come without an id.
        stream.resolve(self._asked if id is None else id, message)
        return True


class TradeStream:
    """Aggregate trades and the mark price of one symbol.

    Their ids are consecutive: what repeats is dropped, what is missing is told by ``on_gap``.
    ``recent`` reads the newest trade over REST, to tell a quiet market from a silent topic.
    """

    def __init__(
        self,
        url: str,
        *,
        symbol: str,
        recent: Callable[[], Awaitable[PublicTrade | None]],
        venue_ms: Callable[[], int],
        sink: Sink,
        clock: Clock,
        held_s: Callable[[], float] = free,
        rng: random.Random | None = None,
    ) -> None:
        self._symbol = symbol
        self._sink = sink
        self._frames = BinanceFrames(symbol)
        name = symbol.lower()
        self._mark_topic = f"{name}@markPrice@1s"
        self._ages = TopicAges(clock)
        self._ages.expect(self._mark_topic, _MARK_AGE_S)
        self._subscriber = _Subscriber([f"{name}@aggTrade", self._mark_topic])
        self._last_id = 0
        self._last_ms = 0
        self._watch = TradeWatch(recent=recent, venue_ms=venue_ms, clock=clock)
        self.unusual = 0  # messages of ours that were read the slow way
        self.malformed = 0
        self.stream = Stream(
            name=f"binance {symbol} market",
            url=f"{url}/ws",
            on_frame=self._on_frame,
            hello=self._subscriber.subscribe,
            on_state=self._on_state,
            on_fault=partial(sink.on_gap, Link.TRADES, "a message could not be handed on"),
            held_s=held_s,
            clock=clock,
            topics=self._ages,
            rng=rng,
        )

    def _on_frame(self, payload: memoryview) -> bool:
        frames = self._frames
        if frames.scan(payload) == TRADE:
            self._trade(frames.trade_id, frames.price, frames.qty, frames.ts_ms, frames.buyer_maker)
            return True
        return self._slow(payload)

    def _trade(self, id: int, price: float, qty: float, ts_ms: int, buyer_maker: bool) -> None:
        if id != self._last_id + 1 and self._last_id:
            if id <= self._last_id and ts_ms <= self._last_ms:
                return
            # An old id with a new time: the venue counts anew.
            reason = f"trade {id} follows {self._last_id}"
            log.warning("stream=%s gap: %s", self.stream.name, reason)
            self._sink.on_gap(Link.TRADES, reason)
        self._last_id, self._last_ms = id, ts_ms
        self._watch.seen(ts_ms)
        self._sink.on_trade(str(id), price, qty, ts_ms, buyer_maker)

    def _slow(self, payload: memoryview) -> bool:
        try:
            message = wire.decode(payload)
            if self._subscriber.control(self.stream, message) or not _ours(message, self._symbol):
                return False
            if message["e"] == "markPriceUpdate":
                mark = wire.mark_event(message)
                self._ages.seen(self._mark_topic)
                self._sink.on_mark(mark)
            elif message["e"] == "aggTrade":
                self.unusual += 1
                trade = wire.aggregate_of(message)
                self._trade(
                    int(trade.trade_id), trade.price, trade.qty, trade.ts_ms, trade.buyer_maker
                )
            else:
                return False
        except BadReplyError as e:
            self.malformed += 1
            log.warning("stream=%s malformed: %s", self.stream.name, e)
            # It may have been a trade. If it was one, the next one's id tells as well.
            self._sink.on_gap(Link.TRADES, "a message could not be read")
            return False
        return True

    async def watch(self) -> None:
        """Find out whether the topic of trades is silent while there are some; until cancelled."""
        await self._watch.run(self.stream, self._subscriber.topics[0])

    def _on_state(self, state: StreamState, reason: str) -> None:
        if state is StreamState.LIVE:
            self._watch.connected()
        self._sink.on_link(Link.TRADES, state, reason)


class BookStream:
    """Best bid and ask of one symbol."""

    def __init__(
        self,
        url: str,
        *,
        symbol: str,
        sink: Sink,
        clock: Clock,
        held_s: Callable[[], float] = free,
        rng: random.Random | None = None,
    ) -> None:
        self._symbol = symbol
        self._sink = sink
        self._frames = BinanceFrames(symbol)
        self._subscriber = _Subscriber([f"{symbol.lower()}@bookTicker"])
        self._update_id = 0
        self._quoted_ms = 0
        self.unusual = 0
        self.malformed = 0
        self.stream = Stream(
            name=f"binance {symbol} public",
            url=f"{url}/ws",
            on_frame=self._on_frame,
            hello=self._subscriber.subscribe,
            on_state=self._on_state,
            held_s=held_s,
            clock=clock,
            limits=StreamLimits(data_age_s=_QUOTE_AGE_S),
            rng=rng,
        )

    def _on_frame(self, payload: memoryview) -> bool:
        frames = self._frames
        if frames.scan(payload) == QUOTE:
            if self._is_newer(frames.update_id, frames.quote_ts_ms):
                self._sink.on_quote(
                    frames.bid, frames.bid_qty, frames.ask, frames.ask_qty, frames.quote_ts_ms
                )
            return True
        return self._slow(payload)

    def _is_newer(self, update_id: int, ts_ms: int) -> bool:
        # Lower ids at a later time are those of a venue that was restarted and counts anew.
        if update_id < self._update_id and ts_ms <= self._quoted_ms:
            return False
        self._update_id, self._quoted_ms = update_id, ts_ms
        return True

    def _slow(self, payload: memoryview) -> bool:
        try:
            message = wire.decode(payload)
            if self._subscriber.control(self.stream, message) or not _ours(message, self._symbol):
                return False
            if message["e"] != "bookTicker":
                return False
            self.unusual += 1
            quote = wire.book_ticker(message)
        except BadReplyError as e:
            # The next one replaces it.
            self.malformed += 1
            log.warning("stream=%s malformed: %s", self.stream.name, e)
            return False
        if self._is_newer(quote.update_id, quote.ts_ms):
            self._sink.on_quote(quote.bid, quote.bid_qty, quote.ask, quote.ask_qty, quote.ts_ms)
        return True

    def _on_state(self, state: StreamState, reason: str) -> None:
        if state is StreamState.LOST:
            # A venue that was restarted may count anew.
            self._update_id = self._quoted_ms = 0
        self._sink.on_link(Link.BOOK, state, reason)


def _ours(message: Mapping[str, Any], symbol: str) -> bool:
    # st 2 is a COIN-M contract, whose symbols are others; an all-market stream carries both.
    return message.get("s") == symbol and message.get("st") != 2


class PrivateStream:
    """Orders, fills, position and wallet of this account, one symbol.

    Whatever happened that is not in its values (a setting changed, a row could not be read, funding
    whose payment REST alone can name) is told by ``on_gap`` or ``on_funding``.
    """

    def __init__(
        self,
        url: str,
        *,
        symbol: str,
        asset: str,
        listen_key: Callable[[], Awaitable[str]],
        keep_listen_key: Callable[[], Awaitable[str | None]],
        on_funding: Callable[[int], None],
        sink: Sink,
        clock: Clock,
        held_s: Callable[[], float] = free,
        rng: random.Random | None = None,
    ) -> None:
        self._base = url
        self._symbol, self._asset = symbol, asset
        self._listen_key, self._keep_listen_key = listen_key, keep_listen_key
        self._on_funding = on_funding
        self._sink = sink
        self._clock = clock
        self._key = ""
        self._kept_s = 0.0
        self._read: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "ORDER_TRADE_UPDATE": self._order,
            "ACCOUNT_UPDATE": self._account,
            "ACCOUNT_CONFIG_UPDATE": self._config,
            "MARGIN_CALL": self._margin_call,
            "listenKeyExpired": self._expired,
        }
        self.malformed = 0
        self.stream = Stream(
            name=f"binance {symbol} private",
            url=self._url,
            on_frame=self._on_frame,
            on_state=self._on_state,
            on_fault=partial(sink.on_gap, Link.PRIVATE, "a message could not be handed on"),
            held_s=held_s,
            clock=clock,
            # Quiet for hours when nothing trades; pings and pongs tell whether it is there.
            limits=StreamLimits(data_age_s=None),
            rng=rng,
        )

    async def _url(self) -> str:
        try:
            self._key = await self._listen_key()
        except VenueError as e:
            if e.code is not None and e.reaction == Reaction.HALT:
                raise NoEntryError(f"listenKey: {e}", code=e.code) from None
            raise
        self._kept_s = self._clock.monotonic_s()
        return f"{self._base}/ws/{self._key}"

    async def keep(self) -> None:
        """Renew the listenKey every half hour, and the connection when it is dead; runs on."""
        while True:
            await self._clock.sleep(_KEY_CHECK_S)
            age_s = self._clock.monotonic_s() - self._kept_s
            if not self._key or age_s < _KEEP_KEY_S:
                continue
            try:
                key = await self._keep_listen_key()
            except VenueError as e:
                log.warning("stream=%s: listenKey not renewed: %s", self.stream.name, e)
                if e.reaction == _DEAD_KEY or age_s > _MOST_KEY_AGE_S:
                    self._renew("the listenKey is dead")
                continue
            self._kept_s = self._clock.monotonic_s()
            if key not in (None, self._key):
                self._renew("the account has another listenKey")

    def _renew(self, reason: str) -> None:
        self._key = ""
        self.stream.renew(reason)

    def _on_frame(self, payload: memoryview) -> bool:
        try:
            message = wire.decode(payload)
            # Orders of the conditional kind, strategies and TRADE_LITE, whose fill comes again.
            read = self._read.get(str(message.get("e")))
            if read is None:
                return False
            read(message)
        except BadReplyError as e:
            self.malformed += 1
            log.warning("stream=%s malformed: %s", self.stream.name, e)
            self._sink.on_gap(Link.PRIVATE, "a message could not be read")
            return False
        return True

    def _order(self, event: Mapping[str, Any]) -> None:
        row = row_of(event.get("o"), "o")
        if row.get("s") != self._symbol:
            return
        # First the fill: it counts, even should the rest not be understood.
        if (fill := wire.fill_event(event)) is not None:
            self._sink.on_fill(fill)
        self._sink.on_order(wire.order_event(event))

    def _account(self, event: Mapping[str, Any]) -> None:
        ts_ms = whole(event, "T")
        account = row_of(event.get("a"), "a")
        if (wallet := wire.wallet_event(account, self._asset)) is not None:
            self._sink.on_wallet(wallet, ts_ms)
        if (position := wire.position_event(account, self._symbol)) is not None:
            self._sink.on_position(position, ts_ms)
        # Since 2026-08 it names the symbol.
        if account.get("m") == "FUNDING_FEE" and account.get("S", self._symbol) == self._symbol:
            self._on_funding(ts_ms)

    def _config(self, event: Mapping[str, Any]) -> None:
        changed = event.get("ac")
        if not isinstance(changed, dict) or changed.get("s") == self._symbol:
            self._sink.on_gap(Link.PRIVATE, "a setting of the account was changed")

    def _margin_call(self, event: Mapping[str, Any]) -> None:
        rows = rows_of(event.get("p"), "p")
        if any(row.get("s") == self._symbol for row in rows):
            log.warning("stream=%s margin call", self.stream.name)
            self._sink.on_gap(Link.PRIVATE, "margin call")

    def _expired(self, event: Mapping[str, Any]) -> None:
        key = event.get("listenKey")
        # During a rotation it may be another's that has expired. It may also be left out.
        if key is None or key == self._key:
            self._renew("the listenKey has expired")

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.PRIVATE, state, reason)
        if state is StreamState.LIVE:
            # There is no snapshot after connecting, the first time no more than later.
            self._sink.on_gap(Link.PRIVATE, "connected")
            if not self._key:
                # It expired before the connection counted as live.
                self.stream.renew("the listenKey has expired")
