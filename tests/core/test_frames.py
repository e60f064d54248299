"""The frame scanners against their twin, on recorded, documented, made and spoiled frames."""

from __future__ import annotations

import ctypes
import gzip
import json
import math
import mmap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passivx._core.frames import OTHER, QUOTE, TRADE, BinanceFrames, BybitFrames
from tests.reference.frames_twin import binance_says, bybit_says, usual

AGG_TRADE = (
    b'{"e":"aggTrade","E":1767225600123,"s":"BTCUSDT","a":5933014123,"p":"60000.10","q":"0.021",'
    b'"nq":"0.021","f":100123456,"l":105123456,"T":1767225600120,"m":true,"st":1}'
)
BOOK_TICKER = (
    b'{"e":"bookTicker","u":400900217,"E":1568014460893,"T":1568014460891,"s":"BTCUSDT",'
    b'"b":"25.3519","B":"31.21","a":"25.3652","A":"40.66","ps":"BTCUSDT","st":1}'
)
TRADES = (
    b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":['
    b'{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick",'
    b'"i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617},'
    b'{"T":1672304486866,"s":"BTCUSDT","S":"Sell","v":"2","p":"16578.4","L":"MinusTick",'
    b'"i":"7","BT":true,"seq":1783284618}]}'
)
TOP = (
    b'{"topic":"orderbook.1.BTCUSDT","ts":1672304484978,"type":"snapshot","data":{"s":"BTCUSDT",'
    b'"b":[["16493.50","0.006"]],"a":[["16611.00","0.029"]],"u":18521288,"seq":7961638724},'
    b'"cts":1672304484976}'
)
WRAPPED = b'{"stream":"btcusdt@aggTrade","data":' + AGG_TRADE + b"}"


def binance_saw(frames: BinanceFrames, kind: int):
    if kind == TRADE:
        return ("trade", frames.trade_id, frames.price, frames.qty, frames.ts_ms,
                frames.event_ms, frames.buyer_maker)  # fmt: skip
    return ("quote", frames.update_id, frames.bid, frames.bid_qty, frames.ask, frames.ask_qty,
            frames.quote_ts_ms, frames.quote_event_ms)  # fmt: skip


def bybit_saw(frames: BybitFrames, kind: int):
    if kind == TRADE:
        rows = frames.trades
        return ("trades", *(
            (*frames.trade(i), int(rows[i]["seq"]), bool(rows[i]["block"]))
            for i in range(frames.n_trades)
        ))  # fmt: skip
    return ("quote", frames.update_id, frames.bid, frames.bid_qty, frames.ask, frames.ask_qty,
            frames.ts_ms)  # fmt: skip


def agree(frame: bytes, symbol: str = "BTCUSDT", must: bool = False) -> int:
    """Check both scanners against the twin; return how many of them took the frame."""
    taken = 0
    for frames, says, saw in (
        (BinanceFrames(symbol), binance_says, binance_saw),
        (BybitFrames(symbol), bybit_says, bybit_saw),
    ):
        kind = frames.scan(frame)
        assert kind in (OTHER, TRADE, QUOTE)
        said = says(frame, symbol)
        if kind != OTHER:
            assert saw(frames, kind) == said
            assert all(math.isfinite(x) for x in said if isinstance(x, float))
            taken += 1
        elif must and said is not None:
            assert not usual(frame), frame
    return taken


@pytest.mark.parametrize("frame", [AGG_TRADE, BOOK_TICKER, TRADES, TOP, WRAPPED])
def test_usual_frames_are_taken(frame):
    assert agree(frame, must=True) == 1


def test_what_a_trade_says():
    frames = BinanceFrames("BTCUSDT")
    assert frames.scan(memoryview(AGG_TRADE)) == TRADE
    assert (frames.price, frames.qty, frames.buyer_maker) == (60000.1, 0.021, True)
    assert (frames.trade_id, frames.ts_ms) == (5933014123, 1767225600120)


