"""``wattbench import --power-log``: samples behind a load that another tool made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wattbench.core.energy import Trace, trace_of
from wattbench.core.errors import UsageError
from wattbench.core.files import why_irregular
from wattbench.interchange import (
    LogFormat,
    LoggedChannel,
    Wishes,
    domains_of,
    logged_run_s,
    read_log,
    stretch,
)
from wattbench.interchange.results import ImportedRun

MARGIN_S = 5.0
"""What a log has this long before and after a run goes into the store with it [s]."""


def read_power(path: Path, form: LogFormat) -> list[LoggedChannel]:
    """The channels of a power log, in Unix time.

    Raises:
        UsageError: If it cannot be read, or its times are of a clock of its own.
    """
    why = why_irregular(path)
    if why is not None:
        raise UsageError(f"--power-log: {path}: {why}")
    channels = read_log(path, form)
    for channel in channels:
        if channel.time_base == "file":
            raise UsageError(
                f"{path}: its times are seconds of a clock of its own; write Unix seconds in a "
                f"column time_unix_s, or ISO 8601 in time or timestamp"
            )
    return channels


def power_traces(run: ImportedRun, channels: Sequence[LoggedChannel]) -> tuple[Trace, ...]:
    """The samples of a log during a run, on the run clock; none without a log.

    Raises:
        UsageError: If the run has no absolute times, or the log does not cover its window.
    """
    if not channels:
        return ()
    window_s = run.measurement.window_s
    name = f"{run.measurement.tool}, {run.record.run_id}"
    if run.alignment != "aligned" or window_s is None:
        raise UsageError(
            f"--power-log: the files of {name} do not tell when it ran ({run.alignment}), so no "
            f"power can be joined to it; `wattbench wrap` measures it while it runs"
        )
    length_s = window_s[1] - window_s[0]
    anchors_s = [(0.0, run.record.started_unix_s)]
    traces = []
    domains = domains_of(channels, Wishes(), "attached")
    for channel, domain in zip(channels, domains, strict=True):
        time_s = logged_run_s(channel, anchors_s, 0.0)
        if not len(time_s) or time_s[0] > 0.0 or time_s[-1] < length_s:
            span = f"{time_s[0]:.1f} … {time_s[-1]:.1f} s" if len(time_s) else "nothing"
            raise UsageError(
                f"--power-log: {channel.path} does not cover the window of {name}: on its clock "
                f"the log has {span}, the window 0 … {length_s:.1f} s"
            )
        inside = stretch(time_s, -MARGIN_S, length_s + MARGIN_S)
        traces.append(trace_of(domain, time_s[inside], channel.value[inside]))
    return tuple(traces)
