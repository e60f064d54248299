"""The second tier of chaos: `passivx run` against `passivx sim`, two processes and real sockets.

    python -m tests.chaos.tier2 --seed 7          a generated plan
    python -m tests.chaos.tier2 --name NAME       one of the plans of every change
    python -m tests.chaos.tier2 --plan FILE       a saved one

Faults have logical triggers and plans replay, but the kernel schedules two processes as it likes: a
plan that failed once may pass the next time. `tests.chaos.invariants` judges by the venue's record;
here is what starts, kills, heals and waits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from passivx.config import load_config
from passivx.live.journal import Entry, read_entries
from passivx.models import Position, load_market
from passivx.planner import PlannedOrder, plan_orders
from passivx.workspace import find_market
from tests.chaos.invariants import OWN, Book, Line, Span, Subject, Violation, check_all, replayed
from tests.chaos.tier2_plans import Act, Plan, named, plan_of, plans

__all__ = ["Report", "Run", "run"]

ROOT = Path(__file__).parents[2]
START_S = 20.0
# A stop may take so long, and a stopped bot's last packets so long to be taken down.
STOP_S = 5.0
SETTLE_S = 0.7
POLL_S = 0.25
PUSH_S = 1.5
# A flat entry stays where it is while it is this near; the average moves between two looks at it.
FLAT_TOLERANCE = 0.003
QTY_TOLERANCE = 0.05
# Keys, signatures and listen keys: nothing else that the bot writes is one long word.
SECRET_LIKE = re.compile(rb"[A-Za-z0-9]{40,}")


@dataclass(frozen=True)
class Report:
    """What came of a plan; ``figures`` are times, counts and what else is worth keeping."""

    plan: Plan
    folder: Path
    wrong: Sequence[str]
    figures: dict[str, Any]

    def __str__(self) -> str:
        command = f"python -m tests.chaos.tier2 --plan {self.folder / 'plan.json'}"
        wrong = "\n".join(f"  {each}" for each in self.wrong)
        return (
            f"{self.plan.name}: {len(self.wrong)} wrong\n{wrong}\n"
            f"replay: {command}\n"
            f"ledger, journals, logs: {self.folder}\n"
            f"figures: {json.dumps(self.figures)}\n"
            f"plan: {self.plan.to_json()}"
        )


class Broken(Exception):  # noqa: N818 (a verdict)
    """The run cannot go on: what it shows is wrong already."""


@dataclass
class Run:
    """One plan on its way."""

    plan: Plan
    folder: Path
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ended: int | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    bot: subprocess.Popen[bytes] | None = None
    sim: subprocess.Popen[str] | None = None
    endpoints: dict[str, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    n_starts: int = 0
    n_pushes: int = 0
    dies: bool = False
    pushed_s: float = 0.0

    # --- the processes ---

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    def start_sim(self) -> None:
        plan = self.plan
        settings = self.workspace / "live_settings" / plan.exchange / "chaos.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps(plan.settings()))
        with (self.folder / "sim.err").open("wb") as err:
            self.sim = subprocess.Popen(
                [
                    *(sys.executable, "-m", "passivx", "sim", "--exchange", plan.exchange),
                    *("--synthetic", str(plan.market_seed), "--speed", str(plan.speed)),
                    *("--balance", str(plan.balance), "--seed", str(plan.seed)),
                    *("--ledger", str(self.folder / "ledger.jsonl")),
                    *("--workspace", str(self.workspace)),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )
        assert self.sim.stdout is not None
        line = self.sim.stdout.readline()
        if not line:
            raise Broken("the simulator did not start")
        path = self.folder / "endpoints.json"
        path.write_text(line)
        path.chmod(0o600)
        self.endpoints = json.loads(line)

    def start(self, kill: str = "") -> None:
        """Start the bot, and wait until it trades or is dead."""
        self.n_starts += 1
        before = self.said().count("began:")
        self.dies = bool(kill)
        self.ended = None
        self.starts.append(len(self.read_ledger()))
        self.bot = self.launch(f"bot{self.n_starts}", kill)
        self.wait_for(
            lambda: self.bot_ended() or self.said().count("began:") > before,
            START_S,
            "the bot does not begin",
        )
        self.look_at_process()
        self.alive()

    def launch(self, name: str, kill: str = "") -> subprocess.Popen[bytes]:
        environ = {k: v for k, v in os.environ.items() if k != "PASSIVX_FAULT_POINT"}
        if kill:
            environ["PASSIVX_FAULT_POINT"] = kill
        with (
            (self.folder / f"{name}.out").open("wb") as out,
            (self.folder / f"{name}.err").open("wb") as err,
        ):
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "passivx", "run", self.plan.exchange, "chaos"),
                    *("--endpoints", str(self.folder / "endpoints.json"), "--yes"),
                    *("--on-exit", self.plan.on_exit, "--workspace", str(self.workspace)),
                ],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def said(self) -> str:
        """What the bots have said so far, all of them."""
        return "".join(
            path.read_text(errors="replace") for path in sorted(self.folder.glob("bot*.err"))
        )

    def bot_ended(self) -> bool:
        return self.bot is None or self.bot.poll() is not None

    def alive(self) -> None:
        """Notice a bot that has ended without being told to."""
        if self.bot is None or self.bot.poll() is None:
            return
        code = self.bot.returncode
        if self.dies and code == -signal.SIGKILL:
            return
        raise Broken(f"I15: the bot ended by itself with code {code}: {self.said()[-2000:]}")

    def look_at_process(self) -> None:
        assert self.bot is not None
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                content = Path(f"/proc/{self.bot.pid}/{name}").read_bytes()
                self.find_secrets(content, f"/proc/PID/{name}")

    # --- the control port ---

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        request = urllib.request.Request(
            self.endpoints["control"] + path,
            data=None if body is None else orjson.dumps(body),
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
            return content

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.ask("GET", "/state"))
        return found

    def read_ledger(self) -> list[Line]:
        """Bring the lines up to date, and return them all."""
        new = self.ask("GET", f"/ledger?since={len(self.lines)}")
        self.lines += [orjson.loads(line) for line in new.splitlines()]
        return self.lines

    def post(self, rules: list[dict[str, Any]]) -> list[int]:
        ids: list[int] = orjson.loads(self.ask("POST", "/fault", rules))["ids"]
        return ids

    def push(self) -> None:
        """Have a print go through the nearest orders now and then, one side after the other."""
        now_s = time.monotonic()
        if now_s - self.pushed_s >= PUSH_S:
            self.pushed_s = now_s
            self.n_pushes += 1
            self.post([{"do": "mkt.jump", "fraction": 0.0025 * (-1) ** self.n_pushes}])

    # --- waiting ---

    def wait_for(
        self, done: Callable[[], bool], within_s: float, why: str, *, provoke: bool = False
    ) -> None:
        if not self.waited(done, within_s, provoke=provoke):
            raise Broken(f"{why} within {within_s:g} s: {self.said()[-1000:]}")

    def waited(self, done: Callable[[], bool], within_s: float, *, provoke: bool = False) -> bool:
        until_s = time.monotonic() + within_s
        while not done():
            if time.monotonic() >= until_s:
                return False
            if provoke:
                self.push()
            time.sleep(POLL_S / 5)
        return True

    # --- acts ---

    def perform(self) -> None:
        """Do what the plan is about."""
        for act in self.plan.acts:
            self.act(act)

    def act(self, act: Act) -> None:
        getattr(self, f"do_{act['do']}")(**{k: v for k, v in act.items() if k != "do"})

    def do_start(self, kill: str) -> None:
        self.start(kill)

    def do_wait(self, s: float, provoke: bool) -> None:
        self.waited(lambda: False, s, provoke=provoke)
        self.alive()

    def do_faults(self, rules: list[dict[str, Any]], s: float, provoke: bool) -> None:
        """Post them, and wait until each has fired; one whose moment never comes is noted."""
        ids = set(self.post(rules))

        def fired() -> bool:
            self.alive()
            seen = {line["id"] for line in self.read_ledger() if line["event"] == "fault"}
            return ids <= seen

        if not self.waited(fired, s, provoke=provoke):
            seen = {line["id"] for line in self.read_ledger() if line["event"] == "fault"}
            idle = [rule for id, rule in zip(sorted(ids), rules, strict=True) if id not in seen]
            self.notes.append(f"did not fire: {idle}")
        self.waited(lambda: False, 0.5)

    def do_died(self, s: float) -> None:
        if not self.waited(self.bot_ended, s, provoke=True):
            self.notes.append("the fault point was not reached")
            self.do_kill()
        self.alive()
        self.bot = None

    def do_kill(self) -> None:
        if self.bot is not None and self.bot.poll() is None:
            self.bot.kill()
            self.bot.wait()
        self.bot = None

    def do_pause(self, s: float, orders_go: bool = False) -> None:
        assert self.bot is not None
        self.bot.send_signal(signal.SIGSTOP)
        try:
            if orders_go:
                self.do_abandoned(s)
            else:
                self.waited(lambda: False, s, provoke=True)
        finally:
            self.bot.send_signal(signal.SIGCONT)

    def do_second(self) -> None:
        """Another instance must see that there is one, and leave the venue alone."""
        at = len(self.read_ledger())
        second = self.launch("second")
        try:
            code = second.wait(START_S)
        except subprocess.TimeoutExpired:
            second.kill()
            second.wait()
            raise Broken("P6: a second instance runs beside the first") from None
        said = (self.folder / "second.err").read_text()
        if code in (0, -signal.SIGKILL) or "Traceback" in said:
            self.wrong.append(f"P6: a second instance ended with code {code}: {said[-500:]}")
        instances = {
            own[2]
            for line in self.read_ledger()[at:]
            if line["event"] == "order" and (own := OWN.fullmatch(line["client_id"] or ""))
        }
        if len(instances) > 1:
            self.wrong.append(f"P6: orders of {instances} while one instance should run")

    def do_lose_journal(self) -> None:
        for path in self.journal_files():
            kept = self.folder / f"lost{self.n_starts}" / path.name
            kept.parent.mkdir(exist_ok=True)
            shutil.move(path, kept)

    def journal_files(self) -> list[Path]:
        folder = self.workspace / "live_state" / self.plan.exchange
        return sorted(folder.glob("*/journal.db*"))

    def do_stop(self, on_exit: str) -> None:
        self.stop()

    def do_resting(self, s: float) -> None:
        """Wait for the bot to have orders at the venue, a second long."""
        since_s = time.monotonic()

        def rests() -> bool:
            nonlocal since_s
            if not self.own_orders():
                since_s = time.monotonic()
            return time.monotonic() - since_s > 1.0

        self.wait_for(rests, s, "no orders rest")

    def do_abandoned(self, s: float) -> None:
        """Nobody is there: every order of the bot must go."""
        begun_s = time.monotonic()
        if not self.waited(lambda: not self.own_orders(), s):
            self.wrong.append(f"I15: nobody cancelled {self.own_orders()} within {s:g} s")
        self.figures["abandoned_s"] = round(time.monotonic() - begun_s, 2)

    def own_orders(self) -> list[dict[str, Any]]:
        return [o for o in self.state()["orders"] if o["client_id"].startswith("pvx-")]

    def stop(self) -> None:
        """End the bot as an operator does, and see how it goes."""
        bot = self.bot
        assert bot is not None
        self.alive()
        asked_ms = time.time() * 1e3
        begun_s = time.monotonic()
        bot.terminate()
        try:
            code = bot.wait(STOP_S * 3)
        except subprocess.TimeoutExpired:
            bot.kill()
            bot.wait()
            raise Broken(f"I9: the bot does not end: {self.said()[-1000:]}") from None
        took_s = time.monotonic() - begun_s
        ended_ms = time.time() * 1e3
        self.figures["stop_s"] = max(self.figures.get("stop_s", 0.0), round(took_s, 2))
        if took_s > STOP_S:
            self.wrong.append(f"I9: the stop took {took_s:.2f} s")
        if code != 0:
            self.wrong.append(f"I9: exit code {code} after a stop: {self.said()[-1000:]}")
        time.sleep(SETTLE_S)
        lines = self.read_ledger()
        # When the bot heard of it, by its own log: the signal takes a moment on a busy machine.
        heard_ms = max([asked_ms, *self.log_times("stopping")])
        first = next((i for i, each in enumerate(lines) if each["ts_ms"] > heard_ms + 5), None)
        last = next((i for i, each in enumerate(lines) if each["ts_ms"] > ended_ms), len(lines))
        if first is not None:
            but = "p" if self.plan.on_exit == "flatten" else ""
            self.spans.append(Span(first, len(lines), "after the stop was asked for", but=but))
        self.spans.append(Span(last, len(lines), "after the bot had ended", creates=False))
        self.ended = last
        left = self.own_orders()
        if left and self.plan.on_exit != "keep":
            self.wrong.append(f"I9: orders were left by --on-exit {self.plan.on_exit}: {left}")
        if self.plan.on_exit == "flatten" and (size := self.state()["position"]):
            self.wrong.append(f"a position of {size:g} was left by --on-exit flatten")
        self.bot = None

    def log_times(self, event: str) -> list[float]:
        path = self.workspace / "logs" / self.plan.exchange / "chaos.log"
        rows = [orjson.loads(row) for row in path.read_bytes().splitlines()]
        return [row["ts_ms"] for row in rows if row["event"] == event][-1:]

    # --- judging ---

    def status(self) -> dict[str, Any]:
        for path in (self.workspace / "live_state" / self.plan.exchange).glob("*/status.json"):
            found: dict[str, Any] = orjson.loads(path.read_bytes())
            return found
        return {}

    def entries(self, *, all_of_them: bool) -> list[Entry]:
        files = [path for path in self.journal_files() if path.name == "journal.db"]
        if all_of_them:
            files = [*sorted(self.folder.glob("lost*/journal.db")), *files]
        return [entry for path in files for entry in read_entries(path)]

    def subject(self) -> Subject:
        market_path = find_market(
            self.plan.exchange, str(self.plan.settings()["symbol"]), self.workspace
        )
        assert market_path is not None
        return Subject(
            exchange=self.plan.exchange,
            config=load_config(self.plan.settings()),
            market=load_market(market_path),
            wallet=self.plan.balance,
            flattens=self.plan.on_exit == "flatten",
            spans=self.spans,
            starts=self.starts,
            ended=self.ended,
        )

    def converge(self) -> None:
        """Wait for the venue to hold what the planner wants, and the bot's books to agree."""
        begun_s = time.monotonic()
        why = ""

        def right() -> bool:
            nonlocal why
            self.alive()
            why = self.disagreement()
            return not why

        within_s = self.plan.liveness_s
        done = self.waited(right, within_s)
        self.figures["converged_s"] = round(time.monotonic() - begun_s, 2)
        if not done:
            status = {k: self.status().get(k) for k in ("mode", "reasons", "halted", "counts")}
            self.wrong.append(f"I5/I6: not within {within_s:g} s: {why}; the bot says {status}")

    def disagreement(self) -> str:
        """Say what of the venue's state is not as it should be, "" if nothing."""
        subject = self.subject()
        lines = list(self.read_ledger())
        state, status = self.state(), self.status()
        for line in lines:
            if line["event"] == "fault" and line["do"] == "mkt.rules" and "args" in line:
                rules = {k: v for k, v in line["args"].items() if hasattr(subject.market, k)}
                subject = replace(subject, market=replace(subject.market, **rules))
        *_, (_, _, book) = replayed(lines, subject.wallet, subject.market)
        intents = {e.key: e for e in self.entries(all_of_them=True) if e.type == "intent"}
        return _books(state, status, subject) or _ladder(state, status, subject, book, intents)

    def find_secrets(self, content: bytes, where: str) -> None:
        for name in ("key", "secret"):
            if self.endpoints[name].encode() in content:
                self.wrong.append(f"I14: the {name} is in {where}")
        for found in SECRET_LIKE.findall(content):
            self.wrong.append(f"I14: {found[:12].decode()}… looks like a secret, in {where}")

    def scan(self) -> None:
        """I14: look into everything that the bot has left."""
        for path in [
            *self.workspace.rglob("*"),
            *self.folder.glob("bot*"),
            *self.folder.glob("second*"),
        ]:
            if path.is_file():
                self.find_secrets(path.read_bytes(), str(path.relative_to(self.folder)))

    # --- all of it ---

    def go(self) -> Report:
        begun_s = time.monotonic()
        (self.folder / "plan.json").write_text(self.plan.to_json())
        try:
            self.start_sim()
            self.start()
            self.waited(lambda: False, self.plan.warm_up_s)
            self.perform()
            self.ask("DELETE", "/fault")
            self.converge()
            self.stop()
        except Broken as e:
            self.wrong.append(str(e))
        finally:
            self.end()
        if self.lines:
            self.judge()
        self.scan()
        for said in self.said().split("Traceback")[1:]:
            self.wrong.append(f"I15: a traceback: {said[-1500:]}")
        self.figures |= {
            "took_s": round(time.monotonic() - begun_s, 1),
            "lines": len(self.lines),
            "fills": sum(line["event"] == "fill" for line in self.lines),
            "orders": sum(line["event"] == "order" for line in self.lines),
            "starts": self.n_starts,
            "notes": self.notes,
        }
        report = Report(self.plan, self.folder, self.wrong, self.figures)
        (self.folder / "report.txt").write_text(str(report))
        return report

    def judge(self) -> None:
        found: list[Violation] = check_all(
            self.lines,
            self.entries(all_of_them=True),
            self.subject(),
            last_entries=self.entries(all_of_them=False),
        )
        self.wrong += [str(each) for each in found]

    def end(self) -> None:
        self.do_kill()
        if self.sim is None:
            return
        if self.endpoints and self.sim.poll() is None:
            with contextlib.suppress(OSError):
                self.read_ledger()
        self.sim.terminate()
        try:
            self.sim.wait(10)
        except subprocess.TimeoutExpired:
            self.sim.kill()
            self.sim.wait()
        assert self.sim.stdout is not None
        self.sim.stdout.close()
        if "Traceback" in (said := (self.folder / "sim.err").read_text()):
            self.wrong.append(f"the simulator failed: {said[-1000:]}")


