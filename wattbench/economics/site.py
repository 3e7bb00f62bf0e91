"""How many machines a site holds: whole racks, by provisioned power.

What may be installed follows from power that is *provisioned*: what circuits, busbars and cooling
are laid out for. How fast it may run follows from *mean* power, elsewhere (`evaluate`). Installed
power never goes above the first unless an oversubscription is stated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SLACK = 1e-9
"""Of a limit, for what rounding does to sums that hit it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Limits of a site on what stands in it.

    Attributes:
        it_watts: Power for IT, after the PUE.
        cooling_watts: Heat that can be carried away; None: no limit.
        rack_count: Places; None: no limit.
        circuit_count: None: no limit.
        circuit_watts: What one circuit carries.
        oversubscription_ratio: Provisioned watts per watt that may be installed.
    """

    it_watts: float
    cooling_watts: float | None = None
    rack_count: int | None = None
    circuit_count: int | None = None
    circuit_watts: float = math.inf
    oversubscription_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """One rack of a machine, and what it yields.

    Attributes:
        rack_watts: Provisioned.
        devices_per_rack: Devices in it.
        devices_per_replica: Devices that hold the model once.
        available_count: Most devices that can be had; None: no limit.
        option: Racks of one option, for replicas of several sizes, share what can be had.
    """

    rack_watts: float
    devices_per_rack: int
    devices_per_replica: int
    available_count: int | None = None
    option: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is installed.

    Attributes:
        racks: Of each machine.
        limit: What keeps the next rack out.
    """

    racks: tuple[int, ...]
    limit: str


def circuits_per_rack(room: Room, footprint: Footprint) -> int:
    """Circuits that one rack occupies; circuits are not shared between racks."""
    return max(1, math.ceil(footprint.rack_watts / room.circuit_watts * (1 - SLACK)))


def refusal(room: Room, footprints: Sequence[Footprint], racks: Sequence[int]) -> str | None:
    """Which limit some racks break, None if they fit."""
    installed_watts = sum(n * f.rack_watts for n, f in zip(racks, footprints, strict=True))
    allowed = room.oversubscription_ratio * (1 + SLACK)
    if installed_watts > room.it_watts * allowed:
        return "provisioned power"
    if room.cooling_watts is not None and installed_watts > room.cooling_watts * allowed:
        return "cooling"
    if room.circuit_count is not None:
        used = sum(n * circuits_per_rack(room, f) for n, f in zip(racks, footprints, strict=True))
        if used > room.circuit_count:
            return "circuits"
    if room.rack_count is not None and sum(racks) > room.rack_count:
        return "rack places"
    for most, devices in _to_be_had(footprints, racks):
        if devices > most:
            return "devices to be had"
    return None


def _to_be_had(
    footprints: Sequence[Footprint], racks: Sequence[float]
) -> Iterator[tuple[int, float]]:
    """Of each option with a limit: that, and its devices in some racks."""
    devices: dict[str, float] = {}
    for count, footprint in zip(racks, footprints, strict=True):
        before = devices.get(footprint.option, 0.0)
        devices[footprint.option] = before + count * footprint.devices_per_rack
    for footprint in footprints:
        if footprint.available_count is not None:
            yield footprint.available_count, devices[footprint.option]


def plan_racks(
    room: Room,
    footprints: Sequence[Footprint],
    seconds_per_token: Sequence[float],
    wanted_tokens_per_s: float = math.inf,
) -> Plan:
    """As many whole racks as fit, or as are wanted, kept in proportion.

    Args:
        room: The site.
        footprints: One rack of each machine.
        seconds_per_token: Time that a token of the mix takes of a replica of each machine.
        wanted_tokens_per_s: Demand.
    """
    per_rate = [
        s * f.devices_per_replica / f.devices_per_rack
        for s, f in zip(seconds_per_token, footprints, strict=True)
    ]
    top = min((limit for limit in _rates(room, footprints, per_rate)), default=math.inf)
    start_rate = min(top, wanted_tokens_per_s)
    if not math.isfinite(start_rate):
        raise ValueError("nothing limits the racks")
    racks = [math.floor(start_rate * each * (1 - SLACK)) for each in per_rate]
    while True:
        given = [
            _given(n, f, s) for n, f, s in zip(racks, footprints, seconds_per_token, strict=True)
        ]
        slowest = given.index(min(given))
        if given[slowest] >= wanted_tokens_per_s:
            return Plan(racks=tuple(racks), limit="demand")
        more = [n + (place == slowest) for place, n in enumerate(racks)]
        limit = refusal(room, footprints, more)
        if limit is not None:
            return Plan(racks=tuple(racks), limit=limit)
        racks = more


def _given(racks: int, footprint: Footprint, seconds_per_token: float) -> float:
    replicas = racks * footprint.devices_per_rack // footprint.devices_per_replica
    return replicas / seconds_per_token


def _rates(
    room: Room, footprints: Sequence[Footprint], per_rate: Sequence[float]
) -> Iterator[float]:
    """The rate at which each limit is met, if racks could be cut."""
    watts = sum(r * f.rack_watts for r, f in zip(per_rate, footprints, strict=True))
    yield room.it_watts * room.oversubscription_ratio / watts
    if room.cooling_watts is not None:
        yield room.cooling_watts * room.oversubscription_ratio / watts
    if room.circuit_count is not None:
        yield room.circuit_count / sum(
            r * circuits_per_rack(room, f) for r, f in zip(per_rate, footprints, strict=True)
        )
    if room.rack_count is not None:
        yield room.rack_count / sum(per_rate)
    for most, devices in _to_be_had(footprints, per_rate):
        yield most / devices
