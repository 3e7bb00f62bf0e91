"""Meters around a load: their samples stamped, forwarded as they come, and shown live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

from wattbench.core.energy import EnergyDomain, FloatArray
from wattbench.core.errors import MeterError, UsageError
from wattbench.core.protocols import Meter, RecordSink
from wattbench.core.run import Event, Json, RunRecord
from wattbench.runner.clock import RunClock
from wattbench.runner.load import LiveState


class _TraceSink:
    """Stamps and forwards a meter's samples; keeps the latest power for the progress line."""

    def __init__(self, clock: RunClock, sink: RecordSink, run_id: str, live: LiveState) -> None:
        self._clock = clock
        self._sink = sink
        self._run_id = run_id
        self._live = live
        self._domains: dict[str, EnergyDomain] = {}
        self._latest: dict[str, tuple[float, float]] = {}
        self._watts: dict[str, float] = {}

    def now_s(self) -> float:
        return self._clock.now_s()

    def declare(self, domain: EnergyDomain) -> None:
        if domain.name in self._domains:
            raise MeterError(
                f"two meters measure a domain called {domain.name!r}: drop one of the --meter, or "
                f"tell agents apart with name=…"
            )
        self._domains[domain.name] = domain
        self._sink.domain(self._run_id, domain)

    def demand_devices(self, devices: tuple[str, ...] | None) -> None:
        """Refuse a ``--devices`` entry that no declared domain knows."""
        domains = list(self._domains.values())
        for device in devices or ():
            if not any(domain.covers(device) for domain in domains):
                known = "; ".join(f"{d.name} ({', '.join(d.devices)})" for d in domains) or "none"
                raise UsageError(f"device {device!r} is not measured; there is {known}")

    def sample(
        self,
        domain: str,
        time_s: Sequence[float] | FloatArray,
        value: Sequence[float] | FloatArray,
    ) -> None:
        times, values = np.asarray(time_s, np.float64), np.asarray(value, np.float64)
        if not len(times):
            return
        self._sink.samples(self._run_id, domain, times, values)
        self._show(self._domains[domain], float(times[-1]), float(values[-1]))

    def note(self, kind: str, **detail: Json) -> None:
        self._sink.event(self._run_id, Event(kind=kind, time_s=self.now_s(), detail=detail))

    def _show(self, domain: EnergyDomain, time_s: float, value: float) -> None:
        if domain.quantity == "power":
            self._watts[domain.name] = value
        else:
            before_s, before = self._latest.get(domain.name, (time_s, value))
            if time_s > before_s:
                self._watts[domain.name] = (value - before) / (time_s - before_s)
            self._latest[domain.name] = (time_s, value)
        top = [w for name, w in self._watts.items() if self._domains[name].parent is None]
        self._live.power_watts = sum(top) if top else None


@asynccontextmanager
async def metering(
    meters: Sequence[Meter], record: RunRecord, clock: RunClock, sink: RecordSink, live: LiveState
) -> AsyncIterator[None]:
    """Meters run around the load; one that fails on the way spoils joules, not latencies.

    Args:
        meters: Meters, not started.
        record: The run, already begun.
        clock: Its clock.
        sink: Where samples go.
        live: Told the latest power.

    Raises:
        MeterError: If one cannot start, or two measure the same.
        UsageError: If a device that is to be charged is not measured.
    """
    traces = _TraceSink(clock, sink, record.run_id, live)
    started: list[Meter] = []
    try:
        for meter in meters:
            await meter.start(traces)
            started.append(meter)
        for devices in (record.devices, *record.roles.values()):
            traces.demand_devices(devices)
        yield
    finally:
        for meter in started:
            try:
                await meter.stop()
            except MeterError as error:
                detail: dict[str, Json] = {"message": str(error)}
                event = Event(kind="meter_failed", time_s=clock.now_s(), detail=detail)
                sink.event(record.run_id, event)
