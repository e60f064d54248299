"""Status and event log on real files: full disks, rotation, other writers, texts of venues."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading

import pytest

from passivx.clock import VirtualClock
from passivx.errors import ConfigError, DataError, Problem
from passivx.live.status import EventHandler, EventLog, StatusFile, printable

CLOCK_MS = 1_700_000_000_000
# Clear, red, "gpj.exe" read from the right, a line of its own, C1, a line separator, half a pair.
NASTY = '\x1b[2J\x1b[31m\u202egpj.exe\r\n{"event":"fake"}\x9b0m\u2028\ud800'


@pytest.fixture
def clock():
    return VirtualClock(CLOCK_MS)


def rows(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- status ---


def test_a_status_says_who_wrote_it_when(tmp_path, clock):
    path = tmp_path / "status.json"
    file = StatusFile(path, clock=clock)
    assert file.write({"state": "trading", "position": {"size": 0.5}, "n": 2**70, "lost": [1e999]})
    clock.advance(2_500)
    status = StatusFile.read(path)
    assert status.values == {
        "state": "trading", "position": {"size": 0.5}, "n": str(2**70), "lost": [None],
    }  # fmt: skip
    assert (status.pid, status.written_ms) == (os.getpid(), CLOCK_MS)
    assert status.age_s(clock) == 2.5
    clock.step_wall(-3_600_000)
    assert status.age_s(clock) == 0.0
    assert json.loads(path.read_text())["schema"] == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no bot has run"),
        (b"", "no whole status"),
        (b'{"schema":1,"pid":1,"wri', "no whole status"),
        (b"[]", "no status of a bot"),
        (b"{}", "no status of a bot"),
        (b'{"schema":1,"pid":"x","written_ms":1}', "no status of a bot"),
        (b'{"schema":0,"pid":1,"written_ms":1}', "another version of passivx"),
    ],
)
def test_what_is_no_status_is_named(tmp_path, content, told):
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        StatusFile.read(path)
    assert caught.value.path == path
    with pytest.raises(DataError, match="cannot be read"):
        StatusFile.read(tmp_path)


def test_a_reader_always_finds_a_whole_one(tmp_path, clock):
    path = tmp_path / "status.json"
    file = StatusFile(path, clock=clock)
    file.write({"n": 0, "same": 0})
    done = threading.Event()

    def write():
        n = 0
        while not done.is_set():
            n += 1
            file.write({"n": n, "padding": "x" * (n % 5000), "same": n})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            values = StatusFile.read(path).values
            assert values["n"] == values["same"]
    finally:
        done.set()
        writer.join()
    assert [each.name for each in tmp_path.iterdir()] == ["status.json"]


def test_a_status_that_cannot_be_written_is_a_problem_and_no_error(tmp_path, clock):
    folder = tmp_path / "logs"
    folder.touch()
    file = StatusFile(folder / "status.json", clock=clock)
    assert not file.write({})
    assert "cannot be written" in file.problem
    folder.unlink()
    assert file.write({})
    assert file.problem == ""


# --- events ---


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "bybit" / "name.log"


@pytest.fixture
def log(path, clock):
    log = EventLog(path, max_bytes=1000, keep=2, clock=clock)
    yield log
    log.close()


def test_an_event_is_a_line(log, path, clock):
    log.write("start", config="a", size=1.5)
    assert not path.exists()
    clock.advance(7)
    log.write("fill", nested={"ids": ("a", "b"), 3: None}, ts_ms=1, event="other")
    log.flush()
    assert rows(path) == [
        {"ts_ms": CLOCK_MS, "event": "start", "config": "a", "size": 1.5},
        {"ts_ms": CLOCK_MS + 7, "event": "fill", "nested": {"ids": ["a", "b"], "3": None}},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_texts_steer_no_terminal_and_make_no_line(log, path):
    log.write(NASTY, text=NASTY, **{"in": [{NASTY: NASTY}]}, error=ValueError(NASTY))
    log.flush()
    content = path.read_bytes()
    assert content.count(b"\n") == 1
    assert content[:-1].decode().isprintable()
    row = rows(path)[0]
    assert row["text"] == row["event"] == row["error"] == printable(NASTY)
    assert "{" in row["text"]
    assert "\x1b" not in row["text"]


def test_letters_of_any_language_stay():
    assert printable("größe 数量 כמות") == "größe 数量 כמות"


def test_what_a_field_cannot_be_written_as_is_its_text_or_is_lost(log, path, clock):
    class Bad:
        def __str__(self):
            raise RuntimeError

    endless: list[object] = []
    endless.append(endless)
    log.write("a", value=Bad())
    assert log.lost == 1
    log._max_bytes = 10_000
    log.write("b", value=endless, big=1 << 90, number=float("nan"), raw=b"\x1b", long="x" * 9999)
    log.flush()
    first, second = rows(path)
    assert (first["event"], first["big"], first["number"]) == ("b", str(1 << 90), None)
    assert len(first["long"]) == 2000
    assert second == {"ts_ms": CLOCK_MS, "event": "log_lost", "lines": 1}


def test_it_is_written_by_itself_when_much_waits(log, path):
    for _ in range(30):
        log.write("x", text="y" * 1990)
    assert not path.exists()
    for _ in range(5):
        log.write("x", text="y" * 1990)
    assert path.exists()


@pytest.mark.parametrize("each_flushed", [True, False])
def test_a_full_file_is_put_away_whole(log, path, each_flushed):
    for n in range(40):
        log.write("x", n=n, text="é" * 30)
        if each_flushed:
            log.flush()
    log.write("x", n=40, text="longer than a file" * 100)
    log.write("x", n=41)
    log.flush()
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["name.log", "name.log.1", "name.log.2"]
    old, newer, now = (path.with_name(name) for name in reversed(names))
    assert old.stat().st_size <= 1000
    got = [row["n"] for file in (old, newer, now) for row in rows(file)]
    assert got == list(range(got[0], 42))
    assert [row["n"] for row in rows(newer)] == [40]


def test_none_is_kept_when_none_is_wanted(path, clock):
    log = EventLog(path, max_bytes=200, keep=0, clock=clock)
    for n in range(20):
        log.write("x", n=n)
    log.close()
    assert [each.name for each in path.parent.iterdir()] == ["name.log"]
    assert rows(path)[-1]["n"] == 19


def test_a_torn_line_stands_alone(log, path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"event":"torn')
    log.write("next")
    log.flush()
    torn, line = path.read_bytes().splitlines()
    assert torn == b'{"event":"torn'
    assert json.loads(line)["event"] == "next"


def test_a_file_that_was_removed_or_put_away_by_others_is_made_anew(log, path):
    log.write("a")
    log.flush()
    path.rename(path.with_name("elsewhere"))
    log.write("b")
    log.flush()
    path.unlink()
    log.write("c")
    log.flush()
    assert [row["event"] for row in rows(path)] == ["c"]
    assert [row["event"] for row in rows(path.with_name("elsewhere"))] == ["a"]


WRITER = """
import sys
from pathlib import Path
from passivx.clock import WallClock
from passivx.live.status import EventLog
log = EventLog(Path(sys.argv[1]), max_bytes=4000, keep=200, clock=WallClock())
for n in range(1000):
    log.write("x", who=sys.argv[2], n=n)
    log.flush()
