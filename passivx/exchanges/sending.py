"""What a client has under way: its streams, and messages whose outcome is awaited."""

from __future__ import annotations

import asyncio
import functools
import logging
from asyncio import Future
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from passivx.errors import BadReplyError
from passivx.exchanges.base import Outcome, Reaction, Verdict
from passivx.exchanges.budget import Budget
from passivx.exchanges.http import clean
from passivx.exchanges.stream import NoReplyError, Stream

__all__ = ["Sending", "judged"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Before a socket that was gone is asked again.
_BACK_OFF_S: Final = 1.0


class Sending:
    """Futures that always resolve to an `Outcome`, and the tasks behind them."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: list[Stream] = []

    def now(
        self, costs: Mapping[str, int], urgent: bool, send: Callable[[], Future[Outcome]]
    ) -> Future[Outcome]:
        """Send one message at once, unless the rate limits hold it or it cannot be written."""
        if wait_s := self._budget.delay_s(costs, urgent=urgent):
            return _known(
                Outcome(
                    Verdict.REJECTED,
                    Reaction.BACK_OFF,
                    text="not sent: held by the rate limits",
                    retry_after_s=wait_s,
                )
            )
        try:
            return send()
        except ValueError as e:
            return _unfit(e)

    def in_batches(
        self,
        orders: Sequence[T],
        most: int,
        *,
        check: Callable[[T], object],
        one: Callable[[T], Coroutine[Any, Any, Outcome]],
        many: Callable[[Sequence[T]], Coroutine[Any, Any, list[Outcome]]],
    ) -> list[Future[Outcome]]:
        """Send orders ``most`` at a time; ``check`` raises ValueError for one that cannot go.

        A batch is one message, so what cannot be written must not be in it.
        """
        results: dict[int, Future[Outcome]] = {}
        fit: list[int] = []
        for i, order in enumerate(orders):
            try:
                check(order)
            except ValueError as e:
                results[i] = _unfit(e)
            else:
                fit.append(i)
        for start in range(0, len(fit), most):
            part = fit[start : start + most]
            if len(part) == 1:
                futures = self.later(one(orders[part[0]]))
            else:
                futures = self.together(many([orders[i] for i in part]), len(part))
            results.update(zip(part, futures, strict=True))
        return [results[i] for i in range(len(orders))]

    def checked(self, write: Callable[[], Coroutine[Any, Any, Outcome]]) -> Future[Outcome]:
        """Send what ``write`` makes in a task of its own, unless it cannot be written."""
        try:
            sending = write()
        except ValueError as e:
            return _unfit(e)
        return self.later(sending)[0]

    def later(self, sending: Coroutine[Any, Any, Outcome]) -> list[Future[Outcome]]:
        """Send one message in a task of its own."""
        return self._started(sending, 1)

    def together(
        self, sending: Coroutine[Any, Any, list[Outcome]], n: int
    ) -> list[Future[Outcome]]:
        """Send one message about ``n`` orders in a task of its own; a future for each order."""
        return self._started(sending, n)

    def _started(
        self, sending: Coroutine[Any, Any, Outcome | list[Outcome]], n: int
    ) -> list[Future[Outcome]]:
        # The coroutine is the task's own: one that is cancelled before it ran is not left behind.
        loop = asyncio.get_running_loop()
        results: list[Future[Outcome]] = [loop.create_future() for _ in range(n)]
        task = loop.create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(_settle, results))
        return results

    @property
    def messages(self) -> tuple[int, int]:
        """Text messages that the streams have sent and heard so far."""
        counts = [stream.counts for stream in self._streams]
        return sum(each.sent for each in counts), sum(each.heard for each in counts)

    async def run(self, streams: Iterable[Stream], *others: Coroutine[Any, Any, None]) -> None:
        """Keep streams up in tasks of their own; return when all are live.

        Raises
        ------
        UnavailableError
            If one of them ends instead.
        """
        self._streams += (started := list(streams))
        for work in (*(stream.run() for stream in started), *others):
            self.aside(work)
        await asyncio.gather(*(stream.wait_live() for stream in started))

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what a callback of a socket must not wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A stream has told its owner that it is closed.
            log.error("a task of the client failed: %s", type(error).__name__)

    async def close(self) -> None:
        """Close the streams, end every task, and leave no future unresolved."""
        for stream in self._streams:
            await stream.close()
        self._streams.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def judged(answer: Future[T], judge: Callable[[T], Outcome]) -> Future[Outcome]:
    """Make the outcome of a message of the answer to it; ``judge`` may raise `BadReplyError`.

    Without an answer it is REJECTED if nothing left this machine, else UNKNOWN.
    """
    result: Future[Outcome] = asyncio.get_running_loop().create_future()

    def answered(reply: Future[T]) -> None:
        if not result.done():
            result.set_result(_outcome(reply, judge))

    answer.add_done_callback(answered)
    return result


def _outcome(reply: Future[T], judge: Callable[[T], Outcome]) -> Outcome:
    if reply.cancelled():
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="given up")
    error = reply.exception()
    if isinstance(error, NoReplyError) and not error.sent:
        return Outcome(
            Verdict.REJECTED,
            Reaction.BACK_OFF,
            text=f"not sent: {error}",
            retry_after_s=_BACK_OFF_S,
        )
    if error is not None:
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text=str(error))
    try:
        return judge(reply.result())
    except BadReplyError as e:
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text=clean(str(e)))
    except Exception as e:
        # Whatever a venue sent, somebody waits for the outcome. Only the type is told, for the text
        # may quote the answer.
        log.error("an answer was not understood: %s", type(e).__name__)
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="answer not understood")


def _known(outcome: Outcome) -> Future[Outcome]:
    result: Future[Outcome] = asyncio.get_running_loop().create_future()
    result.set_result(outcome)
    return result


def _unfit(error: ValueError) -> Future[Outcome]:
    return _known(Outcome(Verdict.REJECTED, Reaction.DROP, text=f"not sent: {error}"))


def _settle(results: list[Future[Outcome]], task: asyncio.Task[Outcome | list[Outcome]]) -> None:
    failed = task.cancelled() or task.exception() is not None
    said = [] if failed else task.result()
    outcomes = [said] if isinstance(said, Outcome) else said
    # Cancelled or failed after it may have left: not known.
    unknown = Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="given up")
    for i, result in enumerate(results):
        if not result.done():
            result.set_result(outcomes[i] if i < len(outcomes) else unknown)
