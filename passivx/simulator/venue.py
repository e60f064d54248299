"""The venue's truth: one symbol, one account, its orders, fills, position and money.

It speaks no protocol. A front (`simulator.binance`, `simulator.bybit`) turns requests into calls,
`Refusal` into its error codes, and what an `Observer` hears into its streams. Everything is
synchronous and single-threaded: what a call causes is heard before it returns, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from passivx.clock import Clock
from passivx.models import Market
from passivx.simulator.ledger import Ledger

__all__ = [
    "Execution",
    "Kind",
    "Listing",
    "Observer",
    "OrderType",
    "Policy",
    "Reason",
    "Refusal",
    "SimOrder",
    "SimVenue",
    "Status",
    "TimeInForce",
]


class Reason(StrEnum):
    """Why the venue refuses; a front maps each to its code and text."""

    BAD_PRICE = "bad_price"  # not a multiple of the step, or outside min/max price
    BAD_QTY = "bad_qty"  # not a multiple of the step
    QTY_TOO_SMALL = "qty_too_small"
    QTY_TOO_LARGE = "qty_too_large"
    NOTIONAL_TOO_SMALL = "notional_too_small"
    OUT_OF_BAND = "out_of_band"  # too far on the aggressive side of the mark price
    WOULD_TAKE = "would_take"  # post-only
    CANNOT_FILL = "cannot_fill"  # FOK
    WOULD_NOT_REDUCE = "would_not_reduce"  # no position, wrong side, or more than the position
    REDUCE_ONLY_SUM = "reduce_only_sum"  # open reduce-only orders use the position up already
    TOO_MANY_ORDERS = "too_many_orders"
    MARGIN = "margin"
    TIER = "tier"  # notional beyond what the leverage allows
    DUPLICATE_ID = "duplicate_id"
    UNKNOWN_ORDER = "unknown_order"
    FINISHED_ORDER = "finished_order"
    UNCHANGED = "unchanged"  # an amendment without a change
    ALREADY_FILLED = "already_filled"  # amended to no more than what is filled
    NOT_TRADING = "not_trading"
    ALREADY_SO = "already_so"  # leverage or mode is as asked for
    BAD_LEVERAGE = "bad_leverage"
    HAS_ORDERS = "has_orders"
    HAS_POSITION = "has_position"


class Refusal(Exception):
    """The venue refuses a request; nothing has changed (but see `Policy.post_only_cancels`)."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason} {detail}".strip())


class OrderType(StrEnum):
    LIMIT = "LIMIT"
    MARKET = "MARKET"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    POST_ONLY = "POST_ONLY"


class Status(StrEnum):
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"  # ended by the venue: IOC rest, liquidation, reduce-only knocked out
    REJECTED = "REJECTED"

    @property
    def final(self) -> bool:
        return self not in (Status.NEW, Status.PARTIALLY_FILLED)


class Kind(StrEnum):
    """Whose doing an execution is."""

    TRADE = "trade"
    LIQUIDATION = "liquidation"
    ADL = "adl"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the venue lists: the symbol and its rules. Prices in quote, qty as in `Market`."""

    symbol: str
    base: str
    quote: str
    market: Market
    min_price: float
    max_price: float
    max_qty: float
    max_market_qty: float
    max_orders: int = 200
    band_up: float = 1.05  # a buy above mark × band_up is out of band
    band_down: float = 0.95  # a sell below mark × band_down is
    funding_interval_ms: int = 8 * 3_600_000
    funding_rate: float = 0.0001

    @property
    def settle(self) -> str:
        """Name the currency of wallet, pnl and fees."""
        return self.base if self.market.inverse else self.quote


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Where the two venues differ in what they do with an order."""

    post_only_cancels: bool  # accepted, then cancelled (Bybit); else refused (Binance)
    reduce_only_trims: bool  # accepted, trimmed or cancelled later (Bybit); else refused (Binance)
    ids_unique_for_ever: bool  # Bybit; else among open orders (Binance)
    band_moves: bool  # an order out of band is moved to the bound (Bybit's default); else refused


