"""What Bybit tells over its public and private sockets, handed on as values.

One public socket has trades, best prices and tickers; the private one orders, executions, position
and wallet of the symbol. Trades and quotes are read in C; whatever the scanner does not take is
read again the slow way. Subscriptions are confirmed by their answer, and by their data.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

import orjson

from passivx._core.frames import QUOTE, TRADE, BybitFrames
from passivx.clock import Clock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import Link, Sink, number, whole
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import react
from passivx.exchanges.stream import (
    Connection,
    Heartbeat,
    Stream,
    StreamLimits,
    StreamState,
    TopicAges,
)

__all__ = ["PING", "PrivateStream", "PublicStream", "authenticate"]

log = logging.getLogger(__name__)

# The venue wants its JSON ping every 20 s; websocket pings do not count.
PING: Final = Heartbeat(20.0, b'{"op":"ping"}')
# orderbook.1 repeats itself after 3 s without a change, tickers come every 100 ms.
_QUOTE_AGE_S: Final = 10.0
_TICKER_AGE_S: Final = 30.0
_AUTH_AHEAD_MS: Final = 10_000
_ids = count(1)


async def authenticate(
    connection: Connection, key: str, sign: Callable[[bytes], bytes], venue_ms: int
) -> Mapping[str, Any]:
    """Authenticate a private or trade socket; return the venue's answer.

    Raises
    ------
    VenueError
        If it refuses; the message has its code and no more.
    """
    expires_ms = venue_ms + _AUTH_AHEAD_MS
    signature = sign(b"GET/realtime%d" % expires_ms).decode()
    request = orjson.dumps({"op": "auth", "args": [key, expires_ms, signature]})
    answer: Mapping[str, Any] = await connection.request("auth", request)
    code = answer.get("retCode", 0)
    if answer.get("success") is True or ("success" not in answer and code in (0, 20001)):
        return answer
    if not isinstance(code, int):
        code = 0
    _, reaction = react(200, code, "")
    raise VenueError(f"auth: refused (code {code})", code=code or None, reaction=reaction)


class _Subscriber:
    """A socket's topics: asked for after every connect, and confirmed."""

    def __init__(self, topics: list[str], ages: TopicAges | None = None) -> None:
        self._topics = topics
        self.ages = ages

    async def subscribe(self, connection: Connection) -> None:
        id = f"sub-{next(_ids)}"
        request = {"req_id": id, "op": "subscribe", "args": self._topics}
        answer = await connection.request(id, orjson.dumps(request))
        if answer.get("success") is not True:
            raise VenueError("subscribe: refused by the venue")


def _control(stream: Stream, message: Mapping[str, Any]) -> bool:
    """Deal with answers and pongs; False when it is neither."""
    if "topic" in message or "op" not in message:
        return False
    id = message["op"] if message["op"] == "auth" else message.get("req_id")
    if isinstance(id, str):
        stream.resolve(id, message)
    return True


class PublicStream:
    """Trades, best prices, mark price and funding of one symbol."""

    def __init__(
        self, url: str, symbol: str, sink: Sink, clock: Clock, rng: random.Random | None = None
    ) -> None:
        self._sink = sink
        self._frames = BybitFrames(symbol)
        self._ticker = wire.Ticker()
        self._names = {
            f"publicTrade.{symbol}": self._trades,
            f"orderbook.1.{symbol}": self._quote,
            f"tickers.{symbol}": self._tick,
        }
        self._quote_topic, self._ticker_topic = f"orderbook.1.{symbol}", f"tickers.{symbol}"
        self._ages = TopicAges(clock)
        self._ages.expect(self._quote_topic, _QUOTE_AGE_S)
        self._ages.expect(self._ticker_topic, _TICKER_AGE_S)
        self._subscriber = _Subscriber(list(self._names))
        self._was_live = False
        self.unusual = 0  # messages read the slow way
        self.malformed = 0
        self.stream = Stream(
            name=f"bybit {symbol} public",
            url=url,
            on_frame=self._on_frame,
            hello=self._subscriber.subscribe,
            on_state=self._on_state,
            clock=clock,
            heartbeat=PING,
            topics=self._ages,
            rng=rng,
        )

    def _on_frame(self, message: memoryview) -> bool:
        frames = self._frames
        kind = frames.scan(message)
        if kind == QUOTE:
            self._ages.seen(self._quote_topic)
            self._sink.on_quote(
                frames.bid, frames.bid_qty, frames.ask, frames.ask_qty, frames.ts_ms
            )
            return True
        if kind == TRADE:
            for i in range(frames.n_trades):
                self._sink.on_trade(*frames.trade(i))
            return True
        return self._slow(message)

    def _slow(self, payload: memoryview) -> bool:
        try:
            message = wire.decode(payload)
            if _control(self.stream, message):
                return False
            read = self._names.get(message.get("topic", ""))
            if read is None:
                return False
            self.unusual += 1
            read(message)
        except BadReplyError as e:
            self.malformed += 1
            log.warning("stream=%s malformed: %s", self.stream.name, e)
            return False
        return True

    def _trades(self, message: Mapping[str, Any]) -> None:
        try:
            trades = list(wire.stream_trades(message))
        except BadReplyError:
            self._sink.on_gap(Link.TRADES, "a message of trades could not be read")
            raise
        for trade in trades:
            self._sink.on_trade(
                trade.trade_id, trade.price, trade.qty, trade.ts_ms, trade.buyer_maker
            )

    def _quote(self, message: Mapping[str, Any]) -> None:
        quote = wire.quote_of(message)
        self._ages.seen(self._quote_topic)
        self._sink.on_quote(quote.bid, quote.bid_qty, quote.ask, quote.ask_qty, quote.ts_ms)

    def _tick(self, message: Mapping[str, Any]) -> None:
        self._ages.seen(self._ticker_topic)
        if (mark := self._ticker.take(message)) is not None:
            self._sink.on_mark(mark)

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.BOOK, state, reason)
        self._sink.on_link(Link.TRADES, state, reason)
        if state is StreamState.LIVE:
            if self._was_live:
                self._sink.on_gap(Link.TRADES, "connected anew")
            self._was_live = True


