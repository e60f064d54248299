"""The other side of the live benchmark: a true account, and a venue that keeps out of the way.

A process of its own. REST and all that happens to the account are the simulator's; its websockets
are picows', as lean as those of `latency_venue.py`. Before a shot the simulator has already taken
in the print that reaches the stop level, and all it says of it but the trade has left; what the bot
sends is stamped as it arrives, and acted upon only once the stop is there. So neither is measured.

Again and again: the bot's requote has armed its stop anew; some trades above the level, as in any
market; an echo; the trade at the level. The stop is filled, told, and followed by new closes; then
a trade above the level again.

    python -m benchmarks.live_venue EXCHANGE REQUOTE_MS

Prints one JSON line with the addresses, waits for one on stdin ("go ROUNDS REPEATS"), then prints
the figures.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.latency_venue import keep_to
from passivx._core.calc import floor_to
from passivx.models import load_market, step_parts
from passivx.simulator.app import SYMBOLS, Simulator
from passivx.simulator.gate import Gate
from passivx.simulator.server import Session
from passivx.simulator.venue import OrderType, TimeInForce
from passivx.workspace import find_market
from tests.simulator.worlds import START_MS, quiet_feed

PRICE = 60_000.0
STOP_DISTANCE = 0.02
LEVERAGE = 5
# Wallet and position: all that fits into the budget, so that nothing is left to be bought.
ACCOUNTS = {"binance": (400_000.0, 30.0), "bybit": (5.0, 1_300_000.0)}
TRADE_MARKS = (b'"aggTrade"', b'"publicTrade.')
STOP = re.compile(rb"MARKET|Market")
OPERATION = re.compile(r'"(order\.[a-z]+)"')
# uvloop's timers know whole ms. In so long the bot has dealt with a trade, or with an echo.
PAUSE_S = 0.001
# How long nothing must have come from the bot.
QUIET_S = 0.003
TRADES_BEFORE = 3
PATIENCE_S = 1.0
MOST_MISSES = 20


class Wire:
    """What leaves on one websocket, for the simulator's `Session`; it may be held back."""

    def __init__(self, transport: WSTransport) -> None:
        self.transport = transport
        self.held: list[bytes] | None = None

    def send(self, payload: bytes) -> None:
        if self.held is None:
            self.transport.send(WSMsgType.TEXT, payload)
        else:
            self.held.append(payload)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.transport.disconnect()


class Meter:
    """Brings the bot to where one more trade makes it stop, and times what comes of that."""

    def __init__(self, simulator: Simulator, requote_ms: int) -> None:
        self.requote_ms = requote_ms
        self.venue = venue = simulator.venue
        self.front = simulator.server._front
        self.echo: WSTransport | None = None
        self.back: asyncio.Future[int] | None = None
        self.wires: list[Wire] = []
        self.messages: list[tuple[int, Session, str]] | None = None
        self.heard_s = 0.0
        self.n_trades = venue.trade_id
        step = step_parts(venue.listing.market.price_step)
        level = venue.entry_price * (1.0 - STOP_DISTANCE)
        self.beyond = floor_to(level, step)
        self.calm = floor_to(level * 1.001, step)

    def trade(self, price: float) -> None:
        self.n_trades += 1
        # The tape's own time stands still, so that no funding falls due.
        self.venue.print(self.n_trades, price, 1.0, price < self.calm, START_MS)

    def arrived(self, session: Session, payload: bytes, now_ns: int) -> None:
        """Take a message of the order socket's: act on it, or wait with that for the stop."""
        self.heard_s = time.monotonic()
        text = payload.decode()
        if self.messages is None:
            self.front.message(session, text)
            return
        self.messages.append((now_ns, session, text))
        if STOP.search(payload) and self.back is not None and not self.back.done():
            self.back.set_result(now_ns)

    async def echoed(self) -> int:
        assert self.echo is not None
        await asyncio.sleep(PAUSE_S)
        self.back = asyncio.get_running_loop().create_future()
        start = time.perf_counter_ns()
        self.echo.send(WSMsgType.TEXT, b"x" * 200)
        return await asyncio.wait_for(self.back, 5.0) - start

    async def settled(self) -> None:
        """Wait until the stop is armed, and all that the last one brought about is done."""
        self.trade(self.calm)
        while True:
            heard_s = self.heard_s
            left_ms = self.requote_ms - time.time() * 1e3 % self.requote_ms
            await asyncio.sleep(left_ms / 1e3 + QUIET_S)
            if heard_s == self.heard_s:
                return

    async def shot(self) -> tuple[int, int, list[str]] | None:
        """Return when the first message and the stop came, ns, and what came before the stop."""
        for wire in self.wires:
            wire.held = []
        self.trade(self.beyond)
        last: tuple[Wire, bytes] | None = None
        for wire in self.wires:
            held, wire.held = wire.held or [], None
            for payload in held:
                if any(mark in payload for mark in TRADE_MARKS):
                    last = wire, payload
                else:
                    wire.send(payload)
        assert last is not None
        await asyncio.sleep(PAUSE_S)
        self.messages = []
        self.back = asyncio.get_running_loop().create_future()
        wire, payload = last
        start = time.perf_counter_ns()
        wire.transport.send(WSMsgType.TEXT, payload)
        try:
            stop_ns = await asyncio.wait_for(self.back, PATIENCE_S) - start
        except TimeoutError:
            stop_ns = 0
        messages, self.messages = self.messages, None
        for _, session, text in messages:
            self.front.message(session, text)
        if not stop_ns:
            return None
        before = [_operation(text) for ns, _, text in messages if ns < start + stop_ns]
        return messages[0][0] - start, stop_ns, before

    async def run(self, rounds: int, repeats: int) -> dict[str, Any]:
        figures: dict[str, Any] = {"echo": [], "first": [], "stop": [], "before": {}, "missed": 0}
        for n in range(rounds + 1):
            part: dict[str, list[int]] = {"echo": [], "first": [], "stop": []}
            while len(part["stop"]) < repeats:
                await self.settled()
                for _ in range(TRADES_BEFORE):
                    await asyncio.sleep(PAUSE_S)
                    self.trade(self.calm)
                echo_ns = await self.echoed()
                found = await self.shot()
                if found is None:
                    figures["missed"] += 1
                    if figures["missed"] > MOST_MISSES:
                        raise AssertionError(f"no stop came: {self.venue.open_orders()}")
                    continue
                first_ns, stop_ns, before = found
                for name, ns in (("echo", echo_ns), ("first", first_ns), ("stop", stop_ns)):
                    part[name].append(ns)
                words = ", ".join(before) or "nothing"
                figures["before"][words] = figures["before"].get(words, 0) + 1
            if n:  # the first round warms up
                for name, values in part.items():
                    figures[name].append(values)
        return figures


