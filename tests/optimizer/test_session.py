"""Whole sessions: the same whatever happens, and every figure in their files one that comes again.

A wild synthetic market and a few thousand ticks: a run takes a fraction of a millisecond, and every
way for a candidate to end occurs.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from passivx import Market, Ticks, backtest, backtest_flat, load_config, optimize
from passivx.backtesting import BacktestResult
from passivx.data.columns import mapped
from passivx.data.synthetic import BTCUSDT, MarketProfile, synthetic_trades
from passivx.errors import ConfigError, PassivxError
from passivx.optimizer import workers
from passivx.optimizer.search import Progress
from passivx.optimizer.session import OptimizeResult
from passivx.optimizer.settings import Settings, load_settings

WILD: Final[MarketProfile] = replace(
    BTCUSDT, prints_per_second=0.1, pace_memory_s=5e3, volatility_memory_s=2e4, reversion_s=2e4,
    news_volatility=0.012, jumps_per_hour=0.3, jump_size=0.01,
)  # fmt: skip
TICKS: Final[Ticks] = synthetic_trades(0, 8_000, profile=WILD)
FEW: Final[Ticks] = TICKS[:2_000]
MARKET: Final = Market(
    price_step=0.1, qty_step=0.001, min_qty=0.001, min_cost=5.0, maker_fee=0.0002,
    taker_fee=0.0005, max_leverage=125, inverse=False,
)  # fmt: skip
RANGES: Final[dict[str, list[float]]] = {
    "balance_pct": [0.1, 1.0, 0.01],
    "entry_qty_pct": [0.01, 0.1, 0.001],
    "ddown_factor": [0.1, 2.0, 0.01],
    "ema_span": [1, 500, 1],
    "ema_spread": [0, 0.002, 0.0001],
    "grid_coefficient": [0, 100, 0.1],
    "grid_spacing": [0.001, 0.01, 1e-5],
    "leverage": [2, 50, 1],
    "min_markup": [0.0006, 0.004, 1e-5],
    "max_markup": [0.001, 0.01, 1e-5],
    "min_close_qty_multiplier": [0, 1, 0.01],
    "n_close_orders": [1, 20, 1],
    "stop_loss_liq_diff": [0.0, 0.1, 0.001],
    "stop_loss_pos_price_diff": [0.02, 0.1, 0.001],
    "stop_loss_pos_reduction": [0, 0.2, 0.001],
    "do_long": [1, 1, 1],
}
SETTINGS: Final[dict[str, Any]] = {
    "session_name": "searching",
    "exchange": "binance",
    "symbol": "BTCUSDT",
    "starting_balance": 1000.0,
    "n_jackrabbit_iterations": 48,
    "ranges": RANGES,
}
BREAKS: Final = [
    ["ON: stopped", "lambda trades, ticks, k: trades[-1]['type'].startswith('stop_loss')"],
    ["OFF: never", "lambda trades, ticks, k: True"],
]
# Limits the core looks at as it goes, and one of the rest.
LIMITS: Final[dict[str, Any]] = {
    "max_hours_between_fills": 10,
    "max_drawdown": 0.2,
    "min_closest_liq": 0.05,
    "max_loss": 0.15,
    "min_n_trades": 12,
}
# Figures that a reader of the folder goes by; session.json says how it was started.
FILES: Final = ("results.jsonl", "best_result.json", "best_settings.json", "live_config.json")


def settings_of(**changes: Any) -> Settings:
    """Settings with changes: of fields, and ``ranges`` of single parameters."""
    ranges = {**RANGES, **changes.pop("ranges", {})}
    return load_settings({**SETTINGS, "ranges": ranges, **changes}, MARKET)


def save_ticks(ticks: Ticks, path: Path) -> None:
    """Write ticks as a .npy file that `load_ticks` reads."""
    ids = np.arange(len(ticks))
    columns = (ids, ticks.price, ticks.qty, ticks.ts_ms, ticks.buyer_maker)
    np.save(path, np.column_stack(columns), allow_pickle=False)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a session by its name, but for the one that says how it was started."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "session.json"
    }


def flat(settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate as the flat settings that `backtest_flat` takes."""
    file = settings.file
    out = {**settings.base, **asdict(settings.market)}
    out |= {name: values[name] for name in settings.space.names}
    out["starting_balance"] = file.starting_balance
    if file.latency_simulation_ms is not None:
        out["latency_simulation_ms"] = file.latency_simulation_ms
    return out


