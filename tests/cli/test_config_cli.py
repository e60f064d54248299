"""`passivx config check` and `passivx config explain`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from passivx.cli import cli, main
from passivx.config import Config, load_config
from passivx.documents import fields_of
from passivx.report.explain import explain
from tests.configs import valid

ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "configs" / "live_settings"
MARKETS = ROOT / "configs" / "markets"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.json"
    document = valid(leverage=0, levrage=5, config_name="a/b\x1b[31m")
    document["\x1b[31m\ud800"] = 10**30
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(arg) for arg in args])
    code = caught.value.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


def test_usable_config_exits_0_with_its_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(valid(balance_pct=-0.5)), encoding="utf-8")
    code, out, err = run(capsys, "config", "check", file)
    assert (code, err) == (0, "")
    assert out == f"warning: balance_pct: -0.5 counts as 0.5\nOK: {file}\n"
    code, out, err = run(capsys, "config", "check", file, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "ok": True,
        "file": str(file),
        "problems": [],
        "warnings": ["balance_pct: -0.5 counts as 0.5"],
        "least_balance": None,
    }


def test_all_problems_exit_2_and_write_no_control_characters(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "config", "check", broken)
    assert (code, out) == (2, "")
    assert "4 problems" in err
    assert "leverage: must be a number in [1, inf), was 0" in err
    assert "did you mean leverage?" in err
    assert "\x1b" not in err


def test_all_problems_as_json(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "config", "check", broken, "--json")
    assert (code, err) == (2, "")
    report = json.loads(out)
    assert report["ok"] is False
    assert report["file"] == str(broken)
    found = {problem["field"]: problem["value"] for problem in report["problems"]}
    assert found["leverage"] == 0
    assert found["levrage"] == 5
    assert found["config_name"] == "'a/b\\x1b[31m'"
    assert len(found) == 4


def test_venue_checks(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["config", "check", LIVE / "binance" / "btcusdt_careful.json"]
    venue = ["--market", MARKETS / "binance_BTCUSDT.json", "--price", 60_000]
    code, out, _ = run(capsys, *args, *venue)
    assert code == 0
    assert "from a balance of 8000" in out
    assert run(capsys, *args, *venue, "--balance", 8001)[0] == 0
    code, _, err = run(capsys, *args, *venue, "--balance", 7999)
    assert code == 2
    assert "entry_qty_pct" in err
    code, out, _ = run(capsys, *args, *venue, "--balance", 7999, "--json")
    assert (code, json.loads(out)["problems"][0]["field"]) == (2, "entry_qty_pct")


@pytest.mark.parametrize(
    "options",
    [
        ["--market", MARKETS / "bybit_BTCUSD.json"],
        ["--price", 1],
        ["--balance", 1],
        ["--market", MARKETS / "bybit_BTCUSD.json", "--price", "nan"],
        ["--market", MARKETS / "missing.json", "--price", 1],
    ],
)
def test_venue_inputs_are_never_invented(
    options: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "config", "check", LIVE / "bybit" / "default.json", *options)
    assert (code, out) == (2, "")
    assert err


def test_bare_names_resolve_in_the_workspace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "config", "check", "btcusd_careful", "--workspace", ROOT / "configs")
    assert (code, out) == (0, f"OK: {LIVE / 'bybit' / 'btcusd_careful.json'}\n")
    monkeypatch.setenv("PASSIVX_WORKSPACE", str(ROOT / "configs"))
    assert run(capsys, "config", "explain", "btcusd_careful")[0] == 0
    assert run(capsys, "config", "explain", "default")[0] == 2


def test_explain_says_what_each_field_does_with_the_files_numbers() -> None:
    effects = {row.field: row.effect for row in explain(load_config(LIVE / "bybit/default.json"))}
    # 0.528 * 59 * 0.02636 = 0.8212; 0.00221 * (1 + 0.02636 * 639.4) = 0.03946
    assert "2.636 % of balance × leverage, worth 82.12 % of the wallet" in effects["entry_qty_pct"]
    assert "after a first entry it is 3.946 %" in effects["grid_spacing"]
    # (0.02168 - 0.00047) / 16 / 1.00047 = 0.001325
    assert effects["n_close_orders"] == "up to 17 closes, 0.1325 % or more apart"


def test_explain_tells_what_has_no_effect() -> None:
    config = load_config(valid(stop_loss_pos_reduction=0, max_markup=0.1, n_close_orders=2))
    effects = {row.field: row.effect for row in explain(config)}
    assert "no effect" in effects["stop_loss_liq_diff"]
    assert "no effect" in effects["max_markup"]
    assert "one order closes everything" in effects["n_close_orders"]


@pytest.mark.parametrize(
    "changes",
    [
        {"ddown_factor": 0, "grid_coefficient": 0, "n_close_orders": 1},
        {"entry_qty_pct": 1, "min_markup": 0.01, "min_close_qty_multiplier": 0},
        {"ddown_factor": 5e-324, "entry_qty_pct": 5e-324, "min_close_qty_multiplier": 5e-324},
        {"leverage": 1e300, "stop_loss_pos_price_diff": 1e300, "book": "trades"},
        {"market_stop_loss": True, "cross_mode": False, "logging_level": 1},
        {"indicator_settings": {"tick_ema": {"span": 1}, "do_long": False, "do_shrt": False}},
        {"indicator_settings__do_long": False, "indicator_settings__tick_ema__spread": 0.1},
        {"indicator_settings__funding_fee_collect_mode": True, "balance_pct": 1},
    ],
)
def test_explain_has_words_for_every_field_of_any_config(changes: dict[str, object]) -> None:
    rows = explain(load_config(valid(**changes)))
    assert [row.field for row in rows] == [path for path, _ in fields_of(Config)]
    assert all(row.meaning and row.effect for row in rows)


def test_explain_prints_plain_lines_into_a_pipe_and_one_json_object() -> None:
    file = LIVE / "binance" / "default.json"
    result = CliRunner().invoke(cli, ["config", "explain", str(file)])
    assert result.exit_code == 0
    assert "┃" not in result.stdout
    line = next(x for x in result.stdout.splitlines() if x.startswith("leverage"))
    assert "the venue is set to 47x" in line
    result = CliRunner().invoke(cli, ["config", "explain", str(file), "--json"])
    fields = json.loads(result.stdout)["fields"]
    assert fields[0].keys() == {"field", "value", "meaning", "effect"}


def test_as_a_real_program(broken: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "passivx", "config", "check", str(broken), "--json"],
        capture_output=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, b"")
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize("args", [["config"], ["config", "check"], ["config", "explain"], ["init"]])
def test_help_has_an_example(args: list[str]) -> None:
    result = CliRunner().invoke(cli, [*args, "--help"])
    assert result.exit_code == 0
    assert "Example:" in result.stdout
