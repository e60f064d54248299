"""Random situations for the planner, biased to the corners where planners break."""

from __future__ import annotations

import math
import random

import numpy as np
import numpy.typing as npt

from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, VIEW_DTYPE, Kind
from tests.reference.formulas_twin import MOST_STEPS, Step

Records = tuple[npt.NDArray[np.void], npt.NDArray[np.void], npt.NDArray[np.void]]

STEPS = [Step(u, 10**d) for u in (1, 2, 5, 25) for d in range(9)] + [
    Step(u, 1) for u in (10, 50, 100, 250, 1000)
]


# A market and a long-only strategy to follow by hand: one quote step, one unit, no fee.
PLAIN_MARKET = {
    "price_step": (1, 1),
    "qty_step": (1, 1),
    "min_qty": 1.0,
    "notional_cap": math.inf,
}
PLAIN_STRATEGY = {
    "balance_pct": 1.0,
    "leverage": 1.0,
    "entry_qty_pct": 0.1,
    "ddown_factor": 1.0,
    "grid_spacing": 0.05,
    "min_markup": 0.0015,
    "max_markup": 0.0015,
    "stop_loss_pos_price_diff": 1e9,
    "max_order_distance": 1.0,
    "n_close_orders": 1,
    "n_entry_orders": 1,
    "do_long": 1,
}


def one(dtype: np.dtype[np.void], **values: object) -> npt.NDArray[np.void]:
    out = np.zeros(1, dtype)
    for name, value in values.items():
        out[name] = value
    return out


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    # clamped: exp(log(x)) need not be x
    return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)


