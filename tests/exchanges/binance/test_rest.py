"""REST: signatures by the published vectors, endpoints against a scripted venue."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import traceback
import typing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.errors import BadReplyError, UnavailableError, VenueError
from passivx.exchanges.base import NewOrder, OrderStatus, PublicTrade, Reaction, Verdict
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.rest import BinanceDialect, BinanceRest
from passivx.exchanges.http import Answer, Request
from passivx.exchanges.keys import ApiKey, KeyKind
from tests.exchanges.binance.venue import (
    KEY,
    LISTEN_KEY,
    NOW_MS,
    SECRET,
    STEPS,
    Venue,
    client_of,
    echo,
    listed,
    order_row,
    refused,
)
from tests.exchanges.scripted import Drop, Status, raising, without_pauses

ORDER = NewOrder(client_id="grid-1", side=1, price=90000.1, qty=0.002)
RESTING = wire.order_of(order_row())


@pytest.fixture
def with_venue(run):
    """Run a test with a venue and the client that speaks to it."""

    def start(test):
        async def go():
            async with Venue(VirtualClock(NOW_MS)) as venue:
                http, rest = client_of(venue)
                async with http:
                    await test(venue, rest)

        run(go())

    return start


# --- the dialect ----------------------------------------------------------------------------------


@pytest.mark.real_data
class TestSignatures:
    @pytest.fixture(scope="class")
    @classmethod
    def vectors(cls, shared: Path) -> dict:
        return json.loads((shared / "vectors" / "binance_signing.json").read_text())

    def test_every_published_request(self, vectors):
        for entry in vectors["rest"]:
            params = [tuple(pair) for pair in entry["params_in_order"]]
            assert params[-1][0] == "timestamp"
            stamp = int(params[-1][1])
            dialect = BinanceDialect(ApiKey(entry["api_key"], entry["secret"]))
            # Ours always has a window of its own: taken out where the vector has none.
            if params[-2][0] == "recvWindow" if len(params) > 1 else False:
                request = Request(
                    method=entry["method"],
                    path=entry["path"],
                    params=tuple(params[:-2]),
                    signed=True,
                )
                assert params[-2][1] == "5000"
                got = dialect.build(request, stamp)
                assert got.target == f"{entry['path']}?{entry['final_payload']}", entry["id"]
                assert dict(got.headers) == {"X-MBX-APIKEY": entry["api_key"]}
            else:
                request = Request(method="GET", path="/x", params=tuple(params), signed=False)
                text = dialect.build(request, 0).target.removeprefix("/x?")
                assert text == entry["string_to_sign"], entry["id"]
                sign = ApiKey(entry["api_key"], entry["secret"]).signer()
                assert sign(text.encode()).decode() == entry["signature"], entry["id"]

    def test_ed25519_is_percent_encoded(self, vectors):
        (entry,) = vectors["ed25519"]
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(entry["seed_hex"]))
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        dialect = BinanceDialect(ApiKey("key", pem, KeyKind.ED25519))
        pairs = [pair.split("=") for pair in entry["string_to_sign"].split("&")]
        request = Request(
            method="POST",
            path="/fapi/v1/order",
            params=tuple((k, v) for k, v in pairs[:-2]),
            signed=True,
        )
        got = dialect.build(request, int(pairs[-1][1]))
        assert got.target == (
            f"/fapi/v1/order?{entry['string_to_sign']}&signature={entry['signature_urlencoded']}"
        )


class TestDialect:
    def test_public_requests_carry_no_key(self):
        dialect = BinanceDialect(ApiKey(KEY, SECRET))
        request = Request(method="GET", path="/fapi/v1/time")
        got = dialect.build(request, 0)
        assert (got.target, dict(got.headers)) == ("/fapi/v1/time", {})

    def test_without_a_key_nothing_is_signed(self):
        request = Request(method="GET", path="/fapi/v3/balance", signed=True)
        with pytest.raises(VenueError, match="needs an API key"):
            BinanceDialect(None).build(request, 1)

    def test_counters(self):
        headers = {"X-MBX-USED-WEIGHT-1M": "17", "X-MBX-ORDER-COUNT-10S": "3"}
        request = Request(method="GET", path="/x")
        got = dict(BinanceDialect(None).usage(request, headers))
        assert got == {"weight": 17, "orders_10s": 3}
        assert not list(BinanceDialect(None).usage(request, {"X-MBX-USED-WEIGHT-1M": "-1"}))
        elsewhere = dataclasses.replace(request, base_url="https://other.host")
        assert not list(BinanceDialect(None).usage(elsewhere, headers))

    @given(
        st.integers(100, 599),
        st.binary(max_size=40),
        st.none()
        | st.lists(st.integers(), max_size=2)
        | st.fixed_dictionaries(
            {},
            optional={
                "code": st.none() | st.integers() | st.text() | st.floats() | st.booleans(),
                "msg": st.none() | st.text() | st.integers(),
            },
        ),
        st.dictionaries(st.sampled_from(["Retry-After", "X-MBX-USED-WEIGHT-1M"]), st.text()),
    )
    def test_any_answer_is_judged(self, status, body, data, headers):
        dialect = BinanceDialect(None)
        answer = Answer(status=status, headers=headers, body=body, data=data, ts_ms=NOW_MS)
        request = Request(method="POST", path="/fapi/v1/order")
        found = dialect.classify(request, answer)
        if found.verdict is Verdict.OK:
            assert 200 <= status < 300
        assert 0.0 <= found.retry_after_s < 4 * 86400
        list(dialect.usage(request, headers))


# --- orders ---------------------------------------------------------------------------------------


class TestPlace:
    def test_a_post_only_order(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/order"] = echo
            got = await rest.place(ORDER, STEPS)
            assert (got.verdict, got.order.order_id) == (Verdict.OK, "77")
            assert (got.order.price, got.order.qty) == (90000.1, 0.002)
            assert venue.named("POST /fapi/v1/order") == [
                {
                    "symbol": "BTCUSDT",
                    "side": "BUY",
                    "type": "LIMIT",
                    "timeInForce": "GTX",
                    "quantity": "0.002",
                    "price": "90000.1",
                    "newClientOrderId": "grid-1",
                    "newOrderRespType": "ACK",
                }
            ]

        with_venue(test)

    @pytest.mark.parametrize(
        ("code", "reaction"),
        [(-5022, Reaction.REPRICE), (-2019, Reaction.DROP), (-1021, Reaction.RESYNC_CLOCK)],
    )
    def test_a_proven_refusal(self, with_venue, code, reaction):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/order"] = raising(refused(code, "no"))
            got = await rest.place(ORDER, STEPS)
            assert (got.verdict, got.reaction, got.code) == (Verdict.REJECTED, reaction, code)
            assert len(venue.calls) == 1

        with_venue(test)

    @pytest.mark.parametrize(
        "fault",
        [
            Drop(),
            refused(-1007, "Timeout waiting for response from backend server.", 408),
            refused(-1000, "unknown", 500),
            refused(-4116, "ClientOrderId is duplicated."),
            refused(-9999, "new"),
            Status(503, {"code": -1, "msg": "Unknown error, please check your request"}),
            Status(200, b"<html>"),
            Status(200, order_row(clientOrderId="another")),
            Status(200, {"code": "x"}),
            Status(302, b""),
        ],
        ids=str,
    )
    def test_what_is_not_proven_is_unknown_and_sent_once(self, with_venue, fault):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/order"] = raising(fault)
            got = await rest.place(ORDER, STEPS)
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert len(venue.calls) == 1

        with_venue(test)

    def test_a_batch(self, with_venue):
        orders = [
            NewOrder(client_id=f"grid-{i}", side=-1, price=90000.0 + i, qty=0.002) for i in range(3)
        ]

        async def test(venue, rest):
            def route(params):
                rows = [echo(row) for row in listed(params["batchOrders"])]
                rows[1] = {"code": -5022, "msg": "Post Only"}
                return rows

            venue.routes["POST /fapi/v1/batchOrders"] = route
            got = await rest.place_batch(orders, STEPS)
            assert [o.verdict for o in got] == [Verdict.OK, Verdict.REJECTED, Verdict.OK]
            assert got[1].reaction is Reaction.REPRICE
            assert got[2].order.client_id == "grid-2"

        with_venue(test)

    def test_answers_in_another_order_are_no_answers(self, with_venue):
        orders = [
            NewOrder(client_id=f"grid-{i}", side=-1, price=90000.0, qty=0.002) for i in range(2)
        ]

        async def test(venue, rest):
            venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [
                echo(row) for row in reversed(listed(p["batchOrders"]))
            ]
            got = await rest.place_batch(orders, STEPS)
            assert all(o.verdict is Verdict.UNKNOWN for o in got)

        with_venue(test)

    @pytest.mark.parametrize("n", [0, 6])
    def test_a_batch_of_another_size(self, with_venue, n):
        async def test(venue, rest):
            with pytest.raises(ValueError, match="1 to 5"):
                await rest.place_batch([ORDER] * n, STEPS)

        with_venue(test)

    def test_an_amendment(self, with_venue):
        async def test(venue, rest):
            venue.routes["PUT /fapi/v1/order"] = lambda p: order_row(
                price=p["price"], origQty=p["quantity"]
            )
            change = wire.amend_params(RESTING, "BTCUSDT", STEPS, price=89999.9, qty=0.003)
            got = await rest.amend(RESTING, change)
            assert (got.order.price, got.order.qty) == (89999.9, 0.003)
            assert venue.named("PUT /fapi/v1/order")[0]["orderId"] == "77"

        with_venue(test)

    def test_an_amendment_that_changes_nothing(self, with_venue):
        async def test(venue, rest):
            venue.routes["PUT /fapi/v1/order"] = raising(
                refused(-5027, "No need to modify the order.")
            )
            change = wire.amend_params(RESTING, "BTCUSDT", STEPS, price=90000.1, qty=0.002)
            got = await rest.amend(RESTING, change)
            assert (got.verdict, got.reaction) == (Verdict.OK, Reaction.ALREADY_SO)

        with_venue(test)


class TestCancel:
    def test_one_by_the_venues_id(self, with_venue):
        async def test(venue, rest):
            venue.routes["DELETE /fapi/v1/order"] = lambda p: order_row(status="CANCELED")
            got = await rest.cancel(RESTING)
            assert (got.verdict, got.order.status) == (Verdict.OK, OrderStatus.CANCELED)
            assert venue.calls[0][1] == {"symbol": "BTCUSDT", "orderId": "77"}

        with_venue(test)

    def test_one_that_is_gone(self, with_venue):
        async def test(venue, rest):
            venue.routes["DELETE /fapi/v1/order"] = raising(refused(-2011, "Unknown order sent."))
            got = await rest.cancel(RESTING)
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.GONE)

        with_venue(test)

    def test_a_cut_cancel_is_not_sent_again(self, with_venue):
        async def test(venue, rest):
            venue.routes["DELETE /fapi/v1/order"] = raising(Drop())
            assert (await rest.cancel(RESTING)).verdict is Verdict.UNKNOWN
            assert len(venue.calls) == 1

        with_venue(test)

    def test_a_batch_by_either_id(self, with_venue):
        async def test(venue, rest):
            def route(params):
                if "orderIdList" in params:
                    return [order_row(orderId=i) for i in listed(params["orderIdList"])]
                names = listed(params["origClientOrderIdList"])
                return [order_row(clientOrderId=name, status="CANCELED") for name in names]

            venue.routes["DELETE /fapi/v1/batchOrders"] = route
            got = await rest.cancel_batch([RESTING, wire.order_of(order_row(orderId=78))])
            assert [o.order.order_id for o in got] == ["77", "78"]
            ours = [
                dataclasses.replace(RESTING, client_id=f"grid-{i}", order_id="") for i in range(2)
            ]
            got = await rest.cancel_batch(ours)
            assert [o.order.client_id for o in got] == ["grid-0", "grid-1"]

        with_venue(test)

    def test_all(self, with_venue):
        async def test(venue, rest):
            venue.routes["DELETE /fapi/v1/allOpenOrders"] = lambda p: {"code": 200, "msg": "done"}
            assert (await rest.cancel_all()).verdict is Verdict.OK

        with_venue(test)

    def test_the_dead_mans_switch(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/countdownCancelAll"] = lambda p: {
                "symbol": p["symbol"],
                "countdownTime": p["countdownTime"],
            }
            await rest.dead_man(90.0)
            await rest.dead_man(0)
            got = [p["countdownTime"] for p in venue.named("POST /fapi/v1/countdownCancelAll")]
            assert got == ["90000", "0"]

        with_venue(test)

    @pytest.mark.parametrize("timeout_s", [-1.0, 0.0004, 0.9, 86_401.0, math.nan, math.inf])
    def test_a_dead_mans_switch_is_not_switched_off_by_mistake(self, with_venue, timeout_s):
        async def test(venue, rest):
            with pytest.raises(ValueError, match="timeout_s: must be 0 or in"):
                await rest.dead_man(timeout_s)
            assert venue.named("POST /fapi/v1/countdownCancelAll") == []

        with_venue(test)

    def test_a_dead_mans_switch_that_does_not_hold(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/countdownCancelAll"] = lambda p: {
                "symbol": p["symbol"],
                "countdownTime": "0",
            }
            with pytest.raises(BadReplyError, match="timer"):
                await rest.dead_man(90.0)

        with_venue(test)


class TestReserve:
    """What of the limits is kept for cancels and reduce-only orders."""

    def test_cancels_may_use_it(self, with_venue):
        async def test(venue, rest):
            venue.routes["DELETE /fapi/v1/order"] = lambda p: order_row(status="CANCELED")
            venue.routes["DELETE /fapi/v1/allOpenOrders"] = lambda p: {"code": 200, "msg": "done"}
            venue.routes["DELETE /fapi/v1/batchOrders"] = lambda p: [order_row()]
            venue.routes["GET /fapi/v1/openOrders"] = lambda p: []
            await rest.open_orders()
            rest._http._budget.charge({"weight": 2200})
            assert (await rest.cancel(RESTING)).verdict is Verdict.OK
            assert (await rest.cancel_batch([RESTING]))[0].verdict is Verdict.OK
            assert (await rest.cancel_all()).verdict is Verdict.OK
            assert (await rest.set_leverage(5)).reaction is Reaction.BACK_OFF

        with_venue(test)

    def test_what_an_element_asks_for_holds_for_all(self, with_venue):
        """A refusal within a batch is one of the account's, like any other."""

        async def test(venue, rest):
            said = {"code": -1015, "msg": "Too many new orders; limit is 300 orders per 10 SECOND"}
            venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [said, said]
            got = await rest.place_batch([ORDER, ORDER], STEPS)
            assert [o.reaction for o in got] == [Reaction.BACK_OFF] * 2
            wait_s = got[0].retry_after_s
            assert 0.0 < wait_s <= 10.0
            # To the next multiple of ten seconds by the venue's clock.
            assert (venue.clock.time_ms() / 1000 + wait_s) % 10 == pytest.approx(0.0, abs=0.1)
            held = await rest.place(ORDER, STEPS)
            assert (held.verdict, held.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert len(venue.calls) == 1

        with_venue(test)

    def test_load_spares_cancels_and_is_never_0_s(self, with_venue):
        async def test(venue, rest):
            said = {"code": -1008, "msg": "Server is currently overloaded"}
            venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [said, said]
            venue.routes["DELETE /fapi/v1/order"] = lambda p: order_row(status="CANCELED")
            got = await rest.place_batch([ORDER, ORDER], STEPS)
            assert all(o.retry_after_s >= 1.0 for o in got)
            assert (await rest.place(ORDER, STEPS)).reaction is Reaction.BACK_OFF
            assert (await rest.cancel(RESTING)).verdict is Verdict.OK

        with_venue(test)

    def test_a_cancel_of_another_order_is_unknown(self, with_venue):
        async def test(venue, rest):
            other = order_row(status="CANCELED", orderId=78)
            venue.routes["DELETE /fapi/v1/order"] = lambda p: other
            venue.routes["DELETE /fapi/v1/batchOrders"] = lambda p: [other]
            assert (await rest.cancel(RESTING)).verdict is Verdict.UNKNOWN
            (got,) = await rest.cancel_batch([RESTING])
            assert got.verdict is Verdict.UNKNOWN

        with_venue(test)

    @pytest.mark.parametrize(
        "bad", [{"qty": 0.0}, {"price": 0.0}, {"side": 0}, {"client_id": "a b"}, {"client_id": ""}]
    )
    def test_what_the_cores_text_refuses_is_refused_here(self, with_venue, bad):
        async def test(venue, rest):
            with pytest.raises(ValueError, match="must be"):
                await rest.place(dataclasses.replace(ORDER, **bad), STEPS)
            assert venue.calls == []

        with_venue(test)

    def test_a_batch_may_if_all_of_it_reduces(self, with_venue):
        closing = NewOrder(client_id="c-1", side=-1, price=90000.1, qty=0.002, reduce_only=True)

        async def test(venue, rest):
            venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [
                echo(row) for row in listed(p["batchOrders"])
            ]
            rest._http._budget.charge({"orders_10s": 270})
            held = await rest.place_batch([closing, ORDER], STEPS)
            assert [o.reaction for o in held] == [Reaction.BACK_OFF] * 2
            sent = await rest.place_batch([closing, closing], STEPS)
            assert [o.verdict for o in sent] == [Verdict.OK] * 2
            assert len(venue.calls) == 1

        with_venue(test)


class TestLookUp:
    def test_one_that_is_there(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /fapi/v1/order"] = lambda p: order_row(
                clientOrderId=p["origClientOrderId"], status="FILLED", executedQty="0.002"
            )
            got = await rest.find("grid-1")
            assert (got.status, got.filled_qty) == (OrderStatus.FILLED, 0.002)

        with_venue(test)

    def test_only_the_venues_own_word_proves_that_there_is_none(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /fapi/v1/order"] = raising(refused(-2013, "Order does not exist."))
            assert await rest.find("grid-1") is None

        with_venue(test)

    @pytest.mark.parametrize("code", [-2011, -2015, -1102])
    def test_another_refusal_is_an_error(self, with_venue, code):
        async def test(venue, rest):
            venue.routes["GET /fapi/v1/order"] = raising(refused(code))
            with pytest.raises(VenueError) as e:
                await rest.find("grid-1")
            assert e.value.code == code

        with_venue(test)

    def test_another_order_is_an_error(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /fapi/v1/order"] = lambda p: order_row()
            with pytest.raises(BadReplyError, match="another one"):
                await rest.find("grid-2")

        with_venue(test)

    def test_open_orders_are_all_or_none(self, with_venue):
        async def test(venue, rest):
            rows = [order_row(), order_row(symbol="ETHUSDT"), order_row(orderId=78, side="SELL")]
            venue.routes["GET /fapi/v1/openOrders"] = lambda p: rows
            assert [o.order_id for o in await rest.open_orders()] == ["77", "78"]
            rows.append(order_row(origQty=""))
            with pytest.raises(BadReplyError, match="origQty"):
                await rest.open_orders()

        with_venue(test)


# --- histories ------------------------------------------------------------------------------------


def trade_row(id, time):
    return {
        "symbol": "BTCUSDT",
        "id": id,
        "orderId": 1,
        "side": "BUY",
        "price": "1",
        "qty": "1",
        "commission": "0.1",
        "commissionAsset": "USDT",
        "realizedPnl": "0",
        "maker": True,
        "time": time,
    }


def paged(rows, *, newest):
    """Serve a span's rows, a page at most: its first or its last."""

    def route(params):
        start, end, limit = (int(params[k]) for k in ("startTime", "endTime", "limit"))
        assert 0 <= end - start < 7 * 86_400_000
        held = [row for row in rows if start <= row["time"] <= end]
        return held[-limit:] if newest else held[:limit]

    return route


class TestHistories:
    @pytest.mark.parametrize("newest", [False, True])
    def test_every_fill_whichever_end_is_cut(self, with_venue, newest):
        # A burst of 2,500 within a minute, and some over three weeks.
        times = [NOW_MS - 20 * 86_400_000 + i * 24 for i in range(2500)]
        times += [NOW_MS - 86_400_000 * day for day in range(19, 0, -1)]
        rows = [trade_row(i + 1, time) for i, time in enumerate(times)]

        async def test(venue, rest):
            venue.routes["GET /fapi/v1/userTrades"] = paged(rows, newest=newest)
            got = await rest.fills(NOW_MS - 21 * 86_400_000)
            assert [fill.trade_id for fill in got] == [str(row["id"]) for row in rows]
            assert len(venue.calls) < 60

        with_venue(test)

    def test_more_than_a_page_in_a_millisecond_is_not_called_complete(self, with_venue):
        rows = [trade_row(i, NOW_MS - 5000) for i in range(1001)]

        async def test(venue, rest):
            venue.routes["GET /fapi/v1/userTrades"] = paged(rows, newest=False)
            with pytest.raises(BadReplyError, match="one millisecond"):
                await rest.fills(NOW_MS - 10_000)

        with_venue(test)

    def test_what_the_venue_has_forgotten_is_not_nothing(self, with_venue):
        async def test(venue, rest):
            with pytest.raises(VenueError, match="90 days"):
                await rest.fills(0)

        with_venue(test)

    def test_payments(self, with_venue):
        rows = [
            {
                "symbol": "BTCUSDT",
                "incomeType": "FUNDING_FEE",
                "income": "-0.5",
                "asset": "USDT",
                "time": NOW_MS - 1000,
                "tranId": 9,
                "tradeId": "",
            }
        ]

        async def test(venue, rest):
            venue.routes["GET /fapi/v1/income"] = paged(rows, newest=False)
            (got,) = await rest.payments(NOW_MS - 10_000)
            assert (got.id, got.amount) == ("9", -0.5)
            assert venue.calls[0][1]["incomeType"] == "FUNDING_FEE"
            rows[0]["incomeType"] = "TRANSFER"
            with pytest.raises(BadReplyError, match="another type"):
                await rest.payments(NOW_MS - 10_000)

        with_venue(test)

    def test_recent_trades_are_paged_backwards(self, with_venue):
        def row(id):
            return {"a": id, "p": "1.5", "q": "2", "f": 1, "l": 1, "T": id * 10, "m": id % 2 == 0}

        async def test(venue, rest):
            def route(params):
                last = (
                    int(params["fromId"]) - 1 if "fromId" in params else 5000 - int(params["limit"])
                )
                return [row(last + 1 + i) for i in range(int(params["limit"]))]

            venue.routes["GET /fapi/v1/aggTrades"] = route
            got = await rest.recent_trades(2300)
            assert [int(t.trade_id) for t in got] == list(range(5001 - 2300, 5001))
            assert got[-1] == PublicTrade(
                trade_id="5000", price=1.5, qty=2.0, ts_ms=50_000, buyer_maker=True
            )
            assert len(venue.calls) == 3

        with_venue(test)

    def test_a_gap_in_the_tape_is_an_error(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /fapi/v1/aggTrades"] = lambda p: [
                {"a": i, "p": "1", "q": "1", "T": 1, "m": True} for i in (1, 3)
            ]
            with pytest.raises(BadReplyError, match="gap"):
                await rest.recent_trades(2)

        with_venue(test)


# --- the listenKey, and what must not be seen -----------------------------------------------------


class TestRights:
    ROUTE = "GET /sapi/v1/account/apiRestrictions"
    ROW: typing.ClassVar = {"enableFutures": True, "enableWithdrawals": False, "ipRestrict": True}

    def test_what_the_key_may_do(self, with_venue):
        async def test(venue, rest):
            venue.routes[self.ROUTE] = lambda params: self.ROW
            rights = await rest.rights()
            assert (rights.can_trade, rights.can_withdraw, rights.read_only) == (True, False, None)
            assert rights.detail == "bound to addresses"
            venue.routes[self.ROUTE] = lambda params: self.ROW | {
                "enableFutures": False, "enableWithdrawals": True, "ipRestrict": False,
            }  # fmt: skip
            rights = await rest.rights()
            assert (rights.can_trade, rights.can_withdraw) == (False, True)
            assert rights.detail == "usable from any address"
            # Signed like all else: the venue checks it.
            assert venue.named(self.ROUTE) == [{}, {}]

        with_venue(test)

    def test_they_are_asked_for_at_the_host_that_knows(self, run):
        async def go():
            clock = VirtualClock(NOW_MS)
            async with Venue(clock) as venue, Venue(clock) as spot:
                spot.routes[self.ROUTE] = lambda params: self.ROW
                http, _ = client_of(venue)
                async with http:
                    rest = BinanceRest(http, symbol="BTCUSDT", key_rights_url=spot.url)
                    assert (await rest.rights()).can_trade
                assert venue.calls == []
                assert spot.calls == [(self.ROUTE, {})]

        run(go())

    @pytest.mark.parametrize(
        "answer", [refused(-5000, "Path is invalid", 404), Status(404, "<html>Not Found")]
    )
    def test_where_they_are_not_told(self, with_venue, answer):
        async def test(venue, rest):
            venue.routes[self.ROUTE] = raising(answer)
            assert await rest.rights() == wire.NOT_TOLD
            assert len(venue.calls) == 1

        with_venue(test)

    def test_a_refusal_is_not_not_told(self, with_venue):
        async def test(venue, rest):
            venue.routes[self.ROUTE] = raising(refused(-2015, status=401))
            with pytest.raises(VenueError) as caught:
                await rest.rights()
            assert caught.value.code == -2015
            venue.routes[self.ROUTE] = lambda params: {"enableFutures": "true"}
            with pytest.raises(BadReplyError):
                await rest.rights()

        with_venue(test)


class TestListenKey:
    def test_life(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/listenKey"] = lambda p: {"listenKey": LISTEN_KEY}
            venue.routes["PUT /fapi/v1/listenKey"] = lambda p: {}
            assert await rest.listen_key() == LISTEN_KEY
            assert await rest.keep_listen_key() is None

        with_venue(test)

    def test_a_dead_one(self, with_venue):
        async def test(venue, rest):
            venue.routes["PUT /fapi/v1/listenKey"] = raising(
                refused(-1125, "This listenKey does not exist.")
            )
            with pytest.raises(VenueError) as e:
                await rest.keep_listen_key()
            assert e.value.reaction == Reaction.RECREATE

        with_venue(test)

    @pytest.mark.parametrize("key", ["", "../x", "a?b", 7, None, ["x"]])
    def test_one_that_does_not_fit_into_an_address(self, with_venue, key):
        async def test(venue, rest):
            venue.routes["POST /fapi/v1/listenKey"] = lambda p: {"listenKey": key}
            with pytest.raises(BadReplyError, match="listenKey"):
                await rest.listen_key()

        with_venue(test)


@pytest.mark.parametrize(
    "fault",
    [
        Drop(),
        refused(-1022, f"Signature {'a' * 64} for this request is not valid. {KEY} {SECRET}"),
        refused(-1021),
        Status(500, b"x"),
        Status(200, {"code": KEY}),
        Status(200, [KEY]),
    ],
    ids=["cut", "signature", "clock", "500", "code", "row"],
)
def test_no_secret_is_shown(with_venue, caplog, fault):
    caplog.set_level(logging.DEBUG)
    shown = []

    async def test(venue, rest):
        for name in ("GET /fapi/v1/openOrders", "POST /fapi/v1/order", "POST /fapi/v1/listenKey"):
            venue.routes[name] = raising(fault)
        for call in (rest.open_orders, lambda: rest.place(ORDER, STEPS), rest.listen_key):
            try:
                shown.append(repr(await without_pauses(venue.clock, call())))
            except VenueError as e:
                shown.append("".join(traceback.format_exception(e)))
        shown.append(repr(rest))

    with_venue(test)
    shown.append(caplog.text)
    text = "\n".join(shown)
    assert "canary" not in text
    assert "signature=" not in text
    assert "a" * 64 not in text


def test_a_server_that_is_down_is_unavailable(run):
    async def go():
        clock = VirtualClock(NOW_MS)
        async with Venue(clock) as venue:
            http, rest = client_of(venue)
        async with http:
            with pytest.raises(UnavailableError):
                await without_pauses(clock, rest.open_orders())

    run(go())
