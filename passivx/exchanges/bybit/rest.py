"""Bybit's REST interface: how requests are signed and answers judged, and the calls a bot needs.

Every call is one endpoint of V5 with its pages put together. What may be asked again is read with
retries; what changes something is sent once and comes back as an `Outcome` or a `Reply`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Fill,
    KeyRights,
    MarkPrice,
    NewOrder,
    Order,
    OrderStatus,
    Outcome,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Steps,
    Verdict,
    above_0,
    flag,
    row_of,
    text,
    whole,
)
from passivx.exchanges.budget import Window
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.errors import judge
from passivx.exchanges.bybit.wire import rows_in
from passivx.exchanges.http import Answer, Finding, Http, Prepared, Reply, Request, retry_after_s
from passivx.exchanges.keys import ApiKey
from passivx.models import Market, Tier

__all__ = [
    "MAX_BATCH",
    "WINDOWS",
    "BybitDialect",
    "BybitRest",
    "placed",
    "until_reset_s",
    "used_of",
]

# The pages say 20 and 10 for inverse; beyond the second's limit of 10 orders nothing is gained.
MAX_BATCH: Final = 10
# What of the rules is told to keys alone, by the names of `Market`.
_OF_THE_ACCOUNT: Final = ("maker_fee", "taker_fee")
_WEEK_MS: Final = 7 * 86_400_000
# How long the venue remembers what was filled: 2 years, by docs/protocol facts.
_MEMORY_MS: Final = 730 * 86_400_000
# An execution of this very moment may be stamped a little ahead of our idea of the venue's time.
_AHEAD_MS: Final = 1000
_ORDER_PAGE: Final = 50
_FILL_PAGE: Final = 100
# More pages than a week of a busy grid fills: a cursor that never ends is a fault.
_MOST_PAGES: Final = 1000
# For a setting's turn; the smallest limits are a few a second.
_PATIENCE_S: Final = 5.0
# A reset stamp further away is none: limits are by the second.
_MOST_RESET_S: Final = 60.0

# Non-VIP limits; `ip` is the address's. Batches count in orders.
WINDOWS: Final = (
    Window("ip", 600, 5000),
    Window("create", 10, 1000),
    Window("amend", 10, 1000),
    Window("cancel", 10, 1000),
    Window("cancel_all", 10, 1000),
    Window("create_batch", 10, 1000),
    Window("cancel_batch", 10, 1000),
    Window("position", 10, 1000),
    Window("account", 5, 1000),
    Window("query", 50, 1000),
)


class BybitDialect:
    """How V5 requests are built and signed, and what its answers mean (`http.Dialect`)."""

    def __init__(self, key: ApiKey | None, *, recv_window_ms: int = 5000) -> None:
        self._key = key
        self._sign = None if key is None else key.signer()
        self._window = str(recv_window_ms)

    @property
    def clock_request(self) -> Request:
        """The venue's time; every answer has it too, but this one costs no account limit."""
        return Request(method="GET", path="/v5/market/time", costs={"ip": 1})

    def clock_ms(self, data: Any) -> float:
        """Read the time in ns, as ms."""
        return whole(_result(data), "timeNano") / 1e6

    def build(self, request: Request, ts_ms: int) -> Prepared:
        """Sign timestamp + key + window + (query | body), in the very bytes that are sent."""
        query = urlencode(request.params)
        target = f"{request.path}?{query}" if query else request.path
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        if request.signed:
            if self._key is None or self._sign is None:
                raise VenueError(f"{request}: needs an API key")
            stamped = f"{ts_ms}{self._key.key}{self._window}".encode()
            signature = self._sign(stamped + (request.body or query.encode()))
            headers |= {
                "X-BAPI-API-KEY": self._key.key,
                "X-BAPI-TIMESTAMP": str(ts_ms),
                "X-BAPI-RECV-WINDOW": self._window,
                "X-BAPI-SIGN": signature.decode(),
            }
        return Prepared(target, headers, request.body)

    def classify(self, request: Request, answer: Answer) -> Finding:
        """Judge by retCode; HTTP says nothing about business errors here."""
        data = answer.data
        code = data.get("retCode") if isinstance(data, dict) else None
        if not isinstance(code, int) or isinstance(code, bool):
            code = None
        return judge(
            answer.status,
            code,
            "" if code is None else str(data.get("retMsg", "")),
            window=_window_of(request),
            retry_after_s=retry_after_s(answer.headers),
            until_reset_s=until_reset_s(answer.headers, answer.ts_ms),
        )

    def usage(self, request: Request, headers: Mapping[str, str]) -> Iterable[tuple[str, int]]:
        """Read what is left of the endpoint's second."""
        used, window = used_of(headers), _window_of(request)
        if window and used is not None:
            yield window, used


