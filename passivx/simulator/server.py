"""The simulator's sockets: one port for REST and all websockets, with faults on the way.

It speaks HTTP and websockets (aiohttp's) and no venue's language: that is the `Front`'s. Fronts are
synchronous; what they send leaves in the order they sent it, each websocket through its `Gate`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qsl

import orjson
from aiohttp import WSMsgType, web

from passivx.clock import Clock, Timer
from passivx.simulator.faults import Faults
from passivx.simulator.gate import Gate
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpReply, HttpRequest
from passivx.simulator.rules import Rule

__all__ = ["Front", "Server", "Session"]

log = logging.getLogger(__name__)

_MOST_BODY: Final = 1 << 20
_HOUSEKEEPING_S: Final = 1.0
_STOP_S: Final = 0.25


class Session:
    """One websocket of a client; ``state`` is the front's own."""

    def __init__(self, channel: str, path: str, query: str, gate: Gate) -> None:
        self.channel = channel
        self.path = path
        self.query = query
        self.state: Any = None
        self._gate = gate

    @property
    def sent(self) -> int:
        """Texts that were sent so far."""
        return self._gate.sent

    def send(self, text: str | bytes) -> None:
        """Send one text message; after everything that was sent before."""
        self._gate.send(text.encode() if isinstance(text, str) else text)

    def ping(self, payload: bytes = b"") -> None:
        """Send a websocket ping."""
        self._gate.ping(payload)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, with 1006 without a word."""
        self._gate.close(code, reason)


class Front(Protocol):
    """A venue's language on top of a `SimVenue`; calls come one at a time."""

    def rest(self, request: HttpRequest) -> HttpReply:
        """Answer one request."""
        ...

    def accept(self, path: str, query: str) -> str | None:
        """Return the channel an upgrade to ``path`` is for; None is a 404.

        public, market, private or trade.
        """
        ...

    def opened(self, session: Session) -> None:
        """Take a new socket in."""
        ...

    def message(self, session: Session, text: str) -> None:
        """Answer one text message of a client."""
        ...

    def closed(self, session: Session) -> None:
        """Forget a socket; nothing can be sent to it any more."""
        ...

    def housekeeping(self, now_ms: int) -> None:
        """Do what falls due by itself; called about once a second of protocol time."""
        ...


