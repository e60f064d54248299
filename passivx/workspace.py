"""A workspace: one folder for configs, keys, data and results, under the original's names."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from passivx.errors import ConfigError, PassivxError, Problem
from passivx.files import atomic_write

__all__ = [
    "create_workspace",
    "examples_folder",
    "find_market",
    "resolve_config",
    "resolve_settings",
    "session_folder",
]

_EXCHANGES: Final = ("binance", "bybit")
_FOLDERS: Final = (
    *(f"live_settings/{exchange}" for exchange in _EXCHANGES),
    "backtest_configs",
    "markets",
    "backtest_results",
    "historical_data",
    "logs",
)
# Keys: nobody else on the machine may even list them.
_SECRET_FOLDERS: Final = (
    "api_key_secrets",
    *(f"api_key_secrets/{exchange}" for exchange in _EXCHANGES),
)


def resolve_config(argument: str, workspace: Path, exchange: str | None = None) -> Path:
    """Return the file a command's CONFIG argument means.

    A path is a path; a bare NAME is ``live_settings/{exchange}/NAME.json`` in the workspace, on
    every exchange when none is given; ``bybit/NAME`` says which.

    Raises
    ------
    ConfigError
        If a bare name is found nowhere (naming near ones) or on several exchanges.
    """
    settings = workspace / "live_settings"
    if (named := settings / f"{argument}.json").is_file():
        return named
    if re.search(r"[/\\]|\.h?json$", argument) or Path(argument).is_file():
        return Path(argument)
    files = sorted(settings.glob(f"{exchange or '*'}/*.json"))
    found = [file for file in files if file.stem == argument]
    if len(found) == 1:
        return found[0]
    if found:
        remedy = f"say which: {' or '.join(map(str, found))}"
        raise ConfigError([Problem("", None, f"config {argument!r} exists more than once", remedy)])
    hint = _near(argument, [file.stem for file in files])
    raise ConfigError([Problem("", None, f"no config {argument!r} in {settings}", hint)])


def _near(argument: str, names: list[str]) -> str:
    near = difflib.get_close_matches(argument, names, cutoff=0.5)
    return f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "name a file"


def resolve_market(argument: Path, workspace: Path) -> Path:
    """Return the market file that is meant: a path as it is, else the same path in the workspace.

    What is found nowhere is returned as it is, for the reader to name.
    """
    inside = workspace / argument
    return inside if not argument.exists() and inside.exists() else argument


def find_market(exchange: str, symbol: str, workspace: Path) -> Path | None:
    """Return the market file of a symbol: the workspace's, else the example's, else None."""
    name = Path("markets") / f"{exchange}_{symbol}.json"
    return next((f / name for f in (workspace, examples_folder()) if (f / name).is_file()), None)


def resolve_settings(argument: str, workspace: Path) -> Path:
    """Return the settings file an optimizer's argument means.

    A path is a path; a bare NAME is ``backtest_configs/NAME.hjson`` in the workspace.

    Raises
    ------
    ConfigError
        If a bare name is not found, naming near ones.
    """
    folder = workspace / "backtest_configs"
    if (named := folder / f"{argument}.hjson").is_file():
        return named
    if re.search(r"[/\\]|\.h?json$", argument) or Path(argument).is_file():
        return Path(argument)
    hint = _near(argument, [file.stem for file in folder.glob("*.hjson")])
    raise ConfigError([Problem("", None, f"no settings {argument!r} in {folder}", hint)])


def session_folder(exchange: str, symbol: str, session_name: str, workspace: Path) -> Path:
    """Return where the results of a session go."""
    return workspace / "backtest_results" / exchange / symbol / session_name


def create_workspace(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Make a workspace in ``folder``: yield each example file and whether it was written.

    A file that exists already is kept as it is. Folders for keys are made private (0700).

    Raises
    ------
    PassivxError
        If the folder cannot be written.
    """
    try:
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name in _SECRET_FOLDERS:
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        examples = examples_folder()
        for source in sorted(examples.glob("*/**/*.*json")):
            target = folder / source.relative_to(examples)
            fresh = not os.path.lexists(target)
            if fresh:
                atomic_write(target, source.read_bytes())
            yield target, fresh
    except OSError as e:
        raise PassivxError(f"{e.filename or folder}: cannot be written ({e.strerror})") from e


def examples_folder() -> Path:
    """Return the folder of example configs and markets, laid out like a workspace."""
    # An installed package holds configs/ inside it; a source tree has it one folder up.
    package = Path(__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "live_settings").is_dir():
            return folder
    raise PassivxError("the example configs are missing from this installation: reinstall passivx")
