"""What a rule of a fault plan may say: when, what, with which arguments; and reading it.

docs/simulator.md has the tables for those who write rules.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from passivx.clock import Timer
from passivx.documents import read_document
from passivx.errors import ConfigError, Problem, nearest

__all__ = [
    "ANSWERS",
    "CHANNELS",
    "DEEDS",
    "Rule",
    "load_faults",
    "possible_answers",
    "read_rules",
    "words_of",
]

CHANNELS: Final = ("public", "market", "private", "trade")
_EVENTS: Final = ("fill", "order", "cancel", "funding", "liquidation", "print")


class _Argument(NamedTuple):
    kind: type
    default: Any  # ... is required
    least: float = -math.inf
    most: float = math.inf
    words: tuple[str, ...] = ()


_S: Final = _Argument(float, ..., 0.0, 86_400.0)
_CHANNEL: Final = _Argument(str, "", words=CHANNELS)
_COUNT: Final = _Argument(int, 1, 1, 1_000_000)
_WHILE: Final = _Argument(float, math.inf, 0.0, 86_400.0)
_FRACTION: Final = _Argument(float, 1.0, 0.0, 1.0)
_TEXT: Final = _Argument(str, "")
_ANSWER: Final = {
    "status": _Argument(int, 200, 200, 599),
    "headers": _Argument(dict, {}),
    "body": _TEXT,
}

# Of requests, over REST or a socket: these need a `when.on`.
ANSWERS: Final[dict[str, dict[str, _Argument]]] = {
    "rest.delay": {"s": _S},
    "rest.delay_exec": {"s": _S},
    "rest.drop_before": {},
    "rest.drop_after": {},
    "rest.reply": _ANSWER,
    "rest.reply_after_exec": _ANSWER,
    "rest.truncate": {"bytes": _Argument(int, 1, 0, 1 << 20)},
    "rest.drip": {"bytes_per_s": _Argument(float, 1.0, 0.001, 1e6)},
    "rest.stale": {"s": _WHILE},
}
# Of those, what a socket's request can meet, and what the opening of a socket can.
_OF_SOCKETS: Final = frozenset(ANSWERS) - {"rest.drip", "rest.stale"}
_OF_OPENINGS: Final = frozenset(("rest.delay", "rest.drop_before", "rest.reply"))
# At any moment.
DEEDS: Final[dict[str, dict[str, _Argument]]] = {
    "ws.stall": {"channel": _CHANNEL, "s": _WHILE},
    "ws.freeze": {"channel": _CHANNEL, "s": _WHILE},
    "ws.hold": {"channel": _CHANNEL, "s": _WHILE},
    "ws.rst": {"channel": _CHANNEL},
    "ws.fin": {"channel": _CHANNEL},
    "ws.close": {
        "channel": _CHANNEL,
        "code": _Argument(int, 1000, 1000, 4999),
        "reason": _TEXT,
    },
    "ws.cut": {"channel": _CHANNEL, "bytes": _Argument(int, 1, 0, 1 << 20)},
    "ws.dup": {"channel": _CHANNEL, "count": _COUNT, "match": _TEXT},
    "ws.drop": {"channel": _CHANNEL, "count": _COUNT, "match": _TEXT},
    "ws.reorder": {
        "channel": _CHANNEL,
        "window": _Argument(int, 8, 2, 1000),
        "s": _Argument(float, 1.0, 0.0, 86_400.0),
    },
    "ws.raw": {"channel": _CHANNEL, "text": _TEXT, "hex": _TEXT},
    "ws.burst": {"channel": _CHANNEL, "count": _COUNT},
    "ws.ping": {"channel": _CHANNEL, "count": _COUNT},
    "ord.partial": {"fraction": _FRACTION, "client_id": _TEXT},
    "ord.venue_cancel": {"client_id": _TEXT},
    "acct.funding": {"rate": _Argument(float, 0.0001, -1.0, 1.0)},
    "acct.liquidate": {},
    "acct.adl": {"fraction": _FRACTION},
    "acct.balance": {"factor": _Argument(float, ..., 0.0, 1e6)},
    "acct.hedge": {"on": _Argument(bool, True)},
    "acct.margin": {"cross": _Argument(bool, False)},
    "acct.leverage": {"leverage": _Argument(int, ..., 1, 1000)},
    "acct.rights": {"withdraw": _Argument(bool, False), "trade": _Argument(bool, True)},
    "mkt.jump": {"fraction": _Argument(float, ..., -0.99, 10.0)},
    "mkt.status": {"trading": _Argument(bool, False)},
    "mkt.rules": {
        "price_step": _Argument(float, None, 1e-12, 1e6),
        "qty_step": _Argument(float, None, 1e-12, 1e6),
        "min_qty": _Argument(float, None, 0.0, 1e9),
        "min_cost": _Argument(float, None, 0.0, 1e9),
        "max_qty": _Argument(float, None, 0.0, 1e12),
        "max_orders": _Argument(int, None, 1, 1000),
    },
    "ext.order": {
        "side": _Argument(str, ..., words=("buy", "sell")),
        "qty": _Argument(float, ..., 0.0, 1e12),
        "price": _Argument(float, 0.0, 0.0, 1e12),
        "reduce_only": _Argument(bool, False),
        "client_id": _TEXT,
    },
    "ext.clone": {"client_id": _TEXT},
    "ext.close": {"fraction": _FRACTION},
    "ext.flip": {},
    "clock.skew": {
        "ms": _Argument(int, ..., -86_400_000, 86_400_000),
        "over_s": _Argument(float, 0.0, 0.0, 86_400.0),
    },
    "heal": {},
}
_ACTIONS: Final = {**ANSWERS, **DEEDS}

# What requests are called besides their own name.
_GROUPS: Final = ("order", "amend", "cancel", "read", "any", "connect")
_GROUP_OF: Final[dict[str, str]] = {
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
    "ws:order.status": "read",
    "ws:account.status": "read",
    "ws:v2/account.status": "read",
    "ws:account.balance": "read",
    "ws:v2/account.balance": "read",
    "ws:account.position": "read",
    "ws:v2/account.position": "read",
}


def words_of(name: str, channel: str) -> tuple[str, ...]:
    """Return every word a rule may use for a request."""
    if name.startswith("connect:"):
        return (name, "connect")
    if channel not in ("rest", "trade"):
        return (name,)
    group = "read" if name.startswith("GET ") else _GROUP_OF.get(name)
    return (name, "any") if group is None else (name, group, "any")


@dataclass(slots=True)
class Rule:
    """One rule, and how far it is. Times are ms since the simulation began."""

    do: str
    args: dict[str, Any]
    id: int = 0
    on: str = ""
    event: str = ""
    at_ms: float | None = None
    until_ms: float = math.inf
    nth: int = 1
    left: float = 1
    seen: int = 0
    timer: Timer | None = field(default=None, repr=False)

    @property
    def at_once(self) -> bool:
        return not self.on and not self.event and self.at_ms is None

    def matches(self, words: tuple[str, ...]) -> bool:
        if self.on.endswith("*"):
            return words[0].startswith(self.on[:-1])
        return self.on in words

    def due(self) -> bool:
        """Count one more, and tell whether the rule's turn has come."""
        self.seen += 1
        return self.seen >= self.nth


