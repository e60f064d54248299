"""The Python face of the backtest engines: settings in, fills and figures out.

``compat`` replays the original Passiv-X backtester with all its quirks, so that old results can be
checked; it flatters, and its summary says so.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from passivx._core import compat
from passivx._core.types import KIND_NAMES
from passivx.config import Config
from passivx.data.ticks import Ticks
from passivx.documents import is_number
from passivx.errors import ConfigError, DataError, Problem
from passivx.files import check_folder, write_folder
from passivx.models import Market
from passivx.report.metrics import compat_summary, equity_at_fills

__all__ = [
    "COMPAT_LATENCY_MS",
    "ENGINES",
    "METHODS",
    "BacktestResult",
    "backtest",
    "backtest_flat",
    "check_result_folder",
]

ENGINES = ("compat",)
METHODS = ("auto", "scan")

# What a result folder holds; the first of them makes it one.
_RESULT_FILES = ("summary.json", "fills.csv", "equity.csv", "config.json", "market.json")

# Least ms between two fills when the settings do not say: the original's own default.
COMPAT_LATENCY_MS = 1000.0

# What each field of the core's settings is called in a flat settings dict, where that differs.
_FLAT_NAMES = {"latency_ms": "latency_simulation_ms", "do_short": "do_shrt"}
_DEFAULTS = {"latency_simulation_ms": COMPAT_LATENCY_MS, "do_long": True, "do_shrt": True}
_SWITCHES = frozenset({"inverse", "do_long", "do_short"})
_DIVISORS = frozenset(
    {"price_step", "qty_step", "leverage", "max_leverage", "starting_balance", "ema_span"}
)
_COUNTS_AND_LEASTS = frozenset({"n_close_orders", "min_qty", "min_cost", "latency_ms"})

_SIDES = np.array(["short", "", "long"])
_KINDS = np.array(["", *(KIND_NAMES[kind] for kind in sorted(KIND_NAMES))])


@dataclass(frozen=True)
class BacktestResult:
    """What a backtest did, fill by fill.

    ``outcome`` is 'end', 'long_liquidation' or 'shrt_liquidation'; ``settings`` the flat settings
    that were run; ``n_ticks`` the ticks the engine looked at; ``start_ms`` and ``end_ms`` the
    span of the ticks given.
    """

    engine: str
    outcome: str
    settings: Mapping[str, Any]
    n_ticks: int
    start_ms: int
    end_ms: int
    raw_fills: npt.NDArray[np.void] = field(repr=False)

    @cached_property
    def fills(self) -> npt.NDArray[np.void]:
        """The fills in time order, one structured record each, shape (n,).

        tick (index into the ticks without repeated prices), ts_ms, position_side 'long' | 'short',
        kind, price, qty (signed), pos_size (signed), pos_price, liq_price, pnl, fee (negative =
        paid), balance, closest_liq, and for ``compat`` apparent_balance, reentry_price (NaN when
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
        """Wallet and equity after each fill: ts_ms, wallet, equity, shape (n,).

        Equity = wallet + open pnl at the fill's price.
        """
        return equity_at_fills(self.raw_fills, inverse=bool(self.settings["inverse"]))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The figures of the run, named and defined in ``report/metrics.py``."""
        return {
            "engine": self.engine,
            "outcome": self.outcome,
            **compat_summary(
                self.raw_fills,
                starting_balance=float(self.settings["starting_balance"]),
                start_ms=self.start_ms,
                end_ms=self.end_ms,
            ),
        }

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
                "first_ts_ms": self.start_ms,
                "last_ts_ms": self.end_ms,
            },
            "starting_balance": self.settings["starting_balance"],
            "latency_ms": self.settings["latency_simulation_ms"],
        }
        summary = {"about": about, "summary": self.summary}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        contents: tuple[bytes | str, ...] = (
            orjson.dumps(summary, option=options),
            _csv(self.fills),
            _csv(self.equity),
            config.to_json(),
            market.to_json(),
        )
        files = dict(zip(_RESULT_FILES, contents, strict=True))
        write_folder(Path(folder), files, mark=_RESULT_FILES[0])


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
    engine: str = "compat",
    method: str = "auto",
    latency_ms: float = COMPAT_LATENCY_MS,
    fill: str = "cross",
    funding: None = None,
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
        ``compat``: the least time between two fills; nearer ones are forgotten.
    fill, funding
        For engines with a choice: ``compat`` has one fill rule and knows no funding.
    progress : callable
        Called with the number of ticks done, every ten million or more often.

    Raises
    ------
    ConfigError
        If a setting cannot be used.
    DataError
        If the ticks hold fewer than two different prices.
    """
    settings = {
        **config.to_flat(),
        **asdict(market),
        "starting_balance": starting_balance,
        "latency_simulation_ms": latency_ms,
    }
    return backtest_flat(
        ticks, settings, engine=engine, method=method, fill=fill, funding=funding, progress=progress
    )


def backtest_flat(
    ticks: Ticks,
    settings: Mapping[str, Any],
    *,
    engine: str = "compat",
    method: str = "auto",
    fill: str = "cross",
    funding: None = None,
    progress: Callable[[int], object] | None = None,
) -> BacktestResult:
    """Replay ticks against one flat dict of strategy, market and account numbers.

    The form of an optimizer candidate: strategy parameters by the original's names (``ema_span``,
    ``ema_spread``, ``do_long``, ``do_shrt`` beside the others), the market's numbers,
    ``starting_balance``, and ``latency_simulation_ms`` (default 1000). Other keys are ignored.
    ``compat`` checks types and finiteness only: old files break the ranges of today's configs and
    must still run.

    Raises
    ------
    ConfigError
        Naming every setting that is missing or unusable.
    DataError
        If the ticks hold fewer than two different prices.
    """
    _choose("engine", engine, ENGINES)
    _choose("method", method, METHODS)
    _choose("fill", fill, ("cross",))
    if funding is not None:
        raise ConfigError([Problem("funding", type(funding).__name__, "must be left out: none")])
    settings = _DEFAULTS | dict(settings)
    record = _compat_record(settings)
    try:
        fills, liquidated, _, n_ticks = compat.run(
            ticks.price, ticks.ts_ms, ticks.buyer_maker, record, progress=progress
        )
    except ValueError as e:
        raise DataError(str(e), ", ".join(ticks.report.sources) or None) from e
    outcome = "end"
    if liquidated:
        outcome = "long_liquidation" if fills["pos_size"][-1] > 0.0 else "shrt_liquidation"
    return BacktestResult(
        engine=engine,
        outcome=outcome,
        settings=settings,
        n_ticks=n_ticks,
        start_ms=int(ticks.ts_ms[0]),
        end_ms=int(ticks.ts_ms[-1]),
        raw_fills=fills,
    )


def _choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        wanted = " or ".join(map(repr, choices))
        raise ConfigError([Problem(name, value, f"must be {wanted}")])


def _compat_record(settings: Mapping[str, Any]) -> npt.NDArray[np.void]:
    out = np.zeros(1, compat.COMPAT_DTYPE)
    problems = []
    for name in compat.COMPAT_DTYPE.names or ():
        flat = _FLAT_NAMES.get(name, name)
        value = settings.get(flat)
        wanted = _unusable(name, value)
        if wanted:
            problems.append(Problem(flat, value, wanted))
        else:
            out[name] = value
    if problems:
        raise ConfigError(problems)
    return out


def _unusable(name: str, value: object) -> str:
    if value is None:
        return "is missing"
    if name in _SWITCHES:
        # Optimizer candidates carry switches as numbers, 1 or 0.
        known = is_number(value) or isinstance(value, bool | np.bool_)
        return "" if known and value in (0, 1) else "must be true or false"
    if not is_number(value):
        return "must be a finite number"
    if name in _DIVISORS and not value > 0:
        return "must be > 0"
    if name in _COUNTS_AND_LEASTS and value < 0:
        return "must be >= 0"
    if name == "n_close_orders" and value > compat.MAX_CLOSE_ORDERS:
        return f"must be <= {compat.MAX_CLOSE_ORDERS}"
    return ""
