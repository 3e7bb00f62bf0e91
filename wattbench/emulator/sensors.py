"""Sensors of an emulated machine: exact energy, seen through what real sensors do to it.

A sensor updates every ``period_s``. Its power value is the mean over the last ``window_s`` (a
share ``window_s / period_s`` below 1 of each period is partial coverage, a window longer than the
period a trailing mean); its energy counter has everything since the start. Both are scaled,
offset and rounded, and faults are laid over them. A reading is a function of time and seed alone,
so a scrape, a meter and a test see the same sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wattbench.emulator.device import EmulatedMachine
from wattbench.emulator.faults import Fault
from wattbench.plugins import option

FloatArray = NDArray[np.float64]
_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorOptions:
    """Options of ``--sensor`` and of the emulated meter: ideal unless told otherwise."""

    period_s: float = option(0.1, "time between two updates [s]")
    window_s: float | None = option(None, "power is the mean over this long [s]; none: period_s")
    gain: float = option(1.0, "reading over truth")
    offset_watts: float = option(0.0, "added to every power, and to the counter per second [W]")
    quantum_watts: float = option(1e-3, "step of power readings [W]")
    quantum_joules: float = option(1e-3, "step of the energy counter [J]")

    def __post_init__(self) -> None:
        """Refuse sensors that cannot be."""
        if not 1e-4 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.0001 to 60 s")
        if self.window_s is not None and not 1e-5 <= self.window_s <= 600.0:
            raise ValueError(f"window_s={self.window_s:g} must be from 0.00001 to 600 s")
        if min(self.quantum_watts, self.quantum_joules) <= 0:
            raise ValueError("quantum_watts and quantum_joules must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What a sensor shows at its updates.

    Attributes:
        time_s: Shape (n,), the update's own stamp [s, loop clock].
        power_watts: Shape (n,) [W]; NaN: not reported.
        energy_joules: Shape (n,) [J]; NaN: not reported.
    """

    time_s: FloatArray
    power_watts: FloatArray
    energy_joules: FloatArray


