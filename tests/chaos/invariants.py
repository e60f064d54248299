"""What must hold whatever goes wrong, checked against the venue's own record.

Every check is a function of plain lists: ledger lines (`passivx.simulator.ledger`, as JSON gives
them) and journal entries (`passivx.live.journal.read_entries`). None asks the bot what it thinks.
A `Violation` names the invariant (I1 to I13) and the ledger line it shows at.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from passivx._core.calc import near_to
from passivx.config import Config
from passivx.live.journal import Entry
from passivx.models import Market, step_parts

__all__ = ["Book", "Span", "Subject", "Violation", "check_all", "replayed"]

Line = dict[str, Any]

OWN = re.compile(r"pvx-([ercsp])-([a-z0-9]+)-(\d+)")
# Of the maximum position; docs/planner.md.
_SHARE = {False: 0.92, True: 0.95}
# A wallet that has just fallen may not have reached the bot yet.
_WALLET_MS = 2_000
# What refuses an order for its form: the venue's rules were known wrongly.
_FILTER_CODES = {
    "binance": {-1013, -1111, -4001, -4002, -4003, -4004, -4005, -4013, -4014, -4023, -4164},
    "bybit": {110003, 110009, 110094, 10001},
}
_TOO_OFTEN = {429, 418, 403, -1003, -1015, 10006, 10018, 10429, 10403}
# An answer that says: it is as you want it.
_WELL = (None, 0, 200, 110043, 34040, 110025, 110026, -4046, -4059)
_MOMENTARY = frozenset(("timestamp", "signature", "recvWindow", "id", "reqId"))
_STALE_MS = 10_000
_SLACK_MS = 1_500
_MONEY = 1e-8


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be; ``line`` counts from 0, -1 when it is about no line."""

    invariant: str
    text: str
    line: int = -1

    def __str__(self) -> str:
        where = f" (ledger line {self.line})" if self.line >= 0 else ""
        return f"{self.invariant}: {self.text}{where}"


