import contextlib
import gzip
import io
import json
import os
import random
import zipfile
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import passivx
from passivx.data import ticks as module
from passivx.data.ticks import TickReport, Ticks, load_ticks
from passivx.errors import DataError, PassivxError

HEADER = "trade_id,price,qty,timestamp,is_buyer_maker\n"
T0 = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC
DAY = 86_400_000
AGG = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
BYBIT = (
    "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,"
    "foreignNotional\n"
)


def simple(n=4, *, first_id=1, t=T0, step=1000):
    """Return n lines of the simple csv; the price says which trade it is."""
    return "".join(
        f"{first_id + i},{100 + first_id + i},0.5,{t + i * step},{(first_id + i) % 2}\n"
        for i in range(n)
    )


def agg(*rows):
    """Return aggTrades lines of (id, ms) pairs."""
    return "".join(f"{i},{100 + i},0.5,{i * 2},{i * 2 + 1},{t},true\n" for i, t in rows)


def bybit(*rows, extra=""):
    """Return lines of (seconds, side, price)."""
    uuid = "80253109-efbb-58ca-9adc-d458b66201e9"
    return "".join(
        f"{t},BTCUSD,{side},10,{p},MinusTick,{uuid},2.4e+06,10,0.02{extra}\n" for t, side, p in rows
    )


@pytest.fixture
def write(tmp_path):
    def write(text, name="ticks.csv"):
        path = tmp_path / name
        data = text.encode() if isinstance(text, str) else text
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zip"):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr(name.removesuffix(".zip") + ".csv", data)
            data = buffer.getvalue()
        path.write_bytes(data)
        return path

    return write


def failure(path, **bounds):
    with pytest.raises(DataError) as e:
        load_ticks(path, **bounds)
    return e.value


# ---- what is read --------------------------------------------------------------------------------


def test_simple_csv(write):
    ticks = load_ticks(write(HEADER + "7,31.25,0.4,1700000000540,1\n9,31.2,1,1700000000553,0\n"))
    assert ticks.price.tolist() == [31.25, 31.2]
    assert ticks.qty.tolist() == [0.4, 1.0]
    assert ticks.ts_ms.tolist() == [1700000000540, 1700000000553]
    assert ticks.buyer_maker.tolist() == [1, 0]
    assert ticks.trade_id.tolist() == [7, 9]
    dtypes = [x.dtype.str for x in (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)]
    assert dtypes == ["<f8", "<f8", "<i8", "|u1"]
    assert (ticks.report.n_gaps, ticks.report.n_missing_ids) == (1, 1)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.zip", "A.CSV", "A.CSV.GZ"])
@pytest.mark.parametrize("header", [HEADER, ""])
def test_every_packing_with_and_without_header(write, name, header):
    data = (header + simple()).encode()
    if name.endswith(".GZ"):
        data = gzip.compress(data)
    assert load_ticks(write(data, name)).price.tolist() == [101, 102, 103, 104]


@pytest.mark.parametrize(
    "text",
    [
        "time,side,amount,price\n{t},Sell,2,100\n{t},buy,3,101\n",
        "is_buyer_maker,x,quantity,transact_time,y,price\ntrue,,2,{t},,100\nFalse,,3,{t},,101\n",
        '"Price" ,"QTY", Timestamp,is_buyer_maker\r\n100,2,{t},1\r\n"101","3","{t}","0"\r\n\r\n',
        "\ufeffprice,size,ts_ms,buyer_maker\n100,2,{t},True\n101,3,{t},FALSE",
        # Bybit's spot tree: milliseconds, lower-case sides.
        "id,timestamp,price,volume,side,rpi\n1,{t},100,2,sell,0\n2,{t},101,3,buy,0\n",
    ],
)
def test_columns_are_found_by_name_in_any_order(write, text):
    ticks = load_ticks(write(text.format(t=T0)))
    assert ticks.price.tolist() == [100, 101]
    assert ticks.qty.tolist() == [2, 3]
    assert ticks.buyer_maker.tolist() == [1, 0]


def test_without_ids_the_report_says_so(write):
    ticks = load_ticks(write(f"price,qty,timestamp,side\n1,1,{T0},Buy\n1,1,{T0},Buy\n"))
    assert ticks.trade_id is None
    assert "without trade ids" in ticks.report.lines()[0]


