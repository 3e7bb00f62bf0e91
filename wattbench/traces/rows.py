"""Lines of a trace file to columns of numbers: the one reader, for whatever order they are in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.traces.cells import Kind, block_cells, lengths, pauses, times
from wattbench.traces.formats import COLUMNS, Columns, Format
from wattbench.traces.tables import Table, csv_chunks, json_chunks


class Labels:
    """Names as numbers, in order of their first appearance; a blank is −1."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self.parts: list[NDArray[np.int32]] = []

    def add(self, cells: Sequence[Any]) -> None:
        """The next rows."""
        codes = self.codes
        texts = ("" if cell is None else str(cell).strip() for cell in cells)
        numbers = (codes.setdefault(text, len(codes)) if text else -1 for text in texts)
        self.parts.append(np.fromiter(numbers, np.int32, len(cells)))

    @property
    def code(self) -> NDArray[np.int32]:
        """Number of each row's name."""
        return np.concatenate(self.parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """A file's requests, in its order.

    Attributes:
        line: Line of each in the file, from 1.
        time_s: As written; a date from the first row on [s].
        lengths_tokens: Shape (n, 2), prompt and answer, 0 included; None if there are none.
        labels: Names that the file has, by what they are.
        pauses_s: Seconds that the file has, NaN for a blank, by what they are.
        block_counts: Prefix blocks of each request; None if the file has none.
        blocks: All of them, as written.
        block_tokens: Tokens of a block where the file says it.
    """

    line: NDArray[np.int64]
    time_s: FloatArray
    lengths_tokens: NDArray[np.int64] | None
    labels: Mapping[str, Labels]
    pauses_s: Mapping[str, FloatArray]
    block_counts: NDArray[np.int64] | None
    blocks: NDArray[np.int64] | None
    block_tokens: int | None


def read_rows(
    lines: Iterable[str], form: Format, name: str, *, least_tokens: int = 0, extras: bool = False
) -> Rows:
    """The columns of a trace file.

    Args:
        lines: The text, with or without the ends of lines.
        form: What the file is.
        name: What errors call it.
        least_tokens: Shortest length that is let through.
        extras: Whether sessions, classes, pauses and blocks are read as well.

    Raises:
        ValueError: With the name, the line and the value, if it is not of that format.
    """
    columns = COLUMNS[form]
    chunks = json_chunks(lines, name) if columns.json else csv_chunks(lines, name, form)
    reader = _Reader(columns, name, least_tokens, extras)
    for numbers, table in chunks:
        reader.take(numbers, table)
    return reader.rows()


class _Reader:
    """Chunks of rows in, columns out."""

    def __init__(self, columns: Columns, name: str, least_tokens: int, extras: bool) -> None:
        self._columns, self._name = columns, name
        self._extras = extras
        self._time = times(columns)
        self._length = [lengths(column, least_tokens) for column in columns.lengths]
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._labels: dict[str, Labels] = {}
        self._block_tokens: set[str] = set()

    def take(self, numbers: list[int], table: Table) -> None:
        """Convert some rows."""
        self._add("line", np.array(numbers, dtype=np.int64))
        columns = self._columns
        self._add("time", self._column(table, columns.time, self._time, numbers))
        if not columns.optional_lengths or table.has(columns.lengths[0]):
            for column, kind in zip(columns.lengths, self._length, strict=True):
                self._add(column, self._column(table, column, kind, numbers))
        if self._extras:
            self._take_extras(numbers, table)

    def _take_extras(self, numbers: list[int], table: Table) -> None:
        for what, column in self._columns.labels.items():
            if table.has(column):
                self._labels.setdefault(what, Labels()).add(table.cells(column))
        for what, column in self._columns.pauses.items():
            if table.has(column):
                self._add(what, self._column(table, column, pauses(column), numbers))
        key = self._columns.blocks
        if key is not None and table.has(key):
            found = block_cells(table.cells(key), key, self._name, numbers)
            self._add("block_counts", found[0])
            self._add("blocks", found[1])
            self._block_tokens |= set(map(str, table.cells("block_tokens"))) - {"None"}

    def _column(self, table: Table, column: str, kind: Kind, numbers: list[int]) -> NDArray[Any]:
        return kind.converted(table.cells(column), self._name, numbers)

    def _add(self, what: str, part: NDArray[Any]) -> None:
        self._parts.setdefault(what, []).append(part)

    def _whole(self, what: str) -> NDArray[Any] | None:
        parts = self._parts.get(what)
        return None if parts is None else np.concatenate(parts)

    def rows(self) -> Rows:
        """All columns."""
        columns = self._columns
        time, line = self._whole("time"), self._whole("line")
        assert time is not None
        assert line is not None
        if columns.per_s > 1:
            # Whole ticks are subtracted before they are seconds: a date has too many digits.
            start = time[0] if len(time) and time.dtype == np.int64 else 0
            time = (time - start) / columns.per_s
        blocks = self._whole("blocks")
        has_blocks = blocks is not None and len(blocks) > 0
        prompt, answer = (self._whole(column) for column in columns.lengths)
        return Rows(
            line=line,
            time_s=time,
            lengths_tokens=(
                None if prompt is None or answer is None else np.stack([prompt, answer], axis=1)
            ),
            labels={what: label for what, label in self._labels.items() if label.codes},
            pauses_s={
                what: pauses_s
                for what in columns.pauses
                if (pauses_s := self._whole(what)) is not None and not np.isnan(pauses_s).all()
            },
            block_counts=self._whole("block_counts") if has_blocks else None,
            blocks=blocks if has_blocks else None,
            block_tokens=self._stated_block_tokens(),
        )

    def _stated_block_tokens(self) -> int | None:
        if not self._block_tokens:
            return None
        texts = sorted(self._block_tokens)
        if len(texts) > 1 or not texts[0].isdecimal() or not 1 <= int(texts[0]) <= 10**6:
            raise ValueError(
                f"{self._name}: block_tokens = {', '.join(texts)[:40]}; all lines must have the "
                f"same whole number of tokens"
            )
        return int(texts[0])