def _window_of(request: Request) -> str:
    return next((name for name in request.costs if name != "ip"), "")


def used_of(headers: Mapping[str, Any]) -> int | None:
    """Return what was used of an endpoint's second, of REST's headers or a socket's answer.

    None when they do not say.
    """
    try:
        return whole(headers, "X-Bapi-Limit") - whole(headers, "X-Bapi-Limit-Status")
    except BadReplyError:
        return None


def until_reset_s(headers: Mapping[str, Any], now_ms: int) -> float:
    """Return the seconds until an endpoint's limit resets, 0 when it is past or not told."""
    try:
        reset_ms = whole(headers, "X-Bapi-Limit-Reset-Timestamp")
    except BadReplyError:
        return 0.0
    return min(_MOST_RESET_S, max(0.0, (reset_ms - now_ms) / 1000))


class BybitRest:
    """The V5 endpoints that a bot of one symbol needs."""

    def __init__(self, http: Http, *, symbol: str, category: str = "inverse") -> None:
        self._http = http
        self.symbol = symbol
        self.category = category

    # --- the market ---

    async def instrument(self) -> dict[str, Any]:
        """Return the symbol's row of instruments-info."""
        return self._our_row(await self._market("instruments-info"))

    async def rules(self) -> Rules:
        """Return steps and limits, risk tiers and this account's fees."""
        instrument, tiers = await self._public_rules()
        fees = await self._get("/v5/account/fee-rate", self._of_symbol(), window="account")
        return wire.rules_of(instrument, tiers, _only(self._ours(fees)))

    async def public_rules(self, assumed: Market) -> Rules:
        """Return steps, limits and risk tiers; what a key is needed for is of ``assumed``."""
        own = {name: getattr(assumed, name) for name in _OF_THE_ACCOUNT}
        rules = wire.rules_with(*await self._public_rules(), own)
        return replace(rules, assumed=_OF_THE_ACCOUNT)

    async def _public_rules(self) -> tuple[dict[str, Any], tuple[Tier, ...]]:
        instrument = await self.instrument()
        return instrument, wire.tiers_of(self._ours(_result(await self._market("risk-limit"))))

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        data = await self._market("tickers")
        return wire.mark_of(self._our_row(data), whole(data, "time"))

    async def index_price(self) -> float:
        """Return the index price, by which the venue values coins."""
        return above_0(self._our_row(await self._market("tickers")), "indexPrice")

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to 1000 of the newest public trades, oldest first."""
        only = ("limit", str(max(1, min(limit, 1000))))
        rows = self._ours(_result(await self._market("recent-trade", only)))
        # Newest first; the sort is stable, so equal times keep the order they happened in.
        trades = [wire.public_trade_of(row) for row in reversed(rows)]
        return sorted(trades, key=lambda trade: trade.ts_ms)

    async def _market(self, what: str, *params: tuple[str, str]) -> dict[str, Any]:
        return await self._read(
            f"/v5/market/{what}", (*self._of_symbol(), *params), {"ip": 1}, signed=False
        )

    def _our_row(self, data: Any) -> dict[str, Any]:
        return _only(self._ours(_result(data)))

    def _ours(self, result: Any) -> list[dict[str, Any]]:
        return [row for row in rows_in(result) if row.get("symbol") == self.symbol]

    # --- the account ---

    async def account_info(self) -> dict[str, Any]:
        """Return unified status and margin mode."""
        return row_of(await self._get("/v5/account/info", ()))

    async def wallet(self, coin: str) -> dict[str, Any]:
        """Return the unified account's row, with ``coin`` in its list."""
        params = (("accountType", "UNIFIED"), ("coin", coin))
        return _only(rows_in(await self._get("/v5/account/wallet-balance", params)))

    async def refuses_price_moves(self) -> bool:
        """Tell whether futures orders out of the price band are refused, and not moved."""
        return flag(row_of(await self._get("/v5/account/user-setting-config", ())), "lpaPerp")

    async def position(self) -> dict[str, Any]:
        """Return the one-way position row.

        Raises
        ------
        VenueError
            In hedge mode, which has two.
        """
        rows = self._ours(await self._get("/v5/position/list", self._of_symbol()))
        if any(row.get("positionIdx") in (1, 2) for row in rows):
            raise VenueError(
                f"positionIdx: must be 0, {self.symbol} is in hedge mode; close its positions and "
                "switch its position mode to one-way"
            )
        return _only(rows)

    async def rights(self) -> KeyRights:
        """Return what the key may do."""
        return wire.rights_of(row_of(await self._get("/v5/user/query-api", ())))

    async def set_leverage(self, leverage: int) -> Reply:
        """Set both sides' leverage."""
        body = {"buyLeverage": str(leverage), "sellLeverage": str(leverage)}
        return await self._set("/v5/position/set-leverage", self._with_symbol(body), "position")

    async def set_one_way(self) -> Reply:
        """Switch a USDT perpetual to one-way mode; inverse ones have no other."""
        body = self._with_symbol({"mode": 0})
        return await self._set("/v5/position/switch-mode", body, "position")

    async def set_margin_mode(self, mode: str) -> Reply:
        """Set the whole account's margin mode: ISOLATED_MARGIN or REGULAR_MARGIN."""
        return await self._set("/v5/account/set-margin-mode", {"setMarginMode": mode}, "account")

    async def refuse_price_moves(self) -> Reply:
        """Have orders out of the price band refused; by default the venue moves their price."""
        body = {"category": self.category, "modifyEnable": False}
        return await self._set("/v5/account/set-limit-px-action", body, "account")

    # --- orders ---

    async def open_orders(self) -> list[Order]:
        """Return every live order of the symbol."""
        rows = self._pages("/v5/order/realtime", (("openOnly", "0"),), _ORDER_PAGE, "orderId")
        # A row that ended while the pages were read is no open order any more.
        orders = {order.order_id: order async for row in rows if (order := wire.order_of(row))}
        return [order for order in orders.values() if not order.status.final]

    async def find(self, client_id: str) -> Order | None:
        """Look an order up where live and lately finished ones are, then in the history."""
        for path in ("/v5/order/realtime", "/v5/order/history"):
            params = (*self._of_symbol(), ("orderLinkId", client_id))
            rows = rows_in(await self._get(path, params))
            found = [
                wire.order_of(row)
                for row in rows
                if row.get("orderLinkId") == client_id and row.get("symbol") == self.symbol
            ]
            if found:
                return max(found, key=lambda order: (order.status.final, order.filled_qty))
            if rows:
                raise BadReplyError(f"orderLinkId: the answer is about other orders ({path})")
        return None

    def check(self, order: NewOrder, steps: Steps) -> None:
        """Raise ValueError for an order that cannot be written."""
        wire.order_fields(order, steps)

    async def place(self, order: NewOrder, steps: Steps) -> Outcome:
        """Send one order."""
        fields = wire.order_fields(order, steps)
        reply = await self._post(
            "/v5/order/create", fields, window="create", urgent=order.reduce_only
        )
        return placed(reply, order)

    async def place_batch(self, orders: Sequence[NewOrder], steps: Steps) -> list[Outcome]:
        """Send up to MAX_BATCH orders in one message; an outcome each, in the order given."""
        elements = [{"symbol": self.symbol} | wire.order_fields(o, steps) for o in orders]
        replies = await self._batch("create", elements, all(o.reduce_only for o in orders))
        return [placed(each, order) for each, order in zip(replies, orders, strict=True)]

    def change(self, order: Order, steps: Steps, *, price: float, qty: float) -> Mapping[str, Any]:
        """Return what `amend` sends; raise ValueError when it cannot be written."""
        return wire.amend_fields(order, steps, price=price, qty=qty)

    async def amend(self, order: Order, change: Mapping[str, Any]) -> Outcome:
        """Send a `change` of an order."""
        reply = await self._post(
            "/v5/order/amend", change, window="amend", urgent=order.reduce_only
        )
        return reply.outcome()

    async def cancel(self, order: Order) -> Outcome:
        """Cancel one order; the answer says that the venue will, the stream that it did."""
        reply = await self._post(
            "/v5/order/cancel", wire.reference(order), window="cancel", urgent=True
        )
        return reply.outcome()

    async def cancel_batch(self, orders: Sequence[Order]) -> list[Outcome]:
        """Cancel up to MAX_BATCH orders in one message."""
        elements = [{"symbol": self.symbol} | wire.reference(order) for order in orders]
        return [reply.outcome() for reply in await self._batch("cancel", elements, True)]

    async def cancel_all(self) -> Outcome:
        """Cancel the symbol's orders, at most 500 of them, in one message."""
        reply = await self._post("/v5/order/cancel-all", {}, window="cancel_all", urgent=True)
        return reply.outcome()

    # --- history ---

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every execution since then but funding, oldest first.

        Raises
        ------
        VenueError
            If that is longer ago than the venue remembers.
        """
        rows = self._executions(since_ms)
        fills = {fill.trade_id: fill async for row in rows if (fill := wire.fill_of(row))}
        return sorted(fills.values(), key=lambda fill: fill.ts_ms)

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first; raise as `fills` does."""
        rows = self._executions(since_ms, ("execType", "Funding"))
        paid = {each.id: each async for row in rows if (each := wire.payment_of(row))}
        return sorted(paid.values(), key=lambda each: each.ts_ms)

    async def _executions(
        self, since_ms: int, *only: tuple[str, str]
    ) -> AsyncIterator[dict[str, Any]]:
        end_ms = await self.now_ms() + _AHEAD_MS
        if since_ms < end_ms - _MEMORY_MS:
            raise VenueError(
                f"executions: since {since_ms} ms is further back than the 2 years that the venue "
                "remembers; ask for a later time",
                reaction=Reaction.DROP,
            )
        start_ms = since_ms
        while start_ms <= end_ms:
            until_ms = min(start_ms + _WEEK_MS - 1, end_ms)
            span = (("startTime", str(start_ms)), ("endTime", str(until_ms)), *only)
            async for row in self._pages("/v5/execution/list", span, _FILL_PAGE, "execId"):
                yield row
            start_ms = until_ms + 1

    # --- one request ---

    async def now_ms(self) -> int:
        """Return the venue's time, which is asked for when it is not known well."""
        await self._http.ready()
        return self._http.venue_time_ms()

    def _of_symbol(self) -> tuple[tuple[str, str], ...]:
        return (("category", self.category), ("symbol", self.symbol))

    async def _pages(
        self, path: str, params: tuple[tuple[str, str], ...], limit: int, id: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of all pages, some perhaps twice; ``id`` is what a row is known by.

        Raises
        ------
        BadReplyError
            When they do not come to an end, or not on: what is missing cannot be told then.
        """
        cursors = {""}
        seen: set[str] = set()
        cursor: tuple[tuple[str, str], ...] = ()
        for _ in range(_MOST_PAGES):
            result = await self._get(
                path, (*self._of_symbol(), *params, ("limit", str(limit)), *cursor)
            )
            rows = rows_in(result)
            ids = {text(row, id) for row in rows}
            if ids and ids <= seen:
                raise BadReplyError(f"{id}: a page repeats ({path})")
            seen |= ids
            for row in rows:
                if row.get("symbol") == self.symbol:
                    yield row
            token = result.get("nextPageCursor") or ""
            if not token:
                return
            if not isinstance(token, str) or token in cursors:
                raise BadReplyError(f"nextPageCursor: repeats ({path})")
            cursors.add(token)
            cursor = (("cursor", token),)
        raise BadReplyError(f"nextPageCursor: {_MOST_PAGES} pages and no end ({path})")

    async def _get(
        self, path: str, params: tuple[tuple[str, str], ...], *, window: str = "query"
    ) -> Any:
        return _result(await self._read(path, params, {"ip": 1, window: 1}, signed=True))

    async def _read(
        self,
        path: str,
        params: tuple[tuple[str, str], ...],
        costs: Mapping[str, int],
        *,
        signed: bool,
    ) -> dict[str, Any]:
        return row_of(
            await self._http.read(
                Request(method="GET", path=path, params=params, signed=signed, costs=costs)
            )
        )

    async def _post(
        self, path: str, fields: Mapping[str, Any], *, window: str, urgent: bool = False
    ) -> Reply:
        body = orjson.dumps(self._with_symbol(fields))
        return await self._send(path, body, {"ip": 1, window: 1}, urgent=urgent)

    async def _set(self, path: str, body: Mapping[str, Any], window: str) -> Reply:
        """Change a setting: it may wait for its turn, which an order must not."""
        costs = {"ip": 1, window: 1}
        return await self._send(path, orjson.dumps(body), costs, patience_s=_PATIENCE_S)

    def _with_symbol(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"category": self.category, "symbol": self.symbol, **fields}

    async def _send(
        self,
        path: str,
        body: bytes,
        costs: Mapping[str, int],
        *,
        urgent: bool = False,
        patience_s: float = 0.0,
    ) -> Reply:
        return await self._http.send(
            Request(method="POST", path=path, body=body, signed=True, costs=costs, urgent=urgent),
            patience_s=patience_s,
        )

    async def _batch(self, what: str, elements: list[dict[str, Any]], urgent: bool) -> list[Reply]:
        if not 0 < len(elements) <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} orders, not {len(elements)}")
        body = orjson.dumps({"category": self.category, "request": elements})
        window = f"{what}_batch"
        costs = {"ip": 1, window: len(elements)}
        reply = await self._send(f"/v5/order/{what}-batch", body, costs, urgent=urgent)
        return wire.batch_replies(reply, len(elements), window=window, settle=self._http.settle)


def placed(reply: Reply, order: NewOrder) -> Outcome:
    """Make the outcome of a create: accepted is not yet resting, which the stream will tell."""
    if reply.verdict is not Verdict.OK:
        return reply.outcome()
    try:
        result = _result(reply.data)
        if result.get("orderLinkId") not in ("", None, order.client_id):
            raise BadReplyError("orderLinkId: the answer is about another order")
        accepted = Order(
            client_id=order.client_id,
            order_id=text(result, "orderId"),
            side=order.side,
            price=0.0 if order.at_market else order.price,
            qty=order.qty,
            filled_qty=0.0,
            reduce_only=order.reduce_only,
            status=OrderStatus.NEW,
            ts_ms=whole(reply.data, "time"),
        )
    except BadReplyError as e:
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text=str(e))
    return reply.outcome(accepted)


def _result(data: Any) -> Any:
    return row_of(row_of(data).get("result"))


def _only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if len(rows) != 1:
        raise BadReplyError(f"list: must hold one row, held {len(rows)}")
    return rows[0]
