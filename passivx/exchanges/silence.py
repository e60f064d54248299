"""Whether a market is quiet, or its topic of trades silent: subscribed, acknowledged and dead."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from passivx.clock import Clock
from passivx.errors import VenueError
from passivx.exchanges.base import PublicTrade
from passivx.exchanges.stream import Stream

__all__ = ["TradeWatch"]

log = logging.getLogger(__name__)

# A market without trades for so long is asked about over REST.
_TRADE_AGE_S: Final = 30.0
# What REST knows and the stream should long have told.
_TRADE_LATE_S: Final = 5.0


class TradeWatch:
    """Asks REST for the newest trade when a stream has told none for long; renews it if it should.

    ``recent`` reads that trade, ``venue_ms`` tells the venue's time. Trades may come on several
    topics of one socket, and other data say nothing about theirs.
    """

    def __init__(
        self,
        *,
        recent: Callable[[], Awaitable[PublicTrade | None]],
        venue_ms: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._recent, self._venue_ms, self._clock = recent, venue_ms, clock
        self._last_ms = 0
        self._traded_s = clock.monotonic_s()

    def seen(self, ts_ms: int) -> None:
        """Take note of a trade, at the venue's time."""
        self._last_ms = ts_ms
        self._traded_s = self._clock.monotonic_s()

    def connected(self) -> None:
        """Take note that the stream is live anew."""
        self._traded_s = self._clock.monotonic_s()

    async def run(self, stream: Stream, topic: str) -> None:
        """Look again and again; until cancelled."""
        looked_s = self._clock.monotonic_s()
        while True:
            now_s = self._clock.monotonic_s()
            wait_s = max(self._traded_s, looked_s) + _TRADE_AGE_S - now_s
            if wait_s > 0.0:
                await self._clock.sleep(wait_s)
                continue
            looked_s = now_s
            silent_s = now_s - self._traded_s
            if not stream.live:
                continue
            try:
                newest = await self._recent()
            except VenueError as e:
                log.warning("stream=%s: trades not asked for: %s", stream.name, e)
                continue
            # A first trade that is older than the connection says nothing.
            known_ms = self._last_ms or self._venue_ms() - round(silent_s * 1000)
            if newest is None or newest.ts_ms <= known_ms:
                continue
            # It may be on its way; what was asked for is what must have come by then.
            await self._clock.sleep(_TRADE_LATE_S)
            if stream.live and self._last_ms < newest.ts_ms:
                stream.renew(f"no data of {topic}, but there are trades")
