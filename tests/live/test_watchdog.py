"""The watchdog as a process, beside a bot that is killed and a simulator that has its orders."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from passivx.clock import VirtualClock
from passivx.errors import ConfigError, PassivxError, UnavailableError, VenueError
from passivx.exchanges.base import Order, OrderStatus, Outcome, Verdict
from passivx.exchanges.endpoints import load_endpoints
from passivx.live import watchdog as module
from passivx.live.status import EventLog
from passivx.live.watchdog import Watchdog
from tests.simulator.process import serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

PATIENCE_S = 15.0
# By instance. Foreign by one letter: another instance, a kind that we do not have, a hand's.
FOREIGN = ("pvx-e-{}b-1", "pvx-x-{}-1", "pvx-e-{}-1-2", "xpvx-e-{}-1", "web-{}-7", "{}")
OURS = ("pvx-e-{}-1", "pvx-r-{}-2", "pvx-c-{}-z3", "pvx-s-{}-4", "pvx-p-{}-5")
ADOPTED = "pvx-e-before{}-1"

BOT = """
import asyncio, json, os, signal, sys
from pathlib import Path
from passivx.exchanges.endpoints import load_endpoints
from passivx.live.watchdog import Watchdog

async def main(path, log_path, end):
    endpoints, symbol, _ = load_endpoints(path)
    watchdog = Watchdog()
    await watchdog.start(endpoints=endpoints, symbol=symbol, key_file=path, instance=end,
                         adopted=[f"pvx-e-before{end}-1"], timeout_s=30.0, log_path=log_path)
    print(watchdog._process.pid, flush=True)
    while not os.path.exists("end"):
        assert watchdog.alive
        watchdog.beat()
        await asyncio.sleep(0.02)
    if end == "crash":
        raise RuntimeError("a bug")
    os.kill(os.getpid(), signal.SIGKILL)

signal.signal(signal.SIGINT, signal.SIG_IGN)
if sys.argv[3] == "crash":
    import uvloop
    asyncio.run = uvloop.run
asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""


class Venue:
    """A running simulator, as its control port shows it."""

    def __init__(self, line: str, path: Path) -> None:
        self.row: dict[str, str] = json.loads(line)
        self.path = path
        path.write_text(line)

    def _ask(self, name: str, body: object = None, method: str | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.row['control']}/{name}", data, {"Content-Type": "application/json"},
            method=method,
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def place(self, *client_ids: str) -> None:
        """Rest a buy far below the market under each id, as another client of the account."""
        order = {"do": "ext.order", "side": "buy", "qty": 10, "price": 50_000.0}
        self.fault([order | {"client_id": client_id} for client_id in client_ids])
        assert set(client_ids) <= self.resting()

    def state(self) -> dict[str, Any]:
        return json.loads(self._ask("state"))

    def resting(self) -> set[str]:
        return {order["client_id"] for order in self.state()["orders"]}

    def requests(self) -> int:
        rows = [json.loads(line) for line in self._ask("ledger").splitlines()]
        return sum(row["event"] == "request" for row in rows)

    def fault(self, rules: object) -> None:
        self._ask("fault", rules)

    def heal(self) -> None:
        self._ask("fault", method="DELETE")


@pytest.fixture(scope="module")
def venue(tmp_path_factory) -> Iterator[Venue]:
    with serving("--exchange", "bybit") as line:
        yield Venue(line, tmp_path_factory.mktemp("bybit") / "endpoints.json")


def until(condition) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Wait for a process, anybody's child, to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with contextlib.closing(open(handle, "rb", buffering=0)):  # noqa: PTH123
        return bool(select.select([handle], [], [], PATIENCE_S)[0])


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def started(venue: Venue, tmp_path: Path, instance: str, **changes: Any) -> Watchdog:
    endpoints, symbol, _ = load_endpoints(venue.path)
    dog = Watchdog()
    options = {
        "endpoints": endpoints, "symbol": symbol, "key_file": venue.path, "instance": instance,
        "timeout_s": 30.0, "log_path": tmp_path / "name.log",
    }  # fmt: skip
    await dog.start(**options | changes)
    return dog


# --- a bot that is gone ---


