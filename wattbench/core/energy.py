"""Records about energy: where a joule comes from, traces, and measured energies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Kind = Literal["counter", "integrated", "derived", "reported", "modelled", "nameplate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of energy from the most to the least trustworthy."""

Boundary = Literal["chip", "board", "module", "package", "node", "rack", "facility"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
"""What a joule includes, from the narrowest to the widest."""

Quantity = Literal["power", "energy_counter"]


def worst_kind(kinds: list[Kind]) -> Kind:
    """The kind that a sum of energies inherits: the worst of its parts."""
    return max(kinds, key=KINDS.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDomain:
    """One stream of samples: what is measured, on which devices, and how far to believe it.

    Attributes:
        name: Unique within a run, such as ``gpu:0`` or ``cpu_package:0``.
        meter: Plug-in that produced the samples.
        quantity: ``power`` [W] or a cumulative ``energy_counter`` [J].
        kind: Provenance of the joules that follow from the samples.
        boundary: What the joules include.
        current: ``ac`` or ``dc`` for a node and wider, else None.
        devices: Identifiers of the devices covered.
        parent: Domain that already contains this one, so that a sum counts it once.
        method: How the samples come about, in words, for the reader of a result.
        interpolation: Between two power samples: ``linear``, or ``hold`` of the last value.
        update_period_s: Time between two new sensor values [s], None if unknown.
        averaging_window_s: A power value is the mean over this long before it [s]; None: instant.
        coverage_fraction: Share of each update period that the sensor looks at; None if unknown.
        stamped_by: Whether a sample's time is the ``sensor``'s own, at its update, or that of the
            ``reader``, who came some time after the update.
        wrap_joules: Counter range [J], None if it does not wrap.
        gain_half_width_fraction: Prior on true/read − 1: uniform within ± this.
        offset_half_width_watts: Prior on true − read: uniform within ± this [W].
        on_client_host: Whether the samples come from the machine that runs wattbench.
        host: Address of the machine that was measured, as its meter was reached; None if that is
            the machine that runs wattbench, or nobody told.
        clock_half_width_s: How far the samples' clock may be from the run clock [s], uniform.
    """

    name: str
    meter: str
    quantity: Quantity
    kind: Kind
    boundary: Boundary
    devices: tuple[str, ...]
    method: str
    current: Literal["ac", "dc"] | None = None
    parent: str | None = None
    interpolation: Literal["linear", "hold"] = "linear"
    update_period_s: float | None = None
    averaging_window_s: float | None = None
    coverage_fraction: float | None = 1.0
    stamped_by: Literal["sensor", "reader"] = "reader"
    wrap_joules: float | None = None
    gain_half_width_fraction: float = 0.0
    offset_half_width_watts: float = 0.0
    on_client_host: bool = False
    host: str | None = None
    clock_half_width_s: float = 0.0

    def covers(self, device: str) -> bool:
        """Whether a user means this domain by its name, its index or one of its devices.

        ``HOST/…`` means the domains of one host only; ``HOST/*`` all of them.
        """
        host, slash, rest = device.rpartition("/")
        if slash and self.host is not None and host == self.host:
            device = rest
        name = self.name.removeprefix(f"{self.host}/") if self.host else self.name
        known = (self.name, name, name.partition("/")[0].rpartition(":")[2], *self.devices)
        return device in known or (device == "*" and bool(slash))


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTrace:
    """Power samples of one domain.

    Attributes:
        domain: What was sampled.
        time_s: Shape (n,), non-decreasing [s, run clock].
        power_watts: Shape (n,) [W]; NaN marks a failed read.
    """

    domain: EnergyDomain
    time_s: FloatArray
    power_watts: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterTrace:
    """Readings of a cumulative energy counter of one domain.

    Attributes:
        domain: What was read.
        time_s: Shape (n,), non-decreasing [s, run clock].
        energy_joules: Shape (n,) [J]; NaN marks a failed read.
    """

    domain: EnergyDomain
    time_s: FloatArray
    energy_joules: FloatArray


Trace = PowerTrace | CounterTrace


def trace_of(domain: EnergyDomain, time_s: FloatArray, watts_or_joules: FloatArray) -> Trace:
    """Samples of a domain as a trace: of power or of a counter, as its quantity says."""
    if domain.quantity == "power":
        return PowerTrace(domain=domain, time_s=time_s, power_watts=watts_or_joules)
    return CounterTrace(domain=domain, time_s=time_s, energy_joules=watts_or_joules)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyMeasurement:
    """Energy of one or several domains over one window.

    Attributes:
        energy_joules: The measured energy [J].
        duration_s: Window length [s].
        kind: Worst kind of the parts.
        boundary: Common boundary of the parts.
        devices: Devices covered.
        domains: Names of the domains summed.
        method: How the number came about.
        gain_half_widths_joules: One uniform half-width [J] per domain: reading scale unknown.
        offset_half_widths_joules: One uniform half-width [J] per domain: reading offset unknown.
        edge_joules: One standard deviation [J]: samples do not fall on the window's edges.
        coverage_half_width_joules: Uniform half-width [J]: what the sensor does not look at.
        alignment_half_width_joules: Uniform half-width [J]: the samples' clock is not the run's.
    """

    energy_joules: float
    duration_s: float
    kind: Kind
    boundary: Boundary
    devices: tuple[str, ...]
    domains: tuple[str, ...]
    method: str
    gain_half_widths_joules: tuple[float, ...]
    offset_half_widths_joules: tuple[float, ...]
    edge_joules: float
    coverage_half_width_joules: float = 0.0
    alignment_half_width_joules: float = 0.0

    @property
    def uniform_half_widths_joules(self) -> tuple[float, ...]:
        """Every uniform term [J]."""
        return (
            *self.gain_half_widths_joules,
            *self.offset_half_widths_joules,
            self.coverage_half_width_joules,
            self.alignment_half_width_joules,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """Why there is no energy: a reason code, and the same for a reader."""

    reason: str
    message: str
