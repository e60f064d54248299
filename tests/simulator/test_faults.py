"""Fault rules: what may be said, and that each does what it says, byte by byte."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import orjson
import pytest

from passivx.errors import ConfigError
from passivx.simulator.rules import ANSWERS, DEEDS, load_faults, read_rules
from tests.simulator.lines import CLOSE, PING, PONG, line

ORDER = ("POST", "/fapi/v1/order")
DOCS = Path(__file__).parents[2] / "docs" / "simulator.md"


def test_every_action_is_documented_and_no_other():
    documented = set(
        re.findall(r"`((?:rest|ws|ord|acct|mkt|ext|clock)\.[a-z_]+|heal)`", DOCS.read_text())
    )
    assert documented == set(ANSWERS) | set(DEEDS)


def test_the_documented_plan_is_one():
    plan = DOCS.read_text().split("```json\n")[1].split("```")[0]
    assert len(read_rules(orjson.loads(plan))) == 4


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (5, "must be an object"),
        ({"do": "ws.rts"}, "did you mean 'ws.rst'?"),
        ({"do": "ws.rst", "chanel": "public"}, "did you mean 'channel'?"),
        ({"do": "ws.rst", "channel": "pubic"}, "did you mean 'public'?"),
        ({"do": "rest.delay", "when": {"on": "order"}}, "s: is missing"),
        ({"do": "rest.drop_after"}, "must name a request"),
        ({"do": "rest.drop_after", "when": {"event": "fill"}}, "must name a request"),
        ({"do": "rest.drop_after", "when": {"on": "oder"}}, "did you mean 'order'?"),
        ({"do": "rest.drip", "when": {"on": "ws:order.place"}}, "cannot be done"),
        ({"do": "ws.rst", "when": {"event": "fil"}}, "did you mean 'fill'?"),
        ({"do": "ws.rst", "when": {"on": "order", "event": "fill"}}, "must name one of"),
        ({"do": "ws.rst", "when": {"on": "order", "nth": 0}}, "from 1 on"),
        ({"do": "ws.rst", "when": {"at_ms": -1}}, "since the simulation began"),
        ({"do": "ws.rst", "times": 3}, "needs a `when`"),
        ({"do": "ws.rst", "times": -1, "when": {"on": "order"}}, "0 for ever"),
        ({"do": "ws.rst", "times": True, "when": {"on": "order"}}, "0 for ever"),
        ({"do": "ws.rst", "until_ms": -5}, "until_ms"),
        ({"do": "ws.rst", "when": "later"}, "must be an object"),
        ({"do": "ws.rst", "when": {"on": "order", "nht": 2}}, "when.nht"),
        ({"do": "ws.rst", "when": {"on": "connect:privat"}}, "did you mean 'private'?"),
        ({"do": "ws.rst", "when": {"on": "PATCH /fapi/v1/order"}}, "when.on"),
        ({"do": "ws.rst", "when": {"on": "POST fapi/v1/order"}}, "/fapi/v1/order'?"),
        ({"do": "ws.rst", "when": {"at_ms": 5, "nth": 2}}, "not with at_ms"),
        ({"do": "ws.raw", "text": 5}, "must be text"),
        ({"do": "acct.hedge", "on": 1}, "must be true or false"),
        ({"do": "ws.close", "code": True}, "must be a whole number"),
        ({"do": "ws.close", "code": 99}, "must be in [1000, 4999]"),
        ({"do": "mkt.jump", "fraction": "-0.2"}, "must be a number"),
        ({"do": "ws.raw"}, "either text or hex"),
        ({"do": "ws.raw", "hex": "xy"}, "pairs of hexadecimal digits"),
        ({"do": "rest.reply", "when": {"on": "any"}, "headers": {"A": "b\r\nc"}}, "one line"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(rule, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_rules(rule)


def test_all_problems_are_told_at_once_and_nothing_is_taken():
    async def go():
        async with line() as served:
            with pytest.raises(ConfigError) as caught:
                served.faults.add([{"do": "ws.rst", "when": {"on": "order"}}, {"do": "a"}, 1])
            assert len(caught.value.problems) == 2
            assert not served.faults.armed

    asyncio.run(go())


def test_files_of_rules(tmp_path):
    path = tmp_path / "plan"
    for text in ('[{"do": "heal"}]', '{"faults": [{"do": "heal"}]}', "do: heal"):
        path.write_text(text)
        assert [rule["do"] for rule in load_faults(path)] == ["heal"]
    path.write_text("{faults: 5}")
    with pytest.raises(ConfigError, match="must be a list of rules"):
        load_faults(path)


# --- requests ---


@pytest.mark.parametrize(("do", "executed"), [("rest.drop_before", 0), ("rest.drop_after", 1)])
def test_a_dropped_request_is_or_is_not_executed(run, do, executed):
    async def go():
        async with line({"do": do, "when": {"on": "order"}}) as served:
            client = await served.client()
            client.send_request(*ORDER)
            assert await client.closed() == b""
            assert len(served.front.executed) == executed
            assert (await served.ask(*ORDER))[0] == 200
            assert [row["do"] for row in served.faults_seen()] == [do]

    run(go())


def test_what_a_fault_keeps_from_the_front_is_in_the_ledger_all_the_same(run):
    async def go():
        rules = [
            {"do": "rest.drop_before", "when": {"on": "order"}},
            {"do": "rest.reply", "status": 418, "when": {"on": "read"}},
            {"do": "rest.drop_before", "when": {"on": "ws:order.place"}},
        ]
        async with line(*rules) as served:
            client = await served.client()
            query = "newClientOrderId=lost-1&signature=secret"
            client.send_request("POST", f"/fapi/v1/order?{query}")
            assert await client.closed() == b""
            assert (await served.ask("GET", "/v5/x?apiKey=secret"))[0] == 418
            socket = await served.socket("/trade")
            socket.send('{"id":"1","method":"order.place","params":{"a":1,"apiKey":"secret"}}')
            assert await socket.closed() == b""
            rows = served.ledger.entries("request")
            told = [(row["method"], row["status"], row["params"]) for row in rows]
            assert told == [
                ("POST", 0, {"newClientOrderId": "lost-1", "signature": "(hidden)"}),
                ("GET", 418, {"apiKey": "(hidden)"}),
                ("order.place", 0, {"a": 1, "apiKey": "(hidden)"}),
            ]
            assert served.front.executed == []

    run(go())


def test_the_nth_and_so_many_and_no_other_kind(run):
    async def go():
        rule = {"do": "rest.reply", "status": 503, "when": {"on": "order", "nth": 2}, "times": 2}
        async with line(rule) as served:
            assert (await served.ask("GET", "/fapi/v1/time"))[0] == 200
            got = [(await served.ask(*ORDER))[0] for _ in range(4)]
            assert got == [200, 503, 503, 200]
            assert len(served.front.executed) == 3

    run(go())


def test_replies_instead_and_after(run):
    async def go():
        rules = [
            {"do": "rest.reply", "status": 429, "headers": {"Retry-After": "7"}, "body": "slow",
             "when": {"on": "POST /fapi/v1/order"}},
            {"do": "rest.reply_after_exec", "status": 400, "body": "{}", "when": {"on": "order"}},
        ]  # fmt: skip
        async with line(*rules) as served:
            client = await served.client()
            assert await client.ask(*ORDER) == (429, b"slow")
            assert client.headers["retry-after"] == "7"
            assert served.front.executed == []
            assert await client.ask(*ORDER) == (400, b"{}")
            assert len(served.front.executed) == 1

    run(go())


def test_late_answers_and_late_execution(run):
    async def go():
        async with line({"do": "rest.delay", "s": 5, "when": {"on": "order"}}) as served:
            client = await served.client()
            client.send_request(*ORDER)
            while not served.front.executed:
                await asyncio.sleep(0)
            await served.time.run(5000)
            assert (await client.answer())[0] == 200
        async with line({"do": "rest.delay_exec", "s": 5, "when": {"on": "order"}}) as served:
            client = await served.client()
            client.send_request(*ORDER)
            while not served.faults_seen():
                await asyncio.sleep(0)
            client.writer.close()  # the client has left
            await served.time.run(4000)
            assert served.front.executed == []
            await served.time.run(1000)
            assert len(served.front.executed) == 1

    run(go())


def test_an_answer_cut_short_and_one_that_drips(run):
    async def go():
        async with line({"do": "rest.truncate", "bytes": 3, "when": {"on": "read"}}) as served:
            client = await served.client()
            client.send_request("GET", "/x")
            raw = await client.closed()
            assert raw.endswith(b'\r\n\r\n{"n')
            assert b"Content-Length: 7" in raw
        rule = {"do": "rest.drip", "bytes_per_s": 1, "when": {"on": "read"}}
        async with line(rule) as served:
            client = await served.client()
            client.send_request("GET", "/x")
            while not served.front.executed:
                await asyncio.sleep(0)
            await served.time.run(10_000)
            assert 10 <= len(await client.reader.read(100)) <= 12

    run(go())


def test_a_stale_answer_is_the_first(run):
    async def go():
        async with line({"do": "rest.stale", "when": {"on": "read"}, "times": 0}) as served:
            got = [(await served.ask("GET", f"/x?a=1&timestamp={i}"))[1] for i in range(3)]
            assert got == [b'{"n":1}'] * 3
            assert (await served.ask("GET", "/x?a=2"))[1] == b'{"n":4}'

    run(go())


def test_a_stale_answer_of_an_age(run):
    async def go():
        rule = {"do": "rest.stale", "s": 5, "when": {"on": "GET /x"}, "times": 0}
        async with line(rule) as served:
            got = []
            for _ in range(5):
                got.append((await served.ask("GET", "/x"))[1])
                await served.time.run(3000)
            # At 0, 3, 6, 9 and 12 s: the newest that is 5 s old, else the oldest.
            assert got == [b'{"n":%d}' % n for n in (1, 1, 1, 2, 3)]

    run(go())


def test_one_answer_at_a_time_the_other_rule_waits(run):
    async def go():
        rules = [
            {"do": "rest.reply", "status": status, "when": {"on": on}}
            for status, on in ((501, "order"), (502, "any"), (503, "POST /fapi/v1/*"))
        ]
        async with line(*rules) as served:
            got = [(await served.ask(*ORDER))[0] for _ in range(4)]
            assert got == [501, 502, 503, 200]
            assert [row["id"] for row in served.faults_seen()] == [1, 2, 3]

    run(go())


def test_a_rule_that_has_ended_does_nothing(run):
    async def go():
        rule = {"do": "rest.reply", "status": 503, "when": {"on": "any"}, "times": 0}
        async with line(rule | {"until_ms": 1000}) as served:
            assert (await served.ask("GET", "/x"))[0] == 503
            await served.time.run(1001)
            assert (await served.ask("GET", "/x"))[0] == 200
            assert not served.faults.armed

    run(go())


def test_a_deed_about_the_order_that_a_request_names(run):
    async def go():
        rules = [
            {"do": "ord.partial", "fraction": 1, "when": {"on": "cancel"}},
            {"do": "rest.delay_exec", "s": 1, "when": {"on": "cancel"}},
        ]
        async with line(*rules) as served:
            served.world.order("first", 1, 1.0, 90.0)
            meant = served.world.order("second", 1, 1.0, 91.0)
            client = await served.client()
            client.send_request("DELETE", "/fapi/v1/order?origClientOrderId=second")
            while len(served.faults_seen()) < 2:
                await asyncio.sleep(0)
            await served.time.run(1000)
            assert (await client.answer())[0] == 200
            assert meant.status == "FILLED"
            assert served.world.venue.size == 1.0

    run(go())


def test_stopping_does_not_wait_for_what_is_delayed(run):
    async def go():
        async with line({"do": "rest.delay_exec", "s": 9, "when": {"on": "any"}}) as served:
            client = await served.client()
            client.send_request("GET", "/x")
            while not served.faults_seen():
                await asyncio.sleep(0)
            await served.server.stop()
            await served.time.run(9000)
            assert served.front.executed == []

    run(go())


# --- websockets ---


def test_frozen_it_neither_reads_nor_writes_and_then_does_both(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.freeze", "s": 5})
            (session,) = served.server.sessions
            session.send("held")
            session.ping(b"lost")
            client.send("unread")
            client.send(b"?", PING)
            await client.writer.drain()
            # A second one goes on: the turns of the loop that this takes are enough for the first.
            other = await served.socket()
            other.send("x")
            assert await other.text() == '{"n":1}'
            assert served.front.executed == ["x"]
            await served.time.run(5000)
            assert await client.text() == "held"
            assert await client.text() == '{"n":2}'
            assert await client.frame() == (PONG, b"?")

    run(go())


@pytest.mark.parametrize("do", ["ws.stall", "ws.hold", "ws.freeze", "ws.reorder"])
def test_healed_it_goes_on_at_once(run, do):
    async def go():
        async with line() as served:
            client = await served.socket()
            (session,) = served.server.sessions
            served.faults.add({"do": do})
            session.send("before")
            served.faults.add([{"do": "ws.drop", "count": 9}, {"do": "ws.cut"}, {"do": "heal"}])
            session.send("after")
            expected = ["after"] if do == "ws.stall" else ["before", "after"]
            assert [await client.text() for _ in expected] == expected
            client.send("x")
            assert await client.text() == '{"n":1}'

    run(go())


def test_only_messages_that_match_are_lost_or_doubled(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            (session,) = served.server.sessions
            served.faults.add({"do": "ws.drop", "match": "trade", "count": 2})
            for text in ("trade", "book", "a trade", "trade 3"):
                session.send(text)
            assert [await client.text(), await client.text()] == ["book", "trade 3"]
            served.faults.add({"do": "ws.dup", "match": "book"})
            for text in ("trade", "book", "book"):
                session.send(text)
            assert [await client.text() for _ in range(4)] == ["trade", "book", "book", "book"]

    run(go())


def test_what_waits_to_be_turned_round_does_not_wait_for_ever(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            (session,) = served.server.sessions
            served.faults.add({"do": "ws.reorder", "window": 8})
            session.send("a")
            session.send("b")
            assert await client.silent()
            await served.time.run(1000)
            session.send("c")
            assert [await client.text() for _ in range(3)] == ["b", "a", "c"]

    run(go())


@pytest.mark.parametrize(
    ("rule", "before", "after", "executed"),
    [
        ({"do": "rest.delay", "s": 5}, [], ['{"n":1}'], 1),
        ({"do": "rest.delay_exec", "s": 5}, [], ['{"n":1}'], 0),
        ({"do": "rest.reply", "body": '{"id":"$id","code":-1}'}, ['{"id":7,"code":-1}'], [], 0),
        ({"do": "rest.reply_after_exec", "body": "late"}, ["late"], [], 1),
        ({"do": "rest.reply_after_exec"}, [], [], 1),
    ],
)
def test_answers_over_a_socket(run, rule, before, after, executed):
    async def go():
        async with line(rule | {"when": {"on": "ws:order.place"}}) as served:
            client = await served.socket("/trade")
            client.send('{"id":7,"method":"order.place"}')
            assert [await client.text() for _ in before] == before
            assert await client.silent()
            assert len(served.front.executed) == executed
            await served.time.run(5000)
            assert [await client.text() for _ in after] == after
            client.send("{}")
            client.send("[]")
            client.send("no json")
            for _ in range(3):
                assert (await client.text()).startswith('{"n":')

    run(go())


def test_an_answer_over_a_socket_cut_short(run):
    async def go():
        rule = {"do": "rest.truncate", "bytes": 5, "when": {"on": "order"}}
        async with line(rule) as served:
            client = await served.socket("/trade")
            client.send('{"reqId":"1","op":"order.create"}')
            assert await client.closed() == b'\x81\x07{"n'

    run(go())


def test_groups_are_of_requests_not_of_what_else_goes_over_sockets(run):
    async def go():
        rules = [
            {"do": "rest.reply", "body": "any", "when": {"on": "any"}},
            {"do": "rest.reply", "body": "auth", "when": {"on": "ws:auth"}},
        ]
        async with line(*rules) as served:
            client = await served.socket("/private")
            for text, answer in (
                ('{"op":"subscribe"}', '{"n":1}'),
                ('{"op":"auth"}', "auth"),
                ('{"op":"auth"}', '{"n":2}'),
            ):
                client.send(text)
                assert await client.text() == answer

    run(go())


def test_a_deed_of_a_sockets_moment_concerns_that_socket(run):
    async def go():
        rules = [
            {"do": "ws.rst", "when": {"on": "connect:public", "nth": 2}},
            {"do": "ws.fin", "when": {"on": "ws:auth"}},
        ]
        async with line(*rules) as served:
            first = await served.socket()
            second = await served.socket()
            assert await second.closed() == b""
            third = await served.socket()
            third.send('{"op":"auth"}')
            assert await third.closed() in (b"", b'\x81\x07{"n":1}')
            first.send("x")
            assert (await first.text()).startswith('{"n":')

    run(go())


def test_a_handshake_that_is_late_and_one_that_never_ends(run):
    async def go():
        rules = [
            {"do": "rest.delay", "s": 5, "when": {"on": "connect"}},
            {"do": "rest.drop_before", "when": {"on": "connect", "nth": 2}},
        ]
        async with line(*rules) as served:
            client = await served.client()
            waiting = asyncio.create_task(client.upgrade("/public"))
            while not served.faults_seen():
                await asyncio.sleep(0)
            await served.time.run(4999)
            assert not waiting.done()
            await served.time.run(1)
            assert (await waiting)[0] == 101
            other = await served.client()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await other.upgrade("/public")

    run(go())


def test_stalled_it_answers_pings_and_loses_the_rest(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.stall", "channel": "public", "s": 5})
            client.send("lost")
            assert await client.silent()
            await served.time.run(5000)
            client.send("back")
            assert await client.text() == '{"n":2}'

    run(go())


def test_held_back_everything_comes_in_order(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.hold", "s": 5})
            for _ in range(3):
                client.send("x")
            assert await client.silent()
            await served.time.run(5000)
            assert [await client.text() for _ in range(3)] == ['{"n":1}', '{"n":2}', '{"n":3}']

    run(go())


def test_twice_not_at_all_and_reversed(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.dup", "count": 1})
            client.send("x")
            assert [await client.text(), await client.text()] == ['{"n":1}'] * 2
            served.faults.add({"do": "ws.drop", "count": 2})
            for _ in range(3):
                client.send("x")
            assert await client.text() == '{"n":4}'
            served.faults.add({"do": "ws.reorder", "window": 3})
            for _ in range(3):
                client.send("x")
            assert [await client.text() for _ in range(3)] == ['{"n":7}', '{"n":6}', '{"n":5}']

    run(go())


@pytest.mark.parametrize(("do", "reset"), [("ws.rst", True), ("ws.fin", False)])
def test_ends_without_a_word(run, do, reset):
    async def go():
        async with line() as served:
            client, other = await served.socket(), await served.socket("/private")
            served.faults.add({"do": do, "channel": "public"})
            try:
                assert await client.reader.read() == b""
                assert not reset
            except ConnectionResetError:
                assert reset
            other.send("x")
            assert await other.text() == '{"n":1}'

    run(go())


def test_a_close_and_a_cut(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.close", "code": 1012, "reason": "restart"})
            assert await client.frame() == (CLOSE, (1012).to_bytes(2, "big") + b"restart")
            client = await served.socket()
            served.faults.add({"do": "ws.cut", "bytes": 4})
            client.send("x")
            assert await client.closed() == b'\x81\x07{"'

    run(go())


def test_bytes_bursts_and_pings(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.faults.add({"do": "ws.raw", "text": "hello"})
            assert await client.text() == "hello"
            served.faults.add({"do": "ws.raw", "hex": "8a00"})
            assert await client.frame() == (PONG, b"")
            client.send("x")
            await client.text()
            served.faults.add({"do": "ws.burst", "count": 50})
            assert {await client.text() for _ in range(50)} == {'{"n":1}'}
            served.faults.add({"do": "ws.ping", "count": 2})
            assert [(await client.frame())[0] for _ in range(2)] == [PING, PING]

    run(go())


@pytest.mark.parametrize(("do", "executed"), [("rest.drop_before", 0), ("rest.drop_after", 1)])
def test_orders_over_a_socket_meet_the_same_rules(run, do, executed):
    async def go():
        async with line({"do": do, "when": {"on": "order"}}) as served:
            client = await served.socket("/trade")
            client.send('{"id":"1","method":"order.place"}')
            assert await client.closed() == b""
            assert len(served.front.executed) == executed

    run(go())


def test_a_socket_that_may_not_open(run):
    async def go():
        rule = {"do": "rest.reply", "status": 503, "when": {"on": "connect:private"}, "times": 0}
        async with line(rule) as served:
            assert (await (await served.client()).upgrade("/private"))[0] == 503
            assert (await (await served.client()).upgrade("/public"))[0] == 101
            served.faults.heal()
            assert (await (await served.client()).upgrade("/private"))[0] == 101

    run(go())


# --- account, market, clock ---


def test_deeds_change_the_truth_and_heal_what_lasts():
    async def go():
        async with line() as served:
            venue, add = served.world.venue, served.faults.add
            add({"do": "ext.order", "side": "buy", "qty": 4})
            assert venue.size == 4.0
            add({"do": "ext.flip"})
            assert venue.size == -4.0
            add({"do": "ext.close", "fraction": 0.5})
            assert venue.size == -2.0
            add({"do": "acct.adl", "fraction": 0.5})
            assert venue.size == -1.0
            wallet = venue.wallet
            add({"do": "acct.balance", "factor": 0.5})
            assert venue.wallet == pytest.approx(wallet / 2)
            mark = venue.mark_price
            add({"do": "mkt.jump", "fraction": -0.1})
            assert venue.mark_price == pytest.approx(mark * 0.9, abs=1.0)
            served.world.order("a", 1, 10.0, 50.0)
            add({"do": "ord.partial", "fraction": 0.3, "client_id": "a"})
            assert venue.find(client_id="a").filled == 3.0
            add({"do": "ord.venue_cancel"})
            assert venue.find(client_id="a").reason == "admin"
            add({"do": "acct.liquidate"})
            assert venue.size == 0.0
            add([{"do": "acct.hedge"}, {"do": "mkt.status"}, {"do": "clock.skew", "ms": 9000}])
            assert venue.hedge_mode
            assert not venue.trading
            add([{"do": "acct.rights", "trade": False}, {"do": "acct.rights", "withdraw": True}])
            assert (venue.may_trade, venue.may_withdraw) == (True, True)
            assert served.clock.time_ms() - served.time.time_ms() == 9000
            add({"do": "heal"})
            assert not venue.hedge_mode
            assert venue.trading
            assert (venue.may_trade, venue.may_withdraw) == (True, False)
            assert served.clock.time_ms() == served.time.time_ms()

    asyncio.run(go())


def test_terms_and_rules_change_behind_the_clients_back():
    async def go():
        async with line() as served:
            venue, add = served.world.venue, served.faults.add
            add([{"do": "acct.leverage", "leverage": 5}, {"do": "acct.margin", "cross": False}])
            assert (venue.leverage, venue.cross_mode) == (5.0, False)
            add({"do": "mkt.rules", "price_step": 2, "max_qty": 7, "max_orders": 1})
            listing = venue.listing
            assert listing.market.price_step == 2.0
            assert (listing.max_qty, listing.max_orders) == (7.0, 1)
            assert listing.market.qty_step == 1.0
            add({"do": "ext.order", "side": "sell", "qty": 1, "price": 104, "client_id": "mine"})
            add({"do": "ext.clone"})
            assert "too_many_orders" in served.faults_seen()[-1]["refused"]
            add([{"do": "mkt.rules", "max_orders": 5}, {"do": "ext.clone", "client_id": "mine"}])
            assert [(o.client_id, o.price) for o in venue.open_orders()] == [
                ("mine", 104.0), ("web_3", 104.0),
            ]  # fmt: skip
            add([{"do": "ext.order", "side": "buy", "qty": 2}, {"do": "acct.funding", "rate": 0.5}])
            ((_, rate, amount, size),) = venue.payments
            assert (rate, size) == (0.5, 2.0)
            assert amount < 0.0
            add({"do": "mkt.rules", "qty_step": 3})
            assert served.faults_seen()[-1]["refused"]
            assert venue.listing.market.qty_step == 1.0

    asyncio.run(go())


def test_a_clock_that_drifts():
    async def go():
        async with line() as served:

            def skew_ms():
                return served.clock.time_ms() - served.time.time_ms()

            served.faults.add({"do": "clock.skew", "ms": 6000, "over_s": 60})
            await served.time.run(30_000)
            assert skew_ms() == 3000
            served.faults.add({"do": "clock.skew", "ms": -1000, "over_s": 10})
            await served.time.run(5_000)
            assert skew_ms() == 1000
            await served.time.run(6_000)
            assert skew_ms() == -1000
            assert served.clock.monotonic_s() == served.time.monotonic_s()

    asyncio.run(go())


@pytest.mark.parametrize("event", ["print", "fill", "funding", "liquidation", "cancel"])
def test_each_event_is_a_moment(event):
    async def go():
        rule = {"do": "clock.skew", "ms": 7, "when": {"event": event}}
        async with line(rule) as served:
            venue, world = served.world.venue, served.world
            doings = {
                "funding": venue.settle_funding,
                "print": lambda: world.bought_at(100.0),
                "fill": lambda: world.order("a", 1, 1.0),
                "cancel": lambda: venue.cancel(world.order("b", 1, 1.0, 90.0)),
                "liquidation": venue.liquidate,
            }
            for name, do in doings.items():
                assert served.faults.armed
                do()
                if name == event:
                    break
            assert not served.faults.armed
            await served.time.run(0)
            assert served.clock.time_ms() - served.time.time_ms() == 7
            (row,) = served.faults_seen()
            assert row | {"ts_ms": 0} == {
                "event": "fault", "ts_ms": 0, "replay_ts_ms": row["replay_ts_ms"],
                "id": 1, "do": "clock.skew", "args": {"ms": 7, "over_s": 0.0}, "on": event,
            }  # fmt: skip

    asyncio.run(go())


def test_healed_nothing_is_to_come(run):
    async def go():
        rules = [
            {"do": "acct.balance", "factor": 2, "when": {"at_ms": 500}},
            {"do": "rest.stale", "when": {"on": "read"}, "times": 0},
        ]
        async with line(*rules) as served:
            wallet = served.world.venue.wallet
            assert (await served.ask("GET", "/x"))[1] == b'{"n":1}'
            served.faults.heal()
            assert not served.faults.armed
            await served.time.run(1000)
            assert served.world.venue.wallet == wallet
            assert served.faults.add(rules[1]) == [3]
            assert (await served.ask("GET", "/x"))[1] == b'{"n":2}'
            # Later than its time, it comes at once.
            served.faults.add(rules[0])
            await served.time.run(0)
            assert served.world.venue.wallet == 2 * wallet
            served.faults.heal()
            assert [row["do"] for row in served.faults_seen()] == [
                "rest.stale", "rest.stale", "acct.balance",
            ]  # fmt: skip

    run(go())


def test_sockets_that_are_gone_are_left_alone(run):
    async def go():
        async with line() as served:
            gone, client = await served.socket(), await served.socket()
            gone.writer.transport.abort()
            while not served.front.gone:
                await asyncio.sleep(0)
            for do in ("ws.hold", "ws.freeze", "ws.ping", "heal", "ws.rst"):
                served.faults.add({"do": do})
            await client.closed()
            while len(served.front.gone) < 2:
                await asyncio.sleep(0)
            assert not served.faults._gates

    run(go())


def test_an_event_is_about_its_order():
    async def go():
        rule = {"do": "ord.partial", "fraction": 0.5, "when": {"event": "order", "nth": 2}}
        async with line(rule) as served:
            first = served.world.order("a", 1, 4.0, 90.0)
            second = served.world.order("b", 1, 4.0, 91.0)
            assert second.filled == 0.0  # not before the venue is done with it
            await served.time.run(0)
            assert (first.filled, second.filled) == (0.0, 2.0)

    asyncio.run(go())


def test_moments_of_the_account_and_of_time():
    async def go():
        rules = [
            {"do": "ord.venue_cancel", "when": {"event": "order", "nth": 2}},
            {"do": "acct.balance", "factor": 2, "when": {"at_ms": 3000}},
        ]
        async with line(*rules) as served:
            first = served.world.order("a", 1, 1.0, 90.0)
            second = served.world.order("b", 1, 1.0, 91.0)
            wallet = served.world.venue.wallet
            await served.time.run(2999)
            assert (first.status, second.status) == ("NEW", "CANCELED")
            assert served.world.venue.wallet == wallet
            await served.time.run(1)
            assert served.world.venue.wallet == 2 * wallet

    asyncio.run(go())


def test_what_the_venue_refuses_is_in_the_ledger():
    async def go():
        async with line() as served:
            served.faults.add({"do": "ext.order", "side": "buy", "qty": 1e9})
            served.faults.add({"do": "ord.partial"})
            told = [row.get("refused") for row in served.faults_seen()]
            assert sum(bool(text) for text in told) == 2

    asyncio.run(go())
