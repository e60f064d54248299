"""Binance's REST interface: how requests are signed and answers judged, and the calls a bot needs.

What may be asked again is read with retries; what changes something is sent once and comes back as
an `Outcome` or a `Reply`. Histories are read in spans of time that are halved until each fits on
one page: a page that is not full has left nothing out, whichever end the venue cuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Fill,
    KeyRights,
    MarkPrice,
    NewOrder,
    Order,
    Outcome,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Steps,
    Verdict,
    row_of,
    rows_of,
    whole,
)
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.errors import (
    NO_SUCH_ORDER,
    ORDERS_1M,
    ORDERS_10S,
    WEIGHT,
    judge,
)
from passivx.exchanges.binance.wire import placed
from passivx.exchanges.budget import Window
from passivx.exchanges.http import Answer, Finding, Http, Prepared, Reply, Request, retry_after_s
from passivx.exchanges.keys import ApiKey, KeyKind
from passivx.models import Market

__all__ = ["MAX_CANCELS", "MAX_PLACES", "WINDOWS", "BinanceDialect", "BinanceRest"]

MAX_PLACES: Final = 5
MAX_CANCELS: Final = 10

_FUNDING: Final = "funding"
# Typical limits, until exchangeInfo has told the venue's own.
WINDOWS: Final = (
    Window(WEIGHT, 2400, 60_000),
    Window(ORDERS_10S, 300, 10_000),
    Window(ORDERS_1M, 1200, 60_000),
    Window(_FUNDING, 500, 300_000),
)

_KEY_RIGHTS: Final = "/sapi/v1/account/apiRestrictions"
_NO_SUCH_PATH: Final = -5000
_LISTEN_KEY: Final = "/fapi/v1/listenKey"
# What of the rules is told to keys alone, by the names of `Market`.
_OF_THE_ACCOUNT: Final = ("maker_fee", "taker_fee", "max_leverage", "tiers")
_PAGE: Final = 1000
_SPAN_MS: Final = 7 * 86_400_000
# What is older the venue has forgotten (docs/protocol facts: 3 months).
_MEMORY_MS: Final = 90 * 86_400_000
# A page is of the venue's time; ours may be this much behind.
_AHEAD_MS: Final = 1000
_MOST_TRADE_PAGES: Final = 20
_PATIENCE_S: Final = 10.0

_COUNTERS: Final = (
    ("X-MBX-USED-WEIGHT-1M", WEIGHT),
    ("X-MBX-ORDER-COUNT-10S", ORDERS_10S),
    ("X-MBX-ORDER-COUNT-1M", ORDERS_1M),
)


class BinanceDialect:
    """How fapi requests are built and signed, and what its answers mean (`http.Dialect`)."""

    def __init__(self, key: ApiKey | None, *, recv_window_ms: int = 5000) -> None:
        self._key = key
        self._sign = None if key is None else key.signer()
        self._window = ("recvWindow", str(recv_window_ms))

    @property
    def clock_request(self) -> Request:
        """The venue's time; that of exchangeInfo must not be used."""
        return Request(method="GET", path="/fapi/v1/time", costs={WEIGHT: 1})

    def clock_ms(self, data: Any) -> float:
        """Read ``serverTime``."""
        return float(whole(row_of(data), "serverTime"))

    def build(self, request: Request, ts_ms: int) -> Prepared:
        """Put everything into the query, sign it as it is sent; the signature comes last."""
        params: tuple[tuple[str, str], ...] = request.params
        if request.signed:
            params = (*params, self._window, ("timestamp", str(ts_ms)))
        query = urlencode(params, quote_via=quote, safe="")
        headers: dict[str, str] = {}
        if request.signed or request.path == _LISTEN_KEY:
            if self._key is None or self._sign is None:
                raise VenueError(f"{request}: needs an API key")
            headers["X-MBX-APIKEY"] = self._key.key
            if request.signed:
                signature = self._sign(query.encode()).decode()
                if self._key.kind is KeyKind.ED25519:
                    signature = quote(signature, safe="")
                query = f"{query}&signature={signature}"
        return Prepared(f"{request.path}?{query}" if query else request.path, headers, request.body)

    def classify(self, request: Request, answer: Answer) -> Finding:
        """Judge by the venue's code; without one by status, and the text of a 503."""
        if request.path == _KEY_RIGHTS and answer.status == 404:
            # The test environments do not have it: there is no use in asking again.
            return Finding(Verdict.REJECTED, Reaction.DROP, _NO_SUCH_PATH, "not served here")
        code, message = None, ""
        if isinstance(answer.data, dict):
            said, value = answer.data.get("msg"), answer.data.get("code")
            message = said if isinstance(said, str) else ""
            if isinstance(value, int) and not isinstance(value, bool):
                code = value
            elif "code" in answer.data:
                return Finding(
                    Verdict.UNKNOWN, Reaction.LOOK_UP, text="code: must be a whole number"
                )
        elif answer.data is None and answer.status == 503:
            message = answer.body[:100].decode("ascii", "replace")
        found = judge(
            answer.status,
            code,
            message,
            retry_after_s=retry_after_s(answer.headers),
            ts_ms=answer.ts_ms,
        )
        if found.reaction is Reaction.ALREADY_SO:
            # It comes with a 400, which `Http` takes for no success; `BinanceRest` does.
            return replace(found, verdict=Verdict.REJECTED)
        return found

    def usage(self, request: Request, headers: Mapping[str, str]) -> Iterable[tuple[str, int]]:
        """Read the venue's counters; order calls send −1 for the weight, which is none."""
        if request.base_url:
            return  # another host, which counts for itself
        for header, window in _COUNTERS:
            value = headers.get(header, "")
            if value.isascii() and value.isdigit() and len(value) < 10:
                yield window, int(value)


