"""Bybit's messages to values and back: rows of REST answers and of socket topics.

Whatever cannot be read as what it should be raises `BadReplyError`; nothing is made up. Field names
are those of the V5 docs. Sides: Buy and Sell; quantities are contracts of 1 USD on inverse markets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from passivx.errors import BadReplyError, ConfigError
from passivx.exchanges.base import (
    Fill,
    FillKind,
    KeyRights,
    MarkPrice,
    NewOrder,
    Order,
    OrderStatus,
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
    number_or_none,
    row_of,
    rows_of,
    side_of,
    text,
    whole,
)
from passivx.exchanges.bybit.errors import judge
from passivx.exchanges.http import Finding, Reply
from passivx.models import Market, Position, Tier

__all__ = [
    "MAX_ORDERS",
    "Quote",
    "Ticker",
    "amend_fields",
    "batch_replies",
    "fill_of",
    "mark_of",
    "order_fields",
    "order_of",
    "payment_of",
    "position_of",
    "public_trade_of",
    "quote_of",
    "reference",
    "rights_of",
    "rows_in",
    "rules_of",
    "rules_with",
    "stream_trades",
    "tiers_of",
    "wallet_of",
]

# Active orders of an account in one symbol; the docs name no filter, only error 110020.
MAX_ORDERS: Final = 500

_STATUS: Final = {
    "New": OrderStatus.NEW,
    "Untriggered": OrderStatus.NEW,
    "Triggered": OrderStatus.NEW,
    "PartiallyFilled": OrderStatus.PARTIALLY_FILLED,
    "Filled": OrderStatus.FILLED,
    "Cancelled": OrderStatus.CANCELED,
    "PartiallyFilledCanceled": OrderStatus.CANCELED,
    "Deactivated": OrderStatus.CANCELED,
    "Rejected": OrderStatus.REJECTED,
}
_KIND: Final = {
    "Trade": FillKind.TRADE,
    "BustTrade": FillKind.LIQUIDATION,
    "AdlTrade": FillKind.ADL,
    "Settle": FillKind.SETTLEMENT,
    "Delivery": FillKind.SETTLEMENT,
    "BlockTrade": FillKind.TRADE,
    "MovePosition": FillKind.SETTLEMENT,
    "FutureSpread": FillKind.TRADE,
    "CorporateAction": FillKind.SETTLEMENT,
}
# The venue's words for ends that a bot reacts to, in this project's.
_REASONS: Final = {
    "EC_PostOnlyWillTakeLiquidity": "post_only",
    "EC_BySelfMatch": "self_trade",
    "CancelByReduceOnly": "reduce_only",
    "CancelByPrepareLiq": "liquidation",
    "CancelAllBeforeLiq": "liquidation",
    "CancelByPrepareAdl": "adl",
    "CancelAllBeforeAdl": "adl",
    "CancelBySmp": "self_trade",
}
_NO_REASON: Final = ("", "EC_NoError", "UNKNOWN")
# The engine's own market orders, by docs/protocol facts on liquidation marks.
_FORCED: Final = {
    "CreateByLiq": FillKind.LIQUIDATION,
    "CreateByTakeOver_PassThrough": FillKind.LIQUIDATION,
    "CreateByAdl_PassThrough": FillKind.ADL,
}


def rows_in(result: Any, key: str = "list") -> list[dict[str, Any]]:
    """Return the list of objects that an answer or a topic holds."""
    return rows_of(result.get(key) if isinstance(result, dict) else None, key)


def _side(row: Mapping[str, Any], key: str = "side") -> int:
    return side_of(row, key, "Buy", "Sell")


# --- orders ---------------------------------------------------------------------------------------


def order_fields(order: NewOrder, steps: Steps) -> dict[str, Any]:
    """Return what a create says of an order, besides category and symbol.

    A market order cancels what of ours it would meet: by default it would trade with it.

    Raises
    ------
    ValueError
        If a price or quantity is 0 or off the grid, or the id is not of A-Z a-z 0-9 _ -.
    """
    order.check()
    fields: dict[str, Any] = {
        "side": "Buy" if order.side > 0 else "Sell",
        "orderType": "Market" if order.at_market else "Limit",
        "qty": steps.qty_text(order.qty),
    }
    if order.at_market:
        fields["smpType"] = "CancelMaker"
    else:
        fields |= {"price": steps.price_text(order.price), "timeInForce": "PostOnly"}
    return fields | {
        "positionIdx": 0,
        "orderLinkId": order.client_id,
        "reduceOnly": order.reduce_only,
    }


def amend_fields(order: Order, steps: Steps, *, price: float, qty: float) -> dict[str, Any]:
    """Return what an amend says, besides category and symbol; ``qty`` is the new total.

    Raises
    ------
    ValueError
        If a price or quantity is 0 or off the grid.
    """
    return reference(order) | {"qty": steps.qty_text(qty), "price": steps.price_text(price)}


def reference(order: Order) -> dict[str, Any]:
    """Return what names an order in a cancel: the venue's id if known, else ours."""
    if order.order_id:
        return {"orderId": order.order_id}
    return {"orderLinkId": order.client_id}


