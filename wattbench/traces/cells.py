"""Cells of one column to numbers: all at once where that works, else each by itself.

What does not convert at once is looked at cell by cell, so that the error names its line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from wattbench.traces.formats import Columns, ticks
from wattbench.traces.record import MAX_LENGTH_TOKENS

_QUOTED = 40
"""Characters of a value that a message quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a column is read.

    Attributes:
        dtype: Of the result.
        fast: A cell that is all right to a number; what it makes of others does not matter.
        good: Whether that went well, from the numbers.
        exact: A cell to a number; ValueError, with column and value, if it is none.
        texts_and_numbers: Whether a cell that is neither, as JSON's ``true``, needs ``exact``.
    """

    dtype: DTypeLike
    fast: Callable[[Any], Any]
    good: Callable[[NDArray[Any]], bool]
    exact: Callable[[Any], Any]
    texts_and_numbers: bool = False

    def converted(self, cells: Sequence[Any], name: str, numbers: Sequence[int]) -> NDArray[Any]:
        """The numbers; ValueError with the name and the line of the first bad cell."""
        found = self._at_once(cells)
        if found is not None:
            return found
        exact = []
        for number, cell in zip(numbers, cells, strict=True):
            try:
                exact.append(self.exact(cell))
            except ValueError as error:
                raise ValueError(f"{name} line {number}: {error}") from error
        return np.array(exact, dtype=self.dtype)

    def _at_once(self, cells: Sequence[Any]) -> NDArray[Any] | None:
        if self.texts_and_numbers and not set(map(type, cells)) <= {str, int}:
            return None
        try:
            found = np.fromiter(map(self.fast, cells), self.dtype, len(cells))
        except (ValueError, TypeError, OverflowError):
            return None
        return found if self.good(found) else None


def _finite(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all())


def times(columns: Columns) -> Kind:
    """Arrivals, in the unit that the format has."""

    def exact(value: Any) -> float | int:
        said = f"{columns.time} = {str(value)[:_QUOTED]!r} is no time"
        try:
            time = columns.parse(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(said) from error
        if not np.isfinite(time):
            raise ValueError(said)
        return time

    dtype = np.int64 if columns.parse is ticks else np.float64
    return Kind(dtype=dtype, fast=columns.parse, good=_finite, exact=exact)


def lengths(column: str, least_tokens: int) -> Kind:
    """Whole numbers of tokens from ``least_tokens`` on."""

    def good(values: NDArray[Any]) -> bool:
        return bool(np.all((values >= least_tokens) & (values <= MAX_LENGTH_TOKENS)))

    def exact(value: Any) -> int:
        try:
            length = int(value) if not isinstance(value, bool) else -1
        except (ValueError, TypeError, OverflowError):
            length = -1
        if not least_tokens <= length <= MAX_LENGTH_TOKENS:
            fix = "; drop such a row, or mend it" if least_tokens else ""
            raise ValueError(
                f"{column} = {str(value)[:_QUOTED]!r} is no length from {least_tokens} to "
                f"{MAX_LENGTH_TOKENS} tokens{fix}"
            )
        return length

    return Kind(dtype=np.int64, fast=int, good=good, exact=exact, texts_and_numbers=True)


def pauses(column: str) -> Kind:
    """Seconds from 0 on; a blank is NaN."""

    def exact(value: Any) -> float:
        if value in ("", None):
            return np.nan
        try:
            seconds = float(value)
        except (ValueError, TypeError, OverflowError):
            seconds = np.nan
        if not 0 <= seconds < np.inf:
            raise ValueError(
                f"{column} = {str(value)[:_QUOTED]!r} is no number of seconds from 0 on; leave "
                f"the cell blank where it is not known"
            )
        return seconds

    def good(values: NDArray[Any]) -> bool:
        return bool(np.all((values >= 0) & (values < np.inf)))

    return Kind(dtype=np.float64, fast=float, good=good, exact=exact)


def block_cells(
    cells: Sequence[Any], key: str, name: str, numbers: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many blocks each request has, and all of them; one without has none.

    Raises:
        ValueError: With the line, if they are no list of whole numbers.
    """
    for number, cell in zip(numbers, cells, strict=True):
        whole = isinstance(cell, list) and set(map(type, cell)) <= {int}
        if not (cell is None or whole) or any(abs(each) >= 2**63 for each in cell or ()):
            raise ValueError(
                f"{name} line {number}: {key} = {str(cell)[:_QUOTED]!r} is no list of whole "
                f"numbers below 2**63"
            )
    counts = np.fromiter((len(cell or ()) for cell in cells), np.int64, len(cells))
    flat = itertools.chain.from_iterable(cell or () for cell in cells)
    return counts, np.fromiter(flat, np.int64, int(counts.sum()))
