"""Where the venues are: the addresses of each environment, and files that name others."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from passivx.errors import ConfigError, Problem
from passivx.exchanges.keys import ApiKey

__all__ = ["ENDPOINTS", "Endpoints", "endpoints_of", "is_loopback", "load_endpoints"]

# What `passivx sim` prints is a few hundred bytes.
_MAX_BYTES: Final = 64 << 10
_EXCHANGES: Final = ("binance", "bybit")
# By REST host, where it is another one. Binance tells of keys on its spot host only, and on none
# of its test environments.
_KEY_RIGHTS: Final = {"https://fapi.binance.com": "https://api.binance.com"}
_SECURE: Final = {"rest": "https", "ws": "wss"}
_PLAIN: Final = {"rest": "http", "ws": "ws"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Base URLs of one environment of one venue, without trailing slashes.

    REST paths (``/fapi/v1/…``, ``/v5/…``) are appended to ``rest``. The sockets' URLs hold
    everything up to what a subscription adds: for Binance the ``/public``, ``/market`` and
    ``/private`` of the path split of 2026, so that an environment without it is only other URLs;
    for Bybit ``/v5/public/inverse``. ``ws_market`` is Binance's alone; ``ws_trade`` None means that
    orders go by REST.

    Raises
    ------
    ConfigError
        If an address is not https or wss (http and ws are for this machine only), has a trailing
        slash, a query, or a user name in it.
    """

    exchange: str
    rest: str
    ws_public: str
    ws_private: str
    ws_market: str | None = None
    ws_trade: str | None = None

    def __post_init__(self) -> None:
        urls = {name: getattr(self, name) for name in _URL_FIELDS}
        if problems := _problems(self.exchange, urls):
            raise ConfigError(problems)

    @property
    def key_rights(self) -> str:
        """The base URL of the host that tells what an API key may do, "" when it is ``rest``."""
        return _KEY_RIGHTS.get(self.rest, "")


_URL_FIELDS: Final = ("rest", "ws_public", "ws_private", "ws_market", "ws_trade")


def _problems(exchange: str, urls: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if exchange not in _EXCHANGES:
        problems.append(Problem("exchange", exchange, "is not known", "binance or bybit"))
    for name, url in urls.items():
        if url is not None and (message := _fault(url, "rest" if name == "rest" else "ws")):
            problems.append(Problem(name, url, *message))
    return problems


def _fault(url: str, kind: str) -> tuple[str, str] | None:
    """Return what is wrong with an address and what to do, None when it can be used."""
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "must be an address in plain ASCII", "remove blanks"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be an address", "check host and port"
    if not host or "@" in parts.netloc:
        return "must name a host, and no user", f"like {_SECURE[kind]}://host"
    if "?" in url or "#" in url:
        return "must not have a query", "leave out what follows the path"
    if parts.path.endswith("/"):
        return "must not end in a slash", "leave it out"
    if parts.scheme == _SECURE[kind] or (parts.scheme == _PLAIN[kind] and is_loopback(host)):
        return None
    return (
        f"must begin with {_SECURE[kind]}://",
        f"{_PLAIN[kind]}:// is for this machine (127.0.0.1, localhost) only",
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _binance(rest: str, streams: str, trade: str) -> Endpoints:
    return Endpoints(
        exchange="binance",
        rest=rest,
        ws_public=f"{streams}/public",
        ws_market=f"{streams}/market",
        ws_private=f"{streams}/private",
        ws_trade=trade,
    )


def _bybit(rest: str, public: str, private: str, *, trade: bool) -> Endpoints:
    return Endpoints(
        exchange="bybit",
        rest=rest,
        ws_public=f"{public}/v5/public/inverse",
        ws_private=f"{private}/v5/private",
        ws_trade=f"{private}/v5/trade" if trade else None,
    )


# From docs/protocol facts, hosts. Not confirmed there for Binance's test environments: the path
# split, and that the demo's streams and order socket are the testnet's.
_BINANCE_TEST_TRADE: Final = "wss://testnet.binancefuture.com/ws-fapi/v1"

ENDPOINTS: Final[Mapping[tuple[str, str], Endpoints]] = MappingProxyType(
    {
        ("binance", "live"): _binance(
            "https://fapi.binance.com",
            "wss://fstream.binance.com",
            "wss://ws-fapi.binance.com/ws-fapi/v1",
        ),
        ("binance", "testnet"): _binance(
            "https://testnet.binancefuture.com",
            "wss://fstream.binancefuture.com",
            _BINANCE_TEST_TRADE,
        ),
        ("binance", "demo"): _binance(
            "https://demo-fapi.binance.com",
            "wss://fstream.binancefuture.com",
            _BINANCE_TEST_TRADE,
        ),
        ("bybit", "live"): _bybit(
            "https://api.bybit.com",
            "wss://stream.bybit.com",
            "wss://stream.bybit.com",
            trade=True,
        ),
        ("bybit", "testnet"): _bybit(
            "https://api-testnet.bybit.com",
            "wss://stream-testnet.bybit.com",
            "wss://stream-testnet.bybit.com",
            trade=True,
        ),
        ("bybit", "demo"): _bybit(
            "https://api-demo.bybit.com",
            "wss://stream.bybit.com",
            "wss://stream-demo.bybit.com",
            trade=False,
        ),
    }
)


def endpoints_of(exchange: str, environment: str) -> Endpoints:
    """Return the addresses of a known environment.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    try:
        return ENDPOINTS[exchange, environment]
    except KeyError:
        known = ", ".join(" ".join(names) for names in ENDPOINTS)
        problem = Problem(
            "endpoints", f"{exchange} {environment}", "is not known", f"one of {known}"
        )
        raise ConfigError([problem]) from None


def load_endpoints(path: Path) -> tuple[Endpoints, str | None, ApiKey | None]:
    """Read a file of addresses: the JSON object that ``passivx sim`` prints first.

    Returns the addresses, the symbol if it names one, and the key if it holds one.

    Raises
    ------
    ConfigError
        If it cannot be read or used. Nothing of its content but the addresses is quoted.
    """
    row = _read(path)
    problems = [
        Problem(name, None, "must be a text", "save the first line that passivx sim prints")
        for name in ("exchange", "rest", "ws_public", "ws_private")
        if not isinstance(row.get(name), str)
    ]
    problems += [
        Problem(name, None, "must be a text, or left out", "save what passivx sim prints")
        for name in ("ws_market", "ws_trade", "symbol", "key", "secret")
        if not isinstance(row.get(name, ""), str | None)
    ]
    if not problems:
        urls: dict[str, Any] = {name: row.get(name) for name in _URL_FIELDS}
        problems = _problems(row["exchange"], urls)
    key, secret = row.get("key"), row.get("secret")
    if not problems and (key is None) != (secret is None):
        problems = [Problem("key, secret", None, "one without the other", "give both or neither")]
    if problems:
        raise ConfigError(problems, path)
    endpoints = Endpoints(exchange=row["exchange"], **urls)
    if key is None or secret is None:
        return endpoints, row.get("symbol"), None
    try:
        return endpoints, row.get("symbol"), ApiKey(key, secret)
    except ConfigError as e:
        problems = list(e.problems)
    raise ConfigError(problems, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as e:
        raise ConfigError([Problem("", None, f"cannot be read ({e.strerror})")], path) from None
    row = None
    if len(content) <= _MAX_BYTES:
        try:
            row = orjson.loads(content)
        except ValueError:
            row = None
    if not isinstance(row, dict):
        problem = Problem("", None, "must be one JSON object", "save what passivx sim prints")
        raise ConfigError([problem], path)
    return row
