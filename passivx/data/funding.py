"""Read a funding series: when the venue settled, at what rate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import FUNDING_DTYPE
from passivx.data.tables import Column, Fail, Row, number_of, read_rows, values_of
from passivx.errors import ConfigError, Problem

__all__ = ["FundingSource", "load_funding"]

FundingSource = (
    str
    | os.PathLike[str]
    | Iterable[tuple[int, float]]
    | Iterable[Mapping[str, Any]]
    | npt.NDArray[np.void]
)

# Of the simple csv, of Binance's archive (last three) and of both venues' REST answers.
_COLUMNS = (
    Column("time", ("ts_ms", "timestamp", "fundingTime", "fundingRateTimestamp", "calc_time")),
    Column("rate", ("rate", "funding_rate", "fundingRate", "last_funding_rate")),
)
# A settlement takes or gives less than the whole position.
_MOST = 1.0
# 2001 to 5138 in milliseconds; what lies outside is in another unit. A synthetic market may start
# at 0.
_MS = (10**12, 10**14)


def load_funding(source: FundingSource) -> npt.NDArray[np.void]:
    """Return a funding series in time order: FUNDING_DTYPE (ts_ms, rate), shape (n,).

    Parameters
    ----------
    source : path, or entries, or array
        A csv with a header that names a time and a rate column (``ts_ms,rate``; the venues' own
        names are known too); a JSON list of objects with such names, or of pairs; or such objects
        or pairs ``(ts_ms, rate)`` themselves, none at all if need be. Times in milliseconds UTC; a
        rate > 0 is paid by longs. Series that run newest first are turned round.

    Raises
    ------
    DataError
        If the file cannot be read, holds no settlement, or a value is unusable; it names file and
        line (for JSON the entry).
    ConfigError
        If values given directly are unusable.
    """
    if isinstance(source, str | os.PathLike):
        return _series(read_rows(Path(source), _COLUMNS, of="settlements"))
    if isinstance(source, np.ndarray):
        if source.dtype.names and not {"ts_ms", "rate"} <= set(source.dtype.names):
            message = "must have the fields ts_ms and rate"
            raise ConfigError([Problem("funding", source.dtype.names, message)])
        source = (source[["ts_ms", "rate"]] if source.dtype.names else source).tolist()
    if not isinstance(source, Iterable):
        message = "must be a file, or pairs (ts_ms, rate)"
        raise ConfigError([Problem("funding", source, message)])
    return _series([(_given(i), values_of(e, _COLUMNS, _given(i))) for i, e in enumerate(source)])


def _given(i: int) -> Fail:
    return lambda message: ConfigError([Problem(f"funding[{i}]", None, message)])


def _series(rows: list[Row]) -> npt.NDArray[np.void]:
    out = np.empty(len(rows), FUNDING_DTYPE)
    for i, (fail, values) in enumerate(rows):
        ts_ms, rate = (number_of(value, fail) for value in values)
        if ts_ms != int(ts_ms) or not 0 <= ts_ms < _MS[1] or 10**9 <= ts_ms < _MS[0]:
            raise fail(
                f"time must be whole milliseconds UTC, was {values[0]}: convert seconds or "
                "microseconds"
            )
        if not abs(rate) < _MOST:
            raise fail(
                f"rate must be a fraction in (-1, 1), was {values[1]}: divide percent by 100"
            )
        out[i] = (int(ts_ms), rate)
    order = np.argsort(out["ts_ms"], kind="stable")
    out = out[order]
    twice = np.flatnonzero(np.diff(out["ts_ms"]) == 0)
    if len(twice):
        fail, _ = rows[int(order[twice[0] + 1])]
        raise fail(f"time {out['ts_ms'][twice[0]]} is given twice: keep one")
    return out