@pytest.mark.parametrize("header", [AGG, ""])
@pytest.mark.parametrize("name", ["a.csv", "a.zip"])
def test_binance_agg_trades(write, header, name):
    ticks = load_ticks(write(header + agg((5, T0), (6, T0 + 1)), name))
    assert ticks.trade_id.tolist() == [5, 6]
    assert ticks.price.tolist() == [105, 106]
    assert ticks.ts_ms.tolist() == [T0, T0 + 1]
    assert ticks.report.lines() == []


@pytest.mark.parametrize("header", ["id,price,qty,quote_qty,time,is_buyer_maker\n", ""])
def test_binance_trades(write, header):
    ticks = load_ticks(write(header + f"5,10.5,2,21,{T0},true\n6,10.6,1,10.6,{T0},false\n"))
    assert ticks.qty.tolist() == [2, 1]
    assert ticks.buyer_maker.tolist() == [1, 0]


def test_binance_interleaved_ranges_are_sorted_by_id_and_reported(write):
    rows = [(1, T0), (50, T0 + 500), (2, T0 + 1), (51, T0 + 501), (3, T0 + 1)]
    ticks = load_ticks(write(agg(*rows)))
    assert ticks.trade_id.tolist() == [1, 2, 3, 50, 51]
    assert ticks.ts_ms.tolist() == [T0, T0 + 1, T0 + 1, T0 + 500, T0 + 501]
    assert ticks.report.n_reordered == 4
    assert "trades out of order, sorted: 4" in ticks.report.lines()


def test_binance_times_that_fall_along_the_ids_are_refused(write):
    error = failure(write(AGG + agg((1, T0), (3, T0 + 1), (2, T0 + 2))))
    assert error.line == 3
    assert f"time goes back from {T0 + 2} to {T0 + 1}" in str(error)


def test_binance_microseconds_become_milliseconds(write):
    ticks = load_ticks(write(agg((1, T0 * 1000 + 999), (2, T0 * 1000 + 1000))))
    assert ticks.ts_ms.tolist() == [T0, T0 + 1]
    assert "microseconds" in ticks.report.lines()[0]


def test_binance_mixed_units_are_refused(write):
    assert "the units are mixed" in str(failure(write(agg((1, T0), (2, T0 * 1000)))))


def test_bybit(write):
    rows = [("1692748800.279", "Sell", "26027.00"), ("1692748801", "Buy", "26027.50")]
    for text in (BYBIT + bybit(*rows), BYBIT[:-1] + ",RPI\n" + bybit(*rows, extra=",0")):
        ticks = load_ticks(write(text, "BTCUSD2023-08-23.csv.gz"))
        assert ticks.ts_ms.tolist() == [1692748800279, 1692748801000]
        assert ticks.price.tolist() == [26027.0, 26027.5]
        assert ticks.qty.tolist() == [10, 10]
        assert ticks.buyer_maker.tolist() == [1, 0]
        assert ticks.trade_id is None


def test_bybit_newest_first_is_reversed_so_that_one_millisecond_stays_in_order(write):
    rows = [("30.5", "Buy", 5), ("20.5", "Buy", 4), ("20.5", "Buy", 3), ("20.4", "Buy", 2)]
    ticks = load_ticks(write(BYBIT + bybit(*rows, ("10", "Sell", 1))))
    assert ticks.price.tolist() == [1, 2, 3, 4, 5]
    assert (ticks.report.n_reversed_files, ticks.report.n_reordered) == (1, 0)
    assert ticks.price.flags.c_contiguous


def test_bybit_out_of_order_is_sorted_stably_and_reported(write):
    rows = [("10", "Buy", 1), ("30", "Buy", 4), ("20", "Buy", 2), ("20", "Buy", 3)]
    ticks = load_ticks(write(BYBIT + bybit(*rows, ("40", "Buy", 5))))
    assert ticks.price.tolist() == [1, 2, 3, 4, 5]
    assert (ticks.report.n_reversed_files, ticks.report.n_reordered) == (0, 3)


def test_bybit_milliseconds_are_refused(write):
    error = failure(write(BYBIT + bybit((T0, "Buy", 1), (T0 + 1, "Buy", 1))))
    assert "Bybit gives the timestamp in seconds" in str(error)