def _books(state: dict[str, Any], status: dict[str, Any], subject: Subject) -> str:
    """I5: what the bot believes, against what is."""
    if status.get("mode") != "active":
        return f"the bot is {status.get('mode')}: {status.get('reasons')}"
    if status["position"]["size"] != state["position"]:
        return f"the bot's position is {status['position']['size']}, not {state['position']}"
    if abs(status["wallet"] - state["wallet"]) > 1e-6 * state["wallet"]:
        return f"the bot's wallet is {status['wallet']}, not {state['wallet']}"
    theirs = {o["client_id"] for o in state["orders"] if o["client_id"].startswith("pvx-")}
    ours = {o["client_id"] for o in status["orders"]}
    if theirs != ours:
        return f"orders: only the venue knows {theirs - ours}, only the bot {ours - theirs}"
    return ""


def _ladder(
    state: dict[str, Any],
    status: dict[str, Any],
    subject: Subject,
    book: Book,
    intents: dict[str, Entry],
) -> str:
    """I6: the orders of the bot at the venue, against the plan for the venue's own account."""
    config, market = subject.config, subject.market
    orders = [o for o in state["orders"] if o["client_id"].startswith("pvx-")]
    places = [(o["side"], _ideal(o, intents)) for o in orders]
    if len(set(places)) != len(places):
        return f"two orders of one slot: {orders}"
    size = state["position"]
    reducing = sum(o["qty"] - o["filled"] for o in orders if o["reduce_only"])
    if reducing > abs(size) + market.qty_step / 2:
        return f"closes of {reducing:g} for a position of {size:g}"
    held = Position(size, state["entry_price"], state["liq_price"]) if size else None
    why = ""
    # What the close grid was built from is not known after a journal was lost.
    for base in dict.fromkeys((max(book.base, abs(size)), abs(size))):
        planned = plan_orders(
            config,
            market,
            wallet=state["wallet"],
            last_price=state["mark_price"],
            ema=status["market"]["ema"],
            position=held,
            bid=state["bid"],
            ask=state["ask"],
            close_base=base if size else None,
        )
        why = (
            _held_wrong(planned, orders, intents, market.qty_step)
            if size
            else _flat_wrong(planned, orders, market.qty_step)
        )
        if not why:
            return ""
    return why


