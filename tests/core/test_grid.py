"""The planner: by hand, against its slow twin, and what must hold whatever the situation."""

import math
import os
import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from passivx._core import grid
from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, VIEW_DTYPE, Kind
from tests.core.situations import Records, one, situation
from tests.reference import grid_twin as twin
from tests.reference.formulas_twin import Step, ceil_to, near_to
from tests.reference.grid_twin import Order, as_orders, unpack

# --- one situation, changed a little by each example ------------------------------------------


def market(**changes: Any) -> npt.NDArray[np.void]:
    linear = {
        "price_step": (1, 10),
        "qty_step": (1, 1000),
        "min_qty": 0.001,
        "min_cost": 0.0,
        "notional_cap": math.inf,
        "inverse": 0,
    }
    return one(MARKET_DTYPE, **{**linear, **changes})


def inverse_market(**changes: Any) -> npt.NDArray[np.void]:
    contracts = {"price_step": (5, 10), "qty_step": (1, 1), "min_qty": 1.0, "inverse": 1}
    return market(**{**contracts, **changes})


def strategy(**changes: Any) -> npt.NDArray[np.void]:
    plain = {
        "balance_pct": 1.0,
        "leverage": 10.0,
        "entry_qty_pct": 0.001,
        "ddown_factor": 0.5,
        "grid_spacing": 0.01,
        "grid_coefficient": 0.5,
        "min_markup": 0.0095,
        "max_markup": 0.0188,
        "min_close_qty_multiplier": 0.5,
        "stop_loss_liq_diff": 0.0,
        "stop_loss_pos_price_diff": 1e9,
        "stop_loss_pos_reduction": 0.0,
        "ema_spread": 0.0,
        "max_order_distance": 1.0,
        "n_close_orders": 4,
        "n_entry_orders": 3,
        "do_long": 1,
        "do_short": 1,
        "funding_fee_collect_mode": 0,
    }
    return one(STRATEGY_DTYPE, **{**plain, **changes})


def view(last: float, **changes: Any) -> npt.NDArray[np.void]:
    quiet = {
        "wallet": 1000.0,
        "last_price": last,
        "bid": last - 0.1,
        "ask": last + 0.1,
        "ema": last,
        "funding_rate": math.nan,
    }
    values = {**quiet, **changes}
    return one(VIEW_DTYPE, **{"equity": values["wallet"], **values})


def ideal(
    v: npt.NDArray[np.void], s: Any = None, m: Any = None, *, may_stop: bool = True
) -> list[Order]:
    s = strategy() if s is None else s
    if may_stop:
        v["stop_due"] = grid.due_stop(v, s)
    return as_orders(grid.plan_ideal(v, s, market() if m is None else m))


def of(orders: list[Order], *kinds: Kind) -> list[tuple[float, float]]:
    return [(o.price, o.qty) for o in orders if o.kind in kinds]


STOPS = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)

# --- flat, by hand ----------------------------------------------------------------------------


def test_first_entry_inverse_as_published() -> None:
    # 0.001 BTC × 37000 × 50 × 0.0021 = 3.885 contracts, hence 3.
    v = view(37_000.0, wallet=0.001, bid=36_999.5, ask=37_000.5)
    s = strategy(entry_qty_pct=0.0021, leverage=50.0)
    assert ideal(v, s, inverse_market()) == [
        Order(1, 37_000.0, 3.0, 0, Kind.ENTRY),
        Order(-1, 37_000.0, 3.0, 0, Kind.ENTRY),
    ]


def test_first_entry_linear_as_published() -> None:
    # 40 / 1100 × 33 × 0.07 = 1.2 × 0.07 = 0.084.
    s = strategy(entry_qty_pct=0.07, leverage=33.0, do_short=0)
    assert ideal(view(1100.0, wallet=40.0), s) == [Order(1, 1100.0, 0.084, 0, Kind.ENTRY)]


def test_flat_entries_keep_their_distance_from_the_ema() -> None:
    # 1234.56 × 0.99 = 1222.2144 down to 1222.2, × 1.01 = 1246.9056 up to 1247.0.
    orders = ideal(view(1234.5, ema=1234.56), strategy(ema_spread=0.01))
    assert [(o.side, o.price) for o in orders] == [(1, 1222.2), (-1, 1247.0)]


def test_flat_entry_is_at_least_what_the_venue_takes() -> None:
    # 1000 × 10 × 0.00001 / 1000 = 0.0001 is below one step; 5 of notional at 1000 are 0.005.
    s = strategy(entry_qty_pct=1e-5, do_short=0)
    assert ideal(view(1000.0), s)[0].qty == 0.001
    assert ideal(view(1000.0), s, market(min_cost=5.0))[0].qty == 0.005
    assert ideal(view(1000.0), s, market(min_qty=0.02))[0].qty == 0.02
    # 7 / 900 = 0.00777…, and 0.007 × 900 = 6.3 would be refused.
    assert ideal(view(900.0), s, market(min_cost=7.0))[0].qty == 0.008


