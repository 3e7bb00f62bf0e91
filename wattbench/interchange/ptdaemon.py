"""Logs of PTDaemon, the program that reads power analysers for SPEC and MLPerf.

    Time,04-21-2026 14:58:47.204,Watts,418.36,Volts,228.36,Amps,1.86,PF,0.985,Mark,run_1

Every line names its fields. An analyser of several channels may add ``Ch1,Watts,…,Ch2,Watts,…``;
the first Watts is then their sum. A value of −1 is a read that failed. The time is local.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.interchange.channel import (
    Cell,
    LocalClock,
    LoggedChannel,
    LogOptions,
    read_lines,
    resolution_s,
)

PATTERN = "%m-%d-%Y %H:%M:%S.%f"
FAILED_WATTS = -1.0
ANALYSER_GAIN_FRACTION = 0.01
"""MLPerf accepts analysers whose uncertainty is at most 1 %."""
ANALYSER_MEAN_S = 1.0
"""A value may be a mean over the analyser's interval before it, which is this long [s]."""
_CHANNEL = re.compile(r"^[Cc]h\d+$")


def read_ptdaemon(path: Path, options: LogOptions, *, growing: bool = False) -> list[LoggedChannel]:
    """Read a log of PTDaemon.

    Raises:
        UsageError: If the file cannot be read, or a line is none of PTDaemon's.
    """
    clock = LocalClock(options.utc_offset_s)
    times: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    for line, text in enumerate(read_lines(path, growing=growing), start=1):
        if not text.strip():
            continue
        time_s, found = _parse(path, line, text, clock)
        for channel, watts in found.items():
            times.setdefault(channel, []).append(time_s)
            values.setdefault(channel, []).append(watts)
    if not times:
        raise UsageError(f"{path}: there is no line of PTDaemon (Time,…,Watts,…) in it")
    return [_channel(path, name, times[name], values[name], clock) for name in times]


def _parse(path: Path, line: int, text: str, clock: LocalClock) -> tuple[float, dict[str, float]]:
    """Time [Unix s], and power of each channel [W]."""
    cells = [cell.strip() for cell in text.split(",")]
    if cells[0] != "Time" or len(cells) < 4:
        raise UsageError(
            f"{path}, line {line}: {text[:60]!r} is no line Time,…,Watts,… of PTDaemon"
        )
    stamp = Cell(path=path, line=line, column="Time", text=cells[1])
    found: dict[str, float] = {}
    channel, index = "", 2
    while index < len(cells):
        if _CHANNEL.match(cells[index]):
            channel, index = cells[index].lower(), index + 1
            continue
        if cells[index] == "Watts":
            shown = cells[index + 1] if index + 1 < len(cells) else ""
            watts = Cell(path=path, line=line, column="Watts", text=shown).reading()
            found[channel] = math.nan if watts == FAILED_WATTS else watts
        index += 2
    if not found:
        raise UsageError(f"{path}, line {line}: column Watts is missing in {text[:60]!r}")
    return stamp.unix_s(clock, PATTERN), found


def _channel(
    path: Path, name: str, times: list[float], values: list[float], clock: LocalClock
) -> LoggedChannel:
    time_s = np.array(times)
    return LoggedChannel(
        path=path,
        name=f"ptdaemon:{name}" if name else "ptdaemon",
        column=f"{name}/Watts" if name else "Watts",
        device=name or "analyser",
        quantity="power",
        time_s=time_s,
        value=np.array(values),
        time_base="unix",
        resolution_s=resolution_s(time_s),
        sensor=f"power analyser read by PTDaemon, stamps in {clock.words}",
        boundary="node",
        current="ac",
        late_s=ANALYSER_MEAN_S / 2,
        gain_half_width_fraction=ANALYSER_GAIN_FRACTION,
    )
