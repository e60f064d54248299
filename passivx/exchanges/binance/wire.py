"""Binance's messages to values and back: rows of REST answers, of the order socket and of streams.

Whatever cannot be read as what it should be raises `BadReplyError`; nothing is made up. Field names
are those of the USDⓈ-M docs. Sides: BUY and SELL; quantities are in base units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from passivx.errors import BadReplyError, ConfigError, VenueError
from passivx.exchanges import base
from passivx.exchanges.base import (
    Fill,
    FillKind,
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
    at_least_0,
    flag,
    number,
    row_of,
    rows_of,
    side_of,
    text,
    whole,
)
from passivx.exchanges.binance.errors import ORDERS_1M, ORDERS_10S, WEIGHT, judge
from passivx.exchanges.budget import Window
from passivx.exchanges.http import Finding, Reply, clean
from passivx.models import Market, Position, Tier

__all__ = [
    "NOT_TOLD",
    "AccountModes",
    "BookTicker",
    "account_modes",
    "aggregate_of",
    "amend_params",
    "batch_replies",
    "book_ticker",
    "decode",
    "fill_event",
    "fill_of",
    "mark_event",
    "mark_of",
    "order_event",
    "order_of",
    "order_params",
    "payment_of",
    "placed",
    "position_event",
    "position_of",
    "reference",
    "rights_of",
    "rules_of",
    "rules_with",
    "symbol_info",
    "symbol_modes",
    "tiers_of",
    "wallet_event",
    "wallet_of",
    "windows_of",
]

# Balances of accounts in the EU's credits mode are in this instead of the margin asset.
_CREDITS: Final = "BNFCR"
_DEFAULT_FUNDING_H: Final = 8

_STATUS: Final = {
    "NEW": OrderStatus.NEW,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELED,
    "EXPIRED": OrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
    "REJECTED": OrderStatus.REJECTED,
}
# Orders of the venue's own, by liquidation and deleveraging: the quantities say how they stand.
_OWN_WORDS: Final = ("NEW_INSURANCE", "NEW_ADL")
# Expiry reasons (``er``) in this project's words; 0 is none.
_EXPIRY: Final = {
    1: "self_trade",
    2: "ioc",
    3: "self_trade",
    4: "reduce_only",
    5: "liquidation",
    6: "gte",
    7: "delisting",
    8: "replaced",
    9: "market_remainder",
}
# How client ids of the venue's own orders begin; the first that fits.
_MARKS: Final = (
    ("adl_autoclose", FillKind.ADL),
    ("settlement_autoclose-", FillKind.SETTLEMENT),
    ("autoclose-", FillKind.LIQUIDATION),
)


# --- reading --------------------------------------------------------------------------------------


def decode(payload: bytes | memoryview) -> dict[str, Any]:
    """Parse a message (`base.decode`); a combined stream's is unwrapped."""
    message = base.decode(payload)
    return row_of(message.get("data"), "data") if "stream" in message else message


def _side(row: Mapping[str, Any], key: str) -> int:
    return side_of(row, key, "BUY", "SELL")


# --- orders to send -------------------------------------------------------------------------------


def order_params(order: NewOrder, symbol: str, steps: Steps) -> tuple[tuple[str, str], ...]:
    """Return what REST says of an order: post-only, or a market order.

    A market order expires what of ours it would meet; which default holds is not documented.

    Raises
    ------
    ValueError
        If a price or quantity is 0 or off its grid, or the id is not of A-Z a-z 0-9 _ -.
    """
    order.check()
    params = [("symbol", symbol), ("side", "BUY" if order.side > 0 else "SELL")]
    qty = ("quantity", steps.qty_text(order.qty))
    if order.at_market:
        params += [("type", "MARKET"), qty, ("selfTradePreventionMode", "EXPIRE_MAKER")]
    else:
        price = ("price", steps.price_text(order.price))
        params += [("type", "LIMIT"), ("timeInForce", "GTX"), qty, price]
    if order.reduce_only:
        params.append(("reduceOnly", "true"))
    return (*params, ("newClientOrderId", order.client_id), ("newOrderRespType", "ACK"))


