"""Preflight: what forbids to start, what is only said, and the worst case in figures."""

from __future__ import annotations

import asyncio
import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from passivx._core.grid import INVERSE_SHARE, LINEAR_SHARE
from passivx.clock import VirtualClock
from passivx.config import load_config
from passivx.errors import ConfigError, PassivxError, UnavailableError, VenueError
from passivx.exchanges.base import (
    Account,
    KeyRights,
    MarkPrice,
    Order,
    OrderStatus,
    PublicTrade,
    Rules,
)
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.venues import open_exchange
from passivx.live.preflight import Facts, Level, approve, gather, judge, render, worst_case
from passivx.models import Market, Position, Tier
from tests.configs import documents, valid
from tests.exchanges.conformance.conftest import Venue
from tests.simulator.process import serving

LINEAR = Market(
    price_step=1.0,
    qty_step=1.0,
    min_qty=1.0,
    min_cost=0.0,
    maker_fee=0.0,
    taker_fee=0.0005,
    max_leverage=100.0,
    inverse=False,
)
INVERSE = replace(LINEAR, inverse=True)
RIGHTS = KeyRights(can_trade=True, can_withdraw=False, read_only=False, detail="")
RULES = Rules(
    market=LINEAR,
    trading=True,
    min_price=1.0,
    max_price=1e6,
    max_qty=1e6,
    max_market_qty=1e6,
    max_orders=200,
    band_up=None,
    band_down=None,
    funding_interval_ms=28_800_000,
)
ACCOUNT = Account(
    wallet=1000.0,
    available=1000.0,
    position=Position(),
    leverage=10.0,
    cross_mode=True,
    one_way=True,
    can_trade=True,
    ts_ms=0,
)


def config_of(**changes):
    """A grid of 10 % whose re-entries double: from 100 it is at its end in a few orders."""
    grid = {
        "symbol": "TESTUSDT",
        "balance_pct": 1.0,
        "entry_qty_pct": 0.1,
        "ddown_factor": 1.0,
        "grid_spacing": 0.1,
        "grid_coefficient": 0.0,
        "indicator_settings__do_shrt": False,
    }
    return load_config(valid(**(grid | changes)))


def facts_of(*, rules=(), account=(), position=None, **changes):
    account = dict(account)
    if position is not None:
        account["position"] = position
    facts = Facts(
        symbol="TESTUSDT",
        rules=replace(RULES, **dict(rules)),
        account=replace(ACCOUNT, **account),
        price=100.0,
        mark_price=100.0,
        rights=RIGHTS,
        orders=(),
        clock_offset_s=0.0,
    )
    return replace(facts, **changes)


def order_of(client_id):
    return Order(
        client_id=client_id,
        order_id="1",
        side=1,
        price=90.0,
        qty=1.0,
        filled_qty=0.0,
        reduce_only=False,
        status=OrderStatus.NEW,
        ts_ms=0,
    )


def told(preflight, level):
    """Return what was found, by field."""
    found = {}
    for finding in preflight.findings:
        if finding.level is level:
            found.setdefault(finding.field, []).append(str(finding))
    return {field: " | ".join(texts) for field, texts in found.items()}


# --- the worst case, by hand ----------------------------------------------------------------------


def test_the_worst_case_of_a_linear_long():
    worst = worst_case(config_of(), LINEAR, wallet=1000.0, price=100.0, position=Position())
    # 10 @ 100, 10 @ 90, 20 @ 84, 40 @ 78, then room for 42 more below 0.92 × 10,000 / 75 = 122.7.
    # The next one, at 72, is beyond the liquidation price.
    assert worst.size == 122.0
    assert worst.notional == pytest.approx(9850.0)
    assert worst.entry_price == pytest.approx(9850.0 / 122.0)
    assert worst.reached_at == 75.0
    left = (9850.0 - 1000.0) / 0.996  # its worth when the wallet holds but 0.4 % of that
    assert worst.liq_price == pytest.approx(left / 122.0)
    assert worst.distance == pytest.approx(left / 122.0 / 100.0 - 1.0)
    assert worst.loss == pytest.approx(9850.0 - left + 0.0005 * left)
    assert worst.loss_share == pytest.approx(worst.loss / 1000.0)
    assert worst.complete


