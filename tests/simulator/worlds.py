"""Markets, venues and somebody who listens, for the tests of the simulator's own truth.

Unless a test says otherwise: whole prices and quantities, linear, wallet 10,000, leverage 10, maker
fee 0.1 %, taker fee 0.2 %, first price 100 (bid 99, ask 101), no funding in sight.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from passivx.clock import VirtualClock
from passivx.data.ticks import Ticks
from passivx.models import Market
from passivx.simulator.feed import Feed
from passivx.simulator.ledger import Ledger
from passivx.simulator.venue import (
    Execution,
    Listing,
    OrderType,
    Policy,
    SimOrder,
    SimVenue,
    TimeInForce,
)

BINANCE = Policy(
    post_only_cancels=False,
    reduce_only_trims=False,
    ids_unique_for_ever=False,
    band_moves=False,
    low_amend_cancels=True,
)
BYBIT = Policy(
    post_only_cancels=True, reduce_only_trims=True, ids_unique_for_ever=True, band_moves=True
)
START_MS = 1_700_000_000_000
MARKET = Market(
    price_step=1.0,
    qty_step=1.0,
    min_qty=1.0,
    min_cost=0.0,
    maker_fee=0.001,
    taker_fee=0.002,
    max_leverage=100.0,
    inverse=False,
)
LISTING = Listing(
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    market=MARKET,
    min_price=1.0,
    max_price=1000.0,
    max_qty=1e6,
    max_market_qty=1e6,
    band_up=100.0,
    band_down=0.0,
)


def quiet_feed(price: float = 50_000.0) -> Feed:
    """One trade and no more."""
    return Feed(
        "quiet",
        [
            Ticks(
                price=np.array([price]),
                qty=np.array([1.0]),
                ts_ms=np.array([START_MS]),
                buyer_maker=np.zeros(1, np.uint8),
            )
        ],
    )


@dataclass
class Listener:
    """Writes down what it hears, as text to compare and as what it was given."""

    venue: SimVenue
    heard: list[str] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)  # after each execution

    def on_print(self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts: int) -> None:
        self.heard.append(f"print {trade_id} {price:g}")

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        self.heard.append(f"quote {bid:g} {ask:g}")

    def on_order(self, order: SimOrder, what: str) -> None:
        self.heard.append(f"{what} {order.client_id} {order.status} {order.left:g}")

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        self.executions.append(execution)
        self.sizes.append(self.venue.size)
        who = order.client_id if order else execution.kind
        self.heard.append(f"fill {who} {execution.qty:g} @ {execution.price:g}")

    def on_account(self, why: str) -> None:
        self.heard.append(f"account {why} {self.venue.size:g}")

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        self.heard.append(f"funding {rate:g} {amount:g}")

    def on_terms(self, what: str) -> None:
        self.heard.append(f"terms {what}")


@dataclass
class World:
    venue: SimVenue
    ledger: Ledger
    clock: VirtualClock
    listener: Listener
    prints: int = 0

    def order(
        self, name: str, side: int, qty: float, price: float = 0.0, **changes: Any
    ) -> SimOrder:
        """Post-only at a price; at market without one."""
        asked: dict[str, Any] = {
            "client_id": name,
            "side": side,
            "type": OrderType.LIMIT if price else OrderType.MARKET,
            "tif": TimeInForce.POST_ONLY if price else TimeInForce.IOC,
            "price": price,
            "qty": qty,
            "reduce_only": False,
        }
        return self.venue.place(**(asked | changes))

    def sold_at(self, price: float, **options: Any) -> None:
        self._print(price, True, **options)

    def bought_at(self, price: float, **options: Any) -> None:
        self._print(price, False, **options)

    def _print(
        self, price: float, buyer_maker: bool, *, qty: float = 1.0, ts: int = START_MS
    ) -> None:
        self.prints += 1
        self.venue.print(self.prints, price, qty, buyer_maker, ts)

    def heard(self) -> list[str]:
        """What was heard since the last time."""
        out = self.listener.heard[:]
        self.listener.heard.clear()
        return out


def world(
    policy: Policy = BINANCE,
    *,
    listing: dict[str, Any] | None = None,
    market: dict[str, Any] | None = None,
    **options: Any,
) -> World:
    clock = VirtualClock(START_MS)
    ledger = Ledger(clock)
    rules = replace(LISTING, **({"market": replace(MARKET, **(market or {}))} | (listing or {})))
    given: dict[str, Any] = {"price": 100.0, "wallet": 10_000.0, "leverage": 10.0}
    venue = SimVenue(rules, policy, clock=clock, ledger=ledger, **(given | options))
    listener = Listener(venue)
    venue.observe(listener)
    return World(venue, ledger, clock, listener)
