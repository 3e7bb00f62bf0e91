"""What a log of another program holds, whatever its format: channels of power or of energy.

A time that has a zone, or counts from 1970, is a Unix time; one without a zone is a local time, and
whose local time must be known. Nothing is repaired: a cell that says that there is no value is a
failed read, and anything else that cannot be meant is an error of the file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import numpy as np

from wattbench.core.energy import Boundary, FloatArray, Quantity
from wattbench.core.errors import UsageError

NO_VALUE = frozenset({"", "nan", "na", "n/a", "none", "null", "-"})
SCALES = {"": 1.0, "W": 1.0, "mW": 1e-3, "kW": 1e3, "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "kJ": 1e3}
"""From the units that tools print to W or J."""
MAX_DIGITS = 6
"""Decimals that a Unix time has in a double."""
SMI_GAIN_FRACTION, SMI_OFFSET_WATTS = 0.05, 5.0
"""What NVIDIA states of its board sensors, taken for AMD's too: ± 5 % and ± 5 W."""

_NUMBER = re.compile(r"^([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z]*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What a log does not tell of itself.

    Attributes:
        column: Column of a plain CSV file; None if there is only one that can be meant.
        utc_offset_s: Local time minus UTC [s]; None: the rules of this machine's zone.
        start_unix_s: Time of the first row of a format without stamps [Unix s].
        period_s: Time between two rows of such a format [s].
    """

    column: str | None = None
    utc_offset_s: float | None = None
    start_unix_s: float | None = None
    period_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChannel:
    """One stream of samples in a log, as it was written.

    Attributes:
        path: The file.
        name: Unique within the log, fit for the name of a domain.
        column: What the log calls it.
        device: Identifier of the device, as the log tells it.
        quantity: Power, or a counter of energy.
        time_s: Shape (n,), in the order of the file, whatever it is [s].
        value: Shape (n,), power [W] or counter [J]; NaN is a failed read.
        time_base: ``unix``, or ``file``: seconds of a clock that only the log knows.
        resolution_s: Step of the stamps [s].
        sensor: What measured, in words.
        boundary: What the values include, None if the format does not tell.
        current: ``ac`` or ``dc`` of a node, None if the format does not tell.
        averaging_window_s: A power is the mean over this long before it [s]; None: not known.
        late_s: A stamp may be this much later than the power that it tells [s], as the sensor
            may average and nobody says so.
        coverage_fraction: Share of the time that the sensor looks at; None if unknown.
        gain_half_width_fraction: Prior on true/read − 1: uniform within ± this.
        offset_half_width_watts: Prior on true − read: uniform within ± this [W].
    """

    path: Path
    name: str
    column: str
    device: str
    quantity: Quantity
    time_s: FloatArray
    value: FloatArray
    time_base: Literal["unix", "file"]
    resolution_s: float
    sensor: str
    boundary: Boundary | None = None
    current: Literal["ac", "dc"] | None = None
    averaging_window_s: float | None = None
    late_s: float = 0.0
    coverage_fraction: float | None = 1.0
    gain_half_width_fraction: float = 0.0
    offset_half_width_watts: float = 0.0


Rows = list[tuple[int, list[str]]]


def read_lines(path: Path, *, growing: bool) -> list[str]:
    """The lines of a log.

    Args:
        path: Text file; UTF-8, a byte order mark may stand before it.
        growing: Whether somebody writes to it, so that the last line may be half a line.

    Raises:
        UsageError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read as text: {error}") from error
    lines = text.split("\n")
    return lines[:-1] if growing else lines


def read_rows(path: Path, *, growing: bool) -> tuple[list[str], Rows]:
    """Header of a CSV file, and its rows with their line numbers; empty rows are passed over."""
    table = csv.reader(line + "\n" for line in read_lines(path, growing=growing))
    try:
        names = [name.strip() for name in next(table, [])]
        rows = [(table.line_num, [cell.strip() for cell in row]) for row in table]
    except csv.Error as error:
        raise UsageError(f"{path}: cannot be read as CSV: {error}") from error
    return names, [(line, row) for line, row in rows if any(row)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a log and where it stands, for errors that name the place."""

    path: Path
    line: int
    column: str
    text: str

    def wrong(self, why: str) -> UsageError:
        """An error about this cell."""
        return UsageError(f"{self.path}, line {self.line}: column {self.column}: {why}")

    def reading(self, unit: str = "") -> float:
        """Its value in W or J, whose unit may stand behind it; NaN if it says that there is none.

        Raises:
            UsageError: If it is no number, or has a unit that is none of power or energy.
        """
        text = self.text
        if text.lower() in NO_VALUE or (text.startswith("[") and text.endswith("]")):
            return math.nan
        found = _NUMBER.match(text)
        if found is None:
            raise self.wrong(f"{text!r} is no number")
        scale = SCALES.get(found.group(2) or unit)
        if scale is None:
            raise self.wrong(f"{text!r}: the unit is none of {', '.join(filter(None, SCALES))}")
        return float(found.group(1)) * scale

    def time_s(self) -> float:
        """Its value as a number of seconds.

        Raises:
            UsageError: If it is none.
        """
        try:
            number = float(self.text)
        except ValueError:
            raise self.wrong(f"{self.text!r} is no number") from None
        if not math.isfinite(number):
            raise self.wrong(f"{self.text!r} is no time")
        return number

    def unix_s(self, clock: LocalClock, pattern: str | None = None) -> float:
        """Its value as a date and time [Unix s].

        Args:
            clock: What local times mean.
            pattern: How it is written, in the letters of ``strptime``; None: ISO 8601.

        Raises:
            UsageError: If it is no time of that pattern, or does not exist, or happened twice.
        """
        try:
            if pattern is None:
                stamp = datetime.fromisoformat(self.text)
            else:
                # A whole second is written without its fraction by some.
                short = pattern.endswith(".%f") and "." not in self.text
                stamp = datetime.strptime(self.text, pattern[:-3] if short else pattern)
        except ValueError:
            form = "2026-03-31T14:05:12.345+02:00" if pattern is None else pattern
            raise self.wrong(f"{self.text!r} is no time such as {form}") from None
        try:
            return clock.unix_s(stamp)
        except ValueError as error:
            raise self.wrong(f"{self.text!r} {error}") from None


class LocalClock:
    """What the stamps of one log mean, read one after the other.

    Args:
        utc_offset_s: Local time minus UTC [s]; None: the rules of this machine's zone.
    """

    def __init__(self, utc_offset_s: float | None) -> None:
        self._zone = (
            None if utc_offset_s is None else timezone(timedelta(seconds=round(utc_offset_s)))
        )
        self._last_s: float | None = None

    def unix_s(self, stamp: datetime) -> float:
        """Unix time of a stamp, with or without zone [s].

        The hour that comes twice when clocks go back is told from the stamps before it.

        Raises:
            ValueError: If the zone has no such time, or has it twice and nothing tells which.
        """
        if stamp.tzinfo is not None:
            return stamp.timestamp()
        if self._zone is not None:
            return stamp.replace(tzinfo=self._zone).timestamp()
        first_s, second_s = stamp.timestamp(), stamp.replace(fold=1).timestamp()
        if first_s != second_s:
            fix = "give the offset from UTC in which it was written"
            if datetime.fromtimestamp(first_s) != stamp:
                raise ValueError(f"does not exist in this machine's time zone; {fix}")
            if self._last_s is None:
                raise ValueError(f"comes twice in this machine's time zone; {fix}")
            first_s = first_s if first_s >= self._last_s else second_s
        self._last_s = first_s
        return first_s

    @property
    def words(self) -> str:
        """For the method of a channel."""
        return "this machine's time zone" if self._zone is None else f"{self._zone}"


def resolution_s(time_s: FloatArray) -> float:
    """Step of the stamps: the largest power of ten of which all are multiples, at most 1 s."""
    for digits in range(MAX_DIGITS):
        if np.allclose(np.round(time_s, digits), time_s, rtol=0.0, atol=5e-7):
            return float(10.0**-digits)
    return float(10.0**-MAX_DIGITS)


def choose(
    channels: Sequence[LoggedChannel], column: str | None, device: str | None
) -> LoggedChannel:
    """The one channel that is asked for, or the only one.

    Raises:
        UsageError: If none fits or several do, naming all.
    """
    fit = [
        c
        for c in channels
        if column in (None, c.column, c.name)
        and device in (None, c.device, c.name.partition("/")[0].rpartition(":")[2])
    ]
    if len(fit) == 1:
        return fit[0]
    path = channels[0].path
    known = "; ".join(f"column {c.column} of device {c.device}" for c in fit or channels)
    if not fit:
        asked = f"{column or 'any'} of device {device or 'any'}"
        raise UsageError(f"{path}: there is no column {asked}; there is {known}")
    raise UsageError(
        f"{path}: several channels can be meant: {known}; name one with --column and --device"
    )
