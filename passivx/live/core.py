"""The live bot without its arms: a state, ``step(event, now)``, and the intents that come of it.

It does no I/O, asks for no time and draws no random number: the same events at the same times lead
to the same intents, which is what replaying a run by its seed rests on. What is wanted, when it is
sent and what a fill does is the compiled core's (`_core.bot`), the same as in a backtest; here is
what a real venue adds: answers that never come, streams that fall silent, accounts that others
touch.

It is long because all of that meets in one place: whether an order may be sent now.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from passivx._core.bot import Bot
from passivx._core.calc import cost, near_to
from passivx._core.flow import FLOW_RULES_DTYPE, What
from passivx._core.types import KIND_NAMES, Kind
from passivx.config import Config
from passivx.exchanges.base import (
    Account,
    Fill,
    FillKind,
    Link,
    NewOrder,
    Order,
    OrderStatus,
    Outcome,
    Payment,
    PublicTrade,
    Reaction,
    Rules,
    Verdict,
)
from passivx.live import events as ev
from passivx.live.books import MONEY_STEP, Books
from passivx.live.events import Event, Intent, Note, Now, OnExit, Record
from passivx.live.market import STALE_S, MarketView
from passivx.live.orders import (
    FENCE_S,
    Ours,
    State,
    body_of,
    instance_of,
    is_own_id,
    kind_of,
    make_id,
    ours_of_body,
)
from passivx.models import step_parts

__all__ = ["LIQUIDATED", "Core", "Mode", "Opening"]

LIQUIDATED: Final = (
    "the position was liquidated; look at the account and the config before you start again"
)
"""Why a bot halts after a liquidation."""

# The process stood still, or the clock was set: everything may have changed meanwhile, s.
_PAUSE_S: Final = 10.0
_RECONCILE_S: Final = 30.0
_ALTERED_S: Final = 8.0  # while somebody's settings keep the bot from opening
_RULES_S: Final = 24 * 3600.0
_HALTED_RULES_S: Final = 10.0
# While no stream of trades is live, REST is asked for them so often, s.
_POLL_TRADES_S: Final = 3.0
_HOLD_TRADES_S: Final = 2.0
# An answer without the order's state is followed by its event; else it is looked up, s.
_EVENT_S: Final = 1.0
_FIRST_LOOK_S: Final = 0.5
_BETWEEN_LOOKS_S: Final = 1.1
_LONGEST_LOOK_S: Final = 8.0
# Refusals of one kind within a minute before entries wait.
_MOST_REFUSALS: Final = 3
_MINUTE_S: Final = 60.0
_ASK_AGAIN_S: Final = 20.0
# Entries that rest when the bot halts are cancelled so often, so far apart: a key may be gone.
_HALT_TRIES: Final = 4
_FLATTEN_AGAIN_S: Final = 0.5
_HALT_AGAIN_S: Final = 15.0
_MOST_SEEN: Final = 50_000
_MOST_CLOSED: Final = 2_000
_EQUITY_S: Final = 60.0
# How much further back fills are read than they need be, ms.
_OVERLAP_MS: Final = 60_000
_MOST_ORPHANS: Final = 1_000
_FEE_NOISE: Final = 1e-5
# A stranger's fill so near the liquidation price, or beyond it, is the venue's.
_NEAR_LIQUIDATION: Final = 0.01

# A look at an enum costs three times what a comparison does.
_CANCEL: Final = int(What.CANCEL)
_AT_MARKET: Final = int(What.PLACE_AT_MARKET)
# Handlers return what they add to the intents.
_Intents = list[Intent]
# what, id, side, price, qty, reduce_only, kind, ideal price, ideal qty: `_core.bot.Bot`
_Message = tuple[int, int, int, float, float, bool, int, float, float]


class Mode(StrEnum):
    """What the bot may do."""

    ACTIVE = "active"
    REDUCING = "reducing"  # nothing that could enlarge the position
    HALTED = "halted"  # cancels only


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """All that a run begins with, read from venue and journal at one time.

    ``intents``: journal bodies and wall times of orders whose fate the last run did not learn, by
    client id; ``filled``: what is known to have filled of orders, by client id and by the venue's;
    ``seen``: trade and payment ids that need not be booked; ``trades``: recent public ones, oldest
    first, at least one; ``close_base``: the journal's, None when it has none; ``liquidated``: the
    venue has closed the position since the last run.
    """

    config: Config
    rules: Rules
    account: Account
    orders: list[Order]
    intents: Mapping[str, tuple[int, dict[str, Any]]]
    filled: Mapping[str, float]
    seen: Iterable[str]
    trades: list[PublicTrade]
    close_base: float | None
    instance: str
    settle: str
    liquidated: bool = False


class Core:
    """One bot's state. Feed it with `trade`, `quote` and `step`.

    Attributes
    ----------
    bot : Bot
        Market, account and order flow.
    mode_reasons : dict
        Why nothing is opened, by name; empty while ACTIVE.
    halted : str
        Why only cancels are sent; "" otherwise.
    counts : Counter
        How often what was detected.
    wants_moment : bool
        A `Moment` should follow once all of this moment has been told.
    """

    def __init__(self, opening: Opening, now: Now) -> None:
        self.config = config = opening.config
        self.rules = opening.rules
        self.halted = ""
        self.mode_reasons: dict[str, tuple[str, float]] = {}
        self.counts: Counter[str] = Counter()
        self.wants_moment = True
        self.stopping: OnExit | None = None
        self._instance = opening.instance
        self._settle = opening.settle
        # This run's and those whose orders it takes over: of all others somebody else is in charge.
        ids = [*opening.intents, *(order.client_id for order in opening.orders)]
        self._own_instances = {opening.instance, *map(instance_of, ids)} - {""}
        self._n_ids = 0
        self._epoch = 0
        self._last = now
        # The venue's clock against ours: what is read since some time is asked for in its time.
        self._venue_ahead_ms = opening.account.ts_ms - now.ms
        self._account_ms = opening.account.ts_ms
        self._ours: dict[str, Ours] = {}
        self._by_id: dict[int, Ours] = {}
        self._by_order_id: dict[str, Ours] = {}
        self._closed: dict[str, Ours] = {}
        # Fills, by the venue's order id, of orders of ours whose id we do not know yet.
        self._orphans: dict[str, float] = {}
        self._filled_before = opening.filled
        self._seen: dict[str, None] = dict.fromkeys(opening.seen)
        self._links: dict[Link, bool] = {}
        self._market = MarketView(opening.trades, opening.account.ts_ms, now)
        # Trades of the stream that wait for those a gap has swallowed, since when.
        self._held_trades: list[tuple[str, float, float, int, bool]] | None = None
        self._held_since_s = now.s
        self._reading_trades = False
        self._next_trades_s = now.s
        self._confirmed_s = now.s
        self._reconciling = False
        self._next_reconcile_s = now.s + _RECONCILE_S
        self._wait_reconcile_s = 0.5
        self._reading_rules = False
        self._next_rules_s = now.s + _RULES_S
        self._next_equity_s = now.s
        self._mark_price = math.nan
        self._books = Books(self, now)
        self._refusals: deque[tuple[float, str]] = deque()
        self._venue_ends: deque[float] = deque()
        self._flattened = False
        self._resumed_s = -math.inf
        self._flatten_again_s = -math.inf
        self._halt_tries = 0
        self._halt_again_s = math.inf
        self._silent_until_s = -math.inf
        self._in_question = ""  # why to halt, if the rules do not say that nothing trades
        self._again: Ours | None = None  # a market stop that waits for room
        # Fills and payments are known up to here, by the venue's time; as of a complete reading.
        self._known_ms = self._reading_ms = opening.account.ts_ms
        self._out: _Intents = []
        self._leverage = opening.account.leverage

        market = opening.rules.market
        self._price_step = step_parts(market.price_step)
        self._qty_step = step_parts(market.qty_step)
        flow_rules = np.zeros(1, FLOW_RULES_DTYPE)
        for name in FLOW_RULES_DTYPE.names or ():
            flow_rules[name] = getattr(config, name)
        self.bot = Bot(
            config.strategy_record(),
            market.record(config.venue_leverage),
            flow_rules,
            market.tier_records(),
            wallet=opening.account.wallet,
            price=opening.trades[0].price,
            ema=opening.trades[0].price,
            span=config.indicator_settings.tick_ema.span,
            leverage=self._leverage,
            cross_mode=opening.account.cross_mode,
            quoted=config.book == "ticker",
        )
        for trade in opening.trades:
            self.bot.trade(trade.price, trade.buyer_maker)
        self.bot.settle()
        held = opening.account.position
        if held.size != 0.0:
            self.bot.adopt(size=held.size, entry_price=held.entry_price)
            self._books.take_liq(held.liq_price)
            base = opening.close_base
            if base is not None and base >= abs(held.size):
                self.bot.close_base_is(base)
        self._take_over(opening, now)
        self.bot.ask_for_plan()
        self._liquidated_before = opening.liquidated

    # --- the market: the hot path ---

    def trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool, now: Now
    ) -> bool:
        """Take in a public trade; True if it was new."""
        market = self._market
        if self._held_trades is not None:
            # Those that are missing come first.
            self._held_trades.append((trade_id, price, qty, ts_ms, buyer_maker))
            market.heard(ts_ms, now)
            return True
        if not market.is_new(trade_id):
            return False
        if now.s - self._last.s > _PAUSE_S:
            self.wants_moment = True  # which begins with finding out what was missed
        market.heard(ts_ms, now)
        market.trade_ms = ts_ms
        if self.bot.trade(price, buyer_maker, ts_ms > market.quote_ms):
            self.wants_moment = True
        return True

    def quote(self, bid: float, ask: float, ts_ms: int, now: Now) -> None:
        """Take in best bid and ask."""
        self._market.heard(ts_ms, now)
        if bid < ask:
            self._market.quote_ms = ts_ms
            self.bot.quote(bid, ask)

    # --- everything else ---

    def step(self, event: Event, now: Now) -> list[Intent]:
        """Take in an event, and return what is to be done, in this order."""
        self._out = []
        self._enter(now)
        _HANDLERS[type(event)](self, event, now)
        return self._out

    def _enter(self, now: Now) -> None:
        if self._liquidated_before:
            self._liquidated_before = False
            self.halt(f"while no bot was there {LIQUIDATED}")
        passed_s = now.s - self._last.s
        jumped_s = (now.ms - self._last.ms) / 1e3 - passed_s
        self._last = now
        if passed_s > _PAUSE_S:
            self.doubt("the bot stood still", now)
            self._resumed_s = now.s
            self.counts["pause"] += 1
        elif abs(jumped_s) > _PAUSE_S:
            self.doubt("the clock was set", now)
            self.counts["clock_set"] += 1

    # --- modes ---

    @property
    def mode(self) -> Mode:
        """Return what the bot may do now."""
        if self.halted or self._in_question or self._last.s < self._silent_until_s:
            return Mode.HALTED
        return Mode.REDUCING if self.mode_reasons else Mode.ACTIVE

    @property
    def hears_account(self) -> bool:
        """Whether the stream of the account is live."""
        return self._links.get(Link.PRIVATE, False)

    def tell(self, intent: Intent) -> None:
        """Have something done after what is wanted already."""
        self._out.append(intent)

    def plan_anew(self) -> None:
        """Have the next moment plan, and there be one."""
        self.bot.ask_for_plan()
        self.wants_moment = True

    def halt(self, why: str) -> None:
        """Send nothing but cancels from now on: of what could enlarge the position, at once."""
        if not self.halted:
            self.halted = why
            self.counts["halt"] += 1
            rest = [o.client_id for o in self._ours.values() if o.state is State.OPEN]
            self._out.append(Note("halted", {"why": why, "orders_left": rest}, alert=True))
            self._halt_tries = _HALT_TRIES
            self._cancel_entries(self._last)

    def _cancel_entries(self, now: Now) -> None:
        """While halted nobody closes what an entry would open."""
        self._halt_tries -= 1
        self._halt_again_s = now.s + _HALT_AGAIN_S
        self._cancel_now([o for o in self._ours.values() if not o.reduce_only], now)

    def _cancel_now(self, orders: Iterable[Ours], now: Now) -> None:
        """Cancel outside the flow; one whose cancel has no answer is cancelled again."""
        due = [o for o in orders if o.ended is None and (not o.cancelling or o.cancel_unknown)]
        for order in due:
            order.cancelling = True
            order.cancel_answered = order.cancel_unknown = False
            order.cancel_s = now.s
        if due:
            self._flush([], [o.as_order() for o in due])

    def gate(self, name: str, why: str, until_s: float = math.inf, *, alert: bool = False) -> None:
        """Open nothing until ``until_s``, or until `_clear`."""
        if name not in self.mode_reasons:
            self.counts[f"gate_{name}"] += 1
            self._out.append(Note("reducing", {"reason": name, "why": why}, alert=alert))
        self.mode_reasons[name] = why, until_s

    def clear(self, name: str) -> None:
        if self.mode_reasons.pop(name, None) is not None:
            self._out.append(Note("cleared", {"reason": name, "mode": self.mode.value}))
            self.plan_anew()

    def doubt(self, why: str, now: Now) -> None:
        """Events may be missing: nothing is opened until account and orders were read anew."""
        self.gate("account", why)
        self._epoch += 1
        self._wait_reconcile_s = 0.5
        self._reconcile(now)

    def _why_not(self, reduce_only: bool) -> str:
        """Return why an order must not be sent now, "" if it may."""
        if self.stopping is not None:
            return "stopping"
        if self.halted:
            return self.halted
        if reduce_only:
            return ""
        if self._market.age_s(self._last) > STALE_S:
            return "market data are old"
        return next((why for why, _ in self.mode_reasons.values()), "")

    # --- sending ---

    def _moment(self, _: ev.Moment, now: Now) -> None:
        self.wants_moment = False
        if self._is_silent(now):
            self.bot.settle()
            return
        self._send_again(now)
        due = self.bot.settle()
        self._send(self.bot.plan() if due else self.bot.release(), now)

    def _requote(self, _: ev.Requote, now: Now) -> None:
        if not self._is_silent(now):
            self._send(self.bot.requote(), now)

    def _is_silent(self, now: Now) -> bool:
        if self.halted or self._in_question or self.stopping is not None:
            return True
        return now.s < self._silent_until_s

    def _send(
        self,
        messages: list[_Message],
        now: Now,
    ) -> None:
        """Turn the flow's messages into intents, in their order."""
        if messages and messages[0][0] == _AT_MARKET and self.rules.reduce_only_summed:
            messages = _with_room(messages)
        places: list[Ours] = []
        cancels: list[Order] = []
        for what, id, side, price, qty, reduce_only, kind, ideal_price, ideal_qty in messages:
            if what == _CANCEL:
                if places:
                    self._flush(places, cancels)
                order = self._by_id.get(id)
                if order is None:
                    # It went while the plan was made.
                    self.bot.gone(id)
                    self.bot.arrived(side, False)
                    self.wants_moment = True
                else:
                    order.cancelling = True
                    order.cancel_answered = order.cancel_unknown = False
                    order.cancel_s = now.s
                    cancels.append(order.as_order())
                continue
            if cancels:
                self._flush(places, cancels)
            at_market = what == _AT_MARKET
            qty = min(qty, self.rules.max_market_qty if at_market else qty)
            why, block = self._why_not(reduce_only), False
            if not why and not at_market and (why := self._unfit(price, qty)):
                block = True
            if why:
                self.counts["held_back"] += 1
                self.bot.refused(id, block)
                if not at_market:
                    self.bot.arrived(side, False)
                    self.wants_moment = True
                continue
            self._n_ids += 1
            places.append(
                self._know(
                    Ours(
                        id=id,
                        client_id=make_id(kind, self._instance, self._n_ids),
                        side=side,
                        price=price,
                        qty=qty,
                        reduce_only=reduce_only,
                        at_market=at_market,
                        kind=kind,
                        ideal_price=ideal_price,
                        ideal_qty=ideal_qty,
                        sent_s=now.s,
                        sent_ms=now.ms,
                    )
                )
            )
            if at_market:
                # A stop waits for nothing: neither do we, to write down what else is to be sent.
                self._flush(places, [])
        self._flush(places, cancels)

    def _flush(self, places: list[Ours], cancels: list[Order]) -> None:
        if places:
            self._epoch += 1
            self._out.append(
                ev.Place(
                    [
                        NewOrder(
                            client_id=o.client_id,
                            side=o.side,
                            price=o.price,
                            qty=o.qty,
                            reduce_only=o.reduce_only,
                            at_market=o.at_market,
                        )
                        for o in places
                    ],
                    [body_of(o) for o in places],
                )
            )
            places.clear()
        if cancels:
            self._epoch += 1
            self._out.append(ev.Cancel(list(cancels)))
            cancels.clear()

    def _unfit(self, price: float, qty: float) -> str:
        """Return what the venue's rules have against an order, "" if nothing."""
        rules = self.rules
        if not rules.min_price <= price <= rules.max_price:
            return "price out of bounds"
        if qty > rules.max_qty:
            return "quantity above the venue's"
        if len(self._ours) >= rules.max_orders:
            return "as many orders as the venue takes"
        return ""

    # --- orders ---

    def _know(self, order: Ours) -> Ours:
        self._ours[order.client_id] = order
        if order.id:
            self._by_id[order.id] = order
        if order.order_id:
            self._by_order_id[order.order_id] = order
        return order

    def _take_over(self, opening: Opening, now: Now) -> None:
        """Take over the orders of earlier runs: those that rest, and those nobody knows about."""
        intents = dict(opening.intents)
        for order in opening.orders:
            if is_own_id(order.client_id):
                sent_ms, body = intents.pop(order.client_id, (order.ts_ms, None))
                self._adopt_order(order, body, now, sent_ms)
        for client_id, (sent_ms, body) in intents.items():
            # Neither open nor known to have ended. Its age goes by the wall clock, which may have
            # been set meanwhile: for that it is asked about twice, too.
            age_s = min(max(0.0, (now.ms - sent_ms) / 1e3), FENCE_S)
            unknown = ours_of_body(client_id, body, sent_s=now.s - age_s, sent_ms=sent_ms)
            unknown.filled = opening.filled.get(client_id, 0.0)
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
        self.bot.refused(order.id, would_take or (blocked and order.kind not in _STOPS))
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

    def _send_again(self, now: Now) -> None:
        before = self._again
        if before is None or any(
            o.cancelling and o.side == before.side for o in self._ours.values()
        ):
            return
        self._again = None
        size = self.bot.account[2]
        if not size * before.side < 0.0 or self._why_not(True):
            self.bot.refused(before.id, False)
            return
        self._n_ids += 1
        order = replace(
            before,
            client_id=make_id(before.kind, self._instance, self._n_ids),
            state=State.SENT,
            qty=min(before.qty, abs(size)),
            sent_s=now.s,
            sent_ms=now.ms,
            placing=True,
            again=True,
        )
        self._flush([self._know(order)], [])

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
            self.gate("venue", why, now.s + _ASK_AGAIN_S, alert=True)
            if order.reduce_only:
                self._silent_until_s = max(self._silent_until_s, now.s + _ASK_AGAIN_S)
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

    def _count_refusal(self, code: str, why: str, now: Now) -> None:
        refusals = self._refusals
        while refusals and refusals[0][0] < now.s - _MINUTE_S:
            refusals.popleft()
        refusals.append((now.s, code))
        if sum(each == code for _, each in refusals) >= _MOST_REFUSALS:
            self.gate("refusals", why, now.s + _MINUTE_S, alert=True)

    def _unsent(self, event: ev.Unsent, now: Now) -> None:
        self.gate("journal", event.why, now.s + 1.0, alert=True)
        for client_id in event.client_ids:
            order = self._ours.get(client_id)
            if order is not None:
                self._arrived(order)
                self._forget(order)
                self.bot.refused(order.id, False)

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
            if now.s < self._resumed_s + _PAUSE_S:
                return  # our own dead-man switch or watchdog, while the process stood still
            ends = self._venue_ends
            while ends and ends[0] < now.s - _MINUTE_S:
                ends.popleft()
            ends.append(now.s)
            self._out.append(
                Note("ended_by_venue", {"client_id": order.client_id, "reason": reason})
            )
            if len(ends) >= _MOST_REFUSALS:
                self.gate(
                    "venue_cancels",
                    f"the venue keeps cancelling our orders ({reason})",
                    now.s + _MINUTE_S,
                    alert=True,
                )

    def _forget(self, order: Ours) -> None:
        order.state = State.FINAL
        order.ask_s = None
        self._ours.pop(order.client_id, None)
        self._by_id.pop(order.id, None)
        self._closed[order.client_id] = order
        if len(self._closed) > _MOST_CLOSED:
            oldest = self._closed.pop(next(iter(self._closed)))
            self._by_order_id.pop(oldest.order_id, None)

    # --- looking up ---

    def _look_up_due(self, now: Now) -> None:
        for order in self._ours.values():
            if order.ask_s is not None and order.ask_s <= now.s and not order.asking:
                order.asking = True
                order.asked += 1
                since_ms = order.sent_ms + self._venue_ahead_ms - _OVERLAP_MS
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

    def _not_read(self, event: ev.NotRead, now: Now) -> None:
        """A read failed: nothing is concluded from it."""
        self.counts["not_read"] += 1
        if event.fatal and event.what == "rules":
            self.halt(event.why)
        elif event.fatal:
            # Asked twice: one wrong answer must not end it.
            self._in_question = event.why
            self._read_rules(now)
        if event.what == "look_up":
            order = self._ours.get(event.key)
            if order is not None:
                order.asking = False
                wait_s = min(_LONGEST_LOOK_S, 2.0 ** min(order.asked, 5))
                order.ask_s = now.s + max(wait_s, event.retry_after_s)
        elif event.what == "reconcile":
            self._reconciling = False
            self.gate("account", f"could not be read: {event.why}")
            self._wait_reconcile_s = min(30.0, self._wait_reconcile_s * 2.0)
            self._next_reconcile_s = now.s + max(self._wait_reconcile_s, event.retry_after_s)
        elif event.what == "rules":
            self._reading_rules = False
            wait_s = _HALTED_RULES_S if self._in_question else 3.0 * _HALTED_RULES_S
            self._next_rules_s = now.s + max(wait_s, event.retry_after_s)
        else:
            self._reading_trades = False
            self._next_trades_s = now.s + max(_POLL_TRADES_S, event.retry_after_s)

    # --- fills and money ---

    def _fill_seen(self, event: ev.FillSeen, now: Now) -> None:
        self._book(event.fill, now)

    def _book(self, fill: Fill, now: Now) -> None:
        """Take in an execution of the account, once."""
        if fill.trade_id in self._seen or fill.ts_ms < self._account_ms - _OVERLAP_MS:
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
        self._out.append(
            Record("payment", payment.id, {"amount": payment.amount, "venue_ts_ms": payment.ts_ms})
        )

    def _wallet_seen(self, event: ev.WalletSeen, now: Now) -> None:
        self._books.wallet_told(event.wallet, event.ts_ms, now)

    def _position_seen(self, event: ev.PositionSeen, now: Now) -> None:
        self._books.position_told(event.position.size, now)

    def _mark_seen(self, event: ev.MarkSeen, now: Now) -> None:
        mark = event.mark
        self._market.heard(mark.ts_ms, now)
        self._mark_price = mark.mark_price
        self.bot.funding_rate(mark.funding_rate)

    # --- reading everything anew ---

    def _reconcile(self, now: Now) -> None:
        if not self._reconciling:
            self._reconciling = True
            self._next_reconcile_s = now.s + _RECONCILE_S
            self._reading_ms = now.ms + self._venue_ahead_ms
            self._out.append(ev.Reconcile(self._epoch, self._known_ms - _OVERLAP_MS))

    def _snapshot(self, event: ev.Snapshot, now: Now) -> None:
        self._reconciling = False
        self._known_ms = self._reading_ms
        coherent = event.epoch == self._epoch
        for fill in event.fills:
            self._book(fill, now)
        for payment in event.payments:
            self._pay(payment, now)
        if event.epoch != self._epoch:
            # Something happened meanwhile, or was missing: this is a picture of no one moment.
            self.counts["incoherent"] += 1
            self._next_reconcile_s = now.s + self._wait_reconcile_s
            self._wait_reconcile_s = min(4.0, self._wait_reconcile_s * 1.5)
            if coherent:
                self.gate("account", "fills were missing")
            return
        agreed = self._books.agree(event.account, now)
        for order in event.orders:
            self._told_of(order, now)
        listed = {order.client_id for order in event.orders}
        for ours in self._ours.values():
            if (
                ours.state is State.OPEN
                and ours.ended is None
                and ours.client_id not in listed
                and now.s - ours.sent_s > 1.0
            ):
                self._ask(ours, now.s)
        if agreed:
            self._confirmed_s = now.s
            self._wait_reconcile_s = 0.5
            altered = "leverage" in self.mode_reasons or "margin_mode" in self.mode_reasons
            self._next_reconcile_s = now.s + (_ALTERED_S if altered else _RECONCILE_S)
            self.clear("account")
        else:
            self._next_reconcile_s = now.s + 1.1
        self._look_up_due(now)

    def _read_rules(self, now: Now) -> None:
        if not self._reading_rules:
            self._reading_rules = True
            self._next_rules_s = now.s + _RULES_S
            self._out.append(ev.ReadRules())

    def _rules_read(self, event: ev.RulesRead, now: Now) -> None:
        self._reading_rules = False
        rules = event.rules
        if not rules.trading:
            self.gate("not_trading", "the venue does not trade the symbol now", alert=True)
            self._in_question = ""
            self._silent_until_s = max(self._silent_until_s, now.s + _HALTED_RULES_S + 1.0)
            self._next_rules_s = now.s + _HALTED_RULES_S
        elif self._in_question:
            self.halt(
                f"the venue refuses us: {self._in_question}; check key and account, start again"
            )
        elif "not_trading" in self.mode_reasons:
            self.clear("not_trading")
            self.clear("venue")
            self._silent_until_s = min(self._silent_until_s, now.s)
        if rules.market != self.rules.market:
            self.counts["rules_changed"] += 1
            self._out.append(Note("rules", {"text": "the venue's rules have changed"}))
            market = rules.market
            self._price_step = step_parts(market.price_step)
            self._qty_step = step_parts(market.qty_step)
            self.bot.rules(
                market.record(self.config.venue_leverage),
                market.tier_records(),
                leverage=self._leverage,
            )
            self.wants_moment = True
        self.rules = rules

    # --- links ---

    def _link_seen(self, event: ev.LinkSeen, now: Now) -> None:
        link, was = event.link, self._links.get(event.link)
        self._links[link] = event.live
        if event.closed and self.stopping is None:
            if link is Link.PRIVATE:
                self.halt(f"the venue does not let us in any more: {event.reason}")
            else:
                self.gate(f"link_{link}", f"closed for good: {event.reason}", alert=True)
            return
        if was is None or was == event.live:
            return
        self.counts["link_up" if event.live else "link_down"] += 1
        self._out.append(
            Note("link", {"link": link.value, "live": event.live, "reason": event.reason})
        )
        if link is Link.ORDERS:
            return  # orders go by REST meanwhile
        if not event.live:
            if link is Link.BOOK:
                self.bot.unquoted()
                if self.config.book != "ticker":
                    return
            self.gate(f"link_{link}", f"no connection for {link}: {event.reason}")
            return
        if link is Link.PRIVATE:
            self.doubt("events of the account may be missing", now)
        if link is Link.TRADES:
            self._read_trades(now)
        self.clear(f"link_{link}")

    def _gap_seen(self, event: ev.GapSeen, now: Now) -> None:
        self.counts[f"gap_{event.link}"] += 1
        if event.link is Link.TRADES:
            self.gate("trades", event.reason)
            if self._held_trades is None:
                self._held_trades, self._held_since_s = [], now.s
            self._read_trades(now)
        elif event.link is not Link.BOOK:
            self.doubt(event.reason, now)

    def _read_trades(self, now: Now) -> None:
        if not self._reading_trades:
            self._reading_trades = True
            self._next_trades_s = now.s + _POLL_TRADES_S
            self._out.append(ev.ReadTrades())

    def _trades_read(self, event: ev.TradesRead, now: Now) -> None:
        """Fill a gap, or stand in for a stream that is silent."""
        self._reading_trades = False
        for trade in event.trades:
            if not self._market.is_new(trade.trade_id):
                continue
            self.counts["trades_backfilled"] += 1
            if self.bot.trade(trade.price, trade.buyer_maker, trade.ts_ms > self._market.quote_ms):
                self.wants_moment = True
        self._let_trades_go(now)
        self.clear("trades")

    def _let_trades_go(self, now: Now) -> None:
        """Play what the stream has told while a gap was filled, or could not be."""
        held, self._held_trades = self._held_trades or [], None
        for trade_id, price, qty, ts_ms, buyer_maker in held:
            self.trade(trade_id, price, qty, ts_ms, buyer_maker, now)

    # --- time ---

    def _tick(self, _: ev.Tick, now: Now) -> None:
        for name in [n for n, (_, until_s) in self.mode_reasons.items() if until_s <= now.s]:
            self.clear(name)
        stale = self._market.age_s(now) > STALE_S
        if stale:
            self.gate("market", f"no market data for {STALE_S:g} s")
        elif "market" in self.mode_reasons:
            self.clear("market")
        if self._held_trades is not None and now.s - self._held_since_s > _HOLD_TRADES_S:
            self._let_trades_go(now)  # a stop must not wait for an answer
        blind = stale or self._links.get(Link.TRADES) is False
        if blind and now.s >= self._next_trades_s:
            self._read_trades(now)
        if -math.inf < self._silent_until_s <= now.s:
            self._silent_until_s = -math.inf
            self.bot.ask_for_plan()
            if self.stopping is not None:
                self._cancel_all(now)
        if self.halted and self._halt_tries > 0 and now.s >= self._halt_again_s:
            self._cancel_entries(now)
        self._books.compare(now)
        if now.s >= self._next_reconcile_s:
            self._reconcile(now)
        if now.s >= self._next_rules_s:
            self._read_rules(now)
        self._look_up_due(now)
        if now.s >= self._next_equity_s:
            self._next_equity_s = now.s + _EQUITY_S
            self._record_equity()
        if self.bot.due:
            self.wants_moment = True

    def _record_equity(self) -> None:
        wallet, _, size, entry_price, _ = self.bot.account
        self._out.append(
            Record(
                "equity",
                "",
                {
                    "wallet": wallet,
                    "equity": wallet + self.bot.open_pnl,
                    "pos_size": size,
                    "pos_price": entry_price,
                    "price": self.bot.market[0],
                    "close_base": self.bot.close_base,
                },
            )
        )

    def _hold(self, event: ev.Hold, now: Now) -> None:
        if event.why:
            self.gate(event.name, event.why, alert=True)
        else:
            self.clear(event.name)

    # --- the end ---

    def _stop(self, event: ev.Stop, now: Now) -> None:
        self.stopping = event.on_exit
        self._out.append(Note("stopping", {"on_exit": event.on_exit.value}))
        self._cancel_all(now)

    def _cancel_all(self, now: Now) -> None:
        if self.stopping is OnExit.KEEP:
            return
        self._cancel_now(self._ours.values(), now)

    def flatten(self, now: Now) -> list[Intent]:
        """Close the position at market: once, after the cancels of a stop that asks for it."""
        self._out = []
        size = self.bot.account[2]
        if self._must_flatten and now.s >= max(self._silent_until_s, self._flatten_again_s):
            self._flattened = True
            self._flatten_again_s = now.s + _FLATTEN_AGAIN_S
            self._n_ids += 1
            order = Ours(
                id=0,
                client_id=make_id(Kind.STOP_LOSS_POS_PRICE_DIFF, self._instance, self._n_ids),
                side=-1 if size > 0.0 else 1,
                price=self.bot.market[0],
                qty=min(abs(size), self.rules.max_market_qty),
                reduce_only=True,
                at_market=True,
                kind=int(Kind.STOP_LOSS_POS_PRICE_DIFF),
                ideal_price=self.bot.market[0],
                ideal_qty=abs(size),
                sent_s=now.s,
                sent_ms=now.ms,
            )
            self._flush([self._know(order)], [])
        return self._out

    @property
    def _must_flatten(self) -> bool:
        flatten = self.stopping is OnExit.FLATTEN and not self._flattened
        return flatten and self.bot.account[2] != 0.0

    @property
    def wound_up(self) -> bool:
        """Whether a stop has nothing left to send or to wait for."""
        left = self.open_ids if self.stopping is not OnExit.KEEP else []
        return not self.unresolved and not left and not self._must_flatten

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

    def status(self) -> dict[str, Any]:
        """Return what a monitor wants to see, as JSON takes it."""
        wallet, _, size, entry_price, liq_price = self.bot.account
        last, bid, ask, ema = self.bot.market
        return {
            "mode": self.mode.value,
            "halted": self.halted,
            "reasons": {name: why for name, (why, _) in self.mode_reasons.items()},
            "wallet": wallet,
            "equity": wallet + self.bot.open_pnl,
            "position": {"size": size, "entry_price": entry_price, "liq_price": liq_price},
            "market": {"last": last, "bid": bid, "ask": ask, "ema": ema, "mark": self._mark_price},
            "market_age_s": self._market.age_s(self._last),
            "confirmed_s_ago": self._last.s - self._confirmed_s,
            "links": {link.value: live for link, live in self._links.items()},
            "orders": [
                {
                    "client_id": o.client_id,
                    "state": o.state.value,
                    "side": o.side,
                    "price": o.price,
                    "qty": o.qty,
                    "filled": o.filled,
                    "kind": KIND_NAMES[Kind(o.kind)],
                    "reduce_only": o.reduce_only,
                }
                for o in self._ours.values()
            ],
            "orders_left": self.open_ids if self.halted else [],
            "counts": dict(self.counts),
        }


