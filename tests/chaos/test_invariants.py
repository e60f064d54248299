"""The checker must see what is wrong: a record that is right, bent in one place at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from passivx.config import load_config
from passivx.live.journal import Entry
from passivx.models import Market
from tests.chaos.invariants import Line, Span, Subject, check_all
from tests.chaos.tier2_plans import BUSY

MARKET = Market(
    price_step=0.1,
    qty_step=0.001,
    min_qty=0.001,
    min_cost=5.0,
    maker_fee=0.0002,
    taker_fee=0.0005,
    max_leverage=125.0,
    inverse=False,
)
SUBJECT = Subject(
    exchange="binance",
    config=load_config(BUSY | {"symbol": "BTCUSDT"}),
    market=MARKET,
    wallet=1000.0,
    spans=[Span(12, 99, "after the stop")],
)


def order(ts_ms: int, number: int, kind: str, side: str, price: float, qty: float) -> Line:
    return {
        "event": "order",
        "ts_ms": ts_ms,
        "client_id": f"pvx-{kind}-abc-{number}",
        "order_id": str(number),
        "side": side,
        "price": price,
        "qty": qty,
        "reduce_only": kind == "c",
        "post_only": True,
        "status": "accepted",
        "code": None,
    }


def fill(ts_ms: int, number: int, kind: str, side: str, price: float, qty: float) -> Line:
    return {
        "event": "fill",
        "ts_ms": ts_ms,
        "trade_id": 100 + number,
        "client_id": f"pvx-{kind}-abc-{number}",
        "order_id": str(number),
        "side": side,
        "price": price,
        "qty": qty,
        "fee": -0.01,
        "maker": True,
        "position": 0.0,
        "wallet": 1000.0,
    }


def request(ts_ms: int, method: str, path: str, status: int = 200, code: Any = None) -> Line:
    return {
        "event": "request",
        "ts_ms": ts_ms,
        "channel": "rest",
        "method": method,
        "path": path,
        "params": {},
        "status": status,
        "code": code,
    }


def record() -> tuple[list[Line], list[Entry]]:
    """An entry that filled, a re-entry and a close beside it, one of which filled too."""
    lines = [
        request(1000, "GET", "/fapi/v1/time"),
        order(2000, 1, "e", "buy", 50_000.0, 0.002),
        order(2000, 2, "e", "sell", 50_100.0, 0.002),
        fill(3000, 1, "e", "buy", 50_000.0, 0.002) | {"position": 0.002},
        {"event": "cancel", "ts_ms": 3001, "client_id": "pvx-e-abc-2", "order_id": "2"}
        | {"reason": "user"},
        order(3002, 3, "r", "buy", 49_900.0, 0.003),
        order(3002, 4, "c", "sell", 50_100.0, 0.002),
        {"event": "funding", "ts_ms": 3500, "amount": -0.02, "wallet": 999.97},
        fill(4000, 4, "c", "sell", 50_100.0, 0.002),
        {"event": "cancel", "ts_ms": 4001, "client_id": "pvx-r-abc-3", "order_id": "3"}
        | {"reason": "user"},
        order(5000, 5, "e", "buy", 50_050.0, 0.002),
        {"event": "cancel", "ts_ms": 6001, "client_id": "pvx-e-abc-5", "order_id": "5"}
        | {"reason": "user"},
        request(6000, "DELETE", "/fapi/v1/order"),
    ]
    entries: list[Entry] = []
    for line in lines:
        side = 1 if line.get("side") == "buy" else -1
        at = line["ts_ms"]
        if line["event"] == "order":
            body = {name: line[name] for name in ("price", "qty", "reduce_only")}
            body |= {"side": side, "ideal_price": line["price"], "at_market": False}
            entries.append(Entry(len(entries), at - 1, "intent", line["client_id"], body))
        elif line["event"] == "fill":
            body = {name: line[name] for name in ("price", "qty", "fee")} | {"side": side}
            entries.append(Entry(len(entries), at + 1, "fill", str(line["trade_id"]), body))
        elif line["event"] == "funding":
            entries.append(Entry(len(entries), at, "payment", "1", {"amount": line["amount"]}))
    return lines, entries


def meant(entries: list[Entry], number: int) -> dict[str, Any]:
    """The body of that order's intent."""
    return next(e.body for e in entries if e.key.endswith(f"abc-{number}"))


def test_what_is_right_is_right() -> None:
    lines, entries = record()
    assert check_all(lines, entries, SUBJECT) == []


def _again(lines: list[Line], entries: list[Entry]) -> None:
    lines.insert(7, copy.deepcopy(lines[5]) | {"order_id": "33"})


def _huge(lines: list[Line], entries: list[Entry]) -> None:
    lines[5]["qty"] = meant(entries, 3)["qty"] = 0.05


