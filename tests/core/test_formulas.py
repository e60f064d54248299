"""The venue's grid and the money formulas, against exact arithmetic and published numbers."""

import json
import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from passivx._core import calc
from passivx._core.types import TIER_DTYPE
from passivx.models import Market, step_parts
from tests.reference import formulas_twin as twin
from tests.reference.formulas_twin import MOST_STEPS, Step, Tier

DECIMAL_STEPS = [Decimal(u).scaleb(-d) for u in (1, 2, 5, 25) for d in range(9)] + [
    Decimal(u) for u in (10, 50, 100, 250, 1000)
]


def parts(step: Step) -> tuple[float, float]:
    return float(step.units), float(step.scale)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Decimal, Step]:
    increment = draw(st.sampled_from(DECIMAL_STEPS))
    units, scale = step_parts(float(increment))
    return increment, Step(int(units), int(scale))


@st.composite
def values(draw: st.DrawFn) -> tuple[Decimal, Step, float]:
    """A step and a value within its reach: on the grid, an ulp or two beside it, or anywhere."""
    increment, step = draw(steps())
    k = draw(st.one_of(st.integers(0, 1000), st.integers(0, MOST_STEPS - 1)))
    x = step.value(k)
    kind = draw(st.sampled_from(["on", "above", "below", "far above", "far below", "between"]))
    if kind == "between":
        x = float(Fraction(x) + Fraction(draw(st.floats(0, 1))) * step.units / step.scale)
    elif kind != "on":
        for _ in range(3 if kind.startswith("far") else 1):
            x = math.nextafter(x, math.inf if kind.endswith("above") else -math.inf)
    if draw(st.booleans()):
        x = -x
    return increment, step, x


@given(values())
def test_rounding_equals_exact_arithmetic(drawn: tuple[Decimal, Step, float]) -> None:
    _, step, x = drawn
    assert calc.floor_to(x, parts(step)) == twin.floor_to(x, step)
    assert calc.ceil_to(x, parts(step)) == twin.ceil_to(x, step)
    exact = Fraction(x) * step.scale / step.units
    if abs(exact % 1 - Fraction(1, 2)) > Fraction(1, 10**4):
        assert calc.near_to(x, parts(step)) == twin.near_to(x, step)


@given(values())
def test_results_are_what_the_venue_prints(drawn: tuple[Decimal, Step, float]) -> None:
    increment, step, x = drawn
    for k, got in (
        (twin.steps_below(x, step), calc.floor_to(x, parts(step))),
        (twin.steps_above(x, step), calc.ceil_to(x, parts(step))),
        (twin.steps_near(x, step), calc.near_to(twin.near_to(x, step), parts(step))),
    ):
        assert got == float(str(k * increment))


@given(values())
def test_rounding_brackets_and_is_idempotent(drawn: tuple[Decimal, Step, float]) -> None:
    _, step, x = drawn
    low, high = calc.floor_to(x, parts(step)), calc.ceil_to(x, parts(step))
    assert low <= x <= high
    assert (low == high) == (low == x)
    for value in (low, high):
        assert calc.floor_to(value, parts(step)) == value
        assert calc.ceil_to(value, parts(step)) == value
        assert calc.near_to(value, parts(step)) == value


@given(values(), st.one_of(st.floats(0, 3), st.floats(0, 1e6)))
def test_rounding_is_monotone(drawn: tuple[Decimal, Step, float], more: float) -> None:
    _, step, x = drawn
    y = x + more * step.value(1)
    assume(abs(y) * step.scale / step.units < MOST_STEPS)
    for rounding in (calc.floor_to, calc.ceil_to, calc.near_to):
        assert rounding(x, parts(step)) <= rounding(y, parts(step))
        up = math.nextafter(x, math.inf)
        assert rounding(x, parts(step)) <= rounding(up, parts(step))


@given(values())
def test_rounding_mirrors_at_zero(drawn: tuple[Decimal, Step, float]) -> None:
    _, step, x = drawn
    assert calc.floor_to(-x, parts(step)) == -calc.ceil_to(x, parts(step))