def test_npy(tmp_path):
    path = tmp_path / "a.npy"
    fields = [("ts_ms", "i8"), ("price", "f4"), ("qty", "f8"), ("is_buyer_maker", "?")]
    np.save(path, np.array([(T0, 0.5, 2, True), (T0, 1.5, 3, False)], dtype=fields))
    ticks = load_ticks(path)
    assert ticks.price.tolist() == [0.5, 1.5]
    assert ticks.buyer_maker.tolist() == [1, 0]
    np.save(path, np.array([[7, 100, 1, T0, 1], [8, 101, 2, T0, 0]], dtype=np.int64))
    ticks = load_ticks(path)
    assert ticks.trade_id.tolist() == [7, 8]
    assert ticks.qty.tolist() == [1, 2]


def test_npy_of_the_original_program_has_no_quantities(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[100.5, 1, T0], [100.6, 0, T0 + 1]]))
    ticks = load_ticks(tmp_path / "a.npy")
    assert ticks.qty.tolist() == [0, 0]
    assert ticks.ts_ms.tolist() == [T0, T0 + 1]
    assert "every quantity is 0" in ticks.report.lines()[0]
    assert ticks.report.n_zero_qty == 0


def test_files_of_many_blocks_equal_files_of_one(write, monkeypatch):
    path = write(HEADER + simple(500) + "\n\r\n\n")
    whole = load_ticks(path)
    for block in (200, 997):
        monkeypatch.setattr(module, "_BLOCK", block)
        pieces = load_ticks(path)
        for name in ("price", "qty", "ts_ms", "buyer_maker", "trade_id"):
            assert (getattr(pieces, name) == getattr(whole, name)).all()


def test_a_fault_in_a_later_block_names_its_line(write, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 300)
    assert failure(write(HEADER + simple(500) + "501,1,x,1,1\n")).line == 502
    assert failure(write(HEADER + simple(500) + "\n\n\n\n" + simple(1), "b.csv")).line == 502


# ---- several files -------------------------------------------------------------------------------


def test_a_folder_is_joined_by_time(tmp_path, write):
    write(HEADER + simple(3, first_id=4, t=T0 + 10_000), "1.csv")
    write(HEADER + simple(3), "2.csv.gz")
    write("not ticks", "notes.txt")
    write("not ticks", ".hidden.csv")
    (tmp_path / "folder.csv").mkdir()
    ticks = load_ticks(tmp_path)
    assert ticks.trade_id.tolist() == [1, 2, 3, 4, 5, 6]
    assert [Path(x).name for x in ticks.report.sources] == ["2.csv.gz", "1.csv"]
    assert ticks.report.lines() == []


def test_overlapping_files_are_merged_by_id(write):
    a = write(HEADER + simple(6), "a.csv")
    b = write(HEADER + simple(6, first_id=4, t=T0 + 3000), "b.csv")
    inside = write(HEADER + simple(2, first_id=2, t=T0 + 1000), "c.csv")
    ticks = load_ticks([b, inside, str(a)])
    assert ticks.trade_id.tolist() == list(range(1, 10))
    assert ticks.price.tolist() == [100 + i for i in range(1, 10)]
    assert ticks.report.n_duplicates == 5
    assert ticks.report.lines() == ["trades found in more than one place, kept once: 5"]


def test_duplicate_lines_of_one_file_are_dropped(write):
    row = f"1,5,1,{T0},0\n"
    ticks = load_ticks(write(HEADER + row + row + row + f"2,5,1,{T0},0\n"))
    assert ticks.trade_id.tolist() == [1, 2]
    assert ticks.report.n_duplicates == 2


def test_one_id_with_two_values_is_refused(write):
    a = write(HEADER + f"1,5,1,{T0},0\n2,5,1,{T0},0\n", "a.csv")
    b = write(HEADER + f"2,6,1,{T0},0\n3,5,1,{T0},0\n", "b.csv")
    error = failure([a, b])
    assert "trade id 2 stands for two trades, price 5.0 and 6.0" in str(error)
    assert "a.csv" in str(error)
    assert "b.csv" in str(error)


