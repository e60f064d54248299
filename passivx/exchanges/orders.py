"""Order entry over a socket, whichever venue: a frame goes out once, its future always resolves.

It resolves with what the answer says; UNKNOWN when the socket ends or no answer comes in time.
"""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, Generic, TypeVar

from passivx.clock import Clock
from passivx.exchanges.base import Link, NewOrder, Order, Outcome, Reaction, Sink
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import Finding, Reply, obey
from passivx.exchanges.sending import judged
from passivx.exchanges.stream import Connection, Heartbeat, Stream, StreamLimits, StreamState

__all__ = ["OrderEntry"]

log = logging.getLogger(__name__)

Texts = TypeVar("Texts")

# An answer later than this is no answer: the order is looked up instead.
_ANSWER_S: Final = 5.0


class OrderEntry(ABC, Generic[Texts]):
    """Places, amends and cancels orders of one symbol; a venue's own class writes and reads.

    ``texts`` write its frames. ``on_clock`` is called when a time stamp was refused: the venue's
    clock must be looked at.
    """

    # What a message takes of the budget.
    place_costs: ClassVar[Mapping[str, int]]
    amend_costs: ClassVar[Mapping[str, int]]
    cancel_costs: ClassVar[Mapping[str, int]]

    def __init__(
        self,
        url: str,
        *,
        venue: str,
        texts: Texts,
        stamp_ms: Callable[[], int],
        on_clock: Callable[[], None],
        budget: Budget,
        sink: Sink,
        clock: Clock,
        rng: random.Random | None,
        hello: Callable[[Connection], Awaitable[object]] | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._texts = texts
        self._stamp_ms, self._on_clock = stamp_ms, on_clock
        self._budget = budget
        self._sink = sink
        self.stream = Stream(
            name=f"{venue} orders",
            url=url,
            on_frame=self._on_frame,
            hello=hello,
            on_state=self._on_state,
            held_s=lambda: budget.banned_s,
            clock=clock,
            limits=StreamLimits(data_age_s=None),
            heartbeat=heartbeat,
            rng=rng,
        )

    def use(self, texts: Texts) -> None:
        """Write by other rules from now on."""
        self._texts = texts

    @abstractmethod
    def place(self, order: NewOrder) -> Future[Outcome]:
        """Send one order, now.

        Raises
        ------
        ValueError
            If its price or quantity is off the grid, or its id is no plain word; nothing was sent.
        """

    @abstractmethod
    def amend(self, order: Order, *, price: float, qty: float) -> Future[Outcome]:
        """Change price and quantity (the new total), now; raise as `place` does."""

    @abstractmethod
    def cancel(self, order: Order) -> Future[Outcome]:
        """Send one cancel, now."""

    @abstractmethod
    def _on_frame(self, payload: memoryview) -> bool:
        """Resolve what a message answers; see `Stream`."""

    def _sent(
        self,
        id: str,
        frame: bytes,
        costs: Mapping[str, int],
        judge: Callable[[Mapping[str, Any]], Outcome],
    ) -> Future[Outcome]:
        answer = self.stream.request(id, frame, timeout_s=_ANSWER_S)
        self._budget.charge(costs)
        return judged(answer, judge)

    def _obeyed(self, found: Finding, data: Any, *, status: int = 200) -> Reply:
        """Do what an answer asks of the whole client; return it with the time that takes."""
        if found.reaction is Reaction.RESYNC_CLOCK:
            self._on_clock()
        return obey(found, self._budget, status=status).reply(data)

    def _unasked(self, code: object) -> None:
        """Take what is not about one message: a frame could not be read at all, perhaps."""
        log.error("stream=%s told without an id: code=%.20r", self.stream.name, code)
        self._sink.on_gap(Link.ORDERS, f"the venue refused something, code {code!r:.20}")

    def _on_state(self, state: StreamState, reason: str) -> None:
        self._sink.on_link(Link.ORDERS, state, reason)
