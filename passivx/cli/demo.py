"""``passivx demo``: the main job end to end, on a market that is made up."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from passivx.backtesting import BacktestResult, backtest, check_result_folder
from passivx.cli.options import DEFAULT_BALANCE_QUOTE, json_option
from passivx.cli.output import console, note, print_json, working
from passivx.config import load_config
from passivx.data.synthetic import BTCUSD, BTCUSDT, MarketProfile, synthetic_trades
from passivx.data.ticks import Ticks
from passivx.models import load_market
from passivx.report.render import sparkline, summary_table
from passivx.workspace import examples_folder

SYNTHETIC = "This market is synthetic: seeded random trades. Its results say nothing about profit."

# One config a market kind: linear on Binance, inverse on Bybit.
_RUNS: dict[str, tuple[MarketProfile, str, str]] = {
    "linear": (BTCUSDT, "live_settings/binance/btcusdt_demo.json", "markets/binance_BTCUSDT.json"),
    "inverse": (BTCUSD, "live_settings/bybit/btcusd_demo.json", "markets/bybit_BTCUSD.json"),
}


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
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default="backtest_results/demo",
    show_default=True,
    help="Where the result folders go.",
)
@json_option
def command(seed: int, n_ticks: int, out: Path, as_json: bool) -> None:
    """Backtest a linear and an inverse config on a synthetic market; no keys, no network.

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
    if as_json:
        print_json(
            {"synthetic": True, "seed": seed, "out": str(out)}
            | {name: result.summary for name, result in results.items()}
        )
        return
    screen = console()
    summaries = {name: result.summary for name, result in results.items()}
    screen.print(f"[bold]passivx demo · synthetic market · seed {seed}[/]")
    screen.print(summary_table(summaries))
    for picture in pictures:
        screen.print(picture)
    screen.print(SYNTHETIC)
    note(f"results written to {out}")


def _picture(name: str, ticks: Ticks, result: BacktestResult) -> str:
    hours = (result.end_ms - result.start_ms) / 3_600_000
    lines = [
        f"{name}: {len(ticks):,} trades, {hours:.1f} hours",
        f"  price  {sparkline(ticks.price)}",
    ]
    if len(result.equity):
        lines.append(f"  equity {sparkline(result.equity['equity'])}")
    return "\n".join(lines)
