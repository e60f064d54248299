"""What a bot tells others while it runs: how it is, and what happened.

Whoever wants to know reads files; nothing asks the bot. A disk that is full or a file that cannot
be written never stops trading: it is told afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

import orjson

from passivx.clock import Clock, WallClock
from passivx.errors import DataError, PassivxError
from passivx.files import atomic_write

__all__ = ["EventHandler", "EventLog", "Status", "StatusFile", "printable"]

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two writers of one log apart there
    fcntl = None  # type: ignore[assignment]

SCHEMA: Final = 1

# A log is for people: what is longer was sent to fill the disk.
_MOST_TEXT: Final = 2000
_DEEPEST: Final = 8
# Lines are written when so much waits for it, or by `flush`.
_BUFFER_BYTES: Final = 64 << 10
# What waits for a disk that is full; more is lost, and counted.
_MOST_WAITING_BYTES: Final = 1 << 20
_RETRY_S: Final = 1.0
_MOST_OPENS: Final = 3
_MOST_FRAMES: Final = 20
# A name that is a pipe must not hold the bot up.
_FLAGS: Final = (
    os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


def printable(text: str) -> str:
    """Return a text without what steers a terminal or reorders what is shown.

    Line ends, tabs and everything else that cannot be printed (ANSI sequences' escapes, bidi marks,
    surrogates) become spaces: none of it is ever part of what a venue has to say.
    """
    return "".join(c if c.isprintable() else " " for c in text)


def _plain(value: object, depth: int = 0) -> Any:
    """Return a value as JSON takes it, its texts printable; what JSON does not know as its text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, depth)
    if isinstance(value, int):
        # JSON readers agree on no more than 64 bits.
        return value if -(1 << 63) <= value < 1 << 63 else str(value)
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {_text(key): _plain(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset | deque):
            return [_plain(each, depth + 1) for each in value]
    return _text(value)


def _text(value: object) -> str:
    text = str(value)
    return printable(text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…")


# --- how it is ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """What a bot last wrote of itself: ``values``, from process ``pid``, at ``written_ms``."""

    values: Mapping[str, Any]
    pid: int
    written_ms: int

    def age_s(self, clock: Clock) -> float:
        """Return how long ago that was, s; 0 where the clock was set back since."""
        return max(0.0, (clock.time_ms() - self.written_ms) / 1000)


class StatusFile:
    """One JSON object, replaced as a whole: a reader always finds a complete one.

    A non-finite number is written as null.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or WallClock()
        self.problem = ""
        """Why the last write failed; empty when it did not."""

    def write(self, status: Mapping[str, Any]) -> bool:
        """Replace what the file says; False, and a ``problem``, when that cannot be done.

        ``schema``, ``pid`` and ``written_ms`` are added. It does not wait for the disk.
        """
        row = _plain(status) | {
            "schema": SCHEMA,
            "pid": os.getpid(),
            "written_ms": self._clock.time_ms(),
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, orjson.dumps(row) + b"\n", mode=0o600, durable=False)
        except OSError as e:
            self.problem = f"{self._path}: cannot be written ({e.strerror})"
            return False
        self.problem = ""
        return True

    @staticmethod
    def read(path: Path) -> Status:
        """Return what a bot last wrote; `Status.age_s` says how long ago.

        Raises
        ------
        DataError
            If there is no such file, or it is not a whole one of this version.
        """
        try:
            row = orjson.loads(path.read_bytes())
        except FileNotFoundError:
            raise DataError("is missing: no bot has run with this config here", path) from None
        except OSError as e:
            raise DataError(f"cannot be read ({e.strerror})", path) from e
        except ValueError:
            raise DataError(
                "is no whole status: a power cut? a running bot mends it", path
            ) from None
        if not isinstance(row, dict) or "schema" not in row:
            raise DataError("is no status of a bot", path)
        if row["schema"] != SCHEMA:
            raise DataError(
                f"schema must be {SCHEMA}, was {row['schema']!r:.20}: the bot that wrote it is of "
                "another version of passivx; restart it",
                path,
            )
        pid, written_ms = row.pop("pid", None), row.pop("written_ms", None)
        del row["schema"]
        if type(pid) is not int or type(written_ms) is not int:
            raise DataError("is no status of a bot", path)
        return Status(row, pid, written_ms)


# --- what happened --------------------------------------------------------------------------------


class EventLog:
    """JSON lines, one event each: ``ts_ms``, ``event`` and its fields. Nothing here ever raises.

    Lines wait in memory until there are 64 KiB of them or `flush` is called; that may be done from
    another thread. When they cannot be written they wait on, up to 1 MiB; what is lost beyond is
    counted, and told by an event ``log_lost`` once writing works again. A file that would grow
    beyond ``max_bytes`` becomes ``name.1``, that one ``name.2``, and so on up to ``keep``; a line
    is always whole. Several processes may write one log.

    Parameters
    ----------
    path : Path
        ``logs/{exchange}/{config_name}.log`` of a workspace. It is made when something is to be
        written, readable by its owner alone (0600).

    Raises
    ------
    ValueError
        If ``max_bytes`` is not positive or ``keep`` negative.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int, clock: Clock) -> None:
        if max_bytes < 1 or keep < 0:
            raise ValueError(
                f"max_bytes and keep: must be > 0 and >= 0, were {max_bytes!r} and {keep!r}"
            )
        self.problem = ""
        """Why the last flush failed; empty when it did not."""
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._untold = 0  # of those lost
        self._failed_s: float | None = None
        self._descriptor: int | None = None
        # Taken for as long as a list takes to change, never while the disk is waited for.
        # Reentrant, for a signal handler or a finalizer that writes while it is held.
        self._lists = threading.RLock()
        self._files = threading.Lock()

    @property
    def lost(self) -> int:
        """How many lines were lost so far."""
        return self._lost

    def write(self, event: str, /, **fields: object) -> None:
        """Take down that something happened, now."""
        try:
            row = {"ts_ms": self._clock.time_ms(), "event": _text(event)}
            # Its own two stand first, and are what they say whatever a field is called.
            line = orjson.dumps(row | _plain(fields) | row) + b"\n"
        except Exception:
            # Whatever a field is made of: its line is lost, not the bot.
            with self._lists:
                self._lose()
            return
        with self._lists:
            if self._waiting_bytes + len(line) > _MOST_WAITING_BYTES:
                self._lose()
                return
            self._enter(line)
            full = self._waiting_bytes >= _BUFFER_BYTES
        if full and not self._failed_lately() and self._files.acquire(blocking=False):
            try:
                self._flush()
            finally:
                self._files.release()

    def flush(self) -> None:
        """Write what waits."""
        with self._files:
            self._flush()

    def close(self) -> None:
        """Write what waits and let go of the file; what is written later opens it again."""
        with self._files:
            self._flush()
            self._let_go()

    def _lose(self) -> None:
        self._lost += 1
        self._untold += 1

    def _failed_lately(self) -> bool:
        return self._failed_s is not None and (
            self._clock.monotonic_s() - self._failed_s < _RETRY_S
        )

    # --- with `_files` held ---

    def _flush(self) -> None:
        try:
            while self._waiting or self._untold:
                self._write_some(self._own_file())
        except OSError as e:
            self.problem = f"{self._path}: cannot be written ({e.strerror or e})"
            self._failed_s = self._clock.monotonic_s()
        else:
            self.problem, self._failed_s = "", None
        finally:
            # Another process may have its turn.
            if fcntl is not None and self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _own_file(self) -> int:
        """Return the file of that name, open, with no other process writing to it."""
        for _ in range(_MOST_OPENS):
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, _FLAGS, 0o600)
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                    return self._descriptor
            # Rotated by another process, or removed.
            self._let_go()
        raise OSError(f"is replaced as fast as it is opened, {_MOST_OPENS} times")

    def _write_some(self, descriptor: int) -> None:
        """Write as many of the lines that wait as the file has room for, else put it away."""
        size = os.fstat(descriptor).st_size
        # After a power cut the last line may be torn: it then stands alone.
        torn = (
            size > 0
            and os.lseek(descriptor, -1, os.SEEK_END) >= 0
            and (os.read(descriptor, 1) != b"\n")
        )
        lines = self._taken(self._max_bytes - size - torn, whatever=size == 0)
        if not lines:
            self._rotate()
            return
        content = b"\n" * torn + b"".join(lines)
        written = 0
        try:
            while written < len(content):
                written += os.write(descriptor, content[written:])
        except OSError:
            whole = content.rfind(b"\n", 0, written) + 1
            n_whole = content.count(b"\n", 0, whole) - (torn and whole > 0)
            self._put_back(lines[n_whole:])
            # Of a line that the disk had no room for, nothing is left.
            if written > whole:
                os.ftruncate(descriptor, size + whole)
            raise

    def _taken(self, room: int, *, whatever: bool) -> list[bytes]:
        """Take the oldest lines that fit, at least one where its size does not matter."""
        lines: list[bytes] = []
        with self._lists:
            if self._untold and not self._waiting:
                # Once what was kept is written; before, a line a flush would pile up.
                row = {"ts_ms": self._clock.time_ms(), "event": "log_lost", "lines": self._untold}
                self._enter(orjson.dumps(row) + b"\n")
                self._untold = 0
            while self._waiting and (len(self._waiting[0]) <= room or (whatever and not lines)):
                line = self._waiting.popleft()
                self._waiting_bytes -= len(line)
                room -= len(line)
                lines.append(line)
        return lines

    def _put_back(self, lines: list[bytes]) -> None:
        with self._lists:
            self._waiting.extendleft(reversed(lines))
            self._waiting_bytes += sum(map(len, lines))

    def _enter(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _rotate(self) -> None:
        names = [
            self._path,
            *(self._path.with_name(f"{self._path.name}.{i}") for i in range(1, self._keep + 1)),
        ]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        if not self._keep:
            self._path.unlink()
        self._let_go()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class EventHandler(logging.Handler):
    """Puts what ``passivx`` and its modules log into an `EventLog`, as events ``log``.

    Of an exception that is no `PassivxError` the type and the places are told and not the text: a
    library's error may quote a signed address.
    """

    def __init__(self, events: EventLog, level: int = logging.INFO) -> None:
        super().__init__(level)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record down."""
        if record.name != "passivx" and not record.name.startswith("passivx."):
            return
        try:
            text = record.getMessage()
        except Exception as e:
            # A format that does not fit its arguments: somebody else's mistake, told and no more.
            text = f"{record.msg} ({type(e).__name__})"
        fields: dict[str, object] = {
            "level": record.levelname,
            "logger": record.name,
            "text": text,
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["error"] = type(error).__name__
            if isinstance(error, PassivxError):
                fields["why"] = str(error)
            # Not `extract_tb`, which reads the source files.
            frames = deque(traceback.walk_tb(error.__traceback__), _MOST_FRAMES)
            fields["trace"] = [
                f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
                for frame, line in frames
            ]
        self._events.write("log", **fields)
