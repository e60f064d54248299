"""``passivx run``: trade."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import rich_click as click

from passivx.cli.options import balance_option, balance_or_default, workspace_option
from passivx.cli.output import console, loop_runner, note
from passivx.config import Config, load_config
from passivx.errors import ConfigError, PassivxError, Problem
from passivx.exchanges.base import Exchange
from passivx.exchanges.endpoints import Endpoints, endpoints_of, load_endpoints
from passivx.exchanges.keys import ApiKey, load_key
from passivx.live.events import OnExit
from passivx.live.preflight import approve, gather, judge, render
from passivx.live.process import harden
from passivx.live.session import Plan, Session
from passivx.models import Market, load_market
from passivx.workspace import find_market, resolve_config


@click.command()
@click.argument("exchange", type=click.Choice(["binance", "bybit"]))
@click.argument("config", metavar="CONFIG")
@click.option(
    "--user",
    metavar="NAME",
    help="Whose key: api_key_secrets/EXCHANGE/NAME.json. Needed unless --dry-run, or --endpoints "
    "brings a key.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Real market data, simulated account and fills: no order is sent, no key needed.",
)
@click.option(
    "--endpoints",
    "endpoints_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trade at these addresses: what `passivx sim` prints first, saved. Default: the venue's.",
)
@click.option(
    "--environment",
    type=click.Choice(["live", "testnet", "demo"]),
    default="live",
    show_default=True,
    help="Which of the venue's own, without --endpoints.",
)
@click.option(
    "--on-exit",
    type=click.Choice([each.value for each in OnExit]),
    default=OnExit.CANCEL.value,
    show_default=True,
    help="What a stop does: keep orders and position; cancel the bot's orders; or also close the "
    "position at market.",
)
@click.option("--yes", is_flag=True, help="Begin without asking; what preflight refuses stays so.")
@click.option(
    "--allow-withdraw",
    is_flag=True,
    help="Take a key that may withdraw. Better: make one that may not.",
)
@click.option(
    "--reset",
    is_flag=True,
    help="Forget earlier failures: after many in a row nothing starts without this.",
)
@balance_option
@workspace_option
def command(
    exchange: str,
    config: str,
    user: str | None,
    dry_run: bool,
    endpoints_path: Path | None,
    environment: str,
    on_exit: str,
    yes: bool,
    allow_withdraw: bool,
    reset: bool,
    balance: float | None,
    workspace: Path,
) -> None:
    """Trade CONFIG on EXCHANGE. This can lose all the money of the account.

    First it checks key, account and market, changes nothing, shows the worst that can happen and
    asks. Then it sets leverage and margin mode, takes over the position and the orders that an
    earlier run has left, and trades until Ctrl-C or SIGTERM. docs/live.md says what happens when
    something fails.

    \b
    Example:
      passivx run binance btcusdt_demo --dry-run
    """
    loaded = load_config(resolve_config(config, workspace, exchange))
    endpoints, symbol, key, key_file = _addresses(
        exchange, environment, endpoints_path, user, workspace
    )
    if symbol is not None and symbol != loaded.symbol:
        raise ConfigError(
            [
                Problem(
                    "symbol",
                    loaded.symbol,
                    f"is not the {symbol} of {endpoints_path}",
                    "use a config of that symbol, or a simulator of this one",
                )
            ]
        )
    if key is None and not dry_run:
        raise click.UsageError("whose account? give --user NAME, or --dry-run")
    if dry_run:
        key = None
    elif balance is not None:
        raise click.UsageError("--balance is for --dry-run: an account has its own")
    harden()
    with loop_runner() as runner:
        runner.run(
            _run(
                Plan(
                    exchange=exchange,
                    config=loaded,
                    endpoints=endpoints,
                    symbol=loaded.symbol,
                    key=key,
                    key_file=key_file,
                    root=workspace,
                    on_exit=OnExit(on_exit),
                    paper_wallet=None if not dry_run else (balance or 0.0),
                    assumed=_assumed(exchange, loaded, workspace) if dry_run else None,
                ),
                yes=yes,
                allow_withdraw=allow_withdraw,
                reset=reset,
            )
        )


def _addresses(
    exchange: str, environment: str, path: Path | None, user: str | None, workspace: Path
) -> tuple[Endpoints, str | None, ApiKey | None, Path | None]:
    """Return addresses, the symbol they are of, the key and the file that holds it."""
    symbol, key, key_file = None, None, None
    if path is None:
        endpoints = endpoints_of(exchange, environment)
    else:
        endpoints, symbol, key = load_endpoints(path)
        key_file = path if key is not None else None
        if endpoints.exchange != exchange:
            raise ConfigError(
                [Problem("exchange", endpoints.exchange, f"is not {exchange}", "name that one")],
                path,
            )
    if user is not None:
        key_file = workspace / "api_key_secrets" / exchange / f"{user}.json"
        key = load_key(key_file)
    return endpoints, symbol, key, key_file


def _assumed(exchange: str, config: Config, workspace: Path) -> Market:
    """Return the market file with what a venue tells with a key alone."""
    path = find_market(exchange, config.symbol, workspace)
    if path is None:
        problem = Problem(
            f"markets/{exchange}_{config.symbol}.json",
            None,
            "is needed for fees and tiers, which the venue tells with a key alone",
            "write one (docs/market.md), or run with --user",
        )
        raise ConfigError([problem])
    return load_market(path)


async def _run(plan: Plan, *, yes: bool, allow_withdraw: bool, reset: bool) -> None:
    if plan.paper_wallet == 0.0:
        plan = await _with_default_wallet(plan)
    with Session(plan) as session:
        if reset:
            session.breaker.reset()
        if session.breaker.open:
            raise PassivxError(f"{session.breaker.why()}, or start once with --reset")
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        def stop() -> None:
            note("stopping ...")
            session.stop()
            asked.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        checking = loop.create_task(_check(session, yes=yes, allow_withdraw=allow_withdraw))
        stopping = loop.create_task(asked.wait())
        await asyncio.wait([checking, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not checking.done():
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
            return
        await checking
        # What is loaded by now stays: to look through it again stops the loop for some 30 ms.
        gc.collect()
        gc.freeze()
        await session.run(note)


async def _with_default_wallet(plan: Plan) -> Plan:
    from dataclasses import replace

    from passivx.exchanges.venues import open_exchange

    assert plan.assumed is not None
    exchange: Exchange = open_exchange(
        endpoints=plan.endpoints, symbol=plan.symbol, key=None, assumed=plan.assumed
    )
    try:
        mark = await exchange.mark()
    finally:
        await exchange.close()
    return replace(plan, paper_wallet=balance_or_default(None, plan.assumed, mark.mark_price))


async def _check(session: Session, *, yes: bool, allow_withdraw: bool) -> None:
    """Show what is and what could come, and ask."""
    exchange = session.open_exchange()
    try:
        facts = await gather(exchange)
    finally:
        await exchange.close()
    preflight = judge(session.plan.config, facts, allow_withdraw=allow_withdraw)
    screen = console()
    if session.plan.paper_wallet is not None:
        screen.print("DRY RUN: real market data, simulated account. No order is sent.")
        if facts.rules.assumed:
            screen.print(f"taken from the market file: {', '.join(facts.rules.assumed)}")
    screen.print(render(preflight))
    interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def ask(question: str) -> bool:
        return click.confirm(question, default=False)

    def work() -> None:
        agreed = yes or session.plan.paper_wallet is not None
        approve(preflight, yes=agreed, interactive=interactive, ask=ask)

    await _in_daemon(work)


async def _in_daemon(work: Callable[[], None]) -> None:
    """Run what waits for a person in a thread that no signal has to wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except (Exception, click.Abort) as e:
            error = e
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="question", daemon=True).start()
    await done
