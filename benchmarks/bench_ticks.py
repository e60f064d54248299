"""How long trades take to load, per packing of the file, beside numpy.loadtxt, and in what memory.

A backtest starts with this, so it decides how soon the first result of a new data set is seen;
numpy.loadtxt is the reason the project has a scanner of its own. The file is synthetic: a random
walk in the simple csv format, 38 bytes a line. Times include reading, unpacking and all checks.

    PASSIVX_BENCH_ROWS=10000000 pytest benchmarks/bench_ticks.py --benchmark-only
"""

import gzip
import os
import zipfile

import numpy as np
import pytest

from benchmarks.memory import needs_peak_counter, peak_growth
from passivx.data.ticks import load_ticks

N_ROWS = int(os.environ.get("PASSIVX_BENCH_ROWS", "1_000_000"))
DTYPE = [("trade_id", "i8"), ("price", "f8"), ("qty", "f8"), ("ts_ms", "i8"), ("maker", "u1")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write the same trades as csv, csv.gz and zip; return the folder."""
    rng = np.random.default_rng(1)
    price = np.maximum(26_514 + np.cumsum(rng.integers(-1, 2, N_ROWS)), 1) / 1000
    qty = rng.integers(1, 500, N_ROWS) / 10
    times = 1_769_901_943_540 + np.cumsum(rng.integers(0, 30, N_ROWS))
    maker = rng.integers(0, 2, N_ROWS)
    rows = zip(price.tolist(), qty.tolist(), times.tolist(), maker.tolist(), strict=True)
    lines = [f"{i},{p:.3f},{q:.1f},{t},{m}\n" for i, (p, q, t, m) in enumerate(rows, 179_200_000)]
    text = "".join(["trade_id,price,qty,timestamp,is_buyer_maker\n", *lines]).encode()
    folder = tmp_path_factory.mktemp("ticks")
    (folder / "ticks.csv").write_bytes(text)
    (folder / "ticks.csv.gz").write_bytes(gzip.compress(text, 6))
    with zipfile.ZipFile(folder / "ticks.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ticks.csv", text)
    return folder


@pytest.mark.parametrize("name", ["ticks.csv", "ticks.csv.gz", "ticks.zip"])
def test_load_ticks(benchmark, files, name):
    ticks = benchmark.pedantic(load_ticks, args=(files / name,), rounds=3, warmup_rounds=1)
    assert len(ticks) == N_ROWS


@needs_peak_counter
@pytest.mark.parametrize("name", ["ticks.csv", "ticks.csv.gz", "ticks.zip"])
def test_memory(benchmark, files, name):
    """Peak growth while loading, as a multiple of the arrays that remain."""
    kept = []
    grown = benchmark.pedantic(
        peak_growth, args=(lambda: kept.append(load_ticks(files / name)),), rounds=1
    )
    (ticks,) = kept
    columns = (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker, ticks.trade_id)
    ratio = grown / sum(column.nbytes for column in columns)
    benchmark.extra_info["peak_growth_over_arrays"] = ratio
    print(f"\n{name}: peak growth {ratio:.2f} times the arrays")
    assert ratio < 3.0 or N_ROWS < 5_000_000


def test_numpy_loadtxt(benchmark, files):
    rows = benchmark.pedantic(
        np.loadtxt,
        args=(files / "ticks.csv",),
        kwargs={"delimiter": ",", "dtype": DTYPE, "skiprows": 1},
        rounds=3,
    )
    assert len(rows) == N_ROWS
