"""Requests over real sockets to a server that does everything wrong."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import json
import logging
import random
import socket
import traceback
import tracemalloc
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.errors import BadReplyError, UnavailableError, VenueError
from passivx.exchanges.base import Reaction, Verdict, number
from passivx.exchanges.budget import Budget, Window
from passivx.exchanges.http import (
    Answer,
    Finding,
    Http,
    HttpLimits,
    Prepared,
    Reply,
    Request,
    clean,
    retry_after_s,
)
from tests.exchanges.http_server import (
    Act,
    Seen,
    Server,
    answer,
    drip,
    drop,
    flood,
    hang,
    raw,
    reset,
)
from tests.exchanges.scripted import without_pauses
from tests.exchanges.tls import self_signed, serving

KEY = "CANARYkey000000000000000000000000"
SIGNATURE = "CANARYsignature00000000000000000000000000000000000000000000000000"
LISTEN_KEY = "CANARYlisten000000000000000000000000"

READ = Request(method="GET", path="/read", signed=True, costs={"WEIGHT": 1})
OPEN = Request(method="GET", path="/open", costs={"WEIGHT": 1})
PLACE = Request(
    method="POST", path="/order", params=(("side", "BUY"),), signed=True, costs={"ORDERS": 1}
)
CANCEL = Request(
    method="DELETE",
    path="/order",
    params=(("listenKey", LISTEN_KEY),),
    signed=True,
    costs={"WEIGHT": 1},
    urgent=True,
)
KEEP = Request(method="PUT", path="/listenKey", costs={"WEIGHT": 1}, idempotent=True)

WINDOWS = (Window("WEIGHT", 2400, 60_000), Window("ORDERS", 300, 10_000))


class Venue:
    """The dialect of a venue that exists in these tests only."""

    clock_request = Request(method="GET", path="/time", costs={"WEIGHT": 1})

    def clock_ms(self, data: Any) -> float:
        return number(data, "serverTime")

    def build(self, request: Request, ts_ms: int) -> Prepared:
        params = list(request.params)
        if request.signed:
            params += [("timestamp", str(ts_ms)), ("signature", SIGNATURE)]
        query = urllib.parse.urlencode(params)
        target = f"{request.path}?{query}" if query else request.path
        return Prepared(target, {"X-KEY": KEY}, request.body)

    def classify(self, request: Request, answer: Answer) -> Finding:
        data = answer.data if isinstance(answer.data, dict) else {}
        code, text = data.get("code"), str(data.get("msg", ""))
        wait_s = retry_after_s(answer.headers)
        match answer.status, code:
            case _, -1021:
                return Finding(Verdict.REJECTED, Reaction.RESYNC_CLOCK, code, text)
            case _, -1008:
                return Finding(
                    Verdict.REJECTED, Reaction.BACK_OFF, code, text, wait_s, spare_urgent=True
                )
            case _, -1015:
                return Finding(
                    Verdict.REJECTED, Reaction.BACK_OFF, code, text, wait_s, window="ORDERS"
                )
            case ((429 | 418), _):
                return Finding(Verdict.REJECTED, Reaction.BACK_OFF, code, text, wait_s)
            case 400, -2019:
                return Finding(Verdict.REJECTED, Reaction.DROP, code, text)
            case 200, None:
                return Finding(Verdict.OK)
            case _, -1:
                raise RuntimeError("a mistake in a dialect that quotes " + repr(answer.body))
        return Finding(Verdict.UNKNOWN, Reaction.LOOK_UP, code, text)

    def usage(self, request: Request, headers: Mapping[str, str]) -> Iterable[tuple[str, int]]:
        if "X-Used" in headers:
            yield "WEIGHT", int(headers["X-Used"])


class Clock(VirtualClock):
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.advance(max(0.0, seconds) * 1000)
        await asyncio.sleep(0)


class Setup:
    """A client, and all it stands on; the offset to the venue is known and 0."""

    def __init__(self, url: str, limits: HttpLimits) -> None:
        self.clock = Clock()
        self.budget = Budget(WINDOWS, self.clock)
        self.http = Http(url, Venue(), self.clock, self.budget, limits=limits, rng=random.Random(1))

    def know_the_time(self) -> None:
        self.http._offset_ms = self.clock.time_ms() - self.clock.monotonic_s() * 1000
        self.http._wall_ms = self.http._offset_ms
        self.http._synced_ms = self.clock.monotonic_s() * 1000 - 5000


LIMITS = HttpLimits(total_s=5.0, connect_s=2.0)
SHORT = HttpLimits(total_s=0.2, connect_s=0.1)
ONCE = HttpLimits(total_s=5.0, connect_s=2.0, max_retries=0)


@asynccontextmanager
async def against(
    *acts: Act, limits: HttpLimits = LIMITS, synced: bool = True
) -> AsyncIterator[tuple[Http, Server, Setup]]:
    async with Server(*acts) as server:
        setup = Setup(server.url, limits)
        if synced:
            setup.know_the_time()
        async with setup.http:
            yield setup.http, server, setup


OK = answer({"value": 1})


# --- what should happen ---------------------------------------------------------------------------


def test_a_read_returns_what_the_venue_says(run):
    async def main():
        async with against(answer({"value": [1, 2.5, "x"]})) as (http, server, setup):
            assert await http.read(READ) == {"value": [1, 2.5, "x"]}
            (seen,) = server.seen
            assert seen.method == "GET"
            assert seen.headers["x-key"] == KEY
            assert seen.headers["accept-encoding"] == "gzip"
            query = dict(urllib.parse.parse_qsl(seen.target.partition("?")[2]))
            assert query == {"timestamp": str(setup.clock.time_ms()), "signature": SIGNATURE}
            assert setup.budget.used("WEIGHT") == 1

    run(main())


def test_a_body_goes_out_as_it_is(run):
    async def main():
        body = b'{"a" : "\xc3\xa9+%2B"}'
        async with against(OK) as (http, server, _):
            request = Request(method="POST", path="/order", body=body)
            assert (await http.send(request)).verdict is Verdict.OK
            assert server.seen[0].body == body

    run(main())


@pytest.mark.parametrize(
    "query",
    [
        "signature=ab%2Bcd%2F%3D",
        "a=%5B%22x%22%2C%22y%22%5D",
        "s=%E6%B5%8B%e6%b5%8b",
        "cursor=a%253D%2526",
        "a=1+2&b=%20&c=~-._!'()*",
        'a=[1]{2}|^`"',
        "a=/?:@",
        "%41=%61",
        "a==&&b",
        "a=;,$",
    ],
)
def test_a_target_is_never_encoded_again(run, query):
    class AsGiven(Venue):
        def build(self, request: Request, ts_ms: int) -> Prepared:
            return Prepared(f"/p%2Fq?{query}", {})

    async def main():
        async with against(OK) as (http, server, _):
            http._dialect = AsGiven()
            await http.read(OPEN)
            assert server.seen[0].target == f"/p%2Fq?{query}"

    run(main())


def test_a_target_that_is_not_encoded_is_a_mistake_and_not_sent(run):
    class NotEncoded(Venue):
        def build(self, request: Request, ts_ms: int) -> Prepared:
            return Prepared("/x?测试", {})

    async def main():
        async with against(OK) as (http, server, _):
            http._dialect = NotEncoded()
            with pytest.raises(ValueError, match="GET /open: the target must be an encoded path"):
                await http.read(OPEN)
            assert not server.seen

    run(main())


def test_one_connection_serves_many_requests_and_compressed_answers(run):
    async def main():
        body = gzip.compress(json.dumps({"value": "x" * 100_000}).encode())
        packed = answer(body, headers={"Content-Encoding": "gzip"})
        async with against(packed, OK, packed) as (http, server, _):
            assert len((await http.read(READ))["value"]) == 100_000
            assert await http.read(READ) == {"value": 1}
            assert len((await http.read(READ))["value"]) == 100_000
            assert server.n_connections == 1

    run(main())


def test_cookies_and_proxies_are_not_used(run, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    async def main():
        cookie = answer({"value": 1}, headers={"Set-Cookie": "session=abc; Path=/"})
        async with against(cookie) as (http, server, _):
            await http.read(READ)
            await http.read(READ)
            assert all("cookie" not in seen.headers for seen in server.seen)

    run(main())


def test_what_could_happen_twice_is_not_read(run):
    async def main():
        async with against(OK) as (http, server, _):
            with pytest.raises(ValueError, match="POST /order: is sent once"):
                await http.read(PLACE)
            assert not server.seen
            assert await http.read(KEEP) == {"value": 1}

    run(main())


# --- outcomes of what is sent ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("cut", [drop, reset], ids=["fin", "rst"])
def test_a_cut_after_execution_is_unknown_and_nothing_is_sent_again(run, method, cut):
    """R13: aiohttp itself would send all but POST twice on a kept connection."""
    request = Request(method=method, path="/order", idempotent=True)

    async def main():
        async with against(OK, cut, OK) as (http, server, _):
            assert (await http.send(request)).verdict is Verdict.OK
            reply = await http.send(request)
            assert (reply.verdict, reply.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert len(server.seen) == 2
        async with against(OK, cut, OK, limits=ONCE) as (http, server, _):
            await http.read(request)
            with pytest.raises(UnavailableError, match=f"{method} /order: connection cut"):
                await http.read(request)
            assert len(server.seen) == 2

    run(main())


def test_the_switch_that_stops_aiohttp_from_sending_twice_is_still_the_one(run):
    async def main():
        async with against(OK, drop, OK) as (http, server, _):
            await http.send(CANCEL)
            assert http._session is not None
            http._session._retry_connection = True
            assert (await http.send(CANCEL)).verdict is Verdict.OK
            assert len(server.seen) == 3

    run(main())


def test_no_answer_in_time_is_unknown(run):
    """R1, R2: whether it was executed makes no difference to what is known."""

    async def main():
        async with against(hang, limits=SHORT) as (http, server, _):
            reply = await http.send(PLACE)
            assert reply == Reply(Verdict.UNKNOWN, Reaction.LOOK_UP, text="timed out")
            assert len(server.seen) == 1

    run(main())


def test_a_cancelled_request_is_not_sent_again(run):
    async def main():
        async with against(hang) as (http, server, _):
            task = asyncio.create_task(http.send(PLACE))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.acts = [OK]
            assert (await http.send(CANCEL)).verdict is Verdict.OK
            assert [seen.method for seen in server.seen] == ["POST", "DELETE"]

    run(main())


def test_closing_leaves_what_is_under_way_unknown_and_sends_nothing_more(run):
    async def main():
        async with against(hang) as (http, server, _):
            task = asyncio.create_task(http.send(PLACE))
            await server.arrived.wait()
            await http.close()
            assert (await task).verdict is Verdict.UNKNOWN
            reply = await http.send(CANCEL)
            assert reply.verdict is Verdict.REJECTED
            assert reply.text == "not sent: DELETE /order: the client is closed"
            with pytest.raises(UnavailableError, match="closed"):
                await http.read(READ)
            assert len(server.seen) == 1

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(run, at_once):
    async def two_answers(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
        await OK(server, seen, writer)
        if not at_once:
            await first_read.wait()
        await answer({"value": 666})(server, seen, writer)

    async def main():
        async with against(two_answers, answer({"value": 2})) as (http, server, _):
            assert (await http.send(PLACE)).data == {"value": 1}
            first_read.set()
            await asyncio.sleep(0.05)  # for the bytes to arrive: nothing tells that they did
            assert (await http.send(PLACE)).data == {"value": 2}
            assert (len(server.seen), server.n_connections) == (2, 2)

    first_read = asyncio.Event()
    run(main())


def test_a_server_that_answers_before_it_is_asked_gets_nothing(run):
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.write_eof()
        asked.append(await _.read())
        writer.close()

    async def slow_connect(*args: Any, **options: Any) -> Any:
        made = await connect(*args, **options)
        await asyncio.sleep(0.01)  # for the greeting to be there first
        return made

    async def main():
        nonlocal connect
        loop = asyncio.get_running_loop()
        connect = loop.create_connection
        loop.create_connection = slow_connect  # type: ignore[method-assign]
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            limits = HttpLimits(max_retries=0, max_connections=3)
            await not_sent(url, "answers that nobody asked for", limits)
        assert asked == [b""] * 6

    asked: list[bytes] = []
    connect: Any = None
    run(main())


HTML = b"<html><body>Maintenance</body></html>"
BAD_ANSWERS = {
    "html 200": answer(HTML, headers={"Content-Type": "text/html"}),
    "html 502": answer(HTML, 502),
    "html 503": answer(HTML, 503),
    "empty 200": answer(b""),
    "empty 500": answer(b"", 500),
    "no content": raw(b"HTTP/1.1 204 X\r\n\r\n"),
    "null": answer(b"null"),
    "nan": answer(b'{"value": NaN}'),
    "infinite": answer(b'{"value": 1e999}'),
    "bad text": answer(b'{"value": "\xff"}'),
    "too deep": answer(b"[" * 100_000),
    "half a json": answer(b'{"value": 1'),
    "cut json": answer({"value": 1}, cut=5),
    "cut in the head": raw(b"HTTP/1.1 200 OK\r\nContent-Le", close=True),
    "length that lies": raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + b'{"value":1}', close=True
    ),
    "bad length": raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", close=True),
    "two lengths": raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}", close=True
    ),
    "bad chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", close=True),
    "no http": raw(b"\x00\x01\x02\x03\r\n\r\n", close=True),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.6\r\n", close=True),
    "endless header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000, close=True),
    "gzip of nothing": answer(b"{}", headers={"Content-Encoding": "gzip"}),
    "gzip cut": answer(gzip.compress(b'{"value": 1}')[:-6], headers={"Content-Encoding": "gzip"}),
    "gzip and more": answer(
        gzip.compress(b'{"value": 1}') + b"{}", headers={"Content-Encoding": "gzip"}
    ),
    "not asked for": answer(b'{"value": 1}', headers={"Content-Encoding": "br"}),
    "bad status": raw(b"HTTP/1.1 999999 OK\r\n\r\n", close=True),
    "teapot": answer({"value": 1}, 299 + 199),
    "bad count": answer({"value": 1}, headers={"X-Used": "many"}),
    "drip": drip,
    "reset": reset,
    "drop": drop,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers_make_writes_unknown_and_reads_unavailable(run, name):
    """R9: never an empty answer, never a rejection, never a second message of a write."""

    async def main():
        limits = HttpLimits(total_s=0.4, connect_s=0.2, max_retries=2)
        async with against(BAD_ANSWERS[name], limits=limits) as (http, server, _):
            reply = await http.send(PLACE)
            assert (reply.verdict, reply.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert len(server.seen) == 1
            with pytest.raises(UnavailableError, match="GET /read: ") as e:
                await http.read(READ)
            assert e.value.reaction == Reaction.BACK_OFF
            assert len(server.seen) == 4
            server.acts = [OK]
            assert await http.read(READ) == {"value": 1}

    run(main())


def test_only_the_table_makes_a_rejection(run):
    """R6: the words of a 503 decide, and those that nobody knows leave it open."""

    async def main():
        async with against(
            answer({"code": -2019, "msg": "Margin is insufficient."}, 400),
            answer({"code": -7777, "msg": "new"}, 400),
            answer({"code": -1, "msg": ""}, 400),
            answer({"msg": "Unknown error, please check your request or try again later."}, 503),
            answer({"code": -1008, "msg": "overloaded"}, 503),
        ) as (http, server, setup):
            assert await http.send(PLACE) == Reply(
                Verdict.REJECTED,
                Reaction.DROP,
                -2019,
                "Margin is insufficient.",
                data={"code": -2019, "msg": "Margin is insufficient."},
            )
            assert (await http.send(PLACE)).verdict is Verdict.UNKNOWN
            reply = await http.send(PLACE)  # the dialect itself fails
            assert (reply.verdict, reply.text) == (Verdict.UNKNOWN, "answer not understood")
            assert (await http.send(PLACE)).verdict is Verdict.UNKNOWN
            reply = await http.send(PLACE)
            assert (reply.verdict, reply.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert reply.retry_after_s == 1.0
            assert setup.budget.delay_s(PLACE.costs) > 0.9
            assert setup.budget.delay_s(CANCEL.costs, urgent=True) == 0.0
            assert len(server.seen) == 5

    run(main())


def test_a_refused_read_raises_at_once_and_says_why(run):
    async def main():
        async with against(answer({"code": -2019, "msg": "No."}, 400)) as (http, server, _):
            with pytest.raises(VenueError, match=r"^GET /read: No\. \(code -2019\)$") as e:
                await http.read(READ)
            assert (e.value.code, e.value.reaction) == (-2019, Reaction.DROP)
            assert len(server.seen) == 1

    run(main())


def test_reads_are_tried_again_after_growing_random_pauses(run):
    async def main():
        async with against(drop, answer(HTML), answer(b"", 502), OK) as (http, server, setup):
            assert await http.read(READ) == {"value": 1}
            assert len(server.seen) == 4
            assert setup.budget.used("WEIGHT") == 4
            assert len(setup.clock.slept_s) == 3
            for pause_s, most_s in zip(setup.clock.slept_s, (0.25, 0.5, 1.0), strict=True):
                assert 0 <= pause_s <= most_s

    run(main())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(run, status):
    """R15: a signed query goes to nobody else."""

    async def main():
        async with Server(OK) as other:
            away = answer(b"", status, {"Location": f"{other.url}/order"})
            async with against(away, limits=ONCE) as (http, server, _):
                for request in (PLACE, CANCEL):
                    reply = await http.send(request)
                    assert (reply.verdict, reply.text) == (Verdict.UNKNOWN, "redirected")
                with pytest.raises(UnavailableError, match="redirected"):
                    await http.read(READ)
                assert len(server.seen) == 3
            assert other.n_connections == 0

    run(main())


# --- no connection --------------------------------------------------------------------------------


async def not_sent(url: str, reason: str, limits: HttpLimits = ONCE) -> None:
    setup = Setup(url, limits)
    setup.know_the_time()
    async with setup.http as http:
        reply = await http.send(PLACE)
        assert reply == Reply(
            Verdict.REJECTED, Reaction.BACK_OFF, text=f"not sent: {reason}", retry_after_s=1.0
        )
        with pytest.raises(UnavailableError, match=f"GET /read: {reason}"):
            await http.read(READ)


def test_a_refused_connection_is_proof_that_nothing_was_sent(run):
    """R14."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        run(not_sent(f"http://127.0.0.1:{unused.getsockname()[1]}", "no connection"))