while log.problem:
    log.flush()
assert log.lost == 0
"""


def test_several_processes_write_one_log_and_nothing_is_lost_or_torn(path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, who]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    files = sorted(
        path.parent.iterdir(), key=lambda each: -int(each.suffix[1:].replace("log", "0"))
    )
    got = [row for file in files for row in rows(file)]
    for who in "ab":
        assert [row["n"] for row in got if row["who"] == who] == list(range(1000))


FULL = """
import resource, sys
from pathlib import Path
from passivx.clock import VirtualClock
from passivx.live.status import EventLog, StatusFile
clock = VirtualClock()
path = Path(sys.argv[1])
log = EventLog(path, max_bytes=10**8, keep=2, clock=clock)
status = StatusFile(path.with_name("status.json"), clock=clock)
assert status.write({"n": 0})
log.write("before", text="x" * 500)
log.flush()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for n in range(10_000):
    log.write("full", n=n, text="x" * 150)
    if n % 100 == 0:
        log.flush()
        clock.advance(1_000)
assert "cannot be written" in log.problem and log.lost > 1000, (log.problem, log.lost)
assert not status.write({"n": 1, "more": ["x" * 1000] * 3})
assert "File too large" in status.problem, status.problem
assert StatusFile.read(path.with_name("status.json")).values == {"n": 0}
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.write("after")
log.flush()
assert log.problem == "", log.problem
print(log.lost)
"""


def test_a_full_disk_raises_nothing_and_is_told_afterwards(path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    got = rows(path)
    kept = [row["n"] for row in got if row["event"] == "full"]
    assert kept == list(range(len(kept)))
    told = [row["lines"] for row in got if row["event"] == "log_lost"]
    assert sum(told) == int(done.stdout) == 10_000 - len(kept)
    assert (got[0]["event"], got[-2]["event"]) == ("before", "after")
    assert {each.name for each in path.parent.iterdir()} == {"name.log", "status.json"}


def test_a_device_that_is_full_is_not_asked_again_at_every_line(path, clock):
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/full")
    log = EventLog(path, max_bytes=1000, keep=1, clock=clock)
    writes = []

    def flush():
        writes.append(1)
        EventLog._flush(log)

    log._flush = flush
    for _ in range(200):
        log.write("x", text="y" * 1990)
    assert len(writes) == 1
    assert "No space left" in log.problem
    clock.advance(1_001)
    log.write("x")
    assert len(writes) == 2
    log.close()


def test_threads_write_while_another_flushes(log, path, clock):
    log._max_bytes = 10**9
    threads = [
        threading.Thread(target=lambda who=who: [log.write("x", who=who, n=n) for n in range(2000)])
        for who in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.flush()
    log.flush()
    got = rows(path)
    for who in range(3):
        assert [row["n"] for row in got if row["who"] == who] == list(range(2000))


@pytest.mark.parametrize("bounds", [{"max_bytes": 0, "keep": 1}, {"max_bytes": 1, "keep": -1}])
def test_bounds_that_cannot_be_are_refused(path, clock, bounds):
    with pytest.raises(ValueError, match="must be > 0 and >= 0"):
        EventLog(path, clock=clock, **bounds)


# --- Python's log ---


@pytest.fixture
def logger(log):
    logger = logging.getLogger("passivx.live.test")
    handler = EventHandler(log)
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logging.getLogger().removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_our_records_are_events_and_others_are_not(log, path, logger):
    # Without the surrogate, which pytest's own record of the log cannot send to its master.
    text = f"cut: {NASTY[:-1]}"
    logger.info("%s", text)
    logger.debug("not at this level")
    logging.getLogger("aiohttp.client").warning("GET https://venue/?signature=abc")
    logging.getLogger("passivxtra").warning("another package")
    log.flush()
    assert rows(path) == [
        {
            "ts_ms": CLOCK_MS,
            "event": "log",
            "level": "INFO",
            "logger": "passivx.live.test",
            "text": printable(text),
        }
    ]


def test_an_error_is_told_by_type_and_place_alone_unless_it_is_ours(log, path, logger):
    for error in (
        ValueError("https://venue/?signature=CANARY"),
        ConfigError([Problem("a", 1, "b")]),
    ):
        try:
            raise error
        except Exception:
            logger.exception("failed")
    log.flush()
    others, ours = rows(path)
    assert b"CANARY" not in path.read_bytes()
    assert others["error"] == "ValueError"
    assert others["trace"][0].startswith(f"{__file__}:")
    assert ours["why"] == "a: b, was 1"


def test_a_format_that_does_not_fit_is_somebody_elses_mistake(log, path, logger):
    # Handed over as a logger does; pytest's own handler would raise.
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 1, "%d %d", (1,), None)
    EventHandler(log).handle(record)
    log.flush()
    assert rows(path)[0]["text"] == "%d %d (TypeError)"
