"""Intervals hold what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattbench.stats import (
    Spread,
    additive_interval,
    combined_interval,
    needed_for_quantile,
    order_statistic_ranks,
    quantile,
    spread_of,
)


@pytest.mark.parametrize(("fraction", "needed"), [(0.5, 6), (0.95, 72), (0.99, 368)])
def test_quantiles_need_enough_values(fraction: float, needed: int) -> None:
    """The smallest samples follow from the binomial: 1 − p^n and (1 − p)^n below 2.5 %."""
    assert needed_for_quantile(fraction) == needed
    assert quantile(np.arange(float(needed)), fraction).value is not None
    withheld = quantile(np.arange(needed - 1.0), fraction)
    assert (withheld.value, withheld.reason) == (None, "too_few_samples")


@pytest.mark.parametrize("fraction", [0.5, 0.95])
def test_order_statistic_interval_covers(fraction: float) -> None:
    """On skewed data the interval covers the true quantile in at least 95 % of 2,000 samples."""
    rng = np.random.default_rng(7)
    samples = rng.exponential(size=(2000, 150))
    truth = -np.log(1 - fraction)
    found = [quantile(sample, fraction) for sample in samples]
    inside = [e.low <= truth <= e.high for e in found if e.low is not None and e.high is not None]
    assert len(inside) == 2000
    assert np.mean(inside) >= 0.945


@given(n=st.integers(1, 400), fraction=st.floats(0.01, 0.99))
def test_ranks_lie_inside_the_sample(n: int, fraction: float) -> None:
    """Ranks are ordered and exist, or the quantile is withheld."""
    ranks = order_statistic_ranks(n, fraction)
    assert ranks is None or 0 <= ranks[0] < ranks[1] < n


def test_uniform_term_gives_its_own_quantiles() -> None:
    """Central 95 % of ±10 % uniform is ±9.5 %, no Gaussian shortcut."""
    low, high = combined_interval(100.0, uniform_half_width_fractions=[0.1])
    assert low == pytest.approx(90.5, abs=0.02)
    assert high == pytest.approx(109.5, abs=0.02)


def test_terms_convolve() -> None:
    """Two equal uniforms make a triangle: 95 % lie within 2·w·(1 − √0.05)."""
    low, high = additive_interval(0.0, uniform_half_widths=[1.0, 1.0], normal_sd=0.0)
    assert high == pytest.approx(2 * (1 - 0.05**0.5), abs=0.01)
    assert low == pytest.approx(-high, abs=0.02)


def test_inverse_is_the_reciprocal_interval() -> None:
    """Tokens per joule and joules per token tell the same."""
    terms: dict[str, Any] = {
        "uniform_half_width_fractions": [0.3, 0.2],
        "normal_sd_fraction": 0.05,
    }
    straight = combined_interval(4.0, **terms)
    inverse = combined_interval(0.25, inverse=True, **terms)
    assert inverse == pytest.approx((1 / straight[1], 1 / straight[0]), rel=1e-3)


def test_three_repeats_use_t_with_two_degrees() -> None:
    """Half-width 4.303 standard errors, the t quantile of two degrees of freedom."""
    low, high = combined_interval(1.0, spread=Spread(scale=0.01, degrees=2))
    assert np.log(high) == pytest.approx(0.04303, rel=0.01)
    assert np.log(low) == pytest.approx(-0.04303, rel=0.01)


def test_one_repeat_has_no_spread() -> None:
    """Scatter needs two values, and positive ones."""
    assert spread_of([1.0]) is None
    assert spread_of([1.0, 0.0]) is None
