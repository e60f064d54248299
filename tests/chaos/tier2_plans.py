"""Plans of the second tier: all that a run does, as a value that is saved and replayed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["CHANGES", "Plan", "named", "plan_of", "plans"]

Act = dict[str, Any]
Rule = dict[str, Any]

SYMBOLS = {"binance": "BTCUSDT", "bybit": "BTCUSD"}
# Narrow and busy: some fills a minute at 30 times the speed, and enough orders for things to happen
# to. Stops are out of the way but where a plan brings them in.
BUSY: dict[str, Any] = {
    "config_name": "chaos",
    "logging_level": 1,
    "cross_mode": True,
    "balance_pct": 0.5,
    "leverage": 5,
    "entry_qty_pct": 0.05,
    "ddown_factor": 0.5,
    "grid_spacing": 0.001,
    "grid_coefficient": 5.0,
    "n_entry_orders": 5,
    "min_markup": 0.0006,
    "max_markup": 0.002,
    "n_close_orders": 4,
    "min_close_qty_multiplier": 0.3,
    "indicator_settings": {
        "tick_ema": {"span": 500, "spread": 0.0002},
        "do_long": True,
        "do_shrt": True,
    },
    "stop_loss_liq_diff": 0.1,
    "stop_loss_pos_price_diff": 0.3,
    "stop_loss_pos_reduction": 0.05,
    "market_stop_loss": False,
    "requote_ms": 2000,
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run: a warm-up, then ``acts`` one after the other, heal, liveness, stop.

    Acts: ``start`` (kill: a fault point), ``faults`` (rules, until they have fired or ``s`` has
    passed), ``wait``, ``died`` (at the fault point), ``kill``, ``pause`` (SIGSTOP), ``second``
    (another instance), ``lose_journal``, ``stop`` (in between), ``resting``
    (until it has orders), ``abandoned`` (nobody starts it again: its orders must go).
    ``provoke``: the price is pushed about meanwhile.
    """

    name: str
    seed: int
    exchange: str
    speed: float = 30.0
    market_seed: int = 1
    wallet: float = 0.0  # 0: of the exchange
    config: dict[str, Any] = field(default_factory=dict)
    on_exit: str = "cancel"
    warm_up_s: float = 3.0
    acts: list[Act] = field(default_factory=list)
    liveness_s: float = 15.0

    def to_json(self) -> str:
        """Return the plan as it is printed and saved."""
        return json.dumps(asdict(self))

    def settings(self) -> dict[str, Any]:
        """Return the bot's whole config."""
        return BUSY | {"symbol": SYMBOLS[self.exchange]} | self.config

    @property
    def balance(self) -> float:
        """The wallet it begins with."""
        return self.wallet or {"binance": 10_000.0, "bybit": 0.2}[self.exchange]


def plan_of(text: str) -> Plan:
    """Return the plan that `Plan.to_json` has written."""
    return Plan(**json.loads(text))


# --- what a plan is made of -----------------------------------------------------------------------


def faults(*rules: Rule, s: float = 8.0, provoke: bool = True) -> Act:
    return {"do": "faults", "rules": list(rules), "s": s, "provoke": provoke}


def wait(s: float, *, provoke: bool = False) -> Act:
    return {"do": "wait", "s": s, "provoke": provoke}


def start(kill: str = "") -> Act:
    return {"do": "start", "kill": kill}


def died(s: float = 15.0) -> Act:
    return {"do": "died", "s": s}


def killed_at(point: str, nth: int = 1) -> list[Act]:
    """End the run there is, start one that dies there, and one that lives."""
    return [{"do": "kill"}, start(f"{point}:{nth}"), died(), start()]


def on(name: str, nth: int = 1) -> dict[str, Any]:
    return {"on": name, "nth": nth}


def market_channel(exchange: str) -> str:
    """Name the channel that trades come on."""
    return "market" if exchange == "binance" else "public"


def too_often(exchange: str, seconds: int) -> Rule:
    """Refuse a read for its frequency, in the venue's words."""
    if exchange == "binance":
        return {
            "do": "rest.reply",
            "status": 429,
            "headers": {"Retry-After": str(seconds)},
            "body": '{"code":-1003,"msg":"Too many requests; current limit is 2400."}',
            "when": on("read"),
        }
    return {
        "do": "rest.reply",
        "status": 200,
        "body": '{"retCode":10006,"retMsg":"Too many visits!","result":{},"time":0}',
        "when": on("read"),
    }


