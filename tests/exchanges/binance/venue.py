"""What the tests of REST, sockets and client share: a venue that answers as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self

from passivx.clock import VirtualClock
from passivx.exchanges.binance.rest import WINDOWS, BinanceDialect, BinanceRest
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import Http
from passivx.exchanges.keys import ApiKey
from tests.exchanges.http_server import Seen, Server, answer, drop

KEY = "canaryKeyAbcdefghijklmnopqrstuvwxyz0123456789"
SECRET = "canarySecretAbcdefghijklmnopqrstuvwxyz01234567"
LISTEN_KEY = "canaryListenKeyAbcdefghijklmnopqrstuvwxyz0123456"
NOW_MS = 1_767_225_612_345

Params = dict[str, str]
Route = Callable[[Params], Any]


class Status(Exception):  # noqa: N818 (an answer, not an error)
    """Answer with another status than 200."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.body, self.headers = status, body, headers


class Drop(Exception):  # noqa: N818
    """Read the request, and close without an answer."""


def refused(code: int, message: str = "no", status: int = 400) -> Status:
    return Status(status, {"code": code, "msg": message})


class Venue:
    """REST on loopback: routes by "METHOD path"; every signature is checked.

    ``calls`` holds each request as (route, params), without stamp and signature.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.routes: dict[str, Route] = {
            "GET /fapi/v1/time": lambda p: {"serverTime": clock.time_ms()}
        }
        self.calls: list[tuple[str, Params]] = []
        self._server = Server(self._act)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.__aexit__(*exc)

    def named(self, route: str) -> list[Params]:
        """Return the parameters of every call of a route."""
        return [params for name, params in self.calls if name == route]

    async def _act(self, server: Server, seen: Seen, writer: Any) -> None:
        path, _, query = seen.target.partition("?")
        params = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        route = f"{seen.method} {path}"
        try:
            if path.endswith("listenKey"):
                assert seen.headers["x-mbx-apikey"] == KEY
            if "signature" in params:
                self._check(seen, query, params)
            if not path.endswith("/time"):
                self.calls.append((route, params))
            body, status, headers = self.routes[route](params), 200, None
        except Status as e:
            body, status, headers = e.body, e.status, e.headers
        except Drop:
            await drop(server, seen, writer)
            return
        await answer(body, status, headers)(server, seen, writer)

    def _check(self, seen: Seen, query: str, params: Params) -> None:
        text, _, signature = query.rpartition("&signature=")
        wanted = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
        assert signature == wanted
        assert seen.headers["x-mbx-apikey"] == KEY
        assert abs(int(params.pop("timestamp")) - self.clock.time_ms()) < 1000
        assert params.pop("recvWindow") == "5000"
        del params["signature"]
        assert not seen.body


def client_of(venue: Venue, symbol: str = "BTCUSDT") -> tuple[Http, BinanceRest]:
    """Return what speaks REST to it."""
    budget = Budget(WINDOWS, venue.clock)
    http = Http(venue.url, BinanceDialect(ApiKey(KEY, SECRET)), venue.clock, budget)
    return http, BinanceRest(http, symbol=symbol)


def order_row(**changed: Any) -> dict[str, Any]:
    """Return an order as REST tells it."""
    row = {
        "clientOrderId": "grid-1",
        "orderId": 77,
        "symbol": "BTCUSDT",
        "side": "BUY",
        "price": "90000.1",
        "origQty": "0.002",
        "executedQty": "0.000",
        "reduceOnly": False,
        "status": "NEW",
        "timeInForce": "GTX",
        "updateTime": NOW_MS,
    }
    return row | changed


def echo(params: Mapping[str, str], **changed: Any) -> dict[str, Any]:
    """Return the order that a place asks for."""
    return order_row(
        clientOrderId=params["newClientOrderId"],
        side=params["side"],
        price=params.get("price", "0"),
        origQty=params["quantity"],
        reduceOnly=params.get("reduceOnly") == "true",
        **changed,
    )


async def without_pauses(clock: VirtualClock, call: Coroutine[Any, Any, Any]) -> Any:
    """Await a call; whenever something sleeps, it is time to wake it."""
    work = asyncio.ensure_future(call)
    while not work.done():
        await asyncio.sleep(0)
        if due_s := clock.next_due_s():
            clock.advance(due_s * 1000)
    return await work


def listed(text: str) -> list[Any]:
    """Return the list that a parameter holds; it must be written without blanks."""
    assert " " not in text
    return json.loads(text)