def test_rows_of_one_message_keep_their_order():
    frames = BybitFrames("BTCUSDT")
    assert frames.scan(bytearray(TRADES)) == TRADE
    assert frames.trade(0) == (
        "20f43950-d8dd-5b31-9112-a178eb6023af", 16578.5, 0.001, 1672304486865, False,
    )  # fmt: skip
    assert frames.trade(1) == ("7", 16578.4, 2.0, 1672304486866, True)
    assert frames.trades["block"].tolist() == [0, 1]
    for i in (-1, 2):
        with pytest.raises(IndexError):
            frames.trade(i)


def test_a_frame_that_is_not_taken_changes_nothing():
    frames = BybitFrames("BTCUSDT")
    assert frames.scan(TRADES) == TRADE
    assert frames.scan(TRADES.replace(b'"p":"16578.4"', b'"p":"0"').replace(b"16578.50", b"9")) == 0
    assert frames.trade(0)[1] == 16578.5
    binance = BinanceFrames("BTCUSDT")
    assert binance.scan(AGG_TRADE) == TRADE
    assert binance.scan(AGG_TRADE[:-1].replace(b"60000", b"70000")) == OTHER
    assert binance.price == 60000.1


def test_a_full_message_of_trades_and_one_too_many():
    row = TRADES[TRADES.index(b"[") + 1 : TRADES.index(b"},") + 1]
    head, tail = TRADES[: TRADES.index(b"[") + 1], b"]}"
    frames = BybitFrames("BTCUSDT")
    assert frames.scan(head + b",".join([row] * 1024) + tail) == TRADE
    assert frames.n_trades == 1024
    assert frames.scan(head + b",".join([row] * 1025) + tail) == OTHER
    assert frames.n_trades == 1024


@pytest.mark.parametrize("frame", [AGG_TRADE, BOOK_TICKER, TRADES, TOP, WRAPPED])
def test_every_cut_is_refused(frame):
    for end in range(len(frame)):
        assert agree(frame[:end]) == 0
    assert agree(frame + b" ") == 0
    assert agree(frame + b"}") == 0


@pytest.mark.parametrize("frame", [AGG_TRADE, BOOK_TICKER, TRADES, TOP])
def test_of_another_symbol_it_is_not_taken(frame):
    for symbol in ("BTCUSD", "BTCUSDTX", "ETHUSDT"):
        assert agree(frame, symbol) == 0


@pytest.mark.parametrize("symbol", ["", "A" * 40])
def test_symbols_that_cannot_be(symbol):
    for make in (BinanceFrames, BybitFrames):
        with pytest.raises(ValueError, match="symbol"):
            make(symbol)


PRICES = [
    b'"0"', b'"0.0"', b'"-1"', b'"+1"', b'"1e5"', b'".5"', b'"5."', b'""', b'"1_0"', b'"NaN"',
    b'"Infinity"', b"60000.10", b"null", b'"9007199254740993"', b'"9007199254740992"',
    b'"900719925474099.3"', b'"1234567890123456789"', b'"00060000.10"', b'"60000.100000000000"',
    b'"6\\u0030000.10"', b'"12345678.12345678"', b'"12345678.123456789"', b'"0.00000000000000001"',
    b'"12345678123456781234567812345678"', b'"1.12345678123456781234567812345678"',
]  # fmt: skip


@pytest.mark.parametrize("price", PRICES)
def test_prices_of_all_kinds(price):
    agree(AGG_TRADE.replace(b'"60000.10"', price), must=True)
    agree(BOOK_TICKER.replace(b'"25.3519"', price), must=True)
    agree(TRADES.replace(b'"16578.50"', price), must=True)
    agree(TOP.replace(b'"16493.50"', price), must=True)


