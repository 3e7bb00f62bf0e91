"""Tables that ``nvidia-smi`` and ``amd-smi`` print while they watch: one row per GPU and time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wattbench.core.energy import Quantity
from wattbench.core.errors import UsageError
from wattbench.interchange.channel import (
    SMI_GAIN_FRACTION,
    SMI_OFFSET_WATTS,
    Cell,
    LocalClock,
    LoggedChannel,
    LogOptions,
    read_rows,
    resolution_s,
)

NVIDIA_TIME = "%Y/%m/%d %H:%M:%S.%f"
NVIDIA_COLUMNS = ("power.draw", "power.draw.instant", "power.draw.average")
NVIDIA_MEAN_S = 1.0
"""``power.draw.average``, and ``power.draw`` on some boards, is a mean over this long [s]."""
AMD_POWER = (
    "socket_power",
    "power_socket_power",
    "current_socket_power",
    "average_socket_power",
    "power_usage",
    "power",
)
AMD_ENERGY = ("total_energy_consumption", "energy_total_energy_consumption", "energy")
AMD_DEVICES, AMD_TIMES = ("gpu", "gpu_id", "device"), ("timestamp", "time")
FIRST_UNIX_S = 1e8
"""A number below this is no Unix time of any log [s]."""
_UNIT = re.compile(r"^(.*?)\s*[\[(]([A-Za-z]*)[\])]$")


@dataclass(slots=True)
class _Samples:
    uuid: str
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table with its columns: names as printed, without the units that stand behind them."""

    path: Path
    names: list[str]
    units: list[str]
    rows: list[tuple[int, list[str]]]

    def place(self, names: Sequence[str]) -> int | None:
        """The first column with one of these names."""
        return next((self.names.index(name) for name in names if name in self.names), None)

    def need(self, names: Sequence[str], fix: str) -> int:
        place = self.place(names)
        if place is None:
            header = ", ".join(self.names) or "nothing"
            raise UsageError(
                f"{self.path}, line 1: there is no column {' or '.join(names)} (the header has: "
                f"{header}); {fix}"
            )
        return place

    def cells(self) -> Iterator[list[Cell]]:
        for line, row in self.rows:
            if row[: len(self.names)] == self.names or row[0].startswith(self.names[0]):
                continue  # the header again, where one file was written in several goes
            if len(row) < len(self.names):
                raise UsageError(
                    f"{self.path}, line {line}: column {self.names[len(row)]} is missing"
                )
            yield [
                Cell(path=self.path, line=line, column=name, text=text)
                for name, text in zip(self.names, row, strict=False)
            ]


def _table(path: Path, growing: bool) -> _Table:
    header, rows = read_rows(path, growing=growing)
    split = [
        (found.group(1), found.group(2)) if (found := _UNIT.match(n)) else (n, "") for n in header
    ]
    return _Table(path, [name for name, _ in split], [unit for _, unit in split], rows)


def read_nvidia_smi(
    path: Path, options: LogOptions, *, growing: bool = False
) -> list[LoggedChannel]:
    """Read what ``nvidia-smi --query-gpu=timestamp,index,uuid,power.draw --format=csv`` prints.

    Raises:
        UsageError: If the file cannot be read, lacks a column, or has a cell that is no number.
    """
    table = _table(path, growing)
    fix = "log with --query-gpu=timestamp,index,uuid,power.draw --format=csv"
    stamp = table.need(("timestamp",), fix)
    table.need(NVIDIA_COLUMNS, fix)
    columns = [table.names.index(name) for name in NVIDIA_COLUMNS if name in table.names]
    index, uuid = table.place(("index",)), table.place(("uuid", "gpu_uuid"))
    clock = LocalClock(options.utc_offset_s)
    found: dict[tuple[str, int], _Samples] = {}
    for cells in table.cells():
        time_s = cells[stamp].unix_s(clock, NVIDIA_TIME)
        named = index if index is not None else uuid
        device = "0" if named is None else cells[named].text
        known = f"gpu:{device}" if uuid is None else cells[uuid].text
        for column in columns:
            samples = found.setdefault((device, column), _Samples(known))
            if named is None and samples.times and samples.times[-1] == time_s:
                raise cells[stamp].wrong(f"{cells[stamp].text!r} comes twice; {fix}")
            samples.times.append(time_s)
            samples.values.append(cells[column].reading(table.units[column]))
    words = f"nvidia-smi, stamps in {clock.words}"
    return [
        _nvidia_channel(path, device, table.names[column], samples, words)
        for (device, column), samples in found.items()
    ]


