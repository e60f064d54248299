"""The order socket: signed frames, one answer each, and no outcome without proof."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.wire import BinanceOrderText, Hmac
from passivx.clock import VirtualClock
from passivx.exchanges.base import Link, NewOrder, OrderStatus, Reaction, Verdict
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.rest import WINDOWS
from passivx.exchanges.binance.trade import OrderSocket
from passivx.exchanges.budget import Budget
from passivx.exchanges.sending import judged
from tests.exchanges.binance.venue import KEY, NOW_MS, SECRET, STEPS, echo, order_row
from tests.exchanges.scripted import pumped, running
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import TEXT, WsServer

ORDER = NewOrder(client_id="grid-1", side=1, price=90000.1, qty=0.002)
RESTING = wire.order_of(order_row())


class Desk:
    """An order socket, and what it was given."""

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock(NOW_MS)
        self.budget = Budget(WINDOWS, self.clock)
        self.recorder = Recorder()
        self.clock_looks = 0
        self.socket = OrderSocket(
            url,
            texts=BinanceOrderText(
                KEY, "BTCUSDT", STEPS.price, STEPS.qty, Hmac(SECRET.encode()).sign
            ),
            stamp_ms=self.clock.time_ms,
            venue_ms=self.clock.time_ms,
            on_clock=self._look,
            budget=self.budget,
            sink=self.recorder,
            clock=self.clock,
            rng=random.Random(1),
        )

    def _look(self) -> None:
        self.clock_looks += 1


def checked(payload: bytes) -> dict:
    """Return a request whose signature is right, by the documented rule."""
    request = json.loads(payload)
    params = dict(request["params"])
    signature = params.pop("signature")
    text = "&".join(f"{name}={params[name]}" for name in sorted(params))
    assert hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest() == signature
    assert params["apiKey"] == KEY
    assert isinstance(params["timestamp"], int)
    return request


def answering(*answers):
    """Answer each request by the next of them; callables get the request."""

    async def script(peer):
        await peer.upgrade()
        for answer in answers:
            request = checked(await peer.read_until(TEXT))
            body = answer(request) if callable(answer) else answer
            if body is not None:
                peer.send(body if isinstance(body, bytes) else json.dumps(body))
        await peer.gone()

    return script


def ok(request):
    if request["method"] == "order.cancel":
        result = order_row(status="CANCELED")
    elif request["method"] == "order.modify":
        result = order_row(price=request["params"]["price"], origQty=request["params"]["quantity"])
    else:
        result = echo(request["params"])
    limits = [
        {
            "rateLimitType": "ORDERS",
            "interval": "SECOND",
            "intervalNum": 10,
            "limit": 300,
            "count": 41,
        }
    ]
    return {"id": request["id"], "status": 200, "result": result, "rateLimits": limits}


def error(code, message="no", status=400, **more):
    def answer(request):
        return {
            "id": request["id"],
            "status": status,
            "error": {"code": code, "msg": message} | more,
        }

    return answer


@pytest.fixture
def at_desk(run):
    """Run a test with an order socket that is live."""

    def start(script, test):
        async def go():
            async with WsServer(script) as server:
                desk = Desk(server.url)
                async with running(desk.socket.stream.run()):
                    await desk.socket.stream.wait_live()
                    await test(desk, server)

        run(go())

    return start


class TestAnswers:
    def test_an_order_rests(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.order.order_id) == (Verdict.OK, "77")
            assert got.order.status is OrderStatus.NEW
            assert (got.order.price, got.order.qty) == (90000.1, 0.002)
            assert desk.budget.used("orders_10s") == 41
            assert desk.budget.used("orders_1m") == 1

        at_desk(answering(ok), test)

    def test_a_cancel_and_an_amendment(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.cancel(RESTING)
            assert got.order.status is OrderStatus.CANCELED
            got = await desk.socket.amend(RESTING, price=89999.9, qty=0.003)
            assert (got.order.price, got.order.qty) == (89999.9, 0.003)

        at_desk(answering(ok, ok), test)

    def test_what_is_sent(self, at_desk):
        frames = []

        def note(request):
            frames.append((request["method"], request["params"]))
            return ok(request)

        async def test(desk, server):
            stop = NewOrder(
                client_id="s-1", side=-1, price=0.0, qty=0.5, reduce_only=True, at_market=True
            )
            for sent in (
                desk.socket.place(ORDER),
                desk.socket.place(stop),
                desk.socket.cancel(RESTING),
            ):
                await sent
            common = {"apiKey", "signature", "timestamp", "recvWindow", "symbol"}
            bare = [
                (method, {k: v for k, v in params.items() if k not in common})
                for method, params in frames
            ]
            assert bare == [
                (
                    "order.place",
                    {
                        "side": "BUY",
                        "type": "LIMIT",
                        "timeInForce": "GTX",
                        "quantity": "0.002",
                        "price": "90000.1",
                        "newClientOrderId": "grid-1",
                        "newOrderRespType": "ACK",
                    },
                ),
                (
                    "order.place",
                    {
                        "side": "SELL",
                        "type": "MARKET",
                        "quantity": "0.500",
                        "reduceOnly": "true",
                        "selfTradePreventionMode": "EXPIRE_MAKER",
                        "newClientOrderId": "s-1",
                        "newOrderRespType": "ACK",
                    },
                ),
                ("order.cancel", {"orderId": 77}),
            ]

        at_desk(answering(note, note, note), test)

    def test_answers_in_any_order(self, at_desk):
        async def script(peer):
            await peer.upgrade()
            requests = [checked(await peer.read_until(TEXT)) for _ in range(3)]
            for request in reversed(requests):
                peer.send(json.dumps(ok(request)))
            await peer.gone()

        async def test(desk, server):
            orders = [
                NewOrder(client_id=f"grid-{i}", side=1, price=90000.0 - i, qty=0.002)
                for i in range(3)
            ]
            got = await asyncio.gather(*map(desk.socket.place, orders))
            assert [o.order.client_id for o in got] == ["grid-0", "grid-1", "grid-2"]

        at_desk(script, test)

    @pytest.mark.parametrize(
        ("code", "reaction"),
        [(-5022, Reaction.REPRICE), (-2019, Reaction.DROP), (-2015, Reaction.HALT)],
    )
    def test_a_proven_refusal(self, at_desk, code, reaction):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction, got.code) == (Verdict.REJECTED, reaction, code)

        at_desk(answering(error(code)), test)

    def test_a_refusal_is_one_whatever_its_status(self, at_desk):
        def answer(request):
            return ok(request) | {"error": {"code": -5022, "msg": "no"}}

        async def test(desk, server):
            assert (await desk.socket.place(ORDER)).verdict is Verdict.REJECTED

        at_desk(answering(answer), test)

    def test_a_cancel_of_what_is_gone(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.cancel(RESTING)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.GONE)

        at_desk(answering(error(-2011)), test)

    def test_nothing_to_amend(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.amend(RESTING, price=90000.1, qty=0.002)
            assert (got.verdict, got.reaction) == (Verdict.OK, Reaction.ALREADY_SO)

        at_desk(answering(error(-5027)), test)

    @pytest.mark.parametrize(
        "answer",
        [
            error(-1007, status=408),
            error(-1006),
            error(-4116),
            error(-9999),
            error("x"),
            error(True),
            lambda r: {"id": r["id"]},
            lambda r: {"id": r["id"], "status": 200},
            lambda r: {"id": r["id"], "status": 200, "result": []},
            lambda r: {"id": r["id"], "status": 200, "result": order_row(clientOrderId="other")},
            lambda r: {"id": r["id"], "status": "x", "error": {"code": -5022}},
            lambda r: {"id": r["id"], "status": 400, "error": None},
            lambda r: {"id": r["id"], "status": 302, "result": order_row()},
            lambda r: {"id": r["id"], "status": 200, "error": {"code": -9998}, "result": {}},
        ],
    )
    def test_what_is_not_proven_is_unknown(self, at_desk, answer):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)

        at_desk(answering(answer), test)


class TestNoAnswer:
    def test_none_in_time(self, at_desk):
        async def test(desk, server):
            sent = desk.socket.place(ORDER)
            for _ in range(51):
                await desk.clock.run(100)
            got = await sent
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert "5 s" in got.text

        at_desk(answering(lambda r: None), test)

    @pytest.mark.parametrize("how", ["reset", "cut"])
    def test_the_socket_dies(self, at_desk, how):
        async def script(peer):
            await peer.upgrade()
            for _ in range(2):
                await peer.read_until(TEXT)
            getattr(peer, how)()

        async def test(desk, server):
            sent = [desk.socket.place(ORDER), desk.socket.cancel(RESTING)]
            got = await asyncio.gather(*sent)
            assert [o.verdict for o in got] == [Verdict.UNKNOWN] * 2
            again = await desk.socket.place(ORDER)
            assert (again.verdict, again.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert again.text.startswith("not sent")

        at_desk(script, test)

    def test_before_it_is_connected_nothing_leaves(self, run):
        async def go():
            desk = Desk("ws://127.0.0.1:1")
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)

        run(go())

    @pytest.mark.parametrize(
        "order",
        [
            NewOrder(client_id="grid-1", side=1, price=90000.15, qty=0.002),
            NewOrder(client_id="grid-1", side=1, price=90000.1, qty=0.0021),
            NewOrder(client_id="grid/1", side=1, price=90000.1, qty=0.002),
        ],
    )
    def test_what_cannot_be_written_is_not_sent(self, at_desk, order):
        async def test(desk, server):
            with pytest.raises(ValueError, match="must be"):
                desk.socket.place(order)
            assert desk.budget.used("orders_10s") == 0

        at_desk(answering(), test)


class TestWhatTheVenueAsks:
    def test_a_refused_stamp(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.RESYNC_CLOCK)
            assert desk.clock_looks == 1

        at_desk(answering(error(-1021)), test)

    def test_too_many_orders_stop_orders_but_not_cancels(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert got.reaction is Reaction.BACK_OFF
            assert got.retry_after_s > 1.0
            assert desk.budget.delay_s({"orders_10s": 1}) > 1.0
            assert desk.budget.delay_s({"weight": 1}) == 0.0

        text = "Too many new orders; current limit is 300 orders per 10 SECOND."
        at_desk(answering(error(-1015, text, 429)), test)

    def test_a_ban_stops_everything(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert got.reaction is Reaction.BACK_OFF
            assert desk.budget.banned_s == pytest.approx(90.0, abs=1.0)
            assert desk.budget.delay_s({"weight": 1}, urgent=True) > 80.0

        until = f"IP banned until {NOW_MS + 90_000}."
        at_desk(answering(error(-1003, until, 418)), test)

    def test_a_time_in_the_answers_data(self, at_desk):
        async def test(desk, server):
            assert (await desk.socket.place(ORDER)).retry_after_s == pytest.approx(7.0)

        data = {"serverTime": NOW_MS, "retryAfter": NOW_MS + 7000}
        at_desk(answering(error(-1003, "slow down", 429, data=data)), test)

    def test_a_revoked_key_is_told(self, at_desk):
        async def script(peer):
            await peer.upgrade()
            peer.send(json.dumps({"id": None, "status": 401, "error": {"code": -2015, "msg": KEY}}))
            await peer.gone()

        async def test(desk, server):
            await desk.recorder.until(lambda: desk.recorder.named("gap"))
            ((link, reason),) = desk.recorder.named("gap")
            assert link is Link.ORDERS
            assert "-2015" in reason
            assert KEY not in reason

        at_desk(script, test)


@given(
    st.dictionaries(
        st.sampled_from(["id", "status", "result", "error", "rateLimits"]),
        st.none()
        | st.booleans()
        | st.integers(-9, 2**53)
        | st.text(max_size=3)
        | st.lists(st.dictionaries(st.text(max_size=2), st.integers(0, 9)), max_size=2)
        | st.dictionaries(st.sampled_from(["code", "msg", "data"]), st.integers(-2022, 9)),
    )
)
def test_any_answer_is_judged_and_only_the_table_rejects(message):
    async def go():
        desk = Desk("ws://127.0.0.1:1")
        desk.socket._on_frame(memoryview(orjson.dumps(message)))
        reply = asyncio.get_running_loop().create_future()
        reply.set_result(message)
        got = await judged(reply, lambda answer: desk.socket._judged(answer, "grid-1"))
        assert got.verdict is not Verdict.OK or got.reaction is Reaction.ALREADY_SO
        if got.verdict is Verdict.REJECTED:
            assert got.code is not None

    asyncio.run(go())


def test_frames_leave_before_place_returns(run):
    """No task stands between a decision and the socket."""

    class Transport:
        is_close_frame_sent = False
        is_disconnected = False

        def __init__(self):
            self.sent = []

        def send(self, kind, data):
            self.sent.append(bytes(data))

    async def go():
        async with WsServer(answering()) as server:
            desk = Desk(server.url)
            async with running(desk.socket.stream.run()):
                await desk.socket.stream.wait_live()
                connection = desk.socket.stream._current
                real, connection._transport = connection._transport, Transport()
                sent = desk.socket.place(ORDER)
                (frame,) = connection._transport.sent
                assert checked(frame)["method"] == "order.place"
                connection._transport = real
            assert (await sent).verdict is Verdict.UNKNOWN

    run(go())


def test_no_secret_is_shown(at_desk, caplog):
    caplog.set_level(logging.DEBUG)
    shown = []

    async def test(desk, server):
        shown.append(repr(await desk.socket.place(ORDER)))
        # The second answer cannot be read: this one runs out of time.
        sent = desk.socket.place(ORDER)
        await pumped(desk.clock, sent.done)
        shown.append(repr(await sent))
        with contextlib.suppress(ValueError):
            desk.socket.place(NewOrder(client_id="x", side=1, price=0.15, qty=1.0))
        shown.append(repr(desk.socket) + repr(desk.socket._texts) + repr(desk.socket.stream))

    signature = "a" * 64
    said = f"Signature {signature} for {KEY} with {SECRET} is not valid."
    at_desk(answering(error(-1022, said), b"{" + KEY.encode()), test)
    text = "\n".join([*shown, caplog.text])
    assert "canary" not in text
    assert signature not in text
