"""The only integrator: a trace and a window give an energy, its provenance and its error terms.

    E(a, b) = C(b) − C(a),   C the cumulative energy of the trace

A counter is read at its ticks, the samples at which its value changed, and its energy is linear
between two of them. Power is linear between two samples, so C is quadratic there; of a last-value
sensor (``hold``) power is constant up to the next sample. Repeated values are kept: a value that
stands is a measurement. Either way the window's edges need no sample.

A reading that is the mean over the w before it describes the instant w/2 earlier, and one that is
polled from a sensor that updates every T was T/2 old on average: power samples are moved back by
both. Counter ticks are moved as ``wattbench.energy.readings`` says.

Nothing is extrapolated: a window that the samples do not bracket has no energy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from wattbench.energy.counters import mended_joules
from wattbench.energy.readings import Polling, counter_ticks, polling, power_updates, usable
from wattbench.energy.uncertainty import coverage_half_width_joules, edge_joules

MAX_GAP_S = 3.0
"""A gap of this length [s], or of three update periods if that is longer, spoils a window.

Source: the bound that InferenceX sets on its power telemetry (``aggregate_power.py``, 2026-08).
"""
WRAP_RATIO = 1.5
"""Power over the highest seen that is believed: if one more turn of a counter stays below it, how
often it went round is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CumulativeEnergy:
    """Energy since the first sample of a trace, at the instants where it is known.

    Attributes:
        domain: Whose energy.
        time_s: Shape (n,), non-decreasing [s, run clock].
        energy_joules: Shape (n,) [J].
        power_watts: Shape (n,), power at these instants and linear between them [W]; None: the
            energy is linear between them.
    """

    domain: EnergyDomain
    time_s: FloatArray
    energy_joules: FloatArray
    power_watts: FloatArray | None = None

    def at_joules(self, time_s: FloatArray) -> FloatArray:
        """Energy at instants inside the trace [J], shape (n,)."""
        if self.power_watts is None:
            return np.asarray(np.interp(time_s, self.time_s, self.energy_joules), np.float64)
        return _quadratic_joules(time_s, self.time_s, self.energy_joules, self.power_watts)


