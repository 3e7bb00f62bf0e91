"""What a sensor that looks only part of the time makes of a periodic load.

The sensor looks at the share c of each of its periods T; the load repeats every L, with swing
A = P_max − P_min. A load that is on for a share d of its period has harmonics of amplitude
(2 A / π m) |sin π m d|. A look of length c T passes of the m-th the share |sinc(m c T / L)|, and
N looks, T apart, leave of its mean at most

    D(x) = min(1, 1 / (2 N x)),     x = distance of m T / L from the nearest whole number,

since |sin π N x / (N sin π x)| ≤ D. The error of the mean power is then at most

    A · Σ_m  (2 / π m) · |sinc(m c T / L)| · D

over the harmonics that are aliased, m T / L > 1/2: slower ones are seen as they are. It does not
shrink with the window where p loads take q looks (T / L = p/q): the q-th harmonic stands still.

Sources: Fourier series of a rectangular pulse train and the Dirichlet kernel; the effect on GPUs:
Yang, Adamek, Armour, *Part-time Power Measurements*, SC'24, arXiv 2312.02741.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import FloatArray

MAX_SENSOR_PERIODS = 4
"""Highest q of a ratio p/q that is worth a warning; above it the error is below A / 8."""
BEATS_PER_WINDOW = 3
"""Beats within a window from which they average out well enough."""
MARGIN_RATIO = 1.15
"""Bound over the sum above: harmonics may add up in phase, and a uniform term counts by 95 %."""
MIN_LOOKS = 20
"""Looks from which a slow beat can be told from a slow load."""
_HARMONICS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasRisk:
    """Whether a sensor beats with a load.

    Attributes:
        at_risk: True if the beat is too slow for the window to average it out.
        load_count: Periods of the load …
        sensor_count: … in this many periods of the sensor, nearly; 0 and 0 if no ratio is near.
        beat_s: Time after which the looks fall on the same phases again [s]; infinite if locked.
        error_fraction: Largest error of the mean power over the swing of the load.
    """

    at_risk: bool
    load_count: int
    sensor_count: int
    beat_s: float
    error_fraction: float


def alias_risk(
    load_period_s: float, sensor_period_s: float, coverage_fraction: float | None, window_s: float
) -> AliasRisk:
    """Whether the period of a load is in a low-order ratio with that of the sensor.

    Args:
        load_period_s: Period of the load, such as the time of one decoding step [s].
        sensor_period_s: Update period of the sensor [s].
        coverage_fraction: Share of it that the sensor looks at; None: a quarter, the least known.
        window_s: Length of the measurement [s].

    Raises:
        ValueError: If a period or the window is not above 0.
    """
    if not min(load_period_s, sensor_period_s, window_s) > 0:
        raise ValueError("periods and window must be above 0 s")
    look_fraction = covered_fraction(coverage_fraction)
    ratio = sensor_period_s / load_period_s
    worst = AliasRisk(at_risk=False, load_count=0, sensor_count=0, beat_s=0.0, error_fraction=0.0)
    if look_fraction >= 1:
        return worst
    bound = swing_error_fraction(load_period_s, sensor_period_s, look_fraction, window_s)
    for sensor_count in range(1, MAX_SENSOR_PERIODS + 1):
        load_count = round(sensor_count * ratio)
        apart = abs(sensor_count * ratio - load_count)
        beat_s = float("inf") if apart < 1e-12 * ratio else sensor_period_s / apart
        passed = abs(float(np.sinc(sensor_count * look_fraction * ratio)))
        near = load_count >= 1 and beat_s > window_s / BEATS_PER_WINDOW
        if near and 2 / (np.pi * sensor_count) * passed > 0.01:
            return AliasRisk(
                at_risk=True,
                load_count=load_count,
                sensor_count=sensor_count,
                beat_s=beat_s,
                error_fraction=bound,
            )
    return AliasRisk(at_risk=False, load_count=0, sensor_count=0, beat_s=0.0, error_fraction=bound)


def covered_fraction(coverage_fraction: float | None) -> float:
    """The share looked at; a quarter, the least that any known sensor has, if it is unknown."""
    return 0.25 if coverage_fraction is None else min(1.0, coverage_fraction)


def swing_error_fraction(
    load_period_s: float,
    sensor_period_s: float,
    coverage_fraction: float,
    window_s: float,
) -> float:
    """Largest error of the mean power over the swing of a load of any duty cycle.

    Args:
        load_period_s: Period of the load [s].
        sensor_period_s: Time between two looks [s].
        coverage_fraction: Share of it that is looked at.
        window_s: Length of the measurement [s].
    """
    ratio = sensor_period_s / load_period_s
    count = int(np.clip(3 / max(coverage_fraction * ratio, 1e-9), 4, _HARMONICS))
    order = np.arange(1, count + 1)
    passed = np.abs(np.sinc(order * coverage_fraction * ratio))
    apart = np.abs(order * ratio - np.round(order * ratio))
    looks = max(1.0, window_s / sensor_period_s)
    left = np.minimum(1.0, 1 / np.maximum(2 * looks * apart, 1e-12))
    share = (2 / (np.pi * order) * passed * left)[order * ratio > 0.5]
    return min(1.0, MARGIN_RATIO * float(share.sum()))


def apparent_period_ratio(looks_watts: FloatArray) -> float | None:
    """Period at which looks swing over the time between two; None if nothing stands out.

    The highest inner peak of the periodogram between two looks and two thirds of the record,
    taken if it and its next two harmonics explain more than half of the variance.

    Args:
        looks_watts: Shape (n,), one value per update.
    """
    n = len(looks_watts)
    swing = looks_watts - looks_watts.mean()
    total = float((swing**2).sum())
    if n < MIN_LOOKS or total <= 0:
        return None
    power = np.abs(np.fft.rfft(swing * np.hanning(n), 8 * n)) ** 2
    inner = np.flatnonzero((power[1:-1] > power[:-2]) & (power[1:-1] >= power[2:])) + 1
    ends = [len(power) - 1] if power[-1] > power[-2] else []
    inner = np.concatenate([inner[inner >= 12], np.array(ends, dtype=int)]).astype(int)
    if not len(inner):
        return None
    frequency = float(inner[np.argmax(power[inner])]) / (8 * n)
    phase = 2 * np.pi * frequency * np.outer(np.arange(n), (1, 2, 3))
    columns = np.hstack([np.cos(phase), np.sin(phase)])
    fitted = columns @ np.linalg.lstsq(columns, swing, rcond=1e-6)[0]
    explained = 1 - float(((swing - fitted) ** 2).sum()) / total
    return 1 / frequency if explained > 0.5 + 3 / n else None
