"""Bybit V5 as it speaks: REST, public and private streams, and order entry over a socket.

The front turns requests into calls of `SimVenue`, its refusals into the venue's codes, and what it
hears as the venue's `Observer` into topics. Facts come from docs/protocol facts, part B; what they
leave open was decided by what pybit and ccxt accept. The listing decides the category:
``inverse`` or ``linear``; the other one exists and lists nothing.

Here is who gets in and what a request does. What is shown of the market is in `bybit_market`, what
is shown of the account in `bybit_account`; the words, codes and topics they share in `bybit_words`.

Left out, and refused rather than ignored: conditional orders, take-profit and stop-loss of
positions, RPI, best-bid-offer and slippage parameters, RSA keys.
"""

from __future__ import annotations

import hmac
import string
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl

import orjson

from passivx.clock import Clock
from passivx.simulator.bybit_account import AccountFace
from passivx.simulator.bybit_market import DEPTHS, INTERVALS, MarketFace
from passivx.simulator.bybit_words import (
    CATEGORIES,
    SIDES,
    TIFS,
    TYPES,
    UNCHANGED_TEXT,
    AnswerError,
    Hub,
    Json,
    Params,
    Units,
    Window,
    amount,
    bad,
    digits,
    flag,
    number,
    refused_by,
)
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpReply, HttpRequest
from passivx.simulator.server import Session
from passivx.simulator.venue import (
    Execution,
    OrderType,
    Policy,
    Reason,
    Refusal,
    SimOrder,
    SimVenue,
    TimeInForce,
)

__all__ = ["POLICY", "BybitFront"]

POLICY: Final = Policy(
    post_only_cancels=True,
    reduce_only_trims=True,
    ids_unique_for_ever=True,
    band_moves=True,
)

_JSON: Final = "application/json; charset=utf-8"
_PRIVATE_TOPICS: Final = ("order", "execution", "execution.fast", "position")
_WHOLE_TOPICS: Final = frozenset({"wallet", "greeks", "dcp.future", "dcp.spot", "dcp.option"})
_MOST_ARGUMENT_TEXT: Final = 21_000
_BANNED_MS: Final = 600_000
# Fields of a request that would change what the order means and that nothing here acts on.
_NOT_SIMULATED: Final = (
    "triggerPrice",
    "takeProfit",
    "stopLoss",
    "bboSideType",
    "slippageToleranceType",
    "orderIv",
)
_LINK_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "-_")
_LONGEST_LINK: Final = 36
_MOST_IN_BATCH: Final = 20
_ORDERS_PER_S: Final = 10  # of each kind of message, for accounts without status
_IDLE_MS: Final = 600_000
_NOTHING: Final[Json] = {}
# What the trade socket does, and whose limit that has.
_OPERATIONS: Final = {
    f"order.{what}": f"/v5/order/{what}"
    for what in ("create", "amend", "cancel", "create-batch", "amend-batch", "cancel-batch")
}


@dataclass(slots=True)
class _Connection:
    """What the front knows of one socket."""

    conn_id: str
    category: str  # of a public socket
    heard_ms: int
    idle_ms: int
    signed_in: bool = False
    topics: set[str] = field(default_factory=set)
    request_ids: set[str] = field(default_factory=set)
    request_order: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))


@dataclass(frozen=True, slots=True)
class _Batch:
    """The answer to several orders at once: element by element."""

    result: Json
    ext: Json


Handler = Callable[[Params], Json | _Batch]


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    handler: Handler
    limit: Window | None  # None: public, or counted element by element
    signed: bool
    message: str = "OK"


def _changed(change: Callable[[], None], already_so: AnswerError) -> Json:
    try:
        change()
    except Refusal as refusal:
        if refusal.reason is Reason.ALREADY_SO:
            raise already_so from None
        raise refused_by(refusal) from None
    return {}


def _not_permitted() -> AnswerError:
    return AnswerError(10005, "Permission denied, please check your API key permissions.")


def _too_often() -> AnswerError:
    return AnswerError(10006, "Too many visits. Exceeded the API Rate Limit.")


def _check_simulated(params: Params) -> None:
    for name in _NOT_SIMULATED:
        if params.get(name) not in (None, "", "0"):
            raise bad(f"{name} is not simulated")


def _margin_mode_failed(code: str, text: str) -> AnswerError:
    return AnswerError(
        3400045,
        "Set margin mode failed",
        {"reasons": [{"reasonCode": code, "reasonMsg": text}]},
    )


def _active_time_ms(query: str) -> int:
    """Return how long a private socket may be silent: ``max_active_time``, 30s to 600s."""
    text = dict(parse_qsl(query)).get("max_active_time", "")
    unit = {"s": 1000, "m": 60_000}.get(text[-1:], 0)
    number = digits(text[:-1])
    if not unit or number is None:
        return _IDLE_MS
    return max(30_000, min(number * unit, _IDLE_MS))


