"""What stands between the socket and a decision, and between a decision and the socket.

A trade is read, a book is changed, an order is written and signed: on these rests how soon after a
print an order is on its way. What the project would use without its own code (orjson and ``float``,
``hmac.digest``) is measured beside it.

    pytest benchmarks/bench_wire.py --benchmark-only
"""

import hashlib
import hmac
import json

import orjson
import pytest

from passivx._core.book import L2Book
from passivx._core.frames import OTHER, QUOTE, TRADE, BinanceFrames, BybitFrames
from passivx._core.wire import BinanceOrderText, BybitOrderText, Hmac, decimal_text

AGG_TRADE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1767225600012,"s":"BTCUSDT",'
    b'"a":5933014123,"p":"98765.40","q":"0.125","nq":"0.125","f":100123456,"l":100123460,'
    b'"T":1767225600005,"m":true,"st":1}}'
)
BOOK_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":400900217123,'
    b'"E":1767225600012,"T":1767225600010,"s":"BTCUSDT","b":"98765.40","B":"31.21",'
    b'"a":"98765.50","A":"40.66","ps":"BTCUSDT","st":1}}'
)
TRADES = b'{"topic":"publicTrade.BTCUSD","type":"snapshot","ts":1767225600012,"data":[%s]}'
ROW = (
    b'{"T":1767225600005,"s":"BTCUSD","S":"Sell","v":"100","p":"98765.50","L":"PlusTick",'
    b'"i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617}'
)
TOP = (
    b'{"topic":"orderbook.1.BTCUSD","ts":1767225600012,"type":"snapshot","data":{"s":"BTCUSD",'
    b'"b":[["98765.00","1000"]],"a":[["98765.50","2000"]],"u":18521288,"seq":7961638724},'
    b'"cts":1767225600010}'
)
FRAMES = {
    "aggTrade": (BinanceFrames, "BTCUSDT", AGG_TRADE, TRADE),
    "bookTicker": (BinanceFrames, "BTCUSDT", BOOK_TICKER, QUOTE),
    "another symbol's": (BinanceFrames, "ETHUSDT", AGG_TRADE, OTHER),
    "publicTrade of 1": (BybitFrames, "BTCUSD", TRADES % ROW, TRADE),
    "publicTrade of 20": (BybitFrames, "BTCUSD", TRADES % b",".join([ROW] * 20), TRADE),
    "orderbook.1": (BybitFrames, "BTCUSD", TOP, QUOTE),
}
N = 10_000
SECRET = b"NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
MESSAGE = (
    b"apiKey=vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A&newClientOrderId="
    b"grid-b-0001&newOrderRespType=ACK&price=98765.40&quantity=0.002&recvWindow=5000&side=BUY"
    b"&symbol=BTCUSDT&timeInForce=GTX&timestamp=1767225600000&type=LIMIT"
)
STEPS = (1.0, 10.0), (1.0, 1000.0)
ORDER = "r1", 1_767_225_600_000, "grid-b-0001", 1, 98765.4, 0.002


def note_ns(benchmark, what, units):
    """Keep, and print, the best time of a unit."""
    if benchmark.stats is not None:
        ns = benchmark.stats["min"] * 1e9 / units
        benchmark.extra_info["ns"] = ns
        print(f"\n{what}: {ns:.1f} ns")


def best_of(benchmark, call, *args):
    """Time rounds of 1000 calls: reading the timer around one costs as much as a call."""
    return benchmark.pedantic(call, args=args, rounds=200, iterations=1000, warmup_rounds=1)


# --- frames ---


@pytest.mark.parametrize("name", FRAMES)
def test_scan_in_c(benchmark, name):
    """One scan without Python's call."""
    kind, symbol, frame, found = FRAMES[name]
    frames = kind(symbol)
    usual = benchmark(frames.scan_repeatedly, frame, N)
    assert usual == (N if found != OTHER else 0)
    note_ns(benchmark, f"{name}, {len(frame)} bytes, in C", N)


@pytest.mark.parametrize("name", FRAMES)
def test_scan(benchmark, name):
    """One scan as a client calls it, the frame a view of the socket's memory."""
    kind, symbol, frame, found = FRAMES[name]
    assert best_of(benchmark, kind(symbol).scan, memoryview(frame)) == found
    note_ns(benchmark, f"{name}, call", 1)


