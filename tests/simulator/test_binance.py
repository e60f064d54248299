"""The simulated Binance against the documents: shapes, codes, an order's life, streams, limits."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from dataclasses import replace
from decimal import Decimal
from urllib.parse import quote, urlencode

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx._core.book import L2Book
from passivx.clock import VirtualClock
from passivx.models import Tier
from passivx.simulator.binance import POLICY, BinanceFront
from passivx.simulator.feed import find_listing
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpRequest
from passivx.simulator.venue import SimVenue
from tests.simulator.binance_desk import MARKET, SYMBOL, RefusedError, desk
from tests.simulator.lines import FrontSide
from tests.simulator.worlds import START_MS

# A post-only order far below the market, of 800 notional.
BID = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTX", "quantity": "0.01",
       "price": "80000"}  # fmt: skip


class Counter:
    """A front alone, on a clock that stands, with the signing hand before it."""

    def __init__(
        self, now_ms: int = START_MS, key: str = "k", secret: str = "s", limits: bool = False
    ) -> None:
        self.clock = VirtualClock(now_ms)
        self.ledger = Ledger(self.clock)
        self.venue = SimVenue(
            find_listing("binance", SYMBOL, MARKET), POLICY, clock=self.clock, ledger=self.ledger,
            price=90_001.0, wallet=1e5, leverage=10.0,
        )  # fmt: skip
        self.key, self.secret = key, secret
        self.front = BinanceFront(
            self.venue, self.ledger, clock=self.clock, key=key, secret=secret, limits=limits
        )

    def raw(self, method: str, path: str, query: str = "", body: str = ""):
        """Return status, answer and headers."""
        headers = {"X-MBX-APIKEY": self.key}
        request = HttpRequest(method, path, query, headers, body.encode())
        reply = self.front.rest(request)
        return reply.status, orjson.loads(reply.body), reply.headers

    def sign(self, text: str) -> str:
        return hmac.digest(self.secret.encode(), text.encode(errors="replace"), "sha256").hex()

    def signed(self, method: str, path: str, **params):
        """Send a signed request, of /fapi unless the path is whole; return as `raw` does."""
        query = urlencode({"timestamp": self.clock.time_ms()} | params)
        path = path if path.startswith("/") else f"/fapi/{path}"
        return self.raw(method, path, f"{query}&signature={self.sign(query)}")

    def ask(self, method: str, path: str, **params):
        """Return the answer to a signed request, whatever it is."""
        return self.signed(method, path, **params)[1]

    def buy(self, qty: str) -> dict:
        """Buy at market; return the answer."""
        return self.ask("POST", "v1/order", symbol=SYMBOL, side="BUY", type="MARKET", quantity=qty)

    def line(self, channel: str, path: str, query: str = "") -> FrontSide:
        assert self.front.accept(path, query) == channel
        line = FrontSide(channel, path, query)
        self.front.opened(line)
        return line

    def user_line(self, query: str = "") -> FrontSide:
        key = self.raw("POST", "/fapi/v1/listenKey")[1]["listenKey"]
        return self.line("private", f"/private/ws/{key}", query)

    def frame(self, line: FrontSide, method: str, params: dict) -> dict:
        self.front.message(line, json.dumps({"id": "i", "method": method, "params": params}))
        return line.sent.pop()


@pytest.fixture(scope="module")
def documented(shared):
    folder = shared / "vectors"
    return {
        kind: json.loads((folder / f"binance_{kind}_messages.json").read_text())
        for kind in ("rest", "ws")
    }


def missing(wanted, got, at: str = "") -> list[str]:
    """Return what of a documented message is not in another, or of another JSON type."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [f"{at}: not an object"]
        return [
            each
            for key, value in wanted.items()
            for each in (
                [f"{at}.{key}"] if key not in got else missing(value, got[key], f"{at}.{key}")
            )
        ]
    if isinstance(wanted, list):
        if not isinstance(got, list):
            return [f"{at}: not a list"]
        return missing(wanted[0], got[0], f"{at}[]") if wanted and got else []
    same = type(wanted) is type(got) or {type(wanted), type(got)} <= {int, float}
    return [] if same else [f"{at}: {type(got).__name__}, not {type(wanted).__name__}"]


# Of conditional orders, and what the examples merge from several kinds.
LEFT_OUT = {
    "activatePrice", "priceRate", "code", "msg", "assets", "maxPrice", "minPrice", "tickSize",
    "maxQty", "minQty", "stepSize", "limit", "notional", "multiplierUp", "multiplierDown",
    "multiplierDecimal", "AP", "cr", "isRPITrade", "rpiCommissionRate", "notionalCoef",
}  # fmt: skip


def lacks(wanted, got) -> list[str]:
    return [m for m in missing(wanted, got) if m.split(":")[0].rpartition(".")[2] not in LEFT_OUT]


@pytest.mark.real_data
def test_rest_answers_have_the_documented_shape(documented):
    async def go():
        async with desk() as d:
            d.print(50_000.0, sold=True)
            placed = await d.order("BUY", "0.010", "49000.0", newClientOrderId="shape-1")
            ref = {"symbol": SYMBOL, "orderId": placed["orderId"]}
            rest = {
                "new_order": placed,
                "query_order": await d.ask("GET", "v1/order", **ref),
                "query_current_open_order": await d.ask("GET", "v1/openOrder", **ref),
                "current_all_open_orders": await d.ask("GET", "v1/openOrders", symbol=SYMBOL),
                "modify_order": await d.ask(
                    "PUT", "v1/order", **ref, side="BUY", quantity="0.02", price="48000", modifyId=1
                ),
                "cancel_order": await d.ask("DELETE", "v1/order", **ref),
            }
            await d.order("BUY", "0.010")
            await d.order("SELL", "0.005", "51000")
            d.venue.settle_funding(0.0001)
            rest |= {
                "account_trade_list": await d.ask("GET", "v1/userTrades", symbol=SYMBOL),
                "get_income_history": await d.ask("GET", "v1/income"),
                "position_information_v3": await d.ask("GET", "v3/positionRisk"),
                "position_information_v2": await d.ask("GET", "v2/positionRisk"),
                "futures_account_balance_v3": await d.ask("GET", "v3/balance"),
                "account_information_v3": await d.ask("GET", "v3/account"),
                "symbol_configuration": await d.ask("GET", "v1/symbolConfig"),
                "futures_account_configuration": await d.ask("GET", "v1/accountConfig"),
                "user_commission_rate": await d.ask("GET", "v1/commissionRate", symbol=SYMBOL),
                "notional_and_leverage_brackets": await d.ask("GET", "v1/leverageBracket"),
                "query_user_rate_limit": await d.ask("GET", "v1/rateLimit/order"),
                "get_current_position_mode": await d.ask("GET", "v1/positionSide/dual"),
                "change_initial_leverage": await d.ask(
                    "POST", "v1/leverage", symbol=SYMBOL, leverage=5
                ),
                "cancel_all_open_orders": await d.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL),
                "auto_cancel_all_open_orders": await d.ask(
                    "POST", "v1/countdownCancelAll", symbol=SYMBOL, countdownTime=0
                ),
                "check_server_time": await d.public("v1/time"),
                "exchange_information": await d.public("v1/exchangeInfo"),
                "mark_price": await d.public("v1/premiumIndex", symbol=SYMBOL),
                "get_funding_rate_history": await d.public("v1/fundingRate", symbol=SYMBOL),
                "order_book": await d.public("v1/depth", symbol=SYMBOL),
                "symbol_order_book_ticker": await d.public("v1/ticker/bookTicker", symbol=SYMBOL),
                "compressed_aggregate_trades_list": await d.public("v1/aggTrades", symbol=SYMBOL),
                "recent_trades_list": await d.public("v1/trades", symbol=SYMBOL),
                "start_user_data_stream": await d.raw("POST", "/fapi/v1/listenKey"),
                "keepalive_user_data_stream": await d.raw("PUT", "/fapi/v1/listenKey"),
            }
            faults = {
                name: found
                for name, got in rest.items()
                if (found := lacks(documented["rest"][name]["message"], got))
            }
            assert faults == {}

    asyncio.run(go())


@pytest.mark.real_data
def test_events_have_the_documented_shape(documented):
    async def go():
        async with desk() as d:
            user = await d.user_stream()
            market = await d.socket("/market/ws/btcusdt@aggTrade/btcusdt@markPrice@1s")
            public = await d.socket("/public/ws/btcusdt@bookTicker/btcusdt@depth@100ms")
            trade = await d.trade_socket()
            placed = await d.frame(
                trade, "order.place", symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTX",
                quantity="0.01", price="49000",
            )  # fmt: skip
            ref = {"symbol": SYMBOL, "orderId": placed["result"]["orderId"]}
            got = {
                "ws-api/new_order": placed,
                "ws-api/query_order": await d.frame(trade, "order.status", **ref),
                "ws-api/modify_order": await d.frame(
                    trade, "order.modify", **ref, side="BUY", quantity="0.02", price="49000",
                    modifyId=1,
                ),
                "private/ORDER_TRADE_UPDATE": await user.event("ORDER_TRADE_UPDATE"),
                "ws-api/cancel_order": await d.frame(trade, "order.cancel", **ref),
            }  # fmt: skip
            await d.order("BUY", "0.010")
            await d.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=7)
            d.print(50_001.0, sold=False)
            await d.wait(3000)
            got |= {
                "private/ACCOUNT_UPDATE": await user.event("ACCOUNT_UPDATE"),
                "private/ACCOUNT_CONFIG_UPDATE": await user.event("ACCOUNT_CONFIG_UPDATE"),
                "market/aggregate_trade_streams": await market.event("aggTrade"),
                "market/mark_price_stream": await market.event("markPriceUpdate"),
                "public/individual_symbol_book_ticker_streams": await public.event("bookTicker"),
                "public/diff_book_depth_streams": await public.event("depthUpdate"),
            }
            faults = {
                name: found
                for name, message in got.items()
                if (found := lacks(documented["ws"][name]["message"], message))
            }
            # A new order has no commission; a query has no counters of orders.
            faults.pop("private/ORDER_TRADE_UPDATE", None)
            assert faults == {}

    asyncio.run(go())


