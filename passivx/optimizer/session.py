"""A session, from its settings to its files: windows searched, the best written, and its worth."""

from __future__ import annotations

import heapq
import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from passivx._core.types import FUNDING_DTYPE
from passivx.backtesting import Trial, Trials, backtest_flat
from passivx.data.columns import TEMPORARY, columns_folder, open_columns, write_columns
from passivx.data.funding import FundingSource, load_funding
from passivx.data.ticks import Ticks
from passivx.errors import ConfigError, DataError, PassivxError, Problem
from passivx.files import atomic_write
from passivx.optimizer.criteria import DONE
from passivx.optimizer.journal import RESULTS, Journal
from passivx.optimizer.search import Progress, Search
from passivx.optimizer.settings import Settings
from passivx.optimizer.space import Values
from passivx.optimizer.walk_forward import Window, efficiency
from passivx.optimizer.workers import Evaluator, Job, Local, Pool, Work

__all__ = ["OptimizeResult", "check_session_folder", "optimize"]

SESSION: Final = "session.json"
BEST: Final = ("best_result.json", "best_settings.json", "live_config.json")
WALK_FORWARD: Final = "walk_forward.json"
TRADES: Final = "backtest_trades"

# How many of the best get their trades written.
_TRADES_OF: Final = 3
# A neighbour holds when it keeps this share of the best one's advantage over doing nothing; below
# the same share of holding neighbours, or of growth out of sample, there is a warning.
_HOLDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class OptimizeResult:
    """What a session found.

    Attributes
    ----------
    folder : Path
        Where its files are.
    best : dict or None
        The best result that met every criterion and made money: its line of results.jsonl. Of a
        walk-forward, the last window's.
    highest : dict or None
        The best result that met every criterion; one that made money before one that did not.
    parameters : tuple of str
        Which of its fields are the parameters searched.
    n_iterations, n_evaluated : int
        Proposals, and different candidates among them.
    evaluations_per_s : float
        Of this process; candidates that the journal knew do not count.
    rejects : dict
        Candidates by the criterion that rejected them, most first.
    stability, walk_forward : dict or None
        As in the files: docs/optimize.md.
    warnings : tuple of str
        What to think about before believing any of it.
    """

    folder: Path
    objective: str
    best: dict[str, Any] | None
    highest: dict[str, Any] | None
    parameters: tuple[str, ...]
    n_iterations: int
    n_evaluated: int
    evaluations_per_s: float
    rejects: dict[str, int]
    stability: dict[str, Any] | None
    walk_forward: dict[str, Any] | None
    warnings: tuple[str, ...]


def optimize(
    ticks: Ticks,
    settings: Settings,
    folder: Path | str,
    *,
    jobs: int = 1,
    resume: bool = False,
    funding: FundingSource | None = None,
    watch: Callable[[Progress], object] | None = None,
) -> OptimizeResult:
    """Search for the settings that would have done best on these ticks.

    Parameters
    ----------
    ticks : Ticks
        With several jobs, ticks that are not mapped by `open_columns` are written into ``folder``
        for as long as the session runs.
    settings : Settings
        Of `load_settings`.
    folder : path
        Where the session's files go; docs/optimize.md lists them.
    jobs : int
        Processes that run candidates; 1: this one runs them. The results do not depend on it.
    resume : bool
        Go on with the session in ``folder``, if there is one.
    funding
        What `load_funding` takes; ``exact`` only.
    watch : callable
        Called with the `Progress`, the same object every time, after every few results.

    Raises
    ------
    ConfigError
        If the settings do not fit the ticks, or are not those of the session to be resumed.
    PassivxError
        If ``folder`` holds a session and ``resume`` is not set, another process is at it, it
        cannot be written, or workers keep dying.
    """
    if jobs < 1:
        raise ConfigError([Problem("jobs", jobs, "must be at least 1")])
    return _Session(ticks, settings, Path(folder), funding, watch).run(jobs, resume)


def check_session_folder(folder: Path, *, resume: bool) -> None:
    """Raise what `optimize` would refuse the folder for, before the ticks are read."""
    held = [name for name in (SESSION, RESULTS, *BEST) if (folder / name).exists()]
    if held and not resume:
        raise PassivxError(
            f"{folder} holds a session already ({held[0]}): --resume goes on with it, --out DIR or "
            "another session_name starts a new one"
        )


