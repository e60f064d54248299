"""Running candidates: in this process, or in others beside it.

An evaluator takes jobs and gives back trials, in any order. `Local` runs them where it is. `Pool`
keeps spawned processes that map the same ticks: one that the system kills is replaced, and what it
was at is run once more, alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final, Protocol

from passivx.backtesting import Trial, Trials
from passivx.data.columns import open_columns
from passivx.data.ticks import Ticks
from passivx.errors import PassivxError
from passivx.optimizer.space import Values

__all__ = ["KILLED", "Evaluator", "Job", "Local", "Pool", "Work"]

# The outcome of a candidate that took its worker with it, twice.
KILLED: Final = "killed"
# So many of these in a row, and it is not the candidates.
_MOST_KILLED: Final = 3

# Jobs travel in parcels of about this much work: a message costs some 50 µs of the one process that
# everything passes through.
_PARCEL_S: Final = 0.010
# A worker holds a parcel beside the one it is at, so that it never waits for the post.
_HELD: Final = 2


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One candidate on rows [first, end) of the ticks; ``limited``: criteria may end it early.

    ``name`` is whatever tells it from others.
    """

    name: Any
    values: Values
    first: int
    end: int
    limited: bool = True


@dataclass(frozen=True, eq=False)
class Work:
    """What all jobs of a session share, but the ticks: the arguments of `Trials`."""

    arguments: Mapping[str, Any]

    def trials(self, ticks: Ticks, limited: bool) -> Trials:
        """Return what runs candidates on those ticks."""
        arguments = dict(self.arguments)
        if not limited:
            arguments |= {"break_on": (), "limits": None}
        return Trials(ticks, **arguments)


class Evaluator(Protocol):
    """Runs jobs. ``free`` says how many more would keep every processor busy."""

    @property
    def free(self) -> int: ...

    def submit(self, job: Job) -> None:
        """Take a job."""

    def results(self) -> list[tuple[Job, Trial]]:
        """Return trials as they are done; waits for one, empty only when no job is left."""

    def close(self) -> list[tuple[Job, Trial]]:
        """Stop at once, and return what was done by then."""


class _Bench:
    """Trials by rows: those of the last few windows are kept ready."""

    def __init__(self, work: Work, ticks: Ticks) -> None:
        self._work = work
        self._ticks = ticks
        self._ready: dict[tuple[int, int, bool], Trials] = {}

    def run(self, job: Job, progress: Any = None) -> Trial:
        where = (job.first, job.end, job.limited)
        if where not in self._ready:
            self._ready.clear()
            ticks = self._ticks[job.first : job.end]
            self._ready[where] = self._work.trials(ticks, job.limited)
        return self._ready[where].run(job.values[None, :], progress)[0]


class Local:
    """Runs one job after the other in this process."""

    def __init__(self, work: Work, ticks: Ticks) -> None:
        self._bench = _Bench(work, ticks)
        self._jobs: deque[Job] = deque()

    @property
    def free(self) -> int:
        """None: there is nothing to gain from working ahead."""
        return 0

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def results(self) -> list[tuple[Job, Trial]]:
        """Run the next job."""
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        return [(job, self._bench.run(job))]

    def close(self) -> list[tuple[Job, Trial]]:
        """Stop."""
        self._jobs.clear()
        return []


