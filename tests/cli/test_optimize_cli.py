"""`passivx optimize`: what it says, what it leaves behind, and how it can be stopped."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pytest

from passivx import load_config
from passivx.cli import optimize_view
from passivx.optimizer import workers
from tests.cli.conftest import Done
from tests.optimizer.test_session import LIMITS, MARKET, SETTINGS, TICKS, WALK, contents, save_ticks
from tests.optimizer.test_workers import gone

DOCS: Final = Path(__file__).parents[2] / "docs" / "optimize.md"
NAME: Final = SETTINGS["session_name"]
# How long a session may take to stop.
STOP_S: Final = 2.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ticks, market and settings as files; a session of these lasts over half a second."""
    place = tmp_path_factory.mktemp("optimize")
    save_ticks(TICKS, place / "ticks.npy")
    (place / "market.json").write_text(json.dumps(asdict(MARKET)))
    settings = SETTINGS | {"n_jackrabbit_iterations": 1_200, "limits": {"max_drawdown": 0.4}}
    (place / "settings.json").write_text(json.dumps(settings))
    return place


@pytest.fixture
def args(place: Path, tmp_path: Path) -> Callable[..., list[object]]:
    """The arguments of a session in tmp_path / "out", with changes to its settings."""

    def make(*more: object, **changes: Any) -> list[object]:
        path = place / "settings.json"
        if changes:
            settings = {name: value for name, value in (SETTINGS | changes).items()
                        if value is not None}  # fmt: skip
            path = tmp_path / "settings.json"
            path.write_text(json.dumps(settings))
        out = [] if "--workspace" in more else ["--out", tmp_path / "out"]
        return ["optimize", path, "--ticks", place / "ticks.npy", "--market",
                place / "market.json", *out, *more]  # fmt: skip

    return make


@pytest.fixture
def optimize(run: Callable[..., Done], args: Callable[..., list[object]]) -> Callable[..., Done]:
    """Run ``passivx optimize`` in this process, with one job unless told otherwise."""

    def run_it(*more: object, **changes: Any) -> Done:
        jobs = () if "-j" in more else ("-j", "1")
        return run(*args(*jobs, *more, **changes))

    return run_it


# --- what it says ---


def test_help_shows_an_example_and_every_option_of_the_documents(run: Callable[..., Done]) -> None:
    done = run("optimize", "--help")
    assert done.code == 0
    assert "passivx optimize btcusdt_search --ticks" in done.out
    documented = set(re.findall(r"(?<![-\w])(--[a-z][a-z-]*)", DOCS.read_text()))
    contract = {"--jobs", "--ticks", "--market", "--seed", "--iterations", "--resume", "--sampler",
                "--walk-forward", "--out", "--json"}  # fmt: skip
    assert documented > {"--resume", "--walk-forward"}
    for option in documented | contract | {"-j"}:
        assert re.search(rf"(?<![-\w]){option}\b", done.out), option


def test_json_is_one_object_and_nothing_else(optimize: Callable[..., Done], tmp_path: Path) -> None:
    done = optimize("--json", n_jackrabbit_iterations=32)
    assert done.code == 0, done.err
    found = done.json
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    best = json.loads((tmp_path / "out" / "best_result.json").read_text())
    assert found["folder"] == str(tmp_path / "out")
    assert found["n_iterations"] == 32
    assert found["n_evaluated"] == len(lines)
    assert {name: best[name] for name in found["best"]} == found["best"]
    assert found["stability"] == best["stability"]
    assert found["walk_forward"] is None
    assert set(found["parameters"]) == set(SETTINGS["ranges"])


def test_the_report_says_what_came_of_it(optimize: Callable[..., Done], tmp_path: Path) -> None:
    done = optimize(n_jackrabbit_iterations=64, limits=LIMITS)
    assert done.code == 0, done.err
    for words in ("64 iterations", "stability: ", "rejected by: limit:", "grid_spacing",
                  "1 = doing nothing"):  # fmt: skip
        assert words in done.out
    assert "in sample only: --walk-forward shows" in done.err
    assert f"the best one as a config: {tmp_path / 'out' / 'live_config.json'}" in done.err
    assert "\x1b" not in done.out + done.err


