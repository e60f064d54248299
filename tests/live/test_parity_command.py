"""``passivx parity`` on runs that were really recorded, as they were and tampered with."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from passivx.config import Config
from passivx.data.synthetic import synthetic_trades
from passivx.data.ticks import Ticks
from passivx.live.events import Note
from passivx.live.parity import Difference, Parity, compare_record
from passivx.live.status import EventLog
from passivx.live.tape import TRADE_DTYPE, Tape
from tests.cli.conftest import run as run
from tests.live.test_same_fills import MARKETS, PROFILES, config_of
from tests.live.world import World, heartbeat, run_to_end

DAY_MS = 86_400_000


class Recorder:
    """Keeps what `live.session.Records` keeps: the tape, and the notes."""

    def __init__(self, folder: Path) -> None:
        self.tape = Tape(folder / "tape")
        self.notes: list[tuple[int, Note]] = []

    def note(self, note: Note, ts_ms: int) -> None:
        self.notes.append((ts_ms, note))

    def entry(self, kind: str, key: str, body: Mapping[str, Any]) -> None: ...

    def trade(self, trade_id: str, price: float, qty: float, ts_ms: int, buyer_maker: bool) -> None:
        self.tape.trade(trade_id, price, qty, ts_ms, buyer_maker)

    def status(self, status: Mapping[str, Any]) -> None: ...


def world_of(exchange: str, folder: Path, ticks: Ticks, config: Config, **options: Any) -> World:
    folder.mkdir(parents=True, exist_ok=True)
    world = World(
        exchange,
        config,
        MARKETS[exchange],
        ticks,
        folder / "journal.db",
        wallet=MARKETS[exchange].in_settle(10_000.0, float(ticks.price[0])),
        **options,
    )
    world.venue.set_listing(replace(world.venue.listing, funding_interval_ms=77_777))
    return world


def record(exchange: str, folder: Path, *, n: int = 6000, **options: Any) -> Config:
    """Let a bot trade, and leave its record in ``folder``."""
    config = config_of(exchange)
    ticks = synthetic_trades(3, n, profile=PROFILES[exchange])
    recorder = Recorder(folder)
    run_to_end(world_of(exchange, folder, ticks, config, **options), watcher=recorder)
    recorder.tape.flush()
    return config


def parity_of(folder: Path, config: Config, **options: Any) -> Parity:
    return compare_record(folder, config, last_ms=DAY_MS, **options)


def tamper(folder: Path, sql: str, *args: object) -> None:
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute(sql, args)
        db.commit()


def nth_fill(folder: Path, n: int, where: str = "1") -> tuple[int, dict[str, Any]]:
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        sql = f"SELECT seq, body FROM entries WHERE type = 'fill' AND {where} ORDER BY seq"
        seq, body = db.execute(f"{sql} LIMIT 1 OFFSET {n}").fetchone()
    return seq, json.loads(body)


@pytest.mark.parametrize("latency_ms", [33.0, 100.0])
@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_an_untouched_record_is_equal(exchange: str, latency_ms: float, tmp_path: Path) -> None:
    config = record(exchange, tmp_path, latency_ms=latency_ms)
    parity = parity_of(tmp_path, config)
    assert parity.latency_ms == latency_ms
    assert parity.n_measured > 100
    (window,) = parity.windows
    assert window.differences == []
    assert parity.equal
    assert window.same == window.live_fills == window.backtest_fills >= 50
    assert window.live_size == window.backtest_size
    assert window.begins == "the run began"
    assert window.ends == "the bot was stopped"
    assert window.notes == []
    assert parity.changed == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    folder = tmp_path_factory.mktemp("recorded")
    return folder, record("binance", folder)


@pytest.fixture
def copy(recorded: tuple[Path, Config], tmp_path: Path) -> tuple[Path, Config]:
    folder, config = recorded
    target = tmp_path / "copy"
    (target / "tape").mkdir(parents=True)
    for path in (*folder.glob("journal*"), *folder.glob("tape/*")):
        (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    return target, config


def only(parity: Parity) -> Difference:
    (window,) = parity.windows
    (difference,) = window.differences
    assert not parity.equal
    return difference


def test_a_removed_fill_is_missing(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 7)
    tamper(folder, "DELETE FROM entries WHERE seq = ?", seq)
    difference = only(parity_of(folder, config))
    assert difference.what == "missing"
    assert difference.live is None
    assert difference.backtest is not None
    assert difference.backtest.ts_ms == body["venue_ts_ms"]
    assert (
        difference.cause
        == f"{body['client_id']} was filled, but its fill is missing in the journal"
    )


def test_a_changed_price_is_named(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 5)
    changed = body | {"price": body["price"] + 3.0}
    tamper(folder, "UPDATE entries SET body = ? WHERE seq = ?", json.dumps(changed), seq)
    difference = only(parity_of(folder, config))
    assert difference.what == "price"
    assert difference.live is not None
    assert difference.live.price == body["price"] + 3.0
    assert difference.cause == f"filled at another price than was ordered ({body['price']:.10g})"


def test_a_changed_quantity_is_a_part(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 5)
    changed = body | {"qty": body["qty"] / 2}
    tamper(folder, "UPDATE entries SET body = ? WHERE seq = ?", json.dumps(changed), seq)
    difference = only(parity_of(folder, config))
    assert difference.what == "qty"
    assert difference.cause.startswith("filled in part: ")


def test_a_time_of_its_own_is_named(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 5)
    changed = body | {"venue_ts_ms": body["venue_ts_ms"] + 1500}
    tamper(folder, "UPDATE entries SET body = ? WHERE seq = ?", json.dumps(changed), seq)
    (window,) = parity_of(folder, config).windows
    assert "time" in [each.what for each in window.differences]


def test_a_foreign_fill_is_extra(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 9)
    foreign = body | {"client_id": "web_1", "cause": "trade", "qty": 0.5, "order_id": "1"}
    tamper(
        folder,
        "INSERT INTO entries SELECT max(seq) + 1, ?, 'fill', 'of nobody', ?, x'00' FROM entries",
        body["venue_ts_ms"],
        json.dumps(foreign),
    )
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        # As if it had been heard then, before the bot was stopped.
        (last,) = db.execute("SELECT max(seq) FROM entries").fetchone()
        db.execute("UPDATE entries SET seq = -seq WHERE seq > ?", (seq,))
        db.execute("UPDATE entries SET seq = -seq + 1 WHERE seq < 0 AND seq > ?", (-last,))
        db.execute("UPDATE entries SET seq = ? WHERE seq < 0", (seq + 1,))
        db.commit()
    difference = only(parity_of(folder, config))
    assert difference.what == "extra"
    assert difference.live is not None
    assert difference.live.kind == "foreign"
    assert difference.cause.endswith("(client id web_1)")


def test_what_was_held_back_says_why(copy: tuple[Path, Config], tmp_path: Path) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 0)
    tamper(folder, "DELETE FROM entries WHERE seq = ?", seq)
    tamper(folder, "DELETE FROM entries WHERE key = ?", body["client_id"])
    log = tmp_path / "bot.log"
    start_ms = body["venue_ts_ms"] - 5000
    log.write_text(
        "\n".join(
            [
                json.dumps({"ts_ms": start_ms, "event": "reducing", "reason": "market",
                            "why": "no market data for 10 s"}),
                "torn",
                json.dumps({"ts_ms": start_ms + 9000, "event": "cleared", "reason": "market"}),
            ]
        )
    )  # fmt: skip
    (window,) = parity_of(folder, config, log=log).windows
    assert window.differences[0].cause == "held back: no market data for 10 s"


def test_what_left_late_for_a_reason_says_so(copy: tuple[Path, Config], tmp_path: Path) -> None:
    folder, config = copy
    seq, body = nth_fill(folder, 0)
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        sql = "SELECT ts_ms FROM entries WHERE type = 'intent' AND key = ?"
        (sent_ms,) = db.execute(sql, (body["client_id"],)).fetchone()
    price = body["price"] - 1.0
    tamper(
        folder, "UPDATE entries SET body = json_set(body, '$.price', ?) WHERE seq = ?", price, seq
    )
    sql = "UPDATE entries SET body = json_set(body, '$.price', ?) WHERE type = 'intent' AND key = ?"
    tamper(folder, sql, price, body["client_id"])
    log = tmp_path / "bot.log"
    why = {"reason": "watchdog", "why": "no watchdog stands by"}
    events = [
        {"ts_ms": sent_ms - 700, "event": "reducing"} | why,
        {"ts_ms": sent_ms, "event": "cleared"} | why,
    ]
    log.write_text("\n".join(map(json.dumps, events)))
    difference = only(parity_of(folder, config, log=log))
    assert difference.what == "price"
    assert difference.cause == "held back until it was sent: no watchdog stands by"


def test_what_follows_from_another_average_says_so(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    first, body = nth_fill(folder, 0)
    second, later = nth_fill(folder, 1)
    sql = "UPDATE entries SET body = json_set(body, '$.pos_price', ?) WHERE seq = ?"
    tamper(folder, sql, body["pos_price"] + 5.0, first)
    sql = "UPDATE entries SET body = json_set(body, '$.price', ?) WHERE key = ? OR seq = ?"
    tamper(folder, sql, later["price"] + 5.0, later["client_id"], second)
    assert only(parity_of(folder, config)).cause.startswith("follows: the bot's average was ")


def test_a_hole_in_the_tape_ends_a_window(copy: tuple[Path, Config]) -> None:
    folder, config = copy
    (path,) = folder.glob("tape/*")
    rows = np.frombuffer(path.read_bytes(), TRADE_DTYPE)
    path.write_bytes(np.delete(rows, slice(2500, 2600)).tobytes())
    first, *others = parity_of(folder, config).windows
    assert first.ends == "trades are missing on the tape"
    assert first.end_ms == rows["ts_ms"][2499]
    assert first.equal
    assert len(others) == 1
    assert others[0].begins == "a fill left the bot flat"
    assert any("EMA" in each for each in others[0].notes)


def test_the_config_that_ran_is_replayed_and_what_changed_since_is_named(
    copy: tuple[Path, Config],
) -> None:
    folder, config = copy
    today = config.model_copy(update={"grid_spacing": 0.5, "requote_ms": 100})
    parity = parity_of(folder, today)
    assert parity.equal
    assert parity.changed == ["grid_spacing", "requote_ms"]


def test_two_runs_are_two_windows(tmp_path: Path) -> None:
    """Killed, then started anew: what happened in between is nobody's."""
    config = config_of("binance")
    ticks = synthetic_trades(5, 9000, profile=PROFILES["binance"])
    world = world_of("binance", tmp_path, ticks, config)
    recorder = Recorder(tmp_path)

    async def go() -> None:
        number, price, qty, ts_ms, buyer_maker = world.ticks[0]
        world.venue.print(number, price, qty, buyer_maker, ts_ms)
        world.at = 1
        beat = asyncio.get_running_loop().create_task(heartbeat(world))
        await world.start(watcher=recorder)
        await world.play(world.ticks[4000][3])
        await world.kill()
        world.direct.sink = None
        await world.play(world.ticks[4500][3])
        await world.start(watcher=recorder)
        await world.play(world.ticks[-1][3])
        await world.stop()
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)

    asyncio.run(go())
    recorder.tape.flush()
    windows = parity_of(tmp_path, config).windows
    assert len(windows) == 2
    assert windows[0].ends == "the run broke off"
    assert windows[0].equal
    assert windows[1].ends == "the bot was stopped"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def workspace(copy: tuple[Path, Config], tmp_path: Path) -> Path:
    folder, config = copy
    state = tmp_path / "live_state" / "binance" / "BTCUSDT-0123456789"
    state.parent.mkdir(parents=True)
    folder.rename(state)
    settings = tmp_path / "live_settings" / "binance"
    settings.mkdir(parents=True)
    (settings / "same.json").write_text(config.to_json())
    return tmp_path