def rerun(
    settings: Settings, values: Mapping[str, Any], ticks: Ticks, **more: Any
) -> BacktestResult:
    """Run one candidate by itself, without its session's limits and conditions."""
    return backtest_flat(ticks, flat(settings, values), engine=settings.file.engine, **more)


def same_figures(line: Mapping[str, Any], result: BacktestResult) -> None:
    """Assert that a line's figures are those of a run."""
    summary = dict(result.summary)
    for name in ("engine", "outcome", "assumptions"):
        summary.pop(name, None)
    assert {name: line[name] for name in summary} == summary


@pytest.fixture
def shared_ticks(tmp_path: Path) -> Iterator[Ticks]:
    """TICKS, mapped: what several sessions with several jobs share."""
    place = tmp_path / "columns"
    place.mkdir()
    with mapped(lambda: TICKS, place) as ticks:
        yield ticks


# --- any number of jobs, any way it is cut short ---


CASES: Final[dict[str, tuple[dict[str, Any], tuple[int, ...]]]] = {
    "plain": ({"break_on": BREAKS, "limits": LIMITS}, (2, 3)),
    "one at a time": ({"generation": 1, "n_jackrabbit_iterations": 30}, (2,)),
    "compat": ({"engine": "compat", "break_on": BREAKS, "limits": {"max_loss": 0.1}}, (3,)),
    "walk-forward": ({"walk_forward": "8h/3h/4h", "limits": {"max_drawdown": 0.2}}, (2,)),
}


@pytest.mark.parametrize("name", CASES)
def test_any_number_of_jobs_gives_the_same_files(
    shared_ticks: Ticks, tmp_path: Path, name: str
) -> None:
    changes, jobs = CASES[name]
    settings = settings_of(**changes)
    optimize(TICKS, settings, tmp_path / "1")
    want = contents(tmp_path / "1")
    assert set(want) >= set(FILES)
    assert ("walk_forward.json" in want) == (name == "walk-forward")
    for n in jobs:
        optimize(shared_ticks, settings, tmp_path / str(n), jobs=n)
        assert contents(tmp_path / str(n)) == want


