"""pybit, Bybit's own client, against the simulator: nobody here wrote what it expects.

It blocks, so the simulator has a thread and a loop of its own; time is real, since pybit asks the
machine for it.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time
from contextlib import contextmanager

import pytest

pybit_module = pytest.importorskip("pybit")

from pybit import _websocket_stream, _websocket_trading, unified_trading  # noqa: E402
from pybit.exceptions import InvalidRequestError  # noqa: E402

from tests.simulator.bybit_desk import simulator  # noqa: E402

SYMBOL = "BTCUSD"
WHERE = {"category": "inverse", "symbol": SYMBOL}
PATIENCE_S = 5.0


class Hosted:
    """A simulator in a thread; `do` runs a function where its loop is."""

    def __init__(self, **options) -> None:
        self._options = options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with simulator(speed=1.0, **self._options) as sim:
            self.sim = sim
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Hosted:
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def do(self, act):
        async def call():
            return act(self.sim)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE_S)

    def print(self, price: float, *, taker: int = 1, qty: float = 1e6) -> None:
        self.do(lambda sim: sim.venue.jump(price, qty))


def in_turn(turn: threading.RLock, act):
    @functools.wraps(act)
    def taking_it(*args, **kwargs):
        with turn:
            return act(*args, **kwargs)

    return taking_it


@pytest.fixture
def host():
    with Hosted() as hosted:
        yield hosted
        assert hosted.do(lambda sim: sim.ledger.entries("fault")) == []


@pytest.fixture
def session(host):
    http = unified_trading.HTTP(api_key=host.sim.key, api_secret=host.sim.secret)
    http.endpoint = host.sim.endpoints["rest"]
    yield http
    http.client.close()


@pytest.fixture
def addresses(host, monkeypatch):
    base = host.sim.endpoints["rest"].replace("http", "ws", 1)
    monkeypatch.setattr(unified_trading, "PRIVATE_WSS", f"{base}/v5/private")
    monkeypatch.setattr(unified_trading, "PUBLIC_WSS", f"{base}/v5/public/{{CHANNEL_TYPE}}")
    monkeypatch.setattr(_websocket_trading, "TRADE_WSS", f"{base}/v5/trade")
    # pybit sends first and notes whom the answer is for afterwards; on loopback that is too late.
    turn = threading.RLock()
    for owner, name in (
        (_websocket_stream._WebSocketManager, "_on_message"),
        (_websocket_stream._V5WebSocketManager, "subscribe"),
        (_websocket_trading._V5TradeWebSocketManager, "_send_order_operation"),
    ):
        monkeypatch.setattr(owner, name, in_turn(turn, getattr(owner, name)))
    return {"api_key": host.sim.key, "api_secret": host.sim.secret}


@contextmanager
def opened(make, **kwargs):
    # Its thread sees that it is closed when it has waited for a pong for so long.
    socket = make(testnet=False, ping_timeout=0.2, **kwargs)
    try:
        yield socket
    finally:
        socket.exit()
        socket.wst.join(PATIENCE_S)
        assert not socket.wst.is_alive()


def code_of(call, **kwargs) -> int:
    with pytest.raises(InvalidRequestError) as refused:
        call(**kwargs)
    return refused.value.status_code


def order(**changes) -> dict:
    return {
        **WHERE,
        "side": "Buy",
        "orderType": "Limit",
        "qty": "100",
        "price": "49000",
        "timeInForce": "PostOnly",
        **changes,
    }


def settled(*topics: str, sim) -> bool:
    """Tell whether the venue has let somebody listen to these."""
    return all(topic in sim.server._front._hub.topics for topic in topics)


def wait_until(host, condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not host.do(condition):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_reading_market_and_account(session):
    now_ms = time.time() * 1000
    assert abs(int(session.get_server_time()["time"]) - now_ms) < 2000
    (rules,) = session.get_instruments_info(category="inverse")["result"]["list"]
    assert (rules["symbol"], rules["priceFilter"]["tickSize"]) == (SYMBOL, "0.50")
    book = session.get_orderbook(**WHERE, limit=5)["result"]
    assert len(book["b"]) == len(book["a"]) == 5
    (ticker,) = session.get_tickers(**WHERE)["result"]["list"]
    assert ticker["bid1Price"] == book["b"][0][0]
    assert session.get_risk_limit(category="inverse")["result"]["list"]
    assert session.get_funding_rate_history(**WHERE)["result"]["list"] == []
    assert session.get_public_trade_history(**WHERE)["retCode"] == 0
    assert session.get_kline(**WHERE, interval=1)["retCode"] == 0
    (account,) = session.get_wallet_balance(accountType="UNIFIED", coin="BTC")["result"]["list"]
    assert account["coin"][0]["walletBalance"] == "10"
    assert session.get_account_info()["result"]["marginMode"] == "REGULAR_MARGIN"
    (fees,) = session.get_fee_rates(**WHERE)["result"]["list"]
    assert fees["makerFeeRate"] == "0.0002"
    assert session.get_api_key_information()["result"]["readOnly"] == 0
    (position,) = session.get_positions(**WHERE)["result"]["list"]
    assert (position["size"], position["side"]) == ("0", "")
    assert session.get_transaction_log()["result"]["list"] == []
    assert session.get_closed_pnl(category="inverse")["result"]["list"] == []
    assert session.get_coin_info(coin="BTC")["result"]["rows"]


def test_orders_and_refusals(session):
    made = session.place_order(**order(orderLinkId="p-1"))["result"]
    assert made["orderLinkId"] == "p-1"
    (live,) = session.get_open_orders(**WHERE)["result"]["list"]
    assert (live["orderId"], live["orderStatus"], live["price"]) == (
        made["orderId"],
        "New",
        "49000.00",
    )
    session.amend_order(**WHERE, orderLinkId="p-1", price="48000", qty="150")
    (live,) = session.get_open_orders(**WHERE, orderLinkId="p-1")["result"]["list"]
    assert (live["price"], live["qty"]) == ("48000.00", "150")
    same = {"orderLinkId": "p-1", "price": "48000"}
    assert code_of(session.amend_order, **WHERE, **same) == 10001
    assert code_of(session.place_order, **order(orderLinkId="p-1")) == 110072
    assert code_of(session.place_order, **order(side="Sell", reduceOnly=True)) == 110017
    assert code_of(session.place_order, **order(qty="0.5")) == 10001
    assert code_of(session.place_order, **order(qty="9000000")) == 110007
    assert code_of(session.cancel_order, **WHERE, orderLinkId="nobody") == 110001
    assert code_of(session.set_leverage, **WHERE, buyLeverage="10", sellLeverage="10") == 110043
    session.set_leverage(**WHERE, buyLeverage="5", sellLeverage="5")
    # Post-only that takes: accepted, and cancelled by the venue.
    taken = session.place_order(**order(price="60000", orderLinkId="p-2"))["result"]
    (gone,) = session.get_order_history(**WHERE, orderId=taken["orderId"])["result"]["list"]
    assert (gone["orderStatus"], gone["rejectReason"]) == (
        "Cancelled",
        "EC_PostOnlyWillTakeLiquidity",
    )
    session.cancel_order(**WHERE, orderLinkId="p-1")
    assert session.get_open_orders(**WHERE)["result"]["list"] == []
    session.place_order(**order())
    session.place_order(**order())
    assert len(session.cancel_all_orders(**WHERE)["result"]["list"]) == 2


def test_a_position_and_its_end(session):
    market = {"orderType": "Market", "price": None, "timeInForce": None}
    session.place_order(**order(**market, qty="300"))
    (position,) = session.get_positions(**WHERE)["result"]["list"]
    assert (position["side"], position["size"], position["leverage"]) == ("Buy", "300", "10")
    session.place_order(**order(**market, side="Sell", qty="900", reduceOnly=True))
    (position,) = session.get_positions(**WHERE)["result"]["list"]
    assert position["size"] == "0"
    fills = session.get_executions(**WHERE)["result"]["list"]
    assert [row["execQty"] for row in fills] == ["300", "300"]
    (closed,) = session.get_closed_pnl(**WHERE)["result"]["list"]
    assert closed["closedSize"] == "300"
    log = session.get_transaction_log(accountType="UNIFIED")["result"]["list"]
    assert [row["type"] for row in log] == ["TRADE", "TRADE"]


def test_batches(session):
    orders = [order(orderLinkId=f"b-{i}") for i in range(3)] + [order(orderLinkId="b-0")]
    for one in orders:
        one.pop("category")
    made = session.place_batch_order(category="inverse", request=orders)
    assert [e["code"] for e in made["retExtInfo"]["list"]] == [0, 0, 0, 110072]
    changes = [{"symbol": SYMBOL, "orderLinkId": f"b-{i}", "qty": "250"} for i in range(3)]
    changed = session.amend_batch_order(category="inverse", request=changes)
    assert [e["code"] for e in changed["retExtInfo"]["list"]] == [0, 0, 0]
    gone = session.cancel_batch_order(category="inverse", request=changes)
    assert [e["code"] for e in gone["retExtInfo"]["list"]] == [0, 0, 0]


def test_a_wrong_secret(host):
    http = unified_trading.HTTP(api_key=host.sim.key, api_secret="x" * 36)
    http.endpoint = host.sim.endpoints["rest"]
    assert code_of(http.get_account_info) == 10004
    http.api_key = "y" * 18
    assert code_of(http.get_account_info) == 10003
    http.client.close()


def test_streams_of_an_orders_life(session, host, addresses):
    heard: queue.Queue = queue.Queue()

    def take(topic: str) -> dict:
        while True:
            message = heard.get(timeout=PATIENCE_S)
            if message["topic"] == topic:
                return message["data"][0]

    with opened(unified_trading.WebSocket, channel_type="private", **addresses) as private:
        private.order_stream(heard.put)
        private.execution_stream(heard.put)
        private.position_stream(heard.put)
        private.wallet_stream(heard.put)
        wanted = ("order", "execution", "position", "wallet")
        wait_until(host, lambda sim: settled(*wanted, sim=sim))
        made = session.place_order(**order(orderLinkId="s-1"))["result"]
        row = take("order")
        assert (row["orderStatus"], row["orderId"]) == ("New", made["orderId"])
        session.amend_order(**WHERE, orderLinkId="s-1", price="49500")
        assert take("order")["price"] == "49500.00"
        host.print(49_000.0)
        fill = take("execution")
        assert (fill["execPrice"], fill["isMaker"], fill["orderLinkId"]) == (
            "49500.00",
            True,
            "s-1",
        )
        assert take("order")["orderStatus"] == "Filled"
        assert take("position")["size"] == "100"
        assert take("wallet")["coin"][0]["coin"] == "BTC"
        session.place_order(**order(orderLinkId="s-2", price="40000"))
        session.cancel_order(**WHERE, orderLinkId="s-2")
        assert take("order")["orderStatus"] == "New"
        assert take("order")["cancelType"] == "CancelByUser"


def test_public_streams(host, addresses):
    heard: queue.Queue = queue.Queue()
    with opened(unified_trading.WebSocket, channel_type="inverse") as public:
        public.orderbook_stream(depth=50, symbol=SYMBOL, callback=heard.put)
        public.orderbook_stream(depth=1, symbol=SYMBOL, callback=heard.put)
        public.trade_stream(symbol=SYMBOL, callback=heard.put)
        public.ticker_stream(symbol=SYMBOL, callback=heard.put)
        public.kline_stream(interval=1, symbol=SYMBOL, callback=heard.put)
        public.all_liquidation_stream(symbol=SYMBOL, callback=heard.put)
        public.price_limit_stream(symbol=SYMBOL, callback=heard.put)
        wait_until(host, lambda sim: settled(f"priceLimit.{SYMBOL}", sim=sim))
        host.print(50_100.0, qty=7.0)
        left = {f"{one}.{SYMBOL}" for one in ("orderbook.50", "orderbook.1", "publicTrade")}
        left |= {f"{one}.{SYMBOL}" for one in ("tickers", "kline.1", "priceLimit")}
        books = {}
        while left or books.get("b", [["0"]])[0][0] == "0":
            message = heard.get(timeout=PATIENCE_S)
            left.discard(message["topic"])
            if message["topic"].startswith("orderbook.50"):
                books = message["data"]
        # pybit puts the book together itself, from the snapshot and what changed.
        assert len(books["a"]) == len(books["b"]) == 25


def test_orders_over_the_trade_socket(session, host, addresses):
    answers: queue.Queue = queue.Queue()
    refusals: queue.Queue = queue.Queue()
    ask = {"callback": answers.put, "error_callback": refusals.put}
    with opened(unified_trading.WebSocketTrading, **addresses) as trade:
        trade.place_order(**ask, **order(orderLinkId="t-1"))
        made = answers.get(timeout=PATIENCE_S)
        assert made["data"]["orderLinkId"] == "t-1"
        trade.amend_order(**ask, **WHERE, orderLinkId="t-1", qty="175")
        assert answers.get(timeout=PATIENCE_S)["retCode"] == 0
        (live,) = session.get_open_orders(**WHERE)["result"]["list"]
        assert (live["qty"], live["orderId"]) == ("175", made["data"]["orderId"])
        trade.place_order(**ask, **order(orderLinkId="t-1"))
        assert refusals.get(timeout=PATIENCE_S)["retCode"] == 110072
        trade.cancel_order(**ask, **WHERE, orderLinkId="t-1")
        assert answers.get(timeout=PATIENCE_S)["retCode"] == 0
        both = [{**order(orderLinkId=f"t-{i}")} for i in (2, 3)]
        trade.place_batch_order(**ask, category="inverse", request=both)
        assert len(answers.get(timeout=PATIENCE_S)["data"]["list"]) == 2
        named = [{"symbol": SYMBOL, "orderLinkId": f"t-{i}"} for i in (2, 3)]
        trade.cancel_batch_order(**ask, category="inverse", request=named)
        gone = answers.get(timeout=PATIENCE_S)
        assert [e["code"] for e in gone["retExtInfo"]["list"]] == [0, 0]
    channels = host.do(lambda sim: [e["channel"] for e in sim.ledger.entries("order")])
    assert set(channels) == {"ws"}
