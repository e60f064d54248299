"""The public API with engine exact: runs by hand, what it refuses, what it promises.

The market of the runs by hand: prices and quantities in whole units, linear, maker fee 0.1 %, taker
fee 0.2 %; wallet 1000, leverage 1, longs only; latency 100 ms. The first print is at 1 ms, so that
no requote comes between.

- first entry: floor(1000 / 100 × 1 × 0.1) = 1 at the price of the EMA (span 1: the last price);
- re-entry of 1 at 100 × 0.9 = 90, a multiple of the coarse step ceil(100 × 0.1 / 4) = 3;
- close 5 % above the average entry, rounded up.
"""

from __future__ import annotations

import csv
import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import passivx
from passivx import ConfigError, DataError, Market, Ticks, backtest_flat
from passivx._core import exact
from passivx.backtesting import BacktestResult
from passivx.candidates import exact_from_flat, with_defaults
from passivx.data.funding import load_funding
from passivx.data.synthetic import BTCUSD, BTCUSDT, synthetic_trades
from tests.configs import config_of
from tests.core.exact_scenarios import draw
from tests.reference.exact_door import run_engine
from tests.test_backtesting import SETTINGS as COMPAT_SETTINGS

SETTINGS: dict[str, Any] = {
    name: value for name, value in COMPAT_SETTINGS.items() if name != "latency_simulation_ms"
} | {"max_order_distance": 1.0}
Print = tuple[int, float, str] | tuple[int, float, str, float]


def make_ticks(*prints: Print) -> Ticks:
    """Ticks of (ms, price, what it hits: 'buys' or 'sells'[, quantity])."""
    return Ticks.from_arrays(
        price=[p[1] for p in prints],
        qty=[p[3] if len(p) > 3 else 1.0 for p in prints],
        ts_ms=[p[0] for p in prints],
        buyer_maker=[p[2] == "buys" for p in prints],
    )


def run(*prints: Print, **changes: Any) -> BacktestResult:
    how = {name: changes.pop(name) for name in ("fill", "queue_share", "funding", "break_on")
           if name in changes}  # fmt: skip
    return backtest_flat(make_ticks(*prints), SETTINGS | changes, **how)


# The buy of 1 at 100 is sent at 1 and rests from 101 on, after that millisecond's print: 102 fills
# it. Its re-entry at 90 and close at 105 are sent at 102 and rest from 202 on: 203 fills 90.
# Average (100 + 90) / 2 = 95; the close moves to ceil(95 × 1.05 = 99.75) = 100: the cancel leaves
# at 203 and arrives at 303, the new one leaves then and rests from 403 on: 404 fills 2.
ROUND_TRIP: list[Print] = [
    (1, 100.0, "buys"),
    (101, 99.0, "buys"),
    (102, 99.0, "buys"),
    (202, 89.0, "buys"),
    (203, 89.0, "buys"),
    (403, 101.0, "sells"),
    (404, 102.0, "sells"),
]


def test_a_round_trip_by_hand():
    result = run(*ROUND_TRIP)
    names = ("tick", "ts_ms", "position_side", "kind", "price", "qty", "pos_size", "pos_price")
    assert [tuple(record[name] for name in names) for record in result.to_records()] == [
        (2, 102, "long", "entry", 100.0, 1.0, 1.0, 100.0),
        (4, 203, "long", "reentry", 90.0, 1.0, 2.0, 95.0),
        (6, 404, "long", "close", 100.0, -2.0, 0.0, 0.0),
    ]
    fills = result.fills
    assert fills["fee"].tolist() == pytest.approx([-0.1, -0.09, -0.2])
    assert fills["pnl"].tolist() == [0.0, 0.0, 10.0]  # 2 × (100 - 95)
    assert fills["balance"].tolist() == pytest.approx([999.9, 999.81, 1009.61])
    # Cross: (999.9 - 100) / ... < 0: a wallet larger than the position has no level.
    assert fills["liq_price"].tolist() == [0.0, 0.0, 0.0]
    assert result.equity.tolist() == [
        (1, 1000.0, 1000.0),
        (102, 999.9, pytest.approx(998.9)),  # 1 × (99 - 100)
        (203, pytest.approx(999.81), pytest.approx(987.81)),  # 2 × (89 - 95)
        (404, pytest.approx(1009.61), pytest.approx(1009.61)),
        (404, pytest.approx(1009.61), pytest.approx(1009.61)),  # the end
    ]
    summary = result.summary
    assert summary["gain"] == pytest.approx(1.00961)
    assert summary["net_pnl_plus_fees"] == pytest.approx(9.61)
    assert (summary["profit_sum"], summary["fee_sum"]) == (10.0, pytest.approx(-0.39))
    assert summary["volume"] == 390.0
    assert summary["worst_open_loss"] == -12.0
    assert summary["exposure"] == pytest.approx(302 / 403)
    assert (result.outcome, result.n_ticks, result.start_ms, result.end_ms) == ("end", 7, 1, 404)


