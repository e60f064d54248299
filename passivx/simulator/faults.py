"""Everything that can go wrong at a venue, on purpose: rules of when, and what then.

A rule is one JSON object: ``do`` names what happens, ``when`` the moment, the rest are its
arguments (docs/simulator.md has the tables). Moments are logical: the n-th request of a kind, the
n-th event of the account, a time of the simulation; without ``when`` it happens at once. A request
meets at most one rule, the oldest that is due. Every firing is a line of the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import orjson

from passivx._core.calc import floor_to
from passivx.clock import Clock, Timer
from passivx.documents import read_document
from passivx.errors import ConfigError, Problem, nearest
from passivx.models import step_parts
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpReply
from passivx.simulator.venue import (
    Execution,
    OrderType,
    Refusal,
    SimOrder,
    SimVenue,
    TimeInForce,
)

__all__ = ["CHANNELS", "Faults", "Gate", "SkewedClock", "load_faults"]

CHANNELS: Final = ("public", "market", "private", "trade")
_EVENTS: Final = ("fill", "order", "cancel", "funding", "liquidation", "print")
_MOST_BUFFERED: Final = 16 << 20
_GRACE_S: Final = 0.25


# --- what can be said -----------------------------------------------------------------------------


class _Argument(NamedTuple):
    kind: type
    default: Any  # ... is required
    least: float = -math.inf
    most: float = math.inf
    words: tuple[str, ...] = ()


_S: Final = _Argument(float, ..., 0.0, 86_400.0)
_CHANNEL: Final = _Argument(str, "", words=("", *CHANNELS))
_COUNT: Final = _Argument(int, 1, 1, 1_000_000)
_WHILE: Final = _Argument(float, math.inf, 0.0)
_FRACTION: Final = _Argument(float, 1.0, 0.0, 1.0)
_ID: Final = _Argument(str, "")

# Of requests, over REST or the order socket: these need a `when.on`.
_REQUESTS: Final[dict[str, dict[str, _Argument]]] = {
    "rest.delay": {"s": _S},
    "rest.delay_exec": {"s": _S},
    "rest.drop_before": {},
    "rest.drop_after": {},
    "rest.reply": {
        "status": _Argument(int, 200, 100, 599),
        "headers": _Argument(dict, {}),
        "body": _Argument(str, ""),
    },
    "rest.reply_after_exec": {
        "status": _Argument(int, 200, 100, 599),
        "headers": _Argument(dict, {}),
        "body": _Argument(str, ""),
    },
    "rest.truncate": {"bytes": _Argument(int, 1, 0)},
    "rest.drip": {"bytes_per_s": _Argument(float, 1.0, 0.001)},
    "rest.stale": {},
}
# At any moment.
_DEEDS: Final[dict[str, dict[str, _Argument]]] = {
    "ws.stall": {"channel": _CHANNEL, "s": _WHILE},
    "ws.freeze": {"channel": _CHANNEL, "s": _WHILE},
    "ws.hold": {"channel": _CHANNEL, "s": _WHILE},
    "ws.rst": {"channel": _CHANNEL},
    "ws.fin": {"channel": _CHANNEL},
    "ws.close": {"channel": _CHANNEL, "code": _Argument(int, 1000, 1000, 4999)},
    "ws.cut": {"channel": _CHANNEL, "bytes": _Argument(int, 1, 0)},
    "ws.dup": {"channel": _CHANNEL, "count": _COUNT},
    "ws.drop": {"channel": _CHANNEL, "count": _COUNT},
    "ws.reorder": {"channel": _CHANNEL, "window": _Argument(int, 8, 2, 1000)},
    "ws.raw": {"channel": _CHANNEL, "text": _Argument(str, ""), "hex": _Argument(str, "")},
    "ws.burst": {"channel": _CHANNEL, "count": _COUNT},
    "ord.partial": {"fraction": _FRACTION, "client_id": _ID},
    "ord.venue_cancel": {"client_id": _ID},
    "acct.funding": {"rate": _Argument(float, 0.0001, -1.0, 1.0)},
    "acct.liquidate": {},
    "acct.adl": {"fraction": _FRACTION},
    "acct.balance": {"factor": _Argument(float, ..., 0.0, 1e6)},
    "acct.hedge": {"on": _Argument(bool, True)},
    "acct.leverage": {"leverage": _Argument(int, ..., 1, 1000)},
    "mkt.jump": {"fraction": _Argument(float, ..., -0.99, 10.0)},
    "mkt.status": {"trading": _Argument(bool, ...)},
    "mkt.rules": {
        name: _Argument(float, None, 0.0)
        for name in ("price_step", "qty_step", "min_qty", "min_cost", "max_qty", "max_orders")
    },
    "ext.order": {
        "side": _Argument(str, ..., words=("buy", "sell")),
        "qty": _Argument(float, ..., 0.0),
        "price": _Argument(float, 0.0, 0.0),
        "reduce_only": _Argument(bool, False),
    },
    "ext.close": {"fraction": _FRACTION},
    "ext.flip": {},
    "clock.skew": {"ms": _Argument(int, ..., -86_400_000, 86_400_000)},
    "heal": {},
}
_ACTIONS: Final = {**_REQUESTS, **_DEEDS}

# What requests are called besides their own name.
_KINDS: Final[dict[str, str]] = {
    "POST /fapi/v1/order": "order",
    "POST /fapi/v1/batchOrders": "order",
    "PUT /fapi/v1/order": "amend",
    "PUT /fapi/v1/batchOrders": "amend",
    "DELETE /fapi/v1/order": "cancel",
    "DELETE /fapi/v1/batchOrders": "cancel",
    "DELETE /fapi/v1/allOpenOrders": "cancel",
    "POST /v5/order/create": "order",
    "POST /v5/order/create-batch": "order",
    "POST /v5/order/amend": "amend",
    "POST /v5/order/amend-batch": "amend",
    "POST /v5/order/cancel": "cancel",
    "POST /v5/order/cancel-batch": "cancel",
    "POST /v5/order/cancel-all": "cancel",
    "ws:order.place": "order",
    "ws:order.create": "order",
    "ws:order.create-batch": "order",
    "ws:order.modify": "amend",
    "ws:order.amend": "amend",
    "ws:order.amend-batch": "amend",
    "ws:order.cancel": "cancel",
    "ws:order.cancel-batch": "cancel",
}
_GROUPS: Final = ("order", "amend", "cancel", "read", "any", "connect")


def _kinds_of(name: str) -> tuple[str, ...]:
    """Return every word a rule may use for a request."""
    group = _KINDS.get(name)
    if name.startswith("GET "):
        group = "read"
    elif name.startswith("connect:"):
        return (name, "connect")
    return (name, "any") if group is None else (name, group, "any")


# --- one websocket --------------------------------------------------------------------------------


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole, unmasked frame, as servers send (RFC 6455 5.2)."""
    n = len(payload)
    if n < 126:
        head = bytes((0x80 | opcode, n))
    elif n < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, n)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, n)
    return head + payload


