"""The venue's truth: one symbol, one account, its orders, fills, position and money.

It speaks no protocol. A front (`simulator.binance`, `simulator.bybit`) turns requests into calls,
`Refusal` into its error codes, and what an `Observer` hears into its streams. Everything is
synchronous and single-threaded: what a call causes is heard before it returns, in order.

The module is long because orders, what may be asked and what then happens are one idea: what fills
is `_core.matching`'s, everything a venue says before and after that is here.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import count
from types import MappingProxyType
from typing import Final, Protocol
from uuid import UUID

import numpy as np

from passivx._core.calc import ceil_to, cost, floor_to, near_to, pnl
from passivx._core.matching import FillMode, PaperVenue
from passivx.clock import Clock
from passivx.models import Market, step_parts
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

log = logging.getLogger(__name__)

# Beyond 32 bits, as the venues' own numbers are.
_FIRST_ORDER_ID: Final = 8_389_765_000_001
# The core's number of an execution that is a liquidation.
_LIQUIDATED: Final = 0
# How far a product of doubles may be from that of the decimals, as a share; more than it ever is.
_NOISE: Final = 1e-12
# What the core keeps of orders on a side.
_MAX_RESTING: Final = 1024


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


class Refusal(Exception):  # noqa: N818 (an answer, not an error)
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

    @property
    def price_decimals(self) -> int:
        """How many decimals the price step has."""
        return _decimals(self.market.price_step)

    @property
    def qty_decimals(self) -> int:
        """How many decimals the quantity step has."""
        return _decimals(self.market.qty_step)

    def funding_after_ms(self, ts_ms: int) -> int:
        """Return when funding next falls due behind that time: at a whole interval of UTC."""
        return (ts_ms // self.funding_interval_ms + 1) * self.funding_interval_ms


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Where the two venues differ in what they do with an order."""

    post_only_cancels: bool  # accepted, then cancelled (Bybit); else refused (Binance)
    reduce_only_trims: bool  # accepted, trimmed or cancelled later (Bybit); else refused (Binance)
    ids_unique_for_ever: bool  # Bybit; else among open orders (Binance)
    band_moves: bool  # an order out of band is moved to the bound (Bybit's default); else refused
    low_amend_cancels: bool = False  # to no more than is filled: ends the order (Binance)


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
    reason: str = ""  # why the venue ended it: post_only, reduce_only, liquidation, ioc, ...
    left: float = 0.0  # what is still to fill; 0 when the order is final
    extra: dict[str, str] = field(default_factory=dict)  # what a front wants to remember


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
    ) -> None:
        """Hear a trade of the tape; then `on_quote` if it moved, then what it filled."""
        ...

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None: ...
    def on_order(self, order: SimOrder, what: str) -> None:
        """``what``: new, amended, trade, canceled, expired; a refused order was never one."""
        ...

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        """After it `on_order(order, "trade")` follows, then `on_account("order")`.

        ``order`` is None for a liquidation or deleveraging: then `on_account` follows at once. A
        liquidation is preceded by the end of every open order.
        """
        ...

    def on_account(self, why: str) -> None:
        """Wallet or position changed; ``why``: order, funding, deposit, liquidation, adl."""
        ...

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        """Hear of a settlement; ``amount`` is negative when paid, 0 when flat."""
        ...

    def on_terms(self, what: str) -> None:
        """Leverage, margin mode, position mode or rules changed; ``what`` names which."""
        ...


