"""What the tests of REST, sockets and client share: a venue that answers as it is told."""

from __future__ import annotations

import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from passivx.clock import VirtualClock
from passivx.exchanges.base import Steps
from passivx.exchanges.binance.rest import WINDOWS, BinanceDialect, BinanceRest
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import Http
from passivx.exchanges.keys import ApiKey
from tests.exchanges.http_server import Seen, Server, answer, drop
from tests.exchanges.scripted import Drop, ScriptedVenue, Status

KEY = "canaryKeyAbcdefghijklmnopqrstuvwxyz0123456789"
SECRET = "canarySecretAbcdefghijklmnopqrstuvwxyz01234567"
LISTEN_KEY = "canaryListenKeyAbcdefghijklmnopqrstuvwxyz0123456"
NOW_MS = 1_767_225_612_345  # 12.345 s past a minute
STEPS = Steps(price=(1.0, 10.0), qty=(1.0, 1000.0))

Params = dict[str, str]


def refused(code: int, message: str = "no", status: int = 400) -> Status:
    return Status(status, {"code": code, "msg": message})


class Venue(ScriptedVenue):
    """Binance's REST; every signature is checked, and kept out of ``calls`` with its stamp."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(
            clock, {"GET /fapi/v1/time": lambda params: {"serverTime": clock.time_ms()}}
        )

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


def listed(text: str) -> list[Any]:
    """Return the list that a parameter holds; it must be written without blanks."""
    assert " " not in text
    return json.loads(text)