class Gate:
    """What leaves on one websocket, and what of it is kept back, doubled, cut or turned round."""

    def __init__(self, channel: str | None, transport: asyncio.Transport, clock: Clock) -> None:
        self.channel = channel
        self._transport = transport
        self._clock = clock
        self._over = False
        self._stalled = self._frozen = False
        self._held: list[bytes] | None = None
        self._last = b""
        self._drops = self._doubles = 0
        self._cut_at: int | None = None
        self._turning: list[bytes] = []
        self._turn_of = 0
        self._timers: list[Timer] = []

    def send(self, payload: bytes) -> None:
        """Send one text, or whatever a fault makes of it."""
        if self._over:
            return
        frame = _frame(0x1, payload)
        self._last = frame
        if self._stalled or self._frozen:
            return
        if self._drops:
            self._drops -= 1
        elif self._cut_at is not None:
            self._write(frame[: self._cut_at])
            self._cut_at = None
            # What was written shall arrive before the end does.
            self.fin()
        elif self._held is not None:
            self._held.append(frame)
        elif self._turn_of:
            self._turning.append(frame)
            if len(self._turning) >= self._turn_of:
                self._turn_of = 0
                self._flush(reversed(self._turning))
                self._turning = []
        else:
            self._write(frame)
            if self._doubles:
                self._doubles -= 1
                self._write(frame)

    def ping(self, payload: bytes) -> None:
        """Send a ping."""
        if not self._frozen:
            self._write(_frame(0x9, payload))

    def pong(self, payload: bytes) -> None:
        """Answer a ping: a stalled socket still does."""
        if not self._frozen:
            self._write(_frame(0xA, payload))

    def close(self, code: int, reason: str = "") -> None:
        """Send a CLOSE, and the end of the stream shortly after; with 1006 only the end."""
        if self._over:
            return
        if code != 1006:
            self._write(_frame(0x8, struct.pack("!H", code) + reason.encode()[:120]))
        self._over = True
        asyncio.get_running_loop().call_later(_GRACE_S, self._transport.close)

    def over(self) -> None:
        """Be no more."""
        self._over = True
        for timer in self._timers:
            timer.cancel()

    def rst(self) -> None:
        """Reset the connection."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._over = True
        self._transport.abort()

    def fin(self) -> None:
        """End the stream without a CLOSE."""
        self._over = True
        self._transport.close()

    def mute(self, muted: bool) -> None:
        """Let nothing out, not even a reply to what is being served."""
        self._stalled = muted

    def stall(self, s: float) -> None:
        """Answer pings and send nothing else, for so long."""
        self._stalled = True
        self._later(s, self.heal)

    def freeze(self, s: float) -> None:
        """Neither read nor write, for so long."""
        self._frozen = True
        self._transport.pause_reading()
        self._later(s, self.heal)

    def hold(self, s: float) -> None:
        """Keep messages back for so long, then send them in order."""
        self._held = [] if self._held is None else self._held
        self._later(s, self.heal)

    def cut(self, n_bytes: int) -> None:
        """Send so many bytes of the next frame and end the connection."""
        self._cut_at = n_bytes

    def dup(self, count: int) -> None:
        """Send the next messages twice."""
        self._doubles += count

    def drop(self, count: int) -> None:
        """Lose the next messages."""
        self._drops += count

    def reorder(self, window: int) -> None:
        """Send the next messages in reverse order, once there are so many."""
        self._turn_of = window

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._write(data)

    def burst(self, count: int) -> None:
        """Send the last message so often again."""
        self._write(self._last * count)

    def heal(self) -> None:
        """Undo what lasts; what was held is sent."""
        self._stalled = False
        self._drops = self._doubles = self._turn_of = 0
        self._cut_at = None
        if self._frozen:
            self._frozen = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        held, self._held = self._held or self._turning, None
        self._turning = []
        self._flush(held)

    def _later(self, s: float, call: Callable[[], object]) -> None:
        if math.isfinite(s):
            self._timers.append(self._clock.call_later(s, call))

    def _flush(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self._write(frame)

    def _write(self, data: bytes) -> None:
        if self._over or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _MOST_BUFFERED:
            self.close(1008, "slow consumer")


# --- rules ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rule:
    id: int
    do: str
    args: dict[str, Any]
    on: str = ""
    event: str = ""
    at_ms: float | None = None
    nth: int = 1
    times: int = 1
    seen: int = 0
    timer: Timer | None = field(default=None, repr=False)

    def due(self) -> bool:
        """Count one more, and tell whether the rule's turn has come."""
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class SkewedClock:
    """The protocol's clock, which a fault may set wrong; intervals stay right."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.skew_ms = 0

    def time_ms(self) -> int:
        """Return the wall time, ms UTC, as wrong as it was set."""
        return self._clock.time_ms() + self.skew_ms

    def monotonic_s(self) -> float:
        """Return the seconds that have passed."""
        return self._clock.monotonic_s()

    async def sleep(self, seconds: float) -> None:
        """Sleep for so long."""
        await self._clock.sleep(seconds)

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call back in so long."""
        return self._clock.call_later(delay_s, callback)