def amend_params(
    order: Order, symbol: str, steps: Steps, *, price: float, qty: float
) -> tuple[tuple[str, str], ...]:
    """Return what REST says of a change: both always, the quantity being the new total.

    Raises
    ------
    ValueError
        If a price or quantity is 0 or off its grid.
    """
    params = (
        ("symbol", symbol),
        ("side", "BUY" if order.side > 0 else "SELL"),
        reference(order),
        ("quantity", steps.qty_text(qty)),
        ("price", steps.price_text(price)),
    )
    # Without it the least notional holds, which reduce-only orders are spared.
    return (*params, ("reduceOnly", "true")) if order.reduce_only else params


def reference(order: Order) -> tuple[str, str]:
    """Return the parameter that names an order: the venue's id if known, else ours."""
    if order.order_id:
        return ("orderId", order.order_id)
    return ("origClientOrderId", order.client_id)


# --- what became of them --------------------------------------------------------------------------


def placed(reply: Reply, client_id: str = "", order_id: str = "") -> Outcome:
    """Make the outcome of a message that is answered with the order as it now stands.

    UNKNOWN when it is not that order, by the ids that are known: the message was taken, but not by
    what we know.
    """
    if reply.verdict is not Verdict.OK or reply.reaction is Reaction.ALREADY_SO:
        return reply.outcome()
    try:
        order = order_of(row_of(reply.data, "order"))
        if client_id and order.client_id != client_id:
            raise BadReplyError("clientOrderId: is another order's")
        if order_id and order.order_id != order_id:
            raise BadReplyError("orderId: is another order's")
    except BadReplyError as e:
        return Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text=clean(str(e)))
    return reply.outcome(order)


def batch_replies(
    reply: Reply,
    n: int,
    *,
    ts_ms: int,
    settle: Callable[[Finding, Any], Reply] = Finding.reply,
) -> list[Reply]:
    """Split the answer to a batch into one an element; all UNKNOWN when it does not add up.

    Each element is an order or ``{"code", "msg"}``, in the order of the request. ``ts_ms`` is the
    venue's time; ``settle`` makes a reply of a finding and the element's data.
    """
    if reply.verdict is not Verdict.OK:
        return [reply] * n
    try:
        rows = rows_of(reply.data)
        if len(rows) != n:
            raise BadReplyError(f"the answer: must hold {n} rows, held {len(rows)}")
    except BadReplyError as e:
        return [Reply(Verdict.UNKNOWN, Reaction.LOOK_UP, text=str(e))] * n
    return [settle(_element(row, ts_ms), row) for row in rows]


def _element(row: Mapping[str, Any], ts_ms: int) -> Finding:
    if "code" not in row:
        return Finding(Verdict.OK)
    code = row["code"]
    if not isinstance(code, int) or isinstance(code, bool):
        return Finding(Verdict.UNKNOWN, Reaction.LOOK_UP, text="code: must be a whole number")
    return judge(400, code, str(row.get("msg", "")), retry_after_s=0.0, ts_ms=ts_ms)


# --- the account's orders, fills and position -----------------------------------------------------


def order_of(row: Mapping[str, Any]) -> Order:
    """Read an order as REST and the order socket tell it; ``updateTime`` is its time."""
    return _order(
        row,
        client_id="clientOrderId",
        order_id="orderId",
        side="side",
        price="price",
        qty="origQty",
        filled="executedQty",
        status="status",
        tif="timeInForce",
        reduce_only="reduceOnly",
        ts_ms=whole(row, "updateTime"),
    )