@pytest.mark.parametrize(
    ("latency_ms", "tick"),
    [
        (0, 1),  # not even then by a print of the millisecond it was sent in
        (100, 2),
        (101, 3),  # rests from 102 on, after that print
        (101.5, 3),  # 102.5: the next whole millisecond is 103
    ],
)
def test_a_later_order_misses_its_print(latency_ms, tick):
    assert run(*ROUND_TRIP, latency_simulation_ms=latency_ms).fills["tick"][0] == tick


def test_cancels_may_take_another_time():
    # With cancels at once the new close leaves at 203 and rests from 303 on.
    prints = [*ROUND_TRIP[:5], (304, 102.0, "sells"), (500, 90.0, "buys")]
    assert run(*prints).fills["kind"].tolist() == ["entry", "reentry"]
    quick = run(*prints, cancel_latency_ms=0)
    assert quick.fills["kind"].tolist()[:3] == ["entry", "reentry", "close"]
    assert quick.fills["ts_ms"][2] == 304


def test_funding_by_hand():
    series = [(0, 0.5), (50, 0.5), (150, 0.01), (250, -0.02), (9_999, 0.5)]
    records = run(*ROUND_TRIP, funding=series).to_records()
    assert [r["kind"] for r in records] == ["entry", "funding", "reentry", "funding", "close"]
    first, second = records[1], records[3]
    # Long 1 at a last price of 99 pays 0.99; long 2 at 89 are paid 2 × 89 × 0.02.
    assert (first["pnl"], second["pnl"]) == (pytest.approx(-0.99), pytest.approx(3.56))
    assert (first["ts_ms"], first["tick"]) == (150, 2)
    assert (first["price"], first["qty"], first["fee"]) == (99.0, 0.0, 0.0)
    summary = run(*ROUND_TRIP, funding=series).summary
    assert summary["funding_sum"] == pytest.approx(2.57)
    assert (summary["n_fundings"], summary["n_trades"]) == (2, 3)
    assert summary["net_pnl_plus_fees"] == pytest.approx(9.61 + 2.57)


# Leverage 10, isolated: 90 at 100 (floor(1000 / 100 × 10 × 0.9)), margin 900, wallet 991 after the
# fee. Without tiers L = (900 - 9000) / (90 × 0.004 - 90) = 8100 / 89.64 = 90.36.
LEVERED = {"leverage": 10, "entry_qty_pct": 0.9, "cross_mode": False, "liquidation_fee": 0.005}
# From 8000 on 2 %, deduction 8000 × 0.016: L = (900 + 128 - 9000) / (1.8 - 90) = 7972 / 88.2.
TIERS = [
    {"floor": 0.0, "maintenance_rate": 0.004},
    {"floor": 8000.0, "maintenance_rate": 0.02, "deduction": 128.0},
]


