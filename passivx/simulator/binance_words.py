"""Words of Binance USDⓈ-M: parameters, numbers as texts, codes, windows of the rate limits.

Facts: docs/protocol facts, part A.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from passivx.simulator.venue import Listing, OrderType, Reason, SimOrder, TimeInForce

__all__ = [
    "REFUSALS",
    "SIDES",
    "TIFS",
    "TIF_WORDS",
    "WEEK_MS",
    "AnswerError",
    "Json",
    "Limits",
    "Params",
    "Units",
    "flag",
    "integer",
    "limit_of",
    "missing",
    "order_answer",
    "order_query",
    "ts_range",
]

Json = dict[str, Any]
Params = Mapping[str, str]

SIDES: Final = {1: "BUY", -1: "SELL"}
TIFS: Final = {
    "GTC": TimeInForce.GTC,
    "IOC": TimeInForce.IOC,
    "FOK": TimeInForce.FOK,
    "GTX": TimeInForce.POST_ONLY,
}
TIF_WORDS: Final = {tif: word for word, tif in TIFS.items()}
WEEK_MS: Final = 7 * 86_400_000
_UNITS_MS: Final = {"SECOND": 1000, "MINUTE": 60_000}
_DECIMAL: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?|\.[0-9]{1,20}")
_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


class AnswerError(Exception):
    """An answer that is a refusal: Binance's code and text, and the HTTP status it comes with."""

    def __init__(
        self, code: int, msg: str, status: int = 400, retry_after_s: int | None = None
    ) -> None:
        self.code = code
        self.msg = msg
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(msg)


REFUSALS: Final[dict[Reason, tuple[int, str]]] = {
    Reason.BAD_PRICE: (-4014, "Price not increased by tick size."),
    Reason.BAD_QTY: (-4023, "Quantity not increased by step size."),
    Reason.QTY_TOO_SMALL: (-4004, "Quantity less than or equal to minimum quantity."),
    Reason.QTY_TOO_LARGE: (-4005, "Quantity greater than max quantity."),
    Reason.NOTIONAL_TOO_SMALL: (
        -4164,
        "Order's notional must be no smaller than 5 (unless you choose reduce only).",
    ),
    Reason.OUT_OF_BAND: (-4016, "Limit price can't be higher than the bound."),
    Reason.WOULD_TAKE: (
        -5022,
        "Due to the order could not be executed as maker, the Post Only order will be rejected. "
        "The order will not be recorded in the order history",
    ),
    Reason.CANNOT_FILL: (
        -5021,
        "Due to the order could not be filled immediately, the FOK order has been rejected. The "
        "order will not be recorded in the order history",
    ),
    Reason.WOULD_NOT_REDUCE: (-2022, "ReduceOnly Order is rejected."),
    Reason.REDUCE_ONLY_SUM: (
        -4118,
        "ReduceOnly Order Failed. Please check your existing position and open orders",
    ),
    Reason.TOO_MANY_ORDERS: (-2025, "Reach max open order limit."),
    Reason.MARGIN: (-2019, "Margin is insufficient."),
    Reason.TIER: (-2027, "Exceeded the maximum allowable position at current leverage."),
    Reason.DUPLICATE_ID: (-4116, "ClientOrderId is duplicated."),
    Reason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
    Reason.FINISHED_ORDER: (-2011, "Unknown order sent."),
    Reason.UNCHANGED: (-5027, "No need to modify the order."),
    Reason.ALREADY_FILLED: (-2011, "Unknown order sent."),
    Reason.NOT_TRADING: (-4141, "Symbol is closed."),
    Reason.ALREADY_SO: (-4046, "No need to change margin type."),
    Reason.BAD_LEVERAGE: (-4028, "Leverage is not valid"),
    Reason.HAS_ORDERS: (-4047, "Margin type cannot be changed if there exists open orders."),
    Reason.HAS_POSITION: (-4048, "Margin type cannot be changed if there exists position."),
}


# --- parameters -----------------------------------------------------------------------------------


def missing(name: str) -> AnswerError:
    """Return the refusal of a request that lacks a parameter."""
    return AnswerError(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def integer(params: Params, name: str, default: int | None = None) -> int:
    """Read a whole number >= 0; without a default it must be there."""
    value = params.get(name, "")
    if value == "" and default is not None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) < 20):
        raise missing(name)
    return int(value)


def limit_of(params: Params, default: int, most: int = 1000) -> int:
    """Read ``limit``: how many rows are asked for, cut to what the venue gives."""
    return max(1, min(integer(params, "limit", default), most))


def flag(params: Params, name: str) -> bool:
    """Read ``true`` or ``false``; what is not sent is false."""
    value = params.get(name, "").lower()
    if value not in ("", "true", "false"):
        raise missing(name)
    return value == "true"


