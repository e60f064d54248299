"""A whole simulated exchange: market, venue, front, faults, sockets and the control port."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson
from aiohttp import web

from passivx.clock import Clock, VirtualClock, WallClock
from passivx.errors import ConfigError, PassivxError, Problem, nearest
from passivx.models import Market
from passivx.simulator.faults import Faults, SkewedClock
from passivx.simulator.feed import Feed, Replay, Speed, find_listing
from passivx.simulator.ledger import Ledger
from passivx.simulator.rules import read_rules
from passivx.simulator.server import Front, Server
from passivx.simulator.venue import Policy, SimVenue

__all__ = ["SYMBOLS", "Simulator"]

SYMBOLS: Final = {"binance": "BTCUSDT", "bybit": "BTCUSD"}
"""What is listed unless another symbol is asked for, by exchange."""

_WALLET_QUOTE: Final = 1_000.0
_LOOPBACK: Final = ("127.0.0.1", "localhost")
_PINGS_S: Final = {"binance": 180.0, "bybit": None}


class Simulator:
    """One venue, one symbol, one account, on loopback ports of this machine.

    Use it as an async context manager; the replay runs until it is left. ``speed`` "step" stands
    still until `step` is called, on a virtual clock that every protocol time follows; at any other
    speed protocol times are the wall clock's.

    Parameters
    ----------
    exchange : str
        binance or bybit.
    symbol : str, optional
        BTCUSDT for Binance, BTCUSD for Bybit.
    market : Market, optional
        Its rules; the package's example of that symbol.
    feed : Feed, optional
        What is traded; a synthetic market of seed 1.
    wallet : float, optional
        Settle currency; what 1,000 of quote currency are worth.
    speed : float, "max" or "step"
    port : int
        Of REST and websockets; 0 takes a free one.
    faults : list
        Rules as `Faults.add` takes them; their time begins on entering.
    ledger_path : Path, optional
        A file that gets the ledger's lines too.
    limits : bool
        Whether the venue's rate limits are kept.
    leverage, cross_mode
        The account's.
    key, secret : str, optional
        Made for this run unless given.
    seed : int
        Of the executions' ids.

    Attributes
    ----------
    venue, ledger, clock, replay, faults, server
        What it is made of.
    stepped : VirtualClock, optional
        At speed "step", the clock that steps move.
    stopped : asyncio.Event
        Set once the control port was asked to stop; whoever runs it may set it too.

    Raises
    ------
    ConfigError
        If there are no rules for the symbol, or a fault is not one.
    OSError
        On entering, if the port is taken; at once, if the ledger's file cannot be written.
    """

    def __init__(
        self,
        *,
        exchange: str,
        symbol: str | None = None,
        market: Market | None = None,
        feed: Feed | None = None,
        wallet: float | None = None,
        speed: Speed = 1.0,
        port: int = 0,
        faults: Sequence[Any] = (),
        ledger_path: Path | None = None,
        limits: bool = True,
        leverage: float = 20.0,
        cross_mode: bool = True,
        key: str | None = None,
        secret: str | None = None,
        seed: int = 0,
    ) -> None:
        if exchange not in SYMBOLS:
            raise ConfigError(
                [Problem("exchange", exchange, "is not simulated", nearest(exchange, SYMBOLS))]
            )
        self.exchange = exchange
        self.symbol = symbol or SYMBOLS[exchange]
        self.key = secrets.token_hex(32) if key is None else key
        self.secret = secrets.token_hex(32) if secret is None else secret
        self.stopped = asyncio.Event()
        self._port = port
        self._rules = read_rules(list(faults), "faults")
        listing = find_listing(exchange, self.symbol, market)
        market = listing.market
        feed = Feed.synthetic(1, exchange, market) if feed is None else feed
        if wallet is None:
            wallet = market.in_settle(_WALLET_QUOTE, feed.start_price)
        base: Clock = VirtualClock(feed.start_ts_ms) if speed == "step" else WallClock()
        self.stepped = base if isinstance(base, VirtualClock) else None
        self.clock = SkewedClock(base)
        self.ledger = Ledger(self.clock, ledger_path)
        policy, make_front = _face_of(exchange)
        self.venue = SimVenue(
            listing,
            policy,
            clock=self.clock,
            ledger=self.ledger,
            price=feed.start_price,
            wallet=wallet,
            leverage=min(leverage, market.max_leverage),
            cross_mode=cross_mode,
            seed=seed,
        )
        front = make_front(
            self.venue,
            self.ledger,
            clock=self.clock,
            key=self.key,
            secret=self.secret,
            limits=limits,
        )
        self.faults = Faults(self.venue, self.clock, self.ledger)
        self.venue.observe(self.faults)
        self.replay = Replay(feed, self.venue, base, ledger=self.ledger, speed=speed)
        self.server = Server(
            front,
            clock=self.clock,
            ledger=self.ledger,
            faults=self.faults,
            ping_interval_s=_PINGS_S[exchange],
        )
        self._control: web.AppRunner | None = None
        self._control_port = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.server.start(self._port)
            await self._start_control()
        except BaseException as e:
            await self.__aexit__(type(e), e, e.__traceback__)
            raise
        self.faults.start(self._rules)
        if self.replay.speed != "step":
            self._task = asyncio.get_running_loop().create_task(self.replay.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.server.stop()
        if self._control is not None:
            await self._control.cleanup()
        self.ledger.close()

    @property
    def endpoints(self) -> dict[str, str]:
        """The addresses and the key, as `first_line` has them."""
        host = f"127.0.0.1:{self.server.port}"
        paths = (
            {
                "ws_public": "/public",
                "ws_market": "/market",
                "ws_private": "/private",
                "ws_trade": "/ws-fapi/v1",
            }
            if self.exchange == "binance"
            else {
                "ws_public": f"/v5/public/{'inverse' if self._inverse else 'linear'}",
                "ws_private": "/v5/private",
                "ws_trade": "/v5/trade",
            }
        )
        return {
            "exchange": self.exchange,
            "symbol": self.symbol,
            "rest": f"http://{host}",
            **{name: f"ws://{host}{path}" for name, path in paths.items()},
            "control": f"http://127.0.0.1:{self._control_port}",
            "key": self.key,
            "secret": self.secret,
        }

    @property
    def _inverse(self) -> bool:
        return self.venue.listing.market.inverse

    def first_line(self) -> str:
        """Return what the command prints first: one JSON object, no line end."""
        return orjson.dumps(self.endpoints).decode()

    async def step(
        self, *, ticks: int | None = None, ms: int | None = None, until_ms: int | None = None
    ) -> dict[str, int | None]:
        """Let the replay go on by one of the three, and return where it is now.

        Raises
        ------
        ValueError
            If the simulator does not run at speed "step", or the step leads back.
        """
        n = await self.replay.step(ticks=ticks, ms=ms, until_ms=until_ms)
        return {
            "ts_ms": self.clock.time_ms(),
            "replay_ts_ms": self.ledger.replay_ts_ms,
            "ticks": n,
        }

    # --- the control port: no faults, no limits, this machine only ---

    async def _start_control(self) -> None:
        app = web.Application(client_max_size=1 << 20, middlewares=[_for_this_machine])
        app.add_routes(
            [
                web.get("/ledger", self._get_ledger),
                web.get("/state", self._get_state),
                web.post("/fault", self._post_fault),
                web.delete("/fault", self._delete_faults),
                web.post("/step", self._post_step),
                web.post("/stop", self._post_stop),
            ]
        )
        self._control = web.AppRunner(app, access_log=None, shutdown_timeout=0.25)
        await self._control.setup()
        await web.TCPSite(self._control, "127.0.0.1", 0).start()
        self._control_port = int(self._control.addresses[0][1])

    async def _get_ledger(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not since.isdecimal():
            raise web.HTTPBadRequest(text="since: must be a whole number of lines")
        body = b"".join(self.ledger.since(int(since)))
        return web.Response(body=body, content_type="application/x-ndjson")

    async def _get_state(self, request: web.Request) -> web.Response:
        venue = self.venue
        bid, ask = venue.quote
        orders = [
            {
                "order_id": self.ledger.order_text(order.order_id),
                "client_id": order.client_id,
                "side": "buy" if order.side > 0 else "sell",
                "price": order.price,
                "qty": order.qty,
                "filled": order.filled,
                "reduce_only": order.reduce_only,
            }
            for order in venue.open_orders()
        ]
        return _json(
            {
                "ts_ms": self.clock.time_ms(),
                "replay_ts_ms": self.ledger.replay_ts_ms,
                "wallet": venue.wallet,
                "equity": venue.equity,
                "position": venue.size,
                "entry_price": venue.entry_price,
                "liq_price": venue.liq_price,
                "leverage": venue.leverage,
                "cross_mode": venue.cross_mode,
                "mark_price": venue.mark_price,
                "bid": bid,
                "ask": ask,
                "orders": orders,
                "ended": self.replay.ended,
            }
        )

    async def _post_fault(self, request: web.Request) -> web.Response:
        return _json({"ids": self.faults.add(await _body(request))})

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self.faults.add({"do": "heal"})
        return _json({"ids": []})

    async def _post_step(self, request: web.Request) -> web.Response:
        body = await _body(request)
        names = ("ticks", "ms", "until_ms")
        if not (
            isinstance(body, dict)
            and len(body) == 1
            and all(name in names and type(n) is int and n >= 0 for name, n in body.items())
        ):
            raise web.HTTPBadRequest(text='one of {"ticks": n}, {"ms": n}, {"until_ms": t}')
        return _json(await self.step(**body))

    async def _post_stop(self, request: web.Request) -> web.Response:
        self.stopped.set()
        return _json({})


def _face_of(exchange: str) -> tuple[Policy, Callable[..., Front]]:
    # Only the venue that is asked for is loaded.
    if exchange == "binance":
        from passivx.simulator import binance

        return binance.POLICY, binance.BinanceFront
    from passivx.simulator import bybit

    return bybit.POLICY, bybit.BybitFront


@web.middleware
async def _for_this_machine(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse what a page in a browser sends, by whatever name; and put errors into words."""
    if request.host.partition(":")[0] not in _LOOPBACK or "Origin" in request.headers:
        raise web.HTTPMisdirectedRequest
    try:
        response: web.StreamResponse = await handler(request)
    except (PassivxError, ValueError) as e:
        raise web.HTTPBadRequest(text=str(e)) from None
    return response


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except ValueError:
        raise web.HTTPBadRequest(text="the body must be JSON") from None


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
