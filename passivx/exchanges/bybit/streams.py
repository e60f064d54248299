"""What Bybit tells over its public and private sockets, handed on as values.

One public socket has trades, best prices and tickers; the private one orders, executions, position
and wallet of the symbol. Trades and quotes are read in C; whatever the scanner does not take is
read again the slow way. Subscriptions are confirmed by their answer, and by their data.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final

import orjson

from passivx._core.frames import QUOTE, TRADE, BybitFrames
from passivx.clock import Clock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import Link, PublicTrade, Reaction, Sink, decode, number, text, whole
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import react
from passivx.exchanges.silence import TradeWatch
from passivx.exchanges.stream import (
    Connection,
    Heartbeat,
    NoEntryError,
    Stream,
    StreamLimits,
    StreamState,
    TopicAges,
    free,
)

__all__ = ["PING", "Login", "PrivateStream", "PublicStream"]

log = logging.getLogger(__name__)

# The venue wants its JSON ping every 20 s; websocket pings do not count.
PING: Final = Heartbeat(20.0, b'{"op":"ping"}')
# orderbook.1 repeats itself after 3 s without a change, tickers come every 100 ms.
_QUOTE_AGE_S: Final = 10.0
_TICKER_AGE_S: Final = 30.0
_AUTH_AHEAD_MS: Final = 10_000
# Answers that say: you are authenticated, or were before.
_AUTHENTICATED: Final = (None, 0, 20001)
_MOST_REFUSALS: Final = 3
_ids = count(1)


@dataclass(slots=True, repr=False)
class Login:
    """What authenticates one private or trade socket.

    ``on_refused`` is called before a refusal is raised: the venue's clock may have to be looked at,
    for it is refused as well when its time is over.
    """

    key: str
    sign: Callable[[bytes], bytes]
    venue_ms: Callable[[], int]
    on_refused: Callable[[], object]
    _refusals: int = field(default=0, init=False)  # in a row, by a code that asks for an operator

    async def enter(self, connection: Connection) -> None:
        """Authenticate a connection.

        Raises
        ------
        VenueError
            If the venue refuses; the message has its code and no more. `NoEntryError` when it did
            so for the key's sake again and again, although the clock was looked at.
        """
        expires_ms = self.venue_ms() + _AUTH_AHEAD_MS
        signature = self.sign(b"GET/realtime%d" % expires_ms).decode()
        request = orjson.dumps({"op": "auth", "args": [self.key, expires_ms, signature]})
        answer: Mapping[str, Any] = await connection.request("auth", request)
        # The private socket answers with a flag, the trade socket with a code.
        code = answer.get("retCode")
        told = "success" in answer or code is not None
        if told and answer.get("success", True) is True and code in _AUTHENTICATED:
            self._refusals = 0
            return
        self.on_refused()
        if not isinstance(code, int) or isinstance(code, bool):
            raise VenueError("auth: refused")
        # 10003 may mean too many sessions as well: that passes.
        for_good = react(200, code, "", on_trade_socket=True)[1] is Reaction.HALT
        self._refusals = self._refusals + 1 if for_good else 0
        error = NoEntryError if self._refusals >= _MOST_REFUSALS else VenueError
        raise error(f"auth: refused (code {code})", code=code)


class _Subscriber:
    """A socket's topics: asked for after every connect, and confirmed."""

    def __init__(self, topics: list[str]) -> None:
        self.topics = topics
        self._asked = ""

    async def subscribe(self, connection: Connection) -> None:
        """Subscribe, and wait for the venue's answer."""
        # Of a rotation's two connections only the new one asks.
        self._asked = id = f"sub-{next(_ids)}"
        request = {"req_id": id, "op": "subscribe", "args": self.topics}
        answer = await connection.request(id, orjson.dumps(request))
        if answer.get("success") is not True:
            raise VenueError("subscribe: refused by the venue")

    def control(self, stream: Stream, message: Mapping[str, Any]) -> bool:
        """Deal with answers and pongs; False when it is neither."""
        if "topic" in message or "op" not in message:
            return False
        op = message["op"]
        if op == "auth":
            stream.resolve(op, message)
        elif op == "subscribe":
            # A refusal may come without an id.
            stream.resolve(message.get("req_id") or self._asked, message)
        return True


