"""How fast the synthetic market makes trades: the simulator and the demo wait for it.

pytest benchmarks/bench_synthetic.py --benchmark-only
"""

import pytest

from passivx.data.synthetic import BTCUSD, BTCUSDT, SyntheticMarket

TRADES = 1_000_000


@pytest.mark.parametrize("profile", [BTCUSDT, BTCUSD], ids=lambda p: p.symbol)
def test_trades(benchmark, profile):
    market = SyntheticMarket(1, profile=profile)
    benchmark.extra_info["trades"] = TRADES
    assert len(benchmark(market.trades, TRADES)) == TRADES
