"""A recorded NVIDIA driver: it answers NVML's calls from a file, in time, errors included.

The file is JSON. Times are seconds since ``nvmlInit``; a trace repeats when it is over, and its
counter goes on. Everything but ``uuid``, ``name`` and ``trace`` may be left out.

    {"driver": "550.54.15",
     "refused": 12,                                     # nvmlInit raises this return code
     "devices": [{
       "uuid": "GPU-…", "name": "NVIDIA H100 80GB HBM3",
       "mig": false, "power_limit_watts": 700, "temperature_celsius": 41, "clock_hz": 1.98e9,
       "process_ids": [4711], "throttle_reasons": 0,
       "stamps": "update",                              # or "read": stamps are those of the read
       "codes": {"average": 3},                         # calls that raise a return code
       "lost_after_s": null,                            # from then on every call says it is lost
       "trace": {"time_s": […], "energy_joules": […], "instant_watts": […], "average_watts": […],
                 "module_watts": […], "memory_watts": […]}}]}
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wattbench.meters.recordings import check_trace, length_s, opened, played

NOT_SUPPORTED, NOT_FOUND, GPU_IS_LOST = 3, 6, 15
_COLUMNS = {
    (186, 0): "instant",
    (185, 0): "average",
    (186, 1): "module",
    (185, 1): "module",
    (185, 2): "memory",
}
"""Column of the trace by field and scope."""


@dataclass(slots=True)
class _Handle:
    """One recorded GPU.

    Attributes:
        told: Its entry in the file.
        origin_s: Monotonic time at which the trace begins [s].
        origin_unix_s: The same instant on the wall clock [Unix s].
    """

    told: dict[str, Any]
    origin_s: float
    origin_unix_s: float

    def now(self) -> tuple[int, int]:
        """Row of the trace that stands now, and how often it was played before."""
        return played(self.told["trace"]["time_s"], time.monotonic() - self.origin_s)

    def stamp_us(self, row: int, lap: int) -> int:
        """Unix time of a row [µs]."""
        times: list[float] = self.told["trace"]["time_s"]
        since_s = times[row] - times[0] + lap * length_s(times)
        return round((self.origin_unix_s + since_s) * 1e6)


class RecordedNvml:
    """What ``pynvml`` is to a driver, to a recording."""

    def __init__(self, recording: dict[str, Any]) -> None:
        import pynvml

        self._recording = recording
        self._error = pynvml.NVMLError
        self._handles: list[_Handle] = []

    @classmethod
    def load(cls, path: Path) -> RecordedNvml:
        """Open a recording.

        Raises:
            UsageError: If the file cannot be read or is no recording.
        """
        with opened(path, "NVML") as recording:
            for device in recording["devices"]:
                check_trace(device["trace"])
                _ = device["uuid"], device["name"]
        return cls(recording)

    def nvmlInit(self) -> None:
        if code := self._recording.get("refused"):
            raise self._error(code)
        origins = time.monotonic(), time.time()
        self._handles = [_Handle(told, *origins) for told in self._recording["devices"]]

    def nvmlShutdown(self) -> None:
        self._handles = []

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self._recording.get("driver", "recorded"))

    def nvmlDeviceGetCount(self) -> int:
        return len(self._handles)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle:
        return self._handles[index]

    def nvmlDeviceGetUUID(self, handle: _Handle) -> str:
        return str(self._told(handle, "uuid"))

    def nvmlDeviceGetName(self, handle: _Handle) -> str:
        return str(self._told(handle, "name"))

    def nvmlDeviceGetMigMode(self, handle: _Handle) -> list[int]:
        return [int(self._told(handle, "mig"))] * 2

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: _Handle) -> int:
        return round(float(self._told(handle, "power_limit_watts")) * 1e3)

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: _Handle) -> int:
        return round(float(self._told(handle, "power_limit_watts")) * 1e3)

    def nvmlDeviceGetPersistenceMode(self, handle: _Handle) -> int:
        return int(self._told(handle, "persistence"))

    def nvmlDeviceGetEccMode(self, handle: _Handle) -> list[int]:
        return [int(self._told(handle, "ecc"))] * 2

    def nvmlDeviceGetTemperature(self, handle: _Handle, sensor: int) -> int:
        return int(self._told(handle, "temperature_celsius"))

    def nvmlDeviceGetClockInfo(self, handle: _Handle, clock: int) -> int:
        return round(float(self._told(handle, "clock_hz")) / 1e6)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: _Handle) -> int:
        return int(self._told(handle, "throttle_reasons"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: _Handle) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self._told(handle, "process_ids")]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: _Handle) -> int:
        column = self._column(handle, "energy", "energy_joules")
        row, lap = handle.now()
        return round((column[row] + lap * (column[-1] - column[0])) * 1e3)

    def nvmlDeviceGetPowerUsage(self, handle: _Handle) -> int:
        column = self._column(handle, "draw", "average_watts")
        return round(column[handle.now()[0]] * 1e3)

    def nvmlDeviceGetFieldValues(
        self, handle: _Handle, asked: list[tuple[int, int]]
    ) -> list[SimpleNamespace]:
        return [self._field(handle, *one) for one in asked]

    def _field(self, handle: _Handle, number: int, scope: int) -> SimpleNamespace:
        name = _COLUMNS.get((number, scope), "none")
        try:
            column = self._column(handle, name, f"{name}_watts")
        except self._error as error:
            return SimpleNamespace(nvmlReturn=error.value, value=None, timestamp=0)
        row, lap = handle.now()
        read = handle.told.get("stamps") == "read"
        stamp_us = round(time.time() * 1e6) if read else handle.stamp_us(row, lap)
        value = SimpleNamespace(uiVal=round(column[row] * 1e3))
        return SimpleNamespace(nvmlReturn=0, value=value, timestamp=stamp_us)

    def nvmlDeviceGetSamples(
        self, handle: _Handle, kind: int, since_us: int
    ) -> tuple[int, list[SimpleNamespace]]:
        column = self._column(handle, "samples", "instant_watts")
        last, lap = handle.now()
        rows = [(row, lap - 1) for row in range(len(column) - 1)] if lap else []
        rows += [(row, lap) for row in range(last + 1)]
        found = [
            SimpleNamespace(
                timeStamp=handle.stamp_us(row, before),
                sampleValue=SimpleNamespace(uiVal=round(column[row] * 1e3)),
            )
            for row, before in rows
        ]
        new = [sample for sample in found if sample.timeStamp > since_us]
        if not new:
            raise self._error(NOT_FOUND)
        return 1, new

    def _column(self, handle: _Handle, call: str, name: str) -> list[float]:
        self._demand(handle, call)
        column: list[float] | None = handle.told["trace"].get(name)
        if column is None:
            raise self._error(NOT_SUPPORTED)
        return column

    def _told(self, handle: _Handle, name: str) -> Any:
        self._demand(handle, name)
        if name not in handle.told:
            raise self._error(NOT_SUPPORTED)
        return handle.told[name]

    def _demand(self, handle: _Handle, call: str) -> None:
        lost_after_s = handle.told.get("lost_after_s")
        if lost_after_s is not None and time.monotonic() - handle.origin_s > lost_after_s:
            raise self._error(GPU_IS_LOST)
        if code := handle.told.get("codes", {}).get(call):
            raise self._error(code)
