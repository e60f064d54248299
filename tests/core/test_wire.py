"""Order texts and signatures: the venues' published values, a plain rebuild, and bad input."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.calc import floor_to
from passivx._core.wire import BinanceOrderText, BybitOrderText, Hmac, decimal_text
from passivx.models import step_parts

SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
TS = 1_767_225_600_000
IDS = st.text("ABCabc019_-", min_size=1, max_size=36)
STEPS = st.sampled_from([0.1, 0.01, 0.5, 1.0, 5.0, 1e-8, 0.05, 0.001, 25.0])
COUNTS = st.integers(1, 10**9)


def value_of(k: int, step: float) -> float:
    units, scale = step_parts(step)
    return k * units / scale


def binance(price_step=0.1, qty_step=0.001, sign=None) -> BinanceOrderText:
    sign = sign or Hmac(SECRET.encode()).sign
    return BinanceOrderText("K" * 64, "BTCUSDT", step_parts(price_step), step_parts(qty_step), sign)


def bybit(price_step=0.5, qty_step=1.0) -> BybitOrderText:
    return BybitOrderText("BTCUSD", "inverse", step_parts(price_step), step_parts(qty_step))


def signed_text(params: dict) -> str:
    return "&".join(f"{k}={v}" for k, v in sorted(params.items()) if k != "signature")


@pytest.fixture(scope="module")
def vectors(shared: Path):
    return {
        name: json.loads((shared / "vectors" / f"{name}.json").read_text())
        for name in ("binance_signing", "bybit_signing", "formatting")
    }


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("venue", "kind"),
    [("binance", "rest"), ("binance", "ws_api"), ("bybit", "rest"), ("bybit", "ws_auth")],
)
def test_published_signatures(vectors, venue, kind):
    for case in vectors[f"{venue}_signing"][kind]:
        sign = Hmac(case["secret"].encode()).sign
        assert sign(case["string_to_sign"].encode()).decode() == case["signature"]


@pytest.mark.real_data
def test_published_formats(vectors):
    for case in vectors["formatting"]["cases"]:
        step = step_parts(float(case["step"]))
        floored = floor_to(float(case["value"]), step)
        assert Decimal(decimal_text(floored, step)) == Decimal(case["floor_to_step"])


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_hmac_is_hmac(secret, message):
    assert Hmac(secret).sign(message).decode() == hmac.new(secret, message, "sha256").hexdigest()


def test_a_key_shows_nothing():
    key = Hmac(b"canary-secret")
    assert "canary" not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert "K" * 8 not in repr(binance())


@given(k=st.integers(0, 10**9), step=STEPS)
def test_decimal_text_is_the_venues(k, step):
    text = decimal_text(value_of(k, step), step_parts(step))
    assert Decimal(text) == Decimal(repr(step)) * k
    assert float(text) == value_of(k, step)
    assert set(text) <= set("0123456789.")
    digits = text.partition(".")[2]
    assert len(digits) == max(0, -Decimal(repr(step)).normalize().as_tuple().exponent)


@pytest.mark.parametrize(
    ("x", "step"),
    [
        (0.15, 0.1), (-0.1, 0.1), (float("nan"), 0.1), (float("inf"), 0.1), (1e300, 0.1),
        (0.30000000000000004 + 1e-6, 0.1), (1.0, 5.0), (1e16 + 2, 1.0),
    ],
)  # fmt: skip
def test_off_the_grid_is_refused(x, step):
    with pytest.raises(ValueError, match="multiple"):
        decimal_text(x, step_parts(step))


def test_what_is_off_the_grid_is_called_by_its_name():
    with pytest.raises(ValueError, match=r"^qty must be a multiple of 5/1 "):
        decimal_text(1.0, (5.0, 1.0), name="qty")


def test_a_sum_of_floats_is_written_as_the_grid_value_it_means():
    assert decimal_text(0.30000000000000004, (1.0, 10.0)) == "0.3"


@pytest.mark.parametrize("step", [(0.0, 10.0), (1.0, 3.0), (1.5, 10.0, 1.0), (1.0, 1e16)])
def test_a_strange_step_is_refused(step):
    with pytest.raises(ValueError, match=r"step|unpack"):
        decimal_text(1.0, step)


ORDERS = st.fixed_dictionaries(
    {
        "id": IDS,
        "client": IDS,
        "side": st.sampled_from([1, -1]),
        "k": COUNTS,
        "q": COUNTS,
        "price_step": STEPS,
        "qty_step": STEPS,
        "reduce_only": st.booleans(),
        "at_market": st.booleans(),
    }
)


@given(ORDERS)
def test_binance_place_says_the_order_and_signs_what_it_says(o):
    texts = binance(o["price_step"], o["qty_step"])
    price, qty = value_of(o["k"], o["price_step"]), value_of(o["q"], o["qty_step"])
    flags = {"reduce_only": o["reduce_only"], "at_market": o["at_market"]}
    frame = json.loads(texts.place(o["id"], TS, o["client"], o["side"], price, qty, **flags))
    params = frame["params"]
    assert (frame["id"], frame["method"]) == (o["id"], "order.place")
    signature = hmac.new(SECRET.encode(), signed_text(params).encode(), hashlib.sha256).hexdigest()
    assert params.pop("signature") == signature
    wanted = {
        "apiKey": "K" * 64,
        "symbol": "BTCUSDT",
        "side": "BUY" if o["side"] > 0 else "SELL",
        "type": "MARKET" if o["at_market"] else "LIMIT",
        "quantity": decimal_text(qty, step_parts(o["qty_step"])),
        "newClientOrderId": o["client"],
        "newOrderRespType": "ACK",
        "recvWindow": 5000,
        "timestamp": TS,
    }
    if o["at_market"]:
        wanted["selfTradePreventionMode"] = "EXPIRE_MAKER"
    else:
        wanted |= {"timeInForce": "GTX", "price": decimal_text(price, step_parts(o["price_step"]))}
    if o["reduce_only"]:
        wanted["reduceOnly"] = "true"
    assert params == wanted


@given(ORDERS, st.booleans())
def test_binance_modify_and_cancel_sign_what_they_say(o, by_venue_id):
    texts = binance(o["price_step"], o["qty_step"])
    price, qty = value_of(o["k"], o["price_step"]), value_of(o["q"], o["qty_step"])
    ref = {"order_id": "22542179"} if by_venue_id else {"client_id": o["client"]}
    frames = [
        texts.modify(o["id"], TS, o["side"], price, qty, reduce_only=o["reduce_only"], **ref),
        texts.cancel(o["id"], TS, **ref),
    ]
    for frame in map(json.loads, frames):
        params = frame["params"]
        text = signed_text(params).encode()
        assert params["signature"] == hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
        if by_venue_id:
            assert params["orderId"] == 22542179
        else:
            assert params["origClientOrderId"] == o["client"]
    assert (
        Decimal(json.loads(frames[0])["params"]["price"]) == Decimal(repr(o["price_step"])) * o["k"]
    )


@given(ORDERS)
def test_bybit_create_says_the_order(o):
    texts = bybit(o["price_step"], o["qty_step"])
    price, qty = value_of(o["k"], o["price_step"]), value_of(o["q"], o["qty_step"])
    flags = {"reduce_only": o["reduce_only"], "at_market": o["at_market"]}
    frame = json.loads(texts.place(o["id"], TS, o["client"], o["side"], price, qty, **flags))
    assert frame["reqId"] == o["id"]
    assert frame["op"] == "order.create"
    assert frame["header"] == {"X-BAPI-TIMESTAMP": str(TS), "X-BAPI-RECV-WINDOW": "5000"}
    wanted = {
        "category": "inverse",
        "symbol": "BTCUSD",
        "side": "Buy" if o["side"] > 0 else "Sell",
        "orderType": "Market" if o["at_market"] else "Limit",
        "qty": decimal_text(qty, step_parts(o["qty_step"])),
        "positionIdx": 0,
        "orderLinkId": o["client"],
        "reduceOnly": o["reduce_only"],
    }
    if o["at_market"]:
        wanted["smpType"] = "CancelMaker"
    else:
        wanted |= {
            "price": decimal_text(price, step_parts(o["price_step"])),
            "timeInForce": "PostOnly",
        }
    assert frame["args"] == [wanted]


def test_bybit_amend_and_cancel():
    amend = json.loads(bybit().modify("a1", TS, 90000.5, 3.0, order_id="f1-2"))
    assert amend["args"] == [
        {"category": "inverse", "symbol": "BTCUSD", "orderId": "f1-2", "qty": "3",
         "price": "90000.5"},
    ]  # fmt: skip
    cancel = json.loads(bybit().cancel("c1", TS, client_id="g-1"))
    assert cancel["op"] == "order.cancel"
    assert cancel["args"] == [{"category": "inverse", "symbol": "BTCUSD", "orderLinkId": "g-1"}]


@pytest.mark.parametrize("word", ["", "a" * 37, 'a"b', "a b", "a:b", "ä", "a\\", "a\n", None, 5])
def test_ids_that_would_need_escaping_are_refused(word):
    for texts in (binance(), bybit()):
        with pytest.raises(ValueError, match="client_id"):
            texts.place("r1", TS, word, 1, 90000.5, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", 0), ("ts_ms", 0), ("ts_ms", 10**15), ("price", 0.05), ("price", 0.0),
        ("price", -0.0), ("price", -1.0), ("qty", float("nan")), ("qty", 0.0), ("qty", -1.0),
        ("qty", 1e-300),
    ],
)  # fmt: skip
def test_what_no_venue_takes_is_refused_by_its_name(name, value):
    order = {"ts_ms": TS, "side": 1, "price": 90000.5, "qty": 1.0} | {name: value}
    ts_ms, side, price, qty = order.values()
    for texts in (binance(), bybit()):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            texts.place("r1", ts_ms, "c", side, price, qty)
    if name in ("price", "qty"):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            binance().modify("r1", ts_ms, side, price, qty, client_id="c")
        with pytest.raises(ValueError, match=f"^{name} must be"):
            bybit().modify("r1", ts_ms, price, qty, client_id="c")


def test_a_signer_of_any_length_fits_or_is_refused():
    long = binance(sign=lambda message: b"s" * 88).place("r1", TS, "c", 1, 90000.5, 1.0)
    assert json.loads(long)["params"]["signature"] == "s" * 88
    with pytest.raises(ValueError, match="too long"):
        binance(sign=lambda message: b"s" * 4000).place("r1", TS, "c", 1, 90000.5, 1.0)


def test_symbols_that_need_encoding_go_another_way():
    with pytest.raises(ValueError, match="symbol"):
        BinanceOrderText("K" * 64, "币USDT", (1.0, 10.0), (1.0, 1000.0), Hmac(b"s").sign)
