"""What would the bot rest now? The Python face of the planner, and the ladder it implies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core import calc, grid
from passivx._core.types import KIND_NAMES, VIEW_DTYPE, Kind
from passivx.config import Config
from passivx.documents import is_number
from passivx.errors import ConfigError, Problem
from passivx.models import Market, Position, step_parts

__all__ = ["PlannedOrder", "Rung", "liquidation_price", "plan_orders", "plan_rungs"]

_STOPS = (Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF)


@dataclass(frozen=True, slots=True)
class PlannedOrder:
    """An order the bot wants: ``ideal_price`` by the rules, ``price`` as it would be sent now.

    ``side`` is +1 buy, -1 sell; ``qty`` > 0 in base units (linear) or contracts (inverse).
    ``market`` marks a stop that goes out at market. ``now`` is False for a re-entry that waits: too
    far from the last price, or behind another that the market has already reached.
    """

    side: int
    kind: str
    price: float
    qty: float
    reduce_only: bool
    ideal_price: float
    market: bool
    now: bool


@dataclass(frozen=True, slots=True)
class Rung:
    """An order and what its fill would leave, all rungs nearer than it filled before.

    ``distance`` is signed, relative to the last price; ``position`` signed; ``liq_price`` 0 = none;
    ``margin`` the initial margin in settle currency. Fees are left out. ``hypothetical`` rungs only
    exist once the flat entry above them has filled; ``past_liquidation`` ones are never reached,
    because the position before them is liquidated first.
    """

    order: PlannedOrder
    distance: float
    position: float
    entry_price: float
    liq_price: float
    margin: float
    hypothetical: bool
    past_liquidation: bool


def plan_orders(
    config: Config,
    market: Market,
    *,
    wallet: float,
    last_price: float,
    ema: float,
    position: Position | None = None,
    equity: float | None = None,
    bid: float | None = None,
    ask: float | None = None,
    funding_rate: float | None = None,
    close_base: float | None = None,
) -> list[PlannedOrder]:
    """Return the orders the bot wants in this situation: stop, entries or re-entries, closes.

    Parameters
    ----------
    wallet, equity : float
        Settle currency; equity as of the last fill or funding (default: the wallet).
    last_price, ema, bid, ask : float
        Quote, > 0. Bid and ask default to one price step beside the last price.
    position : Position
        Default flat. A position's liquidation price feeds the stop level; 0 = none.
    funding_rate : float
        Predicted; only needed when flat with ``funding_fee_collect_mode``.
    close_base : float
        Size the close grid was built from; default: the present size.

    Raises
    ------
    ConfigError
        If an input is missing, not finite or out of range.
    """
    held = position or Position()
    view = _view(
        market,
        held,
        wallet=wallet,
        equity=wallet if equity is None else equity,
        last_price=last_price,
        ema=ema,
        # Before a side has printed, its best price is one step beside the only price known.
        bid=_beside(last_price, -market.price_step) if bid is None else bid,
        ask=_beside(last_price, market.price_step) if ask is None else ask,
        funding_rate=math.nan if funding_rate is None else funding_rate,
        close_base=held.size if close_base is None else close_base,
    )
    if (
        held.size == 0.0
        and config.indicator_settings.funding_fee_collect_mode
        and funding_rate is None
    ):
        raise ConfigError(
            [Problem("funding_rate", None, "is needed with funding_fee_collect_mode")]
        )
    return _plan(view, config, market)


def plan_rungs(
    config: Config,
    market: Market,
    *,
    wallet: float,
    last_price: float,
    ema: float,
    position: Position | None = None,
    funding_rate: float | None = None,
) -> list[Rung]:
    """Return the whole ladder around a position, or around the entries when flat.

    Parameters as in ``plan_orders``. When flat, the re-entries and closes that would follow each
    entry are added as hypothetical rungs.
    """
    position = position or Position()
    situation = {"wallet": wallet, "last_price": last_price, "ema": ema}
    orders = plan_orders(config, market, position=position, funding_rate=funding_rate, **situation)
    if position.size:
        return _rungs(orders, position, config, market, wallet, last_price, hypothetical=False)
    out: list[Rung] = []
    for entry in orders:
        out += _rungs([entry], position, config, market, wallet, last_price, hypothetical=False)
        held = Position(entry.side * entry.qty, entry.price, out[-1].liq_price)
        # The price that fills the entry is the last price by then.
        following = plan_orders(
            config,
            market,
            position=held,
            funding_rate=funding_rate,
            **{**situation, "last_price": entry.price},
        )
        out += _rungs(following, held, config, market, wallet, last_price, hypothetical=True)
    return out


def liquidation_price(
    config: Config, market: Market, *, wallet: float, size: float, entry_price: float
) -> float:
    """Return the venue's liquidation price of a position in this config's margin mode; 0 = none."""
    collateral = wallet
    if not config.cross_mode:
        collateral = calc.cost(size, entry_price, inverse=market.inverse) / config.venue_leverage
    return calc.liquidation_price(
        size, entry_price, collateral, market.tier_records(), inverse=market.inverse
    )


def _rungs(
    orders: list[PlannedOrder],
    start: Position,
    config: Config,
    market: Market,
    wallet: float,
    last_price: float,
    *,
    hypothetical: bool,
) -> list[Rung]:
    # Adding and reducing orders lie on opposite sides of the price: each walk starts afresh.
    qty_step = step_parts(market.qty_step)
    walks = {False: (start, wallet), True: (start, wallet)}
    out = []
    doomed = False
    for order in orders:
        held, balance = walks[order.reduce_only]
        size = calc.near_to(held.size + order.side * order.qty, qty_step)
        entry = held.entry_price
        if order.reduce_only:
            balance += calc.pnl(
                entry,
                order.price,
                order.qty,
                position_side=-order.side,
                inverse=market.inverse,
            )
        else:
            entry = calc.average_entry(
                abs(held.size), entry, order.qty, order.price, inverse=market.inverse
            )
        liq = margin = 0.0
        if size:
            liq = liquidation_price(config, market, wallet=balance, size=size, entry_price=entry)
            margin = calc.cost(size, entry, inverse=market.inverse) / config.leverage
        walks[order.reduce_only] = Position(size, entry, liq), balance
        if not order.reduce_only and held.liq_price > 0.0:
            doomed = doomed or order.side * order.price <= order.side * held.liq_price
        shown = replace(order, now=order.now and not hypothetical)
        out.append(
            Rung(
                order=shown,
                distance=order.price / last_price - 1.0,
                position=size,
                entry_price=entry if size else 0.0,
                liq_price=liq,
                margin=margin,
                hypothetical=hypothetical,
                past_liquidation=doomed and not order.reduce_only,
            )
        )
    return out


def _plan(view: npt.NDArray[np.void], config: Config, market: Market) -> list[PlannedOrder]:
    strategy = config.strategy_record()
    view["stop_due"] = grid.due_stop(view, strategy)
    rules = market.record(config.venue_leverage)
    ideal = grid.plan_ideal(view, strategy, rules)
    sent, now = grid.plan_sent(ideal, view, strategy, rules)
    return [
        PlannedOrder(
            side=int(order["side"]),
            kind=KIND_NAMES[Kind(int(order["kind"]))],
            price=float(order["price"]),
            qty=float(order["qty"]),
            reduce_only=bool(order["reduce_only"]),
            ideal_price=float(wanted["price"]),
            market=config.market_stop_loss and order["kind"] in _STOPS,
            now=bool(flag),
        )
        for wanted, order, flag in zip(ideal, sent, now, strict=True)
    ]


def _view(market: Market, position: Position, **given: Any) -> npt.NDArray[np.void]:
    """Return the situation as the core takes it; ConfigError names everything unusable in it."""
    values = given | asdict(position)
    prices = ["last_price", "ema", "bid", "ask"] + ["entry_price"] * (position.size != 0.0)
    problems = []

    def need(fields: Iterable[str], usable: Callable[[float], bool], wanted: str) -> None:
        for field in fields:
            if not (is_number(values[field]) and usable(values[field])):
                problems.append(Problem(field, values[field], f"must be {wanted}"))

    need(["wallet", "equity"], math.isfinite, "a finite number")
    need(
        prices,
        lambda price: 0.0 < price <= calc.MAX_STEPS * market.price_step,
        f"> 0 and at most 1e11 steps of {market.price_step:g}",
    )
    need(
        ["size", "close_base"],
        lambda size: _on_grid(size, market.qty_step),
        f"whole steps of {market.qty_step:g}, at most 1e11 of them",
    )
    need(["liq_price"], lambda price: price >= 0.0, "finite and >= 0")
    if given["funding_rate"] is not math.nan:
        need(["funding_rate"], math.isfinite, "a finite number")
    if not problems and not given["bid"] < given["ask"]:
        problems.append(Problem("bid", given["bid"], f"must be below the ask of {given['ask']:g}"))
    if problems:
        raise ConfigError(problems)
    view = np.zeros(1, VIEW_DTYPE)
    for field, value in values.items():
        view[field] = value
    for field in ("bid", "ask"):
        view[field] = calc.near_to(values[field], step_parts(market.price_step))
    view["close_base"] = abs(values["close_base"])
    return view


def _beside(price: float, distance: float) -> float:
    # What is no number is left for the check to name.
    return price + distance if is_number(price) else math.nan


def _on_grid(size: float, qty_step: float) -> bool:
    steps = step_parts(qty_step)
    return abs(size) <= calc.MAX_STEPS * qty_step and calc.near_to(size, steps) == size
