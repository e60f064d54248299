"""How long one million trades take to load, per packing of the file, and beside numpy.loadtxt.

A backtest starts with this, so it decides how soon the first result of a new data set is seen;
numpy.loadtxt is the reason the project has a scanner of its own. The file is synthetic: a random
walk in the simple csv format, 38 bytes a line. Times include reading, unpacking and all checks.

    pytest benchmarks/bench_ticks.py --benchmark-only
"""

import gzip
import zipfile

import numpy as np
import pytest

from passivx.data.ticks import load_ticks

N_ROWS = 1_000_000
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
    ticks = benchmark.pedantic(load_ticks, args=(files / name,), rounds=5, warmup_rounds=1)
    assert len(ticks) == N_ROWS


def test_numpy_loadtxt(benchmark, files):
    rows = benchmark.pedantic(
        np.loadtxt,
        args=(files / "ticks.csv",),
        kwargs={"delimiter": ",", "dtype": DTYPE, "skiprows": 1},
        rounds=3,
    )
    assert len(rows) == N_ROWS
