"""``passivx demo``: the main job end to end, on a market that is made up."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import rich_click as click
from rich.table import Table

from passivx.backtesting import BacktestResult, backtest, check_result_folder
from passivx.cli.options import DEFAULT_BALANCE_QUOTE, json_option
from passivx.cli.output import console, loop_runner, note, print_json, working
from passivx.config import Config, load_config
from passivx.data.synthetic import BTCUSD, BTCUSDT, MarketProfile, synthetic_trades
from passivx.data.ticks import Ticks
from passivx.live.rehearsal import Rehearsal, rehearse
from passivx.models import load_market
from passivx.report.render import sparkline, summary_table
from passivx.workspace import examples_folder

SYNTHETIC = "This market is synthetic: seeded random trades. Its results say nothing about profit."

# One config a market kind: linear on Binance, inverse on Bybit.
_RUNS: dict[str, tuple[MarketProfile, str, str]] = {
    "linear": (BTCUSDT, "live_settings/binance/btcusdt_demo.json", "markets/binance_BTCUSDT.json"),
    "inverse": (BTCUSD, "live_settings/bybit/btcusd_demo.json", "markets/bybit_BTCUSD.json"),
}

LATENCY_MS: Final = 100.0
# Bybit takes 10 orders a second, fewer than the demo's config sends after a fill, and tells the
# best prices every 10 ms only: a backtest knows of neither.
_WITHIN_BYBITS_LIMITS: Final[dict[str, Any]] = {
    "book": "trades",
    "n_entry_orders": 4,
    "n_close_orders": 4,
    "orders_per_batch": 1,
}
_VENUES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "binance": ("linear", {}),
    "bybit": ("inverse", _WITHIN_BYBITS_LIMITS),
}
_FIELDS: Final = ("ts_ms", "kind", "price", "qty", "pos_size", "balance")


@click.command()
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--ticks",
    "n_ticks",
    type=click.IntRange(min=2),
    default=1_000_000,
    show_default=True,
    help="Trades to make up for each market.",
)
@click.option(
    "--live-ticks",
    "n_live",
    type=click.IntRange(min=0),
    default=40_000,
    show_default=True,
    help="Trades for the bot on each simulated exchange; 0: leave that out.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default="backtest_results/demo",
    show_default=True,
    help="Where the result folders go.",
)
@json_option
def command(seed: int, n_ticks: int, n_live: int, out: Path, as_json: bool) -> None:
    """Backtest on a synthetic market, then trade on a simulated exchange; no keys, no network.

    A linear and an inverse config are backtested. Then the bot itself, as `passivx run` starts it,
    trades on a simulated Binance and a simulated Bybit of this machine, over sockets, hours in
    seconds; its fills must be those of a backtest of the same trades, or the exit code is 1.

    \b
    Example:
      passivx demo --seed 7
    """
    for name in _RUNS:
        check_result_folder(out / name)
    results = {}
    pictures = []
    for name, (profile, config_name, market_name) in _RUNS.items():
        config = load_config(examples_folder() / config_name)
        market = load_market(examples_folder() / market_name)
        with working(f"Making {n_ticks:,} synthetic {profile.symbol} trades (seed {seed})"):
            ticks = synthetic_trades(seed, n_ticks, profile=profile)
        balance = market.in_settle(DEFAULT_BALANCE_QUOTE, profile.start_price)
        with working(f"Replaying them against {config.config_name}"):
            result = backtest(ticks, config, market, starting_balance=balance)
        result.save(out / name, ticks=ticks, config=config, market=market)
        results[name] = result
        pictures.append(_picture(name, ticks, result))
    compared = [_trade(exchange, seed, n_live) for exchange in _VENUES] if n_live else []
    if as_json:
        print_json(
            {"synthetic": True, "seed": seed, "out": str(out)}
            | {name: result.summary for name, result in results.items()}
            | {"live": {each.exchange: each.to_json() for each in compared}}
        )
        _exit_if_different(compared)
        return
    screen = console()
    summaries = {name: result.summary for name, result in results.items()}
    screen.print(f"[bold]passivx demo · synthetic market · seed {seed}[/]")
    screen.print(summary_table(summaries))
    for picture in pictures:
        screen.print(picture)
    if compared:
        screen.print(_comparison(compared))
        screen.print(
            "bot: what `passivx run` runs, against the simulated exchange, over sockets on one "
            f"virtual clock; orders and cancels take {LATENCY_MS:g} ms, in the backtest too."
        )
    screen.print(SYNTHETIC)
    note(f"results written to {out}")
    _exit_if_different(compared)


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """The bot on a simulated exchange, and a backtest of the same trades."""

    exchange: str
    hours: float
    n_ticks: int
    wallet: float
    bot: Rehearsal
    backtest: BacktestResult

    @property
    def difference(self) -> str:
        """The first difference, "" when there is none."""
        bot, fills = self.bot, self.backtest.fills
        trades = fills[fills["kind"] != "funding"]
        rows = zip(bot.fills[list(_FIELDS)].tolist(), trades[list(_FIELDS)].tolist(), strict=False)
        for i, (live, expected) in enumerate(rows):
            if live != expected:
                return f"fill {i + 1}: bot {live}, backtest {expected}"
        if len(bot.fills) != len(trades):
            return f"the bot has {len(bot.fills)} fills, the backtest {len(trades)}"
        if bot.wallet != self.final_wallet:
            return f"wallet: bot {bot.wallet!r}, backtest {self.final_wallet!r}"
        if (bot.wallet, bot.size) != (bot.venue_wallet, bot.venue_size):
            return f"the exchange says {bot.venue_wallet!r} and {bot.venue_size!r}"
        return ""

    @property
    def final_wallet(self) -> float:
        fills = self.backtest.fills
        return float(fills["balance"][-1]) if len(fills) else self.wallet

    @property
    def final_size(self) -> float:
        fills = self.backtest.fills
        return float(fills["pos_size"][-1]) if len(fills) else 0.0

    def to_json(self) -> dict[str, Any]:
        kinds = self.backtest.fills["kind"]
        bot = self.bot
        return {
            "equal": not self.difference,
            "difference": self.difference,
            "hours": self.hours,
            "ticks": self.n_ticks,
            "latency_ms": LATENCY_MS,
            "starting_balance": self.wallet,
            "orders": bot.orders,
            "messages": bot.messages,
            "bot": {"fills": len(bot.fills), "position": bot.size, "wallet": bot.wallet},
            "backtest": {
                "fills": int(np.count_nonzero(kinds != "funding")),
                "position": self.final_size,
                "wallet": self.final_wallet,
            },
        }


def _trade(exchange: str, seed: int, n_ticks: int) -> _Compared:
    """Let the bot trade on a simulated exchange, and backtest the same trades."""
    name, changes = _VENUES[exchange]
    preset, config_name, market_name = _RUNS[name]
    # Quieter than the presets, and livelier in price: hours that show something in seconds.
    profile = replace(
        preset,
        prints_per_second=6.0,
        pace_memory_s=600.0,
        volatility_memory_s=1200.0,
        news_volatility=preset.news_volatility * 2.0,
    )
    market = load_market(examples_folder() / market_name)
    document = load_config(examples_folder() / config_name).model_dump()
    config: Config = load_config({**document, **changes})
    ticks = synthetic_trades(seed, n_ticks, profile=profile)
    # Venues tell a wallet with 8 decimals.
    wallet = round(market.in_settle(DEFAULT_BALANCE_QUOTE, profile.start_price), 8)
    hours = (int(ticks.ts_ms[-1]) - int(ticks.ts_ms[0])) / 3_600_000
    what = f"Trading {hours:.1f} hours on a simulated {exchange.capitalize()}"
    with (
        working(what),
        _warnings_off(),
        tempfile.TemporaryDirectory() as folder,
        loop_runner() as runner,
    ):
        bot = runner.run(
            rehearse(
                exchange, config, market, ticks, Path(folder), wallet=wallet, latency_ms=LATENCY_MS
            )
        )
    result = backtest(
        ticks,
        config,
        market,
        starting_balance=wallet,
        latency_ms=LATENCY_MS,
        funding=bot.funding or None,
    )
    return _Compared(
        exchange=exchange, hours=hours, n_ticks=n_ticks, wallet=wallet, bot=bot, backtest=result
    )


@contextlib.contextmanager
def _warnings_off() -> Iterator[None]:
    """Keep warnings off the screen: they carry no virtual time, and what they lead to shows."""
    logger = logging.getLogger("passivx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _comparison(compared: list[_Compared]) -> Table:
    table = Table(title="the bot on a simulated exchange, and the backtest", title_justify="left")
    table.add_column("")
    for each in compared:
        table.add_column(f"{each.exchange} bot", justify="right")
        table.add_column("backtest", justify="right")
    rows: dict[str, list[str]] = {
        name: [] for name in ("hours", "orders sent", "fills", "position", "wallet", "pnl", "")
    }
    for each in compared:
        said = each.to_json()
        rows["hours"] += [f"{each.hours:.1f}", ""]
        rows["orders sent"] += [str(each.bot.orders), ""]
        for who in ("bot", "backtest"):
            rows["fills"].append(str(said[who]["fills"]))
            rows["position"].append(f"{said[who]['position']:.10g}")
            rows["wallet"].append(f"{said[who]['wallet']:.12g}")
            rows["pnl"].append(f"{said[who]['wallet'] - each.wallet:+.6g}")
        rows[""] += ["[red]different[/]" if each.difference else "[green]equal[/]", ""]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _exit_if_different(compared: list[_Compared]) -> None:
    different = [each for each in compared if each.difference]
    for each in different:
        note(f"Error: {each.exchange}: {each.difference}")
    if different:
        sys.exit(1)


def _picture(name: str, ticks: Ticks, result: BacktestResult) -> str:
    hours = (result.end_ms - result.start_ms) / 3_600_000
    lines = [
        f"{name}: {len(ticks):,} trades, {hours:.1f} hours",
        f"  price  {sparkline(ticks.price)}",
    ]
    if len(result.equity):
        lines.append(f"  equity {sparkline(result.equity['equity'])}")
    return "\n".join(lines)
