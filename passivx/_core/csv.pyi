from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy.typing as npt

class Decode(IntEnum):
    FLOAT = 0
    INT = 1
    SECONDS = 2
    FLAG = 3
    SIDE = 4

class CsvError(ValueError):
    row: int
    field: int | None
    text: str
    reason: str
    def __init__(self, row: int, field: int | None, text: str, reason: str) -> None: ...

def scan(
    data: bytes | bytearray | memoryview, columns: Sequence[tuple[int, Decode]], n_fields: int
) -> list[npt.NDArray[Any]]: ...
