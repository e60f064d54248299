"""``passivx optimize``: search for the settings that would have done best."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import rich_click as click

from passivx.cli.optimize_view import report_search, watching
from passivx.cli.options import (
    funding_option,
    json_option,
    market_of,
    market_option,
    ticks_option,
    tiers_option,
    workspace_option,
)
from passivx.cli.output import note, print_json, working
from passivx.data.columns import mapped
from passivx.data.funding import load_funding
from passivx.data.ticks import Ticks, load_ticks
from passivx.errors import PassivxError
from passivx.optimizer.samplers import SAMPLERS
from passivx.optimizer.session import check_session_folder, optimize
from passivx.optimizer.settings import Settings, load_settings
from passivx.workspace import resolve_settings, session_folder

_DAY_MS = 86_400_000


def _processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@click.command()
@click.argument("settings")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=_processors,
    show_default="all processors",
    help="Processes that run candidates. The results do not depend on it.",
)
@ticks_option
@market_option(required=False)
@tiers_option
@funding_option
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the settings' seed.")
@click.option(
    "--iterations",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many, instead of up to the settings' n_jackrabbit_iterations.",
)
@click.option("--sampler", type=click.Choice(tuple(SAMPLERS)), help="Who proposes candidates.")
@click.option("--engine", type=click.Choice(("exact", "compat")), help="Instead of the settings'.")
@click.option(
    "--walk-forward",
    metavar="IS/OOS/STEP",
    help="Search on IS, see what the best was worth on the OOS after it, go on by STEP: in days "
    "(30/10/10) or with a unit (12h/4h/4h).",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted session.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Session folder, instead of backtest_results/EXCHANGE/SYMBOL/SESSION in the workspace.",
)
@workspace_option
@json_option
def command(
    settings: str,
    jobs: int,
    ticks_paths: tuple[Path, ...],
    market_path: Path | None,
    tiers_path: Path | None,
    funding: Path | None,
    iterations: int | None,
    resume: bool,
    out: Path | None,
    workspace: Path,
    as_json: bool,
    **changes: Any,
) -> None:
    """Search for the settings that would have done best on recorded trades.

    SETTINGS is a file, or a name in the workspace's backtest_configs/. Every result is on disk as
    it comes: an interrupted session goes on with --resume.

    \b
    Example:
      passivx optimize btcusdt_search --ticks trades.csv.gz --iterations 200
    """
    market = None if market_path is None else market_of(market_path, tiers_path, workspace)
    if market is None and tiers_path is not None:
        raise click.UsageError("--tiers goes with --market")
    session = load_settings(
        resolve_settings(settings, workspace),
        market,
        workspace=workspace,
        iterations=iterations,
        **changes,
    )
    for text in session.notes:
        note(f"note: {text}")
    file = session.file
    rates = None if funding is None else load_funding(funding)
    folder = out or session_folder(file.exchange, file.symbol, file.session_name, workspace)
    check_session_folder(folder, resume=resume)
    with _interruptible(), _ticks_of(session, ticks_paths, folder, jobs) as ticks:
        title = (
            f"{file.session_name} · {file.symbol} · {len(ticks):,} ticks · {file.engine} · "
            f"{file.sampler} · {jobs} job{'s' * (jobs > 1)}"
        )
        try:
            with watching(title, session) as watch:
                result = optimize(
                    ticks, session, folder, jobs=jobs, resume=resume, funding=rates, watch=watch
                )
        except KeyboardInterrupt:
            note(f"every result so far is in {folder}: --resume goes on from here")
            raise
    if as_json:
        print_json(asdict(result) | {"folder": str(result.folder)})
    else:
        report_search(result, session)


@contextlib.contextmanager
def _ticks_of(
    session: Settings, paths: tuple[Path, ...], folder: Path, jobs: int
) -> Iterator[Ticks]:
    """Load the ticks of a session; for several jobs, mapped from a file that all of them map."""

    def load() -> Ticks:
        with working("Reading ticks"):
            ticks = load_ticks(list(paths), start=session.file.start, end=session.file.end)
        for line in ticks.report.lines():
            note(f"ticks: {line}")
        days = session.file.n_days
        if days is not None and session.file.start is None and session.file.end is None:
            first = int(np.searchsorted(ticks.ts_ms, ticks.ts_ms[-1] - days * _DAY_MS))
            if first:
                note(f"ticks: the last {days:g} days of them (n_days)")
                ticks = ticks[first:]
        return ticks

    if jobs == 1:
        yield load()
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with mapped(load, folder) as ticks:
                yield ticks
        except OSError as e:
            raise PassivxError(f"{e.filename or folder}: cannot be written ({e.strerror})") from e
    finally:
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()  # only when nothing came of it: an empty one


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM, as a service manager sends it, end a session the way Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