class Faults:
    """The rules in force, and their doing. Observes the venue: give it to `SimVenue.observe`."""

    def __init__(
        self, venue: SimVenue, clock: SkewedClock, ledger: Ledger, *, seed: int = 0
    ) -> None:
        self._venue = venue
        self._clock = clock
        self._ledger = ledger
        self._rng = random.Random(seed)
        self._rules: dict[int, _Rule] = {}
        self._last_id = 0
        self._foreign = 0
        self._gates: set[Gate] = set()
        self._old: dict[str, HttpReply] = {}
        self._begun_s = clock.monotonic_s()

    # --- the list of rules ---

    def add(self, rows: Any, source: str = "faults") -> list[int]:
        """Take one rule or a list of them; return their numbers, 0 for what was done at once.

        Raises
        ------
        ConfigError
            Naming everything that is wrong with any of them; then none is taken.
        """
        listed = rows if isinstance(rows, list) else [rows]
        problems: list[Problem] = []
        rules = [_rule_of(row, f"[{i}]", problems) for i, row in enumerate(listed)]
        if problems:
            raise ConfigError(problems, source)
        return [self._take(rule) for rule in rules if rule is not None]

    def heal(self) -> None:
        """Remove every rule and undo everything that lasts."""
        for rule in self._rules.values():
            if rule.timer is not None:
                rule.timer.cancel()
        self._rules.clear()
        for gate in self._gates:
            gate.heal()
        self._clock.skew_ms = 0
        self._ledger.append("fault", what="heal")

    def _take(self, rule: _Rule) -> int:
        if not (rule.on or rule.event) and rule.at_ms is None:
            self._do(rule)
            return 0
        self._last_id += 1
        rule.id = self._last_id
        self._rules[rule.id] = rule
        if rule.at_ms is not None:
            passed_s = self._clock.monotonic_s() - self._begun_s
            rule.timer = self._clock.call_later(
                max(0.0, rule.at_ms / 1000 - passed_s), lambda: self._fire(rule)
            )
        return rule.id

    def _fire(self, rule: _Rule) -> None:
        self._spent(rule)
        self._do(rule)

    def _spent(self, rule: _Rule) -> None:
        if rule.seen >= rule.nth + rule.times - 1:
            self._rules.pop(rule.id, None)

    # --- requests ---

    def for_request(self, name: str, query: str, body: bytes) -> list[_Rule]:
        """Return the rule that this request meets, in a list, or none; counts the request."""
        if not self._rules:
            return []
        words = _kinds_of(name)
        due = [rule for rule in list(self._rules.values()) if rule.on in words and rule.due()]
        for rule in due:
            self._spent(rule)
            self._ledger.append("fault", what=rule.do, on=name, args=rule.args)
        return due

    async def perform(
        self,
        rules: list[_Rule],
        transport: asyncio.BaseTransport | None,
        execute: Callable[[], HttpReply | None],
        clock: Clock,
    ) -> HttpReply | None:
        """Answer a request as its rule says; None when the connection was ended instead."""
        rule = rules[0]
        if rule.do in _DEEDS:
            self._deed(rule)
            return execute()
        args = rule.args
        if rule.do in ("rest.delay", "rest.delay_exec"):
            await clock.sleep(args["s"])
            return execute()
        if rule.do == "rest.drop_before":
            _end(transport)
            return None
        if rule.do == "rest.reply":
            return _reply(args)
        reply = execute()
        if rule.do == "rest.drop_after" or reply is None:
            _end(transport)
            return None
        if rule.do == "rest.reply_after_exec":
            return _reply(args)
        if rule.do == "rest.stale":
            return self._old.setdefault(rule.on, reply)
        raw = _raw(reply)
        out = cast(asyncio.Transport, transport)
        if rule.do == "rest.truncate":
            head = raw.index(b"\r\n\r\n") + 4
            out.write(raw[: head + args["bytes"]])
        else:
            for i in range(len(raw)):
                if out.is_closing():
                    break
                out.write(raw[i : i + 1])
                await clock.sleep(1.0 / args["bytes_per_s"])
        out.close()
        return None

    def swallows(self, gate: Gate, text: str, deliver: Callable[[], None]) -> bool:
        """Tell whether a message on a websocket is not for the front, now; counts it.

        ``deliver`` gives it to the front after all.
        """
        if not self._rules or gate.channel != "trade":
            return False
        try:
            message = orjson.loads(text)
            name = message.get("method", message.get("op"))
        except (ValueError, AttributeError):
            return False
        rules = self.for_request(f"ws:{name}", "", b"")
        if not rules:
            return False
        rule = rules[0]
        if rule.do in _DEEDS:
            self._deed(rule)
            deliver()
        elif rule.do in ("rest.delay", "rest.delay_exec"):
            self._clock.call_later(rule.args["s"], deliver)
        elif rule.do == "rest.drop_before":
            gate.rst()
        elif rule.do == "rest.reply":
            gate.send(rule.args["body"].encode())
        else:
            gate.mute(True)
            deliver()
            gate.mute(False)
            if rule.do == "rest.reply_after_exec":
                gate.send(rule.args["body"].encode())
            else:
                gate.rst()
        return True

    def opened(self, gate: Gate) -> None:
        """Take note of a websocket."""
        self._gates.add(gate)

    def closed(self, gate: Gate) -> None:
        """Forget a websocket."""
        self._gates.discard(gate)

    # --- events of the account: an observer of the venue ---

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        self._happened("print")

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        pass

    def on_order(self, order: SimOrder, what: str) -> None:
        if what in ("new", "canceled"):
            self._happened("order" if what == "new" else "cancel")

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        self._happened("liquidation" if execution.kind == "liquidation" else "fill")

    def on_account(self, why: str) -> None:
        pass

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        self._happened("funding")

    def on_terms(self, what: str) -> None:
        pass

    def _happened(self, event: str) -> None:
        if not self._rules:
            return
        for rule in list(self._rules.values()):
            if rule.event == event and rule.due():
                self._spent(rule)
                # Not from within what is happening: the venue must be done with it first.
                self._clock.call_later(0.0, partial(self._do, rule))

    # --- deeds ---

    def _do(self, rule: _Rule) -> None:
        self._ledger.append("fault", what=rule.do, args=rule.args)
        self._deed(rule)

    def _deed(self, rule: _Rule) -> None:
        kind, _, name = rule.do.partition(".")
        args = rule.args
        if rule.do == "heal":
            self.heal()
        elif rule.do == "clock.skew":
            self._clock.skew_ms = args["ms"]
        elif kind == "ws":
            self._websocket(name, dict(args))
        else:
            try:
                getattr(self, f"_{kind}_{name}")(**args)
            except Refusal as refusal:
                self._ledger.append("fault", what=rule.do, refused=str(refusal))

    def _websocket(self, name: str, args: dict[str, Any]) -> None:
        channel = args.pop("channel")
        if name == "raw":
            data = bytes.fromhex(args["hex"]) if args["hex"] else _frame(1, args["text"].encode())
            args = {"data": data}
        elif name == "cut":
            args = {"n_bytes": args["bytes"]}
        for gate in list(self._gates):
            if channel in ("", gate.channel):
                getattr(gate, name)(**args)

    def _order(self, client_id: str) -> SimOrder | None:
        orders = list(self._venue.open_orders())
        return next((o for o in orders if client_id in ("", o.client_id)), None)

    def _qty(self, qty: float) -> float:
        step = step_parts(self._venue.listing.market.qty_step)
        return max(floor_to(qty, step), self._venue.listing.market.qty_step)

    def _ord_partial(self, fraction: float, client_id: str) -> None:
        order = self._order(client_id)
        if order is not None:
            self._venue.fill(order, min(order.left, self._qty(order.left * fraction)))

    def _ord_venue_cancel(self, client_id: str) -> None:
        order = self._order(client_id)
        if order is not None:
            self._venue.cancel(order, reason="admin")

    def _acct_funding(self, rate: float) -> None:
        self._venue.settle_funding(rate)

    def _acct_liquidate(self) -> None:
        self._venue.liquidate()

    def _acct_adl(self, fraction: float) -> None:
        size = abs(self._venue.size)
        if size:
            self._venue.deleverage(min(size, self._qty(size * fraction)))

    def _acct_balance(self, factor: float) -> None:
        self._venue.deposit(self._venue.wallet * (factor - 1.0))

    def _acct_hedge(self, on: bool) -> None:
        self._venue.hedge_mode = on

    def _acct_leverage(self, leverage: int) -> None:
        self._venue.set_leverage(float(leverage))

    def _mkt_jump(self, fraction: float) -> None:
        venue = self._venue
        step = step_parts(venue.listing.market.price_step)
        price = floor_to(venue.mark_price * (1.0 + fraction), step)
        now_ms = self._ledger.replay_ts_ms or self._clock.time_ms()
        qty = venue.listing.market.qty_step
        venue.print(venue.trade_id + 1, price, qty, fraction < 0.0, now_ms)

    def _mkt_status(self, trading: bool) -> None:
        self._venue.set_trading(trading)

    def _mkt_rules(self, **changes: float | None) -> None:
        listing = self._venue.listing
        said = {name: value for name, value in changes.items() if value is not None}
        outer = {name: said.pop(name) for name in ("max_qty", "max_orders") if name in said}
        if "max_orders" in outer:
            outer["max_orders"] = int(outer["max_orders"])
        market = replace(listing.market, **said)  # type: ignore[arg-type]
        self._venue.set_listing(replace(listing, market=market, **outer))  # type: ignore[arg-type]

    def _ext_order(self, side: str, qty: float, price: float, reduce_only: bool) -> None:
        self._foreign += 1
        self._venue.place(
            client_id=f"web_{self._foreign}",
            side=1 if side == "buy" else -1,
            type=OrderType.LIMIT if price else OrderType.MARKET,
            tif=TimeInForce.GTC,
            price=price,
            qty=qty,
            reduce_only=reduce_only,
        )

    def _ext_close(self, fraction: float) -> None:
        size = self._venue.size
        if size:
            qty = min(abs(size), self._qty(abs(size) * fraction))
            self._ext_order("sell" if size > 0 else "buy", qty, 0.0, True)

    def _ext_flip(self) -> None:
        size = self._venue.size
        if size:
            self._ext_order("sell" if size > 0 else "buy", 2 * abs(size), 0.0, False)


