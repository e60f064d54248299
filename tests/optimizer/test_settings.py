"""Settings of a search: published files load, everything wrong is named at once, and what comes out
is ready to run."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hjson
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passivx import ConfigError, Market, load_config, load_market
from passivx.candidates import PARAMETERS, exact_from_flat, exact_records
from passivx.documents import load_document
from passivx.models import Tier
from passivx.optimizer.criteria import Limit
from passivx.optimizer.settings import Settings, SettingsFile, load_settings
from passivx.optimizer.space import Range
from passivx.optimizer.walk_forward import WalkForward
from passivx.workspace import examples_folder
from tests.configs import valid

MARKET = Market(
    price_step=0.1, qty_step=0.001, min_qty=0.001, min_cost=5.0, maker_fee=0.0002,
    taker_fee=0.0005, max_leverage=125, inverse=False,
)  # fmt: skip
INVERSE = replace(MARKET, price_step=0.5, qty_step=1.0, min_qty=1.0, max_leverage=100, inverse=True)

RANGES: dict[str, list[float]] = {
    "balance_pct": [0.1, 1.0, 0.01],
    "entry_qty_pct": [0.001, 0.1, 0.0001],
    "ddown_factor": [0, 2.0, 0.01],
    "ema_span": [100, 100_000, 1],
    "ema_spread": [0, 0.01, 0.0001],
    "grid_coefficient": [0, 500, 0.1],
    "grid_spacing": [0.001, 0.02, 0.00001],
    "leverage": [1, 10, 1],
    "min_markup": [0.0006, 0.004, 0.00001],
    "max_markup": [0.001, 0.02, 0.00001],
    "min_close_qty_multiplier": [0, 1, 0.01],
    "n_close_orders": [1, 20, 1],
    "stop_loss_liq_diff": [0.1, 0.3, 0.001],
    "stop_loss_pos_price_diff": [0.02, 0.5, 0.001],
    "stop_loss_pos_reduction": [0, 0.2, 0.001],
}
# A result of the original, within the ranges but for what a test changes.
RESULT: dict[str, Any] = {
    "gain": 1.5,
    "n_trades": 100,
    "key": "0" * 64,
    "balance_pct": 0.5,
    "entry_qty_pct": 0.01,
    "ddown_factor": 1,
    "ema_span": 1000.0,
    "ema_spread": 0.001,
    "grid_coefficient": 200.0,
    "grid_spacing": 0.002,
    "leverage": 10,
    "min_markup": 0.001,
    "max_markup": 0.01,
    "min_close_qty_multiplier": 0.5,
    "n_close_orders": 10.0,
    "stop_loss_liq_diff": 0.1,
    "stop_loss_pos_price_diff": 0.2,
    "stop_loss_pos_reduction": 0.05,
    "do_long": True,
    "do_shrt": 0.0,
}


def document(
    *, ranges: dict[str, Any] | None = None, without: tuple[str, ...] = (), **fields: Any
) -> dict[str, Any]:
    """Good settings, with some ranges changed or left out and fields set."""
    changed = {**copy.deepcopy(RANGES), **(ranges or {})}
    return {
        "session_name": "test",
        "exchange": "binance",
        "symbol": "BTCUSDT",
        "starting_balance": 1000,
        "ranges": {name: value for name, value in changed.items() if name not in without},
        **fields,
    }


def load(market: Market = MARKET, **changes: Any) -> Settings:
    return load_settings(document(**changes), market)


def problems_of(source: Any, market: Market | None = MARKET, **how: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(source, market, **how)
    return [str(problem) for problem in caught.value.problems]


def problems(**changes: Any) -> list[str]:
    return problems_of(document(**changes))


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- files as they are published


@pytest.mark.real_data
@pytest.mark.parametrize("engine", ["exact", "compat"])
@pytest.mark.parametrize(
    ("name", "market", "first_k", "end_k", "n_rules"),
    [("btcbybit_nostops", INVERSE, 200, 600, 3), ("binance_sxp", MARKET, 0, 1000, 5)],
)
def test_published_files_load_as_they_are(
    real_data: Path,
    tmp_path: Path,
    engine: str,
    name: str,
    market: Market,
    first_k: int,
    end_k: int,
    n_rules: int,
) -> None:
    (path,) = real_data.glob(f"configs/**/{name}.hjson")
    published = hjson.loads(path.read_text(encoding="utf-8"))
    loaded = load_settings(path, market, workspace=tmp_path, engine=engine)
    file = loaded.file
    assert (file.engine, file.exchange) == (engine, published["exchange"])
    assert (file.starting_k, file.n_jackrabbit_iterations) == (first_k, end_k)
    assert file.n_days == published["n_days"]
    assert file.latency_simulation_ms == published.get("latency_simulation_ms")
    assert len(loaded.rules.names) == n_rules
    assert loaded.space.names == tuple(sorted(published["ranges"]))
    assert len(loaded.starts) == 0
    for parameter, (low, high, step) in published["ranges"].items():
        if parameter == "leverage":
            high = min(high, market.max_leverage)
        assert loaded.space.ranges[parameter] == Range(low, high, step)
    assert loaded.notes[0].startswith("not used: user, multiprocessing")
    cut = [note for note in loaded.notes if note.startswith("ranges.leverage ends at 100:")]
    assert len(cut) == (name == "btcbybit_nostops")
    (absent,) = (note for note in loaded.notes if "starting_candidate_filepath" in note)
    assert published["starting_candidate_filepath"] in absent
    for corner in (loaded.space.low, loaded.space.high):
        config = loaded.config_of(corner)
        assert load_config(json.loads(config.to_json())) == config


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("engine", "names"),
    [("compat", ("live_config.json", "best_result.json")), ("exact", ("best_result.json",))],
)
def test_published_candidates_start_a_search(
    real_data: Path, engine: str, names: tuple[str, ...]
) -> None:
    wide = {
        "balance_pct": [0.001, 1, 0.001], "entry_qty_pct": [0.0001, 1, 0.0001],
        "ddown_factor": [0, 10, 0.001], "ema_span": [1, 1e6, 1], "ema_spread": [0, 0.1, 1e-5],
        "grid_coefficient": [0, 1000, 0.01], "grid_spacing": [0.0001, 0.1, 1e-5],
        "leverage": [1, 100, 1], "min_markup": [0.0001, 0.1, 1e-5],
        "max_markup": [0.0001, 0.1, 1e-5], "n_close_orders": [1, 200, 1],
        "stop_loss_liq_diff": [0, 0.9, 0.001], "stop_loss_pos_price_diff": [0, 1e9, 0.001],
        "stop_loss_pos_reduction": [0, 1, 0.001],
    }  # fmt: skip
    paths = [p for name in names for p in real_data.glob(f"configs/v2.0.0/**/{name}")]
    assert len(paths) > 20
    for path in paths:
        loaded = load(ranges=wide, starting_candidate_filepath=str(path), engine=engine)
        (start,) = loaded.starts
        published = load_document(path)[1]
        for name, value in loaded.space.as_dict(start).items():
            if name in published and not any(name in note for note in loaded.notes):
                # a config's counts are whole, also an optimizer's 15.74
                wanted = round(published[name]) if "config" in path.name else published[name]
                assert value == (wanted if name == "n_close_orders" else published[name])
        config = loaded.config_of(start)
        assert load_config(json.loads(config.to_live_json())) == config


@pytest.mark.parametrize(
    "path",
    sorted(examples_folder().glob("backtest_configs/*.hjson")),
    ids=lambda path: path.name,
)
def test_example_settings_load_with_the_example_market(path: Path) -> None:
    loaded = load_settings(path, workspace=examples_folder())
    assert any(note.startswith("market rules of ") for note in loaded.notes)
    (start,) = loaded.starts
    careful = load_config(examples_folder() / "live_settings/binance/btcusdt_careful.json")
    assert loaded.config_of(start).to_flat() == careful.to_flat() | {
        "config_name": "btcusdt_search"
    }
    assert set(loaded.space.names) < set(PARAMETERS["exact"])
    # n_entry_orders is in no range: the starting candidate says it.
    assert loaded.base["n_entry_orders"] == 6


# --- fields


def test_what_is_left_out_has_the_documented_default() -> None:
    loaded = load()
    file = loaded.file
    assert (file.starting_k, file.n_jackrabbit_iterations, file.generation) == (0, 1000, 16)
    assert (file.engine, file.objective, file.sampler, file.seed) == (
        "exact", "adg", "jackrabbit", 0,
    )  # fmt: skip
    assert (file.fill, file.queue_share, file.method) == ("cross", 0.0, "auto")
    assert file.latency_simulation_ms is file.cancel_latency_ms is file.n_days is None
    assert (file.start, file.end, file.walk_forward) == (None, None, None)
    assert (loaded.rules.names, loaded.criteria.limits, loaded.walk_forward) == ((), (), None)
    assert (loaded.criteria.objective, loaded.notes) == ("adg", ())
    assert loaded.starts.shape == (0, len(RANGES))
    assert loaded.market == MARKET
    config = loaded.config_of(loaded.space.low)
    assert (config.n_entry_orders, config.market_stop_loss, config.cross_mode) == (8, False, True)
    assert config.indicator_settings.do_long
    assert config.indicator_settings.do_shrt
    # A searched parameter has a value of its range.
    assert all(low <= loaded.base[name] <= high for name, (low, high, _) in RANGES.items())


def test_fields_arrive_where_they_belong() -> None:
    loaded = load(
        objective="sortino",
        limits={"max_loss": 0.5, "min_adg": [1.005, 0.3], "min_n_trades": 10},
        walk_forward="30/10/12h",
        break_on=[["ON: liq", "lambda trades, ticks, k: trades[-1]['closest_liq'] < 0.1"],
                  ["OFF: x", "lambda trades, ticks, k: k > 3"]],
        sampler="random", generation=1, seed=9, starting_k=5, n_jackrabbit_iterations=6,
        fill="volume", queue_share=0.5, cancel_latency_ms=7, latency_simulation_ms=50,
    )  # fmt: skip
    assert loaded.criteria.objective == "sortino"
    assert loaded.criteria.limits == (
        Limit("max_loss", 0.5),
        Limit("min_adg", 1.005, 0.3),
        Limit("min_n_trades", 10.0),
    )
    day = 86_400_000
    assert loaded.walk_forward == WalkForward("30/10/12h", 30 * day, 10 * day, day // 2)
    assert loaded.rules.names == ("liq",)
    file = loaded.file
    assert (file.sampler, file.generation, file.seed) == ("random", 1, 9)
    assert (file.fill, file.queue_share) == ("volume", 0.5)
    assert (file.latency_simulation_ms, file.cancel_latency_ms) == (50, 7)


def test_a_mapping_and_a_file_are_the_same(tmp_path: Path) -> None:
    given = document(limits={"max_loss": 0.2}, seed=3)
    before = copy.deepcopy(given)
    path = write(tmp_path / "s.hjson", hjson.dumps(given))
    loaded = [load_settings(source, MARKET) for source in (given, path, str(path))]
    assert given == before
    assert loaded[0].file == loaded[1].file == loaded[2].file
    assert loaded[0].space.ranges == loaded[1].space.ranges
    assert loaded[0].base == loaded[1].base


def test_errors_of_a_file_name_it(tmp_path: Path) -> None:
    path = write(tmp_path / "s.hjson", hjson.dumps(document(seed=-1)))
    with pytest.raises(ConfigError, match=r"s\.hjson: seed: must be a whole number"):
        load_settings(path, MARKET)
    for text, message in (("{a: [", "line 1"), ("[1]", "must be one object"), ("", "is empty")):
        with pytest.raises(ConfigError, match=rf"s\.hjson: .*{message}"):
            load_settings(write(path, text), MARKET)
    with pytest.raises(ConfigError, match=r"nowhere\.hjson: no such file"):
        load_settings(tmp_path / "nowhere.hjson", MARKET)


def test_changes_go_before_the_file_and_none_leaves_it_alone() -> None:
    given = document(seed=3, engine="exact", walk_forward="3/2/1")
    loaded = load_settings(
        given, MARKET, seed=0, sampler="random", engine="compat", walk_forward=None, fill=None
    )
    assert (loaded.file.seed, loaded.file.sampler, loaded.file.engine) == (0, "random", "compat")
    assert loaded.walk_forward is not None
    assert loaded.walk_forward.text == "3/2/1"
    assert "sampler" not in given
    assert given["seed"] == 3
    (problem,) = problems_of(given, session_nam="x")
    assert problem == "session_nam: is not a known field, was 'x'; did you mean session_name?"


def test_iterations_run_from_the_first_k_on() -> None:
    for first in (0, 200):
        loaded = load_settings(document(starting_k=first), MARKET, iterations=7)
        assert (loaded.file.starting_k, loaded.file.n_jackrabbit_iterations) == (first, first + 7)
    loaded = load_settings(document(starting_k=200), MARKET, iterations=7, starting_k=10)
    assert (loaded.file.starting_k, loaded.file.n_jackrabbit_iterations) == (10, 17)
    assert problems_of(document(starting_k=5), iterations=0) == [
        "n_jackrabbit_iterations: must be above starting_k, was 5; the iterations run from "
        "starting_k (5) to it"
    ]


def test_what_nothing_reads_is_named_only_when_it_is_there() -> None:
    loaded = load(user="me", n_particles=3, multiprocessing=False, iters=None)
    assert loaded.notes == ("not used: user, multiprocessing, n_particles",)


@pytest.mark.parametrize(
    ("exchange", "symbol", "known"),
    [
        ("binance", "BTCUSDT", True),
        ("binance", "1000SHIBUSDT", True),
        ("binance", "TRXUSD_PERP", True),
        ("binance", "BTCUSD", False),
        ("binance", "btcusdt", False),
        ("binance", "BTCUSTD", False),
        ("binance", "USDT", False),
        ("bybit", "BTCUSD", True),
        ("bybit", "BTCUSDT", True),
        ("bybit", "BTCPERP", True),
        ("bybit", "BTCUSDH24", True),
        ("bybit", "BTCUSD_PERP", False),
    ],
)
def test_a_symbol_is_written_as_its_venue_does(exchange: str, symbol: str, known: bool) -> None:
    given = document(exchange=exchange, symbol=symbol)
    if known:
        assert load_settings(given, MARKET).file.symbol == symbol
    else:
        (problem,) = problems_of(given)
        assert problem.startswith(f"symbol: is no perpetual of {exchange}, was '{symbol}'; write")


# --- the market


def test_the_market_is_the_workspaces_or_the_examples(tmp_path: Path) -> None:
    loaded = load_settings(document(), workspace=tmp_path)
    assert loaded.market == load_market(examples_folder() / "markets/binance_BTCUSDT.json")
    mine = write(tmp_path / "markets/binance_BTCUSDT.json", INVERSE.to_json())
    loaded = load_settings(document(), workspace=tmp_path)
    assert loaded.market == INVERSE
    assert loaded.notes == (f"market rules of {mine}",)
    # One that is given goes before both, and nothing is said.
    assert load_settings(document(), MARKET, workspace=tmp_path).notes == ()


def test_a_market_that_is_missing_or_wrong_is_a_problem(tmp_path: Path) -> None:
    given = document(symbol="NONEUSDT", seed=-1)
    found = problems_of(given, None, workspace=tmp_path)
    assert [problem.split(":")[0] for problem in found] == ["seed", "symbol"]
    assert "never guessed, was 'NONEUSDT'; give --market FILE" in found[1]
    path = write(tmp_path / "markets/binance_NONEUSDT.json", {"price_step": -1})
    found = problems_of(given, None, workspace=tmp_path)
    assert found[0].startswith("seed: ")
    assert len(found) == 9  # and seven fields of the market are missing
    assert all(problem.startswith(f"{path}: ") for problem in found[1:])


@pytest.mark.parametrize(
    ("market", "given", "wanted"),
    [
        (MARKET, [1, 10, 1], (1, 10)),
        (MARKET, [1, 125, 1], (1, 125)),
        (MARKET, [2, 999999, 1], (2, 125)),
        (MARKET, [200, 300, 1], (125, 125)),
        (replace(MARKET, max_leverage=12.5), [1, 20, 0.5], (1, 12)),  # the venue's are whole
        (replace(MARKET, tiers=(Tier(floor=0.0, maintenance_rate=0.01),)), [1, 500, 1], (1, 125)),
        (
            replace(
                MARKET,
                tiers=(
                    Tier(floor=0.0, maintenance_rate=0.01, max_leverage=50),
                    Tier(floor=9.0, maintenance_rate=0.02, max_leverage=5),
                ),
            ),
            [1, 100, 1],
            (1, 50),
        ),
    ],
)
@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_leverage_ends_at_what_the_market_allows(
    engine: str, market: Market, given: list[float], wanted: tuple[float, float]
) -> None:
    loaded = load(market, ranges={"leverage": given}, engine=engine)
    assert loaded.space.ranges["leverage"] == Range(*wanted, given[2])
    cut = wanted[1] < given[1]
    assert loaded.notes == (
        (f"ranges.leverage ends at {wanted[1]}: the market allows no more",) if cut else ()
    )


# --- everything wrong at once


def test_every_problem_is_named_at_once() -> None:
    found = problems(
        session_name="a/b",
        exchange="binanc",
        symbol=5,
        starting_balance=-3,
        n_days="7",
        starting_k=-1,
        generation=0,
        seed=1.0e300,
        engine="exakt",
        method="skip",
        objective="gian",
        sampler="annealing",
        fill="cros",
        queue_share=2,
        walk_forward="30/10",
        typo=1,
        break_on=[
            ["ON: evil", "lambda trades, ticks, k: __import__('os').system('ls')"],
            ["ON: field", "lambda trades, ticks, k: trades[-1]['pnll'] > 0"],
        ],
        limits={"max_drawdwn": 0.1, "max_loss": "x", "min_adg": [1.0, 2.0]},
        ranges={
            "ema_spn": [1, 2, 1],
            "ddown_factor": [2, 1, 0.1],
            "grid_coefficient": [0, 1, 0],
            "n_close_orders": [1, 2, -1],
            "ema_span": [0.5, 2, 0.1],
            "ema_spread": [0, 1.5, 0.1],
            "balance_pct": [0, 1],
            "leverage": "high",
            "stop_loss_liq_diff": None,
            "min_markup": [0.1, 0.2, 0.01],
        },
    )
    fields = [problem.split(": ")[0] for problem in found]
    assert sorted(fields) == sorted(
        [
            "session_name", "exchange", "symbol", "starting_balance", "n_days", "starting_k",
            "generation", "seed", "engine", "method", "fill", "queue_share", "queue_share", "typo",
            "objective", "sampler", "walk_forward", "break_on[0]", "break_on[1]",
            "limits.max_drawdwn", "limits.max_loss", "limits.min_adg",
            "ranges.ema_spn", "ranges.ddown_factor", "ranges.grid_coefficient",
            "ranges.n_close_orders", "ranges.ema_span", "ranges.ema_spread", "ranges.balance_pct",
            "ranges.leverage", "ranges.stop_loss_liq_diff", "ranges.min_markup",
        ]
    )  # fmt: skip


@pytest.mark.parametrize("name", ["session_name", "exchange", "symbol", "starting_balance"])
def test_what_has_no_default_is_missed(name: str) -> None:
    given = document()
    del given[name]
    assert f"{name}: is missing" in problems_of(given)
    given = document()
    del given["ranges"]
    assert problems_of(given) == ["ranges: is missing"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("session_name", 3, "must be text"),
        ("session_name", "..", "1 to 64 of the characters"),
        ("exchange", "kraken", "must be 'binance' or 'bybit'"),
        ("starting_balance", 0, "must be a number in (0, 1e300]"),
        ("starting_balance", True, "must be a number"),
        ("starting_balance", math.nan, "must be a number"),
        ("starting_balance", "1000", "must be a number"),
        ("n_days", 0, "must be a number in (0, 36500]"),
        ("starting_k", None, "was null"),
        ("starting_k", "0", "must be a whole number"),
        ("n_jackrabbit_iterations", 0, "must be a whole number in [1, 1000000000]"),
        ("n_jackrabbit_iterations", True, "must be a whole number"),
        ("latency_simulation_ms", -1, "[0, 86400000]"),
        ("cancel_latency_ms", 1e9, "[0, 86400000]"),
        ("starting_candidate_filepath", 5, "must be text"),
        ("engine", "both", "must be 'exact' or 'compat'"),
        ("method", "skip", "must be 'auto' or 'scan'"),
        ("seed", -1, "[0, 9007199254740991]"),
        ("seed", 0.5j, "must be a whole number"),
        ("objective", None, "must be text, was null"),
        ("objective", "calmar", "must be one of gain, adg, sharpe, sortino for exact"),
        ("sampler", "cmaes", "must be one of jackrabbit, random"),
        ("walk_forward", 30, "must be text"),
        ("walk_forward", "30/10", "must be three lengths > 0: IS/OOS/STEP"),
        ("walk_forward", "30/10/x", "must be IS/OOS/STEP"),
        ("generation", 10_001, "[1, 10000]"),
        ("fill", "limit", "must be 'cross', 'touch' or 'volume'"),
        ("queue_share", 0.5, "is for fill 'volume' only"),
        ("limits", None, "must be an object { ... }"),
        ("limits", [], "must be an object { ... }"),
        ("break_on", None, "must be a list"),
        ("ranges", [], "must be an object { name: [low, high, step] }"),
        ("ranges", {}, "is empty; name what is to be searched"),
        ("n_particle", 500, "is not a known field"),
    ],
)
def test_wrong_fields(field: str, value: Any, message: str) -> None:
    found = problems_of(document() | {field: value})
    assert any(problem.startswith(f"{field}: ") and message in problem for problem in found)
    assert all(problem.startswith(field) for problem in found)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ema_spn", [1, 2, 1], "ranges.ema_spn: is not a known parameter; did you mean 'ema_span'"),
        ("zzz", [1, 2, 1], "ranges.zzz: is not a known parameter; one of cross_mode, balance_pct"),
        ("book", [1, 2, 1], "is not a known parameter"),
        ("ddown_factor", [2, 1, 0.1], "must have low <= high, was [2, 1, 0.1]; swap them"),
        ("ddown_factor", [0, 1, 0], "step must be > 0"),
        ("ddown_factor", [0, 1, -0.1], "step must be > 0"),
        ("ddown_factor", [0, 1, 1 / 3], "step must be a plain decimal such as 0.01 or 1e-5"),
        ("ddown_factor", [0, 1], "must be three finite numbers [low, high, step]"),
        ("ddown_factor", [0, 1, 0.1, 0], "must be three finite numbers"),
        ("ddown_factor", 1, "must be three finite numbers"),
        ("ddown_factor", None, "must be three finite numbers [low, high, step], was 'null'"),
        ("ddown_factor", "0, 1, 0.1", "must be three finite numbers"),
        ("ddown_factor", ["0", 1, 0.1], "must be three finite numbers"),
        ("ddown_factor", [0, True, 0.1], "must be three finite numbers"),
        ("ddown_factor", [0, math.inf, 0.1], "must be three finite numbers"),
        ("ddown_factor", [0, math.nan, 0.1], "must be three finite numbers"),
        ("ddown_factor", [0, 10**400, 1], "must be three finite numbers"),
        ("ddown_factor", {"low": 0}, "must be three finite numbers"),
        ("ddown_factor", [-1, 1, 0.1], "low must be in [0, 10]"),
        ("ddown_factor", [0, 11, 0.1], "high must be in [0, 10]"),
        ("balance_pct", [0, 1, 0.1], "low must be in (0, 1]"),
        ("ema_span", [0.5, 2, 0.1], "low must be at least 1"),
        ("n_close_orders", [0, 10, 1], "low must be in [1, 200]"),
        ("n_close_orders", [1, 201, 1], "high must be in [1, 200]"),
        ("do_long", [0, 2, 1], "high must be 0 or 1"),
        ("cross_mode", [-1, 1, 1], "low must be 0 or 1"),
        ("min_markup", [0.03, 0.04, 1e-5], "ranges.min_markup: lies above every max_markup"),
    ],
)
def test_wrong_ranges(name: str, value: Any, message: str) -> None:
    (problem,) = problems(ranges={name: value})
    assert problem.startswith(f"ranges.{name}: ")
    assert message in problem


def test_a_range_may_have_several_problems() -> None:
    assert problems(ranges={"ddown_factor": [12, -1, 0]}) == [
        "ranges.ddown_factor: must have low <= high, was [12, -1, 0]; swap them",
        "ranges.ddown_factor: low must be in [0, 10], was [12, -1, 0]",
        "ranges.ddown_factor: high must be in [0, 10], was [12, -1, 0]",
        "ranges.ddown_factor: step must be > 0, was [12, -1, 0]",
    ]


def test_a_span_below_1_is_refused_for_compat_too() -> None:
    (problem,) = problems(engine="compat", ranges={"ema_span": [0.5, 2, 0.1]})
    assert "low must be at least 1" in problem


def test_parameters_without_a_value_are_named_with_the_way_to_give_one() -> None:
    found = problems(without=("ema_span", "grid_spacing", "leverage"))
    assert sorted(problem.split(";")[0] for problem in found) == [
        "ranges.ema_span: is missing",
        "ranges.grid_spacing: is missing",
        "ranges.leverage: is missing",
    ]
    assert all(problem.endswith("fix it by [value, value, step]") for problem in found)
    found = problems(engine="compat", without=("ema_spread", "leverage"))
    assert sorted(problem.split(";")[0] for problem in found) == [
        "ranges.ema_spread: is missing",  # which a config may leave out, and compat may not
        "ranges.leverage: is missing",
    ]
    assert "ema_spread" not in load(without=("ema_spread",)).base
    # One that is there and wrong is not missed besides.
    (problem,) = problems(ranges={"ema_span": [2, 1, 1]})
    assert "low <= high" in problem


def test_compat_refuses_what_is_for_the_exact_engine() -> None:
    found = problems(
        engine="compat",
        objective="sharpe",
        fill="touch",
        queue_share=0.5,
        cancel_latency_ms=5,
        limits={"max_drawdown": 0.1, "min_gain": 1.0},
        ranges={"n_entry_orders": [1, 8, 1]},
    )
    assert found == [
        "objective: must be one of gain, adg for compat, was 'sharpe'",
        "fill: is for the exact engine, was 'touch'; leave it out",
        "queue_share: is for the exact engine, was 0.5; leave it out",
        "cancel_latency_ms: is for the exact engine, was 5; leave it out",
        "ranges.n_entry_orders: is no parameter of compat; remove it",
        "limits.max_drawdown: is for the exact engine, was 0.1; leave it out",
    ]
    usual = load(engine="compat", fill="cross", queue_share=0, cancel_latency_ms=None)
    assert usual.file.fill == "cross"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = [name for name in SettingsFile.model_fields if name not in ("exchange", "ranges")]


@given(st.sampled_from([*FIELDS, "x"]), json_values, st.sampled_from(["exact", "compat"]))
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_loads_or_is_refused(field: str, value: Any, engine: str) -> None:
    try:
        load_settings(document(engine=engine) | {field: value}, MARKET)
    except ConfigError as e:
        str(e).encode()


@given(
    st.sampled_from(["ranges", "limits"]),
    st.sampled_from([*RANGES, "do_long", "max_loss", "min_adg", "x"]),
    json_values | st.lists(st.floats() | st.integers(), min_size=2, max_size=3),
    st.sampled_from(["exact", "compat"]),
)
@settings(max_examples=300, deadline=None)
def test_any_range_or_limit_loads_or_is_refused(
    where: str, name: str, value: Any, engine: str
) -> None:
    given_settings = document(engine=engine)
    given_settings.setdefault(where, {})[name] = value
    try:
        loaded = load_settings(given_settings, MARKET)
    except ConfigError as e:
        str(e).encode()
    else:
        assert (loaded.space.low <= loaded.space.high).all()
        assert np.isfinite(loaded.space.settle(loaded.space.high)).all()


# --- starting candidates


def start_of(loaded: Settings) -> dict[str, float]:
    (start,) = loaded.starts
    return loaded.space.as_dict(start)


@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_a_live_config_is_a_start(tmp_path: Path, engine: str) -> None:
    path = write(tmp_path / "live.json", valid(leverage=5.0, n_close_orders=15.74))
    loaded = load(engine=engine, starting_candidate_filepath=str(path))
    assert start_of(loaded) == {
        **{name: float(valid()[name]) for name in RANGES if not name.startswith("ema_")},
        "ema_span": 1000.0,
        "ema_spread": 0.0,
        "leverage": 5.0,
        "n_close_orders": 16.0,  # counts are whole
    }
    assert loaded.notes == ()


@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_a_result_is_a_start(tmp_path: Path, engine: str) -> None:
    path = write(tmp_path / "best_result.json", RESULT)
    loaded = load(
        engine=engine,
        ranges={"do_long": [0, 1, 1], "do_shrt": [0, 1, 1]},
        starting_candidate_filepath=str(path),
    )
    wanted = {name: float(RESULT[name]) for name in loaded.space.names}
    assert start_of(loaded) == wanted
    assert (wanted["do_long"], wanted["do_shrt"]) == (1.0, 0.0)


def test_values_outside_the_ranges_are_moved_and_named(tmp_path: Path) -> None:
    result = RESULT | {"leverage": 50, "stop_loss_pos_price_diff": 1e9, "ema_span": 3.0}
    path = write(tmp_path / "best_result.json", result)
    loaded = load(starting_candidate_filepath=str(path))
    start = start_of(loaded)
    assert (start["leverage"], start["stop_loss_pos_price_diff"]) == (10.0, 0.5)
    assert start["ema_span"] == 100.0
    assert loaded.notes == (
        "best_result.json: moved into the ranges: ema_span, leverage, stop_loss_pos_price_diff",
    )
    # What the market does not allow is outside as well.
    narrow = load(replace(MARKET, max_leverage=4), starting_candidate_filepath=str(path))
    assert start_of(narrow)["leverage"] == 4.0


def test_markups_of_a_start_are_put_in_order(tmp_path: Path) -> None:
    result = RESULT | {"min_markup": 0.003, "max_markup": 0.002}
    path = write(tmp_path / "best_result.json", result)
    start = start_of(load(starting_candidate_filepath=str(path)))
    assert (start["min_markup"], start["max_markup"]) == (0.003, 0.003)
    # compat runs it as it is, which the original did.
    start = start_of(load(engine="compat", starting_candidate_filepath=str(path)))
    assert (start["min_markup"], start["max_markup"]) == (0.003, 0.002)


def test_a_single_file_says_what_no_range_does(tmp_path: Path) -> None:
    live = valid(cross_mode=False, n_entry_orders=3, max_order_distance=0.5)
    live["indicator_settings"]["do_shrt"] = False
    path = write(tmp_path / "live.json", live)
    names = ("ema_span", "ema_spread", "grid_spacing", "leverage")
    loaded = load(starting_candidate_filepath=str(path), without=names)
    assert not set(names) & set(loaded.space.names)
    config = loaded.config_of(loaded.space.low)
    assert (config.cross_mode, config.n_entry_orders, config.max_order_distance) == (False, 3, 0.5)
    assert config.indicator_settings.do_shrt is False
    assert (config.grid_spacing, config.leverage) == (0.002, 10.0)
    # Ranges go before it.
    assert config.balance_pct == 0.1


def test_a_result_says_what_it_has_and_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "best_result.json", RESULT)
    loaded = load(starting_candidate_filepath=str(path), without=("ema_span",))
    assert (loaded.base["ema_span"], loaded.base["do_shrt"]) == (1000.0, 0.0)
    assert loaded.base["n_entry_orders"] == 8
    assert loaded.config_of(loaded.space.low).indicator_settings.do_shrt is False


def test_a_folder_holds_several_starts_and_leaves_out_what_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "starts"
    write(folder / "1.json", RESULT)
    write(folder / "2.json", valid(leverage=3))
    write(folder / "3.json", RESULT | {"gain": 2.0})  # the same candidate again
    write(folder / "4.json", "{ broken")
    write(folder / "5.json", {"gain": 3.0})
    write(folder / "6.json", RESULT | {"leverage": "much"})
    write(folder / "7.txt", RESULT | {"leverage": 7})
    write(folder / "8.json", RESULT | {"leverage": 99})
    (folder / "9.json").mkdir()
    loaded = load(starting_candidate_filepath=str(folder))
    column = loaded.space.names.index("leverage")
    assert loaded.starts[:, column].tolist() == [10.0, 3.0]
    wanted = [
        "4.json is left out: line 1",
        "5.json is left out: is no candidate for these ranges; it has no balance_pct",
        "6.json is left out: leverage: must be",
        "9.json is left out: cannot be read",
        "8.json: moved into the ranges: leverage",
    ]
    assert all(text in note for text, note in zip(wanted, loaded.notes, strict=True))
    # Nothing of several candidates fills the gaps of the ranges.
    assert problems(starting_candidate_filepath=str(folder), without=("ema_span",)) == [
        "ranges.ema_span: is missing; fix it by [value, value, step]"
    ]


def test_no_start_at_all_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for given_path, note in (
        ("nowhere.json", "nowhere.json does not exist: starting anywhere"),
        ("nul\0", "does not exist"),
        ("empty", "empty holds no candidate: starting anywhere"),
    ):
        loaded = load(starting_candidate_filepath=given_path)
        assert len(loaded.starts) == 0
        assert loaded.notes[0].startswith("starting_candidate_filepath: ")
        assert note in loaded.notes[0]
    for nothing in ("", None):
        assert load(starting_candidate_filepath=nothing).notes == ()


def test_a_start_is_looked_for_here_and_in_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = tmp_path / "ws"
    write(workspace / "a/live.json", RESULT | {"leverage": 2})
    monkeypatch.chdir(tmp_path)
    given_settings = document(starting_candidate_filepath="a/live.json")
    loaded = load_settings(given_settings, MARKET, workspace=workspace)
    assert start_of(loaded)["leverage"] == 2.0
    write(tmp_path / "a/live.json", RESULT | {"leverage": 3})
    loaded = load_settings(given_settings, MARKET, workspace=workspace)
    assert start_of(loaded)["leverage"] == 3.0


def broken_starts() -> Iterator[tuple[str, Any, str]]:
    yield "broken", "{ a", "line 1 column"
    yield "empty", "", "is empty"
    yield "a list", "[1, 2]", "must be one object"
    yield "no candidate", {"gain": 1.0}, "is no candidate for these ranges; it has no balance_pct"
    yield "text", RESULT | {"leverage": "10"}, "leverage: must be a finite number, was '10'"
    yield "null", RESULT | {"leverage": None}, "leverage: must be a finite number"
    yield "half a config", {"indicator_settings": 3}, "leverage: is missing"
    yield "no span", valid(indicator_settings__tick_ema={}), "tick_ema.span: is missing"


@pytest.mark.parametrize(
    ("content", "message"),
    [case[1:] for case in broken_starts()],
    ids=[c[0] for c in broken_starts()],
)
def test_a_single_file_that_is_no_start_is_a_problem(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = write(tmp_path / "start.json", content)
    found = problems(starting_candidate_filepath=str(path))
    assert all(p.startswith(f"starting_candidate_filepath {path}: ") for p in found)
    assert any(message in problem for problem in found)
    # And what else is wrong is said too.
    assert len(problems(starting_candidate_filepath=str(path), seed=-1)) == len(found) + 1


# --- what is run, and what is written


@given(st.lists(st.floats(-0.2, 1.2), min_size=17, max_size=17))
@settings(deadline=None)
def test_the_config_of_a_point_is_what_was_run(shares: list[float]) -> None:
    loaded = load(ranges={"do_long": [0, 1, 1], "do_shrt": [0, 1, 1]}, limits={"max_loss": 0.5})
    space = loaded.space
    point = space.settle(space.low + np.array(shares) * (space.high - space.low))
    config = loaded.config_of(point)
    assert (config.config_name, config.symbol) == ("test", "BTCUSDT")
    for text in (config.to_json(), config.to_live_json()):
        assert load_config(json.loads(text)) == config
    flat = config.to_flat()
    assert {name: float(flat[name]) for name in space.names} == space.as_dict(point)
    account = {**asdict(MARKET), "starting_balance": 1000.0, "latency_simulation_ms": 100.0}
    one = exact_from_flat({**loaded.base, **account}, fill="cross", queue_share=0.0)
    columns = {name: np.array([value]) for name, value in space.as_dict(point).items()}
    ran = exact_records(one.record(), MARKET, columns)
    assert ran.tobytes() == replace(one, config=config).record().tobytes()


@given(st.lists(st.floats(0.0, 1.0), min_size=15, max_size=15))
@settings(deadline=None)
def test_the_config_of_a_compat_point_has_its_markups_in_order(shares: list[float]) -> None:
    loaded = load(engine="compat", ranges={"min_markup": [0.0006, 0.03, 0.0001]})
    space = loaded.space
    point = space.settle(space.low + np.array(shares) * (space.high - space.low))
    config = loaded.config_of(point)
    assert load_config(json.loads(config.to_live_json())) == config
    values = space.as_dict(point)
    # The original closed everything at min_markup then.
    assert config.max_markup == max(values["min_markup"], values["max_markup"])
    flat = config.to_flat()
    assert all(flat[name] == value for name, value in values.items() if name != "max_markup")


# --- what an earlier version got wrong


def test_ranges_of_the_markups_may_overlap_either_way() -> None:
    loaded = load(ranges={"min_markup": [0.002, 0.004, 1e-5], "max_markup": [0.001, 0.02, 1e-5]})
    assert loaded.base["min_markup"] == loaded.base["max_markup"] == 0.002
    for corner in (loaded.space.low, loaded.space.high):
        loaded.config_of(loaded.space.settle(corner))


@pytest.mark.parametrize(
    ("searched", "given_range", "ends", "note"),
    [
        ("min_markup", [0.001, 0.02, 1e-5], (0.001, 0.01), "ends at max_markup (0.01)"),
        ("max_markup", [0.0005, 0.02, 1e-5], (0.001, 0.02), "begins at min_markup (0.001)"),
    ],
)
def test_a_markup_searched_alone_keeps_to_the_other(
    tmp_path: Path, searched: str, given_range: list[float], ends: Any, note: str
) -> None:
    path = str(write(tmp_path / "start.json", RESULT))
    other = "max_markup" if searched == "min_markup" else "min_markup"
    changes: dict[str, Any] = {"starting_candidate_filepath": path, "without": (other,)}
    loaded = load(ranges={searched: given_range}, **changes)
    each = loaded.space.ranges[searched]
    assert (each.low, each.high) == ends
    assert any(note in text for text in loaded.notes)
    beyond = [0.02, 0.03, 1e-5] if searched == "min_markup" else [0.0001, 0.0005, 1e-5]
    (problem,) = problems(ranges={searched: beyond}, **changes)
    assert problem.startswith(f"ranges.{searched}: lies ")


def test_a_switch_takes_steps_of_one_and_a_count_whole_ones() -> None:
    assert problems(ranges={"do_long": [0, 1, 0.3]}) == [
        "ranges.do_long: step must be 1, was [0, 1, 0.3]; a switch is 0 or 1"
    ]
    load(ranges={"do_long": [1, 1, 0.3]})  # no step is taken
    loaded = load(ranges={"n_close_orders": [1.5, 7.2, 0.5]})
    each = loaded.space.ranges["n_close_orders"]
    assert (each.low, each.high, each.step) == (2.0, 7.0, 1.0)
    assert "ranges.n_close_orders: it counts, so [2, 7, 1] is searched" in loaded.notes
    (problem,) = problems(ranges={"n_close_orders": [1.2, 1.8, 0.1]})
    assert "holds no whole number" in problem
    # compat's counts are what the original made of them.
    compat = load(engine="compat", ranges={"n_close_orders": [1.5, 7.2, 0.5]})
    assert compat.space.ranges["n_close_orders"].low == 1.5


def test_every_problem_of_ranges_and_fields_at_once() -> None:
    found = problems(without=("ema_span",), bogus=1, starting_balance="much")
    assert [text.split(":")[0] for text in found] == [
        "starting_balance",
        "bogus",
        "ranges.ema_span",
    ]


@pytest.mark.parametrize("value", [[1], {}, 3, None])
def test_an_exchange_of_any_type_is_a_problem(value: Any) -> None:
    assert any(text.startswith("exchange: ") for text in problems(exchange=value))


def test_odd_values_are_problems_and_no_tracebacks() -> None:
    bare = document() | {"ranges": None}
    assert any("ranges: must be an object" in text for text in problems_of(bare))
    assert any("walk_forward" in text for text in problems(walk_forward="9" * 400 + "/1/1"))
    (problem,) = problems(starting_candidate_filepath="x" * 300)
    assert "cannot be read" in problem
    odd = document()
    odd["ranges"][3] = [0, 1, 1]
    assert any("is not a known parameter" in text for text in problems_of(odd))


def test_iterations_are_compared_as_they_are_rounded() -> None:
    (problem,) = problems(starting_k=9.9, n_jackrabbit_iterations=10.4)
    assert problem.startswith("n_jackrabbit_iterations: must be above starting_k")
    loaded = load(starting_k=1.2, n_jackrabbit_iterations=10.4)
    assert (loaded.file.starting_k, loaded.file.n_jackrabbit_iterations) == (1, 10)
    assert any("10.4 is rounded to 10" in text for text in loaded.notes)


@pytest.mark.parametrize("engine", ["exact", "compat"])
def test_a_start_gives_what_the_ranges_leave_out(tmp_path: Path, engine: str) -> None:
    config = valid(cross_mode=False, n_entry_orders=3, market_stop_loss=True)
    path = write(tmp_path / "start.json", config)
    loaded = load(engine=engine, starting_candidate_filepath=str(path))
    found = loaded.config_of(loaded.starts[0])
    assert (found.cross_mode, found.n_entry_orders, found.market_stop_loss) == (False, 3, True)


@pytest.mark.parametrize("make", [valid, lambda **changes: RESULT | changes])
def test_a_start_with_its_markups_the_wrong_way_round_is_moved(tmp_path: Path, make: Any) -> None:
    path = write(tmp_path / "start.json", make(min_markup=0.003, max_markup=0.002))
    loaded = load(starting_candidate_filepath=str(path))
    point = loaded.space.as_dict(loaded.starts[0])
    assert point["min_markup"] == point["max_markup"] == 0.003
    assert any("moved into the ranges: max_markup" in text for text in loaded.notes)
