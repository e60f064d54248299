"""`passivx init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from passivx.cli import cli


def test_init_makes_a_workspace_and_says_what_it_kept(tmp_path: Path) -> None:
    folder = str(tmp_path / "new" / "ws")
    first = CliRunner().invoke(cli, ["init", folder])
    assert first.exit_code == 0
    assert "wrote" in first.stdout
    assert "kept" not in first.stdout
    second = CliRunner().invoke(cli, ["init", folder, "--json"])
    report = json.loads(second.stdout)
    assert report["written"] == []
    assert str(Path(folder) / "live_settings" / "bybit" / "default.json") in report["kept"]
    check = CliRunner().invoke(cli, ["config", "check", "btcusd_careful", "--workspace", folder])
    assert check.exit_code == 0


def test_init_without_a_folder_uses_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["init"]).exit_code == 0
    assert (tmp_path / "live_settings" / "binance" / "default.json").is_file()
