"""What ``dcgmi dmon -e 155,156 -d 100`` prints: power and total energy of each GPU.

    #Entity   POWER      TOTEC
    ID        W          mJ
    GPU 0     71.235     123456789

No row has a time, so the time of the first and the period must be told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wattbench.core.energy import Quantity
from wattbench.core.errors import UsageError
from wattbench.interchange.channel import (
    SMI_GAIN_FRACTION,
    SMI_OFFSET_WATTS,
    Cell,
    LoggedChannel,
    LogOptions,
    read_lines,
)

_HEADER = re.compile(r"^#\s*Entity\s+(.*)$")
_UNITS = re.compile(r"^\s*ID\s+(.*)$", re.IGNORECASE)
_ROW = re.compile(r"^\s*([A-Za-z][\w-]*)\s+(\d+(?:/\d+)*)\s+(.*)$")
QUANTITIES: dict[str, tuple[Quantity, str]] = {
    "POWER": ("power", "W"),
    "TOTEC": ("energy_counter", "mJ"),
}
"""By the beginning of a column's name: what it is, and its unit."""


@dataclass(slots=True)
class _Log:
    columns: list[str] = field(default_factory=list)
    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)


def read_dcgm(path: Path, options: LogOptions, *, growing: bool = False) -> list[LoggedChannel]:
    """Read a dump of ``dcgmi dmon``.

    Raises:
        UsageError: If the file cannot be read, lacks a column or has a cell that is no number, or
            nobody says when it began and how fast it goes.
    """
    if options.start_unix_s is None or options.period_s is None:
        raise UsageError(
            f"{path}: a dump of dcgmi dmon has no times; give start_unix_s (the time of its first "
            f"row, `date +%s.%N` before it starts) and period_s (its -d, in seconds)"
        )
    log = _Log()
    for line, text in enumerate(read_lines(path, growing=growing), start=1):
        _take(path, line, text, log)
    if not log.values:
        raise UsageError(f"{path}: there is no row with POWER or TOTEC of dcgmi dmon in it")
    return [
        _channel(path, entity, column, values, options.start_unix_s, options.period_s)
        for (entity, column), values in log.values.items()
    ]


def _take(path: Path, line: int, text: str, log: _Log) -> None:
    header = _HEADER.match(text.strip())
    if header is not None:
        log.columns = header.group(1).split()
        if not any(column.startswith(tuple(QUANTITIES)) for column in log.columns):
            names = ", ".join(log.columns)
            raise UsageError(
                f"{path}, line {line}: neither POWER nor TOTEC is among the columns {names}; dump "
                f"with dcgmi dmon -e 155,156"
            )
        return
    if not text.strip() or _UNITS.match(text):
        return
    row = _ROW.match(text)
    if row is None or not log.columns:
        raise UsageError(f"{path}, line {line}: {text[:60]!r} is no row of dcgmi dmon")
    kind, number, cells = row.group(1), row.group(2), row.group(3).split()
    if len(cells) != len(log.columns):
        raise UsageError(
            f"{path}, line {line}: {len(cells)} values for the columns {', '.join(log.columns)}"
        )
    entity = number if kind == "GPU" else f"{kind}-{number}".replace("/", "-")
    for column, shown in zip(log.columns, cells, strict=True):
        unit = next((u for name, (_, u) in QUANTITIES.items() if column.startswith(name)), None)
        if unit is not None:
            cell = Cell(path=path, line=line, column=column, text=shown)
            log.values.setdefault((entity, column), []).append(cell.reading(unit))


def _channel(
    path: Path, entity: str, column: str, values: list[float], start_unix_s: float, period_s: float
) -> LoggedChannel:
    quantity = next(q for name, (q, _) in QUANTITIES.items() if column.startswith(name))
    return LoggedChannel(
        path=path,
        name=f"dcgm:{entity}" + ("/power" if quantity == "power" else ""),
        column=column,
        device=f"gpu:{entity}",
        quantity=quantity,
        time_s=start_unix_s + period_s * np.arange(len(values), dtype=np.float64),
        value=np.array(values),
        time_base="unix",
        resolution_s=0.0,
        late_s=period_s,
        sensor=f"dcgmi dmon, a row every {period_s:g} s",
        boundary="board",
        gain_half_width_fraction=SMI_GAIN_FRACTION,
        offset_half_width_watts=SMI_OFFSET_WATTS,
    )
