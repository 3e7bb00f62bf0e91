"""Traces for tests, made from known functions of time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wattbench.core.energy import (
    CounterTrace,
    EnergyDomain,
    FloatArray,
    PowerTrace,
)


def domain(quantity: str = "power", **changes: object) -> EnergyDomain:
    """A plain domain; ``changes`` override its fields."""
    fields: dict[str, object] = {
        "name": "gpu:0",
        "meter": "test",
        "quantity": quantity,
        "kind": "integrated" if quantity == "power" else "counter",
        "boundary": "board",
        "devices": ("card",),
        "method": "test trace",
    }
    return EnergyDomain(**fields | changes)  # type: ignore[arg-type]


def power_trace(
    time_s: Sequence[float] | FloatArray, watts: Sequence[float] | FloatArray, **changes: object
) -> PowerTrace:
    """A power trace of one domain."""
    return PowerTrace(
        domain=domain("power", **changes),
        time_s=np.asarray(time_s, np.float64),
        power_watts=np.asarray(watts, np.float64),
    )


def counter_trace(
    time_s: Sequence[float] | FloatArray, joules: Sequence[float] | FloatArray, **changes: object
) -> CounterTrace:
    """A counter trace of one domain."""
    return CounterTrace(
        domain=domain("energy_counter", **changes),
        time_s=np.asarray(time_s, np.float64),
        energy_joules=np.asarray(joules, np.float64),
    )