def test_flat_entry_stays_within_the_maximum_position() -> None:
    # 0.92 × 1000 / 1000 × 10 = 9.2, where entry_qty_pct 1 would take 10.
    s = strategy(entry_qty_pct=1.0, do_short=0)
    assert ideal(view(1000.0), s)[0].qty == 9.2
    # The venue's cap of 3000: 0.92 × 3 = 2.76. Inverse: 0.95 × 0.01 × 20000 × 10 = 1900.
    assert ideal(view(1000.0), s, market(notional_cap=3000.0))[0].qty == 2.76
    v = view(20_000.0, wallet=0.01)
    assert ideal(v, s, inverse_market())[0].qty == 1900.0
    # No room for the least quantity, no entry.
    assert ideal(view(1000.0, wallet=0.1), s) == []
    assert ideal(view(1000.0, wallet=0.0), s) == []
    assert ideal(view(1000.0, wallet=-5.0), s) == []


def test_equity_below_the_share_of_the_wallet_limits_it() -> None:
    # min(1000 × 0.5, 300) / 1000 × 10 × 0.5 = 1.5; with equity 800 it is 500: 2.5.
    s = strategy(entry_qty_pct=0.5, balance_pct=0.5, do_short=0)
    assert ideal(view(1000.0, equity=300.0), s)[0].qty == 1.5
    assert ideal(view(1000.0, equity=800.0), s)[0].qty == 2.5


@pytest.mark.parametrize(("rate", "sides"), [(1e-4, [-1]), (-1e-4, [1]), (0.0, []), (math.nan, [])])
def test_funding_fee_collect_mode_opens_only_what_is_paid(rate: float, sides: list[int]) -> None:
    s = strategy(funding_fee_collect_mode=1)
    assert [o.side for o in ideal(view(1000.0, funding_rate=rate), s)] == sides


def test_sides_can_be_switched_off() -> None:
    assert [o.side for o in ideal(view(1000.0), strategy(do_long=0))] == [-1]
    assert ideal(view(1000.0), strategy(do_long=0, do_short=0)) == []


def test_no_order_beyond_the_grid() -> None:
    # 0.92 × 1e12 × 10 / 1 contracts of step 1: more than 1e11 steps.
    m = market(qty_step=(1, 1), min_qty=1.0)
    v = view(1.0, wallet=1e12, bid=0.9, ask=1.1)
    assert ideal(v, strategy(entry_qty_pct=1.0), m) == []
    # A ladder of doubling rungs ends where the position would pass 1e11 steps.
    v = view(1.0, wallet=1e15, size=3e10, entry_price=1.0, bid=0.9, ask=1.1)
    s = strategy(ddown_factor=1.0, n_entry_orders=200)
    assert [qty for _, qty in of(ideal(v, s, m), Kind.REENTRY)] == [3e10]


# --- re-entries, by hand ----------------------------------------------------------------------


def test_long_linear_ladder() -> None:
    orders = ideal(view(1000.0, size=1.0, entry_price=1000.0))
    assert of(orders, Kind.REENTRY) == [
        # margin 1 × 1000 / 10 = 100, g = 0.01 × (1 + 100/1000 × 0.5) = 0.0105: 989.5.
        # coarse step: 1000 × 0.01 / 4 = 2.5, hence 395 × 2.5.
        (987.5, 0.5),
        # E = (1000 + 0.5 × 987.5) / 1.5 = 995.8333, margin 149.375, g = 0.010746875: 985.131;
        # coarse step 2.4896 up to 2.5, hence 394 × 2.5.
        (985.0, 0.75),
        # E = (1493.75 + 0.75 × 985) / 2.25 = 992.2222, margin 223.25, g = 0.01111625: 981.192;
        # coarse step 2.4806 up to 2.5, hence 392 × 2.5.
        (980.0, 1.125),
    ]
    assert all(o.side == 1 and not o.reduce_only for o in orders if o.kind == Kind.REENTRY)


def test_short_inverse_ladder() -> None:
    v = view(10_000.0, wallet=0.1, size=-100.0, entry_price=10_000.0)
    s = strategy(ddown_factor=1.0, grid_spacing=0.02, grid_coefficient=1.0, n_entry_orders=2)
    orders = ideal(v, s, inverse_market())
    assert of(orders, Kind.REENTRY) == [
        # margin 100 / 10000 / 10 = 0.001, g = 0.02 × (1 + 0.001/0.1) = 0.0202: 10202;
        # coarse step 10000 × 0.02 / 4 = 50, up to 205 × 50.
        (10_250.0, 100.0),
        # E = 200 / (100/10000 + 100/10250) = 10123.457 (harmonic), margin 0.00197561,
        # g = 0.02 × 1.0197561 = 0.02039512: 10329.926; coarse step 50.617 up to 51, 203 × 51.
        (10_353.0, 200.0),
    ]
    assert all(o.side == -1 for o in orders if o.kind == Kind.REENTRY)


