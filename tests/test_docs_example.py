"""The worked example of docs/backtest.md is what the engine does, to the last digit."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTION = re.search(
    r"^## A worked example\n.*?(?=^## )", (DOCS / "backtest.md").read_text("utf-8"), re.M | re.S
)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "docs_backtest_example", DOCS / "backtest_example.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def section() -> str:
    assert SECTION is not None
    return SECTION[0]


def test_the_tables_are_what_the_script_prints(example: ModuleType, section: str) -> None:
    # `tables` also asserts that the replay's fills equal the engine's.
    assert re.findall(r"(?:^\|.*\n)+", section, re.M) == [t + "\n" for t in example.tables()]


def test_the_sums_are_right_and_their_results_stand_in_the_tables(
    example: ModuleType, section: str
) -> None:
    shown = {
        float(x.replace(",", "")) for x in re.findall(r"\d[\d,.]*\d|\d", "".join(example.tables()))
    }
    sums = [
        re.sub(r"^.*?  +", "", line).split(" = ")
        for block in re.findall(r"^```\n(.*?)^```", section, re.M | re.S)
        for line in block.splitlines()
    ]
    assert len(sums) > 20
    for left, right in sums:
        python = left.replace("×", "*").replace("−", "-")
        assert re.fullmatch(r"(?:floor|ceil|[\d.+*/() -])+", python), left
        result = eval(python, {"__builtins__": {}, "floor": math.floor, "ceil": math.ceil})
        assert result == pytest.approx(float(right.replace("−", "-")), abs=1e-9), left
        assert abs(float(right.replace("−", "-"))) in shown, right


def test_the_example_shows_what_it_is_there_for(example: ModuleType) -> None:
    round_trip, limit_stop, market_stop = (
        example.run_engine(e).fills
        for e in (example.ROUND_TRIP, example.LIMIT_STOP, example.MARKET_STOP)
    )
    assert round_trip["kind"].tolist() == [
        "entry", "reentry", "close", "close", "funding", "close",
    ]  # fmt: skip
    assert round_trip["tick"][2] == round_trip["tick"][3]
    for fills in (limit_stop, market_stop):
        assert fills["kind"].tolist() == ["entry", "stop_loss_pos_price_diff"]
    assert market_stop["balance"][-1] - limit_stop["balance"][-1] == pytest.approx(13.53)


def check_picture(path: Path) -> None:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1200, 700)
    assert 20_000 < len(data) < 150_000


def test_the_picture_in_the_docs_is_of_this_run(example: ModuleType, section: str) -> None:
    assert f"]({example.PICTURE.name})" in section
    check_picture(example.PICTURE)
    assert example.fingerprint().encode() in example.PICTURE.read_bytes(), (
        "draw it anew: python docs/backtest_example.py"
    )


def test_the_script_draws_the_picture(example: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    example.draw(tmp_path / "example.png")
    check_picture(tmp_path / "example.png")