def test_figures_out_of_sample_come_first(optimize: Callable[..., Done]) -> None:
    done = optimize("--walk-forward", WALK, n_jackrabbit_iterations=32)
    assert done.code == 0, done.err
    assert "out of sample, one window after the other: gain " in done.out
    header = next(line for line in done.out.splitlines() if "in sample" in line)
    assert header.index("out of sample") < header.index("in sample")
    assert "in sample only" not in done.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limits": {"min_n_trades": 10**6}}, r": limit:min_n_trades rejected most, \d+ of \d+"),
        ({"starting_balance": 1.0}, r"; the best of those left ended at gain 1 with 0 fills"),
    ],
)
def test_finding_nothing_is_no_failure_and_says_why(
    optimize: Callable[..., Done], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    done = optimize(n_jackrabbit_iterations=32, **changes)
    assert done.code == 0, done.err
    assert re.search(f"Nothing profitable met the criteria{said}", done.out)
    assert "live_config.json" not in done.err
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["results.jsonl", "session.json"]
    again = optimize("--json", "--resume", n_jackrabbit_iterations=32, **changes)
    assert again.code == 0
    assert again.json["best"] is None


def test_without_a_terminal_there_is_a_line_now_and_then(
    optimize: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize_view, "_LINE_S", 0.0)
    monkeypatch.setattr(workers, "_PARCEL_S", 1e-12)  # one candidate at a time
    done = optimize("--walk-forward", WALK, n_jackrabbit_iterations=32)
    said = done.err.splitlines()
    assert f"{NAME} · BTCUSDT · 8,000 ticks · exact · jackrabbit · 1 job" in said
    lines = [line for line in said if " · ETA " in line]
    assert len(lines) > 60
    pattern = (
        r"window \d of \d · k \d+ of 32 · m [01]\.\d{4} · run \d+ \([\d,.]+/s\) · "
        r"best (none yet|adg [\d.]+ at k \d+, gain [\d.]+) · rejects .+ · ETA (–|[\d:]+)"
    )
    for line in lines:
        assert re.fullmatch(pattern, line), line
    assert "\x1b" not in done.err


# --- where things are ---


def test_names_are_looked_up_in_the_workspace(
    run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    for folder, name, content in (
        ("backtest_configs", "mine.hjson", SETTINGS | {"n_jackrabbit_iterations": 20}),
        ("markets", "binance_BTCUSDT.json", asdict(MARKET) | {"maker_fee": 0.0001}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(json.dumps(content))
    done = run("optimize", "mine", "--ticks", place / "ticks.npy", "--workspace", tmp_path,
               "-j", "1", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert f"market rules of {tmp_path / 'markets' / 'binance_BTCUSDT.json'}" in done.err
    folder = tmp_path / "backtest_results" / "binance" / "BTCUSDT" / NAME
    assert done.json["folder"] == str(folder)
    assert json.loads((folder / "session.json").read_text())["market"]["maker_fee"] == 0.0001
    wrong = run("optimize", "mien", "--ticks", place / "ticks.npy", "--workspace", tmp_path)
    assert wrong.code == 2
    assert "did you mean mine?" in wrong.err


def test_without_a_market_of_its_own_a_workspace_takes_the_example(
    run: Callable[..., Done], args: Callable[..., list[object]]
) -> None:
    args_ = args("-j", "1", n_jackrabbit_iterations=5)
    at = args_.index("--market")
    del args_[at : at + 2]
    done = run(*args_)
    assert done.code == 0, done.err
    assert "configs/markets/binance_BTCUSDT.json" in done.err


def test_options_go_before_the_file(optimize: Callable[..., Done], tmp_path: Path) -> None:
    done = optimize(
        "--seed", "7", "--iterations", "9", "--sampler", "random", "--engine", "compat",
        "--walk-forward", WALK, "--json", starting_k=100, seed=3, walk_forward="1d/1d/1d",
        start="2024-01-01", end="2024-01-03", n_days=None,
    )  # fmt: skip
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "out" / "session.json").read_text())["settings"]
    assert (settings["seed"], settings["sampler"], settings["engine"]) == (7, "random", "compat")
    assert (settings["starting_k"], settings["n_jackrabbit_iterations"]) == (100, 109)
    assert settings["walk_forward"] == WALK
    assert done.json["n_iterations"] == 9 * done.json["walk_forward"]["n_windows"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_settings_say_which_of_the_ticks(
    optimize: Callable[..., Done], tmp_path: Path, jobs: str
) -> None:
    done = optimize("-j", jobs, n_days=0.25, n_jackrabbit_iterations=5)
    assert "the last 0.25 days of them" in done.err
    ticks = json.loads((tmp_path / "out" / "session.json").read_text())["ticks"]
    assert ticks["last_ts_ms"] == TICKS.ts_ms[-1]
    assert 0 <= ticks["first_ts_ms"] - (TICKS.ts_ms[-1] - 21_600_000) < 600_000


def test_config_check_accepts_both_best_files(
    optimize: Callable[..., Done], run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    best = optimize("--json", n_jackrabbit_iterations=48).json["best"]
    for name in ("best_settings.json", "live_config.json"):
        path = tmp_path / "out" / name
        assert run("config", "check", path).code == 0
        done = run("backtest", path, "--ticks", place / "ticks.npy", "--market",
                   place / "market.json", "--balance", "1000", "--json")  # fmt: skip
        assert done.json["gain"] == best["gain"]
    assert load_config(path).config_name == NAME


# --- what is refused ---


WRONG: Final[dict[str, Any]] = {
    "exchange": "kraken",
    "starting_balance": -1,
    "objective": "luck",
    "walk_forward": "soon",
    "limits": {"max_drwadown": 0.1, "max_loss": "all"},
    "break_on": [["ON: x", "lambda trades, ticks, k: __import__('os')"]],
    "generation": 0,
    "ranges": {"leverage": [9, 2, 1], "grid_spacng": [0, 1, 1]},
    "typo": 1,
}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_everything_wrong_is_said_at_once_and_nothing_written(
    run: Callable[..., Done], args: Callable[..., list[object]], tmp_path: Path, jobs: str
) -> None:
    done = run(*args("-j", jobs, "--workspace", tmp_path / "work", **WRONG))
    assert (done.code, done.out) == (2, "")
    for field in (*WRONG, "limits.max_drwadown", "limits.max_loss", "ranges.leverage",
                  "ranges.grid_spacng"):  # fmt: skip
        assert field in done.err, field
    assert "settings.json: " in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize(
    "more",
    [["--iterations", "0"], ["-j", "0"], ["--seed", "-1"], ["--sampler", "guess"],
     ["--engine", "both"], ["--walk-forward", "30"], ["--ticks", "nowhere.csv"],
     ["--market", "nowhere.json"], ["--tiers", "nowhere.csv"]],
)  # fmt: skip
def test_wrong_options_exit_2_and_write_nothing(
    optimize: Callable[..., Done], tmp_path: Path, more: list[str]
) -> None:
    done = optimize(*more)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"walk_forward": "30/10/10"}, 2, "walk_forward"),
        ({"start": "2031-01-01", "end": "2031-02-01"}, 1, "at least 2 are needed"),
        ({"start": "soon"}, 2, "start"),
    ],
)
def test_settings_that_do_not_fit_the_ticks_leave_no_folder(
    optimize: Callable[..., Done], tmp_path: Path, jobs: str, changes: dict[str, Any], code: int,
    said: str,
) -> None:  # fmt: skip
    done = optimize("-j", jobs, **changes)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not (tmp_path / "out").exists()


def test_funding_is_for_exact_and_is_checked(optimize: Callable[..., Done], tmp_path: Path) -> None:
    rates = tmp_path / "funding.csv"
    rates.write_text(f"ts_ms,rate\n{TICKS.ts_ms[100]},0.0001\n")
    more = ["--funding", rates]
    refused = optimize(*more, "--engine", "compat", n_jackrabbit_iterations=5)
    assert refused.code == 2
    assert "funding" in refused.err
    assert not (tmp_path / "out").exists()
    assert optimize(*more, n_jackrabbit_iterations=5).code == 0
    line = json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])
    assert line["n_fundings"] == 1
    without = optimize("--resume", n_jackrabbit_iterations=5)
    assert without.code == 2
    assert "funding" in without.err


