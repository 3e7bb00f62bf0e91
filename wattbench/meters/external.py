"""The meter for a log that another program writes while the run goes on.

An analyser's daemon, ``nvidia-smi`` in a loop, a script that asks a plug: whatever stamps its lines
with the time of day. At the end the log is read, and its stamps are put on the run clock by pairs
of both clocks, read together when the meter starts and when it stops.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wattbench.core.energy import Boundary
from wattbench.core.errors import MeterError, UsageError
from wattbench.core.protocols import TraceSink
from wattbench.interchange import (
    LogFormat,
    LoggedChannel,
    LogOptions,
    Wishes,
    choose,
    disagreement_s,
    domains_of,
    logged_run_s,
    read_log,
    stretch,
)
from wattbench.plugins import PluginContext, option

WAIT_S = 3.0
"""How long a log may take to begin [s]."""
SETTLE_S = 0.3
"""A log that has begun is looked at again after this, as a row may be half written [s]."""
GRACE_S = 6.0
"""How long a log may take to reach the end of the run [s]."""
LOOK_PERIOD_S = 0.1
CLOCK_STEP_S = 0.05
"""A wall clock that moves by this much against the run clock is noted [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalOptions:
    """Options of ``--meter external``."""

    file: str = dataclasses.field(metadata={"help": "the log that the other program writes"})
    format: LogFormat = option("csv", "which program writes it")
    channel: str | None = option(None, "column or channel; none: every one there is")
    name: str | None = option(None, "name of the domain; none: the channel's")
    boundary: Boundary | None = option(None, "what it includes; none: the format's, else node")
    utc_offset_hours: float | None = option(
        None, "local time of the log minus UTC; none: this machine's zone"
    )
    offset_s: float = option(0.0, "clock of the log minus clock of this machine [s]")
    clock_half_width_s: float | None = option(
        None, "how far the log's clock may be off [s]; none: half its last digit and 0.05 s"
    )
    gain_half_width_fraction: float | None = option(
        None, "prior on the gain: uniform within this; none: the format's"
    )
    offset_half_width_watts: float | None = option(
        None, "prior on the offset: uniform within this [W]; none: the format's"
    )
    start_unix_s: float | None = option(None, "time of the first row of a log without times")
    period_s: float | None = option(None, "time between two rows of such a log [s]")

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("clock_half_width_s", "gain_half_width_fraction", "offset_half_width_watts"):
            width = getattr(self, name)
            if width is not None and width < 0:
                raise ValueError(f"{name}={width:g} must not be negative")
        if self.utc_offset_hours is not None and abs(self.utc_offset_hours) >= 24:
            raise ValueError(f"utc_offset_hours={self.utc_offset_hours:g} must be within ± 24")
        if self.period_s is not None and self.period_s <= 0:
            raise ValueError(f"period_s={self.period_s:g} must be above 0")


class ExternalMeter:
    """Reads a log that another program writes during the run: say of a wall meter."""

    Options = ExternalOptions

    def __init__(self, options: ExternalOptions, context: PluginContext) -> None:
        if getattr(context.backend, "virtual_time", False):
            raise UsageError(
                "meter external reads a log in real time, and the engine's time is simulated: add "
                "time=real to --backend emulated, or attach the log afterwards with "
                "`wattbench attach`"
            )
        self._options = options
        hours = options.utc_offset_hours
        self._log_options = LogOptions(
            column=options.channel,
            utc_offset_s=None if hours is None else 3600.0 * hours,
            start_unix_s=options.start_unix_s,
            period_s=options.period_s,
        )
        self._wishes = Wishes(
            name=options.name,
            boundary=options.boundary,
            offset_s=options.offset_s,
            clock_half_width_s=options.clock_half_width_s,
            gain_half_width_fraction=options.gain_half_width_fraction,
            offset_half_width_watts=options.offset_half_width_watts,
        )

    @staticmethod
    def availability() -> str | None:
        """Always usable; whether there is a log shows when it starts."""
        return None

    async def start(self, sink: TraceSink) -> None:
        """Declare what the log has.

        Raises:
            MeterError: If it does not begin, cannot be read, or has no time of day.
        """
        self._sink = sink
        self._anchors_s = [_anchor_s(sink)]
        channels = await self._begun()
        for channel in channels:
            if channel.time_base != "unix":
                raise MeterError(
                    f"{channel.path}: its times are seconds of a clock of its own",
                    "Write Unix seconds in a column time_unix_s.",
                )
        domains = domains_of(channels, self._wishes, "external")
        self._names = {c.name: d.name for c, d in zip(channels, domains, strict=True)}
        for domain in domains:
            sink.declare(domain)

    async def stop(self) -> None:
        """Wait until the log has passed this instant, and hand on what it has of the run.

        Raises:
            MeterError: If it ends before the run, or cannot be read any more.
        """
        self._anchors_s.append(_anchor_s(self._sink))
        end_s = self._sink.now_s()
        deadline_s = time.monotonic() + GRACE_S
        channels = await self._read()
        while self._ends_s(channels) < end_s and time.monotonic() < deadline_s:
            await asyncio.sleep(LOOK_PERIOD_S)
            channels = await self._read()
        # A stamp that was cut off stands half its last digit later, perhaps after this instant.
        await asyncio.sleep(min(max(c.resolution_s for c in channels), 1.0) / 2)
        for channel in channels:
            if channel.name in self._names:
                self._hand_on(channel, end_s)
        moved_s = disagreement_s(self._anchors_s)
        if moved_s > CLOCK_STEP_S:
            for name in self._names.values():
                self._sink.note("sensor_clock", domain=name, offset_s=moved_s)
        ends_s = self._ends_s(channels)
        if ends_s < end_s:
            raise MeterError(
                f"{self._options.file} ends {end_s - ends_s:.1f} s before the run does",
                "Let its program write each line at once (stdbuf -oL), and look at its clock.",
            )

    async def _begun(self) -> list[LoggedChannel]:
        """The channels of the log, once it has any and goes on."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            try:
                if any(len(channel.time_s) for channel in await self._read()):
                    await asyncio.sleep(SETTLE_S)
                    return await self._read()
                problem = f"{self._options.file} has a header and no row"
            except MeterError as error:
                if await asyncio.to_thread(_line_count, Path(self._options.file)) > 1:
                    raise
                problem = str(error)
            if time.monotonic() > deadline_s:
                fix = f"Start the program that writes it first; {WAIT_S:g} s were waited."
                raise MeterError(problem, fix)
            await asyncio.sleep(LOOK_PERIOD_S)

    async def _read(self) -> list[LoggedChannel]:
        path, form = Path(self._options.file), self._options.format
        try:
            channels = await asyncio.to_thread(
                read_log, path, form, self._log_options, growing=True
            )
            if self._options.channel is not None:
                channels = [choose(channels, self._options.channel, None)]
        except UsageError as error:
            raise MeterError(str(error)) from error
        return channels

    def _ends_s(self, channels: Sequence[LoggedChannel]) -> float:
        """When the channel ends that ends first [s, run clock]."""
        known = [c for c in channels if c.name in self._names and len(c.time_s)]
        ends_s = (logged_run_s(c, self._anchors_s, self._options.offset_s)[-1] for c in known)
        return float(min(ends_s, default=-np.inf))

    def _hand_on(self, channel: LoggedChannel, end_s: float) -> None:
        time_s = logged_run_s(channel, self._anchors_s, self._options.offset_s)
        backwards = np.flatnonzero(np.diff(time_s) < 0)
        if len(backwards):
            raise MeterError(
                f"{channel.path}: its time goes back after {time_s[backwards[0]]:.1f} s of the run",
                "Give utc_offset_hours if clocks were set; else its program must stamp in order.",
            )
        inside = stretch(time_s, 0.0, end_s)
        self._sink.sample(self._names[channel.name], time_s[inside], channel.value[inside])


def _line_count(path: Path) -> int:
    """Whole lines of a file, 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _anchor_s(sink: TraceSink) -> tuple[float, float]:
    """Run clock [s] and wall clock [Unix s] at one instant."""
    before_s = sink.now_s()
    unix_s = time.time()
    return (before_s + sink.now_s()) / 2, unix_s