@pytest.mark.parametrize(
    ("x", "step", "low", "high"),
    [
        # 0.29 / 0.01 is 28.999999999999996 in doubles; 0.29 is on the grid all the same.
        (0.29, 0.01, 0.29, 0.29),
        (0.1 + 0.2, 0.001, 0.3, 0.301),  # a little more than 0.3
        (4.35, 0.05, 4.35, 4.35),
        (1234.56, 25.0, 1225.0, 1250.0),
        (999.99, 1000.0, 0.0, 1000.0),
        (100_000_000_000.0, 1.0, 1e11, 1e11),
        (1e-8, 1e-8, 1e-8, 1e-8),
        (0.0, 0.5, 0.0, 0.0),
        (-0.3, 0.5, -0.5, 0.0),
    ],
)
def test_rounding_by_hand(x: float, step: float, low: float, high: float) -> None:
    assert calc.floor_to(x, step_parts(step)) == low
    assert calc.ceil_to(x, step_parts(step)) == high


@pytest.mark.real_data
def test_rounding_as_the_venues_format(shared: Path) -> None:
    for case in json.loads((shared / "vectors" / "formatting.json").read_text())["cases"]:
        step = step_parts(float(case["step"]))
        assert calc.floor_to(float(case["value"]), step) == float(case["floor_to_step"]), case


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (1e-8, (1.0, 1e8)),
        (0.05, (5.0, 100.0)),
        (0.25, (25.0, 100.0)),
        (0.0001, (1.0, 1e4)),
        (0.5, (5.0, 10.0)),
        (1.0, (1.0, 1.0)),
        (2.5, (25.0, 10.0)),
        (1000.0, (1000.0, 1.0)),
    ],
)
def test_step_parts(step: float, expected: tuple[float, float]) -> None:
    assert step_parts(step) == expected


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan, math.inf, 1e-16, 1 / 3, 1e10])
def test_step_parts_refuses(step: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        step_parts(step)


@pytest.mark.parametrize("rounding", [calc.floor_to, calc.ceil_to, calc.near_to])
@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf, 1.01e11, -1.01e11])
def test_rounding_refuses_values_beyond_the_grid(rounding, x: float) -> None:
    with pytest.raises(ValueError, match="at most 1e11 steps"):
        rounding(x, (1.0, 1.0))


@pytest.mark.parametrize(
    "step", [(0.0, 1.0), (-1.0, 1.0), (0.5, 1.0), (math.nan, 1.0), (math.inf, 1.0)]
)
@pytest.mark.parametrize("swap", [False, True])
def test_rounding_refuses_a_step_that_is_none(step: tuple[float, float], swap: bool) -> None:
    with pytest.raises(ValueError, match="step must be"):
        calc.floor_to(1.0, (step[1], step[0]) if swap and step[0] != 1.0 else step)


@pytest.mark.parametrize("scale", [3.0, 1e16, 20.0, 0.1])
def test_rounding_refuses_a_scale_that_is_no_power_of_ten(scale: float) -> None:
    with pytest.raises(ValueError, match="step must be"):
        calc.floor_to(1.0, (1.0, scale))


def test_record_rounds_the_least_quantity_up_to_the_grid() -> None:
    rules = {"price_step": 0.1, "min_cost": 0.0, "maker_fee": 0.0, "taker_fee": 0.0}
    for least, expected in ((0.0, 0.001), (0.0015, 0.002), (0.29, 0.29)):
        market = Market(**rules, qty_step=0.001, min_qty=least, max_leverage=50.0, inverse=False)
        assert market.record(10.0)["min_qty"][0] == expected


# --- money ------------------------------------------------------------------------------------

qtys = st.floats(1e-3, 1e6)
prices = st.floats(1e-4, 1e6)
sides = st.sampled_from([1, -1])


def test_cost_by_hand() -> None:
    assert calc.cost(0.5, 30_000.0, inverse=False) == 15_000.0
    assert calc.cost(-0.5, 30_000.0, inverse=False) == 15_000.0
    assert calc.cost(30_000.0, 60_000.0, inverse=True) == 0.5


