"""Energies of a point: by domain, and summed over what works, what idles beside it, and by role."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import EnergyDomain, EnergyMeasurement, Kind, Unmeasured
from wattbench.core.result import Estimate
from wattbench.energy import add, pool
from wattbench.metrics.domain_energy import DomainEnergy
from wattbench.metrics.run import RunFacts, charged_domains, top_domains
from wattbench.stats import additive_interval

Choice = Callable[[RunFacts], list[DomainEnergy]]
"""Which domains of a run are summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledDomain:
    """Energy of one domain, or of several summed, over all windows of a point.

    Attributes:
        domain: Its description; of a sum, the first part's.
        name: Name, or names joined by ``+``.
        devices: Devices covered.
        used: Whether it is charged.
        kind: Provenance; a sum inherits the worst.
        method: How the number came about.
        gross: Energy [J].
        net_loaded_idle: Energy above loaded idle over the same time [J].
        net_deep_idle: Energy above the idle machine without its engine [J].
    """

    domain: EnergyDomain | None
    name: str | None
    devices: tuple[str, ...]
    used: bool
    kind: Kind | None
    method: str | None
    gross: Estimate
    net_loaded_idle: Estimate
    net_deep_idle: Estimate


def pooled_energy(
    measurements: Sequence[EnergyMeasurement | Unmeasured],
) -> EnergyMeasurement | Unmeasured:
    """One energy of several windows; unknown as soon as one is."""
    known = [m for m in measurements if isinstance(m, EnergyMeasurement)]
    if len(known) < len(measurements):
        return next(m for m in measurements if isinstance(m, Unmeasured))
    if not known:
        return Unmeasured(reason="no_window", message="no run of this point has a window")
    if len({m.domains for m in known}) > 1:
        return Unmeasured(reason="mixed_domains", message="the repeats measured different domains")
    return pool(known)


def energy_estimate(energy: EnergyMeasurement | Unmeasured) -> Estimate:
    """An energy with the interval of its measurement, repeats apart."""
    if isinstance(energy, Unmeasured):
        return Estimate(value=None, reason=energy.reason)
    low, high = additive_interval(
        energy.energy_joules,
        uniform_half_widths=energy.uniform_half_widths_joules,
        normal_sd=energy.edge_joules,
    )
    return Estimate(value=energy.energy_joules, low=max(0.0, low), high=high)


def _net(gross: EnergyMeasurement | Unmeasured, idle: EnergyMeasurement | Unmeasured) -> Estimate:
    """Energy above loaded idle: scale errors shrink with it, offsets cancel."""
    if isinstance(gross, Unmeasured):
        return Estimate(value=None, reason=gross.reason)
    if isinstance(idle, Unmeasured):
        return Estimate(value=None, reason=idle.reason)
    stretch = gross.duration_s / idle.duration_s
    value = gross.energy_joules - idle.energy_joules * stretch
    gains = zip(gross.gain_half_widths_joules, idle.gain_half_widths_joules, strict=True)
    low, high = additive_interval(
        value,
        uniform_half_widths=[
            *(abs(ours - base * stretch) for ours, base in gains),
            gross.coverage_half_width_joules,
            gross.alignment_half_width_joules,
            idle.coverage_half_width_joules * stretch,
        ],
        normal_sd=float(np.hypot(gross.edge_joules, idle.edge_joules * stretch)),
    )
    return Estimate(value=value, low=low, high=high)


def pooled_domains(runs: Sequence[RunFacts]) -> list[PooledDomain]:
    """Every domain that was measured, whether it is charged or not."""
    names = list(dict.fromkeys(d.domain.name for run in runs for d in run.domains))
    return [_one_domain([d for r in runs for d in r.domains if d.domain.name == n]) for n in names]


