"""The core by hand: an event at a time, and what must come of it at that very time.

Prices and quantities are those of `tests.live.bed`.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from passivx.exchanges.base import FillKind, Link, Payment
from passivx.live import events as ev
from passivx.live.core import Mode
from passivx.live.events import OnExit
from passivx.live.orders import FENCE_S
from passivx.models import Position
from tests.live.bed import (
    AGAIN,
    CANCELED,
    CLOSE,
    ENTRY,
    FILLED,
    PART,
    START_MS,
    Bed,
    config_of,
    long_ten,
    rules_of,
    words,
)


def one_entry() -> tuple[Bed, Any]:
    bed = Bed()
    (order,) = bed.placed()
    return bed, order


def test_the_first_plan_is_sent_at_once():
    bed, order = one_entry()
    assert words([order]) == [ENTRY]
    assert (order.client_id, order.reduce_only, order.at_market) == ("pvx-e-run-1", False, False)
    assert bed.core.mode is Mode.ACTIVE
    bed.wait(20.0)
    bed.requote()
    assert bed.placed() == bed.cancelled() == []


def test_what_is_held_and_rests_already_is_taken_over():
    bed = Bed()
    (order,) = bed.placed()
    old = bed.order(order, client_id="pvx-c-old-7", side=-1, price=1002.0, reduce_only=True)
    other = bed.order(order, client_id="web-1", side=1, price=949.0)
    bed = Bed(size=10.0, orders=[old, other])
    assert words(bed.placed()) == [AGAIN]
    assert bed.cancelled() == []
    assert bed.core.adopted_ids == ["pvx-c-old-7"]
    assert (949.0, 10.0) in bed.live
    assert len(bed.live) == 2


# --- an order whose fate is unknown ---


def test_an_unknown_order_is_given_up_after_the_fence_and_two_answers_and_made_anew():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    assert bed.core.unresolved == [order.client_id]
    bed.wait(0.4)
    assert bed.looked_up() == []
    bed.wait(0.1)
    (look,) = bed.take(ev.LookUp)
    assert look == ev.LookUp(order.client_id, START_MS - 60_000)
    bed.tell(ev.Found(order.client_id, None))
    bed.wait(FENCE_S - 0.5 - 0.01)
    bed.requote()
    assert bed.looked_up() == []
    assert bed.placed() == bed.cancelled() == []  # it keeps its slot
    assert bed.live == [(1000.0, 10.0)]  # and its size
    bed.wait(0.01)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, None))
    ends = [(r.key, r.body["verdict"], r.body["final"]) for r in bed.records("outcome")]
    assert ends[-1] == (order.client_id, "dead", True)
    (anew,) = bed.placed()
    assert (words([anew]), anew.client_id) == ([ENTRY], "pvx-e-run-2")
    assert bed.core.counts["dead"] == 1


def test_two_answers_that_there_is_none_must_be_a_second_apart():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    bed.jump(FENCE_S + 0.2)
    for after_s, dead in ((0.0, 0), (0.3, 0), (0.6, 0), (0.2, 1)):
        bed.jump(after_s)
        bed.tell(ev.Found(order.client_id, None))
        assert bed.core.counts["dead"] == dead
        assert len(bed.placed()) == dead


def test_a_network_error_is_not_a_not_found():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    n = 0
    for _ in range(120):
        bed.wait(1.0)
        for client_id in bed.looked_up():
            n += 1
            bed.tell(ev.NotRead("look_up", client_id, "no route to host"))
    assert n >= 5
    assert bed.core.counts["dead"] == 0
    assert bed.placed() == []
    assert bed.core.unresolved == [order.client_id]
    # One answer among them is one.
    bed.tell(ev.Found(order.client_id, None))
    assert bed.core.counts["dead"] == 0
    bed.wait(1.1)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, None))
    assert bed.core.counts["dead"] == 1
    assert words(bed.placed()) == [ENTRY]


def test_look_ups_that_fail_are_repeated_later_each_time_and_as_late_as_the_venue_wants():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    times = []
    while len(times) < 6:
        bed.wait(0.5)
        for client_id in bed.looked_up():
            times.append(bed.now.s - 1000.0)
            bed.tell(ev.NotRead("look_up", client_id, "429", 40.0 if len(times) == 6 else 0.0))
    assert times == [0.5, 2.5, 6.5, 14.5, 22.5, 30.5]  # 2, 4, 8 and no longer
    bed.wait(39.5)
    assert bed.looked_up() == []
    bed.wait(0.5)
    assert bed.looked_up() == [order.client_id]


@pytest.mark.parametrize("how", ["stream", "look-up"])
def test_an_unknown_order_that_turns_up_is_bound(how):
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    bed.wait(0.5)
    bed.looked_up()
    if how == "stream":
        bed.tell(ev.OrderSeen(bed.order(order)))
        bed.tell(ev.Found(order.client_id, None))  # read before it was there
        bed.wait(30.0)
    else:
        bed.tell(ev.Found(order.client_id, bed.order(order)))
        bed.wait(30.0)
        assert bed.looked_up() == []
    assert bed.core.open_ids == [order.client_id]
    assert bed.core.counts["late_bound"] == 1
    assert bed.core.counts["dead"] == 0
    assert bed.placed() == []


def test_an_unknown_order_that_filled_is_found_by_its_fill():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    bed.fills(order)
    assert bed.size == 10.0
    assert bed.core.unresolved == [p.client_id for p in bed.placed()]
    assert [r.key for r in bed.records("fill")] == ["t1"]


def test_a_fill_that_the_look_up_brings_with_the_order_is_booked_once():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    bed.wait(0.5)
    fill = bed.fill(order, 4.0, client_id="")
    bed.tell(ev.Found(order.client_id, bed.order(order, PART, 4.0), [fill]))
    assert bed.size == 4.0
    assert bed.core._ours[order.client_id].left == 6.0
    bed.tell(ev.FillSeen(fill))
    assert bed.size == 4.0
    assert bed.core.counts["duplicate_fill"] == 1


def test_an_order_that_was_taken_for_dead_and_rests_is_in_the_books_again():
    bed, order = one_entry()
    bed.answer(order.client_id, "unknown", "look_up")
    bed.jump(FENCE_S)
    bed.tell(ev.Found(order.client_id, None))
    bed.jump(1.0)
    bed.tell(ev.Found(order.client_id, None))
    (anew,) = bed.placed()
    bed.opens(anew)
    bed.core._closed.clear()  # so long ago that it is forgotten
    bed.tell(ev.OrderSeen(bed.order(order)))
    assert bed.core.counts["risen"] == 1
    # One too many: it goes.
    assert [o.client_id for o in bed.cancelled()] == [order.client_id]


def test_an_intent_of_the_last_run_is_looked_up_and_blocks_its_slot():
    bed = Bed()
    (place,) = bed.take(ev.Place)
    intents = {"pvx-e-old-3": (START_MS - 60_000, place.bodies[0])}
    bed = Bed(intents=intents)
    assert bed.placed() == []
    bed.wait(0.1)
    assert bed.looked_up() == ["pvx-e-old-3"]
    bed.tell(ev.Found("pvx-e-old-3", None))
    bed.wait(1.1)
    assert bed.looked_up() == ["pvx-e-old-3"]
    bed.tell(ev.Found("pvx-e-old-3", None))  # a minute old: the fence is long behind
    assert words(bed.placed()) == [ENTRY]


def test_an_intent_of_the_last_run_whose_fills_are_known_is_no_question():
    bed = Bed()
    (place,) = bed.take(ev.Place)
    intents = {"pvx-e-old-3": (START_MS - 60_000, place.bodies[0])}
    bed = Bed(size=10.0, intents=intents, filled={"pvx-e-old-3": 10.0})
    assert bed.core.unresolved == [p.client_id for p in bed.placed()]


# --- fills ---


def test_a_fill_before_its_acknowledgement():
    bed, order = one_entry()
    bed.fills(order)
    assert bed.size == 10.0
    after = bed.placed()
    assert sorted(words(after)) == sorted([AGAIN, CLOSE])
    # What comes late of it changes nothing.
    bed.tell(ev.OrderSeen(bed.order(order)))
    bed.answer(order.client_id, "ok", order=bed.order(order))
    bed.tell(ev.OrderSeen(bed.order(order, FILLED, 10.0)))
    assert sorted(bed.core._ours) == sorted(each.client_id for each in after)
    assert bed.placed() == []
    assert bed.size == 10.0


def test_a_part_that_filled_before_the_order_had_a_name_is_its_own():
    bed, order = one_entry()
    bed.fills(order, 4.0, client_id="")
    assert bed.size == 4.0
    assert bed.core.counts["foreign_fill"] == 1
    bed.answer(order.client_id, "ok", order=bed.order(order, PART, 4.0))
    assert bed.core._ours[order.client_id].filled == 4.0
    assert (1000.0, 6.0) in bed.live


def test_the_same_fill_from_stream_snapshot_and_look_up_is_one():
    bed, order = one_entry()
    bed.opens(order)
    fill = bed.fills(order, 4.0)
    bed.tell(ev.FillSeen(fill))
    bed.snapshot(4.0, fills=[fill], orders=[bed.order(order, PART, 4.0)])
    bed.tell(ev.Found(order.client_id, bed.order(order, PART, 4.0), [fill]))
    assert bed.size == 4.0
    assert [r.key for r in bed.records("fill")] == ["t1"]
    assert bed.core._ours[order.client_id].filled == 4.0


def test_what_was_seen_before_this_run_is_not_booked_again():
    bed = Bed(size=10.0, seen=["t1", "payment f1"])
    stranger = bed.placed()[0]
    bed.fills(stranger, 5.0)
    bed.tell(ev.PaymentSeen(Payment(id="f1", ts_ms=START_MS, amount=-3.0)))
    assert bed.size == 10.0
    assert bed.core.bot.account[0] == 100_000.0


def test_a_close_that_filled_in_part_is_left_as_it_is():
    bed, again, close = long_ten()
    bed.fills(close, 3.0)
    bed.tell(ev.OrderSeen(bed.order(close, PART, 3.0)))
    assert bed.size == 7.0
    assert sorted(bed.live) == [(949.0, 10.0), (1002.0, 7.0)]
    bed.requote()
    # The close of 7 is there; the re-entry is made of 7.
    assert words(bed.cancelled()) == [AGAIN]
    bed.answer_cancel(again.client_id, "ok", order=bed.order(again, CANCELED))
    assert words(bed.placed()) == [(1, 949.0, 7.0)]


def test_a_cancel_that_comes_after_a_part_ends_with_what_was_left():
    bed, order = one_entry()
    bed.opens(order)
    bed.trade(1051.0, buyer_maker=False)
    bed.trade(1050.0)
    bed.requote()  # the entry goes up with the price
    (named,) = bed.cancelled()
    assert (named.client_id, named.qty, named.filled_qty) == (order.client_id, 10.0, 0.0)
    bed.fills(order, 4.0)
    bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED, 4.0))
    assert bed.size == 4.0
    # A position of 4 at 1000: re-entry and close of 4.
    assert sorted(words(bed.placed())) == [(-1, 1051.0, 4.0), (1, 949.0, 4.0)]
    assert order.client_id not in bed.core._ours


def test_an_end_that_tells_of_fills_waits_for_them():
    bed, order = one_entry()
    bed.opens(order)
    bed.tell(ev.OrderSeen(bed.order(order, FILLED, 10.0)))
    assert bed.core.unresolved == [order.client_id]
    assert bed.live == [(1000.0, 10.0)]
    bed.wait(0.9)
    assert bed.looked_up() == []
    bed.wait(0.1)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, bed.order(order, FILLED, 10.0), [bed.fill(order)]))
    assert bed.size == 10.0
    assert len(bed.placed()) == 2


def test_more_than_was_ordered_is_doubted():
    bed, order = one_entry()
    bed.opens(order)
    bed.fills(order, 12.0)
    assert bed.core.counts["overfill"] == 1
    assert bed.core.mode is Mode.REDUCING
    assert len(bed.take(ev.Reconcile)) == 1


# --- cancels ---


def cancelling() -> tuple[Bed, Any]:
    """An entry at 1000 whose cancel is on its way; the next one belongs at 1050."""
    bed, order = one_entry()
    bed.opens(order)
    bed.trade(1051.0, buyer_maker=False)
    bed.trade(1050.0)
    bed.requote()
    assert words(bed.cancelled()) == [ENTRY]
    assert bed.placed() == []
    return bed, order


def cancelled_again(bed: Bed, order: Any) -> None:
    """It stays in the books, and the next look at the market cancels it again."""
    for new in bed.placed():  # within the largest position, whatever fills
        bed.opens(new)
    assert (1000.0, 10.0) in bed.live
    assert sum(qty for _, qty in bed.live) <= 92.0
    bed.requote()
    assert [o.client_id for o in bed.cancelled()] == [order.client_id]
    bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    bed.placed()
    assert bed.live == [(1050.0, 9.0)]


def test_a_new_order_waits_until_the_old_one_is_gone():
    bed, order = cancelling()
    bed.wait(3.0)
    bed.requote()
    assert bed.placed() == bed.cancelled() == []
    bed.answer_cancel(order.client_id, "ok")
    assert bed.placed() == []  # accepted: not yet gone
    bed.tell(ev.OrderSeen(bed.order(order, CANCELED)))
    assert words(bed.placed()) == [(1, 1050.0, 9.0)]


def test_a_cancel_of_what_is_gone_is_looked_into_before_anything_is_sent():
    bed, order = cancelling()
    bed.answer_cancel(order.client_id, "rejected", "gone")
    assert bed.looked_up() == [order.client_id]
    assert bed.placed() == []
    fill = bed.fill(order)
    bed.tell(ev.Found(order.client_id, bed.order(order, FILLED, 10.0), [fill]))
    assert bed.size == 10.0
    assert sorted(words(bed.placed())) == [(-1, 1051.0, 10.0), AGAIN]


def test_a_cancel_without_an_answer_leaves_the_order_where_it_is():
    bed, order = cancelling()
    bed.answer_cancel(order.client_id, "unknown", "look_up")
    bed.wait(0.5)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, bed.order(order)))
    bed.requote()
    assert bed.placed() == bed.cancelled() == []
    # It may still arrive until the fence; what rests then, rests.
    bed.wait(FENCE_S - 0.6)
    assert bed.looked_up() == []
    bed.wait(0.1)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, bed.order(order)))
    cancelled_again(bed, order)


def test_a_cancel_that_is_refused_leaves_the_order_and_is_tried_again():
    bed, order = cancelling()
    bed.answer_cancel(order.client_id, "rejected", "drop")
    assert order.client_id in bed.core.open_ids
    cancelled_again(bed, order)


def test_an_order_that_the_venue_no_longer_knows_has_ended_after_two_answers():
    bed, order = cancelling()
    bed.answer_cancel(order.client_id, "rejected", "gone")
    bed.looked_up()
    bed.tell(ev.Found(order.client_id, None))
    assert bed.placed() == []
    bed.wait(1.1)
    assert bed.looked_up() == [order.client_id]
    bed.tell(ev.Found(order.client_id, None))
    assert bed.core.counts["unknown_closed"] == 1
    # What it may have filled, the account says first.
    assert len(bed.take(ev.Reconcile)) == 1
    assert bed.placed() == []
    bed.snapshot(0.0)
    assert words(bed.placed()) == [(1, 1050.0, 9.0)]


def test_the_venues_own_cancels_are_made_good_and_after_three_waited_with():
    bed, order = one_entry()
    for n in range(1, 4):
        bed.opens(order)
        bed.tell(ev.OrderSeen(bed.order(order, CANCELED, reason="venue")))
        if n < 3:
            (order,) = bed.placed()
            assert words([order]) == [ENTRY]
    assert bed.placed() == []
    assert "venue_cancels" in bed.core.mode_reasons
    bed.wait(59.0)
    assert bed.placed() == []
    bed.wait(1.0)
    assert words(bed.placed()) == [ENTRY]


# --- what the venue says against what we have ---


def test_another_wallet_is_believed_when_it_was_read_twice():
    bed, order = one_entry()
    bed.opens(order)
    rests = [bed.order(order)]
    bed.snapshot(0.0, wallet=90_000.0, orders=rests)
    assert bed.core.mode is Mode.REDUCING
    assert bed.core.bot.account[0] == 100_000.0
    bed.wait(0.9)
    bed.snapshot(0.0, wallet=90_000.0, orders=rests)
    assert bed.core.bot.account[0] == 100_000.0
    bed.wait(0.1)
    bed.snapshot(0.0, wallet=90_000.0, orders=rests)
    assert bed.core.bot.account[0] == 90_000.0
    bed.snapshot(0.0, wallet=90_000.0, orders=rests)
    assert bed.core.mode is Mode.ACTIVE
    # 9 where 10 rest: within a twentieth it would stay.
    assert words(bed.cancelled()) == [ENTRY]


def test_a_wallet_that_is_another_each_time_is_never_believed():
    bed, _ = one_entry()
    for n in range(5):
        bed.snapshot(0.0, wallet=90_000.0 + n)
        bed.wait(1.2)
    assert bed.core.bot.account[0] == 100_000.0
    assert bed.core.mode is Mode.REDUCING
    bed.snapshot(0.0)
    assert bed.core.mode is Mode.ACTIVE


@pytest.mark.parametrize(
    ("live", "told", "size", "after_s"),
    [
        (False, None, 5.0, 1.0),
        (True, None, 5.0, 1.0),
        (True, 10.0, 5.0, 6.0),  # the stream says otherwise
        (False, 10.0, 5.0, 1.0),  # a stream that is down says nothing
        (True, None, 0.0, 6.0),  # an empty answer is the likeliest mistake
        (False, None, 0.0, 1.0),
    ],
)
def test_another_position_is_believed_when_it_was_read_twice(live, told, size, after_s):
    bed, again, close = long_ten()
    bed.tell(ev.LinkSeen(Link.PRIVATE, live, False, ""))
    if told is not None:
        bed.tell(ev.PositionSeen(Position(told, 1000.0, 0.0), START_MS))
    rest = [bed.order(again), bed.order(close)]
    bed.snapshot(size, orders=rest)
    began_s = bed.now.s
    while bed.size == 10.0:
        bed.jump(0.5)
        bed.snapshot(size, orders=rest)
        assert bed.now.s < began_s + 10.0
    assert bed.now.s - began_s == after_s
    assert bed.size == size
    assert [r.key for r in bed.records("adopted")] == ["position"]


def test_a_snapshot_that_something_happened_since_proves_nothing():
    bed, order = one_entry()
    bed.opens(order)
    epoch = bed.core._epoch
    fill = bed.fill(order, 4.0)
    bed.tell(ev.FillSeen(fill))
    for _ in range(3):
        bed.tell(ev.Snapshot(epoch, bed.account(0.0), [], [], []))
        bed.wait(1.2)
    assert bed.size == 4.0
    assert bed.core.counts["adopted"] == 0
    assert bed.core.counts["incoherent"] == 3


def test_fills_that_only_a_snapshot_tells_are_booked_and_the_account_read_again():
    bed, order = one_entry()
    bed.opens(order)
    bed.take(ev.Reconcile)
    bed.snapshot(4.0, fills=[bed.fill(order, 4.0)], orders=[bed.order(order, PART, 4.0)])
    assert bed.size == 4.0
    assert bed.core.mode is Mode.REDUCING
    bed.wait(0.5)
    assert len(bed.take(ev.Reconcile)) == 1
    bed.snapshot(4.0, orders=[bed.order(order, PART, 4.0)])
    assert bed.core.mode is Mode.ACTIVE
    assert bed.core.counts["adopted"] == 0


def test_an_order_that_is_in_no_list_is_looked_up_and_a_young_one_is_not():
    bed, order = one_entry()
    bed.opens(order)
    bed.jump(0.9)
    bed.snapshot(0.0)
    assert bed.looked_up() == []
    bed.jump(0.2)
    bed.snapshot(0.0)
    assert bed.looked_up() == [order.client_id]
    assert bed.core.open_ids == [order.client_id]


def test_funding_is_booked_once_whoever_tells_first():
    paid = Payment(id="f", ts_ms=START_MS + 5, amount=-7.0)
    bed, *_ = long_ten()
    bed.tell(ev.PaymentSeen(paid))
    bed.tell(ev.PaymentSeen(paid))
    assert bed.core.bot.account[0] == 99_993.0
    bed.tell(ev.WalletSeen(99_993.0, START_MS + 5))
    bed.wait(5.0)
    assert bed.core.bot.account[0] == 99_993.0
    assert [r.key for r in bed.records("payment")] == ["f"]

    bed, *_ = long_ten()
    bed.tell(ev.WalletSeen(99_993.0, START_MS + 5))
    bed.wait(3.0)
    assert bed.core.bot.account[0] == 99_993.0
    bed.tell(ev.PaymentSeen(paid))
    assert bed.core.bot.account[0] == 99_993.0


def test_half_a_wallet_gone_opens_nothing_until_it_was_read():
    bed, order = one_entry()
    bed.opens(order)
    bed.tell(ev.WalletSeen(50_000.0, bed.now.ms))
    assert bed.core.mode is Mode.REDUCING
    assert len(bed.take(ev.Reconcile)) == 1


# --- time and market ---


@pytest.mark.parametrize(
    ("passed_s", "wall_s", "why"),
    [(11.0, 11.0, "pause"), (1.0, 3600.0, "clock_set"), (1.0, -3600.0, "clock_set")],
)
def test_after_a_pause_nothing_is_opened_before_all_was_read_anew(passed_s, wall_s, why):
    bed, again, close = long_ten()
    bed.jump(passed_s, wall_s)
    bed.trade(1000.0)
    bed.mark()
    assert bed.core.counts[why] == 1
    assert len(bed.take(ev.Reconcile)) == 1
    assert bed.core.mode is Mode.REDUCING
    bed.fills(again, ts_ms=START_MS)  # by the venue's clock; asks for a plan: 20 at 974.5
    assert bed.size == 20.0
    for order in bed.cancelled():
        bed.answer_cancel(order.client_id, "ok", order=bed.order(close, CANCELED))
    assert words(bed.placed()) == [(-1, 1001.0, 20.0)]
    bed.snapshot(20.0, entry_price=974.5)
    assert bed.core.mode is Mode.ACTIVE
    assert words(bed.placed()) == [(1, 923.0, 20.0)]


def test_nine_seconds_are_no_pause():
    bed, _ = one_entry()
    bed.jump(9.0)
    bed.mark()
    assert bed.core.mode is Mode.ACTIVE
    assert bed.take(ev.Reconcile) == []


def test_old_market_data_open_nothing_and_close_as_before():
    bed, order = one_entry()
    bed.opens(order)
    bed.wait(10.5, fresh=False)
    assert list(bed.core.mode_reasons) == ["market"]
    assert len(bed.take(ev.ReadTrades)) == 1
    bed.fills(order)
    assert words(bed.placed()) == [CLOSE]
    bed.wait(5.0, fresh=False)
    bed.requote()
    assert bed.placed() == []
    bed.mark()
    bed.wait(1.0)
    assert bed.core.mode is Mode.ACTIVE
    assert words(bed.placed()) == [AGAIN]


def test_trades_that_come_late_are_old():
    bed, order = one_entry()
    bed.opens(order)
    bed.mark()
    for _ in range(11):
        bed.jump(1.0)
        bed.n_trades += 1
        late_ms = bed.now.ms - 3_001
        bed.core.trade(str(bed.n_trades), 1000.0, 1.0, late_ms, True, bed.now)
        bed.tell(ev.Tick())
    assert "market" in bed.core.mode_reasons


def stopping(**options: Any) -> tuple[Bed, Any, Any]:
    """Long 10 at 1000, a stop at 980 for half of it."""
    config = config_of(
        stop_loss_pos_price_diff=0.02,
        stop_loss_pos_reduction=0.5,
        market_stop_loss=options.pop("market_stop_loss", False),
    )
    return long_ten(config=config, **options)


def test_a_stop_goes_out_while_everything_else_waits():
    bed, again, close = stopping()
    bed.tell(ev.Hold("watchdog", "none"))
    bed.tell(ev.GapSeen(Link.PRIVATE, "lost"))
    bed.wait(11.0, fresh=False)
    assert bed.core.mode is Mode.REDUCING
    # REST tells the price: the stream does not.
    bed.tell(ev.TradesRead([]))
    bed.trade(979.0)
    gone = bed.cancelled()
    assert {o.client_id for o in gone} == {again.client_id, close.client_id}
    for order, status in ((again, CANCELED), (close, CANCELED)):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, status))
    # Half at the ask, half as a close.
    assert sorted(words(bed.placed())) == [(-1, 1001.0, 5.0), (-1, 1002.0, 5.0)]


# --- refusals ---


def test_what_the_rules_call_not_trading_is_waited_for():
    bed, order = one_entry()
    bed.answer(order.client_id, "rejected", "halt", code=-1, text="closed")
    assert bed.core.mode is Mode.HALTED
    assert len(bed.take(ev.ReadRules)) == 1
    bed.tell(ev.RulesRead(rules_of(trading=False)))
    assert bed.core.halted == ""
    assert bed.core.mode is Mode.HALTED
    assert list(bed.core.mode_reasons) == ["not_trading"]
    bed.requote()
    bed.wait(9.0)
    assert bed.placed() == []
    assert bed.take(ev.ReadRules) == []
    bed.wait(1.0)
    assert len(bed.take(ev.ReadRules)) == 1
    bed.tell(ev.RulesRead(rules_of()))
    assert bed.core.mode is Mode.ACTIVE
    assert words(bed.placed()) == [ENTRY]


@pytest.mark.parametrize("then", ["trades", "not read"])
def test_what_the_rules_do_not_explain_halts_for_good(then):
    bed, order = one_entry()
    bed.answer(order.client_id, "rejected", "halt", code=-1, text="banned")
    if then == "not read":  # then it is asked again, and nothing is sent meanwhile
        bed.take(ev.ReadRules)
        bed.tell(ev.NotRead("rules", "", "no route to host"))
        bed.wait(10.0)
        assert len(bed.take(ev.ReadRules)) == 1
        assert bed.core.mode is Mode.HALTED
        assert bed.placed() == bed.cancelled() == []
    for _ in range(2):  # it is tried again, twice
        bed.tell(ev.RulesRead(rules_of()))
        assert bed.core.halted == ""
        bed.wait(4.5)
        assert bed.placed() == []
        bed.wait(1.0)
        (again,) = bed.placed()
        bed.answer(again.client_id, "rejected", "halt", code=-1, text="banned")
    bed.tell(ev.RulesRead(rules_of()))
    assert "banned (-1)" in bed.core.halted
    bed.tell(ev.RulesRead(rules_of()))
    bed.wait(100.0)
    bed.requote()
    bed.trade(1000.0)
    assert bed.placed() == bed.cancelled() == []
    assert bed.core.mode is Mode.HALTED


def test_a_rate_limit_on_an_entry_holds_entries_only():
    bed, order = one_entry()
    bed.answer(order.client_id, "rejected", "back_off", code=-1003, retry_after_s=5.0)
    assert bed.core.mode is Mode.REDUCING
    bed.wait(4.9)
    bed.requote()
    assert bed.placed() == []
    bed.wait(0.1)
    assert bed.core.mode is Mode.ACTIVE
    assert words(bed.placed()) == [ENTRY]


def test_a_rate_limit_on_a_close_is_silence():
    bed = Bed(size=10.0)
    again, close = sorted(bed.placed(), key=lambda each: -each.side)
    bed.opens(again)
    bed.answer(close.client_id, "rejected", "back_off", code=-1003, retry_after_s=5.0)
    assert bed.core.mode is Mode.HALTED
    bed.wait(4.9)
    bed.trade(979.0)
    bed.requote()
    assert bed.placed() == bed.cancelled() == []
    bed.wait(0.2)
    assert bed.core.mode is Mode.ACTIVE
    assert words(bed.placed()) == [CLOSE]


def test_what_would_take_waits_for_the_next_requote():
    bed, order = one_entry()
    bed.answer(order.client_id, "rejected", "reprice")
    bed.wait(3.0)
    assert bed.placed() == []
    bed.requote()
    (anew,) = bed.placed()
    assert (words([anew]), anew.client_id) == ([ENTRY], "pvx-e-run-2")


def test_the_same_refusal_three_times_a_minute_opens_nothing_for_a_minute():
    bed, order = one_entry()
    for _ in range(2):
        bed.answer(order.client_id, "rejected", "drop", code=-2019)
        bed.wait(5.0)
        bed.requote()
        (order,) = bed.placed()
    bed.answer(order.client_id, "rejected", "drop", code=-2019)
    assert "refusals" in bed.core.mode_reasons
    bed.wait(59.0)
    bed.requote()
    assert bed.placed() == []
    bed.wait(1.0)
    bed.requote()
    assert words(bed.placed()) == [ENTRY]


def test_a_refused_close_has_the_account_read():
    bed = Bed(size=10.0)
    close = min(bed.placed(), key=lambda each: each.side)
    bed.answer(close.client_id, "rejected", "drop", code=-2022)
    assert len(bed.take(ev.Reconcile)) == 1


def test_what_the_journal_cannot_take_has_not_been_sent():
    bed, order = one_entry()
    bed.tell(ev.Unsent([order.client_id], "disk full"))
    assert bed.core.mode is Mode.REDUCING
    assert bed.live == []
    bed.wait(0.9)
    assert bed.placed() == []
    bed.wait(0.2)
    assert words(bed.placed()) == [ENTRY]


# --- others ---


def test_another_bot_is_noticed_and_a_hand_is_left_alone():
    bed, order = one_entry()
    bed.opens(order)
    bed.tell(ev.OrderSeen(bed.order(order, client_id="web-1", order_id="9")))
    assert bed.core.mode is Mode.ACTIVE
    assert bed.core.counts["foreign_order"] == 1
    bed.tell(ev.OrderSeen(bed.order(order, client_id="pvx-e-twin-1", order_id="8")))
    assert bed.core.mode is Mode.REDUCING
    (alert,) = [n for n in bed.take(ev.Note) if n.alert]
    assert "pvx-e-twin-1" in alert.fields["why"]
    bed.fills(order)
    assert words(bed.placed()) == [CLOSE]
    assert bed.cancelled() == []
    bed.wait(200.0)
    assert bed.placed() == []
    assert "foreign_writer" in bed.core.mode_reasons


def test_a_fill_of_a_hand_is_planned_around():
    bed, again, close = long_ten()
    bed.fills(close, 4.0, client_id="web-1", order_id="9", price=990.0)
    assert bed.size == 6.0
    assert sorted(words(bed.cancelled())) == [CLOSE, AGAIN]
    for order in (again, close):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    assert sorted(words(bed.placed())) == [(-1, 1002.0, 6.0), (1, 949.0, 6.0)]


def test_liquidation_halts():
    bed, _, close = long_ten()
    bed.fills(close, 10.0, client_id="", order_id="liq", price=500.0, kind=FillKind.LIQUIDATION)
    assert bed.core.halted
    assert bed.size == 0.0
    assert [r.body["kind"] for r in bed.records("fill")] == ["liquidation"]
    bed.requote()
    bed.wait(60.0)
    assert bed.placed() == []


@pytest.mark.parametrize(
    ("account", "reason"),
    [({"cross_mode": False}, "margin_mode"), ({"leverage": 0.5}, "leverage")],
)
def test_settings_that_somebody_changed_open_nothing_until_they_are_put_right(account, reason):
    bed, order = one_entry()
    bed.opens(order)
    bed.snapshot(0.0, orders=[bed.order(order)], **account)
    assert list(bed.core.mode_reasons) == [reason]
    bed.snapshot(0.0, orders=[bed.order(order)])
    assert bed.core.mode is Mode.ACTIVE


def test_hedge_mode_halts():
    bed, _ = one_entry()
    bed.snapshot(0.0, one_way=False)
    assert "hedge mode" in bed.core.halted


def test_a_stream_that_is_down_gates_and_its_return_has_everything_read():
    bed, order = one_entry()
    bed.opens(order)
    for link in (Link.PRIVATE, Link.TRADES):
        bed.tell(ev.LinkSeen(link, True, False, ""))
    bed.tell(ev.LinkSeen(Link.PRIVATE, False, False, "reset"))
    assert bed.core.mode is Mode.REDUCING
    bed.tell(ev.LinkSeen(Link.PRIVATE, True, False, ""))
    assert list(bed.core.mode_reasons) == ["account"]
    assert len(bed.take(ev.Reconcile)) == 1
    bed.snapshot(0.0, orders=[bed.order(order)])
    assert bed.core.mode is Mode.ACTIVE
    bed.tell(ev.LinkSeen(Link.PRIVATE, False, True, "key deleted"))
    assert bed.core.mode is Mode.HALTED


# --- rules ---


def test_new_rules_are_planned_by():
    bed, again, close = long_ten()
    bed.tell(ev.RulesRead(rules_of(market={"price_step": 7.0, "min_qty": 12.0})))
    assert bed.core.counts["rules_changed"] == 1
    assert sorted(words(bed.cancelled())) == sorted([AGAIN, CLOSE])
    for order in (again, close):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    # 950 on a grid of ceil(12.5 / 7) × 7 = 14; 1001.5 on one of 7.
    assert sorted(words(bed.placed())) == [(-1, 1008.0, 10.0), (1, 938.0, 12.0)]


@pytest.mark.parametrize(
    "rules", [{"max_qty": 9.0}, {"min_price": 1001.0}, {"max_price": 999.0}, {"max_orders": 0}]
)
def test_what_the_venue_would_refuse_is_not_sent(rules):
    bed = Bed(rules=rules_of(**rules))
    assert bed.placed() == []
    assert bed.core.counts["held_back"] == 1
    bed.wait(30.0)
    assert bed.core.counts["held_back"] == 1


# --- the base of the close grid ---


@pytest.mark.parametrize(("base", "wanted"), [(40.0, 40.0), (10.0, 10.0), (9.0, 0.0), (None, 0.0)])
def test_the_close_base_is_taken_over_when_it_can_be_true(base, wanted):
    bed = Bed(size=10.0, close_base=base)
    assert bed.core.bot.close_base == wanted
    assert Bed(size=0.0, close_base=40.0).core.bot.close_base == 0.0


# --- a market stop that finds no room ---


def refused_stop() -> tuple[Bed, Any, Any, Any]:
    bed, again, close = stopping(market_stop_loss=True, rules=rules_of(reduce_only_summed=True))
    bed.trade(979.0)
    # What makes room goes first, in the same burst.
    kinds = [type(i) for i in bed.intents if isinstance(i, ev.Place | ev.Cancel)]
    assert kinds[:2] == [ev.Cancel, ev.Place]
    (stop,) = bed.placed()
    assert (stop.side, stop.qty, stop.at_market, stop.reduce_only) == (-1, 5.0, True, True)
    assert {o.client_id for o in bed.cancelled()} == {again.client_id, close.client_id}
    bed.answer(stop.client_id, "rejected", "drop", code=-2022)
    assert bed.placed() == []
    assert bed.core.counts["stop_again"] == 1
    return bed, again, close, stop


def test_a_market_stop_that_found_no_room_is_sent_once_more_when_there_is():
    bed, again, close, stop = refused_stop()
    bed.answer_cancel(again.client_id, "ok", order=bed.order(again, CANCELED))
    assert bed.placed() == []
    bed.answer_cancel(close.client_id, "ok", order=bed.order(close, CANCELED))
    second, *others = bed.placed()
    assert second.client_id != stop.client_id
    assert (second.side, second.qty, second.at_market, second.reduce_only) == (-1, 5.0, True, True)
    assert all(not each.at_market for each in others)
    bed.answer(second.client_id, "rejected", "drop", code=-2022)
    bed.wait(3.0)
    sent = bed.placed()
    assert [each for each in sent if each.at_market] == []
    assert bed.core.counts["stop_again"] == 1


def test_it_is_not_sent_once_more_for_a_position_that_is_gone():
    bed, again, close, _ = refused_stop()
    bed.answer_cancel(again.client_id, "ok", order=bed.order(again, CANCELED))
    bed.fills(close)  # before its cancel
    bed.answer_cancel(close.client_id, "rejected", "gone")
    assert bed.size == 0.0
    assert [each for each in bed.placed() if each.at_market] == []


def test_a_market_stop_that_is_refused_without_a_cancel_on_its_way_is_not_repeated():
    bed, again, close = stopping(market_stop_loss=True)
    bed.trade(979.0)
    (stop,) = [each for each in bed.placed() if each.at_market]
    for order in (again, close):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    bed.placed()
    bed.answer(stop.client_id, "rejected", "drop", code=-2022)
    bed.wait(3.0)
    assert [each for each in bed.placed() if each.at_market] == []


# --- the end ---


def test_a_stop_that_keeps_sends_nothing():
    bed, again, _ = long_ten()
    bed.tell(ev.Stop(OnExit.KEEP))
    assert bed.core.flatten(bed.now) == []
    bed.fills(again)
    bed.requote()
    bed.wait(20.0)
    assert bed.placed() == bed.cancelled() == []
    assert bed.core.wound_up


def test_a_stop_that_cancels_is_through_when_all_are_gone():
    bed, again, close = long_ten()
    bed.tell(ev.Stop(OnExit.CANCEL))
    assert {o.client_id for o in bed.cancelled()} == {again.client_id, close.client_id}
    assert bed.core.flatten(bed.now) == []
    assert not bed.core.wound_up
    bed.answer_cancel(again.client_id, "ok", order=bed.order(again, CANCELED))
    bed.answer_cancel(close.client_id, "rejected", "gone")
    assert not bed.core.wound_up
    assert bed.looked_up() == [close.client_id]
    bed.tell(ev.Found(close.client_id, bed.order(close, FILLED, 10.0), [bed.fill(close)]))
    assert bed.core.wound_up
    assert bed.size == 0.0
    bed.requote()
    assert bed.placed() == []


def test_a_stop_waits_for_an_order_on_its_way_and_cancels_it():
    bed, order = one_entry()
    bed.tell(ev.Stop(OnExit.CANCEL))
    assert [o.client_id for o in bed.cancelled()] == [order.client_id]
    bed.answer_cancel(order.client_id, "rejected", "gone")
    assert not bed.core.wound_up
    assert bed.core.unresolved == [order.client_id]


def test_a_stop_that_flattens_closes_once_at_market():
    bed, again, close = long_ten()
    bed.tell(ev.Stop(OnExit.FLATTEN))
    for order in (again, close):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    assert bed.placed() == []
    assert not bed.core.wound_up
    bed.intents += bed.core.flatten(bed.now)
    (out,) = bed.placed()
    assert (out.side, out.qty, out.at_market, out.reduce_only) == (-1, 10.0, True, True)
    assert bed.core.flatten(bed.now) == []
    assert not bed.core.wound_up
    bed.answer(out.client_id, "ok")
    bed.fills(out, maker=False)
    assert bed.size == 0.0
    assert bed.core.wound_up
    assert bed.core.flatten(bed.now) == []


def test_a_flattening_that_a_rate_limit_held_is_sent_when_it_is_over():
    bed, again, close = long_ten()
    bed.tell(ev.Stop(OnExit.FLATTEN))
    for order in (again, close):
        bed.answer_cancel(order.client_id, "ok", order=bed.order(order, CANCELED))
    bed.intents += bed.core.flatten(bed.now)
    (out,) = bed.placed()
    bed.answer(out.client_id, "rejected", "back_off", retry_after_s=2.0)
    assert bed.core.flatten(bed.now) == []
    bed.wait(2.0)
    bed.intents += bed.core.flatten(bed.now)
    (anew,) = bed.placed()
    assert anew.client_id != out.client_id
    assert (anew.side, anew.qty, anew.reduce_only) == (-1, 10.0, True)


def test_nothing_it_says_is_more_than_json_takes():
    bed, again, _ = long_ten()
    bed.fills(again, 3.0)
    orjson.dumps(bed.core.status())
    assert bed.core.status()["mode"] == "active"
    assert {o["state"] for o in bed.core.status()["orders"]} == {"open"}
