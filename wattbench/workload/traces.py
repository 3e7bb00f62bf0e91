"""Recorded traffic to replay: when requests came, and how long they and their answers were.

The formats are those of ``wattbench.traces``. Sessions, classes and Mooncake's ``hash_ids``, which
tell what prompts share, are not looked at. The order of the lines does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.traces import read_rows

TraceFormat = Literal["azure", "mooncake", "burstgpt", "csv"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Arrivals in order.

    Attributes:
        time_s: Shape (n,), instants from the first one on [s].
        lengths_tokens: Shape (n, 2), prompt and answer of each [tokens]; None if it has none.
    """

    time_s: FloatArray
    lengths_tokens: NDArray[np.int64] | None

    @property
    def mean_rate_per_s(self) -> float:
        """Arrivals per second, from the gaps between them."""
        return (len(self.time_s) - 1) / float(self.time_s[-1])

    @property
    def duration_s(self) -> float:
        """From the first arrival to a mean gap after the last one [s]."""
        return len(self.time_s) / self.mean_rate_per_s


def read_trace(text: str, form: TraceFormat, name: str) -> Trace:
    """A trace from the text of a file.

    A length of 0, which is what a failed request got, counts as 1: no engine answers nothing.

    Raises:
        ValueError: With the name, the line and the value, if it is not of that format.
    """
    lines = text.split("\n") if form == "mooncake" else text.splitlines()
    rows = read_rows(lines, form, name)
    time_s, lengths_tokens = rows.time_s, rows.lengths_tokens
    if len(time_s) < 2 or time_s.min() == time_s.max():
        raise ValueError(f"{name}: a trace needs two requests at different times")
    order = np.argsort(time_s, kind="stable")
    return Trace(
        time_s=time_s[order] - time_s[order[0]],
        lengths_tokens=None if lengths_tokens is None else np.maximum(lengths_tokens[order], 1),
    )
