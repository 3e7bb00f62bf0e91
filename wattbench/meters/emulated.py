"""The sensors of the emulated machine, read in process on its own clock."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import UsageError
from wattbench.core.protocols import TraceSink
from wattbench.emulator import EmulatedMachine, Sensor, SensorOptions
from wattbench.hardware.profile import MachineProfile
from wattbench.plugins import PluginContext, option

GRACE_S = 6.0
"""A device that does not report at the end is waited for this long [s]."""
FLUSH_S = 1.0
"""How often readings are handed on [s]; a crash loses no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMeterOptions(SensorOptions):
    """Options of ``--meter emulated``: those of the sensor, and what the meter is told of it."""

    gain_half_width_fraction: float = option(0.0, "prior on the gain: uniform within this")
    offset_half_width_watts: float = option(0.0, "prior on the offset: uniform within this [W]")


class EmulatedMeter:
    """Reads energy counter and power of every device of ``--backend emulated``."""

    Options = EmulatedMeterOptions
    needs_engine = True

    def __init__(self, options: EmulatedMeterOptions, context: PluginContext) -> None:
        machine = getattr(context.backend, "machine", None)
        if not isinstance(machine, EmulatedMachine):
            raise UsageError("meter emulated reads the emulated machine: add --backend emulated")
        profile = context.hardware
        assert isinstance(profile, MachineProfile)
        faults = getattr(context.backend, "faults", ())
        self._machine = machine
        self._options = options
        self._sensors = [
            Sensor(machine, device, options, faults, context.seed)
            for device in range(machine.roofline.device_count)
        ]
        self._domains = [_domains(sensor, options, profile) for sensor in self._sensors]

    @staticmethod
    def availability() -> str | None:
        """Always usable."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Wait for the first update of every sensor, then hand on their readings."""
        loop = asyncio.get_running_loop()
        self._sink = sink
        self._origin_s = loop.time() - sink.now_s()
        self._next = [sensor.last_update(loop.time()) + 1 for sensor in self._sensors]
        self._first = list(self._next)
        self._reported = [True] * len(self._sensors)
        self._throttled = False
        for counter, power in self._domains:
            sink.declare(counter)
            sink.declare(power)
        await self._until_next_update()
        self._task = loop.create_task(self._flush_for_ever())

    async def stop(self) -> None:
        """Wait until every sensor has reported once more, though not for ever, and end."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._flush()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + GRACE_S
        await self._until_next_update()
        while not all(self._reported) and loop.time() < deadline_s:
            await self._until_next_update()

    async def _until_next_update(self) -> None:
        now_s = asyncio.get_running_loop().time()
        due_s = max(s.update_s(n) for s, n in zip(self._sensors, self._next, strict=True))
        # A little after the update, so that what follows is bracketed by it to the nanosecond.
        await asyncio.sleep(max(0.0, due_s - now_s) + 1e-6)
        self._flush()

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        now_s = asyncio.get_running_loop().time()
        for index, sensor in enumerate(self._sensors):
            first, last = self._next[index], sensor.last_update(now_s)
            if last < first:
                continue
            self._next[index] = last + 1
            shown = sensor.readings(first, last)
            counter, power = self._domains[index]
            stamp_s = shown.time_s - self._origin_s
            self._sink.sample(counter.name, stamp_s, shown.energy_joules)
            self._sink.sample(power.name, stamp_s, shown.power_watts)
            # Neither missing nor a failed read that came as 0.
            self._reported[index] = bool(shown.power_watts[-1] > 0)
            offset_s = float(stamp_s[-1]) - (sensor.update_s(last) - self._origin_s)
            if first == self._first[index] and abs(offset_s) > 1e-6:
                self._sink.note("sensor_clock", domain=counter.name, offset_s=offset_s)
        if self._machine.throttled_at(now_s) and not self._throttled:
            self._throttled = True
            self._sink.note("throttled", reasons="power limit")


def _domains(
    sensor: Sensor, options: EmulatedMeterOptions, profile: MachineProfile
) -> tuple[EnergyDomain, EnergyDomain]:
    """The counter of a device, and its power, which contains the same energy."""
    assert profile.power is not None
    kind = "gpu" if profile.device_class == "gpu" else profile.device_class
    window_s = options.window_s or options.period_s
    counter = EnergyDomain(
        name=f"{kind}:{sensor.device}",
        meter="emulated",
        quantity="energy_counter",
        kind="counter",
        boundary=profile.power.boundary,
        current="ac" if profile.power.boundary == "node" else None,
        devices=(f"{profile.name}:{sensor.device}",),
        method=f"counter of the emulated machine, updated every {options.period_s:g} s",
        update_period_s=options.period_s,
        stamped_by="sensor",
        gain_half_width_fraction=options.gain_half_width_fraction,
        offset_half_width_watts=options.offset_half_width_watts,
    )
    power = replace(
        counter,
        name=f"{counter.name}/power",
        quantity="power",
        kind="integrated",
        parent=counter.name,
        method=f"power of the emulated machine, mean over {window_s:g} s",
        averaging_window_s=window_s,
        coverage_fraction=min(1.0, window_s / options.period_s),
    )
    return counter, power