def order_event(event: Mapping[str, Any]) -> Order:
    """Read the order of an ORDER_TRADE_UPDATE; its time is the event's ``T``."""
    return _order(
        row_of(event.get("o"), "o"),
        client_id="c",
        order_id="i",
        side="S",
        price="p",
        qty="q",
        filled="z",
        status="X",
        tif="f",
        reduce_only="R",
        ts_ms=whole(event, "T"),
    )


def _order(
    row: Mapping[str, Any],
    *,
    client_id: str,
    order_id: str,
    side: str,
    price: str,
    qty: str,
    filled: str,
    status: str,
    tif: str,
    reduce_only: str,
    ts_ms: int,
) -> Order:
    word = text(row, status)
    total, done = at_least_0(row, qty), at_least_0(row, filled)
    if word in _OWN_WORDS:
        state = OrderStatus.FILLED if 0.0 < total <= done else OrderStatus.PARTIALLY_FILLED
    elif word in _STATUS:
        state = _STATUS[word]
    else:
        raise BadReplyError(f"{status}: is not known, was {word!r:.40}")
    return Order(
        client_id=text(row, client_id),
        order_id=str(whole(row, order_id)),
        side=_side(row, side),
        price=at_least_0(row, price),
        qty=total,
        filled_qty=done,
        reduce_only=flag(row, reduce_only),
        status=state,
        ts_ms=ts_ms,
        reason=_reason(row, word, row.get(tif)) if state.final else "",
    )


def _reason(row: Mapping[str, Any], word: str, tif: object) -> str:
    """Say why an order ended: by its expiry reason, else by what can be told from the status."""
    if word not in ("EXPIRED", "EXPIRED_IN_MATCH", "REJECTED", "CANCELED"):
        return ""
    code = whole(row, "er") if row.get("er") not in (None, "") else 0
    if code:
        return _EXPIRY.get(code, f"er {code}")
    if word == "EXPIRED_IN_MATCH":
        return "self_trade"
    # Old engines took a post-only order and expired it; amendments may still do so.
    return "post_only" if word == "EXPIRED" and tif == "GTX" else ""


def fill_event(event: Mapping[str, Any]) -> Fill | None:
    """Read the fill in an ORDER_TRADE_UPDATE; None when it tells of none.

    The commission comes in ``N``, which is BNB where fees are burnt. ``rp`` is before fees.
    """
    row = row_of(event.get("o"), "o")
    trade_id = whole(row, "t")
    if trade_id == 0:
        if at_least_0(row, "l") > 0.0:
            # It cannot be told from its repetition; REST has its id.
            raise BadReplyError("t: is 0, and yet something was filled")
        return None
    client_id = text(row, "c")
    return Fill(
        trade_id=str(trade_id),
        order_id=str(whole(row, "i")),
        client_id=client_id,
        side=_side(row, "S"),
        price=above_0(row, "L"),
        qty=above_0(row, "l"),
        fee=0.0 - number(row, "n"),
        fee_currency=text(row, "N"),
        pnl=number(row, "rp"),
        maker=flag(row, "m"),
        ts_ms=whole(row, "T"),
        kind=_kind(client_id),
    )


def _kind(client_id: str) -> FillKind:
    return next((kind for mark, kind in _MARKS if client_id.startswith(mark)), FillKind.TRADE)


def fill_of(row: Mapping[str, Any]) -> Fill:
    """Read a row of ``userTrades``, which knows neither client id nor whose doing it was."""
    return Fill(
        trade_id=str(whole(row, "id")),
        order_id=str(whole(row, "orderId")),
        client_id="",
        side=_side(row, "side"),
        price=above_0(row, "price"),
        qty=above_0(row, "qty"),
        fee=0.0 - number(row, "commission"),
        fee_currency=text(row, "commissionAsset"),
        pnl=number(row, "realizedPnl"),
        maker=flag(row, "maker"),
        ts_ms=whole(row, "time"),
    )


def payment_of(row: Mapping[str, Any]) -> Payment:
    """Read a FUNDING_FEE row of ``income``; negative when paid."""
    return Payment(
        id=str(whole(row, "tranId")), ts_ms=whole(row, "time"), amount=number(row, "income")
    )


