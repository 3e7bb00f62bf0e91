"""A request trace: what came when, how long it was, and what it shares with what came before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray

MAX_LENGTH_TOKENS = 10**7
"""No engine takes more in one request; what is beyond is a slip of the pen."""
MAX_CLASSES = 127


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceSource:
    """Where a trace comes from, and what was done to it since.

    Attributes:
        name: Name of the file, or of the generator with its numbers.
        format: Format of the file; else ``generated`` or ``run``.
        sha256: Of the file as it lies, or of the arrays of a trace that has no file.
        licence: Of the data, with what to cite; None: not known from the file itself.
        changes: Every rescaling, jitter, cut and assumption, in words with figures.
        doubts: Why the trace may be invented or be another one than its name says.
    """

    name: str
    format: str
    sha256: str
    licence: str | None
    changes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """Requests in order of arrival, as arrays of shape (n,).

    Attributes:
        arrival_s: Not decreasing [s]: from the first one of a file on, or from the start of a
            generated process or of a slice.
        input_tokens: The whole prompt, with what was said before in its session; at least 1.
        output_tokens: The answer; at least 1.
        parent: Index of the previous turn of the same session, −1 for a first turn; None: every
            request stands alone. A turn with a parent comes ``think_s`` after the parent's answer
            ends, and its ``arrival_s`` is only the recorded one.
        think_s: Pause before each turn, 0 for a first one [s]; there with ``parent``.
        block_start: Shape (n + 1,): request i's prompt begins with the blocks
            ``blocks[block_start[i]:block_start[i + 1]]``.
        blocks: Numbers from 0 on. Equal ones mean the same text before the block and in it.
        block_tokens: Text in one block [tokens].
        slo_class: Index of each request's class in ``class_names``.
        class_names: Names of the classes.
        source: Where the trace comes from.
    """

    arrival_s: FloatArray
    input_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    parent: NDArray[np.int32] | None = None
    think_s: FloatArray | None = None
    block_start: NDArray[np.int64] | None = None
    blocks: NDArray[np.int32] | None = None
    block_tokens: int | None = None
    slo_class: NDArray[np.int8] | None = None
    class_names: tuple[str, ...] = ()
    source: TraceSource

    def __post_init__(self) -> None:
        _check_arrays(self)
        _check_requests(self)
        _check_sessions(self)
        _check_blocks(self)
        _check_classes(self)

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last one [s]."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def mean_rate_per_s(self) -> float | None:
        """Arrivals per second, from the gaps between them; None if all come at one instant."""
        return (len(self) - 1) / self.duration_s if self.duration_s > 0 else None

    @property
    def size_bytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in arrays(self).values())

    @property
    def bytes_per_request(self) -> float:
        """Memory that the arrays take for each request."""
        return self.size_bytes / len(self)


def arrays(trace: Trace) -> dict[str, NDArray[Any]]:
    """The arrays that a trace has, by the names of its attributes."""
    values = ((field.name, getattr(trace, field.name)) for field in fields(Trace))
    return {name: value for name, value in values if isinstance(value, np.ndarray)}


def with_digest(trace: Trace) -> Trace:
    """A trace that has no file, with the SHA-256 of its arrays: equal for equal traces."""
    digest = hashlib.sha256()
    for name, array in arrays(trace).items():
        digest.update(f"{name}:{array.dtype.str}:{len(array)}\n".encode())
        digest.update(array.data)
    return replace(trace, source=replace(trace.source, sha256=digest.hexdigest()))


_DTYPES = {
    "arrival_s": np.float64,
    "input_tokens": np.int32,
    "output_tokens": np.int32,
    "parent": np.int32,
    "think_s": np.float64,
    "block_start": np.int64,
    "blocks": np.int32,
    "slo_class": np.int8,
}


def _check_arrays(trace: Trace) -> None:
    count = len(trace.arrival_s)
    if not count:
        raise ValueError("a trace needs a request; this one has none")
    for name, array in arrays(trace).items():
        if array.ndim != 1 or array.dtype != _DTYPES[name] or not array.flags.c_contiguous:
            raise ValueError(
                f"{name} must be a contiguous array of {_DTYPES[name].__name__} in one dimension, "
                f"not {array.dtype} of shape {array.shape}"
            )
        length = count + 1 if name == "block_start" else count
        if name != "blocks" and len(array) != length:
            raise ValueError(f"{name} has {len(array)} values for {count} requests, not {length}")


def _check_requests(trace: Trace) -> None:
    arrival_s = trace.arrival_s
    if not (np.isfinite(arrival_s[-1]) and arrival_s[0] >= 0 and np.all(np.diff(arrival_s) >= 0)):
        raise ValueError("arrival_s must be numbers from 0 on that do not decrease; sort them")
    for name in ("input_tokens", "output_tokens"):
        _check_range(name, getattr(trace, name), 1, MAX_LENGTH_TOKENS)


def _check_range(name: str, array: NDArray[Any], least: int, most: int) -> None:
    if len(array) and not (least <= array.min() and array.max() <= most):
        index = int(np.argmax((array < least) | (array > most)))
        raise ValueError(f"{name}[{index}] = {array[index]} is not from {least} to {most}")


def _check_sessions(trace: Trace) -> None:
    if (trace.parent is None) != (trace.think_s is None):
        raise ValueError("parent and think_s come together: give both, or neither")
    if trace.parent is None or trace.think_s is None:
        return
    wrong = (trace.parent < -1) | (trace.parent >= np.arange(len(trace)))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"parent[{index}] = {trace.parent[index]} is neither -1 nor an earlier request"
        )
    wrong = ~((trace.think_s >= 0) & (trace.think_s < np.inf))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"think_s[{index}] = {trace.think_s[index]} is no pause from 0 on")


def _check_blocks(trace: Trace) -> None:
    start, blocks, tokens = trace.block_start, trace.blocks, trace.block_tokens
    if not (start is None) == (blocks is None) == (tokens is None):
        raise ValueError("block_start, blocks and block_tokens come together: all, or none")
    if start is None or blocks is None or tokens is None:
        return
    if tokens < 1:
        raise ValueError(f"block_tokens = {tokens} is below 1")
    if start[0] != 0 or start[-1] != len(blocks) or np.any(np.diff(start) < 0):
        raise ValueError(f"block_start must rise from 0 to the number of blocks, {len(blocks)}")
    _check_range("blocks", blocks, 0, 2**31 - 1)


def _check_classes(trace: Trace) -> None:
    if (trace.slo_class is None) != (not trace.class_names):
        raise ValueError("slo_class and class_names come together: give both, or neither")
    if len(trace.class_names) > MAX_CLASSES:
        raise ValueError(f"{len(trace.class_names)} classes; at most {MAX_CLASSES}")
    if trace.slo_class is not None:
        _check_range("slo_class", trace.slo_class, 0, len(trace.class_names) - 1)
