"""The trade socket: authenticated once, a frame an order, and no outcome without proof."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.wire import BybitOrderText
from passivx.clock import VirtualClock
from passivx.exchanges.base import Link, NewOrder, OrderStatus, Reaction, Steps, Verdict
from passivx.exchanges.budget import Budget
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.rest import WINDOWS
from passivx.exchanges.bybit.trade import TradeSocket
from passivx.exchanges.stream import StreamState
from passivx.models import step_parts
from tests.exchanges.bybit.test_streams import asked, logged_in, login
from tests.exchanges.bybit.venue import NOW_MS, STEPS, order_row
from tests.exchanges.scripted import pumped, running
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import WsServer

ORDER = NewOrder(client_id="grid-1", side=1, price=90000.5, qty=100.0)
RESTING = wire.order_of(order_row())
AUTHENTICATED = {"retCode": 0, "retMsg": "OK", "op": "auth", "connId": "c"}


class Desk:
    """A trade socket, and what it was given."""

    def __init__(self, url: str, clock: VirtualClock) -> None:
        self.clock = clock
        self.budget = Budget(WINDOWS, clock)
        self.recorder = Recorder()
        self.clock_looks = 0
        self.socket = TradeSocket(
            url,
            texts=BybitOrderText("BTCUSD", "inverse", *STEPS),
            login=login(clock, self._look),
            stamp_ms=clock.time_ms,
            on_clock=self._look,
            budget=self.budget,
            sink=self.recorder,
            clock=clock,
            rng=random.Random(1),
        )

    def _look(self) -> None:
        self.clock_looks += 1


def ok(request):
    return {
        "reqId": request["reqId"],
        "retCode": 0,
        "retMsg": "OK",
        "op": request["op"],
        "data": {"orderId": "id-9", "orderLinkId": request["args"][0].get("orderLinkId", "")},
        "retExtInfo": {},
        "header": {
            "X-Bapi-Limit": "10",
            "X-Bapi-Limit-Status": "4",
            "X-Bapi-Limit-Reset-Timestamp": str(NOW_MS),
        },
        "connId": "c",
    }


def refusing(code, message="no", **header):
    def answer(request):
        names = {name.replace("_", "-"): value for name, value in header.items()}
        return ok(request) | {"retCode": code, "retMsg": message, "data": {}, "header": names}

    return answer


def answering(*answers, clock):
    """Authenticate, then answer each request by the next of them; callables get the request."""

    async def script(peer):
        await logged_in(peer, clock, AUTHENTICATED)
        for answer in answers:
            request = await asked(peer)
            assert request["header"]["X-BAPI-RECV-WINDOW"] == "5000"
            assert request["header"]["X-BAPI-TIMESTAMP"].isdigit()
            assert len(request["args"]) == 1
            body = answer(request) if callable(answer) else answer
            if body is not None:
                peer.send(body if isinstance(body, bytes) else json.dumps(body))
        await peer.gone()

    return script


@pytest.fixture
def at_desk(run, clock):
    """Run a test with a trade socket that is live."""

    def start(answers, test):
        async def go():
            script = answers if callable(answers) else answering(*answers, clock=clock)
            async with WsServer(script) as server:
                desk = Desk(server.url, clock)
                async with running(desk.socket.stream.run()):
                    await desk.socket.stream.wait_live()
                    await test(desk, server)

        run(go())

    return start


class TestAnswers:
    def test_accepted(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction, got.code) == (Verdict.OK, Reaction.NONE, 0)
            assert (got.order.order_id, got.order.client_id) == ("id-9", "grid-1")
            assert (got.order.price, got.order.qty) == (90000.5, 100.0)
            assert (got.order.status, got.order.ts_ms) == (OrderStatus.NEW, NOW_MS)
            # By the venue's count it was not the first this second.
            assert desk.budget.used("create") == 6
            got = await desk.socket.cancel(RESTING)
            assert (got.verdict, got.order) == (Verdict.OK, None)
            got = await desk.socket.amend(RESTING, price=89999.5, qty=200.0)
            assert got.verdict is Verdict.OK
            assert [desk.budget.used(name) for name in ("cancel", "amend")] == [6, 6]

        at_desk([ok, ok, ok], test)

    def test_answers_come_in_any_order(self, at_desk, clock):
        async def script(peer):
            await logged_in(peer, clock, AUTHENTICATED)
            requests = [await asked(peer) for _ in range(5)]
            for request in reversed(requests):
                peer.send(json.dumps(ok(request) | {"data": {"orderId": request["reqId"]}}))
            await peer.gone()

        async def test(desk, server):
            sent = [
                desk.socket.place(dataclasses.replace(ORDER, client_id=f"g-{i}")) for i in range(5)
            ]
            got = await asyncio.gather(*sent)
            assert [o.order.client_id for o in got] == [f"g-{i}" for i in range(5)]
            assert len({o.order.order_id for o in got}) == 5

        at_desk(script, test)

    @pytest.mark.parametrize(
        ("code", "verdict", "reaction"),
        [
            (110007, Verdict.REJECTED, Reaction.DROP),
            (110001, Verdict.REJECTED, Reaction.GONE),
            (110120, Verdict.REJECTED, Reaction.REPRICE),
            (110072, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (10000, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (20006, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (10404, Verdict.REJECTED, Reaction.DROP),
            (4242, Verdict.UNKNOWN, Reaction.LOOK_UP),
        ],
    )
    def test_refused(self, at_desk, code, verdict, reaction):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction, got.code, got.text) == (
                verdict,
                reaction,
                code,
                "no",
            )
            assert got.order is None

        at_desk([refusing(code)], test)

    @pytest.mark.parametrize(
        "spoil",
        [
            {"retCode": None},
            {"retCode": 0.5},
            {"retCode": "x"},
            {"data": None},
            {"data": {"orderId": None}},
            {"data": {"orderId": "a", "orderLinkId": "other"}},
        ],
    )
    def test_an_answer_that_says_nothing_is_unknown(self, at_desk, spoil):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert got.order is None

        at_desk([lambda request: ok(request) | spoil], test)

    def test_too_often_holds_its_kind_until_the_reset(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert got.retry_after_s == 0.75
            assert 0.75 <= desk.budget.delay_s({"create": 1}, urgent=True) < 0.76
            assert desk.budget.delay_s({"cancel": 1}) == 0.0

        stamp = {"X_Bapi_Limit_Reset_Timestamp": str(NOW_MS + 750)}
        at_desk([refusing(10006, **stamp)], test)

    def test_under_load_cancels_may_go(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.retry_after_s) == (Verdict.UNKNOWN, 1.0)
            assert desk.budget.delay_s({"create": 1}) > 0.0
            assert desk.budget.delay_s({"cancel": 1}, urgent=True) == 0.0

        at_desk([refusing(10429)], test)

    def test_too_many_sessions_hold_its_kind(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert desk.budget.delay_s({"create": 1}) > 0.0
            assert desk.budget.delay_s({"query": 1}) == 0.0

        at_desk([refusing(10003)], test)

    def test_a_refused_time_stamp_has_the_clock_looked_at(self, at_desk):
        async def test(desk, server):
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.RESYNC_CLOCK)
            assert desk.clock_looks == 1

        at_desk([refusing(10002)], test)

    def test_a_venue_that_restarts_is_left(self, at_desk):
        async def test(desk, server):
            second = desk.socket.place(ORDER)
            got = await desk.socket.place(dataclasses.replace(ORDER, client_id="g-2"))
            # What was on its way stays valid, but nobody will tell here.
            assert (got.verdict, (await second).verdict) == (Verdict.UNKNOWN, Verdict.UNKNOWN)
            await pumped(desk.clock, lambda: server.connections == 2)

        at_desk([None, refusing(10019)], test)

    @pytest.mark.parametrize("answer", [{"retCode": 10404, "op": "x"}, {"reqId": "", "retCode": 1}])
    def test_what_is_told_without_an_id_is_a_gap(self, at_desk, answer):
        async def test(desk, server):
            sent = desk.socket.place(ORDER)
            await desk.recorder.until(lambda: desk.recorder.named("gap"))
            assert desk.recorder.named("gap")[0][0] is Link.ORDERS
            assert not sent.done()

        at_desk([answer], test)

    def test_a_pong_is_no_answer(self, at_desk):
        async def test(desk, server):
            frame = b'{"retCode":0,"retMsg":"OK","op":"pong","data":["1"],"connId":"c"}'
            assert desk.socket._on_frame(memoryview(frame)) is False
            assert desk.recorder.named("gap") == []

        at_desk([], test)


class TestNoAnswer:
    def test_the_socket_dies_with_orders_under_way(self, at_desk, clock):
        async def script(peer):
            await logged_in(peer, clock, AUTHENTICATED)
            requests = [await asked(peer) for _ in range(3)]
            peer.send(json.dumps(ok(requests[1])))
            peer.cut()

        async def test(desk, server):
            sent = [
                desk.socket.place(dataclasses.replace(ORDER, client_id=f"g-{i}")) for i in range(2)
            ]
            sent.append(desk.socket.cancel(RESTING))
            got = await asyncio.gather(*sent)
            unknown = (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert [(o.verdict, o.reaction) for o in got] == [
                unknown,
                (Verdict.OK, Reaction.NONE),
                unknown,
            ]
            await desk.recorder.until(lambda: desk.recorder.links(StreamState.LOST))
            # Now it is proven that nothing leaves.
            got = await desk.socket.place(ORDER)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert got.text.startswith("not sent")
            assert got.retry_after_s > 0.0

        at_desk(script, test)

    def test_no_answer_in_time(self, at_desk):
        async def test(desk, server):
            sent = desk.socket.place(ORDER)
            await desk.clock.run(4900)
            assert not sent.done()
            await desk.clock.run(200)
            got = await sent
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            # What comes too late finds nobody, and ends nothing.
            late = ok({"reqId": "x", "op": "order.create", "args": [{}]})
            assert desk.socket._on_frame(memoryview(orjson.dumps(late))) is True
            assert (await desk.socket.place(ORDER)).verdict is Verdict.OK

        at_desk([None, ok], test)

    def test_garbage_does_not_resolve_anything(self, at_desk):
        async def test(desk, server):
            sent = desk.socket.place(ORDER)
            got = await desk.socket.place(dataclasses.replace(ORDER, client_id="g-2"))
            assert got.verdict is Verdict.OK
            assert not sent.done()

        at_desk([b"{", ok], test)

    def test_refused_it_is_never_live(self, run, clock):
        async def script(peer):
            answer = {"retCode": 10003, "retMsg": "too many sessions", "op": "auth"}
            await logged_in(peer, clock, answer)
            await peer.gone()

        async def test():
            async with WsServer(script) as server:
                desk = Desk(server.url, clock)
                async with running(desk.socket.stream.run()):
                    await pumped(clock, lambda: server.connections == 3)
            states = desk.recorder.named("link")
            assert (Link.ORDERS, StreamState.LOST, "auth: refused (code 10003)") in states
            assert all(state is not StreamState.LIVE for _, state, _ in states)
            assert desk.clock_looks >= 2

        run(test())


class TestFrames:
    def test_ids_of_two_runs_differ(self, at_desk):
        seen = []

        def note(request):
            seen.append(request["reqId"])
            return ok(request)

        async def test(desk, server):
            await desk.socket.place(ORDER)
            await desk.socket.place(ORDER)
            later = Desk("ws://127.0.0.1:1/x", VirtualClock(NOW_MS + 1))
            assert later.socket._next_id() not in seen
            assert len(set(seen)) == 2
            assert all(len(id) <= 36 for id in seen)

        at_desk([note, note], test)

    def test_new_rules_are_written_by(self, at_desk):
        seen = []

        def note(request):
            seen.append(request["args"][0]["price"])
            return ok(request)

        async def test(desk, server):
            with pytest.raises(ValueError, match="price"):
                desk.socket.place(dataclasses.replace(ORDER, price=90000.1))
            desk.socket.use(BybitOrderText("BTCUSD", "inverse", (1.0, 10.0), (1.0, 1.0)))
            await desk.socket.place(dataclasses.replace(ORDER, price=90000.1))
            assert seen == ["90000.1"]

        at_desk([note], test)

    @given(
        client_id=st.text("abcXYZ019-_", min_size=1, max_size=36) | st.text(max_size=40),
        side=st.sampled_from([1, -1, 0]),
        price_step=st.sampled_from([0.5, 0.01, 1e-7, 5.0]),
        qty_step=st.sampled_from([1.0, 0.001, 10.0]),
        price=st.integers(-1, 3_000_000),
        qty=st.integers(-1, 3_000_000),
        nudge=st.sampled_from([0.0, 0.0, 0.0, 0.3]),
        reduce_only=st.booleans(),
        at_market=st.booleans(),
    )
    def test_the_cores_text_says_what_rest_says(
        self, client_id, side, price_step, qty_step, price, qty, nudge, reduce_only, at_market
    ):
        parts = step_parts(price_step), step_parts(qty_step)
        rest = Steps(*parts)
        order = NewOrder(
            client_id=client_id,
            side=side,
            price=(price + nudge) * parts[0][0] / parts[0][1],
            qty=qty * parts[1][0] / parts[1][1],
            reduce_only=reduce_only,
            at_market=at_market,
        )
        texts = BybitOrderText("BTCUSD", "inverse", *parts)
        slow = fast = changed = amended = None
        with contextlib.suppress(ValueError):
            slow = wire.order_fields(order, rest)
        with contextlib.suppress(ValueError):
            message = texts.place(
                "r-1",
                NOW_MS,
                client_id,
                side,
                order.price,
                order.qty,
                reduce_only=reduce_only,
                at_market=at_market,
            )
            fast = json.loads(message)["args"][0]
        where = {"category": "inverse", "symbol": "BTCUSD"}
        assert fast == (None if slow is None else where | slow)
        with contextlib.suppress(ValueError):
            changed = wire.amend_fields(RESTING, rest, price=order.price, qty=order.qty)
        with contextlib.suppress(ValueError):
            message = texts.modify("r-2", NOW_MS, order.price, order.qty, order_id=RESTING.order_id)
            amended = json.loads(message)["args"][0]
        assert amended == (None if changed is None else where | changed)

    @pytest.mark.parametrize("order", [RESTING, dataclasses.replace(RESTING, order_id="")])
    def test_the_cores_cancel_names_what_rest_names(self, order):
        texts = BybitOrderText("BTCUSD", "inverse", *STEPS)
        message = texts.cancel("r-1", NOW_MS, order_id=order.order_id, client_id=order.client_id)
        where = {"category": "inverse", "symbol": "BTCUSD"}
        assert json.loads(message)["args"] == [where | wire.reference(order)]


def test_no_secret_is_shown(at_desk, caplog):
    caplog.set_level(logging.DEBUG)
    shown = []

    async def test(desk, server):
        shown.append(repr(await desk.socket.place(ORDER)))
        shown.append(repr(vars(desk.socket)) + repr(desk.recorder.events))

    quoting = refusing(10004, "error sign! origin_string[17canaryKey1234567895000{}]")
    at_desk([quoting], test)
    text = "\n".join([*shown, caplog.text])
    assert "error sign!" in text
    assert "canary" not in text