def position_of(rows: Sequence[Mapping[str, Any]], symbol: str) -> Position:
    """Read a symbol's one-way position of ``positionRisk``; no row means flat.

    Raises
    ------
    BadReplyError
        If a row cannot be read.
    VenueError
        If there is a hedge-mode position, which has no place here.
    """
    found = Position()
    for row in rows:
        if row.get("symbol") != symbol:
            continue
        size = number(row, "positionAmt")
        if size == 0.0:
            continue
        if row.get("positionSide") != "BOTH":
            raise VenueError(
                f"positionSide: must be BOTH (one-way mode), was {row.get('positionSide')!r:.40}; "
                "close the hedge-mode positions and switch to one-way mode"
            )
        found = Position(size, above_0(row, "entryPrice"), at_least_0(row, "liquidationPrice"))
    return found


def position_event(account: Mapping[str, Any], symbol: str) -> Position | None:
    """Read a symbol's position of an ACCOUNT_UPDATE; None when it tells of none.

    The event has no liquidation price: NaN, not known, unless flat.
    """
    found = None
    for row in rows_of(account.get("P", []), "P"):
        if row.get("s") != symbol:
            continue
        size = number(row, "pa")
        if row.get("ps") != "BOTH":
            if size != 0.0:
                raise BadReplyError(f"ps: must be BOTH (one-way mode), was {row.get('ps')!r:.40}")
        elif size == 0.0:
            found = Position()
        else:
            found = Position(size, above_0(row, "ep"), math.nan)
    return found


def wallet_of(rows: Sequence[Mapping[str, Any]], asset: str) -> tuple[float, float, str]:
    """Return wallet balance, what is free of it, and in which asset, of ``balance`` rows.

    That is ``asset``, or the EU's credits where the account is kept in them.
    """
    row, credits = (
        next((row for row in rows if row.get("asset") == name), None) for name in (asset, _CREDITS)
    )
    if credits is not None and (row is None or number(row, "balance") == 0.0):
        row, asset = credits, _CREDITS
    if row is None:
        raise BadReplyError(f"asset: the account does not list {asset}")
    return number(row, "balance"), number(row, "availableBalance"), asset


def wallet_event(account: Mapping[str, Any], asset: str) -> float | None:
    """Read the wallet balance of an ACCOUNT_UPDATE; None when it tells of no change."""
    for row in rows_of(account.get("B", []), "B"):
        if row.get("a") == asset:
            return number(row, "wb")
    return None


@dataclass(frozen=True, slots=True)
class AccountModes:
    """What ``accountConfig`` says that holds for the whole account."""

    can_trade: bool
    one_way: bool
    multi_assets: bool


def account_modes(row: Mapping[str, Any]) -> AccountModes:
    """Read the account's modes."""
    return AccountModes(
        can_trade=flag(row, "canTrade"),
        one_way=not flag(row, "dualSidePosition"),
        multi_assets=flag(row, "multiAssetsMargin"),
    )


NOT_TOLD: Final = KeyRights(
    can_trade=None, can_withdraw=None, read_only=None, detail="not told in this environment"
)


def rights_of(row: Mapping[str, Any]) -> KeyRights:
    """Read ``apiRestrictions``; a key that may only read is one without the other rights."""
    bound = flag(row, "ipRestrict")
    return KeyRights(
        can_trade=flag(row, "enableFutures"),
        can_withdraw=flag(row, "enableWithdrawals"),
        read_only=None,
        detail="bound to addresses" if bound else "usable from any address",
    )


def symbol_modes(rows: Sequence[Mapping[str, Any]], symbol: str) -> tuple[float, bool]:
    """Return the symbol's leverage and whether its margin is cross, of ``symbolConfig``."""
    row = _of_symbol(rows, symbol)
    margin = text(row, "marginType")
    if margin not in ("CROSSED", "ISOLATED"):
        raise BadReplyError(f"marginType: must be CROSSED or ISOLATED, was {margin!r:.40}")
    return above_0(row, "leverage"), margin == "CROSSED"


