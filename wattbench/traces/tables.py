"""Text to rows: CSV and JSON lines, some thousand rows at a time."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from wattbench.traces.formats import COLUMNS, Format

CHUNK_ROWS = 1000
"""Few enough to stay in the cache of a core: ten times as many take twice as long."""


class Table:
    """Some rows, from which whole columns are taken; a cell that is not there is None.

    Args:
        rows: Lists of cells, or mappings.
        index: Where each column is in a list; None: the rows are mappings.
    """

    def __init__(self, rows: Sequence[Any], index: Mapping[str, int] | None = None) -> None:
        self._rows, self._index = rows, index

    def has(self, column: str) -> bool:
        """Whether there is such a column; any mapping may have any key."""
        return self._index is None or column in self._index

    def cells(self, column: str) -> list[Any]:
        """The column."""
        if self._index is None:
            return [row.get(column) for row in self._rows]
        at = self._index[column]
        return [row[at] if at < len(row) else None for row in self._rows]


Chunks = Iterator[tuple[list[int], Table]]


def csv_chunks(lines: Iterable[str], name: str, form: Format) -> Chunks:
    """Rows of a CSV file with the line of each; blank lines are passed over.

    Raises:
        ValueError: With the line, if a column is missing or a cell is never closed.
    """
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        header = [column.strip() for column in next(reader, [])]
    except csv.Error as error:
        raise ValueError(f"{name} line 1: {error}") from error
    _check_header(header, name, form)
    index = {column: at for at, column in enumerate(header)}
    done = False
    while not done:
        numbers: list[int] = []
        rows: list[list[str]] = []
        try:
            for row in itertools.islice(reader, CHUNK_ROWS):
                numbers.append(reader.line_num)
                rows.append(row)
        except csv.Error as error:
            raise ValueError(f"{name} line {reader.line_num}: {error}") from error
        done = len(rows) < CHUNK_ROWS
        if not all(rows):  # blank lines
            numbers = [number for number, row in zip(numbers, rows, strict=True) if row]
            rows = [row for row in rows if row]
        yield numbers, Table(rows, index)


def _check_header(header: list[str], name: str, form: Format) -> None:
    columns = COLUMNS[form]
    needed = [columns.time, *columns.lengths]
    if columns.optional_lengths and not set(columns.lengths) & set(header):
        needed = [columns.time]
    missing = [column for column in needed if column not in header]
    if missing:
        raise ValueError(
            f"{name} line 1: the format {form} needs a column {missing[0]!r}; here are "
            f"{', '.join(header)[:100] or 'none'}"
        )


def json_chunks(lines: Iterable[str], name: str) -> Chunks:
    """Objects of a file of JSON lines with the line of each; blank lines are passed over.

    Raises:
        ValueError: With the line, if it is no JSON object.
    """
    decode = msgspec.json.Decoder().decode
    numbers: list[int] = []
    rows: list[Any] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ValueError(f"{name} line {number}: is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{name} line {number}: must be a JSON object")
        numbers.append(number)
        rows.append(row)
        if len(rows) == CHUNK_ROWS:
            yield numbers, Table(rows)
            numbers, rows = [], []
    yield numbers, Table(rows)
