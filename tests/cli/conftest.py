"""Commands run in process, as `main` runs them, and as real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from passivx.cli import main

HEADER = "trade_id,price,qty,timestamp,is_buyer_maker"
MARKET = {
    "price_step": 0.1,
    "qty_step": 0.001,
    "min_qty": 0.001,
    "min_cost": 5.0,
    "maker_fee": 0.0002,
    "taker_fee": 0.0005,
    "max_leverage": 125,
    "inverse": False,
}


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys) -> Callable[..., Done]:
    """Run ``passivx ARGS`` in this process."""

    def run_main(*args: object) -> Done:
        with pytest.raises(SystemExit) as caught:
            main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Done(int(caught.value.code or 0), out, err)

    return run_main


@pytest.fixture
def spawn() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m passivx ARGS`` as its own process."""

    def run_process(*args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "passivx", *map(str, args)]
        kwargs = {"encoding": "utf-8"} | kwargs
        return subprocess.run(command, capture_output=True, timeout=60, check=False, **kwargs)

    return run_process


@pytest.fixture
def market_file(tmp_path) -> Path:
    path = tmp_path / "market.json"
    path.write_text(json.dumps(MARKET))
    return path


@pytest.fixture
def tick_file(tmp_path) -> Path:
    """A few hundred trades on a zigzag, a second apart."""
    rows = [HEADER]
    for i in range(600):
        price = 1000 + 20 * abs((i % 60) - 30)
        rows.append(f"{i},{price}.0,0.01,{1_700_000_000_000 + 1000 * i},{i % 2}")
    path = tmp_path / "ticks.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