@dataclass(frozen=True, slots=True)
class Span:
    """Ledger lines [first, last) during which the bot had to be silent.

    ``creates``: only about new orders; ``but``: letters of client ids that may come all the same.
    """

    first: int
    last: int
    why: str
    creates: bool = True
    but: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a run was, besides its record."""

    exchange: str
    config: Config
    market: Market
    wallet: float
    flattens: bool = False
    spans: Sequence[Span] = ()
    starts: Sequence[int] = ()  # where in the ledger a process of the bot began
    ended: int | None = None  # and where the last one ended: orders that it left may fill later


@dataclass(slots=True)
class Placed:
    """An order that the venue has accepted."""

    client_id: str
    order_id: str
    side: int
    price: float
    left: float
    reduce_only: bool

    @property
    def letter(self) -> str:
        found = OWN.fullmatch(self.client_id)
        return found[1] if found else ""


@dataclass(slots=True)
class Book:
    """The account as the lines so far leave it; ``base`` is what the close grid is built from."""

    wallet: float
    size: float = 0.0
    base: float = 0.0
    live: dict[str, Placed] = field(default_factory=dict)
    # What happened to orders whose own line comes after it.
    early: dict[str, float] = field(default_factory=dict)

    def ours(self) -> Iterator[Placed]:
        return (order for order in self.live.values() if order.letter)


def replayed(
    lines: Sequence[Line], wallet: float, market: Market
) -> Iterator[tuple[int, Line, Book]]:
    """Yield every line with the account before it; it is taken in before the next one."""
    book = Book(wallet)
    step = step_parts(market.qty_step)
    for i, line in enumerate(lines):
        yield i, line, book
        _take(book, line, step)
    yield len(lines), {"event": "end"}, book


def _take(book: Book, line: Line, step: Any) -> None:
    event = line["event"]
    if event == "order" and line["status"] == "accepted":
        left = near_to(max(0.0, line["qty"] - book.early.pop(line["order_id"], 0.0)), step)
        if left > 0.0:
            book.live[line["order_id"]] = Placed(
                line["client_id"] or "",
                line["order_id"],
                1 if line["side"] == "buy" else -1,
                line["price"] or 0.0,
                left,
                bool(line["reduce_only"]),
            )
    elif event == "amend" and line["order_id"] in book.live:
        order = book.live[line["order_id"]]
        order.price, order.left = line["price"], line["qty"]
    elif event == "cancel":
        if book.live.pop(line["order_id"], None) is None:
            book.early[line["order_id"]] = math.inf
    elif event in ("fill", "liquidation"):
        found = book.live.get(line["order_id"])
        grown = abs(line["position"]) > abs(book.size)
        flipped = line["position"] * book.size < 0.0
        book.size, book.wallet = line["position"], line["wallet"]
        letter = OWN.fullmatch(line["client_id"] or "")
        if grown or flipped or (letter and letter[1] in "sp"):
            book.base = abs(book.size)
        if found is not None:
            found.left = near_to(max(0.0, found.left - line["qty"]), step)
            if not found.left > 0.0:
                del book.live[line["order_id"]]
        else:
            early = book.early.get(line["order_id"], 0.0)
            book.early[line["order_id"]] = early + line["qty"]
    elif event in ("funding", "deposit"):
        book.wallet = line["wallet"]


# --- the invariants -------------------------------------------------------------------------------


def exposure(
    lines: Sequence[Line], entries: Sequence[Entry], subject: Subject
) -> Iterator[Violation]:
    """I1: what all increasing orders together could lead to stays within config × wallet.

    The wallet is that of the moment the order was meant: it may have been long on its way.
    """
    meant_ms = {e.key: e.ts_ms for e in entries if e.type == "intent"}
    config, market = subject.config, subject.market
    wallets = [(0, subject.wallet)]
    for i, line, book in replayed(lines, subject.wallet, market):
        if line["event"] in ("fill", "liquidation", "funding", "deposit"):
            wallets.append((line["ts_ms"], line["wallet"]))
        if line["event"] != "order" or line["status"] != "accepted" or line["reduce_only"]:
            continue
        if not OWN.fullmatch(line["client_id"] or ""):
            continue
        side = 1 if line["side"] == "buy" else -1
        same = [o for o in book.ours() if o.side == side and not o.reduce_only]
        worst = side * book.size + sum(o.left for o in same) + line["qty"]
        prices = [line["price"], *(o.price for o in same)]
        # In force until the next one came, hence also the last one before that time.
        since_ms = min(line["ts_ms"], meant_ms.get(line["client_id"], line["ts_ms"])) - _WALLET_MS
        recent = [
            wallet
            for k, (_, wallet) in enumerate(wallets)
            if k + 1 == len(wallets) or wallets[k + 1][0] >= since_ms
        ]
        budget = max(recent) * config.balance_pct * config.leverage
        per = max(prices) if market.inverse else 1.0 / min(prices)
        most = _SHARE[market.inverse] * budget * per
        if worst > most + market.qty_step * (1.0 + 1e-6):
            yield Violation(
                "I1",
                f"{line['client_id']} makes {worst:g} possible, at most {most:g} by the config",
                i,
            )


def at_most_once(
    lines: Sequence[Line], entries: Sequence[Entry], subject: Subject
) -> Iterator[Violation]:
    """I2: an id is accepted once, and a slot of the grid holds one live order.

    A slot is an ideal price: post-only may bring several closes to one price.
    """
    ideal = {e.key: e.body["ideal_price"] for e in entries if e.type == "intent"}
    accepted: set[str] = set()
    for i, line, book in replayed(lines, subject.wallet, subject.market):
        if line["event"] != "order" or line["status"] != "accepted":
            continue
        client_id = line["client_id"] or ""
        own = OWN.fullmatch(client_id)
        if not own:
            continue
        if client_id in accepted:
            yield Violation("I2", f"{client_id} was accepted twice", i)
        accepted.add(client_id)
        side = 1 if line["side"] == "buy" else -1
        slot = ideal.get(client_id, line["price"])
        for other in book.ours():
            if other.side != side or other.reduce_only != bool(line["reduce_only"]):
                continue
            same = ideal.get(other.client_id, other.price) == slot
            alone = own[1] == other.letter == "e" or (own[1] in "sp" and other.letter in "sp")
            if same or alone:
                yield Violation(
                    "I2",
                    f"{client_id} ({line['side']} {line['price']}) beside {other.client_id}, which "
                    f"rests at {other.price}",
                    i,
                )


def write_ahead(lines: Sequence[Line], entries: Sequence[Entry]) -> Iterator[Violation]:
    """I3: what the venue has accepted is in the journal as an intent, as it was meant."""
    intents = {e.key: e for e in entries if e.type == "intent"}
    skewed = any(line["event"] == "fault" and line["do"] == "clock.skew" for line in lines)
    for i, line in enumerate(lines):
        if line["event"] != "order" or line["status"] != "accepted":
            continue
        client_id = line["client_id"] or ""
        if not OWN.fullmatch(client_id):
            continue
        entry = intents.get(client_id)
        if entry is None:
            yield Violation("I3", f"{client_id} was accepted and never written down", i)
            continue
        if not skewed and entry.ts_ms > line["ts_ms"]:
            yield Violation("I3", f"{client_id} was written down after it was accepted", i)
        body = entry.body
        side = "buy" if body["side"] > 0 else "sell"
        same = side == line["side"] and body["qty"] == line["qty"]
        same = same and body["reduce_only"] == bool(line["reduce_only"])
        if not body["at_market"]:
            same = same and body["price"] == line["price"]
        if not same:
            yield Violation("I3", f"{client_id} is not what was written down: {body}", i)


def fills_once(
    lines: Sequence[Line], entries: Sequence[Entry], subject: Subject
) -> Iterator[Violation]:
    """I4: the journal's fills are the venue's, each once; so are payments.

    ``entries``: of the journal that is there in the end.
    """
    name = "trade_id" if subject.exchange == "binance" else "exec_id"
    lines = lines[: subject.ended]
    happened = {
        str(line[name]): (i, line)
        for i, line in enumerate(lines)
        if line["event"] in ("fill", "liquidation")
    }
    booked: dict[str, Entry] = {}
    for entry in entries:
        if entry.type != "fill":
            continue
        if entry.key in booked:
            yield Violation("I4", f"fill {entry.key} is in the journal twice")
        booked[entry.key] = entry
        if entry.key not in happened:
            yield Violation("I4", f"fill {entry.key} of the journal never happened: {entry.body}")
            continue
        i, line = happened[entry.key]
        body = entry.body
        side = 1 if line["side"] == "buy" else -1
        told = (body["side"], body["price"], body["qty"])
        fee = abs(body["fee"] - line["fee"]) <= 3 * _MONEY + 1e-4 * abs(line["fee"])
        if told != (side, line["price"], line["qty"]) or not fee:
            yield Violation("I4", f"fill {entry.key} is in the journal as {body}", i)
    for key, (i, line) in happened.items():
        if key not in booked:
            yield Violation("I4", f"fill {key} of {line['client_id']} is missing in the journal", i)
    total = near_to(
        sum(e.body["side"] * e.body["qty"] for e in booked.values()),
        step_parts(subject.market.qty_step),
    )
    if happened:
        _, last = list(happened.values())[-1]
        if total != last["position"]:
            yield Violation("I4", f"the journal's fills sum up to {total:g}, not to the position")
    paid = [line["amount"] for line in lines if line["event"] == "funding"]
    written = [e.body["amount"] for e in entries if e.type == "payment"]
    if len(paid) != len(written) or abs(sum(paid) - sum(written)) > _MONEY * (1 + len(paid)):
        yield Violation("I4", f"payments of the journal are {written}, the venue's {paid}")


def reduces_only(lines: Sequence[Line], subject: Subject) -> Iterator[Violation]:
    """I7: no fill of a reduce-only order enlarges the position, or turns it."""
    reducing: set[str] = set()
    for i, line, book in replayed(lines, subject.wallet, subject.market):
        if line["event"] == "order" and line["status"] == "accepted" and line["reduce_only"]:
            reducing.add(line["order_id"])
        if line["event"] == "fill" and line["order_id"] in reducing:
            before, after = book.size, line["position"]
            if abs(after) > abs(before) or before * after < 0.0:
                yield Violation("I7", f"reduce-only: from {before:g} to {after:g}", i)


def maker_only(lines: Sequence[Line], subject: Subject) -> Iterator[Violation]:
    """I8: nothing of ours takes, but a market stop or a flatten."""
    may_take = "sp" if subject.config.market_stop_loss or subject.flattens else ""
    for i, line in enumerate(lines):
        own = OWN.fullmatch(line.get("client_id") or "")
        if line["event"] == "fill" and own and not line["maker"] and own[1] not in may_take:
            yield Violation("I8", f"{line['client_id']} took at {line['price']}", i)


def silent(lines: Sequence[Line], subject: Subject) -> Iterator[Violation]:
    """I9: nothing is created after the end was asked for, nothing is sent after it."""
    for span in subject.spans:
        for i in range(span.first, min(span.last, len(lines))):
            line = lines[i]
            if span.creates:
                own = OWN.fullmatch(line.get("client_id") or "")
                if line["event"] == "order" and own and own[1] not in span.but:
                    yield Violation("I9", f"{line['client_id']} {span.why}", i)
            elif line["event"] == "request":
                yield Violation("I9", f"{line['method']} {line['path']} {span.why}", i)


def fresh(lines: Sequence[Line], subject: Subject) -> Iterator[Violation]:
    """I10: nothing is opened while the stream of trades has been silent for long."""
    channel = "market" if subject.exchange == "binance" else "public"
    since: int | None = None
    for i, line in enumerate(lines):
        if line["event"] == "fault":
            args = line.get("args", {})
            if line["do"] in ("ws.stall", "ws.hold", "ws.freeze"):
                if args.get("channel") == channel:
                    since = line["ts_ms"] if since is None else since
            elif line["do"] == "heal":
                since = None
        elif line["event"] == "request" and "SUBSCRIBE" in line["method"].upper():
            if channel in line["path"]:
                since = None
        elif (
            line["event"] == "order"
            and since is not None
            and line["ts_ms"] > since + _STALE_MS + _SLACK_MS
            and line["status"] == "accepted"
            and not line["reduce_only"]
            and OWN.fullmatch(line["client_id"] or "")
        ):
            age_s = (line["ts_ms"] - since) / 1e3
            yield Violation("I10", f"{line['client_id']} opened on prices {age_s:.1f} s old", i)


def valid(lines: Sequence[Line], subject: Subject) -> Iterator[Violation]:
    """I11: the venue's filters refuse at most one order per change of its rules."""
    codes = _FILTER_CODES[subject.exchange]
    allowed = 0
    for i, line in enumerate(lines):
        if line["event"] == "fault" and line["do"] == "mkt.rules":
            # Orders that were sent together are refused together.
            allowed = subject.config.orders_per_batch
        elif line["event"] == "order" and line["status"] == "rejected" and line["code"] in codes:
            if not OWN.fullmatch(line["client_id"] or ""):
                continue
            allowed -= 1
            if allowed < 0:
                yield Violation("I11", f"{line['client_id']}: refused with {line['code']}", i)


