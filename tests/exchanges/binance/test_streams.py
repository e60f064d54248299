"""The stream sockets: what is handed on, what is told to be missing, and how they are renewed."""

from __future__ import annotations

import gzip
import json
import logging
import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.errors import UnavailableError, VenueError
from passivx.exchanges.base import FillKind, Link, OrderStatus, PublicTrade, Reaction
from passivx.exchanges.binance.streams import BookStream, PrivateStream, TradeStream
from passivx.exchanges.silence import TradeWatch
from passivx.exchanges.stream import NoEntryError, StreamState
from passivx.models import Position
from tests.exchanges.binance.venue import LISTEN_KEY, NOW_MS
from tests.exchanges.scripted import PATIENT, dumps, feed, none, pumped, running
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import TEXT, WsServer

TRADE = {
    "e": "aggTrade",
    "E": 1001,
    "s": "BTCUSDT",
    "a": 7,
    "p": "90000.10",
    "q": "0.002",
    "nq": "0.002",
    "f": 1,
    "l": 1,
    "T": 1000,
    "m": True,
    "st": 1,
}
MARK = {
    "e": "markPriceUpdate",
    "E": 1000,
    "s": "BTCUSDT",
    "p": "90001.5",
    "i": "90000",
    "P": "90000",
    "r": "-0.0001",
    "T": 9000,
}
QUOTE = {
    "e": "bookTicker",
    "u": 5,
    "s": "BTCUSDT",
    "b": "90000.0",
    "B": "1",
    "a": "90000.1",
    "A": "2",
    "T": 1000,
    "E": 1001,
}


def trades(recorder, clock=None, recent=none, url="ws://127.0.0.1:1/market", **kwargs):
    clock = clock or VirtualClock(NOW_MS)
    return TradeStream(
        url,
        symbol="BTCUSDT",
        recent=recent,
        venue_ms=clock.time_ms,
        sink=recorder,
        clock=clock,
        rng=random.Random(1),
        **kwargs,
    )


def book(recorder, clock=None, url="ws://127.0.0.1:1/public"):
    clock = clock or VirtualClock(NOW_MS)
    return BookStream(url, symbol="BTCUSDT", sink=recorder, clock=clock, rng=random.Random(1))


async def subscribed(peer):
    """Take the subscription and confirm it; return what was asked for."""
    await peer.upgrade()
    request = json.loads(await peer.read_until(TEXT))
    peer.send(json.dumps({"result": None, "id": request["id"]}))
    return request


# --- trades ---------------------------------------------------------------------------------------


