from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

LEVEL_DTYPE: np.dtype[np.void]

_Levels = Sequence[Sequence[str | float]] | npt.NDArray[np.float64]

class BookEvent(IntEnum):
    APPLIED = 0
    DROPPED = 1
    GAP = 2
    CROSSED = 3

@disjoint_base
class L2Book:
    def __init__(self, max_levels: int = 10_000) -> None: ...
    def snapshot(self, bids: _Levels, asks: _Levels, update_id: int) -> BookEvent: ...
    def on_binance(
        self, first_id: int, last_id: int, previous_id: int, bids: _Levels, asks: _Levels
    ) -> BookEvent: ...
    def on_bybit(
        self, update_id: int, bids: _Levels, asks: _Levels, *, snapshot: bool
    ) -> BookEvent: ...
    def discard(self) -> None: ...
    def depth(self, n: int) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]: ...
    @property
    def in_step(self) -> bool: ...
    @property
    def update_id(self) -> int: ...
    @property
    def bid(self) -> float: ...
    @property
    def bid_qty(self) -> float: ...
    @property
    def ask(self) -> float: ...
    @property
    def ask_qty(self) -> float: ...
