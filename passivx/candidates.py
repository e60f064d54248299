"""Flat settings, the form of an optimizer candidate, turned into what the engines take.

One dict holds strategy parameters by the original's names (``ema_span``, ``ema_spread``,
``do_long``, ``do_shrt`` beside the others), the market's numbers, ``starting_balance`` and
``latency_simulation_ms``. Other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from passivx._core import compat
from passivx._core.exact import EXACT_DTYPE
from passivx._core.matching import FillMode
from passivx.config import Config
from passivx.documents import Number, fields_of, is_number
from passivx.errors import ConfigError, Problem
from passivx.models import Market

__all__ = [
    "DEFAULT_LATENCY_MS",
    "FILLS",
    "PARAMETERS",
    "ExactRun",
    "compat_record",
    "compat_records",
    "config_from_flat",
    "exact_from_flat",
    "exact_records",
    "is_count",
    "is_switch",
    "parameter_fault",
    "run_problems",
    "with_defaults",
]

FILLS: Final = ("cross", "touch", "volume")
# What `latency_simulation_ms` is when nobody says. compat, the least time between two fills: the
# original's own default. exact, the way of an order to the venue: a pessimistic home connection.
DEFAULT_LATENCY_MS: Final = {"compat": 1000.0, "exact": 100.0}

_DEFAULTS: Final = {
    "n_entry_orders": 8,
    "market_stop_loss": False,
    "cross_mode": True,
    "do_long": True,
    "do_shrt": True,
}
# What each field of the core's settings is called in a flat settings dict, where that differs.
_FLAT_NAMES: Final = {"latency_ms": "latency_simulation_ms", "do_short": "do_shrt"}
_SWITCHES: Final = frozenset({"inverse", "do_long", "do_short"})
_DIVISORS: Final = frozenset(
    {"price_step", "qty_step", "leverage", "max_leverage", "starting_balance", "ema_span"}
)
_COUNTS_AND_LEASTS: Final = frozenset({"n_close_orders", "min_qty", "min_cost", "latency_ms"})

# Where a config keeps what flat settings keep beside the rest.
_NESTED: Final = {
    "ema_span": ("indicator_settings", "tick_ema", "span"),
    "ema_spread": ("indicator_settings", "tick_ema", "spread"),
    "do_long": ("indicator_settings", "do_long"),
    "do_shrt": ("indicator_settings", "do_shrt"),
    "funding_fee_collect_mode": ("indicator_settings", "funding_fee_collect_mode"),
}
_FLAGS: Final = frozenset(
    {"cross_mode", "market_stop_loss", "do_long", "do_shrt", "funding_fee_collect_mode", "inverse"}
)


# Flat name -> field of a config, for what is a number or a switch and changes a run.
_FIELDS: Final = {
    {".".join(path): name for name, path in _NESTED.items()}.get(path, path): info
    for path, info in fields_of(Config)
    if path not in ("config_name", "symbol", "logging_level", "strategy", "book")
}
# What an optimizer may vary, by engine; the rest of compat's numbers are market and account.
_COMPAT_OF_THE_RUN: Final = frozenset(
    {"price_step", "qty_step", "min_qty", "min_cost", "maker_fee", "max_leverage", "inverse"}
    | {"starting_balance", "latency_ms"}
)
PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "exact": tuple(_FIELDS),
    "compat": tuple(
        _FLAT_NAMES.get(name, name)
        for name in compat.COMPAT_DTYPE.names or ()
        if name not in _COMPAT_OF_THE_RUN
    ),
}


def parameter_fault(name: str, value: float, engine: str) -> str:
    """Say what keeps ``value`` from being a value of that parameter; nothing when it may be one."""
    if engine == "compat":
        names = {flat: name for name, flat in _FLAT_NAMES.items()}
        return _unusable(names.get(name, name), value)
    if name in _FLAGS:
        return "" if is_number(value) and value in (0, 1) else "must be 0 or 1"
    interval = next(note for note in _FIELDS[name].metadata if isinstance(note, Number))
    return "" if is_number(value) and value in interval else f"must be in {interval.interval}"


def is_switch(name: str) -> bool:
    """Say whether a parameter is true or false, as 1 or 0."""
    return name in _FLAGS


def is_count(name: str) -> bool:
    """Say whether a parameter of ``exact`` is a whole number."""
    return name in _FIELDS and _FIELDS[name].annotation is int


def with_defaults(settings: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """Return the settings with what may be left out filled in."""
    latency = {"latency_simulation_ms": DEFAULT_LATENCY_MS[engine]}
    return {**_DEFAULTS, **latency, **settings}


# --- exact ------------------------------------------------------------------------------------

# name -> usable range, and in words
_RUN_NUMBERS: Final = {
    "starting_balance": (Number("(0, 1e300]"), "finite and > 0"),
    "latency_ms": (Number("[0, 86400000]"), "milliseconds in [0, 86400000]"),
    "cancel_latency_ms": (Number("[0, 86400000]"), "milliseconds in [0, 86400000]"),
    "queue_share": (Number("[0, 1]"), "in [0, 1]"),
}


def run_problems(fill: str, **numbers: Any) -> list[Problem]:
    """Return what is wrong with those numbers of a run that are given, and with its fill rule."""
    problems = []
    for name, value in numbers.items():
        usable, text = _RUN_NUMBERS[name]
        if name == "cancel_latency_ms" and value is numbers["latency_ms"]:
            continue  # cancels take as long: what is wrong with that has been said
        if value is None:
            problems.append(Problem(name, None, "is missing"))
        elif not (is_number(value) and value in usable):
            problems.append(Problem(name, value, f"must be {text}"))
    if fill not in FILLS:
        problems.append(Problem("fill", fill, f"must be one of {', '.join(FILLS)}"))
    return problems


@dataclass(frozen=True, kw_only=True)
class ExactRun:
    """One run of the exact engine besides ticks and funding: config, market, and how it fills.

    ``starting_balance`` in settle currency; ``latency_ms`` until an order reaches the venue,
    ``cancel_latency_ms`` until a cancel does; ``fill`` one of FILLS; ``queue_share`` in [0, 1], for
    'volume': the share of a print at an order's price that is ours.

    Raises
    ------
    ConfigError
        Naming every number that is out of range.
    """

    config: Config
    market: Market
    starting_balance: float
    latency_ms: float
    cancel_latency_ms: float
    fill: str
    queue_share: float

    def __post_init__(self) -> None:
        problems = run_problems(self.fill, **{name: getattr(self, name) for name in _RUN_NUMBERS})
        if problems:
            raise ConfigError(problems)

    def record(self) -> npt.NDArray[np.void]:
        """Return the run as the core takes it: one EXACT_DTYPE record, shape (1,)."""
        config = self.config
        out = np.zeros(1, EXACT_DTYPE)
        out["strategy"] = config.strategy_record()
        out["market"] = self.market.record(config.venue_leverage)
        out["flow"] = config.flow_record()
        for name in _RUN_NUMBERS:
            out[name] = getattr(self, name)
        out["ema_span"] = config.indicator_settings.tick_ema.span
        out["venue_leverage"] = config.venue_leverage
        out["liquidation_fee"] = self.market.liquidation_fee
        out["cross_mode"] = config.cross_mode
        out["fill_mode"] = FillMode[self.fill.upper()]
        return out


def exact_from_flat(settings: Mapping[str, Any], *, fill: str, queue_share: float) -> ExactRun:
    """Return the run that flat settings (`with_defaults`) describe.

    Raises
    ------
    ConfigError
        Naming every setting that is missing or out of range, by its flat name.
    """
    problems: list[Problem] = []
    config: Config | None = None
    market: Market | None = None
    try:
        config = config_from_flat(settings)
    except ConfigError as e:
        problems += e.problems
    try:
        market = Market.from_flat({name: _flag(name, value) for name, value in settings.items()})
    except ConfigError as e:
        problems += e.problems
    latency_ms = settings["latency_simulation_ms"]
    numbers = {
        "starting_balance": settings.get("starting_balance"),
        "latency_ms": latency_ms,
        "cancel_latency_ms": settings.get("cancel_latency_ms", latency_ms),
        "queue_share": queue_share,
    }
    problems += [
        replace(problem, field=_FLAT_NAMES.get(problem.field, problem.field))
        for problem in run_problems(fill, **numbers)
    ]
    if problems or config is None or market is None:
        raise ConfigError(problems)
    return ExactRun(config=config, market=market, fill=fill, **numbers)


def exact_records(
    record: npt.NDArray[np.void], market: Market, columns: Mapping[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.void]:
    """Return many runs that differ from one in some parameters: EXACT_DTYPE, shape (n,).

    ``record`` is that one's, on ``market``; ``columns`` are values by flat name, shape (n,) each,
    within the ranges of a config (not checked here: whoever draws them has checked his ranges);
    counts are rounded, switches 1 or 0.
    """
    out = np.repeat(record, len(next(iter(columns.values()))))
    parts = (out["strategy"], out["flow"], out)
    for name, values in columns.items():
        field = "do_short" if name == "do_shrt" else name
        owner = next(part for part in parts if field in (part.dtype.names or ()))
        owner[field] = np.rint(values) if owner.dtype[field].kind == "i" else values
    if "leverage" in columns:
        out["venue_leverage"] = np.ceil(columns["leverage"])
        out["market"]["notional_cap"] = [
            market.notional_cap(leverage) for leverage in out["venue_leverage"].tolist()
        ]
    return out


def config_from_flat(
    settings: Mapping[str, Any], *, config_name: str = "flat_settings", symbol: str = "ANY"
) -> Config:
    """Return the config that flat settings describe; switches may be the numbers 1 and 0.

    Raises
    ------
    ConfigError
        Naming every setting that is missing or out of range, by its flat name.
    """
    document: dict[str, Any] = {"config_name": config_name, "symbol": symbol}
    document["indicator_settings"] = {"tick_ema": {}}
    for name in Config.model_fields:
        if name in settings and name != "indicator_settings":
            document[name] = _flag(name, settings[name])
    for name, (*parents, leaf) in _NESTED.items():
        owner = document
        for parent in parents:
            owner = owner[parent]
        if name in settings:
            owner[leaf] = _flag(name, settings[name])
    flat_names = {".".join(path): name for name, path in _NESTED.items()}
    try:
        return Config.model_validate(document)
    except ConfigError as e:
        raise ConfigError(
            [
                Problem(flat_names.get(p.field, p.field), p.value, p.message, p.remedy)
                for p in e.problems
            ]
        ) from None


def _flag(name: str, value: Any) -> Any:
    # Optimizer candidates carry switches as numbers.
    return bool(value) if name in _FLAGS and is_number(value) and value in (0, 1) else value


# --- compat -----------------------------------------------------------------------------------


def compat_record(settings: Mapping[str, Any]) -> npt.NDArray[np.void]:
    """Return flat settings as the compat engine takes them: COMPAT_DTYPE, shape (1,).

    Types and finiteness are checked only: old files break the ranges of today's configs and must
    still run.

    Raises
    ------
    ConfigError
        Naming every setting that is missing or unusable.
    """
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


def compat_records(
    record: npt.NDArray[np.void], columns: Mapping[str, npt.NDArray[np.float64]]
) -> npt.NDArray[np.void]:
    """Return many runs that differ from ``record`` in some parameters: COMPAT_DTYPE, shape (n,).

    ``columns`` as `exact_records` takes them.
    """
    out = np.repeat(record, len(next(iter(columns.values()))))
    for name, values in columns.items():
        out["do_short" if name == "do_shrt" else name] = values
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
