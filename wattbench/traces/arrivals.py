"""Random processes of arrivals, from time 0 on; each is a pure function of a generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from wattbench.core.energy import FloatArray

Process = Callable[[int, np.random.Generator], FloatArray]
"""The first n arrivals of a process [s]."""

MIN_RATE_PER_S, MAX_RATE_PER_S = 1e-7, 1e7
MAX_PEAK_TO_MEAN_RATIO = 20.0


def check_rate(rate_per_s: float) -> None:
    """ValueError for a rate that nobody means."""
    if not MIN_RATE_PER_S <= rate_per_s <= MAX_RATE_PER_S:
        raise ValueError(
            f"rate_per_s = {rate_per_s} is not from {MIN_RATE_PER_S:g} to {MAX_RATE_PER_S:g}"
        )


def poisson(rate_per_s: float) -> Process:
    """A Poisson process."""

    def times_s(count: int, rng: np.random.Generator) -> FloatArray:
        gaps_s = rng.standard_exponential(count)
        return np.cumsum(gaps_s, out=gaps_s) / rate_per_s

    return times_s


def gamma(rate_per_s: float, cv_ratio: float) -> Process:
    """Gaps of a gamma distribution, whose standard deviation is ``cv_ratio`` of their mean."""
    if not 0.01 <= cv_ratio <= 30:
        raise ValueError(f"cv_ratio = {cv_ratio} is not from 0.01 to 30; 1 is Poisson")
    shape = cv_ratio**-2

    def times_s(count: int, rng: np.random.Generator) -> FloatArray:
        gaps_s = rng.standard_gamma(shape, count)
        return np.cumsum(gaps_s, out=gaps_s) / (rate_per_s * shape)

    return times_s


def diurnal(rate_per_s: float, peak_to_mean_ratio: float, period_s: float) -> Process:
    """A Poisson process whose rate goes through a day.

    The rate is ``rate_per_s · exp(−k cos(2πt / period_s)) / I₀(k)``: lowest at time 0, highest half
    a period later, with the mean ``rate_per_s``; k follows from the peak. Made by thinning of a
    process that has the peak's rate all the time (Lewis and Shedler, 1979), which is exact.
    """
    if not 1 <= peak_to_mean_ratio <= MAX_PEAK_TO_MEAN_RATIO:
        raise ValueError(
            f"peak_to_mean_ratio = {peak_to_mean_ratio} is not from 1 to {MAX_PEAK_TO_MEAN_RATIO:g}"
        )
    if not 1e-3 <= period_s <= 1e9:
        raise ValueError(f"period_s = {period_s} is not from 0.001 to 1e+09; a day has 86400")
    peak_per_s = rate_per_s * peak_to_mean_ratio
    k = _concentration(peak_to_mean_ratio)

    def times_s(count: int, rng: np.random.Generator) -> FloatArray:
        parts, found, now_s = [], 0, 0.0
        while found < count:
            tried = min(1 << 20, int(1.1 * (count - found) * peak_to_mean_ratio) + 64)
            gaps_s = rng.standard_exponential(tried)
            at_s = now_s + np.cumsum(gaps_s, out=gaps_s) / peak_per_s
            now_s = float(at_s[-1])
            # The rate over its peak: the cosine is −1 there.
            share = np.exp(-k * (1 + np.cos(at_s * (2 * math.pi / period_s))))
            parts.append(at_s[rng.random(tried) < share])
            found += len(parts[-1])
        return np.concatenate(parts)[:count]

    return times_s


def _concentration(peak_to_mean_ratio: float) -> float:
    """The k at which ``exp(k) / I₀(k)`` is the ratio."""
    from scipy import optimize, special  # only a day needs it: whoever replays need not wait

    if peak_to_mean_ratio == 1:
        return 0.0
    return float(optimize.brentq(lambda k: 1 / special.ive(0, k) - peak_to_mean_ratio, 0.0, 4000.0))
