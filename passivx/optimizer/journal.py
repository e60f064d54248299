"""What a session has done, on disk: every result once, in order, whatever happens to the process.

``results.jsonl`` is append-only: a line for each candidate that was run, in the order in which
they were proposed. Workers finish out of order: what is done ahead of its turn waits in
``.ahead.jsonl``. A line is written in one call, so that only the last one can be torn: by a killed
process or a full disk.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import orjson

from passivx.errors import DataError, PassivxError

__all__ = ["AHEAD", "RESULTS", "Journal", "Name", "Verdict"]

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two sessions apart there
    fcntl = None  # type: ignore[assignment]

RESULTS: Final = "results.jsonl"
AHEAD: Final = ".ahead.jsonl"

Name = tuple[int, str]  # window, 0 without a walk-forward; key


class Verdict(NamedTuple):
    """What a line says of its candidate: objective None when rejected; whether it made money."""

    status: str
    objective: float | None
    earns: bool


class Journal:
    """The results of a session, by name: (window, key).

    ``torn`` says which files had a torn last line, which was cut off. Two processes cannot have the
    same journal open.

    Raises
    ------
    PassivxError
        If another process has it open, or it cannot be written.
    DataError
        If a line in the middle of a file is no result.
    """

    def __init__(self, folder: Path) -> None:
        self.torn: list[str] = []
        self._path = folder / RESULTS
        self._ahead_path = folder / AHEAD
        self._written: dict[Name, tuple[int, Verdict]] = {}  # where its line begins
        self._waiting: dict[Name, dict[str, Any]] = {}
        self._unspilled: list[Name] = []
        with contextlib.ExitStack() as opened:
            self._file = opened.enter_context(_open(self._path))
            self._ahead_file = opened.enter_context(_open(self._ahead_path))
            for at, line in self._read(self._file):
                self._written[_name_of(line)] = (at, _verdict_of(line))
            for _, line in self._read(self._ahead_file):
                if _name_of(line) not in self._written:
                    self._waiting[_name_of(line)] = line
            self._files = opened.pop_all()
        # What earlier processes ran: the lines whose turn has not come again, and the rest.
        self._to_come = deque(self._written)
        self._found = frozenset(self._waiting)

    def __contains__(self, name: Name) -> bool:
        return name in self._written or name in self._waiting

    def __len__(self) -> int:
        return len(self._written)

    def verdict(self, name: Name) -> Verdict | None:
        """Return what is known of a result; None when it is not known."""
        if name in self._waiting:
            return _verdict_of(self._waiting[name])
        return self._written[name][1] if name in self._written else None

    def line(self, name: Name) -> dict[str, Any]:
        """Return a result that was written."""
        with self._path.open("rb") as file:
            file.seek(self._written[name][0])
            line: dict[str, Any] = orjson.loads(file.readline())
        return line

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines written so far, in order."""
        with self._path.open("rb") as file:
            yield from map(orjson.loads, file)

    def put(self, line: dict[str, Any]) -> None:
        """Take in a new result; it is on disk after `write`, or `spill`."""
        name = _name_of(line)
        self._waiting[name] = line
        self._unspilled.append(name)

    def spill(self) -> None:
        """Put what has come in and not been written where a later process finds it."""
        for name in self._unspilled:
            if name in self._waiting:
                self._write(self._ahead_file, self._waiting[name])
        self._unspilled = []

    def write(self, name: Name, k: int) -> tuple[bool, Verdict]:
        """Write a known result whose turn it is; ``k`` is the iteration that proposed it first.

        One that an earlier process wrote is not written again: it must be the next in the file.
        Return whether it came to be in this process, and its verdict.
        """
        if self._to_come:
            if self._to_come.popleft() != name:
                turn = len(self._written) - len(self._to_come)
                raise PassivxError(
                    f"{self._path}: line {turn} is not what these settings propose next: it was "
                    "written by another version, or edited; start a new session"
                )
            return False, self._written[name][1]
        line = self._waiting.pop(name)
        line["k"] = k
        self._written[name] = (self._write(self._file, line), _verdict_of(line))
        return name not in self._found, _verdict_of(line)

    def sync(self) -> None:
        """Return when everything written is on disk."""
        os.fsync(self._file.fileno())

    def close(self, *, finished: bool) -> None:
        """Close the files; ``finished``: nothing is waiting any more."""
        with self._files:
            self.spill()
            self.sync()
        if finished:
            self._ahead_path.unlink(missing_ok=True)

    def _write(self, file: IO[bytes], line: dict[str, Any]) -> int:
        at = file.seek(0, os.SEEK_END)
        text = orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        try:
            if file.write(text) == len(text):
                return at
            reason = "the disk is full"
        except OSError as e:
            reason = str(e.strerror)
        file.truncate(at)  # half a line in the middle would spoil the file
        raise PassivxError(f"{file.name}: cannot be written ({reason}); --resume goes on from here")

    def _read(self, file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        path = Path(file.name)
        at = 0
        with path.open("rb") as reader:
            for number, raw in enumerate(reader, 1):
                if not raw.endswith(b"\n"):
                    self.torn.append(path.name)
                    file.truncate(at)
                    break
                try:
                    line = orjson.loads(raw)
                    hash((_name_of(line), _verdict_of(line)))
                except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as e:
                    raise DataError("is no result of a session", path, number) from e
                yield at, line
                at += len(raw)


def _name_of(line: dict[str, Any]) -> Name:
    return line.get("window", 0), line["key"]


def _verdict_of(line: dict[str, Any]) -> Verdict:
    return Verdict(line["status"], line["objective"], (line.get("gain") or 0.0) > 1.0)


def _open(path: Path) -> IO[bytes]:
    with contextlib.ExitStack() as opened:
        try:
            # Unbuffered: what was written survives the process.
            file = opened.enter_context(path.open("a+b", buffering=0))
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise PassivxError(f"{path.parent}: another process is at this session") from e
        except OSError as e:
            raise PassivxError(f"{path}: cannot be written ({e.strerror})") from e
        opened.pop_all()
    return file
