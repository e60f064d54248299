"""REST requests to a venue: signed at the last moment, sent once, judged by a table.

`Http.read` is for what may be asked again: it waits for the rate limits, tries again, and returns
what the venue said or raises; it never makes anything up. `Http.send` is for what must not happen
twice: one message, and a `Reply` that says whether it happened, did not, or is not known. What is
particular to a venue is its `Dialect`.

No log line, error or repr of this module holds a query, a header, a body or a signature.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Protocol, Self

import aiohttp
import orjson
from yarl import URL

from passivx.clock import Clock
from passivx.errors import BadReplyError, UnavailableError, VenueError
from passivx.exchanges.base import Order, Outcome, Reaction, Verdict
from passivx.exchanges.budget import Budget

__all__ = [
    "BAN_S",
    "MOST_BAN_S",
    "Answer",
    "Dialect",
    "Finding",
    "Http",
    "HttpLimits",
    "Prepared",
    "Reply",
    "Request",
    "clean",
    "obey",
    "retry_after_s",
]

_log = logging.getLogger(__name__)

# Where a venue names no time: its shortest ban for a 418; docs/protocol facts ask for 10 minutes of
# silence after a 403 for too many requests.
BAN_S: Final = {418: 120.0, 403: 600.0}
_BACK_OFF_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.25
_MOST_PAUSE_S: Final = 8.0
_CLOCK_SAMPLES: Final = 5
# Connecting, and an answer that still tells the time.
_CLOCK_TOTAL_S: Final = 4.0
# A stamp more than 1000 ms ahead of the venue is refused by both; so uncertain an offset is none.
_MOST_CLOCK_ERROR_MS: Final = 1000.0
_CLOCK_INTERVAL_S: Final = 600.0
# The wall clock and the monotonic one part when the machine slept or the clock was set.
_CLOCKS_PARTED_MS: Final = 500.0
_CLOCK_PAUSE_S: Final = 1.0
# The longest ban that docs/protocol facts know; what a venue names beyond it is a mistake.
MOST_BAN_S: Final = 3 * 86400.0
_MOST_TEXT: Final = 200
_SECRET_LIKE: Final = re.compile(r"[A-Za-z0-9+/=%_-]{24,}")


# --- what a venue's dialect deals in --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, not yet stamped or signed.

    ``params`` are ordered (name, value) texts, not yet percent-encoded; ``body`` is sent as it is.
    ``costs`` are by window of the `Budget`. ``urgent``: a cancel or a reduce-only order, which may
    use the reserve. ``idempotent``: no GET, yet doing it twice is the same as once. ``base_url`` is
    another host of the venue's than the client's own, "" for that.
    """

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    signed: bool = False
    costs: Mapping[str, int] = field(default_factory=dict)
    urgent: bool = False
    idempotent: bool = False
    base_url: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, repr=False)
class Prepared:
    """A request as it goes out: ``target`` is path and query, encoded, and never encoded again."""

    target: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Answer:
    """A complete answer, whatever it says.

    ``data`` is its JSON, None when it is none; ``headers`` ignores case. ``ts_ms`` is the venue's
    time of its arrival, to tell how far away a reset stamp is.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    data: Any
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What an answer means, by the venue's table.

    With `Reaction.BACK_OFF`: ``retry_after_s`` (0: the venue did not say), the budget's ``window``
    that it is about ("" is all of them), and ``spare_urgent`` where urgent messages may still go.
    ``ban`` is for answers after which nothing may be sent at all.
    """

    verdict: Verdict
    reaction: Reaction = Reaction.NONE
    code: int | None = None
    text: str = ""
    retry_after_s: float = 0.0
    window: str = ""
    spare_urgent: bool = False
    ban: bool = False

    def reply(self, data: Any = None) -> Reply:
        """Return it as what became of a message, fit to be shown."""
        return Reply(
            self.verdict, self.reaction, self.code, clean(self.text), self.retry_after_s, data
        )