def _groups(exchange: str) -> dict[str, list[Callable[[random.Random], list[Act]]]]:
    trades = market_channel(exchange)
    reads = (
        ("GET /fapi/v1/openOrders", "GET /fapi/v3/positionRisk")
        if exchange == "binance"
        else ("GET /v5/order/realtime", "GET /v5/position/list")
    )

    def ws(do: str, channel: str, **args: Any) -> list[Act]:
        return [faults({"do": do, "channel": channel, **args}, s=1.0), wait(1.5, provoke=True)]

    channels = ("private", trades, "trade")
    return {
        "W": [
            lambda r: [
                faults({"do": "ws.stall", "channel": "private", "s": 40}, s=1.0),
                wait(r.uniform(8, 33), provoke=True),
            ],
            lambda r: [
                faults({"do": "ws.stall", "channel": trades, "s": 30}, s=1.0),
                wait(r.uniform(11, 16), provoke=True),
            ],
            lambda r: ws(r.choice(["ws.rst", "ws.fin"]), r.choice(channels)),
            lambda r: ws("ws.close", r.choice(channels), code=r.choice([1000, 1001, 1008, 1012])),
            lambda r: ws("ws.cut", r.choice(channels), bytes=r.randrange(1, 200)),
            lambda r: ws("ws.dup", r.choice(("private", trades)), count=r.randrange(1, 50)),
            lambda r: ws("ws.reorder", "private", window=r.randrange(2, 8), s=1.0),
            lambda r: ws("ws.drop", trades, count=r.randrange(1, 40)),
            lambda r: ws("ws.freeze", r.choice(channels), s=r.choice([2, 13])),
            lambda r: ws("ws.hold", "private", s=r.uniform(1, 4)),
            lambda r: ws("ws.burst", r.choice(("private", trades)), count=r.choice([100, 5000])),
            lambda r: ws("ws.ping", r.choice(channels), count=r.choice([10, 1000])),
            lambda r: ws("ws.raw", r.choice(("private", trades)), text='{"e":"??","x":[1e999'),
            lambda r: [
                faults(
                    {"do": "ws.rst", "channel": "private"},
                    {
                        "do": "rest.reply",
                        "status": 503,
                        "when": on("connect:private"),
                        "times": r.randrange(1, 4),
                    },
                )
            ],
        ],
        "R": [
            lambda r: [faults({"do": "rest.drop_after", "when": on("order", r.randrange(1, 4))})],
            lambda r: [faults({"do": "rest.drop_before", "when": on("order", r.randrange(1, 4))})],
            lambda r: [faults({"do": "rest.delay_exec", "s": 3, "when": on("order")})],
            lambda r: [faults({"do": "rest.delay", "s": 2, "when": on("order")})],
            lambda r: [
                faults(
                    {"do": "rest.drop_after", "when": on("order")},
                    {"do": "ord.partial", "fraction": 1.0, "when": {"event": "order"}},
                )
            ],
            lambda r: [faults(too_often(exchange, r.choice([2, 5])), s=32.0)],
            lambda r: [
                faults(
                    {
                        "do": "rest.reply",
                        "status": r.choice([502, 503]),
                        "body": "<html>maintenance</html>",
                        "when": on("read"),
                        "times": r.randrange(1, 6),
                    },
                    {"do": "ws.rst", "channel": "private"},
                )
            ],
            lambda r: [
                faults(
                    {"do": "rest.truncate", "bytes": r.randrange(0, 40), "when": on("read")},
                    {"do": "ws.rst", "channel": "private"},
                )
            ],
            lambda r: [
                faults(
                    {"do": "rest.stale", "s": 5, "when": on(r.choice(reads)), "times": 2},
                    {"do": "ws.rst", "channel": "private"},
                )
            ],
            lambda r: [
                faults({"do": "clock.skew", "ms": r.choice([-6000, 6000])}, s=1.0),
                wait(4.0, provoke=True),
                faults({"do": "clock.skew", "ms": 0}, s=1.0),
            ],
        ],
        "O": [
            lambda r: [faults({"do": "ord.venue_cancel"}, s=1.0)],
            lambda r: [faults({"do": "ord.partial", "fraction": r.uniform(0.2, 0.8)}, s=1.0)],
            lambda r: [faults({"do": "rest.drop_after", "when": on("cancel")})],
            lambda r: [faults({"do": "rest.drop_before", "when": on("cancel")})],
            lambda r: [faults({"do": "rest.delay_exec", "s": 2, "when": on("cancel")})],
            lambda r: [
                faults(
                    {"do": "ord.partial", "fraction": 1.0, "when": on("cancel")},
                )
            ],
            lambda r: [faults({"do": "ext.close", "fraction": r.choice([0.5, 1.0])}, s=1.0)],
            lambda r: [faults({"do": "ext.clone"}, s=1.0)],
            lambda r: [faults({"do": "ext.flip"}, s=1.0)],
            lambda r: [faults({"do": "mkt.jump", "fraction": r.choice([-0.03, 0.03])}, s=1.0)],
            lambda r: [
                faults({"do": "rest.delay", "s": 1, "when": on("order")}, s=6.0),
                faults({"do": "ord.partial", "fraction": 0.5, "when": {"event": "order"}}),
            ],
        ],
        "A": [
            lambda r: [faults({"do": "acct.funding", "rate": r.choice([-0.001, 0.001])}, s=1.0)],
            lambda r: [faults({"do": "acct.balance", "factor": r.choice([0.6, 1.5])}, s=1.0)],
            lambda r: [faults({"do": "acct.adl", "fraction": 0.5}, s=1.0)],
            lambda r: [
                faults({"do": "acct.leverage", "leverage": 2}, s=1.0),
                wait(1.0),
                faults({"do": "acct.leverage", "leverage": 5}, s=1.0),
            ],
        ],
        "P": [
            lambda r: killed_at("after_journal", r.randrange(1, 5)),
            lambda r: killed_at("after_send", r.randrange(1, 5)),
            lambda r: killed_at("before_fill_commit", r.randrange(1, 3)),
            lambda r: killed_at("after_fill_commit", r.randrange(1, 3)),
            lambda r: killed_at("after_cancel", r.randrange(1, 3)),
            lambda r: killed_at("while_opening"),
            lambda r: [{"do": "kill"}, wait(r.uniform(0, 3), provoke=True), start()],
            lambda r: [{"do": "pause", "s": 12.0}],
            lambda r: [{"do": "second"}],
            lambda r: [{"do": "kill"}, {"do": "lose_journal"}, start()],
            lambda r: [{"do": "stop", "on_exit": ""}, start()],
        ],
    }


