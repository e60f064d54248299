"""The core against a venue that answers late, twice, out of order or never, in any order.

`Tracker` is both: a core on the market of `tests.live.bed`, and a venue as simple as can be that
knows the truth. Messages that are older than 5 s reach no venue, which is what the fence rests on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from passivx.exchanges.base import Fill, NewOrder, Order
from passivx.live import events as ev
from passivx.live.core import Mode
from tests.live.bed import CANCELED, FILLED, NEW, PART, Bed, config_of

WINDOW_S = 5.0
# Three re-entries, three closes, two messages at a time.
CONFIG = config_of(
    n_entry_orders=3, n_close_orders=3, max_markup=0.0055, orders_per_batch=2, ddown_factor=0.5
)
WHICH = st.integers(0, 5)


@dataclass
class There:
    """An order as the venue has it."""

    order: NewOrder
    ideal_price: float
    ideal_qty: float
    sent_s: float
    state: str = "flying"  # open, ended, never
    filled: float = 0.0
    fills: list[Fill] = field(default_factory=list)
    given_up: bool = False  # nobody waits for an answer any more
    # Cancels on their way: since when, and whether one still waits for their answer.
    cancels: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.order.qty - self.filled

    def may_rest(self, now_s: float) -> bool:
        flying = self.state == "flying" and now_s - self.sent_s <= WINDOW_S
        return self.state == "open" or flying


class Tracker(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bed = Bed(config=CONFIG)
        self.there: dict[str, There] = {}
        self.answers: list[tuple[str, bool, str, str, dict[str, Any]]] = []
        self.stream: list[ev.OrderSeen | ev.FillSeen] = []
        self.looks: list[str] = []
        self.readings: list[int] = []
        self.told: set[str] = set()
        self.booked: list[str] = []
        self.absorb()

    # --- the bot's messages ---

    def absorb(self) -> None:
        bed = self.bed
        for intent in bed.intents:
            if isinstance(intent, ev.Place):
                for order, body in zip(intent.orders, intent.bodies, strict=True):
                    assert order.client_id not in self.there, "an id is used once"
                    one = There(order, body["ideal_price"], body["ideal_qty"], bed.now.s)
                    self.there[order.client_id] = one
            elif isinstance(intent, ev.Cancel):
                for each in intent.orders:
                    self.there[each.client_id].cancels.append((bed.now.s, True))
            elif isinstance(intent, ev.LookUp):
                self.looks.append(intent.client_id)
            elif isinstance(intent, ev.Reconcile):
                self.readings.append(intent.epoch)
            elif isinstance(intent, ev.Record) and intent.type == "fill":
                self.booked.append(intent.key)
        bed.intents.clear()

    def tell(self, event: ev.Event) -> None:
        self.bed.tell(event)
        self.absorb()

    def one_of(self, them: list[Any], which: int) -> Any:
        return them[which % len(them)] if them else None

    def order_of(self, one: There) -> Order:
        status = NEW if one.filled == 0.0 else PART
        if one.state == "ended":
            status = FILLED if one.left == 0.0 else CANCELED
        return self.bed.order(one.order, status, one.filled)

    # --- the venue ---

    def flying(self) -> list[There]:
        return [one for one in self.there.values() if one.state == "flying"]

    def cancelling(self) -> list[There]:
        return [one for one in self.there.values() if one.cancels]

    def resting(self) -> list[There]:
        return [one for one in self.there.values() if one.state == "open"]

    @precondition(lambda self: self.flying())
    @rule(which=WHICH, what=st.sampled_from(["accept", "accept", "refuse", "lose"]),
          said=st.sampled_from(["yes", "order", "nothing"]))  # fmt: skip
    def a_place_arrives(self, which: int, what: str, said: str) -> None:
        one = self.one_of(self.flying(), which)
        if one is not None:
            self.place(one, what, said)

    @precondition(lambda self: self.flying())
    @rule(which=WHICH)
    def a_place_has_no_answer(self, which: int) -> None:
        """The line is cut, and the message goes on."""
        one = self.one_of(self.flying(), which)
        if one is not None and not one.given_up:
            one.given_up = True
            self.answers.append((one.order.client_id, False, "unknown", "look_up", {}))

    @precondition(lambda self: self.cancelling())
    @rule(which=WHICH)
    def a_cancel_has_no_answer(self, which: int) -> None:
        one = self.one_of(self.cancelling(), which)
        if one is not None and one.cancels[0][1]:
            one.cancels[0] = one.cancels[0][0], False
            self.answers.append((one.order.client_id, True, "unknown", "look_up", {}))

    def place(self, one: There, what: str, said: str) -> None:
        if one.given_up:
            kept = list(self.answers)
            self._place(one, what, said)
            self.answers = kept
        else:
            self._place(one, what, said)

    def _place(self, one: There, what: str, said: str) -> None:
        id = one.order.client_id
        if self.bed.now.s - one.sent_s > WINDOW_S:
            what = "lose"
        unknown = (id, False, "unknown", "look_up", {})
        if what == "lose":
            one.state = "never"
            self.answers.append(unknown)
        elif what == "refuse":
            one.state = "never"
            refused = (id, False, "rejected", "reprice", {})
            self.answers.append(unknown if said == "nothing" else refused)
        else:
            one.state = "open"
            order = self.order_of(one)
            self.stream.append(ev.OrderSeen(order))
            more = {"order": order} if said == "order" else {}
            self.answers.append(unknown if said == "nothing" else (id, False, "ok", "none", more))

    @precondition(lambda self: self.cancelling())
    @rule(which=WHICH, lost=st.sampled_from([False, False, True]),
          said=st.sampled_from(["yes", "order", "nothing"]))  # fmt: skip
    def a_cancel_arrives(self, which: int, lost: bool, said: str) -> None:
        one = self.one_of(self.cancelling(), which)
        if one is not None:
            self.cancel(one, lost, said)

    def cancel(self, one: There, lost: bool, said: str) -> None:
        sent_s, waits = one.cancels.pop(0)
        kept = list(self.answers)
        self._cancel(one, lost or self.bed.now.s - sent_s > WINDOW_S, said)
        if not waits:
            self.answers = kept

    def _cancel(self, one: There, lost: bool, said: str) -> None:
        id = one.order.client_id
        unknown = (id, True, "unknown", "look_up", {})
        if lost:
            self.answers.append(unknown)
        elif one.state == "open":
            one.state = "ended"
            order = self.order_of(one)
            self.stream.append(ev.OrderSeen(order))
            more = {"order": order} if said == "order" else {}
            self.answers.append(unknown if said == "nothing" else (id, True, "ok", "none", more))
        else:
            gone = (id, True, "rejected", "gone", {})
            self.answers.append(unknown if said == "nothing" else gone)

    @precondition(lambda self: self.resting())
    @rule(which=WHICH, share=st.sampled_from([0.2, 0.5, 1.0, 1.0]))
    def it_fills(self, which: int, share: float) -> None:
        one = self.one_of(self.resting(), which)
        if one is None:
            return
        qty = max(1.0, float(int(one.left * share)))
        if one.order.reduce_only:
            qty = min(qty, self.size)
            if qty < 1.0:
                return
        one.filled += qty
        fill = self.bed.fill(one.order, qty)
        one.fills.append(fill)
        if one.left == 0.0:
            one.state = "ended"
        self.stream += [ev.FillSeen(fill), ev.OrderSeen(self.order_of(one))]

    @property
    def size(self) -> float:
        return sum(fill.side * fill.qty for one in self.there.values() for fill in one.fills)

    # --- what reaches the bot ---

    @precondition(lambda self: self.answers)
    @rule(which=WHICH)
    def it_is_answered(self, which: int) -> None:
        if self.answers:
            id, cancel, verdict, reaction, more = self.answers.pop(which % len(self.answers))
            self.bed._answer(id, cancel, verdict, reaction, more)
            self.absorb()

    @precondition(lambda self: self.stream)
    @rule(which=WHICH, again=st.booleans())
    def it_hears(self, which: int, again: bool) -> None:
        event = self.one_of(self.stream, which)
        if event is None:
            return
        if not again:
            self.stream.remove(event)
        if isinstance(event, ev.FillSeen):
            self.told.add(event.fill.trade_id)
        self.tell(event)

    @precondition(lambda self: self.stream)
    @rule(which=WHICH)
    def an_event_is_lost(self, which: int) -> None:
        if self.stream:
            self.stream.pop(which % len(self.stream))

    @precondition(lambda self: self.looks)
    @rule(which=WHICH, read=st.sampled_from([True, True, False]))
    def a_look_up_is_answered(self, which: int, read: bool) -> None:
        if not self.looks:
            return
        id = self.looks.pop(which % len(self.looks))
        if not read:
            self.tell(ev.NotRead("look_up", id, "no route to host"))
            return
        one = self.there[id]
        there = one.state in ("open", "ended")
        self.told.update(fill.trade_id for fill in one.fills)
        self.tell(ev.Found(id, self.order_of(one) if there else None, list(one.fills)))

    @precondition(lambda self: self.readings)
    @rule(read=st.sampled_from([True, True, False]))
    def all_is_read(self, read: bool) -> None:
        if not self.readings:
            return
        epoch = self.readings.pop(0)
        if not read:
            self.tell(ev.NotRead("reconcile", "", "no route to host"))
            return
        fills = [fill for one in self.there.values() for fill in one.fills]
        rest = [self.order_of(one) for one in self.resting()]
        self.told.update(fill.trade_id for fill in fills)
        # Wallet and average entry follow the fills: what the core makes of the same fills.
        core = self.bed.core
        known = Bed()
        for fill in sorted(fills, key=lambda fill: int(fill.trade_id[1:])):
            known.core.bot.fill(0, fill.side, fill.price, fill.qty, 0.0)
        wallet, _, size, entry_price, _ = known.core.bot.account
        assert size == self.size
        if {fill.trade_id for fill in fills} == set(self.booked):
            # Booked in another order they leave another average, which the venue's replaces.
            wallet, entry_price = core.bot.account[0], core.bot.account[3]
        account = self.bed.account(size, entry_price, wallet=wallet)
        self.tell(ev.Snapshot(epoch, account, rest, fills, []))

    @rule(seconds=st.sampled_from([0.2, 0.6, 1.0, 1.2, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.bed.wait(seconds)
        self.absorb()

    @rule(price=st.sampled_from([1000.0, 1000.0, 1050.0, 960.0]))
    def the_market_moves(self, price: float) -> None:
        self.bed.trade(price + 1.0, buyer_maker=False)
        self.bed.trade(price)
        self.bed.requote()
        self.absorb()

    # --- what must hold ---

    @invariant()
    def no_slot_has_two_orders(self) -> None:
        slots = [
            (one.order.side, one.ideal_price, one.ideal_qty - one.filled, one.order.reduce_only)
            for one in self.there.values()
            if one.may_rest(self.bed.now.s)
        ]
        assert len(slots) == len(set(slots)), slots

    @invariant()
    def whatever_may_rest_is_in_the_books(self) -> None:
        known = {order["client_id"] for order in self.bed.core.status()["orders"]}
        for id, one in self.there.items():
            assert not one.may_rest(self.bed.now.s) or id in known, id

    @invariant()
    def each_fill_is_booked_once(self) -> None:
        assert len(self.booked) == len(set(self.booked))
        assert set(self.booked) == self.told
        told = [
            fill.side * fill.qty
            for one in self.there.values()
            for fill in one.fills
            if fill.trade_id in self.told
        ]
        assert self.bed.size == sum(told)
        assert self.bed.core.counts["overfill"] == 0

    @invariant()
    def the_flow_knows_what_is_left_of_each(self) -> None:
        live = {id: qty for id, _, _, qty, _ in self.bed.core.bot.live}
        for each in self.bed.core._ours.values():
            booked = sum(
                fill.qty for fill in self.there[each.client_id].fills if fill.trade_id in self.told
            )
            assert live.pop(each.id) == each.qty - booked
        assert live == {}

    def teardown(self) -> None:
        """Once everything works again the books agree and the grid is whole."""
        for _ in range(90):
            self.the_market_moves(1000.0)
            self.time_passes(1.0)
            for _ in range(6):
                for one in self.flying():
                    self.place(one, "accept", "order")
                for one in self.cancelling():
                    self.cancel(one, False, "order")
                while self.answers:
                    self.it_is_answered(0)
                while self.stream:
                    self.it_hears(0, False)
                while self.looks:
                    self.a_look_up_is_answered(0, True)
                while self.readings:
                    self.all_is_read(True)
        self.whatever_may_rest_is_in_the_books()
        self.each_fill_is_booked_once()
        self.the_flow_knows_what_is_left_of_each()
        core = self.bed.core
        assert core.unresolved == []
        assert core.mode is Mode.ACTIVE, core.mode_reasons
        rest = {id for id, one in self.there.items() if one.state == "open"}
        assert set(core.open_ids) == rest
        assert self.bed.size == self.size
        closes = [one.left for one in map(self.there.get, rest) if one and one.order.reduce_only]
        assert sum(closes) == self.size
        if not self.size:
            assert len(rest) == 1


def walk(seed: int, steps: int) -> Tracker:
    """Any of the rules at random, the busy ones more often; a failure names its seed."""
    draw = random.Random(seed)
    tracker = Tracker()
    # Some runs lose much, some little; in some, messages take long.
    loss = draw.choice([0.0, 0.1, 0.4])
    pace = draw.choice([4.0, 4.0, 0.3])
    said = ["yes", "order"] + ["nothing"] * (loss > 0.0)

    def which() -> int:
        return draw.choice([0, 0, draw.randrange(6)])

    def read() -> bool:
        return draw.random() >= loss

    def rules() -> Iterator[tuple[float, Callable[[], None]]]:
        if tracker.flying():
            what = "accept" if read() else draw.choice(["refuse", "lose"])
            yield pace, lambda: tracker.a_place_arrives(which(), what, draw.choice(said))
            yield 5 * loss, lambda: tracker.a_place_has_no_answer(which())
        if tracker.cancelling():
            yield 5 * loss, lambda: tracker.a_cancel_has_no_answer(which())
            yield pace, lambda: tracker.a_cancel_arrives(which(), not read(), draw.choice(said))
        if tracker.resting():
            yield 1, lambda: tracker.it_fills(which(), draw.choice([0.2, 0.5, 1.0, 1.0]))
        if tracker.answers:
            yield 5, lambda: tracker.it_is_answered(which())
        if tracker.stream:
            yield 5, lambda: tracker.it_hears(which(), draw.random() < 0.2)
            yield loss, lambda: tracker.an_event_is_lost(which())
        if tracker.looks:
            yield 4, lambda: tracker.a_look_up_is_answered(which(), read())
        if tracker.readings:
            yield 3, lambda: tracker.all_is_read(read())
        yield (
            3.0 if pace < 1.0 else 1.5,
            lambda: tracker.time_passes(draw.choice([0.2, 0.6, 1.0, 1.2, 4.0])),
        )
        yield 1.5, lambda: tracker.the_market_moves(draw.choice([1000.0, 1000.0, 1050.0, 960.0]))

    for _ in range(steps):
        them = list(rules())
        (do,) = draw.choices([do for _, do in them], [weight for weight, _ in them])
        do()
        tracker.no_slot_has_two_orders()
        tracker.whatever_may_rest_is_in_the_books()
        tracker.each_fill_is_booked_once()
        tracker.the_flow_knows_what_is_left_of_each()
    tracker.teardown()
    return tracker


@pytest.mark.parametrize("block", range(5))
def test_long_walks(block: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block * 20, block * 20 + 20):
        tracker = walk(seed, 300)
        seen.update(tracker.bed.core.counts)
        seen["orders"] += len(tracker.there)
        seen["fills"] += len(tracker.booked)
    # They hold what they are about.
    assert seen["orders"] > 200
    assert seen["fills"] > 100
    assert all(seen[name] for name in ("unknown_outcome", "dead", "late_bound", "duplicate_fill"))


def run_machine(n: int, steps: int) -> None:
    run_state_machine_as_test(
        Tracker,
        settings=settings(
            max_examples=n,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_is_late_lost_doubled_or_out_of_order() -> None:
    run_machine(60, 50)


@pytest.mark.nightly
def test_whatever_is_late_lost_doubled_or_out_of_order_for_long() -> None:
    run_machine(2000, 100)
    for seed in range(1000, 3000):
        walk(seed, 400)
