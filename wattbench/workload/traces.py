"""Recorded traffic: when requests came, and how long they and their answers were.

    azure     CSV of Azure's LLM inference traces: TIMESTAMP, ContextTokens, GeneratedTokens
    mooncake  JSON lines of Mooncake's traces: timestamp [ms], input_length, output_length
    burstgpt  CSV of BurstGPT: Timestamp [s], Request tokens, Response tokens
    csv       time_s, and input_tokens with output_tokens where they are known

Other columns and keys are not looked at, nor are Mooncake's ``hash_ids``, which tell what prompts
share. The order of the lines does not matter.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.workload.lengths import MAX_LENGTH_TOKENS

TraceFormat = Literal["azure", "mooncake", "burstgpt", "csv"]
Row = Mapping[str, Any]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where a format has what, and how its time is read [s]."""

    time: str
    lengths: tuple[str, str]
    seconds: Callable[[Any], float]
    optional_lengths: bool = False


def _date(value: Any) -> float:
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_FORMATS: Mapping[TraceFormat, _Columns] = {
    "azure": _Columns(
        time="TIMESTAMP", lengths=("ContextTokens", "GeneratedTokens"), seconds=_date
    ),
    "mooncake": _Columns(
        time="timestamp",
        lengths=("input_length", "output_length"),
        seconds=lambda value: float(value) / 1000,
    ),
    "burstgpt": _Columns(
        time="Timestamp", lengths=("Request tokens", "Response tokens"), seconds=float
    ),
    "csv": _Columns(
        time="time_s",
        lengths=("input_tokens", "output_tokens"),
        seconds=float,
        optional_lengths=True,
    ),
}


def read_trace(text: str, form: TraceFormat, name: str) -> Trace:
    """A trace from the text of a file.

    Raises:
        ValueError: With the name, the line and the value, if it is not of that format.
    """
    columns = _FORMATS[form]
    rows = _json_rows(text, name) if form == "mooncake" else _csv_rows(text, name, columns, form)
    times_s: list[float] = []
    lengths: list[tuple[int, int]] = []
    for line, row in rows:
        try:
            times_s.append(_time(row, columns))
            if columns.lengths[0] in row or not columns.optional_lengths:
                lengths.append((_length(row, columns.lengths[0]), _length(row, columns.lengths[1])))
        except ValueError as error:
            raise ValueError(f"{name} line {line}: {error}") from error
    time_s = np.array(times_s, dtype=np.float64)
    if len(time_s) < 2 or time_s.min() == time_s.max():
        raise ValueError(f"{name}: a trace needs two requests at different times")
    order = np.argsort(time_s, kind="stable")
    return Trace(
        time_s=time_s[order] - time_s[order[0]],
        lengths_tokens=np.array(lengths, dtype=np.int64)[order] if lengths else None,
    )


def _csv_rows(
    text: str, name: str, columns: _Columns, form: TraceFormat
) -> Iterator[tuple[int, Row]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    try:
        header = [column.strip() for column in reader.fieldnames or ()]
    except csv.Error as error:
        raise ValueError(f"{name} line 1: {error}") from error
    needed = [columns.time, *columns.lengths]
    if columns.optional_lengths and not set(columns.lengths) & set(header):
        needed = [columns.time]
    missing = [column for column in needed if column not in header]
    if missing:
        raise ValueError(
            f"{name} line 1: the format {form} needs a column {missing[0]!r}; here are "
            f"{', '.join(header)[:100] or 'none'}"
        )
    reader.fieldnames = header
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{name} line {reader.line_num + 1}: {error}") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[int, Row]]:
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} line {line}: is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{name} line {line}: must be a JSON object")
        yield line, row


def _time(row: Row, columns: _Columns) -> float:
    value = row.get(columns.time)
    try:
        time_s = columns.seconds(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{columns.time} = {str(value)[:40]!r} is no time") from error
    if not np.isfinite(time_s):
        raise ValueError(f"{columns.time} = {value!r} is no time")
    return time_s


def _length(row: Row, column: str) -> int:
    """A length; 0, which is what a failed request got, counts as 1: no engine answers nothing."""
    value = row.get(column)
    try:
        length = int(value) if not isinstance(value, bool) else -1  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        length = -1
    if not 0 <= length <= MAX_LENGTH_TOKENS:
        raise ValueError(
            f"{column} = {str(value)[:40]!r} is no length from 0 to {MAX_LENGTH_TOKENS} tokens"
        )
    return max(1, length)
