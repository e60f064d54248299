"""The client on a scripted venue: what it sets, what it sends where, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import random

import pytest

from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import (
    Exchange,
    Link,
    NewOrder,
    Reaction,
    Sink,
    Verdict,
)
from passivx.exchanges.bybit import wire
from passivx.exchanges.bybit.client import Bybit
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.stream import StreamState
from passivx.models import Position
from tests.exchanges.bybit.test_streams import (
    QUOTE,
    TICKER,
    TRADE,
    asked,
    logged_in,
    subscribed,
    told,
)
from tests.exchanges.bybit.test_trade import AUTHENTICATED, ok, refusing
from tests.exchanges.bybit.venue import (
    INSTRUMENT,
    KEY,
    NOW_MS,
    SECRET,
    Refused,
    Venue,
    batch,
    fill_row,
    offer,
    order_row,
    position_row,
)
from tests.exchanges.scripted import Drop, Scene, Status, absent, pumped, raising, without_pauses
from tests.exchanges.sink import Recorder
from tests.exchanges.ws_server import WsServer

RESTING = wire.order_of(order_row())


def orders(n, **changed):
    fields = {"side": 1, "price": 90000.0, "qty": 100.0} | changed
    return [NewOrder(**({"client_id": f"g-{i}"} | fields)) for i in range(n)]


class Account:
    """A venue with an account: its settings are as they were set."""

    def __init__(self, clock):
        self.venue = Venue(clock)
        self.unified, self.mode, self.leverage = 6, "REGULAR_MARGIN", "10"
        self.rejects, self.collateral = False, True
        self.position = {}
        self.obeys = True
        self.wallet = {
            "coin": "BTC",
            "walletBalance": "2.5",
            "totalPositionIM": "0.5",
            "totalOrderIM": "0.25",
            "locked": "0.125",
            "bonus": "",
        }
        offer(self.venue)
        self.venue.routes |= {
            "GET /v5/market/tickers": lambda f: {
                "list": [TICKER["data"] | {"indexPrice": "80000"}]
            },
            "GET /v5/account/info": lambda f: {
                "unifiedMarginStatus": self.unified,
                "marginMode": self.mode,
            },
            "GET /v5/account/wallet-balance": lambda f: {
                "list": [
                    {
                        "accountType": "UNIFIED",
                        "totalAvailableBalance": "40000",
                        "coin": [self.wallet | {"collateralSwitch": self.collateral}],
                    }
                ]
            },
            "GET /v5/account/user-setting-config": lambda f: {"lpaPerp": self.rejects},
            "GET /v5/position/list": lambda f: {
                "list": [position_row(leverage=self.leverage) | self.position]
            },
            "POST /v5/account/set-margin-mode": self.set_mode,
            "POST /v5/account/set-limit-px-action": self.set_price_limit,
            "POST /v5/position/set-leverage": self.set_leverage,
            "POST /v5/position/switch-mode": self.switch_mode,
        }

    def set_mode(self, fields):
        if self.obeys:
            self.mode = fields["setMarginMode"]
        return {"reasons": []}

    def set_price_limit(self, fields):
        assert fields == {"category": "inverse", "modifyEnable": False}
        self.rejects = self.obeys
        return {}

    def set_leverage(self, fields):
        assert fields["buyLeverage"] == fields["sellLeverage"]
        if fields["buyLeverage"] == self.leverage:
            raise Refused(110043, "leverage not modified")
        if self.obeys:
            self.leverage = fields["buyLeverage"]
        return {}

    def switch_mode(self, fields):
        raise Refused(110025, "Position mode is not modified")

    def set_to(self):
        """Return the settings that were asked for, in order."""
        return [name.rsplit("/")[-1] for name, _ in self.venue.calls if name.startswith("POST")]


@contextlib.asynccontextmanager
async def scene(clock, *, public=absent, private=absent, trade=absent, category="inverse"):
    """Set the stage; sockets without a script hang up."""
    account = Account(clock)
    async with contextlib.AsyncExitStack() as stack:
        venue = await stack.enter_async_context(account.venue)
        servers = [
            await stack.enter_async_context(WsServer(script))
            for script in (public, private, trade or absent)
        ]
        endpoints = Endpoints(
            exchange="bybit",
            rest=venue.url,
            ws_public=servers[0].url,
            ws_private=servers[1].url,
            ws_trade=servers[2].url if trade else None,
        )
        client = Bybit(
            endpoints=endpoints,
            symbol="BTCUSD",
            key=ApiKey(KEY, SECRET),
            category=category,
            clock=clock,
            rng=random.Random(1),
        )
        try:
            yield Scene(clock, account, client)
        finally:
            await client.close()


@pytest.fixture
def on_stage(run, clock):
    """Run a test on a scene; scripts are made for its clock."""

    def start(test, category="inverse", **scripts):
        async def go():
            made = {name: script and script(clock) for name, script in scripts.items()}
            async with scene(clock, category=category, **made) as stage:
                await test(stage)

        run(go())

    return start


def market(clock):
    async def script(peer):
        await peer.upgrade()
        await subscribed(peer)
        for message in (TRADE, QUOTE, TICKER):
            peer.send(json.dumps(message))
        await peer.gone()

    return script


def telling(*events):
    def made(clock):
        async def script(peer):
            await logged_in(peer, clock)
            await subscribed(peer)
            for event in events:
                peer.send(json.dumps(event))
            await peer.gone()

        return script

    return made


def answering(*answers):
    def made(clock):
        async def script(peer):
            await logged_in(peer, clock, AUTHENTICATED)
            for answer in answers:
                request = await asked(peer)
                if answer is not None:
                    peer.send(json.dumps(answer(request)))
            await peer.gone()

        return script

    return made


def accepted(fields):
    return {"orderId": "id-1", "orderLinkId": fields["orderLinkId"]}


def test_it_is_an_exchange():
    def take(exchange: Exchange, sink: Sink) -> None: ...

    take(Bybit.__new__(Bybit), Recorder())


class TestAccount:
    def test_cross(self, on_stage):
        async def test(stage):
            stage.account.position = {
                "side": "Sell",
                "size": "300",
                "avgPrice": "27464.5",
                "liqPrice": "51764.5",
            }
            got = await stage.client.account()
            assert (got.wallet, got.available) == (2.5, 0.5)
            assert got.position == Position(-300.0, 27464.5, 51764.5)
            assert (got.leverage, got.cross_mode, got.one_way, got.can_trade) == (
                10.0,
                True,
                True,
                True,
            )
            assert got.ts_ms == NOW_MS

        on_stage(test)

    def test_isolated(self, on_stage):
        async def test(stage):
            stage.account.mode = "ISOLATED_MARGIN"
            got = await stage.client.account()
            assert (got.available, got.cross_mode) == (2.5 - 0.5 - 0.25 - 0.125, False)
            stage.account.wallet["totalOrderIM"] = ""
            with pytest.raises(BadReplyError, match="totalOrderIM"):
                await stage.client.account()

        on_stage(test)

    def test_linear_is_counted_in_dollars(self, on_stage):
        async def test(stage):
            assert (await stage.client.account()).available == 40000.0

        on_stage(test, category="linear")

    @pytest.mark.parametrize(
        "position", [{"positionStatus": "Liq"}, {"isReduceOnly": True}, {"positionStatus": None}]
    )
    def test_what_may_not_trade(self, on_stage, position):
        async def test(stage):
            stage.account.position = position
            assert (await stage.client.account()).can_trade is False

        on_stage(test)

    @pytest.mark.parametrize(
        ("spoil", "match"),
        [
            (lambda a: a.wallet.update(coin="USDT"), "does not list BTC"),
            (lambda a: a.wallet.update(walletBalance=""), "walletBalance"),
            (lambda a: setattr(a, "leverage", ""), "leverage"),
            (lambda a: a.position.update(size=""), "size"),
            (lambda a: a.position.update(size="1", side="", avgPrice="5"), "side"),
            (lambda a: setattr(a, "mode", "PORTFOLIO_MARGIN"), "portfolio margin"),
            (lambda a: a.position.update(positionIdx=1), "hedge mode"),
        ],
    )
    def test_nothing_is_made_up(self, on_stage, spoil, match):
        async def test(stage):
            spoil(stage.account)
            with pytest.raises(VenueError, match=match):
                await stage.client.account()

        on_stage(test)

    def test_the_other_reads(self, on_stage):
        async def test(stage):
            stage.venue.routes |= {
                "GET /v5/order/realtime": lambda f: {"list": [order_row()]},
                "GET /v5/execution/list": lambda f: {
                    "list": [fill_row(), fill_row(execId="p", execType="Funding")]
                },
                "GET /v5/market/recent-trade": lambda f: {"list": []},
            }
            client = stage.client
            assert (await client.mark()).mark_price == 90010.0
            assert [o.client_id for o in await client.open_orders()] == ["grid-1"]
            assert (await client.find("grid-1")).order_id == "id-77"
            assert [f.trade_id for f in await client.fills(NOW_MS - 1)] == ["e-1"]
            assert [p.id for p in await client.payments(NOW_MS - 1)] == ["p"]
            assert await client.recent_trades(5) == []
            assert await client.dead_man(30.0) is False

        on_stage(test)


class TestPrepare:
    def test_everything_is_set_and_looked_at(self, on_stage):
        async def test(stage):
            await stage.client.prepare(leverage=7, cross_mode=False)
            assert stage.account.set_to() == [
                "set-margin-mode",
                "set-limit-px-action",
                "set-leverage",
            ]
            looked = [name for name, _ in stage.venue.calls[-6:]]
            for path in ("account/info", "position/list", "account/user-setting-config"):
                assert f"GET /v5/{path}" in looked

        on_stage(test)

    @pytest.mark.parametrize("status", [5, 6])
    def test_already_so_is_success(self, on_stage, status):
        async def test(stage):
            stage.account.unified = status
            stage.account.rejects = True
            await stage.client.prepare(leverage=10, cross_mode=True)
            assert stage.account.set_to() == ["set-leverage"]

        on_stage(test)

    def test_linear_is_set_to_one_way(self, on_stage):
        async def test(stage):
            stage.account.rejects = True
            stage.account.unified = 4
            await stage.client.prepare(leverage=10, cross_mode=True)
            (fields,) = stage.venue.named("POST /v5/position/switch-mode")
            assert fields == {"category": "linear", "symbol": "BTCUSD", "mode": 0}

        on_stage(test, category="linear")

    @pytest.mark.parametrize("code", [110025, 110026, 110027, 34040])
    def test_every_code_for_it(self, on_stage, code):
        async def test(stage):
            def route(fields):
                stage.account.mode = fields["setMarginMode"]
                raise Refused(code, "not modified")

            stage.venue.routes["POST /v5/account/set-margin-mode"] = route
            await stage.client.prepare(leverage=10, cross_mode=False)

        on_stage(test)

    @pytest.mark.parametrize(
        ("leverage", "cross", "match"),
        [
            (7, True, "leverage and margin mode must be 7 and cross, were 10 and cross"),
            (10, False, "must be 10 and isolated, were 10 and cross"),
            (10, True, "lpaPerp: must be true"),
        ],
    )
    def test_what_does_not_hold_is_refused(self, on_stage, leverage, cross, match):
        async def test(stage):
            stage.account.obeys = False
            stage.account.rejects = "lpaPerp" not in match
            with pytest.raises(VenueError, match=match):
                await stage.client.prepare(leverage=leverage, cross_mode=cross)

        on_stage(test)

    def test_an_unknown_outcome_is_decided_by_looking(self, on_stage):
        async def test(stage):
            def cut(fields):
                stage.account.set_leverage(fields)
                raise Drop

            stage.venue.routes["POST /v5/position/set-leverage"] = cut
            await stage.client.prepare(leverage=7, cross_mode=True)
            assert len(stage.venue.named("POST /v5/position/set-leverage")) == 1

        on_stage(test)

    @pytest.mark.parametrize(
        ("path", "code", "match"),
        [
            ("position/set-leverage", 110013, "leverage 7: could not be set: because; choose"),
            ("position/set-leverage", 10005, "leverage 7"),
            ("account/set-limit-px-action", 10005, "price band"),
            ("account/set-margin-mode", 110028, "margin mode isolated"),
        ],
    )
    def test_a_setting_that_is_refused(self, on_stage, path, code, match):
        async def test(stage):
            stage.venue.routes[f"POST /v5/{path}"] = raising(Refused(code, "because"))
            with pytest.raises(VenueError, match=match) as e:
                await stage.client.prepare(leverage=7, cross_mode=False)
            assert e.value.code == code

        on_stage(test)

    def test_the_reasons_of_a_refused_margin_mode(self, on_stage):
        async def test(stage):
            def route(fields):
                reason = {"reasonCode": "3400000", "reasonMsg": "Equity is too small"}
                raise Refused(3400045, "Set margin mode failed", reasons=[reason])

            stage.venue.routes["POST /v5/account/set-margin-mode"] = route
            with pytest.raises(
                VenueError, match=r"failed \(Equity is too small\); it is the whole"
            ):
                await stage.client.prepare(leverage=7, cross_mode=False)

        on_stage(test)

    @pytest.mark.parametrize("status", [1, 3, 4, None, "6"])
    def test_inverse_needs_a_unified_account(self, on_stage, status):
        async def test(stage):
            stage.account.unified = status
            with pytest.raises(VenueError, match="upgrade the account"):
                await stage.client.prepare(leverage=7, cross_mode=True)
            assert stage.account.set_to() == []

        on_stage(test)

    def test_cross_margin_needs_the_coin_as_collateral(self, on_stage):
        async def test(stage):
            stage.account.collateral = False
            with pytest.raises(VenueError, match="switch BTC on") as e:
                await stage.client.prepare(leverage=7, cross_mode=True)
            assert e.value.code == 110101
            await stage.client.prepare(leverage=7, cross_mode=False)
            stage.account.collateral = None
            with pytest.raises(BadReplyError, match="collateralSwitch"):
                await stage.client.prepare(leverage=7, cross_mode=True)

        on_stage(test)

    def test_a_position_that_is_being_liquidated(self, on_stage):
        async def test(stage):
            stage.account.position = {"positionStatus": "Liq"}
            with pytest.raises(VenueError, match="positionStatus"):
                await stage.client.prepare(leverage=7, cross_mode=True)

        on_stage(test)


class TestOverRest:
    """While the trade socket is not live."""

    def test_rules_come_first(self, on_stage):
        async def test(stage):
            with pytest.raises(VenueError, match="rules"):
                stage.client.place(orders(1))
            with pytest.raises(VenueError, match="rules"):
                stage.client.amend(RESTING, price=1.0)

        on_stage(test)

    def test_one_order(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/create"] = accepted
            await stage.client.rules()
            (got,) = await asyncio.gather(*stage.client.place(orders(1)))
            assert (got.verdict, got.order.client_id) == (Verdict.OK, "g-0")
            assert stage.client._sending._tasks == set()

        on_stage(test)

    def test_batches_of_ten_as_the_limit_allows(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f)
            await stage.client.rules()
            got = await asyncio.gather(*stage.client.place(orders(14)))
            assert [o.order.client_id for o in got[:10]] == [f"g-{i}" for i in range(10)]
            # The second of ten orders is used up: the rest is known not to have left.
            assert {(o.verdict, o.reaction) for o in got[10:]} == {
                (Verdict.REJECTED, Reaction.BACK_OFF)
            }
            await stage.clock.run(1100)
            got = await asyncio.gather(*stage.client.place(orders(14)[10:]))
            assert [o.order.client_id for o in got] == [f"g-{i}" for i in range(10, 14)]
            sizes = [len(f["request"]) for f in stage.venue.named("POST /v5/order/create-batch")]
            assert sizes == [10, 4]

        on_stage(test)

    def test_what_cannot_be_written_does_not_hold_up_the_rest(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f)
            await stage.client.rules()
            some = orders(4)
            some[1] = dataclasses.replace(some[1], price=90000.25)
            some[2] = dataclasses.replace(some[2], client_id="no blanks please")
            got = await asyncio.gather(*stage.client.place(some))
            ok, no = Verdict.OK, Verdict.REJECTED
            assert [o.verdict for o in got] == [ok, no, no, ok]
            assert got[1].reaction is Reaction.DROP
            assert got[1].text.startswith("not sent")
            change = stage.client.amend(RESTING, price=90000.25)
            assert ((await change).verdict, (await change).reaction) == (no, Reaction.DROP)

        on_stage(test)

    def test_cancels(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/cancel"] = lambda f: {"orderId": f["orderId"]}
            stage.venue.routes["POST /v5/order/cancel-batch"] = lambda f: batch(f, 0, 110001)
            (got,) = await asyncio.gather(*stage.client.cancel([RESTING]))
            assert got.verdict is Verdict.OK
            got = await asyncio.gather(*stage.client.cancel([RESTING, RESTING]))
            assert [o.reaction for o in got] == [Reaction.NONE, Reaction.GONE]

        on_stage(test)

    def test_an_amendment(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/amend"] = lambda f: {"orderId": f["orderId"]}
            await stage.client.rules()
            assert (await stage.client.amend(RESTING, price=89999.5)).verdict is Verdict.OK
            fields = stage.venue.calls[-1][1]
            assert (fields["price"], fields["qty"]) == ("89999.5", "100")

        on_stage(test)

    def test_nothing_to_send(self, on_stage):
        async def test(stage):
            await stage.client.rules()
            assert stage.client.place([]) == stage.client.cancel([]) == []

        on_stage(test)

    def test_closing_leaves_no_future_open(self, on_stage):
        async def test(stage):
            await stage.client.rules()
            stage.venue.routes["POST /v5/order/create"] = accepted
            sent = stage.client.place(orders(1)) + stage.client.cancel([RESTING])
            await stage.client.close()
            got = await asyncio.gather(*sent)
            assert all(o.verdict is not Verdict.OK for o in got)

        on_stage(test)


class TestCancelAll:
    def test_until_none_is_left(self, on_stage):
        async def test(stage):
            left = [order_row(orderId=str(i)) for i in range(3)]

            def cancel(fields):
                assert fields == {"category": "inverse", "symbol": "BTCUSD"}
                del left[:2]
                return {"list": [], "success": "1"}

            stage.venue.routes["POST /v5/order/cancel-all"] = cancel
            stage.venue.routes["GET /v5/order/realtime"] = lambda f: {"list": list(left)}
            got = await without_pauses(stage.clock, stage.client.cancel_all())
            assert got.verdict is Verdict.OK
            assert len(stage.venue.named("POST /v5/order/cancel-all")) == 2

        on_stage(test)

    def test_what_stays_is_told(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/cancel-all"] = lambda f: {"list": []}
            stage.venue.routes["GET /v5/order/realtime"] = lambda f: {"list": [order_row()]}
            got = await without_pauses(stage.clock, stage.client.cancel_all())
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert len(stage.venue.named("POST /v5/order/cancel-all")) == 5

        on_stage(test)

    def test_what_cannot_be_looked_at_is_unknown(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/cancel-all"] = lambda f: {"list": []}
            stage.venue.routes["GET /v5/order/realtime"] = raising(Status(503, b""))
            got = await without_pauses(stage.clock, stage.client.cancel_all())
            assert (got.verdict, got.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)

        on_stage(test)

    def test_a_refusal(self, on_stage):
        async def test(stage):
            stage.venue.routes["POST /v5/order/cancel-all"] = raising(
                Refused(10005, "Permission denied")
            )
            got = await stage.client.cancel_all()
            assert (got.verdict, got.reaction) == (Verdict.REJECTED, Reaction.HALT)

        on_stage(test)


class TestOverTheSocket:
    def test_orders_cancels_amendments(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            rest = len(stage.venue.calls)
            got = await asyncio.gather(*stage.client.place(orders(3)))
            assert [o.order.client_id for o in got] == ["g-0", "g-1", "g-2"]
            (got,) = await asyncio.gather(*stage.client.cancel([RESTING]))
            assert got.verdict is Verdict.OK
            assert (await stage.client.amend(RESTING, price=89999.5)).verdict is Verdict.OK
            off = stage.client.place(orders(1, price=90000.25))
            assert ((await off[0]).verdict, (await off[0]).reaction) == (
                Verdict.REJECTED,
                Reaction.DROP,
            )
            assert len(stage.venue.calls) == rest

        on_stage(test, public=market, private=telling(), trade=answering(*[ok] * 5))

    def test_rest_takes_over(self, on_stage):
        def once(clock):
            async def script(peer):
                await logged_in(peer, clock, AUTHENTICATED)
                await listening.wait()
                peer.cut()

            return script

        async def test(stage):
            stage.venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f)
            await stage.client.listen(stage.recorder)
            listening.set()
            await stage.recorder.until(
                lambda: Link.ORDERS in stage.recorder.links(StreamState.LOST)
            )
            got = await asyncio.gather(*stage.client.place(orders(10)))
            assert [o.verdict for o in got] == [Verdict.OK] * 10
            assert len(stage.venue.named("POST /v5/order/create-batch")) == 1

        listening = asyncio.Event()
        on_stage(test, public=market, private=telling(), trade=once)

    def test_the_limits_hold_orders_but_not_cancels(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            got = stage.client.place(orders(10))
            held = await got[9]
            assert (held.verdict, held.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert held.retry_after_s > 0.0
            assert not got[8].done()
            urgent = stage.client.place(orders(1, client_id="u", reduce_only=True))
            cancels = stage.client.cancel([RESTING] * 10)
            assert not any(each.done() for each in urgent + cancels)
            (over,) = stage.client.cancel([RESTING])
            assert (await over).reaction is Reaction.BACK_OFF
            await asyncio.gather(*got, *urgent, *cancels)

        full = [lambda request: ok(request) | {"header": {}}] * 20
        on_stage(test, public=market, private=telling(), trade=answering(*full))

    def test_a_refused_time_stamp_has_the_clock_looked_at(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            # Beyond the pause between two looks.
            await stage.clock.run(2000)
            looks = len(stage.venue.seen)
            (got,) = await asyncio.gather(*stage.client.place(orders(1)))
            assert got.reaction is Reaction.RESYNC_CLOCK
            await pumped(stage.clock, lambda: len(stage.venue.seen) >= looks + 5)

        on_stage(test, public=market, private=telling(), trade=answering(refusing(10002)))

    def test_new_rules_are_written_by_at_once(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            prices = INSTRUMENT["priceFilter"] | {"tickSize": "0.1"}
            finer = INSTRUMENT | {"priceFilter": prices}
            offer(stage.venue, finer)
            await stage.client.rules()
            (got,) = await asyncio.gather(*stage.client.place(orders(1, price=90000.1)))
            assert (got.verdict, got.order.price) == (Verdict.OK, 90000.1)

        on_stage(test, public=market, private=telling(), trade=answering(ok))

    def test_closing_with_orders_under_way(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            sent = stage.client.place(orders(2))
            await asyncio.sleep(0)
            await stage.client.close()
            got = await asyncio.gather(*sent)
            assert [o.verdict for o in got] == [Verdict.UNKNOWN] * 2

        on_stage(test, public=market, private=telling(), trade=answering(None, None))


class TestListen:
    def test_everything_is_told(self, on_stage):
        events = [
            told("order.inverse", order_row()),
            told("execution.inverse", fill_row(), fill_row(execType="Funding", execId="f")),
            told("position.inverse", position_row(side="Buy", size="100", avgPrice="90000")),
            told("wallet", {"coin": [{"coin": "BTC", "walletBalance": "2.5"}]}),
        ]

        async def test(stage):
            await stage.client.listen(stage.recorder)
            live = stage.recorder.links(StreamState.LIVE)
            assert live == {Link.TRADES, Link.BOOK, Link.PRIVATE, Link.ORDERS}
            names = (
                "trade",
                "quote",
                "mark",
                "order",
                "fill",
                "payment",
                "position",
                "wallet",
            )
            await stage.recorder.until(lambda: all(stage.recorder.named(name) for name in names))
            await stage.client.close()
            closed = stage.recorder.links(StreamState.CLOSED)
            assert closed == live

        on_stage(test, public=market, private=telling(*events), trade=answering())

    def test_without_a_trade_socket_orders_go_by_rest(self, on_stage):
        async def test(stage):
            await stage.client.listen(stage.recorder)
            stage.venue.routes["POST /v5/order/create"] = accepted
            stage.venue.routes["POST /v5/order/cancel"] = lambda f: {"orderId": f["orderId"]}
            # As in the demo, which takes no batches of inverse contracts either.
            sent = stage.client.place(orders(3)) + stage.client.cancel([RESTING] * 2)
            assert [o.verdict for o in await asyncio.gather(*sent)] == [Verdict.OK] * 5
            assert Link.ORDERS not in {e[0] for e in stage.recorder.named("link")}

        on_stage(test, public=market, private=telling(), trade=None)

    def test_linear_goes_in_batches_all_the_same(self, on_stage):
        async def test(stage):
            linear = INSTRUMENT["lotSizeFilter"] | {"minNotionalValue": "5"}
            row = INSTRUMENT | {"contractType": "LinearPerpetual", "lotSizeFilter": linear}
            offer(stage.venue, row)
            stage.venue.routes["POST /v5/order/create-batch"] = lambda f: batch(f)
            assert (await stage.client.rules()).market.min_cost == 5.0
            got = await asyncio.gather(*stage.client.place(orders(3)))
            assert [o.verdict for o in got] == [Verdict.OK] * 3

        on_stage(test, category="linear", trade=None)

    def test_a_silent_topic_of_trades_is_asked_about(self, on_stage):
        def quiet(clock):
            async def script(peer):
                await peer.upgrade()
                await subscribed(peer)
                while True:
                    peer.send(json.dumps(QUOTE))
                    peer.send(json.dumps(TICKER))
                    await peer.writer.drain()
                    await asyncio.sleep(0.0005)

            return script

        async def test(stage):
            row = {
                "symbol": "BTCUSD",
                "execId": "x",
                "price": "90000",
                "size": "1",
                "side": "Buy",
                "time": str(NOW_MS + 10_000),
            }
            stage.venue.routes["GET /v5/market/recent-trade"] = lambda f: {"list": [row]}
            await stage.client.listen(stage.recorder)
            reason = "no data of publicTrade.BTCUSD, but there are trades"
            await pumped(
                stage.clock,
                lambda: (Link.TRADES, StreamState.LOST, reason) in stage.recorder.named("link"),
            )

        on_stage(test, public=quiet, private=telling(), trade=answering())

    def test_no_secret_is_shown(self, on_stage, caplog):
        caplog.set_level(logging.DEBUG)
        shown = []

        async def test(stage):
            await stage.client.listen(stage.recorder)
            got = await asyncio.gather(*stage.client.place(orders(2)))
            await stage.client.account()
            shown.append(repr(got) + repr(stage.client) + repr(vars(stage.client)))
            shown.append(repr(stage.recorder.events))
            shown.extend(
                seen.headers["x-bapi-sign"]
                for seen in stage.venue.seen
                if "x-bapi-sign" in seen.headers
            )

        on_stage(test, public=market, private=telling(), trade=answering(ok, ok))
        values, events, *signatures = shown
        text = "\n".join([values, events, caplog.text]).replace("ApiKey(key=cana…)", "")
        assert "canary" not in text
        assert signatures
        assert not any(signature in text for signature in signatures)
