"""The compat engine against its twin on random markets and settings, biased to nasty corners.

A failure names its seed: ``compare(*draw(seed))`` replays it. PASSIVX_FUZZ_RUNS and
PASSIVX_FUZZ_SEED set the number of nightly cases and the first seed.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden.compat_cases import Ticks, load_trades
from tests.reference.compat_door import FIELDS, run_engine
from tests.reference.compat_twin import run_compat

BLOCK = 25
BLOCKS = 16
NIGHTLY_RUNS = int(os.environ.get("PASSIVX_FUZZ_RUNS", "20000"))
NIGHTLY_SEED = int(os.environ.get("PASSIVX_FUZZ_SEED", "1000000"))
REAL_FILES = (
    "binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz",
    "binance_usdm/BTCUSDT-trades-2020-02-22T00.csv.gz",
    "binance_usdm/BTCUSDT-trades-2024-08-08T2354.csv.gz",
    "binance_coinm/TRXUSD_PERP-trades-2025-03-04T00.csv.gz",
)


def draw_ticks(rng: np.random.Generator, n: int) -> tuple[Ticks, float, float]:
    """A random walk on a price grid; also its price step and its volatility per tick."""
    start = 10 ** rng.uniform(-5, 5)
    decimals = int(rng.integers(0, 9))
    units = int(rng.choice([1, 1, 1, 2, 5, 25]))
    # At least ten steps of price, so that the walk can move at all.
    while start < 10 * units / 10**decimals:
        decimals += 1
    step = units / 10**decimals
    volatility = 10 ** rng.uniform(-5, -2)
    change = rng.standard_normal(n) * volatility + rng.choice([0, 0, -1, 1]) * volatility / 5
    if rng.random() < 0.25:  # gaps
        for at in rng.integers(0, n, int(rng.integers(1, 4))):
            change[at] += np.log1p(rng.choice([-0.3, 0.3, -0.1, 0.1]))
    if rng.random() < 0.3:  # calm runs and wild ones
        change *= np.repeat(10 ** rng.uniform(-1.5, 0.5, n // 50 + 1), 50)[:n]
    k = np.maximum(np.rint(start * np.exp(np.cumsum(change)) * 10**decimals / units), 1)
    price = k * units / 10**decimals

    sides = rng.choice(["move", "random", "runs", "rare"])
    if sides == "move":  # a rise is bought, a fall is sold, with some noise
        maker = (np.diff(k, prepend=k[0]) < 0) ^ (rng.random(n) < 0.15)
    elif sides == "random":
        maker = rng.random(n) < rng.choice([0.5, 0.3, 0.7])
    elif sides == "runs":
        run = int(rng.integers(20, 300))
        maker = np.repeat(rng.random(n // run + 1) < 0.5, run)[:n]
    else:
        maker = rng.random(n) < rng.choice([0.02, 0.98])

    pace = int(rng.choice([0, 1, 50, 400, 5000]))
    ts_ms = np.cumsum(rng.integers(0, pace + 1, n)).astype(np.int64)
    # From 0 on, the first fills can come sooner than the latency after "never".
    ts_ms += int(rng.choice([0, 100, 1_600_000_000_000]))
    return (price, ts_ms, maker.astype(np.uint8)), step, volatility


def draw_settings(
    rng: np.random.Generator, price: float, step: float, volatility: float
) -> dict[str, Any]:
    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    def around(x: float, decades: float = 1.0) -> float:
        return float(f"{x * 10 ** rng.uniform(-decades, decades):.3g}")

    inverse = bool(rng.random() < 0.4)
    qty_step = float(one_of(1.0, 1.0, 10.0)) if inverse else 10.0 ** int(rng.integers(-6, 3))
    if not inverse and rng.random() < 0.1:
        qty_step *= one_of(5, 25, 0.5)
    min_qty = qty_step * one_of(1, 1, 1, 1, 5, 0.5, 0)
    lots = around(300.0, 2.5)  # size of a first entry in quantity steps
    entry_qty_pct = one_of(around(0.02), around(0.02), around(0.2, 0.7), 1.0, -0.05)
    leverage = float(one_of(1, 2.5, 10, 33, 50, 100, 125))
    notional = lots * qty_step / price if inverse else lots * qty_step * price
    balance = float(f"{max(notional / leverage / abs(entry_qty_pct), 1e-6):.6g}")
    if rng.random() < 0.1:
        balance = float(f"{balance * 10 ** rng.uniform(-4, -1):.6g}")
    spacing = one_of(
        around(volatility * 5), around(volatility * 20), around(volatility * 20), 1e-9, 0.3
    )
    min_markup = one_of(around(volatility * 3), around(volatility * 3), 0.0, step / price)
    max_markup = one_of(
        min_markup + around(volatility * 10), min_markup * 3, min_markup, min_markup / 2, 0.05
    )
    return {
        "inverse": inverse,
        "price_step": step * float(one_of(1, 1, 1, 10, 0.5)),
        "qty_step": qty_step,
        "min_qty": float(min_qty),
        "min_cost": one_of(0.0, 0.0, around(notional), around(notional * 10)),
        "maker_fee": one_of(0.0002, 0.0002, -0.00025, 0.0, 0.01),
        "taker_fee": 0.0004,
        "max_leverage": one_of(50, 100, 125, 5),
        "starting_balance": balance,
        "balance_pct": one_of(1.0, 1.0, 0.5, 0.123),
        "entry_qty_pct": entry_qty_pct,
        "ddown_factor": one_of(0.0, 0.02, 0.5, 1.0, 2.43),
        "ema_span": one_of(1.0, 2.0, 15.5, 300.0, 1e4, 1e9),
        "ema_spread": one_of(0.0, 0.0, around(volatility), around(volatility * 5), -0.001),
        "grid_coefficient": one_of(0.0, around(30.0), around(100.0)),
        "grid_spacing": spacing,
        "leverage": leverage,
        "stop_loss_liq_diff": one_of(0.0, 0.01, 0.1, 1e9, around(volatility * 20)),
        "stop_loss_pos_price_diff": one_of(0.0, around(volatility * 20), 0.05, 0.5, 1e9),
        "min_markup": min_markup,
        "max_markup": max_markup,
        "min_close_qty_multiplier": one_of(0.0, 0.01, 0.1, 0.5, 1.0, 3.0),
        "n_close_orders": one_of(
            0, 1, 2, 3, 7, 8, 9, 15.74, 0.5, 1.5, 2.5, 20, 64, 127, 128, 129, 130, 200, 256, 300
        ),
        "stop_loss_pos_reduction": one_of(0.0, 0.05, 0.3, 1.0, 2.0),
        "do_long": one_of(True, True, True, False),
        "do_shrt": one_of(True, True, True, False),
        "latency_simulation_ms": one_of(0, 0, 200, 1000, 1000.5, 60_000),
    }


def draw(seed: int) -> tuple[Ticks, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ticks, step, volatility = draw_ticks(rng, int(rng.choice([2, 50, 300, 600, 600, 3000])))
    while len(np.unique(ticks[0])) < 2:
        ticks, step, volatility = draw_ticks(rng, 300)
    settings = draw_settings(rng, float(ticks[0][0]), step, volatility)
    return ticks, settings


def bits(value: Any) -> Any:
    """Equal for equal bits: NaN equals NaN, and -0.0 is not 0.0."""
    if isinstance(value, float):
        return "nan" if value != value else value.hex()
    return value


def compare(ticks: Ticks, settings: dict[str, Any], *, chunk: int = 10_000_000) -> Counter[str]:
    """Assert that engine and twin agree on every bit; return what the run contained."""
    want, want_outcome, want_thinned = run_compat(*ticks, settings)
    got, outcome, thinned = run_engine(*ticks, settings, chunk=chunk)
    for row, twin in zip(got, want, strict=False):
        differing = {
            name: (row[name], twin[name]) for name in FIELDS if bits(row[name]) != bits(twin[name])
        }
        assert not differing, f"tick {twin['trade_id']}, (engine, twin): {differing}"
    assert (len(got), outcome, thinned) == (len(want), want_outcome, want_thinned)
    seen = Counter(row["side"] + " " + row["type"] for row in want)
    seen[outcome] += 1
    return seen


def fuzz(seeds: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            seen += compare(*draw(seed), chunk=1 + seed % 700)
        except Exception as e:
            e.add_note(f"replay with: compare(*draw({seed}), chunk={1 + seed % 700})")
            raise
    return seen


@pytest.mark.parametrize("block", range(BLOCKS))
def test_engine_equals_twin_on_random_markets(block: int) -> None:
    seen = fuzz(range(block * BLOCK, (block + 1) * BLOCK))
    assert sum(seen.values()) > 4 * BLOCK, "the random markets hardly trade: the test proves little"


def test_random_markets_reach_every_kind_of_fill() -> None:
    seen: Counter[str] = Counter()
    for seed in range(5000, 5150):
        ticks, settings = draw(seed)
        rows, outcome, _ = run_engine(*ticks, settings)
        seen.update(row["side"] + " " + row["type"] for row in rows)
        seen[outcome] += 1
    kinds = ("entry", "reentry", "close", "stop_loss_liq_diff", "stop_loss_pos_price_diff")
    wanted = {f"{side} {kind}" for side in ("long", "shrt") for kind in kinds}
    wanted |= {"end", "long_liquidation", "shrt_liquidation"}
    assert wanted <= set(seen)


@pytest.mark.nightly
def test_engine_equals_twin_on_many_random_markets() -> None:
    seen = fuzz(range(NIGHTLY_SEED, NIGHTLY_SEED + NIGHTLY_RUNS))
    print(f"\n{NIGHTLY_RUNS} cases from seed {NIGHTLY_SEED}: {dict(seen)}")


@pytest.mark.real_data
@pytest.mark.parametrize("seed", range(40))
def test_engine_equals_twin_on_windows_of_real_trades(seed: int, real_data: Path) -> None:
    rng = np.random.default_rng(seed)
    ticks = load_trades(real_data / REAL_FILES[seed % len(REAL_FILES)])
    n = int(rng.integers(300, 3000))
    start = int(rng.integers(0, len(ticks[0]) - n))
    price, ts_ms, maker = (column[start : start + n] for column in ticks)
    step = float(np.min(np.abs(np.diff(np.unique(price)))))
    settings = draw_settings(rng, float(price[0]), float(f"{step:.3g}"), 10 ** rng.uniform(-4, -3))
    compare((price, ts_ms, maker), settings)
