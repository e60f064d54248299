"""Options and arguments that several commands share, and how their values are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from passivx.cli.output import note
from passivx.data.tiers import with_tiers
from passivx.models import Market, load_market
from passivx.workspace import resolve_market

__all__ = [
    "DEFAULT_BALANCE_QUOTE",
    "balance_option",
    "balance_or_default",
    "funding_option",
    "json_option",
    "market_of",
    "market_option",
    "positive",
    "settle_currency",
    "ticks_option",
    "tiers_option",
    "workspace_option",
]

F = TypeVar("F", bound=Callable[..., Any])

# What a what-if is run with when nobody says: worth this much quote currency at the first price.
DEFAULT_BALANCE_QUOTE = 1000.0


def positive(value: str) -> float:
    """Read a finite number > 0; BadParameter when it is anything else."""
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number") from None
    if not 0.0 < number < math.inf:
        raise click.BadParameter(f"must be finite and > 0, was {value}")
    return number


def workspace_option(f: F) -> F:
    """Add ``--workspace``: where bare config names are looked up."""
    return click.option(
        "--workspace",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="PASSIVX_WORKSPACE",
        default=".",
        help="Folder with live_settings/ and the rest; a bare config name is looked up there.",
    )(f)


def ticks_option(f: F) -> F:
    """Add ``--ticks PATH``, required, any number of times."""
    return click.option(
        "--ticks",
        "ticks_paths",
        required=True,
        multiple=True,
        metavar="PATH",
        type=click.Path(exists=True, path_type=Path),
        help="Trade file or folder (csv, csv.gz, zip, npy); may be given several times.",
    )(f)


def market_option(*, required: bool = True) -> Callable[[F], F]:
    """Add ``--market FILE``: no rule of a market is ever guessed."""
    otherwise = "" if required else " Default: the workspace's markets/EXCHANGE_SYMBOL.json."
    return click.option(
        "--market",
        "market_path",
        required=required,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Market rules as JSON: price_step, qty_step, min_qty, min_cost, fees, max_leverage, "
        "inverse; a path, also one within the workspace. `passivx init` writes examples."
        + otherwise,
    )


def funding_option(f: F) -> F:
    """Add ``--funding FILE``."""
    return click.option(
        "--funding",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="exact: settled funding rates, csv (ts_ms,rate) or JSON; the venues' own names are "
        "known.",
    )(f)


def tiers_option(f: F) -> F:
    """Add ``--tiers FILE``: maintenance-margin tiers, instead of the market file's."""
    return click.option(
        "--tiers",
        "tiers_path",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Maintenance-margin tiers, instead of the market file's: csv or JSON with floor, "
        "maintenance_rate and, if known, deduction and max_leverage; the venues' own names are "
        "known.",
    )(f)


def market_of(path: Path, tiers_path: Path | None, workspace: Path) -> Market:
    """Load what ``--market`` and ``--tiers`` name."""
    market = load_market(resolve_market(path, workspace))
    return market if tiers_path is None else with_tiers(market, tiers_path)


def balance_option(f: F) -> F:
    """Add ``--balance N`` in settle currency."""
    return click.option(
        "--balance",
        metavar="N",
        type=positive,
        help="Wallet in settle currency (quote linear, base coin inverse). Default: what "
        f"{DEFAULT_BALANCE_QUOTE:g} of quote currency are worth.",
    )(f)


def json_option(f: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object instead of text."
    )(f)


def settle_currency(market: Market) -> str:
    """Name the currency that balances, pnl and fees are in."""
    return "base coin" if market.inverse else "quote"


def balance_or_default(balance: float | None, market: Market, price: float) -> float:
    """Return the balance asked for, else the documented what-if default, and say so."""
    if balance is not None:
        return balance
    chosen = market.in_settle(DEFAULT_BALANCE_QUOTE, price)
    note(f"balance {chosen:.10g} {settle_currency(market)} (the default; choose with --balance)")
    return chosen
