"""The stream against a server that misbehaves at every byte; time is virtual, sockets are real."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import struct
import time

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from passivx.clock import VirtualClock
from passivx.errors import UnavailableError, VenueError
from passivx.exchanges.stream import (
    Heartbeat,
    NoEntryError,
    NoReplyError,
    Stream,
    StreamLimits,
    StreamState,
    TopicAges,
)
from tests.exchanges.tls import self_signed, serving
from tests.exchanges.ws_server import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    WsServer,
    frame,
)

CONNECTING, LIVE, STALE, LOST, CLOSED = StreamState
SECRET = "listenKeyZyXwVuTsRq"


@pytest.fixture(params=["asyncio", "uvloop"])
def drive(request):
    """Run a coroutine function on either loop, for 20 s at most; nothing may be left behind."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(main):
        async def bounded():
            failures = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, about: failures.append(about)
            )
            async with asyncio.timeout(20):
                result = await main()
            await asyncio.sleep(0)
            assert failures == []
            return result

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(bounded())

    return run


class Owner:
    """Holds a stream the way a venue client does, and remembers what it was told."""

    def __init__(self, url, on_message=None, **kwargs):
        self.states: list[StreamState] = []
        self.reasons: list[str] = []
        self.messages: list[bytes] = []
        self.clock = kwargs.pop("clock", None) or VirtualClock()
        self._on_message = on_message
        self._changed = asyncio.Event()
        kwargs.setdefault("rng", random.Random(1))
        self.stream = Stream(
            name="test", url=url, on_frame=self._frame, on_state=self._state, clock=self.clock,
            **kwargs,
        )  # fmt: skip

    def _frame(self, message):
        data = bytes(message)
        self.messages.append(data)
        self._changed.set()
        return None if self._on_message is None else self._on_message(data)

    def _state(self, state, reason):
        self.states.append(state)
        self.reasons.append(reason)
        self._changed.set()

    async def __aenter__(self):
        self.task = asyncio.create_task(self.stream.run())
        return self

    async def __aexit__(self, *exc):
        await self.stream.close()
        with contextlib.suppress(Exception):
            await self.task

    async def until(self, condition):
        # Some conditions are the server's, which tells nobody.
        while not condition():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.002):
                    await self._changed.wait()

    async def until_state(self, state, times=1):
        await self.until(lambda: self.states.count(state) >= times)

    async def until_messages(self, count):
        await self.until(lambda: len(self.messages) >= count)

    async def renewed(self, loss: int = 1):
        """Let the backoff after the n-th loss pass."""
        await self.until_state(LOST, loss)
        while self.states.count(CONNECTING) <= loss:
            # Not further than needed: the next attempt's own time limits count from there.
            await self.clock.run(1000 * (self.clock.next_due_s() or 0.0))


async def stay(peer: Peer) -> None:
    """Accept, greet, answer pings and CLOSE."""
    await peer.upgrade(tail=frame("hello"))
    while True:
        kind, data = await peer.read()
        if kind == PING:
            peer.send(data, PONG)
        elif kind == CLOSE:
            peer.send(data, CLOSE)
            return


async def settle(turns: int = 50) -> None:
    """Give real sockets time to say what they have to: only to show that they say nothing."""
    for _ in range(turns):
        await asyncio.sleep(0.001)


# --- messages -------------------------------------------------------------------------------------


def test_messages_reach_the_owner_and_the_owners_reach_the_venue(drive):
    heard = []

    async def script(peer):
        await peer.upgrade(tail=frame("one") + frame(b""))
        heard.append(await peer.read())
        peer.send("x" * 70_000)
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url) as owner:
            assert not owner.stream.send(b"early")
            await owner.stream.wait_live()
            assert owner.stream.send(b'{"op":"x"}')
            await owner.until_messages(3)
            assert owner.messages == [b"one", b"", b"x" * 70_000]
            assert owner.stream.live
            assert owner.stream.data_age_s() == 0.0
        assert heard == [(TEXT, b'{"op":"x"}')]
        assert owner.states == [CONNECTING, LIVE, CLOSED]
        assert not owner.stream.live
        assert not owner.stream.send(b"late")
        assert owner.stream.data_age_s() == math.inf
        assert server.peers[0].request.startswith(b"GET /ws HTTP/1.1\r\n")
        assert b"xtensions" not in server.peers[0].request

    drive(main)


def test_a_message_dies_when_the_callback_returns(drive):
    kept = []

    async def main():
        async with WsServer(stay) as server:
            clock = VirtualClock()
            stream = Stream(name="test", url=server.url, on_frame=kept.append, clock=clock)
            task = asyncio.create_task(stream.run())
            await stream.wait_live()
            while not kept:
                await asyncio.sleep(0)
            with pytest.raises(ValueError, match="released"):
                bytes(kept[0])
            await stream.close()
            await task

    drive(main)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fragments_make_one_message_with_control_frames_in_between(drive, data):
    text = data.draw(st.binary(max_size=300))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=1, max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    wire = b""
    for number, piece in enumerate(pieces):
        opcode = CONTINUATION if number else TEXT
        wire += frame(piece, opcode, fin=number == len(pieces) - 1)
        wire += data.draw(st.sampled_from([b"", frame("p", PING), frame("", PONG)]))
    wire += frame("end")
    steps = data.draw(st.lists(st.integers(1, len(wire)), max_size=4).map(sorted))

    async def script(peer):
        await peer.upgrade()
        for start, end in zip([0, *steps], [*steps, len(wire)], strict=True):
            peer.raw(wire[start:end])
            await peer.writer.drain()
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url) as owner:
            await owner.until_messages(2)
            assert owner.messages == [text, b"end"]
            assert owner.stream.counts.faults == 0

    drive(main)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame("abc", rsv=4), 1002),
        (frame("abc", rsv=2), 1002),
        (frame("p", PING, rsv=1), 1002),
        (frame("abc", CONTINUATION), 1002),
        (frame("abc", fin=False) + frame("def"), 1002),
        (frame("abc", fin=False) + frame("def", BINARY), 1002),
        (frame("abc", mask=b"1234"), 1002),
        (frame("abc", 3), 1002),
        (frame("p", PING, fin=False), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(struct.pack("!H", 999), CLOSE), 1002),
        (frame(b"\x03", CLOSE), 1002),
        (frame("x" * 1001), 1009),
        (frame("x" * 600, fin=False) + frame("x" * 401, CONTINUATION), 1009),
        (b"\x81\x7f" + struct.pack("!Q", 1 << 62), 1009),
        (b"\x81\x7f" + struct.pack("!Q", 1 << 63), 1002),
    ],
)
def test_a_violation_ends_the_connection_with_its_code_and_another_is_made(drive, wire, code):
    answers = []

    async def bad(peer):
        await peer.upgrade(tail=frame("before") + wire + frame("after"))
        answers.append(await peer.read_until(CLOSE))
        peer.send("after too")
        await peer.gone()

    async def main():
        limits = StreamLimits(max_message_bytes=1000)
        async with WsServer(bad, stay) as server, Owner(server.url, limits=limits) as owner:
            await owner.until_state(LOST)
            await owner.renewed()
            await owner.stream.wait_live()
            await owner.until(lambda: b"hello" in owner.messages)
        assert b"after" not in owner.messages
        assert b"after too" not in owner.messages
        assert str(code) in owner.reasons[owner.states.index(LOST)]
        assert server.most_open == 1
        assert struct.unpack("!H", answers[0][:2]) == (code,)

    drive(main)


