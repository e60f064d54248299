"""REST: signatures by the published vectors, endpoints against a scripted venue."""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.errors import BadReplyError, UnavailableError, VenueError
from passivx.exchanges.base import (
    FillKind,
    MarkPrice,
    NewOrder,
    OrderStatus,
    Payment,
    Reaction,
    Verdict,
)
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.rest import BybitDialect, until_reset_s, used_of
from passivx.exchanges.http import Answer, Request
from passivx.exchanges.keys import ApiKey
from tests.exchanges.bybit.venue import (
    INSTRUMENT,
    KEY,
    NOW_MS,
    Refused,
    Venue,
    batch,
    client_of,
    fill_row,
    offer,
    order_row,
    pages,
    position_row,
    steps,
)
from tests.exchanges.scripted import Drop, Status, raising, without_pauses

DAY_MS = 86_400_000
ORDER = NewOrder(client_id="grid-1", side=1, price=90000.5, qty=100.0)
RESTING = wire.order_of(order_row())


def orders(n, **changed):
    return [dataclasses.replace(ORDER, client_id=f"g-{i}", **changed) for i in range(n)]


@pytest.fixture
def with_venue(run):
    """Run a test with a venue and the client that speaks to it."""

    def start(test, category="inverse"):
        async def go():
            async with Venue(VirtualClock(NOW_MS)) as venue:
                http, rest = client_of(venue, category)
                async with http:
                    await test(venue, rest)

        run(go())

    return start


# --- the dialect ----------------------------------------------------------------------------------


@pytest.mark.real_data
def test_every_published_signature(shared: Path):
    entries = json.loads((shared / "vectors" / "bybit_signing.json").read_text())["rest"]
    assert len(entries) >= 4
    for entry in entries:
        key = ApiKey(entry["api_key"], entry["secret"])
        dialect = BybitDialect(key, recv_window_ms=int(entry["recv_window"]))
        said = entry["query_or_body"]
        if entry["method"] == "GET":
            # The query as it is: what is encoded in it is encoded again otherwise.
            params = tuple(parse_qsl(said, keep_blank_values=True))
            request = Request(method="GET", path=entry["path"], params=params, signed=True)
            target = f"{entry['path']}?{said}" if said else entry["path"]
        else:
            request = Request(method="POST", path=entry["path"], body=said.encode(), signed=True)
            target = entry["path"]
        built = dialect.build(request, int(entry["timestamp"]))
        assert built.target == target, entry["id"]
        assert built.body == request.body
        for name, value in entry["headers"].items():
            assert built.headers[name] == value, entry["id"]


def test_without_a_key_nothing_is_signed():
    request = Request(method="GET", path="/v5/account/info", signed=True)
    with pytest.raises(VenueError, match="API key"):
        BybitDialect(None).build(request, 1)


def test_the_order_text_of_rest_is_what_is_published():
    order = NewOrder(client_id="grid-b-0001", side=1, price=90000.0, qty=100.0)
    assert wire.order_fields(order, steps()) == {
        "side": "Buy",
        "orderType": "Limit",
        "qty": "100",
        "price": "90000.0",
        "timeInForce": "PostOnly",
        "positionIdx": 0,
        "orderLinkId": "grid-b-0001",
        "reduceOnly": False,
    }


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {},
        optional={
            "retCode": st.integers() | st.text(max_size=5) | st.none() | st.booleans(),
            "retMsg": st.none() | st.text(max_size=20),
            "result": st.none() | st.lists(st.integers(), max_size=2),
        },
    ).map(lambda row: json.dumps(row).encode()),
    st.sampled_from([200, 301, 400, 403, 404, 429, 500, 503]),
    st.dictionaries(
        st.sampled_from(
            [
                "X-Bapi-Limit",
                "X-Bapi-Limit-Status",
                "X-Bapi-Limit-Reset-Timestamp",
                "Retry-After",
            ]
        ),
        st.text(max_size=25) | st.integers().map(str) | st.just("²"),
    ),
)
def test_an_answer_proves_nothing_but_by_the_table(body, status, headers):
    try:
        data = json.loads(body)
    except ValueError:
        data = None
    request = Request(method="POST", path="/v5/order/create", costs={"ip": 1, "create": 1})
    answer = Answer(status=status, headers=headers, body=body, data=data, ts_ms=NOW_MS)
    found = BybitDialect(None).classify(request, answer)
    if found.verdict is not Verdict.UNKNOWN:
        assert isinstance(data["retCode"], int)
    assert 0.0 <= found.retry_after_s <= 3 * 86400.0
    for name, used in BybitDialect(None).usage(request, headers):
        assert name == "create"
        assert isinstance(used, int)