def test_a_folder_with_a_session_is_refused_without_resume(
    optimize: Callable[..., Done], tmp_path: Path
) -> None:
    assert optimize(n_jackrabbit_iterations=10).code == 0
    before = contents(tmp_path / "out")
    done = optimize(n_jackrabbit_iterations=10)
    assert (done.code, done.out) == (1, "")
    assert "holds a session already" in done.err
    assert "--resume goes on with it" in done.err
    assert "Reading ticks" not in done.err
    changed = optimize("--resume", "--seed", "1", n_jackrabbit_iterations=10)
    assert (changed.code, changed.out) == (2, "")
    assert "settings.seed" in changed.err
    assert contents(tmp_path / "out") == before
    assert optimize("--resume", n_jackrabbit_iterations=10).code == 0
    assert contents(tmp_path / "out") == before


def test_a_broken_journal_names_file_and_line(
    spawn: Callable[..., subprocess.CompletedProcess[str]],
    optimize: Callable[..., Done],
    args: Callable[..., list[object]],
    tmp_path: Path,
) -> None:
    optimize(n_jackrabbit_iterations=10)
    results = tmp_path / "out" / "results.jsonl"
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join([*lines[:3], b"{nonsense\n", *lines[4:]]))
    done = spawn(*args("--resume", "-j", "1", n_jackrabbit_iterations=10))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: {results}:4: is no result of a session" in done.stderr
    assert "Traceback" not in done.stderr


