from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

FLOW_RULES_DTYPE: np.dtype[np.void]
MESSAGE_DTYPE: np.dtype[np.void]
LIVE_DTYPE: np.dtype[np.void]
WORTH_MOVING: Final = 0.0005
QTY_TOLERANCE: Final = 0.05
SUM_NOISE: Final = 1e-9

class LiveState(IntEnum):
    SENT = 1
    IN_BOOK = 2
    CANCELLING = 3

class What(IntEnum):
    PLACE = 1
    PLACE_AT_MARKET = 2
    CANCEL = 3

@disjoint_base
class OrderFlow:
    def __init__(
        self,
        strategy: npt.NDArray[np.void],
        market: npt.NDArray[np.void],
        rules: npt.NDArray[np.void],
        *,
        wallet: float,
    ) -> None: ...
    @property
    def due(self) -> bool: ...
    def see_market(
        self, *, last_price: float, bid: float, ask: float, ema: float, funding_rate: float = ...
    ) -> None: ...
    def account(
        self, *, wallet: float, equity: float, size: float, entry_price: float, liq_price: float
    ) -> None: ...
    def print(self, price: float) -> None: ...
    def filled(self, id: int, qty: float) -> int: ...
    def placed(self, id: int) -> None: ...
    def refused(self, id: int, *, would_take: bool) -> None: ...
    def gone(self, id: int) -> None: ...
    def arrived(self, messages: npt.NDArray[np.void]) -> None: ...
    def plan(self) -> npt.NDArray[np.void]: ...
    def requote(self) -> npt.NDArray[np.void]: ...
    def release(self) -> npt.NDArray[np.void]: ...
    @property
    def live(self) -> npt.NDArray[np.void]: ...
    @property
    def close_base(self) -> float: ...