@pytest.mark.parametrize(
    "change",
    [
        (b'"m":true', b'"m":1'), (b'"m":true', b'"m":null'), (b'"st":1', b'"st":2'),
        (b'"st":1', b'"st":1,"st":1'), (b'"T":1767225600120', b'"T":-5'),
        (b'"T":1767225600120', b'"T":1.5'), (b'"T":1767225600120', b'"T":"1767225600120"'),
        (b'"T":1767225600120', b'"T":01'), (b'"a":5933014123', b'"a":5933014123,"a":1'),
        (b'"q":"0.021"', b'"q":"0"'), (b'"f":100123456', b'"f":[1,{"x":2}]'),
        (b'"f":100123456', b'"f":1e5'), (b'"f":100123456', b'"f":-0.5'),
        (b'"f":100123456', b'"f":01'),
        (b'"f":100123456', b'"f":"a\\"b"'), (b'"f":100123456', b'"f":tru'),
        (b'"f":100123456', b'"f":"\xc3\xa4"'), (b'"f":100123456', b'"f":"\xff"'),
        (b'"l":', b'"a":1,"l":'), (b'"e":"aggTrade"', b'"e":"aggTrade","e":"aggTrade"'),
        (b'"b":"25.3519"', b'"b":"25.3652"'), (b'"B":"31.21"', b'"B":"0"'),
        (b'"v":"2"', b'"v":"0"'), (b'"S":"Sell"', b'"S":"sell"'), (b'"i":"7"', b'"i":7'),
        (b'"i":"7"', b'"i":""'), (b'"i":"7"', b'"i":"' + b"x" * 37 + b'"'),
        (b'"type":"snapshot"', b'"type":"delta"'), (b'"topic"', b'"TOPIC"'),
        (b',"cts":1672304484976', b""), (b'"u":18521288', b'"u":18521288,"u":2'),
        (b'"b":[["16493.50","0.006"]]', b'"b":[]'),
        (b'"b":[["16493.50","0.006"]]', b'"b":[["16493.50","0.006"],["1","1"]]'),
        (b'"data":[', b'"data":[,'), (b'"ts":1672304486868,', b""),
    ],
)  # fmt: skip
def test_oddities(change):
    for frame in (AGG_TRADE, BOOK_TICKER, TRADES, TOP, WRAPPED):
        agree(frame.replace(*change))


def shuffled(value, draw):
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        # The kind of a frame comes first, or it is not a usual one.
        keys.sort(key=lambda key: key not in ("e", "topic", "stream"))
        return {key: shuffled(value[key], draw) for key in keys}
    if isinstance(value, list):
        return [shuffled(each, draw) for each in value]
    return value


@given(st.data())
def test_keys_in_any_order_and_keys_unheard_of(data):
    frame = data.draw(st.sampled_from([AGG_TRADE, BOOK_TICKER, TRADES, TOP]))
    message = shuffled(json.loads(frame), data.draw)
    if data.draw(st.booleans()):
        inner = message["data"][0] if frame is TRADES else message
        new = data.draw(st.text("xyzXYZ", min_size=1, max_size=9))
        inner[new] = data.draw(
            st.none() | st.booleans() | st.integers(-10, 10**12) | st.text("abc:,{}[]", max_size=9)
        )
    assert agree(json.dumps(message, separators=(",", ":")).encode(), must=True) == 1


@given(price=st.decimals(0, 10**9, places=8), qty=st.decimals(0, 10**6, places=5))
def test_numbers_are_read_as_python_reads_them(price, qty):
    frame = AGG_TRADE.replace(b"60000.10", str(price).encode()).replace(b"0.021", str(qty).encode())
    agree(frame, must=True)


@settings(max_examples=400)
@given(st.data())
def test_spoiled_frames_agree_or_are_refused(data):
    frame = bytearray(data.draw(st.sampled_from([AGG_TRADE, BOOK_TICKER, TRADES, TOP, WRAPPED])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame)))
        match data.draw(st.sampled_from(["set", "cut", "put", "double"])):
            case "set" if at < len(frame):
                frame[at] = data.draw(st.integers(0, 255) | st.sampled_from(list(b'"{}[],:0189.e')))
            case "cut":
                del frame[at : at + data.draw(st.integers(1, 12))]
            case "put":
                frame[at:at] = data.draw(st.binary(max_size=4) | st.sampled_from(PRICES))
            case "double":
                frame[at:at] = frame[at : at + data.draw(st.integers(1, 20))]
    agree(bytes(frame))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["binance_usdm-2021-04-17", "binance_usdm-BTCUSDT-2023-04-04"])