def test_overlap_without_ids_is_refused_naming_both(write):
    a = write(BYBIT + bybit(("10", "Buy", 1), ("30", "Buy", 1)), "a.csv")
    b = write(BYBIT + bybit(("20", "Buy", 1), ("40", "Buy", 1)), "b.csv")
    error = failure([b, a])
    assert "a.csv" in str(error)
    assert "b.csv" in str(error)
    assert "covers times of" in str(error)
    # What is left of them after the cut does not overlap.
    assert load_ticks([b, a], start=25_000).ts_ms.tolist() == [30_000, 40_000]


def test_files_of_two_markets_are_refused(write):
    a = write(agg((1, T0), (2, T0)), "BTCUSDT-aggTrades-2023-11-14.csv")
    b = write(agg((1, T0 + DAY), (2, T0 + DAY)), "ETHUSDT-aggTrades-2023-11-15.csv")
    assert "several markets or kinds" in str(failure([a, b]))
    c = write(agg((3, T0 + DAY), (4, T0 + DAY)), "BTCUSDT-aggTrades-2023-11-15.csv")
    assert len(load_ticks([a, c])) == 4


def test_id_gaps_between_files_are_counted(write):
    a = write(HEADER + simple(3), "a.csv")
    b = write(HEADER + simple(3, first_id=10, t=T0 + DAY), "b.csv")
    report = load_ticks([a, b]).report
    assert (report.n_gaps, report.n_missing_ids) == (1, 6)
    assert report.lines() == ["gaps in the trade ids, 6 trades missing: 1"]


# ---- range ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "want"),
    [
        (None, None, [0, 1, 2, 3]),
        (T0 + 1, None, [1, 2, 3]),
        (T0, T0 + 2 * DAY, [0, 1]),
        ("2023-11-15", None, [1, 2, 3]),
        (None, "2023-11-15", [0, 1]),
        (date(2023, 11, 15), date(2023, 11, 16), [1, 2]),
        ("2023-11-15T22:13:20", "2023-11-17T22:13:20Z", [1, 2]),
        ("2023-11-15 22:13:20.001", None, [2, 3]),
        ("2023-11-15T22:13:20.000001", None, [2, 3]),
        ("2023-11-16T00:13:20+02:00", None, [1, 2, 3]),
        (datetime(2023, 11, 15, 22, 13, 20), None, [1, 2, 3]),
        (datetime(2023, 11, 15, 22, 13, 21, tzinfo=UTC), None, [2, 3]),
        (None, datetime(2023, 11, 16, 0, 13, 21, tzinfo=timezone(timedelta(hours=2))), [0, 1]),
    ],
)
def test_range(write, start, end, want):
    ticks = load_ticks(write(HEADER + simple(step=DAY)), start, end)
    assert (ticks.trade_id - 1).tolist() == want


@pytest.mark.parametrize("bad", ["yesterday", "2023-13-01", "20231115", "1700000000000", 1.5, True])
def test_a_bound_that_is_no_time(write, bad):
    with pytest.raises(PassivxError, match=r"start: must be a day such as .*, was"):
        load_ticks(write(HEADER + simple()), start=bad)


def test_a_range_turned_round(write):
    with pytest.raises(PassivxError, match="start: must be before the end"):
        load_ticks(write(HEADER + simple()), start="2023-11-16", end="2023-11-15")


def test_nothing_in_range_says_what_there_is(write):
    text = str(failure(write(HEADER + simple()), start="2024-01-01"))
    assert "only 0 trades in the range asked for, at least 2 are needed" in text
    assert "2023-11-14T22:13:20 to 2023-11-14T22:13:23 UTC" in text


# ---- what is refused -----------------------------------------------------------------------------


