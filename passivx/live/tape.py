"""The public trades a bot has seen, kept for a week: what `passivx parity` replays."""

from __future__ import annotations

import contextlib
import logging
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["TRADE_DTYPE", "Tape", "read_tape"]

log = logging.getLogger(__name__)

TRADE_DTYPE: Final = np.dtype(
    [("trade_id", "<i8"), ("price", "<f8"), ("qty", "<f8"), ("ts_ms", "<i8"), ("maker", "<i8")]
)
"""One trade; ``trade_id`` 0 where the venue's id is no number, ``maker`` 1: the buyer was."""

_ROW: Final = struct.Struct("<qddqq")
_MS_PER_DAY: Final = 86_400_000
_KEEP_DAYS: Final = 7
_MOST_WAITING: Final = 4 << 20


class Tape:
    """One symbol's trades, a file a UTC day of TRADE_DTYPE rows. Nothing it does stops a bot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = bytearray()
        self._day = -1
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def trade(self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool) -> None:
        """Keep a trade."""
        day = ts_ms // _MS_PER_DAY
        if day != self._day:
            self.flush()
            self._day = day
            self._prune()
        number = int(trade_id) if trade_id.isdecimal() and len(trade_id) < 19 else 0
        self._waiting += _ROW.pack(number, price, qty, ts_ms, buyer_maker)

    def flush(self) -> None:
        """Write what waits; what cannot be written is kept for later, up to 4 MiB of it."""
        if not self._waiting:
            return
        try:
            with (self._folder / _name(self._day)).open("ab") as file:
                # A torn row of a run that was killed would shift all that follow.
                if torn := file.tell() % _ROW.size:
                    file.truncate(file.tell() - torn)
                file.write(self._waiting)
        except OSError as e:
            if len(self._waiting) < _MOST_WAITING:
                return
            log.warning("the tape of trades is not written: %s", e.strerror)
        self._waiting.clear()

    def _prune(self) -> None:
        for path in self._folder.glob("*.trades"):
            if path.stem < _name(self._day - _KEEP_DAYS).removesuffix(".trades"):
                with contextlib.suppress(OSError):
                    path.unlink()


def read_tape(folder: Path, start_ms: int, end_ms: int) -> npt.NDArray[np.void]:
    """Return the trades kept of that time, both ends included, as TRADE_DTYPE rows in order."""
    rows = [np.empty(0, TRADE_DTYPE)]
    for day in range(start_ms // _MS_PER_DAY, end_ms // _MS_PER_DAY + 1):
        path = folder / _name(day)
        if path.exists():
            content = path.read_bytes()
            whole = len(content) - len(content) % _ROW.size
            rows.append(np.frombuffer(content[:whole], TRADE_DTYPE))
    trades = np.concatenate(rows)
    return trades[(trades["ts_ms"] >= start_ms) & (trades["ts_ms"] <= end_ms)]


def _name(day: int) -> str:
    return f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}.trades"
