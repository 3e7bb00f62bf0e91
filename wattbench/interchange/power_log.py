"""Logs of power or of an energy counter, as CSV files with a header.

One column of time and one of power or energy are read, the others passed over. Time is ``time_s``
(seconds of the file's own clock), ``time_unix_s``, or ``time`` or ``timestamp`` in ISO 8601.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.interchange.channel import (
    Cell,
    LocalClock,
    LoggedChannel,
    LogOptions,
    read_rows,
    resolution_s,
)

FILE_TIME, UNIX_TIME, ISO_TIMES = "time_s", "time_unix_s", ("time", "timestamp")


def read_csv(path: Path, options: LogOptions, *, growing: bool = False) -> list[LoggedChannel]:
    """Read a plain CSV file: always one channel.

    Raises:
        UsageError: If the file cannot be read, lacks a column, has several to choose from, or has
            a cell that is no number.
    """
    names, rows = read_rows(path, growing=growing)
    chosen = _column(path, names, options.column)
    time_column = _time_column(path, names)
    time_place, place = names.index(time_column), names.index(chosen)
    clock = LocalClock(options.utc_offset_s)
    time_s, value = np.empty(len(rows)), np.empty(len(rows))
    for index, (line, row) in enumerate(rows):
        stamp = _cell(path, line, time_column, row, time_place)
        iso = time_column in ISO_TIMES
        time_s[index] = stamp.unix_s(clock) if iso else stamp.time_s()
        value[index] = _cell(path, line, chosen, row, place).reading()
    return [
        LoggedChannel(
            path=path,
            name=chosen,
            column=chosen,
            device=path.name,
            quantity="energy_counter" if chosen.endswith("joules") else "power",
            time_s=time_s,
            value=value,
            time_base="file" if time_column == FILE_TIME else "unix",
            resolution_s=resolution_s(time_s),
            sensor=f"column {chosen} of a log",
        )
    ]


def _cell(path: Path, line: int, name: str, row: Sequence[str], place: int) -> Cell:
    if place >= len(row):
        raise UsageError(f"{path}, line {line}: column {name} is missing")
    return Cell(path=path, line=line, column=name, text=row[place])


def _place(path: Path, names: Sequence[str], name: str) -> int:
    if name not in names:
        known = ", ".join(names) or "nothing"
        raise UsageError(
            f"{path}, line 1: there is no column {name!r}{did_you_mean(name, names)} (the header "
            f"has: {known})"
        )
    return names.index(name)


def _time_column(path: Path, names: Sequence[str]) -> str:
    found = next((name for name in (FILE_TIME, UNIX_TIME, *ISO_TIMES) if name in names), None)
    if found is None:
        iso = " or ".join(map(repr, ISO_TIMES))
        raise UsageError(
            f"{path}, line 1: there is no column of time; name it {UNIX_TIME!r} (Unix seconds), "
            f"{iso} (ISO 8601), or {FILE_TIME!r} (seconds of a clock of its own, which --power-log "
            f"cannot place) (the header has: {', '.join(names) or 'nothing'})"
        )
    return found


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
