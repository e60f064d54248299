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
        ``(ts_ms, rate)`` themselves, none at all if need be. Times in milliseconds UTC; a rate > 0
        is paid by longs. Series that run newest first are turned round.

    Raises
    ------
    DataError
        If the file cannot be read, holds no settlement, or a value is unusable; it names file and
        line (for JSON the entry).
    ConfigError
        If values given directly are unusable.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        text = _text_of(path)
        is_json = text.lstrip()[:1] in ("[", "{")
        try:
            series = _series(_json_rows(text) if is_json else _csv_rows(text))
        except _BadRowError as e:
            if is_json and e.at is not None:
                raise DataError(f"entry [{e.at}]: {e.message}", path) from None
            raise DataError(e.message, path, e.at) from None
        if not len(series):
            raise DataError("holds no settlement: give a file with some, or none at all", path)
        return series
    if isinstance(source, np.ndarray):
        if source.dtype.names and not {"ts_ms", "rate"} <= set(source.dtype.names):
            message = "must have the fields ts_ms and rate"
            raise ConfigError([Problem("funding", source.dtype.names, message)])
        pairs: list[Any] = (source[["ts_ms", "rate"]] if source.dtype.names else source).tolist()
    else:
        pairs = list(source)
    try:
        return _series(list(enumerate(pairs)))
    except _BadRowError as e:
        raise ConfigError([Problem(f"funding[{e.at}]", None, e.message)]) from None


class _BadRowError(Exception):
    def __init__(self, message: str, at: int | None) -> None:
        self.message, self.at = message, at  # at: line of a csv, else entry


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError("is not UTF-8 text: save the series as csv or JSON", path) from e
    except (OSError, ValueError) as e:  # ValueError: a NUL character in the path
        why = getattr(e, "strerror", None) or e
        raise DataError(f"cannot be read: {why}; check the path", path) from e


def _csv_rows(text: str) -> list[tuple[int, Any]]:
    """Return ``(line, [time, rate])`` of every row."""
    if not text.strip():
        raise _BadRowError("is empty: give a csv or JSON with settlements", None)
    reader = csv.reader(io.StringIO(text, newline=None))
    rows: list[tuple[int, Any]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        chosen = _columns(header, 1)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                message = f"has {len(row)} fields, the header {len(header)}: correct it"
                raise _BadRowError(message, reader.line_num)
            rows.append((reader.line_num, [row[i].strip() for i in chosen]))
    except csv.Error as e:
        raise _BadRowError(f"is not csv ({e}): check the file", reader.line_num) from e
    return rows


def _json_rows(text: str) -> list[tuple[int, Any]]:
    """Return ``(entry, [time, rate])`` of every entry."""
    try:
        entries = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise _BadRowError(f"is not JSON: {e}; check the file", None) from e
    if not isinstance(entries, list):
        message = "must be a JSON list of objects or of [ts_ms, rate] pairs: take it out of the "
        raise _BadRowError(message + "object around it", None)
    rows: list[tuple[int, Any]] = []
    for i, entry in enumerate(entries):
        if isinstance(entry, dict):
            names = list(entry)
            entry = [entry[names[k]] for k in _columns(names, i)]
        rows.append((i, entry))
    return rows


def _columns(names: Sequence[str], at: int) -> tuple[int, int]:
    found = []
    for what, known in (("time", _TIMES), ("rate", _RATES)):
        columns = [i for i, name in enumerate(names) if name in known]
        if len(columns) != 1:
            raise _BadRowError(
                f"must name one {what} column ({', '.join(known)}), was {', '.join(names)[:80]!r}",
                at,
            )
        found.append(columns[0])
    return found[0], found[1]


def _series(rows: list[tuple[int, Any]]) -> npt.NDArray[np.void]:
    out = np.empty(len(rows), FUNDING_DTYPE)
    for i, (at, pair) in enumerate(rows):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _BadRowError(f"must be a pair (ts_ms, rate), was {pair!r:.60}", at)
        ts_ms, rate = (_number(value, at) for value in pair)
        if ts_ms != int(ts_ms) or not 0 <= ts_ms < _MS[1] or 10**9 <= ts_ms < _MS[0]:
            raise _BadRowError(
                f"time must be whole milliseconds UTC, was {pair[0]}: convert seconds or "
                "microseconds",
                at,
            )
        if not abs(rate) < _MOST:
            raise _BadRowError(
                f"rate must be a fraction in (-1, 1), was {pair[1]}: divide percent by 100", at
            )
        out[i] = (int(ts_ms), rate)
    order = np.argsort(out["ts_ms"], kind="stable")
    out = out[order]
    twice = np.flatnonzero(np.diff(out["ts_ms"]) == 0)
    if len(twice):
        at = rows[int(order[twice[0] + 1])][0]
        raise _BadRowError(f"time {out['ts_ms'][twice[0]]} is given twice: keep one", at)
    return out


def _number(value: Any, at: int) -> float:
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = None
    if not is_number(number):
        raise _BadRowError(f"{value!r:.60} is not a finite number: correct or remove it", at)
    return float(number)