def test_liquidation_by_hand_and_the_tiers_move_it():
    prints = [*ROUND_TRIP[:3], (150, 91.0, "buys"), (151, 90.0, "buys"), (152, 100.0, "sells")]
    plain, tiered = run(*prints, **LEVERED), run(*prints, **LEVERED, tiers=TIERS)
    assert plain.fills["liq_price"][0] == pytest.approx(8100 / 89.64)
    level = 7972 / 88.2
    assert tiered.fills["liq_price"][0] == pytest.approx(level)
    entry, end = tiered.to_records()
    assert (entry["qty"], entry["fee"]) == (90.0, pytest.approx(-9.0))
    assert (end["kind"], end["position_side"], end["qty"]) == ("liquidation", "long", -90.0)
    assert (end["ts_ms"], end["price"]) == (151, pytest.approx(level))
    assert end["fee"] == pytest.approx(-90 * level * 0.007)  # taker and liquidation: 56.9
    # 90 × (90.39 - 100) = -865.3 and the fee are more than the margin of 900: 91 are left.
    assert end["pnl"] == pytest.approx(-900 - end["fee"])
    assert end["balance"] == pytest.approx(91.0)
    assert (end["pos_size"], end["liq_price"], end["closest_liq"]) == (0.0, 0.0, 1.0)
    assert tiered.outcome == "long_liquidation"
    assert (tiered.n_ticks, tiered.equity["ts_ms"][-1], tiered.end_ms) == (5, 151, 151)
    summary = tiered.summary
    assert summary["closest_liq"] == 0.0
    assert summary["n_liquidations"] == 1
    assert summary["n_days"] == 150 / 86_400_000  # as long as it lasted
    assert [a.split()[0] for a in tiered.assumptions] == ["no"]  # funding
    assert plain.assumptions[0].startswith("maintenance margin 0.4%")


def test_a_short_is_liquidated_by_its_own_name():
    prints = [(1, 100.0, "sells"), (102, 101.0, "sells"), (202, 200.0, "sells")]
    result = run(*prints, **LEVERED, do_long=False, do_shrt=True)
    assert result.outcome == "shrt_liquidation"
    assert result.fills["position_side"].tolist() == ["short", "short"]


# --- longer runs ---


def synthetic(seed: int, *, inverse: bool = False, n: int = 60_000) -> tuple[Ticks, dict[str, Any]]:
    """Ticks of the synthetic market and settings that trade often there."""
    ticks = synthetic_trades(seed, n, profile=BTCUSD if inverse else BTCUSDT)
    steps = {"price_step": 0.5, "qty_step": 1.0} if inverse else \
        {"price_step": 0.1, "qty_step": 0.001}  # fmt: skip
    settings = SETTINGS | steps | {
        "inverse": inverse,
        "min_qty": steps["qty_step"],
        "max_leverage": 125,
        "maker_fee": 0.0002,
        "taker_fee": 0.0005,
        "leverage": 10,
        "starting_balance": 0.1 if inverse else 10_000.0,
        "entry_qty_pct": 0.05,
        "grid_spacing": 0.0005,
        "min_markup": 0.0002,
        "max_markup": 0.0006,
        "n_close_orders": 5,
        "stop_loss_pos_price_diff": 0.004,
        "stop_loss_pos_reduction": 0.1,
        "do_shrt": True,
    }  # fmt: skip
    return ticks, settings