class Server:
    """Serves a front on a loopback port.

    ``ping_interval_s``: how often the venue pings its websockets; None never.
    """

    def __init__(
        self,
        front: Front,
        *,
        clock: Clock,
        ledger: Ledger,
        faults: Faults,
        ping_interval_s: float | None = None,
    ) -> None:
        self._front = front
        self._clock = clock
        self._ledger = ledger
        self._faults = faults
        self._ping_interval_s = ping_interval_s
        self._sessions: dict[Session, None] = {}  # in the order they were opened
        self._runner: web.ServerRunner | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pinged_s = clock.monotonic_s()
        self._received = 0
        self._sent_before = 0  # on sockets that are closed
        self._timer: Timer | None = None
        self.port = 0

    @property
    def sessions(self) -> list[Session]:
        """The open websockets."""
        return list(self._sessions)

    @property
    def traffic(self) -> tuple[int, int]:
        """Text messages received and sent over websockets so far, where no fault changed any."""
        sent = sum(session.sent for session in self._sessions)
        return self._received, self._sent_before + sent

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; port 0 takes a free one, `port` then says which.

        Raises
        ------
        OSError
            If the port is taken.
        """
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None), shutdown_timeout=_STOP_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        address = self._runner.addresses[0]
        self.port = int(address[1])
        self._keep_house()

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._timer is not None:
            self._timer.cancel()
        for session in self.sessions:
            session.close(1001, "going away")
        for task in list(self._tasks):
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _keep_house(self) -> None:
        now_ms = self._clock.time_ms()
        self._ledger.flush()
        self._guarded(self._front.housekeeping, now_ms)
        interval_s, now_s = self._ping_interval_s, self._clock.monotonic_s()
        if interval_s is not None and now_s - self._pinged_s >= interval_s:
            self._pinged_s = now_s
            for session in self.sessions:
                session.ping(str(now_ms).encode())
        self._timer = self._clock.call_later(_HOUSEKEEPING_S, self._keep_house)

    # --- REST ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request, path, query)
        body = await request.read() if request.can_read_body else b""
        asked = HttpRequest(request.method, path, query, request.headers, body)
        if self._faults.armed:
            rules = self._faults.meet(f"{asked.method} {path}")
            if rules:
                return await self._faulty(request, asked, rules)
        return _response(self._answer(asked))

    def _answer(self, asked: HttpRequest) -> HttpReply:
        reply = self._guarded(self._front.rest, asked)
        return reply if isinstance(reply, HttpReply) else HttpReply(500)

    async def _faulty(
        self, request: web.BaseRequest, asked: HttpRequest, rules: list[Rule]
    ) -> web.StreamResponse:
        """Answer as the rules say; a client that leaves does not stop what is to be executed."""
        name = f"{asked.method} {asked.path}"
        text = asked.body.decode("latin-1")
        served = False

        def execute() -> HttpReply:
            nonlocal served
            served = True
            return self._answer(asked)

        task = asyncio.get_running_loop().create_task(
            self._faults.answer(rules, request.transport, execute, (name, asked.query, text))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        reply: HttpReply | None = await asyncio.shield(task)
        if not served:
            # The front never saw it, and the ledger has every request.
            status = 0 if reply is None else reply.status
            params = _params_of(asked.query, text)
            self._ledger.request(
                asked.method, asked.path, params, channel="rest", status=status, code=None
            )
        # Without a reply the connection is gone, and what is answered cannot be sent.
        return _response(reply or HttpReply(500))

    # --- websockets ---

    async def _socket(self, request: web.BaseRequest, path: str, query: str) -> web.StreamResponse:
        channel = self._guarded(self._front.accept, path, query)
        if channel is None:
            return web.Response(status=404)
        rules = self._faults.meet(f"connect:{channel}") if self._faults.armed else []
        refused = await self._faults.open(rules, request.transport)
        if refused is not None:
            return _response(refused)
        socket = _Socket()
        await socket.prepare(request)
        if request.transport is None:
            return socket
        gate = Gate(channel, request.transport, self._clock)
        session = Session(channel, path, query, gate)
        self._sessions[session] = None
        self._faults.opened(gate, rules)
        self._guarded(self._front.opened, session)
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
                if gate.over:
                    continue  # what crosses our CLOSE is read, so that the client gets to read it
                if message.type is WSMsgType.TEXT:
                    self._received += 1
                    self._receive(session, gate, cast(str, message.data))
                elif message.type is WSMsgType.PING:
                    gate.pong(cast(bytes, message.data))
            gate.closed_by_client(socket.close_code)
        finally:
            self._faults.closed(gate)
            self._sent_before += gate.sent
            del self._sessions[session]
            gate.end()
            self._guarded(self._front.closed, session)
        return socket

    def _receive(self, session: Session, gate: Gate, text: str) -> None:
        if not self._faults.armed:
            self._guarded(self._front.message, session, text)
        elif not self._faults.receive(
            gate, text, lambda: self._guarded(self._front.message, session, text)
        ):
            method, params = _operation_of(_object_of(text))
            self._ledger.request(method, session.path, params, channel="ws", status=0, code=None)

    def _guarded(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the front; its mistakes are loud and in the ledger, and do not stop the server."""
        try:
            return call(*args)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._ledger.append(
                "fault",
                do="simulator_failed",
                error=f"{type(error).__name__} at {where.name}:{where.lineno}",
            )
            log.exception("the simulator failed in %s", getattr(call, "__name__", call))
            return None


class _Socket(web.WebSocketResponse):
    """A websocket whose outgoing side is a `Gate`: the library itself writes nothing."""

    def __init__(self) -> None:
        super().__init__(autoclose=False, autoping=False, compress=False, max_msg_size=_MOST_BODY)

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Leave it to the gate, also what ``close_code`` says of frames that are none."""
        return True


def _object_of(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        value = orjson.loads(text)
        if isinstance(value, dict):
            return value
    return {}


def _operation_of(message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a message asks for and with what: objects alone, for lists may hold keys."""
    name = str(message.get("method", message.get("op", "")))[:40]
    parts = message.get("params", message.get("args"))
    if isinstance(parts, list):
        parts = {"args": [part for part in parts if isinstance(part, dict)]}
    return name, parts if isinstance(parts, dict) else {}


def _params_of(query: str, body: str) -> dict[str, Any]:
    """Return what a request says, in its query and its body, a form's or JSON's."""
    form = parse_qsl("&".join((query, body)) if body and not body.startswith("{") else query)
    return {**dict(form), **_object_of(body)}


def _response(reply: HttpReply) -> web.Response:
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