def test_ticks_that_are_not_mapped_are_for_as_long_as_it_runs(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def watch(progress: Progress) -> None:
        (place,) = tmp_path.glob(".ticks-*")
        seen.append(sorted(path.name for path in place.iterdir()))

    optimize(FEW, settings_of(), tmp_path, jobs=2, watch=watch)
    assert seen[0] == ["buyer_maker.npy", "price.npy", "qty.npy", "ts_ms.npy"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


class EnoughError(Exception):
    """What a watcher ends a session with."""


class Watcher:
    """Ends a session at its n-th look; keeps what it saw."""

    def __init__(self, at: int = -1) -> None:
        self.at, self.looks = at, 0
        self.progress: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self.progress = progress
        self.looks += 1
        if self.looks == self.at:
            raise EnoughError


def interrupt(
    folder: Path, at: int, ticks: Ticks, settings: Settings, **how: Any
) -> list[dict[str, Any]]:
    """Run until the n-th look; return the lines that are finished by then."""
    with pytest.raises(EnoughError):
        optimize(ticks, settings, folder, watch=Watcher(at), **how)
    return lines_of(folder)


INTERRUPTED: Final[dict[str, dict[str, Any]]] = {
    "generation 1": {"generation": 1},
    "generation 16": {},
    "compat": {"engine": "compat"},
    "walk-forward": {"walk_forward": "2h/1h/1h", "n_jackrabbit_iterations": 8},
}


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One job gives back one candidate at a time, however quick: a look for each of them."""
    monkeypatch.setattr(workers, "_PARCEL_S", 1e-12)


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("name", INTERRUPTED)
def test_a_session_ended_at_any_look_is_resumed_as_if_nothing_had_happened(
    tmp_path: Path, name: str
) -> None:
    settings = settings_of(**{"n_jackrabbit_iterations": 18, **INTERRUPTED[name]})
    counting = Watcher()
    whole = optimize(FEW, settings, tmp_path / "whole", watch=counting)
    want = contents(tmp_path / "whole")
    total = len(lines_of(tmp_path / "whole"))
    assert counting.looks == total > 15
    for at in range(1, counting.looks + 1):
        folder = tmp_path / str(at)
        lines = interrupt(folder, at, FEW, settings)
        assert len(lines) == at
        watcher = Watcher()
        result = optimize(FEW, settings, folder, resume=True, watch=watcher)
        assert contents(folder) == want
        assert result.warnings == whole.warnings  # nothing was torn
        if at < total:
            assert watcher.progress is not None
            assert watcher.progress.n_run == total - at
            assert watcher.progress.n_known == at


def test_a_session_may_be_ended_again_and_again_with_other_jobs_each_time(
    shared_ticks: Ticks, tmp_path: Path
) -> None:
    settings = settings_of(break_on=BREAKS, limits=LIMITS, n_jackrabbit_iterations=96)
    optimize(TICKS, settings, tmp_path / "whole")
    folder = tmp_path / "again"
    finished: list[dict[str, Any]] = []
    for jobs in (2, 1, 3):
        lines = interrupt(folder, 3, shared_ticks, settings, jobs=jobs, resume=True)
        assert lines[: len(finished)] == finished
        finished = lines
    watcher = Watcher()
    optimize(shared_ticks, settings, folder, jobs=2, resume=True, watch=watcher)
    assert contents(folder) == contents(tmp_path / "whole")
    assert watcher.progress is not None
    assert watcher.progress.n_run + watcher.progress.n_known == len(lines_of(folder))
    assert watcher.progress.n_known >= len(finished)


def test_a_finished_session_is_resumed_without_a_run(tmp_path: Path) -> None:
    settings = settings_of(limits=LIMITS)
    first = optimize(TICKS, settings, tmp_path)
    want = contents(tmp_path)
    watcher = Watcher()
    again = optimize(TICKS, settings, tmp_path, resume=True, watch=watcher)
    assert watcher.looks == 0
    assert contents(tmp_path) == want
    assert replace(again, evaluations_per_s=first.evaluations_per_s) == first


def test_resume_with_nothing_to_resume_starts_afresh(tmp_path: Path) -> None:
    optimize(FEW, settings_of(), tmp_path / "a" / "b", resume=True)
    optimize(FEW, settings_of(), tmp_path / "c")
    assert contents(tmp_path / "a" / "b") == contents(tmp_path / "c")


def test_without_resume_a_folder_that_holds_a_session_is_refused(tmp_path: Path) -> None:
    interrupt(tmp_path, 3, FEW, settings_of())
    before = contents(tmp_path)
    with pytest.raises(PassivxError, match="holds a session already"):
        optimize(FEW, settings_of(), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("name", ["results.jsonl", ".ahead.jsonl"])
def test_a_torn_line_is_said_and_run_again(tmp_path: Path, name: str) -> None:
    settings = settings_of()
    optimize(FEW, settings, tmp_path / "whole")
    folder = tmp_path / "torn"
    interrupt(folder, 20, FEW, settings)
    with (folder / name).open("ab") as file:
        file.write((folder / "results.jsonl").read_bytes()[:100])
    result = optimize(FEW, settings, folder, resume=True)
    assert contents(folder) == contents(tmp_path / "whole")
    assert [text.split(":")[0] for text in result.warnings if "torn" in text] == [name]


# --- what a session is resumed with ---


CHANGED: Final[dict[str, Callable[[], tuple[Ticks, Settings, dict[str, Any]]]]] = {
    "settings.seed": lambda: (FEW, settings_of(seed=1), {}),
    "settings.starting_balance": lambda: (FEW, settings_of(starting_balance=1001), {}),
    "settings.n_jackrabbit_iterations": lambda: (
        FEW, settings_of(n_jackrabbit_iterations=49), {},
    ),
    "settings.generation": lambda: (FEW, settings_of(generation=8), {}),
    "settings.objective": lambda: (FEW, settings_of(objective="gain"), {}),
    "settings.sampler": lambda: (FEW, settings_of(sampler="random"), {}),
    "settings.fill": lambda: (FEW, settings_of(fill="touch"), {}),
    "settings.latency_simulation_ms": lambda: (FEW, settings_of(latency_simulation_ms=99), {}),
    "settings.ranges.leverage": lambda: (FEW, settings_of(ranges={"leverage": [2, 49, 1]}), {}),
    "settings.limits.max_loss": lambda: (FEW, settings_of(limits={"max_loss": 0.5}), {}),
    "settings.break_on": lambda: (FEW, settings_of(break_on=BREAKS), {}),
    "settings.walk_forward": lambda: (FEW, settings_of(walk_forward="2h/1h/1h"), {}),
    "market.maker_fee": lambda: (FEW, replace(settings_of(), market=replace(
        MARKET, maker_fee=0.0003)), {}),
    "ticks.rows": lambda: (FEW[:-1], settings_of(), {}),
    "ticks.sha256": lambda: (replace(FEW, qty=FEW.qty * 2), settings_of(), {}),
    "funding": lambda: (FEW, settings_of(), {
        "funding": np.array([[float(FEW.ts_ms[5]), 1e-4]]),
    }),
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGED)
def test_what_differs_from_the_session_is_refused_by_name(tmp_path: Path, field: str) -> None:
    interrupt(tmp_path, 3, FEW, settings_of())
    before = contents(tmp_path) | {"session.json": (tmp_path / "session.json").read_bytes()}
    ticks, settings, more = CHANGED[field]()
    with pytest.raises(ConfigError) as caught:
        optimize(ticks, settings, tmp_path, resume=True, **more)
    assert field in [problem.field for problem in caught.value.problems]
    assert "start a new session" in str(caught.value)
    assert contents(tmp_path) | {"session.json": (tmp_path / "session.json").read_bytes()} == before


def test_trade_ids_and_where_the_ticks_came_from_do_not_matter(tmp_path: Path) -> None:
    interrupt(tmp_path, 3, FEW, settings_of())
    bare = Ticks(FEW.price, FEW.qty, FEW.ts_ms, FEW.buyer_maker)
    assert optimize(bare, settings_of(), tmp_path, resume=True).n_evaluated > 3


def test_results_without_a_session_are_not_anyones_to_go_on_with(tmp_path: Path) -> None:
    interrupt(tmp_path, 3, FEW, settings_of())
    (tmp_path / "session.json").unlink()
    with pytest.raises(PassivxError, match=r"holds results without session\.json"):
        optimize(FEW, settings_of(), tmp_path, resume=True)


def test_lines_that_these_settings_do_not_propose_are_refused(tmp_path: Path) -> None:
    interrupt(tmp_path, 9, FEW, settings_of())
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(PassivxError, match=r"line \d is not what these settings propose next"):
        optimize(FEW, settings_of(), tmp_path, resume=True)


def test_wrong_arguments_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    with pytest.raises(ConfigError, match="jobs"):
        optimize(FEW, settings_of(), folder, jobs=0)
    with pytest.raises(ConfigError, match="walk_forward"):
        optimize(FEW, settings_of(walk_forward="30/10/10"), folder)
    with pytest.raises(ConfigError, match="funding"):
        optimize(FEW, settings_of(engine="compat"), folder, funding=[{"ts_ms": 1, "rate": 0.1}])
    assert not folder.exists()


# --- the lines ---


@pytest.fixture(scope="module", params=["exact", "compat"])
def searched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Path, OptimizeResult]:
    """A session in which every way to end occurs."""
    engine: str = request.param
    names = ("max_hours_between_fills", "max_loss", "min_n_trades")
    limits = LIMITS if engine == "exact" else {name: LIMITS[name] for name in names}
    settings = settings_of(
        engine=engine, break_on=BREAKS, limits=limits, n_jackrabbit_iterations=300,
        sampler="random", ranges={"leverage": [2, 120, 1]},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp(engine)
    return settings, folder, optimize(TICKS, settings, folder)


def test_lines_are_unique_in_order_on_their_steps_and_within_their_ranges(
    searched: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, result = searched
    lines = lines_of(folder)
    assert len(lines) == result.n_evaluated == len({line["key"] for line in lines})
    ks = [line["k"] for line in lines]
    assert ks == sorted(set(ks))
    assert ks[0] == 0
    assert ks[-1] < settings.file.n_jackrabbit_iterations == result.n_iterations
    for line in lines:
        values = {name: line[name] for name in sorted(settings.space.names)}
        assert line["key"] == hashlib.sha256(json.dumps(values).encode()).hexdigest()
        for name, value in values.items():
            low, high, step = settings.file.ranges[name]
            assert low <= value <= high
            on_step = Decimal(repr(value)) % Decimal(repr(step)) == 0
            assert on_step or value in (low, high), name


def test_statuses_are_those_of_the_runs_and_all_of_them_occur(
    searched: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, result = searched
    exact = settings.file.engine == "exact"
    limits = {limit.name: limit for limit in settings.criteria.limits}
    seen: Counter[str] = Counter()
    for line in lines_of(folder):
        status = line["status"]
        seen[status] += 1
        assert (line["objective"] is None) == (status != "done")
        alone = rerun(settings, line, TICKS, break_on=settings.rules)
        broken = [f"limit:{name}" for name, limit in limits.items() if limit.broken_by(line)]
        if status.startswith("limit:"):
            assert status in broken
            # What a figure has broken early, it does not mend: nor had the whole run.
            whole = rerun(settings, line, TICKS).summary
            assert limits[status.removeprefix("limit:")].broken_by(whole)
        elif status == "done":
            assert not broken
            assert alone.outcome == "end"
            assert line["objective"] == line["average_daily_gain"]
        else:
            assert alone.outcome == status
        if not (exact and status.startswith("limit:")):
            same_figures(line, alone)
    rejected = seen - Counter(done=seen["done"])
    assert result.rejects == dict(rejected.most_common())
    wanted = {"done", "break:stopped", "limit:max_hours_between_fills", "limit:max_loss"}
    wanted |= {"limit:max_drawdown", "limit:min_closest_liq"} if exact else {"limit:min_n_trades"}
    assert set(seen) >= wanted, seen


def test_liquidations_have_a_status_each(tmp_path: Path) -> None:
    for side, ticks in (("long", TICKS), ("shrt", synthetic_trades(5, 8_000, profile=WILD))):
        settings = settings_of(
            sampler="random",
            ranges={"leverage": [120, 125, 1], "balance_pct": [1, 1, 1], "do_long": [0, 1, 1],
                    "stop_loss_liq_diff": [0, 0, 1], "stop_loss_pos_price_diff": [9, 9, 1]},
        )  # fmt: skip
        optimize(ticks, settings, tmp_path / side)
        found = [
            line
            for line in lines_of(tmp_path / side)
            if line["status"] == f"{side}_liquidation" and line["objective"] is None
        ]
        assert found
        for line in found:
            alone = rerun(settings, line, ticks)
            assert alone.outcome == line["status"]
            same_figures(line, alone)


JUDGED: Final[list[dict[str, Any]]] = [
    {"max_drawdown": 0.1},
    {"min_closest_liq": 0.03},
    {"max_hours_between_fills": 5},
    {"max_loss": 0.05},
    {"max_drawdown": 0.15, "min_closest_liq": 0.02, "max_hours_between_fills": 7, "max_loss": 0.1},
]


def test_ending_hopeless_runs_early_accepts_the_same_candidates(tmp_path: Path) -> None:
    common: dict[str, Any] = {"sampler": "random", "n_jackrabbit_iterations": 250}
    optimize(TICKS, settings_of(**common), tmp_path / "free")
    runs = lines_of(tmp_path / "free")
    for i, limits in enumerate(JUDGED):
        settings = settings_of(limits=limits, **common)
        optimize(TICKS, settings, tmp_path / str(i))
        judged = {
            line["key"]
            for line in runs
            if line["status"] == "done"
            and not any(limit.broken_by(line) for limit in settings.criteria.limits)
        }
        lines = lines_of(tmp_path / str(i))
        assert [line["key"] for line in lines] == [line["key"] for line in runs]
        assert {line["key"] for line in lines if line["status"] == "done"} == judged
        assert 0 < len(judged) < len(runs)
        early = [line for line in lines if line["status"].startswith("limit:")]
        assert any(line["n_days"] < runs[0]["n_days"] for line in early), limits


def test_min_adg_ends_a_run_early_only_from_its_share_on(tmp_path: Path) -> None:
    common: dict[str, Any] = {"sampler": "random", "n_jackrabbit_iterations": 120}
    optimize(TICKS, settings_of(limits={"min_adg": 1.02}, **common), tmp_path / "end")
    optimize(TICKS, settings_of(limits={"min_adg": [1.02, 0.4]}, **common), tmp_path / "early")
    at_end, early = lines_of(tmp_path / "end"), lines_of(tmp_path / "early")
    whole = at_end[0]["n_days"]
    assert {line["n_days"] for line in at_end if line["status"] == "limit:min_adg"} == {whole}
    cut = [line["n_days"] for line in early if line["status"] == "limit:min_adg"]
    assert min(cut) < 0.5 * whole
    # A run looked at in its last hour was over 0.4 of the whole by then.
    assert min(cut) >= 0.4 * whole - 1 / 24
    accepted = [{line["key"] for line in each if line["status"] == "done"}
                for each in (at_end, early)]  # fmt: skip
    assert accepted[1] <= accepted[0]
    assert accepted[1]


def test_starting_candidates_come_first(tmp_path: Path) -> None:
    optimize(TICKS, settings_of(), tmp_path / "a")
    best = json.loads((tmp_path / "a" / "best_result.json").read_text())
    for name in ("best_result.json", "live_config.json", "best_settings.json"):
        settings = settings_of(starting_candidate_filepath=str(tmp_path / "a" / name), seed=7)
        optimize(TICKS, settings, tmp_path / name)
        first = lines_of(tmp_path / name)[0]
        assert first["key"] == best["key"]
        assert first["gain"] == best["gain"]


# --- the best ---


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, OptimizeResult]:
    """A session that found something, with more than the usual to reproduce."""
    settings = settings_of(
        latency_simulation_ms=250, cancel_latency_ms=50, fill="volume", queue_share=0.3,
        limits={"max_drawdown": 0.4}, n_jackrabbit_iterations=120,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("found")
    return settings, folder, optimize(TICKS, settings, folder)


def test_the_best_has_the_highest_objective_of_those_accepted(
    found: tuple[Settings, Path, OptimizeResult],
) -> None:
    _, folder, result = found
    best = json.loads((folder / "best_result.json").read_text())
    accepted = [line for line in lines_of(folder) if line["status"] == "done"]
    top = max(accepted, key=lambda line: line["objective"])  # the first of equals
    assert {name: best[name] for name in top} == top == result.best
    assert best["stability"] == result.stability
    assert best["gain"] > 1.0
    assert set(best) == {*top, "stability", "out_of_sample"}
    assert best["out_of_sample"] is None


def test_best_files_load_and_their_backtest_is_the_result(
    found: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, result = found
    spelled_out = load_config(folder / "best_settings.json")
    live = load_config(folder / "live_config.json")
    assert live == spelled_out
    assert live.config_name == settings.file.session_name
    assert live.symbol == "BTCUSDT"
    assert result.best is not None
    for config in (live, spelled_out):
        alone = backtest(
            TICKS, config, MARKET, starting_balance=1000.0, latency_ms=250, cancel_latency_ms=50,
            fill="volume", queue_share=0.3,
        )  # fmt: skip
        same_figures(result.best, alone)


def test_trades_of_the_best_three_are_those_of_their_backtests(
    found: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, _ = found
    accepted = [line for line in lines_of(folder) if line["status"] == "done" and line["gain"] > 1]
    top = sorted(accepted, key=lambda line: -line["objective"])[:3]
    tables = {path.stem: path.read_text() for path in (folder / "backtest_trades").iterdir()}
    assert set(tables) == {line["key"] for line in top}
    for line in top:
        candidate = {**flat(settings, line), "cancel_latency_ms": 50}
        alone = backtest_flat(TICKS, candidate, fill="volume", queue_share=0.3)
        assert tables[line["key"]] == alone.fills_csv()
        assert tables[line["key"]].count("\n") == 1 + line["n_trades"]


def test_stability_is_what_neighbours_are_worth_by_themselves(
    found: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, _, result = found
    assert result.best is not None
    assert result.stability is not None
    rows = result.stability["neighbours"]
    free = [name for name, (low, high, _) in RANGES.items() if low < high]
    assert {row["parameter"] for row in rows} <= set(free)
    half = 1.0 + (result.best["objective"] - 1.0) / 2.0
    for row in rows:
        name = row["parameter"]
        low, high, step = RANGES[name]
        away = abs(Decimal(repr(row["value"])) - Decimal(repr(result.best[name])))
        reach = max(Decimal(repr(high - low)) * Decimal("0.02"), Decimal(repr(step)))
        assert 0 < away <= reach + Decimal(repr(step)) / 2
        point = {**result.best, name: row["value"]}
        if name in ("min_markup", "max_markup") and point["min_markup"] > point["max_markup"]:
            continue
        candidate = {**flat(settings, point), "cancel_latency_ms": 50}
        alone = backtest_flat(TICKS, candidate, fill="volume", queue_share=0.3)
        accepted = alone.outcome == "end" and alone.summary["max_drawdown"] <= 0.4
        assert (row["status"] == "done") == accepted
        want = alone.summary["average_daily_gain"] if accepted else None
        assert row["objective"] == want
        assert row["holds"] == (want is not None and want >= half)
    assert result.stability["n_neighbours"] == len(rows) > len(free)
    assert result.stability["n_holding"] == sum(row["holds"] for row in rows)
    assert result.stability["share_holding"] == result.stability["n_holding"] / len(rows)
    assert any(row["holds"] for row in rows)


def test_ends_of_ranges_are_named(tmp_path: Path) -> None:
    settings = settings_of(ranges={"grid_spacing": [0.001, 0.00101, 1e-5], "leverage": [5, 5, 1]})
    result = optimize(TICKS, settings, tmp_path)
    (text,) = (text for text in result.warnings if text.startswith("at the end of its range: "))
    assert "grid_spacing" in text
    assert "leverage" not in text


@pytest.mark.parametrize(
    ("market", "changes", "reason"),
    [
        (replace(MARKET, maker_fee=0.02), {}, None),
        (MARKET, {"limits": {"min_n_trades": 10**6}}, "limit:min_n_trades"),
        (MARKET, {"break_on": [["ON: all", "lambda trades, ticks, k: True"]]}, "break:all"),
    ],
    ids=["nothing earned", "limits", "break_on"],
)
def test_nothing_found_leaves_no_best_files(
    tmp_path: Path, market: Market, changes: dict[str, Any], reason: str | None
) -> None:
    settings = replace(settings_of(**changes), market=market)
    result = optimize(TICKS, settings, tmp_path)
    assert result.best is None
    assert result.stability is None
    assert sorted(contents(tmp_path)) == ["results.jsonl"]
    assert next(iter(result.rejects), None) == reason
    assert result.rejects.get(reason or "", 0) == (result.n_evaluated if reason else 0)


@pytest.mark.parametrize("objective", ["adg", "gain", "sharpe", "sortino"])
def test_objectives_are_figures_of_the_run(tmp_path: Path, objective: str) -> None:
    two_days = replace(TICKS, ts_ms=TICKS.ts_ms[0] + (TICKS.ts_ms - TICKS.ts_ms[0]) * 3)
    result = optimize(two_days, settings_of(objective=objective), tmp_path)
    name = "average_daily_gain" if objective == "adg" else objective
    lines = [line for line in lines_of(tmp_path) if line["status"] == "done"]
    assert all(line["objective"] == line[name] for line in lines)
    assert len({line["objective"] for line in lines}) > 10
    assert result.best is not None
    assert result.best["objective"] == max(line["objective"] for line in lines)


# --- walk-forward ---


WALK: Final = "8h/3h/4h"


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, OptimizeResult]:
    # The condition would end every run out of sample, where the ticks are fewer, and none in it.
    condition = "lambda trades, ticks, k: len(ticks) < 1400"
    settings = settings_of(
        walk_forward=WALK, break_on=[["ON: short", condition]], limits={"max_drawdown": 0.3}
    )
    folder = tmp_path_factory.mktemp("walked")
    return settings, folder, optimize(TICKS, settings, folder)


def windows() -> list[tuple[slice, slice]]:
    """In and out of sample rows of WALK, from its definition."""
    hour, ts_ms = 3_600_000, TICKS.ts_ms
    out = []
    begin = int(ts_ms[0])
    while begin + 11 * hour <= int(ts_ms[-1]) + 1:
        ends = np.searchsorted(ts_ms, [begin, begin + 8 * hour, begin + 11 * hour]).tolist()
        out.append((slice(ends[0], ends[1]), slice(ends[1], ends[2])))
        begin += 4 * hour
    return out


def test_one_journal_holds_every_window(walked: tuple[Settings, Path, OptimizeResult]) -> None:
    settings, folder, result = walked
    lines = lines_of(folder)
    numbers = [line["window"] for line in lines]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, len(windows()) + 1))
    assert len(windows()) >= 3
    assert len({(line["window"], line["key"]) for line in lines}) == len(lines)
    assert result.n_evaluated == len(lines)
    assert result.n_iterations == len(windows()) * settings.file.n_jackrabbit_iterations
    for number, (inside, _) in enumerate(windows(), 1):
        own = [line for line in lines if line["window"] == number]
        assert [line["k"] for line in own] == sorted({line["k"] for line in own})
        for line in own[::12]:
            alone = rerun(settings, line, TICKS[inside], break_on=settings.rules)
            if line["status"] == "done":
                assert alone.outcome == "end"
                same_figures(line, alone)


def test_figures_out_of_sample_are_those_of_a_backtest_of_their_own(
    walked: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, result = walked
    walk = json.loads((folder / "walk_forward.json").read_text())
    assert walk == result.walk_forward
    assert walk["walk_forward"] == WALK
    assert walk["n_windows"] == len(walk["windows"]) == len(windows())
    lines = lines_of(folder)
    gain, ended_early = 1.0, 0
    growth = np.zeros(2)
    for row, (inside, outside) in zip(walk["windows"], windows(), strict=True):
        own = [x for x in lines if x["window"] == row["window"] and x["status"] == "done"]
        best = max(own, key=lambda line: line["objective"])
        assert row["key"] == best["key"]
        assert row["parameters"] == {name: best[name] for name in settings.space.names}
        alone = rerun(settings, row["parameters"], TICKS[outside])
        assert row["out_of_sample"]["outcome"] == alone.outcome
        same_figures(row["out_of_sample"], alone)
        limited = rerun(settings, row["parameters"], TICKS[outside], break_on=settings.rules)
        ended_early += limited.outcome != alone.outcome
        same_figures(row["in_sample"], rerun(settings, row["parameters"], TICKS[inside]))
        for side, rows in (("in_sample", inside), ("out_of_sample", outside)):
            span = (row[side]["start_ms"], row[side]["end_ms"])
            assert span == (TICKS.ts_ms[rows][0], TICKS.ts_ms[rows][-1])
        gain *= row["out_of_sample"]["gain"]
        sides = (row["in_sample"], row["out_of_sample"])
        growth += np.log([side["average_daily_gain"] for side in sides])
    assert ended_early, "no window shows that conditions end nothing out of sample"
    assert walk["n_windows_with_a_best"] == len(windows())
    assert walk["out_of_sample_gain"] == pytest.approx(gain, rel=1e-12)
    assert walk["efficiency"] == pytest.approx(growth[1] / growth[0], rel=1e-9)


def test_the_config_written_is_the_last_windows(
    walked: tuple[Settings, Path, OptimizeResult],
) -> None:
    settings, folder, result = walked
    best = json.loads((folder / "best_result.json").read_text())
    assert result.walk_forward is not None
    last = result.walk_forward["windows"][-1]
    assert best["key"] == last["key"]
    assert best["window"] == last["window"]
    assert best["out_of_sample"] == last["out_of_sample"]
    inside, outside = windows()[-1]
    live = load_config(folder / "live_config.json")
    how: dict[str, Any] = {"starting_balance": 1000.0}
    assert backtest(TICKS[inside], live, MARKET, **how).summary["gain"] == best["gain"]
    assert (
        backtest(TICKS[outside], live, MARKET, **how).summary["gain"]
        == (best["out_of_sample"]["gain"])
    )
    for table in (folder / "backtest_trades").iterdir():
        (line,) = (
            line
            for line in lines_of(folder)
            if line["key"] == table.stem and line["window"] == last["window"]
        )
        alone = rerun(settings, line, TICKS[inside], break_on=settings.rules)
        assert table.read_text() == alone.fills_csv()


def test_windows_in_which_nothing_was_found_are_rows_too(tmp_path: Path) -> None:
    settings = settings_of(walk_forward=WALK, limits={"min_n_trades": 10**6})
    result = optimize(TICKS, settings, tmp_path)
    walk = json.loads((tmp_path / "walk_forward.json").read_text())
    assert [row["key"] for row in walk["windows"]] == [None] * len(windows())
    assert walk["n_windows_with_a_best"] == 0
    assert walk["efficiency"] is None
    assert result.best is None
    assert sorted(contents(tmp_path)) == ["results.jsonl", "walk_forward.json"]


def test_random_moments_of_a_walk_with_two_jobs(shared_ticks: Ticks, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings = settings_of(walk_forward=WALK, n_jackrabbit_iterations=32)
    optimize(TICKS, settings, tmp_path / "whole")
    folder = tmp_path / "cut"
    for _ in range(2):
        interrupt(folder, rng.randint(1, 8), shared_ticks, settings, jobs=2, resume=True)
    optimize(TICKS, settings, folder, resume=True)
    assert contents(folder) == contents(tmp_path / "whole")


SEED_OF_A_LOSS: Final = 1  # its first candidate loses


def test_a_best_one_made_money_whatever_the_objective(tmp_path: Path) -> None:
    # Under a day every Sharpe-like ratio is 0: the first candidate is as high as any.
    settings = settings_of(objective="sharpe", seed=SEED_OF_A_LOSS)
    result = optimize(FEW, settings, tmp_path)
    lines = [line for line in lines_of(tmp_path) if line["status"] == "done"]
    assert {line["objective"] for line in lines} == {0.0}
    earning = [line for line in lines if line["gain"] > 1.0]
    assert earning
    assert earning[0] != lines[0]
    assert result.best is not None
    assert result.best["key"] == earning[0]["key"]
    assert (tmp_path / "live_config.json").exists()
