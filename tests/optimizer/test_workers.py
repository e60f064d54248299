"""Workers: what they give back is what a single process gives, whoever kills them and whenever."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from passivx import Ticks
from passivx.backtesting import Trial, Trials
from passivx.data.columns import open_columns, write_columns
from passivx.errors import ConfigError, DataError, PassivxError
from passivx.optimizer.workers import KILLED, Evaluator, Job, Local, Pool, Work
from tests.optimizer.test_session import BREAKS, LIMITS, TICKS, settings_of

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="looks at processes in /proc"
)

WINDOWS: Final = ((0, len(TICKS)), (1_000, 4_000), (4_000, 7_777))


def arguments(engine: str = "exact", **more: Any) -> dict[str, Any]:
    """What a session hands to its workers, but the ticks."""
    limits = LIMITS if engine == "exact" else {}
    settings = settings_of(engine=engine, break_on=BREAKS, limits=limits)
    return {
        "settings": settings.base,
        "market": settings.market,
        "names": settings.space.names,
        "starting_balance": 1000.0,
        "engine": engine,
        "break_on": settings.rules,
        "limits": settings.criteria.record() if engine == "exact" else None,
    } | more


def points(n: int, engine: str = "exact", seed: int = 0) -> npt.NDArray[np.float64]:
    space = settings_of(engine=engine).space
    draws = np.random.default_rng(seed).random((n, len(space.names)))
    return space.settle(space.low + (space.high - space.low) * draws)


def jobs_of(n: int, engine: str = "exact", window: tuple[int, int] = WINDOWS[0]) -> list[Job]:
    return [Job(i, point, *window) for i, point in enumerate(points(n, engine))]


def run_all(evaluator: Evaluator, jobs: list[Job]) -> list[Trial]:
    """Run jobs; return their trials in order, each of them once."""
    for job in jobs:
        evaluator.submit(job)
    done: list[tuple[Job, Trial]] = []
    keep_on(evaluator, done)
    return in_order(done, jobs)


def keep_on(evaluator: Evaluator, done: list[tuple[Job, Trial]]) -> None:
    """Collect results into ``done`` until there are none."""
    while got := evaluator.results():
        done += got


def in_order(done: list[tuple[Job, Trial]], jobs: list[Job]) -> list[Trial]:
    assert Counter(id(job) for job, _ in done) == Counter(map(id, jobs))
    trials = {id(job): trial for job, trial in done}
    return [trials[id(job)] for job in jobs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TICKS as columns to be mapped."""
    folder = tmp_path_factory.mktemp("columns")
    write_columns(TICKS, folder)
    return folder


def all_ready(pids: Iterable[int], folder: Path) -> bool:
    """Say whether workers have mapped the ticks: they have begun."""
    ticks = str(folder / "price.npy")
    return all(ticks in Path(f"/proc/{pid}/maps").read_text() for pid in pids)


def state(pid: int) -> str:
    """The state of a process: R runs, S sleeps, Z is dead and not yet waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what is only to be seen by looking."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def gone(pid: int) -> bool:
    """Wait for a process, anybody's child, to end; say whether it has."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)


# --- the same trials ---


@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_a_pool_gives_the_trials_of_a_single_process(folder: Path, engine: str) -> None:
    rng = random.Random(1)
    jobs = [
        Job((i, window, limited), point, *window, limited=limited)
        for i, point in enumerate(points(40, engine))
        for window in WINDOWS
        for limited in (True, False)
    ]
    # Windows in turn, as a session has them, then mixed, which costs but must not matter.
    jobs.sort(key=lambda job: (job.first, job.limited))
    tail = jobs[-60:]
    rng.shuffle(tail)
    jobs[-60:] = tail
    work = Work(arguments(engine))
    want = run_all(Local(work, TICKS), jobs)
    assert len({trial.outcome for trial in want}) > 1
    for job, trial in zip(jobs, want, strict=True):
        assert job.limited or trial.outcome in ("end", "long_liquidation", "shrt_liquidation")
    with closing(Pool(work, folder, 2)) as pool:
        assert len(set(pool.pids)) == 2
        assert run_all(pool, jobs) == want
        assert pool.results() == []
        assert run_all(pool, jobs[:5]) == want[:5]


def test_local_runs_over_mapped_ticks_too(folder: Path) -> None:
    work, jobs = Work(arguments()), jobs_of(10)
    assert run_all(Local(work, open_columns(folder)), jobs) == run_all(Local(work, TICKS), jobs)


