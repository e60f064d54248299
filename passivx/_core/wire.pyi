from collections.abc import Callable
from typing import NoReturn

from typing_extensions import disjoint_base

_Step = tuple[float, float]
_Sign = Callable[[bytes], bytes]

def decimal_text(x: float, step: _Step, *, name: str = "x") -> str: ...

@disjoint_base
class Hmac:
    def __init__(self, secret: bytes) -> None: ...
    def sign(self, message: bytes | bytearray | memoryview) -> bytes: ...
    def __reduce__(self) -> NoReturn: ...

@disjoint_base
class BinanceOrderText:
    def __init__(
        self,
        api_key: str,
        symbol: str,
        price_step: _Step,
        qty_step: _Step,
        sign: _Sign,
        *,
        recv_window_ms: int = 5000,
    ) -> None: ...
    def place(
        self,
        id: str,
        ts_ms: int,
        client_id: str,
        side: int,
        price: float,
        qty: float,
        *,
        reduce_only: bool = False,
        at_market: bool = False,
    ) -> bytes: ...
    def modify(
        self,
        id: str,
        ts_ms: int,
        side: int,
        price: float,
        qty: float,
        *,
        order_id: str = "",
        client_id: str = "",
        reduce_only: bool = False,
    ) -> bytes: ...
    def cancel(self, id: str, ts_ms: int, *, order_id: str = "", client_id: str = "") -> bytes: ...

@disjoint_base
class BybitOrderText:
    def __init__(
        self,
        symbol: str,
        category: str,
        price_step: _Step,
        qty_step: _Step,
        *,
        recv_window_ms: int = 5000,
    ) -> None: ...
    def place(
        self,
        id: str,
        ts_ms: int,
        client_id: str,
        side: int,
        price: float,
        qty: float,
        *,
        reduce_only: bool = False,
        at_market: bool = False,
    ) -> bytes: ...
    def modify(
        self,
        id: str,
        ts_ms: int,
        price: float,
        qty: float,
        *,
        order_id: str = "",
        client_id: str = "",
    ) -> bytes: ...
    def cancel(self, id: str, ts_ms: int, *, order_id: str = "", client_id: str = "") -> bytes: ...
