"""Addresses: the known ones are whole, the given ones are safe, and their key is not shown."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest

from passivx.errors import ConfigError
from passivx.exchanges.endpoints import ENDPOINTS, Endpoints, endpoints_of, load_endpoints

SIM = {
    "exchange": "binance",
    "symbol": "BTCUSDT",
    "rest": "http://127.0.0.1:8080",
    "ws_public": "ws://127.0.0.1:8080/public",
    "ws_market": "ws://127.0.0.1:8080/market",
    "ws_private": "ws://127.0.0.1:8080/private",
    "ws_trade": "ws://127.0.0.1:8080/ws-fapi/v1",
    "control": "http://127.0.0.1:8080/control",
    "key": "simkey0123456789",
    "secret": "CANARY5up3rs3cr3t",
}


def write(tmp_path, content):
    path = tmp_path / "sim.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_every_known_environment_has_all_addresses_it_needs():
    assert {name for name, _ in ENDPOINTS} == {"binance", "bybit"}
    for (exchange, _), endpoints in ENDPOINTS.items():
        assert endpoints.exchange == exchange
        assert (endpoints.ws_market is not None) == (exchange == "binance")
        assert urlsplit(endpoints.rest).path == ""


def test_live_addresses_are_those_of_the_protocol_facts():
    binance = endpoints_of("binance", "live")
    assert binance.rest == "https://fapi.binance.com"
    assert binance.ws_public == "wss://fstream.binance.com/public"
    assert binance.ws_market == "wss://fstream.binance.com/market"
    assert binance.ws_private == "wss://fstream.binance.com/private"
    assert binance.ws_trade == "wss://ws-fapi.binance.com/ws-fapi/v1"
    bybit = endpoints_of("bybit", "live")
    assert bybit.rest == "https://api.bybit.com"
    assert bybit.ws_public == "wss://stream.bybit.com/v5/public/inverse"
    assert bybit.ws_private == "wss://stream.bybit.com/v5/private"
    assert bybit.ws_trade == "wss://stream.bybit.com/v5/trade"


def test_no_test_environment_shares_an_address_that_can_spend_real_money():
    for exchange in ("binance", "bybit"):
        live = endpoints_of(exchange, "live")
        for environment in ("testnet", "demo"):
            other = endpoints_of(exchange, environment)
            for name in ("rest", "ws_private", "ws_trade"):
                assert getattr(other, name) != getattr(live, name)


def test_the_rights_of_a_key_are_asked_for_where_they_are_told():
    assert endpoints_of("binance", "live").key_rights == "https://api.binance.com"
    others = [endpoints for name, endpoints in ENDPOINTS.items() if name != ("binance", "live")]
    assert {endpoints.key_rights for endpoints in others} == {""}


def test_bybits_demo_has_no_order_socket():
    assert endpoints_of("bybit", "demo").ws_trade is None


def test_an_unknown_environment_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"binance paper.*binance live, binance testnet"):
        endpoints_of("binance", "paper")


def test_the_line_of_the_simulator_is_read(tmp_path):
    endpoints, symbol, key = load_endpoints(write(tmp_path, SIM | {"more": [1]}))
    assert endpoints == Endpoints(
        **{k: v for k, v in SIM.items() if k in ("exchange", "rest") or k.startswith("ws_")}
    )
    assert symbol == "BTCUSDT"
    assert key is not None
    assert key.key == SIM["key"]
    shown = repr((endpoints, symbol, key))
    assert SIM["secret"] not in shown
    assert SIM["key"] not in shown


def test_symbol_market_trade_and_key_may_be_missing(tmp_path):
    row = {k: SIM[k] for k in ("exchange", "rest", "ws_public", "ws_private")}
    endpoints, symbol, key = load_endpoints(write(tmp_path, row | {"ws_trade": None}))
    assert (endpoints.ws_market, endpoints.ws_trade, symbol, key) == (None, None, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest": None}, "rest: must be a text"),
        ({"exchange": "kraken"}, "exchange: is not known, was 'kraken'; binance or bybit"),
        ({"ws_trade": 5}, "ws_trade: must be a text"),
        ({"symbol": 5}, "symbol: must be a text"),
        ({"secret": 5}, "secret: must be a text"),
        ({"secret": None}, "key, secret: one without the other"),
        ({"secret": "CANARY with blanks"}, "secret: must be printable ASCII"),
        ({"rest": "http://example.com"}, "rest: must begin with https://"),
        ({"ws_public": "https://example.com"}, "ws_public: must begin with wss://"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_without_its_secret(tmp_path, change, message):
    path = write(tmp_path, SIM | change)
    with pytest.raises(ConfigError) as e:
        load_endpoints(path)
    assert message in str(e.value)
    assert str(path) in str(e.value)
    assert "CANARY" not in str(e.value)
    assert e.value.exit_code == 2


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '"x"', "CANARY", "[" * 100_000])
def test_a_file_that_is_no_object_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="must be one JSON object") as e:
        load_endpoints(write(tmp_path, content))
    assert "CANARY" not in str(e.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_endpoints(tmp_path / "nothing.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_endpoints(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://fapi.binance.com",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "https://fapi.binance.com/",
        "https://fapi.binance.com?x=1",
        "https://fapi.binance.com#x",
        "https://user:word@fapi.binance.com",
        "https://",
        "https://host:99999",
        "https://[::1",
        "https://bücher.example",
        "https://fapi.binance.com\n",
        "https://fapi .binance.com",
        "wss://fapi.binance.com",
        "fapi.binance.com",
        "ftp://fapi.binance.com",
        "",
    ],
)
def test_unsafe_addresses_are_refused(url):
    with pytest.raises(ConfigError, match="rest: "):
        Endpoints(exchange="binance", rest=url, ws_public="wss://a", ws_private="wss://a")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://127.9.9.9", "http://localhost:80", "http://[::1]:5",
     "https://api.example.com:8443/prefix"],
)  # fmt: skip
def test_this_machine_and_secure_hosts_are_taken(url):
    endpoints = Endpoints(exchange="bybit", rest=url, ws_public="wss://a", ws_private="ws://[::1]")
    assert endpoints.rest == url
