"""Cancels a bot's orders when the bot is gone, at venues that do not: a process of its own.

The bot starts it, tells it over its stdin what to watch, and from then on sends a byte now and
then. When these stop for too long, or the pipe ends without the word "bye", every order of that bot
is cancelled until the venue lists none, and the watchdog ends. Before that it sends nothing to the
venue. No key is handed over, only the name of the file that holds it.

A watchdog acts once. With it its end of the pipe closes, so that a bot that was only held up finds
`Watchdog.alive` False before it sends another order; it then waits for `stop` and starts anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from passivx.clock import Clock, WallClock, timeout
from passivx.errors import ConfigError, PassivxError, UnavailableError, VenueError
from passivx.exchanges.base import Exchange, Order, Verdict
from passivx.exchanges.endpoints import Endpoints, load_endpoints
from passivx.exchanges.keys import ApiKey, load_key
from passivx.exchanges.venues import open_exchange
from passivx.live.process import harden
from passivx.live.status import EventHandler, EventLog

__all__ = ["Watchdog"]

_BEAT: Final = b"."
_BYE: Final = b"bye"
_READY: Final = b"ready\n"
# Importing the package on a slow machine, and reading the key.
_START_S: Final = 30.0
_END_S: Final = 10.0
_GIVE_UP_S: Final = 600.0
# Until what was cancelled is gone from the list, and what was on its way may have come.
_LOOK_S: Final = 1.0
_MOST_PAUSE_S: Final = 30.0
_LOG_BYTES: Final = 10 << 20
_LOG_KEEP: Final = 5
_INSTANCE: Final = re.compile(r"[A-Za-z0-9]{1,16}")


# --- the bot's side -------------------------------------------------------------------------------


class Watchdog:
    """A bot's watchdog. Call `beat` once a second or so, from where the bot would stop working.

    While it is not ``alive`` the bot sends no order, or starts another one first.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    async def start(
        self,
        *,
        endpoints: Endpoints,
        symbol: str,
        key_file: Path,
        instance: str,
        adopted: Collection[str] = (),
        timeout_s: float,
        log_path: Path,
        give_up_s: float = _GIVE_UP_S,
    ) -> None:
        """Start it and return once it watches. Beats count from then on.

        Parameters
        ----------
        key_file : Path
            A file of keys, or a file of addresses with a key in it (`load_endpoints`).
        instance : str
            The bot's tag: its orders are ``pvx-{e|r|c|s|p}-{instance}-…``.
        adopted : collection of str
            Client ids ``pvx-…`` of earlier instances' orders that this bot has taken over.
        timeout_s : float
            The longest silence, s.
        log_path : Path
            The bot's event log: what the watchdog did is told there.
        give_up_s : float
            How long it tries to cancel, s; it then ends with exit code 1.

        Raises
        ------
        ValueError
            If one of these cannot be, or it runs already.
        PassivxError
            If it does not start; nothing is left running then.
        """
        if self._process is not None and self._process.poll() is None:
            raise ValueError("the watchdog runs already")
        _check(instance, adopted, timeout_s, give_up_s)
        hello = orjson.dumps(
            {
                "endpoints": asdict(endpoints),
                "symbol": symbol,
                "key_file": str(key_file.absolute()),
                "instance": instance,
                "adopted": sorted(adopted),
                "timeout_s": timeout_s,
                "log_path": str(log_path.absolute()),
                "give_up_s": give_up_s,
            }
        )
        # Not asyncio's: that kills what it started when the loop ends, just when this is needed.
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The bot's own may be a pipe that somebody reads to its end.
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # This package, and no module that happens to lie in the folder the bot was started in.
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                answer = await asyncio.to_thread(_greet, process, hello)
            if answer != _READY:
                raise PassivxError(f"the watchdog did not start: {_words(answer)}")
        except BaseException as e:
            _end(process)
            if isinstance(e, TimeoutError):
                raise PassivxError(f"the watchdog did not start within {_START_S:g} s") from None
            raise
        assert process.stdin is not None
        # A watchdog that does not read must not hold up the bot.
        os.set_blocking(process.stdin.fileno(), False)
        self._process = process

    @property
    def alive(self) -> bool:
        """Whether it watches: it runs, and has not begun to cancel."""
        if self._process is None or self._process.poll() is not None:
            return False
        assert self._process.stdin is not None
        pipe = select.poll()
        # Nothing but errors: the other end is closed.
        pipe.register(self._process.stdin, 0)
        return not pipe.poll(0)

    def beat(self) -> None:
        """Tell it that the bot is well."""
        if self.alive:
            self._say(_BEAT)

    async def stop(self, *, wait_s: float = _END_S) -> bool:
        """Say bye, and wait until it has ended; return whether it has.

        One that has begun to cancel is not told, and goes on after ``wait_s``.
        """
        process = self._process
        if process is None:
            return True
        if self.alive:
            self._say(_BYE)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, wait_s)
        if self.alive:
            # It hangs. Left alone it would take the end of this process for a crash.
            process.kill()
            await asyncio.to_thread(process.wait)
        if process.poll() is None:
            return False
        _close(process)
        self._process = None
        return True

    def leave(self) -> None:
        """Go without a word: it cancels what rests, as if the bot had died."""
        if self._process is not None:
            _close(self._process)
            self._process = None

    def _say(self, word: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), word)
        except BlockingIOError:
            # It has not read for an hour and more: nobody is watching.
            self._process.kill()
        except BrokenPipeError:
            # It has begun to cancel, or is gone: `alive` tells.
            pass


