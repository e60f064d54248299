"""The market as Bybit shows it: rules, books, tickers, prints, candles; REST and topics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson

from passivx.clock import Clock, Timer
from passivx.simulator.bybit_words import (
    HOUR_MS,
    MINUTE_MS,
    NO_LIMIT,
    Hub,
    Json,
    Params,
    Units,
    amount,
    bad,
    uuid_text,
    whole,
)
from passivx.simulator.server import Session
from passivx.simulator.venue import SimVenue

__all__ = ["DEPTHS", "INTERVALS", "MarketFace"]

# Depth of an order book topic: least ms between two of its messages.
DEPTHS: Final = {1: 10, 50: 20, 200: 100, 1000: 200}
# So many levels a side are made up around the best prices.
_LEVELS: Final = 25
_TICKER_MS: Final = 100
_REPEAT_MS: Final = 3000

INTERVALS: Final = {
    "1": 1,
    "3": 3,
    "5": 5,
    "15": 15,
    "30": 30,
    "60": 60,
    "120": 120,
    "240": 240,
    "360": 360,
    "720": 720,
    "D": 1440,
    "W": 10_080,
}
_MOST_MINUTES: Final = 3 * 1440


@dataclass(frozen=True, slots=True)
class Print:
    trade_id: int
    price: float
    qty: float
    side: str  # of the taker
    tick: str  # direction against the print before
    ts_ms: int
    seq: int


class _Tape:
    """The last prints, and what tickers and candles are made of.

    ``minutes`` holds a candle for each minute that had a print. A candle is
    [open, high, low, close, qty, turnover].
    """

    def __init__(self, price: float, units: Units) -> None:
        self.prints: deque[Print] = deque(maxlen=1000)
        self.minutes: dict[int, list[float]] = {}
        self.first = self.last = self.high = self.low = price
        self.volume = self.turnover = 0.0
        self.tick = "ZeroPlusTick"
        self._units = units

    def add(self, trade_id: int, price: float, qty: float, side: str, ts_ms: int, seq: int) -> None:
        if price > self.last:
            self.tick = "PlusTick"
        elif price < self.last:
            self.tick = "MinusTick"
        elif not self.tick.startswith("Zero"):
            self.tick = "Zero" + self.tick
        self.prints.append(Print(trade_id, price, qty, side, self.tick, ts_ms, seq))
        value = self._units.value(qty, price)
        self.last = price
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.volume += qty
        self.turnover += value
        minute = ts_ms // MINUTE_MS
        candle = self.minutes.get(minute)
        if candle is None:
            self.minutes[minute] = [price, price, price, price, qty, value]
            if len(self.minutes) > _MOST_MINUTES:
                del self.minutes[next(iter(self.minutes))]
            return
        candle[1] = max(candle[1], price)
        candle[2] = min(candle[2], price)
        candle[3] = price
        candle[4] += qty
        candle[5] += value

    def candles(self, minutes: int) -> dict[int, list[float]]:
        """Return the candles of so many minutes each, by their start in ms, oldest first."""
        out: dict[int, list[float]] = {}
        for minute, candle in self.minutes.items():
            start = minute // minutes * minutes * MINUTE_MS
            whole = out.get(start)
            if whole is None:
                out[start] = list(candle)
                continue
            whole[1] = max(whole[1], candle[1])
            whole[2] = min(whole[2], candle[2])
            whole[3] = candle[3]
            whole[4] += candle[4]
            whole[5] += candle[5]
        return out


class _Book:
    """What subscribers of one order book topic were last told."""

    __slots__ = ("asks", "bids", "sent_ms", "timer", "topic", "u")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.bids: dict[int, str] = {}  # size by price, in steps
        self.asks: dict[int, str] = {}
        self.u = 1  # a first snapshot has 1: the venue (re)started
        self.sent_ms = 0
        self.timer: Timer | None = None


def _changed(old: Mapping[int, str], new: Mapping[int, str]) -> dict[int, str]:
    """Return what turns one side of a book into another; size 0 deletes a level."""
    out = {k: "0" for k in old if k not in new}
    out |= {k: size for k, size in new.items() if old.get(k) != size}
    return out


class MarketFace:
    """Public requests and topics. ``get_*`` answer a request's parameters with its result."""

    def __init__(self, venue: SimVenue, clock: Clock, units: Units, hub: Hub) -> None:
        self._venue = venue
        self._clock = clock
        self._units = units
        self._hub = hub
        self._salt = f"{hub.salt}-5000-9000"
        self._tape = _Tape(venue.mark_price, units)
        self._books: dict[int, _Book] = {}
        self._tickers: Json = {}
        self._tickers_timer: Timer | None = None
        self._limits_told: tuple[str, str] = ("", "")
        self._candles_told: dict[str, tuple[int, bool]] = {}
        self._topic_prints = f"publicTrade.{units.symbol}"
        self._topic_tickers = f"tickers.{units.symbol}"
        self._topic_limits = f"priceLimit.{units.symbol}"

    def get_time(self, params: Params) -> Json:
        now = self._clock.time_ms()
        return {"timeSecond": str(now // 1000), "timeNano": str(now * 1_000_000)}

    def _instrument(self) -> Json:
        listing = self._venue.listing
        market = listing.market
        least = max(market.min_qty, market.qty_step)
        row: Json = {
            "symbol": self._units.symbol,
            "symbolId": 5,
            "contractType": "InversePerpetual" if self._units.inverse else "LinearPerpetual",
            "status": "Trading" if self._venue.trading else "Settling",
            "baseCoin": listing.base,
            "quoteCoin": listing.quote,
            "launchTime": "1542502800000",
            "deliveryTime": "0",
            "deliveryFeeRate": "",
            "priceScale": str(self._units.price_scale),
            "leverageFilter": {
                "minLeverage": "1",
                "maxLeverage": f"{market.max_leverage:.2f}",
                "leverageStep": "0.01",
            },
            "priceFilter": {
                "minPrice": self._units.price(listing.min_price),
                "maxPrice": self._units.price(listing.max_price),
                "tickSize": self._units.price(market.price_step),
            },
            "lotSizeFilter": {
                "maxOrderQty": self._units.qty(listing.max_qty),
                "minOrderQty": self._units.qty(least),
                "qtyStep": self._units.qty(market.qty_step),
                "postOnlyMaxOrderQty": self._units.qty(listing.max_qty),
                "maxMktOrderQty": self._units.qty(listing.max_market_qty),
            },
            "unifiedMarginTrade": True,
            "fundingInterval": listing.funding_interval_ms // MINUTE_MS,
            "settleCoin": self._units.settle,
            "copyTrading": "none",
            "upperFundingRate": "0.00375",
            "lowerFundingRate": "-0.00375",
            "isPreListing": False,
            "preListingInfo": None,
            "riskParameters": {
                "priceLimitRatioX": amount((listing.band_up - 1.0) / 2.0),
                "priceLimitRatioY": amount(listing.band_up - 1.0),
            },
            "displayName": "",
            "symbolType": "",
        }
        # No rule on inverse contracts is no field, or an empty one.
        row["lotSizeFilter"]["minNotionalValue"] = (
            amount(market.min_cost) if market.min_cost else ""
        )
        return row

    def get_instruments(self, params: Params) -> Json:
        rows = [self._instrument()] if self._units.lists(params) else []
        status = params.get("status", "")
        base = params.get("baseCoin", "")
        rows = [
            row for row in rows if status in ("", row["status"]) and base in ("", row["baseCoin"])
        ]
        return {"category": params["category"], "list": rows, "nextPageCursor": ""}

    def get_own_instruments(self, params: Params) -> Json:
        answer = self.get_instruments(params)
        for row in answer["list"]:
            row |= {"myRpiPermission": False, "isPublicRpi": True}
        return answer

    def _tiers(self) -> list[Json]:
        """Return the risk tiers as the venue words them, which is not in their order.

        Rates of inverse contracts are per cent in the documentation, those of linear ones were seen
        as fractions: a client has to take both.
        """
        market = self._venue.listing.market
        scale = 100.0 if self._units.inverse else 1.0
        rows: list[Json] = []
        tiers = self._units.tiers
        for i, (_, rate, deduction) in enumerate(tiers):
            most = market.max_leverage
            if market.tiers:
                most = min(most, market.tiers[i].max_leverage)
            limit = NO_LIMIT if i + 1 == len(tiers) else tiers[i + 1][0]
            rows.append(
                {
                    "id": i + 1,
                    "symbol": self._units.symbol,
                    "riskLimitValue": amount(limit),
                    "maintenanceMargin": amount(rate * scale),
                    "initialMargin": amount(round(scale / most, 6)),
                    "isLowestRisk": int(i == 0),
                    "maxLeverage": f"{most:.2f}",
                    "mmDeduction": amount(deduction) if i else "",
                }
            )
        return rows[1:] + rows[:1]

    def get_risk_limit(self, params: Params) -> Json:
        rows = self._tiers() if self._units.lists(params) else []
        return {"category": params["category"], "list": rows}

    def _levels(self, depth: int) -> tuple[dict[int, str], dict[int, str]]:
        """Return sizes by price in steps, bids and asks, best first; made up beside the best."""
        bid, ask = self._venue.quote
        step = self._units.price_step
        best_bid, best_ask = round(bid / step), round(ask / step)
        count = min(depth, _LEVELS)
        bids = range(best_bid, max(0, best_bid - count), -1)
        return (
            {k: self._level_size(k) for k in bids},
            {k: self._level_size(k) for k in range(best_ask, best_ask + count)},
        )

    def _level_size(self, steps: int) -> str:
        # Any sizes will do that stay while a price stays: then only the edges of a book change.
        lots = 1 + (steps * 2_654_435_761 >> 8) % 5000
        return self._units.qty(lots * self._venue.listing.market.qty_step)

    def _sides(
        self, bids: Mapping[int, str], asks: Mapping[int, str]
    ) -> tuple[list[Any], list[Any]]:
        step, price = self._units.price_step, self._units.price
        return (
            [[price(k * step), size] for k, size in bids.items()],
            [[price(k * step), size] for k, size in asks.items()],
        )

    def get_book(self, params: Params) -> Json:
        if not self._units.lists(params) or not params.get("symbol"):
            raise bad("params error: symbol invalid")
        now = self._clock.time_ms()
        bids, asks = self._sides(*self._levels(whole(params, "limit", 25, 1, 1000)))
        return {
            "s": self._units.symbol,
            "b": bids,
            "a": asks,
            "ts": now,
            "u": max((book.u for book in self._books.values()), default=1),
            "seq": self._hub.seq,
            "cts": now,
        }

    def _ticker(self) -> Json:
        venue, tape, price = self._venue, self._tape, self._units.price
        bid, ask = venue.quote
        mark = price(venue.mark_price)
        interest = 1e8 if self._units.inverse else 50_000.0
        step = self._units.price_step
        return {
            "symbol": self._units.symbol,
            "lastPrice": price(tape.last),
            "indexPrice": mark,
            "markPrice": mark,
            "prevPrice24h": price(tape.first),
            "price24hPcnt": f"{tape.last / tape.first - 1.0:.6f}",
            "highPrice24h": price(tape.high),
            "lowPrice24h": price(tape.low),
            "prevPrice1h": price(tape.first),
            "openInterest": self._units.qty(interest),
            "openInterestValue": f"{self._units.value(interest, venue.mark_price):.2f}",
            "turnover24h": f"{tape.turnover:.4f}",
            "volume24h": f"{tape.volume:.4f}",
            "fundingRate": amount(venue.listing.funding_rate),
            "nextFundingTime": str(self._next_funding_ms()),
            "fundingIntervalHour": str(venue.listing.funding_interval_ms // HOUR_MS),
            "fundingCap": "0.00375",
            "bid1Price": price(bid),
            "bid1Size": self._level_size(round(bid / step)),
            "ask1Price": price(ask),
            "ask1Size": self._level_size(round(ask / step)),
            "preOpenPrice": "",
            "preQty": "",
            "curPreListingPhase": "",
        }

    def _next_funding_ms(self) -> int:
        """Return when funding falls due in the venue's own time, whatever the replay's is."""
        return self._venue.listing.funding_after_ms(self._clock.time_ms())

    def get_tickers(self, params: Params) -> Json:
        rows: list[Json] = []
        if self._units.lists(params):
            ticker = self._ticker()
            ticker |= {
                "predictedDeliveryPrice": "",
                "basisRate": "",
                "deliveryFeeRate": "",
                "deliveryTime": "0",
                "basis": "",
                "basisRateYear": "",
            }
            rows.append(ticker)
        return {"category": params["category"], "list": rows}

    def get_funding(self, params: Params) -> Json:
        if not self._units.lists(params) or not params.get("symbol"):
            raise bad("params error: symbol invalid")
        limit = whole(params, "limit", 200, 1, 200)
        last = whole(params, "endTime", -1, 0, 1 << 53)
        first = whole(params, "startTime", -1, 0, 1 << 53)
        if first >= 0 and last < 0:
            raise bad("params error: endTime is required with startTime")
        rows = [
            {
                "symbol": self._units.symbol,
                "fundingRate": amount(rate),
                "fundingRateTimestamp": str(ts_ms),
            }
            for ts_ms, rate, _ in reversed(self._venue.rates)
            if ts_ms >= first and (last < 0 or ts_ms <= last)
        ]
        return {"category": params["category"], "list": rows[:limit]}

    def get_prints(self, params: Params) -> Json:
        if not self._units.lists(params):
            raise bad("params error: symbol invalid")
        limit = whole(params, "limit", 500, 1, 1000)
        rows = [
            {
                "execId": uuid_text(self._salt, one.trade_id),
                "symbol": self._units.symbol,
                "price": self._units.price(one.price),
                "size": self._units.qty(one.qty),
                "side": one.side,
                "time": str(one.ts_ms),
                "isBlockTrade": False,
                "isRPITrade": False,
                "seq": str(one.seq),
            }
            for one in islice(reversed(self._tape.prints), limit)
        ]
        return {"category": params["category"], "list": rows}

    def get_candles(self, params: Params) -> Json:
        if not self._units.lists(params) or not params.get("symbol"):
            raise bad("params error: symbol invalid")
        minutes = INTERVALS.get(params.get("interval", ""))
        if minutes is None:
            raise bad("Invalid period!")
        limit = whole(params, "limit", 200, 1, 1000)
        first = whole(params, "start", 0, 0, 1 << 53)
        last = whole(params, "end", 1 << 53, 0, 1 << 53)
        rows = [
            [str(start), *self._candle(candle)]
            for start, candle in reversed(self._tape.candles(minutes).items())
            if first <= start <= last
        ]
        return {"symbol": self._units.symbol, "category": params["category"], "list": rows[:limit]}

    def _candle(self, candle: Sequence[float]) -> list[str]:
        return [
            *(self._units.price(x) for x in candle[:4]),
            self._units.qty(candle[4]),
            amount(candle[5]),
        ]

    def _bounds(self) -> tuple[str, str]:
        """Return the highest price of a buy and the lowest of a sell."""
        listing, mark = self._venue.listing, self._venue.mark_price
        step = self._units.price_step
        highest = int(mark * listing.band_up / step) * step
        lowest = -int(-mark * listing.band_down / step) * step
        return self._units.price(highest), self._units.price(lowest)

    def get_price_limit(self, params: Params) -> Json:
        if not self._units.lists({"category": self._units.category, **params}):
            raise bad("params error: symbol invalid")
        buy, sell = self._bounds()
        return {
            "symbol": self._units.symbol,
            "buyLmt": buy,
            "sellLmt": sell,
            "ts": str(self._clock.time_ms()),
        }

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        """Publish a print."""
        self._hub.seq += 1
        side = "Sell" if buyer_maker else "Buy"
        self._tape.add(trade_id, price, qty, side, ts_ms, self._hub.seq)
        listeners = self._hub.topics.get(self._topic_prints)
        if listeners:
            self._hub.tell(
                self._topic_prints,
                {
                    "topic": self._topic_prints,
                    "type": "snapshot",
                    "ts": ts_ms,
                    "data": [
                        {
                            "T": ts_ms,
                            "s": self._units.symbol,
                            "S": side,
                            "v": self._units.qty(qty),
                            "p": self._units.price(price),
                            "L": self._tape.tick,
                            "i": uuid_text(self._salt, trade_id),
                            "BT": False,
                            "RPI": False,
                            "seq": self._hub.seq,
                        }
                    ],
                },
            )
        if self._tickers_timer is None and (
            self._topic_tickers in self._hub.topics or self._topic_limits in self._hub.topics
        ):
            self._tickers_timer = self._clock.call_later(_TICKER_MS / 1000, self._tell_tickers)

    def on_quote(self, ts_ms: int) -> None:
        """Publish new best prices, as often as each depth of book is pushed."""
        for depth, book in self._books.items():
            if book.timer is not None:
                continue
            wait_ms = book.sent_ms + DEPTHS[depth] - ts_ms
            if wait_ms <= 0:
                self._push_book(depth)
            else:
                book.timer = self._clock.call_later(wait_ms / 1000, partial(self._push_book, depth))

    def begin(self, session: Session, topics: Sequence[str]) -> None:
        """Send the snapshots that some topics start with."""
        now = self._clock.time_ms()
        for topic in topics:
            kind, _, rest = topic.partition(".")
            if kind == "orderbook":
                self._begin_book(session, topic, int(rest.partition(".")[0]), now)
            elif kind == "tickers":
                self._tickers = self._tickers or self._ticker()
                session.send(self._ticker_text("snapshot", self._tickers, now))
            elif kind == "priceLimit":
                session.send(self._price_limit_text(now))

    def _begin_book(self, session: Session, topic: str, depth: int, now_ms: int) -> None:
        book = self._books.get(depth)
        if book is None:
            book = self._books[depth] = _Book(topic)
            book.bids, book.asks = self._levels(depth)
            book.sent_ms = now_ms
        session.send(self._book_text(book, "snapshot", book.bids, book.asks, now_ms))

    def _book_text(
        self,
        book: _Book,
        kind: str,
        bids: Mapping[int, str],
        asks: Mapping[int, str],
        now_ms: int,
    ) -> bytes:
        b, a = self._sides(bids, asks)
        data = {"s": self._units.symbol, "b": b, "a": a, "u": book.u, "seq": self._hub.seq}
        return orjson.dumps(
            {"topic": book.topic, "type": kind, "ts": now_ms, "data": data, "cts": now_ms}
        )

    def _push_book(self, depth: int) -> None:
        book = self._books.get(depth)
        if book is None:
            return
        book.timer = None
        now = self._clock.time_ms()
        bids, asks = self._levels(depth)
        if bids == book.bids and asks == book.asks:
            return
        self._hub.seq += 1
        book.u += 1
        if depth == 1:
            book.bids, book.asks = bids, asks
            self._send_best(book, now)
            return
        text = self._book_text(
            book, "delta", _changed(book.bids, bids), _changed(book.asks, asks), now
        )
        book.bids, book.asks, book.sent_ms = bids, asks, now
        self._hub.tell_text(book.topic, text)

    def _send_best(self, book: _Book, now_ms: int) -> None:
        """Send level 1: always a snapshot, and the same one again when nothing changes for long."""
        book.sent_ms = now_ms
        text = self._book_text(book, "snapshot", book.bids, book.asks, now_ms)
        self._hub.tell_text(book.topic, text)

    def _ticker_text(self, kind: str, fields: Json, now_ms: int) -> bytes:
        return orjson.dumps(
            {
                "topic": self._topic_tickers,
                "type": kind,
                "data": {"symbol": self._units.symbol, **fields},
                "cs": self._hub.seq,
                "ts": now_ms,
            }
        )

    def _tell_tickers(self) -> None:
        """Send what changed since the last time."""
        self._tickers_timer = None
        now = self._clock.time_ms()
        if self._topic_tickers in self._hub.topics:
            fresh = self._ticker() | {"tickDirection": self._tape.tick}
            changed = {name: x for name, x in fresh.items() if self._tickers.get(name) != x}
            self._tickers = fresh
            if changed:
                text = self._ticker_text("delta", changed, now)
                self._hub.tell_text(self._topic_tickers, text)
        if self._topic_limits in self._hub.topics and self._bounds() != self._limits_told:
            self._limits_told = self._bounds()
            text = self._price_limit_text(now)
            self._hub.tell_text(self._topic_limits, text)

    def _price_limit_text(self, now_ms: int) -> bytes:
        buy, sell = self._bounds()
        data = {"symbol": self._units.symbol, "buyLmt": buy, "sellLmt": sell}
        return orjson.dumps({"topic": self._topic_limits, "data": data, "ts": now_ms})

    def forget(self, topic: str) -> None:
        """Drop what was kept for a topic that nobody listens to any more."""
        kind, _, rest = topic.partition(".")
        if kind == "orderbook":
            book = self._books.pop(int(rest.partition(".")[0]), None)
            if book is not None and book.timer is not None:
                book.timer.cancel()
        elif topic == self._topic_tickers:
            self._tickers = {}

    def housekeeping(self, now_ms: int) -> None:
        """Say again what did not change for long, and how the candles stand."""
        book = self._books.get(1)
        if book is not None and now_ms - book.sent_ms >= _REPEAT_MS:
            self._send_best(book, now_ms)
        self._tell_candles(now_ms)

    def _tell_candles(self, now_ms: int) -> None:
        """Send the candle of every interval that is listened to, and the last one once it ended."""
        for topic in [one for one in self._hub.topics if one.startswith("kline.")]:
            interval = topic.split(".")[1]
            minutes = INTERVALS[interval]
            rows = list(self._tape.candles(minutes).items())[-1:]
            for start, candle in rows:
                end = start + minutes * MINUTE_MS - 1
                closed = now_ms > end
                if self._candles_told.get(topic) == (start, closed) and closed:
                    continue
                self._candles_told[topic] = (start, closed)
                first, high, low, last, qty, value = self._candle(candle)
                row = {
                    "start": start,
                    "end": end,
                    "interval": interval,
                    "open": first,
                    "close": last,
                    "high": high,
                    "low": low,
                    "volume": qty,
                    "turnover": value,
                    "confirm": closed,
                    "timestamp": now_ms,
                }
                self._hub.tell(
                    topic, {"topic": topic, "data": [row], "ts": now_ms, "type": "snapshot"}
                )
