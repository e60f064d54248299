import numpy as np
import numpy.typing as npt

LINEAR_SHARE: float
INVERSE_SHARE: float
WIDEST_GAP: float

def configured_entry_qty(
    wallet: float, price: float, strategy: npt.NDArray[np.void], market: npt.NDArray[np.void]
) -> float: ...
def due_stop(view: npt.NDArray[np.void], strategy: npt.NDArray[np.void]) -> int: ...
def plan_ideal(
    view: npt.NDArray[np.void],
    strategy: npt.NDArray[np.void],
    market: npt.NDArray[np.void],
) -> npt.NDArray[np.void]: ...
def plan_sent(
    ideal: npt.NDArray[np.void],
    view: npt.NDArray[np.void],
    strategy: npt.NDArray[np.void],
    market: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.bool_]]: ...
