"""``passivx run`` as people start it, against a simulated exchange: what it says, how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from passivx.config import load_config
from passivx.workspace import create_workspace
from tests.simulator.process import serving

PATIENCE_S = 15.0
STOP_S = 5.0
CONFIG = "btcusdt_demo"


@dataclass
class Venue:
    """A simulated exchange, and the file that leads to it."""

    row: dict[str, str]
    path: Path

    def orders(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.row['control']}/state", timeout=10) as answer:
            return json.loads(answer.read())["orders"]

    def ledger(self) -> str:
        with urllib.request.urlopen(f"{self.row['control']}/ledger", timeout=10) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def venue(tmp_path_factory) -> Iterator[Venue]:
    with serving("--exchange", "binance", "--synthetic", 7, "--speed", 5) as line:
        path = tmp_path_factory.mktemp("venue") / "sim.json"
        path.touch(0o600)
        path.write_text(line)
        yield Venue(json.loads(line), path)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A workspace with the examples, and locks of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PASSIVX_WORKSPACE", raising=False)
    folder = tmp_path / "ws"
    list(create_workspace(folder))
    return folder


@dataclass
class Ran:
    process: subprocess.Popen[str]
    out: Path

    def said(self) -> str:
        return self.out.read_text()

    def until(self, word: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while word not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end_s, self.said()
            time.sleep(0.02)

    def stop(self, number: int) -> int:
        """Send it a signal, and return its exit code: it may take so long and no longer."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@pytest.fixture
def start(workspace, tmp_path) -> Iterator[Callable[..., Ran]]:
    """Start ``passivx run``; what is still there in the end is killed."""
    with contextlib.ExitStack() as stack:
        n = 0

        def run(*args: object) -> Ran:
            nonlocal n
            n += 1
            out = tmp_path / f"{n}.out"
            file = stack.enter_context(out.open("w"))
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "passivx", "run", *map(str, args),
                     "--workspace", str(workspace)],
                    stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True,
                )
            )  # fmt: skip
            stack.callback(process.kill)
            return Ran(process, out)

        yield run


@pytest.fixture
def refused(run, workspace) -> Callable[..., Any]:
    """Run what must not begin, in this process: no terminal is there."""

    def go(*args: object) -> Any:
        done = run("run", *args, "--workspace", workspace)
        assert "Traceback" not in done.err
        assert not list(workspace.glob("live_state/*/*/journal.db"))
        return done

    return go


def test_the_help_has_an_example_and_says_what_it_is(run):
    done = run("run", "--help")
    assert done.code == 0
    assert "passivx run binance btcusdt_demo --dry-run" in done.out
    assert "can lose all the money" in done.out


# --- what does not begin ---


def test_without_an_account_it_says_what_to_give(refused):
    done = refused("binance", CONFIG)
    assert done.code == 2
    assert "--user" in done.err
    assert "--dry-run" in done.err


def test_an_account_has_its_own_balance(refused, venue):
    done = refused("binance", CONFIG, "--endpoints", venue.path, "--balance", 5)
    assert done.code == 2
    assert "--balance" in done.err


def test_a_config_that_is_not_there(refused):
    done = refused("binance", "no_such_config", "--dry-run")
    assert done.code == 2
    assert "no_such_config" in done.err


def test_another_symbol_than_the_endpoints(refused, workspace, venue):
    folder = workspace / "live_settings" / "binance"
    config = load_config(folder / f"{CONFIG}.json")
    (folder / "eth.json").write_text(config.model_copy(update={"symbol": "ETHUSDT"}).to_json())
    for more in ((), ("--dry-run",)):
        done = refused("binance", "eth", "--endpoints", venue.path, *more)
        assert done.code == 2
        assert "ETHUSDT" in done.err
        assert "BTCUSDT" in done.err


def test_another_exchange_than_the_endpoints(refused, venue):
    done = refused("bybit", "btcusd_demo", "--endpoints", venue.path)
    assert done.code == 2
    assert "binance" in done.err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"exchange": "binance"}', "\0\xff"])
def test_endpoints_that_cannot_be_read(refused, tmp_path, text):
    path = tmp_path / "broken.json"
    path.touch(0o600)
    path.write_text(text)
    done = refused("binance", CONFIG, "--endpoints", path)
    assert done.code == 2
    assert "broken.json" in done.err


