"""A client of the simulated Bybit that assumes nothing: it signs, sends and shows what comes back.

Unless a test says otherwise: the example rules of BTCUSD, wallet 10 BTC, leverage 10, virtual time,
and a market that stands at 50,000 (bid 49,999.5, ask 50,000.5) until the test prints a trade.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
from contextlib import asynccontextmanager
from urllib.parse import urlencode

import aiohttp
import orjson

from passivx.models import Market
from passivx.simulator.app import Simulator
from tests.simulator.lines import JsonSocket
from tests.simulator.worlds import quiet_feed

INVERSE = Market(
    price_step=0.5,
    qty_step=1.0,
    min_qty=1.0,
    min_cost=0.0,
    maker_fee=0.0002,
    taker_fee=0.00055,
    max_leverage=100.0,
    inverse=True,
)
LINEAR = Market(
    price_step=0.1,
    qty_step=0.001,
    min_qty=0.001,
    min_cost=5.0,
    maker_fee=0.0002,
    taker_fee=0.00055,
    max_leverage=100.0,
    inverse=False,
)
SYMBOLS = {True: "BTCUSD", False: "BTCUSDT"}
WALLETS = {True: 10.0, False: 500_000.0}


def simulator(market: Market = INVERSE, **options) -> Simulator:
    options.setdefault("speed", "step")
    options.setdefault("leverage", 10.0)
    options.setdefault("limits", False)
    options.setdefault("wallet", WALLETS[market.inverse])
    options.setdefault("feed", quiet_feed())
    options.setdefault("symbol", SYMBOLS[market.inverse])
    return Simulator(exchange="bybit", market=market, **options)


def sign(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()


def signed_headers(key: str, secret: str, stamp_ms: int, text: str, window: str = "5000") -> dict:
    """Return the headers of a request: what is signed is its query or its body."""
    stamp = str(stamp_ms)
    return {
        "X-BAPI-API-KEY": key,
        "X-BAPI-TIMESTAMP": stamp,
        "X-BAPI-RECV-WINDOW": window,
        "X-BAPI-SIGN": sign(secret, stamp + key + window + text),
    }


def signed_in(key: str, secret: str, expires_ms: int) -> dict:
    """Return the message that signs a socket in."""
    return {"op": "auth", "args": [key, expires_ms, sign(secret, f"GET/realtime{expires_ms}")]}


class Socket(JsonSocket):
    """One of Bybit's."""

    async def ask(self, message: dict) -> dict:
        """Send an operation and return its answer."""
        await self.send(message)
        return await self.take(lambda m: m.get("op") is not None)

    async def event(self, topic: str) -> dict:
        """Return the next message of a topic."""
        return await self.take(lambda m: m.get("topic") == topic)

    async def row(self, topic: str) -> dict:
        """Return the one row of the next message of a topic."""
        (row,) = (await self.event(topic))["data"]
        return row

    async def drained(self) -> list[dict]:
        """Return everything that was sent so far."""
        await self.send({"op": "ping"})
        await self.take(lambda m: m.get("op") in ("ping", "pong"))
        seen, self.seen = self.seen, []
        return seen


