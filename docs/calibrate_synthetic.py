"""Measure recorded trades and the synthetic presets side by side; print the table of synthetic.md.

python docs/calibrate_synthetic.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from passivx.data.synthetic import BTCUSD, BTCUSDT, synthetic_trades

Floats = npt.NDArray[np.float64]

# File below the data folder, price step, quantity step. RIVERUSDT is aggregated: prints of one
# order at one price are one row, so equal prices and its moves do not compare with the rest.
RECORDED = {
    "RIVERUSDT 2026": ("binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz", 0.001, 0.1),
    "BTCUSDT 2020": ("binance_usdm/BTCUSDT-trades-2020-02-22T00.csv.gz", 0.01, 0.001),
    "BTCUSDT 2024": ("binance_usdm/BTCUSDT-trades-2024-08-08T2354.csv.gz", 0.1, 0.001),
    "TRXUSD 2025": ("binance_coinm/TRXUSD_PERP-trades-2025-03-04T00.csv.gz", 0.00001, 1.0),
}


def read_trades(path: Path) -> tuple[Floats, Floats, Floats, Floats]:
    """Return price, qty, ts_ms and buyer_maker of one recorded file, each shape (n,)."""
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.reader(file))[1:]
    columns = np.array(rows, dtype=np.float64).T
    return columns[1], columns[2], columns[3], columns[4]


def bar_returns(price: Floats, ts_ms: Floats, seconds: int) -> Floats:
    """Return log returns between the last prints of consecutive clock bars (empty bars: 0)."""
    edges = np.arange(ts_ms[0], ts_ms[-1], 1000.0 * seconds)
    last = np.searchsorted(ts_ms, edges, side="right") - 1
    return np.diff(np.log(price[last]))


def autocorrelation(x: Floats, lag: int) -> float:
    """Return the sample autocorrelation of ``x`` at ``lag``; NaN when there is too little."""
    if len(x) < 30 + lag or not x.std():
        return float("nan")
    d = x - x.mean()
    return float((d[lag:] @ d[:-lag]) / (d @ d))


def kurtosis(x: Floats) -> float:
    """Return excess kurtosis; NaN below 100 values, where it says nothing."""
    if len(x) < 100 or not x.std():
        return float("nan")
    d = x - x.mean()
    return float((d**4).mean() / (d**2).mean() ** 2 - 3.0)


def measure(
    price: Floats,
    qty: Floats,
    ts_ms: Floats,
    buyer_maker: Floats,
    *,
    price_step: float,
    qty_step: float,
) -> dict[str, float]:
    """Return the statistics of a trade stream that the model is meant to share with real ones."""
    steps = np.rint(price / price_step)
    lots = np.rint(qty / qty_step)
    moves = np.diff(steps)
    distance = np.abs(moves)
    sold = buyer_maker != 0
    same = sold[1:] == sold[:-1]
    # The bounce: how far the price goes toward the new side when the side changes.
    bounce = np.where(sold[1:], -moves, moves)[~same]
    gaps = np.diff(ts_ms)
    seconds = (ts_ms[-1] - ts_ms[0]) / 1e3
    per_second = np.bincount(((ts_ms - ts_ms[0]) // 1e3).astype(np.int64)).astype(np.float64)
    result = {
        "prints a second": len(price) / seconds,
        "equal to the price before": float((distance == 0).mean()),
        "the same, side unchanged": float((distance[same] == 0).mean()),
        "moves that are 1 step": float((distance[distance > 0] == 1).mean()),
        "p99 of moves, steps": float(np.quantile(distance, 0.99)),
        "p99 of moves, bp": float(np.quantile(distance / steps[1:], 0.99) * 1e4),
        "autocorrelation of moves": autocorrelation(moves, 1),
        "side as before": float(same.mean()),
        "mean run of a side, prints": float(len(sold) / (1 + (~same).sum())),
        "autocorrelation of side, lag 10": autocorrelation(sold.astype(np.float64), 10),
        "buyer-maker prints": float(sold.mean()),
        "side change moves price its way": float((bounce > 0).mean()),
        "median bounce, steps": float(np.median(bounce)),
        "gaps of 0 ms": float((gaps == 0).mean()),
        "mean gap, ms": float(gaps.mean()),
        "CV of gaps": float(gaps.std() / gaps.mean()),
        "Fano factor of prints a second": float(per_second.var() / per_second.mean()),
        "autocorrelation of prints a second": autocorrelation(per_second, 1),
        "quantity median, steps": float(np.median(lots)),
        "quantity mean / median": float(lots.mean() / np.median(lots)),
        "quantity p99 / median": float(np.quantile(lots, 0.99) / np.median(lots)),
        "volatility, % an hour": 0.0,
    }
    for bar in (1, 10, 60):
        r = bar_returns(price, ts_ms, bar)
        if bar == 10:
            hourly = np.sqrt((r**2).mean() * 3600 / bar)
            result["volatility, % an hour"] = float(hourly * 100)
        result[f"excess kurtosis, {bar} s"] = kurtosis(r)
        result[f"autocorrelation of return sizes, {bar} s"] = autocorrelation(np.abs(r), 1)
        result[f"autocorrelation of returns, {bar} s"] = autocorrelation(r, 1)
    return result


def measure_recorded(data: Path) -> dict[str, dict[str, float]]:
    """Measure every recorded file below ``data``."""
    return {
        name: measure(*read_trades(data / file), price_step=price_step, qty_step=qty_step)
        for name, (file, price_step, qty_step) in RECORDED.items()
    }


def measure_synthetic(
    seeds: Iterable[int] = range(1, 6), n: int = 200_000
) -> dict[str, dict[str, float]]:
    """Measure ``n`` trades of both presets; each figure is the median over ``seeds``."""
    table = {}
    for profile in (BTCUSDT, BTCUSD):
        runs = []
        for seed in seeds:
            t = synthetic_trades(seed, n, profile=profile)
            runs.append(
                measure(
                    t.price,
                    t.qty,
                    t.ts_ms.astype(np.float64),
                    t.buyer_maker.astype(np.float64),
                    price_step=profile.price_step,
                    qty_step=profile.qty_step,
                )
            )
        table[profile.symbol] = {
            name: float(np.median([run[name] for run in runs])) for name in runs[0]
        }
    return table


def markdown(table: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, one column an entry of ``table``."""
    yield f"| | {' | '.join(table)} |"
    yield "|---" + "|---:" * len(table) + "|"
    for row in next(iter(table.values())):
        cells = (table[name][row] for name in table)
        yield f"| {row} | {' | '.join('–' if np.isnan(x) else f'{x:.3g}' for x in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    default = Path(os.environ.get("PASSIVX_REAL_DATA", beside))
    parser.add_argument("--data", type=Path, default=default, help="folder of the recorded trades")
    args = parser.parse_args()
    synthetic = {f"**{name}**": column for name, column in measure_synthetic().items()}
    print("\n".join(markdown(measure_recorded(args.data) | synthetic)))


if __name__ == "__main__":
    main()
