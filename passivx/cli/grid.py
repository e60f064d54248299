"""``passivx grid``: the ladder of a config, as a table and a picture."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click
from rich.box import HEAVY_HEAD
from rich.table import Table
from rich.text import Text

from passivx.cli.options import (
    balance_option,
    balance_or_default,
    json_option,
    market_of,
    market_option,
    positive,
    settle_currency,
    tiers_option,
    workspace_option,
)
from passivx.cli.output import console, note, print_json
from passivx.config import load_config
from passivx.models import Position
from passivx.planner import Rung, liquidation_price, plan_rungs
from passivx.report.render import number
from passivx.venue import venue_problems
from passivx.workspace import resolve_config

BAR_WIDTH = 40
FRAMED_WIDTH = 110


def size_at_price(value: str) -> tuple[float, float]:
    """Read SIZE@PRICE; BadParameter when it is anything else."""
    try:
        size, price = (float(part) for part in value.split("@"))
    except ValueError:
        message = f"{value!r} is not SIZE@PRICE, for example 0.5@26500 or -200@0.24"
        raise click.BadParameter(message) from None
    if not (math.isfinite(size) and size != 0.0 and math.isfinite(price) and price > 0.0):
        raise click.BadParameter(f"{value!r}: the size must not be 0 and the price > 0")
    return size, price


@click.command()
@click.argument("config")
@market_option()
@tiers_option
@click.option("--price", required=True, type=positive, metavar="P", help="Last price.")
@balance_option
@click.option(
    "--position",
    type=size_at_price,
    metavar="SIZE@PRICE",
    help="Held position, short < 0, for example 0.5@26500. Default: flat.",
)
@click.option(
    "--funding-rate", type=float, help="Predicted funding rate, for funding_fee_collect_mode."
)
@workspace_option
@json_option
def command(
    config: str,
    market_path: Path,
    tiers_path: Path | None,
    price: float,
    balance: float | None,
    position: tuple[float, float] | None,
    funding_rate: float | None,
    workspace: Path,
    as_json: bool,
) -> None:
    """Show the orders the bot would rest now, and what each fill would leave.

    CONFIG is a file or a name in the workspace. The EMA is taken to be at the price, and the book
    one price step to either side of it.

    \b
    Example:
      passivx grid btcusdt_careful --market markets/binance_BTCUSDT.json --price 60000
    """
    settings = load_config(resolve_config(config, workspace))
    market = market_of(market_path, tiers_path, workspace)
    for warning in settings.warnings:
        note(f"warning: {warning}")
    wallet = balance_or_default(balance, market, price)
    for problem in venue_problems(settings, market, price, wallet):
        note(f"warning: {problem}")
    held = Position()
    if position is not None:
        size, entry = position
        liq = liquidation_price(settings, market, wallet=wallet, size=size, entry_price=entry)
        held = Position(size, entry, liq)
        if liq and math.copysign(1.0, size) * (price - liq) <= 0.0:
            note(f"warning: this position would be liquidated at {number(liq)}, before {price:g}")
    rungs = plan_rungs(
        settings,
        market,
        wallet=wallet,
        last_price=price,
        ema=price,
        position=held,
        funding_rate=funding_rate,
    )
    if as_json:
        print_json(
            {
                "symbol": settings.symbol,
                "price": price,
                "balance": wallet,
                "settle": settle_currency(market),
                "position": asdict(held),
                "orders": [_order(rung) for rung in rungs if rung.order.now],
                "ladder": [_order(rung) | _after(rung) for rung in rungs],
            }
        )
        return
    out = console()
    title = f"{settings.config_name} · {settings.symbol} at {number(price)}"
    out.print(_table(rungs, title, wide=out.width >= FRAMED_WIDTH))
    out.print(_chart(rungs, price))
    if not market.tiers:
        rate = market.tier_records()["maintenance_rate"][0]
        note(f"no tiers in the market file: liquidation at a maintenance rate of {rate:g}")


def _order(rung: Rung) -> dict[str, Any]:
    order = asdict(rung.order)
    return order | {"side": "buy" if rung.order.side > 0 else "sell", "distance": rung.distance}


def _after(rung: Rung) -> dict[str, Any]:
    return {
        "position": rung.position,
        "entry_price": rung.entry_price,
        "liq_price": rung.liq_price,
        "margin": rung.margin,
        "hypothetical": rung.hypothetical,
        "past_liquidation": rung.past_liquidation,
    }


def _when(rung: Rung) -> str:
    if rung.past_liquidation:
        return "liquidated"
    if rung.hypothetical:
        return "then"
    return "now" if rung.order.now else "later"


def _table(rungs: list[Rung], title: str, *, wide: bool) -> Table:
    # A number cut short is a wrong number: in a narrow terminal the frame goes, and what still
    # does not fit is folded.
    frame: dict[str, Any] = {"box": HEAVY_HEAD} if wide else {"box": None, "padding": (0, 0, 0, 1)}
    table = Table(title=title, **frame)
    table.add_column("order", overflow="fold")
    liquidation = "liquidation" if wide else "liq."
    for name in ("price", "distance", "qty", "position", "average", liquidation, "margin"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("when", overflow="fold")
    digits = 8 if wide else 6
    for rung in rungs:
        side = "buy" if rung.order.side > 0 else "sell"
        table.add_row(
            f"{side} {rung.order.kind.replace('_', ' ')}",
            number(rung.order.price, 10),
            f"{rung.distance * 100:+.2f} %",
            number(rung.order.qty, 10),
            number(rung.position, 10),
            number(rung.entry_price, digits),
            number(rung.liq_price, digits) if rung.liq_price else "–",
            number(rung.margin, 6 if wide else 4),
            _when(rung),
            style="red" if rung.past_liquidation else "" if rung.order.now else "dim",
        )
    if not rungs:
        table.add_row("nothing: no side is allowed, or the balance is below the minimum")
    return table


def _chart(rungs: list[Rung], price: float) -> Text:
    """Prices from high to low, a bar as long as the order is large; red sells, green buys."""
    text = Text()
    longest = max((rung.order.qty for rung in rungs), default=1.0)
    levels = [(rung.order.price, rung) for rung in rungs]
    rows: list[tuple[float, Rung | None]] = sorted(
        [*levels, (price, None)], key=lambda row: row[0], reverse=True
    )
    width = max(len(number(level, 10)) for level, _ in rows)
    for level, rung in rows:
        label = number(level, 10).rjust(width)
        if rung is None:
            text.append(f"{label} ┤ last price\n", style="bold")
            continue
        bar = "█" * max(1, round(rung.order.qty / longest * BAR_WIDTH))
        style = "green" if rung.order.side > 0 else "red"
        text.append(f"{label} │")
        text.append(bar, style=style if rung.order.now else f"dim {style}")
        text.append(f" {number(rung.order.qty, 10)}\n")
    return text