def _check(instance: str, adopted: Collection[str], timeout_s: float, give_up_s: float) -> None:
    if not _INSTANCE.fullmatch(instance):
        raise ValueError(f"instance: must be 1 to 16 of A-Z a-z 0-9, was {instance!r:.40}")
    if strange := [each for each in adopted if not each.startswith("pvx-")]:
        raise ValueError(f"adopted: must begin with pvx-, was {strange[0]!r:.40}")
    if not timeout_s > 0.0 or not give_up_s > 0.0:
        raise ValueError(
            f"timeout_s and give_up_s: must be > 0, were {timeout_s!r} and {give_up_s!r}"
        )


def _greet(process: subprocess.Popen[bytes], hello: bytes) -> bytes:
    """Tell it what to watch, and return what it answers; nothing when it is gone."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        rest = memoryview(hello + b"\n")
        while rest:
            rest = rest[process.stdin.write(rest) :]
    return process.stdout.readline()


def _words(answer: bytes) -> str:
    return answer.decode(errors="replace").strip() or "it ended at once"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


# --- the watchdog's side --------------------------------------------------------------------------


class _Task(NamedTuple):
    client: Exchange
    is_ours: Callable[[Order], bool]
    timeout_s: float
    give_up_s: float
    events: EventLog
    instance: str


def _task(hello: bytes, clock: Clock) -> _Task:
    """Read what the bot wants watched, and make ready whatever is needed when it is gone."""
    row: dict[str, Any] = orjson.loads(hello)
    client = open_exchange(
        endpoints=Endpoints(**row["endpoints"]),
        symbol=row["symbol"],
        key=_key_in(Path(row["key_file"])),
        clock=clock,
    )
    adopted = frozenset(row["adopted"])
    own = re.compile(rf"pvx-[ercsp]-{row['instance']}-[A-Za-z0-9]+")

    def is_ours(order: Order) -> bool:
        return order.client_id in adopted or own.fullmatch(order.client_id) is not None

    log_path = Path(row["log_path"])
    events = EventLog(log_path, max_bytes=_LOG_BYTES, keep=_LOG_KEEP, clock=clock)
    return _Task(client, is_ours, row["timeout_s"], row["give_up_s"], events, row["instance"])


def _key_in(path: Path) -> ApiKey:
    try:
        return load_key(path)
    except ConfigError as e:
        problems, source = e.problems, e.source
    with contextlib.suppress(ConfigError):
        if key := load_endpoints(path)[2]:
            return key
    raise ConfigError(problems, source)


def _watch(pipe: int, terminated: int, timeout_s: float, clock: Clock) -> str:
    """Return why it ended: bye, terminated, or what became of the bot: closed, silent.

    ``terminated`` can be read from once somebody asked this process to end.
    """
    heard = b""
    last_s = clock.monotonic_s()
    while True:
        left_s = last_s + timeout_s - clock.monotonic_s()
        # However late it is, what has come meanwhile is looked at first: both may have slept.
        readable, _, _ = select.select([pipe, terminated], [], [], max(0.0, left_s))
        # The pipe before the signal: systemd sends it to what a crashed bot leaves behind.
        if pipe in readable:
            got = os.read(pipe, 1 << 16)
            heard = (heard + got)[-len(_BYE) :]
            if heard == _BYE:
                return "bye"
            if not got:
                return "closed"
            last_s = clock.monotonic_s()
        elif terminated in readable:
            return "terminated"
        elif left_s <= 0.0:
            return "silent"


async def _cancel(task: _Task, clock: Clock) -> bool:
    """Cancel until two looks in a row find none; False when ``give_up_s`` was not enough."""
    events = task.events
    left: set[str] = set()
    seen: set[str] = set()
    problem = "the venue has not answered"
    empty = 0  # looks in a row that found none
    vain = 0  # and that changed nothing
    try:
        async with timeout(clock, task.give_up_s):
            while True:
                try:
                    found, problem, wait_s = await _look(task)
                    empty = empty + 1 if not found else 0
                    if empty == 2:
                        break
                    vain = vain + 1 if found and found == left else 0
                    left = found
                    seen |= found
                except VenueError as e:
                    empty, vain, problem = 0, vain + 1, str(e)
                    # Refused for good is no end: there is nobody else who would ask again.
                    wait_s = e.retry_after_s if isinstance(e, UnavailableError) else _MOST_PAUSE_S
                except Exception as e:
                    # Whatever is wrong here, the orders rest. Its text may quote anything.
                    empty, vain, problem, wait_s = 0, vain + 1, type(e).__name__, 0.0
                events.flush()
                # What does not help is tried less and less often.
                pause_s = min(_LOOK_S * 2.0 ** max(0, min(vain, 10) - 1), _MOST_PAUSE_S)
                await clock.sleep(max(wait_s, pause_s))
    except TimeoutError:
        events.write(
            "watchdog_gave_up",
            instance=task.instance,
            after_s=task.give_up_s,
            may_rest=sorted(left),
            problem=problem,
            remedy="look at the venue, and cancel what is left by hand",
        )
        return False
    finally:
        await task.client.close()
    events.write("watchdog_done", instance=task.instance, orders=sorted(seen))
    return True


async def _look(task: _Task) -> tuple[set[str], str, float]:
    """Cancel what there is; return its ids, what went wrong, and how long to wait at least, s."""
    orders = [order for order in await task.client.open_orders() if task.is_ours(order)]
    outcomes = await asyncio.gather(*task.client.cancel(orders))
    refused = [each for each in outcomes if each.verdict is not Verdict.OK]
    return (
        {order.client_id for order in orders},
        refused[-1].text if refused else "cancelled, and still listed",
        max((each.retry_after_s for each in refused), default=0.0),
    )


def _main() -> int:
    harden()
    # Whoever ends the bot from a terminal means the bot.
    for unwanted in (signal.SIGINT, signal.SIGHUP):
        signal.signal(unwanted, signal.SIG_IGN)
    terminated, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    clock = WallClock()
    pipe, answer = sys.stdin.fileno(), sys.stdout.fileno()
    try:
        task = _task(_hello(pipe), clock)
    except (PassivxError, LookupError, TypeError, ValueError) as e:
        # An error of our own quotes no key; what else it could be is the hello itself.
        text = str(e) if isinstance(e, PassivxError) else f"hello: {type(e).__name__}"
        os.write(answer, text.replace("\n", " ").encode() + b"\n")
        return 2
    os.write(answer, _READY)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, answer)
    why = _watch(pipe, terminated, task.timeout_s, clock)
    if why in ("bye", "terminated"):
        if why == "terminated":
            task.events.write("watchdog_terminated", instance=task.instance)
            task.events.close()
        return 0
    # From here on it cannot be called back: the bot is to notice at its next beat.
    os.dup2(nowhere, pipe)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.getLogger("passivx").addHandler(EventHandler(task.events, logging.WARNING))
    task.events.write("watchdog_fired", instance=task.instance, why=why, timeout_s=task.timeout_s)
    task.events.flush()
    done = asyncio.run(_cancel(task, clock))
    task.events.close()
    return 0 if done else 1


def _hello(pipe: int) -> bytes:
    """Return the first line, read a byte at a time: what follows it are beats."""
    line = bytearray()
    while (got := os.read(pipe, 1)) not in (b"", b"\n"):
        line += got
    return bytes(line)


if __name__ == "__main__":
    sys.exit(_main())
