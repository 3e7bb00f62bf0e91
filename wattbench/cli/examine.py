"""What ``wattbench doctor`` finds out: each meter is started for a moment, and watched."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from wattbench import plugins
from wattbench.core.energy import Trace
from wattbench.core.errors import MeterError, WattbenchError
from wattbench.core.protocols import Meter
from wattbench.energy import characterise
from wattbench.plugins import Group, PluginContext, PluginSpec, parse_options, parse_spec
from wattbench.testing import MemorySink

LOOK_S = 1.0
"""How long a meter runs to show its update period [s]."""
PYNVML_IS_NVIDIAS = 12
"""First version of the package pynvml that leaves the module to nvidia-ml-py."""


def backends() -> list[dict[str, Any]]:
    """Each backend: whether it can work here, or why not."""
    return [_named("backends", name) for name in plugins.names("backends")]


def meters(specs: Sequence[str], look_s: float = LOOK_S) -> list[dict[str, Any]]:
    """Each meter: what it measures here, or why it does not, and what to do about it.

    Args:
        specs: Meters as ``--meter`` takes them; empty: every plug-in with its defaults.
        look_s: How long each runs [s].
    """
    return asyncio.run(_all(specs or plugins.names("meters"), look_s))


async def _all(specs: Sequence[str], look_s: float) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_meter(spec, look_s) for spec in specs)))


def _named(group: Group, name: str) -> dict[str, Any]:
    plugin = plugins.find(group, name)
    about = (plugin.__doc__ or "").strip().partition("\n")[0].replace("``", "")
    reason = plugin.availability()
    return {"name": name, "usable": reason is None, "reason": reason, "fix": None, "about": about}


async def _meter(text: str, look_s: float) -> dict[str, Any]:
    spec = parse_spec(text)
    plugin = plugins.find("meters", spec.name)
    row = _named("meters", spec.name) | {"spec": text, "domains": [], "read_cost_s": None}
    wanting = _wanting(spec, plugin)
    if wanting is not None:
        return row | {"usable": None} | wanting
    options = parse_options(spec, plugin.Options)
    if row["reason"] is not None:
        return row
    try:
        meter = plugin(options, PluginContext(hardware=None, seed=0))
        sink = await _watched(meter, look_s)
    except MeterError as error:
        return row | {"usable": False, "reason": error.reason, "fix": error.fix}
    except WattbenchError as error:
        return row | {"usable": False, "reason": str(error)}
    return row | {
        "domains": [_domain(trace) for trace in sink.traces().values()],
        "read_cost_s": _read_cost_s(sink),
    }


def _wanting(spec: PluginSpec, plugin: Any) -> dict[str, str] | None:
    """Why a meter cannot be tried on its own, None if it can."""
    if getattr(plugin, "needs_engine", False):
        return {"reason": f"comes with --backend {spec.name}"}
    if getattr(plugin, "needs_profile", False):
        return {"reason": "takes the power of a machine profile: add --hardware NAME to the run"}
    fields = dataclasses.fields(plugin.Options)
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in spec.values]
    if missing:
        asked = ",".join(f"{name}=…" for name in missing)
        fix = f"wattbench doctor --meter {spec.name},{asked}"
        return {"reason": "it has to be told where", "fix": fix}
    return None


async def _watched(meter: Meter, look_s: float) -> MemorySink:
    sink = MemorySink()
    await meter.start(sink)
    await asyncio.sleep(look_s)
    await meter.stop()
    return sink


def _read_cost_s(sink: MemorySink) -> float | None:
    """CPU time of one read [s], None if the meter does not tell."""
    spent = [event.detail for event in sink.events if event.kind == "meter_overhead"]
    reads = int(str(spent[-1]["reads"])) if spent else 0
    return float(str(spent[-1]["cpu_s"])) / reads if reads else None


def _domain(trace: Trace) -> dict[str, Any]:
    domain = trace.domain
    seen = characterise(trace) if len(trace.time_s) > 1 else None
    return {
        "domain": domain.name,
        "quantity": domain.quantity,
        "kind": domain.kind,
        "boundary": domain.boundary,
        "current": domain.current,
        "devices": list(domain.devices),
        "parent": domain.parent,
        "method": domain.method,
        "update_period_s": domain.update_period_s or (seen.update_period_s if seen else None),
        "averaging_window_s": domain.averaging_window_s
        or (seen.averaging_window_s if seen else None),
        "coverage_fraction": domain.coverage_fraction,
        "quantum_watts": seen.quantum_watts if seen else None,
        "quantum_joules": seen.quantum_joules if seen else None,
        "gain_half_width_fraction": domain.gain_half_width_fraction,
        "offset_half_width_watts": domain.offset_half_width_watts,
        "stamped_by": domain.stamped_by,
    }


def module_clashes() -> list[dict[str, str]]:
    """Installed packages that take each other's module, and how to get out of it."""
    installed = _distributions()
    found = []
    if {"zeus", "zeus-ml"} <= set(installed):
        found.append(
            {
                "module": "zeus",
                "reason": "zeus and zeus-ml are both installed, and both are the module zeus",
                "fix": "pip uninstall -y zeus zeus-ml && pip install zeus",
            }
        )
    version = installed.get("pynvml", "")
    if version.partition(".")[0].isdigit() and int(version.partition(".")[0]) < PYNVML_IS_NVIDIAS:
        found.append(
            {
                "module": "pynvml",
                "reason": f"the package pynvml {version} is not NVIDIA's, and takes the place of "
                "its module",
                "fix": "pip uninstall -y pynvml && pip install --force-reinstall nvidia-ml-py",
            }
        )
    return found


def _distributions() -> dict[str, str]:
    """Versions of the installed packages, by their names as an index spells them."""
    found: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        if name := each.metadata["Name"]:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), each.version)
    return found
