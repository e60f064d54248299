"""Keeps a bot that fails again and again from starting for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import orjson

from passivx.clock import Clock
from passivx.errors import PassivxError
from passivx.files import atomic_write
from passivx.live.status import printable

__all__ = ["Breaker"]

_SCHEMA: Final = 1
_MOST_WAIT_S: Final = 60.0
_MOST_TEXT: Final = 300


class _Failure(NamedTuple):
    ms: int
    reason: str


class Breaker:
    """Failed starts and crashes on record: how long to wait, and when to wait for a person.

    Once ``most`` failures came within ``within_s`` it is open, and stays open, whatever the clocks
    say, until `reset` or until the file is removed: a bot that cannot run does not mend by waiting.
    A file that cannot be read counts as open. Only the process with the account's lock may use it.

    Failures are told apart by wall time. Where that was set back they count as of this moment,
    where it was set forward they may be taken for old ones; an open breaker is not touched by it.

    Raises
    ------
    ValueError
        If ``most`` or ``within_s`` is not positive.
    """

    def __init__(self, path: Path, clock: Clock, *, most: int = 5, within_s: float = 600.0) -> None:
        if most < 1 or not within_s > 0.0:
            raise ValueError(f"most and within_s: must be > 0, were {most!r} and {within_s!r}")
        self._path = path
        self._clock = clock
        self._most = most
        self._within_s = within_s
        self._failures: list[_Failure] = []
        self._opened = False
        self._fault = ""
        self._load()

    @property
    def open(self) -> bool:
        """Whether nothing may be started."""
        return self._opened or bool(self._fault)

    def why(self) -> str:
        """Return why it is open and what to do; empty when it is closed."""
        if self._fault:
            return (
                f"{self._path}: the record of failed starts {self._fault}, so there may have been "
                f"too many; look at the last ones, then remove it: rm {self._path}"
            )
        if not self._opened:
            return ""
        last = self._failures[-1].reason
        return (
            f"{len(self._failures)} failures within {self._within_s:g} s, the last: {last}; "
            f"nothing is started until the cause is mended and this is removed: rm {self._path}"
        )

    def wait_s(self) -> float:
        """Return how long to wait before the next start, s: 1, 2, 4 … 60 from the last failure."""
        recent = self._recent()
        if not recent:
            return 0.0
        whole_s = min(_MOST_WAIT_S, 2.0 ** min(len(recent) - 1, 10))
        return max(0.0, whole_s - self._age_s(recent[-1]))

    def failed(self, reason: str) -> None:
        """Take down that a start failed or a run crashed; it is on disk when this returns.

        Raises
        ------
        PassivxError
            If it cannot be written. It counts for this process all the same.
        """
        failure = _Failure(self._clock.time_ms(), _shown(reason))
        self._failures = [*self._recent(), failure][-self._most :]
        self._opened = self._opened or len(self._failures) >= self._most
        # A file that could not be read is left for a person to look at.
        if not self._fault:
            self._save()

    def ended_well(self) -> None:
        """Forget the failures, for a bot ended as it was told to; an open breaker stays open.

        Raises as `reset` does.
        """
        if not self.open and self._failures:
            self.reset()

    def reset(self) -> None:
        """Close it and forget everything.

        Raises
        ------
        PassivxError
            If the file cannot be removed.
        """
        try:
            self._path.unlink(missing_ok=True)
        except OSError as e:
            raise PassivxError(f"{self._path}: cannot be removed ({e.strerror})") from e
        self._failures, self._opened, self._fault = [], False, ""

    def _recent(self) -> list[_Failure]:
        # What opened it is kept, so that the reasons are still there when somebody looks.
        if self._opened:
            return self._failures
        return [each for each in self._failures if self._age_s(each) < self._within_s]

    def _age_s(self, failure: _Failure) -> float:
        return max(0.0, (self._clock.time_ms() - failure.ms) / 1000)

    def _load(self) -> None:
        try:
            row = orjson.loads(self._path.read_bytes())
            if row["schema"] != _SCHEMA:
                self._fault = f"is of another version ({row['schema']!r:.20})"
                return
            self._failures = [
                _Failure(int(each["ms"]), _shown(str(each["reason"]))) for each in row["failures"]
            ]
            self._opened = bool(row["open"])
        except FileNotFoundError:
            pass
        except OSError as e:
            self._fault = f"cannot be read ({e.strerror})"
        except (ValueError, TypeError, LookupError):
            self._fault = "is damaged"
        if self._opened and not self._failures:
            self._fault = "is damaged"

    def _save(self) -> None:
        row = {
            "schema": _SCHEMA,
            "open": self._opened,
            "failures": [each._asdict() for each in self._failures],
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, orjson.dumps(row), mode=0o600)
        except OSError as e:
            raise PassivxError(f"{self._path}: cannot be written ({e.strerror})") from e


def _shown(reason: str) -> str:
    return printable(reason)[:_MOST_TEXT] or "no reason was given"