def on_grid(rng: random.Random, x: float, step: Step) -> float:
    return step.value(min(max(1, round(x * step.scale / step.units)), MOST_STEPS // 100))


def situation(rng: random.Random) -> Records:
    """Draw view, strategy and market; every input finite but an unknown funding rate."""
    inverse = rng.random() < 0.5
    price_step = rng.choice(STEPS)
    # From a step of several percent of the price to a step nobody notices.
    # Around 333 steps, one step is 0.3 % of the price: the close grid's limit.
    steps_of_price = rng.choice(
        [log_uniform(rng, 60, 1e5)] * 4 + [log_uniform(rng, 1, 1e9), rng.uniform(320, 350)]
    )
    # A third are everyday markets, where both ladders are long.
    everyday = rng.random() < 0.33
    if everyday:
        steps_of_price = log_uniform(rng, 1000, 1e6)
    last = price_step.value(max(1, round(steps_of_price)))
    qty_step = Step(1, 1) if inverse and rng.random() < 0.6 else rng.choice(STEPS)
    one_qty = qty_step.value(1)
    leverage = rng.choice([1.0, 3.7, 10.0, 33.0, 50.0, 125.0])
    min_qty = qty_step.value(rng.choice([1, 1, 1, 2, 5, 100]))
    per_contract = 1.0 / last if inverse else last
    market = one(
        MARKET_DTYPE,
        price_step=(price_step.units, price_step.scale),
        qty_step=(qty_step.units, qty_step.scale),
        min_qty=min_qty,
        min_cost=rng.choice([0.0, 0.0, 5.0, 100.0, log_uniform(rng, 0.1, 30) * last * one_qty]),
        maker_fee=-0.00025,
        taker_fee=0.00055,
        notional_cap=rng.choice([math.inf] * 3 + [log_uniform(rng, 1, 1e5) * last * one_qty]),
        inverse=inverse,
    )

    # The wallet can carry this many quantity steps at most.
    room_steps = log_uniform(rng, 1000, 1e6) if everyday else log_uniform(rng, 0.3, 1e6)
    wallet = room_steps * one_qty * per_contract / leverage
    balance_pct = rng.choice([1.0, 0.5, 0.1, 0.01])
    wallet = wallet / balance_pct
    equity = wallet
    corner = rng.random()
    if corner < 0.15:
        equity = wallet * rng.uniform(-0.2, 1.0) * balance_pct
    elif corner < 0.2:
        wallet = rng.choice([0.0, -wallet, 1e-12, 5e-324])
        equity = wallet
    elif corner < 0.25:
        equity = wallet * 1.4

    low_markup = log_uniform(rng, 1e-4, 0.05)
    n_close_orders = rng.choice([1, 2, 3, 8, rng.randint(1, 200), 200])
    # Half of the close grids narrow enough to be grids: their first gap is at most 0.3 %.
    narrow = low_markup + n_close_orders * rng.choice([0.001, 0.0029, rng.uniform(0, 0.0035)])
    entry_qty_pct = rng.choice([0.001, 0.0021, 0.07, log_uniform(rng, 1e-5, 1), 1.0])
    if everyday:
        entry_qty_pct = log_uniform(rng, 1e-5, 1e-2)
    strategy = one(
        STRATEGY_DTYPE,
        balance_pct=balance_pct,
        leverage=leverage,
        entry_qty_pct=entry_qty_pct,
        ddown_factor=rng.choice([0.0, 0.01, rng.uniform(0, 1), 1.0, 10.0]),
        grid_spacing=rng.choice([1e-5, 0.001, log_uniform(rng, 1e-4, 0.1), 0.49]),
        grid_coefficient=rng.choice([0.0, 1.0, rng.uniform(0, 300), 10000.0]),
        min_markup=low_markup,
        max_markup=rng.choice(
            [min(narrow, 0.99)] * 3 + [low_markup, min(low_markup * rng.uniform(1, 30), 0.99), 0.99]
        ),
        min_close_qty_multiplier=rng.choice([0.0, 0.5, 1.0, rng.random()]),
        stop_loss_liq_diff=rng.choice([0.0, 0.02, 0.3, 0.999]),
        stop_loss_pos_price_diff=rng.choice([0.0, 0.01, 0.1, 1e9, 1e9]),
        stop_loss_pos_reduction=rng.choice([0.0, 0.0, 0.02, rng.random(), 1.0]),
        ema_spread=rng.choice([0.0, 0.001, 0.3, 0.999]),
        max_order_distance=rng.choice([0.05, 0.001, 1.0]),
        n_close_orders=n_close_orders,
        n_entry_orders=rng.choice([1, 2, 8, rng.randint(1, 30), 200]),
        do_long=rng.random() < 0.8,
        do_short=rng.random() < 0.8,
        funding_fee_collect_mode=rng.random() < 0.2,
    )

    spread = rng.choice([1, 1, 2, 40])
    bid = on_grid(rng, last - price_step.value(spread), price_step)
    view = one(
        VIEW_DTYPE,
        wallet=wallet,
        equity=equity,
        last_price=last,
        bid=bid,
        ask=on_grid(rng, last + price_step.value(spread), price_step),
        ema=last * rng.choice([1.0, rng.uniform(0.9, 1.1)]),
        funding_rate=rng.choice([math.nan, 0.0, 1e-4, -1e-4]),
        stop_due=rng.choice([0, 0, Kind.STOP_LOSS_LIQ_DIFF, Kind.STOP_LOSS_POS_PRICE_DIFF]),
    )
    if rng.random() < 0.2:
        return view, strategy, market

    side = rng.choice([1, -1])
    entry = last * rng.choice([1.0, rng.uniform(0.97, 1.03), rng.uniform(0.5, 2.0)])
    if rng.random() < 0.4:
        entry = on_grid(rng, entry, price_step)
    size_steps = round(rng.choice([1, 2, rng.uniform(1, 40), rng.uniform(0, 3) * room_steps]))
    if everyday:
        size_steps = round(rng.uniform(0, 1) * room_steps)
    size_steps = max(1, size_steps)
    size = qty_step.value(size_steps)
    base_steps = rng.choice([0, size_steps, size_steps + 1, size_steps * 2, size_steps * 50])
    if rng.random() < 0.1:
        base_steps = size_steps // 2
    view["size"] = side * size
    view["entry_price"] = entry
    view["close_base"] = qty_step.value(base_steps)
    view["liq_price"] = rng.choice(
        [0.0, entry * (1 - side * rng.uniform(0, 0.6)), last, last * (1 - side * 0.01)]
    )
    if rng.random() < 0.2:
        view["stop_qty"] = qty_step.value(rng.randint(1, size_steps + 1))
        view["stop_price"] = last
        view["stop_kind"] = rng.choice([4, 5])
    return view, strategy, market