def batch_replies(
    reply: Reply,
    n: int,
    *,
    window: str,
    settle: Callable[[Finding, Any], Reply] = Finding.reply,
) -> list[Reply]:
    """Split the answer to a batch into one an element; all UNKNOWN when it does not add up.

    ``result.list[i]`` goes with ``retExtInfo.list[i]``. ``window`` is the budget's for the batch;
    ``settle`` makes a reply of a finding and the element's data.
    """
    if reply.verdict is not Verdict.OK:
        return [reply] * n
    try:
        results = rows_in(reply.data.get("result"))
        judged = rows_in(reply.data.get("retExtInfo"))
        if not len(results) == len(judged) == n:
            raise BadReplyError(f"list: must hold {n} rows")
        replies = []
        for result, row in zip(results, judged, strict=True):
            found = judge(200, whole(row, "code"), str(row.get("msg", "")), window=window)
            replies.append(settle(found, {"result": result, "time": reply.data.get("time")}))
    except BadReplyError as e:
        return [Reply(Verdict.UNKNOWN, Reaction.LOOK_UP, text=str(e))] * n
    return replies


# --- the account's orders, fills and position -----------------------------------------------------


def order_of(row: Mapping[str, Any]) -> Order:
    """Read an order, of a REST answer or of the topic ``order``."""
    status = _STATUS.get(word := text(row, "orderStatus"))
    if status is None:
        raise BadReplyError(f"orderStatus: is not known, was {word!r:.40}")
    filled = at_least_0(row, "cumExecQty")
    if status is OrderStatus.REJECTED and filled > 0.0:
        # The rest was refused after a part had filled; the fills count.
        status = OrderStatus.CANCELED
    # A market order shows its protective limit here, or nothing.
    price = None if row.get("price") in (None, "") else at_least_0(row, "price")
    return Order(
        client_id=text(row, "orderLinkId"),
        order_id=text(row, "orderId"),
        side=_side(row),
        price=0.0 if price is None else price,
        qty=at_least_0(row, "qty"),
        filled_qty=filled,
        reduce_only=flag(row, "reduceOnly"),
        status=status,
        ts_ms=whole(row, "updatedTime"),
        # A fill while a cancel is on its way is told twice, with the cancel's reason on the second.
        reason=_reason(row) if status.final and status is not OrderStatus.FILLED else "",
    )


def _reason(row: Mapping[str, Any]) -> str:
    """Say why an order ended; nothing where somebody with access to the account asked for it."""
    rejected, cancelled = (str(row.get(key, "")) for key in ("rejectReason", "cancelType"))
    for word in (rejected, cancelled):
        if word in _REASONS:
            return _REASONS[word]
    if cancelled == "CancelByUser":
        return ""
    return next((word for word in (cancelled, rejected) if word not in _NO_REASON), "")


def fill_of(row: Mapping[str, Any]) -> Fill | None:
    """Read an execution; None for a row that is a funding settlement (`payment_of`)."""
    word = text(row, "execType")
    if word == "Funding":
        return None
    kind = _KIND.get(word)
    if kind is None:
        raise BadReplyError(f"execType: is not known, was {word!r:.40}")
    if kind is FillKind.TRADE:
        kind = _FORCED.get(str(row.get("createType", "")), kind)
    pnl = number_or_none(row, "execPnl")
    return Fill(
        trade_id=text(row, "execId"),
        order_id=text(row, "orderId"),
        client_id=text(row, "orderLinkId"),
        side=_side(row),
        price=above_0(row, "execPrice"),
        qty=above_0(row, "execQty"),
        fee=0.0 - number(row, "execFee"),
        fee_currency=text(row, "feeCurrency") if row.get("feeCurrency") else "",
        pnl=math.nan if pnl is None else pnl,
        maker=flag(row, "isMaker"),
        ts_ms=whole(row, "execTime"),
        kind=kind,
    )


def payment_of(row: Mapping[str, Any]) -> Payment | None:
    """Read a funding settlement among executions; None for a fill. execFee > 0 was paid."""
    if text(row, "execType") != "Funding":
        return None
    return Payment(
        id=text(row, "execId"), ts_ms=whole(row, "execTime"), amount=0.0 - number(row, "execFee")
    )