class TestTrades:
    @pytest.mark.parametrize(
        "message",
        [
            TRADE,
            {"stream": "btcusdt@aggTrade", "data": TRADE},
            json.dumps(TRADE).encode(),  # with blanks: not the usual frame
            json.dumps(dict(reversed(TRADE.items()))).encode(),
            {k: v for k, v in TRADE.items() if k not in ("nq", "st", "f", "l")},
            TRADE | {"new": [{"x": "\n"}]},
        ],
    )
    def test_every_form_says_the_same(self, message):
        recorder = Recorder()
        assert feed(trades(recorder), message) == [True]
        assert recorder.events == [("trade", "7", 90000.1, 0.002, 1000, True)]

    def test_usual_frames_are_read_by_the_scanner(self):
        stream = trades(Recorder())
        feed(stream, TRADE, TRADE | {"a": 8, "m": False})
        assert stream.unusual == 0
        feed(stream, json.dumps(TRADE | {"a": 9}).encode())
        assert stream.unusual == 1

    def test_repetitions_are_dropped_and_gaps_told(self):
        recorder = Recorder()
        stream = trades(recorder)
        rows = [TRADE | {"a": a, "T": 1000 + a} for a in (7, 8, 7, 8, 9, 12, 11, 12, 13)]
        feed(stream, *rows)
        assert [e[0] for e in recorder.named("trade")] == ["7", "8", "9", "12", "13"]
        assert recorder.named("gap") == [(Link.TRADES, "trade 12 follows 9")]

    def test_a_venue_that_counts_anew_is_followed(self):
        recorder = Recorder()
        feed(trades(recorder), TRADE | {"a": 900}, TRADE | {"a": 1, "T": 1001})
        assert [e[0] for e in recorder.named("trade")] == ["900", "1"]
        assert len(recorder.named("gap")) == 1

    @given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=30))
    def test_ids_rise_by_one_or_a_gap_is_told(self, steps):
        recorder = Recorder()
        stream = trades(recorder)
        for id, slow in steps:
            row = TRADE | {"a": id, "T": id}
            feed(stream, json.dumps(row).encode() if slow else row)
        last = None
        for event in recorder.events:
            if event[0] == "gap":
                last = None
            elif last is None:
                last = int(event[1])
            else:
                assert int(event[1]) == last + 1
                last += 1

    @pytest.mark.parametrize(
        "changed",
        [{"p": ""}, {"q": "0"}, {"p": "-1"}, {"a": "x"}, {"m": 1}, {"T": None}, {"p": "nan"}],
    )
    def test_what_cannot_be_read_is_told_as_a_gap(self, changed):
        recorder = Recorder()
        stream = trades(recorder)
        assert feed(stream, TRADE | changed) == [False]
        assert recorder.named("trade") == []
        assert recorder.named("gap") == [(Link.TRADES, "a message could not be read")]
        assert stream.malformed == 1

    @pytest.mark.parametrize("message", [b"", b"{", b"[]", b"7", b"\xff", b'{"stream":1}'])
    def test_what_is_no_message_is_counted(self, message):
        stream = trades(Recorder())
        assert feed(stream, message) == [False]
        assert stream.malformed == 1

    @pytest.mark.parametrize(
        "message",
        [
            TRADE | {"s": "ETHUSDT"},
            TRADE | {"st": 2},
            {"e": "kline", "s": "BTCUSDT"},
            {"e": 5, "s": "BTCUSDT"},
            {"e": None},
            {"result": None, "id": 99},
            {"result": None, "id": "x"},
            {"code": 2, "msg": "Invalid request"},
        ],
    )
    def test_what_is_not_ours_is_no_data(self, message):
        recorder = Recorder()
        stream = trades(recorder)
        assert feed(stream, message) == [False]
        assert recorder.events == []
        assert stream.malformed == 0

    def test_the_mark_price(self):
        recorder = Recorder()
        assert feed(trades(recorder), MARK) == [True]
        ((mark,),) = recorder.named("mark")
        assert (mark.mark_price, mark.funding_rate, mark.next_funding_ms) == (90001.5, -1e-4, 9000)

    @pytest.mark.real_data
    def test_recorded_trades(self, real_data: Path):
        got: dict[str, Recorder] = {}
        streams: dict[str, TradeStream] = {}
        wanted: dict[str, list[tuple]] = {}
        with gzip.open(real_data / "ws" / "binance_usdm-2021-04-17.ws.gz", "rb") as file:
            for line in file:
                payload = line[line.find(b"{") :].rstrip()
                if b'"aggTrade"' not in payload:
                    continue
                row = json.loads(payload)["data"]
                symbol = row["s"]
                if symbol not in streams:
                    got[symbol] = Recorder()
                    clock = VirtualClock(NOW_MS)
                    streams[symbol] = TradeStream(
                        "ws://127.0.0.1:1",
                        symbol=symbol,
                        recent=none,
                        venue_ms=clock.time_ms,
                        sink=got[symbol],
                        clock=clock,
                    )
                for stream in streams.values():
                    feed(stream, payload)
                wanted.setdefault(symbol, []).append(
                    (str(row["a"]), float(row["p"]), float(row["q"]), row["T"], row["m"])
                )
        assert sum(map(len, wanted.values())) > 100
        for symbol, rows in wanted.items():
            assert got[symbol].named("trade") == rows
            assert got[symbol].named("gap") == []
            assert streams[symbol].unusual == 0

    def test_subscribing(self, run):
        asked = []

        async def script(peer):
            asked.append(await subscribed(peer))
            asked.append(peer.request.split(b" ")[1])
            peer.send(dumps(TRADE))
            await peer.gone()

        async def go():
            recorder = Recorder()
            async with WsServer(script) as server:
                stream = trades(recorder, url=server.url.removesuffix("/ws") + "/market")
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("trade") and stream.stream.live)
                    await stream.stream.close()
            assert asked[0]["method"] == "SUBSCRIBE"
            assert asked[0]["params"] == ["btcusdt@aggTrade", "btcusdt@markPrice@1s"]
            assert isinstance(asked[0]["id"], int)
            assert asked[1] == b"/market/ws"
            states = [state for link, state, _ in recorder.named("link") if link is Link.TRADES]
            assert states == [StreamState.CONNECTING, StreamState.LIVE, StreamState.CLOSED]

        run(go())

    @pytest.mark.parametrize(
        "answer",
        [
            {"code": 2, "msg": "Invalid request: request ID must be an unsigned integer"},
            {"error": {"code": 2, "msg": "no"}, "id": None},
        ],
    )
    def test_a_refused_subscription_is_no_connection(self, run, answer):
        async def refuse(peer):
            await peer.upgrade()
            await peer.read_until(TEXT)
            peer.send(json.dumps(answer))
            await peer.gone()

        async def go():
            recorder = Recorder()
            async with WsServer(refuse) as server:
                stream = trades(recorder, url=server.url.removesuffix("/ws"))
                async with running(stream.stream.run()):
                    await recorder.until(
                        lambda: (
                            (Link.TRADES, StreamState.LOST, "subscribe: refused by the venue")
                            in recorder.named("link")
                        )
                    )

        run(go())

    def test_a_topic_that_is_acknowledged_and_silent_is_found(self, run):
        async def silent(peer):
            await subscribed(peer)
            peer.send(dumps(TRADE))
            await peer.gone()

        async def good(peer):
            await subscribed(peer)
            peer.send(dumps(MARK))
            await peer.gone()

        async def go():
            recorder = Recorder()
            clock = VirtualClock(NOW_MS)
            async with WsServer(silent, good) as server:
                stream = trades(recorder, clock, url=server.url.removesuffix("/ws"))
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("trade"))
                    await pumped(clock, lambda: recorder.named("mark"))
            stale = [e for e in recorder.named("link") if e[1] is StreamState.STALE]
            assert len(stale) == 1
            assert "no data" in stale[0][2]

        run(go())