# --- who gets in ---


@pytest.mark.real_data
def test_published_signatures_are_accepted_and_no_other(shared):
    vectors = json.loads((shared / "vectors" / "binance_signing.json").read_text())

    async def go():
        for case in [c for c in vectors["rest"] if c["transport"] == "query"][:6]:
            async with desk(key=case["api_key"], secret=case["secret"]) as d:
                stamp = dict(case["params_in_order"]).get("timestamp")
                d.sim.clock.skew(int(stamp) - d.now_ms)
                # Whatever the order is, its signature is not what is wrong with it.
                query = case["final_payload"]
                assert await allowed(d, case["method"], case["path"], query)
                spoiled = query[:-1] + ("0" if query[-1] != "0" else "1")
                call = d.raw(case["method"], case["path"], spoiled)
                assert await d.code(call) == -1022

    async def allowed(d, method, path, query):
        return await d.code(d.raw(method, path, query)) not in (-1022, -2014, -2015, -1021)

    asyncio.run(go())


@pytest.mark.real_data
def test_published_frames_bodies_and_ed25519_signatures_are_accepted(shared):
    vectors = json.loads((shared / "vectors" / "binance_signing.json").read_text())
    signing = (-1022, -2014, -2015, -1021, -1102)
    assert len(vectors["ws_api"]) >= 2
    for vector in vectors["ws_api"]:
        params = vector["frame"]["params"]
        at = Counter(params["timestamp"], params["apiKey"], vector["secret"])
        line = at.line("trade", "/ws-fapi/v1")
        answer = at.frame(line, vector["frame"]["method"], params)
        assert answer.get("error", {}).get("code") not in signing, vector["id"]
        spoiled = params | {"signature": "0" * 64}
        answer = at.frame(line, vector["frame"]["method"], spoiled)
        assert answer["error"]["code"] == -1022
        assert answer["status"] == 400
    mixed = vectors["mixed"]
    at = Counter(1_591_702_613_943, mixed["api_key"], mixed["secret"])
    for signature, code in (
        (mixed["signature"], -4016),  # of the order: its price is far off by now
        (mixed["official_printed_signature"], -1022),
    ):
        body = f"{mixed['body_without_signature']}&signature={signature}"
        status, answer, _ = at.raw(mixed["method"], mixed["path"], mixed["query"], body)
        # A buy far below the market rests, of 9,000 notional.
        assert answer.get("code", -4016) == code
        assert status == (200 if code == -4016 else 400)
    (vector,) = vectors["ed25519"]
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed_hex"]))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    at = Counter(1_591_702_613_943, "k", pem)
    query = f"{vector['string_to_sign']}&signature={vector['signature_urlencoded']}"
    assert at.raw("POST", "/fapi/v1/order", query)[0] == 200
    assert at.raw("POST", "/fapi/v1/order", query.replace("BUY", "SELL"))[1]["code"] == -1022


def test_a_socket_signed_in_with_ed25519_needs_neither_key_nor_signature():
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    at = Counter(secret=pem)
    line = at.line("trade", "/ws-fapi/v1")
    order = BID | {"timestamp": START_MS}
    assert at.frame(line, "order.place", order)["error"]["code"] == -2014
    text = f"apiKey=k&timestamp={START_MS}"
    params = {"apiKey": "k", "timestamp": START_MS}
    spoiled = params | {"signature": _base64(private.sign(b"x"))}
    assert at.frame(line, "session.logon", spoiled)["error"]["code"] == -1022
    params["signature"] = _base64(private.sign(text.encode()))
    assert at.frame(line, "session.logon", params)["result"]["apiKey"] == "k"
    assert at.frame(line, "order.place", order)["result"]["status"] == "NEW"
    at.clock.advance(2000)
    status = at.frame(line, "session.status", {})["result"]
    assert (status["apiKey"], status["serverTime"]) == ("k", START_MS + 2000)
    assert (status["connectedSince"], status["authorizedSince"]) == (START_MS, START_MS)
    assert at.frame(line, "session.logout", {})["result"]["apiKey"] is None
    assert at.frame(line, "order.place", order)["error"]["code"] == -2014


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_bodies_are_signed_behind_the_query():
    async def go():
        async with desk() as d:
            query = f"symbol={SYMBOL}&side=BUY&type=MARKET"
            body = f"quantity=0.01&timestamp={d.now_ms}"
            signed = f"{body}&signature={d.sign(query + body)}"
            assert (await d.raw("POST", "/fapi/v1/order", query, body=signed))["orderId"]
            wrong = f"{body}&signature={d.sign(query + '&' + body)}"
            assert await d.code(d.raw("POST", "/fapi/v1/order", query, body=wrong)) == -1022

    asyncio.run(go())


@pytest.mark.parametrize(
    ("offset_ms", "window", "code"),
    [(0, None, 0), (999, None, 0), (1000, None, -1021), (-5000, None, 0), (-5001, None, -1021),
     (-5001, 6000, 0), (0, 60_001, -1131)],
)  # fmt: skip
def test_the_window_of_time(offset_ms, window, code):
    async def go():
        async with desk() as d:
            call = d.ask("GET", "v3/balance", timestamp=d.now_ms + offset_ms, recvWindow=window)
            if code:
                assert await d.code(call) == code
            else:
                assert await call

    asyncio.run(go())


def test_keys_and_paths():
    async def go():
        async with desk() as d:
            query = f"timestamp={d.now_ms}"
            signed = f"{query}&signature={d.sign(query)}"
            assert await d.code(d.raw("GET", "/fapi/v3/balance", signed, key="")) == -2014
            assert await d.code(d.raw("GET", "/fapi/v3/balance", signed, key="x")) == -2015
            assert await d.code(d.raw("GET", "/fapi/v3/balance", query)) == -1102
            signature = d.sign("")
            assert await d.code(d.raw("GET", "/fapi/v3/balance", f"signature={signature}")) == -1102
            assert await d.code(d.raw("GET", "/fapi/v1/nothing")) == -5000
            assert await d.code(d.raw("POST", "/fapi/v1/time")) == -5000

    asyncio.run(go())


# --- codes ---

LIMIT = {"side": "BUY", "qty": "0.01", "price": "49000.0"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"symbol": "NOPE"}, -1121), ({"symbol": None}, -1102), ({"side": "HOLD"}, -1117),
        ({"side": None}, -1102), ({"type": "STOP_MARKET"}, -4120), ({"type": "X"}, -1116),
        ({"type": None}, -1102), ({"timeInForce": None}, -1102), ({"timeInForce": "DAY"}, -1115),
        ({"timeInForce": "GTD"}, -1115), ({"timeInForce": "RPI"}, -1115),
        ({"price": None}, -1102), ({"price": "abc"}, -1102), ({"price": "49000.05"}, -1111),
        ({"price": "0"}, -4001), ({"qty": None}, -1102), ({"qty": "0"}, -4003),
        ({"qty": "0.0105"}, -1111), ({"qty": "1e-3"}, -1102), ({"qty": "99999"}, -4005),
        ({"qty": "0.001", "price": "4000"}, -4164), ({"price": "60000"}, -4016),
        ({"side": "SELL", "price": "40000"}, -4024), ({"price": "50000.1"}, -5022),
        ({"timeInForce": "FOK"}, -5021), ({"qty": "900"}, -2019),
        ({"reduceOnly": "true"}, -2022), ({"positionSide": "LONG"}, -4061),
        ({"newClientOrderId": "x" * 37}, -4015), ({"newClientOrderId": "a b"}, -1100),
        ({"selfTradePreventionMode": "MAYBE"}, -1130), ({"reduceOnly": "yes"}, -1102),
        ({"type": "MARKET"}, -1106),
    ],
)  # fmt: skip
def test_codes_of_placing(change, code):
    async def go():
        async with desk() as d:
            asked = LIMIT | change
            side, qty, price = (asked.pop(name) for name in ("side", "qty", "price"))
            params = {"timeInForce": "GTX", "type": "LIMIT"} | asked
            call = d.ask(
                "POST", "v1/order",
                **({"symbol": SYMBOL, "side": side, "quantity": qty, "price": price} | params),
            )  # fmt: skip
            assert await d.code(call) == code
            (line,) = d.sim.ledger.entries("order")
            assert (line["status"], line["code"]) == ("rejected", code)
            assert list(d.venue.open_orders()) == []

    asyncio.run(go())


def test_ids_are_unique_among_open_orders():
    async def go():
        async with desk() as d:
            first = await d.order("BUY", "0.01", "49000", newClientOrderId="twice")
            assert await d.code(d.order("BUY", "0.01", "48000", newClientOrderId="twice")) == -4116
            await d.ask("DELETE", "v1/order", symbol=SYMBOL, orderId=first["orderId"])
            assert (await d.order("BUY", "0.01", "48000", newClientOrderId="twice"))["orderId"]

    asyncio.run(go())


def test_reduce_only_sums_and_market_escapes():
    async def go():
        async with desk() as d:
            await d.order("BUY", "0.02")
            flags = {"reduceOnly": "true"}
            assert await d.code(d.order("SELL", "0.03", "51000", **flags)) == -2022
            assert await d.code(d.order("BUY", "0.01", "49000", **flags)) == -2022
            await d.order("SELL", "0.02", "51000", **flags)
            assert await d.code(d.order("SELL", "0.01", "51500", **flags)) == -4118
            await d.order("SELL", "0.05", **flags)
            assert d.venue.size == 0.0

    asyncio.run(go())


