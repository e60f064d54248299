"""Read a funding series: when the venue settled, at what rate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import FUNDING_DTYPE
from passivx.data.tables import Column, Fail, number_of, read_rows, values_of
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
    if isinstance(source, np.ndarray):
        if source.dtype == FUNDING_DTYPE:
            return _series(source["ts_ms"], source["rate"], _given)
        if source.dtype.names and not {"ts_ms", "rate"} <= set(source.dtype.names):
            message = "must have the fields ts_ms and rate"
            raise ConfigError([Problem("funding", source.dtype.names, message)])
        source = (source[["ts_ms", "rate"]] if source.dtype.names else source).tolist()
    if isinstance(source, str | os.PathLike):
        rows = read_rows(Path(source), _COLUMNS, of="settlements")
    elif isinstance(source, Iterable):
        rows = [(_given(i), values_of(e, _COLUMNS, _given(i))) for i, e in enumerate(source)]
    else:
        message = "must be a file, or pairs (ts_ms, rate)"
        raise ConfigError([Problem("funding", source, message)])
    numbers = [[number_of(value, fail) for value in values] for fail, values in rows]
    ts_ms, rate = np.array(numbers).reshape(-1, 2).T
    return _series(ts_ms, rate, lambda i: rows[i][0])


def _given(i: int) -> Fail:
    return lambda message: ConfigError([Problem(f"funding[{i}]", None, message)])


def _series(
    ts_ms: npt.NDArray[Any], rate: npt.NDArray[Any], fail_at: Callable[[int], Fail]
) -> npt.NDArray[np.void]:
    """Check the columns of a series, put them in time order; ``fail_at`` says where a row stands.

    Whole columns at a time: an optimizer hands the same series to every run.
    """
    in_ms = (ts_ms == np.floor(ts_ms)) & (ts_ms >= 0) & (ts_ms < _MS[1])
    in_ms &= (ts_ms < 10**9) | (ts_ms >= _MS[0])
    is_rate = np.abs(rate) < _MOST
    for i in map(int, np.flatnonzero(~(in_ms & is_rate))):
        fail = fail_at(i)
        number_of(ts_ms[i].item(), fail), number_of(rate[i].item(), fail)
        if not in_ms[i]:
            raise fail(
                f"time must be whole milliseconds UTC, was {ts_ms[i]:.17g}: convert seconds or "
                "microseconds"
            )
        raise fail(f"rate must be a fraction in (-1, 1), was {rate[i]}: divide percent by 100")
    out = np.empty(len(ts_ms), FUNDING_DTYPE)
    out["ts_ms"], out["rate"] = ts_ms, rate
    order = np.argsort(out["ts_ms"], kind="stable")
    out = out[order]
    twice = np.flatnonzero(np.diff(out["ts_ms"]) == 0)
    if len(twice):
        fail = fail_at(int(order[twice[0] + 1]))
        raise fail(f"time {out['ts_ms'][twice[0]]} is given twice: keep one")
    return out
