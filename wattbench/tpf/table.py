"""Operating points of many sweeps: what the function is fitted to.

One row is one operating point. A group is a sweep: rows that differ in concurrency alone.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.errors import DocumentError, UsageError, did_you_mean
from wattbench.core.files import why_irregular
from wattbench.tpf.arrays import Array

NUMBERS = ("machine_count", "active_params_billions", "total_params_billions", "context_tokens")
"""Descriptors that are numbers: neighbours in them are alike."""
WORDS = ("machine", "model", "precision", "parallelism", "engine", "task", "phase")
"""Descriptors that are names; ``phase`` is prefill or decode where a row is of one alone."""
FOLLOWS = {
    "active_params_billions": "model",
    "total_params_billions": "model",
    "machine_count": "machine",
}
"""Descriptors that a name decides, if all rows of that name agree."""
CONCURRENCY = "concurrency"
ENERGY = "energy_per_output_token_joules"
RATE = "output_tokens_per_s"
POWER = "mean_power_watts"
WIDTH = "energy_half_width_fraction"
BOUNDARIES = ("energy_boundary", "boundary")
KINDS = ("energy_kind", "kind")
"""Columns that must say one thing in all rows of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Operating points, column by column, all of one length.

    Attributes:
        by: Columns that together name a sweep.
        words: Text of each descriptor and group column, empty where it is unknown.
        numbers: Each numeric descriptor, NaN where it is unknown.
        concurrency_count: Requests in flight.
        energy_per_output_token_joules: Of the boundary that the whole table shares; NaN in a
            table of points to predict.
        output_tokens_per_s: Of the whole machine or fleet of the row; NaN where unknown.
        mean_power_watts: As the energy; NaN where unknown.
        energy_half_width_fraction: Half-width of the 95 % interval that the joules came with, over
            the joules: what a meter is off by in all points of a sweep alike; 0 where none is told.
        boundary: What the joules of every row include; empty if the table does not tell.
    """

    by: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, Array] = field(default_factory=dict)
    concurrency_count: FloatArray
    energy_per_output_token_joules: FloatArray
    output_tokens_per_s: FloatArray
    mean_power_watts: FloatArray
    energy_half_width_fraction: FloatArray
    boundary: str = ""

    def __len__(self) -> int:
        return len(self.concurrency_count)

    def keys(self, columns: Sequence[str]) -> list[tuple[str, ...]]:
        """What each row has in some columns; numbers as they would be written."""
        return list(zip(*(self._text(column) for column in columns), strict=True))

    def groups(self) -> dict[tuple[str, ...], np.ndarray]:
        """Row numbers of each sweep, by concurrency, in the order of first appearance."""
        return self.rows_by(self.by)

    def rows_by(self, columns: Sequence[str]) -> dict[tuple[str, ...], np.ndarray]:
        """Row numbers of each combination of some columns, by concurrency."""
        found: dict[tuple[str, ...], list[int]] = {}
        for row, key in enumerate(self.keys(columns)):
            found.setdefault(key, []).append(row)
        order = self.concurrency_count
        return {key: np.array(sorted(rows, key=lambda r: order[r])) for key, rows in found.items()}

    def take(self, rows: np.ndarray) -> Table:
        """Some of the rows, in that order."""
        return replace(
            self,
            words={name: tuple(column[r] for r in rows) for name, column in self.words.items()},
            numbers={name: column[rows] for name, column in self.numbers.items()},
            concurrency_count=self.concurrency_count[rows],
            energy_per_output_token_joules=self.energy_per_output_token_joules[rows],
            output_tokens_per_s=self.output_tokens_per_s[rows],
            mean_power_watts=self.mean_power_watts[rows],
            energy_half_width_fraction=self.energy_half_width_fraction[rows],
        )

    def completed_from(self, other: Table) -> Table:
        """The same rows, with every column that another table has.

        What a row leaves out is what all rows of its sweep have in that table; a number else what
        all rows of its model or its machine (`FOLLOWS`) have; else it is unknown.
        """
        named = {name: self.words.get(name, ("",) * len(self)) for name in other.words}
        keyed = replace(self, by=other.by, words=named, numbers=dict(self.numbers))
        words = {
            name: tuple(
                text or (known.pop() if len(known) == 1 else "")
                for text, known in zip(texts, keyed._known(other, name, other.by), strict=True)
            )
            for name, texts in named.items()
        }
        whole = replace(keyed, words=words)
        numbers = {}
        for name in other.numbers:
            values = self.numbers.get(name, np.full(len(self), math.nan)).copy()
            follows = [(FOLLOWS[name],)] if FOLLOWS.get(name) in words else []
            for columns in (other.by, *follows):
                for row, known in enumerate(whole._known(other, name, columns)):
                    if np.isnan(values[row]) and len(known) == 1:
                        values[row] = float(known.pop())
            numbers[name] = values
        return replace(whole, numbers=numbers)

    def _known(self, other: Table, name: str, columns: Sequence[str]) -> list[set[Any]]:
        """For each row, what the rows of another table that share some columns have in one."""
        same = other.rows_by(columns)
        column: Any = other.words[name] if name in other.words else other.numbers[name]
        missing = [each for each in columns if each not in {*self.words, *self.numbers}]
        keys = [()] * len(self) if missing else self.keys(columns)
        return [{column[each] for each in same.get(key, ())} for key in keys]

    def _text(self, column: str) -> tuple[str, ...]:
        if column in self.words:
            return self.words[column]
        if column in self.numbers:
            return tuple(f"{value:g}" for value in self.numbers[column])
        known = [*self.words, *self.numbers]
        raise UsageError(
            f"there is no column {column!r}{did_you_mean(column, known)}; there are "
            f"{', '.join(known)}"
        )


def read_table(path: Path, by: Sequence[str]) -> Table:
    """Read a CSV file of operating points.

    Args:
        path: A CSV file with a header: the columns of ``by``, ``concurrency`` and
            ``energy_per_output_token_joules``; ``output_tokens_per_s``, ``mean_power_watts``,
            ``energy_half_width_fraction`` and the descriptors of `WORDS` and `NUMBERS` where they
            are known. Other columns are left.
        by: Columns that together name a sweep.

    Raises:
        DocumentError: If the file cannot be read, or a value is wrong: file, line, column, value.
    """
    why = why_irregular(path)
    if why is not None:
        raise DocumentError(f"{path}: {why}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            _check_header(path, header, by)
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise DocumentError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DocumentError(f"{path}: cannot be read as CSV in UTF-8: {error}") from None
    if not rows:
        raise DocumentError(f"{path}: has a header and no rows")
    read = list(_checked(path, rows, header))
    for names in (BOUNDARIES, KINDS):
        _one(path, names, rows, read)
    _named(path, by, rows, read)
    return table_of(read, by)


def line_of(path: Path, row: int) -> int:
    """Line of the file on which a row of its table ends."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        return [reader.line_num for _ in reader][row]


