"""The bot against the stepped simulator over real sockets: the backtest's fills, bit for bit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from passivx import backtest
from passivx.data.synthetic import synthetic_trades
from passivx.errors import PassivxError
from passivx.exchanges.client import Client
from passivx.live.rehearsal import FILL_DTYPE, Rehearsal, rehearse
from tests.live.test_same_fills import MARKETS, PROFILES, config_of

# Bybit tells best prices every 10 ms only, and takes 10 orders a second.
CHANGES: dict[str, dict[str, Any]] = {
    "binance": {},
    "bybit": {
        "book": "trades",
        "n_entry_orders": 3,
        "n_close_orders": 3,
        "orders_per_batch": 1,
        "stop_loss_pos_reduction": 0.0,
    },
}
WALLETS = {"binance": 10_000.0, "bybit": 0.2}


def rehearsed(exchange: str, folder: Path, *, n: int, latency_ms: float) -> Rehearsal:
    return asyncio.run(
        rehearse(
            exchange,
            config_of(exchange, CHANGES[exchange]),
            MARKETS[exchange],
            synthetic_trades(3, n, profile=PROFILES[exchange]),
            folder,
            wallet=WALLETS[exchange],
            latency_ms=latency_ms,
        )
    )


@pytest.mark.parametrize("latency_ms", [0.0, 100.0])
@pytest.mark.parametrize("exchange", ["binance", "bybit"])
def test_its_fills_are_the_backtests(exchange: str, latency_ms: float, tmp_path: Path) -> None:
    n = 3000
    got = rehearsed(exchange, tmp_path, n=n, latency_ms=latency_ms)
    expected = backtest(
        synthetic_trades(3, n, profile=PROFILES[exchange]),
        config_of(exchange, CHANGES[exchange]),
        MARKETS[exchange],
        starting_balance=WALLETS[exchange],
        latency_ms=latency_ms,
    ).fills
    names = list(FILL_DTYPE.names or ())
    assert got.fills.tolist() == expected[names].tolist()
    assert len(got.fills) >= 15
    assert got.wallet == got.venue_wallet == expected["balance"][-1]
    assert got.size == got.venue_size == expected["pos_size"][-1]


def test_a_lost_message_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("passivx.live.rehearsal._MOST_WAIT_S", 0.5)
    real = Client.traffic.fget
    assert real is not None

    def one_less(client: Client[Any, Any]) -> tuple[int, int, int]:
        sent, heard, under_way = real(client)
        return sent, heard - (heard > 100), under_way

    monkeypatch.setattr(Client, "traffic", property(one_less))
    with pytest.raises(PassivxError, match="a message got lost"):
        rehearsed("binance", tmp_path, n=1000, latency_ms=100.0)