def test_local_forgets_what_it_was_not_asked_for() -> None:
    local = Local(Work(arguments()), TICKS)
    for job in jobs_of(3):
        local.submit(job)
    assert len(local.results()) == 1
    assert local.close() == []
    assert local.results() == []


# --- killed workers ---


def test_a_worker_killed_at_any_moment_is_replaced_and_nothing_lost_or_doubled(
    folder: Path,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    work, jobs = Work(arguments()), jobs_of(200)
    want = run_all(Local(work, TICKS), jobs)
    killed: set[int] = set()
    with closing(Pool(work, folder, 2)) as pool:
        # One kill in a round, of one worker or of both: no job is hit twice.
        for both in (False, True, False, True, False, False):
            # One that was killed when it had nothing to do is met at the next job.
            alive = [pid for pid in pool.pids if pid not in killed]
            wait_until(partial(all_ready, alive, folder))
            for job in jobs:
                pool.submit(job)
            done: list[tuple[Job, Trial]] = []
            enough = rng.randrange(100)
            while len(done) < enough:
                done += pool.results()
            time.sleep(rng.uniform(0.0, 0.008))  # somewhere in its work, or between
            for pid in alive if both else alive[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            keep_on(pool, done)
            assert in_order(done, jobs) == want
    assert len(killed) >= 4
    assert all(map(gone, killed))


@dataclass(frozen=True, eq=False)
class Sabotaged(Work):
    """Work in which some candidates kill the process that runs them, as a shortage of memory does.

    ``diary`` gets a line for each candidate that is begun, its first value. Candidates whose first
    value is in ``deadly`` kill every time, those in ``once`` the first time.
    """

    diary: Path
    deadly: frozenset[float] = frozenset()
    once: frozenset[float] = frozenset()

    def trials(self, ticks: Ticks, limited: bool) -> Trials:
        return _Sabotaged(self, super().trials(ticks, limited))

    def begun(self) -> list[float]:
        return [float(line) for line in self.diary.read_text().splitlines()]


class _Sabotaged(Trials):
    def __init__(self, work: Sabotaged, trials: Trials) -> None:
        self._work, self._real = work, trials

    def run(
        self,
        values: npt.NDArray[np.float64],
        progress: Callable[[], object] | None = None,
    ) -> list[Trial]:
        work, out = self._work, []
        for row in values:
            before = work.begun()
            with work.diary.open("a") as file:
                file.write(f"{float(row[0])!r}\n")
            if row[0] in work.deadly or (row[0] in work.once and row[0] not in before):
                os.kill(os.getpid(), signal.SIGKILL)
            out += self._real.run(row[None, :], progress)
        return out


@pytest.fixture
def sabotage(tmp_path: Path) -> Callable[..., Sabotaged]:
    diary = tmp_path / "diary.txt"
    diary.touch()
    return lambda *jobs: Sabotaged(
        arguments(), diary, *(frozenset(job.values[0] for job in each) for each in jobs)
    )


def distinct(n: int) -> list[Job]:
    """Jobs with a first value of their own each."""
    jobs = {job.values[0]: job for job in jobs_of(3 * n)}
    return list(jobs.values())[:n]


def test_candidates_that_kill_their_worker_run_once_more_alone(
    folder: Path, sabotage: Callable[..., Sabotaged]
) -> None:
    jobs = distinct(40)
    twice, once = (11,), (0, 39)
    work = sabotage([jobs[i] for i in twice], [jobs[i] for i in once])
    want = run_all(Local(Work(work.arguments), TICKS), jobs)
    for i in twice:
        want[i] = Trial(KILLED, {})
    with closing(Pool(work, folder, 2)) as pool:
        assert run_all(pool, jobs) == want
        begun = Counter(work.begun())
        assert [begun[jobs[i].values[0]] for i in twice + once] == [2] * 3
        # It goes on as ever.
        assert run_all(pool, jobs[:5]) == want[:5]


def test_when_every_worker_dies_it_is_not_the_candidates(
    folder: Path, sabotage: Callable[..., Sabotaged]
) -> None:
    jobs = distinct(12)
    work = sabotage(jobs)
    with closing(Pool(work, folder, 1)) as pool:
        with pytest.raises(PassivxError, match=r"in a row .*is memory short.*--resume goes on"):
            run_all(pool, jobs)
        assert len(work.begun()) <= 6
        pids = pool.pids
    assert all(map(gone, pids))


# --- interrupts and errors ---


def test_workers_leave_ctrl_c_to_their_parent(folder: Path) -> None:
    work, jobs = Work(arguments()), jobs_of(300)
    want = run_all(Local(work, TICKS), jobs)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with closing(Pool(work, folder, 2)) as pool:
            pids = pool.pids
            for pid in pids:
                os.kill(pid, signal.SIGINT)
            assert run_all(pool, jobs) == want
            assert pool.pids == pids
            for job in jobs:
                pool.submit(job)
            done = pool.results()
            timer = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGINT))

            def interrupted() -> None:
                timer.start()  # on a busy machine it strikes before this returns
                keep_on(pool, done)

            with pytest.raises(KeyboardInterrupt):
                interrupted()
            timer.join()
            done += pool.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert all(map(gone, pids))
    # An interrupt loses at most what was on its way: nothing comes twice, and nothing wrong.
    assert len({id(job) for job, _ in done}) == len(done)
    assert all(trial == want[job.name] for job, trial in done)


