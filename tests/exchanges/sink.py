"""Where the events of a client under test go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from passivx.exchanges.base import Link
from passivx.exchanges.stream import StreamState


class Recorder:
    """A `Sink` that keeps everything in order; `until` waits for something in particular."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """Return what came of one kind, without its name."""
        return [event[1:] for event in self.events if event[0] == name]

    def links(self, state: StreamState) -> set[Link]:
        """Return which links have been in a state."""
        return {link for link, was, _ in self.named("link") if was is state}

    async def until(self, done: Callable[[], object]) -> None:
        """Return once ``done()`` holds; it is looked at after every event."""
        while not done():
            self._changed.clear()
            await self._changed.wait()

    def on_trade(self, trade_id, price, qty, ts_ms, buyer_maker) -> None:
        self._note("trade", trade_id, price, qty, ts_ms, buyer_maker)

    def on_quote(self, bid, bid_qty, ask, ask_qty, ts_ms) -> None:
        self._note("quote", bid, bid_qty, ask, ask_qty, ts_ms)

    def on_mark(self, mark) -> None:
        self._note("mark", mark)

    def on_order(self, order) -> None:
        self._note("order", order)

    def on_fill(self, fill) -> None:
        self._note("fill", fill)

    def on_payment(self, payment) -> None:
        self._note("payment", payment)

    def on_wallet(self, wallet, ts_ms) -> None:
        self._note("wallet", wallet, ts_ms)

    def on_position(self, position, ts_ms) -> None:
        self._note("position", position, ts_ms)

    def on_link(self, link, state, reason) -> None:
        self._note("link", link, state, reason)

    def on_gap(self, link, reason) -> None:
        self._note("gap", link, reason)
