"""The paper account on a scripted market, by hand and beside `PaperVenue`; then beside a simulator.

Unless a test says otherwise: prices and quantities in whole units, wallet 10,000, leverage 10,
cross, maker fee 0.1 %, taker fee 0.2 %, maintenance 0.4 %, latency 100 ms, first price 100 (bid 99,
ask 101).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import math
import re
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passivx._core.matching import FillMode, PaperVenue
from passivx.clock import VirtualClock
from passivx.errors import VenueError
from passivx.exchanges.base import (
    Exchange,
    Fill,
    FillKind,
    Link,
    MarkPrice,
    NewOrder,
    Order,
    OrderStatus,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Sink,
    Verdict,
)
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.stream import StreamState
from passivx.exchanges.venues import open_exchange
from passivx.live.paper import PaperExchange
from passivx.models import Market, Position, Tier, load_market
from tests.exchanges.conformance.conftest import Recorder as MarketRecorder
from tests.exchanges.conformance.conftest import Venue, order_at, until
from tests.exchanges.sink import Recorder
from tests.simulator.process import serving

NOW_MS = 1_700_000_000_000
SOLD, BOUGHT = True, False  # what the taker did: buyer_maker or not
LINEAR = Market(
    price_step=1.0,
    qty_step=1.0,
    min_qty=1.0,
    min_cost=0.0,
    maker_fee=0.001,
    taker_fee=0.002,
    max_leverage=100.0,
    inverse=False,
    tiers=(Tier(floor=0.0, maintenance_rate=0.004, max_leverage=100.0),),
)
INVERSE = dataclasses.replace(LINEAR, inverse=True)
RULES = Rules(
    market=LINEAR,
    trading=True,
    min_price=1.0,
    max_price=1000.0,
    max_qty=1e6,
    max_market_qty=1e6,
    max_orders=20,
    band_up=None,
    band_down=None,
    funding_interval_ms=8 * 3_600_000,
)


class Tape:
    """A market that tells what it is told to; whoever asks it for an account is wrong."""

    name, symbol = "binance", "BTCUSDT"

    def __init__(self, rules: Rules = RULES, *, traded: bool = True) -> None:
        self.told = rules
        self.closed = False
        self._traded = traded
        self._n = 0
        self.sink: Sink

    async def rules(self) -> Rules:
        return self.told

    async def mark(self) -> MarkPrice:
        return mark(NOW_MS, price=100.0)

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        trade = PublicTrade(trade_id="0", price=100.0, qty=1.0, ts_ms=NOW_MS, buyer_maker=True)
        return [trade][:limit] if self._traded else []

    async def listen(self, sink: Sink) -> None:
        self.sink = sink
        for link in (Link.BOOK, Link.TRADES):
            sink.on_link(link, StreamState.LIVE, "")

    async def close(self) -> None:
        self.closed = True

    def print(self, price: float, did: bool, qty: float = 1.0) -> None:
        self._n += 1
        self.sink.on_trade(str(self._n), price, qty, NOW_MS, did)


def mark(ts_ms, *, rate=0.0001, due_ms=NOW_MS + 1000, price=100.0):
    return MarkPrice(mark_price=price, funding_rate=rate, next_funding_ms=due_ms, ts_ms=ts_ms)


def order(side, price, qty, client_id="a", **changes):
    return NewOrder(client_id=client_id, side=side, price=price, qty=qty, **changes)


class Desk:
    """A paper account, the tape below it and what was heard of both."""

    def __init__(self, paper: PaperExchange, tape: Tape, clock: VirtualClock) -> None:
        self.paper, self.tape, self.clock = paper, tape, clock
        self.heard = Recorder()

    async def send(self, *orders):
        """Place orders, let them arrive, and return their outcomes."""
        futures = self.paper.place(orders)
        await self.clock.run(100)
        return [future.result() for future in futures]

    async def hold(self, size):
        """Come to a position of ``size`` near 100: bought at 99, or sold at 101."""
        side = 1 if size > 0 else -1
        await self.send(order(side, 100.0 - side, abs(size), "hold"))
        self.tape.print(100.0 - 2 * side, side > 0)
        self.heard.events.clear()


@contextlib.asynccontextmanager
async def trading(rules=RULES, *, wallet=10_000.0, traded=True, **options):
    clock = VirtualClock(NOW_MS)
    tape = Tape(rules, traded=traded)
    paper = PaperExchange(tape, wallet=wallet, settle="USDT", clock=clock, **options)
    desk = Desk(paper, tape, clock)
    await paper.prepare(leverage=10, cross_mode=True)
    await paper.listen(desk.heard)
    desk.heard.events.clear()
    yield desk
    await paper.close()
    assert tape.closed


@pytest.fixture
def trade():
    """Run a body of a `Desk`."""

    def run(body, *args, **options):
        async def main():
            async with asyncio.timeout(20), trading(*args, **options) as desk:
                return await body(desk)

        return asyncio.run(main())

    return run


# --- fills by hand ---


def test_it_is_an_exchange_and_a_sink():
    paper: Exchange = PaperExchange(Tape(), wallet=1.0, settle="USDT", clock=VirtualClock())
    sink: Sink = PaperExchange(Tape(), wallet=1.0, settle="USDT", clock=VirtualClock())
    assert (paper.name, paper.symbol) == ("binance", "BTCUSDT")
    assert sink is not None


def test_a_linear_position_comes_and_goes(trade):
    async def body(desk):
        (placed,) = await desk.send(order(1, 99.0, 10.0))
        resting = Order(
            client_id="a",
            order_id="1",
            side=1,
            price=99.0,
            qty=10.0,
            filled_qty=0.0,
            reduce_only=False,
            status=OrderStatus.NEW,
            ts_ms=NOW_MS + 100,
        )
        assert (placed.verdict, placed.order) == (Verdict.OK, resting)
        assert desk.heard.events == [("order", resting)]
        assert await desk.paper.open_orders() == [resting]
        desk.heard.events.clear()

        desk.tape.print(99.0, SOLD)  # touched
        desk.tape.print(98.0, BOUGHT)  # the other side's
        assert [event[0] for event in desk.heard.events] == ["trade", "trade"]
        desk.heard.events.clear()

        desk.clock.advance(5)
        desk.tape.print(98.0, SOLD)
        now_ms = NOW_MS + 105
        bought = Fill(
            trade_id=f"paper-{NOW_MS}-1",
            order_id="1",
            client_id="a",
            side=1,
            price=99.0,
            qty=10.0,
            fee=-0.99,  # 10 × 99 × 0.1 %
            fee_currency="USDT",
            pnl=0.0,
            maker=True,
            ts_ms=now_ms,
        )
        filled = dataclasses.replace(
            resting, status=OrderStatus.FILLED, filled_qty=10.0, ts_ms=now_ms
        )
        liq_price = (9_999.01 - 990.0) / (10 * 0.004 - 10)
        assert liq_price < 0  # none: the wallet covers it all
        assert desk.heard.events == [
            ("trade", "3", 98.0, 1.0, NOW_MS, True),
            ("fill", bought),
            ("order", filled),
            ("wallet", 9_999.01, now_ms),
            ("position", Position(10.0, 99.0, 0.0), now_ms),
        ]
        assert await desk.paper.open_orders() == []
        assert await desk.paper.find("a") == filled
        account = await desk.paper.account()
        assert (account.wallet, account.position) == (9_999.01, Position(10.0, 99.0, 0.0))
        # Open pnl 10 × (98 − 99); margin 10 × 98 / 10.
        assert account.available == pytest.approx(9_999.01 - 10 - 98)

        await desk.send(order(-1, 101.0, 4.0, "b", reduce_only=True))
        desk.tape.print(102.0, BOUGHT)
        first, second = await desk.paper.fills(0)
        assert first == bought
        assert (second.side, second.price, second.qty) == (-1, 101.0, 4.0)
        assert second.trade_id == f"paper-{NOW_MS}-2"
        assert (second.fee, second.pnl) == (-0.404, 8.0)
        assert (await desk.paper.fills(now_ms + 1)) == [second]
        account = await desk.paper.account()
        assert account.wallet == 9_999.01 + 8.0 - 0.404
        assert account.position.size == 6.0

    trade(body)


def test_an_inverse_position_comes_and_goes(trade):
    async def body(desk):
        await desk.send(order(-1, 101.0, 1000.0))
        desk.tape.print(102.0, BOUGHT)
        await desk.send(order(1, 80.0, 1000.0, "b"))
        desk.tape.print(79.0, SOLD)
        sold, bought = await desk.paper.fills(0)
        assert sold.fee == pytest.approx(-1000 / 101 * 0.001)
        assert (sold.pnl, sold.fee_currency) == (0.0, "USDT")
        assert bought.pnl == pytest.approx(1000 * (1 / 80 - 1 / 101))
        assert bought.fee == pytest.approx(-1000 / 80 * 0.001)
        account = await desk.paper.account()
        assert account.wallet == pytest.approx(10 + bought.pnl + sold.fee + bought.fee)
        assert account.position == Position()

    trade(body, dataclasses.replace(RULES, market=INVERSE), wallet=10.0)


def test_one_print_fills_all_that_it_goes_through_best_first(trade):
    async def body(desk):
        await desk.send(order(1, 97.0, 1.0, "low"), order(1, 99.0, 1.0, "high"))
        desk.tape.print(96.0, SOLD)
        assert [fill.client_id for fill in await desk.paper.fills(0)] == ["high", "low"]
        names = [event[0] for event in desk.heard.events]
        assert names[-9:] == ["trade", *["fill", "order", "wallet", "position"] * 2]

    trade(body)


def test_parts_of_an_order_by_volume(trade):
    async def body(desk):
        await desk.send(order(1, 99.0, 10.0))
        desk.tape.print(98.0, SOLD, 4.0)
        (left,) = await desk.paper.open_orders()
        assert (left.status, left.filled_qty) == (OrderStatus.PARTIALLY_FILLED, 4.0)
        desk.tape.print(98.0, SOLD, 40.0)
        assert [fill.qty for fill in await desk.paper.fills(0)] == [4.0, 6.0]
        assert (await desk.paper.find("a")).status is OrderStatus.FILLED

    trade(body, fill_mode=FillMode.VOLUME)


def test_a_market_order_pays_the_taker_fee(trade):
    async def body(desk):
        (outcome,) = await desk.send(order(1, 0.0, 10.0, at_market=True))
        assert outcome.order.status is OrderStatus.FILLED
        (fill,) = await desk.paper.fills(0)
        assert (fill.price, fill.fee, fill.maker) == (101.0, -10 * 101 * 0.002, False)
        (outcome,) = await desk.send(order(-1, 0.0, 99.0, "b", at_market=True, reduce_only=True))
        assert (outcome.order.status, outcome.order.filled_qty) == (OrderStatus.FILLED, 10.0)
        assert (await desk.paper.account()).position == Position()

    trade(body)


def test_no_run_uses_the_ids_of_another(trade):
    async def body(desk):
        await desk.hold(1.0)
        later = VirtualClock(NOW_MS + 1)
        again = PaperExchange(desk.tape, wallet=100.0, settle="USDT", clock=later)
        await again.listen(Recorder())
        again.place([order(1, 0.0, 1.0, at_market=True)])
        await later.run(100)
        ((first,), (second,)) = (await desk.paper.fills(0), await again.fills(0))
        assert first.trade_id != second.trade_id

    trade(body)


# --- what travels ---


def test_an_order_that_arrives_after_the_print_is_not_filled_by_it(trade):
    async def body(desk):
        (future,) = desk.paper.place([order(1, 99.0, 1.0)])
        await desk.clock.run(99)
        desk.tape.print(90.0, SOLD)
        assert not future.done()
        await desk.clock.run(1)
        assert future.result().verdict is Verdict.OK
        assert await desk.paper.fills(0) == []
        desk.tape.print(90.0, SOLD)
        assert len(await desk.paper.fills(0)) == 1

    trade(body)


def test_a_cancel_travels_as_long(trade):
    async def body(desk):
        (placed,) = await desk.send(order(1, 99.0, 1.0))
        (future,) = desk.paper.cancel([placed.order])
        desk.tape.print(98.0, SOLD)
        await desk.clock.run(100)
        outcome = future.result()
        assert (outcome.verdict, outcome.reaction) == (Verdict.REJECTED, Reaction.GONE)
        assert len(await desk.paper.fills(0)) == 1

    trade(body)


def test_messages_arrive_in_the_order_they_were_sent(trade):
    async def body(desk):
        desk.paper.place([order(1, 99.0, 1.0)])
        named = Order(
            client_id="a",
            order_id="",
            side=1,
            price=99.0,
            qty=1.0,
            filled_qty=0.0,
            reduce_only=False,
            status=OrderStatus.NEW,
            ts_ms=0,
        )
        (cancelled,) = desk.paper.cancel([named])
        await desk.clock.run(100)
        assert cancelled.result().order.status is OrderStatus.CANCELED
        assert [o.status for (o,) in desk.heard.named("order")] == ["new", "canceled"]
        assert await desk.paper.open_orders() == []

    trade(body)


def test_cancel_all_takes_what_rests_when_it_arrives(trade):
    async def body(desk):
        await desk.send(order(1, 99.0, 1.0))
        desk.paper.place([order(1, 98.0, 1.0, "b")])
        await desk.clock.run(50)
        desk.paper.place([order(1, 97.0, 1.0, "c")])
        sweep = asyncio.ensure_future(desk.paper.cancel_all())
        await desk.clock.run(100)
        assert (await sweep).verdict is Verdict.OK
        assert await desk.paper.open_orders() == []
        assert (await desk.paper.find("c")).status is OrderStatus.CANCELED

    trade(body)


def test_without_latency_it_still_is_no_call_within_a_call(trade):
    async def body(desk):
        (future,) = desk.paper.place([order(1, 99.0, 1.0)])
        assert not future.done()
        await desk.clock.run(0)
        assert future.done()

    trade(body, latency_ms=0.0)


def test_what_is_on_its_way_when_it_closes_is_unknown():
    async def main():
        async with trading() as desk:
            futures = desk.paper.place([order(1, 99.0, 1.0)])
            futures[0].cancel()
            futures += desk.paper.place([order(1, 98.0, 1.0, "b")])
        await desk.clock.run(200)
        assert futures[1].result().verdict is Verdict.UNKNOWN
        assert await desk.paper.open_orders() == []

    asyncio.run(main())


# --- refusals ---


def test_post_only_that_would_take(trade):
    async def body(desk):
        (outcome,) = await desk.send(order(1, 101.0, 1.0))
        assert (outcome.verdict, outcome.reaction) == (Verdict.REJECTED, Reaction.REPRICE)
        assert desk.heard.events == []
        assert await desk.paper.find("a") is None

    trade(body)


def test_reduce_only_without_a_position(trade):
    async def body(desk):
        (outcome,) = await desk.send(order(-1, 101.0, 1.0, reduce_only=True))
        assert (outcome.verdict, outcome.reaction) == (Verdict.REJECTED, Reaction.DROP)

    trade(body)


def test_reduce_only_is_trimmed_and_goes_when_the_position_has_gone(trade):
    async def body(desk):
        await desk.hold(5.0)
        await desk.send(
            order(-1, 102.0, 3.0, "b", reduce_only=True),
            order(-1, 103.0, 9.0, "c", reduce_only=True),
            order(-1, 110.0, 1.0, "d", reduce_only=True),
        )
        desk.heard.events.clear()
        desk.tape.print(105.0, BOUGHT)
        assert [(fill.client_id, fill.qty) for (fill,) in desk.heard.named("fill")] == [
            ("b", 3.0),
            ("c", 2.0),
        ]
        ends = [
            (o.client_id, o.status, o.filled_qty, o.reason) for (o,) in desk.heard.named("order")
        ]
        assert ends == [
            ("b", OrderStatus.FILLED, 3.0, ""),
            ("c", OrderStatus.PARTIALLY_FILLED, 2.0, ""),
            ("c", OrderStatus.EXPIRED, 2.0, "reduce_only"),
            ("d", OrderStatus.EXPIRED, 0.0, "reduce_only"),
        ]
        assert await desk.paper.open_orders() == []

    trade(body)


PICKY = dataclasses.replace(
    RULES, market=dataclasses.replace(LINEAR, min_qty=2.0, min_cost=300.0), max_orders=2
)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (order(1, 98.5, 10.0), "price"),
        (order(1, 0.0, 10.0), "price"),
        (order(1, 98.0, 10.5), "qty"),
        (order(1, 98.0, 3.0), "must be 4 to 1e\\+06"),  # 98 × 3 < 300
        (order(-1, 102.0, 1.0, reduce_only=True), "must be 2 to"),  # no least notional here
        (order(1, 98.0, 2e6), "must be 4 to 1e\\+06"),
        (order(-1, 1001.0, 10.0), "price: must be 1 to 1000"),
        (order(1, 98.0, 1021.0), "margin"),  # 98 × 1021 > 100,000
        (order(1, 98.0, 10.0, "a b"), "client_id"),
    ],
)
def test_what_the_rules_forbid(trade, bad, why):
    async def body(desk):
        await desk.hold(4.0)
        (outcome,) = await desk.send(bad)
        assert (outcome.verdict, outcome.reaction) == (Verdict.REJECTED, Reaction.DROP)
        (fine,) = await desk.send(order(1, 97.0, 4.0, "fine"))
        assert fine.verdict is Verdict.OK
        return outcome.text

    text = trade(body, PICKY)
    assert re.search(why, text), text


def test_a_reduction_needs_no_least_notional_and_no_margin(trade):
    async def body(desk):
        await desk.hold(4.0)
        (outcome,) = await desk.send(order(-1, 101.0, 2.0, reduce_only=True))
        assert outcome.verdict is Verdict.OK

    trade(body, PICKY)


def test_margin_counts_the_worse_side_alone(trade):
    async def body(desk):
        # 10,000 × 10: 1,000 at 99 or 101 need about all of it, either way.
        first, second = await desk.send(order(1, 99.0, 1000.0), order(-1, 101.0, 980.0, "b"))
        assert (first.verdict, second.verdict) == (Verdict.OK, Verdict.OK)
        (third,) = await desk.send(order(1, 98.0, 20.0, "c"))
        assert third.reaction is Reaction.DROP
        assert "margin" in third.text
        account = await desk.paper.account()
        assert account.available == 10_000 - 99_000 / 10

    trade(body)


def test_notional_beyond_what_the_leverage_allows(trade):
    tiers = (
        Tier(floor=0.0, maintenance_rate=0.004, max_leverage=100.0),
        Tier(floor=500.0, maintenance_rate=0.01, max_leverage=5.0),
    )

    async def body(desk):
        first, second = await desk.send(order(1, 99.0, 5.0), order(1, 98.0, 1.0, "b"))
        assert first.verdict is Verdict.OK
        assert second.reaction is Reaction.DROP
        assert "leverage" in second.text

    trade(body, dataclasses.replace(RULES, market=dataclasses.replace(LINEAR, tiers=tiers)))


def test_too_many_orders(trade):
    async def body(desk):
        *fine, last = await desk.send(*(order(1, 90.0 + i, 4.0, f"o{i}") for i in range(3)))
        assert [outcome.verdict for outcome in fine] == [Verdict.OK] * 2
        assert last.reaction is Reaction.DROP

    trade(body, PICKY)


def test_an_id_that_is_in_use_is_to_be_looked_up(trade):
    async def body(desk):
        await desk.send(order(1, 99.0, 1.0))
        (again,) = await desk.send(order(1, 99.0, 1.0))
        assert (again.verdict, again.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
        assert len(await desk.paper.open_orders()) == 1

    trade(body)


def test_a_market_that_does_not_trade(trade):
    async def body(desk):
        desk.tape.told = dataclasses.replace(RULES, trading=False)
        await desk.paper.rules()
        (outcome,) = await desk.send(order(1, 99.0, 1.0))
        assert (outcome.verdict, outcome.reaction) == (Verdict.REJECTED, Reaction.HALT)

    trade(body)


def test_a_cancel_of_what_never_was(trade):
    async def body(desk):
        (placed,) = await desk.send(order(1, 99.0, 1.0))
        stranger = dataclasses.replace(placed.order, order_id="77")
        futures = desk.paper.cancel([stranger, placed.order, placed.order])
        await desk.clock.run(100)
        reactions = [future.result().reaction for future in futures]
        assert reactions == [Reaction.GONE, Reaction.NONE, Reaction.GONE]

    trade(body)


# --- terms and rules ---


def test_prepare_sets_the_terms(trade):
    async def body(desk):
        await desk.paper.prepare(leverage=5, cross_mode=False)
        account = await desk.paper.account()
        assert (account.leverage, account.cross_mode, account.one_way) == (5.0, False, True)
        await desk.hold(10.0)
        # Isolated: C is the entry's margin, 990 / 5.
        account = await desk.paper.account()
        assert account.position.liq_price == pytest.approx((198.0 - 990.0) / (0.04 - 10))
        with pytest.raises(VenueError, match="margin mode"):
            await desk.paper.prepare(leverage=5, cross_mode=True)
        for leverage in (0, 101):
            with pytest.raises(VenueError, match="must be 1 to 100"):
                await desk.paper.prepare(leverage=leverage, cross_mode=False)
        await desk.send(order(1, 97.0, 400.0, "big"))
        with pytest.raises(VenueError, match="reduce them first"):
            await desk.paper.prepare(leverage=2, cross_mode=False)
        rights = await desk.paper.rights()
        assert (rights.can_trade, rights.can_withdraw) == (True, False)
        assert await desk.paper.dead_man(60.0) is False

    trade(body)


def test_new_rules_hold_from_then_on(trade):
    async def body(desk):
        await desk.send(order(1, 99.0, 3.0))
        dear = dataclasses.replace(LINEAR, maker_fee=0.01)
        desk.tape.told = dataclasses.replace(RULES, market=dear)
        assert (await desk.paper.rules()).market == dear
        desk.tape.print(98.0, SOLD)
        assert (await desk.paper.fills(0))[0].fee == -3 * 99 * 0.01
        coarse = dataclasses.replace(LINEAR, qty_step=2.0)
        desk.tape.told = dataclasses.replace(RULES, market=coarse)
        with pytest.raises(VenueError, match="does not fit"):
            await desk.paper.rules()

    trade(body)


def test_nothing_is_placed_before_the_rules_are_known():
    paper = PaperExchange(Tape(), wallet=1.0, settle="USDT", clock=VirtualClock())
    with pytest.raises(VenueError, match="rules: must be read"):
        paper.place([order(1, 99.0, 1.0)])


def test_without_a_trade_yet_the_mark_price_is_the_first(trade):
    async def body(desk):
        (outcome,) = await desk.send(order(1, 101.0, 1.0))
        assert outcome.reaction is Reaction.REPRICE

    trade(body, traded=False)


@pytest.mark.parametrize(
    "wrong", [{"wallet": 0.0}, {"wallet": math.nan}, {"wallet": 1.0, "latency_ms": -1.0}]
)
def test_what_nobody_can_begin_with(wrong):
    with pytest.raises(ValueError, match=r"wallet|latency_ms"):
        PaperExchange(Tape(), settle="USDT", **wrong)


# --- funding and liquidation ---


def test_funding_is_settled_once_at_the_rate_last_announced(trade):
    async def body(desk):
        await desk.hold(10.0)
        wallet = (await desk.paper.account()).wallet
        tell = desk.tape.sink.on_mark
        tell(mark(NOW_MS))
        tell(mark(NOW_MS + 999, rate=0.0002))
        assert desk.heard.named("payment") == []
        later = mark(NOW_MS + 1001, rate=0.5)  # announces the same time still
        tell(later)
        tell(mark(NOW_MS + 1002, rate=0.5))
        tell(mark(NOW_MS + 1003, rate=0.7, due_ms=NOW_MS + 9000))
        tell(mark(NOW_MS + 900, rate=0.9))  # an old one, again
        paid = Payment(id=f"paper-{NOW_MS + 1000}", ts_ms=NOW_MS + 1000, amount=-10 * 98 * 0.0002)
        assert desk.heard.named("payment") == [(paid,)]
        at = desk.heard.events.index(("payment", paid))
        assert desk.heard.events[at - 1] == ("mark", later)
        assert desk.heard.events[at + 1][:2] == ("wallet", wallet + paid.amount)
        assert (await desk.paper.account()).wallet == wallet + paid.amount
        assert await desk.paper.payments(NOW_MS + 1000) == [paid]
        assert await desk.paper.payments(NOW_MS + 1001) == []
        tell(mark(NOW_MS + 9000, due_ms=NOW_MS + 99_000))
        assert [p.amount for (p,) in desk.heard.named("payment")] == [
            paid.amount,
            -10 * 98 * 0.7,
        ]

    trade(body)


def test_no_funding_while_flat(trade):
    async def body(desk):
        desk.tape.sink.on_mark(mark(NOW_MS))
        desk.tape.sink.on_mark(mark(NOW_MS + 1000, due_ms=NOW_MS + 2000))
        assert [event[0] for event in desk.heard.events] == ["mark", "mark"]

    trade(body)


def test_liquidation_takes_position_and_orders(trade):
    async def body(desk):
        await desk.hold(10.0)
        level = (119.01 - 990.0) / (0.04 - 10.0)  # 87.45
        assert (await desk.paper.account()).position.liq_price == pytest.approx(level)
        await desk.send(order(1, 80.0, 1.0, "b"), order(-1, 110.0, 10.0, "c", reduce_only=True))
        desk.heard.events.clear()
        desk.tape.print(87.0, SOLD)
        names = [event[0] for event in desk.heard.events]
        assert names == ["trade", "order", "order", "fill", "wallet", "position"]
        assert {(o.client_id, o.status, o.reason) for (o,) in desk.heard.named("order")} == {
            ("b", OrderStatus.EXPIRED, "liquidation"),
            ("c", OrderStatus.EXPIRED, "liquidation"),
        }
        ((fill,),) = desk.heard.named("fill")
        assert (fill.kind, fill.side, fill.qty) == (FillKind.LIQUIDATION, -1, 10.0)
        assert (fill.client_id, fill.maker) == ("", False)
        assert fill.price == pytest.approx(level)
        assert fill.fee == pytest.approx(-10 * level * 0.002)
        account = await desk.paper.account()
        assert account.position == Position()
        assert account.wallet == pytest.approx(119.01 + 10 * (level - 99.0) + fill.fee)
        assert await desk.paper.open_orders() == []

    trade(body, wallet=120.0)


# --- what the market tells ---


def test_the_market_is_handed_on_and_nothing_of_another_account(trade):
    async def body(desk):
        sink = desk.tape.sink
        sink.on_quote(99.0, 1.0, 101.0, 2.0, NOW_MS)
        sink.on_gap(Link.TRADES, "missed")
        sink.on_link(Link.TRADES, StreamState.LOST, "cut")
        sink.on_link(Link.PRIVATE, StreamState.LOST, "another account's")
        sink.on_gap(Link.ORDERS, "another account's")
        (placed,) = await desk.send(order(1, 99.0, 1.0))
        told = desk.heard.events
        assert told == [
            ("quote", 99.0, 1.0, 101.0, 2.0, NOW_MS),
            ("gap", Link.TRADES, "missed"),
            ("link", Link.TRADES, StreamState.LOST, "cut"),
            ("order", placed.order),
        ]
        sink.on_order(placed.order)
        sink.on_wallet(1.0, NOW_MS)
        sink.on_position(Position(5.0), NOW_MS)
        sink.on_payment(Payment(id="x", ts_ms=NOW_MS, amount=1.0))
        assert len(told) == 4
        assert (await desk.paper.account()).position == Position()

    trade(body)


def test_every_link_is_live_once_it_listens():
    async def main():
        paper = PaperExchange(Tape(), wallet=1.0, settle="USDT", clock=VirtualClock())
        heard = Recorder()
        await paper.listen(heard)
        assert heard.links(StreamState.LIVE) == set(Link)

    asyncio.run(main())


def test_a_trade_that_is_told_again_fills_nothing(trade):
    async def body(desk):
        desk.tape.sink.on_trade("x", 90.0, 1.0, NOW_MS, SOLD)
        desk.tape.print(100.0, BOUGHT)
        await desk.send(order(1, 95.0, 1.0))
        desk.tape.sink.on_trade("x", 90.0, 1.0, NOW_MS, SOLD)
        assert await desk.paper.fills(0) == []
        assert len(desk.heard.named("trade")) == 3

    trade(body)


class Deaf(Recorder):
    """A sink that fails at one kind of event."""

    def on_trade(self, *trade):
        raise LookupError("deaf")

    def on_wallet(self, wallet, ts_ms):
        raise LookupError("deaf")


def test_a_sink_that_fails_leaves_the_account_whole():
    async def main():
        clock = VirtualClock(NOW_MS)
        tape, heard = Tape(), Deaf()
        paper = PaperExchange(tape, wallet=10_000.0, settle="USDT", clock=clock)
        await paper.prepare(leverage=10, cross_mode=True)
        await paper.listen(heard)
        paper.place([order(1, 99.0, 10.0)])
        await clock.run(100)
        with pytest.raises(LookupError):
            tape.print(98.0, SOLD)
        assert len(heard.named("fill")) == 1
        assert heard.named("gap") == [(Link.PRIVATE, "an event could not be handed on")]
        assert (await paper.account()).wallet == 9_999.01
        # An outcome comes whatever fails.
        (future,) = paper.place([order(1, 0.0, 1.0, "b", at_market=True)])
        with pytest.raises(LookupError):
            await clock.run(100)
        assert future.result().verdict is Verdict.OK

    asyncio.run(main())


def test_only_so_many_finished_orders_are_known(trade, monkeypatch):
    monkeypatch.setattr("passivx.live.paper._MOST_ENDED", 2)

    async def body(desk):
        placed = await desk.send(*(order(1, 90.0 + i, 1.0, f"o{i}") for i in range(3)))
        desk.paper.cancel([outcome.order for outcome in placed])
        await desk.clock.run(100)
        found = [await desk.paper.find(f"o{i}") for i in range(3)]
        assert [each is None for each in found] == [True, False, False]

    trade(body)


# --- beside the core's own venue ---


STEPS = st.one_of(
    st.tuples(
        st.just("place"),
        st.sampled_from([1, -1]),
        st.integers(-6, 6),
        st.integers(1, 9),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("print"), st.integers(-8, 8), st.booleans(), st.integers(1, 5)),
    st.tuples(st.just("print"), st.integers(-3, 3), st.booleans(), st.integers(1, 5)),
    st.tuples(st.just("wait"), st.sampled_from([1, 40, 60, 100])),
)


@settings(deadline=None)
@given(
    steps=st.lists(STEPS, max_size=60),
    inverse=st.booleans(),
    fill_mode=st.sampled_from(list(FillMode)),
    latency_ms=st.sampled_from([0, 100]),
)
def test_the_fills_are_the_cores_own(steps, inverse, fill_mode, latency_ms):
    market = INVERSE if inverse else LINEAR
    rules = dataclasses.replace(RULES, market=market, max_orders=1000)
    options = {"fill_mode": fill_mode, "queue_share": 0.5}
    core = PaperVenue(
        market.record(10),
        market.tier_records(),
        price=100.0,
        wallet=1e6,  # never too little margin: that is not the core's to refuse
        leverage=10.0,
        **options,
    )
    expected = []

    def take(happened):
        expected.extend(tuple(each[0].item())[2:6] for each in happened)

    def place(number, side, price, qty, reduce_only, at_market):
        _, happened = core.place(
            number, side, price, qty, reduce_only=reduce_only, at_market=at_market
        )
        take([happened] if happened else [])

    async def main():
        async with trading(rules, wallet=1e6, latency_ms=latency_ms, **options) as desk:
            sent: list[NewOrder] = []
            on_their_way = deque()  # (when, what the core does then)
            now = 0
            price = 100
            for step in steps:
                match step:
                    case ("place", side, away, qty, reduce_only, at_market):
                        new = order(side, float(max(1, price + away)), float(qty), f"o{len(sent)}",
                                    reduce_only=reduce_only, at_market=at_market)  # fmt: skip
                        sent.append(new)
                        desk.paper.place([new])
                        args = (len(sent), side, new.price, new.qty, reduce_only, at_market)
                        on_their_way.append((now + latency_ms, place, args))
                    case ("cancel", i) if i < len(sent):
                        new = sent[i]
                        known = await desk.paper.find(new.client_id)
                        desk.paper.cancel([known or named(new)])
                        args = (i + 1, new.side)
                        on_their_way.append((now + latency_ms, core.cancel, args))
                    case ("print", move, did, qty):
                        price = max(2, price + move)
                        desk.tape.print(float(price), did, float(qty))
                        take(core.print(float(price), float(qty), did))
                    case ("wait", ms):
                        await desk.clock.run(ms)
                        now += ms
                        while on_their_way and on_their_way[0][0] <= now:
                            _, act, args = on_their_way.popleft()
                            act(*args)
            fills = await desk.paper.fills(0)
            assert [(f.price, f.side * f.qty, f.pnl, f.fee) for f in fills] == expected
            assert [f.trade_id for f in fills] == [
                f"paper-{NOW_MS}-{i + 1}" for i in range(len(fills))
            ]
            assert desk.heard.named("fill") == [(f,) for f in fills]
            wallet, _, size, entry_price, liq_price = core.account.item()
            account = await desk.paper.account()
            assert account.wallet == wallet
            assert account.position == Position(size, entry_price, liq_price)
            rests = [o for side in (1, -1) for o in core.orders(side)]
            left = {o.client_id: o.qty - o.filled_qty for o in await desk.paper.open_orders()}
            assert left == {f"o{int(o['id']) - 1}": float(o["qty"]) for o in rests}

    asyncio.run(main())


def named(new: NewOrder) -> Order:
    return Order(
        client_id=new.client_id,
        order_id="",
        side=new.side,
        price=new.price,
        qty=new.qty,
        filled_qty=0.0,
        reduce_only=new.reduce_only,
        status=OrderStatus.NEW,
        ts_ms=0,
    )


# --- beside a simulator, without a key ---


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_a_dry_run_beside_a_simulator(exchange, tmp_path):
    async def main(venue):
        endpoints, symbol, _ = load_endpoints(venue.path)
        assumed = load_market(f"configs/markets/{exchange}_{symbol}.json")
        client = open_exchange(endpoints=endpoints, symbol=symbol, key=None, assumed=assumed)
        paper = PaperExchange(client, wallet=10_000.0, settle="X", latency_ms=20)
        heard = MarketRecorder()
        try:
            rules = await paper.rules()
            assert "maker_fee" in rules.assumed
            await paper.prepare(leverage=10, cross_mode=True)
            await paper.listen(heard)
            await until(lambda: heard.quotes and heard.trades, "a market")
            n = 0
            while not heard.fills:
                n += 1
                orders = [
                    order_at(rules, heard.quotes[-1], side, 0.0, f"{name}-{n}")
                    for side, name in ((1, "buy"), (-1, "sell"))
                ]
                await asyncio.gather(*paper.place(orders))
                await asyncio.sleep(0.3)
                await paper.cancel_all()
                assert n < 60
            assert await paper.open_orders() == []
            assert await paper.fills(0) == heard.fills
            account = await paper.account()
            size = sum(fill.side * fill.qty for fill in heard.fills)
            assert account.position.size == pytest.approx(size)
            assert heard.wallets[-1] == account.wallet
            fee = sum(fill.fee + fill.pnl for fill in heard.fills)
            assert account.wallet == pytest.approx(10_000.0 + fee)
            assert all(fill.maker for fill in heard.fills)
        finally:
            await paper.close()
        assert (await venue.state())["position"] == 0.0
        assert await venue.ledger("order") == []

    with serving("--exchange", exchange, "--synthetic", 7, "--speed", 20) as line:
        path = tmp_path / "endpoints.json"
        path.write_text(line)
        asyncio.run(main(Venue(exchange, json.loads(line), path)))
