"""What every venue is to the rest of passivx: values, outcomes, events, and `Exchange` on top.

Prices and quantities are doubles on the venue's grid (the value its decimal text parses to), sides
are +1 buy and -1 sell, sizes are signed, times are ms UTC by the venue's clock, money is in settle
currency (quote linear, base coin inverse). Fees and funding are negative when paid.
"""

from __future__ import annotations

import math
import re
from asyncio import Future
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import orjson

from passivx._core.wire import decimal_text
from passivx.errors import BadReplyError
from passivx.models import Market, Position, step_parts

if TYPE_CHECKING:
    from passivx.exchanges.stream import StreamState

__all__ = [
    "Account",
    "Exchange",
    "Fill",
    "FillKind",
    "KeyRights",
    "Link",
    "MarkPrice",
    "NewOrder",
    "Order",
    "OrderStatus",
    "Outcome",
    "Payment",
    "PublicTrade",
    "Reaction",
    "Rules",
    "Sink",
    "Steps",
    "Verdict",
    "above_0",
    "at_least_0",
    "decode",
    "flag",
    "number",
    "number_or_none",
    "row_of",
    "rows_of",
    "settle_of",
    "side_of",
    "text",
    "whole",
]


_OUR_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")


class Verdict(StrEnum):
    """What is known of a request that changes something."""

    OK = "ok"
    REJECTED = "rejected"  # proven: it did not happen and never will
    UNKNOWN = "unknown"  # everything else: look it up by client id before anything is sent again


class Reaction(StrEnum):
    """What a caller does about a refusal; one table per venue says which code asks for which."""

    NONE = "none"
    ALREADY_SO = "already_so"  # the wanted state holds: success
    LOOK_UP = "look_up"  # outcome unknown: stream, then query by client id
    GONE = "gone"  # the order is final: reconcile, do not cancel again
    DROP = "drop"  # invalid under the present rules: never send it unchanged
    REPRICE = "reprice"  # a newer price is needed
    REFRESH_RULES = "refresh_rules"  # steps or limits changed
    REDUCE_ONLY = "reduce_only"  # stop opening
    BACK_OFF = "back_off"  # send nothing for retry_after_s
    RESYNC_CLOCK = "resync_clock"
    RECREATE = "recreate"  # a new listenKey or connection
    HALT = "halt"  # an operator must look


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one order message.

    ``code`` and ``text`` are the venue's; ``order`` is what it said about the order, if it did.
    """

    verdict: Verdict
    reaction: Reaction = Reaction.NONE
    code: int | None = None
    text: str = ""
    retry_after_s: float = 0.0
    order: Order | None = None


class OrderStatus(StrEnum):
    """Life of an order; the last four are final."""

    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self not in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """An order to send: post-only at ``price``, or at market (``price`` is then ignored)."""

    client_id: str
    side: int
    price: float
    qty: float
    reduce_only: bool = False
    at_market: bool = False

    def check(self) -> None:
        """Raise ValueError unless side and id are words that both venues take unescaped."""
        if self.side not in (1, -1):
            raise ValueError(f"side: must be 1 or -1, was {self.side!r}")
        if not _OUR_ID.fullmatch(self.client_id):
            raise ValueError(
                f"client_id: must be 1 to 36 of A-Z a-z 0-9 _ -, was {self.client_id!r:.60}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order as the venue last described it.

    ``filled_qty`` counts, whatever the status: a cancelled order may have fills. ``reason`` says
    why it ended when nobody asked for that: post_only, reduce_only, liquidation, adl, self_trade,
    else the venue's own word.
    """

    client_id: str
    order_id: str
    side: int
    price: float
    qty: float
    filled_qty: float
    reduce_only: bool
    status: OrderStatus
    ts_ms: int
    reason: str = ""


