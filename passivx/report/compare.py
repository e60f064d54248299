"""Why two engines part: the original's result beside the exact one, cause by cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from passivx._core.types import Kind
from passivx.report.metrics import MS_PER_HOUR, open_pnl_at
from passivx.report.render import number

__all__ = ["Cause", "Ran", "as_dicts", "causes_of_difference", "causes_table"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause: ``amount`` (settle currency) is what it adds to the exact result.

    ``amount`` is None for what shows in the other causes and cannot be told apart from them.
    """

    name: str
    amount: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A run to compare: its records, and how, when and at which price it ended.

    ``fills`` are of COMPAT_FILL_DTYPE or FILL_DTYPE, ``duration_ms`` counts from the first tick.
    """

    fills: npt.NDArray[np.void]
    outcome: str
    last_price: float
    duration_ms: int


def causes_of_difference(
    compat: Ran, exact: Ran, *, starting_balance: float, inverse: bool
) -> list[Cause]:
    """Itemise (final equity of ``exact`` − starting balance) − (net pnl and fees of ``compat``).

    Both runs are on the same ticks and config.

    Returns
    -------
    list of Cause
        The amounts of fees, funding, open position and realised pnl add up to the difference, which
        comes last under the name 'in all'. Balance floor and multi-level fills have no amount: they
        are why the realised pnl differs. If a run ended early, 'ended early' comes first: then the
        two cover different times.
    """
    compat_fills, exact_fills = compat.fills, exact.fills
    kind = exact_fills["kind"]
    funded = kind == Kind.FUNDING
    fees = float(exact_fills["fee"].sum() - compat_fills["fee"].sum())
    funding = float(exact_fills["pnl"][funded].sum())
    open_exact = _open(exact, inverse)
    open_compat = _open(compat, inverse)
    realised = float(exact_fills["pnl"][~funded].sum() - compat_fills["pnl"].sum())
    hidden = _hidden_by_floor(compat_fills, starting_balance)
    shared = _fills_on_shared_prints(exact_fills[~funded])
    early = {run.outcome for run in (compat, exact)} != {"end"}
    ended = Cause(
        "ended early",
        None,
        f"exact: {_end_of(exact)}; compat: {_end_of(compat)}: compare with care",
    )
    return [
        *([ended] if early else []),
        Cause(
            "fees",
            fees,
            f"{number(_total(exact_fills['fee']), 6)} in exact (market stops and liquidations pay "
            f"the taker's), {number(_total(compat_fills['fee']), 6)} in compat, which "
            "pays the maker's for everything",
        ),
        Cause("funding", funding, f"{int(funded.sum())} settlements; compat knows none"),
        Cause(
            "open position",
            open_exact,
            f"counted at the last price; compat leaves its own, {number(open_compat, 6)}, out",
        ),
        Cause(
            "realised pnl",
            realised,
            f"{int((~funded).sum())} fills instead of {len(compat_fills)}: latency, post-only, the "
            "venue's liquidation, every level a print crosses, sizes from the true balance",
        ),
        Cause(
            "balance floor",
            None,
            f"compat sized its last orders as if {number(hidden, 6)} of losses had not happened",
        ),
        Cause(
            "multi-level fills",
            None,
            f"{shared} fills came with another on the same print; compat takes one a print",
        ),
        Cause("in all", fees + funding + open_exact + realised, "exact − compat"),
    ]


def causes_table(causes: list[Cause]) -> Table:
    """Return the causes as a table, amounts in settle currency."""
    table = Table("why exact differs", "amount", "how")
    table.columns[1].justify = "right"
    for cause in causes:
        amount = "" if cause.amount is None else number(cause.amount, 6)
        table.add_row(cause.name, amount, cause.detail)
    return table


def _total(values: npt.NDArray[np.float64]) -> float:
    return float(values.sum())


def _open(run: Ran, inverse: bool) -> float:
    if not len(run.fills):
        return 0.0
    return float(open_pnl_at(run.fills[-1:], np.array([run.last_price]), inverse=inverse)[0])


def _end_of(run: Ran) -> str:
    return f"{run.outcome.replace('_', ' ')} after {number(run.duration_ms / MS_PER_HOUR, 4)} h"


def _hidden_by_floor(fills: npt.NDArray[np.void], starting_balance: float) -> float:
    if not len(fills):
        return 0.0
    true_balance = starting_balance + float(fills["pnl_plus_fees_cumsum"][-1])
    return max(0.0, float(fills["balance"][-1]) - true_balance)


def _fills_on_shared_prints(fills: npt.NDArray[np.void]) -> int:
    # A market stop is counted at the print before it, but comes in a millisecond of its own.
    same = (np.diff(fills["tick"]) == 0) & (np.diff(fills["ts_ms"]) == 0)
    return int(np.count_nonzero(np.append(same, False) | np.append(False, same)))


def as_dicts(causes: list[Cause]) -> list[dict[str, Any]]:
    """Return the causes as plain dicts, for JSON."""
    return [{"cause": c.name, "amount": c.amount, "detail": c.detail} for c in causes]
