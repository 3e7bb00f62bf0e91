"""GPUs through the package ``zeus``: the energy counters of its device objects, and nothing else.

For those who have zeus in place: of an NVIDIA GPU it hands on the counter that ``nvml`` reads
itself, of an AMD GPU the accumulator that ``amdsmi`` reads. Per GPU:

    gpu:N       energy counter since the driver was loaded [mJ]; N is the driver's number, also
                where CUDA_VISIBLE_DEVICES hides GPUs
    module:N    a Grace-Hopper or Grace-Blackwell module: there the counter is the module's

What zeus would do besides is left alone. ``PowerMonitor.get_energy`` drops repeated values, so
that a steady power has no energy at all; the windows of ``ZeusMonitor`` give 0 J where there is no
GPU, sum GPUs only and look at no reset. Its CPUs start a process each that nothing ends, and count
``psys`` beside the packages in it: ``rapl`` reads the same files.

What zeus cannot tell: the GPU of a module apart from the rest of it, the power beside the counter,
UUIDs, processes, clocks, and whether a GPU is cut into MIG slices. UUID and MIG mode are asked of
NVML, where it answers; a GPU in MIG mode is refused, as its counter is that of all slices together.

The prior is that of NVML's sensors: gain within ± 7 %, offset within ± 8 W, uniform.

Source: zeus 0.11.0 and 0.16.0, ``zeus/device/gpu``, ``zeus/device/cpu/rapl.py`` and
``zeus/monitor/power.py``.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.energy.sensors import nvml_prior
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source, bracketed
from wattbench.meters.zeus_recording import RecordedZeusGpus
from wattbench.plugins import PluginContext, option

INSTALL = "pip install 'wattbench[zeus]'; NVIDIA GPUs are read as well by --meter nvml without it."
BOTH = "pip uninstall -y zeus zeus-ml && pip install zeus"
PYNVML = "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py"
NO_GPU = "In a container, start it with all GPUs (docker run --gpus all); without a GPU leave it."
MODULES = ("GH200", "GB200", "GB300")


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeusOptions:
    """Options of ``--meter zeus``."""

    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    recording: str | None = option(None, "JSON file of recorded GPUs, played instead of real ones")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.period_s is not None and not 0.002 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.002 to 60 s")


class ZeusMeter(PolledMeter):
    """Reads the energy counters of GPUs through the package zeus."""

    Options = ZeusOptions

    def __init__(self, options: ZeusOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Open the GPUs that zeus finds, or recorded ones.

        Raises:
            MeterError: If zeus is missing or there twice, finds no GPU, or one without a counter.
        """
        if self._options.recording is not None:
            played = RecordedZeusGpus.load(Path(self._options.recording))
            return _Gpus(played, played.nvml, *played.distribution)
        name, version = installed()
        return _Gpus(_real_gpus(), _nvml(), name, version)


