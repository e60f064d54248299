"""`passivx grid`: the ladder as table, picture and JSON."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import MARKET
from tests.configs import valid


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(valid()))
    return path


def test_published_linear_example(run, tmp_path, market_file):
    config = tmp_path / "c.json"
    config.write_text(json.dumps(valid(entry_qty_pct=0.07, leverage=33, balance_pct=1.0)))
    done = run("grid", config, "--market", market_file, "--price", 1100, "--balance", 40, "--json")
    assert done.code == 0, done.err
    assert {order["qty"] for order in done.json["orders"]} == {0.084}


def test_published_inverse_example(run, tmp_path, market_file):
    config = tmp_path / "c.json"
    config.write_text(json.dumps(valid(entry_qty_pct=0.0021, leverage=50, balance_pct=1.0)))
    rules = MARKET | {"inverse": True, "qty_step": 1, "min_qty": 1, "min_cost": 0}
    market_file.write_text(json.dumps(rules))
    done = run(
        "grid", config, "--market", market_file, "--price", 37000, "--balance", 0.001, "--json"
    )
    assert {order["qty"] for order in done.json["orders"]} == {3.0}


def test_flat_shows_both_entries_and_what_would_follow(run, config_file, market_file):
    done = run("grid", config_file, "--market", market_file, "--price", 1000, "--balance", 1000)
    assert done.code == 0, done.err
    for words in (
        "buy entry",
        "sell entry",
        "buy reentry",
        "sell close",
        "last price",
        "then",
    ):
        assert words in done.out
    assert "maintenance rate of 0.004" in done.err


def test_position_ladder_adds_up(run, config_file, market_file):
    done = run(
        "grid", config_file, "--market", market_file, "--price", 1000, "--balance", 1000,
        "--position", "0.2@1010", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    ladder = done.json["ladder"]
    adds = [rung for rung in ladder if rung["kind"] == "reentry"]
    closes = [rung for rung in ladder if rung["kind"] == "close"]
    assert adds[0]["position"] == pytest.approx(0.2 + adds[0]["qty"])
    assert [rung["entry_price"] for rung in adds] == sorted(
        (rung["entry_price"] for rung in adds), reverse=True
    )
    assert sum(rung["qty"] for rung in closes) == pytest.approx(0.2)
    assert closes[-1]["position"] == 0.0
    assert all(rung["reduce_only"] and rung["side"] == "sell" for rung in closes)
    # What rests now is what is not too far away.
    now = [rung for rung in ladder if rung["now"]]
    assert [order["price"] for order in done.json["orders"]] == [rung["price"] for rung in now]
    assert all(abs(rung["distance"]) <= 0.05 for rung in now if rung["kind"] == "reentry")


def test_a_short_position_mirrors(run, config_file, market_file):
    done = run(
        "grid", config_file, "--market", market_file, "--price", 1000, "--balance", 1000,
        "--position", "-0.2@990", "--json",
    )  # fmt: skip
    kinds = {(rung["kind"], rung["side"]) for rung in done.json["ladder"]}
    assert kinds == {("reentry", "sell"), ("close", "buy")}


@pytest.mark.parametrize("position", ["1", "0@5", "1@-5", "1@nan", "a@b"])
def test_bad_positions(run, config_file, market_file, position):
    done = run(
        "grid", config_file, "--market", market_file, "--price", 1000, "--position", position
    )
    assert done.code == 2


def test_funding_mode_needs_a_rate(run, tmp_path, market_file):
    document = valid()
    document["indicator_settings"]["funding_fee_collect_mode"] = True
    config = tmp_path / "c.json"
    config.write_text(json.dumps(document))
    args = ["grid", config, "--market", market_file, "--price", 1000, "--balance", 1000]
    assert run(*args).code == 2
    done = run(*args, "--funding-rate", "-0.0001", "--json")
    assert {order["side"] for order in done.json["orders"]} == {"buy"}
