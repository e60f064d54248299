"""A long stretch of the market in a short time: memory, lag and books of a bot that is left alone.

    python -m tests.chaos.soak [--speed X] [--messages N]

The figures go to build/soak.json. Messages are the trades that the bot has heard, by its tape:
quotes come on top.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from passivx.live.tape import TRADE_DTYPE
from tests.chaos.tier2 import ROOT, Broken, Report, Run
from tests.chaos.tier2_plans import Plan

__all__ = ["FIGURES", "soak"]

FIGURES = ROOT / "build" / "soak.json"
HOUR_S = 3600.0
MESSAGES = 1_000_000
LAG_S = 0.020
# What may be added to the memory between the first quarter's end and the end: books and caches that
# have a bound of their own fill up.
GROWTH_MB = 12.0
SAMPLE_S = 0.5
# A grid of the width that people use: at this speed a narrow one would live off the rate limits.
CALM: dict[str, Any] = {"grid_spacing": 0.003, "min_markup": 0.0015, "max_markup": 0.005}


@dataclass
class Soak(Run):
    """A run that is only watched; until so many messages and an hour of the market have passed."""

    messages: int = MESSAGES
    rss_mb: list[float] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)

    def perform(self) -> None:
        assert self.bot is not None
        began_s, began_ms = time.monotonic(), self.state()["replay_ts_ms"]
        cpu_s = self.cpu_s()
        seen = 0
        while True:
            time.sleep(SAMPLE_S)
            self.alive()
            self.rss_mb.append(self.rss_now_mb())
            status = self.status()
            if status.get("written_ms", 0) != seen:
                seen = status["written_ms"]
                self.lags_s.append(status["loop_lag_s"])
            market_s = (self.state()["replay_ts_ms"] - began_ms) / 1e3
            took_s = time.monotonic() - began_s
            if self.heard() >= self.messages and market_s >= HOUR_S:
                break
            if took_s > HOUR_S:
                raise Broken(f"{self.heard()} messages within an hour of the clock")
        self.figures |= {
            "market_s": round(market_s),
            "soak_s": round(took_s, 1),
            "speed": round(market_s / took_s, 1),
            "messages": self.heard(),
            "cpu_share": round((self.cpu_s() - cpu_s) / took_s, 3),
            "lag_p50_ms": round(1e3 * float(np.percentile(self.lags_s, 50)), 2),
            "lag_p99_ms": round(1e3 * float(np.percentile(self.lags_s, 99)), 2),
            "lag_max_ms": round(1e3 * max(self.lags_s), 2),
            "lag_samples": len(self.lags_s),
            "rss_first_mb": round(self.rss_mb[len(self.rss_mb) // 4], 1),
            "rss_last_mb": round(self.rss_mb[-1], 1),
            "rss_max_mb": round(max(self.rss_mb), 1),
        }
        grown = self.figures["rss_last_mb"] - self.figures["rss_first_mb"]
        if grown > GROWTH_MB:
            self.wrong.append(f"I15: memory has grown by {grown:.1f} MB: {self.rss_mb[::20]}")
        if self.figures["lag_p99_ms"] > 1e3 * LAG_S:
            self.wrong.append(f"I15: the loop's lag is {self.figures['lag_p99_ms']} ms at p99")

    def heard(self) -> int:
        files = (self.workspace / "live_state" / self.plan.exchange).glob("*/tape/*.trades")
        return sum(path.stat().st_size for path in files) // TRADE_DTYPE.itemsize

    def rss_now_mb(self) -> float:
        assert self.bot is not None
        pages = int(Path(f"/proc/{self.bot.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        assert self.bot is not None
        # After the name, which may hold anything: user and system time, in ticks.
        fields = Path(f"/proc/{self.bot.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def soak(
    folder: Path, *, exchange: str = "binance", speed: float = 200.0, messages: int = MESSAGES
) -> Report:
    """Run it, and write its figures down."""
    plan = Plan(
        name=f"soak-{exchange}",
        seed=1,
        exchange=exchange,
        speed=speed,
        market_seed=42,
        config=CALM,
        liveness_s=60.0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    report = Soak(plan, folder, messages=messages).go()
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(json.dumps(report.figures | {"wrong": list(report.wrong)}, indent=2) + "\n")
    return report


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--exchange", choices=["binance", "bybit"], default="binance")
    parser.add_argument("--speed", type=float, default=200.0)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    report = soak(folder, exchange=args.exchange, speed=args.speed, messages=args.messages)
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
