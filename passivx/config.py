"""The strategy config: the original's live JSON, checked strictly.

The one home of its ranges, defaults and descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from passivx._core.flow import FLOW_RULES_DTYPE
from passivx._core.types import STRATEGY_DTYPE
from passivx.documents import Checking, Flag, Name, Number, load_document, problems_of, wanted
from passivx.errors import ConfigError

__all__ = [
    "Config",
    "IndicatorSettings",
    "TickEma",
    "load_config",
]

# Old files carry these, by the object they sit in; nothing reads them.
_UNUSED: Final = ("key", "indicator_settings.ohlcv_rsi")


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class TickEma(_Settings):
    """The moving average that flat entries are quoted around."""

    span: Annotated[float, Number("[1, inf)")] = Field(
        description="Length of the average over price changes of the trade stream; 1 = last price"
    )
    spread: Annotated[float, Number("[0, 1)")] = Field(
        0.0, description="Distance of the first entry from the average, as a fraction of it"
    )


class IndicatorSettings(_Settings):
    """Which sides may be opened, and around what."""

    tick_ema: TickEma
    do_long: Flag = Field(description="Whether long positions may be opened")
    do_shrt: Flag = Field(description="Whether short positions may be opened")
    funding_fee_collect_mode: Flag = Field(
        False, description="Open only the side that the predicted funding pays"
    )


class Config(_Settings):
    """One strategy on one symbol, under the names the original's live files use.

    Make it with `load_config`. Frozen; two configs are equal when their settings are, whatever file
    they came from.
    """

    config_name: Name = Field(description="Name of this config; log files carry it")
    symbol: Name = Field(description="The perpetual future to trade, as the venue writes it")
    cross_mode: Flag = Field(description="Cross margin (true) or isolated margin (false)")
    balance_pct: Annotated[float, Number("(0, 1]", absolute=True)] = Field(
        description="Share of the wallet used for sizing"
    )
    leverage: Annotated[float, Number("[1, inf)")] = Field(
        description="Multiplies the balance in sizing; the venue is set to the next whole number"
    )
    entry_qty_pct: Annotated[float, Number("(0, 1]", absolute=True)] = Field(
        description="Size of the first entry, as a share of balance × leverage"
    )
    ddown_factor: Annotated[float, Number("[0, 10]")] = Field(
        description="Size of a re-entry, as a multiple of the position held"
    )
    grid_spacing: Annotated[float, Number("(0, 0.5)")] = Field(
        description="Distance from the average entry to the next re-entry with no margin used"
    )
    grid_coefficient: Annotated[float, Number("[0, 10000]")] = Field(
        description="How much that distance grows with the share of the balance used as margin"
    )
    n_entry_orders: Annotated[int, Number("[1, 200]")] = Field(
        description="Most re-entries resting at once"
    )
    min_markup: Annotated[float, Number("(0, 1)")] = Field(
        description="Profit of the nearest close over the average entry, as a fraction"
    )
    max_markup: Annotated[float, Number("(0, 1)")] = Field(
        description="Profit of the farthest close; at least min_markup"
    )
    n_close_orders: Annotated[int, Number("[1, 200]")] = Field(
        description="Most closes a position is split into"
    )
    min_close_qty_multiplier: Annotated[float, Number("[0, 1]")] = Field(
        description="Smallest close, as a share of a first entry"
    )
    indicator_settings: IndicatorSettings
    stop_loss_liq_diff: Annotated[float, Number("[0, 1)")] = Field(
        description="Reduce when the price is this near to the liquidation price"
    )
    stop_loss_pos_price_diff: Annotated[float, Number("[0, inf)")] = Field(
        description="Reduce when the price is this far beyond the average entry"
    )
    stop_loss_pos_reduction: Annotated[float, Number("[0, 1]")] = Field(
        description="Share of the position that one stop closes; 0 switches stops off"
    )
    market_stop_loss: Flag = Field(description="Stop at market (true) or post-only (false)")
    logging_level: Annotated[int, Number("[0, inf)")] = Field(
        0, description="Above 0: positions and orders are logged to a file as well"
    )
    strategy: Literal["grid_v2"] = Field("grid_v2", description="Version of the strategy")
    max_order_distance: Annotated[float, Number("(0, 1]")] = Field(
        0.05, description="Re-entries farther than this from the last price are not created yet"
    )
    requote_ms: Annotated[int, Number("[100, 3600000]")] = Field(
        5000, description="Milliseconds between looks at the market without a fill"
    )
    requote_tolerance: Annotated[float, Number("[0, 0.01]")] = Field(
        0.0003, description="A flat entry this near to its ideal price is left alone"
    )
    orders_per_batch: Annotated[int, Number("[1, 50]")] = Field(
        4, description="Orders sent or cancelled in one group"
    )
    book: Literal["ticker", "trades"] = Field(
        "ticker", description="Where best bid and ask come from: the ticker, or the trades"
    )

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _source: Path | None = PrivateAttr(default=None)

    @field_validator("max_markup")
    @classmethod
    def _at_least_min_markup(cls, value: float, info: ValidationInfo) -> float:
        low = info.data.get("min_markup")
        if low is not None and value < low and (info.context or Checking()).ranges:
            # The original closed everything at min_markup then, without a word.
            raise wanted(
                f"at least min_markup ({low})",
                f'to close at that one price write "max_markup": {low},',
            )
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _construct(cls, value: Any, handler: ModelWrapValidatorHandler[Config]) -> Config:
        try:
            return handler(value)
        except ValidationError as e:
            raise ConfigError(problems_of(e, cls)) from None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was accepted but deserves a look: rounded counts, unused keys, no side allowed."""
        return self._warnings

    @property
    def source(self) -> Path | None:
        """The file this was read from, if any."""
        return self._source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """Return the canonical file: every setting, defaults included; it loads back equal."""
        return self.model_dump_json(indent=4) + "\n"

    def to_live_json(self) -> str:
        """Return the file in the original's layout; it loads back equal.

        Settings that the original does not have are in it only where they are not the default.
        """
        usual = {name for name in _OURS if getattr(self, name) == _default_of(name)}
        return self.model_dump_json(indent=4, exclude=usual) + "\n"

    @property
    def venue_leverage(self) -> int:
        """The leverage the venue is set to: the next whole number."""
        return math.ceil(self.leverage)

    def to_flat(self) -> dict[str, Any]:
        """Return the settings in one flat dict, as an optimizer candidate names them."""
        flat: dict[str, Any] = self.model_dump()
        indicators = flat.pop("indicator_settings")
        ema = indicators.pop("tick_ema")
        flat |= indicators | {"ema_span": ema["span"], "ema_spread": ema["spread"]}
        return flat

    def strategy_record(self) -> npt.NDArray[np.void]:
        """Return the strategy as the core takes it: one STRATEGY_DTYPE record, shape (1,)."""
        values = self.to_flat()
        values["do_short"] = values["do_shrt"]
        out = np.zeros(1, STRATEGY_DTYPE)
        for name in STRATEGY_DTYPE.names or ():
            out[name] = values[name]
        return out

    def flow_record(self) -> npt.NDArray[np.void]:
        """Return what the order flow goes by: one FLOW_RULES_DTYPE record, shape (1,)."""
        out = np.zeros(1, FLOW_RULES_DTYPE)
        for name in FLOW_RULES_DTYPE.names or ():
            out[name] = getattr(self, name)
        return out


