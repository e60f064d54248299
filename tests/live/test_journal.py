"""The journal: what was committed is there after any death, or it is noticed that it is not."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx.live.journal import VERSION, Entry, Journal, JournalError, read_entries

# Hundreds of files: where they need not wait for a disk.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Row = tuple[int, str, str, dict[str, Any]]


def intent(n: int) -> Row:
    body = {"side": 1, "price": 100.5, "qty": 0.001 * n, "reduce_only": False, "at_market": False}
    body |= {"kind": "entry", "ideal_price": 100.5, "ideal_qty": 0.001 * n}
    return 1_000 + n, "intent", f"pvx-e-run-{n}", body


def fill(n: int, **more: Any) -> Row:
    return 1_000 + n, "fill", f"t{n}", {"qty": 0.5, "client_id": f"pvx-e-run-{n}"} | more


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()


def rows_in(path: Path) -> list[Row]:
    return [(e.ts_ms, e.type, e.key, e.body) for e in read_entries(path)]


def reopened(path: Path) -> list[Row]:
    """What is there after the chain was gone through again."""
    with opened(path) as journal:
        assert journal.quarantined is None
    return rows_in(path)


# --- writing and reading ---


def test_what_is_written_is_read_and_goes_on_after_reopening(tmp_path):
    path = tmp_path / "deep" / "er" / "journal.db"
    words = (5, "run", "", {"what": "began", "text": "“ü”\0\n", "none": None, "list": [1, 2.5]})
    with opened(path) as journal:
        assert journal.quarantined is None
        assert journal.memory().n_entries == 0
        journal.write([intent(1)])
        journal.write([])
        journal.write([words, fill(1)])
    with opened(path) as journal:
        assert journal.memory().n_entries == 3
        journal.write([intent(2)])
    assert reopened(path) == [intent(1), words, fill(1), intent(2)]
    assert list(read_entries(path, "fill")) == [Entry(3, *fill(1))]
    assert [e.seq for e in read_entries(path, "intent", "fill")] == [1, 3, 4]


def test_a_number_that_is_none_is_null(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write([fill(1, pnl=float("nan"), liq_price=float("inf"))])
    assert reopened(path) == [fill(1, pnl=None, liq_price=None)]


@pytest.mark.parametrize("at", range(3))
def test_a_batch_is_written_whole_or_not_at_all(tmp_path, at):
    path = tmp_path / "journal.db"
    rows = [intent(1), intent(2), intent(3)]
    broken = list(rows)
    # NOT NULL: SQLite refuses that row when the ones before it are in.
    broken[at] = (None, "intent", "x", {})
    with opened(path) as journal:
        with pytest.raises(JournalError, match="cannot be written"):
            journal.write(broken)
        with pytest.raises(JournalError):
            journal.write([broken[at]])
        assert rows_in(path) == []
        journal.write(rows)
    assert reopened(path) == rows


@pytest.mark.parametrize("at", range(2))
def test_a_batch_that_cannot_even_be_put_into_words_is_not_half_written(tmp_path, at):
    path = tmp_path / "journal.db"
    for bad in (
        (1, "intent", "x", {"set": {1}}),
        (1, "intent", "\ud800", {}),
        (1 << 70, "a", "", {}),
    ):
        rows = [intent(1), intent(2)]
        rows[at] = bad
        with opened(path) as journal:
            n = journal.memory().n_entries
            with pytest.raises((JournalError, TypeError, ValueError, OverflowError)):
                journal.write(rows)
            assert journal.memory().n_entries == n
            journal.write([intent(3), intent(4)])
    assert reopened(path) == [intent(3), intent(4)] * 3


def test_a_fill_or_payment_is_written_once_and_the_chain_has_no_hole(tmp_path):
    path = tmp_path / "journal.db"
    pay: Row = (7, "payment", "f1", {"amount": -1.5, "venue_ts_ms": 7})
    same_key: Row = (8, "payment", "t1", {"amount": 2.0, "venue_ts_ms": 8})
    with opened(path) as journal:
        journal.write([fill(1), pay])
        journal.write([fill(1, qty=9.0)])
        journal.write([intent(1), fill(1), pay, fill(2), fill(2), same_key, intent(1)])
        journal.write([pay, fill(1)])
        journal.write([intent(9)])
    wanted = [fill(1), pay, intent(1), fill(2), same_key, intent(1), intent(9)]
    assert reopened(path) == wanted


def test_a_second_writer_is_noticed_and_nothing_is_lost_without_a_word(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as one, opened(path) as two:
        one.write([intent(1)])
        for rows in ([intent(2)], [fill(2)], [intent(2), fill(2)]):
            with pytest.raises(JournalError):
                two.write(rows)
        one.write([intent(3)])
    assert reopened(path) == [intent(1), intent(3)]


def test_nobody_else_may_read_it(tmp_path):
    path = tmp_path / "state" / "journal.db"
    before = os.umask(0)
    try:
        with opened(path) as journal:
            journal.write([intent(1)])
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_views_are_read_by_plain_sqlite(tmp_path):
    path = tmp_path / "journal.db"
    told = {"side": -1, "price": 99.5, "fee": -0.01, "venue_ts_ms": 1_700_000_000_000}
    with opened(path) as journal:
        journal.write(
            [
                intent(4),
                (1, "outcome", "a", {"verdict": "ok", "code": -1, "final": True}),
                fill(1, **told),
                (2, "payment", "p", {"amount": 1.25, "venue_ts_ms": 5}),
                (3, "equity", "", {"equity": 7.0, "wallet": 6.0}),
                (4, "run", "", {"what": "began", "instance": "run"}),
            ]
        )
        # As docs/live.md shows it, while the bot writes.
        db = sqlite3.connect(path)
        with contextlib.closing(db):

            def ask(text: str) -> list[tuple[Any, ...]]:
                return db.execute(text).fetchall()

            assert ask("select key, qty, reduce_only, kind from intents") == [
                ("pvx-e-run-4", 0.004, 0, "entry")
            ]
            assert ask("select key, verdict, code from outcomes") == [("a", "ok", -1)]
            assert ask(
                "select datetime(venue_ts_ms/1000, 'unixepoch'), cause, side, qty, price, pnl, "
                "fee, wallet from fills"
            ) == [("2023-11-14 22:13:20", None, -1, 0.5, 99.5, None, -0.01, None)]
            assert ask("select seq, ts_ms, key, amount, venue_ts_ms from payments") == [
                (4, 2, "p", 1.25, 5)
            ]
            assert ask("select wallet, equity, close_base from equity") == [(6.0, 7.0, None)]
            assert ask("select what, instance from runs") == [("began", "run")]


def test_reading_goes_on_while_the_bot_writes(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write([intent(n) for n in range(500)])
        reading = read_entries(path)
        first = next(reading)
        journal.write([intent(500)])  # no reader holds a writer up
        rest = list(reading)
        assert [first.key, *(e.key for e in rest)] == [f"pvx-e-run-{n}" for n in range(500)]
        assert len(rows_in(path)) == 501


@pytest.mark.parametrize("name", ["a b", "what?mode=memory", "50%25 #1", "übel"])
def test_any_folder_name_will_do(tmp_path, name):
    path = tmp_path / name / "journal.db"
    with opened(path) as journal:
        journal.write([intent(1)])
    assert rows_in(path) == [intent(1)]


def test_what_cannot_be_read_says_so(tmp_path):
    path = tmp_path / "journal.db"
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_entries(path))
    assert not path.exists()
    path.write_bytes(b"no journal at all" * 100)
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_entries(path))
    path.unlink()
    with opened(path) as journal:
        journal.write([intent(1)])
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE entries SET body = '{'")
    with pytest.raises(JournalError, match="cannot be read"):
        list(read_entries(path))


# --- memory ---


def slow_memory(rows: list[Row], most: int) -> dict[str, Any]:
    """What `Journal.memory` returns, from the rows that were written."""
    ended = {key for _, kind, key, body in rows if kind == "outcome" and body["final"]}
    intents = {key: body for _, kind, key, body in rows if kind == "intent" and key not in ended}
    fills = [(key, body) for _, kind, key, body in rows if kind == "fill"]
    last = [body for _, kind, _, body in rows if kind in ("equity", "fill")][-1:]
    return {
        "open_intents": intents,
        "filled": {
            id: sum(body["qty"] for _, body in fills if body["client_id"] == id) for id in intents
        },
        "fill_ids": [key for key, _ in fills][-most:],
        "payment_ids": [key for _, kind, key, _ in rows if kind == "payment"][-most:],
        "last_fill_ms": max((body["venue_ts_ms"] for _, body in fills), default=0),
        "close_base": last[0].get("close_base") if last else None,
        "close_base_size": last[0]["pos_size"] if last else 0.0,
        "n_entries": len(rows),
    }


IDS = st.sampled_from([f"pvx-e-run-{n}" for n in range(6)])
QTY = st.sampled_from([0.5, 1.0, 2.0])
SIZES = st.sampled_from([0.0, -1.5, 4.0])
BASE = st.one_of(st.just({}), st.builds(lambda b: {"close_base": b}, SIZES))
ROWS = st.lists(
    st.one_of(
        st.builds(lambda id: (1, "intent", id, {"qty": 1.0}), IDS),
        st.builds(lambda id, end: (2, "outcome", id, {"final": end}), IDS, st.booleans()),
        st.builds(
            lambda t, id, qty, ms, size, base: (
                3,
                "fill",
                f"t{t}",
                {"client_id": id, "qty": qty, "venue_ts_ms": ms, "pos_size": size} | base,
            ),
            st.integers(0, 9), st.one_of(IDS, st.just("")), QTY, st.integers(0, 99), SIZES, BASE,
        ),
        st.builds(lambda t: (4, "payment", f"p{t}", {"amount": 1.0}), st.integers(0, 5)),
        st.builds(
            lambda size, base: (5, "equity", "", {"pos_size": size} | base), SIZES, BASE
        ),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(ROWS, st.integers(1, 8), st.integers(1, 7))
def test_memory_is_what_a_slow_look_through_finds(rows: list[Row], most: int, size: int) -> None:
    once, seen = [], set()
    for row in rows:
        if row[1] not in ("fill", "payment") or row[1:3] not in seen:
            once.append(row)
        seen.add(row[1:3])
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "journal.db"
        with opened(path) as journal:
            for at in range(0, len(rows), size):
                journal.write(rows[at : at + size])
        with opened(path) as journal:
            memory = journal.memory(most)
    assert {
        "open_intents": {key: entry.body for key, entry in memory.open_intents.items()},
        "filled": memory.filled,
        "fill_ids": memory.fill_ids,
        "payment_ids": memory.payment_ids,
        "last_fill_ms": memory.last_fill_ms,
        "close_base": memory.close_base,
        "close_base_size": memory.close_base_size,
        "n_entries": memory.n_entries,
    } == slow_memory(once, most)


# --- kill -9 ---

WRITER = """
import os, sys
from pathlib import Path
import passivx.live.journal as module
module._LOG_BYTES, module._CHECKPOINT_S = 20_000, 0.003
os.write(1, b"0\\n")
journal = module.Journal(Path(sys.argv[1]))
n = journal.memory().n_entries
while True:
    many = 1 + n % 5
    body = {"of": n, "many": many, "text": "x" * (n * 37 % 700)}
    journal.write([(n + i, "intent", f"{n + i}", body) for i in range(many)])
    n += many
    os.write(1, b"%d\\n" % n)
