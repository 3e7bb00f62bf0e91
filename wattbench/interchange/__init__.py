"""Files of other tools in: logs of power and energy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from wattbench.interchange.channel import LoggedChannel, LogOptions, choose
from wattbench.interchange.dcgm import read_dcgm
from wattbench.interchange.own import HEADER, read_runs, run_lines
from wattbench.interchange.power_log import read_csv
from wattbench.interchange.ptdaemon import read_ptdaemon
from wattbench.interchange.run_clock import (
    Wishes,
    disagreement_s,
    domains_of,
    logged_run_s,
    run_times_s,
    stretch,
)
from wattbench.interchange.smi import read_amd_smi, read_nvidia_smi

LogFormat = Literal["csv", "ptdaemon", "nvidia-smi", "amd-smi", "dcgm"]
FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)
_READERS: dict[LogFormat, Callable[..., list[LoggedChannel]]] = {
    "csv": read_csv,
    "ptdaemon": read_ptdaemon,
    "nvidia-smi": read_nvidia_smi,
    "amd-smi": read_amd_smi,
    "dcgm": read_dcgm,
}

__all__ = [
    "FORMATS",
    "HEADER",
    "LogFormat",
    "LogOptions",
    "LoggedChannel",
    "Wishes",
    "choose",
    "disagreement_s",
    "domains_of",
    "logged_run_s",
    "read_log",
    "read_runs",
    "run_lines",
    "run_times_s",
    "stretch",
]


def read_log(
    path: Path,
    format: LogFormat,
    options: LogOptions | None = None,
    *,
    growing: bool = False,
) -> list[LoggedChannel]:
    """Read a log: its channels, in the order in which they first come.

    Args:
        path: The file.
        format: Which program wrote it.
        options: What the log does not tell of itself; None: nothing is known.
        growing: Whether it is still written, so that the last line may be half a line.

    Raises:
        UsageError: If it cannot be read, or says something that cannot be meant; with the line,
            the column and the value.
    """
    return _READERS[format](path, options or LogOptions(), growing=growing)