@dataclass(slots=True, kw_only=True)
class SimOrder:
    """An order and everything that happened to it. Mutable: copy what must not move."""

    order_id: int  # rises with every order of the venue
    client_id: str
    side: int
    type: OrderType
    tif: TimeInForce
    price: float  # 0 at market
    qty: float  # total, as last amended
    reduce_only: bool
    created_ms: int
    updated_ms: int
    status: Status = Status.NEW
    filled: float = 0.0
    cost: float = 0.0  # of what is filled, in settle currency
    fee: float = 0.0  # negative when paid
    reason: str = ""  # why the venue ended it: "post_only", "reduce_only", "liquidation", "ioc", ...
    extra: dict[str, str] = field(default_factory=dict)  # what a front wants to remember

    @property
    def left(self) -> float:
        """What is still to fill; 0 when the order is final."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One fill of the account."""

    trade_id: int  # of the public tape's numbering
    exec_id: str  # UUID, made of a seeded stream
    order_id: int
    client_id: str
    side: int
    price: float
    qty: float
    fee: float  # negative when paid
    pnl: float  # of the part that closed, before fees
    maker: bool
    kind: Kind
    ts_ms: int


class Observer(Protocol):
    """Hears what happens, in order: the front, to publish it."""

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None: ...
    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None: ...
    def on_order(self, order: SimOrder, what: str) -> None:
        """``what``: new, amended, trade, canceled, expired, rejected."""
        ...

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        """After it `on_order(order, "trade")` follows; ``order`` is None for a liquidation."""
        ...

    def on_account(self, why: str) -> None:
        """Wallet or position changed; ``why``: order, funding, deposit, liquidation, adl."""
        ...

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None: ...
    def on_terms(self, what: str) -> None:
        """Leverage, margin mode, position mode or rules changed; ``what`` names which."""
        ...


class SimVenue:
    """One symbol, one account. All prices and quantities are doubles on the market's grid."""

    listing: Listing
    policy: Policy
    leverage: float
    cross_mode: bool
    hedge_mode: bool
    trading: bool
    mark_price: float
    next_funding_ms: int
    orders: dict[int, SimOrder]  # by order_id, all of them
    executions: list[Execution]
    payments: list[tuple[int, float, float, float]]  # ts_ms, rate, amount, position size

    def __init__(
        self,
        listing: Listing,
        policy: Policy,
        *,
        clock: Clock,
        ledger: Ledger,
        price: float,
        wallet: float,
        leverage: float = 20.0,
        cross_mode: bool = True,
        seed: int = 0,
    ) -> None:
        raise NotImplementedError

    def observe(self, observer: Observer) -> None: ...
    # --- requests: each raises Refusal, or happens at once
    def place(
        self,
        *,
        client_id: str,
        side: int,
        type: OrderType,
        tif: TimeInForce,
        price: float,
        qty: float,
        reduce_only: bool,
    ) -> SimOrder: ...
    def amend(
        self, order: SimOrder, *, price: float | None = None, qty: float | None = None
    ) -> SimOrder: ...
    def cancel(self, order: SimOrder, *, reason: str = "user") -> SimOrder: ...
    def cancel_all(self, *, reason: str = "user") -> list[SimOrder]: ...
    def find(self, *, order_id: int | None = None, client_id: str | None = None) -> SimOrder: ...
    def open_orders(self) -> Iterable[SimOrder]: ...
    def set_leverage(self, leverage: float) -> None: ...
    def set_cross_mode(self, cross: bool) -> None: ...
    def set_hedge_mode(self, hedge: bool) -> None: ...
    # --- the account
    @property
    def wallet(self) -> float: ...
    @property
    def equity(self) -> float: ...
    @property
    def size(self) -> float: ...
    @property
    def entry_price(self) -> float: ...
    @property
    def liq_price(self) -> float: ...
    @property
    def open_pnl(self) -> float: ...
    @property
    def position_margin(self) -> float: ...
    @property
    def maintenance_margin(self) -> float: ...
    @property
    def order_margin(self) -> float: ...
    @property
    def available(self) -> float: ...
    @property
    def quote(self) -> tuple[float, float]: ...
    # --- the market and the outside world
    def print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, replay_ts_ms: int
    ) -> None: ...
    def settle_funding(self, rate: float | None = None) -> None: ...
    def deposit(self, amount: float) -> None: ...
    def liquidate(self) -> None: ...
    def deleverage(self, qty: float) -> None: ...
    def fill(self, order: SimOrder, qty: float) -> None: ...
    def set_listing(self, listing: Listing) -> None: ...
    def set_trading(self, trading: bool) -> None: ...
