"""One logical websocket, renewed for as long as it is wanted: `Stream`.

It knows no venue. What a venue wants said after every connect is its ``hello``; what a message
means is for ``on_frame``, which runs inside the socket's own callback: no queue, no task and, for a
message of one frame, no copy. A message's memory is gone when the callback returns.

A stream is LIVE, or it says why not. It does not promise that nothing was missed: after every LOST
the owner asks the venue what happened meanwhile. During a rotation two connections deliver the same
events, each in its own order: dedupe by the venue's ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import random
import socket
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs
from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeResponse,
    ws_connect,
)
from picows.common import WSHandshakeError, WSProtocolError
from picows.url import WSInvalidURL, WSParsedURL

from passivx.clock import Clock, Timer, timeout
from passivx.errors import UnavailableError, VenueError
from passivx.exchanges.endpoints import is_loopback
from passivx.exchanges.http import BAN_S, retry_after_s

__all__ = [
    "Connection",
    "Heartbeat",
    "NoReplyError",
    "Stream",
    "StreamCounts",
    "StreamLimits",
    "StreamState",
    "TopicAges",
]

log = logging.getLogger(__name__)

# picows writes whole handshakes (a listenKey is in the path) and the texts of exceptions into its
# log; what is worth knowing is logged here.
_SILENT: Final = logging.Logger("picows.silent", level=logging.CRITICAL + 1)

_TEXT: Final = WSMsgType.TEXT
# A CLOSE gets this long to leave before the socket is cut. Loop time: nobody acts on it.
_GRACE_S: Final = 0.05
# Venues count pongs too (docs/protocol facts: 5 and 10 frames/s); of pings that come faster only
# the last is answered, as the protocol allows.
_PONG_EVERY_S: Final = 0.25
# So many failing messages in a row, or on one connection, and it is renewed.
_MOST_FAULTS_IN_A_ROW: Final = 3
_MOST_FAULTS: Final = 20
# Timers are not armed closer than this, and what is due within it is due.
_TICK_S: Final = 0.001
_EYEBALLS_S: Final = 0.25


class StreamState(StrEnum):
    """Whether a stream can be relied upon: only when LIVE."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALE = "stale"  # connected, but no data in time; LOST follows at once
    LOST = "lost"  # no connection; the next attempt waits for its turn
    CLOSED = "closed"  # for good


