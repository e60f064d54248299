"""What a candidate is judged by: every limit has its figure, and a bound itself is kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from passivx import backtest_flat
from passivx._core.exact import LIMITS_DTYPE
from passivx.backtesting import Trial
from passivx.optimizer.criteria import DONE, OBJECTIVES, Criteria, Limit, read_limits
from tests.test_backtesting import SETTINGS, make_ticks

# Every limit of docs/optimize.md, and the figure of docs/backtest.md that it bounds.
FIGURES = {
    "max_drawdown": "max_drawdown",
    "min_closest_liq": "closest_liq",
    "max_hours_between_fills": "max_hours_without_fill",
    "max_loss": "max_loss",
    "min_adg": "average_daily_gain",
    "min_gain": "gain",
    "min_sharpe": "sharpe",
    "min_sortino": "sortino",
    "min_n_trades": "n_trades",
    "max_drawdown_hours": "max_drawdown_hours",
    "max_loss_profit_ratio": "loss_profit_ratio",
    "max_n_stop_losses": "n_stop_losses",
    "max_exposure": "exposure",
    "max_margin_use": "max_margin_use",
}
CORE = ("max_drawdown", "min_closest_liq", "max_hours_between_fills", "max_loss", "min_adg")


@pytest.fixture(scope="module")
def summaries() -> dict[str, dict[str, Any]]:
    """What the engines really say of a run with a few fills."""
    ticks = make_ticks(*[(101.0, 0), (100.0, 1), (99.0, 1), (89.0, 1), (101.0, 0), (102.0, 0)] * 3)
    settings = SETTINGS | {"max_order_distance": 1.0}
    return {e: backtest_flat(ticks, settings, engine=e).summary for e in ("exact", "compat")}


def messages(given: object, engine: str = "exact") -> list[str]:
    problems = read_limits(given, engine)[1]
    assert problems
    return [str(problem) for problem in problems]


# --- limits


def test_all_documented_limits_are_read() -> None:
    limits, problems = read_limits(dict.fromkeys(FIGURES, 0.5), "exact")
    assert problems == []
    assert limits == tuple(Limit(name, 0.5) for name in FIGURES)
    assert read_limits({}, "exact") == ((), [])
    assert read_limits({"max_loss": np.float64(0.5)}, "exact")[0] == (Limit("max_loss", 0.5),)


@pytest.mark.parametrize("engine", ["exact", "compat"])
@pytest.mark.parametrize("name", FIGURES)
def test_a_limit_bounds_a_figure_that_the_engine_has(
    summaries: dict[str, dict[str, Any]], name: str, engine: str
) -> None:
    summary = summaries[engine]
    assert summary["n_trades"] > 1
    limits, problems = read_limits({name: 1.0}, engine)
    # Refused is what the engine has no figure for, and nothing else.
    assert bool(problems) == (FIGURES[name] not in summary)
    if problems:
        assert "is for the exact engine" in problems[0].message
        return
    assert limits == (Limit(name, 1.0),)
    figure = float(summary[FIGURES[name]])
    better, worse = (-math.inf, math.inf) if name.startswith("max_") else (math.inf, -math.inf)
    # At the bound is within it; the next number beyond is not.
    assert not Limit(name, figure).broken_by(summary)
    assert not Limit(name, math.nextafter(figure, worse)).broken_by(summary)
    assert Limit(name, math.nextafter(figure, better)).broken_by(summary)


def test_min_adg_may_begin_later() -> None:
    assert read_limits({"min_adg": [1.005, 0.3]}, "exact") == ((Limit("min_adg", 1.005, 0.3),), [])
    assert read_limits({"min_adg": (1, 0)}, "exact") == ((Limit("min_adg", 1.0, 0.0),), [])
    assert read_limits({"min_adg": 1.005}, "exact") == ((Limit("min_adg", 1.005, 1.0),), [])
    assert read_limits({"min_adg": [1.005, 1]}, "compat")[0] == (Limit("min_adg", 1.005, 1.0),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_drawdwn": 0.1}, "limits.max_drawdwn: is no limit, was 0.1; one of min_gain"),
        ({"max_loss": None}, "limits.max_loss: must be a finite number, was 'null'"),
        ({"max_loss": True}, "limits.max_loss: must be a finite number"),
        ({"max_loss": "0.1"}, "limits.max_loss: must be a finite number"),
        ({"max_loss": math.nan}, "limits.max_loss: must be a finite number"),
        ({"max_loss": [0.1, 0.5]}, "limits.max_loss: must be a finite number"),
        ({"min_adg": [1.0]}, "or [bound, from which share of the run on]"),
        ({"min_adg": [1.0, 0.5, 0.5]}, "or [bound, from which share of the run on]"),
        ({"min_adg": ["1", 0.5]}, "or [bound, from which share of the run on]"),
        ({"min_adg": [1.0, 1.5]}, "must begin at a share in [0, 1]"),
        ({"min_adg": [1.0, -0.1]}, "must begin at a share in [0, 1]"),
        ({"min_adg": [1.0, None]}, "must begin at a share in [0, 1]"),
        (None, "limits: must be an object { ... }, was 'null'; such as"),
        ([["max_loss", 0.1]], "limits: must be an object { ... }"),
        ("max_loss", "limits: must be an object { ... }"),
    ],
)
def test_wrong_limits(given: object, message: str) -> None:
    (problem,) = messages(given)
    assert message in problem


def test_all_wrong_limits_are_named_and_the_good_ones_kept() -> None:
    limits, problems = read_limits({"max_loss": 0.1, "x": 1, "min_gain": "y"}, "exact")
    assert limits == (Limit("max_loss", 0.1),)
    assert [problem.field for problem in problems] == ["limits.x", "limits.min_gain"]


# --- what the core is told


def test_the_core_knows_no_limit_unless_there_is_one() -> None:
    (record,) = Criteria("adg").record()
    assert record.dtype == LIMITS_DTYPE
    assert record.tolist() == (math.inf, -math.inf, math.inf, math.inf, -math.inf, 1.0)
    for name in set(FIGURES) - set(CORE):  # judged in the end
        assert Criteria("adg", (Limit(name, 0.5),)).record().tolist() == [record.tolist()]


@pytest.mark.parametrize("name", CORE)
def test_the_core_ends_runs_by_what_can_only_get_worse(name: str) -> None:
    (record,) = Criteria("adg", (Limit("min_gain", 2.0), Limit(name, 0.25))).record()
    others = dict(zip(LIMITS_DTYPE.names or (), record.tolist(), strict=True))
    assert others.pop(name) == 0.25
    assert others.pop("min_adg_from") == 1.0
    assert all(math.isinf(bound) for bound in others.values())


def test_the_core_is_told_from_when_on_min_adg_counts() -> None:
    (record,) = Criteria("adg", (Limit("min_adg", 1.005, 0.3), Limit("max_loss", 0.1))).record()
    assert (record["min_adg"], record["min_adg_from"], record["max_loss"]) == (1.005, 0.3, 0.1)


# --- status


GOOD = {"gain": 1.5, "n_trades": 20, "max_loss": 0.2, "average_daily_gain": 1.01}


def test_a_trial_that_ended_early_says_why_itself() -> None:
    criteria = Criteria("adg", (Limit("min_gain", 2.0),))
    for outcome in ("limit:max_loss", "break:my rule", "long_liquidation", "killed"):
        # What broke a limit besides does not count: it is judged on what was played.
        assert criteria.status(Trial(outcome, GOOD)) == outcome
    assert criteria.status(Trial("killed", {})) == "killed"


def test_the_first_broken_limit_in_the_order_given_is_the_status() -> None:
    min_gain, max_loss, n = Limit("min_gain", 2.0), Limit("max_loss", 0.1), Limit("min_n_trades", 5)
    for limits, status in (
        ((), DONE),
        ((n,), DONE),
        ((n, min_gain, max_loss), "limit:min_gain"),
        ((n, max_loss, min_gain), "limit:max_loss"),
        ((Limit("min_adg", 1.02, 0.5),), "limit:min_adg"),
        ((Limit("min_adg", 1.01),), DONE),
    ):
        assert Criteria("adg", limits).status(Trial("end", GOOD)) == status


# --- objectives


def test_objectives_have_their_figures(summaries: dict[str, dict[str, Any]]) -> None:
    assert set(OBJECTIVES) == {"adg", "gain", "sharpe", "sortino"}
    for name, (figure, _) in OBJECTIVES.items():
        assert Criteria(name).score(summaries["exact"]) == summaries["exact"][figure]
    for name in ("adg", "gain"):
        figure = OBJECTIVES[name][0]
        assert Criteria(name).score(summaries["compat"]) == summaries["compat"][figure]


def test_scores_are_finite_and_plain_floats() -> None:
    largest = np.finfo(float).max
    for figure, score in ((math.inf, largest), (-math.inf, -largest), (np.float64(1.5), 1.5)):
        found = Criteria("adg").score({"average_daily_gain": figure})
        assert found == score
        assert type(found) is float
    assert Criteria("gain").score({"gain": 2}) == 2.0


def test_the_advantage_is_over_doing_nothing() -> None:
    assert Criteria("adg").advantage(1.25) == 0.25
    assert Criteria("gain").advantage(0.5) == -0.5
    assert Criteria("sharpe").advantage(1.25) == 1.25
    assert Criteria("sortino").advantage(-1.0) == -1.0


def test_doing_nothing_has_no_advantage() -> None:
    # Prints at one price: nothing crosses an order.
    ticks = make_ticks(*[(100.0, 0), (100.0, 1), (101.0, 0), (100.0, 1)])
    for engine, names in (("exact", tuple(OBJECTIVES)), ("compat", ("gain", "adg"))):
        quiet = SETTINGS | {"do_long": False, "do_shrt": False}
        summary = backtest_flat(ticks, quiet, engine=engine).summary
        assert summary["n_trades"] == 0
        for name in names:
            criteria = Criteria(name)
            assert criteria.advantage(criteria.score(summary)) == 0.0