class TestWatch:
    """Whether trades are missing that REST knows of."""

    def test_silence_counts_from_the_last_trade(self, run):
        async def go():
            clock = VirtualClock(NOW_MS)
            asked = []

            async def recent():
                asked.append(clock.monotonic_s())

            watch = TradeWatch(recent=recent, venue_ms=clock.time_ms, clock=clock)
            begun_s = clock.monotonic_s()
            async with running(watch.run(SimpleNamespace(live=True, name="x"), "trades")):
                await clock.run(3000)
                watch.seen(NOW_MS + 3000)
                await clock.run(60_500)
            assert [at - begun_s for at in asked] == pytest.approx([33.0, 63.0])

        run(go())

    @staticmethod
    def newest(id, ts_ms):
        return PublicTrade(trade_id=str(id), price=1.0, qty=1.0, ts_ms=ts_ms, buyer_maker=True)

    def renewed(self, run, newest, *fed, late=None):
        """Return why the connection was renewed while no trades came, if it was.

        ``late`` comes four seconds after REST was asked for the first time.
        """
        recorder = Recorder()
        clock = VirtualClock(NOW_MS)
        asked, streams = [], []

        async def recent():
            asked.append(clock.time_ms())
            if late is not None and len(asked) == 1:
                clock.call_later(4.0, lambda: feed(streams[0], late))
            if isinstance(newest, Exception):
                raise newest
            return newest

        async def script(peer):
            await subscribed(peer)
            await peer.gone()

        async def go():
            async with WsServer(script) as server:
                stream = trades(recorder, clock, recent, url=server.url.removesuffix("/ws"))
                streams.append(stream)
                stream.stream.limits = PATIENT
                async with running(stream.stream.run(), stream.watch()):
                    await stream.stream.wait_live()
                    feed(stream, *fed)
                    for _ in range(40):
                        feed(stream, MARK)
                        await clock.run(1000)
            assert asked

        run(go())
        lost = [e for e in recorder.named("link") if e[1] is StreamState.LOST]
        return lost[0][2] if lost else None

    def test_a_quiet_market(self, run):
        assert self.renewed(run, None) is None
        assert self.renewed(run, self.newest(7, NOW_MS - 3600_000)) is None
        known = TRADE | {"T": NOW_MS}
        assert self.renewed(run, self.newest(7, NOW_MS), known) is None

    def test_silence_while_there_are_trades(self, run):
        got = self.renewed(run, self.newest(9, NOW_MS + 1000), TRADE | {"T": NOW_MS})
        assert got is not None
        assert "btcusdt@aggTrade" in got
        assert self.renewed(run, self.newest(9, NOW_MS + 1000)) is not None

    def test_a_trade_of_just_now_may_be_on_its_way(self, run):
        known, just_now = TRADE | {"T": NOW_MS}, self.newest(9, NOW_MS + 29_000)
        late = TRADE | {"T": just_now.ts_ms, "a": 9}
        assert self.renewed(run, just_now, known, late=late) is None
        # On a busy market the newest one is always of just now: it proves as much, a little later.
        assert self.renewed(run, just_now, known) is not None

    def test_rest_that_is_down_proves_nothing(self, run):
        assert self.renewed(run, UnavailableError("down")) is None