class Sensor:
    """The sensor of one device of a machine.

    Args:
        machine: What it watches; its devices share the power equally.
        device: Number of the device.
        options: How it works.
        faults: How it fails.
        seed: Phase of its updates, and the chance in its faults.
    """

    def __init__(
        self,
        machine: EmulatedMachine,
        device: int,
        options: SensorOptions,
        faults: Sequence[Fault] = (),
        seed: int = 0,
    ) -> None:
        self.options = options
        self.device = device
        self._machine = machine
        self._faults = {fault.kind: fault for fault in faults}
        self._seed = (seed, 0x5E, device)
        self.phase_s = options.period_s * float(np.random.default_rng(self._seed).random())

    def last_update(self, time_s: float) -> int:
        """Number of the last update at or before an instant [s, loop clock]."""
        # A nanosecond of grace: waking exactly at an update counts as after it.
        return int(np.floor((time_s - self.phase_s + 1e-9) / self.options.period_s))

    def update_s(self, update: int) -> float:
        """When an update happens [s, loop clock]."""
        return self.phase_s + update * self.options.period_s

    def readings(self, first: int, last: int) -> Readings:
        """What updates ``first`` to ``last`` (included) show."""
        update = np.arange(first, last + 1)
        time_s = self.phase_s + self.options.period_s * update.astype(np.float64)
        seen_s = self._seen_s(time_s)
        power, energy = self._rounded(self._power_watts(seen_s), self._counter_joules(seen_s))
        power, energy = self._spoilt(update, time_s, power, energy)
        stamp_s = time_s + self._parameter("clock_skew", "offset_s")
        return Readings(time_s=stamp_s, power_watts=power, energy_joules=energy)

    def _parameter(self, kind: str, name: str) -> float:
        fault = self._faults.get(kind)
        return fault[name] if fault else 0.0

    def _onset_s(self, kind: str) -> float:
        """When a fault begins [s, loop clock]; never, if there is none or nothing was asked yet."""
        fault, first_s = self._faults.get(kind), self._machine.first_arrival_s
        return np.inf if fault is None or first_s is None else first_s + fault["after_s"]

    def _since(self, kind: str, time_s: FloatArray) -> FloatArray:
        """Time since a fault began, negative before it [s]."""
        return np.asarray(time_s - self._onset_s(kind))

    def _seen_s(self, time_s: FloatArray) -> FloatArray:
        """The instants whose truth is shown: earlier ones where the sensor lags or is stuck."""
        seen_s = time_s - self._parameter("lag", "delay_s")
        since_s = self._since("stale", time_s)
        stuck = (since_s >= 0) & (since_s < self._parameter("stale", "duration_s"))
        return np.asarray(np.where(stuck, np.minimum(seen_s, self._onset_s("stale")), seen_s))

    def _power_watts(self, seen_s: FloatArray) -> FloatArray:
        window_s = self.options.window_s or self.options.period_s
        begin, end = self._energy_joules(seen_s - window_s), self._energy_joules(seen_s)
        return self.options.gain * (end - begin) / window_s + self.options.offset_watts

    def _counter_joules(self, seen_s: FloatArray) -> FloatArray:
        elapsed_s = np.maximum(0.0, seen_s - self._machine.started_s)
        energy = np.maximum(0.0, self._energy_joules(seen_s))
        return self.options.gain * energy + self.options.offset_watts * elapsed_s

    def _energy_joules(self, time_s: FloatArray) -> FloatArray:
        """True energy of this device since the machine's start."""
        count = self._machine.roofline.device_count
        return np.asarray(self._machine.timeline.energy_joules(time_s) / count)

    def _rounded(self, power: FloatArray, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        power_step, energy_step = self.options.quantum_watts, self.options.quantum_joules
        coarse = self._parameter("quantised", "quantum_fraction")
        if coarse:
            idle_watts = self._machine.timeline.idle_watts / self._machine.roofline.device_count
            power_step, energy_step = coarse * idle_watts, coarse * idle_watts
        return np.floor(power / power_step) * power_step, np.floor(
            energy / energy_step
        ) * energy_step

    def _spoilt(
        self, update: NDArray[np.int64], time_s: FloatArray, power: FloatArray, energy: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Lay the faults over sound readings."""
        energy = self._restarted(time_s, energy)
        chance = self._chance(update)
        zero = self._struck("zero", "failure_fraction", time_s, chance)
        power, energy = np.where(zero, 0.0, power), np.where(zero, 0.0, energy)
        wrong = self._struck("negative", "failure_fraction", time_s, chance)
        power, energy = np.where(wrong, -power, power), np.where(wrong, -energy, energy)
        power, energy = self._spiked(time_s, power, energy)
        lost = self._struck("dropout", "loss_fraction", time_s, chance) | self._silent(time_s)
        return np.where(lost, np.nan, power), np.where(lost, np.nan, energy)

    def _restarted(self, time_s: FloatArray, energy: FloatArray) -> FloatArray:
        """Counters that begin again: at 0 (reset), or at the end of their range (wrap)."""
        onset_s = self._onset_s("reset")
        if np.isfinite(onset_s):
            base = float(self._counter_joules(np.array([onset_s]))[0])
            energy = np.where(time_s >= onset_s, np.maximum(0.0, energy - base), energy)
        if "wrap" in self._faults:
            span_joules = 2.0 ** round(self._parameter("wrap", "bits")) * 1e-6
            energy = energy % span_joules
        return np.asarray(energy)

    def _struck(
        self, kind: str, name: str, time_s: FloatArray, chance: FloatArray
    ) -> NDArray[np.bool_]:
        struck = (self._since(kind, time_s) >= 0) & (chance < self._parameter(kind, name))
        return np.asarray(struck, bool)

    def _spiked(
        self, time_s: FloatArray, power: FloatArray, energy: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        if "spike" not in self._faults:
            return power, energy
        since_s, every_s = self._since("spike", time_s), self._parameter("spike", "every_s")
        count = np.where(since_s >= 0, np.floor(since_s / every_s) + 1, 0.0)
        newest_s = since_s - (count - 1) * every_s
        struck = (since_s >= 0) & (newest_s < self.options.period_s)
        limit_watts = self._machine.roofline.limit_watts / self._machine.roofline.device_count
        height_watts = self._parameter("spike", "height_ratio") * limit_watts
        # A counter keeps what a wrong read added to it.
        return np.where(struck, height_watts, power), energy + count * (
            height_watts * self.options.period_s
        )

    def _silent(self, time_s: FloatArray) -> NDArray[np.bool_]:
        """Where nothing is reported at all."""
        since_s = self._since("gap", time_s)
        silent = (since_s >= 0) & (since_s < self._parameter("gap", "duration_s"))
        if self.device == self._machine.roofline.device_count - 1:
            silent |= self._since("missing_device", time_s) >= 0
        return np.asarray(silent, bool)

    def _chance(self, update: NDArray[np.int64]) -> FloatArray:
        """A uniform draw for each update, the same whenever it is asked for."""
        blocks = update // _BLOCK
        draws = np.empty(len(update))
        for block in np.unique(blocks):
            rng = np.random.default_rng((*self._seed, int(block) & 0xFFFFFFFF))
            here = blocks == block
            draws[here] = rng.random(_BLOCK)[update[here] % _BLOCK]
        return draws