def load_faults(path: Path) -> list[Any]:
    """Read a file of rules: a JSON list, or (also as HJSON) an object whose ``faults`` is one.

    Raises
    ------
    ConfigError
        If it cannot be read; what the rules say is checked by `Faults.add`.
    """
    with contextlib.suppress(OSError, ValueError):
        rows = orjson.loads(path.read_bytes())
        if isinstance(rows, list):
            return rows
    document = read_document(path)
    rows = document.get("faults", [document] if "do" in document else None)
    if not isinstance(rows, list):
        problem = Problem("faults", rows, "must be a list of rules", '{"faults": [{"do": ...}]}')
        raise ConfigError([problem], path)
    return rows


# --- helpers --------------------------------------------------------------------------------------


def _end(transport: asyncio.BaseTransport | None) -> None:
    if transport is not None:
        cast(asyncio.Transport, transport).abort()


def _reply(args: Mapping[str, Any]) -> HttpReply:
    headers = {"Content-Type": "application/json", **args["headers"]}
    return HttpReply(args["status"], headers, args["body"].encode())


def _raw(reply: HttpReply) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    head = f"HTTP/1.1 {reply.status} X\r\n{headers}Content-Length: {len(reply.body)}\r\n\r\n"
    return head.encode() + reply.body


def _rule_of(row: Any, at: str, problems: list[Problem]) -> _Rule | None:
    """Read a rule; everything wrong with it goes to ``problems``."""
    before = len(problems)

    def wrong(name: str, value: object, message: str, remedy: str = "") -> None:
        problems.append(Problem(f"{at}.{name}" if name else at, value, message, remedy))

    if not isinstance(row, dict):
        wrong("", row, "must be an object", 'such as {"do": "ws.rst", "channel": "private"}')
        return None
    do = row.get("do")
    if do not in _ACTIONS:
        wrong("do", do, "is not known", nearest(str(do), list(_ACTIONS)))
        return None
    wanted = _ACTIONS[do]
    for name in row:
        if name not in (*wanted, "do", "when", "times"):
            wrong(name, row[name], "is not known", nearest(name, [*wanted, "when", "times"]))
    args = {
        name: _argument(row.get(name, spec.default), spec, name, wrong)
        for name, spec in wanted.items()
    }
    rule = _Rule(0, do, args)
    times = row.get("times", 1)
    if type(times) is not int or times < 0:
        wrong("times", times, "must be a whole number, 0 for ever")
    else:
        rule.times = times or 10**12
    _when(row.get("when"), rule, wrong)
    if do in _REQUESTS and not rule.on and len(problems) == before:
        wrong("when", row.get("when"), "must name a request", '"when": {"on": "order", "nth": 1}')
    return rule if len(problems) == before else None


