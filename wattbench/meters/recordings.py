"""What all recordings share: JSON files whose traces are played over and over."""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError


@contextmanager
def opened(path: Path, library: str) -> Iterator[dict[str, Any]]:
    """What a recording holds; what its reader misses in it is said of the file.

    Raises:
        UsageError: If the file cannot be read or is no recording of the library.
    """
    try:
        yield json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is no recording of {library}: {error}") from error


def check_trace(trace: Mapping[str, Any]) -> None:
    """Check that the columns are numbers and equally long, and that time goes on.

    Raises:
        ValueError: If it cannot be played.
    """
    rows = {name: len(column) for name, column in trace.items()}
    columns = {name: np.array(column, float) for name, column in trace.items()}
    if not all(np.isfinite(column).all() for column in columns.values()):
        raise ValueError("a trace has values that are no numbers")
    if (np.diff(columns["time_s"]) <= 0).any():
        raise ValueError("time_s of a trace must rise")
    if len(set(rows.values())) != 1 or not rows.get("time_s"):
        raise ValueError(f"columns of a trace differ in length: {rows}")


def length_s(times_s: Sequence[float]) -> float:
    """How long a trace is until it repeats [s]."""
    return times_s[-1] - times_s[0] or 1.0


def played(times_s: Sequence[float], since_s: float) -> tuple[int, int]:
    """The row that stands so long after the begin, and how often the trace was played before."""
    lap, within_s = divmod(since_s, length_s(times_s))
    return bisect.bisect_right(times_s, times_s[0] + within_s) - 1, int(lap)