def texts(wire: bytes, most: int) -> tuple[list[bytes], bool]:
    """Return the text messages in it up to the first violation or CLOSE, and if there is one."""
    found, parts, is_text, at = [], None, True, 0
    while len(wire) - at >= 2:
        fin, rsv, opcode = wire[at] >> 7, wire[at] >> 4 & 7, wire[at] & 15
        size, head = wire[at + 1] & 127, 2
        wide = {126: 2, 127: 8}.get(size, 0)
        if opcode not in (0, 1, 2, 8, 9, 10) or wire[at + 1] >> 7:
            return found, True
        if opcode >= 8 and (size > 125 or not fin):
            return found, True
        if wide:
            if len(wire) - at < 2 + wide:
                break
            size, head = int.from_bytes(wire[at + 2 : at + 2 + wide], "big"), 2 + wide
            if size < (126 if wide == 2 else 1 << 16) or size >> 63:
                return found, True
        if size > most:
            return found, True
        if len(wire) - at < head + size:
            break
        payload, at = wire[at + head : at + head + size], at + head + size
        if rsv or opcode == CLOSE:
            return found, True
        if opcode in (PING, PONG):
            continue
        if (parts is None) is (opcode == CONTINUATION):
            return found, True
        if opcode != CONTINUATION:
            parts, is_text = b"", opcode == TEXT
        parts += payload
        if len(parts) > most:
            return found, True
        if fin:
            found += [parts] * is_text
            parts = None
    return found, False


