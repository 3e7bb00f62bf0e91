"""Readings that are no measurement, taken out before anything is integrated.

A sensor that cannot be read often says 0, or a number with the wrong sign. Neither is power, and
a zero that is integrated is a joule that is lost. They become what they are: failed reads, NaN.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import CounterTrace, FloatArray, PowerTrace, Trace

Mask = NDArray[np.bool_]


def values_of(trace: Trace) -> FloatArray:
    """Shape (n,): power [W] or counter [J] of a trace."""
    return trace.power_watts if isinstance(trace, PowerTrace) else trace.energy_joules


def negative_reads(trace: Trace) -> Mask:
    """Shape (n,): samples below zero; neither power nor a counter can be."""
    return np.asarray(values_of(trace) < 0)


def zero_reads(trace: Trace) -> Mask:
    """Shape (n,): zeros of a sensor that is not at zero.

    A power is never exactly 0 on a board that is mostly above it. A counter may begin at 0, but
    one that has left it and comes back to where it was has been read wrongly.
    """
    value = values_of(trace)
    zero = np.asarray(value == 0)
    if isinstance(trace, PowerTrace):
        return zero & bool(np.nanmedian(value) > 0) if len(value) else zero
    highest_before = np.fmax.accumulate(np.where(np.isfinite(value), value, 0.0))
    later = np.where(np.isfinite(value) & ~zero, value, -np.inf)
    highest_after = np.fmax.accumulate(later[::-1])[::-1]
    return np.asarray(zero & (highest_before > 0) & (highest_after >= highest_before))


def cleaned(trace: Trace) -> Trace:
    """The trace with its failed reads marked as such."""
    bad = negative_reads(trace) | zero_reads(trace)
    if not bad.any():
        return trace
    value = np.where(bad, np.nan, values_of(trace))
    if isinstance(trace, CounterTrace):
        return replace(trace, energy_joules=value)
    return replace(trace, power_watts=value)
