"""One bot per account and symbol on this machine."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from passivx.clock import Clock, WallClock
from passivx.errors import PassivxError

__all__ = ["AccountLock", "account_tag"]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WORD: Final = re.compile(r"[A-Za-z0-9._%-]{1,64}")
# Longer than what `take` writes.
_MOST_BYTES: Final = 512


def account_tag(key_text: str) -> str:
    """Return a short name of the account that an API key is of: 10 hex digits of its SHA-256.

    It does not lead back to the key. Two keys of one account have two names.
    """
    return hashlib.sha256(key_text.encode()).hexdigest()[:10]


class AccountLock:
    """Held from `take` to `release`, or until this process ends, however it ends.

    The kernel holds it, by ``flock`` on ``folder/{exchange}-{account}-{symbol}.lock``: what an
    earlier process left in the file does not matter, and the file stays. It says who holds it, for
    the message of the one who is refused. All bots of the machine must name the same folder, on a
    local disk: on NFS a lock may be lost, or keep nobody out.

    Parameters
    ----------
    folder : Path
        Made (0700) if it is missing.
    account : str
        `account_tag` of the API key: the name of the file is no secret.

    Raises
    ------
    ValueError
        If one of the words cannot be part of a file's name.
    """

    def __init__(
        self, folder: Path, exchange: str, account: str, symbol: str, *, clock: Clock | None = None
    ) -> None:
        for word in (exchange, account, symbol):
            if not _WORD.fullmatch(word):
                raise ValueError(f"must be 1 to 64 of A-Z a-z 0-9 . _ % -, was {word!r:.80}")
        self.path = folder / f"{exchange}-{account}-{symbol}.lock"
        self._symbol = symbol
        self._clock = clock or WallClock()
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock, at once or not at all.

        Raises
        ------
        PassivxError
            If another bot has it (its process and start are named), or there can be no lock here.
        """
        if fcntl is None:
            raise PassivxError("this system has no file locks: live trading needs Linux or macOS")
        # Not inherited by programs started later, which would hold it beyond our end.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as e:
            raise PassivxError(f"{self.path}: cannot be opened ({e.strerror})") from e
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise PassivxError(
                f"another bot{holder} trades {self._symbol} on this account; stop it first"
            ) from None
        except OSError as e:
            os.close(descriptor)
            raise PassivxError(
                f"{self.path}: cannot be locked ({e.strerror}); put it on a local disk"
            ) from e
        self._descriptor = descriptor
        me = orjson.dumps({"pid": os.getpid(), "started_ms": self._clock.time_ms()})
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, me, 0)
        except OSError:
            # A full disk: the lock holds, only its message will not name us.
            pass

    def release(self) -> None:
        """Let the next one have it; nothing happens when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    """Return who holds the lock, in words; nothing when the file does not tell."""
    try:
        row = orjson.loads(os.pread(descriptor, _MOST_BYTES, 0))
        pid, started_ms = int(row["pid"]), int(row["started_ms"])
        started = datetime.fromtimestamp(started_ms / 1000, UTC)
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        # The other one has just taken it, or its disk is full.
        return ""
    return f" (pid {pid}, started {started:%Y-%m-%d %H:%M:%S} UTC)"
