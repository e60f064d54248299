"""Limits that end an exact run early, and many runs in one call.

A run with limits must be the run without them, cut after the first equity point at which a figure
that the twin computes from the whole run is worse than its limit. A failure names its seed.
"""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from passivx._core import exact
from passivx._core.exact import EXACT_DTYPE, LIMITS_DTYPE, Outcome
from passivx._core.types import FUNDING_DTYPE, Kind
from passivx.breaks import compile_break_on
from passivx.report.metrics import exact_summary
from tests.core.exact_scenarios import draw
from tests.reference.exact_door import to_settings
from tests.reference.exact_twin import Scenario
from tests.reference.limits_twin import NAMES, Look, first_broken, looks

BLOCK = 25
BLOCKS = 8
NONE = {
    "max_drawdown": math.inf, "min_closest_liq": -math.inf, "max_hours_between_fills": math.inf,
    "max_loss": math.inf, "min_adg": -math.inf, "min_adg_from": 1.0,
}  # fmt: skip
ALWAYS = compile_break_on([["ON: always", "lambda trades, ticks, k: True"]]).program

Answer = tuple[Any, ...]


def record(**limits: float) -> npt.NDArray[np.void]:
    return np.array([tuple((NONE | limits).values())], LIMITS_DTYPE)


def columns(s: Scenario) -> tuple[Any, ...]:
    return s.price, s.qty, s.ts_ms, s.buyer_maker


def venue(s: Scenario) -> tuple[Any, ...]:
    return s.tiers, np.asarray(s.funding, FUNDING_DTYPE)


def run(s: Scenario, **how: Any) -> Answer:
    return exact.run(*columns(s), to_settings(s), *venue(s), **how)


def comparable(answer: Answer) -> Answer:
    return answer[0].tobytes(), answer[1].tobytes(), *answer[2:]


def rows(fills: npt.NDArray[np.void]) -> list[dict[str, Any]]:
    return [dict(zip(fills.dtype.names or (), row, strict=True)) for row in fills.tolist()]


def looks_of(s: Scenario, whole: Answer) -> list[Look]:
    return list(looks(s, rows(whole[0]), whole[1].tolist()))


def compare(s: Scenario, whole: Answer, some: list[Look], limits: dict[str, float]) -> Answer:
    """Assert that the run with limits is the whole one cut where the twin says; return it."""
    got = run(s, limits=record(**limits), chunk=1 + len(some) % 700)
    want = first_broken(some, NONE | limits)
    if want is None:
        assert comparable(got) == comparable(whole)
        return got
    at, which = want
    fills, equity, outcome, broken_by, n_played, worst_open_loss, closest_liq = got
    assert (outcome, broken_by) == (Outcome.LIMIT, which)
    assert equity.tobytes() == whole[1][: at + 1].tobytes()
    assert fills.tobytes() == whole[0][: some[at].n_records].tobytes()
    assert n_played == some[at].n_prints
    assert closest_liq == some[at].figures["min_closest_liq"]
    assert worst_open_loss <= 0.0
    return got


def levels_near(rng: np.random.Generator, name: str, some: list[Look]) -> list[float]:
    """Limits about what the run reached: just kept, just broken, and somewhere on the way."""
    reached = [look.figures[name] for look in some]
    values = [x for x in reached if x is not None]
    if not values:
        return []
    worst = min(values) if name.startswith("min_") else max(values)
    on_the_way = values[int(rng.integers(len(values)))]
    return [
        worst,
        just_broken(name, worst),
        on_the_way,
        just_broken(name, on_the_way),
        worst * float(rng.uniform(0.5, 1.5)),
    ]


def just_broken(name: str, figure: float) -> float:
    return math.nextafter(figure, math.inf if name.startswith("min_") else -math.inf)