def _argument(value: Any, spec: _Argument, name: str, wrong: Callable[..., None]) -> Any:
    if value is ...:
        wrong(name, None, "is missing")
    elif value is spec.default:
        return value
    elif spec.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if spec.least <= value <= spec.most:
            return float(value)
        wrong(name, value, f"must be in [{spec.least:g}, {spec.most:g}]")
    elif not isinstance(value, spec.kind) or (spec.kind is int and value is True):
        wrong(name, value, f"must be of type {spec.kind.__name__}")
    elif isinstance(value, int) and not spec.least <= value <= spec.most:
        wrong(name, value, f"must be in [{spec.least:g}, {spec.most:g}]")
    elif spec.words and value not in spec.words:
        wrong(name, value, "is not known", nearest(str(value), spec.words))
    else:
        return value
    return None


def _when(when: Any, rule: _Rule, wrong: Callable[..., None]) -> None:
    if when is None or when == "now":
        return
    if not isinstance(when, dict):
        wrong("when", when, "must be an object", 'such as {"on": "order", "nth": 2}')
        return
    for name in when:
        if name not in ("on", "event", "at_ms", "nth"):
            wrong(f"when.{name}", when[name], "is not known", "on, event or at_ms, with nth")
    if sum(name in when for name in ("on", "event", "at_ms")) != 1:
        wrong("when", when, "must name one of on, event, at_ms")
        return
    rule.on, rule.event = str(when.get("on", "")), str(when.get("event", ""))
    if rule.on and not (
        rule.on in _GROUPS or " /" in rule.on or rule.on.startswith(("ws:", "connect:"))
    ):
        wrong(
            "when.on",
            rule.on,
            "is not known",
            f"{', '.join(_GROUPS)}, 'POST /path', 'ws:order.place' or 'connect:private'",
        )
    if rule.event and rule.event not in _EVENTS:
        wrong("when.event", rule.event, "is not known", nearest(rule.event, _EVENTS))
    if "at_ms" in when:
        at_ms = when["at_ms"]
        if type(at_ms) not in (int, float) or not 0 <= at_ms < 1e12:
            wrong("when.at_ms", at_ms, "must be ms since the simulator began")
        else:
            rule.at_ms = float(at_ms)
    nth = when.get("nth", 1)
    if type(nth) is not int or nth < 1:
        wrong("when.nth", nth, "must be a whole number from 1 on")
    else:
        rule.nth = nth
