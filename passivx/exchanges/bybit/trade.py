"""Order entry over Bybit's trade socket: authenticated once, then a frame an order.

An answer says that the venue took the message; what became of the order comes on the private
socket. Every message's future resolves: with the answer, or UNKNOWN when the socket ends or the
answer does not come in time. Nothing is sent twice.
"""

from __future__ import annotations

import logging
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
    whole,
)
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import judge
from passivx.exchanges.bybit.rest import outcome_of, placed, until_reset_s, used_of
from passivx.exchanges.bybit.streams import PING, Login
from passivx.exchanges.http import Reply, clean
from passivx.exchanges.sending import judged
from passivx.exchanges.stream import Connection, Stream, StreamLimits, StreamState

__all__ = ["TradeSocket"]

log = logging.getLogger(__name__)

# An answer later than this is no answer: the order is looked up instead.
_ANSWER_S: Final = 5.0
_BACK_OFF_S: Final = 1.0


class TradeSocket:
    """Places, amends and cancels orders of one symbol.

    ``on_clock`` is called when a time stamp was refused: the venue's clock must be looked at.
    """

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
        self._texts = texts
        self._login, self._stamp_ms, self._on_clock = login, stamp_ms, on_clock
        self._budget = budget
        self._sink = sink
        # The venue refuses an id that it has seen: those of an earlier run are others.
        self._run = f"{clock.time_ms():x}"
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
        await self._login.enter(connection)

    def use(self, texts: BybitOrderText) -> None:
        """Write by other rules from now on."""
        self._texts = texts

    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now.

        Raises
        ------
        ValueError
            If its price or quantity is off the grid, or its id is no plain word; nothing was sent.
        """
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
        return self._sent(id, frame, "create", lambda reply: placed(reply, order, reply.data))

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
        return self._sent(id, frame, "amend", outcome_of)

    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""
        id = self._next_id()
        frame = self._texts.cancel(
            id, self._stamp_ms(), order_id=order.order_id, client_id=order.client_id
        )
        return self._sent(id, frame, "cancel", outcome_of)

    def _next_id(self) -> str:
        return f"{self._run}-{next(self._ids)}"

    def _sent(
        self, id: str, frame: bytes, window: str, make: Callable[[Reply], Outcome]
    ) -> Future[Outcome]:
        answer = self.stream.request(id, frame, timeout_s=_ANSWER_S)
        self._budget.charge({window: 1})
        return judged(answer, lambda message: self._judged(message, window, make))

    def _judged(
        self, message: Mapping[str, Any], window: str, make: Callable[[Reply], Outcome]
    ) -> Outcome:
        header = message.get("header")
        if not isinstance(header, dict):
            header = {}
        if (used := used_of(header)) is not None:
            self._budget.observe(window, used)
        now_ms = self._login.venue_ms()
        found = judge(
            200,
            whole(message, "retCode"),
            str(message.get("retMsg", "")),
            window=window,
            until_reset_s=until_reset_s(header, now_ms),
            on_trade_socket=True,
        )
        wait_s = 0.0
        if found.reaction is Reaction.RECREATE:
            # The venue restarts: what is on its way stays valid, what comes next needs a new one.
            self.stream.renew("the venue restarts its order sockets")
        elif found.reaction is Reaction.RESYNC_CLOCK:
            self._on_clock()
        elif found.reaction is Reaction.BACK_OFF:
            wait_s = found.retry_after_s or _BACK_OFF_S
            self._budget.back_off(wait_s, found.window, spare_urgent=found.spare_urgent)
        data = {"result": message.get("data"), "time": now_ms}
        return make(
            Reply(found.verdict, found.reaction, found.code, clean(found.text), wait_s, data)
        )

    def _on_frame(self, payload: memoryview) -> bool:
        message = wire.decode(payload)
        op, id = message.get("op"), message.get("reqId")
        if op == "auth":
            self.stream.resolve(op, message)
        elif op == "pong":
            return False
        elif isinstance(id, str) and id:
            self.stream.resolve(id, message)
        else:
            # Not about one message: a frame could not be read at all, perhaps.
            code = message.get("retCode")
            log.error("stream=%s told without an id: code=%.20r", self.stream.name, code)
            self._sink.on_gap(Link.ORDERS, f"the venue refused something, code {code!r:.20}")
        return True

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.ORDERS, state, reason)