def plans(seed: int) -> Plan:
    """Return the plan of a seed."""
    r = random.Random(seed)
    exchange = r.choice(["binance", "bybit"])
    groups = _groups(exchange)
    blocks = [r.choice(makers)(r) for makers in groups.values()]
    blocks += [r.choice(groups[r.choice(list(groups))])(r) for _ in range(r.randrange(0, 5))]
    # A start costs a seventh of what Binance allows in a minute.
    while sum(act["do"] == "start" for block in blocks for act in block) > 4:
        del blocks[max(i for i, b in enumerate(blocks) if any(a["do"] == "start" for a in b))]
    r.shuffle(blocks)
    config: dict[str, Any] = {}
    if r.random() < 0.3:
        config = {"stop_loss_pos_price_diff": 0.004, "market_stop_loss": r.random() < 0.5}
    return Plan(
        name=f"seed-{seed}",
        seed=seed,
        exchange=exchange,
        speed=r.choice([20.0, 30.0, 50.0]),
        market_seed=r.randrange(1, 1000),
        config=config,
        on_exit=r.choice(["cancel", "cancel", "keep", "flatten"]),
        acts=(acts := [act for block in blocks for act in block]),
        liveness_s=_liveness_s(acts),
    )


def _liveness_s(acts: list[Act]) -> float:
    """Return how long the bot may take to be right again, once all is well."""
    rules = [rule for act in acts for rule in act.get("rules", [])]
    lossy = ("ws.stall", "ws.freeze", "ws.drop")
    if any(rule["do"] in lossy and rule["channel"] == "private" for rule in rules):
        # What a silent stream has lost is found by the next reconciliation.
        return 45.0
    # A fence of 7 s for what is not known, and what the venue asks to wait.
    return 30.0