def installed() -> tuple[str, str]:
    """Name and version of the distribution that the module ``zeus`` comes from.

    Raises:
        MeterError: If there is none, or more than one.
    """
    found = []
    for name in ("zeus", "zeus-ml"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found.append((name, importlib.metadata.version(name)))
    if not found:
        raise MeterError("the package zeus is not installed", INSTALL)
    if len(found) > 1:
        raise MeterError("zeus and zeus-ml are both installed, and both are the module zeus", BOTH)
    return found[0]


def _real_gpus() -> Any:
    """What zeus says of the GPUs here; imported only now, since it is heavy."""
    try:
        from zeus.device import get_gpus

        for name in list(logging.root.manager.loggerDict):
            if name.partition(".")[0] == "zeus":  # older ones log to standard output
                logging.getLogger(name).setLevel(logging.ERROR)
        return get_gpus()
    except ImportError as error:  # also what zeus raises where pynvml is not NVIDIA's
        fix = PYNVML if "pynvml" in str(error) else "pip install -U 'wattbench[zeus]'"
        raise MeterError(f"zeus cannot be imported: {str(error).rstrip('. ')}", fix) from error
    except Exception as error:  # zeus lets through what pynvml and amdsmi raise as they load
        raise MeterError(f"zeus finds no GPU: {str(error).rstrip('.')}", NO_GPU) from error


def _nvml() -> Any:
    import pynvml

    return pynvml


class _Gpus(Source):
    """All GPUs that zeus shows.

    Args:
        gpus: What ``zeus.device.get_gpus()`` returns, or what answers the same calls.
        nvml: ``pynvml``, or what answers the same calls.
        distribution: Package that it comes from.
        version: Version of that.
    """

    def __init__(self, gpus: Any, nvml: Any, distribution: str, version: str) -> None:
        self._gpus, self._nvml = gpus, nvml
        stale = ", the frozen name of zeus" if distribution == "zeus-ml" else ""
        self._method = f"{distribution} {version}{stale}"
        self._read_mj = _call(gpus, "get_total_energy_consumption", "getTotalEnergyConsumption")
        self._name_of = _call(gpus, "get_name", "getName")
        if not len(gpus):
            raise MeterError("zeus shows no GPU", NO_GPU)
        self.domains = tuple(self._domain(place) for place in range(len(gpus)))

    def _domain(self, place: int) -> EnergyDomain:
        number = int(getattr(self._gpus.gpus[place], "gpu_index", place))
        try:
            name, joules = str(self._name_of(place)), self._joules(place)
        except Exception as error:  # its own classes, or a KeyError of what amdsmi returns
            raise MeterError(
                f"zeus cannot read the energy of GPU {number}: {error}",
                "--meter nvml or amdsmi, which integrate power where there is no counter.",
            ) from error
        if not joules > 0:
            raise MeterError(
                f"zeus gives {joules:g} J as the energy so far of GPU {number} ({name})",
                "A counter that never moved is none: --meter nvml integrates power.",
            )
        module = any(word in name for word in MODULES)
        prior = nvml_prior("instant", name)
        top = f"{'module' if module else 'gpu'}:{number}"
        return EnergyDomain(
            name=top,
            meter="zeus",
            quantity="energy_counter",
            kind="counter",
            boundary="module" if module else "board",
            devices=(self._uuid(number) or top,),
            method=f"get_total_energy_consumption of {name} by {self._method}",
            gain_half_width_fraction=prior.gain_half_width_fraction,
            offset_half_width_watts=prior.offset_half_width_watts,
            on_client_host=True,
        )

    def _uuid(self, number: int) -> str | None:
        """Its UUID, None where NVML does not answer.

        Raises:
            MeterError: If it is in MIG mode.
        """
        uuid: str | None = None
        sliced = False
        with suppress(self._nvml.NVMLError):  # an AMD GPU is unknown to it, an old one has no MIG
            handle = self._nvml.nvmlDeviceGetHandleByIndex(number)
            uuid = str(self._nvml.nvmlDeviceGetUUID(handle))
            sliced = bool(self._nvml.nvmlDeviceGetMigMode(handle)[0])
        if sliced:
            raise MeterError(
                f"GPU {number} ({uuid}) is in MIG mode: its counter is that of the whole GPU, so "
                "that no joule can be charged to a slice",
                "Measure all slices together with --meter nvml,mig=whole, or switch MIG off.",
            )
        return uuid

    def _joules(self, place: int) -> float:
        return float(self._read_mj(place)) / 1e3

    def read(self, now_s: Clock) -> list[Reading]:
        readings: list[Reading] = []
        failures: list[Exception] = []
        for place, domain in enumerate(self.domains):
            try:
                readings.append(bracketed(now_s, domain.name, lambda: self._joules(place)))  # noqa: B023
            except Exception as error:  # likewise; and one lost GPU must not take the others along
                failures.append(error)
                readings.append(Reading(domain.name, now_s(), math.nan))
        if len(failures) == len(self.domains):
            raise MeterError(f"zeus gives no energy any more: {failures[0]}")
        return readings


def _call(gpus: Any, name: str, old_name: str) -> Callable[[int], Any]:
    """A call by the name that it has had since zeus 0.13, else by the one before."""
    found = getattr(gpus, name, None) or getattr(gpus, old_name, None)
    if found is None:
        raise MeterError(f"this zeus has no {name}", "pip install -U 'wattbench[zeus]'")
    call: Callable[[int], Any] = found
    return call