def test_what_headers_say():
    headers = {"X-Bapi-Limit": "10", "X-Bapi-Limit-Status": "7"}
    assert used_of(headers) == 3
    assert used_of({"X-Bapi-Limit": "10"}) is None
    stamp = {"X-Bapi-Limit-Reset-Timestamp": str(NOW_MS + 250)}
    assert until_reset_s(stamp, NOW_MS) == 0.25
    assert until_reset_s(stamp, NOW_MS + 300) == 0.0
    assert until_reset_s(stamp, 0) == 60.0
    assert until_reset_s({"X-Bapi-Limit-Reset-Timestamp": "²"}, NOW_MS) == 0.0


class TestAnswers:
    def test_a_refusal_raises_with_its_code(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /v5/account/info"] = raising(Refused(10005, "Permission denied"))
            with pytest.raises(VenueError, match="Permission denied") as e:
                await rest.account_info()
            assert (e.value.code, e.value.reaction) == (10005, Reaction.HALT)
            assert len(venue.calls) == 1

        with_venue(test)

    def test_a_refused_time_stamp_is_tried_again_once_the_clock_was_looked_at(self, with_venue):
        async def test(venue, rest):
            def route(fields):
                if len(venue.named("GET /v5/account/info")) == 1:
                    raise Refused(10002, "invalid request, please check your server timestamp")
                return {"marginMode": "REGULAR_MARGIN"}

            venue.routes["GET /v5/account/info"] = route
            call = rest.account_info()
            assert (await without_pauses(venue.clock, call))["marginMode"] == "REGULAR_MARGIN"

        with_venue(test)

    def test_too_often_waits_for_the_reset_stamp(self, with_venue):
        async def test(venue, rest):
            times = []

            def route(fields):
                times.append(venue.clock.time_ms())
                if len(times) == 1:
                    stamp = {"X-Bapi-Limit-Reset-Timestamp": str(venue.clock.time_ms() + 700)}
                    raise Refused(10006, "Too many visits!", stamp)
                return {"marginMode": "REGULAR_MARGIN"}

            venue.routes["GET /v5/account/info"] = route
            await without_pauses(venue.clock, rest.account_info())
            assert times[1] - times[0] >= 700

        with_venue(test)

    def test_403_bans_everything_for_ten_minutes(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create"] = raising(
                Status(403, b"<html>access too frequent</html>")
            )
            got = await rest.place(ORDER, steps())
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.BACK_OFF)
            assert got.retry_after_s == 600.0
            asked = len(venue.seen)
            with pytest.raises(UnavailableError, match="banned"):
                await rest.account_info()
            assert (await rest.cancel(RESTING)).verdict is Verdict.REJECTED
            assert len(venue.seen) == asked

        with_venue(test)

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b"{", b"[]", b'{"retCode":"0"}', b'{"retCode":true}']
    )
    def test_what_is_no_answer_is_not_believed(self, with_venue, body):
        async def test(venue, rest):
            def route(fields):
                raise Status(200, body)

            venue.routes["POST /v5/order/create"] = route
            venue.routes["GET /v5/order/realtime"] = route
            assert (await rest.place(ORDER, steps())).verdict is Verdict.UNKNOWN
            with pytest.raises(VenueError):
                await without_pauses(venue.clock, rest.open_orders())

        with_venue(test)

    def test_no_secret_is_shown(self, with_venue, caplog):
        caplog.set_level(logging.DEBUG)
        shown = []

        async def test(venue, rest):
            def echoing(fields):
                seen = venue.seen[-1]
                signed = f"{seen.headers['x-bapi-timestamp']}{KEY}5000{seen.body.decode()}"
                sign = seen.headers["x-bapi-sign"]
                raise Refused(10004, f"error sign! {sign} origin_string[{signed}]")

            venue.routes["GET /v5/account/info"] = echoing
            venue.routes["POST /v5/order/create"] = echoing
            venue.routes["GET /v5/order/realtime"] = raising(Drop())
            for call in (rest.account_info, rest.open_orders):
                try:
                    await without_pauses(venue.clock, call())
                except VenueError as e:
                    shown.append("".join(traceback.format_exception(e)))
            shown.append(repr(await rest.place(ORDER, steps())))
            shown.append(repr(rest) + repr(vars(rest)) + repr(vars(rest._http)))
            shown.append(venue.seen[-1].headers["x-bapi-sign"])

        with_venue(test)
        sign = shown.pop()
        text = "\n".join([*shown, caplog.text]).replace("ApiKey(key=cana…)", "")
        assert len(text) > 500
        assert "canary" not in text
        assert sign not in text
        assert "grid-1" not in text


