"""A recorded stretch of live trading through the exact backtest, and every difference named.

The journal tells what a run began with (config, market, wallet, the trades that its EMA was seeded
from) and what it sent and filled; the tape has the trades. A *window* begins where the bot was flat
and knew its wallet: at the start of a run, or after a fill that left it flat. It ends with the run,
or where trades are missing on the tape. The backtest of a window is given, as of its first
millisecond, every trade that the bot had seen by then: its EMA and book are the bot's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from passivx.backtesting import BacktestResult, backtest
from passivx.candidates import DEFAULT_LATENCY_MS
from passivx.config import Config, load_config
from passivx.data.ticks import Ticks
from passivx.errors import DataError
from passivx.live.journal import Entry, read_entries
from passivx.live.orders import is_own_id
from passivx.live.tape import read_tape
from passivx.models import Market, load_market

__all__ = ["Difference", "Parity", "Window", "compare_record"]

# Fills this near in time are the same; farther ones, up to the second bound, the same but late.
_SAME_MS: Final = 1_000
_LATE_MS: Final = 60_000
# Without ids of trades that are numbers, a silence this long is taken for missing trades.
_SILENCE_MS: Final = 10 * 60_000
# What a sum may lose on the way through the venue's texts, as a share of the wallet.
_MONEY_NOISE: Final = 1e-9
# As long as a tape is kept.
_KEPT_MS: Final = 7 * 86_400_000
_STOPS: Final = ("stop_loss_liq_diff", "stop_loss_pos_price_diff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """A fill on either side; live ones that were filled in parts are put together.

    ``kind`` 'foreign' for what was not the bot's.
    """

    ts_ms: int
    kind: str
    side: int
    price: float
    qty: float
    pos_size: float
    pos_price: float
    client_id: str = ""
    parts: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return what a reader wants to see of it."""
        return {
            "ts_ms": self.ts_ms,
            "kind": self.kind,
            "side": "buy" if self.side > 0 else "sell",
            "price": self.price,
            "qty": self.qty,
            **({"client_id": self.client_id} if self.client_id else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """``what``: missing or extra (in live), price, qty or time; ``cause``: why, probably."""

    what: str
    cause: str
    live: Fill | None
    backtest: Fill | None

    @property
    def ts_ms(self) -> int:
        """When it happened."""
        one = self.live or self.backtest
        assert one is not None
        return one.ts_ms

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "what": self.what,
            "cause": self.cause,
            "live": None if self.live is None else self.live.to_json(),
            "backtest": None if self.backtest is None else self.backtest.to_json(),
        }


@dataclass(slots=True, kw_only=True)
class Window:
    """One stretch, and what both did in it."""

    start_ms: int
    end_ms: int
    n_trades: int
    wallet: float
    begins: str
    ends: str
    live_fills: int
    live_wallet: float
    live_size: float
    backtest_fills: int
    backtest_wallet: float
    backtest_size: float
    same: int
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every fill is the same and the wallets agree."""
        gap = abs(self.live_wallet - self.backtest_wallet)
        return not self.differences and gap <= _MONEY_NOISE * abs(self.wallet)

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        both = {
            "live": (self.live_fills, self.live_wallet, self.live_size),
            "backtest": (self.backtest_fills, self.backtest_wallet, self.backtest_size),
        }
        return {
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "begins": self.begins,
            "ends": self.ends,
            "trades": self.n_trades,
            "starting_balance": self.wallet,
            "equal": self.equal,
            "same": self.same,
            **{
                who: {"fills": n, "wallet": wallet, "pnl": wallet - self.wallet, "position": size}
                for who, (n, wallet, size) in both.items()
            },
            "differences": [each.to_json() for each in self.differences],
            "notes": self.notes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """All windows; ``changed`` names settings in which the config of today is not the one that ran.

    ``n_measured``: of how many messages the latency is the median, 0: it is the usual one.
    """

    latency_ms: float
    n_measured: int
    changed: list[str]
    windows: list[Window]

    @property
    def equal(self) -> bool:
        """Whether the bot did in every window what the backtest does."""
        return all(window.equal for window in self.windows)

    def to_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "equal": self.equal,
            "latency_ms": self.latency_ms,
            "latency_measured_from": self.n_measured,
            "changed": self.changed,
            "windows": [window.to_json() for window in self.windows],
        }


def compare_record(
    folder: Path, config: Config, *, last_ms: int, log: Path | None = None
) -> Parity:
    """Replay what is recorded in an account's folder, and compare.

    Parameters
    ----------
    folder : Path
        Journal and tape of an account and symbol.
    config : Config
        Today's; what ran is in the journal, and is what is replayed.
    last_ms : int
        How much of the record, from its end: no window begins before that.
    log : Path, optional
        The event log of the bot: when it was cautious, and why.

    Raises
    ------
    DataError
        If nothing was recorded that could be replayed.
    PassivxError
        If the journal cannot be read.
    """
    path = folder / "journal.db"
    if not path.exists():
        raise DataError("there is no journal; has a bot traded this account?", path)
    entries = list(read_entries(path))
    end_ms = _end_of(entries, folder / "tape")
    since_ms = end_ms - last_ms
    runs = [run for run in _runs_of(entries, end_ms) if run.end_ms >= since_ms]
    # From the seeds on: the EMA of a window wants every trade since.
    first_ms = min((run.began.body["seed_ts_ms"] for run in runs), default=end_ms)
    record = _Record(entries, read_tape(folder / "tape", first_ms, end_ms))
    stretches = [each for run in runs for each in _stretches_of(run, record, since_ms)]
    if not stretches:
        raise DataError(
            "no window to compare: the bot was never flat with trades on the tape; try a longer "
            "--last",
            folder,
        )
    trips = _round_trips(entries, since_ms)
    latency_ms = float(statistics.median(trips)) if trips else DEFAULT_LATENCY_MS["exact"]
    silences = _silences_of(log)
    windows = [_compare(each, record, latency_ms, silences) for each in stretches]
    return Parity(
        latency_ms=latency_ms,
        n_measured=len(trips),
        changed=_changed(stretches[-1].run.config, config),
        windows=windows,
    )


# --- the record -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One life of an engine; ``seeds`` are the trades it began with, (price, buyer was maker)."""

    began: Entry
    end_ms: int
    ends: str
    config: Config
    market: Market
    seeds: tuple[list[float], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    run: _Run
    start_ms: int
    end_ms: int
    wallet: float
    begins: str
    ends: str
    warm: bool  # every trade since the run began is on the tape


class _Record:
    """Journal and tape, arranged for looking things up."""

    def __init__(self, entries: Sequence[Entry], tape: npt.NDArray[np.void]) -> None:
        self.tape = tape[np.argsort(tape["ts_ms"], kind="stable")]
        self.fills = [each for each in entries if each.type == "fill"]
        self.payments = [each for each in entries if each.type == "payment"]
        self.adopted = [each for each in entries if each.type == "adopted"]
        self.intents = {each.key: each for each in entries if each.type == "intent"}
        self.outcomes: dict[str, list[Entry]] = {}
        for each in entries:
            if each.type == "outcome":
                self.outcomes.setdefault(each.key, []).append(each)
        self.equity = [each for each in entries if each.type == "equity"]

    def trades(self, start_ms: int, end_ms: int) -> npt.NDArray[np.void]:
        """Return the tape's trades of that time, both ends included."""
        times = self.tape["ts_ms"]
        return self.tape[np.searchsorted(times, start_ms) : np.searchsorted(times, end_ms, "right")]

    def gap_after(self, start_ms: int, end_ms: int) -> tuple[int, int] | None:
        """Return the times of the trades beside the first hole in the tape, None without one."""
        trades = self.trades(start_ms, end_ms)
        ids, times = trades["trade_id"], trades["ts_ms"]
        if len(ids) < 2:
            return None
        if (ids > 0).all():
            holes = np.flatnonzero(np.diff(ids) > 1)
        else:
            holes = np.flatnonzero(np.diff(times) > _SILENCE_MS)
        return (int(times[holes[0]]), int(times[holes[0] + 1])) if len(holes) else None


def _end_of(entries: Sequence[Entry], tape: Path) -> int:
    """Return when the record ends: the tape goes on where nothing happens to the account."""
    last_ms = max((each.ts_ms for each in entries), default=0)
    trades = read_tape(tape, last_ms, last_ms + _KEPT_MS)
    return max(last_ms, int(trades["ts_ms"].max())) if len(trades) else last_ms


def _runs_of(entries: Sequence[Entry], last_ms: int) -> Iterator[_Run]:
    marks = [each for each in entries if each.type == "run"]
    for i, mark in enumerate(marks):
        if mark.body["what"] != "began" or "config" not in mark.body:
            continue
        after = marks[i + 1] if i + 1 < len(marks) else None
        if after is None:
            end_ms, ends = last_ms, "the record ends"
        elif after.body["what"] == "stopped":
            end_ms, ends = after.body.get("stopping_ms", after.ts_ms), "the bot was stopped"
        else:
            # It was killed, or failed: it has written nothing since.
            written = [each.ts_ms for each in entries if mark.seq < each.seq < after.seq]
            end_ms, ends = max(written, default=mark.ts_ms), "the run broke off"
        yield _Run(
            began=mark,
            end_ms=end_ms,
            ends=ends,
            config=load_config(mark.body["config"]),
            market=load_market(mark.body["market"]),
            seeds=(mark.body["seed_price"], mark.body["seed_maker"]),
        )


def _stretches_of(run: _Run, record: _Record, since_ms: int) -> Iterator[_Stretch]:
    """Yield the windows of a run: one from its start on, and one after each hole in the tape."""
    starts = [
        (each.body["venue_ts_ms"], each.body["wallet"], "a fill left the bot flat")
        for each in record.fills
        if each.seq > run.began.seq
        and run.began.ts_ms <= each.ts_ms <= run.end_ms
        and each.body.get("pos_size") == 0.0
    ]
    if run.began.body["position"] == 0.0:
        starts.insert(0, (run.began.ts_ms, run.began.body["wallet"], "the run began"))
    from_ms, warm = since_ms, True
    begun_ms = run.began.ts_ms
    while True:
        gap = record.gap_after(begun_ms, run.end_ms)
        until_ms = run.end_ms if gap is None else gap[0]
        start = next((s for s in starts if from_ms <= s[0] < until_ms), None)
        if start is not None and len(record.trades(start[0] + 1, until_ms)):
            yield _Stretch(
                run=run,
                start_ms=start[0],
                end_ms=until_ms,
                wallet=start[1],
                begins=start[2],
                ends=run.ends if gap is None else "trades are missing on the tape",
                warm=warm,
            )
        if gap is None:
            return
        begun_ms, from_ms, warm = gap[1], max(gap[1], since_ms), False


def _round_trips(entries: Sequence[Entry], since_ms: int) -> list[int]:
    """Return how long messages took from being meant to being answered, ms."""
    sent: dict[str, int] = {}
    trips = []
    for each in entries:
        if each.type == "intent":
            sent[each.key] = each.ts_ms
        elif each.type == "outcome" and each.body["verdict"] in ("ok", "rejected"):
            at_ms = sent.pop(each.key, None)
            if at_ms is not None and at_ms >= since_ms:
                trips.append(each.ts_ms - at_ms)
    return trips


def _silences_of(log: Path | None) -> list[tuple[int, float, str]]:
    """Return when the bot opened nothing, and why: (from, to, reason)."""
    if log is None or not log.exists():
        return []
    open_since: dict[str, tuple[int, str]] = {}
    out: list[tuple[int, float, str]] = []
    for line in log.read_bytes().splitlines():
        try:
            said = orjson.loads(line)
            event, ts_ms = said["event"], int(said["ts_ms"])
        except (ValueError, KeyError, TypeError):
            continue
        if event == "reducing":
            open_since[str(said.get("reason"))] = ts_ms, str(said.get("why"))
        elif event == "cleared" and (since := open_since.pop(str(said.get("reason")), None)):
            out.append((since[0], ts_ms, since[1]))
        elif event == "halted":
            open_since["halted"] = ts_ms, str(said.get("why"))
        elif event == "began":
            open_since.clear()
    return out + [(since_ms, float("inf"), why) for since_ms, why in open_since.values()]


def _changed(ran: Config, now: Config) -> list[str]:
    before, after = ran.to_flat(), now.to_flat()
    return sorted(name for name in before if before[name] != after[name])


# --- one window -----------------------------------------------------------------------------------


def _compare(
    stretch: _Stretch,
    record: _Record,
    latency_ms: float,
    silences: Sequence[tuple[int, float, str]],
) -> Window:
    trades = record.trades(stretch.start_ms + 1, stretch.end_ms)
    end_ms = int(trades["ts_ms"][-1])
    ticks = _ticks_of(stretch, record, trades)
    notes: list[str] = []
    result = backtest(
        ticks,
        stretch.run.config,
        stretch.run.market,
        starting_balance=stretch.wallet,
        latency_ms=latency_ms,
        funding=_rates_of(stretch, record, end_ms) or None,
    )
    live = _live_fills(stretch, record, end_ms)
    expected = _backtest_fills(result)
    pairs = _pairs_of(live, expected)
    judge = _Judge(stretch, record, latency_ms, silences, live, expected)
    differences = [found for pair in pairs if (found := judge.difference(*pair)) is not None]
    if not stretch.warm:
        notes.append("trades before this window are missing: the EMA began with its first trade")
    if stretch.begins != "the run began":
        notes.append("orders of before the window rested when it began; the backtest had none")
    if result.outcome != "end":
        notes.append(f"the backtest ended early: {result.outcome}")
    notes += [
        f"the bot took over another {each.key} at {each.ts_ms}: {each.body.get('was')} became "
        f"{each.body.get('is')}; a transfer, or trades of others"
        for each in record.adopted
        if stretch.start_ms < each.ts_ms <= end_ms
    ]
    balances = result.fills["balance"]
    return Window(
        start_ms=stretch.start_ms,
        end_ms=end_ms,
        n_trades=len(trades),
        wallet=stretch.wallet,
        begins=stretch.begins,
        ends=stretch.ends,
        live_fills=len(live),
        live_wallet=_wallet_at(stretch, record, end_ms),
        live_size=live[-1].pos_size if live else 0.0,
        backtest_fills=len(expected),
        backtest_wallet=float(balances[-1]) if len(balances) else stretch.wallet,
        backtest_size=float(result.fills["pos_size"][-1]) if len(balances) else 0.0,
        same=sum(a is not None and b is not None for a, b in pairs)
        - sum(each.live is not None and each.backtest is not None for each in differences),
        differences=sorted(differences, key=lambda each: each.ts_ms),
        notes=notes,
    )


def _ticks_of(stretch: _Stretch, record: _Record, trades: npt.NDArray[np.void]) -> Ticks:
    """Return the window's trades, and before them all that the bot had seen, as of its start."""
    seen = np.empty(0, record.tape.dtype)
    prices, makers = stretch.run.seeds
    body = stretch.run.began.body
    if stretch.warm:
        seen = record.trades(body["seed_ts_ms"], stretch.start_ms)
        last = str(body["seed_id"])
        if last.isdecimal():
            seen = seen[seen["trade_id"] > int(last)]
        else:
            seen = seen[seen["ts_ms"] > body["seed_ts_ms"]]
    else:
        seen = record.trades(stretch.start_ms, stretch.start_ms)
        prices, makers = (prices[-1:], makers[-1:]) if not len(seen) else ([], [])
    n = len(prices) + len(seen)
    return Ticks.from_arrays(
        price=[*prices, *seen["price"], *trades["price"]],
        qty=np.concatenate([np.zeros(len(prices)), seen["qty"], trades["qty"]]),
        ts_ms=np.concatenate([np.full(n, stretch.start_ms), trades["ts_ms"]]),
        buyer_maker=[*makers, *seen["maker"], *trades["maker"]],
    )


def _rates_of(stretch: _Stretch, record: _Record, end_ms: int) -> list[tuple[int, float]]:
    """Return the funding series that the bot's payments tell of."""
    inverse = stretch.run.market.inverse
    out = []
    for each in record.payments:
        ts_ms, amount = each.body["venue_ts_ms"], each.body["amount"]
        if not stretch.start_ms < ts_ms <= end_ms:
            continue
        size = _body_before(record.fills, ts_ms).get("pos_size", 0.0)
        before = record.trades(stretch.start_ms, ts_ms)
        if size and len(before):
            price = float(before["price"][-1])
            out.append((ts_ms, -amount * price / size if inverse else -amount / (size * price)))
    return out


def _body_before(fills: Sequence[Entry], ts_ms: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = {}
    for each in fills:
        if each.body["venue_ts_ms"] > ts_ms:
            break
        found = each.body
    return found


def _wallet_at(stretch: _Stretch, record: _Record, end_ms: int) -> float:
    """Return the bot's wallet then: that of the last fill, and what was paid since."""
    wallet, since = stretch.wallet, (stretch.start_ms, -1)
    for each in record.fills:
        at_ms = each.body["venue_ts_ms"]
        if stretch.start_ms < at_ms <= end_ms and "wallet" in each.body:
            wallet, since = each.body["wallet"], (at_ms, each.seq)
    for each in record.payments:
        at_ms = each.body["venue_ts_ms"]
        if since[0] <= at_ms <= end_ms and each.seq > since[1] and at_ms > stretch.start_ms:
            wallet += each.body["amount"]
    return wallet


def _live_fills(stretch: _Stretch, record: _Record, end_ms: int) -> list[Fill]:
    out: list[Fill] = []
    size = 0.0
    for each in record.fills:
        body = each.body
        if not stretch.start_ms < body["venue_ts_ms"] <= end_ms:
            continue
        signed = body["side"] * body["qty"]
        size = body.get("pos_size", size + signed)
        own = is_own_id(body["client_id"])
        if (
            own
            and out
            and out[-1].client_id == body["client_id"]
            and out[-1].price == body["price"]
        ):
            before = out.pop()
            parts, qty = before.parts + 1, before.qty + body["qty"]
        else:
            parts, qty = 1, body["qty"]
        kind = body["cause"] if own or body["kind"] != "trade" else "foreign"
        out.append(
            Fill(
                ts_ms=body["venue_ts_ms"],
                kind=kind,
                side=body["side"],
                price=body["price"],
                qty=qty,
                pos_size=size,
                pos_price=body.get("pos_price", 0.0),
                client_id=body["client_id"],
                parts=parts,
            )
        )
    return out


def _backtest_fills(result: BacktestResult) -> list[Fill]:
    return [
        Fill(
            ts_ms=int(row["ts_ms"]),
            kind=str(row["kind"]),
            side=1 if row["qty"] > 0.0 else -1,
            price=float(row["price"]),
            qty=abs(float(row["qty"])),
            pos_size=float(row["pos_size"]),
            pos_price=float(row["pos_price"]),
        )
        for row in result.fills
        if row["kind"] != "funding"
    ]


def _pairs_of(
    live: Sequence[Fill], expected: Sequence[Fill]
) -> list[tuple[Fill | None, Fill | None]]:
    """Say which fill of one is which of the other: the most alike first, then the nearest."""
    free = [each for each in live if each.kind != "foreign"]
    partner: dict[int, Fill] = {}
    for reach_ms, alike in (
        (_SAME_MS, ("kind", "price", "qty")),
        (_LATE_MS, ("kind", "price", "qty")),
        (_SAME_MS, ("kind", "price")),
        (_LATE_MS, ("kind",)),
    ):
        for i, wanted in enumerate(expected):
            if i in partner:
                continue
            near = [
                each
                for each in free
                if each.side == wanted.side
                and abs(each.ts_ms - wanted.ts_ms) <= reach_ms
                and all(getattr(each, name) == getattr(wanted, name) for name in alike)
            ]
            if near:
                chosen = min(near, key=lambda each: abs(each.ts_ms - wanted.ts_ms))
                partner[i] = chosen
                free = [each for each in free if each is not chosen]
    taken = {id(each) for each in partner.values()}
    pairs: list[tuple[Fill | None, Fill | None]] = [
        (partner.get(i), wanted) for i, wanted in enumerate(expected)
    ]
    return pairs + [(each, None) for each in live if id(each) not in taken]


class _Judge:
    """Says why a fill is another one, or none, as far as the record tells."""

    def __init__(
        self,
        stretch: _Stretch,
        record: _Record,
        latency_ms: float,
        silences: Sequence[tuple[int, float, str]],
        live: Sequence[Fill],
        expected: Sequence[Fill],
    ) -> None:
        self._stretch = stretch
        self._record = record
        self._latency_ms = latency_ms
        self._silences = silences
        self._live = live
        self._expected = expected

    def difference(self, live: Fill | None, wanted: Fill | None) -> Difference | None:
        if live is None:
            assert wanted is not None
            return Difference(
                what="missing", cause=self._missing(wanted), live=None, backtest=wanted
            )
        if wanted is None:
            return Difference(what="extra", cause=self._extra(live), live=live, backtest=None)
        for what, differs, why in (
            ("price", live.price != wanted.price, self._price),
            ("qty", live.qty != wanted.qty, self._qty),
            ("time", abs(live.ts_ms - wanted.ts_ms) > _SAME_MS, self._time),
        ):
            if differs:
                return Difference(what=what, cause=why(live, wanted), live=live, backtest=wanted)
        return None

    def _parted(self, ts_ms: int) -> str:
        """Say so when the positions were different before that time already."""
        held = []
        for fills in (self._live, self._expected):
            before = [each for each in fills if each.ts_ms < ts_ms]
            held.append((before[-1].pos_size, before[-1].pos_price) if before else (0.0, 0.0))
        (size, price), (other_size, other_price) = held
        if size != other_size:
            return f"follows: the bot held {size:.10g}, the backtest {other_size:.10g}"
        if abs(price - other_price) > _MONEY_NOISE * price:
            return f"follows: the bot's average was {price:.10g}, the backtest's {other_price:.10g}"
        return ""

    def _missing(self, wanted: Fill) -> str:
        record = self._record
        sent = [
            each
            for each in record.intents.values()
            if each.body["side"] == wanted.side
            and each.body["kind"] == wanted.kind
            and (each.body["price"] == wanted.price or each.body["at_market"])
            and self._stretch.start_ms - _SAME_MS <= each.ts_ms <= wanted.ts_ms + _SAME_MS
        ]
        if sent:
            last = sent[-1]
            ends = record.outcomes.get(last.key, [])
            rejected = next((e for e in ends if e.body["verdict"] == "rejected"), None)
            if rejected is not None:
                return f"refused by the venue: {rejected.body['text'] or rejected.body['code']}"
            final = next((e for e in ends if e.body.get("final")), None)
            if final is not None and final.body.get("status") == "filled":
                return f"{last.key} was filled, but its fill is missing in the journal"
            if parted := self._parted(wanted.ts_ms):
                return parted
            if final is not None and final.ts_ms <= wanted.ts_ms:
                return f"{last.key} was gone by then: {final.body.get('status') or 'ended'}"
            if last.ts_ms > wanted.ts_ms - self._latency_ms:
                return "latency: the order was on its way when the trade came"
            return "queue: the order rested, and the venue did not fill it"
        if parted := self._parted(wanted.ts_ms):
            return parted
        for since_ms, until_ms, why in self._silences:
            if since_ms <= wanted.ts_ms and until_ms > wanted.ts_ms - self._latency_ms:
                return f"held back: {why}"
        return f"the bot sent no such order{self._ema()}"

    def _extra(self, live: Fill) -> str:
        if live.kind == "foreign":
            who = f"client id {live.client_id}" if live.client_id else "no client id"
            return f"no order of the bot: a trade by hand or by another program ({who})"
        if live.kind in ("liquidation", "adl"):
            return f"{live.kind} by the venue, at its mark price"
        if parted := self._parted(live.ts_ms):
            return parted
        intent = self._record.intents.get(live.client_id)
        if intent is not None and intent.ts_ms <= self._stretch.start_ms:
            return "an order of before the window"
        if held := self._held_until(live):
            return held
        if any(
            other.key != live.client_id and other.body["kind"] == live.kind in _STOPS
            for other in self._record.intents.values()
            if intent is not None and abs(other.ts_ms - intent.ts_ms) <= _SAME_MS
        ):
            return "a stop that was sent again"
        if intent is not None and not intent.body["at_market"] and self._only_touched(live):
            return "queue: a trade at its price filled it; the backtest wants one beyond"
        if intent is not None and live.ts_ms - intent.ts_ms < self._latency_ms:
            return f"latency: filled {live.ts_ms - intent.ts_ms} ms after it was meant"
        return f"the backtest had no such order{self._ema()}"

    def _held_until(self, live: Fill) -> str:
        """Say so when the order of a fill left as soon as it was let."""
        intent = self._record.intents.get(live.client_id)
        if intent is None:
            return ""
        for since_ms, until_ms, why in self._silences:
            if since_ms <= intent.ts_ms and 0.0 <= intent.ts_ms - until_ms <= _SAME_MS:
                return f"held back until it was sent: {why}"
        return ""

    def _only_touched(self, live: Fill) -> bool:
        trades = self._record.trades(live.ts_ms - _SAME_MS, live.ts_ms + _SAME_MS)
        hits = trades[trades["maker"] == (live.side > 0)]["price"]
        return bool(
            (hits == live.price).any() and not (live.side * hits < live.side * live.price).any()
        )

    def _price(self, live: Fill, wanted: Fill) -> str:
        intent = self._record.intents.get(live.client_id)
        if intent is not None and not intent.body["at_market"]:
            if intent.body["price"] != live.price:
                return f"filled at another price than was ordered ({intent.body['price']:.10g})"
        elif intent is not None:
            return "at market: the book when it arrived"
        if parted := self._parted(min(live.ts_ms, wanted.ts_ms)):
            return parted
        if held := self._held_until(live):
            return held
        if intent is not None and 0 <= live.ts_ms - intent.ts_ms <= _SAME_MS:
            return f"latency: sent {live.ts_ms - intent.ts_ms} ms before it filled, a moving market"
        if self._stretch.run.config.book == "ticker":
            return f"best prices: the bot has the venue's, the backtest the trades'{self._ema()}"
        return f"the book or the EMA of the moment{self._ema()}"

    def _qty(self, live: Fill, wanted: Fill) -> str:
        if parted := self._parted(min(live.ts_ms, wanted.ts_ms)):
            return parted
        intent = self._record.intents.get(live.client_id)
        if intent is not None and live.qty < intent.body["qty"]:
            return f"filled in part: {live.qty:.10g} of {intent.body['qty']:.10g}"
        return "sizing: another wallet or price when it was planned"

    def _time(self, live: Fill, wanted: Fill) -> str:
        if parted := self._parted(min(live.ts_ms, wanted.ts_ms)):
            return parted
        if held := self._held_until(live):
            return held
        gap_s = (live.ts_ms - wanted.ts_ms) / 1e3
        if gap_s < 0.0 and self._only_touched(live):
            return f"queue: filled {-gap_s:.1f} s before a trade went beyond its price"
        who = "later" if gap_s > 0.0 else "sooner"
        return f"latency or queue: {abs(gap_s):.1f} s {who}"

    def _ema(self) -> str:
        return "" if self._stretch.warm else "; its EMA was not the bot's"
