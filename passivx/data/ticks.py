"""Read recorded trades: every supported file becomes the same five checked columns.

A file is understood by the names in its header, or by the documented number of columns when it has
none. What a venue's archive is known to get wrong is repaired and reported; anything else that is
wrong stops the load with the file and the line. Files are read in blocks of a few megabytes, so
memory stays near the size of the result.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from passivx._core.csv import CsvError, Decode, scan
from passivx.errors import ConfigError, DataError, Problem

__all__ = ["TickReport", "Ticks", "load_ticks"]

PathLike = str | os.PathLike[str]
Moment = str | int | date | None
Columns = dict[str, npt.NDArray[Any]]
Fault = Callable[[str, int | None], DataError]  # message, row -> error naming file and line

_BLOCK = 8 << 20  # bytes of text decoded at a time
_SUFFIXES = (".csv", ".csv.gz", ".zip", ".npy")
_DTYPES: dict[str, np.dtype[Any]] = {
    "price": np.dtype(np.float64),
    "qty": np.dtype(np.float64),
    "ts_ms": np.dtype(np.int64),
    "buyer_maker": np.dtype(np.uint8),
    "trade_id": np.dtype(np.int64),
}

_DECODE = {
    "price": Decode.FLOAT,
    "qty": Decode.FLOAT,
    "ts_ms": Decode.INT,
    "buyer_maker": Decode.FLAG,
    "trade_id": Decode.INT,
}
_ALIASES = {
    "price": ("price",),
    "qty": ("qty", "quantity", "size", "amount", "volume"),
    "ts_ms": ("timestamp", "ts_ms", "timestamp_ms", "time", "transact_time"),
    "buyer_maker": ("is_buyer_maker", "buyer_maker", "side"),
    "trade_id": ("trade_id", "id", "agg_trade_id"),
}
_SIMPLE = "trade_id,price,qty,timestamp,is_buyer_maker"
# Binance: github.com/binance/binance-public-data; futures files have a header since 2022 or so.
_TRADES = "id,price,qty,quote_qty,time,is_buyer_maker"
_AGG_TRADES = (
    "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
)
_HEADERLESS = {
    5: _SIMPLE,
    6: _TRADES,
    7: _AGG_TRADES,
    8: _AGG_TRADES + ",is_best_match",  # the spot archive
}
# Bybit: public.bybit.com/trading always has a header; these two columns are in no other format.
_BYBIT = {"tickdirection", "trdmatchid"}

# What the unpackers raise for bytes that are not as they were written.
_DAMAGE = (EOFError, UnicodeDecodeError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile)
_ONE_SIDED_FROM = 1000  # trades; a shorter file may well hold one side only


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What was found and repaired while loading; ``lines()`` says it in words.

    ``sources`` are the files, ``n_rows`` the trades kept. ``n_gaps`` and ``n_missing_ids`` count
    holes in the trade ids. ``n_duplicates``, ``n_reordered`` and ``n_zero_qty`` count trades; the
    counts that end in ``_files`` count files.
    """

    sources: tuple[str, ...] = ()
    n_rows: int = 0
    n_duplicates: int = 0
    n_gaps: int = 0
    n_missing_ids: int = 0
    n_reordered: int = 0
    n_zero_qty: int = 0
    n_reversed_files: int = 0
    n_microsecond_files: int = 0
    n_one_sided_files: int = 0
    n_files_without_qty: int = 0
    n_files_without_ids: int = 0

    def lines(self) -> list[str]:
        """Return one line for every finding; none when there was nothing to say."""
        sentences = {
            "n_duplicates": "trades found in more than one place, kept once",
            "n_gaps": f"gaps in the trade ids, {self.n_missing_ids} trades missing",
            "n_reordered": "trades out of order, sorted",
            "n_zero_qty": "trades of quantity 0, a known defect of the archives",
            "n_reversed_files": "files that ran newest first, reversed",
            "n_microsecond_files": "files with times in microseconds, cut to milliseconds",
            "n_one_sided_files": "files that name the same side for every trade, a known defect of "
            "some Binance trades archives (their aggTrades are right)",
            "n_files_without_qty": "files without quantities, every quantity is 0",
            "n_files_without_ids": "files without trade ids, gaps and duplicates cannot be found",
        }
        return [f"{text}: {n}" for name, text in sentences.items() if (n := getattr(self, name))]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False, repr=False)
