"""The ledger: what a line says, what it never says, and where lines go."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.simulator.ledger import Ledger
from passivx.simulator.venue import TimeInForce
from tests.simulator.worlds import START_MS, world

SECRET = "5ecre7" * 8


def ledger(path: Path | None = None) -> Ledger:
    return Ledger(VirtualClock(START_MS), path)


def test_a_line_has_both_times() -> None:
    w = world()
    w.order("a", 1, 1.0, 98.0)
    w.ledger.append("fault", do="nothing")
    w.sold_at(99.0, ts=1_600_000_000_000)
    w.clock.advance(5)
    w.ledger.append("fault", do="nothing")
    assert w.ledger.entries() == [
        {"event": "fault", "ts_ms": START_MS, "replay_ts_ms": None, "do": "nothing"},
        {
            "event": "fault",
            "ts_ms": START_MS + 5,
            "replay_ts_ms": 1_600_000_000_000,
            "do": "nothing",
        },
    ]


def test_an_order_is_told_as_it_was_then() -> None:
    w = world()
    w.ledger.order_text = lambda number: f"#{number}"
    order = w.order("a", 1, 2.0, 98.0)
    w.ledger.order(order, True, 0, "ws")
    w.venue.amend(order, qty=3.0)
    w.ledger.order({"client_id": "b", "side": -1, "qty": 0.5}, False, -1111)
    w.ledger.order(w.order("c", -1, 1.0, 110.0, tif=TimeInForce.GTC), True)
    first, second, third = w.ledger.entries("order")
    assert first == {
        "event": "order",
        "ts_ms": START_MS,
        "replay_ts_ms": None,
        "client_id": "a",
        "order_id": f"#{order.order_id}",
        "side": "buy",
        "price": 98.0,
        "qty": 2.0,
        "reduce_only": False,
        "post_only": True,
        "status": "accepted",
        "code": 0,
        "channel": "ws",
    }
    assert second == {
        **first,
        "client_id": "b",
        "order_id": None,
        "side": "sell",
        "price": None,
        "qty": 0.5,
        "reduce_only": None,
        "post_only": None,
        "status": "rejected",
        "code": -1111,
        "channel": "rest",
    }
    assert (third["post_only"], third["code"]) == (False, None)


def test_a_fill_says_what_it_left() -> None:
    w = world()
    order = w.order("a", 1, 2.0, 98.0)
    w.sold_at(97.0)
    (line,) = w.ledger.entries("fill")
    (execution,) = w.venue.executions
    assert line == {
        "event": "fill",
        "ts_ms": START_MS,
        "replay_ts_ms": START_MS,
        "trade_id": 1,
        "exec_id": execution.exec_id,
        "order_id": str(order.order_id),
        "client_id": "a",
        "side": "buy",
        "price": 98.0,
        "qty": 2.0,
        "fee": -0.196,
        "pnl": 0.0,
        "maker": True,
        "kind": "trade",
        "position": 2.0,
        "wallet": w.venue.wallet,
    }


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/fapi/v1/order", {"symbol": "BTCUSDT", "signature": SECRET}),
        ("/fapi/v1/order?signature=" + SECRET, {}),
        ("/private/ws/" + SECRET, {}),
        ("/fapi/v1/listenKey", {"listenKey": SECRET}),
        ("/v5/order/create", {"header": {"X-BAPI-SIGN": SECRET, "X-BAPI-API-KEY": SECRET}}),
        (
            "/ws-fapi/v1",
            {"id": 1, "params": {"apiKey": SECRET, "signature": SECRET, "side": "BUY"}},
        ),
        ("/v5/trade", {"args": [{"api_key": SECRET}, {"listenkey": SECRET}]}),
    ],
)
def test_nothing_that_gives_access_is_in_a_request(path: str, params: dict[str, Any]) -> None:
    book = ledger()
    book.request("POST", path, params, channel="rest", status=200, code=0)
    (line,) = book.since()
    assert SECRET not in line.decode()
    written = orjson.loads(line)
    assert written["event"] == "request"
    assert written["path"].startswith(path.split("?")[0][:8])
    assert (written["method"], written["channel"], written["status"], written["code"]) == (
        "POST",
        "rest",
        200,
        0,
    )
    assert "BTCUSDT" in line.decode() or "symbol" not in params


TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.decimals()),
    lambda parts: st.one_of(st.lists(parts), st.dictionaries(TEXT, parts)),
    max_leaves=8,
)


DEEP: Any = []
for _ in range(300):  # orjson writes 254 levels, and reads more
    DEEP = [DEEP]


@example(params={"a": DEEP, "\ud800": ["\ud800", 1 << 64]}, side=DEEP)
@settings(deadline=None)
@given(params=st.dictionaries(TEXT, ODD), side=ODD)
def test_whatever_was_sent_is_a_line(params: dict[str, Any], side: Any) -> None:
    book = ledger()
    book.request("POST", "/x", params, channel="ws", status=400)
    book.order({"side": side, "qty": Decimal("NaN")}, False, -1)
    for line in book.since():
        assert line.count(b"\n") == 1
        orjson.loads(line)


def test_what_json_does_not_hold_is_told_as_text_and_the_rest_as_it_is() -> None:
    book = ledger()
    nested = {"a": ["\ud800", 5, 1 << 64, {"b": DEEP}]}
    book.request("POST", "/x", nested, channel="ws", status=400)
    book.order({"side": DEEP, "qty": 5, "client_id": "\ud800"}, False, -1)
    request, order = book.entries()
    text, small, large, deep = request["params"]["a"]
    assert (text, small, large) == ("\\ud800", 5, str(1 << 64))
    assert (order["client_id"], order["qty"], order["status"]) == ("\\ud800", 5, "rejected")
    for shown in (deep["b"], order["side"]):
        assert 10 < str(shown).count("[") <= 20
        assert "(hidden)" in str(shown)


def test_lines_are_polled_from_where_one_was() -> None:
    book = ledger()
    for i in range(5):
        book.append("fault", i=i)
    assert len(book) == 5
    assert [orjson.loads(line)["i"] for line in book.since(3)] == [3, 4]
    assert list(book.since(5)) == []
    assert len(list(book.since(-2))) == 5


def test_a_file_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    book = ledger(path)
    for i in range(1500):
        book.append("fault", i=i)
    assert 0 < len(path.read_bytes().splitlines()) < 1500
    book.flush()
    assert path.read_bytes() == b"".join(book.since())
    assert len(path.read_bytes().splitlines()) == 1500
    book.append("fault", i=-1)
    book.close()
    book.close()
    book.append("fault", i=-2)
    assert [orjson.loads(line)["i"] for line in path.read_bytes().splitlines()][-2:] == [1499, -1]
    assert len(book) == 1502


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        ledger(tmp_path / "nowhere" / "ledger.jsonl")
