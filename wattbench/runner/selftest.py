"""The client measured by itself: how fast it is, how late it stamps, how late it sends.

    speed     as many requests as the client makes of a server that answers at once
    stamps    chunks that come one by one: arrival as stamped, minus when they were written
    schedule  requests due at half the speed that was found: sent, minus due; early ones count

Written and stamped on one monotonic clock (one machine), by two processes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import numpy as np

from wattbench.core.errors import BackendError
from wattbench.core.load import InferenceRequest, Message, TokenChunk
from wattbench.core.protocols import Backend
from wattbench.core.run import Json

USERS = 32
STREAM_CHUNKS = 64
SHORT_CHUNKS = 1
Make = Callable[[str], Backend]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What the client can do on this machine.

    Attributes:
        requests_per_s: Requests of one chunk, one after the other by 32 users [1/s].
        chunks_per_s: Chunks of streams of 64 [1/s].
        client_cpu_fraction: Processor time of the client over time; 1 is one processor.
        stamp_error_p50_s: Median lateness of a stamp [s].
        stamp_error_p99_s: 99 % of stamps are at most this late [s].
        schedule_lag_p50_s: Median of |sent − due| at half of the capacity [s].
        schedule_lag_p99_s: 99 % of it [s].
    """

    requests_per_s: float
    chunks_per_s: float
    client_cpu_fraction: float
    stamp_error_p50_s: float
    stamp_error_p99_s: float
    schedule_lag_p50_s: float
    schedule_lag_p99_s: float

    def stored(self) -> dict[str, Json]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


async def self_test(at_once: Backend, paced: Backend, duration_s: float) -> SelfTest:
    """Measure the client.

    Args:
        at_once: A backend on a server that answers without waiting.
        paced: The same on one that lets time pass between chunks.
        duration_s: How long each of the four parts takes [s].

    Raises:
        BackendError: If the server does not answer.
    """
    cpu_s, begin_s = time.process_time(), time.monotonic()
    requests, _ = await _closed(at_once, SHORT_CHUNKS, duration_s)
    _, chunks = await _closed(at_once, STREAM_CHUNKS, duration_s)
    cores = (time.process_time() - cpu_s) / (time.monotonic() - begin_s)
    late_s = await _stamps(paced, duration_s)
    lags_s = await _scheduled(at_once, requests / 2, duration_s)
    return SelfTest(
        requests_per_s=requests,
        chunks_per_s=chunks,
        client_cpu_fraction=cores,
        stamp_error_p50_s=float(np.quantile(late_s, 0.5)),
        stamp_error_p99_s=float(np.quantile(late_s, 0.99)),
        schedule_lag_p50_s=float(np.quantile(lags_s, 0.5)),
        schedule_lag_p99_s=float(np.quantile(lags_s, 0.99)),
    )


def _request(index: int, chunks: int) -> InferenceRequest:
    return InferenceRequest(
        index=index,
        session_index=index,
        turn_index=0,
        messages=(Message(role="user", tokens=16, seed=index),),
        max_output_tokens=chunks,
    )


def _chunks(backend: Backend, index: int, chunks: int) -> AsyncIterator[TokenChunk]:
    return backend.generate(_request(index, chunks))


async def _closed(backend: Backend, chunks: int, duration_s: float) -> tuple[float, float]:
    """Requests/s and chunks/s of users that ask again as soon as they have their answer."""
    counts = [0, 0]
    end_s = time.monotonic() + duration_s

    async def user(number: int) -> None:
        while time.monotonic() < end_s:
            async for chunk in _chunks(backend, number, chunks):
                counts[1] += chunk.text is not None
            counts[0] += 1

    begin_s = time.monotonic()
    await asyncio.gather(*(user(number) for number in range(USERS)))
    elapsed_s = time.monotonic() - begin_s
    return counts[0] / elapsed_s, counts[1] / elapsed_s


async def _stamps(backend: Backend, duration_s: float) -> list[float]:
    """How late each chunk of paced streams is stamped [s]."""
    late_s: list[float] = []
    end_s = time.monotonic() + duration_s

    async def user(number: int) -> None:
        while time.monotonic() < end_s:
            async for chunk in _chunks(backend, number, STREAM_CHUNKS):
                now_s = time.monotonic()
                if chunk.text:
                    late_s.append(now_s - float(chunk.text.split()[-1]))

    await asyncio.gather(*(user(number) for number in range(USERS)))
    if not late_s:
        raise BackendError("the server for the self test sent no chunk")
    return late_s


async def _scheduled(backend: Backend, rate_per_s: float, duration_s: float) -> list[float]:
    """|sent − due| of requests that are due at a steady rate [s]."""
    lags_s: list[float] = []
    count = max(10, math.ceil(rate_per_s * duration_s))
    begin_s = time.monotonic() + 0.05

    async def send(number: int) -> None:
        async for _ in _chunks(backend, number, SHORT_CHUNKS):
            pass

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due_s = begin_s + number / rate_per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            lags_s.append(abs(time.monotonic() - due_s))
            group.create_task(send(number))
    return lags_s
