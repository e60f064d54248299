"""Read maintenance-margin tiers from a table of their own, when the market file has none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from passivx.data.tables import Column, number_of, read_rows
from passivx.errors import ConfigError
from passivx.models import Market

__all__ = ["with_tiers"]

# A market file's fields, and what Binance's leverageBracket and Bybit's risk-limit call them.
_COLUMNS = {
    "floor": Column("floor", ("floor", "notionalFloor")),
    "maintenance_rate": Column(
        "maintenance rate", ("maintenance_rate", "maintMarginRatio", "maintenanceMargin")
    ),
    "deduction": Column("deduction", ("deduction", "cum", "mmDeduction"), required=False),
    "max_leverage": Column(
        "leverage", ("max_leverage", "initialLeverage", "maxLeverage"), required=False
    ),
}


def with_tiers(market: Market, path: Path | str) -> Market:
    """Return the market with the tiers of a csv or JSON table instead of its own.

    Columns: ``floor`` (notional in settle currency from which the tier holds),
    ``maintenance_rate`` and, if known, ``deduction`` and ``max_leverage``; the venues' own names
    are known too.

    Raises
    ------
    DataError
        If the file cannot be read or a value is no number; it names file and line (for JSON the
        entry).
    ConfigError
        Naming every value that makes no table of tiers, ``tiers[i]`` counted from 0 (`Tier`).
    """
    path = Path(path)
    tiers = [
        {
            name: number_of(value, fail)
            for name, value in zip(_COLUMNS, values, strict=True)
            if value is not None
        }
        for fail, values in read_rows(path, tuple(_COLUMNS.values()), of="tiers")
    ]
    try:
        return Market.from_flat(asdict(market) | {"tiers": tiers})
    except ConfigError as e:
        raise ConfigError(e.problems, path) from None