def all_broken_at(some: list[Look], i: int) -> dict[str, float]:
    """Limits that point i is the first to break, or nearly: as many as there are."""
    out = {"min_adg_from": some[i].share if some[i].share >= 0.0 else 0.0}
    for name, figure in some[i].figures.items():
        if figure is not None:
            limit = {name: just_broken(name, figure)}
            if first_broken(some[:i], NONE | out | limit) is None:
                out |= limit
    return out


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_limited_run_is_the_whole_one_cut_at_the_first_point_that_breaks(block: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        rng = np.random.default_rng([seed, 22])
        s = draw(seed)
        whole = run(s)
        some = looks_of(s, whole)
        near = {name: levels_near(rng, name, some) for name in NAMES}
        cases = [{name: level} for name in NAMES for level in near[name]]
        for share in (0.0, 0.3, 0.999):
            cases += [{"min_adg": level, "min_adg_from": share} for level in near["min_adg"]]
        for _ in range(10):  # several at once
            chosen = [name for name in NAMES if near[name] and rng.random() < 0.5]
            cases.append({name: float(rng.choice(near[name])) for name in chosen})
            cases[-1]["min_adg_from"] = float(rng.random())
            cases.append(all_broken_at(some, int(rng.integers(len(some)))))
        try:
            for limits in cases:
                got = compare(s, whole, some, limits)
                seen["kept" if got[2] != Outcome.LIMIT else NAMES[got[3]]] += 1
                seen["tie"] += breaks_several(some, limits)
        except Exception as e:
            e.add_note(f"seed {seed}, limits {limits}")
            raise
        seen["inverse"] += int(s.market["inverse"][0])
        seen["funding"] += int((whole[0]["kind"] == Kind.FUNDING).any())
        seen["liquidation"] += whole[2] == Outcome.LIQUIDATION
    few = [name for name in (*NAMES, "kept", "tie") if seen[name] < BLOCK]
    few += [name for name in ("inverse", "funding", "liquidation") if seen[name] < 2]
    assert not few, f"the random runs hardly reach {few}: this proves little"


def breaks_several(some: list[Look], limits: dict[str, float]) -> bool:
    """Does the point that ends the run break more than one limit?"""
    want = first_broken(some, NONE | limits)
    if want is None:
        return False
    return sum(some[want[0]].breaks(name, NONE | limits) for name in NAMES) > 1


@pytest.mark.parametrize("block", range(4))
def test_limits_hold_the_very_figures_of_the_summary(block: int) -> None:
    names = {
        "max_drawdown": "max_drawdown", "min_closest_liq": "closest_liq",
        "max_hours_between_fills": "max_hours_without_fill", "max_loss": "max_loss",
    }  # fmt: skip
    ended: Counter[str] = Counter()

    def figures(s: Scenario, answer: Answer) -> dict[str, float]:
        fills, equity, _, _, _, worst_open_loss, closest_liq = answer
        return exact_summary(
            fills, equity, starting_balance=s.starting_balance, start_ms=int(s.ts_ms[0]),
            end_ms=int(equity["ts_ms"][-1]), inverse=bool(s.market["inverse"][0]),
            leverage=s.venue_leverage, worst_open_loss=worst_open_loss, closest_liq=closest_liq,
        )  # fmt: skip

    for seed in range(2000 + block * BLOCK, 2000 + (block + 1) * BLOCK):
        s = draw(seed)
        whole = run(s)
        reached = figures(s, whole)
        # What the whole run keeps ends none of its parts.
        kept = {limit: reached[figure] for limit, figure in names.items()}
        assert comparable(run(s, limits=record(**kept))) == comparable(whole), f"seed {seed}"
        # What ends a part is a figure of that part, and so it is of the whole run.
        for limit, figure in names.items():
            at = kept[limit]
            at = (at + 0.01) * 1.5 if limit == "min_closest_liq" else at * 0.7
            part = run(s, limits=record(**{limit: at}))
            if part[2] == Outcome.LIMIT:
                ended[limit] += 1
                broken = figures(s, part)[figure]
                for value in (broken, reached[figure]):
                    assert value < at if limit == "min_closest_liq" else value > at, f"seed {seed}"
    assert min(ended[limit] for limit in names) >= 5, ended


def test_fundings_are_no_fills() -> None:
    # A first entry, then fundings only.
    for seed in range(400):
        s = draw(seed)
        whole = run(s)
        kinds = whole[0]["kind"].tolist()
        fundings = [i for i, kind in enumerate(kinds) if kind == Kind.FUNDING]
        after = [i for i in fundings if whole[0]["ts_ms"][i] > whole[0]["ts_ms"][i - 1]]
        if not after:
            continue
        i = after[0]
        fills = [j for j in range(i) if kinds[j] != Kind.FUNDING]
        hours = int(whole[0]["ts_ms"][i] - whole[0]["ts_ms"][fills[-1]]) / 3_600_000
        got = run(s, limits=record(max_hours_between_fills=math.nextafter(hours, 0.0)))
        assert got[2] == Outcome.LIMIT
        assert len(got[0]) <= i + 1
        break
    else:
        pytest.fail("no run with a funding")


def test_a_gap_counts_when_the_fill_that_ends_it_arrives() -> None:
    # Within an hour there are no points but those of records.
    for seed in range(400):
        s = draw(seed)
        fills, equity = run(s)[:2]
        if len(fills) > 1 and len(equity) == len(fills) + 2:
            break
    gap_ms = int(fills["ts_ms"][0] - s.ts_ms[0])
    got = run(s, limits=record(max_hours_between_fills=math.nextafter(gap_ms / 3_600_000, 0.0)))
    assert gap_ms > 0
    assert (got[2], got[3], len(got[0])) == (Outcome.LIMIT, 2, 1)


def one_millisecond(s: Scenario) -> Scenario:
    return replace(s, ts_ms=np.full(len(s.ts_ms), s.ts_ms[0]))


def one_print(s: Scenario) -> Scenario:
    return replace(s, **{
        name: np.ascontiguousarray(getattr(s, name)[:1])
        for name in ("price", "qty", "ts_ms", "buyer_maker")
    })  # fmt: skip


@pytest.mark.parametrize("shorten", [one_print, one_millisecond])
def test_runs_in_which_no_time_passes(shorten: Any) -> None:
    for seed in range(20):
        s = shorten(draw(seed))
        whole = run(s)
        some = looks_of(s, whole)
        tight = {
            "max_drawdown": 0.0, "min_closest_liq": 1.0, "max_hours_between_fills": 0.0,
            "max_loss": 0.0, "min_adg": math.inf, "min_adg_from": 0.0,
        }  # fmt: skip
        for limits in ({}, {"min_adg": math.inf, "min_adg_from": 0.0}, tight):
            compare(s, whole, some, limits)


@pytest.mark.parametrize(
    ("limits", "which"),
    [
        ({"max_drawdown": -0.1}, 0),
        ({"min_closest_liq": 1.1}, 1),
        ({"max_hours_between_fills": -0.1}, 2),
        ({"max_loss": -0.1}, 3),
        ({"max_loss": -0.1, "max_hours_between_fills": -1.0}, 2),
        ({"max_loss": -0.1, "min_closest_liq": 2.0, "max_drawdown": -math.inf}, 0),
    ],
)
def test_what_the_start_breaks_ends_the_run_before_its_first_print(limits: Any, which: int) -> None:
    called: list[int] = []
    fills, equity, *rest = run(draw(1), limits=record(**limits), progress=called.append)
    assert (len(fills), len(equity), called) == (0, 1, [])
    assert rest == [Outcome.LIMIT, which, 0, 0.0, 1.0]


def test_a_limit_is_looked_at_before_the_conditions_of_a_record() -> None:
    s = next(s for s in map(draw, range(100)) if len(run(s)[0]) > 3)
    broken = run(s, breaks=ALWAYS)
    assert (broken[2], broken[3], len(broken[0])) == (Outcome.BREAK, 0, 1)
    kept = run(s, breaks=ALWAYS, limits=record())
    assert comparable(kept) == comparable(broken)
    point = looks_of(s, run(s))[len(broken[1]) - 1]
    hours = point.figures["max_hours_between_fills"]
    assert hours is not None
    ended = run(s, breaks=ALWAYS, limits=record(max_hours_between_fills=math.nextafter(hours, -1)))
    assert ended[2:4] == (Outcome.LIMIT, 2)


def test_a_liquidation_keeps_its_outcome() -> None:
    n = 0
    for seed in range(300):
        s = draw(seed)
        whole = run(s)
        if whole[2] != Outcome.LIQUIDATION:
            continue
        some = looks_of(s, whole)
        # The last print before it may come as near, not less than 0.
        for limits in ({"min_closest_liq": 0.0}, {"max_loss": 1.0}, {"max_drawdown": 1.0}):
            n += compare(s, whole, some, limits)[2] == Outcome.LIQUIDATION
    assert n > 30


@pytest.mark.parametrize("name", LIMITS_DTYPE.names)
def test_nan_is_no_limit(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number, was nan"):
        run(draw(0), limits=record(**{name: math.nan}))
    with pytest.raises(ValueError, match=f"{name} must be a number, was nan"):
        many(draw(0), to_settings(draw(0)), limits=record(**{name: math.nan}))


@pytest.mark.parametrize("n", [0, 2])
def test_limits_are_one_record(n: int) -> None:
    with pytest.raises(ValueError, match="limits must be one record"):
        run(draw(0), limits=np.zeros(n, LIMITS_DTYPE))


# --- many runs --------------------------------------------------------------------------------


def many(s: Scenario, candidates: npt.NDArray[np.void], **how: Any) -> list[Answer]:
    return list(exact.run_many(*columns(s), candidates, *venue(s), **how))


def random_candidates(seed: int, n: int) -> tuple[Scenario, npt.NDArray[np.void]]:
    """A scenario, and what other scenarios would do in its market."""
    rng = np.random.default_rng([seed, 23])
    s = draw(seed)
    out = np.repeat(to_settings(s), n)
    for i in range(1, n):
        other = to_settings(draw(int(rng.integers(10_000))))
        for name in ("strategy", "flow", "ema_span", "latency_ms", "fill_mode", "queue_share"):
            if rng.random() < 0.5:
                out[name][i : i + 1] = other[name]
    return s, out


def one_by_one(s: Scenario, candidates: npt.NDArray[np.void], **how: Any) -> list[Answer]:
    return [
        comparable(exact.run(*columns(s), candidates[i : i + 1], *venue(s), **how))
        for i in range(len(candidates))
    ]


def test_many_runs_are_each_run() -> None:
    different = 0
    for seed in range(30):
        s, candidates = random_candidates(seed, 6)
        for how in (
            {},
            {"limits": record(max_drawdown=0.02, max_hours_between_fills=5.0), "chunk": 300},
            {"breaks": ALWAYS},
        ):
            want = one_by_one(s, candidates, **how)
            got = [comparable(answer) for answer in many(s, candidates, **how)]
            assert got == want, f"seed {seed}"
            different += len({answer[0] for answer in want})
    assert different > 150, "the candidates hardly differ: this proves little"


def test_threads_may_run_many_side_by_side() -> None:
    s, candidates = random_candidates(2, 40)
    want = one_by_one(s, candidates)
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(many, s, candidates) for _ in range(2)]
        for half in halves:
            assert [comparable(answer) for answer in half.result()] == want


def test_no_candidate_is_no_run() -> None:
    assert many(draw(0), np.zeros(0, EXACT_DTYPE)) == []


def test_a_candidate_out_of_range_is_named_before_any_is_run() -> None:
    s, candidates = random_candidates(0, 5)
    candidates["latency_ms"][3] = -1.0
    called: list[Any] = []
    with pytest.raises(ValueError, match=r"candidate 3: latency_ms must be in .* was -1"):
        many(s, candidates, progress=lambda *at: called.append(at))
    assert called == []


def test_progress_names_the_candidate_and_may_end_the_call() -> None:
    s, candidates = random_candidates(0, 3)
    called: list[tuple[int, int]] = []

    def note(i: int, done: int) -> None:
        called.append((i, done))
        if called[-1][0] == 2:
            raise KeyboardInterrupt

    answers = many(s, candidates[:2], chunk=100, progress=note)
    assert called == sorted(called)
    for i, answer in enumerate(answers):
        assert called.count((i, answer[4])) == 1
        assert max(done for j, done in called if j == i) == answer[4]
    with pytest.raises(KeyboardInterrupt):
        many(s, candidates, chunk=100, progress=note)
