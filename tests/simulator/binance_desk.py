"""A client of the simulated Binance that assumes nothing: it signs, sends, shows what comes back.

Unless a test says otherwise: simple rules of BTCUSDT, wallet 500,000 USDT, leverage 10, virtual
time, and a market that stands at 50,000 (bid 49,999.9, ask 50,000) until the test prints a trade.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from passivx.models import Market
from passivx.simulator.app import Simulator
from tests.simulator.lines import JsonSocket
from tests.simulator.worlds import quiet_feed

MARKET = Market(
    price_step=0.1,
    qty_step=0.001,
    min_qty=0.001,
    min_cost=5.0,
    maker_fee=0.0002,
    taker_fee=0.0005,
    max_leverage=100.0,
    inverse=False,
)
SYMBOL = "BTCUSDT"


def simulator(**options: Any) -> Simulator:
    options.setdefault("speed", "step")
    options.setdefault("leverage", 10.0)
    options.setdefault("limits", False)
    options.setdefault("wallet", 500_000.0)
    options.setdefault("feed", quiet_feed())
    options.setdefault("market", MARKET)
    return Simulator(exchange="binance", symbol=SYMBOL, **options)


class Socket(JsonSocket):
    """One of Binance's."""

    async def ask(self, message: dict) -> dict:
        """Send a request and return its answer."""
        await self.send(message)
        return await self.take(lambda m: m.get("id") == message["id"] or "code" in m)

    async def event(self, kind: str) -> dict:
        """Return the next event of a kind."""
        return await self.take(lambda m: m.get("data", m).get("e") == kind)

    async def drained(self) -> list[Any]:
        """Return everything that was sent so far."""
        await self.ask({"method": "LIST_SUBSCRIPTIONS", "id": 999})
        seen, self.seen = self.seen, []
        return seen


class RefusedError(Exception):
    def __init__(self, status: int, code: int, msg: str) -> None:
        self.status, self.code, self.msg = status, code, msg
        super().__init__(f"{status} {code} {msg}")


class Desk:
    """A running simulator and a hand at it that signs."""

    def __init__(self, sim: Simulator, http: aiohttp.ClientSession) -> None:
        self.sim, self.http, self.venue = sim, http, sim.venue
        self.headers: dict[str, str] = {}
        self._open: list[Any] = []
        self._ids = itertools.count(1)
        self._trades = itertools.count(10)

    @property
    def now_ms(self) -> int:
        return self.sim.clock.time_ms()

    def sign(self, text: str) -> str:
        return hmac.new(self.sim.secret.encode(), text.encode(), "sha256").hexdigest()

    async def raw(
        self, verb: str, path: str, query: str = "", *, key: str | None = None, body: str = ""
    ) -> Any:
        """Send exactly this; return the JSON or raise `RefusedError`."""
        url = f"{self.sim.endpoints['rest']}{path}" + (f"?{query}" if query else "")
        headers = {} if key == "" else {"X-MBX-APIKEY": self.sim.key if key is None else key}
        async with self.http.request(
            verb, URL(url, encoded=True), headers=headers, data=body or None
        ) as reply:
            self.headers = dict(reply.headers)
            answer = orjson.loads(await reply.read())
            if reply.status != 200:
                raise RefusedError(reply.status, answer["code"], answer["msg"])
            return answer

    async def ask(self, verb: str, path: str, **params: Any) -> Any:
        """Send a signed request, of /fapi unless the path is whole; None is left out."""
        fields = {k: v for k, v in params.items() if v is not None}
        fields.setdefault("timestamp", self.now_ms)
        query = urlencode(fields)
        path = path if path.startswith("/") else f"/fapi/{path}"
        return await self.raw(verb, path, f"{query}&signature={self.sign(query)}")

    async def public(self, path: str, **params: Any) -> Any:
        return await self.raw("GET", f"/fapi/{path}", urlencode(params), key="")

    async def order(self, side: str, qty: object, price: object = None, **params: Any) -> Any:
        """Post-only at a price; at market without one."""
        limit = {} if price is None else {"price": price, "timeInForce": "GTX"}
        kind = "MARKET" if price is None else "LIMIT"
        return await self.ask(
            "POST", "v1/order",
            **({"symbol": SYMBOL, "side": side, "type": kind, "quantity": qty} | limit | params),
        )  # fmt: skip

    async def refusal(self, call: Any) -> RefusedError | None:
        """Return how a call was refused, None when it was not."""
        try:
            await call
        except RefusedError as refused:
            return refused
        return None

    async def code(self, call: Any) -> int:
        """Return the code that a call is refused with, 0 when it is not."""
        refused = await self.refusal(call)
        return 0 if refused is None else refused.code

    def print(self, price: float, *, sold: bool) -> None:
        self.venue.print(next(self._trades), price, 1.0, sold, self.now_ms)

    async def socket(self, path: str, base: str = "") -> Socket:
        url = self.sim.endpoints["ws_public"].removesuffix("/public") + base + path
        raw = await self.http.ws_connect(url)
        # The front hears of it in the turn after the handshake.
        while len(self.sim.server.sessions) < len(self._open) + 1:
            await asyncio.sleep(0)
        self._open.append(raw)
        return Socket(raw)

    async def user_stream(self) -> Socket:
        answer = await self.raw("POST", "/fapi/v1/listenKey")
        return await self.socket(f"/private/ws/{answer['listenKey']}")

    async def trade_socket(self) -> Socket:
        return await self.socket("/ws-fapi/v1")

    async def frame(self, socket: Socket, method: str, **params: Any) -> dict:
        """Send a signed frame over the order socket and return its answer."""
        fields = {"apiKey": self.sim.key, "timestamp": self.now_ms, **params}
        text = "&".join(f"{k}={v}" for k, v in sorted(fields.items()))
        fields["signature"] = self.sign(text)
        return await socket.ask({"id": f"r{next(self._ids)}", "method": method, "params": fields})

    async def wait(self, ms: int) -> None:
        await self.sim.step(ms=ms)


@asynccontextmanager
async def desk(**options: Any):
    async with (
        asyncio.timeout(30),
        simulator(**options) as sim,
        aiohttp.ClientSession() as http,
    ):
        served = Desk(sim, http)
        await sim.step(ticks=1)
        yield served
        assert [r for r in sim.ledger.entries("fault") if r.get("do") == "simulator_failed"] == []