@contextlib.contextmanager
def bot_that_will(end: str, venue: Venue, folder: Path) -> Iterator[tuple[Any, int]]:
    """Start a bot, ``end`` its instance and its end; yield it and its watchdog's process."""
    with (folder / f"{end}.stderr").open("wb") as errors:
        bot = subprocess.Popen(
            [sys.executable, "-c", BOT, venue.path, folder / "logs" / f"{end}.log", end],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            start_new_session=True,
            text=True,
        )
    try:
        yield bot, int(bot.stdout.readline())
    finally:
        bot.kill()
        bot.communicate()


def test_a_bot_that_is_gone_leaves_no_order_and_nobody_elses_is_touched(venue, tmp_path):
    ends = ("kill", "crash")
    foreign = {each.format(end) for each in FOREIGN for end in ends}
    # Not more together than the venue lets one account cancel in a second.
    ours = {
        "kill": {each.format("kill") for each in (*OURS, ADOPTED)},
        "crash": {OURS[0].format("crash")},
    }
    everything = foreign.union(*ours.values())
    venue.place(*everything)
    with (
        bot_that_will("kill", venue, tmp_path) as (killed, first),
        bot_that_will("crash", venue, tmp_path) as (crashing, second),
    ):
        # As long as the bot is well nothing is sent, whatever the terminal says.
        before = venue.requests()
        os.killpg(killed.pid, signal.SIGINT)
        os.kill(first, signal.SIGINT)
        os.kill(first, signal.SIGHUP)
        told = [
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in (first, second)
            for name in ("cmdline", "environ")
        ]
        time.sleep(0.3)
        assert venue.requests() == before
        assert venue.resting() == everything
        (tmp_path / "end").touch()
        assert killed.wait(PATIENCE_S) == -signal.SIGKILL
        assert crashing.wait(PATIENCE_S) == 1
    assert gone(first)
    assert gone(second)
    assert venue.resting() == foreign
    for end in ends:
        fired, done = events(tmp_path / "logs" / f"{end}.log")
        assert (fired["event"], fired["why"], fired["instance"]) == (
            "watchdog_fired",
            "closed",
            end,
        )
        assert done["event"] == "watchdog_done"
        assert done["orders"] == sorted(ours[end])
    told += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in (venue.row["key"], venue.row["secret"]):
        assert not any(secret.encode() in each for each in told)
    assert b"watchdog" in told[0]


def test_silence_counts_and_beats_do_not_help_once_it_has_begun(venue, tmp_path):
    async def go():
        venue.place("pvx-e-s1-1")
        dog = await started(venue, tmp_path, "s1", timeout_s=0.3)
        for _ in range(12):
            dog.beat()
            assert dog.alive
            await asyncio.sleep(0.05)
        assert "pvx-e-s1-1" in venue.resting()
        # Held up for longer than that.
        time.sleep(0.5)
        assert not dog.alive
        dog.beat()
        with pytest.raises(ValueError, match="runs already"):
            await started_again(dog)
        assert await dog.stop()
        assert "pvx-e-s1-1" not in venue.resting()
        assert events(tmp_path / "name.log")[0]["why"] == "silent"
        # And starts anew.
        await started_again(dog)
        assert dog.alive
        assert await dog.stop()

    async def started_again(dog):
        endpoints, symbol, _ = load_endpoints(venue.path)
        await dog.start(
            endpoints=endpoints, symbol=symbol, key_file=venue.path, instance="s2",
            timeout_s=5.0, log_path=tmp_path / "name.log",
        )  # fmt: skip

    asyncio.run(go())


# --- a bot that ends as it should ---


def test_after_bye_orders_stay_and_nothing_is_sent(venue, tmp_path):
    async def go():
        venue.place("pvx-e-g1-1")
        dog = await started(venue, tmp_path, "g1")
        pid, before = dog._process.pid, venue.requests()
        dog.beat()
        assert await dog.stop()
        assert await dog.stop()
        assert not dog.alive
        assert gone(pid)
        assert venue.requests() == before
        assert "pvx-e-g1-1" in venue.resting()
        assert not (tmp_path / "name.log").exists()

    asyncio.run(go())


def test_one_that_is_asked_to_end_ends_politely_and_the_bot_knows(venue, tmp_path):
    async def go():
        venue.place("pvx-e-t1-1")
        dog = await started(venue, tmp_path, "t1")
        os.kill(dog._process.pid, signal.SIGTERM)
        assert gone(dog._process.pid)
        assert not dog.alive
        dog.beat()
        assert dog._process.returncode == 0
        assert await dog.stop()
        assert "pvx-e-t1-1" in venue.resting()
        assert [row["event"] for row in events(tmp_path / "name.log")] == ["watchdog_terminated"]

    asyncio.run(go())