def _nvidia_channel(
    path: Path, device: str, column: str, samples: _Samples, words: str
) -> LoggedChannel:
    mean = column.endswith("average")
    return replace(
        _channel(path, f"nvidia-smi:{device}/{column}", column, samples, words),
        averaging_window_s=NVIDIA_MEAN_S if mean else None,
        # Whether it averages depends on the board, and the log does not tell which it is.
        late_s=NVIDIA_MEAN_S / 2 if column == "power.draw" else 0.0,
        coverage_fraction=1.0 if mean else None,
    )


def read_amd_smi(path: Path, options: LogOptions, *, growing: bool = False) -> list[LoggedChannel]:
    """Read what ``amd-smi metric --power --energy --csv --watch 1`` or ``monitor`` prints.

    Raises:
        UsageError: If the file cannot be read, lacks a column, or has a cell that is no number.
    """
    raw = _table(path, growing)
    table = _Table(path, [name.lower() for name in raw.names], raw.units, raw.rows)
    stamp = table.need(AMD_TIMES, "log with --watch 1, which stamps each row")
    gpu = table.need(AMD_DEVICES, "log with amd-smi's own --csv")
    kinds: tuple[tuple[tuple[str, ...], Quantity], ...] = (
        (AMD_ENERGY, "energy_counter"),
        (AMD_POWER, "power"),
    )
    places = ((table.place(names), quantity) for names, quantity in kinds)
    wanted = {place: quantity for place, quantity in places if place is not None}
    if not wanted:
        table.need((*AMD_POWER, *AMD_ENERGY), "log with --power --energy")
    clock = LocalClock(options.utc_offset_s)
    found: dict[tuple[str, int], _Samples] = {}
    for cells in table.cells():
        time_s = _amd_time_s(cells[stamp], clock)
        device = cells[gpu].text
        for column in wanted:
            samples = found.setdefault((device, column), _Samples(f"gpu:{device}"))
            samples.times.append(time_s)
            samples.values.append(cells[column].reading(table.units[column]))
    return [
        _channel(
            path,
            f"amd-smi:{device}" + ("/power" if power and len(wanted) > 1 else ""),
            table.names[column],
            samples,
            f"amd-smi, stamps in {clock.words}",
            wanted[column],
        )
        for (device, column), samples in found.items()
        for power in (wanted[column] == "power",)
    ]


def _amd_time_s(cell: Cell, clock: LocalClock) -> float:
    """Seconds since 1970, or a date and time in one of the ways that tools write it."""
    text = cell.text
    if re.fullmatch(r"[\d.]+", text):
        time_s = cell.time_s()
        if time_s < FIRST_UNIX_S:
            raise cell.wrong(f"{text!r} is no Unix time")
        return time_s
    return cell.unix_s(clock, NVIDIA_TIME if "/" in text else None)


def _channel(
    path: Path,
    name: str,
    column: str,
    samples: _Samples,
    words: str,
    quantity: Quantity = "power",
) -> LoggedChannel:
    time_s = np.array(samples.times)
    return LoggedChannel(
        path=path,
        name=name,
        column=column,
        device=samples.uuid,
        quantity=quantity,
        time_s=time_s,
        value=np.array(samples.values),
        time_base="unix",
        resolution_s=resolution_s(time_s),
        sensor=words,
        boundary="board",
        gain_half_width_fraction=SMI_GAIN_FRACTION,
        offset_half_width_watts=SMI_OFFSET_WATTS,
    )
