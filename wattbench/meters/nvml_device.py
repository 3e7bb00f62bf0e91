"""One NVIDIA GPU: what it offers to be read, what it is, and what state it is in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from wattbench.core.energy import Boundary, EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.core.run import Json
from wattbench.energy.sensors import NvmlField, nvml_prior
from wattbench.meters.polling import Clock, Reading, bracketed

FIELDS: Mapping[NvmlField, int] = {"instant": 186, "average": 185}
GPU, MODULE, MEMORY = 0, 1, 2
"""Scopes of a power field."""
TOTAL_POWER_SAMPLES = 0
UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 1, 3, 4, 6
DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, GPU_IS_LOST, DRIVER_MISMATCH = 9, 12, 15, 18
"""Return codes, as nvml.h numbers them."""
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Throttle reasons: power cap, hardware slowdown, thermal and power brake; idle is none."""
STAMP_LOOKS, STAMP_LOOK_S = 6, 0.002
"""Reads that show whether stamps stand still between updates, and the time between them [s]."""
CLOCK_LIMIT_S = 5.0
"""A driver's stamp further from the wall clock is not one of Unix time [s]."""
_FIXES = {
    LIBRARY_NOT_FOUND: (
        "there is no NVIDIA driver here (libnvidia-ml.so is not found)",
        "Install it, or in a container start with --gpus all; without an NVIDIA GPU leave it.",
    ),
    DRIVER_NOT_LOADED: ("the NVIDIA driver is not loaded", "sudo modprobe nvidia"),
    NO_PERMISSION: (
        "the NVIDIA driver refuses to be read by this user",
        "Give access to /dev/nvidia* (sudo usermod -aG video $USER), or run with sudo.",
    ),
    GPU_IS_LOST: ("the GPU is lost to the driver", "Look at `dmesg` for Xid; reset or reboot."),
    DRIVER_MISMATCH: (
        "the NVIDIA driver was updated under its library (version mismatch)",
        "Reboot, or reload the kernel module.",
    ),
}


def explain(error: Exception) -> tuple[str, str | None]:
    """What an error of NVML means, and what to do about it."""
    return _FIXES.get(getattr(error, "value", 0), (f"NVML says: {error}", None))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRead:
    """One call and the domain that it feeds."""

    domain: EnergyDomain
    readings: Callable[[Clock], list[Reading]]


class _Stamps:
    """The driver's stamps on the run clock; one stamp is one instant, however often it is read."""

    def __init__(self) -> None:
        self._stamp_us, self._run_s = 0, 0.0

    def run_s(self, stamp_us: int, now_s: Clock) -> float:
        if stamp_us != self._stamp_us:
            self._stamp_us, self._run_s = stamp_us, stamp_us / 1e6 - (time.time() - now_s())
        return self._run_s


