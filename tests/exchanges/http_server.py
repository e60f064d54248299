"""An HTTP server on loopback that writes bytes, not answers, and so can do everything wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Seen:
    """One request as it arrived, complete."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Act = Callable[["Server", Seen, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request by the next of ``acts``, the last one for ever.

    ``seen`` holds every request that was read to its end, which is when a venue would execute it.
    """

    def __init__(self, *acts: Act, tls: ssl.SSLContext | None = None) -> None:
        self.acts = list(acts)
        self.seen: list[Seen] = []
        self.n_connections = 0
        self.arrived = asyncio.Event()
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.n_connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    seen = await self._read(reader)
                    self.seen.append(seen)
                    self.arrived.set()
                    act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                    await act(self, seen, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Seen(method, target, headers, body)


def raw(data: bytes, *, close: bool = False) -> Act:
    """Write bytes."""

    async def act(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            writer.close()

    return act


def answer(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, cut: int = 0
) -> Act:
    """Answer as one should; the last ``cut`` bytes of the body are missing and the line dead."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return raw(head + content[: len(content) - cut], close=bool(cut))


async def drop(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Close without an answer."""
    writer.close()


async def reset(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Send RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hang(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def drip(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Answer byte by byte, always one more."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Answer without end, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()
