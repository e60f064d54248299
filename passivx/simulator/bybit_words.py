"""What all parts of the Bybit front share: its words and codes, its numbers as text, its topics.

Facts of the venue come from docs/protocol facts, part B. Texts of errors are the venue's own where
they are known, else what its table of codes says.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote

import orjson

from passivx._core.calc import cost
from passivx.simulator.server import Session
from passivx.simulator.venue import Kind, Listing, OrderType, Reason, Refusal, Status, TimeInForce

Params = Mapping[str, Any]
Json = dict[str, Any]

CATEGORIES: Final = ("spot", "linear", "inverse", "option")
SIDES: Final = {"Buy": 1, "Sell": -1}
SIDE_WORDS: Final = {1: "Buy", -1: "Sell"}
TYPES: Final = {"Limit": OrderType.LIMIT, "Market": OrderType.MARKET}
TIFS: Final = {
    "GTC": TimeInForce.GTC,
    "IOC": TimeInForce.IOC,
    "FOK": TimeInForce.FOK,
    "PostOnly": TimeInForce.POST_ONLY,
}
TIF_WORDS: Final = {tif: word for word, tif in TIFS.items()}
STATUS_WORDS: Final = {
    Status.NEW: "New",
    Status.PARTIALLY_FILLED: "PartiallyFilled",
    Status.FILLED: "Filled",
    Status.CANCELED: "Cancelled",
    Status.EXPIRED: "Cancelled",
}
# cancelType and rejectReason of an order the venue ended, by the truth's reason
ENDINGS: Final = {
    "user": ("CancelByUser", "EC_PerCancelRequest"),
    "post_only": ("UNKNOWN", "EC_PostOnlyWillTakeLiquidity"),
    "ioc": ("UNKNOWN", "EC_NoImmediateQtyToFill"),
    "fok": ("UNKNOWN", "EC_NoImmediateQtyToFill"),
    "reduce_only": ("CancelByReduceOnly", "EC_NoError"),
    "liquidation": ("CancelAllBeforeLiq", "EC_NoError"),
}
ENDED_BY_VENUE: Final = ("CancelByAdmin", "EC_NoError")
EXEC_TYPES: Final = {Kind.TRADE: "Trade", Kind.LIQUIDATION: "BustTrade", Kind.ADL: "AdlTrade"}
CREATE_TYPES: Final = {
    Kind.TRADE: "CreateByUser",
    Kind.LIQUIDATION: "CreateByLiq",
    Kind.ADL: "CreateByAdl_PassThrough",
}

PARAMETER: Final = 10001
UNCHANGED_TEXT: Final = (
    "The order remains unchanged as the parameters entered match the existing ones."
)
REFUSALS: Final = {
    Reason.BAD_PRICE: (PARAMETER, "Price invalid"),
    Reason.BAD_QTY: (PARAMETER, "Qty invalid"),
    Reason.QTY_TOO_SMALL: (
        PARAMETER,
        "The number of contracts exceeds minimum limit allowed",
    ),
    Reason.QTY_TOO_LARGE: (
        PARAMETER,
        "The number of contracts exceeds maximum limit allowed: too large",
    ),
    Reason.NOTIONAL_TOO_SMALL: (110094, "Order does not meet minimum order value"),
    Reason.OUT_OF_BAND: (110003, "Order price exceeds the allowable range."),
    Reason.WOULD_TAKE: (PARAMETER, "PostOnly order would take liquidity"),
    Reason.CANNOT_FILL: (PARAMETER, "FOK order cannot be filled"),
    Reason.WOULD_NOT_REDUCE: (
        110017,
        "current position is zero, cannot fix reduce-only order qty",
    ),
    Reason.REDUCE_ONLY_SUM: (110017, "orderQty will be truncated to zero."),
    Reason.TOO_MANY_ORDERS: (110020, "Cannot have more than 500 active orders."),
    Reason.MARGIN: (110007, "ab not enough for new order"),
    Reason.TIER: (
        110090,
        "New position value exceeds position value limit at current leverage.",
    ),
    Reason.DUPLICATE_ID: (110072, "OrderLinkedID is duplicate"),
    Reason.UNKNOWN_ORDER: (110001, "order not exists or too late to cancel"),
    Reason.FINISHED_ORDER: (110001, "order not exists or too late to cancel"),
    Reason.UNCHANGED: (PARAMETER, UNCHANGED_TEXT),
    Reason.ALREADY_FILLED: (
        110064,
        "The number of contracts modified cannot be less than or equal to the filled quantity",
    ),
    Reason.NOT_TRADING: (110074, "This contract is not live"),
    Reason.ALREADY_SO: (34040, "Not modified"),
    Reason.BAD_LEVERAGE: (110013, "Cannot set leverage due to risk limit level."),
    Reason.HAS_ORDERS: (110028, "Open orders exist, so you cannot change position mode"),
    Reason.HAS_POSITION: (
        110024,
        "You have an existing position, so position mode cannot be switched",
    ),
}

WEEK_MS: Final = 7 * 86_400_000
DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
# What stands for "no limit" in the last risk tier; the venue always names a number.
NO_LIMIT: Final = 1e9


class AnswerError(Exception):
    """An answer whose code is not 0."""

    def __init__(self, code: int, text: str, result: Json | None = None) -> None:
        self.code = code
        self.text = text
        self.result: Json = {} if result is None else result
        super().__init__(f"{code} {text}")


def bad(text: str) -> AnswerError:
    """Return the complaint about a parameter."""
    return AnswerError(PARAMETER, text)


def amount(x: float) -> str:
    """Return an amount of money as text: what a double knows of it, 12 decimals at most."""
    if x == 0.0:
        return "0"
    size = abs(x)
    spec = ".12f" if size < 1e3 else ".9f" if size < 1e6 else ".6f"
    text = format(x, spec).rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def number(value: object, complaint: str) -> float:
    """Return the number a text holds: plain decimal digits, as the venue wants its numbers."""
    if isinstance(value, str) and value.isascii() and value.replace(".", "", 1).isdecimal():
        x = float(value)
        if math.isfinite(x):
            return x
    raise bad(complaint)


def digits(text: str) -> int | None:
    """Return the whole number that a text of plain digits is, None when it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def whole(params: Params, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number of a query, cut to what the venue allows."""
    text = params.get(name, "")
    if text == "":
        return default
    number = digits(text)
    if number is None:
        raise bad(f"params error: {name} invalid")
    return max(least, min(number, most))


def flag(params: Params, name: str) -> bool:
    """Return a JSON boolean, False when it is not there."""
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise bad("Request parameter error.")
    return value


def uuid_text(salt: str, number: int) -> str:
    """Return an id shaped like the venue's that still tells its number."""
    return f"{salt}-{number:012x}"


def cursor_text(number: int) -> str:
    """Return the cursor that continues below ``number``: percent-encoded, as the venue's is."""
    return f"page_token%3D{number}%26"


def below_cursor(params: Params) -> int | None:
    """Return where a cursor continues, None at the start.

    Clients pass it as it came (then it has been decoded once by now) or encoded once more.
    """
    text = unquote(params.get("cursor", ""))
    if not text:
        return None
    token = text.removeprefix("page_token=").removesuffix("&")
    place = digits(token)
    if place is None:
        raise bad("params error: cursor invalid")
    return place


def span(params: Params, now_ms: int) -> tuple[int, int]:
    """Return the first and last ms that a query of history covers: seven days at most."""
    last = whole(params, "endTime", -1, 0, 1 << 53)
    first = whole(params, "startTime", -1, 0, 1 << 53)
    if first < 0:
        last = now_ms + 1000 if last < 0 else last
        return last - WEEK_MS, last
    if last < 0:
        return first, first + WEEK_MS
    if last < first:
        raise bad("startTime should be less than endTime")
    if last - first > WEEK_MS:
        raise bad("The time range between startTime and endTime cannot exceed 7 days.")
    return first, last


class Stamped(Protocol):
    """What happened at some time."""

    @property
    def ts_ms(self) -> int: ...


_Stamped = TypeVar("_Stamped", bound=Stamped)


def newest(
    rows: Sequence[_Stamped], first_ms: int, last_ms: int, below: int | None
) -> Iterator[tuple[int, _Stamped]]:
    """Yield what happened in a span, newest first, each with its place among the ``rows``.

    ``rows`` are in order of time; ``below``: only places below this one.
    """
    start = len(rows) if below is None else min(below, len(rows))
    for place in range(start - 1, -1, -1):
        row = rows[place]
        if row.ts_ms < first_ms:
            return
        if row.ts_ms <= last_ms:
            yield place, row


class Window:
    """How often something may happen in a rolling span of time."""

    __slots__ = ("_span_ms", "_stamps", "limit")

    def __init__(self, limit: int, span_ms: int) -> None:
        self.limit = limit
        self._span_ms = span_ms
        self._stamps: deque[int] = deque()

    def take(self, now_ms: int, wanted: int = 1) -> int:
        """Count up to ``wanted`` events at once and return how many there was room for."""
        stamps = self._stamps
        while stamps and stamps[0] <= now_ms - self._span_ms:
            stamps.popleft()
        fits = min(wanted, self.limit - len(stamps))
        for _ in range(fits):
            stamps.append(now_ms)
        return fits

    @property
    def left(self) -> int:
        """Return how many more there is room for, as of the last `take`."""
        return self.limit - len(self._stamps)

    def resets_ms(self, now_ms: int) -> int:
        """Return when there will be room again: now, if there is."""
        return now_ms if self.left > 0 else self._stamps[0] + self._span_ms


def pages(
    rows: Iterator[tuple[int, Json]], limit: int, more: Callable[[int], str] = cursor_text
) -> tuple[list[Json], str]:
    """Cut one page from rows that come newest first, each with its number.

    The cursor is empty when nothing is left.
    """
    page = list(islice(rows, limit + 1))
    if len(page) <= limit:
        return [row for _, row in page], ""
    return [row for _, row in page[:limit]], more(page[limit - 1][0])


def refused_by(refusal: Refusal, side: int = 0) -> AnswerError:
    """Return the venue's code and text for a refusal; ``side`` is the order's, 0 where none is."""
    code, text = REFUSALS[refusal.reason]
    if refusal.reason is Reason.OUT_OF_BAND and side > 0:
        code, text = 30208, "The order price is higher than the maximum buying price."
    elif refusal.reason is Reason.OUT_OF_BAND and side < 0:
        code, text = 30209, "Order price is lower than the minimum selling price."
    return AnswerError(code, text)


class Units:
    """How the listing's prices and quantities are written, and what belongs to it.

    ``tiers`` holds floor, maintenance rate and deduction of each, in their order.
    """

    def __init__(self, listing: Listing) -> None:
        self.inverse = listing.market.inverse
        self.category = "inverse" if self.inverse else "linear"
        self.symbol = listing.symbol
        self.base = listing.base
        self.settle = listing.settle
        self.update(listing)

    def update(self, listing: Listing) -> None:
        """Take up new rules of the same symbol."""
        market = listing.market
        self.price_step = market.price_step
        # The venue writes no price with fewer than two decimals.
        self.price_scale = max(2, listing.price_decimals)
        self._price_spec = f".{self.price_scale}f"
        self._qty_spec = f".{listing.qty_decimals}f"
        self.tiers: list[tuple[float, float, float]] = market.tier_records().tolist()

    def price(self, x: float) -> str:
        """Return a price as text, with all its decimals."""
        return format(x, self._price_spec)

    def qty(self, x: float) -> str:
        """Return a quantity as text, with all its decimals."""
        return format(x, self._qty_spec)

    def value(self, qty: float, price: float) -> float:
        """Return what a quantity is worth in the settle currency; 0 without a price."""
        return cost(qty, price, inverse=self.inverse) if 0.0 < price < math.inf else 0.0

    def average(self, qty: float, value: float) -> float:
        """Return the average price of a quantity of that value; 0 of nothing."""
        if qty == 0.0 or value == 0.0:
            return 0.0
        return qty / value if self.inverse else value / qty

    def known_category(self, params: Params) -> str:
        """Return the category of a request.

        Raises
        ------
        AnswerError
            If it is none of the venue's.
        """
        category = params.get("category", "")
        if category not in CATEGORIES:
            raise bad("params error: Illegal category")
        return str(category)

    def lists(self, params: Params) -> bool:
        """Tell whether a request means this listing's category, and no other symbol of it.

        Raises
        ------
        AnswerError
            If the category is unknown, or has no such symbol.
        """
        if self.known_category(params) != self.category:
            return False
        symbol = params.get("symbol", "")
        if symbol and symbol != self.symbol:
            raise bad("params error: symbol invalid")
        return True

    def check_scope(self, params: Params) -> None:
        """Refuse a request about orders that names neither a symbol nor a coin."""
        if not any(params.get(name) for name in ("symbol", "baseCoin", "settleCoin")):
            raise bad("params error: symbol, baseCoin and settleCoin cannot all be empty")

    def in_scope(self, params: Params) -> bool:
        """Tell whether a request about orders means this listing: symbol before base and settle."""
        if not self.lists(params):
            return False
        if params.get("symbol"):
            return True
        if params.get("baseCoin"):
            return bool(params["baseCoin"] == self.base)
        return params.get("settleCoin", "") in ("", self.settle)


class Hub:
    """Topics and who listens to them; ``seq`` numbers whatever happens at the venue."""

    def __init__(self, started_ms: int) -> None:
        self.topics: dict[str, list[Session]] = {}
        self.seq = started_ms % 1_000_000_000 * 1000
        self.salt = f"{started_ms & 0xFFFFFFFF:08x}-{started_ms >> 32 & 0xFFFF:04x}"

    def join(self, session: Session, topic: str) -> None:
        """Let a socket hear a topic."""
        self.topics.setdefault(topic, []).append(session)

    def leave(self, session: Session, topic: str) -> None:
        """Let a socket hear a topic no more."""
        listeners = self.topics.get(topic, [])
        if session in listeners:
            listeners.remove(session)
        if not listeners:
            self.topics.pop(topic, None)

    def tell(self, topic: str, message: Json) -> None:
        """Send a message to everybody who listens to a topic."""
        if topic in self.topics:
            self.tell_text(topic, orjson.dumps(message))

    def tell_text(self, topic: str, text: bytes) -> None:
        """Send what is text already."""
        for session in tuple(self.topics.get(topic, ())):
            session.send(text)
