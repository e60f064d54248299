"""What the bot meant to do, did and saw: SQLite, written before anything is sent.

One table of entries, each with a checksum over itself and the one before it. SQLite opens a
write-ahead log that was cut short without a word; the chain shows that an entry was changed, and
the venue's own records make up for those that are gone. `PRAGMA synchronous` is NORMAL: a commit
survives the death of the process; after a power cut the venue is the truth (docs/live.md).

Views named intents, outcomes, fills, payments, equity and runs show the entries' fields as columns.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from passivx.errors import PassivxError

__all__ = ["Entry", "Journal", "JournalError", "Memory", "read_entries"]

log = logging.getLogger(__name__)

VERSION: Final = 1
_SUM_BYTES: Final = 8
# A commit copies and sums up whole pages of the log; rows are a third of one of these.
_PAGE_BYTES: Final = 1024
# The log is copied back into the file once it is so long, by another thread.
_LOG_BYTES: Final = 8 << 20
_CHECKPOINT_S: Final = 10.0

_TABLE: Final = """CREATE TABLE entries (
    seq INTEGER PRIMARY KEY,
    ts_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    chain BLOB NOT NULL
)"""
# Only what is there already is left out; whatever else is wrong is an error.
_INSERT: Final = (
    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (key) WHERE type = 'fill' DO NOTHING "
    "ON CONFLICT (key) WHERE type = 'payment' DO NOTHING"
)
# The disk is full, or there are too many open files: the journal itself may be as good as ever.
_NOT_ITS_FAULT: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
)
_VIEWS: Final = {
    "intents": (
        "intent",
        ("side", "price", "qty", "reduce_only", "at_market", "kind", "ideal_price", "ideal_qty"),
    ),
    "outcomes": ("outcome", ("verdict", "status", "code", "text", "order_id")),
    "fills": (
        "fill",
        (
            *("order_id", "client_id", "side", "price", "qty", "fee", "pnl", "maker", "kind"),
            *("venue_ts_ms", "cause", "pos_size", "pos_price", "liq_price", "wallet"),
        ),
    ),
    "payments": ("payment", ("amount", "venue_ts_ms")),
    "equity": ("equity", ("wallet", "equity", "pos_size", "pos_price", "price", "close_base")),
    "runs": ("run", ("what", "instance", "reason", "version", "config_hash")),
}


def _schema() -> Iterator[str]:
    yield _TABLE
    for kind in ("fill", "payment"):
        yield f"CREATE UNIQUE INDEX {kind}_once ON entries (key) WHERE type = '{kind}'"
    for name, (kind, fields) in _VIEWS.items():
        columns = "".join(f", json_extract(body, '$.{field}') AS {field}" for field in fields)
        yield (
            f"CREATE VIEW {name} AS SELECT seq, ts_ms, key{columns} FROM entries "
            f"WHERE type = '{kind}'"
        )


class JournalError(PassivxError):
    """The journal cannot be written, or read, now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; ``key`` is a client id, a trade id or a payment's id, by ``type``."""

    seq: int
    ts_ms: int
    type: str
    key: str
    body: dict[str, Any]


@dataclass(slots=True)
class Memory:
    """What earlier runs leave for the next one.

    ``open_intents``: by client id, the intents without a final outcome, and ``filled`` what is
    known to have filled of them; ``fill_ids`` of the newest fills; ``close_base``: the last one
    known, None when there is none.
    """

    open_intents: dict[str, Entry] = field(default_factory=dict)
    filled: dict[str, float] = field(default_factory=dict)
    fill_ids: list[str] = field(default_factory=list)
    payment_ids: list[str] = field(default_factory=list)
    last_fill_ms: int = 0
    close_base: float | None = None
    close_base_size: float = 0.0
    n_entries: int = 0