def test_certificates_are_checked(run, tmp_path):
    async def main():
        context = serving(self_signed(tmp_path, "127.0.0.1"))
        async with Server(OK, tls=context) as server:
            await not_sent(server.url, "the venue's certificate is not valid")
            assert not server.seen

    run(main())


def test_a_server_that_speaks_no_tls_gets_nothing(run):
    async def main():
        async with Server(OK) as server:
            url = server.url.replace("http://", "https://")
            await not_sent(url, "no connection", SHORT)
            assert not server.seen

    run(main())


def test_a_name_that_is_not_found_is_not_sent(run, monkeypatch):
    async def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def main():
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
        await not_sent("https://venue.invalid", "host not found")

    run(main())


def test_a_name_server_that_does_not_answer_is_not_sent(run, monkeypatch):
    async def hangs(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async def main():
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hangs)
        await not_sent("https://venue.invalid", "no connection", SHORT)

    run(main())


# --- too much -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flood", "plain", "gzip bomb", "bomb of bombs"])
def test_bodies_have_a_cap_after_inflating(run, name):
    """R16."""
    cap = 1 << 20
    acts = {
        "flood": flood,
        "plain": answer(b'"' + b"x" * cap + b'"'),
        "gzip bomb": answer(
            gzip.compress(b" " * (256 << 20), 1), headers={"Content-Encoding": "gzip"}
        ),
        "bomb of bombs": answer(
            gzip.compress(b" " * (2 << 20), 1) * 500, headers={"Content-Encoding": "gzip"}
        ),
    }

    async def main():
        limits = HttpLimits(total_s=10.0, max_retries=0, max_body=cap)
        async with against(acts[name], limits=limits) as (http, server, _):
            tracemalloc.start()
            try:
                reply = await http.send(PLACE)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert reply.verdict is Verdict.UNKNOWN
            assert reply.text == f"reply larger than {cap} bytes"
            assert peak < 8 * cap
            with pytest.raises(UnavailableError, match="larger than"):
                await http.read(READ)
            server.acts = [answer(b'"' + b"x" * (cap - 2) + b'"')]
            assert len(await http.read(READ)) == cap - 2

    run(main())


