"""Opening a venue's client."""

from __future__ import annotations

import pytest

from passivx.errors import ConfigError
from passivx.exchanges.binance.client import Binance
from passivx.exchanges.bybit.client import Bybit
from passivx.exchanges.endpoints import endpoints_of
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.venues import open_exchange

KEY = ApiKey("k", "s")


@pytest.mark.parametrize(("exchange", "kind"), [("binance", Binance), ("bybit", Bybit)])
def test_the_addresses_say_whose_client(exchange, kind):
    client = open_exchange(endpoints=endpoints_of(exchange, "testnet"), symbol="XRPUSD", key=KEY)
    assert type(client) is kind
    assert (client.name, client.symbol) == (exchange, "XRPUSD")


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
@pytest.mark.parametrize("symbol", ["", " ", "BTC USDT", "BTCUSDT\n", "BTC\x00"])
def test_a_symbol_that_is_none(exchange, symbol):
    with pytest.raises(ConfigError, match="symbol: must be a word"):
        open_exchange(endpoints=endpoints_of(exchange, "live"), symbol=symbol, key=KEY)
