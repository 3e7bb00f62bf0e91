"""Logs of power or of an energy counter, as CSV files with a header.

The column ``time_s`` and one of power or energy are read, the others passed over. A cell that is
empty or says that there is no value is a failed read; anything else that is no number is an error
of the file, with its line and column. Nothing is repaired here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.errors import UsageError, did_you_mean

TIME_COLUMN = "time_s"
NO_VALUE = frozenset({"", "nan", "na", "n/a", "[n/a]", "none", "null", "-", "[not supported]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLog:
    """A log as it was written.

    Attributes:
        path: The file.
        column: The column read.
        time_s: Shape (n,), in the order of the file, whatever it is [s, clock of the file].
        power_watts: Shape (n,) [W], NaN is a failed read; None if the column is a counter.
        energy_joules: Shape (n,) [J], NaN is a failed read; None if the column is power.
    """

    path: Path
    column: str
    time_s: FloatArray
    power_watts: FloatArray | None = None
    energy_joules: FloatArray | None = None


def read_power_log(path: Path, column: str | None = None) -> PowerLog:
    """Read a log.

    Args:
        path: CSV file with a header; UTF-8, a byte order mark may stand before it.
        column: Name of the column of power or energy; None if there is only one.

    Raises:
        UsageError: If the file cannot be read, lacks a column, has several to choose from, or has
            a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines)
            names = [name.strip() for name in next(rows, [])]
            chosen = _column(path, names, column)
            places = (_place(path, names, TIME_COLUMN), names.index(chosen))
            table = np.array(list(_numbers(path, rows, (TIME_COLUMN, chosen), places)))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from error
    table = table.reshape(-1, 2)
    time_s, value = table[:, 0], table[:, 1]
    if chosen.endswith("joules"):
        return PowerLog(path=path, column=chosen, time_s=time_s, energy_joules=value)
    return PowerLog(path=path, column=chosen, time_s=time_s, power_watts=value)


def _place(path: Path, names: Sequence[str], name: str) -> int:
    if name not in names:
        known = ", ".join(names) or "nothing"
        raise UsageError(
            f"{path}, line 1: there is no column {name!r}{did_you_mean(name, names)} (the header "
            f"has: {known})"
        )
    return names.index(name)


def _column(path: Path, names: Sequence[str], wanted: str | None) -> str:
    """The column that is asked for, or the only one that can be meant."""
    if wanted is not None:
        return names[_place(path, names, wanted)]
    plain = [name for name in names if name in ("power_watts", "energy_joules")]
    likely = plain or [name for name in names if name.endswith(("_watts", "_joules"))]
    if not likely:
        return names[_place(path, names, "power_watts")]
    if len(likely) > 1:
        raise UsageError(
            f"{path}, line 1: several columns can be meant: {', '.join(likely)}; name one with "
            f"--column"
        )
    return likely[0]


def _numbers(
    path: Path, rows: Iterator[list[str]], names: tuple[str, str], places: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Time and value of each row; rows without any cell are passed over."""
    for line, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = []
        for name, place in zip(names, places, strict=True):
            if place >= len(row):
                raise UsageError(f"{path}, line {line}: column {name} is missing")
            cells.append(_number(path, line, name, row[place].strip()))
        yield cells[0], cells[1]


def _number(path: Path, line: int, name: str, cell: str) -> float:
    if cell.lower() in NO_VALUE and name != TIME_COLUMN:
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        raise UsageError(f"{path}, line {line}: column {name}: {cell!r} is no number") from None
    if math.isnan(number) and name == TIME_COLUMN:
        raise UsageError(f"{path}, line {line}: column {name}: {cell!r} is no time")
    return number