def table_of(rows: Iterable[Mapping[str, str | float]], by: Sequence[str]) -> Table:
    """A table of rows that are right already: `ENERGY`, `RATE`, `POWER` and numbers as floats."""
    rows = list(rows)
    present = {name for row in rows for name in row}
    words = dict.fromkeys(
        [name for name in (*by, *WORDS) if name in present and name not in NUMBERS]
    )

    def numeric(name: str) -> FloatArray:
        return np.array([float(row.get(name, math.nan)) for row in rows])

    return Table(
        by=tuple(by),
        words={name: tuple(str(row.get(name, "")) for row in rows) for name in words},
        numbers={name: numeric(name) for name in NUMBERS if name in present},
        concurrency_count=numeric(CONCURRENCY),
        energy_per_output_token_joules=numeric(ENERGY),
        output_tokens_per_s=numeric(RATE),
        mean_power_watts=numeric(POWER),
        energy_half_width_fraction=np.nan_to_num(numeric(WIDTH)),
        boundary=str(rows[0].get(BOUNDARIES[0], "")) if rows else "",
    )


def _check_header(path: Path, header: Sequence[str], by: Sequence[str]) -> None:
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DocumentError(f"{path}: line 1: the column {twice[0]!r} stands there twice")
    if len(header) == 1 and ";" in header[0]:
        raise DocumentError(f"{path}: line 1: cells are separated by commas, not by ';'")
    measured = [name for name in by if name in (CONCURRENCY, ENERGY, RATE, POWER, WIDTH)]
    if measured:
        raise UsageError(f"--by {measured[0]}: a sweep is named by what all of its points share")
    for column in (*by, CONCURRENCY, ENERGY):
        if column not in header:
            hint = "; --by COLS names the columns of a sweep" if column in by else ""
            raise DocumentError(
                f"{path}: line 1: there is no column {column!r}{did_you_mean(column, header)}{hint}"
            )


def _checked(
    path: Path, rows: Sequence[tuple[int, Mapping[str | None, str]]], header: Sequence[str]
) -> Iterator[dict[str, str | float]]:
    positive = [n for n in (CONCURRENCY, ENERGY, RATE, POWER, WIDTH, *NUMBERS) if n in header]
    for line, row in rows:
        if None in row or None in row.values():
            raise DocumentError(f"{path}: line {line}: has not {len(header)} cells as the header")
        read: dict[str, str | float] = {
            name: text.strip() for name, text in row.items() if name is not None
        }
        for name in positive:
            must = name in (CONCURRENCY, ENERGY)
            read[name] = _positive(f"{path}: line {line}: {name}", str(read[name]), must=must)
        yield read


def _one(
    path: Path,
    names: Sequence[str],
    rows: Sequence[tuple[int, object]],
    read: Sequence[dict[str, str | float]],
) -> None:
    """Joules of one boundary and of one sort; each row then has it in the first of the names."""
    name = next((name for name in names if name in read[0]), None)
    if name is None:
        return
    sorts = {_sort(str(row[name])): (line, row) for (line, _), row in zip(rows, read, strict=True)}
    if len(sorts) > 1:
        (_, first), (line, other) = list(sorts.values())[:2]
        raise DocumentError(
            f"{path}: line {line}: {name} is {other[name]!r}, and elsewhere {first[name]!r}: "
            f"joules of unlike {names[1]} are not fitted together; keep the rows of one"
        )
    for row in read:
        row[names[0]] = row[name]


def _sort(text: str) -> str:
    """What may stand beside each other: joules that a meter gave, whichever way it did."""
    return "metered" if text in ("counter", "integrated", "derived", "measured") else text


def _named(
    path: Path,
    by: Sequence[str],
    rows: Sequence[tuple[int, object]],
    read: Sequence[dict[str, str | float]],
) -> None:
    for (line, _), row in zip(rows, read, strict=True):
        if all(row[name] in ("", math.nan) for name in by):
            raise DocumentError(
                f"{path}: line {line}: {', '.join(by)} is empty, and names the sweep of the row"
            )


def _positive(place: str, text: str, *, must: bool) -> float:
    if not text and not must:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise DocumentError(
            f"{place} is {text!r}; it must be a number above 0"
            f"{', and a row without it must be left out' if must else ', or empty if unknown'}"
        )
    return value