def test_pnl_by_hand() -> None:
    # Linear: 0.5 × (110 − 100) = 5 for a long, −5 for a short.
    assert calc.pnl(100.0, 110.0, 0.5, position_side=1, inverse=False) == 5.0
    assert calc.pnl(100.0, 110.0, 0.5, position_side=-1, inverse=False) == -5.0
    # Inverse: 1000 × (1/8000 − 1/10000) = 0.125 − 0.1 coins.
    long = calc.pnl(8000.0, 10_000.0, 1000.0, position_side=1, inverse=True)
    assert long == pytest.approx(0.025, rel=1e-15)
    assert calc.pnl(8000.0, 10_000.0, 1000.0, position_side=-1, inverse=True) == -long


def test_average_entry_by_hand() -> None:
    # (1 × 100 + 3 × 80) / 4 = 85; harmonic: 4 / (1/100 + 3/80) = 4 / 0.0475 = 84.2105…
    assert calc.average_entry(1.0, 100.0, 3.0, 80.0, inverse=False) == 85.0
    assert calc.average_entry(1.0, 100.0, 3.0, 80.0, inverse=True) == pytest.approx(4 / 0.0475)
    for inverse in (False, True):
        assert calc.average_entry(0.0, 0.0, 3.0, 80.0, inverse=inverse) == 80.0


@given(qtys, prices, prices, sides, st.booleans())
def test_pnl_is_right_and_antisymmetric(
    qty: float, entry: float, exit_: float, side: int, inverse: bool
) -> None:
    got = calc.pnl(entry, exit_, qty, position_side=side, inverse=inverse)
    exact = twin.pnl_exact(entry, exit_, qty, side, inverse)
    size = max(calc.cost(qty, entry, inverse=inverse), calc.cost(qty, exit_, inverse=inverse))
    assert abs(got - float(exact)) <= 1e-15 * size
    assert got == -calc.pnl(entry, exit_, qty, position_side=-side, inverse=inverse)
    assert got == -calc.pnl(exit_, entry, qty, position_side=side, inverse=inverse)
    assert got == calc.pnl(entry, exit_, -qty, position_side=side, inverse=inverse)
    assert calc.pnl(entry, entry, qty, position_side=side, inverse=inverse) == 0.0


@given(qtys, prices, qtys, prices, prices, sides, st.booleans())
def test_the_whole_earns_what_its_parts_earn(
    q1: float, p1: float, q2: float, p2: float, exit_: float, side: int, inverse: bool
) -> None:
    entry = calc.average_entry(q1, p1, q2, p2, inverse=inverse)
    assert entry == twin.average_entry(q1, p1, q2, p2, inverse)
    assert min(p1, p2) * (1 - 1e-15) <= entry <= max(p1, p2) * (1 + 1e-15)
    whole = calc.pnl(entry, exit_, q1 + q2, position_side=side, inverse=inverse)
    split = [
        calc.pnl(p, exit_, q, position_side=side, inverse=inverse) for q, p in ((q1, p1), (q2, p2))
    ]
    size = sum(calc.cost(q, p, inverse=inverse) for q, p in ((q1, p1), (q2, p2), (q1 + q2, exit_)))
    assert abs(whole - sum(split)) <= 1e-14 * size


@given(qtys, prices, qtys, prices)
def test_inverse_is_linear_in_reciprocal_prices(q1: float, p1: float, q2: float, p2: float) -> None:
    inverse = calc.average_entry(q1, p1, q2, p2, inverse=True)
    linear = calc.average_entry(q1, 1 / p1, q2, 1 / p2, inverse=False)
    assert inverse == pytest.approx(1 / linear, rel=1e-14)
    # A long inverse position is a short one in the reciprocal price.
    assert calc.pnl(p1, p2, q1, position_side=1, inverse=True) == pytest.approx(
        calc.pnl(1 / p1, 1 / p2, q1, position_side=-1, inverse=False), rel=1e-12, abs=0.0
    )
    assert calc.cost(q1, p1, inverse=True) == pytest.approx(
        calc.cost(q1, 1 / p1, inverse=False), rel=1e-15
    )


# --- liquidation ------------------------------------------------------------------------------


def tier_records(tiers: list[Tier]) -> npt.NDArray[np.void]:
    return np.array([(t.floor, t.rate, t.deduction) for t in tiers], TIER_DTYPE)


