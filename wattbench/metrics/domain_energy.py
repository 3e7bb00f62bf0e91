"""Joules of one domain over a window and while idle, and what follows from a calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from wattbench.core.energy import (
    EnergyDomain,
    EnergyMeasurement,
    FloatArray,
    PowerTrace,
    Trace,
    Unmeasured,
    trace_of,
)
from wattbench.core.errors import InsufficientCoverage
from wattbench.core.run import RawRun
from wattbench.energy import cleaned, measure, values_of
from wattbench.energy.aliasing import alias_risk
from wattbench.energy.calibration import derived_energy
from wattbench.metrics.calibrated import calibration_of
from wattbench.metrics.devices import is_used
from wattbench.metrics.window import Window

REGULAR_FRACTION = 0.2
"""Standard deviation of the gaps between requests, over their mean, that is still a rhythm."""
LOCKED_RATIO = 1.3
"""Half-width given to a locked error over its bound for a rectangular load; power is none."""
IDLE_PARTS = 3
IDLE_FRACTION = 0.15
"""Range of power over the parts of an idle stretch, relative to its mean, that is still idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEnergy:
    """Energy of one domain over the window.

    Attributes:
        domain: What was measured.
        used: Whether its devices do the work and are charged for it.
        gross: Energy of the window, or why there is none.
        idle: Energy of the idle stretch with the model loaded, or why there is none.
        deep_idle: Energy of the stretch before the engine opened, or why there is none.
    """

    domain: EnergyDomain
    used: bool
    gross: EnergyMeasurement | Unmeasured
    idle: EnergyMeasurement | Unmeasured
    deep_idle: EnergyMeasurement | Unmeasured


def domain_energy(raw: RawRun, trace: Trace, window: Window | None) -> DomainEnergy:
    """Energy of one trace over the window, idle and deep idle."""
    domain = trace.domain
    idle_s = raw.event_time_s("idle_start"), raw.event_time_s("idle_end")
    no_load = Unmeasured(reason="no_window", message="nothing was sent, so there is no window")
    no_idle = Unmeasured(
        reason="no_idle_baseline", message="the workload has no idle_s, so idle was not measured"
    )
    gross = no_load if window is None else _under_load(raw, trace, window)
    start_s, end_s = idle_s
    if domain.kind == "nameplate":
        no_idle = Unmeasured(reason="nameplate_has_no_idle", message="nothing was measured")
        start_s = None
    idle = no_idle if start_s is None or end_s is None else _idle(trace, start_s, end_s)
    return DomainEnergy(
        domain=domain,
        used=is_used(raw, domain),
        gross=gross,
        idle=idle,
        deep_idle=_deep_idle(raw, domain),
    )


def with_derived(raw: RawRun, measured: list[DomainEnergy]) -> tuple[DomainEnergy, ...]:
    """Adds what follows from the run's calibration; it is charged where nothing measured is."""
    found = calibration_of(raw)
    if found is None or found.misfit is not None:
        return tuple(measured)
    domain, parts = found.domain, [d for d in measured if d.domain.name in found.fit.meters]
    beside = any(d.used and d.domain.boundary == domain.boundary for d in measured)
    derived = DomainEnergy(
        domain=domain,
        used=all(d.used for d in parts) and not beside,
        gross=derived_energy(found.fit, domain, [d.gross for d in parts]),
        idle=derived_energy(found.fit, domain, [d.idle for d in parts]),
        deep_idle=derived_energy(found.fit, domain, [d.deep_idle for d in parts]),
    )
    return (*measured, derived)


def _deep_idle(raw: RawRun, domain: EnergyDomain) -> EnergyMeasurement | Unmeasured:
    """Energy before the engine opened, from the samples that travel with the run."""
    found = next((e.detail for e in raw.events if e.kind == "deep_idle"), None)
    domains = found.get("domains") if found else None
    samples = domains.get(domain.name) if isinstance(domains, dict) else None
    if found is None or not isinstance(samples, dict):
        message = "the workload has no deep_idle_s, or the meter needs the engine"
        return Unmeasured(reason="no_deep_idle", message=message)
    time_s, value = (np.array(samples[key], np.float64) for key in ("time_s", "value"))
    trace = trace_of(domain, time_s, value)
    return _idle(trace, float(str(found["start_s"])), float(str(found["end_s"])))