# --- as a process: interrupted, short of disk, watched ---


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the session when nothing happens."""
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(
        [sys.executable, "-m", "passivx", "optimize", place / "settings.json", "--ticks",
         place / "ticks.npy", "--market", place / "market.json", "--out", out, "-j", "1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return contents(out)


def start(args: list[object], **kwargs: Any) -> subprocess.Popen[bytes]:
    """Start passivx as a shell would: in a process group of its own, with signals as usual."""

    def usual() -> None:
        # A test run in the background hands down an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if prepare is not None:
            prepare()

    prepare = kwargs.pop("prepare", None)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "passivx", *map(str, args)],
        start_new_session=True, preexec_fn=usual, **(pipes | kwargs),
    )  # fmt: skip


def wait_for_lines(out: Path, n: int, process: subprocess.Popen[bytes]) -> None:
    results = out / "results.jsonl"
    while not results.exists() or results.read_bytes().count(b"\n") < n:
        assert process.poll() is None
        time.sleep(0.001)


def members(leader: int) -> list[int]:
    """The living processes of a session."""
    out = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # no process, or one that has ended meanwhile
            continue
        if entry.name.isdigit() and int(fields[3]) == leader and fields[0] != "Z":
            out.append(int(entry.name))
    return out


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM"])
def test_a_session_that_is_interrupted_stops_at_once_and_can_be_resumed(
    args: Callable[..., list[object]],
    optimize: Callable[..., Done],
    whole: dict[str, bytes],
    tmp_path: Path,
    jobs: str,
    way: str,
) -> None:
    out = tmp_path / "out"
    process = start(args("-j", jobs))
    wait_for_lines(out, 40, process)
    started = members(process.pid)
    assert len(started) >= int(jobs)
    began = time.monotonic()
    if way == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    printed, said = process.communicate(timeout=10)
    assert time.monotonic() - began < STOP_S
    text = said.decode()
    assert (process.returncode, printed) == (130, b""), text
    assert f"every result so far is in {out}: --resume goes on from here" in text
    assert text.endswith("Interrupted.\n")
    assert "Traceback" not in text
    assert all(map(gone, started))
    assert not list(out.glob(".ticks-*"))
    results = (out / "results.jsonl").read_bytes()
    assert results.count(b"\n") >= 40
    assert whole["results.jsonl"].startswith(results)
    done = optimize("--resume")
    assert done.code == 0, done.err
    assert "torn" not in done.err
    assert contents(out) == whole


def test_interrupted_before_anything_was_run_it_leaves_nothing(
    args: Callable[..., list[object]], place: Path, tmp_path: Path
) -> None:
    # Four million trades take a while to read, and no time to write.
    ticks = tmp_path / "ticks.csv.gz"
    header = b"price,qty,timestamp,is_buyer_maker\n"
    block = gzip.compress(b"100.0,1,1700000000000,1\n100.1,1,1700000000000,0\n" * 20_000)
    ticks.write_bytes(gzip.compress(header) + block * 100)
    for jobs in ("1", "2"):
        given = [ticks if arg == place / "ticks.npy" else arg for arg in args("-j", jobs)]
        process = start(given)
        assert process.stderr is not None
        while b"Reading ticks" not in process.stderr.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=10)
        assert process.returncode == 130
        assert said.split() == [b"Interrupted."]
        assert [path.name for path in tmp_path.iterdir()] == ["ticks.csv.gz"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_full_disk_is_said_and_the_session_goes_on_when_there_is_room(
    args: Callable[..., list[object]],
    optimize: Callable[..., Done],
    whole: dict[str, bytes],
    tmp_path: Path,
    jobs: str,
) -> None:
    def no_room() -> None:
        # No file may grow beyond this: the ticks fit, what comes of them does not.
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    process = start(args("-j", jobs), prepare=no_room)
    printed, said = process.communicate(timeout=30)
    out, text = tmp_path / "out", said.decode()
    assert (process.returncode, printed) == (1, b""), text
    assert re.search(r"Error: .*\.jsonl: cannot be written \(.+\); --resume goes on", text), text
    assert "Traceback" not in text
    done = optimize("--resume")
    assert done.code == 0, done.err
    assert contents(out) == whole


class Terminal:
    """A pseudo-terminal with a passivx in its foreground; ``text`` is what it has shown."""

    def __init__(self, args: list[object], columns: int = 100) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = start(
            args, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
            prepare=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=os.environ | {"TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.text = ""

    def read(self, until: Callable[[str], bool]) -> None:
        """Read on until what was shown is enough, or the other side has ended."""
        while not until(self.text):
            assert select.select([self._ours], [], [], 20)[0]
            try:
                piece = os.read(self._ours, 65_536)
            except OSError:  # Linux's end of a terminal
                return
            self.text += piece.decode()

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def finish(self) -> bytes:
        """Wait for the end; return what was printed on stdout."""
        assert self.process.stdout is not None
        self.read(lambda text: False)
        with self.process.stdout:
            printed = self.process.stdout.read()
        self.process.wait(10)
        os.close(self._ours)
        return printed


def plain(text: str) -> str:
    """What a terminal showed, without its colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