# What old files do not have.
_OURS: Final = (
    "strategy",
    "max_order_distance",
    "requote_ms",
    "requote_tolerance",
    "orders_per_batch",
    "book",
)


def _default_of(name: str) -> Any:
    return Config.model_fields[name].default


def load_config(source: Path | str | Mapping[str, Any], *, compat: bool = False) -> Config:
    """Load a config from a JSON or HJSON file, or from a mapping of the same shape.

    Parameters
    ----------
    compat : bool
        Check types and finiteness only, for the compat engine: old files break the ranges.

    Raises
    ------
    ConfigError
        If the file cannot be read, or naming everything wrong with it.
    """
    path, document = load_document(source)
    checking = Checking(ranges=not compat)
    document = _without_unused(document, checking.notes)
    try:
        config = Config.model_validate(document, context=checking)
    except ConfigError as e:
        raise ConfigError(e.problems, path) from None
    if not (config.indicator_settings.do_long or config.indicator_settings.do_shrt):
        checking.notes.append("do_long and do_shrt are both false: nothing will be opened")
    config._warnings = tuple(checking.notes)
    config._source = path
    return config


def _without_unused(document: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    out = dict(document)
    for path in _UNUSED:
        *parents, name = path.split(".")
        owner: Any = out
        for parent in parents:
            # A caller's mapping is not ours to change: copy what gets smaller.
            if isinstance(owner.get(parent), Mapping):
                owner[parent] = dict(owner[parent])
            owner = owner.get(parent)
        if isinstance(owner, dict) and name in owner:
            del owner[name]
            notes.append(f"{path} is not used")
    return out
