"""Does a config fit a market? What the venue's rules would refuse, or turn into something else."""

from __future__ import annotations

import math

from passivx._core import calc, grid
from passivx.config import Config
from passivx.documents import is_number
from passivx.errors import ConfigError, Problem
from passivx.models import Market

__all__ = ["least_balance", "venue_problems"]


def venue_problems(
    config: Config, market: Market, price: float, balance: float | None = None
) -> list[Problem]:
    """Return what keeps ``config`` from running as written on ``market`` at ``price``.

    Parameters
    ----------
    price : float
        Last price, quote.
    balance : float, optional
        Wallet in settle currency. Sizes are checked only when it is given: it is never assumed.

    Raises
    ------
    ConfigError
        If ``price`` or ``balance`` is no usable number.
    """
    least = least_balance(config, market, price)
    problems = []
    # The first tier is the smallest position: leverage it does not allow is never allowed.
    highest = min([market.max_leverage, *(tier.max_leverage for tier in market.tiers[:1])])
    if config.venue_leverage > highest:
        problems.append(
            Problem("leverage", config.leverage, f"must be at most {highest:g} on this market")
        )
    if balance is not None and _usable("balance", balance) < least:
        problems.append(
            Problem(
                "entry_qty_pct",
                config.entry_qty_pct,
                f"makes a first entry below the venue's minimum of {_least_qty(market, price):g} "
                f"at balance {balance:g}: the minimum would be placed, more than configured",
                f"it takes a balance of {least:.6g}",
            )
        )
    return problems


def least_balance(config: Config, market: Market, price: float) -> float:
    """Return the least wallet (settle currency) whose first entry reaches the venue's minimum.

    Below it the planner places the minimum, which is more than the config asks for.
    """
    least = _least_qty(market, price)
    value = calc.cost(least, price, inverse=market.inverse)
    balance = value / (config.balance_pct * config.leverage * config.entry_qty_pct)
    # Said in six digits, rounded up, and enough after the planner's own rounding too.
    last_digit = 10.0 ** (math.floor(math.log10(balance)) - 5)
    balance = math.ceil(balance / last_digit) * last_digit
    strategy, rules = config.strategy_record(), market.record(config.venue_leverage)
    while grid.configured_entry_qty(balance, price, strategy, rules) < least:
        balance += last_digit
    return float(f"{balance:.6g}")


def _least_qty(market: Market, price: float) -> float:
    try:
        return calc.min_order_qty(_usable("price", price), market.record(1.0))
    except ValueError as e:
        raise ConfigError([Problem("price", price, "is too low for this market")]) from e


def _usable(name: str, value: float) -> float:
    if not (is_number(value) and value > 0.0):
        raise ConfigError([Problem(name, value, "must be finite and > 0")])
    return value
