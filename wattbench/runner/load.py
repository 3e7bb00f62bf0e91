"""Load generation: users or arrivals in, stamped request results out.

The runner takes every stamp. A request is ``queued`` when the load wants to send it and ``sent``
when it has a slot; the wait between the two is part of its latency.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import numpy as np

from wattbench.core.errors import BackendError, EngineDied
from wattbench.core.load import (
    InferenceRequest,
    Message,
    Phase,
    RequestResult,
    TokenChunk,
    TokenSource,
    Usage,
)
from wattbench.core.protocols import Backend, PreparingBackend
from wattbench.core.redaction import without_credentials
from wattbench.runner.clock import RunClock
from wattbench.workload import Session, Workload

MAX_TOKENS = 10**9
"""No request has more; a server that says so is mistaken."""
WAKE_EARLY_S = 1.2e-3
"""So long before a request is due the event loop is woken [s]."""
FAILURE_PAUSE_S = 0.25
"""A user whose request failed waits before the next, so that a dead server is not hammered."""


@dataclass(slots=True)
class LiveState:
    """Counts of a run in progress, for whoever shows them; read from any thread.

    Attributes:
        phase: What the run is doing now.
        phase_started_s: Since when [s, run clock].
        completed: Requests answered.
        failed: Requests failed.
        power_watts: Sum over domains of the latest power, None before the first sample.
    """

    phase: str = "starting"
    phase_started_s: float = 0.0
    completed: int = 0
    failed: int = 0
    power_watts: float | None = None
    finished_tokens: int = 0
    open_stamps_s: dict[int, list[float]] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Chunks and tokens received so far, good enough for a progress line."""
        return self.finished_tokens + sum(map(len, list(self.open_stamps_s.values())))