def test_every_recorded_binance_frame(real_data: Path, name):
    scanners: dict[str, BinanceFrames] = {}
    taken = {TRADE: 0, QUOTE: 0}
    with gzip.open(real_data / "ws" / f"{name}.ws.gz") as file:
        for line in file:
            at = line.find(b'{"stream"')
            if at < 0:
                continue
            frame = line[at:].strip()
            symbol = json.loads(frame)["data"]["s"]
            frames = scanners.setdefault(symbol, BinanceFrames(symbol))
            for text in (frame, frame[frame.index(b'"data":') + 7 : -1]):
                said = binance_says(text, symbol)
                kind = frames.scan(text)
                assert (kind != OTHER) == (said is not None), text
                if said is not None:
                    assert binance_saw(frames, kind) == said
                    taken[kind] += 1
    assert taken[QUOTE] > 1000
    assert taken[TRADE] > 100 or "2023" in name


@pytest.mark.real_data
def test_every_recorded_bybit_frame(real_data: Path):
    scanners: dict[str, BybitFrames] = {}
    taken = 0
    with gzip.open(real_data / "ws" / "bybit_v5_linear-2026-08-09.jsonl.gz") as file:
        for line in file:
            record = json.loads(line)
            data = record.get("data")
            if not isinstance(data, str) or not data.startswith('{"topic":"publicTrade.'):
                continue
            symbol = json.loads(data)["topic"].split(".")[1]
            frames = scanners.setdefault(symbol, BybitFrames(symbol))
            said = bybit_says(data.encode(), symbol)
            kind = frames.scan(data.encode())
            assert (kind != OTHER) == (said is not None), data
            if said is not None:
                assert bybit_saw(frames, kind) == said
                taken += 1
    assert taken > 50


@pytest.mark.real_data
def test_documented_frames(shared: Path):
    taken = 0
    for venue in ("binance", "bybit"):
        vectors = json.loads((shared / "vectors" / f"{venue}_ws_messages.json").read_text())
        for entry in vectors.values():
            for each in entry if isinstance(entry, list) else [entry]:
                message = each.get("message", each) if isinstance(each, dict) else None
                if isinstance(message, dict):
                    text = json.dumps(message, separators=(",", ":")).encode()
                    for symbol in ("BTCUSDT", "BNBUSDT"):
                        taken += agree(text, symbol, must=True)
    assert taken >= 2


@pytest.fixture(scope="module")
def at_the_edge():
    """Put bytes right before a page that nobody may read: one byte too far ends the process."""
    libc = ctypes.CDLL(None, use_errno=True)
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    edge = ctypes.c_void_p(start + mmap.PAGESIZE)
    assert libc.mprotect(edge, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def place(frame: bytes) -> ctypes.Array[ctypes.c_ubyte]:
        where = start + mmap.PAGESIZE - len(frame)
        ctypes.memmove(where, frame, len(frame))
        return (ctypes.c_ubyte * len(frame)).from_address(where)

    yield place
    libc.mprotect(edge, ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.skipif(not hasattr(mmap, "PROT_READ"), reason="pages are protected the POSIX way")
@pytest.mark.parametrize("frame", [AGG_TRADE, BOOK_TICKER, TRADES, TOP, WRAPPED])
def test_nothing_is_read_behind_the_end(frame, at_the_edge):
    scanners = BinanceFrames("BTCUSDT"), BybitFrames("BTCUSDT")
    # An empty view has no place in memory.
    for end in range(1, len(frame) + 1):
        for frames in scanners:
            assert (frames.scan(at_the_edge(frame[:end])) != OTHER) <= (end == len(frame))
    assert sum(frames.scan(at_the_edge(frame)) != OTHER for frames in scanners) == 1
