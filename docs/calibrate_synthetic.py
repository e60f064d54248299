"""Measure recorded trades and the synthetic presets side by side; print the table of synthetic.md.

    python docs/calibrate_synthetic.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from passivx.data.synthetic import SyntheticTrades

Floats = npt.NDArray[np.float64]

# File below the data folder, price step, quantity step (data/README.md).
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
    price: Floats, qty: Floats, ts_ms: Floats, buyer_maker: Floats, *, price_step: float, qty_step: float
) -> dict[str, float]:
    """Return the statistics of a trade stream that the model is meant to resemble."""
    steps = np.rint(price / price_step)
    moves = np.diff(steps)
    sold = buyer_maker != 0
    same = sold[1:] == sold[:-1]
    moved = np.abs(moves[moves != 0])
    gaps = np.diff(ts_ms)
    hours = (ts_ms[-1] - ts_ms[0]) / 3.6e6
    lots = np.rint(qty / qty_step)
    # A bounce: the side flips and the price moves toward the new side (ask above bid).
    flips = ~same
    toward = np.where(sold[1:], -moves, moves)
    per_second = np.bincount(((ts_ms - ts_ms[0]) // 1000.0).astype(np.int64))
    result = {
        "prints per second": len(price) / (hours * 3600.0),
        "share of equal prices": float((moves == 0).mean()),
        "median |move| when moved, bp": float(np.median(moved / steps[1:][moves != 0]) * 1e4),
        "p99 |move|, bp": float(np.quantile(np.abs(moves) / steps[1:], 0.99) * 1e4),
        "median |move| when moved, steps": float(np.median(moved)),
        "p99 |move|, steps": float(np.quantile(np.abs(moves), 0.99)),
        "share of moves of 1 step": float((moved == 1).mean()),
        "P(same side)": float(same.mean()),
        "mean run of a side": float(len(sold) / (1 + flips.sum())),
        "P(equal price | same side)": float((moves[same] == 0).mean()),
        "P(toward new side | flip)": float((toward[flips] > 0).mean()),
        "median bounce, steps": float(np.median(toward[flips])),
        "autocorr of moves, lag 1": autocorrelation(moves, 1),
        "autocorr of sides, lag 10": autocorrelation(sold.astype(np.float64), 10),
        "share of buyer-maker prints": float(sold.mean()),
        "share of 0 ms gaps": float((gaps == 0).mean()),
        "CV of gaps": float(gaps.std() / gaps.mean()),
        "Fano of prints per second": float(per_second.var() / per_second.mean()),
        "autocorr of prints per second": autocorrelation(per_second.astype(np.float64), 1),
        "qty median, steps": float(np.median(lots)),
        "qty mean / median": float(lots.mean() / np.median(lots)),
        "qty p99 / median": float(np.quantile(lots, 0.99) / np.median(lots)),
        "qty share of 1 step": float((lots == 1).mean()),
    }
    for seconds in (1, 10, 60):
        r = bar_returns(price, ts_ms, seconds)
        result[f"volatility per hour, % ({seconds} s)"] = float(
            np.sqrt((r**2).mean() * 3600 / seconds) * 100
        )
        result[f"kurtosis {seconds} s"] = kurtosis(r)
        result[f"autocorr |return| {seconds} s, lag 1"] = autocorrelation(np.abs(r), 1)
        result[f"autocorr |return| {seconds} s, lag 5"] = autocorrelation(np.abs(r), 5)
        result[f"autocorr return {seconds} s, lag 1"] = autocorrelation(r, 1)
        result[f"share of still bars {seconds} s"] = float((r == 0).mean())
    result["max-min range, %"] = float((price.max() / price.min() - 1) * 100)
    return result


if __name__ == "__main__":
    t = {}
    for name, (file, ps, qs) in RECORDED.items():
        t[name] = measure(*read_trades(Path("/work/shared/data") / file), price_step=ps, qty_step=qs)
    for k in t["BTCUSDT 2020"]:
        print(f"{k:38s}", *(f"{t[n][k]:12.4g}" for n in t))