# --- the plans of every change --------------------------------------------------------------------

_B, _Y = "binance", "bybit"

CHANGES: list[Plan] = [
    Plan(
        name="killed-before-sending",
        seed=1,
        exchange=_B,
        market_seed=3,
        acts=[
            *killed_at("after_journal", 2),
            faults({"do": "rest.drop_before", "when": on("order")}),
            faults({"do": "rest.drop_after", "when": on("cancel")}),
            faults({"do": "acct.funding", "rate": 0.001}, s=1.0),
            faults({"do": "ws.dup", "channel": "private", "count": 20}, s=1.0),
            faults({"do": "ext.close", "fraction": 1.0}, s=1.0),
        ],
    ),
    Plan(
        name="silent-streams",
        seed=2,
        exchange=_B,
        market_seed=5,
        acts=[
            faults({"do": "ws.stall", "channel": "private", "s": 60}, s=1.0),
            # The read that it meets is the one for the trades that are missing.
            faults({"do": "ws.stall", "channel": "market", "s": 60}, too_often(_B, 3), s=15.0),
            faults({"do": "ord.venue_cancel"}, s=1.0),
        ],
        # What was lost meanwhile is found by the next reconciliation.
        liveness_s=32.0,
    ),
    Plan(
        name="killed-after-sending",
        seed=3,
        exchange=_Y,
        market_seed=7,
        acts=[
            *killed_at("after_send", 2),
            faults({"do": "rest.drop_after", "when": on("order")}),
            faults({"do": "ord.venue_cancel"}, s=1.0),
            faults({"do": "acct.balance", "factor": 0.7}, s=1.0),
            faults({"do": "ws.rst", "channel": "private"}, s=1.0),
            faults({"do": "ext.close", "fraction": 0.5}, s=1.0),
        ],
    ),
    Plan(
        name="killed-with-a-fill",
        seed=4,
        exchange=_Y,
        market_seed=11,
        acts=[
            faults({"do": "ext.order", "side": "buy", "price": 45000.0, "qty": 10.0}, s=1.0),
            *killed_at("before_fill_commit"),
            {"do": "second"},
            faults({"do": "rest.drop_before", "when": on("cancel")}),
            {"do": "kill"},
            {"do": "lose_journal"},
            start(),
            faults({"do": "acct.adl", "fraction": 0.5}, s=1.0),
            faults({"do": "ws.cut", "channel": "public", "bytes": 20}, s=1.0),
        ],
    ),
    Plan(
        name="stood-still",
        seed=5,
        exchange=_B,
        market_seed=13,
        on_exit="flatten",
        config={"stop_loss_pos_price_diff": 0.004, "market_stop_loss": True},
        acts=[
            faults({"do": "ext.clone"}, s=1.0),
            {"do": "pause", "s": 12.0},
            faults({"do": "rest.delay_exec", "s": 2, "when": on("cancel")}, s=5.0),
            faults({"do": "mkt.jump", "fraction": -0.03}, s=1.0),
            faults({"do": "acct.leverage", "leverage": 2}, s=1.0),
            faults({"do": "acct.leverage", "leverage": 5}, s=1.0),
        ],
    ),
]

ABANDONED = [
    Plan(
        name="abandoned-on-bybit",
        seed=6,
        exchange=_Y,
        market_seed=17,
        acts=[
            {"do": "resting", "s": 20.0},
            {"do": "kill"},
            {"do": "abandoned", "s": 25.0},
            start(),
        ],
    ),
    Plan(
        name="hung-on-bybit",
        seed=7,
        exchange=_Y,
        market_seed=19,
        acts=[{"do": "resting", "s": 20.0}, {"do": "pause", "s": 26.0, "orders_go": True}],
        # What its watchdog has cancelled it takes for the venue's doing, and waits a minute.
        liveness_s=75.0,
    ),
]


def named(name: str) -> Plan:
    """Return one of the plans that have a name."""
    return next(plan for plan in [*CHANGES, *ABANDONED] if plan.name == name)