def continuous(floors_and_rates: list[tuple[float, float]]) -> list[Tier]:
    """Tiers whose deductions leave no jump in the maintenance margin at a floor."""
    out: list[Tier] = []
    for floor, rate in floors_and_rates:
        jump = Fraction(floor) * (Fraction(rate) - Fraction(out[-1].rate)) if out else 0
        before = Fraction(out[-1].deduction) if out else 0
        out.append(Tier(floor, rate, float(before + jump)))
    return out


def test_liquidation_by_hand() -> None:
    one = tier_records([Tier(0.0, 0.004)])
    # Long 0.1 at 10000 with 100: 100 + 0.1 (P − 10000) = 0.004 × 0.1 P, P = 900 / 0.0996.
    got = calc.liquidation_price(0.1, 10_000.0, 100.0, one, inverse=False)
    assert got == pytest.approx(900 / 0.0996, rel=1e-15)
    # Its mirror: P = 1100 / 0.1004.
    got = calc.liquidation_price(-0.1, 10_000.0, 100.0, one, inverse=False)
    assert got == pytest.approx(1100 / 0.1004, rel=1e-15)
    # The wallet covers a fall to zero: there is none.
    assert calc.liquidation_price(0.1, 10_000.0, 1000.0, one, inverse=False) == 0.0
    # A short of coin-margined contracts that the wallet covers in full has none either.
    assert calc.liquidation_price(-1000.0, 50_000.0, 0.02, one, inverse=True) == 0.0
    assert calc.liquidation_price(0.0, 0.0, 100.0, one, inverse=False) == 0.0


def test_liquidation_uses_the_tier_of_the_notional_at_that_price() -> None:
    # 10 at 6000 is 60000 at entry: second tier. With 20000 of collateral it dies at
    # (60000 − 20000) / (10 × 0.99) = 4040.4: 40404, first tier.
    tiers = [Tier(0.0, 0.01), Tier(50_000.0, 0.05, 2000.0)]
    got = calc.liquidation_price(10.0, 6000.0, 20_000.0, tier_records(tiers), inverse=False)
    assert got == pytest.approx(40_000 / 9.9, rel=1e-15)
    # With 5000 it dies in the second: 5000 + 10 P − 60000 = 0.05 × 10 P − 2000, P = 53000 / 9.5.
    got = calc.liquidation_price(10.0, 6000.0, 5000.0, tier_records(tiers), inverse=False)
    assert got == pytest.approx(53_000 / 9.5, rel=1e-15)


def test_liquidation_where_tiers_without_deductions_jump() -> None:
    tiers = tier_records([Tier(0.0, 0.004), Tier(50_000.0, 0.01), Tier(1e6, 0.5)])
    # Short 1 at 45000 with 5300: at 49999 it still has 301 and needs 200, at 50000 300 and 500.
    got = calc.liquidation_price(-1.0, 45_000.0, 5300.0, tiers, inverse=False)
    assert got == 50_000.0
    # Long 1 at 55000 with 5300: both tiers have an answer, 49700 / 0.99 = 50202 comes first.
    got = calc.liquidation_price(1.0, 55_000.0, 5300.0, tiers, inverse=False)
    assert got == pytest.approx(49_700 / 0.99, rel=1e-15)
    # Coin-margined, the notional grows while a long loses: 100000 contracts are 2 coins at 50000.
    # With 0.212 they have 0.012 left at 2.2 coins; they need 0.0088 below it, 0.022 from there on.
    tiers = tier_records([Tier(0.0, 0.004), Tier(2.2, 0.01)])
    got = calc.liquidation_price(100_000.0, 50_000.0, 0.212, tiers, inverse=True)
    assert got == pytest.approx(100_000 / 2.2, rel=1e-15)
    # A short's shrinks. 100000 at 40000 are 2.5 coins, with 0.315 the notional at liquidation is
    # (2.5 − 0.315) / (1 − m): 2.2071 in the second tier, met first, and 2.1938 in the first.
    got = calc.liquidation_price(-100_000.0, 40_000.0, 0.315, tiers, inverse=True)
    assert got == pytest.approx(99_000 / 2.185, rel=1e-14)


