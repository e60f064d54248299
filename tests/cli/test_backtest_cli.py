"""`passivx backtest` and `passivx demo`: the main job, and every way to get it wrong."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from passivx import load_config
from tests.cli.conftest import HEADER, MARKET
from tests.configs import valid


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(valid(symbol="TESTUSDT")))
    return path


def test_prints_a_table_and_writes_a_result(run, config_file, market_file, tick_file, tmp_path):
    done = run(
        "backtest", config_file, "--ticks", tick_file, "--market", market_file,
        "--out", tmp_path / "result",
    )  # fmt: skip
    assert done.code == 0, done.err
    for words in ("net pnl + fees", "closest liquidation", "price  "):
        assert words in done.out
    assert "the default; choose with --balance" in done.err
    saved = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert saved["about"]["ticks"]["rows"] == 600
    assert saved["about"]["starting_balance"] == 1000.0


def test_json_is_one_object_and_nothing_else(run, config_file, market_file, tick_file):
    args = ["backtest", config_file, "--ticks", tick_file, "--market", market_file, "--json"]
    done = run(*args, "--balance", "500", "--latency-ms", "0")
    assert done.code == 0, done.err
    assert done.json["engine"] == "exact"
    assert done.json["starting_balance"] == 500.0
    assert done.json["n_trades"] > 0
    assert "default" not in done.err


def test_balance_default_of_an_inverse_market_is_worth_the_same(
    run, config_file, market_file, tick_file
):
    market_file.write_text(json.dumps(MARKET | {"inverse": True, "qty_step": 1, "min_qty": 1}))
    done = run("backtest", config_file, "--ticks", tick_file, "--market", market_file, "--json")
    assert done.json["starting_balance"] == pytest.approx(1000.0 / 1600.0)


def test_ranges_of_time_and_several_files(run, config_file, market_file, tick_file, tmp_path):
    lines = tick_file.read_text().splitlines()
    parts = [tmp_path / "a.csv", tmp_path / "b.csv.gz"]
    parts[0].write_text("\n".join(lines[:300]) + "\n")
    parts[1].write_bytes(gzip.compress("\n".join([HEADER, *lines[300:]]).encode()))
    both = run("backtest", config_file, "--ticks", parts[0], "--ticks", parts[1],
               "--market", market_file, "--json")  # fmt: skip
    whole = run("backtest", config_file, "--ticks", tick_file, "--market", market_file, "--json")
    assert both.json == whole.json
    part = run("backtest", config_file, "--ticks", tick_file, "--market", market_file, "--json",
               "--start", "2023-11-14T22:15:00")  # fmt: skip
    assert part.json["n_days"] < whole.json["n_days"]


def test_compat_by_name_runs_what_is_out_of_todays_ranges(run, config_file, market_file, tick_file):
    config_file.write_text(json.dumps(valid(min_markup=0.02, max_markup=0.01)))
    args = ["backtest", config_file, "--ticks", tick_file, "--market", market_file]
    refused = run(*args)
    assert refused.code == 2
    assert "max_markup" in refused.err
    assert run(*args, "--engine", "compat").code == 0


def csv(*rows: str, header: str = HEADER) -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


BAD_TICKS = {
    "missing": None,
    "empty": b"",
    "header only": csv(),
    "one tick": csv("1,100,1,1700000000000,1"),
    "NaN price": csv("1,100,1,1700000000000,1", "2,nan,1,1700000000001,0"),
    "price 0": csv("1,100,1,1700000000000,1", "2,0,1,1700000000001,0"),
    "negative price": csv("1,100,1,1700000000000,1", "2,-5,1,1700000000001,0"),
    "shuffled times": csv("1,100,1,1700000000005,1", "2,101,1,1700000000001,0"),
    "text in a number": csv("1,100,1,1700000000000,1", "2,1o1,1,1700000000001,0"),
    "seconds": csv("1,100,1,1700000000,1", "2,101,1,1700000001,0"),
    "missing field": csv("1,100,1,1700000000000,1", "2,101,1,1700000000001"),
    "unknown columns": csv("1,2", header="a,b"),
}


def test_ticks_of_one_price_are_no_use_to_compat(run, config_file, market_file, tmp_path):
    ticks = tmp_path / "bad.csv"
    ticks.write_bytes(csv("1,100,1,1700000000000,1", "2,100,1,1700000000001,0"))
    args = ["backtest", config_file, "--ticks", ticks, "--market", market_file]
    done = run(*args, "--engine", "compat")
    assert done.code == 1
    assert "bad.csv" in done.err
    assert run(*args).code == 0


@pytest.mark.parametrize("name", BAD_TICKS)
def test_bad_ticks(run, config_file, market_file, tmp_path, name):
    ticks = tmp_path / "bad.csv"
    if BAD_TICKS[name] is not None:
        ticks.write_bytes(BAD_TICKS[name])
    out = tmp_path / "result"
    done = run("backtest", config_file, "--ticks", ticks, "--market", market_file, "--out", out)
    assert done.code in (1, 2)
    assert done.out == ""
    assert "bad.csv" in done.err
    assert "Traceback" not in done.err
    assert not out.exists()


def test_truncated_gz(run, config_file, market_file, tick_file, tmp_path):
    ticks = tmp_path / "bad.csv.gz"
    ticks.write_bytes(gzip.compress(tick_file.read_bytes())[:-40])
    done = run("backtest", config_file, "--ticks", ticks, "--market", market_file)
    assert done.code == 1
    assert "bad.csv.gz" in done.err


BAD_CONFIGS = {
    "missing": None,
    "empty": "",
    "empty object": "{}",
    "broken": "{ leverage: [",
    "deeply nested": "[" * 100_000,
    "wrong type": json.dumps(valid(leverage="ten")),
    "unknown key": json.dumps(valid(levrage=10)),
    "min_markup above max_markup": json.dumps(valid(min_markup=0.02, max_markup=0.01)),
    "leverage 0": json.dumps(valid(leverage=0)),
    "slash in the name": json.dumps(valid(config_name="../../etc/passwd")),
    "NaN": json.dumps(valid(ddown_factor=math.nan)),
    "duplicate key": json.dumps(valid())[:-1] + ', "leverage": 3}',
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
@pytest.mark.parametrize("command", ["backtest", "grid", "config check"])
def test_bad_configs(run, market_file, tick_file, tmp_path, command, name):
    path = tmp_path / "bad.json"
    if BAD_CONFIGS[name] is not None:
        path.write_text(BAD_CONFIGS[name])
    rest = {
        "backtest": ["--ticks", tick_file, "--market", market_file],
        "grid": ["--market", market_file, "--price", "1000"],
        "config check": [],
    }[command]
    done = run(*command.split(), path, *rest)
    assert done.code in (1, 2)
    assert "bad.json" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("change", "word"),
    [({"price_step": 0}, "price_step"), ({"inverse": "no"}, "inverse"), ({"mn_qty": 1}, "min_qty")],
)
def test_bad_market(run, config_file, market_file, tick_file, change, word):
    market_file.write_text(json.dumps(MARKET | change))
    done = run("backtest", config_file, "--ticks", tick_file, "--market", market_file)
    assert done.code == 2
    assert word in done.err


@pytest.mark.parametrize(
    "extra", [["--balance", "0"], ["--balance", "nan"], ["--start", "soon"], ["--engine", "skip"]]
)
def test_bad_options(run, config_file, market_file, tick_file, extra):
    done = run("backtest", config_file, "--ticks", tick_file, "--market", market_file, *extra)
    assert done.code in (1, 2)
    assert extra[1] in done.err


def test_a_folder_that_is_no_result_is_left_alone(
    run, config_file, market_file, tick_file, tmp_path
):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("keep")
    done = run("backtest", config_file, "--ticks", tick_file, "--market", market_file, "--out", out)
    assert done.code == 1
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


# --- the exact engine's own options, and both engines ---


@pytest.fixture
def backtest(run, config_file, market_file, tick_file):
    """Run ``passivx backtest`` with everything it needs, and ARGS."""
    args = ["backtest", config_file, "--ticks", tick_file, "--market", market_file]
    return lambda *more: run(*args, *more)


@pytest.fixture
def funding_file(tmp_path):
    path = tmp_path / "funding.csv"
    path.write_text("ts_ms,rate\n1700000100000,0.0001\n1700000400000,-0.0002\n")
    return path


@pytest.fixture
def break_file(tmp_path):
    """Conditions that end any run at its third record."""
    path = tmp_path / "breaks.hjson"
    path.write_text('{"break_on": [["ON: three", "lambda trades, ticks, k: len(trades) >= 3"]]}')
    return path


CAUSES = ["fees", "funding", "open position", "realised pnl", "balance floor", "multi-level fills",
          "in all"]  # fmt: skip


def test_both_as_text(backtest):
    done = backtest("--engine", "both", "--balance", "1000")
    assert done.code == 0, done.err
    for words in ("compat beside exact", "why exact differs", *CAUSES):
        assert words in done.out
    assert done.out.count("equity ") == 2 + done.out.count("final equity ")
    assert "assumed: maintenance margin 0.4%" in done.err
    assert "assumed: no funding" in done.err
    assert "it flatters" in done.err


@pytest.mark.parametrize("breaks", [False, True])
def test_both_as_json_and_the_differences_add_up(backtest, funding_file, break_file, breaks):
    args = ["--engine", "both", "--json", "--funding", funding_file]
    done = backtest(*args, *(["--break-on", break_file] if breaks else []))
    assert done.code == 0, done.err
    assert list(done.json) == ["compat", "exact", "differences"]
    compat, exact = done.json["compat"], done.json["exact"]
    assert (compat["engine"], exact["engine"]) == ("compat", "exact")
    assert exact["outcome"] == ("break:three" if breaks else "end")
    early = ["ended early"] if breaks else []
    assert [row["cause"] for row in done.json["differences"]] == [*early, *CAUSES]
    amounts = {row["cause"]: row["amount"] for row in done.json["differences"]}
    assert amounts["in all"] == pytest.approx(sum(amounts[name] for name in CAUSES[:4]))
    gained = exact["final_equity"] - exact["starting_balance"]
    assert amounts["in all"] == pytest.approx(gained - compat["net_pnl_plus_fees"])
    assert amounts["funding"] == pytest.approx(exact["funding_sum"])
    assert amounts["fees"] == pytest.approx(exact["fee_sum"] - compat["fee_sum"])
    assert amounts["open position"] == pytest.approx(exact["open_pnl"])
    assert amounts["balance floor"] is amounts["multi-level fills"] is None
    kept_quiet = compat["final_equity"] - compat["starting_balance"]
    assert kept_quiet == pytest.approx(compat["net_pnl_plus_fees"] + compat["open_pnl"])


def test_beside_exact_compat_runs_by_its_own_rules(backtest):
    choices = ["--fill", "touch", "--latency-ms", "7", "--cancel-latency-ms", "3"]
    both = backtest("--engine", "both", "--json", *choices).json
    assert both["exact"] == backtest("--json", *choices).json
    assert both["compat"] == backtest("--engine", "compat", "--json").json


def test_both_write_a_folder_each(backtest, tmp_path):
    out = tmp_path / "result"
    done = backtest("--engine", "both", "--out", out, "--cancel-latency-ms", "3")
    assert done.code == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == ["compat", "exact"]
    for engine in ("compat", "exact"):
        saved = json.loads((out / engine / "summary.json").read_text())
        assert saved["summary"]["engine"] == engine
        assert f"result written to {out / engine}" in done.err
    assert saved["about"]["latency_ms"] == 100.0
    assert saved["about"]["cancel_latency_ms"] == 3.0
    assert saved["summary"]["assumptions"]


def test_both_folders_are_one_result(backtest, tmp_path):
    out = tmp_path / "result"
    assert backtest("--out", out).code == 0
    # Not beside another result, and not over one.
    refused = backtest("--engine", "both", "--out", out)
    assert refused.code == 1
    assert "config.json: choose a folder of its own" in refused.err
    assert backtest("--engine", "both", "--out", tmp_path / "two").code == 0
    assert backtest("--engine", "both", "--out", tmp_path / "two").code == 0
    assert backtest("--out", tmp_path / "two").code == 1


def test_tiers_may_come_from_a_table(backtest, market_file, tmp_path):
    tiers = tmp_path / "tiers.csv"
    tiers.write_text("floor,maintenance_rate\n0,0.01\n500,0.02\n")
    done = backtest("--json", "--tiers", tiers)
    assert done.code == 0
    assert "maintenance" not in " ".join(done.json["assumptions"])
    market_file.write_text(json.dumps(
        MARKET | {"tiers": [{"floor": 0, "maintenance_rate": 0.01},
                            {"floor": 500, "maintenance_rate": 0.02}]}
    ))  # fmt: skip
    assert backtest("--json").json == done.json
    tiers.write_text("floor,maintenance_rate\n0,x\n")
    done = backtest("--tiers", tiers)
    assert (done.code, done.out) == (1, "")
    assert "tiers.csv:2: 'x' is not a finite number" in done.err


def test_what_the_venue_would_not_allow_is_said(backtest, market_file, tmp_path):
    # The config's leverage is beyond the only tier's: nothing can ever be opened.
    tier = {"floor": 0, "maintenance_rate": 0.01, "max_leverage": 2}
    market_file.write_text(json.dumps(MARKET | {"tiers": [tier]}))
    done = backtest()
    assert done.code == 0
    assert "warning: leverage: must be at most 2 on this market" in done.err
    assert "assumed: no position at all (the first tier allows leverage 2 at most" in done.err
    assert "exact: no order filled" in done.err
    # A least order beyond the balance.
    market_file.write_text(json.dumps(MARKET | {"min_cost": 1e6}))
    done = backtest()
    assert "warning: entry_qty_pct" in done.err
    assert "it takes a balance of" in done.err


def test_rates_from_another_time_are_no_funding(backtest, tmp_path):
    old = tmp_path / "old.csv"
    old.write_text("ts_ms,rate\n1600000000000,0.0001\n")
    done = backtest("--json", "--funding", old)
    assert "no funding (no rate of the series falls within the ticks)" in done.json["assumptions"]


def test_bad_choices_are_named_before_the_ticks_are_read(run, config_file, market_file, tmp_path):
    ticks = tmp_path / "not_ticks.csv"
    ticks.write_text("nothing")
    for choice, words in (
        (["--latency-ms", "nan"], "latency_ms: must be milliseconds"),
        (["--queue-share", "0.5"], "queue_share: is for fill 'volume' only, was 0.5"),
        (["--engine", "compat", "--fill", "touch"], "fill: is for the exact engine"),
    ):
        done = run("backtest", config_file, "--ticks", ticks, "--market", market_file, *choice)
        assert done.code == 2
        assert words in done.err


def test_the_choices_of_exact_change_what_fills(backtest, funding_file, break_file):
    plain = backtest("--json").json
    for choice in (
        ["--fill", "touch"],
        ["--fill", "volume"],
        ["--fill", "volume", "--queue-share", "1"],
        ["--latency-ms", "1500"],
        ["--cancel-latency-ms", "4000"],
        ["--funding", funding_file],
        ["--break-on", break_file],
    ):
        done = backtest("--json", *choice)
        assert done.code == 0, done.err
        assert done.json != plain, choice
    assert plain == backtest("--json", "--latency-ms", "100", "--fill", "cross").json


def test_assumptions_are_said_in_text_and_in_json(backtest, funding_file, market_file):
    said = backtest("--json").json["assumptions"]
    assert [line.split()[0] for line in said] == ["maintenance", "no", "no"]
    for line in said:
        assert f"assumed: {line}" in backtest().err
    market_file.write_text(
        json.dumps(
            MARKET | {"liquidation_fee": 0.01, "tiers": [{"floor": 0, "maintenance_rate": 0.004}]}
        )
    )
    assert backtest("--json", "--funding", funding_file).json["assumptions"] == []
    assert "assumed" not in backtest("--funding", funding_file).err


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--fill", "touch", "fill"),
        ("--fill", "volume", "fill"),
        ("--queue-share", "0.5", "queue_share"),
        ("--cancel-latency-ms", "5", "cancel_latency_ms"),
        ("--funding", "FUNDING", "funding"),
    ],
)
def test_compat_refuses_what_is_exacts(backtest, funding_file, tmp_path, option, value, word):
    value = funding_file if value == "FUNDING" else value
    out = tmp_path / "result"
    done = backtest("--engine", "compat", option, value, "--out", out)
    assert done.code == 2
    assert f"Error: {word}: " in done.err
    assert "exact engine: leave it out" in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--fill", "luck"), ("--queue-share", "-0.1"), ("--queue-share", "1.1"),
        ("--queue-share", "nan"), ("--queue-share", "half"), ("--latency-ms", "-1"),
        ("--latency-ms", "nan"), ("--latency-ms", "inf"), ("--latency-ms", "1e9"),
        ("--latency-ms", "soon"), ("--cancel-latency-ms", "-1"), ("--cancel-latency-ms", "nan"),
        ("--funding", "missing.csv"), ("--funding", "."), ("--break-on", "missing.json"),
        ("--break-on", "."), ("--engine", "neither"),
    ],
)  # fmt: skip
def test_a_bad_choice_is_a_wrong_usage(backtest, option, value):
    done = backtest(option, value)
    assert done.code == 2
    name = option.removeprefix("--")
    assert name in done.err or name.replace("-", "_") in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_bad_funding_file_is_named_with_its_line(backtest, funding_file):
    funding_file.write_text("ts_ms,rate\n1700000100,0.0001\n")
    done = backtest("--funding", funding_file)
    assert done.code == 1
    assert "funding.csv:2: time must be whole milliseconds UTC, was 1700000100" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{x: 1}", "break_on: is missing"),
        ("{break_on: 5}", "break_on: must be a list"),
        ('{"break_on": [["ON: x", "lambda trades, ticks, k: exit()"]]}', "break_on[0]"),
        ("", "is empty"),
    ],
)
def test_bad_conditions_are_named(backtest, break_file, text, words):
    break_file.write_text(text)
    done = backtest("--break-on", break_file)
    assert done.code == 2
    assert "breaks.hjson: " in done.err
    assert words in done.err


def test_a_broken_run_says_which_condition_ended_it(backtest, break_file):
    broken = backtest("--json", "--break-on", break_file)
    assert broken.json["outcome"] == "break:three"
    assert broken.json["n_trades"] == 3
    assert "break:three" in backtest("--break-on", break_file).out
    compat = backtest("--engine", "compat", "--break-on", break_file)
    assert "break:three in compat: the original would have thrown this run away" in compat.err


def test_collecting_funding_without_a_series_says_what_to_give(backtest, config_file, funding_file):
    config_file.write_text(json.dumps(valid(indicator_settings__funding_fee_collect_mode=True)))
    done = backtest()
    assert done.code == 2
    assert "funding_fee_collect_mode" in done.err
    assert "--funding FILE" in done.err
    assert backtest("--funding", funding_file).code == 0


@pytest.mark.real_data
def test_the_published_file_trades_real_ticks(run, real_data, shared, tmp_path):
    market = tmp_path / "market.json"
    market.write_text(
        json.dumps(
            MARKET | {"price_step": 1e-5, "qty_step": 1, "min_qty": 1, "min_cost": 0,
                      "inverse": True, "max_leverage": 100}
        )
    )  # fmt: skip
    config = shared / "golden" / "original_style_live_config.json"
    assert load_config(config).leverage == 100
    done = run(
        "backtest", config, "--market", market, "--json", "--ticks",
        real_data / "binance_coinm" / "TRXUSD_PERP-trades-2025-03-04T00.csv.gz",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["outcome"] in ("end", "long_liquidation", "shrt_liquidation")


def test_demo_is_seeded_says_it_is_synthetic_and_writes_results(run, tmp_path):
    few = ("--ticks", "30000", "--live-ticks", "0", "--seed", "5")
    first = run("demo", *few, "--out", tmp_path / "a")
    again = run("demo", *few, "--out", tmp_path / "b", "--json")
    assert first.code == again.code == 0
    assert "synthetic" in first.out
    assert set(again.json) >= {"linear", "inverse"}
    for kind in ("linear", "inverse"):
        one, two = ((tmp_path / x / kind / "fills.csv").read_bytes() for x in "ab")
        assert one == two
