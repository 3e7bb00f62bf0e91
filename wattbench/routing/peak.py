"""The most that a machine can draw: its dearest step.

A step's mean power is W + J / max(M, A). Between knots of the lanes all three are linear in the
tokens N = B + P, the batch B, the contexts K and the attended tokens Q, and so are the bounds

    1 ≤ N ≤ max_step_tokens      0 ≤ B ≤ min(N, max_batch)
    B ≤ K ≤ B · capacity, capacity      N − B ≤ Q ≤ (N − B) · capacity

of every step that a machine can come to. J / M and J / A have their maxima in corners. So has the
lesser of the two, in corners of either part of a cell in which one lane of time is the longer one:
those of the cell, and points between two of them where the lanes are equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from wattbench.routing.step import Knots, StepModel

Limits = tuple[int, int, int]
"""Most requests, most tokens of a step, tokens of context."""


@lru_cache(maxsize=256)
def dearest_watts(step: StepModel, limits: Limits) -> float:
    """An upper bound of every step's mean power without a cap, at most a corner above it [W].

    Exact where corners are steps; between whole numbers, or with more context than the prompts
    under way leave, they may not be. Infinite where a step takes energy and no time.
    """
    most_batch, most_tokens, _ = limits
    lanes = (step.memory, step.arithmetic, step.energy)
    tokens = _places([lane.tokens for lane in lanes], (1, most_tokens))
    batches = _places([lane.batch for lane in lanes], (0, 1, most_batch))
    highest = max(_band_watts(step, limits, tokens, band) for band in pairwise(batches))
    return step.busy_watts + highest


def _places(curves: Sequence[Knots], ends: tuple[int, ...]) -> Any:
    """Where any of the curves bends, between the first and the last end, with the ends."""
    bends = (x for curve in curves for x, _ in curve if ends[0] < x < ends[-1])
    return np.array(sorted({*map(float, ends), *bends}))


def _band_watts(step: StepModel, limits: Limits, tokens: Any, band: tuple[float, float]) -> float:
    """The highest power above W, over the cells of one range of batches [W]."""
    corners = np.stack(_corners(tokens[:-1], tokens[1:], band), axis=1)  # (cells, 8, 2)
    n, b = corners[..., 0], corners[..., 1]
    capacity, prompt = float(limits[2]), n - b
    most_context = capacity * np.minimum(b, 1.0)
    sizes = [(k, q) for k in (b, most_context) for q in (prompt, prompt * capacity)]
    memory, arithmetic, energy = (
        np.concatenate(
            [
                _curve(lane.tokens, n)
                + _curve(lane.batch, b)
                + lane.per_context_token * k
                + lane.per_attended_token * q
                for k, q in sizes
            ],
            axis=1,
        )
        for lane in (step.memory, step.arithmetic, step.energy)
    )
    return max(
        _highest(energy, np.maximum(memory, arithmetic)), _between(memory, arithmetic, energy)
    )


def _corners(low: Any, high: Any, band: tuple[float, float]) -> list[Any]:
    """Points (cells, 2) around what of each cell has B ≤ N; others are NaN."""
    first, last = (np.full_like(low, edge) for edge in band)
    pairs = [(low, first), (low, last), (high, first), (high, last)]
    pairs += [(low, low), (high, high), (first, first), (last, last)]
    return [
        np.where(
            ((b <= n) & (first <= b) & (b <= last) & (low <= n) & (n <= high))[:, None],
            np.stack((n, b), axis=1),
            np.nan,
        )
        for n, b in pairs
    ]


def _between(memory: Any, arithmetic: Any, energy: Any) -> float:
    """The highest power where both lanes of time are equal, between any two corners of a cell."""
    lead = memory - arithmetic
    highest = 0.0
    for one in range(lead.shape[1]):
        gap = lead[:, [one]] - lead
        crosses = lead[:, [one]] * lead < 0
        share = np.where(crosses, lead[:, [one]] / np.where(gap == 0, 1.0, gap), np.nan)
        joules, time_s = (
            lane[:, [one]] + share * (lane - lane[:, [one]]) for lane in (energy, memory)
        )
        highest = max(highest, _highest(joules, time_s))
    return highest


def _highest(joules: Any, time_s: Any) -> float:
    known = ~np.isnan(joules) & (joules > 0)
    if not known.any():
        return 0.0
    if (time_s[known] <= 0).any():
        return math.inf
    return float((joules[known] / time_s[known]).max())


def _curve(points: Knots, at: Any) -> Any:
    """`interpolated` of many places."""
    if len(points) < 2:
        return np.where(np.isnan(at), np.nan, points[0][1] if points else 0.0)
    x, y = np.array(points).T
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.interp(at, x, y) + last * np.maximum(0.0, at - x[-1])
