"""What the live engine costs beside client and wire: no venue, no loop, a journal on disk.

The same bot as in `bench_live.py`, on a client that only notes what it is to send. Between shots
everything is answered at once, so each finds the bot as the one before it did.

    pytest benchmarks/bench_engine.py --benchmark-only -s
"""

from __future__ import annotations

import asyncio
import itertools
import time
from asyncio import Future
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_latency import quantile
from benchmarks.bench_live import QUICK, config_for
from benchmarks.live_venue import ACCOUNTS, PRICE, STOP_DISTANCE
from passivx.clock import WallClock
from passivx.exchanges.base import (
    Account,
    Fill,
    NewOrder,
    Order,
    OrderStatus,
    Outcome,
    PublicTrade,
    Rules,
    Verdict,
)
from passivx.live.core import Core, Opening
from passivx.live.engine import Engine
from passivx.live.journal import Journal
from passivx.models import Position, load_market
from passivx.workspace import find_market

SHOTS = 20 if QUICK else 2000
COMMITS = 100 if QUICK else 4000


class Still(WallClock):
    """The machine's time, but nothing is called later: whoever drives does that."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Any:
        return self

    def cancel(self) -> None: ...


class Noting:
    """A client that sends nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.placed: list[NewOrder] = []
        self.cancelled: list[Order] = []
        self.placed_ns = 0
        self.never: Future[Outcome] = loop.create_future()

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        self.placed_ns = time.perf_counter_ns()
        self.placed += orders
        return [self.never] * len(orders)

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        self.cancelled += orders
        return [self.never] * len(orders)


class Bot:
    """An engine that holds a position under closes, and what answers it."""

    def __init__(self, folder: Path) -> None:
        path = find_market("binance", "BTCUSDT", Path())
        assert path is not None
        config = config_for("BTCUSDT")
        wallet, size = ACCOUNTS["binance"]
        self.loop = asyncio.new_event_loop()
        self.clock = Still()
        self.journal = Journal(folder / "journal.db")
        self.client = Noting(self.loop)
        exchange: Any = self.client
        self.engine = Engine(
            config=config,
            exchange=exchange,
            journal=self.journal,
            clock=self.clock,
            instance="bench",
        )
        rules = Rules(
            market=load_market(path),
            trading=True,
            min_price=0.1,
            max_price=1e6,
            max_qty=1000.0,
            max_market_qty=120.0,
            max_orders=200,
            band_up=1.05,
            band_down=0.95,
            funding_interval_ms=8 * 3_600_000,
            reduce_only_summed=True,
        )
        now = self.engine._now()
        account = Account(
            wallet=wallet,
            available=wallet,
            position=Position(size, PRICE, 0.0),
            leverage=config.leverage,
            cross_mode=True,
            one_way=True,
            can_trade=True,
            ts_ms=now.ms,
        )
        self.calm, self.beyond = PRICE * (1.0 - 0.95 * STOP_DISTANCE), PRICE * (1.0 - STOP_DISTANCE)
        self.ids = itertools.count(2)
        self.engine.core = self.core = Core(
            Opening(
                config=config,
                rules=rules,
                account=account,
                orders=[],
                intents={},
                filled={},
                seen=(),
                trades=[
                    PublicTrade(
                        trade_id="1", price=self.calm, qty=1.0, ts_ms=now.ms, buyer_maker=False
                    )
                ],
                close_base=None,
                instance="bench",
                settle="USDT",
            ),
            now,
        )
        self.engine._end_moment()
        self.settle()

    def trade(self, price: float) -> None:
        self.engine.on_trade(str(next(self.ids)), price, 1.0, self.clock.time_ms(), False)

    def settle(self) -> None:
        """Answer all there is to answer, until nothing more is sent; then a requote."""
        client, engine = self.client, self.engine
        self.trade(self.calm)
        while client.placed or client.cancelled or self.core.wants_moment:
            cancelled, placed = client.cancelled, client.placed
            client.cancelled, client.placed = [], []
            now_ms = self.clock.time_ms()
            for old in cancelled:
                self.answer(replace(old, status=OrderStatus.CANCELED, ts_ms=now_ms), cancel=True)
            for new in placed:
                number = str(next(self.ids))
                if new.at_market:
                    engine.on_fill(
                        Fill(
                            trade_id=f"f{number}",
                            order_id=number,
                            client_id=new.client_id,
                            side=new.side,
                            price=self.beyond,
                            qty=new.qty,
                            fee=-0.0005 * new.qty * self.beyond,
                            fee_currency="USDT",
                            pnl=0.0,
                            maker=False,
                            ts_ms=now_ms,
                        )
                    )
                else:
                    told = Order(
                        client_id=new.client_id,
                        order_id=number,
                        side=new.side,
                        price=new.price,
                        qty=new.qty,
                        filled_qty=0.0,
                        reduce_only=new.reduce_only,
                        status=OrderStatus.NEW,
                        ts_ms=now_ms,
                    )
                    self.answer(told, cancel=False)
            self.engine._end_moment()
        engine._requote()
        assert not client.placed

    def answer(self, order: Order, *, cancel: bool) -> None:
        """Tell of an order as a venue does: on the stream, and as the answer to its message."""
        self.engine.on_order(order)
        answer: Future[Outcome] = self.loop.create_future()
        answer.set_result(Outcome(Verdict.OK, order=order))
        self.engine._answered(order.client_id, cancel, answer)


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    bot = Bot(tmp_path)
    yield bot
    bot.journal.close()
    bot.loop.close()


