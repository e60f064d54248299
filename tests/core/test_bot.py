"""The bot's half of a bot and a venue, door by door, by hand.

Market and strategy are those of `tests.core.test_flow`, with fees and a position that costs: from
flat at 1000 an entry of 10 at 1000; from long 10 at 1000 a re-entry of 10 at 949 and a close of 10
at 1002. Maintenance is 0.5 % in one tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from passivx._core.bot import Bot
from passivx._core.flow import FLOW_RULES_DTYPE, LiveState, What
from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, TIER_DTYPE, Kind
from tests.core.situations import PLAIN_MARKET, PLAIN_STRATEGY, one

MAKER = 0.0002
RULES: dict[str, Any] = {
    "requote_tolerance": 0.0003, "requote_ms": 1000, "orders_per_batch": 4, "market_stop_loss": 0,
}  # fmt: skip
STOPPING: dict[str, Any] = {"stop_loss_pos_price_diff": 0.02, "stop_loss_pos_reduction": 0.5}
SENT, IN_BOOK, CANCELLING = (
    int(each) for each in (LiveState.SENT, LiveState.IN_BOOK, LiveState.CANCELLING)
)
PLACE, CANCEL, AT_MARKET = int(What.PLACE), int(What.CANCEL), int(What.PLACE_AT_MARKET)


def tiers_of(rate: float = 0.005) -> np.ndarray:
    out = np.zeros(1, TIER_DTYPE)
    out["maintenance_rate"] = rate
    return out


def market_of(**changes: Any) -> np.ndarray:
    return one(MARKET_DTYPE, **PLAIN_MARKET | changes)


def make(**changes: Any) -> Bot:
    """A bot at 1000 with a book of 1000 and 1001, which has not planned yet."""
    records = []
    for values, dtype in (
        (PLAIN_STRATEGY, STRATEGY_DTYPE), (PLAIN_MARKET, MARKET_DTYPE), (RULES, FLOW_RULES_DTYPE),
    ):  # fmt: skip
        own = {k: changes.pop(k) for k in list(changes) if k in (dtype.names or ())}
        records.append(one(dtype, **(values | own)))
    options: dict[str, Any] = {
        "wallet": 100_000.0, "price": 1000.0, "ema": 1000.0, "span": 1.0, "cross_mode": True,
        "quoted": False, "leverage": changes.pop("venue_leverage", 1.0),
    }  # fmt: skip
    bot = Bot(*records, changes.pop("tiers", tiers_of()), **options | changes)
    bot.trade(1001.0, False)
    bot.trade(1000.0, True)
    bot.settle()
    return bot


def state(bot: Bot) -> tuple[Any, ...]:
    """All that can be seen of a bot."""
    return (bot.account, bot.market, bot.live, bot.due, bot.close_base, bot.open_pnl)


def words(messages: list[Any]) -> list[tuple[int, int, float, float]]:
    """(what, id, price, signed quantity)"""
    return [(m[0], m[1], m[3], m[2] * m[4]) for m in messages]


def arrive(bot: Bot, messages: list[Any]) -> None:
    for what, id, side, *_ in messages:
        bot.arrived(side, what == AT_MARKET)
        if what == PLACE:
            bot.placed(id)
        elif what == CANCEL:
            bot.gone(id)


def long_ten(**changes: Any) -> Bot:
    """Long 10 at 1000 by a fill of its entry, with re-entry (2) and close (3) resting."""
    bot = make(**changes)
    arrive(bot, bot.plan())
    assert bot.fill(1, 1, 1000.0, 10.0, 0.0)[0] == Kind.ENTRY
    messages = bot.plan()
    assert words(messages) == [(PLACE, 2, 949.0, 10.0), (PLACE, 3, 1002.0, -10.0)]
    arrive(bot, messages)
    return bot


# --- market ---


def test_the_first_plan_as_a_message():
    bot = make()
    assert bot.due
    assert bot.plan() == [(PLACE, 1, 1, 1000.0, 10.0, False, Kind.ENTRY, 1000.0, 10.0)]
    assert not bot.due
    assert bot.live == [(1, SENT, 1000.0, 10.0, 1000.0)]
    bot.placed(1)
    assert bot.live == [(1, IN_BOOK, 1000.0, 10.0, 1000.0)]
    assert bot.release() == []


def test_trades_make_price_book_and_average():
    bot = make(span=3.0)  # alpha: 2 / (3 + 1)
    assert bot.market == (1000.0, 1000.0, 1001.0, 1000.25)  # 1000, 1000.5, 1000.25
    bot.trade(1003.0, False)
    last, bid, ask, ema = bot.market
    assert (last, ask) == (1003.0, 1003.0)
    assert bid < ask
    assert ema == 1000.25 + 0.5 * (1003.0 - 1000.25)


def test_the_average_begins_where_it_is_told_to():
    bot = make(span=1e12, ema=900.0)
    assert bot.market[3] == pytest.approx(900.0, rel=1e-9)


def test_a_trade_is_held_against_the_levels_when_its_fills_are_in():
    bot = long_ten(**STOPPING)
    assert bot.trade(981.0, True) is False
    assert bot.settle() is False
    assert bot.trade(980.0, True) is True  # may be: its own fills could change that
    assert not bot.due
    assert bot.settle() is True
    # Half of it at the ask of the moment; what it closes is not bought back.
    cancels = bot.plan()
    assert words(cancels) == [(CANCEL, 2, 949.0, 10.0), (CANCEL, 3, 1002.0, -10.0)]
    arrive(bot, cancels)
    assert words(bot.release()) == [(PLACE, 4, 1001.0, -5.0), (PLACE, 5, 1002.0, -5.0)]


def test_a_trade_is_held_against_the_levels_at_the_next_one():
    bot = long_ten(**STOPPING)
    bot.trade(979.0, True)
    assert not bot.due
    assert bot.trade(1000.0, False) is True
    assert bot.due


def test_a_trade_whose_fill_closes_the_position_stops_nothing():
    bot = long_ten(**STOPPING)
    bot.trade(979.0, True)
    bot.fill(3, -1, 1002.0, 10.0, 0.0)
    bot.settle()
    bot.plan()
    assert all(order[0] != 4 or order[2] == 979.0 for order in bot.live)


def test_a_stop_at_market_is_one_message():
    bot = long_ten(market_stop_loss=1, **STOPPING)
    bot.trade(979.0, True)
    bot.settle()
    stop, *cancels = bot.plan()
    assert stop[:2] == (AT_MARKET, 4)
    assert stop[2:7] == (-1, stop[3], 5.0, True, Kind.STOP_LOSS_POS_PRICE_DIFF)
    assert words(cancels) == [(CANCEL, 2, 949.0, 10.0), (CANCEL, 3, 1002.0, -10.0)]


def test_quotes_count_only_where_they_are_wanted():
    bot = make()
    bot.quote(990.0, 995.0)
    assert bot.market[1:3] == (1000.0, 1001.0)
    bot = make(quoted=True)
    bot.quote(990.0, 995.0)
    assert bot.market[1:3] == (990.0, 995.0)
    bot.trade(992.0, True)  # older than the quote
    assert bot.market == (992.0, 990.0, 995.0, 992.0)
    # No nearer than the best bid.
    assert words(bot.plan()) == [(PLACE, 1, 990.0, 10.0)]


def test_a_trade_outside_a_quote_that_came_before_it_moves_the_book():
    bot = make(quoted=True)
    bot.quote(990.0, 995.0)
    bot.trade(993.0, True, True)  # within
    assert bot.market[1:3] == (990.0, 995.0)
    bot.trade(985.0, True, True)
    assert bot.market[1] == 985.0
    assert 985.0 < bot.market[2] <= 995.0
    bot.quote(990.0, 995.0)
    bot.trade(997.0, False, True)
    assert bot.market[2] == 997.0
    assert 990.0 <= bot.market[1] < 997.0


def test_without_quotes_the_trades_make_the_book_until_the_next():
    bot = make(quoted=True)
    bot.quote(990.0, 995.0)
    bot.unquoted()
    assert bot.market[1:3] == (1000.0, 1001.0)
    bot.quote(991.0, 995.0)
    assert bot.market[1:3] == (991.0, 995.0)


def test_funding_is_looked_at_where_it_is_collected():
    bot = make(funding_fee_collect_mode=1)
    assert bot.plan() == []  # not known
    bot.funding_rate(0.001)
    assert bot.requote() == []  # a long pays
    bot.funding_rate(-0.001)
    assert words(bot.requote()) == [(PLACE, 1, 1000.0, 10.0)]


# --- account ---


def test_a_fill_changes_the_account_and_tells_whose_it_was():
    bot = make()
    arrive(bot, bot.plan())
    kind, pnl, fee = bot.fill(1, 1, 1000.0, 4.0, MAKER)
    assert (kind, pnl, fee) == (Kind.ENTRY, 0.0, -0.8)
    wallet, _, size, entry, _ = bot.account
    assert (wallet, size, entry) == (99_999.2, 4.0, 1000.0)
    assert bot.live == [(1, IN_BOOK, 1000.0, 6.0, 1000.0)]
    assert bot.due
    assert bot.close_base == 4.0
    kind, _, _ = bot.fill(1, 1, 1000.0, 6.0, MAKER)
    assert kind == Kind.ENTRY
    assert bot.live == []
    assert bot.account[2:4] == (10.0, 1000.0)
    assert bot.close_base == 10.0


def test_pnl_average_entry_and_the_venues_fee():
    bot = long_ten()
    assert bot.fill(2, 1, 949.0, 10.0, 0.0) == (Kind.REENTRY, 0.0, 0.0)
    assert bot.account[2:4] == (20.0, 974.5)
    assert bot.close_base == 20.0
    kind, pnl, fee = bot.fill(3, -1, 1002.0, 5.0, MAKER, -7.5)
    assert (kind, pnl, fee) == (Kind.CLOSE, 5 * 27.5, -7.5)
    assert bot.account[0] == 100_000.0 + 137.5 - 7.5
    assert bot.account[2:4] == (15.0, 974.5)
    assert bot.close_base == 20.0  # a close leaves the base
    bot.trade(1000.0, True)
    assert bot.open_pnl == 15 * 25.5


def test_a_fill_of_a_stranger_is_booked_and_is_no_orders():
    bot = long_ten()
    before = bot.live
    assert bot.fill(0, -1, 1000.0, 3.0, 0.0)[0] == 0
    assert bot.fill(77, -1, 1000.0, 1.0, 0.0)[0] == 0
    assert bot.account[2] == 6.0
    assert bot.live == before
    assert bot.due


def test_a_fill_through_flat_is_a_new_position():
    bot = long_ten()
    _, pnl, _ = bot.fill(0, -1, 1010.0, 25.0, 0.0)
    assert pnl == 100.0
    assert bot.account[2:4] == (-15.0, 1010.0)


def test_a_fill_is_credited_to_its_order_afterwards():
    bot = make()
    arrive(bot, bot.plan())
    assert bot.fill(0, 1, 1000.0, 4.0, 0.0)[0] == 0
    assert bot.live[0][3] == 10.0
    assert bot.credit(1, 4.0) == Kind.ENTRY
    assert bot.live[0][3] == 6.0
    assert bot.account[2] == 4.0  # booked once
    assert bot.credit(9, 4.0) == 0


def test_payments_go_to_the_wallet():
    bot = long_ten()
    bot.pay(-12.5)
    assert bot.account[0] == 99_987.5
    assert bot.account[2:4] == (10.0, 1000.0)
    bot.pay(2.5)
    assert bot.account[0] == 99_990.0


def test_what_the_venue_says_is_adopted():
    bot = make()
    bot.plan()
    bot.adopt(wallet=50_000.0)
    assert not bot.due
    assert bot.account[0] == 50_000.0
    bot.adopt(size=-6.0, entry_price=1010.0)
    assert bot.due
    assert bot.account[2:4] == (-6.0, 1010.0)
    computed = bot.account[4]
    assert computed > 1010.0
    bot.adopt(liq_price=1500.0)
    assert bot.account[4] == 1500.0
    bot.pay(-1.0)  # computed anew
    assert bot.account[4] == pytest.approx(computed, rel=1e-3)
    bot.adopt(size=0.0)
    assert bot.account[2:] == (0.0, 0.0, 0.0)
    assert bot.close_base == 0.0


def test_liquidation_by_hand():
    # Isolated at 10: a margin of 1000 for 10 at 1000. It is gone at
    # (entry × size − margin) / (size × (1 − 0.005)).
    bot = make(cross_mode=False, venue_leverage=10.0)
    bot.adopt(size=10.0, entry_price=1000.0)
    assert bot.account[4] == pytest.approx((10_000.0 - 1000.0) / (10.0 * 0.995), rel=1e-12)


def test_the_base_of_the_close_grid_is_taken_over():
    bot = make(n_close_orders=2, max_markup=0.0025, min_markup=0.0015)
    bot.adopt(size=10.0, entry_price=1000.0)
    assert bot.close_base == 0.0
    bot.close_base_is(-20.0)
    assert bot.close_base == 20.0
    # Of 20 in two, 1002 and 1003, the nearer ten are gone.
    closes = [m for m in bot.plan() if m[5]]
    assert words(closes) == [(PLACE, closes[0][1], 1003.0, -10.0)]


# --- orders ---


def test_orders_of_an_earlier_run_keep_their_place():
    bot = make()
    bot.plan()
    bot.gone(1)
    bot.adopt(size=10.0, entry_price=1000.0)
    meant = {
        "reduce_only": False,
        "kind": int(Kind.REENTRY),
        "ideal_price": 949.0,
        "ideal_qty": 10.0,
    }
    first = bot.take_over(1, 949.0, 10.0, **meant)
    closing = {
        "reduce_only": True,
        "kind": int(Kind.CLOSE),
        "ideal_price": 1002.0,
        "ideal_qty": 10.0,
    }
    second = bot.take_over(-1, 1002.0, 10.0, rests=False, **closing)
    assert (first, second) == (2, 3)
    assert [each[:2] for each in bot.live] == [(2, IN_BOOK), (3, SENT)]
    assert bot.due
    assert bot.plan() == []
    # What a fill of it was for is what it was meant for.
    assert bot.fill(second, -1, 1002.0, 10.0, 0.0)[0] == Kind.CLOSE


def test_there_is_room_for_so_many_and_no_more():
    bot = make()

    def fill_up() -> None:
        for _ in range(100_000):
            bot.take_over(
                1, 900.0, 1.0, reduce_only=False, kind=2, ideal_price=900.0, ideal_qty=1.0
            )

    with pytest.raises(MemoryError, match="no room"):
        fill_up()
    n = len(bot.live)
    assert n > 400
    bot.plan()
    assert len(bot.live) == n


def test_a_cancel_that_came_to_nothing_is_a_resting_order_again():
    bot = long_ten()
    bot.adopt(size=0.0)
    assert words(bot.plan()) == [(CANCEL, 2, 949.0, 10.0), (CANCEL, 3, 1002.0, -10.0)]
    assert [each[1] for each in bot.live] == [CANCELLING, CANCELLING]
    bot.kept(2)
    assert [each[:2] for each in bot.live] == [(2, IN_BOOK), (3, CANCELLING)]
    bot.arrived(1, False)
    bot.kept(3)
    bot.kept(3)
    bot.kept(99)
    bot.arrived(-1, False)
    assert CANCEL in [m[0] for m in bot.requote()]


def test_a_side_waits_for_its_messages():
    bot = make(orders_per_batch=1, n_entry_orders=3)
    bot.adopt(size=10.0, entry_price=1000.0)
    first = bot.plan()
    assert words(first) == [(PLACE, 1, 949.0, 10.0), (PLACE, 2, 1002.0, -10.0)]
    assert bot.release() == []
    bot.arrived(-1, False)
    assert bot.release() == []
    bot.arrived(1, True)  # a market order is of no side's group
    assert bot.release() == []
    bot.arrived(1, False)
    assert words(bot.release()) == [(PLACE, 3, 923.0, 20.0)]
    for _ in range(5):
        bot.arrived(1, False)  # more than there were
    assert words(bot.release()) == [(PLACE, 4, 900.0, 40.0)]


def test_a_refused_slot_waits_for_the_requote_only_if_it_would_take():
    for would_take in (False, True):
        bot = make()
        bot.plan()
        bot.arrived(1, False)
        bot.refused(1, would_take)
        assert bot.live == []
        bot.ask_for_plan()
        assert bot.due
        assert bool(bot.plan()) is not would_take
        bot.arrived(1, False)
        assert bool(bot.requote()) is would_take


def test_what_nobody_knows_changes_nothing():
    bot = long_ten()
    before = state(bot)
    bot.placed(99)
    bot.kept(99)
    bot.gone(99)
    bot.refused(99, True)
    bot.refused(99, False)
    assert state(bot) == before
    assert bot.plan() == []


# --- rules ---


def test_new_rules_are_planned_by_and_the_levels_are_fixed_again():
    bot = long_ten(cross_mode=False, venue_leverage=10.0)
    before = bot.account[4]
    bot.rules(market_of(price_step=(7, 1), min_qty=12.0), tiers_of(0.05), leverage=10.0)
    assert bot.due
    assert bot.account[4] == pytest.approx(9000.0 / (10.0 * 0.95), rel=1e-12)
    assert bot.account[4] > before
    arrive(bot, bot.plan())
    # 950 on a grid of ceil(12.5 / 7) × 7 = 14; 1001.5 on one of 7.
    assert words(bot.release()) == [(PLACE, 4, 938.0, 12.0), (PLACE, 5, 1008.0, -10.0)]


def test_the_rules_are_the_bots_own():
    # What the caller does with his arrays afterwards, or that he forgets them, does not matter.
    bot = make()
    market, tiers = market_of(price_step=(7, 1)), tiers_of()
    bot.rules(market, tiers, leverage=1.0)
    market["price_step"] = (1000, 1)
    del market, tiers
    np.full(1000, 7.0)
    assert words(bot.plan()) == [(PLACE, 1, 994.0, 10.0)]


# --- bad arguments ---

NAN, INF = math.nan, math.inf
BAD: list[Callable[[Bot], Any]] = [
    *(lambda bot, p=p: bot.trade(p, True) for p in (0.0, -1.0, NAN, INF)),
    *(
        lambda bot, q=q: bot.quote(*q)
        for q in (
            (0.0, 1.0),
            (-1.0, 1.0),
            (5.0, 5.0),
            (6.0, 5.0),
            (NAN, 5.0),
            (5.0, NAN),
            (5.0, INF),
        )
    ),
    *(lambda bot, p=p: bot.fill(0, 1, p, 1.0, 0.0) for p in (0.0, -1.0, NAN, INF)),
    *(lambda bot, q=q: bot.fill(0, 1, 1000.0, q, 0.0) for q in (0.0, -1.0, NAN, INF)),
    *(lambda bot, s=s: bot.fill(0, s, 1000.0, 1.0, 0.0) for s in (0, 2, -2)),
    *(lambda bot, a=a: bot.pay(a) for a in (NAN, INF, -INF)),
    *(lambda bot, w=w: bot.adopt(wallet=w) for w in (NAN, INF)),
    *(lambda bot, s=s: bot.adopt(size=s, entry_price=1000.0) for s in (NAN, INF)),
    *(lambda bot, p=p: bot.adopt(size=1.0, entry_price=p) for p in (0.0, -1.0, NAN, INF)),
    *(lambda bot, p=p: bot.adopt(liq_price=p) for p in (-1.0, NAN, INF)),
    # A good part of a bad whole is not taken either.
    lambda bot: bot.adopt(wallet=7.0, size=NAN, entry_price=1000.0),
    lambda bot: bot.adopt(wallet=7.0, size=3.0, entry_price=1000.0, liq_price=-1.0),
    lambda bot: bot.adopt(size=3.0, entry_price=1000.0, liq_price=NAN),
    *(lambda bot, r=r: bot.rules(market_of(), tiers_of(), leverage=r) for r in (0.5, NAN, INF)),
    lambda bot: bot.rules(market_of()[:0], tiers_of(), leverage=1.0),
    lambda bot: bot.rules(market_of(), tiers_of()[:0], leverage=1.0),
    lambda bot: bot.rules(market_of(inverse=1), tiers_of(), leverage=1.0),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_arguments_raise_and_change_nothing(number):
    bot = long_ten()
    before = state(bot)
    with pytest.raises(ValueError, match=r"must be|changed its kind"):
        BAD[number](bot)
    assert state(bot) == before
    assert bot.settle() is False


@pytest.mark.parametrize("fee", [NAN, INF, "much"])
@pytest.mark.parametrize("rate", [0.0, NAN])
def test_a_fee_that_is_no_number_changes_nothing(fee, rate):
    bot = long_ten()
    before = state(bot)
    with pytest.raises((ValueError, TypeError)):
        bot.fill(0, 1, 1000.0, 1.0, rate, fee)
    assert state(bot) == before


def test_a_size_without_a_price_is_no_size():
    bot = long_ten()
    before = state(bot)
    with pytest.raises((ValueError, TypeError)):
        bot.adopt(wallet=7.0, size=5.0)
    assert state(bot) == before


@pytest.mark.parametrize(
    "changes",
    [{"wallet": NAN}, {"wallet": INF}, {"price": 0.0}, {"price": NAN}, {"ema": -1.0}, {"ema": INF},
     {"span": 0.5}, {"span": NAN}, {"span": INF}, {"venue_leverage": 0.0}, {"venue_leverage": INF},
     {"orders_per_batch": 0}, {"orders_per_batch": 51}, {"tiers": tiers_of()[:0]}],
)  # fmt: skip
def test_a_bot_that_cannot_be_is_not_made(changes):
    with pytest.raises(ValueError, match=r"must be|changed its kind"):
        make(**changes)