class _Session:
    def __init__(
        self,
        ticks: Ticks,
        settings: Settings,
        folder: Path,
        funding: FundingSource | None,
        watch: Callable[[Progress], object] | None,
    ) -> None:
        file = settings.file
        self._ticks, self._settings, self._folder = ticks, settings, folder
        self._watch = watch if watch is not None else lambda progress: None
        self._funding = np.zeros(0, FUNDING_DTYPE) if funding is None else load_funding(funding)
        if not len(ticks):
            raise DataError("there are no ticks to replay")
        self._windows = [Window(0, 0, len(ticks), len(ticks))]
        if settings.walk_forward is not None:
            self._windows = settings.walk_forward.windows(ticks.ts_ms)
        self._how: dict[str, Any] = {
            "engine": file.engine,
            "method": file.method,
            "fill": file.fill,
            "queue_share": file.queue_share,
            "funding": self._funding if len(self._funding) else None,
        }
        self._arguments: dict[str, Any] = {
            **self._how,
            "settings": settings.base,
            "market": settings.market,
            "names": settings.space.names,
            "starting_balance": file.starting_balance,
            "latency_ms": file.latency_simulation_ms,
            "cancel_latency_ms": file.cancel_latency_ms,
            "break_on": settings.rules,
            "limits": settings.criteria.record(),
        }
        self._search: Search | None = None  # under way
        self._no_config: str | None = None  # why the best one has none
        # Refuses what does not go together, before anything is written: of a switch, both ways.
        space = settings.space
        for values in (
            settings.base,
            settings.base | space.as_dict(space.clamp(space.high.copy())),
        ):
            Trials(ticks, **self._arguments | {"settings": values})
        self._progress = Progress(file.starting_k, file.n_jackrabbit_iterations, len(self._windows))

    # --- the whole ----------------------------------------------------------------------------

    def run(self, jobs: int, resume: bool) -> OptimizeResult:
        folder = self._folder
        check_session_folder(folder, resume=resume)
        # The standard library's JSON: whatever whole number a settings file holds, it keeps.
        manifest = json.loads(json.dumps(self._manifest()))
        finished = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_manifest(folder, manifest)
            self._journal = Journal(folder)
            try:
                atomic_write(folder / SESSION, json.dumps(manifest, indent=2) + "\n")
                mapped = columns_folder(self._ticks)
                for old in folder.resolve().glob(f"{TEMPORARY}*"):
                    if old != mapped:  # of a process that was killed
                        shutil.rmtree(old, ignore_errors=True)
                for torn in folder.rglob(".*.tmp"):  # `files.atomic_write`'s, of the same
                    torn.unlink(missing_ok=True)
                result = self._run(jobs)
                finished = True
            finally:
                self._journal.close(finished=finished)
        except OSError as e:
            raise PassivxError(f"{e.filename or folder}: cannot be written ({e.strerror})") from e
        return result

    def _run(self, jobs: int) -> OptimizeResult:
        best: dict[str, Any] | None = None
        stability: dict[str, Any] | None = None
        rows: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=self._folder) as place:
            self._evaluator = self._make_evaluator(jobs, Path(place))
            try:
                for window in self._windows:
                    best = self._best_of(window)
                    if self._settings.walk_forward is not None:
                        rows.append(self._both_sides(window, best))
                        atomic_write(self._folder / WALK_FORWARD, _json(self._walk(rows)))
                if best is not None:
                    stability = self._stability(window, best)
                    outside = rows[-1]["out_of_sample"] if rows else None
                    self._write_best(best, stability=stability, out_of_sample=outside)
                    self._write_trades(window)
            finally:
                done = self._evaluator.close()
                if self._search is not None:
                    self._search.stop(done)
        walk = self._walk(rows) if rows else None
        progress = self._progress
        return OptimizeResult(
            folder=self._folder,
            objective=self._settings.file.objective,
            best=best,
            highest=progress.best,
            parameters=self._settings.space.names,
            n_iterations=progress.n_iterations,
            n_evaluated=len(self._journal),
            evaluations_per_s=progress.per_second,
            rejects=dict(progress.rejects.most_common()),
            stability=stability,
            walk_forward=walk,
            warnings=tuple(self._warnings(best, stability, walk)),
        )

    def _make_evaluator(self, jobs: int, place: Path) -> Evaluator:
        work = Work(self._arguments)
        if jobs == 1:
            return Local(work, self._ticks)
        mapped = columns_folder(self._ticks)
        if mapped is None:
            write_columns(self._ticks, place)
            mapped, self._ticks = place, open_columns(place)
        return Pool(work, mapped, jobs)

    def _manifest(self) -> dict[str, Any]:
        """Return what must be the same for a session to be resumed."""
        settings, ticks = self._settings, self._ticks
        return {
            "passivx_version": version("passivx"),
            "settings": settings.file.model_dump(mode="json"),
            "base": dict(settings.base),
            "starting_candidates": settings.starts.tolist(),
            "market": json.loads(settings.market.to_json()),
            "ticks": {
                "rows": len(ticks),
                "sha256": replace(ticks, trade_id=None).sha256(),
                "first_ts_ms": int(ticks.ts_ms[0]),
                "last_ts_ms": int(ticks.ts_ms[-1]),
            },
            "funding": self._funding.tolist(),
        }

    def _warnings(
        self,
        best: dict[str, Any] | None,
        stability: dict[str, Any] | None,
        walk: dict[str, Any] | None,
    ) -> list[str]:
        out = [
            f"{name}: the last line was torn, by a kill or a full disk: cut off, and its candidate "
            "run again"
            for name in self._journal.torn
        ]
        if walk is not None and walk["n_windows_with_a_best"]:
            left = walk["efficiency"]
            if left is None or left < _HOLDS:
                share = "nothing" if left is None or left <= 0.0 else f"{left:.0%}"
                out.append(
                    f"in- and out-of-sample part: {share} of the daily growth in sample was left "
                    "out of sample; what looks good here was found in noise"
                )
        if stability is not None and stability["n_neighbours"]:
            holding, n = stability["n_holding"], stability["n_neighbours"]
            if holding < _HOLDS * n:
                out.append(
                    f"the best stands alone: only {holding} of {n} neighbours keep half of its "
                    "advantage; a small change of the market may do as much"
                )
        if best is not None and self._settings.file.engine == "compat":
            text = "compat flatters, the README says how: backtest live_config.json with exact"
            if best["final_equity"] <= best["starting_balance"]:
                text += "; with its open position the best one ends below the starting balance"
            out.append(text)
        if self._no_config is not None:
            out.append(self._no_config)
        if best is not None:
            space = self._settings.space
            edges = [
                name
                for name, each in space.ranges.items()
                if each.low < each.high and best[name] in (each.low, each.high)
            ]
            if edges:
                out.append(f"at the end of its range: {', '.join(edges)}: should it be wider?")
        return out

    # --- windows ------------------------------------------------------------------------------

    def _best_of(self, window: Window) -> dict[str, Any] | None:
        """Return the best line of a window; None when nothing that met the criteria made money."""
        live = window is self._windows[-1]  # the one whose best is there to be traded

        def found(best: dict[str, Any]) -> None:
            if live and _profitable(best):
                self._write_best(best)

        self._search = Search(
            self._settings,
            window,
            journal=self._journal,
            evaluator=self._evaluator,
            progress=self._progress,
            watch=self._watch,
            found=found,
        )
        best = self._search.run()
        self._search = None
        return best if best is not None and _profitable(best) else None

    def _both_sides(self, window: Window, best: dict[str, Any] | None) -> dict[str, Any]:
        """Return a window's figures in and out of sample; criteria end nothing out of it."""
        inside = self._span(window.first, window.middle)
        outside = self._span(window.middle, window.end)
        row: dict[str, Any] = {"window": window.number, "key": None}
        if best is not None:
            values = self._values_of(best)
            job = Job(None, values, window.middle, window.end, limited=False)
            (trial,) = self._evaluate([job])
            outside |= {"outcome": trial.outcome, **trial.figures}
            if trial.figures:  # else it took its worker with it, twice
                row |= {"key": best["key"], "parameters": self._settings.space.as_dict(values)}
                inside |= {name: best[name] for name in trial.figures}
        return row | {"out_of_sample": outside, "in_sample": inside}

    def _span(self, first: int, end: int) -> dict[str, Any]:
        ts_ms = self._ticks.ts_ms
        return {"start_ms": int(ts_ms[first]), "end_ms": int(ts_ms[end - 1])}

    def _walk(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        done = [row for row in rows if row["key"] is not None]
        inside = [row["in_sample"] for row in done]
        outside = [row["out_of_sample"] for row in done]
        return {
            "walk_forward": self._settings.file.walk_forward,
            "n_windows": len(rows),
            "n_windows_with_a_best": len(done),
            "out_of_sample_gain": math.prod(each["gain"] for each in outside),
            "efficiency": efficiency(inside, outside),
            "windows": rows,
        }

    def _stability(self, window: Window, best: dict[str, Any]) -> dict[str, Any]:
        """Return what the best one's neighbours are worth, parameter by parameter."""
        criteria, space = self._settings.criteria, self._settings.space
        beside = list(space.neighbours(self._values_of(best)))
        jobs = [Job(None, point, window.first, window.middle) for _, point in beside]
        least = _HOLDS * criteria.advantage(best["objective"])
        rows = []
        for (name, point), trial in zip(beside, self._evaluate(jobs), strict=True):
            status = criteria.status(trial)
            score = criteria.score(trial.figures) if status == DONE else None
            row: dict[str, Any] = {
                "parameter": name,
                "value": space.as_dict(point)[name],
                "objective": score,
                "status": status,
                "holds": score is not None and criteria.advantage(score) >= least,
            }
            rows.append(row)
        holding = sum(bool(row["holds"]) for row in rows)
        return {
            "n_neighbours": len(rows),
            "n_holding": holding,
            "share_holding": holding / len(rows) if rows else None,
            "neighbours": rows,
        }

    def _evaluate(self, jobs: list[Job]) -> list[Trial]:
        """Run jobs outside of the search; return their trials in order."""
        for job in jobs:
            self._evaluator.submit(job)
        done: dict[Job, Trial] = {}
        while not all(job in done for job in jobs):
            # A job that the search began and had no use for may come back as well.
            done.update(self._evaluator.results())
        return [done[job] for job in jobs]

    def _values_of(self, line: dict[str, Any]) -> Values:
        return np.array([line[name] for name in self._settings.space.names], np.float64)

    # --- files --------------------------------------------------------------------------------

    def _write_best(self, best: dict[str, Any], **more: Any) -> None:
        contents = [_json(best | more).decode()]
        try:
            config = self._settings.config_of(self._values_of(best))
            contents += [config.to_json(), config.to_live_json()]
        except ConfigError as e:
            # compat also runs what no config may hold.
            self._no_config = f"no live_config.json: {'; '.join(map(str, e.problems))}"
        for name, content in zip(BEST, contents, strict=False):
            atomic_write(self._folder / name, content)

    def _write_trades(self, window: Window) -> None:
        """Write the fills of the best few, a table each, named by key."""
        folder = self._folder / TRADES
        folder.mkdir(exist_ok=True)
        lines = (line for line in self._journal.lines() if line.get("window", 0) == window.number)
        earning = (line for line in lines if line["objective"] is not None and _profitable(line))
        best = heapq.nsmallest(_TRADES_OF, earning, lambda line: (-line["objective"], line["k"]))
        file, space = self._settings.file, self._settings.space
        flat = {
            **self._settings.base,
            **asdict(self._settings.market),
            "starting_balance": file.starting_balance,
        }
        for name in ("latency_simulation_ms", "cancel_latency_ms"):
            if getattr(file, name) is not None:
                flat[name] = getattr(file, name)
        ticks = self._ticks[window.first : window.middle]
        for line in best:
            candidate = flat | {name: line[name] for name in space.names}
            result = backtest_flat(ticks, candidate, break_on=self._settings.rules, **self._how)
            atomic_write(folder / f"{line['key']}.csv", result.fills_csv())


def _profitable(line: dict[str, Any]) -> bool:
    return bool((line["gain"] or 0.0) > 1.0)


def _json(value: Any) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(value, option=options)


def _check_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise ConfigError naming what differs from the session in ``folder``, if there is one."""
    path = folder / SESSION
    if not path.exists():
        if (folder / RESULTS).exists() and (folder / RESULTS).stat().st_size:
            raise PassivxError(f"{folder} holds results without {SESSION}: choose another folder")
        return
    try:
        before = json.loads(path.read_bytes())
    except ValueError as e:
        raise PassivxError(f"{path}: is no session ({e})") from e
    problems = [
        Problem(name, is_now, f"was {was!r} in the session to be resumed", "start a new session")
        for name, was, is_now in _differences(before, manifest)
    ]
    if problems:
        raise ConfigError(problems, path)


def _differences(before: Any, now: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            found
            for name in sorted(before.keys() | now.keys())
            for found in _differences(
                before.get(name), now.get(name), f"{path}.{name}" if path else name
            )
        ]
    return [] if before == now else [(path, before, now)]