class NoReplyError(UnavailableError):
    """No reply will be had to a request.

    ``sent`` False proves that nothing of it left this machine; True leaves its outcome unknown.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(message)


class NoEntryError(VenueError):
    """The venue will never let this connection in; raised by a hello or a url it ends the stream.

    Such as for a key that was revoked. Its message holds no secret.
    """


class Heartbeat(NamedTuple):
    """A message that a venue wants to be sent every so often."""

    interval_s: float
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """What a stream puts up with.

    ``data_age_s`` None is for streams that may rightly be quiet; ``rotate_after_s`` None never
    rotates (venues cut connections at 24 h, docs/protocol facts). Backoffs are drawn evenly from
    0 to ``backoff_first_s`` × 2ⁿ, at most ``backoff_most_s``; n starts anew once a connection was
    live for ``stable_s``.

    Raises
    ------
    ValueError
        If a limit is not a positive number.
    """

    connect_timeout_s: float = 10.0
    hello_timeout_s: float = 10.0
    data_age_s: float | None = 10.0
    ping_idle_s: float = 10.0
    ping_reply_s: float = 5.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 60.0
    stable_s: float = 60.0
    rotate_after_s: float | None = 23 * 3600.0
    overlap_s: float = 2.0
    max_message_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{field.name}: must be a positive number, was {value!r}")


@dataclass(slots=True)
class StreamCounts:
    """What happened to a stream so far."""

    connects: int = 0  # connections that became live
    losses: int = 0
    rotations: int = 0
    faults: int = 0  # messages that on_frame failed at
    unusual: int = 0  # binary messages, which are dropped
    heard: int = 0  # text messages
    sent: int = 0


class TopicAges:
    """How long each topic of a stream has been silent.

    An acknowledged subscription may still deliver nothing; only the age of its data tells. Handed
    to a `Stream`, an overdue topic makes it STALE; ages count from when it became live.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._most_s: dict[str, float] = {}
        self._seen_s: dict[str, float] = {}

    def expect(self, topic: str, max_age_s: float) -> None:
        """Expect data of ``topic`` every ``max_age_s``, from now on."""
        self._most_s[topic] = max_age_s
        self._seen_s[topic] = self._clock.monotonic_s()

    def forget(self, topic: str) -> None:
        """Expect nothing of ``topic`` any more."""
        self._most_s.pop(topic, None)
        self._seen_s.pop(topic, None)

    def seen(self, topic: str) -> None:
        """Note data of ``topic``; one that is not expected is none of our business."""
        if topic in self._most_s:
            self._seen_s[topic] = self._clock.monotonic_s()

    def restart(self) -> None:
        """Count every age from now."""
        self._seen_s = dict.fromkeys(self._most_s, self._clock.monotonic_s())

    def overdue(self) -> dict[str, float]:
        """Return the topics that are overdue, and the age of their last data, s."""
        now_s = self._clock.monotonic_s()
        ages = {topic: now_s - seen_s for topic, seen_s in self._seen_s.items()}
        return {topic: age for topic, age in ages.items() if age >= self._most_s[topic] - _TICK_S}

    def next_due_s(self) -> float:
        """Return when the next topic will be overdue, s on the clock; infinity if none can be."""
        return min((seen + self._most_s[t] for t, seen in self._seen_s.items()), default=math.inf)


class _Ended(NamedTuple):
    """How a connection ended; ``reason`` None: the socket did, without a word."""

    reason: str | None
    stale: bool = False


class _Refused(Exception):  # noqa: N818 (never leaves this module)
    """A connection could not be made; ``reason`` holds no secret."""

    def __init__(
        self, reason: str, retry_after_s: float = 0.0, *, for_good: NoEntryError | None = None
    ) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.for_good = for_good
        super().__init__(reason)


