"""Binance's official client and python-binance against the simulator: nobody here wrote what they
expect.

They block, and tell the time by the machine: the simulator is a process of its own, in real time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import urllib.request
from collections.abc import Iterator

import pytest

pytest.importorskip("binance_sdk_derivatives_trading_usds_futures")
pytest.importorskip("binance")

from binance import AsyncClient, BinanceSocketManager, Client
from binance.exceptions import BinanceAPIException
from binance_common.configuration import (
    ConfigurationRestAPI,
    ConfigurationWebSocketAPI,
    ConfigurationWebSocketStreams,
)
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import (
    DerivativesTradingUsdsFutures,
)
from binance_sdk_derivatives_trading_usds_futures.rest_api.models import (
    PlaceMultipleOrdersBatchOrdersParameterInner as BatchOrder,
)

from tests.simulator.process import serving

pytestmark = [
    # Of the clients, not of what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SYMBOL = "BTCUSDT"
PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What these clients leave open is collected here, and not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture
def line() -> Iterator[dict[str, str]]:
    with serving("--exchange", "binance", "--synthetic", 7, "--speed", 5) as first:
        yield json.loads(first)


def state(line) -> dict:
    with urllib.request.urlopen(f"{line['control']}/state") as reply:
        return json.load(reply)


def streams_base(line) -> str:
    return line["ws_public"].removesuffix("/public")


def prices(line) -> tuple[float, float]:
    """Return a price far below the market and one far above, on the grid."""
    now = state(line)
    return round(now["bid"] * 0.97, 1), round(now["ask"] * 1.03, 1)


@pytest.fixture
def official(line):
    config = ConfigurationRestAPI(
        api_key=line["key"], api_secret=line["secret"], base_path=line["rest"], retries=0
    )
    return DerivativesTradingUsdsFutures(config_rest_api=config).rest_api


class TestOfficial:
    def test_time_rules_and_account(self, line, official):
        assert official.check_server_time().data().server_time > 1_700_000_000_000
        info = official.exchange_information().data()
        assert info.symbols[0].symbol == SYMBOL
        assert {limit.rate_limit_type for limit in info.rate_limits} == {
            "REQUEST_WEIGHT",
            "ORDERS",
        }
        (balance,) = official.futures_account_balance_v3().data()
        assert float(balance.balance) == state(line)["wallet"]
        assert official.account_information_v3().data().assets[0].asset == "USDT"
        assert official.position_information_v3(symbol=SYMBOL).data() == []
        assert official.get_current_position_mode().data().dual_side_position is False
        brackets = official.notional_and_leverage_brackets(symbol=SYMBOL).data()
        assert brackets.actual_instance is not None
        assert official.user_commission_rate(symbol=SYMBOL).data().symbol == SYMBOL
        assert official.mark_price(symbol=SYMBOL).data().actual_instance is not None
        day = official.ticker24hr_price_change_statistics(symbol=SYMBOL).data()
        assert float(day.actual_instance.last_price) > 0.0
        assert official.order_book(symbol=SYMBOL, limit=5).data().bids
        assert official.compressed_aggregate_trades_list(symbol=SYMBOL).data()
        assert official.change_initial_leverage(symbol=SYMBOL, leverage=9).data().leverage == 9
        assert official.symbol_configuration(symbol=SYMBOL).data()[0].leverage == 9

    def test_the_life_of_an_order(self, line, official):
        low, _ = prices(line)
        order = official.new_order(
            symbol=SYMBOL, side="BUY", type="LIMIT", time_in_force="GTX", quantity=0.01, price=low,
            new_client_order_id="official-1",
        ).data()  # fmt: skip
        assert (order.status, order.client_order_id) == ("NEW", "official-1")
        changed = official.modify_order(
            symbol=SYMBOL, side="BUY", quantity=0.02, price=low - 10, order_id=order.order_id
        ).data()
        assert changed.orig_qty == "0.020"
        assert len(official.current_all_open_orders(symbol=SYMBOL).data()) == 1
        query = official.query_order(symbol=SYMBOL, orig_client_order_id="official-1").data()
        assert query.orig_qty == "0.020"
        ended = official.cancel_order(symbol=SYMBOL, order_id=order.order_id).data()
        assert ended.status == "CANCELED"

    def test_refusals_carry_the_venues_codes(self, line, official):
        low, high = prices(line)
        order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "time_in_force": "GTX"}
        for wrong, code in (
            ({"quantity": 0.01, "price": high}, -5022),
            ({"quantity": 0.0105, "price": low}, -1111),
            ({"quantity": 0.01, "price": low, "side": "SELL", "reduce_only": "true"}, -2022),
            ({"quantity": 900.0, "price": low}, -2019),
            ({"quantity": 0.01, "price": low, "symbol": "NOPE"}, -1121),
        ):
            with pytest.raises(Exception, match=str(code)) as caught:
                official.new_order(**(order | wrong))
            assert "Error" in type(caught.value).__name__

    def test_batches(self, line, official):
        low, high = prices(line)
        row = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTX"}
        orders = [
            # By name: the client's own reader of dicts refuses its own default.
            BatchOrder(**row, quantity=0.01, price=price)
            for price in (low, high)
        ]
        good, bad = official.place_multiple_orders(batch_orders=orders).data()
        assert good.status == "NEW"
        assert bad.code == -5022
        (ended,) = official.cancel_multiple_orders(
            symbol=SYMBOL, order_id_list=[good.order_id]
        ).data()
        assert ended.status == "CANCELED"
        assert official.cancel_all_open_orders(symbol=SYMBOL).data().code == 200
        assert official.auto_cancel_all_open_orders(symbol=SYMBOL, countdown_time=0).data()

    def test_streams_and_order_entry_over_sockets(self, line, official):
        heard: dict[str, list] = {"user": [], "trade": [], "quote": []}

        async def main():
            client = DerivativesTradingUsdsFutures(
                config_ws_api=ConfigurationWebSocketAPI(
                    api_key=line["key"], api_secret=line["secret"], stream_url=line["ws_trade"]
                ),
                config_ws_streams=ConfigurationWebSocketStreams(stream_url=streams_base(line)),
            )
            streams = client.websocket_streams
            await streams.create_connection()
            key = official.start_user_data_stream().data().listen_key
            for name, handle in (
                ("user", await streams.user_data(key)),
                ("trade", await streams.aggregate_trade_streams(symbol="btcusdt")),
                ("quote", await streams.individual_symbol_book_ticker_streams(symbol="btcusdt")),
            ):
                handle.on("message", heard[name].append)
            api = client.websocket_api
            await api.create_connection()
            low, _ = prices(line)
            placed = await api.new_order(
                symbol=SYMBOL, side="BUY", type="LIMIT", time_in_force="GTX", quantity=0.01,
                price=low, new_client_order_id="socket-1",
            )  # fmt: skip
            assert placed.data().result.status == "NEW"
            bought = await api.new_order(
                symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.01,
                new_client_order_id="socket-2",
            )  # fmt: skip
            assert bought.data().result.order_id
            ended = await api.cancel_order(symbol=SYMBOL, orig_client_order_id="socket-1")
            assert ended.data().result.status == "CANCELED"
            end = asyncio.get_running_loop().time() + PATIENCE_S
            while len(heard["user"]) < 5 or not heard["trade"] or not heard["quote"]:
                assert asyncio.get_running_loop().time() < end, heard
                await asyncio.sleep(0.05)
            await api.close_connection()
            await streams.close_connection()

        asyncio.run(main())
        kinds = [type(event.actual_instance).__name__ for event in heard["user"]]
        assert "OrderTradeUpdate" in kinds
        assert "AccountUpdate" in kinds
        assert heard["trade"][0].s == SYMBOL
        assert float(heard["quote"][0].b) < float(heard["quote"][0].a)
        assert state(line)["position"] == 0.01


@pytest.fixture
def pythonic(line):
    client = Client(line["key"], line["secret"], ping=False)
    client.FUTURES_URL = f"{line['rest']}/fapi"
    yield client
    client.session.close()


class TestPythonBinance:
    def test_time_rules_and_account(self, line, pythonic):
        assert pythonic.futures_time()["serverTime"] > 1_700_000_000_000
        (info,) = pythonic.futures_exchange_info()["symbols"]
        assert {f["filterType"] for f in info["filters"]} >= {"PRICE_FILTER", "LOT_SIZE"}
        assert float(pythonic.futures_account_balance()[0]["balance"]) == state(line)["wallet"]
        assert pythonic.futures_account()["canTrade"] is True
        assert pythonic.futures_leverage_bracket(symbol=SYMBOL)
        assert pythonic.futures_change_leverage(symbol=SYMBOL, leverage=7)["leverage"] == 7
        (position,) = pythonic.futures_position_information(symbol=SYMBOL) or [{}]
        assert position == {} or float(position["positionAmt"]) == 0.0

    def test_the_life_of_an_order(self, line, pythonic):
        low, high = prices(line)
        order = pythonic.futures_create_order(
            symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTX", quantity="0.010",
            price=f"{low:.1f}",
        )  # fmt: skip
        assert order["status"] == "NEW"
        assert pythonic.futures_get_open_orders(symbol=SYMBOL)[0]["orderId"] == order["orderId"]
        changed = pythonic.futures_modify_order(
            symbol=SYMBOL, side="BUY", orderId=order["orderId"], quantity="0.030",
            price=f"{low:.1f}",
        )  # fmt: skip
        assert changed["origQty"] == "0.030"
        ended = pythonic.futures_cancel_order(symbol=SYMBOL, orderId=order["orderId"])
        assert ended["status"] == "CANCELED"
        with pytest.raises(BinanceAPIException) as caught:
            pythonic.futures_cancel_order(symbol=SYMBOL, orderId=order["orderId"])
        assert caught.value.code == -2011
        with pytest.raises(BinanceAPIException) as caught:
            pythonic.futures_create_order(
                symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTX", quantity="0.010",
                price=f"{high:.1f}",
            )  # fmt: skip
        assert caught.value.code == -5022

    def test_a_batch_a_fill_and_its_history(self, line, pythonic):
        low, high = prices(line)
        row = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTX"}
        good, bad = pythonic.futures_place_batch_order(
            batchOrders=[
                row | {"quantity": "0.010", "price": f"{price:.1f}"} for price in (low, high)
            ]
        )
        assert good["status"] == "NEW"
        assert bad["code"] == -5022
        pythonic.futures_cancel_all_open_orders(symbol=SYMBOL)
        assert pythonic.futures_get_open_orders(symbol=SYMBOL) == []
        pythonic.futures_create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.020")
        (fill,) = pythonic.futures_account_trades(symbol=SYMBOL)
        assert (fill["qty"], fill["buyer"], fill["maker"]) == ("0.020", True, False)
        assert pythonic.futures_income_history(symbol=SYMBOL)[0]["incomeType"] == "COMMISSION"
        pythonic.futures_create_order(
            symbol=SYMBOL, side="SELL", type="MARKET", quantity="0.020", reduceOnly="true"
        )
        assert state(line)["position"] == 0.0

    def test_user_stream(self, line):
        events: list[dict] = []

        async def main():
            client = AsyncClient(line["key"], line["secret"])
            client.FUTURES_URL = f"{line['rest']}/fapi"
            manager = BinanceSocketManager(client)
            manager.FSTREAM_URL = f"{streams_base(line)}/"
            async with manager.futures_user_socket() as socket:
                socket.TIMEOUT = 0.2  # a read's, which it awaits when it is closed
                await client.futures_create_order(
                    symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.010"
                )
                while not {"ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE"} <= {e["e"] for e in events}:
                    events.append(await asyncio.wait_for(socket.recv(), PATIENCE_S))
            await client.close_connection()

        asyncio.run(main())
        fills = [
            e["o"] for e in events if e["e"] == "ORDER_TRADE_UPDATE" and e["o"]["x"] == "TRADE"
        ]
        assert fills[0]["l"] == "0.010"