class Journal:
    """One account and symbol's journal. Use it from one thread, and close it.

    A file that is no journal, is damaged or of another version is set aside under another name,
    `quarantined` says which, and a new one is begun: whatever it held, the venue holds too, except
    for the size that the close grid was built from.

    Raises
    ------
    JournalError
        If the file can neither be opened nor set aside.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.quarantined: Path | None = None
        self._seq = 0
        self._chain = b""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._open()
            # Where damage is quoted in an error, Python may fail to read the error.
            except (sqlite3.DatabaseError, JournalError, UnicodeDecodeError) as e:
                if _code(e) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise JournalError(
                        f"{path}: is in use by another program; close that first"
                    ) from e
                if _code(e) in _NOT_ITS_FAULT or not os.access(path, os.R_OK | os.W_OK):
                    raise
                self._set_aside(e)
                self._open()
        except (sqlite3.Error, OSError) as e:
            raise JournalError(f"{path}: cannot be opened ({e})") from e
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._checkpoints, name="journal", daemon=True)
        self._keeper.start()

    # --- writing ---

    def write(self, rows: Sequence[tuple[int, str, str, Mapping[str, Any]]]) -> None:
        """Write entries (ts_ms, type, key, body) and commit: all of them or none.

        A fill or payment whose key is there already is left out.

        Raises
        ------
        JournalError
            If the disk is full, the file locked or broken. It may work the next time.
        """
        seq, chain = self._seq, self._chain
        db = self._db
        # One row is a transaction by itself, and an order waits for it.
        many = len(rows) > 1
        try:
            if many:
                db.execute("BEGIN IMMEDIATE")
            for ts_ms, kind, key, body in rows:
                text = orjson.dumps(body)
                link = _chained(chain, seq + 1, ts_ms, kind, key, text)
                done = db.execute(_INSERT, (seq + 1, ts_ms, kind, key, text.decode(), link))
                if done.rowcount == 1:
                    seq, chain = seq + 1, link
            if many:
                db.execute("COMMIT")
        except BaseException as e:
            with contextlib.suppress(sqlite3.Error):
                if db.in_transaction:
                    db.execute("ROLLBACK")
            if isinstance(e, sqlite3.Error):
                raise JournalError(f"{self.path}: cannot be written ({e})") from e
            raise
        self._seq, self._chain = seq, chain

    def close(self) -> None:
        """Copy the log into the file, and close it."""
        self._stop.set()
        self._keeper.join()
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    # --- reading ---

    def memory(self, most_fills: int = 20_000) -> Memory:
        """Return what earlier runs have left."""
        found = Memory(n_entries=self._seq)
        db = self._db
        final = (
            "SELECT key FROM entries WHERE type = 'outcome' AND json_extract(body, '$.final') = 1"
        )
        rows = db.execute(
            f"SELECT * FROM entries WHERE type = 'intent' AND key NOT IN ({final}) ORDER BY seq"
        )
        found.open_intents = {entry.key: entry for entry in map(_entry, rows)}
        for client_id in found.open_intents:
            (qty,) = db.execute(
                "SELECT sum(json_extract(body, '$.qty')) FROM entries "
                "WHERE type = 'fill' AND json_extract(body, '$.client_id') = ?",
                (client_id,),
            ).fetchone()
            found.filled[client_id] = qty or 0.0
        for kind, ids in (("fill", found.fill_ids), ("payment", found.payment_ids)):
            ids += [
                key
                for (key,) in db.execute(
                    "SELECT key FROM entries WHERE type = ? ORDER BY seq DESC LIMIT ?",
                    (kind, most_fills),
                )
            ][::-1]
        (last,) = db.execute(
            "SELECT max(json_extract(body, '$.venue_ts_ms')) FROM entries WHERE type = 'fill'"
        ).fetchone()
        found.last_fill_ms = last or 0
        row = db.execute(
            "SELECT * FROM entries WHERE type IN ('equity', 'fill') ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        if row is not None:
            body = _entry(row).body
            found.close_base = body.get("close_base")
            found.close_base_size = body.get("pos_size", 0.0)
        return found

    # --- rooms ---

    def _open(self) -> None:
        fresh = not self.path.exists()
        if fresh:
            # Nobody else's business, from the first moment on.
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
        # Never wait for a lock, for the loop would stand still: who writes tries again.
        self._db = db = sqlite3.connect(
            self.path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            schema = {text for (text,) in db.execute("SELECT sql FROM sqlite_master")}
            if version == 0 and not schema:
                db.execute("BEGIN IMMEDIATE")
                for statement in _schema():
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
            elif version != VERSION:
                raise JournalError(f"is of version {version}, this program writes {VERSION}")
            elif not schema.issuperset(_schema()):
                raise JournalError("is damaged: its tables are not what they were made as")
            for (said,) in db.execute("PRAGMA integrity_check(1)"):
                if said != "ok":
                    raise JournalError(f"is damaged: {said}")
            self._seq, self._chain = _follow(db)
        except BaseException:
            db.close()
            raise

    def _set_aside(self, why: Exception) -> None:
        n = 1
        while (aside := self.path.with_name(f"{self.path.name}.broken{n}")).exists():
            n += 1
        try:
            self.path.replace(aside)
            for end in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self.path}{end}").replace(f"{aside}{end}")
        except OSError as e:
            raise JournalError(f"{self.path}: {why}; and cannot be moved ({e.strerror})") from e
        self.quarantined = aside
        log.error("journal %s: %s; it is kept as %s and a new one begun", self.path, why, aside)

    def _checkpoints(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path, timeout=0.0)) as db:
            while not self._stop.wait(_CHECKPOINT_S):
                # Readers and the writer go on meanwhile; what is locked is copied next time.
                with contextlib.suppress(sqlite3.Error, OSError):
                    if Path(f"{self.path}-wal").stat().st_size > _LOG_BYTES:
                        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def read_entries(path: Path, *kinds: str) -> Iterator[Entry]:
    """Yield a journal's entries of those types (all when none is named), without touching it.

    Raises
    ------
    JournalError
        If it cannot be read.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            marks = ", ".join("?" * len(kinds))
            where = f"WHERE type IN ({marks})" if kinds else ""
            yield from map(_entry, db.execute(f"SELECT * FROM entries {where} ORDER BY seq", kinds))
    except (sqlite3.Error, ValueError) as e:
        raise JournalError(f"{path}: cannot be read ({e})") from e


def _code(error: Exception) -> int:
    """Return SQLite's own number of an error, without its details; 0 when it is not of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _entry(row: tuple[Any, ...]) -> Entry:
    seq, ts_ms, kind, key, body, _ = row
    return Entry(seq, ts_ms, kind, key, orjson.loads(body))


def _chained(before: bytes, seq: int, ts_ms: int, kind: str, key: str, body: bytes) -> bytes:
    head = f"{seq}\0{ts_ms}\0{kind}\0{key}\0".encode()
    return hashlib.blake2b(before + head + body, digest_size=_SUM_BYTES).digest()


def _follow(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Check the whole chain, and return its end."""
    last, chain = 0, b""
    rows = db.execute("SELECT seq, ts_ms, type, key, body, chain FROM entries ORDER BY seq")
    for seq, ts_ms, kind, key, body, link in rows:
        if seq != last + 1:
            raise JournalError(f"entry {last + 1} is missing")
        try:
            chain = _chained(chain, seq, ts_ms, kind, key, body.encode())
        except AttributeError:
            chain = b""
        if chain != link:
            raise JournalError(f"entry {seq} is not what was written")
        last = seq
    return last, chain
