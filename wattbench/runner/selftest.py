"""The client measured by itself: how fast it is, how late it stamps, how late it sends.

    speed     as many requests as the client makes of a server that answers at once
    stamps    chunks that come one by one: arrival as stamped, minus when they were written
    schedule  requests due at half the speed that was found: sent, minus due; early ones count

Written and stamped on one monotonic clock (one machine), by two processes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wattbench.core.errors import BackendError
from wattbench.core.load import RequestResult
from wattbench.core.protocols import Backend
from wattbench.core.run import Json
from wattbench.runner.clock import RunClock
from wattbench.runner.load import LiveState, LoadGenerator
from wattbench.workload import Workload, sessions

USERS = 32
STREAM_CHUNKS = 64
SHORT_CHUNKS = 1
SETTLE_S = 0.05


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
    """Measure the client, by the load generator that runs have.

    Args:
        at_once: A backend on a server that answers without waiting.
        paced: The same on one that lets time pass between chunks.
        duration_s: How long each of the four parts takes [s].

    Raises:
        BackendError: If the server does not answer.
    """
    cpu_s, begin_s = time.process_time(), time.monotonic()
    requests = len(await _closed(at_once, SHORT_CHUNKS, duration_s)) / duration_s
    streams = await _closed(at_once, STREAM_CHUNKS, duration_s)
    cores = (time.process_time() - cpu_s) / (time.monotonic() - begin_s)
    late_s = await _stamps(paced, duration_s)
    lags_s = await _scheduled(at_once, requests / 2, duration_s)
    return SelfTest(
        requests_per_s=requests,
        chunks_per_s=sum(len(each.chunk_s) for each in streams) / duration_s,
        client_cpu_fraction=cores,
        stamp_error_p50_s=float(np.quantile(late_s, 0.5)),
        stamp_error_p99_s=float(np.quantile(late_s, 0.99)),
        schedule_lag_p50_s=float(np.quantile(lags_s, 0.5)),
        schedule_lag_p99_s=float(np.quantile(lags_s, 0.99)),
    )


def _load(
    backend: Backend, chunks: int, on_result: Callable[[RequestResult], None], rate_per_s: float = 1
) -> LoadGenerator:
    """The load generator of runs, with short prompts."""
    workload = Workload.model_validate(
        {
            "name": "selftest",
            "about": "Short prompts and answers of a fixed length.",
            "session": {"input_tokens": 16, "output_tokens": chunks},
            "arrivals": {"kind": "constant", "rate_per_s": [rate_per_s]},
            "measure": {"duration_s": 1.0},
        }
    )
    return LoadGenerator(
        backend=backend,
        clock=RunClock(asyncio.get_running_loop(), virtual=False),
        workload=workload,
        sessions=sessions(workload, seed=0),
        tokens_source="usage",
        on_result=on_result,
        live=LiveState(),
    )


async def _closed(backend: Backend, chunks: int, duration_s: float) -> list[RequestResult]:
    """Answers to users that ask again as soon as they have one."""
    results: list[RequestResult] = []
    load = _load(backend, chunks, results.append)
    asyncio.get_running_loop().call_later(duration_s, load.close)
    await asyncio.gather(*(load.closed_user() for _ in range(USERS)))
    failed = next((each for each in results if not each.succeeded), None)
    if failed is not None:
        raise BackendError(f"the server for the self test failed: {failed.error_text}")
    return results


async def _stamps(backend: Backend, duration_s: float) -> list[float]:
    """How late each chunk of paced streams is stamped [s]."""
    late_s: list[float] = []
    end_s = time.monotonic() + duration_s

    coming = _load(backend, STREAM_CHUNKS, lambda _: None).sessions
    requests = (next(coming).request(0, index, (), ignore_eos=True) for index in itertools.count())

    async def user() -> None:
        while time.monotonic() < end_s:
            request = next(requests)
            async for chunk in backend.generate(request):
                if chunk.text and chunk.arrived_s is not None:
                    late_s.append(chunk.arrived_s - float(chunk.text.split()[-1]))

    await asyncio.gather(*(user() for _ in range(USERS)))
    if not late_s:
        raise BackendError("the server for the self test sent no chunk")
    return late_s


async def _scheduled(backend: Backend, rate_per_s: float, duration_s: float) -> list[float]:
    """|sent − due| of requests that are due at a steady rate [s]; early ones count."""
    lags_s: list[float] = []

    def note(result: RequestResult) -> None:
        lags_s.append(abs(result.sent_s - result.queued_s))

    load = _load(backend, SHORT_CHUNKS, note, rate_per_s)
    count = max(10, math.ceil(rate_per_s * duration_s))
    times_s = (SETTLE_S + number / rate_per_s for number in range(count))
    await load.open_arrivals(times_s, load.sessions)
    return lags_s
