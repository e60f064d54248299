"""Configs and markets: what loads, what is refused, and that every reason is said at once."""

from __future__ import annotations

import json
import math
import pickle
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx import Config, ConfigError, Market, Tier, load_config, load_market
from passivx._core.types import STRATEGY_DTYPE
from passivx.documents import fields_of, read_document
from passivx.venue import least_balance, venue_problems
from tests.configs import documents, number_of, valid

EXAMPLES = Path(__file__).resolve().parents[1] / "configs"
MARKET = {
    "price_step": 0.5,
    "qty_step": 1.0,
    "min_qty": 1.0,
    "min_cost": 0.0,
    "maker_fee": -0.00025,
    "taker_fee": 0.00075,
    "max_leverage": 100,
    "inverse": True,
}
LINEAR = MARKET | {"inverse": False, "qty_step": 0.001, "min_qty": 0.001, "min_cost": 5.0}


def problems(document: dict[str, Any] | Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_config(document)
    return {problem.field: str(problem) for problem in caught.value.problems}


# --- published files


@pytest.mark.real_data
def test_published_configs_load_but_for_the_two_with_crossed_markups(real_data: Path) -> None:
    files = [
        file
        for file in sorted((real_data / "configs").rglob("*live_*.json"))
        if file.name.endswith(("live_settings.json", "live_config.json"))
    ]
    refused = {}
    for file in files:
        try:
            load_config(file)
        except ConfigError as e:
            refused[file.parent.name] = [problem.field for problem in e.problems]
    assert len(files) == 36
    assert refused == {
        "15_day_ADA_unstable": ["max_markup"],
        "sxp_20210403_100days_liq29%_adg8%": ["max_markup"],
    }


@pytest.mark.real_data
def test_refused_published_config_prints_the_line_to_write_and_runs_in_compat(
    real_data: Path,
) -> None:
    folder = next((real_data / "configs").rglob("15_day_ADA_unstable"))
    assert '"max_markup": 0.01148,' in problems(folder / "live_config.json")["max_markup"]
    assert load_config(folder / "live_config.json", compat=True).max_markup == 0.00857


@pytest.mark.real_data
def test_original_style_config_with_comments_and_a_missing_comma_loads(shared: Path) -> None:
    config = load_config(shared / "golden" / "original_style_live_config.json")
    assert (config.config_name, config.symbol, config.leverage) == ("BTCUSD_default", "BTCUSD", 100)
    assert config.min_close_qty_multiplier == 0.5
    assert config.market_stop_loss is False
    assert config.indicator_settings.tick_ema.span == 10_000
    assert config.warnings == ()


@pytest.mark.real_data
def test_published_market_files_load_and_settings_files_can_be_read(real_data: Path) -> None:
    markets = sorted((real_data / "configs").rglob("market_specific_settings.json"))
    assert {load_market(file).inverse for file in markets} == {True, False}
    for file in [*(real_data / "configs").rglob("*.hjson")]:
        assert read_document(file)["ranges"]["do_long"] == [1, 1, 1]
    for file in (real_data / "configs").rglob("best_result.json"):
        assert "gain" in read_document(file)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("live_settings/*/*")), ids=lambda f: f.stem)
def test_shipped_configs_load_without_a_word(file: Path) -> None:
    assert load_config(file).warnings == ()
    assert "no advice" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("markets/*")), ids=lambda f: f.stem)
def test_shipped_markets_load(file: Path) -> None:
    assert load_market(file).inverse is ("bybit" in file.name)


# --- what is accepted


def test_defaults_are_those_of_the_reference() -> None:
    config = load_config(valid())
    assert config.indicator_settings.tick_ema.spread == 0.0
    assert config.indicator_settings.funding_fee_collect_mode is False
    assert config.logging_level == 0
    assert (config.strategy, config.book) == ("grid_v2", "ticker")
    assert (config.max_order_distance, config.requote_ms) == (0.05, 5000)
    assert (config.requote_tolerance, config.orders_per_batch) == (0.0003, 4)


def test_negative_shares_count_as_absolute_with_a_warning() -> None:
    config = load_config(valid(balance_pct=-0.5, entry_qty_pct=-0.01))
    assert (config.balance_pct, config.entry_qty_pct) == (0.5, 0.01)
    assert config.warnings == (
        "balance_pct: -0.5 counts as 0.5",
        "entry_qty_pct: -0.01 counts as 0.01",
    )


