"""Clients without a key beside a simulated venue: the same market, and nothing of the account."""

from __future__ import annotations

import asyncio
import dataclasses

from passivx.exchanges.base import Link
from passivx.exchanges.endpoints import load_endpoints
from passivx.exchanges.stream import StreamState
from passivx.exchanges.venues import open_exchange
from tests.exchanges.conformance.conftest import Recorder, until

PUBLIC = {
    "binance": {"exchangeInfo", "fundingInfo", "premiumIndex", "time", "aggTrades", "ws"},
    "bybit": {"instruments-info", "risk-limit", "tickers", "time", "recent-trade", "inverse"},
}


def test_the_market_is_the_same_without_a_key(venue):
    async def main():
        async with venue.client(listening=False) as (_, _, rules):
            pass
        asked = len(await venue.ledger("request"))
        endpoints, symbol, _ = load_endpoints(venue.path)
        client = open_exchange(endpoints=endpoints, symbol=symbol, key=None, assumed=rules.market)
        sink = Recorder()
        try:
            seen = await client.rules()
            assert {"maker_fee", "taker_fee"} <= set(seen.assumed)
            assert dataclasses.replace(seen, assumed=()) == rules
            mark = await client.mark()
            assert mark.next_funding_ms > mark.ts_ms
            await client.listen(sink)
            await until(lambda: len(sink.trades) > 20 and sink.quotes and sink.marks, "a market")
            assert len(await client.recent_trades(5)) == 5
        finally:
            await client.close()
        assert {link for link, state in sink.links if state is StreamState.LIVE} == {
            Link.BOOK,
            Link.TRADES,
        }
        assert {link for link, _ in sink.links} == {Link.BOOK, Link.TRADES}
        assert [sink.orders, sink.fills, sink.wallets, sink.positions] == [[], [], [], []]
        return (await venue.ledger("request"))[asked:]

    requests = asyncio.run(main())
    assert {row["path"].split("/")[-1] for row in requests} == PUBLIC[venue.name]
    assert not any("signature" in row["params"] for row in requests)