# --- the market and the account -------------------------------------------------------------------


class TestMarket:
    def test_rules(self, with_venue):
        async def test(venue, rest):
            offer(venue)
            rules = await rest.rules()
            market = rules.market
            assert (market.price_step, market.qty_step, market.min_qty) == (0.5, 1.0, 1.0)
            assert (market.min_cost, market.inverse) == (0.0, True)
            assert (market.maker_fee, market.taker_fee) == (0.0002, 0.00055)
            first, second = market.tiers
            assert (first.floor, first.maintenance_rate, first.max_leverage) == (0.0, 0.005, 100.0)
            assert (second.floor, second.maintenance_rate) == (150.0, 0.01)
            assert second.deduction == 0.75
            assert rules.trading
            assert (rules.min_price, rules.max_price) == (0.5, 999999.5)
            assert (rules.max_qty, rules.max_market_qty, rules.max_orders) == (25e6, 5e6, 500)
            assert (rules.band_up, rules.band_down) == (1.04, 0.96)
            assert rules.funding_interval_ms == 8 * 3600 * 1000

        with_venue(test)

    def test_a_halted_symbol_is_not_trading(self, with_venue):
        async def test(venue, rest):
            offer(venue, INSTRUMENT | {"status": "Closed"})
            assert not (await rest.rules()).trading

        with_venue(test)

    @pytest.mark.parametrize(
        ("changed", "field"),
        [
            ({"symbol": "ETHUSD"}, "list"),
            ({"contractType": "InverseFutures"}, "contractType"),
            ({"priceFilter": {"minPrice": "1", "maxPrice": "2", "tickSize": ""}}, "tickSize"),
            ({"lotSizeFilter": None}, "lotSizeFilter"),
            ({"leverageFilter": {"maxLeverage": "NaN"}}, "maxLeverage"),
            ({"fundingInterval": None}, "fundingInterval"),
            # A linear contract has a least notional.
            ({"contractType": "LinearPerpetual"}, "minNotionalValue"),
        ],
    )
    def test_rules_that_are_not_told_are_not_made_up(self, with_venue, changed, field):
        async def test(venue, rest):
            offer(venue, INSTRUMENT | changed)
            with pytest.raises(BadReplyError, match=field):
                await rest.rules()

        with_venue(test)

    def test_fees_of_another_symbol_are_not_ours(self, with_venue):
        async def test(venue, rest):
            offer(venue)
            venue.routes["GET /v5/account/fee-rate"] = lambda f: {"list": []}
            with pytest.raises(BadReplyError, match="one row"):
                await rest.rules()

        with_venue(test)

    def test_mark_and_index(self, with_venue):
        row = {
            "symbol": "BTCUSD",
            "markPrice": "90010.25",
            "indexPrice": "90000",
            "fundingRate": "-0.0001",
            "nextFundingTime": "1767254400000",
        }

        async def test(venue, rest):
            venue.routes["GET /v5/market/tickers"] = lambda f: {"list": [row]}
            assert await rest.mark() == MarkPrice(
                mark_price=90010.25,
                funding_rate=-0.0001,
                next_funding_ms=1767254400000,
                ts_ms=NOW_MS,
            )
            assert await rest.index_price() == 90000.0
            row["fundingRate"] = ""
            with pytest.raises(BadReplyError, match="fundingRate"):
                await rest.mark()

        with_venue(test)

    def test_recent_trades_come_oldest_first(self, with_venue):
        def row(i, ms):
            return {
                "symbol": "BTCUSD",
                "execId": str(i),
                "price": "90000",
                "size": "7",
                "side": "Sell",
                "time": str(ms),
            }

        async def test(venue, rest):
            # Newest first; of equal times the later one stands first.
            rows = [row(3, 20), row(2, 10), row(1, 10)]
            venue.routes["GET /v5/market/recent-trade"] = lambda f: {"list": rows}
            got = await rest.recent_trades(5000)
            assert [trade.trade_id for trade in got] == ["1", "2", "3"]
            assert all(trade.buyer_maker for trade in got)
            assert venue.calls[-1][1]["limit"] == "1000"

        with_venue(test)