def test_rungs_on_one_price_move_apart() -> None:
    # Step 1: 1000 × (1 − 0.0004) = 999.6 down to 999. E = (1000 + 0.1 × 999) / 1.1 = 999.909,
    # × 0.9996 = 999.509, 999 again: the next multiple below is 998. E = 999.736 gives 999.336.
    v = view(1000.0, size=1.0, entry_price=1000.0)
    s = strategy(grid_spacing=0.0004, grid_coefficient=0.0, ddown_factor=0.1)
    prices = [p for p, _ in of(ideal(v, s, market(price_step=(1, 1))), Kind.REENTRY)]
    assert prices == [999.0, 998.0, 997.0]


def test_the_last_rung_takes_the_room_there_is() -> None:
    # 0.92 × 100 / 99 × 10 = 9.2929…, 9 are held: 0.292 are left, where 9 are wanted.
    v = view(100.0, wallet=100.0, size=9.0, entry_price=100.0)
    s = strategy(grid_coefficient=0.0, ddown_factor=1.0, n_entry_orders=1)
    m = market(price_step=(1, 100))
    assert of(ideal(v, s, m), Kind.REENTRY) == [(99.0, 0.292)]
    assert of(ideal(v, s, market(price_step=(1, 100), min_qty=0.3)), Kind.REENTRY) == []


def test_ddown_zero_adds_the_least_quantity() -> None:
    v = view(1000.0, size=1.0, entry_price=1000.0)
    quantities = [q for _, q in of(ideal(v, strategy(ddown_factor=0.0)), Kind.REENTRY)]
    assert quantities == [0.001] * 3


@pytest.mark.parametrize("wallet", [0.0, -100.0])
def test_no_reentries_without_money(wallet: float) -> None:
    orders = ideal(view(1000.0, wallet=wallet, size=1.0, entry_price=1000.0))
    assert of(orders, Kind.REENTRY) == []
    assert sum(q for _, q in of(orders, Kind.CLOSE)) == pytest.approx(1.0)


# --- closes, by hand --------------------------------------------------------------------------

CENTS = {"qty_step": (1, 100), "min_qty": 0.01}
# 100 × 1.0095 = 100.95 … 100 × 1.0188 = 101.88 in steps of 0.31, each up to 0.1.
PRICES = [101.0, 101.3, 101.6, 101.9]


def closes(size: float, base: float, s: Any = None, m: Any = None, **changes: Any) -> Any:
    v = view(100.0, size=size, entry_price=100.0, close_base=base, **changes)
    return of(ideal(v, s, market(**CENTS) if m is None else m), Kind.CLOSE)


def test_close_grid_of_a_long() -> None:
    # 103 steps in four: 25 and three times 26.
    quantities = [0.25, 0.26, 0.26, 0.26]
    assert closes(1.03, 1.03) == list(zip(PRICES, quantities, strict=True))


def test_close_grid_of_a_short() -> None:
    # 100 × (1 − 0.0095) = 99.05 down to 99.0, then 98.85, 98.65, 98.45. (The long's steps of 0.3
    # would be more than 0.3 % of 99.)
    orders = closes(-1.03, 1.03, strategy(max_markup=0.0155))
    assert orders == [(99.0, 0.25), (98.8, 0.26), (98.6, 0.26), (98.4, 0.26)]
    assert closes(-1.03, 1.03) == [(99.0, 1.03)]


def test_close_grid_stays_as_it_is_while_closes_fill() -> None:
    # 33 of 103 steps are closed: the first order and 8 of the second are gone.
    assert closes(0.70, 1.03) == list(zip(PRICES[1:], [0.18, 0.26, 0.26], strict=True))
    # The base is not known, or smaller than what is held: a fresh grid.
    fresh = list(zip(PRICES, [0.17, 0.17, 0.18, 0.18], strict=True))
    assert closes(0.70, 0.0) == closes(0.70, 0.5) == fresh
    with pytest.raises(ValueError, match="close_base must be finite"):
        closes(0.70, math.nan)


def test_a_close_below_the_minimum_joins_the_farthest() -> None:
    # 43 of 103 steps are closed: 0, 8, 26, 26; 8 are less than 10.
    m = market(qty_step=(1, 100), min_qty=0.1)
    assert closes(0.60, 1.03, m=m) == [(101.6, 0.26), (101.9, 0.34)]
    # Only 5 are left, on the last order, and less than the minimum: one order, first price.
    assert closes(0.05, 1.03, m=m) == [(101.0, 0.05)]


