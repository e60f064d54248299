"""The account as Bybit shows it: wallet, position, orders, fills, payments; REST and topics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final
from uuid import UUID

from passivx.clock import Clock
from passivx.simulator.bybit_words import (
    CREATE_TYPES,
    DAY_MS,
    ENDED_BY_VENUE,
    ENDINGS,
    EXEC_TYPES,
    NO_LIMIT,
    SIDE_WORDS,
    STATUS_WORDS,
    TIF_WORDS,
    Hub,
    Json,
    Params,
    Units,
    amount,
    bad,
    below_cursor,
    newest,
    pages,
    span,
    uuid_text,
    whole,
)
from passivx.simulator.venue import (
    Execution,
    Kind,
    OrderType,
    Refusal,
    SimOrder,
    SimVenue,
    Status,
    TimeInForce,
)

__all__ = ["AccountFace"]

# Fields of an order that nothing here ever fills.
_ORDER: Final[Json] = {
    "blockTradeId": "",
    "positionIdx": 0,
    "stopOrderType": "",
    "orderIv": "",
    "triggerPrice": "",
    "takeProfit": "",
    "stopLoss": "",
    "tpTriggerBy": "",
    "slTriggerBy": "",
    "triggerDirection": 0,
    "triggerBy": "",
    "lastPriceOnCreated": "",
    "closeOnTrigger": False,
    "smpType": "None",
    "smpGroup": 0,
    "smpOrderId": "",
    "tpslMode": "",
    "tpLimitPrice": "",
    "slLimitPrice": "",
    "placeType": "",
    "rpiTakerAccess": False,
    "rpiMatchedQty": "0",
}
_ORDER_REST: Final[Json] = {
    **_ORDER,
    "stopOrderType": "UNKNOWN",
    "isLeverage": "",
    "slippageToleranceType": "UNKNOWN",
    "slippageTolerance": "",
    "extraFees": "",
}
_POSITION: Final[Json] = {
    "positionIdx": 0,
    "tradeMode": 0,
    "autoAddMargin": 0,
    "adlRankIndicator": 0,
    "tpslMode": "Full",
    "takeProfit": "",
    "stopLoss": "",
    "trailingStop": "0",
    "sessionAvgPrice": "",
    "bustPrice": "",
    "leverageSysUpdatedTime": "",
    "isReduceOnly": False,
}
_FILL_REST: Final[Json] = {
    "underlyingPrice": "",
    "indexPrice": "",
    "stopOrderType": "UNKNOWN",
    "tradeIv": "",
    "blockTradeId": "",
    "markIv": "",
    "extraFees": "",
}
_FILL_STREAM: Final[Json] = {
    "tradeIv": "",
    "markIv": "",
    "blockTradeId": "",
    "indexPrice": "",
    "underlyingPrice": "",
    "stopOrderType": "UNKNOWN",
    "isLeverage": "0",
    "marketUnit": "",
    "extraFees": [],
}


@dataclass(frozen=True, slots=True)
class _Fill:
    """A row of the execution list: a fill, or a funding payment."""

    exec_id: str
    order_id: str
    link: str
    side: int
    price: float
    qty: float
    value: float
    fee: float  # positive when paid
    fee_rate: float
    exec_type: str
    order_type: OrderType
    order_price: float
    order_qty: float
    leaves: float
    closed: float
    pnl: float
    maker: bool
    create_type: str
    mark: float
    ts_ms: int
    seq: int


@dataclass(slots=True)
class _Closing:
    """A row of the closed-pnl list: what one order closed."""

    order_id: str
    side: int
    order_type: OrderType
    exec_type: str
    order_price: float
    qty: float
    leverage: float
    created_ms: int
    updated_ms: int = 0
    closed: float = 0.0
    entry_value: float = 0.0
    exit_value: float = 0.0
    pnl: float = 0.0  # after the fees of opening and closing
    fills: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """A row of the transaction log; amounts in the settle currency, + for the account."""

    kind: str
    ts_ms: int
    cash_flow: float
    funding: float
    fee: float  # positive when paid
    cash: float  # after it
    size: float  # after it
    fill: _Fill | None


class AccountFace:
    """Signed reads and private topics. ``get_*`` answer a request's parameters with its result."""

    def __init__(self, venue: SimVenue, clock: Clock, units: Units, hub: Hub) -> None:
        self._venue = venue
        self._clock = clock
        self._units = units
        self._hub = hub
        self._salt = f"{hub.salt}-4000-8000"
        self.collateral = True  # whether the settle coin counts as margin
        self._started_ms = clock.time_ms()
        self._size = venue.size
        self._entry = venue.entry_price
        self._position_ms = self._started_ms
        self._position_seq = -1  # never traded
        self._realised_now = self._realised_ever = self._opening_fees = 0.0
        self._cash = venue.wallet
        self._fills: list[_Fill] = []
        self._entries: list[_Entry] = []
        self._closings: dict[str, _Closing] = {}

    def _usd(self) -> float:
        """Return what one unit of the settle currency is worth."""
        return self._venue.mark_price if self._units.inverse else 1.0

    def _coin_row(self) -> Json:
        venue = self._venue
        return {
            "coin": self._units.settle,
            "equity": amount(venue.equity),
            "usdValue": amount(venue.equity * self._usd()),
            "walletBalance": amount(venue.wallet),
            "availableToWithdraw": "",
            "availableToBorrow": "",
            "borrowAmount": "0",
            "accruedInterest": "0",
            "totalOrderIM": amount(venue.order_margin),
            "totalPositionIM": amount(venue.position_margin),
            "totalPositionMM": amount(venue.maintenance_margin),
            "unrealisedPnl": amount(venue.open_pnl),
            "cumRealisedPnl": amount(self._realised_ever),
            "bonus": "0",
            "collateralSwitch": self.collateral,
            "marginCollateral": True,
            "locked": "0",
            "spotHedgingQty": "0",
            "spotBorrow": "0",
        }

    def _wallet_row(self) -> Json:
        """Return the account: totals in USD, and its one coin.

        Rates and totals of margin are empty in isolated margin, where they have no meaning.
        """
        venue, usd = self._venue, self._usd()
        equity = venue.equity * usd
        initial = (venue.position_margin + venue.order_margin) * usd
        maintenance = venue.maintenance_margin * usd
        cross = venue.cross_mode
        used = amount(initial) if cross else ""
        kept = amount(maintenance) if cross else ""
        used_rate = (amount(initial / equity) if equity > 0.0 else "0") if cross else ""
        kept_rate = (amount(maintenance / equity) if equity > 0.0 else "0") if cross else ""
        return {
            "accountType": "UNIFIED",
            "totalEquity": amount(equity),
            "totalWalletBalance": amount(venue.wallet * usd),
            "totalMarginBalance": amount(equity) if cross else "",
            "totalAvailableBalance": amount(venue.available * usd) if cross else "",
            "totalPerpUPL": amount(venue.open_pnl * usd),
            "totalInitialMargin": used,
            "totalInitialMarginByMp": used,
            "totalMaintenanceMargin": kept,
            "totalMaintenanceMarginByMp": kept,
            "accountIMRate": used_rate,
            "accountIMRateByMp": used_rate,
            "accountMMRate": kept_rate,
            "accountMMRateByMp": kept_rate,
            "accountLTV": "0",
            "coin": [self._coin_row()],
        }

    def get_wallet(self, params: Params) -> Json:
        if params.get("accountType") != "UNIFIED":
            raise bad("accountType only support UNIFIED.")
        row = self._wallet_row()
        coins = params.get("coin", "")
        if coins and self._units.settle not in coins.split(","):
            row["coin"] = []
        return {"list": [row]}

    def get_position(self, params: Params) -> Json:
        rows: list[Json] = []
        asked = self._units.lists(params)
        if params["category"] == "linear" and not (
            params.get("symbol") or params.get("settleCoin")
        ):
            raise bad("params error: symbol and settleCoin cannot both be empty")
        # With a symbol a position of nothing is a row too.
        if asked and (params.get("symbol") or self._venue.size != 0.0):
            row = self._position_row()
            row["avgPrice"] = row.pop("entryPrice")
            row["mmrSysUpdateTime"] = row.pop("mmrSysUpdatedTime")
            del row["category"]
            rows.append(row)
        return {"category": params["category"], "list": rows, "nextPageCursor": ""}

    def _position_row(self, status: str = "Normal") -> Json:
        """Return the position as the stream words it."""
        venue = self._venue
        size, mark = venue.size, venue.mark_price
        held = size != 0.0
        initial, kept = amount(venue.position_margin), amount(venue.maintenance_margin)
        liquidation = venue.liq_price
        # Out of the range of prices it is none.
        liquidates = held and 0.0 < liquidation <= venue.listing.max_price
        tiers = self._units.tiers
        value = self._units.value(abs(size), mark)
        tier = sum(floor <= value for floor, _, _ in tiers)
        limit = NO_LIMIT if tier == len(tiers) else tiers[tier][0]
        return {
            **_POSITION,
            "category": self._units.category,
            "symbol": self._units.symbol,
            "riskId": tier,
            "riskLimitValue": amount(limit),
            "side": ("Buy" if size > 0.0 else "Sell") if held else "",
            "size": self._units.qty(abs(size)),
            "entryPrice": f"{venue.entry_price:.8f}" if held else "0",
            "leverage": amount(venue.leverage),
            "breakEvenPrice": f"{self._break_even():.8f}" if held else "0",
            "positionValue": amount(self._units.value(abs(size), venue.entry_price))
            if held
            else "0",
            "positionBalance": initial,
            "markPrice": self._units.price(mark),
            "positionIM": initial,
            "positionIMByMp": initial,
            "positionMM": kept,
            "positionMMByMp": kept,
            "liqPrice": self._units.price(liquidation) if liquidates else "",
            "unrealisedPnl": amount(venue.open_pnl),
            "curRealisedPnl": amount(self._realised_now),
            "cumRealisedPnl": amount(self._realised_ever),
            "createdTime": str(self._started_ms),
            "updatedTime": str(self._position_ms),
            "openTime": str(self._position_ms) if held else "0",
            "mmrSysUpdatedTime": "",
            "positionStatus": status,
            "seq": self._position_seq,
        }

    def _break_even(self) -> float:
        """Return the price at which closing would leave what the position realised so far at 0."""
        size, entry = self._venue.size, self._venue.entry_price
        if self._units.inverse:
            left = 1.0 / entry + self._realised_now / size
            return 1.0 / left if left > 0.0 else 0.0
        return max(0.0, entry - self._realised_now / size)

    def get_closings(self, params: Params) -> Json:
        first, last = span(params, self._clock.time_ms())
        limit = whole(params, "limit", 50, 1, 100)
        below = below_cursor(params)
        asked = self._units.lists(params)
        rows = list(enumerate(self._closings.values())) if asked else []
        page, cursor = pages(
            (
                (number, self._closing_row(closing))
                for number, closing in reversed(rows)
                if first <= closing.updated_ms <= last and (below is None or number < below)
            ),
            limit,
        )
        return {"category": params["category"], "list": page, "nextPageCursor": cursor}

    def _closing_row(self, closing: _Closing) -> Json:
        return {
            "symbol": self._units.symbol,
            "orderId": closing.order_id,
            "side": SIDE_WORDS[closing.side],
            "orderType": "Market" if closing.order_type is OrderType.MARKET else "Limit",
            "execType": closing.exec_type,
            "orderPrice": self._units.price(closing.order_price),
            "qty": self._units.qty(closing.qty),
            "closedSize": self._units.qty(closing.closed),
            "cumEntryValue": amount(closing.entry_value),
            "avgEntryPrice": f"{self._units.average(closing.closed, closing.entry_value):.8f}",
            "cumExitValue": amount(closing.exit_value),
            "avgExitPrice": f"{self._units.average(closing.closed, closing.exit_value):.8f}",
            "closedPnl": amount(closing.pnl),
            "fillCount": str(closing.fills),
            "leverage": amount(closing.leverage),
            "createdTime": str(closing.created_ms),
            "updatedTime": str(closing.updated_ms),
        }

    def get_log(self, params: Params) -> Json:
        first, last = span(params, self._clock.time_ms())
        limit = whole(params, "limit", 20, 1, 50)
        below = below_cursor(params)
        if params.get("accountType", "UNIFIED") != "UNIFIED":
            raise bad("accountType only support UNIFIED.")
        category = params.get("category", "")
        if category:
            self._units.known_category(params)
        kind = params.get("type", "")
        currency = params.get("currency", "")
        asked = category in ("", self._units.category) and currency in ("", self._units.settle)
        rows = self._entries if asked else []
        page, cursor = pages(
            (
                (place, self._log_row(place, entry))
                for place, entry in newest(rows, first, last, below)
                if kind in ("", entry.kind)
            ),
            limit,
        )
        return {"list": page, "nextPageCursor": cursor}

    def _log_row(self, number: int, entry: _Entry) -> Json:
        fill = entry.fill
        settled = entry.kind == "SETTLEMENT"
        return {
            "id": f"1_{self._units.symbol}_{number}",
            "symbol": self._units.symbol if fill else "",
            "category": self._units.category if fill else "",
            "side": SIDE_WORDS[fill.side] if fill else "None",
            "type": entry.kind,
            "transSubType": "",
            "transactionTime": str(entry.ts_ms),
            "qty": self._units.qty(fill.qty) if fill else "0",
            "size": self._units.qty(abs(entry.size)),
            "currency": self._units.settle,
            "tradePrice": self._units.price(fill.price) if fill else "",
            "funding": amount(entry.funding) if settled else "",
            "fee": amount(entry.fee),
            "cashFlow": amount(entry.cash_flow),
            "change": amount(entry.cash_flow + entry.funding - entry.fee),
            "cashBalance": amount(entry.cash),
            "feeRate": amount(fill.fee_rate) if fill else "",
            "bonusChange": "",
            "tradeId": fill.exec_id if fill else "",
            "orderId": fill.order_id if fill else "",
            "orderLinkId": fill.link if fill else "",
            "extraFees": "",
        }

    def get_fills(self, params: Params) -> Json:
        asked = self._units.lists(params)
        first, last = span(params, self._clock.time_ms())
        limit = whole(params, "limit", 50, 1, 100)
        below = below_cursor(params)
        order_id, link = params.get("orderId", ""), params.get("orderLinkId", "")
        kind = params.get("execType", "")
        rows = self._fills if asked else []
        page, cursor = pages(
            (
                (place, self._fill_row(fill))
                for place, fill in newest(rows, first, last, below)
                if order_id in ("", fill.order_id)
                and (link in ("", fill.link) or order_id)
                and kind in ("", fill.exec_type)
            ),
            limit,
        )
        return {"category": params["category"], "list": page, "nextPageCursor": cursor}

    def _fill_common(self, fill: _Fill) -> Json:
        return {
            "symbol": self._units.symbol,
            "orderId": fill.order_id,
            "orderLinkId": fill.link,
            "side": SIDE_WORDS[fill.side],
            "orderPrice": self._units.price(fill.order_price),
            "orderQty": self._units.qty(fill.order_qty),
            "leavesQty": self._units.qty(fill.leaves),
            "orderType": "Market" if fill.order_type is OrderType.MARKET else "Limit",
            "execFee": amount(fill.fee),
            "execId": fill.exec_id,
            "execPrice": self._units.price(fill.price),
            "execQty": self._units.qty(fill.qty),
            "execType": fill.exec_type,
            "execValue": amount(fill.value),
            "execTime": str(fill.ts_ms),
            "isMaker": fill.maker,
            "feeRate": amount(fill.fee_rate),
            "markPrice": self._units.price(fill.mark),
            "closedSize": self._units.qty(fill.closed) if fill.closed else "",
            "feeCurrency": self._units.settle,
            "seq": fill.seq,
        }

    def _fill_row(self, fill: _Fill) -> Json:
        return {**_FILL_REST, **self._fill_common(fill)}

    def order_text(self, order_id: int) -> str:
        return uuid_text(self._salt, order_id)

    def _order_number(self, text: str) -> int:
        """Return the number in an order id; -1 when it is no id of this venue."""
        head, _, tail = text.rpartition("-")
        if head != self._salt or len(tail) != 12:
            return -1
        try:
            return int(tail, 16)
        except ValueError:
            return -1

    def _shown_price(self, order: SimOrder) -> float:
        """Return the price an order shows: at market the worst it could have been filled at."""
        if order.type is not OrderType.MARKET:
            return order.price
        shown = order.extra.get("price")
        if shown is None:
            listing = self._venue.listing
            band = listing.band_up if order.side > 0 else listing.band_down
            step = self._units.price_step
            shown = self._units.price(round(self._venue.mark_price * band / step) * step)
            order.extra["price"] = shown
        return float(shown)

    def _order_row(self, order: SimOrder, constant: Json) -> Json:
        """Return an order; what the two places it is told in have in common."""
        final = order.status.final
        price = self._shown_price(order)
        market = order.type is OrderType.MARKET
        cancel, reject = "UNKNOWN", "EC_NoError"
        if final and order.status is not Status.FILLED:
            cancel, reject = ENDINGS.get(order.reason, ENDED_BY_VENUE)
        fee = amount(-order.fee)
        return {
            **constant,
            "symbol": self._units.symbol,
            "orderId": self.order_text(order.order_id),
            "orderLinkId": order.client_id,
            "side": SIDE_WORDS[order.side],
            "orderType": "Market" if market else "Limit",
            "price": self._units.price(price),
            "qty": self._units.qty(order.qty),
            "timeInForce": "IOC" if market else TIF_WORDS[order.tif],
            "orderStatus": STATUS_WORDS[order.status],
            "cancelType": cancel,
            "rejectReason": reject,
            "leavesQty": self._units.qty(order.left),
            "leavesValue": amount(self._units.value(order.left, price)),
            "cumExecQty": self._units.qty(order.filled),
            "cumExecValue": amount(order.cost),
            "cumExecFee": fee,
            "cumFeeDetail": {self._units.settle: fee} if order.filled else {},
            "reduceOnly": order.reduce_only,
            "closeOnTrigger": "close" in order.extra,
            "createdTime": str(order.created_ms),
            "updatedTime": str(order.updated_ms),
        }

    def _average_text(self, order: SimOrder, nothing: str) -> str:
        if order.filled == 0.0:
            return nothing
        return f"{self._units.average(order.filled, order.cost):.8f}".rstrip("0").rstrip(".")

    def _rest_order(self, order: SimOrder) -> Json:
        row = self._order_row(order, _ORDER_REST)
        row["avgPrice"] = self._average_text(order, "0")
        return row

    def _orders_asked_for(self, params: Params) -> Iterable[SimOrder]:
        """Yield the orders a query names, newest first, whatever their state."""
        order_id, link = params.get("orderId", ""), params.get("orderLinkId", "")
        if order_id or link:
            try:
                yield self.find(params)
            except Refusal:
                return
        else:
            yield from reversed(self._venue.orders.values())

    def get_live_orders(self, params: Params) -> Json:
        asked = self._units.in_scope(params)
        named = bool(params.get("orderId") or params.get("orderLinkId"))
        if not named and params["category"] == "linear":
            self._units.check_scope(params)
        closed = params.get("openOnly", "0") == "1"
        limit = whole(params, "limit", 20, 1, 50)
        below = below_cursor(params)
        orders: Iterable[SimOrder] = self._orders_asked_for(params) if asked else ()
        if not named and closed:
            orders = islice((one for one in orders if one.status.final), 500)
        elif not named:
            orders = sorted(
                self._venue.open_orders() if asked else (), key=lambda one: -one.order_id
            )
        page, cursor = pages(
            (
                (order.order_id, self._rest_order(order))
                for order in orders
                if below is None or order.order_id < below
            ),
            limit,
        )
        return {"category": params["category"], "list": page, "nextPageCursor": cursor}

    def get_old_orders(self, params: Params) -> Json:
        asked = self._units.in_scope(params)
        now = self._clock.time_ms()
        first, last = span(params, now)
        limit = whole(params, "limit", 20, 1, 50)
        below = below_cursor(params)
        status = params.get("orderStatus", "")
        orders = self._orders_asked_for(params) if asked else ()
        page, cursor = pages(
            (
                (order.order_id, self._rest_order(order))
                for order in takewhile(lambda one: one.created_ms >= first, orders)
                if order.status.final
                and order.created_ms <= last
                # Without a fill an ended order is forgotten after a day.
                and (order.filled or now - order.updated_ms <= DAY_MS)
                and status in ("", STATUS_WORDS[order.status])
                and (below is None or order.order_id < below)
            ),
            limit,
        )
        return {"category": params["category"], "list": page, "nextPageCursor": cursor}

    def find(self, params: Params) -> SimOrder:
        """Return the order a request names; the venue's own id comes first.

        Raises
        ------
        Refusal
            UNKNOWN_ORDER.
        """
        order_id, link = params.get("orderId") or "", params.get("orderLinkId") or ""
        if not isinstance(order_id, str) or not isinstance(link, str) or not (order_id or link):
            raise bad("params error: orderId or orderLinkId is required")
        if order_id:
            return self._venue.find(order_id=self._order_number(order_id))
        return self._venue.find(client_id=link)

    def on_order(self, order: SimOrder, what: str) -> None:
        """Publish an order; placing, amending and ending one shows in position and wallet too."""
        self._hub.seq += 1
        # What does not come to rest is heard of by its outcome.
        fleeting = what == "new" and (
            order.type is OrderType.MARKET or order.tif is TimeInForce.IOC
        )
        if not fleeting:
            self._tell_order(order, Kind.TRADE, self._average_text(order, ""))
        if what != "trade":
            self._tell_position("Normal")
            self._tell_wallet()

    def _tell_order(self, order: SimOrder, kind: Kind, average: str) -> None:
        if self._private_topics_of("order"):
            row = self._order_row(order, _ORDER)
            row["avgPrice"] = average
            row["category"] = self._units.category
            row["closedPnl"] = amount(self._closed_pnl_of(order.order_id))
            row["feeCurrency"] = self._units.settle
            row["createType"] = CREATE_TYPES[kind]
            self._tell_private("order", row)

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        """Book a fill and publish it; one of the venue's own making has an order of its own."""
        self._hub.seq += 1
        one = execution
        before = self._size
        closed = min(one.qty, abs(before)) if before * one.side < 0.0 else 0.0
        opened = one.qty - closed
        order_id = self.order_text(one.order_id)
        value = self._units.value(one.qty, one.price)
        fill = _Fill(
            exec_id=one.exec_id,
            order_id=order_id,
            link=one.client_id,
            side=one.side,
            price=one.price,
            qty=one.qty,
            value=value,
            fee=-one.fee,
            fee_rate=-one.fee / value,
            exec_type=EXEC_TYPES[one.kind],
            order_type=order.type if order else OrderType.MARKET,
            order_price=self._shown_price(order) if order else one.price,
            order_qty=order.qty if order else one.qty,
            leaves=order.left if order else 0.0,
            closed=closed,
            pnl=one.pnl,
            maker=one.maker,
            create_type=CREATE_TYPES[one.kind],
            mark=self._venue.mark_price,
            ts_ms=one.ts_ms,
            seq=self._hub.seq,
        )
        self._fills.append(fill)
        self._book_fill(fill, before, opened)
        if one.kind is not Kind.TRADE:
            self._tell_takeover(one)
        self._tell_fill(fill)

    def _book_fill(self, fill: _Fill, before: float, opened: float) -> None:
        """Keep position, cash and closed pnl up with a fill."""
        fee_opening = fill.fee * (opened / fill.qty)
        if fill.closed:
            share = self._opening_fees * (fill.closed / abs(before))
            self._opening_fees -= share
            closing = self._closings.get(fill.order_id)
            if closing is None:
                closing = self._closings[fill.order_id] = _Closing(
                    order_id=fill.order_id,
                    side=fill.side,
                    order_type=fill.order_type,
                    exec_type=fill.exec_type,
                    order_price=fill.order_price,
                    qty=fill.order_qty,
                    leverage=self._venue.leverage,
                    created_ms=fill.ts_ms,
                )
            closing.updated_ms = fill.ts_ms
            closing.closed += fill.closed
            closing.entry_value += self._units.value(fill.closed, self._entry)
            closing.exit_value += self._units.value(fill.closed, fill.price)
            closing.pnl += fill.pnl - (fill.fee - fee_opening) - share
            closing.fills += 1
        after = self._venue.size
        if before * after <= 0.0 and after != before:
            self._realised_now = 0.0
            self._opening_fees = 0.0
        self._opening_fees += fee_opening
        self._size, self._entry = after, self._venue.entry_price
        gain = fill.pnl - fill.fee
        self._realised_now += gain
        self._realised_ever += gain
        self._cash = self._venue.wallet
        self._position_ms = fill.ts_ms
        self._position_seq = fill.seq
        self._entries.append(
            _Entry(
                kind="TRADE" if fill.exec_type == "Trade" else "LIQUIDATION",
                ts_ms=fill.ts_ms,
                cash_flow=fill.pnl,
                funding=0.0,
                fee=fill.fee,
                cash=self._cash,
                size=after,
                fill=fill,
            )
        )

    def _closed_pnl_of(self, order_id: int) -> float:
        closing = self._closings.get(self.order_text(order_id))
        return closing.pnl if closing else 0.0

    def _tell_fill(self, fill: _Fill) -> None:
        if self._private_topics_of("execution"):
            row = {**_FILL_STREAM, **self._fill_common(fill)}
            row["category"] = self._units.category
            row["execPnl"] = amount(fill.pnl)
            row["createType"] = fill.create_type
            self._tell_private("execution", row)
        if fill.exec_type == "Trade" and self._private_topics_of("execution.fast"):
            row = {
                "category": self._units.category,
                "symbol": self._units.symbol,
                "execId": fill.exec_id,
                "execPrice": self._units.price(fill.price),
                "execQty": self._units.qty(fill.qty),
                "orderId": fill.order_id,
                "isMaker": fill.maker,
                # Makers are told without it: the order's own id is what counts.
                "orderLinkId": "" if fill.maker else fill.link,
                "side": SIDE_WORDS[fill.side],
                "execTime": str(fill.ts_ms),
                "seq": fill.seq,
            }
            self._tell_private("execution.fast", row)

    def _tell_takeover(self, execution: Execution) -> None:
        """Publish what the venue did to the position by itself."""
        one = execution
        price, qty = self._units.price(one.price), self._units.qty(one.qty)
        liquidated = one.kind is Kind.LIQUIDATION
        self._tell_position("Liq" if liquidated else "Adl")
        if liquidated:
            topic = f"allLiquidation.{self._units.symbol}"
            row: Json = {
                "T": one.ts_ms,
                "s": self._units.symbol,
                "S": SIDE_WORDS[-one.side],  # of the position
                "v": qty,
                "p": price,
            }
            self._hub.tell(
                topic, {"topic": topic, "type": "snapshot", "ts": one.ts_ms, "data": [row]}
            )
        order = SimOrder(
            order_id=one.order_id,
            client_id="",
            side=one.side,
            type=OrderType.MARKET,
            tif=TimeInForce.IOC,
            price=0.0,
            qty=one.qty,
            reduce_only=True,
            created_ms=one.ts_ms,
            updated_ms=one.ts_ms,
            status=Status.FILLED,
            filled=one.qty,
            cost=self._units.value(one.qty, one.price),
            fee=one.fee,
            extra={"price": price},
        )
        self._tell_order(order, one.kind, price)

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        """Book a funding payment; it is a row of the execution list too."""
        size = self._size
        if size == 0.0:
            return
        self._hub.seq += 1
        mark = self._venue.mark_price
        fill = _Fill(
            exec_id=str(UUID(int=self._hub.seq << 64 | len(self._fills), version=4)),
            order_id=f"{ts_ms // 1000}-{len(self._fills)}",
            link="",
            side=1 if size > 0.0 else -1,
            price=mark,
            qty=abs(size),
            value=self._units.value(abs(size), mark),
            fee=-amount,
            fee_rate=rate,
            exec_type="Funding",
            order_type=OrderType.MARKET,
            order_price=0.0,
            order_qty=0.0,
            leaves=0.0,
            closed=0.0,
            pnl=0.0,
            maker=False,
            create_type="",
            mark=mark,
            ts_ms=ts_ms,
            seq=self._hub.seq,
        )
        self._fills.append(fill)
        self._cash = self._venue.wallet
        self._realised_now += amount
        self._realised_ever += amount
        self._entries.append(
            _Entry(
                kind="SETTLEMENT",
                ts_ms=ts_ms,
                cash_flow=0.0,
                funding=amount,
                fee=0.0,
                cash=self._cash,
                size=size,
                fill=fill,
            )
        )
        self._tell_fill(fill)

    def on_account(self, why: str) -> None:
        """Publish position and wallet."""
        if why == "deposit":
            amount = self._venue.wallet - self._cash
            self._cash = self._venue.wallet
            self._entries.append(
                _Entry(
                    kind="TRANSFER_IN" if amount >= 0.0 else "TRANSFER_OUT",
                    ts_ms=self._clock.time_ms(),
                    cash_flow=amount,
                    funding=0.0,
                    fee=0.0,
                    cash=self._cash,
                    size=self._size,
                    fill=None,
                )
            )
        self._tell_position("Normal")
        self._tell_wallet()

    def on_terms(self) -> None:
        """Publish a position whose terms changed."""
        self._tell_position("Normal")

    def _private_topics_of(self, kind: str) -> list[str]:
        """Return the topics under which anybody listens to one kind of event."""
        return [
            topic for topic in (kind, f"{kind}.{self._units.category}") if topic in self._hub.topics
        ]

    def _tell_private(self, kind: str, row: Json) -> None:
        for topic in self._private_topics_of(kind):
            message: Json = {"topic": topic, "creationTime": self._clock.time_ms(), "data": [row]}
            if kind != "execution.fast":
                message = {"id": f"1_{self._units.symbol}_{self._hub.seq}", **message}
            self._hub.tell(topic, message)

    def _tell_position(self, status: str) -> None:
        if self._private_topics_of("position"):
            self._tell_private("position", self._position_row(status))

    def _tell_wallet(self) -> None:
        if "wallet" in self._hub.topics:
            self._tell_private("wallet", self._wallet_row())