# --- best prices ----------------------------------------------------------------------------------


class TestBook:
    @pytest.mark.parametrize(
        "message",
        [
            QUOTE,
            {"stream": "btcusdt@bookTicker", "data": QUOTE},
            json.dumps(QUOTE).encode(),
            QUOTE | {"ps": "BTCUSDT", "st": 1},
        ],
    )
    def test_every_form_says_the_same(self, message):
        recorder = Recorder()
        assert feed(book(recorder), message) == [True]
        assert recorder.events == [("quote", 90000.0, 1.0, 90000.1, 2.0, 1000)]

    def test_ids_that_begin_lower_at_a_later_time_are_a_venue_that_counts_anew(self):
        recorder = Recorder()
        rows = [(10**17, 1000), (5, 1001), (6, 1001), (4, 1001), (7, 1002)]
        feed(book(recorder), *(QUOTE | {"u": u, "B": str(u), "T": ts_ms} for u, ts_ms in rows))
        assert [e[1] for e in recorder.named("quote")] == [1e17, 5.0, 6.0, 7.0]

    def test_older_quotes_are_dropped(self):
        recorder = Recorder()
        rows = [QUOTE | {"u": u, "B": str(u)} for u in (5, 6, 4, 6, 7)]
        messages = [rows[0], rows[1], json.dumps(rows[2]).encode(), rows[2], *rows[3:]]
        assert feed(book(recorder), *messages) == [True] * 6
        assert [e[1] for e in recorder.named("quote")] == [5.0, 6.0, 6.0, 7.0]

    @pytest.mark.parametrize("changed", [{"b": "0"}, {"a": "90000.0"}, {"u": None}, {"B": "x"}])
    def test_no_price_is_made_up(self, changed):
        recorder = Recorder()
        stream = book(recorder)
        assert feed(stream, QUOTE | changed) == [False]
        assert recorder.events == []
        assert stream.malformed == 1

    @pytest.mark.parametrize("changed", [{"s": "ETHUSDT"}, {"st": 2}])
    def test_another_symbol(self, changed):
        recorder = Recorder()
        assert feed(book(recorder), QUOTE | changed) == [False]
        assert recorder.events == []

    def test_a_venue_that_counts_anew_after_a_cut(self, run):
        async def script(peer):
            request = await subscribed(peer)
            assert request["params"] == ["btcusdt@bookTicker"]
            peer.send(dumps(QUOTE | {"u": 100 - len(server.peers)}))
            if len(server.peers) == 1:
                await recorder.until(lambda: recorder.named("quote"))
                peer.reset()
            await peer.gone()

        async def go():
            nonlocal server
            clock = VirtualClock(NOW_MS)
            async with WsServer(script) as server:
                stream = book(recorder, clock, url=server.url.removesuffix("/ws"))
                async with running(stream.stream.run()):
                    await pumped(clock, lambda: len(recorder.named("quote")) == 2)

        server = None
        recorder = Recorder()
        run(go())


# --- the account ----------------------------------------------------------------------------------


class Failing(Recorder):
    """A sink that fails at every event of one kind."""

    def __init__(self, name):
        super().__init__()
        setattr(self, f"on_{name}", self._fail)

    def _fail(self, *event):
        raise RuntimeError