def test_one_order_when_the_grid_would_be_none() -> None:
    m = market(**CENTS)
    whole = [(101.0, 1.03)]
    # The least close is max(0.01, floor(1000/100 × 10 × 0.006 × 0.5)) = 0.3: three closes,
    # 101.0 and 101.5 (of 101.415): a gap of 0.495 %.
    assert closes(1.03, 1.03, strategy(entry_qty_pct=0.006), m) == whole
    # One price.
    assert closes(1.03, 1.03, strategy(max_markup=0.0095), m) == whole
    assert closes(1.03, 1.03, strategy(n_close_orders=1), m) == whole
    # Fewer than one: the least close is larger than the position.
    assert closes(1.03, 1.03, strategy(entry_qty_pct=0.1), m) == whole
    # The whole size, not the whole base.
    assert closes(0.5, 1.03, strategy(n_close_orders=1), m) == [(101.0, 0.5)]


def test_the_gap_is_measured_on_the_nearer_price() -> None:
    # Step 1, n 2. Long from 331.5: 332.0 and 333.0, 1/332 = 0.301 %: one order. 333.5: 334, 335,
    # 0.2994 %: two. A short at 335.5: 335 and 334, 0.2985 %; at 333.5: 333, 332, 0.3003 %: one.
    m = market(price_step=(1, 1), **CENTS)
    s = strategy(min_markup=0.0001, max_markup=0.0031, n_close_orders=2)
    for size, entry, expected in ((1, 331.5, 1), (1, 333.5, 2), (-1, 335.5, 2), (-1, 333.5, 1)):
        v = view(entry, size=float(size), entry_price=entry)
        assert len(of(ideal(v, s, m), Kind.CLOSE)) == expected, (size, entry)


def test_repeated_close_prices_count_once() -> None:
    # Step 1: 1010.5, 1011.0, 1011.5, 1012.0 (of 1000.0 × …) up to 1011, 1011, 1012, 1012.
    v = view(1000.0, size=0.9, entry_price=1000.0)
    s = strategy(min_markup=0.01045, max_markup=0.0119)
    m = market(price_step=(1, 1))
    assert of(ideal(v, s, m), Kind.CLOSE) == [(1011.0, 0.45), (1012.0, 0.45)]


def test_a_short_closes_at_one_step_at_least() -> None:
    v = view(0.2, size=-10.0, entry_price=0.2, bid=0.1, ask=0.3)
    s = strategy(min_markup=0.9, max_markup=0.99)
    assert of(ideal(v, s), Kind.CLOSE) == [(0.1, 10.0)]


# --- stops, by hand ---------------------------------------------------------------------------

STOPPING = {"stop_loss_pos_price_diff": 0.1, "stop_loss_pos_reduction": 0.02}


def test_stop_at_the_price_level() -> None:
    # Level 100 × 0.9 = 90. 2 % of 1.00 are 0.02, and the farthest close gives them up.
    v = view(90.0, size=1.0, entry_price=100.0)
    assert ideal(v, strategy(**STOPPING), market(**CENTS)) == [
        Order(-1, 90.1, 0.02, 1, Kind.STOP_LOSS_POS_PRICE_DIFF),
        *(
            Order(-1, p, q, 1, Kind.CLOSE)
            for p, q in zip(PRICES, [0.25, 0.25, 0.25, 0.23], strict=True)
        ),
    ]
    # One step above the level nothing happens.
    v = view(90.1, size=1.0, entry_price=100.0)
    assert of(ideal(v, strategy(**STOPPING), market(**CENTS)), *STOPS) == []


def test_stop_of_a_short() -> None:
    v = view(110.1, size=-1.0, entry_price=100.0)
    orders = ideal(v, strategy(**STOPPING), market(**CENTS))
    assert orders[0] == Order(1, 110.0, 0.02, 1, Kind.STOP_LOSS_POS_PRICE_DIFF)
    assert of(orders, Kind.REENTRY) == []


def test_stop_at_the_liquidation_level() -> None:
    # Level 80 × 1.2 = 96 for a long, 125 × 0.8 = 100 for a short.
    s = strategy(**{**STOPPING, "stop_loss_liq_diff": 0.2})
    for size, last, liq in ((1.0, 95.9, 80.0), (-1.0, 100.1, 125.0)):
        v = view(last, size=size, entry_price=100.0, liq_price=liq)
        assert ideal(v, s, market(**CENTS))[0].kind == Kind.STOP_LOSS_LIQ_DIFF
    # Without a liquidation price there is no such level.
    v = view(95.9, size=1.0, entry_price=100.0)
    assert of(ideal(v, s, market(**CENTS)), *STOPS) == []


def test_a_stop_that_would_leave_too_little_takes_all() -> None:
    # Half of 0.03 is 0.015, up to 0.02; 0.01 would stay, less than the minimum of 0.02.
    s = strategy(**{**STOPPING, "stop_loss_pos_reduction": 0.5})
    v = view(85.0, size=0.03, entry_price=100.0)
    assert ideal(v, s, market(qty_step=(1, 100), min_qty=0.02)) == [
        Order(-1, 85.1, 0.03, 1, Kind.STOP_LOSS_POS_PRICE_DIFF)
    ]


