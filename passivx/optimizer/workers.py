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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby, starmap
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from passivx.backtesting import Trial, Trials
from passivx.data.columns import open_columns
from passivx.data.ticks import Ticks
from passivx.errors import PassivxError
from passivx.optimizer.space import Values

__all__ = ["KILLED", "Evaluator", "Job", "Local", "Pool", "Work"]

# The outcome of a candidate that took its worker with it, twice.
KILLED: Final = "killed"
# So many deaths for each worker without a result between them, and it is not the candidates.
_MOST_KILLED: Final = 3

# Jobs travel in parcels of about this much work: a message costs some 0.1 ms of the process that
# everything passes through.
_PARCEL_S: Final = 0.010
_MOST_JOBS: Final = 16
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
    """Runs jobs, in whatever order suits it.

    ``idle`` is how many more it could begin at once; None while jobs wait for their turn, and where
    there is nothing to gain from working ahead.
    """

    @property
    def idle(self) -> int | None: ...

    def submit(self, job: Job) -> None:
        """Take a job."""

    def results(self) -> list[tuple[Job, Trial]]:
        """Return trials as they are done; waits for one, empty only when no job is left."""

    def close(self) -> list[tuple[Job, Trial]]:
        """Stop at once, and return what was done by then."""


_Where = tuple[int, int, bool]  # rows and whether limited
_Group = tuple[_Where, Values]  # jobs of one place, shape (n, p)


def _grouped(jobs: Sequence[Job]) -> list[_Group]:
    return [
        (where, np.array([job.values for job in group]))
        for where, group in groupby(jobs, lambda job: (job.first, job.end, job.limited))
    ]


class _Bench:
    """Runs jobs; what it takes to run those of one window is kept ready."""

    def __init__(self, work: Work, ticks: Ticks) -> None:
        self._work = work
        self._ticks = ticks
        self._where: _Where | None = None

    def run(
        self, groups: Sequence[_Group], progress: Callable[[], object] | None = None
    ) -> list[Trial]:
        trials: list[Trial] = []
        for where, values in groups:
            if where != self._where:
                first, end, limited = where
                self._trials = self._work.trials(self._ticks[first:end], limited)
                self._where = where
            trials += self._trials.run(values, progress)
        return trials


class _Pace:
    """How many jobs make a parcel, by how long the last ones took."""

    def __init__(self) -> None:
        self._job_s = _PARCEL_S

    @property
    def n_jobs(self) -> int:
        return max(1, min(_MOST_JOBS, int(_PARCEL_S / self._job_s)))

    def note(self, spent_s: float, n_jobs: int) -> None:
        if n_jobs:
            self._job_s += 0.2 * (spent_s / n_jobs - self._job_s)


class Local:
    """Runs one job after the other in this process."""

    def __init__(self, work: Work, ticks: Ticks) -> None:
        self._bench = _Bench(work, ticks)
        self._jobs: deque[Job] = deque()
        self._pace = _Pace()

    @property
    def idle(self) -> None:
        """None: it only runs while it is waited for."""

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def results(self) -> list[tuple[Job, Trial]]:
        """Run the next few jobs."""
        jobs = [self._jobs.popleft() for _ in range(min(self._pace.n_jobs, len(self._jobs)))]
        began = time.perf_counter()
        trials = self._bench.run(_grouped(jobs))
        self._pace.note(time.perf_counter() - began, len(jobs))
        return list(zip(jobs, trials, strict=True))

    def close(self) -> list[tuple[Job, Trial]]:
        """Stop."""
        self._jobs.clear()
        return []


@dataclass(eq=False, slots=True)
class _Parcel:
    number: int
    jobs: list[Job]
    alone: bool = False  # one that was in a parcel whose worker was killed


@dataclass(eq=False, slots=True)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    parcels: deque[_Parcel] = field(default_factory=deque)  # sent and not back, in turn
    began: bool = False