def test_settings_and_their_codes():
    async def go():
        async with desk() as d:
            margin = {"symbol": SYMBOL, "marginType": "CROSSED"}
            assert await d.code(d.ask("POST", "v1/marginType", **margin)) == -4046
            await d.order("BUY", "0.01", "49000")
            margin["marginType"] = "ISOLATED"
            assert await d.code(d.ask("POST", "v1/marginType", **margin)) == -4047
            mode = {"dualSidePosition": "true"}
            assert await d.code(d.ask("POST", "v1/positionSide/dual", **mode)) == -4067
            await d.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL)
            await d.order("BUY", "0.01")
            assert await d.code(d.ask("POST", "v1/marginType", **margin)) == -4048
            assert await d.code(d.ask("POST", "v1/positionSide/dual", **mode)) == -4068
            await d.order("SELL", "0.01", reduceOnly="true")
            assert (await d.ask("POST", "v1/marginType", **margin))["code"] == 200
            mode["dualSidePosition"] = "false"
            assert await d.code(d.ask("POST", "v1/positionSide/dual", **mode)) == -4059
            leverage = {"symbol": SYMBOL, "leverage": 126}
            assert await d.code(d.ask("POST", "v1/leverage", **leverage)) == -4028
            await d.ask("POST", "v1/positionSide/dual", dualSidePosition="true")
            assert await d.code(d.order("BUY", "0.01", "49000")) == -4061
            flags = {"reduceOnly": "false", "positionSide": "LONG"}
            assert await d.code(d.order("BUY", "0.01", "49000", **flags)) == -1106
            hedged = {"positionSide": "LONG"}
            assert await d.code(d.order("BUY", "0.01", "49000", **hedged)) == -1130

    asyncio.run(go())


def test_the_rights_of_the_key_and_what_they_forbid():
    async def go():
        async with desk() as d:

            async def rights():
                row = await d.ask("GET", "/sapi/v1/account/apiRestrictions")
                assert row["enableReading"]
                return row["enableFutures"], row["enableWithdrawals"]

            assert await rights() == (True, False)
            d.venue.set_rights(trade=False, withdraw=True)
            assert await rights() == (False, True)
            refused = await d.refusal(d.order("BUY", "0.01", "49000"))
            assert (refused.status, refused.code) == (401, -2015)
            assert await d.code(d.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=5)) == -2015
            assert len(await d.ask("GET", "v3/balance")) == 1
            socket = await d.trade_socket()
            answer = await d.frame(socket, "order.cancel", symbol=SYMBOL, orderId=1)
            assert (answer["status"], answer["error"]["code"]) == (401, -2015)
            asked = await d.frame(socket, "order.status", symbol=SYMBOL, orderId=1)
            assert asked["error"]["code"] == -2013

    asyncio.run(go())


def test_codes_of_a_leverage_that_the_position_does_not_allow():
    at = Counter()
    assert at.buy("10")["status"] == "NEW"
    assert at.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=5)["code"] == -2028
    at = Counter()
    at.ask("POST", "v1/marginType", symbol=SYMBOL, marginType="ISOLATED")
    at.buy("1")
    assert at.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=9)["code"] == -4161
    assert at.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=11)["leverage"] == 11


def test_a_parameter_that_comes_twice_is_refused():
    at = Counter()
    query = f"symbol={SYMBOL}&symbol={SYMBOL}"
    assert at.raw("GET", "/fapi/v1/depth", query)[1]["code"] == -1101
    assert at.raw("GET", "/fapi/v1/depth", f"symbol={SYMBOL}&x=a=b")[0] == 200


# --- an order's life ---


@pytest.mark.real_data
def test_the_life_of_an_order_over_the_user_stream(documented):
    async def go():
        async with desk() as d:
            user = await d.user_stream()
            placed = await d.order("BUY", "0.02", "49000", newClientOrderId="life")
            new = (await user.event("ORDER_TRADE_UPDATE"))["o"]
            assert (new["x"], new["X"], new["c"], new["f"]) == ("NEW", "NEW", "life", "GTX")
            await d.ask(
                "PUT", "v1/order", symbol=SYMBOL, orderId=placed["orderId"], side="BUY",
                quantity="0.03", price="49500",
            )  # fmt: skip
            changed = (await user.event("ORDER_TRADE_UPDATE"))["o"]
            assert (changed["x"], changed["q"], changed["p"]) == ("AMENDMENT", "0.030", "49500.0")
            d.venue.fill(d.venue.find(client_id="life"), 0.01)
            d.print(49_400.0, sold=True)
            told = [await user.take() for _ in range(6)]
            kinds = ["TRADE_LITE", "ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE"]
            assert [m["e"] for m in told] == kinds * 2
            assert lacks(documented["ws"]["private/TRADE_LITE"]["message"], told[0]) == []
            for hint, fill in ((told[0], told[1]["o"]), (told[3], told[4]["o"])):
                assert {hint[key] == fill[key] for key in "qpmcSLlti"} == {True}
            kinds = [m for m in told if m["e"] != "TRADE_LITE"]
            part, whole = kinds[0]["o"], kinds[2]["o"]
            assert (part["X"], part["l"], part["z"]) == ("PARTIALLY_FILLED", "0.010", "0.010")
            assert (whole["X"], whole["l"], whole["z"]) == ("FILLED", "0.020", "0.030")
            assert whole["m"] is True
            assert float(whole["n"]) == pytest.approx(0.02 * 49_500 * 0.0002)
            account = kinds[3]["a"]
            assert account["P"][0]["pa"] == "0.030"
            assert float(account["B"][0]["wb"]) == pytest.approx(d.venue.wallet, abs=1e-8)

    asyncio.run(go())


def test_a_market_order_is_acknowledged_before_it_is_told():
    async def go():
        async with desk() as d:
            ack = await d.order("BUY", "0.01")
            assert (ack["status"], ack["executedQty"]) == ("NEW", "0.000")
            result = await d.order("BUY", "0.01", newOrderRespType="RESULT")
            assert (result["status"], result["executedQty"]) == ("FILLED", "0.010")
            assert "avgPrice" not in result
            order = await d.ask("GET", "v1/order", symbol=SYMBOL, orderId=ack["orderId"])
            assert (order["status"], order["avgPrice"]) == ("FILLED", "50000.0")

    asyncio.run(go())


def test_amending_cancelling_and_their_codes():
    async def go():
        async with desk() as d:
            order = await d.order("BUY", "0.02", "49000", newClientOrderId="a")
            ref = {"symbol": SYMBOL, "orderId": order["orderId"]}
            same = ref | {"side": "BUY", "quantity": "0.02", "price": "49000"}
            assert await d.code(d.ask("PUT", "v1/order", **same)) == -5027
            assert await d.code(d.ask("PUT", "v1/order", **(same | {"side": "SELL"}))) == -1117
            flagged = same | {"price": "48000", "reduceOnly": "true"}
            assert await d.code(d.ask("PUT", "v1/order", **flagged)) == -5047
            # Into the market: the order is cancelled.
            through = same | {"price": "50100"}
            assert await d.code(d.ask("PUT", "v1/order", **through)) == -5022
            assert d.venue.find(client_id="a").status.final
            assert await d.code(d.ask("DELETE", "v1/order", **ref)) == -2011
            assert await d.code(d.ask("GET", "v1/openOrder", **ref)) == -2013
            nobody = {"symbol": SYMBOL, "origClientOrderId": "nobody"}
            assert await d.code(d.ask("GET", "v1/order", **nobody)) == -2013
            assert await d.code(d.ask("DELETE", "v1/order", symbol=SYMBOL)) == -1102

    asyncio.run(go())


def test_amendments_are_remembered_and_told_with_their_number():
    at = Counter()
    user = at.user_line()
    placed = at.ask("POST", "v1/order", **BID)
    ref = {"symbol": SYMBOL, "orderId": placed["orderId"], "side": "BUY"}
    at.ask("PUT", "v1/order", **ref, quantity="0.02", price="80000", modifyId=7)
    assert user.sent[-1]["o"]["M"] == 7
    at.ask("PUT", "v1/order", **ref, quantity="0.02", price="80001")
    assert "M" not in user.sent[-1]["o"]
    first, second = at.ask("GET", "v1/orderAmendment", **ref)
    assert first["amendment"] == {
        "price": {"before": "80000.0", "after": "80000.0"},
        "origQty": {"before": "0.010", "after": "0.020"},
        "count": 1,
        "modifyId": 7,
    }
    assert (second["amendment"]["count"], second["orderId"]) == (2, placed["orderId"])
    at.front._amendments[placed["orderId"]] *= 5000
    refused = at.ask("PUT", "v1/order", **ref, quantity="0.03", price="80001")
    assert refused["code"] == -5026


def test_a_reduce_only_order_stays_exempt_from_the_least_notional_when_that_is_said_again():
    at = Counter()
    at.venue.set_listing(
        replace(at.venue.listing, market=replace(at.venue.listing.market, min_cost=100.0))
    )
    at.buy("0.01")
    row = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.001", "price": "91000"}
    order = at.ask("POST", "v1/order", **row, type="LIMIT", timeInForce="GTX", reduceOnly="true")
    change = row | {"orderId": order["orderId"], "price": "92000"}
    assert at.ask("PUT", "v1/order", **change)["code"] == -4164
    assert at.ask("PUT", "v1/order", **change, reduceOnly="true")["price"] == "92000.0"


def test_orders_without_a_fill_are_forgotten_after_three_days():
    day_ms = 86_400_000
    at = Counter()
    rests = at.ask("POST", "v1/order", **BID)["orderId"]
    ended = at.ask("POST", "v1/order", **BID)["orderId"]
    bought = at.buy("0.01")["orderId"]
    at.ask("DELETE", "v1/order", symbol=SYMBOL, orderId=ended)

    def known():
        rows = at.ask("GET", "v1/allOrders", symbol=SYMBOL, orderId=rests)
        for each in (rests, ended, bought):
            answer = at.ask("GET", "v1/order", symbol=SYMBOL, orderId=each)
            assert (answer.get("code") == -2013) == (each not in [r["orderId"] for r in rows])
        return [row["orderId"] for row in rows]

    assert known() == [rests, ended, bought]
    at.clock.advance(3 * day_ms)
    assert known() == [rests, ended, bought]
    at.clock.advance(1000)
    assert known() == [rests, bought]
    at.clock.advance(88 * day_ms)
    assert known() == [rests]


