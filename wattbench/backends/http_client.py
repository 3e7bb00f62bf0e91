"""A lean HTTP/1.1 client for many streams at once: httptools parses, asyncio carries.

One request at a time on a connection; idle connections are taken up again, the latest first. No
redirect is followed, no cookie kept (a balancer's would send every request to one replica), no
proxy asked, no compression (it would gather many small chunks into a few large ones). Nothing is
tried twice, but for a request on a connection that the server was closing already. A general
client spends more time on each chunk than this whole path does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import SplitResult

import httptools

READ_BUFFER_BYTES = 4 * 2**20
"""Unread bytes of one answer; beyond them the server is held up. Chunks have a few hundred."""

KEEP_ALIVE_S = 4.0  # below the 5 s after which common servers drop an idle connection
_LATER_S = 0.004  # longer than a hundred streams in step take to bring a chunk each
_END = b"[DONE]"  # by which a stream of the OpenAI API ends: whoever waits for it hears at once
_LOOK_S = 1.0  # how often silence is looked for


class BrokenAnswer(Exception):
    """An answer ended before its end, or is no HTTP."""


class NoConnection(Exception):
    """Nobody accepts a connection in time."""


class HttpClient:
    """Requests to one host.

    Args:
        url: Parts of any URL of the host.
        tls: How to check its certificate; None for plain HTTP.
        connect_s: Longest time until a connection stands [s].
        silence_s: Longest time without a byte of an answer [s].
    """

    def __init__(
        self, url: SplitResult, tls: ssl.SSLContext | None, *, connect_s: float, silence_s: float
    ) -> None:
        self._host = url.hostname or ""
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._tls = tls
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._later = _Later()
        self._fixed_head = (
            f" HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: wattbench\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\n"
        )

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Connection:
        """Send a request and wait for the status and headers of its answer.

        Args:
            method: Such as ``POST``.
            target: Path and query.
            headers: Beside those that every request has.
            body: JSON, None for a request without one.

        Returns:
            The connection, with the answer on it; ``release`` it in any case.

        Raises:
            NoConnection: If none stands within ``connect_s``.
            TimeoutError: If nothing comes for ``silence_s``.
            ConnectionResetError: If the connection is lost before the answer begins.
            BrokenAnswer: If what comes is no HTTP.
            OSError: If there is no way to the host, or its certificate is not accepted.
        """
        head = method + " " + target + self._fixed_head
        for name, value in headers.items():
            head += f"{name}: {value}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        if self._watch is None:
            self._look_for_silence()
        request = head.encode("latin-1") + b"\r\n" + (body or b"")
        while (connection := self._take_idle()) is not None:
            # Some servers close a connection that they said they would keep: what was written to
            # it then was never read.
            with contextlib.suppress(ConnectionResetError):
                return await connection.exchange(request)
        return await (await self._connect()).exchange(request)

    async def fetch(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        limit_bytes: int = READ_BUFFER_BYTES,
    ) -> tuple[int, str]:
        """Status and body of an answer; errors as those of ``send`` and ``Connection.read``."""
        connection = await self.send(method, target, headers, body)
        try:
            return connection.status, await connection.read_all(limit_bytes)
        finally:
            connection.release()

    async def close(self) -> None:
        """Close every connection."""
        if self._watch is not None:
            self._watch.cancel()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)  # transports tell the loop in its next round

    def _take_idle(self) -> Connection | None:
        oldest_s = time.monotonic() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since_s > oldest_s:
                return connection
            connection.abort()
        return None

    def _look_for_silence(self) -> None:
        """Wake who has waited too long; one timer for all, since each chunk would need its own."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection in self._all:
            connection.expire(now_s - self._silence_s)
        period_s = min(_LOOK_S, self._silence_s / 4)
        self._watch = loop.call_later(period_s, self._look_for_silence)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._idle, self._all, self._later),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as error:
            raise NoConnection from error
        return connection