class Pool:
    """Runs jobs in ``n`` processes beside this one, over ticks mapped from ``folder``."""

    def __init__(self, work: Work, folder: Path, n: int) -> None:
        self._work, self._folder = work, folder
        self._queue: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._done: list[tuple[Job, Trial]] = []
        self._pace = _Pace()
        self._numbers = count()
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
    def pids(self) -> list[int]:
        """The processes at work."""
        return [worker.process.pid or 0 for worker in self._workers]

    @property
    def idle(self) -> int | None:
        """How many workers have nothing to do, when every job is given out."""
        if self._queue or self._suspects:
            return None
        return sum(not worker.parcels for worker in self._workers)

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._queue.append(job)

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
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            # A message that the end cut in two is lost: its candidates run again.
            with contextlib.suppress(Exception):
                while worker.pipe.poll():
                    self._take(worker, worker.pipe.recv())
            worker.pipe.close()
        self._workers = []
        done, self._done = self._done, []
        return done

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._work, self._folder)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        with _no_interrupt():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _post(self) -> None:
        # Those that hold nothing first, so that the last jobs of a generation are spread evenly.
        for held in range(_HELD):
            for worker in self._workers:
                if len(worker.parcels) == held and (parcel := self._next_parcel(held)):
                    worker.parcels.append(parcel)
                    with contextlib.suppress(OSError):  # dead: its sentinel will say so
                        worker.pipe.send((parcel.number, _grouped(parcel.jobs)))

    def _next_parcel(self, held: int) -> _Parcel | None:
        if self._suspects and not held:
            return _Parcel(next(self._numbers), [self._suspects.popleft()], alone=True)
        # Never more than half of a worker's share of what is left: the last ones go singly.
        share = -(-len(self._queue) // (2 * len(self._workers)))
        size = min(share, self._pace.n_jobs)
        if not size:
            return None
        return _Parcel(next(self._numbers), [self._queue.popleft() for _ in range(size)])

    def _listen(self) -> None:
        by_handle: dict[Any, _Worker] = {}
        for worker in self._workers:
            by_handle[worker.pipe] = by_handle[worker.process.sentinel] = worker
        dead: dict[int, _Worker] = {}
        for handle in wait(list(by_handle)):
            worker = by_handle[handle]
            try:
                if handle is worker.pipe:
                    self._take(worker, worker.pipe.recv())
                else:
                    dead[id(worker)] = worker
                    while worker.pipe.poll():  # what it sent before it ended
                        self._take(worker, worker.pipe.recv())
            except (EOFError, OSError):
                dead[id(worker)] = worker
        for worker in dead.values():
            self._replace(worker)

    def _take(self, worker: _Worker, message: Any) -> None:
        if isinstance(message, BaseException):
            raise message
        worker.began = True
        number, spent_s, trials = message
        # An interrupt may have lost the message before: what this one answers, its number says.
        parcel = next((each for each in worker.parcels if each.number == number), None)
        if parcel is not None:
            worker.parcels.remove(parcel)
            self._done += zip(parcel.jobs, starmap(Trial, trials), strict=True)
            self._pace.note(spent_s, len(trials))
            self._killed_in_a_row = 0

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        worker.pipe.close()
        how = worker.process.exitcode
        if not worker.began and how is not None and how >= 0:
            raise PassivxError(
                f"a worker process ended as it began (exit code {how}): a script that optimizes "
                'with several jobs must do so under `if __name__ == "__main__":`, or use jobs=1'
            )
        for at_it, parcel in zip((True, False, False), worker.parcels, strict=False):
            at_it = at_it and worker.began  # else it had not come to any of them
            if at_it and parcel.alone:
                self._done.append((parcel.jobs[0], Trial(KILLED, {})))
            elif at_it or parcel.alone:
                self._suspects.extend(parcel.jobs)
            else:
                self._queue.extendleft(reversed(parcel.jobs))
        # A worker that dies of one candidate is replaced and the search goes on; one after the
        # other dying of whatever they are given is something else.
        self._killed_in_a_row += 1
        if self._killed_in_a_row > _MOST_KILLED * len(self._workers):
            raise PassivxError(
                f"{self._killed_in_a_row} worker processes in a row were killed (exit code {how}): "
                "is memory short? fewer jobs (-j) need less; --resume goes on from here"
            )
        self._workers[self._workers.index(worker)] = self._start()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait: a process started meanwhile never sees it, its parent does afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Started with the first process otherwise, it would let signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, work: Work, folder: Path) -> None:
    """Run parcels of jobs until the pipe closes: the whole life of a worker process."""
    # Ctrl-C reaches every process of a terminal: when to stop is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def look_up() -> None:
        if os.getppid() != parent:  # it was killed: nobody is waiting any more
            os._exit(0)

    try:
        bench = _Bench(work, open_columns(folder))
        pipe.send((-1, 0.0, []))
        while True:
            number, groups = pipe.recv()
            began = time.perf_counter()
            trials = [(trial.outcome, trial.figures) for trial in bench.run(groups, look_up)]
            pipe.send((number, time.perf_counter() - began, trials))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except MemoryError:
        os._exit(1)  # as if the system had killed it
    except BaseException as e:
        with contextlib.suppress(OSError):
            pipe.send(e)
