"""The promise of the live bot: on the same market it fills as the backtest does, bit for bit.

The bot runs as it does for money (engine, core, journal) on the venue of `tests.live.world`; the
backtest runs on the same ticks, and on the funding that the venue settled. Compared are time,
price, signed quantity and kind of every fill, and the wallet after it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx import backtest
from passivx.config import Config, load_config
from passivx.data.synthetic import BTCUSD, BTCUSDT, synthetic_trades
from passivx.data.ticks import Ticks, load_ticks
from passivx.live.core import LIQUIDATED
from passivx.live.events import Note
from passivx.live.journal import Entry, read_entries
from passivx.models import Market
from tests.configs import documents, put
from tests.live.world import World, run_to_end

# Wilder than the presets, so that a few thousand prints go somewhere.
LINEAR = replace(BTCUSDT, news_volatility=0.08, jump_size=0.006, jumps_per_hour=20.0)
INVERSE = replace(
    BTCUSD, news_volatility=0.05, jump_size=0.006, jumps_per_hour=8.0, prints_per_second=8.0
)
MARKETS = {
    "binance": Market(
        price_step=0.1,
        qty_step=0.001,
        min_qty=0.001,
        min_cost=5.0,
        maker_fee=0.0002,
        taker_fee=0.0005,
        max_leverage=125.0,
        inverse=False,
    ),
    "bybit": Market(
        price_step=0.5,
        qty_step=1.0,
        min_qty=1.0,
        min_cost=0.0,
        maker_fee=-0.0001,
        taker_fee=0.00055,
        max_leverage=100.0,
        inverse=True,
    ),
}
SYMBOLS = {"binance": "BTCUSDT", "bybit": "BTCUSD"}
PROFILES = {"binance": LINEAR, "bybit": INVERSE}
BASE: dict[str, Any] = {
    "config_name": "same",
    "symbol": "",
    "cross_mode": True,
    "balance_pct": 0.5,
    "leverage": 5,
    "entry_qty_pct": 0.04,
    "ddown_factor": 0.6,
    "grid_spacing": 0.0012,
    "grid_coefficient": 5.0,
    "n_entry_orders": 6,
    "min_markup": 0.0008,
    "max_markup": 0.003,
    "n_close_orders": 5,
    "min_close_qty_multiplier": 0.3,
    "indicator_settings": {
        "tick_ema": {"span": 500, "spread": 0.0002},
        "do_long": True,
        "do_shrt": True,
    },
    "stop_loss_liq_diff": 0.05,
    "stop_loss_pos_price_diff": 0.004,
    "stop_loss_pos_reduction": 0.2,
    "market_stop_loss": False,
}
# Name: what is changed, latency in ms.
CASES: dict[str, tuple[dict[str, Any], float]] = {
    "busy": ({}, 100.0),
    "no latency": ({}, 0.0),
    "short latency": ({"grid_spacing": 0.0008}, 33.0),
    "sparse": ({"grid_spacing": 0.01, "min_markup": 0.004, "max_markup": 0.01}, 100.0),
    "market stop": ({"market_stop_loss": True}, 100.0),
    "market stop without latency": ({"market_stop_loss": True}, 0.0),
    "big stop": ({"stop_loss_pos_reduction": 1.0, "stop_loss_pos_price_diff": 0.002}, 33.0),
    # Each print is at the stop level, whatever is left of the position.
    "stop after stop": (
        {
            "cross_mode": False,
            "leverage": 1,
            "balance_pct": 1.0,
            "entry_qty_pct": 1.0,
            "stop_loss_liq_diff": 0.5,
            "stop_loss_pos_reduction": 0.5,
            "market_stop_loss": True,
            "requote_ms": 100,
            "indicator_settings.do_long": False,
        },
        33.0,
    ),
    "one at a time": ({"orders_per_batch": 1, "n_close_orders": 8}, 100.0),
    "large groups": ({"orders_per_batch": 50, "n_close_orders": 12}, 33.0),
    "requoted often": ({"requote_ms": 100, "requote_tolerance": 0.0}, 33.0),
    "book of trades": ({"book": "trades"}, 100.0),
    "isolated": ({"cross_mode": False, "leverage": 20}, 100.0),
    "long only": ({"indicator_settings.do_shrt": False}, 100.0),
    "short only": ({"indicator_settings.do_long": False}, 0.0),
    "of the last price": (
        {"indicator_settings.tick_ema.span": 1, "indicator_settings.tick_ema.spread": 0.0},
        100.0,
    ),
}

# File, first row, price step, quantity step.
REAL = [
    ("binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz", 40_000, 0.001, 0.1),
    ("binance_usdm/BTCUSDT-trades-2024-08-08T2354.csv.gz", 5_000, 0.1, 0.001),
    ("binance_coinm/TRXUSD_PERP-trades-2025-03-04T00.csv.gz", 0, 0.00001, 1.0),
]

# Refusals that the backtest knows; to cancel what has just filled is the same in both.
_ALIKE = ("would_take", "would_not_reduce", "unknown_order", "finished_order")

Row = tuple[int, float, float, str]


def config_of(exchange: str, changes: Mapping[str, Any] | None = None) -> Config:
    document: dict[str, Any] = load_config({**BASE, "symbol": SYMBOLS[exchange]}).model_dump()
    for path, value in (changes or {}).items():
        put(document, path, value)
    return load_config(document)


def compare(
    exchange: str,
    config: Config,
    market: Market,
    ticks: Ticks,
    *,
    latency_ms: float,
    wallet: float,
    may_differ: bool = False,
) -> list[Row]:
    """Run both, demand that they are the same, and return the fills.

    ``may_differ``: from the first refusal on that is the venue's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        world = World(exchange, config, market, ticks, path, wallet=wallet, latency_ms=latency_ms)
        # Every few minutes rather than hours, at times that are no multiple of a requote.
        world.venue.set_listing(replace(world.venue.listing, funding_interval_ms=777_777))
        heard = Heard()
        run_to_end(world, watcher=heard)
        told = list(read_entries(path))
    result = backtest(
        ticks,
        config,
        market,
        starting_balance=wallet,
        latency_ms=latency_ms,
        funding=[(ts_ms, rate) for ts_ms, rate, _ in world.venue.rates],
    )
    assert world.engine is not None
    core = world.engine.core
    assert core is not None
    # What was on its way at the end arrived while the bot stopped; for a backtest it is lost.
    until_ms = int(ticks.ts_ms[-1]) + 1
    refusals = [entry.ts_ms for entry in told if _is_venues_own(entry)]
    if unlike := refusals + heard.reducing_ms:
        assert may_differ, f"unlike a backtest: refusals or caution, at {sorted(unlike)}"
        until_ms = min(until_ms, *unlike)
    expected = result.fills[
        (result.fills["ts_ms"] < until_ms) & (result.fills["kind"] != "funding")
    ]
    fills = [
        entry.body
        for entry in told
        if entry.type == "fill" and entry.body["venue_ts_ms"] < until_ms
    ]
    rows = [
        (body["venue_ts_ms"], body["price"], body["side"] * body["qty"], body["cause"])
        for body in fills
    ]
    assert rows == [
        (int(r["ts_ms"]), float(r["price"]), float(r["qty"]), str(r["kind"])) for r in expected
    ]
    assert [body["wallet"] for body in fills] == expected["balance"].tolist()
    # What was paid while there was a position, both have booked.
    paid = result.fills[(result.fills["ts_ms"] < until_ms) & (result.fills["kind"] == "funding")]
    assert [
        (entry.body["venue_ts_ms"], entry.body["amount"])
        for entry in told
        if entry.type == "payment" and entry.body["venue_ts_ms"] < until_ms
    ] == [(int(r["ts_ms"]), float(r["pnl"])) for r in paid]
    executions = [each for each in world.venue.executions if each.ts_ms < until_ms]
    assert [(each.ts_ms, each.price, each.side * each.qty) for each in executions] == [
        row[:3] for row in rows
    ]
    assert core.bot.account[0] == world.venue.wallet
    assert core.bot.account[2] == world.venue.size
    # Also one that came after the two went different ways.
    if not any(each.kind == "liquidation" for each in world.venue.executions):
        assert not core.halted
    return rows


