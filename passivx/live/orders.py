"""Our orders, each from the moment it is meant to the moment nothing can happen to it any more.

The rule for an order whose fate is unknown (docs/live.md): it counts at full size and keeps its
place in the grid until a stream, a query or a fill tells; it is given up only when the venue could
no longer accept it, has said twice that there is no such order, and knows no fill of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from passivx._core.types import KIND_NAMES, Kind
from passivx.exchanges.base import NewOrder, Order, OrderStatus

__all__ = [
    "CLOSING",
    "FENCE_S",
    "PREFIX",
    "Ours",
    "State",
    "body_of",
    "closing_order",
    "instance_of",
    "is_own_id",
    "kind_of",
    "make_id",
    "ours_of_body",
]

PREFIX: Final = "pvx-"
"""What every client id of every bot begins with: nobody else's orders are ever touched."""

CLOSING: Final = Kind.STOP_LOSS_POS_PRICE_DIFF
"""What an order that closes the position at the end goes by."""

# Both clients have the venue refuse what arrives later than this after it was stamped.
_RECV_WINDOW_S: Final = 5.0
FENCE_S: Final = _RECV_WINDOW_S + 2.0
"""After so long the venue accepts an order no more, s."""

_LETTERS: Final[dict[int, str]] = {
    Kind.ENTRY: "e",
    Kind.REENTRY: "r",
    Kind.CLOSE: "c",
    Kind.STOP_LOSS_LIQ_DIFF: "s",
    Kind.STOP_LOSS_POS_PRICE_DIFF: "p",
}
_KINDS: Final = {letter: int(kind) for kind, letter in _LETTERS.items()}
_ID: Final = re.compile(r"pvx-([ercsp])-([a-z0-9]{1,12})-(\d{1,15})")
_WORDS: Final = {int(kind): name for kind, name in KIND_NAMES.items()}
_NAMES: Final = {name: kind for kind, name in _WORDS.items()}


class State(StrEnum):
    """What is known of an order."""

    SENT = "sent"  # no answer yet
    OPEN = "open"  # the venue has it
    UNKNOWN = "unknown"  # no answer will come: it must be looked up
    FINAL = "final"


@dataclass(slots=True, kw_only=True)
class Ours:
    """One order of ours; ``id`` is the flow's number, 0 for one that is outside the grid."""

    id: int
    client_id: str
    side: int
    price: float
    qty: float
    reduce_only: bool
    at_market: bool
    kind: int
    ideal_price: float
    ideal_qty: float
    sent_s: float
    sent_ms: int
    state: State = State.SENT
    order_id: str = ""
    filled: float = 0.0  # of the fills that were booked
    told_filled: float = 0.0  # of what the venue says of the order
    told_ms: int = 0
    told: Order | None = None  # the venue's last word
    ended: OrderStatus | None = None  # final by the venue's word, while fills may be missing
    reason: str = ""
    placing: bool = True  # the flow waits for the message to arrive
    cancelling: bool = False  # the same for a cancel
    cancel_answered: bool = False
    cancel_unknown: bool = False
    cancel_s: float = 0.0
    ask_s: float | None = None  # when to look it up
    asking: bool = False
    asked: int = 0  # since the last answer
    not_found: int = 0
    again: bool = False  # sent anew after a refusal
    not_found_s: float = 0.0

    @property
    def final(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state is State.FINAL

    @property
    def left(self) -> float:
        """What may still fill."""
        return max(0.0, self.qty - self.filled)

    def as_order(self) -> Order:
        """Return it as a cancel names it."""
        told = self.told
        if told is not None and told.client_id == self.client_id:
            return told
        return Order(
            client_id=self.client_id,
            order_id=self.order_id,
            side=self.side,
            price=self.price,
            qty=self.qty,
            filled_qty=self.filled,
            reduce_only=self.reduce_only,
            status=OrderStatus.NEW,
            ts_ms=self.told_ms,
        )

    def as_new(self) -> NewOrder:
        """Return it as it is sent."""
        return NewOrder(
            client_id=self.client_id,
            side=self.side,
            price=self.price,
            qty=self.qty,
            reduce_only=self.reduce_only,
            at_market=self.at_market,
        )

    def begin_cancel(self, now_s: float) -> None:
        """Take note that a cancel is sent now."""
        self.cancelling = True
        self.cancel_answered = self.cancel_unknown = False
        self.cancel_s = now_s

    def is_news(self, order: Order) -> bool:
        """Tell whether a word about it is newer than what is known: states never run backwards."""
        if self.ended is not None:
            return order.status.final and order.filled_qty > self.told_filled
        if order.status.final:
            return True
        return (order.filled_qty, order.ts_ms) >= (self.told_filled, self.told_ms)


def make_id(kind: int, instance: str, number: int) -> str:
    """Return a client id that says whose and what it is; no two runs make the same."""
    return f"{PREFIX}{_LETTERS[kind]}-{instance}-{number}"


def is_own_id(client_id: str) -> bool:
    """Tell whether a client id is of this program, this run's or another's."""
    return client_id.startswith(PREFIX)


def instance_of(client_id: str) -> str:
    """Return the run that made a client id, "" if none did."""
    parts = _ID.fullmatch(client_id)
    return parts[2] if parts else ""


def kind_of(client_id: str, *, reduce_only: bool) -> int:
    """Return what an order was for."""
    parts = _ID.fullmatch(client_id)
    if parts:
        return _KINDS[parts[1]]
    return int(Kind.CLOSE if reduce_only else Kind.REENTRY)


def closing_order(
    client_id: str, size: float, price: float, *, most: float, sent_s: float, sent_ms: int
) -> Ours:
    """Return a market order, outside the grid, that closes a position, ``most`` of it at once."""
    return Ours(
        id=0,
        client_id=client_id,
        side=-1 if size > 0.0 else 1,
        price=price,
        qty=min(abs(size), most),
        reduce_only=True,
        at_market=True,
        kind=int(CLOSING),
        ideal_price=price,
        ideal_qty=abs(size),
        sent_s=sent_s,
        sent_ms=sent_ms,
    )


def body_of(order: Ours) -> dict[str, Any]:
    """Return what the journal keeps of an intent."""
    return {
        "side": order.side,
        "price": order.price,
        "qty": order.qty,
        "reduce_only": order.reduce_only,
        "at_market": order.at_market,
        "kind": _WORDS[order.kind],
        "ideal_price": order.ideal_price,
        "ideal_qty": order.ideal_qty,
    }


def ours_of_body(client_id: str, body: dict[str, Any], *, sent_s: float, sent_ms: int) -> Ours:
    """Return the order of an intent that an earlier run has journaled; nothing is known of it."""
    return Ours(
        id=0,
        client_id=client_id,
        side=body["side"],
        price=body["price"],
        qty=body["qty"],
        reduce_only=body["reduce_only"],
        at_market=body["at_market"],
        kind=_NAMES[body["kind"]],
        ideal_price=body["ideal_price"],
        ideal_qty=body["ideal_qty"],
        sent_s=sent_s,
        sent_ms=sent_ms,
        state=State.UNKNOWN,
        placing=False,
    )