@given(
    rates=st.lists(st.floats(0.001, 0.4), min_size=1, max_size=6, unique=True),
    widths=st.lists(st.floats(100, 1e6), min_size=6, max_size=6),
    size=st.floats(1e-2, 1e3),
    entry=st.floats(1e-1, 1e5),
    share=st.floats(0.001, 1.5),
    side=sides,
    inverse=st.booleans(),
)
def test_liquidation_solves_the_equation_in_its_own_tier(
    rates: list[float],
    widths: list[float],
    size: float,
    entry: float,
    share: float,
    side: int,
    inverse: bool,
) -> None:
    floors = [0.0]
    for width in widths[: len(rates) - 1]:
        floors.append(floors[-1] + width * (1e-3 if inverse else 1.0))
    tiers = continuous(list(zip(floors, sorted(rates), strict=True)))
    size = size * 1000 if inverse else size
    collateral = share * calc.cost(size, entry, inverse=inverse)
    got = calc.liquidation_price(
        side * size, entry, collateral, tier_records(tiers), inverse=inverse
    )
    solutions = twin.liquidation_prices(side * size, entry, collateral, tiers, inverse)
    # Deductions are rounded, so right at a floor the exact search may see none or two.
    clear = len(solutions) == 1 and all(
        abs(calc.cost(size, float(solutions[0]), inverse=inverse) / t.floor - 1) > 1e-9
        for t in tiers[1:]
    )
    assume(clear or not solutions)
    if solutions:
        # Equal from either end: the twin looks at every tier, the core stops at the first.
        condition = float(solutions[0]) + entry + collateral * (entry if inverse else 1 / size)
        if inverse:
            condition = float(solutions[0]) * (1 + float(solutions[0]) / entry * (1 + share))
        assert abs(got - float(solutions[0])) <= 1e-13 * condition
    else:
        assert got == 0.0 or got < 1e-9 * entry or got > 1e9 * entry


@given(st.floats(0.01, 100), st.floats(10, 1e5), st.floats(0.01, 0.9), st.floats(0.001, 0.1))
def test_more_collateral_moves_liquidation_away(
    size: float, entry: float, share: float, rate: float
) -> None:
    one = tier_records([Tier(0.0, rate)])
    for inverse in (False, True):
        cost = calc.cost(size, entry, inverse=inverse)
        poor, rich = (
            [
                calc.liquidation_price(side * size, entry, c, one, inverse=inverse)
                for side in (1, -1)
            ]
            for c in (cost * share, cost * share * 1.05)
        )
        assert rich[0] < poor[0]
        assert poor[1] < rich[1] or rich[1] == 0.0


@pytest.mark.real_data
def test_binance_numbers(shared: Path) -> None:
    vectors = json.loads((shared / "vectors" / "pnl_liquidation.json").read_text())
    linear = vectors["binance_linear"]
    case = linear["isolated_short"]
    size = case["side"] * float(case["pos"])
    tiers = tier_records([Tier(0.0, float(case["mmr"]), float(case["cum"]))])
    got = calc.liquidation_price(
        size, float(case["entry"]), float(case["isolated_wallet"]), tiers, inverse=False
    )
    assert f"{got:.8f}" == case["expected"]

    # Cross with two positions: the other one's open pnl and maintenance margin are collateral.
    case = linear["cross_two_positions"]
    wallet = float(case["wallet_balance"])
    for symbol, other in (("BTCUSDT", "ETHUSDT"), ("ETHUSDT", "BTCUSDT")):
        p = {k: float(v) for k, v in case["positions"][symbol].items()}
        q = {k: float(v) for k, v in case["positions"][other].items()}
        open_pnl = calc.pnl(q["ep"], q["mp"], q["pos"], position_side=1, inverse=False)
        maintenance = calc.cost(q["pos"], q["mp"], inverse=False) * q["mmr"] - q["cum"]
        got = calc.liquidation_price(
            p["pos"],
            p["ep"],
            wallet + open_pnl - maintenance,
            tier_records([Tier(0.0, p["mmr"], p["cum"])]),
            inverse=False,
        )
        assert got == pytest.approx(float(case["expected"][symbol]), abs=1e-7)

    table = [
        Tier(float(t["floor"]), float(t["mmr"]), float(t["cum"]))
        for t in linear["cum_recurrence"]["tiers"]
    ]
    rebuilt = continuous([(t.floor, t.rate) for t in table])
    for tier, again in pairwise(x for pair in zip(table, rebuilt, strict=True) for x in pair):
        if tier.floor == again.floor:
            assert tier.deduction == pytest.approx(again.deduction, abs=1e-6)
    # In a table without jumps every position has one solution, whichever end one starts at.
    for notional in (1e3, 1e5, 3e6, 2e7, 4.5e8):
        for side in (1, -1):
            size, entry, collateral = side * notional / 100.0, 100.0, notional / 10
            solutions = twin.liquidation_prices(size, entry, collateral, table, False)
            assert len(solutions) <= 1
            got = calc.liquidation_price(
                size, entry, collateral, tier_records(table), inverse=False
            )
            assert got == pytest.approx(float(solutions[0]) if solutions else 0.0, rel=1e-12)