class BybitFront:
    """The venue's face; see `simulator.server.Front` for what calls it.

    ``limits`` False keeps no rate limits, those of the address neither.
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
        self._secret = secret.encode()
        self._limited = limits
        now = clock.time_ms()
        self._units = Units(venue.listing)
        self._hub = Hub(now)
        self._market = MarketFace(venue, clock, self._units, self._hub)
        self._account = AccountFace(venue, clock, self._units, self._hub)
        self._open: list[Session] = []
        self._connections = 0
        self._answers = 0
        self._margin_updated_ms = now
        self._channel = "rest"  # the way the request that is being served came
        self._address = Window(600, 5000)
        self._banned_until_ms = 0
        self._limits: dict[str, Window] = {}
        self._routes = self._make_routes()
        ledger.order_text = self._account.order_text
        venue.observe(self)

    def _window(self, path: str, per_s: int) -> Window:
        window = self._limits[path] = Window(per_s, 1000)
        return window

    def _make_routes(self) -> dict[str, _Route]:
        per_s = _ORDERS_PER_S
        routes: dict[str, _Route] = {}

        def public(path: str, handler: Handler) -> None:
            routes[path] = _Route("GET", handler, None, signed=False)

        def read(path: str, limit: int, handler: Handler, message: str = "OK") -> None:
            routes[path] = _Route("GET", handler, self._window(path, limit), True, message)

        def write(path: str, limit: int, handler: Handler, message: str = "OK") -> None:
            routes[path] = _Route("POST", handler, self._window(path, limit), True, message)

        def batch(path: str, handler: Handler) -> None:
            self._window(path, per_s)
            routes[path] = _Route("POST", handler, None, signed=True)

        public("/v5/market/time", self._market.get_time)
        public("/v5/market/instruments-info", self._market.get_instruments)
        public("/v5/market/risk-limit", self._market.get_risk_limit)
        public("/v5/market/orderbook", self._market.get_book)
        public("/v5/market/tickers", self._market.get_tickers)
        public("/v5/market/funding/history", self._market.get_funding)
        public("/v5/market/recent-trade", self._market.get_prints)
        public("/v5/market/kline", self._market.get_candles)
        public("/v5/market/price-limit", self._market.get_price_limit)
        read("/v5/account/instruments-info", 10, self._market.get_own_instruments)
        read("/v5/account/wallet-balance", 50, self._account.get_wallet)
        read("/v5/account/info", 50, self._get_account)
        read("/v5/account/fee-rate", 5, self._get_fees)
        read("/v5/account/user-setting-config", 50, self._get_settings)
        read("/v5/account/transaction-log", 25, self._account.get_log)
        read("/v5/account/query-dcp-info", 5, self._get_dcp, "success")
        read("/v5/account/smp-group", 50, lambda _: {"smpGroup": 0})
        read("/v5/asset/coin/query-info", 5, self._get_coins, "")
        read("/v5/user/query-api", 10, self._get_key, "")
        read("/v5/position/list", 50, self._account.get_position)
        read("/v5/position/closed-pnl", 50, self._account.get_closings)
        read("/v5/order/realtime", 50, self._account.get_live_orders)
        read("/v5/order/history", 50, self._account.get_old_orders)
        read("/v5/execution/list", 50, self._account.get_fills)
        write("/v5/order/create", per_s, self._create)
        write("/v5/order/amend", per_s, self._amend)
        write("/v5/order/cancel", per_s, self._cancel)
        write("/v5/order/cancel-all", per_s, self._cancel_all)
        batch("/v5/order/create-batch", self._create_batch)
        batch("/v5/order/amend-batch", self._amend_batch)
        batch("/v5/order/cancel-batch", self._cancel_batch)
        write("/v5/order/pre-check", 10, self._check)
        write("/v5/order/disconnected-cancel-all", 5, self._set_dcp)
        write("/v5/position/set-leverage", 10, self._set_leverage)
        write("/v5/position/switch-mode", 10, self._set_position_mode)
        read("/v5/account/collateral-info", 50, self._get_collateral)
        write("/v5/account/set-collateral-switch", 5, self._set_collateral, "SUCCESS")
        write("/v5/position/switch-isolated", 10, self._retired)
        write("/v5/account/set-margin-mode", 5, self._set_margin_mode, "Request accepted")
        write("/v5/account/set-limit-px-action", 10, self._set_price_action, "success")
        return routes

    def rest(self, request: HttpRequest) -> HttpReply:
        """Answer one request."""
        now = self._clock.time_ms()
        params: Params = {}
        if self._over_limit(now):
            self._note(request, params, 403, None)
            return HttpReply(403, {"Content-Type": "text/plain"}, b"access too frequent")
        route = self._routes.get(request.path)
        if route is None or route.method != request.method:
            self._note(request, params, 404, None)
            return HttpReply(404, {"Content-Type": "text/plain"}, b"404 page not found")
        if request.method == "GET" and request.body:
            self._note(request, params, 403, None)
            return HttpReply(403, {"Content-Type": "text/plain"}, b"Forbidden")
        self._channel = "rest"
        code, text, result, ext = 0, route.message, _NOTHING, _NOTHING
        try:
            if route.signed:
                self._authenticate(request, now)
            params = self._read(request)
            result, ext = self._do(route, params, now)
        except AnswerError as refused:
            code, text, result = refused.code, refused.text, refused.result
        self._note(request, params, 200, code)
        self._answers += 1
        headers = {
            "Content-Type": _JSON,
            "Traceid": f"{self._answers:032x}",
            "Timenow": str(now),
        }
        if route.signed:
            headers |= self._limit_headers(request.path, now)
        body = orjson.dumps(
            {"retCode": code, "retMsg": text, "result": result, "retExtInfo": ext, "time": now}
        )
        return HttpReply(200, headers, body)

    def _do(self, route: _Route, params: Params, now_ms: int) -> tuple[Json, Json]:
        """Do what is asked for, within its limit; return the result and what is said beside it."""
        if self._limited and route.limit is not None and not route.limit.take(now_ms):
            raise _too_often()
        if route.method == "POST" and not self._venue.may_trade:
            raise _not_permitted()
        done = route.handler(params)
        return (done.result, done.ext) if isinstance(done, _Batch) else (done, _NOTHING)

    def _over_limit(self, now_ms: int) -> bool:
        """Tell whether the address is locked out; it stays so for ten minutes."""
        if not self._limited:
            return False
        if now_ms < self._banned_until_ms:
            return True
        if self._address.take(now_ms):
            return False
        self._banned_until_ms = now_ms + _BANNED_MS
        return True

    def _limit_headers(self, path: str, now_ms: int) -> dict[str, str]:
        window = self._limits[path]
        return {
            "X-Bapi-Limit": str(window.limit),
            "X-Bapi-Limit-Status": str(window.left),
            "X-Bapi-Limit-Reset-Timestamp": str(window.resets_ms(now_ms)),
        }

    def _read(self, request: HttpRequest) -> Params:
        if request.method == "GET":
            return dict(parse_qsl(request.query, keep_blank_values=True))
        try:
            params = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise bad("Request parameter error.") from None
        if not isinstance(params, dict):
            raise bad("Request parameter error.")
        return params

    def _authenticate(self, request: HttpRequest, now_ms: int) -> None:
        headers = request.headers
        key = headers.get("X-BAPI-API-KEY", "")
        stamp = headers.get("X-BAPI-TIMESTAMP", "")
        signature = headers.get("X-BAPI-SIGN", "")
        window = headers.get("X-BAPI-RECV-WINDOW", "")
        if not (key and stamp and signature):
            raise bad(f"empty value: apiTimestamp[{stamp}] apiKey[{key}] apiSignature[]")
        if key != self._key:
            raise AnswerError(10003, "API key is invalid.")
        self._check_time(stamp, window or "5000", now_ms)
        payload = request.query.encode() if request.method == "GET" else request.body
        origin = f"{stamp}{key}{window}".encode() + payload
        if not hmac.compare_digest(self._sign(origin), signature.encode()):
            shown = origin.decode(errors="replace")
            raise AnswerError(10004, f"error sign! origin_string[{shown}]")

    def _sign(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, text, "sha256").hex().encode()

    def _check_time(self, stamp: str, window: str, now_ms: int) -> None:
        stamp_ms, window_ms = digits(stamp), digits(window)
        if stamp_ms is None or window_ms is None:
            raise bad("params error: timestamp or recv_window invalid")
        if not now_ms - window_ms <= stamp_ms < now_ms + 1000:
            raise AnswerError(
                10002,
                "invalid request, please check your server timestamp or recv_window param. "
                f"req_timestamp[{stamp}],server_timestamp[{now_ms}],recv_window[{window}]",
            )

    def _note(self, request: HttpRequest, params: Params, status: int, code: int | None) -> None:
        self._ledger.request(
            request.method, request.path, params, channel="rest", status=status, code=code
        )

    def _get_account(self, params: Params) -> Json:
        return {
            "marginMode": "REGULAR_MARGIN" if self._venue.cross_mode else "ISOLATED_MARGIN",
            "updatedTime": str(self._margin_updated_ms),
            "unifiedMarginStatus": 6,
            "dcpStatus": "OFF",
            "timeWindow": 10,
            "smpGroup": 0,
            "isMasterTrader": False,
            "spotHedgingStatus": "OFF",
        }

    def _get_fees(self, params: Params) -> Json:
        market = self._venue.listing.market
        rows = (
            [
                {
                    "symbol": self._units.symbol,
                    "takerFeeRate": amount(market.taker_fee),
                    "makerFeeRate": amount(market.maker_fee),
                }
            ]
            if self._units.lists(params)
            else []
        )
        return {"list": rows}

    def _get_settings(self, params: Params) -> Json:
        return {
            "lpaSpot": False,
            "lpaPerp": not self._venue.policy.band_moves,
            "smsef": False,
            "fmsef": False,
        }

    def _get_collateral(self, params: Params) -> Json:
        row: Json = {
            "currency": self._units.settle,
            "hourlyBorrowRate": "0",
            "maxBorrowingAmount": "0",
            "freeBorrowingLimit": "",
            "freeBorrowAmount": "0",
            "borrowAmount": "0",
            "otherBorrowAmount": "0",
            "availableToBorrow": "0",
            "borrowable": False,
            "borrowUsageRate": "0",
            "marginCollateral": True,
            "collateralSwitch": self._account.collateral,
            "collateralRatio": "1",
        }
        return {"list": [row] if params.get("currency", "") in ("", self._units.settle) else []}

    def _set_collateral(self, params: Params) -> Json:
        switch = params.get("collateralSwitch")
        if params.get("coin") != self._units.settle or switch not in ("ON", "OFF"):
            raise bad("params error: coin or collateralSwitch invalid")
        self._account.collateral = switch == "ON"
        return {}

    def _get_dcp(self, params: Params) -> Json:
        return {"dcpInfos": []}

    def _get_coins(self, params: Params) -> Json:
        coin = params.get("coin", "")
        rows = [
            {
                "name": self._units.settle,
                "coin": self._units.settle,
                "remainAmount": "0",
                "chains": [],
            }
        ]
        return {"rows": rows if coin in ("", self._units.settle) else []}

    def _get_key(self, params: Params) -> Json:
        started = "2026-01-01T00:00:00Z"
        return {
            "id": "1",
            "note": "passivx",
            "apiKey": self._key,
            "readOnly": 0 if self._venue.may_trade else 1,
            "secret": "",
            "permissions": {
                "ContractTrade": ["Order", "Position"],
                "Spot": [],
                "Wallet": ["Withdraw"] if self._venue.may_withdraw else [],
                "Options": [],
                "Derivatives": ["DerivativesTrade"],
                "CopyTrading": [],
                "BlockTrade": [],
                "Exchange": [],
                "NFT": [],
                "Affiliate": [],
                "Earn": [],
            },
            "ips": ["127.0.0.1"],
            "type": 1,
            "deadlineDay": -2,
            "expiredAt": "1970-01-01T00:00:00Z",
            "createdAt": started,
            "unified": 0,
            "uta": 1,
            "userID": 1,
            "inviterID": 0,
            "vipLevel": "No VIP",
            "mktMakerLevel": "0",
            "affiliateID": 0,
            "rsaPublicKey": "",
            "isMaster": True,
            "parentUid": "0",
            "kycLevel": "LEVEL_DEFAULT",
            "kycRegion": "",
        }

    def _for_trading(self, params: Params) -> None:
        if (
            self._units.known_category(params) != self._units.category
            or params.get("symbol") != self._units.symbol
        ):
            raise bad("params error: symbol invalid")

    def _place(self, params: Params) -> SimOrder:
        """Place what a request asks for, and take the attempt down."""
        try:
            order = self._attempt(params)
        except AnswerError as refused:
            self._ledger.order(self._asked(params), False, refused.code, self._channel)
            raise
        self._ledger.order(order, True, 0, self._channel)
        return order

    def _asked(self, params: Params) -> Json:
        """Return what is known of an order that was refused."""
        out: Json = {
            "client_id": params.get("orderLinkId"),
            "side": SIDES.get(str(params.get("side"))),
            "reduce_only": params.get("reduceOnly") is True,
            "post_only": params.get("timeInForce") == "PostOnly",
        }
        for name in ("price", "qty"):
            try:
                out[name] = number(params.get(name), "")
            except AnswerError:
                out[name] = None
        return out

    def _attempt(self, params: Params) -> SimOrder:
        self._for_trading(params)
        side = SIDES.get(str(params.get("side")))
        if side is None:
            raise bad("Side invalid")
        kind = TYPES.get(str(params.get("orderType")))
        if kind is None:
            raise bad("OrderType invalid")
        _check_simulated(params)
        link = params.get("orderLinkId") or ""
        if not isinstance(link, str) or len(link) > _LONGEST_LINK or set(link) - _LINK_CHARACTERS:
            raise bad("OrderLinkId invalid")
        self._check_index(params)
        reduce_only, close = flag(params, "reduceOnly"), flag(params, "closeOnTrigger")
        qty = number(params.get("qty"), "Qty invalid")
        if qty == 0.0 and not (reduce_only and close):
            raise bad("Qty invalid")
        market = kind is OrderType.MARKET
        price = 0.0 if market else number(params.get("price"), "Price invalid")
        tif = TIFS.get(str(params.get("timeInForce") or "GTC"))
        if tif is None:
            raise bad("timeInForce invalid")
        if not self._account.collateral and self._units.inverse and self._venue.cross_mode:
            raise AnswerError(110101, "Please enable the settle coin as collateral first.")
        if qty == 0.0:
            qty = self._whole_position(side, market)
        try:
            return self._venue.place(
                client_id=link,
                side=side,
                type=kind,
                tif=TimeInForce.IOC if market else tif,
                price=price,
                qty=qty,
                reduce_only=reduce_only,
                extra={"close": "true"} if close else {},
            )
        except Refusal as refusal:
            raise refused_by(refusal, side) from None

    def _whole_position(self, side: int, market: bool) -> float:
        listing, size = self._venue.listing, self._venue.size
        if size * side >= 0.0:
            raise refused_by(Refusal(Reason.WOULD_NOT_REDUCE))
        return min(abs(size), listing.max_market_qty if market else listing.max_qty)

    def _check_index(self, params: Params) -> None:
        index = params.get("positionIdx", 0)
        if not isinstance(index, int):
            raise bad("Request parameter error.")
        if index not in ((1, 2) if self._venue.hedge_mode else (0,)):
            raise bad("position idx not match position mode")

    def _ids(self, order: SimOrder) -> Json:
        return {"orderId": self._account.order_text(order.order_id), "orderLinkId": order.client_id}

    def _create(self, params: Params) -> Json:
        return self._ids(self._place(params))

    def _change(self, params: Params) -> SimOrder:
        self._for_trading(params)
        _check_simulated(params)
        price = qty = None
        if params.get("price") not in (None, ""):
            price = number(params["price"], "Price invalid")
        if params.get("qty") not in (None, ""):
            qty = number(params["qty"], "Qty invalid")
        if price is None and qty is None:
            raise bad(UNCHANGED_TEXT)
        side = 0
        try:
            order = self._account.find(params)
            side = order.side
            return self._venue.amend(order, price=price, qty=qty)
        except Refusal as refusal:
            if refusal.reason in (Reason.UNKNOWN_ORDER, Reason.FINISHED_ORDER):
                raise AnswerError(110001, "order not exists or too late to replace") from None
            raise refused_by(refusal, side) from None

    def _amend(self, params: Params) -> Json:
        return self._ids(self._change(params))

    def _take_back(self, params: Params) -> SimOrder:
        self._for_trading(params)
        try:
            return self._venue.cancel(self._account.find(params))
        except Refusal as refusal:
            raise refused_by(refusal) from None

    def _cancel(self, params: Params) -> Json:
        return self._ids(self._take_back(params))

    def _cancel_all(self, params: Params) -> Json:
        self._units.known_category(params)
        self._units.check_scope(params)
        orders: list[SimOrder] = []
        stop = params.get("orderFilter") in ("StopOrder", "tpslOrder")
        if self._units.in_scope(params) and not stop:
            orders = self._venue.cancel_all()
        return {"list": [self._ids(order) for order in orders], "success": "1"}

    def _each(
        self, params: Params, path: str, act: Callable[[Params], SimOrder], *, created: bool
    ) -> _Batch:
        """Do one thing for every element; when the second's budget ends, the rest is refused."""
        category = self._units.known_category(params)
        elements = params.get("request")
        if not isinstance(elements, list) or not elements:
            raise bad("params error: request invalid")
        if len(elements) > _MOST_IN_BATCH:
            raise bad(f"params error: request exceeds {_MOST_IN_BATCH} orders")
        now = self._clock.time_ms()
        budget = len(elements)
        if self._limited:
            budget = self._limits[path].take(now, budget)
        rows: list[Json] = []
        codes: list[Json] = []
        for i, element in enumerate(elements):
            code, text, order_id = 0, "OK", ""
            fields: Params = element if isinstance(element, dict) else {}
            link = fields.get("orderLinkId") or ""
            try:
                if not isinstance(element, dict):
                    raise bad("Request parameter error.")
                if i >= budget:
                    refused = _too_often()
                    if created:
                        self._ledger.order(self._asked(fields), False, refused.code, self._channel)
                    raise refused
                order = act({"category": category, **fields})
                order_id, link = self._account.order_text(order.order_id), order.client_id
            except AnswerError as refused:
                code, text = refused.code, refused.text
            row = {
                "category": category,
                "symbol": fields.get("symbol", ""),
                "orderId": order_id,
                "orderLinkId": link,
            }
            if created:
                row["createAt"] = str(now) if order_id else ""
            rows.append(row)
            codes.append({"code": code, "msg": text})
        return _Batch({"list": rows}, {"list": codes})

    def _create_batch(self, params: Params) -> _Batch:
        return self._each(params, "/v5/order/create-batch", self._place, created=True)

    def _amend_batch(self, params: Params) -> _Batch:
        return self._each(params, "/v5/order/amend-batch", self._change, created=False)

    def _cancel_batch(self, params: Params) -> _Batch:
        return self._each(params, "/v5/order/cancel-batch", self._take_back, created=False)

    def _check(self, params: Params) -> Json:
        """Tell what an order would do to the margin rates, in 1e-4; nothing is placed."""
        self._for_trading(params)
        venue = self._venue
        if self._units.inverse and venue.cross_mode:
            raise bad("pre-check is not supported for inverse in cross margin mode")
        qty = number(params.get("qty"), "Qty invalid")
        price = venue.mark_price
        if params.get("orderType") != "Market":
            price = number(params.get("price"), "Price invalid")
        value = self._units.value(qty, price)
        equity = venue.equity
        if equity <= 0.0:
            raise refused_by(Refusal(Reason.MARGIN))
        initial = venue.position_margin + venue.order_margin
        kept = venue.maintenance_margin
        _, rate, _ = self._units.tiers[0]
        return {
            "orderId": "",
            "orderLinkId": params.get("orderLinkId") or "",
            "preImrE4": round(initial / equity * 1e4),
            "preMmrE4": round(kept / equity * 1e4),
            "postImrE4": round((initial + value / venue.leverage) / equity * 1e4),
            "postMmrE4": round((kept + value * rate) / equity * 1e4),
        }

    def _set_dcp(self, params: Params) -> Json:
        # Only institutions have it, by arrangement: a bot has to bring its own dead-man switch.
        raise _not_permitted()

    def _retired(self, params: Params) -> Json:
        raise AnswerError(100028, "The API cannot be accessed by unified account users.")

    def _set_leverage(self, params: Params) -> Json:
        self._for_trading(params)
        buy = number(params.get("buyLeverage"), "buyLeverage invalid")
        sell = number(params.get("sellLeverage"), "sellLeverage invalid")
        if buy != sell:
            raise bad("buy leverage should be equal to sell leverage")
        return _changed(
            lambda: self._venue.set_leverage(buy), AnswerError(110043, "leverage not modified")
        )

    def _set_position_mode(self, params: Params) -> Json:
        if self._units.known_category(params) != "linear" or self._units.inverse:
            raise bad("params error: category only support linear")
        mode = params.get("mode")
        if mode not in (0, 3):
            raise bad("params error: mode invalid")
        return _changed(
            lambda: self._venue.set_hedge_mode(mode == 3),
            AnswerError(110025, "Position mode is not modified"),
        )

    def _set_margin_mode(self, params: Params) -> Json:
        mode = params.get("setMarginMode")
        if mode == "PORTFOLIO_MARGIN":
            raise _margin_mode_failed(
                "3400000", "Equity needs to be equal to or greater than 1000 USDC"
            )
        if mode not in ("ISOLATED_MARGIN", "REGULAR_MARGIN"):
            raise bad("params error: setMarginMode invalid")
        try:
            self._venue.set_cross_mode(mode == "REGULAR_MARGIN")
        except Refusal as refusal:
            if refusal.reason is not Reason.ALREADY_SO:
                raise _margin_mode_failed("3400001", str(refusal)) from None
        else:
            self._margin_updated_ms = self._clock.time_ms()
        return {"reasons": []}

    def _set_price_action(self, params: Params) -> Json:
        """Set whether a price out of the band is moved to its edge (the default) or refused."""
        if params.get("category") not in ("linear", "inverse", "spot"):
            raise bad("params error: Illegal category")
        moved = params.get("modifyEnable")
        if not isinstance(moved, bool):
            raise bad("Request parameter error.")
        if params["category"] != "spot":
            # One switch for all futures.
            self._venue.policy = replace(self._venue.policy, band_moves=moved)
        return {}

    def accept(self, path: str, query: str) -> str | None:
        """Return the channel a path leads to, None where there is none."""
        if path == "/v5/private":
            return "private"
        if path == "/v5/trade":
            return "trade"
        head, _, tail = path.partition("/v5/public/")
        return "public" if not head and tail in (*CATEGORIES, "misc/status") else None

    def opened(self, session: Session) -> None:
        """Take a new socket in."""
        self._connections += 1
        self._open.append(session)
        now = self._clock.time_ms()
        idle = _IDLE_MS
        if session.channel != "public":
            idle = _active_time_ms(session.query)
        session.state = _Connection(
            conn_id=f"{self._hub.salt[:13]}-{self._connections:x}",
            category=session.path.rpartition("/")[2],
            heard_ms=now,
            idle_ms=idle,
        )

    def closed(self, session: Session) -> None:
        """Forget a socket and what it was subscribed to."""
        self._open.remove(session)
        for topic in session.state.topics:
            self._leave(session, topic)
        session.state.topics.clear()

    def message(self, session: Session, text: str) -> None:
        """Answer one message of a client."""
        connection: _Connection = session.state
        connection.heard_ms = self._clock.time_ms()
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            request = {"op": None}
        if session.channel == "trade":
            self._serve_trade(session, connection, request)
        else:
            self._serve_stream(session, connection, request)

    def housekeeping(self, now_ms: int) -> None:
        """Do what falls due by itself, about once a second."""
        for session in tuple(self._open):
            connection: _Connection = session.state
            if now_ms - connection.heard_ms >= connection.idle_ms:
                session.close(1006, "idle")
        self._market.housekeeping(now_ms)

    def _serve_stream(self, session: Session, connection: _Connection, request: Json) -> None:
        op = request.get("op")
        now = connection.heard_ms
        request_id = request.get("req_id")
        answer: Json
        if op == "ping":
            if session.channel == "private":
                answer = {"op": "pong", "args": [str(now)], "conn_id": connection.conn_id}
                if request_id is not None:
                    answer["req_id"] = request_id
            else:
                answer = {
                    "success": True,
                    "ret_msg": "pong",
                    "conn_id": connection.conn_id,
                    "req_id": request_id or "",
                    "op": "ping",
                }
        elif op == "auth" and session.channel == "private":
            refused = self._sign_in(connection, request)
            answer = {
                "success": refused is None,
                "ret_msg": refused.text if refused else "",
                "op": "auth",
                "conn_id": connection.conn_id,
            }
            if request_id is not None:
                answer["req_id"] = request_id
            self._note_socket(session, request, refused.code if refused else 0)
        elif op in ("subscribe", "unsubscribe"):
            complaint = self._subscribe(session, connection, request, op == "subscribe")
            answer = {
                "success": not complaint,
                "ret_msg": complaint,
                "conn_id": connection.conn_id,
                "req_id": request_id or "",
                "op": op,
            }
            self._note_socket(session, request, None)
        else:
            answer = {
                "success": False,
                "ret_msg": "error:invalid op",
                "conn_id": connection.conn_id,
                "request": {"op": op or "", "args": None},
            }
            self._note_socket(session, request, None)
        session.send(orjson.dumps(answer))
        if op == "subscribe" and answer["success"]:
            self._market.begin(session, request["args"])

    def _note_socket(self, session: Session, request: Json, code: int | None) -> None:
        params: Json = {name: value for name, value in request.items() if name != "header"}
        if request.get("op") == "auth":
            # Positions, not names: key, expiry, signature.
            params["args"] = "(hidden)"
        self._ledger.request(
            str(request.get("op")), session.path, params, channel="ws", status=200, code=code
        )

    def _sign_in(self, connection: _Connection, request: Json) -> AnswerError | None:
        """Check key, expiry and signature of a socket; the expiry may be a number or its text."""
        args = request.get("args")
        if not isinstance(args, list) or len(args) != 3:
            return bad("Params Error")
        key, expires, signature = args
        if isinstance(expires, str):
            expires = digits(expires)
        if not isinstance(expires, int) or isinstance(expires, bool):
            return bad("Params Error")
        if key != self._key:
            return AnswerError(10003, "API key is invalid.")
        if expires <= self._clock.time_ms():
            return AnswerError(10002, "Request expired.")
        if not hmac.compare_digest(
            self._sign(f"GET/realtime{expires}".encode()), str(signature).encode()
        ):
            return AnswerError(
                10004, "Error sign, please check your signature generation algorithm."
            )
        connection.signed_in = True
        return None

    def _subscribe(
        self, session: Session, connection: _Connection, request: Json, joins: bool
    ) -> str:
        """Enter or leave topics, all or none; return the complaint, empty when there is none."""
        topics = request.get("args")
        if not isinstance(topics, list) or not topics:
            return "error:args is empty"
        if not all(isinstance(topic, str) for topic in topics):
            return "error:args invalid"
        private = session.channel == "private"
        if private and not connection.signed_in:
            return "Request not authorized"
        if sum(map(len, topics)) > _MOST_ARGUMENT_TEXT:
            return "error:args too long"
        for topic in topics:
            known = self._is_private(topic) if private else self._is_public(connection, topic)
            if not known:
                return f"error:handler not found,topic:{topic}"
            if joins and topic in connection.topics:
                return f"error:already subscribed,topic:{topic}"
        if private:
            # One form or the other: a message would come twice.
            split = [topic.rpartition(".") for topic in topics]
            if any(head in topics and tail in CATEGORIES for head, _, tail in split):
                return "error:topics of all categories and of one in one request"
        for topic in topics:
            if joins and topic not in connection.topics:
                connection.topics.add(topic)
                self._hub.join(session, topic)
            elif not joins and topic in connection.topics:
                connection.topics.discard(topic)
                self._leave(session, topic)
        return ""

    def _is_private(self, topic: str) -> bool:
        if topic in _WHOLE_TOPICS or topic in _PRIVATE_TOPICS:
            return True
        head, _, category = topic.rpartition(".")
        return head in _PRIVATE_TOPICS and category in CATEGORIES

    def _is_public(self, connection: _Connection, topic: str) -> bool:
        if connection.category == "status":
            return topic == "system.status"
        parts = topic.split(".")
        if topic in (f"adlAlert.{connection.category}", f"insurance.{connection.category}"):
            return connection.category == self._units.category
        if parts[-1] != self._units.symbol or connection.category != self._units.category:
            return False
        match parts[:-1]:
            case ["publicTrade" | "tickers" | "allLiquidation" | "priceLimit"]:
                return True
            case ["orderbook", depth]:
                return digits(depth) in DEPTHS
            case ["kline", interval]:
                return interval in INTERVALS
        return False

    def _serve_trade(self, session: Session, connection: _Connection, request: Json) -> None:
        op = request.get("op")
        now = connection.heard_ms
        request_id = request.get("reqId")
        answer: Json
        if op == "ping":
            answer = {
                "retCode": 0,
                "retMsg": "OK",
                "op": "pong",
                "data": [str(now)],
                "connId": connection.conn_id,
            }
        elif op == "auth":
            refused = (
                AnswerError(20001, "Repeat auth")
                if connection.signed_in
                else self._sign_in(connection, request)
            )
            answer = {
                "retCode": refused.code if refused else 0,
                "retMsg": refused.text if refused else "OK",
                "op": "auth",
                "connId": connection.conn_id,
            }
            self._note_socket(session, request, answer["retCode"])
        else:
            answer = self._operate(session, connection, request, now)
        # A request without an id gets an answer without one.
        if request_id is not None:
            answer = {"reqId": request_id, **answer}
        session.send(orjson.dumps(answer))

    def _operate(
        self, session: Session, connection: _Connection, request: Json, now_ms: int
    ) -> Json:
        """Do what an order request asks for and return the answer."""
        op = request.get("op")
        path = _OPERATIONS.get(str(op), "")
        route = self._routes.get(path)
        code, text, data, ext = 0, "OK", _NOTHING, _NOTHING
        self._channel = "ws"
        try:
            if not connection.signed_in:
                raise AnswerError(10007, "User authentication failed.")
            if route is None:
                raise AnswerError(10404, "op type is not found")
            self._check_request_id(connection, request.get("reqId"))
            header = request.get("header")
            if not isinstance(header, dict):
                raise bad("params error: header invalid")
            # pybit sends the time as a number, the documentation has it as a text.
            self._check_time(
                str(header.get("X-BAPI-TIMESTAMP", "")),
                str(header.get("X-BAPI-RECV-WINDOW", "5000")),
                now_ms,
            )
            args = request.get("args")
            if not isinstance(args, list) or len(args) != 1 or not isinstance(args[0], dict):
                raise bad("params error: args must hold one object")
            params: Params = args[0]
            if params.get("category") not in CATEGORIES:
                raise AnswerError(10404, "category is not correct/supported")
            data, ext = self._do(route, params, now_ms)
        except AnswerError as refused:
            code, text = refused.code, refused.text
        self._note_socket(session, request, code)
        self._answers += 1
        header_out = {"Traceid": f"{self._answers:032x}", "Timenow": str(now_ms)}
        if path:
            header_out = self._limit_headers(path, now_ms) | header_out
        return {
            "retCode": code,
            "retMsg": text,
            "op": op,
            "data": data,
            "retExtInfo": ext,
            "header": header_out,
            "connId": connection.conn_id,
        }

    def _check_request_id(self, connection: _Connection, request_id: object) -> None:
        if request_id is None:
            return
        if not isinstance(request_id, str) or len(request_id) > 36:
            raise bad("params error: reqId invalid")
        if request_id in connection.request_ids:
            raise AnswerError(20006, "reqId is duplicated")
        order = connection.request_order
        if len(order) == order.maxlen:
            connection.request_ids.discard(order[0])
        order.append(request_id)
        connection.request_ids.add(request_id)

    def _leave(self, session: Session, topic: str) -> None:
        self._hub.leave(session, topic)
        if topic not in self._hub.topics:
            self._market.forget(topic)

    # --- what the venue tells ------------------------------------------------------------------

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        """Publish a print."""
        self._market.on_print(trade_id, price, qty, buyer_maker, ts_ms)

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        """Publish best prices."""
        self._market.on_quote(ts_ms)

    def on_order(self, order: SimOrder, what: str) -> None:
        """Publish an order."""
        self._account.on_order(order, what)

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        """Book and publish a fill."""
        self._account.on_execution(order, execution)

    def on_account(self, why: str) -> None:
        """Publish position and wallet."""
        self._account.on_account(why)

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        """Book and publish a payment."""
        self._account.on_funding(rate, amount, ts_ms)

    def on_terms(self, what: str) -> None:
        """Take up new rules; leverage shows in the position."""
        self._units.update(self._venue.listing)
        self._account.on_terms()
