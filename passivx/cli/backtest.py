"""``passivx backtest``: replay trades against a config."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from passivx.backtesting import COMPAT_LATENCY_MS, ENGINES, METHODS, backtest, check_result_folder
from passivx.cli.options import (
    balance_option,
    balance_or_default,
    json_option,
    market_option,
    settle_currency,
    workspace_option,
)
from passivx.cli.output import console, note, print_json, working
from passivx.config import load_config
from passivx.data.ticks import load_ticks
from passivx.models import load_market
from passivx.report.render import sparkline, summary_table
from passivx.workspace import resolve_config, resolve_market


@click.command()
@click.argument("config")
@click.option(
    "--ticks",
    "ticks_paths",
    required=True,
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Trade file or folder (csv, csv.gz, zip, npy); may be given several times.",
)
@market_option
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="compat (the default for now): the original Passiv-X backtester, fill for fill. Asked for "
    "by name, it also runs old configs whose values are out of today's ranges.",
)
@click.option("--method", type=click.Choice(METHODS), default="auto", show_default=True)
@balance_option
@click.option(
    "--latency-ms",
    type=click.FloatRange(min=0.0),
    default=COMPAT_LATENCY_MS,
    show_default=True,
    help="compat: least time between two fills.",
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
    engine: str | None,
    method: str,
    balance: float | None,
    latency_ms: float,
    start: str | None,
    end: str | None,
    out: Path | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Replay trades against CONFIG and print what came of it.

    CONFIG is a file or a name in the workspace.

    \b
    Example:
      passivx backtest btcusdt_careful --ticks trades.csv.gz \\
        --market markets/binance_BTCUSDT.json --out result
    """
    settings = load_config(resolve_config(config, workspace), compat=engine == "compat")
    engine = engine or ENGINES[0]
    market = load_market(resolve_market(market_path, workspace))
    for warning in settings.warnings:
        note(f"warning: {warning}")
    if out is not None:
        check_result_folder(out)
    with working("Reading ticks"):
        ticks = load_ticks(list(ticks_paths), start=start, end=end)
    for line in ticks.report.lines():
        note(f"ticks: {line}")
    wallet = balance_or_default(balance, market, float(ticks.price[0]))
    with working(f"Replaying {len(ticks):,} ticks", total=len(ticks)) as progress:
        result = backtest(
            ticks,
            settings,
            market,
            starting_balance=wallet,
            engine=engine,
            method=method,
            latency_ms=latency_ms,
            progress=progress,
        )
    if out is not None:
        result.save(out, ticks=ticks, config=settings, market=market)
        note(f"result written to {out}")
    if as_json:
        print_json(result.summary)
        return
    screen = console()
    title = f"{settings.config_name} · {settings.symbol} · {engine} · {settle_currency(market)}"
    screen.print(f"[bold]{title}[/]")
    screen.print(summary_table({"": result.summary}))
    screen.print(f"price  {sparkline(ticks.price)}")
    if len(result.equity):
        screen.print(f"equity {sparkline(result.equity['equity'])}  (at each fill)")
    note("compat is the original's backtester: it flatters, the README says how")
    if result.outcome != "end":
        note(f"{result.outcome.replace('_', ' ')}: the original would have thrown this run away")
