"""A venue seen without an API key: its market, and no account."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Sequence
from typing import Any

from passivx.errors import ConfigError, Problem, VenueError
from passivx.exchanges.base import (
    Account,
    Fill,
    KeyRights,
    MarkPrice,
    NewOrder,
    Order,
    Outcome,
    Payment,
    PublicTrade,
    Rules,
    Sink,
)
from passivx.exchanges.client import Client
from passivx.models import Market

__all__ = ["Keyless"]


class Keyless:
    """What is public of one perpetual, as `exchanges.base.Exchange`.

    Trades, mark price, best prices and rules are the venue's. Whatever is about an account raises
    `VenueError`, and nothing is sent.

    Parameters
    ----------
    client
        A venue's client that was made without a key. It is closed with this.
    assumed
        Where `rules` take from what the venue tells accounts alone (`Rules.assumed` names it);
        nothing is made up when it is left out.
    """

    def __init__(self, client: Client[Any, Any], assumed: Market | None = None) -> None:
        self.name = client.name
        self.symbol = client.symbol
        self._client = client
        self._assumed = assumed

    # --- what is public ---

    async def rules(self) -> Rules:
        """Return the venue's rules, with the fees (on Binance the tiers too) that are assumed.

        Raises
        ------
        VenueError
            Also when nothing is assumed.
        ConfigError
            If the assumed market is of the other kind of contract.
        """
        if self._assumed is None:
            raise _refusal("rules", ", or a market file to take fees and tiers from")
        rules = await self._client.public_rules(self._assumed)
        if rules.market.inverse is not self._assumed.inverse:
            kind = "an inverse" if rules.market.inverse else "a linear"
            message = f"must be {str(rules.market.inverse).lower()}"
            remedy = f"{self.symbol} is {kind} contract: take the market file of one"
            raise ConfigError([Problem("inverse", self._assumed.inverse, message, remedy)])
        return rules

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        return await self._client.mark()

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to ``limit`` of the newest public trades, oldest first."""
        return await self._client.recent_trades(limit)

    async def listen(self, sink: Sink) -> None:
        """Connect the public links alone; nothing is told of the others."""
        await self._client.listen_to_market(sink)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    # --- what needs an account ---

    async def account(self) -> Account:
        """Raise `VenueError`."""
        raise _refusal("account")

    async def rights(self) -> KeyRights:
        """Raise `VenueError`."""
        raise _refusal("rights")

    async def prepare(self, *, leverage: int, cross_mode: bool) -> None:
        """Raise `VenueError`."""
        raise _refusal("prepare")

    async def open_orders(self) -> list[Order]:
        """Raise `VenueError`."""
        raise _refusal("open orders")

    async def find(self, client_id: str) -> Order | None:
        """Raise `VenueError`."""
        raise _refusal("find")

    async def fills(self, since_ms: int) -> list[Fill]:
        """Raise `VenueError`."""
        raise _refusal("fills")

    async def payments(self, since_ms: int) -> list[Payment]:
        """Raise `VenueError`."""
        raise _refusal("payments")

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        """Raise `VenueError`."""
        raise _refusal("place")

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        """Raise `VenueError`."""
        raise _refusal("cancel")

    async def cancel_all(self) -> Outcome:
        """Raise `VenueError`."""
        raise _refusal("cancel all")

    async def dead_man(self, timeout_s: float) -> bool:
        """Raise `VenueError`."""
        raise _refusal("dead man's switch")


def _refusal(what: str, instead: str = "") -> VenueError:
    return VenueError(f"{what}: needs an API key{instead}; this client has none")
