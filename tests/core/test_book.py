"""The order book against its twin, recorded streams, the rules' vectors, and bad input."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.book import BookEvent, L2Book
from tests.reference.book_twin import BookTwin

BIDS = [["99.5", "20"], ["99.0", "3"]]
ASKS = [["100.5", "6"], ["101.0", "7"]]


def pairs(levels: Any) -> list[tuple[float, float]]:
    return [(float(level["price"]), float(level["qty"])) for level in levels]


def best(book: L2Book, n: int = 100_000) -> tuple[list[tuple[float, float]], ...]:
    return tuple(pairs(side) for side in book.depth(n))


def started(update_id: int = 100, **changes: Any) -> L2Book:
    book = L2Book(**changes)
    assert book.snapshot(BIDS, ASKS, update_id) is BookEvent.APPLIED
    return book


def is_empty(book: L2Book) -> bool:
    nothing = (book.in_step, book.update_id, book.bid_qty, book.ask_qty) == (False, -1, 0.0, 0.0)
    return nothing and math.isnan(book.bid) and math.isnan(book.ask) and best(book) == ([], [])


# --- by hand ---


def test_a_new_book_is_empty_and_takes_no_event() -> None:
    book = L2Book()
    assert is_empty(book)
    assert book.on_binance(1, 2, 0, BIDS, ASKS) is BookEvent.GAP
    assert book.on_bybit(2, BIDS, ASKS, snapshot=False) is BookEvent.GAP
    assert is_empty(book)


def test_changes_replace_insert_and_remove() -> None:
    book = started()
    assert (book.bid, book.bid_qty, book.ask, book.ask_qty) == (99.5, 20.0, 100.5, 6.0)
    changes = [["99.5", "0"], ["99.25", "1"], ["99.0", "4"], ["90", "0"]], [["100.0", "2"]]
    assert book.on_bybit(101, *changes, snapshot=False) is BookEvent.APPLIED
    assert best(book) == (
        [(99.25, 1.0), (99.0, 4.0)],
        [(100.0, 2.0), (100.5, 6.0), (101.0, 7.0)],
    )
    assert (book.in_step, book.update_id) == (True, 101)
    assert best(book, 1) == ([(99.25, 1.0)], [(100.0, 2.0)])
    assert best(book, 0) == ([], [])


def test_one_side_may_be_empty() -> None:
    book = L2Book()
    assert book.snapshot(BIDS, [], 1) is BookEvent.APPLIED
    assert (book.bid, book.ask_qty) == (99.5, 0.0)
    assert math.isnan(book.ask)


@pytest.mark.parametrize("ask", ["99.5", "99.0"])
def test_a_crossed_book_is_no_book(ask: str) -> None:
    book = started()
    assert book.on_binance(99, 101, 98, [], [[ask, "1"]]) is BookEvent.CROSSED
    assert is_empty(book)
    assert book.on_binance(102, 103, 101, [], []) is BookEvent.GAP
    assert book.snapshot([["100", "1"]], [["100", "1"]], 5) is BookEvent.CROSSED
    assert is_empty(book)
    assert book.snapshot(BIDS, ASKS, 6) is BookEvent.APPLIED


def test_a_level_that_moves_through_the_other_side_within_an_event_is_fine() -> None:
    book = started()
    moved = [["100.75", "1"]], [["100.5", "0"]]
    assert book.on_bybit(101, *moved, snapshot=False) is BookEvent.APPLIED
    assert (book.bid, book.ask) == (100.75, 101.0)


def test_after_a_loss_it_waits_for_a_snapshot() -> None:
    book = started()
    book.discard()
    assert is_empty(book)
    assert book.on_binance(99, 101, 98, [], []) is BookEvent.GAP


def test_past_the_most_levels_the_worst_go() -> None:
    book = L2Book(max_levels=3)
    book.snapshot([[str(p), "1"] for p in range(99, 94, -1)], [["100", "1"]], 1)
    assert best(book)[0] == [(99.0, 1.0), (98.0, 1.0), (97.0, 1.0)]
    book.on_bybit(2, [["94", "1"], ["98.5", "2"]], [], snapshot=False)
    assert best(book)[0] == [(99.0, 1.0), (98.5, 2.0), (98.0, 1.0)]
    with pytest.raises(ValueError, match="max_levels must be >= 1"):
        L2Book(max_levels=0)


def test_binance_by_an_event_that_ends_before_it_begins() -> None:
    book = started()
    assert book.on_binance(103, 102, 99, [], []) is BookEvent.GAP


def test_bybit_u_of_one_is_a_snapshot_whatever_it_is_called() -> None:
    book = started()
    assert book.on_bybit(1, [["50", "1"]], [["51", "1"]], snapshot=False) is BookEvent.APPLIED
    assert best(book) == ([(50.0, 1.0)], [(51.0, 1.0)])
    assert book.on_bybit(2, [], [["51", "2"]], snapshot=False) is BookEvent.APPLIED
    assert book.on_bybit(2, [], [], snapshot=False) is BookEvent.GAP
    assert is_empty(book)


# --- bad input ---


@pytest.mark.parametrize(
    "levels",
    [
        [["1e2", "1"]], [["-1", "1"]], [["+1", "1"]], [["", "1"]], [[".", "1"]], [["1.2.3", "1"]],
        [["nan", "1"]], [["inf", "1"]], [["1_0", "1"]], [[" 1", "1"]], [["٣", "1"]], [["0", "1"]],
        [["0.00", "1"]], [["1", "-1"]], [["1", "x"]], [["9" * 400, "1"]], [[1, "1"]], [["1", None]],
        [[math.nan, 1.0]], [[math.inf, 1.0]], [[0.0, 1.0]], [[-1.0, 1.0]], [[1.0, math.nan]],
        [[1.0, math.inf]], [[1.0, -1.0]], [["1"]], [["1", "1", "1"]], ["11"], [None], "11", None,
        {"1": "1"}, np.zeros((1, 2)), np.array([[1.0, -1.0]]), np.array([[math.nan, 1.0]]),
        np.ones((1, 3)), np.ones(2), np.ones((1, 2), int), np.ones((2, 4))[:, ::2],
        [["50", "1"], ["60", "0"], ["60", "1", "1"]],
    ],
    ids=lambda levels: f"{levels!s:.30}",
)  # fmt: skip
def test_what_is_no_level_raises_and_changes_nothing(levels: Any) -> None:
    book = started()
    before = best(book)
    for call in (
        lambda: book.snapshot(levels, [], 7),
        lambda: book.snapshot([], levels, 7),
        lambda: book.on_binance(99, 101, 98, [["98", "1"]], levels),
        lambda: book.on_bybit(101, levels, [["103", "1"]], snapshot=False),
    ):
        with pytest.raises(ValueError, match=r"must|were|was|mismatch|dimensions|contiguous"):
            call()
        assert (best(book), book.update_id, book.in_step) == (before, 100, True)
    assert book.on_bybit(101, [], [], snapshot=False) is BookEvent.APPLIED


def test_refuses_a_negative_depth() -> None:
    with pytest.raises(ValueError, match="n must be >= 0"):
        started().depth(-1)


@given(st.decimals(0, 10**9, places=8, allow_nan=False) | st.decimals(0, 10**18, places=18))
def test_a_text_is_the_double_it_parses_to(value: Decimal) -> None:
    text = f"{value:f}"
    book = L2Book()
    if float(text) == 0.0:
        return
    book.snapshot([[text, text]], [], 1)
    assert best(book) == ([(float(text), float(text))], [])


def test_arrays_are_levels_too() -> None:
    book = L2Book()
    book.snapshot(np.array([[99.0, 1.0], [98.0, 2.0]]), np.empty((0, 2)), 1)
    assert best(book) == ([(99.0, 1.0), (98.0, 2.0)], [])


# --- against the twin ---

SIDE = st.lists(st.tuples(st.integers(1, 40).map(float), st.integers(0, 3).map(float)), max_size=30)


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["snapshot", "binance", "binance", "bybit", "bybit", "discard"]),
            SIDE, SIDE, st.integers(-1, 3), st.integers(0, 3), st.booleans(),
        ),
        max_size=30,
    ),
    max_levels=st.sampled_from([1, 3, 10, 10_000]),
    apart=st.sampled_from([0.0, 38.0]),
)  # fmt: skip
def test_whatever_happens_it_is_what_the_twin_is(
    events: list[Any], max_levels: int, apart: float
) -> None:
    book, twin = L2Book(max_levels), BookTwin(max_levels)
    last = 5
    for kind, bids, asks, off, width, flag in events:
        # Far enough apart that most books are not crossed.
        asks = [(price + apart, qty) for price, qty in asks]
        if kind == "discard":
            book.discard()
            twin.discard()
            continue
        if kind == "snapshot":
            got, want = (x.snapshot(bids, asks, last + off) for x in (book, twin))
        elif kind == "binance":
            event = (last - width + 1, last + off, last if flag else last - 1, bids, asks)
            got, want = (x.on_binance(*event) for x in (book, twin))
        else:
            snapshot = width == 0
            got, want = (
                x.on_bybit(last + off, bids, asks, snapshot=snapshot) for x in (book, twin)
            )
        assert BookEvent(got).name == want
        assert best(book) == twin.best()
        assert book.update_id == (-1 if twin.update_id is None else twin.update_id)
        assert book.in_step == (twin.update_id is not None)
        last = last if twin.update_id is None else twin.update_id


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 2)), max_size=400), st.booleans())
def test_deep_books_are_sorted(changes: list[tuple[int, int]], flag: bool) -> None:
    book, twin = L2Book(), BookTwin()
    for x in (book, twin):
        x.snapshot([(float(p), 1.0) for p in range(2900, 0, -2)], [], 1)
        x.on_bybit(2, [(float(p), float(q)) for p, q in changes], [], snapshot=flag)
    assert best(book) == twin.best()


# --- the rules' vectors ---


@pytest.mark.real_data
def test_the_vectors_of_binances_rules(shared: Path) -> None:
    cases = json.loads((shared / "vectors" / "sequences.json").read_text())["binance_depth_rules"]
    assert cases
    words = {"drop": "DROPPED", "apply_first": "APPLIED", "apply": "APPLIED", "resync": "GAP"}
    for case in cases:
        book = L2Book()
        book.snapshot([], [], case["lastUpdateId"])
        got = [book.on_binance(e["U"], e["u"], e["pu"], [], []).name for e in case["events"]]
        assert got == [words[word.split(" ")[0]] for word in case["expect"]], case["name"]


@pytest.mark.real_data
def test_the_vectors_of_bybits_order_book(shared: Path) -> None:
    cases = json.loads((shared / "vectors" / "sequences.json").read_text())["bybit_orderbook"]
    assert cases
    book = L2Book()
    for case in cases:
        for message in case["messages"]:
            data = message["data"]
            snapshot = message["type"] == "snapshot"
            event = book.on_bybit(data["u"], data["b"], data["a"], snapshot=snapshot)
            assert event is BookEvent.APPLIED
        if "expect_bids" in case:
            want = (case["expect_bids"], case["expect_asks"])
            assert best(book) == tuple([(float(p), float(q)) for p, q in side] for side in want)


# --- recorded streams ---


def depth_events(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            at = line.find("{")
            if '"depthUpdate"' in line:
                yield json.loads(line[at:])["data"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name", ["binance_usdm-2021-04-17.ws.gz", "binance_usdm-BTCUSDT-2023-04-04.ws.gz"]
)
def test_binances_recorded_chain_is_unbroken_and_never_crossed(real_data: Path, name: str) -> None:
    books: dict[str, tuple[L2Book, BookTwin]] = {}
    n = 0
    for event in depth_events(real_data / "ws" / name):
        # No snapshot was recorded: one of nothing, as of the first event's end.
        if event["s"] not in books:
            books[event["s"]] = pair = L2Book(), BookTwin()
            for x in pair:
                x.snapshot([], [], event["u"])
        book, twin = books[event["s"]]
        arguments = event["U"], event["u"], event["pu"], event["b"], event["a"]
        assert book.on_binance(*arguments) is BookEvent.APPLIED
        assert twin.on_binance(*arguments) == "APPLIED"
        n += 1
        if n % 20 == 0:
            assert best(book) == twin.best()
    assert n > 300
    for book, twin in books.values():
        assert best(book) == twin.best()
        assert book.bid < book.ask


@pytest.mark.real_data
def test_bybits_recorded_chain_is_unbroken_and_never_crossed(real_data: Path) -> None:
    books: dict[Any, tuple[L2Book, BookTwin]] = {}
    n = 0
    with gzip.open(real_data / "ws" / "bybit_v5_linear-2026-08-09.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            if record["t"] != "recv" or '"topic":"orderbook.' not in record["data"]:
                continue
            message = json.loads(record["data"])
            data, snapshot = message["data"], message["type"] == "snapshot"
            book, twin = books.setdefault(
                (record["conn"], message["topic"]), (L2Book(), BookTwin())
            )
            for x in (book, twin):
                event = x.on_bybit(data["u"], data["b"], data["a"], snapshot=snapshot)
                assert event in (BookEvent.APPLIED, "APPLIED")
            n += 1
            if n % 20 == 0:
                assert best(book) == twin.best()
    assert n > 2_000
    for book, twin in books.values():
        assert best(book) == twin.best()
        # A topic of 200 levels a side holds no more.
        assert max(map(len, best(book))) <= 200
