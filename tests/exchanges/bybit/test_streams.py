"""The stream sockets: what is handed on, what is told to be missing, and how they are renewed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import logging
import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.wire import Hmac
from passivx.clock import VirtualClock
from passivx.errors import UnavailableError
from passivx.exchanges.base import FillKind, Link, MarkPrice, OrderStatus, PublicTrade
from passivx.exchanges.bybit.streams import Login, PrivateStream, PublicStream
from passivx.exchanges.stream import NoEntryError, StreamLimits, StreamState
from passivx.models import Position
from tests.exchanges.bybit.venue import KEY, NOW_MS, SECRET, fill_row, order_row, position_row
from tests.exchanges.scripted import PATIENT, feed, none, pumped, running
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import TEXT, WsServer

TRADE = {
    "topic": "publicTrade.BTCUSD",
    "type": "snapshot",
    "ts": 1001,
    "data": [
        {
            "T": 1000,
            "s": "BTCUSD",
            "S": "Sell",
            "v": "7",
            "p": "90000.5",
            "L": "PlusTick",
            "i": "20f43950-d8dd-5b31-9112-a178eb6023af",
            "BT": False,
            "RPI": False,
            "seq": 1,
        },
        {
            "T": 1000,
            "s": "BTCUSD",
            "S": "Buy",
            "v": "3",
            "p": "90001.0",
            "L": "PlusTick",
            "i": "b",
            "BT": False,
            "RPI": False,
            "seq": 1,
        },
    ],
}
TRADES = [
    ("trade", "20f43950-d8dd-5b31-9112-a178eb6023af", 90000.5, 7.0, 1000, True),
    ("trade", "b", 90001.0, 3.0, 1000, False),
]
QUOTE = {
    "topic": "orderbook.1.BTCUSD",
    "ts": 1001,
    "type": "snapshot",
    "data": {
        "s": "BTCUSD",
        "b": [["90000.0", "10"]],
        "a": [["90000.5", "20"]],
        "u": 50,
        "seq": 3000,
    },
    "cts": 1000,
}
TICKER = {
    "topic": "tickers.BTCUSD",
    "type": "snapshot",
    "ts": 1002,
    "cs": 1,
    "data": {
        "symbol": "BTCUSD",
        "markPrice": "90010",
        "fundingRate": "0.0001",
        "nextFundingTime": "9000",
        "lastPrice": "90000",
    },
}
DELTA = {
    "topic": "tickers.BTCUSD",
    "type": "delta",
    "ts": 1003,
    "cs": 2,
    "data": {"symbol": "BTCUSD", "markPrice": "90020"},
}
PONG = {"success": True, "ret_msg": "pong", "conn_id": "c", "req_id": "", "op": "ping"}
GAP = ("gap", Link.PRIVATE, "a message could not be read")


def public(recorder, clock=None, recent=none, url="ws://127.0.0.1:1/public"):
    clock = clock or VirtualClock(NOW_MS)
    return PublicStream(
        url,
        symbol="BTCUSD",
        recent=recent,
        venue_ms=clock.time_ms,
        sink=recorder,
        clock=clock,
        rng=random.Random(1),
    )


def login(clock, on_refused=lambda: None):
    return Login(KEY, Hmac(SECRET.encode()).sign, clock.time_ms, on_refused)


def private(recorder, clock=None, on_refused=lambda: None, url="ws://127.0.0.1:1/private"):
    clock = clock or VirtualClock(NOW_MS)
    return PrivateStream(
        url,
        symbol="BTCUSD",
        category="inverse",
        coin="BTC",
        login=login(clock, on_refused),
        sink=recorder,
        clock=clock,
        rng=random.Random(1),
    )


def told(topic, *rows, **more):
    return {"id": "x", "topic": topic, "creationTime": NOW_MS, "data": list(rows)} | more


async def asked(peer):
    """Return the next message that is no ping."""
    while True:
        request = json.loads(await peer.read_until(TEXT))
        if request["op"] != "ping":
            return request


async def logged_in(peer, clock, answer=None):
    """Take the connection and its auth, check it, and answer."""
    await peer.upgrade()
    request = json.loads(await peer.read_until(TEXT))
    assert request["op"] == "auth"
    key, expires, sign = request["args"]
    wanted = hmac.new(SECRET.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256)
    assert (key, sign) == (KEY, wanted.hexdigest())
    assert 5000 <= expires - clock.time_ms() <= 10_000
    peer.send(json.dumps(answer or {"success": True, "ret_msg": "", "op": "auth", "conn_id": "c"}))


async def subscribed(peer, **answer):
    """Take the subscription and answer it; return the topics."""
    request = await asked(peer)
    assert request["op"] == "subscribe"
    ack = {"success": True, "ret_msg": "", "conn_id": "c", "op": "subscribe"}
    peer.send(json.dumps(ack | {"req_id": request["req_id"]} | answer))
    return request["args"]


# --- the public socket ----------------------------------------------------------------------------


class TestTrades:
    @pytest.mark.parametrize(
        "message",
        [
            TRADE,
            json.dumps(TRADE).encode(),  # with blanks: not the usual frame
            json.dumps(dict(reversed(TRADE.items()))).encode(),
            TRADE | {"new": {"x": ["\n"]}},
        ],
    )
    def test_every_form_says_the_same(self, message):
        recorder = Recorder()
        assert feed(public(recorder), message) == [True]
        assert recorder.events == TRADES

    def test_usual_frames_are_read_by_the_scanner(self):
        stream = public(Recorder())
        feed(stream, TRADE, QUOTE, TICKER, PONG)
        assert stream.unusual == 0
        feed(stream, json.dumps(TRADE).encode(), json.dumps(QUOTE).encode())
        assert stream.unusual == 2

    @pytest.mark.parametrize(
        "row", [{"p": "0"}, {"v": ""}, {"S": "buy"}, {"s": "ETHUSD"}, {"T": 1.5}]
    )
    def test_a_spoiled_row_is_a_gap(self, row):
        recorder = Recorder()
        stream = public(recorder)
        spoiled = TRADE | {"data": [TRADE["data"][0], TRADE["data"][1] | row]}
        assert feed(stream, spoiled) == [False]
        assert recorder.events == [("gap", Link.TRADES, "a message could not be read")]
        assert stream.malformed == 1

    @pytest.mark.parametrize("message", [b"", b"{", b"[]", b"\xff", b"NaN"])
    def test_what_is_no_message_may_have_been_trades(self, message):
        recorder = Recorder()
        assert feed(public(recorder), message) == [False]
        assert recorder.named("gap") == [(Link.TRADES, "a message could not be read")]

    def test_other_topics_and_symbols_are_nothing(self):
        recorder = Recorder()
        other = [
            TRADE | {"topic": "publicTrade.ETHUSD"},
            TRADE | {"topic": ["publicTrade.BTCUSD"]},
            TRADE | {"topic": None},
            {"success": True, "type": "COMMAND_RESP", "data": {}},
            {"topic": "kline.1.BTCUSD", "data": []},
        ]
        assert feed(public(recorder), *other) == [False] * 5
        assert recorder.events == []


class TestQuotes:
    @pytest.mark.parametrize("message", [QUOTE, json.dumps(QUOTE).encode()])
    def test_best_prices(self, message):
        recorder = Recorder()
        assert feed(public(recorder), message, message) == [True, True]
        assert recorder.events == [("quote", 90000.0, 10.0, 90000.5, 20.0, 1000)] * 2

    @pytest.mark.parametrize(
        "changed",
        [
            {"b": []},
            {"a": [["1", "2"]]},
            {"b": [["x", "1"]]},
            {"s": "ETHUSD"},
            {"a": [["90001"]]},
            {"a": [["90000.0", "1"]]},
        ],
    )
    def test_no_price_is_made_up(self, changed):
        recorder = Recorder()
        stream = public(recorder)
        assert feed(stream, QUOTE | {"data": QUOTE["data"] | changed}) == [False]
        assert recorder.events == []
        assert stream.malformed == 1


class TestTickers:
    def test_deltas_are_merged(self):
        recorder = Recorder()
        feed(public(recorder), DELTA, TICKER, DELTA)
        mark = MarkPrice(mark_price=90010.0, funding_rate=0.0001, next_funding_ms=9000, ts_ms=1002)
        assert recorder.named("mark")[0] == (mark,)
        ((then,),) = recorder.named("mark")[1:]
        assert (then.mark_price, then.funding_rate, then.ts_ms) == (90020.0, 0.0001, 1003)

    def test_what_is_spoiled_counts_no_more(self):
        recorder = Recorder()
        spoiled = DELTA | {"data": {"fundingRate": ""}}
        assert feed(public(recorder), TICKER, spoiled, DELTA, TICKER) == [True, False, True, True]
        assert len(recorder.named("mark")) == 2

    def test_what_was_before_a_loss_is_not_merged(self):
        recorder = Recorder()
        stream = public(recorder)
        feed(stream, TICKER)
        stream._on_state(StreamState.LOST, "cut")
        feed(stream, DELTA)
        assert len(recorder.named("mark")) == 1


class TestPublicSocket:
    def test_it_subscribes_anew_and_tells_the_gap(self, run):
        topics = []

        async def once(peer):
            await peer.upgrade()
            topics.append(await subscribed(peer))
            peer.send(json.dumps(TRADE))
            await heard.wait()
            peer.cut()

        async def again(peer):
            await peer.upgrade()
            topics.append(await subscribed(peer))
            peer.send(json.dumps(QUOTE))
            await peer.gone()

        async def test():
            clock, recorder = VirtualClock(NOW_MS), Recorder()
            async with WsServer(once, again) as server:
                stream = public(recorder, clock, url=server.url)
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("trade"))
                    await stream.stream.wait_live()
                    assert recorder.named("gap") == []
                    heard.set()
                    await pumped(clock, lambda: recorder.named("quote"))
            assert recorder.named("gap") == [(Link.TRADES, "connected anew")]
            states = [e[:2] for e in recorder.named("link")]
            assert (Link.BOOK, StreamState.LOST) in states
            assert (Link.TRADES, StreamState.LOST) in states
            wanted = ["publicTrade.BTCUSD", "orderbook.1.BTCUSD", "tickers.BTCUSD"]
            assert topics == [wanted, wanted]

        heard = asyncio.Event()
        run(test())

    @pytest.mark.parametrize(
        "answer",
        [
            {"success": False, "ret_msg": "Invalid topic"},
            {"success": False, "req_id": None},  # as recorded: without an id
            {"success": "true"},
        ],
    )
    def test_a_refused_subscription_is_never_live(self, run, answer):
        async def script(peer):
            await peer.upgrade()
            await subscribed(peer, **answer)
            await peer.gone()

        async def test():
            recorder = Recorder()
            async with WsServer(script) as server:
                stream = public(recorder, url=server.url)
                async with running(stream.stream.run()):
                    lost = (Link.BOOK, StreamState.LOST, "subscribe: refused by the venue")
                    await recorder.until(lambda: lost in recorder.named("link"))
            assert all(state is not StreamState.LIVE for _, state, _ in recorder.named("link"))

        run(test())

    @pytest.mark.parametrize("silent", ["orderbook.1.BTCUSD", "tickers.BTCUSD"])
    def test_a_topic_that_is_confirmed_but_silent(self, run, silent):
        async def script(peer):
            await peer.upgrade()
            await subscribed(peer)
            while True:
                for message in (TRADE, QUOTE, TICKER):
                    if message["topic"] != silent:
                        peer.send(json.dumps(message))
                await peer.writer.drain()
                await asyncio.sleep(0.002)

        async def test():
            clock, recorder = VirtualClock(NOW_MS), Recorder()
            async with WsServer(script) as server:
                stream = public(recorder, clock, url=server.url)
                stream.stream.limits = StreamLimits(ping_idle_s=1e6)
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("trade"))
                    stale = (Link.BOOK, StreamState.STALE, f"no data of {silent}")
                    await pumped(clock, lambda: stale in recorder.named("link"))
                    await pumped(clock, lambda: server.connections > 1)

        run(test())

    def test_a_pong_is_no_data(self, run):
        async def script(peer):
            await peer.upgrade()
            await subscribed(peer)
            while True:
                assert json.loads(await peer.read_until(TEXT)) == {"op": "ping"}
                pinged.append(1)
                peer.send(json.dumps(PONG))

        async def test():
            clock, recorder = VirtualClock(NOW_MS), Recorder()
            async with WsServer(script) as server:
                stream = public(recorder, clock, url=server.url)
                stream.stream.limits = StreamLimits(data_age_s=50.0, ping_idle_s=1e6)
                for topic in ("orderbook.1.BTCUSD", "tickers.BTCUSD"):
                    stream._ages.forget(topic)
                async with running(stream.stream.run()):
                    await stream.stream.wait_live()
                    begun = clock.monotonic_s()
                    await pumped(clock, lambda: len(pinged) >= 2)
                    # Every 20 s, on time; and the answers change nothing.
                    assert 40.0 <= clock.monotonic_s() - begun <= 42.0
                    assert stream.stream.data_age_s() >= 40.0
                    await pumped(
                        clock,
                        lambda: recorder.links(StreamState.STALE),
                    )
                    assert clock.monotonic_s() - begun <= 52.0

        pinged = []
        run(test())

    def test_a_silent_topic_of_trades_is_found_out_over_rest(self, run):
        async def script(peer):
            await peer.upgrade()
            await subscribed(peer)
            await peer.gone()

        async def test():
            clock, recorder = VirtualClock(NOW_MS), Recorder()
            calls = []

            def trade(ts_ms):
                return PublicTrade(trade_id="t", price=1.0, qty=1.0, ts_ms=ts_ms, buyer_maker=False)

            def comes(ts_ms):
                feed(stream, TRADE | {"data": [TRADE["data"][0] | {"T": ts_ms}]})

            async def recent():
                calls.append(clock.time_ms())
                newest_ms = clock.time_ms() - 1000
                match len(calls):
                    case 1:
                        return None
                    case 2:
                        return trade(NOW_MS - 1)
                    case 3:
                        clock.call_later(4.0, lambda: comes(newest_ms))
                    case 4:
                        raise UnavailableError("no")
                return trade(newest_ms)

            async with WsServer(script) as server:
                stream = public(recorder, clock, recent=recent, url=server.url)
                stream.stream.limits = PATIENT
                for topic in ("orderbook.1.BTCUSD", "tickers.BTCUSD"):
                    stream._ages.forget(topic)
                async with running(stream.stream.run(), stream.watch()):
                    await stream.stream.wait_live()
                    await pumped(clock, lambda: server.connections == 2)
                    await stream.stream.wait_live()
            # None at all, one from before, one that was on its way, no answer: no proof.
            assert len(calls) == 5
            lost = [e[2] for e in recorder.named("link") if e[1] is StreamState.LOST]
            assert lost[:1] == ["no data of publicTrade.BTCUSD, but there are trades"]

        run(test())

    def test_a_topic_that_tells_trades_is_not_asked_about(self, run):
        async def test():
            clock, recorder = VirtualClock(NOW_MS), Recorder()

            async def recent():
                raise AssertionError

            stream = public(recorder, clock, recent=recent)
            async with running(stream.watch()) as _:
                for _ in range(20):
                    await clock.run(10_000)
                    feed(stream, TRADE)

        run(test())


# --- the private socket ---------------------------------------------------------------------------


class TestPrivateEvents:
    def test_an_order(self):
        recorder = Recorder()
        assert feed(private(recorder), told("order.inverse", order_row())) == [True]
        ((order,),) = recorder.named("order")
        assert (order.client_id, order.order_id, order.side) == ("grid-1", "id-77", 1)
        assert (order.price, order.qty, order.filled_qty) == (90000.0, 100.0, 0.0)
        assert (order.status, order.ts_ms, order.reason) == (OrderStatus.NEW, NOW_MS, "")

    @pytest.mark.parametrize(
        ("changed", "status", "reason"),
        [
            ({"rejectReason": "EC_PostOnlyWillTakeLiquidity"}, OrderStatus.CANCELED, "post_only"),
            (
                {"orderStatus": "Rejected", "rejectReason": "EC_PostOnlyWillTakeLiquidity"},
                OrderStatus.REJECTED,
                "post_only",
            ),
            ({"cancelType": "CancelByReduceOnly"}, OrderStatus.CANCELED, "reduce_only"),
            (
                {"cancelType": "CancelByReduceOnly", "rejectReason": "EC_PerCancelRequest"},
                OrderStatus.CANCELED,
                "reduce_only",
            ),
            ({"cancelType": "CancelAllBeforeLiq"}, OrderStatus.CANCELED, "liquidation"),
            ({"cancelType": "CancelByPrepareAdl"}, OrderStatus.CANCELED, "adl"),
            ({"cancelType": "CancelBySmp"}, OrderStatus.CANCELED, "self_trade"),
            ({"cancelType": "CancelByAdmin"}, OrderStatus.CANCELED, "CancelByAdmin"),
            ({"rejectReason": "EC_NoImmediateQtyToFill"}, OrderStatus.CANCELED,
             "EC_NoImmediateQtyToFill"),
            # Somebody asked for these.
            (
                {"cancelType": "CancelByUser", "rejectReason": "EC_PerCancelRequest"},
                OrderStatus.CANCELED,
                "",
            ),
            ({"cancelType": "CancelByUser"}, OrderStatus.CANCELED, ""),
            ({"orderStatus": "PartiallyFilledCanceled"}, OrderStatus.CANCELED, ""),
            ({"orderStatus": "Deactivated"}, OrderStatus.CANCELED, ""),
        ],
    )  # fmt: skip
    def test_why_an_order_ended(self, changed, status, reason):
        recorder = Recorder()
        feed(private(recorder), told("order", order_row(orderStatus="Cancelled") | changed))
        ((order,),) = recorder.named("order")
        assert (order.status, order.reason) == (status, reason)

    @pytest.mark.real_data
    def test_a_fill_while_a_cancel_is_on_its_way_is_one_fill(self, shared: Path):
        sequences = json.loads((shared / "vectors" / "sequences.json").read_text())
        assert "EC_OrigClOrdIDDoesNotExist" in sequences["bybit_double_filled"]["note"]
        recorder = Recorder()
        first = order_row(orderStatus="Filled", cumExecQty="100")
        second = first | {
            "cancelType": "CancelByUser",
            "rejectReason": "EC_OrigClOrdIDDoesNotExist",
        }
        feed(private(recorder), told("order.inverse", first), told("order.inverse", second))
        (once,), (again,) = recorder.named("order")
        assert once == again
        assert (once.status, once.filled_qty, once.reason) == (OrderStatus.FILLED, 100.0, "")
        assert recorder.named("fill") == []

    def test_several_fills_in_one_message(self):
        recorder = Recorder()
        rows = [fill_row(), fill_row(execId="e-2", execPnl="0.25", isMaker=False)]
        feed(private(recorder), told("execution.inverse", *rows))
        (first,), (second,) = recorder.named("fill")
        assert (first.trade_id, first.price, first.qty, first.fee) == ("e-1", 90000.0, 100.0, -1e-7)
        assert math.isnan(first.pnl)
        assert (second.pnl, second.maker, second.kind) == (0.25, False, FillKind.TRADE)

    def test_a_liquidation_is_named(self):
        recorder = Recorder()
        row = fill_row(execType="BustTrade", orderLinkId="")
        feed(private(recorder), told("execution.inverse", row))
        ((fill,),) = recorder.named("fill")
        assert fill.kind is FillKind.LIQUIDATION

    def test_funding_is_a_payment(self):
        recorder = Recorder()
        row = fill_row(execType="Funding", execFee="-0.0002")
        feed(private(recorder), told("execution.inverse", row))
        ((payment,),) = recorder.named("payment")
        assert (payment.id, payment.amount) == ("e-1", 0.0002)
        assert recorder.named("fill") == []

    def test_the_position(self):
        recorder = Recorder()
        row = position_row(side="Sell", size="300", entryPrice="27464.5", liqPrice="51764.5")
        del row["avgPrice"]
        feed(
            private(recorder),
            told("position.inverse", row),
            told("position.inverse", position_row()),
        )
        assert recorder.named("position") == [
            (Position(-300.0, 27464.5, 51764.5), NOW_MS),
            (Position(), NOW_MS),
        ]

    def test_the_wallet(self):
        recorder = Recorder()
        row = {"accountType": "UNIFIED", "coin": [{"coin": "BTC", "walletBalance": "1.5"}]}
        other = {"accountType": "UNIFIED", "coin": [{"coin": "USDT", "walletBalance": "9"}]}
        feed(private(recorder), told("wallet", row), told("wallet", other))
        assert recorder.named("wallet") == [(1.5, NOW_MS)]

    def test_others_are_ignored(self):
        recorder = Recorder()
        messages = [
            told("order.inverse", order_row(symbol="ETHUSD"), order_row(category="linear")),
            told("execution.inverse", fill_row(symbol="ETHUSD")),
            told("position.inverse", position_row(symbol="ETHUSD", positionIdx=1)),
            told("greeks", {}),
        ]
        feed(private(recorder), *messages)
        assert recorder.events == []

    @pytest.mark.parametrize(
        "spoil",
        [
            {"cumExecQty": ""},
            {"orderStatus": "Surprise"},
            {"side": ""},
            {"reduceOnly": "false"},
            {"updatedTime": None},
            {"price": "-1"},
            {"symbol": None},
            {"category": 7.5},
        ],
    )
    def test_a_spoiled_row_is_told_and_the_others_still_are(self, spoil):
        recorder = Recorder()
        stream = private(recorder)
        rows = [order_row(orderId="a"), order_row(**spoil), order_row(orderId="b")]
        assert feed(stream, told("order.inverse", *rows)) == [True]
        assert [event[0] for event in recorder.events] == ["order", "gap", "order"]
        assert recorder.events[1] == GAP
        assert stream.malformed == 1

    @pytest.mark.parametrize(
        "message",
        [
            b"{",
            told("order.inverse") | {"data": None},
            told("order.inverse") | {"data": ["x"]},
            told("wallet", {"coin": [{"coin": "BTC", "walletBalance": ""}]}),
            told("wallet", {"coin": None}),
            told("wallet", {}, creationTime="soon"),
        ],
    )
    def test_a_spoiled_message_is_told(self, message):
        recorder = Recorder()
        assert feed(private(recorder), message) == [False]
        assert recorder.events == [GAP]

    def test_hedge_mode_is_told(self):
        recorder = Recorder()
        feed(private(recorder), told("position.inverse", position_row(positionIdx=2)))
        assert recorder.events == [GAP]

    def test_execution_fast_is_not_taken_for_an_execution(self):
        # Its maker fills have no client id; it was not asked for.
        recorder = Recorder()
        row = fill_row()
        del row["execFee"]
        feed(private(recorder), told("execution.fast.inverse", row))
        assert recorder.named("fill") == []


class TestPrivateSocket:
    def test_it_logs_in_subscribes_and_comes_back(self, run, clock):
        topics = []

        def script(event, stays):
            async def act(peer):
                await logged_in(peer, clock)
                topics.append(await subscribed(peer))
                peer.send(json.dumps(event))
                if stays:
                    await peer.gone()
                await heard.wait()
                peer.cut()

            return act

        async def test():
            recorder = Recorder()
            first = script(told("order.inverse", order_row()), False)
            second = script(told("execution.inverse", fill_row()), True)
            async with WsServer(first, second) as server:
                stream = private(recorder, clock, url=server.url)
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("order"))
                    heard.set()
                    await pumped(clock, lambda: recorder.named("fill"))
            # There is no snapshot after subscribing, the first time neither.
            assert recorder.named("gap") == [(Link.PRIVATE, "connected")] * 2
            wanted = ["order.inverse", "execution.inverse", "position.inverse", "wallet"]
            assert topics == [wanted, wanted]

        heard = asyncio.Event()
        run(test())

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (
                {"op": "auth", "success": False, "retCode": 10003, "retMsg": "Invalid apikey"},
                "auth: refused (code 10003)",
            ),
            ({"op": "auth", "success": False, "ret_msg": f"bad key {KEY}"}, "auth: refused"),
            ({"op": "auth", "retCode": 10004, "retMsg": "no"}, "auth: refused (code 10004)"),
            # These say nothing, or two things.
            ({"op": "auth"}, "auth: refused"),
            ({"op": "auth", "success": True, "retCode": 33004}, "auth: refused (code 33004)"),
            ({"op": "auth", "success": "true"}, "auth: refused"),
            ({"op": "auth", "retCode": "0"}, "auth: refused"),
        ],
    )
    def test_refused_it_is_never_live(self, run, clock, answer, reason):
        refusals = []

        async def script(peer):
            await logged_in(peer, clock, answer)
            await peer.gone()

        async def test():
            recorder = Recorder()
            async with WsServer(script) as server:
                stream = private(recorder, clock, lambda: refusals.append(1), url=server.url)
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: server.connections == 3)
            states = recorder.named("link")
            assert (Link.PRIVATE, StreamState.LOST, reason) in states
            assert all(state is not StreamState.LIVE for _, state, _ in states)
            # Each time the clock is looked at: what has expired is refused as well.
            assert len(refusals) >= 2
            assert recorder.named("gap") == []

        run(test())

    @pytest.mark.parametrize("code", [10004, 10005, 33004])
    def test_a_key_that_is_refused_three_times_ends_it(self, run, clock, code):
        async def script(peer):
            await logged_in(peer, clock, {"op": "auth", "retCode": code, "retMsg": "no"})
            await peer.gone()

        async def test():
            recorder = Recorder()
            async with WsServer(script) as server:
                stream = private(recorder, clock, url=server.url)
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: stream.stream.state is StreamState.CLOSED)
                    with pytest.raises(NoEntryError) as e:
                        await stream.stream.wait_live()
                    assert e.value.code == code
                    assert server.connections == 3

        run(test())

    def test_too_many_sessions_pass(self, run, clock):
        answers = [10003, 10003, 33004, 33004, 10003, 33004, 33004, 0]

        async def script(peer):
            answer = {"op": "auth", "retCode": answers.pop(0), "retMsg": ""}
            await logged_in(peer, clock, answer)
            if not answers:
                await subscribed(peer)
            await peer.gone()

        async def test():
            async with WsServer(script) as server:
                stream = private(Recorder(), clock, url=server.url)
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: stream.stream.live)

        run(test())

    @pytest.mark.parametrize("code", [0, 20001])
    def test_answers_of_either_kind_are_taken(self, run, clock, code):
        async def script(peer):
            await logged_in(peer, clock, {"op": "auth", "retCode": code, "retMsg": "OK"})
            await subscribed(peer)
            await peer.gone()

        async def test():
            async with WsServer(script) as server:
                stream = private(Recorder(), clock, url=server.url)
                async with running(stream.stream.run()):
                    await stream.stream.wait_live()

        run(test())

    def test_a_cut_at_every_stage_comes_back(self, run, clock):
        async def at_once(peer):
            await peer.upgrade()
            peer.reset()

        async def before_the_answer(peer):
            await peer.upgrade()
            await asked(peer)
            peer.reset()

        async def before_the_topics(peer):
            await logged_in(peer, clock)
            await asked(peer)
            peer.cut()

        async def well(peer):
            await logged_in(peer, clock)
            await subscribed(peer)
            await peer.gone()

        async def test():
            recorder = Recorder()
            scripts = (at_once, before_the_answer, before_the_topics, well)
            async with WsServer(*scripts) as server:
                stream = private(recorder, clock, url=server.url)
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: stream.stream.live)
                assert server.most_open <= 2

        run(test())

    def test_no_secret_is_shown(self, run, clock, caplog):
        caplog.set_level(logging.DEBUG)
        shown = []

        async def refusing(peer):
            await peer.upgrade()
            request = await asked(peer)
            shown.append(request["args"][2])
            answer = {"op": "auth", "success": False, "retCode": 10004, "retMsg": str(request)}
            peer.send(json.dumps(answer))
            await peer.gone()

        async def test():
            recorder = Recorder()
            async with WsServer(refusing) as server:
                stream = private(recorder, clock, url=server.url)
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: server.connections == 2 and len(shown) == 2)
                shown.append(repr(vars(stream)) + repr(recorder.events))

        run(test())
        *signatures, text = shown
        text += caplog.text
        assert "auth: refused" in text
        assert "canary" not in text
        assert not any(signature in text for signature in signatures)


# --- whatever comes -------------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    base=st.sampled_from(
        [
            TRADE,
            QUOTE,
            TICKER,
            DELTA,
            PONG,
            told("order.inverse", order_row()),
            told("execution.inverse", fill_row()),
            told("position.inverse", position_row(side="Buy", size="1", avgPrice="5")),
            told("wallet", {"coin": [{"coin": "BTC", "walletBalance": "1"}]}),
            {"op": "auth", "success": True},
            {"op": "subscribe", "success": True, "req_id": "sub-1"},
        ]
    ),
    data=st.data(),
)
def test_no_message_raises_and_no_number_is_made_up(base, data):
    message = json.loads(json.dumps(base))
    places = [message]
    if isinstance(message.get("data"), list) and message["data"]:
        places.append(message["data"][0])
    elif isinstance(message.get("data"), dict):
        places.append(message["data"])
    for place in places:
        for key in data.draw(st.lists(st.sampled_from(sorted(place)), max_size=2)):
            place[key] = data.draw(JSON | st.sampled_from(["NaN", "-1", "0", "1e999", ""]))
    payload = json.dumps(message, separators=(",", ":")).encode()
    recorder = Recorder()
    for stream in (public(recorder), private(recorder)):
        assert stream._on_frame(memoryview(payload)) in (True, False)
    for values in recorder.named("trade") + recorder.named("quote"):
        assert all(0.0 < x < math.inf for x in values if isinstance(x, float))


@pytest.mark.real_data
def test_recorded_frames_are_read_alike_either_way(real_data):
    n = 0
    with gzip.open(real_data / "ws" / "bybit_v5_linear-2026-08-09.jsonl.gz") as file:
        for line in file:
            record = json.loads(line)
            frame = record.get("data")
            if not isinstance(frame, str) or '"topic":"publicTrade.BTCUSDT"' not in frame:
                continue
            fast, slow = Recorder(), Recorder()
            clock = VirtualClock(NOW_MS)
            for recorder, payload in ((fast, frame), (slow, json.dumps(json.loads(frame)))):
                stream = PublicStream(
                    "ws://127.0.0.1:1/x",
                    symbol="BTCUSDT",
                    recent=none,
                    venue_ms=clock.time_ms,
                    sink=recorder,
                    clock=clock,
                )
                assert feed(stream, payload.encode()) == [True]
                assert stream.unusual == (recorder is slow)
            assert fast.events == slow.events
            n += 1
    assert n > 10
