"""An operating point: its repeats pooled into metrics with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import EnergyMeasurement, FloatArray, Unmeasured
from wattbench.core.result import Estimate
from wattbench.core.slo import Objective, stored_objectives
from wattbench.metrics.domains import (
    PooledDomain,
    headline,
    host_total,
    idle_neighbours,
    pooled_domains,
    pooled_energy,
    role_energies,
)
from wattbench.metrics.reported import or_reported
from wattbench.metrics.run import RunFacts
from wattbench.metrics.table import (
    INTERACTIVITY,
    INTERACTIVITY_PER_WATT,
    LATENCIES,
    METRICS,
    QUANTILES,
    RATIOS,
    MetricSpec,
    keeps_gaps,
    latencies_s,
)
from wattbench.metrics.window import Totals, pooled
from wattbench.stats import (
    Spread,
    combined_interval,
    quantile,
    spread_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveFacts:
    """An objective of the service level, and whether it is met; None: the sample is too small."""

    objective: Objective
    found: Estimate
    met: bool | None


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
        neighbours: Devices beside those that work; None if there are none.
        host: All devices together; None if all work.
        roles: Energy by role, if devices were given any.
        slo: The objectives of the service level.
    """

    runs: tuple[RunFacts, ...]
    totals: Totals | None
    metrics: Mapping[str, Estimate]
    latencies: Mapping[str, Mapping[str, Estimate]]
    latency_counts: Mapping[str, int]
    whole_run: Mapping[str, Estimate]
    headline: PooledDomain
    domains: tuple[PooledDomain, ...]
    neighbours: PooledDomain | None
    host: PooledDomain | None
    roles: Mapping[str, PooledDomain]
    slo: tuple[ObjectiveFacts, ...]


def point_facts(runs: Sequence[RunFacts]) -> PointFacts:
    """Pool the repeats of one operating point."""
    with_window = [run for run in runs if run.totals is not None]
    # What a file states of energy has its kind also where the file tells no sums.
    charged = with_window or [run for run in runs if run.raw.reported]
    energy = pooled_energy([run.headline for run in charged])
    steady = [run.totals for run in with_window if run.totals is not None]
    parts = with_window[0].parts if len(with_window) == 1 else None
    metrics = {spec.name: _ratio(spec, steady, parts, energy) for spec in RATIOS}
    values = {spec.name: _latency_values(spec.name, with_window) for spec in LATENCIES}
    interactivity = _interactivity(values["tpot_s"])
    metrics[INTERACTIVITY.name] = interactivity
    metrics[INTERACTIVITY_PER_WATT.name] = _per_watt(interactivity, steady, energy)
    latencies: Mapping[str, Mapping[str, Estimate]] = {
        name: {label: quantile(found, share) for label, share in QUANTILES.items()}
        for name, found in values.items()
    }
    latencies = _without_gaps(latencies, with_window)
    if len(runs) == 1 and runs[0].raw.reported:
        of_energy = {spec.name for spec in METRICS if spec.energy_power}
        metrics = {
            name: or_reported(one, runs[0].raw, name, of_energy=name in of_energy)
            for name, one in metrics.items()
        }
        latencies = {
            name: {label: or_reported(one, runs[0].raw, name, label) for label, one in each.items()}
            for name, each in latencies.items()
        }
    whole = [run.whole for run in with_window if run.whole is not None]
    return PointFacts(
        runs=tuple(runs),
        totals=pooled(steady) if steady else None,
        metrics=metrics,
        latencies=latencies,
        latency_counts={name: len(found) for name, found in values.items()},
        whole_run={spec.name: _ratio(spec, whole, None, None) for spec in RATIOS},
        headline=headline(charged, energy),
        domains=tuple(pooled_domains(charged)),
        neighbours=idle_neighbours(with_window),
        host=host_total(with_window),
        roles=role_energies(with_window),
        slo=_slo(runs, latencies),
    )


def _slo(
    runs: Sequence[RunFacts], latencies: Mapping[str, Mapping[str, Estimate]]
) -> tuple[ObjectiveFacts, ...]:
    facts = []
    for objective in stored_objectives(runs[0].raw.record.workload.get("slo")) if runs else ():
        found = latencies[objective.latency][objective.label]
        met = None if found.value is None else found.value < objective.limit_s
        facts.append(ObjectiveFacts(objective=objective, found=found, met=met))
    return tuple(facts)


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
    if spread is None and parts == () and spec.energy_power and _is_metered(energy):
        spread = Spread()  # sums without a record tell no scatter; the meter tells its own error
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


def _is_metered(energy: EnergyMeasurement | Unmeasured) -> bool:
    return isinstance(energy, EnergyMeasurement) and energy.kind != "reported"


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
    totals = pooled(windows)
    if "good" in spec.name:
        return "no_slo" if totals.good_count is None else "nothing_good"
    return "token_count_missing" if totals.input_tokens is None else "nothing_in_window"


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
    parts = [latencies_s(name, run.raw, run.measured) for run in runs]
    return np.concatenate(parts) if parts else np.empty(0)


def _without_gaps(
    latencies: Mapping[str, Mapping[str, Estimate]], runs: Sequence[RunFacts]
) -> Mapping[str, Mapping[str, Estimate]]:
    """ITL has its own reason where no run measured a gap."""
    if not runs or any(keeps_gaps(run.raw) for run in runs):
        return latencies
    unknown = Estimate(value=None, n=0, reason="gaps_not_kept")
    return {**latencies, "itl_s": dict.fromkeys(QUANTILES, unknown)}


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
