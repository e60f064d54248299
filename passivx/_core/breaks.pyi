from enum import IntEnum

import numpy as np
import numpy.typing as npt

INSTRUCTION_DTYPE: np.dtype[np.void]
TRADE_DTYPE: np.dtype[np.void]
N_FACTS: int
STACK_SIZE: int

class Op(IntEnum):
    NUMBER = 0
    FACT = 1
    NEGATIVE = 2
    ABS = 3
    NOT = 4
    ONE_OF = 5
    HOLDS = 6
    SELECT = 7
    ADD = 8
    SUBTRACT = 9
    MULTIPLY = 10
    DIVIDE = 11
    FLOOR_DIVIDE = 12
    MODULO = 13
    POWER = 14
    LESS = 15
    LESS_EQUAL = 16
    EQUAL = 17
    NOT_EQUAL = 18
    GREATER_EQUAL = 19
    GREATER = 20
    DIFFERENT = 21
    AND = 22
    OR = 23
    MIN = 24
    MAX = 25
    CALC_DIFF = 26

class Fact(IntEnum):
    PRICE = 0
    QTY = 1
    TYPE = 2
    SIDE = 3
    POS_PRICE = 4
    POS_SIZE = 5
    LIQ_PRICE = 6
    PNL = 7
    FEE_PAID = 8
    PNL_PLUS_FEE = 9
    PNL_CUMSUM = 10
    PROFIT_CUMSUM = 11
    LOSS_CUMSUM = 12
    FEE_PAID_CUMSUM = 13
    PNL_PLUS_FEES_CUMSUM = 14
    ACTUAL_BALANCE = 15
    APPARENT_BALANCE = 16
    AVERAGE_DAILY_GAIN = 17
    CLOSEST_LIQ = 18
    CLOSEST_LONG_LIQ = 19
    CLOSEST_SHRT_LIQ = 20
    TIMESTAMP = 21
    MILLIS_SINCE_PREV_TRADE = 22
    PROGRESS = 23
    MAX_DRAWDOWN = 24
    TRADE_ID = 25
    N_TRADES = 26
    N_TICKS = 27
    TICK_PRICE = 28

def evaluate(
    program: npt.NDArray[np.void],
    trades: npt.NDArray[np.void],
    *,
    starting_balance: float,
    n_ticks: int,
    start_ms: int,
) -> tuple[int, int]: ...
