"""The account as Binance shows it: balances, position, fills, income, and the private events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from passivx.clock import Clock
from passivx.simulator.binance_words import (
    SIDES,
    TIF_WORDS,
    WEEK_MS,
    AnswerError,
    Json,
    Params,
    Units,
    integer,
    limit_of,
    ts_range,
)
from passivx.simulator.venue import (
    Execution,
    Kind,
    OrderType,
    SimOrder,
    SimVenue,
    Status,
    TimeInForce,
)

__all__ = ["AccountFace"]

# Maintenance margin by equity from which the venue warns; the docs give no figure.
_CALL_RATIO: Final = 0.8
# Why an order expired: er of ORDER_TRADE_UPDATE.
_EXPIRY: Final = {"ioc": "2", "reduce_only": "4", "liquidation": "5"}
_ENDS: Final = {
    "new": "NEW",
    "amended": "AMENDMENT",
    "trade": "TRADE",
    "canceled": "CANCELED",
    "expired": "EXPIRED",
}


class AccountFace:
    """Answers about the one account, and its events as ``tell`` sends them to whoever listens."""

    def __init__(
        self, venue: SimVenue, clock: Clock, units: Units, tell: Callable[[Json], None]
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._units = units
        self._tell = tell
        self._income: list[Json] = []
        self._realized = 0.0
        self._created_ms = self._updated_ms = clock.time_ms()
        self._last: Execution | None = None
        self._called = False
        self._wallet = venue.wallet

    # --- REST ---

    def get_balance(self, params: Params) -> list[Json]:
        """GET /fapi/v2|v3/balance."""
        venue, money = self._venue, self._units.money
        return [
            {
                "accountAlias": "SgsR",
                "asset": self._units.quote,
                "balance": money(venue.wallet),
                "crossWalletBalance": money(self._cross_wallet()),
                "crossUnPnl": money(venue.open_pnl if venue.cross_mode else 0.0),
                "availableBalance": money(venue.available),
                "maxWithdrawAmount": money(max(0.0, min(venue.available, venue.wallet))),
                "marginAvailable": True,
                "updateTime": self._updated_ms,
            }
        ]

    def get_account(self, params: Params) -> Json:
        """GET /fapi/v2|v3/account."""
        venue, money = self._venue, self._units.money
        pnl, position_margin = money(venue.open_pnl), money(venue.position_margin)
        order_margin, needed = (
            money(venue.order_margin),
            money(venue.position_margin + venue.order_margin),
        )
        maintenance, wallet, cross = (
            money(venue.maintenance_margin),
            money(venue.wallet),
            money(self._cross_wallet()),
        )
        cross_pnl = money(venue.open_pnl if venue.cross_mode else 0.0)
        free = {
            "availableBalance": money(venue.available),
            "maxWithdrawAmount": money(max(0.0, min(venue.available, venue.wallet))),
        }
        asset = {
            "asset": self._units.quote,
            "walletBalance": wallet,
            "unrealizedProfit": pnl,
            "marginBalance": money(venue.equity),
            "maintMargin": maintenance,
            "initialMargin": needed,
            "positionInitialMargin": position_margin,
            "openOrderInitialMargin": order_margin,
            "crossWalletBalance": cross,
            "crossUnPnl": cross_pnl,
            **free,
            "updateTime": self._updated_ms,
        }
        row = self._position()
        positions = [
            {
                key: row[key]
                for key in (
                    "symbol",
                    "positionSide",
                    "positionAmt",
                    "isolatedMargin",
                    "notional",
                    "isolatedWallet",
                    "initialMargin",
                    "maintMargin",
                    "updateTime",
                    "entryPrice",
                )
            }
            | {"unrealizedProfit": row["unRealizedProfit"], "leverage": f"{venue.leverage:g}"}
        ]
        return {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": True,
            "canWithdraw": True,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "totalInitialMargin": needed,
            "totalMaintMargin": maintenance,
            "totalWalletBalance": wallet,
            "totalUnrealizedProfit": pnl,
            "totalMarginBalance": money(venue.equity),
            "totalPositionInitialMargin": position_margin,
            "totalOpenOrderInitialMargin": order_margin,
            "totalCrossWalletBalance": cross,
            "totalCrossUnPnl": cross_pnl,
            **free,
            "assets": [asset],
            "positions": positions if self._shows() else [],
        }

    def get_positions_v3(self, params: Params) -> list[Json]:
        """GET /fapi/v3/positionRisk: only what has a position or orders."""
        if params.get("symbol", self._units.symbol) != self._units.symbol:
            raise AnswerError(-1121, "Invalid symbol.")
        return [self._position()] if self._shows() else []

    def get_positions_v2(self, params: Params) -> list[Json]:
        """GET /fapi/v2/positionRisk: every symbol, with leverage and margin type."""
        if params.get("symbol", self._units.symbol) != self._units.symbol:
            raise AnswerError(-1121, "Invalid symbol.")
        venue, row = self._venue, self._position()
        return [
            {
                **row,
                "marginType": "cross" if venue.cross_mode else "isolated",
                "isAutoAddMargin": "false",
                "leverage": f"{venue.leverage:g}",
                "maxNotionalValue": self.most_notional(),
            }
        ]

    def get_symbol_config(self, params: Params) -> list[Json]:
        """GET /fapi/v1/symbolConfig."""
        return [
            {
                "symbol": self._units.symbol,
                "marginType": "CROSSED" if self._venue.cross_mode else "ISOLATED",
                "isAutoAddMargin": False,
                "leverage": int(self._venue.leverage),
                "maxNotionalValue": self.most_notional(),
            }
        ]

    def get_account_config(self, params: Params) -> Json:
        """GET /fapi/v1/accountConfig."""
        return {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": True,
            "canWithdraw": True,
            "dualSidePosition": self._venue.hedge_mode,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "tradeGroupId": -1,
        }

    def get_rights(self, params: Params) -> Json:
        """GET /sapi/v1/account/apiRestrictions: the rights of the key that asks."""
        venue = self._venue
        return {
            "ipRestrict": True,
            "createTime": self._created_ms,
            "enableReading": True,
            "enableWithdrawals": venue.may_withdraw,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": venue.may_trade,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": False,
            "enableSpotAndMarginTrading": False,
            "enablePortfolioMarginTrading": False,
        }

    def get_commission(self, params: Params) -> Json:
        """GET /fapi/v1/commissionRate."""
        market = self._venue.listing.market
        return {
            "symbol": self._units.symbol,
            "makerCommissionRate": f"{market.maker_fee:.6f}",
            "takerCommissionRate": f"{market.taker_fee:.6f}",
            "rpiCommissionRate": f"{market.maker_fee:.6f}",
        }

    def get_fills(self, params: Params) -> list[Json]:
        """GET /fapi/v1/userTrades, oldest first; ``fromId`` excludes times."""
        limit = limit_of(params, 500)
        fills = self._venue.executions
        if "orderId" in params:
            order_id = integer(params, "orderId")
            fills = [fill for fill in fills if fill.order_id == order_id]
        if "fromId" in params:
            if "startTime" in params or "endTime" in params:
                raise AnswerError(-1128, "Combination of optional parameters invalid.")
            first = integer(params, "fromId")
            fills = [fill for fill in fills if fill.trade_id >= first][:limit]
        else:
            start, end = ts_range(params, self._clock.time_ms(), WEEK_MS)
            fills = [fill for fill in fills if start <= fill.ts_ms <= end]
            fills = fills[:limit] if "startTime" in params else fills[-limit:]
        return [self._fill_row(fill) for fill in fills]

    def get_income(self, params: Params) -> list[Json]:
        """GET /fapi/v1/income, oldest first."""
        limit = limit_of(params, 100)
        now = self._clock.time_ms()
        end = integer(params, "endTime", now)
        start = integer(params, "startTime", max(0, end - WEEK_MS))
        kind = params.get("incomeType", "")
        rows = [
            row
            for row in self._income
            if start <= row["time"] <= end and kind in ("", row["incomeType"])
        ]
        return rows[:limit] if "startTime" in params else rows[-limit:]

    def get_forced(self, params: Params) -> list[Json]:
        """GET /fapi/v1/forceOrders: liquidations and deleveragings of the account, oldest first."""
        limit = limit_of(params, 50, 100)
        wanted = params.get("autoCloseType", "")
        forced = (Kind.LIQUIDATION, Kind.ADL)
        kinds = {"": forced, **{kind.name: (kind,) for kind in forced}}
        if wanted not in kinds:
            raise AnswerError(-1130, "Data sent for parameter 'autoCloseType' is not valid.")
        start, end = ts_range(params, self._clock.time_ms(), WEEK_MS)
        units = self._units
        rows = [
            {
                "orderId": fill.order_id,
                "symbol": units.symbol,
                "pair": units.symbol,
                "status": "FILLED",
                "clientOrderId": _forced_id(fill),
                "price": units.price(fill.price),
                "avgPrice": units.price(fill.price),
                "origQty": units.qty(fill.qty),
                "executedQty": units.qty(fill.qty),
                "cumQuote": units.money(fill.price * fill.qty),
                "cumBase": units.qty(fill.qty),
                "timeInForce": "IOC",
                "type": "LIMIT",
                "reduceOnly": False,
                "closePosition": False,
                "side": SIDES[fill.side],
                "positionSide": "BOTH",
                "stopPrice": "0",
                "workingType": "CONTRACT_PRICE",
                "origType": "LIMIT",
                "time": fill.ts_ms,
                "updateTime": fill.ts_ms,
            }
            for fill in self._venue.executions
            if fill.kind in kinds[wanted] and start <= fill.ts_ms <= end
        ]
        return rows[-limit:]

    def most_notional(self) -> str:
        """Return the largest notional at the present leverage."""
        cap = self._venue.listing.market.notional_cap(self._venue.leverage)
        return f"{cap:.0f}" if math.isfinite(cap) else "1000000000"

    def _fill_row(self, fill: Execution) -> Json:
        units, quote = self._units, self._units.quote
        return {
            "buyer": fill.side > 0,
            "commission": units.money(-fill.fee),
            "commissionAsset": quote,
            "id": fill.trade_id,
            "maker": fill.maker,
            "orderId": fill.order_id,
            "price": units.price(fill.price),
            "qty": units.qty(fill.qty),
            "quoteQty": units.money(fill.price * fill.qty),
            "baseQty": units.qty(fill.qty),
            "marginAsset": quote,
            "realizedPnl": units.money(fill.pnl),
            "side": SIDES[fill.side],
            "positionSide": "BOTH",
            "symbol": units.symbol,
            "pair": units.symbol,
            "time": fill.ts_ms,
        }

    def _shows(self) -> bool:
        return self._venue.size != 0.0 or any(True for _ in self._venue.open_orders())

    def _cross_wallet(self) -> float:
        venue = self._venue
        return venue.wallet if venue.cross_mode else venue.wallet - venue.position_margin

    def _position(self) -> Json:
        venue, units, money = self._venue, self._units, self._units.money
        notional = venue.size * venue.mark_price
        isolated = 0.0 if venue.cross_mode else venue.position_margin
        bids, asks = self._open_notional()
        return {
            "symbol": units.symbol,
            "positionSide": "BOTH",
            "positionAmt": units.qty(venue.size),
            "entryPrice": f"{venue.entry_price:.12g}" if venue.size else "0.0",
            "breakEvenPrice": f"{venue.entry_price:.12g}" if venue.size else "0.0",
            "markPrice": f"{venue.mark_price:.8f}",
            "unRealizedProfit": money(venue.open_pnl),
            "liquidationPrice": f"{venue.liq_price:.8f}" if venue.liq_price else "0",
            "isolatedMargin": money(isolated + (0.0 if venue.cross_mode else venue.open_pnl)),
            "notional": money(notional),
            "marginAsset": units.quote,
            "isolatedWallet": money(isolated),
            "initialMargin": money(venue.position_margin + venue.order_margin),
            "maintMargin": money(venue.maintenance_margin),
            "positionInitialMargin": money(venue.position_margin),
            "openOrderInitialMargin": money(venue.order_margin),
            "adl": 2 if venue.size else 0,
            "bidNotional": bids,
            "askNotional": asks,
            "updateTime": self._updated_ms,
        }

    def _open_notional(self) -> tuple[str, str]:
        """Return what the open buys and the open sells are worth."""
        sides = {1: 0.0, -1: 0.0}
        for order in self._venue.open_orders():
            sides[order.side] += order.left * order.price
        return self._units.money(sides[1]), self._units.money(sides[-1])

    # --- what happens ---

    def on_order(self, order: SimOrder, what: str) -> None:
        """Tell what became of an order; with its fill, when that is what."""
        fill = self._last if what == "trade" else None
        if fill is not None:
            self._tell(self._hint(order, fill))
        self._tell(self._order_event(order, _ENDS[what], fill))

    def on_execution(self, order: SimOrder | None, fill: Execution) -> None:
        """Book a fill as income; those of no order of ours are told here."""
        self._last = fill
        self._realized += fill.pnl
        self._add_income("REALIZED_PNL", fill.pnl, fill.ts_ms, str(fill.trade_id))
        self._add_income("COMMISSION", fill.fee, fill.ts_ms, str(fill.trade_id))
        if order is None:
            self._tell(self._forced_event(fill, Status.NEW))
            self._tell(self._forced_event(fill, Status.FILLED))

    def on_funding(self, amount: float, ts_ms: int) -> None:
        """Book a funding that was paid or received."""
        if self._venue.size:
            self._add_income("FUNDING_FEE", amount, ts_ms, "")

    def on_account(self, why: str) -> None:
        """Tell the wallet and, unless it is funding of a cross position, the position."""
        venue, units = self._venue, self._units
        reasons = {"funding": "FUNDING_FEE", "deposit": "DEPOSIT"}
        reason = reasons.get(why, "ORDER")
        self._updated_ms = now = self._clock.time_ms()
        change, self._wallet = venue.wallet - self._wallet, venue.wallet
        if why == "deposit":
            self._add_income("TRANSFER", change, now, "")
        account: Json = {
            "m": reason,
            "B": [
                {
                    "a": units.quote,
                    "wb": units.money(venue.wallet),
                    "cw": units.money(self._cross_wallet()),
                    # Without what was traded: neither pnl nor commission.
                    "bc": "0" if reason == "ORDER" else units.money(change),
                }
            ],
            "P": [],
        }
        if reason == "FUNDING_FEE":
            account["S"] = units.symbol
        if reason == "ORDER" or (reason == "FUNDING_FEE" and not venue.cross_mode):
            row = self._position()
            account["P"] = [
                {
                    "s": units.symbol,
                    "pa": row["positionAmt"],
                    "ep": row["entryPrice"],
                    "bep": row["breakEvenPrice"],
                    "cr": units.money(self._realized),
                    "up": row["unRealizedProfit"],
                    "mt": "cross" if venue.cross_mode else "isolated",
                    "iw": row["isolatedWallet"],
                    "ps": "BOTH",
                }
            ]
        self._tell({"e": "ACCOUNT_UPDATE", "E": now, "T": now, "a": account})

    def on_terms(self, what: str) -> None:
        """Tell a new leverage."""
        if what == "leverage":
            now = self._clock.time_ms()
            settings = {"s": self._units.symbol, "l": int(self._venue.leverage)}
            self._tell({"e": "ACCOUNT_CONFIG_UPDATE", "E": now, "T": now, "ac": settings})

    def housekeeping(self) -> None:
        """Call for margin when a position comes near its liquidation; once each time it does."""
        venue = self._venue
        near = venue.maintenance_margin >= _CALL_RATIO * venue.equity and venue.size != 0.0
        if near and not self._called:
            row = self._position()
            position = {
                "s": row["symbol"],
                "ps": "BOTH",
                "pa": row["positionAmt"],
                "mt": "CROSSED" if venue.cross_mode else "ISOLATED",
                "iw": row["isolatedWallet"],
                "mp": row["markPrice"],
                "up": row["unRealizedProfit"],
                "mm": row["maintMargin"],
            }
            cross = self._units.money(self._cross_wallet())
            now = self._clock.time_ms()
            self._tell({"e": "MARGIN_CALL", "E": now, "cw": cross, "p": [position]})
        self._called = near

    def _add_income(self, kind: str, amount: float, ts_ms: int, trade_id: str) -> None:
        if amount == 0.0 and kind != "FUNDING_FEE":
            return
        self._income.append(
            {
                "symbol": self._units.symbol,
                "incomeType": kind,
                "income": self._units.money(amount),
                "asset": self._units.quote,
                "info": kind,
                "time": ts_ms,
                "tranId": 9_000_000_000 + len(self._income),
                "tradeId": trade_id,
            }
        )

    def _hint(self, order: SimOrder, fill: Execution) -> Json:
        """Return TRADE_LITE: a fill told early, and again by ORDER_TRADE_UPDATE."""
        units = self._units
        return {
            "e": "TRADE_LITE",
            "E": self._clock.time_ms(),
            "T": fill.ts_ms,
            "s": units.symbol,
            "q": units.qty(order.qty),
            "p": units.price(order.price) if order.price else "0",
            "m": fill.maker,
            "c": order.client_id,
            "S": SIDES[order.side],
            "L": units.price(fill.price),
            "l": units.qty(fill.qty),
            "t": fill.trade_id,
            "i": order.order_id,
        }

    def _order_event(self, order: SimOrder, execution: str, fill: Execution | None) -> Json:
        units = self._units
        limit = order.type is OrderType.LIMIT
        bids, asks = self._open_notional()
        row: Json = {
            "s": units.symbol,
            "c": order.client_id,
            "S": SIDES[order.side],
            "o": order.type.value,
            "f": TIF_WORDS[order.tif] if limit else "GTC",
            "q": units.qty(order.qty),
            "p": units.price(order.price) if limit else "0",
            "ap": units.average(order) if order.filled else "0",
            "sp": "0",
            "x": execution,
            "X": order.status.value,
            "i": order.order_id,
            "l": units.qty(fill.qty) if fill else "0",
            "z": units.qty(order.filled),
            "L": units.price(fill.price) if fill else "0",
            "T": order.updated_ms,
            "t": fill.trade_id if fill else 0,
            "b": bids,
            "a": asks,
            "m": bool(fill and fill.maker),
            "R": order.reduce_only,
            "wt": "CONTRACT_PRICE",
            "ot": order.type.value,
            "ps": "BOTH",
            "cp": False,
            "pP": False,
            "si": 0,
            "ss": 0,
            "rp": units.money(fill.pnl) if fill else "0",
            "V": order.extra.get("stp", "NONE"),
            "pm": "NONE",
            "gtd": 0,
            "er": _EXPIRY.get(order.reason, "0") if execution == "EXPIRED" else "0",
        }
        if fill:
            row |= {"N": units.quote, "n": units.money(-fill.fee)}
        if execution == "AMENDMENT" and "modify_id" in order.extra:
            row["M"] = int(order.extra["modify_id"])
        return {
            "e": "ORDER_TRADE_UPDATE",
            "E": self._clock.time_ms(),
            "T": order.updated_ms,
            "o": row,
        }

    def _forced_event(self, fill: Execution, status: Status) -> Json:
        """Return an order of the venue's own: first new, then calculated."""
        done = status is Status.FILLED
        order = SimOrder(
            order_id=fill.order_id,
            client_id=_forced_id(fill),
            side=fill.side,
            type=OrderType.LIMIT,
            tif=TimeInForce.IOC,
            price=fill.price,
            qty=fill.qty,
            reduce_only=True,
            created_ms=fill.ts_ms,
            updated_ms=fill.ts_ms,
            status=status,
            filled=fill.qty if done else 0.0,
            cost=fill.price * fill.qty if done else 0.0,
        )
        return self._order_event(order, "CALCULATED" if done else "NEW", fill if done else None)


def _forced_id(fill: Execution) -> str:
    """Return the client id by which the venue marks an order of its own."""
    return f"adl_autoclose-{fill.ts_ms}" if fill.kind is Kind.ADL else f"autoclose-{fill.ts_ms}"