def _under_load(raw: RawRun, trace: Trace, window: Window) -> EnergyMeasurement | Unmeasured:
    """Energy of the window; a sensor that looks at part of the time may beat with the load."""
    found = measured_energy(trace, window.start_s, window.end_s)
    if isinstance(found, Unmeasured) or trace.domain.coverage_fraction == 1.0:
        return found
    widths = [found.coverage_half_width_joules]
    for period_s in load_periods_s(raw, window):
        energy = measure(cleaned(trace), window.start_s, window.end_s, load_period_s=period_s)
        widths += [energy.coverage_half_width_joules, _locked_joules(raw, trace, window, period_s)]
    return replace(found, coverage_half_width_joules=max(widths))


def _locked_joules(raw: RawRun, trace: Trace, window: Window, load_period_s: float) -> float:
    """What a sensor in step with the load may miss [J], 0 if it is not in step.

    Its looks may all fall on one phase, or graze the load, so the swing is taken from the lowest
    reading of the whole trace, idle included, to the machine's power limit, if that is known.
    """
    domain = trace.domain
    if domain.update_period_s is None or not isinstance(trace, PowerTrace):
        return 0.0
    duration_s = window.duration_s
    risk = alias_risk(load_period_s, domain.update_period_s, domain.coverage_fraction, duration_s)
    watts = _good_values(trace)
    low_watts = float(watts.min())
    high_watts = max(float(watts.max()), power_limit_watts(raw) or 0.0)
    swing_watts = high_watts - low_watts
    return LOCKED_RATIO * risk.error_fraction * swing_watts * duration_s if risk.at_risk else 0.0


def power_limit_watts(raw: RawRun) -> float | None:
    """Most that a device of the run's machine can draw [W], None if its profile does not tell."""
    power = raw.record.hardware.get("power")
    tdp = power.get("tdp") if isinstance(power, dict) else None
    return float(str(tdp["high"] or tdp["value"])) if isinstance(tdp, dict) else None


def _good_values(trace: Trace) -> FloatArray:
    """Values of a trace that are measurements [W or J], shape (n,)."""
    value = values_of(cleaned(trace))
    return value[np.isfinite(value)]


def load_periods_s(raw: RawRun, window: Window) -> list[float]:
    """Periods that the load may have: of decoding steps, and of requests if they come regularly."""
    inside = [r for r in raw.requests if window.start_s <= r.sent_s < window.end_s]
    gaps = [np.diff(r.chunk_s) for r in inside if len(r.chunk_s) > 1]
    periods = [float(np.median(np.concatenate(gaps)))] if gaps else []
    between = np.diff(np.sort([r.sent_s for r in inside]))
    if len(between) > 2 and np.std(between) < REGULAR_FRACTION * between.mean():
        periods.append(float(between.mean()))
    return [period_s for period_s in periods if period_s > 0]


def _idle(trace: Trace, start_s: float, end_s: float) -> EnergyMeasurement | Unmeasured:
    """Energy of an idle stretch, if it is one: its thirds must draw the same power.

    Their scatter is how well idle power is known; it joins the edge error. The last readings
    of the stretch may hold the first of the load, so a little is left out at both ends.
    """
    period_s = trace.domain.update_period_s or _spacing_s(trace)
    reach_s = period_s + (trace.domain.averaging_window_s or 0.0)
    margin_s = min(reach_s, (end_s - start_s) / 4)
    start_s, end_s = start_s + margin_s, end_s - margin_s
    whole = measured_energy(trace, start_s, end_s)
    edges = np.linspace(start_s, end_s, IDLE_PARTS + 1).tolist()
    parts = [measured_energy(trace, low_s, high_s) for low_s, high_s in pairwise(edges)]
    known = [part for part in parts if isinstance(part, EnergyMeasurement)]
    if not isinstance(whole, EnergyMeasurement) or len(known) < IDLE_PARTS:
        return whole
    watts = np.array([part.energy_joules / part.duration_s for part in known])
    if np.ptp(watts) > IDLE_FRACTION * watts.mean():
        message = f"power ranged over {np.ptp(watts) / watts.mean():.0%} of its mean while idle"
        return Unmeasured(reason="idle_not_stable", message=message)
    scatter_joules = float(np.std(watts, ddof=1) / np.sqrt(IDLE_PARTS)) * whole.duration_s
    return replace(whole, edge_joules=float(np.hypot(whole.edge_joules, scatter_joules)))


def _spacing_s(trace: Trace) -> float:
    """Median time between two samples of a sensor whose update period nobody told [s]."""
    return float(np.median(np.diff(trace.time_s))) if len(trace.time_s) > 2 else 0.0


def measured_energy(trace: Trace, start_s: float, end_s: float) -> EnergyMeasurement | Unmeasured:
    """Energy between two instants, or why there is none."""
    try:
        return measure(cleaned(trace), start_s, end_s)
    except InsufficientCoverage as error:
        return Unmeasured(reason=error.reason, message=str(error))
