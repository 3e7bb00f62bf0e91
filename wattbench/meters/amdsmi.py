"""AMD GPUs through amdsmi: the energy accumulator, and beside it the socket's power.

Per GPU, where the driver offers it:

    gpu:N           energy accumulator × its resolution (about 15.3 µJ a count); new every ms
    gpu:N/power     ``current_socket_power`` (MI300 and later), else ``average_socket_power``

The accumulator has given wrong values on some stacks, so the power is kept beside it: where the two
differ, the finding ``counter_vs_integral_residual`` says so. Fields that a card does not have come
as UINT32_MAX or ``N/A`` and are taken for what they are. In a partitioned GPU (CPX, DPX) the
sensors are the whole socket's, and only its first partition has them. Guests of a virtual machine
have none.

Prior: gain within ± 7 %, offset within ± 8 W, uniform. AMD states none; these are what cards of the
other vendor were found to hold.

Source: AMD SMI library documentation (ROCm 6.2 to 7.1), ``amdsmi_get_energy_count`` and
``amdsmi_get_power_info``; ROCm/amdsmi issue 38 on the accumulator's unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.core.run import Json
from wattbench.meters.amdsmi_recording import RecordedAmdsmi
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source, bracketed
from wattbench.plugins import PluginContext, option

NO_VALUE = (0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, "N/A")
POWER_KEYS = ("current_socket_power", "average_socket_power", "socket_power")
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 2, 10, 34
"""Return codes, as amdsmi.h numbers them."""
_FIXES = {
    DRIVER_NOT_LOADED: ("the amdgpu driver is not loaded", "sudo modprobe amdgpu"),
    NO_PERMISSION: (
        "the AMD driver refuses to be read by this user",
        "sudo usermod -aG render,video $USER, then log in again.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdsmiOptions:
    """Options of ``--meter amdsmi``."""

    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    recording: str | None = option(None, "JSON file of a recorded driver, played instead of one")
    gain_half_width_fraction: float = option(0.07, "prior on the gain: uniform within this")
    offset_half_width_watts: float = option(8.0, "prior on the offset: uniform within this [W]")


class AmdsmiMeter(PolledMeter):
    """Reads AMD GPUs through the driver: energy accumulator and socket power."""

    Options = AmdsmiOptions

    def __init__(self, options: AmdsmiOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Open the driver, or what was recorded of one.

        Raises:
            MeterError: If there is no library, no driver or no GPU, or it must not be read.
        """
        if self._options.recording is not None:
            return _Gpus(RecordedAmdsmi.load(Path(self._options.recording)), self._options)
        try:
            import amdsmi
        except (ImportError, OSError, KeyError, AttributeError) as error:
            raise MeterError(
                "there is no AMD SMI library here (module amdsmi, part of ROCm)",
                "Install amd-smi-lib of ROCm, then pip install /opt/rocm/share/amd_smi; without an "
                "AMD GPU leave it.",
            ) from error
        return _Gpus(amdsmi, self._options)


class _Gpus(Source):
    """All GPUs of a driver.

    Args:
        library: The module ``amdsmi``, or what answers the same calls.
    """

    def __init__(self, library: Any, options: AmdsmiOptions) -> None:
        self._library = library
        self._error: type[Exception] = library.AmdSmiException
        try:
            library.amdsmi_init()
            handles = library.amdsmi_get_processor_handles()
            self._devices = [_Gpu(library, h, n, options) for n, h in enumerate(handles)]
        except self._error as error:
            raise MeterError(*_explain(error)) from error
        found = [device for device in self._devices if device.reads]
        if not found:
            raise MeterError(
                f"the AMD driver shows {len(self._devices)} GPUs, none with power or energy",
                "In a virtual machine measure on the host; in a container add --device /dev/kfd "
                "--device /dev/dri.",
            )
        self._devices = found
        self._facts: list[tuple[str, Mapping[str, Json]]] = [
            ("device", device.facts()) for device in found
        ]
        self.domains = tuple(read[0] for device in found for read in device.reads)

    def read(self, now_s: Clock) -> list[Reading]:
        readings: list[Reading] = []
        failures: list[Exception] = []
        for domain, read in (one for device in self._devices for one in device.reads):
            try:
                readings.append(bracketed(now_s, domain.name, read))
            except (self._error, _Absent) as error:
                failures.append(error)
        if not readings:
            raise MeterError(*_explain(failures[0]))
        return readings

    def changes(self) -> list[tuple[str, Mapping[str, Json]]]:
        facts, self._facts = self._facts, []
        return facts + [event for device in self._devices for event in device.changes()]

    def close(self) -> None:
        with suppress(self._error):
            self._library.amdsmi_shut_down()


