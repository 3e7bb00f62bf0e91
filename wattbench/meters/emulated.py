"""The emulated device's own energy counter: ideal but for its update period."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import UsageError
from wattbench.core.protocols import TraceSink
from wattbench.emulator import EmulatedDevice
from wattbench.hardware.profile import MachineProfile
from wattbench.plugins import PluginContext, option

FLUSH_S = 1.0
"""How often readings are handed on [s]; a crash loses no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMeterOptions:
    """Options of ``--meter emulated``."""

    period_s: float = option(0.1, "time between two updates of the counter [s]")

    def __post_init__(self) -> None:
        """Refuse a counter that never updates."""
        if not 1e-4 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.0001 to 60 s")


class EmulatedMeter:
    """Reads the energy of ``--backend emulated`` every ``period_s``, in phase with the seed."""

    Options = EmulatedMeterOptions

    def __init__(self, options: EmulatedMeterOptions, context: PluginContext) -> None:
        device = getattr(context.backend, "device", None)
        if not isinstance(device, EmulatedDevice):
            raise UsageError("meter emulated reads the emulated device: add --backend emulated")
        self._device = device
        self._period_s = options.period_s
        self._phase_s = options.period_s * np.random.default_rng(context.seed).random()
        machine = context.hardware
        assert isinstance(machine, MachineProfile)
        assert machine.power is not None
        self._domain = EnergyDomain(
            name="gpu:0" if machine.device_class == "gpu" else f"{machine.device_class}:0",
            meter="emulated",
            quantity="energy_counter",
            kind="counter",
            boundary=machine.power.boundary,
            devices=(f"{machine.name}:0",),
            method=f"ideal counter of the emulated device, updated every {options.period_s:g} s",
            update_period_s=options.period_s,
        )

    @staticmethod
    def availability() -> str | None:
        """Always usable."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Wait for the counter's first update, then hand on its readings."""
        loop = asyncio.get_running_loop()
        self._offset_s = loop.time() - sink.now_s()
        self._sink = sink
        self._next_tick = int(np.ceil((loop.time() - self._phase_s) / self._period_s))
        sink.declare(self._domain)
        await self._until_next_tick()
        self._flush()
        self._task = loop.create_task(self._flush_for_ever())

    async def stop(self) -> None:
        """Wait for one more update and hand it on."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._flush()
        await self._until_next_tick()
        self._flush()

    def _tick_s(self, tick: int) -> float:
        return self._phase_s + tick * self._period_s

    async def _until_next_tick(self) -> None:
        loop = asyncio.get_running_loop()
        # A nanosecond more, lest rounding wakes us just before the tick.
        await asyncio.sleep(max(0.0, self._tick_s(self._next_tick) - loop.time()) + 1e-9)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        now_s = asyncio.get_running_loop().time()
        last = int(np.floor((now_s - self._phase_s) / self._period_s))
        if last < self._next_tick:
            return
        ticks = np.arange(self._next_tick, last + 1, dtype=np.float64)
        time_s = np.asarray(self._phase_s + self._period_s * ticks)
        energy_joules = self._device.timeline.energy_joules(time_s)
        self._sink.sample(self._domain.name, time_s - self._offset_s, energy_joules)
        self._next_tick = last + 1