class PrivateStream:
    """Orders, executions, position and wallet of this account, one symbol."""

    def __init__(
        self,
        url: str,
        *,
        symbol: str,
        category: str,
        coin: str,
        key: str,
        sign: Callable[[bytes], bytes],
        venue_ms: Callable[[], int],
        sink: Sink,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._symbol, self._category, self._coin = symbol, category, coin
        self._key, self._sign, self._venue_ms = key, sign, venue_ms
        self._sink = sink
        self._read: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "order": self._order,
            "execution": self._execution,
            "position": self._position,
        }
        topics = [f"{name}.{category}" for name in self._read]
        self._subscriber = _Subscriber([*topics, "wallet"])
        self.malformed = 0
        self.stream = Stream(
            name=f"bybit {symbol} private",
            url=url,
            on_frame=self._on_frame,
            hello=self._hello,
            on_state=self._on_state,
            clock=clock,
            # Quiet for hours when nothing trades; pings and pongs tell whether it is there.
            limits=StreamLimits(data_age_s=None),
            heartbeat=PING,
            rng=rng,
        )

    async def _hello(self, connection: Connection) -> None:
        await authenticate(connection, self._key, self._sign, self._venue_ms())
        await self._subscriber.subscribe(connection)

    def _on_frame(self, payload: memoryview) -> bool:
        try:
            message = wire.decode(payload)
            if _control(self.stream, message):
                return False
            topic = str(message.get("topic", "")).split(".")[0]
            if topic == "wallet":
                self._wallet(message)
                return True
            read = self._read.get(topic)
            if read is None:
                return False
            rows = wire.rows_of(message, "data")
        except BadReplyError as e:
            self._spoiled(e)
            return False
        for row in rows:
            if row.get("symbol") != self._symbol or row.get("category") != self._category:
                continue
            try:
                read(row)
            except BadReplyError as e:
                # The other rows are still true; what this one said must be asked for.
                self._spoiled(e)
        return True

    def _spoiled(self, error: BadReplyError) -> None:
        self.malformed += 1
        log.warning("stream=%s malformed: %s", self.stream.name, error)
        self._sink.on_gap(Link.PRIVATE, "a message could not be read")

    def _order(self, row: Mapping[str, Any]) -> None:
        self._sink.on_order(wire.order_of(row))

    def _execution(self, row: Mapping[str, Any]) -> None:
        fill = wire.fill_of(row)
        if fill is not None:
            self._sink.on_fill(fill)
        elif (payment := wire.payment_of(row)) is not None:
            self._sink.on_payment(payment)

    def _position(self, row: Mapping[str, Any]) -> None:
        self._sink.on_position(wire.position_of(row), whole(row, "updatedTime"))

    def _wallet(self, message: Mapping[str, Any]) -> None:
        ts_ms = whole(message, "creationTime")
        for row in wire.rows_of(message, "data"):
            # Only coins that changed are told.
            if (coin := wire.wallet_of(row, self._coin)) is not None:
                self._sink.on_wallet(number(coin, "walletBalance"), ts_ms)

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.PRIVATE, state, reason)
        if state is StreamState.LIVE:
            # There is no snapshot after subscribing, the first time no more than later.
            self._sink.on_gap(Link.PRIVATE, "connected")