def told(benchmark: Any, name: str, values: list[int]) -> None:
    """Print and keep quantiles."""
    row = {f"p{round(q * 100)}_us": quantile(values, q) / 1e3 for q in (0.5, 0.9, 0.99)}
    benchmark.extra_info[name] = row
    print(f"\n{name}: ", "  ".join(f"{key} {value:.2f}" for key, value in row.items()))


def test_a_trade(benchmark: Any, bot: Bot) -> None:
    """What a trade costs that nothing follows from."""
    benchmark.pedantic(bot.trade, args=(bot.calm,), rounds=100, iterations=1000, warmup_rounds=5)
    assert not bot.client.placed


def test_a_moment(benchmark: Any, bot: Bot) -> None:
    """What a moment costs in which there is nothing to do."""
    benchmark.pedantic(bot.engine._end_moment, rounds=100, iterations=1000, warmup_rounds=5)
    assert not bot.client.placed


def test_a_stop(benchmark: Any, bot: Bot) -> None:
    """Print what lies between a moment's begin and the stop's hand-over to the client."""
    values = []
    for _ in range(SHOTS):
        bot.trade(bot.beyond)
        start = time.perf_counter_ns()
        bot.engine._end_moment()
        values.append(bot.client.placed_ns - start)
        assert [order.at_market for order in bot.client.placed] == [True]
        bot.settle()
    told(benchmark, "plan, checks, journal", values[SHOTS // 10 :])
    benchmark.pedantic(lambda: None, rounds=1)


@pytest.mark.parametrize("n_rows", [1, 4])
def test_a_commit(benchmark: Any, bot: Bot, n_rows: int) -> None:
    """Print what it costs to write down what is to be sent."""
    body = {
        "side": -1,
        "price": 58_799.9,
        "qty": 0.003,
        "reduce_only": True,
        "at_market": True,
        "kind": "stop_loss_pos_price_diff",
        "ideal_price": 58_800.1,
        "ideal_qty": 0.003,
    }
    values = []
    for i in range(COMMITS):
        rows = [(1_700_000_000_000, "intent", f"pvx-p-bench-{i}-{k}", body) for k in range(n_rows)]
        start = time.perf_counter_ns()
        bot.journal.write(rows)
        values.append(time.perf_counter_ns() - start)
    told(benchmark, f"commit of {n_rows}", values[COMMITS // 10 :])
    benchmark.pedantic(lambda: None, rounds=1)