def test_spans_of_history():
    at = Counter()
    hour, week = 3_600_000, 7 * 86_400_000
    for path, span, inclusive in (
        ("v1/aggTrades", hour, False),
        ("v1/allOrders", week, False),
        ("v1/userTrades", week, True),
        ("v1/forceOrders", week, True),
    ):
        for length, ok in ((span - 1, True), (span, inclusive), (span + 1, False)):
            times = {"startTime": START_MS - length, "endTime": START_MS}
            answer = at.ask("GET", path, symbol=SYMBOL, **times)
            assert (answer == []) is ok, (path, length)
            assert ok or answer["code"] == -4165
        assert at.ask("GET", path, symbol=SYMBOL, startTime=START_MS - 3 * span) == []
    for path in ("v1/aggTrades", "v1/userTrades"):
        answer = at.ask("GET", path, symbol=SYMBOL, fromId=1, startTime=START_MS)
        assert answer["code"] == -1128


def test_batches_answer_element_by_element():
    async def go():
        async with desk() as d:
            row = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTX",
                   "quantity": "0.01"}  # fmt: skip
            rows = [row | {"price": price} for price in ("49000", "60000", "48000")]
            text = orjson.dumps(rows).decode()
            first, bad, last = await d.ask("POST", "v1/batchOrders", batchOrders=text)
            assert (first["status"], bad["code"], last["status"]) == ("NEW", -4016, "NEW")
            six = orjson.dumps([row] * 6).decode()
            assert await d.code(d.ask("POST", "v1/batchOrders", batchOrders=six)) == -4082
            ids = orjson.dumps([first["orderId"], 77, last["orderId"]]).decode()
            got = await d.ask("DELETE", "v1/batchOrders", symbol=SYMBOL, orderIdList=ids)
            assert [x.get("status", x.get("code")) for x in got] == ["CANCELED", -2011, "CANCELED"]

    asyncio.run(go())


def test_forced_ends_carry_their_marks():
    async def go():
        async with desk() as d:
            user = await d.user_stream()
            await d.order("BUY", "0.02")
            await d.order("SELL", "0.02", "51000", reduceOnly="true", newClientOrderId="close")
            await d.order("SELL", "0.02", reduceOnly="true")
            ended = await user.take(
                lambda m: m["e"] == "ORDER_TRADE_UPDATE" and m["o"]["x"] == "EXPIRED"
            )
            assert (ended["o"]["c"], ended["o"]["er"]) == ("close", "4")
            await d.order("BUY", "0.02")
            d.venue.liquidate()
            forced = await user.take(
                lambda m: m["e"] == "ORDER_TRADE_UPDATE" and m["o"]["x"] == "CALCULATED"
            )
            assert forced["o"]["c"].startswith("autoclose-")
            assert forced["o"]["X"] == "FILLED"
            await d.order("BUY", "0.02")
            d.venue.deleverage(0.01)
            adl = await user.take(
                lambda m: m["e"] == "ORDER_TRADE_UPDATE" and m["o"]["c"].startswith("adl_autoclose")
            )
            assert adl["o"]["S"] == "SELL"
            d.venue.settle_funding(0.001)
            funding = await user.take(
                lambda m: m["e"] == "ACCOUNT_UPDATE" and m["a"]["m"] == "FUNDING_FEE"
            )
            assert funding["a"]["P"] == []

    asyncio.run(go())


@pytest.mark.real_data
def test_what_the_venue_does_by_force_is_listed_and_public(documented):
    at = Counter()
    line = at.line("market", "/market/stream", "streams=btcusdt@forceOrder/!forceOrder@arr")
    at.buy("0.02")
    at.venue.deleverage(0.005)
    at.venue.liquidate()
    adl, liquidation = at.ask("GET", "v1/forceOrders", symbol=SYMBOL)
    assert adl["clientOrderId"].startswith("adl_autoclose")
    assert liquidation["clientOrderId"].startswith("autoclose-")
    assert (adl["side"], adl["executedQty"], liquidation["executedQty"]) == (
        "SELL", "0.005", "0.015",
    )  # fmt: skip
    assert lacks(documented["rest"]["users_force_orders"]["message"], [adl]) == []
    assert at.ask("GET", "v1/forceOrders", autoCloseType="ADL") == [adl]
    assert at.ask("GET", "v1/forceOrders", autoCloseType="X")["code"] == -1130
    assert [m["stream"] for m in line.sent] == ["btcusdt@forceOrder", "!forceOrder@arr"]
    example = documented["ws"]["market/liquidation_order_streams"]["message"]
    assert lacks(example, line.sent[0]["data"]) == []
    assert line.sent[0]["data"]["o"]["q"] == "0.015"


@pytest.mark.real_data
def test_new_rules_and_a_stop_of_trading_are_public(documented):
    at = Counter()
    line = at.line("market", "/market/ws/!contractInfo")
    tiers = (
        Tier(floor=0.0, maintenance_rate=0.004, max_leverage=100.0),
        Tier(floor=1e6, maintenance_rate=0.01, max_leverage=50.0),
    )
    market = replace(at.venue.listing.market, tiers=tiers)
    at.venue.set_listing(replace(at.venue.listing, market=market))
    at.venue.set_trading(False)
    at.venue.set_leverage(9.0)
    rules, stop = line.sent
    assert lacks(documented["ws"]["market/contract_info_stream"]["message"], rules) == []
    assert (rules["cs"], stop["cs"]) == ("TRADING", "SETTLING")
    assert [(b["bs"], b["mi"], b["ma"]) for b in rules["bks"]] == [(1, 51, 100), (2, 1, 50)]
    assert at.raw("GET", "/fapi/v1/exchangeInfo")[1]["symbols"][0]["status"] == "SETTLING"
    assert at.buy("0.02")["code"] == -4141


@pytest.mark.real_data
def test_margin_is_called_once_when_liquidation_comes_near(documented):
    at = Counter()
    user = at.user_line()
    at.buy("11")
    for _ in range(3):
        at.front.housekeeping(START_MS)
    assert [m for m in user.sent if m["e"] == "MARGIN_CALL"] == []
    liq = at.venue.liq_price
    near = round(liq * 1.001, 1)
    at.venue.jump(near, 1.0)
    assert at.venue.size == 11.0
    for _ in range(3):
        at.front.housekeeping(START_MS)
    (call,) = [m for m in user.sent if m["e"] == "MARGIN_CALL"]
    assert lacks(documented["ws"]["private/MARGIN_CALL"]["message"], call) == []
    assert call["p"][0]["pa"] == "11.000"


def test_the_dead_man_switch():
    async def go():
        async with desk() as d:
            await d.order("BUY", "0.02", "49000", newClientOrderId="a")
            for _ in range(3):
                await d.ask("POST", "v1/countdownCancelAll", symbol=SYMBOL, countdownTime=5000)
                await d.wait(4000)
            assert len(list(d.venue.open_orders())) == 1
            await d.wait(1000)
            assert list(d.venue.open_orders()) == []

    asyncio.run(go())


def test_money_adds_up_over_every_list():
    async def go():
        async with desk() as d:
            start = Decimal(repr(d.venue.wallet))
            for i in range(4):
                await d.order("BUY", "0.02")
                await d.order("SELL", "0.013")
                d.print(50_000.0 + 50 * i, sold=i % 2 == 0)
                d.venue.settle_funding(0.0003 * (-1) ** i)
            income = await d.ask("GET", "v1/income", limit=1000)
            fills = await d.ask("GET", "v1/userTrades", symbol=SYMBOL)
            kinds = {row["incomeType"] for row in income}
            assert kinds == {"COMMISSION", "REALIZED_PNL", "FUNDING_FEE"}
            total = start + sum(Decimal(row["income"]) for row in income)
            assert abs(total - Decimal(repr(d.venue.wallet))) < Decimal("1e-6")
            assert sum(Decimal(f["qty"]) * (1 if f["buyer"] else -1) for f in fills) == Decimal(
                "0.028"
            )
            paged: list = []
            while True:
                first = paged[-1]["id"] + 1 if paged else 0
                page = await d.ask("GET", "v1/userTrades", symbol=SYMBOL, fromId=first, limit=3)
                paged += page
                if len(page) < 3:
                    break
            assert paged == fills

    asyncio.run(go())


def test_codes_of_amending_and_what_ends_the_order():
    at = Counter()
    user = at.user_line()
    row = BID | {"quantity": "0.02", "price": "89000"}
    change = {"symbol": SYMBOL, "side": "BUY", "quantity": "0.02", "price": "89000"}

    def amended(order_id: int, **changes) -> dict:
        return at.ask("PUT", "v1/order", **(change | {"orderId": order_id} | changes))

    first = at.ask("POST", "v1/order", **row)["orderId"]
    for changes, code in (
        ({"price": "89000.05"}, -1111), ({"quantity": "0.0205"}, -1111), ({"price": ""}, -1102),
        ({"quantity": "x"}, -1102), ({"price": "99000"}, -4016), ({"quantity": "900"}, -2019),
        ({"quantity": "0.001", "price": "4000"}, -4164), ({"quantity": "99999"}, -4005),
        ({"modifyId": "x"}, -1102), ({"orderId": 77}, -2013), ({"symbol": "NOPE"}, -1121),
    ):  # fmt: skip
        assert amended(first, **changes)["code"] == code, changes
    (left,) = at.ask("GET", "v1/openOrders", symbol=SYMBOL)
    assert (left["price"], left["origQty"]) == ("89000.0", "0.020")
    # To what is filled already, or less: ended.
    at.venue.fill(at.venue.find(order_id=first), 0.01)
    assert amended(first, quantity="0.01", price="88000")["code"] == -2011
    ended = user.sent[-1]["o"]
    assert (ended["x"], ended["X"], ended["z"]) == ("CANCELED", "CANCELED", "0.010")
    # Post-only into the market: ended too. Without that, it takes.
    second = at.ask("POST", "v1/order", **row)["orderId"]
    assert amended(second, price="90100")["code"] == -5022
    assert (user.sent[-1]["o"]["i"], user.sent[-1]["o"]["X"]) == (second, "CANCELED")
    third = at.ask("POST", "v1/order", **row | {"timeInForce": "GTC"})["orderId"]
    assert "code" not in amended(third, price="90100")
    told = [m["o"]["x"] for m in user.sent if m["e"] == "ORDER_TRADE_UPDATE"
            and m["o"]["i"] == third]  # fmt: skip
    assert told == ["NEW", "AMENDMENT", "TRADE"]
    # Of what is finished there is nothing to amend; nor of a market order.
    for each in (first, second, third):
        assert amended(each, price="88000")["code"] == -2011
    bought = at.buy("0.01")
    assert amended(bought["orderId"])["code"] == -5025


