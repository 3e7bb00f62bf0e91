"""How far a log's clock is off, from the load that both the log and the run show.

For an offset d the log is taken at t, and what the run knows at t − d; of the readings that then
fall into the run, the correlation r(d) with a straight line between them says how well both agree.

    d̂            where r² is highest and r > 0
    half-width   all d around d̂ with (1 − r²) ≤ (1 − r²_max) (1 + 3.84 / n_eff), and half a sample

3.84 is the 95 % point of χ² with one degree of freedom, so this is the likelihood interval of d for
noise whose n_eff of n samples are independent: n_eff = n (1 − ρ) / (1 + ρ), ρ the correlation of
neighbouring residuals. Another peak that is nearly as high means that the answer is not unique.

Source: profile likelihood of a shift; effective sample size of a first-order autoregression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.errors import WattbenchError

SEARCH_S = 120.0
"""How far a clock is looked for, either way [s]."""
COVERED_FRACTION = 0.8
"""Share of the run that the log must cover at an offset that counts."""
MIN_SAMPLES = 8
MIN_R2_FRACTION = 0.5
"""Share of the log's variance that the load must explain."""
RIVAL_FRACTION = 0.1
"""A second peak whose r² is lower by less than this is a rival."""
COARSE_STEPS = 4000
FINE_STEPS = 400
CHI2 = 3.84
"""95 % point of χ² with one degree of freedom."""


class NotAligned(WattbenchError):
    """Nothing tells where a log lies on a run's clock.

    Args:
        reason: ``no_load_in_log``, ``not_covered`` or ``ambiguous``.
        message: The same for a reader.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Where a log lies on a run's clock.

    Attributes:
        offset_s: Clock of the log minus run clock [s].
        half_width_s: How far that may be off [s].
        correlation_ratio: Correlation of both at that offset.
    """

    offset_s: float
    half_width_s: float
    correlation_ratio: float


@dataclass(frozen=True, slots=True)
class _Both:
    """The log, and what the run knows; both in order of time."""

    log_s: FloatArray
    log_watts: FloatArray
    run_s: FloatArray
    load: FloatArray

    def known(self, offset_s: float) -> tuple[FloatArray, FloatArray] | None:
        """Log and load at the log's samples inside the run; None if they are too few."""
        first = int(np.searchsorted(self.log_s, self.run_s[0] + offset_s, side="left"))
        last = int(np.searchsorted(self.log_s, self.run_s[-1] + offset_s, side="right"))
        if last - first < MIN_SAMPLES:
            return None
        inside_s = self.log_s[first:last] - offset_s
        if inside_s[-1] - inside_s[0] < COVERED_FRACTION * (self.run_s[-1] - self.run_s[0]):
            return None
        return self.log_watts[first:last], np.interp(inside_s, self.run_s, self.load)

    def r2(self, offsets_s: FloatArray) -> FloatArray:
        """Squared correlation at offsets, 0 where it is negative or cannot be told."""
        found = np.zeros(len(offsets_s))
        for index, offset_s in enumerate(offsets_s):
            both = self.known(float(offset_s))
            if both is None:
                continue
            watts, load = both[0] - both[0].mean(), both[1] - both[1].mean()
            scale = float(np.sqrt((watts @ watts) * (load @ load)))
            found[index] = max(0.0, float(watts @ load) / scale) ** 2 if scale > 0 else 0.0
        return found