def test_beyond_a_level_without_leave_to_stop() -> None:
    v = view(85.0, size=1.0, entry_price=100.0)
    orders = ideal(v, strategy(**STOPPING), market(**CENTS), may_stop=False)
    assert {o.kind for o in orders} == {Kind.CLOSE}
    assert math.fsum(o.qty for o in orders) == 1.0


def test_a_print_that_bounced_back_still_stops() -> None:
    # The print at 85 asked for it; by the time of the plan the price is 99.
    v = view(99.0, size=1.0, entry_price=100.0, stop_due=Kind.STOP_LOSS_POS_PRICE_DIFF)
    orders = ideal(v, strategy(**STOPPING), market(**CENTS), may_stop=False)
    assert orders[0] == Order(-1, 99.1, 0.02, 1, Kind.STOP_LOSS_POS_PRICE_DIFF)
    assert of(orders, Kind.REENTRY) == []


def test_an_outstanding_stop_stays_as_it_is() -> None:
    # The price has recovered; the flow decides when to withdraw it. Until then no re-entry.
    outstanding = {"stop_price": 95.0, "stop_qty": 0.3, "stop_kind": Kind.STOP_LOSS_LIQ_DIFF}
    v = view(100.0, size=1.0, entry_price=100.0, **outstanding)
    orders = ideal(v, strategy(**STOPPING), market(**CENTS))
    assert orders[0] == Order(-1, 95.0, 0.3, 1, Kind.STOP_LOSS_LIQ_DIFF)
    # The farthest 30 steps go: all of the last 25 and 5 of the third.
    assert of(orders, Kind.CLOSE) == [(101.0, 0.25), (101.3, 0.25), (101.6, 0.2)]
    assert of(orders, Kind.REENTRY) == []
    # A position that has shrunk below it: never more than is held.
    v = view(100.0, size=0.2, entry_price=100.0, **outstanding)
    assert [o.qty for o in ideal(v, strategy(**STOPPING), market(**CENTS))] == [0.2]


def test_a_reduction_of_zero_switches_stops_off() -> None:
    v = view(50.0, size=1.0, entry_price=100.0, liq_price=60.0)
    s = strategy(stop_loss_liq_diff=0.5, stop_loss_pos_price_diff=0.1)
    orders = ideal(v, s)
    assert of(orders, *STOPS) == []
    assert of(orders, Kind.REENTRY)


# --- creation, by hand ------------------------------------------------------------------------


def sent(orders: list[Order], v: Any, s: Any = None, m: Any = None) -> list[tuple[Order, bool]]:
    records = np.array([tuple(o) for o in orders], grid.plan_ideal(v, strategy(), market()).dtype)
    out, now = grid.plan_sent(
        records, v, strategy() if s is None else s, market() if m is None else m
    )
    return list(zip(as_orders(out), map(bool, now), strict=True))


def test_flat_entries_go_no_nearer_than_the_book() -> None:
    v = view(1000.0, bid=999.5, ask=1000.7)
    wanted = [Order(1, 1000.2, 0.1, 0, Kind.ENTRY), Order(-1, 1000.2, 0.1, 0, Kind.ENTRY)]
    got = sent(wanted, v)
    assert [(o.price, now) for o, now in got] == [(999.5, True), (1000.7, True)]
    wanted = [Order(1, 999.0, 0.1, 0, Kind.ENTRY), Order(-1, 1001.0, 0.1, 0, Kind.ENTRY)]
    assert [o for o, _ in sent(wanted, v)] == wanted


def test_orders_in_position_move_only_as_far_as_post_only_needs() -> None:
    # Bid 990.0, ask 990.6: a buy may rest at 990.5, a sell at 990.1.
    v = view(990.0, bid=990.0, ask=990.6, size=1.0, entry_price=1000.0)
    wanted = [
        Order(-1, 989.0, 0.1, 1, Kind.STOP_LOSS_POS_PRICE_DIFF),
        Order(1, 995.0, 0.1, 0, Kind.REENTRY),
        Order(-1, 985.0, 0.1, 1, Kind.CLOSE),
        Order(-1, 1010.0, 0.1, 1, Kind.CLOSE),
    ]
    got = sent(wanted, v)
    assert [o.price for o, _ in got] == [990.1, 990.5, 990.1, 1010.0]
    assert all(now for _, now in got)


def test_only_the_nearest_reentry_is_clamped() -> None:
    v = view(990.0, bid=989.9, ask=990.1, size=1.0, entry_price=1000.0)
    wanted = [Order(1, p, 0.1, 0, Kind.REENTRY) for p in (995.0, 992.0, 990.0, 980.0)]
    got = sent(wanted, v)
    assert got == [
        (wanted[0]._replace(price=990.0), True),
        (wanted[1], False),
        (wanted[2], True),
        (wanted[3], True),
    ]