def test_the_cap_is_8_mib():
    assert HttpLimits().max_body == 8 << 20


# --- rate limits ----------------------------------------------------------------------------------


def test_429_silences_the_client_for_as_long_as_it_says(run):
    """R7."""

    async def main():
        too_many = answer({"code": -1003, "msg": "Too many"}, 429, {"Retry-After": "7"})
        async with against(too_many, OK) as (http, server, setup):
            assert await http.read(READ) == {"value": 1}
            assert sum(setup.clock.slept_s) >= 7.0
            server.acts = [too_many, OK]
            reply = await http.send(PLACE)
            assert (reply.verdict, reply.retry_after_s) == (Verdict.REJECTED, 7.0)
            n = len(server.seen)
            held = await http.send(CANCEL)
            assert (held.verdict, held.reaction) == (Verdict.REJECTED, Reaction.BACK_OFF)
            assert held.text == "not sent: DELETE /order: held by the rate limits"
            assert held.retry_after_s == pytest.approx(7.0, abs=0.01)
            assert len(server.seen) == n
            assert (await http.send(CANCEL, patience_s=8.0)).verdict is Verdict.OK

    run(main())


def test_429_silences_the_client_whatever_the_table_says(run):
    class NoTable(Venue):
        def classify(self, request: Request, answer: Answer) -> Finding:
            return Finding(Verdict.UNKNOWN, Reaction.LOOK_UP)

    async def main():
        async with against(answer(HTML, 429)) as (http, server, setup):
            http._dialect = NoTable()
            reply = await http.send(PLACE)
            assert (reply.verdict, reply.reaction) == (Verdict.UNKNOWN, Reaction.LOOK_UP)
            assert reply.retry_after_s == 1.0
            assert (await http.send(CANCEL)).verdict is Verdict.REJECTED
            assert len(server.seen) == 1
            setup.clock.advance(1002)
            assert (await http.send(CANCEL)).verdict is Verdict.UNKNOWN
            assert len(server.seen) == 2

    run(main())


