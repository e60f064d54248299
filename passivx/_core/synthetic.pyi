import numpy as np
import numpy.typing as npt

SYNTHETIC_PARAMS_DTYPE: np.dtype[np.void]
SYNTHETIC_STATE_DTYPE: np.dtype[np.void]
PRINT_DTYPE: np.dtype[np.void]
DRAWS: int

def generate_prints(
    out: npt.NDArray[np.void],
    state: npt.NDArray[np.void],
    params: npt.NDArray[np.void],
    words: npt.NDArray[np.uint64],
) -> None: ...