@pytest.mark.real_data
def test_bybit_inverse_numbers(shared: Path) -> None:
    vectors = json.loads((shared / "vectors" / "pnl_liquidation.json").read_text())
    inverse = vectors["bybit_inverse"]

    case = inverse["upnl_doc_position"]
    size, entry = float(case["size"]), float(case["avgPrice"])
    assert f"{calc.cost(size, entry, inverse=True):.8f}" == case["expected_positionValue_entry"]
    got = calc.pnl(entry, float(case["markPrice"]), size, position_side=-1, inverse=True)
    assert f"{got:.8f}" == case["expected_unrealisedPnl"]

    for name, side in (("realised_long", 1), ("realised_short", -1)):
        case = inverse[name]
        got = calc.pnl(
            float(case["entry"]),
            float(case["exit"]),
            float(case["size"]),
            position_side=side,
            inverse=True,
        )
        assert f"{got:.8f}" == case["expected_pnl_btc"]

    case = inverse["harmonic_entry"]
    held = average = 0.0
    for qty, price in case["fills"]:
        average = calc.average_entry(held, average, float(qty), float(price), inverse=True)
        held += float(qty)
    assert f"{average:.8f}" == case["expected_avg"]

    for name, paid in (("fee", "expected_btc"), ("funding", "expected_long_pays_btc")):
        case = inverse[name]
        price = float(case.get("price") or case["mark"])
        got = calc.cost(float(case["size"]), price, inverse=True) * float(case["rate"])
        assert f"{got:.8f}" == case[paid]

    # The formula in force; the legacy one takes the maintenance margin at entry instead.
    for name in ("isolated_2026", "cross_single_coin_estimate"):
        case = inverse[name]
        size, entry = float(case["size"]), float(case["entry"])
        collateral = float(case.get("wallet_btc") or 0.0)
        if "leverage" in case:
            collateral = calc.cost(size, entry, inverse=True) / float(case["leverage"])
        tiers = tier_records([Tier(0.0, float(case["mmr"]))])
        for side, expected in ((1, "expected_long"), (-1, "expected_short")):
            got = calc.liquidation_price(side * size, entry, collateral, tiers, inverse=True)
            assert f"{got:.8f}" == case[expected]


def test_money_doors_refuse_nonsense() -> None:
    tiers = tier_records([Tier(0.0, 0.004)])
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="price must be finite and > 0"):
            calc.cost(1.0, bad, inverse=True)
        with pytest.raises(ValueError, match="entry_price must be finite and > 0"):
            calc.pnl(bad, 1.0, 1.0, position_side=1, inverse=False)
        with pytest.raises(ValueError, match="exit_price must be finite and > 0"):
            calc.pnl(1.0, bad, 1.0, position_side=1, inverse=False)
        with pytest.raises(ValueError, match="qty must be finite and > 0"):
            calc.average_entry(1.0, 1.0, bad, 1.0, inverse=False)
        with pytest.raises(ValueError, match="entry_price must be finite and > 0"):
            calc.liquidation_price(1.0, bad, 1.0, tiers, inverse=False)
    for side in (0, 2, -3):
        with pytest.raises(ValueError, match="position_side must be 1 or -1"):
            calc.pnl(1.0, 1.0, 1.0, position_side=side, inverse=False)
    for size, collateral in ((math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match="must be finite"):
            calc.liquidation_price(size, 1.0, collateral, tiers, inverse=False)
    with pytest.raises(ValueError, match="at least one tier"):
        calc.liquidation_price(1.0, 1.0, 1.0, tiers[:0], inverse=False)