class FillKind(StrEnum):
    """Whose doing a fill was."""

    TRADE = "trade"
    LIQUIDATION = "liquidation"
    ADL = "adl"
    SETTLEMENT = "settlement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution of this account; ``trade_id`` is unique in the symbol. Dedupe by it."""

    trade_id: str
    order_id: str
    client_id: str
    side: int
    price: float
    qty: float
    fee: float
    fee_currency: str
    pnl: float  # NaN when the message does not say (Bybit's stream of old)
    maker: bool
    ts_ms: int
    kind: FillKind = FillKind.TRADE


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One funding settlement of this account; ``amount`` is negative when paid."""

    id: str
    ts_ms: int
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTrade:
    """One trade of the public tape."""

    trade_id: str
    price: float
    qty: float
    ts_ms: int
    buyer_maker: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkPrice:
    """Mark price, the funding rate predicted for ``next_funding_ms``, and when that was."""

    mark_price: float
    funding_rate: float
    next_funding_ms: int
    ts_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Wallet, position and modes of the account, one symbol, as of one moment."""

    wallet: float
    available: float
    position: Position
    leverage: float
    cross_mode: bool
    one_way: bool
    can_trade: bool
    ts_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRights:
    """What the API key may do; None is what the venue does not tell through this interface.

    ``detail`` is the rest of what it said, for a person.
    """

    can_trade: bool | None
    can_withdraw: bool | None
    read_only: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The venue's rules for the symbol and this account; reload them daily and on a rejection.

    ``market`` has steps, minima, this account's fees and the maintenance tiers. Prices outside
    ``[mark × band_down, mark × band_up]`` are refused on the aggressive side (Bybit may refuse
    nearer ones too, by its index); None where the venue names no band. ``assumed`` names the
    fields of ``market`` that the venue tells with a key alone, where there was none: they are the
    caller's own. ``reduce_only_summed``: open reduce-only orders of a side may not come to more
    than the position, so that another one must wait for room.
    """

    market: Market
    trading: bool
    min_price: float
    max_price: float
    max_qty: float
    max_market_qty: float
    max_orders: int  # open at once
    band_up: float | None
    band_down: float | None
    funding_interval_ms: int
    assumed: tuple[str, ...] = ()
    reduce_only_summed: bool = False


class Steps(NamedTuple):
    """The grids of prices and quantities, each as (whole units, power of ten)."""

    price: tuple[float, float]
    qty: tuple[float, float]

    @classmethod
    def of(cls, market: Market) -> Steps:
        """Return a market's."""
        return cls(step_parts(market.price_step), step_parts(market.qty_step))

    def price_text(self, price: float) -> str:
        """Return a price's decimal text; ValueError when it is 0 or not on the grid."""
        return _amount_text("price", price, self.price)

    def qty_text(self, qty: float) -> str:
        """Return a quantity's decimal text; ValueError when it is 0 or not on the grid."""
        return _amount_text("qty", qty, self.qty)


def _amount_text(name: str, value: float, step: tuple[float, float]) -> str:
    if not value > 0.0:
        raise ValueError(f"{name}: must be > 0, was {value!r}")
    return decimal_text(value, step, name=name)


class Link(StrEnum):
    """The connections a venue client keeps."""

    BOOK = "book"
    TRADES = "trades"
    PRIVATE = "private"
    ORDERS = "orders"


class Sink(Protocol):
    """Where a client's events go: plain calls from within the socket's callback, never queued.

    Market events may repeat across a reconnect or a rotation, private ones too: dedupe trades and
    fills by id, order states by (final, filled_qty, ts_ms).
    """

    def on_trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None: ...
    def on_quote(
        self, bid: float, bid_qty: float, ask: float, ask_qty: float, ts_ms: int
    ) -> None: ...
    def on_mark(self, mark: MarkPrice) -> None: ...
    def on_order(self, order: Order) -> None: ...
    def on_fill(self, fill: Fill) -> None: ...
    def on_payment(self, payment: Payment) -> None: ...
    def on_wallet(self, wallet: float, ts_ms: int) -> None: ...
    def on_position(self, position: Position, ts_ms: int) -> None:
        """Take a position; its ``liq_price`` is NaN where the venue's event does not tell it."""
        ...

    def on_link(self, link: Link, state: StreamState, reason: str) -> None:
        """Take note of a connection's state; after a loss nothing in between is repeated."""
        ...

    def on_gap(self, link: Link, reason: str) -> None:
        """Take note that events may be missing: reconcile over REST."""
        ...


