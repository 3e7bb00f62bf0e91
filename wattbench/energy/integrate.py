"""The only integrator: a trace and a window give an energy, its provenance and its error terms.

A counter is read at its ticks: the samples at which its value changed. Between two ticks, and
between two power samples, the energy is interpolated, so the window's edges need no sample.

    E(a, b) = C(b) − C(a),   C the cumulative energy of the trace

Nothing is extrapolated: a window that the trace does not bracket has no energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import (
    CounterTrace,
    EnergyDomain,
    EnergyMeasurement,
    FloatArray,
    Kind,
    PowerTrace,
    Trace,
    worst_kind,
)
from wattbench.core.errors import InsufficientCoverage

MAX_GAP_S = 3.0
"""A gap of this length [s], or of three update periods if that is longer, spoils a window.

Source: the bound that InferenceX sets on its power telemetry (``aggregate_power.py``, 2026-08).
"""
SMOOTH_EDGE_FRACTION = 0.014
"""RMS error of one interpolated edge under random load, over power times tick length [1].

Source: simulated; two edges give 0.02 · T / W (0.4 % for 0.1 s ticks in a window of 0.5 s).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeEnergy:
    """Energy since the first sample of a trace, at the instants where it is known.

    Attributes:
        domain: Whose energy.
        time_s: Shape (n,), non-decreasing [s, run clock].
        energy_joules: Shape (n,) [J].
    """

    domain: EnergyDomain
    time_s: FloatArray
    energy_joules: FloatArray

    def at_joules(self, time_s: FloatArray) -> FloatArray:
        """Energy at instants inside the trace [J], shape (n,)."""
        return np.asarray(np.interp(time_s, self.time_s, self.energy_joules), np.float64)


def cumulative(trace: Trace) -> CumulativeEnergy:
    """Cumulative energy of a trace.

    Raises:
        InsufficientCoverage: ``no_samples``, or ``counter_reset`` if a counter went backwards.
    """
    value = trace.power_watts if isinstance(trace, PowerTrace) else trace.energy_joules
    good = np.isfinite(value)
    time_s, value = trace.time_s[good], value[good]
    if len(time_s) < 2:
        raise InsufficientCoverage(
            "no_samples", f"{trace.domain.name}: {len(time_s)} usable samples; two are needed"
        )
    if isinstance(trace, CounterTrace):
        time_s, energy = _ticks(trace.domain, time_s, value)
    else:
        energy = _integral(trace.domain, time_s, value)
    return CumulativeEnergy(domain=trace.domain, time_s=time_s, energy_joules=energy)


def _integral(domain: EnergyDomain, time_s: FloatArray, power_watts: FloatArray) -> FloatArray:
    held = domain.interpolation == "hold"
    mean_watts = power_watts[:-1] if held else (power_watts[:-1] + power_watts[1:]) / 2
    return np.concatenate([[0.0], np.cumsum(mean_watts * np.diff(time_s))])


def _ticks(
    domain: EnergyDomain, time_s: FloatArray, energy_joules: FloatArray
) -> tuple[FloatArray, FloatArray]:
    changed = np.concatenate([[True], np.diff(energy_joules) != 0])
    time_s, energy = time_s[changed], energy_joules[changed]
    step = np.diff(energy)
    if (step < 0).any():
        step = _unwrapped(domain, time_s, step)
    return time_s, np.concatenate([[0.0], np.cumsum(step)])


def _unwrapped(domain: EnergyDomain, time_s: FloatArray, step: FloatArray) -> FloatArray:
    """Add the counter's range to a decrease, if the power that follows is one seen elsewhere."""
    fallen = step < 0
    power_watts = step / np.diff(time_s)
    if domain.wrap_joules is not None and not fallen.all():
        mended = np.where(fallen, step + domain.wrap_joules, step)
        if (mended / np.diff(time_s)).max() <= 2 * power_watts[~fallen].max() and mended.min() >= 0:
            return mended
    first = int(np.argmax(fallen))
    raise InsufficientCoverage(
        "counter_reset",
        f"{domain.name}: the energy counter fell by {-step[first]:.3g} J at "
        f"{time_s[first + 1]:.3f} s of the run; it was reset or read wrongly",
    )


