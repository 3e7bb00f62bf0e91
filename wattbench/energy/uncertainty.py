"""The error budget of one window: gain, offset, edge, coverage and alignment.

    gain      true / read − 1       uniform within ± g E         prior of the domain
    offset    true − read           uniform within ± o W         prior of the domain, W the window
    edge      samples beside the window's edges; when an update happened      normal
    coverage  what a sensor that looks c < 1 of each period T does not see    uniform
    alignment another clock's stamps may be off by ± δ: what a shift of the window by δ changes
              its energy by, about δ |P_end − P_start|                        uniform

Coverage. Of a load without a rhythm each hidden part is a fresh draw, so errors add in squares:

    sd = T · sqrt((1 − c) · Σ s²),      s² = (r_n − (r_{n−1} + r_{n+1}) / 2)² / 1.5

with r the readings; c T and (1 − c) T of white power have variances in the ratio (1 − c) : c,
and the sum of both is s² (1 − c) T². A periodic load can beat with the looks; then the bound of
``wattbench.energy.aliasing`` is added in squares, times the swing of the power. It is never more
than what the hidden part can hold: (1 − c) times the distance from mean to extreme. Samples of
instants, without an averaging window, show nothing of the time between them: there the first
formula has c = 0, whatever the sensor looks at.

Source: GUM (JCGM 100:2008), sections 4.3.7 and 5.1.2, for the terms and their sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wattbench.core.energy import EnergyDomain, EnergyMeasurement, FloatArray, PowerTrace
from wattbench.energy.aliasing import (
    MAX_SENSOR_PERIODS,
    MIN_LOOKS,
    apparent_period_ratio,
    covered_fraction,
    swing_error_fraction,
)

SMOOTH_EDGE_FRACTION = 0.011
"""RMS error of one interpolated edge under random load, over power times tick length [1].

Source: simulated; random load gives 0.014. The range of the neighbours tells most of that by
itself; with this floor intervals of ratios hold 95 % without being wider than they need.
"""
FLAT_FRACTION = 0.1
"""Range of readings over their mean below which a locked load may hide any swing."""
HIDDEN_RATIO = 3.0
"""Power that a locked load may then hide, over the reading: the published case of a reading that
is 60 % low at a period of 100 ms."""
RANDOM_RATIO = 2.2
"""Half-width given to a random term over its standard deviation: 95 % of a uniform distribution
then hold 95 % of a normal one, with a tenth more for an estimated deviation."""
UNIFORM = float(np.sqrt(3.0))
"""Half-width of a uniform distribution over its standard deviation."""


TermName = Literal["gain", "offset", "edge", "coverage", "alignment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetTerm:
    """One named source of error of an energy.

    Attributes:
        name: ``gain``, ``offset``, ``edge``, ``coverage`` or ``alignment``.
        distribution: Its shape.
        standard_joules: Its standard deviation [J].
    """

    name: TermName
    distribution: Literal["uniform", "normal"]
    standard_joules: float


def budget(energy: EnergyMeasurement) -> tuple[BudgetTerm, ...]:
    """The terms of an energy's uncertainty; their squares add."""

    def uniform(name: TermName, *widths: float) -> BudgetTerm:
        standard_joules = float(np.hypot.reduce([0.0, *widths])) / UNIFORM
        return BudgetTerm(name=name, distribution="uniform", standard_joules=standard_joules)

    return (
        uniform("gain", *energy.gain_half_widths_joules),
        uniform("offset", *energy.offset_half_widths_joules),
        BudgetTerm(name="edge", distribution="normal", standard_joules=energy.edge_joules),
        uniform("coverage", energy.coverage_half_width_joules),
        uniform("alignment", energy.alignment_half_width_joules),
    )


def edge_joules(
    time_s: FloatArray, energy_joules: FloatArray, edge_s: float, blur_s: float
) -> float:
    """One standard deviation of the energy error from interpolating at an edge [J].

    Inside the interval of length T that holds the edge, the shape of the power is unknown. If it
    stepped between the powers of the neighbouring intervals, the error is at most ΔP·T/4; half
    of that is taken as the standard deviation, and the figure of random load as its floor.

    Args:
        time_s: Shape (n,), instants at which the energy is known [s].
        energy_joules: Shape (n,), the energy there [J].
        edge_s: Edge of the window [s].
        blur_s: Time over which the sensor smears power, if longer than its interval [s].
    """
    right = int(np.clip(np.searchsorted(time_s, edge_s), 1, len(time_s) - 1))
    length_s = time_s[right] - time_s[right - 1]
    first, last = max(0, right - 2), right + 2
    if blur_s > length_s:
        first = min(first, max(0, int(np.searchsorted(time_s, edge_s - 1.5 * blur_s)) - 1))
        last = max(last, int(np.searchsorted(time_s, edge_s + 1.5 * blur_s)) + 1)
    gaps_s = np.diff(time_s[first:last])
    moved = gaps_s > 0
    watts = np.diff(energy_joules[first:last])[moved] / gaps_s[moved]
    if not len(watts):
        return 0.0
    step = float(np.ptp(watts)) * max(length_s, blur_s) / 8
    return float(max(step, SMOOTH_EDGE_FRACTION * np.abs(watts).mean() * length_s))


