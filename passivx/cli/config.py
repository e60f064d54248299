"""``passivx config check`` and ``passivx config explain``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit
from rich import box
from rich.table import Table
from rich.text import Text

from passivx.cli.options import json_option, positive, workspace_option
from passivx.cli.output import console, print_json
from passivx.config import Config, load_config
from passivx.errors import ConfigError, Problem
from passivx.models import load_market
from passivx.report.explain import Explanation, explain
from passivx.venue import least_balance, venue_problems
from passivx.workspace import resolve_config, resolve_market

__all__ = ["command"]

_JSON_EXACT = 1 << 53


@click.group("config")
def command() -> None:
    """Check a config, or explain what each field does to the grid.

    \b
    Example:
      passivx config check live_settings/bybit/default.json
    """


@command.command()
@click.argument("file")
@workspace_option
@click.option(
    "--market", type=click.Path(path_type=Path), help="Market rules: adds the venue checks."
)
@click.option("--price", type=positive, help="Last price (quote), for the venue checks.")
@click.option("--balance", type=positive, help="Wallet (settle currency): checks sizes as well.")
@json_option
def check(
    file: str,
    workspace: Path,
    market: Path | None,
    price: float | None,
    balance: float | None,
    as_json: bool,
) -> None:
    """Report everything wrong with a config FILE (or its bare name) at once; works offline.

    Exit code 0 when it is usable, 2 when it is not.

    \b
    Example:
      passivx config check live_settings/bybit/default.json
      passivx config check btcusd_careful --market markets/bybit_BTCUSD.json --price 60000
    """
    if (market is None) != (price is None):
        raise click.UsageError("--market and --price go together")
    if balance is not None and market is None:
        raise click.UsageError("--balance needs --market and --price")
    try:
        config = load_config(resolve_config(file, workspace))
        least = None
        if market is not None and price is not None:
            rules = resolve_market(market, workspace)
            least = _check_venue(config, rules, price, balance)
    except ConfigError as e:
        if not as_json:
            raise
        problems = [asdict(p) | {"value": _json_value(p.value)} for p in e.problems]
        print_json({"ok": False, "file": str(e.source or file), "problems": problems})
        raise Exit(e.exit_code) from None
    if as_json:
        report: dict[str, Any] = {"ok": True, "file": str(config.source), "problems": []}
        print_json(report | {"warnings": config.warnings, "least_balance": least})
        return
    for warning in config.warnings:
        click.echo(f"warning: {warning}")
    if least is not None:
        click.echo(f"First entries reach the venue's minimum from a balance of {least:.6g}")
    click.echo(f"OK: {config.source}")


@command.command("explain")
@click.argument("file")
@workspace_option
@json_option
def explain_command(file: str, workspace: Path, as_json: bool) -> None:
    """Say what each field of a config FILE (or its bare name) does to the grid.

    \b
    Example:
      passivx config explain live_settings/bybit/default.json
    """
    config = load_config(resolve_config(file, workspace))
    rows = explain(config)
    if as_json:
        print_json({"file": str(config.source), "fields": [asdict(row) for row in rows]})
        return
    _print_table(config, rows)


def _check_venue(config: Config, market: Path, price: float, balance: float | None) -> float:
    rules = load_market(market)
    if problems := venue_problems(config, rules, price, balance):
        raise ConfigError(problems, config.source)
    return least_balance(config, rules, price)


def _print_table(config: Config, rows: list[Explanation]) -> None:
    out = console()
    style: box.Box | None = box.HEAVY_HEAD
    if not out.is_terminal:
        # A pipe has no width of its own; wrapped cells and frames are hard to search through.
        out.width, style = 260, None
    table = Table("field", "value", "meaning", "here", box=style, pad_edge=False)
    for row in rows:
        value = str(row.value)
        if isinstance(row.value, bool):
            value = value.lower()
        table.add_row(*map(Text, (row.field, value.removesuffix(".0"), row.meaning, row.effect)))
    out.print(table)
    for warning in config.warnings:
        out.print(Text(f"warning: {warning}"))


def _json_value(value: object) -> object:
    """Return the value as JSON can carry it: what it cannot becomes its Python text."""
    if isinstance(value, str):
        return value if value.isprintable() else ascii(value)
    plain = value is None or isinstance(value, bool | float)
    if plain or (isinstance(value, int) and abs(value) < _JSON_EXACT):
        return value
    return str(Problem("", value, "")).removeprefix(", was ")