def _one_domain(parts: list[DomainEnergy]) -> PooledDomain:
    first = parts[0].domain
    gross = pooled_energy([part.gross for part in parts])
    idle = pooled_energy([part.idle for part in parts])
    return PooledDomain(
        domain=first,
        name=first.name,
        devices=first.devices,
        used=parts[0].used,
        kind=first.kind,
        method=first.method,
        gross=energy_estimate(gross),
        net_loaded_idle=_net(gross, idle),
        net_deep_idle=_net(gross, pooled_energy([part.deep_idle for part in parts])),
    )


def headline(runs: Sequence[RunFacts], energy: EnergyMeasurement | Unmeasured) -> PooledDomain:
    """The energy charged to the load."""
    return _summed(runs, lambda run: charged_domains(run.raw, run.domains), energy, used=True)


def idle_neighbours(runs: Sequence[RunFacts]) -> PooledDomain | None:
    """Devices that are measured at the headline's boundary and do not work; None if all do."""
    return _chosen(runs, lambda run: [d for d in _alike(run) if not d.used], used=False)


def host_total(runs: Sequence[RunFacts]) -> PooledDomain | None:
    """Every device at the headline's boundary, whether it works or not; None if all work."""
    if idle_neighbours(runs) is None:
        return None
    return _chosen(runs, _alike, used=False)


def role_energies(runs: Sequence[RunFacts]) -> dict[str, PooledDomain]:
    """Energy of the devices of each role, such as prefill and decode of a split deployment."""
    found = {}
    for role, devices in (runs[0].raw.record.roles if runs else {}).items():

        def of_role(run: RunFacts, devices: tuple[str, ...] = devices) -> list[DomainEnergy]:
            return [d for d in _alike(run) if any(d.domain.covers(name) for name in devices)]

        share = _chosen(runs, of_role, used=True)
        if share is not None:
            found[role] = share
    return found


def _alike(run: RunFacts) -> list[DomainEnergy]:
    """Domains at the boundary of the headline, none inside another."""
    charged = charged_domains(run.raw, run.domains)
    if not charged:
        return []
    return [d for d in top_domains(run.domains) if d.domain.boundary == charged[0].domain.boundary]


def _chosen(runs: Sequence[RunFacts], choose: Choice, *, used: bool) -> PooledDomain | None:
    groups = [[d.gross for d in choose(run)] for run in runs]
    if not groups or not all(groups):
        return None
    return _summed(runs, choose, pooled_energy(_sums(groups)), used=used)


def _summed(
    runs: Sequence[RunFacts],
    choose: Choice,
    energy: EnergyMeasurement | Unmeasured,
    *,
    used: bool,
) -> PooledDomain:
    chosen = [choose(run) for run in runs]
    first = chosen[0][0].domain if chosen and chosen[0] else None
    loaded = _net(energy, pooled_energy(_sums([[d.idle for d in group] for group in chosen])))
    deep = _net(energy, pooled_energy(_sums([[d.deep_idle for d in group] for group in chosen])))
    known = energy if isinstance(energy, EnergyMeasurement) else None
    members = chosen[0] if chosen else []
    return PooledDomain(
        domain=first,
        name="+".join(d.domain.name for d in members) or None,
        devices=tuple(device for d in members for device in d.domain.devices),
        used=used,
        kind=known.kind if known else first.kind if first else None,
        method=known.method if known else first.method if first else None,
        gross=energy_estimate(energy),
        net_loaded_idle=loaded,
        net_deep_idle=deep,
    )


def _sums(
    groups: Sequence[Sequence[EnergyMeasurement | Unmeasured]],
) -> list[EnergyMeasurement | Unmeasured]:
    """The sum of each group that has members; unknown as soon as a member is."""
    sums: list[EnergyMeasurement | Unmeasured] = []
    for group in groups:
        missing = [part for part in group if isinstance(part, Unmeasured)]
        known = [part for part in group if isinstance(part, EnergyMeasurement)]
        if missing:
            sums.append(missing[0])
        elif known:
            sums.append(add(known))
    return sums