def test_counts_may_be_whole_floats_and_an_optimizers_fraction_is_rounded() -> None:
    config = load_config(valid(n_close_orders=15.742805119856712, n_entry_orders=8.0))
    assert (config.n_close_orders, config.n_entry_orders) == (16, 8)
    assert config.warnings == ("n_close_orders: 15.742805119856712 is rounded to 16",)


def test_unused_keys_are_reported_and_the_callers_document_is_left_alone() -> None:
    document = valid(key="ab", indicator_settings__ohlcv_rsi={"n_periods": 21})
    config = load_config(document)
    assert config.warnings == ("key is not used", "indicator_settings.ohlcv_rsi is not used")
    assert "ohlcv_rsi" in document["indicator_settings"]
    assert config == load_config(valid())


def test_no_side_allowed_is_valid_with_a_warning() -> None:
    config = load_config(
        valid(indicator_settings__do_long=False, indicator_settings__do_shrt=False)
    )
    assert "nothing will be opened" in config.warnings[0]


def test_numpy_scalars_are_the_values_they_stand_for() -> None:
    config = load_config(
        valid(leverage=np.int64(7), cross_mode=np.bool_(False), n_close_orders=np.float64(3.0))
    )
    assert (config.leverage, config.cross_mode, config.n_close_orders) == (7.0, False, 3)


def test_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "bom.json"
    file.write_text(json.dumps(valid()), encoding="utf-8-sig")
    assert load_config(file) == load_config(valid())
    assert load_config(str(file)).source == file


def test_compat_checks_types_and_finiteness_only() -> None:
    config = load_config(valid(leverage=0.5, ddown_factor=-3, max_markup=0.0001), compat=True)
    assert (config.leverage, config.ddown_factor) == (0.5, -3.0)
    for wrong in (math.nan, math.inf, "1", True, None):
        with pytest.raises(ConfigError):
            load_config(valid(leverage=wrong), compat=True)


def test_strategy_record_carries_every_value() -> None:
    config = load_config(valid(indicator_settings__tick_ema__spread=0.25))
    record = config.strategy_record()
    assert record.shape == (1,)
    assert record.dtype == STRATEGY_DTYPE
    assert record["ema_spread"][0] == 0.25
    assert record["do_short"][0] == 1
    assert record["n_close_orders"][0] == 10
    assert record["grid_coefficient"][0] == 200.0


def test_configs_are_frozen_hashable_and_picklable() -> None:
    config = load_config(valid(n_close_orders=1.4))
    with pytest.raises(ValueError, match="frozen"):
        config.leverage = 3  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config
    assert {copy, config} == {config}
    assert copy.warnings == config.warnings
    assert config != load_config(valid())


@given(documents())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_valid_config_loads_back_equal(tmp_path_factory: Any, document: dict[str, Any]) -> None:
    config = load_config(document)
    file = tmp_path_factory.getbasetemp() / "round_trip.json"
    file.write_text(config.to_json(), encoding="utf-8")
    assert load_config(file) == config
    assert load_config(json.loads(config.to_json())).to_json() == config.to_json()
    assert not load_config(file).warnings or "both false" in config.warnings[0]


# --- what is refused


def test_every_problem_is_reported_at_once_with_path_value_and_range() -> None:
    document = valid(
        config_name="a/b",
        cross_mode="False",
        leverage=0,
        max_markup=0.0001,
        n_close_orders=True,
        levrage=5,
        do_long=True,
        indicator_settings__tick_ema__spread=1.0,
        book="level2",
    )
    del document["symbol"]
    found = problems(document)
    assert found == {
        "config_name": "config_name: must be 1 to 64 of the characters A-Z a-z 0-9 _ . % - "
        "(no '..'), was 'a/b'",
        "symbol": "symbol: is missing",
        "cross_mode": "cross_mode: must be true or false, was 'False'",
        "leverage": "leverage: must be a number in [1, inf), was 0",
        "max_markup": "max_markup: must be at least min_markup (0.001), was 0.0001; to close at "
        'that one price write "max_markup": 0.001,',
        "n_close_orders": "n_close_orders: must be a whole number in [1, 200], was True",
        "indicator_settings.tick_ema.spread": "indicator_settings.tick_ema.spread: must be a "
        "number in [0, 1), was 1.0",
        "book": "book: must be 'ticker' or 'trades', was 'level2'",
        "levrage": "levrage: is not a known field, was 5; did you mean leverage?",
        "do_long": "do_long: is not a known field, was True; did you mean "
        "indicator_settings.do_long?",
    }


NUMBERS = [(path, number_of(info)) for path, info in fields_of(Config) if number_of(info)]