@dataclass(eq=False, slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    parcels: deque[dict[int, Job]] = field(default_factory=deque)  # sent, not all back
    began: bool = False


class Pool:
    """Runs jobs in ``n`` processes beside this one, over ticks mapped from ``folder``."""

    def __init__(self, work: Work, folder: Path, n: int) -> None:
        self._work, self._folder = work, folder
        self._queue: deque[tuple[int, Job]] = deque()
        self._suspects: deque[tuple[int, Job]] = deque()
        self._done: list[tuple[Job, Trial]] = []
        self._number = 0
        self._job_s = _PARCEL_S
        self._killed_in_a_row = 0
        self._workers: list[_Worker] = []
        try:
            for _ in range(n):
                self._workers.append(self._start())
            while not all(worker.began for worker in self._workers):
                self._listen()
        except BaseException:
            self.close()
            raise

    @property
    def free(self) -> int:
        """How many more jobs would keep every worker busy."""
        held = sum(len(parcel) for worker in self._workers for parcel in worker.parcels)
        waiting = len(self._queue) + len(self._suspects)
        return max(0, _HELD * len(self._workers) * self._parcel_size - held - waiting)

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._queue.append((self._number, job))
        self._number += 1

    def results(self) -> list[tuple[Job, Trial]]:
        """Return trials as they are done; waits for one, empty only when no job is left."""
        while not self._done:
            self._post()
            if not any(worker.parcels for worker in self._workers):
                return []
            self._listen()
        self._post()
        done, self._done = self._done, []
        return done

    def close(self) -> list[tuple[Job, Trial]]:
        """Kill the workers, and return what they had sent by then."""
        for worker in self._workers:
            # A message that an interrupt cut in two is lost: its candidates run again.
            with contextlib.suppress(Exception):
                while worker.pipe.poll():
                    self._take(worker, worker.pipe.recv())
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []
        done, self._done = self._done, []
        return done

    @property
    def pids(self) -> list[int]:
        """The processes at work."""
        return [worker.process.pid or 0 for worker in self._workers]

    @property
    def _parcel_size(self) -> int:
        return max(1, min(64, int(_PARCEL_S / self._job_s)))

    def _start(self) -> _Worker:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, self._work, self._folder), daemon=True
        )
        with _no_interrupt():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _post(self) -> None:
        # Fewest parcels first, so that the last jobs of a generation are spread evenly.
        share = -(-len(self._queue) // max(1, len(self._workers)))
        for held in range(_HELD):
            for worker in self._workers:
                if len(worker.parcels) != held:
                    continue
                if self._suspects and not held:
                    parcel = dict([self._suspects.popleft()])
                elif self._queue:
                    size = min(self._parcel_size, share, len(self._queue))
                    parcel = dict(self._queue.popleft() for _ in range(size))
                else:
                    continue
                worker.parcels.append(parcel)
                with contextlib.suppress(OSError):  # dead: its sentinel says so next
                    worker.pipe.send(list(parcel.items()))

    def _listen(self) -> None:
        by_handle: dict[Any, _Worker] = {}
        for worker in self._workers:
            by_handle[worker.pipe] = by_handle[worker.process.sentinel] = worker
        dead = []
        for handle in wait(list(by_handle)):
            worker = by_handle[handle]
            try:
                while worker.pipe.poll():
                    self._take(worker, worker.pipe.recv())
            except (EOFError, OSError):
                dead.append(worker)
            else:
                if handle == worker.process.sentinel:
                    dead.append(worker)
        for worker in {id(worker): worker for worker in dead}.values():
            self._replace(worker)

    def _take(self, worker: _Worker, message: Any) -> None:
        if isinstance(message, BaseException):
            raise message
        worker.began = True
        spent_s, trials = message
        for number, trial in trials:
            job = worker.parcels[0].pop(number)
            if not worker.parcels[0]:
                worker.parcels.popleft()
            self._done.append((job, trial))
            self._killed_in_a_row = 0
        if trials:
            self._job_s += 0.2 * (spent_s / len(trials) - self._job_s)

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        how = worker.process.exitcode
        if not worker.began and how is not None and how >= 0:
            raise PassivxError(
                f"a worker process ended as it began (exit code {how}): a script that optimizes "
                'with several jobs must do so under `if __name__ == "__main__":`, or use jobs=1'
            )
        self._killed_in_a_row += not worker.began
        held = [item for parcel in worker.parcels for item in parcel.items()]
        if held:
            # Parcels are worked off in order: the first job not back is the one it was at.
            (number, job), *rest = held
            if number < 0:
                self._done.append((job, Trial(KILLED, {})))
                self._killed_in_a_row += 1
            else:
                self._suspects.append((-1 - number, job))
            self._queue.extendleft(reversed(rest))
        if self._killed_in_a_row >= _MOST_KILLED:
            raise PassivxError(
                f"{_MOST_KILLED} candidates in a row took their worker process with them (exit "
                f"code {how}): is memory short? fewer jobs (-j) need less; --resume goes on"
            )
        self._workers[self._workers.index(worker)] = self._start()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait: a process started meanwhile never sees it, its parent does afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, work: Work, folder: Path) -> None:
    """Serve parcels of jobs until the pipe closes: the whole life of a worker process."""
    # Ctrl-C reaches every process of a terminal: when to stop is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def look_up() -> None:
        if os.getppid() != parent:
            os._exit(0)

    try:
        bench = _Bench(work, open_columns(folder))
        pipe.send((0.0, []))
        while True:
            trials: list[tuple[int, Trial]] = []
            parcel: list[tuple[int, Job]] = pipe.recv()
            began = time.perf_counter()
            for number, job in parcel:
                trials.append((number, bench.run(job, look_up)))
                now = time.perf_counter()
                if now - began > _PARCEL_S / 2 or number == parcel[-1][0]:
                    pipe.send((now - began, trials))
                    trials, began = [], now
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except MemoryError:
        os._exit(1)
    except BaseException as e:
        with contextlib.suppress(OSError):
            pipe.send(e)
