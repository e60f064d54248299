"""passivx: a grid market maker for perpetual futures.

Public names are loaded on first use, so that ``import passivx`` and ``passivx --help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from passivx.data.ticks import Ticks, load_ticks
    from passivx.errors import ConfigError, DataError, PassivxError, Problem
    from passivx.models import Market, Position, Tier

_HOME = {
    "ConfigError": "errors",
    "DataError": "errors",
    "Market": "models",
    "PassivxError": "errors",
    "Position": "models",
    "Problem": "errors",
    "Ticks": "data.ticks",
    "Tier": "models",
    "load_ticks": "data.ticks",
}

__all__ = [
    "ConfigError",
    "DataError",
    "Market",
    "PassivxError",
    "Position",
    "Problem",
    "Ticks",
    "Tier",
    "load_ticks",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("passivx")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'passivx' has no attribute {name!r}")
    return getattr(importlib.import_module(f"passivx.{home}"), name)
