"""The live engine: a venue's events into the core, and what the core wants onto the venue.

Start, restart and reconnect are one path: rules, account, position, open orders, then trade. All
that decides is in `live.core`; here is what acts: the journal before an order leaves, the one call
that sends it, reads in tasks of their own, timers, the end. Whatever fails unforeseen ends the
engine, and the supervisor starts another: there is no half a bot.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from asyncio import Future
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import orjson

from passivx.clock import Clock, Timer
from passivx.config import Config
from passivx.errors import PassivxError, UnavailableError, VenueError
from passivx.exchanges.base import (
    Exchange,
    Fill,
    FillKind,
    Link,
    MarkPrice,
    Order,
    Outcome,
    Payment,
    Rules,
    settle_of,
)
from passivx.exchanges.stream import StreamState
from passivx.live import events as ev
from passivx.live.books import payment_body
from passivx.live.core import Core, Opening
from passivx.live.events import Event, Intent, Now, OnExit
from passivx.live.fault_points import fault_point
from passivx.live.journal import Journal, JournalError
from passivx.live.orders import is_own_id
from passivx.models import Position

__all__ = ["Engine", "Watcher"]

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_DEAD_MAN_S: Final = 120.0
_DEAD_MAN_EVERY_S: Final = 30.0
_SEED_TRADES: Final = 1000
# How far back a journal that is new, or was lost, is filled from the venue.
_BACKFILL_MS: Final = 24 * 3_600_000
_OVERLAP_MS: Final = 60_000
_OPENING_TRIES: Final = 6
_OPENING_PAUSE_S: Final = 0.5
# A stop has this long for cancels and unknown orders, of the 5 s that it may take.
_STOP_S: Final = 3.5
_FLATTEN_AFTER_S: Final = 1.5
_STOP_PAUSE_S: Final = 0.02
_CLOSE_S: Final = 1.0
# Rows of the journal that could not be written wait up to this many; then the bot must end.
_MOST_WAITING: Final = 10_000


class Watcher(Protocol):
    """Hears what people and other programs want to know; must not raise, nor take long."""

    def note(self, note: ev.Note, ts_ms: int) -> None: ...
    def entry(self, kind: str, key: str, body: Mapping[str, Any]) -> None: ...
    def trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None: ...
    def status(self, status: Mapping[str, Any]) -> None: ...


class Engine:
    """One bot on one venue, once: `run` it to its end.

    Parameters
    ----------
    config : Config
    exchange : Exchange
        Opened for this engine; closed by it.
    journal : Journal
    clock : Clock
    instance : str
        Of a-z 0-9, 1 to 12: no other run may have it; client ids are made of it.
    watcher : Watcher, optional
    beat : callable, optional
        Called every second while all is well: a watchdog's heartbeat.
    gather_s, requote_phase_s : float
        How long a moment gathers what belongs to it before a plan is made, and how long after its
        multiple a requote comes. 0 but where a virtual clock orders one millisecond's events.
    """

    def __init__(
        self,
        *,
        config: Config,
        exchange: Exchange,
        journal: Journal,
        clock: Clock,
        instance: str,
        watcher: Watcher | None = None,
        beat: Callable[[], None] | None = None,
        gather_s: float = 0.0,
        requote_phase_s: float = 0.0,
    ) -> None:
        self.core: Core | None = None
        self.opened = asyncio.Event()
        self.left: list[str] = []  # orders that a stop wanted gone and could not prove so
        self._config = config
        self._exchange = exchange
        self._journal = journal
        self._clock = clock
        self.instance = instance
        self._watcher = watcher
        self._beat = beat
        self._gather_s = gather_s
        self._requote_phase_s = requote_phase_s
        self._early: list[Callable[[], None]] = []  # what was heard before the core was made
        self._n_private = 0
        self._moment: Timer | None = None
        self._requote_timer: Timer | None = None
        self._rows: list[tuple[int, str, str, Mapping[str, Any]]] = []
        self._behind = False  # rows could not be written
        self._reads: set[asyncio.Task[None]] = set()
        self._stop: OnExit | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()
        self._lag_s = 0.0
        self._place = exchange.place
        self.dead_man = True

    # --- life ---

    async def run(self) -> None:
        """Trade until `stop`, then return once all is written and closed.

        Raises
        ------
        PassivxError
            If the venue refuses what is needed to begin.
        Exception
            Whatever else failed: the run is over, its orders stay as they are.
        """
        try:
            await self._open()
            async with asyncio.TaskGroup() as group:
                tick = group.create_task(self._tick())
                guard = group.create_task(self._guard())
                await self._wait_for_end()
                tick.cancel()
                guard.cancel()
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from None
        finally:
            await self._close()

    def stop(self, on_exit: OnExit) -> None:
        """Have `run` return; a second call changes nothing but the wish."""
        self._stop = on_exit
        self._wake.set()

    def hold(self, name: str, why: str, *, everything: bool = False) -> None:
        """Open nothing, or send nothing at all, for that reason, until it is told with ""."""
        self._step(ev.Hold(name, why, everything))

    async def _wait_for_end(self) -> None:
        await self._wake.wait()
        if self._failure is not None:
            raise self._failure
        await self._wind_up()
        if self._failure is not None:
            raise self._failure
        if self._stop is OnExit.FLATTEN and (size := self._live_core().bot.account[2]) != 0.0:
            raise PassivxError(f"a position of {size:g} could not be closed; close it at the venue")

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._wake.set()

    async def _open(self) -> None:
        exchange, config = self._exchange, self._config
        rules = await exchange.rules()
        await exchange.prepare(leverage=config.venue_leverage, cross_mode=config.cross_mode)
        await exchange.listen(self)
        fault_point("while_opening")
        opening = await self._read_opening(rules)
        now = self._now()
        self.core = core = Core(opening, now)
        self._journal_run("began", **_what_runs(opening), **_brief(core))
        for tell in self._early:
            tell()
        self._early.clear()
        await self._refresh_dead_man()
        self._schedule_requote()
        self._want_moment()
        self._note(ev.Note("began", {"instance": self.instance, **_brief(core)}))
        self.opened.set()

    async def _read_opening(self, rules: Rules) -> Opening:
        """Read account, orders and fills as of one time: none may happen in between."""
        memory = self._journal.memory()
        now_ms = self._clock.time_ms()
        since_ms = max(memory.last_fill_ms - _OVERLAP_MS, now_ms - 7 * _BACKFILL_MS)
        if not memory.n_entries:
            since_ms = now_ms - _BACKFILL_MS
        exchange = self._exchange
        for _ in range(_OPENING_TRIES):
            heard = self._n_private
            before = await exchange.account()
            orders = await exchange.open_orders()
            fills = await exchange.fills(since_ms)
            payments = await exchange.payments(since_ms)
            trades = await exchange.recent_trades(_SEED_TRADES)
            after = await exchange.account()
            same = before.position.size == after.position.size and before.wallet == after.wallet
            if same and heard == self._n_private and trades:
                break
            await self._clock.sleep(_OPENING_PAUSE_S)
        else:
            raise UnavailableError("the account moves faster than it can be read; start again")
        known, paid = set(memory.fill_ids), set(memory.payment_ids)
        rows = [
            (now_ms, "fill", fill.trade_id, _body_of_old(fill))
            for fill in fills
            if fill.trade_id not in known
        ]
        rows += [
            (now_ms, "payment", payment.id, payment_body(payment))
            for payment in payments
            if payment.id not in paid
        ]
        self._journal.write(rows)
        seen = [*memory.fill_ids, *(fill.trade_id for fill in fills)]
        seen += [f"payment {id}" for id in memory.payment_ids]
        seen += [f"payment {payment.id}" for payment in payments]
        filled = defaultdict(float, memory.filled)
        for fill in fills:
            filled[fill.order_id] += fill.qty
            if fill.client_id and fill.trade_id not in known:
                filled[fill.client_id] += fill.qty
        same_size = memory.close_base_size == after.position.size
        return Opening(
            config=self._config,
            rules=rules,
            account=after,
            orders=orders,
            intents={key: (entry.ts_ms, entry.body) for key, entry in memory.open_intents.items()},
            filled=filled,
            seen=seen,
            trades=trades,
            close_base=memory.close_base if same_size else None,
            liquidated=any(
                fill.kind is FillKind.LIQUIDATION
                for fill in fills
                if fill.trade_id not in known and memory.n_entries
            ),
            instance=self.instance,
            settle=settle_of(exchange.symbol, inverse=rules.market.inverse),
        )

    async def _wind_up(self) -> None:
        """Leave orders as the stop asks for, and learn what can be learnt in the time there is."""
        core = self._live_core()
        assert self._stop is not None
        fault_point("while_stopping")
        started_s, stopping_ms = self._clock.monotonic_s(), self._clock.time_ms()
        self._step(ev.Stop(self._stop))
        while (passed_s := self._clock.monotonic_s() - started_s) < _STOP_S:
            if not core.open_ids or passed_s >= _FLATTEN_AFTER_S:
                self._do(core.flatten(self._now()))
            if core.wound_up:
                break
            self._step(ev.Tick())
            await self._clock.sleep(_STOP_PAUSE_S)
        self.left = [] if self._stop is OnExit.KEEP else [*core.open_ids, *core.unresolved]
        size = core.bot.account[2]
        if self._stop is not OnExit.KEEP or core.halted:
            left = {"orders": core.open_ids, "unresolved": core.unresolved, "position": size}
            self._note(ev.Note("left", left))
        self._journal_run(
            "stopped", stopping_ms=stopping_ms, unresolved=core.unresolved, open=core.open_ids
        )
        if self._watcher is not None:
            self._watcher.status({**core.status(), "mode": "stopped"})
        if self.left:
            # Somebody must still cancel them: the venue, when the countdown ends, or a watchdog.
            self._note(ev.Note("countdown", {"text": "orders are left to it"}, alert=True))
        elif self.dead_man:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._exchange.dead_man(0)
            except (VenueError, TimeoutError):
                self._note(ev.Note("countdown", {"text": "still runs: orders go in 2 minutes"}))

    async def _close(self) -> None:
        # Answers and timers that are still to come are nobody's any more.
        self._ended = True
        for timer in (self._moment, self._requote_timer):
            if timer is not None:
                timer.cancel()
        reads = list(self._reads)
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._exchange.close()
        except TimeoutError:
            log.warning("a connection did not close in time")
        finally:
            self._write_rows()

    # --- timers ---

    async def _tick(self) -> None:
        clock = self._clock
        while True:
            before_s = clock.monotonic_s()
            await clock.sleep(_TICK_S)
            self._lag_s = max(0.0, clock.monotonic_s() - before_s - _TICK_S)
            self._step(ev.Tick())
            if self._rows:
                self._write_rows()
            if self._beat is not None and not self._is_helpless():
                self._beat()
            if self._watcher is not None:
                core = self._live_core()
                self._watcher.status({**core.status(), "loop_lag_s": self._lag_s})

    async def _guard(self) -> None:
        while self.dead_man:
            await self._clock.sleep(_DEAD_MAN_EVERY_S)
            if not self._is_helpless():
                await self._refresh_dead_man()

    def _is_helpless(self) -> bool:
        """Whether the bot is halted beside entries that it cannot cancel: then others must."""
        core = self._live_core()
        return bool(core.halted) and bool(core.open_entries)

    async def _refresh_dead_man(self) -> None:
        try:
            self.dead_man = await self._exchange.dead_man(_DEAD_MAN_S)
        except VenueError as e:
            self._note(ev.Note("countdown", {"text": f"could not be refreshed: {e}"}))

    def _schedule_requote(self) -> None:
        every_ms = self._config.requote_ms
        now_ms = self._clock.time_ms()
        delay_s = (every_ms - now_ms % every_ms) / 1e3 + self._requote_phase_s
        self._requote_timer = self._clock.call_later(delay_s, self._requote)

    def _requote(self) -> None:
        every_ms = self._config.requote_ms
        now_ms = self._clock.time_ms()
        # From the whole millisecond on: the phase within it stays.
        delay_s = (every_ms - now_ms % every_ms) / 1e3
        self._requote_timer = self._clock.call_later(delay_s, self._requote)
        self._step(ev.Requote())

    def _want_moment(self) -> None:
        if self._moment is None:
            self._moment = self._clock.call_later(self._gather_s, self._end_moment)

    def _end_moment(self) -> None:
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        self._step(ev.Moment())

    # --- the core ---

    def _now(self) -> Now:
        return Now(self._clock.monotonic_s(), self._clock.time_ms())

    def _live_core(self) -> Core:
        assert self.core is not None
        return self.core

    def _step(self, event: Event) -> None:
        core = self.core
        if self._ended:
            return
        if core is None:
            self._early.append(functools.partial(self._step, event))
            return
        try:
            self._do(core.step(event, self._now()))
        except Exception as e:
            self._fail(e)
            return
        if core.wants_moment and self._moment is None:
            self._want_moment()

    def _do(self, intents: list[Intent]) -> None:
        for intent in intents:
            if isinstance(intent, ev.Place):
                self._send(intent)
            elif isinstance(intent, ev.Cancel):
                self._cancel(intent.orders)
            elif isinstance(intent, ev.Record):
                row = self._clock.time_ms(), intent.type, intent.key, intent.body
                self._rows.append(row)
                if self._watcher is not None:
                    self._watcher.entry(intent.type, intent.key, intent.body)
            elif isinstance(intent, ev.Note):
                self._note(intent)
            else:
                self._read(intent)
        if self._rows and not self._behind:
            self._write_rows()

    def _send(self, intent: ev.Place) -> None:
        """Write down what is to be sent, then send it: once, whatever comes of it."""
        orders = intent.orders
        now_ms = self._clock.time_ms()
        fault_point("before_journal")
        rows = self._rows + [
            (now_ms, "intent", order.client_id, body)
            for order, body in zip(orders, intent.bodies, strict=True)
        ]
        try:
            self._journal.write(rows)
        except JournalError as e:
            # What only reduces is not held up by a full disk; it is written down later.
            self._rows += [
                row
                for row, order in zip(rows[len(self._rows) :], orders, strict=True)
                if order.reduce_only
            ]
            self._behind = True
            held = [order.client_id for order in orders if not order.reduce_only]
            orders = [order for order in orders if order.reduce_only]
            if held:
                self._do(self._live_core().step(ev.Unsent(held, str(e)), self._now()))
            if not orders:
                return
        else:
            self._rows.clear()
            self._behind = False
        fault_point("after_journal")
        for order, answer in zip(orders, self._place(orders), strict=True):
            answer.add_done_callback(functools.partial(self._answered, order.client_id, False))
        fault_point("after_send")
        if self._watcher is not None:
            for order, body in zip(intent.orders, intent.bodies, strict=True):
                self._watcher.entry("intent", order.client_id, body)

    def _cancel(self, orders: list[Order]) -> None:
        for order, answer in zip(orders, self._exchange.cancel(orders), strict=True):
            answer.add_done_callback(functools.partial(self._answered, order.client_id, True))
        fault_point("after_cancel")
        if self._watcher is not None:
            for order in orders:
                self._watcher.entry("cancel", order.client_id, {"price": order.price})

    def _answered(self, client_id: str, cancel: bool, answer: Future[Outcome]) -> None:
        if not answer.cancelled():
            self._step(ev.Answered(client_id, cancel, answer.result()))

    def _write_rows(self) -> None:
        fills = any(row[1] == "fill" for row in self._rows)
        if fills:
            fault_point("before_fill_commit")
        try:
            self._journal.write(self._rows)
        except JournalError as e:
            # They are kept, and tried again every second; nothing is opened until they are written.
            self._behind = True
            if len(self._rows) > _MOST_WAITING:
                self._fail(e)
            elif self.core is not None:
                self._note(ev.Note("journal", {"text": str(e)}))
            return
        self._rows.clear()
        self._behind = False
        if fills:
            fault_point("after_fill_commit")

    def _journal_run(self, what: str, **fields: Any) -> None:
        self._rows.append(
            (self._clock.time_ms(), "run", "", {"what": what, "instance": self.instance, **fields})
        )
        self._write_rows()

    def _note(self, note: ev.Note) -> None:
        if self._watcher is not None:
            self._watcher.note(note, self._clock.time_ms())
        else:
            (log.warning if note.alert else log.info)("%s %s", note.event, dict(note.fields))

    # --- reads ---

    def _read(self, intent: Intent) -> None:
        if isinstance(intent, ev.LookUp):
            self._spawn("look_up", intent.client_id, self._look_up(intent))
        elif isinstance(intent, ev.Reconcile):
            self._spawn("reconcile", "", self._reconcile(intent))
        elif isinstance(intent, ev.ReadRules):
            self._spawn("rules", "", self._read_rules())
        else:
            self._spawn("trades", "", self._read_trades())

    def _spawn(self, what: str, key: str, read: Coroutine[Any, Any, Event]) -> None:
        task = asyncio.get_running_loop().create_task(self._told(what, key, read))
        self._reads.add(task)
        task.add_done_callback(self._read_ended)

    def _read_ended(self, task: asyncio.Task[None]) -> None:
        self._reads.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _told(self, what: str, key: str, read: Coroutine[Any, Any, Event]) -> None:
        try:
            event = await read
        except VenueError as e:
            wait_s = e.retry_after_s if isinstance(e, UnavailableError) else 0.0
            fatal = e.reaction == "halt" and e.code is not None
            event = ev.NotRead(what, key, str(e), wait_s, fatal)
        self._step(event)

    async def _look_up(self, intent: ev.LookUp) -> Event:
        order = await self._exchange.find(intent.client_id)
        lacking = order is None or order.filled_qty > 0.0
        fills = await self._exchange.fills(intent.since_ms) if lacking else []
        return ev.Found(intent.client_id, order, fills)

    async def _reconcile(self, intent: ev.Reconcile) -> Event:
        exchange = self._exchange
        account, orders, fills, payments = await asyncio.gather(
            exchange.account(),
            exchange.open_orders(),
            exchange.fills(intent.since_ms),
            exchange.payments(intent.since_ms),
        )
        return ev.Snapshot(intent.epoch, account, orders, fills, payments)

    async def _read_rules(self) -> Event:
        return ev.RulesRead(await self._exchange.rules())

    async def _read_trades(self) -> Event:
        return ev.TradesRead(await self._exchange.recent_trades(_SEED_TRADES))

    # --- what the venue tells (exchanges.base.Sink) ---

    def on_trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None:
        """Take in a public trade."""
        core = self.core
        if self._ended:
            return
        if core is None:
            self._early.append(
                functools.partial(self.on_trade, trade_id, price, qty, ts_ms, buyer_maker)
            )
            return
        clock = self._clock
        now = Now(clock.monotonic_s(), clock.time_ms())
        try:
            new = core.trade(trade_id, price, qty, ts_ms, buyer_maker, now)
        except Exception as e:
            self._fail(e)
            return
        if core.wants_moment:
            if self._gather_s > 0.0:
                self._want_moment()
            else:
                # A stop level is reached: a turn of the loop would only cost time.
                self._end_moment()
        if new and self._watcher is not None:
            self._watcher.trade(trade_id, price, qty, ts_ms, buyer_maker)

    def on_quote(self, bid: float, bid_qty: float, ask: float, ask_qty: float, ts_ms: int) -> None:
        """Take in best bid and ask."""
        if self.core is not None:
            clock = self._clock
            self.core.quote(bid, ask, ts_ms, Now(clock.monotonic_s(), clock.time_ms()))

    def on_mark(self, mark: MarkPrice) -> None:
        """Take in mark price and predicted funding."""
        self._step(ev.MarkSeen(mark))

    def on_order(self, order: Order) -> None:
        """Take in the state of an order."""
        self._n_private += is_own_id(order.client_id)
        self._step(ev.OrderSeen(order))

    def on_fill(self, fill: Fill) -> None:
        """Take in an execution."""
        self._n_private += 1
        self._step(ev.FillSeen(fill))

    def on_payment(self, payment: Payment) -> None:
        """Take in a funding settlement."""
        self._step(ev.PaymentSeen(payment))

    def on_wallet(self, wallet: float, ts_ms: int) -> None:
        """Take in the wallet."""
        self._step(ev.WalletSeen(wallet, ts_ms))

    def on_position(self, position: Position, ts_ms: int) -> None:
        """Take in the position."""
        self._step(ev.PositionSeen(position, ts_ms))

    def on_link(self, link: Link, state: StreamState, reason: str) -> None:
        """Take in a connection's state."""
        if state is not StreamState.CONNECTING:
            closed = state is StreamState.CLOSED
            self._step(ev.LinkSeen(link, state is StreamState.LIVE, closed, reason))

    def on_gap(self, link: Link, reason: str) -> None:
        """Take in that events may be missing."""
        self._step(ev.GapSeen(link, reason))


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended a task group; the others are what became of its tasks."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _brief(core: Core) -> dict[str, Any]:
    wallet, _, size, entry_price, liq_price = core.bot.account
    return {
        "wallet": wallet,
        "position": size,
        "entry_price": entry_price,
        "liq_price": liq_price,
        "orders": len(core.open_ids),
    }


def _what_runs(opening: Opening) -> dict[str, Any]:
    """Return what a run can be replayed from: its config, the market, what its EMA began with."""
    trades = opening.trades
    return {
        "config": opening.config.model_dump(mode="json"),
        "market": orjson.loads(opening.rules.market.to_json()),
        "seed_price": [trade.price for trade in trades],
        "seed_maker": [int(trade.buyer_maker) for trade in trades],
        "seed_id": trades[-1].trade_id,
        "seed_ts_ms": trades[-1].ts_ms,
    }


def _body_of_old(fill: Fill) -> dict[str, Any]:
    """Return what the journal keeps of a fill that happened while no bot was listening."""
    return {
        "order_id": fill.order_id,
        "client_id": fill.client_id,
        "side": fill.side,
        "price": fill.price,
        "qty": fill.qty,
        "fee": fill.fee,
        "pnl": fill.pnl,
        "maker": fill.maker,
        "kind": fill.kind.value,
        "venue_ts_ms": fill.ts_ms,
        "cause": "before_start",
    }