class Heard:
    """Hears when the bot became cautious, which a backtest never does."""

    def __init__(self) -> None:
        self.reducing_ms: list[int] = []

    def note(self, note: Note, ts_ms: int) -> None:
        if note.event in ("reducing", "halted") and note.fields.get("why") != LIQUIDATED:
            self.reducing_ms.append(ts_ms)

    def entry(self, kind: str, key: str, body: Mapping[str, Any]) -> None: ...
    def trade(
        self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool
    ) -> None: ...
    def status(self, status: Mapping[str, Any]) -> None: ...


def _is_venues_own(entry: Entry) -> bool:
    """Tell whether the venue refused what the backtest's venue would have taken.

    Binance counts the closes that rest against the position, so that a market stop waits for their
    cancels; both want margin, and know a most of open orders.
    """
    body = entry.body
    return (
        entry.type == "outcome"
        and body["verdict"] == "rejected"
        and body["text"].partition(" ")[0] not in _ALIKE
    )


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
@pytest.mark.parametrize("name", CASES)
def test_the_bot_fills_as_the_backtest_does(name: str, exchange: str) -> None:
    changes, latency_ms = CASES[name]
    ticks = synthetic_trades(3, 9_000, profile=PROFILES[exchange])
    rows = compare(
        exchange,
        config_of(exchange, changes),
        MARKETS[exchange],
        ticks,
        latency_ms=latency_ms,
        wallet=MARKETS[exchange].in_settle(10_000.0, float(ticks.price[0])),
        may_differ=name == "stop after stop",
    )
    kinds = {row[3] for row in rows}
    assert "entry" in kinds
    assert len(rows) >= 30 or name in ("sparse", "stop after stop"), "so few fills prove little"
    if "stop" in name:
        assert kinds & {"stop_loss_pos_price_diff", "stop_loss_liq_diff"}


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "start", "step", "qty_step"), REAL)
@pytest.mark.parametrize("latency_ms", [0.0, 33.0, 100.0])
def test_on_recorded_trades(
    name: str, start: int, step: float, qty_step: float, latency_ms: float, real_data: Path
) -> None:
    ticks = load_ticks(real_data / name)[start : start + 8_000]
    inverse = "coinm" in name
    market = replace(
        MARKETS["bybit" if inverse else "binance"],
        price_step=step,
        qty_step=qty_step,
        min_qty=qty_step,
    )
    exchange = "bybit" if inverse else "binance"
    changes = {
        "grid_spacing": 0.0003,
        "min_markup": 0.0002,
        "max_markup": 0.0008,
        "stop_loss_pos_price_diff": 0.002,
    }
    rows = compare(
        exchange,
        config_of(exchange, changes),
        market,
        ticks,
        latency_ms=latency_ms,
        wallet=market.in_settle(100_000.0, float(ticks.price[0])),
    )
    assert len(rows) >= 8


