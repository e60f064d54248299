"""Order entry over Bybit's trade socket: authenticated once, then a frame an order.

An answer says that the venue took the message; what became of the order comes on the private
socket. Every message's future resolves: with the answer, or UNKNOWN when the socket ends or the
answer does not come in time. Nothing is sent twice.
"""

from __future__ import annotations

import random
from asyncio import Future
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, ClassVar

from passivx._core.wire import BybitOrderText
from passivx.clock import Clock
from passivx.exchanges.base import NewOrder, Order, Outcome, Reaction, Sink, decode, whole
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit.errors import judge
from passivx.exchanges.bybit.rest import placed, until_reset_s, used_of
from passivx.exchanges.bybit.streams import PING, Login
from passivx.exchanges.http import Reply
from passivx.exchanges.orders import OrderEntry

__all__ = ["TradeSocket"]


class TradeSocket(OrderEntry[BybitOrderText]):
    """Places, amends and cancels orders of one symbol, as `OrderEntry` says."""

    place_costs: ClassVar[Mapping[str, int]] = {"create": 1}
    amend_costs: ClassVar[Mapping[str, int]] = {"amend": 1}
    cancel_costs: ClassVar[Mapping[str, int]] = {"cancel": 1}

    def __init__(
        self,
        url: str,
        *,
        texts: BybitOrderText,
        login: Login,
        stamp_ms: Callable[[], int],
        on_clock: Callable[[], None],
        budget: Budget,
        sink: Sink,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            url,
            venue="bybit",
            texts=texts,
            stamp_ms=stamp_ms,
            on_clock=on_clock,
            budget=budget,
            sink=sink,
            clock=clock,
            rng=rng,
            hello=login.enter,
            heartbeat=PING,
        )
        self._venue_ms = login.venue_ms
        # The venue refuses an id that it has seen: those of an earlier run are others.
        self._run = f"{clock.time_ms():x}"
        self._ids = count(1)

    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now; see `OrderEntry.place`."""
        id = self._next_id()
        frame = self._texts.place(
            id,
            self._stamp_ms(),
            order.client_id,
            order.side,
            order.price,
            order.qty,
            reduce_only=order.reduce_only,
            at_market=order.at_market,
        )
        return self._sent(
            id, frame, self.place_costs, lambda said: placed(self._reply(said, "create"), order)
        )

    def amend(self, order: Order, *, price: float, qty: float) -> Future[Outcome]:
        """Change price and quantity (the new total), now; raise as `place` does."""
        id = self._next_id()
        frame = self._texts.modify(
            id,
            self._stamp_ms(),
            price,
            qty,
            order_id=order.order_id,
            client_id=order.client_id,
        )
        return self._sent(
            id, frame, self.amend_costs, lambda said: self._reply(said, "amend").outcome()
        )

    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""
        id = self._next_id()
        frame = self._texts.cancel(
            id, self._stamp_ms(), order_id=order.order_id, client_id=order.client_id
        )
        return self._sent(
            id, frame, self.cancel_costs, lambda said: self._reply(said, "cancel").outcome()
        )

    def _next_id(self) -> str:
        return f"{self._run}-{next(self._ids)}"

    def _reply(self, message: Mapping[str, Any], window: str) -> Reply:
        header = message.get("header")
        if not isinstance(header, dict):
            header = {}
        if (used := used_of(header)) is not None:
            self._budget.observe(window, used)
        now_ms = self._venue_ms()
        found = judge(
            200,
            whole(message, "retCode"),
            str(message.get("retMsg", "")),
            window=window,
            until_reset_s=until_reset_s(header, now_ms),
            on_trade_socket=True,
        )
        if found.reaction is Reaction.RECREATE:
            # The venue restarts: what is on its way stays valid, what comes next needs a new one.
            self.stream.renew("the venue restarts its order sockets")
        return self._obeyed(found, {"result": message.get("data"), "time": now_ms})

    def _on_frame(self, payload: memoryview) -> bool:
        message = decode(payload)
        op, id = message.get("op"), message.get("reqId")
        if op == "auth":
            self.stream.resolve(op, message)
        elif op == "pong":
            return False
        elif isinstance(id, str) and id:
            self.stream.resolve(id, message)
        else:
            self._unasked(message.get("retCode"))
        return True
