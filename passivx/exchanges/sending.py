"""What a client has under way: its streams, and messages whose outcome is awaited."""

from __future__ import annotations

import asyncio
import functools
import logging
from asyncio import Future
from collections.abc import Coroutine, Iterable
from typing import Any

from passivx.exchanges.base import Outcome, Reaction, Verdict
from passivx.exchanges.stream import Stream

__all__ = ["Sending"]

log = logging.getLogger(__name__)


class Sending:
    """Futures that always resolve to an `Outcome`, and the tasks behind them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: list[Stream] = []

    def held(self, wait_s: float) -> Future[Outcome]:
        """Return the outcome of a message that the rate limits do not let go: it was not sent."""
        result: Future[Outcome] = asyncio.get_running_loop().create_future()
        result.set_result(
            Outcome(
                Verdict.REJECTED,
                Reaction.BACK_OFF,
                text="not sent: held by the rate limits",
                retry_after_s=wait_s,
            )
        )
        return result

    def later(self, sending: Coroutine[Any, Any, Outcome]) -> list[Future[Outcome]]:
        """Send one message in a task of its own."""

        async def one() -> list[Outcome]:
            return [await sending]

        return self.together(one(), 1)

    def together(
        self, sending: Coroutine[Any, Any, list[Outcome]], n: int
    ) -> list[Future[Outcome]]:
        """Send one message about ``n`` orders in a task of its own; a future for each order."""
        loop = asyncio.get_running_loop()
        results: list[Future[Outcome]] = [loop.create_future() for _ in range(n)]
        task = loop.create_task(sending)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(functools.partial(_settle, results))
        return results

    async def run(self, streams: Iterable[Stream], *others: Coroutine[Any, Any, None]) -> None:
        """Keep streams up in tasks of their own; return when all are live.

        Raises
        ------
        UnavailableError
            If one of them ends instead.
        """
        loop = asyncio.get_running_loop()
        self._streams += (started := list(streams))
        for work in (*(stream.run() for stream in started), *others):
            task = loop.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        await asyncio.gather(*(stream.wait_live() for stream in started))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The stream has told its owner that it is closed.
            log.error("a connection's task failed: %s", type(error).__name__)

    async def close(self) -> None:
        """Close the streams, end every task, and leave no future unresolved."""
        for stream in self._streams:
            await stream.close()
        self._streams.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _settle(results: list[Future[Outcome]], task: asyncio.Task[list[Outcome]]) -> None:
    failed = task.cancelled() or task.exception() is not None
    outcomes = [] if failed else task.result()
    # Cancelled or failed after it may have left: not known.
    unknown = Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="given up")
    for i, result in enumerate(results):
        if not result.done():
            result.set_result(outcomes[i] if i < len(outcomes) else unknown)