def restrained(
    lines: Sequence[Line], entries: Sequence[Entry], subject: Subject
) -> Iterator[Violation]:
    """I12: no limit of the venue is met by the bot's own doing; what it refuses is not repeated.

    A process that has been killed takes what it was told with it.
    """
    ideal = {e.key: e.body["ideal_price"] for e in entries if e.type == "intent"}
    told = 0
    recent: dict[str, list[int]] = defaultdict(list)
    quiet: list[tuple[int, int]] = []
    for i, line in enumerate(lines):
        if i in subject.starts:
            quiet.clear()
            recent.clear()
        if line["event"] == "fault" and line["do"].startswith("rest.reply"):
            args = line["args"]
            said = args.get("status") in _TOO_OFTEN or any(
                str(code) in args.get("body", "") for code in _TOO_OFTEN if abs(code) > 999
            )
            told += said
            after_s = float({k.lower(): v for k, v in args.get("headers", {}).items()}.get(
                "retry-after", 0.0
            ))  # fmt: skip
            if said and after_s:
                quiet.append((line["ts_ms"], line["ts_ms"] + round(after_s * 1e3)))
            continue
        if line["event"] != "request":
            continue
        ts_ms = line["ts_ms"]
        if line["status"] in _TOO_OFTEN or line["code"] in _TOO_OFTEN:
            told -= 1
            if told < 0:
                yield Violation("I12", f"{line['method']} {line['path']}: {line['code']}", i)
        for begun_ms, ends_ms in quiet:
            # What had left before the answer came is no fault.
            if line["channel"] == "rest" and begun_ms + 300 < ts_ms < ends_ms - 50:
                yield Violation(
                    "I12",
                    f"{line['method']} {line['path']} {ts_ms - begun_ms} ms after the venue had "
                    f"asked for {ends_ms - begun_ms} ms of silence",
                    i,
                )
        if (line["status"] >= 400 or line["code"]) and line["code"] not in _WELL:
            key = _question(line, ideal)
            times = recent[key]
            times.append(ts_ms)
            while times[0] < ts_ms - 60_000:
                times.pop(0)
            if len(times) > 3:
                yield Violation("I12", f"{len(times)} times within a minute: {key[:200]}", i)


