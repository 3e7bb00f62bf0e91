"""The load spread over processes, for rates that one Python process cannot carry.

A process takes whole requests and gives whole answers back: chunks with the times at which they
came out of its sockets. On one machine all processes share the monotonic clock, so the runner's
stamps are right although it sees an answer only at its end. The price is that a request is sent
about 0.2 ms after its stamp, and that a run's progress counts whole answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from wattbench.backends.engine_messages import Inbox, packed
from wattbench.core.errors import BackendError, EngineDied
from wattbench.core.load import InferenceRequest, TokenChunk
from wattbench.core.protocols import Backend

_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class _Ask:
    ident: int
    request: InferenceRequest
    body: bytes


@dataclass(frozen=True, slots=True)
class _Drop:
    ident: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """All chunks of a request, and the error that ended it."""

    ident: int
    chunks: tuple[TokenChunk, ...]
    error: BackendError | None


class Sender(Backend, Protocol):
    """What a child sends with."""

    def hand_over(self, request: InferenceRequest, body: bytes) -> None:
        """Take the body of a request, made by the parent before it was due."""
        ...


Adopt = Callable[[], Sender]
"""Makes an open backend in a child; it can be pickled."""


class ClientProcesses:
    """Children that send requests.

    Args:
        adopt: Makes what each child sends with.
        count: How many children.
    """

    def __init__(self, adopt: Adopt, count: int) -> None:
        self._links = [_Link(adopt) for _ in range(count)]
        self._turns = itertools.cycle(self._links)

    @property
    def pids(self) -> tuple[int, ...]:
        """Ids of the children."""
        return tuple(link.pid for link in self._links)

    async def open(self) -> None:
        """Join the children to the event loop."""
        for link in self._links:
            await link.open()

    async def answer(
        self, request: InferenceRequest, body: bytes
    ) -> tuple[Sequence[TokenChunk], BackendError | None]:
        """All chunks of an answer, and the error that ended it.

        Raises:
            EngineDied: If the child is gone.
        """
        return await next(self._turns).answer(request, body)

    async def close(self) -> None:
        """End the children."""
        for link in self._links:
            await link.close()


class _Link(asyncio.Protocol):
    """One child."""

    def __init__(self, adopt: Adopt) -> None:
        self._inbox = Inbox()
        self._idents = itertools.count()
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._transport: asyncio.Transport | None = None
        self._socket, theirs = socket.socketpair()
        self._process = multiprocessing.get_context("spawn").Process(
            target=child_main, args=(theirs, adopt), daemon=True
        )
        with theirs:
            self._process.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid or 0

    async def open(self) -> None:
        """Join the event loop."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=self._socket)

    async def answer(
        self, request: InferenceRequest, body: bytes
    ) -> tuple[Sequence[TokenChunk], BackendError | None]:
        """As that of ``ClientProcesses``."""
        if self._transport is None or self._transport.is_closing():
            raise EngineDied("a process of the load generator has died")
        ident = next(self._idents)
        future = self._waiting[ident] = asyncio.get_running_loop().create_future()
        self._transport.write(packed(_Ask(ident, request, body)))
        try:
            answer = await future
        finally:
            if self._waiting.pop(ident, None) is not None and not self._transport.is_closing():
                self._transport.write(packed(_Drop(ident)))
        return answer.chunks, answer.error

    async def close(self) -> None:
        """End the child: it leaves when its stream ends."""
        if self._transport is not None:
            self._transport.close()
        await asyncio.to_thread(self._process.join, _STOP_S)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._process.close()

    def data_received(self, data: bytes) -> None:
        """Part of ``asyncio.Protocol``."""
        for answer in self._inbox.feed(data):
            future = self._waiting.pop(answer.ident, None)
            if future is not None and not future.done():
                future.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of ``asyncio.Protocol``."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(EngineDied("a process of the load generator has died"))
        self._waiting.clear()


def child_main(link: socket.socket, adopt: Adopt) -> None:
    """Send what the parent asks for until it closes the stream."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(link, adopt()))


async def _serve(link: socket.socket, backend: Sender) -> None:
    reader, writer = await asyncio.open_connection(sock=link)
    inbox = Inbox()
    tasks: dict[int, asyncio.Task[None]] = {}
    while data := await reader.read(1 << 18):
        for message in inbox.feed(data):
            if isinstance(message, _Ask):
                task = asyncio.create_task(_send(backend, message, writer))
                tasks[message.ident] = task
                task.add_done_callback(partial(_forget, tasks, message.ident))
            elif message.ident in tasks:
                tasks[message.ident].cancel()
    for task in list(tasks.values()):
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await backend.close()
    writer.close()


def _forget(tasks: dict[int, asyncio.Task[None]], ident: int, _: asyncio.Task[None]) -> None:
    tasks.pop(ident, None)


async def _send(backend: Sender, ask: _Ask, writer: asyncio.StreamWriter) -> None:
    chunks: list[TokenChunk] = []
    error: BackendError | None = None
    try:
        backend.hand_over(ask.request, ask.body)
        async for chunk in backend.generate(ask.request):
            chunks.append(chunk)  # one by one: what came before an error counts
    except BackendError as failure:
        error = failure
        error.__cause__ = error.__context__ = None  # a cause may not cross to another process
    with contextlib.suppress(ConnectionError):
        writer.write(packed(_Answer(ask.ident, tuple(chunks), error)))
