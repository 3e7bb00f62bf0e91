"""Does a window show one state of load and engine, or a drift, or a stall?

A few users whose answers are of very unlike lengths keep an engine unlike busy, in whatever state
it is: halves that differ by 20 % are a drift only if they also differ by more than the scatter of
the parts of the window (Welch's t, 95 %). A stall scatters as much, so it is looked for by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit

from wattbench.checks.finding import finding
from wattbench.core.energy import FloatArray
from wattbench.core.result import Finding
from wattbench.metrics import PointFacts, RunFacts
from wattbench.stats import CONFIDENCE

STEADY_FRACTION = 0.2
"""Difference between the halves of a window from which load counts as not steady."""
STALL_FRACTION = 0.1
"""Part of a window without a token, in the midst of an answer, from which the engine stalled."""
MIN_STALL_S = 1.0
"""A shorter silence is no stall, however short the window [s]."""


def steadiness(point: PointFacts) -> Iterator[Finding]:
    """``not_steady``: throughput drifts within the window, by more than chance, or stalls."""
    for run in point.runs:
        stall_s, drift = _stall_s(run), _drift_ratio(run)
        if stall_s is not None:
            message = (
                f"No token came for {stall_s:.3g} s in the midst of an answer: the engine or the "
                f"way to it stalled. Look at the server's log and measure again."
            )
        elif drift is not None:
            times = f"{drift:.2f} times" if 1e-3 < drift < 1e3 else "all or none of"
            message = (
                f"The second half of a window gave {times} the tokens of the first; load or engine "
                f"had not settled. Lengthen the warm-up or the window."
            )
        else:
            continue
        yield finding("not_steady", "warning", "both", message)
        return


def _drift_ratio(run: RunFacts) -> float | None:
    """Tokens of the second half over those of the first; None if chance explains it."""
    tokens = np.array([part.output_tokens for part in run.parts])
    first, second = np.array_split(tokens, 2)
    if not first.any() and not second.any():
        return None
    if not first.any() or not second.any():
        return np.inf if second.any() else 0.0
    ratio = float(second.mean() / first.mean())
    large = abs(np.log(ratio)) > np.log1p(STEADY_FRACTION)
    return ratio if large and _halves_differ(tokens) else None


def _halves_differ(values: FloatArray) -> bool:
    """Whether the first and the second half of a sample have unlike means, at 95 %.

    By Welch's t on the fewest degrees of freedom that it can have: a true equality is called a
    difference in less than 5 % of cases.
    """
    first, second = np.array_split(values, 2)
    variance = np.var(first, ddof=1) / len(first) + np.var(second, ddof=1) / len(second)
    limit = float(stdtrit(min(len(first), len(second)) - 1, (1 + CONFIDENCE) / 2))
    return bool(abs(np.mean(first) - np.mean(second)) > limit * np.sqrt(variance))


def _stall_s(run: RunFacts) -> float | None:
    """The longest silence in the midst of an answer, if it is long [s]."""
    if run.window is None:
        return None
    low_s, high_s = run.window.start_s, run.window.end_s
    answering = [r for r in run.raw.requests if len(r.chunk_s)]
    arrivals = [low_s, high_s, *(time_s for r in answering for time_s in r.chunk_s)]
    time_s = np.unique(np.clip(arrivals, low_s, high_s))
    limit_s = max(MIN_STALL_S, STALL_FRACTION * run.window.duration_s)
    silences = [
        (start_s, end_s)
        for start_s, end_s in pairwise(time_s.tolist())
        if end_s - start_s > limit_s
        and any(r.chunk_s[0] <= start_s and r.end_s >= end_s for r in answering)
    ]
    return max((end_s - start_s for start_s, end_s in silences), default=None)