def test_closing_returns_what_was_done_by_then(
    folder: Path, sabotage: Callable[..., Sabotaged]
) -> None:
    jobs = distinct(5)
    work = sabotage()
    want = run_all(Local(Work(work.arguments), TICKS), jobs)
    pool = Pool(work, folder, 2)
    pids = pool.pids
    for job in jobs:
        pool.submit(job)
    done = pool.results()
    # Everything that was sent out is done, and every worker waits for more.
    wait_until(lambda: len(work.begun()) >= 4 and {state(pid) for pid in pids} == {"S"})
    left = pool.close()
    assert left
    assert pool.close() == []
    assert all(map(gone, pids))
    done += left
    assert len({job.name for job, _ in done}) == len(done) >= 4
    wanted = dict(zip(map(id, jobs), want, strict=True))
    assert all(trial == wanted[id(job)] for job, trial in done)


def test_errors_of_the_core_come_out_as_themselves(tmp_path: Path) -> None:
    flat = Ticks(np.full(50, 100.0), np.ones(50), TICKS.ts_ms[:50], TICKS.buyer_maker[:50])
    write_columns(flat, tmp_path)
    jobs = jobs_of(3, "compat", (0, 50))
    with pytest.raises(DataError) as alone:
        run_all(Local(Work(arguments("compat")), flat), jobs)
    with closing(Pool(Work(arguments("compat")), tmp_path, 1)) as pool:
        with pytest.raises(DataError) as caught:
            run_all(pool, jobs)
        assert str(caught.value) == str(alone.value)


def test_settings_that_cannot_run_are_named_by_a_worker_too(folder: Path) -> None:
    wrong = arguments(fill="sideways")
    with closing(Pool(Work(wrong), folder, 1)) as pool:
        with pytest.raises(ConfigError) as caught:
            run_all(pool, jobs_of(1))
        assert [problem.field for problem in caught.value.problems] == ["fill"]


def test_ticks_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be mapped"):
        Pool(Work(arguments()), tmp_path, 2)


# --- whole processes ---


SCRIPT: Final = """
import sys
from pathlib import Path
from passivx.optimizer.workers import Pool, Work
from tests.optimizer.test_workers import arguments, jobs_of

if __name__ == "__main__":
    pool = Pool(Work(arguments()), Path(sys.argv[1]), 2)
    if sys.argv[2] == "busy":
        for job in jobs_of(2000):
            pool.submit(job)
        pool.results()
    print(*pool.pids, flush=True)
    while sys.argv[2] == "busy" and pool.results():
        pass
    sys.stdin.read()
"""


def started(script: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, script, *map(str, args)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start SCRIPT; it is over when the test is."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    processes: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        processes.append(started(script, *args))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("what", ["busy", "idle"])
def test_workers_end_by_themselves_when_their_parent_is_killed(
    folder: Path, parent: Callable[..., subprocess.Popen[str]], what: str
) -> None:
    process = parent(folder, what)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    assert all(map(gone, pids))


UNGUARDED: Final = """
import sys
from passivx import optimize
from tests.optimizer.test_session import FEW, settings_of

optimize(FEW, settings_of(), sys.argv[1], jobs=2, resume=bool(sys.argv[2]))
"""


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    processes = [
        started(script, tmp_path / name, resume) for name, resume in (("a", ""), ("b", "yes"))
    ]
    for process in processes:
        _, err = process.communicate(timeout=30)
        assert process.returncode == 1
        last = err.strip().splitlines()[-1]
        assert "a worker process ended as it began (exit code 1)" in last
        assert 'must do so under `if __name__ == "__main__":`' in last
