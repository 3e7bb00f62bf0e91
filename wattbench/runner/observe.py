"""Watches an engine that tells how busy it is, once a second on the run clock."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from wattbench.core.protocols import Backend, ObservableBackend, RecordSink
from wattbench.core.run import Event
from wattbench.runner.clock import RunClock

OBSERVE_PERIOD_S = 1.0


@asynccontextmanager
async def observing(
    backend: Backend, clock: RunClock, sink: RecordSink, run_id: str
) -> AsyncIterator[None]:
    """Keep each state as an event ``server_state``; an engine that tells none costs one look."""
    if not isinstance(backend, ObservableBackend):
        yield
        return
    task = asyncio.create_task(_observe(backend, clock, sink, run_id))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _observe(
    backend: ObservableBackend, clock: RunClock, sink: RecordSink, run_id: str
) -> None:
    if await backend.state() is None:
        return
    while True:
        await asyncio.sleep(OBSERVE_PERIOD_S)
        asked_s = clock.now_s()
        state = await backend.state()
        if state is not None:
            # The server looked somewhere between question and answer.
            time_s = (asked_s + clock.now_s()) / 2
            detail = dataclasses.asdict(state)
            sink.event(run_id, Event(kind="server_state", time_s=time_s, detail=detail))
