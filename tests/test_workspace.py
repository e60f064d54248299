"""Workspaces: what init makes, how names resolve, and files that are never half-written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from passivx import ConfigError, PassivxError, load_config
from passivx.files import atomic_write, write_folder
from passivx.workspace import create_workspace, resolve_config, resolve_market

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    list(create_workspace(tmp_path / "ws"))
    return tmp_path / "ws"


def test_workspace_has_the_originals_folders_and_loadable_examples(workspace: Path) -> None:
    for name in ("backtest_configs", "backtest_results", "historical_data", "logs", "markets"):
        assert (workspace / name).is_dir()
    for exchange in ("binance", "bybit"):
        assert (workspace / "api_key_secrets" / exchange).is_dir()
        assert load_config(workspace / "live_settings" / exchange / "default.json")


@posix
def test_key_folders_are_private(workspace: Path) -> None:
    for folder in (workspace / "api_key_secrets", *(workspace / "api_key_secrets").iterdir()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_existing_files_are_kept_and_missing_ones_written(workspace: Path) -> None:
    mine = workspace / "live_settings" / "bybit" / "default.json"
    mine.write_text("mine", encoding="utf-8")
    lost = workspace / "markets" / "bybit_BTCUSD.json"
    lost.unlink()
    made = dict(create_workspace(workspace))
    assert mine.read_text(encoding="utf-8") == "mine"
    assert [path for path, fresh in made.items() if fresh] == [lost]
    assert made[mine] is False


def test_workspace_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PassivxError, match="file"):
        list(create_workspace(tmp_path / "file"))


def test_a_bare_name_is_found_in_the_workspace(workspace: Path) -> None:
    settings = workspace / "live_settings"
    assert resolve_config("btcusd_careful", workspace) == settings / "bybit/btcusd_careful.json"
    assert resolve_config("default", workspace, "bybit") == settings / "bybit/default.json"
    dotted = settings / "bybit" / "v0.0.2_compatible.json"
    dotted.write_text("{}", encoding="utf-8")
    assert resolve_config("v0.0.2_compatible", workspace) == dotted


def test_a_path_is_a_path(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("some/default", "default.json", "default.hjson", "a\\default"):
        assert resolve_config(path, workspace) == Path(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "btcusd_careful").write_text("{}", encoding="utf-8")
    assert resolve_config("btcusd_careful", workspace) == Path("btcusd_careful")


def test_ambiguous_and_unknown_names_say_what_there_is(workspace: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config("default", workspace)
    assert str(Path("binance/default.json")) in str(caught.value)
    assert str(Path("bybit/default.json")) in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean btcusd_careful"):
        resolve_config("btcusd_carefull", workspace)
    with pytest.raises(ConfigError, match="name a file"):
        resolve_config("*", workspace)
    with pytest.raises(ConfigError):
        resolve_config("default", workspace / "nowhere")


def test_atomic_write_replaces_whole_files_or_leaves_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    atomic_write(path, "old")
    atomic_write(path, "nëw")
    assert path.read_text(encoding="utf-8") == "nëw"

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, b"half")
    assert path.read_text(encoding="utf-8") == "nëw"
    assert list(tmp_path.iterdir()) == [path]


@posix
def test_atomic_write_can_make_private_files(tmp_path: Path) -> None:
    atomic_write(tmp_path / "key", "secret", mode=0o600)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_name_may_say_its_exchange_and_markets_are_found_inside(tmp_path: Path) -> None:
    list(create_workspace(tmp_path))
    with pytest.raises(ConfigError, match="more than once"):
        resolve_config("default", tmp_path)
    assert resolve_config("bybit/default", tmp_path).parent.name == "bybit"
    inside = Path("markets/binance_BTCUSDT.json")
    assert resolve_market(inside, tmp_path) == tmp_path / inside
    assert resolve_market(Path("nowhere.json"), tmp_path) == Path("nowhere.json")


def test_folders_are_replaced_whole_and_only_those_of_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "results" / "demo"
    write_folder(folder, {"mark": "1", "old.csv": "x"}, mark="mark")
    with pytest.raises(PassivxError, match=r"holds old\.csv: choose a folder of its own"):
        write_folder(folder, {"mark": "2", "new.csv": b"y"}, mark="mark")
    (folder / "old.csv").unlink()
    write_folder(folder, {"mark": "2", "new.csv": b"y"}, mark="mark")
    assert {f.name: f.read_text(encoding="utf-8") for f in folder.iterdir()} == {
        "mark": "2",
        "new.csv": "y",
    }
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(PassivxError, match=r"notes\.txt"):
        write_folder(folder, {"mark": "3", "new.csv": b"z"}, mark="mark")
    (folder / "notes.txt").unlink()
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.jpg").write_text("meow", encoding="utf-8")
    with pytest.raises(PassivxError, match=r"photos holds cat\.jpg"):
        write_folder(foreign, {"mark": ""}, mark="mark")
    with pytest.raises(PassivxError, match="cannot be written"):
        write_folder(foreign / "cat.jpg" / "x", {"mark": ""}, mark="mark")
    monkeypatch.setattr("passivx.files.atomic_write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_folder(folder, {"mark": "3", "new.csv": b"z"}, mark="mark")
    assert (folder / "mark").read_text(encoding="utf-8") == "2"
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]