def position_of(row: Mapping[str, Any]) -> Position:
    """Read a position, of REST (avgPrice) or of the topic (entryPrice).

    Raises
    ------
    BadReplyError
        Also for a hedge-mode row: one-way positions have positionIdx 0.
    """
    if row.get("positionIdx") != 0:
        raise BadReplyError(f"positionIdx: must be 0 (one-way mode), was {row.get('positionIdx')}")
    size = at_least_0(row, "size")
    if size == 0.0:
        return Position()
    entry = above_0(row, "avgPrice" if "avgPrice" in row else "entryPrice")
    # An empty one says that there is none; a missing one would say nothing.
    liq_price = 0.0 if row.get("liqPrice") == "" else at_least_0(row, "liqPrice")
    return Position(size=_side(row) * size, entry_price=entry, liq_price=liq_price)


def rights_of(row: Mapping[str, Any]) -> KeyRights:
    """Read what ``query-api`` says of the key that asked."""
    permissions = row_of(row.get("permissions"), "permissions")
    contracts, derivatives = (_words(permissions, key) for key in ("ContractTrade", "Derivatives"))
    read_only = whole(row, "readOnly") != 0
    trades = {"Order", "Position"} <= set(contracts) or "DerivativesTrade" in derivatives
    return KeyRights(
        can_trade=trades and not read_only,
        can_withdraw="Withdraw" in _words(permissions, "Wallet"),
        read_only=read_only,
        detail="usable from any address" if "*" in _words(row, "ips") else "bound to addresses",
    )


def _words(row: Mapping[str, Any], key: str) -> list[str]:
    value = row.get(key)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise BadReplyError(f"{key}: must be a list of texts")


def wallet_of(row: Mapping[str, Any], coin: str) -> Mapping[str, Any] | None:
    """Return the row of ``coin`` in an account's wallet; None when it lists no such coin."""
    return next((c for c in rows_in(row, "coin") if c.get("coin") == coin), None)


# --- the market -----------------------------------------------------------------------------------


def public_trade_of(row: Mapping[str, Any]) -> PublicTrade:
    """Read a row of ``/v5/market/recent-trade``; ``side`` is the taker's."""
    return PublicTrade(
        trade_id=text(row, "execId"),
        price=above_0(row, "price"),
        qty=above_0(row, "size"),
        ts_ms=whole(row, "time"),
        buyer_maker=_side(row) < 0,
    )


def stream_trades(message: Mapping[str, Any]) -> Iterator[PublicTrade]:
    """Read the rows of a ``publicTrade`` message, the slow and clear way."""
    for row in rows_in(message, "data"):
        _check_symbol(message, row)
        yield PublicTrade(
            trade_id=text(row, "i"),
            price=above_0(row, "p"),
            qty=above_0(row, "v"),
            ts_ms=whole(row, "T"),
            buyer_maker=_side(row, "S") < 0,
        )


