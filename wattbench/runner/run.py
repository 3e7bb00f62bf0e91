"""One run: idle, warm-up, measured phase, drain; everything recorded while it happens."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import psutil

from wattbench.core.errors import BackendError, WattbenchError
from wattbench.core.load import Phase, RequestResult
from wattbench.core.protocols import Backend, Meter, RecordSink
from wattbench.core.run import Event, Json, RunRecord
from wattbench.runner.clock import RunClock
from wattbench.runner.load import LiveState, LoadGenerator
from wattbench.runner.metering import metering
from wattbench.runner.observe import observing
from wattbench.workload import (
    ClosedLoop,
    Schedule,
    Workload,
    arrival_times_s,
    schedule_times_s,
    scheduled_sessions,
    sessions,
)

RANDOM_PHASE_S = 0.2
"""Each run begins later by a random part of this [s]: two periods of the common sensors."""
LAG_PERIOD_S = 0.02
"""How often the event loop's lateness is sampled [s]."""
SWITCH_S = 2e-4
"""How long another thread may keep the event loop waiting [s]."""
MIN_FAILURES = 5
"""A run in which this many requests failed and none succeeded is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run to be carried out.

    Attributes:
        record: What to store about it; its start time is set when it starts.
        workload: The workload, validated.
        concurrency: Users of a closed loop, or slots of an open one (None: no limit).
        rate_per_s: Arrivals by the clock, the mean of a schedule [sessions/s]; None for a closed
            loop.
        deep_idle: What ``wattbench.runner.deep_idle`` found before the engine opened, None if
            it was not asked for.
        calibration: A calibration that is to travel with the run, None if there is none.
    """

    record: RunRecord
    workload: Workload
    concurrency: int | None
    rate_per_s: float | None = None
    deep_idle: Mapping[str, Json] | None = None
    calibration: Mapping[str, Json] | None = None


class _Run:
    """State of one run while it is carried out."""

    def __init__(
        self, plan: RunPlan, backend: Backend, sink: RecordSink, clock: RunClock, live: LiveState
    ) -> None:
        self.plan = plan
        self.backend = backend
        self.sink = sink
        self.clock = clock
        self.live = live
        self.run_id = plan.record.run_id
        self._first_error: str | None = None
        self._done = asyncio.Event()
        self._measured = 0
        open_loop = plan.rate_per_s is not None and plan.concurrency is not None
        self._load = LoadGenerator(
            backend=backend,
            clock=clock,
            workload=plan.workload,
            sessions=sessions(plan.workload, plan.record.seed),
            tokens_source=plan.record.engine.tokens_source,
            on_result=self._on_result,
            live=live,
            slots=asyncio.Semaphore(plan.concurrency or 1) if open_loop else None,
        )

    def event(self, kind: str, **detail: Json) -> None:
        self.live.phase, self.live.phase_started_s = kind, self.clock.now_s()
        self.sink.event(self.run_id, Event(kind=kind, time_s=self.clock.now_s(), detail=detail))

    def _on_result(self, result: RequestResult) -> None:
        self.sink.request(self.run_id, result)
        self._measured += result.phase == "measured"
        if not result.succeeded and self._first_error is None:
            self._first_error = result.error_text
        if self.live.failed >= MIN_FAILURES and not self.live.completed:
            self._load.close()
            raise BackendError(
                f"the first {self.live.failed} requests failed and none succeeded; the first "
                f"said: {self._first_error}"
            )
        limit = self.plan.workload.measure.requests
        if limit is not None and self._measured >= limit:
            self._done.set()

    async def carry_out(self) -> None:
        """Idle, warm-up, measured phase, drain."""
        workload = self.plan.workload
        # A sensor that looks at part of each period must not meet every repeat at the same phase.
        phase = np.random.default_rng((self.plan.record.seed, 0x9A)).random()
        await asyncio.sleep(phase * RANDOM_PHASE_S)
        if workload.idle_s:
            self.event("idle_start")
            await asyncio.sleep(workload.idle_s)
            self.event("idle_end")
        self.event("warmup_start")
        async with asyncio.TaskGroup() as group:
            self._start_load(group)
            await self._warm_up()
            self._load.phase = "measured"
            self.event("measure_start")
            limit_s = self._start_schedule(group)
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._done.wait()
            self._load.close()
            self.event("measure_end")
        self.event("drain_end", unsent=self._load.unsent)

    def _start_load(self, group: asyncio.TaskGroup) -> None:
        arrivals = self.plan.workload.arrivals
        if isinstance(arrivals, ClosedLoop):
            for _ in range(self.plan.concurrency or 1):
                group.create_task(self._load.closed_user())
            return
        assert self.plan.rate_per_s is not None
        times_s = arrival_times_s(arrivals, self.plan.rate_per_s, self.plan.record.seed)
        only: Phase | None = "warmup" if isinstance(arrivals, Schedule) else None
        group.create_task(self._load.open_arrivals(times_s, self._load.sessions, only))

    def _start_schedule(self, group: asyncio.TaskGroup) -> float | None:
        """Start what begins with the measured phase; the longest time that phase may last [s]."""
        workload, seed = self.plan.workload, self.plan.record.seed
        arrivals, measure_s = workload.arrivals, workload.measure.duration_s
        if not isinstance(arrivals, Schedule):
            return measure_s
        times_s = schedule_times_s(arrivals, measure_s, seed)
        coming = scheduled_sessions(workload, seed)
        group.create_task(self._load.open_arrivals(times_s, coming))
        duration_s = arrivals.duration_s(measure_s)
        return duration_s if measure_s is None else min(measure_s, duration_s)

    async def _warm_up(self) -> None:
        warmup, started_s = self.plan.workload.warmup, self.clock.now_s()
        wanted = warmup.requests_per_user * (self.plan.concurrency or 1)
        while (
            self.live.completed + self.live.failed < wanted
            or self.clock.now_s() - started_s < warmup.duration_s
        ):
            await asyncio.sleep(LAG_PERIOD_S)


