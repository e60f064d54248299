"""``passivx sim``: a venue on this machine that keeps the real one's rules."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import cast

import rich_click as click

from passivx.cli.options import (
    balance_option,
    balance_or_default,
    market_of,
    positive,
    tiers_option,
    workspace_option,
)
from passivx.cli.output import note
from passivx.errors import ConfigError, PassivxError, Problem
from passivx.models import Market
from passivx.simulator.app import SYMBOLS, Simulator
from passivx.simulator.feed import Feed, Speed
from passivx.simulator.rules import load_faults
from passivx.workspace import find_market

WORDS = ("max", "step")


class _SpeedType(click.ParamType[Speed]):
    name = "X|max|step"

    def convert(self, value: object, param: object, ctx: object) -> Speed:
        return cast(Speed, value) if value in WORDS else positive(str(value))


@click.command()
@click.option(
    "--exchange", required=True, type=click.Choice(list(SYMBOLS)), help="Whose rules and language."
)
@click.option(
    "--symbol",
    metavar="NAME",
    help="What is listed. Default: BTCUSDT (binance), BTCUSD (bybit).",
)
@click.option(
    "--ticks",
    "ticks_paths",
    multiple=True,
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    help="Trade file or folder to replay (csv, csv.gz, zip, npy); may be given several times.",
)
@click.option(
    "--synthetic",
    "market_seed",
    metavar="SEED",
    type=click.IntRange(min=0),
    help="Replay made-up trades without end; the default, with seed 1.",
)
@click.option(
    "--speed",
    type=_SpeedType(),
    default="1",
    show_default=True,
    help="How many times as fast as it happened; max: as fast as it goes; step: only when told to.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Of REST and websockets, on 127.0.0.1. Default: a free one.",
)
@click.option(
    "--faults",
    "faults_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What goes wrong and when: a JSON or HJSON list (docs/simulator.md).",
)
@click.option(
    "--market",
    "market_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Market rules. Default: the workspace's, else the example of that symbol.",
)
@tiers_option
@balance_option
@click.option(
    "--ledger",
    "ledger_path",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write every request, order and fill here, as JSON lines.",
)
@click.option(
    "--no-limits", is_flag=True, help="Keep no rate limits; rules, margin and signatures stay."
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=0,
    help="Of what else is left to chance: the ids of executions. Keys never repeat.",
)
@click.option(
    "--for",
    "for_s",
    metavar="SECONDS",
    type=positive,
    help="Stop by itself after so long. Default: run until interrupted.",
)
@workspace_option
def command(
    exchange: str,
    symbol: str | None,
    ticks_paths: tuple[Path, ...],
    market_seed: int | None,
    speed: Speed,
    port: int,
    faults_path: Path | None,
    market_path: Path | None,
    tiers_path: Path | None,
    balance: float | None,
    ledger_path: Path | None,
    no_limits: bool,
    seed: int,
    for_s: float | None,
    workspace: Path,
) -> None:
    """Run a simulated exchange on this machine; no keys, no network.

    It speaks the venue's REST and websockets, checks signatures, keeps filters and rate limits, and
    trades against replayed or made-up prices. The first line on stdout is a JSON object with the
    addresses and a key that was made for this run: saved to a file, it is what
    `passivx run --endpoints` takes. Ctrl-C ends it.

    \b
    Example:
      passivx sim --exchange binance --synthetic 7 --speed 20 --for 1
    """
    if ticks_paths and market_seed is not None:
        raise click.UsageError("--ticks and --synthetic exclude each other")
    symbol = symbol or SYMBOLS[exchange]
    market = _market(exchange, symbol, market_path, tiers_path, workspace)
    if ticks_paths:
        # Reading trades is not cheap to import.
        from passivx.data.ticks import load_ticks

        feed = Feed.from_ticks(load_ticks(list(ticks_paths)), market)
    else:
        feed = Feed.synthetic(1 if market_seed is None else market_seed, exchange, market)
    faults = [] if faults_path is None else load_faults(faults_path)
    try:
        simulator = Simulator(
            exchange=exchange,
            symbol=symbol,
            market=market,
            feed=feed,
            wallet=balance_or_default(balance, market, feed.start_price),
            speed=speed,
            port=port,
            faults=faults,
            ledger_path=ledger_path,
            limits=not no_limits,
            seed=seed,
        )
    except OSError as e:
        raise PassivxError(
            f"--ledger: {ledger_path} cannot be written ({e.strerror}); name a file in a folder "
            "that is there"
        ) from None
    except ValueError as e:
        raise PassivxError(f"{e}; choose another --balance or --market") from None
    try:
        _run(simulator, for_s)
    except OSError as e:
        raise PassivxError(f"port {port} cannot be used ({e.strerror})") from None


def _market(
    exchange: str, symbol: str, path: Path | None, tiers_path: Path | None, workspace: Path
) -> Market:
    path = path or find_market(exchange, symbol, workspace)
    if path is None:
        problem = Problem(
            "--market", None, f"no market file of {symbol}", "name one; `passivx init` has examples"
        )
        raise ConfigError([problem])
    return market_of(path, tiers_path, workspace)


def _run(simulator: Simulator, for_s: float | None) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, simulator.stopped.set)
        async with simulator:
            click.echo(simulator.first_line())
            note(f"simulating {simulator.exchange} {simulator.symbol}; Ctrl-C ends it")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(simulator.stopped.wait(), for_s)

    try:
        import uvloop
    except ImportError:
        asyncio.run(serve())
    else:
        uvloop.run(serve())
