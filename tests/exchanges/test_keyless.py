"""A client without a key: what is public is had, everything else is refused at once."""

from __future__ import annotations

import asyncio

import pytest

from passivx.clock import VirtualClock
from passivx.errors import ConfigError, VenueError
from passivx.exchanges.base import Exchange, NewOrder, Order, OrderStatus
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keyless import Keyless
from passivx.exchanges.venues import open_exchange
from passivx.models import Market, Tier
from tests.exchanges.binance.test_client import Account as BinanceAccount
from tests.exchanges.bybit.test_client import Account as BybitAccount

NOW_MS = 1_767_225_612_345
# Nobody listens there: what is sent fails otherwise than it should.
NOWHERE = "http://127.0.0.1:9"
ACCOUNTS = {"binance": BinanceAccount, "bybit": BybitAccount}
SYMBOLS = {"binance": "BTCUSDT", "bybit": "BTCUSD"}


def endpoints(exchange, rest=NOWHERE):
    return Endpoints(
        exchange=exchange,
        rest=rest,
        ws_public="ws://127.0.0.1:9/public",
        ws_private="ws://127.0.0.1:9/private",
        ws_market="ws://127.0.0.1:9/market",
        ws_trade="ws://127.0.0.1:9/trade",
    )


def assumed(exchange, **changes):
    """Return a market that is another one than the venue's in everything."""
    fields = {
        "price_step": 7.0,
        "qty_step": 7.0,
        "min_qty": 7.0,
        "min_cost": 7.0,
        "maker_fee": 0.0111,
        "taker_fee": 0.0222,
        "max_leverage": 33.0,
        "inverse": exchange == "bybit",
        "tiers": (Tier(floor=0.0, maintenance_rate=0.0123, max_leverage=33.0),),
    }
    return Market(**(fields | changes))


@pytest.fixture(params=["binance", "bybit"])
def exchange(request):
    return request.param


@pytest.fixture
def ask(exchange, run):
    """Ask a client without a key something; return that, and which routes the venue served."""

    def ask(question, market=None):
        async def asked():
            clock = VirtualClock(NOW_MS)
            async with ACCOUNTS[exchange](clock).venue as venue:
                client = open_exchange(
                    endpoints=endpoints(exchange, venue.url),
                    symbol=SYMBOLS[exchange],
                    key=None,
                    assumed=market,
                    clock=clock,
                )
                try:
                    return await question(client), {name.split("/")[-1] for name, _ in venue.calls}
                finally:
                    await client.close()

        return run(asked())

    return ask


def test_no_key_makes_a_client_of_its_own(exchange):
    client: Exchange = open_exchange(
        endpoints=endpoints(exchange), symbol=SYMBOLS[exchange], key=None
    )
    assert type(client) is Keyless
    assert (client.name, client.symbol) == (exchange, SYMBOLS[exchange])


def test_rules_say_what_was_assumed_and_the_rest_is_the_venues(exchange, ask):
    own = assumed(exchange)
    rules, routes = ask(lambda client: client.rules(), own)
    market = rules.market
    taken = {"maker_fee", "taker_fee"}
    if exchange == "binance":
        taken |= {"max_leverage", "tiers"}
        assert routes == {"exchangeInfo", "fundingInfo"}
        assert (market.price_step, market.qty_step, market.min_cost) == (0.1, 0.001, 100.0)
        assert market.liquidation_fee == 0.0125
    else:
        assert routes == {"instruments-info", "risk-limit"}
        assert (market.price_step, market.qty_step, market.min_cost) == (0.5, 1.0, 0.0)
        assert [tier.maintenance_rate for tier in market.tiers] == [0.005, 0.01]
        assert market.max_leverage == 100.0
    assert set(rules.assumed) == taken
    assert all(getattr(market, name) == getattr(own, name) for name in taken)
    assert rules.trading


def test_tiers_that_nobody_gave_stay_unknown(exchange, ask):
    # The core then assumes its one tier, as for any market file without them.
    rules, _ = ask(lambda client: client.rules(), assumed(exchange, tiers=()))
    assert (rules.market.tiers == ()) is (exchange == "binance")


def test_nothing_is_made_up_without_an_assumed_market(ask):
    async def refused(client):
        with pytest.raises(VenueError, match="needs an API key, or a market file"):
            await client.rules()

    assert ask(refused) == (None, set())


def test_an_assumed_market_of_the_other_kind(exchange, ask):
    async def refused(client):
        with pytest.raises(ConfigError, match=f"{SYMBOLS[exchange]} is a") as caught:
            await client.rules()
        assert caught.value.problems[0].field == "inverse"

    ask(refused, assumed(exchange, inverse=exchange != "bybit"))


RESTING = Order(
    client_id="x",
    order_id="1",
    side=1,
    price=90000.0,
    qty=1.0,
    filled_qty=0.0,
    reduce_only=False,
    status=OrderStatus.NEW,
    ts_ms=0,
)
PRIVATE = {
    "account": lambda client: client.account(),
    "rights": lambda client: client.rights(),
    "prepare": lambda client: client.prepare(leverage=5, cross_mode=True),
    "open orders": lambda client: client.open_orders(),
    "find": lambda client: client.find("x"),
    "fills": lambda client: client.fills(0),
    "payments": lambda client: client.payments(0),
    "place": lambda client: client.place([NewOrder(client_id="x", side=1, price=1.0, qty=1.0)]),
    "cancel": lambda client: client.cancel([RESTING]),
    "cancel all": lambda client: client.cancel_all(),
    "dead man's switch": lambda client: client.dead_man(60.0),
}


@pytest.mark.parametrize("what", PRIVATE)
def test_what_is_the_accounts_is_refused_before_anything_is_sent(exchange, what):
    async def main():
        client = open_exchange(endpoints=endpoints(exchange), symbol=SYMBOLS[exchange], key=None)

        async def call():
            answer = PRIVATE[what](client)
            if asyncio.iscoroutine(answer):
                await answer

        with pytest.raises(VenueError, match=f"^{what}: needs an API key") as caught:
            await call()
        # Not an UnavailableError: it never went out.
        assert type(caught.value) is VenueError

    asyncio.run(main())


def test_every_member_of_the_protocol_is_either_public_or_refused():
    members = {name for name in vars(Exchange) if not name.startswith("_")}
    public = {"rules", "mark", "recent_trades", "listen", "close"}
    refused = {name.replace(" ", "_").replace("dead_man's_switch", "dead_man") for name in PRIVATE}
    assert members == public | refused
