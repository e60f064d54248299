"""Typed values shared by everything above the core."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.calc import ceil_to
from passivx._core.types import MARKET_DTYPE, TIER_DTYPE
from passivx.errors import ConfigError, Problem

__all__ = ["DEFAULT_MAINTENANCE_RATE", "Market", "Position", "Tier", "step_parts"]

# What the venues charge on their lowest tier when a market file brings no tiers
# (Binance USDⓈ-M 0.4 %, Bybit inverse 0.5 %); named in every output that used it.
DEFAULT_MAINTENANCE_RATE = {False: 0.004, True: 0.005}


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
    sign, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)
    units = int("".join(map(str, digits)))
    if exponent >= 0:
        units, exponent = units * 10**exponent, 0
    if units > 10**9 or exponent < -15:
        raise ValueError("must be a plain decimal step such as 0.01, 0.5 or 1e-8")
    return float(units), float(10**-exponent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One maintenance-margin tier; it holds from ``floor`` (notional in settle currency) upward."""

    floor: float
    maintenance_rate: float
    deduction: float = 0.0
    max_leverage: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The venue's rules for one symbol.

    ``price_step``, ``min_cost`` (least notional) and linear notionals are in quote currency;
    ``qty_step`` and ``min_qty`` in base units (linear) or contracts of 1 quote unit (inverse);
    fees are rates, a negative one is a rebate. ``tiers`` may be empty: then one tier with
    DEFAULT_MAINTENANCE_RATE is assumed.
    """

    price_step: float
    qty_step: float
    min_qty: float
    min_cost: float
    maker_fee: float
    taker_fee: float
    max_leverage: float
    inverse: bool
    contract_size: float = 1.0
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        problems = []

        def need(name: str, ok: bool, wanted: str) -> None:
            if not ok:
                problems.append(Problem(name, getattr(self, name), wanted))

        for name in ("price_step", "qty_step"):
            try:
                step_parts(getattr(self, name))
            except ValueError as e:
                problems.append(Problem(name, getattr(self, name), str(e)))
        for name in ("min_qty", "min_cost"):
            value = getattr(self, name)
            need(name, math.isfinite(value) and value >= 0.0, "must be finite and >= 0")
        for name in ("maker_fee", "taker_fee"):
            value = getattr(self, name)
            need(name, math.isfinite(value) and abs(value) < 0.1, "must be a rate within ±0.1")
        need(
            "max_leverage",
            math.isfinite(self.max_leverage) and self.max_leverage >= 1.0,
            "must be finite and >= 1",
        )
        need("contract_size", self.contract_size == 1.0, "must be 1 (others are not supported)")
        floors = [tier.floor for tier in self.tiers]
        need(
            "tiers",
            floors == sorted(set(floors)) and (not floors or floors[0] == 0.0),
            "must start at floor 0 and rise",
        )
        if problems:
            raise ConfigError(problems)

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> Market:
        """Pick the market numbers out of a flat settings dict (an optimizer candidate).

        Raises
        ------
        ConfigError
            Naming every market field that is missing or unusable.
        """
        known = {field.name: field for field in fields(cls)}
        required = [n for n in known if n not in ("contract_size", "tiers")]
        missing = [Problem(n, None, "is missing") for n in required if n not in settings]
        if missing:
            raise ConfigError(missing)
        values = {name: settings[name] for name in known if name in settings}
        wrong = [
            Problem(name, value, "must be true or false" if name == "inverse" else "must be a number")
            for name, value in values.items()
            if name != "tiers"
            and (isinstance(value, bool | np.bool_) is not (name == "inverse")
            or not isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating))
        ]
        if wrong:
            raise ConfigError(wrong)
        numbers = {n: float(v) for n, v in values.items() if n not in ("inverse", "tiers")}
        tiers = tuple(
            tier if isinstance(tier, Tier) else Tier(**tier) for tier in values.get("tiers", ())
        )
        return cls(**numbers, inverse=bool(values["inverse"]), tiers=tiers)

    def notional_cap(self, leverage: float) -> float:
        """Largest notional the venue allows at ``leverage``; infinite when no tier says."""
        ceiling = math.inf
        for tier, following in zip(self.tiers, self.tiers[1:], strict=False):
            if following.max_leverage < leverage <= tier.max_leverage:
                ceiling = following.floor
        return ceiling

    def record(self, leverage: float) -> npt.NDArray[np.void]:
        """Return the rules as the core takes them: one MARKET_DTYPE record, shape (1,)."""
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
        return np.array([(t.floor, t.maintenance_rate, t.deduction) for t in tiers], TIER_DTYPE)


@dataclass(frozen=True, slots=True)
class Position:
    """A one-way position: signed size (short < 0), average entry and liquidation price (0 = none)."""

    size: float = 0.0
    entry_price: float = 0.0
    liq_price: float = 0.0