def _of_symbol(rows: Sequence[Mapping[str, Any]], symbol: str) -> Mapping[str, Any]:
    for row in rows:
        if row.get("symbol") == symbol:
            return row
    raise BadReplyError(f"symbol: {symbol} is not listed")


# --- the market -----------------------------------------------------------------------------------


def aggregate_of(row: Mapping[str, Any]) -> PublicTrade:
    """Read an aggregate trade, of the stream or of REST: their ids are the same."""
    return PublicTrade(
        trade_id=str(whole(row, "a")),
        price=above_0(row, "p"),
        qty=above_0(row, "q"),
        ts_ms=whole(row, "T"),
        buyer_maker=flag(row, "m"),
    )


class BookTicker(NamedTuple):
    """Best prices, with the venue's update id."""

    update_id: int
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    ts_ms: int


def book_ticker(row: Mapping[str, Any]) -> BookTicker:
    """Read a ``bookTicker`` event, the slow and clear way.

    Raises
    ------
    BadReplyError
        Also for a book without a side, or crossed: no price can be taken from it.
    """
    found = BookTicker(
        whole(row, "u"),
        above_0(row, "b"),
        at_least_0(row, "B"),
        above_0(row, "a"),
        at_least_0(row, "A"),
        whole(row, "T"),
    )
    if found.bid >= found.ask:
        raise BadReplyError(f"the book is crossed: bid {found.bid!r}, ask {found.ask!r}")
    return found


def mark_of(row: Mapping[str, Any]) -> MarkPrice:
    """Read ``premiumIndex``: its "last" funding rate is the estimate for the next settlement."""
    return MarkPrice(
        mark_price=above_0(row, "markPrice"),
        funding_rate=number(row, "lastFundingRate"),
        next_funding_ms=whole(row, "nextFundingTime"),
        ts_ms=whole(row, "time"),
    )


def mark_event(row: Mapping[str, Any]) -> MarkPrice:
    """Read a ``markPriceUpdate`` event."""
    return MarkPrice(
        mark_price=above_0(row, "p"),
        funding_rate=number(row, "r"),
        next_funding_ms=whole(row, "T"),
        ts_ms=whole(row, "E"),
    )


# --- rules ----------------------------------------------------------------------------------------


def symbol_info(info: Mapping[str, Any], symbol: str) -> Mapping[str, Any]:
    """Return a symbol's entry of ``exchangeInfo``.

    Raises
    ------
    VenueError
        If the venue does not list it, or it is no perpetual with plain rules.
    """
    for row in rows_of(info.get("symbols"), "symbols"):
        if row.get("symbol") != symbol:
            continue
        if row.get("contractType") != "PERPETUAL":
            raise VenueError(
                f"{symbol}: must be a perpetual, is {row.get('contractType')!r:.40}",
                reaction="drop",
            )
        return row
    raise VenueError(f"{symbol}: is not listed at Binance USDⓈ-M", code=-1121, reaction="drop")


def rules_of(
    row: Mapping[str, Any],
    tiers: Sequence[Tier],
    fees: Mapping[str, Any],
    funding: Sequence[Mapping[str, Any]],
) -> Rules:
    """Put together the rules of a symbol as this account has them, see `rules_with`."""
    own = {
        "maker_fee": number(fees, "makerCommissionRate"),
        "taker_fee": number(fees, "takerCommissionRate"),
        "max_leverage": tiers[0].max_leverage,
        "tiers": tuple(tiers),
    }
    return rules_with(row, own, funding)


