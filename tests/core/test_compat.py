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

from tests.core.markets import draw_ticks
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


def draw_settings(
    rng: np.random.Generator, price: float, step: float, volatility: float
) -> dict[str, Any]:
    """Settings that trade on such a market, some of them then replaced by corner cases."""

    def around(x: float, decades: float = 0.5) -> float:
        return float(f"{x * 10 ** rng.uniform(-decades, decades):.3g}")

    inverse = bool(rng.random() < 0.4)
    qty_step = float(rng.choice([1, 10])) if inverse else 10.0 ** int(rng.integers(-6, 3))
    lots = around(300.0, 2.5)  # size of a first entry in quantity steps
    notional = lots * qty_step / price if inverse else lots * qty_step * price
    entry_qty_pct = around(0.02)
    leverage = float(rng.integers(2, 60))
    min_markup = around(volatility * 3)
    corners: dict[str, list[Any]] = {
        "qty_step": [qty_step * 5, qty_step * 25, qty_step * 0.5],
        "min_qty": [0.0, qty_step * 5, qty_step * 0.5],
        "price_step": [step * 10, step * 0.5, step * 100],
        "min_cost": [notional * 0.1, notional * 10.0, 1e6],
        "maker_fee": [-0.00025, 0.0, 0.01],
        "max_leverage": [1, 5],
        "balance_pct": [1.0, 1e-3],
        "entry_qty_pct": [0.2, 1.0, -0.05, 0.0],
        "ddown_factor": [0.0, 10.0],
        "ema_span": [1.0, 1e4, 1e9],
        "ema_spread": [around(volatility), around(volatility * 5), -0.001],
        "grid_coefficient": [0.0, 1e4],
        "grid_spacing": [1e-9, 0.3, 2.0],
        "leverage": [1.0, 2.5, 100.0, 125.0],
        "stop_loss_liq_diff": [0.0, 1.0, 1e9],
        "stop_loss_pos_price_diff": [0.0, 1.0, 1e9],
        "min_markup": [0.0, step / price, 0.05],
        "max_markup": [min_markup, min_markup / 2, 0.0, 0.05],
        "min_close_qty_multiplier": [0.0, 0.01, 3.0],
        "n_close_orders": [0, 0.5, 1, 1.5, 2, 2.5, 7, 8, 9, 15.74, 127, 128, 129, 130, 256, 300],
        "stop_loss_pos_reduction": [0.0, 1.0, 2.0],
        "do_long": [False],
        "do_shrt": [False],
        "latency_simulation_ms": [0, 1000.5, 60_000],
    }
    settings = {
        "inverse": inverse,
        "price_step": step,
        "qty_step": qty_step,
        "min_qty": qty_step,
        "min_cost": 0.0,
        "maker_fee": 0.0002,
        "taker_fee": 0.0004,
        "max_leverage": int(rng.integers(20, 126)),
        "starting_balance": float(f"{max(notional / leverage / entry_qty_pct, 1e-6):.6g}"),
        "balance_pct": float(rng.choice([1.0, 0.5, 0.873])),
        "entry_qty_pct": entry_qty_pct,
        "ddown_factor": around(0.7),
        "ema_span": float(rng.choice([2.0, 15.5, 300.0])),
        "ema_spread": 0.0,
        "grid_coefficient": around(30.0, 1.0),
        "grid_spacing": around(volatility * 8),
        "leverage": leverage,
        "stop_loss_liq_diff": around(0.05, 1.0),
        "stop_loss_pos_price_diff": around(volatility * 40, 1.0),
        "min_markup": min_markup,
        "max_markup": min_markup + min(around(volatility * 10), 0.2),
        "min_close_qty_multiplier": float(rng.choice([0.01, 0.1, 0.5, 1.0])),
        "n_close_orders": int(rng.choice([1, 2, 3, 5, 7, 8, 9, 20, 64, 128, 130, 200])),
        "stop_loss_pos_reduction": around(0.1),
        "do_long": True,
        "do_shrt": True,
        "latency_simulation_ms": int(rng.choice([0, 200, 1000])),
    }
    often = rng.choice([0.0, 0.05, 0.15, 0.6])
    for name, values in corners.items():
        if rng.random() < often:
            settings[name] = values[int(rng.integers(len(values)))]
    if rng.random() < often:
        settings["starting_balance"] *= 10 ** rng.uniform(-4, -1)
    return settings


