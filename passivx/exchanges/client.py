"""What a venue's client is made of, whichever venue: reads, order messages, what runs beside them.

A venue's own class adds how rules and account are read, how the account is prepared, and which
sockets there are. Together they are `exchanges.base.Exchange`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from passivx.clock import Clock, WallClock
from passivx.errors import ConfigError, Problem, VenueError
from passivx.exchanges.base import (
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
    Steps,
    Verdict,
)
from passivx.exchanges.budget import Budget, Window
from passivx.exchanges.endpoints import Endpoints
from passivx.exchanges.http import Dialect, Http, Reply
from passivx.exchanges.keys import ApiKey
from passivx.exchanges.orders import OrderEntry
from passivx.exchanges.sending import Sending
from passivx.models import Market

__all__ = ["Client", "mode_word", "must"]


class Rest(Protocol):
    """What both venues' REST interfaces have alike; each says more of it."""

    async def rights(self) -> KeyRights: ...
    async def mark(self) -> MarkPrice: ...
    async def recent_trades(self, limit: int) -> list[PublicTrade]: ...
    async def open_orders(self) -> list[Order]: ...
    async def find(self, client_id: str) -> Order | None: ...
    async def fills(self, since_ms: int) -> list[Fill]: ...
    async def payments(self, since_ms: int) -> list[Payment]: ...
    def check(self, order: NewOrder, steps: Steps) -> None:
        """Raise ValueError for an order that cannot be written."""
        ...

    async def place(self, order: NewOrder, steps: Steps) -> Outcome: ...
    async def place_batch(self, orders: Sequence[NewOrder], steps: Steps) -> list[Outcome]: ...
    def change(self, order: Order, steps: Steps, *, price: float, qty: float) -> Any:
        """Return what `amend` sends; raise ValueError when it cannot be written."""
        ...

    async def amend(self, order: Order, change: Any) -> Outcome: ...
    async def cancel(self, order: Order) -> Outcome: ...
    async def cancel_batch(self, orders: Sequence[Order]) -> list[Outcome]: ...


R = TypeVar("R", bound=Rest)
E = TypeVar("E", bound=OrderEntry[Any])


