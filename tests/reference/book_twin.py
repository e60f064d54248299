"""The order book once more, slow and plain: two dicts, and the venues' rules read off the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pair = Sequence[str | float]


class BookTwin:
    """As `L2Book`, its answers as words."""

    def __init__(self, max_levels: int = 10_000) -> None:
        self.max_levels = max_levels
        self.discard()

    def discard(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.update_id: int | None = None  # None: nothing is known
        self.linked = False

    def best(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())

    def snapshot(self, bids: Iterable[Pair], asks: Iterable[Pair], update_id: int) -> str:
        self.discard()
        return self._apply(bids, asks, update_id)

    def on_binance(
        self, first: int, last: int, previous: int, bids: Iterable[Pair], asks: Iterable[Pair]
    ) -> str:
        if self.update_id is None:
            return "GAP"
        if self.linked:
            follows = previous == self.update_id and first <= last
        elif last < self.update_id:
            return "DROPPED"
        else:
            follows = first <= self.update_id <= last
        if not follows:
            self.discard()
            return "GAP"
        self.linked = True
        return self._apply(bids, asks, last)

    def on_bybit(
        self, update_id: int, bids: Iterable[Pair], asks: Iterable[Pair], *, snapshot: bool
    ) -> str:
        if snapshot or update_id == 1:
            return self.snapshot(bids, asks, update_id)
        if self.update_id is None or update_id != self.update_id + 1:
            self.discard()
            return "GAP"
        return self._apply(bids, asks, update_id)

    def _apply(self, bids: Iterable[Pair], asks: Iterable[Pair], update_id: int) -> str:
        for levels, changes, worst in ((self.bids, bids, min), (self.asks, asks, max)):
            for price, qty in changes:
                levels.pop(float(price), None)
                if float(qty) > 0.0:
                    levels[float(price)] = float(qty)
                if len(levels) > self.max_levels:
                    del levels[worst(levels)]
        if self.bids and self.asks and max(self.bids) >= min(self.asks):
            self.discard()
            return "CROSSED"
        self.update_id = update_id
        return "APPLIED"