def test_scan_and_fields(benchmark):
    """A trade as the values that a client hands on."""
    frames = BinanceFrames("BTCUSDT")

    def read():
        frames.scan(AGG_TRADE)
        return frames.trade_id, frames.price, frames.qty, frames.ts_ms, frames.buyer_maker

    assert best_of(benchmark, read) == (5933014123, 98765.4, 0.125, 1767225600005, True)
    note_ns(benchmark, "aggTrade and its fields", 1)


def test_orjson_and_float(benchmark):
    """The same by the decoder that reads everything else."""

    def read():
        data = orjson.loads(AGG_TRADE)["data"]
        return data["a"], float(data["p"]), float(data["q"]), data["T"], data["m"]

    assert best_of(benchmark, read) == (5933014123, 98765.4, 0.125, 1767225600005, True)
    note_ns(benchmark, "aggTrade by orjson and float", 1)


# --- orders ---


def test_hmac(benchmark):
    assert (
        best_of(benchmark, Hmac(SECRET).sign, MESSAGE).decode()
        == hmac.new(SECRET, MESSAGE, hashlib.sha256).hexdigest()
    )
    note_ns(benchmark, f"signature of {len(MESSAGE)} bytes", 1)


def test_hmac_digest(benchmark):
    """The standard library's fastest door."""
    best_of(benchmark, lambda: hmac.digest(SECRET, MESSAGE, "sha256").hex().encode())
    note_ns(benchmark, "hmac.digest", 1)


def test_decimal_text(benchmark):
    assert best_of(benchmark, decimal_text, 98765.4, STEPS[0]) == "98765.4"
    note_ns(benchmark, "decimal_text", 1)


def test_binance_place_unsigned(benchmark):
    """The frame alone: what signs returns at once."""
    signature = b"0" * 64
    texts = BinanceOrderText("K" * 64, "BTCUSDT", *STEPS, lambda _: signature)
    assert json.loads(best_of(benchmark, texts.place, *ORDER))["params"]["price"] == "98765.4"
    note_ns(benchmark, "Binance order.place, without signature", 1)


def test_binance_place(benchmark):
    texts = BinanceOrderText("K" * 64, "BTCUSDT", *STEPS, Hmac(SECRET).sign)
    assert json.loads(best_of(benchmark, texts.place, *ORDER))["params"]["price"] == "98765.4"
    note_ns(benchmark, "Binance order.place, signed", 1)


def test_bybit_place(benchmark):
    texts = BybitOrderText("BTCUSD", "inverse", *STEPS)
    assert json.loads(best_of(benchmark, texts.place, *ORDER))["args"][0]["price"] == "98765.4"
    note_ns(benchmark, "Bybit order.create", 1)


def test_place_by_orjson(benchmark):
    """A Bybit frame by the encoder that writes everything else, its texts already there."""

    def place():
        return orjson.dumps(
            {
                "reqId": "r1",
                "header": {"X-BAPI-TIMESTAMP": "1767225600000", "X-BAPI-RECV-WINDOW": "5000"},
                "op": "order.create",
                "args": [
                    {
                        "category": "inverse", "symbol": "BTCUSD", "side": "Buy",
                        "orderType": "Limit", "qty": "0.002", "price": "98765.4",
                        "timeInForce": "PostOnly", "positionIdx": 0, "orderLinkId": "grid-b-0001",
                        "reduceOnly": False,
                    }
                ],
            }
        )  # fmt: skip

    assert best_of(benchmark, place)
    note_ns(benchmark, "Bybit order.create by orjson", 1)


# --- the order book ---


def levels(first, step, n):
    return [[f"{first + i * step:.1f}", f"{1 + i % 7}.25"] for i in range(n)]


def test_book_snapshot(benchmark):
    book = L2Book()
    benchmark(book.snapshot, levels(98_765.4, -0.1, 1000), levels(98_765.5, 0.1, 1000), 1)
    note_ns(benchmark, "snapshot of 2 x 1000 levels, a level", 2000)


def test_book_change(benchmark):
    """Events of 8 levels a side near the best of a book of 2 x 1000."""
    book = L2Book()
    book.snapshot(levels(98_765.4, -0.1, 1000), levels(98_765.5, 0.1, 1000), 1)
    bids, asks = levels(98_765.4, -0.3, 8), levels(98_765.5, 0.3, 8)
    for side in (bids, asks):
        side[3][1] = "0.000"
    update_ids = iter(range(2, 1 << 60))
    best_of(benchmark, lambda: book.on_bybit(next(update_ids), bids, asks, snapshot=False))
    note_ns(benchmark, "event of 2 x 8 levels", 1)