class Ticks:
    """Trades in time order, one row a trade.

    Attributes
    ----------
    price : float64, shape (n,)
        Quote per base, finite and > 0.
    qty : float64, shape (n,)
        Base units or contracts, finite and >= 0.
    ts_ms : int64, shape (n,)
        Milliseconds since 1970 UTC, never decreasing.
    buyer_maker : uint8, shape (n,)
        1 when the buyer was the maker (the taker sold), else 0.
    trade_id : int64, shape (n,), or None
        The venue's number of the trade; None when the files bring none.
    report : TickReport
        Findings of the whole load, also on a slice of it.

    The constructor looks at dtype, shape and length only, so that a memory-mapped year opens at
    once; ``from_arrays`` checks the values. Arrays are C-contiguous and read-only; a slice of rows
    is a view.

    Raises
    ------
    ValueError
        If a column has the wrong dtype, shape, layout or length.
    """

    price: npt.NDArray[np.float64]
    qty: npt.NDArray[np.float64]
    ts_ms: npt.NDArray[np.int64]
    buyer_maker: npt.NDArray[np.uint8]
    trade_id: npt.NDArray[np.int64] | None = None
    report: TickReport = field(default_factory=TickReport)

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            column = getattr(self, name)
            if column is None and name == "trade_id":
                continue
            if column.dtype != dtype or column.ndim != 1 or not column.flags.c_contiguous:
                raise ValueError(f"{name} must be a contiguous column of {dtype}")
            if len(column) != len(self.price):
                raise ValueError(f"{name} has {len(column)} rows, price has {len(self.price)}")
            view = column.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @classmethod
    def from_arrays(
        cls,
        *,
        price: npt.ArrayLike,
        qty: npt.ArrayLike,
        ts_ms: npt.ArrayLike,
        buyer_maker: npt.ArrayLike,
        trade_id: npt.ArrayLike | None = None,
    ) -> Ticks:
        """Copy plain sequences of numbers of shape (n,) into checked columns.

        Raises
        ------
        DataError
            If a value breaks what the attributes promise; the message names the row.
        """
        given = {"price": price, "qty": qty, "ts_ms": ts_ms, "buyer_maker": buyer_maker}
        if trade_id is not None:
            given["trade_id"] = trade_id
        columns = _to_columns({k: np.asarray(v) for k, v in given.items()}, _array_fault)
        if len({len(column) for column in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise DataError(f"columns must have the same length, was {lengths}")
        if len(columns["price"]):
            _check_values(columns, _array_fault)
            _check_unit(columns["ts_ms"], _array_fault)
            _check_order(columns["ts_ms"], _array_fault)
        return cls(**columns, report=TickReport(n_rows=len(columns["price"])))

    def __len__(self) -> int:
        return len(self.price)

    def __getitem__(self, rows: slice) -> Ticks:
        """Return consecutive rows as views; ``ticks[a:b]``, without a step."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError("ticks are cut by a slice of consecutive rows, ticks[a:b]")
        ids = None if self.trade_id is None else self.trade_id[rows]
        return Ticks(
            self.price[rows],
            self.qty[rows],
            self.ts_ms[rows],
            self.buyer_maker[rows],
            ids,
            self.report,
        )

    def sha256(self) -> str:
        """Return the hash of the columns' bytes: equal data, whatever file it came from."""
        digest = hashlib.sha256()
        for name in _DTYPES:
            column = getattr(self, name)
            if column is not None:
                digest.update(column)
        return digest.hexdigest()

    def __repr__(self) -> str:
        span = f", {_span(self.ts_ms[0], self.ts_ms[-1])}" if len(self) else ""
        return f"<Ticks: {len(self)} trades{span}>"


def load_ticks(
    path_or_paths: PathLike | Iterable[PathLike], start: Moment = None, end: Moment = None
) -> Ticks:
    """Load trades from one file, a folder of files or a list of both.

    Parameters
    ----------
    path_or_paths : path or iterable of paths
        ``.csv``, ``.csv.gz``, ``.zip`` (one csv inside) or ``.npy``; of a folder, all such files
        directly in it. Understood are

        - any csv with a header naming price, quantity, time (ms) and ``is_buyer_maker`` (true,
          false, 1, 0) or ``side`` (the taker's: Buy, Sell), trade id optional, in any order, and
          one without a header with the columns trade_id, price, qty, timestamp, is_buyer_maker;
        - Binance archives, aggTrades and trades, with or without header (data.binance.vision);
        - Bybit archives (public.bybit.com/trading), times in seconds, newest first or last;
        - npy: a structured array with such names, a 2-D array with the five columns above, or
          with three: price, is_buyer_maker, timestamp.
    start, end : str, int, date, datetime or None
        Keep ``start <= time < end``. ``"2024-05-31"`` or a date is that UTC day, included as an
        ``end`` too; an ISO time or a datetime is UTC unless it names an offset; an int is ms.

    Returns
    -------
    Ticks
        At least two trades in time order. Overlapping files are merged by trade id; what was
        repaired on the way stands in ``.report``.

    Raises
    ------
    DataError
        If a file cannot be read or its content cannot be trusted; names file and line.
    ConfigError
        If ``start`` or ``end`` is not a time, or the range is empty.
    """
    first_ms, end_ms = _to_ms("start", start), _to_ms("end", end)
    if first_ms is not None and end_ms is not None and first_ms >= end_ms:
        raise ConfigError([Problem("start", start, f"must be before the end of {end!r}")])
    paths = _expand(path_or_paths)
    _refuse_mixture(paths)
    found: Counter[str] = Counter()
    parts: list[_Part] = []
    spans: list[tuple[int, int]] = []
    for path in paths:
        part = _read_npy(path) if path.name.lower().endswith(".npy") else _read_csv(path)
        _clean(part)
        times = part.columns["ts_ms"]
        spans.append((int(times[0]), int(times[-1])))
        if part.cut(first_ms, end_ms):
            parts.append(part)
            found += part.found
    columns, found["n_duplicates"] = _join(parts)
    n_rows = len(columns["price"])
    if n_rows < 2:
        asked = "" if first_ms is None and end_ms is None else " in the range asked for"
        covered = _span(min(low for low, _ in spans), max(high for _, high in spans))
        message = f"only {n_rows} trades{asked}, at least 2 are needed; the data covers {covered}"
        raise DataError(message, paths[0] if len(paths) == 1 else None)
    if "trade_id" in columns:
        found.update(_count_gaps(columns["trade_id"]))
    if not found["n_files_without_qty"]:
        found["n_zero_qty"] = n_rows - int(np.count_nonzero(columns["qty"]))
    sources = tuple(str(part.path) for part in parts)
    return Ticks(**columns, report=TickReport(sources=sources, n_rows=n_rows, **found))


# ---- one file ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """The columns of one file; ``found`` counts fields of TickReport."""

    path: Path
    venue: Literal["simple", "binance", "bybit"]
    first_line: int | None  # physical line of row 0, from 1; None for npy
    columns: Columns
    found: Counter[str] = field(default_factory=Counter)

    def fault(self, message: str, row: int | None) -> DataError:
        if row is None or self.first_line is None:
            return DataError(message if row is None else f"row {row}: {message}", self.path)
        return DataError(message, self.path, self.first_line + row)

    def cut(self, first_ms: int | None, end_ms: int | None) -> int:
        """Keep the rows in the range, copied so that the rest is freed; return their number."""
        times = self.columns["ts_ms"]
        a = 0 if first_ms is None else int(np.searchsorted(times, first_ms))
        b = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
        if b - a < len(times):
            for name in self.columns:
                self.columns[name] = self.columns[name][a:b].copy()
        return b - a


def _read_csv(path: Path) -> _Part:
    part = _Part(path, "simple", 1, {})
    layout: _Layout | None = None
    pieces: list[list[npt.NDArray[Any]]] = []
    n_rows = 0
    try:
        with _open(path) as stream:
            for block in _blocks(path, stream):
                text = block
                if layout is None:
                    layout, text = _split_header(path, block)
                    part.venue = layout.venue
                    part.first_line = layout.first_line
                pieces.append(scan(text, layout.fields, len(layout.header)))
                n_rows += len(pieces[-1][0])
    except CsvError as e:
        assert layout is not None
        shown = e.text if len(e.text) <= 60 else e.text[:57] + "..."
        what = "the line" if e.field is None else layout.header[e.field]
        message = f"{what} {e.reason}, was {shown!r}; correct it or download the file again"
        raise part.fault(message, n_rows + e.row) from e
    except _DAMAGE as e:
        raise DataError(f"truncated or damaged ({e}): download the file again", path) from e
    except (NotImplementedError, RuntimeError) as e:  # an encrypted or exotic zip
        raise DataError(f"cannot unpack the zip ({e}): unpack it to .csv first", path) from e
    except OSError as e:
        raise _unreadable(path, e) from e
    if layout is None:
        raise DataError("the file is empty: download it again", path)
    if n_rows == 0:
        raise DataError("the file has a header but no trades: download it again", path)
    for k, name in reversed(list(enumerate(layout.names))):
        part.columns[name] = np.concatenate([columns.pop(k) for columns in pieces])
    return part


def _unreadable(path: Path, e: OSError) -> DataError:
    return DataError(f"cannot be read: {e.strerror or e}; check the path and its permissions", path)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [m.filename for m in archive.infolist() if not m.is_dir()]
            if len(members) != 1 or not members[0].lower().endswith(".csv"):
                listed = ", ".join(members[:5]) or "nothing"
                raise DataError(f"the zip must hold exactly one .csv, was {listed}", path)
            with archive.open(members[0]) as stream:
                yield stream
    elif name.endswith(".gz"):
        with gzip.open(path, "rb") as unpacked:
            yield unpacked
    else:
        with path.open("rb") as plain:
            yield plain


def _blocks(path: Path, stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield the file in pieces of whole lines."""
    carry = b""
    while data := stream.read(_BLOCK):
        data = carry + data
        # Blank lines wait for what follows: the scanner allows them at the end of the file only.
        end = len(data[: data.rfind(b"\n") + 1].rstrip(b"\r\n"))
        whole = data.find(b"\n", end) + 1 if end else 0
        if not whole and len(data) > 2 * _BLOCK:
            raise DataError("no line break in 16 MB: this is not a csv file", path)
        carry = data[whole:]
        if whole:
            yield data[:whole]
    if carry.strip(b"\r\n"):
        yield carry


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the columns stand in a line; ``names`` and ``fields`` run in the order of the line.

    ``header`` has the file's own names, or the documented ones where it has none.
    """

    venue: Literal["simple", "binance", "bybit"]
    first_line: int
    header: list[str]
    names: list[str]
    fields: list[tuple[int, Decode]]


def _split_header(path: Path, block: bytes) -> tuple[_Layout, bytes]:
    """Understand the first line; return the layout and the block without its header."""
    block = block.removeprefix(b"\xef\xbb\xbf")  # spreadsheets write a byte order mark
    line, _, rest = block.partition(b"\n")
    names = [x.strip('" \t\r').lower() for x in line.decode("utf-8", "replace").split(",")]
    headerless = _is_number(names[0])
    if headerless:
        n_fields = len(names)
        if n_fields not in _HEADERLESS:
            known = "; ".join(f"{n}: {header}" for n, header in _HEADERLESS.items())
            message = f"{n_fields} columns and no header; without one the columns must be {known}"
            raise DataError(message, path, 1)
        names = _HEADERLESS[n_fields].split(",")
    venue: Literal["simple", "binance", "bybit"] = "simple"
    if set(names) >= _BYBIT:
        venue = "bybit"
    elif "agg_trade_id" in names or set(names) >= set(_TRADES.split(",")):
        venue = "binance"
    places: list[tuple[int, str, Decode]] = []
    for column, name in _match(names, lambda message: DataError(message, path, 1)).items():
        decode = Decode.SIDE if name == "side" else _DECODE[column]
        if venue == "bybit" and column == "ts_ms":
            decode = Decode.SECONDS
        places.append((names.index(name), column, decode))
    places.sort()
    layout = _Layout(
        venue=venue,
        first_line=1 if headerless else 2,
        header=names,
        names=[column for _, column, _ in places],
        fields=[(index, decode) for index, _, decode in places],
    )
    return layout, block if headerless else rest


def _match(names: list[str], fault: Callable[[str], DataError]) -> dict[str, str]:
    """Return which of the names stands for each of our columns; a missing trade id is left out."""
    matched: dict[str, str] = {}
    for column, aliases in _ALIASES.items():
        here = [name for name in names if name in aliases]
        if len(here) > 1:
            raise fault(f"more than one column for {column}: {', '.join(here)}; keep one of them")
        if here:
            matched[column] = here[0]
        elif column != "trade_id":
            found = ", ".join(repr(name) for name in names[:20])
            raise fault(f"no column for {column} ({' or '.join(aliases)}) among {found}")
    return matched


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npy(path: Path) -> _Part:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, TypeError, EOFError, SyntaxError, TokenError) as e:
        raise DataError(f"not a usable .npy file ({e}): write or download it again", path) from e
    except OSError as e:
        raise _unreadable(path, e) from e
    part = _Part(path, "simple", None, {})
    given: dict[str, npt.NDArray[Any]]
    if array.dtype.names and array.ndim == 1:
        lower = {name.lower(): name for name in array.dtype.names}
        matched = _match(list(lower), lambda message: DataError(message, path))
        if matched["buyer_maker"] == "side":
            raise DataError("an array needs is_buyer_maker (1 or 0) instead of side", path)
        given = {column: array[lower[name]] for column, name in matched.items()}
    elif array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[1] == 5:
        names = ("trade_id", "price", "qty", "ts_ms", "buyer_maker")
        given = {name: array[:, k] for k, name in enumerate(names)}
    elif array.dtype.kind in "fiu" and array.ndim == 2 and array.shape[1] == 3:
        given = {name: array[:, k] for k, name in enumerate(("price", "buyer_maker", "ts_ms"))}
        given["qty"] = np.zeros(len(array))
        part.found["n_files_without_qty"] = 1
    else:
        raise DataError(
            f"an array of {array.dtype} with shape {array.shape}; wanted are named fields, or "
            f"numbers in 5 columns ({_SIMPLE}) or 3 (price, is_buyer_maker, timestamp)",
            path,
        )
    if len(array) == 0:
        raise DataError("the array is empty: write or download it again", path)
    part.columns = _to_columns(given, part.fault)
    return part


# ---- checks --------------------------------------------------------------------------------------


def _array_fault(message: str, row: int | None) -> DataError:
    return DataError(message if row is None else f"row {row}: {message}")


def _refuse(bad: npt.NDArray[np.bool_], values: npt.NDArray[Any], want: str, fault: Fault) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise fault(f"{want}, was {values[row]}", row)


def _to_columns(given: dict[str, npt.NDArray[Any]], fault: Fault) -> Columns:
    """Copy numbers of any dtype into the columns' own, refusing what would not survive it."""
    columns: Columns = {}
    for name, values in given.items():
        if values.ndim != 1 or (len(values) and values.dtype.kind not in "fiub"):
            raise fault(f"{name} must be one number a row, was {values.dtype}", None)
        if name == "buyer_maker":
            _refuse(~((values == 0) | (values == 1)), values, f"{name} must be 1 or 0", fault)
        elif _DTYPES[name].kind == "i" and values.dtype.kind == "f":
            whole = (np.abs(values) < 2.0**63) & (values == np.floor(values))
            _refuse(~whole, values, f"{name} must be a whole number", fault)
        columns[name] = np.array(values, dtype=_DTYPES[name], order="C")
    return columns


def _clean(part: _Part) -> None:
    """Check the values of a file and put its rows in time order, as far as its format allows."""
    columns, found = part.columns, part.found
    _check_values(columns, part.fault)
    times = columns["ts_ms"]
    if part.venue == "binance" and times.min() >= 10**15 and times.max() < 10**17:
        times //= 1000
        found["n_microsecond_files"] = 1
    if part.venue == "bybit" and times.max() >= 10**14:
        row = int(times.argmax())
        want = "Bybit gives the timestamp in seconds"
        raise part.fault(f"{want}, was {times[row] // 1000}: a file of another kind?", row)
    _check_unit(times, part.fault)
    rows: npt.NDArray[np.intp] | None = None
    if part.venue == "binance" and _first_fall(columns["trade_id"]) is not None:
        rows = np.argsort(columns["trade_id"], kind="stable")
    elif part.venue == "bybit" and _first_fall(times) is not None:
        if np.count_nonzero(times[1:] < times[:-1]) > np.count_nonzero(times[1:] > times[:-1]):
            found["n_reversed_files"] = 1
            _take(columns, slice(None, None, -1))
        if _first_fall(columns["ts_ms"]) is not None:
            rows = np.argsort(columns["ts_ms"], kind="stable")
    if rows is not None:
        found["n_reordered"] = int(np.count_nonzero(rows != np.arange(len(rows))))
        _take(columns, rows)
    _check_order(columns["ts_ms"], part.fault, rows)
    n_buyer_maker = int(np.count_nonzero(columns["buyer_maker"]))
    if len(times) >= _ONE_SIDED_FROM and n_buyer_maker in (0, len(times)):
        found["n_one_sided_files"] = 1
    if "trade_id" not in columns:
        found["n_files_without_ids"] = 1


def _check_values(columns: Columns, fault: Fault) -> None:
    price, qty = columns["price"], columns["qty"]
    _refuse(~((price > 0.0) & (price < np.inf)), price, "price must be finite and > 0", fault)
    _refuse(~((qty >= 0.0) & (qty < np.inf)), qty, "qty must be finite and >= 0", fault)
    for name, spoken in (("trade_id", "trade id"), ("ts_ms", "time")):
        if name in columns:
            _refuse(columns[name] < 0, columns[name], f"{spoken} must be >= 0", fault)


def _check_unit(times: npt.NDArray[np.int64], fault: Fault) -> None:
    """Refuse times that are no milliseconds; synthetic ones may start at 0."""
    low, high = int(times.min()), int(times.max())
    unit = None
    if low >= 10**9 and high < 10**10:
        unit, remedy = "seconds", "multiply by 1000"
    elif low >= 10**14 and high < 10**17:
        unit, remedy = "microseconds", "divide by 1000"
    elif low >= 10**17:
        unit, remedy = "nanoseconds", "divide by 1000000"
    if unit is not None:
        row = int(times.argmin())
        raise fault(f"timestamp must be in milliseconds, {low} looks like {unit}: {remedy}", row)
    if high >= 10**14 or 10**9 <= low < 10**10 or (low < 10**9 and high >= 10**12):
        size = np.searchsorted(np.array([10**9, 10**10, 10**14, 10**17]), times, side="right")
        row = int((size != size[0]).argmax())
        change = f"timestamps go from {times[row - 1]} to {times[row]}"
        raise fault(f"{change}: the units are mixed, all must be milliseconds", row)


def _check_order(
    times: npt.NDArray[np.int64], fault: Fault, rows: npt.NDArray[np.intp] | None = None
) -> None:
    k = _first_fall(times)
    if k is not None:
        a, b = times[k - 1], times[k]
        message = f"time goes back from {a} to {b}; trades must be in time order: sort the file"
        raise fault(message, k if rows is None else int(rows[k]))


def _first_fall(values: npt.NDArray[np.int64]) -> int | None:
    """Return the first row that is less than the row before it."""
    falls = values[1:] < values[:-1]
    k = int(falls.argmax()) if len(falls) else 0
    return k + 1 if len(falls) and falls[k] else None


def _take(columns: Columns, rows: npt.NDArray[Any] | slice) -> None:
    # Column by column, so that only one of them exists twice.
    for name in columns:
        columns[name] = np.ascontiguousarray(columns[name][rows])


# ---- several files -------------------------------------------------------------------------------


def _expand(path_or_paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """Return the files meant, folders replaced by what they hold."""
    given: list[PathLike]
    if isinstance(path_or_paths, (str, os.PathLike)):
        given = [path_or_paths]
    else:
        given = list(path_or_paths)
    if not given:
        raise DataError("no tick files given")
    files: list[Path] = []
    for path in map(Path, given):
        try:
            if path.is_dir():
                inside = sorted(p for p in path.iterdir() if _is_supported(p) and p.is_file())
                if not inside:
                    wanted = ", ".join(_SUFFIXES)
                    raise DataError(f"the folder holds no tick files ({wanted})", path)
                files += inside
            elif not path.exists():
                raise DataError("no such file or folder", path)
            elif not path.is_file():
                raise DataError("not a regular file", path)
            elif not _is_supported(path):
                raise DataError(f"the file name must end in {', '.join(_SUFFIXES)}", path)
            else:
                files.append(path)
        except OSError as e:
            raise _unreadable(path, e) from e
    return files


def _is_supported(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".")


def _refuse_mixture(paths: list[Path]) -> None:
    """Refuse archive files of several markets or kinds: their ids do not belong together."""
    binance, bybit = r"([A-Z0-9_]+)-(aggTrades|trades)-\d{4}-", r"([A-Z0-9]+)()\d{4}-\d\d-\d\d\.csv"
    meant: dict[tuple[str, ...], Path] = {}
    for path in paths:
        if match := re.match(binance, path.name) or re.match(bybit, path.name):
            meant.setdefault(match.groups(), path)
    if len(meant) > 1:
        names = " and ".join(str(path) for path in list(meant.values())[:2])
        raise DataError(f"files of several markets or kinds: {names}; load one kind of one market")


def _join(parts: list[_Part]) -> tuple[Columns, int]:
    """Merge the files by time; return the columns and the number of duplicates dropped."""
    if not parts:
        return {"price": np.empty(0)}, 0
    parts.sort(key=lambda part: int(part.columns["ts_ms"][0]))
    names = [n for n in _DTYPES if all(n in part.columns for part in parts)]
    latest, overlap = parts[0], False
    for part in parts[1:]:
        if part.columns["ts_ms"][0] < latest.columns["ts_ms"][-1]:
            overlap = True
            if "trade_id" not in names:
                raise DataError(
                    f"covers times of {latest.path} too; without trade ids in every file the "
                    "duplicates cannot be told: leave one of the files out",
                    part.path,
                )
        if part.columns["ts_ms"][-1] > latest.columns["ts_ms"][-1]:
            latest = part
    spans = [(p.path, p.columns["ts_ms"][0], p.columns["ts_ms"][-1]) for p in parts]
    if len(parts) == 1:
        columns = parts[0].columns
    else:
        columns = {n: np.concatenate([p.columns.pop(n) for p in parts]) for n in names}
    if overlap:
        _take(columns, np.lexsort((columns["trade_id"], columns["ts_ms"])))
    return columns, _drop_duplicates(columns, spans)


def _drop_duplicates(columns: Columns, spans: list[tuple[Path, Any, Any]]) -> int:
    ids = columns.get("trade_id")
    if ids is None or (ids[1:] > ids[:-1]).all():
        return 0
    rows = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(ids[rows[1:]] == ids[rows[:-1]])
    kept, dropped = rows[repeated], rows[repeated + 1]
    for name, column in columns.items():
        differs = column[kept] != column[dropped]
        if differs.any():
            k = int(differs.argmax())
            a, b = int(kept[k]), int(dropped[k])
            times = columns["ts_ms"][[a, b]]
            files = [
                path for path, low, high in spans if low <= times.max() and times.min() <= high
            ]
            raise DataError(
                f"trade id {ids[a]} stands for two trades, {name} {column[a]} and {column[b]}; "
                "find out which is right and remove the other",
                files[0] if len(files) == 1 else " and ".join(map(str, files[:2])),
            )
    keep = np.ones(len(ids), dtype=np.bool_)
    keep[dropped] = False
    _take(columns, keep)
    return len(dropped)


def _count_gaps(ids: npt.NDArray[np.int64]) -> dict[str, int]:
    if _first_fall(ids) is not None:
        ids = np.sort(ids)
    steps = np.diff(ids)
    steps = steps[steps > 1]
    return {"n_gaps": len(steps), "n_missing_ids": int(steps.sum()) - len(steps)}


# ---- time ----------------------------------------------------------------------------------------


def _to_ms(name: Literal["start", "end"], value: Moment) -> int | None:
    """Return a bound in ms UTC; a day as ``end`` becomes the start of the next one."""
    if value is None or (isinstance(value, (int, np.integer)) and not isinstance(value, bool)):
        return None if value is None else int(value)
    moment: date | None = value if isinstance(value, date) else None
    if isinstance(value, str):
        try:
            if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
                moment = date.fromisoformat(value)
            elif re.match(r"\d{4}-\d\d-\d\d[T ]", value):
                moment = datetime.fromisoformat(value)
        except ValueError:
            pass  # reported below, with the other texts
    if moment is None:
        wanted = "a day such as 2024-05-31, a time such as 2024-05-31T12:00 (UTC), or milliseconds"
        raise ConfigError([Problem(name, value, f"must be {wanted}")])
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        # The last day there is ends nowhere: its midnight will do.
        if name == "end" and moment.date() < date.max:
            moment += timedelta(days=1)
    elif moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Rounded up: the first whole millisecond that is not before the moment.
    return -((datetime(1970, 1, 1, tzinfo=UTC) - moment) // timedelta(milliseconds=1))


def _span(low: Any, high: Any) -> str:
    """Return two times in ms UTC as text."""
    shown = np.array([low, high], dtype="datetime64[ms]").astype("datetime64[s]")
    return f"{shown[0]} to {shown[1]} UTC"
