"""The parent's side of the engine's process: starting, talking, and noticing its death."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from wattbench.backends.engine_child import Engine, child_main
from wattbench.backends.engine_messages import (
    Cancel,
    Close,
    Ended,
    Failed,
    Inbox,
    Part,
    Piece,
    Ready,
    Step,
    Submit,
    packed,
)
from wattbench.core.errors import BackendError, DeviceMissing

_GRACE_S = 5.0
_TAIL_BYTES = 4096
_TAIL_LINES = 3


@dataclass(frozen=True, slots=True)
class Died:
    """What a request hears when the process is gone; ``text`` says how it went."""

    text: str


Answers = asyncio.Queue[Piece | Ended | Died]
"""What one request gets: pieces, then an end."""


class EngineProcess(asyncio.Protocol):
    """One child with an engine, joined to the event loop by a stream that never blocks it.

    Args:
        load: Loads the engine in the child, from the settings and its log; a function of a module.
        settings: What the child loads.
    """

    def __init__(self, load: Callable[[Any, int], Engine], settings: object) -> None:
        self._inbox = Inbox()
        self._idents = itertools.count()
        self._answers: dict[int, Answers] = {}
        self._transport: asyncio.Transport | None = None
        self._reaper: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._death: Died | None = None
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._log, log_path = tempfile.mkstemp(prefix="wattbench-engine-", suffix=".log")
        self._log_path = Path(log_path)
        self._link, theirs = socket.socketpair()
        # The child dies with a parent that leaves without closing, instead of keeping it alive.
        self._process = multiprocessing.get_context("spawn").Process(
            target=child_main, args=(theirs, log_path, load, settings), daemon=True
        )
        # Only when the child has the last copy of its end does its death end the stream.
        with theirs, _interrupts_held():
            self._process.start()

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._process.pid is not None
        return self._process.pid

    async def ready(self) -> Ready:
        """Wait for the engine to be loaded.

        Raises:
            BackendError: If it cannot be loaded, with the engine's reason.
        """
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, sock=self._link)
        return await self._ready

    def submit(
        self, parts: tuple[Part, ...], max_output_tokens: int, ignore_eos: bool
    ) -> tuple[int, Answers]:
        """Send a request; returns its number and where its answer will arrive."""
        ident, answers = next(self._idents), Answers()
        self._answers[ident] = answers
        if self._death is not None:
            answers.put_nowait(self._death)
        self._send(Submit(ident, parts, max_output_tokens, ignore_eos))
        return ident, answers

    def release(self, ident: int) -> None:
        """Drop a request; one that has not ended is cancelled in the engine."""
        if self._answers.pop(ident, None) is not None:
            self._send(Cancel(ident))

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """End the child: ask, wait, kill; then release everything.

        Args:
            grace_s: How long the child may take to leave by itself [s].
        """
        if self._transport is None:
            self._process.kill()
            self._link.close()
            self._note_death("was stopped while it started")
        self._send(Close())
        try:
            async with asyncio.timeout(grace_s):
                await self._gone.wait()
        except TimeoutError:
            self._process.kill()
            await self._gone.wait()
        if self._transport is not None:
            self._transport.close()
        await asyncio.to_thread(self._process.join)
        self._process.close()
        os.close(self._log)
        self._log_path.unlink(missing_ok=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of ``asyncio.Protocol``: hand what the child tells to those who wait for it."""
        for message in self._inbox.feed(data):
            if isinstance(message, Step):
                self._deliver(message)
            elif self._ready.done():
                continue
            elif isinstance(message, Failed):
                failure = DeviceMissing if message.no_device else BackendError
                self._ready.set_exception(failure(message.reason))
            else:
                self._ready.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of ``asyncio.Protocol``: the child closed its end, most likely by dying."""
        if self._death is None:
            self._reaper = asyncio.get_running_loop().create_task(self._reap())

    def _deliver(self, step: Step) -> None:
        """A request that was dropped in the meantime has no queue any more."""
        for ident, piece in step.pieces.items():
            if ident in self._answers:
                self._answers[ident].put_nowait(piece)
        for ident, ended in step.ended.items():
            if ident in self._answers:
                self._answers.pop(ident).put_nowait(ended)

    def _send(self, message: object) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packed(message))

    async def _reap(self) -> None:
        await asyncio.to_thread(self._process.join, _GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        self._note_death(f"{_ending(self._process.exitcode)}{self._tail()}")

    def _note_death(self, how: str) -> None:
        self._death = Died(how)
        if not self._ready.done():
            advice = "the model's files may be damaged: fetch or convert them again"
            self._ready.set_exception(BackendError(f"its process {how}; {advice}"))
            self._ready.exception()  # if nobody waits for it, that is no news
        for answers in self._answers.values():
            answers.put_nowait(self._death)
        self._answers.clear()
        self._gone.set()

    def _tail(self) -> str:
        """The last lines that the engine printed, for the end of a sentence."""
        start = max(0, os.fstat(self._log).st_size - _TAIL_BYTES)
        printed = os.pread(self._log, _TAIL_BYTES, start).decode(errors="replace")
        lines = [line.strip() for line in printed.splitlines() if line.strip()]
        return f"; its last words: {' | '.join(lines[-_TAIL_LINES:])}" if lines else ""


def _ending(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (as the system does when memory runs out)" if -exitcode == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keep Ctrl-C for later: a child starts with it held too, until it can ignore it."""
    # Its first start would let the signal through again in the middle.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
