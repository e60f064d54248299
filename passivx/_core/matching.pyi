from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

EXECUTION_DTYPE: np.dtype[np.void]
RESTING_DTYPE: np.dtype[np.void]
ACCOUNT_DTYPE: np.dtype[np.void]

class FillMode(IntEnum):
    CROSS = 0
    TOUCH = 1
    VOLUME = 2

# execution, account after it, ids the venue cancelled because of it
_Happened = tuple[np.void, np.void, list[int]]

@disjoint_base
class PaperVenue:
    def __init__(
        self,
        market: npt.NDArray[np.void],
        tiers: npt.NDArray[np.void],
        *,
        price: float,
        wallet: float,
        leverage: float,
        cross_mode: bool = True,
        fill_mode: int = ...,
        queue_share: float = 0.0,
        liquidation_fee: float = 0.0,
    ) -> None: ...
    def print(self, price: float, qty: float, buyer_maker: bool) -> list[_Happened]: ...
    def place(
        self,
        id: int,
        side: int,
        price: float,
        qty: float,
        *,
        reduce_only: bool = False,
        at_market: bool = False,
    ) -> tuple[
        Literal["rests", "would_take", "would_not_reduce", "filled", "liquidated"],
        _Happened | None,
    ]: ...
    def cancel(self, id: int, side: int) -> bool: ...
    def settle_funding(self, rate: float) -> float: ...
    def set_terms(
        self, *, leverage: float | None = None, cross_mode: bool | None = None
    ) -> None: ...
    def set_market(self, market: npt.NDArray[np.void], tiers: npt.NDArray[np.void]) -> None: ...
    def deposit(self, amount: float) -> None: ...
    def liquidate(self) -> _Happened | None: ...
    def reduce(self, qty: float, price: float) -> _Happened: ...
    def fill(self, id: int, side: int, qty: float) -> _Happened: ...
    @property
    def last(self) -> float: ...
    @property
    def account(self) -> np.void: ...
    @property
    def touch(self) -> tuple[float, float]: ...
    def orders(self, side: int) -> npt.NDArray[np.void]: ...