def rows(*changes, n=4):
    """Return simple csv lines with (row, column, text) changed."""
    lines = [line.split(",") for line in simple(n).split()]
    for row, column, text in changes:
        lines[row][column] = str(text)
    return HEADER + "".join(",".join(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "the file is empty"),
        ("\n\n", None, "the file is empty"),
        (HEADER, None, "a header but no trades"),
        (HEADER + "\n\n", None, "a header but no trades"),
        (rows(n=1), None, "only 1 trades, at least 2 are needed"),
        (rows((2, 1, "nan")), 4, "price must be a finite decimal number, was 'nan'"),
        (rows((2, 1, "inf")), 4, "price must be a finite decimal number, was 'inf'"),
        (rows((2, 1, "x" * 99)), 4, f"was '{'x' * 57}...'; correct it or download"),
        (rows((0, 1, "0")), 2, "price must be finite and > 0, was 0.0"),
        (rows((0, 1, "-3")), 2, "price must be finite and > 0, was -3.0"),
        (rows((3, 2, "-1")), 5, "qty must be finite and >= 0, was -1.0"),
        (rows((3, 2, "")), 5, "qty must not be empty"),
        (
            rows((1, 3, "soon")),
            3,
            "timestamp must be a whole number of at most 64 bits, was 'soon'",
        ),
        (rows((1, 4, "maybe")), 3, "buyer_maker must be true, false, 1 or 0, was 'maybe'"),
        (rows((1, 0, "-1")), 3, "trade id must be >= 0, was -1"),
        (rows((2, 3, T0)), 4, f"time goes back from {T0 + 1000} to {T0}"),
        (rows((0, 3, -1)), 2, "time must be >= 0, was -1"),
        (rows((0, 3, 0)), 3, f"go from 0 to {T0 + 1000}: the units are mixed"),
        (rows((3, 3, T0 * 1000)), 5, "the units are mixed"),
        (rows((0, 3, T0 // 1000)), 3, "the units are mixed"),
        (HEADER + simple(t=1_700_000_000, step=1), 2, "looks like seconds: multiply by 1000"),
        (HEADER + simple(t=T0 * 1000), 2, "looks like microseconds: divide by 1000"),
        (HEADER + simple(t=T0 * 10**6), 2, "looks like nanoseconds: divide by 1000000"),
        (HEADER + simple() + "\n" + simple(), 6, "the line must not be blank: more lines follow"),
        (HEADER + simple() + "5,100\n", 6, "the line must have 5 fields, not 2, was '5,100'"),
        (HEADER + simple() + "5,1,1,1,1,1\n", 6, "must have 5 fields, not 6"),
        (
            "1,2,3\n1,2,3\n",
            1,
            "3 columns and no header; without one the columns must be 5: trade_id",
        ),
        ("a;b\n1;2\n", 1, "no column for price (price) among 'a;b'"),
        ("price,qty,side\n1,1,Buy\n", 1, "no column for ts_ms (timestamp or ts_ms or"),
        ("price,qty,size,time,side\n", 1, "more than one column for qty: qty, size; keep one"),
        ("price,qty,time,side\n1,1,1,2\n", 2, "side must be Buy or Sell, was '2'"),
    ],
)
def test_bad_content(write, text, line, message):
    error = failure(write(text))
    assert message in str(error)
    assert str(error.path) in str(error)
    assert error.line == line
    assert error.exit_code == 1


def test_shuffled_times_name_the_first_fall(write):
    lines = simple(50).splitlines(keepends=True)
    np.random.default_rng(1).shuffle(lines)
    times = [int(x.split(",")[3]) for x in lines]
    first = next(k for k in range(1, 50) if times[k] < times[k - 1])
    assert failure(write(HEADER + "".join(lines))).line == first + 2
    assert failure(write("".join(lines), "b.csv")).line == first + 1


def test_bad_files(tmp_path, write):
    assert "no such file or folder" in str(failure(tmp_path / "none.csv"))
    assert "the folder holds no tick files (.csv, .csv.gz" in str(failure(tmp_path))
    assert "no tick files given" in str(failure([]))
    assert "must end in .csv, .csv.gz, .zip, .npy" in str(failure(write("x", "a.parquet")))
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in str(failure(tmp_path / "pipe.csv"))


@pytest.mark.parametrize("keep", [0, 5, 0.5, -4])
def test_a_truncated_gz(write, keep):
    path = write(HEADER + simple(5000), "a.csv.gz")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    message = str(failure(path))
    assert "truncated or damaged" in message or "empty" in message
    assert "download" in message


def test_a_damaged_gz_or_zip(write):
    for name in ("a.csv.gz", "a.zip"):
        path = write(HEADER + simple(5000), name)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        assert "download the file again" in str(failure(path))
        path.write_bytes(b"\x00not an archive" * 9)
        assert "truncated or damaged" in str(failure(path))


def test_a_zip_must_hold_one_csv(tmp_path):
    path = tmp_path / "a.zip"
    for names in ([], ["a.csv", "b.csv"], ["a.txt"]):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        error = str(failure(path))
        assert "exactly one .csv, was " + (", ".join(names) or "nothing") in error


def test_a_binary_file_stops_early(write, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 1000)
    assert "this is not a csv file" in str(failure(write(b"\x00" * 10_000)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(write):
    path = write(HEADER + simple())
    path.chmod(0)
    assert "cannot be read: Permission denied" in str(failure(path))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4)), "an array of float64 with shape (4, 4); wanted are named fields"),
        (np.zeros((0, 5)), "the array is empty"),
        (np.array(["a", "b"]), "wanted are named fields"),
        (np.array([[np.nan, 1, T0], [1, 1, T0]]), "row 0: price must be finite and > 0, was nan"),
        (np.array([[1, 1, T0], [1, 0.5, T0]]), "row 1: buyer_maker must be 1 or 0, was 0.5"),
        (np.array([[1, 1, T0], [1, 1, T0 + 0.5]]), "row 1: ts_ms must be a whole number, was"),
        (np.array([[1, 1, T0], [1, 1, np.nan]]), "row 1: ts_ms must be a whole number, was nan"),
        (np.array([[1, 1, T0], [1, 1, T0 - 1]]), "row 1: time goes back"),
        (np.zeros(2, dtype=[("price", "f8")]), "no column for qty"),
        (
            np.zeros(
                2, dtype=[("price", "U3"), ("qty", "f8"), ("time", "i8"), ("buyer_maker", "?")]
            ),
            "price must be one number a row, was <U3",
        ),
        (
            np.zeros(2, dtype=[("price", "f8"), ("qty", "f8"), ("time", "i8"), ("side", "i8")]),
            "an array needs is_buyer_maker (1 or 0) instead of side",
        ),
    ],
)
def test_bad_npy(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    error = failure(tmp_path / "a.npy")
    assert message in str(error)
    assert error.line is None


def test_npy_that_is_none(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object))
    assert "not a usable .npy file" in str(failure(path))
    np.save(path, np.zeros((100, 3)))
    for data in (b"", b"hello", path.read_bytes()[:200]):
        path.write_bytes(data)
        assert "not a usable .npy file" in str(failure(path))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.zip", "a.npy"])
