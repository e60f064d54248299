"""The Python face of the planner: what it accepts, what it refuses, what a ladder says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from passivx import ConfigError, Market, Position, load_config, plan_orders
from passivx.planner import liquidation_price, plan_rungs
from tests.configs import valid

MARKET = Market(
    price_step=0.1,
    qty_step=0.001,
    min_qty=0.001,
    min_cost=5.0,
    maker_fee=0.0002,
    taker_fee=0.0005,
    max_leverage=50,
    inverse=False,
)
LONG = Position(0.01, 40_000.0, 0.0)


def plan(**changes):
    given = {"wallet": 1000.0, "last_price": 40_000.0, "ema": 40_000.0}
    return plan_orders(load_config(valid()), MARKET, **given | changes)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"wallet": None}, {"wallet", "equity"}),
        ({"wallet": "1000"}, {"wallet", "equity"}),
        ({"wallet": 10**400}, {"wallet", "equity"}),
        ({"equity": math.nan}, {"equity"}),
        ({"last_price": 0.1}, {"bid"}),
        ({"last_price": -5.0, "ema": math.inf}, {"last_price", "bid", "ask", "ema"}),
        ({"last_price": 1e12}, {"last_price", "bid", "ask"}),
        ({"bid": 40_001.0, "ask": 40_000.0}, {"bid"}),
        ({"position": Position(0.0106, 40_000.0)}, {"size", "close_base"}),
        ({"position": Position(math.nan, 40_000.0)}, {"size", "close_base"}),
        ({"position": Position(0.01, 0.0)}, {"entry_price"}),
        ({"position": Position(0.01, 40_000.0, math.inf)}, {"liq_price"}),
        ({"position": LONG, "close_base": 1e300}, {"close_base"}),
        ({"position": LONG, "close_base": math.inf}, {"close_base"}),
        ({"funding_rate": math.inf}, {"funding_rate"}),
    ],
)
def test_everything_unusable_is_named_at_once(changes, fields):
    with pytest.raises(ConfigError) as caught:
        plan(**changes)
    assert {problem.field for problem in caught.value.problems} == fields


def test_prices_off_the_grid_do_not_leave_it():
    stop = plan(position=Position(0.01, 50_000.0), last_price=39_990.0437, ask=39_990.1437)[0]
    assert stop.kind == "stop_loss_pos_price_diff"
    assert stop.price == 39_990.1


def test_funding_rate_is_only_needed_when_flat():
    document = valid()
    document["indicator_settings"]["funding_fee_collect_mode"] = True
    config = load_config(document)
    given = {"wallet": 1000.0, "last_price": 40_000.0, "ema": 40_000.0}
    with pytest.raises(ConfigError, match="funding_rate"):
        plan_orders(config, MARKET, **given)
    assert plan_orders(config, MARKET, position=LONG, **given)


def test_a_market_stop_is_marked():
    config = load_config(valid(market_stop_loss=True))
    orders = plan_orders(
        config,
        MARKET,
        wallet=1000.0,
        last_price=40_000.0,
        ema=40_000.0,
        position=Position(0.01, 55_000.0),
    )
    assert [order.market for order in orders] == [True] + [False] * (len(orders) - 1)


def test_isolated_liquidation_counts_the_venues_whole_leverage():
    # 3x: margin 40000 / 3; long LP = (margin - 40000) / (0.004 - 1)
    config = load_config(valid(cross_mode=False, leverage=2.5))
    price = liquidation_price(config, MARKET, wallet=1e6, size=1.0, entry_price=40_000.0)
    assert price == pytest.approx((40_000 / 3 - 40_000) / -0.996)


def test_rungs_past_liquidation_are_marked_from_there_on():
    # Inverse, 59x: three re-entries in, the next one lies beyond the liquidation price.
    contracts = replace(MARKET, inverse=True, price_step=0.5, qty_step=1.0, min_qty=1.0)
    config = load_config(
        valid(leverage=59, grid_spacing=0.00221, grid_coefficient=639.4, ddown_factor=2.186)
    )
    liq = liquidation_price(config, contracts, wallet=0.1, size=-3000, entry_price=59_800.0)
    rungs = plan_rungs(
        config,
        contracts,
        wallet=0.1,
        last_price=60_000.0,
        ema=60_000.0,
        position=Position(-3000.0, 59_800.0, liq),
    )
    marks = [rung.past_liquidation for rung in rungs if not rung.order.reduce_only]
    assert marks[0] is False
    assert marks[-1] is True
    assert marks == sorted(marks)