def test_the_worst_case_of_an_inverse_long():
    config = config_of(balance_pct=0.5, leverage=2, entry_qty_pct=0.5)
    worst = worst_case(config, INVERSE, wallet=1.0, price=100.0, position=Position())
    # 50 @ 100, then room for 35 more below 0.95 × 0.5 × 90 × 2 = 85.5; at 84 for none.
    value = 50 / 100 + 35 / 90
    assert worst.size == 85.0
    assert worst.notional == pytest.approx(value)
    assert worst.entry_price == pytest.approx(85 / value)
    assert worst.reached_at == 90.0
    left = (1.0 + value) / 1.005  # its worth when the wallet holds but 0.5 % of that
    assert worst.liq_price == pytest.approx(85 / left)
    assert worst.loss == pytest.approx(left - value + 0.0005 * left)


def test_isolated_no_more_than_the_margin_of_the_position_is_lost():
    config = config_of(cross_mode=False)
    worst = worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=Position())
    # A tenth of what it is worth backs it: 10 @ 100 are gone at 90.4, before the order at 90.
    assert (worst.size, worst.reached_at) == (10.0, 100.0)
    assert worst.liq_price == pytest.approx((1000.0 - 100.0) / 9.96)
    assert worst.loss == pytest.approx(1000.0 - 900.0 / 0.996 * (1.0 - 0.0005))
    assert worst.loss < 100.0


def test_what_is_never_liquidated_can_become_worthless():
    config = config_of(leverage=1, entry_qty_pct=0.5, ddown_factor=0.5)
    worst = worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=Position())
    assert worst.liq_price == 0.0
    assert worst.distance is None
    assert worst.loss == worst.notional


def test_shorts_are_the_mirror_image_and_the_larger_side_is_told():
    short = config_of(indicator_settings__do_long=False, indicator_settings__do_shrt=True)
    worst = worst_case(short, LINEAR, wallet=1000.0, price=100.0, position=Position())
    assert worst.size < 0.0
    assert worst.liq_price > worst.reached_at > 100.0
    assert worst.distance > 0.0
    both = config_of(indicator_settings__do_shrt=True)
    longs = worst_case(config_of(), LINEAR, wallet=1000.0, price=100.0, position=Position())
    told = worst_case(both, LINEAR, wallet=1000.0, price=100.0, position=Position())
    assert told == max((worst, longs), key=lambda case: case.notional)


def test_how_many_orders_rest_at_once_does_not_make_it_smaller():
    for n in (1, 2, 200):
        config = config_of(n_entry_orders=n, stop_loss_pos_price_diff=0.01)
        worst = worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=Position())
        assert (worst.size, worst.reached_at) == (122.0, 75.0)


def test_a_position_is_followed_from_where_it_is():
    neither = config_of(indicator_settings__do_long=False)
    held = Position(20.0, 95.0, 0.0)
    worst = worst_case(neither, LINEAR, wallet=1000.0, price=92.0, position=held)
    assert (worst.size, worst.reached_at) == (122.0, 75.0)
    config = config_of()
    # Larger than anything planned: nothing is added, and it is the worst.
    held = Position(-300.0, 100.0, 0.0)
    worst = worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=held)
    assert (worst.size, worst.entry_price) == (-300.0, 100.0)
    # Opened on the other side once it is closed, the smaller one is not.
    held = Position(-1.0, 100.0, 0.0)
    worst = worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=held)
    assert worst.size > 0.0


def test_a_ladder_without_end_is_said_to_be_one():
    market = replace(LINEAR, price_step=0.0001, qty_step=0.001, min_qty=0.001)
    config = config_of(ddown_factor=0.0, grid_spacing=0.0001, entry_qty_pct=1e-6)
    facts = facts_of(rules={"market": market}, account={"wallet": 1e6, "available": 1e6})
    preflight = judge(config, facts)
    assert not preflight.worst.complete
    assert "the worst case is worse" in told(preflight, Level.WARN)["ddown_factor"]
    assert " or more at " in text_of(preflight)


def test_neither_side_has_no_worst_case():
    config = config_of(indicator_settings__do_long=False)
    assert worst_case(config, LINEAR, wallet=1000.0, price=100.0, position=Position()) is None


# --- findings -------------------------------------------------------------------------------------


def test_everything_in_order():
    preflight = judge(config_of(), facts_of())
    assert preflight.refusals == ()
    assert told(preflight, Level.WARN) == {}
    assert set(told(preflight, Level.OK)) == {
        "API key", "symbol", "position mode", "margin mode", "leverage", "clock", "wallet",
    }  # fmt: skip