def test_one_that_hangs_does_not_hold_up_the_bot_nor_outlive_its_end(venue, tmp_path):
    async def go():
        venue.place("pvx-e-h1-1")
        dog = await started(venue, tmp_path, "h1")
        pid = dog._process.pid
        os.kill(pid, signal.SIGSTOP)
        assert dog.alive
        assert await dog.stop(wait_s=0.1)
        assert gone(pid)
        assert "pvx-e-h1-1" in venue.resting()
        dog = await started(venue, tmp_path, "h1")
        pid = dog._process.pid
        os.kill(pid, signal.SIGSTOP)
        for _ in range(1 << 17):
            dog._say(b".")
            if dog._process.poll() is not None:
                break
        assert not dog.alive
        assert await dog.stop()
        assert "pvx-e-h1-1" in venue.resting()

    asyncio.run(go())


# --- a venue that does not answer ---


def test_it_cannot_be_ended_while_it_cancels_and_tries_until_it_can(venue, tmp_path):
    async def go():
        venue.place("pvx-e-u1-1")
        dog = await started(venue, tmp_path, "u1", timeout_s=0.2)
        venue.fault({"do": "rest.drop_before", "when": {"on": "cancel"}})
        until(lambda: not dog.alive)
        os.kill(dog._process.pid, signal.SIGTERM)
        assert await dog.stop()
        assert "pvx-e-u1-1" not in venue.resting()
        done = events(tmp_path / "name.log")[-1]
        assert (done["event"], done["orders"]) == ("watchdog_done", ["pvx-e-u1-1"])

    try:
        asyncio.run(go())
    finally:
        venue.heal()


def test_it_gives_up_in_the_end_and_says_what_may_rest(venue, tmp_path):
    async def go():
        venue.place("pvx-e-v1-1")
        dog = await started(venue, tmp_path, "v1", timeout_s=0.1, give_up_s=0.5)
        refusal = {"retCode": 10003, "retMsg": f"bad key {venue.row['key']}", "result": {}}
        venue.fault(
            {"do": "rest.reply", "status": 200, "body": json.dumps(refusal),
             "when": {"on": "cancel"}, "times": 0}
        )  # fmt: skip
        until(lambda: not dog.alive)
        assert not await dog.stop(wait_s=0.0)
        process = dog._process
        assert await dog.stop()
        assert process.returncode == 1
        gave_up = events(tmp_path / "name.log")[-1]
        assert gave_up["event"] == "watchdog_gave_up"
        assert gave_up["may_rest"] == ["pvx-e-v1-1"]
        assert "bad key" in gave_up["problem"]
        assert venue.row["key"] not in (tmp_path / "name.log").read_text()

    try:
        asyncio.run(go())
    finally:
        venue.heal()


# --- one that does not start ---


def test_what_it_cannot_watch_with_is_said_at_the_start(venue, tmp_path):
    loose = tmp_path / "key.json"
    loose.write_text('["CANARYkey", "CANARYsecret"]')
    loose.chmod(0o644)

    async def go():
        with pytest.raises(PassivxError, match=r"did not start: .*has mode 0644, must be 0600"):
            await started(venue, tmp_path, "w1", key_file=loose)
        loose.chmod(0o600)
        dog = await started(venue, tmp_path, "w1", key_file=loose)
        assert await dog.stop()
        with pytest.raises(PassivxError, match=r"did not start: .*cannot be read"):
            await started(venue, tmp_path, "w1", key_file=tmp_path / "missing")
        with pytest.raises(PassivxError, match="did not start: symbol: must be a word"):
            await started(venue, tmp_path, "w1", symbol="")
        for wrong in (
            {"instance": "a-1"},
            {"instance": ""},
            {"adopted": ["web_1"]},
            {"timeout_s": 0.0},
            {"give_up_s": float("nan")},
        ):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                await started(venue, tmp_path, **{"instance": "w1"} | wrong)

    asyncio.run(go())