def test_an_event_that_nobody_took_is_a_gap(run):
    async def telling(peer):
        await peer.upgrade()
        peer.send(dumps(order_event()))
        await peer.gone()

    async def trading(peer):
        await subscribed(peer)
        peer.send(dumps(TRADE))
        await peer.gone()

    async def go(script, made, link):
        recorder = made._sink
        async with WsServer(script) as server:
            made.stream._url = server.url
            async with running(made.stream.run()):
                wanted = (link, "a message could not be handed on")
                await recorder.until(lambda: wanted in recorder.named("gap"))
                await made.stream.wait_live()

    run(go(telling, private(Failing("fill")), Link.PRIVATE))
    run(go(trading, trades(Failing("trade")), Link.TRADES))


class Keys:
    """The venue's listenKey endpoints."""

    def __init__(self):
        self.made = 0
        self.kept = 0
        self.fault = None

    async def make(self):
        self.made += 1
        return f"{LISTEN_KEY}{self.made}"

    async def keep(self):
        self.kept += 1
        if self.fault is not None:
            raise self.fault
        return f"{LISTEN_KEY}{self.made}"


def private(recorder, clock=None, keys=None, url="ws://127.0.0.1:1/private", funded=None):
    keys = keys or Keys()
    return PrivateStream(
        url,
        symbol="BTCUSDT",
        asset="USDT",
        listen_key=keys.make,
        keep_listen_key=keys.keep,
        on_funding=(funded if funded is not None else []).append,
        sink=recorder,
        clock=clock or VirtualClock(NOW_MS),
        rng=random.Random(1),
    )


def order_event(**changed):
    order = {
        "s": "BTCUSDT",
        "c": "grid-1",
        "S": "BUY",
        "o": "LIMIT",
        "f": "GTX",
        "q": "0.002",
        "p": "7100.50",
        "ap": "7100.50",
        "x": "TRADE",
        "X": "PARTIALLY_FILLED",
        "i": 8886774,
        "l": "0.001",
        "z": "0.001",
        "L": "7100.50",
        "N": "USDT",
        "n": "0.0014",
        "T": 1000,
        "t": 12345678,
        "m": True,
        "R": False,
        "ps": "BOTH",
        "rp": "0",
        "er": "0",
    }
    return {"e": "ORDER_TRADE_UPDATE", "E": 1001, "T": 1000, "o": order | changed}


def account_event(reason="ORDER", **changed):
    account = {
        "m": reason,
        "B": [{"a": "USDT", "wb": "1000.5", "cw": "1000.5", "bc": "0"}],
        "P": [{"s": "BTCUSDT", "pa": "-0.5", "ep": "90000.0", "ps": "BOTH"}],
    }
    return {"e": "ACCOUNT_UPDATE", "E": 1001, "T": 1000, "a": account | changed}


