"""Our orders at work: what answers, streams, queries and fills make of each of them.

The rule for an order whose fate is unknown is docs/live.md's: it counts at full size and keeps its
place until a stream, a query or a fill tells, and is given up only by proof. It is long because an
order's life is one idea: message, answer, word, query and fill meet in the same few fields of
`live.orders.Ours`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from passivx._core.calc import cost, near_to
from passivx._core.types import KIND_NAMES, Kind
from passivx.config import Config
from passivx.exchanges.base import (
    Fill,
    FillKind,
    Order,
    OrderStatus,
    Outcome,
    Payment,
    Reaction,
    Rules,
    Verdict,
)
from passivx.live import events as ev
from passivx.live.books import MONEY_STEP, Books, payment_body
from passivx.live.events import Note, Now, Record
from passivx.live.market import MarketView
from passivx.live.modes import ASK_AGAIN_S, MINUTE_S, MOST_REFUSALS, OVERLAP_MS, Modes
from passivx.live.orders import (
    FENCE_S,
    Ours,
    State,
    body_of,
    instance_of,
    is_own_id,
    kind_of,
    ours_of_body,
)

__all__ = ["LIQUIDATED", "PAUSE_S", "STOPS", "Working"]

LIQUIDATED: Final = (
    "the position was liquidated; look at the account and the config before you start again"
)
"""Why a bot halts after a liquidation."""
PAUSE_S: Final = 10.0
"""The process stood still, or the clock was set: everything may have changed meanwhile, s."""
STOPS: Final = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)

# An answer without the order's state is followed by its event; else it is looked up, s.
_EVENT_S: Final = 1.0
_FIRST_LOOK_S: Final = 0.5
_BETWEEN_LOOKS_S: Final = 1.1
_LONGEST_LOOK_S: Final = 8.0
_MOST_SEEN: Final = 50_000
_MOST_CLOSED: Final = 2_000
_MOST_ORPHANS: Final = 1_000
_FEE_NOISE: Final = 1e-5
# A stranger's fill so near the liquidation price, or beyond it, is the venue's.
_NEAR_LIQUIDATION: Final = 0.01
# Entries that rest when the bot halts are cancelled so often, so far apart: a key may be gone.
_HALT_TRIES: Final = 4
_HALT_AGAIN_S: Final = 15.0


class Working(Modes):
    """Modes, and the orders that are not over yet."""

    def __init__(
        self,
        config: Config,
        rules: Rules,
        market: MarketView,
        *,
        leverage: float,
        venue_ms: int,
        now: Now,
        instance: str,
        settle: str,
        seen: Iterable[str],
        filled: Mapping[str, float],
        instances: Iterable[str],
    ) -> None:
        super().__init__(config, rules, market, leverage=leverage, venue_ms=venue_ms, now=now)
        self._instance = instance
        # This run's and those whose orders it takes over: of all others somebody else is in charge.
        self._own_instances = {instance, *instances} - {""}
        self._settle = settle
        self._began_ms = venue_ms
        self._books = Books(self, now)
        self._ours: dict[str, Ours] = {}
        self._by_id: dict[int, Ours] = {}
        self._by_order_id: dict[str, Ours] = {}
        self._closed: dict[str, Ours] = {}
        # Fills, by the venue's order id, of orders of ours whose id we do not know yet.
        self._orphans: dict[str, float] = {}
        self._filled_before = filled
        self._seen: dict[str, None] = dict.fromkeys(seen)
        self._again: Ours | None = None  # a market stop that waits for room
        self._flattened = False
        self._resumed_s = -math.inf
        self._venue_ends: deque[float] = deque()
        self._halt_tries = 0
        self._halt_again_s = math.inf

    # --- messages and their answers ---

    def _know(self, order: Ours) -> Ours:
        self._ours[order.client_id] = order
        if order.id:
            self._by_id[order.id] = order
        if order.order_id:
            self._by_order_id[order.order_id] = order
        return order

    def _forget(self, order: Ours) -> None:
        order.state = State.FINAL
        order.ask_s = None
        self._ours.pop(order.client_id, None)
        self._by_id.pop(order.id, None)
        self._closed[order.client_id] = order
        if len(self._closed) > _MOST_CLOSED:
            oldest = self._closed.pop(next(iter(self._closed)))
            self._by_order_id.pop(oldest.order_id, None)

    def _flush(self, places: list[Ours], cancels: list[Order]) -> None:
        if places:
            self._epoch += 1
            self._out.append(
                ev.Place(
                    [o.as_new() for o in places],
                    [body_of(o) for o in places],
                )
            )
            places.clear()
        if cancels:
            self._epoch += 1
            self._out.append(ev.Cancel(list(cancels)))
            cancels.clear()

    def _cancel_now(self, orders: Iterable[Ours], now: Now) -> None:
        """Cancel outside the flow; one whose cancel has no answer is cancelled again."""
        due = [o for o in orders if o.ended is None and (not o.cancelling or o.cancel_unknown)]
        for order in due:
            order.begin_cancel(now.s)
        if due:
            self._flush([], [o.as_order() for o in due])

    def _on_halt(self) -> None:
        self._halt_tries = _HALT_TRIES
        self._cancel_entries(self._last)

    def _cancel_entries(self, now: Now) -> None:
        """While halted nobody closes what an entry would open."""
        self._halt_tries -= 1
        self._halt_again_s = now.s + _HALT_AGAIN_S
        self._cancel_now([o for o in self._ours.values() if not o.reduce_only], now)

    def _answered(self, event: ev.Answered, now: Now) -> None:
        self._epoch += 1
        outcome = event.outcome
        if outcome.verdict is Verdict.UNKNOWN:
            self.counts["unknown_outcome"] += 1
        order = self._ours.get(event.client_id)
        if event.cancel:
            order = order or self._closed.get(event.client_id)
        else:
            self._record_outcome(event.client_id, outcome)
        if order is None:
            return
        if event.cancel:
            self._cancel_answered(order, outcome, now)
        elif outcome.verdict is Verdict.OK:
            if outcome.order is not None:
                self._see(order, outcome.order, now)
            elif order.state is State.SENT:
                order.ask_s = now.s + _EVENT_S
        elif outcome.verdict is Verdict.UNKNOWN:
            if order.state is State.SENT:
                order.state = State.UNKNOWN
                order.ask_s = now.s + _FIRST_LOOK_S
                # It counts and keeps its slot; its side need not wait for it.
                self._arrived(order)
            self._react(order, outcome, now)
        elif order.state is State.SENT:
            self._rejected(order, outcome, now)
        else:
            # The stream has told of it already: who is right?
            order.ask_s = now.s
        self._look_up_due(now)

    def _rejected(self, order: Ours, outcome: Outcome, now: Now) -> None:
        """It is proven that the order never was."""
        again = order.at_market and order.id != 0 and outcome.reaction is Reaction.DROP
        if again and self._try_again(order):
            return
        would_take = outcome.reaction is Reaction.REPRICE
        # What is refused as it stands would be refused again: its slot waits for the next requote.
        blocked = would_take or outcome.reaction in (Reaction.DROP, Reaction.REFRESH_RULES)
        self.counts["post_only_refused" if would_take else "refused"] += 1
        self._arrived(order)
        self._forget(order)
        self.bot.refused(order.id, would_take or (blocked and order.kind not in STOPS))
        if order.id == 0:
            self._flattened = False  # the one that closes the position at the end: another try
        if not would_take:
            self._out.append(
                Note(
                    "refused",
                    {
                        "client_id": order.client_id,
                        "code": outcome.code,
                        "text": outcome.text,
                        "reaction": outcome.reaction.value,
                    },
                )
            )
        self._react(order, outcome, now)

    def _try_again(self, order: Ours) -> bool:
        """Have a refused market stop sent anew once the cancels that make room for it are through.

        True if it will be: closes that rest count against the position on some venues.
        """
        pending = any(o.cancelling and o.side == order.side for o in self._ours.values())
        if not pending or order.again:
            return False
        self.counts["stop_again"] += 1
        self._forget(order)
        self._again = order
        return True

    def _cancel_answered(self, order: Ours, outcome: Outcome, now: Now) -> None:
        order.cancel_answered = True
        if outcome.verdict is Verdict.OK and outcome.order is not None:
            self._see(order, outcome.order, now)
        if order.state is State.FINAL:
            self._cancel_arrived(order)
        elif outcome.verdict is Verdict.OK:
            self._ask(order, now.s + _EVENT_S)
        elif outcome.verdict is Verdict.UNKNOWN or outcome.reaction is Reaction.GONE:
            # Perhaps filled, perhaps cancelled, perhaps neither.
            order.cancel_unknown = True
            wait_s = 0.0 if outcome.reaction is Reaction.GONE else _FIRST_LOOK_S
            if order.state is State.OPEN:
                self._ask(order, now.s + wait_s)
        else:
            self._cancel_arrived(order)
        self._react(order, outcome, now)

    def _react(self, order: Ours, outcome: Outcome, now: Now) -> None:
        """Do what a refusal asks for, besides the order itself."""
        reaction, why = outcome.reaction, f"{outcome.text} ({outcome.code})"
        if reaction is Reaction.HALT:
            # For good, unless it is only that the symbol does not trade now: the rules say.
            self._in_question = why
            self._read_rules(now)
        elif reaction is Reaction.BACK_OFF:
            self.counts["back_off"] += 1
            wait_s = max(1.0, outcome.retry_after_s)
            self.gate("rate_limit", why, now.s + wait_s)
            if order.reduce_only or order.cancelling or order.state is State.OPEN:
                # Even what has a reserve was held: nothing at all goes out.
                self._silent_until_s = max(self._silent_until_s, now.s + wait_s)
        elif reaction is Reaction.REFRESH_RULES:
            self._read_rules(now)
        elif reaction is Reaction.REDUCE_ONLY:
            # Three times a minute it may be asked again; sooner when the rules say so.
            self.gate("venue", why, now.s + ASK_AGAIN_S, alert=True)
            if order.reduce_only:
                self._silent_until_s = max(self._silent_until_s, now.s + ASK_AGAIN_S)
            self._read_rules(now)
        elif reaction is Reaction.RESYNC_CLOCK:
            self.counts["clock_refused"] += 1
            self.gate("clock", why, now.s + 2.0)
        elif reaction is Reaction.RECREATE:
            self.gate("rate_limit", why, now.s + 1.0)
        elif reaction is Reaction.DROP:
            if order.reduce_only:
                # Perhaps the position is not what we take it for.
                self._reconcile(now)
            self._count_refusal(str(outcome.code), why, now)
        if reaction in (Reaction.REFRESH_RULES, Reaction.RESYNC_CLOCK):
            self._count_refusal(str(outcome.code), why, now)

    def _unsent(self, event: ev.Unsent, now: Now) -> None:
        self.gate("journal", event.why, now.s + 1.0, alert=True)
        for client_id in event.client_ids:
            order = self._ours.get(client_id)
            if order is not None:
                self._arrived(order)
                self._forget(order)
                self.bot.refused(order.id, False)

    def _arrived(self, order: Ours) -> None:
        """The message that placed it has arrived, or may as well have."""
        if order.placing:
            order.placing = False
            if not order.at_market:
                self.bot.arrived(order.side, False)
                self.wants_moment = True

    def _cancel_arrived(self, order: Ours) -> None:
        """Its cancel has arrived: it was answered, and the order is gone or stays."""
        if order.cancelling:
            order.cancelling = order.cancel_answered = order.cancel_unknown = False
            if order.state is not State.FINAL:
                # The next plan may cancel it again: soon enough, and not in a circle.
                self.bot.kept(order.id)
            self.bot.arrived(order.side, False)
            self.wants_moment = True

    def _record_outcome(self, client_id: str, outcome: Outcome) -> None:
        final = outcome.verdict is Verdict.REJECTED
        self._out.append(
            Record(
                "outcome",
                client_id,
                {
                    "verdict": outcome.verdict.value,
                    "status": outcome.order.status.value if outcome.order else "",
                    "code": outcome.code,
                    "text": outcome.text[:200],
                    "order_id": outcome.order.order_id if outcome.order else "",
                    "final": final,
                },
            )
        )

    # --- what the venue says of orders ---

    def _order_seen(self, event: ev.OrderSeen, now: Now) -> None:
        self._told_of(event.order, now)

    def _told_of(self, order: Order, now: Now) -> None:
        """Take in the venue's word about an order, of whoever."""
        self._epoch += 1
        ours = self._ours.get(order.client_id) or self._by_order_id.get(order.order_id)
        if ours is not None:
            self._see(ours, order, now)
        elif not is_own_id(order.client_id):
            self.counts["foreign_order"] += 1
        elif not order.status.final:
            closed = self._closed.get(order.client_id)
            # That an order was taken for dead, or refused, is no proof of its end.
            if closed is None or closed.ended is None:
                self._stranger(order, now)

    def _stranger(self, order: Order, now: Now) -> None:
        """An order with our prefix that we do not know."""
        if instance_of(order.client_id) in self._own_instances:
            # Ours after all: it was taken for dead, or left just before the last run died. It must
            # not stand in nobody's books.
            self.counts["risen"] += 1
            self._adopt_order(order, None, now, order.ts_ms)
            self.plan_anew()
            self._out.append(Note("risen", {"client_id": order.client_id}, alert=True))
        else:
            self.counts["foreign_writer"] += 1
            self.gate(
                "foreign_writer",
                f"another bot places orders on this account: {order.client_id}; stop one of them",
                alert=True,
            )

    def _see(self, ours: Ours, order: Order, now: Now) -> None:
        if ours.final or not ours.is_news(order):
            return
        if ours.state is State.UNKNOWN and not order.status.final:
            self.counts["late_bound"] += 1
        ours.told_filled = max(ours.told_filled, order.filled_qty)
        ours.told_ms = max(ours.told_ms, order.ts_ms)
        ours.told = order
        ours.not_found = 0
        if order.order_id and ours.order_id != order.order_id:
            ours.order_id = order.order_id
            self._by_order_id[order.order_id] = ours
            before = self._filled_before.get(order.order_id, 0.0)
            if before > ours.filled and instance_of(ours.client_id) != self._instance:
                # It filled while nobody was there: that is in the account we began with.
                self._credit(ours, before - ours.filled)
            elif (early := self._orphans.pop(order.order_id, 0.0)) > 0.0:
                self._credit(ours, early)
        if ours.final:
            return
        if not order.status.final:
            if ours.state is not State.OPEN:
                ours.state = State.OPEN
                self.bot.placed(ours.id)
            if not ours.cancelling:
                ours.ask_s = None
            self._arrived(ours)
            if self._lacks_fills(ours):
                self._ask(ours, now.s + _EVENT_S)
            return
        ours.ended, ours.reason = order.status, order.reason
        if self._lacks_fills(ours):
            # Its fills come by another message, or have to be asked for.
            self._ask(ours, now.s + _EVENT_S)
        else:
            self._end(ours, now)

    def _lacks_fills(self, order: Ours) -> bool:
        return near_to(max(0.0, order.told_filled - order.filled), self._qty_step) > 0.0

    def _ask(self, order: Ours, at_s: float) -> None:
        if order.ask_s is None or order.ask_s > at_s:
            order.ask_s = at_s

    def _end(self, order: Ours, now: Now) -> None:
        """Nothing can happen to it any more, and all its fills are booked."""
        status, reason = order.ended, order.reason
        asked_for = order.cancelling or self.stopping is not None
        full = not order.left > 0.0
        refused = reason == "post_only" and order.filled == 0.0
        self._arrived(order)
        self._forget(order)
        if order.cancel_answered:
            self._cancel_arrived(order)
        self._out.append(
            Record(
                "outcome",
                order.client_id,
                {
                    "verdict": "final",
                    "status": status.value if status else "gone",
                    "text": reason,
                    "order_id": order.order_id,
                    "filled": order.filled,
                    "final": True,
                },
            )
        )
        if refused:
            self.counts["post_only_refused"] += 1
            self.bot.refused(order.id, True)
            return
        self.bot.gone(order.id)
        if order.id == 0:
            self._flattened = False
        if full or asked_for:
            return
        self.plan_anew()
        if reason == "reduce_only":
            self.counts["venue_trimmed"] += 1
        elif status is OrderStatus.REJECTED:
            self.counts["refused"] += 1
            self._count_refusal(reason, f"the venue refused {order.client_id}: {reason}", now)
        elif instance_of(order.client_id) != self._instance:
            # What watched over the run before may have found that one gone.
            self.counts["adopted_cancel"] += 1
        else:
            self.counts["venue_cancel"] += 1
            if now.s < self._resumed_s + PAUSE_S:
                return  # our own dead-man switch or watchdog, while the process stood still
            ends = self._venue_ends
            while ends and ends[0] < now.s - MINUTE_S:
                ends.popleft()
            ends.append(now.s)
            self._out.append(
                Note("ended_by_venue", {"client_id": order.client_id, "reason": reason})
            )
            if len(ends) >= MOST_REFUSALS:
                self.gate(
                    "venue_cancels",
                    f"the venue keeps cancelling our orders ({reason})",
                    now.s + MINUTE_S,
                    alert=True,
                )

    # --- looking up ---

    def _look_up_due(self, now: Now) -> None:
        for order in self._ours.values():
            if order.ask_s is not None and order.ask_s <= now.s and not order.asking:
                order.asking = True
                order.asked += 1
                since_ms = order.sent_ms + self._venue_ahead_ms - OVERLAP_MS
                self._out.append(ev.LookUp(order.client_id, since_ms))

    def _found(self, event: ev.Found, now: Now) -> None:
        order = self._ours.get(event.client_id)
        for fill in event.fills:
            self._book(fill, now)
        if order is None or order.final:
            return
        self._epoch += 1
        order.asking = False
        order.asked = 0
        order.ask_s = None
        if event.order is not None:
            # What was booked before this run began, or as nobody's, was of this order too.
            own = {f.trade_id: f.qty for f in event.fills if f.order_id == event.order.order_id}
            missing = near_to(max(0.0, sum(own.values()) - order.filled), self._qty_step)
            if missing > 0.0:
                self._orphans.pop(event.order.order_id, None)
                self._credit(order, missing)
                if order.final:
                    return
        if event.order is None:
            self._not_found(order, now)
            return
        self._see(order, event.order, now)
        if order.final:
            return
        if order.ended is not None:
            # Its fills are not listed yet.
            order.ask_s = now.s + 2.0
        elif order.cancelling:
            # It rests, although its cancel may still be on its way; after the fence it is not.
            fence_s = order.cancel_s + (_BETWEEN_LOOKS_S if not order.cancel_unknown else FENCE_S)
            if now.s >= fence_s:
                self._cancel_arrived(order)
            else:
                order.ask_s = fence_s

    def _not_found(self, order: Ours, now: Now) -> None:
        if order.not_found == 0 or now.s - order.not_found_s >= 1.0:
            order.not_found += 1
            order.not_found_s = now.s
        fence_s = order.sent_s + FENCE_S
        if order.state is State.OPEN or order.ended is not None:
            # It was there, so it has ended; what it filled, the position says.
            if order.not_found < 2:
                order.ask_s = now.s + _BETWEEN_LOOKS_S
                return
            self.counts["unknown_closed"] += 1
            order.ended = order.ended or OrderStatus.CANCELED
            self.doubt(f"the venue no longer knows {order.client_id}", now)
            self._end(order, now)
        elif now.s >= fence_s and order.not_found >= 2:
            self.counts["dead"] += 1
            self._arrived(order)
            self._forget(order)
            if order.cancel_answered:
                self._cancel_arrived(order)
            self._out.append(
                Record("outcome", order.client_id, {"verdict": "dead", "final": True, "text": ""})
            )
            self.bot.refused(order.id, False)
            self.plan_anew()
        else:
            order.ask_s = max(now.s + _BETWEEN_LOOKS_S, fence_s)

    def _look_up_failed(self, event: ev.NotRead, now: Now) -> None:
        order = self._ours.get(event.key)
        if order is not None:
            order.asking = False
            wait_s = min(_LONGEST_LOOK_S, 2.0 ** min(order.asked, 5))
            order.ask_s = now.s + max(wait_s, event.retry_after_s)

    # --- fills and money ---

    def _fill_seen(self, event: ev.FillSeen, now: Now) -> None:
        self._book(event.fill, now)

    def _book(self, fill: Fill, now: Now) -> None:
        """Take in an execution of the account, once."""
        if fill.trade_id in self._seen or fill.ts_ms < self._began_ms - OVERLAP_MS:
            # Known, or of before this run: then it is in the account that it began with.
            self.counts["duplicate_fill"] += 1
            return
        self._seen[fill.trade_id] = None
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._epoch += 1
        self._books.booked(now)
        order = (
            self._ours.get(fill.client_id)
            or self._by_order_id.get(fill.order_id)
            or self._closed.get(fill.client_id)
        )
        market = self.rules.market
        rate = market.maker_fee if fill.maker else market.taker_fee
        own_fee = -cost(fill.qty, fill.price, inverse=market.inverse) * rate
        told_fee = fill.fee if fill.fee_currency in ("", self._settle) else 0.0
        near = abs(told_fee - own_fee) <= MONEY_STEP + _FEE_NOISE * abs(own_fee)
        if fill.ts_ms > self._market.trade_ms or not fill.maker:
            # Not a fill of the last trade, which is not to be tested against what this one leaves.
            self.bot.settle()
        liquidated = fill.kind is FillKind.LIQUIDATION or (
            order is None and self._looks_liquidated(fill)
        )
        _, pnl, fee = self.bot.fill(
            order.id if order is not None and order.state is not State.FINAL else 0,
            fill.side,
            fill.price,
            fill.qty,
            rate,
            None if near else told_fee,
        )
        cause = KIND_NAMES[Kind(order.kind)] if order is not None else fill.kind.value
        wallet, _, size, entry_price, liq_price = self.bot.account
        self._out.append(
            Record(
                "fill",
                fill.trade_id,
                {
                    "order_id": fill.order_id,
                    "client_id": order.client_id if order is not None else fill.client_id,
                    "side": fill.side,
                    "price": fill.price,
                    "qty": fill.qty,
                    "fee": told_fee if not near else fee,
                    "pnl": pnl,
                    "maker": fill.maker,
                    "kind": fill.kind.value,
                    "venue_ts_ms": fill.ts_ms,
                    "cause": cause,
                    "pos_size": size,
                    "pos_price": entry_price,
                    "liq_price": liq_price,
                    "wallet": wallet,
                    "close_base": self.bot.close_base,
                },
            )
        )
        self.wants_moment = True
        if liquidated:
            self.halt(LIQUIDATED)
        elif fill.kind is FillKind.ADL:
            self.counts["adl"] += 1
        if order is None:
            if fill.order_id and not fill.client_id:
                self._orphans[fill.order_id] = self._orphans.get(fill.order_id, 0.0) + fill.qty
                if len(self._orphans) > _MOST_ORPHANS:
                    del self._orphans[next(iter(self._orphans))]
                # It may be of an order that we wait to hear of.
                for each in self._ours.values():
                    if each.state is not State.OPEN and each.side == fill.side:
                        self._ask(each, now.s)
            self.counts["foreign_fill"] += 1
            return
        self._filled(order, fill.qty, now)

    def _looks_liquidated(self, fill: Fill) -> bool:
        """Tell a liquidation from a trade of somebody else: Binance's REST does not say."""
        _, _, size, _, liq_price = self.bot.account
        if fill.client_id or not size * fill.side < 0.0 or not liq_price > 0.0:
            return False
        side = 1.0 if size > 0.0 else -1.0
        return side * fill.price <= side * liq_price * (1.0 + side * _NEAR_LIQUIDATION)

    def _credit(self, order: Ours, qty: float) -> None:
        """Fills that were booked as nobody's were of this order."""
        self.bot.credit(order.id, qty)
        self._filled(order, qty, self._last)

    def _filled(self, order: Ours, qty: float, now: Now) -> None:
        order.filled = near_to(order.filled + qty, self._qty_step)
        if order.filled > order.qty:
            self.counts["overfill"] += 1
            self.doubt(f"{order.client_id} filled more than was ordered", now)
        if order.state is State.FINAL:
            self.counts["late_fill"] += 1
            return
        self._arrived(order)
        if not order.left > 0.0:
            order.ended = OrderStatus.FILLED
            self._end(order, now)
        elif order.ended is not None and not self._lacks_fills(order):
            self._end(order, now)

    def _payment_seen(self, event: ev.PaymentSeen, now: Now) -> None:
        self._pay(event.payment, now)

    def _pay(self, payment: Payment, now: Now) -> None:
        key = f"payment {payment.id}"
        if key in self._seen:
            return
        self._seen[key] = None
        self._epoch += 1
        self._books.pay(payment)
        self._books.booked(now)
        self._out.append(Record("payment", payment.id, payment_body(payment)))

    # --- orders of earlier runs ---

    def _take_over(
        self,
        orders: Iterable[Order],
        intents: Mapping[str, tuple[int, dict[str, Any]]],
        filled: Mapping[str, float],
        now: Now,
    ) -> None:
        """Take over the orders of earlier runs: those that rest, and those nobody knows about."""
        left = dict(intents)
        for order in orders:
            if is_own_id(order.client_id):
                sent_ms, body = left.pop(order.client_id, (order.ts_ms, None))
                self._adopt_order(order, body, now, sent_ms)
        for client_id, (sent_ms, body) in left.items():
            # Neither open nor known to have ended. Its age goes by the wall clock, which may have
            # been set meanwhile: for that it is asked about twice, too.
            age_s = min(max(0.0, (now.ms - sent_ms) / 1e3), FENCE_S)
            unknown = ours_of_body(client_id, body, sent_s=now.s - age_s, sent_ms=sent_ms)
            unknown.filled = filled.get(client_id, 0.0)
            if not unknown.left > 0.0:
                continue
            if not unknown.at_market:
                unknown.id = self.bot.take_over(
                    unknown.side,
                    unknown.price,
                    near_to(unknown.left, self._qty_step),
                    reduce_only=unknown.reduce_only,
                    kind=unknown.kind,
                    ideal_price=unknown.ideal_price,
                    ideal_qty=unknown.ideal_qty,
                    rests=False,
                )
            unknown.ask_s = now.s
            self._know(unknown)

    def _adopt_order(
        self, order: Order, body: Mapping[str, Any] | None, now: Now, sent_ms: int
    ) -> None:
        left = near_to(order.qty - order.filled_qty, self._qty_step)
        if not left > 0.0:
            return
        kind = kind_of(order.client_id, reduce_only=order.reduce_only)
        ideal_price = body["ideal_price"] if body else order.price
        ideal_qty = body["ideal_qty"] if body else order.qty
        ideal_left = max(0.0, near_to(ideal_qty - order.filled_qty, self._qty_step))
        id = self.bot.take_over(
            order.side,
            order.price,
            left,
            reduce_only=order.reduce_only,
            kind=kind,
            ideal_price=ideal_price,
            ideal_qty=ideal_left,
        )
        self._know(
            Ours(
                id=id,
                client_id=order.client_id,
                side=order.side,
                price=order.price,
                qty=order.qty,
                reduce_only=order.reduce_only,
                at_market=False,
                kind=kind,
                ideal_price=ideal_price,
                ideal_qty=ideal_qty,
                sent_s=now.s - FENCE_S,
                sent_ms=sent_ms,
                state=State.OPEN,
                order_id=order.order_id,
                filled=order.filled_qty,
                told_filled=order.filled_qty,
                told_ms=order.ts_ms,
                placing=False,
            )
        )

    # --- what is left ---

    @property
    def unresolved(self) -> list[str]:
        """Client ids of orders whose fate, or whose cancel's, is not known."""
        return [
            o.client_id
            for o in self._ours.values()
            if o.state is not State.OPEN or o.cancelling or o.ended is not None
        ]

    @property
    def open_ids(self) -> list[str]:
        """Client ids of our orders that rest, as far as known."""
        return [o.client_id for o in self._ours.values() if o.state is State.OPEN]

    @property
    def open_entries(self) -> list[str]:
        """Client ids of those that could enlarge the position."""
        return [
            o.client_id for o in self._ours.values() if o.state is State.OPEN and not o.reduce_only
        ]

    @property
    def adopted_ids(self) -> list[str]:
        """Client ids of orders that earlier runs have sent."""
        return [id for id in self._ours if instance_of(id) != self._instance]
