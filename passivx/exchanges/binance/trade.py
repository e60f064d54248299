"""Order entry over Binance's order socket (ws-fapi): every frame is signed, none is sent twice.

An answer is the engine's: OK means that the order rests, or that it is cancelled. Every message's
future resolves: with the answer, or UNKNOWN when the socket ends or no answer comes in time.
"""

from __future__ import annotations

import random
from asyncio import Future
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, ClassVar, Final

from passivx._core.wire import BinanceOrderText
from passivx.clock import Clock
from passivx.errors import BadReplyError
from passivx.exchanges.base import NewOrder, Order, Outcome, Sink, Verdict, row_of, whole
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.errors import ORDERS_1M, ORDERS_10S, WEIGHT, judge
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import MOST_BAN_S, Finding
from passivx.exchanges.orders import OrderEntry
from passivx.exchanges.stream import Connection

__all__ = ["OrderSocket"]

_CONNECT_WEIGHT: Final = 5


class OrderSocket(OrderEntry[BinanceOrderText]):
    """Places, amends and cancels orders of one symbol, as `OrderEntry` says."""

    place_costs: ClassVar[Mapping[str, int]] = {ORDERS_10S: 1, ORDERS_1M: 1}
    amend_costs: ClassVar[Mapping[str, int]] = place_costs
    cancel_costs: ClassVar[Mapping[str, int]] = {WEIGHT: 1}

    def __init__(
        self,
        url: str,
        *,
        texts: BinanceOrderText,
        stamp_ms: Callable[[], int],
        venue_ms: Callable[[], int],
        on_clock: Callable[[], None],
        budget: Budget,
        sink: Sink,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            url,
            venue="binance",
            texts=texts,
            stamp_ms=stamp_ms,
            on_clock=on_clock,
            budget=budget,
            sink=sink,
            clock=clock,
            rng=rng,
            hello=self._hello,
        )
        self._venue_ms = venue_ms
        self._ids = count(1)

    async def _hello(self, connection: Connection) -> None:
        # Connecting weighs too.
        self._budget.charge({WEIGHT: _CONNECT_WEIGHT})

    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now; see `OrderEntry.place`."""
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
        return self._sent(id, frame, self.place_costs, partial(self._judged, order.client_id))

    def amend(self, order: Order, *, price: float, qty: float) -> Future[Outcome]:
        """Change price and quantity (the new total), now; see `BinanceRest.amend`."""
        id = f"m{next(self._ids)}"
        frame = self._texts.modify(
            id,
            self._stamp_ms(),
            order.side,
            price,
            qty,
            order_id=order.order_id,
            client_id="" if order.order_id else order.client_id,
            reduce_only=order.reduce_only,
        )
        return self._sent(id, frame, self.amend_costs, partial(self._judged, order.client_id))

    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""
        id = f"c{next(self._ids)}"
        frame = self._texts.cancel(
            id,
            self._stamp_ms(),
            order_id=order.order_id,
            client_id="" if order.order_id else order.client_id,
        )
        return self._sent(id, frame, self.cancel_costs, partial(self._judged, ""))

    def _judged(self, client_id: str, message: Mapping[str, Any]) -> Outcome:
        found = self._finding(message)
        reply = self._obeyed(found, message.get("result"), status=whole(message, "status"))
        return wire.placed(reply, client_id)

    def _finding(self, message: Mapping[str, Any]) -> Finding:
        status = whole(message, "status")
        error = message.get("error")
        if error is None and 200 <= status < 300:
            return Finding(Verdict.OK)
        row = row_of(error, "error")
        code = row.get("code")
        if not isinstance(code, int) or isinstance(code, bool):
            raise BadReplyError("error.code: must be a whole number")
        now_ms = self._venue_ms()
        return judge(
            status,
            code,
            str(row.get("msg", "")),
            retry_after_s=_retry_after_s(row.get("data"), now_ms),
            ts_ms=now_ms,
        )

    def _on_frame(self, payload: memoryview) -> bool:
        message = wire.decode(payload)
        self._count(message.get("rateLimits"))
        id = message.get("id")
        if isinstance(id, str):
            self.stream.resolve(id, message)
        else:
            # Such as that the key was revoked.
            error = message.get("error")
            self._unasked(error.get("code") if isinstance(error, dict) else None)
        return True

    def _count(self, limits: object) -> None:
        """Take the venue's counters, which it shares with REST."""
        if not isinstance(limits, list):
            return
        for row in limits:
            if not isinstance(row, dict):
                continue
            window = _WINDOWS.get(f"{row.get('rateLimitType')} {row.get('interval')}")
            used = row.get("count")
            if window is not None and isinstance(used, int):
                self._budget.observe(window, used)


_WINDOWS: Final = {
    "REQUEST_WEIGHT MINUTE": WEIGHT,
    "ORDERS SECOND": ORDERS_10S,
    "ORDERS MINUTE": ORDERS_1M,
}


def _retry_after_s(data: object, now_ms: int) -> float:
    """Return the seconds to ``error.data.retryAfter``, ms since 1970; 0 when there is none."""
    until = data.get("retryAfter") if isinstance(data, dict) else None
    if isinstance(until, int) and not isinstance(until, bool):
        return min(MOST_BAN_S, max(0.0, (until - now_ms) / 1000))
    return 0.0
