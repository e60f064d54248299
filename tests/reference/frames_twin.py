"""What the frame scanners must see, by the json module and decimals: slow, and plain to read.

`binance_says` and `bybit_says` read any JSON and return what a frame says, or None when it is none
that a bot can use, or names twice a key that matters. A scanner that takes a frame must agree with
them; it may refuse what is not `usual`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any


class Members(dict[str, Any]):
    """An object, and which of its keys came more than once."""

    twice: frozenset[str]


def members(pairs: list[tuple[str, Any]]) -> Members:
    found = Members(pairs)
    keys = [key for key, _ in pairs]
    found.twice = frozenset(key for key in keys if keys.count(key) > 1)
    return found


def object_of(frame: bytes) -> Any:
    """Decode a frame; None when it is not JSON as the standard has it."""

    def no_constant(word: str) -> None:
        raise ValueError(word)

    try:
        return json.loads(
            frame.decode(),
            parse_float=Decimal,
            parse_constant=no_constant,
            object_pairs_hook=members,
        )
    except (ValueError, RecursionError):
        return None


def plain(text: Any) -> float | None:
    """Return the double nearest to a plain decimal text of few enough digits."""
    if not isinstance(text, str) or not text.isascii():
        return None
    before, point, after = text.partition(".")
    if not before.isdigit() or (point and not after.isdigit()):
        return None
    if len(before) + len(after) > 18 or int(before + after) > 2**53:
        return None
    return float(Decimal(text))


def count(value: Any) -> int | None:
    """Return a whole number >= 0 that fits 18 digits."""
    return value if type(value) is int and 0 <= value < 10**18 else None


def binance_says(frame: bytes, symbol: str) -> tuple[Any, ...] | None:
    """Return the fields of an aggTrade or bookTicker of ``symbol``, else None."""
    data = object_of(frame)
    if isinstance(data, Members) and set(data) == {"stream", "data"} and not data.twice:
        data = data["data"]
    if not isinstance(data, Members) or data.get("s") != symbol or data.get("st", 1) != 1:
        return None
    times = (count(data.get("T")), count(data.get("E")))
    if data.get("e") == "aggTrade":
        price, qty = plain(data.get("p")), plain(data.get("q"))
        maker = data.get("m") if isinstance(data.get("m"), bool) else None
        said = ("trade", count(data.get("a")), price, qty, *times, maker)
        doubtful = (
            None in said or data.twice & {*"eEsapqTm", "st"} or type(data.get("st", 1)) is not int
        )
        return None if doubtful or not (price and qty) else said
    if data.get("e") == "bookTicker":
        levels = [plain(data.get(k)) for k in "bBaA"]
        said = ("quote", count(data.get("u")), *levels, *times)
        if None in said or data.twice & {*"eusbBaATE", "st"} or type(data.get("st", 1)) is not int:
            return None
        if not 0.0 < levels[0] < levels[2]:  # type: ignore[operator]
            return None
        return said
    return None


def bybit_says(frame: bytes, symbol: str) -> tuple[Any, ...] | None:
    """Return the rows of a publicTrade, or the prices of an orderbook.1, of ``symbol``."""
    message = object_of(frame)
    if not isinstance(message, Members) or message.get("type") != "snapshot":
        return None
    if message.twice & {"topic", "type", "ts", "cts", "data"}:
        return None
    ts = count(message.get("ts"))
    data = message.get("data")
    if message.get("topic") == f"publicTrade.{symbol}" and isinstance(data, list) and data:
        rows = [_bybit_row(row, symbol) for row in data]
        return None if None in rows or ts is None or len(rows) > 1024 else ("trades", *rows)
    if message.get("topic") == f"orderbook.1.{symbol}" and isinstance(data, Members):
        if data.get("s") != symbol or data.twice & {*"sbau"}:
            return None
        sides = []
        for key in "ba":
            levels = data.get(key)
            if not isinstance(levels, list) or len(levels) != 1 or not isinstance(levels[0], list):
                return None
            if len(levels[0]) != 2:
                return None
            sides += [plain(levels[0][0]), plain(levels[0][1])]
        cts = count(message["cts"]) if "cts" in message else ts
        said = ("quote", count(data.get("u")), *sides, cts, ts)
        if None in said or not (0.0 < sides[0] < sides[2] and sides[1] and sides[3]):  # type: ignore[operator]
            return None
        return said[:-1]
    return None


def _bybit_row(row: Any, symbol: str) -> tuple[Any, ...] | None:
    if not isinstance(row, Members) or row.twice & {*"TsSvpi", "BT", "seq"}:
        return None
    if row.get("s") != symbol or row.get("S") not in ("Buy", "Sell"):
        return None
    id = row.get("i")
    if not isinstance(id, str) or not 0 < len(id) <= 36:
        return None
    block = row.get("BT", False)
    said = (
        id, plain(row.get("p")), plain(row.get("v")), count(row.get("T")), row["S"] == "Sell",
        count(row.get("seq", 0)), block if isinstance(block, bool) else None,
    )  # fmt: skip
    return None if None in said or not (said[1] and said[2]) else said


def usual(frame: bytes) -> bool:
    """Whether a frame is written as the venues write: no blanks, escapes or numbers of other kinds.

    Nested values only where they belong; whole numbers and quoted decimals only.
    """
    if not frame.isascii() or any(c in b" \t\r\n\\" or c < 32 or c == 127 for c in frame):
        return False
    return not any(word in frame for word in (b"e+", b"E+", b"e-", b"E-"))
