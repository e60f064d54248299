"""Random trades for the engines' tests."""

import numpy as np

from tests.golden.compat_cases import Ticks


def draw_ticks(rng: np.random.Generator, n: int) -> tuple[Ticks, float, float]:
    """A random walk on a price grid; also its price step and its volatility per tick."""
    start = 10 ** rng.uniform(-5, 5)
    units = int(rng.choice([1, 1, 1, 2, 5, 25]))
    # From ten steps in the price to a million.
    decimals = max(0, int(np.ceil(rng.uniform(1, 6) - np.log10(start / units))))
    decimals = min(decimals, 10)
    step = units / 10**decimals
    volatility = max(10 ** rng.uniform(-5, -2), step / start * rng.uniform(0.2, 2))
    change = rng.standard_normal(n) * volatility
    if rng.random() < 0.3:
        change += rng.choice([-1, 1]) * volatility / 10
    else:  # comes back, so that grids and closes take turns
        path = np.cumsum(change)
        change -= 0.02 * np.concatenate([[0.0], path[:-1]])
    if rng.random() < 0.2:
        for at in rng.integers(0, n, int(rng.integers(1, 4))):
            change[at] += np.log1p(rng.choice([-0.3, 0.3, -0.1, 0.1]))
    if rng.random() < 0.3:  # calm runs and wild ones
        change *= np.repeat(10 ** rng.uniform(-1.5, 0.5, n // 50 + 1), 50)[:n]
    k = np.maximum(np.rint(start * np.exp(np.cumsum(change)) * 10**decimals / units), 1)
    price = k * units / 10**decimals

    sides = rng.choice(["move", "move", "random", "runs", "rare"], p=[0.3, 0.3, 0.2, 0.15, 0.05])
    if sides == "move":  # a rise is bought, a fall is sold, with some noise
        maker = (np.diff(k, prepend=k[0]) < 0) ^ (rng.random(n) < 0.15)
    elif sides == "random":
        maker = rng.random(n) < rng.choice([0.5, 0.3, 0.7])
    elif sides == "runs":
        run = int(rng.integers(20, 300))
        maker = np.repeat(rng.random(n // run + 1) < 0.5, run)[:n]
    else:
        maker = rng.random(n) < rng.choice([0.02, 0.98])

    pace = int(rng.choice([0, 1, 50, 400, 400, 5000]))
    ts_ms = np.cumsum(rng.integers(0, pace + 1, n)).astype(np.int64)
    # From 0 on, the first fills can come sooner than the latency after "never".
    ts_ms += int(rng.choice([0, 100, 1_600_000_000_000, 1_600_000_000_000]))
    return (price, ts_ms, maker.astype(np.uint8)), step, volatility