async def execute(
    plan: RunPlan,
    backend: Backend,
    meters: Sequence[Meter],
    sink: RecordSink,
    live: LiveState,
    *,
    virtual: bool,
) -> None:
    """Carry out one run and store it.

    Args:
        plan: What to run.
        backend: An opened engine.
        meters: Meters, not started.
        sink: Where everything is written while it happens.
        live: Kept up to date for a progress display.
        virtual: Whether the running loop's time is simulated.

    Raises:
        WattbenchError: If the run cannot go on; what was recorded stays, marked ``failed``.
        asyncio.CancelledError: If it was interrupted; what was recorded stays, so marked.
    """
    clock = RunClock(asyncio.get_running_loop(), virtual=virtual)
    record = replace(plan.record, started_unix_s=clock.started_unix_s)
    sink.begin(record)
    run = _Run(plan, backend, sink, clock, live)
    try:
        sink.event(record.run_id, clock.anchor())
        for kind, detail in (("deep_idle", plan.deep_idle), ("calibration", plan.calibration)):
            if detail is not None:
                sink.event(record.run_id, Event(kind=kind, time_s=0.0, detail=detail))
        with _prompt_stamps():
            watch = observing(backend, clock, sink, record.run_id)
            async with metering(meters, record, clock, sink, live), _lag_watch(run), watch:
                await run.carry_out()
        sink.event(record.run_id, clock.anchor())
    except BaseException as failure:
        error = _first(failure)
        if isinstance(error, WattbenchError):
            sink.finish(record.run_id, "failed", str(error))
        else:
            sink.finish(record.run_id, "interrupted", "stopped before its end")
        raise error from None
    sink.finish(record.run_id, "completed", None)


def _first(error: BaseException) -> BaseException:
    """The first leaf of an exception group: one cause is enough for one message."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _lag_watch(run: _Run) -> AsyncIterator[None]:
    """Record how late the client itself ran: a starved client lies about latency."""
    lags: list[float] = []
    before_s, started_s = _client_cpu_s(run.backend), run.clock.now_s()
    task = asyncio.create_task(_tick(run.clock, lags))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        elapsed_s = run.clock.now_s() - started_s
        if lags and elapsed_s > 0:
            detail: dict[str, Json] = {
                "p50_s": float(np.quantile(lags, 0.5)),
                "p99_s": float(np.quantile(lags, 0.99)),
                "max_s": max(lags),
            }
            if not run.clock.virtual:  # there a processor has no share of the time
                after_s = _client_cpu_s(run.backend)
                cores = [(after_s[pid] - before_s.get(pid, 0.0)) / elapsed_s for pid in after_s]
                detail |= {"client_cpu_cores": sum(cores), "client_busiest_cores": max(cores)}
            event = Event(kind="loop_lag", time_s=run.clock.now_s(), detail=detail)
            run.sink.event(run.run_id, event)


def _client_cpu_s(backend: Backend) -> dict[int, float]:
    """Processor time of each process that sends requests, so far [s]."""
    spent_s = {os.getpid(): time.process_time()}
    for pid in getattr(backend, "client_process_ids", ()):
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            spent_s[pid] = times.user + times.system
    return spent_s


async def _tick(clock: RunClock, lags: list[float]) -> None:
    while True:
        due_s = clock.now_s() + LAG_PERIOD_S
        await asyncio.sleep(LAG_PERIOD_S)
        lags.append(max(0.0, clock.now_s() - due_s))


@contextmanager
def _prompt_stamps() -> Iterator[None]:
    """Keep what else this process does from delaying the stamps.

    Old objects stay out of garbage collections; and a thread that computes (the store's writer, a
    meter) gives way after ``SWITCH_S`` instead of Python's 5 ms, which would be added to TTFT.
    """
    switch_s = sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.unfreeze()