"""


def test_a_killed_writer_has_lost_nothing_that_write_returned_for(tmp_path):
    path = tmp_path / "journal.db"
    draw = random.Random(4)
    known = 0
    for turn in range(9):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, bufsize=0
        )
        assert writer.stdout is not None
        told = b""
        with writer:
            if turn:  # the first at some moment of its opening
                wanted = known + draw.randrange(1, 400)
                while not any(int(n) >= wanted for n in told.splitlines()[-2:-1]):
                    told += os.read(writer.stdout.fileno(), 65536)
            else:
                told += os.read(writer.stdout.fileno(), 65536)
            time.sleep(draw.random() * 0.004)
            writer.send_signal(signal.SIGKILL)
            while select.select([writer.stdout], [], [], 1.0)[0]:
                more = os.read(writer.stdout.fileno(), 65536)
                told += more
                if not more:
                    break
        known = max(known, int(told.splitlines()[-1]))
        rows = reopened(path)
        assert len(rows) >= known
        for n, (ts_ms, kind, key, body) in enumerate(rows):
            assert (ts_ms, kind, key) == (n, "intent", str(n))
            # A batch is there whole.
            assert body["of"] <= n < body["of"] + body["many"] <= len(rows)
        known = len(rows)
    assert known > 500


# --- corruption ---

N_ROWS = 40
N_NIGHTLY = int(os.environ.get("PASSIVX_FUZZ_RUNS", "5000"))


def rows_to_keep() -> list[Row]:
    rows = []
    for n in range(N_ROWS):
        rows.append(intent(n) if n % 3 else fill(n, text="y" * (n * 53 % 300)))
    return rows


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[str, Path]:
    """Files as a kill leaves them: copied back in part, copied back before it, and not at all."""
    found = {}
    for name in ("log", "part", "reset"):
        folder = tmp_path_factory.mktemp(name)
        path = folder / "journal.db"
        with opened(path) as journal, contextlib.closing(sqlite3.connect(path)) as other:
            rows = rows_to_keep()
            for n, row in enumerate(rows):
                if n == N_ROWS // 2 and name != "log":
                    if name == "part":
                        # Holds the log where it is.
                        other.execute("BEGIN")
                        other.execute("SELECT count(*) FROM entries").fetchone()
                    with contextlib.closing(sqlite3.connect(path)) as third:
                        third.execute("PRAGMA wal_checkpoint(PASSIVE)")
                journal.write([row])
            copied = folder / "copied"
            copied.mkdir()
            for end in ("", "-wal"):
                shutil.copyfile(f"{path}{end}", copied / f"journal.db{end}")
        found[name] = copied
        assert rows_in(copied / "journal.db") == rows
        (copied / "journal.db-shm").unlink(missing_ok=True)
    return found


def check_damaged(folder: Path, what: str) -> str:
    """Open it, and see that nothing is there that was not written; return what became of it."""
    path = folder / "journal.db"
    written = rows_to_keep()
    try:
        journal = Journal(path)
    except JournalError:
        assert path.exists(), what
        return "refused"
    try:
        rows = rows_in(path)
        if journal.quarantined is not None:
            assert journal.quarantined.exists(), what
            assert rows == [], what
        else:
            assert rows == written[: len(rows)], what
        assert journal.memory().n_entries == len(rows)
        # It takes what comes, and what it has only once.
        journal.write(
            [(1, "run", "", {"what": "began"}), *(row for row in written if row[1] == "fill")]
        )
        journal.write([(2, "run", "", {"what": "stopped"})])
    finally:
        journal.close()
    after = rows_in(path)
    assert after[: len(rows)] == rows, what
    fills = [row for row in written if row[1] == "fill"]
    assert sorted(row[2] for row in after if row[1] == "fill") == sorted(row[2] for row in fills), (
        what
    )
    with opened(path) as again:
        assert again.quarantined is None, what
    return "anew" if journal.quarantined is not None else "prefix" if len(rows) < N_ROWS else "all"


def damages(size: int, is_log: bool, draw: random.Random, n: int) -> list[tuple[str, int, int]]:
    """Flips and cuts at every class of offset: headers of file, page and frame, and the rest."""
    heads = range(32) if is_log else range(100)
    unit, start, head = (1048, 32, 24) if is_log else (1024, 0, 12)
    flips = [(at, 1 << draw.randrange(8)) for at in heads]
    flips += [(at, 0xFF) for at in (16, 17, 18, 19, 24, 28, 56, 60, 92, 96) if not is_log]
    flips += [
        (at + draw.randrange(head), 1 << draw.randrange(8)) for at in range(start, size, unit)
    ]
    flips += [(draw.randrange(size), draw.randrange(1, 256)) for _ in range(n)]
    cuts = [0, 1, 15, 16, 99, 100, 511, 512, start, start + head, start + unit, size - 1, size - 7]
    cuts += [size - unit, size - unit - 1, size - unit + head, size // 2]
    cuts += [draw.randrange(size) for _ in range(n // 8)]
    found = [("flip", at, mask) for at, mask in flips if at < size]
    return found + [("cut", at, 0) for at in sorted({c for c in cuts if 0 <= c < size})]


def damage(kept: Path, folder: Path, end: str, how: tuple[str, int, int]) -> None:
    for each in ("", "-wal"):
        shutil.copyfile(kept / f"journal.db{each}", folder / f"journal.db{each}")
    what, at, mask = how
    content = bytearray((kept / f"journal.db{end}").read_bytes())
    if what == "flip":
        content[at] ^= mask
    else:
        del content[at:]
    (folder / f"journal.db{end}").write_bytes(content)


def sweep(kept: Path, name: str, end: str, n: int, seed: int) -> None:
    draw = random.Random(f"{name}{end}{seed}")
    size = (kept / f"journal.db{end}").stat().st_size
    became: dict[str, int] = {}
    for how in damages(size, end == "-wal", draw, n):
        with tempfile.TemporaryDirectory(dir=MEMORY) as made:
            damage(kept, Path(made), end, how)
            result = check_damaged(Path(made), f"{name}{end} {how}")
            became[result] = became.get(result, 0) + 1
    assert became.get("refused", 0) == 0, became
    # Of a file that the log stands before, most is never looked at.
    assert became.get("anew", 0) + became.get("prefix", 0) > (1 if end == "" else 20), became


@pytest.mark.parametrize("end", ["", "-wal"])
@pytest.mark.parametrize("name", ["log", "part", "reset"])
def test_a_damaged_journal_is_a_prefix_or_begun_anew(kept, name, end, caplog):
    sweep(kept[name], name, end, 40, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("end", ["", "-wal"])
@pytest.mark.parametrize("name", ["log", "part", "reset"])
def test_a_journal_damaged_anywhere_is_a_prefix_or_begun_anew(kept, name, end, caplog):
    sweep(kept[name], name, end, N_NIGHTLY, random.SystemRandom().getrandbits(32))


@pytest.mark.parametrize("field", ["ts_ms", "type", "key", "body", "chain"])
def test_an_entry_that_was_changed_is_noticed(tmp_path, field):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write(rows_to_keep())
    new = {
        "ts_ms": 5,
        "type": "outcome",
        "key": "pvx-e-run-999",
        "body": "{}",
        "chain": b"12345678",
    }
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE entries SET {field} = ? WHERE seq = 17", (new[field],))
    with opened(path) as journal:
        assert journal.quarantined == tmp_path / "journal.db.broken1"
        assert journal.memory().n_entries == 0


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"CREATE VIEW fills", b"CREATE VIE\xc8 fills"),
        (b"CREATE VIEW fills", b"CREATE VIEW fi\xc8ls"),
        (b"type = 'payment'", b"type = 'paymen\xc8'"),
        (b"type = 'payment'", b"type = 'paymend'"),
        (b"body TEXT NOT NULL", b"body TEX\xc8 NOT NULL"),
    ],
)
def test_a_schema_that_was_changed_is_noticed(tmp_path, was, now):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write(rows_to_keep())
    content = path.read_bytes()
    assert was in content
    path.write_bytes(content.replace(was, now, 1))
    with opened(path) as journal:
        assert journal.quarantined is not None
        journal.write([intent(1)])
    assert rows_in(path) == [intent(1)]


@pytest.mark.parametrize("seq", [1, 17])
def test_an_entry_that_was_taken_out_is_noticed(tmp_path, seq):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write(rows_to_keep())
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM entries WHERE seq = ?", (seq,))
        db.execute("UPDATE entries SET seq = 100 + seq WHERE seq > ?", (seq,))
        db.execute("UPDATE entries SET seq = seq - 101 WHERE seq > 100")
    with opened(path) as journal:
        assert journal.quarantined is not None


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a journal\n" * 300, "foreign"])
def test_what_is_no_journal_is_set_aside_under_a_name_of_its_own(tmp_path, content, caplog):
    path = tmp_path / "journal.db"
    for n in range(3):
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if content == "foreign":
            with contextlib.closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE entries (seq INTEGER)")
        else:
            path.write_bytes(content)
        before = path.read_bytes()
        with opened(path) as journal:
            journal.write([intent(n)])
            if content == b"":
                # What a kill in the first instant leaves: nothing is lost.
                assert journal.quarantined is None
            else:
                aside = journal.quarantined
                assert aside == tmp_path / f"journal.db.broken{n + 1}"
                assert aside.read_bytes()[100:] == before[100:]
        assert rows_in(path) == [intent(n)]


def test_another_version_is_set_aside_and_not_written_to(tmp_path, caplog):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write([intent(1)])
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with opened(path) as journal:
        assert journal.quarantined is not None
        assert rows_in(journal.quarantined) == [intent(1)]
        assert journal.memory().n_entries == 0
    assert f"is of version {VERSION + 1}, this program writes {VERSION}" in caplog.text


# --- the disk ---


def test_a_full_disk_says_so_loses_nothing_and_mends_by_itself(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write([intent(0)])
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        rows, refused = [intent(0)], 0
        for n in range(1, 60):
            batch = [intent(n), fill(n, text="z" * 200)][: 1 + n % 2]
            try:
                journal.write(batch)
            except JournalError as e:
                refused += "full" in str(e)
            else:
                assert refused == 0 or len(batch) == 1  # a smaller one may still have found room
                rows += batch
        assert refused > 30
        assert rows_in(path) == rows
        journal._db.execute("PRAGMA max_page_count = 1000000")
        journal.write([intent(99)])
    assert reopened(path) == [*rows, intent(99)]


FULL = """
import resource, signal, sys
from pathlib import Path
from passivx.live.journal import Journal, JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, most = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    journal = Journal(path)
    for n in range(100):
        journal.write([(n, "intent", f"later{n}", {"text": "x" * 500})])
