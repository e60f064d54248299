from enum import IntEnum
from typing import TypedDict, type_check_only

import numpy as np

STEP_DTYPE: np.dtype[np.void]
MARKET_DTYPE: np.dtype[np.void]
TIER_DTYPE: np.dtype[np.void]
STRATEGY_DTYPE: np.dtype[np.void]
VIEW_DTYPE: np.dtype[np.void]
ORDER_DTYPE: np.dtype[np.void]
FILL_DTYPE: np.dtype[np.void]
EQUITY_DTYPE: np.dtype[np.void]
FUNDING_DTYPE: np.dtype[np.void]

class Kind(IntEnum):
    ENTRY = 1
    REENTRY = 2
    CLOSE = 3
    STOP_LOSS_LIQ_DIFF = 4
    STOP_LOSS_POS_PRICE_DIFF = 5
    FUNDING = 6
    LIQUIDATION = 7

KIND_NAMES: dict[Kind, str]

@type_check_only
class BuildInfo(TypedDict):
    debug: bool
    compiler: str

def build_info() -> BuildInfo: ...