class Dialect(Protocol):
    """What `Http` must know of a venue."""

    @property
    def clock_request(self) -> Request:
        """The unsigned request for the venue's time."""
        ...

    def clock_ms(self, data: Any) -> float:
        """Return the venue's time from the answer to it, or raise `BadReplyError`."""
        ...

    def build(self, request: Request, ts_ms: int) -> Prepared:
        """Encode, and sign if ``request.signed``, with the venue's time ``ts_ms`` (else 0)."""
        ...

    def classify(self, request: Request, answer: Answer) -> Finding:
        """Say what an answer means; what no table names is `Verdict.UNKNOWN`.

        Redirects never come here; OK counts only for JSON with a 2xx status. It must not raise, but
        if it does the answer is UNKNOWN.
        """
        ...

    def usage(self, request: Request, headers: Mapping[str, str]) -> Iterable[tuple[str, int]]:
        """Return the venue's counts of budget windows, (name, used), as far as it sent any."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request sent with `Http.send`; ``data`` is the answer's JSON, if any."""

    verdict: Verdict
    reaction: Reaction = Reaction.NONE
    code: int | None = None
    text: str = ""
    retry_after_s: float = 0.0
    data: Any = field(default=None, repr=False)

    def outcome(self, order: Order | None = None) -> Outcome:
        """Return it as an order message's outcome; ``order`` is what it says of the order."""
        return Outcome(self.verdict, self.reaction, self.code, self.text, self.retry_after_s, order)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one request and of trying again.

    ``total_s`` covers a request from connecting to the answer's last byte; ``max_body`` counts
    bytes after inflating. ``patience_s`` is the longest a read waits for the rate limits, or for
    what a venue asks to wait. A venue's time further than ``max_offset_s`` from this machine's is
    refused.
    """

    total_s: float = 10.0
    connect_s: float = 5.0
    max_body: int = 8 << 20
    max_retries: int = 3
    patience_s: float = 30.0
    max_connections: int = 32
    max_offset_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class _Failure:
    """No answer. ``nothing_left``: it is proven that the request never left this machine."""

    text: str
    nothing_left: bool = False


# --- the client -----------------------------------------------------------------------------------


class Http:
    """One venue's REST interface: a session, its clock and its budget.

    Not for several event loops. Close it, or use it as an async context manager.
    """

    def __init__(
        self,
        base_url: str,
        dialect: Dialect,
        clock: Clock,
        budget: Budget,
        *,
        limits: HttpLimits | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._base_url = base_url
        self._dialect = dialect
        self._clock = clock
        self._budget = budget
        self._limits = limits or HttpLimits()
        self._rng = rng or random.Random()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self.under_way = 0
        """Requests that are not answered yet."""
        self._syncing = asyncio.Lock()
        self._offset_ms: float | None = None  # the venue's time less the monotonic clock
        self._error_ms = 0.0
        self._synced_ms = 0.0
        self._wall_ms = 0.0  # the wall clock less the monotonic one, at that time

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; what is under way fails, and nothing more is sent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def read(self, request: Request) -> Any:
        """Return the JSON that the venue answers, trying again as long as that can help.

        Network errors, 5xx, malformed answers and 429 are tried again after a pause that grows and
        is random, or after the time that the venue names; a refused time stamp once, after a look
        at the venue's clock.

        Raises
        ------
        VenueError
            The venue refused, for good; ``code`` and ``reaction`` are the table's.
        UnavailableError
            There was no answer that could be used, or there would be none within ``patience_s``.
        ValueError
            If the request could do something twice: it is neither a GET nor ``idempotent``.
        """
        if request.method != "GET" and not request.idempotent:
            raise ValueError(f"{request}: is sent once, by send()")
        resynced = False
        for attempt in range(self._limits.max_retries + 1):
            if request.signed and self._clock_is_due():
                if self._offset_ms is None:
                    await self.sync_clock()
                else:
                    await self.refresh_clock()
            await self._wait_for_budget(request)
            found = await self._exchange(request)
            if isinstance(found, _Failure):
                code, text, wait_s = None, found.text, 0.0
            else:
                finding, data = found
                code, text, wait_s = finding.code, finding.text, finding.retry_after_s
                if finding.verdict is Verdict.OK:
                    return data
                if finding.reaction is Reaction.RESYNC_CLOCK and not resynced:
                    resynced = True
                    # Looked at so lately it would not be looked at again.
                    age_s = (self._monotonic_ms() - self._synced_ms) / 1000
                    await self._clock.sleep(max(0.0, _CLOCK_PAUSE_S - age_s))
                    await self.sync_clock()
                    continue
                if (
                    finding.verdict is Verdict.REJECTED
                    and finding.reaction is not Reaction.BACK_OFF
                ):
                    raise VenueError(
                        f"{request}: {_told(finding)}", code=code, reaction=finding.reaction
                    )
                text = _told(finding)
            if attempt == self._limits.max_retries or wait_s > self._limits.patience_s:
                break
            await self._clock.sleep(wait_s + self._pause_s(attempt))
        raise UnavailableError(f"{request}: {text}", code=code, retry_after_s=wait_s)

    async def send(self, request: Request, *, patience_s: float = 0.0) -> Reply:
        """Send a request once and say what became of it; nothing is ever sent again.

        When the rate limits do not let it go within ``patience_s``, it is not sent: the reply is
        REJECTED with `Reaction.BACK_OFF`. So it is when no connection could be made, and when a
        signed request finds no venue time. Whatever happens once it left is UNKNOWN unless the
        venue's table says otherwise. After a refused time stamp the venue's clock is looked at
        before this returns.

        It raises nothing but the cancellation of the task that awaits it (the request may have left
        by then), and ValueError for a request that cannot be built.
        """
        try:
            if request.signed and self._offset_ms is None:
                await self.sync_clock()
            await self._wait_for_budget(request, patience_s)
        except UnavailableError as e:
            return Reply(
                Verdict.REJECTED,
                Reaction.BACK_OFF,
                text=f"not sent: {e}",
                retry_after_s=max(e.retry_after_s, _BACK_OFF_S),
            )
        found = await self._exchange(request)
        if isinstance(found, _Failure):
            if found.nothing_left:
                return Reply(
                    Verdict.REJECTED,
                    Reaction.BACK_OFF,
                    text=f"not sent: {found.text}",
                    retry_after_s=_BACK_OFF_S,
                )
            _log.warning("request=%s outcome=unknown reason=%r", request, found.text)
            return Reply(Verdict.UNKNOWN, Reaction.LOOK_UP, text=found.text)
        finding, data = found
        if finding.verdict is Verdict.UNKNOWN:
            _log.warning("request=%s outcome=unknown reason=%r", request, _told(finding))
        if finding.reaction is Reaction.RESYNC_CLOCK:
            await self.refresh_clock()
        return finding.reply(data)

    def settle(self, finding: Finding, data: Any = None) -> Reply:
        """Return an answer within an answer, of a batch, as a reply; do what it asks for."""
        return obey(finding, self._budget).reply(data)

    # --- the venue's clock ---

    async def ready(self) -> None:
        """See to it that the venue's time is known, also after the machine slept.

        Raises UnavailableError when the venue's clock had to be read and could not be.
        """
        if self._clock_is_due():
            await self.sync_clock()

    async def refresh_clock(self) -> None:
        """Look at the venue's clock; when it cannot be read, log that and go on.

        What is known may still do; a time stamp that does not is refused, and says so.
        """
        try:
            await self.sync_clock()
        except UnavailableError as e:
            _log.warning("clock not read: %s", e)

    def venue_time_ms(self) -> int:
        """Return the best estimate of the venue's time.

        Raises
        ------
        UnavailableError
            Before the first `sync_clock`.
        """
        return round(self._venue_ms())

    def stamp_ms(self) -> int:
        """Return a time for a signature: the venue's, and in no case ahead of it.

        Raises
        ------
        UnavailableError
            Before the first `sync_clock`.
        """
        # Both venues take 5 s of age, but refuse a stamp 1 s ahead.
        return math.floor(self._venue_ms() - self._error_ms)

    @property
    def clock_error_s(self) -> float:
        """By how much `venue_time_ms` may be wrong: half the round trip of its best sample."""
        return self._error_ms / 1000

    async def sync_clock(self) -> None:
        """Ask for the venue's time a few times and keep the answer that came fastest.

        Raises
        ------
        UnavailableError
            If no answer came, none within 2 s, or the time cannot be; the old offset stays.
        """
        asked_ms = self._monotonic_ms()
        async with self._syncing:
            # Many requests may be refused for the same clock.
            fresh = asked_ms - self._synced_ms < _CLOCK_PAUSE_S * 1000
            if self._offset_ms is not None and fresh and not self._clocks_parted():
                return
            best: tuple[float, float] | None = None
            reason = ""
            n_failed = 0
            for _ in range(_CLOCK_SAMPLES):
                sample = await self._clock_sample()
                if not isinstance(sample, str):
                    best = sample if best is None else min(best, sample)
                    continue
                reason = sample
                n_failed += 1
                if n_failed == 2:
                    break
            if best is None:
                raise UnavailableError(f"{self._dialect.clock_request}: {reason}")
            self._error_ms, self._offset_ms = best
            self._synced_ms = self._monotonic_ms()
            self._wall_ms = self._clock.time_ms() - self._synced_ms
        _log.debug(
            "venue clock: ahead_ms=%.0f error_ms=%.0f",
            self._offset_ms - self._wall_ms,
            self._error_ms,
        )

    async def keep_clock(self) -> None:
        """Look at the venue's clock whenever it is time to; runs until cancelled."""
        while True:
            if self._clock_is_due():
                await self.refresh_clock()
            await self._clock.sleep(_CLOCK_INTERVAL_S / 60)

    def _clock_is_due(self) -> bool:
        if self._offset_ms is None:
            return True
        age_ms = self._monotonic_ms() - self._synced_ms
        return age_ms > _CLOCK_INTERVAL_S * 1000 or self._clocks_parted()

    def _clocks_parted(self) -> bool:
        # The machine slept (the monotonic clock did not run), or somebody set its clock.
        parted_ms = self._clock.time_ms() - self._monotonic_ms() - self._wall_ms
        return abs(parted_ms) > _CLOCKS_PARTED_MS

    async def _clock_sample(self) -> tuple[float, float] | str:
        """Return (error, offset) in ms, or why there is none."""
        request = self._dialect.clock_request
        try:
            await self._wait_for_budget(request)
        except UnavailableError as e:
            return str(e)
        sent_ms = self._monotonic_ms()
        found = await self._exchange(request, min(self._limits.total_s, _CLOCK_TOTAL_S))
        got_ms = self._monotonic_ms()
        if isinstance(found, _Failure):
            return found.text
        finding, data = found
        if finding.verdict is not Verdict.OK:
            return _told(finding)
        try:
            venue_ms = self._dialect.clock_ms(data)
        except BadReplyError as e:
            return clean(str(e))
        except Exception as e:
            # As in _judge: nothing that a venue sends may come up as another error.
            return f"answer not understood: {type(e).__name__}"
        error_ms = (got_ms - sent_ms) / 2
        if error_ms > _MOST_CLOCK_ERROR_MS:
            return f"answered after {2 * error_ms:.0f} ms, too late to tell the time"
        away_s = abs(venue_ms - self._clock.time_ms()) / 1000
        if not away_s <= self._limits.max_offset_s:
            return f"a time {away_s:.0f} s from this machine's: check its date"
        return error_ms, venue_ms - (sent_ms + got_ms) / 2

    def _venue_ms(self) -> float:
        if self._offset_ms is None:
            raise UnavailableError("the venue's time is not known yet")
        return self._monotonic_ms() + self._offset_ms

    def _monotonic_ms(self) -> float:
        return self._clock.monotonic_s() * 1000

    # --- one request ---

    async def _wait_for_budget(self, request: Request, patience_s: float | None = None) -> None:
        left_s = self._limits.patience_s if patience_s is None else patience_s
        while delay_s := self._budget.delay_s(request.costs, urgent=request.urgent):
            if delay_s > left_s:
                why = "banned by the venue" if self._budget.banned_s else "held by the rate limits"
                raise UnavailableError(f"{request}: {why}", retry_after_s=delay_s)
            left_s -= delay_s
            await self._clock.sleep(delay_s)
        if self._closed:
            raise UnavailableError(f"{request}: the client is closed")

    async def _exchange(
        self, request: Request, total_s: float | None = None
    ) -> tuple[Finding, Any] | _Failure:
        """Send a request that the budget lets go, and judge what came back."""
        prepared = self._dialect.build(request, self.stamp_ms() if request.signed else 0)
        if not (prepared.target.startswith("/") and prepared.target.isascii()):
            raise ValueError(f"{request}: the target must be an encoded path")
        self._budget.charge(request.costs)
        answer = await self._answer(request, prepared, total_s or self._limits.total_s)
        if isinstance(answer, _Failure):
            _log.debug("request=%s failed: %s", request, answer.text)
            return answer
        finding = self._judge(request, answer)
        _log.debug(
            "request=%s status=%d verdict=%s code=%s",
            request,
            answer.status,
            finding.verdict,
            finding.code,
        )
        return finding, answer.data

    async def _answer(
        self, request: Request, prepared: Prepared, total_s: float
    ) -> Answer | _Failure:
        url = URL((request.base_url or self._base_url) + prepared.target, encoded=True)
        self.under_way += 1
        try:
            async with asyncio.timeout(total_s):
                for _ in range(self._limits.max_connections):
                    try:
                        return await self._one_answer(request.method, url, prepared)
                    except _UnaskedError:
                        # Nothing was written to that connection, and it is closed now.
                        _log.warning("request=%s: connection with an answer unasked for", request)
                raise _UnaskedError
        except Exception as e:
            # Whatever it was: once a request may have left, nothing but a cancellation may hide
            # that its outcome is not known. aiohttp's errors hold the URL: none gets out of here.
            failure = _failure_of(e)
        finally:
            self.under_way -= 1
        return failure

    async def _one_answer(self, method: str, url: URL, prepared: Prepared) -> Answer:
        async with self._opened().request(
            method,
            url,
            data=prepared.body,
            headers=prepared.headers,
            allow_redirects=False,
        ) as response:
            body = await self._body(response)
            now_ms = self._clock.time_ms() if self._offset_ms is None else self._venue_ms()
            return Answer(
                status=response.status,
                headers=response.headers,
                body=body,
                data=_json(body),
                ts_ms=round(now_ms),
            )

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise _ClosedError
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._limits.max_connections, ttl_dns_cache=60
                ),
                # The deadline is our own; this bounds looking up, connecting and shaking hands.
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_s),
                request_class=_AskedRequest,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept-Encoding": "gzip", "User-Agent": "passivx"},
                # Inflated here, so that the cap does not hang on the version of aiohttp.
                auto_decompress=False,
                trust_env=False,
            )
            # Without this a GET, PUT or DELETE is silently sent twice when a connection is cut.
            self._session._retry_connection = False
        return self._session

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        most = self._limits.max_body
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise _BadBodyError("reply in an encoding that was not asked for")
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
        body = bytearray()
        n_raw = 0
        async for chunk in response.content.iter_any():
            n_raw += len(chunk)
            # One byte above the cap tells that there is more.
            body += inflater.decompress(chunk, most + 1 - len(body)) if inflater else chunk
            if len(body) > most or n_raw > most:
                response.close()
                raise _BadBodyError(f"reply larger than {most} bytes")
        if inflater is not None and n_raw and (not inflater.eof or inflater.unused_data):
            raise _BadBodyError("reply cut short")
        return bytes(body)

    def _judge(self, request: Request, answer: Answer) -> Finding:
        try:
            for name, used in self._dialect.usage(request, answer.headers):
                self._budget.observe(name, used)
            return obey(self._finding(request, answer), self._budget, status=answer.status)
        except Exception as e:
            # Headers and bodies are the venue's: what a dialect did not foresee must not hide that
            # a request left. Only the type is told, for the text may quote the answer.
            _log.error("request=%s: answer not understood: %s", request, type(e).__name__)
        finding = Finding(Verdict.UNKNOWN, Reaction.LOOK_UP, text="answer not understood")
        return obey(finding, self._budget, status=answer.status)

    def _finding(self, request: Request, answer: Answer) -> Finding:
        if 300 <= answer.status < 400:
            return Finding(Verdict.UNKNOWN, Reaction.LOOK_UP, text="redirected")
        finding = self._dialect.classify(request, answer)
        text = clean(finding.text) or f"status {answer.status}"
        verdict, reaction = finding.verdict, finding.reaction
        if verdict is Verdict.OK and (answer.data is None or not 200 <= answer.status < 300):
            verdict, reaction = Verdict.UNKNOWN, Reaction.LOOK_UP
            text = f"malformed answer with status {answer.status}"
        return replace(finding, verdict=verdict, reaction=reaction, text=text)

    def _pause_s(self, attempt: int) -> float:
        return self._rng.uniform(0.0, min(_MOST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))