def hourly(ticks: Ticks, rate: float = 0.0003) -> list[tuple[int, float]]:
    first, last = int(ticks.ts_ms[0]), int(ticks.ts_ms[-1])
    return [(t, rate) for t in range(-(-first // 60_000) * 60_000, last, 60_000)]


@pytest.mark.parametrize("fill", passivx.backtesting.FILLS)
@pytest.mark.parametrize("inverse", [False, True])
def test_what_holds_of_a_longer_run(fill, inverse):
    ticks, settings = synthetic(7, inverse=inverse)
    result = backtest_flat(ticks, settings, fill=fill, queue_share=0.5, funding=hourly(ticks))
    fills, summary = result.fills, result.summary
    assert summary["n_trades"] > 20
    assert {"entry", "reentry", "close", "funding"} <= set(fills["kind"])

    # The equity identity.
    moved = fills["pnl"].sum() + fills["fee"].sum()
    balance = settings["starting_balance"]
    assert summary["final_wallet"] == pytest.approx(balance + moved, rel=1e-12)
    assert summary["net_pnl_plus_fees"] == pytest.approx(moved, rel=1e-9)
    size, entry, last = fills["pos_size"][-1], fills["pos_price"][-1], ticks.price[-1]
    open_pnl = 0.0
    if size:
        open_pnl = size * (1 / entry - 1 / last) if inverse else size * (last - entry)
    assert summary["final_equity"] == pytest.approx(balance + moved + open_pnl, rel=1e-12)
    parts = ("profit_sum", "loss_sum", "fee_sum", "funding_sum")
    assert sum(summary[name] for name in parts) == pytest.approx(moved, rel=1e-9)

    # Every price and quantity is the double of the venue's decimal string.
    for name, step in (("price", settings["price_step"]), ("qty", settings["qty_step"])):
        exact_step = Decimal(str(step))
        for value in fills[name][fills["kind"] != "liquidation"].tolist():
            k = round(Decimal(value) / exact_step)
            assert float(str(k * exact_step)) == value
    times = result.equity["ts_ms"]
    assert np.all(np.diff(times) >= 0)
    assert (times[0], times[-1]) == (result.start_ms, result.end_ms)


def test_the_same_run_twice_is_the_same_to_the_byte():
    ticks, settings = synthetic(11)
    one, two = (backtest_flat(ticks, settings, funding=hourly(ticks)) for _ in range(2))
    assert one.raw_fills.tobytes() == two.raw_fills.tobytes()
    assert one.equity.tobytes() == two.equity.tobytes()
    assert one.summary == two.summary
    assert len(one.fills) > 20


def test_the_size_of_a_chunk_changes_nothing():
    for seed in range(20):
        scenario = draw(seed)
        whole = run_engine(scenario)
        for chunk in (1, 7, 500):
            assert run_engine(scenario, chunk=chunk) == whole, f"seed {seed}, chunk {chunk}"


def test_progress_is_called_with_what_is_done():
    ticks, settings = synthetic(3)
    done: list[int] = []
    backtest_flat(ticks, settings, progress=done.append)
    assert done == [len(ticks)]
    # In chunks it rises, and ends with all of them.
    run_ = exact_from_flat(with_defaults(settings, "exact"), fill="cross", queue_share=0.0)
    done.clear()
    exact.run(
        ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker, run_.record(),
        run_.market.tier_records(), load_funding([]), chunk=3000, progress=done.append,
    )  # fmt: skip
    assert len(done) >= 6
    assert done == sorted(done)
    assert done[-1] == len(ticks)


def test_an_interrupt_in_progress_reaches_the_caller():
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backtest_flat(make_ticks(*ROUND_TRIP), SETTINGS, progress=stop)


# --- break_on ---


def test_a_broken_run_is_the_unbroken_one_cut_after_the_record():
    ticks, settings = synthetic(5)
    whole = backtest_flat(ticks, settings)
    entries = [
        ["OFF: never", "lambda trades, ticks, k: True"],
        ["ON: too many", "lambda trades, ticks, k: len(trades) >= 1000"],
        ["ON: twelve", "lambda trades, ticks, k: len(trades) >= 12"],
    ]
    for rules in (entries, passivx.breaks.compile_break_on(entries)):
        cut = backtest_flat(ticks, settings, break_on=rules)
        assert cut.outcome == "break:twelve"
        assert len(cut.fills) == 12
        assert cut.raw_fills.tobytes() == whole.raw_fills[:12].tobytes()
        assert cut.equity.tobytes() == whole.equity[: len(cut.equity)].tobytes()
        assert cut.equity["ts_ms"][-1] == cut.fills["ts_ms"][-1]
        assert cut.n_ticks == cut.fills["tick"][-1] + 1 < whole.n_ticks
        assert cut.summary["outcome"] == "break:twelve"
        assert cut.end_ms == cut.fills["ts_ms"][-1]
        assert cut.last_price == ticks.price[cut.n_ticks - 1]
        assert cut.how["break_on"] == entries[1:]


def test_a_condition_that_never_holds_changes_nothing():
    never = [["ON: never", "lambda trades, ticks, k: trades[-1]['price'] < 0"]]
    with_it, without = run(*ROUND_TRIP, break_on=never), run(*ROUND_TRIP)
    assert with_it.outcome == "end"
    assert with_it.raw_fills.tobytes() == without.raw_fills.tobytes()


def test_a_liquidation_ends_the_run_by_its_own_name():
    prints = [*ROUND_TRIP[:3], (151, 90.0, "buys")]
    on = [["ON: held", "lambda trades, ticks, k: trades[-1]['type'] == 'liquidation'"]]
    assert run(*prints, **LEVERED, break_on=on).outcome == "long_liquidation"
    first = [["ON: first", "lambda trades, ticks, k: True"]]
    broken = run(*prints, **LEVERED, break_on=first)
    assert (broken.outcome, len(broken.fills)) == ("break:first", 1)


# --- in and out ---


def test_records_have_the_documented_names_and_types():
    records = run(*ROUND_TRIP, funding=[(150, 0.01)]).to_records()
    whole, text = ("tick", "ts_ms"), ("position_side", "kind")
    numbers = ("price", "qty", "pos_size", "pos_price", "liq_price", "pnl", "fee", "balance",
               "closest_liq")  # fmt: skip
    for record in records:
        assert list(record) == [*whole, *text, *numbers]
        assert [type(record[n]) for n in whole] == [int] * 2
        assert [type(record[n]) for n in text] == [str] * 2
        assert [type(record[n]) for n in numbers] == [float] * 9
    json.dumps(records, allow_nan=False)


def test_the_summary_has_every_figure_and_all_are_finite():
    summary = run(*ROUND_TRIP).summary
    assert list(summary)[:3] == ["engine", "outcome", "starting_balance"]
    assert {"final_wallet", "final_equity", "gain", "average_daily_gain", "loss_sum",
            "max_drawdown", "sharpe", "sortino", "n_stop_loss_liq_diff", "mean_margin_use",
            "funding_sum", "assumptions"} <= set(summary)  # fmt: skip
    json.dumps(summary, allow_nan=False)
    nothing = run((1, 100.0, "buys")).summary
    assert nothing["n_trades"] == 0
    assert nothing["gain"] == 1.0
    assert nothing["closest_liq"] == 1.0
    json.dumps(nothing, allow_nan=False)


def config() -> passivx.Config:
    """The config that says what SETTINGS say."""
    return config_of(SETTINGS)


def test_a_config_and_a_market_give_what_flat_settings_give():
    ticks = make_ticks(*ROUND_TRIP)
    how: dict[str, Any] = {"fill": "touch", "funding": [(150, 0.01)]}
    for latency, flat in (({}, {}), ({"latency_ms": 50}, {"latency_simulation_ms": 50})):
        one = passivx.backtest(
            ticks, config(), Market.from_flat(SETTINGS), starting_balance=1000.0,
            cancel_latency_ms=10, **latency, **how,
        )  # fmt: skip
        two = backtest_flat(ticks, SETTINGS | flat | {"cancel_latency_ms": 10}, **how)
        assert one.raw_fills.tobytes() == two.raw_fills.tobytes()
        assert one.equity.tobytes() == two.equity.tobytes()
        assert one.summary == two.summary
        assert len(one.fills) >= 3
        kept = {k: v for k, v in one.settings.items() if k not in ("config_name", "symbol")}
        assert kept == {k: two.settings[k] for k in kept}
        # What ran can be run again.
        again = backtest_flat(ticks, one.settings, **how)
        assert again.raw_fills.tobytes() == one.raw_fills.tobytes()


def test_what_flat_settings_may_leave_out():
    result = run(*ROUND_TRIP)
    assert {name: result.settings[name] for name in (
        "n_entry_orders", "market_stop_loss", "cross_mode", "latency_simulation_ms",
        "cancel_latency_ms", "funding_fee_collect_mode",
    )} == {
        "n_entry_orders": 8, "market_stop_loss": False, "cross_mode": True,
        "latency_simulation_ms": 100.0, "cancel_latency_ms": 100.0,
        "funding_fee_collect_mode": False,
    }  # fmt: skip
    assert result.how == {
        "cancel_latency_ms": 100.0, "fill": "cross", "queue_share": 0.0, "funding_rates": 0,
        "break_on": [],
    }  # fmt: skip
    sides = {k: v for k, v in SETTINGS.items() if k not in ("do_long", "do_shrt")}
    both = backtest_flat(make_ticks((1, 100.0, "buys")), sides).settings
    assert (both["do_long"], both["do_shrt"]) == (True, True)
    assert backtest_flat(make_ticks(*ROUND_TRIP), SETTINGS | {"not_a_setting": object()})


def test_switches_may_be_numbers():
    numbers = {"do_long": 1, "do_shrt": 0.0, "inverse": np.False_, "cross_mode": np.int64(1),
               "market_stop_loss": 0, "funding_fee_collect_mode": 0.0}  # fmt: skip
    assert run(*ROUND_TRIP, **numbers).raw_fills.tobytes() == run(*ROUND_TRIP).raw_fills.tobytes()
    for wrong in (2, 0.5, "true", math.nan):
        with pytest.raises(ConfigError, match="do_long: must be true or false"):
            run(*ROUND_TRIP, do_long=wrong)


def test_a_result_folder_reads_back(tmp_path):
    ticks = make_ticks(*ROUND_TRIP)
    market = Market.from_flat(SETTINGS | {"tiers": TIERS})
    result = passivx.backtest(
        ticks, config(), market, starting_balance=1000.0, cancel_latency_ms=10, fill="touch",
        funding=[(150, 0.01)],
    )  # fmt: skip
    result.save(tmp_path / "r", ticks=ticks, config=config(), market=market)
    about, summary = json.loads((tmp_path / "r" / "summary.json").read_text()).values()
    assert summary == json.loads(json.dumps(result.summary))
    assert {k: about[k] for k in ("latency_ms", "cancel_latency_ms", "fill", "queue_share",
                                  "funding_rates", "break_on", "starting_balance")} == {
        "latency_ms": 100.0, "cancel_latency_ms": 10, "fill": "touch", "queue_share": 0.0,
        "funding_rates": 1, "break_on": [], "starting_balance": 1000.0,
    }  # fmt: skip
    for name, table in (("fills", result.fills), ("equity", result.equity)):
        with (tmp_path / "r" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(table) > 3
        for row, record in zip(rows, table, strict=True):
            assert list(row) == list(table.dtype.names or ())
            for field, text in row.items():
                assert type(record[field].item())(text) == record[field].item()
    assert passivx.load_config(tmp_path / "r" / "config.json") == config()
    assert passivx.load_market(tmp_path / "r" / "market.json") == market


# --- refusals ---


def problems(**changes: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        run(*ROUND_TRIP, **changes)
    return {problem.field: str(problem) for problem in caught.value.problems}


def test_everything_wrong_is_named_at_once_by_its_flat_name():
    found = problems(
        leverage=0, ema_span=0.5, ema_spread=1.0, do_long="no", do_shrt=7, price_step=-1.0,
        starting_balance=-1, latency_simulation_ms=-5, cancel_latency_ms=math.nan, queue_share=2,
        fill="luck", taker_fee="free", funding_fee_collect_mode="yes", max_markup=0.01,
        tiers=[{"floor": 5.0, "maintenance_rate": 0.1}],
    )  # fmt: skip
    assert set(found) == {
        "leverage", "ema_span", "ema_spread", "do_long", "do_shrt", "price_step",
        "starting_balance", "latency_simulation_ms", "cancel_latency_ms", "queue_share", "fill",
        "taker_fee", "funding_fee_collect_mode", "max_markup", "tiers",
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        backtest_flat(make_ticks(*ROUND_TRIP), {})
    fields = {problem.field for problem in caught.value.problems}
    assert {"leverage", "ema_span", "price_step", "starting_balance"} <= fields
    assert {problem.message for problem in caught.value.problems} == {"is missing"}


BAD_NUMBERS: dict[str, list[Any]] = {
    "starting_balance": [0, -1.0, math.nan, math.inf, 10**400, "1000", None, True],
    "latency_simulation_ms": [-1, math.nan, math.inf, 1e9, "100", None, True],
    "cancel_latency_ms": [-1, math.nan, math.inf, 1e9, "100", True],
    "queue_share": [-0.1, 1.1, math.nan, "0.5", None],
    "fill": ["", "CROSS", 5, None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_NUMBERS.items() for value in values]
)
def test_a_bad_number_is_named_once(name, value):
    assert set(problems(**{name: value})) == {name}


def test_backtest_names_its_own_parameters():
    ticks, market = make_ticks(*ROUND_TRIP), Market.from_flat(SETTINGS)
    wrong = {"latency_ms": -1, "cancel_latency_ms": -2.0, "queue_share": 3, "fill": "luck",
             "starting_balance": 0}  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        passivx.backtest(ticks, config(), market, **wrong)
    assert {problem.field for problem in caught.value.problems} == set(wrong)
    with pytest.raises(ConfigError) as caught:
        passivx.backtest(ticks, config(), market, starting_balance=1.0, latency_ms=-1)
    assert [problem.field for problem in caught.value.problems] == ["latency_ms"]


def test_collecting_funding_needs_a_series():
    for none in (None, [], np.zeros(0)):
        with pytest.raises(ConfigError, match=r"funding_fee_collect_mode.*no funding series"):
            run(*ROUND_TRIP, funding_fee_collect_mode=True, funding=none)
    # Longs are paid when the rate is negative; the last one before the start is known.
    collect = {"funding_fee_collect_mode": True}
    assert len(run(*ROUND_TRIP, **collect, funding=[(0, -0.001)]).fills) == 3
    assert len(run(*ROUND_TRIP, **collect, funding=[(0, 0.001)]).fills) == 0


def test_volume_needs_quantities():
    silent = [(*p[:3], 0.0) for p in ROUND_TRIP]
    with pytest.raises(DataError, match="'volume' needs quantities"):
        run(*silent, fill="volume")
    assert len(run(*silent).fills) == 3
    assert len(run(*ROUND_TRIP, fill="volume").fills) >= 3


def test_a_price_beyond_the_grid_is_refused():
    prints = [*ROUND_TRIP, (405, 1001.0, "sells")]
    with pytest.raises(DataError, match=r"price 1001 is more than 1e11 price steps of 1e-08"):
        run(*prints, price_step=1e-8)
    assert run((1, 1000.0, "buys"), price_step=1e-8).outcome == "end"  # 1e11 steps exactly


def test_ticks_that_are_none_are_refused():
    empty = Ticks.from_arrays(price=[], qty=[], ts_ms=[], buyer_maker=[])
    with pytest.raises(DataError, match="no ticks"):
        backtest_flat(empty, SETTINGS)


def test_a_broken_funding_file_and_a_broken_condition_are_named(tmp_path):
    path = tmp_path / "funding.csv"
    path.write_text("ts_ms,rate\n1700000000,0.1\n")
    with pytest.raises(DataError, match=r"funding\.csv:2: "):
        run(*ROUND_TRIP, funding=path)
    with pytest.raises(ConfigError, match=r"funding\[0\]"):
        run(*ROUND_TRIP, funding=[(150, 7)])
    with pytest.raises(ConfigError, match=r"break_on\[0\]"):
        run(*ROUND_TRIP, break_on=[["ON: x", "lambda trades, ticks, k: open('x')"]])


def test_a_leverage_beyond_the_venues_is_an_assumption():
    assumed = run(*ROUND_TRIP, leverage=20.5).assumptions
    assert any(text.startswith("leverage 21 (the venue allows 10 at most)") for text in assumed)
    assert not any("leverage" in text for text in run(*ROUND_TRIP, leverage=9.5).assumptions)
