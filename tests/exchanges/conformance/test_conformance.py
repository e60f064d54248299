"""What every venue's client must do, whatever the venue: one suite over all of them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from passivx.errors import VenueError
from passivx.exchanges.base import Link, OrderStatus, Reaction, Verdict
from passivx.exchanges.stream import StreamState
from tests.exchanges.conformance.conftest import order_at, until


@pytest.fixture
def drive(venue):
    def run(body, **options):
        async def whole():
            async with venue.client(**options) as (client, sink, rules):
                await body(client, sink, rules)

        asyncio.run(whole())

    return run


async def outcome(futures):
    return await asyncio.wait_for(futures[0], 10)


def test_rules_account_and_market(venue, drive):
    async def body(client, sink, rules):
        state = await venue.state()
        assert rules.trading
        assert rules.market.price_step > 0
        assert rules.max_qty >= rules.market.min_qty
        account = await client.account()
        assert account.wallet == pytest.approx(state["wallet"], rel=1e-6)
        assert account.position.size == 0.0
        assert account.one_way
        assert account.can_trade
        assert account.cross_mode == state["cross_mode"]
        mark = await client.mark()
        assert mark.mark_price == pytest.approx(state["mark_price"], rel=0.05)
        assert mark.next_funding_ms > mark.ts_ms
        trades = await client.recent_trades(50)
        assert trades == sorted(trades, key=lambda trade: trade.ts_ms)
        assert trades

    drive(body)


def test_the_rights_of_the_key(venue, drive):
    async def body(client, sink, rules):
        rights = await client.rights()
        assert (rights.can_trade, rights.can_withdraw) == (True, False)
        assert not rights.read_only
        await venue.fault({"do": "acct.rights", "trade": False, "withdraw": True})
        rights = await client.rights()
        assert (rights.can_trade, rights.can_withdraw) == (False, True)
        order = order_at(rules, (90_000.0, 90_001.0), 1, 0.02, "barred-1")
        result = await outcome(client.place([order]))
        assert (result.verdict, result.reaction) == (Verdict.REJECTED, Reaction.HALT)

    drive(body, listening=False)


def test_market_events_flow(drive):
    async def body(client, sink, rules):
        await until(lambda: len(sink.trades) > 20 and sink.marks, "trades and a mark price")
        assert all(bid < ask for bid, ask in sink.quotes)
        ids = [trade[0] for trade in sink.trades]
        assert len(set(ids)) == len(ids)
        assert sink.marks[0].mark_price > 0
        live = {link for link, state in sink.links if state is StreamState.LIVE}
        assert live == set(Link)

    drive(body)


def test_prepare_sets_what_is_asked_and_looks_again(venue, drive):
    async def body(client, sink, rules):
        await client.prepare(leverage=7, cross_mode=False)
        account = await client.account()
        assert (account.leverage, account.cross_mode) == (7.0, False)
        await client.prepare(leverage=7, cross_mode=False)
        await client.prepare(leverage=5, cross_mode=True)
        assert (await venue.state())["leverage"] == 5
        with pytest.raises(VenueError):
            await client.prepare(leverage=100_000, cross_mode=True)

    drive(body)


def test_the_life_of_an_order_that_rests(drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.02, "rest-1")
        placed = await outcome(client.place([order]))
        assert placed.verdict is Verdict.OK
        seen = await until(lambda: sink.states("rest-1"), "the order's event")
        assert seen[0].status is OrderStatus.NEW
        assert (seen[0].price, seen[0].qty, seen[0].side) == (order.price, order.qty, 1)
        (resting,) = await client.open_orders()
        assert resting.client_id == "rest-1"
        assert resting.order_id == seen[0].order_id
        found = await client.find("rest-1")
        assert found is not None
        assert found.status is OrderStatus.NEW
        cancelled = await outcome(client.cancel([resting]))
        assert cancelled.verdict is Verdict.OK
        await until(lambda: sink.states("rest-1")[-1].status is OrderStatus.CANCELED, "the end")
        assert await client.open_orders() == []
        again = await outcome(client.cancel([resting]))
        assert (again.verdict, again.reaction) == (Verdict.REJECTED, Reaction.GONE)
        found = await client.find("rest-1")
        assert found is None or found.status is OrderStatus.CANCELED

    drive(body)


def test_an_order_that_never_was_is_not_found(drive):
    async def body(client, sink, rules):
        assert await client.find("never-1") is None

    drive(body, listening=False)


def test_post_only_never_takes(venue, drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, -0.01, "taker-1")
        result = await outcome(client.place([order]))
        if result.verdict is Verdict.OK:
            end = await until(
                lambda: [o for o in sink.states("taker-1") if o.status.final], "its end"
            )
            assert end[-1].status is OrderStatus.CANCELED
            assert end[-1].reason == "post_only"
        else:
            assert (result.verdict, result.reaction) == (Verdict.REJECTED, Reaction.REPRICE)
        assert sink.fills == []
        assert (await venue.state())["position"] == 0.0

    drive(body)


def test_reduce_only_without_a_position_is_refused(drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], -1, 0.01, "reduce-1", reduce_only=True)
        result = await outcome(client.place([order]))
        assert (result.verdict, result.reaction) == (Verdict.REJECTED, Reaction.DROP)

    drive(body)


def test_what_cannot_be_written_is_not_sent(venue, drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.01, "grid-1")
        off = order_at(
            rules,
            sink.quotes[-1],
            1,
            0.01,
            "grid-2",
            price=order.price + rules.market.price_step / 3,
        )
        result = await outcome(client.place([off]))
        assert result.verdict is Verdict.REJECTED
        assert not [o for o in await venue.ledger("order") if o["client_id"] == "grid-2"]

    drive(body)


def test_a_market_order_fills_and_everything_agrees(venue, drive):
    async def body(client, sink, rules):
        begun = (await client.account()).ts_ms
        order = order_at(rules, sink.quotes[-1], 1, 0.0, "market-1", at_market=True)
        assert (await outcome(client.place([order]))).verdict is Verdict.OK
        fill = (await until(lambda: sink.fills, "a fill"))[0]
        assert (fill.client_id, fill.side, fill.qty) == ("market-1", 1, order.qty)
        assert not fill.maker
        assert fill.fee < 0.0
        position = (await until(lambda: [p for p in sink.positions if p.size], "a position"))[-1]
        assert position.size == order.qty
        account = await client.account()
        state = await venue.state()
        assert account.position.size == state["position"] == order.qty
        assert account.position.entry_price == pytest.approx(state["entry_price"], rel=1e-9)
        assert account.wallet == pytest.approx(state["wallet"], abs=2e-8)
        (told,) = await client.fills(begun - 60_000)
        assert told.trade_id == fill.trade_id
        assert told.price == fill.price
        assert told.fee == pytest.approx(fill.fee, abs=2e-8)
        close = order_at(
            rules,
            sink.quotes[-1],
            -1,
            0.0,
            "market-2",
            at_market=True,
            reduce_only=True,
            qty=order.qty,
        )
        assert (await outcome(client.place([close]))).verdict is Verdict.OK
        await until(lambda: len(sink.fills) == 2, "the closing fill")
        await until(lambda: sink.positions[-1].size == 0.0, "flat")
        assert (await client.account()).position.size == 0.0

    drive(body)


def test_a_used_id_is_looked_up_not_refused(drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.03, "twice-1")
        assert (await outcome(client.place([order]))).verdict is Verdict.OK
        result = await outcome(client.place([order]))
        assert (result.verdict, result.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
        assert len(await client.open_orders()) == 1

    drive(body)


def test_many_orders_over_the_socket_and_over_rest(venue, drive):
    async def body(client, sink, rules):
        quote = sink.quotes[-1]
        orders = [order_at(rules, quote, 1, 0.02 + 0.001 * i, f"many-{i}") for i in range(7)]
        results = await asyncio.gather(*client.place(orders))
        assert [r.verdict for r in results] == [Verdict.OK] * 7
        await until(lambda: len({o.client_id for o in sink.orders}) == 7, "their events")
        assert len(await client.open_orders()) == 7
        assert (await client.cancel_all()).verdict is Verdict.OK
        assert await client.open_orders() == []

    drive(body)

    async def over_rest(client, sink, rules):
        await venue.fault(
            {"do": "rest.reply", "status": 503, "when": {"on": "connect:trade"}, "times": 0}
        )
        await venue.fault({"do": "ws.rst", "channel": "trade"})
        lost = (Link.ORDERS, StreamState.LOST)
        await until(lambda: sink.links.count(lost) >= 2, "the loss, and that it stays lost")
        quote = sink.quotes[-1]
        orders = [order_at(rules, quote, -1, 0.02 + 0.001 * i, f"rest-{i}") for i in range(7)]
        results = await asyncio.gather(*client.place(orders))
        assert [r.verdict for r in results] == [Verdict.OK] * 7, results
        resting = await client.open_orders()
        assert len(resting) == 7
        results = await asyncio.gather(*client.cancel(resting))
        assert [r.verdict for r in results] == [Verdict.OK] * 7, results
        assert await client.open_orders() == []

    drive(over_rest)


@pytest.mark.parametrize("arrives", [True, False])
def test_an_answer_that_is_lost_leaves_the_outcome_unknown(venue, drive, arrives):
    async def body(client, sink, rules):
        do = "rest.drop_after" if arrives else "rest.drop_before"
        await venue.fault({"do": do, "when": {"on": "order"}})
        order = order_at(rules, sink.quotes[-1], 1, 0.02, "lost-1")
        result = await outcome(client.place([order]))
        assert result.verdict is Verdict.UNKNOWN
        found = await client.find("lost-1")
        assert (found is not None) is arrives
        placed = [o for o in await venue.ledger("order") if o["client_id"] == "lost-1"]
        assert len(placed) == int(arrives)
        await until(
            lambda: sink.links.count((Link.ORDERS, StreamState.LIVE)) == 2, "the socket again"
        )

    drive(body)


def test_a_lost_private_stream_comes_back_and_says_so(venue, drive):
    async def body(client, sink, rules):
        before = len(sink.gaps)
        await venue.fault({"do": "ws.rst", "channel": "private"})
        await until(lambda: (Link.PRIVATE, StreamState.LOST) in sink.links, "the loss")
        await until(
            lambda: sink.links.count((Link.PRIVATE, StreamState.LIVE)) == 2, "the stream again"
        )
        assert len(sink.gaps) > before
        order = order_at(rules, sink.quotes[-1], 1, 0.02, "after-1")
        assert (await outcome(client.place([order]))).verdict is Verdict.OK
        await until(lambda: sink.states("after-1"), "its event")

    drive(body)


def test_funding_is_told_and_can_be_asked_for(venue, drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.0, "fund-1", at_market=True)
        begun = (await client.account()).ts_ms
        await outcome(client.place([order]))
        await until(lambda: sink.fills, "a fill")
        await venue.fault({"do": "acct.funding", "rate": 0.001})
        payment = (await until(lambda: sink.payments, "the payment"))[0]
        assert payment.amount < 0.0
        (asked,) = await client.payments(begun - 60_000)
        assert asked.id == payment.id
        (line,) = await venue.ledger("funding")
        assert asked.amount == pytest.approx(line["amount"], abs=1e-8)

    drive(body)


def test_liquidation_and_foreign_orders_are_told(venue, drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.0, "x", at_market=True)
        await venue.fault({"do": "ext.order", "side": "buy", "qty": order.qty * 2})
        fill = (await until(lambda: sink.fills, "a foreign fill"))[0]
        assert fill.client_id.startswith("web_")
        await until(lambda: [p for p in sink.positions if p.size], "its position")
        await venue.fault({"do": "acct.liquidate"})
        forced = await until(
            lambda: [f for f in sink.fills if f.kind.value == "liquidation"], "the liquidation"
        )
        assert forced[0].side == -1
        await until(lambda: sink.positions[-1].size == 0.0, "flat")

    drive(body)


def test_the_dead_man_switch_where_there_is_one(venue, drive):
    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.02, "dead-1")
        assert (await outcome(client.place([order]))).verdict is Verdict.OK
        if not await client.dead_man(1.0):
            assert venue.name == "bybit"
            return
        await until(lambda: sink.states("dead-1")[-1].status is OrderStatus.CANCELED, "the switch")
        assert await client.dead_man(0.0)

    drive(body)


def test_no_secret_is_in_any_log(venue, drive, caplog):
    caplog.set_level(logging.DEBUG)

    async def body(client, sink, rules):
        order = order_at(rules, sink.quotes[-1], 1, 0.02, "quiet-1")
        await venue.fault({"do": "rest.drop_after", "when": {"on": "order"}})
        await outcome(client.place([order]))
        await venue.fault({"do": "ws.rst", "channel": "private"})
        await until(lambda: (Link.PRIVATE, StreamState.LOST) in sink.links, "the loss")
        await client.account()

    drive(body)
    told = caplog.text
    assert venue.line["secret"] not in told
    assert venue.line["key"] not in told
    assert "signature" not in told.lower()