class TestPrivate:
    def test_a_key_that_is_refused_for_good_ends_it(self, run):
        async def refused():
            raise VenueError("POST listenKey: Invalid API-key", code=-2015, reaction=Reaction.HALT)

        async def go():
            keys = Keys()
            keys.make = refused
            stream = private(Recorder(), keys=keys).stream
            async with running(stream.run()):
                with pytest.raises(NoEntryError, match="Invalid API-key"):
                    await stream.wait_live()

        run(go())

    def test_a_fill_comes_before_its_order(self):
        recorder = Recorder()
        assert feed(private(recorder), order_event()) == [True]
        (fill,), (order,) = recorder.named("fill")[0], recorder.named("order")[0]
        assert [e[0] for e in recorder.events] == ["fill", "order"]
        assert (fill.trade_id, fill.qty, fill.fee) == ("12345678", 0.001, -0.0014)
        assert (order.client_id, order.filled_qty) == ("grid-1", 0.001)

    def test_an_order_without_a_fill(self):
        recorder = Recorder()
        feed(private(recorder), order_event(x="CANCELED", X="CANCELED", t=0, l="0", L="0"))
        assert [e[0] for e in recorder.events] == ["order"]
        assert recorder.events[0][1].status is OrderStatus.CANCELED

    def test_a_fill_counts_whatever_the_order_is_called(self):
        recorder = Recorder()
        stream = private(recorder)
        assert feed(stream, order_event(X="SOMETHING_NEW")) == [False]
        assert [e[0] for e in recorder.events] == ["fill", "gap"]
        assert stream.malformed == 1

    def test_a_liquidation(self):
        recorder = Recorder()
        feed(private(recorder), order_event(c="autoclose-17", x="CALCULATED", X="FILLED"))
        assert recorder.named("fill")[0][0].kind is FillKind.LIQUIDATION

    def test_an_order_of_the_app_counts_too(self):
        recorder = Recorder()
        feed(private(recorder), order_event(c="web_abc"))
        assert recorder.named("fill")[0][0].client_id == "web_abc"

    @pytest.mark.parametrize(
        "message",
        [
            order_event(s="ETHUSDT", n=None),
            account_event(B=[], P=[]),
            account_event(
                B=[{"a": "BNB", "wb": "x"}], P=[{"s": "ETHUSDT", "pa": "x", "ps": "LONG"}]
            ),
            {"e": "TRADE_LITE", "s": "BTCUSDT", "q": "1"},
            {"e": "ALGO_UPDATE", "o": {}},
            {"e": "STRATEGY_UPDATE"},
            {"e": None},
            {},
            {"e": "ACCOUNT_CONFIG_UPDATE", "ac": {"s": "ETHUSDT", "l": 5}},
            {"e": "MARGIN_CALL", "p": [{"s": "ETHUSDT"}]},
        ],
    )
    def test_what_is_not_ours(self, message):
        recorder = Recorder()
        stream = private(recorder)
        feed(stream, message)
        assert recorder.events == []
        assert stream.malformed == 0

    def test_wallet_and_position(self):
        recorder = Recorder()
        feed(private(recorder), account_event())
        assert recorder.named("wallet") == [(1000.5, 1000)]
        ((position, ts_ms),) = recorder.named("position")
        assert (position.size, position.entry_price, ts_ms) == (-0.5, 90000.0, 1000)
        assert math.isnan(position.liq_price)

    def test_flat_again(self):
        recorder = Recorder()
        row = {"s": "BTCUSDT", "pa": "0", "ep": "0.0", "ps": "BOTH"}
        feed(private(recorder), account_event(P=[row]))
        assert recorder.named("position") == [(Position(), 1000)]

    def test_funding_is_asked_for(self):
        recorder, funded = Recorder(), []
        stream = private(recorder, funded=funded)
        feed(stream, account_event("FUNDING_FEE", P=[]))
        feed(stream, account_event("FUNDING_FEE", P=[], S="BTCUSDT"))
        feed(stream, account_event("FUNDING_FEE", P=[], S="ETHUSDT"))
        assert funded == [1000, 1000]
        assert len(recorder.named("wallet")) == 3

    @pytest.mark.parametrize(
        "message",
        [
            order_event(n=None),
            order_event(L="nan"),
            order_event(t=None),
            order_event(S="HOLD"),
            order_event(z=""),
            {"e": "ORDER_TRADE_UPDATE", "T": 1, "o": None},
            account_event(B=None),
            account_event(B=[{"a": "USDT"}]),
            account_event(P=[{"s": "BTCUSDT", "pa": "1", "ep": "5", "ps": "LONG"}]),
            {"e": "MARGIN_CALL"},
            b"[1]",
            b"{",
        ],
    )
    def test_what_cannot_be_read_must_be_asked_for(self, message):
        recorder = Recorder()
        stream = private(recorder)
        assert feed(stream, message) == [False]
        assert stream.malformed == 1
        assert recorder.named("gap") == [(Link.PRIVATE, "a message could not be read")]

    @pytest.mark.parametrize(
        "message",
        [
            {"e": "ACCOUNT_CONFIG_UPDATE", "E": 1, "T": 1, "ac": {"s": "BTCUSDT", "l": 25}},
            {"e": "ACCOUNT_CONFIG_UPDATE", "E": 1, "T": 1, "ai": {"j": True}},
            {"e": "MARGIN_CALL", "E": 1, "p": [{"s": "BTCUSDT"}]},
        ],
    )
    def test_what_changed_the_account_must_be_asked_for(self, message):
        recorder = Recorder()
        feed(private(recorder), message)
        assert [link for link, _ in recorder.named("gap")] == [Link.PRIVATE]

    @pytest.mark.real_data
    def test_every_documented_event_is_taken(self, shared):
        held = json.loads((shared / "vectors" / "binance_ws_messages.json").read_text())
        n = 0
        for name, entry in held.items():
            if not name.startswith("private/"):
                continue
            message = entry.get("message", entry.get("example"))
            recorder = Recorder()
            stream = private(recorder)
            feed(stream, message)
            # The documented account is in hedge mode, and its positions must not be taken.
            refused = name == "private/ACCOUNT_UPDATE"
            assert stream.malformed == refused, name
            n += 1
        assert n > 10

    @given(
        st.dictionaries(
            st.sampled_from(["e", "o", "a", "T", "p", "ac", "listenKey"]),
            st.sampled_from(["ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE", "MARGIN_CALL"])
            | st.integers(-9, 2**53)
            | st.none()
            | st.lists(st.integers(-9, 9), max_size=1)
            | st.dictionaries(st.sampled_from(["s", "B", "P", "m", "t"]), st.text(max_size=3)),
        )
    )
    def test_garbage_never_gets_out_of_hand(self, message):
        recorder = Recorder()
        feed(private(recorder), message)
        assert {e[0] for e in recorder.events} <= {"gap"}