def _check_symbol(message: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    if row.get("s") != text(message, "topic").rpartition(".")[2]:
        raise BadReplyError(f"s: must be the topic's symbol, was {row.get('s')!r:.40}")


class Quote(NamedTuple):
    """Best prices as ``orderbook.1`` tells them, always both sides of them."""

    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    ts_ms: int


def quote_of(message: Mapping[str, Any]) -> Quote:
    """Read an ``orderbook.1`` message, the slow and clear way.

    Raises
    ------
    BadReplyError
        Also for a book without a side, or crossed: no price can be taken from it.
    """
    data = row_of(message.get("data"), "data")
    _check_symbol(message, data)
    bid, bid_qty = _level(data, "b")
    ask, ask_qty = _level(data, "a")
    if bid >= ask:
        raise BadReplyError(f"the book is crossed: bid {bid!r}, ask {ask!r}")
    ts_ms = whole(message, "cts" if "cts" in message else "ts")
    return Quote(bid, bid_qty, ask, ask_qty, ts_ms)


def _level(data: Mapping[str, Any], key: str) -> tuple[float, float]:
    levels = data.get(key)
    best = levels[0] if isinstance(levels, list) and levels else None
    if not (isinstance(best, list) and len(best) == 2):
        raise BadReplyError(f"{key}: must be a list of [price, quantity]")
    level = {"price": best[0], "qty": best[1]}
    return above_0(level, "price"), above_0(level, "qty")


class Ticker:
    """What ``tickers`` last said: a snapshot, then only what changed."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def take(self, message: Mapping[str, Any]) -> MarkPrice | None:
        """Merge a message; return the mark price and funding once everything has been said.

        Raises
        ------
        BadReplyError
            If a value is not a number; what it held before then counts no more.
        """
        data = row_of(message.get("data"), "data")
        if message.get("type") == "snapshot":
            self._fields = {}
        elif not self._fields:
            return None
        self._fields.update(data)
        try:
            return mark_of(self._fields, whole(message, "ts"))
        except BadReplyError:
            self._fields = {}
            raise


def mark_of(row: Mapping[str, Any], ts_ms: int) -> MarkPrice:
    """Read mark price and predicted funding of a ticker, REST or topic."""
    return MarkPrice(
        mark_price=above_0(row, "markPrice"),
        funding_rate=number(row, "fundingRate"),
        next_funding_ms=whole(row, "nextFundingTime"),
        ts_ms=ts_ms,
    )


# --- rules ----------------------------------------------------------------------------------------


def rules_of(
    instrument: Mapping[str, Any], tiers: Sequence[Tier], fees: Mapping[str, Any]
) -> Rules:
    """Put together the rules of a perpetual as this account has them, see `rules_with`."""
    own = {
        "maker_fee": number(fees, "makerFeeRate"),
        "taker_fee": number(fees, "takerFeeRate"),
    }
    return rules_with(instrument, tiers, own)


def rules_with(
    instrument: Mapping[str, Any], tiers: Sequence[Tier], own: Mapping[str, Any]
) -> Rules:
    """Put together the rules of a perpetual from its instrument, its tiers and the fields of
    `Market` that only accounts are told.
    """
    contract = text(instrument, "contractType")
    if contract not in ("InversePerpetual", "LinearPerpetual"):
        raise BadReplyError(f"contractType: must be a perpetual, was {contract!r:.40}")
    prices, lots, leverage = (
        row_of(instrument.get(key), key)
        for key in ("priceFilter", "lotSizeFilter", "leverageFilter")
    )
    inverse = contract == "InversePerpetual"
    # The docs give inverse contracts no least notional; a linear one always has it.
    no_least_cost = inverse and lots.get("minNotionalValue") in (None, "")
    risk = instrument.get("riskParameters")
    ratio = number_or_none(risk, "priceLimitRatioY") if isinstance(risk, dict) else None
    try:
        market = Market(
            price_step=number(prices, "tickSize"),
            qty_step=number(lots, "qtyStep"),
            min_qty=number(lots, "minOrderQty"),
            min_cost=0.0 if no_least_cost else number(lots, "minNotionalValue"),
            max_leverage=number(leverage, "maxLeverage"),
            inverse=inverse,
            tiers=tuple(tiers),
            **own,
        )
    except ConfigError as e:
        raise BadReplyError(f"the venue's rules cannot be used: {e}") from None
    return Rules(
        market=market,
        trading=text(instrument, "status") == "Trading",
        min_price=above_0(prices, "minPrice"),
        max_price=above_0(prices, "maxPrice"),
        max_qty=above_0(lots, "maxOrderQty"),
        max_market_qty=above_0(lots, "maxMktOrderQty"),
        max_orders=MAX_ORDERS,
        band_up=None if ratio is None else 1.0 + ratio,
        band_down=None if ratio is None else 1.0 - ratio,
        funding_interval_ms=whole(instrument, "fundingInterval") * 60_000,
    )


def tiers_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Tier, ...]:
    """Read risk limits: unsorted rows whose rates have been seen as percent and as fractions.

    Which of the two it is shows in initialMargin × maxLeverage: about 1, or about 100.
    """
    if not rows:
        raise BadReplyError("list: must hold risk limits")
    tiers = []
    floor = 0.0
    for row in sorted(rows, key=lambda row: number(row, "riskLimitValue")):
        leverage = above_0(row, "maxLeverage")
        number(row, "maintenanceMargin")
        initial = above_0(row, "initialMargin") * leverage
        if 0.5 < initial < 2.0:
            digits = 0
        elif 50.0 < initial < 200.0:
            digits = -2
        else:
            raise BadReplyError(
                f"initialMargin: is neither a fraction nor percent of maxLeverage {leverage:g}, "
                f"was {row.get('initialMargin')!r:.40}"
            )
        try:
            tiers.append(
                Tier(
                    floor=floor,
                    maintenance_rate=float(Decimal(str(row["maintenanceMargin"])).scaleb(digits)),
                    # "" is what the first tier says; without one the next ones leave no jump.
                    deduction=number_or_none(row, "mmDeduction"),
                    max_leverage=leverage,
                )
            )
        except ConfigError as e:
            raise BadReplyError(f"a risk limit cannot be used: {e}") from None
        floor = number(row, "riskLimitValue")
    return tuple(tiers)