def measure(trace: Trace, start_s: float, end_s: float) -> EnergyMeasurement:
    """Energy of one domain between two instants.

    Args:
        trace: Samples of the domain.
        start_s: Window start [s, run clock].
        end_s: Window end [s, run clock].

    Raises:
        InsufficientCoverage: If the trace does not carry an energy for the window: reasons
            ``no_samples``, ``not_bracketed``, ``gap``, ``counter_reset``.
    """
    energy = cumulative(trace)
    domain = trace.domain
    _demand_coverage(energy, start_s, end_s)
    edges = energy.at_joules(np.array([start_s, end_s]))
    joules = float(edges[1] - edges[0])
    duration_s = end_s - start_s
    return EnergyMeasurement(
        energy_joules=joules,
        duration_s=duration_s,
        kind=domain.kind,
        boundary=domain.boundary,
        devices=domain.devices,
        domains=(domain.name,),
        method=domain.method,
        gain_half_widths_joules=(abs(joules) * domain.gain_half_width_fraction,),
        offset_half_widths_joules=(duration_s * domain.offset_half_width_watts,),
        edge_joules=float(np.hypot(_edge_joules(energy, start_s), _edge_joules(energy, end_s))),
    )


def _demand_coverage(energy: CumulativeEnergy, start_s: float, end_s: float) -> None:
    name, time_s = energy.domain.name, energy.time_s
    if not end_s > start_s:
        raise InsufficientCoverage(
            "empty_window", f"{name}: the window {start_s:.3f}…{end_s:.3f} s is empty"
        )
    if time_s[0] > start_s or time_s[-1] < end_s:
        raise InsufficientCoverage(
            "not_bracketed",
            f"{name}: the window is {start_s:.3f}…{end_s:.3f} s, the samples cover "
            f"{time_s[0]:.3f}…{time_s[-1]:.3f} s",
        )
    first = int(np.searchsorted(time_s, start_s, side="right")) - 1
    last = int(np.searchsorted(time_s, end_s, side="left"))
    gap_s = float(np.diff(time_s[first : last + 1]).max())
    limit_s = max(MAX_GAP_S, 3 * (energy.domain.update_period_s or 0.0))
    if gap_s > limit_s:
        raise InsufficientCoverage(
            "gap", f"{name}: no sample for {gap_s:.3g} s inside the window (limit {limit_s:g} s)"
        )


def _edge_joules(energy: CumulativeEnergy, edge_s: float) -> float:
    """One standard deviation of the energy error from interpolating at an edge [J].

    Inside the interval of length T that holds the edge, the shape of the power is unknown. If it
    stepped between the powers of the neighbouring intervals, the error is at most ΔP·T/4; half
    of that is taken as the standard deviation, and the figure of random load as its floor.
    """
    time_s, joules = energy.time_s, energy.energy_joules
    right = int(np.clip(np.searchsorted(time_s, edge_s), 1, len(time_s) - 1))
    around = slice(max(0, right - 2), right + 2)
    gaps_s = np.diff(time_s[around])
    watts = np.diff(joules[around])[gaps_s > 0] / gaps_s[gaps_s > 0]
    if not len(watts):
        return 0.0
    interval_s = float(time_s[right] - time_s[right - 1])
    step_joules = float(np.ptp(watts)) * interval_s / 8
    return max(step_joules, SMOOTH_EDGE_FRACTION * float(np.abs(watts).mean()) * interval_s)


def pool(measurements: list[EnergyMeasurement]) -> EnergyMeasurement:
    """Sum of one domain over several windows: scale and offset errors are common to all."""
    first = measurements[0]
    return EnergyMeasurement(
        energy_joules=sum(m.energy_joules for m in measurements),
        duration_s=sum(m.duration_s for m in measurements),
        kind=worst_kind([m.kind for m in measurements]),
        boundary=first.boundary,
        devices=first.devices,
        domains=first.domains,
        method=first.method,
        gain_half_widths_joules=_columns([m.gain_half_widths_joules for m in measurements]),
        offset_half_widths_joules=_columns([m.offset_half_widths_joules for m in measurements]),
        edge_joules=float(np.sqrt(sum(m.edge_joules**2 for m in measurements))),
    )


def _columns(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


def add(measurements: list[EnergyMeasurement]) -> EnergyMeasurement:
    """Sum of several domains over one window: their errors are independent.

    Raises:
        ValueError: If the boundaries differ; they are never mixed silently.
    """
    boundaries = {m.boundary for m in measurements}
    if len(boundaries) != 1:
        raise ValueError(f"cannot add energies of different boundaries: {sorted(boundaries)}")
    kinds: list[Kind] = [m.kind for m in measurements]
    return EnergyMeasurement(
        energy_joules=sum(m.energy_joules for m in measurements),
        duration_s=measurements[0].duration_s,
        kind=worst_kind(kinds),
        boundary=measurements[0].boundary,
        devices=tuple(device for m in measurements for device in m.devices),
        domains=tuple(name for m in measurements for name in m.domains),
        method="; ".join(dict.fromkeys(m.method for m in measurements)),
        gain_half_widths_joules=tuple(w for m in measurements for w in m.gain_half_widths_joules),
        offset_half_widths_joules=tuple(
            w for m in measurements for w in m.offset_half_widths_joules
        ),
        edge_joules=float(np.sqrt(sum(m.edge_joules**2 for m in measurements))),
    )
