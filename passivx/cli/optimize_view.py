"""What `passivx optimize` shows: where the search is, and what came of it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from passivx.cli.output import console, note
from passivx.optimizer.criteria import OBJECTIVES
from passivx.optimizer.search import Progress
from passivx.optimizer.session import OptimizeResult
from passivx.optimizer.settings import Settings
from passivx.report.render import number, summary_table

__all__ = ["report_search", "watching"]

# How often a terminal is redrawn, and how often a log gets a line.
_REDRAW_S = 0.3
_LINE_S = 10.0


@contextlib.contextmanager
def watching(title: str, session: Settings) -> Iterator[Callable[[Progress], None]]:
    """Show a search while it goes on: a live table on a terminal, else a line now and then."""
    objective = session.file.objective
    if not sys.stderr.isatty():
        note(title)
        last = time.monotonic()

        def say(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_S:
                last = time.monotonic()
                note(_line(progress, objective))

        yield say
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        drawn = -_REDRAW_S

        def draw(progress: Progress) -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= _REDRAW_S:
                drawn = time.monotonic()
                live.update(_picture(title, progress, objective), refresh=True)

        yield draw


def _line(progress: Progress, objective: str) -> str:
    return " · ".join(f"{name} {value}" for name, value in _facts(progress, objective))


def _picture(title: str, progress: Progress, objective: str) -> Group:
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(progress, objective):
        table.add_row(Text(name, "dim"), Text(value))
    bar = ProgressBar(total=1.0, completed=progress.share, width=60)
    return Group(Text(title, "bold"), table, bar)


def _facts(progress: Progress, objective: str) -> Iterator[tuple[str, str]]:
    if progress.windows > 1:
        yield "window", f"{progress.window} of {progress.windows}"
    yield "k", f"{progress.k:,} of {progress.end_k:,}"
    yield "m", f"{progress.m:.4f}"
    known = f", {progress.n_known:,} known" if progress.n_known else ""
    yield "run", f"{progress.n_run:,} ({progress.per_second:,.1f}/s{known})"
    best = progress.best
    yield "best", "none yet" if best is None else _best_text(best, objective)
    rejects = progress.rejects.most_common(4)
    yield "rejects", ", ".join(f"{name} {n:,}" for name, n in rejects) or "none"
    eta_s = progress.eta_s
    yield "ETA", "–" if eta_s is None else str(timedelta(seconds=round(eta_s)))


def _best_text(best: dict[str, Any], objective: str) -> str:
    text = f"{objective} {number(best['objective'], 6)} at k {best['k']:,}"
    return text if objective == "gain" else f"{text}, gain {number(best['gain'], 6)}"


def report_search(result: OptimizeResult, session: Settings) -> None:
    """Print what a session found, what it was worth out of sample first."""
    screen = console()
    file = session.file
    screen.print(f"[bold]{file.session_name} · {file.symbol} · {file.engine}[/]")
    pace = f"{result.evaluations_per_s:,.1f} run a second"
    screen.print(
        f"{result.n_iterations:,} iterations, {result.n_evaluated:,} candidates, "
        f"{pace if result.evaluations_per_s else 'all of them known before'}"
    )
    walk = result.walk_forward
    if walk is not None:
        screen.print(_windows_table(walk))
        left = walk["efficiency"]
        screen.print(
            f"out of sample, one window after the other: gain {number(walk['out_of_sample_gain'])}"
            f"; of the daily growth in sample {'nothing' if left is None else f'{left:.0%}'} left"
        )
    if result.best is None:
        screen.print(_nothing_found(result))
    else:
        sides = {"in sample": result.best}
        if walk is not None:
            sides = {"out of sample": walk["windows"][-1]["out_of_sample"], **sides}
        screen.print(summary_table(sides))
        screen.print(_parameters_table(result, session))
        if result.stability is not None and result.stability["n_neighbours"]:
            stability = result.stability
            screen.print(
                f"stability: {stability['n_holding']} of {stability['n_neighbours']} neighbours "
                "keep at least half of its advantage"
            )
    if result.rejects:
        rejects = ", ".join(f"{name} {n:,}" for name, n in result.rejects.items())
        screen.print(f"rejected by: {rejects}", soft_wrap=True)
    for warning in result.warnings:
        note(f"warning: {warning}")
    if result.best is not None and walk is None:
        note(
            "in sample only: --walk-forward shows what such a search is worth on days it never saw"
        )
    note(f"results in {result.folder}")
    live = result.folder / "live_config.json"
    if result.best is not None and live.exists():
        note(f"the best one as a config: {live}")


def _nothing_found(result: OptimizeResult) -> str:
    text = "Nothing profitable met the criteria"
    if result.rejects:
        name, n = next(iter(result.rejects.items()))
        text += f": {name} rejected most, {n:,} of {result.n_evaluated:,} candidates"
    if result.highest is not None:
        gain, fills = number(result.highest["gain"], 6), result.highest["n_trades"]
        text += f"; the best of those left ended at gain {gain} with {fills:,} fills"
    return text


def _windows_table(walk: dict[str, Any]) -> Table:
    table = Table("window", "out of sample", "gain", "per day", "drawdown", "in sample", "gain")
    table.add_column("per day")
    for row in walk["windows"]:
        outside, inside = row["out_of_sample"], row["in_sample"]
        cells = [str(row["window"]), _dates(outside)]
        if row["key"] is None:
            cells += ["nothing found", "", "", _dates(inside), "", ""]
        else:
            cells += [_percent(outside["gain"]), _percent(outside["average_daily_gain"])]
            cells += [f"{outside.get('max_drawdown', 0.0):.2%}", _dates(inside)]
            cells += [_percent(inside["gain"]), _percent(inside["average_daily_gain"])]
        table.add_row(*cells)
    return table


def _parameters_table(result: OptimizeResult, session: Settings) -> Table:
    objective = session.file.objective
    table = Table("parameter", "value", "range", f"{objective} below", f"{objective} above")
    assert result.best is not None
    beside: dict[str, list[dict[str, Any]]] = {}
    for row in (result.stability or {}).get("neighbours", []):
        beside.setdefault(row["parameter"], []).append(row)
    for name, each in session.space.ranges.items():
        value = result.best[name]
        sides = ["", ""]
        for row in beside.get(name, []):
            score = row["objective"]
            text = row["status"] if score is None else number(score, 6)
            sides[row["value"] > value] = text
        ends = dict.fromkeys((each.low, each.high))
        table.add_row(name, number(value), " – ".join(map(number, ends)), *sides)
    table.add_section()
    score = number(result.best["objective"], 6)
    table.add_row(objective, score, f"{OBJECTIVES[objective][1]:g} = doing nothing")
    return table


def _percent(ratio: float | None) -> str:
    return "∞" if ratio is None else f"{ratio - 1.0:+.2%}"


def _dates(span: dict[str, Any]) -> str:
    first, last = (
        datetime.fromtimestamp(span[name] / 1000.0, UTC) for name in ("start_ms", "end_ms")
    )
    if last - first >= timedelta(days=2):
        return f"{first:%Y-%m-%d} – {last:%m-%d}"
    day = "" if last.date() == first.date() else f"{last:%m-%d} "
    return f"{first:%Y-%m-%d %H:%M} – {day}{last:%H:%M}"
