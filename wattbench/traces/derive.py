"""Traces made of traces: cut, rescaled, resampled. Each says in its source what was done."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wattbench.core.energy import FloatArray
from wattbench.traces.record import Trace, TraceSource, with_digest

MIN_FITTED = 10
"""Fewer requests say nothing about how they come."""
MAX_RATIO = 1e6


def scaled(trace: Trace, *, rate_ratio: float = 1.0, time_ratio: float = 1.0) -> Trace:
    """The same requests, closer together or further apart.

    Args:
        trace: Requests.
        rate_ratio: Arrivals come so many times as fast; users think as long as before.
        time_ratio: The clock is stretched: times and pauses are multiplied by this.

    Raises:
        ValueError: For a ratio that is not above 0.
    """
    for name, value in (("rate_ratio", rate_ratio), ("time_ratio", time_ratio)):
        if not 1 / MAX_RATIO <= value <= MAX_RATIO:
            raise ValueError(f"{name} = {value} is not from {1 / MAX_RATIO:g} to {MAX_RATIO:g}")
    changes = []
    if rate_ratio != 1:
        pauses = "" if trace.think_s is None else ", pauses left as they were"
        changes.append(f"arrivals {rate_ratio:.12g} times as fast{pauses}")
    if time_ratio != 1:
        changes.append(f"times multiplied by {time_ratio:.12g}")
    return replace(
        trace,
        arrival_s=trace.arrival_s * (time_ratio / rate_ratio),
        think_s=None if trace.think_s is None else trace.think_s * time_ratio,
        source=_changed(trace, *changes),
    )


def sliced(trace: Trace, start_s: float, end_s: float) -> Trace:
    """What arrives from ``start_s`` on and before ``end_s``; times count from ``start_s``.

    Raises:
        ValueError: If there are none.
    """
    if not 0 <= start_s < end_s:
        raise ValueError(f"a slice from {start_s} s to {end_s} s is empty; the start comes first")
    low, high = np.searchsorted(trace.arrival_s, [start_s, end_s])
    if low == high:
        raise ValueError(
            f"no request arrives from {start_s:g} s to {end_s:g} s; the trace goes from "
            f"{trace.arrival_s[0]:g} s to {trace.arrival_s[-1]:g} s"
        )
    said = f"cut to {high - low} of {len(trace)} requests, from {start_s:.12g} s to {end_s:.12g} s"
    cut = _cut(trace, int(low), int(high), said)
    return replace(cut, arrival_s=cut.arrival_s - start_s)


def first(trace: Trace, n: int) -> Trace:
    """The first ``n`` requests.

    Raises:
        ValueError: If there are not that many.
    """
    if not 1 <= n <= len(trace):
        raise ValueError(
            f"n = {n} is not from 1 to the {len(trace)} requests of the trace; like() makes more"
        )
    if n == len(trace):
        return trace
    return _cut(trace, 0, n, f"cut to the first {n} of {len(trace)} requests")


def _cut(trace: Trace, low: int, high: int, said: str) -> Trace:
    """Requests ``low`` to ``high``; a turn whose parent is left out becomes a first one."""
    changes = [said]
    parent, think_s, start, blocks = trace.parent, trace.think_s, trace.block_start, trace.blocks
    if parent is not None and think_s is not None:
        moved = parent[low:high] - low
        orphans = (parent[low:high] >= 0) & (moved < 0)
        if orphans.any():
            changes.append(f"{int(orphans.sum())} turns whose earlier turn was cut off come alone")
        parent = np.maximum(moved, -1).astype(np.int32)
        think_s = np.where(orphans, 0.0, think_s[low:high])
    if start is not None and blocks is not None:
        kept = blocks[start[low] : start[high]]
        blocks = np.unique(kept, return_inverse=True)[1].astype(np.int32)
        start = start[low : high + 1] - start[low]
    return replace(
        trace,
        arrival_s=trace.arrival_s[low:high].copy(),
        input_tokens=trace.input_tokens[low:high].copy(),
        output_tokens=trace.output_tokens[low:high].copy(),
        parent=parent,
        think_s=think_s,
        block_start=start,
        blocks=blocks,
        slo_class=None if trace.slo_class is None else trace.slo_class[low:high].copy(),
        source=_changed(trace, *changes),
    )


def like(trace: Trace, count: int, seed: int = 0) -> Trace:
    """A longer or shorter trace that comes like another one.

    The trace is thought of as a ring, cut at a random place into stretches of √n requests, gaps
    with lengths and classes, and these are put in random order; then cut anew, until there are
    enough. Bursts up to the length of a stretch stay what they were, and so do mean rate and mean
    lengths, exactly for each time round. Sessions and prefix blocks are left out: a resampled
    request has no earlier turn.

    Raises:
        ValueError: If the trace is too short to say how requests come.
    """
    rows = len(trace) - 1
    if rows < MIN_FITTED:
        raise ValueError(f"a trace of {rows + 1} requests is too short; needs {MIN_FITTED + 1}")
    if count < 1:
        raise ValueError(f"count = {count} is below 1")
    length = math.ceil(math.sqrt(rows))
    row = 1 + _shuffled(rows, length, count, np.random.default_rng((seed, 0x11CE)))
    gaps_s = np.diff(trace.arrival_s)[row - 1]
    gaps_s[0] = 0.0
    said = f"{count} requests resampled from {len(trace)} in stretches of {length}, seed {seed}"
    left_out = trace.parent is not None or trace.blocks is not None
    return replace(
        trace,
        arrival_s=np.cumsum(gaps_s),
        input_tokens=trace.input_tokens[row],
        output_tokens=trace.output_tokens[row],
        parent=None,
        think_s=None,
        block_start=None,
        blocks=None,
        block_tokens=None,
        slo_class=None if trace.slo_class is None else trace.slo_class[row],
        source=_changed(trace, said, *["sessions and prefix blocks left out"] * left_out),
    )


def _shuffled(rows: int, length: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a ring in stretches of random order, each once before one comes again."""
    rounds, stretches = -(-count // rows), -(-rows // length)
    order = rng.random((rounds, stretches)).argsort(axis=1)
    place = order[:, :, None] * length + np.arange(length)
    turned = (place + rng.integers(rows, size=rounds)[:, None, None]) % rows
    return turned[place < rows][:count]


def trace_of(
    starts_s: ArrayLike, input_tokens: ArrayLike, output_tokens: ArrayLike, name: str
) -> Trace:
    """The requests of a run of one's own, in whatever order.

    Args:
        starts_s: When each was sent, on any clock [s].
        input_tokens: Length of each prompt.
        output_tokens: Length of each answer.
        name: What the trace is called, such as the run's identifier.

    Raises:
        ValueError: With the name and the place, for what is no time or no length.
    """
    time_s: FloatArray = np.asarray(starts_s, dtype=np.float64)
    prompt, answer = np.asarray(input_tokens), np.asarray(output_tokens)
    if not len(time_s) or not time_s.shape == prompt.shape == answer.shape:
        raise ValueError(
            f"{name}: {time_s.shape} starts, {prompt.shape} prompts and {answer.shape} answers; a "
            f"trace needs one of each for every request"
        )
    if not np.isfinite(time_s).all():
        index = int(np.argmax(~np.isfinite(time_s)))
        raise ValueError(f"{name}: starts_s[{index}] = {time_s[index]} is no time")
    order = np.argsort(time_s, kind="stable")
    return with_digest(
        Trace(
            arrival_s=time_s[order] - time_s[order[0]],
            input_tokens=_whole(prompt, f"{name}: input_tokens")[order],
            output_tokens=_whole(answer, f"{name}: output_tokens")[order],
            source=TraceSource(name=name, format="run", sha256="", licence=None),
        )
    )


def _whole(tokens: NDArray[Any], name: str) -> NDArray[np.int32]:
    """Lengths as whole numbers; those out of range are left for the trace to refuse."""
    wrong = ~np.isfinite(tokens) | (tokens != np.floor(tokens)) | (np.abs(tokens) > 2**31 - 1)
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{name}[{index}] = {tokens[index]} is no whole number of tokens")
    return tokens.astype(np.int32)


def _changed(trace: Trace, *changes: str) -> TraceSource:
    return replace(trace.source, changes=(*trace.source.changes, *changes))
