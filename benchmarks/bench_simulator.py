"""How many orders the simulated exchange takes: it must not be what a bot waits for.

    pytest benchmarks/bench_simulator.py --benchmark-only -s

The simulator is a process with a core of its own, its rate limits off, the ledger on. A place and
the cancel of it count as one order. Over the order socket 32 messages are on their way at a time,
over REST 16 keep-alive connections wait for one answer each.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.cores import needs_cores, on_core
from passivx._core.wire import BinanceOrderText, BybitOrderText, Hmac
from tests.simulator.worlds import world

N_ORDERS = int(os.environ.get("PASSIVX_BENCH_ROWS", "10000")) // 2
IN_FLIGHT = 32
CONNECTIONS = 16
SERVE = """
import asyncio, sys
from pathlib import Path
import uvloop
from benchmarks.latency_venue import keep_to
from passivx.models import load_market
from passivx.simulator.app import Simulator
from passivx.simulator.feed import Feed
from passivx.workspace import find_market

async def main(exchange, symbol):
    market = load_market(find_market(exchange, symbol, Path()))
    simulator = Simulator(
        exchange=exchange, symbol=symbol, market=market, feed=Feed.synthetic(1, exchange),
        wallet=1e6, limits=False,
    )
    async with simulator:
        print(simulator.first_line(), flush=True)
        await simulator.stopped.wait()