def _ideal(order: dict[str, Any], intents: dict[str, Entry]) -> float:
    intent = intents.get(order["client_id"])
    price: float = intent.body["ideal_price"] if intent else order["price"]
    return price


def _flat_wrong(planned: list[PlannedOrder], orders: list[dict[str, Any]], qty_step: float) -> str:
    for side, name in ((1, "buy"), (-1, "sell")):
        wanted = [each for each in planned if each.side == side]
        there = [each for each in orders if each["side"] == name]
        if len(wanted) != len(there):
            return f"flat, with {there}, wanted {wanted}"
        for plan, order in zip(wanted, there, strict=True):
            near = min(abs(order["price"] - p) / p for p in (plan.price, plan.ideal_price))
            off = abs(order["qty"] - plan.qty)
            if near > FLAT_TOLERANCE or off > QTY_TOLERANCE * plan.qty + qty_step:
                return f"flat, with {order}, wanted {plan}"
    return ""


def _held_wrong(
    planned: list[PlannedOrder],
    orders: list[dict[str, Any]],
    intents: dict[str, Entry],
    qty_step: float,
) -> str:
    left = []
    for order in orders:
        side = 1 if order["side"] == "buy" else -1
        qty = order["qty"] - order["filled"]
        left.append((side, _ideal(order, intents), qty, order["reduce_only"], order))
    stops = [row for row in left if OWN.fullmatch(row[4]["client_id"])[1] in "sp"]  # type: ignore[index]
    if len(stops) > 1:
        return f"two stops: {stops}"
    if stops or any("stop" in each.kind for each in planned):
        # It takes from the farthest closes what it will close, by a price that is gone.
        return ""
    for plan in planned:
        for row in left:
            side, ideal, qty, reduce_only, _ = row
            if (
                (side, reduce_only) == (plan.side, plan.reduce_only)
                and ideal in (plan.ideal_price, plan.price)
                and abs(qty - plan.qty) < qty_step / 2
            ):
                left.remove(row)
                break
        else:
            if plan.now:
                return f"missing: {plan}; there are {[row[:4] for row in left]}"
    if left:
        return f"too many: {[row[4] for row in left]}"
    return ""


def run(plan: Plan, folder: Path | None = None) -> Report:
    """Run a plan in a folder of its own, and return what came of it."""
    folder = folder or Path(tempfile.mkdtemp(prefix=f"chaos-{plan.name}-"))
    folder.mkdir(parents=True, exist_ok=True)
    return Run(plan, folder).go()


def main() -> int:
    """Run the plans that the command line names; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, action="append", default=[])
    parser.add_argument("--name", action="append", default=[])
    parser.add_argument("--plan", type=Path, action="append", default=[])
    args = parser.parse_args()
    chosen = [
        *(plans(seed) for seed in args.seed),
        *(named(name) for name in args.name),
        *(plan_of(path.read_text()) for path in args.plan),
    ]
    failed = 0
    for plan in chosen:
        report = run(plan)
        print(report, flush=True)
        failed += bool(report.wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