def test_a_start_that_is_cancelled_leaves_no_process(venue, tmp_path, monkeypatch):
    made = []
    real = subprocess.Popen

    def popen(*args, **options):
        made.append(real(*args, **options))
        return made[-1]

    monkeypatch.setattr(module.subprocess, "Popen", popen)

    async def go():
        start = asyncio.ensure_future(started(venue, tmp_path, "x1"))
        while not made:
            await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert made[0].returncode == -signal.SIGKILL

    asyncio.run(go())


# --- what it does, step by step ---


class Scripted:
    """A venue whose lists are told in advance; an exception among them is raised."""

    def __init__(self, clock: VirtualClock, *answers: object) -> None:
        self._clock, self._answers = clock, list(answers)
        self.looks: list[float] = []
        self.cancels: list[str] = []
        self.closed = False

    async def open_orders(self) -> list[Order]:
        self.looks.append(self._clock.monotonic_s())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return [order(client_id) for client_id in answer.split()]

    def cancel(self, orders):
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in orders]
        for future, each in zip(futures, orders, strict=True):
            self.cancels.append(each.client_id)
            slow = each.client_id.endswith("slow")
            future.set_result(
                Outcome(Verdict.REJECTED, text="too many", retry_after_s=7.0)
                if slow
                else Outcome(Verdict.OK)
            )
        return futures

    async def close(self) -> None:
        self.closed = True


def order(client_id):
    return Order(
        client_id=client_id, order_id=client_id, side=1, price=1.0, qty=1.0, filled_qty=0.0,
        reduce_only=False, status=OrderStatus.NEW, ts_ms=0,
    )  # fmt: skip


def cancelled(tmp_path, *answers, give_up_s=600.0):
    clock = VirtualClock()
    client = Scripted(clock, *answers)
    log = EventLog(tmp_path / "log", max_bytes=10**6, keep=1, clock=clock)
    task = module._Task(client, lambda each: each.client_id != "other", 1.0, give_up_s, log, "i")

    async def go():
        work = asyncio.ensure_future(module._cancel(task, clock))
        await clock.run(1000 * give_up_s)
        return await work

    done = asyncio.run(go())
    log.close()
    assert client.closed
    return done, client, events(tmp_path / "log")[-1]


@pytest.mark.parametrize(
    ("answers", "looks"),
    [
        (["other"], [0, 1]),
        (["a", ""], [0, 1, 2]),
        (["a", "", "b", ""], [0, 1, 2, 3, 4]),
        (["a", "a", "a", "b", ""], [0, 1, 2, 4, 5, 6]),
        (["", UnavailableError("down"), ""], [0, 1, 2, 3]),
        (["", UnavailableError("banned", retry_after_s=90.0), ""], [0, 1, 91, 92]),
        (["", VenueError("revoked"), ""], [0, 1, 31, 32]),
        ([KeyError("k"), TypeError(), ""], [0, 1, 3, 4]),
        (["slow", ""], [0, 7, 8]),
    ],
)
def test_two_looks_in_a_row_must_find_none(tmp_path, answers, looks):
    done, client, told = cancelled(tmp_path, *answers)
    assert done
    assert client.looks == looks
    words = " ".join(each for each in answers if isinstance(each, str)).replace("other", "").split()
    assert client.cancels == words
    assert told["orders"] == sorted(set(words))


@pytest.mark.parametrize(
    ("answers", "rest", "problem"),
    [
        (["a other"], ["a"], "cancelled, and still listed"),
        (["a", VenueError("revoked")], ["a"], "revoked"),
        ([ConfigError([])], [], ""),
        ([KeyError("CANARY")], [], "KeyError"),
        (["slow"], ["slow"], "too many"),
    ],
)
def test_after_ten_minutes_it_says_what_is_left(tmp_path, answers, rest, problem):
    done, client, told = cancelled(tmp_path, *answers)
    assert not done
    assert (told["event"], told["may_rest"]) == ("watchdog_gave_up", rest)
    assert problem in told["problem"]
    assert "CANARY" not in str(told)
    # At most three times a minute, once it is clear that it does not help.
    assert 540 < client.looks[-1] <= 600
    assert len(client.looks) < 28


HARD = """
import ctypes, os, resource
from passivx.live.process import harden
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1
harden()
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
"""


def test_a_hardened_process_is_not_dumped():
    subprocess.run([sys.executable, "-c", HARD], check=True)
