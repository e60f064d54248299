"""``passivx demo``: the bot on a simulated exchange beside the backtest of the same trades."""

from __future__ import annotations

import logging

import pytest

from passivx.cli import demo
from passivx.live import rehearsal


def test_the_bots_fills_are_the_backtests(run, tmp_path):
    level = logging.getLogger("passivx").level
    done = run("demo", "--ticks", "1000", "--live-ticks", "6000", "--seed", "9", "--out",
               tmp_path / "d", "--json")  # fmt: skip
    assert done.code == 0, done.err
    live = done.json["live"]
    assert set(live) == {"binance", "bybit"}
    for said in live.values():
        assert said["equal"]
        assert said["difference"] == ""
        assert said["latency_ms"] == 100.0
        assert said["bot"] == said["backtest"]
        assert said["bot"]["fills"] >= 10
        assert said["messages"] > 6000, "trades, at least, went over sockets"
    assert logging.getLogger("passivx").level == level


def test_the_comparison_is_shown(run, tmp_path):
    done = run("demo", "--ticks", "1000", "--live-ticks", "500", "--out", tmp_path / "d")
    assert done.code == 0, done.err
    assert "binance bot" in done.out
    assert "bybit bot" in done.out
    assert done.out.count("equal") == 2
    assert "100 ms" in done.out


@pytest.mark.parametrize("what", ["latency", "wallet"])
def test_a_difference_is_named_and_fails(run, tmp_path, monkeypatch, what):
    async def other(*args, **options):
        options = options | (
            {"latency_ms": 900.0} if what == "latency" else {"wallet": options["wallet"] * 0.9}
        )
        return await rehearsal.rehearse(*args, **options)

    monkeypatch.setattr(demo, "rehearse", other)
    done = run("demo", "--ticks", "1000", "--live-ticks", "6000", "--seed", "9", "--out",
               tmp_path / "d", "--json")  # fmt: skip
    assert done.code == 1
    assert not all(said["equal"] for said in done.json["live"].values())
    assert "Error: " in done.err
    assert "backtest" in done.err