class Side(WSListener):
    """One websocket: an echo, or one of the venue's."""

    def __init__(self, meter: Meter, path: str) -> None:
        self.meter = meter
        self.path, _, self.query = path.partition("?")
        self.channel = meter.front.accept(self.path, self.query) or ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        if not self.channel:
            self.meter.echo = transport
            return
        wire = Wire(transport)
        if self.channel in ("market", "public"):
            self.meter.wires.append(wire)
        self.session = Session(self.channel, self.path, self.query, cast(Gate, wire))
        self.meter.front.opened(self.session)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now_ns = time.perf_counter_ns()
        if frame.msg_type is not WSMsgType.TEXT:
            return
        if self.channel == "trade":
            self.meter.arrived(self.session, frame.get_payload_as_bytes(), now_ns)
        elif self.channel:
            self.meter.front.message(self.session, frame.get_payload_as_utf8_text())
        elif self.meter.back is not None and not self.meter.back.done():
            self.meter.back.set_result(now_ns)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.channel:
            self.meter.front.closed(self.session)


def _operation(text: str) -> str:
    found = OPERATION.search(text)
    return found[1] if found else text[:40]


async def main(exchange: str, requote_ms: int) -> None:
    loop = asyncio.get_running_loop()
    symbol = SYMBOLS[exchange]
    path = find_market(exchange, symbol, Path())
    assert path is not None
    wallet, size = ACCOUNTS[exchange]
    simulator = Simulator(
        exchange=exchange,
        symbol=symbol,
        market=load_market(path),
        feed=quiet_feed(PRICE),
        wallet=wallet,
        limits=False,
        leverage=LEVERAGE,
    )
    async with simulator:
        await asyncio.sleep(0.01)
        simulator.venue.place(
            client_id="web_1",
            side=1,
            type=OrderType.MARKET,
            tif=TimeInForce.GTC,
            price=0.0,
            qty=size,
            reduce_only=False,
        )
        meter = Meter(simulator, requote_ms)

        def accept(request: WSUpgradeRequest) -> WSListener:
            return Side(meter, request.path.decode())

        sockets = await ws_create_server(accept, "127.0.0.1", 0)
        base = f"ws://127.0.0.1:{sockets.sockets[0].getsockname()[1]}"
        line = simulator.endpoints
        rest = line["rest"].replace("http", "ws")
        line |= {k: v.replace(rest, base) for k, v in line.items() if k.startswith("ws_")}
        print(json.dumps(line | {"echo": f"{base}/echo"}), flush=True)
        _, rounds, repeats = (await loop.run_in_executor(None, sys.stdin.readline)).split()
        figures = await meter.run(int(rounds), int(repeats))
        print(json.dumps(figures), flush=True)
        # Until the bot has ended.
        await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    keep_to(0)
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
