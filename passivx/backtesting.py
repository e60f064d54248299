"""The Python face of the backtest engines: settings in, fills and figures out.

``exact`` is the bot's own planner and order flow at a venue with latency (docs/backtest.md).
``compat`` replays the original Passiv-X backtester with all its quirks, so that old results can be
checked; it flatters, and its summary says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from passivx._core import compat, exact
from passivx._core.calc import MAX_STEPS
from passivx._core.types import FUNDING_DTYPE, KIND_NAMES
from passivx.breaks import BreakRules, compile_break_on
from passivx.candidates import (
    DEFAULT_LATENCY_MS,
    FILLS,
    ExactRun,
    compat_record,
    compat_records,
    config_from_flat,
    exact_from_flat,
    exact_records,
    run_problems,
    with_defaults,
)
from passivx.config import Config
from passivx.data.funding import FundingSource, load_funding
from passivx.data.ticks import Ticks
from passivx.errors import ConfigError, DataError, Problem
from passivx.files import check_folder, write_folder
from passivx.models import DEFAULT_MAINTENANCE_RATE, Market
from passivx.report.metrics import compat_summary, equity_at_fills, exact_summary

__all__ = [
    "ENGINES",
    "FILLS",
    "METHODS",
    "BacktestResult",
    "Trial",
    "Trials",
    "backtest",
    "backtest_flat",
    "check_options",
    "check_result_folder",
]

ENGINES: Final = ("exact", "compat")
METHODS: Final = ("auto", "scan")

# What a result folder holds; the first of them makes it one.
_RESULT_FILES = ("summary.json", "fills.csv", "equity.csv", "config.json", "market.json")

_SIDES = np.array(["short", "", "long"])
_KINDS = np.array(["", *(KIND_NAMES[kind] for kind in sorted(KIND_NAMES))])


@dataclass(frozen=True)
class BacktestResult:
    """What a backtest did, fill by fill.

    ``outcome`` is 'end', 'long_liquidation', 'shrt_liquidation' or 'break:NAME'; ``settings`` the
    flat settings that were run, ``how`` what was chosen beside them; ``n_ticks`` the ticks the
    engine looked at; ``start_ms``, ``end_ms`` and ``last_price`` when the run began and ended, and
    at which price. ``exact`` alone fills in the rest: ``assumptions`` says in words what was taken
    for granted, ``worst_open_loss`` and ``closest_liq`` are over every print (`exact_summary`
    defines them).
    """

    engine: str
    outcome: str
    settings: Mapping[str, Any]
    how: Mapping[str, Any]
    n_ticks: int
    start_ms: int
    end_ms: int
    last_price: float
    raw_fills: npt.NDArray[np.void] = field(repr=False)
    raw_equity: npt.NDArray[np.void] | None = field(default=None, repr=False)
    assumptions: tuple[str, ...] = ()
    worst_open_loss: float = 0.0
    closest_liq: float = 1.0

    @cached_property
    def fills(self) -> npt.NDArray[np.void]:
        """The records in time order, one structured record each, shape (n,).

        tick (index into the ticks; for ``compat`` into the ticks without repeated prices), ts_ms,
        position_side 'long' | 'short' (before it, of the new position when flat), kind, price, qty
        (signed), pos_size (signed, after it), pos_price, liq_price, pnl, fee (negative = paid),
        balance (wallet after it), closest_liq (least relative distance of a print to the
        liquidation price since the last record). Kinds are 'entry', 'reentry', 'close',
        'stop_loss_liq_diff', 'stop_loss_pos_price_diff' and, from ``exact``, 'funding' (qty 0, its
        amount in pnl) and 'liquidation'. ``compat`` adds apparent_balance, reentry_price (NaN when
        flat), closest_long_liq, closest_short_liq, pnl_plus_fees_cumsum. Money in settle currency.
        """
        raw = self.raw_fills
        assert raw.dtype.names is not None
        words = {"position_side": _SIDES[raw["position_side"] + 1], "kind": _KINDS[raw["kind"]]}
        columns = {name: words.get(name, raw[name]) for name in raw.dtype.names}
        out = np.empty(len(raw), [(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            out[name] = column
        return out

    def to_records(self) -> list[dict[str, Any]]:
        """Return the fills as plain dicts with the same names."""
        names = self.fills.dtype.names
        assert names is not None
        return [dict(zip(names, row, strict=True)) for row in self.fills.tolist()]

    @cached_property
    def equity(self) -> npt.NDArray[np.void]:
        """Wallet and equity over time: ts_ms, wallet, equity, shape (n,).

        Equity = wallet + open pnl at the last price. ``exact``: at the start, every record, every
        whole UTC hour and the end; ``compat``: after each fill.
        """
        if self.raw_equity is not None:
            return self.raw_equity
        return equity_at_fills(self.raw_fills, inverse=bool(self.settings["inverse"]))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of the run, named and defined in ``report/metrics.py``."""
        about: dict[str, Any] = {"engine": self.engine, "outcome": self.outcome}
        span: dict[str, Any] = {
            "starting_balance": float(self.settings["starting_balance"]),
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "inverse": bool(self.settings["inverse"]),
        }
        if self.engine == "compat":
            return about | compat_summary(self.raw_fills, **span, last_price=self.last_price)
        figures = exact_summary(
            self.raw_fills,
            self.equity,
            **span,
            leverage=float(self.settings["leverage"]),
            worst_open_loss=self.worst_open_loss,
            closest_liq=self.closest_liq,
        )
        return about | figures | {"assumptions": list(self.assumptions)}

    def fills_csv(self) -> str:
        """Return the fills as a table, floats in the shortest form that reads back the same."""
        return _csv(self.fills)

    def save(self, folder: Path | str, *, ticks: Ticks, config: Config, market: Market) -> None:
        """Write the result folder, whole or not at all: summary, fills, equity, config, market.

        An earlier result in ``folder`` is replaced; anything else there is left alone.

        Raises
        ------
        PassivxError
            If ``folder`` holds something that is not a result, or cannot be written.
        """
        about = {
            "passivx_version": version("passivx"),
            "ticks": {
                "rows": len(ticks),
                "sha256": ticks.sha256(),
                "sources": list(ticks.report.sources),
                "first_ts_ms": int(ticks.ts_ms[0]),
                "last_ts_ms": int(ticks.ts_ms[-1]),
            },
            "starting_balance": self.settings["starting_balance"],
            "latency_ms": self.settings["latency_simulation_ms"],
            **self.how,
        }
        summary = {"about": about, "summary": self.summary}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        contents: tuple[bytes | str, ...] = (
            orjson.dumps(summary, option=options),
            self.fills_csv(),
            _csv(self.equity),
            config.to_json(),
            market.to_json(),
        )
        files = dict(zip(_RESULT_FILES, contents, strict=True))
        write_folder(Path(folder), files, mark=_RESULT_FILES[0])