def rights(**changes):
    return {"rights": replace(RIGHTS, **changes)}


def market(**changes):
    return {"rules": {"market": replace(LINEAR, **changes)}}


TIERS = (
    Tier(floor=0.0, maintenance_rate=0.004, max_leverage=50.0),
    Tier(floor=500.0, maintenance_rate=0.01, max_leverage=5.0),
)


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        (rights(can_trade=False), "API key", "must be allowed to trade futures"),
        (rights(read_only=True), "API key", "may only read"),
        (rights(can_withdraw=True), "API key", "must not be allowed to withdraw"),
        ({"symbol": "OTHER"}, "symbol", "OTHER, was 'TESTUSDT'"),
        ({"rules": {"trading": False}}, "symbol", "must be trading"),
        ({"account": {"one_way": False}}, "position mode", "must be one-way, was hedge"),
        ({"account": {"can_trade": False}}, "account", "must be allowed to trade"),
        ({"account": {"wallet": 0.0}}, "wallet", "must be finite and > 0, was 0.0"),
        ({"account": {"wallet": math.nan}}, "wallet", "was nan"),
        ({"account": {"available": math.inf}}, "available", "was inf"),
        ({"account": {"leverage": 0.0}}, "account leverage", "was 0.0"),
        ({"price": math.nan}, "price", "was nan"),
        ({"price": 0.0}, "price", "was 0.0"),
        ({"price": 1.5, "mark_price": 1.5}, "price", "at least two price steps, 2, was 1.5"),
        ({"price": 112.0}, "price", "within 10% of the mark price of 100, was 112"),
        ({"mark_price": math.inf}, "mark_price", "was inf"),
        ({"rules": {"max_price": 90.0}}, "price", "limits of 1 and 90, was 100"),
        ({"rules": {"max_qty": 100.0}}, "balance_pct", "122, must fit into one order"),
        ({"account": {"wallet": 5.0}}, "entry_qty_pct", "below the venue's minimum of 1"),
        ({"clock_offset_s": math.nan}, "clock_offset_s", "was nan"),
        ({"position": Position(math.nan, 1.0, 0.0)}, "position size", "was nan"),
        ({"position": Position(1.5, 100.0, 0.0)}, "size", "whole steps of 1"),
        ({"position": Position(1.0, 0.0, 0.0)}, "entry_price", "must be finite and > 0"),
        ({"position": Position(1.0, 100.0, math.nan)}, "liq_price", "must be a finite number"),
        (market(max_leverage=9.0), "leverage", "must be at most 9 on this market, was 10"),
        (market(tiers=TIERS) | {"position": Position(9.0, 100.0, 0.0)}, "leverage",
         "at most 5 for the largest position, worth 900"),
        ({"position": Position(500.0, 110.0, 0.0)}, "leverage", "would be liquidated at 108.43"),
    ],
)  # fmt: skip
def test_what_forbids_to_start(changes, field, text):
    preflight = judge(config_of(), facts_of(**changes))
    refused = told(preflight, Level.REFUSE)
    assert field in refused, refused
    assert text in refused[field]
    assert all(f.remedy for f in preflight.refusals)
    assert preflight.findings[0].level is Level.REFUSE
    with pytest.raises(ConfigError, match="preflight") as caught:
        approve(preflight, yes=True, interactive=True, ask=lambda question: True)
    assert [p.field for p in caught.value.problems] == [f.field for f in preflight.refusals]


def test_room_for_no_order_at_all():
    config = config_of(entry_qty_pct=1.0, leverage=1)
    preflight = judge(config, facts_of(account={"wallet": 100.5, "leverage": 1.0}))
    assert "must hold a first entry" in told(preflight, Level.REFUSE)["wallet"]


@pytest.mark.parametrize(
    ("changes", "field", "text"),
    [
        (rights(can_trade=None, detail="not told"), "API key", "trade is not known (not told)"),
        (rights(can_withdraw=None), "API key", "withdraw is not known"),
        ({"account": {"cross_mode": False}}, "margin mode", "changed from isolated to cross"),
        ({"account": {"leverage": 20.0}}, "leverage", "changed from 20× to 10×"),
        ({"account": {"available": 400.0}}, "available", "400 of 1,000"),
        ({"clock_offset_s": 1.5}, "clock", "1.5 s behind the venue's"),
        ({"clock_offset_s": -2.0}, "clock", "2.0 s ahead of the venue's"),
        ({"orders": (order_of("web_1"), order_of("pvx-e-a-1"))}, "orders", "1 are not this bot's"),
        ({"position": Position(20.0, 95.0, 60.0)}, "position", "20 at 95 is taken over"),
        ({"rules": {"max_orders": 10}}, "n_entry_orders", "up to 19 orders at once"),
    ],
)
def test_what_is_only_said(changes, field, text):
    preflight = judge(config_of(), facts_of(**changes))
    assert preflight.refusals == ()
    assert text in told(preflight, Level.WARN)[field]