@pytest.mark.parametrize("path", [path for path, _ in NUMBERS])
@pytest.mark.parametrize(
    "wrong",
    ["1", True, None, [1], math.nan, math.inf, -math.inf, 10**400],
    ids=lambda v: repr(v)[:9],
)
def test_numbers_are_strict_and_finite(path: str, wrong: object) -> None:
    assert path in problems(valid(**{path.replace(".", "__"): wrong}))


@pytest.mark.parametrize(("path", "number"), NUMBERS)
def test_ranges_hold_to_the_last_double(path: str, number: Any) -> None:
    key = path.replace(".", "__")
    low, high = (float(end) for end in number.interval[1:-1].split(","))
    # A negative share counts as its absolute, and a count is rounded: step well outside.
    below = low - 1 if "." not in str(low).rstrip("0").rstrip(".") else math.nextafter(low, -9)
    outside = [] if number.absolute else [below]
    outside += [low] if number.interval[0] == "(" else []
    if math.isfinite(high):
        outside += [high + 1] + ([high] if number.interval[-1] == ")" else [])
    for value in outside:
        assert path in problems(valid(**{key: value})), value


@pytest.mark.parametrize("path", [p for p, i in fields_of(Config) if i.annotation is bool])
@pytest.mark.parametrize("wrong", ["False", "true", 1, 0, 1.0, None])
def test_flags_are_strict(path: str, wrong: object) -> None:
    found = problems(valid(**{path.replace(".", "__"): wrong}))
    assert "must be true or false" in found[path]


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "..", "a..b", ".", "a b", "a\n", "é", "x" * 65]
)
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    assert set(problems(valid(config_name=name, symbol=name))) == {"config_name", "symbol"}


def test_unquoted_text_that_swallowed_its_comment_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "c.hjson"
    text = json.dumps(valid(), indent=1).replace('"BTCUSD",', "BTCUSD  # the symbol")
    file.write_text(text, encoding="utf-8")
    assert "put it in quotes" in problems(file)["symbol"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"  \n# nothing here\n", "is empty"),
        (b"{}", "is empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 40_000, "nested too deeply"),
        (b"{\n  a: 1\n  b: ]\n}", "line 3 column 6: Found a punctuator"),
        (b'{"a": "text', "line 1 column 7: Unterminated string"),
        (b"{a: 1", "line 1 column 6"),
        (b"/* open", "ends inside a comment"),
        (b"{a: '''open", "ends inside a comment or a text"),
        (b"[1, 2]", "must be one object"),
        (b"leverage", "must be one object"),
        (b"{a: 1}\n{", "Extra data"),
        (b'{"leverage": 1, "leverage": 2}', "leverage: is given more than once"),
        (b"{a: [{b: {c: 1, c: 2}}]}", "a[0].b.c: is given more than once"),
        (b'{"\\u001b[31m": 1, "\\u001b[31m": 1}', "'\\x1b[31m': is given more than once"),
        (b"{\n a: 1e999}", "line 2: a number is too large"),
        (b"{a: " + b"9" * 5000 + b"}", "line 1: a number is too large"),
        (b'{"a": "\xff"}', "is not UTF-8 text (byte 7)"),
        ("{}".encode("utf-16"), "is not UTF-8 text"),
        (b" " * (256 << 10) + b"{}", "larger than 256 KiB"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_broken_files_name_the_file_and_the_place(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert all(problem.remedy for problem in caught.value.problems)


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path, "nul\0.json"):
        with pytest.raises(ConfigError):
            read_document(path)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "nan", "1e400"])
def test_non_finite_numbers_in_files_are_refused(tmp_path: Path, literal: str) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(valid()).replace("0.002", f"{literal}"), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(file)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_mutated_files_load_or_raise_config_error(tmp_path_factory: Any, seed: int) -> None:
    rng = random.Random(seed)
    text = list(json.dumps(valid(), indent=rng.choice([None, 2])))
    alphabet = string.printable + "{}[]:,\"'#/*\\\x00é\ud800"
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(text))
        text[at : at + rng.choice([0, 1, 1, 30])] = rng.choices(alphabet, k=rng.choice([0, 1, 3]))
    file = tmp_path_factory.getbasetemp() / "mutated.json"
    file.write_bytes("".join(text).encode("utf-8", "surrogatepass"))
    try:
        load_config(file)
    except ConfigError as e:
        str(e).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    path=st.sampled_from([p for p, _ in fields_of(Config)] + ["x", "indicator_settings"]),
    value=json_values,
)
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_loads_or_raises_config_error(path: str, value: object) -> None:
    try:
        load_config(valid(**{path.replace(".", "__"): value}))
    except ConfigError as e:
        str(e).encode()


