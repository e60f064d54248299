"""Tier tables: the forms that are read, and how every other one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from passivx.data.tiers import with_tiers
from passivx.errors import ConfigError, DataError
from passivx.models import Market, Tier

MARKET = Market(
    price_step=0.1, qty_step=0.001, min_qty=0.001, min_cost=5.0, maker_fee=0.0002,
    taker_fee=0.0005, max_leverage=125, inverse=False, tiers=(Tier(floor=0, maintenance_rate=0.5),),
)  # fmt: skip
# Binance's deductions: 50,000 × 0.001 = 50, then 50 + 250,000 × 0.005 = 1300.
RECORDS = [(0.0, 0.004, 0.0), (50_000.0, 0.005, 50.0), (250_000.0, 0.01, 1300.0)]

FILES = {
    "the least": "floor,maintenance_rate\n0,0.004\n50000,0.005\n250000,0.01\n",
    "gaps": (
        "max_leverage,floor,deduction,maintenance_rate\n"
        "125,0,,0.004\n,50000,50,0.005\n50,250000,,0.01\n"
    ),
    "Binance": json.dumps(
        [
            {"bracket": 1, "initialLeverage": 125, "notionalCap": 50000, "notionalFloor": 0,
             "maintMarginRatio": 0.004, "cum": 0.0},
            {"bracket": 2, "initialLeverage": 100, "notionalCap": 250000, "notionalFloor": 50000,
             "maintMarginRatio": 0.005, "cum": 50.0},
            {"bracket": 3, "initialLeverage": 50, "notionalCap": 1000000, "notionalFloor": 250000,
             "maintMarginRatio": 0.01, "cum": 1300.0},
        ]
    ),
}  # fmt: skip


def file(folder: Path, text: str) -> Path:
    path = folder / "tiers.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", FILES)
def test_reads(tmp_path, name):
    market = with_tiers(MARKET, file(tmp_path, FILES[name]))
    assert market.tier_records().tolist() == RECORDS
    assert market.price_step == MARKET.price_step


def test_leverage_limits_are_kept(tmp_path):
    limits = [tier.max_leverage for tier in with_tiers(MARKET, file(tmp_path, FILES["gaps"])).tiers]
    assert limits == [125.0, float("inf"), 50.0]


def test_given_deductions_are_taken_as_they_are(tmp_path):
    # A table whose margin jumps at its floors says so with zeros.
    text = "floor,maintenance_rate,deduction\n0,0.004,0\n50000,0.005,0\n"
    assert with_tiers(MARKET, file(tmp_path, text)).tier_records()["deduction"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", DataError, "is empty: give a csv or JSON with tiers"),
        ("floor,maintenance_rate\n", DataError, "holds no tiers"),
        ("[]", DataError, "holds no tiers"),
        ("floor,rate\n0,0.1\n", DataError, "csv:1: must name one maintenance rate column"),
        ("floor,maintenance_rate\n0,much\n", DataError, "csv:2: 'much' is not a finite number"),
        ("floor,maintenance_rate\n,0.1\n", ConfigError, r"tiers\[0\]\.floor: is missing"),
        ('[{"floor": 0}]', DataError, "entry .0.: must name one maintenance rate column"),
        ("floor,maintenance_rate\n5,0.1\n", ConfigError, "floors start at 0 and rise"),
        ("floor,maintenance_rate\n0,0.1\n9,0.01\n", ConfigError, "rates rise with the floors"),
        ("floor,maintenance_rate\n0,4\n", ConfigError, r"maintenance_rate: must be.*\[0, 1\)"),
    ],
)
def test_refuses(tmp_path, text, error, words):
    path = file(tmp_path, text)
    with pytest.raises(error, match=words) as caught:
        with_tiers(MARKET, path)
    assert str(path) in str(caught.value)
