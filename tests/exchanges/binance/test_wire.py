"""Binance's messages, documented and recorded, against values read off by hand."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    FillKind,
    MarkPrice,
    NewOrder,
    OrderStatus,
    Payment,
    PublicTrade,
    Reaction,
    Verdict,
)
from passivx.exchanges.binance import wire
from passivx.exchanges.http import Reply
from passivx.models import Position
from tests.exchanges.binance.venue import NOW_MS, STEPS

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def rest(shared: Path) -> dict:
    held = json.loads((shared / "vectors" / "binance_rest_messages.json").read_text())
    return {name: entry["message"] for name, entry in held.items() if "message" in entry}


@pytest.fixture(scope="module")
def streams(shared: Path) -> dict:
    held = json.loads((shared / "vectors" / "binance_ws_messages.json").read_text())
    return {
        name: entry.get("message", entry.get("example")) if isinstance(entry, dict) else entry
        for name, entry in held.items()
    }


@pytest.fixture(scope="module")
def vectors(shared: Path) -> dict:
    return json.loads((shared / "vectors" / "binance_ws_messages.json").read_text())


class TestOrders:
    @pytest.mark.parametrize(
        "name",
        ["new_order", "modify_order", "cancel_order", "query_order", "query_current_open_order"],
    )
    def test_every_documented_answer_is_an_order(self, rest, name):
        row = rest[name]
        got = wire.order_of(row)
        assert got.client_id == row["clientOrderId"]
        assert got.order_id == str(row["orderId"])
        assert got.side == (1 if row["side"] == "BUY" else -1)
        assert (got.price, got.qty) == (float(row["price"]), float(row["origQty"]))
        assert (got.filled_qty, got.ts_ms) == (0.0, row["updateTime"])

    def test_open_orders(self, rest):
        (got,) = map(wire.order_of, rest["current_all_open_orders"])
        assert (got.client_id, got.side, got.qty, got.status) == ("abc", 1, 0.4, OrderStatus.NEW)

    @pytest.mark.parametrize("name", ["new_order", "modify_order", "cancel_order", "query_order"])
    def test_the_order_socket_tells_orders_the_same_way(self, streams, name):
        message = streams[f"ws-api/{name}"]
        got = wire.placed(Reply(Verdict.OK, data=message["result"]))
        assert got.verdict is Verdict.OK
        assert got.order is not None
        assert got.order.client_id == message["result"]["clientOrderId"]

    def test_a_cancelled_one(self, rest):
        got = wire.order_of(rest["cancel_order"])
        assert got.status is OrderStatus.CANCELED
        assert got.reason == ""

    @pytest.mark.parametrize(
        ("changed", "status", "reason"),
        [
            ({"status": "EXPIRED_IN_MATCH"}, OrderStatus.EXPIRED, "self_trade"),
            ({"status": "EXPIRED", "timeInForce": "GTX"}, OrderStatus.EXPIRED, "post_only"),
            ({"status": "EXPIRED", "timeInForce": "IOC"}, OrderStatus.EXPIRED, ""),
            ({"status": "REJECTED"}, OrderStatus.REJECTED, ""),
            ({"status": "FILLED"}, OrderStatus.FILLED, ""),
        ],
    )
    def test_how_it_ended(self, rest, changed, status, reason):
        got = wire.order_of(rest["query_order"] | changed)
        assert (got.status, got.reason) == (status, reason)
        assert got.status.final

    def test_a_status_that_is_not_known_is_an_error(self, rest):
        with pytest.raises(BadReplyError, match="status"):
            wire.order_of(rest["query_order"] | {"status": "PAUSED"})

    @pytest.mark.parametrize(
        "key", ["clientOrderId", "orderId", "side", "origQty", "executedQty", "status", "price"]
    )
    def test_nothing_is_made_up(self, rest, key):
        row = dict(rest["query_order"])
        del row[key]
        with pytest.raises(BadReplyError, match=key):
            wire.order_of(row)

    def test_another_orders_answer_leaves_the_outcome_open(self, rest):
        got = wire.placed(Reply(Verdict.OK, data=rest["new_order"]), "grid-1")
        assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)


class TestOrderEvents:
    def test_a_new_order(self, streams):
        event = streams["private/ORDER_TRADE_UPDATE"]
        got = wire.order_event(event)
        assert (got.client_id, got.order_id, got.side) == ("TEST", "8886774", -1)
        assert (got.qty, got.filled_qty, got.status) == (0.001, 0.0, OrderStatus.NEW)
        assert got.ts_ms == 1568879465650
        assert wire.fill_event(event) is None

    def test_a_self_trade_expires_it(self, streams):
        got = wire.order_event(streams["private/ORDER_TRADE_UPDATE_stp_expired"])
        assert (got.status, got.reason) == (OrderStatus.EXPIRED, "self_trade")

    @pytest.mark.parametrize(
        ("er", "reason"),
        [
            ("1", "self_trade"),
            ("4", "reduce_only"),
            (5, "liquidation"),
            ("7", "delisting"),
            ("77", "er 77"),
        ],
    )
    def test_expiry_reasons(self, streams, er, reason):
        event = streams["private/ORDER_TRADE_UPDATE"]
        got = wire.order_event(event | {"o": event["o"] | {"X": "EXPIRED", "er": er}})
        assert got.reason == reason

    def test_a_fill(self, streams):
        event = streams["private/nautilus_order_update_trade"]
        got = wire.fill_event(event)
        assert got is not None
        assert (got.trade_id, got.order_id, got.client_id) == ("12345678", "8886774", "TEST")
        assert (got.side, got.price, got.qty) == (1, 7100.5, 0.001)
        assert (got.fee, got.fee_currency, got.pnl) == (-0.01, "USDT", 12.34)
        assert (got.maker, got.kind) == (True, FillKind.TRADE)

    @pytest.mark.parametrize(
        ("name", "kind", "status"),
        [
            ("adl", FillKind.ADL, OrderStatus.FILLED),
            ("calculated", FillKind.LIQUIDATION, OrderStatus.FILLED),
            ("insurance", FillKind.LIQUIDATION, OrderStatus.FILLED),
            ("settlement", FillKind.SETTLEMENT, OrderStatus.FILLED),
        ],
    )
    def test_whose_doing_it_was(self, streams, name, kind, status):
        event = streams[f"private/nautilus_order_update_{name}"]
        fill = wire.fill_event(event)
        assert fill is not None
        assert fill.kind is kind
        assert not fill.maker
        assert wire.order_event(event).status is status

    def test_a_liquidation_that_has_not_filled_yet(self, streams):
        event = streams["private/nautilus_order_update_calculated_pending"]
        assert wire.fill_event(event) is None
        assert wire.order_event(event).status is OrderStatus.NEW

    def test_a_fill_without_an_id_is_not_taken(self, streams):
        event = streams["private/nautilus_order_update_trade"]
        with pytest.raises(BadReplyError, match="t: is 0"):
            wire.fill_event(event | {"o": event["o"] | {"t": 0}})

    @pytest.mark.parametrize("key", ["n", "N", "L", "rp", "m"])
    def test_a_fill_without_its_money_is_not_taken(self, streams, key):
        event = streams["private/nautilus_order_update_trade"]
        row = dict(event["o"])
        del row[key]
        with pytest.raises(BadReplyError, match=f"^{key}:"):
            wire.fill_event(event | {"o": row})


class TestAccount:
    def test_a_row_of_fills(self, rest):
        (got,) = map(wire.fill_of, rest["account_trade_list"])
        assert (got.trade_id, got.order_id, got.client_id) == ("698759", "25851813", "")
        assert (got.side, got.price, got.qty) == (-1, 7819.01, 0.002)
        assert (got.fee, got.pnl, got.maker) == (-0.0781901, -0.91539999, False)

    def test_a_payment(self, rest):
        (got,) = map(wire.payment_of, rest["get_income_history"])
        assert got == Payment(id="9689322392", ts_ms=1570608000000, amount=-0.375)

    def test_a_position(self, rest):
        rows = rest["position_information_v3"]
        assert wire.position_of(rows, "ADAUSDT") == Position(30.0, 0.385, 0.0)
        assert wire.position_of(rows, "BTCUSDT") == Position()
        assert wire.position_of([], "BTCUSDT") == Position()

    def test_a_hedge_mode_position_is_refused(self, rest):
        rows = [rest["position_information_v3"][0] | {"positionSide": "LONG"}]
        with pytest.raises(VenueError, match="one-way"):
            wire.position_of(rows, "ADAUSDT")

    def test_empty_hedge_mode_rows_are_flat(self, rest):
        row = rest["position_information_v3"][0]
        rows = [row | {"positionSide": side, "positionAmt": "0.0"} for side in ("LONG", "SHORT")]
        assert wire.position_of(rows, "ADAUSDT") == Position()

    def test_the_wallet(self, rest):
        got = wire.wallet_of(rest["futures_account_balance_v3"], "USDT")
        assert got == (122607.35137903, 23.72469206, "USDT")

    def test_a_wallet_in_credits(self, rest):
        row = rest["futures_account_balance_v3"][0]
        credits = row | {"asset": "BNFCR"}
        assert wire.wallet_of([credits], "USDT")[2] == "BNFCR"
        assert wire.wallet_of([row | {"balance": "0.0"}, credits], "USDT")[2] == "BNFCR"
        assert wire.wallet_of([row, credits], "USDT")[2] == "USDT"

    def test_no_wallet_is_an_error(self, rest):
        with pytest.raises(BadReplyError, match="USDC"):
            wire.wallet_of(rest["futures_account_balance_v3"], "USDC")

    def test_an_account_update(self, streams):
        account = streams["private/ACCOUNT_UPDATE"]["a"]
        assert wire.wallet_event(account, "USDT") == 122624.12345678
        assert wire.wallet_event(account, "BNB") is None
        with pytest.raises(BadReplyError, match="one-way"):
            wire.position_event(account, "BTCUSDT")
        one_way = account | {"P": account["P"][:1]}
        assert wire.position_event(one_way, "BTCUSDT") == Position()
        assert wire.position_event(one_way, "ETHUSDT") is None
        held = account | {"P": [account["P"][2] | {"ps": "BOTH"}]}
        got = wire.position_event(held, "BTCUSDT")
        assert got is not None
        assert (got.size, got.entry_price) == (-10.0, 6563.86)
        assert math.isnan(got.liq_price)

    def test_an_account_update_in_credits(self, streams):
        account = streams["private/nautilus_account_update_bnfcr"]["a"]
        assert wire.wallet_event(account, "BNFCR") == 5001.28983031
        assert wire.position_event(account, "BTCUSDT") is None

    def test_modes(self, rest):
        got = wire.account_modes(rest["futures_account_configuration"])
        assert (got.can_trade, got.one_way, got.multi_assets) == (True, False, False)
        assert wire.symbol_modes(rest["symbol_configuration"], "BTCUSDT") == (21.0, True)
        with pytest.raises(BadReplyError, match="ETHUSDT"):
            wire.symbol_modes(rest["symbol_configuration"], "ETHUSDT")


def split(row):
    """Take apart the documented filter, which shows the keys of all kinds at once."""
    merged = row["filters"][0]
    kinds = {
        "PRICE_FILTER": ("minPrice", "maxPrice", "tickSize"),
        "LOT_SIZE": ("minQty", "maxQty", "stepSize"),
        "MARKET_LOT_SIZE": ("minQty", "maxQty", "stepSize"),
        "MAX_NUM_ORDERS": ("limit",),
        "MIN_NOTIONAL": ("notional",),
        "PERCENT_PRICE": ("multiplierUp", "multiplierDown", "multiplierDecimal"),
    }
    filters = [
        {"filterType": kind} | {key: merged[key] for key in keys} for kind, keys in kinds.items()
    ]
    return row | {"filters": filters}


BRACKETS = [
    {
        "symbol": "BLZUSDT",
        "brackets": [
            {
                "bracket": 2,
                "initialLeverage": 50,
                "notionalCap": 50000,
                "notionalFloor": 10000,
                "maintMarginRatio": 0.01,
                "cum": 35.0,
            },
            {
                "bracket": 1,
                "initialLeverage": 75,
                "notionalCap": 10000,
                "notionalFloor": 0,
                "maintMarginRatio": 0.0065,
                "cum": 0.0,
            },
        ],
    }
]


class TestRules:
    @pytest.fixture
    def entry(self, rest):
        return split(rest["exchange_information"]["symbols"][0])

    @pytest.fixture
    def fees(self, rest):
        return rest["user_commission_rate"]

    def test_steps_come_from_the_filters(self, rest, entry, fees):
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        funding = rest["get_funding_rate_info"]
        got = wire.rules_of(entry, tiers, fees, funding)
        market = got.market
        assert (market.price_step, market.qty_step) == (0.0001, 1.0)
        assert (market.min_qty, market.min_cost, market.inverse) == (1.0, 5.0, False)
        assert (market.maker_fee, market.taker_fee) == (0.0002, 0.0004)
        assert (market.max_leverage, market.liquidation_fee) == (75.0, 0.01)
        assert (got.min_price, got.max_price) == (0.0001, 300.0)
        assert (got.max_qty, got.max_market_qty, got.max_orders) == (1e7, 1e7, 200)
        assert (got.band_up, got.band_down) == (1.15, 0.85)
        assert got.trading
        assert got.funding_interval_ms == 8 * 3_600_000
        assert [tier.floor for tier in market.tiers] == [0.0, 10000.0]
        assert market.tiers[1].deduction == 35.0

    def test_a_bracket_may_come_as_one_object(self):
        assert wire.tiers_of(BRACKETS[0], "BLZUSDT") == wire.tiers_of(BRACKETS, "BLZUSDT")

    def test_documented_brackets_hold_none(self, rest):
        with pytest.raises(BadReplyError, match="brackets"):
            wire.tiers_of(rest["notional_and_leverage_brackets"], "ETHUSDT")

    def test_unusual_funding(self, entry, fees):
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        funding = [{"symbol": "BLZUSDT", "fundingIntervalHours": 4}]
        assert wire.rules_of(entry, tiers, fees, funding).funding_interval_ms == 4 * 3_600_000
        assert wire.rules_of(entry, tiers, fees, []).funding_interval_ms == 8 * 3_600_000

    def test_a_bound_of_0_is_none(self, entry, fees):
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        entry["filters"][0] |= {"minPrice": "0", "maxPrice": "0"}
        got = wire.rules_of(entry, tiers, fees, [])
        assert (got.min_price, got.max_price) == (0.0, math.inf)

    @pytest.mark.parametrize("index", range(6))
    def test_no_filter_is_made_up(self, entry, fees, index):
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        kind = entry["filters"].pop(index)["filterType"]
        with pytest.raises(BadReplyError, match=kind):
            wire.rules_of(entry, tiers, fees, [])

    def test_a_settling_market_does_not_trade(self, entry, fees):
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        assert not wire.rules_of(entry | {"status": "SETTLING"}, tiers, fees, []).trading

    def test_the_symbols_entry(self, rest):
        info = rest["exchange_information"]
        assert wire.symbol_info(info, "BLZUSDT")["marginAsset"] == "USDT"
        with pytest.raises(VenueError, match="not listed"):
            wire.symbol_info(info, "BTCUSDT")
        row = info["symbols"][0] | {"contractType": "CURRENT_QUARTER"}
        with pytest.raises(VenueError, match="perpetual"):
            wire.symbol_info(info | {"symbols": [row]}, "BLZUSDT")

    def test_rate_limits(self, rest):
        info = rest["exchange_information"]
        (got,) = wire.windows_of(info)
        assert (got.name, got.limit, got.interval_ms) == ("weight", 2400, 60_000)
        orders = rest["query_user_rate_limit"]
        (got,) = wire.windows_of({"rateLimits": orders})
        assert (got.name, got.limit, got.interval_ms) == ("orders_10s", 10000, 10_000)
        assert wire.windows_of({"rateLimits": [orders[0] | {"interval": "DAY"}]}) == []


class TestMarket:
    def test_mark(self, rest, streams):
        assert wire.mark_of(rest["mark_price"]) == MarkPrice(
            mark_price=11793.63104562,
            funding_rate=0.00038246,
            next_funding_ms=1597392000000,
            ts_ms=1597370495002,
        )
        assert wire.mark_event(streams["market/mark_price_stream"]) == MarkPrice(
            mark_price=11794.15,
            funding_rate=0.00038167,
            next_funding_ms=1562306400000,
            ts_ms=1562305380000,
        )

    def test_aggregate_trades(self, rest, streams):
        (got,) = map(wire.aggregate_of, rest["compressed_aggregate_trades_list"])
        assert got == PublicTrade(
            trade_id="26129",
            price=0.01633102,
            qty=4.70443515,
            ts_ms=1498793709153,
            buyer_maker=True,
        )
        got = wire.aggregate_of(streams["market/aggregate_trade_streams"])
        assert (got.trade_id, got.price, got.qty) == ("5933014", 0.001, 100.0)

    def test_best_prices(self, streams):
        got = wire.book_ticker(streams["public/individual_symbol_book_ticker_streams"])
        assert got == (400900217, 25.3519, 31.21, 25.3652, 40.66, 1568014460891)

    @pytest.mark.parametrize("changed", [{"b": "0"}, {"a": ""}, {"b": "25.3652"}, {"T": None}])
    def test_a_quote_without_prices_is_refused(self, streams, changed):
        row = streams["public/individual_symbol_book_ticker_streams"]
        with pytest.raises(BadReplyError):
            wire.book_ticker(row | changed)

    def test_recorded_frames_of_the_sheet(self, vectors):
        seen = set()
        for entry in vectors["_recorded_combined_frames_2021"]["frames"]:
            message = wire.decode(orjson.dumps(entry["frame"]))
            seen.add(message["e"])
            if message["e"] == "aggTrade":
                assert wire.aggregate_of(message).price == float(message["p"])
            elif message["e"] == "bookTicker":
                assert wire.book_ticker(message).bid == float(message["b"])
        assert {"aggTrade", "bookTicker"} <= seen

    @pytest.mark.parametrize(
        "name", ["binance_usdm-2021-04-17.ws.gz", "binance_usdm-BTCUSDT-2023-04-04.ws.gz"]
    )
    def test_recordings(self, real_data, name):
        n = 0
        with gzip.open(real_data / "ws" / name, "rb") as file:
            for line in file:
                start = line.find(b"{")
                if start < 0:
                    continue
                message = wire.decode(line[start:])
                kind = message.get("e")
                if kind == "aggTrade":
                    assert wire.aggregate_of(message).qty > 0.0
                elif kind == "bookTicker":
                    quote = wire.book_ticker(message)
                    assert 0.0 < quote.bid < quote.ask
                elif kind == "markPriceUpdate":
                    assert wire.mark_event(message).mark_price > 0.0
                else:
                    continue
                n += 1
        assert n > 1000


class TestTexts:
    def test_a_post_only_order(self):
        order = NewOrder(client_id="grid-b-1", side=1, price=90000.1, qty=0.002)
        assert wire.order_params(order, "BTCUSDT", STEPS) == (
            ("symbol", "BTCUSDT"),
            ("side", "BUY"),
            ("type", "LIMIT"),
            ("timeInForce", "GTX"),
            ("quantity", "0.002"),
            ("price", "90000.1"),
            ("newClientOrderId", "grid-b-1"),
            ("newOrderRespType", "ACK"),
        )

    def test_a_reduce_only_market_order(self):
        order = NewOrder(
            client_id="stop-1", side=-1, price=0.0, qty=1.0, reduce_only=True, at_market=True
        )
        assert wire.order_params(order, "BTCUSDT", STEPS) == (
            ("symbol", "BTCUSDT"),
            ("side", "SELL"),
            ("type", "MARKET"),
            ("quantity", "1.000"),
            ("selfTradePreventionMode", "EXPIRE_MAKER"),
            ("reduceOnly", "true"),
            ("newClientOrderId", "stop-1"),
            ("newOrderRespType", "ACK"),
        )

    def test_off_the_grid(self):
        with pytest.raises(ValueError, match="90000"):
            wire.order_params(
                NewOrder(client_id="x", side=1, price=90000.15, qty=0.002), "BTCUSDT", STEPS
            )

    def test_an_amendment_of_a_reduce_only_order_says_so(self, rest):
        order = wire.order_of(rest["modify_order"] | {"reduceOnly": True})
        assert wire.amend_params(order, "BTCUSDT", STEPS, price=30005.0, qty=1.0) == (
            ("symbol", "BTCUSDT"),
            ("side", "BUY"),
            ("orderId", "20072994037"),
            ("quantity", "1.000"),
            ("price", "30005.0"),
            ("reduceOnly", "true"),
        )


class TestBatches:
    def test_orders_and_errors_side_by_side(self, rest):
        row = rest["place_multiple_orders"][0]
        # The documented element is an order and an error at once: on the wire it is one or other.
        order = {k: v for k, v in row.items() if k not in ("code", "msg")}
        error = {"code": row["code"], "msg": row["msg"]}
        got = wire.batch_replies(Reply(Verdict.OK, data=[order, error]), 2, ts_ms=NOW_MS)
        assert [reply.verdict for reply in got] == [Verdict.OK, Verdict.REJECTED]
        assert (got[1].code, got[1].reaction) == (-2022, Reaction.DROP)
        assert wire.placed(got[0], order["clientOrderId"]).verdict is Verdict.OK

    def test_a_cancel_of_what_is_gone(self, rest):
        row = rest["cancel_multiple_orders"][0]
        got = wire.batch_replies(
            Reply(Verdict.OK, data=[{"code": row["code"], "msg": "x"}]), 1, ts_ms=NOW_MS
        )
        assert got[0].reaction is Reaction.GONE

    @pytest.mark.parametrize("data", [None, {}, [], [{}, {}, {}], [1, 2], [{"code": "x"}] * 2])
    def test_what_does_not_add_up_is_unknown(self, data):
        got = [
            wire.placed(reply)
            for reply in wire.batch_replies(Reply(Verdict.OK, data=data), 2, ts_ms=NOW_MS)
        ]
        assert len(got) == 2
        assert all(outcome.verdict is Verdict.UNKNOWN for outcome in got)

    def test_a_refused_batch_refuses_all(self):
        whole = Reply(Verdict.REJECTED, Reaction.BACK_OFF, -1015)
        assert wire.batch_replies(whole, 3, ts_ms=NOW_MS) == [whole] * 3


ATOMS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "0", "-1", "1.5", "nan", "Infinity", "1e400", "0x1", "1_0", "BUY", "NEW"]
    )
    | st.text(max_size=5)
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["s", "a", "ps", "pa", "code", "symbol"]), inner)
    ),
    max_leaves=6,
)


def numbers(value):
    """Return every float in a value, its fields and items."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from numbers(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            if name != "liq_price":
                yield from numbers(getattr(value, name))