@dataclass(kw_only=True)
class LoadGenerator:
    """Sends a workload's sessions to a backend until it is told to stop.

    Attributes:
        backend: The engine.
        clock: The run clock.
        workload: What to send.
        sessions: Where sessions come from.
        tokens_source: Who counts the answer tokens.
        on_result: Called with each finished request.
        live: Kept up to date for the progress display.
        slots: Limits the requests under way at once, None for no limit.
        phase: What requests sent from now on belong to.
        unsent: Requests that still waited for a slot when the load was closed.
    """

    backend: Backend
    clock: RunClock
    workload: Workload
    sessions: Iterator[Session]
    tokens_source: TokenSource
    on_result: Callable[[RequestResult], None]
    live: LiveState
    slots: asyncio.Semaphore | None = None
    phase: Phase = "warmup"
    unsent: int = 0
    _next_request: int = 0
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _prepare: Callable[[InferenceRequest], None] | None = field(init=False)

    def __post_init__(self) -> None:
        """Ask once what the backend can do."""
        able = isinstance(self.backend, PreparingBackend)
        self._prepare = self.backend.prepare if able else None  # type: ignore[attr-defined]

    @property
    def accepting(self) -> bool:
        """Whether new requests are sent."""
        return not self._closed.is_set()

    def close(self) -> None:
        """Send nothing new; who pauses or waits for a slot leaves, answers under way go on."""
        self._closed.set()

    async def closed_user(self) -> None:
        """One user of a closed loop: session after session."""
        while self.accepting:
            session = next(self.sessions)
            if not await self._play(session, self._request(session, 0, ())):
                await self._pause(FAILURE_PAUSE_S)

    async def open_arrivals(
        self, times_s: Iterator[float], coming: Iterator[Session], only: Phase | None = None
    ) -> None:
        """Start a session at each instant, whether or not earlier ones are done.

        Args:
            times_s: Instants from now on [s].
            coming: The sessions, in their order.
            only: Start none in another phase than this.
        """
        started_s = self.clock.now_s()
        async with asyncio.TaskGroup() as group:
            for time_s in times_s:
                session, due_s = next(coming), started_s + time_s
                request = self._request(session, 0, ())
                await self._until(due_s)
                if not self.accepting or self.phase != (only or self.phase):
                    return
                group.create_task(self._play(session, request, due_s))

    def _request(
        self, session: Session, turn_index: int, history: tuple[Message, ...]
    ) -> InferenceRequest:
        """A request of a session, made before it is due: that takes time with a long prompt."""
        request = session.request(
            turn_index, self._next_request, history, ignore_eos=self.workload.ignore_eos
        )
        self._next_request += 1
        if self._prepare is not None:
            self._prepare(request)
        return request

    async def _play(
        self, session: Session, request: InferenceRequest, due_s: float | None = None
    ) -> bool:
        """All turns of a session; False if one failed.

        Args:
            session: The session.
            request: Its first request.
            due_s: When that is due [s, run clock]; None for at once.
        """
        for turn_index in range(len(session.turns)):
            if not self.accepting:
                return True
            sent = await self._send_in_slot(request, due_s)
            if sent is None:
                return True
            result, answer = sent
            self.on_result(result)
            if not result.succeeded:
                return False
            said = Message(
                role="assistant",
                text=answer or None,
                tokens=0 if answer else result.output_tokens or 0,
                seed=request.seed + 1,
            )
            if turn_index + 1 < len(session.turns):
                request = self._request(session, turn_index + 1, (*request.messages, said))
                due_s = result.end_s + session.think_time_s if session.think_time_s else None
                if due_s is not None:
                    await self._until(due_s)
        return True

    async def _until(self, time_s: float) -> None:
        """Sleep until then, but no longer than the load is open.

        An event loop wakes up to a millisecond late, so it is woken before and turns until then.
        """
        if self.clock.virtual:
            await self._pause(time_s - self.clock.now_s())
            return
        await self._pause(time_s - WAKE_EARLY_S - self.clock.now_s())
        while self.accepting and self.clock.now_s() < time_s:
            await asyncio.sleep(0)

    async def _pause(self, duration_s: float) -> None:
        """Sleep, but no longer than the load is open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, duration_s)):
                await self._closed.wait()

    async def _send_in_slot(
        self, request: InferenceRequest, due_s: float | None
    ) -> tuple[RequestResult, str] | None:
        """Send a request once it has a slot; None if the load was closed before it had one.

        One that is due counts as queued from then on: if the client is late, so is its answer.
        """
        queued_s = self.clock.now_s() if due_s is None else due_s
        if self.slots is None:
            return await self._send(request, queued_s)
        async with self.slots:
            if self.accepting:
                return await self._send(request, queued_s)
        self.unsent += 1
        return None

    async def _send(self, request: InferenceRequest, queued_s: float) -> tuple[RequestResult, str]:
        """Send one request and stamp what comes back."""
        answer = _Answer(self.clock)
        phase = self.phase
        self.live.open_stamps_s[request.index] = answer.stamps
        sent_s = self.clock.now_s()
        error: BaseException | None = None
        try:
            async with asyncio.timeout(self.workload.request_timeout_s):
                await answer.receive(self.backend.generate(request))
        except BackendError as failure:
            error = failure
        except TimeoutError:
            limit_s = self.workload.request_timeout_s
            error = TimeoutError(f"no whole answer after {limit_s:g} s (request_timeout_s)")
        finally:
            del self.live.open_stamps_s[request.index]
        self.live.finished_tokens += len(answer.stamps)
        result = answer.result(request, phase, queued_s, sent_s, self.tokens_source, error)
        self.live.completed += result.succeeded
        self.live.failed += not result.succeeded
        if isinstance(error, EngineDied):
            self.on_result(result)
            raise error
        return result, "".join(answer.texts)


class _Answer:
    """Chunks of one request as they come in, with their stamps."""

    __slots__ = ("_clock", "counts", "stamps", "texts", "usage", "usage_at")

    def __init__(self, clock: RunClock) -> None:
        self._clock = clock
        self.stamps: list[float] = []
        self.counts: list[int | None] = []
        self.texts: list[str] = []
        self.usage: Usage | None = None
        self.usage_at: float | None = None

    async def receive(self, chunks: AsyncIterator[TokenChunk]) -> None:
        """Stamp every chunk; one without a token (an opening role, a closing count) has none."""
        loop_time, stamps, counts = self._clock.loop_time, self.stamps, self.counts
        async with aclosing(chunks):  # type: ignore[type-var]
            async for chunk in chunks:
                tokens, arrived_s = chunk.tokens, chunk.arrived_s
                if tokens != 0:
                    stamps.append(loop_time() if arrived_s is None else arrived_s)
                    counts.append(tokens)
                if chunk.text:
                    self.texts.append(chunk.text)
                if chunk.usage is not None:
                    # The end of the answer; the connection may take longer to wind up.
                    self.usage = chunk.usage
                    self.usage_at = loop_time() if arrived_s is None else arrived_s

    def result(
        self,
        request: InferenceRequest,
        phase: Phase,
        queued_s: float,
        sent_s: float,
        tokens_source: TokenSource,
        error: BaseException | None,
    ) -> RequestResult:
        """The record of the request, at its end or its failure."""
        chunk_tokens = np.array(self.counts, dtype=np.float64)
        usage = self.usage or Usage(input_tokens=None, output_tokens=None)
        end_s = self._clock.now_s()
        if error is None and self.usage_at is not None:
            end_s = self.usage_at - self._clock.origin_s
        output_tokens = _believable(usage.output_tokens, answered=len(chunk_tokens) > 0)
        if output_tokens is None and len(chunk_tokens) and not np.isnan(chunk_tokens).any():
            output_tokens = int(chunk_tokens.sum())
        return RequestResult(
            request=request,
            phase=phase,
            queued_s=queued_s,
            sent_s=sent_s,
            end_s=end_s,
            chunk_s=np.array(self.stamps, dtype=np.float64) - self._clock.origin_s,
            chunk_tokens=chunk_tokens,
            input_tokens=_believable(usage.input_tokens, answered=True),
            output_tokens=output_tokens,
            cached_tokens=_believable(usage.cached_tokens, answered=False),
            reasoning_tokens=_believable(usage.reasoning_tokens, answered=False),
            tokens_source=tokens_source if output_tokens is not None else None,
            output_bytes=sum(len(text.encode()) for text in self.texts) if self.texts else None,
            finish_reason=usage.finish_reason,
            error_class=_error_class(error),
            error_text=_error_text(error),
        )


def _error_class(error: BaseException | None) -> str | None:
    if error is None:
        return None
    return "RequestTimeout" if isinstance(error, TimeoutError) else type(error).__name__


def _error_text(error: BaseException | None) -> str | None:
    """What it says; servers repeat the key that they were sent."""
    if error is None:
        return None
    return without_credentials(str(error)) or type(error).__name__


def _believable(count: int | None, *, answered: bool) -> int | None:
    """A server's count, unless it cannot be one: negative, absurd, or 0 for an answer with text."""
    if count is None or not 0 <= count <= MAX_TOKENS or (answered and count == 0):
        return None
    return count