def align(
    log_s: FloatArray,
    log_watts: FloatArray,
    run_s: FloatArray,
    load_watts: FloatArray,
    *,
    search_s: float = SEARCH_S,
) -> Alignment:
    """Offset of a log's clock.

    Args:
        log_s: Shape (n,), times of the log, on its own clock [s].
        log_watts: Shape (n,), its power [W].
        run_s: Shape (m,), instants of the run [s, run clock].
        load_watts: Shape (m,), what the run knows of the load there: power [W], or anything that
            power rises with, such as the number of requests in flight.
        search_s: How far the offset may be from 0 [s].

    Raises:
        NotAligned: ``no_load_in_log`` if the log does not follow the load;
            ``not_covered`` if it does not cover the run at any offset that was tried;
            ``ambiguous`` if another offset fits nearly as well.
    """
    good = np.isfinite(log_watts)
    load = _smeared(run_s, load_watts, float(np.median(np.diff(log_s))) if len(log_s) > 1 else 0.0)
    both = _Both(log_s[good], log_watts[good], run_s, load)
    if len(both.log_s) < MIN_SAMPLES or np.ptp(load_watts) <= 0:
        raise NotAligned(
            "no_load_in_log", "the load of the run does not change, so nothing tells the offset"
        )
    grid_s = np.linspace(-search_s, search_s, COARSE_STEPS + 1)
    if not any(both.known(float(offset_s)) for offset_s in grid_s[:: COARSE_STEPS // 100]):
        raise NotAligned(
            "not_covered",
            f"the log does not cover the run within ± {search_s:g} s; look at its time zone",
        )
    coarse = both.r2(grid_s)
    step_s = float(grid_s[1] - grid_s[0])
    best_s = float(grid_s[int(coarse.argmax())])
    fine_s = best_s + np.linspace(-2 * step_s, 2 * step_s, FINE_STEPS + 1)
    fine = both.r2(fine_s)
    offset_s, highest = float(fine_s[int(fine.argmax())]), float(fine.max())
    if highest < MIN_R2_FRACTION:
        raise NotAligned(
            "no_load_in_log",
            f"the log does not follow the load of the run (r² {highest:.2f} at best)",
        )
    _demand_one_peak(grid_s, coarse, highest, offset_s)
    return Alignment(
        offset_s=offset_s,
        half_width_s=_half_width_s(both, grid_s, coarse, offset_s, highest),
        correlation_ratio=float(np.sqrt(highest)),
    )


def _smeared(run_s: FloatArray, load_watts: FloatArray, length_s: float) -> FloatArray:
    """The load as a log of this period sees it at best: means over its period."""
    mean_watts = (load_watts[1:] + load_watts[:-1]) / 2
    sums = np.concatenate([[0.0], np.cumsum(mean_watts * np.diff(run_s))])
    low_s = np.clip(run_s - length_s / 2, run_s[0], run_s[-1])
    high_s = np.clip(run_s + length_s / 2, run_s[0], run_s[-1])
    wide_s = high_s - low_s
    moved = np.interp(high_s, run_s, sums) - np.interp(low_s, run_s, sums)
    return np.asarray(np.where(wide_s > 0, moved / np.maximum(wide_s, 1e-9), load_watts))


def _lobe(grid_s: FloatArray, r2: FloatArray, offset_s: float, limit: float) -> tuple[int, int]:
    """First and last step around an offset down to which r² stays above a limit."""
    middle = int(np.abs(grid_s - offset_s).argmin())
    low = np.flatnonzero(r2[:middle] < limit)
    high = np.flatnonzero(r2[middle + 1 :] < limit)
    first = int(low[-1]) + 1 if len(low) else 0
    return first, middle + int(high[0]) if len(high) else len(grid_s) - 1


def _demand_one_peak(grid_s: FloatArray, r2: FloatArray, highest: float, offset_s: float) -> None:
    limit = highest - RIVAL_FRACTION
    first, last = _lobe(grid_s, r2, offset_s, limit)
    if first == 0 or last == len(grid_s) - 1:
        raise NotAligned(
            "ambiguous",
            f"the best offset, {offset_s:+.1f} s, lies at the end of what was searched",
        )
    rest = np.concatenate([r2[:first], r2[last + 1 :]])
    if rest.max() >= limit:
        rest_s = np.concatenate([grid_s[:first], grid_s[last + 1 :]])
        rival_s = float(rest_s[int(rest.argmax())])
        raise NotAligned(
            "ambiguous",
            f"the log fits at {offset_s:+.1f} s (r² {highest:.2f}) and nearly as well at "
            f"{rival_s:+.1f} s (r² {rest.max():.2f}): the load repeats. Cut the log to the run "
            f"and a few seconds around it, or align by the clocks",
        )


def _half_width_s(
    both: _Both, grid_s: FloatArray, coarse: FloatArray, offset_s: float, highest: float
) -> float:
    known = both.known(offset_s)
    assert known is not None
    watts, load = known
    slope, level = np.polyfit(load, watts, 1)
    left = watts - slope * load - level
    variance = float(left @ left)
    near = float(left[1:] @ left[:-1]) / variance if variance > 0 else 0.0
    near = float(np.clip(near, 0.0, 0.99))
    effective = max(4.0, len(left) * (1 - near) / (1 + near))
    limit = 1 - (1 - highest) * (1 + CHI2 / effective)
    first, last = _lobe(grid_s, coarse, offset_s, limit)
    wide_s = max(offset_s - float(grid_s[first]), float(grid_s[last]) - offset_s, 0.0)
    sample_s = float(np.median(np.diff(both.log_s)))
    known_s = float(np.median(np.diff(both.run_s)))
    return wide_s + float(grid_s[1] - grid_s[0]) + max(sample_s, known_s) / 2