@dataclass(slots=True)
class _Gpu:
    """One GPU: its domains and the calls that feed them."""

    library: Any
    handle: Any
    index: int
    options: AmdsmiOptions
    reads: list[tuple[EnergyDomain, Callable[[], float]]] = field(default_factory=list)
    _process_ids: list[int] | None = None

    def __post_init__(self) -> None:
        """Find out what it answers."""
        uuid = str(self.library.amdsmi_get_gpu_device_uuid(self.handle))
        name = str(self.library.amdsmi_get_gpu_asic_info(self.handle).get("market_name", "GPU"))
        counter = EnergyDomain(
            name=f"gpu:{self.index}",
            meter="amdsmi",
            quantity="energy_counter",
            kind="counter",
            boundary="board",
            devices=(uuid,),
            method=f"amdsmi_get_energy_count of {name}",
            gain_half_width_fraction=self.options.gain_half_width_fraction,
            offset_half_width_watts=self.options.offset_half_width_watts,
            on_client_host=True,
        )
        power = replace(counter, quantity="power", kind="integrated")
        power = replace(power, method=f"amdsmi_get_power_info of {name}")
        has_counter = self._answers(self._joules)
        if has_counter:
            self.reads.append((counter, self._joules))
        if self._answers(self._watts):
            below = replace(power, name=f"{counter.name}/power", parent=counter.name)
            self.reads.append((below if has_counter else power, self._watts))

    def _joules(self) -> float:
        found = self.library.amdsmi_get_energy_count(self.handle)
        count = found.get("energy_accumulator", found.get("power"))
        return _number(count) * float(found["counter_resolution"]) * 1e-6

    def _watts(self) -> float:
        found = self.library.amdsmi_get_power_info(self.handle)
        values = [found[key] for key in POWER_KEYS if found.get(key) not in (*NO_VALUE, None)]
        return _number(values[0] if values else None)

    def _answers(self, read: Callable[[], float]) -> bool:
        try:
            read()
        except _Absent:
            return False
        except self.library.AmdSmiException as error:
            if _code(error) in (NO_PERMISSION, DRIVER_NOT_LOADED):
                raise
            return False
        return True

    def facts(self) -> dict[str, Json]:
        """What it is and how it is set, as the detail of an event."""
        domain = self.reads[0][0]
        found: dict[str, Json] = {"domain": domain.name, "uuid": domain.devices[0]}
        with suppress(self.library.AmdSmiException, _Absent):
            cap = self.library.amdsmi_get_power_cap_info(self.handle)
            found["power_limit_watts"] = _number(cap.get("power_cap")) / 1e6
        return found

    def changes(self) -> Iterator[tuple[str, Mapping[str, Json]]]:
        """Events since the last look: processes that came or went."""
        with suppress(self.library.AmdSmiException):
            running = self.library.amdsmi_get_gpu_process_list(self.handle)
            process_ids = sorted(int(process["pid"]) for process in running)
            if process_ids != self._process_ids:
                self._process_ids = process_ids
                name = self.reads[0][0].name
                yield "device_processes", {"domain": name, "process_ids": [*process_ids]}


class _Absent(Exception):
    """A field that this card does not have."""


def _number(value: Any) -> float:
    if value is None or value in NO_VALUE:
        raise _Absent
    return float(value)


def _code(error: Exception) -> int:
    tell = getattr(error, "get_error_code", None)
    return int(tell()) if tell else 0


def _explain(error: Exception) -> tuple[str, str | None]:
    return _FIXES.get(_code(error), (f"amdsmi says: {error}", None))
