"""The client on a scripted venue: what it sets, what it sends where, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random

import pytest

from passivx.clock import VirtualClock
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Exchange,
    Link,
    NewOrder,
    OrderStatus,
    Reaction,
    Sink,
    Verdict,
)
from passivx.exchanges.binance import wire
from passivx.exchanges.binance.client import Binance
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.stream import StreamState
from passivx.models import Position
from tests.exchanges.binance.test_streams import (
    QUOTE,
    TRADE,
    account_event,
    order_event,
    subscribed,
)
from tests.exchanges.binance.test_trade import answering, ok
from tests.exchanges.binance.venue import (
    KEY,
    LISTEN_KEY,
    NOW_MS,
    SECRET,
    Venue,
    echo,
    listed,
    order_row,
    refused,
)
from tests.exchanges.scripted import Drop, Scene, absent, pumped, raising
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import WsServer

RESTING = wire.order_of(order_row())


def orders(n, **changed):
    return [
        NewOrder(
            **({"client_id": f"g-{i}", "side": 1, "price": 90000.0 - i, "qty": 0.002} | changed)
        )
        for i in range(n)
    ]


class Account:
    """A venue with an account: its modes are as they were set."""

    def __init__(self, clock):
        self.venue = Venue(clock)
        self.one_way, self.multi, self.can_trade = True, False, True
        self.cross, self.leverage = True, 20
        self.positions = []
        self.obeys = True
        self.income = []
        self.venue.routes |= {
            "GET /fapi/v1/exchangeInfo": lambda p: INFO,
            "GET /fapi/v1/leverageBracket": lambda p: BRACKETS,
            "GET /fapi/v1/commissionRate": lambda p: {
                "symbol": p["symbol"],
                "makerCommissionRate": "0.0002",
                "takerCommissionRate": "0.0005",
            },
            "GET /fapi/v1/fundingInfo": lambda p: [],
            "GET /fapi/v3/balance": lambda p: [
                {"asset": "USDT", "balance": "1000.5", "availableBalance": "900.25"}
            ],
            "GET /fapi/v3/positionRisk": lambda p: self.positions,
            "GET /fapi/v1/accountConfig": lambda p: {
                "canTrade": self.can_trade,
                "dualSidePosition": not self.one_way,
                "multiAssetsMargin": self.multi,
            },
            "GET /fapi/v1/symbolConfig": lambda p: [
                {
                    "symbol": p["symbol"],
                    "marginType": "CROSSED" if self.cross else "ISOLATED",
                    "leverage": self.leverage,
                }
            ],
            "POST /fapi/v1/leverage": self.set_leverage,
            "POST /fapi/v1/marginType": self.set_margin,
            "POST /fapi/v1/positionSide/dual": self.set_dual,
            "POST /fapi/v1/listenKey": lambda p: {"listenKey": LISTEN_KEY},
            "GET /fapi/v1/income": lambda p: self.income,
        }

    def set_leverage(self, params):
        if self.obeys:
            self.leverage = int(params["leverage"])
        return {"leverage": int(params["leverage"]), "symbol": params["symbol"]}

    def set_margin(self, params):
        cross = params["marginType"] == "CROSSED"
        if cross == self.cross:
            raise refused(-4046, "No need to change margin type.")
        if self.obeys:
            self.cross = cross
        return {"code": 200, "msg": "success"}

    def set_dual(self, params):
        if self.positions:
            raise refused(-4068, "Position side cannot be changed if there exists position.")
        self.one_way = params["dualSidePosition"] == "false"
        return {"code": 200, "msg": "success"}

    def set_to(self):
        """Return the settings that were asked for, in order."""
        return [name for name, _ in self.venue.calls if name.startswith("POST")]


INFO = {
    "rateLimits": [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50},
    ],
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "contractType": "PERPETUAL",
            "status": "TRADING",
            "marginAsset": "USDT",
            "liquidationFee": "0.0125",
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": "100",
                    "maxPrice": "900000",
                    "tickSize": "0.10",
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": "0.001",
                    "maxQty": "1000",
                    "stepSize": "0.001",
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": "0.001",
                    "maxQty": "120",
                    "stepSize": "0.001",
                },
                {"filterType": "MAX_NUM_ORDERS", "limit": 200},
                {"filterType": "MIN_NOTIONAL", "notional": "100"},
                {
                    "filterType": "PERCENT_PRICE",
                    "multiplierUp": "1.05",
                    "multiplierDown": "0.95",
                    "multiplierDecimal": "4",
                },
            ],
        }
    ],
}
BRACKETS = [
    {
        "symbol": "BTCUSDT",
        "brackets": [
            {
                "bracket": 1,
                "initialLeverage": 125,
                "notionalCap": 50000,
                "notionalFloor": 0,
                "maintMarginRatio": 0.004,
                "cum": 0.0,
            }
        ],
    }
]


@contextlib.asynccontextmanager
async def scene(*, market=absent, public=absent, private=absent, trade=None):
    """Set the stage; sockets without a script hang up."""
    clock = VirtualClock(NOW_MS)
    account = Account(clock)
    async with contextlib.AsyncExitStack() as stack:
        venue = await stack.enter_async_context(account.venue)
        servers = [
            await stack.enter_async_context(WsServer(script))
            for script in (market, public, private, trade or absent)
        ]
        urls = [server.url.removesuffix("/ws") for server in servers]
        endpoints = Endpoints(
            exchange="binance",
            rest=venue.url,
            ws_market=f"{urls[0]}/market",
            ws_public=f"{urls[1]}/public",
            ws_private=f"{urls[2]}/private",
            ws_trade=f"{urls[3]}/ws-fapi/v1" if trade else None,
        )
        client = Binance(
            endpoints=endpoints,
            symbol="BTCUSDT",
            key=ApiKey(KEY, SECRET),
            clock=clock,
            rng=random.Random(1),
        )
        try:
            yield Scene(clock, account, client)
        finally:
            await client.close()


@pytest.fixture
def on_stage(run):
    """Run a test on a scene."""

    def start(test, **scripts):
        async def go():
            async with scene(**scripts) as stage:
                await test(stage)

        run(go())

    return start


async def market(peer):
    await subscribed(peer)
    peer.send(json.dumps(TRADE))
    await peer.gone()


async def public(peer):
    await subscribed(peer)
    peer.send(json.dumps(QUOTE))
    await peer.gone()


def telling(*events):
    async def script(peer):
        await peer.upgrade()
        for event in events:
            peer.send(json.dumps(event))
        await peer.gone()

    return script


def test_it_is_an_exchange():
    def take(exchange: Exchange, sink: Sink) -> None: ...

    take(Binance.__new__(Binance), Recorder())


def test_the_sockets_must_be_three():
    endpoints = Endpoints(
        exchange="binance",
        rest="http://127.0.0.1:1",
        ws_public="ws://127.0.0.1:1/public",
        ws_private="ws://127.0.0.1:1/private",
    )
    with pytest.raises(VenueError, match="ws_market"):
        Binance(endpoints=endpoints, symbol="BTCUSDT", key=ApiKey(KEY, SECRET))


class TestReads:
    def test_rules_bring_the_venues_limits(self, on_stage):
        async def test(stage):
            rules = await stage.client.rules()
            assert (rules.market.price_step, rules.market.min_cost) == (0.1, 100.0)
            assert (rules.market.taker_fee, rules.market.max_leverage) == (0.0005, 125.0)
            budget = stage.client._budget
            budget.charge({"orders_10s": 44})
            assert budget.delay_s({"orders_10s": 1}) == 0.0
            assert budget.delay_s({"orders_10s": 2}) > 0.0

        on_stage(test)

    def test_the_account(self, on_stage):
        async def test(stage):
            stage.account.positions = [
                {
                    "symbol": "BTCUSDT",
                    "positionSide": "BOTH",
                    "positionAmt": "-0.5",
                    "entryPrice": "90000.0",
                    "liquidationPrice": "120000.5",
                }
            ]
            got = await stage.client.account()
            assert (got.wallet, got.available) == (1000.5, 900.25)
            assert got.position == Position(-0.5, 90000.0, 120000.5)
            assert (got.leverage, got.cross_mode, got.one_way, got.can_trade) == (
                20.0,
                True,
                True,
                True,
            )

        on_stage(test)

    def test_a_wallet_that_is_not_told_is_no_wallet(self, on_stage):
        async def test(stage):
            stage.venue.routes["GET /fapi/v3/balance"] = lambda p: []
            with pytest.raises(BadReplyError, match="USDT"):
                await stage.client.account()

        on_stage(test)


class TestPrepare:
    def test_what_is_so_is_left_alone(self, on_stage):
        async def test(stage):
            await stage.client.prepare(leverage=20, cross_mode=True)
            assert stage.account.set_to() == []

        on_stage(test)

    def test_everything_is_set_and_looked_at(self, on_stage):
        async def test(stage):
            stage.account.one_way = False
            await stage.client.prepare(leverage=7, cross_mode=False)
            assert stage.account.set_to() == [
                "POST /fapi/v1/positionSide/dual",
                "POST /fapi/v1/marginType",
                "POST /fapi/v1/leverage",
            ]
            assert stage.venue.calls[-1][0] == "GET /fapi/v1/symbolConfig"

        on_stage(test)

    def test_already_so_is_success(self, on_stage):
        async def test(stage):
            told = iter([False, True])
            stage.venue.routes["GET /fapi/v1/symbolConfig"] = lambda p: [
                {
                    "symbol": "BTCUSDT",
                    "marginType": "CROSSED" if next(told) else "ISOLATED",
                    "leverage": 20,
                }
            ]
            await stage.client.prepare(leverage=20, cross_mode=True)

        on_stage(test)

    def test_what_does_not_hold_is_refused(self, on_stage):
        async def test(stage):
            stage.account.obeys = False
            with pytest.raises(VenueError, match="must be one-way, isolated, leverage 7; was"):
                await stage.client.prepare(leverage=7, cross_mode=False)

        on_stage(test)

    def test_an_unknown_outcome_is_decided_by_looking(self, on_stage):
        async def test(stage):
            def cut(params):
                stage.account.set_leverage(params)
                raise Drop

            stage.venue.routes["POST /fapi/v1/leverage"] = cut
            await stage.client.prepare(leverage=7, cross_mode=True)
            assert len(stage.venue.named("POST /fapi/v1/leverage")) == 1

        on_stage(test)

    def test_hedge_mode_with_positions(self, on_stage):
        async def test(stage):
            stage.account.one_way = False
            stage.account.positions = [{"symbol": "ETHUSDT"}]
            with pytest.raises(VenueError, match="close all positions") as e:
                await stage.client.prepare(leverage=20, cross_mode=True)
            assert e.value.code == -4068

        on_stage(test)

    def test_multi_assets_mode(self, on_stage):
        async def test(stage):
            stage.account.multi = True
            with pytest.raises(VenueError, match="single-asset"):
                await stage.client.prepare(leverage=20, cross_mode=True)
            assert stage.account.set_to() == []

        on_stage(test)

    def test_an_account_that_may_not_trade(self, on_stage):
        async def test(stage):
            stage.account.can_trade = False
            with pytest.raises(VenueError, match="canTrade"):
                await stage.client.prepare(leverage=20, cross_mode=True)

        on_stage(test)

    def test_a_margin_mode_that_orders_forbid(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/marginType"] = raising(
                refused(-4047, "Margin type cannot be changed if there exists open orders.")
            )
            with pytest.raises(VenueError, match="cancel BTCUSDT's orders") as e:
                await stage.client.prepare(leverage=20, cross_mode=False)
            assert e.value.code == -4047

        on_stage(test)

    def test_the_dead_mans_switch(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/countdownCancelAll"] = lambda p: p
            assert await stage.client.dead_man(60.0) is True

        on_stage(test)


class TestOverRest:
    """While the order socket is not live."""

    def test_rules_come_first(self, on_stage):
        async def test(stage):
            with pytest.raises(VenueError, match="rules"):
                stage.client.place(orders(1))

        on_stage(test)

    def test_one_order(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/order"] = echo
            await stage.client.rules()
            (got,) = await asyncio.gather(*stage.client.place(orders(1)))
            assert (got.verdict, got.order.client_id) == (Verdict.OK, "g-0")

        on_stage(test)

    def test_batches_of_five(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [
                echo(row) for row in listed(p["batchOrders"])
            ]
            await stage.client.rules()
            got = await asyncio.gather(*stage.client.place(orders(12)))
            assert [o.order.client_id for o in got] == [f"g-{i}" for i in range(12)]
            sizes = sorted(
                len(listed(p["batchOrders"]))
                for p in stage.venue.named("POST /fapi/v1/batchOrders")
            )
            assert sizes == [2, 5, 5]

        on_stage(test)

    def test_what_cannot_be_written_does_not_hold_up_the_rest(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/batchOrders"] = lambda p: [
                echo(row) for row in listed(p["batchOrders"])
            ]
            await stage.client.rules()
            asked = orders(3)
            asked[1] = NewOrder(client_id="off", side=1, price=90000.05, qty=0.002)
            got = await asyncio.gather(*stage.client.place(asked))
            assert [o.verdict for o in got] == [Verdict.OK, Verdict.REJECTED, Verdict.OK]
            assert got[1].reaction is Reaction.DROP
            assert got[1].text.startswith("not sent")
            change = stage.client.amend(RESTING, price=90000.05)
            assert (await change).reaction is Reaction.DROP

        on_stage(test)

    def test_cancels(self, on_stage):
        async def test(stage):
            stage.venue.routes["DELETE /fapi/v1/order"] = lambda p: order_row(status="CANCELED")
            stage.venue.routes["DELETE /fapi/v1/batchOrders"] = lambda p: [
                order_row(orderId=i, status="CANCELED") for i in listed(p["orderIdList"])
            ]
            (got,) = await asyncio.gather(*stage.client.cancel([RESTING]))
            assert got.order.status is OrderStatus.CANCELED
            resting = [wire.order_of(order_row(orderId=i)) for i in range(1, 13)]
            got = await asyncio.gather(*stage.client.cancel(resting))
            assert [o.order.order_id for o in got] == [str(i) for i in range(1, 13)]
            assert len(stage.venue.named("DELETE /fapi/v1/batchOrders")) == 2

        on_stage(test)

    def test_an_amendment(self, on_stage):
        async def test(stage):
            stage.venue.routes["PUT /fapi/v1/order"] = lambda p: order_row(price=p["price"])
            await stage.client.rules()
            got = await stage.client.amend(RESTING, price=89999.9)
            assert got.order.price == 89999.9
            assert stage.venue.calls[-1][1]["quantity"] == "0.002"

        on_stage(test)

    def test_nothing_to_send(self, on_stage):
        async def test(stage):
            await stage.client.rules()
            assert stage.client.place([]) == stage.client.cancel([]) == []

        on_stage(test)

    def test_closing_leaves_no_future_open(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /fapi/v1/order"] = raising(Drop())
            await stage.client.rules()
            sent = stage.client.place(orders(1)) + stage.client.cancel([RESTING])
            await stage.client.close()
            got = await asyncio.gather(*sent)
            assert all(o.verdict is not Verdict.OK for o in got)

        on_stage(test)


class TestOverTheSocket:
    def test_orders_cancels_amendments(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            rest = len(stage.venue.calls)
            got = await asyncio.gather(*stage.client.place(orders(3)))
            assert [o.order.client_id for o in got] == ["g-0", "g-1", "g-2"]
            (got,) = await asyncio.gather(*stage.client.cancel([RESTING]))
            assert got.order.status is OrderStatus.CANCELED
            got = await stage.client.amend(RESTING, price=89999.9)
            assert got.order.price == 89999.9
            assert len(stage.venue.calls) == rest
            off = NewOrder(client_id="off", side=1, price=90000.05, qty=0.002)
            (got,) = await asyncio.gather(*stage.client.place([off]))
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.DROP)

        on_stage(test, market=market, public=public, private=telling(), trade=answering(*[ok] * 5))

    def test_new_rules_change_what_is_written(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            half = NewOrder(client_id="half", side=1, price=90000.05, qty=0.002)
            (got,) = await asyncio.gather(*stage.client.place([half]))
            assert got.reaction is Reaction.DROP
            info = json.loads(json.dumps(INFO))
            info["symbols"][0]["filters"][0]["tickSize"] = "0.05"
            stage.venue.routes["GET /fapi/v1/exchangeInfo"] = lambda p: info
            await stage.client.rules()
            (got,) = await asyncio.gather(*stage.client.place([half]))
            assert (got.verdict, got.order.price) == (Verdict.OK, 90000.05)

        on_stage(test, market=market, public=public, private=telling(), trade=answering(ok))

    def test_rest_takes_over(self, on_stage):
        async def once(peer):
            await peer.upgrade()
            await listening.wait()
            peer.send_close(1008)
            await peer.gone()

        async def test(stage):
            stage.venue.routes["POST /fapi/v1/order"] = echo
            await stage.client.listen(stage.recorder)
            listening.set()
            await stage.recorder.until(
                lambda: Link.ORDERS in stage.recorder.links(StreamState.LOST)
            )
            (got,) = await asyncio.gather(*stage.client.place(orders(1)))
            assert got.verdict is Verdict.OK
            assert len(stage.venue.named("POST /fapi/v1/order")) == 1

        listening = asyncio.Event()
        on_stage(test, market=market, public=public, private=telling(), trade=once)

    def test_the_limits_hold_orders_but_not_cancels(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            got = stage.client.place(orders(46))
            held = await got[45]
            assert (held.verdict, held.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert held.retry_after_s > 0.0
            assert not got[44].done()
            urgent = stage.client.place(orders(1, client_id="u", reduce_only=True))
            cancel = stage.client.cancel([RESTING])
            assert not urgent[0].done()
            assert not cancel[0].done()
            await asyncio.gather(*got, *urgent, *cancel)

        on_stage(test, market=market, public=public, private=telling(), trade=answering(*[ok] * 47))


class TestListen:
    def test_everything_is_told(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            live = stage.recorder.links(StreamState.LIVE)
            assert live == {Link.TRADES, Link.BOOK, Link.PRIVATE, Link.ORDERS}
            await stage.recorder.until(
                lambda: all(
                    stage.recorder.named(name)
                    for name in ("trade", "quote", "fill", "order", "wallet", "position")
                )
            )
            await stage.client.close()
            closed = stage.recorder.links(StreamState.CLOSED)
            assert closed == live

        on_stage(
            test,
            market=market,
            public=public,
            private=telling(order_event(), account_event()),
            trade=answering(),
        )

    def test_clock_listen_key_and_trades_are_looked_after(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            work = {task.get_coro().__qualname__ for task in stage.client._sending._tasks}
            assert {"Http.keep_clock", "PrivateStream.keep", "TradeStream.watch"} <= work

        on_stage(test, market=market, public=public, private=telling())

    def test_a_settlement_is_read_over_rest(self, on_stage):
        event = account_event("FUNDING_FEE", P=[]) | {"T": NOW_MS}
        row = {
            "symbol": "BTCUSDT",
            "incomeType": "FUNDING_FEE",
            "income": "-0.5",
            "time": NOW_MS,
            "tranId": 9,
        }

        async def test(stage):
            asked = []

            def late(params):
                asked.append(params)
                return [row] if len(asked) > 1 else []

            stage.venue.routes["GET /fapi/v1/income"] = late
            await stage.client.listen(stage.recorder)
            await pumped(stage.clock, lambda: stage.recorder.named("payment"))
            ((payment,),) = stage.recorder.named("payment")
            assert (payment.id, payment.amount) == ("9", -0.5)

        on_stage(test, market=market, public=public, private=telling(event))

    def test_a_settlement_that_cannot_be_read_is_told(self, on_stage):
        event = account_event("FUNDING_FEE", P=[]) | {"T": NOW_MS}

        async def test(stage):
            await stage.client.listen(stage.recorder)
            done = (Link.PRIVATE, "a funding settlement could not be read")
            await pumped(stage.clock, lambda: done in stage.recorder.named("gap"))
            assert len(stage.venue.named("GET /fapi/v1/income")) == 5

        on_stage(test, market=market, public=public, private=telling(event))

    def test_no_secret_is_shown(self, on_stage, caplog):
        caplog.set_level(logging.DEBUG)
        shown = []

        async def test(stage):
            await stage.client.listen(stage.recorder)
            got = await asyncio.gather(*stage.client.place(orders(2)))
            shown.append(repr(got) + repr(stage.client) + repr(vars(stage.client)))
            shown.append(repr(stage.recorder.events))

        on_stage(test, market=market, public=public, private=telling(), trade=answering(ok, ok))
        text = "\n".join([*shown, caplog.text]).replace("ApiKey(key=cana…)", "")
        assert "canary" not in text
        assert "signature" not in text
