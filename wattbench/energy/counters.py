"""Energy counters that begin again: a wrap is mended where it is certain, a reset never.

A counter of b bits in microjoules wraps at 2^b µJ. Where the range is known, a fall is mended if
the power that follows is one that the device shows elsewhere. Where it is not, the smallest
power of two above all readings is tried; a single fall must then fit its neighbours closely, for
a reset fits by chance about as often as its tolerance is wide beside the range.
"""

from __future__ import annotations

import math

import numpy as np

from wattbench.core.energy import EnergyDomain, FloatArray
from wattbench.core.errors import InsufficientCoverage

NEIGHBOURS = 6
CLOSE_FRACTION = 0.05
"""How closely a single fall must fit its neighbours where the range is a guess."""
LOOSE_FRACTION = 0.6
"""The same where several falls agree on the range, or it is known."""


def mended_joules(
    domain: EnergyDomain, time_s: FloatArray, energy_joules: FloatArray
) -> FloatArray:
    """Shape (n − 1,): energy between the ticks of a counter, falls mended [J].

    Args:
        domain: Whose counter.
        time_s: Shape (n,), ticks [s].
        energy_joules: Shape (n,), the counter there [J].

    Raises:
        InsufficientCoverage: ``counter_reset`` if a fall is no wrap for certain.
    """
    step = np.diff(energy_joules)
    falls = np.flatnonzero(step < 0)
    if not len(falls):
        return step
    span_joules = domain.wrap_joules or _guessed_span_joules(float(energy_joules.max()))
    sure = domain.wrap_joules is not None or len(falls) > 1
    mended = step.copy()
    mended[falls] += span_joules
    for fall in falls:
        if not _fits(time_s, step, mended, int(fall), sure=sure):
            raise InsufficientCoverage(
                "counter_reset",
                f"{domain.name}: the energy counter fell by {-step[fall]:.3g} J at "
                f"{time_s[fall + 1]:.3f} s of the run; it was reset or read wrongly",
            )
    return mended


def _guessed_span_joules(highest_joules: float) -> float:
    """Smallest power of two of microjoules above all readings [J]."""
    return float(2.0 ** (math.floor(math.log2(max(highest_joules, 1e-6) * 1e6)) + 1) * 1e-6)


def _fits(
    time_s: FloatArray, step: FloatArray, mended: FloatArray, fall: int, *, sure: bool
) -> bool:
    """Whether the mended power at a fall is that of the ticks around it."""
    near = slice(max(0, fall - NEIGHBOURS // 2), fall + NEIGHBOURS // 2 + 1)
    sound = step[near] >= 0
    watts = step[near][sound] / np.diff(time_s)[near][sound]
    if len(watts) < 2:
        return False
    found_watts = float(mended[fall] / (time_s[fall + 1] - time_s[fall]))
    middle = float(np.median(watts))
    allowed = LOOSE_FRACTION if sure else max(CLOSE_FRACTION, 2 * float(np.std(watts)) / middle)
    lowest, highest = float(watts.min()), float(watts.max())
    return lowest - allowed * middle <= found_watts <= highest + allowed * middle