def test_a_terminal_shows_where_the_search_is(
    args: Callable[..., list[object]], whole: dict[str, bytes], tmp_path: Path
) -> None:
    terminal = Terminal(args("-j", "1", "--json"))
    printed = terminal.finish()
    assert terminal.process.returncode == 0
    assert json.loads(printed)["best"]["gain"] > 1.0
    shown = plain(terminal.text)
    assert f"{NAME} · BTCUSDT · 8,000 ticks · exact · jackrabbit · 1 job" in shown
    for pattern in (
        r"^k +[\d,]+ of 1,200", r"^m +[01]\.\d{4}", r"^run +[\d,]+ \([\d,.]+/s\)",
        r"^best +adg [\d.]+ at k [\d,]+, gain [\d.]+", r"^rejects +(none|limit:max_drawdown \d+)",
        r"^ETA +\d:\d\d:\d\d",
    ):  # fmt: skip
        assert re.search(pattern, shown, re.MULTILINE), pattern
    # It is gone in the end, and the cursor is back.
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("ETA")
    assert contents(tmp_path / "out") == whole


def test_ctrl_c_typed_at_a_terminal(
    args: Callable[..., list[object]],
    optimize: Callable[..., Done],
    whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    terminal = Terminal(args("-j", "2"))
    terminal.read(lambda text: "ETA" in text)
    began = time.monotonic()
    terminal.type(b"\x03")
    printed = terminal.finish()
    assert time.monotonic() - began < STOP_S
    assert (terminal.process.returncode, printed) == (130, b"")
    shown = plain(terminal.text)
    assert "--resume goes on from here" in shown.replace("\n", "")
    assert "Interrupted." in shown
    assert "Traceback" not in shown
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("ETA")
    assert optimize("--resume").code == 0
    assert contents(tmp_path / "out") == whole
