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
from typing import Any, Final

from passivx._core.wire import BybitOrderText
from passivx.clock import Clock
from passivx.exchanges.base import (
    Link,
    NewOrder,
    Order,
    Outcome,
    Reaction,
    Sink,
    number,
)
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import react
from passivx.exchanges.bybit.rest import outcome_of, placed
from passivx.exchanges.bybit.streams import PING, authenticate
from passivx.exchanges.http import Reply, clean
from passivx.exchanges.sending import judged
from passivx.exchanges.stream import Connection, Stream, StreamLimits, StreamState

__all__ = ["TradeSocket"]

# An answer later than this is no answer: the order is looked up instead.
_ANSWER_S: Final = 5.0


class TradeSocket:
    """Places and cancels orders of one symbol."""

    def __init__(
        self,
        url: str,
        *,
        texts: BybitOrderText,
        key: str,
        sign: Callable[[bytes], bytes],
        venue_ms: Callable[[], int],
        stamp_ms: Callable[[], int],
        budget: Budget,
        sink: Sink,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._texts = texts
        self._key, self._sign, self._venue_ms, self._stamp_ms = key, sign, venue_ms, stamp_ms
        self._budget = budget
        self._sink = sink
        self._ids = count(1)
        self.stream = Stream(
            name="bybit orders",
            url=url,
            on_frame=self._on_frame,
            hello=self._hello,
            on_state=self._on_state,
            clock=clock,
            limits=StreamLimits(data_age_s=None),
            heartbeat=PING,
            rng=rng,
        )

    async def _hello(self, connection: Connection) -> None:
        await authenticate(connection, self._key, self._sign, self._venue_ms())

    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now."""
        id = f"p{next(self._ids)}"
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
        return self._sent(id, frame, "create", lambda reply: placed(reply, order, reply.data))

    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""
        id = f"c{next(self._ids)}"
        frame = self._texts.cancel(
            id, self._stamp_ms(), order_id=order.order_id, client_id=order.client_id
        )
        return self._sent(id, frame, "cancel", outcome_of)

    def _sent(
        self, id: str, frame: bytes, window: str, judge: Callable[[Reply], Outcome]
    ) -> Future[Outcome]:
        answer = self.stream.request(id, frame, timeout_s=_ANSWER_S)
        self._budget.charge({window: 1})
        return judged(answer, lambda message: self._judged(message, window, judge))

    def _judged(
        self, message: Mapping[str, Any], window: str, judge: Callable[[Reply], Outcome]
    ) -> Outcome:
        code = int(number(message, "retCode"))
        header = message.get("header")
        if isinstance(header, dict):
            self._count(header, window)
        said = str(message.get("retMsg", ""))
        verdict, reaction = react(200, code, said, on_trade_socket=True)
        if reaction is Reaction.RECREATE:
            # The venue restarts: what is on its way stays valid, what comes next needs a new one.
            self.stream.renew("the venue restarts its order sockets")
        wait_s = 1.0 if reaction is Reaction.BACK_OFF else 0.0
        if wait_s:
            self._budget.back_off(wait_s, window if code == 10006 else "", spare_urgent=True)
        data = {"result": message.get("data"), "time": self._venue_ms()}
        return judge(Reply(verdict, reaction, code, clean(said), wait_s, data))

    def _count(self, header: Mapping[str, Any], window: str) -> None:
        limit, left = (str(header.get(k)) for k in ("X-Bapi-Limit", "X-Bapi-Limit-Status"))
        if limit.isdigit() and left.isdigit():
            self._budget.observe(window, int(limit) - int(left))

    def _on_frame(self, payload: memoryview) -> bool:
        message = wire.decode(payload)
        op = message.get("op")
        if op == "auth":
            self.stream.resolve("auth", message)
        elif op != "pong" and isinstance(id := message.get("reqId"), str):
            self.stream.resolve(id, message)
        return True

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.ORDERS, state, reason)
