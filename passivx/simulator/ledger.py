"""What happened, line by line: the record that a bot's own account of a run is checked against.

A line is one JSON object. ``event`` is request, order, cancel, fill, funding, liquidation or fault
(besides: amend, deposit, replay); ``ts_ms`` is the protocol's time and ``replay_ts_ms`` that of the
last print, null before the first. Lines are kept as they were given and written when they are read:
taking one down costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import orjson

from passivx.clock import Clock

__all__ = ["Ledger", "Placed"]

# What gives access, under the names both venues have for it: never in a line.
_SECRETS: Final = frozenset(
    (
        *("signature", "sign", "x-bapi-sign", "apikey", "api_key", "x-mbx-apikey"),
        *("x-bapi-api-key", "listenkey", "secret", "authorization"),
    )
)
_HIDDEN: Final = "(hidden)"
# A segment of a path so long is a key to a stream.
_LONGEST_SEGMENT: Final = 40
# No request means anything below: so much nesting is an attack on whoever reads the ledger.
_DEEPEST: Final = 20
_SIDES: Final = {1: "buy", -1: "sell"}
_LINES_HELD: Final = 1024  # before they go to the file


class Placed(Protocol):
    """An order as far as a line tells it; `simulator.venue.SimOrder` is one."""

    order_id: int
    client_id: str
    side: int
    tif: Any
    price: float
    qty: float
    reduce_only: bool


class Ledger:
    """Lines in the order they happened; ``len`` is how many.

    Parameters
    ----------
    clock : Clock
        The protocol's.
    path : Path, optional
        A file that gets the lines too, some at a time; `flush` and `close` bring it up to date.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    replay_ts_ms: int | None
    """Time of the last print, kept up by the venue."""
    order_text: Callable[[int], str]
    """How the venue writes an order's number; set by the venue."""

    def __init__(self, clock: Clock, path: Path | None = None) -> None:
        self.replay_ts_ms = None
        self.order_text = str
        self._clock = clock
        self._lines: list[dict[str, Any]] = []
        self._file: BinaryIO | None = path.open("wb") if path is not None else None
        self._filed = 0

    def append(self, event: str, **fields: object) -> None:
        """Take a line down. What a field refers to must not change afterwards.

        ``order_id`` and ``side`` are numbers as in `simulator.venue`; the line has the venue's text
        and buy or sell.
        """
        line = {
            "event": event,
            "ts_ms": self._clock.time_ms(),
            "replay_ts_ms": self.replay_ts_ms,
            **fields,
        }
        self._lines.append(line)
        if self._file is not None and len(self._lines) - self._filed >= _LINES_HELD:
            self.flush()

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, object],
        *,
        channel: str,
        status: int,
        code: int | str | None = None,
    ) -> None:
        """Take a request and its answer down.

        Parameters
        ----------
        method, path : str
            Of REST; over a socket the method is the operation's name and the path the socket's.
        params : Mapping
            As received; keys, signatures and listen keys are hidden at any depth.
        channel : str
            rest or ws.
        status : int
            Of HTTP; over a socket what the venue gives in its place, else 200.
        code : int or str, optional
            The venue's own, None when the answer has none.
        """
        self.append(
            "request",
            channel=channel,
            method=method,
            path=path,
            params=params,
            status=status,
            code=code,
        )

    def order(
        self,
        order: Placed | Mapping[str, object],
        accepted: bool,
        code: int | str | None = None,
        channel: str = "rest",
    ) -> None:
        """Take an attempt to place an order down: by what it became, or by what was asked for.

        A refused one is a mapping with what is known of client_id, side (1, -1), price, qty,
        reduce_only and post_only; ``code`` is the venue's.
        """
        status = "accepted" if accepted else "rejected"
        if isinstance(order, Mapping):
            asked = dict.fromkeys(
                ("client_id", "order_id", "side", "price", "qty", "reduce_only", "post_only")
            )
            self.append("order", **{**asked, **order}, status=status, code=code, channel=channel)
            return
        self.append(
            "order",
            client_id=order.client_id,
            order_id=order.order_id,
            side=order.side,
            price=order.price,
            qty=order.qty,
            reduce_only=order.reduce_only,
            post_only=order.tif == "POST_ONLY",
            status=status,
            code=code,
            channel=channel,
        )

    def __len__(self) -> int:
        return len(self._lines)

    def since(self, n: int = 0) -> Iterator[bytes]:
        """Yield the lines from the ``n``-th (counted from 0) on, each with its line end."""
        for line in self._lines[max(n, 0) :]:
            yield _line(self._written(line))

    def entries(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines, or those of one event, as the objects their JSON is of."""
        return [
            orjson.loads(_line(self._written(line)))
            for line in self._lines
            if event is None or line["event"] == event
        ]

    def flush(self) -> None:
        """Write what the file does not have yet; nothing without a file."""
        if self._file is not None:
            self._file.write(b"".join(self.since(self._filed)))
            self._file.flush()
            self._filed = len(self._lines)

    def close(self) -> None:
        """Write the rest and close the file; lines can still be taken down and read."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _written(self, line: dict[str, Any]) -> dict[str, Any]:
        out = dict(line)
        if isinstance(out.get("order_id"), int):
            out["order_id"] = self.order_text(out["order_id"])
        if isinstance(out.get("side"), int):
            out["side"] = _SIDES.get(out["side"], out["side"])
        if out["event"] == "request":
            out["params"] = _scrubbed(out["params"])
            out["path"] = _short(out["path"])
        return out


def _line(written: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(written, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A client may have sent what JSON does not hold: the line is written all the same.
        return orjson.dumps(_plain(written), default=str, option=orjson.OPT_APPEND_NEWLINE)


def _plain(value: object, depth: int = 0) -> object:
    if depth == _DEEPEST:
        return _HIDDEN
    if isinstance(value, dict):
        return {_plain(name, depth + 1): _plain(part, depth + 1) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return str(value)
    return value


def _scrubbed(value: object, depth: int = 0) -> object:
    if depth == _DEEPEST:
        return _HIDDEN
    if isinstance(value, Mapping):
        return {
            str(name): _HIDDEN if str(name).lower() in _SECRETS else _scrubbed(part, depth + 1)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_scrubbed(part, depth + 1) for part in value]
    return value


def _short(path: str) -> str:
    parts = path.partition("?")[0].split("/")
    return "/".join(_HIDDEN if len(part) > _LONGEST_SEGMENT else part for part in parts)