def test_codes_of_tiers_of_too_many_orders_and_of_a_stopped_market():
    at = Counter()
    listing, market = at.venue.listing, at.venue.listing.market
    tiers = (
        Tier(floor=0.0, maintenance_rate=0.004, max_leverage=20.0),
        Tier(floor=50_000.0, maintenance_rate=0.005, max_leverage=5.0),
    )
    at.venue.set_listing(replace(listing, market=replace(market, tiers=tiers), max_orders=2))
    row = BID | {"price": "89000"}
    assert at.ask("POST", "v1/order", **row | {"quantity": "1"})["code"] == -2027
    assert [at.ask("POST", "v1/order", **row).get("code") for _ in range(3)] == [None, None, -2025]
    at.venue.set_trading(False)
    at.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL)
    assert at.ask("POST", "v1/order", **row)["code"] == -4141


def test_answers_by_the_type_that_was_asked_for():
    at = Counter()
    user = at.user_line()
    row = BID | {"timeInForce": "IOC", "price": "89000", "newOrderRespType": "RESULT"}
    expired = at.ask("POST", "v1/order", **row)
    assert (expired["status"], expired["executedQty"]) == ("EXPIRED", "0.000")
    assert [(m["o"]["x"], m["o"]["er"]) for m in user.sent] == [("NEW", "0"), ("EXPIRED", "2")]
    taken = at.ask("POST", "v1/order", **row | {"price": "90100"})
    assert (taken["status"], taken["cumQty"]) == ("FILLED", "0.010")
    acknowledged = at.ask("POST", "v1/order", **row | {"newOrderRespType": "ACK"})
    assert acknowledged["status"] == "NEW"
    assert at.ask("POST", "v1/order", **row | {"newOrderRespType": "FULL"})["code"] == -1130
    resting = at.ask("POST", "v1/order", **row | {"timeInForce": "GTC"})
    assert (resting["status"], resting["executedQty"]) == ("NEW", "0.000")


@pytest.mark.parametrize("margin", ["CROSSED", "ISOLATED"])
def test_what_changes_the_account_without_an_order(margin):
    at = Counter()
    if margin == "ISOLATED":
        at.ask("POST", "v1/marginType", symbol=SYMBOL, marginType=margin)
    at.buy("0.1")
    user = at.user_line()
    wallet = at.venue.wallet
    at.venue.settle_funding(0.0001)
    (event,) = user.sent
    told = event["a"]
    paid = pytest.approx(0.0001 * 0.1 * at.venue.mark_price)
    assert (event["e"], told["m"], told["S"]) == ("ACCOUNT_UPDATE", "FUNDING_FEE", SYMBOL)
    assert wallet - at.venue.wallet == paid
    assert -float(told["B"][0]["bc"]) == paid
    # A cross position is not in the event of its funding.
    assert [row["mt"] for row in told["P"]] == ([] if margin == "CROSSED" else ["isolated"])
    (row,) = at.ask("GET", "v1/income", incomeType="FUNDING_FEE")
    assert row["income"] == told["B"][0]["bc"]
    user.sent.clear()
    at.venue.deposit(12.5)
    at.ask("POST", "v1/leverage", symbol=SYMBOL, leverage=11)
    deposit, leverage = user.sent
    assert (deposit["a"]["m"], deposit["a"]["P"]) == ("DEPOSIT", [])
    assert (deposit["a"]["B"][0]["bc"], "S" in deposit["a"]) == ("12.50000000", False)
    assert (leverage["e"], leverage["ac"]) == ("ACCOUNT_CONFIG_UPDATE", {"s": SYMBOL, "l": 11})


def test_pages_of_orders_aggregates_and_income():
    at = Counter()
    orders = []
    for i in range(7):
        at.clock.advance(1000)
        orders.append(at.buy("0.01")["orderId"])
        at.venue.print(10 + i, 90_000.0, 1.0, True, at.clock.time_ms())

    def pages(path: str, key: str, name: str, **params) -> list[int]:
        ids: list[int] = []
        while True:
            first = ids[-1] + 1 if ids else 0
            page = at.ask("GET", path, symbol=SYMBOL, limit=3, **{name: first}, **params)
            ids += [each[key] for each in page]
            if len(page) < 3:
                return ids

    assert pages("v1/allOrders", "orderId", "orderId") == orders
    assert pages("v1/aggTrades", "a", "fromId") == list(range(10, 17))
    assert pages("v1/userTrades", "orderId", "fromId", orderId=orders[2]) == [orders[2]]
    # Without a first id: the newest; with a start: the oldest from there.
    for path, key in (("v1/allOrders", "updateTime"), ("v1/aggTrades", "T"), ("v1/income", "time")):
        second = START_MS + 2000
        newest = [each[key] for each in at.ask("GET", path, symbol=SYMBOL, limit=3)]
        oldest = [
            each[key] for each in at.ask("GET", path, symbol=SYMBOL, limit=3, startTime=second)
        ]
        assert newest == [START_MS + s for s in (5000, 6000, 7000)], path
        assert oldest == [START_MS + s for s in (2000, 3000, 4000)], path


def test_a_deleted_key_is_silent_at_once():
    at = Counter()
    user = at.user_line()
    at.raw("DELETE", "/fapi/v1/listenKey")
    at.buy("0.01")
    assert user.sent == []
    # A new key is another one.
    assert at.user_line().path != user.path
    assert at.raw("DELETE", "/fapi/v1/listenKey")[0] == 200
    assert at.raw("DELETE", "/fapi/v1/listenKey")[1]["code"] == -1125


def test_the_unrouted_paths_are_the_public_one_and_others_are_none():
    at = Counter()
    for path, channel in (
        ("/ws", "public"), ("/stream", "public"), ("/ws/btcusdt@bookTicker", "public"),
        ("/public/ws", "public"), ("/market/stream", "market"), ("/private/ws/k", "private"),
        ("/ws-fapi/v1", "trade"), ("/ws-fapi/v2", None), ("/public", None), ("/other/ws", None),
        ("/", None), ("", None), ("/market/wss", None),
    ):  # fmt: skip
        assert at.front.accept(path, "") == channel, path
    at.venue.jump(90_100.0, 1.0)
    for path, query in (
        ("/ws/btcusdt@bookTicker/btcusdt@aggTrade", ""),
        ("/stream", "streams=btcusdt@bookTicker/btcusdt@aggTrade"),
    ):
        line = at.line("public", path, query)
        at.venue.jump(at.venue.mark_price + 10, 1.0)
        assert {m.get("data", m)["e"] for m in line.sent} == {"bookTicker"}
        ids = [m.get("data", m)["u"] for m in line.sent]
        assert ids == sorted(set(ids))


# --- streams ---


def test_the_listen_key_lives_for_an_hour():
    async def go():
        async with desk() as d:
            user = await d.user_stream()
            await d.wait(3_000_000)
            await d.raw("PUT", "/fapi/v1/listenKey")
            await d.wait(3_000_000)
            await d.order("BUY", "0.01", "49000")
            await user.event("ORDER_TRADE_UPDATE")
            await d.wait(3_700_000)
            await user.event("listenKeyExpired")
            await d.order("BUY", "0.01", "48000")
            assert await user.drained() == []
            assert await d.code(d.raw("PUT", "/fapi/v1/listenKey")) == -1125
            key = (await d.raw("POST", "/fapi/v1/listenKey"))["listenKey"]
            assert (await d.raw("POST", "/fapi/v1/listenKey"))["listenKey"] == key
            await d.raw("DELETE", "/fapi/v1/listenKey")
            assert await d.code(d.raw("PUT", "/fapi/v1/listenKey")) == -1125

    asyncio.run(go())


def test_partial_books_marks_of_all_and_silence_about_other_symbols():
    at = Counter()
    public = at.line("public", "/public/stream", "streams=btcusdt@depth5@100ms/ethusdt@depth@100ms")
    other = at.line("public", "/public/ws/ethusdt@bookTicker/ethusdt@depth")
    market = at.line("market", "/market/ws/!markPrice@arr/btcusdt@markPrice/ethusdt@markPrice@1s")
    at.venue.jump(90_100.0, 1.0)
    at.clock.advance(100)
    (event,) = public.sent
    book = at.raw("GET", "/fapi/v1/depth", f"symbol={SYMBOL}&limit=5")[1]
    assert (event["data"]["b"], event["data"]["a"]) == (book["bids"], book["asks"])
    assert event["data"]["u"] == book["lastUpdateId"]
    at.clock.advance(1000)
    assert other.sent == []
    for _ in range(6):
        at.front.housekeeping(at.clock.time_ms())
    rows = [m for m in market.sent if isinstance(m, list)]
    assert [[row["s"] for row in each] for each in rows] == [[SYMBOL]] * 2
    assert [m["p"] for m in market.sent if isinstance(m, dict)] == ["90100.00000000"] * 2


