"""A venue's client on a simulated exchange in a process of its own, started by its command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from passivx._core.calc import ceil_to, floor_to
from passivx.exchanges.base import Fill, Link, MarkPrice, NewOrder, Order, Payment, Rules
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.stream import StreamState
from passivx.exchanges.venues import open_exchange
from passivx.models import Position, step_parts
from tests.simulator.process import serving

PATIENCE_S = 10.0


@dataclass
class Recorder:
    """A sink that keeps everything, and can be asked to wait for something."""

    trades: list[tuple[str, float, float, int, bool]] = field(default_factory=list)
    quotes: list[tuple[float, float]] = field(default_factory=list)
    marks: list[MarkPrice] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    wallets: list[float] = field(default_factory=list)
    positions: list[Position] = field(default_factory=list)
    links: list[tuple[Link, StreamState]] = field(default_factory=list)
    gaps: list[tuple[Link, str]] = field(default_factory=list)

    def on_trade(self, trade_id, price, qty, ts_ms, buyer_maker):
        self.trades.append((trade_id, price, qty, ts_ms, buyer_maker))

    def on_quote(self, bid, bid_qty, ask, ask_qty, ts_ms):
        self.quotes.append((bid, ask))

    def on_mark(self, mark):
        self.marks.append(mark)

    def on_order(self, order):
        self.orders.append(order)

    def on_fill(self, fill):
        self.fills.append(fill)

    def on_payment(self, payment):
        self.payments.append(payment)

    def on_wallet(self, wallet, ts_ms):
        self.wallets.append(wallet)

    def on_position(self, position, ts_ms):
        self.positions.append(position)

    def on_link(self, link, state, reason):
        self.links.append((link, state))

    def on_gap(self, link, reason):
        self.gaps.append((link, reason))

    def states(self, client_id: str) -> list[Order]:
        return [order for order in self.orders if order.client_id == client_id]


async def until(condition: Callable[[], Any], what: str = "") -> Any:
    """Return what a condition says once it holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while not (value := condition()):
        assert loop.time() < end, f"waited for {what or condition}"
        await asyncio.sleep(0.01)
    return value


@dataclass
class Venue:
    """A running simulator: its addresses, and its control port."""

    name: str
    line: dict[str, str]
    path: Path

    async def fault(self, rule: Any) -> list[int]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.line['control']}/fault", json=rule) as response,
        ):
            assert response.status == 200, await response.text()
            return (await response.json())["ids"]

    async def state(self) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.line['control']}/state") as response,
        ):
            return await response.json()

    async def ledger(self, event: str = "") -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.line['control']}/ledger") as response,
        ):
            rows = [json.loads(line) for line in (await response.text()).splitlines()]
        return [row for row in rows if event in ("", row["event"])]

    @asynccontextmanager
    async def client(self, *, listening: bool = True) -> AsyncIterator[tuple[Any, Recorder, Rules]]:
        endpoints, symbol, key = load_endpoints(self.path)
        client = open_exchange(endpoints=endpoints, symbol=symbol, key=key)
        sink = Recorder()
        try:
            rules = await client.rules()
            if listening:
                await client.listen(sink)
                await until(lambda: sink.quotes, "quotes")
            yield client, sink, rules
        finally:
            await client.close()


@pytest.fixture(params=["binance", "bybit"])
def venue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Venue]:
    with serving("--exchange", request.param, "--synthetic", 7, "--speed", 5) as line:
        path = tmp_path / "endpoints.json"
        path.write_text(line)
        yield Venue(request.param, json.loads(line), path)


def order_at(
    rules: Rules, quote: tuple[float, float], side: int, away: float, client_id: str, **changes: Any
) -> NewOrder:
    """Return a smallest order so far (a fraction) behind its own side's best price."""
    market = rules.market
    step = step_parts(market.price_step)
    best = quote[0] if side > 0 else quote[1]
    price = floor_to(best * (1 - away), step) if side > 0 else ceil_to(best * (1 + away), step)
    least = max(market.min_qty, market.qty_step)
    if not market.inverse:
        least = max(least, 1.2 * market.min_cost / min(price, best))
    qty = ceil_to(least, step_parts(market.qty_step))
    return NewOrder(**{"client_id": client_id, "side": side, "price": price, "qty": qty} | changes)
