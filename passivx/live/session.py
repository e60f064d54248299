"""One bot on one account and symbol: lock, journal, logs, engine after engine, until it is stopped.

An engine that fails is followed by a new one, later each time, until the breaker says that an
operator must look. Orders stay as they are in between; the venue's dead-man switch, or a watchdog
process where the venue has none, cancels them when nobody is there any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs

from passivx.clock import Clock, WallClock
from passivx.config import Config
from passivx.errors import PassivxError, UnavailableError, VenueError
from passivx.exchanges.base import Exchange, settle_of
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.venues import open_exchange
from passivx.live import events as ev
from passivx.live.breaker import Breaker
from passivx.live.engine import Engine
from passivx.live.events import OnExit
from passivx.live.journal import Journal
from passivx.live.lock import AccountLock, account_tag
from passivx.live.orders import CLOSING, Ours, body_of, closing_order, is_own_id, make_id
from passivx.live.paper import PaperExchange
from passivx.live.status import EventHandler, EventLog, StatusFile
from passivx.live.tape import Tape
from passivx.live.watchdog import Watchdog
from passivx.models import Market

__all__ = ["Plan", "Session", "log_path", "state_folder"]

log = logging.getLogger(__name__)

_LOG_BYTES: Final = 10 << 20
_LOGS: Final = 5
_WATCHDOG_S: Final = 20.0
_CHECK_S: Final = 1.0
# Of the 5 s that a stop may take: for a watchdog to end, and for what no engine is there to do.
_BYE_S: Final = 1.0
_SWEEP_S: Final = 4.0
# A restart after a failure: an instance's tag must not come again.
_TAG: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_TAG_LENGTH: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run, and where.

    ``key`` None: only with ``paper_wallet``, settle currency, the balance of a simulated account.
    ``key_file`` is what a watchdog reads the key from. ``assumed`` are the market rules that a
    venue tells with a key alone. ``root`` is the workspace.
    """

    exchange: str
    config: Config
    endpoints: Endpoints
    symbol: str
    key: ApiKey | None
    key_file: Path | None
    root: Path
    on_exit: OnExit = OnExit.CANCEL
    paper_wallet: float | None = None
    assumed: Market | None = None

    @property
    def account(self) -> str:
        """A name of the account that holds no secret."""
        if self.paper_wallet is not None or self.key is None:
            return "paper"
        return account_tag(self.key.key)


def state_folder(root: Path, exchange: str, symbol: str, account: str) -> Path:
    """Return where journal, status and tape of an account and symbol lie, in a workspace."""
    return root / "live_state" / exchange / f"{symbol}-{account}"


def log_path(root: Path, exchange: str, config: Config) -> Path:
    """Return the event log of a config."""
    return root / "logs" / exchange / f"{config.config_name}.log"