def draw(seed: int) -> tuple[Ticks, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ticks, step, volatility = draw_ticks(rng, int(rng.choice([2, 50, 300, 1000, 1000, 3000])))
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


CALM = {
    "inverse": False,
    "price_step": 0.1,
    "qty_step": 0.001,
    "min_qty": 0.001,
    "min_cost": 0.0,
    "maker_fee": 0.0,
    "taker_fee": 0.0,
    "max_leverage": 50,
    "starting_balance": 1000.0,
    "balance_pct": 1.0,
    "entry_qty_pct": 0.1,
    "ddown_factor": 1.0,
    "ema_span": 10.0,
    "ema_spread": 0.0,
    "grid_coefficient": 10.0,
    "grid_spacing": 0.01,
    "leverage": 10.0,
    "stop_loss_liq_diff": 0.01,
    "stop_loss_pos_price_diff": 0.5,
    "min_markup": 0.001,
    "max_markup": 0.01,
    "min_close_qty_multiplier": 0.1,
    "n_close_orders": 5,
    "stop_loss_pos_reduction": 0.1,
    "do_long": True,
    "do_shrt": True,
    "latency_simulation_ms": 0,
}


def ticks_of(*prints: tuple[float, int]) -> Ticks:
    """(price, is_buyer_maker) pairs a second apart."""
    price, maker = zip(*prints, strict=True)
    return (
        np.array(price, dtype=np.float64),
        np.arange(1, len(price) + 1, dtype=np.int64) * 1000,
        np.array(maker, dtype=np.uint8),
    )


@pytest.mark.parametrize("chunk", [0, -1, -(10**9)])
def test_refuses_a_chunk_that_never_ends(chunk: int) -> None:
    with pytest.raises(ValueError, match="chunk must be >= 1"):
        run_engine(*ticks_of((100.0, 1), (99.0, 1)), CALM, chunk=chunk)


@pytest.mark.parametrize("n_close_orders", [10_001, 1e12, 1e300])
def test_refuses_a_close_grid_too_long_to_walk(n_close_orders: float) -> None:
    settings = CALM | {"n_close_orders": n_close_orders}
    with pytest.raises(ValueError, match="n_close_orders must be <= 10000"):
        run_engine(*ticks_of((100.0, 1), (99.0, 1)), settings)


def test_a_chunk_of_repeated_prices_changes_nothing() -> None:
    # Eleven ticks a price, four a chunk: some chunks hold no tick that counts.
    prints = [(100.0, 1), (99.0, 1), (99.5, 0), (99.0, 1)]
    ticks = ticks_of(*(one for one in prints for _ in range(11)))
    assert compare(ticks, CALM, chunk=4) == {"long entry": 1, "end": 1}


def test_the_tick_that_liquidates_counts_as_looked_at() -> None:
    # An entry on the second tick; the fourth gaps to within the range that liquidates.
    ticks = ticks_of((100.0, 1), (99.0, 1), (99.5, 0), (80.0, 1), (81.0, 1), (82.0, 0))
    settings = CALM | {"entry_qty_pct": 1.0, "leverage": 25.0, "max_leverage": 125}
    rows, outcome, thinned = run_engine(*ticks, settings)
    assert (len(rows), outcome, thinned) == (1, "long_liquidation", 4)


@pytest.mark.parametrize("block", range(8))
def test_ends_whatever_finite_settings_it_is_given(block: int) -> None:
    # The config layer refuses these; the engine must neither crash nor run for ever on them.
    extremes = [0.0, -1.0, 1e-300, 1e-12, 0.5, 1.0, 9999.0, 1e12, 1e300, -1e12]
    for seed in range(block * 100, block * 100 + 100):
        rng = np.random.default_rng(seed)
        ticks, settings = draw(seed)
        ticks = (ticks[0][:300], ticks[1][:300], ticks[2][:300])
        numbers = sorted(name for name, value in settings.items() if not isinstance(value, bool))
        for name in rng.choice(numbers, int(rng.integers(1, 8)), replace=False):
            settings[str(name)] = float(rng.choice(extremes))
        settings["n_close_orders"] = min(settings["n_close_orders"], 10_000)
        if len(np.unique(ticks[0])) > 1:
            rows, outcome, thinned = run_engine(*ticks, settings)
            assert len(rows) <= thinned <= len(ticks[0]), f"seed {seed}"
            assert outcome == "end" or rows, f"seed {seed}"


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
    window = slice(start, start + n)
    price, ts_ms, maker = ticks[0][window], ticks[1][window], ticks[2][window]
    step = float(np.min(np.abs(np.diff(np.unique(price)))))
    settings = draw_settings(rng, float(price[0]), float(f"{step:.3g}"), 10 ** rng.uniform(-4, -3))
    compare((price, ts_ms, maker), settings)
