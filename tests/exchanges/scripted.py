"""What the tests of both clients share: a REST venue that answers as it is told, and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Self

import orjson

from passivx.clock import VirtualClock
from passivx.exchanges.stream import StreamLimits
from tests.exchanges.http_server import Seen, Server
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import Peer

Fields = dict[str, Any]
Route = Callable[[Fields], Any]
# Nobody answers pings or repeats what he said, while the clock jumps.
PATIENT = StreamLimits(data_age_s=None, ping_idle_s=1e6, rotate_after_s=None)


class Status(Exception):  # noqa: N818 (an answer, not an error)
    """Answer with another status than 200."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers


class Drop(Exception):  # noqa: N818
    """Read the request, and close without an answer."""


def raising(answer: Exception) -> Route:
    """Answer every request so."""

    def route(fields: Fields) -> Any:
        raise answer

    return route


class ScriptedVenue:
    """REST on loopback: routes by "METHOD path", which get a request's fields.

    ``calls`` holds each request as (route, fields).
    """

    def __init__(self, clock: VirtualClock, routes: dict[str, Route]) -> None:
        self.clock, self.routes = clock, routes
        self.calls: list[tuple[str, Fields]] = []
        self._server = Server(self._act)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    def named(self, route: str) -> list[Fields]:
        """Return the fields of every call of a route."""
        return [fields for name, fields in self.calls if name == route]

    async def _act(self, server: Server, seen: Seen, writer: Any) -> None:
        raise NotImplementedError


class Scene:
    """A client, and the venue around it."""

    def __init__(self, clock: VirtualClock, account: Any, client: Any) -> None:
        self.clock, self.account, self.client = clock, account, client
        self.venue, self.recorder = account.venue, Recorder()


async def absent(peer: Peer) -> None:
    """Hang up: the script of a socket that a test is not about."""
    peer.cut()


def dumps(message: object) -> bytes:
    return message if isinstance(message, bytes) else orjson.dumps(message)


def feed(stream: Any, *messages: object) -> list[bool]:
    """Hand messages over as the socket would; return what each counted as."""
    return [stream._on_frame(memoryview(dumps(message))) for message in messages]


async def none() -> None:
    """Return nothing: no trade was found."""


@contextlib.asynccontextmanager
async def running(*work: Awaitable[Any]) -> AsyncIterator[None]:
    """Have work done beside, and cancel it."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pumped(clock: VirtualClock, done: Callable[[], object]) -> None:
    """Move the clock, and let the sockets keep up, until it is so."""
    while not done():
        await clock.run(500)
        await asyncio.sleep(0.001)


async def without_pauses(clock: VirtualClock, call: Coroutine[Any, Any, Any]) -> Any:
    """Await a call; whenever something sleeps, it is time to wake it."""
    work = asyncio.ensure_future(call)
    while not work.done():
        await asyncio.sleep(0)
        if due_s := clock.next_due_s():
            clock.advance(due_s * 1000)
    return await work