def _with_room(messages: list[_Message]) -> list[_Message]:
    """Put the cancels that make room for a market stop before it.

    Where open reduce-only orders count against the position, a stop beside closes for all of it
    would be refused.
    """
    stop = messages[0]
    room: list[_Message] = []
    rest: list[_Message] = []
    for message in messages[1:]:
        makes_room = message[0] == _CANCEL and message[2] == stop[2]
        (room if makes_room else rest).append(message)
    return [*room, stop, *rest]


_STOPS: Final = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)

_HANDLERS: Final[dict[type, Callable[[Core, Any, Now], None]]] = {
    ev.MarkSeen: Core._mark_seen,
    ev.OrderSeen: Core._order_seen,
    ev.FillSeen: Core._fill_seen,
    ev.PaymentSeen: Core._payment_seen,
    ev.WalletSeen: Core._wallet_seen,
    ev.PositionSeen: Core._position_seen,
    ev.LinkSeen: Core._link_seen,
    ev.GapSeen: Core._gap_seen,
    ev.Answered: Core._answered,
    ev.Unsent: Core._unsent,
    ev.Found: Core._found,
    ev.Snapshot: Core._snapshot,
    ev.RulesRead: Core._rules_read,
    ev.TradesRead: Core._trades_read,
    ev.NotRead: Core._not_read,
    ev.Moment: Core._moment,
    ev.Requote: Core._requote,
    ev.Tick: Core._tick,
    ev.Hold: Core._hold,
    ev.Stop: Core._stop,
}