def key_file(workspace: Path, text: str = '["CANARYkeyCANARY", "CANARYsecretCANARY"]') -> Path:
    path = workspace / "api_key_secrets" / "binance" / "me.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [("missing", "me.json"), ("open", "chmod 600"), ("link", "link"), ("no key", "JSON list")],
)
def test_a_key_that_cannot_be_used(refused, workspace, how, says):
    path = key_file(workspace)
    if how == "missing":
        path.unlink()
    elif how == "open":
        path.chmod(0o644)
    elif how == "link":
        path.rename(path.with_name("real.json"))
        path.symlink_to("real.json")
    else:
        path.write_text('{"key": "CANARYkeyCANARY"}')
    done = refused("binance", CONFIG, "--user", "me")
    assert done.code == 2
    assert says in done.err
    assert "CANARY" not in done.out + done.err


def test_a_key_that_the_venue_does_not_know(refused, workspace, venue):
    key_file(workspace)
    done = refused("binance", CONFIG, "--user", "me", "--endpoints", venue.path, "--yes")
    assert done.code == 1
    assert "CANARYsecret" not in done.out + done.err


def test_without_a_terminal_nothing_begins_unless_told_to(refused, venue):
    before = venue.ledger()
    done = refused("binance", CONFIG, "--endpoints", venue.path)
    assert done.code == 2
    assert "--yes" in done.err
    # It has shown the worst case all the same, and changed nothing.
    assert "liquidat" in done.out
    asked = venue.ledger()[len(before) :]
    assert '"POST"' not in asked
    assert '"DELETE"' not in asked


# --- what does ---


def test_a_dry_run_says_what_it_is_sends_nothing_and_ends_on_ctrl_c(start, workspace, venue):
    folder = workspace / "live_state" / "binance" / "BTCUSDT-paper"
    folder.mkdir(parents=True)
    failures = [{"ms": 0, "reason": "the disk has burnt"}]
    row = {"schema": 1, "open": True, "failures": failures}
    (folder / "breaker.json").write_text(json.dumps(row))
    args = ("binance", CONFIG, "--dry-run", "--endpoints", venue.path)
    # After too many failures nothing starts.
    held = start(*args)
    assert held.process.wait(PATIENCE_S) == 1
    assert "the disk has burnt" in held.said()
    assert "--reset" in held.said()

    before = venue.ledger()
    bot = start(*args, "--reset", "--balance", "12345")
    bot.until("began")
    assert "DRY RUN" in bot.said()
    assert "No order is sent" in bot.said()
    assert "12345" in bot.said()
    while not (folder / "status.json").exists():
        time.sleep(0.02)
    status = json.loads((folder / "status.json").read_text())
    assert status["dry_run"] is True
    assert abs(status["wallet"] - 12345.0) < 100.0  # it may have traded already
    assert bot.stop(signal.SIGINT) == 0
    assert "stopping" in bot.said()
    assert "Traceback" not in bot.said()
    asked = venue.ledger()[len(before) :]
    assert '"order"' not in asked
    assert "pvx-" not in asked
    assert not (folder / "breaker.json").exists()
    # It can be started again at once.
    again = start(*args)
    again.until("began")
    assert again.stop(signal.SIGTERM) == 0


def test_a_signal_while_it_looks_around_ends_it(start, venue):
    bot = start("binance", CONFIG, "--dry-run", "--endpoints", venue.path)
    time.sleep(0.7)  # wherever it is by then
    assert bot.process.poll() is None
    code = bot.stop(signal.SIGTERM)
    # Before Python has come to it, a signal is the system's.
    assert code in (0, -signal.SIGTERM)
    assert "Traceback" not in bot.said()


def test_one_bot_an_account_and_its_orders_go_when_it_is_stopped(start, venue):
    args = ("binance", CONFIG, "--endpoints", venue.path, "--yes")
    bot = start(*args)
    bot.until("began")
    second = start(*args)
    assert second.process.wait(PATIENCE_S) == 1
    assert f"pid {bot.process.pid}" in second.said()
    assert "stop it first" in second.said()

    def ours() -> list[str]:
        return [o["client_id"] for o in venue.orders() if o["client_id"].startswith("pvx-")]

    end_s = time.monotonic() + PATIENCE_S
    while not ours():
        assert time.monotonic() < end_s, bot.said()
        time.sleep(0.05)
    assert bot.stop(signal.SIGINT) == 0
    assert ours() == []
    assert "Traceback" not in bot.said()
    assert venue.row["secret"] not in bot.said() + second.said()
    # The lock is free: the next one begins where this one ended.
    third = start(*args, "--on-exit", "flatten")
    third.until("began")
    assert third.stop(signal.SIGTERM) == 0
    assert ours() == []
