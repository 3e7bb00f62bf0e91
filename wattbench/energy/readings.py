"""When a sensor knew what it showed: from samples, which repeat a value, to the sensor's updates.

A sensor updates every T and is read every p. Read faster than it updates, it shows each value
several times; the reads then tell when it updated, to within one read:

    update  =  first read of the new value  −  p/2        if p < T: it came between two reads
    update  =  read  −  T/2                               if p > T: every read is new, 0…T old

Both are for stamps made by the reader. A sensor that stamps its own updates needs neither, and
nor does one that is read as often as it updates, with every read new: that is a quantity computed
at the read.

Source: uniform age of a value that is read at a random phase of its update period.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import CounterTrace, EnergyDomain, FloatArray, PowerTrace, Trace
from wattbench.energy.cleaning import values_of

TraceT = TypeVar("TraceT", PowerTrace, CounterTrace, Trace)
MIN_CHANGES = 8
"""Changes of a power value from which its rhythm shows."""
STANDING_FRACTION = 0.2
"""Share of repeated values from which a counter of unknown period counts as read too often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """How a sensor was read.

    Attributes:
        poll_period_s: Median time between two reads [s].
        update_period_s: Time between two updates of the sensor, as the reads show it or else as
            the domain says [s]; None if neither tells.
        duplicates_fraction: Share of reads that show the value of the read before.
        repeats: Whether values stand over several reads because the sensor has not updated.
    """

    poll_period_s: float
    update_period_s: float | None
    duplicates_fraction: float
    repeats: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Updates of a counter.

    Attributes:
        time_s: Shape (n,), when each update happened [s].
        read_s: Shape (n,), when it was first read [s].
        energy_joules: Shape (n,), what the counter then showed [J].
        doubt_s: Width of the uniform doubt about each ``time_s`` [s].
    """

    time_s: FloatArray
    read_s: FloatArray
    energy_joules: FloatArray
    doubt_s: float


def usable(trace: TraceT) -> TraceT:
    """The reads that gave a value."""
    good = np.isfinite(values_of(trace)) & np.isfinite(trace.time_s)
    if good.all():
        return trace
    if isinstance(trace, CounterTrace):
        return replace(trace, time_s=trace.time_s[good], energy_joules=trace.energy_joules[good])
    return replace(trace, time_s=trace.time_s[good], power_watts=trace.power_watts[good])


def polling(trace: Trace) -> Polling:
    """How the sensor of a trace was read, from its own stamps and repeats."""
    trace = usable(trace)
    domain, time_s, value = trace.domain, trace.time_s, values_of(trace)
    gaps_s = np.diff(time_s)
    forward_s = gaps_s[gaps_s > 0]
    poll_s = float(np.median(forward_s)) if len(forward_s) else 0.0
    same = np.diff(value) == 0
    between_s = np.diff(time_s[1:][~same])
    seen_s = _rhythm_s(between_s) if len(between_s) >= MIN_CHANGES else None
    if isinstance(trace, CounterTrace):
        repeats = _counter_repeats(domain, same, poll_s)
    else:
        levels = len(np.unique(value[1:][~same]))
        varied = domain.update_period_s is not None or levels > (~same).sum() / 2
        period_s = seen_s or domain.update_period_s
        repeats = bool(varied and _power_repeats(domain, between_s, poll_s, period_s, same))
    known_s = domain.update_period_s
    return Polling(
        poll_period_s=poll_s,
        update_period_s=seen_s if repeats and seen_s else known_s,
        duplicates_fraction=float(same.mean()) if len(same) else 0.0,
        repeats=repeats,
    )


def _rhythm_s(between_s: FloatArray) -> float | None:
    """The period of which all times between changes are multiples [s]; None if there is none.

    A value that happens to come twice doubles the time between two changes, so the shorter ones
    give the scale, and all of them the figure.
    """
    base_s = float(np.median(between_s[between_s <= 1.5 * np.quantile(between_s, 0.25)]))
    if base_s <= 0:
        return None
    count = np.round(between_s / base_s)
    fits = (np.abs(between_s / base_s - count) < 0.3) & (count >= 1) & (count <= 5)
    return float(between_s[fits].sum() / count[fits].sum()) if fits.mean() > 0.5 else None


def _counter_repeats(domain: EnergyDomain, same: NDArray[np.bool_], poll_s: float) -> bool:
    if domain.stamped_by == "sensor" or not same.any():
        return False
    if domain.update_period_s is not None:
        return poll_s < 0.98 * domain.update_period_s
    return bool(same.sum() >= 3 and same.mean() >= STANDING_FRACTION)


def _power_repeats(
    domain: EnergyDomain,
    between_s: FloatArray,
    poll_s: float,
    period_s: float | None,
    same: NDArray[np.bool_],
) -> bool:
    if domain.stamped_by == "sensor" or period_s is None or poll_s > period_s / 1.5:
        return False
    if domain.update_period_s is None and len(between_s) < MIN_CHANGES:
        return False
    too_soon = float(np.mean(between_s < 0.6 * period_s)) if len(between_s) else 0.0
    return bool(same.any() and too_soon <= 0.1)


def counter_ticks(trace: CounterTrace, polled: Polling) -> Ticks:
    """The updates of a counter that its reads reveal.

    The first value of a polled counter came before the first read: one period before the next
    update, or at the read if that is earlier.
    """
    trace = usable(trace)
    time_s, value = trace.time_s, trace.energy_joules
    changed = np.concatenate([[True], np.diff(value) != 0])
    changed = changed[: len(value)]
    read_s, energy = time_s[changed], value[changed]
    period_s = polled.update_period_s
    if polled.repeats:
        in_front_s = np.concatenate([[0.0], np.diff(time_s)])[changed]
        half_s = np.minimum(in_front_s, period_s or np.inf) / 2
        tick_s = read_s - half_s
        if period_s is not None and len(tick_s) > 1:
            tick_s[0] = min(tick_s[0], tick_s[1] - period_s)
        return Ticks(
            time_s=tick_s,
            read_s=read_s,
            energy_joules=energy,
            doubt_s=min(polled.poll_period_s, period_s or np.inf),
        )
    slow = period_s is not None and polled.poll_period_s > 1.02 * period_s
    age_s = period_s / 2 if period_s and slow and trace.domain.stamped_by == "reader" else 0.0
    return Ticks(time_s=read_s - age_s, read_s=read_s, energy_joules=energy, doubt_s=2 * age_s)


def power_updates(trace: PowerTrace, polled: Polling) -> PowerTrace:
    """One sample per update of a sensor, from reads that may repeat it.

    A value that stands for k periods was shown by k updates that agreed.
    """
    trace = usable(trace)
    time_s, watts = trace.time_s, trace.power_watts
    if not polled.repeats or not polled.update_period_s or len(watts) < 2:
        return trace
    starts = np.flatnonzero(np.concatenate([[True], np.diff(watts) != 0]))
    edges_s = np.append(time_s[starts], time_s[-1] + polled.poll_period_s)
    count = np.maximum(1, np.round(np.diff(edges_s) / polled.update_period_s)).astype(int)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    update_s = np.repeat(edges_s[:-1], count) + within * np.repeat(np.diff(edges_s) / count, count)
    return replace(trace, time_s=update_s, power_watts=np.repeat(watts[starts], count))