class Desk:
    """A running simulator and a signed-in hand at it."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.http = http
        self.venue = sim.venue
        self.front = sim.server._front
        self.symbol = sim.symbol
        self.category = "inverse" if sim.venue.listing.market.inverse else "linear"
        self.key, self.secret = sim.key, sim.secret
        self.headers: dict[str, str] = {}  # of the last answer
        self._request_ids = itertools.count(1)
        self._trades = itertools.count(10)

    @property
    def now_ms(self) -> int:
        return self.sim.clock.time_ms()

    def signed(self, payload: str, *, at_ms: int | None = None, window: str = "5000") -> dict:
        stamp_ms = self.now_ms if at_ms is None else at_ms
        return signed_headers(self.key, self.secret, stamp_ms, payload, window)

    async def raw(self, method: str, path: str, **kwargs) -> tuple[int, bytes]:
        url = self.sim.endpoints["rest"] + path
        async with self.http.request(method, url, **kwargs) as reply:
            self.headers = dict(reply.headers)
            return reply.status, await reply.read()

    async def get(self, path: str, *, signed: bool = True, **params) -> dict:
        """Return the whole answer; the category is added where the path has one."""
        if not path.startswith(("/v5/market/time", "/v5/account", "/v5/user", "/v5/asset")):
            params.setdefault("category", self.category)
        query = urlencode(params)
        headers = self.signed(query) if signed else {}
        status, body = await self.raw("GET", f"{path}?{query}" if query else path, headers=headers)
        assert status == 200, (status, body)
        return orjson.loads(body)

    async def post(self, path: str, **body) -> dict:
        if not path.startswith("/v5/account"):
            body.setdefault("category", self.category)
        text = json.dumps(body)
        status, reply = await self.raw("POST", path, data=text, headers=self.signed(text))
        assert status == 200, (status, reply)
        return orjson.loads(reply)

    def order(self, **fields) -> dict:
        """Return a request for a small post-only buy far below, with what is said changed."""
        order = {
            "symbol": self.symbol,
            "side": "Buy",
            "orderType": "Limit",
            "qty": "100" if self.category == "inverse" else "0.002",
            "price": "49000",
            "timeInForce": "PostOnly",
            "positionIdx": 0,
            "reduceOnly": False,
        }
        order |= fields
        return {name: value for name, value in order.items() if value is not None}

    async def place(self, **fields) -> dict:
        return await self.post("/v5/order/create", **self.order(**fields))

    async def placed(self, **fields) -> str:
        """Place an order that the venue takes, and return its id."""
        reply = await self.place(**fields)
        assert reply["retCode"] == 0, reply
        return reply["result"]["orderId"]

    async def buy(self, qty: str) -> str:
        """Take a long position."""
        return await self.placed(orderType="Market", qty=qty, price=None, timeInForce=None)

    async def one_order(self, order_id: str) -> dict:
        (row,) = (await self.get("/v5/order/realtime", orderId=order_id))["result"]["list"]
        return row

    async def socket(self, name: str, query: str = "") -> Socket:
        return Socket(await self.http.ws_connect(self.sim.endpoints[f"ws_{name}"] + query))

    def auth(self, *, expires_ms: int | None = None) -> dict:
        expires = self.now_ms + 5000 if expires_ms is None else expires_ms
        return signed_in(self.key, self.secret, expires)

    async def private(self, *topics: str) -> Socket:
        """Return a private socket that is signed in and listens."""
        socket = await self.socket("private")
        assert (await socket.ask(self.auth()))["success"]
        if topics:
            assert (await socket.ask({"op": "subscribe", "args": list(topics)}))["success"]
        return socket

    async def public(self, *topics: str) -> Socket:
        socket = await self.socket("public")
        answer = await socket.ask({"op": "subscribe", "args": list(topics), "req_id": "s"})
        assert answer["success"], answer
        return socket

    async def trade(self) -> Socket:
        socket = await self.socket("trade")
        assert (await socket.ask(self.auth()))["retCode"] == 0
        return socket

    def operation(self, op: str, args: dict, **changes) -> dict:
        message = {
            "reqId": f"r-{next(self._request_ids)}",
            "header": {"X-BAPI-TIMESTAMP": str(self.now_ms), "X-BAPI-RECV-WINDOW": "5000"},
            "op": op,
            "args": [{"category": self.category, **args}],
        }
        message |= changes
        return {name: value for name, value in message.items() if value is not None}

    def print(self, price: float, qty: float = 1.0, *, taker: int = 1) -> None:
        """Let a trade happen on the tape; ``taker``: 1 bought, -1 sold."""
        self.venue.print(next(self._trades), price, qty, taker < 0, self.now_ms)

    def pass_ms(self, ms: int) -> None:
        self.sim.clock._clock.advance(ms)

    def faults(self) -> list[dict]:
        return [e for e in self.sim.ledger.entries("fault") if e.get("what") == "simulator"]


@asynccontextmanager
async def desk(market: Market = INVERSE, **options):
    async with simulator(market, **options) as sim, aiohttp.ClientSession() as http:
        one = Desk(sim, http)
        yield one
        # Whatever was asked: the front itself never fails.
        assert one.faults() == []


def run(main, market: Market = INVERSE, **options):
    """Run ``main(desk)`` for at most 20 s."""

    async def bounded():
        async with asyncio.timeout(20), desk(market, **options) as one:
            return await main(one)

    return asyncio.run(bounded())