def rules_with(
    row: Mapping[str, Any], own: Mapping[str, Any], funding: Sequence[Mapping[str, Any]]
) -> Rules:
    """Put together the rules of a symbol: its entry of ``exchangeInfo`` (filters only, never the
    precisions), the fields of `Market` that only accounts are told, and ``fundingInfo``, which
    lists unusual intervals alone.
    """
    filters = rows_of(row.get("filters"), "filters")

    def of(kind: str) -> Mapping[str, Any]:
        for each in filters:
            if each.get("filterType") == kind:
                return each
        raise BadReplyError(f"filters: {kind} is missing")

    prices, lots, market_lots = of("PRICE_FILTER"), of("LOT_SIZE"), of("MARKET_LOT_SIZE")
    band, least_cost, most = of("PERCENT_PRICE"), of("MIN_NOTIONAL"), of("MAX_NUM_ORDERS")
    if number(market_lots, "stepSize") > number(lots, "stepSize"):
        raise BadReplyError("MARKET_LOT_SIZE.stepSize: is coarser than that of limit orders")
    max_price = at_least_0(prices, "maxPrice")
    try:
        market = Market(
            price_step=number(prices, "tickSize"),
            qty_step=number(lots, "stepSize"),
            min_qty=max(at_least_0(lots, "minQty"), at_least_0(market_lots, "minQty")),
            min_cost=at_least_0(least_cost, "notional"),
            inverse=False,
            liquidation_fee=at_least_0(row, "liquidationFee"),
            **own,
        )
    except ConfigError as e:
        raise BadReplyError(f"the venue's rules cannot be used: {e}") from None
    symbol = text(row, "symbol")
    hours = [whole(f, "fundingIntervalHours") for f in funding if f.get("symbol") == symbol]
    return Rules(
        market=market,
        trading=text(row, "status") == "TRADING",
        min_price=at_least_0(prices, "minPrice"),
        # 0 switches a bound off.
        max_price=max_price or math.inf,
        max_qty=above_0(lots, "maxQty"),
        max_market_qty=above_0(market_lots, "maxQty"),
        max_orders=whole(most, "limit"),
        band_up=above_0(band, "multiplierUp"),
        band_down=at_least_0(band, "multiplierDown"),
        funding_interval_ms=(hours[0] if hours else _DEFAULT_FUNDING_H) * 3_600_000,
        reduce_only_summed=True,
    )


def tiers_of(value: Any, symbol: str) -> tuple[Tier, ...]:
    """Read ``leverageBracket``: a list, or one object."""
    rows = rows_of([value] if isinstance(value, dict) else value)
    brackets = rows_of(_of_symbol(rows, symbol).get("brackets"), "brackets")
    if not brackets:
        raise BadReplyError("brackets: must hold at least one")
    try:
        return tuple(
            Tier(
                floor=number(bracket, "notionalFloor"),
                maintenance_rate=number(bracket, "maintMarginRatio"),
                deduction=number(bracket, "cum"),
                max_leverage=number(bracket, "initialLeverage"),
            )
            for bracket in sorted(brackets, key=lambda b: number(b, "notionalFloor"))
        )
    except ConfigError as e:
        raise BadReplyError(f"a leverage bracket cannot be used: {e}") from None


def windows_of(info: Mapping[str, Any]) -> list[Window]:
    """Read the limits that the venue states in ``exchangeInfo``, as far as they are kept here."""
    known = {
        ("REQUEST_WEIGHT", "MINUTE", 1): (WEIGHT, 60_000),
        ("ORDERS", "SECOND", 10): (ORDERS_10S, 10_000),
        ("ORDERS", "MINUTE", 1): (ORDERS_1M, 60_000),
    }
    windows = []
    for row in rows_of(info.get("rateLimits"), "rateLimits"):
        kind = (text(row, "rateLimitType"), text(row, "interval"), whole(row, "intervalNum"))
        limit = whole(row, "limit")
        if kind in known and limit > 0:
            name, interval_ms = known[kind]
            windows.append(Window(name, limit, interval_ms))
    return windows
