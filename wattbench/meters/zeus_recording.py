"""Recorded GPUs of zeus: they answer the calls of ``zeus.device.get_gpus()``, in time.

The file is JSON. A trace repeats when it is over, and its counter goes on. Everything but ``name``
and ``trace`` may be left out.

    {"version": "0.16.0", "distribution": "zeus",     # or "zeus-ml", whose calls have other names
     "devices": [{
       "name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-…",
       "gpu_index": 2,                                 # NVML's number; none: its place in the list
       "mig": false,
       "supported": true,                              # false: the GPU has no energy counter
       "lost_after_s": null,                           # from then on every call fails
       "trace": {"time_s": […], "energy_joules": […]}}]}
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wattbench.meters.recordings import opened, played


class RecordedGpuError(Exception):
    """What recorded GPUs raise, where zeus has a class for each error."""


class RecordedZeusGpus:
    """What ``zeus.device.get_gpus()`` returns, from a recording.

    Args:
        recording: What the file holds.

    Attributes:
        gpus: One object per GPU, with the number that NVML gives it.
        distribution: Name and version of the package that was recorded.
        nvml: What answers the calls of NVML that say which GPU it is.
    """

    def __init__(self, recording: dict[str, Any]) -> None:
        self._devices: list[dict[str, Any]] = recording["devices"]
        self._origin_s = time.monotonic()
        numbered = enumerate(self._devices)
        self.gpus = [SimpleNamespace(gpu_index=told.get("gpu_index", n)) for n, told in numbered]
        name = recording.get("distribution", "zeus")
        self.distribution = (name, str(recording.get("version", "recorded")))
        self.nvml = RecordedIdentity(
            {gpu.gpu_index: told for gpu, told in zip(self.gpus, self._devices, strict=True)}
        )
        if name == "zeus-ml":
            self.getName, self.getTotalEnergyConsumption = self._name, self._energy
        else:
            self.get_name, self.get_total_energy_consumption = self._name, self._energy

    @classmethod
    def load(cls, path: Path) -> RecordedZeusGpus:
        """Open a recording.

        Raises:
            UsageError: If the file cannot be read or is no recording.
        """
        with opened(path, "zeus") as recording:
            for device in recording["devices"]:
                times, joules = device["trace"]["time_s"], device["trace"]["energy_joules"]
                if len(times) != len(joules) or not times:
                    raise ValueError(f"a trace has {len(times)} times, {len(joules)} energies")
                _ = device["name"]
        return cls(recording)

    def __len__(self) -> int:
        return len(self._devices)

    def _name(self, gpu_index: int) -> str:
        return str(self._devices[gpu_index]["name"])

    def _energy(self, gpu_index: int) -> int:
        told, since_s = self._devices[gpu_index], time.monotonic() - self._origin_s
        if not told.get("supported", True):
            raise RecordedGpuError("Not Supported")
        if since_s > (told.get("lost_after_s") or float("inf")):
            raise RecordedGpuError("GPU is lost")
        times: list[float] = told["trace"]["time_s"]
        joules: list[float] = told["trace"]["energy_joules"]
        row, lap = played(times, since_s)
        return round((joules[row] + lap * (joules[-1] - joules[0])) * 1e3)


class RecordedIdentity:
    """The calls of NVML that say which GPU it is.

    Args:
        devices: Entries of the recording by number of the GPU.
    """

    NVMLError = KeyError  # what it does not answer is not in the file

    def __init__(self, devices: dict[int, dict[str, Any]]) -> None:
        self._devices = devices

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        return self._devices[index]

    def nvmlDeviceGetUUID(self, handle: dict[str, Any]) -> str:
        return str(handle["uuid"])

    def nvmlDeviceGetMigMode(self, handle: dict[str, Any]) -> list[int]:
        return [int(handle["mig"])] * 2
