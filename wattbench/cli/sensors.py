"""Meters from their texts, and the sensors that this machine has."""

from __future__ import annotations

from typing import Any

from wattbench import plugins
from wattbench.core.errors import MeterError, WattbenchError
from wattbench.core.protocols import Backend, Meter
from wattbench.hardware import is_this_machine
from wattbench.plugins import PluginContext, PluginSpec, parse_options, parse_spec

SENSORS = ("nvml", "amdsmi", "rapl", "hwmon", "apple")
"""Meters that read a sensor of the machine they run on, without being told where."""


def meter_spec(text: str) -> tuple[PluginSpec, Any]:
    """Name and typed options of ``NAME[,key=value…]``.

    Raises:
        UsageError: If there is no such meter, or it has no such option.
    """
    spec = parse_spec(text)
    return spec, parse_options(spec, plugins.find("meters", spec.name).Options)


def build_meter(spec: PluginSpec, options: Any, context: PluginContext) -> Meter:
    """A meter, not started.

    Raises:
        WattbenchError: If it cannot work here.
    """
    meter_class = plugins.find("meters", spec.name)
    reason = meter_class.availability()
    if reason is not None:
        raise WattbenchError(f"meter {spec.name} cannot work here: {reason}")
    meter: Meter = meter_class(options, context)
    return meter


def default_sensors() -> list[str]:
    """Names of the meters whose sensors can be read here.

    Raises:
        WattbenchError: If there is none.
    """
    found = [name for name in SENSORS if name in plugins.names("meters") and _opens(name)]
    if not found:
        raise WattbenchError(
            "no sensor can be read on this machine; `wattbench doctor` says why, and what to do. "
            "Name a --meter to go on without, such as --meter cpu-load"
        )
    return found


def auto_meters(backend: Backend) -> list[str]:
    """What ``--meter auto`` stands for: this machine's sensors, else its CPU load.

    For an engine elsewhere it is nothing: no sensor here knows of its watts.
    """
    address = getattr(backend, "address", None)
    if address is not None and not is_this_machine(address()[0]):
        return []
    try:
        return default_sensors()
    except WattbenchError:
        return ["cpu-load"]


def _opens(name: str) -> bool:
    meter_class = plugins.find("meters", name)
    if meter_class.availability() is not None:
        return False
    try:
        demand_source(meter_class(meter_class.Options(), PluginContext(hardware=None, seed=0)))
    except MeterError:
        return False
    return True


def demand_source(meter: Meter) -> None:
    """Open what a meter would read, and close it: a meter that cannot start is said early.

    Raises:
        MeterError: If it is not there, with the way out.
    """
    opened = getattr(meter, "open_source", None)
    if opened is not None:
        opened().close()
