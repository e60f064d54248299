"""The other side of the latency benchmark: the least a venue can be, so that only clients count.

A process of its own: a picows server (echo, trades, order entry) and a bare HTTP/1.1 responder. It
sends a trade and measures until the last byte of the order that answers it; for the echo until the
same text is back. Both clocks are this process's. Prints one JSON line with the addresses, then
waits for one line on stdin ("go ROUNDS REPEATS"), then prints the figures.

`stay_awake` is for a process a core beside them: a sleeping virtual core adds 40 to 150 µs of
wake-up to whatever is measured, and differently from one to the next. The loops themselves wait in
the kernel, as they do in earnest.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import cast

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

TRADE = (
    '{{"e":"aggTrade","E":{t},"s":"BTCUSDT","a":{id},"p":"60000.{tenth}","q":"0.021","nq":"0.021",'
    '"f":{id},"l":{id},"T":{t},"m":true,"st":1}}'
)
KINDS = ("echo", "ws", "rest")
PAUSE_S = 0.0005


class Meter:
    """Sends one message at a time and times what comes back."""

    def __init__(self) -> None:
        self.back: asyncio.Future[int] | None = None
        self.echo: WSTransport | None = None
        self.market: WSTransport | None = None
        self.ids = 1000

    def arrived(self) -> None:
        if self.back is not None and not self.back.done():
            self.back.set_result(time.perf_counter_ns())

    async def once(self, kind: str) -> int:
        self.ids += 1
        # The last digit of the price tells the client how to answer.
        message = TRADE.format(
            t=int(time.time() * 1000), id=self.ids, tenth={"echo": 0, "ws": 1, "rest": 2}[kind]
        ).encode()
        transport = self.echo if kind == "echo" else self.market
        assert transport is not None
        # Trades do not come in the microsecond after an answer: let the client finish with that.
        await asyncio.sleep(PAUSE_S)
        self.back = asyncio.get_running_loop().create_future()
        start = time.perf_counter_ns()
        transport.send(WSMsgType.TEXT, message)
        return (await asyncio.wait_for(self.back, 5.0)) - start

    async def run(self, rounds: int, repeats: int) -> dict[str, list[list[int]]]:
        figures: dict[str, list[list[int]]] = {kind: [] for kind in KINDS}
        for kind in KINDS:
            for _ in range(repeats):
                await self.once(kind)
        for _ in range(rounds):
            for kind in KINDS:
                figures[kind].append([await self.once(kind) for _ in range(repeats)])
        return figures


class Side(WSListener):
    """One websocket: what it is for is its path."""

    def __init__(self, meter: Meter, path: str) -> None:
        self.meter = meter
        self.path = path

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self.path == "/echo":
            self.meter.echo = transport
        elif self.path.startswith("/market"):
            self.meter.market = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        if self.path == "/echo":
            self.meter.arrived()
            return
        text = frame.get_payload_as_bytes()
        if self.path.startswith("/ws-fapi"):
            self.meter.arrived()
            transport.send(
                WSMsgType.TEXT,
                b'{"id":%s,"status":200,"result":%s}'
                % (json.dumps(json.loads(text)["id"]).encode(), ORDER),
            )
            return
        request = json.loads(text)
        transport.send(WSMsgType.TEXT, json.dumps({"result": None, "id": request["id"]}).encode())
        if self.path.startswith("/public"):
            transport.send(WSMsgType.TEXT, QUOTE)


ORDER = (
    b'{"orderId":1,"symbol":"BTCUSDT","status":"NEW","clientOrderId":"b","price":"1","origQty":"1",'
    b'"executedQty":"0","cumQty":"0","timeInForce":"GTX","type":"LIMIT","reduceOnly":false,'
    b'"side":"BUY","positionSide":"BOTH","updateTime":1}'
)
QUOTE = (
    b'{"e":"bookTicker","u":1,"E":1,"T":1,"s":"BTCUSDT","b":"59999.9","B":"1","a":"60000.3",'
    b'"A":"1"}'
)


class Rest(asyncio.Protocol):
    """HTTP/1.1 as bare as it gets: whole requests in, canned answers out, kept alive."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head = self.held[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.held) < end + 4 + length:
                return
            line = self.held[: self.held.find(b"\r\n")]
            self.held = self.held[end + 4 + length :]
            self.answer(line)

    def answer(self, line: bytes) -> None:
        body = b"{}"
        if b"POST /fapi/v1/order" in line:
            self.meter.arrived()
            body = ORDER
        elif b"/fapi/v1/time" in line:
            body = b'{"serverTime":%d}' % int(time.time() * 1000)
        elif b"listenKey" in line:
            body = b'{"listenKey":"bench"}'
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )


def keep_to(core: int) -> None:
    """Stay on one core: two processes on the same one, or on two, are different measurements."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def stay_awake(core: int) -> None:
    """Spin on a core for as long as nobody else wants it; runs until killed."""
    keep_to(core)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


async def main() -> None:
    loop = asyncio.get_running_loop()
    meter = Meter()

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Side(meter, request.path.decode())

    sockets = await ws_create_server(accept, "127.0.0.1", 0)
    http = await loop.create_server(lambda: Rest(meter), "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (sockets, http)]
    print(json.dumps(ports), flush=True)
    _, rounds, repeats = (await loop.run_in_executor(None, sys.stdin.readline)).split()
    figures = await meter.run(int(rounds), int(repeats))
    print(json.dumps(figures), flush=True)
    # Until the client has closed its side.
    await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    keep_to(0)
    uvloop.run(main())