def test_candles_are_made_of_the_prints():
    at = Counter()
    for minute, price in enumerate((90_000.0, 90_500.0, 89_000.0, 90_100.0)):
        at.clock.advance(60_000)
        at.venue.print(minute + 1, price, 1.0 + minute, price < 90_000.0, at.clock.time_ms())
    query = f"symbol={SYMBOL}&interval="
    ones = at.raw("GET", "/fapi/v1/klines", query + "1m")[1]
    assert [row[4] for row in ones] == ["90000.0", "90500.0", "89000.0", "90100.0"]
    assert all(row[6] - row[0] == 59_999 for row in ones)
    (day,) = at.raw("GET", "/fapi/v1/klines", query + "1d")[1]
    assert day[1:6] == ["90000.0", "90500.0", "89000.0", "90100.0", "10.000"]
    assert (day[8], day[9]) == (4, "7.000")
    later = at.raw("GET", "/fapi/v1/klines", f"{query}1m&startTime={ones[2][0]}&limit=1")[1]
    assert later == [ones[2]]
    assert at.raw("GET", "/fapi/v1/klines", query + "7m")[1]["code"] == -1120
    assert at.raw("GET", "/fapi/v1/klines", f"symbol={SYMBOL}")[1]["code"] == -1102


def test_a_stream_that_is_joined_twice_is_heard_once():
    at = Counter()
    name = "btcusdt@aggTrade"
    line = at.line("market", "/market/ws", f"streams={name}/{name}")
    ask = {"method": "SUBSCRIBE", "params": [name, name], "id": 1}
    at.front.message(line, json.dumps(ask))
    del line.sent[:]
    at.venue.print(1, 90_000.0, 1.0, True, 1)
    assert [m["a"] for m in line.sent] == [1]
    at.front.message(line, json.dumps(ask | {"method": "UNSUBSCRIBE"}))
    del line.sent[:]
    at.venue.print(2, 90_000.0, 1.0, True, 2)
    assert line.sent == []


def test_the_very_first_event_tells_the_self_trade_prevention():
    at = Counter()
    user = at.user_line()
    at.ask("POST", "v1/order", **BID, selfTradePreventionMode="EXPIRE_MAKER")
    assert [m["o"]["V"] for m in user.sent if m["e"] == "ORDER_TRADE_UPDATE"] == ["EXPIRE_MAKER"]


@pytest.mark.parametrize("name", ["orderIdList", "orderidlist"])
def test_lists_of_a_batch_may_be_written_in_lower_case(name):
    at = Counter()
    ids = [at.ask("POST", "v1/order", **BID)["orderId"] for _ in range(2)]
    gone = at.ask("DELETE", "v1/batchOrders", symbol=SYMBOL, **{name: json.dumps(ids)})
    assert [row["status"] for row in gone] == ["CANCELED", "CANCELED"]
    left = at.ask("POST", "v1/order", **BID, newClientOrderId="by-name")
    other = name.replace("orderI", "origClientOrderI").replace("orderi", "origclientorderi")
    names = json.dumps(["by-name"])
    (gone,) = at.ask("DELETE", "v1/batchOrders", symbol=SYMBOL, **{other: names})
    assert (gone["orderId"], gone["status"]) == (left["orderId"], "CANCELED")


def test_prints_one_by_one_and_the_day_as_streams():
    at = Counter()
    trades = at.line("public", "/public/ws/btcusdt@trade")
    names = "btcusdt@ticker/btcusdt@miniTicker/!ticker@arr/!miniTicker@arr"
    day = at.line("market", "/market/stream", f"streams={names}")
    at.venue.print(7, 90_010.0, 2.0, True, 1)
    now = at.clock.time_ms()
    assert trades.sent == [
        {"e": "trade", "E": now, "T": now, "s": SYMBOL, "t": 7, "p": "90010.0", "q": "2.000",
         "X": "MARKET", "m": True, "st": 1}
    ]  # fmt: skip
    at.front.housekeeping(now)
    told = {m["stream"]: m["data"] for m in day.sent}
    assert sorted(told) == sorted(names.split("/"))
    full, mini = told["btcusdt@ticker"], told["btcusdt@miniTicker"]
    assert (full["e"], full["c"], full["n"], full["L"]) == ("24hrTicker", "90010.0", 1, 7)
    assert set(mini) == {"e", "E", "s", "c", "o", "h", "l", "v", "q"}
    assert told["!ticker@arr"] == [full]
    assert told["!miniTicker@arr"] == [mini]


def test_candles_as_streams_each_ends_once():
    at = Counter(now_ms=START_MS - START_MS % 60_000)
    line = at.line("market", "/market/ws/btcusdt@kline_1m")

    def later(ms: int) -> list[tuple]:
        at.clock.advance(ms)
        at.front.housekeeping(at.clock.time_ms())
        told = [m["k"] for m in line.sent]
        line.sent.clear()
        return [(k["t"] - begun, k["c"], k["n"], k["x"]) for k in told]

    begun = at.clock.time_ms()
    assert later(1000) == []
    at.venue.print(1, 90_000.0, 1.0, True, 1)
    assert later(1000) == [(0, "90000.0", 1, False)]
    at.venue.print(2, 90_100.0, 1.0, False, 2)
    assert later(1000) == [(0, "90100.0", 2, False)]
    at.clock.advance(56_500)
    at.venue.print(3, 90_050.0, 1.0, True, 3)
    # The next one has begun before this was told to be over.
    at.clock.advance(1000)
    at.venue.print(4, 90_060.0, 1.0, True, 4)
    assert later(0) == [(0, "90050.0", 3, True), (60_000, "90060.0", 1, False)]
    assert later(60_000) == [(60_000, "90060.0", 1, True)]
    assert later(1000) == []
    at.venue.print(5, 90_070.0, 1.0, True, 5)
    assert later(0) == [(120_000, "90070.0", 1, False)]


def test_bounds_of_brackets_are_whole_numbers():
    (symbol,) = Counter().ask("GET", "v1/leverageBracket", symbol=SYMBOL)
    for row in symbol["brackets"]:
        assert {type(row["notionalFloor"]), type(row["notionalCap"])} == {int}


def test_the_last_day_in_figures():
    at = Counter()
    query = f"symbol={SYMBOL}"
    quiet = at.raw("GET", "/fapi/v1/ticker/24hr", query)[1]
    assert (quiet["lastPrice"], quiet["volume"], quiet["count"]) == ("90001.0", "0.000", 0)
    assert (quiet["firstId"], quiet["lastId"]) == (-1, -1)
    at.venue.print(1, 1.0, 9.0, False, at.clock.time_ms())
    at.clock.advance(86_400_000)
    for number, (price, qty) in enumerate(((100.0, 1.0), (130.0, 2.0), (80.0, 1.0), (110.0, 6.0))):
        at.venue.print(number + 2, price, qty, False, at.clock.time_ms())
    (day,) = at.raw("GET", "/fapi/v1/ticker/24hr")[1]
    assert day == at.raw("GET", "/fapi/v1/ticker/24hr", query)[1]
    now = at.clock.time_ms()
    assert day == {
        "symbol": SYMBOL, "priceChange": "10.0", "priceChangePercent": "10.000",
        "weightedAvgPrice": "110.0", "lastPrice": "110.0", "lastQty": "6.000",
        "openPrice": "100.0", "highPrice": "130.0", "lowPrice": "80.0", "volume": "10.000",
        "quoteVolume": "1100.00000000", "openTime": now - 86_400_000, "closeTime": now,
        "firstId": 2, "lastId": 5, "count": 4,
    }  # fmt: skip
    assert at.raw("GET", "/fapi/v1/ticker/24hr", "symbol=NOPE")[1]["code"] == -1121


def test_sockets_live_for_a_day():
    at = Counter()
    user, trade = at.user_line(), at.line("trade", "/ws-fapi/v1")
    at.clock.advance(86_399_000)
    at.front.housekeeping(at.clock.time_ms())
    young = at.line("public", "/public/ws")
    assert user.closed_with is None
    at.clock.advance(1000)
    at.front.housekeeping(at.clock.time_ms())
    assert (user.closed_with, trade.closed_with, young.closed_with) == (1001, 1001, None)


def test_only_the_events_that_were_asked_for_and_streams_up_to_a_limit():
    at = Counter()
    key = at.raw("POST", "/fapi/v1/listenKey")[1]["listenKey"]
    some = at.line("private", "/private/ws", f"listenKey={key}&events=ACCOUNT_UPDATE")
    every = at.line("private", "/private/stream", f"streams={key}")
    other = at.line("private", "/private/ws", "listenKey=another")
    at.buy("1")
    assert {m["e"] for m in some.sent} == {"ACCOUNT_UPDATE"}
    assert {m["stream"] for m in every.sent} == {key}
    assert {m["data"]["e"] for m in every.sent} >= {"ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"}
    assert other.sent == []
    names = [f"s{i}@aggTrade" for i in range(1025)]
    line = at.line("market", "/market/ws")
    ask = {"method": "SUBSCRIBE", "params": names[:1024], "id": 1}
    at.front.message(line, json.dumps(ask))
    assert line.closed_with is None
    at.front.message(line, json.dumps(ask | {"params": names}))
    assert line.closed_with == 1008


@pytest.mark.parametrize(
    ("path", "hears"),
    [("/market/ws", {"aggTrade"}), ("/public/ws", {"bookTicker"}), ("/ws", {"bookTicker"}),
     ("/market/stream", {"aggTrade"}), ("/stream", {"bookTicker"}), ("/private/ws", set())],
)  # fmt: skip
def test_on_the_wrong_path_a_stream_is_taken_and_silent(path, hears):
    async def go():
        async with desk() as d:
            socket = await d.socket(path)
            names = ["btcusdt@aggTrade", "btcusdt@bookTicker"]
            answer = await socket.ask({"method": "SUBSCRIBE", "params": names, "id": 1})
            assert answer == {"result": None, "id": 1}
            d.print(50_010.0, sold=False)
            got = await socket.drained()
            assert {m.get("data", m)["e"] for m in got} == hears
            assert all(("stream" in m) == ("stream" in path) for m in got)
            await socket.ask({"method": "UNSUBSCRIBE", "params": names, "id": 2})
            d.print(50_020.0, sold=False)
            assert await socket.drained() == []

    asyncio.run(go())