keep_to(0)
uvloop.run(main(*sys.argv[1:]))
"""


class Orders(WSListener):
    """Places an order and cancels it, again and again, a number of pairs at a time."""

    def __init__(self, texts: Any, bybit: bool, n: int) -> None:
        self.texts = texts
        self.bybit = bybit
        self.n = n
        self.begun = self.ended = 0
        self.done = asyncio.get_running_loop().create_future()

    def place(self, transport: WSTransport) -> None:
        if self.begun == self.n:
            return
        self.begun += 1
        ts_ms, name = int(time.time() * 1000), f"o-{self.n}-{self.begun}"
        frame = self.texts.place(name, ts_ms, name, 1, 100.0, 100.0 if self.bybit else 2.0)
        transport.send(WSMsgType.TEXT, frame)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = orjson.loads(frame.get_payload_as_memoryview())
        id = message.get("reqId") if self.bybit else message.get("id")
        if id is None:
            return
        ok = message["retCode"] == 0 if self.bybit else message["status"] == 200
        if not ok and not self.done.done():
            self.done.set_exception(AssertionError(message))
        if id.startswith("o-"):
            ts_ms = int(time.time() * 1000)
            transport.send(WSMsgType.TEXT, self.texts.cancel("c" + id, ts_ms, client_id=id))
            return
        self.ended += 1
        if self.ended == self.n:
            self.done.set_result(None)
        self.place(transport)


async def over_socket(line: dict[str, str], n: int) -> float:
    """Return orders a second over the order socket."""
    bybit = line["exchange"] == "bybit"
    sign = Hmac(line["secret"].encode()).sign
    texts: Any = (
        BybitOrderText(line["symbol"], "inverse", (5.0, 10.0), (1.0, 1.0))
        if bybit
        else BinanceOrderText(line["key"], line["symbol"], (1.0, 10.0), (1.0, 1000.0), sign)
    )
    transport, orders = await ws_connect(lambda: Orders(texts, bybit, n), line["ws_trade"])
    assert isinstance(orders, Orders)
    if bybit:
        expires = int(time.time() * 1000) + 10_000
        signature = sign(b"GET/realtime%d" % expires).decode()
        transport.send(
            WSMsgType.TEXT, orjson.dumps({"op": "auth", "args": [line["key"], expires, signature]})
        )
    start = time.perf_counter()
    for _ in range(IN_FLIGHT):
        orders.place(transport)
    await orders.done
    seconds = time.perf_counter() - start
    transport.disconnect()
    await transport.wait_disconnected()
    return n / seconds


async def over_rest(line: dict[str, str], n: int) -> float:
    """Return orders a second over REST, on bare keep-alive connections."""
    address = urlsplit(line["rest"])
    sign = Hmac(line["secret"].encode()).sign
    bybit = line["exchange"] == "bybit"
    host = f"{address.hostname}:{address.port}".encode()

    def request(verb: str, path: str, fields: dict[str, Any]) -> bytes:
        ts_ms = int(time.time() * 1000)
        if bybit:
            body = orjson.dumps({"category": "inverse", "symbol": line["symbol"], **fields})
            signature = sign(f"{ts_ms}{line['key']}5000".encode() + body)
            return (
                b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nX-BAPI-API-KEY: %s\r\n"
                b"X-BAPI-TIMESTAMP: %d\r\nX-BAPI-RECV-WINDOW: 5000\r\nX-BAPI-SIGN: %s\r\n\r\n%s"
                % (path.encode(), host, len(body), line["key"].encode(), ts_ms, signature, body)
            )
        query = "&".join(f"{k}={v}" for k, v in fields.items()) + f"&timestamp={ts_ms}"
        signature = sign(query.encode())
        return b"%s %s?%s&signature=%s HTTP/1.1\r\nHost: %s\r\nX-MBX-APIKEY: %s\r\n\r\n" % (
            verb.encode(), path.encode(), query.encode(), signature, host, line["key"].encode(),
        )  # fmt: skip

    async def one(part: int) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for i in range(n // CONNECTIONS):
            name = f"r{part}-{i}"
            if bybit:
                order = {"side": "Buy", "orderType": "Limit", "qty": "100", "price": "100.0",
                         "timeInForce": "PostOnly", "orderLinkId": name}  # fmt: skip
                pair = [
                    request("POST", "/v5/order/create", order),
                    request("POST", "/v5/order/cancel", {"orderLinkId": name}),
                ]
            else:
                order = {"symbol": line["symbol"], "side": "BUY", "type": "LIMIT",
                         "timeInForce": "GTX", "quantity": "2", "price": "100",
                         "newClientOrderId": name}  # fmt: skip
                ref = {"symbol": line["symbol"], "origClientOrderId": name}
                pair = [
                    request("POST", "/fapi/v1/order", order),
                    request("DELETE", "/fapi/v1/order", ref),
                ]
            for message in pair:
                writer.write(message)
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().index(b"content-length:")
                body = await reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
                assert b'"retCode":0' in body or b'"orderId"' in body, body
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(part) for part in range(CONNECTIONS)))
    return n / (time.perf_counter() - start)


@asynccontextmanager
async def simulator(exchange: str) -> AsyncIterator[dict[str, str]]:
    symbol = "BTCUSDT" if exchange == "binance" else "BTCUSD"
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, exchange, symbol],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@needs_cores
@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_orders(benchmark: Any, exchange: str) -> None:
    """Print and keep orders a second over either way."""

    async def run() -> dict[str, float]:
        async with simulator(exchange) as line:
            await over_socket(line, max(100, N_ORDERS // 10))
            return {
                "socket": await over_socket(line, N_ORDERS),
                "rest": await over_rest(line, N_ORDERS),
            }

    with on_core(1):
        rates = uvloop.run(run())
    benchmark.extra_info["orders_per_s"] = rates
    print(f"\n{exchange}:", ", ".join(f"{way} {rate:,.0f} orders/s" for way, rate in rates.items()))
    benchmark.pedantic(lambda: None, rounds=1)


def test_a_line_of_the_ledger(benchmark: Any) -> None:
    """What taking an order down costs the order: it is written out later."""
    w = world()
    order = w.order("a", 1, 1.0, 98.0)
    benchmark.pedantic(
        w.ledger.order, args=(order, True, 0, "ws"), rounds=100, iterations=1000, warmup_rounds=1
    )