def test_patience_is_for_all_waiting_together(run):
    async def main():
        async with against(OK) as (http, server, setup):
            setup.budget.back_off(1.0)
            sleep = setup.clock.sleep

            async def sleep_while_others_are_refused(seconds: float) -> None:
                await sleep(seconds)
                setup.budget.back_off(1.0)

            setup.clock.sleep = sleep_while_others_are_refused  # type: ignore[method-assign]
            assert (await http.send(CANCEL, patience_s=3.5)).verdict is Verdict.REJECTED
            assert setup.clock.monotonic_s() == pytest.approx(3.0, abs=0.01)
            assert not server.seen

    run(main())


def test_a_full_order_counter_does_not_hold_cancels(run):
    async def main():
        async with against(answer({"code": -1015}, 400, {"Retry-After": "5"}), OK) as (
            http,
            server,
            _,
        ):
            assert (await http.send(PLACE)).reaction is Reaction.BACK_OFF
            assert (await http.send(PLACE)).verdict is Verdict.REJECTED
            assert len(server.seen) == 1
            assert (await http.send(CANCEL)).verdict is Verdict.OK

    run(main())


@pytest.mark.parametrize(
    ("status", "headers", "for_s"),
    [(418, {"Retry-After": "300"}, 300), (418, {}, 120), (403, {}, 600)],
)
def test_a_ban_is_waited_out_in_silence(run, status, headers, for_s):
    """R8: not one request, whatever it is for."""

    async def main():
        ban = answer({"code": -1003, "msg": "banned until 1"}, status, headers)
        async with against(ban) as (http, server, setup):
            if status == 418:
                with pytest.raises(UnavailableError) as e:
                    await http.read(READ)
                assert e.value.retry_after_s == for_s
                assert e.value.code == -1003
            else:
                assert (await http.send(PLACE)).verdict is Verdict.UNKNOWN
            assert len(server.seen) == 1
            for _ in range(5):
                for request in (PLACE, CANCEL):
                    reply = await http.send(request, patience_s=1.0)
                    assert reply.verdict is Verdict.REJECTED
                    assert "banned by the venue" in reply.text
                with pytest.raises(UnavailableError, match="banned by the venue"):
                    await http.read(READ)
                with pytest.raises(UnavailableError):
                    await http.sync_clock()
                setup.clock.advance(for_s * 1000 / 6)
            assert len(server.seen) == 1
            setup.clock.advance(for_s * 1000 / 6 + 2)
            server.acts = [OK]
            setup.know_the_time()
            assert (await http.send(CANCEL)).verdict is Verdict.OK
            # 2400 are not open again yet: a tenth of what is not kept in reserve.
            assert setup.budget.delay_s({"WEIGHT": 300}) > 0

    run(main())


