"""Deep idle: what the machine draws before the engine is there, no context and no model.

Meters run for a while before the engine opens. Their raw samples travel with every run of the
batch as a ``deep_idle`` event, so that net energy can be concluded again from the run alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from wattbench.core.energy import EnergyDomain, FloatArray
from wattbench.core.protocols import Meter
from wattbench.core.run import Json


class _Samples:
    """A sink that keeps samples in memory."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._origin_s = self._loop.time()
        self.found: dict[str, tuple[list[float], list[float]]] = {}

    def now_s(self) -> float:
        """Time since the baseline began [s]."""
        return self._loop.time() - self._origin_s

    def declare(self, domain: EnergyDomain) -> None:
        """Expect samples of a domain."""
        self.found[domain.name] = ([], [])

    def sample(
        self,
        domain: str,
        time_s: Sequence[float] | FloatArray,
        value: Sequence[float] | FloatArray,
    ) -> None:
        """Keep samples; a failed read is left out."""
        times, values = np.asarray(time_s, np.float64), np.asarray(value, np.float64)
        good = np.isfinite(values)
        self.found[domain][0].extend(times[good].tolist())
        self.found[domain][1].extend(values[good].tolist())

    def note(self, kind: str, **detail: Json) -> None:
        """Events of a baseline are not kept."""


async def deep_idle(meters: Sequence[Meter], duration_s: float) -> dict[str, Json]:
    """Raw samples of an idle machine without its engine, as the detail of an event.

    Args:
        meters: Meters, not started, that do not need the engine.
        duration_s: How long [s].

    Raises:
        MeterError: If a meter cannot be opened or fails on the way.
    """
    sink = _Samples()
    for meter in meters:
        await meter.start(sink)
    start_s = sink.now_s()
    await asyncio.sleep(duration_s)
    end_s = sink.now_s()
    for meter in meters:
        await meter.stop()
    domains: dict[str, Json] = {
        name: {"time_s": list(times), "value": list(values)}
        for name, (times, values) in sink.found.items()
    }
    return {"start_s": start_s, "end_s": end_s, "domains": domains}
