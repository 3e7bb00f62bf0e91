"""The offset of a log's clock, found again in synthetic loads whose offset is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.core.energy import FloatArray
from wattbench.energy.alignment import NotAligned, align


def jobs(rng: np.random.Generator, length_s: float) -> tuple[FloatArray, FloatArray]:
    """A load that goes on and off at random: level at the middle of each 50 ms."""
    time_s = np.arange(0.0, length_s, 0.05) + 0.025
    edges_s = np.cumsum(rng.exponential(6.0, size=200) + 0.5)
    level = np.searchsorted(edges_s, time_s) % 2
    level[time_s < 4.0], level[time_s > length_s - 4.0] = 0, 0
    return time_s, level.astype(np.float64)


def logged(
    rng: np.random.Generator,
    time_s: FloatArray,
    level: FloatArray,
    offset_s: float,
    period_s: float,
    noise_watts: float,
) -> tuple[FloatArray, FloatArray]:
    """A wall meter on a clock that is ahead by the offset, idle before and after."""
    at_s = np.arange(-30.0 + offset_s, time_s[-1] + 30.0 + offset_s, period_s)
    watts = 200.0 + 300.0 * np.interp(at_s - offset_s, time_s, level, left=0.0, right=0.0)
    return at_s, watts + rng.normal(0.0, noise_watts, len(at_s))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    offset_s=st.floats(-25.0, 25.0),
    period_s=st.sampled_from([0.1, 0.5, 1.0]),
    noise_watts=st.sampled_from([0.0, 5.0, 40.0]),
)
def test_known_offsets_are_found(
    seed: int, offset_s: float, period_s: float, noise_watts: float
) -> None:
    """Within the half-width, which is a fraction of a second to two."""
    rng = np.random.default_rng(seed)
    time_s, level = jobs(rng, 60.0)
    if level.max() == 0:
        return
    log_s, watts = logged(rng, time_s, level, offset_s, period_s, noise_watts)
    found = align(log_s, watts, time_s, level)
    assert abs(found.offset_s - offset_s) <= found.half_width_s
    assert found.half_width_s < 2.0


def test_noise_widens() -> None:
    """The noisier the log, the less sharp the peak."""
    widths = []
    for noise_watts in (2.0, 100.0):
        rng = np.random.default_rng(3)
        time_s, level = jobs(rng, 60.0)
        log = logged(rng, time_s, level, 7.0, 0.5, noise_watts)
        widths.append(align(*log, time_s, level).half_width_s)
    assert widths[1] > widths[0]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(period_s=st.floats(3.0, 15.0), seed=st.integers(0, 100))
def test_a_periodic_load_is_refused(period_s: float, seed: int) -> None:
    """A load without beginning and end fits again one period later."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(0.0, 60.0, 0.05)
    level = (time_s % period_s < period_s / 2).astype(np.float64)
    log_s = np.arange(-150.0, 210.0, 0.5)
    watts = 200.0 + 300.0 * (log_s % period_s < period_s / 2) + rng.normal(0, 5, len(log_s))
    with pytest.raises(NotAligned) as refused:
        align(log_s, watts, time_s, level)
    assert refused.value.reason == "ambiguous"


@pytest.mark.parametrize(
    ("level", "shift_s", "reason"),
    [
        (np.zeros(600), 0.0, "no_load_in_log"),
        (np.arange(600) > 300, 5000.0, "not_covered"),
        (np.arange(600) > 300, 0.0, "no_load_in_log"),
    ],
)
def test_what_cannot_be_aligned(level: FloatArray, shift_s: float, reason: str) -> None:
    """No load, a log of another time, and a log of something else."""
    rng = np.random.default_rng(1)
    log_s = np.arange(-150.0, 210.0, 0.5) + shift_s
    with pytest.raises(NotAligned) as refused:
        align(
            log_s,
            200.0 + rng.normal(0, 5, len(log_s)),
            np.linspace(0.0, 60.0, 600),
            np.asarray(level, np.float64),
        )
    assert refused.value.reason == reason
