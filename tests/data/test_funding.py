"""Funding series: the forms that are read, and how every other one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.types import FUNDING_DTYPE
from passivx.data.funding import load_funding
from passivx.errors import ConfigError, DataError

FIRST, SECOND = 1_700_006_400_000, 1_700_035_200_000
SERIES = [(FIRST, 0.0001), (SECOND, -0.00025)]

FILES = {
    "ts_ms,rate": f"ts_ms,rate\n{FIRST},0.0001\n{SECOND},-0.00025\n",
    "other names, other columns": (
        f"symbol,funding_rate,timestamp\nX,0.0001,{FIRST}\nX,-2.5e-4,{SECOND}\n"
    ),
    "Binance archive": (
        "calc_time,funding_interval_hours,last_funding_rate\n"
        f"{FIRST},8,0.00010000\n{SECOND},8,-0.00025000\n"
    ),
    "Binance REST": json.dumps(
        [
            {"symbol": "BTCUSDT", "fundingTime": FIRST, "fundingRate": "0.00010000",
             "markPrice": "34287.54619963"},
            {"symbol": "BTCUSDT", "fundingTime": SECOND, "fundingRate": "-0.00025000",
             "markPrice": "34287.54619963"},
        ]
    ),
    "Bybit REST, newest first": json.dumps(
        [
            {"symbol": "BTCUSD", "fundingRate": "-0.00025", "fundingRateTimestamp": str(SECOND)},
            {"symbol": "BTCUSD", "fundingRate": "0.0001", "fundingRateTimestamp": str(FIRST)},
        ]
    ),
    "JSON pairs": json.dumps([[FIRST, 0.0001], [SECOND, "-0.00025"]]),
    "byte-order mark": f"\ufeffts_ms,rate\n{FIRST},0.0001\n{SECOND},-0.00025\n",
    "windows newlines": f"ts_ms,rate\r\n{FIRST},0.0001\r\n{SECOND},-0.00025\r\n",
    "old mac newlines": f"ts_ms,rate\r{FIRST},0.0001\r{SECOND},-0.00025\r",
    "blanks and empty lines": f"ts_ms , rate\n\n {FIRST}, 0.0001\n\n{SECOND} ,-0.00025\n\n",
    "no newline at the end": f"ts_ms,rate\n{SECOND},-0.00025\n{FIRST},0.0001",
}  # fmt: skip


@pytest.fixture
def load(tmp_path):
    def load_text(text: str | bytes) -> np.ndarray:
        path = tmp_path / "funding.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_funding(path)

    return load_text


@pytest.mark.parametrize("name", FILES)
def test_reads(load, name):
    got = load(FILES[name])
    assert got.dtype == FUNDING_DTYPE
    assert got.tolist() == SERIES


def test_takes_a_path_as_text_too(tmp_path):
    path = tmp_path / "funding.json"
    path.write_text(FILES["Binance REST"])
    assert load_funding(str(path)).tolist() == SERIES


@pytest.mark.parametrize(
    "source",
    [
        SERIES,
        tuple(SERIES),
        [{"fundingTime": t, "fundingRate": str(rate)} for t, rate in SERIES],
        [list(pair) for pair in SERIES],
        reversed(SERIES),
        (pair for pair in SERIES),
        [(np.int64(t), np.float64(rate)) for t, rate in SERIES],
        [(str(t), str(rate)) for t, rate in SERIES],
        np.array(SERIES, FUNDING_DTYPE),
        np.array([(r, t, 0) for t, r in SERIES], [("rate", "f8"), ("ts_ms", "i8"), ("x", "i8")]),
        np.array(SERIES),
    ],
)
def test_takes_values(source):
    got = load_funding(source)
    assert got.dtype == FUNDING_DTYPE
    assert got.tolist() == SERIES


def test_no_settlements_at_all_may_be_given_as_values():
    assert len(load_funding([])) == len(load_funding(np.zeros(0, FUNDING_DTYPE))) == 0


def test_a_synthetic_market_may_start_at_0():
    assert load_funding([(0, 0.1), (28_800_000, 0.1)])["ts_ms"].tolist() == [0, 28_800_000]


@given(
    st.dictionaries(
        st.integers(10**12, 10**14 - 1),
        st.floats(-1, 1, exclude_min=True, exclude_max=True),
        min_size=1,
    )
)
def test_values_come_back_as_they_were_in_time_order(series):
    assert load_funding(list(series.items())).tolist() == sorted(series.items())
    names = [{"fundingTime": t, "fundingRate": repr(rate)} for t, rate in series.items()]
    pairs = [(entry["fundingTime"], entry["fundingRate"]) for entry in names]
    assert load_funding(pairs).tolist() == sorted(series.items())


# --- refusals ---


def csv(*rows: str) -> str:
    return "\n".join(["ts_ms,rate", f"{FIRST},0.0001", *rows]) + "\n"


def entries(*more: Any) -> str:
    return json.dumps([{"fundingTime": FIRST, "fundingRate": "0.0001"}, *more])


# name -> text, where, what else the message holds: the value and a remedy
BAD = {
    "seconds": (csv("1700035200,0.1"), ":3: ", ("time", "1700035200", "seconds")),
    "microseconds": (csv("1700035200000000,0.1"), ":3: ", ("1700035200000000", "microseconds")),
    "half a millisecond": (csv(f"{SECOND}.5,0.1"), ":3: ", ("whole milliseconds", f"{SECOND}.5")),
    "negative time": (csv("-1,0.1"), ":3: ", ("time", "-1")),
    "percent": (csv(f"{SECOND},5"), ":3: ", ("rate", "was 5", "percent by 100")),
    "all of the position": (csv(f"{SECOND},-1"), ":3: ", ("(-1, 1)", "was -1")),
    "NaN": (csv(f"{SECOND},NaN"), ":3: ", ("'NaN'", "finite", "correct")),
    "infinity": (csv("inf,0.1"), ":3: ", ("'inf'", "finite")),
    "text": (csv(f"{SECOND},abc"), ":3: ", ("'abc'", "number", "correct")),
    "a date": (csv("2023-11-15 08:00,0.1"), ":3: ", ("'2023-11-15 08:00'", "number")),
    "an empty field": (csv(f"{SECOND},"), ":3: ", ("empty value",)),
    "the same time twice": (csv(f"{SECOND},0.1", f"{FIRST},0.1"), ":4: ", (str(FIRST), "keep one")),
    "no rate column": (f"ts_ms,price\n{FIRST},1\n", ":1: ", ("rate column", "price")),
    "no time column": ("day,rate\n1,1\n", ":1: ", ("time column", "ts_ms", "day")),
    "two time columns": ("ts_ms,timestamp,rate\n1,1,1\n", ":1: ", ("one time column", "timestamp")),
    "no header": (f"{FIRST},0.0001\n", ":1: ", ("time column", str(FIRST))),
    "semicolons": (f"ts_ms;rate\n{FIRST};0.1\n", ":1: ", ("time column", "ts_ms;rate")),
    "ragged, short": (csv(str(SECOND)), ":3: ", ("1 fields", "2", "correct")),
    "ragged, long": (csv(f"{SECOND},0.1,0.1"), ":3: ", ("3 fields", "2")),
    "an open quote": (csv(f'"{SECOND},0.1', f"{SECOND},0.1"), ":4: ", ("1 fields",)),
    "a huge number": (csv("9" * 5000 + ",0.1"), ":3: ", ("'9999", "finite")),
    "empty": ("", ": ", ("is empty", "settlements")),
    "blank": (" \n\n ", ": ", ("is empty",)),
    "header only": ("ts_ms,rate\n", ": ", ("no settlement",)),
    "empty list": ("[]", ": ", ("no settlement",)),
    "an answer with its envelope": (
        '{"retCode": 0, "result": {"list": []}}', ": ", ("JSON list", "out of the object")),
    "broken JSON": ('[[1, 2], [', ": ", ("not JSON", "line 1 column")),
    "JSON with NaN": (f"[[{FIRST}, NaN]]", ": ", ("not JSON",)),
    "JSON nested deeply": ("[" * 100_000, ": ", ("not JSON",)),
    "JSON seconds": (
        entries({"fundingTime": 1700035200, "fundingRate": "0.1"}), ": entry [1]: ",
        ("1700035200", "seconds")),
    "JSON percent": (
        entries({"fundingTime": SECOND, "fundingRate": "5"}), ": entry [1]: ", ("percent",)),
    "JSON text": (
        entries({"fundingTime": SECOND, "fundingRate": "n/a"}), ": entry [1]: ", ("'n/a'",)),
    "JSON null": (
        entries({"fundingTime": SECOND, "fundingRate": None}), ": entry [1]: ", ("empty value",)),
    "JSON true": (entries([SECOND, True]), ": entry [1]: ", ("True", "finite")),
    "JSON twice": (
        entries({"fundingTime": FIRST, "fundingRate": "0"}), ": entry [1]: ", ("keep one",)),
    "JSON without a rate": (entries({"fundingTime": 1}), ": entry [1]: ", ("rate column",)),
    "JSON no pair": (entries([SECOND]), ": entry [1]: ", ("list (ts_ms, rate)", str(SECOND))),
    "JSON numbers": (entries(SECOND), ": entry [1]: ", ("list (ts_ms, rate)", str(SECOND))),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refuses(load, name):
    text, where, words = BAD[name]
    with pytest.raises(DataError) as caught:
        load(text)
    message = str(caught.value)
    assert f"funding.csv{where}" in message
    for word in words:
        assert word in message
    assert len(message) < 400
    assert message.isprintable()
    in_csv = where.strip(": ").isdigit()
    assert caught.value.line == (int(where.strip(": ")) if in_csv else None)


@pytest.mark.parametrize(
    ("junk", "words"),
    [
        (b"\xff\xfe\x00junk" * 100_000, "not UTF-8"),
        (b"\0" * 5_000_000, "not csv"),
        (b"a" * 5_000_000, "not csv"),
        (b"a,b\n" * 1_000_000, "time column"),
        (b"ts_ms,rate\n" + b"x" * 5_000_000, "not csv"),
        (b"ts_ms,rate\n" + b"1,0.1\n" * 100_000, "given twice"),
        (b"ts_ms,rate\n\x1b[2J,0.1\n", "'\\x1b[2J'"),
        (b"\x1b[2J,rate\n1,0.1\n", "\\x1b[2J"),
    ],
    ids=["binary", "zeros", "one word", "two columns", "one field", "repeats", "row", "header"],
)
def test_junk_is_refused_quickly_and_shown_harmlessly(load, junk, words):
    with pytest.raises(DataError) as caught:
        load(junk)
    message = str(caught.value)
    assert words in message
    assert message.isprintable()
    assert len(message) < 400


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.csv", str(tmp_path / "a\0b")):
        with pytest.raises(DataError, match=r"cannot be read.*check the path"):
            load_funding(path)
    with pytest.raises(DataError, match="No such file"):
        load_funding(Path("nowhere") / "funding.csv")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([SERIES[0], (1_700_035_200, 0.1)], r"funding\[1\]: time.*1700035200"),
        ([SERIES[0], (SECOND, 5)], r"funding\[1\]: rate.*was 5"),
        ([(SECOND, float("nan"))], r"funding\[0\]: nan"),
        ([(SECOND, True)], r"funding\[0\]: True"),
        ([(10**400, 0.1)], r"funding\[0\]: 1000.*finite"),
        ([(SECOND, 0.1, 0.1)], r"funding\[0\]: must be an object or a list"),
        ([None], r"funding\[0\]: must be an object or a list.*None"),
        ([*SERIES, SERIES[0]], r"funding\[2\]: time.*twice"),
        (np.array([(1, 0.1)], [("t", "i8"), ("rate", "f8")]), "fields ts_ms and rate"),
        (5, "must be a file, or pairs"),
        (np.array([1.0, 2.0]), r"funding\[0\]: must be an object or a list"),
    ],
)
def test_values_are_refused_by_their_place(source, words):
    with pytest.raises(ConfigError, match=words):
        load_funding(source)