def _second_in_slot(lines: list[Line], entries: list[Entry]) -> None:
    lines.insert(7, order(3003, 6, "r", "buy", 49_899.0, 0.003))
    body = meant(entries, 3) | {"price": 49_899.0}
    entries.append(Entry(50, 3002, "intent", "pvx-r-abc-6", body))


def _second_entry(lines: list[Line], entries: list[Entry]) -> None:
    lines.insert(3, order(2500, 6, "e", "sell", 50_200.0, 0.002))
    body = meant(entries, 2) | {"price": 50_200.0, "ideal_price": 50_200.0}
    entries.append(Entry(50, 2499, "intent", "pvx-e-abc-6", body))


def _never_meant(lines: list[Line], entries: list[Entry]) -> None:
    del entries[0]


def _meant_late(lines: list[Line], entries: list[Entry]) -> None:
    entries[0] = Entry(0, 2001, "intent", entries[0].key, entries[0].body)


def _other_price(lines: list[Line], entries: list[Entry]) -> None:
    meant(entries, 1)["price"] = 50_001.0


def _lost_fill(lines: list[Line], entries: list[Entry]) -> None:
    entries[:] = [entry for entry in entries if entry.key != "104"]


def _made_up_fill(lines: list[Line], entries: list[Entry]) -> None:
    entries.append(Entry(50, 4000, "fill", "999", meant(entries, 3) | {"fee": 0.0}))


def _twice(lines: list[Line], entries: list[Entry]) -> None:
    entries += [entry for entry in entries if entry.type == "fill"]


def _unpaid(lines: list[Line], entries: list[Entry]) -> None:
    entries[:] = [entry for entry in entries if entry.type != "payment"]


def _enlarged(lines: list[Line], entries: list[Entry]) -> None:
    lines[8]["position"] = -0.002


def _taker(lines: list[Line], entries: list[Entry]) -> None:
    lines[8]["maker"] = False


def _late_create(lines: list[Line], entries: list[Entry]) -> None:
    lines.append(order(7000, 1, "e", "buy", 50_000.0, 0.002) | {"status": "rejected"})


def _stale(lines: list[Line], entries: list[Entry]) -> None:
    stall = {"do": "ws.stall", "args": {"channel": "market"}}
    lines.insert(1, {"event": "fault", "ts_ms": -10_000, **stall})


def _unfit(lines: list[Line], entries: list[Entry]) -> None:
    lines[10] |= {"status": "rejected", "code": -4014}
    del lines[11]


def _limited(lines: list[Line], entries: list[Entry]) -> None:
    lines.append(request(7000, "GET", "/fapi/v1/openOrders", 429, -1003))


def _impatient(lines: list[Line], entries: list[Entry]) -> None:
    args = {"status": 429, "headers": {"Retry-After": "5"}}
    lines[1:1] = [
        {"event": "fault", "ts_ms": 1100, "do": "rest.reply", "args": args},
        request(1100, "GET", "/fapi/v1/openOrders", 429, -1003),
    ]


def _stubborn(lines: list[Line], entries: list[Entry]) -> None:
    lines += [request(7000 + i, "GET", "/fapi/v1/openOrders", 400, -1100) for i in range(4)]


def _not_ours(lines: list[Line], entries: list[Entry]) -> None:
    lines[9]["client_id"] = "web_1"


@pytest.mark.parametrize(
    ("bend", "invariant"),
    [
        (_huge, "I1"),
        (_again, "I2"),
        (_second_in_slot, "I2"),
        (_second_entry, "I2"),
        (_never_meant, "I3"),
        (_meant_late, "I3"),
        (_other_price, "I3"),
        (_lost_fill, "I4"),
        (_made_up_fill, "I4"),
        (_twice, "I4"),
        (_unpaid, "I4"),
        (_enlarged, "I7"),
        (_taker, "I8"),
        (_late_create, "I9"),
        (_stale, "I10"),
        (_unfit, "I11"),
        (_limited, "I12"),
        (_impatient, "I12"),
        (_stubborn, "I12"),
        (_not_ours, "I13"),
    ],
)
def test_what_is_wrong_is_seen(
    bend: Callable[[list[Line], list[Entry]], None], invariant: str
) -> None:
    lines, entries = record()
    bend(lines, entries)
    assert invariant in {each.invariant for each in check_all(lines, entries, SUBJECT)}


def test_an_order_whose_end_is_told_before_it_is_not_live() -> None:
    """Bybit's post-only orders, and what fills at once, end before their own line."""
    lines, entries = record()
    entries.append(Entry(50, 4999, "intent", "pvx-e-abc-6", meant(entries, 5)))
    lines[10:10] = [
        lines[11] | {"client_id": "pvx-e-abc-6", "order_id": "6"},
        order(5000, 6, "e", "buy", 50_050.0, 0.002),
    ]
    found = check_all(lines, entries, replace(SUBJECT, spans=[]))
    assert found == []