def test_a_book_kept_from_the_stream_is_the_one_asked_for():
    async def go():
        async with desk() as d:
            socket = await d.socket("/public/ws/btcusdt@depth@100ms")
            book = L2Book()
            for i in range(30):
                d.print(50_000.0 + (i * 37 % 50) / 10, sold=i % 3 == 0)
                if i == 10:
                    snapshot = await d.public("v1/depth", symbol=SYMBOL, limit=1000)
                    book.snapshot(snapshot["bids"], snapshot["asks"], snapshot["lastUpdateId"])
                await d.wait(150)
            for e in await socket.drained():
                assert book.on_binance(e["U"], e["u"], e["pu"], e["b"], e["a"]) in (0, 1)
            now = await d.public("v1/depth", symbol=SYMBOL, limit=1000)
            bids, asks = book.depth(1000)
            assert bids["price"].tolist() == [float(p) for p, _ in now["bids"]]
            assert asks["price"].tolist() == [float(p) for p, _ in now["asks"]]

    asyncio.run(go())


def test_errors_properties_and_too_many_frames():
    async def go():
        async with desk(limits=True) as d:
            socket = await d.socket("/public/ws")
            await socket.raw.send_str("{}")
            assert (await socket.take())["code"] == 2
            assert (await socket.ask({"method": "NOPE", "id": 1}))["code"] == 2
            done = {"method": "SET_PROPERTY", "params": ["combined", True], "id": 2}
            assert (await socket.ask(done))["result"] is None
            asked = {"method": "GET_PROPERTY", "params": ["combined"], "id": 3}
            assert (await socket.ask(asked))["result"] is True
            for i in range(8):
                await socket.raw.send_str(f'{{"method":"LIST_SUBSCRIPTIONS","id":{i + 10}}}')
            for _ in range(20):
                message = await socket.raw.receive(timeout=5)
                if message.type.name in ("CLOSE", "CLOSED", "CLOSING"):
                    break
            assert socket.raw.closed

    asyncio.run(go())


# --- limits ---


@pytest.mark.parametrize(
    ("path", "params", "weight"),
    [
        ("v1/time", {}, 1), ("v1/depth", {"symbol": SYMBOL, "limit": "50"}, 2),
        ("v1/depth", {"symbol": SYMBOL, "limit": "100"}, 5), ("v1/depth", {"symbol": SYMBOL}, 10),
        ("v1/depth", {"symbol": SYMBOL, "limit": "1000"}, 20),
        ("v1/klines", {"symbol": SYMBOL, "interval": "1m", "limit": "99"}, 1),
        ("v1/klines", {"symbol": SYMBOL, "interval": "1m", "limit": "499"}, 2),
        ("v1/klines", {"symbol": SYMBOL, "interval": "1m"}, 5),
        ("v1/klines", {"symbol": SYMBOL, "interval": "1m", "limit": "1500"}, 10),
        ("v1/ticker/bookTicker", {"symbol": SYMBOL}, 2), ("v1/ticker/bookTicker", {}, 5),
        ("v1/ticker/24hr", {"symbol": SYMBOL}, 1), ("v1/ticker/24hr", {}, 40),
        ("v1/premiumIndex", {}, 10), ("v1/fundingRate", {}, 0), ("v1/aggTrades", {}, 20),
        ("v1/openOrders", {}, 40), ("v1/openOrders", {"symbol": SYMBOL}, 1),
        ("v3/balance", {}, 5), ("v1/income", {}, 30), ("v1/positionSide/dual", {}, 30),
    ],
)  # fmt: skip
def test_weights(path, params, weight):
    at = Counter(limits=True)
    at.raw("GET", f"/fapi/{path}", urlencode(params))
    headers = at.raw("GET", "/fapi/v1/fundingInfo")[2]
    assert headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


def test_funding_rates_have_a_pool_of_their_own():
    at = Counter(limits=True)
    for i in range(500):
        assert at.raw("GET", "/fapi/v1/funding" + ("Rate" if i % 2 else "Info"))[0] == 200
    at.clock.advance(100_000)
    status, answer, headers = at.raw("GET", "/fapi/v1/fundingRate")
    assert (status, answer["code"], headers["Retry-After"]) == (429, -1003, "200")
    assert at.raw("GET", "/fapi/v1/time")[0] == 200
    at.clock.advance(200_000)
    assert at.raw("GET", "/fapi/v1/fundingRate")[0] == 200


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4000)), min_size=60, max_size=150))
def test_who_waits_as_long_as_told_is_served(steps):
    """Whatever was asked before: Retry-After is enough, for orders and for weight."""
    at = Counter(limits=True)
    for n, wait_ms in steps:
        at.clock.advance(wait_ms // (1 + 9 * (n % 2)))
        for _ in range(n):
            rows = json.dumps([BID] * 5)
            status, answer, headers = at.signed("POST", "v1/batchOrders", batchOrders=rows)
            at.venue.cancel_all()
            if status == 200:
                assert int(headers["X-MBX-ORDER-COUNT-10S"]) <= 300
                assert int(headers["X-MBX-ORDER-COUNT-1M"]) <= 1200
                continue
            assert (status, answer["code"]) == (429, -1015)
            at.clock.advance(1000 * int(headers["Retry-After"]))
            assert at.ask("POST", "v1/order", **BID)["status"] == "NEW"
            at.venue.cancel_all()


def test_bans_grow_to_three_days_and_name_their_end():
    at = Counter(limits=True)
    lengths = []
    for _ in range(8):
        while True:
            status, answer, headers = at.raw("GET", "/fapi/v1/aggTrades", f"symbol={SYMBOL}")
            if status == 418:
                break
        lengths.append(int(headers["Retry-After"]))
        until_ms = at.clock.time_ms() + 1000 * lengths[-1]
        assert f"banned until {until_ms}." in answer["msg"]
        at.clock.advance(1000 * lengths[-1] - 1000)
        assert at.raw("GET", "/fapi/v1/time")[0] == 418
        at.clock.advance(1000)
        assert at.raw("GET", "/fapi/v1/time")[0] == 200
    assert lengths[0] == 120
    assert lengths == sorted(lengths)
    assert lengths[-1] == 3 * 86_400


def test_weight_counts_then_429_then_a_ban_that_grows():
    async def go():
        async with desk(limits=True) as d:
            await d.public("v1/time")
            assert d.headers["X-MBX-USED-WEIGHT-1M"] == "1"
            for _ in range(119):
                await d.public("v1/aggTrades", symbol=SYMBOL)
            statuses = []
            for _ in range(12):
                refused = await d.refusal(d.public("v1/aggTrades", symbol=SYMBOL))
                assert refused is not None
                assert refused.code == -1003
                assert int(d.headers["Retry-After"]) > 0
                statuses.append(refused.status)
            assert statuses == [429] * 11 + [418]
            with pytest.raises(RefusedError) as caught:
                await d.public("v1/time")
            assert caught.value.status == 418
            assert "banned until" in caught.value.msg
            await d.wait(121_000)
            assert await d.public("v1/time")

    asyncio.run(go())


def test_orders_are_counted_over_rest_and_the_socket_together():
    async def go():
        async with desk(limits=True) as d:
            trade = await d.trade_socket()
            for i in range(150):
                await d.order("BUY", "0.01", f"{49_000 - i}")
                await d.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL) if i % 50 == 49 else None
            assert d.headers.get("X-MBX-ORDER-COUNT-10S", "150") == "150"
            row = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTX",
                   "quantity": "0.01"}  # fmt: skip
            for i in range(150):
                got = await d.frame(trade, "order.place", **row, price=f"{48_000 - i}")
                if i % 50 == 49:
                    await d.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL)
            assert {r["count"] for r in got["rateLimits"]} == {300}
            assert await d.code(d.order("BUY", "0.01", "49000")) == -1015
            refused = await d.frame(trade, "order.place", **row, price="49000")
            assert (refused["status"], refused["error"]["code"]) == (429, -1015)
            await d.wait(10_001)
            assert (await d.order("BUY", "0.01", "49000"))["orderId"]

    asyncio.run(go())


# --- the order socket ---


def test_both_readings_of_what_is_signed_and_codes_of_the_socket():
    async def go():
        async with desk() as d:
            trade = await d.trade_socket()
            row = {"apiKey": d.sim.key, "newClientOrderId": "a:b/c", "price": "49000",
                   "quantity": "0.01", "side": "BUY", "symbol": SYMBOL, "timeInForce": "GTX",
                   "timestamp": d.now_ms, "type": "LIMIT"}  # fmt: skip
            plain = "&".join(f"{k}={v}" for k, v in row.items())
            encoded = "&".join(f"{k}={quote(str(v), safe='')}" for k, v in row.items())
            for i, text in enumerate((plain, encoded)):
                params = row | {"signature": d.sign(text)}
                got = await trade.ask({"id": f"x{i}", "method": "order.place", "params": params})
                assert got["status"] == 200, got
                await d.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL)
            params = row | {"signature": d.sign("x")}
            got = await trade.ask({"id": "y", "method": "order.place", "params": params})
            assert got["error"]["code"] == -1022
            got = await d.frame(trade, "order.cancel", symbol=SYMBOL, orderId=5)
            assert (got["status"], got["error"]["code"]) == (400, -2011)
            got = await trade.ask({"id": "z", "method": "session.logon", "params": {}})
            assert got["error"]["code"] == -4056
            got = await trade.ask({"id": "w", "method": "nothing", "params": {}})
            assert "error" in got

    asyncio.run(go())


def test_counters_of_the_order_socket_can_be_hidden():
    at = Counter()
    stamp = {"apiKey": "k", "timestamp": START_MS}
    for query, params, shown in (
        ("", {}, True),
        ("returnRateLimits=false", {}, False),
        ("", {"returnRateLimits": False}, False),
    ):
        line = at.line("trade", "/ws-fapi/v1", query)
        fields = stamp | {k: str(v).lower() for k, v in params.items()}
        text = "&".join(f"{k}={v}" for k, v in sorted(fields.items()))
        signed = stamp | params | {"signature": at.sign(text)}
        answer = at.frame(line, "v2/account.balance", signed)
        assert answer["status"] == 200
        assert ("rateLimits" in answer) is shown