def test_reentries_too_far_away_wait_and_closes_do_not() -> None:
    v = view(1000.0, size=1.0, entry_price=1000.0)
    s = strategy(max_order_distance=0.05)
    wanted = [Order(1, p, 0.1, 0, Kind.REENTRY) for p in (950.0, 949.9)]
    wanted.append(Order(-1, 1500.0, 0.1, 1, Kind.CLOSE))
    assert [now for _, now in sent(wanted, v, s)] == [True, False, True]


def test_the_minimum_is_taken_at_the_price_that_is_sent() -> None:
    # 10 of notional: 0.011 at 1000 (0.01 exactly, plus nothing), at 899 it is 0.01112.
    v = view(900.0, bid=899.0, ask=899.2, size=1.0, entry_price=1000.0)
    m = market(min_cost=10.0)
    wanted = [Order(1, 1000.0, 0.01, 0, Kind.REENTRY), Order(-1, 1.0, 0.01, 1, Kind.CLOSE)]
    got = sent(wanted, v, m=m)
    # 10 / 899.1 = 0.011122, up to 0.012; a close keeps its quantity.
    assert [(o.price, o.qty) for o, _ in got] == [(899.1, 0.012), (899.1, 0.01)]


def test_no_order_at_a_price_of_nothing() -> None:
    v = view(0.1, bid=0.1, ask=0.1, size=-5.0, entry_price=1.0)
    wanted = [Order(1, 0.1, 1.0, 1, Kind.CLOSE)]
    assert sent(wanted, v) == [(wanted[0], False)]


