"""The tape: a bot's public trades by day, whatever happens to the files or the disk."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest

from passivx.live import tape as module
from passivx.live.tape import TRADE_DTYPE, Tape, read_tape

DAY = 86_400_000
NOON = 19_675 * DAY + DAY // 2  # 2023-11-14
ROW = TRADE_DTYPE.itemsize


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ids(folder: Path, start_ms: int = 0, end_ms: int = 20_000 * DAY) -> list[int]:
    days = (start_ms if start_ms else NOON - 30 * DAY), min(end_ms, NOON + 30 * DAY)
    return read_tape(folder, *days)["trade_id"].tolist()


def test_what_goes_in_comes_out(tmp_path):
    tape = Tape(tmp_path / "tape")
    assert (tmp_path / "tape").stat().st_mode & 0o777 == 0o700
    tape.trade("17", 0.1, 1e-9, NOON, True)
    tape.trade("18", 123456.5, 2.0, NOON + 1, False)
    tape.flush()
    tape.flush()
    got = read_tape(tmp_path / "tape", NOON, NOON + 1)
    assert got.dtype == TRADE_DTYPE
    assert got.tolist() == [(17, 0.1, 1e-9, NOON, 1), (18, 123456.5, 2.0, NOON + 1, 0)]
    assert ids(tmp_path / "tape", NOON + 1) == [18]
    assert ids(tmp_path / "tape", NOON, NOON) == [17]
    assert ids(tmp_path / "tape", NOON - 5, NOON - 1) == []
    assert len(read_tape(tmp_path / "none", NOON, NOON)) == 0


def test_a_day_is_a_file_and_the_last_millisecond_is_of_its_day(tmp_path):
    tape = Tape(tmp_path)
    midnight = 19_676 * DAY
    for n, ts_ms in enumerate((midnight - 1, midnight, midnight + DAY), 1):
        tape.trade(str(n), 1.0, 1.0, ts_ms, False)
    # What is of an earlier day is written before the next begins.
    assert names(tmp_path) == ["2023-11-14.trades", "2023-11-15.trades"]
    tape.flush()
    assert names(tmp_path)[-1] == "2023-11-16.trades"
    assert [len(p.read_bytes()) for p in sorted(tmp_path.iterdir())] == [ROW] * 3
    assert ids(tmp_path, midnight - 1, midnight) == [1, 2]


def test_another_tape_goes_on_where_one_has_ended(tmp_path):
    for n in (1, 2):
        tape = Tape(tmp_path)
        tape.trade(str(n), 1.0, 1.0, NOON + n, False)
        tape.flush()
    assert ids(tmp_path) == [1, 2]


@pytest.mark.parametrize("torn", [1, ROW // 2, ROW - 1])
def test_a_torn_row_is_nobodys(tmp_path, torn):
    tape = Tape(tmp_path)
    for n in (1, 2):
        tape.trade(str(n), 1.0, 1.0, NOON, False)
    tape.flush()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[: ROW + torn])
    assert ids(tmp_path) == [1]
    after = Tape(tmp_path)
    after.trade("3", 3.0, 1.0, NOON, False)
    after.flush()
    assert read_tape(tmp_path, NOON, NOON)[["trade_id", "price"]].tolist() == [(1, 1.0), (3, 3.0)]


def test_a_week_is_kept_and_nothing_else_is_touched(tmp_path):
    tape = Tape(tmp_path)
    for n in range(12):
        tape.trade(str(n), 1.0, 1.0, NOON + n * DAY, False)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "2001-01-01.csv").touch()
    tape.trade("12", 1.0, 1.0, NOON + 12 * DAY, False)
    tape.flush()
    assert names(tmp_path) == [
        "2001-01-01.csv",
        *(f"2023-11-{day}.trades" for day in range(19, 27)),
        "notes.txt",
    ]
    assert ids(tmp_path) == list(range(5, 13))


def test_a_late_trade_of_the_day_before_lands_in_its_own_file(tmp_path):
    midnight = 19_676 * DAY
    tape = Tape(tmp_path)
    for n, ts_ms in enumerate((midnight - 2, midnight + 5, midnight - 1, midnight + 6), 1):
        tape.trade(str(n), 1.0, 1.0, ts_ms, False)
    tape.flush()
    assert ids(tmp_path, midnight - 10, midnight - 1) == [1, 3]
    assert ids(tmp_path, midnight, midnight + 10) == [2, 4]


@pytest.mark.parametrize(
    ("trade_id", "number"),
    [
        ("4400000000", 4_400_000_000),
        ("0", 0),
        ("2100000000012345678", 0),  # Bybit's of inverse contracts: nineteen digits and more
        ("999999999999999999", 999_999_999_999_999_999),
        ("9" * 40, 0),
        ("8a4b7e0c-58d2-5e8c-9d20-a3fef54b2e9b", 0),
        ("", 0),
        ("-5", 0),
    ],
)
def test_an_id_that_is_no_number_is_0(tmp_path, trade_id, number):
    tape = Tape(tmp_path)
    tape.trade(trade_id, 1.0, 1.0, NOON, False)
    tape.flush()
    assert ids(tmp_path) == [number]


def test_digits_of_other_scripts_do_not_stop_a_bot(tmp_path):
    tape = Tape(tmp_path)
    for trade_id in ("٣٤", "²", "１２"):
        tape.trade(trade_id, 1.0, 1.0, NOON, False)
    tape.flush()
    assert len(ids(tmp_path)) == 3


class Disk:
    """Opens files, until it is broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken = False
        self.open = Path.open
        monkeypatch.setattr(Path, "open", lambda path, *a, **k: self.opens(path, *a, **k))

    def opens(self, path: Path, *args: Any, **names: Any) -> Any:
        if self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.open(path, *args, **names)


def test_what_a_full_disk_does_not_take_is_written_later(tmp_path, monkeypatch, caplog):
    disk = Disk(monkeypatch)
    tape = Tape(tmp_path)
    tape.trade("1", 1.0, 1.0, NOON, False)
    tape.flush()
    disk.broken = True
    for n in (2, 3):
        tape.trade(str(n), 1.0, 1.0, NOON, False)
        tape.flush()
    disk.broken = False
    tape.flush()
    assert ids(tmp_path) == [1, 2, 3]
    assert caplog.text == ""


def test_a_disk_that_stays_full_costs_trades_but_no_memory(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_MOST_WAITING", 10 * ROW)
    disk = Disk(monkeypatch)
    tape = Tape(tmp_path)
    disk.broken = True
    with caplog.at_level(logging.WARNING):
        for n in range(1, 26):
            tape.trade(str(n), 1.0, 1.0, NOON, False)
            tape.flush()
            assert len(tape._waiting) <= 10 * ROW
    assert caplog.text.count("No space left on device") == 2
    disk.broken = False
    tape.flush()
    assert ids(tmp_path) == [21, 22, 23, 24, 25]


def test_what_waits_at_midnight_is_not_lost(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    tape = Tape(tmp_path)
    midnight = 19_676 * DAY
    disk.broken = True
    tape.trade("1", 1.0, 1.0, midnight - 1, False)
    tape.trade("2", 1.0, 1.0, midnight, False)
    disk.broken = False
    tape.flush()
    assert ids(tmp_path, midnight - 1, midnight) == [1, 2]
    assert ids(tmp_path, midnight, midnight) == [2]