# --- what was told is what is ---

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["post_only", "limit", "market", "reduce", "amend", "cancel", "print", "fill",
             "funding", "adl", "liquidate", "cancel_all", "deposit"]
        ),
        st.integers(0, 5),
        st.sampled_from([1, -1]),
        st.integers(1, 40),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTS)
def test_what_the_user_stream_told_is_what_rest_says(acts):
    """Orders folded from their events, the position from fills, the money from both."""
    at = Counter()
    venue, user = at.venue, at.user_line()
    names: list[str] = []
    for i, (act, which, side, size) in enumerate(acts):
        bid, ask = venue.quote
        price = bid - size if side > 0 else ask + size
        if act == "limit" and which == 0:  # through the market
            price = ask + 5 if side > 0 else bid - 5
        row = {"symbol": SYMBOL, "side": "BUY" if side > 0 else "SELL",
               "quantity": f"{size * 0.01:.2f}"}  # fmt: skip
        if act in ("post_only", "limit", "market", "reduce"):
            new = row | {"newClientOrderId": f"n{i}", "type": "MARKET"}
            if act != "market":
                tif = "GTX" if act == "post_only" else "GTC"
                new |= {"type": "LIMIT", "price": f"{price:.1f}", "timeInForce": tif}
            if act == "reduce":
                new["reduceOnly"] = "true"
            if "code" not in at.ask("POST", "v1/order", **new):
                names.append(f"n{i}")
        elif act == "amend" and names:
            change = row | {"origClientOrderId": names[which % len(names)], "price": f"{price:.1f}"}
            at.ask("PUT", "v1/order", **change)
        elif act == "cancel" and names:
            name = names[which % len(names)]
            at.ask("DELETE", "v1/order", symbol=SYMBOL, origClientOrderId=name)
        elif act == "cancel_all":
            at.ask("DELETE", "v1/allOpenOrders", symbol=SYMBOL)
        elif act == "print":
            venue.jump(90_001.0 + side * size, 1.0)
        elif act == "fill" and list(venue.open_orders()):
            order = next(iter(venue.open_orders()))
            venue.fill(order, max(0.01, round(order.left / 2, 2)) if order.left > 0.01 else 0.01)
        elif act == "funding":
            venue.settle_funding(side * 0.0001)
        elif act == "adl" and venue.size:
            venue.deleverage(max(0.01, round(abs(venue.size) / 2, 2)))
        elif act == "liquidate":
            venue.liquidate()
        elif act == "deposit":
            venue.deposit(float(side * size))

    orders: dict[int, dict] = {}
    fills: dict[int, dict] = {}
    size, account, stamp = Decimal(0), None, 0
    final = ("FILLED", "CANCELED", "EXPIRED")
    for message in user.sent:
        assert message["E"] >= stamp
        stamp = message["E"]
        if message["e"] == "ORDER_TRADE_UPDATE":
            row = message["o"]
            before = orders.get(row["i"])
            # What is final stays as it is, and nothing that was filled comes back.
            assert before is None or before["X"] not in final
            assert before is None or Decimal(row["z"]) >= Decimal(before["z"])
            orders[row["i"]] = row
            if row["x"] in ("TRADE", "CALCULATED"):
                assert row["t"] not in fills
                fills[row["t"]] = row
                size += Decimal(row["l"]) * (1 if row["S"] == "BUY" else -1)
            else:
                assert (row["t"], row["l"], row["L"], row["rp"]) == (0, "0", "0", "0")
                assert "n" not in row
        elif message["e"] == "ACCOUNT_UPDATE":
            account = message["a"]
            for position in account["P"]:
                assert Decimal(position["pa"]) == size
    assert float(size) == pytest.approx(venue.size, abs=1e-9)
    if account is not None:
        assert float(account["B"][0]["wb"]) == pytest.approx(venue.wallet, abs=1e-7)

    listed = at.ask("GET", "v1/allOrders", symbol=SYMBOL, limit=1000)
    same = {"status": "X", "price": "p", "origQty": "q", "executedQty": "z", "side": "S",
            "clientOrderId": "c", "type": "o", "timeInForce": "f", "reduceOnly": "R"}  # fmt: skip
    for row in listed:
        told = orders[row["orderId"]]
        if row["type"] == "MARKET":
            row["price"] = "0"
        assert {name: row[name] for name in same} == {name: told[key] for name, key in same.items()}
    # The venue's own orders are in the stream and in no list of orders.
    assert {i for i, row in orders.items() if "autoclose" not in row["c"]} == {
        row["orderId"] for row in listed
    }
    trades = at.ask("GET", "v1/userTrades", symbol=SYMBOL, limit=1000)
    assert {row["id"] for row in trades} == set(fills)
    for row in trades:
        told = fills[row["id"]]
        assert (row["qty"], row["price"], row["commission"], row["realizedPnl"], row["maker"]) == (
            told["l"], told["L"], told["n"], told["rp"], told["m"],
        )  # fmt: skip
    income = at.ask("GET", "v1/income", limit=1000)
    assert sum(float(row["income"]) for row in income) == pytest.approx(
        venue.wallet - 1e5, abs=1e-6
    )
    opened = at.ask("GET", "v1/openOrders", symbol=SYMBOL)
    assert [row["orderId"] for row in opened] == [o.order_id for o in venue.open_orders()]


# --- whatever comes ---

TEXTS = st.sampled_from(["", "BTCUSDT", "BUY", "LIMIT", "GTX", "0.01", "49000", "-1", "1e9", "true",
                         "x" * 50, "ä", "{}", "[1]", "null", "9" * 25])  # fmt: skip
NAMES = st.sampled_from(
    ["symbol", "side", "type", "timeInForce", "quantity", "price", "reduceOnly", "orderId", "limit",
     "origClientOrderId", "newClientOrderId", "batchOrders", "orderIdList", "fromId", "startTime",
     "endTime", "leverage", "marginType", "dualSidePosition", "countdownTime", "recvWindow",
     "listenKey", "interval", "incomeType", "modifyId", "positionSide"]
)  # fmt: skip


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
# Sense with a few words of nonsense in it: whatever is nonsense alone is refused at the door.
GOOD = BID | {"newClientOrderId": "known", "origClientOrderId": "known"}
ASKED = st.dictionaries(NAMES, TEXTS | st.text(max_size=9), max_size=5).map(
    lambda changes: {**GOOD, **changes}
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_is_asked_gets_an_answer_in_the_venues_form(data):
    at = Counter()
    if data.draw(st.booleans()):
        at.buy("0.02")
    if data.draw(st.booleans()):
        at.ask("POST", "v1/order", **GOOD)
    method, path = data.draw(st.sampled_from(sorted(at.front._routes)))
    params = data.draw(ASKED | st.dictionaries(NAMES, TEXTS, max_size=4))
    if "batchOrders" in path and data.draw(st.booleans()):
        rows = st.lists(ASKED | st.dictionaries(NAMES, VALUES, max_size=4) | VALUES, max_size=6)
        params["batchOrders"] = json.dumps(data.draw(rows))
        params["orderIdList"] = json.dumps(data.draw(VALUES))
    answer = at.ask(method, path, **params)
    if isinstance(answer, dict) and "msg" in answer:
        assert isinstance(answer["code"], int)
        assert answer["code"] not in (-1022, -5000)
    query = data.draw(st.text(max_size=30))
    body = data.draw(st.text(max_size=30))
    status, answer, _ = at.raw(method, path, quote(query, safe="=&%"), body)
    assert status in (200, 400, 401)
    assert status == 200 or answer["msg"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_whatever_a_socket_is_told_it_answers_once(data):
    at = Counter()
    path = data.draw(
        st.sampled_from(["/ws-fapi/v1", "/public/ws", "/market/stream", "/private/ws", "/ws"])
    )
    channel = at.front.accept(path, "")
    line = at.line(channel, path)
    methods = [*sorted(at.front._methods), "session.logon", "SUBSCRIBE", "UNSUBSCRIBE",
               "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY", "x"]  # fmt: skip
    message = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "id": VALUES,
                "method": st.sampled_from(methods) | VALUES,
                "params": ASKED | st.dictionaries(NAMES, VALUES, max_size=4) | VALUES,
            },
        )
        | VALUES
    )
    params = message.get("params") if isinstance(message, dict) else None
    if isinstance(params, dict):
        params |= {"apiKey": "k", "timestamp": START_MS}
        text = "&".join(f"{k}={v}" for k, v in sorted(params.items()))
        params["signature"] = at.sign(text)
    at.front.message(line, json.dumps(message))
    answer = line.sent.pop()
    assert line.sent == []
    assert "result" in answer or "error" in answer or answer["code"] == 2
    at.front.message(line, data.draw(st.text(max_size=20)))
    assert len(line.sent) == 1
    at.front.closed(line)


def test_the_ledger_has_every_request_and_no_secret():
    async def go():
        async with desk() as d:
            await d.order("BUY", "0.01", "49000", newClientOrderId="seen")
            key = (await d.raw("POST", "/fapi/v1/listenKey"))["listenKey"]
            await d.raw("PUT", "/fapi/v1/listenKey", f"listenKey={key}")
            assert await d.code(d.raw("GET", f"/fapi/v1/{key}")) == -5000
            user = await d.socket(f"/private/ws/{key}")
            for channel in ("/private/stream", "/public/ws"):
                socket = await d.socket(channel)
                for method in ("SUBSCRIBE", "UNSUBSCRIBE", key):
                    await socket.ask({"method": method, "params": [key], "id": 1})
            await user.ask({"method": {"apiKey": d.sim.key}, "params": [{"x": key}, 1], "id": 2})
            trade = await d.trade_socket()
            await d.frame(trade, "userDataStream.ping", listenKey=key)
            await d.frame(trade, key)
            text = b"".join(d.sim.ledger.since()).decode()
            for secret in (d.sim.secret, d.sim.key, key):
                assert secret not in text
            # Keys of streams and signatures are 64 digits.
            assert re.search("[0-9a-f]{64}", text) is None
            assert '"client_id":"seen"' in text
            assert "signature" in text
            assert text.count('"event":"request"') == 4 + 6 + 1 + 2

    asyncio.run(go())
