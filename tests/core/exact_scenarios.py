"""Random runs of the exact engine: markets, configs and venues, biased to nasty corners.

``draw(seed)`` makes its market, ``draw_real(seed, folder)`` cuts a window out of recorded trades.
``python -m tests.core.exact_scenarios 300`` prints what the twin's runs contain.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from passivx._core.types import MARKET_DTYPE, STRATEGY_DTYPE, TIER_DTYPE, Kind
from passivx.data.synthetic import BTCUSD, BTCUSDT, synthetic_trades
from passivx.models import step_parts
from tests.core.markets import draw_ticks
from tests.reference.exact_twin import FUNDING_DTYPE, HOUR_MS, Scenario, run_exact
from tests.reference.formulas_twin import MOST_STEPS

REAL_FILES = (  # name, price step, quantity step, inverse
    ("binance_usdm/RIVERUSDT-aggTrades-2026-02-01T00.csv.gz", 0.001, 0.1, False),
    ("binance_usdm/BTCUSDT-trades-2020-02-22T00.csv.gz", 0.01, 0.001, False),
    ("binance_usdm/BTCUSDT-trades-2024-08-08T2354.csv.gz", 0.1, 0.001, False),
    ("binance_coinm/TRXUSD_PERP-trades-2025-03-04T00.csv.gz", 0.00001, 1.0, True),
)
# More requotes than this add running time and nothing else.
MOST_REQUOTES = 1500

Rng = np.random.Generator
Prints = tuple[
    npt.NDArray[np.float64],  # price
    npt.NDArray[np.float64] | None,  # quantity
    npt.NDArray[np.int64],
    npt.NDArray[np.uint8],
]


def pick(rng: Rng, *values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def near(rng: Rng, x: float, decades: float = 0.5) -> float:
    return float(f"{x * 10 ** rng.uniform(-decades, decades):.3g}")


def clamp(x: float, low: float, high: float) -> float:
    return float(min(max(x, low), high))


# --- markets ---


def few_steps(rng: Rng, n: int) -> tuple[Prints, float, float]:
    """A price of a handful of steps: every step is a jump."""
    step = float(pick(rng, 0.001, 0.5, 1.0, 25.0))
    units, scale = step_parts(step)
    k = int(rng.integers(1, 20))
    path = []
    for _ in range(n):
        if rng.random() < 0.15:
            k = int(clamp(k + pick(rng, -1, 1), 1, 25))
        path.append(k)
    ks = np.array(path, dtype=np.float64)
    maker = (np.diff(ks, prepend=ks[0]) < 0) | (rng.random(n) < 0.4)
    return (ks * units / scale, None, random_times(rng, n), maker.astype(np.uint8)), step, 0.05


def random_times(rng: Rng, n: int) -> npt.NDArray[np.int64]:
    """From many prints a millisecond to gaps of days."""
    kind = pick(rng, "steady", "steady", "bursts", "bursts", "gaps", "sparse")
    if kind == "steady":
        gap = rng.integers(0, int(pick(rng, 1, 5, 50, 400, 400, 5000)) + 1, n)
    elif kind == "bursts":  # several prints in one millisecond, then silence
        silence = int(pick(rng, 5, 150, 1000, 20_000))
        gap = np.where(rng.random(n) < 0.8, 0, rng.integers(0, silence, n))
    elif kind == "gaps":  # a few hours or days without a trade
        gap = rng.integers(0, 300, n)
        gap[rng.integers(0, n, 5)] = rng.integers(1, 50, 5) * HOUR_MS // 2
    else:
        gap = rng.integers(0, int(pick(rng, 60_000, HOUR_MS, 5 * HOUR_MS)), n)
    ts_ms = np.cumsum(gap).astype(np.int64)
    ts_ms += int(pick(rng, 0, 1, 100, 1_600_000_000_123)) - ts_ms[0]
    return ts_ms


def random_market(rng: Rng, n: int) -> tuple[Prints, float, float, bool | None]:
    """Prints, their price step, their volatility per print; whether inverse, if given."""
    kind = rng.random()
    if kind < 0.12:
        return *few_steps(rng, n), None
    if kind < 0.3:
        profile = pick(rng, BTCUSDT, BTCUSD)
        # Wilder than the preset, so that a few thousand prints go somewhere.
        wild = replace(
            profile,
            news_volatility=clamp(profile.news_volatility * float(pick(rng, 1, 5, 30)), 0.0, 0.1),
            jump_size=float(pick(rng, 0.001, 0.05)),
            jumps_per_hour=float(pick(rng, 2.0, 60.0)),
        )
        ticks = synthetic_trades(int(rng.integers(1 << 30)), n, profile=wild)
        prints = (ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)
        volatility = wild.news_volatility / math.sqrt(wild.prints_per_second * 3600)
        return prints, wild.price_step, volatility * 3, profile is BTCUSD
    (price, ts_ms, maker), step, volatility = draw_ticks(rng, n)
    if rng.random() < 0.85:
        ts_ms = random_times(rng, n)
    return (price, None, ts_ms, maker), step, volatility, None


def align(rng: Rng, ts_ms: npt.NDArray[np.int64], every: int) -> npt.NDArray[np.int64]:
    """Move the start onto a multiple, or let the end fall on one."""
    at = int(ts_ms[0]) if rng.random() < 0.7 else int(ts_ms[-1])
    out: npt.NDArray[np.int64] = ts_ms + (-at % every)
    return out


# --- the run ---


def random_tiers(
    rng: Rng, inverse: bool, first: float, largest: float, leverage: float
) -> npt.NDArray[np.void]:
    """One tier, or several between the notional of a first entry and of the largest position."""
    out = np.zeros(int(pick(rng, 1, 3, 6)), TIER_DTYPE)
    out["maintenance_rate"] = 0.005 if inverse else 0.004
    if len(out) == 1:
        return out
    low, high = math.log(first / 2), math.log(max(largest, first))
    out["floor"][1:] = np.exp(np.sort(rng.uniform(low, high, len(out) - 1)))
    # Below the margin rate mostly, so that not every position is liquidated as it opens.
    rates = np.cumsum(rng.uniform(0.0, 1.0, len(out)))
    out["maintenance_rate"] = rates / rates[-1] * pick(rng, 0.3, 0.6, 0.9, 1.2) / leverage
    out["maintenance_rate"] = np.minimum(out["maintenance_rate"], 0.5)
    if rng.random() < 0.5:  # so that the margin has no jump at a floor
        step = np.diff(out["maintenance_rate"], prepend=out["maintenance_rate"][0])
        out["deduction"] = np.cumsum(step * out["floor"])
    return out


def random_funding(rng: Rng, ts_ms: npt.NDArray[np.int64], requote_ms: int) -> Any:
    first, last = int(ts_ms[0]), int(ts_ms[-1])
    kind = pick(rng, "none", "none", "hours", "requotes", "ticks", "anywhere", "before", "storm")
    n = int(rng.integers(1, 30))
    at: Any = []
    if kind == "hours":
        at = np.arange(-(-first // HOUR_MS), last // HOUR_MS + 1)[:200] * HOUR_MS
    elif kind == "requotes":
        at = rng.integers(first // requote_ms, last // requote_ms + 2, n) * requote_ms
    elif kind == "ticks":
        at = rng.choice(ts_ms, n)
    elif kind == "anywhere":
        at = rng.integers(first, last + 2, n)
    elif kind == "before":
        at = [first - 1]
    elif kind == "storm":  # after prints, while messages travel: the room shrinks under way
        at = rng.choice(ts_ms, len(ts_ms) // 4) + rng.integers(0, 101, len(ts_ms) // 4)
    if kind != "none" and rng.random() < 0.4:
        at = [first - 28_800_000, *at, last + 5]
    out = np.zeros(len(at), FUNDING_DTYPE)
    out["ts_ms"] = np.sort(np.asarray(at, dtype=np.int64))
    size = float(pick(rng, 1e-4, 1e-3, 1e-4 if kind == "storm" else 0.02))
    out["rate"] = rng.normal(0, size, len(at))
    if len(out) and rng.random() < 0.1:
        out["rate"][0] = 0.0
    return out


def draw(seed: int) -> Scenario:
    """Everything from one seed."""
    rng = np.random.default_rng([seed, 20])
    n = int(pick(rng, 500, 1000, 1500, 2000, 3000, 5000))
    while True:
        prints, step, volatility, inverse = random_market(rng, n)
        # Some walks leave for where the rules promise nothing.
        if prints[0].max() < step * MOST_STEPS / 1000:
            break
    if inverse is None:
        inverse = bool(rng.random() < 0.4)
    # A market whose price step is coarser than the data's.
    coarser = int(pick(rng, 1, 1, 1, 1, 1, 1, 2, 5, 25))
    return build(rng, prints, float(f"{step * coarser:.12g}"), volatility, inverse, None)


@lru_cache(maxsize=4)
def load_prints(path: Path) -> Prints:
    rows = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2, 3, 4))
    columns = [np.ascontiguousarray(column) for column in rows.T]
    return columns[0], columns[1], columns[2].astype(np.int64), columns[3].astype(np.uint8)


def draw_real(seed: int, folder: Path) -> Scenario:
    """A window of recorded trades in ``folder`` (the shared data folder)."""
    rng = np.random.default_rng([seed, 21])
    name, step, qty_step, inverse = REAL_FILES[seed % len(REAL_FILES)]
    price, qty, ts_ms, maker = load_prints(folder / name)
    assert qty is not None
    n = min(int(pick(rng, 500, 1000, 3000, 5000)), len(price))
    start = int(rng.integers(0, len(price) - n + 1))
    window = slice(start, start + n)
    # Some of them hours apart, not seconds: volatility per print stays what it was.
    times = ts_ms[window] if rng.random() < 0.8 else random_times(rng, n)
    prints = (price[window], qty[window], times, maker[window])
    spread = float(np.std(np.diff(np.log(price[window]))))
    coarser = int(pick(rng, 1, 1, 1, 5))
    step = float(f"{step * coarser:.12g}")
    return build(rng, prints, step, max(spread, 1e-5), inverse, qty_step)


def typical_swing(rng: Rng, price: npt.NDArray[np.float64], volatility: float) -> float:
    """How far the price strays within some dozens of prints, as a fraction of it."""
    window = int(pick(rng, 20, 40, 100, 300))
    blocks = np.log(price)[: len(price) // window * window].reshape(-1, window)
    return clamp(float(np.median(blocks.std(axis=1))) + volatility / 2, 1e-5, 0.3)


def random_latency(rng: Rng, ts_ms: npt.NDArray[np.int64]) -> tuple[float, float]:
    """How long places and cancels travel; often as long as a good many prints."""
    values = [0.0, 0.5, 1.0, 1.75, 50.0, 99.25, 100.0, 400.0, 5000.0]
    gap = int(ts_ms[-1] - ts_ms[0]) / len(ts_ms)
    # Where a few messages fill the whole run there is little to see.
    fitting = [x for x in values if x <= 40 * gap] or [0.0]
    place = pick(rng, *(fitting if rng.random() < 0.85 else values))
    if rng.random() < 0.6:
        return place, place
    return place, pick(rng, fitting[-1], fitting[-1], pick(rng, *values))


def build(
    rng: Rng, prints: Prints, price_step: float, volatility: float, inverse: bool, qty_step: Any
) -> Scenario:
    """A config and a venue that trade on these prints, some settings then replaced by corners."""
    price, qty, ts_ms, maker = prints
    first = float(price[0])
    if qty_step is None:
        qty_step = float(pick(rng, 1, 10)) if inverse else 10.0 ** int(rng.integers(-6, 3))
    one_lot = qty_step / first if inverse else qty_step * first
    lots = near(rng, 50.0, 1.2)  # of a first entry
    notional = lots * one_lot
    swing = typical_swing(rng, price, volatility)
    risky = rng.random() < 0.3  # so over-leveraged that the swings of this market liquidate

    leverage = float(rng.integers(2, 30))
    entry_qty_pct = clamp(near(rng, 0.02), 1e-4, 1.0)
    spacing = clamp(near(rng, swing / 6), 1e-5, 0.3)
    stop_price = near(rng, swing, 0.7)
    liq_diff = clamp(near(rng, swing / 4, 1.0), 0.0, 0.9)
    reduction = clamp(near(rng, 0.15), 0.01, 1.0)
    grid_coefficient = near(rng, 10.0, 1.0)
    if risky:
        leverage = float(clamp(round(near(rng, 0.15 / swing)), 2, 125))
        entry_qty_pct = clamp(near(rng, 0.1), 0.01, 1.0)
        grid_coefficient = float(pick(rng, 0.0, 1.0))
        stop_price = float(pick(rng, 1e9, 1e9, stop_price))
        liq_diff = float(pick(rng, 0.0, liq_diff))
    elif rng.random() < 0.3:  # liquidation within sight, and stops before it
        leverage = float(clamp(round(near(rng, 0.1 / swing)), 5, 125))
        liq_diff = clamp(near(rng, 0.3 / leverage), 0.0, 0.9)
        stop_price = float(pick(rng, 1e9, stop_price))
    min_markup = clamp(near(rng, swing / 8), 1e-5, 0.3)
    n_close = int(pick(rng, 1, 2, 3, 5, 8, 20, 200))
    narrow = min_markup + n_close * float(pick(rng, 0.0005, 0.002, 0.003))
    values: dict[str, Any] = {
        "balance_pct": float(pick(rng, 1.0, 1.0, 0.5, 0.873)),
        "leverage": leverage + float(pick(rng, 0.0, 0.0, 0.5)),
        "entry_qty_pct": entry_qty_pct,
        "ddown_factor": clamp(near(rng, 0.7), 0.0, 10.0),
        "grid_spacing": spacing,
        "grid_coefficient": clamp(grid_coefficient, 0.0, 10_000.0),
        "min_markup": min_markup,
        "max_markup": clamp(
            float(pick(rng, narrow, narrow, min_markup + near(rng, swing))), min_markup, 0.9
        ),
        "min_close_qty_multiplier": float(pick(rng, 0.0, 0.01, 0.5, 1.0)),
        "stop_loss_liq_diff": liq_diff,
        "stop_loss_pos_price_diff": stop_price,
        "stop_loss_pos_reduction": reduction,
        "ema_spread": float(pick(rng, 0.0, 0.0, clamp(near(rng, volatility), 0.0, 0.5))),
        "max_order_distance": float(pick(rng, 0.05, 0.05, 1.0, clamp(spacing * 2, 1e-4, 1.0))),
        "n_close_orders": n_close,
        "n_entry_orders": int(pick(rng, 1, 2, 3, 5, 8, 20)),
        "do_long": 1,
        "do_short": 1,
        "funding_fee_collect_mode": 0,
    }
    corners: dict[str, tuple[Any, ...]] = {
        "balance_pct": (0.01,),
        "leverage": (1.0, 2.5, 100.0, 125.0),
        "entry_qty_pct": (0.2, 1.0),
        "ddown_factor": (0.0, 10.0, 1.0),
        "grid_spacing": (1e-5, 0.3),
        "grid_coefficient": (0.0, 1e4),
        "min_close_qty_multiplier": (0.0, 1.0),
        "stop_loss_liq_diff": (0.0, 0.5, 0.99),
        "stop_loss_pos_price_diff": (0.0, volatility, 1e9),
        "stop_loss_pos_reduction": (0.0, 1.0, 0.5, 0.001),
        "ema_spread": (clamp(volatility * 5, 0.0, 0.9),),
        "max_order_distance": (1e-4, 0.001),
        "n_close_orders": (1, 7, 200),
        "n_entry_orders": (1, 50, 200),
        "do_long": (0, 1),
        "do_short": (0, 1),
    }
    often = float(pick(rng, 0.0, 0.05, 0.1, 0.3))
    for name, some in corners.items():
        if rng.random() < often:
            values[name] = pick(rng, *some)
    longest = max(values["n_entry_orders"], values["n_close_orders"])
    if longest > 20:  # long plans take their time
        most = 1000 if longest < 100 else 300
        price, ts_ms, maker = price[:most], ts_ms[:most], maker[:most]
        qty = None if qty is None else qty[:most]

    wallet = notional / values["leverage"] / values["entry_qty_pct"] / values["balance_pct"]
    if rng.random() < often / 2:
        wallet *= 10 ** rng.uniform(-3, -1)
    wallet = max(float(f"{wallet:.6g}"), 1e-9)

    every = [100, 250, 1000, 1000, 5000, 5000, 60_000, 777]
    short = [x for x in every if x * 10 <= ts_ms[-1] - ts_ms[0]] or [100]
    requote_ms = int(pick(rng, *(short if rng.random() < 0.7 else every)))
    if rng.random() < 0.4:
        ts_ms = align(rng, ts_ms, int(pick(rng, requote_ms, requote_ms, HOUR_MS)))
    span = int(ts_ms[-1] - ts_ms[0])
    while span // requote_ms > MOST_REQUOTES:
        requote_ms = min(requote_ms * int(pick(rng, 2, 5, 10)), HOUR_MS)
        if requote_ms == HOUR_MS and span // HOUR_MS > MOST_REQUOTES:
            # As sparse as prints can be and still be played in a second.
            ts_ms = ts_ms[0] + (ts_ms - ts_ms[0]) // 10
            span = int(ts_ms[-1] - ts_ms[0])

    funding = random_funding(rng, ts_ms, requote_ms)
    values["funding_fee_collect_mode"] = int(len(funding) > 0 and rng.random() < 0.15)
    if values["max_markup"] < values["min_markup"]:
        values["max_markup"] = values["min_markup"]

    cap = math.inf
    if not inverse and rng.random() < 0.2:
        cap = wallet * values["leverage"] * rng.uniform(0.1, 1.0)
    min_qty = qty_step * float(pick(rng, 1.0, 1.0, 1.0, 1.0, 5.0))
    min_cost = 0.0
    if not inverse and rng.random() < 0.3:
        min_cost = float(f"{notional * pick(rng, 0.1, 0.9, 1.0, 3.0):.3g}")
    market = np.zeros(1, MARKET_DTYPE)
    market["price_step"], market["qty_step"] = step_parts(price_step), step_parts(qty_step)
    market["min_qty"], market["min_cost"] = float(f"{min_qty:.12g}"), min_cost
    market["maker_fee"] = float(pick(rng, 0.0002, 0.0002, -0.00025, 0.0))
    market["taker_fee"] = float(pick(rng, 0.0004, 0.00055, 0.0))
    market["notional_cap"], market["inverse"] = cap, inverse
    strategy = np.zeros(1, STRATEGY_DTYPE)
    for name, value in values.items():
        strategy[name] = value

    fill = str(pick(rng, "cross", "cross", "touch", "volume", "volume"))
    if qty is None or rng.random() < 0.3:
        # As much as the orders want, more or less; whole lots mostly.
        usual = lots * float(pick(rng, 0.1, 0.3, 1.0))
        lots_printed = rng.exponential(usual, len(price))
        if rng.random() < 0.8:
            lots_printed = np.ceil(lots_printed)
        qty = np.maximum(lots_printed, 0.01) * qty_step

    latency, cancel_latency = random_latency(rng, ts_ms)
    if rng.random() < 0.12:
        # Small prints on both sides, cancels that take their time: the other side's entry flips a
        # position before it is gone.
        fill = "volume"
        qty = np.ceil(rng.exponential(lots / 3, len(price))) * qty_step
        gap = int(ts_ms[-1] - ts_ms[0]) / len(ts_ms)
        cancel_latency = float(math.ceil(gap * rng.uniform(5, 60)))
        strategy["do_long"] = strategy["do_short"] = 1
        strategy["ema_spread"] = 0.0
        strategy["funding_fee_collect_mode"] = 0
    return Scenario(
        price=np.ascontiguousarray(price, dtype=np.float64),
        qty=np.ascontiguousarray(qty, dtype=np.float64),
        ts_ms=np.ascontiguousarray(ts_ms, dtype=np.int64),
        buyer_maker=np.ascontiguousarray(maker, dtype=np.uint8),
        strategy=strategy,
        market=market,
        tiers=random_tiers(rng, inverse, notional, wallet * values["leverage"], values["leverage"]),
        ema_span=float(pick(rng, 1.0, 1.0, 2.0, 5.0, 15.5, 300.0, 1e9)),
        starting_balance=wallet,
        venue_leverage=float(math.ceil(values["leverage"])),
        cross_mode=bool(rng.random() < 0.5),
        liquidation_fee=float(pick(rng, 0.0, 0.0, 0.005, 0.0125)),
        market_stop_loss=bool(rng.random() < 0.5),
        requote_ms=requote_ms,
        requote_tolerance=float(pick(rng, 0.0003, 0.0003, 0.0, 0.01)),
        orders_per_batch=int(pick(rng, 1, 1, 2, 4, 4, 10, 50)),
        latency_ms=latency,
        cancel_latency_ms=cancel_latency,
        fill=fill,
        queue_share=float(pick(rng, 0.0, 0.3, 1.0)) if fill == "volume" else 0.0,
        funding=funding,
    )


def histogram(seeds: range) -> str:
    """What the twin's runs of these seeds contain."""
    kinds: Counter[str] = Counter()
    runs_with: Counter[str] = Counter()
    fills, seconds = [], []
    for seed in seeds:
        started = time.perf_counter()
        scenario = draw(seed)
        middle = time.perf_counter()
        got = run_exact(scenario)
        seconds.append((time.perf_counter() - middle, middle - started, seed))
        seen = Counter(Kind(row["kind"]).name for row in got.records)
        kinds += seen
        runs_with.update([*seen, got.outcome, scenario.fill])
        fills.append(sum(seen.values()) - seen["FUNDING"])
        if got.outcome != "end":
            runs_with["liquidated " + ("cross" if scenario.cross_mode else "isolated")] += 1
    q = statistics.quantiles(fills, n=10)
    return "\n".join(
        [
            f"{len(seeds)} runs, records: {dict(kinds.most_common())}",
            f"runs with: {dict(runs_with.most_common())}",
            f"fills a run: deciles {[int(x) for x in q]}, most {max(fills)}, none {fills.count(0)}",
            f"seconds a run: mean {statistics.mean(s[0] for s in seconds):.3f}, "
            f"slowest {[(round(s[0], 2), s[2]) for s in sorted(seconds)[-5:]]}, "
            f"drawing {statistics.mean(s[1] for s in seconds):.3f}",
        ]
    )


if __name__ == "__main__":
    print(histogram(range(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
