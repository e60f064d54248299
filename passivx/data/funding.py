"""Read a funding series: when the venue settled, at what rate."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from passivx._core.types import FUNDING_DTYPE
from passivx.documents import is_number
from passivx.errors import ConfigError, DataError, Problem

__all__ = ["FundingSource", "load_funding"]

FundingSource = str | os.PathLike[str] | Iterable[tuple[int, float]] | npt.NDArray[np.void]

# A row of the simple csv, of Binance's archive (last three) and of both venues' REST answers.
_TIMES = ("ts_ms", "timestamp", "fundingTime", "fundingRateTimestamp", "calc_time")
_RATES = ("rate", "funding_rate", "fundingRate", "last_funding_rate")
# A settlement takes or gives less than the whole position.
_MOST = 1.0
# 2001 to 5138 in milliseconds; what lies outside is in another unit. A synthetic market may start
# at 0.
_MS = (10**12, 10**14)


def load_funding(source: FundingSource) -> npt.NDArray[np.void]:
    """Return a funding series in time order: FUNDING_DTYPE (ts_ms, rate), shape (n,).

    Parameters
    ----------
    source : path, or pairs, or array
        A csv with a header that names a time and a rate column (``ts_ms,rate``; the venues' own
        names are known too); a JSON list of objects with such names, or of pairs; or pairs
        ``(ts_ms, rate)`` themselves. Times in milliseconds UTC; a rate > 0 is paid by longs.
        Series that run newest first are turned round.

    Raises
    ------
    DataError
        If the file cannot be read or a value is unusable; it names file and line (for JSON the
        entry).
    ConfigError
        If values given directly are unusable.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            rows = _rows_of(path)
            return _series(rows)
        except _BadRowError as e:
            raise DataError(e.message, path, e.line) from None
    if isinstance(source, np.ndarray) and source.dtype.names:
        pairs: list[Any] = source[["ts_ms", "rate"]].tolist()
    else:
        pairs = list(source)
    try:
        return _series([(i, pair) for i, pair in enumerate(pairs)])
    except _BadRowError as e:
        raise ConfigError([Problem(f"funding[{e.line}]", None, e.message)]) from None


class _BadRowError(Exception):
    def __init__(self, message: str, line: int | None) -> None:
        self.message, self.line = message, line


def _rows_of(path: Path) -> list[tuple[int, Any]]:
    """Return ``(line or entry, [time, rate])`` of a file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise DataError(f"cannot be read: {e.strerror or e}; check the path", path) from e
    except UnicodeDecodeError as e:
        raise DataError("is not UTF-8 text: save the series as csv or JSON", path) from e
    if text.lstrip()[:1] in ("[", "{"):
        return _json_rows(text)
    reader = csv.reader(io.StringIO(text))
    header = [name.strip() for name in next(reader, [])]
    chosen = _columns(header, 1)
    rows: list[tuple[int, Any]] = []
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise _BadRowError(
                f"has {len(row)} fields, the header {len(header)}: correct it", reader.line_num
            )
        rows.append((reader.line_num, [row[i].strip() for i in chosen]))
    return rows


def _json_rows(text: str) -> list[tuple[int, Any]]:
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise _BadRowError(f"is not JSON: {e}", e.lineno) from e
    if not isinstance(entries, list):
        raise _BadRowError("must be a JSON list of objects or of [ts_ms, rate] pairs", None)
    rows: list[tuple[int, Any]] = []
    for i, entry in enumerate(entries):
        if isinstance(entry, dict):
            names = list(entry)
            entry = [entry[names[k]] for k in _columns(names, i)]
        rows.append((i, entry))
    return rows


def _columns(names: Sequence[str], line: int) -> tuple[int, int]:
    found = []
    for what, known in (("time", _TIMES), ("rate", _RATES)):
        at = [i for i, name in enumerate(names) if name in known]
        if len(at) != 1:
            raise _BadRowError(
                f"must name one {what} column ({', '.join(known)}), was {', '.join(names)[:80]!r}",
                line,
            )
        found.append(at[0])
    return found[0], found[1]


def _series(rows: list[tuple[int, Any]]) -> npt.NDArray[np.void]:
    out = np.empty(len(rows), FUNDING_DTYPE)
    lines = [line for line, _ in rows]
    for i, (line, pair) in enumerate(rows):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _BadRowError(f"must be a pair (ts_ms, rate), was {pair!r:.60}", line)
        ts_ms, rate = (_number(value, line) for value in pair)
        if ts_ms != int(ts_ms) or not 0 <= ts_ms < _MS[1] or 10**9 <= ts_ms < _MS[0]:
            raise _BadRowError(f"time must be whole milliseconds UTC, was {pair[0]}", line)
        if not abs(rate) < _MOST:
            raise _BadRowError(f"rate must be a fraction in (-1, 1), was {pair[1]}", line)
        out[i] = (int(ts_ms), rate)
    order = np.argsort(out["ts_ms"], kind="stable")
    out = out[order]
    twice = np.flatnonzero(np.diff(out["ts_ms"]) == 0)
    if len(twice):
        line = lines[int(order[twice[0] + 1])]
        raise _BadRowError(f"time {out['ts_ms'][twice[0]]} is given twice: keep one", line)
    return out


def _number(value: Any, line: int) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _BadRowError(f"{value!r:.60} is not a number", line) from None
    if not is_number(value):
        raise _BadRowError(f"{value!r:.60} is not a finite number", line)
    return float(value)
