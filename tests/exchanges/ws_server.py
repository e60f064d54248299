"""A websocket server on loopback that can misbehave at every byte.

Each connection runs one script: a coroutine function of its `Peer`. The n-th connection gets the
n-th script, the last one goes on for all that follow.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(
    payload: bytes | str = b"",
    opcode: int = TEXT,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = None,
) -> bytes:
    """Return one frame, as a server writes it unless ``mask`` is given."""
    data = payload.encode() if isinstance(payload, str) else payload
    flag = 0x80 if mask is not None else 0
    if len(data) < 126:
        length = bytes([flag | len(data)])
    elif len(data) < 1 << 16:
        length = bytes([flag | 126]) + struct.pack("!H", len(data))
    else:
        length = bytes([flag | 127]) + struct.pack("!Q", len(data))
    if mask is not None:
        data = mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    return bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length + data


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""
        self.upgraded = False

    async def upgrade(self, *headers: str, tail: bytes = b"") -> None:
        """Read the request and accept it; ``tail`` leaves in the same write."""
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1]
            for line in self.request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
            *headers,
        ]
        self.upgraded = True
        self.raw("\r\n".join([*lines, "", ""]).encode() + tail)

    async def refuse(self, status: str, *headers: str) -> None:
        """Read the request and answer with that status."""
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        lines = [f"HTTP/1.1 {status}", "Content-Length: 0", "Connection: close", *headers]
        self.raw("\r\n".join([*lines, "", ""]).encode())

    def raw(self, data: bytes) -> None:
        """Write bytes."""
        self.writer.write(data)

    def send(self, payload: bytes | str = b"", opcode: int = TEXT, **kwargs: object) -> None:
        """Write one frame."""
        self.raw(frame(payload, opcode, **kwargs))

    def send_close(self, code: int | None, reason: bytes = b"") -> None:
        """Write a CLOSE."""
        self.send(b"" if code is None else struct.pack("!H", code) + reason, CLOSE)

    async def read(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame; raise `IncompleteReadError` at the end."""
        first, second = await self.reader.readexactly(2)
        assert second & 0x80, "a client must mask"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    async def read_until(self, opcode: int) -> bytes:
        """Return the payload of the next frame of that kind."""
        while True:
            kind, data = await self.read()
            if kind == opcode:
                return data

    async def gone(self) -> None:
        """Return when the client has hung up."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def reset(self) -> None:
        """Cut with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def cut(self) -> None:
        """Cut with FIN, without a CLOSE."""
        self.writer.close()


Script = Callable[[Peer], Awaitable[None]]


class WsServer:
    """The server; counts connections, and how many were upgraded and open at once."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = scripts
        self.tls = tls
        self.connections = 0
        self.open = self.most_open = 0
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self._server.sockets[0].getsockname()[1]
        return f"ws{'s' if self.tls else ''}://{'localhost' if self.tls else '127.0.0.1'}:{port}/ws"

    async def __aenter__(self) -> WsServer:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self.tls, limit=1 << 24
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if exc[0] is None:
            for error in self.errors:
                raise error

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)
