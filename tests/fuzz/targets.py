"""What is fuzzed: everything that reads bytes a venue sent.

A target takes bytes and raises nothing but `AssertionError` when a promise is broken: no exception
but the typed one, every accepted number finite, fast and slow reading agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import orjson

from passivx._core.book import L2Book
from passivx._core.frames import OTHER, QUOTE, TRADE, BinanceFrames, BybitFrames
from passivx.errors import BadReplyError, VenueError
from passivx.exchanges.base import Fill, Reaction, Verdict, decode
from passivx.exchanges.binance import wire as binance
from passivx.exchanges.binance.errors import react as binance_react
from passivx.exchanges.binance.rest import BinanceDialect
from passivx.exchanges.bybit import wire as bybit
from passivx.exchanges.bybit.errors import _HTTP, _TABLE
from passivx.exchanges.bybit.rest import BybitDialect
from passivx.exchanges.http import Answer, Request
from passivx.models import Position, Tier
from tests.reference.frames_twin import binance_says, bybit_says

SYMBOL = "BTCUSDT"
TIER = Tier(floor=0.0, maintenance_rate=0.004, max_leverage=75)


def finite(value: Any) -> bool:
    """Whether every number is finite, but for what an event does not say: it is NaN then.

    That is a fill's pnl, and the liquidation price of a position.
    """
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    if is_dataclass(value) and not isinstance(value, type):
        return all(
            finite(getattr(value, f.name))
            for f in fields(value)
            if not (isinstance(value, Fill | Position) and f.name in ("pnl", "liq_price"))
        )
    return True


def frames(data: bytes) -> None:
    """Scanners: what they take is what the json module and the clients' slow way read."""
    fast = BinanceFrames(SYMBOL)
    if (kind := fast.scan(data)) != OTHER:
        said = binance_says(data, SYMBOL)
        message = binance.decode(data)
        assert said is not None
        if kind == TRADE:
            seen = (fast.trade_id, fast.price, fast.qty, fast.ts_ms)
            trade = binance.aggregate_of(message)
            assert (int(trade.trade_id), trade.price, trade.qty, trade.ts_ms) == seen
            assert trade.buyer_maker is fast.buyer_maker
            assert said[1:5] == seen
        else:
            seen = (fast.update_id, fast.bid, fast.bid_qty, fast.ask, fast.ask_qty)
            quote = binance.book_ticker(message)
            slow = (quote.update_id, quote.bid, quote.bid_qty, quote.ask, quote.ask_qty)
            assert said[1:6] == seen == slow
    bybit_fast = BybitFrames(SYMBOL)
    if (kind := bybit_fast.scan(data)) != OTHER:
        said = bybit_says(data, SYMBOL)
        message = decode(data)
        assert said is not None
        if kind == QUOTE:
            prices = (bybit_fast.bid, bybit_fast.bid_qty, bybit_fast.ask, bybit_fast.ask_qty)
            top = bybit.quote_of(message)
            assert said[2:6] == prices == (top.bid, top.bid_qty, top.ask, top.ask_qty)
        else:
            rows = [bybit_fast.trade(i) for i in range(bybit_fast.n_trades)]
            assert [row[:5] for row in said[1:]] == rows
            slow_rows = [
                (t.trade_id, t.price, t.qty, t.ts_ms, t.buyer_maker)
                for t in bybit.stream_trades(message)
            ]
            assert slow_rows == rows


def rows_of(message: Any) -> Iterable[Mapping[str, Any]]:
    """Yield every object in a message, outermost first."""
    if isinstance(message, dict):
        yield message
        for value in message.values():
            yield from rows_of(value)
    elif isinstance(message, list):
        for value in message:
            yield from rows_of(value)


_BYBIT: list[Callable[[Any], Any]] = [
    bybit.order_of,
    bybit.fill_of,
    bybit.payment_of,
    bybit.position_of,
    bybit.public_trade_of,
    bybit.quote_of,
    bybit.rows_in,
    lambda row: list(bybit.stream_trades(row)),
    lambda row: bybit.mark_of(row, 1),
    lambda row: bybit.tiers_of([row]),
    lambda row: bybit.rules_of(row, (), row),
    lambda row: bybit.wallet_of(row, "BTC"),
]