class TestGarbage:
    """Whatever comes: values whose numbers are finite, or the typed error."""

    READERS = (
        ("query_order", wire.order_of),
        ("account_trade_list", wire.fill_of),
        ("get_income_history", wire.payment_of),
        ("mark_price", wire.mark_of),
        ("compressed_aggregate_trades_list", wire.aggregate_of),
        ("position_information_v3", lambda row: wire.position_of([row], "ADAUSDT")),
        ("futures_account_balance_v3", lambda row: wire.wallet_of([row], "USDT")),
        ("futures_account_configuration", wire.account_modes),
        ("symbol_configuration", lambda row: wire.symbol_modes([row], "BTCUSDT")),
        ("notional_and_leverage_brackets", lambda row: wire.tiers_of([row], "ETHUSDT")),
    )
    EVENTS = (
        ("private/ORDER_TRADE_UPDATE", wire.order_event),
        ("private/nautilus_order_update_trade", wire.fill_event),
        ("private/ACCOUNT_UPDATE", lambda e: wire.wallet_event(wire.row_of(e.get("a")), "USDT")),
        (
            "private/ACCOUNT_UPDATE",
            lambda e: wire.position_event(wire.row_of(e.get("a")), "BTCUSDT"),
        ),
        ("market/aggregate_trade_streams", wire.aggregate_of),
        ("market/mark_price_stream", wire.mark_event),
        ("public/individual_symbol_book_ticker_streams", wire.book_ticker),
    )

    @given(st.data())
    def test_rows(self, rest, streams, data):
        name, read = data.draw(st.sampled_from(self.READERS + self.EVENTS))
        example = rest[name] if name in rest else streams[name]
        row = example[0] if isinstance(example, list) else example
        row = spoiled(row, data)
        try:
            got = read(row)
        except VenueError:
            return
        assert all(math.isfinite(x) for x in numbers(got))

    @given(st.data())
    def test_rules(self, rest, data):
        entry = split(rest["exchange_information"]["symbols"][0])
        entry["filters"] = [spoiled(f, data) for f in entry["filters"]]
        tiers = wire.tiers_of(BRACKETS, "BLZUSDT")
        try:
            wire.rules_of(entry, tiers, spoiled(rest["user_commission_rate"], data), [])
        except VenueError:
            return

    @given(st.binary() | VALUES.map(lambda v: json.dumps(v).encode()))
    def test_decode(self, payload):
        try:
            assert isinstance(wire.decode(payload), dict)
        except BadReplyError:
            return

    @given(VALUES, st.integers(1, 3))
    def test_batches(self, value, n):
        replies = wire.batch_replies(Reply(Verdict.OK, data=value), n, ts_ms=NOW_MS)
        assert len(replies) == n
        for reply in replies:
            wire.placed(reply)


def spoiled(row, data):
    """Change a few values of a row, or of the rows in it, or leave some out."""
    row = dict(row)
    for key in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        if isinstance(row.get(key), dict) and row[key] and data.draw(st.booleans()):
            row[key] = spoiled(row[key], data)
        elif data.draw(st.integers(0, 4)) == 0:
            row.pop(key, None)
        else:
            row[key] = data.draw(VALUES)
    return row
