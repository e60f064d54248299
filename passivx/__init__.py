"""passivx: a grid market maker for perpetual futures.

Public names are loaded on first use, so that ``import passivx`` and ``passivx --help`` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from passivx.backtesting import BacktestResult, backtest, backtest_flat
    from passivx.config import Config, load_config
    from passivx.data.funding import load_funding
    from passivx.data.ticks import Ticks, load_ticks
    from passivx.errors import ConfigError, DataError, PassivxError, Problem
    from passivx.models import Market, Position, Tier, load_market
    from passivx.optimizer.session import OptimizeResult, optimize
    from passivx.optimizer.settings import load_settings
    from passivx.planner import PlannedOrder, plan_orders

# No module bears the name of a public function: importing it would put the module in its place.
_HOME = {
    "BacktestResult": "backtesting",
    "Config": "config",
    "ConfigError": "errors",
    "DataError": "errors",
    "Market": "models",
    "OptimizeResult": "optimizer.session",
    "PassivxError": "errors",
    "PlannedOrder": "planner",
    "Position": "models",
    "Problem": "errors",
    "Ticks": "data.ticks",
    "Tier": "models",
    "backtest": "backtesting",
    "backtest_flat": "backtesting",
    "load_config": "config",
    "load_funding": "data.funding",
    "load_market": "models",
    "load_settings": "optimizer.settings",
    "load_ticks": "data.ticks",
    "optimize": "optimizer.session",
    "plan_orders": "planner",
}

__all__ = [
    "BacktestResult",
    "Config",
    "ConfigError",
    "DataError",
    "Market",
    "OptimizeResult",
    "PassivxError",
    "PlannedOrder",
    "Position",
    "Problem",
    "Ticks",
    "Tier",
    "backtest",
    "backtest_flat",
    "load_config",
    "load_funding",
    "load_market",
    "load_settings",
    "load_ticks",
    "optimize",
    "plan_orders",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("passivx")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'passivx' has no attribute {name!r}")
    return getattr(importlib.import_module(f"passivx.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
