"""The figures of a run: by hand, against the slow twin, and finite whatever happens."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx._core.compat import COMPAT_FILL_DTYPE
from passivx._core.types import KIND_NAMES, Kind
from passivx.report.metrics import EQUITY_DTYPE, LARGEST, compat_summary, exact_summary
from tests.reference import metrics_twin

HOUR = 3_600_000
DAY = 24 * HOUR
WHOLE = ("tick", "ts_ms", "position_side", "kind")
MONEY = (
    "price", "qty", "pos_size", "pos_price", "liq_price", "pnl", "fee", "balance", "closest_liq",
)  # fmt: skip
RECORD_DTYPE = np.dtype([(n, "<i8") for n in WHOLE] + [(n, "<f8") for n in MONEY])


def rec(**values: Any) -> dict[str, Any]:
    return values


def records(*rows: dict[str, Any], dtype: np.dtype = RECORD_DTYPE) -> np.ndarray:
    out = np.zeros(len(rows), dtype)
    for record, row in zip(out, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return out


def points(*rows: tuple[int, float, float]) -> np.ndarray:
    return np.array(list(rows), EQUITY_DTYPE)


def flat_points(*equity: float, every_ms: int = DAY, start_ms: int = 0) -> np.ndarray:
    return points(*((start_ms + i * every_ms, e, e) for i, e in enumerate(equity)))


def summary(fills: np.ndarray, equity: np.ndarray, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "starting_balance": float(equity["equity"][0]),
        "start_ms": int(equity["ts_ms"][0]),
        "end_ms": int(equity["ts_ms"][-1]),
        "inverse": False,
        "leverage": 10.0,
        "worst_open_loss": 0.0,
        "closest_liq": 1.0,
    }
    return exact_summary(fills, equity, **given | changes)


def assert_finite(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        assert type(value) in (int, float), name
        assert math.isfinite(value), name
    json.dumps(figures, allow_nan=False)


# Two days from a midnight; 10 x leverage, fee 0.1 % of notional.
# 2 at 100 and 2 at 90 make 4 at 95; a stop at 85 loses 10 on one; the close at 105 wins 3 x 10.
BY_HAND = records(
    rec(ts_ms=6 * HOUR, kind=Kind.ENTRY, price=100, qty=2, pos_size=2, pos_price=100,
         fee=-0.2, balance=999.8),
    rec(ts_ms=8 * HOUR, kind=Kind.FUNDING, price=99, pos_size=2, pos_price=100,
         pnl=-1, balance=998.8),
    rec(ts_ms=12 * HOUR, kind=Kind.REENTRY, price=90, qty=2, pos_size=4, pos_price=95,
         fee=-0.18, balance=998.62),
    rec(ts_ms=18 * HOUR, kind=Kind.STOP_LOSS_POS_PRICE_DIFF, price=85, qty=-1, pos_size=3,
         pos_price=95, pnl=-10, fee=-0.085, balance=988.535),
    rec(ts_ms=30 * HOUR, kind=Kind.CLOSE, price=105, qty=-3, pnl=30, fee=-0.315, balance=1018.22),
)  # fmt: skip
BY_HAND_EQUITY = points(
    (0, 1000.0, 1000.0),
    (6 * HOUR, 999.8, 999.8),
    (12 * HOUR, 998.62, 980.0),
    (18 * HOUR, 988.535, 960.0),
    (24 * HOUR, 988.535, 950.0),
    (30 * HOUR, 1018.22, 1018.22),
    (48 * HOUR, 1018.22, 1018.22),
)


def test_every_figure_of_a_run_by_hand():
    # Daily returns: 950/1000 - 1, then 1018.22/950 - 1; two values deviate by their gap / sqrt 2.
    up = 1018.22 / 950 - 1
    mean = (up - 0.05) / 2
    expected = {
        "starting_balance": 1000.0,
        "final_wallet": 1018.22,
        "final_equity": 1018.22,
        "open_pnl": 0.0,
        "net_pnl_plus_fees": 30 - 10 - 1 - 0.78,
        "gain": 1.01822,
        "n_days": 2.0,
        "average_daily_gain": math.sqrt(1.01822),
        "profit_sum": 30.0,
        "loss_sum": -10.0,
        "loss_profit_ratio": 1 / 3,
        "fee_sum": -0.78,
        "funding_sum": -1.0,
        "volume": 200 + 180 + 85 + 315,
        "max_drawdown": 0.05,  # 950 under 1000
        "max_drawdown_hours": 30.0,  # from the start to the close
        "max_loss": 0.05,
        "sharpe": mean / ((up + 0.05) / math.sqrt(2)) * math.sqrt(365),
        "sortino": mean / math.sqrt(0.05**2 / 2) * math.sqrt(365),
        "worst_open_loss": -45.0,
        "closest_liq": 0.2,
        "biggest_pos_size": 4.0,
        "exposure": 24 / 48,
        "mean_margin_use": (2 * 20 / 999.8 + 4 * 20 / 998.8 + 6 * 38 / 998.62 + 12 * 28.5 / 988.535)
        / 48,
        "max_margin_use": 38 / 998.62,
        "n_trades": 4,
        "n_entries": 1,
        "n_reentries": 1,
        "n_closes": 1,
        "n_stop_losses": 1,
        "n_stop_loss_liq_diff": 0,
        "n_stop_loss_pos_price_diff": 1,
        "n_liquidations": 0,
        "n_fundings": 1,
        "mean_n_hours_between_consec_trades": 8.0,  # 6, 6, 12
        "median_n_hours_between_consec_trades": 6.0,
        "max_n_hours_between_consec_trades": 12.0,
        "max_hours_without_fill": 18.0,  # after the close
    }
    figures = summary(BY_HAND, BY_HAND_EQUITY, worst_open_loss=-45.0, closest_liq=0.2)
    assert list(figures) == list(expected)
    assert figures == pytest.approx(expected, rel=1e-12)
    assert_finite(figures)


def test_every_figure_is_defined_in_the_docstring():
    for name in summary(BY_HAND, BY_HAND_EQUITY):
        if name.endswith("n_hours_between_consec_trades"):
            name = "max_n_hours_between_consec_trades"
        assert name in (exact_summary.__doc__ or ""), name


def test_an_inverse_position_still_open_at_the_end():
    # 100 contracts at 40,000 cost 0.0025 coins; at 5 x they bind 0.0005 of 0.01.
    fills = records(
        rec(ts_ms=0, kind=Kind.ENTRY, price=40_000, qty=-100, pos_size=-100, pos_price=40_000,
             balance=0.01)
    )  # fmt: skip
    equity = points((0, 0.01, 0.01), (DAY, 0.01, 0.011))
    figures = summary(fills, equity, inverse=True, leverage=5.0)
    assert figures["volume"] == pytest.approx(0.0025)
    assert figures["max_margin_use"] == figures["mean_margin_use"] == pytest.approx(0.05)
    assert figures["exposure"] == 1.0
    assert figures["biggest_pos_size"] == 100.0
    assert figures["open_pnl"] == pytest.approx(0.001)
    assert figures["gain"] == figures["average_daily_gain"] == pytest.approx(1.1)


@pytest.mark.parametrize("end_ms", [0, 1, 30 * DAY])
def test_a_run_without_fills(end_ms):
    figures = summary(records(), flat_points(1000.0, 1000.0, every_ms=end_ms))
    assert_finite(figures)
    ones = {"gain", "average_daily_gain", "closest_liq"}
    thousands = {"starting_balance", "final_wallet", "final_equity"}
    for name, value in figures.items():
        if name == "n_days":
            assert value == end_ms / DAY
        elif name == "max_hours_without_fill":
            assert value == end_ms / HOUR
        else:
            assert value == (1 if name in ones else 1000 if name in thousands else 0), name


def test_a_liquidated_run():
    fills = records(
        rec(ts_ms=HOUR, kind=Kind.ENTRY, price=100, qty=100, pos_size=100, pos_price=100,
             balance=1000),
        rec(ts_ms=2 * HOUR, kind=Kind.LIQUIDATION, price=90, qty=-100, pnl=-991, fee=-9),
    )  # fmt: skip
    equity = points((0, 1000, 1000), (HOUR, 1000, 1000), (2 * HOUR, 0, 0), (4 * HOUR, 0, 0))
    figures = summary(fills, equity, worst_open_loss=-1000.0, closest_liq=0.0)
    assert_finite(figures)
    assert figures["gain"] == figures["average_daily_gain"] == figures["closest_liq"] == 0.0
    assert figures["max_drawdown"] == figures["max_loss"] == 1.0
    assert figures["max_drawdown_hours"] == 3.0  # from the last point at the peak to the end
    assert figures["loss_sum"] == -991.0
    assert figures["loss_profit_ratio"] == LARGEST
    assert (figures["n_trades"], figures["n_liquidations"], figures["n_stop_losses"]) == (2, 1, 0)
    assert figures["exposure"] == 0.25
    assert figures["mean_margin_use"] == 0.25
    assert figures["volume"] == 100 * 100 + 100 * 90


@pytest.mark.parametrize(
    ("profit", "loss", "ratio"),
    [
        (10.0, -5.0, 0.5),
        (10.0, 0.0, 0.0),
        (10.0, 5.0, 0.0),  # a stop in profit
        (0.0, 0.0, 0.0),
        (0.0, -5.0, LARGEST),
        (-1.0, 5.0, LARGEST),
        (1e-9, -5.0, LARGEST),
    ],
)
def test_loss_profit_ratio(profit, loss, ratio):
    fills = records(rec(kind=Kind.CLOSE, pnl=profit), rec(kind=Kind.STOP_LOSS_LIQ_DIFF, pnl=loss))
    assert summary(fills, flat_points(1000.0, 1000.0))["loss_profit_ratio"] == ratio


@pytest.mark.parametrize(
    ("equity", "depth", "days"),
    [
        ([100, 110, 120], 0.0, 0),
        ([100, 90, 100], 0.1, 2),
        ([100, 100, 90, 95], 0.1, 2),  # from the last point at the peak, to the end
        ([100, 90, 100, 80, 70, 100, 60], 0.4, 1),
        ([100, 80, 90, 100, 80, 100], 0.2, 3),  # the first of equals
        ([100, 150, 75, 140, 151, 90], 0.5, 3),
        ([100, 50, -20, -30, 100], 1.0, 4),
    ],
)
def test_drawdown(equity, depth, days):
    figures = summary(records(), flat_points(*equity))
    assert figures["max_drawdown"] == pytest.approx(depth)
    assert figures["max_drawdown_hours"] == 24 * days


@pytest.mark.parametrize(
    ("equity", "loss"),
    [
        ([100, 110, 120], 0.0),
        ([100, 90, 100], 0.1),
        ([100, 200, 110], 0.0),  # a drawdown is no loss
        ([100, 200, 80, 150, 90], 0.2),
        ([100, 50, -20, 100], 1.0),
    ],
)
def test_loss(equity, loss):
    assert summary(records(), flat_points(*equity))["max_loss"] == pytest.approx(loss)


def entries(*hours: int, kind: Kind = Kind.ENTRY, dtype: np.dtype = RECORD_DTYPE) -> np.ndarray:
    return records(*(rec(ts_ms=hour * HOUR, kind=kind, price=100) for hour in hours), dtype=dtype)


@pytest.mark.parametrize(
    ("hours", "longest"),
    [
        ([], 48.0),
        ([40], 40.0),
        ([8], 40.0),
        ([10, 30, 40], 20.0),
        ([0, 20, 48], 28.0),
        ([0, 48], 48.0),
    ],
)
def test_time_without_a_fill(hours, longest):
    levels = flat_points(1000.0, 1000.0, every_ms=2 * DAY)
    assert summary(entries(*hours), levels)["max_hours_without_fill"] == longest
    figures = compat(entries(*hours, dtype=COMPAT_FILL_DTYPE))
    assert figures["max_hours_without_fill"] == longest
    fundings = entries(*hours, kind=Kind.FUNDING)
    assert summary(fundings, levels)["max_hours_without_fill"] == 48.0


def compat(fills: np.ndarray, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "starting_balance": 1000.0,
        "start_ms": 0,
        "end_ms": 2 * DAY,
        "last_price": 100.0,
        "inverse": False,
    }
    return compat_summary(fills, **given | changes)


def test_compat_counts_the_losses_that_the_balance_floor_hides():
    def lost(*rows: dict[str, Any], **changes: Any) -> float:
        value = compat(records(*rows, dtype=COMPAT_FILL_DTYPE), **changes)["max_loss"]
        assert isinstance(value, float)
        return value

    # The balance stays at its floor; 3 at 100 are 30 under water at the re-entry's price 90.
    entry = rec(price=100, pos_size=1, pos_price=100, balance=1000)
    reentry = rec(price=90, pos_size=3, pos_price=100, balance=1000, pnl_plus_fees_cumsum=-70)
    close = rec(price=100, balance=1000, pnl_plus_fees_cumsum=200)
    assert lost() == lost(entry) == 0.0
    assert lost(entry, last_price=50.0) == pytest.approx(0.05)
    assert lost(entry, reentry, close) == pytest.approx(0.1)
    assert lost(entry, reentry, last_price=50.0) == pytest.approx(0.22)
    assert lost(entry, reentry, close, rec(price=1, pnl_plus_fees_cumsum=-5000)) == 1.0
    # 100 contracts bought at 100 are worth 2 coins, not 1, at 50.
    contracts = rec(price=100, pos_size=100, pos_price=100)
    coins = {"inverse": True, "starting_balance": 10.0, "last_price": 50.0}
    assert lost(contracts, **coins) == pytest.approx(0.1)


def test_what_compat_may_be_asked_for_losses_is_finite():
    for cumsum in (-math.inf, math.inf, math.nan, -1e308):
        fill = rec(price=100, pos_size=1e308, pos_price=1e3, pnl_plus_fees_cumsum=cumsum)
        fills = records(fill, dtype=COMPAT_FILL_DTYPE)
        with np.errstate(all="ignore"):
            figures = compat(fills)
        assert 0.0 <= figures["max_loss"] <= 1.0


def test_a_midnight_ends_the_day_before_it():
    def sharpe(start_ms: int) -> float:
        levels = flat_points(100, 50, 110, 50, 132, every_ms=DAY // 2, start_ms=start_ms)
        value = summary(records(), levels)["sharpe"]
        assert isinstance(value, float)
        return value

    # From a midnight: 100 -> 110 -> 132.
    for start_ms in (0, 20_000 * DAY):
        assert sharpe(start_ms) == pytest.approx(0.15 / (0.1 / math.sqrt(2)) * math.sqrt(365))
    # From 23:00, the next at 11:00: the first day holds the start alone, 100 -> 100 -> 110 -> 132.
    assert sharpe(DAY - HOUR) == pytest.approx(0.1 / 0.1 * math.sqrt(365))


def test_ratios_without_enough_to_go_by_are_zero():
    for levels in ([100.0, 120.0], [100.0, 100.0, 100.0]):
        figures = summary(records(), flat_points(*levels))
        assert figures["sharpe"] == figures["sortino"] == 0.0
    steady = summary(records(), flat_points(*(100 * 1.01**i for i in range(9))))
    assert steady["sharpe"] == 0.0  # no deviation but rounding
    assert steady["sortino"] == LARGEST  # no downside
    sinking = summary(records(), flat_points(*(100 * 0.99**i for i in range(9))))
    assert sinking["sharpe"] == 0.0
    assert sinking["sortino"] == pytest.approx(-math.sqrt(365))


def test_daily_gain_is_bounded():
    def daily(*equity: float, every_ms: int) -> float:
        value = summary(records(), flat_points(*equity, every_ms=every_ms))["average_daily_gain"]
        assert isinstance(value, float)
        return value

    assert daily(1000.0, 1012.0, every_ms=5) == LARGEST
    assert daily(1000.0, 900.0, every_ms=5) == 0.0
    assert daily(1000.0, 1012.0, every_ms=0) == 1.0
    assert daily(1000.0, -1.0, every_ms=0) == 0.0
    assert daily(1000.0, -1.0, every_ms=DAY) == 0.0
    assert daily(1000.0, 2000.0, every_ms=DAY // 2) == 4.0


def test_a_position_on_an_empty_wallet_uses_the_largest_margin():
    for wallet in (0.0, -5.0, 1e-300):
        fills = records(
            rec(ts_ms=0, kind=Kind.ENTRY, price=10, qty=1, pos_size=1, pos_price=10,
                 balance=wallet),
            rec(ts_ms=DAY, kind=Kind.CLOSE, price=10, qty=-1, balance=wallet),
        )  # fmt: skip
        figures = summary(fills, flat_points(10.0, 10.0, 10.0))
        assert figures["max_margin_use"] == LARGEST
        assert figures["mean_margin_use"] == LARGEST / 2


# Money in eighths adds up exactly in any order; often the same amounts and times, for ties.
amounts = st.one_of(
    st.sampled_from([-10.0, -1.0, 0.0, 0.5, 10.0]),
    st.integers(-80_000, 80_000).map(lambda k: k / 8),
)
shares = st.one_of(
    st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5]), st.integers(-500, 3000).map(lambda k: k / 1024)
)
steps_ms = st.one_of(
    st.sampled_from([0, 0, 1, HOUR, 8 * HOUR, DAY, 40 * DAY]), st.integers(0, 3 * DAY)
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Records and equity points of one span of time; consistent in time only."""
    start_ms = draw(st.sampled_from([0, DAY, 1_600_000_000_000, 1_600_041_600_000]))
    n = draw(st.integers(0, 12))
    ts_ms, rows = start_ms, []
    for _ in range(n):
        ts_ms += draw(steps_ms)
        kind = draw(st.sampled_from(list(Kind)))
        size = draw(st.sampled_from([-3.0, 0.0, 0.0, 1.5]))
        rows.append(
            rec(
                ts_ms=ts_ms,
                kind=kind,
                price=draw(st.floats(0.01, 1e5)),
                qty=0.0 if kind == Kind.FUNDING else draw(amounts),
                pos_size=size,
                pos_price=draw(st.floats(0.01, 1e5)) if size else 0.0,
                pnl=draw(amounts),
                fee=draw(amounts),
                balance=draw(amounts),
            )
        )
    end_ms = ts_ms + draw(steps_ms)
    balance = draw(st.sampled_from([1.0, 1000.0]))
    between = draw(st.lists(st.integers(start_ms, end_ms), max_size=12))
    times = [start_ms, *sorted([*between, *(row["ts_ms"] for row in rows)]), end_ms]
    equity = points(
        (start_ms, balance, balance),
        *((t, balance * draw(shares), balance * draw(shares)) for t in times[1:]),
    )
    given = {
        "starting_balance": balance,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "inverse": draw(st.booleans()),
        "leverage": draw(st.sampled_from([1.0, 3.3, 50.0])),
        "worst_open_loss": -1.0,
        "closest_liq": 0.5,
    }
    return records(*rows), equity, given


