"""Both ends of a line to the simulator: a front that only counts, clients that see bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import aiohttp
import orjson

from passivx.clock import VirtualClock
from passivx.simulator.faults import Faults, SkewedClock
from passivx.simulator.messages import HttpReply, HttpRequest
from passivx.simulator.server import Server, Session
from tests.simulator.worlds import World, world

TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA
CHANNELS = {"/public": "public", "/private": "private", "/trade": "trade"}


class CountingFront:
    """Answers with how many requests were executed before; "boom" anywhere breaks it."""

    def __init__(self) -> None:
        self.executed: list[str] = []
        self.requests: list[HttpRequest] = []
        self.sessions: list[Session] = []
        self.gone: list[Session] = []
        self.kept_house: list[int] = []

    def rest(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        return HttpReply(
            200, {"Content-Type": "application/json", "X-Name": "1"}, self._answer(request.path)
        )

    def accept(self, path: str, query: str) -> str | None:
        return CHANNELS.get(path)

    def opened(self, session: Session) -> None:
        self.sessions.append(session)

    def message(self, session: Session, text: str) -> None:
        session.send(self._answer(text))

    def closed(self, session: Session) -> None:
        self.gone.append(session)

    def housekeeping(self, now_ms: int) -> None:
        self.kept_house.append(now_ms)

    def _answer(self, what: str) -> bytes:
        if "boom" in what:
            raise LookupError("secret")
        self.executed.append(what)
        return orjson.dumps({"n": len(self.executed)})


class Line:
    """The simulator's server on a virtual clock, and clients of it."""

    def __init__(self, ping_interval_s: float | None = None) -> None:
        self.world: World = world()
        self.time: VirtualClock = self.world.clock
        self.front = CountingFront()
        clock = SkewedClock(self.time)
        self.clock = clock
        self.ledger = self.world.ledger
        self.faults = Faults(self.world.venue, clock, self.ledger)
        self.world.venue.observe(self.faults)
        self.server = Server(
            self.front,
            clock=clock,
            ledger=self.ledger,
            faults=self.faults,
            ping_interval_s=ping_interval_s,
        )
        self._clients: list[Client] = []

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.writer.close()
        await self.server.stop()

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Make one request on a connection of its own."""
        return await (await self.client()).ask(method, target, body)

    async def socket(self, path: str = "/public") -> Client:
        """Return a client whose websocket is open."""
        client = await self.client()
        status, _ = await client.upgrade(path)
        assert status == 101
        # The front hears of it in the turn after the handshake was sent.
        while len(self.server.sessions) + len(self.front.gone) < len(self.front.sessions):
            await asyncio.sleep(0)
        return client

    def faults_seen(self) -> list[dict[str, Any]]:
        return self.ledger.entries("fault")


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.headers: dict[str, str] = {}

    async def ask(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body; IncompleteReadError or OSError when that is not all of it."""
        self.send_request(method, target, body)
        return await self.answer()

    def send_request(self, method: str, target: str, body: bytes = b"") -> None:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def answer(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(self.headers.get("content-length", 0))
        return int(first.split(" ")[1]), await self.reader.readexactly(size)

    async def upgrade(self, path: str, *headers: str) -> tuple[int, bytes]:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: x",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            *headers,
        ]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        return await self.answer()

    def send(self, payload: bytes | str, opcode: int = TEXT, *, first: int = 0x80) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        long = len(data) >= 126
        size = b"\xff" + struct.pack("!Q", len(data)) if long else bytes([0x80 | len(data)])
        self.writer.write(bytes([first | opcode]) + size + bytes(4) + data)  # the mask is zeros

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self.reader.readexactly(2)
        assert not size & 0x80, "servers do not mask"
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        assert first & 0xF0 == 0x80, "whole and not compressed"
        return first & 0x0F, await self.reader.readexactly(size)

    async def text(self) -> str:
        opcode, data = await self.frame()
        assert opcode == TEXT
        return data.decode()

    async def closed(self) -> bytes:
        """Return what came before the end of the line, whichever way it ended."""
        with contextlib.suppress(ConnectionResetError):
            return await self.reader.read()
        return b""

    async def silent(self) -> bool:
        """Tell whether only the answer to a ping comes: what was sent before would be first."""
        self.send(b"?", PING)
        return await self.frame() == (PONG, b"?")


class JsonSocket:
    """An aiohttp client's websocket; what came and was not taken yet is in ``seen``."""

    def __init__(self, raw: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = raw
        self.seen: list[Any] = []

    async def send(self, message: object) -> None:
        text = message if isinstance(message, str) else orjson.dumps(message).decode()
        await self.raw.send_str(text)

    async def take(self, wanted: Callable[[Any], object] = lambda _: True) -> Any:
        """Return the next message that is wanted; what comes before it stays in ``seen``."""
        for i, message in enumerate(self.seen):
            if wanted(message):
                return self.seen.pop(i)
        while True:
            frame = await self.raw.receive(timeout=5)
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            message = orjson.loads(frame.data)
            if wanted(message):
                return message
            self.seen.append(message)


class FrontSide:
    """A socket of which only the front's side is there."""

    def __init__(self, channel: str, path: str, query: str = "") -> None:
        self.channel, self.path, self.query, self.state = channel, path, query, None
        self.sent: list[dict[str, Any]] = []
        self.closed_with: int | None = None

    def send(self, text: bytes) -> None:
        self.sent.append(orjson.loads(text))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed_with = code


@contextlib.asynccontextmanager
async def line(*rules: dict[str, Any], **options: Any) -> AsyncIterator[Line]:
    """Serve, with rules in force."""
    async with asyncio.timeout(8), Line(**options) as served:
        if rules:
            served.faults.add(list(rules))
        yield served