def possible_answers(name: str) -> frozenset[str]:
    """Return which of the answers a request of that name can meet."""
    if name.startswith("connect"):
        return _OF_OPENINGS
    return _OF_SOCKETS if name.startswith("ws:") else frozenset(ANSWERS)


def read_rules(rows: Any, source: Path | str | None = None) -> list[Rule]:
    """Return the rules of a plan: one JSON object or a list of them.

    Raises
    ------
    ConfigError
        Naming everything that is wrong with any of them.
    """
    problems: list[Problem] = []
    listed = rows if isinstance(rows, list) else [rows]
    rules = [_Reader(f"[{i}]", problems).rule(row) for i, row in enumerate(listed)]
    if problems:
        raise ConfigError(problems, source)
    return [rule for rule in rules if rule is not None]


def load_faults(path: Path) -> list[Any]:
    """Read a file of rules: a JSON list, or (also as HJSON) an object whose ``faults`` is one.

    Raises
    ------
    ConfigError
        If it cannot be read, or `read_rules` finds something wrong with it.
    """
    rows = _rows_of(path)
    read_rules(rows, path)
    return rows


def _rows_of(path: Path) -> list[Any]:
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


_KINDS: Final = {bool: "true or false", str: "text", dict: "an object"}


class _Reader:
    """Reads one rule, and takes note of everything that is wrong with it."""

    def __init__(self, at: str, problems: list[Problem]) -> None:
        self._at = at
        self._problems = problems

    def wrong(self, name: str, value: object, message: str, remedy: str = "") -> None:
        where = f"{self._at}.{name}" if name else self._at
        self._problems.append(Problem(where, value, message, remedy))

    def rule(self, row: Any) -> Rule | None:
        """Return the rule, if there is one to speak of."""
        if not isinstance(row, dict):
            self.wrong(
                "", row, "must be an object", 'such as {"do": "ws.rst", "channel": "private"}'
            )
            return None
        do = row.get("do")
        if do not in _ACTIONS:
            self.wrong("do", do, "is not known", nearest(str(do), list(_ACTIONS)))
            return None
        wanted = _ACTIONS[do]
        general = ("do", "when", "times", "until_ms")
        for name in row:
            if name not in wanted and name not in general:
                self.wrong(name, row[name], "is not known", nearest(name, [*wanted, *general]))
        args = {
            name: self._argument(row.get(name, spec.default), spec, name)
            for name, spec in wanted.items()
        }
        if do == "ws.raw":
            self._check_raw(args)
        elif "headers" in wanted:
            self._check_headers(args["headers"])
        rule = Rule(do, args)
        self._when(row.get("when"), rule)
        self._repeats(row, rule)
        return rule

    def _argument(self, value: Any, spec: _Argument, name: str) -> Any:
        kind = spec.kind
        if value is ...:
            self.wrong(name, None, "is missing")
        elif value is spec.default:
            return value
        elif kind in (int, float):
            whole = kind is int
            if type(value) is not int and (whole or type(value) is not float):
                self.wrong(name, value, f"must be a {'whole ' * whole}number")
            elif spec.least <= value <= spec.most:
                return kind(value)
            else:
                self.wrong(name, value, f"must be in [{spec.least:g}, {spec.most:g}]")
        elif not isinstance(value, kind):
            self.wrong(name, value, f"must be {_KINDS[kind]}")
        elif spec.words and value not in spec.words:
            self.wrong(name, value, "is not known", nearest(str(value), spec.words))
        else:
            return value
        return None

    def _check_raw(self, args: Mapping[str, Any]) -> None:
        if bool(args["text"]) == bool(args["hex"]):
            self.wrong("text", args["text"], "either text or hex must be given")
        try:
            bytes.fromhex(args["hex"] or "")
        except ValueError:
            self.wrong("hex", args["hex"], "must be pairs of hexadecimal digits")

    def _check_headers(self, headers: Any) -> None:
        for name, value in (headers or {}).items():
            if not isinstance(value, str) or any(c in name + value for c in "\r\n\0"):
                self.wrong(f"headers.{name}", value, "must be one line of text")

    def _when(self, when: Any, rule: Rule) -> None:
        if when is None or when == "now":
            when = {}
        elif not isinstance(when, dict):
            self.wrong("when", when, "must be an object", 'such as {"on": "order", "nth": 2}')
            return
        elif sum(name in when for name in ("on", "event", "at_ms")) != 1:
            self.wrong("when", when, "must name one of on, event, at_ms")
        for name in when:
            if name not in ("on", "event", "at_ms", "nth"):
                self.wrong(f"when.{name}", when[name], "is not known", "on, event, at_ms or nth")
        if "on" in when:
            rule.on = self._on(when["on"], rule.do)
        elif rule.do in ANSWERS:
            self.wrong(
                "when", when or None, "must name a request", '"when": {"on": "order", "nth": 1}'
            )
        rule.event = when.get("event", "")
        if "event" in when and rule.event not in _EVENTS:
            self.wrong("when.event", rule.event, "is not known", nearest(str(rule.event), _EVENTS))
        if "at_ms" in when:
            rule.at_ms = self._ms("when.at_ms", when["at_ms"])
        nth = when.get("nth", 1)
        if type(nth) is not int or nth < 1 or ("at_ms" in when and "nth" in when):
            self.wrong("when.nth", nth, "must be a whole number from 1 on, and not with at_ms")
        else:
            rule.nth = nth

    def _on(self, on: Any, do: str) -> str:
        method, _, path = str(on).partition(" ")
        if on in _GROUPS or str(on).startswith("ws:"):
            pass
        elif str(on).startswith("connect:"):
            if on[8:] not in CHANNELS:
                self.wrong("when.on", on, "is not known", nearest(on[8:], CHANNELS))
        elif method not in ("GET", "POST", "PUT", "DELETE") or not path.startswith("/"):
            known = [*_GROUPS, *_GROUP_OF, *(f"connect:{channel}" for channel in CHANNELS)]
            self.wrong("when.on", on, "is not known", nearest(str(on), known))
        if do in ANSWERS and do not in possible_answers(str(on)):
            able = ", ".join(sorted(possible_answers(str(on))))
            self.wrong("do", do, f"cannot be done to {on}", f"one of {able}")
        return str(on)

    def _repeats(self, row: Mapping[str, Any], rule: Rule) -> None:
        times = row.get("times", 1)
        if type(times) is not int or times < 0:
            self.wrong("times", times, "must be a whole number, 0 for ever")
        elif times != 1 and not (rule.on or rule.event):
            self.wrong("times", times, "needs a `when` that can come again", "on or event")
        else:
            rule.left = times or math.inf
        if "until_ms" in row:
            rule.until_ms = self._ms("until_ms", row["until_ms"]) or 0.0

    def _ms(self, name: str, value: Any) -> float | None:
        if type(value) in (int, float) and 0 <= value < 1e12:
            return float(value)
        self.wrong(name, value, "must be ms since the simulation began")
        return None
