"""``passivx parity``: did the bot do what a backtest of the same trades does?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import rich_click as click
from rich.table import Table

from passivx.cli.options import json_option, workspace_option
from passivx.cli.output import console, note, print_json, working
from passivx.config import Config, load_config
from passivx.errors import DataError
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.keys import load_key
from passivx.live.lock import account_tag
from passivx.live.parity import Difference, Fill, Parity, Window, compare_record
from passivx.live.session import log_path, state_folder
from passivx.workspace import resolve_config

_MS_PER_H: Final = 3_600_000
# Rows of a window; --json has all.
_MOST_ROWS: Final = 40


@click.command()
@click.argument("exchange", type=click.Choice(["binance", "bybit"]))
@click.argument("config", metavar="CONFIG")
@click.option(
    "--last",
    "hours",
    metavar="HOURS",
    type=click.FloatRange(min=0.0, min_open=True),
    default=24.0,
    show_default=True,
    help="How much of the record, from its end. Trades are kept for a week.",
)
@click.option("--user", metavar="NAME", help="Whose record: api_key_secrets/EXCHANGE/NAME.json.")
@click.option(
    "--endpoints",
    "endpoints_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The record of the key in this file, as `passivx run --endpoints` took it.",
)
@click.option(
    "--account",
    metavar="TAG",
    help="The account's tag, as live_state's folders are named; paper: of --dry-run. Without any "
    "of the three: the only account there is.",
)
@workspace_option
@json_option
def command(
    exchange: str,
    config: str,
    hours: float,
    user: str | None,
    endpoints_path: Path | None,
    account: str | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Replay what the bot has recorded through the exact backtest, and name every difference.

    The record is the bot's journal and the trades it has seen. What ran is in the journal, the
    config too. The exit code is 0 whatever is found; --json says "equal".

    \b
    Example:
      passivx parity binance btcusdt_demo --last 24
    """
    loaded = load_config(resolve_config(config, workspace, exchange))
    tag = _account(exchange, loaded, user, endpoints_path, account, workspace)
    folder = state_folder(workspace, exchange, loaded.symbol, tag)
    with working(f"Replaying the record of {folder.name}"):
        parity = compare_record(
            folder,
            loaded,
            last_ms=round(hours * _MS_PER_H),
            log=log_path(workspace, exchange, loaded),
        )
    if parity.changed:
        names = ", ".join(parity.changed)
        note(f"the config has changed since: {names}; replayed is the one that ran")
    if as_json:
        about = {"exchange": exchange, "symbol": loaded.symbol, "account": tag}
        print_json(about | parity.to_json())
        return
    _show(parity)


def _account(
    exchange: str,
    config: Config,
    user: str | None,
    endpoints_path: Path | None,
    account: str | None,
    workspace: Path,
) -> str:
    """Return the tag of the account that is meant."""
    if sum(each is not None for each in (user, endpoints_path, account)) > 1:
        raise click.UsageError("give one of --user, --endpoints and --account")
    if account is not None:
        return account
    if user is not None:
        key = load_key(workspace / "api_key_secrets" / exchange / f"{user}.json")
        return account_tag(key.key)
    if endpoints_path is not None:
        _, _, held = load_endpoints(endpoints_path)
        if held is None:
            raise click.UsageError(f"{endpoints_path} holds no key: give --user or --account")
        return account_tag(held.key)
    states = workspace / "live_state" / exchange
    head = f"{config.symbol}-"
    found = sorted(path.parent.name for path in states.glob(f"{head}*/journal.db"))
    if not found:
        raise DataError(f"no bot has traded {config.symbol} in this workspace", states)
    if len(found) > 1:
        names = ", ".join(name.removeprefix(head) for name in found)
        raise click.UsageError(f"which account? --account {names}")
    return found[0].removeprefix(head)


def _show(parity: Parity) -> None:
    screen = console()
    measured = (
        f"the median of {parity.n_measured} answers"
        if parity.n_measured
        else "the usual: none was measured"
    )
    screen.print(f"latency {parity.latency_ms:g} ms ({measured})")
    for window in parity.windows:
        hours = (window.end_ms - window.start_ms) / _MS_PER_H
        screen.print(
            f"[bold]{_time(window.start_ms)}[/] ({window.begins}) to "
            f"[bold]{_time(window.end_ms)}[/] ({window.ends}): {hours:.2f} hours, "
            f"{window.n_trades:,} trades"
        )
        screen.print(_figures(window))
        if window.differences:
            screen.print(_differences(window))
        for each in window.notes:
            screen.print(f"note: {each}")
    verdict = "[green]equal[/]" if parity.equal else "[yellow]not equal[/]"
    fills = sum(window.live_fills for window in parity.windows)
    same = sum(window.same for window in parity.windows)
    screen.print(
        f"{verdict}: {same} of {fills} fills in {len(parity.windows)} windows are the same"
    )


def _figures(window: Window) -> Table:
    table = Table()
    table.add_column("")
    table.add_column("live", justify="right")
    table.add_column("backtest", justify="right")
    table.add_row("fills", str(window.live_fills), str(window.backtest_fills))
    table.add_row("the same", str(window.same), "")
    table.add_row("position", f"{window.live_size:.10g}", f"{window.backtest_size:.10g}")
    table.add_row("wallet", f"{window.live_wallet:.12g}", f"{window.backtest_wallet:.12g}")
    table.add_row(
        "pnl",
        f"{window.live_wallet - window.wallet:+.6g}",
        f"{window.backtest_wallet - window.wallet:+.6g}",
    )
    return table


def _differences(window: Window) -> Table:
    table = Table("time", "what", "live", "backtest", "probably")
    for each in window.differences[:_MOST_ROWS]:
        table.add_row(
            _time(each.ts_ms), _what(each), _fill(each.live), _fill(each.backtest), each.cause
        )
    if (more := len(window.differences) - _MOST_ROWS) > 0:
        table.add_row("", f"{more} more", "", "", "see --json")
    return table


def _what(each: Difference) -> str:
    return {"missing": "missing in live", "extra": "extra in live"}.get(
        each.what, f"another {each.what}"
    )


def _fill(fill: Fill | None) -> str:
    if fill is None:
        return ""
    word = "buy" if fill.side > 0 else "sell"
    return f"{fill.kind}: {word} {fill.qty:.10g} @ {fill.price:.10g}"


def _time(ts_ms: int) -> str:
    return f"{datetime.fromtimestamp(ts_ms / 1e3, UTC):%m-%d %H:%M:%S.%f}"[:-3]
