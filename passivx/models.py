"""Typed values shared by everything above the core."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from passivx._core.calc import ceil_to
from passivx._core.types import MARKET_DTYPE, TIER_DTYPE
from passivx.documents import Flag, Number, fields_of, load_document, problems_of, wanted
from passivx.errors import ConfigError

__all__ = ["DEFAULT_MAINTENANCE_RATE", "Market", "Position", "Tier", "load_market", "step_parts"]

log = logging.getLogger(__name__)

# What the venues charge on their lowest tier when a market file brings no tiers
# (Binance USDⓈ-M 0.4 %, Bybit inverse 0.5 %); named in every output that used it.
DEFAULT_MAINTENANCE_RATE = {False: 0.004, True: 0.005}

# Published market files carry these beside the rules; nothing depends on them.
_UNUSED: Final = ("exchange", "symbol")
_RULES: Final = ConfigDict(extra="forbid")


def step_parts(step: float) -> tuple[float, float]:
    """Split a decimal increment into whole units and a power of ten: 0.05 -> (5.0, 100.0).

    A grid price is then ``k * units / scale``: one correctly rounded division, hence the very
    double that the venue's decimal string parses to.

    Raises
    ------
    ValueError
        If ``step`` is not finite and positive, or has more digits than a double holds exactly.
    """
    if not (math.isfinite(step) and step > 0.0):
        raise ValueError("must be finite and > 0")
    exact = Decimal(repr(float(step))).normalize()
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits)))
    if exponent >= 0:
        units, exponent = units * 10**exponent, 0
    if units > 10**9 or exponent < -15:
        raise ValueError("must be a plain decimal step such as 0.01, 0.5 or 1e-8")
    return float(units), float(10**-exponent)


def _step(step: float) -> float:
    try:
        step_parts(step)
    except ValueError:
        raise wanted("a plain decimal step such as 0.01, 0.5 or 1e-8") from None
    return step


def _rising(tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
    floors = [tier.floor for tier in tiers]
    if floors != sorted(set(floors)) or (floors and floors[0] != 0.0):
        raise wanted("tiers whose floors start at 0 and rise")
    rates = [tier.maintenance_rate for tier in tiers]
    if rates != sorted(rates):
        raise wanted("tiers whose maintenance rates rise with the floors")
    return tiers


_StepSize = Annotated[float, Number("(0, inf)"), AfterValidator(_step)]
_Fee = Annotated[float, Number("(-0.1, 0.1)")]


@dataclass(frozen=True, kw_only=True, config=_RULES)
class Tier:
    """One maintenance-margin tier; it holds from ``floor`` (notional in settle currency) upward.

    Maintenance margin = notional × maintenance_rate − deduction. Without a ``deduction`` it is the
    one that keeps the margin from jumping at the floor, which is how the venues make theirs:
    the one before + floor × (rate − rate before).

    Raises
    ------
    ConfigError
        Naming every field that is missing, unknown, of the wrong type or out of range.
    """

    floor: Annotated[float, Number("[0, inf)")]
    maintenance_rate: Annotated[float, Number("[0, 1)")]
    deduction: Annotated[float, Number("[0, inf)")] | None = None
    max_leverage: Annotated[float, Number("[1, inf]")] = math.inf

    @model_validator(mode="wrap")
    @classmethod
    def _construct(cls, value: Any, handler: ModelWrapValidatorHandler[Tier]) -> Tier:
        try:
            return handler(value)
        except ValidationError as e:
            # Inside a market document it is the market that reports this, with the path.
            if not isinstance(value, ArgsKwargs):
                raise
            raise ConfigError(problems_of(e, cls)) from None


@dataclass(frozen=True, kw_only=True, config=_RULES)
class Market:
    """The venue's rules for one symbol.

    ``price_step``, ``min_cost`` (least notional) and linear notionals are in quote currency;
    ``qty_step`` and ``min_qty`` in base units (linear) or contracts of 1 quote unit (inverse);
    fees are rates, a negative one is a rebate; ``liquidation_fee`` comes on top of the taker fee
    when a position is liquidated. ``tiers`` may be empty: then one tier with
    DEFAULT_MAINTENANCE_RATE is assumed.

    Raises
    ------
    ConfigError
        Naming every field that is missing, unknown, of the wrong type or out of range.
    """

    price_step: _StepSize
    qty_step: _StepSize
    min_qty: Annotated[float, Number("[0, inf)")]
    min_cost: Annotated[float, Number("[0, inf)")]
    maker_fee: _Fee
    taker_fee: _Fee
    max_leverage: Annotated[float, Number("[1, inf)")]
    inverse: Flag
    liquidation_fee: Annotated[float, Number("[0, 1)")] = 0.0
    contract_size: Annotated[float, Number("[1, 1]")] = 1.0
    tiers: Annotated[tuple[Tier, ...], AfterValidator(_rising)] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _construct(cls, value: Any, handler: ModelWrapValidatorHandler[Market]) -> Market:
        try:
            return handler(value)
        except ValidationError as e:
            raise ConfigError(problems_of(e, cls)) from None

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> Market:
        """Pick the market rules out of a flat settings dict (an optimizer candidate).

        Raises
        ------
        ConfigError
            Naming every market field that is missing or unusable; other keys are left alone.
        """
        return cls(**{name: settings[name] for name, _ in fields_of(cls) if name in settings})

    def notional_cap(self, leverage: float) -> float:
        """Largest notional the venue allows at ``leverage``; infinite when no tier says.

        Above what the first tier allows it is 0.
        """
        return next((t.floor for t in self.tiers if t.max_leverage < leverage), math.inf)

    def in_settle(self, quote: float, price: float) -> float:
        """Return what an amount of quote currency is worth in settle currency at ``price``."""
        return quote / price if self.inverse else quote

    def to_json(self) -> str:
        """Return the market file: `load_market` reads it back equal."""
        rules = asdict(self)
        # What a tier does not limit it does not mention: JSON has no infinity.
        rules["tiers"] = [
            {name: value for name, value in tier.items() if value not in (None, math.inf)}
            for tier in rules["tiers"]
        ]
        return json.dumps(rules, indent=4) + "\n"

    def record(self, leverage: float) -> npt.NDArray[np.void]:
        """Return the rules as the core takes them: one MARKET_DTYPE record, shape (1,).

        ``leverage`` is the venue's, a whole number; it decides the notional cap.
        """
        out = np.zeros(1, MARKET_DTYPE)
        for name in ("price_step", "qty_step"):
            out[name]["units"], out[name]["scale"] = step_parts(getattr(self, name))
        for name in ("min_cost", "maker_fee", "taker_fee", "inverse"):
            out[name] = getattr(self, name)
        # An order of nothing is no order, whatever the rules leave out.
        # A least quantity off the grid means the next one on it.
        least = ceil_to(max(self.min_qty, self.qty_step), step_parts(self.qty_step))
        out["min_qty"] = least
        out["notional_cap"] = self.notional_cap(leverage)
        return out

    def tier_records(self) -> npt.NDArray[np.void]:
        """Return the maintenance tiers as the core takes them, TIER_DTYPE, shape (n,), n >= 1."""
        tiers = self.tiers or (
            Tier(floor=0.0, maintenance_rate=DEFAULT_MAINTENANCE_RATE[self.inverse]),
        )
        out = np.zeros(len(tiers), TIER_DTYPE)
        rate, deduction = Decimal(0), Decimal(0)
        for row, tier in zip(out, tiers, strict=True):
            step = Decimal(repr(tier.maintenance_rate)) - rate
            rate += step
            if tier.deduction is None:
                deduction += Decimal(repr(tier.floor)) * step
            else:
                deduction = Decimal(repr(tier.deduction))
            row["floor"], row["maintenance_rate"] = tier.floor, tier.maintenance_rate
            row["deduction"] = float(deduction)
        return out


def load_market(source: Path | str | Mapping[str, Any]) -> Market:
    """Read a market file: one JSON or HJSON object with the field names of `Market`.

    ``exchange`` and ``symbol``, as published files carry them, are accepted and not used.

    Raises
    ------
    ConfigError
        If the file cannot be read, or naming everything wrong with it.
    """
    path, document = load_document(source)
    unused = [name for name in _UNUSED if document.pop(name, None) is not None]
    if unused:
        log.info("market file: not used keys=%s", ",".join(unused))
    try:
        return Market(**document)
    except ConfigError as e:
        raise ConfigError(e.problems, path) from None


@plain_dataclass(frozen=True, slots=True)
class Position:
    """A one-way position: size (short < 0), average entry, liquidation price (0 = none)."""

    size: float = 0.0
    entry_price: float = 0.0
    liq_price: float = 0.0
