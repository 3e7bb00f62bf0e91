"""The meters of a stored run, played again: each sample comes when it came then.

For trying out an analysis, a display or a policy on a real trace without the machine. The joules
are those of another run, so their kind is ``reported`` at best, and a finding says so; beyond the
end of the stored run there is no sample, and so no energy.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from wattbench.core.energy import CounterTrace, EnergyDomain, FloatArray, Trace, worst_kind
from wattbench.core.errors import MeterError
from wattbench.core.protocols import TraceSink
from wattbench.plugins import PluginContext, option
from wattbench.store import connect, database_url, load_run, select_runs

HAND_ON_S = 0.2
"""How often samples are handed on [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """Options of ``--meter replay``."""

    run: str = field(metadata={"help": "the stored run, or latest; of a batch, its first run"})
    db: str | None = option(None, "database it lies in; none: the usual one")


class ReplayMeter:
    """Plays the meters of a stored run again, sample by sample."""

    Options = ReplayOptions

    def __init__(self, options: ReplayOptions, context: PluginContext) -> None:
        self._options = options

    @staticmethod
    def availability() -> str | None:
        """Always usable; whether there is such a run shows when it starts."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Load the run, and play its samples from the first on.

        Raises:
            MeterError: If the run has no samples.
            UsageError: If there is no such run.
            StoreError: If the database cannot be read.
        """
        run_id, traces = await asyncio.to_thread(_load, self._options)
        self._sink = sink
        self._played = [_Played(trace, run_id) for trace in traces]
        first_s = min(one.time_s[0] for one in self._played)
        self._shift_s = sink.now_s() - first_s
        for one in self._played:
            sink.declare(one.domain)
        self._hand_on(sink.now_s())
        self._task = asyncio.create_task(self._play())

    async def stop(self) -> None:
        """Play one more sample of each domain, so that the end is bracketed."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        due_s = max(one.next_s(self._sink.now_s() - self._shift_s) for one in self._played)
        await asyncio.sleep(max(0.0, due_s + self._shift_s - self._sink.now_s()) + 1e-6)
        self._hand_on(self._sink.now_s())

    async def _play(self) -> None:
        while True:
            await asyncio.sleep(HAND_ON_S)
            self._hand_on(self._sink.now_s())

    def _hand_on(self, now_s: float) -> None:
        for one in self._played:
            time_s, value = one.take(now_s - self._shift_s)
            self._sink.sample(one.domain.name, time_s + self._shift_s, value)


class _Played:
    """One trace, and how far it was played."""

    def __init__(self, trace: Trace, run_id: str) -> None:
        counter = isinstance(trace, CounterTrace)
        self.time_s = trace.time_s
        self._value = trace.energy_joules if isinstance(trace, CounterTrace) else trace.power_watts
        self._next = 0
        self.domain: EnergyDomain = replace(
            trace.domain,
            meter="replay",
            kind=worst_kind(["reported", trace.domain.kind]),
            method=f"replay of run {run_id}: {trace.domain.method}",
            on_client_host=False,
            interpolation="linear" if counter else trace.domain.interpolation,
        )

    def take(self, until_s: float) -> tuple[FloatArray, FloatArray]:
        """Samples since the last call, up to an instant of the stored run."""
        first, self._next = self._next, int(np.searchsorted(self.time_s, until_s, side="right"))
        return self.time_s[first : self._next], self._value[first : self._next]

    def next_s(self, after_s: float) -> float:
        """Time of the first sample after an instant, or of the last one there is [s]."""
        place = int(np.searchsorted(self.time_s, after_s, side="left"))
        return float(self.time_s[min(place, len(self.time_s) - 1)])


def _load(options: ReplayOptions) -> tuple[str, list[Trace]]:
    engine = connect(database_url(options.db), create=False)
    try:
        runs = select_runs(engine, options.run)
        if not runs:
            raise MeterError(f"there is no run {options.run!r} in {options.db or 'the database'}")
        raw = load_run(engine, runs[0].run_id)
    finally:
        engine.dispose()
    traces = [trace for trace in raw.traces if len(trace.time_s)]
    if not traces:
        raise MeterError(f"run {runs[0].run_id} was measured without a meter")
    return runs[0].run_id, traces
