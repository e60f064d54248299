"""The order flow by hand: *Planning moments*, *Groups* and *Stops* of docs/backtest.md.

The market of all cases: prices and quantities in whole units, linear, wallet 100,000, leverage 1.
A first entry is 10 at 1000: floor(100,000 / 1000 × 0.1). Its re-entries wait at

- 1000 × 0.95 = 950, on the coarse grid of ceil(1000 × 0.05 / 4) = 13: 949, 10 of it;
- from 20 at 974.5: 925.775, again on 13: 923, 20 of it;
- from 40 at 948.75: 901.3, on 12: 900, 40 of it;

and its close is one sell at ceil(1000 × 1.0015) = 1002.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.flow import FLOW_RULES_DTYPE, LiveState, OrderFlow, What
from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, Kind
from tests.core.situations import PLAIN_MARKET, PLAIN_STRATEGY, one

MARKET: dict[str, Any] = PLAIN_MARKET
STRATEGY: dict[str, Any] = PLAIN_STRATEGY
RULES: dict[str, Any] = {
    "requote_tolerance": 0.0003,
    "requote_ms": 1000,
    "orders_per_batch": 4,
    "market_stop_loss": 0,
}
STOPPING: dict[str, Any] = {"stop_loss_pos_price_diff": 0.02, "stop_loss_pos_reduction": 0.5}

Words = tuple[str, int, float, float]  # what, id, price, signed quantity


class Bot:
    """A flow whose messages come back as words; a message has arrived when the test says so."""

    def __init__(self, **changes: Any) -> None:
        records = []
        for values, dtype in (
            (STRATEGY, STRATEGY_DTYPE), (MARKET, MARKET_DTYPE), (RULES, FLOW_RULES_DTYPE),
        ):  # fmt: skip
            own = {k: changes.pop(k) for k in list(changes) if k in (dtype.names or ())}
            records.append(one(dtype, **(values | own)))
        assert not changes
        self.flow = OrderFlow(*records, wallet=100_000.0)
        self.on_its_way: list[np.ndarray] = []
        self.see(1000.0)

    def see(self, last: float, bid: float = 0.0, ask: float = 0.0, **more: float) -> None:
        """A market around a price; the book one step either side unless given. EMA: the price."""
        self.flow.see_market(
            last_price=last, bid=bid or last, ask=ask or last + 1.0, ema=last, **more
        )

    def words(self, messages: np.ndarray) -> list[Words]:
        self.on_its_way += [messages[i : i + 1] for i in range(len(messages))]
        return [
            (What(m["what"]).name, int(m["id"]), float(m["price"]), float(m["side"] * m["qty"]))
            for m in messages
        ]

    def plan(self) -> list[Words]:
        return self.words(self.flow.plan())

    def requote(self) -> list[Words]:
        return self.words(self.flow.requote())

    def release(self) -> list[Words]:
        return self.words(self.flow.release())

    def arrive(self, *, gone: bool = True) -> None:
        """Everything reaches the venue: orders rest, cancels remove (but for a late answer)."""
        for message in self.on_its_way:
            self.flow.arrived(message)
            if message["what"][0] == What.PLACE:
                self.flow.placed(message["id"][0])
            elif message["what"][0] == What.CANCEL and gone:
                self.flow.gone(message["id"][0])
        self.on_its_way = []

    def settle(self) -> list[Words]:
        """Let everything arrive and be released until all is quiet; return what was released."""
        released = []
        while self.on_its_way:
            self.arrive()
            released += self.release()
        return released

    def hold(self, size: float, entry: float = 1000.0, liq: float = 0.0) -> None:
        self.flow.account(
            wallet=100_000.0, equity=100_000.0, size=size, entry_price=entry, liq_price=liq
        )

    def fill(self, order: int, qty: float, size: float, entry: float = 1000.0) -> int:
        self.hold(size, entry)
        return self.flow.filled(order, qty)

    @property
    def live(self) -> list[tuple[int, str, float, float]]:
        """(id, state, ideal price, signed ideal quantity) of every live order."""
        return [
            (int(o["id"]), LiveState(o["state"]).name, float(o["ideal"]["price"]),
             float(o["ideal"]["side"] * o["ideal"]["qty"]))
            for o in self.flow.live
        ]  # fmt: skip


def long_ten(**changes: Any) -> Bot:
    """Long 10 at 1000 with everything of its plan resting: re-entries from id 2 on, one close."""
    bot = Bot(**changes)
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    bot.plan()
    bot.settle()
    return bot


# --- planning moments ---


def test_the_first_plan_is_due_and_then_only_after_news() -> None:
    bot = Bot()
    assert bot.flow.due
    assert bot.plan() == [("PLACE", 1, 1000.0, 10.0)]
    assert not bot.flow.due
    assert bot.live == [(1, "SENT", 1000.0, 10.0)]
    bot.arrive()
    assert bot.live == [(1, "IN_BOOK", 1000.0, 10.0)]
    assert bot.release() == []
    assert bot.fill(1, 10.0, 10.0) == Kind.ENTRY
    assert bot.flow.due
    assert bot.live == []
    assert bot.plan() == [("PLACE", 2, 949.0, 10.0), ("PLACE", 3, 1002.0, -10.0)]
    assert not bot.flow.due


def test_equal_orders_are_left_alone() -> None:
    bot = long_ten()
    assert bot.plan() == bot.requote() == bot.release() == []
    # Travelling orders count too.
    fresh = Bot()
    fresh.plan()
    assert fresh.plan() == fresh.requote() == []


def test_orders_that_equal_nothing_go_first_and_the_new_ones_after_them() -> None:
    bot = Bot()
    bot.plan()
    bot.arrive()
    bot.see(1010.0)  # floor(100,000 / 1010 × 0.1) = 9
    assert bot.requote() == [("CANCEL", 1, 1000.0, 10.0)]
    assert bot.live == [(1, "CANCELLING", 1000.0, 10.0)]
    assert bot.release() == []
    bot.arrive()
    assert bot.release() == [("PLACE", 2, 1010.0, 9.0)]


@pytest.mark.parametrize(
    ("price", "tolerance", "kept"),
    [
        (1001.0, 0.0, True),  # max(1, 0) step
        (1002.0, 0.0003, False),  # max(1, 0.3)
        (1002.0, 0.002, True),  # 0.002 × 1002 = 2.004
        (1003.0, 0.002, False),  # 0.002 × 1003 = 2.006
    ],
)
def test_a_flat_entry_near_enough_keeps_its_place(
    price: float, tolerance: float, kept: bool
) -> None:
    # entry_qty_pct 0.101: 10.1 at 1000, 10.07 at 1003: the quantity stays 10.
    bot = Bot(requote_tolerance=tolerance, entry_qty_pct=0.101)
    bot.plan()
    bot.arrive()
    bot.see(price)
    assert bot.requote() == ([] if kept else [("CANCEL", 1, 1000.0, 10.0)])
    if kept:  # and its ideal price
        assert bot.live == [(1, "IN_BOOK", 1000.0, 10.0)]


@pytest.mark.parametrize(("wallet", "kept"), [(95_300.0, True), (95_200.0, False)])
def test_a_flat_entry_of_nearly_the_quantity_is_near_enough(wallet: float, kept: bool) -> None:
    # 1000 rests. 953 are wanted: |1000 - 953| = 47 <= 0.05 × 953 = 47.65; 952: 48 > 47.6.
    bot = Bot(qty_step=(1, 100), min_qty=0.01)
    assert bot.plan() == [("PLACE", 1, 1000.0, 10.0)]
    bot.arrive()
    bot.flow.account(wallet=wallet, equity=wallet, size=0.0, entry_price=0.0, liq_price=0.0)
    assert bot.requote() == ([] if kept else [("CANCEL", 1, 1000.0, 10.0)])


@pytest.mark.parametrize(("bid", "moves"), [(1002.2, False), (1002.1, True)])
def test_a_requote_moves_a_clamped_order_only_when_it_is_worth_it(bid: float, moves: bool) -> None:
    # In steps of 0.1 the close is ideal at 1001.5. With a bid of 1002.7 it went to 1002.8. Sent at
    # a bid of 1002.2 it would be 5 steps nearer, at 1002.1 6: more than 0.0005 × 10015 = 5.0075.
    bot = Bot(price_step=(1, 10))
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    bot.see(1002.7, 1002.7, 1002.8)
    assert ("PLACE", 3, 1002.8, -10.0) in bot.plan()
    assert bot.settle() == []
    bot.see(bid, bid, bid + 1)
    assert bot.plan() == []  # only at a requote
    assert bot.requote() == ([("CANCEL", 3, 1002.8, -10.0)] if moves else [])
    assert bot.settle() == ([("PLACE", 4, 1002.2, -10.0)] if moves else [])


def test_what_an_older_plan_had_not_sent_is_dropped() -> None:
    bot = long_ten(n_entry_orders=3, orders_per_batch=1)
    assert [order[2:] for order in bot.live] == [
        (949.0, 10.0), (1002.0, -10.0), (923.0, 20.0), (900.0, 40.0),
    ]  # fmt: skip
    bot = Bot(n_entry_orders=3, orders_per_batch=1)
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    assert bot.plan() == [("PLACE", 2, 949.0, 10.0), ("PLACE", 3, 1002.0, -10.0)]
    # The close fills before 923 and 900 have left: they never do. What is wanted now is flat's.
    bot.arrive()
    bot.fill(3, 10.0, 0.0)
    assert bot.plan() == [("CANCEL", 2, 949.0, 10.0)]
    assert bot.settle() == [("PLACE", 4, 1000.0, 10.0)]


def test_a_refused_post_only_slot_waits_for_the_requote() -> None:
    bot = Bot()
    bot.plan()
    bot.flow.arrived(bot.on_its_way.pop())
    bot.flow.refused(1, would_take=True)
    assert bot.live == []
    assert bot.plan() == []
    bot.see(1010.0)  # another slot
    assert bot.plan() == [("PLACE", 2, 1010.0, 9.0)]
    bot.flow.arrived(bot.on_its_way.pop())
    bot.flow.refused(2, would_take=True)
    assert bot.plan() == []
    assert bot.requote() == [("PLACE", 3, 1010.0, 9.0)]


def test_a_reduce_only_refusal_blocks_no_slot() -> None:
    bot = Bot()
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    assert bot.plan()[1] == ("PLACE", 3, 1002.0, -10.0)
    bot.flow.arrived(bot.on_its_way.pop())
    bot.flow.refused(3, would_take=False)
    assert bot.plan() == [("PLACE", 4, 1002.0, -10.0)]


def test_close_base_is_the_size_at_the_last_opening_fill() -> None:
    bot = long_ten()
    assert bot.flow.close_base == 10.0
    assert bot.fill(3, 4.0, 6.0) == Kind.CLOSE
    assert bot.flow.close_base == 10.0
    assert bot.fill(2, 2.0, 8.0) == Kind.REENTRY  # also a partial one
    assert bot.flow.close_base == 8.0
    bot.fill(3, 6.0, 0.0)
    assert bot.flow.close_base == 0.0


def test_a_fill_takes_from_both_quantities_and_a_stranger_is_no_order() -> None:
    bot = long_ten()
    bot.fill(2, 4.0, 14.0, 985.0)
    assert bot.live[0] == (2, "IN_BOOK", 949.0, 6.0)
    assert bot.flow.live["qty"][0] == 6.0
    assert bot.fill(99, 1.0, 15.0) == 0
    bot.flow.gone(99)
    bot.flow.placed(99)
    bot.flow.refused(99, would_take=True)
    assert len(bot.live) == 2


def test_collecting_funding_opens_the_paid_side_of_a_known_rate() -> None:
    # The sell is clamped to the ask; floor(100,000 / 1000 × 0.1) = 10 either way.
    for rate, wanted in ((math.nan, []), (0.0, []), (0.001, [-10.0]), (-0.001, [10.0])):
        bot = Bot(funding_fee_collect_mode=1, do_short=1)
        bot.see(1000.0, funding_rate=rate)
        assert [message[3] for message in bot.plan()] == wanted


# --- groups ---


def test_a_sides_next_group_leaves_when_all_of_the_last_have_arrived() -> None:
    bot = Bot(n_entry_orders=3, orders_per_batch=2)
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    assert bot.plan() == [
        ("PLACE", 2, 949.0, 10.0), ("PLACE", 3, 923.0, 20.0), ("PLACE", 4, 1002.0, -10.0),
    ]  # fmt: skip
    first, second, _ = bot.on_its_way
    bot.flow.arrived(first)
    assert bot.release() == []
    bot.flow.arrived(second)
    # The sells' message is still on its way: the two sides do not wait for each other.
    assert bot.release() == [("PLACE", 5, 900.0, 40.0)]


def test_cancels_go_nearest_first_in_groups_and_what_is_gone_is_passed_over() -> None:
    bot = long_ten(n_entry_orders=3, orders_per_batch=1)
    # ids: 2 at 949, 3 the close, 4 at 923, 5 at 900.
    bot.fill(3, 10.0, 0.0)
    assert bot.plan() == [("CANCEL", 2, 949.0, 10.0)]
    bot.flow.gone(4)  # meanwhile
    assert bot.settle() == [("CANCEL", 5, 900.0, 40.0), ("PLACE", 6, 1000.0, 10.0)]


def test_creates_are_clamped_to_the_book_of_the_moment_they_leave() -> None:
    bot = Bot()
    bot.plan()
    bot.arrive()
    bot.see(1010.0)
    bot.requote()
    bot.arrive()
    bot.see(1010.0, 1006.0, 1011.0)
    assert bot.release() == [("PLACE", 2, 1006.0, 9.0)]
    assert bot.live == [(2, "SENT", 1010.0, 9.0)]


def test_only_the_nearest_rung_is_clamped_and_what_is_too_far_waits() -> None:
    bot = Bot(n_entry_orders=3, orders_per_batch=2)
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    bot.see(915.0, 914.0, 915.0)
    # 949 is clamped to ask - 1; 923 would be too: it waits and takes no place in the group.
    assert bot.plan()[:2] == [("PLACE", 2, 914.0, 10.0), ("PLACE", 3, 900.0, 40.0)]
    bot = Bot(n_entry_orders=3, orders_per_batch=2, max_order_distance=0.07)
    bot.plan()
    bot.arrive()
    bot.fill(1, 10.0, 10.0)
    # (1000 - 949) / 1000 = 0.051 and 0.077, 0.1.
    assert [m[2] for m in bot.plan()] == [949.0, 1002.0]
    bot.arrive()
    bot.see(970.0)  # (970 - 923) / 970 = 0.048; 0.072 for 900
    assert bot.release() == []  # what was passed over waits for the next plan
    assert bot.requote() == [("PLACE", 4, 923.0, 20.0)]


def test_no_side_sends_more_than_the_planner_allows() -> None:
    # 90 at 1000 of a maximum of 92. 40 of them fill: 50 rest on and must go, and the rung at 949
    # wants another 40. The maximum there is 0.92 × 100,000 / 949 = 96.9.
    bot = Bot(entry_qty_pct=0.9)
    assert bot.plan() == [("PLACE", 1, 1000.0, 90.0)]
    bot.arrive()
    bot.fill(1, 40.0, 40.0)
    assert bot.plan() == [("CANCEL", 1, 1000.0, 50.0), ("PLACE", 2, 1002.0, -40.0)]
    bot.arrive(gone=False)
    # 40 + 50 + 40 = 130 while the 50 may still fill; without them 80.
    assert bot.release() == []
    bot.flow.gone(1)
    assert bot.release() == []
    assert bot.requote() == [("PLACE", 3, 949.0, 40.0)]


# --- stops ---


def test_a_print_at_a_level_makes_one_stop_due_until_the_requote() -> None:
    bot = long_ten(**STOPPING)  # 980, half of it
    bot.flow.print(981.0)
    assert not bot.flow.due
    bot.flow.print(980.0)
    assert bot.flow.due
    bot.see(985.0, 980.0, 985.0)
    # The plan is ceil(10 × 0.5) = 5 at the best ask, then a close of the other 5: the rung and the
    # old close go first.
    assert bot.plan() == [("CANCEL", 2, 949.0, 10.0), ("CANCEL", 3, 1002.0, -10.0)]
    assert bot.settle() == [("PLACE", 4, 985.0, -5.0), ("PLACE", 5, 1002.0, -5.0)]
    assert bot.flow.live["ideal"]["kind"][0] == Kind.STOP_LOSS_POS_PRICE_DIFF
    bot.flow.print(970.0)
    assert not bot.flow.due
    # In parts: what is left is outstanding, and the plan equals what rests.
    assert bot.fill(4, 2.0, 8.0) == Kind.STOP_LOSS_POS_PRICE_DIFF
    assert bot.plan() == []
    assert bot.live == [(4, "IN_BOOK", 985.0, -3.0), (5, "IN_BOOK", 1002.0, -5.0)]
    bot.fill(4, 3.0, 5.0)
    assert bot.plan() == [("PLACE", 6, 949.0, 5.0)]  # at 985 re-entries are welcome again
    bot.settle()
    # Filled, but before the requote: no other stop, yet what was stopped is not bought back.
    bot.flow.print(970.0)
    assert bot.flow.due
    bot.see(970.0)
    assert bot.plan() == [("CANCEL", 6, 949.0, 5.0)]
    bot.settle()
    bot.flow.print(969.0)  # that is known already
    assert not bot.flow.due
    assert bot.requote() == []
    bot.flow.print(970.0)
    assert bot.flow.due
    assert bot.plan()[0][0] == "CANCEL"  # the close makes room for the second stop
    assert bot.settle()[0] == ("PLACE", 7, 971.0, -3.0)


def test_the_liquidation_level_is_looked_at_first() -> None:
    bot = long_ten(stop_loss_liq_diff=0.1, **STOPPING)
    bot.hold(10.0, 1000.0, 895.0)  # 895 × 1.1 = 984.5
    bot.flow.print(985.0)
    assert not bot.flow.due
    bot.flow.print(984.0)
    bot.see(984.0)
    bot.plan()
    bot.settle()
    assert Kind.STOP_LOSS_LIQ_DIFF in bot.flow.live["ideal"]["kind"]


def stopped(**changes: Any) -> Bot:
    """Long 10 at 1000, a stop of 5 at 985 (id 4) and a close of 5 (id 5) resting."""
    bot = long_ten(**(STOPPING | changes))
    bot.flow.print(980.0)
    bot.see(980.0, 980.0, 985.0)
    bot.plan()
    bot.settle()
    return bot


def test_a_requote_beyond_a_level_prices_the_stop_anew() -> None:
    bot = stopped()
    bot.see(979.0, 979.0, 983.0)
    assert bot.plan() == []  # only a requote
    assert bot.requote() == [("CANCEL", 4, 985.0, -5.0)]
    assert bot.settle() == [("PLACE", 6, 983.0, -5.0)]


@pytest.mark.parametrize(("left", "again"), [(4.0, 4.0), (2.0, 3.0)])
def test_a_stop_put_anew_is_never_less_than_the_venue_takes(left: float, again: float) -> None:
    # Of 5 so much is left; the least order is 3.
    bot = stopped(min_qty=3.0)
    bot.fill(4, 5.0 - left, 5.0 + left)
    bot.see(979.0, 979.0, 983.0)
    bot.plan()
    bot.settle()
    bot.requote()
    assert (983.0, -again) in [words[2:] for words in bot.settle()]


def test_a_requote_within_the_levels_withdraws_the_stop() -> None:
    bot = stopped()
    bot.see(981.0)
    # A close of 10 again, and the rung: nothing holds it back any more.
    assert bot.requote() == [
        ("PLACE", 6, 949.0, 10.0), ("CANCEL", 4, 985.0, -5.0), ("CANCEL", 5, 1002.0, -5.0),
    ]  # fmt: skip
    assert bot.settle() == [("PLACE", 7, 1002.0, -10.0)]
    bot.flow.print(980.0)
    assert bot.flow.due


def test_no_stop_without_the_position_it_was_made_for() -> None:
    # Gone before the plan: no longer due.
    bot = long_ten(**STOPPING)
    bot.flow.print(980.0)
    bot.fill(3, 10.0, 0.0)
    assert bot.plan() == [("CANCEL", 2, 949.0, 10.0)]
    assert bot.settle() == [("PLACE", 4, 1000.0, 10.0)]
    # Gone afterwards: no longer outstanding; on the other side there is a plain close.
    bot = stopped()
    bot.flow.gone(4)
    bot.flow.gone(5)
    bot.hold(-10.0)
    bot.see(1000.0)
    assert bot.plan()[0][2:] == (998.0, 10.0)  # floor(1000 × 0.9985)


def test_no_reduction_no_stop() -> None:
    bot = long_ten(stop_loss_pos_price_diff=0.02, stop_loss_pos_reduction=0.0)
    bot.flow.print(1.0)
    assert not bot.flow.due


def test_a_market_stop_leaves_at_once_and_is_never_compared() -> None:
    bot = long_ten(market_stop_loss=1, orders_per_batch=1, n_entry_orders=2, **STOPPING)
    # ids: 2 at 949, 3 the close, 4 at 923.
    bot.flow.print(980.0)
    bot.see(980.0, 980.0, 985.0)
    assert bot.plan() == [
        ("PLACE_AT_MARKET", 5, 985.0, -5.0),
        ("CANCEL", 2, 949.0, 10.0),
        ("CANCEL", 3, 1002.0, -10.0),
    ]
    bot.see(981.0, 981.0, 982.0)  # would withdraw a limit stop, or price it anew
    assert bot.requote() == []
    # Cancels arrive, the market order is still on its way: the close makes room for it.
    stop, *cancels = bot.on_its_way
    bot.on_its_way = cancels
    assert bot.settle() == [("CANCEL", 4, 923.0, 20.0), ("PLACE", 6, 1002.0, -5.0)]
    bot.flow.print(970.0)
    assert not bot.flow.due  # one is outstanding
    bot.flow.arrived(stop)
    assert bot.fill(5, 5.0, 5.0) == Kind.STOP_LOSS_POS_PRICE_DIFF
    assert bot.flow.close_base == 5.0
    assert 5 not in [order[0] for order in bot.live]
    bot.see(1000.0)
    bot.plan()
    bot.flow.print(970.0)
    assert bot.flow.due  # the requote above has armed it again


def test_market_stops_without_an_answer_do_not_pile_up_for_ever() -> None:
    # The position turns before each answer, so that the next stop is sent, 1100 times over.
    bot = Bot(market_stop_loss=1, **STOPPING)
    for i in range(1100):
        side = 1.0 if i % 2 else -1.0
        bot.hold(side * 10.0)
        price = 1000.0 * (1.0 - 0.02 * side)
        bot.flow.print(price)
        bot.see(price)
        bot.plan()
        bot.requote()
        assert len(bot.flow.live) <= 1024
    assert len(bot.flow.live) == 1024


def test_an_answer_that_comes_twice_does_not_silence_a_side() -> None:
    bot = Bot()
    bot.plan()
    (buy,) = bot.on_its_way
    bot.arrive()
    bot.flow.arrived(buy)
    bot.see(1100.0)
    assert bot.requote() == [("CANCEL", 1, 1000.0, 10.0)]
    assert bot.settle() == [("PLACE", 2, 1100.0, 9.0)]


def test_a_market_stop_that_finds_no_position_is_over() -> None:
    bot = long_ten(market_stop_loss=1, **STOPPING)
    bot.flow.print(980.0)
    bot.see(980.0)
    assert bot.plan()[0] == ("PLACE_AT_MARKET", 4, 981.0, -5.0)
    bot.flow.refused(4, would_take=False)
    assert 4 not in [order[0] for order in bot.live]
    # Not outstanding: the close is of everything.
    bot.settle()
    assert bot.requote() == [("CANCEL", 5, 1002.0, -5.0)]
    assert bot.settle() == [("PLACE", 6, 1002.0, -10.0)]


# --- whatever happens ---


@given(
    script=st.lists(
        st.tuples(
            st.sampled_from(["market", "arrive", "arrive", "fill", "requote", "print", "gone"]),
            st.integers(900, 1100),
            st.integers(0, 30),
        ),
        max_size=60,
    ),
    batch=st.integers(1, 4),
    at_market=st.booleans(),
)
def test_groups_and_the_maximum_hold_whatever_happens(
    script: list[tuple[str, int, int]], batch: int, at_market: bool
) -> None:
    bot = Bot(
        orders_per_batch=batch, market_stop_loss=at_market, n_entry_orders=4, n_close_orders=3,
        max_markup=0.009, do_short=1, **STOPPING,
    )  # fmt: skip
    size, entry, next_id = 0.0, 0.0, 1

    def grouped(messages: np.ndarray, side: int) -> list[np.void]:
        return [m for m in messages if m["side"] == side and m["what"] != What.PLACE_AT_MARKET]

    def sent(messages: np.ndarray) -> None:
        nonlocal next_id
        for side in (1, -1):
            group = grouped(messages, side)
            waiting = [message for each in bot.on_its_way for message in grouped(each, side)]
            assert not (group and waiting), "a side has one group on its way"
            assert len(group) <= batch
            assert len({int(m["what"]) for m in group}) <= 1, "cancels, then creates"
        places = [int(m["id"]) for m in messages if m["what"] != What.CANCEL]
        assert places == list(range(next_id, next_id + len(places)))
        next_id += len(places)
        assert np.all(messages["price"] > 0.0)
        assert np.all(messages["qty"] > 0.0)
        bot.words(messages)
        for side in (1, -1):
            ideals = [order["ideal"] for order in bot.flow.live]
            asked = sum(o["qty"] for o in ideals if o["side"] == side and not o["reduce_only"])
            # Prices are above 500: at most 0.92 × 100,000 / 500 there. A held position beyond its
            # maximum asks for no more.
            assert asked == 0.0 or side * size + asked <= 184.0 + abs(size)

    for what, price, pick in script:
        if what == "market":
            bot.see(float(price))
        elif what == "arrive" and bot.on_its_way:
            message = bot.on_its_way.pop(0)
            order = int(message["id"][0])
            bot.flow.arrived(message)
            if message["what"][0] == What.CANCEL:
                bot.flow.gone(order)
            elif message["what"][0] == What.PLACE_AT_MARKET or pick % 5 == 0:
                bot.flow.refused(order, would_take=message["what"][0] == What.PLACE)
            else:
                bot.flow.placed(order)
            sent(bot.flow.release())
        elif what == "fill":
            rest = [o for o in bot.flow.live if o["state"] == LiveState.IN_BOOK]
            if rest:
                order = rest[pick % len(rest)]
                qty = max(1.0, order["qty"] // 2) if pick % 2 else float(order["qty"])
                if order["ideal"]["reduce_only"]:
                    qty = min(qty, abs(size)) if order["ideal"]["side"] * size < 0.0 else 0.0
                if qty > 0.0:
                    size, entry = size + order["ideal"]["side"] * qty, float(order["price"])
                    bot.fill(int(order["id"]), qty, size, entry if size else 0.0)
        elif what == "print":
            bot.flow.print(float(price))
        elif what == "gone" and len(bot.flow.live):
            # The venue may cancel what rests.
            for order in bot.flow.live:
                if order["state"] == LiveState.IN_BOOK:
                    bot.flow.gone(int(order["id"]))
                    break
        elif what == "requote":
            sent(bot.flow.requote())
        if bot.flow.due:
            sent(bot.flow.plan())


# --- out of range ---


def records(**changes: Any) -> list[Any]:
    return [
        one(STRATEGY_DTYPE, **STRATEGY),
        one(MARKET_DTYPE, **MARKET),
        one(FLOW_RULES_DTYPE, **(RULES | changes)),
    ]


@pytest.mark.parametrize("batch", [0, -1, 51])
def test_refuses_a_batch_out_of_range(batch: int) -> None:
    with pytest.raises(ValueError, match=r"orders_per_batch must be in \[1, 50\]"):
        OrderFlow(*records(orders_per_batch=batch), wallet=1.0)


def test_refuses_other_than_one_record_each() -> None:
    for i in range(3):
        wrong = records()
        wrong[i] = np.concatenate([wrong[i], wrong[i]])
        with pytest.raises(ValueError, match="one record each"):
            OrderFlow(*wrong, wallet=1.0)


@pytest.mark.parametrize("wallet", [math.nan, math.inf])
def test_refuses_a_wallet_that_is_none(wallet: float) -> None:
    with pytest.raises(ValueError, match="wallet must be finite"):
        OrderFlow(*records(), wallet=wallet)


@pytest.mark.parametrize("name", ["last_price", "bid", "ask", "ema"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_price_that_is_none(name: str, value: float) -> None:
    prices = {"last_price": 1000.0, "bid": 1000.0, "ask": 1001.0, "ema": 1000.0}
    with pytest.raises(ValueError, match=f"{name} must be finite and > 0"):
        Bot().flow.see_market(**(prices | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wallet", math.nan), ("equity", math.inf), ("size", math.nan), ("liq_price", -1.0),
        ("liq_price", math.nan), ("entry_price", 0.0), ("entry_price", math.nan),
    ],
)  # fmt: skip
def test_refuses_an_account_that_is_none(name: str, value: float) -> None:
    account = {"wallet": 1.0, "equity": 1.0, "size": 1.0, "entry_price": 1.0, "liq_price": 0.0}
    with pytest.raises(ValueError, match=r"must be finite|must be >= 0"):
        Bot().flow.account(**(account | {name: value}))


def test_a_plan_needs_to_see_the_market_first() -> None:
    flow = OrderFlow(*records(), wallet=1.0)
    for ask in (flow.plan, flow.requote, flow.release):
        with pytest.raises(ValueError, match="see_market must come first"):
            ask()