class Connection(WSListener):
    """One websocket of a `Stream`, as its ``hello`` sees it."""

    def __init__(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        self._stream = stream
        self._loop = loop
        self._clock = stream._clock
        self._monotonic_s = stream._clock.monotonic_s
        self._on_frame = stream._on_frame
        self._transport: WSTransport | None = None
        self._gone: asyncio.Task[None] | None = None
        self._over = False
        self._ended: asyncio.Future[_Ended] = loop.create_future()
        self._pending: dict[Hashable, asyncio.Future[Any]] = {}
        self._heard_s = self._data_s = self._monotonic_s()
        self._parts: bytearray | None = None
        self._parts_are_text = True
        self._faults = self._faults_in_a_row = 0
        self._pinged_s: float | None = None
        self._beat_s = math.inf
        self._pong_after_s = -math.inf
        self._pong_payload = b""
        self._check_timer: Timer | None = None
        self._pong_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Connection of {self._stream.name}{', over' if self._over else ''}>"

    # --- for hello, and for the stream on behalf of its owner ---

    @property
    def open(self) -> bool:
        """Whether a message sent now would leave."""
        transport = self._transport
        return not (self._over or transport is None or transport.is_close_frame_sent)

    def send(self, data: bytes) -> bool:
        """Send one text message; False when the connection is over, and then nothing left."""
        transport = self._transport
        if self._over or transport is None or transport.is_close_frame_sent:
            return False
        transport.send(_TEXT, data)
        self._stream.counts.sent += 1
        return True

    def request(
        self, id: Hashable, data: bytes, *, timeout_s: float | None = None
    ) -> asyncio.Future[Any]:
        """Send a message and return what `Stream.resolve` will be called with for ``id``.

        The future fails with `NoReplyError` when nothing was sent, when the connection ends first
        and, if a timeout is given, after it. A reply that comes later finds nobody waiting.

        Raises
        ------
        ValueError
            If a reply to that id is awaited already.
        """
        for connection in self._stream._connections:
            if id in connection._pending:
                raise ValueError(f"id: must be new, {id!r} is awaited already")
        reply: asyncio.Future[Any] = self._loop.create_future()
        if not self.open:
            reply.set_exception(NoReplyError(f"{self._stream.name}: not connected", sent=False))
            return reply
        self._pending[id] = reply
        self.send(data)  # may end the connection, and fail the reply
        # What can wait until the message has left does.
        timer = None
        if timeout_s is not None and not reply.done():
            message = f"{self._stream.name}: no reply in {timeout_s:g} s"
            timer = self._clock.call_later(timeout_s, functools.partial(_fail, reply, message))
        reply.add_done_callback(functools.partial(self._answered, id, timer))
        return reply

    def _answered(self, id: Hashable, timer: Timer | None, reply: asyncio.Future[Any]) -> None:
        if timer is not None:
            timer.cancel()
        # The id may be in use again by now.
        if self._pending.get(id) is reply:
            del self._pending[id]

    # --- picows calls these ---

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._gone = self._loop.create_task(transport.wait_disconnected())
        self._gone.add_done_callback(self._forget)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        # picows goes on delivering what it has read after either side has had enough.
        if self._over or transport.is_close_frame_sent:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._violated(WSCloseCode.PROTOCOL_ERROR, "a reserved bit: compression was not agreed")
            return
        if frame.msg_type == _TEXT and frame.fin and self._parts is None:
            message = frame.get_payload_as_memoryview()
        else:
            self._heard_s = self._monotonic_s()
            whole = self._take(transport, frame)
            if whole is None:
                return
            message = memoryview(whole)
        self._stream.counts.heard += 1
        try:
            is_data = self._on_frame(message) is not False
            # The memory is picows': whoever kept a view gets an error, not the next message.
            message.release()
        except Exception as error:
            self._failed(error)
            with contextlib.suppress(BufferError):
                message.release()
            return
        self._faults_in_a_row = 0
        self._heard_s = now_s = self._monotonic_s()
        if is_data:
            self._data_s = now_s

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._end(None)

    def pause_writing(self) -> None:
        # An order that waits behind a full socket would be an old order when it arrives.
        self._end("the venue does not read")

    def resume_writing(self) -> None:
        pass

    # --- the rare frames ---

    def _take(self, transport: WSTransport, frame: WSFrame) -> bytes | None:
        """Deal with anything but a text of one frame; return a text that is now whole."""
        kind = frame.msg_type
        if kind == WSMsgType.PING:
            self._pong(transport, frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._answer_close(transport, frame.get_payload_as_bytes()[:2])
        elif kind == WSMsgType.CONTINUATION:
            return self._continue(frame)
        elif kind != WSMsgType.PONG:
            if self._parts is not None:
                self._violated(WSCloseCode.PROTOCOL_ERROR, "a message within a message")
            elif frame.fin:
                self._stream.counts.unusual += 1
            else:
                self._parts = bytearray(frame.get_payload_as_memoryview())
                self._parts_are_text = kind == _TEXT
        return None

    def _continue(self, frame: WSFrame) -> bytes | None:
        parts = self._parts
        if parts is None:
            self._violated(WSCloseCode.PROTOCOL_ERROR, "a continuation of nothing")
            return None
        if len(parts) + frame.payload_size > self._stream.limits.max_message_bytes:
            self._violated(WSCloseCode.MESSAGE_TOO_BIG, "a message too big")
            return None
        parts += frame.get_payload_as_memoryview()
        if not frame.fin:
            return None
        self._parts = None
        if self._parts_are_text:
            return bytes(parts)
        self._stream.counts.unusual += 1
        return None

    def _pong(self, transport: WSTransport, payload: bytes) -> None:
        now_s = self._monotonic_s()
        self._pong_payload = payload
        if now_s >= self._pong_after_s:
            self._pong_now(transport)
        elif self._pong_timer is None:
            wait_s = self._pong_after_s - now_s
            late = functools.partial(self._pong_now, transport)
            self._pong_timer = self._clock.call_later(wait_s, late)

    def _pong_now(self, transport: WSTransport) -> None:
        self._pong_timer = None
        self._pong_after_s = self._monotonic_s() + _PONG_EVERY_S
        transport.send_pong(self._pong_payload)

    def _answer_close(self, transport: WSTransport, code_bytes: bytes) -> None:
        code = int.from_bytes(code_bytes, "big") if code_bytes else None
        # These may not be sent, only be inferred (RFC 6455 7.4).
        legal = code is None or (1000 <= code < 5000 and code not in (1004, 1005, 1006, 1015))
        answer = WSCloseCode.PROTOCOL_ERROR if not legal else WSCloseCode(code or 1000)
        # The text that comes with it is the venue's and may repeat a listenKey.
        self._end(f"closed by the venue, code {code}", code=answer)

    def _violated(self, code: WSCloseCode, what: str) -> None:
        self._end(f"protocol error {code.value}: {what}", code=code)

    def _failed(self, error: Exception) -> None:
        counts = self._stream.counts
        counts.faults += 1
        self._faults += 1
        self._faults_in_a_row += 1
        # Never the error's text: it may quote the message.
        log.error("stream=%s fault=%s", self._stream.name, _where(error))
        if self._faults_in_a_row >= _MOST_FAULTS_IN_A_ROW or self._faults >= _MOST_FAULTS:
            self._end(f"messages fail: {type(error).__name__}", code=WSCloseCode.INTERNAL_ERROR)
        self._stream._fault()

    # --- life ---

    async def _connect(self, url: str) -> None:
        """Dial, and exchange the upgrade; raise whatever goes wrong."""
        dialled: list[socket.socket] = []

        async def dial(parsed: WSParsedURL) -> socket.socket:
            found = await self._loop.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)
            sock = await aiohappyeyeballs.start_connection(
                found, happy_eyeballs_delay=_EYEBALLS_S, interleave=1
            )
            dialled.append(sock)
            return sock

        try:
            await ws_connect(
                self._upgraded,
                url,
                websocket_handshake_timeout=None,
                logger_name=_SILENT,
                enable_auto_pong=False,
                max_frame_size=self._stream.limits.max_message_bytes,
                max_redirects=0,
                proxy=None,
                socket_factory=dial,
            )
        except BaseException:
            # picows leaves the socket open when it is cancelled while it waits for the upgrade.
            for sock in dialled:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            raise
        if self._transport is None:
            raise _Refused("closed during the handshake")

    def _upgraded(self, request: object, response: WSUpgradeResponse) -> Connection:
        if "Sec-WebSocket-Extensions" in response.headers:
            raise _Refused("an extension that was not offered")
        return self

    def _go_live(self) -> None:
        now_s = self._heard_s = self._data_s = self._monotonic_s()
        if self._stream.heartbeat is not None:
            self._beat_s = now_s + self._stream.heartbeat.interval_s
        self._check()

    def _check(self) -> None:
        """End what is silent or dead, send what is due, and come again when something may be."""
        if self._over:
            return
        limits, heartbeat, topics = (
            self._stream.limits,
            self._stream.heartbeat,
            self._stream.topics,
        )
        now_s = self._monotonic_s()
        by_s = now_s + _TICK_S
        data_due_s = math.inf if limits.data_age_s is None else self._data_s + limits.data_age_s
        if data_due_s <= by_s:
            self._silent(f"no data for {now_s - self._data_s:.1f} s")
            return
        if topics is not None and topics.next_due_s() <= by_s:
            self._silent(f"no data of {', '.join(sorted(topics.overdue()))}")
            return
        if self._pinged_s is not None and self._heard_s >= self._pinged_s:
            self._pinged_s = None
        if self._pinged_s is not None:
            ping_due_s = self._pinged_s + limits.ping_reply_s
            if ping_due_s <= by_s:
                self._end("no pong", code=WSCloseCode.GOING_AWAY)
                return
        else:
            ping_due_s = self._heard_s + limits.ping_idle_s
            if ping_due_s <= by_s and self._transport is not None:
                self._transport.send_ping()
                self._pinged_s = now_s
                ping_due_s = now_s + limits.ping_reply_s
        if heartbeat is not None and self._beat_s <= by_s:
            self.send(heartbeat.data)
            self._beat_s = now_s + heartbeat.interval_s
        topic_due_s = math.inf if topics is None else topics.next_due_s()
        due_s = min(data_due_s, topic_due_s, ping_due_s, self._beat_s)
        self._check_timer = self._clock.call_later(max(due_s - now_s, _TICK_S), self._check)

    def _silent(self, reason: str) -> None:
        self._end(reason, code=WSCloseCode.OK, stale=True)

    def _end(
        self, reason: str | None, *, code: WSCloseCode | None = None, stale: bool = False
    ) -> None:
        """Be over, at once: no message in or out, no reply to come. Do nothing if it was before."""
        if self._over:
            return
        self._over = True
        for timer in (self._check_timer, self._pong_timer):
            if timer is not None:
                timer.cancel()
        self._ended.set_result(_Ended(reason, stale))
        for reply in list(self._pending.values()):
            _fail(reply, f"{self._stream.name}: the connection ended before the reply")
        self._pending.clear()
        self._parts = None
        transport = self._transport
        if transport is not None and not transport.is_disconnected:
            if code is not None:
                transport.send_close(code)
            self._loop.call_later(_GRACE_S, transport.disconnect, False)

    def _forget(self, gone: asyncio.Task[None]) -> None:
        self._stream._connections.discard(self)
        if not gone.cancelled():
            gone.exception()  # asked for here, so that asyncio does not log it

    async def _closed(self) -> None:
        """Return once the socket is no more."""
        if self._gone is not None:
            await asyncio.wait({self._gone})

    async def _why(self) -> _Ended:
        """Return how it ended, once it has."""
        ended = await self._ended
        if ended.reason is not None or self._gone is None:
            return ended
        await self._closed()
        error = None if self._gone.cancelled() else self._gone.exception()
        if isinstance(error, WSProtocolError):
            code, text = error.args[:2]
            return ended._replace(reason=f"protocol error {int(code)}: {text}")
        return ended._replace(reason="cut")


def free() -> float:
    """Return for how long nothing may connect: not at all."""
    return 0.0


class Stream:
    """One websocket, always renewed; at most one connection is live, two during a rotation.

    ``url`` is a text, or an async callable asked before every connect (for a fresh listenKey); it
    must be wss://, or ws:// to this machine. ``on_frame`` is called with every whole text message,
    those during the hello included; it returns False for what is no data (acknowledgements, JSON
    pongs), and must be done with the memory when it returns. ``hello`` runs after every connect;
    the connection is live when it returns and refused when it raises. ``on_state`` hears every
    change of state, never in the middle of a message; a rotation is none. ``on_fault`` hears of a
    message that ``on_frame`` failed at: what it said is lost. ``topics`` overdue make the stream
    stale like silence does. No connection is opened while ``held_s`` says for how long not to.

    Text is not checked to be UTF-8: its decoder does that. Neither URLs nor messages are logged.
    """

    def __init__(
        self,
        *,
        name: str,
        url: str | Callable[[], Awaitable[str]],
        on_frame: Callable[[memoryview], bool | None],
        clock: Clock,
        hello: Callable[[Connection], Awaitable[object]] | None = None,
        on_state: Callable[[StreamState, str], object] | None = None,
        on_fault: Callable[[], object] | None = None,
        held_s: Callable[[], float] = free,
        limits: StreamLimits | None = None,
        heartbeat: Heartbeat | None = None,
        topics: TopicAges | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.limits = StreamLimits() if limits is None else limits
        self.heartbeat = heartbeat
        self.topics = topics
        self.counts = StreamCounts()
        self._state = StreamState.LOST
        self._url = url
        self._on_frame = on_frame
        self._hello = hello
        self._on_state = on_state
        self._on_fault = on_fault
        self._held_s = held_s
        self._clock = clock
        self._rng = random.Random() if rng is None else rng
        self._connections: set[Connection] = set()
        self._current: Connection | None = None
        self._work: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # live, or closed
        self._closing = False
        self._for_good: NoEntryError | None = None
        self._finished = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Stream {self.name}, {self.state}>"

    @property
    def state(self) -> StreamState:
        """What `on_state` was told last; LOST before `run`."""
        return self._state

    @property
    def live(self) -> bool:
        """Whether a message sent now would leave."""
        return self._current is not None and self._current.open

    def data_age_s(self) -> float:
        """Return the seconds since the last data; infinity when not live."""
        if self._current is None or not self._current.open:
            return math.inf
        return self._clock.monotonic_s() - self._current._data_s

    def send(self, data: bytes) -> bool:
        """Send one text message; False when not live, and then nothing left."""
        return self._current is not None and self._current.send(data)

    def request(
        self, id: Hashable, data: bytes, *, timeout_s: float | None = None
    ) -> asyncio.Future[Any]:
        """Send a message and return its reply to come; see `Connection.request`."""
        if self._current is not None:
            return self._current.request(id, data, timeout_s=timeout_s)
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        reply.set_exception(NoReplyError(f"{self.name}: not connected", sent=False))
        return reply

    def resolve(self, id: Hashable, reply: object) -> bool:
        """Hand the reply to whoever awaits ``id``, on either connection; False when nobody does."""
        for connection in self._connections:
            waiting = connection._pending.pop(id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
                return True
        return False

    def renew(self, reason: str) -> None:
        """Give the connection up and make another, for a reason only the owner can see."""
        if self._current is not None:
            self._current._end(reason, code=WSCloseCode.OK)

    async def wait_live(self) -> None:
        """Return when live.

        Raises
        ------
        UnavailableError
            If the stream is closed instead.
        NoEntryError
            If the venue refused it for good.
        """
        while self._state is not StreamState.LIVE:
            await self._settled.wait()
            if self._state is StreamState.CLOSED:
                if self._for_good is not None:
                    raise self._for_good
                raise UnavailableError(f"{self.name}: the stream is closed")

    async def run(self) -> None:
        """Keep the stream up until `close`, or until cancelled; nothing is left open after it.

        What ``on_state`` raises ends it and is raised here, and so does and is `NoEntryError`. A
        stream runs once; one that was closed before does not begin.
        """
        if self._work is not None:
            raise RuntimeError(f"stream {self.name} runs once")
        if self._closing:
            return
        reason = "cancelled"
        self._work = asyncio.create_task(self._keep(), name=f"stream {self.name}")
        try:
            await asyncio.wait({self._work})
            reason = "closed" if self._closing else str(self._for_good or "failed")
        finally:
            self._work.cancel()
            try:
                await asyncio.wait({self._work})
                await self._end_all("closed")
            finally:
                self._finished.set()
                self._report(StreamState.CLOSED, reason)
        if not self._work.cancelled():
            self._work.result()
        elif not self._closing:
            # Something it awaited was cancelled: its end must not pass for a wanted one.
            raise RuntimeError(f"stream {self.name} was cancelled from within")

    async def close(self) -> None:
        """End the stream and return when its sockets are closed."""
        self._closing = True
        if self._work is None:
            self._report(StreamState.CLOSED, "closed")
            return
        self._work.cancel()
        await self._finished.wait()

    # --- the one task ---

    async def _keep(self) -> None:
        tries = 0
        while True:
            while (held_s := self._held_s()) > 0.0:
                await self._clock.sleep(held_s)
            self._report(StreamState.CONNECTING, f"attempt {tries + 1}")
            try:
                connection = await self._open()
            except _Refused as refusal:
                self._report(StreamState.LOST, refusal.reason)
                if refusal.for_good is not None:
                    self._for_good = refusal.for_good
                    raise refusal.for_good from None
                wait_s = refusal.retry_after_s
            else:
                since_s = self._clock.monotonic_s()
                wait_s = await self._serve(connection)
                await self._end_all("its successor is lost")
                if self._clock.monotonic_s() - since_s >= self.limits.stable_s:
                    tries = 0
            await self._clock.sleep(max(wait_s, self._backoff_s(tries)))
            tries += 1

    def _backoff_s(self, tries: int) -> float:
        most_s = min(
            self.limits.backoff_most_s, self.limits.backoff_first_s * 2.0 ** min(tries, 60)
        )
        return self._rng.uniform(0.0, most_s)

    async def _serve(self, connection: Connection) -> float:
        """Stay live on that connection and those that follow it, until one is lost.

        Return how long the venue asked to be left alone, s.
        """
        self._adopt(connection)
        due_s, tries = self.limits.rotate_after_s, 0
        while not await self._outlives(connection, due_s):
            if (held_s := self._held_s()) > 0.0:
                due_s = held_s
                continue
            try:
                successor = await self._succeed(connection)
            except _Refused as refusal:
                if connection._over:
                    self._report(StreamState.LOST, refusal.reason)
                    return refusal.retry_after_s
                log.warning("stream=%s rotation=failed reason=%r", self.name, refusal.reason)
                due_s = max(refusal.retry_after_s, self._backoff_s(tries))
                tries += 1
                continue
            old, connection = connection, successor
            self.counts.rotations += not old._over
            log.info("stream=%s rotation=done", self.name)
            self._adopt(connection)
            self._clock.call_later(
                self.limits.overlap_s, functools.partial(old._end, "rotated", code=WSCloseCode.OK)
            )
            due_s, tries = self.limits.rotate_after_s, 0
        await self._lose(connection)
        return 0.0

    def _adopt(self, connection: Connection) -> None:
        self._current = connection
        self.counts.connects += 1
        if self.topics is not None and self._state is not StreamState.LIVE:
            self.topics.restart()
        connection._go_live()
        self._report(StreamState.LIVE, "connected")

    async def _outlives(self, connection: Connection, due_s: float | None) -> bool:
        """Return True once the connection is over, or False once it is to be rotated."""
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = None
        if due_s is not None:
            timer = self._clock.call_later(due_s, functools.partial(due.set_result, None))
        try:
            await _first({connection._ended, due})
        finally:
            if timer is not None:
                timer.cancel()
        return connection._over

    async def _succeed(self, old: Connection) -> Connection:
        """Open the connection that is to follow, or raise `_Refused`.

        A loss of the old one meanwhile is reported at once.
        """
        opening = asyncio.create_task(self._open(), name=f"stream {self.name} rotation")
        try:
            await _first({opening, old._ended})
            if old._over:
                await self._lose(old)
                self._report(StreamState.CONNECTING, "the rotation goes on")
            await asyncio.wait({opening})
            return opening.result()
        finally:
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening})
            if not opening.cancelled():
                opening.exception()

    async def _lose(self, connection: Connection) -> None:
        """Report the loss of the live connection, once."""
        if self._current is not connection:
            return
        self._current = None
        ended = await connection._why()
        reason = ended.reason or ""
        self.counts.losses += 1
        if ended.stale:
            self._report(StreamState.STALE, reason)
        self._report(StreamState.LOST, reason)

    async def _end_all(self, reason: str) -> None:
        for connection in list(self._connections):
            connection._end(reason, code=WSCloseCode.OK)
            await connection._closed()

    async def _open(self) -> Connection:
        """Return a connection that has said hello; raise `_Refused`."""
        connection = Connection(self)
        self._connections.add(connection)
        try:
            async with timeout(self._clock, self.limits.connect_timeout_s):
                url = self._url if isinstance(self._url, str) else await self._url()
            _check_url(url)
            async with timeout(self._clock, self.limits.connect_timeout_s):
                await connection._connect(url)
            if self._hello is not None:
                await self._greet(connection, self._hello)
            if connection._over:
                raise _Refused((await connection._why()).reason or "")
        except BaseException as error:
            connection._end("refused", code=WSCloseCode.OK)
            await connection._closed()
            self._connections.discard(connection)
            if isinstance(error, Exception):
                # From none: the errors underneath hold URLs.
                raise _refusal(error) from None
            raise
        return connection

    async def _greet(
        self, connection: Connection, hello: Callable[[Connection], Awaitable[object]]
    ) -> None:
        """Run the hello for as long as it may take and the connection lasts."""
        greeting = asyncio.ensure_future(hello(connection))
        try:
            async with timeout(self._clock, self.limits.hello_timeout_s):
                await _first({greeting, connection._ended})
        except TimeoutError:
            raise _Refused("hello timed out") from None
        finally:
            if not greeting.done():
                greeting.cancel()
                await asyncio.wait({greeting})
            if not greeting.cancelled():
                greeting.exception()
        if connection._over:
            return
        if greeting.cancelled():
            raise _Refused("hello was cancelled")
        greeting.result()

    def _fault(self) -> None:
        if self._on_fault is None:
            return
        try:
            self._on_fault()
        except Exception as error:
            # Whoever failed at the message may fail again; the stream does not end for it.
            log.error("stream=%s fault=%s", self.name, _where(error))

    def _report(self, state: StreamState, reason: str) -> None:
        if state is self._state:
            return
        self._state = state
        if state in (StreamState.LIVE, StreamState.CLOSED):
            self._settled.set()
        else:
            self._settled.clear()
        bad = state in (StreamState.LOST, StreamState.STALE)
        level = logging.WARNING if bad else logging.INFO
        log.log(level, "stream=%s state=%s reason=%r", self.name, state, reason)
        if self._on_state is not None:
            self._on_state(state, reason)


async def _first(futures: set[asyncio.Future[Any]]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _fail(reply: asyncio.Future[Any], message: str) -> None:
    if not reply.done():
        reply.set_exception(NoReplyError(message, sent=True))


def _where(error: Exception) -> str:
    """Return an error's type and the place it was raised at."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    return f"{type(error).__name__}{place}"


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "wss" and not (parts.scheme == "ws" and is_loopback(host)):
        raise VenueError(
            f"url: must be wss:// (ws:// to this machine only), was {parts.scheme}://{host}"
        )


def _refusal(error: Exception) -> _Refused:
    """Return in words, without secrets, why there is no connection."""
    if isinstance(error, _Refused):
        return error
    if isinstance(error, UnavailableError):
        return _Refused(str(error), error.retry_after_s)
    if isinstance(error, NoEntryError):
        return _Refused(str(error), for_good=error)
    if isinstance(error, VenueError):
        return _Refused(str(error))
    if isinstance(error, WSHandshakeError) and error.response is not None:
        status = int(error.response.status)
        wait_s = retry_after_s(error.response.headers) or BAN_S.get(status, 0.0)
        return _Refused(f"HTTP {status}", wait_s)
    if isinstance(error, WSInvalidURL):
        return _Refused("url: is not one")
    if isinstance(error, TimeoutError):
        return _Refused("connect timed out")
    if isinstance(error, OSError) and error.strerror:
        return _Refused(f"{type(error).__name__}: {error.strerror}")
    return _Refused(_where(error))