@given(runs())
def test_figures_equal_the_slow_twin(run):
    fills, equity, given = run
    rows = [dict(zip(RECORD_DTYPE.names, row, strict=True)) for row in fills.tolist()]
    for row in rows:
        row["kind"] = KIND_NAMES[row["kind"]]
    levels = [dict(zip(EQUITY_DTYPE.names, row, strict=True)) for row in equity.tolist()]
    slow = metrics_twin.figures(rows, levels, **given)
    fast = exact_summary(fills, equity, **given)
    assert fast.keys() == slow.keys()
    for name, value in fast.items():
        assert value == pytest.approx(slow[name], rel=1e-8, abs=1e-9), name
    assert_finite(fast)
    parts = fast["profit_sum"] + fast["loss_sum"] + fast["fee_sum"] + fast["funding_sum"]
    assert fast["net_pnl_plus_fees"] == pytest.approx(parts, rel=1e-9, abs=1e-6)
    assert 0.0 <= fast["max_loss"] <= fast["max_drawdown"] <= 1.0
    assert fast["max_hours_without_fill"] >= fast["max_n_hours_between_consec_trades"]
    assert 0.0 <= fast["exposure"] <= 1.0


nasty = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e-300, 1e300, -1e300]),
    st.floats(-1e300, 1e300),
)
nasty_ms = st.one_of(
    st.sampled_from([0, 1, DAY - 1, DAY, 50 * 365 * DAY]), st.integers(0, 10_000 * 365 * DAY)
)


@given(st.data())
def test_every_figure_is_finite_whatever_the_input(data):
    n = data.draw(st.integers(0, 6))
    times = sorted(data.draw(st.lists(nasty_ms, min_size=n + 2, max_size=n + 2)))
    fills = np.zeros(n, RECORD_DTYPE)
    fills["ts_ms"] = times[1:-1]
    for record in fills:
        record["kind"] = data.draw(st.sampled_from(list(Kind)))
        for name in MONEY:
            record[name] = data.draw(nasty)
    balance = data.draw(st.sampled_from([5e-324, 1e-300, 1.0, 1e300]))
    equity = points(
        (times[0], balance, balance),
        *((t, data.draw(nasty), data.draw(nasty)) for t in times[1:]),
    )
    figures = summary(
        fills,
        equity,
        inverse=data.draw(st.booleans()),
        leverage=data.draw(st.sampled_from([1e-3, 1.0, 125.0])),
        worst_open_loss=-1e300,
        closest_liq=0.0,
    )
    assert_finite(figures)
