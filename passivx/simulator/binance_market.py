"""The market as Binance shows it: rules, books, prints and funding, over REST and as streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, Protocol

from passivx.clock import Clock, Timer
from passivx.simulator.binance_words import (
    SIDES,
    AnswerError,
    Json,
    Limits,
    Params,
    Units,
    integer,
    limit_of,
    missing,
    ts_range,
)
from passivx.simulator.venue import Execution, SimVenue

__all__ = ["PATHS", "Hub", "MarketFace"]

_PRINTS_HELD: Final = 50_000
_LEVELS: Final = 20
_DEPTH_S: Final = {"100ms": 0.1, "250ms": 0.25, "500ms": 0.5}
# One id space for all books of an engine: ids of one book jump.
_ID_STEP: Final = 37
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_UNITS_MS: Final = {"m": 60_000, "h": _HOUR_MS, "d": _DAY_MS}
_INTERVALS_MS: Final = {
    word: int(word[:-1]) * _UNITS_MS[word[-1]]
    for word in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
}
_ONBOARD_MS: Final = 1_569_398_400_000
_DELIVERY_MS: Final = 4_133_404_800_000  # the venue's word for never

# What streams call the figures of `ticker/24hr`.
_MINI_NAMES: Final = {
    "c": "lastPrice",
    "o": "openPrice",
    "h": "highPrice",
    "l": "lowPrice",
    "v": "volume",
    "q": "quoteVolume",
}
_DAY_NAMES: Final = {
    **_MINI_NAMES,
    "p": "priceChange",
    "P": "priceChangePercent",
    "w": "weightedAvgPrice",
    "Q": "lastQty",
    "O": "openTime",
    "C": "closeTime",
    "F": "firstId",
    "L": "lastId",
    "n": "count",
}

# Which path a kind of stream is on; on the other one it is acknowledged and silent.
PATHS: Final = {
    "bookTicker": "public",
    "depth": "public",
    "rpiDepth": "public",
    "trade": "public",
    "aggTrade": "market",
    "markPrice": "market",
    "kline": "market",
    "ticker": "market",
    "miniTicker": "market",
    "forceOrder": "market",
    "contractInfo": "market",
}


class Hub(Protocol):
    """What sends an event to everyone who listens to a stream."""

    def listened(self, stream: str) -> bool:
        """Whether anybody does."""
        ...

    def publish(self, stream: str, event: Json | list[Json]) -> None:
        """Send it."""
        ...


class MarketFace:
    """Answers and streams about the one symbol; `BinanceFront` passes on what it hears."""

    def __init__(
        self, venue: SimVenue, clock: Clock, units: Units, limits: Limits, hub: Hub
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._units = units
        self._limits = limits
        self._hub = hub
        self._name = units.symbol.lower()
        self._prints: deque[tuple[int, float, float, int, bool]] = deque(maxlen=_PRINTS_HELD)
        self._book_id = clock.time_ms() * 100
        self._told: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {}
        self._timers: dict[str, Timer] = {}
        # When the candle opened that was told last, and whether it was over; by stream.
        self._candles_told: dict[str, tuple[int, bool]] = {}
        self._seconds = 0

    # --- REST ---

    def get_time(self, params: Params) -> Json:
        """GET /fapi/v1/time."""
        return {"serverTime": self._clock.time_ms()}

    def get_info(self, params: Params) -> Json:
        """GET /fapi/v1/exchangeInfo."""
        listing, units = self._venue.listing, self._units
        market = listing.market
        info = {
            "symbol": listing.symbol,
            "pair": listing.symbol,
            "contractType": "PERPETUAL",
            "deliveryDate": _DELIVERY_MS,
            "onboardDate": _ONBOARD_MS,
            "status": self._status(),
            "maintMarginPercent": "2.5000",
            "requiredMarginPercent": "5.0000",
            "baseAsset": listing.base,
            "quoteAsset": listing.quote,
            "marginAsset": listing.quote,
            "pricePrecision": units.price_decimals,
            "quantityPrecision": units.qty_decimals,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "underlyingSubType": ["PoW"],
            "settlePlan": 0,
            "triggerProtect": "0.0500",
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": units.price(listing.min_price),
                    "maxPrice": units.price(listing.max_price),
                    "tickSize": units.price(market.price_step),
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": units.qty(max(market.min_qty, market.qty_step)),
                    "maxQty": units.qty(listing.max_qty),
                    "stepSize": units.qty(market.qty_step),
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": units.qty(max(market.min_qty, market.qty_step)),
                    "maxQty": units.qty(listing.max_market_qty),
                    "stepSize": units.qty(market.qty_step),
                },
                {"filterType": "MAX_NUM_ORDERS", "limit": listing.max_orders},
                {"filterType": "MIN_NOTIONAL", "notional": f"{market.min_cost:g}"},
                {
                    "filterType": "PERCENT_PRICE",
                    "multiplierUp": f"{listing.band_up:.4f}",
                    "multiplierDown": f"{listing.band_down:.4f}",
                    "multiplierDecimal": "4",
                },
            ],
            "orderTypes": ["LIMIT", "MARKET"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            "liquidationFee": f"{market.liquidation_fee:.6f}",
            "marketTakeBound": f"{listing.band_up - 1.0:.2f}",
            "permissionSets": ["GRID", "COPY"],
        }
        return {
            "timezone": "UTC",
            "serverTime": self._clock.time_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": [
                self._limits.weight.rule,
                self._limits.orders_1m.rule,
                self._limits.orders_10s.rule,
            ],
            "exchangeFilters": [],
            "assets": [
                {"asset": listing.quote, "marginAvailable": True, "autoAssetExchange": "-10000"}
            ],
            "symbols": [info],
        }

    def get_depth(self, params: Params) -> Json:
        """GET /fapi/v1/depth: the best prices, and levels made up behind them."""
        self.check_symbol(params)
        limit = integer(params, "limit", 500)
        if limit not in (5, 10, 20, 50, 100, 500, 1000):
            raise AnswerError(-4021, f"'{limit}' is not valid depth limit.")
        bids, asks = self._levels()
        now = self._clock.time_ms()
        return {
            "lastUpdateId": self._book_id,
            "E": now,
            "T": now,
            "bids": [list(level) for level in bids.items()][:limit],
            "asks": [list(level) for level in asks.items()][:limit],
        }

    def get_book_ticker(self, params: Params) -> Any:
        """GET /fapi/v1/ticker/bookTicker."""
        bid, ask = self._venue.quote
        row = {
            "symbol": self._units.symbol,
            "bidPrice": self._units.price(bid),
            "bidQty": self._top_qty(),
            "askPrice": self._units.price(ask),
            "askQty": self._top_qty(),
            "time": self._clock.time_ms(),
            "lastUpdateId": self._book_id,
        }
        return self._of_symbol(params, row)

    def get_price(self, params: Params) -> Any:
        """GET /fapi/v1/ticker/price."""
        row = {
            "symbol": self._units.symbol,
            "price": self._units.price(self._venue.mark_price),
            "time": self._clock.time_ms(),
        }
        return self._of_symbol(params, row)

    def get_day(self, params: Params) -> Any:
        """GET /fapi/v1/ticker/24hr, of the prints still held."""
        now, text = self._clock.time_ms(), self._units.price
        rows = [row for row in self._prints if row[3] > now - _DAY_MS]
        prices = [row[1] for row in rows] or [self._venue.mark_price]
        qty = sum(row[2] for row in rows)
        value = sum(row[1] * row[2] for row in rows)
        row = {
            "symbol": self._units.symbol,
            "priceChange": text(prices[-1] - prices[0]),
            "priceChangePercent": f"{100.0 * (prices[-1] / prices[0] - 1.0):.3f}",
            "weightedAvgPrice": text(value / qty if qty else prices[-1]),
            "lastPrice": text(prices[-1]),
            "lastQty": self._units.qty(rows[-1][2] if rows else 0.0),
            "openPrice": text(prices[0]),
            "highPrice": text(max(prices)),
            "lowPrice": text(min(prices)),
            "volume": self._units.qty(qty),
            "quoteVolume": self._units.money(value),
            "openTime": now - _DAY_MS,
            "closeTime": now,
            "firstId": rows[0][0] if rows else -1,
            "lastId": rows[-1][0] if rows else -1,
            "count": len(rows),
        }
        return self._of_symbol(params, row)

    def get_premium(self, params: Params) -> Any:
        """GET /fapi/v1/premiumIndex."""
        venue, price = self._venue, f"{self._venue.mark_price:.8f}"
        row = {
            "symbol": self._units.symbol,
            "markPrice": price,
            "indexPrice": price,
            "estimatedSettlePrice": price,
            "lastFundingRate": f"{venue.listing.funding_rate:.8f}",
            "interestRate": "0.00010000",
            "nextFundingTime": self._next_funding_ms(),
            "time": self._clock.time_ms(),
        }
        return self._of_symbol(params, row)

    def get_funding(self, params: Params) -> list[Json]:
        """GET /fapi/v1/fundingRate, oldest first."""
        limit = limit_of(params, 100)
        start = integer(params, "startTime", 0)
        end = integer(params, "endTime", 1 << 62)
        rows = [
            {
                "symbol": self._units.symbol,
                "fundingRate": f"{rate:.8f}",
                "fundingTime": ts_ms,
                "markPrice": f"{price:.8f}",
                "rateType": "Regular",
            }
            for ts_ms, rate, price in self._venue.rates
            if start <= ts_ms <= end
        ]
        return rows[:limit] if "startTime" in params else rows[-limit:]

    def get_funding_info(self, params: Params) -> list[Json]:
        """GET /fapi/v1/fundingInfo: only symbols that differ from 8 hours."""
        hours = self._venue.listing.funding_interval_ms // _HOUR_MS
        if hours == 8:
            return []
        return [
            {
                "symbol": self._units.symbol,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": hours,
                "disclaimer": False,
            }
        ]

    def get_aggregates(self, params: Params) -> list[Json]:
        """GET /fapi/v1/aggTrades: a print is an aggregate here."""
        self.check_symbol(params)
        limit = limit_of(params, 500)
        rows: Iterable[tuple[int, float, float, int, bool]] = self._prints
        if "fromId" in params:
            if "startTime" in params or "endTime" in params:
                raise AnswerError(-1128, "Combination of optional parameters invalid.")
            first = integer(params, "fromId")
            rows = [row for row in rows if row[0] >= first][:limit]
        elif "startTime" in params or "endTime" in params:
            start, end = ts_range(params, self._clock.time_ms(), _HOUR_MS, inclusive=False)
            rows = [row for row in rows if start <= row[3] <= end][:limit]
        else:
            rows = list(rows)[-limit:]
        return [self._aggregate(row) for row in rows]

    def get_prints(self, params: Params) -> list[Json]:
        """GET /fapi/v1/trades and historicalTrades."""
        self.check_symbol(params)
        limit = limit_of(params, 500)
        rows = list(self._prints)
        if "fromId" in params:
            first = integer(params, "fromId")
            rows = [row for row in rows if row[0] >= first][:limit]
        return [
            {
                "id": number,
                "price": self._units.price(price),
                "qty": self._units.qty(qty),
                "quoteQty": self._units.money(price * qty),
                "time": ts_ms,
                "isBuyerMaker": maker,
                "isRPITrade": False,
            }
            for number, price, qty, ts_ms, maker in rows[-limit:]
        ]

    def get_candles(self, params: Params) -> list[list[Any]]:
        """GET /fapi/v1/klines of the prints still held, up to a day's, oldest first."""
        self.check_symbol(params)
        if not params.get("interval"):
            raise missing("interval")
        span_ms = _INTERVALS_MS.get(params["interval"])
        if span_ms is None:
            raise AnswerError(-1120, "Invalid interval.")
        start = integer(params, "startTime", 0)
        end = integer(params, "endTime", 1 << 62)
        candles: dict[int, list[Any]] = {}
        for _, price, qty, ts_ms, maker in self._prints:
            _add_to_candle(candles.setdefault(ts_ms - ts_ms % span_ms, []), price, qty, maker)
        money, price_text, qty_text = self._units.money, self._units.price, self._units.qty
        rows = [
            [opened, *map(price_text, row[:4]), qty_text(row[4]), opened + span_ms - 1,
             money(row[5]), row[6], qty_text(row[7]), money(row[8]), "0"]
            for opened, row in sorted(candles.items())
            if start <= opened <= end
        ]  # fmt: skip
        limit = limit_of(params, 500, 1500)
        return rows[:limit] if "startTime" in params else rows[-limit:]

    def get_brackets(self, params: Params) -> list[Json]:
        """GET /fapi/v1/leverageBracket."""
        if params.get("symbol"):
            self.check_symbol(params)
        market = self._venue.listing.market
        tiers = market.tier_records()
        caps = [*tiers["floor"].tolist()[1:], 1e12]
        leverages = [tier.max_leverage for tier in market.tiers] or [market.max_leverage]
        brackets = [
            {
                "bracket": i + 1,
                "initialLeverage": int(min(leverages[i], market.max_leverage)),
                "notionalCap": _plain(caps[i]),
                "notionalFloor": _plain(row["floor"].item()),
                "maintMarginRatio": row["maintenance_rate"].item(),
                "cum": row["deduction"].item(),
            }
            for i, row in enumerate(tiers)
        ]
        return [{"symbol": self._units.symbol, "brackets": brackets}]

    def check_symbol(self, params: Params) -> None:
        """Refuse a request about another symbol, or about none."""
        if not params.get("symbol"):
            raise missing("symbol")
        if params["symbol"] != self._units.symbol:
            raise AnswerError(-1121, "Invalid symbol.")

    def _status(self) -> str:
        return "TRADING" if self._venue.trading else "SETTLING"

    def _of_symbol(self, params: Params, row: Json) -> Any:
        if "symbol" not in params:
            return [row]
        self.check_symbol(params)
        return row

    # --- what happens ---

    def on_print(self, number: int, price: float, qty: float, maker: bool) -> None:
        """Keep a print and tell it."""
        now = self._clock.time_ms()
        row = (number, price, qty, now, maker)
        self._prints.append(row)
        stream = f"{self._name}@aggTrade"
        if self._hub.listened(stream):
            event = {"e": "aggTrade", "E": now, "s": self._units.symbol, **self._aggregate(row)}
            self._hub.publish(stream, event | {"st": 1})
        stream = f"{self._name}@trade"
        if self._hub.listened(stream):
            event = {
                "e": "trade",
                "E": now,
                "T": now,
                "s": self._units.symbol,
                "t": number,
                "p": self._units.price(price),
                "q": self._units.qty(qty),
                "X": "MARKET",
                "m": maker,
                "st": 1,
            }
            self._hub.publish(stream, event)

    def on_quote(self, bid: float, ask: float) -> None:
        """Tell new best prices, and the book's changes a little later."""
        self._book_id += _ID_STEP
        now = self._clock.time_ms()
        for stream in (f"{self._name}@bookTicker", "!bookTicker"):
            if self._hub.listened(stream):
                self._hub.publish(
                    stream,
                    {
                        "e": "bookTicker",
                        "u": self._book_id,
                        "E": now,
                        "T": now,
                        "s": self._units.symbol,
                        "b": self._units.price(bid),
                        "B": self._top_qty(),
                        "a": self._units.price(ask),
                        "A": self._top_qty(),
                        "ps": self._units.symbol,
                        "st": 1,
                    },
                )
        for stream in list(self._told):
            if stream not in self._timers:
                _, _, speed = stream.rpartition("@")
                self._timers[stream] = self._clock.call_later(
                    _DEPTH_S.get(speed, 0.25), partial(self._tell_book, stream)
                )

    def joined(self, stream: str) -> None:
        """Begin a stream for somebody: a book's changes count from now."""
        if stream.startswith(f"{self._name}@depth") and stream not in self._told:
            self._told[stream] = (self._book_id, *self._levels())

    def on_liquidation(self, fill: Execution) -> None:
        """Tell a liquidation on the streams of such."""
        units, price, qty = self._units, self._units.price(fill.price), self._units.qty(fill.qty)
        event = {
            "e": "forceOrder",
            "E": fill.ts_ms,
            "o": {
                "s": units.symbol,
                "S": SIDES[fill.side],
                "o": "LIMIT",
                "f": "IOC",
                "q": qty,
                "p": price,
                "ap": price,
                "X": "FILLED",
                "l": qty,
                "z": qty,
                "T": fill.ts_ms,
            },
        }
        for stream in (f"{self._name}@forceOrder", "!forceOrder@arr"):
            if self._hub.listened(stream):
                self._hub.publish(stream, event)

    def on_terms(self, what: str) -> None:
        """Tell new rules, and whether there is trading."""
        if what not in ("rules", "trading") or not self._hub.listened("!contractInfo"):
            return
        brackets, least = [], 1
        for row in reversed(self.get_brackets({})[0]["brackets"]):
            most = row["initialLeverage"]
            brackets.append(
                {
                    "bs": row["bracket"],
                    "bnf": row["notionalFloor"],
                    "bnc": row["notionalCap"],
                    "mmr": row["maintMarginRatio"],
                    "cf": row["cum"],
                    "mi": min(least, most),
                    "ma": most,
                }
            )
            least = most + 1
        event = {
            "e": "contractInfo",
            "E": self._clock.time_ms(),
            "s": self._units.symbol,
            "ct": "PERPETUAL",
            "dt": _DELIVERY_MS,
            "ot": _ONBOARD_MS,
            "cs": self._status(),
            "bks": brackets[::-1],
            "st": 1,
        }
        self._hub.publish("!contractInfo", event)

    def housekeeping(self) -> None:
        """Tell mark price and funding, every second or every third."""
        self._seconds += 1
        self._told = {s: told for s, told in self._told.items() if self._hub.listened(s)}
        venue, now = self._venue, self._clock.time_ms()
        event = {
            "e": "markPriceUpdate",
            "E": now,
            "s": self._units.symbol,
            "p": f"{venue.mark_price:.8f}",
            "ap": f"{venue.mark_price:.8f}",
            "i": f"{venue.mark_price:.8f}",
            "P": f"{venue.mark_price:.8f}",
            "r": f"{venue.listing.funding_rate:.8f}",
            "T": self._next_funding_ms(),
            "st": 1,
        }
        for stream, every in (
            (f"{self._name}@markPrice@1s", 1),
            (f"{self._name}@markPrice", 3),
        ):
            if self._seconds % every == 0 and self._hub.listened(stream):
                self._hub.publish(stream, event)
        for stream, every in (("!markPrice@arr@1s", 1), ("!markPrice@arr", 3)):
            if self._seconds % every == 0 and self._hub.listened(stream):
                self._hub.publish(stream, [event])

        self._tell_day(now)
        self._tell_candles(now)

    def _tell_day(self, now_ms: int) -> None:
        """Tell the figures of the last day."""
        kinds = (("24hrTicker", "ticker"), ("24hrMiniTicker", "miniTicker"))
        for kind, word in kinds:
            for stream in (f"{self._name}@{word}", f"!{word}@arr"):
                if not self._hub.listened(stream):
                    continue
                day = self.get_day({"symbol": self._units.symbol})
                names = _DAY_NAMES if word == "ticker" else _MINI_NAMES
                event = {"e": kind, "E": now_ms, "s": self._units.symbol}
                event |= {short: day[name] for short, name in names.items()}
                self._hub.publish(stream, [event] if stream.startswith("!") else event)

    def _tell_candles(self, now_ms: int) -> None:
        """Tell how the candles stand that are listened to, each once more when it is over."""
        if not self._prints:
            return
        for word, span_ms in _INTERVALS_MS.items():
            stream = f"{self._name}@kline_{word}"
            if not self._hub.listened(stream):
                self._candles_told.pop(stream, None)
                continue
            last_ms = self._prints[-1][3]
            opened = last_ms - last_ms % span_ms
            told, was_over = self._candles_told.get(stream, (opened, False))
            if told != opened and not was_over:
                self._tell_candle(stream, word, told, now_ms)
            if told != opened or not was_over:
                self._tell_candle(stream, word, opened, now_ms)
            self._candles_told[stream] = opened, now_ms >= opened + span_ms

    def _tell_candle(self, stream: str, word: str, opened: int, now_ms: int) -> None:
        end = opened + _INTERVALS_MS[word]
        candle: list[Any] = []
        ids = []
        for number, price, qty, ts_ms, maker in self._prints:
            if opened <= ts_ms < end:
                _add_to_candle(candle, price, qty, maker)
                ids.append(number)
        if not ids:
            return
        money, price_text, qty_text = self._units.money, self._units.price, self._units.qty
        row = {
            "t": opened,
            "T": end - 1,
            "s": self._units.symbol,
            "i": word,
            "f": ids[0],
            "L": ids[-1],
            "o": price_text(candle[0]),
            "c": price_text(candle[3]),
            "h": price_text(candle[1]),
            "l": price_text(candle[2]),
            "v": qty_text(candle[4]),
            "n": candle[6],
            "x": now_ms >= end,
            "q": money(candle[5]),
            "V": qty_text(candle[7]),
            "Q": money(candle[8]),
            "B": "0",
        }
        self._hub.publish(stream, {"e": "kline", "E": now_ms, "s": self._units.symbol, "k": row})

    def _next_funding_ms(self) -> int:
        # Of the protocol's clock: a fast replay has its fundings at other times.
        return self._venue.listing.funding_after_ms(self._clock.time_ms())

    def _tell_book(self, stream: str) -> None:
        self._timers.pop(stream, None)
        if stream not in self._told or not self._hub.listened(stream):
            self._told.pop(stream, None)
            return
        last_id, old_bids, old_asks = self._told[stream]
        bids, asks = self._levels()
        self._told[stream] = (self._book_id, bids, asks)
        now = self._clock.time_ms()
        # Partial books are whole each time: <symbol>@depth5|10|20.
        top = stream.split("@")[1].removeprefix("depth")
        if top:
            changed = [[list(level) for level in side.items()][: int(top)] for side in (bids, asks)]
        else:
            changed = [_changes(old_bids, bids), _changes(old_asks, asks)]
        self._hub.publish(
            stream,
            {
                "e": "depthUpdate",
                "E": now,
                "T": now,
                "s": self._units.symbol,
                # Of this book's own ids, as the venue numbers: only pu links events.
                "U": min(last_id + _ID_STEP, self._book_id),
                "u": self._book_id,
                "pu": last_id,
                "b": changed[0],
                "a": changed[1],
                "ps": self._units.symbol,
                "st": 1,
            },
        )

    def _levels(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return quantity by price, bids and asks, best first: made up behind the best."""
        bid, ask = self._venue.quote
        step = self._venue.listing.market.price_step
        text, qty = self._units.price, self._units.qty
        unit = self._venue.listing.market.qty_step
        bids = {
            text(bid - i * step): qty(unit * (100 + 7 * i))
            for i in range(_LEVELS)
            if bid - i * step > 0.0
        }
        asks = {text(ask + i * step): qty(unit * (100 + 7 * i)) for i in range(_LEVELS)}
        return bids, asks

    def _top_qty(self) -> str:
        return self._units.qty(self._venue.listing.market.qty_step * 100)

    def _aggregate(self, row: tuple[int, float, float, int, bool]) -> Json:
        number, price, qty, ts_ms, maker = row
        qty_text = self._units.qty(qty)
        return {
            "a": number,
            "p": self._units.price(price),
            "q": qty_text,
            "nq": qty_text,
            "f": number,
            "l": number,
            "T": ts_ms,
            "m": maker,
        }


def _add_to_candle(candle: list[Any], price: float, qty: float, maker: bool) -> None:
    """Add a print to [open, high, low, close, qty, value, prints, bought qty, bought value]."""
    if not candle:
        candle += [price, price, price, price, 0.0, 0.0, 0, 0.0, 0.0]
    candle[1], candle[2], candle[3] = max(candle[1], price), min(candle[2], price), price
    candle[4] += qty
    candle[5] += qty * price
    candle[6] += 1
    if not maker:
        candle[7] += qty
        candle[8] += qty * price


def _plain(x: float) -> float:
    """Return a number as the venue writes it: a whole one without a point."""
    return int(x) if x.is_integer() else x


def _changes(old: dict[str, str], new: dict[str, str]) -> list[list[str]]:
    gone = [[price, "0"] for price in old if price not in new]
    return gone + [[price, qty] for price, qty in new.items() if old.get(price) != qty]
