"""The simulator's sockets: HTTP and websockets as such, whatever the venue."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.simulator.lines import CLOSE, PING, PONG, line

UPGRADE = (
    b"GET /public HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def code(number: int) -> bytes:
    return struct.pack("!H", number)


# --- HTTP ---


def test_the_front_gets_what_was_sent_and_its_answer_goes_out(run):
    async def go():
        async with line() as served:
            client = await served.client()
            target = "/a/b?x=%41&y=1%202&empty=&x=%zz"
            assert await client.ask("PUT", target, b"\x00body") == (200, b'{"n":1}')
            assert client.headers["x-name"] == "1"
            assert client.headers["content-type"] == "application/json"
            (request,) = served.front.requests
            assert (request.method, request.path) == ("PUT", "/a/b")
            assert request.query == "x=%41&y=1%202&empty=&x=%zz"
            assert request.body == b"\x00body"
            assert request.headers["host"] == request.headers["Host"] == "x"
            # The connection is kept.
            assert await client.ask("GET", "/") == (200, b'{"n":2}')

    run(go())


def test_requests_of_one_connection_are_answered_in_their_order(run):
    async def go():
        async with line() as served:
            client = await served.client()
            for _ in range(20):
                client.send_request("POST", "/x", b"y" * 1000)
            got = [(await client.answer())[1] for _ in range(20)]
            assert got == [b'{"n":%d}' % n for n in range(1, 21)]

    run(go())


def test_a_front_that_breaks_is_a_500_in_the_ledger_and_on_stderr(run, caplog):
    async def go():
        async with line() as served:
            client = await served.client()
            assert await client.ask("GET", "/boom?signature=abc") == (500, b"")
            assert (await client.ask("GET", "/x"))[0] == 200
            websocket = await served.socket()
            websocket.send("boom")
            websocket.send("x")
            assert await websocket.text() == '{"n":2}'
            told = [row["error"] for row in served.faults_seen()]
            assert [text.partition(":")[0] for text in told] == ["LookupError at _answer"] * 2

    run(go())
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
    assert "abc" not in caplog.text


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /x HTTP/1.1\r\nBad header\r\n\r\n",
        b"GET /x HTTP/1.1\r\nA: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_a_400(run, raw):
    async def go():
        async with line() as served:
            client = await served.client()
            client.writer.write(raw)
            assert (await client.answer())[0] == 400
            assert served.front.requests == []
            assert (await served.ask("GET", "/x"))[0] == 200

    run(go())


def test_a_body_beyond_a_mebibyte_is_refused(run):
    async def go():
        async with line() as served:
            assert (await served.ask("POST", "/x", b"y" * (1 << 20)))[0] == 200
            client = await served.client()
            client.send_request("POST", "/x", b"y" * ((1 << 20) + 1))
            assert (await client.answer())[0] == 413
            assert len(served.front.requests) == 1

    run(go())


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(run):
    async def go():
        async with line() as served:
            client = await served.client()
            client.writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            await client.writer.drain()
            client.writer.close()
            assert (await served.ask("GET", "/x"))[0] == 200
            assert len(served.front.requests) == 1

    run(go())


# --- websockets ---


def test_a_session_from_its_beginning_to_its_end(run):
    async def go():
        async with line() as served:
            client = await served.socket("/private?listenKey=abc")
            (session,) = served.server.sessions
            assert served.front.sessions == [session]
            assert (session.channel, session.path, session.query) == (
                "private", "/private", "listenKey=abc",
            )  # fmt: skip
            client.send("hello")
            assert await client.text() == '{"n":1}'
            session.send("text")
            session.send(b"bytes")
            assert [await client.text(), await client.text()] == ["text", "bytes"]
            client.send(code(1000), CLOSE)
            assert await client.closed() == bytes([0x80 | CLOSE, 2]) + code(1000)
            while not served.front.gone:
                await asyncio.sleep(0)
            assert served.front.gone == [session]
            assert served.server.sessions == []
            session.send("into the void")

    run(go())


def test_only_paths_that_the_front_knows_are_upgraded(run):
    async def go():
        async with line() as served:
            assert (await (await served.client()).upgrade("/nowhere"))[0] == 404
            client = await served.client()
            # A path is what it says, not what a router makes of it.
            assert (await client.upgrade("/Public"))[0] == 404
            assert served.front.sessions == []

    run(go())


def test_nothing_is_compressed_however_it_is_asked_for(run):
    async def go():
        async with line() as served:
            client = await served.client()
            status, _ = await client.upgrade(
                "/public", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
            )
            assert status == 101
            assert "sec-websocket-extensions" not in client.headers

    run(go())


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, (1 << 20) - 1])
def test_messages_of_every_size(run, size):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.server.sessions[0].send("x" * size)
            assert len(await client.text()) == size
            client.send("y" * (size or 1))
            assert await client.text() == '{"n":1}'

    run(go())


def test_pings_are_answered_between_messages(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            client.send("a")
            client.send(b"payload", PING)
            client.send("b")
            assert await client.text() == '{"n":1}'
            assert await client.frame() == (PONG, b"payload")
            assert await client.text() == '{"n":2}'
            client.send(b"unasked", PONG)
            assert await client.silent()

    run(go())


def test_the_venue_pings_as_often_as_it_does(run):
    async def go():
        async with line(ping_interval_s=180.0) as served:
            client = await served.socket()
            await served.time.run(179_000)
            assert await client.silent()
            await served.time.run(1_000)
            opcode, payload = await client.frame()
            assert (opcode, payload) == (PING, str(served.time.time_ms()).encode())
            await served.time.run(180_000)
            assert (await client.frame())[0] == PING

    run(go())


def test_house_is_kept_every_second_also_when_that_fails(run):
    async def go():
        async with line() as served:
            start_ms = served.front.kept_house[0]
            await served.time.run(3_000)
            assert served.front.kept_house == [start_ms + 1000 * n for n in range(4)]

            def fail(now_ms: int) -> None:
                raise ValueError

            keep, served.front.housekeeping = served.front.housekeeping, fail
            await served.time.run(2_000)
            served.front.housekeeping = keep
            await served.time.run(1_000)
            assert served.front.kept_house[-1] == start_ms + 6_000
            assert [row["do"] for row in served.faults_seen()] == ["simulator_failed"] * 2

    run(go())


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ((1000, ""), code(1000)),
        ((1008, "slow"), code(1008) + b"slow"),
        ((1011, "é" * 100), code(1011) + "é".encode() * 61),
    ],
)
def test_the_venue_closes_once_and_goes_when_it_is_answered(run, asked, sent):
    async def go():
        async with line() as served:
            client = await served.socket()
            (session,) = served.server.sessions
            session.close(*asked)
            session.close(1001)
            session.send("too late")
            assert await client.frame() == (CLOSE, sent)
            client.send("crossing")
            client.send(sent[:2], CLOSE)
            assert await client.closed() == b""
            assert served.front.executed == []

    run(go())


def test_a_close_that_is_not_answered_ends_all_the_same(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.server.sessions[0].close(1012)
            assert (await client.frame())[0] == CLOSE
            assert await client.closed() == b""

    run(go())


def test_closed_without_a_word(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            served.server.sessions[0].close(1006)
            assert await client.closed() == b""

    run(go())


def test_a_close_without_a_code_is_answered_without_one(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            client.send(b"", CLOSE)
            assert await client.closed() == bytes([0x80 | CLOSE, 0])

    run(go())


@pytest.mark.parametrize(
    ("send", "told"),
    [
        (lambda c: c.send("x", 0x3), 1002),  # no such opcode
        (lambda c: c.send("x", first=0xC0), 1002),  # compressed
        (lambda c: c.send(b"\xff\xfe"), 1007),  # not UTF-8
        (lambda c: c.send("x" * ((1 << 20) + 1)), 1009),
    ],
)
def test_frames_that_are_none_end_the_connection_with_a_reason(run, send, told):
    async def go():
        async with line() as served:
            client = await served.socket()
            send(client)
            assert await client.frame() == (CLOSE, code(told))
            assert await client.closed() == b""
            assert served.front.executed == []
            other = await served.socket()
            other.send("x")
            assert await other.text() == '{"n":1}'

    run(go())


def test_a_client_that_reads_nothing_is_let_go(run):
    async def go():
        async with line() as served:
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", served.server.port))
                await loop.sock_sendall(sock, UPGRADE)
                assert b" 101 " in await loop.sock_recv(sock, 1000)
                (session,) = served.server.sessions
                for _ in range(40):
                    session.send("x" * (1 << 20))
                assert session._gate.over  # nothing more is put by for it
                while not served.front.gone:
                    await asyncio.sleep(0.01)
            assert served.front.gone == [session]
            other = await served.socket()
            other.send("x")
            assert await other.text() == '{"n":1}'

    run(go())


def test_a_client_that_vanishes_is_forgotten(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            client.writer.transport.abort()
            while not served.front.gone:
                await asyncio.sleep(0)
            assert served.server.sessions == []

    run(go())


def test_stopping_says_goodbye_and_frees_the_port(run):
    async def go():
        async with line() as served:
            client = await served.socket()
            port = served.server.port
            await served.server.stop()
            opcode, payload = await client.frame()
            assert (opcode, payload) == (CLOSE, code(1001) + b"going away")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            kept = len(served.front.kept_house)
            await served.time.run(5000)
            assert len(served.front.kept_house) == kept

    run(go())