# --- markets


def test_market_rules_are_checked_the_same_way_whichever_door_they_come_through() -> None:
    wrong = MARKET | {
        "price_step": -1,
        "qty_step": math.pi * 1e-16,
        "min_qty": "1",
        "inverse": 1,
        "taker_fee": 1.0,
        "contract_size": 10,
        "tiers": [{"floor": 5, "maintenance_rate": 0.01, "rate": 1}],
    }
    del wrong["min_cost"]
    expected = {
        "price_step",
        "qty_step",
        "min_qty",
        "min_cost",
        "inverse",
        "taker_fee",
        "contract_size",
        "tiers[0].rate",
    }
    for door in (load_market, Market.from_flat, lambda document: Market(**document)):
        with pytest.raises(ConfigError) as caught:
            door(wrong)
        assert {problem.field for problem in caught.value.problems} == expected


def test_market_file_ignores_exchange_and_symbol_but_not_typos() -> None:
    assert load_market(MARKET | {"exchange": "bybit", "symbol": "BTCUSD"}) == Market(**MARKET)
    with pytest.raises(ConfigError, match="did you mean price_step"):
        load_market(MARKET | {"price_stp": 1})


def test_from_flat_leaves_other_keys_alone() -> None:
    assert Market.from_flat(valid() | MARKET | {"starting_balance": 1.0}) == Market(**MARKET)
    assert Market.from_flat({k: np.asarray(v)[()] for k, v in MARKET.items()}) == Market(**MARKET)


def test_tiers_must_start_at_zero_and_rise() -> None:
    rising = [{"floor": f, "maintenance_rate": 0.01, "max_leverage": 50} for f in (0, 10, 20)]
    market = load_market(MARKET | {"tiers": rising})
    assert market.tiers[1] == Tier(floor=10, maintenance_rate=0.01, max_leverage=50)
    for tiers in (rising[1:], rising[::-1], [rising[0], rising[0]]):
        with pytest.raises(ConfigError, match="start at 0 and rise"):
            load_market(MARKET | {"tiers": tiers})
    with pytest.raises(ConfigError, match="floor"):
        Tier(floor=-1.0, maintenance_rate=0.01)


def test_market_errors_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text("{min_qty: 1}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"m\.json: 7 problems"):
        load_market(file)


# --- a config on a venue


def test_first_entry_needs_a_balance_that_reaches_the_minimum() -> None:
    config = load_config(valid())
    # linear: 5 quote at price 1600 is 0.003125, so 0.004 = 6.4 quote = 128 * 0.5 * 10 * 0.01
    linear = load_market(LINEAR)
    assert least_balance(config, linear, 1600.0) == pytest.approx(128.0, rel=1e-12)
    # inverse: one contract at 40000 is 0.000025 = 0.0005 * 0.5 * 10 * 0.01
    assert least_balance(config, load_market(MARKET), 40_000.0) == pytest.approx(0.0005, rel=1e-12)
    assert venue_problems(config, linear, 1600.0) == []
    assert venue_problems(config, linear, 1600.0, 128.1) == []
    (problem,) = venue_problems(config, linear, 1600.0, 127.9)
    assert problem.field == "entry_qty_pct"
    assert "a balance of 128" in problem.remedy


def test_leverage_is_held_against_the_venue_after_rounding_up() -> None:
    market = load_market(MARKET)
    assert venue_problems(load_config(valid(leverage=99.5)), market, 1e4) == []
    assert [p.field for p in venue_problems(load_config(valid(leverage=100.5)), market, 1e4)] == [
        "leverage"
    ]
    tier = {"floor": 0, "maintenance_rate": 0.01, "max_leverage": 25}
    (problem,) = venue_problems(
        load_config(valid(leverage=26)), load_market(MARKET | {"tiers": [tier]}), 1e4
    )
    assert "at most 25" in problem.message


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("rules", [MARKET, LINEAR], ids=["inverse", "linear"])
def test_unusable_price_or_balance_is_refused(wrong: float, rules: dict[str, Any]) -> None:
    config, market = load_config(valid()), load_market(rules)
    with pytest.raises(ConfigError, match="price"):
        venue_problems(config, market, wrong)
    with pytest.raises(ConfigError, match="balance"):
        venue_problems(config, market, 100.0, wrong)
