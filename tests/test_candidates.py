"""Candidates: many at once are what each of them is by itself, and what may be a value of what."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from passivx import ConfigError, Market, load_config
from passivx._core.compat import COMPAT_DTYPE
from passivx._core.exact import EXACT_DTYPE
from passivx.candidates import (
    PARAMETERS,
    compat_record,
    compat_records,
    config_from_flat,
    exact_from_flat,
    exact_records,
    parameter_fault,
    with_defaults,
)
from passivx.config import Config
from passivx.documents import fields_of
from passivx.models import Tier
from tests.configs import number_of, put, valid

LINEAR = Market(
    price_step=0.1, qty_step=0.001, min_qty=0.001, min_cost=5.0, maker_fee=0.0002,
    taker_fee=0.0005, max_leverage=125, inverse=False, liquidation_fee=0.005,
)  # fmt: skip
INVERSE = replace(LINEAR, price_step=0.5, qty_step=1.0, min_qty=1.0, inverse=True)
# What a position may be worth falls with the leverage: 200,000 from 51 on, 50,000 from 76 on.
TIERS = (
    Tier(floor=0.0, maintenance_rate=0.004, max_leverage=125),
    Tier(floor=50_000.0, maintenance_rate=0.005, max_leverage=75),
    Tier(floor=200_000.0, maintenance_rate=0.01, max_leverage=50),
)
MARKETS = {
    "linear": LINEAR,
    "linear with tiers": replace(LINEAR, tiers=TIERS),
    "inverse": INVERSE,
    "inverse with tiers": replace(INVERSE, tiers=TIERS),
    "tiers that say nothing of leverage": replace(
        LINEAR, tiers=(Tier(floor=0.0, maintenance_rate=0.01),)
    ),
}
# A flat name in a config document.
PLACES = {
    "ema_span": "indicator_settings.tick_ema.span",
    "ema_spread": "indicator_settings.tick_ema.spread",
    "do_long": "indicator_settings.do_long",
    "do_shrt": "indicator_settings.do_shrt",
    "funding_fee_collect_mode": "indicator_settings.funding_fee_collect_mode",
}
INFO: dict[str, FieldInfo] = dict(fields_of(Config))


def info_of(name: str) -> FieldInfo:
    return INFO[PLACES.get(name, name)]


def base_of(market: Market) -> dict[str, Any]:
    """Flat settings whose markups go with any that is drawn."""
    flat = load_config(valid(min_markup=1e-6, max_markup=0.9999)).to_flat()
    return with_defaults(
        {**flat, **asdict(market), "starting_balance": 1000.0, "cancel_latency_ms": 7.0}, "exact"
    )


def draw_exact(rng: np.random.Generator, name: str, n: int) -> npt.NDArray[np.float64]:
    """Values within the ranges of a config, some of them at the ends."""
    number = number_of(info_of(name))
    if number is None:
        return rng.integers(0, 2, n).astype(float)
    low, high = (float(end) for end in number.interval[1:-1].split(","))
    high = min(high, {"leverage": 200.0, "ema_span": 1e6}.get(name, 1e9))
    width = high - low
    inner = (low if number.interval[0] == "[" else low + width * 1e-6,
             high if number.interval[-1] == "]" else high - width * 1e-6)  # fmt: skip
    values = rng.uniform(*inner, n)
    values[rng.random(n) < 0.2] = inner[0]
    values[rng.random(n) < 0.2] = inner[1]
    if name == "leverage":
        edges = [1.0, 49.5, 50.0, 50.5, 51.0, 75.0, 75.0001, 125.0, 125.5]
        values = np.where(rng.random(n) < 0.5, rng.choice(edges, n), values)
    return values


def draw_candidates(
    rng: np.random.Generator, names: tuple[str, ...], n: int
) -> dict[str, npt.NDArray[np.float64]]:
    columns = {name: draw_exact(rng, name, n) for name in names}
    markups = [name for name in ("min_markup", "max_markup") if name in columns]
    for name in markups:
        columns[name] = rng.uniform(1e-5, 0.999, n)
    if len(markups) == 2:
        low, high = np.sort([columns["min_markup"], columns["max_markup"]], axis=0)
        columns |= {"min_markup": low, "max_markup": high}
    return columns


def exact_one_by_one(
    base: dict[str, Any], columns: dict[str, npt.NDArray[np.float64]], fill: str, share: float
) -> list[bytes]:
    n = len(next(iter(columns.values())))
    rows = [{name: float(values[i]) for name, values in columns.items()} for i in range(n)]
    return [
        exact_from_flat({**base, **row}, fill=fill, queue_share=share).record().tobytes()
        for row in rows
    ]


# --- exact


@pytest.mark.parametrize("market", MARKETS.values(), ids=MARKETS)
def test_exact_candidates_are_each_ones_own_record(market: Market) -> None:
    base = base_of(market)
    run = exact_from_flat(base, fill="volume", queue_share=0.25)
    columns = draw_candidates(np.random.default_rng(5), PARAMETERS["exact"], 300)
    records = exact_records(run.record(), market, columns)
    assert records.dtype == EXACT_DTYPE
    assert records.shape == (300,)
    wanted = exact_one_by_one(base, columns, "volume", 0.25)
    assert [record.tobytes() for record in records] == wanted
    caps = set(records["market"]["notional_cap"].tolist())
    with_limits = any(tier.max_leverage < math.inf for tier in market.tiers)
    assert caps == ({0.0, 50_000.0, 200_000.0, math.inf} if with_limits else {math.inf})


@given(
    st.sets(st.sampled_from(PARAMETERS["exact"]), min_size=1),
    st.sampled_from(sorted(MARKETS)),
    st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_what_is_not_varied_stays_as_it_is(names: set[str], market_name: str, seed: int) -> None:
    market = MARKETS[market_name]
    base = base_of(market)
    run = exact_from_flat(base, fill="cross", queue_share=0.0)
    columns = draw_candidates(np.random.default_rng(seed), tuple(sorted(names)), 3)
    before = run.record()
    records = exact_records(before, market, columns)
    assert [record.tobytes() for record in records] == exact_one_by_one(base, columns, "cross", 0.0)
    assert before.tobytes() == run.record().tobytes()  # the one it came from is left alone


def test_the_leverage_of_the_venue_is_the_next_whole_one_and_has_its_cap() -> None:
    market = MARKETS["linear with tiers"]
    run = exact_from_flat(base_of(market), fill="cross", queue_share=0.0)
    columns = {"leverage": np.array([1.0, 50.0, 50.2, 75.0, 75.5, 125.0, 125.1])}
    records = exact_records(run.record(), market, columns)
    assert records["strategy"]["leverage"].tolist() == columns["leverage"].tolist()
    assert records["venue_leverage"].tolist() == [1, 50, 51, 75, 76, 125, 126]
    assert records["market"]["notional_cap"].tolist() == [
        math.inf, math.inf, 200_000, 200_000, 50_000, 50_000, 0,
    ]  # fmt: skip


def test_counts_are_rounded_and_no_candidates_are_none() -> None:
    run = exact_from_flat(base_of(LINEAR), fill="cross", queue_share=0.0)
    halves = {"n_close_orders": np.array([1.49, 1.5, 2.5, 15.74])}
    records = exact_records(run.record(), LINEAR, halves)
    assert records["strategy"]["n_close_orders"].tolist() == [1, 2, 2, 16]
    assert exact_records(run.record(), LINEAR, {"leverage": np.zeros(0)}).shape == (0,)


# --- compat


@pytest.mark.parametrize("inverse", [False, True])
def test_compat_candidates_are_each_ones_own_record(inverse: bool) -> None:
    base = base_of(INVERSE if inverse else LINEAR)
    rng = np.random.default_rng(6)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    for name in PARAMETERS["compat"]:
        # compat takes what old files have, beyond the ranges of a config too.
        values = rng.uniform(0.1, 50.0, 200)
        if name in ("do_long", "do_shrt"):
            values = rng.integers(0, 2, 200).astype(float)
        elif not parameter_fault(name, -1.0, "compat"):
            values *= rng.choice([-1.0, 0.0, 1.0, 1e9], 200)
        columns[name] = values
    before = compat_record(base)
    records = compat_records(before, columns)
    assert records.dtype == COMPAT_DTYPE
    rows = [{name: float(values[i]) for name, values in columns.items()} for i in range(200)]
    assert [record.tobytes() for record in records] == [
        compat_record({**base, **row}).tobytes() for row in rows
    ]
    assert before.tobytes() == compat_record(base).tobytes()
    assert set(records["inverse"].tolist()) == {int(inverse)}


@given(
    st.sets(st.sampled_from(PARAMETERS["compat"]), min_size=1),
    st.lists(st.floats(1.0, 50.0), min_size=1, max_size=4),
)
@settings(deadline=None)
def test_compat_leaves_alone_what_is_not_varied(names: set[str], values: list[float]) -> None:
    base = base_of(LINEAR)
    # A switch has no value but 1 among these.
    columns = {name: np.minimum(values, 1.0) if name.startswith("do_") else np.array(values)
               for name in names}  # fmt: skip
    records = compat_records(compat_record(base), columns)
    rows = [{name: float(column[i]) for name, column in columns.items()}
            for i in range(len(values))]  # fmt: skip
    assert [record.tobytes() for record in records] == [
        compat_record({**base, **row}).tobytes() for row in rows
    ]


# --- which parameters there are


def test_parameters_are_all_numbers_and_switches_that_change_a_run() -> None:
    flat = load_config(valid()).to_flat()
    assert set(PARAMETERS["exact"]) == set(flat) - {
        "config_name", "symbol", "logging_level", "strategy", "book",
    }  # fmt: skip
    assert len(set(PARAMETERS["exact"])) == len(PARAMETERS["exact"])
    assert set(PARAMETERS["compat"]) == set(PARAMETERS["exact"]) - {
        "cross_mode", "n_entry_orders", "funding_fee_collect_mode", "market_stop_loss",
        "max_order_distance", "requote_ms", "requote_tolerance", "orders_per_batch",
    }  # fmt: skip


# --- what may be a value


NASTY = [
    -1e9, -1.0, -1e-9, -0.0, 0.0, 5e-324, 1e-9, 0.01, 0.0100001, 0.05, 0.49999, 0.5, 0.99999, 1.0,
    1.0000001, 1.4, 2.0, 3.0, 10.0, 10.0001, 50.0, 50.5, 51.0, 99.0, 100.0, 200.0, 200.4, 201.0,
    10_000.0, 10_001.0, 3_600_000.0, 3_600_001.0, 1e9, 1e300, math.inf, -math.inf, math.nan,
]  # fmt: skip


def accepted(name: str, value: Any) -> bool:
    """Whether a config takes the value of that parameter as it is."""
    flat = {**load_config(valid(min_markup=5e-324, max_markup=0.999999999)).to_flat(), name: value}
    try:
        config = config_from_flat(flat)
    except ConfigError as e:
        if [problem.field for problem in e.problems] == [name]:
            return False
        raise
    taken = config.to_flat()[name]
    # A config rounds counts, and takes some shares by their absolutes.
    return bool(taken == value or info_of(name).annotation is int)


@pytest.mark.parametrize("name", PARAMETERS["exact"])
def test_a_parameter_of_exact_may_have_what_a_config_may(name: str) -> None:
    n_taken = 0
    for value in NASTY:
        fault = parameter_fault(name, value, "exact")
        n_taken += not fault
        if info_of(name).annotation is int:
            # A whole number is what a config takes; between them it is what it rounds.
            if not fault:
                assert accepted(name, value), value
            elif value == round(value) if math.isfinite(value) else True:
                assert not accepted(name, value), value
        else:
            assert (fault == "") == accepted(name, value), value
        if fault:
            number = number_of(info_of(name))
            assert fault == (
                "must be 0 or 1" if number is None else f"must be in {number.interval}"
            )
    assert n_taken > 1


@pytest.mark.parametrize(
    "value", ["1", None, [1], True, np.True_, 1j, pytest.param(10**400, id="huge")]
)
def test_what_is_no_number_is_no_value(value: Any) -> None:
    for engine, names in PARAMETERS.items():
        for name in names:
            # compat's own settings have switches that are no numbers.
            switch = engine == "compat" and name.startswith("do_")
            taken = switch and isinstance(value, bool | np.bool_)
            assert (parameter_fault(name, value, engine) == "") == taken


@pytest.mark.parametrize("name", PARAMETERS["compat"])
def test_a_parameter_of_compat_may_have_what_its_record_takes(name: str) -> None:
    base = base_of(LINEAR)
    for value in [*NASTY, "1", None, True]:
        fault = parameter_fault(name, value, "compat")
        if not fault:
            compat_record({**base, name: value})
            continue
        with pytest.raises(ConfigError) as caught:
            compat_record({**base, name: value})
        (problem,) = caught.value.problems
        assert (problem.field, problem.message) == (name, fault)


def test_flat_settings_and_documents_are_the_same_config() -> None:
    document = valid()
    for path, value in (("indicator_settings.do_shrt", False), ("requote_ms", 700)):
        put(document, path, value)
    config = load_config(document)
    numbers = {n: float(v) if isinstance(v, bool) else v for n, v in config.to_flat().items()}
    assert config_from_flat(numbers, config_name="valid", symbol="BTCUSD") == config
