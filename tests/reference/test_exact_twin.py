"""The exact twin by hand: small markets in which one rule of docs/backtest.md decides.

The market of all cases: prices and quantities in whole units, linear, wallet 100,000, leverage 1,
no fees. A first entry is 10 at 1000: floor(100,000 / 1000 × 0.1). Its re-entries wait at

- 1000 × 0.95 = 950, on the coarse grid of ceil(1000 × 0.05 / 4) = 13: 949, 10 of it;
- from 20 at 974.5: 925.775, again on 13: 923, 20 of it;
- from 40 at 948.75: 901.3, on 12: 900, 40 of it;

and its close is one sell at ceil(1000 × 1.0015) = 1002. The first print is at 1 ms, so that nothing
is a multiple of the 1000 ms between requotes; messages travel for 100 ms.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, TIER_DTYPE, Kind
from tests.core.exact_invariants import check, check_deterministic
from tests.core.exact_scenarios import draw, draw_real
from tests.core.situations import PLAIN_MARKET, PLAIN_STRATEGY, one
from tests.reference.exact_twin import (
    FUNDING_DTYPE,
    HOUR_MS,
    Outcome,
    Record,
    Scenario,
    liquidation_price,
    run_exact,
)
from tests.reference.formulas_twin import Tier

# A print: ms, price, what it hits (resting buys: buyer-maker), and sometimes its quantity.
Print = tuple[int, float, str] | tuple[int, float, str, float]
START: list[Print] = [(1, 1000.0, "buys")]  # bid 1000, ask 1001; the buy at 1000 rests from 101 on
LONG: list[Print] = [*START, (200, 999.0, "buys")]  # long 10 at 1000; its orders rest from 300 on

MARKET: dict[str, Any] = PLAIN_MARKET | {"taker_fee": 0.001}
STRATEGY: dict[str, Any] = PLAIN_STRATEGY
RUN: dict[str, Any] = {
    "ema_span": 1.0,
    "starting_balance": 100_000.0,
    "venue_leverage": 1.0,
    "cross_mode": False,
    "liquidation_fee": 0.0,
    "market_stop_loss": False,
    "requote_ms": 1000,
    "requote_tolerance": 0.0003,
    "orders_per_batch": 4,
    "latency_ms": 100.0,
    "cancel_latency_ms": 100.0,
    "fill": "cross",
    "queue_share": 0.0,
}


def scenario(
    prints: list[Print], *, funding: list[tuple[int, float]] | None = None, **changes: Any
) -> Scenario:
    """The base case with some settings of market, strategy or run changed."""
    market, strategy = dict(MARKET), dict(STRATEGY)
    for record, dtype in ((market, MARKET_DTYPE), (strategy, STRATEGY_DTYPE)):
        record |= {k: changes.pop(k) for k in dtype.names or () if k in changes}
    return Scenario(
        price=np.array([p[1] for p in prints]),
        qty=np.array([p[3] if len(p) > 3 else 1e6 for p in prints]),
        ts_ms=np.array([p[0] for p in prints], dtype=np.int64),
        buyer_maker=np.array([p[2] == "buys" for p in prints], dtype=np.uint8),
        strategy=one(STRATEGY_DTYPE, **strategy),
        market=one(MARKET_DTYPE, **market),
        tiers=one(TIER_DTYPE, maintenance_rate=0.004),
        funding=np.array(funding or [], dtype=FUNDING_DTYPE),
        **(RUN | changes),
    )


def run(prints: list[Print], **changes: Any) -> Outcome:
    case = scenario(prints, **changes)
    outcome = check_deterministic(run_exact, case)
    check(case, outcome)
    return outcome


def fills(outcome: Outcome) -> list[tuple[int, str, float, float]]:
    """(tick, kind, qty, price) of every record."""
    return [(r["tick"], Kind(r["kind"]).name, r["qty"], r["price"]) for r in outcome.records]


def test_cross_wants_a_print_through_the_price_and_touch_one_at_it() -> None:
    prints = [*START, (200, 1000.0, "buys"), (201, 1000.0, "sells"), (202, 999.0, "buys")]
    assert fills(run(prints, fill="cross")) == [(3, "ENTRY", 10.0, 1000.0)]
    assert fills(run(prints, fill="touch")) == [(1, "ENTRY", 10.0, 1000.0)]


def test_a_seller_maker_print_does_not_fill_a_buy() -> None:
    assert fills(run([*START, (200, 990.0, "sells")])) == []


@pytest.mark.parametrize(
    ("latency_ms", "tick"),
    [
        # Sent at 1, the order arrives after the prints of 101: the print at 102 fills it.
        (100.0, 2),
        # At the first whole millisecond >= 101.25, which is 102: after that print.
        (100.25, 3),
        (0.0, 1),
    ],
)
def test_messages_travel_and_arrive_after_the_prints_of_their_millisecond(
    latency_ms: float, tick: int
) -> None:
    prints: list[Print] = [*START] + [(t, 999.0, "buys") for t in (101, 102, 103)]
    assert fills(run(prints, latency_ms=latency_ms)) == [(tick, "ENTRY", 10.0, 1000.0)]


def test_the_first_plan_waits_for_the_whole_first_millisecond() -> None:
    # EMA of span 1 = 998 after two prints: that is the price. Not even with latency 0 does the
    # order meet prints of the millisecond it was sent in. floor(100,000 / 998 × 0.1) = 10.
    prints: list[Print] = [*START, (1, 998.0, "buys"), (1, 998.0, "buys"), (2, 997.0, "buys")]
    assert fills(run(prints, latency_ms=0.0)) == [(3, "ENTRY", 10.0, 998.0)]


def test_the_position_closes_at_its_markup() -> None:
    (entry, close) = run([*LONG, (350, 1003.0, "sells")], maker_fee=0.0002).records
    assert entry["fee"] == -2.0  # 10 × 1000 × 0.0002
    assert entry["balance"] == 99_998.0
    assert (entry["pos_size"], entry["pos_price"]) == (10.0, 1000.0)
    assert (close["kind"], close["qty"], close["price"]) == (Kind.CLOSE, -10.0, 1002.0)
    assert close["pnl"] == 20.0  # 10 × (1002 - 1000)
    assert close["fee"] == pytest.approx(-2.004, rel=1e-12)  # 10 × 1002 × 0.0002
    assert close["position_side"] == 1  # before it
    assert [close[name] for name in ("pos_size", "pos_price", "liq_price")] == [0.0, 0.0, 0.0]


def test_a_side_sends_its_next_group_when_the_last_has_arrived() -> None:
    # Long at 200. Alone in their groups the rungs arrive at 300, 400 and 500, in one at 300.
    prints = [*LONG, (350, 800.0, "buys")]
    alone = run(prints, n_entry_orders=3, orders_per_batch=1)
    assert fills(alone)[1:] == [(2, "REENTRY", 10.0, 949.0)]
    together = run(prints, n_entry_orders=3, orders_per_batch=3)
    assert fills(together)[1:] == [
        (2, "REENTRY", 10.0, 949.0),
        (2, "REENTRY", 20.0, 923.0),
        (2, "REENTRY", 40.0, 900.0),
    ]
    # The sells did not wait for the buys: the close was there at 300.
    other = run([*LONG, (301, 1003.0, "sells")], n_entry_orders=3, orders_per_batch=1)
    assert fills(other)[1:] == [(2, "CLOSE", -10.0, 1002.0)]


def test_a_refused_slot_waits_for_the_requote_and_others_do_not() -> None:
    # Two closes of 5, at 1002 and at ceil(1003.5) = 1004, one a group: they leave at 200 and 300.
    # At 350 the bid jumps to 1004, so the second, arriving at 400, would take: refused.
    # At 450 the first fills. That plan wants 5 at 1004 again, the refused slot: not created, and
    # the print at 600 finds nothing. The requote at 1000 frees it; it rests from 1100 on.
    prints: list[Print] = [
        *LONG,
        (350, 1004.0, "buys"),
        (450, 1003.0, "sells"),
        (600, 1010.0, "sells"),
        (1099, 1010.0, "sells"),
        (1101, 1010.0, "sells"),
    ]
    got = run(prints, max_markup=0.0035, n_close_orders=2, orders_per_batch=1)
    assert fills(got)[1:] == [(3, "CLOSE", -5.0, 1002.0), (6, "CLOSE", -5.0, 1004.0)]


@pytest.mark.parametrize(
    ("last", "want"),
    [
        # The new ideal 1001 is one step away: the buy at 1000 stays and fills.
        (1001.0, [(2, "ENTRY", 10.0, 1000.0)]),
        # 1003 is three steps away, more than max(1, 0.0003 × 1003): cancelled at 1000, gone at
        # 1100, and the new one, sent then (clamped to the bid, 1000), rests from 1200 on.
        (1003.0, [(3, "ENTRY", 10.0, 1000.0)]),
    ],
)
def test_a_flat_entry_near_enough_is_left_alone(last: float, want: list[Any]) -> None:
    prints: list[Print] = [
        *START,
        (900, last, "sells"),
        (1150, 999.0, "buys"),
        (1201, 998.0, "buys"),
    ]
    # 10.1 at 1000, 10.07 at 1003: the quantity stays 10.
    assert fills(run(prints, entry_qty_pct=0.101))[:1] == want


STOPPING: dict[str, Any] = {"stop_loss_pos_price_diff": 0.02, "stop_loss_pos_reduction": 0.5}
MARKET_STOP = STOPPING | {"market_stop_loss": True}
# Long 10 at 1000, level 980. At 250 the ask comes down to 985; the print at 300 is at the level:
# a stop of ceil(10 × 0.5) = 5 at the best ask. The close at 1002 must make room: its cancel leaves
# at 300 and arrives at 400, then the stop and a close of 5 leave. They rest from 500 on.
STOPPED: list[Print] = [*LONG, (250, 985.0, "sells"), (300, 980.0, "buys")]


def test_a_stop_is_due_at_its_level_and_the_next_one_only_after_a_requote() -> None:
    prints: list[Print] = [
        *STOPPED,
        (499, 986.0, "sells"),  # too early
        (501, 986.0, "sells"),  # fills it: 5 left at 1000
        (600, 979.0, "buys"),  # beyond the level, but no second stop before 1000
        (950, 985.0, "sells"),
        (1001, 979.0, "buys"),  # the second: ceil(5 × 0.5) = 3 at the ask of 985
        (1202, 986.0, "sells"),  # after the close's cancel again
    ]
    got = run(prints, **STOPPING)
    assert fills(got)[1:] == [
        (5, "STOP_LOSS_POS_PRICE_DIFF", -5.0, 985.0),
        (9, "STOP_LOSS_POS_PRICE_DIFF", -3.0, 985.0),
    ]
    assert got.records[1]["pnl"] == -75.0  # 5 × (985 - 1000)


def test_a_requote_prices_a_stop_anew_or_withdraws_it() -> None:
    # Beyond the level at 1000: its price becomes the ask of then, 983. The old one is gone at
    # 1100, the new one leaves then and rests from 1200 on.
    beyond: list[Print] = [*STOPPED, (900, 983.0, "sells"), (950, 979.0, "buys")]
    late: list[Print] = [(1199, 984.0, "sells"), (1201, 984.0, "sells")]
    got = run([*beyond, *late], **STOPPING)
    assert fills(got)[1:] == [(7, "STOP_LOSS_POS_PRICE_DIFF", -5.0, 983.0)]
    # At 983 it is not beyond 980: withdrawn.
    inside: list[Print] = [*STOPPED, (900, 983.0, "sells")]
    got = run([*inside, (1150, 986.0, "sells"), (1201, 986.0, "sells")], **STOPPING)
    assert fills(got)[1:] == []


def test_no_reentry_while_a_stop_is_outstanding() -> None:
    # The rung at 949 rests since 300; the stop's plan at 300 cancels it (gone at 400).
    assert fills(run([*STOPPED, (401, 940.0, "buys")], **STOPPING))[1:] == []
    assert fills(run([*STOPPED, (399, 940.0, "buys")], **STOPPING))[1:] == [
        (4, "REENTRY", 10.0, 949.0)
    ]


def test_what_was_stopped_is_not_bought_back_when_the_price_falls_again() -> None:
    # The stop of 5 fills at 501, above the level: that plan sends a rung for the 5 that are left,
    # at floor(1000 × 0.95 / 13) × 13 = 949, resting from 601 on. Back at 979 no other stop may
    # start before 1000, but the rung is cancelled: sent at 700, gone at 800.
    prints: list[Print] = [*STOPPED, (501, 986.0, "sells"), (700, 979.0, "buys")]
    rung = [(4, "STOP_LOSS_POS_PRICE_DIFF", -5.0, 985.0), (6, "REENTRY", 5.0, 949.0)]
    assert fills(run([*prints, (799, 940.0, "buys")], **STOPPING))[1:] == rung
    assert fills(run([*prints, (801, 940.0, "buys")], **STOPPING))[1:] == rung[:1]
    # The second print beyond it asks for nothing more.
    more: list[Print] = [(701, 978.0, "buys"), (801, 940.0, "buys")]
    assert fills(run([*prints, *more], **STOPPING))[1:] == rung[:1]


def test_a_stop_does_not_cost_more_than_liquidation() -> None:
    # Levered: long 100 at 1000, L = 90,000 / 99.6. Only sellers' prints, so nothing reaches it by
    # the rule; the stop of 50, due at 900, would sell at the bid of 400, one step below 700: 699.
    prints: list[Print] = [*LONG, (350, 900.0, "sells"), (400, 700.0, "sells")]
    got = run([*prints, (500, 720.0, "sells")], **(LEVERED | MARKET_STOP))
    assert fills(got)[1:] == [(3, "LIQUIDATION", -100.0, pytest.approx(90_000 / 99.6))]
    assert (got.records[1]["ts_ms"], got.outcome) == (450, "long_liquidation")
    assert got.records[1]["balance"] >= 90_000.0  # isolated: the margin of 10,000 at most


def test_a_market_stop_fills_at_the_bid_when_it_arrives() -> None:
    got = run(
        [*STOPPED, (399, 981.0, "buys"), (500, 982.0, "buys")], **STOPPING, market_stop_loss=True
    )
    assert fills(got)[1:] == [(4, "STOP_LOSS_POS_PRICE_DIFF", -5.0, 981.0)]
    stop = got.records[1]
    assert stop["ts_ms"] == 400
    assert stop["pnl"] == -95.0  # 5 × (981 - 1000)
    assert stop["fee"] == pytest.approx(-4.905, rel=1e-12)  # taker: 5 × 981 × 0.001


def test_a_market_stop_without_a_position_is_refused() -> None:
    # The close of 10 at 1002, being cancelled until 400, fills at 350: nothing is left to stop.
    got = run([*STOPPED, (350, 1003.0, "sells"), (500, 990.0, "sells")], **MARKET_STOP)
    assert fills(got)[1:] == [(4, "CLOSE", -10.0, 1002.0)]


def test_a_requote_brings_a_clamped_order_nearer() -> None:
    # Closes of 5 at 1002 and 1004, one a group. At 250 the bid jumps to 1006: the first, arriving
    # at 300, is refused; the second leaves then, no nearer than 1007, and rests there from 400 on.
    # By 1000 the bid is back. 1004 is 3 steps nearer, more than 0.0005 × 1004: cancelled (gone at
    # 1100); then the first rests from 1200 on and the second, at its ideal, from 1300 on.
    prints: list[Print] = [*LONG, (250, 1006.0, "buys"), (600, 1000.0, "buys")]
    closes: dict[str, Any] = {"max_markup": 0.0035, "n_close_orders": 2, "orders_per_batch": 1}
    got = run([*prints, (999, 1008.0, "sells")], **closes)
    assert fills(got)[1:] == [(4, "CLOSE", -5.0, 1007.0)]
    got = run([*prints, (1301, 1008.0, "sells")], **closes)
    assert fills(got)[1:] == [(4, "CLOSE", -5.0, 1002.0), (4, "CLOSE", -5.0, 1004.0)]


def test_the_other_sides_entry_closes_and_opens_in_one_record() -> None:
    # A buy of 10 at 1000 and a sell of 10 at the ask, 1001. The print at 200 brings 4: long 4.
    # The sell's cancel leaves then and arrives at 300; at 250 it fills whole:
    # pnl 4 × (1001 - 1000), and the other 6 open a short at 1001.
    prints: list[Print] = [*START, (200, 999.0, "buys", 4.0), (250, 1002.0, "sells", 50.0)]
    got = run(prints, fill="volume", do_short=1)
    assert fills(got) == [(1, "ENTRY", 4.0, 1000.0), (2, "ENTRY", -10.0, 1001.0)]
    flip = got.records[1]
    assert (flip["position_side"], flip["pos_size"], flip["pos_price"]) == (1, -6.0, 1001.0)
    assert flip["pnl"] == 4.0


@pytest.mark.parametrize(
    ("queue_share", "at_price"),
    [
        (0.0, 0.0),
        (0.3, 4.0),  # floor(15 × 0.3)
        (1.0, 5.0),  # what the better order left of 15
    ],
)
def test_a_prints_volume_is_shared_best_first(queue_share: float, at_price: float) -> None:
    # Rungs of 10 at 949 and 20 at 923. The print at 923 brings 15 whole steps of 15.7.
    prints: list[Print] = [*LONG, (350, 923.0, "buys", 15.7)]
    got = run(prints, fill="volume", queue_share=queue_share, n_entry_orders=2)
    want = [(2, "REENTRY", 10.0, 949.0), (2, "REENTRY", at_price, 923.0)]
    assert fills(got)[1:] == want[: 2 if at_price else 1]


def test_a_share_carries_over_what_it_leaves() -> None:
    # The buy of 10 at 1000 rests from 101 on. 0.375, 0.75, 1.125: the third print brings one whole.
    prints = [*START] + [(200 + i, 1000.0, "buys", 1.0) for i in range(3)]
    assert fills(run(prints[:-1], fill="volume", queue_share=0.375)) == []
    got = run(prints, fill="volume", queue_share=0.375)
    assert fills(got) == [(3, "ENTRY", 1.0, 1000.0)]


def test_funding_moves_the_wallet_of_a_position_and_nothing_while_flat() -> None:
    got = run([*LONG, (500, 990.0, "buys")], funding=[(150, 0.5), (250, 0.01), (300, -0.02)])
    first, second = got.records[1:]
    # Long 10 at a last price of 999 pays 10 × 999 × 0.01, then is paid twice that.
    assert (first["pnl"], second["pnl"]) == (pytest.approx(-99.9), pytest.approx(199.8))
    assert (first["ts_ms"], first["price"], first["qty"], first["fee"]) == (250, 999.0, 0.0, 0.0)
    assert second["balance"] == pytest.approx(100_099.9, rel=1e-12)
    assert got.equity[-1][2] == pytest.approx(100_099.9 - 100.0, rel=1e-12)  # 10 × (990 - 1000)
    assert got.worst_open_loss == -100.0


def test_collecting_funding_opens_only_the_paid_side_once_a_rate_is_known() -> None:
    # Longs are paid when the rate is negative. Known before the start: the first plan may buy.
    # Known at 500: the plan of the requote at 1000 may; that order rests from 1100 on.
    prints = [*LONG, (1050, 999.0, "buys"), (1101, 998.0, "buys")]
    early = run(prints, funding=[(0, -0.001)], funding_fee_collect_mode=1)
    assert fills(early)[0] == (1, "ENTRY", 10.0, 1000.0)
    late = run(prints, funding=[(500, -0.001)], funding_fee_collect_mode=1)
    assert fills(late)[0] == (3, "ENTRY", 10.0, 999.0)
    assert fills(run(prints, funding=[(0, 0.001)], funding_fee_collect_mode=1)) == []


# At leverage 10 a first entry is 100 at 1000. Its margin is 10,000, so without tiers' deductions
# L = (10,000 - 100,000) / (0.4 - 100) = 903.6. With a coefficient of 7 the rungs are
#   1000 × (1 - 0.05 × (1 + 10,000 / 99,900 × 7)) = 914.96, on 13: 910, 100 of it; then 200 at 955,
#   L = (19,100 - 191,000) / (0.8 - 200) = 862.95, and
#   955 × (1 - 0.05 × (1 + 19,100 / 99,900 × 7)) = 843.3, on 12: 840, beyond that L.
LEVERED: dict[str, Any] = {
    "leverage": 10.0,
    "venue_leverage": 10.0,
    "grid_coefficient": 7.0,
    "n_entry_orders": 2,
}


def test_one_print_fills_a_rung_and_liquidates_before_the_next() -> None:
    got = run([*LONG, (350, 830.0, "buys")], **LEVERED, liquidation_fee=0.002)
    level = 171_900 / 199.2
    assert fills(got)[1:] == [
        (2, "REENTRY", 100.0, 910.0),
        (2, "LIQUIDATION", -200.0, pytest.approx(level, rel=1e-12)),
    ]
    last = got.records[-1]
    assert got.outcome == "long_liquidation"
    assert last["pnl"] == pytest.approx(200 * (level - 955), rel=1e-12)
    assert last["fee"] == pytest.approx(-200 * level * 0.003, rel=1e-12)
    assert got.worst_open_loss == pytest.approx(last["pnl"])
    assert got.closest_liq == 0.0


def test_isolated_liquidation_takes_the_margin_and_no_more() -> None:
    # pnl -18,410 and fee 200 × 862.95 × 0.011 = 1898 would be more than the margin of 19,100.
    got = run([*LONG, (350, 830.0, "buys")], **LEVERED, liquidation_fee=0.01)
    last = got.records[-1]
    assert last["balance"] == pytest.approx(80_900.0, rel=1e-12)
    assert last["pnl"] == pytest.approx(-19_100.0 + 200 * 171_900 / 199.2 * 0.011, rel=1e-12)


def test_liquidation_goes_by_the_prints_that_hit_the_positions_own_side() -> None:
    got = run([*LONG, (350, 830.0, "sells"), (351, 905.0, "buys")], **LEVERED)
    assert got.outcome == "end"
    # 905 fills the rung at 910 and leaves L at 862.95; it met 903.6, which 830 lay beyond: no
    # distance at all. Without that print 905 is the nearest, at 0.0015.
    assert (got.records[1]["closest_liq"], got.closest_liq) == (0.0, 0.0)
    got = run([*LONG, (351, 905.0, "buys")], **LEVERED)
    assert got.records[1]["closest_liq"] == pytest.approx((905 - 90_000 / 99.6) / 905)
    assert got.closest_liq == got.records[1]["closest_liq"]


def test_liquidation_price_walks_the_tiers() -> None:
    # 100 at 1000, 10,000 margin. From 92,000 of notional on the rate is 0.02 with a deduction of
    # 92,000 × 0.016 = 1472. Highest first: (10,000 + 1472 - 100,000) / (2 - 100) = 903.35, a
    # notional of 90,335, below that floor. So the lower tier: 90,000 / 99.6 = 903.61.
    tiers = [Tier(0.0, 0.004), Tier(92_000.0, 0.02, 1472.0)]
    assert liquidation_price(100.0, 1000.0, 10_000.0, tiers, False) == pytest.approx(90_000 / 99.6)
    # A short grows as it loses: (10,000 + 100,000) / (0.4 + 100) = 1095.6, a notional beyond the
    # second floor; there (110,000 + 1472) / (2 + 100) = 1092.9.
    got = liquidation_price(-100.0, 1000.0, 10_000.0, tiers, False)
    assert got == pytest.approx(111_472 / 102)
    # Without the deduction margin jumps at the floor, 105,000: not yet liquidated below it, beyond
    # it at once. 110,000 / 100.4 = 1095.6 is past the floor, 110,000 / 105 = 1047.6 short of it.
    jump = [Tier(0.0, 0.004), Tier(105_000.0, 0.05)]
    assert liquidation_price(-100.0, 1000.0, 10_000.0, jump, False) == 1050.0


def test_equity_has_a_point_at_every_hour_between_first_and_last_print() -> None:
    prints = [*LONG, (2 * HOUR_MS + 5, 1001.0, "sells")]
    got = run(prints, requote_ms=HOUR_MS)
    assert got.equity == [
        (1, 100_000.0, 100_000.0),
        (200, 100_000.0, 99_990.0),  # the entry's own record: 10 × (999 - 1000)
        (HOUR_MS, 100_000.0, 99_990.0),
        (2 * HOUR_MS, 100_000.0, 99_990.0),
        (2 * HOUR_MS + 5, 100_000.0, 100_010.0),
    ]


def test_a_lone_position_is_never_above_the_planners_maximum() -> None:
    # entry_qty_pct 1 wants 100 at 1000; the maximum position is 0.92 × 100,000 / 1000 = 92.
    got = run([*LONG, (350, 500.0, "buys")], entry_qty_pct=1.0)
    assert fills(got) == [(1, "ENTRY", 92.0, 1000.0), (2, "REENTRY", 4.0, 949.0)]


@pytest.mark.real_data
@pytest.mark.parametrize("seed", range(8))
def test_invariants_hold_on_windows_of_real_trades(seed: int, real_data: Path) -> None:
    case = draw_real(seed, real_data)
    check(case, run_exact(case))


@pytest.mark.parametrize("block", range(10))
def test_invariants_hold_on_random_runs(block: int) -> None:
    records: list[Record] = []
    for seed in range(block * 10, block * 10 + 10):
        case = draw(seed)
        try:
            got = check_deterministic(run_exact, case) if seed % 10 == 0 else run_exact(case)
            check(case, got)
        except Exception as e:
            e.add_note(f"replay with: check(draw({seed}), run_exact(draw({seed})))")
            raise
        records += got.records
    assert len(records) > 30, "the random runs hardly trade: the test proves little"


def test_the_invariants_notice_what_is_wrong() -> None:
    case = scenario([*LONG, (350, 1003.0, "sells")], maker_fee=0.0002)
    good = run_exact(case)
    for name, value in {
        "qty": -9.0,
        "price": 1001.5,
        "pnl": 19.0,
        "fee": -4.0,
        "tick": 1,
        "balance": 1e5,
        "position_side": -1,
        "closest_liq": 0.5,
    }.items():
        rows = [dict(row) for row in good.records]
        rows[-1][name] = value
        with pytest.raises(AssertionError):
            check(case, replace(good, records=rows))
    with pytest.raises(AssertionError):
        check(case, replace(good, equity=good.equity[:-1]))
