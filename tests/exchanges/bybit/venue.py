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
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit.rest import WINDOWS, BybitDialect, BybitRest
from passivx.exchanges.http import Http
from passivx.exchanges.keys import ApiKey
from tests.exchanges.http_server import Seen, Server, answer, drop
from tests.exchanges.scripted import Drop, Fields, Route, ScriptedVenue, Status

KEY = "canaryKey123456789"
SECRET = "canarySecretAbcdefghijklmnopqrstuvw"
NOW_MS = 1_767_225_612_345
STEPS = ((5.0, 10.0), (1.0, 1.0))


class Refused(Exception):  # noqa: N818 (an answer, not an error)
    """Answer with this code; business errors come with status 200."""

    def __init__(
        self, code: int, text: str = "no", headers: Mapping[str, str] | None = None, **result: Any
    ) -> None:
        self.code, self.text, self.headers, self.result = code, text, headers, result


class Venue(ScriptedVenue):
    """Bybit's REST; a route returns the ``result``, and every signature is checked."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(
            clock,
            {"GET /v5/market/time": lambda fields: {"timeNano": str(clock.time_ms() * 1_000_000)}},
        )
        self.seen: list[Seen] = []

    async def _act(self, server: Server, seen: Seen, writer: Any) -> None:
        path, _, query = seen.target.partition("?")
        route = f"{seen.method} {path}"
        self.seen.append(seen)
        if seen.method == "GET":
            # The venue answers a GET with a body by a 403.
            assert not seen.body
            fields = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        else:
            assert not query
            assert seen.headers["content-type"] == "application/json"
            fields = json.loads(seen.body)
        if not path.startswith("/v5/market/"):
            self._check(seen, query)
        if not path.endswith("/time"):
            self.calls.append((route, fields))
        extra: Any = {}
        headers = None
        code, text = 0, "OK"
        try:
            result = self.routes[route](fields)
            if path.endswith("-batch"):
                extra = {"list": result.pop("judged")}
        except Refused as e:
            code, text, headers, result = e.code, e.text, e.headers, e.result
        except Status as e:
            await answer(e.body, e.status, e.headers)(server, seen, writer)
            return
        except Drop:
            await drop(server, seen, writer)
            return
        body = {
            "retCode": code,
            "retMsg": text,
            "result": result,
            "retExtInfo": extra,
            "time": self.clock.time_ms(),
        }
        await answer(body, 200, headers)(server, seen, writer)

    def _check(self, seen: Seen, query: str) -> None:
        stamp, window = seen.headers["x-bapi-timestamp"], seen.headers["x-bapi-recv-window"]
        text = f"{stamp}{KEY}{window}".encode() + (seen.body or query.encode())
        wanted = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        assert seen.headers["x-bapi-sign"] == wanted
        assert seen.headers["x-bapi-api-key"] == KEY
        assert window == "5000"
        assert -5000 < int(stamp) - self.clock.time_ms() < 1000


def client_of(venue: Venue, category: str = "inverse") -> tuple[Http, BybitRest]:
    """Return what speaks REST to it."""
    budget = Budget(WINDOWS, venue.clock)
    http = Http(venue.url, BybitDialect(ApiKey(KEY, SECRET)), venue.clock, budget)
    return http, BybitRest(http, symbol="BTCUSD", category=category)


def steps() -> Steps:
    """Return prices by 0.5, quantities by 1."""
    return Steps(*STEPS)


def order_row(**changed: Any) -> Fields:
    """Return an order as REST and the stream tell it."""
    row = {
        "category": "inverse",
        "symbol": "BTCUSD",
        "orderId": "id-77",
        "orderLinkId": "grid-1",
        "side": "Buy",
        "orderType": "Limit",
        "price": "90000.0",
        "qty": "100",
        "timeInForce": "PostOnly",
        "orderStatus": "New",
        "cancelType": "UNKNOWN",
        "rejectReason": "EC_NoError",
        "cumExecQty": "0",
        "reduceOnly": False,
        "positionIdx": 0,
        "updatedTime": str(NOW_MS),
    }
    return row | changed


def fill_row(**changed: Any) -> Fields:
    """Return an execution as REST and the stream tell it."""
    row = {
        "category": "inverse",
        "symbol": "BTCUSD",
        "execId": "e-1",
        "orderId": "id-77",
        "orderLinkId": "grid-1",
        "side": "Buy",
        "execPrice": "90000.0",
        "execQty": "100",
        "execFee": "0.0000001",
        "execType": "Trade",
        "execTime": str(NOW_MS),
        "isMaker": True,
        "feeCurrency": "BTC",
        "createType": "CreateByUser",
    }
    return row | changed


def position_row(**changed: Any) -> Fields:
    """Return a position as REST tells it."""
    row = {
        "category": "inverse",
        "symbol": "BTCUSD",
        "positionIdx": 0,
        "side": "",
        "size": "0",
        "avgPrice": "0",
        "liqPrice": "",
        "leverage": "10",
        "positionStatus": "Normal",
        "isReduceOnly": False,
        "updatedTime": str(NOW_MS),
    }
    return row | changed


def batch(fields: Fields, *codes: int) -> Fields:
    """Answer a batch, element by element; codes that are not given are 0."""
    rows, judged = [], []
    for i, element in enumerate(fields["request"]):
        code = codes[i] if i < len(codes) else 0
        link = element.get("orderLinkId", "")
        rows.append({"symbol": "BTCUSD", "orderId": "" if code else f"id-{i}", "orderLinkId": link})
        judged.append({"code": code, "msg": "no" if code else "OK"})
    return {"list": rows, "judged": judged}


def pages(*parts: list[Fields], cursors: list[str] | None = None) -> Route:
    """Answer with one part after another, each known by the cursor that the one before named."""
    names = [f"page%3A{i}%2C&=" for i in range(1, len(parts))] if cursors is None else cursors

    def route(fields: Fields) -> Fields:
        cursor = fields.get("cursor", "")
        i = names.index(cursor) + 1 if cursor else 0
        return {"list": parts[i], "nextPageCursor": names[i] if i < len(names) else ""}

    return route


INSTRUMENT: Fields = {
    "symbol": "BTCUSD",
    "contractType": "InversePerpetual",
    "status": "Trading",
    "settleCoin": "BTC",
    "leverageFilter": {"maxLeverage": "100.00"},
    "priceFilter": {"minPrice": "0.5", "maxPrice": "999999.5", "tickSize": "0.5"},
    "lotSizeFilter": {
        "maxOrderQty": "25000000",
        "maxMktOrderQty": "5000000",
        "minOrderQty": "1",
        "qtyStep": "1",
        "minNotionalValue": "",
    },
    "fundingInterval": 480,
    "riskParameters": {"priceLimitRatioX": "0.02", "priceLimitRatioY": "0.04"},
}
RISK: list[Fields] = [
    {
        "symbol": "BTCUSD",
        "riskLimitValue": "300",
        "maintenanceMargin": "1",
        "initialMargin": "1.5",
        "maxLeverage": "66.67",
        "mmDeduction": "0.75",
    },
    {
        "symbol": "BTCUSD",
        "riskLimitValue": "150",
        "maintenanceMargin": "0.5",
        "initialMargin": "1",
        "maxLeverage": "100.00",
        "mmDeduction": "",
    },
]


def offer(venue: Venue, instrument: Fields = INSTRUMENT, risk: list[Fields] = RISK) -> None:
    """Have a venue answer what rules are made of."""
    venue.routes |= {
        "GET /v5/market/instruments-info": lambda f: {"list": [instrument]},
        "GET /v5/market/risk-limit": lambda f: {"list": risk},
        "GET /v5/account/fee-rate": lambda f: {
            "list": [
                {"symbol": "ETHUSD", "makerFeeRate": "1", "takerFeeRate": "1"},
                {"symbol": "BTCUSD", "makerFeeRate": "0.0002", "takerFeeRate": "0.00055"},
            ]
        },
    }