class Client(ABC, Generic[R, E]):
    """One perpetual at one venue. Use it on one event loop, and close it.

    ``rules`` must have been read once before anything is placed: texts of prices depend on them.
    Without a ``key`` it can be asked for what is public; `exchanges.keyless` keeps callers to that.

    Raises
    ------
    ConfigError
        If the symbol is none: a request without one would be about all of them.
    """

    name: str
    rest: R
    # Orders of one message over REST.
    _most_places: int
    _most_cancels: int

    def __init__(
        self,
        dialect: Dialect,
        windows: Iterable[Window],
        *,
        endpoints: Endpoints,
        symbol: str,
        key: ApiKey | None,
        clock: Clock | None,
        rng: random.Random | None,
    ) -> None:
        if not isinstance(symbol, str) or not symbol.isprintable() or not symbol or " " in symbol:
            problem = Problem("symbol", symbol, "must be a word", "as the venue writes it: BTCUSDT")
            raise ConfigError([problem])
        self.symbol = symbol
        self._endpoints = endpoints
        self._key = key
        self._clock = clock or WallClock()
        self._rng = rng
        self._budget = Budget(windows, self._clock)
        self._http = Http(endpoints.rest, dialect, self._clock, self._budget, rng=rng)
        self._steps: Steps | None = None
        self._entry: E | None = None
        self._sending = Sending(self._budget)

    # --- reads ---

    @abstractmethod
    async def public_rules(self, assumed: Market) -> Rules:
        """Return the rules, with what the venue tells accounts alone taken from ``assumed``."""

    async def rights(self) -> KeyRights:
        """Return what the key may do, as far as the venue tells that."""
        return await self.rest.rights()

    async def mark(self) -> MarkPrice:
        """Return mark price and predicted funding."""
        return await self.rest.mark()

    async def open_orders(self) -> list[Order]:
        """Return every live order of the symbol."""
        return await self.rest.open_orders()

    async def find(self, client_id: str) -> Order | None:
        """Look an order up; None only when the venue says that there is none."""
        if not client_id:
            raise ValueError("client_id: must not be empty")
        return await self.rest.find(client_id)

    async def fills(self, since_ms: int) -> list[Fill]:
        """Return every fill since then, oldest first."""
        return await self.rest.fills(since_ms)

    async def payments(self, since_ms: int) -> list[Payment]:
        """Return every funding settlement since then, oldest first."""
        return await self.rest.payments(since_ms)

    async def recent_trades(self, limit: int) -> list[PublicTrade]:
        """Return up to ``limit`` of the newest public trades, oldest first."""
        return await self.rest.recent_trades(limit)

    # --- orders ---

    def place(self, orders: Sequence[NewOrder]) -> list[Future[Outcome]]:
        """Send orders now: a frame each over the order socket, else in batches over REST."""
        steps, entry = self._known_steps(), self._live_entry()
        if entry is not None:
            return [
                self._sending.now(entry.place_costs, order.reduce_only, partial(entry.place, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            self._most_places,
            check=lambda order: self.rest.check(order, steps),
            one=lambda order: self.rest.place(order, steps),
            many=lambda part: self.rest.place_batch(part, steps),
        )

    def cancel(self, orders: Sequence[Order]) -> list[Future[Outcome]]:
        """Send cancels now, like `place`."""
        entry = self._live_entry()
        if entry is not None:
            return [
                self._sending.now(entry.cancel_costs, True, partial(entry.cancel, order))
                for order in orders
            ]
        return self._sending.in_batches(
            orders,
            self._most_cancels,
            check=lambda order: None,
            one=self.rest.cancel,
            many=self.rest.cancel_batch,
        )

    def amend(
        self, order: Order, *, price: float | None = None, qty: float | None = None
    ) -> Future[Outcome]:
        """Change an order now; ``qty`` is the new total. See ``rest.amend`` for what that does."""
        steps, entry = self._known_steps(), self._live_entry()
        price = order.price if price is None else price
        qty = order.qty if qty is None else qty
        if entry is not None:
            return self._sending.now(
                entry.amend_costs,
                order.reduce_only,
                partial(entry.amend, order, price=price, qty=qty),
            )
        return self._sending.checked(
            lambda: self.rest.amend(order, self.rest.change(order, steps, price=price, qty=qty))
        )

    def _write_by(self, rules: Rules) -> None:
        """Write orders by these rules from now on."""
        steps = Steps.of(rules.market)
        if self._entry is not None and steps != self._steps:
            self._entry.use(self._texts(steps))
        self._steps = steps

    @abstractmethod
    def _texts(self, steps: Steps) -> Any:
        """Return what writes the order socket's frames by those steps."""

    def _known_steps(self) -> Steps:
        if self._steps is None:
            raise VenueError("rules: must be read before an order is placed or amended")
        return self._steps

    def _live_entry(self) -> E | None:
        return self._entry if self._entry is not None and self._entry.stream.live else None

    # --- what runs beside ---

    @abstractmethod
    async def listen_to_market(self, sink: Sink) -> None:
        """Connect what needs no key: trades, mark price, best prices; see `Exchange.listen`."""

    def _held_s(self) -> float:
        return self._budget.banned_s

    async def _newest_trade(self) -> PublicTrade | None:
        trades = await self.rest.recent_trades(1)
        return trades[-1] if trades else None

    def _look_at_clock(self) -> None:
        self._sending.aside(self._http.refresh_clock())

    @property
    def traffic(self) -> tuple[int, int, int]:
        """Text messages sent and heard over sockets so far, and requests not answered yet."""
        return *self._sending.messages, self._http.under_way

    async def close(self) -> None:
        """Close every connection; what is on its way resolves as UNKNOWN."""
        await self._sending.close()
        await self._http.close()


def must(reply: Reply, what: str, remedy: str, why: str = "") -> None:
    """Raise `VenueError` when a setting was refused; what is not known is decided by looking again.

    ``why`` is what the venue says besides its text.
    """
    if reply.verdict is Verdict.REJECTED:
        raise VenueError(
            f"{what}: could not be set: {reply.text}{why}; {remedy}",
            code=reply.code,
            reaction=reply.reaction,
        )


def mode_word(cross: bool) -> str:
    """Return a margin mode's name."""
    return "cross" if cross else "isolated"
