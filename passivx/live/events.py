"""What the core hears, and what it wants done: plain values, nothing that acts.

Times: ``Now.s`` is the monotonic clock, ``Now.ms`` the wall clock, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from passivx.exchanges.base import (
    Account,
    Fill,
    Link,
    MarkPrice,
    NewOrder,
    Order,
    Outcome,
    Payment,
    PublicTrade,
    Rules,
)
from passivx.models import Position

__all__ = [
    "Answered",
    "Cancel",
    "Event",
    "FillSeen",
    "Found",
    "GapSeen",
    "Hold",
    "Intent",
    "LinkSeen",
    "LookUp",
    "MarkSeen",
    "Moment",
    "NotRead",
    "Note",
    "Now",
    "OnExit",
    "OrderSeen",
    "PaymentSeen",
    "Place",
    "PositionSeen",
    "ReadRules",
    "ReadTrades",
    "Reconcile",
    "Record",
    "Requote",
    "RulesRead",
    "Snapshot",
    "Stop",
    "Tick",
    "TradesRead",
    "Unsent",
    "WalletSeen",
]


class Now(NamedTuple):
    """The time of an event by both clocks."""

    s: float
    ms: int


class OnExit(StrEnum):
    """What becomes of orders and position when the bot is stopped."""

    KEEP = "keep"
    CANCEL = "cancel"
    FLATTEN = "flatten"


# --- what is heard --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MarkSeen:
    mark: MarkPrice


@dataclass(frozen=True, slots=True)
class OrderSeen:
    order: Order


@dataclass(frozen=True, slots=True)
class FillSeen:
    fill: Fill


@dataclass(frozen=True, slots=True)
class PaymentSeen:
    payment: Payment


@dataclass(frozen=True, slots=True)
class WalletSeen:
    wallet: float
    ts_ms: int


@dataclass(frozen=True, slots=True)
class PositionSeen:
    position: Position
    ts_ms: int


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """A connection is live, or is not; ``closed``: for good."""

    link: Link
    live: bool
    closed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GapSeen:
    link: Link
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of a place, or of a cancel, of one of our orders."""

    client_id: str
    cancel: bool
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Unsent:
    """Orders of a `Place` that did not leave, because the journal could not take them."""

    client_ids: Sequence[str]
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to `LookUp`; ``order`` None: the venue says that there is none."""

    client_id: str
    order: Order | None
    fills: Sequence[Fill] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer to `Reconcile`; ``epoch`` is the intent's."""

    epoch: int
    account: Account
    orders: Sequence[Order]
    fills: Sequence[Fill]
    payments: Sequence[Payment]


@dataclass(frozen=True, slots=True)
class RulesRead:
    rules: Rules


@dataclass(frozen=True, slots=True)
class TradesRead:
    """Recent public trades, oldest first."""

    trades: Sequence[PublicTrade]


@dataclass(frozen=True, slots=True)
class NotRead:
    """A read failed. ``what`` is the intent's name, ``key`` the client id of a `LookUp`.

    ``fatal``: the venue said that an operator must look.
    """

    what: str
    key: str
    why: str
    retry_after_s: float = 0.0
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """All that one moment brought has been told."""


@dataclass(frozen=True, slots=True)
class Requote:
    """A requote time."""


@dataclass(frozen=True, slots=True)
class Tick:
    """About a second has passed."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Open nothing for a reason outside the core, until it is told with ``why`` "".

    ``everything``: send nothing at all meanwhile.
    """

    name: str
    why: str
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    on_exit: OnExit


Event = (
    MarkSeen
    | OrderSeen
    | FillSeen
    | PaymentSeen
    | WalletSeen
    | PositionSeen
    | LinkSeen
    | GapSeen
    | Answered
    | Unsent
    | Found
    | Snapshot
    | RulesRead
    | TradesRead
    | NotRead
    | Moment
    | Requote
    | Tick
    | Hold
    | Stop
)


# --- what is wanted -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Journal these orders, then send them, once; ``bodies`` are what the journal keeps of each."""

    orders: list[NewOrder]
    bodies: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Cancel:
    orders: list[Order]


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask for one order, and for the fills since then if there is none."""

    client_id: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Read account, open orders, fills and payments since then."""

    epoch: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class ReadRules:
    """Read the venue's rules."""


@dataclass(frozen=True, slots=True)
class ReadTrades:
    """Read recent public trades."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write to the journal, as soon as it takes it."""

    type: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Note:
    """Tell people: ``event`` with fields; ``alert`` for what they should look at."""

    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    alert: bool = False


Intent = Place | Cancel | LookUp | Reconcile | ReadRules | ReadTrades | Record | Note