class _ClosedError(Exception):
    """The client was closed meanwhile."""


class _UnaskedError(Exception):
    """A connection holds an answer before anything was asked on it."""


class _AskedRequest(aiohttp.ClientRequest):
    """A request that does not go out on a connection where an answer lies already.

    aiohttp reads on while a connection is idle, and would take what it read for the answer to the
    next request: a 408 of a proxy, or what a venue sent twice.
    """

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise _UnaskedError
        return await super().send(conn)


class _BadBodyError(Exception):
    """Why a body cannot be used, in words that may be shown."""


def _json(body: bytes) -> Any:
    """Return what a body says, None when it is not JSON (NaN and infinities are not)."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _failure_of(error: Exception) -> _Failure:
    # The first two are raised by aiohttp's connector alone, before it hands over a connection, the
    # others before a connection is written to: no byte of the request left. A timeout or a cut of
    # any other kind proves nothing.
    nothing_left = isinstance(
        error,
        aiohttp.ClientConnectorError
        | aiohttp.ConnectionTimeoutError
        | _UnaskedError
        | _ClosedError,
    )
    match error:
        case _ClosedError():
            text = "the client is closed"
        case aiohttp.ClientConnectorDNSError():
            text = "host not found"
        case aiohttp.ClientConnectorCertificateError():
            text = "the venue's certificate is not valid"
        case aiohttp.ClientConnectorSSLError():
            text = "no secure connection"
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            text = "no connection"
        case _UnaskedError():
            text = "answers that nobody asked for"
        case TimeoutError():
            text = "timed out"
        case aiohttp.ClientPayloadError() | zlib.error():
            text = "reply cut short"
        case aiohttp.ClientConnectionError():
            text = "connection cut"
        case _BadBodyError():
            text = str(error)
        case _:
            text = f"failed with {type(error).__name__}"
    return _Failure(text, nothing_left)


def _told(finding: Finding) -> str:
    return f"{finding.text} (code {finding.code})" if finding.code is not None else finding.text


# --- for dialects and order sockets ---------------------------------------------------------------


def obey(finding: Finding, budget: Budget, *, status: int = 200) -> Finding:
    """Tell the budget what an answer asks for; return the finding with the time it takes."""
    if finding.ban or status in BAN_S:
        seconds = finding.retry_after_s or BAN_S.get(status, BAN_S[403])
        budget.ban(seconds)
        _log.warning("banned by the venue: status=%d for_s=%.0f", status, seconds)
    elif finding.reaction is Reaction.BACK_OFF or status == 429:
        seconds = finding.retry_after_s or _BACK_OFF_S
        budget.back_off(seconds, finding.window, spare_urgent=finding.spare_urgent)
    else:
        return finding
    waits = finding.reaction in (Reaction.NONE, Reaction.BACK_OFF)
    reaction = Reaction.BACK_OFF if waits else finding.reaction
    return replace(finding, reaction=reaction, retry_after_s=seconds)


def clean(text: str) -> str:
    """Return a venue's text fit to be shown: short, printable, nothing like a key or signature.

    Venues quote what they could not verify; whatever is 24 characters long without a break goes.
    """
    shown = "".join(c if c.isprintable() else " " for c in text[: 8 * _MOST_TEXT])
    shown = _SECRET_LIKE.sub("…", shown).strip()
    return shown if len(shown) <= _MOST_TEXT else shown[: _MOST_TEXT - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds of ``Retry-After``, 0 when there is none that can be read."""
    value = headers.get("Retry-After", "").strip()
    if not (value.isascii() and value.isdigit()):
        return 0.0
    return min(float(value[:12]), MOST_BAN_S)
