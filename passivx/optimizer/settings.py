"""Settings of a session: the original's backtest HJSON, checked strictly, every problem at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from passivx.backtesting import ENGINES
from passivx.breaks import BreakRules, compile_break_on
from passivx.candidates import (
    PARAMETERS,
    config_from_flat,
    is_count,
    is_switch,
    parameter_fault,
    with_defaults,
)
from passivx.config import Config, load_config
from passivx.documents import (
    Checking,
    Name,
    Number,
    is_number,
    load_document,
    problems_of,
    read_document,
)
from passivx.errors import ConfigError, Problem, nearest
from passivx.models import Market, load_market, step_parts
from passivx.optimizer.criteria import OBJECTIVES, Criteria, read_limits
from passivx.optimizer.samplers import SAMPLERS
from passivx.optimizer.space import Range, Space, Values
from passivx.optimizer.walk_forward import WalkForward, read_walk_forward
from passivx.workspace import find_market

__all__ = ["Settings", "SettingsFile", "load_settings"]

# Old files carry these; nothing reads them. Jobs are the command line's business, keys nobody's.
_UNUSED: Final = ("user", "multiprocessing", "n_particles", "iters")

# What the names of perpetuals end in, venue by venue: a misspelt one would run for a night under
# a name that no bot could trade.
_SYMBOLS: Final = {
    "binance": r"[A-Z0-9]+(USDT|USDC|BUSD|FDUSD|BTC|ETH|USD_PERP)",
    "bybit": r"[A-Z0-9]+(USD|USDT|USDC|PERP|USD[HMUZ][0-9]{2})",
}


def _null_is_absent(value: Any) -> Any:
    return "" if value is None else value


class SettingsFile(BaseModel):
    """The fields of a settings file, the original's first."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    session_name: Name = Field(description="Names the session and its folder")
    exchange: Literal["binance", "bybit"] = Field(description="The venue")
    symbol: Name = Field(description="The perpetual, as the venue writes it")
    n_days: Annotated[float, Number("(0, 36500]")] | None = Field(
        None,
        description="Use the last so many days of the ticks, when neither start nor end is set",
    )
    starting_candidate_filepath: Annotated[str, BeforeValidator(_null_is_absent)] = Field(
        "", description="A live config, a result, or a folder of them, to try first"
    )
    starting_k: Annotated[int, Number("[0, 1000000000]")] = Field(
        0, description="The iteration to begin with: later ones hop less far"
    )
    n_jackrabbit_iterations: Annotated[int, Number("[1, 1000000000]")] = Field(
        1000, description="The iteration to end before"
    )
    latency_simulation_ms: Annotated[float, Number("[0, 86400000]")] | None = Field(
        None, description="exact: how long a message takes (100); compat: least time between fills"
    )
    starting_balance: Annotated[float, Number("(0, 1e300]")] = Field(
        description="Wallet at the start, settle currency"
    )
    break_on: Any = Field((), description="Conditions that end a run: docs/break_on.md")
    ranges: Any = Field(description="{ name: [low, high, step] } for every parameter searched")
    engine: Literal["exact", "compat"] = Field(
        "exact", description="exact: the bot itself; compat: the original's backtester"
    )
    method: Literal["auto", "scan"] = Field("auto", description="How the engine gets there")
    start: Any = Field(None, description="First UTC day (YYYY-MM-DD) or instant of the ticks")
    end: Any = Field(None, description="Last UTC day, included, or the instant to stop before")
    seed: Annotated[int, Number("[0, 9007199254740991]")] = Field(
        0, description="The same seed and data give the same session"
    )
    objective: str = Field("adg", description="What is made as high as possible")
    limits: Any = Field(default_factory=dict, description="Bounds on figures of a run")
    walk_forward: str | None = Field(
        None, description="IS/OOS/STEP: lengths in days, or with a unit: 30d, 12h, 45m"
    )
    generation: Annotated[int, Number("[1, 10000]")] = Field(
        16, description="Candidates proposed at a time; 1 is the original's sequence"
    )
    sampler: str = Field("jackrabbit", description="Who proposes them")
    fill: Literal["cross", "touch", "volume"] = Field(
        "cross", description="exact: when orders fill"
    )
    queue_share: Annotated[float, Number("[0, 1]")] = Field(
        0.0, description="fill volume: share of a print at an order's price"
    )
    cancel_latency_ms: Annotated[float, Number("[0, 86400000]")] | None = Field(
        None, description="exact: how long a cancel takes, when it is not the latency"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """A session, ready to run.

    ``base`` is every strategy parameter that has no default by its flat name, the searched ones
    with a value of their range; ``starts`` the points to try first, shape (s, p); ``notes`` what
    deserves a look.
    """

    file: SettingsFile
    market: Market
    space: Space
    criteria: Criteria
    rules: BreakRules
    base: dict[str, Any]
    starts: Values
    walk_forward: WalkForward | None
    notes: tuple[str, ...] = ()

    def config_of(self, values: Values) -> Config:
        """Return the live config of a point."""
        flat = {**self.base, **self.space.as_dict(values)}
        # compat may search beyond: the original's bot closed everything at min_markup then.
        flat["max_markup"] = max(flat["min_markup"], flat["max_markup"])
        return config_from_flat(flat, config_name=self.file.session_name, symbol=self.file.symbol)


@dataclass(slots=True)
class _Reading:
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load_settings(
    source: Path | str | Mapping[str, Any],
    market: Market | None = None,
    *,
    workspace: Path = Path(),
    iterations: int | None = None,
    **changes: Any,
) -> Settings:
    """Load the settings of a session from an HJSON or JSON file, or a mapping of the same shape.

    Parameters
    ----------
    market : Market, optional
        Without it the workspace's ``markets/{exchange}_{symbol}.json``, or the example of that
        name, is taken.
    workspace : Path
        Where relative paths of the file begin, if they are not found from here.
    iterations : int, optional
        How many, instead of up to n_jackrabbit_iterations.
    changes
        Fields to use instead of the file's; None leaves one as it is.

    Raises
    ------
    ConfigError
        If the file cannot be read, or naming everything wrong with it.
    """
    path, document = load_document(source)
    document |= {name: value for name, value in changes.items() if value is not None}
    reading = _Reading()
    if unused := [name for name in _UNUSED if document.pop(name, None) is not None]:
        reading.notes.append(f"not used: {', '.join(unused)}")
    if iterations is not None:
        first = document.get("starting_k", 0)
        document["n_jackrabbit_iterations"] = iterations + (round(first) if is_number(first) else 0)
    try:
        settings = _read(document, market, workspace, reading)
    except ConfigError as e:
        raise ConfigError(e.problems, path) from None
    return settings


def _read(
    document: dict[str, Any], market: Market | None, workspace: Path, reading: _Reading
) -> Settings:
    file: SettingsFile | None = None
    try:
        file = SettingsFile.model_validate(document, context=Checking(notes=reading.notes))
        document |= file.model_dump(include={"starting_k", "n_jackrabbit_iterations"})
    except ValidationError as e:
        reading.problems += problems_of(e, SettingsFile)
    engine = document.get("engine", "exact")
    engine = engine if engine in ENGINES else "exact"
    _check_choices(document, engine, reading)
    if market is None:
        market = _market_of(document, workspace, reading)
    _check_symbol(document, reading)
    ranges = _ranges(document, engine, market, reading)
    rules = compile_break_on([])
    try:
        rules = compile_break_on(document.get("break_on", []))
        reading.notes += rules.warnings
    except ConfigError as e:
        reading.problems += e.problems
    limits, problems = read_limits(document.get("limits", {}), engine)
    reading.problems += problems
    walk_forward = None
    if isinstance(text := document.get("walk_forward"), str):
        walk_forward, problems = read_walk_forward(text)
        reading.problems += problems
    candidates = _starting_candidates(
        document.get("starting_candidate_filepath"), workspace, engine, list(ranges), reading
    )
    # A single file also says what the ranges leave out.
    rest = next(iter(candidates.values())) if len(candidates) == 1 else {}
    if engine == "exact":
        _order_markups(ranges, rest, reading)
    space = Space(ranges, ordered=engine == "exact")
    base = with_defaults({**rest, **space.as_dict(space.clamp(space.low.copy()))}, engine)
    if space.names:
        _check_rest(base, engine, space, reading)
    if reading.problems or file is None or market is None:
        raise ConfigError(reading.problems)
    return Settings(
        file=file,
        market=market,
        space=space,
        criteria=Criteria(file.objective, limits),
        rules=rules,
        base=base,
        starts=_starts(candidates, space, reading),
        walk_forward=walk_forward,
        notes=tuple(reading.notes),
    )


def _check_choices(document: Mapping[str, Any], engine: str, reading: _Reading) -> None:
    objectives = ("gain", "adg") if engine == "compat" else tuple(OBJECTIVES)
    for name, choices in (("objective", objectives), ("sampler", tuple(SAMPLERS))):
        chosen = document.get(name, choices[0])
        if isinstance(chosen, str) and chosen not in choices:
            of_engine = f" for {engine}" if name == "objective" else ""
            wanted = f"must be one of {', '.join(choices)}{of_engine}"
            reading.problems.append(Problem(name, chosen, wanted))
    first, end = document.get("starting_k", 0), document.get("n_jackrabbit_iterations", 1000)
    if is_number(first) and is_number(end) and first >= end:
        remedy = f"the iterations run from starting_k ({first}) to it"
        wanted = "must be above starting_k"
        reading.problems.append(Problem("n_jackrabbit_iterations", end, wanted, remedy))
    if engine == "compat":
        for name, usual in (("fill", "cross"), ("queue_share", 0), ("cancel_latency_ms", None)):
            if document.get(name, usual) not in (usual, None):
                message = "is for the exact engine"
                problem = Problem(name, document[name], message, "leave it out")
                reading.problems.append(problem)
    elif document.get("queue_share") and document.get("fill") != "volume":
        message, remedy = "is for fill 'volume' only", "choose that, or leave it out"
        reading.problems.append(Problem("queue_share", document["queue_share"], message, remedy))


def _check_symbol(document: Mapping[str, Any], reading: _Reading) -> None:
    exchange, symbol = document.get("exchange"), document.get("symbol")
    if isinstance(exchange, str) and exchange in _SYMBOLS and isinstance(symbol, str):
        if re.fullmatch(_SYMBOLS[exchange], symbol):
            return
        known = "BTCUSDT" if exchange == "binance" else "BTCUSD"
        message = f"is no perpetual of {exchange}"
        reading.problems.append(
            Problem("symbol", symbol, message, f"write it as the venue does, such as {known}")
        )


def _market_of(document: Mapping[str, Any], workspace: Path, reading: _Reading) -> Market | None:
    exchange, symbol = document.get("exchange"), document.get("symbol")
    if not (isinstance(exchange, str) and isinstance(symbol, str)):
        return None
    path = find_market(exchange, symbol, workspace)
    if path is None:
        message = f"has no file markets/{exchange}_{symbol}.json, and its rules are never guessed"
        reading.problems.append(Problem("symbol", symbol, message, "give --market FILE"))
        return None
    try:
        market = load_market(path)
    except ConfigError as e:
        reading.problems += [
            Problem(f"{path}: {p.field}".removesuffix(": "), *_rest_of(p)) for p in e.problems
        ]
        return None
    reading.notes.append(f"market rules of {path}")
    return market


def _ranges(
    document: Mapping[str, Any], engine: str, market: Market | None, reading: _Reading
) -> dict[str, Range]:
    given = document.get("ranges")
    if not isinstance(given, Mapping):
        if "ranges" in document:
            message = "must be an object { name: [low, high, step] }"
            reading.problems.append(Problem("ranges", _shown(given), message))
        return {}
    if not given:
        reading.problems.append(Problem("ranges", None, "is empty", "name what is to be searched"))
    ranges = {}
    for name, value in given.items():
        where = f"ranges.{name}"
        if name not in PARAMETERS[engine]:
            other = name in PARAMETERS["exact"] + PARAMETERS["compat"]
            message = f"is no parameter of {engine}" if other else "is not a known parameter"
            hint = "remove it" if other else nearest(str(name), PARAMETERS[engine])
            reading.problems.append(Problem(where, None, message, hint))
            continue
        read = _range(where, name, value, engine, reading)
        if read is not None:
            ranges[name] = read
    if market is not None and "leverage" in ranges:
        ranges["leverage"] = _allowed_leverage(ranges["leverage"], market, reading)
    return ranges


def _range(where: str, name: str, value: object, engine: str, reading: _Reading) -> Range | None:
    if not (isinstance(value, list | tuple) and len(value) == 3 and all(map(is_number, value))):
        message = "must be three finite numbers [low, high, step]"
        reading.problems.append(Problem(where, _shown(value), message))
        return None
    low, high, step = (float(number) for number in value)
    problems: list[tuple[str, str]] = []
    if low > high:
        problems.append(("must have low <= high", "swap them"))
    for end, number in (("low", low), ("high", high)):
        fault = parameter_fault(name, number, engine)
        if name == "ema_span" and number < 1.0:
            fault = "must be at least 1"
        if fault:
            problems.append((f"{end} {fault}", ""))
    try:
        step_parts(step)
    except ValueError:
        what = "must be > 0" if not step > 0.0 else "must be a plain decimal such as 0.01 or 1e-5"
        problems.append((f"step {what}", ""))
    if is_switch(name) and not problems and low < high and step != 1.0:
        problems.append(("step must be 1", "a switch is 0 or 1"))
    reading.problems += [Problem(where, list(value), *problem) for problem in problems]
    if problems:
        return None
    whole = (math.ceil(low), math.floor(high), max(1, round(step)))
    if not is_count(name) or engine == "compat" or whole == (low, high, step):
        return Range(low, high, step)
    if whole[0] > whole[1]:
        reading.problems.append(Problem(where, list(value), "holds no whole number"))
        return None
    reading.notes.append(f"{where}: it counts, so [{', '.join(map(str, whole))}] is searched")
    return Range(*map(float, whole))


def _order_markups(ranges: dict[str, Range], rest: Mapping[str, Any], reading: _Reading) -> None:
    """See to it that every min_markup has a max_markup to go with it."""
    least, most = ranges.get("min_markup"), ranges.get("max_markup")
    if least is not None and most is not None and least.low > most.high:
        message = f"lies above every max_markup ({most.high:g} at most)"
        reading.problems.append(Problem("ranges.min_markup", _listed(least), message))
    # Where only one is searched, the other is an end of its range.
    fixed = rest.get("max_markup")
    if least is not None and most is None and is_number(fixed) and least.high > fixed:
        if least.low > fixed:
            message = f"lies above max_markup ({fixed:g})"
            reading.problems.append(Problem("ranges.min_markup", _listed(least), message))
            return
        reading.notes.append(f"ranges.min_markup ends at max_markup ({fixed:g})")
        ranges["min_markup"] = replace(least, high=fixed)
    fixed = rest.get("min_markup")
    if most is not None and least is None and is_number(fixed) and most.low < fixed:
        if most.high < fixed:
            message = f"lies below min_markup ({fixed:g})"
            reading.problems.append(Problem("ranges.max_markup", _listed(most), message))
            return
        reading.notes.append(f"ranges.max_markup begins at min_markup ({fixed:g})")
        ranges["max_markup"] = replace(most, low=fixed)


def _listed(each: Range) -> list[float]:
    return [each.low, each.high, each.step]


def _shown(value: object) -> object:
    return "null" if value is None else value


def _allowed_leverage(given: Range, market: Market, reading: _Reading) -> Range:
    """Return the range cut off at what the venue allows, as the original does."""
    most = min([market.max_leverage, *(tier.max_leverage for tier in market.tiers[:1])])
    most = float(math.floor(most)) if math.isfinite(most) else most
    if given.high <= most:
        return given
    reading.notes.append(f"ranges.leverage ends at {most:g}: the market allows no more")
    return Range(min(given.low, most), most, given.step)


def _check_rest(base: Mapping[str, Any], engine: str, space: Space, reading: _Reading) -> None:
    """Report the parameters that have no value at all."""
    if engine == "compat":
        missing = [name for name in PARAMETERS[engine] if name not in base]
        problems = [Problem(name, None, "is missing") for name in missing]
    else:
        try:
            config_from_flat(base)
            return
        except ConfigError as e:
            # Where two ranges do not go together, that has been said.
            problems = [p for p in e.problems if p.field not in space.names]
    asked = {problem.field.removeprefix("ranges.") for problem in reading.problems}
    if asked & {"min_markup", "max_markup"}:
        asked |= {"min_markup", "max_markup"}  # wrong together
    reading.problems += [
        Problem(f"ranges.{p.field}", p.value, p.message, "fix it by [value, value, step]")
        for p in problems
        if p.field not in asked
    ]


def _starting_candidates(
    given: object, workspace: Path, engine: str, names: list[str], reading: _Reading
) -> dict[str, dict[str, Any]]:
    """Return the parameters of the candidates to try first, by file name."""
    where = "starting_candidate_filepath"
    if not isinstance(given, str) or not given:
        return {}
    try:
        path = next((p for p in (Path(given), workspace / given) if p.exists()), None)
        folder = path is not None and path.is_dir()
        files = sorted(path.glob("*.json")) if path is not None and folder else [path]
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        reading.problems.append(Problem(where, given, f"cannot be read ({reason})"))
        return {}
    if path is None:
        reading.notes.append(f"{where}: {given} does not exist: starting anywhere")
        return {}
    candidates = {}
    for file in filter(None, files):
        try:
            flat = _flat_of(file, engine)
            missing = [name for name in names if name not in flat]
            if missing:
                remedy = f"it has no {', '.join(missing)}"
                raise ConfigError([Problem("", None, "is no candidate for these ranges", remedy)])
            candidates[file.name] = flat
        except ConfigError as e:
            if folder:
                reading.notes.append(f"{where}: {file.name} is left out: {e.problems[0]}")
            else:
                reading.problems += [
                    Problem(f"{where} {file}: {p.field}".removesuffix(": "), *_rest_of(p))
                    for p in e.problems
                ]
    if folder and not candidates:
        reading.notes.append(f"{where}: {given} holds no candidate: starting anywhere")
    return candidates


def _starts(candidates: Mapping[str, Mapping[str, Any]], space: Space, reading: _Reading) -> Values:
    """Return the points of candidates, each once, moved into the ranges."""
    points: dict[str, Values] = {}
    for file, flat in candidates.items():
        values = np.array([float(flat[name]) for name in space.names])
        inside = space.clamp(values.copy())
        moved = [name for name, x, y in zip(space.names, values, inside, strict=True) if x != y]
        if moved:
            reading.notes.append(f"{file}: moved into the ranges: {', '.join(moved)}")
        points.setdefault(space.key(inside), inside)
    return np.array(list(points.values())).reshape(len(points), len(space.names))


def _flat_of(file: Path, engine: str) -> dict[str, Any]:
    """Return the parameters of a live config, or of a result, which is flat already."""
    document = read_document(file)
    if "indicator_settings" in document:
        # What is out of range is moved into the ranges, or said of what they leave out.
        flat = load_config(document, compat=True).to_flat()
    else:
        flat = dict(document)
    found = {name: _plain(flat[name]) for name in PARAMETERS["exact"] if name in flat}
    problems = [
        Problem(name, value, "must be a finite number")
        for name, value in found.items()
        if not is_number(value)
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, bool) else value


def _rest_of(problem: Problem) -> tuple[object, str, str]:
    return problem.value, problem.message, problem.remedy
