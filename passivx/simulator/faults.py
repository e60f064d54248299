"""Everything that can go wrong at a venue, on purpose: rules of when, and what then.

A rule is one JSON object: ``do`` names what happens, ``when`` the moment, the rest are its
arguments (docs/simulator.md has the tables). Moments are logical: the n-th request of a kind, the
n-th event of the account, a time of the simulation; without ``when`` it happens at once. Of rules
that decide about the same answer, the oldest does; the others wait for the next request. Every
firing is a line of the ledger.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import orjson

from passivx._core.calc import floor_to
from passivx.clock import Clock, Timer
from passivx.models import step_parts
from passivx.simulator.gate import Gate, frame
from passivx.simulator.ledger import Ledger
from passivx.simulator.messages import HttpReply
from passivx.simulator.rules import ANSWERS, DEEDS, Rule, possible_answers, read_rules, words_of
from passivx.simulator.venue import (
    Execution,
    Kind,
    OrderType,
    Refusal,
    SimOrder,
    SimVenue,
    TimeInForce,
)

__all__ = ["Faults", "SkewedClock"]

# What makes two of the same question look different.
_OF_THE_MOMENT: Final = frozenset(("timestamp", "signature", "recvWindow"))


class SkewedClock:
    """The protocol's clock, which a fault may set wrong; intervals stay right."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._from_ms = self._skew_ms = 0
        self._begun_s = self._over_s = 0.0

    def skew(self, ms: int, over_s: float = 0.0) -> None:
        """Be wrong by ``ms``, or get there over so many seconds."""
        self._from_ms = self._skew_now_ms()
        self._skew_ms = ms
        self._begun_s, self._over_s = self._clock.monotonic_s(), over_s

    def _skew_now_ms(self) -> int:
        if self._over_s:
            share = (self._clock.monotonic_s() - self._begun_s) / self._over_s
            if share < 1.0:
                return round(self._from_ms + (self._skew_ms - self._from_ms) * share)
            self._over_s = 0.0
        return self._skew_ms

    def time_ms(self) -> int:
        """Return the wall time, ms UTC, as wrong as it was set."""
        return self._clock.time_ms() + (self._skew_now_ms() if self._over_s else self._skew_ms)

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

    def __init__(self, venue: SimVenue, clock: SkewedClock, ledger: Ledger) -> None:
        self._venue = venue
        self._clock = clock
        self._ledger = ledger
        self._rules: dict[int, Rule] = {}
        self._last_id = 0
        self._foreign = 0
        self._gates: set[Gate] = set()
        # By what was asked: when which answer was given, oldest first.
        self._answers: dict[tuple[str, str], list[tuple[float, HttpReply]]] = {}
        self._undo: dict[str, Callable[[], object]] = {}
        self._begun_s = clock.monotonic_s()

    @property
    def armed(self) -> bool:
        """Whether any rule waits for its moment."""
        return bool(self._rules)

    # --- the list of rules ---

    def start(self, rules: Iterable[Rule]) -> None:
        """Begin the simulation's time, and take the rules of a plan."""
        self._begun_s = self._clock.monotonic_s()
        for rule in rules:
            self._take(rule)

    def add(self, rows: Any) -> list[int]:
        """Take one rule or a list of them; return their numbers.

        Raises
        ------
        ConfigError
            Naming everything that is wrong with any of them; then none is taken.
        """
        return [self._take(rule) for rule in read_rules(rows)]

    def heal(self) -> None:
        """Remove every rule and undo what lasts: a halt of trading, hedge mode, the key's rights.

        What happened to account, orders and the market's rules stays.
        """
        for rule in self._rules.values():
            if rule.timer is not None:
                rule.timer.cancel()
        self._rules.clear()
        self._answers.clear()
        for gate in list(self._gates):
            gate.heal()
        self._clock.skew(0)
        undo, self._undo = self._undo, {}
        for each in undo.values():
            each()

    def _take(self, rule: Rule) -> int:
        self._last_id += 1
        rule.id = self._last_id
        if rule.at_once:
            self._fire(rule)
            return rule.id
        self._rules[rule.id] = rule
        if rule.at_ms is not None:
            delay_s = max(0.0, (rule.at_ms - self._passed_ms()) / 1000)
            rule.timer = self._clock.call_later(delay_s, lambda: self._fire(rule))
        return rule.id

    def _passed_ms(self) -> float:
        return (self._clock.monotonic_s() - self._begun_s) * 1000

    def _spend(self, rule: Rule, **fields: object) -> None:
        """Count a firing, and put it down."""
        rule.left -= 1
        if rule.left <= 0:
            self._rules.pop(rule.id, None)
        self._ledger.append("fault", id=rule.id, do=rule.do, args=_plain(rule.args), **fields)

    def _fire(self, rule: Rule) -> None:
        self._spend(rule)
        self._deed(rule)

    def _live(self) -> list[Rule]:
        now_ms = self._passed_ms()
        for rule in [r for r in self._rules.values() if r.until_ms < now_ms]:
            del self._rules[rule.id]
        return list(self._rules.values())

    # --- requests ---

    def meet(self, name: str, channel: str = "rest") -> list[Rule]:
        """Count a request and return the rules that it meets: any deeds, then at most one answer.

        Parameters
        ----------
        name : str
            "POST /path" over REST, "ws:operation" over a socket, "connect:channel" for one that is
            to be opened.
        channel : str
            rest, or the socket's.
        """
        words = words_of(name, channel)
        deeds: list[Rule] = []
        answer: Rule | None = None
        for rule in self._live():
            if not rule.matches(words):
                continue
            if rule.do in ANSWERS and rule.do not in possible_answers(words[0]):
                continue
            if not rule.due():
                continue
            if rule.do in DEEDS:
                deeds.append(rule)
            elif answer is None:
                answer = rule
        met = deeds if answer is None else [*deeds, answer]
        for rule in met:
            self._spend(rule, on=name)
        return met

    async def answer(
        self,
        rules: list[Rule],
        transport: asyncio.BaseTransport | None,
        execute: Callable[[], HttpReply],
        asked: tuple[str, str, str],
    ) -> HttpReply | None:
        """Answer a REST request as the rules it met say; None when the connection was ended.

        ``asked``: name, query and body.
        """
        name, query, body = asked
        rule = self._deeds_of(rules, None, query + body)
        if rule is None:
            return execute()
        args = rule.args
        if rule.do == "rest.delay_exec":
            await self._clock.sleep(args["s"])
            return execute()
        if rule.do == "rest.drop_before":
            _end(transport)
            return None
        if rule.do == "rest.reply":
            return _reply(args)
        reply = execute()
        if rule.do == "rest.delay":
            await self._clock.sleep(args["s"])
            return reply
        if rule.do == "rest.reply_after_exec":
            return _reply(args)
        if rule.do == "rest.stale":
            return self._stale(reply, name, query, args["s"])
        out = cast(asyncio.Transport, transport)
        if rule.do == "rest.drop_after" or out is None:
            _end(out)
            return None
        raw = _raw(reply)
        if rule.do == "rest.truncate":
            out.write(raw[: raw.index(b"\r\n\r\n") + 4 + args["bytes"]])
        else:
            for i in range(len(raw)):
                if out.is_closing():
                    break
                out.write(raw[i : i + 1])
                await self._clock.sleep(1.0 / args["bytes_per_s"])
        out.close()
        return None

    def _stale(self, reply: HttpReply, name: str, query: str, age_s: float) -> HttpReply:
        """Return what was answered so long ago, or the oldest known answer."""
        fields = parse_qsl(query, keep_blank_values=True)
        question = "&".join(f"{k}={v}" for k, v in fields if k not in _OF_THE_MOMENT)
        known = self._answers.setdefault((name, question), [])
        now_s = self._clock.monotonic_s()
        known.append((now_s, reply))
        while len(known) > 1 and known[1][0] <= now_s - age_s:
            known.pop(0)
        if math.isinf(age_s):
            del known[1:]
        return known[0][1]

    async def open(
        self, rules: list[Rule], transport: asyncio.BaseTransport | None
    ) -> HttpReply | None:
        """Do to a socket that is to be opened what the rules it met say; a reply refuses it."""
        rule = _answering(rules)
        if rule is None:
            return None
        if rule.do == "rest.delay":
            await self._clock.sleep(rule.args["s"])
            return None
        if rule.do == "rest.reply":
            return _reply(rule.args)
        _end(transport)
        return HttpReply(500)

    def opened(self, gate: Gate, rules: list[Rule]) -> None:
        """Take a new websocket in, and do to it what the rules it met say."""
        self._gates.add(gate)
        for rule in rules:
            if rule.do in DEEDS:
                self._deed(rule, gate=gate)

    def closed(self, gate: Gate) -> None:
        """Forget a websocket."""
        self._gates.discard(gate)

    def receive(self, gate: Gate, text: str, deliver: Callable[[], None]) -> bool:
        """Let a message of a client meet its rules; ``deliver`` gives it to the front.

        Return whether it is given to it, now or later.
        """
        name, ident = _operation(text)
        rules = self.meet(f"ws:{name}", gate.channel) if name else []
        rule = self._deeds_of(rules, gate, text)
        if rule is None:
            deliver()
            return True
        args = rule.args
        if rule.do == "rest.drop_before":
            gate.rst()
            return False
        if rule.do == "rest.reply":
            _send_body(gate, args, ident)
            return False
        if rule.do == "rest.delay_exec":
            self._clock.call_later(args["s"], deliver)
        else:
            answers = gate.caught(deliver)
            if rule.do == "rest.delay":
                self._clock.call_later(args["s"], lambda: gate.write_all(answers))
            elif rule.do == "rest.reply_after_exec":
                _send_body(gate, args, ident)
            elif rule.do == "rest.truncate":
                gate.write_all(each[: args["bytes"]] for each in answers[:1])
                gate.fin()
            else:
                gate.rst()
        return True

    def _deeds_of(self, rules: list[Rule], gate: Gate | None, text: str) -> Rule | None:
        """Do what does not concern the answer, and return the rule that does."""
        order = self._meant(text) if rules else None
        for rule in rules:
            if rule.do in DEEDS:
                self._deed(rule, gate=gate, order=order)
        return _answering(rules)

    def _meant(self, text: str) -> SimOrder | None:
        """Return the open order that a request names, whatever the venue calls the field."""
        for order in self._venue.open_orders():
            names = (order.client_id, self._ledger.order_text(order.order_id))
            if any(each and each in text for each in names):
                return order
        return None

    # --- events of the account: an observer of the venue ---

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        self._happened("print")

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        pass

    def on_order(self, order: SimOrder, what: str) -> None:
        if what in ("new", "canceled"):
            self._happened("order" if what == "new" else "cancel", order)

    def on_execution(self, order: SimOrder | None, execution: Execution) -> None:
        self._happened("liquidation" if execution.kind is Kind.LIQUIDATION else "fill", order)

    def on_account(self, why: str) -> None:
        pass

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        self._happened("funding")

    def on_terms(self, what: str) -> None:
        pass

    def _happened(self, event: str, order: SimOrder | None = None) -> None:
        if not self._rules:
            return
        for rule in self._live():
            if rule.event == event and rule.due():
                self._spend(rule, on=event)
                # Not from within what is happening: the venue must be done with it first.
                self._clock.call_later(0.0, partial(self._deed, rule, order=order))

    # --- deeds ---

    def _deed(self, rule: Rule, *, gate: Gate | None = None, order: SimOrder | None = None) -> None:
        """Do it: to the socket and the order that the moment is about, if the rule names none."""
        kind, _, name = rule.do.partition(".")
        args = dict(rule.args)
        if rule.do == "heal":
            self.heal()
        elif rule.do == "clock.skew":
            self._clock.skew(args["ms"], args["over_s"])
        elif kind == "ws":
            self._websocket(name, gate, args)
        else:
            if "client_id" in args and rule.do != "ext.order":
                args["order"] = self._order(args.pop("client_id"), order)
                if args["order"] is None:
                    self._ledger.append("fault", id=rule.id, do=rule.do, refused="no such order")
                    return
            try:
                getattr(self, f"_{kind}_{name}")(**args)
            except (Refusal, ValueError) as e:
                # What the venue's own rules do not allow even now.
                self._ledger.append("fault", id=rule.id, do=rule.do, refused=str(e))

    def _websocket(self, name: str, gate: Gate | None, args: dict[str, Any]) -> None:
        channel = args.pop("channel")
        if name == "raw":
            raw = bytes.fromhex(args["hex"]) if args["hex"] else frame(0x1, args["text"].encode())
            args = {"data": raw}
        elif name == "cut":
            args = {"n_bytes": args["bytes"]}
        for each in list(self._gates):
            if each.channel == channel if channel else gate in (None, each):
                getattr(each, name)(**args)

    def _order(self, client_id: str, about: SimOrder | None) -> SimOrder | None:
        """Return the open order of that name; without one that which it is about, or the oldest."""
        if not client_id and about is not None:
            return None if about.status.final else about
        orders = self._venue.open_orders()
        return next((o for o in orders if client_id in ("", o.client_id)), None)

    def _qty(self, qty: float) -> float:
        step = self._venue.listing.market.qty_step
        return max(floor_to(qty, step_parts(step)), step)

    def _ord_partial(self, order: SimOrder, fraction: float) -> None:
        self._venue.fill(order, min(order.left, self._qty(order.left * fraction)))

    def _ord_venue_cancel(self, order: SimOrder) -> None:
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
        # Whatever is open: what the venue would refuse is what shall be met.
        before = self._venue.hedge_mode
        self._undo.setdefault("hedge", lambda: setattr(self._venue, "hedge_mode", before))
        self._venue.hedge_mode = on

    def _acct_margin(self, cross: bool) -> None:
        self._venue.set_cross_mode(cross)

    def _acct_leverage(self, leverage: int) -> None:
        self._venue.set_leverage(float(leverage))

    def _acct_rights(self, withdraw: bool, trade: bool) -> None:
        venue = self._venue
        before = partial(venue.set_rights, trade=venue.may_trade, withdraw=venue.may_withdraw)
        self._undo.setdefault("rights", before)
        venue.set_rights(trade=trade, withdraw=withdraw)

    def _mkt_jump(self, fraction: float) -> None:
        venue = self._venue
        step = step_parts(venue.listing.market.price_step)
        price = floor_to(venue.mark_price * (1.0 + fraction), step)
        venue.jump(max(price, venue.listing.min_price), venue.listing.market.qty_step)

    def _mkt_status(self, trading: bool) -> None:
        if not trading:
            self._undo["trading"] = lambda: self._venue.set_trading(True)
        self._venue.set_trading(trading)

    def _mkt_rules(self, **changes: float | None) -> None:
        listing = self._venue.listing
        said: dict[str, Any] = {k: value for k, value in changes.items() if value is not None}
        outer = {name: said.pop(name) for name in ("max_qty", "max_orders") if name in said}
        market = replace(listing.market, **said)
        self._venue.set_listing(replace(listing, market=market, **outer))

    def _ext_order(
        self, side: str, qty: float, price: float, reduce_only: bool, client_id: str = ""
    ) -> None:
        self._foreign += 1
        self._venue.place(
            client_id=client_id or f"web_{self._foreign}",
            side=1 if side == "buy" else -1,
            type=OrderType.LIMIT if price else OrderType.MARKET,
            tif=TimeInForce.GTC,
            price=price,
            qty=qty,
            reduce_only=reduce_only,
        )

    def _ext_clone(self, order: SimOrder) -> None:
        side = "buy" if order.side > 0 else "sell"
        self._ext_order(side, order.qty, order.price, order.reduce_only)

    def _ext_close(self, fraction: float) -> None:
        size = self._venue.size
        if size:
            qty = min(abs(size), self._qty(abs(size) * fraction))
            self._ext_order("sell" if size > 0 else "buy", qty, 0.0, True)

    def _ext_flip(self) -> None:
        size = self._venue.size
        if size:
            self._ext_order("sell" if size > 0 else "buy", 2 * abs(size), 0.0, False)


