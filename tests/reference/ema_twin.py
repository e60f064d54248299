"""The tick EMA in a few lines of Python: what ``_core/ema`` must equal to the last bit."""

from __future__ import annotations

from collections.abc import Iterable


class EmaTwin:
    """Starts at the first price; a tick that repeats the price before it changes nothing."""

    def __init__(self, price: float, span: float) -> None:
        self.alpha = 2.0 / (span + 1.0)
        self.beta = 1.0 - self.alpha
        self.value = self.last = price

    def update(self, price: float) -> float:
        if price != self.last:
            self.value = self.value * self.beta + price * self.alpha
            self.last = price
        return self.value


def tick_ema(prices: Iterable[float], span: float) -> list[float]:
    prices = list(prices)
    if not prices:
        return []
    twin = EmaTwin(prices[0], span)
    return [prices[0], *(twin.update(price) for price in prices[1:])]