def test_both_sides_off_is_only_said():
    preflight = judge(config_of(indicator_settings__do_long=False), facts_of())
    assert preflight.refusals == ()
    assert "nothing will be opened" in told(preflight, Level.WARN)["indicator_settings"]


def test_a_key_that_may_withdraw_passes_where_that_is_allowed():
    preflight = judge(config_of(), facts_of(**rights(can_withdraw=True)), allow_withdraw=True)
    assert preflight.refusals == ()
    assert "may withdraw" in told(preflight, Level.WARN)["API key"]


def test_a_position_is_not_left_alone_because_the_wallet_has_shrunk():
    held = {"account": {"wallet": 5.0, "available": 3.0}, "position": Position(1.0, 100.0, 0.0)}
    config = config_of(leverage=100)
    assert judge(config, facts_of(account={"wallet": 5.0})).refusals
    preflight = judge(config, facts_of(**held))
    assert preflight.refusals == ()
    assert "entry_qty_pct" in told(preflight, Level.WARN)


def test_orders_of_an_earlier_run_are_no_warning():
    preflight = judge(config_of(), facts_of(orders=(order_of("pvx-e-a-1"),)))
    assert told(preflight, Level.WARN) == {}
    assert "1 of an earlier run" in told(preflight, Level.OK)["orders"]


# --- whatever a venue says ------------------------------------------------------------------------

ANY = st.floats() | st.sampled_from([0.0, -0.0, 1.0, 100.0, 1e-9, 1e12, 1e300, 5e-324])
POSITIONS = st.builds(Position, ANY, ANY, ANY)
STEPS = st.sampled_from([1e-8, 0.001, 0.05, 1.0, 25.0])
MARKETS = st.builds(
    Market,
    price_step=STEPS,
    qty_step=STEPS,
    min_qty=st.sampled_from([0.0, 0.001, 1.0, 1e6]),
    min_cost=st.sampled_from([0.0, 5.0, 1e9]),
    maker_fee=st.just(0.0),
    taker_fee=st.sampled_from([0.0, 0.0005, 0.09]),
    max_leverage=st.sampled_from([1.0, 125.0, 1e9]),
    inverse=st.booleans(),
    tiers=st.sampled_from([(), TIERS]),
)
FACTS = st.builds(
    Facts,
    symbol=st.just("X"),
    rules=st.builds(
        Rules,
        market=MARKETS,
        trading=st.booleans(),
        min_price=ANY,
        max_price=ANY,
        max_qty=ANY,
        max_market_qty=ANY,
        max_orders=st.integers(0, 1000),
        band_up=st.none(),
        band_down=st.none(),
        funding_interval_ms=st.just(1),
    ),
    account=st.builds(
        Account,
        wallet=ANY,
        available=ANY,
        position=st.just(Position()) | POSITIONS,
        leverage=ANY,
        cross_mode=st.booleans(),
        one_way=st.booleans(),
        can_trade=st.booleans(),
        ts_ms=st.just(0),
    ),
    price=ANY,
    mark_price=ANY,
    rights=st.builds(
        KeyRights,
        can_trade=st.none() | st.booleans(),
        can_withdraw=st.none() | st.booleans(),
        read_only=st.none() | st.booleans(),
        detail=st.text(max_size=5),
    ),
    orders=st.just(()),
    clock_offset_s=ANY,
)
SOBER = st.floats(1e-3, 1e6)


@settings(deadline=None)
@given(documents(), FACTS)
def test_it_always_comes_to_a_judgement(document, facts):
    preflight = judge(load_config(document), facts)
    assert all(finding.text for finding in preflight.findings)
    assert all(finding.remedy for finding in preflight.refusals)
    json.loads(preflight.to_json())
    Console(quiet=True).print(render(preflight))