def _question(line: Line, ideal: Mapping[str, float]) -> str:
    """Return what was asked and answered: the same text for the same."""
    params = line["params"] if isinstance(line["params"], dict) else {}
    rows = params.get("args", params)
    row = rows[0] if isinstance(rows, list) and rows else rows
    said = {k: v for k, v in row.items() if k not in _MOMENTARY} if isinstance(row, dict) else {}
    if "qty" in said or "quantity" in said:
        # A new order's id never comes again; its slot does.
        id = said.pop("newClientOrderId", said.pop("orderLinkId", ""))
        said["slot"] = ideal.get(id)
    return f"{line['method']} {line['path']} {said} -> {line['status']} {line['code']}"


def owned(lines: Sequence[Line]) -> Iterator[Violation]:
    """I13: orders of others are never cancelled or changed."""
    for i, line in enumerate(lines):
        foreign = not OWN.fullmatch(line.get("client_id") or "")
        by_us = line["event"] == "amend" or line.get("reason") == "user"
        if line["event"] in ("cancel", "amend") and foreign and by_us:
            yield Violation("I13", f"{line['event']} of {line['client_id']}", i)


def check_all(
    lines: Sequence[Line],
    entries: Sequence[Entry],
    subject: Subject,
    *,
    last_entries: Sequence[Entry] | None = None,
) -> list[Violation]:
    """Return all that is wrong.

    ``entries``: of every journal the run had; ``last_entries``: of the one it has in the end, when
    there was more than one.
    """
    return [
        *exposure(lines, entries, subject),
        *at_most_once(lines, entries, subject),
        *write_ahead(lines, entries),
        *fills_once(lines, entries if last_entries is None else last_entries, subject),
        *reduces_only(lines, subject),
        *maker_only(lines, subject),
        *silent(lines, subject),
        *fresh(lines, subject),
        *valid(lines, subject),
        *restrained(lines, entries, subject),
        *owned(lines),
    ]