def client_id_of(value: str) -> str:
    """Check a client id by the pattern that the docs give."""
    if not _CLIENT_ID.fullmatch(value):
        raise AnswerError(
            -4015 if len(value) > 36 else -1100,
            "Client order id length should be less than 36 chars."
            if len(value) > 36
            else "Illegal characters found in parameter 'newClientOrderId'; legal range is "
            "'^[\\.A-Z\\:/a-z0-9_-]{1,36}$'.",
        )
    return value


def ts_range(
    params: Params, now_ms: int, span_ms: int, *, inclusive: bool = True
) -> tuple[int, int]:
    """Read startTime and endTime: by default the newest span, at most (or less than) a span."""
    end = integer(params, "endTime", now_ms)
    start = integer(params, "startTime", max(0, end - span_ms))
    if "startTime" in params and "endTime" not in params:
        end = min(now_ms, start + span_ms)
    elif end - start > span_ms or (
        "startTime" in params and end - start == span_ms > 0 and not inclusive
    ):
        raise AnswerError(-4165, f"Maximum time interval is {span_ms // 3_600_000} hours.")
    return start, end


class Units:
    """Prices, quantities and money of one listing as Binance writes them."""

    def __init__(self, listing: Listing) -> None:
        self.symbol = listing.symbol
        self.quote = listing.quote
        self.update(listing)

    def update(self, listing: Listing) -> None:
        """Take up new rules of the same symbol."""
        self.price_decimals = listing.price_decimals
        self.qty_decimals = listing.qty_decimals

    def price(self, value: float) -> str:
        """Return a price with the step's decimals."""
        return f"{value:.{self.price_decimals}f}"

    def qty(self, value: float) -> str:
        """Return a quantity with the step's decimals."""
        return f"{value:.{self.qty_decimals}f}"

    def average(self, order: SimOrder) -> str:
        """Return the average price of what is filled."""
        return self.price(order.cost / order.filled) if order.filled else self.price(0.0)

    @staticmethod
    def money(value: float) -> str:
        """Return an amount with 8 decimals; zero has no sign."""
        return f"{value + 0.0:.8f}" if abs(value) >= 5e-9 else "0.00000000"

    def read_price(self, params: Params) -> float:
        """Read ``price``; precision beyond the step's decimals is refused as such."""
        return self._read(params, "price", self.price_decimals)

    def read_qty(self, params: Params) -> float:
        """Read ``quantity``."""
        return self._read(params, "quantity", self.qty_decimals)

    @staticmethod
    def _read(params: Params, name: str, decimals: int) -> float:
        value = params.get(name, "")
        if not _DECIMAL.fullmatch(value):
            raise missing(name)
        number = float(value)
        if len(value.partition(".")[2].rstrip("0")) > decimals:
            raise AnswerError(-1111, "Precision is over the maximum defined for this asset.")
        if name == "quantity" and not number > 0.0:
            raise AnswerError(-4003, "Quantity less than or equal to zero.")
        if name == "price" and not number > 0.0:
            raise AnswerError(-4001, "Price less than 0.")
        return number


# --- orders ---------------------------------------------------------------------------------------


def order_answer(order: SimOrder, units: Units) -> Json:
    """Return an order as place, amend and cancel answer it: without average and cost."""
    limit = order.type is OrderType.LIMIT
    return {
        "orderId": order.order_id,
        "symbol": units.symbol,
        "status": order.status.value,
        "clientOrderId": order.client_id,
        "price": units.price(order.price) if limit else "0.00",
        "origQty": units.qty(order.qty),
        "executedQty": units.qty(order.filled),
        "cumQty": units.qty(order.filled),
        "timeInForce": TIF_WORDS[order.tif] if limit else "GTC",
        "type": order.type.value,
        "reduceOnly": order.reduce_only,
        "closePosition": False,
        "side": SIDES[order.side],
        "positionSide": "BOTH",
        "stopPrice": "0.00",
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": order.type.value,
        "priceMatch": "NONE",
        "selfTradePreventionMode": order.extra.get("stp", "NONE"),
        "goodTillDate": 0,
        "updateTime": order.updated_ms,
    }


def order_query(order: SimOrder, units: Units) -> Json:
    """Return an order as queries answer it."""
    answer = order_answer(order, units)
    del answer["cumQty"]
    return answer | {
        "avgPrice": units.average(order),
        "cumQuote": units.money(order.cost),
        "time": order.created_ms,
    }


# --- rate limits ----------------------------------------------------------------------------------