class PublicStream:
    """Trades, best prices, mark price and funding of one symbol.

    ``recent`` reads the newest trade over REST, to tell a quiet market from a silent topic: trades
    have ids but no numbers.
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
        self._sink = sink
        self._frames = BybitFrames(symbol)
        self._ticker = wire.Ticker()
        self._trades_topic = f"publicTrade.{symbol}"
        self._quote_topic, self._ticker_topic = f"orderbook.1.{symbol}", f"tickers.{symbol}"
        self._read = {
            self._trades_topic: self._trades,
            self._quote_topic: self._quote,
            self._ticker_topic: self._tick,
        }
        self._ages = TopicAges(clock)
        self._ages.expect(self._quote_topic, _QUOTE_AGE_S)
        self._ages.expect(self._ticker_topic, _TICKER_AGE_S)
        self._subscriber = _Subscriber(list(self._read))
        self._was_live = False
        self._watch = TradeWatch(recent=recent, venue_ms=venue_ms, clock=clock)
        self.unusual = 0  # messages read the slow way
        self.malformed = 0
        self.stream = Stream(
            name=f"bybit {symbol} public",
            url=url,
            on_frame=self._on_frame,
            hello=self._subscriber.subscribe,
            on_state=self._on_state,
            on_fault=partial(sink.on_gap, Link.TRADES, "a message could not be handed on"),
            held_s=held_s,
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
                self._trade(*frames.trade(i))
            return True
        return self._slow(message)

    def _trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None:
        self._watch.seen(ts_ms)
        self._sink.on_trade(trade_id, price, qty, ts_ms, buyer_maker)

    def _slow(self, payload: memoryview) -> bool:
        topic = ""
        try:
            message = decode(payload)
            if self._subscriber.control(self.stream, message):
                return False
            topic = str(message.get("topic"))
            read = self._read.get(topic)
            if read is None:
                return False
            # Tickers are always read here.
            self.unusual += topic != self._ticker_topic
            read(message)
        except BadReplyError as e:
            self.malformed += 1
            log.warning("stream=%s malformed: %s", self.stream.name, e)
            if topic in ("", self._trades_topic):
                self._sink.on_gap(Link.TRADES, "a message could not be read")
            return False
        return True

    def _trades(self, message: Mapping[str, Any]) -> None:
        for trade in list(wire.stream_trades(message)):
            self._trade(trade.trade_id, trade.price, trade.qty, trade.ts_ms, trade.buyer_maker)

    def _quote(self, message: Mapping[str, Any]) -> None:
        quote = wire.quote_of(message)
        self._ages.seen(self._quote_topic)
        self._sink.on_quote(quote.bid, quote.bid_qty, quote.ask, quote.ask_qty, quote.ts_ms)

    def _tick(self, message: Mapping[str, Any]) -> None:
        if (mark := self._ticker.take(message)) is not None:
            self._ages.seen(self._ticker_topic)
            self._sink.on_mark(mark)

    async def watch(self) -> None:
        """Find out whether the topic of trades is silent while there are some; until cancelled."""
        await self._watch.run(self.stream, self._trades_topic)

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.BOOK, state, reason)
        self._sink.on_link(Link.TRADES, state, reason)
        if state is StreamState.LOST:
            # What it held is of before.
            self._ticker = wire.Ticker()
        elif state is StreamState.LIVE:
            self._watch.connected()
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
        login: Login,
        sink: Sink,
        clock: Clock,
        held_s: Callable[[], float] = free,
        rng: random.Random | None = None,
    ) -> None:
        self._symbol, self._category, self._coin = symbol, category, coin
        self._login = login
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
            on_fault=partial(sink.on_gap, Link.PRIVATE, "a message could not be handed on"),
            held_s=held_s,
            clock=clock,
            # Quiet for hours when nothing trades; pings and pongs tell whether it is there.
            limits=StreamLimits(data_age_s=None),
            heartbeat=PING,
            rng=rng,
        )

    async def _hello(self, connection: Connection) -> None:
        await self._login.enter(connection)
        await self._subscriber.subscribe(connection)

    def _on_frame(self, payload: memoryview) -> bool:
        try:
            message = decode(payload)
            if self._subscriber.control(self.stream, message):
                return False
            topic = str(message.get("topic", "")).split(".")[0]
            if topic == "wallet":
                self._wallet(message)
                return True
            read = self._read.get(topic)
            if read is None:
                return False
            rows = wire.rows_in(message, "data")
        except BadReplyError as e:
            self._spoiled(e)
            return False
        for row in rows:
            try:
                if (text(row, "symbol"), text(row, "category")) == (self._symbol, self._category):
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
        for row in wire.rows_in(message, "data"):
            # Only coins that changed are told.
            if (coin := wire.wallet_of(row, self._coin)) is not None:
                self._sink.on_wallet(number(coin, "walletBalance"), ts_ms)

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.PRIVATE, state, reason)
        if state is StreamState.LIVE:
            # There is no snapshot after subscribing, the first time no more than later.
            self._sink.on_gap(Link.PRIVATE, "connected")