class Session:
    """Everything around the engine. Use it as a context manager, on one event loop.

    Raises
    ------
    PassivxError
        On entering, if another bot has the account and symbol, or nothing can be written.
    """

    def __init__(self, plan: Plan, *, clock: Clock | None = None) -> None:
        self.plan = plan
        self.clock = clock or WallClock()
        self.folder = state_folder(plan.root, plan.exchange, plan.symbol, plan.account)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.breaker = Breaker(self.folder / "breaker.json", self.clock)
        self.stopped = asyncio.Event()
        self.engine: Engine | None = None
        self._on_exit = plan.on_exit
        # One place a machine, whatever the workspace: the account is the same. Simulated accounts
        # are their workspace's own.
        locks = self.folder.parent if plan.paper_wallet is not None else _locks_folder()
        self._lock = AccountLock(locks, plan.exchange, plan.account, plan.symbol)
        self._records: Records | None = None

    def __enter__(self) -> Session:
        self._lock.take()
        path = log_path(self.plan.root, self.plan.exchange, self.plan.config)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._records = Records(self.plan, self.folder, path, self.clock)
        return self

    def __exit__(self, *_: object) -> None:
        if self._records is not None:
            self._records.close()
        self._lock.release()

    def stop(self, on_exit: OnExit | None = None) -> None:
        """Have `run` come to its end: at most 5 s later."""
        self._on_exit = on_exit or self._on_exit
        self.stopped.set()
        if self.engine is not None:
            self.engine.stop(self._on_exit)

    def open_exchange(self) -> Exchange:
        """Return a client of the venue, or a simulated account on its market."""
        plan = self.plan
        exchange = open_exchange(
            endpoints=plan.endpoints,
            symbol=plan.symbol,
            key=plan.key,
            assumed=plan.assumed,
            clock=self.clock,
        )
        if plan.paper_wallet is None:
            return exchange
        assert plan.assumed is not None
        return PaperExchange(
            exchange,
            wallet=plan.paper_wallet,
            settle=settle_of(plan.symbol, inverse=plan.assumed.inverse),
            clock=self.clock,
        )

    async def run(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Trade until `stop`; start a new engine after one that failed.

        ``tell`` hears in a line what happens.

        Raises
        ------
        PassivxError
            If the breaker is open, or the venue will not let us trade at all.
        """
        assert self._records is not None
        self._records.tell = tell
        while not self.stopped.is_set():
            if self.breaker.open:
                raise PassivxError(self.breaker.why())
            wait_s = self.breaker.wait_s()
            if wait_s > 0.0:
                tell(f"starting again in {wait_s:.0f} s")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stopped.wait(), wait_s)
                if self.stopped.is_set():
                    break
            try:
                if await self._run_once():
                    self.breaker.ended_well()
                    return
            except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
                raise
            except Exception as e:
                why = str(e) if isinstance(e, PassivxError) else f"{type(e).__name__}: {e}"
                log.error("the engine failed: %s", why, exc_info=not isinstance(e, PassivxError))
                self._records.event("failed", why=why)
                tell(f"failed: {why}")
                if _is_for_good(e):
                    raise
                self.breaker.failed(why)
        # Stopped while no engine was at work: what the stop asks for is done all the same.
        await self._sweep(tell)

    async def _sweep(self, tell: Callable[[str], None]) -> None:
        """Cancel the orders that earlier engines have left, and close the position, as asked for.

        Raises
        ------
        PassivxError
            If that could not be done in the time there is.
        """
        if self._on_exit is OnExit.KEEP or self.plan.paper_wallet is not None:
            return
        tell("cancelling what earlier runs have left ...")
        exchange = self.open_exchange()
        try:
            async with asyncio.timeout(_SWEEP_S):
                rules = await exchange.rules()
                ours = [o for o in await exchange.open_orders() if is_own_id(o.client_id)]
                await asyncio.gather(*exchange.cancel(ours))
                size = (await exchange.account()).position.size
                if self._on_exit is OnExit.FLATTEN and size != 0.0:
                    order = closing_order(
                        make_id(CLOSING, new_instance(), 1),
                        size,
                        (await exchange.mark()).mark_price,
                        most=rules.max_market_qty,
                        sent_s=self.clock.monotonic_s(),
                        sent_ms=self.clock.time_ms(),
                    )
                    self._write_intent(order)
                    await exchange.place([order.as_new()])[0]
                    size = (await exchange.account()).position.size
                left = [o for o in await exchange.open_orders() if is_own_id(o.client_id)]
        except (TimeoutError, VenueError) as e:
            raise PassivxError(f"orders and position may be left at the venue ({e})") from e
        finally:
            await exchange.close()
        if left or (self._on_exit is OnExit.FLATTEN and size != 0.0):
            raise PassivxError(f"{len(left)} orders and a position of {size:g} are left")

    def _write_intent(self, order: Ours) -> None:
        """Write down an order that no engine sends."""
        with contextlib.closing(Journal(self.folder / "journal.db")) as journal:
            journal.write([(order.sent_ms, "intent", order.client_id, body_of(order))])

    async def _run_once(self) -> bool:
        """Run one engine to its end; False when it was stopped before it traded."""
        plan, records = self.plan, self._records
        assert records is not None
        paper = plan.paper_wallet is not None
        # A simulated account begins anew each time: so does what is known of it.
        path = self.folder / "journal.db"
        if paper:
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
        journal = Journal(path)
        if journal.quarantined is not None:
            records.event("journal_replaced", kept_as=journal.quarantined.name)
        watchdog = None if paper else Watchdog()
        try:
            exchange = self.open_exchange()
            self.engine = engine = Engine(
                config=plan.config,
                exchange=exchange,
                journal=journal,
                clock=self.clock,
                instance=new_instance(),
                watcher=records,
                beat=watchdog.beat if watchdog is not None else None,
            )
            if self.stopped.is_set():
                await exchange.close()
                return False
            running = asyncio.get_running_loop().create_task(engine.run())
            guarding = asyncio.get_running_loop().create_task(self._guard(engine, watchdog))
            stopping = asyncio.get_running_loop().create_task(self.stopped.wait())
            try:
                tasks = [running, stopping, guarding]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if guarding.done() and not guarding.cancelled() and guarding.exception():
                    await guarding
                if stopping.done() and not engine.opened.is_set():
                    running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running
            finally:
                for task in (running, guarding, stopping):
                    task.cancel()
                await asyncio.gather(running, guarding, stopping, return_exceptions=True)
            if watchdog is not None and not engine.left:
                await watchdog.stop(wait_s=_BYE_S)
            return engine.opened.is_set()
        finally:
            if watchdog is not None:
                # Whatever ended otherwise: it cancels what was left.
                watchdog.leave()
            self.engine = None
            journal.close()

    async def _guard(self, engine: Engine, watchdog: Watchdog | None) -> None:
        """Keep a watchdog where the venue has no dead-man switch; open nothing while it is not."""
        plan = self.plan
        await engine.opened.wait()
        if watchdog is None or engine.dead_man or plan.key_file is None:
            await asyncio.Event().wait()
            return
        acted = False  # there was one, so it cancels now, whatever we would send
        while True:
            if not watchdog.alive:
                engine.hold("watchdog", "no watchdog stands by", everything=acted)
                core = engine.core
                try:
                    # One that has acted is let finish first.
                    if not await watchdog.stop():
                        raise PassivxError("the watchdog before has not ended")
                    await watchdog.start(
                        endpoints=plan.endpoints,
                        symbol=plan.symbol,
                        key_file=plan.key_file,
                        instance=engine.instance,
                        adopted=core.adopted_ids if core is not None else (),
                        timeout_s=_WATCHDOG_S,
                        log_path=log_path(plan.root, plan.exchange, plan.config),
                    )
                except (PassivxError, OSError) as e:
                    log.warning("no watchdog: %s", e)
                else:
                    acted = True
                    engine.hold("watchdog", "")
            await self.clock.sleep(_CHECK_S)


def _locks_folder() -> Path:
    return platformdirs.user_state_path("passivx", appauthor=False) / "locks"


def new_instance() -> str:
    """Return a tag that no other run has."""
    source = random.SystemRandom()
    return "".join(source.choice(_TAG) for _ in range(_TAG_LENGTH))


def _is_for_good(error: Exception) -> bool:
    """Tell whether trying again is no use: the venue, or the config, says no."""
    if isinstance(error, UnavailableError):
        return False
    if isinstance(error, VenueError):
        return error.reaction == "halt" and error.code is not None
    return False


class Records:
    """What a bot leaves to be read: event log, status file, tape (`engine.Watcher`)."""

    def __init__(self, plan: Plan, folder: Path, path: Path, clock: Clock) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self._verbose = plan.config.logging_level > 0
        self._log = EventLog(path, max_bytes=_LOG_BYTES, keep=_LOGS, clock=clock)
        # What the clients have to say belongs there too, and nowhere else.
        self._handler = EventHandler(self._log)
        logging.getLogger("passivx").addHandler(self._handler)
        self._status = StatusFile(folder / "status.json", clock=clock)
        self._tape = Tape(folder / "tape")
        self._about = {
            "exchange": plan.exchange,
            "symbol": plan.symbol,
            "config_name": plan.config.config_name,
            "account": plan.account,
            "dry_run": plan.paper_wallet is not None,
        }

    def event(self, event: str, **fields: object) -> None:
        """Put an event into the log."""
        self._log.write(event, **fields)
        self._log.flush()

    def note(self, note: ev.Note, ts_ms: int) -> None:
        """Take down what the core wants known."""
        self._log.write(note.event, **{"alert": note.alert, **note.fields})
        if note.alert or note.event in ("began", "stopping", "left", "cleared", "reducing"):
            words = " ".join(f"{name}={value}" for name, value in note.fields.items())
            self.tell(f"{note.event}: {words}")

    def entry(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        """Take down what goes into the journal."""
        if kind == "fill":
            self._log.write("fill", id=key, **body)
            self.tell(
                f"fill: {'bought' if body['side'] > 0 else 'sold'} {body['qty']:g} at "
                f"{body['price']:g} ({body['cause']}), position {body['pos_size']:g}, wallet "
                f"{body['wallet']:.10g}"
            )
        elif kind == "payment" or (self._verbose and kind in ("intent", "outcome", "cancel")):
            self._log.write(kind, id=key, **body)

    def trade(self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool) -> None:
        """Keep a public trade."""
        self._tape.trade(trade_id, price, qty, ts_ms, buyer_maker)

    def status(self, status: Mapping[str, Any]) -> None:
        """Show how things are; once a second."""
        self._status.write({**self._about, **status})
        self._tape.flush()
        self._log.flush()

    def close(self) -> None:
        """Write what waits."""
        logging.getLogger("passivx").removeHandler(self._handler)
        self._tape.flush()
        self._log.close()
