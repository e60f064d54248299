"""Our orders: ids that say whose and what, and words about them that only ever lead forwards."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.types import Kind
from passivx.exchanges.base import NewOrder, Order, OrderStatus
from passivx.live.orders import (
    FENCE_S,
    Ours,
    State,
    body_of,
    instance_of,
    is_own_id,
    kind_of,
    make_id,
    ours_of_body,
)
from passivx.live.session import new_instance

KINDS = (
    Kind.ENTRY,
    Kind.REENTRY,
    Kind.CLOSE,
    Kind.STOP_LOSS_LIQ_DIFF,
    Kind.STOP_LOSS_POS_PRICE_DIFF,
)
INSTANCES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)


# --- ids ---


@given(st.sampled_from(KINDS), INSTANCES, st.integers(1, 10**15 - 1), st.booleans())
def test_an_id_says_whose_and_what_and_venues_take_it(kind, instance, number, reduce_only):
    client_id = make_id(kind, instance, number)
    assert is_own_id(client_id)
    assert instance_of(client_id) == instance
    assert kind_of(client_id, reduce_only=reduce_only) == kind
    NewOrder(client_id=client_id, side=1, price=1.0, qty=1.0).check()


@given(st.lists(st.tuples(st.sampled_from(KINDS), INSTANCES, st.integers(1, 50)), unique=True))
def test_two_orders_have_two_ids(them):
    assert len({make_id(*each) for each in them}) == len(them)


def test_runs_are_told_apart():
    tags = {new_instance() for _ in range(2000)}
    assert len(tags) == 2000
    assert all(re.fullmatch("[a-z0-9]{1,12}", tag) for tag in tags)


@pytest.mark.parametrize("client_id", ["", "web-1", "PVX-e-a-1", "xpvx-e-a-1", "pvx", "pvxe-a-1"])
def test_what_is_not_ours_is_nobodys(client_id):
    assert not is_own_id(client_id)
    assert instance_of(client_id) == ""


@pytest.mark.parametrize(
    "client_id",
    ["pvx-", "pvx-x-a-1", "pvx-e-A-1", "pvx-e--1", "pvx-e-a-", "pvx-e-a-1-2", "pvx-e-a-1\n",
     "pvx-e-" + "a" * 13 + "-1", "pvx-e-a-" + "1" * 16],
)  # fmt: skip
def test_what_bears_our_mark_but_is_no_id_of_ours_is_of_no_run(client_id):
    assert is_own_id(client_id)
    assert instance_of(client_id) == ""
    assert kind_of(client_id, reduce_only=True) == Kind.CLOSE
    assert kind_of(client_id, reduce_only=False) == Kind.REENTRY


def test_the_fence_is_longer_than_a_venue_takes_an_order_for():
    assert FENCE_S == 7.0


# --- what the journal keeps ---


def ours(**changes: Any) -> Ours:
    values: dict[str, Any] = {
        "id": 3, "client_id": "pvx-c-run-3", "side": -1, "price": 101.5, "qty": 2.0,
        "reduce_only": True, "at_market": False, "kind": int(Kind.CLOSE), "ideal_price": 101.0,
        "ideal_qty": 1.75, "sent_s": 5.0, "sent_ms": 50_000,
    }  # fmt: skip
    return Ours(**values | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_comes_back_from_the_journal_as_it_was_meant(kind):
    order = ours(kind=int(kind), at_market=kind is Kind.STOP_LOSS_LIQ_DIFF)
    back = ours_of_body(order.client_id, body_of(order), sent_s=1.0, sent_ms=50_000)
    assert body_of(back) == body_of(order)
    assert (back.client_id, back.id, back.kind) == (order.client_id, 0, int(kind))
    assert (back.state, back.placing, back.filled) == (State.UNKNOWN, False, 0.0)
    assert (back.sent_s, back.sent_ms) == (1.0, 50_000)


def test_what_is_left_is_never_less_than_nothing():
    assert ours(filled=0.5).left == 1.5
    assert ours(filled=2.0).left == 0.0
    assert ours(filled=2.5).left == 0.0


def told(status: OrderStatus, filled: float, ts_ms: int, **changes: Any) -> Order:
    values: dict[str, Any] = {
        "client_id": "pvx-c-run-3", "order_id": "7", "side": -1, "price": 101.5, "qty": 2.0,
        "filled_qty": filled, "reduce_only": True, "status": status, "ts_ms": ts_ms,
    }  # fmt: skip
    return Order(**values | changes)


def test_a_cancel_names_the_order_as_the_venue_does():
    order = ours(filled=0.5)
    named = order.as_order()
    assert (named.client_id, named.order_id, named.filled_qty) == ("pvx-c-run-3", "", 0.5)
    order.told = told(OrderStatus.NEW, 0.0, 9)
    assert order.as_order() is order.told
    order.told = told(OrderStatus.NEW, 0.0, 9, client_id="another")
    assert order.as_order().client_id == "pvx-c-run-3"


# --- which word is news ---

NEW, PART = OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED
CANCELED, FILLED = OrderStatus.CANCELED, OrderStatus.FILLED


def hear(order: Ours, word: Order) -> bool:
    """Take a word in as the core does."""
    if not order.is_news(word):
        return False
    order.told_filled = max(order.told_filled, word.filled_qty)
    order.told_ms = max(order.told_ms, word.ts_ms)
    order.told = word
    if word.status.final:
        order.ended = word.status
    return True


@pytest.mark.parametrize(
    ("first", "then", "news"),
    [
        ((NEW, 0.0, 5), (NEW, 0.0, 5), True),  # a word that is repeated does no harm
        ((NEW, 0.0, 5), (NEW, 0.0, 4), False),
        ((PART, 1.0, 5), (NEW, 0.0, 9), False),  # has not filled less later
        ((PART, 1.0, 5), (PART, 1.0, 5), True),
        ((PART, 1.0, 5), (PART, 1.5, 6), True),
        ((PART, 1.0, 5), (CANCELED, 1.0, 5), True),
        ((PART, 1.0, 5), (CANCELED, 0.0, 4), True),  # it has ended, whatever it forgets to say
        ((CANCELED, 0.0, 5), (NEW, 0.0, 9), False),
        ((CANCELED, 0.0, 5), (PART, 1.0, 9), False),
        ((CANCELED, 0.0, 5), (CANCELED, 0.0, 9), False),
        ((CANCELED, 0.0, 5), (CANCELED, 1.0, 5), True),  # and had filled: those fills are missing
        ((CANCELED, 1.0, 5), (FILLED, 2.0, 6), True),
        ((FILLED, 2.0, 5), (CANCELED, 2.0, 6), False),
    ],
)
def test_which_word_is_news(first, then, news):
    order = ours()
    assert hear(order, told(*first))
    assert hear(order, told(*then)) is news


WORDS = st.lists(
    st.builds(
        told,
        st.sampled_from(list(OrderStatus)),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        st.integers(0, 5),
    ),
    max_size=12,
)


@given(WORDS)
def test_states_never_run_backwards(words):
    order = ours()
    heard = []
    for word in words:
        before = (order.ended is not None, order.told_filled, order.told_ms)
        if hear(order, word):
            heard.append(word)
        after = (order.ended is not None, order.told_filled, order.told_ms)
        assert all(a >= b for a, b in zip(after, before, strict=True))
    # Open ones come in order, and none after the end.
    ends = [word.status.final for word in heard]
    assert ends == sorted(ends)
    still = [(word.filled_qty, word.ts_ms) for word in heard if not word.status.final]
    assert still == sorted(still)
    # Once it has ended, only what it had filled by then is news.
    last = [word.filled_qty for word in heard if word.status.final][1:]
    assert all(a < b for a, b in itertools.pairwise(last))


@given(st.permutations([told(NEW, 0.0, 1), told(PART, 0.5, 2), told(PART, 1.0, 3),
                        told(CANCELED, 1.0, 4)]))  # fmt: skip
def test_in_whatever_order_they_come_the_last_word_is_the_last(words):
    order = ours()
    for word in words + words:
        hear(order, word)
    assert (order.ended, order.told_filled, order.told_ms) == (CANCELED, 1.0, 4)
