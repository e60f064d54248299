"""``passivx backtest``: replay trades against a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from passivx.backtesting import (
    ENGINES,
    FILLS,
    METHODS,
    BacktestResult,
    backtest,
    check_options,
    check_result_folder,
)
from passivx.breaks import BreakRules, compile_break_on
from passivx.cli.options import (
    balance_option,
    balance_or_default,
    funding_option,
    json_option,
    market_of,
    market_option,
    settle_currency,
    ticks_option,
    tiers_option,
    workspace_option,
)
from passivx.cli.output import console, note, print_json, working
from passivx.config import Config, load_config
from passivx.data.funding import load_funding
from passivx.data.ticks import Ticks, load_ticks
from passivx.documents import read_document
from passivx.errors import ConfigError, Problem
from passivx.files import check_folder
from passivx.models import Market
from passivx.report.compare import Ran, as_dicts, causes_of_difference, causes_table
from passivx.report.render import sparkline, summary_table
from passivx.venue import venue_problems
from passivx.workspace import resolve_config

_BOTH = "both"


@click.command()
@click.argument("config")
@ticks_option
@market_option()
@tiers_option
@click.option(
    "--engine",
    type=click.Choice((*ENGINES, _BOTH)),
    default="exact",
    show_default=True,
    help="exact: the bot itself at a venue with latency. compat: the original Passiv-X backtester, "
    "fill for fill; it flatters, and also runs old configs whose values are out of today's "
    "ranges. both: side by side, with the causes of the difference; all choices but --method and "
    "--break-on are exact's then.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="scan: look at every trade. auto: the fastest way to the same fills.",
)
@balance_option
@click.option(
    "--fill",
    type=click.Choice(FILLS),
    default="cross",
    show_default=True,
    help="exact: an order fills when a trade goes through its price; at its price too (touch); or "
    "only as much as the trades bring (volume).",
)
@click.option(
    "--queue-share",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="--fill volume: the share of a trade at an order's price that is yours.",
)
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0.0),
    help="exact: how long an order or a cancel takes to the venue (default 100). compat: the least "
    "time between two fills (default 1000).",
)
@click.option(
    "--cancel-latency-ms",
    type=click.FloatRange(min=0.0),
    help="exact: how long a cancel takes, when it is not --latency-ms.",
)
@funding_option
@click.option(
    "--break-on",
    "settings_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Settings file whose break_on conditions end the run early (docs/break_on.md).",
)
@click.option("--start", metavar="DATE", help="First UTC day (YYYY-MM-DD) or instant.")
@click.option(
    "--end", metavar="DATE", help="Last UTC day, included, or the instant to stop before."
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a result folder: summary, fills, equity, config, market.",
)
@workspace_option
@json_option
def command(
    config: str,
    ticks_paths: tuple[Path, ...],
    market_path: Path,
    tiers_path: Path | None,
    engine: str,
    balance: float | None,
    settings_path: Path | None,
    start: str | None,
    end: str | None,
    out: Path | None,
    workspace: Path,
    as_json: bool,
    **how: Any,
) -> None:
    """Replay trades against CONFIG and print what came of it.

    CONFIG is a file or a name in the workspace.

    \b
    Example:
      passivx backtest btcusdt_careful --ticks trades.csv.gz \\
        --market markets/binance_BTCUSDT.json --out result
    """
    settings = load_config(resolve_config(config, workspace), compat=engine == "compat")
    market = market_of(market_path, tiers_path, workspace)
    rules = _break_rules(settings_path)
    for warning in (*settings.warnings, *rules.warnings):
        note(f"warning: {warning}")
    if how["funding"] is not None:
        how["funding"] = load_funding(how["funding"])
    engines = ("compat", "exact") if engine == _BOTH else (engine,)
    # Beside exact, compat runs by its own rules: the choices are exact's.
    choices = {
        name: {"method": how["method"]} if name == "compat" and engine == _BOTH else how
        for name in engines
    }
    for name in engines:
        check_options(name, settings, **choices[name])
    folders = _result_folders(out, engines)
    with working("Reading ticks"):
        ticks = load_ticks(list(ticks_paths), start=start, end=end)
    for line in ticks.report.lines():
        note(f"ticks: {line}")
    wallet = balance_or_default(balance, market, float(ticks.price[0]))
    _warn_of_venue(settings, market, float(ticks.price[0]), wallet)
    results = {}
    for name in engines:
        with working(f"Replaying {len(ticks):,} ticks ({name})", total=len(ticks)) as progress:
            results[name] = backtest(
                ticks,
                settings,
                market,
                starting_balance=wallet,
                engine=name,
                break_on=rules,
                progress=progress,
                **choices[name],
            )
    for name, folder in folders.items():
        results[name].save(folder, ticks=ticks, config=settings, market=market)
        note(f"result written to {folder}")
    _print(results, ticks, settings, market, as_json=as_json)


def _break_rules(path: Path | None) -> BreakRules:
    """Return the break_on conditions of a settings file; none without a file."""
    if path is None:
        return compile_break_on([])
    document = read_document(path)
    try:
        if "break_on" not in document:
            raise ConfigError([Problem("break_on", None, "is missing")])
        return compile_break_on(document["break_on"])
    except ConfigError as e:
        raise ConfigError(e.problems, path) from None


def _result_folders(out: Path | None, engines: tuple[str, ...]) -> dict[str, Path]:
    """Return where each engine's result goes; PassivxError when something else is there."""
    if out is None:
        return {}
    if len(engines) == 1:
        folders = {engines[0]: out}
    else:
        check_folder(out, engines, mark=engines[0])
        folders = {name: out / name for name in engines}
    for folder in folders.values():
        check_result_folder(folder)
    return folders