class SimVenue:
    """One symbol, one account. All prices and quantities are doubles on the market's grid.

    Parameters
    ----------
    listing : Listing
    policy : Policy
    clock : Clock
        The protocol's: of orders, executions and payments. Prints bring the replay's own time.
    ledger : Ledger
        Hears of amend, cancel, fill, funding, liquidation and deposit; requests and orders are the
        front's to tell.
    price : float
        Before the first print, the mark price; bid and ask are one step beside it.
    wallet : float
        Settle currency.
    leverage : float
    cross_mode : bool
    seed : int
        Of the executions' ids.
    fill_mode : FillMode
        When a print fills a resting order (docs/backtest.md).
    queue_share : float
        With FillMode.VOLUME, the share of a print at an order's price that is ours, in [0, 1].

    Attributes
    ----------
    orders : dict
        Every order that was accepted, by number.
    executions, payments : list
        Payments are (ts_ms, rate, amount, position before it).
    rates : list of (ts_ms, rate, mark price)
        Every settlement, also those while flat.
    mark_price : float
        The last print.
    next_funding_ms : int
        Time of the replay; 0 before the first print.
    trade_id : int
        Of the last print.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    _wallet: float
    _size: float
    _entry_price: float
    _liq_price: float

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
        fill_mode: FillMode = FillMode.CROSS,
        queue_share: float = 0.0,
    ) -> None:
        self.listing = listing
        self.policy = policy
        self.leverage = leverage
        self.cross_mode = cross_mode
        self.hedge_mode = False
        self.trading = True
        self.set_rights(trade=True, withdraw=False)
        self.mark_price = price
        self.next_funding_ms = 0
        self.trade_id = 0
        self.orders: dict[int, SimOrder] = {}
        self.executions: list[Execution] = []
        self.payments: list[tuple[int, float, float, float]] = []
        self.rates: list[tuple[int, float, float]] = []
        self._clock = clock
        self._ledger = ledger
        self._observers: list[Observer] = []
        self._random = random.Random(seed)
        self._order_ids = count(_FIRST_ORDER_ID)
        self._book_ids = count(1)
        self._last_fill_id = 0
        self._injected = 0
        self._by_client: dict[str, SimOrder] = {}
        self._open: dict[int, SimOrder] = {}
        # An amended order is a new one in the book: where each stands there, and whose that is.
        self._book_id: dict[int, int] = {}
        self._in_book: dict[int, SimOrder] = {}
        # By side and order number: notional of what may open, quantity of what may only reduce.
        self._values: dict[int, dict[int, float]] = {1: {}, -1: {}}
        self._reducing: dict[int, dict[int, float]] = {1: {}, -1: {}}
        _check_listing(listing)
        self._read_rules(listing)
        self._paper = PaperVenue(
            listing.market.record(leverage),
            listing.market.tier_records(),
            price=price,
            wallet=wallet,
            leverage=leverage,
            cross_mode=cross_mode,
            fill_mode=fill_mode,
            queue_share=queue_share,
            liquidation_fee=listing.market.liquidation_fee,
        )
        self._quote = self._paper.touch
        self._read_account()

    def observe(self, observer: Observer) -> None:
        """Let ``observer`` hear everything from now on, after those that do already.

        One that raises is put down in log and ledger; what happened stays and the others hear it.
        """
        self._observers.append(observer)

    # --- requests ------------------------------------------------------------------------------

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
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> SimOrder:
        """Let an order arrive; it is returned as it is once everything it causes has happened.

        A post-only order rests or takes nothing. Any other limit order that crosses is filled at
        the opposite best price, all of it: the book is taken to be deep enough. ``price`` does not
        matter at market. An order out of band may be moved, and a reduce-only one that takes is cut
        to the position: look at the order.

        Raises
        ------
        Refusal
        """
        self._check_trading()
        self._check_client_id(client_id)
        at_market = type is OrderType.MARKET
        if at_market:
            price = 0.0
        else:
            self._check_price(price)
        self._check_qty(qty, at_market)
        if not reduce_only:
            self._check_notional(qty, self.mark_price if at_market else price)
        bid, ask = self._quote
        opposite = ask if side > 0 else bid
        if not at_market:
            price = self._in_band(side, price)
            if len(self._open) >= self.listing.max_orders:
                raise Refusal(Reason.TOO_MANY_ORDERS, f"{self.listing.max_orders} are open")
        takes = at_market or side * price >= side * opposite
        if reduce_only:
            qty = self._reducing_qty(side, qty, at_market=at_market, takes=takes)
        else:
            value = cost(qty, opposite if at_market else price, inverse=self._inverse)
            self._check_exposure(side, value)
        ending = ""
        if tif is TimeInForce.POST_ONLY and takes:
            ending = "post_only"
            if not self.policy.post_only_cancels:
                raise Refusal(Reason.WOULD_TAKE)
        elif tif is TimeInForce.FOK and not takes:
            ending = "fok"
            if not self.policy.post_only_cancels:
                raise Refusal(Reason.CANNOT_FILL)
        now_ms = self._clock.time_ms()
        order = SimOrder(
            order_id=next(self._order_ids),
            client_id=client_id,
            side=side,
            type=type,
            tif=tif,
            price=price,
            qty=qty,
            reduce_only=reduce_only,
            created_ms=now_ms,
            updated_ms=now_ms,
            left=qty,
            extra=dict(extra),
        )
        self.orders[order.order_id] = order
        if client_id:
            self._by_client[client_id] = order
        if ending:
            self._end(order, Status.CANCELED, ending)
            return order
        self._open[order.order_id] = order
        if takes:
            self._tell_order(order, "new")
            self._take(order)
        elif tif is TimeInForce.IOC:
            self._tell_order(order, "new")
            self._end(order, Status.EXPIRED, "ioc")
        else:
            self._rest(order)
            self._tell_order(order, "new")
        return order

    def amend(
        self, order: SimOrder, *, price: float | None = None, qty: float | None = None
    ) -> SimOrder:
        """Change an open order; ``qty`` is the new total. Its place in the queue is lost.

        A post-only order that would take now is cancelled: that is a Refusal too where post-only
        orders are refused (`Policy.post_only_cancels`). Any other one takes.

        Raises
        ------
        Refusal
            The order is as it was, except for ALREADY_FILLED with `Policy.low_amend_cancels` and
            for WOULD_TAKE: then it is cancelled.
        """
        if order.order_id not in self._open:
            raise Refusal(Reason.FINISHED_ORDER, order.status)
        self._check_trading()
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if price == order.price and qty == order.qty:
            raise Refusal(Reason.UNCHANGED)
        self._check_price(price)
        self._check_qty(qty, False)
        if qty <= order.filled:
            if self.policy.low_amend_cancels:
                self.cancel(order, reason="amended")
            raise Refusal(Reason.ALREADY_FILLED)
        left = near_to(qty - order.filled, self._qty_step)
        if not order.reduce_only:
            self._check_notional(qty, price)
        side = order.side
        price = self._in_band(side, price)
        bid, ask = self._quote
        takes = side * price >= side * (ask if side > 0 else bid)
        if order.reduce_only:
            cut = self._reducing_qty(side, left, at_market=False, takes=takes, order=order)
            qty, left = near_to(qty - left + cut, self._qty_step), cut
        else:
            self._check_exposure(side, cost(left, price, inverse=self._inverse), order)
        if takes and order.tif is TimeInForce.POST_ONLY:
            self.cancel(order, reason="post_only")
            if not self.policy.post_only_cancels:
                raise Refusal(Reason.WOULD_TAKE)
            return order
        self._leave_book(order)
        order.price, order.qty, order.left = price, qty, left
        order.updated_ms = self._clock.time_ms()
        if not takes:
            self._rest(order)
        self._ledger.append(
            "amend",
            client_id=order.client_id,
            order_id=order.order_id,
            side=side,
            price=price,
            qty=qty,
        )
        self._tell_order(order, "amended")
        if takes:
            self._take(order)
        return order

    def cancel(self, order: SimOrder, *, reason: str = "user") -> SimOrder:
        """Cancel an open order; also while nothing trades.

        Raises
        ------
        Refusal
        """
        if order.order_id not in self._open:
            raise Refusal(Reason.FINISHED_ORDER, order.status)
        self._end(order, Status.CANCELED, reason)
        return order

    def cancel_all(self, *, reason: str = "user") -> list[SimOrder]:
        """Cancel every open order, the oldest first, and return them."""
        return [self.cancel(order, reason=reason) for order in list(self._open.values())]

    def find(self, *, order_id: int | None = None, client_id: str | None = None) -> SimOrder:
        """Return an order, open or not: by its number, else the last one with that client id.

        Raises
        ------
        Refusal
        """
        order = None
        if order_id is not None:
            order = self.orders.get(order_id)
        elif client_id:
            order = self._by_client.get(client_id)
        if order is None:
            raise Refusal(Reason.UNKNOWN_ORDER)
        return order

    def open_orders(self) -> Iterable[SimOrder]:
        """Return the open orders, oldest first; the view changes with them."""
        return self._open.values()

    def set_leverage(self, leverage: float) -> None:
        """Change the leverage.

        Raises
        ------
        Refusal
            ALREADY_SO, BAD_LEVERAGE, TIER (the position and orders are beyond what it allows) or
            MARGIN (they need more than there is).
        """
        if leverage == self.leverage:
            raise Refusal(Reason.ALREADY_SO)
        market = self.listing.market
        most = min([market.max_leverage, *(tier.max_leverage for tier in market.tiers[:1])])
        if not 1.0 <= leverage <= most:
            raise Refusal(Reason.BAD_LEVERAGE, f"1 to {most:g}")
        needed = self._exposure()
        if needed > market.notional_cap(leverage):
            raise Refusal(Reason.TIER)
        if leverage < self.leverage and needed > max(0.0, self.equity) * leverage:
            raise Refusal(Reason.MARGIN)
        self.leverage = leverage
        self._paper.set_terms(leverage=leverage)
        self._read_rules(self.listing)
        self._read_account()
        self._tell("on_terms", "leverage")

    def set_cross_mode(self, cross: bool) -> None:
        """Change the margin mode: with neither orders nor a position.

        Raises
        ------
        Refusal
            ALREADY_SO, HAS_ORDERS or HAS_POSITION.
        """
        self._check_mode_change(cross == self.cross_mode)
        self.cross_mode = cross
        self._paper.set_terms(cross_mode=cross)
        self._read_account()
        self._tell("on_terms", "cross_mode")

    def set_hedge_mode(self, hedge: bool) -> None:
        """Change the position mode, as `set_cross_mode` does; hedged orders are not simulated."""
        self._check_mode_change(hedge == self.hedge_mode)
        self.hedge_mode = hedge
        self._tell("on_terms", "hedge_mode")

    def set_rights(self, *, trade: bool, withdraw: bool) -> None:
        """Change what the one API key may do; it can always read."""
        self.may_trade, self.may_withdraw = trade, withdraw

    # --- the account ---------------------------------------------------------------------------

    @property
    def wallet(self) -> float:
        """Balance in settle currency, open pnl not counted."""
        return self._wallet

    @property
    def equity(self) -> float:
        """Wallet and open pnl at the mark price."""
        return self._wallet + self.open_pnl

    @property
    def size(self) -> float:
        """Position, short < 0."""
        return self._size

    @property
    def entry_price(self) -> float:
        """Average entry; 0 when flat."""
        return self._entry_price

    @property
    def liq_price(self) -> float:
        """Where the position is liquidated; 0 when nowhere."""
        return self._liq_price

    @property
    def open_pnl(self) -> float:
        """Pnl of the position at the mark price."""
        size = self._size
        if size == 0.0:
            return 0.0
        return pnl(
            self._entry_price,
            self.mark_price,
            abs(size),
            position_side=1 if size > 0.0 else -1,
            inverse=self._inverse,
        )

    @property
    def position_margin(self) -> float:
        """Initial margin of the position: at the mark price, isolated at its entry."""
        if self._size == 0.0:
            return 0.0
        price = self.mark_price if self.cross_mode else self._entry_price
        return cost(self._size, price, inverse=self._inverse) / self.leverage

    @property
    def maintenance_margin(self) -> float:
        """Of the tier that the position is in at the mark price."""
        if self._size == 0.0:
            return 0.0
        value = cost(self._size, self.mark_price, inverse=self._inverse)
        rate, deduction = next((r, d) for floor, r, d in reversed(self._tiers) if value >= floor)
        return value * rate - deduction

    @property
    def order_margin(self) -> float:
        """What the open orders need beside the position's margin: of the worse side."""
        return max(0.0, self._exposure() / self.leverage - self.position_margin)

    @property
    def available(self) -> float:
        """What new orders can have as margin."""
        return max(0.0, self.equity - self.position_margin - self.order_margin)

    @property
    def quote(self) -> tuple[float, float]:
        """Best bid and ask."""
        return self._quote

    @property
    def replay_ts_ms(self) -> int | None:
        """Time of the last print, None before one."""
        return self._ledger.replay_ts_ms

    # --- the market and the outside world ------------------------------------------------------

    def print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, replay_ts_ms: int
    ) -> None:
        """Take in one trade of the tape; times never fall.

        Ids are the tape's; one that was given already moves it and all that follow up.
        Fundings due before ``replay_ts_ms`` are settled first, at the last price.
        """
        if replay_ts_ms > self.next_funding_ms:
            self._fund_until(replay_ts_ms)
        self._ledger.replay_ts_ms = replay_ts_ms
        number = trade_id + self._injected
        if number <= self.trade_id:
            # Somebody printed in between: what follows on the tape moves up.
            self._injected += self.trade_id + 1 - number
            number = self.trade_id + 1
        self._take_print(number, price, qty, buyer_maker)

    def pass_time(self, replay_ts_ms: int) -> None:
        """Settle the fundings due by then, inclusive: every print up to then has been taken in."""
        if 0 < self.next_funding_ms <= replay_ts_ms:
            self._fund_until(replay_ts_ms + 1)

    def jump(self, price: float, qty: float = 0.0) -> None:
        """Print a trade that the tape does not have, now, as of the last print's time.

        Its taker sold when the price is at or below the bid, else bought.
        """
        self._take_print(self.trade_id + 1, price, qty, price <= self._quote[0])

    def settle_funding(self, rate: float | None = None) -> None:
        """Settle a funding now, of the listing's rate unless one is given."""
        rate = self.listing.funding_rate if rate is None else rate
        size = self._size
        amount = self._paper.settle_funding(rate)
        self._read_account()
        now_ms = self._clock.time_ms()
        self.rates.append((now_ms, rate, self.mark_price))
        if size != 0.0:
            self.payments.append((now_ms, rate, amount, size))
            self._ledger.append(
                "funding", rate=rate, amount=amount, position=size, wallet=self._wallet
            )
        self._tell("on_funding", rate, amount, now_ms)
        if size != 0.0:
            self._tell("on_account", "funding")

    def deposit(self, amount: float) -> None:
        """Add to the wallet, settle currency; negative takes out. ValueError unless finite."""
        self._paper.deposit(amount)
        self._read_account()
        self._ledger.append("deposit", amount=amount, wallet=self._wallet)
        self._tell("on_account", "deposit")

    def liquidate(self) -> None:
        """Liquidate the position whatever its price; nothing when flat."""
        happened = self._paper.liquidate()
        if happened is not None:
            self._book(happened)

    def deleverage(self, qty: float) -> None:
        """Close ``qty`` of the position at the last price without a fee, as the venue's choice.

        ValueError when it is not in (0, position] or not on the grid.
        """
        self._book(self._paper.reduce(qty, self.mark_price))

    def fill(self, order: SimOrder, qty: float) -> None:
        """Fill ``qty`` of a resting order at its own price as maker, whatever the tape says.

        ValueError when it does not rest, or ``qty`` is not in (0, left] or not on the grid.
        """
        book_id = self._book_id.get(order.order_id, 0)
        self._book(self._paper.fill(book_id, order.side, qty))

    def set_listing(self, listing: Listing) -> None:
        """Change the rules; open orders and the position stay as they are.

        ValueError when they cannot: another kind of contract, or a quantity off the new grid.
        """
        _check_listing(listing)
        self._paper.set_market(listing.market.record(self.leverage), listing.market.tier_records())
        new_interval = listing.funding_interval_ms != self.listing.funding_interval_ms
        self.listing = listing
        if new_interval and self.replay_ts_ms is not None:
            self.next_funding_ms = listing.funding_after_ms(self.replay_ts_ms)
        self._read_rules(listing)
        self._read_account()
        self._read_quote()
        self._tell("on_terms", "rules")

    def set_trading(self, trading: bool) -> None:
        """Stop or resume trading: orders are refused meanwhile, cancels and prints are not."""
        self.trading = trading
        self._tell("on_terms", "trading")

    # --- checks --------------------------------------------------------------------------------

    def _read_rules(self, listing: Listing) -> None:
        market = listing.market
        record = market.record(self.leverage)[0]
        self._price_step = step_parts(market.price_step)
        self._qty_step = step_parts(market.qty_step)
        self._min_qty = float(record["min_qty"])
        self._notional_cap = float(record["notional_cap"])
        self._inverse = market.inverse
        self._tiers: list[tuple[float, float, float]] = market.tier_records().tolist()

    def _check_trading(self) -> None:
        if not self.trading:
            raise Refusal(Reason.NOT_TRADING)

    def _check_client_id(self, client_id: str) -> None:
        same = self._by_client.get(client_id)
        if same is not None and (self.policy.ids_unique_for_ever or not same.status.final):
            raise Refusal(Reason.DUPLICATE_ID, client_id)

    def _check_price(self, price: float) -> None:
        listing = self.listing
        if not listing.min_price <= price <= listing.max_price:
            raise Refusal(
                Reason.BAD_PRICE, f"must be {listing.min_price:g} to {listing.max_price:g}"
            )
        if near_to(price, self._price_step) != price:
            raise Refusal(Reason.BAD_PRICE, f"must be a multiple of {listing.market.price_step:g}")

    def _check_qty(self, qty: float, at_market: bool) -> None:
        listing = self.listing
        if not qty >= self._min_qty:
            raise Refusal(Reason.QTY_TOO_SMALL, f"must be at least {self._min_qty:g}")
        most = listing.max_market_qty if at_market else listing.max_qty
        if qty > most:
            raise Refusal(Reason.QTY_TOO_LARGE, f"must be at most {most:g}")
        if near_to(qty, self._qty_step) != qty:
            raise Refusal(Reason.BAD_QTY, f"must be a multiple of {listing.market.qty_step:g}")

    def _check_notional(self, qty: float, price: float) -> None:
        if self._inverse:
            return
        least = self.listing.market.min_cost
        if qty * price > least * (1.0 + _NOISE):
            return
        # So near to the bound the venue's decimals decide.
        if Decimal(repr(qty)) * Decimal(repr(price)) < Decimal(repr(least)):
            raise Refusal(Reason.NOTIONAL_TOO_SMALL, f"must be at least {least:g}")

    def _in_band(self, side: int, price: float) -> float:
        """Return the price, moved to the band's bound where the venue does that."""
        listing = self.listing
        bound = self.mark_price * (listing.band_up if side > 0 else listing.band_down)
        bound *= 1.0 + side * _NOISE  # the venue multiplies decimals
        if side * price <= side * bound:
            return price
        if not self.policy.band_moves:
            raise Refusal(Reason.OUT_OF_BAND, f"the bound is {bound:g}")
        moved = (floor_to if side > 0 else ceil_to)(bound, self._price_step)
        return min(max(moved, listing.min_price), listing.max_price)

    def _reducing_qty(
        self,
        side: int,
        qty: float,
        *,
        at_market: bool,
        takes: bool,
        order: SimOrder | None = None,
    ) -> float:
        """Return the quantity of a reduce-only order, cut if it takes; ``order``: amended to it."""
        held = -side * self._size
        if held <= 0.0:
            raise Refusal(Reason.WOULD_NOT_REDUCE)
        if self.policy.reduce_only_trims:
            return min(qty, held) if takes else qty
        if at_market and qty >= held:
            return held
        if qty > held:
            raise Refusal(Reason.WOULD_NOT_REDUCE)
        open_qty = self._reducing[side]
        others = sum(open_qty.values()) - (open_qty[order.order_id] if order else 0.0)
        if near_to(others + qty, self._qty_step) > held:
            raise Refusal(Reason.REDUCE_ONLY_SUM)
        return qty

    def _exposure(self) -> float:
        """Return what is held once every order of the worse side has filled, settle currency."""
        held = self._position_value()
        return max(
            abs(held + sum(self._values[1].values())), abs(held - sum(self._values[-1].values()))
        )

    def _position_value(self) -> float:
        if self._size == 0.0:
            return 0.0
        value = cost(self._size, self.mark_price, inverse=self._inverse)
        return value if self._size > 0.0 else -value

    def _check_exposure(self, side: int, value: float, order: SimOrder | None = None) -> None:
        """Check what another ``value`` on a side needs, instead of what ``order`` has."""
        held = self._position_value()
        mine = sum(self._values[side].values())
        before = abs(held + side * mine)
        if order is not None:
            mine -= self._values[side][order.order_id]
        after = abs(held + side * (mine + value))
        other = abs(held - side * sum(self._values[-side].values()))
        if after <= max(before, other):
            return
        if after > self._notional_cap:
            raise Refusal(Reason.TIER, f"at most {self._notional_cap:g} at this leverage")
        if after > self.equity * self.leverage:
            raise Refusal(Reason.MARGIN)

    def _check_mode_change(self, already: bool) -> None:
        if already:
            raise Refusal(Reason.ALREADY_SO)
        if self._open:
            raise Refusal(Reason.HAS_ORDERS)
        if self._size != 0.0:
            raise Refusal(Reason.HAS_POSITION)

    # --- what happens --------------------------------------------------------------------------

    def _rest(self, order: SimOrder) -> None:
        book_id = next(self._book_ids)
        # The checks saw to it that it neither takes nor fails to reduce.
        answer, _ = self._paper.place(
            book_id, order.side, order.price, order.left, reduce_only=order.reduce_only
        )
        if answer != "rests":
            raise RuntimeError(f"an order that was to rest {answer}: {order}")
        self._book_id[order.order_id] = book_id
        self._in_book[book_id] = order
        self._weigh(order)

    def _weigh(self, order: SimOrder) -> None:
        if order.reduce_only:
            self._reducing[order.side][order.order_id] = order.left
        else:
            self._values[order.side][order.order_id] = cost(
                order.left, order.price, inverse=self._inverse
            )

    def _take(self, order: SimOrder) -> None:
        answer, happened = self._paper.place(
            next(self._book_ids),
            order.side,
            order.price,
            order.left,
            reduce_only=order.reduce_only,
            at_market=True,
        )
        if happened is None:
            raise RuntimeError(f"an order that was to take {answer}: {order}")
        self._book(happened, taker=order)

    def _leave_book(self, order: SimOrder) -> None:
        """Take an order out of the book, if it still stands there, and of what counts with it."""
        self._values[order.side].pop(order.order_id, None)
        self._reducing[order.side].pop(order.order_id, None)
        book_id = self._book_id.pop(order.order_id, None)
        if book_id is not None:
            del self._in_book[book_id]
            self._paper.cancel(book_id, order.side)

    def _end(self, order: SimOrder, status: Status, reason: str) -> None:
        self._open.pop(order.order_id, None)
        self._leave_book(order)
        order.status = status
        order.reason = reason
        order.left = 0.0
        order.updated_ms = self._clock.time_ms()
        self._ledger.append(
            "cancel",
            client_id=order.client_id,
            order_id=order.order_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled=order.filled,
            status=status,
            reason=reason,
        )
        self._tell_order(order, "canceled" if status is Status.CANCELED else "expired")

    def _take_print(self, trade_id: int, price: float, qty: float, buyer_maker: bool) -> None:
        happened = self._paper.print(price, qty, buyer_maker)
        self.mark_price = price
        self.trade_id = trade_id
        now_ms = self._clock.time_ms()
        if self._observers:
            self._tell("on_print", trade_id, price, qty, buyer_maker, now_ms)
        self._read_quote()
        for one in happened:
            self._book(one)

    def _read_quote(self) -> None:
        quote = self._paper.touch
        if quote != self._quote:
            self._quote = quote
            self._tell("on_quote", *quote, self._clock.time_ms())

    def _read_account(self, account: np.void | None = None) -> None:
        account = self._paper.account if account is None else account
        self._wallet, _, self._size, self._entry_price, self._liq_price = account.item()

    def _book(
        self, happened: tuple[np.void, np.void, list[int]], *, taker: SimOrder | None = None
    ) -> None:
        """Take in what the core says has happened, and tell it."""
        record, account, dropped = happened
        book_id, position_side, price, signed_qty, gained, fee, _ = record.item()
        qty = abs(signed_qty)
        if book_id == _LIQUIDATED:
            ended = [self._in_book[each] for each in dropped]
            for order in ended if taker is None else [*ended, taker]:
                self._end(order, Status.EXPIRED, "liquidation")
        self._read_account(account)
        own = taker if book_id > 0 and taker is not None else self._in_book.get(book_id)
        if own is None:
            side, kind = -position_side, Kind.ADL
            order_id, client_id = next(self._order_ids), ""
            if book_id == _LIQUIDATED:
                kind = Kind.LIQUIDATION
        else:
            side, kind = own.side, Kind.TRADE
            order_id, client_id = own.order_id, own.client_id
            self._fill_order(own, qty, price, fee)
        self._last_fill_id = max(self._last_fill_id + 1, self.trade_id)
        execution = Execution(
            trade_id=self._last_fill_id,
            exec_id=str(UUID(int=self._random.getrandbits(128), version=4)),
            order_id=order_id,
            client_id=client_id,
            side=side,
            price=price,
            qty=qty,
            fee=fee,
            pnl=gained,
            maker=own is not None and own is not taker,
            kind=kind,
            ts_ms=self._clock.time_ms(),
        )
        self.executions.append(execution)
        self._ledger.append(
            "liquidation" if kind is Kind.LIQUIDATION else "fill",
            trade_id=execution.trade_id,
            exec_id=execution.exec_id,
            order_id=order_id,
            client_id=client_id,
            side=side,
            price=price,
            qty=qty,
            fee=fee,
            pnl=gained,
            maker=execution.maker,
            kind=kind,
            position=self._size,
            wallet=self._wallet,
        )
        self._tell("on_execution", own, execution)
        if own is not None:
            self._tell_order(own, "trade")
        self._tell("on_account", "order" if kind is Kind.TRADE else kind.value)
        if book_id != _LIQUIDATED:
            for each in dropped:
                self._end(self._in_book[each], Status.EXPIRED, "reduce_only")

    def _fill_order(self, order: SimOrder, qty: float, price: float, fee: float) -> None:
        order.filled = near_to(order.filled + qty, self._qty_step)
        order.left = near_to(order.qty - order.filled, self._qty_step)
        order.cost += cost(qty, price, inverse=self._inverse)
        order.fee += fee
        order.updated_ms = self._clock.time_ms()
        if order.left == 0.0:
            order.status = Status.FILLED
            self._open.pop(order.order_id, None)
            self._leave_book(order)
        else:
            order.status = Status.PARTIALLY_FILLED
            self._weigh(order)

    def _fund_until(self, replay_ts_ms: int) -> None:
        if self.next_funding_ms == 0:
            self.next_funding_ms = self.listing.funding_after_ms(replay_ts_ms)
        while self.next_funding_ms < replay_ts_ms:
            self._ledger.replay_ts_ms = self.next_funding_ms
            self.next_funding_ms += self.listing.funding_interval_ms
            self.settle_funding()

    def _tell_order(self, order: SimOrder, what: str) -> None:
        self._tell("on_order", order, what)

    def _tell(self, name: str, *args: object) -> None:
        for observer in self._observers:
            try:
                getattr(observer, name)(*args)
            except Exception:
                # The account's truth does not depend on who cannot hear it.
                log.exception("simulator: %s of %s failed", name, type(observer).__name__)
                self._ledger.append("fault", do="observer_failed", where=name)


def _decimals(step: float) -> int:
    _, scale = step_parts(step)
    return round(math.log10(scale))


def _check_listing(listing: Listing) -> None:
    if not 1 <= listing.max_orders <= _MAX_RESTING:
        raise ValueError(f"max_orders must be in [1, {_MAX_RESTING}], was {listing.max_orders}")
    if listing.funding_interval_ms < 1:
        raise ValueError(f"funding_interval_ms must be > 0, was {listing.funding_interval_ms}")
