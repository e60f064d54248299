"""The venue by hand: *The book*, *A print*, *The account* and *Arrival* of docs/backtest.md.

Unless a test says otherwise: prices and quantities in whole units, linear, wallet 10,000,
leverage 10, isolated, maker fee 0.1 %, taker fee 0.2 %, maintenance 0.4 %, first price 100 (bid 99,
ask 101).
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.matching import FillMode, PaperVenue
from passivx._core.types import MARKET_DTYPE, TIER_DTYPE
from tests.core.situations import PLAIN_MARKET, one

MARKET: dict[str, Any] = PLAIN_MARKET | {"maker_fee": 0.001, "taker_fee": 0.002}
TIERS = [(0.0, 0.004, 0.0)]
VENUE: dict[str, Any] = {"price": 100.0, "wallet": 10_000.0, "leverage": 10.0, "cross_mode": False}


def venue(*, tiers: list[tuple[float, float, float]] = TIERS, **changes: Any) -> PaperVenue:
    market = MARKET | {k: changes.pop(k) for k in list(changes) if k in MARKET_DTYPE.fields}
    table = np.array(tiers, TIER_DTYPE)
    return PaperVenue(one(MARKET_DTYPE, **market), table, **(VENUE | changes))


def free(**changes: Any) -> PaperVenue:
    """A venue without fees."""
    return venue(**({"maker_fee": 0.0, "taker_fee": 0.0} | changes))


def fills(happened: list[Any]) -> list[tuple[int, float, float]]:
    """(id, signed qty, price) of what `print` returned."""
    return [(int(x["id"]), float(x["qty"]), float(x["price"])) for x, _, _ in happened]


def resting(v: PaperVenue, side: int) -> list[tuple[int, float, float]]:
    return [(int(o["id"]), float(o["qty"]), float(o["price"])) for o in v.orders(side)]


def holding(size: float, price: float = 100.0, **changes: Any) -> PaperVenue:
    """A venue without fees where ``size`` is held at ``price``, which is also the last price."""
    v = free(price=price, **changes)
    side = 1 if size > 0 else -1
    assert v.place(1_000_000, side, price, abs(size))[0] == "rests"
    v.print(price, 0.0, side < 0)  # the other side: fills nothing and moves the book away
    v.print(price - side, math.ceil(abs(size)), side > 0)
    v.print(price, 0.0, side > 0)
    assert v.account["size"] == size
    assert v.account["entry_price"] == price
    return v


# --- the book ---


def test_before_a_side_has_printed_it_is_one_step_beside_the_first_price() -> None:
    assert venue().touch == (99.0, 101.0)


def test_a_print_moves_its_side_and_pushes_the_other() -> None:
    v = venue()
    v.print(98.0, 1.0, True)
    assert v.touch == (98.0, 101.0)
    v.print(101.0, 1.0, True)  # p >= ask: ask = p + step
    assert v.touch == (101.0, 102.0)
    v.print(105.0, 1.0, False)
    assert v.touch == (101.0, 105.0)
    v.print(101.0, 1.0, False)  # p <= bid: bid = p - step
    assert v.touch == (100.0, 101.0)


def test_off_the_grid_the_touch_is_rounded_apart() -> None:
    v = venue(price_step=(5, 10))
    v.print(100.3, 1.0, True)  # floor to 100.0; the ask was 100.5
    assert v.touch == (100.0, 100.5)
    v.print(100.7, 1.0, False)  # ceil to 101.0
    assert v.touch == (100.0, 101.0)
    v.print(100.4, 1.0, False)  # above the bid of 100.3, ceil to 100.5
    assert v.touch == (100.0, 100.5)


def test_a_price_of_one_step_still_has_two_sides() -> None:
    v = venue(price=1.0)
    assert v.touch == (1.0, 2.0)  # the book's bid is 0; the touch at least one step
    v.print(1.0, 1.0, False)  # ask 1, bid 0 again: the ask is at least a step above the bid
    assert v.touch == (1.0, 2.0)


@given(
    step=st.sampled_from([(1, 1), (5, 10), (1, 100), (25, 1), (1, 10**8)]),
    start=st.floats(0.001, 1e5),
    prints=st.lists(st.tuples(st.floats(0.001, 1e5), st.booleans(), st.booleans()), max_size=30),
)
def test_the_touch_is_on_the_grid_and_never_crossed(
    step: tuple[int, int], start: float, prints: list[tuple[float, bool, bool]]
) -> None:
    v = venue(price=start, price_step=step)
    tick = Decimal(step[0]) / Decimal(step[1])

    def check() -> None:
        bid, ask = v.touch
        lots = [round(Decimal(price) / tick) for price in (bid, ask)]
        assert [float(k * tick) for k in lots] == [bid, ask]
        assert 1 <= lots[0] < lots[1]

    check()
    for price, buyer_maker, near in prints:
        # Half of them within a few steps of the touch, on the grid or between two of its prices.
        v.print(v.touch[0] * (1 + price % 3 * 1e-9) if near else price, 1.0, buyer_maker)
        check()


# --- arrival ---


def test_post_only_is_refused_where_it_would_take() -> None:
    v = venue()  # 99 | 101
    assert v.place(1, 1, 101.0, 1.0) == ("would_take", None)
    assert v.place(2, -1, 99.0, 1.0) == ("would_take", None)
    assert v.place(3, 1, 100.0, 1.0) == ("rests", None)
    assert v.place(4, -1, 100.0, 1.0) == ("rests", None)
    assert len(v.orders(1)) == len(v.orders(-1)) == 1


def test_orders_rest_best_price_first_then_the_older_arrival() -> None:
    v = venue()
    for order, price in enumerate((97.0, 99.0, 98.0, 99.0, 100.0), 1):
        v.place(order, 1, price, 1.0)
    assert [order for order, _, _ in resting(v, 1)] == [5, 2, 4, 3, 1]
    for order, price in enumerate((103.0, 101.0, 102.0, 101.0), 11):
        v.place(order, -1, price, 1.0)
    assert [order for order, _, _ in resting(v, -1)] == [12, 14, 13, 11]


def test_a_cancel_removes_what_still_rests() -> None:
    v = venue()
    v.place(1, 1, 99.0, 1.0)
    assert v.cancel(1, -1) is False
    assert v.cancel(1, 1) is True
    assert v.cancel(1, 1) is False
    assert v.print(90.0, 1.0, True) == []


def test_reduce_only_is_refused_without_a_position_that_it_would_reduce() -> None:
    assert venue().place(1, -1, 105.0, 1.0, reduce_only=True) == ("would_not_reduce", None)
    v = holding(5.0)
    assert v.place(1, 1, 95.0, 1.0, reduce_only=True) == ("would_not_reduce", None)
    assert v.place(2, 1, 95.0, 1.0, reduce_only=True, at_market=True)[0] == "would_not_reduce"
    assert v.place(3, -1, 105.0, 1.0, reduce_only=True) == ("rests", None)
    # What would neither reduce nor rest is refused for the first reason: it blocks no slot.
    assert venue().place(4, -1, 50.0, 1.0, reduce_only=True) == ("would_not_reduce", None)


def test_a_market_order_fills_at_once_at_the_other_side_for_the_taker_fee() -> None:
    v = venue()
    v.place(1, 1, 100.0, 5.0)
    v.print(99.0, 1.0, True)
    v.print(97.0, 1.0, True)  # bid 97
    answer, happened = v.place(2, -1, 0.0, 8.0, reduce_only=True, at_market=True)
    assert answer == "filled"
    assert happened is not None
    execution, account, _ = happened
    # At most the position: 5, not 8.
    assert (execution["qty"], execution["price"], execution["pnl"]) == (-5.0, 97.0, -15.0)
    assert execution["fee"] == pytest.approx(-5 * 97 * 0.002)
    assert account["size"] == 0.0
    # A short is bought back at the ask.
    short = holding(-5.0)
    short.print(103.0, 1.0, False)
    answer, happened = short.place(3, 1, 0.0, 2.0, reduce_only=True, at_market=True)
    assert happened is not None
    assert fills([happened]) == [(3, 2.0, 103.0)]


# --- a print ---


def test_cross_wants_a_print_through_touch_one_at_the_price() -> None:
    for mode, at_price in ((FillMode.CROSS, []), (FillMode.TOUCH, [(1, 2.0, 99.0)])):
        v = venue(fill_mode=mode)
        v.place(1, 1, 99.0, 2.0)
        assert fills(v.print(98.0, 9.0, False)) == []  # hits sells only
        assert fills(v.print(99.0, 9.0, True)) == at_price
        v = venue(fill_mode=mode)
        v.place(1, 1, 99.0, 2.0)
        assert fills(v.print(98.0, 0.0, True)) == [(1, 2.0, 99.0)]  # whole, whatever it brings


def test_every_order_a_print_goes_through_fills_best_first() -> None:
    v = venue()
    for order, price in enumerate((97.0, 99.0, 98.0, 99.0), 1):
        v.place(order, 1, price, 1.0)
    assert fills(v.print(97.0, 1.0, True)) == [(2, 1.0, 99.0), (4, 1.0, 99.0), (3, 1.0, 98.0)]
    assert resting(v, 1) == [(1, 1.0, 97.0)]


def test_volume_is_shared_best_first_and_orders_may_fill_in_parts() -> None:
    v = venue(fill_mode=FillMode.VOLUME, queue_share=0.3)
    v.place(1, 1, 99.0, 5.0)
    v.place(2, 1, 98.0, 4.0)
    v.place(3, 1, 98.0, 4.0)
    # 10.9 bring 10 whole steps. Through 99: 5 of them. At 98: floor(10 × 0.3) = 3, of 5 left.
    assert fills(v.print(98.0, 10.9, True)) == [(1, 5.0, 99.0), (2, 3.0, 98.0)]
    assert resting(v, 1) == [(2, 1.0, 98.0), (3, 4.0, 98.0)]
    # 7 go through: 1 and 4, and 2 steps find nobody.
    assert fills(v.print(97.0, 7.0, True)) == [(2, 1.0, 98.0), (3, 4.0, 98.0)]


def test_the_share_at_the_price_is_no_more_than_what_is_left() -> None:
    v = venue(fill_mode=FillMode.VOLUME, queue_share=1.0)
    v.place(1, 1, 99.0, 8.0)
    v.place(2, 1, 98.0, 8.0)
    assert fills(v.print(98.0, 10.0, True)) == [(1, 8.0, 99.0), (2, 2.0, 98.0)]
    assert fills(v.print(98.0, 0.99, True)) == []  # no whole step


def test_what_a_share_leaves_over_counts_at_the_next_print_at_our_price() -> None:
    v = venue(fill_mode=FillMode.VOLUME, queue_share=0.375)
    v.place(1, 1, 99.0, 8.0)
    v.print(99.0, 1.0, True)  # 0.375
    v.print(99.0, 1.0, False)  # hits sells only
    v.print(100.0, 5.0, True)  # nobody's price: not ours either
    v.print(99.0, 1.0, True)  # 0.75
    assert fills(v.print(99.0, 1.0, True)) == [(1, 1.0, 99.0)]  # 1.125
    assert fills(v.print(99.0, 2.0, True)) == []  # 0.125 + 0.75
    v.cancel(1, 1)
    v.place(2, 1, 98.0, 8.0)
    assert fills(v.print(98.0, 3.0, True)) == [(2, 2.0, 98.0)]  # 0.875 + 1.125 = 2
    assert fills(v.print(98.0, 2.0, True)) == []  # 0.75: nothing was left over


def test_a_reduce_only_order_fills_at_most_the_position() -> None:
    v = holding(5.0)
    v.place(1, -1, 102.0, 3.0, reduce_only=True)
    v.place(2, -1, 103.0, 4.0, reduce_only=True)
    v.place(3, -1, 104.0, 4.0, reduce_only=True)
    happened = v.print(110.0, 1.0, False)
    # 3 and the 2 that are left; then the position is gone, and the venue cancels the rest: what
    # is left of order 2, and order 3.
    assert fills(happened) == [(1, -3.0, 102.0), (2, -2.0, 103.0)]
    assert [cancelled for _, _, cancelled in happened] == [[], [2, 3]]
    assert resting(v, -1) == []


# --- the account ---


def test_a_round_trip_pays_both_fees_and_keeps_the_average_while_closing() -> None:
    v = venue()
    v.place(1, 1, 100.0, 10.0)
    v.place(2, 1, 96.0, 30.0)
    (first, after, _), (second, later, _) = v.print(95.0, 1.0, True)
    assert first["position_side"] == 1
    assert first["pnl"] == 0.0
    assert first["fee"] == -1.0  # 10 × 100 × 0.001
    assert after["wallet"] == 9_999.0
    assert second["fee"] == pytest.approx(-2.88)  # 30 × 96 × 0.001
    assert later["entry_price"] == 97.0  # (10 × 100 + 30 × 96) / 40
    # Equity is taken at the print's price, 95: 9996.12 + 40 × (95 - 97).
    assert later["equity"] == pytest.approx(9_996.12 - 80)
    v.place(3, -1, 99.0, 25.0, reduce_only=True)
    ((close, end, _),) = v.print(102.0, 1.0, False)
    assert close["pnl"] == 50.0  # 25 × (99 - 97)
    assert close["fee"] == pytest.approx(-2.475)  # 25 × 99 × 0.001
    assert (end["size"], end["entry_price"]) == (15.0, 97.0)
    assert end["wallet"] == pytest.approx(9_996.12 + 50 - 2.475)


def test_a_rebate_is_income() -> None:
    v = venue(maker_fee=-0.00025)
    v.place(1, 1, 100.0, 10.0)
    assert v.print(99.0, 1.0, True)[0][0]["fee"] == 0.25


def test_an_inverse_position_earns_in_coin() -> None:
    v = venue(inverse=1, wallet=100.0, cross_mode=True)
    v.place(1, 1, 100.0, 300.0)
    v.place(2, 1, 50.0, 100.0)
    (first, *_), (_, after, _) = v.print(40.0, 1.0, True)
    assert first["fee"] == pytest.approx(-0.003)  # 300 / 100 × 0.001
    assert after["entry_price"] == 80.0  # 400 / (300 / 100 + 100 / 50)
    v.place(3, -1, 160.0, 400.0, reduce_only=True)
    ((close, *_),) = v.print(161.0, 1.0, False)
    assert close["pnl"] == pytest.approx(2.5)  # 400 × (1 / 80 - 1 / 160)
    short = holding(-300.0, inverse=1, wallet=100.0)
    short.place(1, 1, 75.0, 300.0, reduce_only=True)
    ((close, *_),) = short.print(74.0, 1.0, True)
    assert close["pnl"] == pytest.approx(1.0)  # 300 × (1 / 75 - 1 / 100): sold at 100


def test_the_other_sides_entry_closes_and_opens_in_one_fill() -> None:
    v = holding(4.0)
    v.place(1, -1, 110.0, 4.0, reduce_only=True)
    v.place(2, -1, 105.0, 10.0)
    v.place(3, 1, 90.0, 4.0)
    ((flip, account, cancelled),) = v.print(106.0, 1.0, False)
    assert (flip["position_side"], flip["qty"], flip["pnl"]) == (1, -10.0, 20.0)
    assert (account["size"], account["entry_price"]) == (-6.0, 105.0)
    assert account["wallet"] == 10_020.0
    # The sell that reduced a long reduces no more; the plain buy stays.
    assert cancelled == [1]
    assert resting(v, 1) == [(3, 4.0, 90.0)]


def test_sizes_stay_the_venues_decimals() -> None:
    v = free(qty_step=(1, 10))
    for order in range(1, 4):
        v.place(order, 1, 99.0, 0.1)
    v.print(98.0, 1.0, True)
    assert v.account["size"] == 0.3  # 0.1 + 0.1 + 0.1 is 0.30000000000000004


def test_funding_moves_the_wallet_of_a_position_only() -> None:
    v = holding(10.0)
    v.print(110.0, 1.0, False)
    assert v.settle_funding(0.001) == pytest.approx(-1.1)  # -10 × 110 × 0.001
    assert v.account["wallet"] == pytest.approx(9_998.9)
    assert v.account["equity"] == pytest.approx(9_998.9 + 100)  # fixed anew, at 110
    assert holding(-10.0).settle_funding(0.001) == pytest.approx(1.0)
    assert holding(500.0, inverse=1).settle_funding(0.01) == pytest.approx(-0.05)  # 500 / 100
    flat = venue()
    assert flat.settle_funding(0.5) == 0.0
    assert flat.account["wallet"] == 10_000.0


# --- liquidation ---

# 100 at 100, isolated at leverage 10: margin 1000. L = (1000 - 100 × 100) / (0.4 - 100) = 90.36.
LEVEL = 9_000 / 99.6


def test_the_liquidation_price_of_isolated_and_cross() -> None:
    assert holding(100.0).account["liq_price"] == pytest.approx(LEVEL)
    # Cross: the wallet of 10,000 carries everything: (10,000 - 10,000) / ... = 0 is none.
    assert holding(100.0, cross_mode=True).account["liq_price"] == 0.0
    # 2000 of wallet: 8000 / 99.6 for the long, 12,000 / 100.4 for the short.
    for size, level in ((100.0, 8_000 / 99.6), (-100.0, 12_000 / 100.4)):
        got = holding(size, cross_mode=True, wallet=2_000.0).account["liq_price"]
        assert got == pytest.approx(level)


def test_liquidation_is_reached_at_its_level_on_prints_of_its_own_side() -> None:
    v = holding(100.0)
    assert v.print(80.0, 1.0, False) == []  # a seller-maker print tests shorts
    assert v.print(91.0, 1.0, True) == []
    ((execution, account, _),) = v.print(90.0, 1.0, True)
    assert (execution["id"], execution["position_side"]) == (0, 1)
    assert (execution["qty"], execution["price"]) == (-100.0, pytest.approx(LEVEL))
    assert execution["pnl"] == pytest.approx(100 * (LEVEL - 100))
    assert (account["size"], account["entry_price"], account["liq_price"]) == (0.0, 0.0, 0.0)
    # Reached means at it: a level that is a whole price. 1004 of wallet: a short at 100 of 10 has
    # (1004 - 0 + 1000) / (10 × 1.002) = 200.
    whole = [(0.0, 0.002, 0.0)]
    short = holding(-10.0, cross_mode=True, wallet=1_004.0, tiers=whole)
    assert short.account["liq_price"] == 200.0
    assert short.print(199.0, 1.0, False) == []
    assert fills(short.print(200.0, 1.0, False)) == [(0, 10.0, 200.0)]


def test_orders_nearer_than_the_level_fill_first_and_fix_it_anew() -> None:
    v = holding(100.0)
    v.place(1, 1, 95.0, 100.0)
    v.place(2, 1, 80.0, 100.0)
    happened = v.print(79.0, 1.0, True)
    # 200 at 97.5, margin 1950: L = (1950 - 19,500) / (0.8 - 200) = 88.1, nearer than 80.
    level = 17_550 / 199.2
    assert fills(happened) == [(1, 100.0, 95.0), (0, -200.0, pytest.approx(level))]
    assert resting(v, 1) == []  # all orders are cancelled


def test_a_print_can_open_a_position_and_liquidate_it() -> None:
    v = free()
    v.place(1, 1, 100.0, 100.0)
    assert fills(v.print(90.0, 1.0, True)) == [(1, 100.0, 100.0), (0, -100.0, pytest.approx(LEVEL))]


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_an_order_that_reduces_does_not_fill_beyond_the_level(size: float) -> None:
    # Prints of the other side pull the book past L without reaching it by the rule. What would
    # close there finds the position taken by the venue, at L, however far beyond it would fill.
    side = 1 if size > 0.0 else -1
    v = holding(size)
    level = float(v.account["liq_price"])
    near, far = (92.0, 60.0) if side > 0 else (108.0, 140.0)
    assert v.print(near, 1.0, side < 0) == []
    assert v.place(1, -side, near, 50.0, reduce_only=True)[0] == "rests"
    assert v.print(far, 1.0, side < 0) == []
    assert v.place(2, -side, far, 30.0, reduce_only=True)[0] == "rests"
    ((execution, account, cancelled),) = v.print(far + side * 2.0, 1.0, side < 0)
    assert (execution["id"], execution["price"], execution["qty"]) == (0, level, -size)
    assert account["wallet"] == pytest.approx(10_000.0 + 100 * side * (level - 100.0))
    assert (account["size"], sorted(cancelled), resting(v, -side)) == (0.0, [1, 2], [])
    # At market the same; nearer than L it fills.
    for price, answer in ((far, "liquidated"), (near, "filled")):
        v = holding(size)
        v.print(price, 1.0, side < 0)
        got, happened = v.place(3, -side, 1.0, 50.0, reduce_only=True, at_market=True)
        assert got == answer
        assert happened is not None
        assert (happened[0]["id"] == 0) == (answer == "liquidated")


def test_liquidation_pays_taker_and_liquidation_fee_and_leaves_no_debt() -> None:
    v = holding(100.0, taker_fee=0.002, liquidation_fee=0.01, cross_mode=True, wallet=2_000.0)
    ((execution, account, _),) = v.print(70.0, 1.0, True)
    # L = 8000 / 99.6 = 80.32: pnl -1967.9 and fee 8032 × 0.012 = 96.4 are more than the 2000.
    assert execution["fee"] == pytest.approx(-800_000 / 99.6 * 0.012)
    assert account["wallet"] == 0.0
    assert execution["pnl"] == pytest.approx(-2_000 - execution["fee"])
    # Isolated, the margin of 1000 is all that can go: 963.9 and 9036 × 0.012 = 108.4 are more.
    v = holding(100.0, taker_fee=0.002, liquidation_fee=0.01)
    ((execution, account, _),) = v.print(70.0, 1.0, True)
    assert account["wallet"] == pytest.approx(9_000.0)
    assert execution["pnl"] + execution["fee"] == pytest.approx(-1_000.0)


@pytest.mark.parametrize("side", [1, -1])
def test_a_level_beyond_the_market_is_nobodys_price(side: int) -> None:
    # Maintenance 20 % on a margin of 10 %: L = (1000 - 10,000) / (20 - 100) = 112.5 of a long,
    # 11,000 / 120 = 91.7 of a short. Closed there it would earn 1250 or 833; it is closed at once,
    # at the 100 it was filled at.
    v = venue(tiers=[(0.0, 0.2, 0.0)])
    v.place(1, side, 100.0, 100.0)
    (_, filled, _), (execution, account, _) = v.print(100.0 - side, 1.0, side > 0)
    level = 112.5 if side > 0 else 11_000 / 120
    assert filled["liq_price"] == pytest.approx(level)
    assert (execution["id"], execution["price"], execution["pnl"]) == (0, 100.0, 0.0)
    assert account["wallet"] == 9_970.0  # 10,000 × 0.001 and × 0.002
    # Funding that takes the last of the margin fixes it too: the last price, 100, is the best.
    v = holding(side * 100.0, cross_mode=True, wallet=500.0)
    v.settle_funding(side * 0.048)
    level = float(v.account["liq_price"])
    assert side * level > side * 100.0
    ((execution, account, _),) = v.print(100.0 + side * 0.1, 1.0, side > 0)
    assert (execution["price"], account["wallet"]) == (100.0, pytest.approx(20.0))


def test_a_higher_tier_liquidates_earlier() -> None:
    # From 9500 of notional on 2 %, deduction 9500 × 0.016 = 152. The long's L of 90.36 is a
    # notional of 9036, below that floor, where the second tier's (1152 - 10,000) / (2 - 100) =
    # 90.29 is too. The short grows into it: (1152 + 10,000) / (2 + 100) = 109.33 instead of 109.56.
    tiers = [(0.0, 0.004, 0.0), (9_500.0, 0.02, 152.0)]
    assert holding(100.0, tiers=tiers).account["liq_price"] == pytest.approx(LEVEL)
    assert holding(-100.0, tiers=tiers).account["liq_price"] == pytest.approx(11_152 / 102)


# --- whatever happens ---

Step = tuple[str, int, int, int, bool]
steps = st.lists(
    st.tuples(
        st.sampled_from(["print", "print", "place", "reduce", "market", "cancel", "funding"]),
        st.integers(80, 120),  # price
        st.integers(1, 40),  # quantity
        st.sampled_from([1, -1]),
        st.booleans(),
    ),
    max_size=60,
)


@given(
    script=steps,
    mode=st.sampled_from(list(FillMode)),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    cross=st.booleans(),
    inverse=st.booleans(),
)
def test_what_holds_whatever_happens(
    script: list[Step], mode: int, share: float, cross: bool, inverse: bool
) -> None:
    wallet = 30.0 if inverse else 3_000.0
    v = venue(
        fill_mode=mode, queue_share=share, cross_mode=cross, inverse=inverse, wallet=wallet,
        liquidation_fee=0.01,
    )  # fmt: skip
    reduce_only: set[int] = set()
    size = 0.0

    def take(execution: np.void, account: np.void, cancelled: list[int]) -> None:
        nonlocal wallet, size
        assert account["size"] == size + execution["qty"]
        assert account["wallet"] == pytest.approx(
            wallet + execution["pnl"] + execution["fee"], abs=1e-9
        )
        assert (account["size"] == 0.0) == (account["entry_price"] == 0.0)
        if execution["id"] in reduce_only or execution["id"] == 0:
            assert abs(account["size"]) < abs(size)
            assert account["size"] * size >= 0.0
        assert set(cancelled) <= reduce_only or execution["id"] == 0
        turned = size != 0.0 and account["size"] * size <= 0.0
        assert bool(execution["turned"]) == turned
        wallet, size = account["wallet"], account["size"]

    for order, (what, price, qty, side, flag) in enumerate(script, 1):
        bid, ask = v.touch
        if what == "print":
            done = v.print(float(price), float(qty), flag)
            for each in done:
                take(*each)
            filled = [abs(x["qty"]) for x, _, _ in done if x["id"] != 0]
            assert mode != FillMode.VOLUME or sum(filled) <= qty
            at_price = [abs(x["qty"]) for x, _, _ in done if x["price"] == price and x["id"]]
            # Less than a step may be left over from earlier prints.
            assert mode != FillMode.VOLUME or sum(at_price) <= math.floor(qty * share) + 1
            assert mode != FillMode.CROSS or not at_price
            if done and done[-1][0]["id"] == 0:
                assert len(v.orders(1)) == len(v.orders(-1)) == 0
                return
        elif what in ("place", "reduce"):
            if what == "reduce":
                reduce_only.add(order)
            answer, _ = v.place(order, side, float(price), float(qty), reduce_only=what == "reduce")
            would_take = price >= ask if side > 0 else price <= bid
            if what == "reduce" and not side * size < 0.0:
                assert answer == "would_not_reduce"
            else:
                assert answer == ("would_take" if would_take else "rests")
        elif what == "market":
            reduce_only.add(order)
            answer, happened = v.place(
                order, side, 0.0, float(qty), reduce_only=True, at_market=True
            )
            reduces = side * size < 0.0
            assert (answer in ("filled", "liquidated")) == reduces == (happened is not None)
            if happened:
                take(*happened)
                if answer == "liquidated":
                    assert len(v.orders(1)) == len(v.orders(-1)) == 0
                    return
        elif what == "cancel":
            v.cancel(order // 2, side)
        else:
            wallet += v.settle_funding(price / 1e5 * side)
        assert v.account["wallet"] == pytest.approx(wallet, abs=1e-9)
        for row in (1, -1):
            orders = v.orders(row)
            assert np.all(np.diff(row * orders["price"]) <= 0.0)
            assert np.all(orders["qty"] > 0.0)
            assert row * size < 0.0 or not orders["reduce_only"].any()


# --- what the venue does by itself ---


def test_changed_terms_fix_the_levels_again() -> None:
    v = holding(100.0)  # isolated, 10 x: L = (1000 - 10,000) / (0.4 - 100)
    assert v.account["liq_price"] == pytest.approx(9_000 / 99.6)
    v.set_terms(leverage=5.0)
    assert v.account["liq_price"] == pytest.approx(8_000 / 99.6)
    v.set_terms(cross_mode=True)  # the wallet of 10,000 backs it whole
    assert v.account["liq_price"] == 0.0
    v.set_terms(leverage=10.0, cross_mode=False)
    assert v.account["liq_price"] == pytest.approx(9_000 / 99.6)
    v.print(101.0, 1.0, False)
    v.set_terms()
    assert v.account["equity"] == 10_100.0


@pytest.mark.parametrize("leverage", [0.5, -1.0, math.nan, math.inf])
def test_refuses_terms_out_of_range_and_changes_nothing(leverage: float) -> None:
    v = holding(100.0)
    before = v.account
    with pytest.raises(ValueError, match="leverage must be in"):
        v.set_terms(leverage=leverage, cross_mode=True)
    assert v.account == before


def test_a_level_behind_the_market_by_new_terms_is_nobodys_price() -> None:
    v = holding(100.0)
    v.print(95.0, 1.0, False)
    v.set_terms(leverage=50.0)  # L = 9800 / 99.6 = 98.4, and the price is 95 already
    ((execution, _, _),) = v.print(95.0, 1.0, True)
    assert (execution["id"], execution["price"]) == (0, 95.0)


def test_new_rules_hold_from_then_on() -> None:
    v = holding(100.0)
    v.place(1, 1, 99.0, 1.0)
    market = one(MARKET_DTYPE, **(MARKET | {"price_step": (5, 10), "maker_fee": 0.01}))
    v.set_market(market, np.array([(0.0, 0.008, 0.0)], TIER_DTYPE))
    assert v.account["liq_price"] == pytest.approx(9_000 / 99.2)
    assert v.place(2, 1, 98.5, 1.0)[0] == "rests"
    (first, _, _), (second, _, _) = v.print(98.0, 10.0, True)
    assert (first["fee"], second["fee"]) == (pytest.approx(-0.99), pytest.approx(-0.985))


def test_refuses_rules_that_do_not_fit_what_is_there() -> None:
    v = holding(5.0)
    v.place(1, -1, 110.0, 3.0)
    tiers = np.array(TIERS, TIER_DTYPE)
    before = v.account
    for changes, message in (
        ({"inverse": 1}, "inverse must stay 0"),
        ({"qty_step": (2, 1)}, "position must be a multiple of 2/1"),
        ({"qty_step": (5, 1)}, "qty of order 1 must be a multiple of 5/1"),
    ):
        with pytest.raises(ValueError, match=message):
            v.set_market(one(MARKET_DTYPE, **(MARKET | changes)), tiers)
    with pytest.raises(ValueError, match="tiers at least one"):
        v.set_market(one(MARKET_DTYPE, **MARKET), tiers[:0])
    assert v.account == before
    assert v.place(2, -1, 111.0, 1.0)[0] == "rests"


def test_rules_outlive_the_arrays_they_came_in() -> None:
    v = holding(100.0)
    market, tiers = one(MARKET_DTYPE, **MARKET), np.array(TIERS, TIER_DTYPE)
    v.set_market(market, tiers)
    market["price_step"] = (7, 1)
    del market, tiers
    assert v.touch == (100.0, 101.0)  # the steps of the moment it was told
    v.set_terms()
    assert v.account["liq_price"] == pytest.approx(9_000 / 99.6)


def test_a_deposit_moves_the_wallet_and_a_cross_level() -> None:
    v = holding(100.0, cross_mode=True, wallet=2_000.0)
    assert v.account["liq_price"] == pytest.approx(8_000 / 99.6)
    v.print(101.0, 1.0, False)
    v.deposit(-500.0)
    assert v.account["wallet"] == 1_500.0
    assert v.account["equity"] == 1_600.0
    assert v.account["liq_price"] == pytest.approx(8_500 / 99.6)
    for amount in (math.nan, math.inf):
        with pytest.raises(ValueError, match="amount must be finite"):
            v.deposit(amount)
    v.deposit(1e308)
    with pytest.raises(ValueError, match="finite wallet"):
        v.deposit(1e308)


def test_a_forced_liquidation_is_one_at_the_level() -> None:
    v, w = (holding(100.0, taker_fee=0.002, liquidation_fee=0.01) for _ in range(2))
    for x in (v, w):
        x.place(7, 1, 50.0, 1.0)
        x.place(8, -1, 150.0, 1.0, reduce_only=True)
    happened = v.liquidate()
    assert happened is not None
    execution, account, cancelled = happened
    ((expected, after, also),) = w.print(70.0, 1.0, True)
    assert (execution, account) == (expected, after)
    assert sorted(cancelled) == sorted(also) == [7, 8]
    assert v.liquidate() is None


def test_forced_without_a_level_it_is_at_the_last_price() -> None:
    v = holding(5.0, cross_mode=True)
    v.print(102.0, 1.0, False)
    assert v.account["liq_price"] == 0.0
    happened = v.liquidate()
    assert happened is not None
    assert happened[0]["price"] == v.last == 102.0
    assert (happened[1]["size"], happened[1]["wallet"]) == (0.0, 10_010.0)


@pytest.mark.parametrize("side", [1, -1])
def test_a_reduction_by_the_venue_has_no_fee_and_leaves_other_orders(side: int) -> None:
    v = holding(side * 10.0, maker_fee=0.001, taker_fee=0.002)
    v.place(1, -side, 100.0 + side * 10.0, 5.0, reduce_only=True)
    v.place(2, side, 100.0 - side * 10.0, 5.0)
    wallet = float(v.account["wallet"])
    execution, account, cancelled = v.reduce(4.0, 100.0 + side * 2.5)
    assert (execution["id"], execution["qty"], execution["position_side"]) == (-1, -side * 4, side)
    assert (execution["pnl"], execution["fee"], execution["turned"]) == (10.0, 0.0, 0)
    assert (account["size"], account["wallet"]) == (side * 6.0, wallet + 10.0)
    assert cancelled == []
    _, account, cancelled = v.reduce(6.0, 100.0)
    assert (account["size"], cancelled) == (0.0, [1])
    assert len(v.orders(side)) == 1
    with pytest.raises(ValueError, match="qty must be in"):
        v.reduce(1.0, 100.0)


@pytest.mark.parametrize("qty", [0.0, -1.0, 11.0, math.nan, math.inf, 0.5])
def test_refuses_a_reduction_that_is_none(qty: float) -> None:
    v = holding(10.0)
    with pytest.raises(ValueError, match="qty must be"):
        v.reduce(qty, 100.0)
    for price in (0.0, math.nan):
        with pytest.raises(ValueError, match="price must be"):
            v.reduce(1.0, price)
    assert v.account["size"] == 10.0


@pytest.mark.parametrize("side", [1, -1])
def test_a_fill_by_the_venue_is_at_the_orders_price_as_maker(side: int) -> None:
    v = venue()
    price = 100.0 - side * 5.0
    v.place(3, side, price, 10.0)
    for qty, left in ((4.0, 6.0), (6.0, 0.0)):
        ((execution, account, cancelled),) = [v.fill(3, side, qty)]
        assert (execution["id"], execution["qty"], execution["price"]) == (3, side * qty, price)
        assert execution["fee"] == pytest.approx(-qty * price * 0.001)
        assert account["size"] == side * (10.0 - left)
        assert cancelled == []
        assert resting(v, side) == ([(3, left, price)] if left else [])
    with pytest.raises(ValueError, match="a resting order"):
        v.fill(3, side, 1.0)


def test_a_reduce_only_fill_by_the_venue_is_at_most_the_position() -> None:
    v = holding(10.0)
    v.place(3, -1, 110.0, 8.0, reduce_only=True)
    v.place(4, -1, 111.0, 8.0, reduce_only=True)
    assert v.fill(3, -1, 8.0)[1]["size"] == 2.0
    execution, account, cancelled = v.fill(4, -1, 8.0)
    assert (execution["qty"], account["size"], cancelled) == (-2.0, 0.0, [4])


def test_a_fill_beyond_liquidation_is_the_liquidation() -> None:
    v = holding(100.0)
    level = float(v.account["liq_price"])
    v.place(3, 1, math.floor(level) - 5.0, 1.0)
    execution, account, cancelled = v.fill(3, 1, 1.0)
    assert (execution["id"], execution["qty"], account["size"]) != (3, 1.0, 101.0)
    assert (account["size"], cancelled) == (0.0, [3])


@pytest.mark.parametrize("qty", [0.0, -1.0, 11.0, math.nan, math.inf, 0.5])
def test_refuses_a_fill_that_is_none(qty: float) -> None:
    v = venue()
    v.place(3, 1, 95.0, 10.0)
    with pytest.raises(ValueError, match="qty"):
        v.fill(3, 1, qty)
    for id, side in ((3, -1), (4, 1)):
        with pytest.raises(ValueError, match="a resting order"):
            v.fill(id, side, 1.0)
    assert resting(v, 1) == [(3, 10.0, 95.0)]


def test_the_last_price_is_the_last_prints() -> None:
    v = venue()
    assert v.last == 100.0
    v.print(98.25, 1.0, True)
    assert v.last == 98.25


# --- out of range ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("price", 0.0), ("price", -1.0), ("price", math.nan), ("price", math.inf),
        ("wallet", math.nan), ("wallet", math.inf), ("leverage", 0.5), ("leverage", math.nan),
        ("fill_mode", 3), ("fill_mode", -1), ("queue_share", -0.1), ("queue_share", 1.1),
        ("queue_share", math.nan), ("liquidation_fee", -0.1), ("liquidation_fee", math.nan),
    ],
)  # fmt: skip
def test_refuses_what_is_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be in"):
        venue(**{name: value})


def test_refuses_no_tier_and_two_markets() -> None:
    with pytest.raises(ValueError, match="tiers at least one"):
        venue(tiers=[])
    markets = np.concatenate([one(MARKET_DTYPE, **MARKET)] * 2)
    with pytest.raises(ValueError, match="market must be one record"):
        PaperVenue(markets, np.array(TIERS, TIER_DTYPE), **VENUE)


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_price_that_is_none(price: float) -> None:
    v = venue()
    with pytest.raises(ValueError, match="price must be finite and > 0"):
        v.print(price, 1.0, True)
    with pytest.raises(ValueError, match="price must be finite and > 0"):
        v.place(1, 1, price, 1.0)
    assert v.touch == (99.0, 101.0)


@pytest.mark.parametrize("qty", [-1.0, math.nan, math.inf])
def test_refuses_a_print_of_no_quantity(qty: float) -> None:
    v = venue(fill_mode=FillMode.VOLUME)
    with pytest.raises(ValueError, match="qty must be finite and >= 0"):
        v.print(100.0, qty, True)


@pytest.mark.parametrize(
    ("order", "side", "price", "qty"),
    [
        (0, 1, 99.0, 1.0), (-1, 1, 99.0, 1.0), (1, 0, 99.0, 1.0), (1, 2, 99.0, 1.0),
        (1, 1, 99.0, 0.0), (1, 1, 99.0, -1.0), (1, 1, 99.0, math.nan), (1, 1, 99.0, math.inf),
        (1, 1, 99.0, 0.5), (1, 1, 98.5, 1.0),
    ],
)  # fmt: skip
def test_refuses_an_order_that_is_none(order: int, side: int, price: float, qty: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        venue().place(order, side, price, qty)


def test_refuses_a_rate_that_is_none() -> None:
    for rate in (math.nan, math.inf):
        with pytest.raises(ValueError, match="rate must be finite"):
            venue().settle_funding(rate)


def test_made_again_it_starts_again() -> None:
    v = holding(5.0)
    v.place(1, 1, 90.0, 1.0)
    PaperVenue.__init__(v, one(MARKET_DTYPE, **MARKET), np.array(TIERS, TIER_DTYPE), **VENUE)
    assert (v.account["size"], v.account["wallet"], resting(v, 1)) == (0.0, 10_000.0, [])


def test_refuses_more_orders_than_a_side_has_room_for() -> None:
    v = venue()
    for order in range(1, 1025):
        v.place(order, 1, 50.0, 1.0)
    with pytest.raises(ValueError, match="1024"):
        v.place(1025, 1, 50.0, 1.0)
    assert v.place(1026, -1, 150.0, 1.0)[0] == "rests"
