"""The outgoing side of one websocket: frames, and what a fault makes of them.

Frames are put together here, and not by the HTTP library, since a fault may cut, double, hold back
or turn round any of them. Never compressed, never fragmented. Facts: RFC 6455.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final

from passivx.clock import Clock, Timer

__all__ = ["Gate", "frame"]

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_MOST_BUFFERED: Final = 16 << 20
# How long a client has to read a CLOSE before the connection ends.
_GRACE_S: Final = 0.25
_NO_CODE: Final = 1006  # not a code on the wire: the connection ends without a word


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a whole, unmasked frame, as servers send them."""
    n = len(payload)
    if n < 126:
        head = bytes((0x80 | opcode, n))
    elif n < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, n)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, n)
    return head + payload


class Gate:
    """What leaves on one websocket.

    A connection whose client leaves more than 16 MiB unread is closed with 1008.
    """

    def __init__(self, channel: str, transport: asyncio.Transport, clock: Clock) -> None:
        self.channel = channel
        self.over = False
        """Nothing leaves any more."""
        self.sent = 0
        """Texts that left as they are."""
        self._transport = transport
        self._clock = clock
        self._stalled = self._frozen = False
        self._held: list[bytes] | None = None
        self._caught: list[bytes] | None = None
        self._last = b""
        self._drops = self._doubles = 0
        self._match = b""
        self._cut_at: int | None = None
        self._turning: list[bytes] = []
        self._turn_of = 0
        self._timers: list[Timer] = []

    # --- what a venue does ---

    def send(self, payload: bytes) -> None:
        """Send one text, or whatever a fault makes of it."""
        if self.over:
            return
        whole = frame(_TEXT, payload)
        self._last = whole
        if self._caught is not None:
            self._caught.append(whole)
        elif self._stalled:
            return
        elif self._held is not None:
            self._held.append(whole)
        elif self._drops and self._match in payload:
            self._drops -= 1
        elif self._cut_at is not None:
            # What was written shall arrive before the end does.
            self._write(whole[: self._cut_at])
            self.fin()
        elif self._turn_of:
            self._turning.append(whole)
            if len(self._turning) >= self._turn_of:
                self._turn()
        else:
            self.sent += 1
            self._write(whole)
            if self._doubles and self._match in payload:
                self._doubles -= 1
                self._write(whole)

    def ping(self, payload: bytes = b"", count: int = 1) -> None:
        """Send a ping, or many."""
        if not self._frozen:
            self._write(frame(_PING, payload) * count)

    def pong(self, payload: bytes) -> None:
        """Answer a ping: a stalled socket still does."""
        if not self._frozen:
            self._write(frame(_PONG, payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a CLOSE, and the end of the stream when the client has answered or soon after.

        With 1006 only the end of the stream.
        """
        if self.over:
            return
        if code == _NO_CODE:
            self.fin()
            return
        self.over = True
        if not self._transport.is_closing():
            # At most 123 bytes, and no half of a character.
            text = reason.encode()[:123].decode(errors="ignore").encode()
            self._transport.write(frame(_CLOSE, struct.pack("!H", code) + text))
        asyncio.get_running_loop().call_later(_GRACE_S, self._transport.close)

    def closed_by_client(self, code: int | None) -> None:
        """Answer a CLOSE of the client's, unless it is the answer to ours; `end` follows."""
        if not self.over and not self._frozen:
            # aiohttp's words for a CLOSE without a code are 0 and None; it is answered alike.
            self._write(frame(_CLOSE, struct.pack("!H", code) if code else b""))

    def end(self) -> None:
        """Be done with: the connection is gone."""
        self.over = True
        for timer in self._timers:
            timer.cancel()
        self._transport.close()

    # --- what faults do ---

    def rst(self) -> None:
        """Reset the connection."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.over = True
        self._transport.abort()

    def fin(self) -> None:
        """End the stream without a CLOSE."""
        self.over = True
        self._transport.close()

    def stall(self, s: float) -> None:
        """Answer pings and send nothing else, for so long; what is not sent is lost."""
        self._stalled = True
        self._later(s, self._go_on)

    def freeze(self, s: float) -> None:
        """Neither read nor write, for so long; then all of it, as after SIGSTOP and SIGCONT."""
        self._frozen = True
        self._transport.pause_reading()
        self.hold(s)

    def hold(self, s: float) -> None:
        """Keep messages back for so long, then send them in order."""
        self._held = [] if self._held is None else self._held
        self._later(s, self._go_on)

    def cut(self, n_bytes: int) -> None:
        """Send so many bytes of the next frame and end the connection."""
        self._cut_at = n_bytes

    def dup(self, count: int, match: str) -> None:
        """Send the next messages that contain ``match`` twice."""
        self._doubles, self._match = count, match.encode()

    def drop(self, count: int, match: str) -> None:
        """Lose the next messages that contain ``match``."""
        self._drops, self._match = count, match.encode()

    def reorder(self, window: int, s: float) -> None:
        """Send the next messages in reverse order, once there are so many or so long has passed."""
        self._turn_of = window
        self._later(s, self._turn)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._write(data)

    def burst(self, count: int) -> None:
        """Send the last message so often again."""
        self._write(self._last * count)

    def heal(self) -> None:
        """Undo what lasts; what was held is sent."""
        self._drops = self._doubles = 0
        self._cut_at = None
        self._go_on()
        self._turn()

    def caught(self, deliver: Callable[[], object]) -> list[bytes]:
        """Return the frames that ``deliver`` would have sent here; `write_all` sends them."""
        self._caught = []
        try:
            deliver()
        finally:
            frames, self._caught = self._caught, None
        return frames

    def write_all(self, frames: Iterable[bytes]) -> None:
        """Send frames, one after the other."""
        for each in frames:
            self._write(each)

    def _go_on(self) -> None:
        self._stalled = False
        if self._frozen:
            self._frozen = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        held, self._held = self._held or [], None
        self.write_all(held)

    def _turn(self) -> None:
        turned, self._turning, self._turn_of = self._turning, [], 0
        self.write_all(reversed(turned))

    def _later(self, s: float, call: Callable[[], object]) -> None:
        if math.isfinite(s):
            self._timers.append(self._clock.call_later(s, call))

    def _write(self, data: bytes) -> None:
        if self.over or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > _MOST_BUFFERED:
            self.close(1008, "slow consumer")
            # A buffer that is not read would keep the connection for ever.
            asyncio.get_running_loop().call_later(_GRACE_S, self._transport.abort)
