"""Locks on real files, between real processes."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys

import pytest

from passivx.clock import VirtualClock
from passivx.errors import PassivxError
from passivx.live.lock import AccountLock, account_tag

KEY = "CANARYkeyCANARYkeyCANARYkey"
HOLD = """
import sys, time
from pathlib import Path
from passivx.live.lock import AccountLock
lock = AccountLock(Path(sys.argv[1]), "bybit", sys.argv[2], "BTCUSD")
lock.take()
print("held", flush=True)
time.sleep(60)
"""


def lock_in(folder, *, symbol="BTCUSD", exchange="bybit", key=KEY):
    return AccountLock(folder, exchange, account_tag(key), symbol, clock=VirtualClock(0))


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), account_tag(KEY)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_an_account_is_named_by_what_does_not_lead_back():
    assert account_tag("abc") == "ba7816bf8f"  # FIPS 180-4's example


def test_another_process_is_refused_and_told_who_holds_it(tmp_path, holder):
    with pytest.raises(PassivxError) as caught:
        lock_in(tmp_path).take()
    text = str(caught.value)
    assert text.startswith(f"another bot (pid {holder.pid}, started 20")
    assert text.endswith("UTC) trades BTCUSD on this account; stop it first")
    assert KEY not in text


def test_other_symbols_accounts_and_venues_are_free(tmp_path, holder):
    with (
        lock_in(tmp_path, symbol="ETHUSD"),
        lock_in(tmp_path, key="another"),
        lock_in(tmp_path, exchange="binance"),
    ):
        pass


def test_the_kernel_lets_go_when_the_holder_is_killed(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_in(tmp_path) as lock:
        assert f'"pid":{os.getpid()}' in lock.path.read_text()


def test_a_program_started_meanwhile_does_not_hold_it(tmp_path):
    lock = lock_in(tmp_path)
    lock.take()
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        assert child.stdout.readline() == b"\n"
        lock.release()
        with lock_in(tmp_path):
            pass
        child.communicate(b"\n")


def test_twice_in_one_process_is_refused_and_release_may_be_repeated(tmp_path):
    first = lock_in(tmp_path)
    with first, pytest.raises(PassivxError, match=r"started 1970-01-01 00:00:00 UTC"):
        lock_in(tmp_path).take()
    first.release()
    with first:
        pass


@pytest.mark.parametrize("left", [b"", b"{", b"[1]", b'{"pid": 1}', b'{"pid":1,"started_ms":1e99}'])
def test_what_is_left_in_the_file_keeps_nobody_out(tmp_path, left):
    lock = lock_in(tmp_path)
    lock.path.write_bytes(left)
    with lock:
        lock.path.write_bytes(left)
        with pytest.raises(PassivxError, match="another bot trades BTCUSD"):
            lock_in(tmp_path).take()


def test_folder_and_file_are_private_and_hold_no_key(tmp_path):
    folder = tmp_path / "locks"
    with lock_in(folder) as lock:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
        assert lock.path.name == f"bybit-{account_tag(KEY)}-BTCUSD.lock"
        assert KEY not in lock.path.read_text()


def test_a_link_or_a_folder_that_cannot_be_is_refused(tmp_path):
    lock = lock_in(tmp_path)
    lock.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PassivxError, match="cannot be opened"):
        lock.take()
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "file").touch()
    with pytest.raises(PassivxError, match="cannot be opened"):
        lock_in(tmp_path / "file").take()


@pytest.mark.parametrize("word", ["", "../x", "a/b", "a b", "a\n", "x" * 65])
def test_words_that_are_no_part_of_a_name_are_refused(tmp_path, word):
    with pytest.raises(ValueError, match="must be 1 to 64"):
        lock_in(tmp_path, symbol=word)
