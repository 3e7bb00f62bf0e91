"""What an agent and its client say to each other: JSON texts over one WebSocket.

agent   {"hello": {"version": 1, "host": …, "machine": …}}
client  {"ping": n}                        as often as it likes
agent   {"pong": n, "clock_s": …, "unix_s": …}
client  {"start": {"engine_port": …}}
agent   {"declare": [domain, …]}, then {"samples": {name: [[time_s…], [value…]]}} and
        {"note": {"kind": …, "detail": {…}}} as they come; times are on the agent's clock
client  {"stop": true}
agent   what is left, then {"end": {"error": text or null}}
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import socket
from pathlib import Path
from typing import Any

from wattbench.core.energy import EnergyDomain

PATH = "/v1/meters"
VERSION = 1
DEFAULT_PORT = 9467
TOKEN_ENV = "WATTBENCH_AGENT_TOKEN"  # noqa: S105 - the variable's name, not a token
FLUSH_S = 0.2
"""How often an agent hands on what it has [s]."""


def machine_id() -> str:
    """A mark that two processes share if they run on one machine, containers included."""
    try:
        booted = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        booted = socket.gethostname()
    return hashlib.sha256(booted.encode()).hexdigest()[:16]


def domain_message(domain: EnergyDomain) -> dict[str, Any]:
    """A domain as JSON."""
    return dataclasses.asdict(domain) | {"devices": list(domain.devices)}


def read_domain(message: dict[str, Any]) -> EnergyDomain:
    """A domain from JSON; fields that a newer agent has and we do not are left out.

    Raises:
        TypeError: If a field is missing.
    """
    known = {field.name for field in dataclasses.fields(EnergyDomain)}
    fields = {name: value for name, value in message.items() if name in known}
    return EnergyDomain(**fields | {"devices": tuple(fields.get("devices", ()))})


def samples_message(
    buffered: dict[str, tuple[list[float], list[float]]],
) -> dict[str, list[list[float | None]]]:
    """Samples by domain as JSON, which has no NaN."""
    return {
        name: [list(times), [value if math.isfinite(value) else None for value in values]]
        for name, (times, values) in buffered.items()
    }