# --- the door ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["last_price", "bid", "ask", "ema"])
def test_prices_must_be_prices(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and > 0"):
        ideal(view(100.0, **{name: bad}) if name != "last_price" else view(bad, ema=1.0))


def test_the_door_refuses_nonsense() -> None:
    for bad in (0.0, -5.0, math.nan):
        with pytest.raises(ValueError, match="entry_price must be finite and > 0"):
            ideal(view(100.0, size=1.0, entry_price=bad))
        with pytest.raises(ValueError, match="leverage must be finite and > 0"):
            ideal(view(100.0), strategy(leverage=bad))
    for name in ("wallet", "equity", "size"):
        for bad in (math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be finite"):
                ideal(view(100.0, entry_price=100.0, **{name: bad}))
    with pytest.raises(ValueError, match="one record each"):
        ideal(np.concatenate([view(100.0), view(100.0)]))
    with pytest.raises(ValueError, match="one record each"):
        ideal(view(100.0)[:0])


# --- against the twin -------------------------------------------------------------------------


def differences(records: Records) -> list[str]:
    """Compare door and twin field by field; repr tells -0.0 and the last bit apart."""
    got = grid.plan_ideal(*records)
    wanted = twin.plan_ideal(*records)
    out = []
    if repr(as_orders(got)) != repr(wanted):
        out.append(f"ideal\n   core {as_orders(got)}\n   twin {wanted}")
    orders, now = grid.plan_sent(got, *records)
    sent_core = list(zip(as_orders(orders), map(bool, now), strict=True))
    sent_twin = twin.plan_sent(as_orders(got), *records)
    if repr(sent_core) != repr(sent_twin):
        out.append(f"sent\n   core {sent_core}\n   twin {sent_twin}")
    return out


def fuzz(first: int, runs: int) -> None:
    for seed in range(first, first + runs):
        records = situation(random.Random(seed))
        wrong = differences(records)
        if wrong:
            inputs = "\n".join(str(unpack(record)) for record in records)
            pytest.fail(f"seed {seed}\n{inputs}\n" + "\n".join(wrong))


def test_core_and_twin_plan_the_same_orders() -> None:
    fuzz(0, 2000)


@pytest.mark.nightly
def test_core_and_twin_plan_the_same_orders_all_night() -> None:
    seed = os.environ.get("PASSIVX_FUZZ_SEED")
    first = int(seed) if seed else random.SystemRandom().randrange(2**40)
    print(f"PASSIVX_FUZZ_SEED={first}")
    fuzz(first, int(os.environ.get("PASSIVX_FUZZ_RUNS", "50000")))


# --- what must always hold --------------------------------------------------------------------

situations = st.randoms(use_true_random=False).map(situation)


def steps_of(x: float, step: Step) -> Fraction:
    return Fraction(x) * step.scale / step.units


@given(situations)
@settings(deadline=None, max_examples=200)
def test_core_and_twin_agree_on_shrinkable_situations(records: Records) -> None:
    assert differences(records) == []


@given(situations)
@settings(deadline=None, max_examples=300)
def test_every_order_could_be_sent(records: Records) -> None:
    v, _, m = map(unpack, records)
    price_step, qty_step = Step(*map(int, m.price_step)), Step(*map(int, m.qty_step))
    orders = as_orders(grid.plan_ideal(*records))
    assert len(orders) <= 401
    for order in orders:
        assert twin.is_finite(order)
        assert order.price > 0.0
        assert order.qty > 0.0
        assert steps_of(order.qty, qty_step) <= 10**11 + 1
        assert order.qty == near_to(order.qty, qty_step)
        if order.price != v.stop_price:
            assert order.price == near_to(order.price, price_step)
        assert order.reduce_only == (order.kind not in (Kind.ENTRY, Kind.REENTRY))
        if v.size == 0.0:
            assert order.kind == Kind.ENTRY
        else:
            assert order.kind != Kind.ENTRY
            adds = order.kind == Kind.REENTRY
            assert order.side == (1 if (v.size > 0.0) == adds else -1)
    # The stop, then what adds, then what closes; at most one stop.
    rank = {Kind.ENTRY: 1, Kind.REENTRY: 1, Kind.CLOSE: 2}
    ranks = [rank.get(Kind(o.kind), 0) for o in orders]
    assert ranks == sorted(ranks)
    assert ranks.count(0) <= 1


@given(situations)
@settings(deadline=None, max_examples=300)
def test_never_more_than_the_account_carries(records: Records) -> None:
    v, s, m = map(unpack, records)
    budget = min(Fraction(v.wallet) * Fraction(s.balance_pct), Fraction(v.equity))
    held = abs(Fraction(v.size))
    for order in as_orders(grid.plan_ideal(*records)):
        if order.reduce_only:
            continue
        # The margin that the whole position takes at this very price.
        held += Fraction(order.qty)
        price = Fraction(order.price)
        notional = held / price if m.inverse else held * price
        share = Fraction(95, 100) if m.inverse else Fraction(92, 100)
        slack = 1 + Fraction(1, 10**9)
        assert notional / Fraction(s.leverage) <= share * budget * slack
        if not m.inverse and math.isfinite(m.notional_cap):
            assert notional <= share * Fraction(m.notional_cap) * slack
        if order.kind == Kind.ENTRY:
            held -= Fraction(order.qty)


@given(situations)
@settings(deadline=None, max_examples=300)
def test_ladders_are_strictly_monotone(records: Records) -> None:
    v, s, m = map(unpack, records)
    side = 1 if v.size > 0.0 else -1
    orders = as_orders(grid.plan_ideal(*records))
    rungs = [o.price for o in orders if o.kind == Kind.REENTRY]
    if rungs:
        assert side * rungs[0] < side * v.entry_price
        assert len(rungs) <= s.n_entry_orders
    assert all(side * b < side * a for a, b in pairwise(rungs))
    exits = [o.price for o in orders if o.kind == Kind.CLOSE]
    assert len(exits) <= max(1, s.n_close_orders)
    assert all(side * b > side * a for a, b in pairwise(exits))
    one_step = m.price_step[0] / m.price_step[1]
    for price in exits:
        assert side * price >= side * v.entry_price * (1.0 + side * s.min_markup) or (
            price == one_step
        )


@given(situations)
@settings(deadline=None, max_examples=300)
def test_closes_and_the_stop_make_up_the_position(records: Records) -> None:
    v, _, m = map(unpack, records)
    step = Step(*map(int, m.qty_step))
    orders = as_orders(grid.plan_ideal(*records))
    reducing = [o for o in orders if o.reduce_only]
    if v.size == 0.0:
        assert reducing == []
        return
    assert sum(round(steps_of(o.qty, step)) for o in reducing) == round(steps_of(abs(v.size), step))
    grid_of_closes = [o for o in reducing if o.kind == Kind.CLOSE]
    if len(grid_of_closes) > 1:
        for order in grid_of_closes:
            assert order.qty >= m.min_qty
            if not m.inverse:
                assert order.qty >= ceil_to(m.min_cost / order.price, step)


@given(situations)
@settings(deadline=None, max_examples=300)
def test_what_a_stop_closes_is_not_bought_back(records: Records) -> None:
    v, s, _ = map(unpack, records)
    orders = as_orders(grid.plan_ideal(*records))
    kinds = {o.kind for o in orders}
    stops = [o for o in orders if o.kind in STOPS]
    if v.size == 0.0:
        assert not stops
        return
    long = v.size > 0.0
    levels = []
    if s.stop_loss_pos_reduction > 0.0:
        levels.append(v.entry_price * (1.0 + (-1 if long else 1) * s.stop_loss_pos_price_diff))
        if v.liq_price > 0.0:
            levels.append(v.liq_price * (1.0 + (1 if long else -1) * s.stop_loss_liq_diff))
    beyond = any(v.last_price <= x if long else v.last_price >= x for x in levels)
    assert bool(stops) == (v.stop_qty > 0.0 or v.stop_due != 0)
    due = grid.due_stop(records[0], records[1])
    assert bool(due) == beyond
    if stops or beyond:
        assert Kind.REENTRY not in kinds
    if stops:
        wanted = Fraction(abs(v.size)) * Fraction(s.stop_loss_pos_reduction)
        assert stops[0].qty <= abs(v.size)
        if v.stop_qty > 0.0:
            assert (stops[0].price, stops[0].kind) == (v.stop_price, v.stop_kind)
        else:
            assert stops[0].price == (v.ask if long else v.bid)
            assert Fraction(stops[0].qty) >= wanted * (1 - Fraction(1, 10**12))


@given(situations)
@settings(deadline=None, max_examples=300)
def test_nothing_is_sent_that_would_take(records: Records) -> None:
    v, s, _ = map(unpack, records)
    plan = grid.plan_ideal(*records)
    orders, flags = grid.plan_sent(plan, *records)
    clamped_rungs = 0
    for before, after, now in zip(as_orders(plan), as_orders(orders), flags, strict=True):
        assert (after.side, after.reduce_only, after.kind) == (
            before.side,
            before.reduce_only,
            before.kind,
        )
        if not now:
            assert after == before
            continue
        assert after.price > 0.0
        assert after.price < v.ask if after.side > 0 else after.price > v.bid
        # Only towards the safe side.
        assert after.side * after.price <= after.side * before.price
        assert after.qty >= before.qty
        assert after.qty == before.qty or not after.reduce_only
        if after.kind == Kind.REENTRY:
            clamped_rungs += after.price != before.price
            assert abs(before.price / v.last_price - 1.0) <= s.max_order_distance * (1 + 1e-9)
    assert clamped_rungs <= 1


@given(
    k=st.integers(1, 40),
    multiple=st.integers(120, 4000),
    size=st.integers(1, 5000),
    base=st.integers(0, 9000),
    start=st.integers(1, 60),
    width=st.integers(0, 30),
    n=st.integers(1, 40),
    coefficient=st.floats(0, 10),
    ddown=st.floats(0, 2),
    reduction=st.floats(0, 1),
    fall=st.integers(0, 40),
)
@settings(deadline=None)
def test_long_and_short_mirror_each_other(
    k: int,
    multiple: int,
    size: int,
    base: int,
    start: int,
    width: int,
    n: int,
    coefficient: float,
    ddown: float,
    reduction: float,
    fall: int,
) -> None:
    """Reflect prices in an entry that is a multiple of the coarse step: an exact symmetry.

    It holds for the first re-entry, all closes and the stop of a linear contract. (The second
    re-entry starts from another average, whose margin differs.) Everything that is rounded lies
    well away from a grid value, so the last bit cannot decide.
    """
    entry_k = k * multiple
    entry = entry_k / 10
    # The limit of the first gap, 0.3 % of the nearer price, is no mirror: stay clear of it.
    assume(0.003 * (entry_k + 61) < 1.0 or 0.003 * (entry_k - 61) > width + 2)
    s = strategy(
        # The coarse step is ceil(k − 0.37) = k steps.
        grid_spacing=4 * (k - 0.37) / entry_k,
        grid_coefficient=coefficient,
        ddown_factor=ddown,
        min_markup=(start - 0.37) / entry_k,
        max_markup=(start - 0.37 + width * 1.01) / entry_k,
        n_close_orders=n,
        n_entry_orders=1,
        stop_loss_pos_reduction=reduction,
        stop_loss_pos_price_diff=20.5 / entry_k,
    )
    m = market(qty_step=(1, 100), min_qty=0.02)
    mirrored = []
    for side in (1, -1):
        v = view(
            entry,
            wallet=1e6,
            size=side * size / 100,
            entry_price=entry,
            close_base=base / 100,
            last_price=(entry_k - side * fall) / 10,
            bid=(entry_k - side * fall - 1) / 10,
            ask=(entry_k - side * fall + 1) / 10,
        )
        plan = grid.plan_ideal(v, s, m)
        orders, now = grid.plan_sent(plan, v, s, m)
        mirrored.append(
            [
                (side * o.side, side * (round(p * 10) - entry_k), o.qty, o.reduce_only, o.kind)
                for o in as_orders(plan) + as_orders(orders)
                for p in [o.price]
            ]
            + now.tolist()
        )
    assert mirrored[0] == mirrored[1]


@given(situations, st.integers(-40, 40))
@settings(deadline=None, max_examples=200)
def test_ideal_orders_in_position_do_not_depend_on_the_book(records: Records, shift: int) -> None:
    v, s, m = (record.copy() for record in records)
    # A stop is the one ideal order that is priced by the book.
    s["stop_loss_pos_reduction"] = 0.0
    v["stop_qty"] = 0.0
    v["stop_due"] = 0
    if v["size"][0] == 0.0:
        return
    before = grid.plan_ideal(v, s, m)
    for name in ("last_price", "bid", "ask", "ema"):
        v[name] *= 1.0 + shift / 100.0
    v["funding_rate"] = 0.1
    assert as_orders(grid.plan_ideal(v, s, m)) == as_orders(before)