def test_the_venues_count_is_kept(run):
    async def main():
        async with against(
            answer({"value": 1}, headers={"X-Used": "2390"}),
            answer({"value": 1}, headers={"x-used": "-1"}),
        ) as (http, server, setup):
            await http.read(READ)
            assert setup.budget.used("WEIGHT") == 2390
            assert (await http.send(CANCEL)).verdict is Verdict.OK  # of the reserve
            with pytest.raises(UnavailableError, match="held by the rate limits") as e:
                await http.read(READ)
            assert 59 < e.value.retry_after_s < 61
            assert len(server.seen) == 2

    run(main())


def test_reads_wait_for_their_turn(run):
    async def main():
        async with against(OK) as (http, server, setup):
            setup.budget.set_limits([Window("WEIGHT", 10, 1000)])
            for _ in range(25):
                await http.read(READ)
            assert len(server.seen) == 25
            assert 2.0 < setup.clock.monotonic_s() < 3.5

    run(main())


def test_many_at_once_stay_within_the_limit(run):
    async def main():
        async with against(OK) as (http, server, setup):
            setup.budget.set_limits([Window("WEIGHT", 10, 1000)])
            await asyncio.gather(*(http.read(READ) for _ in range(40)))
            assert len(server.seen) == 40
            assert server.n_connections <= HttpLimits().max_connections
            assert setup.clock.monotonic_s() > 3.0

    run(main())


