"""A seeded synthetic market: trades for the demo, the simulator and the tests.

The model, an order at a time:

- Orders arrive at random, heavy-tailed intervals whose mean wanders (``pace``): bursts and lulls.
- News comes with some of them. It moves the *value* of the thing and its *mid* price alike, for
  good. Its variance wanders too (``volatility``), slowly; now and then it is a jump.
- A market order takes the side of the one before with probability ``side_persistence``. It prints
  once at the bid (a seller, the buyer is maker) or the ask (a buyer), or is a *sweep* of many
  prints in the same millisecond that may walk through further price levels.
- A sweep leaves the mid a share of the way it walked: that is how taking moves prices. The mid
  then drifts back to the value over ``reversion_s``: round trips around trends.
- The quotes stand until the mid leaves them; then bid and ask, one or more steps apart, are put
  around it. Prices are whole steps, never below one.
- Quantities are independent draws with a heavy tail.

The two presets are calibrated to recorded trades (docs/synthetic.md holds the table and the
command that makes it). It is a toy all the same. There is no queue of orders, no depth, no
reaction to anyone's orders, no funding, no hours of the day, no crowd behind a jump, and
quantities know nothing of prices. What a strategy earns here says nothing about what it would
earn anywhere else, not even its sign: use it to see that things run, never to choose settings.

The same seed and profile give the same trades on every machine: random words are raw PCG64
output, whose stream NumPy guarantees, and they are transformed with + - * /, sqrt and floor
only, which IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from passivx._core.synthetic import (
    DRAWS,
    PRINT_DTYPE,
    SYNTHETIC_PARAMS_DTYPE,
    SYNTHETIC_STATE_DTYPE,
    generate_prints,
)
from passivx.data.ticks import TickReport, Ticks
from passivx.errors import ConfigError, Problem
from passivx.models import step_parts

__all__ = [
    "BTCUSD",
    "BTCUSDT",
    "MarketProfile",
    "SyntheticMarket",
    "synthetic_chunks",
    "synthetic_trades",
]

# Prints made at a time: the random words of a block stay in the cache.
_BLOCK = 8192
# The price stays within this factor of where it started, whatever happens.
_PRICE_RANGE = 100.0
# Median of the kernel's quantity tail, 2 ** (3/4) - 1.
_QTY_TAIL_MEDIAN = 0.681792830507429
# An order's length tail is cut here (TAIL_CAP of the kernel).
_TAIL_CAP = 255

# Inclusive ranges of the plain numbers of a profile; they keep the kernel's arithmetic in bounds.
_RANGES = {
    "start_ts_ms": (0, 10**14),
    "prints_per_second": (1e-3, 1e4),
    "pace_spread": (0.0, 2.0),
    "pace_memory_s": (1e-3, 1e7),
    "sweep": (0.0, 20.0),
    "walk": (0.0, 1.0),
    "level_gap": (0.0, 100.0),
    "side_persistence": (0.0, 1.0),
    "spread": (0.0, 100.0),
    "news": (0.0, 1.0),
    "news_volatility": (0.0, 1.0),
    "volatility_spread": (0.0, 2.0),
    "volatility_memory_s": (1e-3, 1e7),
    "jumps_per_hour": (0.0, 1e3),
    "jump_size": (0.0, 0.2),
    "impact": (0.0, 1.0),
    "reversion_s": (1e-3, 1e9),
    "qty_median": (0.0, 1e7),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketProfile:
    """What a synthetic market is like. ``dataclasses.replace`` makes a variant of a preset.

    Parameters
    ----------
    symbol : str
        What to call it.
    start_price, price_step, qty_step : float
        Quote; the price is at least 1,000 and at most 1e9 steps. Quantities are base units
        (linear) or contracts (inverse).
    start_ts_ms : int
        Time of the first order, give or take one gap. UTC milliseconds.
    prints_per_second : float
        Mean rate of trades.
    pace_spread, pace_memory_s : float
        Relative standard deviation and memory of the wandering mean gap between orders. Memories
        and times are counted in orders; seconds are what those take on average.
    sweep : float
        Tail scale of an order's number of prints, P(more than k) = (1 + k/sweep) ** -2.
    walk, level_gap : float
        Probability that a sweep's next print is at a further level, and the tail scale of the
        price steps beyond one to that level (same tail).
    side_persistence : float
        Probability that an order takes the side of the one before.
    spread : float
        Tail scale of the price steps beyond one between bid and ask (same tail).
    news, news_volatility : float
        Share of orders that bring news; standard deviation of the relative change all news of an
        hour makes, jumps not counted.
    volatility_spread, volatility_memory_s : float
        Relative standard deviation and memory of the wandering variance of news.
    jumps_per_hour, jump_size : float
        Mean number of jumps and the least relative size of one; P(x times that or more) = x ** -4.
    impact : float
        Share of the distance a sweep walked that the mid keeps.
    reversion_s : float
        Mean life of the mid's distance to the value.
    qty_median : float
        Median quantity of a print, in quantity steps.

    Raises
    ------
    ConfigError
        Naming every value out of range.
    """

    symbol: str
    start_price: float
    price_step: float
    qty_step: float
    start_ts_ms: int = 1_704_067_200_000  # 2024-01-01
    prints_per_second: float
    pace_spread: float
    pace_memory_s: float
    sweep: float
    walk: float
    level_gap: float
    side_persistence: float
    spread: float
    news: float
    news_volatility: float
    volatility_spread: float
    volatility_memory_s: float
    jumps_per_hour: float
    jump_size: float
    impact: float
    reversion_s: float
    qty_median: float

    def __post_init__(self) -> None:
        problems = []
        for name in ("price_step", "qty_step"):
            step = getattr(self, name)
            try:
                units, _ = step_parts(step)
            except ValueError as e:
                problems.append(Problem(name, step, str(e)))
            else:
                # Steps times units must be whole numbers that a double holds.
                if units > 1e4:
                    problems.append(Problem(name, step, "must have at most 4 digits"))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                problems.append(Problem(name, value, f"must be within [{low:g}, {high:g}]"))
        if not problems:
            if not 1e3 <= self.start_price / self.price_step <= 1e9:
                wanted = "must be 1,000 to 1e9 price steps"
                problems.append(Problem("start_price", self.start_price, wanted))
            for name in ("pace_memory_s", "volatility_memory_s", "reversion_s"):
                # Shorter memories would let a wandering factor reach 0 (see _noise).
                if getattr(self, name) < 0.02 * self.order_gap_ms:
                    wanted = f"must be at least 20 mean gaps, {0.02 * self.order_gap_ms:g} s"
                    problems.append(Problem(name, getattr(self, name), wanted))
        if problems:
            raise ConfigError(problems)

    @property
    def prints_per_order(self) -> float:
        """Mean number of prints of an order."""
        most = int(self.sweep * _TAIL_CAP)
        # fsum, because sum() adds differently from Python 3.12 on and the stream must not.
        return 1.0 + math.fsum(
            (self.sweep / (self.sweep + k)) * (self.sweep / (self.sweep + k))
            for k in range(1, most + 1)
        )

    @property
    def order_gap_ms(self) -> float:
        """Mean time between two orders, ms."""
        return 1e3 * self.prints_per_order / self.prints_per_second

    def _record(self) -> npt.NDArray[np.void]:
        gap_ms = self.order_gap_ms
        orders_per_hour = 3.6e6 / gap_ms
        start_steps = self.start_price / self.price_step
        p = np.zeros(1, SYNTHETIC_PARAMS_DTYPE)
        p["price_step"]["units"], p["price_step"]["scale"] = step_parts(self.price_step)
        p["qty_step"]["units"], p["qty_step"]["scale"] = step_parts(self.qty_step)
        p["floor_steps"] = start_steps / _PRICE_RANGE
        p["ceiling_steps"] = start_steps * _PRICE_RANGE
        p["gap_ms"] = gap_ms
        for name in ("pace", "volatility"):
            pull = gap_ms / (1e3 * getattr(self, f"{name}_memory_s"))
            p[f"{name}_pull"] = pull
            p[f"{name}_noise"] = _noise(pull, getattr(self, f"{name}_spread"))
        p["news"] = self.news
        if self.news > 0.0:
            p["news_move"] = self.news_volatility / math.sqrt(self.news * orders_per_hour)
        p["jump"] = min(1.0, self.jumps_per_hour / orders_per_hour)
        p["flip"] = 1.0 - self.side_persistence
        p["reversion"] = gap_ms / (1e3 * self.reversion_s)
        p["lots"] = self.qty_median / _QTY_TAIL_MEDIAN
        for name in ("jump_size", "impact", "spread", "sweep", "walk", "level_gap"):
            p[name] = getattr(self, name)
        return p


def _noise(pull: float, spread: float) -> float:
    """Return the noise that gives a wandering factor the standard deviation ``spread``.

    From Var = (1 - pull)² Var + noise² (Var + 1). It stays below sqrt(2 pull), at most 0.32 here,
    and one draw is at most sqrt(3) deviations: the factor keeps over a third of itself.
    """
    variance = spread * spread
    return math.sqrt(variance * pull * (2.0 - pull) / (1.0 + variance))


# Linear, like a USDT-margined perpetual: quantities in coins.
BTCUSDT = MarketProfile(
    symbol="BTCUSDT",
    start_price=60_000.0,
    price_step=0.1,
    qty_step=0.001,
    prints_per_second=20.0,
    pace_spread=0.6,
    pace_memory_s=20.0,
    sweep=2.5,
    walk=0.32,
    level_gap=1.4,
    side_persistence=0.68,
    spread=0.8,
    news=0.12,
    news_volatility=0.006,
    volatility_spread=1.2,
    volatility_memory_s=120.0,
    jumps_per_hour=2.0,
    jump_size=0.001,
    impact=0.4,
    reversion_s=600.0,
    qty_median=16.0,
)

# Inverse, like a coin-margined perpetual: contracts of 1 USD.
BTCUSD = MarketProfile(
    symbol="BTCUSD",
    start_price=60_000.0,
    price_step=0.5,
    qty_step=1.0,
    prints_per_second=5.0,
    pace_spread=0.6,
    pace_memory_s=40.0,
    sweep=1.8,
    walk=0.4,
    level_gap=1.2,
    side_persistence=0.68,
    spread=0.5,
    news=0.2,
    news_volatility=0.006,
    volatility_spread=1.2,
    volatility_memory_s=120.0,
    jumps_per_hour=1.0,
    jump_size=0.0008,
    impact=0.4,
    reversion_s=600.0,
    qty_median=100.0,
)


class SyntheticMarket:
    """An endless market that hands out its prints piece by piece.

    Parameters
    ----------
    seed : int
        >= 0. The stream depends on it and on the profile, not on the sizes of the pieces.
    profile : MarketProfile

    Raises
    ------
    ValueError
        If ``seed`` is negative.
    """

    def __init__(self, seed: int, *, profile: MarketProfile) -> None:
        if seed < 0:
            raise ValueError(f"seed must be >= 0, was {seed}")
        self.profile = profile
        self._source = f"synthetic {profile.symbol}, seed {seed}"
        self._words = np.random.PCG64(seed)
        self._params = profile._record()
        self._state = np.zeros(1, SYNTHETIC_STATE_DTYPE)
        # Quotes of 0 are left at once: the first order puts them around the mid.
        self._state["value"] = self._state["mid"] = float(
            round(Decimal(repr(profile.start_price)) / Decimal(repr(profile.price_step)))
        )
        self._state["side"] = self._state["pace"] = self._state["volatility"] = 1.0
        self._state["ts_ms"] = profile.start_ts_ms
        self._state["trade_id"] = 1

    def prints(self, n: int) -> npt.NDArray[np.void]:
        """Return the next ``n`` prints with the quotes they met: PRINT_DTYPE, shape (n,).

        ``bid`` < ``ask`` always; a buyer-maker print is at or below its bid, any other at or
        above its ask (further away inside a sweep).

        Raises
        ------
        ValueError
            If ``n`` is negative.
        """
        if n < 0:
            raise ValueError(f"n must be >= 0, was {n}")
        out = np.empty(n, PRINT_DTYPE)
        for start in range(0, n, _BLOCK):
            piece = out[start : start + _BLOCK]
            words = self._words.random_raw(len(piece) * DRAWS).reshape(-1, DRAWS)
            generate_prints(piece, self._state, self._params, words)
        return out

    def trades(self, n: int) -> Ticks:
        """Return the next ``n`` trades; ids count from 1 without gaps."""
        prints = self.prints(n)
        return Ticks(
            price=np.ascontiguousarray(prints["price"]),
            qty=np.ascontiguousarray(prints["qty"]),
            ts_ms=np.ascontiguousarray(prints["ts_ms"]),
            buyer_maker=prints["buyer_maker"].astype(np.uint8),
            trade_id=np.ascontiguousarray(prints["trade_id"]),
            report=TickReport(sources=(self._source,), n_rows=n),
        )


def synthetic_trades(seed: int, n: int, *, profile: MarketProfile) -> Ticks:
    """Return the first ``n`` trades of the market with this ``seed``; see SyntheticMarket."""
    return SyntheticMarket(seed, profile=profile).trades(n)


def synthetic_chunks(seed: int, *, profile: MarketProfile, chunk: int = 65_536) -> Iterator[Ticks]:
    """Yield the trades of ``synthetic_trades`` in pieces of ``chunk``, without end.

    Raises
    ------
    ValueError
        If ``seed`` is negative or ``chunk`` is not positive.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be > 0, was {chunk}")
    market = SyntheticMarket(seed, profile=profile)
    while True:
        yield market.trades(chunk)