def test_damaged_bytes_raise_nothing_but_our_errors(write, tmp_path, name):
    path = tmp_path / name
    if name == "a.npy":
        fields = [("price", "f8"), ("qty", "f8"), ("time", "i8"), ("is_buyer_maker", "u1")]
        np.save(path, np.ones(50, dtype=fields))
    else:
        write(HEADER + simple(200), name)
    sound = path.read_bytes()
    rng = random.Random(3)
    for _ in range(400):
        data = bytearray(sound)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(min(len(data), rng.choice([130, len(data)])))
            length = rng.choice([0, 1, 1, 20])
            data[at : at + length] = rng.randbytes(rng.choice([0, 1, 1, 5]))
        path.write_bytes(data)
        with contextlib.suppress(DataError):  # the damage may have hit what does not matter
            assert len(load_ticks(path)) > 1


# ---- reported, not refused -----------------------------------------------------------------------


def test_zero_quantities_are_reported(write):
    report = load_ticks(write(rows((1, 2, "0.0"), (2, 2, "0")))).report
    assert report.n_zero_qty == 2
    assert report.lines() == ["trades of quantity 0, a known defect of the archives: 2"]


def test_one_sided_files_are_reported(write):
    text = agg(*((i, T0 + i) for i in range(1000)))
    assert "the same side" in load_ticks(write(text)).report.lines()[0]


def test_synthetic_times_from_zero_on(write):
    for step in (1, DAY):
        assert load_ticks(write(HEADER + simple(100, t=0, step=step))).ts_ms[0] == 0


# ---- Ticks ---------------------------------------------------------------------------------------

ARRAYS = {
    "price": np.array([1.0, 2.0, 3.0]),
    "qty": np.array([1.0, 0.0, 1.0]),
    "ts_ms": np.array([T0, T0, T0 + 1]),
    "buyer_maker": np.array([1, 0, 1], dtype=np.uint8),
    "trade_id": np.array([1, 2, 3]),
}