class Exchange(Protocol):
    """One venue, one symbol, one account.

    Reads are retried; when they fail they raise `VenueError`, and never return "nothing" for
    "not known". Order messages are sent exactly once, at once, in the order given, and their
    futures always resolve to an `Outcome`.
    """

    name: str
    symbol: str

    async def rules(self) -> Rules: ...
    async def account(self) -> Account: ...
    async def rights(self) -> KeyRights:
        """Return what the key may do, as far as the venue tells that."""
        ...

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        """Set one-way mode, margin mode and leverage; raise `VenueError` unless they hold."""
        ...

    async def mark(self) -> MarkPrice: ...
    async def open_orders(self) -> list[Order]: ...
    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None only when the venue itself says that there is none."""
        ...

    async def fills(self, since_ms: int) -> list[Fill]: ...
    async def payments(self, since_ms: int) -> list[Payment]: ...
    async def recent_trades(self, limit: int) -> list[PublicTrade]: ...
    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]: ...
    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]: ...
    async def cancel_all(self) -> Outcome: ...
    async def dead_man(self, timeout_s: float) -> bool:
        """Have the venue cancel all orders of the symbol unless called again in time.

        0 switches it off, else it is 1 to 86,400 s (ValueError). False when the venue offers none
        to this account.
        """
        ...

    async def listen(self, sink: Sink) -> None:
        """Connect every link and return once all are live; events flow until `close`."""
        ...

    async def close(self) -> None: ...


def settle_of(symbol: str, *, inverse: bool) -> str:
    """Return the currency of a perpetual's wallet: USDT of BTCUSDT, BTC of an inverse BTCUSD."""
    for quote in ("USDT", "USDC", "USD"):
        if symbol.endswith(quote):
            return symbol.removesuffix(quote) if inverse else quote
    return symbol


# --- reading what venues send ---------------------------------------------------------------------


def decode(payload: bytes | memoryview) -> dict[str, Any]:
    """Parse a message, which is always one object.

    Raises
    ------
    BadReplyError
        If it is not; its content is not quoted.
    """
    try:
        message = orjson.loads(payload)
    except ValueError:
        raise BadReplyError("a message is not JSON") from None
    return row_of(message, "a message")


def row_of(value: Any, what: str = "the answer") -> dict[str, Any]:
    """Return an object as such; anything else is a `BadReplyError`."""
    if not isinstance(value, dict):
        raise BadReplyError(f"{what}: must be a JSON object")
    return value


def rows_of(value: Any, what: str = "the answer") -> list[dict[str, Any]]:
    """Return a list of objects as such; anything else is a `BadReplyError`."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise BadReplyError(f"{what}: must be a list of objects")
    return value


def number(row: Mapping[str, Any], key: str) -> float:
    """Return a finite number that came as decimal text or JSON number.

    Raises
    ------
    BadReplyError
        If it is missing, empty, not a plain number or not finite. No default is ever made up.
    """
    value = row.get(key)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            # Decimal refuses "0x1p3", takes "1_0": which no venue has ever sent.
            read = float(Decimal(value)) if isinstance(value, str) else float(value)
            if math.isfinite(read) and "_" not in str(value):
                return read
        except (InvalidOperation, OverflowError, ValueError):
            pass
    raise BadReplyError(f"{key}: must be a finite number, was {value!r:.80}")


def at_least_0(row: Mapping[str, Any], key: str) -> float:
    """Return a number >= 0, as `number` does."""
    value = number(row, key)
    if value < 0.0:
        raise BadReplyError(f"{key}: must be at least 0, was {value!r}")
    return value


def above_0(row: Mapping[str, Any], key: str) -> float:
    """Return a number > 0, as `number` does."""
    value = number(row, key)
    if not value > 0.0:
        raise BadReplyError(f"{key}: must be > 0, was {value!r}")
    return value


def flag(row: Mapping[str, Any], key: str) -> bool:
    """Return a JSON true or false; anything else is a `BadReplyError`."""
    value = row.get(key)
    if isinstance(value, bool):
        return value
    raise BadReplyError(f"{key}: must be true or false, was {value!r:.40}")


def side_of(row: Mapping[str, Any], key: str, buy: str, sell: str) -> int:
    """Return +1 or -1 for a venue's words; anything else is a `BadReplyError`."""
    side = row.get(key)
    if side == buy:
        return 1
    if side == sell:
        return -1
    raise BadReplyError(f"{key}: must be {buy} or {sell}, was {side!r:.40}")


def number_or_none(row: Mapping[str, Any], key: str) -> float | None:
    """Return None where the venue says "none" by leaving the value out or empty."""
    return None if row.get(key) in (None, "") else number(row, key)


def whole(row: Mapping[str, Any], key: str) -> int:
    """Return a whole number >= 0 that came as a JSON number or as text.

    Raises
    ------
    BadReplyError
        If it is anything else.
    """
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    raise BadReplyError(f"{key}: must be a whole number, was {value!r:.80}")


def text(row: Mapping[str, Any], key: str) -> str:
    """Return a text (an id may also come as a number).

    Raises
    ------
    BadReplyError
        If it is missing or anything else.
    """
    value = row.get(key)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise BadReplyError(f"{key}: must be a text, was {value!r:.80}")