class _Later:
    """Wakes readers a little later, all at once.

    When many streams bring a chunk in the same moment, each is stamped as it comes, and what it
    says is looked at once all are in: handling one first would delay the stamps of the others.
    """

    def __init__(self) -> None:
        self._connections: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Wake the reader of a connection soon."""
        if not self._connections:
            asyncio.get_running_loop().call_later(_LATER_S, self._wake_all)
        self._connections.append(connection)

    def _wake_all(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.wake()


class Connection(asyncio.Protocol):
    """One connection, and the answer that is on it.

    Attributes:
        status: HTTP status of the answer.
        headers: Its headers, names in lower case.
        complete: Whether the whole answer is here.
        arrived_s: When the bytes that ``read`` gave last came out of the socket [s, loop clock].
        idle_since_s: When it was put aside [s, monotonic clock].
    """

    def __init__(self, idle: list[Connection], connections: set[Connection], later: _Later) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.arrived_s = 0.0
        self.idle_since_s = 0.0
        self._idle = idle
        self._connections = connections
        self._later = later
        self._wakes_later = False
        self._heard_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._loop_time = asyncio.get_running_loop().time
        self._received_s = 0.0
        self._body: deque[tuple[float, bytes]] = deque()
        self._body_bytes = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None
        self._ends_by_closing = False
        self._busy = False
        self._headers_here = False
        self._began = False
        self._keeps_alive = False

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._lost is None

    async def exchange(self, request: bytes) -> Connection:
        """Send a request; returns itself when the headers of the answer are here.

        Raises:
            ConnectionResetError: If the connection is lost before.
            BrokenAnswer: If what comes is no HTTP.
            TimeoutError: If nothing comes.
        """
        self.status, self.headers, self.complete = 0, {}, False
        self._headers_here, self._began, self._busy = False, False, True
        try:
            if self._transport is not None:
                self._transport.write(request)
            while not self._headers_here:
                if isinstance(self._lost, BrokenAnswer):
                    raise self._lost
                if self._lost is not None:
                    raise ConnectionResetError("the server closed the connection") from self._lost
                await self._wait()
        except BaseException:
            self.release()
            raise
        self._began = True
        return self

    async def read(self) -> bytes:
        """The next piece of the body; empty at its end.

        Raises:
            TimeoutError: If nothing comes for ``silence_s``.
            BrokenAnswer: If the connection is lost, or the answer is malformed.
        """
        while not self._body:
            if self.complete:
                return b""
            if self._lost is not None:
                raise BrokenAnswer(str(self._lost) or "the server closed the connection")
            await self._wait()
        self.arrived_s, data = self._body.popleft()
        self._body_bytes -= len(data)
        if (
            self._paused
            and self._body_bytes < READ_BUFFER_BYTES // 2
            and self._transport is not None
        ):
            self._paused = False
            self._transport.resume_reading()
        return data

    async def read_all(self, limit_bytes: int) -> str:
        """At most so much of the body; a server may send without end."""
        body = bytearray()
        while len(body) < limit_bytes and (data := await self.read()):
            body += data
        return body[:limit_bytes].decode("utf-8", "replace")

    async def drain(self, longest_s: float) -> None:
        """Read what comes after the answer proper: only then does the connection serve again."""
        if self.complete:
            return
        with contextlib.suppress(TimeoutError, BrokenAnswer):
            async with asyncio.timeout(longest_s):
                while await self.read():
                    pass

    def release(self) -> None:
        """Done with the answer: keep the connection if it is whole, else cut it.

        A cut is how the server hears that nobody reads on.
        """
        if not self._busy:
            return
        self._busy = False
        self._body.clear()
        self._body_bytes = 0
        if self.complete and self.usable and self._keeps_alive:
            self._parser = httptools.HttpResponseParser(self)
            self.idle_since_s = time.monotonic()
            self._idle.append(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        """Until something happens on the connection."""
        self._heard_s = self._loop_time()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def expire(self, since_s: float) -> None:
        """End a wait that has heard nothing since then [s, loop clock]."""
        if self._waiter is not None and not self._waiter.done() and self._heard_s < since_s:
            self._waiter.set_exception(TimeoutError())

    def wake(self) -> None:
        """Let the reader look at what is here."""
        self._wakes_later = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Part of ``asyncio.Protocol``."""
        if not self._busy:
            self.abort()  # a server that speaks unasked: what it says belongs to no request
            return
        self._received_s = self._heard_s = self._loop_time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lost = BrokenAnswer(f"no HTTP: {error}")
            self.abort()
        if self._body_bytes > READ_BUFFER_BYTES and not self._paused:
            assert self._transport is not None
            self._paused = True
            self._transport.pause_reading()
        if self._only_a_piece and _END not in data:
            if not self._wakes_later:
                self._wakes_later = True
                self._later.add(self)
        else:
            self.wake()

    @property
    def _only_a_piece(self) -> bool:
        """Whether what came is a part of a body whose beginning was seen already."""
        return self._began and not self.complete and self._lost is None and not self._paused

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of ``asyncio.Protocol``."""
        self._connections.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._headers_here and self._ends_by_closing and exc is None:
            self.complete = True
        if self._lost is None:
            self._lost = exc or ConnectionResetError("the server closed the connection")
        self.wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of ``httptools``."""
        self.headers[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        """Part of ``httptools``; a status of 1xx only announces another answer."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = {}
            return
        self.status, self._headers_here = status, True
        self._ends_by_closing = not {"content-length", "transfer-encoding"} & set(self.headers)

    def on_body(self, body: bytes) -> None:
        """Part of ``httptools``."""
        self._body.append((self._received_s, body))
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Part of ``httptools``."""
        if self._headers_here:
            self.complete = True
            self._keeps_alive = self._parser.should_keep_alive()