FRAMES = st.builds(
    frame,
    st.binary(max_size=12) | st.integers(120, 320).map(bytes),
    st.sampled_from([TEXT] * 4 + [CONTINUATION] * 3 + [BINARY, PING, PONG, CLOSE, 3, 11]),
    fin=st.sampled_from([True, True, False]),
    rsv=st.sampled_from([0] * 20 + [1, 2, 4]),
    mask=st.sampled_from([None] * 20 + [b"mask"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_of_whatever_bytes_only_whole_texts_before_a_violation_are_seen(drive, data):
    wire = b"".join(data.draw(st.lists(FRAMES, max_size=8)))
    if wire and data.draw(st.booleans()):
        flipped = data.draw(st.integers(0, len(wire) - 1))
        wire = wire[:flipped] + data.draw(st.binary(min_size=1, max_size=3)) + wire[flipped + 1 :]
    cut = data.draw(st.integers(0, len(wire)))

    async def script(peer):
        await peer.upgrade(tail=wire[:cut])
        await peer.writer.drain()
        peer.raw(wire[cut:])
        await peer.writer.drain()
        peer.writer.write_eof()
        await peer.gone()

    async def main():
        limits = StreamLimits(max_message_bytes=256)
        async with WsServer(script) as server, Owner(server.url, limits=limits) as owner:
            await owner.until_state(LOST)
            return owner.messages

    seen = drive(main)
    expected, violated = texts(wire, 256)
    # Of what stands before a violation in one read, picows may drop the last.
    assert seen == (expected[: len(seen)] if violated else expected)


def test_an_extension_that_was_not_offered_is_refused(drive):
    async def deflating(peer):
        await peer.upgrade("Sec-WebSocket-Extensions: permessage-deflate")
        await peer.gone()

    async def main():
        async with WsServer(deflating, stay) as server, Owner(server.url) as owner:
            await owner.renewed()
            await owner.stream.wait_live()
        assert owner.reasons[1] == "an extension that was not offered"

    drive(main)


def test_a_message_may_be_as_big_as_the_limit(drive):
    wire = frame("x" * 1000) + frame("y" * 600, fin=False) + frame("y" * 400, CONTINUATION)

    async def script(peer):
        await peer.upgrade(tail=wire)
        await peer.gone()

    async def main():
        limits = StreamLimits(max_message_bytes=1000)
        async with WsServer(script) as server, Owner(server.url, limits=limits) as owner:
            await owner.until_messages(2)
            assert owner.messages == [b"x" * 1000, b"y" * 1000]

    drive(main)


def test_binary_messages_are_counted_and_dropped(drive):
    wire = frame(b"\0", BINARY) + frame(b"\0", BINARY, fin=False) + frame(b"", CONTINUATION)

    async def script(peer):
        await peer.upgrade(tail=wire + frame("text"))
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url) as owner:
            await owner.until_messages(1)
            assert owner.messages == [b"text"]
            assert owner.stream.counts.unusual == 2

    drive(main)


def test_w16_a_burst_of_ten_thousand_loses_nothing(drive):
    burst = b"".join(frame(f'{{"n":{number:05d},"pad":"{"x" * 100}"}}') for number in range(10_000))

    async def script(peer):
        await peer.upgrade()
        await peer.read()
        peer.raw(burst)
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            longest = 0.0

            async def watch():
                nonlocal longest
                # The thread's own time: others run on this machine too.
                while True:
                    before = time.thread_time()
                    await asyncio.sleep(0)
                    longest = max(longest, time.thread_time() - before)

            watcher = asyncio.create_task(watch())
            owner.stream.send(b"go")
            await owner.until_messages(10_000)
            watcher.cancel()
            assert [int(message[5:10]) for message in owner.messages] == list(range(10_000))
            assert longest < 0.05, f"the loop was blocked for {longest * 1e3:.1f} ms"

    drive(main)


# --- faults of the owner, malformed messages (W19) ------------------------------------------------


def test_w19_one_failing_message_is_counted_and_the_connection_stays(drive, caplog):
    def picky(data):
        if data == b"bad":
            raise ValueError(f"cannot read {data!r}")

    async def script(peer):
        await peer.upgrade(tail=b"".join(map(frame, ["good", "bad", "bad", "good", "bad", "end"])))
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url, picky) as owner:
            await owner.until(lambda: owner.messages[-1:] == [b"end"])
            await owner.stream.wait_live()
            assert owner.stream.counts.faults == 3
            assert owner.states == [CONNECTING, LIVE]
        assert "ValueError at picky" in caplog.text
        assert "cannot read" not in caplog.text

    drive(main)


@pytest.mark.parametrize("pattern", [["bad"] * 3, ["bad", "good"] * 20])
def test_w19_failing_that_persists_renews_the_connection_and_is_reported(drive, pattern):
    def picky(data):
        if data == b"bad":
            raise ValueError

    async def script(peer):
        await peer.upgrade(tail=b"".join(map(frame, [*pattern, "never seen"])))
        assert await peer.read() == (CLOSE, struct.pack("!H", 1011))

    async def main():
        async with WsServer(script, stay) as server, Owner(server.url, picky) as owner:
            await owner.renewed()
            await owner.stream.wait_live()
            assert "messages fail: ValueError" in owner.reasons
            assert b"never seen" not in owner.messages
            assert owner.stream.counts.faults == pattern.count("bad")

    drive(main)


def test_what_on_state_raises_ends_the_stream_and_is_raised(drive):
    async def main():
        async with WsServer(stay) as server:
            heard = []

            def on_state(state, reason):
                heard.append(state)
                if state is LIVE:
                    raise RuntimeError("the owner is broken")

            stream = Stream(
                name="test", url=server.url, on_frame=lambda _: None, on_state=on_state,
                clock=VirtualClock(),
            )  # fmt: skip
            with pytest.raises(RuntimeError, match="the owner is broken"):
                await stream.run()
            assert heard == [CONNECTING, LIVE, CLOSED]
            with pytest.raises(UnavailableError):
                await stream.wait_live()

    drive(main)


# --- silence (W1, W3, W15, W18) -------------------------------------------------------------------


def test_w1_a_peer_that_answers_pings_but_sends_no_data_is_stale(drive):
    async def main():
        async with WsServer(stay) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            await owner.until_messages(1)
            await owner.clock.run(9_990)
            assert owner.states == [CONNECTING, LIVE]
            await owner.clock.run(10)
            await owner.until_state(LOST)
            assert owner.states[:4] == [CONNECTING, LIVE, STALE, LOST]
            await owner.renewed()
            await owner.stream.wait_live()
            assert server.most_open == 1

    drive(main)


def test_acknowledgements_do_not_count_as_data(drive):
    async def main():
        async with WsServer(echo) as server, Owner(server.url, lambda _: False) as owner:
            await owner.stream.wait_live()
            for second in range(10):
                owner.stream.send(b"?")
                await owner.until_messages(second + 1)
                assert owner.states == [CONNECTING, LIVE]
                await owner.clock.run(1000)
            await owner.until_state(LOST)
            assert STALE in owner.states

    drive(main)


def test_data_keeps_the_watchdog_quiet(drive):
    async def main():
        async with WsServer(echo) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            for second in range(0, 100, 9):
                owner.stream.send(b"?")
                await owner.until_messages(second // 9 + 1)
                assert owner.stream.data_age_s() == 0.0
                await owner.clock.run(9000)
                assert owner.stream.data_age_s() == 9.0
            assert owner.states == [CONNECTING, LIVE]

    drive(main)


def test_w3_a_peer_that_ignores_pings_is_dropped_in_idle_plus_reply_time(drive):
    pinged = []

    async def frozen(peer):
        await peer.upgrade()
        pinged.append(await peer.read())
        await peer.gone()

    async def main():
        limits = StreamLimits(data_age_s=None)
        async with WsServer(frozen, stay) as server, Owner(server.url, limits=limits) as owner:
            await owner.stream.wait_live()
            await owner.clock.run(10_000)
            await owner.until(lambda: pinged)
            await owner.clock.run(4_990)
            assert owner.states == [CONNECTING, LIVE]
            await owner.clock.run(10)
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "no pong"
            await owner.renewed()
            await owner.stream.wait_live()
        assert pinged == [(PING, b"")]

    drive(main)


def test_a_quiet_stream_lives_on_pongs(drive):
    pings = []

    async def script(peer):
        await peer.upgrade()
        while True:
            pings.append(await peer.read_until(PING))
            peer.send(b"", PONG)

    async def main():
        limits = StreamLimits(data_age_s=None)
        async with WsServer(script) as server, Owner(server.url, limits=limits) as owner:
            await owner.stream.wait_live()
            for number in range(20):
                await owner.clock.run(10_000)
                while len(pings) <= number:
                    await asyncio.sleep(0)
                await settle(5)
            assert owner.states == [CONNECTING, LIVE]

    drive(main)


def test_w15_a_subscription_that_is_acknowledged_but_silent_is_found(drive):
    async def main():
        clock = VirtualClock()
        topics = TopicAges(clock)
        topics.expect("trades", 10.0)
        topics.expect("book", 30.0)
        topics.expect("other", 5.0)
        topics.forget("other")

        def on_message(data):
            topics.seen(data.decode())
            topics.seen("not expected")

        clock.advance(25_000)
        async with (
            WsServer(echo) as server,
            Owner(server.url, on_message, clock=clock, topics=topics) as owner,
        ):
            await owner.stream.wait_live()
            for number in range(6):
                assert owner.states == [CONNECTING, LIVE]
                owner.stream.send(b"trades")
                await owner.until_messages(number + 1)
                await clock.run(5000)
            await owner.until_state(LOST)
            assert owner.reasons[owner.states.index(STALE)] == "no data of book"

    drive(main)


def test_topic_ages():
    clock = VirtualClock()
    ages = TopicAges(clock)
    assert ages.next_due_s() == math.inf
    ages.expect("a", 2.0)
    ages.expect("b", 3.0)
    clock.advance(2000)
    assert ages.overdue() == {"a": 2.0}
    ages.seen("a")
    assert ages.overdue() == {}
    assert ages.next_due_s() == 3.0
    ages.restart()
    clock.advance(3000)
    assert ages.overdue() == {"a": 3.0, "b": 3.0}


def test_w15_a_topic_that_a_rotation_lost_is_found(drive):
    async def main():
        clock = VirtualClock()
        topics = TopicAges(clock)
        topics.expect("hello", ROTATION_MS / 1000 + 30.0)
        async with (
            WsServer(stay, echo) as server,
            Owner(server.url, clock=clock, topics=topics, limits=PATIENT) as owner,
        ):
            await owner.stream.wait_live()
            await clock.run(ROTATION_MS)
            await owner.until(lambda: owner.stream.counts.rotations == 1)
            assert owner.states == [CONNECTING, LIVE]
            await clock.run(30_000)
            await owner.until_state(LOST)
            assert owner.reasons[owner.states.index(STALE)] == "no data of hello"

    drive(main)


def test_w18_a_ping_flood_is_no_data_and_is_answered_sparingly(drive):
    pongs = []

    async def flood(peer):
        await peer.upgrade()
        while True:
            kind, data = await peer.read()
            if kind == PONG:
                pongs.append(data)
            if kind != TEXT:
                continue
            for number in range(1000):
                peer.send(f"{number}", PING)
                peer.send("", PONG)
            peer.send("flooded")

    async def main():
        async with WsServer(flood, stay) as server, Owner(server.url, lambda _: False) as owner:
            await owner.stream.wait_live()
            for second in range(10):
                owner.stream.send(b"?")
                await owner.until_messages(second + 1)
                assert owner.states == [CONNECTING, LIVE]
                await owner.clock.run(1000)
            await owner.until_state(LOST)
            assert owner.states[2:4] == [STALE, LOST]
            # One at once, and after the pause the last of the others.
            assert pongs == [b"0", b"999"] * 10

    drive(main)


def test_heartbeats_are_sent_when_due(drive):
    beats = []

    async def script(peer):
        await peer.upgrade()
        while True:
            kind, data = await peer.read()
            if kind == TEXT:
                beats.append(data)
                peer.send('{"op":"pong"}')
            elif kind == PING:
                peer.send(data, PONG)

    async def main():
        heartbeat = Heartbeat(20.0, b'{"op":"ping"}')
        limits = StreamLimits(data_age_s=None)
        async with (
            WsServer(script) as server,
            Owner(server.url, lambda _: False, limits=limits, heartbeat=heartbeat) as owner,
        ):
            await owner.stream.wait_live()
            for number in range(1, 5):
                await owner.clock.run(10_000)
                await settle(5)
                assert len(beats) == number - 1
                await owner.clock.run(10_000)
                await owner.until_messages(number)
            assert beats == [b'{"op":"ping"}'] * 4
            assert owner.states == [CONNECTING, LIVE]

    drive(main)


# --- the end of a connection (W4, W5, W8) ---------------------------------------------------------


MESSAGES = {
    "short": frame("s" * 20),
    "16 bit": frame("m" * 130),
    "64 bit": frame("l" * 65_536),
    "fragments": frame("a" * 10, fin=False) + frame("b" * 10, CONTINUATION),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_w4_a_message_that_is_cut_anywhere_is_never_seen(drive, kind):
    wire = MESSAGES[kind]
    # Every byte of header and payload; of the long payload only some.
    cuts = [*range(min(len(wire), 140)), *range(140, len(wire), 9999)]

    def cutting(at):
        async def script(peer):
            await peer.upgrade(tail=frame("whole") + wire[:at])
            if at % 2:
                await peer.writer.drain()
                peer.cut()
            else:
                # An RST would overtake what has not been read.
                peer.writer.write_eof()
                await peer.gone()

        return script

    async def main():
        async with WsServer(*map(cutting, cuts), stay) as server, Owner(server.url) as owner:
            for number, _ in enumerate(cuts, 1):
                await owner.renewed(number)
            await owner.until(lambda: b"hello" in owner.messages)
            assert owner.messages == [b"whole"] * len(cuts) + [b"hello"]
            assert server.connections == len(cuts) + 1
            assert server.most_open == 1

    drive(main)


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (1000, 1000), (1001, 1001), (1008, 1008), (1011, 1011), (1012, 1012), (None, 1000),
        (4001, 4001), (1006, 1002), (0, 1002), (5000, 1002), (65535, 1002),
    ],
)  # fmt: skip
def test_w5_a_close_is_answered_and_its_code_reported(drive, code, answer, caplog):
    answers = []

    async def closing(peer):
        await peer.upgrade()
        peer.send_close(code, b"" if code is None else SECRET.encode())
        answers.append(await peer.read_until(CLOSE))
        await peer.gone()

    async def main():
        async with WsServer(closing, stay) as server, Owner(server.url) as owner:
            await owner.until_state(LOST)
            assert owner.reasons[owner.states.index(LOST)] == f"closed by the venue, code {code}"
            await owner.renewed()
            await owner.stream.wait_live()
            assert server.connections == 2
            assert server.most_open == 1
        assert [struct.unpack("!H", payload[:2]) for payload in answers] == [(answer,)]
        assert SECRET not in caplog.text

    with caplog.at_level(1):
        drive(main)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_w5_no_close_at_all(drive, how):
    async def ending(peer):
        await peer.upgrade(tail=frame("x"))
        await peer.read_until(TEXT)
        peer.reset() if how == "rst" else peer.cut()

    async def main():
        async with WsServer(ending, stay) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            owner.stream.send(b"die")
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "cut"
            assert not owner.stream.live
            await owner.renewed()
            await owner.stream.wait_live()
            assert (server.connections, server.most_open) == (2, 1)
            assert owner.stream.counts.losses == 1

    drive(main)


async def hello(connection):
    assert await connection.request("auth", b"auth") == b"auth"
    assert await connection.request("subscribe", b"subscribe") == b"subscribe"


def answering(stream_of):
    def on_message(data):
        return not stream_of().resolve(data.decode(), data)

    return on_message


async def echo(peer: Peer) -> None:
    """Accept, and say everything back."""
    await peer.upgrade()
    while True:
        kind, data = await peer.read()
        if kind == TEXT:
            peer.send(data)
        elif kind == PING:
            peer.send(data, PONG)


@pytest.mark.parametrize("how", ["rst", "fin", "close"])
def test_w8_dropped_at_every_stage_it_comes_back_and_never_twice(drive, how):
    def end(peer):
        match how:
            case "rst":
                peer.reset()
            case "fin":
                peer.cut()
            case "close" if peer.upgraded:
                peer.send_close(1012)
            case _:
                peer.raw(b"\x88\x00")
                peer.cut()

    async def at_accept(peer):
        end(peer)
        await peer.gone()

    async def at_request(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        end(peer)
        await peer.gone()

    async def in_response(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.raw(b"HTTP/1.1 101 Switching")
        await peer.writer.drain()
        end(peer)
        await peer.gone()

    def after(messages):
        async def script(peer):
            await peer.upgrade()
            for _ in range(messages):
                peer.send(await peer.read_until(TEXT))
            await peer.read_until(TEXT) if messages < 2 else None
            end(peer)
            await peer.gone()

        return script

    async def main():
        scripts = [at_accept, at_request, in_response, after(0), after(1), after(2), echo]
        owner = None
        async with WsServer(*scripts) as server:
            owner = Owner(server.url, answering(lambda: owner.stream), hello=hello)
            async with owner:
                for number in range(1, len(scripts)):
                    await owner.renewed(number)
                await owner.stream.wait_live()
                assert server.most_open == 1
                assert server.connections == len(scripts)
                # One LOST for each; the sixth may have been live for a moment before it.
                assert owner.states.count(LOST) == 6
                assert owner.states.count(LIVE) <= 2

    drive(main)


# --- connecting (W7) ------------------------------------------------------------------------------


def test_w7_a_refused_port_is_tried_again_with_full_jitter_up_to_the_cap(drive):
    async def main():
        async with WsServer(stay) as server:
            url = server.url
        limits = StreamLimits(backoff_first_s=1.0, backoff_most_s=60.0)
        async with Owner(url, limits=limits, rng=random.Random(7)) as owner:
            expected = random.Random(7)
            for attempt in range(12):
                await owner.until_state(LOST, attempt + 1)
                assert owner.reasons[-1].startswith("ConnectionRefusedError")
                since_s = owner.clock.monotonic_s()
                wait_s = expected.uniform(0.0, min(60.0, 2.0**attempt))
                await owner.clock.run(wait_s * 999)
                assert owner.states[-1] is LOST
                await owner.renewed(attempt + 1)
                assert owner.clock.monotonic_s() - since_s == pytest.approx(wait_s, abs=1e-6)

    drive(main)


def test_no_connection_is_begun_before_the_last_is_closed(drive):
    async def clinging(peer):
        await peer.upgrade()
        await peer.gone()

    async def main():
        rng = random.Random()
        rng.uniform = lambda low, high: low
        left = []

        def on_state(state, reason):
            if state is CONNECTING:
                left.append(len(stream._connections))

        async with WsServer(clinging) as server:
            stream = Stream(
                name="test", url=server.url, on_frame=lambda _: None, clock=VirtualClock(), rng=rng,
                on_state=on_state,
            )  # fmt: skip
            stream_ended = asyncio.create_task(stream.run())
            for number in range(1, 4):
                await stream.wait_live()
                assert stream.counts.connects == number
                stream.renew("again")
                while stream.state is LIVE:
                    await asyncio.sleep(0)
            await stream.close()
            await stream_ended
        assert len(left) >= 3
        assert not any(left)

    drive(main)


def test_backoff_starts_anew_after_a_stable_while(drive):
    async def dropping(peer):
        await peer.upgrade()
        await peer.read_until(TEXT)

    async def main():
        rng = random.Random(1)
        drawn = []
        rng.uniform = lambda low, high: drawn.append((low, high)) or high
        limits = StreamLimits(data_age_s=None, ping_idle_s=1000.0, backoff_most_s=8.0)
        async with WsServer(dropping) as server, Owner(server.url, limits=limits, rng=rng) as owner:
            for number in range(6):
                await owner.stream.wait_live()
                await owner.clock.run(59_000 if number != 4 else 60_000)
                owner.stream.send(b"drop")
                await owner.renewed(number + 1)
        assert drawn[:6] == [(0.0, most) for most in (1.0, 2.0, 4.0, 8.0, 1.0, 2.0)]

    drive(main)


@pytest.mark.parametrize(
    ("answer", "reason", "wait_s"),
    [
        (("429 Too Many Requests", "Retry-After: 120"), "HTTP 429", 120.0),
        (("503 Service Unavailable",), "HTTP 503", 1.0),
        (("503 Service Unavailable", "Retry-After: soon"), "HTTP 503", 1.0),
        (("418 I'm a Teapot", "Retry-After: 600"), "HTTP 418", 600.0),
        (("418 I'm a Teapot",), "HTTP 418", 120.0),
        (("403 Forbidden",), "HTTP 403", 600.0),
        (("302 Found", "Location: ws://127.0.0.1:1/"), "HTTP 302", 1.0),
        (("200 OK",), "HTTP 200", 1.0),
    ],
)
def test_w7_an_answer_that_is_no_upgrade(drive, answer, reason, wait_s):
    async def refusing(peer):
        await peer.refuse(*answer)
        await peer.gone()

    async def main():
        rng = random.Random()
        rng.uniform = lambda low, high: high
        async with WsServer(refusing, stay) as server, Owner(server.url, rng=rng) as owner:
            await owner.until_state(LOST)
            assert owner.reasons[-1] == reason
            await owner.clock.run(wait_s * 1000 - 1)
            assert owner.states[-1] is LOST
            await owner.clock.run(2)
            await owner.stream.wait_live()
            assert server.connections == 2

    drive(main)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 101 Switching Protocols\r\n"])
def test_w7_a_handshake_that_never_completes_is_given_up_and_its_socket_closed(drive, part):
    async def never(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.raw(part)
        await peer.gone()

    async def main():
        async with WsServer(never, stay) as server, Owner(server.url) as owner:
            await owner.until_state(CONNECTING)
            await owner.until(lambda: server.peers)
            await settle(5)
            await owner.clock.run(9_999)
            assert owner.states == [CONNECTING]
            await owner.clock.run(1)
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "connect timed out"
            await owner.until(lambda: not server.open)
            await owner.renewed()
            await owner.stream.wait_live()
            assert server.most_open == 1

    drive(main)


def test_a_tls_handshake_that_never_completes_is_given_up(drive):
    async def silent(peer):
        await peer.gone()

    async def main():
        async with WsServer(silent) as server, Owner("wss" + server.url[2:]) as owner:
            await owner.until(lambda: server.peers)
            await settle(5)
            await owner.clock.run(10_000)
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "connect timed out"
            await owner.until(lambda: not server.open)

    drive(main)


@pytest.mark.parametrize("read", [False, True])
def test_w7_a_connection_that_ends_before_the_upgrade(drive, read):
    async def ending(peer):
        if read:
            await peer.reader.readuntil(b"\r\n\r\n")

    async def main():
        async with WsServer(ending, stay) as server, Owner(server.url) as owner:
            await owner.renewed()
            await owner.stream.wait_live()
            assert owner.states == [CONNECTING, LOST, CONNECTING, LIVE]
            assert owner.reasons[1] == "closed during the handshake"

    drive(main)


def test_garbage_instead_of_an_upgrade(drive):
    def answering_with(data):
        async def script(peer):
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.raw(data)
            await peer.gone()

        return script

    answers = [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAA\r\n\r\n",
        b"x" * 100_000,
    ]

    async def main():
        scripts = [*map(answering_with, answers), stay]
        async with WsServer(*scripts) as server, Owner(server.url) as owner:
            for number, _ in enumerate(answers, 1):
                await owner.renewed(number)
            await owner.stream.wait_live()
            assert owner.states.count(LOST) == len(answers)

    drive(main)


def test_a_hello_that_never_ends_is_given_up(drive):
    cancelled = []

    async def waiting(connection):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def main():
        async with WsServer(stay) as server, Owner(server.url, hello=waiting) as owner:
            await owner.until_messages(1)
            await settle(5)
            await owner.clock.run(9_999)
            assert owner.states == [CONNECTING]
            await owner.clock.run(1)
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "hello timed out"
            assert cancelled == [True]

    drive(main)


def test_a_hello_ends_when_the_connection_does(drive):
    async def waiting(connection):
        await asyncio.Event().wait()

    async def closing(peer):
        await peer.upgrade(tail=frame("x"))
        peer.send_close(1008)
        await peer.gone()

    async def main():
        async with WsServer(closing) as server, Owner(server.url, hello=waiting) as owner:
            await owner.until_state(LOST)
            assert owner.states == [CONNECTING, LOST]
            assert owner.reasons[-1] == "closed by the venue, code 1008"

    drive(main)


def test_what_is_cancelled_within_does_not_end_the_stream_unseen(drive):
    async def cancelled(*_):
        reply = asyncio.get_running_loop().create_future()
        reply.cancel()
        await reply

    async def main():
        async with WsServer(stay) as server, Owner(server.url, hello=cancelled) as owner:
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "hello was cancelled"
        owner = Owner(cancelled)
        with pytest.raises(RuntimeError, match="from within"):
            await owner.stream.run()
        assert (owner.states[-1], owner.reasons[-1]) == (CLOSED, "failed")

    drive(main)


def test_why_a_hello_refuses_is_told_if_it_is_fit_to_be(drive, caplog):
    errors = iter(
        [
            VenueError("auth refused, code 10003", code=10003),
            UnavailableError("later", retry_after_s=300.0),
            RuntimeError(SECRET),
        ]
    )

    async def refusing(connection):
        for error in errors:
            raise error

    async def main():
        async with WsServer(stay) as server, Owner(server.url, hello=refusing) as owner:
            await owner.until_state(LOST)
            await owner.renewed()
            await owner.until_state(LOST, 2)
            await owner.clock.run(299_000)
            assert owner.states[-1] is LOST
            await owner.clock.run(2_000)
            await owner.renewed(3)
            await owner.stream.wait_live()
            assert server.most_open == 1
        reasons = [r for s, r in zip(owner.states, owner.reasons, strict=True) if s is LOST]
        assert reasons[:2] == ["auth refused, code 10003", "later"]
        assert reasons[2].startswith("RuntimeError at refusing:")
        assert SECRET not in caplog.text

    with caplog.at_level(1):
        drive(main)


def test_a_refusal_for_good_ends_the_stream(drive):
    async def refusing(connection):
        raise NoEntryError("auth refused, code 33004", code=33004)

    async def main():
        async with WsServer(stay) as server, Owner(server.url, hello=refusing) as owner:
            with pytest.raises(NoEntryError, match="33004") as e:
                await owner.stream.wait_live()
            assert e.value.code == 33004
            with pytest.raises(NoEntryError):
                await owner.task
            assert (owner.states[-1], owner.reasons[-1]) == (CLOSED, "auth refused, code 33004")
            assert server.connections == 1

    drive(main)


def test_nothing_connects_while_it_is_held(drive):
    """R8, B9: a ban is for every connection from here."""

    async def main():
        clock = VirtualClock()
        held_until_s = 100.0

        def held_s():
            return max(0.0, held_until_s - clock.monotonic_s())

        async with WsServer(stay) as server, Owner(server.url, clock=clock, held_s=held_s) as owner:
            await clock.run(99_000)
            await settle(5)
            assert (server.connections, owner.states) == (0, [])
            await clock.run(1_000)
            await owner.stream.wait_live()
            assert server.connections == 1

    drive(main)


def test_a_rotation_waits_for_the_end_of_a_ban(drive):
    async def main():
        clock = VirtualClock()
        limits = StreamLimits(rotate_after_s=50.0, data_age_s=None, ping_idle_s=1e6)

        def held_s():
            return max(0.0, 100.0 - clock.monotonic_s()) if clock.monotonic_s() > 40.0 else 0.0

        async with (
            WsServer(stay) as server,
            Owner(server.url, clock=clock, held_s=held_s, limits=limits) as owner,
        ):
            await owner.stream.wait_live()
            await clock.run(99_000)
            await settle(5)
            assert server.connections == 1
            await clock.run(1_000)
            await owner.until(lambda: owner.stream.counts.rotations == 1)
            assert LOST not in owner.states

    drive(main)


def test_whoever_fails_at_a_message_hears_that_it_is_lost(drive):
    def failing(message):
        raise RuntimeError

    async def main():
        faults = []

        def hear():
            faults.append(1)
            raise ValueError

        async with WsServer(stay) as server, Owner(server.url, failing, on_fault=hear) as owner:
            await owner.stream.wait_live()
            await owner.until(lambda: faults)
            assert owner.stream.live
            assert owner.stream.counts.faults == 1

    drive(main)


def test_the_url_is_asked_for_before_every_connect_and_never_logged(drive, caplog):
    keys = []

    async def main():
        async def dropping(peer):
            await peer.upgrade(tail=frame("x"))

        async with WsServer(dropping, stay) as server:

            async def url():
                keys.append(f"{SECRET}{len(keys)}")
                if len(keys) == 1:
                    raise UnavailableError("no key", retry_after_s=30.0)
                return f"{server.url}/{keys[-1]}"

            async with Owner(url) as owner:
                await owner.renewed(1)
                await owner.renewed(2)
                await owner.stream.wait_live()
                requests = [peer.request.split()[1].decode() for peer in server.peers]
                assert requests == [f"/ws/{SECRET}1", f"/ws/{SECRET}2"]
                assert SECRET not in repr(owner.stream) + repr(owner.stream._current)
        assert SECRET not in caplog.text
        assert SECRET not in " ".join(owner.reasons)

    with caplog.at_level(1):
        drive(main)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"ws://fstream.example.com/{SECRET}", "url: must be wss://"),
        (f"http://127.0.0.1/{SECRET}", "url: must be wss://"),
        (f"ws://127.0.0.1.example.com/{SECRET}", "url: must be wss://"),
        (f"ws://localhost.example.com/{SECRET}", "url: must be wss://"),
        (f"ws://[::2]/{SECRET}", "url: must be wss://"),
        (f"wss:///{SECRET}", "url: is not one"),
        (f"wss://127.0.0.1/{SECRET}#x", "url: is not one"),
        (f"wss://127.0.0.1:port/{SECRET}", "ValueError"),
        ("", "url: must be wss://"),
    ],
)
def test_a_url_that_will_not_do_is_refused_unseen(drive, url, reason, caplog):
    async def main():
        async with Owner(url) as owner:
            await owner.until_state(LOST)
        assert owner.reasons[1].startswith(reason)
        assert SECRET not in " ".join(owner.reasons) + caplog.text

    with caplog.at_level(1):
        drive(main)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.mark.parametrize("trusted", [True, False])
def test_certificates_are_verified_and_proxies_of_the_environment_ignored(
    drive, certificate, trusted, monkeypatch
):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "WSS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = serving(certificate)

    async def main():
        async with WsServer(stay, tls=context) as server, Owner(server.url) as owner:
            if trusted:
                await owner.until_messages(1)
                await owner.stream.wait_live()
            else:
                await owner.until_state(LOST)
                assert "CERTIFICATE_VERIFY_FAILED" in owner.reasons[-1]
        if not trusted:
            return
        async with (
            WsServer(stay, tls=context) as server,
            Owner(server.url.replace("localhost", "127.0.0.1")) as owner,
        ):
            await owner.until_state(LOST)
            assert "CERTIFICATE_VERIFY_FAILED" in owner.reasons[-1]

    drive(main)


# --- rotation (W6) --------------------------------------------------------------------------------

PATIENT = StreamLimits(data_age_s=None, ping_idle_s=90_000.0, overlap_s=2.0)
ROTATION_MS = 23 * 3_600_000


def test_w6_a_rotation_overlaps_and_nothing_is_lost(drive):
    async def main():
        owner = None
        async with WsServer(echo) as server:
            owner = Owner(server.url, answering(lambda: owner.stream), hello=hello, limits=PATIENT)
            async with owner:
                await owner.stream.wait_live()
                await owner.clock.run(ROTATION_MS - 1)
                await settle(5)
                assert server.connections == 1
                in_flight = owner.stream.request("slow", b"?")
                await owner.clock.run(1)
                await owner.until(lambda: owner.stream.counts.rotations == 1)
                old, new = server.peers
                # Both deliver; what is sent leaves by the new one; replies of the old one arrive.
                old.send("from the old")
                new.send("from the new")
                await owner.until(lambda: {b"from the old", b"from the new"} <= set(owner.messages))
                assert server.open == 2
                assert await owner.stream.request("fast", b"fast") == b"fast"
                old.send("slow")
                assert await in_flight == b"slow"
                await owner.clock.run(2000)
                await owner.until(lambda: server.open != 2)
                assert owner.states == [CONNECTING, LIVE], "a rotation is no loss"
                assert owner.stream.counts.connects == 2
                # And again, 23 h after the second was made.
                await owner.clock.run(ROTATION_MS)
                await owner.until(lambda: owner.stream.counts.rotations == 2)
                assert server.most_open == 2

    drive(main)


def test_w6_a_rotation_that_fails_is_tried_again_while_the_old_one_lives(drive):
    async def refusing(peer):
        await peer.refuse("503 Service Unavailable")
        await peer.gone()

    async def main():
        scripts = [echo, refusing, refusing, echo]
        async with WsServer(*scripts) as server, Owner(server.url, limits=PATIENT) as owner:
            await owner.stream.wait_live()
            await owner.clock.run(ROTATION_MS)
            while not owner.stream.counts.rotations:
                await settle(5)
                assert owner.stream.live
                await owner.clock.run(10_000)
            assert owner.states == [CONNECTING, LIVE]
            assert server.connections == 4

    drive(main)


def test_w6_the_old_one_is_cut_while_the_new_one_is_made(drive):
    """The venue's 24 h come early: one loss, and the rotation becomes the reconnect."""
    said_hello = []

    async def slow(peer):
        await peer.upgrade()
        said_hello.append(peer)
        await peer.gone()

    async def main():
        proceed = asyncio.Event()

        async def waiting(connection):
            if said_hello or server.connections > 1:
                await proceed.wait()

        async with (
            WsServer(echo, slow) as server,
            Owner(server.url, hello=waiting, limits=PATIENT) as owner,
        ):
            await owner.stream.wait_live()
            await owner.clock.run(ROTATION_MS)
            await owner.until(lambda: said_hello)
            in_flight = owner.stream.request("order", b"?") if owner.stream.live else None
            server.peers[0].send_close(1001)
            await owner.until_state(LOST)
            assert not owner.stream.live
            with pytest.raises(NoReplyError):
                await in_flight
            proceed.set()
            await owner.until_state(LIVE, 2)
            assert owner.states == [CONNECTING, LIVE, LOST, CONNECTING, LIVE]
            assert server.connections == 2

    drive(main)


def test_w6_the_old_one_is_cut_and_the_new_one_refused(drive):
    refused = asyncio.Event()

    async def refusing(peer):
        await refused.wait()
        await peer.refuse("429 Too Many Requests", "Retry-After: 500")
        await peer.gone()

    async def main():
        scripts = [echo, refusing, echo]
        async with WsServer(*scripts) as server, Owner(server.url, limits=PATIENT) as owner:
            await owner.stream.wait_live()
            await owner.clock.run(ROTATION_MS)
            server.peers[0].reset()
            await owner.until_state(LOST)
            refused.set()
            await owner.until_state(LOST, 2)
            assert owner.states == [CONNECTING, LIVE, LOST, CONNECTING, LOST]
            assert owner.reasons[-1] == "HTTP 429"
            await owner.clock.run(499_000)
            assert owner.states[-1] is LOST
            await owner.clock.run(1_001)
            await owner.stream.wait_live()
            assert server.connections == 3

    drive(main)


def test_w6_a_refused_rotation_waits_as_long_as_the_venue_asks(drive):
    async def refusing(peer):
        await peer.refuse("429 Too Many Requests", "Retry-After: 500")
        await peer.gone()

    async def main():
        scripts = [echo, refusing, echo]
        async with WsServer(*scripts) as server, Owner(server.url, limits=PATIENT) as owner:
            await owner.stream.wait_live()
            await owner.clock.run(ROTATION_MS)
            await owner.until(lambda: server.connections == 2 and server.open == 1)
            await settle(5)
            await owner.clock.run(499_000)
            await settle(5)
            assert server.connections == 2
            await owner.clock.run(1_001)
            await owner.until(lambda: owner.stream.counts.rotations == 1)
            assert owner.states == [CONNECTING, LIVE]

    drive(main)


def test_w6_the_new_one_is_lost_within_the_overlap(drive):
    async def main():
        async with WsServer(echo) as server, Owner(server.url, limits=PATIENT) as owner:
            await owner.stream.wait_live()
            await owner.clock.run(ROTATION_MS)
            await owner.until(lambda: owner.stream.counts.rotations == 1)
            server.peers[1].send_close(1001)
            await owner.until_state(LOST)
            # The old one is not waited for: it would be the second beside the third.
            await owner.until(lambda: server.open == 0)
            await owner.renewed()
            await owner.stream.wait_live()
            assert (server.most_open, server.connections) == (2, 3)

    drive(main)


# --- requests -------------------------------------------------------------------------------------


def test_requests_fail_as_unknown_when_the_socket_dies_and_as_not_sent_without_one(drive):
    async def dying(peer):
        await peer.upgrade()
        await peer.read_until(TEXT)
        await peer.read_until(TEXT)
        peer.reset()

    async def main():
        async with WsServer(dying, stay) as server, Owner(server.url) as owner:
            early = owner.stream.request(1, b"early")
            with pytest.raises(NoReplyError) as caught:
                await early
            assert not caught.value.sent
            await owner.stream.wait_live()
            waiting = [owner.stream.request(id, b"order") for id in (1, 2)]
            with pytest.raises(ValueError, match="awaited already"):
                owner.stream.request(2, b"again")
            for reply in waiting:
                with pytest.raises(NoReplyError) as caught:
                    await reply
                assert caught.value.sent
            assert not owner.stream.resolve(1, "late")
            await owner.until_state(LOST)
            with pytest.raises(NoReplyError) as caught:
                await owner.stream.request(1, b"late")
            assert not caught.value.sent

    drive(main)


def test_requests_time_out_and_late_replies_find_nobody(drive):
    async def main():
        async with WsServer(stay) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            reply = owner.stream.request("id", b"order", timeout_s=1.0)
            await owner.clock.run(999)
            assert not reply.done()
            await owner.clock.run(1)
            with pytest.raises(NoReplyError, match="in 1 s") as caught:
                await reply
            assert caught.value.sent
            assert not owner.stream.resolve("id", "late")
            # The id is free again, and a reply in time takes its timer back.
            reply = owner.stream.request("id", b"order", timeout_s=1.0)
            assert owner.stream.resolve("id", "reply")
            # It is free at once, before whoever waits has run.
            other = owner.stream.request("id", b"order")
            assert await reply == "reply"
            await asyncio.sleep(0)
            assert owner.clock.next_due_s() > 1.0
            assert owner.stream.resolve("id", "other")
            assert await other == "other"
            # A request nobody awaits any more leaves nothing behind.
            owner.stream.request("id", b"order").cancel()
            await asyncio.sleep(0)
            assert not owner.stream.resolve("id", "late")

    drive(main)


def test_a_venue_that_does_not_read_is_given_up(drive):
    async def deaf(peer):
        await peer.upgrade()
        peer.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def main():
        async with WsServer(deaf) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            await settle(5)
            sent = 0
            waiting = []
            while owner.stream.live:
                sent += 1
                assert sent < 2000
                waiting.append(owner.stream.request(sent, b"x" * 65_536))
            for reply in waiting:
                with pytest.raises(NoReplyError) as caught:
                    await reply
                assert caught.value.sent
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "the venue does not read"
            server.peers[0].send("too late")
            await settle()
            assert owner.messages == []

    drive(main)


# --- the end --------------------------------------------------------------------------------------


def test_closing_says_goodbye_and_leaves_nothing(drive):
    goodbyes = []

    async def script(peer):
        await peer.upgrade()
        goodbyes.append(await peer.read_until(CLOSE))
        await peer.gone()

    async def main():
        async with WsServer(script) as server, Owner(server.url) as owner:
            await owner.stream.wait_live()
            reply = owner.stream.request("id", b"order")
            await owner.stream.close()
            assert owner.states[-1] is CLOSED
            assert not owner.stream._connections
            with pytest.raises(NoReplyError):
                await reply
            await owner.stream.close()
            with pytest.raises(RuntimeError, match="once"):
                await owner.stream.run()
            with pytest.raises(UnavailableError):
                await owner.stream.wait_live()
            await owner.until(lambda: goodbyes)
        assert goodbyes == [struct.pack("!H", 1000)]
        assert owner.states.count(CLOSED) == 1

    drive(main)


@pytest.mark.parametrize("stage", ["connecting", "greeting", "live", "lost", "rotating"])
@pytest.mark.parametrize("how", ["close", "cancel"])
def test_it_ends_at_every_stage(drive, stage, how):
    async def never(peer):
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.gone()

    async def waiting(connection):
        if stage == "greeting":
            await asyncio.Event().wait()

    scripts = {
        "connecting": [never], "greeting": [echo], "live": [echo], "lost": [never],
        "rotating": [echo, never],
    }  # fmt: skip

    async def main():
        async with WsServer(*scripts[stage]) as server:
            owner = Owner(server.url, hello=waiting, limits=PATIENT)
            task = asyncio.create_task(owner.stream.run())
            await owner.until_state(CONNECTING)
            await owner.until(lambda: server.peers)
            await settle(10)
            if stage == "lost":
                await owner.clock.run(10_000)
                await owner.until_state(LOST)
            elif stage == "rotating":
                await owner.clock.run(ROTATION_MS)
                await owner.until(lambda: len(server.peers) == 2)
            if how == "close":
                await owner.stream.close()
                await task
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert owner.states[-1] is CLOSED
            await owner.until(lambda: not server.open)

    drive(main)


def test_closed_before_it_ran(drive):
    async def main():
        stream = Stream(name="test", url="", on_frame=lambda _: None, clock=VirtualClock())
        await stream.close()
        await stream.close()
        assert stream.state is CLOSED
        await stream.run()
        assert stream.counts.connects == 0

    drive(main)


def test_the_owner_may_renew(drive):
    async def main():
        async with WsServer(stay) as server, Owner(server.url) as owner:
            owner.stream.renew("nothing there yet")
            await owner.stream.wait_live()
            owner.stream.renew("the book has a gap")
            assert not owner.stream.send(b"x")
            with pytest.raises(NoReplyError) as caught:
                await owner.stream.request("id", b"x")
            assert not caught.value.sent
            await owner.until_state(LOST)
            assert owner.reasons[-1] == "the book has a gap"
            await owner.renewed()
            await owner.stream.wait_live()
            assert server.connections == 2

    drive(main)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf])
def test_limits_are_positive_numbers(value):
    with pytest.raises(ValueError, match="hello_timeout_s: must be a positive number, was"):
        StreamLimits(hello_timeout_s=value)


def test_picows_logs_nothing(drive, caplog):
    async def main():
        async with WsServer(stay) as server, Owner(server.url) as owner:
            await owner.until_messages(1)
        assert {record.name for record in caplog.records} <= {"passivx.exchanges.stream", "asyncio"}

    with caplog.at_level(1), caplog.at_level(1, logger="picows"):
        drive(main)
