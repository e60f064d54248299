"""The in-process venue with everything that can go wrong between it and the bot.

Rules are logical: "the n-th create's answer is lost", "the private stream is silent from t on for
s seconds". One seed, one plan, one run: there is no chance outside the plan.
"""

from __future__ import annotations

import asyncio
import math
from asyncio import Future
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from passivx.clock import VirtualClock
from passivx.errors import UnavailableError
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
    Reaction,
    Rules,
    Sink,
    Verdict,
)
from passivx.exchanges.stream import StreamState
from passivx.models import Position
from passivx.simulator.venue import SimVenue
from tests.live.direct import Direct

UNKNOWN = Outcome(Verdict.UNKNOWN, Reaction.LOOK_UP, text="no answer")
_TIMEOUT_S = 1.0


class Faulty(Direct):
    """`Direct` with faults. What fired is counted in `fired`."""

    def __init__(
        self, venue: SimVenue, clock: VirtualClock, *, latency_ms: float, binance: bool
    ) -> None:
        super().__init__(venue, clock, latency_ms=latency_ms, binance=binance)
        self.fired: Counter[str] = Counter()
        self.orders_due: deque[tuple[str, dict[str, Any]]] = deque()  # for the next creates
        self.cancels_due: deque[tuple[str, dict[str, Any]]] = deque()
        self.reads_due: deque[tuple[str, dict[str, Any]]] = deque()
        self.events_due: deque[tuple[str, int]] = deque()  # private events
        self.silent_until_s: dict[Link, float] = {}
        self.lost: set[Link] = set()
        self.held: list[Callable[[Sink], None]] = []
        self.quiet_until_s = -math.inf  # the venue refuses everything until then
        self.asked_while_quiet = 0
        self.on_create: Callable[[NewOrder], None] = lambda order: None
        self.stale: tuple[Account, list[Order]] | None = None
        self.stale_until_s = -math.inf
        self.pending: set[Future[Any]] = set()
        self.dead = False  # the process that sent this is gone

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        self.clock.call_later(seconds, act)

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    # --- order messages ---

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        return [self._send(partial(self._create, order), self.orders_due) for order in orders]

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        return [
            self._send(partial(self.arrive_cancel, order.client_id), self.cancels_due)
            for order in orders
        ]

    def _create(self, order: NewOrder) -> Outcome:
        self.on_create(order)
        return self.arrive(order)

    def _send(
        self,
        act: Callable[[], Outcome],
        due: deque[tuple[str, dict[str, Any]]],
    ) -> Future[Outcome]:
        if self.now_s < self.quiet_until_s:
            self.asked_while_quiet += 1
            return self._answer_in(0.05, self._refused_for_now())
        if not due:
            return self.sent(act)
        what, options = due.popleft()
        self.fired[what] += 1
        if what == "drop_before":
            return self._answer_in(_TIMEOUT_S, UNKNOWN)
        if what == "drop_after":
            self.sent(act)
            return self._answer_in(_TIMEOUT_S, UNKNOWN)
        if what == "delay_exec":
            self.later(options["s"], act)
            return self._answer_in(min(_TIMEOUT_S, options["s"] + 0.5), UNKNOWN)
        if what == "late_answer":
            executed = self.sent(act)
            answer: Future[Outcome] = asyncio.get_running_loop().create_future()
            executed.add_done_callback(
                lambda done: self.later(options["s"], lambda: _set(answer, done.result()))
            )
            return answer
        if what == "rate_limit":
            self.quiet_until_s = self.now_s + options["s"]
            return self._answer_in(0.05, self._refused_for_now())
        reaction = Reaction(options["reaction"])
        return self._answer_in(0.05, Outcome(Verdict.REJECTED, reaction, code=1, text=what))

    def _refused_for_now(self) -> Outcome:
        wait_s = max(0.1, self.quiet_until_s - self.now_s)
        return Outcome(
            Verdict.REJECTED, Reaction.BACK_OFF, code=429, text="too many", retry_after_s=wait_s
        )

    def _answer_in(self, seconds: float, outcome: Outcome) -> Future[Outcome]:
        answer: Future[Outcome] = asyncio.get_running_loop().create_future()
        self.later(seconds, lambda: _set(answer, outcome))
        return answer

    # --- reads ---

    async def _reading(self, read: Callable[[], Awaitable[Any]]) -> Any:
        await self.clock.sleep(0.02)
        if self.reads_due:
            what, options = self.reads_due.popleft()
            self.fired[what] += 1
            if what == "read_fails":
                raise UnavailableError("no connection")
            await self.clock.sleep(options["s"])
        return await read()

    async def account(self) -> Account:
        now: Account = await self._reading(super().account)
        if self.now_s < self.stale_until_s and self.stale is not None:
            self.fired["stale"] += 1
            return self.stale[0]
        return now

    async def open_orders(self) -> list[Order]:
        now: list[Order] = await self._reading(super().open_orders)
        if self.now_s < self.stale_until_s and self.stale is not None:
            return self.stale[1]
        return now

    async def find(self, client_id: str) -> Order | None:
        found: Order | None = await self._reading(partial(super().find, client_id))
        return found

    async def fills(self, since_ms: int) -> list[Fill]:
        read: list[Fill] = await self._reading(partial(super().fills, since_ms))
        return read

    async def payments(self, since_ms: int) -> list[Payment]:
        read: list[Payment] = await self._reading(partial(super().payments, since_ms))
        return read

    async def rules(self) -> Rules:
        read: Rules = await self._reading(super().rules)
        return read

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        await self.clock.sleep(0.02)
        return self.trades[-limit:]

    def make_stale(self, seconds: float, *, empty: bool) -> None:
        """Answer reads of account and orders with what is now, or with nothing, for a while."""
        venue = self.venue
        held = Position() if empty else Position(venue.size, venue.entry_price, venue.liq_price)
        account = Account(
            wallet=venue.wallet,
            available=venue.wallet,
            position=held,
            leverage=venue.leverage,
            cross_mode=venue.cross_mode,
            one_way=True,
            can_trade=True,
            ts_ms=self.clock.time_ms(),
        )
        from tests.live.direct import order_of

        orders = [] if empty else [order_of(order) for order in venue.open_orders()]
        self.stale = account, orders
        self.stale_until_s = self.now_s + seconds

    # --- streams ---

    def lose(self, link: Link, seconds: float, *, noticed_after_s: float) -> None:
        """Let a stream fall silent; the client notices after a while, and has it back then."""
        until_s = self.now_s + seconds
        self.silent_until_s[link] = max(until_s, self.silent_until_s.get(link, -math.inf))
        self.fired[f"silent_{link}"] += 1

        def notice() -> None:
            if self.sink is not None and self.now_s < until_s:
                self.lost.add(link)
                self.sink.on_link(link, StreamState.LOST, "silent")

        def back() -> None:
            if self.now_s + 1e-9 < self.silent_until_s.get(link, -math.inf):
                return
            if self.sink is not None and link in self.lost:
                self.lost.discard(link)
                if link is not Link.BOOK:
                    self.sink.on_gap(link, "events may be missing")
                self.sink.on_link(link, StreamState.LIVE, "back")

        self.later(noticed_after_s, notice)
        self.later(seconds + 1e-6, back)

    def is_silent(self, link: Link) -> bool:
        return self.now_s < self.silent_until_s.get(link, -math.inf) or link in self.lost

    def _private(self, tell: Callable[[Sink], None]) -> None:
        if self.sink is None or self.is_silent(Link.PRIVATE):
            return
        if not self.events_due:
            tell(self.sink)
            return
        what, n = self.events_due[0]
        self.fired[what] += 1
        if what == "event_twice":
            self.events_due.popleft()
            tell(self.sink)
            tell(self.sink)
            return
        if what == "event_lost":
            self._count_down(n)
            if n <= 1:
                # The client cannot know; the poll of the account finds out.
                pass
            return
        self.held.append(tell)
        if len(self.held) >= n:
            self.events_due.popleft()
            held, self.held = self.held, []
            for each in reversed(held):
                each(self.sink)
        else:
            self.later(1.0, self._let_go)

    def _count_down(self, n: int) -> None:
        what, _ = self.events_due.popleft()
        if n > 1:
            self.events_due.appendleft((what, n - 1))

    def _let_go(self) -> None:
        if self.held and self.sink is not None:
            held, self.held = self.held, []
            if self.events_due and self.events_due[0][0] == "events_reversed":
                self.events_due.popleft()
            for each in reversed(held):
                each(self.sink)

    def on_print(
        self, trade_id: int, price: float, qty: float, buyer_maker: bool, ts_ms: int
    ) -> None:
        if self.is_silent(Link.TRADES):
            sink, self.sink = self.sink, None
            super().on_print(trade_id, price, qty, buyer_maker, ts_ms)
            self.sink = sink
        else:
            super().on_print(trade_id, price, qty, buyer_maker, ts_ms)

    def on_quote(self, bid: float, ask: float, ts_ms: int) -> None:
        if not self.is_silent(Link.BOOK):
            super().on_quote(bid, ask, ts_ms)

    def on_order(self, order: Any, what: str) -> None:
        from tests.live.direct import order_of

        told = order_of(order)
        self._private(lambda sink: sink.on_order(told))

    def on_execution(self, order: Any, execution: Any) -> None:
        told = self._fill(execution, told=True)
        self._private(lambda sink: sink.on_fill(told))

    def on_account(self, why: str) -> None:
        venue, now_ms = self.venue, self.clock.time_ms()
        wallet = venue.wallet
        held = Position(venue.size, venue.entry_price, math.nan)
        self._private(lambda sink: sink.on_wallet(wallet, now_ms))
        self._private(lambda sink: sink.on_position(held, now_ms))

    def on_funding(self, rate: float, amount: float, ts_ms: int) -> None:
        if amount != 0.0:
            payment = Payment(id=str(ts_ms), ts_ms=ts_ms, amount=amount)
            self._private(lambda sink: sink.on_payment(payment))

    def beat(self) -> None:
        if not self.is_silent(Link.TRADES):
            super().beat()

    def heal(self) -> None:
        """Undo every fault that lasts, and forget those that have not fired."""
        self.orders_due.clear()
        self.cancels_due.clear()
        self.reads_due.clear()
        self.events_due.clear()
        self.stale_until_s = -math.inf
        self._let_go()
        missed = self.lost | {link for link in self.silent_until_s if self.is_silent(link)}
        self.silent_until_s.clear()
        if self.sink is not None:
            for link in sorted(missed):
                self.sink.on_gap(link, "events may be missing")
                self.sink.on_link(link, StreamState.LIVE, "back")
        self.lost.clear()
        # A book that is heard again moves, or is told anew.
        self.on_quote(*self.venue.quote, self.clock.time_ms())

    def restarted(self) -> None:
        """Begin with a new client: its streams are new too."""
        self.lost.clear()
        self.held.clear()


def _set(answer: Future[Outcome], outcome: Outcome) -> None:
    if not answer.done():
        answer.set_result(outcome)


def mark_of(mark: MarkPrice, **changes: Any) -> MarkPrice:
    return replace(mark, **changes)
