"""Market rules: files that read back, caps by leverage, and the balance a config needs."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx import Market, Tier, load_config, load_market, plan_orders
from passivx.venue import least_balance, venue_problems
from tests.configs import valid

RULES = {
    "price_step": 0.1,
    "qty_step": 0.001,
    "min_qty": 0.001,
    "min_cost": 100.0,
    "maker_fee": -0.0001,
    "taker_fee": 0.0005,
    "max_leverage": 125,
    "inverse": False,
}
TIERS = (
    Tier(floor=0, maintenance_rate=0.004, max_leverage=125),
    Tier(floor=50_000, maintenance_rate=0.005, deduction=50, max_leverage=100),
    Tier(floor=250_000, maintenance_rate=0.01, deduction=1300, max_leverage=50),
)


@pytest.mark.parametrize("tiers", [(), TIERS, (Tier(floor=0, maintenance_rate=0.01),)])
def test_a_written_market_reads_back_equal(tmp_path, tiers):
    market = Market(**RULES, tiers=tiers)
    path = tmp_path / "market.json"
    path.write_text(market.to_json())
    assert load_market(path) == market
    json.loads(market.to_json())  # JSON, not only HJSON


@pytest.mark.parametrize(
    ("leverage", "cap"), [(20, math.inf), (50, math.inf), (51, 250_000), (125, 50_000), (126, 0)]
)
def test_more_leverage_allows_less_notional(leverage, cap):
    assert Market(**RULES, tiers=TIERS).notional_cap(leverage) == cap
    assert Market(**RULES).notional_cap(leverage) == math.inf


@given(
    price=st.floats(1.0, 1e5),
    inverse=st.booleans(),
    entry_qty_pct=st.floats(1e-4, 0.5),
    balance_pct=st.floats(0.01, 1.0),
)
def test_the_least_balance_is_enough_and_hardly_more(price, inverse, entry_qty_pct, balance_pct):
    market = Market(**RULES | {"inverse": inverse, "qty_step": 1.0 if inverse else 0.001})
    config = load_config(
        valid(
            entry_qty_pct=entry_qty_pct, balance_pct=balance_pct, indicator_settings__do_shrt=False
        )
    )
    least = least_balance(config, market, price)
    assert venue_problems(config, market, price, least) == []
    # Six digits, rounded up, and a rounding step of the venue's at most.
    assert venue_problems(config, market, price, least * 0.999)
    (order,) = plan_orders(config, market, wallet=least, last_price=price, ema=price)
    assert order.qty >= max(market.min_qty, market.qty_step)