def _quadratic_joules(
    at_s: FloatArray, time_s: FloatArray, energy_joules: FloatArray, power_watts: FloatArray
) -> FloatArray:
    """Energy at instants, of power that is linear between known points [J]."""
    inside_s = np.clip(at_s, time_s[0], time_s[-1])
    left = np.clip(np.searchsorted(time_s, inside_s, side="right") - 1, 0, len(time_s) - 2)
    since_s = inside_s - time_s[left]
    length_s = np.maximum(time_s[left + 1] - time_s[left], 1e-300)
    begin, end = power_watts[left], power_watts[left + 1]
    mean_watts = begin + (end - begin) * (since_s / length_s) / 2
    return np.asarray(energy_joules[left] + mean_watts * since_s, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A trace made ready: its energy, and what is known about when.

    Attributes:
        energy: Cumulative energy.
        stamp_s: Shape (n,), reads that the window must lie between [s].
        looks: One power per update of the sensor.
        blur_s: Time over which the sensor smears power [s].
        doubt_s: Width of the uniform doubt about when a value was new [s].
    """

    energy: CumulativeEnergy
    stamp_s: FloatArray
    looks: PowerTrace
    blur_s: float
    doubt_s: float


def cumulative(trace: Trace) -> CumulativeEnergy:
    """Cumulative energy of a trace.

    Raises:
        InsufficientCoverage: ``no_samples``, or ``counter_reset`` if a counter went backwards.
    """
    return _reading(trace).energy


def _reading(trace: Trace) -> _Reading:
    trace = usable(trace)
    count = len(trace.time_s)
    if count < 2:
        raise InsufficientCoverage(
            "no_samples", f"{trace.domain.name}: {count} usable samples; two are needed"
        )
    polled = polling(trace)
    if isinstance(trace, CounterTrace):
        return _counter_reading(trace, polled)
    return _power_reading(trace, polled)


def _power_reading(trace: PowerTrace, polled: Polling) -> _Reading:
    domain = trace.domain
    time_s, value = trace.time_s, trace.power_watts
    held = domain.interpolation == "hold"
    period_s, window_s = polled.update_period_s or 0.0, domain.averaging_window_s or 0.0
    age_s = period_s / 2 if polled.repeats and not held else 0.0
    point_s, watts = _moved_back(time_s - age_s, value, window_s, held)
    if age_s > 0:
        point_s, watts = np.append(point_s, time_s[-1]), np.append(watts, value[-1])
    joules = _trapezoids_joules(point_s, watts, held)
    unknown_age = domain.stamped_by == "reader" and polled.poll_period_s >= period_s
    doubt_s = polled.poll_period_s if polled.repeats else period_s if unknown_age else 0.0
    return _Reading(
        energy=CumulativeEnergy(
            domain=domain,
            time_s=point_s,
            energy_joules=joules,
            power_watts=None if held else watts,
        ),
        stamp_s=time_s,
        looks=power_updates(trace, polled),
        blur_s=max(window_s, period_s if polled.repeats else 0.0),
        doubt_s=doubt_s,
    )


def _trapezoids_joules(time_s: FloatArray, watts: FloatArray, held: bool = False) -> FloatArray:
    mean_watts = watts[:-1] if held else (watts[:-1] + watts[1:]) / 2
    return np.concatenate([[0.0], np.cumsum(mean_watts * np.diff(time_s))])


def _moved_back(
    time_s: FloatArray, watts: FloatArray, window_s: float, held: bool
) -> tuple[FloatArray, FloatArray]:
    """Means over a trailing window, put at its middle; then up to the stamp of the last one.

    The last mean tells the energy of its whole window, and the earlier ones that of its first
    part; what is left over fixes the power at the end.
    """
    if window_s <= 0:
        return time_s, watts
    middle_s, last_watts = time_s - window_s / 2, watts[-1]
    if not held and time_s[-1] - window_s >= middle_s[0]:
        joules = _trapezoids_joules(middle_s, watts)
        first_s = np.array([time_s[-1] - window_s])
        before = float(_quadratic_joules(first_s, middle_s, joules, watts)[0])
        rest_joules = before + last_watts * window_s - joules[-1]
        last_watts = max(0.0, 4 * rest_joules / window_s - last_watts)
    return np.append(middle_s, time_s[-1]), np.append(watts, last_watts)


def _counter_reading(trace: CounterTrace, polled: Polling) -> _Reading:
    ticks = counter_ticks(trace, polled)
    joules = _grown(trace.domain, ticks.time_s, ticks.energy_joules)
    time_s, stamp_s = ticks.time_s, ticks.read_s
    gaps_s = np.maximum(np.diff(time_s), 1e-9)
    watts = np.diff(joules) / gaps_s
    if len(watts) and stamp_s[-1] > time_s[-1]:
        # Between an update and the read that showed it, the power goes on.
        joules = np.append(joules, joules[-1] + watts[-1] * (stamp_s[-1] - time_s[-1]))
        time_s = np.append(time_s, stamp_s[-1])
    return _Reading(
        energy=CumulativeEnergy(domain=trace.domain, time_s=time_s, energy_joules=joules),
        stamp_s=stamp_s,
        looks=PowerTrace(domain=trace.domain, time_s=ticks.time_s[1:], power_watts=watts),
        blur_s=0.0,
        doubt_s=ticks.doubt_s,
    )


def _grown(domain: EnergyDomain, time_s: FloatArray, energy_joules: FloatArray) -> FloatArray:
    """Energy since the first tick [J], over the counter's wraps.

    Raises:
        InsufficientCoverage: ``counter_reset`` if a fall is no wrap, or may be more than one.
    """
    step = mended_joules(domain, time_s, energy_joules)
    if domain.wrap_joules is not None and len(step):
        elapsed_s = np.maximum(np.diff(time_s), 1e-9)
        watts = step / elapsed_s
        doubtful = watts + domain.wrap_joules / elapsed_s <= WRAP_RATIO * watts.max()
        if doubtful.any():
            raise InsufficientCoverage(
                "counter_reset",
                f"{domain.name}: after {time_s[int(np.argmax(doubtful))]:.3f} s of the run the "
                f"counter was not read for so long that its range of {domain.wrap_joules:g} J may "
                f"have gone by once more",
            )
    return np.concatenate([[0.0], np.cumsum(step)])


def measure(
    trace: Trace, start_s: float, end_s: float, *, load_period_s: float | None = None
) -> EnergyMeasurement:
    """Energy of one domain between two instants.

    Args:
        trace: Samples of the domain.
        start_s: Window start [s, run clock].
        end_s: Window end [s, run clock].
        load_period_s: Period of the load, such as the time of one decoding step [s], which a
            sensor of partial coverage may beat with; None: looked for in the readings.

    Raises:
        InsufficientCoverage: If the trace does not carry an energy for the window: reasons
            ``no_samples``, ``empty_window``, ``not_bracketed``, ``gap``, ``counter_reset``.
    """
    reading = _reading(trace)
    energy, domain = reading.energy, trace.domain
    _demand_coverage(domain, reading.stamp_s, start_s, end_s)
    edges = energy.at_joules(np.array([start_s, end_s]))
    joules = float(edges[1] - edges[0])
    duration_s = end_s - start_s
    looks_s, looks_watts = reading.looks.time_s, reading.looks.power_watts
    inside = (looks_s > start_s) & (looks_s <= end_s)
    looks = replace(reading.looks, time_s=looks_s[inside], power_watts=looks_watts[inside])
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
        edge_joules=_edges_joules(reading, start_s, end_s),
        coverage_half_width_joules=coverage_half_width_joules(
            looks,
            (float(looks_watts.min()), float(looks_watts.max())),
            duration_s,
            load_period_s,
        ),
        alignment_half_width_joules=_alignment_joules(energy, start_s, end_s),
    )


def _alignment_joules(energy: CumulativeEnergy, start_s: float, end_s: float) -> float:
    """Most that the energy of a window changes by when the samples' clock is off [J]."""
    shift_s = energy.domain.clock_half_width_s
    if shift_s <= 0:
        return 0.0
    ends_s = np.array([[start_s, start_s - shift_s, start_s + shift_s], [end_s] * 3])
    ends_s[1] += [0.0, -shift_s, shift_s]
    joules = np.diff(energy.at_joules(ends_s.ravel()).reshape(2, 3), axis=0)[0]
    return float(np.abs(joules - joules[0]).max())


def _edges_joules(reading: _Reading, start_s: float, end_s: float) -> float:
    """One standard deviation of both edges, and of the doubt about when values were new [J]."""
    energy, length_s = reading.energy, end_s - start_s
    terms = [
        edge_joules(energy.time_s, energy.energy_joules, edge_s, reading.blur_s)
        for edge_s in (start_s, end_s)
    ]
    doubt_s = min(reading.doubt_s, length_s)
    if doubt_s > 0:
        near_s = np.array([start_s, start_s + doubt_s, end_s - doubt_s, end_s])
        at = energy.at_joules(near_s)
        if isinstance(energy.power_watts, np.ndarray) or energy.domain.quantity == "power":
            # All samples are late by the same: what comes in at one edge goes out at the other.
            terms.append(abs(float((at[3] - at[2]) - (at[1] - at[0]))) / np.sqrt(12))
        else:
            terms += [float(at[1] - at[0]) / np.sqrt(12), float(at[3] - at[2]) / np.sqrt(12)]
    return float(np.sqrt(sum(term**2 for term in terms)))


def _demand_coverage(
    domain: EnergyDomain, stamp_s: FloatArray, start_s: float, end_s: float
) -> None:
    if not end_s > start_s:
        raise InsufficientCoverage(
            "empty_window", f"{domain.name}: the window {start_s:.3f}…{end_s:.3f} s is empty"
        )
    if stamp_s[0] > start_s or stamp_s[-1] < end_s:
        raise InsufficientCoverage(
            "not_bracketed",
            f"{domain.name}: the window is {start_s:.3f}…{end_s:.3f} s, the samples cover "
            f"{stamp_s[0]:.3f}…{stamp_s[-1]:.3f} s",
        )
    first = int(np.searchsorted(stamp_s, start_s, side="right")) - 1
    last = int(np.searchsorted(stamp_s, end_s, side="left"))
    gap_s = float(np.diff(stamp_s[first : last + 1]).max())
    limit_s = max(MAX_GAP_S, 3 * (domain.update_period_s or 0.0))
    if gap_s > limit_s:
        raise InsufficientCoverage(
            "gap",
            f"{domain.name}: no sample for {gap_s:.3g} s inside the window (limit {limit_s:g} s)",
        )


def pool(measurements: list[EnergyMeasurement]) -> EnergyMeasurement:
    """Sum of one domain over several windows: scale and offset errors are common to all.

    Edges and what a sensor did not look at are another matter each time: they add in squares. A
    clock may be off by the same each time.
    """
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
        edge_joules=_root_sum([m.edge_joules for m in measurements]),
        coverage_half_width_joules=_root_sum([m.coverage_half_width_joules for m in measurements]),
        alignment_half_width_joules=sum(m.alignment_half_width_joules for m in measurements),
    )


def _columns(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


def _root_sum(terms: list[float]) -> float:
    return float(np.sqrt(sum(term**2 for term in terms)))


def add(measurements: list[EnergyMeasurement]) -> EnergyMeasurement:
    """Sum of several domains over one window: their errors are independent, but for clocks.

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
        edge_joules=_root_sum([m.edge_joules for m in measurements]),
        coverage_half_width_joules=_root_sum([m.coverage_half_width_joules for m in measurements]),
        alignment_half_width_joules=sum(m.alignment_half_width_joules for m in measurements),
    )
