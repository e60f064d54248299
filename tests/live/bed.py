"""A core on its own: events by hand, time by hand, and what it wants done as a list.

The market of all cases is that of `tests.core.test_flow`: whole units, linear, no fees but those
told, a wallet of 100,000, leverage 1, long only, one re-entry, one close. A first entry is
floor(100,000 / 1000 × 0.1) = 10 at 1000. From long 10 at 1000 there follow a re-entry, 10 at
1000 × 0.95 on a grid of 13: 949, and a close, 10 at ceil(1000 × 1.0015) = 1002.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from passivx.config import Config, load_config
from passivx.exchanges.base import (
    Account,
    Fill,
    FillKind,
    MarkPrice,
    NewOrder,
    Order,
    OrderStatus,
    Outcome,
    PublicTrade,
    Reaction,
    Rules,
    Verdict,
)
from passivx.live import events as ev
from passivx.live.core import Core, Opening
from passivx.live.events import Event, Intent, Now
from passivx.models import Market, Position

T = TypeVar("T")

START_MS = 1_700_000_000_000
MARKET: dict[str, Any] = {
    "price_step": 1.0, "qty_step": 1.0, "min_qty": 1.0, "min_cost": 0.0, "maker_fee": 0.0,
    "taker_fee": 0.0, "max_leverage": 100.0, "inverse": False,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "config_name": "bed", "symbol": "BTCUSDT", "cross_mode": True, "balance_pct": 1.0,
    "leverage": 1, "entry_qty_pct": 0.1, "ddown_factor": 1.0, "grid_spacing": 0.05,
    "grid_coefficient": 0.0, "n_entry_orders": 1, "min_markup": 0.0015, "max_markup": 0.0015,
    "n_close_orders": 1, "min_close_qty_multiplier": 0.0,
    "indicator_settings": {"tick_ema": {"span": 1, "spread": 0.0}, "do_long": True,
                           "do_shrt": False},
    "stop_loss_liq_diff": 0.0, "stop_loss_pos_price_diff": 1e9, "stop_loss_pos_reduction": 0.0,
    "market_stop_loss": False, "max_order_distance": 1.0, "book": "trades",
}  # fmt: skip
RULES: dict[str, Any] = {
    "trading": True, "min_price": 1.0, "max_price": 1e6, "max_qty": 1e6, "max_market_qty": 1e6,
    "max_orders": 200, "band_up": None, "band_down": None, "funding_interval_ms": 28_800_000,
}  # fmt: skip
ENTRY, AGAIN, CLOSE = (1, 1000.0, 10.0), (1, 949.0, 10.0), (-1, 1002.0, 10.0)
NEW, PART, FILLED, CANCELED = (
    OrderStatus.NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.FILLED,
    OrderStatus.CANCELED,
)


def config_of(**changes: Any) -> Config:
    return load_config(CONFIG | changes)


def rules_of(*, market: Mapping[str, Any] | None = None, **changes: Any) -> Rules:
    return Rules(market=Market(**MARKET | dict(market or {})), **RULES | changes)


def seed(price: float = 1000.0) -> list[PublicTrade]:
    """Two trades that leave a book of ``price`` and one step more."""
    return [
        PublicTrade(trade_id=str(n), price=p, qty=1.0, ts_ms=START_MS, buyer_maker=maker)
        for n, p, maker in ((1, price + 1.0, False), (2, price, True))
    ]


class Bed:
    """A core, its clock, and all it has asked for since it was last looked at."""

    def __init__(
        self,
        *,
        config: Config | None = None,
        rules: Rules | None = None,
        size: float = 0.0,
        entry_price: float = 1000.0,
        orders: Sequence[Order] = (),
        intents: Mapping[str, tuple[int, dict[str, Any]]] | None = None,
        filled: Mapping[str, float] | None = None,
        seen: Sequence[str] = (),
        close_base: float | None = None,
        price: float = 1000.0,
    ) -> None:
        self.now = Now(1000.0, START_MS)
        self.wallet = 100_000.0
        self.rules = rules or rules_of()
        self.intents: list[Intent] = []
        self.n_trades, self.n_fills = 2, 0
        self.core = Core(
            Opening(
                config=config or config_of(),
                rules=self.rules,
                account=self.account(size, entry_price),
                orders=list(orders),
                intents=intents or {},
                filled=filled or {},
                seen=list(seen),
                trades=seed(price),
                close_base=close_base,
                instance="run",
                settle="USDT",
            ),
            self.now,
        )
        self.moment()

    # --- what happens ---

    def tell(self, event: Event) -> None:
        """Have the core hear it, and end the moment if it asks for that."""
        self.intents += self.core.step(event, self.now)
        self.moment()

    def moment(self) -> None:
        while self.core.wants_moment:
            self.intents += self.core.step(ev.Moment(), self.now)

    def wait(self, seconds: float, *, fresh: bool = True) -> None:
        """Let time pass a second at most at a time, with a tick at each; ``fresh``: and a mark."""
        end_s = self.now.s + seconds
        while self.now.s < end_s - 1e-9:
            passed_s = min(1.0, end_s - self.now.s)
            self.jump(passed_s)
            if fresh:
                self.mark()
            self.tell(ev.Tick())

    def jump(self, seconds: float, wall_s: float | None = None) -> None:
        """Let time pass without anybody hearing of it; the wall clock may differ."""
        wall_ms = round((seconds if wall_s is None else wall_s) * 1000)
        self.now = Now(round(self.now.s + seconds, 6), self.now.ms + wall_ms)

    def mark(self) -> None:
        self.tell(ev.MarkSeen(MarkPrice(
            mark_price=1000.0, funding_rate=math.nan, next_funding_ms=0, ts_ms=self.now.ms
        )))  # fmt: skip

    def trade(self, price: float, *, buyer_maker: bool = True) -> None:
        self.n_trades += 1
        self.core.trade(str(self.n_trades), price, 1.0, self.now.ms, buyer_maker, self.now)
        self.moment()

    def requote(self) -> None:
        self.tell(ev.Requote())

    def answer(self, client_id: str, verdict: str, reaction: str = "none", **more: Any) -> None:
        """Answer a place; ``order`` is what the venue said of it."""
        self._answer(client_id, False, verdict, reaction, more)

    def answer_cancel(
        self, client_id: str, verdict: str, reaction: str = "none", **more: Any
    ) -> None:
        self._answer(client_id, True, verdict, reaction, more)

    def _answer(
        self, client_id: str, cancel: bool, verdict: str, reaction: str, more: dict[str, Any]
    ) -> None:
        outcome = Outcome(Verdict(verdict), Reaction(reaction), **more)
        self.tell(ev.Answered(client_id, cancel, outcome))

    def opens(self, order: NewOrder) -> str:
        """The venue has it; return its client id."""
        self.answer(order.client_id, "ok")
        self.tell(ev.OrderSeen(self.order(order)))
        return order.client_id

    def fills(self, order: NewOrder, qty: float | None = None, **changes: Any) -> Fill:
        fill = self.fill(order, qty, **changes)
        self.tell(ev.FillSeen(fill))
        return fill

    def snapshot(
        self, size: float, *, entry_price: float = 1000.0, orders: Sequence[Order] = (),
        wallet: float | None = None, fills: Sequence[Fill] = (), payments: Sequence[Any] = (),
        **account: Any,
    ) -> None:  # fmt: skip
        """Answer the last `Reconcile`: what was read is of this very moment."""
        told = self.account(size, entry_price, wallet=wallet, **account)
        self.tell(ev.Snapshot(self.core._epoch, told, orders, fills, payments))

    # --- values ---

    def account(
        self, size: float, entry_price: float = 1000.0, *, wallet: float | None = None,
        liq_price: float = 0.0, **changes: Any,
    ) -> Account:  # fmt: skip
        told = self.wallet if wallet is None else wallet
        values: dict[str, Any] = {
            "wallet": told, "available": told, "leverage": 1.0, "cross_mode": True,
            "one_way": True, "can_trade": True, "ts_ms": self.now.ms,
            "position": Position(size, entry_price if size else 0.0, liq_price),
        }  # fmt: skip
        return Account(**values | changes)

    def order(
        self, order: NewOrder, status: OrderStatus = NEW, filled: float = 0.0, **changes: Any
    ) -> Order:
        values: dict[str, Any] = {
            "client_id": order.client_id, "order_id": f"v{order.client_id}", "side": order.side,
            "price": order.price, "qty": order.qty, "filled_qty": filled,
            "reduce_only": order.reduce_only, "status": status, "ts_ms": self.now.ms,
        }  # fmt: skip
        return Order(**values | changes)

    def fill(self, order: NewOrder, qty: float | None = None, **changes: Any) -> Fill:
        self.n_fills += 1
        values: dict[str, Any] = {
            "trade_id": f"t{self.n_fills}", "order_id": f"v{order.client_id}",
            "client_id": order.client_id, "side": order.side, "price": order.price,
            "qty": order.qty if qty is None else qty, "fee": 0.0, "fee_currency": "USDT",
            "pnl": 0.0, "maker": not order.at_market, "ts_ms": self.now.ms,
            "kind": FillKind.TRADE,
        }  # fmt: skip
        return Fill(**values | changes)

    # --- what it wants ---

    def take(self, kind: type[T]) -> list[T]:
        """Return what it has asked for of that kind, and forget it."""
        found = [each for each in self.intents if isinstance(each, kind)]
        self.intents = [each for each in self.intents if not isinstance(each, kind)]
        return found

    def placed(self) -> list[NewOrder]:
        return [order for intent in self.take(ev.Place) for order in intent.orders]

    def cancelled(self) -> list[Order]:
        return [order for intent in self.take(ev.Cancel) for order in intent.orders]

    def looked_up(self) -> list[str]:
        return [each.client_id for each in self.take(ev.LookUp)]

    def records(self, kind: str) -> list[ev.Record]:
        return [each for each in self.take(ev.Record) if each.type == kind]

    @property
    def size(self) -> float:
        return self.core.bot.account[2]

    @property
    def live(self) -> list[tuple[float, float]]:
        """(price, quantity) of each order that counts as live in the flow."""
        return [(price, qty) for _, _, price, qty, _ in self.core.bot.live]


def words(orders: Sequence[NewOrder | Order]) -> list[tuple[int, float, float]]:
    return [(each.side, each.price, each.qty) for each in orders]


def long_ten(**options: Any) -> tuple[Bed, NewOrder, NewOrder]:
    """Long 10 at 1000, with re-entry and close resting."""
    bed = Bed(size=10.0, **options)
    again, close = sorted(bed.placed(), key=lambda each: -each.side)
    for order in (again, close):
        bed.opens(order)
    bed.intents.clear()
    return bed, again, close