def coverage_half_width_joules(
    looks: PowerTrace,
    seen_watts: tuple[float, float],
    window_s: float,
    load_period_s: float | None,
) -> float:
    """Uniform half-width of what a sensor does not look at within a window [J].

    Args:
        looks: One sample per update in the window.
        seen_watts: Lowest and highest reading of the whole trace [W].
        window_s: Length of the window [s].
        load_period_s: Period of the load [s]; None: looked for in the readings.
    """
    looks_s, looks_watts = looks.time_s, looks.power_watts
    n = len(looks_watts)
    if n < 2 or looks_s[-1] <= looks_s[0]:
        return 0.0
    spacing_s = float(looks_s[-1] - looks_s[0]) / (n - 1)
    covered = looked_at_fraction(looks.domain, spacing_s)
    points = _are_points(looks.domain)
    if covered >= 1 and not points:
        return 0.0
    odd = looks_watts[1:-1] - (looks_watts[2:] + looks_watts[:-2]) / 2
    scatter_watts = float(np.sqrt((odd**2).mean() / 1.5)) if n > 2 else 0.0
    hidden = 1.0 if points else 1 - covered
    random_joules = spacing_s * np.sqrt(hidden * n) * scatter_watts
    if covered >= 1:
        beat_watts = 0.0
    elif load_period_s is None:
        beat_watts = _unknown_beat_watts(looks_watts, covered)
    else:
        ratio = spacing_s / load_period_s
        beat_watts = _known_beat_watts(looks_watts, seen_watts, covered, ratio)
    return float(np.hypot(RANDOM_RATIO * random_joules, beat_watts * window_s))


def looked_at_fraction(domain: EnergyDomain, spacing_s: float) -> float:
    """Share of the time that the readings used look at.

    Reads further apart than the sensor's updates skip some of its looks.
    """
    covered = covered_fraction(domain.coverage_fraction)
    period_s = domain.update_period_s
    if period_s is None or domain.quantity == "energy_counter" or spacing_s <= 1.5 * period_s:
        return covered
    look_s = max(period_s, domain.averaging_window_s or 0.0) * covered
    return min(covered, look_s / spacing_s)


def _are_points(domain: EnergyDomain) -> bool:
    """Whether readings are of instants, with nothing known of the time between them."""
    return (
        domain.quantity == "power"
        and domain.averaging_window_s is None
        and domain.interpolation == "linear"
    )


def _known_beat_watts(
    looks_watts: FloatArray, seen_watts: tuple[float, float], covered: float, ratio: float
) -> float:
    """Bound on the mean power's error for a load of known period, T / L = ratio [W]."""
    n = len(looks_watts)
    mean = float(looks_watts.mean())
    low, high = float(looks_watts.min()), float(looks_watts.max())
    passed = abs(float(np.sinc(covered * ratio)))
    if _stands(ratio, n):
        # All looks may fall on a phase or a few: only what was seen elsewhere tells the swing.
        low, high = min(low, seen_watts[0]), max(high, seen_watts[1])
        if high - low < FLAT_FRACTION * mean:
            low, high = 0.0, HIDDEN_RATIO * mean
    else:
        # Long looks flatten the swing, few phases miss its peaks; a quarter still shows.
        shown = max(0.25, passed * (1 - 0.25 * min(1.0, (1 - passed) / 0.3)))
        wider = (high - low) * (1 / shown - 1) / 2
        low, high = max(0.0, low - wider), high + wider
    share = swing_error_fraction(1.0, ratio, covered, n * ratio)
    return min(share * (high - low), _hidden_watts(mean, low, high, covered))


def _stands(ratio: float, looks: int) -> bool:
    """Whether looks fall on at most four phases of the load all window long."""
    count = np.arange(1, MAX_SENSOR_PERIODS + 1)
    apart = np.abs(count * ratio - np.round(count * ratio))
    return bool(np.any((apart * looks < count) & (np.round(count * ratio) >= 1)))


def _unknown_beat_watts(looks_watts: FloatArray, covered: float) -> float:
    """The same for a load that shows a rhythm of its own accord; 0 if it shows none [W]."""
    low, high = float(looks_watts.min()), float(looks_watts.max())
    if len(looks_watts) < MIN_LOOKS:
        return _hidden_watts(float(looks_watts.mean()), low, high, covered)
    period_ratio = apparent_period_ratio(looks_watts)
    if period_ratio is None:
        return 0.0
    # A look slides over the flank of an aliased load in c (L/T) periods of the beat. What moves
    # by steeper steps only is a slow load, seen as it is.
    steepest = (high - low) / (covered * max(1.0, period_ratio - 1))
    steps = np.diff(looks_watts)
    sliding = np.cumsum(np.where(np.abs(steps) <= 1.5 * steepest, steps, 0.0))
    slow_load = float(np.ptp(sliding)) < (high - low) / 2
    looks = len(looks_watts)
    share = swing_error_fraction(period_ratio, 1.0, covered, looks)
    if not slow_load:
        # The slowest load that looks do not follow and that beats like this.
        ratio = 1 - 1 / period_ratio
        share = max(share, swing_error_fraction(1.0, ratio, covered, looks * ratio))
    hidden = _hidden_watts(float(looks_watts.mean()), low, high, covered)
    return min(share * (high - low), hidden)


def _hidden_watts(mean_watts: float, low_watts: float, high_watts: float, covered: float) -> float:
    return (1 - covered) * max(mean_watts - low_watts, high_watts - mean_watts)
