"""The simulated Bybit: who gets in, what a request does, what is told of it, and in which words."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from urllib.parse import unquote, urlencode

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.models import Tier
from passivx.simulator.bybit import POLICY, BybitFront
from passivx.simulator.feed import find_listing
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpRequest
from passivx.simulator.venue import OrderType, SimVenue, TimeInForce
from tests.simulator.bybit_desk import INVERSE, LINEAR, Desk, run, sign, signed_headers, signed_in
from tests.simulator.lines import FrontSide
from tests.simulator.worlds import START_MS

ALL_TOPICS = ("order", "execution", "execution.fast", "position", "wallet")


def front_at(now_ms: int, key: str, secret: str) -> BybitFront:
    clock = VirtualClock(now_ms)
    ledger = Ledger(clock)
    venue = SimVenue(
        find_listing("bybit", "BTCUSD", INVERSE),
        POLICY,
        clock=clock,
        ledger=ledger,
        price=90_001.0,
        wallet=10.0,
    )
    return BybitFront(venue, ledger, clock=clock, key=key, secret=secret)


def asked(front: BybitFront, method: str, path: str, params: dict) -> dict:
    """Return the answer to a signed request at `START_MS`; a query has its texts alone."""
    if method == "GET":
        query = urlencode({n: v for n, v in params.items() if isinstance(v, str)})
        text, body = query, b""
    else:
        query, text = "", json.dumps(params)
        body = text.encode()
    headers = signed_headers("k", "s", START_MS, text)
    reply = front.rest(HttpRequest(method, path, query, headers, body))
    assert reply.status == 200
    return orjson.loads(reply.body)


# --- shapes, against the documented examples ----------------------------------------------------


def differences(got, wanted, path="") -> list[str]:
    """Return where ``got`` lacks a key of ``wanted`` or has another JSON type."""
    kinds = {int: "number", float: "number"}
    kind = kinds.get(type(wanted), type(wanted).__name__)
    if kinds.get(type(got), type(got).__name__) != kind:
        return [f"{path}: {type(got).__name__}, documented {kind}"]
    if isinstance(wanted, dict):
        return [
            problem
            for name, value in wanted.items()
            for problem in (
                differences(got[name], value, f"{path}.{name}")
                if name in got
                else [f"{path}.{name}: missing"]
            )
        ]
    if isinstance(wanted, list) and wanted:
        if not got:
            return [f"{path}: empty"]
        return differences(got[0], wanted[0], f"{path}[]")
    return []


def shape_problems(got, wanted, excused=()) -> list[str]:
    return [p for p in differences(got, wanted) if not any(name in p for name in excused)]


@pytest.fixture(scope="module")
def documented(shared):
    files = ("bybit_rest_messages", "bybit_ws_messages")
    return {n: json.loads((shared / "vectors" / f"{n}.json").read_text()) for n in files}


async def busy(desk: Desk) -> None:
    """Do something of everything, so that no list is empty."""
    await desk.buy("400")
    desk.print(50_100.0)
    await desk.placed(
        orderType="Market", side="Sell", qty="100", price=None, timeInForce="IOC", reduceOnly=True
    )
    await desk.placed(orderLinkId="resting")
    gone = await desk.placed(orderLinkId="gone")
    await desk.post("/v5/order/cancel", symbol=desk.symbol, orderId=gone)
    desk.venue.settle_funding(0.0001)


@pytest.mark.real_data
def test_rest_answers_have_the_documented_shape(documented):
    examples = documented["bybit_rest_messages"]

    async def main(desk: Desk):
        await busy(desk)
        symbol = desk.symbol
        ids = {"request": [desk.order(orderLinkId="b1"), desk.order(orderLinkId="b2")]}
        answers = {
            "server_time": await desk.get("/v5/market/time", signed=False),
            "instruments": await desk.get("/v5/market/instruments-info", signed=False),
            "risk_limit": await desk.get("/v5/market/risk-limit", signed=False),
            "funding_history": await desk.get("/v5/market/funding/history", symbol=symbol),
            "recent_trade": await desk.get("/v5/market/recent-trade", symbol=symbol),
            "orderbook": await desk.get("/v5/market/orderbook", symbol=symbol),
            "tickers": await desk.get("/v5/market/tickers", symbol=symbol),
            "kline": await desk.get("/v5/market/kline", symbol=symbol, interval="1"),
            "price_limit": await desk.get("/v5/market/price-limit", symbol=symbol),
            "order_create": await desk.place(orderLinkId="shape"),
            "order_amend": await desk.post(
                "/v5/order/amend", symbol=symbol, orderLinkId="shape", qty="200"
            ),
            "order_cancel": await desk.post("/v5/order/cancel", symbol=symbol, orderLinkId="shape"),
            "order_create_batch": await desk.post("/v5/order/create-batch", **ids),
            "order_amend_batch": await desk.post(
                "/v5/order/amend-batch",
                request=[{"symbol": symbol, "orderLinkId": f"b{i}", "qty": "300"} for i in (1, 2)],
            ),
            "order_cancel_batch": await desk.post(
                "/v5/order/cancel-batch",
                request=[{"symbol": symbol, "orderLinkId": f"b{i}"} for i in (1, 2)],
            ),
            "order_realtime": await desk.get("/v5/order/realtime"),
            "order_history": await desk.get("/v5/order/history"),
            "execution_list": await desk.get("/v5/execution/list"),
            "position_list": await desk.get("/v5/position/list"),
            "closed_pnl": await desk.get("/v5/position/closed-pnl"),
            "wallet_balance": await desk.get("/v5/account/wallet-balance", accountType="UNIFIED"),
            "account_info": await desk.get("/v5/account/info"),
            "set_margin_mode": await desk.post(
                "/v5/account/set-margin-mode", setMarginMode="PORTFOLIO_MARGIN"
            ),
            "fee_rate": await desk.get("/v5/account/fee-rate", category="inverse"),
            "transaction_log": await desk.get("/v5/account/transaction-log"),
            "user_setting": await desk.get("/v5/account/user-setting-config"),
            "instruments_account": await desk.get(
                "/v5/account/instruments-info", category="inverse"
            ),
            "instruments_inverse_nautilus": await desk.get("/v5/market/instruments-info"),
            "order_cancel_all": await desk.post("/v5/order/cancel-all", symbol=symbol),
            "set_leverage": await desk.post(
                "/v5/position/set-leverage", symbol=symbol, buyLeverage="9", sellLeverage="9"
            ),
            "dcp_info": await desk.get("/v5/account/query-dcp-info"),
        }
        # Not for inverse contracts or retail accounts: both are refused, see the tests of codes.
        assert set(examples) - set(answers) == {"pre_check", "dcp_set", "switch_mode"}
        return answers

    excused = {
        "order_realtime": ("cumFeeDetail",),  # keyed by the coin of the fee
        "order_history": ("cumFeeDetail",),
        "dcp_info": ("dcpInfos",),  # empty: the account has no such protection
        "instruments_inverse_nautilus": ("nextPageCursor",),  # null there, "" in the documents
        "transaction_log": (),
    }
    answers = run(main)
    problems = {
        name: shape_problems(answer, examples[name][0]["message"], excused.get(name, ()))
        for name, answer in answers.items()
    }
    assert {name: found for name, found in problems.items() if found} == {}


@pytest.mark.real_data
def test_stream_messages_have_the_documented_shape(documented):
    examples = documented["bybit_ws_messages"]

    async def main(desk: Desk):
        symbol = desk.symbol
        private = await desk.private(*ALL_TOPICS)
        public = await desk.public(
            f"orderbook.50.{symbol}",
            f"publicTrade.{symbol}",
            f"tickers.{symbol}",
            f"allLiquidation.{symbol}",
            f"priceLimit.{symbol}",
            f"kline.5.{symbol}",
        )
        desk.print(50_100.0)
        await busy(desk)
        desk.pass_ms(1100)
        desk.venue.liquidate()
        found = {m["topic"].rsplit(".", 1)[0]: m for m in reversed(await public.drained())}
        for message in await private.drained():
            found.setdefault(message["topic"], message)
        return found

    found = run(main)
    wanted = {
        "orderbook.50": "orderbook.50",
        "publicTrade": "publicTrade",
        "tickers": "tickers",
        "allLiquidation": "allLiquidation",
        "kline.5": "kline",
        **{topic: topic for topic in ALL_TOPICS},
    }
    excused = {
        "order": ("cumFeeDetail",),
        "execution": ("extraFees",),  # no taxes: an empty list
        "tickers": ("tickDirection",),  # in the deltas only: no print, no direction
    }

    def example(name):
        return next(e["message"] for e in examples[name] if "topic" in e["message"])

    problems = {
        topic: shape_problems(found[topic], example(name), excused.get(topic, ()))
        for topic, name in wanted.items()
    }
    assert {topic: problem for topic, problem in problems.items() if problem} == {}
    limits = examples["priceLimit"][1]["message"]
    assert shape_problems(found["priceLimit"], limits) == []


# --- who gets in --------------------------------------------------------------------------------


@pytest.mark.real_data
def test_published_signatures_are_accepted_and_no_other(shared):
    vectors = json.loads((shared / "vectors" / "bybit_signing.json").read_text())
    assert len(vectors["rest"]) >= 5
    for vector in vectors["rest"]:
        front = front_at(int(vector["timestamp"]), vector["api_key"], vector["secret"])
        get = vector["method"] == "GET"
        text = vector["query_or_body"]
        headers = dict(vector["headers"])

        def ask(headers, text=text, get=get, front=front):
            # What is signed does not name the path.
            path = "/v5/position/list" if get else "/v5/order/create"
            request = HttpRequest(
                "GET" if get else "POST", path, text if get else "", headers,
                b"" if get else text.encode(),
            )  # fmt: skip
            return orjson.loads(front.rest(request).body)["retCode"]

        assert ask(headers) not in (10002, 10003, 10004), vector["id"]
        assert ask(headers | {"X-BAPI-SIGN": "0" * 64}) == 10004
        assert ask(headers, text + " ") == 10004
        assert ask(headers | {"X-BAPI-RECV-WINDOW": "5001"}) == 10004


@pytest.mark.parametrize(
    ("offset_ms", "window", "code"),
    [
        (0, "5000", 0),
        (-5000, "5000", 0),
        (-5001, "5000", 10002),
        (-5001, "6000", 0),
        (999, "5000", 0),
        (1000, "5000", 10002),
    ],
)
def test_window_of_time(offset_ms, window, code):
    async def main(desk: Desk):
        headers = desk.signed("", at_ms=desk.now_ms + offset_ms, window=window)
        _, body = await desk.raw("GET", "/v5/account/info", headers=headers)
        return orjson.loads(body)

    answer = run(main)
    assert answer["retCode"] == code
    if code:
        assert "server_timestamp" in answer["retMsg"]


def test_requests_without_or_with_another_key_are_refused():
    async def main(desk: Desk):
        good = desk.signed("")
        for missing in ("X-BAPI-API-KEY", "X-BAPI-TIMESTAMP", "X-BAPI-SIGN"):
            headers = {name: value for name, value in good.items() if name != missing}
            _, body = await desk.raw("GET", "/v5/account/info", headers=headers)
            assert orjson.loads(body)["retCode"] == 10001
        other = good | {"X-BAPI-API-KEY": "k" * 18}
        _, body = await desk.raw("GET", "/v5/account/info", headers=other)
        assert orjson.loads(body)["retMsg"] == "API key is invalid."
        # Lower-case names are the same headers.
        lower = {name.lower(): value for name, value in good.items()}
        _, body = await desk.raw("GET", "/v5/account/info", headers=lower)
        assert orjson.loads(body)["retCode"] == 0

    run(main)


def test_paths_methods_and_bodies_that_are_not_served():
    async def main(desk: Desk):
        assert (await desk.raw("GET", "/v5/order/nothing"))[0] == 404
        assert (await desk.raw("GET", "/v5/order/create"))[0] == 404
        assert (await desk.raw("POST", "/v5/market/time"))[0] == 404
        assert (await desk.raw("GET", "/v5/market/time", data="{}"))[0] == 403
        for text in ("", "[]", "{", "null", '{"a": NaN}'):
            _, body = await desk.raw(
                "POST", "/v5/order/create", data=text, headers=desk.signed(text)
            )
            assert orjson.loads(body)["retCode"] == 10001
        for path in ("/v5/public", "/v5/public/futures", "/realtime", "/v5/private/"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await desk.http.ws_connect(desk.sim.endpoints["rest"] + path)
            assert refused.value.status == 404
        return [e["status"] for e in desk.sim.ledger.entries("request")][:4]

    assert run(main) == [404, 404, 404, 403]


def test_rate_limit_of_an_order_endpoint():
    async def main(desk: Desk):
        codes = [(await desk.place())["retCode"] for _ in range(11)]
        assert codes == [0] * 10 + [10006]
        assert desk.headers["X-Bapi-Limit"] == "10"
        assert desk.headers["X-Bapi-Limit-Status"] == "0"
        assert desk.headers["X-Bapi-Limit-Reset-Timestamp"] == str(desk.now_ms + 1000)
        # Another endpoint has its own.
        assert (await desk.post("/v5/order/cancel-all", symbol=desk.symbol))["retCode"] == 0
        desk.pass_ms(999)
        assert (await desk.place())["retCode"] == 10006
        desk.pass_ms(1)
        assert (await desk.place())["retCode"] == 0
        assert desk.headers["X-Bapi-Limit-Status"] == "9"
        # A socket draws on the same.
        trade = await desk.trade()
        answers = [await trade.ask(desk.operation("order.create", desk.order())) for _ in range(10)]
        assert [a["retCode"] for a in answers] == [0] * 9 + [10006]
        assert answers[-1]["header"]["X-Bapi-Limit-Status"] == "0"
        assert answers[-1]["data"] == {}

    run(main, limits=True)


def test_a_batch_is_counted_in_orders_and_the_rest_of_it_refused():
    async def main(desk: Desk):
        first = await desk.post("/v5/order/create-batch", request=[desk.order()] * 7)
        second = await desk.post("/v5/order/create-batch", request=[desk.order()] * 7)
        codes = [
            [each["code"] for each in answer["retExtInfo"]["list"]] for answer in (first, second)
        ]
        assert codes == [[0] * 7, [0] * 3 + [10006] * 4]
        assert [bool(row["orderId"]) for row in second["result"]["list"]] == [True] * 3 + [
            False
        ] * 4
        # Single orders are counted apart.
        assert (await desk.place())["retCode"] == 0
        assert len(list(desk.venue.open_orders())) == 11

    run(main, limits=True)


def test_an_address_that_asks_too_often_is_shut_out_for_ten_minutes():
    async def main(desk: Desk):
        for _ in range(600):
            assert (await desk.raw("GET", "/v5/market/time"))[0] == 200
        assert await desk.raw("GET", "/v5/market/time") == (403, b"access too frequent")
        desk.pass_ms(599_999)
        assert (await desk.raw("GET", "/v5/market/time"))[0] == 403
        desk.pass_ms(1)
        assert (await desk.raw("GET", "/v5/market/time"))[0] == 200

    run(main, limits=True)


# --- what a request does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"timeInForce": None}, 0),
        ({"positionIdx": None}, 0),
        ({"reduceOnly": None}, 0),
        ({"price": "49000.00"}, 0),
        ({"category": "linear"}, 10001),
        ({"category": "futures"}, 10001),
        ({"category": None}, 10001),
        ({"symbol": "ETHUSD"}, 10001),
        ({"symbol": None}, 10001),
        ({"side": "buy"}, 10001),
        ({"side": None}, 10001),
        ({"orderType": "LIMIT"}, 10001),
        ({"qty": None}, 10001),
        ({"qty": "0"}, 10001),
        ({"qty": 100}, 10001),  # a text is wanted
        ({"qty": "1e2"}, 10001),
        ({"qty": "-1"}, 10001),
        ({"qty": "100.5"}, 10001),
        ({"qty": "nan"}, 10001),
        ({"qty": "26000000"}, 10001),
        ({"price": None}, 10001),
        ({"price": 49000}, 10001),
        ({"price": "49000.3"}, 10001),
        ({"price": "0"}, 10001),
        ({"timeInForce": "RPI"}, 10001),
        ({"timeInForce": "GTX"}, 10001),
        ({"positionIdx": 1}, 10001),
        ({"positionIdx": "0"}, 10001),
        ({"reduceOnly": "false"}, 10001),
        ({"triggerPrice": "48000"}, 10001),
        ({"takeProfit": "60000"}, 10001),
        ({"orderLinkId": "x" * 36}, 0),
        ({"orderLinkId": "x" * 37}, 10001),
        ({"orderLinkId": "a.b"}, 10001),
        ({"orderLinkId": "grid_b-0001"}, 0),
        ({"reduceOnly": True}, 110017),
        ({"qty": "6000000"}, 110007),
    ],
)
def test_codes_of_placing(changes, code):
    async def main(desk: Desk):
        body = {"category": desk.category, **desk.order()} | changes
        text = json.dumps({name: value for name, value in body.items() if value is not None})
        _, reply = await desk.raw("POST", "/v5/order/create", data=text, headers=desk.signed(text))
        (line,) = desk.sim.ledger.entries("order")
        assert (line["status"], line["code"]) == ("rejected" if code else "accepted", code)
        return orjson.loads(reply)

    answer = run(main)
    assert answer["retCode"] == code, answer
    assert set(answer) == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    assert bool(answer["result"]) == (code == 0)


def test_an_id_can_be_used_once_and_never_again():
    async def main(desk: Desk):
        await desk.placed(orderLinkId="once")
        assert (await desk.place(orderLinkId="once"))["retCode"] == 110072
        await desk.post("/v5/order/cancel-all", symbol=desk.symbol)
        assert (await desk.place(orderLinkId="once"))["retCode"] == 110072
        # No id is no id: any number of orders may have none.
        await desk.placed(orderLinkId="")
        await desk.placed()

    run(main)


def test_post_only_that_would_take_is_accepted_then_cancelled():
    async def main(desk: Desk):
        private = await desk.private("order")
        order_id = await desk.placed(price="50000.5", orderLinkId="po")
        row = await private.row("order")
        assert (await private.drained()) == []
        (old,) = (await desk.get("/v5/order/history"))["result"]["list"]
        for one in (row, old, await desk.one_order(order_id)):
            assert one["orderStatus"] == "Cancelled"
            assert one["rejectReason"] == "EC_PostOnlyWillTakeLiquidity"
            assert one["cancelType"] == "UNKNOWN"
            assert (one["cumExecQty"], one["orderLinkId"]) == ("0", "po")
        assert row["avgPrice"] == ""
        assert old["avgPrice"] == "0"
        assert (await desk.get("/v5/order/realtime"))["result"]["list"] == []

    run(main)


def test_price_out_of_band_is_moved_unless_that_is_switched_off():
    async def main(desk: Desk):
        limits = (await desk.get("/v5/market/price-limit", symbol=desk.symbol))["result"]
        assert (limits["buyLmt"], limits["sellLmt"]) == ("52500.00", "47500.00")
        private = await desk.private("order")
        moved = await desk.placed(side="Buy", price="60000", timeInForce="GTC")
        assert (await desk.one_order(moved))["price"] == "52500.00"
        assert {m["data"][0]["price"] for m in await private.drained()} == {"52500.00"}
        answer = await desk.post(
            "/v5/account/set-limit-px-action", category="inverse", modifyEnable=False
        )
        assert answer["retCode"] == 0
        settings = (await desk.get("/v5/account/user-setting-config"))["result"]
        assert settings["lpaPerp"] is True
        assert (await desk.place(side="Buy", price="60000"))["retCode"] == 30208
        assert (await desk.place(side="Sell", price="40000"))["retCode"] == 30209
        assert (await desk.place(side="Buy", price="20000"))["retCode"] == 0

    run(main)


def test_reduce_only_orders_are_cut_or_end_with_the_position():
    async def main(desk: Desk):
        await desk.buy("100")
        reducing = {"side": "Sell", "reduceOnly": True}
        assert (await desk.place(side="Buy", reduceOnly=True))["retCode"] == 110017
        rests = await desk.placed(**reducing, price="51000", qty="300")
        private = await desk.private("order", "execution", "position")
        takes = await desk.placed(
            **reducing, price=None, qty="300", orderType="Market", timeInForce=None
        )
        one = await desk.one_order(takes)
        assert (one["orderStatus"], one["cumExecQty"]) == ("Filled", "100")
        assert desk.venue.size == 0.0
        desk.print(51_500.0)
        ended = await desk.one_order(rests)
        assert (ended["orderStatus"], ended["cancelType"]) == ("Cancelled", "CancelByReduceOnly")
        told = [
            m["data"][0]["cancelType"] for m in await private.drained() if m["topic"] == "order"
        ]
        assert "CancelByReduceOnly" in told

    run(main)


def test_whole_position_is_closed_with_quantity_nought():
    async def main(desk: Desk):
        close = {"qty": "0", "reduceOnly": True, "side": "Sell", "orderType": "Market"}
        close |= {"price": None, "timeInForce": None}
        assert (await desk.place(**close, closeOnTrigger=True))["retCode"] == 110017
        await desk.buy("300")
        assert (await desk.place(**close))["retCode"] == 10001
        assert (await desk.place(**close, closeOnTrigger=True))["retCode"] == 0
        assert desk.venue.size == 0.0
        # No more of it in one go than an order may have.
        await desk.buy("300")
        desk.venue.set_listing(replace(desk.venue.listing, max_market_qty=200.0))
        assert (await desk.place(**close, closeOnTrigger=True))["retCode"] == 0
        assert desk.venue.size == 100.0

    run(main)


def test_amending():
    async def main(desk: Desk):
        symbol = desk.symbol
        order_id = await desk.placed(orderLinkId="a")
        ask = {"symbol": symbol, "orderLinkId": "a"}

        async def amend(**changes):
            return await desk.post("/v5/order/amend", **(ask | changes))

        answer = await amend(price="49001")
        assert answer["result"] == {"orderId": order_id, "orderLinkId": "a"}
        row = await desk.one_order(order_id)
        assert (row["price"], row["qty"], row["orderStatus"]) == ("49001.00", "100", "New")
        unchanged = await amend(price="49001.0", qty="100")
        assert unchanged["retCode"] == 10001
        assert "remains unchanged" in unchanged["retMsg"]
        assert (await amend())["retCode"] == 10001
        assert (await amend(price="49001.2"))["retCode"] == 10001
        assert (await amend(orderLinkId="b", qty="1"))["retCode"] == 110001
        assert (await amend(orderLinkId=None, qty="1"))["retCode"] == 10001
        desk.venue.fill(desk.venue.find(client_id="a"), 40.0)
        assert (await desk.one_order(order_id))["orderStatus"] == "PartiallyFilled"
        assert (await amend(qty="40"))["retCode"] == 110064
        assert (await amend(qty="50"))["retCode"] == 0
        row = await desk.one_order(order_id)
        assert (row["qty"], row["leavesQty"], row["cumExecQty"]) == ("50", "10", "40")
        # The venue's own id is looked at first.
        both = await amend(orderId=order_id, orderLinkId="nonsense", qty="60")
        assert both["retCode"] == 0
        # Into the market: cancelled, though the answer is good.
        assert (await amend(price="50000.5"))["retCode"] == 0
        row = await desk.one_order(order_id)
        assert (row["orderStatus"], row["rejectReason"]) == (
            "Cancelled",
            "EC_PostOnlyWillTakeLiquidity",
        )
        assert (await amend(qty="70"))["retCode"] == 110001

    run(main)


def test_cancelling():
    async def main(desk: Desk):
        ask = {"symbol": desk.symbol}
        order_id = await desk.placed(orderLinkId="a")
        assert (await desk.post("/v5/order/cancel", **ask))["retCode"] == 10001
        assert (await desk.post("/v5/order/cancel", **ask, orderId="x"))["retCode"] == 110001
        assert (await desk.post("/v5/order/cancel", **ask, orderLinkId="b"))["retCode"] == 110001
        done = await desk.post("/v5/order/cancel", **ask, orderLinkId="a")
        assert done["result"] == {"orderId": order_id, "orderLinkId": "a"}
        assert (await desk.post("/v5/order/cancel", **ask, orderId=order_id))["retCode"] == 110001
        row = await desk.one_order(order_id)
        assert (row["cancelType"], row["rejectReason"]) == ("CancelByUser", "EC_PerCancelRequest")
        assert (row["leavesQty"], row["leavesValue"], row["qty"]) == ("0", "0", "100")
        await desk.placed(orderLinkId="c")
        await desk.placed(orderLinkId="d")
        assert (await desk.post("/v5/order/cancel-all"))["retCode"] == 10001
        others = await desk.post("/v5/order/cancel-all", baseCoin="ETH")
        assert others["result"] == {"list": [], "success": "1"}
        stops = await desk.post("/v5/order/cancel-all", **ask, orderFilter="StopOrder")
        assert stops["result"]["list"] == []
        every = await desk.post("/v5/order/cancel-all", settleCoin="BTC")
        assert [row["orderLinkId"] for row in every["result"]["list"]] == ["c", "d"]
        again = await desk.post("/v5/order/cancel-all", **ask)
        assert again["result"] == {"list": [], "success": "1"}

    run(main)


def test_batches_answer_element_by_element():
    async def main(desk: Desk):
        elements = [
            desk.order(orderLinkId="a"),
            desk.order(orderLinkId="a"),
            desk.order(orderLinkId="c", qty="0"),
            "nonsense",
            desk.order(orderLinkId="e"),
        ]
        answer = await desk.post("/v5/order/create-batch", request=elements)
        assert answer["retCode"] == 0
        assert [e["code"] for e in answer["retExtInfo"]["list"]] == [0, 110072, 10001, 10001, 0]
        assert [bool(r["orderId"]) for r in answer["result"]["list"]] == [
            True, False, False, False, True,
        ]  # fmt: skip
        assert [bool(r["createAt"]) for r in answer["result"]["list"]] == [
            True, False, False, False, True,
        ]  # fmt: skip
        changes = [
            {"symbol": desk.symbol, "orderLinkId": "a", "price": "49010"},
            {"symbol": desk.symbol, "orderLinkId": "z", "price": "49010"},
        ]
        answer = await desk.post("/v5/order/amend-batch", request=changes)
        assert [e["code"] for e in answer["retExtInfo"]["list"]] == [0, 110001]
        answer = await desk.post("/v5/order/cancel-batch", request=changes)
        assert [e["code"] for e in answer["retExtInfo"]["list"]] == [0, 110001]
        for wrong in ([], "x", [desk.order()] * 21):
            answer = await desk.post("/v5/order/create-batch", request=wrong)
            assert answer["retCode"] == 10001
        attempts = [e["client_id"] for e in desk.sim.ledger.entries("order")]
        assert attempts == ["a", "a", "c", "e"]

    run(main)


def test_terms_of_the_account():
    async def main(desk: Desk):
        def leverage(buy, sell):
            return desk.post(
                "/v5/position/set-leverage",
                symbol=desk.symbol,
                buyLeverage=buy,
                sellLeverage=sell,
            )

        assert (await leverage("10", "10"))["retCode"] == 110043
        assert (await leverage("7", "8"))["retCode"] == 10001
        assert (await leverage("101", "101"))["retCode"] == 110013
        assert (await leverage(7, 7))["retCode"] == 10001
        private = await desk.private("position")
        assert (await leverage("7", "7"))["retCode"] == 0
        assert (await private.row("position"))["leverage"] == "7"

        def margin(mode):
            return desk.post("/v5/account/set-margin-mode", setMarginMode=mode)

        assert (await margin("REGULAR_MARGIN"))["retCode"] == 0
        assert (await margin("NONE"))["retCode"] == 10001
        await desk.placed()
        answer = await margin("ISOLATED_MARGIN")
        assert answer["retCode"] == 3400045
        assert answer["result"]["reasons"]
        await desk.post("/v5/order/cancel-all", symbol=desk.symbol)
        assert (await margin("ISOLATED_MARGIN"))["retCode"] == 0
        assert (await desk.get("/v5/account/info"))["result"]["marginMode"] == "ISOLATED_MARGIN"
        # One way only.
        mode = await desk.post("/v5/position/switch-mode", symbol=desk.symbol, mode=3)
        assert mode["retCode"] == 10001
        dead_man = await desk.post(
            "/v5/order/disconnected-cancel-all", product="DERIVATIVES", timeWindow=40
        )
        assert dead_man["retCode"] == 10005
        isolated = await desk.post(
            "/v5/position/switch-isolated",
            symbol=desk.symbol, tradeMode=0, buyLeverage="7", sellLeverage="7",
        )  # fmt: skip
        assert isolated["retCode"] == 100028

    run(main)


def test_the_rights_of_the_key_and_what_they_forbid():
    async def main(desk: Desk):
        async def rights():
            row = (await desk.get("/v5/user/query-api"))["result"]
            return row["readOnly"], row["permissions"]["Wallet"]

        assert await rights() == (0, [])
        desk.venue.set_rights(trade=False, withdraw=True)
        assert await rights() == (1, ["Withdraw"])
        assert (await desk.place())["retCode"] == 10005
        assert (await desk.get("/v5/account/info"))["retCode"] == 0
        trade = await desk.trade()
        assert (await trade.ask(desk.operation("order.create", desk.order())))["retCode"] == 10005

    run(main)


def test_inverse_contracts_want_their_coin_as_collateral_in_cross_margin():
    async def main(desk: Desk):
        def switch(word, coin="BTC"):
            path = "/v5/account/set-collateral-switch"
            return desk.post(path, coin=coin, collateralSwitch=word)

        assert (await switch("OFF", "ETH"))["retCode"] == 10001
        assert (await switch("OFF"))["retCode"] == 0
        assert (await desk.place())["retCode"] == 110101
        info = await desk.get("/v5/account/collateral-info")
        assert info["result"]["list"][0]["collateralSwitch"] is False
        wallet = await desk.get("/v5/account/wallet-balance", accountType="UNIFIED")
        assert wallet["result"]["list"][0]["coin"][0]["collateralSwitch"] is False
        assert (await switch("ON"))["retCode"] == 0
        assert (await desk.place())["retCode"] == 0

    run(main)


def test_linear_contracts_are_the_same_code_with_their_own_rules():
    async def main(desk: Desk):
        assert (await desk.get("/v5/market/instruments-info"))["result"]["list"][0][
            "lotSizeFilter"
        ]["minNotionalValue"] == "5"
        assert (await desk.place(qty="0.0001"))["retCode"] == 10001
        assert (await desk.place(price="1000", qty="0.001"))["retCode"] == 110094
        order_id = await desk.placed(qty="0.010", price="49000.1")
        row = await desk.one_order(order_id)
        assert (row["price"], row["qty"], row["leavesValue"]) == ("49000.10", "0.010", "490.001")
        await desk.buy("0.100")
        (position,) = (await desk.get("/v5/position/list", symbol=desk.symbol))["result"]["list"]
        assert (position["side"], position["size"]) == ("Buy", "0.100")
        assert position["positionValue"] == "5000.01"
        assert (await desk.get("/v5/position/list"))["retCode"] == 10001
        assert (await desk.get("/v5/order/realtime"))["retCode"] == 10001
        mode = {"symbol": desk.symbol}
        switched = await desk.post("/v5/position/switch-mode", **mode, mode=3)
        assert switched["retCode"] in (110024, 110028)
        same = await desk.post("/v5/position/switch-mode", **mode, mode=0)
        assert same["retCode"] == 110025
        (coin,) = (await desk.get("/v5/account/wallet-balance", accountType="UNIFIED"))["result"][
            "list"
        ][0]["coin"]
        assert coin["coin"] == "USDT"

    run(main, LINEAR)


def test_hedge_mode_wants_the_other_indices():
    async def main(desk: Desk):
        desk.venue.hedge_mode = True
        assert (await desk.place(positionIdx=0))["retCode"] == 10001
        assert (await desk.place(positionIdx=1))["retCode"] == 0

    run(main, LINEAR)


def test_nothing_is_placed_while_nothing_trades():
    async def main(desk: Desk):
        order_id = await desk.placed()
        desk.venue.set_trading(False)
        assert (await desk.place())["retCode"] == 110074
        info = await desk.get("/v5/market/instruments-info")
        assert info["result"]["list"][0]["status"] != "Trading"
        cancel = await desk.post("/v5/order/cancel", symbol=desk.symbol, orderId=order_id)
        assert cancel["retCode"] == 0

    run(main)


# --- what is shown ------------------------------------------------------------------------------


def test_tiers_are_worded_both_ways_and_not_in_order():
    tiers = (
        Tier(floor=0.0, maintenance_rate=0.005, max_leverage=100.0),
        Tier(floor=150.0, maintenance_rate=0.01, max_leverage=66.67),
        Tier(floor=300.0, maintenance_rate=0.015, max_leverage=50.0),
    )

    async def main(desk: Desk):
        return (await desk.get("/v5/market/risk-limit"))["result"]["list"]

    inverse = run(main, replace(INVERSE, tiers=tiers))
    linear = run(main, replace(LINEAR, tiers=tiers))
    assert [row["id"] for row in inverse] == [2, 3, 1]
    assert [row["riskLimitValue"] for row in inverse] == ["300", "1000000000", "150"]
    assert [row["maintenanceMargin"] for row in inverse] == ["1", "1.5", "0.5"]
    assert [row["maintenanceMargin"] for row in linear] == ["0.01", "0.015", "0.005"]
    assert [row["initialMargin"] for row in linear] == ["0.014999", "0.02", "0.01"]
    assert [row["mmDeduction"] for row in inverse] == ["0.75", "2.25", ""]


def test_documented_inverse_position_in_figures():
    """Short 300 at 27464.50441675, mark 28224.5: value 0.01092319, open pnl -0.00029413."""

    async def main(desk: Desk):
        desk.print(27_464.5, taker=-1)
        desk.venue.place(
            client_id="",
            side=-1,
            type=OrderType.MARKET,
            tif=TimeInForce.IOC,
            price=0.0,
            qty=300.0,
            reduce_only=False,
        )
        desk.print(28_224.5)
        (row,) = (await desk.get("/v5/position/list"))["result"]["list"]
        return row

    row = run(main)
    assert (row["side"], row["size"], row["markPrice"]) == ("Sell", "300", "28224.50")
    assert float(row["positionValue"]) == pytest.approx(300 / 27464.5, abs=1e-12)
    assert float(row["unrealisedPnl"]) == pytest.approx(
        300 * (1 / 28224.5 - 1 / 27464.5), abs=1e-12
    )


def test_life_of_an_order_over_the_private_socket():
    async def main(desk: Desk):
        private = await desk.private(*ALL_TOPICS)
        order_id = await desk.placed(orderLinkId="life", qty="100", price="49000")
        row = await private.row("order")
        assert (row["orderStatus"], row["orderId"], row["leavesQty"]) == ("New", order_id, "100")
        assert row["category"] == "inverse"
        assert (await private.row("position"))["size"] == "0"
        wallet = await private.row("wallet")
        assert float(wallet["coin"][0]["totalOrderIM"]) == pytest.approx(100 / 49_000 / 10)
        desk.venue.fill(desk.venue.find(client_id="life"), 30.0)
        execution = await private.row("execution")
        fast = await private.row("execution.fast")
        assert execution["execId"] == fast["execId"]
        assert fast["orderLinkId"] == ""  # makers' are
        assert (execution["execQty"], execution["leavesQty"]) == ("30", "70")
        assert (execution["isMaker"], execution["orderLinkId"]) == (True, "life")
        assert float(execution["execFee"]) == pytest.approx(30 / 49_000 * 0.0002, abs=1e-12)
        row = await private.row("order")
        assert (row["orderStatus"], row["cumExecQty"], row["avgPrice"]) == (
            "PartiallyFilled",
            "30",
            "49000",
        )
        position = await private.row("position")
        assert (position["side"], position["size"]) == ("Buy", "30")
        assert float(position["entryPrice"]) == 49_000.0
        assert position["seq"] == execution["seq"]
        assert (await private.row("wallet"))["coin"][0]["walletBalance"] != "10"
        await desk.post("/v5/order/amend", symbol=desk.symbol, orderId=order_id, qty="90")
        row = await private.row("order")
        assert (row["orderStatus"], row["qty"], row["leavesQty"]) == ("PartiallyFilled", "90", "60")
        desk.print(48_000.0, 1e6, taker=-1)
        assert (await private.row("execution"))["execQty"] == "60"
        row = await private.row("order")
        assert (row["orderStatus"], row["leavesQty"]) == ("Filled", "0")

    run(main)


def test_taker_fills_are_told_with_their_client_id_and_without_new():
    async def main(desk: Desk):
        private = await desk.private("order.inverse", "execution.fast.inverse")
        await desk.placed(
            orderType="Market", qty="50", price=None, timeInForce=None, orderLinkId="t"
        )
        told = await private.drained()
        assert [m["topic"] for m in told] == ["execution.fast.inverse", "order.inverse"]
        assert told[0]["data"][0]["orderLinkId"] == "t"
        row = told[1]["data"][0]
        assert (row["orderStatus"], row["timeInForce"]) == ("Filled", "IOC")
        # What it shows as its price is the worst it could have had.
        assert (row["price"], row["avgPrice"]) == ("52500.00", "50000.5")

    run(main)


def test_money_adds_up_over_every_list():
    async def main(desk: Desk):
        for i, qty in enumerate(("300", "500", "200")):
            await desk.buy(qty)
            desk.print(50_000.0 + 100 * i)
        desk.venue.settle_funding(0.0005)
        await desk.placed(side="Sell", price="50300", qty="700", orderLinkId="out")
        desk.print(50_400.0, 1e6)
        await desk.placed(
            side="Sell", orderType="Market", qty="800", price=None, timeInForce=None
        )  # flips
        desk.venue.deposit(1.5)
        log = (await desk.get("/v5/account/transaction-log", limit="50"))["result"]["list"]
        wallet = (await desk.get("/v5/account/wallet-balance", accountType="UNIFIED"))["result"]
        balance = float(wallet["list"][0]["coin"][0]["walletBalance"])
        assert 10.0 + sum(float(row["change"]) for row in log) == pytest.approx(balance, abs=1e-10)
        assert float(log[0]["cashBalance"]) == pytest.approx(balance, abs=1e-10)
        for row in log:
            change = float(row["cashFlow"]) + float(row["funding"] or 0) - float(row["fee"])
            assert change == pytest.approx(float(row["change"]), abs=1e-11)
        fills = (await desk.get("/v5/execution/list", limit="100"))["result"]["list"]
        size = sum(
            float(row["execQty"]) * (1 if row["side"] == "Buy" else -1)
            for row in fills
            if row["execType"] == "Trade"
        )
        assert size == desk.venue.size == -500.0
        (funding,) = [row for row in fills if row["execType"] == "Funding"]
        (settled,) = [row for row in log if row["type"] == "SETTLEMENT"]
        # Paid: positive as a fee, negative as what was received.
        assert float(funding["execFee"]) > 0.0
        assert float(settled["funding"]) == -float(funding["execFee"])
        closed = (await desk.get("/v5/position/closed-pnl"))["result"]["list"]
        assert [row["closedSize"] for row in closed] == ["300", "700"]
        assert sum(float(row["closedPnl"]) for row in closed) == pytest.approx(
            sum(float(row["cashFlow"]) for row in log if row["type"] == "TRADE")
            - sum(float(row["fee"]) for row in log)
            # what the position that is still open paid to be opened
            + 500 / float(fills[0]["execPrice"]) * 0.00055,
            abs=1e-9,
        )
        (position,) = (await desk.get("/v5/position/list"))["result"]["list"]
        assert (position["side"], position["size"]) == ("Sell", "500")

    run(main)


@pytest.mark.parametrize("market", [INVERSE, LINEAR], ids=["inverse", "linear"])
def test_figures_of_a_position(market):
    async def main(desk: Desk):
        async def position(**where):
            return (await desk.get("/v5/position/list", **where))["result"]["list"]

        qty = {"inverse": ("400", "100"), "linear": ("0.400", "0.100")}[desk.category]
        where = {"symbol": desk.symbol}
        if desk.category == "inverse":
            # A position of nothing is a row only for who asks for its symbol.
            assert await position() == []
        (row,) = await position(**where)
        assert (row["side"], row["size"], row["avgPrice"], row["seq"]) == ("", row["size"], "0", -1)
        await desk.buy(qty[0])
        desk.print(50_500.0)
        reducing = {"side": "Sell", "reduceOnly": True, "price": None, "timeInForce": None}
        await desk.placed(**reducing, orderType="Market", qty=qty[1])
        fills = (await desk.get("/v5/execution/list", **where))["result"]["list"]
        assert {row["feeRate"] for row in fills} == {"0.00055"}
        assert [row["closedSize"] for row in fills] == [qty[1], ""]
        (row,) = await position(**where)
        log = (await desk.get("/v5/account/transaction-log"))["result"]["list"]
        so_far = sum(float(row["change"]) for row in log)
        assert float(row["curRealisedPnl"]) == pytest.approx(so_far, abs=1e-10)
        # Closed there, nothing would be won or lost (the fee of doing so aside).
        size, entry, even = (float(row[n]) for n in ("size", "avgPrice", "breakEvenPrice"))
        if desk.category == "inverse":
            left = size * (1 / entry - 1 / even)
        else:
            left = size * (even - entry)
        assert left == pytest.approx(-so_far, abs=1e-7)
        await desk.placed(**reducing, orderType="Market", qty=row["size"])
        ever = sum(
            float(row["change"])
            for row in (await desk.get("/v5/account/transaction-log"))["result"]["list"]
        )
        # The next position starts anew; what was realised before is still known.
        await desk.buy(qty[1])
        (row,) = await position(**where)
        log = (await desk.get("/v5/account/transaction-log"))["result"]["list"]
        assert float(row["curRealisedPnl"]) == pytest.approx(float(log[0]["change"]), abs=1e-10)
        total = ever + float(log[0]["change"])
        assert float(row["cumRealisedPnl"]) == pytest.approx(total, abs=1e-10)

    run(main, market)


def test_lists_are_paged_newest_first_by_cursors_of_either_encoding():
    async def main(desk: Desk):
        for i in range(7):
            await desk.buy("10")
            await desk.placed(orderLinkId=f"o{i}")

        async def pages(path, raw):
            rows, cursor = [], {}
            while not rows or cursor:
                result = (await desk.get(path, limit="3", **cursor))["result"]
                rows.append(result["list"])
                text = result["nextPageCursor"]
                # Sent as it came, as pybit does, the server decodes it once.
                cursor = {"cursor": unquote(text) if raw else text} if text else {}
            assert [len(page) for page in rows][:2] == [3, 3]
            return [row for page in rows for row in page]

        for raw in (False, True):
            live = await pages("/v5/order/realtime", raw)
            assert [row["orderLinkId"] for row in live] == [f"o{i}" for i in range(6, -1, -1)]
            old = await pages("/v5/order/history", raw)
            assert len({row["orderId"] for row in old}) == 7
            fills = await pages("/v5/execution/list", raw)
            assert len({row["execId"] for row in fills}) == 7
            log = await pages("/v5/account/transaction-log", raw)
            assert len({row["id"] for row in log}) == 7
        assert (await desk.get("/v5/order/history", cursor="x"))["retCode"] == 10001

    run(main)


def test_spans_of_history():
    async def main(desk: Desk):
        await desk.buy("10")
        path, now, week = "/v5/execution/list", desk.now_ms, 7 * 86_400_000

        async def count(**params):
            answer = await desk.get(path, **params)
            return len(answer["result"]["list"]) if answer["retCode"] == 0 else answer["retCode"]

        assert await count() == 1
        assert await count(startTime=now, endTime=now) == 1
        assert await count(startTime=now + 1) == 0
        assert await count(endTime=now - 1) == 0
        assert await count(startTime=now - week) == 1
        assert await count(startTime=now - week, endTime=now + 1) == 10001
        assert await count(startTime=now, endTime=now - 1) == 10001
        assert await count(startTime="x") == 10001
        desk.venue.settle_funding(0.0002)
        desk.pass_ms(10)
        desk.venue.settle_funding(-0.0003)
        funding = "/v5/market/funding/history"
        both = {"symbol": desk.symbol, "startTime": now, "endTime": now + 9}
        (row,) = (await desk.get(funding, **both))["result"]["list"]
        assert (row["fundingRate"], row["fundingRateTimestamp"]) == ("0.0002", str(now))
        until = (await desk.get(funding, symbol=desk.symbol, endTime=now + 10))["result"]["list"]
        assert [row["fundingRate"] for row in until] == ["-0.0003", "0.0002"]
        assert (await desk.get(funding, symbol=desk.symbol, startTime=1))["retCode"] == 10001

    run(main)


def test_orders_without_a_fill_are_forgotten_after_a_day():
    async def main(desk: Desk):
        order_id = await desk.placed(price="60000")
        await desk.buy("10")
        history = (await desk.get("/v5/order/history"))["result"]["list"]
        assert len(history) == 2
        desk.pass_ms(86_400_001)
        (row,) = (await desk.get("/v5/order/history"))["result"]["list"]
        assert row["orderId"] != order_id
        recent = (await desk.get("/v5/order/realtime", openOnly="1"))["result"]["list"]
        assert {row["orderStatus"] for row in recent} == {"Cancelled", "Filled"}

    run(main)


def test_other_categories_are_known_and_empty():
    async def main(desk: Desk):
        for path in (
            "/v5/market/instruments-info",
            "/v5/market/tickers",
            "/v5/market/risk-limit",
            "/v5/position/list",
            "/v5/order/realtime",
            "/v5/order/history",
            "/v5/execution/list",
        ):
            answer = await desk.get(path, category="spot")
            assert (answer["retCode"], answer["result"]["list"]) == (0, [])
            assert (await desk.get(path, category="x"))["retCode"] == 10001
            assert (await desk.get(path, symbol="DOGEUSD"))["retCode"] == 10001
        answer = await desk.get("/v5/account/wallet-balance", accountType="CONTRACT")
        assert answer["retCode"] == 10001

    run(main)


# --- sockets ------------------------------------------------------------------------------------


def test_pings_are_answered_in_each_channels_own_way():
    async def main(desk: Desk):
        public, private, trade = [
            await desk.socket(name) for name in ("public", "private", "trade")
        ]
        pong = await public.ask({"op": "ping", "req_id": "7"})
        assert (pong["op"], pong["ret_msg"], pong["success"], pong["req_id"]) == (
            "ping", "pong", True, "7",
        )  # fmt: skip
        assert (await public.ask({"op": "ping"}))["req_id"] == ""
        pong = await private.ask({"op": "ping"})
        assert (pong["op"], pong["args"]) == ("pong", [str(desk.now_ms)])
        assert "ret_msg" not in pong
        pong = await trade.ask({"op": "ping"})
        assert (pong["op"], pong["retCode"], pong["data"]) == ("pong", 0, [str(desk.now_ms)])

    run(main)


@pytest.mark.parametrize("channel", ["private", "trade"])
def test_signing_in(channel):
    async def main(desk: Desk):
        def refused(answer):
            if channel == "trade":
                return answer["retCode"] != 0
            return not answer["success"]

        now = desk.now_ms
        good = desk.auth()["args"]
        for args in (
            ["x" * 18, *good[1:]],
            [good[0], good[1], "0" * 64],
            [good[0], good[1] + 1, good[2]],
            desk.auth(expires_ms=now)["args"],
            good[:2],
            [good[0], None, good[2]],
            None,
        ):
            socket = await desk.socket(channel)
            answer = await socket.ask({"op": "auth", "args": args})
            assert refused(answer), args
        socket = await desk.socket(channel)
        as_text = [good[0], str(good[1]), good[2]]
        assert not refused(await socket.ask({"op": "auth", "args": as_text, "req_id": "a"}))
        if channel == "trade":
            assert (await socket.ask(desk.auth()))["retCode"] == 20001

    run(main)


@pytest.mark.real_data
def test_published_signature_of_a_socket(shared):
    vectors = json.loads((shared / "vectors" / "bybit_signing.json").read_text())["ws_auth"]
    assert vectors
    for vector in vectors:
        front = front_at(vector["expires"] - 1000, vector["api_key"], vector["secret"])
        assert sign(vector["secret"], f"GET/realtime{vector['expires']}") == vector["signature"]

        session = FrontSide("private", "/v5/private")
        front.opened(session)
        front.message(session, json.dumps(vector["frame"]))
        assert session.sent[0]["success"] is True


def test_subscribing_is_all_or_nothing():
    async def main(desk: Desk):
        public = await desk.socket("public")
        symbol = desk.symbol

        async def ask(*topics, op="subscribe"):
            return await public.ask({"op": op, "args": list(topics), "req_id": "q"})

        bad = await ask(f"publicTrade.{symbol}", "publicTrade.NOPE")
        assert (bad["success"], bad["req_id"], bad["op"]) == (False, "q", "subscribe")
        assert bad["ret_msg"] == "error:handler not found,topic:publicTrade.NOPE"
        desk.print(50_001.0)
        assert await public.drained() == []
        for topic in (
            f"orderbook.500.{symbol}",
            "order",
            f"kline.2.{symbol}",
            f"publicTrade.{symbol}.x",
            "",
            ".",
        ):
            assert not (await ask(topic))["success"], topic
        assert (await ask(f"publicTrade.{symbol}"))["success"]
        again = await ask(f"publicTrade.{symbol}")
        assert again["ret_msg"] == f"error:already subscribed,topic:publicTrade.{symbol}"
        desk.print(50_002.0)
        assert len(await public.drained()) == 1
        assert (await ask(f"publicTrade.{symbol}", op="unsubscribe"))["success"]
        desk.print(50_003.0)
        assert await public.drained() == []
        for wrong in ([], None, [1]):
            assert not (await public.ask({"op": "subscribe", "args": wrong}))["success"]
        for wrong in ({"op": "dance"}, {}, "{", "[]"):
            await public.send(wrong)
            assert not (await public.take())["success"]
        long = await ask(*[f"publicTrade.{symbol}"] * 2000)
        assert "too long" in long["ret_msg"]

    run(main)


def test_private_topics_want_a_signed_in_socket_and_one_form():
    async def main(desk: Desk):
        private = await desk.socket("private")
        answer = await private.ask({"op": "subscribe", "args": ["order"]})
        assert answer["success"] is False
        private = await desk.private()
        both = await private.ask({"op": "subscribe", "args": ["order", "order.inverse"]})
        assert both["success"] is False
        for topic in ("publicTrade.BTCUSD", "order.x", "orders"):
            answer = await private.ask({"op": "subscribe", "args": [topic]})
            assert answer["success"] is False
        # Another category's are known, and silent.
        quiet = await desk.private("order.linear", "execution.spot", "dcp.future")
        await desk.buy("1")
        assert await quiet.drained() == []

    run(main)


def apply(book: dict[str, dict[str, str]], message: dict) -> None:
    for side in ("b", "a"):
        if message["type"] == "snapshot":
            book[side] = {}
        for price, size in message["data"][side]:
            if size == "0":
                del book[side][price]
            else:
                book[side][price] = size


@pytest.mark.parametrize("depth", [1, 50, 200])
def test_a_book_kept_from_the_topic_is_the_one_asked_for(depth):
    async def main(desk: Desk):
        public = await desk.public(f"orderbook.{depth}.{desk.symbol}")
        book: dict[str, dict[str, str]] = {}
        last_u = 0
        price = 50_000.0
        for i in range(40):
            price += (1.5, -3.0, 0.5, 20.0, -18.0)[i % 5]
            desk.print(price, taker=1 if i % 2 else -1)
            desk.pass_ms((5, 30, 150)[i % 3])
        desk.pass_ms(300)
        for message in await public.drained():
            apply(book, message)
            u = message["data"]["u"]
            assert message["type"] == ("snapshot" if depth == 1 or last_u == 0 else "delta")
            assert u == last_u + 1
            last_u = u
            assert min(map(float, book["a"])) > max(map(float, book["b"]))
        asked = (
            await desk.get("/v5/market/orderbook", symbol=desk.symbol, limit=str(min(depth, 25)))
        )["result"]
        assert sorted(book["b"].items()) == sorted(map(tuple, asked["b"]))
        assert sorted(book["a"].items()) == sorted(map(tuple, asked["a"]))
        assert last_u > 5

    run(main)


def test_level_one_is_said_again_after_three_seconds():
    async def main(desk: Desk):
        public = await desk.public(f"orderbook.1.{desk.symbol}")
        first = await public.take()
        desk.pass_ms(2000)
        assert await public.drained() == []
        desk.pass_ms(2000)
        (again,) = await public.drained()
        assert again["type"] == "snapshot"
        assert again["data"]["u"] == first["data"]["u"]
        assert again["ts"] > first["ts"]

    run(main)


def test_books_and_tickers_are_pushed_no_oftener_than_the_venue_does():
    async def main(desk: Desk):
        public = await desk.public(f"orderbook.50.{desk.symbol}", f"tickers.{desk.symbol}")
        await public.drained()
        for i in range(100):
            desk.print(50_000.0 + i, taker=1)
            desk.pass_ms(5)
        told = await public.drained()
        books = [m["ts"] for m in told if m["topic"].startswith("orderbook")]
        tickers = [m for m in told if m["topic"].startswith("tickers")]
        assert min(b - a for a, b in pairwise(books)) >= 20
        assert 3 <= len(tickers) <= 6
        assert all(m["type"] == "delta" for m in tickers)
        merged: dict[str, str] = {}
        for message in tickers:
            merged |= message["data"]
        desk.pass_ms(200)
        for message in await public.drained():
            if message["topic"].startswith("tickers"):
                merged |= message["data"]
        (row,) = (await desk.get("/v5/market/tickers", symbol=desk.symbol))["result"]["list"]
        assert merged["lastPrice"] == row["lastPrice"] == "50099.00"
        assert merged["ask1Price"] == row["ask1Price"]

    run(main)


def test_prints_and_candles():
    async def main(desk: Desk):
        public = await desk.public(f"publicTrade.{desk.symbol}", f"kline.1.{desk.symbol}")
        prices = [50_000.0, 50_010.0, 50_010.0, 50_005.0, 50_005.0]
        for price in prices:
            desk.print(price, 3.0, taker=1 if price > 50_005.0 else -1)
        rows = [m["data"][0] for m in await public.drained() if "publicTrade" in m["topic"]]
        assert [row["L"] for row in rows] == [
            "ZeroPlusTick", "PlusTick", "ZeroPlusTick", "MinusTick", "ZeroMinusTick",
        ]  # fmt: skip
        assert [row["S"] for row in rows] == ["Sell", "Buy", "Buy", "Sell", "Sell"]
        assert len({row["i"] for row in rows}) == 5
        recent = (await desk.get("/v5/market/recent-trade", symbol=desk.symbol))["result"]["list"]
        assert [row["execId"] for row in recent] == [row["i"] for row in reversed(rows)]
        (candle,) = (await desk.get("/v5/market/kline", symbol=desk.symbol, interval="5"))[
            "result"
        ]["list"]
        assert candle[1:6] == ["50000.00", "50010.00", "50000.00", "50005.00", "15"]
        assert int(candle[0]) % 300_000 == 0
        desk.pass_ms(61_000)
        told = [m["data"][0] for m in await public.drained() if "kline" in m["topic"]]
        assert told[-1]["confirm"] is True
        assert [row["confirm"] for row in told].count(True) == 1
        assert told[-1]["close"] == "50005.00"
        assert (await desk.get("/v5/market/kline", symbol=desk.symbol, interval="2"))[
            "retCode"
        ] == 10001

    run(main)


def test_silent_sockets_are_cut():
    async def main(desk: Desk):
        public = await desk.socket("public")
        short = await desk.socket("private", "?max_active_time=30s")
        kept = await desk.private()
        await public.drained()
        await short.drained()
        desk.pass_ms(31_000)
        assert (await short.raw.receive(timeout=5)).type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSE,
        )
        await kept.drained()
        desk.pass_ms(570_000)
        assert (await public.raw.receive(timeout=5)).type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSE,
        )
        await kept.drained()

    run(main)


# --- order entry over a socket ------------------------------------------------------------------


def test_orders_over_the_trade_socket():
    async def main(desk: Desk):
        trade = await desk.trade()
        ask = desk.operation("order.create", desk.order(orderLinkId="w"))
        answer = await trade.ask(ask)
        assert set(answer) == {
            "reqId", "retCode", "retMsg", "op", "data", "retExtInfo", "header", "connId",
        }  # fmt: skip
        assert (answer["reqId"], answer["retCode"], answer["op"]) == (
            ask["reqId"],
            0,
            "order.create",
        )
        order_id = answer["data"]["orderId"]
        assert (await desk.one_order(order_id))["orderLinkId"] == "w"
        change = {"symbol": desk.symbol, "orderId": order_id, "qty": "200"}
        answer = await trade.ask(desk.operation("order.amend", change))
        assert (answer["retCode"], answer["data"]["orderId"]) == (0, order_id)
        answer = await trade.ask(desk.operation("order.amend", change))
        assert answer["retCode"] == 10001
        assert answer["data"] == {}
        answer = await trade.ask(desk.operation("order.cancel", change))
        assert answer["retCode"] == 0
        answer = await trade.ask(desk.operation("order.cancel", change))
        assert answer["retCode"] == 110001
        batch = {"request": [desk.order(orderLinkId="x"), desk.order(orderLinkId="x")]}
        answer = await trade.ask(desk.operation("order.create-batch", batch))
        assert [e["code"] for e in answer["retExtInfo"]["list"]] == [0, 110072]
        assert answer["data"]["list"][0]["orderLinkId"] == "x"
        elements = {"request": [{"symbol": desk.symbol, "orderLinkId": "x", "qty": "300"}]}
        for op in ("order.amend-batch", "order.cancel-batch"):
            answer = await trade.ask(desk.operation(op, elements))
            assert (answer["retExtInfo"]["list"], answer["retCode"]) == (
                [{"code": 0, "msg": "OK"}],
                0,
            )
        lines = desk.sim.ledger.entries("order")
        assert [line["channel"] for line in lines] == ["ws"] * 3

    run(main)


def test_codes_of_the_trade_socket():
    async def main(desk: Desk):
        stranger = await desk.socket("trade")
        answer = await stranger.ask(desk.operation("order.create", desk.order()))
        assert answer["retCode"] not in (0, 10001)
        trade = await desk.trade()

        async def code(message):
            return (await trade.ask(message))["retCode"]

        order = desk.order()
        assert await code(desk.operation("order.dance", order)) == 10404
        assert await code(desk.operation("order.create", {**order, "category": "x"})) == 10404
        assert await code(desk.operation("order.create", order, reqId="r" * 37)) == 10001
        assert await code(desk.operation("order.create", order, reqId="same")) == 0
        assert await code(desk.operation("order.create", order, reqId="same")) == 20006
        assert await code(desk.operation("order.create", order, header=None)) == 10001
        old = {"X-BAPI-TIMESTAMP": str(desk.now_ms - 6000)}
        assert await code(desk.operation("order.create", order, header=old)) == 10002
        as_number = {"X-BAPI-TIMESTAMP": desk.now_ms, "X-BAPI-RECV-WINDOW": 8000}
        assert await code(desk.operation("order.create", order, header=as_number)) == 0
        for args in ("x", [], [order, order], ["x"]):
            wrong = desk.operation("order.create", order) | {"args": args}
            assert await code(wrong) == 10001
        unnamed = await trade.ask(desk.operation("order.create", order, reqId=None))
        assert unnamed["retCode"] == 0
        assert "reqId" not in unnamed

    run(main)


# --- what the venue does by itself --------------------------------------------------------------


def test_liquidation_is_told_by_its_marks():
    async def main(desk: Desk):
        await desk.buy("1000")
        resting = await desk.placed(orderLinkId="r")
        private = await desk.private(*ALL_TOPICS)
        public = await desk.public(f"allLiquidation.{desk.symbol}")
        desk.venue.liquidate()
        told = await private.drained()
        rows = {topic: [m["data"][0] for m in told if m["topic"] == topic] for topic in ALL_TOPICS}
        assert rows["order"][0]["orderId"] == resting
        assert rows["order"][0]["cancelType"] == "CancelAllBeforeLiq"
        takeover = rows["order"][-1]
        assert (takeover["createType"], takeover["orderLinkId"]) == ("CreateByLiq", "")
        (execution,) = rows["execution"]
        assert (execution["execType"], execution["execQty"]) == ("BustTrade", "1000")
        assert execution["orderId"] == takeover["orderId"]
        assert rows["execution.fast"] == []
        assert "Liq" in [row["positionStatus"] for row in rows["position"]]
        assert (rows["position"][-1]["positionStatus"], rows["position"][-1]["size"]) == (
            "Normal",
            "0",
        )
        (event,) = await public.drained()
        assert (event["data"][0]["S"], event["data"][0]["v"]) == ("Buy", "1000")

    run(main)


def test_deleveraging_and_an_admins_cancel_are_told_by_their_marks():
    async def main(desk: Desk):
        await desk.buy("1000")
        await desk.placed(orderLinkId="r")
        private = await desk.private(*ALL_TOPICS)
        desk.venue.deleverage(400.0)
        desk.venue.cancel(desk.venue.find(client_id="r"), reason="admin")
        told = await private.drained()
        (execution,) = [m["data"][0] for m in told if m["topic"] == "execution"]
        assert (execution["execType"], execution["createType"]) == (
            "AdlTrade",
            "CreateByAdl_PassThrough",
        )
        orders = [m["data"][0] for m in told if m["topic"] == "order"]
        assert orders[-1]["cancelType"] == "CancelByAdmin"
        assert "Adl" in [m["data"][0]["positionStatus"] for m in told if m["topic"] == "position"]

    run(main)


def test_rules_may_change_while_it_runs():
    async def main(desk: Desk):
        listing = desk.venue.listing
        market = replace(listing.market, price_step=1.0)
        desk.venue.set_listing(replace(listing, market=market))
        info = (await desk.get("/v5/market/instruments-info"))["result"]["list"][0]
        assert info["priceFilter"]["tickSize"] == "1.00"
        assert (await desk.place(price="49000.5"))["retCode"] == 10001

    run(main)


# --- what the ledger has, and has not -----------------------------------------------------------


def test_ledger_has_every_request_and_no_secret():
    async def main(desk: Desk):
        await desk.placed(orderLinkId="seen")
        await desk.private("order")
        trade = await desk.trade()
        await trade.ask(desk.operation("order.create", desk.order(orderLinkId="two")))
        await desk.get("/v5/user/query-api")
        text = b"".join(desk.sim.ledger.since(0)).decode()
        assert desk.secret not in text
        assert desk.key not in text
        assert sign(desk.secret, "x")[:8] not in text
        lines = desk.sim.ledger.entries("request")
        assert [(line["channel"], line["method"], line["code"]) for line in lines] == [
            ("rest", "POST", 0),
            ("ws", "auth", 0),
            ("ws", "subscribe", None),
            ("ws", "auth", 0),
            ("ws", "order.create", 0),
            ("rest", "GET", 0),
        ]
        orders = desk.sim.ledger.entries("order")
        assert [line["client_id"] for line in orders] == ["seen", "two"]
        (live, _) = (await desk.get("/v5/order/realtime"))["result"]["list"]
        assert orders[1]["order_id"] == live["orderId"]
        assert orders[0] | {"ts_ms": 0, "order_id": ""} == {
            "event": "order",
            "ts_ms": 0,
            "replay_ts_ms": None,
            "client_id": "seen",
            "order_id": "",
            "side": "buy",
            "price": 49_000.0,
            "qty": 100.0,
            "reduce_only": False,
            "post_only": True,
            "status": "accepted",
            "code": 0,
            "channel": "rest",
        }

    run(main)


# --- whatever comes -----------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3)
)
WORDS = st.sampled_from(
    ["", "0", "1", "100", "49000", "inverse", "BTCUSD", "Buy", "Limit", "PostOnly", "Market", "IOC"]
)
NAMES = (
    "category", "symbol", "side", "orderType", "qty", "price", "timeInForce", "positionIdx",
    "orderLinkId", "orderId", "reduceOnly", "closeOnTrigger", "request", "buyLeverage",
    "sellLeverage", "mode", "setMarginMode", "modifyEnable", "settleCoin", "baseCoin", "limit",
    "cursor", "startTime", "endTime", "interval", "openOnly", "execType", "accountType", "coin",
)  # fmt: skip
GOOD = {
    "category": "inverse",
    "symbol": "BTCUSD",
    "side": "Buy",
    "orderType": "Limit",
    "qty": "100",
    "price": "49000",
    "timeInForce": "PostOnly",
    "orderLinkId": "a",
    "buyLeverage": "5",
    "sellLeverage": "5",
    "settleCoin": "BTC",
    "interval": "1",
    "accountType": "UNIFIED",
    "setMarginMode": "ISOLATED_MARGIN",
    "modifyEnable": False,
}
# Sense with a few words of nonsense in it: whatever is nonsense alone is refused at the door.
BODIES = st.dictionaries(st.sampled_from(NAMES), WORDS | VALUES, max_size=4).map(
    lambda changes: {**GOOD, "request": [{**GOOD, **changes}], **changes}
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_asked_gets_an_answer_in_the_venues_form(data):
    front = front_at(START_MS, "k", "s")
    path = data.draw(st.sampled_from(sorted(front._routes)))
    route = front._routes[path]
    params = data.draw(BODIES)
    answer = asked(front, route.method, path, params)
    assert set(answer) == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    assert answer["retCode"] != 10004


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_a_socket_is_told_it_answers_once(data):
    front = front_at(START_MS, "k", "s")
    channel, path = data.draw(
        st.sampled_from(
            [("public", "/v5/public/inverse"), ("private", "/v5/private"), ("trade", "/v5/trade")]
        )
    )
    line = FrontSide(channel, path)
    front.opened(line)
    if data.draw(st.booleans()) and channel != "public":
        front.message(line, json.dumps(signed_in("k", "s", START_MS + 1000)))
        line.sent.clear()
    ops = st.sampled_from(
        ["auth", "subscribe", "unsubscribe", "order.create", "order.amend-batch", "x"]
    )
    message = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "op": ops | VALUES,
                "args": VALUES | st.lists(BODIES, max_size=2),
                "header": VALUES | st.just({"X-BAPI-TIMESTAMP": str(START_MS)}),
                "reqId": VALUES,
                "req_id": VALUES,
            },
        )
    )
    front.message(line, json.dumps(message))
    assert len(line.sent) == 1
    assert line.closed_with is None
    front.closed(line)


ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["post_only", "limit", "market", "reduce", "amend", "cancel", "print", "fill",
             "funding", "adl", "liquidate", "cancel_all"]
        ),
        st.integers(0, 5),
        st.sampled_from([1, -1]),
        st.integers(1, 40),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTS)
def test_what_the_private_topics_told_is_what_rest_says(acts):
    """Orders folded from their topic, the position from executions, the money from both."""
    front = front_at(START_MS, "k", "s")
    venue = front._venue
    front._limited = False
    line = FrontSide("private", "/v5/private")
    front.opened(line)
    front.message(line, json.dumps(signed_in("k", "s", START_MS + 1000)))
    front.message(line, json.dumps({"op": "subscribe", "args": list(ALL_TOPICS)}))
    line.sent.clear()

    where = {"category": "inverse", "symbol": "BTCUSD"}
    names: list[str] = []
    for i, (act, which, side, size) in enumerate(acts):
        bid, ask = venue.quote
        new = {
            **where,
            "side": "Buy" if side > 0 else "Sell",
            "orderType": "Market" if act == "market" else "Limit",
            "qty": str(size * 100),
            "price": f"{bid - size if side > 0 else ask + size:.1f}",
            "orderLinkId": f"n{i}",
            "reduceOnly": act == "reduce",
            "timeInForce": "PostOnly" if act == "post_only" else "GTC",
        }
        if act == "limit" and which == 0:  # through the market
            new["price"] = f"{ask + 5 if side > 0 else bid - 5:.1f}"
        if act in ("post_only", "limit", "market", "reduce"):
            if asked(front, "POST", "/v5/order/create", new)["retCode"] == 0:
                names.append(f"n{i}")
        elif act == "amend" and names:
            name = names[which % len(names)]
            changes = {"orderLinkId": name, "price": new["price"], "qty": new["qty"]}
            asked(front, "POST", "/v5/order/amend", {**where, **changes})
        elif act == "cancel" and names:
            name = names[which % len(names)]
            asked(front, "POST", "/v5/order/cancel", {**where, "orderLinkId": name})
        elif act == "cancel_all":
            asked(front, "POST", "/v5/order/cancel-all", where)
        elif act == "print":
            venue.jump(90_001.0 + side * size, 1e6)
        elif act == "fill" and list(venue.open_orders()):
            order = next(iter(venue.open_orders()))
            if not order.reduce_only:
                venue.fill(order, max(1.0, order.left // 2))
        elif act == "funding":
            venue.settle_funding(side * 0.0001)
        elif act == "adl" and venue.size:
            venue.deleverage(max(1.0, abs(venue.size) // 2))
        elif act == "liquidate":
            venue.liquidate()

    told = line.sent
    orders = {}
    size = money = 0.0
    executions: set[str] = set()
    for message in told:
        (row,) = message["data"]
        if message["topic"] == "order":
            before = orders.get(row["orderId"])
            # What is final stays as it is, and nothing that was filled comes back.
            assert before is None or before["orderStatus"] in ("New", "PartiallyFilled")
            assert before is None or float(row["cumExecQty"]) >= float(before["cumExecQty"])
            orders[row["orderId"]] = row
        elif message["topic"] == "execution":
            assert row["execId"] not in executions
            executions.add(row["execId"])
            money += float(row["execPnl"]) - float(row["execFee"])
            if row["execType"] != "Funding":
                size += float(row["execQty"]) * (1 if row["side"] == "Buy" else -1)
    assert size == venue.size
    assert money == pytest.approx(venue.wallet - 10.0, abs=1e-10)
    listed = {}
    for path in ("/v5/order/realtime", "/v5/order/history"):
        cursor = {"limit": "50"}
        while cursor:
            result = asked(front, "GET", path, {**where, **cursor})["result"]
            for row in result["list"]:
                assert listed.setdefault(row["orderId"], row) is row
            text = result["nextPageCursor"]
            cursor = {"limit": "50", "cursor": text} if text else {}
    same = ("orderStatus", "price", "qty", "leavesQty", "cumExecQty", "cumExecFee", "cancelType")
    for order_id, row in listed.items():
        assert {name: orders[order_id][name] for name in same} == {name: row[name] for name in same}
    # Takeovers of the venue have an order in the stream and none in the lists.
    assert {
        order_id for order_id, row in orders.items() if row["createType"] == "CreateByUser"
    } == set(listed)
    if any(message["topic"] == "position" for message in told):
        last = [m["data"][0] for m in told if m["topic"] == "position"][-1]
        assert float(last["size"]) == abs(venue.size)


def test_a_book_that_is_as_it_was_when_its_turn_comes_is_not_told():
    async def main(desk: Desk):
        public = await desk.public(f"orderbook.200.{desk.symbol}")
        await public.drained()
        before = desk.venue.quote
        desk.print(before[1] + 10.0)
        desk.print(before[1])
        assert desk.venue.quote == before
        desk.pass_ms(200)
        assert await public.drained() == []
        # Nobody listens any more when its turn comes.
        desk.print(before[1] + 10.0)
        desk.print(before[1])
        assert len(await public.drained()) == 1
        answer = await public.ask({"op": "unsubscribe", "args": [f"orderbook.200.{desk.symbol}"]})
        assert answer["success"]
        again = {"op": "subscribe", "args": [f"orderbook.200.{desk.symbol}"]}
        assert (await public.ask(again))["success"]
        desk.pass_ms(200)
        (only,) = await public.drained()
        assert only["type"] == "snapshot"

    run(main)


def test_two_that_listen_to_one_topic_both_hear_and_the_last_one_out_ends_it():
    async def main(desk: Desk):
        topic = f"orderbook.50.{desk.symbol}"
        one, two = await desk.public(topic), await desk.public(topic)
        desk.print(50_100.0)
        desk.pass_ms(50)
        assert len(await one.drained()) == len(await two.drained()) == 2
        await one.raw.close()
        desk.print(50_200.0)
        desk.pass_ms(50)
        assert len(await two.drained()) == 1
        await two.raw.close()
        while desk.front._hub.topics:
            await asyncio.sleep(0)
        three = await desk.public(topic)
        first = await three.take()
        assert (first["type"], first["data"]["u"]) == ("snapshot", 1)

    run(main)


def told_by(line: FrontSide, topic: str) -> list[dict]:
    return [m for m in line.sent if m.get("topic") == topic]


def public_line(front: BybitFront, *topics: str) -> FrontSide:
    line = FrontSide("public", "/v5/public/inverse")
    front.opened(line)
    front.message(line, json.dumps({"op": "subscribe", "args": list(topics)}))
    return line


def test_the_bounds_of_prices_are_told_to_who_wants_nothing_else():
    front = front_at(START_MS, "k", "s")
    line = public_line(front, "priceLimit.BTCUSD")
    front._venue.print(1, 99_000.0, 1.0, False, START_MS)
    front._clock.advance(200)
    first, second = told_by(line, "priceLimit.BTCUSD")
    assert float(second["data"]["buyLmt"]) > float(first["data"]["buyLmt"])


def test_a_ticker_that_nobody_heard_for_a_while_begins_as_it_is_now():
    front = front_at(START_MS, "k", "s")
    line = public_line(front, "tickers.BTCUSD")
    front.message(line, json.dumps({"op": "unsubscribe", "args": ["tickers.BTCUSD"]}))
    for i, price in enumerate((91_000.0, 92_000.0)):
        front._venue.print(i + 1, price, 1.0, False, START_MS)
        front._clock.advance(1000)
    later = public_line(front, "tickers.BTCUSD")
    (snapshot,) = told_by(later, "tickers.BTCUSD")
    assert (snapshot["type"], snapshot["data"]["lastPrice"]) == ("snapshot", "92000.00")


def test_an_order_that_closes_on_a_trigger_says_so():
    front = front_at(START_MS, "k", "s")
    order = {"category": "inverse", "symbol": "BTCUSD", "side": "Buy", "orderType": "Limit",
             "qty": "10", "price": "80000", "timeInForce": "PostOnly"}  # fmt: skip
    for link, close in (("a", True), ("b", False)):
        made = asked(front, "POST", "/v5/order/create",
                     order | {"orderLinkId": link, "closeOnTrigger": close})  # fmt: skip
        assert made["retCode"] == 0
        where = {"category": "inverse", "orderLinkId": link}
        (row,) = asked(front, "GET", "/v5/order/realtime", where)["result"]["list"]
        assert row["closeOnTrigger"] is close


@pytest.mark.parametrize("length", [310, 5000])
def test_numbers_beyond_all_measure_are_refused(length):
    front = front_at(START_MS, "k", "s")
    huge = "9" * length
    order = {"category": "inverse", "symbol": "BTCUSD", "side": "Buy", "orderType": "Limit",
             "qty": "10", "price": "80000"}  # fmt: skip
    assert asked(front, "POST", "/v5/order/create", order | {"qty": huge})["retCode"] == 10001
    assert asked(front, "POST", "/v5/order/create", order | {"price": huge})["retCode"] == 10001
    for name in ("limit", "startTime", "cursor"):
        where = {"category": "inverse", "symbol": "BTCUSD", name: huge}
        assert asked(front, "GET", "/v5/order/history", where)["retCode"] == 10001
    line = public_line(front, f"orderbook.{huge}.BTCUSD")
    assert line.sent[0]["success"] is False
    headers = signed_headers("k", "s", START_MS, "") | {"X-BAPI-TIMESTAMP": huge}
    reply = front.rest(HttpRequest("GET", "/v5/account/info", "", headers, b""))
    assert orjson.loads(reply.body)["retCode"] == 10001
