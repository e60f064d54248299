"""The live bot without its arms: a state, ``step(event, now)``, and the intents that come of it.

It does no I/O, asks for no time and draws no random number: the same events at the same times lead
to the same intents, which is what replaying a run by its seed rests on. What is wanted, when it is
sent and what a fill does is the compiled core's (`_core.bot`), the same as in a backtest; what a
real venue adds stands in three layers: whether anything may be sent (`live.modes`), what becomes of
each order (`live.working`), and here the order of things: a market that is heard, moments, plans,
readings, the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from passivx._core.bot import Bot
from passivx._core.flow import What
from passivx._core.types import KIND_NAMES, Kind
from passivx.config import Config
from passivx.exchanges.base import Account, Link, Order, PublicTrade, Rules
from passivx.live import events as ev
from passivx.live.events import Event, Intent, Note, Now, OnExit, Record
from passivx.live.market import STALE_S, MarketView
from passivx.live.modes import RECONCILE_S, Mode
from passivx.live.orders import CLOSING, Ours, State, closing_order, instance_of, make_id
from passivx.live.working import LIQUIDATED, PAUSE_S, Working

__all__ = ["LIQUIDATED", "Core", "Mode", "Opening"]

_ALTERED_S: Final = 8.0  # while somebody's settings keep the bot from opening
# What a gap has swallowed is waited for so long: a stop must not wait for an answer, s.
_HOLD_TRADES_S: Final = 2.0
_FLATTEN_AGAIN_S: Final = 0.5
# An order that the market has crossed should have told of its fill by then, s.
_CROSSED_S: Final = 2.0
_EQUITY_S: Final = 60.0
_HOLD_S: Final = 15.0  # of everything, unless it is told again or ended

# A look at an enum costs three times what a comparison does.
_CANCEL: Final = int(What.CANCEL)
_AT_MARKET: Final = int(What.PLACE_AT_MARKET)
# what, id, side, price, qty, reduce_only, kind, ideal price, ideal qty: `_core.bot.Bot`
_Message = tuple[int, int, int, float, float, bool, int, float, float]


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


class Core(Working):
    """One bot's state. Feed it with `trade`, `quote` and `step`."""

    def __init__(self, opening: Opening, now: Now) -> None:
        config, market = opening.config, opening.rules.market
        venue_ms = opening.account.ts_ms
        ids = [*opening.intents, *(order.client_id for order in opening.orders)]
        super().__init__(
            config,
            opening.rules,
            MarketView(opening.trades, venue_ms, now),
            leverage=opening.account.leverage,
            venue_ms=venue_ms,
            now=now,
            instance=opening.instance,
            settle=opening.settle,
            seen=opening.seen,
            filled=opening.filled,
            instances=map(instance_of, ids),
        )
        self._n_ids = 0
        # Trades of the stream that wait for those a gap has swallowed, since when.
        self._held_trades: list[tuple[str, float, float, int, bool]] | None = None
        self._held_since_s = now.s
        self._confirmed_s = now.s
        self._next_equity_s = now.s
        self._mark_price = math.nan
        self._flatten_again_s = -math.inf
        self._held_until_s = math.nan
        self._liquidated_before = opening.liquidated

        self.bot = Bot(
            config.strategy_record(),
            market.record(config.venue_leverage),
            config.flow_record(),
            market.tier_records(),
            wallet=opening.account.wallet,
            price=opening.trades[0].price,
            ema=opening.trades[0].price,
            span=config.indicator_settings.tick_ema.span,
            leverage=opening.account.leverage,
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
        self._take_over(opening.orders, opening.intents, opening.filled, now)
        self.bot.ask_for_plan()

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
        if now.s - self._last.s > PAUSE_S:
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
        if passed_s > PAUSE_S:
            self.doubt("the bot stood still", now)
            self._resumed_s = now.s
            self.counts["pause"] += 1
        elif abs(jumped_s) > PAUSE_S:
            self.doubt("the clock was set", now)
            self.counts["clock_set"] += 1

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
                    order.begin_cancel(now.s)
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
            self._look_up_failed(event, now)
        else:
            self._reading_failed(event, now)

    # --- fills and money ---

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
            self._next_reconcile_s = now.s + (_ALTERED_S if altered else RECONCILE_S)
            self.clear("account")
        else:
            self._next_reconcile_s = now.s + 1.1
        self._look_up_due(now)

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
        if now.s >= self._next_reconcile_s or self._was_crossed(now):
            self._reconcile(now)
        if now.s >= self._next_rules_s:
            self._read_rules(now)
        self._look_up_due(now)
        if now.s >= self._next_equity_s:
            self._next_equity_s = now.s + _EQUITY_S
            self._record_equity()
        if self.bot.due:
            self.wants_moment = True

    def _was_crossed(self, now: Now) -> bool:
        """Tell whether the market stands beyond an order of ours that, for all we know, rests."""
        if now.s < self._next_reconcile_s - RECONCILE_S + _CROSSED_S:
            return False
        last = self.bot.market[0]
        crossed = any(
            o.state is State.OPEN and o.side * last < o.side * o.price and o.ended is None
            for o in self._ours.values()
        )
        if crossed:
            self.counts["crossed"] += 1
        return crossed

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
            if event.everything:
                self._held_until_s = now.s + _HOLD_S
                self._silent_until_s = max(self._silent_until_s, self._held_until_s)
        else:
            if self._silent_until_s == self._held_until_s:
                self._silent_until_s = now.s  # no venue has asked for more
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
            order = closing_order(
                make_id(CLOSING, self._instance, self._n_ids),
                size,
                self.bot.market[0],
                most=self.rules.max_market_qty,
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