def test_the_command_reports_and_exits_with_0(run: Callable[..., Any], workspace: Path) -> None:
    done = run("parity", "binance", "same", "--workspace", workspace, "--json")
    assert done.code == 0, done.err
    said = done.json
    assert said["equal"] is True
    assert said["account"] == "0123456789"
    assert said["latency_ms"] == 100.0
    (window,) = said["windows"]
    assert window["live"] == window["backtest"]
    assert window["differences"] == []

    folder = workspace / "live_state" / "binance" / "BTCUSDT-0123456789"
    seq, _ = nth_fill(folder, 7)
    tamper(folder, "DELETE FROM entries WHERE seq = ?", seq)
    done = run("parity", "binance", "same", "--workspace", workspace, "--json")
    assert done.code == 0
    assert done.json["equal"] is False
    done = run("parity", "binance", "same", "--workspace", workspace)
    assert done.code == 0
    assert "not equal" in done.out
    assert "missing in live" in done.out
    assert "latency 100 ms" in done.out


def test_the_command_says_what_it_cannot_find(run: Callable[..., Any], workspace: Path) -> None:
    where = ("--workspace", workspace)
    done = run("parity", "bybit", workspace / "live_settings/binance/same.json", *where)
    assert done.code == 1
    assert "no bot has traded BTCUSDT" in done.err
    done = run("parity", "binance", "same", "--account", "paper", *where)
    assert done.code == 1
    assert "there is no journal" in done.err
    other = workspace / "live_state" / "binance" / "BTCUSDT-paper"
    other.mkdir()
    (other / "journal.db").touch()
    done = run("parity", "binance", "same", *where)
    assert done.code == 2
    assert "0123456789, paper" in done.err
    done = run("parity", "binance", "same", "--account", "x", "--user", "y", *where)
    assert done.code == 2


def test_a_log_that_the_bot_writes_is_read(tmp_path: Path) -> None:
    from passivx.clock import VirtualClock
    from passivx.live.parity import _silences_of

    clock = VirtualClock(1_700_000_000_000)
    log = EventLog(tmp_path / "a.log", max_bytes=1 << 20, keep=1, clock=clock)
    log.write("reducing", alert=True, reason="link_trades", why="no connection for trades: cut")
    clock.advance(5000)
    log.write("cleared", reason="link_trades", mode="active")
    log.write("halted", why="revoked")
    log.close()
    assert _silences_of(tmp_path / "a.log") == [
        (1_700_000_000_000, 1_700_000_005_000, "no connection for trades: cut"),
        (1_700_000_005_000, float("inf"), "revoked"),
    ]
