"""An operating point: its repeats pooled into metrics with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import EnergyDomain, EnergyMeasurement, FloatArray, Kind, Unmeasured
from wattbench.core.result import Estimate
from wattbench.energy import add, pool
from wattbench.metrics.run import DomainEnergy, RunFacts, charged_domains
from wattbench.metrics.table import (
    INTERACTIVITY,
    INTERACTIVITY_PER_WATT,
    LATENCIES,
    QUANTILES,
    RATIOS,
    MetricSpec,
)
from wattbench.metrics.window import Totals, pooled
from wattbench.stats import (
    Spread,
    additive_interval,
    combined_interval,
    quantile,
    spread_of,
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFacts:
    """The repeats of one operating point, and what they say together.

    Attributes:
        runs: The repeats.
        totals: Sums over all windows; None if no run has one.
        metrics: Ratios and interactivity by name.
        latencies: By name, then by quantile.
        latency_counts: By name, how many values.
        whole_run: Ratios over the whole runs, ramp and drain included.
        headline: The energy charged.
        domains: Energy by domain.
    """

    runs: tuple[RunFacts, ...]
    totals: Totals | None
    metrics: Mapping[str, Estimate]
    latencies: Mapping[str, Mapping[str, Estimate]]
    latency_counts: Mapping[str, int]
    whole_run: Mapping[str, Estimate]
    headline: PooledDomain
    domains: tuple[PooledDomain, ...]


def point_facts(runs: Sequence[RunFacts]) -> PointFacts:
    """Pool the repeats of one operating point."""
    with_window = [run for run in runs if run.totals is not None]
    headlines = [run.headline for run in with_window]
    energy = _pooled_energy(headlines)
    steady = [run.totals for run in with_window if run.totals is not None]
    parts = with_window[0].parts if len(with_window) == 1 else None
    metrics = {spec.name: _ratio(spec, steady, parts, energy) for spec in RATIOS}
    values = {spec.name: _latency_values(spec.name, with_window) for spec in LATENCIES}
    interactivity = _interactivity(values["tpot_s"])
    metrics[INTERACTIVITY.name] = interactivity
    metrics[INTERACTIVITY_PER_WATT.name] = _per_watt(interactivity, steady, energy)
    whole = [run.whole for run in with_window if run.whole is not None]
    return PointFacts(
        runs=tuple(runs),
        totals=pooled(steady) if steady else None,
        metrics=metrics,
        latencies={
            name: {label: quantile(found, share) for label, share in QUANTILES.items()}
            for name, found in values.items()
        },
        latency_counts={name: len(found) for name, found in values.items()},
        whole_run={spec.name: _ratio(spec, whole, None, None) for spec in RATIOS},
        headline=_headline(with_window, energy),
        domains=tuple(_domains(with_window)),
    )


def _pooled_energy(
    measurements: Sequence[EnergyMeasurement | Unmeasured],
) -> EnergyMeasurement | Unmeasured:
    known = [m for m in measurements if isinstance(m, EnergyMeasurement)]
    if len(known) < len(measurements):
        return next(m for m in measurements if isinstance(m, Unmeasured))
    if not known:
        return Unmeasured(reason="no_window", message="no run of this point has a window")
    if len({m.domains for m in known}) > 1:
        return Unmeasured(reason="mixed_domains", message="the repeats measured different domains")
    return pool(known)


def _ratio(
    spec: MetricSpec,
    windows: Sequence[Totals],
    parts: Sequence[Totals] | None,
    energy: EnergyMeasurement | Unmeasured | None,
) -> Estimate:
    """A ratio of sums; its scatter from the repeats, or from the parts of a single run.

    ``energy`` None means that only the value is wanted.
    """
    value = spec.of(pooled(windows)) if windows else None
    if value is None:
        return Estimate(value=None, n=len(windows), reason=_why_missing(spec, windows, energy))
    if energy is None:
        return Estimate(value=value, n=len(windows), reason="no_interval_over_whole_run")
    spread = _spread_over_parts(spec, parts) if parts else _spread(spec, windows)
    if spread is None:
        return Estimate(value=value, n=len(windows), reason="too_few_tokens_for_interval")
    uniform, sd = _relative_terms(energy) if spec.energy_power else ((), 0.0)
    low, high = combined_interval(
        value,
        uniform_half_width_fractions=uniform,
        normal_sd_fraction=sd,
        spread=spread,
        inverse=spec.energy_power < 0,
    )
    return Estimate(value=value, low=low, high=high, n=len(windows))


def _spread(spec: MetricSpec, windows: Sequence[Totals]) -> Spread | None:
    return spread_of([spec.of(totals) or 0.0 for totals in windows])


def _spread_over_parts(spec: MetricSpec, parts: Sequence[Totals]) -> Spread | None:
    """Scatter within a single run, over the smallest parts that all produced something."""
    for size in (1, 2, 5):
        merged = [pooled(parts[i : i + size]) for i in range(0, len(parts), size)]
        found = _spread(spec, merged)
        if found is not None:
            return found
    return None


def _why_missing(
    spec: MetricSpec, windows: Sequence[Totals], energy: EnergyMeasurement | Unmeasured | None
) -> str:
    if not windows:
        return "no_window"
    if spec.energy_power and isinstance(energy, Unmeasured):
        return energy.reason
    if spec.energy_power and pooled(windows).energy_joules is None:
        return "energy_unknown"
    return "token_count_missing" if pooled(windows).input_tokens is None else "nothing_in_window"


def _relative_terms(
    energy: EnergyMeasurement | Unmeasured,
) -> tuple[tuple[float, ...], float]:
    """Uniform half-widths and standard deviation of an energy, relative to it."""
    if isinstance(energy, Unmeasured) or energy.energy_joules <= 0:
        return (), 0.0
    scale = energy.energy_joules
    uniform = energy.uniform_half_widths_joules
    return tuple(term / scale for term in uniform), energy.edge_joules / scale


def _latency_values(name: str, runs: Sequence[RunFacts]) -> FloatArray:
    spec = next(spec for spec in LATENCIES if spec.name == name)
    parts = [spec.values(result) for run in runs for result in run.measured]
    return np.concatenate(parts) if parts else np.empty(0)


def _interactivity(tpot_s: FloatArray) -> Estimate:
    """Median over requests of 1 / TPOT, what one user sees [tokens/s]."""
    return quantile(1 / tpot_s[tpot_s > 0], 0.5)


def _per_watt(
    interactivity: Estimate, windows: Sequence[Totals], energy: EnergyMeasurement | Unmeasured
) -> Estimate:
    """Interactivity over mean power; its order-statistic interval taken as a log-normal."""
    if isinstance(energy, Unmeasured):
        return Estimate(value=None, reason=energy.reason)
    if interactivity.value is None or interactivity.low is None or interactivity.high is None:
        return Estimate(value=None, n=interactivity.n, reason=interactivity.reason)
    watts = energy.energy_joules / energy.duration_s
    if watts <= 0:
        return Estimate(value=None, n=interactivity.n, reason="nothing_in_window")
    uniform, sd = _relative_terms(energy)
    width = float(np.log(interactivity.high / interactivity.low))
    value = interactivity.value / watts
    low, high = combined_interval(
        value,
        uniform_half_width_fractions=uniform,
        normal_sd_fraction=sd,
        spread=Spread(scale=width / (2 * 1.959964)),
        inverse=True,
    )
    return Estimate(value=value, low=low, high=high, n=interactivity.n)


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


def _domains(runs: Sequence[RunFacts]) -> list[PooledDomain]:
    names = list(dict.fromkeys(d.domain.name for run in runs for d in run.domains))
    return [_one_domain([d for r in runs for d in r.domains if d.domain.name == n]) for n in names]


def _one_domain(parts: list[DomainEnergy]) -> PooledDomain:
    first = parts[0].domain
    gross = _pooled_energy([part.gross for part in parts])
    idle = _pooled_energy([part.idle for part in parts])
    return PooledDomain(
        domain=first,
        name=first.name,
        devices=first.devices,
        used=parts[0].used,
        kind=first.kind,
        method=first.method,
        gross=energy_estimate(gross),
        net_loaded_idle=_net(gross, idle),
        net_deep_idle=_net(gross, _pooled_energy([part.deep_idle for part in parts])),
    )


def _headline(runs: Sequence[RunFacts], energy: EnergyMeasurement | Unmeasured) -> PooledDomain:
    charged = [charged_domains(run.raw, run.domains) for run in runs]
    first = charged[0][0].domain if charged and charged[0] else None
    loaded = _net(energy, _pooled_energy(_sums([[d.idle for d in group] for group in charged])))
    deep = _net(energy, _pooled_energy(_sums([[d.deep_idle for d in group] for group in charged])))
    if isinstance(energy, EnergyMeasurement):
        return PooledDomain(
            domain=first,
            name="+".join(energy.domains),
            devices=energy.devices,
            used=True,
            kind=energy.kind,
            method=energy.method,
            gross=energy_estimate(energy),
            net_loaded_idle=loaded,
            net_deep_idle=deep,
        )
    return PooledDomain(
        domain=first,
        name=first.name if first else None,
        devices=first.devices if first else (),
        used=True,
        kind=first.kind if first else None,
        method=first.method if first else None,
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