except JournalError as e:
    print(e)
"""


@pytest.mark.parametrize("most", [0, 512, 4096, 20_000, 40_000])
def test_a_disk_that_is_full_at_the_start_is_no_reason_to_set_a_good_journal_aside(tmp_path, most):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write(rows_to_keep())
    said = subprocess.run(
        [sys.executable, "-c", FULL, path, str(most)], capture_output=True, text=True, check=True
    ).stdout
    assert "cannot be" in said
    assert [each.name for each in tmp_path.iterdir() if "broken" in each.name] == []
    assert reopened(path)[:N_ROWS] == rows_to_keep()


def test_files_that_may_not_be_opened_are_no_reason_either(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write(rows_to_keep())
    code = (
        "import resource, sys; from pathlib import Path; "
        "from passivx.live.journal import Journal, JournalError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))\n"
        "try: Journal(Path(sys.argv[1]))\n"
        "except JournalError as e: print(e)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    ).stdout
    assert "cannot be opened" in said
    assert reopened(path) == rows_to_keep()


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="file"):
        Journal(tmp_path / "file" / "journal.db")


def test_a_lock_of_somebody_else_is_not_waited_for(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal, contextlib.closing(sqlite3.connect(path)) as other:
        journal.write([intent(1)])
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        for rows in ([intent(2)], [intent(2), fill(2)]):
            started_s = time.monotonic()
            with pytest.raises(JournalError, match="locked"):
                journal.write(rows)
            assert time.monotonic() - started_s < 0.1
        assert rows_in(path) == [intent(1)]
        other.execute("ROLLBACK")
        journal.write([intent(2), fill(2)])
    assert reopened(path) == [intent(1), intent(2), fill(2)]


def test_a_journal_in_use_is_not_set_aside(tmp_path):
    path = tmp_path / "journal.db"
    with opened(path) as journal:
        journal.write([intent(1)])
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA user_version = 1")
        with pytest.raises(JournalError, match="in use by another program"):
            Journal(path)
    assert reopened(path) == [intent(1)]


def test_the_log_is_copied_back_while_the_bot_writes(tmp_path, monkeypatch):
    import passivx.live.journal as module

    monkeypatch.setattr(module, "_LOG_BYTES", 10_000)
    monkeypatch.setattr(module, "_CHECKPOINT_S", 0.002)
    path = tmp_path / "journal.db"
    log = Path(f"{path}-wal")
    with opened(path) as journal:
        journal.write([intent(n) for n in range(40)])
        small, size = path.stat().st_size, log.stat().st_size
        assert size > 10_000
        end_s = time.monotonic() + 5.0
        while path.stat().st_size == small:
            assert time.monotonic() < end_s, "never copied"
            time.sleep(0.002)
        time.sleep(0.05)
        # The log begins anew: it does not grow for ever.
        journal.write([intent(n) for n in range(40, 80)])
        assert log.stat().st_size < 1.5 * size
    assert reopened(path) == [intent(n) for n in range(80)]
