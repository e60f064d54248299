"""Order entry over Binance's order socket (ws-fapi): every frame is signed, none is sent twice.

An answer is the engine's: OK means that the order rests, or that it is cancelled. Every message's
future resolves: with the answer, or UNKNOWN when the socket ends or no answer comes in time.
"""

from __future__ import annotations

import logging
import random
from asyncio import Future
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from passivx._core.wire import BinanceOrderText
from passivx.clock import Clock
from passivx.errors import BadReplyError
from passivx.exchanges.base import (
    Link,
    NewOrder,
    Order,
    Outcome,
    Reaction,
    Sink,
    Verdict,
    whole,
)
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.errors import ORDERS_1M, ORDERS_10S, WEIGHT, judge
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import Finding, Reply, clean
from passivx.exchanges.sending import judged
from passivx.exchanges.stream import Stream, StreamLimits, StreamState

__all__ = ["CANCEL_COSTS", "PLACE_COSTS", "OrderSocket"]

log = logging.getLogger(__name__)

PLACE_COSTS: Final = {ORDERS_10S: 1, ORDERS_1M: 1}
CANCEL_COSTS: Final = {WEIGHT: 1}
# An answer later than this is no answer: the order is looked up instead.
_ANSWER_S: Final = 5.0
_BACK_OFF_S: Final = 1.0
_BAN_S: Final = 120.0


class OrderSocket:
    """Places, amends and cancels orders of one symbol.

    ``on_clock`` is called when a time stamp was refused: the venue's clock must be looked at.
    """

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
        self._texts = texts
        self._stamp_ms, self._venue_ms, self._on_clock = stamp_ms, venue_ms, on_clock
        self._budget = budget
        self._sink = sink
        self._ids = count(1)
        self.stream = Stream(
            name="binance orders",
            url=url,
            on_frame=self._on_frame,
            on_state=self._on_state,
            clock=clock,
            limits=StreamLimits(data_age_s=None),
            rng=rng,
        )

    def use(self, texts: BinanceOrderText) -> None:
        """Write by other rules from now on."""
        self._texts = texts

    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now.

        Raises
        ------
        ValueError
            If its price or quantity is off the grid, or its id is no plain word; nothing was sent.
        """
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
        return self._sent(id, frame, PLACE_COSTS, order.client_id)

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
        return self._sent(id, frame, PLACE_COSTS, order.client_id)

    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""
        id = f"c{next(self._ids)}"
        frame = self._texts.cancel(
            id,
            self._stamp_ms(),
            order_id=order.order_id,
            client_id="" if order.order_id else order.client_id,
        )
        return self._sent(id, frame, CANCEL_COSTS, "")

    def _sent(
        self, id: str, frame: bytes, costs: Mapping[str, int], client_id: str
    ) -> Future[Outcome]:
        answer = self.stream.request(id, frame, timeout_s=_ANSWER_S)
        self._budget.charge(costs)
        return judged(answer, lambda message: self._judged(message, client_id))

    def _judged(self, message: Mapping[str, Any], client_id: str) -> Outcome:
        found = self._finding(message)
        wait_s = self._obeyed(found)
        return wire.placed(
            Reply(
                found.verdict,
                found.reaction,
                found.code,
                clean(found.text),
                wait_s,
                message.get("result"),
            ),
            client_id,
        )

    def _finding(self, message: Mapping[str, Any]) -> Finding:
        status = whole(message, "status")
        error = message.get("error")
        if error is None and 200 <= status < 300:
            return Finding(Verdict.OK)
        row = wire.row_of(error, "error")
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

    def _obeyed(self, found: Finding) -> float:
        """Do what the venue asks of the whole client; return how long it must be quiet."""
        if found.reaction is Reaction.RESYNC_CLOCK:
            self._on_clock()
        if found.ban:
            wait_s = found.retry_after_s or _BAN_S
            self._budget.ban(wait_s)
            log.warning("banned by the venue: for_s=%.0f", wait_s)
        elif found.reaction is Reaction.BACK_OFF:
            wait_s = found.retry_after_s or _BACK_OFF_S
            self._budget.back_off(wait_s, found.window, spare_urgent=found.spare_urgent)
        else:
            wait_s = 0.0
        return wait_s

    def _on_frame(self, payload: memoryview) -> bool:
        message = wire.decode(payload)
        self._count(message.get("rateLimits"))
        id = message.get("id")
        if isinstance(id, str):
            self.stream.resolve(id, message)
        else:
            # Not about one message: the key was revoked, or a frame could not be read at all.
            error = message.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            log.error("stream=%s told without an id: code=%r", self.stream.name, code)
            self._sink.on_gap(Link.ORDERS, f"the venue refused something, code {code!r:.20}")
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

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.ORDERS, state, reason)


_WINDOWS: Final = {
    "REQUEST_WEIGHT MINUTE": WEIGHT,
    "ORDERS SECOND": ORDERS_10S,
    "ORDERS MINUTE": ORDERS_1M,
}


def _retry_after_s(data: object, now_ms: int) -> float:
    """Return the seconds to ``error.data.retryAfter``, ms since 1970; 0 when there is none."""
    until = data.get("retryAfter") if isinstance(data, dict) else None
    if isinstance(until, int) and not isinstance(until, bool):
        return min(3 * 86400.0, max(0.0, (until - now_ms) / 1000))
    return 0.0
