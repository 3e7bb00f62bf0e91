"""NVIDIA GPUs through NVML: the energy counter, and beside it what the power sensor says.

Per GPU, where the driver offers it:

    gpu:N            energy counter since the driver was loaded [mJ]; without it, instant power
    gpu:N/instant    field value 186: on many data-centre cards a look at 25 of each 100 ms
    gpu:N/average    field value 185: mean over the last second
    gpu:N/memory     field value 185 of the memory alone
    gpu:N/samples    the driver's own buffer of power samples, with ``samples=true``
    module:N         a Grace-Hopper or Grace-Blackwell module: there the counter is the module's,
                     and gpu:N is the instant power of its GPU

A field value carries a stamp of the driver. Where stamps stand as long as values do, they are the
samples' times; else they are only those of the read. Gain and offset are the priors of
``wattbench.energy.sensors``; of the counter nobody published any, it has those of the sensor that
it integrates.

A GPU that is cut into MIG slices has one sensor for all of them: it is refused, unless
``mig=whole`` asks for the whole of it.

Source: NVML API reference (NVIDIA, 2025).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wattbench.core.errors import MeterError
from wattbench.core.run import Json
from wattbench.meters.nvml_device import NvmlDevice, explain
from wattbench.meters.nvml_recording import RecordedNvml
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.plugins import PluginContext, option


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlOptions:
    """Options of ``--meter nvml``."""

    power: bool = option(True, "keep instant and average power beside the counter")
    samples: bool = option(False, "keep the driver's buffer of power samples too")
    mig: Literal["refuse", "whole"] = option("refuse", "GPUs in MIG mode: none, or as a whole")
    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    recording: str | None = option(None, "JSON file of a recorded driver, played instead of one")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.period_s is not None and not 0.002 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.002 to 60 s")


class NvmlMeter(PolledMeter):
    """Reads NVIDIA GPUs through the driver: energy counter, instant and average power."""

    Options = NvmlOptions

    def __init__(self, options: NvmlOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    @staticmethod
    def availability() -> str | None:
        """Why it cannot work here, None if it can; whether there is a driver shows on opening."""
        try:
            import pynvml
        except ImportError:
            return "the module pynvml is missing; pip install nvidia-ml-py"
        if not hasattr(pynvml, "nvmlDeviceGetFieldValues"):
            return (
                "the installed pynvml is not NVIDIA's; pip uninstall pynvml, then "
                "pip install --force-reinstall nvidia-ml-py"
            )
        return None

    def open_source(self) -> Source:
        """Open the driver, or what was recorded of one.

        Raises:
            MeterError: If there is no driver or no GPU, or it must not be read.
        """
        import pynvml

        played = self._options.recording
        library = pynvml if played is None else RecordedNvml.load(Path(played))
        return _Gpus(library, self._options)


class _Gpus(Source):
    """All GPUs of a driver.

    Args:
        library: ``pynvml``, or what answers the same calls.
    """

    def __init__(self, library: Any, options: NvmlOptions) -> None:
        import pynvml

        self._library = library
        self._error: type[Exception] = pynvml.NVMLError
        self._facts: list[tuple[str, Mapping[str, Json]]] = []
        try:
            library.nvmlInit()
            count = int(library.nvmlDeviceGetCount())
            self._devices = [NvmlDevice(library, self._error, index) for index in range(count)]
            for device in self._devices:
                device.plan(options.power, options.samples, whole_mig=options.mig == "whole")
                self._facts.append(("device", device.facts()))
        except self._error as error:
            raise MeterError(*explain(error)) from error
        if not self._devices:
            fix = "In a container, start it with all GPUs (docker run --gpus all)."
            raise MeterError("the NVIDIA driver is there, but shows no GPU", fix)
        self._reads = [read for device in self._devices for read in device.reads]
        self.domains = tuple(read.domain for read in self._reads)

    def read(self, now_s: Clock) -> list[Reading]:
        readings: list[Reading] = []
        failures: list[Exception] = []
        for planned in self._reads:
            try:
                readings += planned.readings(now_s)
            except self._error as error:
                failures.append(error)
                readings.append(Reading(planned.domain.name, now_s(), math.nan))
        if len(failures) == len(self._reads):
            raise MeterError(*explain(failures[0]))
        return readings

    def changes(self) -> list[tuple[str, Mapping[str, Json]]]:
        facts, self._facts = self._facts, []
        return facts + [event for device in self._devices for event in device.changes()]

    def close(self) -> None:
        try:
            self._library.nvmlShutdown()
        except self._error:
            return  # a driver that is gone cannot be closed