def check_options(
    engine: str,
    config: Config,
    *,
    method: str = "auto",
    latency_ms: float | None = None,
    cancel_latency_ms: float | None = None,
    fill: str = "cross",
    queue_share: float = 0.0,
    funding: FundingSource | None = None,
) -> None:
    """Raise what `backtest` would refuse these for, or leave unused, before the ticks are read.

    Raises
    ------
    ConfigError, DataError
        As `backtest`.
    """
    _check_engine(engine, method)
    if engine == "compat":
        _refuse_for_compat(fill, queue_share, cancel_latency_ms, funding)
        return
    problems = run_problems(
        fill, **_latencies(latency_ms, cancel_latency_ms), queue_share=queue_share
    )
    if not problems and queue_share != 0.0 and fill != "volume":
        message, remedy = "is for fill 'volume' only", "choose that, or leave it out"
        problems.append(Problem("queue_share", queue_share, message, remedy))
    if problems:
        raise ConfigError(problems)
    _series_for(config, funding)


def check_result_folder(folder: Path | str) -> None:
    """Raise PassivxError when ``BacktestResult.save`` would refuse the folder."""
    check_folder(Path(folder), _RESULT_FILES, mark=_RESULT_FILES[0])


def _csv(records: npt.NDArray[np.void]) -> str:
    """Return a table as text; floats in the shortest form that reads back to the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records.dtype.names or ())
    writer.writerows(records.tolist())
    return text.getvalue()


def backtest(
    ticks: Ticks,
    config: Config,
    market: Market,
    *,
    starting_balance: float,
    engine: str = "exact",
    method: str = "auto",
    latency_ms: float | None = None,
    cancel_latency_ms: float | None = None,
    fill: str = "cross",
    queue_share: float = 0.0,
    funding: FundingSource | None = None,
    break_on: BreakRules | Sequence[Sequence[str]] = (),
    progress: Callable[[int], object] | None = None,
) -> BacktestResult:
    """Replay ticks against a config.

    Parameters
    ----------
    starting_balance : float
        Settle currency, > 0.
    engine, method : str
        One of ENGINES and METHODS; 'auto' takes the fastest method that gives the same fills.
    latency_ms : float
        ``exact``: how long a message takes to the venue (default 100). ``compat``: the least time
        between two fills; nearer ones are forgotten (default 1000).
    cancel_latency_ms : float
        ``exact``: how long a cancel takes, when it is not ``latency_ms``.
    fill : str
        ``exact``: 'cross', a resting order fills when a print goes through its price; 'touch', at
        its price too; 'volume', as much as the print brings, and of a print at its price the
        ``queue_share`` (in [0, 1]). ``compat`` has one rule, 'cross'.
    funding
        What `load_funding` takes; ``exact`` only. Without it no funding is paid.
    break_on
        Conditions that end the run at the first record for which one holds: pairs ``["ON: name",
        "lambda trades, ticks, k: ..."]`` as the original's settings files have them, or what
        `compile_break_on` made of them.
    progress : callable
        Called with the number of ticks done, every ten million or more often.

    Raises
    ------
    ConfigError
        If a setting cannot be used.
    DataError
        If the ticks cannot: none at all, for ``compat`` fewer than two different prices, a price
        beyond 1e11 steps, 'volume' without quantities.
    """
    _check_engine(engine, method)
    rules = _break_rules(break_on)
    if engine == "compat":
        _refuse_for_compat(fill, queue_share, cancel_latency_ms, funding)
        flat = {
            **config.to_flat(),
            **asdict(market),
            "starting_balance": starting_balance,
            "latency_simulation_ms": (
                DEFAULT_LATENCY_MS[engine] if latency_ms is None else latency_ms
            ),
        }
        return _run_compat(ticks, flat, compat_record(flat), rules, progress)
    run = ExactRun(
        config=config,
        market=market,
        starting_balance=starting_balance,
        **_latencies(latency_ms, cancel_latency_ms),
        fill=fill,
        queue_share=queue_share,
    )
    return _run_exact(ticks, run, funding, rules, progress)


def backtest_flat(
    ticks: Ticks,
    settings: Mapping[str, Any],
    *,
    engine: str = "exact",
    method: str = "auto",
    fill: str = "cross",
    queue_share: float = 0.0,
    funding: FundingSource | None = None,
    break_on: BreakRules | Sequence[Sequence[str]] = (),
    progress: Callable[[int], object] | None = None,
) -> BacktestResult:
    """Replay ticks against one flat dict of strategy, market and account numbers.

    The form of an optimizer candidate: strategy parameters by the original's names (``ema_span``,
    ``ema_spread``, ``do_long``, ``do_shrt`` beside the others), the market's numbers,
    ``starting_balance``, ``latency_simulation_ms`` and, if cancels take another time,
    ``cancel_latency_ms``. May be left out: the latency (as in `backtest`), n_entry_orders (8),
    market_stop_loss (false), cross_mode, do_long and do_shrt (true), and what has a default in a
    config or a market file. Other keys are ignored. ``exact`` wants values within the ranges of a
    config; ``compat`` checks types and finiteness only: old files break the ranges and must still
    run. The other parameters are those of `backtest`.

    Raises
    ------
    ConfigError
        Naming every setting that is missing or unusable.
    DataError
        As in `backtest`.
    """
    _check_engine(engine, method)
    rules = _break_rules(break_on)
    settings = with_defaults(settings, engine)
    if engine == "compat":
        _refuse_for_compat(fill, queue_share, None, funding)
        return _run_compat(ticks, settings, compat_record(settings), rules, progress)
    run = exact_from_flat(settings, fill=fill, queue_share=queue_share)
    return _run_exact(ticks, run, funding, rules, progress)


@dataclass(frozen=True)
class Trial:
    """One candidate's run without its records.

    ``outcome`` is that of a `BacktestResult`, or 'limit:NAME'; ``figures`` its summary, of what was
    played when the run ended early.
    """

    outcome: str
    figures: dict[str, Any]


class Trials:
    """One set of ticks and settings, for candidates that differ in some parameters.

    Checks everything once; `run` then costs little more than the runs themselves, and keeps no
    records.

    Parameters
    ----------
    settings : mapping
        Every strategy parameter by its flat name; of the varied ones any value that can be used.
    names : sequence of str
        The varied ones, out of ``candidates.PARAMETERS[engine]``.
    limits : ndarray of LIMITS_DTYPE, shape (1,), optional
        ``exact`` only: what ends a run early.

    The others are those of `backtest`, and so are the errors.
    """

    def __init__(
        self,
        ticks: Ticks,
        settings: Mapping[str, Any],
        market: Market,
        names: Sequence[str],
        *,
        starting_balance: float,
        engine: str = "exact",
        method: str = "auto",
        latency_ms: float | None = None,
        cancel_latency_ms: float | None = None,
        fill: str = "cross",
        queue_share: float = 0.0,
        funding: FundingSource | None = None,
        break_on: BreakRules | Sequence[Sequence[str]] = (),
        limits: npt.NDArray[np.void] | None = None,
    ) -> None:
        _check_engine(engine, method)
        self._ticks = ticks
        self._names = tuple(names)
        self._rules = _break_rules(break_on)
        self._limits = limits
        self._flat = {
            **settings,
            **asdict(market),
            "starting_balance": starting_balance,
            "latency_simulation_ms": (
                DEFAULT_LATENCY_MS[engine] if latency_ms is None else latency_ms
            ),
        }
        self._run: ExactRun | None = None
        if engine == "compat":
            _refuse_for_compat(fill, queue_share, cancel_latency_ms, funding)
            self._record = compat_record(self._flat)
            return
        self._run = ExactRun(
            config=config_from_flat(settings),
            market=market,
            starting_balance=starting_balance,
            **_latencies(latency_ms, cancel_latency_ms),
            fill=fill,
            queue_share=queue_share,
        )
        self._record = self._run.record()
        self._funding = _series_for(self._run.config, funding)
        self._tiers = market.tier_records()
        _check_ticks(ticks, self._run)

    def run(
        self,
        values: npt.NDArray[np.float64],
        progress: Callable[[], object] | None = None,
    ) -> list[Trial]:
        """Run one candidate a row of ``values``, shape (n, number of names), and return the trials.

        ``progress`` is called every few million ticks or more often; what it raises ends the runs.
        """
        columns = {
            name: np.ascontiguousarray(values[:, column]) for column, name in enumerate(self._names)
        }
        if self._run is None:
            records = compat_records(self._record, columns)
            return [self._compat_trial(records[i : i + 1], progress) for i in range(len(records))]
        return self._exact_trials(self._run, columns, progress)

    def _exact_trials(
        self,
        run: ExactRun,
        columns: Mapping[str, npt.NDArray[np.float64]],
        progress: Callable[[], object] | None,
    ) -> list[Trial]:
        ticks = self._ticks
        played = exact.run_many(
            ticks.price,
            ticks.qty,
            ticks.ts_ms,
            ticks.buyer_maker,
            exact_records(self._record, run.market, columns),
            self._tiers,
            self._funding,
            breaks=self._rules.program,
            limits=self._limits,
            progress=None if progress is None else lambda candidate, done: progress(),
        )
        leverages = columns.get("leverage")
        trials = []
        for i, (fills, equity, ended, broken_by, _, worst_open_loss, closest) in enumerate(played):
            leverage = run.config.leverage if leverages is None else float(leverages[i])
            figures = exact_summary(
                fills,
                equity,
                starting_balance=run.starting_balance,
                start_ms=int(ticks.ts_ms[0]),
                end_ms=int(equity["ts_ms"][-1]),
                inverse=run.market.inverse,
                leverage=leverage,
                worst_open_loss=worst_open_loss,
                closest_liq=closest,
            )
            trials.append(Trial(_exact_outcome(fills, ended, broken_by, self._rules), figures))
        return trials

    def _compat_trial(
        self, record: npt.NDArray[np.void], progress: Callable[[], object] | None
    ) -> Trial:
        beat = None if progress is None else lambda done: progress()
        result = _run_compat(self._ticks, self._flat, record, self._rules, beat)
        figures = dict(result.summary)
        del figures["engine"], figures["outcome"]
        return Trial(result.outcome, figures)


def _break_rules(break_on: BreakRules | Sequence[Sequence[str]]) -> BreakRules:
    return break_on if isinstance(break_on, BreakRules) else compile_break_on(break_on)


def _latencies(latency_ms: float | None, cancel_latency_ms: float | None) -> dict[str, float]:
    """Return how long the messages of an ``exact`` run take, with what was left out."""
    latency_ms = DEFAULT_LATENCY_MS["exact"] if latency_ms is None else latency_ms
    cancel_latency_ms = latency_ms if cancel_latency_ms is None else cancel_latency_ms
    return {"latency_ms": latency_ms, "cancel_latency_ms": cancel_latency_ms}


def _check_engine(engine: str, method: str) -> None:
    _choose("engine", engine, ENGINES)
    _choose("method", method, METHODS)


def _choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        wanted = " or ".join(map(repr, choices))
        raise ConfigError([Problem(name, value, f"must be {wanted}")])


def _run_exact(
    ticks: Ticks,
    run: ExactRun,
    funding: FundingSource | None,
    rules: BreakRules,
    progress: Callable[[int], object] | None,
) -> BacktestResult:
    series = _series_for(run.config, funding)
    _check_ticks(ticks, run)
    fills, equity, ended, broken_by, n_played, worst_open_loss, closest_liq = exact.run(
        ticks.price,
        ticks.qty,
        ticks.ts_ms,
        ticks.buyer_maker,
        run.record(),
        run.market.tier_records(),
        series,
        breaks=rules.program,
        progress=progress,
    )
    return BacktestResult(
        engine="exact",
        outcome=_exact_outcome(fills, ended, broken_by, rules),
        settings={
            **run.config.to_flat(),
            **asdict(run.market),
            "starting_balance": run.starting_balance,
            "latency_simulation_ms": run.latency_ms,
            "cancel_latency_ms": run.cancel_latency_ms,
        },
        how={
            "cancel_latency_ms": run.cancel_latency_ms,
            "fill": run.fill,
            "queue_share": run.queue_share,
            "funding_rates": len(series),
            "break_on": rules.entries(),
        },
        n_ticks=n_played,
        start_ms=int(ticks.ts_ms[0]),
        end_ms=int(equity["ts_ms"][-1]),
        last_price=float(ticks.price[n_played - 1]),
        raw_fills=fills,
        raw_equity=equity,
        assumptions=_assumptions(run, series, ticks),
        worst_open_loss=worst_open_loss,
        closest_liq=closest_liq,
    )


def _series_for(config: Config, funding: FundingSource | None) -> npt.NDArray[np.void]:
    """Return the funding series, empty without one; a config that goes by it needs one."""
    series = np.zeros(0, FUNDING_DTYPE) if funding is None else load_funding(funding)
    if config.indicator_settings.funding_fee_collect_mode and not len(series):
        remedy = "give --funding FILE, or switch it off"
        message = "goes by the settled rates, and there is no funding series"
        raise ConfigError([Problem("funding_fee_collect_mode", True, message, remedy)])
    return series


def _check_ticks(ticks: Ticks, run: ExactRun) -> None:
    where = ", ".join(ticks.report.sources) or None
    if not len(ticks):
        raise DataError("there are no ticks to replay", where)
    if int(ticks.ts_ms[0]) < 0:
        raise DataError(f"times must not be before 1970, the first is {ticks.ts_ms[0]}", where)
    highest = float(ticks.price.max())
    if highest > MAX_STEPS * run.market.price_step:
        raise DataError(
            f"price {highest:g} is more than 1e11 price steps of {run.market.price_step:g}: "
            "the market file is for another symbol",
            where,
        )
    if run.fill == "volume" and not ticks.qty.any():
        raise DataError("fill 'volume' needs quantities, and every one is 0", where)


def _assumptions(run: ExactRun, funding: npt.NDArray[np.void], ticks: Ticks) -> tuple[str, ...]:
    """Say in words what a venue would not have left open."""
    config, market = run.config, run.market
    out = []
    if not market.tiers:
        rate = DEFAULT_MAINTENANCE_RATE[market.inverse]
        out.append(f"maintenance margin {rate:.1%} of the notional (the market file has no tiers)")
    if not market.liquidation_fee:
        out.append("no liquidation fee (the market file has none)")
    first_ms, last_ms = ticks.ts_ms[0], ticks.ts_ms[-1]
    if not len(funding):
        out.append("no funding (no series given)")
    elif not np.any((funding["ts_ms"] >= first_ms) & (funding["ts_ms"] <= last_ms)):
        out.append("no funding (no rate of the series falls within the ticks)")
    if market.notional_cap(config.venue_leverage) == 0.0:
        out.append(
            f"no position at all (the first tier allows leverage {market.tiers[0].max_leverage:g} "
            f"at most, the config has {config.venue_leverage})"
        )
    elif config.venue_leverage > market.max_leverage:
        out.append(
            f"leverage {config.venue_leverage} (the venue allows {market.max_leverage:g} at most)"
        )
    return tuple(out)


def _exact_outcome(
    fills: npt.NDArray[np.void], ended: exact.Outcome, broken_by: int, rules: BreakRules
) -> str:
    if ended == exact.Outcome.LIMIT:
        return f"limit:{(exact.LIMITS_DTYPE.names or ())[broken_by]}"
    liquidated = ended == exact.Outcome.LIQUIDATION
    return _outcome(int(fills["position_side"][-1]) if liquidated else 0, broken_by, rules)


def _outcome(liquidated_side: int, broken_by: int, rules: BreakRules) -> str:
    if liquidated_side:
        return "long_liquidation" if liquidated_side > 0 else "shrt_liquidation"
    return f"break:{rules.names[broken_by]}" if broken_by >= 0 else "end"


def _refuse_for_compat(
    fill: str,
    queue_share: float,
    cancel_latency_ms: float | None,
    funding: FundingSource | None,
) -> None:
    """compat has one fill rule and knows neither funding nor messages."""
    if fill != "cross":
        raise ConfigError([Problem("fill", fill, "is for the exact engine: leave it out")])
    for name, value in (
        ("queue_share", queue_share or None),
        ("cancel_latency_ms", cancel_latency_ms),
        ("funding", funding),
    ):
        if value is not None:
            shown = value if isinstance(value, int | float) else None
            raise ConfigError([Problem(name, shown, "is for the exact engine: leave it out")])


def _run_compat(
    ticks: Ticks,
    settings: Mapping[str, Any],
    record: npt.NDArray[np.void],
    rules: BreakRules,
    progress: Callable[[int], object] | None,
) -> BacktestResult:
    try:
        fills, liquidated, broken_by, n_ticks = compat.run(
            ticks.price,
            ticks.ts_ms,
            ticks.buyer_maker,
            record,
            breaks=rules.program,
            progress=progress,
        )
    except ValueError as e:
        raise DataError(str(e), ", ".join(ticks.report.sources) or None) from e
    early = liquidated or broken_by >= 0
    return BacktestResult(
        engine="compat",
        outcome=_outcome(
            int(np.sign(fills["pos_size"][-1])) if liquidated else 0, broken_by, rules
        ),
        settings=settings,
        how={"break_on": rules.entries()},
        n_ticks=n_ticks,
        start_ms=int(ticks.ts_ms[0]),
        end_ms=int(fills["ts_ms"][-1] if early else ticks.ts_ms[-1]),
        last_price=float(fills["price"][-1] if early else ticks.price[-1]),
        raw_fills=fills,
    )
