"""Time of an exact run's figures.

An optimizer asks for them once a candidate, where the backtest itself takes a few milliseconds.
Run it with

    pytest benchmarks/bench_report.py --benchmark-only

The target is well under a millisecond for 500 records and two months of hourly equity.
"""

from typing import Any

import numpy as np
import pytest

from passivx.report.metrics import EQUITY_DTYPE, exact_summary
from tests.report.test_metrics import HOUR, RECORD_DTYPE


@pytest.mark.parametrize(("n_records", "n_hours"), [(500, 24 * 60), (5000, 24 * 365)])
def test_exact_summary(benchmark: Any, n_records: int, n_hours: int) -> None:
    rng = np.random.default_rng(3)
    fills = np.zeros(n_records, RECORD_DTYPE)
    fills["ts_ms"] = np.sort(rng.integers(0, n_hours * HOUR, n_records))
    fills["kind"] = rng.integers(1, 8, n_records)
    for name in ("price", "qty", "pos_size", "pos_price", "pnl", "balance"):
        fills[name] = rng.uniform(1.0, 100.0, n_records)
    equity = np.zeros(n_records + n_hours, EQUITY_DTYPE)
    equity["ts_ms"] = np.sort(np.append(np.arange(n_hours) * HOUR, fills["ts_ms"]))
    equity["equity"] = rng.uniform(900.0, 1100.0, len(equity))
    figures = benchmark(
        exact_summary,
        fills,
        equity,
        starting_balance=1000.0,
        start_ms=0,
        end_ms=n_hours * HOUR,
        inverse=False,
        leverage=10.0,
        worst_open_loss=-1.0,
        closest_liq=0.5,
    )
    assert figures["n_trades"] + figures["n_fundings"] == n_records