@settings(deadline=None)
@given(documents(), FACTS, SOBER, SOBER)
def test_what_passes_is_worked_out(document, facts, wallet, price):
    account = replace(facts.account, wallet=wallet, available=wallet, leverage=1.0,
                      position=Position())  # fmt: skip
    rules = replace(facts.rules, min_price=0.0, max_price=1e9, max_qty=1e15)
    facts = replace(facts, account=account, rules=rules, price=price, mark_price=price,
                    clock_offset_s=0.0)  # fmt: skip
    worst = judge(load_config(document), facts).worst
    if worst is not None:
        assert 0.0 <= worst.loss <= wallet
        assert math.isfinite(worst.notional)


@settings(deadline=None)
@given(
    st.booleans(), st.booleans(), st.floats(1.0, 125.0), st.floats(0.001, 1.0),
    st.floats(0.0, 3.0), st.floats(0.001, 0.3), st.floats(0.0, 500.0), st.floats(0.1, 1.0),
    st.floats(10.0, 1e5), st.booleans(),
)  # fmt: skip
def test_it_never_exceeds_the_maximum_position(
    inverse, cross, leverage, entry, ddown, spacing, coefficient, share, wallet, short
):
    config = config_of(
        leverage=leverage, entry_qty_pct=entry, ddown_factor=ddown, grid_spacing=spacing,
        grid_coefficient=coefficient, balance_pct=share, cross_mode=cross,
        indicator_settings__do_long=not short, indicator_settings__do_shrt=short,
    )  # fmt: skip
    market = replace(INVERSE if inverse else LINEAR, qty_step=0.001, min_qty=0.001)
    worst = worst_case(config, market, wallet=wallet, price=100.0, position=Position())
    if worst is None:
        return
    # Of an order that the price has passed its ideal price counts: anywhere on the way.
    way = (worst.reached_at, 100.0)
    most = INVERSE_SHARE * wallet * share * max(way) * leverage
    if not inverse:
        most = LINEAR_SHARE * wallet * share / min(way) * leverage
    assert 0.0 < abs(worst.size) <= most * (1 + 1e-12)
    assert (worst.size < 0.0) is short
    assert worst.loss <= wallet


# --- showing and asking ---------------------------------------------------------------------------


def text_of(preflight):
    console = Console(width=1000, file=io.StringIO())
    console.print(render(preflight))
    return console.file.getvalue()


def test_what_a_person_reads():
    text = text_of(judge(config_of(), facts_of(orders=(order_of("web_1"),))))
    assert "!  orders" in text
    assert "✓  position mode" in text
    assert (
        "Worst case: long 122 at 80.737705, once every order to 75 has filled: worth 9,850, "
        "9.85 times the wallet of 1,000. It would be liquidated at 72.832313, -27.2% from the "
        "price now, and cost 968.901, 96.9% of the wallet." in text
    )
    text = text_of(judge(config_of(), facts_of(price=math.nan)))
    assert "✗  price" in text
    assert "none could be worked out" in text


def test_what_a_program_reads():
    row = json.loads(judge(config_of(), facts_of()).to_json())
    assert row["refused"] is False
    assert row["worst"]["size"] == 122.0
    assert row["findings"][0] == {"level": "ok", "field": "API key", "text": "may trade",
                                  "remedy": ""}  # fmt: skip
    assert json.loads(judge(config_of(), facts_of(price=math.nan)).to_json())["price"] is None


def test_somebody_is_asked_unless_it_was_said_beforehand():
    preflight = judge(config_of(), facts_of())
    asked = []

    def answer(yes):
        return lambda question: asked.append(question) or yes

    approve(preflight, yes=True, interactive=False, ask=answer(False))
    assert asked == []
    approve(preflight, yes=False, interactive=True, ask=answer(True))
    assert asked == ["Trade TESTUSDT with this?"]
    with pytest.raises(PassivxError, match="not confirmed"):
        approve(preflight, yes=False, interactive=True, ask=answer(False))
    with pytest.raises(ConfigError, match="--yes"):
        approve(preflight, yes=False, interactive=False, ask=answer(True))
    assert len(asked) == 2


# --- reading --------------------------------------------------------------------------------------