class TestListenKey:
    def test_it_is_in_the_address_and_nowhere_else(self, run, caplog):
        caplog.set_level(logging.DEBUG)
        paths = []

        async def script(peer):
            await peer.upgrade()
            paths.append(peer.request.split(b" ")[1].decode())
            peer.send(dumps(order_event()))
            await peer.gone()

        async def go():
            recorder = Recorder()
            async with WsServer(script) as server:
                stream = private(recorder, url=server.url.removesuffix("/ws") + "/private")
                async with running(stream.stream.run()):
                    await recorder.until(lambda: recorder.named("order"))
                    assert LISTEN_KEY not in repr(stream) + repr(stream.stream)
            assert paths == [f"/private/ws/{LISTEN_KEY}1"]
            assert recorder.named("gap") == [(Link.PRIVATE, "connected")]
            assert LISTEN_KEY not in repr(recorder.events)

        run(go())
        assert LISTEN_KEY not in caplog.text

    def renewals(self, run, *, made, send=None, keys=None, minutes=0):
        """Check how many keys were made after so long."""
        keys = keys or Keys()

        async def script(peer):
            await peer.upgrade()
            if send is not None and len(server.peers) == 1:
                peer.send(dumps(send))
            await peer.gone()

        async def go():
            nonlocal server
            recorder = Recorder()
            clock = VirtualClock(NOW_MS)
            async with WsServer(script) as server:
                url = server.url.removesuffix("/ws")
                stream = private(recorder, clock, keys, url=url)
                stream.stream.limits = PATIENT
                async with running(stream.stream.run(), stream.keep()):
                    await stream.stream.wait_live()
                    for _ in range(minutes):
                        await clock.run(60_000)
                    await pumped(clock, lambda: keys.made >= made)

        server = None
        run(go())
        assert keys.made == made

    @pytest.mark.parametrize(
        "event",
        [
            {"e": "listenKeyExpired", "E": 1, "listenKey": f"{LISTEN_KEY}1"},
            {"e": "listenKeyExpired", "E": "1736996475556", "listenKey": f"{LISTEN_KEY}1"},
            {"e": "listenKeyExpired", "E": 1},
        ],
    )
    def test_expired(self, run, event):
        self.renewals(run, send=event, made=2)

    def test_another_key_that_expired_is_none_of_ours(self):
        event = {"e": "listenKeyExpired", "E": 1, "listenKey": "another"}
        recorder = Recorder()
        stream = private(recorder)
        stream._key = f"{LISTEN_KEY}1"
        feed(stream, event)
        assert stream._key == f"{LISTEN_KEY}1"

    def test_an_account_with_another_key_is_connected_anew(self, run):
        class Others(Keys):
            async def keep(self):
                self.kept += 1
                return "another"

        self.renewals(run, keys=Others(), minutes=31, made=2)

    def test_kept_every_half_hour(self, run):
        keys = Keys()
        self.renewals(run, keys=keys, minutes=125, made=1)
        assert keys.kept == 4

    def test_a_dead_key_is_replaced(self, run):
        keys = Keys()
        keys.fault = VenueError("gone", code=-1125, reaction=Reaction.RECREATE)
        self.renewals(run, keys=keys, minutes=31, made=2)
        assert keys.kept == 1

    def test_renewals_that_fail_are_tried_again_until_it_is_too_late(self, run):
        keys = Keys()
        keys.fault = UnavailableError("down")
        self.renewals(run, keys=keys, minutes=45, made=1)
        assert keys.kept == 16
        keys = Keys()
        keys.fault = UnavailableError("down")
        self.renewals(run, keys=keys, minutes=51, made=2)
