"""Why two engines part: each cause by hand, and that they add up."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from passivx._core.compat import COMPAT_FILL_DTYPE
from passivx._core.types import FILL_DTYPE, Kind
from passivx.report.compare import Cause, Ran, as_dicts, causes_of_difference, causes_table

NAMES = ["fees", "funding", "open position", "realised pnl", "balance floor", "multi-level fills",
         "in all"]  # fmt: skip


def table(dtype: np.dtype[np.void], *rows: dict[str, Any]) -> np.ndarray:
    out = np.zeros(len(rows), dtype)
    for record, row in zip(out, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return out


# compat buys 2 at 100 and sells 1 at 110, fee 0.1 % each: 1 is left at 100. Its last balance is
# 1000 although 1000 + 10 - 0.31 = 1009.69 are there.
COMPAT: list[dict[str, Any]] = [
    {"tick": 3, "kind": Kind.ENTRY, "price": 100.0, "qty": 2.0, "pos_size": 2.0,
     "pos_price": 100.0, "fee": -0.2, "balance": 1000.0, "pnl_plus_fees_cumsum": -0.2},
    {"tick": 9, "kind": Kind.CLOSE, "price": 110.0, "qty": -1.0, "pos_size": 1.0,
     "pos_price": 100.0, "pnl": 10.0, "fee": -0.11, "balance": 1009.69,
     "pnl_plus_fees_cumsum": 9.69},
]  # fmt: skip
# exact buys 1 at 100, pays 0.5 of funding, adds 3 at 98 on the print of a close, and stops 1 at 90.
EXACT: list[dict[str, Any]] = [
    {"tick": 4, "kind": Kind.ENTRY, "price": 100.0, "qty": 1.0, "pos_size": 1.0,
     "pos_price": 100.0, "fee": -0.1},
    {"tick": 4, "kind": Kind.FUNDING, "price": 100.0, "pos_size": 1.0, "pos_price": 100.0,
     "pnl": -0.5},
    {"tick": 7, "kind": Kind.REENTRY, "price": 98.0, "qty": 2.0, "pos_size": 3.0,
     "pos_price": 98.67, "fee": -0.2},
    {"tick": 7, "kind": Kind.REENTRY, "price": 96.0, "qty": 1.0, "pos_size": 4.0,
     "pos_price": 98.0, "fee": -0.1},
    {"tick": 9, "kind": Kind.STOP_LOSS_POS_PRICE_DIFF, "price": 90.0, "qty": -1.0,
     "pos_size": 3.0, "pos_price": 98.0, "pnl": -8.0, "fee": -0.05},
]  # fmt: skip


def causes(
    compat: list[dict[str, Any]],
    exact: list[dict[str, Any]],
    *,
    inverse: bool = False,
    last_price: float = 95.0,
    compat_price: float = 95.0,
    outcomes: tuple[str, str] = ("end", "end"),
) -> dict[str, Cause]:
    found = causes_of_difference(
        Ran(table(COMPAT_FILL_DTYPE, *compat), outcomes[0], compat_price, 7_200_000),
        Ran(table(FILL_DTYPE, *exact), outcomes[1], last_price, 900_000),
        starting_balance=1000.0,
        inverse=inverse,
    )
    names = NAMES if outcomes == ("end", "end") else ["ended early", *NAMES]
    assert [cause.name for cause in found] == names
    return {cause.name: cause for cause in found}


def test_each_cause_by_hand() -> None:
    found = causes(COMPAT, EXACT)
    amounts = {name: cause.amount for name, cause in found.items()}
    assert amounts == {
        "fees": pytest.approx(-0.45 - -0.31),
        "funding": -0.5,
        "open position": -9.0,  # 3 × (95 - 98)
        "realised pnl": -18.0,  # -8 - 10
        "balance floor": None,
        "multi-level fills": None,
        "in all": pytest.approx(-0.14 - 0.5 - 9 - 18),
    }
    assert "-0.45 in exact" in found["fees"].detail
    assert "-0.31 in compat" in found["fees"].detail
    assert found["funding"].detail.startswith("1 settlements")
    assert "-5, out" in found["open position"].detail  # compat's 1 at 100
    assert "4 fills instead of 2" in found["realised pnl"].detail
    assert "as if 0 of losses" in found["balance floor"].detail
    assert found["multi-level fills"].detail.startswith("2 fills")  # the funding is none


def test_the_floor_hides_what_the_true_balance_lacks() -> None:
    # The last balance compat sized by is 1000; the true one 1000 - 250.
    hidden = [COMPAT[0] | {"balance": 1000.0, "pnl_plus_fees_cumsum": -250.0}]
    assert "as if 250 of losses" in causes(hidden, EXACT)["balance floor"].detail
    assert "as if 0 of losses" in causes([], EXACT)["balance floor"].detail


def test_runs_that_covered_different_times_say_so() -> None:
    found = causes(COMPAT, EXACT, compat_price=120.0, outcomes=("end", "long_liquidation"))
    assert found["ended early"].amount is None
    detail = found["ended early"].detail
    assert "exact: long liquidation after 0.25 h; compat: end after 2 h" in detail
    # Each position is worth what it was where its own run ended.
    assert found["open position"].amount == -9.0
    assert "its own, 20, out" in found["open position"].detail


def test_a_market_stop_is_not_on_the_print_before_it() -> None:
    stop = [EXACT[0], EXACT[-1] | {"tick": 4, "ts_ms": 100}]
    assert causes([], stop)["multi-level fills"].detail.startswith("0 fills")


def test_an_inverse_position_is_counted_in_coin() -> None:
    held = [{"kind": Kind.ENTRY, "qty": -300.0, "pos_size": -300.0, "pos_price": 100.0}]
    found = causes([], held, inverse=True, last_price=75.0)
    # -300 × (1 / 100 - 1 / 75)
    assert found["open position"].amount == pytest.approx(1.0)
    assert found["in all"].amount == found["open position"].amount


def test_two_runs_without_fills_do_not_differ() -> None:
    found = causes([], [])
    assert {cause.amount for cause in found.values()} <= {0.0, None}


money = st.floats(-1e6, 1e6)


@given(
    st.lists(st.tuples(money, money), max_size=8),
    st.lists(st.tuples(money, money, st.booleans()), max_size=8),
    st.floats(0.01, 1e6),
)
def test_the_amounts_add_up(
    compat: list[tuple[float, float]], exact: list[tuple[float, float, bool]], last: float
) -> None:
    ours = [{"pnl": pnl, "fee": fee, "kind": Kind.CLOSE} for pnl, fee in compat]
    theirs = [
        {"pnl": pnl, "fee": 0.0 if funded else fee, "pos_size": 2.0, "pos_price": 10.0,
         "kind": Kind.FUNDING if funded else Kind.CLOSE}
        for pnl, fee, funded in exact
    ]  # fmt: skip
    found = causes(ours, theirs, last_price=last)
    parts = [found[name].amount for name in NAMES[:4]]
    total = found["in all"].amount
    assert None not in parts
    assert total == pytest.approx(sum(x for x in parts if x is not None), abs=1e-6)
    equity = sum(row["pnl"] + row["fee"] for row in theirs) + (2 * (last - 10) if theirs else 0.0)
    net = sum(pnl + fee for pnl, fee in compat)
    assert total == pytest.approx(equity - net, rel=1e-9, abs=1e-6)


def test_as_dicts_and_as_a_table() -> None:
    found = list(causes(COMPAT, EXACT).values())
    rows = as_dicts(found)
    assert [list(row) for row in rows] == [["cause", "amount", "detail"]] * 7
    assert rows[1]["cause"] == "funding"
    assert rows[1]["amount"] == -0.5
    screen = Console(width=200, record=True, file=io.StringIO())
    screen.print(causes_table(found))
    text = screen.export_text()
    for name in NAMES:
        assert name in text
    assert "-27.64" in text
    assert "None" not in text