# --- helpers --------------------------------------------------------------------------------------


def _answering(rules: list[Rule]) -> Rule | None:
    """Return which of the rules that `Faults.meet` found decides about the answer."""
    return rules[-1] if rules and rules[-1].do in ANSWERS else None


def _operation(text: str) -> tuple[str, object]:
    """Return what a message asks for and by what it is to be answered; "" when neither is told."""
    try:
        message = orjson.loads(text)
    except ValueError:
        return "", None
    if not isinstance(message, dict):
        return "", None
    name = message.get("method", message.get("op", ""))
    ident = message.get("id", message.get("reqId", message.get("req_id")))
    return (name if isinstance(name, str) else ""), ident


def _send_body(gate: Gate, args: Mapping[str, Any], ident: object) -> None:
    """Send a made-up answer, with the request's id where it says ``"$id"``; nothing if empty."""
    body = args["body"].encode().replace(b'"$id"', orjson.dumps(ident))
    if body:
        gate.send(body)


def _end(transport: asyncio.BaseTransport | None) -> None:
    if transport is not None:
        cast(asyncio.Transport, transport).abort()


def _reply(args: Mapping[str, Any]) -> HttpReply:
    headers = {name.title(): value for name, value in args["headers"].items()}
    return HttpReply(
        args["status"], {"Content-Type": "application/json", **headers}, args["body"].encode()
    )


def _raw(reply: HttpReply) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    head = f"HTTP/1.1 {reply.status} X\r\n{headers}Content-Length: {len(reply.body)}\r\n\r\n"
    return head.encode() + reply.body


def _plain(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a rule says, without what it leaves open."""
    return {k: v for k, v in args.items() if v not in (None, "", math.inf)}