def test_the_constructor_takes_arrays_without_copying_and_makes_them_read_only():
    ticks = Ticks(**ARRAYS)
    assert len(ticks) == 3
    for name, array in ARRAYS.items():
        assert np.shares_memory(getattr(ticks, name), array)
        assert array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            getattr(ticks, name)[0] = 1
    with pytest.raises(AttributeError):
        ticks.price = ticks.qty


def test_slices_are_views():
    ticks = Ticks(**ARRAYS)
    part = ticks[1:]
    assert isinstance(part, Ticks)
    assert part.trade_id.tolist() == [2, 3]
    assert np.shares_memory(part.price, ARRAYS["price"])
    assert len(ticks[5:]) == 0
    assert repr(ticks[5:]) == "<Ticks: 0 trades>"
    assert repr(ticks) == "<Ticks: 3 trades, 2023-11-14T22:13:20 to 2023-11-14T22:13:20 UTC>"
    for wrong in (0, slice(None, None, 2), slice(None, None, -1)):
        with pytest.raises(TypeError, match="slice of consecutive rows"):
            ticks[wrong]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": np.array([1, 2, 3])}, "price must be a contiguous column of float64"),
        ({"price": np.ones(6)[::2]}, "price must be a contiguous column"),
        ({"ts_ms": np.zeros((3, 1), dtype=np.int64)}, "ts_ms must be a contiguous column of int64"),
        ({"qty": np.ones(2)}, "qty has 2 rows, price has 3"),
        (
            {"buyer_maker": np.ones(3, dtype=bool)},
            "buyer_maker must be a contiguous column of uint8",
        ),
    ],
)
def test_the_constructor_refuses_other_shapes(change, message):
    with pytest.raises(ValueError, match=message):
        Ticks(**{**ARRAYS, **change})


def test_from_arrays_copies_and_converts():
    ticks = Ticks.from_arrays(price=[1, 2], qty=[1, 2], ts_ms=[0.0, 5.0], buyer_maker=[True, False])
    assert ticks.ts_ms.dtype == np.int64
    assert ticks.trade_id is None
    assert not np.shares_memory(Ticks.from_arrays(**ARRAYS).price, ARRAYS["price"])
    assert len(Ticks.from_arrays(price=[], qty=[], ts_ms=[], buyer_maker=[])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": [1, np.nan, 1]}, "row 1: price must be finite and > 0, was nan"),
        ({"price": [1, 1, 0]}, "row 2: price must be finite and > 0, was 0.0"),
        ({"qty": [1, -1, 1]}, "row 1: qty must be finite and >= 0, was -1.0"),
        ({"ts_ms": [2, 1, 3]}, "row 1: time goes back from 2 to 1"),
        ({"ts_ms": [1.7e9, 1.7e9, 1.7e9]}, "row 0: timestamp must be in milliseconds"),
        ({"buyer_maker": [1, 2, 0]}, "row 1: buyer_maker must be 1 or 0, was 2"),
        ({"trade_id": [1, 2]}, "columns must have the same length, was price 3"),
        ({"qty": ["a", "b", "c"]}, "qty must be one number a row, was <U1"),
        ({"qty": 3}, "qty must be one number a row, was int64"),
    ],
)
def test_from_arrays_checks_the_values(change, message):
    with pytest.raises(DataError) as e:
        Ticks.from_arrays(**{**ARRAYS, **change})
    assert message in str(e.value)


def test_the_names_at_home():
    assert passivx.load_ticks is load_ticks
    assert passivx.Ticks is Ticks
    assert TickReport().lines() == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_into_overlapping_pieces_loads_as_the_whole(tmp_path_factory, data):
    n = data.draw(st.integers(2, 30))
    steps = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    lines = [f"{i},{i + 1},1,{T0 + t},{i % 2}\n" for i, t in enumerate(np.cumsum(steps).tolist())]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    folder = tmp_path_factory.mktemp("pieces")
    bounds = [0, *cuts, n]
    n_written = 0
    for k, (a, b) in enumerate(pairwise(bounds)):
        a = max(0, a - data.draw(st.integers(0, 4)))
        if b > a:
            (folder / f"{k}.csv").write_text(HEADER + "".join(lines[a:b]))
            n_written += b - a
    ticks = load_ticks(folder)
    assert ticks.trade_id.tolist() == list(range(n))
    assert ticks.price.tolist() == list(range(1, n + 1))
    assert ticks.report.n_duplicates == n_written - n