class BinanceRest:
    """The fapi endpoints that a bot of one symbol needs.

    Budget limits are the caller's to set: `exchange_info` has the venue's own. ``key_rights_url``
    is the host to ask for the key's rights, "" for the client's own.
    """

    def __init__(self, http: Http, *, symbol: str, key_rights_url: str = "") -> None:
        self._http = http
        self.symbol = symbol
        self._key_rights_url = key_rights_url

    # --- the market ---

    async def exchange_info(self) -> dict[str, Any]:
        """Return the rules of all symbols and the rate limits, as sent."""
        return row_of(await self._read("/fapi/v1/exchangeInfo", weight=1))

    async def rules(self, info: Mapping[str, Any]) -> Rules:
        """Return steps and limits by ``info``, leverage brackets and this account's fees."""
        brackets = await self._get("/fapi/v1/leverageBracket", self._of_symbol(), weight=1)
        fees = row_of(await self._get("/fapi/v1/commissionRate", self._of_symbol(), weight=20))
        if fees.get("symbol") != self.symbol:
            raise BadReplyError("commissionRate: is of another symbol")
        tiers = wire.tiers_of(brackets, self.symbol)
        row = wire.symbol_info(info, self.symbol)
        return wire.rules_of(row, tiers, fees, await self._unusual_funding())

    async def public_rules(self, info: Mapping[str, Any], assumed: Market) -> Rules:
        """Return steps and limits by ``info``; what a key is needed for is of ``assumed``."""
        row = wire.symbol_info(info, self.symbol)
        own = {name: getattr(assumed, name) for name in _OF_THE_ACCOUNT}
        rules = wire.rules_with(row, own, await self._unusual_funding())
        return replace(rules, assumed=_OF_THE_ACCOUNT)

    async def _unusual_funding(self) -> list[dict[str, Any]]:
        request = Request(method="GET", path="/fapi/v1/fundingInfo", costs={_FUNDING: 1})
        return rows_of(await self._http.read(request))

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        row = row_of(await self._read("/fapi/v1/premiumIndex", self._of_symbol(), weight=1))
        if row.get("symbol") != self.symbol:
            raise BadReplyError("premiumIndex: is of another symbol")
        return wire.mark_of(row)

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return the newest aggregate trades, oldest first: up to ``limit``, at most 20,000.

        Ids have no gaps; a page that does not join on raises.
        """
        limit = max(1, min(limit, _PAGE * _MOST_TRADE_PAGES))
        trades = await self._aggregates(min(limit, _PAGE))
        while trades and len(trades) < limit and int(trades[0].trade_id) > 0:
            first = int(trades[0].trade_id)
            n = min(limit - len(trades), _PAGE, first)
            older = [t for t in await self._aggregates(n, first - n) if int(t.trade_id) < first]
            if not older:
                break
            trades = older + trades
        ids = [int(trade.trade_id) for trade in trades]
        if ids and ids != list(range(ids[0], ids[0] + len(ids))):
            raise BadReplyError("aggTrades: ids have a gap")
        return trades

    async def _aggregates(self, n: int, from_id: int | None = None) -> list[PublicTrade]:
        since = () if from_id is None else (("fromId", str(from_id)),)
        params = (*self._of_symbol(), ("limit", str(n)), *since)
        rows = rows_of(await self._read("/fapi/v1/aggTrades", params, weight=20))
        return sorted(map(wire.aggregate_of, rows), key=lambda trade: int(trade.trade_id))

    # --- the account ---

    async def balances(self) -> list[dict[str, Any]]:
        """Return the account's balances, a row an asset."""
        return rows_of(await self._get("/fapi/v3/balance", (), weight=5))

    async def positions(self) -> list[dict[str, Any]]:
        """Return the symbol's position rows; none when it is flat and without orders."""
        return rows_of(await self._get("/fapi/v3/positionRisk", self._of_symbol(), weight=5))

    async def account_modes(self) -> wire.AccountModes:
        """Return what holds for the whole account."""
        return wire.account_modes(row_of(await self._get("/fapi/v1/accountConfig", (), weight=5)))

    async def symbol_modes(self) -> tuple[float, bool]:
        """Return leverage, and whether the margin is cross."""
        rows = await self._get("/fapi/v1/symbolConfig", self._of_symbol(), weight=5)
        return wire.symbol_modes(rows_of(rows), self.symbol)

    async def rights(self) -> KeyRights:
        """Return what the key may do; all None where the venue does not tell it."""
        request = Request(
            method="GET",
            path=_KEY_RIGHTS,
            signed=True,
            costs={WEIGHT: 1},
            base_url=self._key_rights_url,
        )
        try:
            return wire.rights_of(row_of(await self._http.read(request)))
        except VenueError as e:
            if e.code != _NO_SUCH_PATH:
                raise
        return wire.NOT_TOLD

    async def set_leverage(self, leverage: int) -> Reply:
        """Set the symbol's leverage."""
        return await self._change("leverage", (*self._of_symbol(), ("leverage", str(leverage))))

    async def set_cross(self, cross: bool) -> Reply:
        """Set the symbol's margin mode."""
        mode = "CROSSED" if cross else "ISOLATED"
        return await self._change("marginType", (*self._of_symbol(), ("marginType", mode)))

    async def set_one_way(self) -> Reply:
        """Set one-way mode, for the whole account and for COIN-M too."""
        return await self._change("positionSide/dual", (("dualSidePosition", "false"),))

    async def _change(self, what: str, params: tuple[tuple[str, str], ...]) -> Reply:
        # A setting may wait for its turn, which an order must not.
        return await self._send(
            "POST", f"/fapi/v1/{what}", params, {WEIGHT: 1}, patience_s=_PATIENCE_S
        )

    # --- orders ---

    async def open_orders(self) -> list[Order]:
        """Return every live order of the symbol; the venue sends them all at once."""
        rows = rows_of(await self._get("/fapi/v1/openOrders", self._of_symbol(), weight=1))
        orders = [wire.order_of(row) for row in rows if row.get("symbol") == self.symbol]
        return [order for order in orders if not order.status.final]

    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None only when the venue says that there is no such order.

        It forgets cancelled orders without fills after 3 days, everything after 90.
        """
        params = (*self._of_symbol(), ("origClientOrderId", client_id))
        try:
            row = row_of(await self._get("/fapi/v1/order", params, weight=1))
        except VenueError as e:
            if e.code == NO_SUCH_ORDER:
                return None
            raise
        order = wire.order_of(row)
        if order.client_id != client_id or row.get("symbol") != self.symbol:
            raise BadReplyError("order: is another one than was asked for")
        return order

    def check(self, order: NewOrder, steps: Steps) -> None:
        """Raise ValueError for an order that cannot be written."""
        wire.order_params(order, self.symbol, steps)

    async def place(self, order: NewOrder, steps: Steps) -> Outcome:
        """Send one order."""
        reply = await self._send(
            "POST",
            "/fapi/v1/order",
            wire.order_params(order, self.symbol, steps),
            {ORDERS_10S: 1, ORDERS_1M: 1},
            urgent=order.reduce_only,
        )
        return placed(reply, order.client_id)

    async def place_batch(self, orders: Sequence[NewOrder], steps: Steps) -> list[Outcome]:
        """Send up to MAX_PLACES orders in one message; an outcome each, in the order given."""
        _check_size(orders, MAX_PLACES)
        rows = [dict(wire.order_params(order, self.symbol, steps)) for order in orders]
        reply = await self._send(
            "POST",
            "/fapi/v1/batchOrders",
            (("batchOrders", orjson.dumps(rows).decode()),),
            {WEIGHT: 5, ORDERS_10S: len(orders), ORDERS_1M: 1},
            urgent=all(order.reduce_only for order in orders),
        )
        replies = self._each(reply, len(orders))
        return [placed(each, o.client_id) for each, o in zip(replies, orders, strict=True)]

    def change(
        self, order: Order, steps: Steps, *, price: float, qty: float
    ) -> tuple[tuple[str, str], ...]:
        """Return what `amend` sends; raise ValueError when it cannot be written."""
        return wire.amend_params(order, self.symbol, steps, price=price, qty=qty)

    async def amend(self, order: Order, change: tuple[tuple[str, str], ...]) -> Outcome:
        """Send a `change` of an order; its place in line is lost.

        The order is cancelled instead where the new quantity is no more than what has filled, and
        where it would take.
        """
        reply = await self._send(
            "PUT",
            "/fapi/v1/order",
            change,
            {ORDERS_10S: 1, ORDERS_1M: 1},
            urgent=order.reduce_only,
        )
        return placed(reply, order.client_id)

    async def cancel(self, order: Order) -> Outcome:
        """Cancel one order."""
        params = (*self._of_symbol(), wire.reference(order))
        reply = await self._send("DELETE", "/fapi/v1/order", params, {WEIGHT: 1}, urgent=True)
        return placed(reply, order_id=order.order_id)

    async def cancel_batch(self, orders: Sequence[Order]) -> list[Outcome]:
        """Cancel up to MAX_CANCELS orders in one message."""
        _check_size(orders, MAX_CANCELS)
        if all(order.order_id for order in orders):
            ids = ("orderIdList", f"[{','.join(order.order_id for order in orders)}]")
        else:
            names = [order.client_id for order in orders]
            ids = ("origClientOrderIdList", orjson.dumps(names).decode())
        params = (*self._of_symbol(), ids)
        reply = await self._send("DELETE", "/fapi/v1/batchOrders", params, {WEIGHT: 1}, urgent=True)
        replies = self._each(reply, len(orders))
        return [placed(each, order_id=o.order_id) for each, o in zip(replies, orders, strict=True)]

    def _each(self, reply: Reply, n: int) -> list[Reply]:
        return wire.batch_replies(reply, n, ts_ms=self._now_ms(), settle=self._http.settle)

    async def cancel_all(self) -> Outcome:
        """Cancel every order of the symbol, in one message."""
        reply = await self._send(
            "DELETE", "/fapi/v1/allOpenOrders", self._of_symbol(), {WEIGHT: 1}, urgent=True
        )
        return reply.outcome()

    async def dead_man(self, timeout_s: float) -> None:
        """Have the venue cancel the symbol's orders in ``timeout_s`` seconds; 0 switches it off.

        Raises
        ------
        VenueError
            If the venue did not say that its timer runs.
        ValueError
            If it is neither 0 nor a second to a day: so near to 0 it would switch it off.
        """
        if timeout_s != 0.0 and not 1.0 <= timeout_s <= 86_400.0:
            raise ValueError(f"timeout_s: must be 0 or in [1, 86400], was {timeout_s!r}")
        countdown_ms = round(timeout_s * 1000)
        params = (*self._of_symbol(), ("countdownTime", str(countdown_ms)))
        # Each call replaces the timer: twice is the same as once.
        row = row_of(
            await self._http.read(
                Request(
                    method="POST",
                    path="/fapi/v1/countdownCancelAll",
                    params=params,
                    signed=True,
                    costs={WEIGHT: 10},
                    urgent=True,
                    idempotent=True,
                )
            )
        )
        if row.get("symbol") != self.symbol or whole(row, "countdownTime") != countdown_ms:
            raise BadReplyError("countdownCancelAll: another timer than was asked for")

    # --- history ---

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every fill since then, oldest first.

        Raises
        ------
        VenueError
            If that is longer ago than the venue remembers.
        """
        rows = await self._history("/fapi/v1/userTrades", (), since_ms, weight=5)
        fills = {fill.trade_id: fill for fill in map(wire.fill_of, rows)}
        return sorted(fills.values(), key=lambda fill: (fill.ts_ms, int(fill.trade_id)))

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first; raise as `fills` does."""
        only = (("incomeType", "FUNDING_FEE"),)
        rows = await self._history("/fapi/v1/income", only, since_ms, weight=30)
        for row in rows:
            if row.get("incomeType") != "FUNDING_FEE":
                raise BadReplyError("income: another type than was asked for")
        paid = {each.id: each for each in map(wire.payment_of, rows)}
        return sorted(paid.values(), key=lambda each: (each.ts_ms, int(each.id)))

    async def _history(
        self, path: str, only: tuple[tuple[str, str], ...], since_ms: int, *, weight: int
    ) -> list[dict[str, Any]]:
        await self._http.ready()
        end_ms = self._now_ms() + _AHEAD_MS
        if since_ms < end_ms - _MEMORY_MS:
            raise VenueError(
                f"{path}: since {since_ms} ms is further back than the 90 days that the venue "
                "remembers; ask for a later time",
                reaction="drop",
            )
        rows: list[dict[str, Any]] = []
        spans = [
            (start_ms, min(start_ms + _SPAN_MS - 1, end_ms))
            for start_ms in range(since_ms, end_ms + 1, _SPAN_MS)
        ]
        while spans:
            start_ms, until_ms = spans.pop()
            params = (
                *self._of_symbol(),
                *only,
                ("startTime", str(start_ms)),
                ("endTime", str(until_ms)),
                ("limit", str(_PAGE)),
            )
            page = rows_of(await self._get(path, params, weight=weight))
            if len(page) < _PAGE:
                rows += [row for row in page if row.get("symbol") == self.symbol]
            elif start_ms == until_ms:
                raise BadReplyError(f"{path}: more than a page in one millisecond")
            else:
                middle_ms = (start_ms + until_ms) // 2
                spans += [(start_ms, middle_ms), (middle_ms + 1, until_ms)]
        return rows

    # --- the listenKey ---

    async def listen_key(self) -> str:
        """Return the account's listenKey: a new one, or the live one with its hour renewed."""
        if (key := self._key_of(await self._listen_key("POST"))) is None:
            raise BadReplyError("listenKey: is missing")
        return key

    async def keep_listen_key(self) -> str | None:
        """Renew the hour of the account's listenKey; VenueError −1125 when it is dead.

        Return which one that is, None when the venue does not say (before 2024 it did not).
        """
        return self._key_of(await self._listen_key("PUT"))

    async def _listen_key(self, method: str) -> Any:
        return await self._http.read(
            Request(method=method, path=_LISTEN_KEY, costs={WEIGHT: 1}, idempotent=True)
        )

    @staticmethod
    def _key_of(data: Any) -> str | None:
        key = row_of(data).get("listenKey")
        if key is None or (isinstance(key, str) and key.isascii() and key.isalnum()):
            return key
        raise BadReplyError("listenKey: must be one word")

    # --- one request ---

    def _of_symbol(self) -> tuple[tuple[str, str], ...]:
        return (("symbol", self.symbol),)

    def _now_ms(self) -> int:
        return self._http.venue_time_ms()

    async def _read(
        self, path: str, params: tuple[tuple[str, str], ...] = (), *, weight: int
    ) -> Any:
        return await self._http.read(
            Request(method="GET", path=path, params=params, costs={WEIGHT: weight})
        )

    async def _get(self, path: str, params: tuple[tuple[str, str], ...], *, weight: int) -> Any:
        return await self._http.read(
            Request(method="GET", path=path, params=params, signed=True, costs={WEIGHT: weight})
        )

    async def _send(
        self,
        method: str,
        path: str,
        params: tuple[tuple[str, str], ...],
        costs: Mapping[str, int],
        *,
        urgent: bool = False,
        patience_s: float = 0.0,
    ) -> Reply:
        reply = await self._http.send(
            Request(
                method=method, path=path, params=params, signed=True, costs=costs, urgent=urgent
            ),
            patience_s=patience_s,
        )
        if reply.reaction is Reaction.ALREADY_SO:
            return replace(reply, verdict=Verdict.OK)
        return reply


def _check_size(orders: Sequence[object], most: int) -> None:
    if not 0 < len(orders) <= most:
        raise ValueError(f"a batch holds 1 to {most} orders, not {len(orders)}")
