"""Bybit's messages, documented and recorded, against values read off by hand."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.errors import BadReplyError
from passivx.exchanges.base import FillKind, MarkPrice, OrderStatus, Verdict, decode
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import react
from passivx.models import Position

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def rest(shared: Path) -> dict:
    return json.loads((shared / "vectors" / "bybit_rest_messages.json").read_text())


@pytest.fixture(scope="module")
def streams(shared: Path) -> dict:
    return json.loads((shared / "vectors" / "bybit_ws_messages.json").read_text())


def rows(entries, index=0):
    return entries[index]["message"]["result"]["list"]


class TestAccount:
    def test_inverse_position(self, rest):
        got = wire.position_of(rows(rest["position_list"])[0])
        assert got == Position(size=-300.0, entry_price=27464.50441675, liq_price=0.0)

    def test_a_flat_position_on_the_stream(self, streams):
        row = streams["position"][1]["message"]["data"][0]
        assert wire.position_of(row | {"positionIdx": 0}) == Position()

    def test_a_short_on_the_stream(self, streams):
        row = streams["nautilus_ws_account_position"][0]["message"]["data"][0]
        assert wire.position_of(row) == Position(-0.01, 3641.075, 51764.83003276)

    def test_hedge_mode_rows_are_refused(self, streams):
        with pytest.raises(BadReplyError, match="positionIdx"):
            wire.position_of(streams["position"][1]["message"]["data"][0])

    def test_open_order(self, rest):
        got = wire.order_of(rows(rest["order_realtime"])[0])
        assert (got.client_id, got.side, got.price, got.qty) == ("test-000005", 1, 1600.0, 0.1)
        assert got.status is OrderStatus.NEW
        assert got.filled_qty == 0.0
        assert got.reason == ""

    def test_a_post_only_order_that_would_take_is_cancelled(self, rest):
        got = wire.order_of(rows(rest["order_history"])[0])
        assert got.status is OrderStatus.CANCELED
        assert got.reason == "post_only"

    def test_rejected_after_a_partial_fill_keeps_its_fills(self, streams):
        entry = streams["nautilus_ws_account_order_partially_filled_rejected"][0]
        got = wire.order_of(entry["message"]["data"][0])
        assert got.status is OrderStatus.CANCELED
        assert got.filled_qty == 50.0

    def test_a_market_fill_on_the_stream(self, streams):
        got = wire.fill_of(streams["execution"][1]["message"]["data"][0])
        assert got is not None
        assert (got.side, got.price, got.qty, got.fee) == (-1, 95900.1, 0.5, -26.3725275)
        assert (got.maker, got.kind, got.pnl) == (False, FillKind.TRADE, 0.05)

    def test_a_deleveraging_is_named(self, streams):
        got = wire.fill_of(streams["nautilus_ws_account_execution_adl"][0]["message"]["data"][0])
        assert got is not None
        assert got.kind is FillKind.ADL

    def test_executions_of_rest(self, rest):
        got = wire.fill_of(rows(rest["execution_list"])[0])
        assert got is not None
        assert got.fee == -0.071409
        assert math.isnan(got.pnl)

    def test_a_funding_row_is_a_payment_not_a_fill(self, rest):
        row = rows(rest["execution_list"])[0] | {"execType": "Funding", "execFee": "-0.002"}
        assert wire.fill_of(row) is None
        got = wire.payment_of(row)
        assert got is not None
        assert got.amount == 0.002

    def test_the_coin_of_the_wallet(self, streams):
        row = streams["wallet"][1]["message"]["data"][0]
        coin = wire.wallet_of(row, "BTC")
        assert coin is not None
        assert wire.number(coin, "walletBalance") == 0.00102964
        assert wire.wallet_of(row, "ETH") is None


class TestMarket:
    def test_mark_price_and_funding(self, rest):
        row = rows(rest["tickers"])[0]
        assert wire.mark_of(row, 5) == MarkPrice(
            mark_price=114898.43, funding_rate=0.0001, next_funding_ms=1760371200000, ts_ms=5
        )

    def test_ticker_deltas_are_merged(self, shared):
        case = json.loads((shared / "vectors" / "sequences.json").read_text())["bybit_ticker_merge"]
        ticker = wire.Ticker()
        assert ticker.take({"type": "delta", "ts": 1, "data": case["delta"]}) is None
        first = ticker.take({"type": "snapshot", "ts": 2, "data": case["snapshot"]})
        then = ticker.take({"type": "delta", "ts": 3, "data": case["delta"]})
        assert first is not None
        assert then is not None
        assert (first.mark_price, then.mark_price) == (100.1, 100.2)
        assert then.funding_rate == 0.0001

    def test_recent_trade(self, rest):
        got = wire.public_trade_of(rows(rest["recent_trade"])[0])
        assert (got.price, got.qty, got.buyer_maker) == (16618.49, 0.00012, False)

    def test_the_rules_of_an_inverse_perpetual(self, rest):
        instrument = rows(rest["instruments_inverse_nautilus"])[0]
        tiers = wire.tiers_of(rows(rest["risk_limit"]))
        rules = wire.rules_of(
            instrument, tiers, {"makerFeeRate": "-0.00025", "takerFeeRate": "0.0006"}
        )
        assert rules.market.inverse
        assert (rules.market.price_step, rules.market.qty_step) == (0.5, 1.0)
        assert rules.market.maker_fee == -0.00025
        assert rules.market.min_cost == 0.0
        assert rules.trading

    def test_risk_limits_in_percent(self, rest):
        (tier,) = wire.tiers_of(rows(rest["risk_limit"]))
        assert (tier.floor, tier.maintenance_rate, tier.max_leverage) == (0.0, 0.005, 100.0)

    def test_risk_limits_in_fractions_and_out_of_order(self, rest):
        low, high = wire.tiers_of(rest["risk_limit"][1]["rows"])
        assert (low.floor, low.maintenance_rate, low.max_leverage) == (0.0, 0.0033, 150.0)
        assert (high.floor, high.maintenance_rate, high.max_leverage) == (300000.0, 0.005, 100.0)

    @pytest.mark.parametrize("initial", ["0.1", "10", "0", "x"])
    def test_risk_limits_in_no_known_unit_are_refused(self, rest, initial):
        row = rows(rest["risk_limit"])[0] | {"initialMargin": initial}
        with pytest.raises(BadReplyError, match="initialMargin"):
            wire.tiers_of([row])


def test_every_recorded_frame_reads(real_data):
    seen = dict.fromkeys(("publicTrade", "tickers"), 0)
    tickers: dict[str, wire.Ticker] = {}
    with gzip.open(real_data / "ws" / "bybit_v5_linear-2026-08-09.jsonl.gz") as file:
        for line in file:
            record = json.loads(line)
            if record["t"] != "ws" and "data" not in record:
                continue
            if record["t"] == "http" or not isinstance(record["data"], str):
                continue
            message = decode(record["data"].encode())
            topic = str(message.get("topic", "")).split(".")[0]
            if topic == "publicTrade":
                assert list(wire.stream_trades(message))
            elif topic == "tickers" and "markPrice" in json.dumps(message):
                ticker = tickers.setdefault(message["topic"], wire.Ticker())
                ticker.take(message)
            else:
                continue
            seen[topic] += 1
    assert all(seen.values()), seen


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
READERS = [
    wire.order_of, wire.fill_of, wire.payment_of, wire.position_of, wire.public_trade_of,
    wire.quote_of, lambda row: list(wire.stream_trades(row)), lambda row: wire.mark_of(row, 1),
    lambda row: wire.tiers_of([row]), lambda row: wire.wallet_of(row, "BTC"), wire.rows_in,
    lambda row: wire.rules_of(row, (), {}),
]  # fmt: skip


def finite(value) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list | tuple):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return all(finite(v) for n, v in getattr(value, "__dict__", {}).items() if n != "pnl")


@given(data=st.data())
def test_a_spoiled_row_is_refused_or_finite(data, rest, streams):
    bases = [
        rows(rest["order_realtime"])[0], rows(rest["execution_list"])[0],
        rows(rest["position_list"])[0], rows(rest["recent_trade"])[0], rows(rest["tickers"])[0],
        rows(rest["risk_limit"])[0], rows(rest["instruments_inverse_nautilus"])[0],
        streams["publicTrade"][0]["message"], streams["orderbook.50"][0]["message"],
        streams["wallet"][1]["message"]["data"][0],
    ]  # fmt: skip
    row = dict(data.draw(st.sampled_from(bases)))
    for key in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[key] = data.draw(
            JSON | st.sampled_from(["NaN", "1e999", "-1", "0", "", "1_0", "0x1", " 1", "١"])
        )
    try:
        got = data.draw(st.sampled_from(READERS))(row)
    except BadReplyError:
        return
    if not isinstance(got, dict | list):
        assert finite(got)


@given(st.binary(max_size=64) | JSON.map(lambda v: repr(v).encode()))
def test_a_message_is_an_object_or_refused(payload):
    with contextlib.suppress(BadReplyError):
        assert isinstance(decode(payload), dict)


def test_codes_ask_for_what_the_table_beside_the_docs_asks(shared):
    rows = json.loads((shared / "vectors" / "error_reactions.json").read_text())["bybit"]
    words = {
        "UNKNOWN": Verdict.UNKNOWN, "NOOP": Verdict.OK, "HALT": Verdict.REJECTED,
        "GONE": Verdict.REJECTED, "DROP": Verdict.REJECTED, "REPRICE": Verdict.REJECTED,
        "REDUCE_ONLY": Verdict.REJECTED, "RESYNC_CLOCK": Verdict.REJECTED,
    }  # fmt: skip
    checked = 0
    for row in rows:
        word = row["action"].split(";")[0].split()[0]
        if word in words:
            assert react(200, row["code"], "")[0] is words[word], row
            checked += 1
    assert checked > 35


def test_an_unknown_code_proves_nothing():
    assert react(200, 987654, "")[0] is Verdict.UNKNOWN
    assert react(502, None, "")[0] is Verdict.UNKNOWN


def test_an_amendment_without_a_change_is_success():
    text = "The order remains unchanged as the parameters entered match the existing ones."
    assert react(200, 10001, text)[0] is Verdict.OK
    assert react(200, 10001, "params error: qty")[0] is Verdict.REJECTED


def test_decode_reads_what_orjson_reads():
    assert decode(orjson.dumps({"a": [1.5]})) == {"a": [1.5]}
