"""Sessions that are killed again and again end with the files of one that never was.

Real processes, kill -9: the main process, its whole group, or a worker first. When it comes is
drawn anew each time, from a seed that a failure shows.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from passivx import Ticks
from passivx.data.synthetic import synthetic_trades
from tests.optimizer.test_session import MARKET, SETTINGS, WILD, contents, save_ticks
from tests.optimizer.test_workers import gone

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes in /proc"
)

# A run takes half a millisecond.
TICKS: Final[Ticks] = synthetic_trades(0, 20_000, profile=WILD)
SESSIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"n_jackrabbit_iterations": 1_200},
    "walk-forward": {"n_jackrabbit_iterations": 400, "walk_forward": "24h/8h/9h"},
}
# How often each session is killed: while it starts, while it searches, and when only its end is
# left to do.
EARLY, SEARCHING, LATE = 3, 6, 3


@dataclass(frozen=True)
class Session:
    """What the command line starts a session from."""

    place: Path

    def start(self, name: str, out: Path, *more: str) -> subprocess.Popen[bytes]:
        """Start it, or go on with it, in a process group of its own."""
        settings = self.place / f"{name}.json"
        command: list[str | Path] = [
            sys.executable, "-m", "passivx", "optimize", settings, "--out", out, "--resume",
            "--ticks", self.place / "ticks.npy", "--market", self.place / "market.json", *more,
        ]  # fmt: skip
        with (self.place / "stderr.txt").open("wb") as err:
            return subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
            )

    def finish(self, name: str, out: Path, *more: str) -> None:
        process = self.start(name, out, *more)
        assert process.wait(60) == 0, (self.place / "stderr.txt").read_text()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    place = tmp_path_factory.mktemp("kill")
    save_ticks(TICKS, place / "ticks.npy")
    (place / "market.json").write_text(json.dumps(asdict(MARKET)))
    for name, changes in SESSIONS.items():
        (place / f"{name}.json").write_text(json.dumps(SETTINGS | changes))
    return Session(place)


def processes_of(leader: int) -> dict[int, bytes]:
    """The processes that a session's leader started, itself included, and what each runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
    return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for what is only to be seen by looking, or for the process to end."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


def kill(process: subprocess.Popen[bytes], how: str) -> None:
    """Kill a session's main process, or all it started at once; nothing of it stays."""
    started = processes_of(process.pid)
    if how == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert all(map(gone, started))
    assert all(map(gone, processes_of(process.pid)))


def kill_a_worker(process: subprocess.Popen[bytes], rng: random.Random) -> bool:
    started = processes_of(process.pid)
    workers = [pid for pid, command in started.items() if b"spawn_main" in command]
    if workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    return bool(workers)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_killed_at_random_moments_ends_as_if_it_never_was(
    session: Session, tmp_path: Path, name: str
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    began = time.monotonic()
    session.finish(name, tmp_path / "whole", "-j", "1")
    alone_s = time.monotonic() - began
    want = contents(tmp_path / "whole")
    assert set(want) >= {"results.jsonl", "best_result.json", "live_config.json"}
    n_lines = want["results.jsonl"].count(b"\n")
    folder = tmp_path / "killed"
    results = folder / "results.jsonl"

    def written() -> int:
        return results.read_bytes().count(b"\n") if results.exists() else 0

    phases = ["early"] * EARLY + ["searching"] * (SEARCHING - 1)
    rng.shuffle(phases)
    kills = worker_kills = 0
    for phase in ["early", "searching", *phases, *["late"] * LATE]:
        process = session.start(name, folder, "-j", "2")
        before = written()
        if before == n_lines and phase == "searching":
            phase = "late"
        if phase == "early":  # before it reads the journal, or while its workers start
            time.sleep(rng.uniform(0.0, 0.6))
        elif phase == "searching":
            more = before + rng.randint(1, n_lines // (SEARCHING + 4))
            wait_for(lambda more=more: written() >= more, process)  # type: ignore[misc]
            if rng.random() < 0.4:
                worker_kills += kill_a_worker(process, rng)
                more += rng.randint(1, 20)
                wait_for(lambda more=more: written() >= more, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 0.01))
        elif before < n_lines:  # when the last result was written
            wait_for(lambda: written() == n_lines, process)
            time.sleep(rng.uniform(0.0, 0.05))
        else:  # when the end is all there is to do
            time.sleep(rng.uniform(0.2, 0.8))
        kills += process.poll() is None
        kill(process, rng.choice(["main", "group"]))
        print(f"{time.monotonic() - began:5.1f} s  {phase:9}  {written()} of {n_lines} lines")
    session.finish(name, folder, "-j", "2")
    got = contents(folder)
    assert ".ahead.jsonl" not in got
    assert not list(folder.glob(".ticks-*"))
    # A file that was being replaced may have left its other half.
    assert {file: text for file, text in got.items() if not file.startswith(".")} == want
    assert kills >= EARLY + SEARCHING + LATE - 2, f"{kills} kills, {alone_s:.1f} s alone"