# --- the venue's clock ----------------------------------------------------------------------------


def time_server(
    setup: Callable[[], Setup], skew_ms: float, trips: Iterable[tuple[float, float]]
) -> Act:
    """Answer /time as a venue ``skew_ms`` ahead, after (there, back) ms of each trip in turn."""
    turns = iter(trips)

    async def act(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
        if not seen.target.startswith("/time"):
            await OK(server, seen, writer)
            return
        there_ms, back_ms = next(turns)
        clock = setup().clock
        clock.advance(there_ms)
        body = {"serverTime": clock.time_ms() + skew_ms}
        clock.advance(back_ms)
        await answer(body)(server, seen, writer)

    return act


@asynccontextmanager
async def with_clock(
    skew_ms: float, trips: Iterable[tuple[float, float]], limits: HttpLimits = LIMITS
) -> AsyncIterator[tuple[Http, Server, Setup]]:
    made: list[Setup] = []
    act = time_server(lambda: made[0], skew_ms, trips)
    async with against(act, limits=limits, synced=False) as (http, server, setup):
        made.append(setup)
        yield http, server, setup


def test_the_fastest_sample_tells_the_time(run):
    async def main():
        trips = [(300, 10), (50, 50), (8, 12), (400, 400), (30, 0)]
        async with with_clock(-6000, trips) as (http, server, setup):
            with pytest.raises(UnavailableError, match="not known yet"):
                http.venue_time_ms()
            await http.sync_clock()
            assert len(server.seen) == 5
            assert http.clock_error_s == pytest.approx(0.010, abs=0.001)
            assert http.venue_time_ms() == pytest.approx(setup.clock.time_ms() - 6000, abs=10)
            setup.clock.step_wall(-500_000)  # what NTP does to this machine is not the venue's
            before = http.venue_time_ms()
            setup.clock.advance(1000)
            assert http.venue_time_ms() == before + 1000

    run(main())


@given(
    skew_ms=st.floats(-1e6, 1e6),
    trips=st.lists(st.tuples(st.floats(0, 900), st.floats(0, 900)), min_size=5, max_size=5),
)
def test_a_stamp_is_never_ahead_of_the_venue(skew_ms, trips):
    async def main():
        async with with_clock(skew_ms, trips) as (http, _, setup):
            await http.sync_clock()
            venue_ms = setup.clock.time_ms() + skew_ms
            # time_ms is cut to whole ms.
            assert venue_ms - 2001 <= http.stamp_ms() <= venue_ms + 1
            assert abs(http.venue_time_ms() - venue_ms) <= http.clock_error_s * 1000 + 2

    asyncio.run(main())


def test_answers_too_late_or_too_strange_do_not_tell_the_time(run):
    async def main():
        async with with_clock(0, [(1500, 1500)] * 5) as (http, _, _setup):
            with pytest.raises(UnavailableError, match="too late to tell the time"):
                await http.sync_clock()
        async with with_clock(-9e8, [(1, 1)] * 5) as (http, _, _setup):
            with pytest.raises(UnavailableError, match=r"a time 900000 s from this machine's"):
                await http.sync_clock()
        for body in ({}, {"serverTime": ""}, {"serverTime": None}, [], "x", {"code": -2019}):
            async with against(answer(body), synced=False) as (http, _, _setup):
                with pytest.raises(UnavailableError, match="GET /time: "):
                    await http.sync_clock()
                reply = await http.send(PLACE)
                assert reply.verdict is Verdict.REJECTED
                assert reply.text.startswith("not sent: GET /time: ")

    run(main())


def test_a_failed_look_leaves_the_old_offset(run):
    async def main():
        async with against(drop) as (http, _, setup):
            setup.clock.advance(5000)
            before = http.venue_time_ms()
            with pytest.raises(UnavailableError):
                await http.sync_clock()
            assert http.venue_time_ms() == before

    run(main())


def test_a_signed_request_knows_the_time_first(run):
    async def main():
        async with with_clock(5000, [(1, 1)] * 10) as (http, server, setup):
            assert (await http.send(PLACE)).verdict is Verdict.OK
            assert [seen.target[:5] for seen in server.seen] == ["/time"] * 5 + ["/orde"]
            query = dict(urllib.parse.parse_qsl(server.seen[-1].target.partition("?")[2]))
            assert int(query["timestamp"]) == pytest.approx(setup.clock.time_ms() + 5000, abs=4)
            await http.read(READ)
            assert len(server.seen) == 7
            setup.clock.advance(601_000)
            await http.read(READ)
            assert len(server.seen) == 13

    run(main())


def by_path(acts: dict[str, list[Act]]) -> Act:
    """Answer each path by the next of its own, the last one for ever."""

    async def act(server: Server, seen: Seen, writer: asyncio.StreamWriter) -> None:
        left = acts[seen.target.partition("?")[0]]
        await (left.pop(0) if len(left) > 1 else left[0])(server, seen, writer)

    return act


def test_a_refused_stamp_is_looked_into_once(run):
    """R10: no storm."""

    async def main():
        refused = answer({"code": -1021, "msg": "Timestamp"}, 400)
        async with against(OK) as (http, server, setup):
            ahead = time_server(lambda: setup, 6000, itertools.repeat((0, 0)))
            acts = {"/read": [refused, OK], "/order": [refused], "/time": [ahead]}
            server.acts = [by_path(acts)]
            setup.clock.advance(10_000)
            assert await http.read(READ) == {"value": 1}
            assert http.venue_time_ms() == pytest.approx(setup.clock.time_ms() + 6000, abs=5)
            assert [s.target[:5] for s in server.seen] == ["/read"] + ["/time"] * 5 + ["/read"]

            acts["/read"] = [refused]
            server.seen.clear()
            setup.clock.advance(10_000)
            with pytest.raises(VenueError, match="Timestamp") as e:
                await http.read(READ)
            assert e.value.reaction == Reaction.RESYNC_CLOCK
            assert [s.target[:5] for s in server.seen] == ["/read"] + ["/time"] * 5 + ["/read"]

            # A write is refused, looked into, and left to the caller.
            server.seen.clear()
            setup.clock.advance(10_000)
            replies = await asyncio.gather(*(http.send(PLACE) for _ in range(6)))
            assert {(r.verdict, r.reaction) for r in replies} == {
                (Verdict.REJECTED, Reaction.RESYNC_CLOCK)
            }
            targets = [s.target[:5] for s in server.seen]
            assert (targets.count("/orde"), targets.count("/time")) == (6, 5)

    run(main())


def test_a_look_of_just_now_is_waited_out_after_a_refused_stamp(run):
    async def main():
        refused = answer({"code": -1021, "msg": "Timestamp"}, 400)
        async with against(OK) as (http, server, setup):
            venue_ms = setup.clock.time_ms()
            acts = {"/read": [refused, OK], "/time": [answer({"serverTime": venue_ms})]}
            server.acts = [by_path(acts)]
            setup.clock.advance(10_000)
            await http.sync_clock()
            server.seen.clear()
            assert await without_pauses(setup.clock, http.read(READ)) == {"value": 1}
            assert [s.target[:5] for s in server.seen] == ["/read"] + ["/time"] * 5 + ["/read"]

    run(main())


def test_a_clock_that_cannot_be_read_stops_no_read(run):
    """What was known may still do; who needs the time itself is told."""

    async def main():
        async with against(OK) as (http, server, setup):
            server.acts = [by_path({"/read": [OK], "/time": [drop]})]
            setup.clock.advance(601_000)
            assert await http.read(READ) == {"value": 1}
            with pytest.raises(UnavailableError):
                await http.ready()

    run(main())


def test_the_time_is_looked_at_after_the_machine_slept(run):
    async def main():
        async with with_clock(0, [(1, 1)] * 1000) as (http, server, setup):
            await http.ready()
            await http.ready()
            assert len(server.seen) == 5
            setup.clock.step_wall(1_800_000)
            await http.ready()
            assert len(server.seen) == 10

    run(main())


def test_the_clock_is_kept(run):
    async def main():
        async with with_clock(100, [(1, 1)] * 1000) as (http, server, setup):
            task = asyncio.create_task(http.keep_clock())
            while setup.clock.monotonic_s() < 1300:
                await asyncio.sleep(0)
            assert len(server.seen) == 15
            setup.clock.step_wall(3_600_000)  # the machine slept: it shows at once
            while len(server.seen) < 20:
                await asyncio.sleep(0)
            assert setup.clock.monotonic_s() < 1400
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


# --- whatever a venue and a dialect may say -------------------------------------------------------

FINDINGS = st.builds(
    Finding,
    st.sampled_from(Verdict),
    st.sampled_from(Reaction),
    st.none() | st.integers(),
    st.text(),
    st.floats(),
    st.sampled_from(["", "WEIGHT", "nope"]),
    st.booleans(),
    st.booleans(),
)


@given(st.integers(100, 999), st.binary() | st.sampled_from([b"{}", b"null"]), FINDINGS)
def test_any_answer_is_judged_and_only_json_is_ok(status, body, found):
    class Says(Venue):
        def classify(self, request: Request, answer: Answer) -> Finding:
            return found

    async def main():
        setup = Setup("http://127.0.0.1:9", LIMITS)
        http = setup.http
        http._dialect = Says()
        data = json.loads(body) if body in (b"{}", b"null") else None
        finding = http._judge(
            PLACE, Answer(status=status, headers={}, body=body, data=data, ts_ms=0)
        )
        if finding.verdict is Verdict.OK:
            assert body == b"{}"
            assert 200 <= status < 300
        if finding.verdict is Verdict.REJECTED:
            assert found.verdict is Verdict.REJECTED
        if status in (418, 403):
            assert setup.budget.banned_s > 0
        assert finding.text.isprintable()

    asyncio.run(main())


def test_texts_are_short_printable_and_hold_no_secrets():
    assert clean("Margin is insufficient.") == "Margin is insufficient."
    assert clean("a\r\nb\x1b[31m\u202ec\x00") == "a  b [31m c"
    assert clean(f"origin_string[1700000000000{KEY}5000category=inverse]") == "origin_string[…]"
    assert clean(f"sign {SIGNATURE} bad") == "sign … bad"
    assert clean("ab%2Bcd%2F" * 9 + "%3D") == "…"
    assert len(clean("word " * 1000)) == 200
    assert SIGNATURE[:20] not in clean("x " * 790 + SIGNATURE)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), (" 30 ", 30.0), ("", 0.0), ("-1", 0.0), ("1.5", 0.0), ("nan", 0.0), ("²", 0.0),
     ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("9" * 50, 3 * 86400.0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_nothing(value, seconds):
    assert retry_after_s({"Retry-After": value}) == seconds
    assert retry_after_s({}) == 0.0


# --- secrets --------------------------------------------------------------------------------------


def chain_of(error: BaseException) -> str:
    """Everything that hangs on an error, as a crash report would print it."""
    texts = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is not None:
            texts += [repr(one), str(one), repr(vars(one)), *traceback.format_exception(one)]
            queue += [one.__cause__, one.__context__]
    return "\n".join(texts)


QUOTED = {
    "quoted 400": answer({"code": -2019, "msg": f"bad {SIGNATURE} of {KEY}"}, 400),
    "quoted 500": answer({"code": -5, "msg": f"?signature={SIGNATURE}"}, 500),
    "quoted 418": answer({"code": -1003, "msg": KEY}, 418),
    "quoted badly": answer({"code": -1, "msg": SIGNATURE}, 400),
    "quoted stamp": answer({"code": -1021, "msg": SIGNATURE}, 400),
    "redirect": answer(b"", 302, {"Location": f"https://x.invalid/?signature={SIGNATURE}"}),
    "cookie": answer({"value": 1}, headers={"Set-Cookie": f"s={SIGNATURE}"}),
    "flood": flood,
    "refused": None,
}


@pytest.mark.parametrize("name", [*BAD_ANSWERS, *QUOTED])
def test_no_secret_shows_in_logs_errors_or_replies(name, caplog):
    caplog.set_level(logging.DEBUG)
    act = (BAD_ANSWERS | QUOTED)[name]
    shown: list[str] = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.0
        limits = HttpLimits(total_s=0.4, connect_s=0.2, max_retries=1, max_body=1 << 20)
        async with Server(act or OK) as server:
            url = server.url if act else "http://127.0.0.1:9"
            setup = Setup(url, limits)
            setup.know_the_time()
            async with setup.http as http:
                for request in (PLACE, CANCEL):
                    reply = await http.send(request)
                    assert "data" not in repr(reply)
                    shown.append(repr((request, str(request), reply, http)))
                for call in (http.read(READ), http.read(KEEP), http.sync_clock()):
                    try:
                        await call
                    except VenueError as e:
                        shown.append(chain_of(e))

    asyncio.run(main(), debug=True)
    gc.collect()
    shown += [record.getMessage() + str(record.exc_info) + repr(record.args)
              for record in caplog.records]  # fmt: skip
    assert any("passivx" in record.name for record in caplog.records)
    assert "CANARY" not in "\n".join(shown)


def test_prepared_requests_and_answers_do_not_show_themselves():
    prepared = Prepared(f"/x?signature={SIGNATURE}", {"X-KEY": KEY})
    reply = Answer(status=200, headers={"a": KEY}, body=SIGNATURE.encode(), data=None, ts_ms=0)
    assert "CANARY" not in repr((prepared, reply, CANCEL, CANCEL.params and str(CANCEL)))


def test_a_bad_reply_error_is_a_reason_not_a_crash(run):
    class Fails(Venue):
        def clock_ms(self, data: Any) -> float:
            raise BadReplyError(f"serverTime: was {SIGNATURE}")

    async def main():
        async with against(OK) as (http, _, setup):
            http._dialect = Fails()
            setup.clock.advance(5000)
            with pytest.raises(UnavailableError) as e:
                await http.sync_clock()
            assert "CANARY" not in str(e.value)

    run(main())