class Told:
    """An exchange that tells what it was made with; reading the account takes 300 ms."""

    symbol = "TESTUSDT"

    def __init__(self, clock, ts_ms, rights=RIGHTS, trades=(100.0,)):
        self.clock, self.ts_ms, self._rights, self._trades = clock, ts_ms, rights, trades

    async def rules(self):
        return RULES

    async def account(self):
        self.clock.advance(300)
        return replace(ACCOUNT, ts_ms=self.ts_ms)

    async def mark(self):
        return MarkPrice(mark_price=101.0, funding_rate=0.0, next_funding_ms=0, ts_ms=0)

    async def recent_trades(self, limit):
        return [
            PublicTrade(trade_id="1", price=price, qty=1.0, ts_ms=0, buyer_maker=True)
            for price in self._trades
        ]

    async def rights(self):
        if isinstance(self._rights, Exception):
            raise self._rights
        return self._rights

    async def open_orders(self):
        return [order_of("web_1")]


@pytest.mark.parametrize(
    ("ts_ms", "offset_s"), [(1000, 0.0), (1300, 0.0), (1299, 0.0), (2800, 1.5), (500, -0.5)]
)
def test_what_is_gathered(ts_ms, offset_s):
    clock = VirtualClock(1000)
    facts = asyncio.run(gather(Told(clock, ts_ms), clock))
    assert (facts.price, facts.mark_price, facts.symbol) == (100.0, 101.0, "TESTUSDT")
    assert facts.clock_offset_s == offset_s
    assert [order.client_id for order in facts.orders] == ["web_1"]


def test_rights_that_cannot_be_read_now_are_not_told():
    clock = VirtualClock(1000)
    facts = asyncio.run(gather(Told(clock, 1000, UnavailableError("GET /x: timed out")), clock))
    assert facts.rights.can_withdraw is None
    assert "timed out" in facts.rights.detail
    with pytest.raises(VenueError, match="refused"):
        asyncio.run(gather(Told(clock, 1000, VenueError("refused")), clock))


def test_a_market_without_a_trade_has_no_price():
    clock = VirtualClock(1000)
    with pytest.raises(VenueError, match="no trades"):
        asyncio.run(gather(Told(clock, 1000, trades=()), clock))


@pytest.fixture(params=["binance", "bybit"])
def venue(request, tmp_path):
    with serving("--exchange", request.param, "--synthetic", 7) as line:
        path = tmp_path / "endpoints.json"
        path.write_text(line)
        yield Venue(request.param, json.loads(line), path)


def test_at_a_venue(venue):
    async def look(config, **options):
        endpoints, symbol, key = load_endpoints(venue.path)
        exchange = open_exchange(endpoints=endpoints, symbol=symbol, key=key)
        try:
            return judge(config, await gather(exchange), **options)
        finally:
            await exchange.close()

    async def go():
        symbol = venue.line["symbol"]
        before = await venue.state()
        config = config_of(symbol=symbol, leverage=5, grid_spacing=0.01)
        preflight = await look(config)
        assert preflight.refusals == ()
        assert 0.0 < preflight.worst.loss <= preflight.wallet
        assert "leverage" in told(preflight, Level.WARN)
        # Nothing was changed.
        assert (await venue.state())["leverage"] == before["leverage"]

        await venue.fault({"do": "acct.rights", "trade": False, "withdraw": True})
        fields = [f.field for f in (await look(config)).refusals]
        assert fields == ["API key", "API key"]
        await venue.fault([{"do": "heal"}, {"do": "acct.rights", "withdraw": True}])
        assert len((await look(config)).refusals) == 1
        assert (await look(config, allow_withdraw=True)).refusals == ()

        await venue.fault([{"do": "heal"}, {"do": "mkt.status"}])
        assert [f.field for f in (await look(config)).refusals] == ["symbol"]
        await venue.fault([{"do": "heal"}, {"do": "acct.balance", "factor": 1e-6}])
        assert [f.field for f in (await look(config)).refusals] == ["entry_qty_pct"]
        await venue.fault({"do": "acct.balance", "factor": 1e6})

        qty = 100 if venue.name == "bybit" else 0.01
        rest = {"do": "ext.order", "side": "buy", "qty": qty, "price": round(preflight.price * 0.9)}
        await venue.fault([{"do": "ext.order", "side": "buy", "qty": qty}, rest])
        preflight = await look(config)
        assert preflight.refusals == ()
        assert {"position", "orders"} <= set(told(preflight, Level.WARN))
        too_bold = config_of(symbol=symbol, leverage=5000, entry_qty_pct=0.001)
        assert "leverage" in told(await look(too_bold), Level.REFUSE)

    asyncio.run(go())