def bybit_messages(data: bytes) -> None:
    """Bybit's rows: read, or refused."""
    try:
        message = decode(data)
    except BadReplyError:
        return
    for row in rows_of(message):
        for read in _BYBIT:
            try:
                got = read(row)
            except BadReplyError:
                continue
            assert isinstance(got, dict | list) or finite(got), (read, got)


def _answer(data: bytes) -> Answer:
    status = 200 if not data else (200, 400, 403, 429, 500, 503, 418, 408)[data[0] % 8]
    body = data[1:]
    try:
        parsed = orjson.loads(body)
    except ValueError:
        parsed = None
    return Answer(status=status, headers={}, body=body, data=parsed, ts_ms=1)


def bybit_answers(data: bytes) -> None:
    """Bybit's answers to an order: REJECTED by the table's codes alone."""
    answer = _answer(data)
    request = Request(method="POST", path="/v5/order/create", costs={"create": 1})
    finding = BybitDialect(None).classify(request, answer)
    if finding.verdict is Verdict.REJECTED:
        code = finding.code
        table = _HTTP.get(answer.status) if code is None else _TABLE.get(code)
        assert table is not None
        assert table[0] is Verdict.REJECTED


_BINANCE: list[Callable[[Any], Any]] = [
    binance.order_of,
    binance.order_event,
    binance.fill_event,
    binance.fill_of,
    binance.payment_of,
    binance.mark_of,
    binance.mark_event,
    binance.aggregate_of,
    binance.book_ticker,
    binance.account_modes,
    lambda row: binance.position_of([row], SYMBOL),
    lambda row: binance.position_event(row, SYMBOL),
    lambda row: binance.wallet_of([row], "USDT"),
    lambda row: binance.wallet_event(row, "USDT"),
    lambda row: binance.symbol_modes([row], SYMBOL),
    lambda row: binance.tiers_of([row], SYMBOL),
    lambda row: binance.symbol_info(row, SYMBOL),
    lambda row: binance.rules_of(row, (TIER,), row, [row]),
    binance.windows_of,
]


def binance_messages(data: bytes) -> None:
    """Binance's rows: read, or refused."""
    try:
        message = binance.decode(data)
    except BadReplyError:
        return
    for row in rows_of(message):
        for read in _BINANCE:
            try:
                got = read(row)
            except VenueError:
                continue
            assert isinstance(got, dict) or finite(got), (read, got)


def binance_answers(data: bytes) -> None:
    """Binance's answers to an order: REJECTED by the table's codes and statuses alone."""
    answer = _answer(data)
    request = Request(method="POST", path="/fapi/v1/order")
    finding = BinanceDialect(None).classify(request, answer)
    # "Already so" comes as a refusal, and is made a success of by who asked.
    if finding.verdict is Verdict.REJECTED and finding.reaction is not Reaction.ALREADY_SO:
        assert binance_react(answer.status, finding.code, finding.text)[0] is Verdict.REJECTED
        assert finding.code is not None or answer.status in (400, 401, 403, 404, 418, 429, 503)


def book(data: bytes) -> None:
    """The order book: events in any order, refused or applied, never crossed, never NaN inside."""
    try:
        events = orjson.loads(data)
    except ValueError:
        return
    if not isinstance(events, list):
        return
    for bybit_rule in (False, True):
        levels = L2Book(max_levels=50)
        for event in events:
            try:
                if not isinstance(event, dict):
                    continue
                b, a, u = event.get("b"), event.get("a"), event.get("u")
                if event.get("snapshot"):
                    levels.snapshot(b, a, u)
                elif bybit_rule:
                    levels.on_bybit(u, b, a, snapshot=False)
                else:
                    levels.on_binance(event.get("U"), u, event.get("pu"), b, a)
            except (ValueError, TypeError, OverflowError):
                continue
            if levels.in_step and not math.isnan(levels.bid) and not math.isnan(levels.ask):
                assert 0.0 < levels.bid < levels.ask


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames,
    "bybit_messages": bybit_messages,
    "bybit_answers": bybit_answers,
    "binance_messages": binance_messages,
    "binance_answers": binance_answers,
    "book": book,
}
