"""Reads the original program's results and the ticks they were made on, in place."""

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

N_CASES = 22

Ticks = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]


@lru_cache(maxsize=1)
def load_cases(shared: Path) -> list[dict[str, Any]]:
    with gzip.open(shared / "golden" / "compat_cases.json.gz") as file:
        cases: list[dict[str, Any]] = json.load(file)
    return cases


@lru_cache(maxsize=4)
def load_trades(path: Path) -> Ticks:
    """Columns price, timestamp and is_buyer_maker of a csv.gz with a header."""
    trades = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 3, 4))
    return (
        np.ascontiguousarray(trades[:, 0]),
        trades[:, 1].astype(np.int64),
        trades[:, 2].astype(np.uint8),
    )