class _Counter:
    """A rolling count of what one rule limits: so much in ``n`` of a unit of time."""

    def __init__(self, kind: str, limit: int, n: int, unit: str) -> None:
        self.limit = limit
        self.interval_ms = n * _UNITS_MS[unit]
        self.rule: Final[Json] = {
            "rateLimitType": kind,
            "interval": unit,
            "intervalNum": n,
            "limit": limit,
        }
        self.used = 0
        self._charges: deque[tuple[int, int]] = deque()

    def settle(self, now_ms: int) -> None:
        """Forget what is old."""
        while self._charges and self._charges[0][0] <= now_ms - self.interval_ms:
            self.used -= self._charges.popleft()[1]

    def count(self, now_ms: int, n: int) -> None:
        """Add."""
        self.settle(now_ms)
        if n:
            self._charges.append((now_ms, n))
            self.used += n

    def wait_s(self, now_ms: int, n: int) -> int:
        """Return for how long there is no room for ``n`` more: 0 when there is."""
        self.settle(now_ms)
        over = self.used + n - self.limit
        if over <= 0:
            return 0
        for ts_ms, charge in self._charges:
            over -= charge
            if over <= 0:
                return math.ceil((ts_ms + self.interval_ms - now_ms) / 1000)
        return math.ceil(self.interval_ms / 1000)


class Limits:
    """The address's weight and the account's order counters, and bans of who ignores them."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.weight = _Counter("REQUEST_WEIGHT", 2400, 1, "MINUTE")
        self.orders_10s = _Counter("ORDERS", 300, 10, "SECOND")
        self.orders_1m = _Counter("ORDERS", 1200, 1, "MINUTE")
        self._fundings = _Counter("FUNDING", 500, 5, "MINUTE")  # a kind that no answer names
        self._banned_until_ms = 0
        self._ignored = 0
        self._bans = 0

    def take_weight(self, now_ms: int, weight: int) -> None:
        """Count a request's weight; AnswerError if there is no room for it."""
        if not self.enabled:
            return
        if now_ms < self._banned_until_ms:
            raise AnswerError(
                -1003,
                f"Way too many requests; IP banned until {self._banned_until_ms}. Please use the "
                "websocket for live updates to avoid bans.",
                418,
                math.ceil((self._banned_until_ms - now_ms) / 1000),
            )
        # What is refused counts too: the address goes on using the venue.
        self.weight.count(now_ms, weight)
        if self.weight.used <= self.weight.limit:
            self._ignored = 0
            return
        # Who goes on after a 429 is banned, longer each time: 2 minutes to 3 days.
        self._ignored += 1
        if self._ignored > 10:
            self._bans += 1
            self._banned_until_ms = now_ms + min(120_000 * 4 ** (self._bans - 1), 259_200_000)
            self._ignored = 0
        raise AnswerError(
            -1003,
            f"Too many requests; current limit of IP is {self.weight.limit} requests per minute.",
            429,
            self.weight.wait_s(now_ms, weight),
        )

    def take_funding(self, now_ms: int) -> None:
        """Count a request for funding rates, which share a pool of their own, as `take_weight`."""
        if not self.enabled:
            return
        if wait_s := self._fundings.wait_s(now_ms, 1):
            text = "Too many requests; current limit of IP is 500 requests per 5 minutes."
            raise AnswerError(-1003, text, 429, wait_s)
        self._fundings.count(now_ms, 1)

    def take_orders(self, now_ms: int, n: int) -> None:
        """Count a request of ``n`` orders, as `take_weight`: one in the counter of a minute."""
        if not self.enabled:
            return
        short_s = self.orders_10s.wait_s(now_ms, n)
        long_s = self.orders_1m.wait_s(now_ms, 1)
        if not short_s and not long_s:
            self.orders_10s.count(now_ms, n)
            self.orders_1m.count(now_ms, 1)
            return
        which = (
            f"{self.orders_1m.limit} orders per 1 MINUTE"
            if long_s
            else f"{self.orders_10s.limit} orders per 10 SECOND"
        )
        raise AnswerError(
            -1015,
            f"Too many new orders; current limit is {which}.",
            429,
            max(short_s, long_s),
        )

    def headers(self, now_ms: int, with_orders: bool) -> dict[str, str]:
        """Return the counters as headers."""
        self.weight.settle(now_ms)
        headers = {"X-MBX-USED-WEIGHT-1M": str(self.weight.used)}
        if with_orders:
            self.orders_10s.settle(now_ms)
            self.orders_1m.settle(now_ms)
            headers["X-MBX-ORDER-COUNT-10S"] = str(self.orders_10s.used)
            headers["X-MBX-ORDER-COUNT-1M"] = str(self.orders_1m.used)
        return headers

    def rows(self, with_orders: bool) -> list[Json]:
        """Return the counters as the order socket has them."""
        counters = (self.orders_10s, self.orders_1m) if with_orders else (self.weight,)
        return [{**counter.rule, "count": counter.used} for counter in counters]