def _warn_of_venue(config: Config, market: Market, price: float, balance: float) -> None:
    """Say what the venue would refuse or turn into something else: the run itself goes on."""
    try:
        problems = venue_problems(config, market, price, balance)
    except ConfigError as e:
        problems = list(e.problems)
    for problem in problems:
        note(f"warning: {problem}")


def _print(
    results: dict[str, BacktestResult],
    ticks: Ticks,
    config: Config,
    market: Market,
    *,
    as_json: bool,
) -> None:
    summaries = {name: result.summary for name, result in results.items()}
    causes = []
    if len(results) > 1:
        causes = causes_of_difference(
            *(_ran(results[name]) for name in ("compat", "exact")),
            starting_balance=summaries["exact"]["starting_balance"],
            inverse=market.inverse,
        )
    if as_json:
        (summary,) = summaries.values() if len(summaries) == 1 else (summaries,)
        print_json(summary | ({"differences": as_dicts(causes)} if causes else {}))
        return
    screen = console()
    title = f"{config.config_name} · {config.symbol} · {' beside '.join(results)}"
    screen.print(f"[bold]{title} · {settle_currency(market)}[/]")
    screen.print(summary_table(summaries))
    screen.print(f"price  {sparkline(ticks.price)}")
    for name, result in results.items():
        if len(result.equity):
            which = f" {name}" if len(results) > 1 else ""
            screen.print(f"equity {sparkline(result.equity['equity'])}{which}")
        for assumption in result.assumptions:
            note(f"assumed: {assumption}")
        if not len(result.raw_fills):
            note(f"{name}: no order filled; `passivx grid` shows what would rest")
    if causes:
        screen.print(causes_table(causes))
    if "compat" in results:
        note("compat is the original's backtester: it flatters, the README says how")
        if results["compat"].outcome != "end":
            ended = results["compat"].outcome.replace("_", " ")
            note(f"{ended} in compat: the original would have thrown this run away")


def _ran(result: BacktestResult) -> Ran:
    duration_ms = result.end_ms - result.start_ms
    return Ran(result.raw_fills, result.outcome, result.last_price, duration_ms)
