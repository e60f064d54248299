"""The eight mistakes that a live bot is most likely to make, put into ours to see them caught.

Each is a change of behaviour in a few lines, undone when its context is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final
from unittest import mock

from passivx.exchanges.base import Order, Outcome, Reaction, Verdict
from passivx.live import core as core_module
from passivx.live import events as ev
from passivx.live.core import Core
from passivx.live.engine import Engine
from passivx.live.events import Now
from passivx.live.orders import Ours

__all__ = ["MISTAKES"]


@contextlib.contextmanager
def resend_on_timeout() -> Iterator[None]:
    """An order without an answer is taken not to be: the grid sends another."""
    answered = Core._answered

    def mistaken(self: Core, event: ev.Answered, now: Now) -> None:
        if not event.cancel and event.outcome.verdict is Verdict.UNKNOWN:
            event = ev.Answered(
                event.client_id, False, Outcome(Verdict.REJECTED, Reaction.BACK_OFF)
            )
            order = self._ours.get(event.client_id)
            if order is not None:
                self._arrived(order)
                self._forget(order)
                self.bot.refused(order.id, False)
                self.bot.ask_for_plan()
                self.wants_moment = True
            return
        answered(self, event, now)

    with _handler(ev.Answered, mistaken):
        yield


@contextlib.contextmanager
def network_error_is_not_found() -> Iterator[None]:
    """A query that fails counts as "there is no such order"."""
    not_read = Core._not_read

    def mistaken(self: Core, event: ev.NotRead, now: Now) -> None:
        order = self._ours.get(event.key) if event.what == "look_up" else None
        if order is None:
            not_read(self, event, now)
            return
        order.asking = False
        order.ask_s = None
        order.not_found = 2
        order.sent_s = min(order.sent_s, now.s - 60.0)
        self._not_found(order, now)

    with _handler(ev.NotRead, mistaken):
        yield


@contextlib.contextmanager
def no_dedupe() -> Iterator[None]:
    """A fill that is told twice is booked twice."""
    book = Core._book

    def mistaken(self: Core, fill: Any, now: Now) -> None:
        self._seen.clear()
        book(self, fill, now)

    with mock.patch.object(Core, "_book", mistaken):
        yield


@contextlib.contextmanager
def whole_quantity_for_leaves() -> Iterator[None]:
    """An order that was filled in part is taken over with all of its quantity."""
    adopt = Core._adopt_order

    def mistaken(self: Core, order: Order, body: Any, now: Now, sent_ms: int) -> None:
        adopt(self, _with(order, filled_qty=0.0), body, now, sent_ms)

    with mock.patch.object(Core, "_adopt_order", mistaken):
        yield


@contextlib.contextmanager
def create_before_cancel() -> Iterator[None]:
    """A cancel counts as done when it is sent."""
    flush = Core._flush

    def mistaken(self: Core, places: list[Ours], cancels: list[Order]) -> None:
        for order in cancels:
            ours = self._ours.get(order.client_id)
            if ours is not None and ours.cancelling:
                ours.cancelling = False
                self.bot.gone(ours.id)
                self.bot.arrived(ours.side, False)
                self.wants_moment = True
        flush(self, places, cancels)

    with mock.patch.object(Core, "_flush", mistaken):
        yield


@contextlib.contextmanager
def ignore_retry_after() -> Iterator[None]:
    """A venue that asks for silence is asked again at once."""
    react = Core._react

    def mistaken(self: Core, order: Ours, outcome: Outcome, now: Now) -> None:
        if outcome.reaction is Reaction.BACK_OFF:
            self.bot.ask_for_plan()
            self.wants_moment = True
            return
        react(self, order, outcome, now)

    with mock.patch.object(Core, "_react", mistaken):
        yield


@contextlib.contextmanager
def journal_after_send() -> Iterator[None]:
    """Orders leave before they are written down."""

    def mistaken(self: Engine, intent: ev.Place) -> None:
        import functools

        for order, answer in zip(intent.orders, self._place(intent.orders), strict=True):
            answer.add_done_callback(functools.partial(self._answered, order.client_id, False))
        now_ms = self._clock.time_ms()

        def write() -> None:
            rows = [
                (now_ms, "intent", order.client_id, body)
                for order, body in zip(intent.orders, intent.bodies, strict=True)
            ]
            with contextlib.suppress(Exception):
                self._journal.write(rows)

        self._clock.call_later(0.3, write)

    with mock.patch.object(Engine, "_send", mistaken):
        yield


@contextlib.contextmanager
def entries_during_stall() -> Iterator[None]:
    """Old market data, and an account that is not known, hold nothing back."""

    def mistaken(self: Core, reduce_only: bool) -> str:
        return "stopping" if self.stopping is not None else self.halted

    with mock.patch.object(Core, "_why_not", mistaken):
        yield


MISTAKES: Final[dict[str, Callable[[], contextlib.AbstractContextManager[None]]]] = {
    each.__name__: each
    for each in (
        resend_on_timeout,
        network_error_is_not_found,
        no_dedupe,
        whole_quantity_for_leaves,
        create_before_cancel,
        ignore_retry_after,
        journal_after_send,
        entries_during_stall,
    )
}


@contextlib.contextmanager
def _handler(event: type, handler: Callable[..., None]) -> Iterator[None]:
    with mock.patch.dict(core_module._HANDLERS, {event: handler}):
        yield


def _with(order: Order, **changes: Any) -> Order:
    from dataclasses import replace

    return replace(order, **changes)
