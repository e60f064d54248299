"""A valid config document to bend, and random valid ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from passivx.config import Config, load_config
from passivx.documents import Number, fields_of

_VALID: dict[str, Any] = {
    "config_name": "valid",
    "symbol": "BTCUSD",
    "cross_mode": True,
    "balance_pct": 0.5,
    "leverage": 10,
    "entry_qty_pct": 0.01,
    "ddown_factor": 1.0,
    "grid_spacing": 0.002,
    "grid_coefficient": 200.0,
    "min_markup": 0.001,
    "max_markup": 0.01,
    "n_close_orders": 10,
    "n_entry_orders": 8,
    "min_close_qty_multiplier": 0.5,
    "indicator_settings": {"tick_ema": {"span": 1000}, "do_long": True, "do_shrt": True},
    "stop_loss_liq_diff": 0.1,
    "stop_loss_pos_price_diff": 0.2,
    "stop_loss_pos_reduction": 0.05,
    "market_stop_loss": False,
}


def valid(**changes: Any) -> dict[str, Any]:
    """A valid document; ``changes`` by dotted path (dots written as __) are put into it."""
    document = copy.deepcopy(_VALID)
    for path, value in changes.items():
        put(document, path.replace("__", "."), value)
    return document


def config_of(settings: Mapping[str, Any]) -> Config:
    """The config that says what flat settings say; what those may leave out is written out."""
    spelled_out = {
        "config_name": "by_hand",
        "symbol": "TESTUSDT",
        "cross_mode": True,
        "n_entry_orders": 8,
        "market_stop_loss": False,
        "indicator_settings": {
            "tick_ema": {"span": settings["ema_span"], "spread": settings["ema_spread"]},
            "do_long": settings["do_long"],
            "do_shrt": settings["do_shrt"],
        },
    }
    same = {name: settings[name] for name in Config.model_fields if name in settings}
    return load_config(spelled_out | same)


def put(document: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path, making the objects on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value


def number_of(info: FieldInfo) -> Number | None:
    """The range a field carries."""
    return next((item for item in info.metadata if isinstance(item, Number)), None)


def _values(path: str, info: FieldInfo) -> st.SearchStrategy[Any]:
    number = number_of(info)
    if number is None:
        if info.annotation is bool:
            return st.booleans()
        if info.annotation is str:
            names = st.text("ABCxyz019_.%-", min_size=1, max_size=64)
            return names.filter(lambda name: ".." not in name and name != ".")
        return st.sampled_from(info.annotation.__args__)  # type: ignore[union-attr]
    low, high = (float(end) for end in number.interval[1:-1].split(","))
    high = 1e300 if math.isinf(high) else high
    if info.annotation is int:
        return st.integers(int(low), int(min(high, 1e12)))
    return st.floats(
        low,
        high,
        exclude_min=number.interval[0] == "(",
        exclude_max=number.interval[-1] == ")" and high != 1e300,
    )


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Any valid document."""
    document: dict[str, Any] = {}
    for path, info in fields_of(Config):
        if info.is_required() or draw(st.booleans()):
            put(document, path, draw(_values(path, info)))
    markups = sorted((document["min_markup"], document["max_markup"]))
    document["min_markup"], document["max_markup"] = markups
    return document
