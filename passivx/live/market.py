"""What the bot has heard of the market: which trades are new, and how old its knowledge is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Final

from passivx.exchanges.base import PublicTrade
from passivx.live.events import Now

__all__ = ["STALE_S", "MarketView"]

STALE_S: Final = 10.0
"""Market data older than this opens nothing, s."""

# Nor do prices that reach us so much later than they usually do, by the monotonic clock, ms.
_LATE_MS: Final = 3_000.0
# How late is usual is learnt of the last minutes: clocks drift. Two buckets of so long, s.
_BUCKET_S: Final = 300.0
_MOST_IDS: Final = 4096


class MarketView:
    """Ids and ages of what was heard; prices are the compiled core's.

    Parameters
    ----------
    trades : iterable of PublicTrade
        Those that are known already, oldest first, at least one.
    now_ms : int
        The venue's time when they were read.
    now : Now

    Attributes
    ----------
    quote_ms, trade_ms : int
        The venue's times of the last quote and the last trade.
    """

    def __init__(self, trades: Iterable[PublicTrade], now_ms: int, now: Now) -> None:
        self.quote_ms = 0
        self.trade_ms = 0
        self._last_id = -1
        self._ids: deque[str] = deque(maxlen=_MOST_IDS)
        self._known: set[str] = set()
        self._lags_ms = [math.inf, math.inf]  # the least of this bucket and of the one before
        self._bucket_end_s = now.s + _BUCKET_S
        for trade in trades:
            self.is_new(trade.trade_id)
            last_ms = trade.ts_ms
        # What was read of a market is as old as its last trade.
        self._heard_s = now.s - max(0.0, (now_ms - last_ms) / 1e3)

    def is_new(self, trade_id: str) -> bool:
        """Tell whether a trade was not heard before, and remember it. Numbers must rise."""
        if trade_id.isdecimal():
            number = int(trade_id)
            if number <= self._last_id:
                return False
            self._last_id = number
            return True
        if trade_id in self._known:
            return False
        if len(self._ids) == _MOST_IDS:
            self._known.discard(self._ids[0])
        self._ids.append(trade_id)
        self._known.add(trade_id)
        return True

    def heard(self, ts_ms: int, now: Now) -> None:
        """Take note of an event of the venue's time ``ts_ms``; a late one is no news."""
        lag_ms = now.s * 1e3 - ts_ms
        lags = self._lags_ms
        if now.s >= self._bucket_end_s:
            self._bucket_end_s = now.s + _BUCKET_S
            lags[:] = math.inf, lags[0]
        if lag_ms < lags[0]:
            lags[0] = lag_ms
        if lag_ms - min(lags) <= _LATE_MS:
            self._heard_s = now.s

    def age_s(self, now: Now) -> float:
        """Return how old the newest knowledge of the market is."""
        return now.s - self._heard_s