class TestAccount:
    def test_the_position(self, with_venue):
        async def test(venue, rest):
            rows = [position_row(symbol="ETHUSD"), position_row(side="Sell", size="300")]
            venue.routes["GET /v5/position/list"] = lambda f: {"list": rows}
            assert (await rest.position())["size"] == "300"

        with_venue(test)

    def test_hedge_mode_is_named(self, with_venue):
        async def test(venue, rest):
            rows = [position_row(positionIdx=1), position_row(positionIdx=2)]
            venue.routes["GET /v5/position/list"] = lambda f: {"list": rows}
            with pytest.raises(VenueError, match="hedge mode; close its positions"):
                await rest.position()

        with_venue(test)

    def test_no_row_is_not_flat(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /v5/position/list"] = lambda f: {"list": []}
            with pytest.raises(BadReplyError, match="one row"):
                await rest.position()

        with_venue(test)


# --- orders ---------------------------------------------------------------------------------------


class TestRights:
    ROUTE = "GET /v5/user/query-api"

    @pytest.mark.parametrize(
        ("changes", "wanted"),
        [
            ({}, (True, False, False)),
            ({"readOnly": 1}, (False, False, True)),
            ({"Wallet": ["AccountTransfer", "Withdraw"]}, (True, True, False)),
            ({"ContractTrade": ["Order"], "Derivatives": []}, (False, False, False)),
            ({"ContractTrade": []}, (True, False, False)),
        ],
    )
    def test_what_the_key_may_do(self, with_venue, changes, wanted):
        async def test(venue, rest):
            granted = {
                "ContractTrade": ["Order", "Position"],
                "Derivatives": ["DerivativesTrade"],
                "Wallet": ["AccountTransfer"],
            }
            row = {"readOnly": changes.get("readOnly", 0), "ips": ["*"]}
            granted |= {name: value for name, value in changes.items() if name in granted}
            venue.routes[self.ROUTE] = lambda f: row | {"permissions": granted}
            rights = await rest.rights()
            assert (rights.can_trade, rights.can_withdraw, rights.read_only) == wanted
            assert rights.detail == "usable from any address"

        with_venue(test)

    @pytest.mark.parametrize(
        "row",
        [{}, {"readOnly": 0, "ips": []}, {"readOnly": 0, "permissions": {"Wallet": "Withdraw"}}],
    )
    def test_what_is_not_told_is_not_made_up(self, with_venue, row):
        async def test(venue, rest):
            venue.routes[self.ROUTE] = lambda f: row
            with pytest.raises(BadReplyError):
                await rest.rights()

        with_venue(test)


class TestOpenOrders:
    def test_pages_are_put_together(self, with_venue):
        async def test(venue, rest):
            rows = [order_row(orderId=f"id-{i}", orderLinkId=f"g-{i}") for i in range(5)]
            venue.routes["GET /v5/order/realtime"] = pages(rows[:2], rows[2:4], rows[4:])
            got = await rest.open_orders()
            assert [order.client_id for order in got] == [f"g-{i}" for i in range(5)]
            asked = venue.named("GET /v5/order/realtime")
            # A cursor is encoded text already; as a value it comes back as it was.
            assert [f.get("cursor") for f in asked] == [None, "page%3A1%2C&=", "page%3A2%2C&="]
            assert "cursor=page%253A1%252C%26%3D" in venue.seen[-2].target
            assert all(f["symbol"] == "BTCUSD" and f["openOnly"] == "0" for f in asked)

        with_venue(test)

    def test_what_ended_while_it_was_read_is_not_open(self, with_venue):
        async def test(venue, rest):
            live, foreign = order_row(orderId="b"), order_row(orderId="c", symbol="ETHUSD")
            ended = order_row(orderStatus="Filled", cumExecQty="100")
            venue.routes["GET /v5/order/realtime"] = pages([order_row(), foreign], [ended, live])
            assert [order.order_id for order in await rest.open_orders()] == ["b"]

        with_venue(test)

    def test_a_cursor_that_repeats(self, with_venue):
        async def test(venue, rest):
            rows = [order_row(orderId=f"id-{i}") for i in range(3)]
            route = pages(*([row] for row in rows), cursors=["x", "y"])
            venue.routes["GET /v5/order/realtime"] = lambda f: route(f) | {"nextPageCursor": "x"}
            with pytest.raises(BadReplyError, match="nextPageCursor"):
                await rest.open_orders()

        with_venue(test)

    def test_a_page_that_repeats(self, with_venue):
        async def test(venue, rest):
            route = pages([order_row()], [order_row()], [])
            venue.routes["GET /v5/order/realtime"] = route
            with pytest.raises(BadReplyError, match="a page repeats"):
                await rest.open_orders()

        with_venue(test)

    def test_a_page_that_is_missing(self, with_venue):
        async def test(venue, rest):
            first = pages([order_row()], [])

            def route(fields):
                return {"nextPageCursor": ""} if "cursor" in fields else first(fields)

            venue.routes["GET /v5/order/realtime"] = route
            with pytest.raises(BadReplyError, match="list"):
                await rest.open_orders()

        with_venue(test)

    def test_a_row_that_cannot_be_read_is_not_left_out(self, with_venue):
        async def test(venue, rest):
            rows = [order_row(), order_row(orderId="b", cumExecQty="")]
            venue.routes["GET /v5/order/realtime"] = pages(rows)
            with pytest.raises(BadReplyError, match="cumExecQty"):
                await rest.open_orders()

        with_venue(test)

    def test_pages_without_end(self, with_venue, monkeypatch):
        monkeypatch.setattr("passivx.exchanges.bybit.rest._MOST_PAGES", 3)

        async def test(venue, rest):
            def route(fields):
                n = int(fields.get("cursor", 0)) + 1
                return {"list": [order_row(orderId=str(n))], "nextPageCursor": str(n)}

            venue.routes["GET /v5/order/realtime"] = route
            with pytest.raises(BadReplyError, match="no end"):
                await rest.open_orders()

        with_venue(test)


class TestFind:
    def test_where_live_ones_are(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /v5/order/realtime"] = lambda f: {"list": [order_row()]}
            got = await rest.find("grid-1")
            assert (got.order_id, got.status) == ("id-77", OrderStatus.NEW)
            assert venue.calls[-1][1]["orderLinkId"] == "grid-1"
            assert len(venue.calls) == 1

        with_venue(test)

    def test_then_in_the_history(self, with_venue):
        async def test(venue, rest):
            ended = order_row(orderStatus="Cancelled", cancelType="CancelByUser")
            venue.routes["GET /v5/order/realtime"] = lambda f: {"list": []}
            venue.routes["GET /v5/order/history"] = lambda f: {"list": [ended]}
            got = await rest.find("grid-1")
            assert (got.status, got.reason) == (OrderStatus.CANCELED, "")

        with_venue(test)

    def test_only_both_together_prove_that_there_is_none(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /v5/order/realtime"] = lambda f: {"list": []}
            venue.routes["GET /v5/order/history"] = lambda f: {"list": []}
            assert await rest.find("grid-1") is None

            venue.routes["GET /v5/order/history"] = raising(Drop())
            with pytest.raises(UnavailableError):
                await without_pauses(venue.clock, rest.find("grid-1"))

        with_venue(test)

    @pytest.mark.parametrize("changed", [{"orderLinkId": "g-2"}, {"symbol": "ETHUSD"}])
    def test_an_answer_about_another_order_is_not_not_found(self, with_venue, changed):
        async def test(venue, rest):
            venue.routes["GET /v5/order/realtime"] = lambda f: {"list": [order_row(**changed)]}
            with pytest.raises(BadReplyError, match="other orders"):
                await rest.find("grid-1")

        with_venue(test)

    def test_a_split_order_counts_by_what_is_final(self, with_venue):
        async def test(venue, rest):
            rows = [order_row(), order_row(orderStatus="Filled", cumExecQty="100")]
            venue.routes["GET /v5/order/realtime"] = lambda f: {"list": rows}
            assert (await rest.find("grid-1")).filled_qty == 100.0

        with_venue(test)


class TestSending:
    def test_an_order_is_accepted(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create"] = lambda f: {
                "orderId": "id-1",
                "orderLinkId": f["orderLinkId"],
            }
            got = await rest.place(ORDER, steps())
            assert (got.verdict, got.code) == (Verdict.OK, 0)
            assert (got.order.order_id, got.order.client_id) == ("id-1", "grid-1")
            assert (got.order.price, got.order.qty, got.order.filled_qty) == (90000.5, 100.0, 0.0)
            assert got.order.status is OrderStatus.NEW
            assert got.order.ts_ms == NOW_MS
            assert venue.calls[-1][1] == {
                "category": "inverse",
                "symbol": "BTCUSD",
                **wire.order_fields(ORDER, steps()),
            }

        with_venue(test)

    @pytest.mark.parametrize(
        "result", [{}, None, [], {"orderId": None}, {"orderId": "x", "orderLinkId": "other"}]
    )
    def test_an_acceptance_that_says_nothing_is_unknown(self, with_venue, result):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create"] = lambda f: result
            got = await rest.place(ORDER, steps())
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert got.order is None

        with_venue(test)

    @pytest.mark.parametrize(
        ("code", "verdict", "reaction"),
        [
            (10000, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (110072, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (987654, Verdict.UNKNOWN, Reaction.LOOK_UP),
            (110007, Verdict.REJECTED, Reaction.DROP),
            (110003, Verdict.REJECTED, Reaction.REPRICE),
            (110017, Verdict.REJECTED, Reaction.DROP),
            (33004, Verdict.REJECTED, Reaction.HALT),
        ],
    )
    def test_refusals(self, with_venue, code, verdict, reaction):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create"] = raising(Refused(code, "because"))
            got = await rest.place(ORDER, steps())
            assert (got.verdict, got.reaction, got.code) == (verdict, reaction, code)
            assert got.text == "because"

        with_venue(test)

    def test_a_cut_after_sending_is_unknown_and_sent_once(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create"] = raising(Drop())
            got = await rest.place(ORDER, steps())
            assert got.verdict is Verdict.UNKNOWN
            assert len(venue.named("POST /v5/order/create")) == 1

        with_venue(test)

    def test_two_of_five_fail(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f, 0, 110007, 0, 10006, 0)
            got = await rest.place_batch(orders(5), steps())
            ok, no = Verdict.OK, Verdict.REJECTED
            assert [o.verdict for o in got] == [ok, no, ok, no, ok]
            assert [o.code for o in got] == [0, 110007, 0, 10006, 0]
            ids = [o.order and o.order.order_id for o in got]
            assert ids == ["id-0", None, "id-2", None, "id-4"]
            assert (got[3].reaction, got[3].retry_after_s) == (Reaction.BACK_OFF, 1.0)
            (fields,) = venue.named("POST /v5/order/create-batch")
            assert fields["category"] == "inverse"
            assert [row["orderLinkId"] for row in fields["request"]] == [f"g-{i}" for i in range(5)]
            assert all(row["symbol"] == "BTCUSD" for row in fields["request"])

        with_venue(test)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda a: a | {"list": a["list"][:1]},
            lambda a: a | {"judged": a["judged"][:1]},
            lambda a: a | {"judged": [{"msg": "OK"}, {"code": 0.5, "msg": "OK"}]},
            lambda a: a | {"list": None},
            lambda a: a | {"list": list(reversed(a["list"]))},
        ],
    )
    def test_a_batch_that_does_not_add_up_is_unknown(self, with_venue, spoil):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create-batch"] = lambda f: spoil(batch(f))
            got = await rest.place_batch(orders(2), steps())
            assert [o.verdict for o in got] == [Verdict.UNKNOWN] * 2

        with_venue(test)

    def test_what_an_element_asks_for_holds_for_its_kind(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f, 10006)
            got = await rest.place_batch(orders(2), steps())
            assert got[0].reaction is Reaction.BACK_OFF
            assert got[0].retry_after_s >= 1.0
            budget = rest._http._budget
            assert budget.delay_s({"create_batch": 1}, urgent=True) > 0.0
            assert budget.delay_s({"cancel_batch": 1}) == 0.0

        with_venue(test)

    def test_a_batch_that_is_refused_whole(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/create-batch"] = raising(
                Refused(10016, "restarting", list=[], judged=[])
            )
            got = await rest.place_batch(orders(3), steps())
            assert [o.verdict for o in got] == [Verdict.UNKNOWN] * 3

        with_venue(test)

    @pytest.mark.parametrize("n", [0, 11])
    def test_the_size_of_a_batch(self, with_venue, n):
        async def test(venue, rest):
            with pytest.raises(ValueError, match="1 to 10"):
                await rest.place_batch(orders(n), steps())
            with pytest.raises(ValueError, match="1 to 10"):
                await rest.cancel_batch([RESTING] * n)

        with_venue(test)

    def test_cancels(self, with_venue):
        nameless = dataclasses.replace(RESTING, order_id="")

        async def test(venue, rest):
            venue.routes["POST /v5/order/cancel"] = lambda f: {"orderId": "id-77"}
            assert (await rest.cancel(RESTING)).verdict is Verdict.OK
            assert (await rest.cancel(nameless)).verdict is Verdict.OK
            first, second = venue.named("POST /v5/order/cancel")
            assert first == {"category": "inverse", "symbol": "BTCUSD", "orderId": "id-77"}
            assert second == {"category": "inverse", "symbol": "BTCUSD", "orderLinkId": "grid-1"}
            venue.routes["POST /v5/order/cancel-batch"] = lambda f: batch(f, 0, 110001)
            got = await rest.cancel_batch([RESTING, nameless])
            assert [o.reaction for o in got] == [Reaction.NONE, Reaction.GONE]

        with_venue(test)

    def test_amendments(self, with_venue):
        async def test(venue, rest):
            venue.routes["POST /v5/order/amend"] = lambda f: {"orderId": "id-77"}
            change = wire.amend_fields(RESTING, steps(), price=89999.5, qty=200.0)
            assert (await rest.amend(RESTING, change)).verdict is Verdict.OK
            (fields,) = venue.named("POST /v5/order/amend")
            assert (fields["orderId"], fields["price"], fields["qty"]) == (
                "id-77",
                "89999.5",
                "200",
            )

            def same(fields):
                text = (
                    "The order remains unchanged as the parameters entered match the existing ones."
                )
                raise Refused(10001, text)

            venue.routes["POST /v5/order/amend"] = same
            got = await rest.amend(RESTING, change)
            assert (got.verdict, got.reaction) == (Verdict.OK, Reaction.ALREADY_SO)

        with_venue(test)

    def test_counts_of_the_venue_hold_orders_back(self, with_venue):
        async def test(venue, rest):
            budget = rest._http._budget
            venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f)
            await rest.place_batch(orders(2), steps())
            assert budget.used("create_batch") == 2
            limits = {"X-Bapi-Limit": "10", "X-Bapi-Limit-Status": "1"}

            venue.routes["POST /v5/order/create"] = raising(Refused(110007, "no", limits))
            await rest.place(ORDER, steps())
            assert budget.used("create") == 9
            held = await rest.place(ORDER, steps())
            assert (held.verdict, held.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert held.retry_after_s > 0.0
            assert len(venue.named("POST /v5/order/create")) == 1
            urgent = dataclasses.replace(ORDER, reduce_only=True)
            assert (await rest.place(urgent, steps())).code == 110007

        with_venue(test)


# --- history --------------------------------------------------------------------------------------


class TestHistory:
    def test_fills_by_weeks_and_pages(self, with_venue):
        since = NOW_MS - 10 * DAY_MS

        async def test(venue, rest):
            old, new, twice, paid = (
                fill_row(execId="a", execTime=str(since + 1)),
                fill_row(execId="c", execTime=str(NOW_MS - 5)),
                fill_row(execId="b", execTime=str(NOW_MS - 9)),
                fill_row(execId="f", execType="Funding"),
            )

            def route(fields):
                if int(fields["startTime"]) == since:
                    return {"list": [old], "nextPageCursor": ""}
                return newest(fields)

            newest = pages([new, paid, twice], [twice, fill_row(execId="x", symbol="ETHUSD")])
            venue.routes["GET /v5/execution/list"] = route
            got = await rest.fills(since)
            assert [fill.trade_id for fill in got] == ["a", "b", "c"]
            spans = [
                (int(f["startTime"]), int(f["endTime"]))
                for f in venue.named("GET /v5/execution/list")
            ]
            assert spans[0] == (since, since + 7 * DAY_MS - 1)
            assert spans[1][0] == since + 7 * DAY_MS
            assert spans[1] == spans[2]
            assert NOW_MS <= spans[1][1] <= NOW_MS + 2000

        with_venue(test)

    def test_payments(self, with_venue):
        async def test(venue, rest):
            rows = [fill_row(execType="Funding", execFee="0.5"), fill_row(execId="e-2")]
            venue.routes["GET /v5/execution/list"] = lambda f: {"list": rows}
            got = await rest.payments(NOW_MS - 1000)
            assert got == [Payment(id="e-1", ts_ms=NOW_MS, amount=-0.5)]
            assert venue.calls[-1][1]["execType"] == "Funding"

        with_venue(test)

    def test_nothing_happened(self, with_venue):
        async def test(venue, rest):
            venue.routes["GET /v5/execution/list"] = lambda f: {"list": [], "nextPageCursor": ""}
            assert await rest.fills(NOW_MS - 1000) == []

        with_venue(test)

    def test_further_back_than_the_venue_remembers(self, with_venue):
        async def test(venue, rest):
            with pytest.raises(VenueError, match="2 years"):
                await rest.fills(0)
            assert venue.calls == []

        with_venue(test)

    def test_an_execution_of_an_unknown_kind_is_not_left_out(self, with_venue):
        async def test(venue, rest):
            rows = [fill_row(), fill_row(execId="e-2", execType="Surprise")]
            venue.routes["GET /v5/execution/list"] = lambda f: {"list": rows}
            with pytest.raises(BadReplyError, match="execType"):
                await rest.fills(NOW_MS - 1000)

        with_venue(test)

    @pytest.mark.parametrize(
        ("type", "created", "kind"),
        [
            ("Trade", "CreateByUser", FillKind.TRADE),
            ("BustTrade", "CreateByTakeOver_PassThrough", FillKind.LIQUIDATION),
            ("Trade", "CreateByLiq", FillKind.LIQUIDATION),
            ("AdlTrade", "CreateByAdl_PassThrough", FillKind.ADL),
            ("Trade", "CreateByAdl_PassThrough", FillKind.ADL),
            ("Settle", "CreateBySettle", FillKind.SETTLEMENT),
        ],
    )
    def test_whose_doing_a_fill_was(self, type, created, kind):
        assert wire.fill_of(fill_row(execType=type, createType=created)).kind is kind
