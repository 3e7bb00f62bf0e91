"""A recorded AMD driver: it answers the calls of ``amdsmi`` from a file, in time, errors included.

The file is JSON. Times are seconds since ``amdsmi_init``; a trace repeats when it is over, and its
counter goes on. Everything but ``uuid`` and ``trace`` may be left out.

    {"refused": 34,                                # amdsmi_init raises this status
     "devices": [{
       "uuid": "…", "name": "AMD Instinct MI300X", "power_limit_watts": 750,
       "counter_resolution_joules": 15.259e-6, "process_ids": [4711],
       "codes": {"energy": 2},                     # calls that raise a status
       "absent_watts": true,                       # power comes as UINT32_MAX
       "lost_after_s": null,                       # from then on every call fails
       "trace": {"time_s": […], "energy_joules": […], "power_watts": […]}}]}
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from wattbench.meters.recordings import check_trace, opened, played

NOT_SUPPORTED, BUSY = 2, 30
ABSENT = 0xFFFF_FFFF


class AmdSmiError(Exception):
    """What the recorded library raises, with the status that the real one would give."""

    def __init__(self, code: int) -> None:
        super().__init__(f"status {code}")
        self._code = code

    def get_error_code(self) -> int:
        """The status, as amdsmi.h numbers it."""
        return self._code


class RecordedAmdsmi:
    """What the module ``amdsmi`` is to a driver, to a recording."""

    AmdSmiException = AmdSmiError

    def __init__(self, recording: dict[str, Any]) -> None:
        self._recording = recording
        self._origin_s = 0.0

    @classmethod
    def load(cls, path: Path) -> RecordedAmdsmi:
        """Open a recording.

        Raises:
            UsageError: If the file cannot be read or is no recording.
        """
        with opened(path, "amdsmi") as recording:
            for device in recording["devices"]:
                check_trace(device["trace"])
                _ = device["uuid"]
        return cls(recording)

    def amdsmi_init(self) -> None:
        if code := self._recording.get("refused"):
            raise AmdSmiError(code)
        self._origin_s = time.monotonic()

    def amdsmi_shut_down(self) -> None:
        self._origin_s = 0.0

    def amdsmi_get_processor_handles(self) -> list[dict[str, Any]]:
        return list(self._recording["devices"])

    def amdsmi_get_gpu_device_uuid(self, handle: dict[str, Any]) -> str:
        return str(handle["uuid"])

    def amdsmi_get_gpu_asic_info(self, handle: dict[str, Any]) -> dict[str, Any]:
        return {"market_name": handle.get("name", "recorded")}

    def amdsmi_get_energy_count(self, handle: dict[str, Any]) -> dict[str, Any]:
        column, row, lap = self._now(handle, "energy", "energy_joules")
        resolution_joules = handle.get("counter_resolution_joules", 15.259e-6)
        joules = column[row] + lap * (column[-1] - column[0])
        return {
            "energy_accumulator": round(joules / resolution_joules),
            "counter_resolution": resolution_joules * 1e6,
            "timestamp": time.monotonic_ns(),
        }

    def amdsmi_get_power_info(self, handle: dict[str, Any]) -> dict[str, Any]:
        column, row, _ = self._now(handle, "power", "power_watts")
        shown = ABSENT if handle.get("absent_watts") else round(column[row])
        return {"current_socket_power": "N/A", "average_socket_power": shown}

    def amdsmi_get_power_cap_info(self, handle: dict[str, Any]) -> dict[str, Any]:
        if "power_limit_watts" not in handle:
            raise AmdSmiError(NOT_SUPPORTED)
        return {"power_cap": round(handle["power_limit_watts"] * 1e6)}

    def amdsmi_get_gpu_process_list(self, handle: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"pid": pid} for pid in handle.get("process_ids", [])]

    def _now(self, handle: dict[str, Any], call: str, name: str) -> tuple[list[float], int, int]:
        """A column of the trace, the row that stands now, and how often it was played before."""
        since_s = time.monotonic() - self._origin_s
        lost_after_s = handle.get("lost_after_s")
        if lost_after_s is not None and since_s > lost_after_s:
            raise AmdSmiError(BUSY)
        if code := handle.get("codes", {}).get(call):
            raise AmdSmiError(code)
        times, column = handle["trace"]["time_s"], handle["trace"].get(name)
        if column is None:
            raise AmdSmiError(NOT_SUPPORTED)
        return column, *played(times, since_s)
