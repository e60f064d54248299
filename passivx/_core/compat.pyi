from collections.abc import Callable

import numpy as np
import numpy.typing as npt

MAX_CLOSE_ORDERS: int
COMPAT_DTYPE: np.dtype[np.void]
COMPAT_FILL_DTYPE: np.dtype[np.void]

def run(
    price: npt.NDArray[np.float64],
    ts_ms: npt.NDArray[np.int64],
    buyer_maker: npt.NDArray[np.uint8],
    settings: npt.NDArray[np.void],
    *,
    breaks: npt.NDArray[np.void] | None = None,
    chunk: int = 10_000_000,
    progress: Callable[[int], object] | None = None,
) -> tuple[npt.NDArray[np.void], bool, int, int]: ...
