from collections.abc import Callable
from enum import IntEnum

import numpy as np
import numpy.typing as npt

EXACT_DTYPE: np.dtype[np.void]
LIMITS_DTYPE: np.dtype[np.void]

class Outcome(IntEnum):
    RUNNING = 0
    END = 1
    LIQUIDATION = 2
    BREAK = 3
    OUT_OF_MEMORY = 4
    BROKEN_IDENTITY = 5
    LIMIT = 6

def run(
    price: npt.NDArray[np.float64],
    qty: npt.NDArray[np.float64],
    ts_ms: npt.NDArray[np.int64],
    buyer_maker: npt.NDArray[np.uint8],
    settings: npt.NDArray[np.void],
    tiers: npt.NDArray[np.void],
    funding: npt.NDArray[np.void],
    *,
    breaks: npt.NDArray[np.void] | None = None,
    limits: npt.NDArray[np.void] | None = None,
    chunk: int = 250_000,
    progress: Callable[[int], object] | None = None,
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void], Outcome, int, int, float, float]: ...
def run_many(
    price: npt.NDArray[np.float64],
    qty: npt.NDArray[np.float64],
    ts_ms: npt.NDArray[np.int64],
    buyer_maker: npt.NDArray[np.uint8],
    candidates: npt.NDArray[np.void],
    tiers: npt.NDArray[np.void],
    funding: npt.NDArray[np.void],
    *,
    breaks: npt.NDArray[np.void] | None = None,
    limits: npt.NDArray[np.void] | None = None,
    chunk: int = 250_000,
    progress: Callable[[int, int], object] | None = None,
) -> list[tuple[npt.NDArray[np.void], npt.NDArray[np.void], Outcome, int, int, float, float]]: ...
