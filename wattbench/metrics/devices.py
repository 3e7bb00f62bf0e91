"""Which of the measured devices do the work.

Named devices (``--devices``, ``--role``) are taken at their word. With ``auto``, a device works if
a process of the engine runs on it: meters note the processes of each device, the backend or an
agent beside the engine notes the engine's. Where nobody can tell, every device is charged.
"""

from __future__ import annotations

from collections.abc import Iterator

from wattbench.core.energy import EnergyDomain
from wattbench.core.run import Event, RawRun

ATTACHED = "attached"
"""Meter of a log that was added to a stored run."""


def is_used(raw: RawRun, domain: EnergyDomain) -> bool:
    """Whether a domain's devices are charged for the work."""
    named = named_devices(raw)
    if named is not None:
        return any(domain.covers(device) for device in named)
    if domain.meter == ATTACHED and _measured_meanwhile(raw, domain):
        return False
    watched, working = watched_devices(raw), working_devices(raw)
    if not working or not watched.intersection(domain.devices):
        return True
    return bool(working.intersection(domain.devices))


def _measured_meanwhile(raw: RawRun, attached: EnergyDomain) -> bool:
    """Whether the run had a meter of its own at the boundary of a log that was added later.

    What the run concluded stays as it was; the log stands beside it.
    """
    own = [trace.domain for trace in raw.traces if trace.domain.meter != ATTACHED]
    return any(domain.boundary == attached.boundary for domain in own)


def named_devices(raw: RawRun) -> tuple[str, ...] | None:
    """Devices that the user named, by themselves or in a role; None if none."""
    in_roles = tuple(device for devices in raw.record.roles.values() for device in devices)
    return raw.record.devices or in_roles or None


def watched_devices(raw: RawRun) -> frozenset[str]:
    """Devices whose processes are known."""
    return frozenset(device for device, _, _ in _processes(raw))


def working_devices(raw: RawRun) -> frozenset[str]:
    """Devices on which a process of the engine ran; empty if nobody can tell."""
    return frozenset(
        device
        for device, host, process_ids in _processes(raw)
        if process_ids & engine_process_ids(raw, host)
    )


def foreign_process_ids(raw: RawRun) -> dict[str, frozenset[int]]:
    """Processes that are not the engine's, by the working device on which they ran."""
    working = working_devices(raw)
    found: dict[str, frozenset[int]] = {}
    for device, host, process_ids in _processes(raw):
        others = process_ids - engine_process_ids(raw, host)
        if device in working and others:
            found[device] = found.get(device, frozenset()) | others
    return found


def engine_process_ids(raw: RawRun, host: str | None) -> frozenset[int]:
    """Processes of the engine on a host; None is the machine that runs wattbench."""
    noted = [_ids(e) for e in _events(raw, "engine_processes") if e.detail.get("host") == host]
    own = raw.record.engine.process_ids if host is None else ()
    return frozenset(own).union(*noted)


def _processes(raw: RawRun) -> Iterator[tuple[str, str | None, frozenset[int]]]:
    """Device, its host, and the processes that ran on it at some time."""
    domains = {trace.domain.name: trace.domain for trace in raw.traces}
    for event in _events(raw, "device_processes"):
        domain = domains.get(str(event.detail.get("domain")))
        if domain is not None:
            for device in domain.devices:
                yield device, domain.host, _ids(event)


def _events(raw: RawRun, kind: str) -> list[Event]:
    return [event for event in raw.events if event.kind == kind]


def _ids(event: Event) -> frozenset[int]:
    found = event.detail.get("process_ids")
    return frozenset(int(str(one)) for one in found) if isinstance(found, list) else frozenset()