@dataclass(slots=True)
class NvmlDevice:
    """A GPU by its index.

    Attributes:
        library: ``pynvml``, or what answers the same calls.
        error: What it raises.
        index: Number of the GPU.
        reads: What is read of it, the one that stands for the device first.
    """

    library: Any
    error: type[Exception]
    index: int
    reads: list[PlannedRead] = field(default_factory=list)
    _handle: Any = None
    _uuid: str = ""
    _name: str = ""
    _mig: bool = False
    _throttled: bool = False
    _process_ids: list[int] | None = None

    def __post_init__(self) -> None:
        """Ask who it is."""
        self._handle = self.library.nvmlDeviceGetHandleByIndex(self.index)
        self._uuid = _text(self.library.nvmlDeviceGetUUID(self._handle))
        self._name = _text(self.library.nvmlDeviceGetName(self._handle))
        with suppress(self.error):
            self._mig = bool(self.library.nvmlDeviceGetMigMode(self._handle)[0])

    def plan(self, power: bool, samples: bool, *, whole_mig: bool) -> None:
        """Find out what it answers, and plan the reads.

        Raises:
            MeterError: If it is in MIG mode, has no power sensor, or must not be read.
        """
        if self._mig and not whole_mig:
            raise MeterError(
                f"GPU {self.index} ({self._uuid}) is in MIG mode: NVML tells the power of the "
                f"whole GPU and of no slice, so that no joule can be charged to one",
                "Measure all slices together with --meter nvml,mig=whole, or switch MIG off.",
            )
        module = any(word in self._name for word in ("GH200", "GB200", "GB300"))
        top, boundary = f"{'module' if module else 'gpu'}:{self.index}", _boundary(module)
        found = [self._counter(top, boundary)]
        if power or found[0] is None:
            found += list(self._powers(top, boundary, module))
        if samples:
            found.append(self._buffer(f"{top}/samples", boundary))
        known = [read for read in found if read is not None]
        if not known:
            raise MeterError(
                f"GPU {self.index} ({self._name}) has no power sensor that NVML tells",
                "Use a meter from outside: --meter external, redfish or prometheus.",
            )
        first = known[0] if known[0].domain.name == top else _renamed(known[0], top)
        below = [replace(r, domain=replace(r.domain, parent=top)) for r in known[1:]]
        self.reads = [first, *below]

    def _powers(self, top: str, boundary: Boundary, module: bool) -> Iterator[PlannedRead | None]:
        scope = MODULE if module else GPU
        answered = [self._field(f"{top}/{f}", boundary, f, scope) for f in FIELDS]
        yield from answered
        if not any(answered):
            yield self._draw(f"{top}/draw", boundary)
        if module:
            yield self._field(f"gpu:{self.index}", "board", "instant", GPU)
        yield self._field(f"gpu:{self.index}/memory", "chip", "average", MEMORY)

    def _counter(self, name: str, boundary: Boundary) -> PlannedRead | None:
        def read() -> float:
            return float(self.library.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

        if not self._answers(read):
            return None
        domain = self._domain(name, boundary, "nvmlDeviceGetTotalEnergyConsumption", None)
        return PlannedRead(domain=domain, readings=lambda now_s: [bracketed(now_s, name, read)])

    def _draw(self, name: str, boundary: Boundary) -> PlannedRead | None:
        def read() -> float:
            return float(self.library.nvmlDeviceGetPowerUsage(self._handle)) / 1e3

        if not self._answers(read):
            return None
        domain = self._domain(name, boundary, "nvmlDeviceGetPowerUsage", "draw")
        return PlannedRead(domain=domain, readings=lambda now_s: [bracketed(now_s, name, read)])

    def _field(
        self, name: str, boundary: Boundary, kind: NvmlField, scope: int
    ) -> PlannedRead | None:
        asked = [(FIELDS[kind], scope)]

        def read() -> tuple[float, int]:
            found = self.library.nvmlDeviceGetFieldValues(self._handle, asked)[0]
            if found.nvmlReturn:
                raise self.error(found.nvmlReturn)
            return found.value.uiVal / 1e3, int(found.timestamp)

        if not self._answers(read):
            return None
        stamped, stamps = self._stamps_stand(read), _Stamps()

        def readings(now_s: Clock) -> list[Reading]:
            before_s = now_s()
            watts, stamp_us = read()
            middle_s = (before_s + now_s()) / 2
            return [Reading(name, stamps.run_s(stamp_us, now_s) if stamped else middle_s, watts)]

        domain = self._domain(name, boundary, f"field value {FIELDS[kind]}", kind)
        domain = replace(domain, stamped_by="sensor" if stamped else "reader")
        return PlannedRead(domain=domain, readings=readings)

    def _buffer(self, name: str, boundary: Boundary) -> PlannedRead | None:
        stamps, last_us = _Stamps(), int(time.time() * 1e6)

        def readings(now_s: Clock) -> list[Reading]:
            nonlocal last_us
            try:
                call = self.library.nvmlDeviceGetSamples
                _, samples = call(self._handle, TOTAL_POWER_SAMPLES, last_us)
            except self.error as error:
                if getattr(error, "value", None) == NOT_FOUND:  # nothing new since
                    return []
                raise
            new = sorted((s.timeStamp, s.sampleValue.uiVal) for s in samples)
            new = [(stamp_us, value) for stamp_us, value in new if stamp_us > last_us]
            last_us = new[-1][0] if new else last_us
            return [Reading(name, stamps.run_s(t, now_s), value / 1e3) for t, value in new]

        if not self._answers(lambda: readings(time.monotonic)):
            return None
        domain = self._domain(name, boundary, "nvmlDeviceGetSamples", "instant")
        return PlannedRead(domain=replace(domain, stamped_by="sensor"), readings=readings)

    def _answers(self, read: Callable[[], object]) -> bool:
        try:
            read()
        except self.error as error:
            if getattr(error, "value", None) in (NO_PERMISSION, GPU_IS_LOST):
                raise
            return False
        return True

    def _stamps_stand(self, read: Callable[[], tuple[float, int]]) -> bool:
        """Whether a field's stamps are those of the sensor's updates."""
        stamps = []
        for _ in range(STAMP_LOOKS):
            stamps.append(read()[1])
            time.sleep(STAMP_LOOK_S)
        near = abs(stamps[-1] / 1e6 - time.time()) < CLOCK_LIMIT_S
        return near and len(set(stamps)) <= STAMP_LOOKS // 2

    def _domain(
        self, name: str, boundary: Boundary, call: str, kind: NvmlField | None
    ) -> EnergyDomain:
        prior = nvml_prior(kind or "instant", self._name)
        whole = ", all MIG slices together" if self._mig else ""
        counter = kind is None
        return EnergyDomain(
            name=name,
            meter="nvml",
            quantity="energy_counter" if counter else "power",
            kind="counter" if counter else "integrated",
            boundary=boundary,
            devices=(self._uuid,),
            method=f"{call} of {self._name}{whole}",
            averaging_window_s=None if counter else prior.averaging_window_s,
            # Whether the counter sees the whole of each period is not published.
            coverage_fraction=1.0 if counter else prior.coverage_fraction,
            gain_half_width_fraction=prior.gain_half_width_fraction,
            offset_half_width_watts=prior.offset_half_width_watts,
            on_client_host=True,
        )

    def facts(self) -> dict[str, Json]:
        """What it is and how it is set, as the detail of an event."""
        asked: dict[str, Callable[[], Json]] = {
            "driver": lambda: _text(self.library.nvmlSystemGetDriverVersion()),
            "power_limit_watts": lambda: self._call("nvmlDeviceGetEnforcedPowerLimit") / 1e3,
            "power_limit_default_watts": lambda: (
                self._call("nvmlDeviceGetPowerManagementDefaultLimit") / 1e3
            ),
            "persistence": lambda: bool(self._call("nvmlDeviceGetPersistenceMode")),
            "ecc": lambda: bool(self._call("nvmlDeviceGetEccMode")[0]),
        }
        found: dict[str, Json] = {
            "domain": self.reads[0].domain.name,
            "uuid": self._uuid,
            "name": self._name,
            "mig": self._mig,
        }
        for key, ask in asked.items():
            with suppress(self.error):
                found[key] = ask()
        return found | self._state()

    def changes(self) -> Iterator[tuple[str, Mapping[str, Json]]]:
        """Events since the last look: throttling that began, and processes that came or went."""
        domain = self.reads[0].domain.name
        with suppress(self.error):
            reasons = int(self._call("nvmlDeviceGetCurrentClocksThrottleReasons"))
            if reasons & SLOWED and not self._throttled:
                self._throttled = True
                detail: dict[str, Json] = {"devices": domain, "reasons": f"0x{reasons:x}"}
                yield "throttled", detail | self._state()
        with suppress(self.error):
            running = self._call("nvmlDeviceGetComputeRunningProcesses")
            process_ids = sorted(int(process.pid) for process in running)
            if process_ids != self._process_ids:
                self._process_ids = process_ids
                yield "device_processes", {"domain": domain, "process_ids": [*process_ids]}

    def _state(self) -> dict[str, Json]:
        found: dict[str, Json] = {}
        with suppress(self.error):
            found["temperature_celsius"] = self.library.nvmlDeviceGetTemperature(self._handle, 0)
        with suppress(self.error):
            megahertz = self.library.nvmlDeviceGetClockInfo(self._handle, 1)
            found["clock_hz"] = megahertz * 1e6
        return found

    def _call(self, name: str) -> Any:
        return getattr(self.library, name)(self._handle)


def _boundary(module: bool) -> Boundary:
    return "module" if module else "board"


def _renamed(read: PlannedRead, name: str) -> PlannedRead:
    """The same read under the name of the device it stands for."""
    taken = read.readings
    return PlannedRead(
        domain=replace(read.domain, name=name),
        readings=lambda now_s: [reading._replace(domain=name) for reading in taken(now_s)],
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
