"""Which client serves which venue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from passivx.clock import Clock
from passivx.errors import ConfigError, Problem, nearest
from passivx.exchanges.base import Exchange
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.keyless import Keyless
from passivx.exchanges.keys import ApiKey
from passivx.models import Market

if TYPE_CHECKING:
    from passivx.exchanges.binance.client import Binance
    from passivx.exchanges.bybit.client import Bybit

__all__ = ["open_exchange"]


def open_exchange(
    *,
    endpoints: Endpoints,
    symbol: str,
    key: ApiKey | None,
    assumed: Market | None = None,
    clock: Clock | None = None,
) -> Exchange:
    """Return the client of a symbol at the venue that the addresses are of; close it in the end.

    Without a ``key`` it is `Keyless`: its rules take what the venue tells accounts alone from
    ``assumed``, which otherwise does not matter.

    Raises
    ------
    ConfigError
        If no client knows that venue.
    """
    client = _client_of(endpoints, symbol, key, clock)
    return Keyless(client, assumed) if key is None else client


def _client_of(
    endpoints: Endpoints, symbol: str, key: ApiKey | None, clock: Clock | None
) -> Binance | Bybit:
    # A client brings its venue's half of the package with it: only the one that is asked for.
    if endpoints.exchange == "binance":
        from passivx.exchanges.binance.client import Binance

        return Binance(endpoints=endpoints, symbol=symbol, key=key, clock=clock)
    if endpoints.exchange == "bybit":
        from passivx.exchanges.bybit.client import Bybit

        category = "linear" if endpoints.ws_public.endswith("/linear") else "inverse"
        return Bybit(endpoints=endpoints, symbol=symbol, key=key, category=category, clock=clock)
    known = ("binance", "bybit")
    problem = Problem(
        "exchange", endpoints.exchange, "is not known", nearest(endpoints.exchange, known)
    )
    raise ConfigError([problem])