@st.composite
def runs(draw: st.DrawFn) -> tuple[str, Config, int, int, float]:
    """Exchange, any config that both venues take, seed and number of ticks, latency."""
    exchange = draw(st.sampled_from(["binance", "bybit"]))
    document = draw(documents())
    document["symbol"] = SYMBOLS[exchange]
    document["config_name"] = "drawn"
    document["leverage"] = draw(st.floats(1.0, 50.0))
    # What trades: a grid of thousandths, not one that waits for a crash.
    document["grid_spacing"] = draw(st.floats(0.0003, 0.01))
    document["grid_coefficient"] = draw(st.floats(0.0, 50.0))
    document["min_markup"] = draw(st.floats(0.0002, 0.003))
    document["max_markup"] = document["min_markup"] + draw(st.floats(0.0, 0.005))
    document["stop_loss_pos_price_diff"] = draw(st.floats(0.0005, 0.02))
    document["indicator_settings"]["tick_ema"]["span"] = draw(st.floats(1.0, 5000.0))
    document["indicator_settings"]["tick_ema"]["spread"] = draw(st.floats(0.0, 0.001))
    # Looks at the predicted funding, which a backtest does not know.
    document["indicator_settings"]["funding_fee_collect_mode"] = False
    document["requote_ms"] = draw(st.sampled_from([100, 250, 1000, 5000, 7777]))
    return (
        exchange,
        load_config(document),
        draw(st.integers(0, 1 << 30)),
        draw(st.sampled_from([400, 1500])),
        draw(st.sampled_from([0.0, 1.0, 33.0, 100.0, 250.5])),
    )


def check_run(drawn: tuple[str, Config, int, int, float]) -> None:
    exchange, config, seed, n_ticks, latency_ms = drawn
    ticks = synthetic_trades(seed, n_ticks, profile=PROFILES[exchange])
    market = MARKETS[exchange]
    wallet = market.in_settle(20_000.0, float(ticks.price[0]))
    compare(exchange, config, market, ticks, latency_ms=latency_ms, wallet=wallet, may_differ=True)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_with_any_config(drawn: tuple[str, Config, int, int, float]) -> None:
    check_run(drawn)


@pytest.mark.nightly
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(runs())
def test_with_many_configs(drawn: tuple[str, Config, int, int, float]) -> None:
    check_run(drawn)