# ---- recorded data -------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n", "first", "last"),
    [
        ("binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00", 200_000, "01-31T23:25", "02-01T01:38"),
        ("binance_usdm/BTCUSDT-trades-2020-02-22T00", 9_999, "02-22T00:00", "02-22T02:05"),
        ("binance_usdm/BTCUSDT-trades-2024-08-08T2354", 21_313, "08-08T23:54", "08-08T23:59"),
        ("binance_coinm/TRXUSD_PERP-trades-2025-03-04T00", 10_000, "03-04T00:00", "03-04T03:12"),
    ],
)
def test_recorded_files(real_data, name, n, first, last):
    ticks = load_ticks(real_data / f"{name}.csv.gz")
    assert len(ticks) == ticks.report.n_rows == n
    assert first in repr(ticks)
    assert last in repr(ticks)
    assert ticks.report.lines() == []


@pytest.mark.real_data
def test_recorded_prices_are_those_of_python_floats(real_data):
    path = real_data / "binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz"
    ticks = load_ticks(path)
    with gzip.open(path, "rt") as lines:
        fields = [line.split(",") for line in lines][1:]
    assert ticks.price.tolist() == [float(x[1]) for x in fields]
    assert ticks.qty.tolist() == [float(x[2]) for x in fields]
    assert ticks.ts_ms.tolist() == [int(x[3]) for x in fields]
    hour = load_ticks(path, start="2026-02-01T00:00", end="2026-02-01T01:00")
    assert 0 < len(hour) < len(ticks)
    assert hour.ts_ms[0] >= 1769904000000
    assert hour.ts_ms[-1] < 1769907600000


@pytest.mark.real_data
def test_a_folder_of_two_markets_is_refused(real_data):
    assert "several markets" in str(failure(real_data / "binance_usdm"))


@pytest.mark.real_data
def test_documented_archive_lines(shared, write):
    vectors = json.loads((shared / "vectors/archives.json").read_text())
    binance = vectors["binance_um"]
    samples = [s for s in binance["samples"] if s["parsed"]]
    for sample in samples:
        for head in ("", binance["aggtrades_header"] + "\n"):
            # Two trades are needed: the same one again, under the next id.
            line, want = sample["line"], sample["parsed"]
            again = line.replace(str(want["id"]), str(want["id"] + 1), 1)
            ticks = load_ticks(write(f"{head}{line}\n{again}\n"))
            assert ticks.trade_id[0] == want["id"]
            assert ticks.price[0] == float(want["price"])
            assert ticks.qty[0] == float(want["qty"])
            assert ticks.ts_ms[0] == want["ts_ms"]
            assert ticks.buyer_maker[0] == (want["taker_side"] == "SELL")
    # The interleaved pair and the zero quantity, turned round: sorted by id again.
    pair = [s["line"] for s in samples[:2]]
    ticks = load_ticks(write("\n".join(reversed(pair))))
    assert ticks.trade_id.tolist() == [s["parsed"]["id"] for s in samples[:2]]
    assert ticks.report.n_reordered == 2
    spot = binance["spot_contrast"]["line"]
    ticks = load_ticks(write(spot + "\n" + spot.replace("429861665", "429861666")))
    assert ticks.ts_ms[0] == 1784851208006
    assert ticks.buyer_maker[0] == 1
    assert "microseconds" in ticks.report.lines()[0]
    bybit = vectors["bybit_public"]
    for sample in bybit["samples"]:
        line, want = sample["line"], sample["parsed"]
        header = bybit["header_11"] if line.count(",") == 10 else bybit["header_10"]
        ticks = load_ticks(write(f"{header}\n{line}\n{line}\n"))
        assert ticks.ts_ms[0] == want["ts_us"] // 1000
        assert ticks.price[0] == float(want["price"])
        assert ticks.qty[0] == float(want.get("size_usd") or want["size"])
        assert ticks.buyer_maker[0] == (want["side"] == "Sell")
