"""The public backtest API: golden runs through it, figures by hand, refusals, result folders."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

import passivx
from passivx import ConfigError, DataError, Market, PassivxError, Ticks, backtest_flat
from passivx.backtesting import BacktestResult
from tests.configs import config_of
from tests.golden.compat_cases import N_CASES, load_cases

# A market whose numbers are easy to follow: one quote step, one unit, no minimum notional.
SETTINGS = {
    "inverse": False,
    "price_step": 1.0,
    "qty_step": 1.0,
    "min_qty": 1.0,
    "min_cost": 0.0,
    "maker_fee": 0.001,
    "taker_fee": 0.002,
    "max_leverage": 10,
    "starting_balance": 1000.0,
    "latency_simulation_ms": 0,
    "balance_pct": 1.0,
    "leverage": 1.0,
    "entry_qty_pct": 0.1,
    "ddown_factor": 1.0,
    "ema_span": 1.0,
    "ema_spread": 0.0,
    "grid_coefficient": 0.0,
    "grid_spacing": 0.1,
    "min_markup": 0.05,
    "max_markup": 0.05,
    "min_close_qty_multiplier": 1.0,
    "n_close_orders": 1,
    "stop_loss_liq_diff": 0.0,
    "stop_loss_pos_price_diff": 1e9,
    "stop_loss_pos_reduction": 0.0,
    "do_long": True,
    "do_shrt": False,
}


def make_ticks(*prints: tuple[float, int]) -> Ticks:
    """Build ticks a minute apart from (price, buyer_maker) pairs."""
    price, maker = zip(*prints, strict=True)
    return Ticks.from_arrays(
        price=price,
        qty=[1.0] * len(price),
        ts_ms=[60_000 * i for i in range(len(price))],
        buyer_maker=maker,
    )


def compat_flat(ticks: Ticks, settings: dict[str, object], **how: object) -> BacktestResult:
    return backtest_flat(ticks, settings, **{"engine": "compat", **how})


# Bid 100, ask 101; a seller at 99 fills the buy at 100: 1 = 1000 / 100 * 10 %. The re-entry lies at
# 100 * (1 - 0.1) = 90, a multiple of the coarse step up(100 * 0.1 / 4) = 3; 89 fills it with
# 1 * 1.0. The average is 95; 5 % above it, 99.75 -> 100, lies below the ask of 101, so the close
# waits at 101: only the print at 102 goes through it.
ROUND_TRIP = [(101.0, 0), (100.0, 1), (99.0, 1), (89.0, 1), (101.0, 0), (102.0, 0)]


@pytest.mark.real_data
@pytest.mark.parametrize("index", range(N_CASES))
def test_golden_runs_through_the_public_api(shared, real_data, index):
    case = load_cases(shared)[index]
    ticks = passivx.load_ticks(real_data / case["ticks"])
    result = backtest_flat(ticks, case["settings"], engine="compat")
    assert result.outcome == case["outcome"]
    names = {"trade_id": "tick", "side": "position_side", "type": "kind", "timestamp": "ts_ms",
             "fee_paid": "fee", "actual_balance": "balance",
             "closest_shrt_liq": "closest_short_liq"}  # fmt: skip
    records = result.to_records()
    assert len(records) == case["n_trades"]
    for row, record in zip(case["trades"], records, strict=True):
        for field, expected in zip(case["fields"], row, strict=True):
            value = record[names.get(field, field)]
            if field == "side":
                assert value == {"long": "long", "shrt": "short"}[expected]
            elif expected is None:
                assert math.isnan(value)
            elif field in ("trade_id", "type", "price", "qty", "timestamp"):
                assert value == expected
            else:
                assert value == pytest.approx(expected, rel=1e-9, abs=0)


def test_a_round_trip_by_hand():
    result = compat_flat(make_ticks(*ROUND_TRIP), SETTINGS)
    assert [(r["tick"], r["kind"], r["price"], r["qty"]) for r in result.to_records()] == [
        (2, "entry", 100.0, 1.0),
        (3, "reentry", 90.0, 1.0),
        (5, "close", 101.0, -2.0),
    ]
    last = result.to_records()[-1]
    assert last["pnl"] == 2 * (101 - 95)
    assert last["fee"] == -2 * 101 * 0.001
    assert result.outcome == "end"
    summary = result.summary
    # fees: 100, 90 and 2 * 101 of notional at 0.1 %
    assert summary["fee_sum"] == pytest.approx(-0.392)
    assert summary["net_pnl_plus_fees"] == pytest.approx(12 - 0.392)
    assert summary["gain"] == pytest.approx(1.011608)
    assert summary["n_days"] == 5 / 1440
    assert (summary["n_trades"], summary["n_closes"], summary["n_reentries"]) == (3, 1, 1)
    assert summary["biggest_pos_size"] == 2.0
    assert summary["max_n_hours_between_consec_trades"] == pytest.approx(2 / 60)


def test_equity_counts_the_open_position_at_the_fill_price():
    equity = compat_flat(make_ticks(*ROUND_TRIP), SETTINGS).equity
    assert equity["ts_ms"].tolist() == [120_000, 180_000, 300_000]
    # After the re-entry 2 are held at 95, and the price is 90.
    assert equity["equity"][1] == pytest.approx(equity["wallet"][1] - 2 * 5)
    assert equity["equity"][2] == equity["wallet"][2]


def test_fills_and_records_say_the_same_in_words():
    result = compat_flat(make_ticks(*ROUND_TRIP), SETTINGS)
    assert result.fills["kind"].tolist() == ["entry", "reentry", "close"]
    assert set(result.fills["position_side"]) == {"long"}
    assert list(result.to_records()[0]) == list(result.fills.dtype.names)
    assert result.to_records()[0]["tick"] == int(result.fills["tick"][0])


def test_a_run_without_fills_has_defined_figures():
    result = compat_flat(make_ticks((100.0, 0), (101.0, 0)), SETTINGS)
    assert result.to_records() == []
    assert len(result.equity) == 0
    assert result.summary["gain"] == 1.0
    assert result.summary["closest_liq"] == 1.0
    assert result.summary["max_n_hours_between_consec_trades"] == 0.0


def test_switches_may_be_numbers_and_latency_has_the_originals_default():
    settings = SETTINGS | {"do_long": 1, "do_shrt": 0.0, "inverse": np.False_}
    del settings["latency_simulation_ms"]
    result = compat_flat(make_ticks(*ROUND_TRIP), settings)
    assert len(result.fills) == 3


def test_out_of_range_settings_still_run_in_compat():
    odd = SETTINGS | {"min_markup": 0.05, "max_markup": 0.01, "entry_qty_pct": -0.1}
    assert isinstance(compat_flat(make_ticks(*ROUND_TRIP), odd), BacktestResult)


def test_every_unusable_setting_is_named_at_once():
    bad = SETTINGS | {
        "leverage": 0,
        "price_step": -1.0,
        "grid_spacing": math.nan,
        "ddown_factor": "1.0",
        "do_long": "False",
        "min_markup": True,
        "n_close_orders": 1e12,
        "min_qty": -1.0,
        "starting_balance": 10**400,
    }
    del bad["maker_fee"]
    with pytest.raises(ConfigError) as caught:
        compat_flat(make_ticks(*ROUND_TRIP), bad)
    assert {problem.field for problem in caught.value.problems} == {
        "leverage", "price_step", "grid_spacing", "ddown_factor", "do_long", "min_markup",
        "n_close_orders", "min_qty", "maker_fee", "starting_balance",
    }  # fmt: skip
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "value"), [("engine", "turbo"), ("method", "skip")])
def test_what_is_not_built_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=value):
        backtest_flat(make_ticks(*ROUND_TRIP), SETTINGS, **{name: value})


def test_ticks_of_one_price_are_refused():
    with pytest.raises(DataError, match="different price"):
        compat_flat(make_ticks((100.0, 0), (100.0, 1)), SETTINGS)


@pytest.fixture
def config() -> passivx.Config:
    return config_of(SETTINGS)


def test_a_config_and_a_market_give_what_the_flat_settings_give(config):
    ticks = make_ticks(*ROUND_TRIP)
    market = Market.from_flat(SETTINGS)
    one = passivx.backtest(
        ticks, config, market, starting_balance=1000.0, latency_ms=0, engine="compat"
    )
    assert one.raw_fills.tobytes() == compat_flat(ticks, SETTINGS).raw_fills.tobytes()


def test_result_folder_is_whole_replaces_only_results_and_reads_back(config, tmp_path):
    ticks = make_ticks(*ROUND_TRIP)
    market = Market.from_flat(SETTINGS)
    result = passivx.backtest(ticks, config, market, starting_balance=1000.0, latency_ms=0)
    folder = tmp_path / "deep" / "result"
    for _ in range(2):
        result.save(folder, ticks=ticks, config=config, market=market)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "equity.csv", "fills.csv", "market.json", "summary.json",
    ]  # fmt: skip
    assert [p.name for p in folder.parent.iterdir()] == ["result"]
    with (folder / "fills.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["price"]) for row in rows] == result.fills["price"].tolist()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["summary"]["gain"] == result.summary["gain"]
    assert summary["about"]["ticks"]["sha256"] == ticks.sha256()
    assert passivx.load_config(folder / "config.json") == config
    assert passivx.load_market(folder / "market.json") == market

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(PassivxError, match="a folder of its own"):
        result.save(precious, ticks=ticks, config=config, market=market)
    assert [p.name for p in precious.iterdir()] == ["thesis.txt"]


def test_a_flat_run_saves_the_settings_it_ran_with(config, tmp_path):
    settings = {k: v for k, v in SETTINGS.items() if k != "latency_simulation_ms"}
    ticks = make_ticks(*ROUND_TRIP)
    result = compat_flat(ticks, settings)
    result.save(str(tmp_path / "r"), ticks=ticks, config=config, market=Market.from_flat(SETTINGS))
    about = json.loads((tmp_path / "r" / "summary.json").read_text())["about"]
    assert about["latency_ms"] == 1000.0


def test_the_fill_rule_of_compat_is_its_own():
    ticks = make_ticks(*ROUND_TRIP)
    assert len(compat_flat(ticks, SETTINGS, fill="cross", funding=None).fills) == 3
    for wrong in ({"fill": "touch"}, {"funding": [(0, 0.0001)]}):
        with pytest.raises(ConfigError):
            compat_flat(ticks, SETTINGS, **wrong)


def test_infinite_daily_gain_is_reported_as_such():
    ticks = make_ticks(*ROUND_TRIP)
    quick = Ticks.from_arrays(
        price=ticks.price, qty=ticks.qty, ts_ms=range(6), buyer_maker=ticks.buyer_maker
    )
    # 1.2 % in 5 ms overflows any number of days' power.
    assert compat_flat(quick, SETTINGS).summary["average_daily_gain"] == math.inf
