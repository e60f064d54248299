"""What the planner, the rounding and the tick EMA cost.

Run ``pytest benchmarks/bench_core.py --benchmark-only``. Times of the doors
include Python's call and the fresh array a door returns; ``extra_info`` holds the time per unit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from passivx._core import calc, grid
from passivx._core.ema import TickEma, tick_ema
from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, VIEW_DTYPE


def record(dtype: np.dtype[np.void], **values: Any) -> npt.NDArray[np.void]:
    out = np.zeros(1, dtype)
    for name, value in values.items():
        out[name] = value
    return out


def inputs(size: float, rungs: int) -> tuple[npt.NDArray[np.void], ...]:
    view = record(
        VIEW_DTYPE,
        wallet=10_000.0,
        equity=10_000.0,
        size=size,
        entry_price=30_000.0 if size else 0.0,
        last_price=30_000.0,
        bid=29_999.9,
        ask=30_000.1,
        ema=30_000.0,
        funding_rate=math.nan,
        close_base=size,
    )
    strategy = record(
        STRATEGY_DTYPE,
        balance_pct=1.0,
        leverage=20.0,
        entry_qty_pct=0.001,
        ddown_factor=0.01,
        grid_spacing=0.001,
        grid_coefficient=1.0,
        min_markup=0.001,
        max_markup=0.001 + 0.0001 * rungs,
        min_close_qty_multiplier=0.0,
        stop_loss_pos_price_diff=1e9,
        stop_loss_pos_reduction=0.01,
        ema_spread=0.0005,
        max_order_distance=0.05,
        n_close_orders=rungs,
        n_entry_orders=rungs,
        do_long=1,
        do_short=1,
    )
    market = record(
        MARKET_DTYPE,
        price_step=(1, 10),
        qty_step=(1, 1000),
        min_qty=0.001,
        min_cost=5.0,
        notional_cap=math.inf,
    )
    return view, strategy, market


@pytest.mark.parametrize(("size", "rungs", "orders"), [(0.0, 8, 2), (0.5, 8, 16), (0.5, 200, 400)])
def test_plan(benchmark: BenchmarkFixture, size: float, rungs: int, orders: int) -> None:
    """One plan: flat, 8 rungs and 8 closes, 200 and 200."""
    records = inputs(size, rungs)
    assert len(grid.plan_ideal(*records)) == orders
    benchmark(grid.plan_ideal, *records)


@pytest.mark.parametrize("rounding", [calc.floor_to, calc.near_to], ids=["floor", "near"])
def test_rounding(benchmark: BenchmarkFixture, rounding: Callable[..., float]) -> None:
    """One value through a door: mostly the price of a Python call."""
    benchmark(rounding, 12_345.678, (1.0, 10.0))


def test_ema_update(benchmark: BenchmarkFixture) -> None:
    """One tick through the streaming door, every tick a new price."""
    ema = TickEma(100.0, span=5000.0)
    prices = [100.0 + 0.1 * (i % 7) for i in range(1000)]

    def run() -> None:
        update = ema.update
        for price in prices:
            update(price)

    benchmark(run)
    if benchmark.stats:
        benchmark.extra_info["ns_per_tick"] = benchmark.stats.stats.median * 1e9 / len(prices)


@pytest.mark.parametrize("changing", [1.0, 0.3], ids=["every tick changes", "30 % change"])
def test_ema_array(benchmark: BenchmarkFixture, changing: float) -> None:
    """A million ticks; the branch on repeated prices costs more than the arithmetic."""
    rng = np.random.default_rng(1)
    n = 1_000_000
    moves = rng.choice([-0.1, 0.1], n) * (rng.random(n) < changing)
    prices = 30_000.0 + np.cumsum(moves)
    benchmark(tick_ema, prices, span=5000.0)
    if benchmark.stats:
        benchmark.extra_info["ns_per_tick"] = benchmark.stats.stats.median * 1e9 / n
