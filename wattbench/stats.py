"""Intervals: order statistics for percentiles, t for repeats, and their combination.

All intervals are central 95 % unless a caller says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from wattbench.core.energy import FloatArray
from wattbench.core.result import Estimate

CONFIDENCE = 0.95
_DRAWS = 1 << 15
_SEED = 20260512


def order_statistic_ranks(n: int, fraction: float) -> tuple[int, int] | None:
    """Ranks (from 0) of the two order statistics that bracket a quantile with 95 % confidence.

    The number of observations below the true quantile is binomial (n, fraction), whatever the
    distribution; the ranks are its 2.5 % and 97.5 % points.

    Args:
        n: Size of the sample.
        fraction: Which quantile, 0 to 1.

    Returns:
        None if the interval does not lie inside the sample: then the quantile is withheld.

    Source: Conover, *Practical Nonparametric Statistics*, 3rd ed., section 3.2.
    """
    tail = (1 - CONFIDENCE) / 2
    below = bdtr(np.arange(n + 1), n, fraction)
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = int(np.searchsorted(below, 1 - tail))
    # P(k < low + 1) ≤ tail and P(k ≤ high) ≥ 1 − tail, with order statistics x[low] and x[high].
    return (low, high) if low >= 0 and high < n else None


def needed_for_quantile(fraction: float) -> int:
    """Smallest sample whose 95 % interval for a quantile lies inside it."""
    n = 1
    while order_statistic_ranks(n, fraction) is None:
        n += 1
    return n


def quantile(values: FloatArray, fraction: float) -> Estimate:
    """A sample quantile with its order-statistic interval.

    Args:
        values: Shape (n,), in any order.
        fraction: Which quantile, 0 to 1.
    """
    n = len(values)
    ranks = order_statistic_ranks(n, fraction) if n else None
    if ranks is None:
        return Estimate(value=None, n=n, reason="too_few_samples")
    ordered = np.sort(values)
    return Estimate(
        value=float(np.quantile(ordered, fraction)),
        low=float(ordered[ranks[0]]),
        high=float(ordered[ranks[1]]),
        n=n,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Relative scatter of a mean over repeats: a t variable in the logarithm.

    Attributes:
        scale: Standard error of the mean logarithm; 0 for none.
        degrees: Degrees of freedom of the t distribution; None for a normal one.
    """

    scale: float = 0.0
    degrees: int | None = None


def spread_of(values: Sequence[float]) -> Spread | None:
    """Scatter of positive repeats about their mean; None if there are fewer than two."""
    if len(values) < 2 or min(values) <= 0:
        return None
    scale = float(np.std(np.log(values), ddof=1) / np.sqrt(len(values)))
    return Spread(scale=scale, degrees=len(values) - 1)


def combined_interval(
    value: float,
    *,
    uniform_half_width_fractions: Sequence[float] = (),
    normal_sd_fraction: float = 0.0,
    spread: Spread = Spread(),
    inverse: bool = False,
) -> tuple[float, float]:
    """Central 95 % of ``value · (1 + Σ uniform + normal) · exp(t)``, each term independent.

    The quantiles are those of 2^15 draws, each term stratified, from a fixed seed: the same
    input gives the same interval, and the error is below one per cent of its width.

    Args:
        value: The positive number that the interval belongs to.
        uniform_half_width_fractions: Half-widths of uniform terms, relative to the value.
        normal_sd_fraction: Standard deviation of a normal term, relative to the value.
        spread: Scatter over repeats.
        inverse: Whether the terms divide instead of multiply (tokens per joule).
    """
    rng = np.random.default_rng(_SEED)
    # Energy is positive, however wide the prior.
    factor = np.maximum(
        1.0 + _error_draws(rng, uniform_half_width_fractions, normal_sd_fraction), 1e-9
    )
    if inverse:
        factor = 1 / factor
    if spread.scale:
        uniform = _stratified(rng)
        deviate = ndtri(uniform) if spread.degrees is None else stdtrit(spread.degrees, uniform)
        factor *= np.exp(np.clip(spread.scale * deviate, -50.0, 50.0))
    low, high = _central(factor)
    return value * low, value * high


def additive_interval(
    value: float, *, uniform_half_widths: Sequence[float], normal_sd: float
) -> tuple[float, float]:
    """Central 95 % of ``value + Σ uniform + normal``, in the unit of ``value``."""
    errors = _error_draws(np.random.default_rng(_SEED), uniform_half_widths, normal_sd)
    low, high = _central(errors)
    return value + low, value + high


def _error_draws(
    rng: np.random.Generator, uniform_half_widths: Sequence[float], normal_sd: float
) -> FloatArray:
    errors = np.zeros(_DRAWS)
    for half_width in uniform_half_widths:
        if half_width:
            errors += half_width * (2 * _stratified(rng) - 1)
    if normal_sd:
        errors += normal_sd * ndtri(_stratified(rng))
    return errors


def _central(draws: FloatArray) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)


def _stratified(rng: np.random.Generator) -> FloatArray:
    """Shape (n,): one uniform draw from each of n equal slices of (0, 1), in random order."""
    return np.asarray((rng.permutation(_DRAWS) + rng.random(_DRAWS)) / _DRAWS)
