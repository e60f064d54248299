"""Binance USDⓈ-M as it speaks: REST, three stream paths, and order entry over a socket (ws-fapi).

Here is who gets in and what a request does; what is shown of the market is in `binance_market`, of
the account in `binance_account`, the words they share in `binance_words`. Facts come from
docs/protocol facts, part A; what they leave open was decided by what published clients accept.

Left out, and refused rather than ignored: conditional orders (they have an interface of their own),
hedge-mode orders, price match, the times in force GTD and RPI, RSA keys. A print is an aggregate of
trades: tapes are of such.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import random
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from passivx.clock import Clock, Timer
from passivx.simulator.binance_account import AccountFace
from passivx.simulator.binance_market import PATHS, MarketFace
from passivx.simulator.binance_words import (
    REFUSALS,
    SIDES,
    TIFS,
    WEEK_MS,
    AnswerError,
    Json,
    Limits,
    Params,
    Units,
    client_id_of,
    flag,
    integer,
    limit_of,
    missing,
    order_answer,
    order_query,
    ts_range,
)
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpReply, HttpRequest
from passivx.simulator.server import Session
from passivx.simulator.venue import (
    Execution,
    Kind,
    OrderType,
    Policy,
    Reason,
    Refusal,
    SimOrder,
    SimVenue,
    TimeInForce,
)

__all__ = ["POLICY", "BinanceFront"]

POLICY: Final = Policy(
    post_only_cancels=False,
    reduce_only_trims=False,
    ids_unique_for_ever=False,
    band_moves=False,
    low_amend_cancels=True,
)

Handler = Callable[[Params], Any]
Weight = int | Callable[[Params], int]

_JSON: Final = {"Content-Type": "application/json;charset=UTF-8"}
_KEY_LIFE_MS: Final = 3_600_000
_CONDITIONAL: Final = frozenset(
    {"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"}
)
_STPS: Final = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")
_MOST_FRAMES: Final = 10  # a second, on a stream socket
_MOST_STREAMS: Final = 1024
_LONGEST_NAME: Final = 40  # of a method or a stream
_SOCKET_LIFE_MS: Final = 86_400_000
# Orders that nothing was filled of are forgotten first.
_EMPTY_LIFE_MS: Final = 3 * 86_400_000
_ORDER_LIFE_MS: Final = 90 * 86_400_000
_MOST_AMENDMENTS: Final = 10_000
_PLAIN, _KEYED, _SIGNED = "plain", "keyed", "signed"
_TRADING: Final = frozenset({"order.place", "order.modify", "order.cancel"})


@dataclass(frozen=True, slots=True)
class _Route:
    """How a request is served, over REST or a socket."""

    handler: Handler
    security: str
    weight: Weight = 1
    orders: Weight = 0  # how many it is about, as far as the venue counts them


@dataclass(slots=True)
class _Listener:
    """What the front knows of a stream socket."""

    combined: bool
    streams: set[str] = field(default_factory=set)
    keys: dict[str, frozenset[str]] = field(default_factory=dict)  # listenKey -> events wanted
    frames: deque[int] = field(default_factory=deque)


class _Ed25519:
    """Checks signatures of a key whose secret is a PEM text, as the venue has its public part."""

    def __init__(self, pem: str) -> None:
        private = load_pem_private_key(pem.encode(), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("secret: must be an HMAC text or an Ed25519 key")
        self._public = private.public_key()

    def matches(self, text: bytes, signature: str) -> bool:
        try:
            self._public.verify(base64.b64decode(signature), text)
        except (InvalidSignature, ValueError):
            return False
        return True


class _Hmac:
    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def matches(self, text: bytes, signature: str) -> bool:
        wanted = hmac.digest(self._secret, text, "sha256").hex()
        return hmac.compare_digest(wanted.encode(), signature.encode())


class BinanceFront:
    """The venue's face; see `simulator.server.Front` for what calls it.

    ``limits`` False keeps no rate limits.
    """

    def __init__(
        self,
        venue: SimVenue,
        ledger: Ledger,
        *,
        clock: Clock,
        key: str,
        secret: str,
        limits: bool = True,
    ) -> None:
        self._venue = venue
        self._ledger = ledger
        self._clock = clock
        self._key = key
        self._ed25519 = secret.startswith("-----BEGIN")
        self._check = _Ed25519(secret) if self._ed25519 else _Hmac(secret)
        self._units = Units(venue.listing)
        self._limits = Limits(limits)
        self._market = MarketFace(venue, clock, self._units, self._limits, self)
        self._account = AccountFace(venue, clock, self._units, self._tell_account)
        self._random = random.Random(0)
        self._sessions: dict[Session, int] = {}  # and when each was opened
        self._amendments: dict[int, list[Json]] = {}
        self._amendment_ids = 0
        self._heard: dict[str, list[Session]] = {}
        self._listen_key = ""
        self._listen_key_ends_ms = 0
        self._dead_man: Timer | None = None
        self._channel = "rest"
        self._routes = self._make_routes()
        self._methods: dict[str, _Route] = {
            "order.place": _Route(self._place, _SIGNED, 0, 1),
            "order.modify": _Route(self._amend, _SIGNED, 0, 1),
            "order.cancel": _Route(self._cancel, _SIGNED),
            "order.status": _Route(self._get_order, _SIGNED),
            "account.position": _Route(self._account.get_positions_v2, _SIGNED, 5),
            "v2/account.position": _Route(self._account.get_positions_v3, _SIGNED, 5),
            "account.balance": _Route(self._account.get_balance, _SIGNED, 5),
            "v2/account.balance": _Route(self._account.get_balance, _SIGNED, 5),
            "account.status": _Route(self._account.get_account, _SIGNED, 5),
            "v2/account.status": _Route(self._account.get_account, _SIGNED, 5),
            "userDataStream.start": _Route(self._start_key, _KEYED),
            "userDataStream.ping": _Route(self._keep_key, _KEYED),
            "userDataStream.stop": _Route(self._stop_key, _KEYED),
            "ticker.book": _Route(self._market.get_book_ticker, _PLAIN, 2),
            "ticker.price": _Route(self._market.get_price, _PLAIN),
            "depth": _Route(self._market.get_depth, _PLAIN, 5),
        }
        venue.observe(self)

    def _make_routes(self) -> dict[tuple[str, str], _Route]:
        market, account = self._market, self._account
        routes: dict[tuple[str, str], _Route] = {}

        def add(
            verb: str,
            path: str,
            handler: Handler,
            security: str = _SIGNED,
            weight: Weight = 1,
            orders: Weight = 0,
        ) -> None:
            routes[verb, f"/fapi/{path}"] = _Route(handler, security, weight, orders)

        add("GET", "v1/ping", lambda _: {}, _PLAIN)
        add("GET", "v1/time", market.get_time, _PLAIN)
        add("GET", "v1/exchangeInfo", market.get_info, _PLAIN)
        add(
            "GET",
            "v1/depth",
            market.get_depth,
            _PLAIN,
            _by_rows(500, 2, (100, 5), (500, 10), (1000, 20)),
        )
        add("GET", "v1/ticker/bookTicker", market.get_book_ticker, _PLAIN, _of_symbol(2, 5))
        add("GET", "v1/ticker/24hr", market.get_day, _PLAIN, _of_symbol(1, 40))
        add("GET", "v1/ticker/price", market.get_price, _PLAIN, _of_symbol(1, 2))
        add("GET", "v2/ticker/price", market.get_price, _PLAIN, _of_symbol(1, 2))
        add("GET", "v1/premiumIndex", market.get_premium, _PLAIN, _of_symbol(1, 10))
        add("GET", "v1/fundingRate", self._get_funding, _PLAIN, 0)
        add("GET", "v1/fundingInfo", self._get_funding_info, _PLAIN, 0)
        add(
            "GET",
            "v1/klines",
            market.get_candles,
            _PLAIN,
            _by_rows(500, 1, (100, 2), (500, 5), (1001, 10)),
        )
        add("GET", "v1/aggTrades", market.get_aggregates, _PLAIN, 20)
        add("GET", "v1/trades", market.get_prints, _PLAIN, 5)
        add("GET", "v1/historicalTrades", market.get_prints, _KEYED, 200)
        add("GET", "v1/leverageBracket", market.get_brackets)
        add("POST", "v1/leverage", self._set_leverage)
        add("POST", "v1/marginType", self._set_margin_type)
        add("GET", "v1/positionSide/dual", self._get_position_mode, weight=30)
        add("POST", "v1/positionSide/dual", self._set_position_mode)
        add("GET", "v1/multiAssetsMargin", lambda _: {"multiAssetsMargin": False}, weight=30)
        add("POST", "v1/multiAssetsMargin", self._set_multi_assets)
        add("GET", "v1/accountConfig", account.get_account_config, weight=5)
        add("GET", "v1/symbolConfig", account.get_symbol_config, weight=5)
        for version in ("v2", "v3"):
            add("GET", f"{version}/balance", account.get_balance, weight=5)
            add("GET", f"{version}/account", account.get_account, weight=5)
        add("GET", "v2/positionRisk", account.get_positions_v2, weight=5)
        add("GET", "v3/positionRisk", account.get_positions_v3, weight=5)
        add("GET", "v1/openOrders", self._get_open_orders, weight=_of_symbol(1, 40))
        add("GET", "v1/openOrder", self._get_open_order)
        add("GET", "v1/order", self._get_order)
        add("GET", "v1/allOrders", self._get_all_orders, weight=5)
        add("GET", "v1/userTrades", account.get_fills, weight=5)
        add("POST", "v1/order", self._place, weight=0, orders=1)
        add("POST", "v1/order/test", self._test)
        add("PUT", "v1/order", self._amend, weight=0, orders=1)
        add("DELETE", "v1/order", self._cancel)
        add("POST", "v1/batchOrders", self._place_batch, weight=5, orders=_batch_size)
        add("PUT", "v1/batchOrders", self._amend_batch, weight=5, orders=_batch_size)
        add("DELETE", "v1/batchOrders", self._cancel_batch)
        add("DELETE", "v1/allOpenOrders", self._cancel_all)
        add("POST", "v1/countdownCancelAll", self._count_down, weight=10)
        add("GET", "v1/orderAmendment", self._get_amendments)
        add("GET", "v1/income", account.get_income, weight=30)
        add("GET", "v1/commissionRate", account.get_commission, weight=20)
        add("GET", "v1/rateLimit/order", self._get_order_limits)
        add("GET", "v1/apiTradingStatus", self._get_trading_status, weight=_of_symbol(1, 10))
        add("GET", "v1/adlQuantile", self._get_adl, weight=5)
        add("GET", "v1/forceOrders", account.get_forced, weight=_of_symbol(20, 50))
        # Of the spot host in truth; the test environments do not have it.
        routes["GET", "/sapi/v1/account/apiRestrictions"] = _Route(account.get_rights, _SIGNED)
        add("POST", "v1/listenKey", self._start_key, _KEYED)
        add("PUT", "v1/listenKey", self._keep_key, _KEYED)
        add("DELETE", "v1/listenKey", self._stop_key, _KEYED)
        return routes

    # --- REST ---

    def rest(self, request: HttpRequest) -> HttpReply:
        """Answer one request."""
        now = self._clock.time_ms()
        params: Params = {}
        route = self._routes.get((request.method, request.path))
        headers = dict(_JSON)
        status, code = 200, None
        answer: Any
        self._channel = "rest"
        try:
            if route is None:
                self._limits.take_weight(now, 1)
                return self._no_route(request)
            params = _params_of(request)
            self._limits.take_weight(now, _amount(route.weight, params))
            if len(params) < request.query.count("=") + request.body.count(b"="):
                _check_doubles(request)
            if route.security != _PLAIN:
                self._check_key(request.headers.get("X-MBX-APIKEY"))
            if route.security == _SIGNED:
                self._check_signature(request, params, now)
                self._check_rights(request.method != "GET")
            if route.orders != 0:
                self._limits.take_orders(now, _amount(route.orders, params))
            answer = route.handler(params)
        except AnswerError as e:
            status, code = e.status, e.code
            answer = {"code": e.code, "msg": e.msg}
            if e.retry_after_s is not None:
                headers["Retry-After"] = str(e.retry_after_s)
        headers |= self._limits.headers(now, route is not None and route.orders != 0)
        self._ledger.request(
            request.method, request.path, params, channel="rest", status=status, code=code
        )
        return HttpReply(status, headers, orjson.dumps(answer))

    def _no_route(self, request: HttpRequest) -> HttpReply:
        self._ledger.request(
            request.method, request.path, {}, channel="rest", status=404, code=-5000
        )
        body = {"code": -5000, "msg": f"Path {request.path}, Method {request.method} is invalid"}
        return HttpReply(404, _JSON, orjson.dumps(body))

    def _check_key(self, key: object) -> None:
        if not key or not isinstance(key, str):
            raise AnswerError(-2014, "API-key format invalid.", 401)
        if key != self._key:
            raise _not_permitted()

    def _check_rights(self, trades: bool) -> None:
        if trades and not self._venue.may_trade:
            raise _not_permitted()

    def _check_time(self, params: Params, now_ms: int) -> None:
        stamp = integer(params, "timestamp")
        window = integer(params, "recvWindow", 5000)
        if window > 60_000:
            raise AnswerError(-1131, "recvWindow must be less than 60000")
        if stamp >= now_ms + 1000:
            raise AnswerError(
                -1021, "Timestamp for this request was 1000ms ahead of the server's time."
            )
        if now_ms - stamp > window:
            raise AnswerError(-1021, "Timestamp for this request is outside of the recvWindow.")

    def _check_signature(self, request: HttpRequest, params: Params, now_ms: int) -> None:
        """Check the signature over query and body, as they were sent and it comes last."""
        if not params.get("signature"):
            raise missing("signature")
        query, body = request.query, request.body.decode("utf-8", "replace")
        signed, at = (query, body), 1 if "signature=" in body else 0
        text, _, signature = signed[at].rpartition("signature=")
        text = text.removesuffix("&")
        total = query + text if at else text + body
        self._check_time(params, now_ms)
        if "&" in signature or not self._check.matches(total.encode(), unquote(signature)):
            raise AnswerError(-1022, "Signature for this request is not valid.")

    # --- orders ---

    def _order_of(self, params: Params) -> dict[str, Any]:
        """Read what is asked for as `SimVenue.place` takes it."""
        self._market.check_symbol(params)
        side = {word: side for side, word in SIDES.items()}.get(params.get("side", ""))
        if side is None:
            raise missing("side") if not params.get("side") else AnswerError(-1117, "Invalid side.")
        kind = params.get("type", "")
        if kind in _CONDITIONAL:
            raise AnswerError(
                -4120,
                "Order type not supported for this endpoint. Please use the Algo Order API "
                "endpoints instead.",
            )
        if kind not in ("LIMIT", "MARKET"):
            raise missing("type") if not kind else AnswerError(-1116, "Invalid orderType.")
        for name in ("priceMatch", "closePosition"):
            if params.get(name, "") not in ("", "NONE", "false"):
                raise AnswerError(-1130, f"Data sent for parameter '{name}' is not simulated.")
        if "reduceOnly" in params and self._venue.hedge_mode:
            raise AnswerError(-1106, "Parameter 'reduceonly' sent when not required.")
        hedged = params.get("positionSide", "BOTH") != "BOTH"
        if hedged is not self._venue.hedge_mode:
            raise AnswerError(-4061, "Order's position side does not match user's setting.")
        if hedged:
            raise AnswerError(-1130, "Data sent for parameter 'positionSide' is not simulated.")
        if params.get("selfTradePreventionMode", "NONE") not in _STPS:
            raise AnswerError(-1130, "Data sent for parameter 'selfTradePreventionMode' not valid.")
        if params.get("newOrderRespType", "ACK") not in ("ACK", "RESULT"):
            raise AnswerError(-1130, "Data sent for parameter 'newOrderRespType' is not valid.")
        tif, price = TimeInForce.GTC, 0.0
        if kind == "LIMIT":
            word = params.get("timeInForce", "")
            if word not in TIFS:
                raise (
                    missing("timeInForce")
                    if not word
                    else AnswerError(-1115, "Invalid timeInForce.")
                )
            tif = TIFS[word]
            price = self._units.read_price(params)
        elif "price" in params:
            raise AnswerError(-1106, "Parameter 'price' sent when not required.")
        elif "timeInForce" in params:
            raise AnswerError(-1106, "Parameter 'timeInForce' sent when not required.")
        client_id = params.get("newClientOrderId", "")
        return {
            "client_id": client_id_of(client_id) if client_id else self._made_up_id(),
            "side": side,
            "type": OrderType(kind),
            "tif": tif,
            "price": price,
            "qty": self._units.read_qty(params),
            "reduce_only": flag(params, "reduceOnly"),
        }

    def _made_up_id(self) -> str:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        return "".join(self._random.choices(letters, k=22))

    def _place(self, params: Params) -> Json:
        asked: dict[str, Any] = {}
        try:
            asked = self._order_of(params)
            stp = params.get("selfTradePreventionMode", "NONE")
            order = self._venue.place(**asked, extra={"stp": stp})
        except (Refusal, AnswerError) as e:
            refused = self._refused(e, asked)
            self._note_refused(params, asked, refused.code)
            raise refused from None
        self._ledger.order(order, True, channel=self._channel)
        answer = order_answer(order, self._units)
        if params.get("newOrderRespType") != "RESULT":
            # An acknowledgement comes before what takes at once has filled.
            nothing = self._units.qty(0.0)
            answer |= {"status": "NEW", "executedQty": nothing, "cumQty": nothing}
        return answer

    def _refused(self, error: Exception, asked: Mapping[str, Any]) -> AnswerError:
        if isinstance(error, AnswerError):
            return error
        assert isinstance(error, Refusal)
        code, text = REFUSALS[error.reason]
        if error.reason is Reason.OUT_OF_BAND and asked.get("side") == -1:
            code, text = -4024, "Limit price can't be lower than the bound."
        if error.reason is Reason.NOTIONAL_TOO_SMALL:
            text = text.replace("5", f"{self._venue.listing.market.min_cost:g}", 1)
        return AnswerError(code, text)

    def _note_refused(self, params: Params, asked: Mapping[str, Any], code: int) -> None:
        row = {
            "client_id": params.get("newClientOrderId"),
            "side": asked.get("side"),
            "price": asked.get("price"),
            "qty": asked.get("qty"),
            "reduce_only": asked.get("reduce_only"),
            "post_only": params.get("timeInForce") == "GTX",
        }
        self._ledger.order(row, False, code, self._channel)

    def _test(self, params: Params) -> Json:
        self._order_of(params)
        return {}

    def _found(self, params: Params, code: int = -2011) -> SimOrder:
        self._market.check_symbol(params)
        text = {-2011: "Unknown order sent.", -2013: "Order does not exist."}[code]
        client_id = params.get("origClientOrderId", "")
        if not params.get("orderId") and not client_id:
            raise AnswerError(
                -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty."
            )
        try:
            if params.get("orderId"):
                return self._venue.find(order_id=integer(params, "orderId"))
            return self._venue.find(client_id=client_id)
        except Refusal:
            raise AnswerError(code, text) from None

    def _amend(self, params: Params) -> Json:
        order = self._found(params, -2013)
        if SIDES[order.side] != params.get("side"):
            raise AnswerError(-1117, "Invalid side.") if params.get("side") else missing("side")
        if order.type is not OrderType.LIMIT:
            raise AnswerError(-5025, "Only limit order is supported.")
        flagged = flag(params, "reduceOnly")
        if flagged and not order.reduce_only:
            raise AnswerError(-5047, "Only reduce-only orders can be amended with reduceOnly.")
        price, qty = self._units.read_price(params), self._units.read_qty(params)
        if order.reduce_only and not flagged and price * qty < self._venue.listing.market.min_cost:
            # It is exempt only when that is said again.
            raise self._refused(Refusal(Reason.NOTIONAL_TOO_SMALL), {})
        history = self._amendments.setdefault(order.order_id, [])
        if len(history) >= _MOST_AMENDMENTS:
            raise AnswerError(-5026, "Exceed maximum modify order limit.")
        modify_id = integer(params, "modifyId") if "modifyId" in params else None
        before = {"price": order.price, "origQty": order.qty}
        if modify_id is not None:
            order.extra["modify_id"] = str(modify_id)
        try:
            changed = self._venue.amend(order, price=price, qty=qty)
        except Refusal as e:
            raise self._refused(e, {"side": order.side}) from None
        finally:
            order.extra.pop("modify_id", None)
        answer = order_answer(changed, self._units) | {"pair": self._units.symbol}
        if modify_id is not None:
            answer["modifyId"] = modify_id
        history.append(self._amendment(changed, before, len(history) + 1, modify_id))
        return answer

    def _amendment(
        self, order: SimOrder, before: dict[str, float], n: int, modify_id: int | None
    ) -> Json:
        units = self._units
        self._amendment_ids += 1
        changes: Json = {
            "price": {"before": units.price(before["price"]), "after": units.price(order.price)},
            "origQty": {"before": units.qty(before["origQty"]), "after": units.qty(order.qty)},
            "count": n,
        }
        if modify_id is not None:
            changes["modifyId"] = modify_id
        return {
            "amendmentId": self._amendment_ids,
            "symbol": units.symbol,
            "pair": units.symbol,
            "orderId": order.order_id,
            "clientOrderId": order.client_id,
            "time": order.updated_ms,
            "amendment": changes,
        }

    def _cancel(self, params: Params) -> Json:
        order = self._found(params)
        try:
            return order_answer(self._venue.cancel(order), self._units)
        except Refusal as e:
            raise self._refused(e, {}) from None

    def _place_batch(self, params: Params) -> list[Json]:
        return self._each(params, self._place)

    def _amend_batch(self, params: Params) -> list[Json]:
        return self._each(params, self._amend)

    def _each(self, params: Params, do: Handler) -> list[Json]:
        rows = _batch_of(params)
        if not 0 < len(rows) <= 5:
            raise AnswerError(-4082, "Invalid number of batch place orders.")
        return [_attempt(do, row) for row in rows]

    def _cancel_batch(self, params: Params) -> list[Json]:
        self._market.check_symbol(params)
        try:
            # The pages write the lists in camel case; published clients send them in lower case.
            numbers, words = (
                orjson.loads(params.get(name) or params.get(name.lower()) or "[]")
                for name in ("orderIdList", "origClientOrderIdList")
            )
        except ValueError:
            raise AnswerError(
                -1130, "Data sent for parameter 'orderIdList' is not valid."
            ) from None
        if not (isinstance(numbers, list) and isinstance(words, list)):
            raise AnswerError(-1130, "Data sent for parameter 'orderIdList' is not valid.")
        if not 0 < len(numbers) + len(words) <= 10:
            raise AnswerError(-4082, "Invalid number of batch cancel orders.")
        symbol = params["symbol"]
        rows = [{"symbol": symbol, "orderId": str(number)} for number in numbers]
        rows += [{"symbol": symbol, "origClientOrderId": str(word)} for word in words]
        return [_attempt(self._cancel, row) for row in rows]

    def _cancel_all(self, params: Params) -> Json:
        self._market.check_symbol(params)
        self._venue.cancel_all()
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    def _count_down(self, params: Params) -> Json:
        self._market.check_symbol(params)
        countdown_ms = integer(params, "countdownTime")
        if self._dead_man is not None:
            self._dead_man.cancel()
            self._dead_man = None
        if countdown_ms:
            self._dead_man = self._clock.call_later(
                countdown_ms / 1000, lambda: self._venue.cancel_all(reason="dead_man")
            )
        return {"symbol": self._units.symbol, "countdownTime": str(countdown_ms)}

    # --- queries ---

    def _get_order(self, params: Params) -> Json:
        order = self._found(params, -2013)
        if self._forgotten(order):
            raise AnswerError(-2013, "Order does not exist.")
        return order_query(order, self._units)

    def _forgotten(self, order: SimOrder) -> bool:
        """Whether queries do not know an order any more."""
        age_ms = self._clock.time_ms() - order.created_ms
        life_ms = _ORDER_LIFE_MS if order.filled else _EMPTY_LIFE_MS
        return order.status.final and age_ms > life_ms

    def _get_open_order(self, params: Params) -> Json:
        order = self._found(params, -2013)
        if order.status.final:
            raise AnswerError(-2013, "Order does not exist.")
        return order_query(order, self._units)

    def _get_open_orders(self, params: Params) -> list[Json]:
        if params.get("symbol"):
            self._market.check_symbol(params)
        return [order_query(order, self._units) for order in self._venue.open_orders()]

    def _get_all_orders(self, params: Params) -> list[Json]:
        limit = limit_of(params, 500)
        if params.get("symbol"):
            self._market.check_symbol(params)
        orders = [o for o in self._venue.orders.values() if not self._forgotten(o)]
        if "orderId" in params:
            first = integer(params, "orderId")
            orders = [order for order in orders if order.order_id >= first][:limit]
        else:
            start, end = ts_range(params, self._clock.time_ms(), WEEK_MS, inclusive=False)
            orders = [order for order in orders if start <= order.created_ms <= end]
            orders = orders[:limit] if "startTime" in params else orders[-limit:]
        return [order_query(order, self._units) for order in orders]

    def _get_amendments(self, params: Params) -> list[Json]:
        order = self._found(params, -2013)
        limit = limit_of(params, 50, 100)
        return self._amendments.get(order.order_id, [])[-limit:]

    def _get_funding(self, params: Params) -> list[Json]:
        self._limits.take_funding(self._clock.time_ms())
        return self._market.get_funding(params)

    def _get_funding_info(self, params: Params) -> list[Json]:
        self._limits.take_funding(self._clock.time_ms())
        return self._market.get_funding_info(params)

    def _get_trading_status(self, params: Params) -> Json:
        return {"updateTime": self._clock.time_ms(), "indicators": {}}

    def _get_order_limits(self, params: Params) -> list[Json]:
        return [self._limits.orders_10s.rule, self._limits.orders_1m.rule]

    def _get_adl(self, params: Params) -> list[Json]:
        return [{"symbol": self._units.symbol, "adlQuantile": {"BOTH": 2, "LONG": 0, "SHORT": 0}}]

    def _get_position_mode(self, params: Params) -> Json:
        return {"dualSidePosition": self._venue.hedge_mode}

    # --- settings ---

    def _set_leverage(self, params: Params) -> Json:
        self._market.check_symbol(params)
        leverage, venue = integer(params, "leverage"), self._venue
        if not venue.cross_mode and venue.size and leverage < venue.leverage:
            raise AnswerError(
                -4161,
                "Leverage reduction is not supported in Isolated Margin Mode with open positions",
            )
        try:
            venue.set_leverage(float(leverage))
        except Refusal as e:
            if e.reason is Reason.MARGIN:
                raise AnswerError(
                    -2028, "Leverage is smaller than permitted: insufficient margin balance"
                ) from None
            if e.reason is not Reason.ALREADY_SO:
                raise AnswerError(*REFUSALS[e.reason]) from None
        return {
            "leverage": leverage,
            "maxNotionalValue": self._account.most_notional(),
            "symbol": self._units.symbol,
        }

    def _set_margin_type(self, params: Params) -> Json:
        self._market.check_symbol(params)
        word = params.get("marginType", "")
        if word not in ("ISOLATED", "CROSSED"):
            raise missing("marginType")
        try:
            self._venue.set_cross_mode(word == "CROSSED")
        except Refusal as e:
            raise AnswerError(*REFUSALS[e.reason]) from None
        return {"code": 200, "msg": "success"}

    def _set_position_mode(self, params: Params) -> Json:
        if not params.get("dualSidePosition"):
            raise missing("dualSidePosition")
        codes = {
            Reason.ALREADY_SO: (-4059, "No need to change position side."),
            Reason.HAS_ORDERS: (
                -4067,
                "Position side cannot be changed if there exists open orders.",
            ),
            Reason.HAS_POSITION: (
                -4068,
                "Position side cannot be changed if there exists position.",
            ),
        }
        try:
            self._venue.set_hedge_mode(flag(params, "dualSidePosition"))
        except Refusal as e:
            raise AnswerError(*codes[e.reason]) from None
        return {"code": 200, "msg": "success"}

    def _set_multi_assets(self, params: Params) -> Json:
        if flag(params, "multiAssetsMargin"):
            raise AnswerError(-4171, "Multi-assets mode is not simulated.")
        raise AnswerError(-4171, "No need to change multi-assets margin.")

    # --- listenKeys ---

    def _start_key(self, params: Params) -> Json:
        if not self._key_lives():
            self._listen_key = secrets.token_hex(32)
        self._listen_key_ends_ms = self._clock.time_ms() + _KEY_LIFE_MS
        return {"listenKey": self._listen_key}

    def _keep_key(self, params: Params) -> Json:
        if not self._key_lives():
            raise AnswerError(-1125, "This listenKey does not exist.")
        self._listen_key_ends_ms = self._clock.time_ms() + _KEY_LIFE_MS
        return {"listenKey": self._listen_key}

    def _stop_key(self, params: Params) -> Json:
        if not self._key_lives():
            raise AnswerError(-1125, "This listenKey does not exist.")
        self._listen_key = ""
        return {}

    def _key_lives(self) -> bool:
        return bool(self._listen_key) and self._clock.time_ms() < self._listen_key_ends_ms

    def expire_listen_key(self) -> None:
        """End the listenKey before its time."""
        key, self._listen_key = self._listen_key, ""
        now = self._clock.time_ms()
        event = {"e": "listenKeyExpired", "E": now, "listenKey": key}
        for session in list(self._sessions):
            listener = session.state
            if isinstance(listener, _Listener) and key in listener.keys:
                self._send(session, key, event)

    # --- websockets ---

    def accept(self, path: str, query: str) -> str | None:
        """Return the channel of a path: the split of 2026, and the old one, which is /public."""
        if path == "/ws-fapi/v1":
            return "trade"
        head, _, rest = path[1:].partition("/")
        if head in ("ws", "stream"):
            head, rest = "public", path[1:]
        kind = rest.partition("/")[0]
        return (
            head if head in ("public", "market", "private") and kind in ("ws", "stream") else None
        )

    def opened(self, session: Session) -> None:
        """Take a new socket in, with the streams its URL names."""
        self._sessions[session] = self._clock.time_ms()
        if session.channel == "trade":
            session.state = None  # since when it is logged on, once it is
            # It counts, and is opened whatever has been counted.
            with contextlib.suppress(AnswerError):
                self._limits.take_weight(self._clock.time_ms(), 5)
            return
        parts = session.path.strip("/").split("/")
        combined = "stream" in parts[:2]
        listener = session.state = _Listener(combined)
        query = parse_qsl(session.query)
        if session.channel == "private":
            events: list[str] = []
            keys = parts[parts.index("stream" if combined else "ws") + 1 :]
            for name, value in query:
                if name == "listenKey":
                    keys.append(value)
                elif name == "events":
                    events.append(value)
                elif name == "streams":
                    keys += value.split("/")
            for i, key in enumerate(keys):
                wanted = events[i].split("/") if i < len(events) else ()
                listener.keys[key] = frozenset(wanted)
            return
        names = [name for word, value in query if word == "streams" for name in value.split("/")]
        if not names and "ws" in parts:
            names = parts[parts.index("ws") + 1 :]
        for name in filter(None, names):
            self._join(session, name)

    def closed(self, session: Session) -> None:
        """Forget a socket."""
        del self._sessions[session]
        if isinstance(session.state, _Listener):
            for name in list(session.state.streams):
                self._leave(session, name)

    def message(self, session: Session, text: str) -> None:
        """Answer one message of a client."""
        try:
            request = orjson.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            request = {}
        if session.channel == "trade":
            self._serve_trade(session, request)
        else:
            self._serve_stream(session, request)

    def _serve_stream(self, session: Session, request: Json) -> None:
        listener: _Listener = session.state
        now = self._clock.time_ms()
        if self._limits.enabled:
            frames = listener.frames
            while frames and frames[0] <= now - 1000:
                frames.popleft()
            frames.append(now)
            if len(frames) > _MOST_FRAMES:
                session.close(1008, "Too many requests")
                return
        id, method, names = request.get("id"), request.get("method"), request.get("params", [])
        answer: Json
        # The page wants a whole number; the venue's own client sends UUIDs, and is served.
        if not ((type(id) is int and id >= 0) or (isinstance(id, str) and 0 < len(id) <= 36)):
            answer = {
                "code": 2,
                "msg": "Invalid request: request ID must be an unsigned integer",
            }
        elif method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if isinstance(names, list) and all(isinstance(name, str) for name in names):
                for name in names:
                    (self._join if method == "SUBSCRIBE" else self._leave)(session, name)
                answer = {"result": None, "id": id}
            else:
                answer = {"code": 2, "msg": "Invalid request: invalid stream names", "id": id}
        elif method == "LIST_SUBSCRIPTIONS":
            answer = {"result": sorted(listener.streams), "id": id}
        elif method == "SET_PROPERTY" and isinstance(names, list) and len(names) == 2:
            listener.combined = names[1] is True
            answer = {"result": None, "id": id}
        elif method == "GET_PROPERTY":
            answer = {"result": listener.combined, "id": id}
        else:
            answer = {
                "code": 2,
                "msg": "Invalid request: unknown variant, expected one of `SUBSCRIBE`, "
                "`UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`",
            }
        session.send(orjson.dumps(answer))
        told = [_shown(name) for name in names] if isinstance(names, list) else None
        self._ledger.request(
            _shown(method), session.path, {"params": told}, channel="ws", status=200, code=None
        )

    def _join(self, session: Session, name: str) -> None:
        listener: _Listener = session.state
        if name in listener.streams:
            return
        if len(listener.streams) >= _MOST_STREAMS:
            session.close(1008, "Too many streams")
            return
        listener.streams.add(name)
        if session.channel == "private":
            listener.keys[name] = frozenset()
            return
        # On the wrong path a stream is taken and stays silent.
        head, _, tail = name.partition("@")
        kind = head[1:] if name.startswith("!") else tail or name
        kind = kind.partition("@")[0].partition("_")[0].rstrip("0123456789")
        if PATHS.get(kind) == session.channel:
            self._heard.setdefault(name, []).append(session)
            self._market.joined(name)

    def _leave(self, session: Session, name: str) -> None:
        session.state.streams.discard(name)
        session.state.keys.pop(name, None)
        sessions = self._heard.get(name, [])
        if session in sessions:
            sessions.remove(session)
            if not sessions:
                del self._heard[name]

    def listened(self, stream: str) -> bool:
        """Whether anybody listens to a stream, on its own path."""
        return stream in self._heard

    def publish(self, stream: str, event: object) -> None:
        """Send an event to whoever listens."""
        plain = orjson.dumps(event)
        wrapped = b""
        for session in list(self._heard.get(stream, ())):
            if session.state.combined:
                wrapped = wrapped or b'{"stream":"%s","data":%s}' % (stream.encode(), plain)
                session.send(wrapped)
            else:
                session.send(plain)

    def _tell_account(self, event: Json) -> None:
        if not self._key_lives():
            return
        for session in list(self._sessions):
            listener = session.state
            if isinstance(listener, _Listener) and self._listen_key in listener.keys:
                wanted = listener.keys[self._listen_key]
                if not wanted or event["e"] in wanted:
                    self._send(session, self._listen_key, event)

    @staticmethod
    def _send(session: Session, key: str, event: Json) -> None:
        if session.state.combined:
            session.send(orjson.dumps({"stream": key, "data": event}))
        else:
            session.send(orjson.dumps(event))

    # --- order entry over a socket ---

    def _serve_trade(self, session: Session, request: Json) -> None:
        now = self._clock.time_ms()
        id, method, raw = request.get("id"), request.get("method"), request.get("params", {})
        params = {str(k): _word(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
        status, code, result, error = 200, None, None, None
        route: _Route | None = None
        self._channel = "ws"
        try:
            if method in ("session.logon", "session.status", "session.logout"):
                result = self._session_of(session, str(method), raw, params, now)
            else:
                route = self._methods.get(str(method))
                if route is None:
                    raise AnswerError(-1000, f"Unknown method: {method}")
                self._limits.take_weight(now, _amount(route.weight, params))
                if route.security != _PLAIN:
                    self._check_frame(session, raw, params, route.security, now)
                self._check_rights(method in _TRADING)
                if route.orders != 0:
                    self._limits.take_orders(now, _amount(route.orders, params))
                result = route.handler(params)
        except AnswerError as e:
            status, code = e.status, e.code
            error = {"code": e.code, "msg": e.msg}
            if e.retry_after_s is not None:
                error["data"] = {"serverTime": now, "retryAfter": now + 1000 * e.retry_after_s}
        answer: Json = {"id": id, "status": status}
        answer |= {"result": result} if error is None else {"error": error}
        quiet = params.get("returnRateLimits") == "false"
        if not quiet and "returnRateLimits=false" not in session.query:
            answer["rateLimits"] = self._limits.rows(route is not None and route.orders != 0)
        session.send(orjson.dumps(answer))
        self._ledger.request(
            _shown(method), session.path, params, channel="ws", status=status, code=code
        )

    def _check_frame(
        self, session: Session, raw: Json, params: Params, security: str, now_ms: int
    ) -> None:
        if session.state is not None and "apiKey" not in params:
            # Logged on: neither key nor signature are needed any more.
            if security == _SIGNED:
                self._check_time(params, now_ms)
            return
        self._check_key(params.get("apiKey"))
        if security != _SIGNED:
            return
        if not params.get("signature"):
            raise missing("signature")
        self._check_time(params, now_ms)
        rows = sorted((k, v) for k, v in raw.items() if k != "signature")
        # Published clients read the rule both ways: plain values, and percent-encoded ones.
        texts = {
            "&".join(f"{k}={_word(v)}" for k, v in rows),
            "&".join(f"{k}={quote(_word(v), safe='')}" for k, v in rows),
            "&".join(f"{k}={v}" for k, v in rows),
        }
        if not any(self._check.matches(t.encode(), params["signature"]) for t in texts):
            raise AnswerError(-1022, "Signature for this request is not valid.")

    def _session_of(
        self, session: Session, method: str, raw: Json, params: Params, now_ms: int
    ) -> Json:
        if method == "session.logon":
            if not self._ed25519:
                raise AnswerError(-4056, "HMAC_SHA256 API key is not supported.", 401)
            self._check_frame(session, raw, params, _SIGNED, now_ms)
            session.state = now_ms
        elif method == "session.logout":
            session.state = None
        return {
            "apiKey": None if session.state is None else self._key,
            "authorizedSince": session.state,
            "connectedSince": self._sessions[session],
            "returnRateLimits": True,
            "serverTime": now_ms,
        }

    # --- what happens: an observer of the venue ---

    def housekeeping(self, now_ms: int) -> None:
        """Expire the listenKey, and tell mark price and funding."""
        if self._listen_key and not self._key_lives():
            self.expire_listen_key()
        for session, opened_ms in list(self._sessions.items()):
            if now_ms - opened_ms >= _SOCKET_LIFE_MS:
                session.close(1001, "lived for 24 hours")
        self._market.housekeeping()
        self._account.housekeeping()

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        self._market.on_print(trade_id, price, qty, buyer_maker)

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        self._market.on_quote(bid, ask)

    def on_order(self, order: SimOrder, what: str) -> None:
        self._account.on_order(order, what)

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        self._account.on_execution(order, execution)
        if execution.kind is Kind.LIQUIDATION:
            self._market.on_liquidation(execution)

    def on_account(self, why: str) -> None:
        self._account.on_account(why)

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        self._account.on_funding(amount, ts_ms)

    def on_terms(self, what: str) -> None:
        if what == "rules":
            self._units.update(self._venue.listing)
        self._account.on_terms(what)
        self._market.on_terms(what)


def _not_permitted() -> AnswerError:
    return AnswerError(
        -2015, "Invalid API-key, IP, or permissions for action, request ip: 127.0.0.1", 401
    )


def _params_of(request: HttpRequest) -> Params:
    body = request.body.decode("utf-8", "replace")
    return dict(
        parse_qsl(request.query, keep_blank_values=True) + parse_qsl(body, keep_blank_values=True)
    )


def _check_doubles(request: HttpRequest) -> None:
    body = request.body.decode("utf-8", "replace")
    names = [
        name
        for text in (request.query, body)
        for name, _ in parse_qsl(text, keep_blank_values=True)
    ]
    if len(set(names)) < len(names):
        raise AnswerError(-1101, "Duplicate values for a parameter detected.")


def _amount(weight: Weight, params: Params) -> int:
    return weight if isinstance(weight, int) else weight(params)


def _of_symbol(one: int, every: int) -> Weight:
    """Return the weight of what may be asked of one symbol or of every."""
    return lambda params: one if params.get("symbol") else every


def _by_rows(default: int, least: int, *steps: tuple[int, int]) -> Weight:
    """Return the weight of so many rows: the last step's whose rows they reach."""

    def weight(params: Params) -> int:
        text = params.get("limit", "")
        rows = int(text) if text.isascii() and text.isdecimal() and len(text) < 8 else default
        return max([least, *(each for first, each in steps if rows >= first)])

    return weight


def _batch_of(params: Params) -> list[Params]:
    try:
        rows = orjson.loads(params.get("batchOrders") or "[]")
    except ValueError:
        raise AnswerError(-1130, "Data sent for parameter 'batchOrders' is not valid.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AnswerError(-1130, "Data sent for parameter 'batchOrders' is not valid.")
    return [{str(k): _word(v) for k, v in row.items()} for row in rows]


def _batch_size(params: Params) -> int:
    try:
        return max(1, len(_batch_of(params)))
    except AnswerError:
        return 1


def _attempt(do: Handler, row: Params) -> Json:
    try:
        answer: Json = do(row)
    except AnswerError as e:
        return {"code": e.code, "msg": e.msg}
    return answer


def _word(value: Any) -> str:
    """Return a parameter of a JSON frame as the text that REST would send."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _shown(name: object) -> str:
    """Return a method or a stream as the ledger may have it: no key, which is longer than names."""
    text = str(name) if isinstance(name, str | bool | int | float | None) else "(not a name)"
    return text if len(text) <= _LONGEST_NAME else "(hidden)"
