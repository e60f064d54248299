"""Whether anything may be sent now, and why not; and what has to be read anew before it may.

The lowest layer of what decides (`live.working` and `live.core` are built upon it): named reasons
that keep the bot from opening, silence that a venue has asked for, and the halt from which only an
operator leads back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, deque
from enum import StrEnum
from typing import Final

from passivx._core.bot import Bot
from passivx.config import Config
from passivx.exchanges.base import Link, Rules
from passivx.live import events as ev
from passivx.live.events import Intent, Note, Now, OnExit
from passivx.live.market import STALE_S, MarketView
from passivx.models import step_parts

__all__ = ["ASK_AGAIN_S", "MINUTE_S", "MOST_REFUSALS", "OVERLAP_MS", "RECONCILE_S", "Mode", "Modes"]

RECONCILE_S: Final = 10.0
"""The account is read anew at least so often, s."""
MINUTE_S: Final = 60.0
MOST_REFUSALS: Final = 3
"""Refusals of one kind within a minute before entries wait."""
ASK_AGAIN_S: Final = 20.0
"""How long a venue that takes nothing is left alone, s."""
OVERLAP_MS: Final = 60_000
"""How much further back fills are read than they need be, ms."""

_RULES_S: Final = 24 * 3600.0
_HALTED_RULES_S: Final = 10.0
# What an operator should see to is tried again, so long after, s.
_QUESTION_S: Final = 5.0
# Between readings that fail, so often at the least, s.
_LONGEST_WAIT_S: Final = 8.0
# While no stream of trades is live, REST is asked for them so often, s.
_POLL_TRADES_S: Final = 3.0


class Mode(StrEnum):
    """What the bot may do."""

    ACTIVE = "active"
    REDUCING = "reducing"  # nothing that could enlarge the position
    HALTED = "halted"  # cancels only


class Modes(ABC):
    """What may be sent.

    Attributes
    ----------
    bot : Bot
        Market, account and order flow.
    mode_reasons : dict
        Why nothing is opened, by name, and until when (monotonic s); empty while ACTIVE.
    halted : str
        Why only cancels are sent; "" otherwise.
    counts : Counter
        How often what was detected.
    wants_moment : bool
        A `Moment` should follow once all of this moment has been told.
    stopping : OnExit
        What a stop has asked for; None before one.
    """

    bot: Bot

    def __init__(
        self,
        config: Config,
        rules: Rules,
        market: MarketView,
        *,
        leverage: float,
        venue_ms: int,
        now: Now,
    ) -> None:
        self.config = config
        self.rules = rules
        self.halted = ""
        self.mode_reasons: dict[str, tuple[str, float]] = {}
        self.counts: Counter[str] = Counter()
        self.wants_moment = True
        self.stopping: OnExit | None = None
        self._market = market
        self._leverage = leverage
        self._price_step = step_parts(rules.market.price_step)
        self._qty_step = step_parts(rules.market.qty_step)
        self._out: list[Intent] = []
        self._last = now
        self._epoch = (
            0  # rises with whatever makes a reading that has begun a picture of no one time
        )
        self._links: dict[Link, bool] = {}
        self._silent_until_s = -math.inf
        self._in_question = ""  # why to halt, if the rules do not say that nothing trades
        self._questions: list[float] = []
        self._refusals: deque[tuple[float, str]] = deque()
        # The venue's clock against ours: what is read since some time is asked for in its time.
        self._venue_ahead_ms = venue_ms - now.ms
        # Fills and payments are known up to here, by the venue's time; as of a complete reading.
        self._known_ms = self._reading_ms = venue_ms
        self._reconciling = False
        self._next_reconcile_s = now.s + RECONCILE_S
        self._wait_reconcile_s = 0.5
        self._reading_rules = False
        self._next_rules_s = now.s + _RULES_S
        self._reading_trades = False
        self._next_trades_s = now.s

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
            self._out.append(Note("halted", {"why": why, "orders_left": self.open_ids}, alert=True))
            self._on_halt()

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

    def _is_silent(self, now: Now) -> bool:
        if self.halted or self._in_question or self.stopping is not None:
            return True
        return now.s < self._silent_until_s

    def _count_refusal(self, code: str, why: str, now: Now) -> None:
        refusals = self._refusals
        while refusals and refusals[0][0] < now.s - MINUTE_S:
            refusals.popleft()
        refusals.append((now.s, code))
        if sum(each == code for _, each in refusals) >= MOST_REFUSALS:
            self.gate("refusals", why, now.s + MINUTE_S, alert=True)

    @property
    @abstractmethod
    def open_ids(self) -> list[str]:
        """Client ids of our orders that rest, as far as known."""

    @abstractmethod
    def _on_halt(self) -> None:
        """Do what a halt calls for besides silence."""

    # --- reading anew ---

    def _reconcile(self, now: Now) -> None:
        if not self._reconciling:
            self._reconciling = True
            self._next_reconcile_s = now.s + RECONCILE_S
            self._reading_ms = now.ms + self._venue_ahead_ms
            self._out.append(ev.Reconcile(self._epoch, self._known_ms - OVERLAP_MS))

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
            self._answer_question(now)
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

    def _answer_question(self, now: Now) -> None:
        """The symbol trades, and yet we were refused: that may be chance, but not every time."""
        why, self._in_question = self._in_question, ""
        self._questions = [s for s in self._questions if s > now.s - MINUTE_S] + [now.s]
        if len(self._questions) >= MOST_REFUSALS:
            self.halt(f"the venue refuses us: {why}; check key and account, then start again")
            return
        self._silent_until_s = max(self._silent_until_s, now.s + _QUESTION_S)

    def _read_trades(self, now: Now) -> None:
        if not self._reading_trades:
            self._reading_trades = True
            self._next_trades_s = now.s + _POLL_TRADES_S
            self._out.append(ev.ReadTrades())

    def _reading_failed(self, event: ev.NotRead, now: Now) -> None:
        """A reading of account, rules or trades failed: nothing is concluded from it."""
        if event.what == "reconcile":
            self._reconciling = False
            self.gate("account", f"could not be read: {event.why}")
            self._wait_reconcile_s = min(_LONGEST_WAIT_S, self._wait_reconcile_s * 2.0)
            self._next_reconcile_s = now.s + max(self._wait_reconcile_s, event.retry_after_s)
        elif event.what == "rules":
            self._reading_rules = False
            wait_s = _HALTED_RULES_S if self._in_question else 3.0 * _HALTED_RULES_S
            self._next_rules_s = now.s + max(wait_s, event.retry_after_s)
        else:
            self._reading_trades = False
            self._next_trades_s = now.s + max(_POLL_TRADES_S, event.retry_after_s)
