"""Another program under our meters: idle, the program from start to end, a moment after.

The run is open while the program goes on, so that no sample is lost; what the program did is
joined to it when its own result files have been read.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from wattbench.core.errors import UsageError, WattbenchError
from wattbench.core.protocols import Meter, RecordSink
from wattbench.core.run import Event, Json, RunRecord
from wattbench.runner.clock import RunClock
from wattbench.runner.load import LiveState
from wattbench.runner.metering import metering

AFTER_S = 1.0
"""Meters go on for this long, so that a window that ends with the program is bracketed [s]."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A program that has ended.

    Attributes:
        record: The run as it was begun.
        exit_code: What the program returned; 128 + n if signal n ended it.
        origin_monotonic_s: Origin of the run clock on the monotonic clock of the host [s].
        anchors_s: Pairs of run clock [s] and wall clock [Unix s].
        start_s: When it was started [s, run clock].
        end_s: When it had ended [s, run clock].
    """

    record: RunRecord
    exit_code: int
    origin_monotonic_s: float
    anchors_s: tuple[tuple[float, float], ...]
    start_s: float
    end_s: float


async def enclose(
    command: Sequence[str],
    record: RunRecord,
    meters: Sequence[Meter],
    sink: RecordSink,
    *,
    idle_s: float,
    output_fd: int | None,
) -> Wrapped:
    """Run a program under meters; the run stays open in the sink.

    Signals that would end this process are passed on to the program, whose end is waited for.

    Args:
        command: The program and its arguments.
        record: The run to begin; its start time is set here.
        meters: Meters, not started.
        sink: Where everything goes as it comes.
        idle_s: How long the machine is measured before, the engine being up [s].
        output_fd: Where the program's standard output goes; None: to this process's own.

    Raises:
        UsageError: If there is no such program.
        MeterError: If a meter cannot start; the program is not started then.
    """
    clock = RunClock(asyncio.get_running_loop(), virtual=False)
    record = replace(record, started_unix_s=clock.started_unix_s)
    sink.begin(record)

    def keep(kind: str, **detail: Json) -> float:
        event = Event(kind=kind, time_s=clock.now_s(), detail=detail)
        sink.event(record.run_id, event)
        return event.time_s

    anchors = [clock.anchor_s()[:2]]
    sink.event(record.run_id, clock.anchor())
    try:
        async with metering(meters, record, clock, sink, LiveState()):
            if idle_s:
                keep("idle_start")
                await asyncio.sleep(idle_s)
                keep("idle_end")
            start_s = keep("program_start")
            exit_code = await _run(command, output_fd)
            end_s = keep("program_end", exit_code=exit_code)
            await asyncio.sleep(AFTER_S)
    except BaseException as error:
        known = isinstance(error, WattbenchError)
        text = str(error) if known else "stopped before its end"
        sink.finish(record.run_id, "failed" if known else "interrupted", text)
        raise
    anchors.append(clock.anchor_s()[:2])
    sink.event(record.run_id, clock.anchor())
    return Wrapped(
        record=record,
        exit_code=exit_code,
        origin_monotonic_s=clock.origin_s,
        anchors_s=tuple(anchors),
        start_s=start_s,
        end_s=end_s,
    )


async def _run(command: Sequence[str], output_fd: int | None) -> int:
    """Run a program to its end, passing signals on to it."""
    loop = asyncio.get_running_loop()
    process: asyncio.subprocess.Process | None = None
    early: list[int] = []

    def forward(number: int) -> None:
        if process is None:
            early.append(number)
        # Ctrl-C at a terminal reaches the program by itself; twice would mean "at once" to many.
        elif process.returncode is None and (number != signal.SIGINT or not _in_foreground()):
            # Not by send_signal: that one takes the exit code of a program that has just ended
            # away from whoever waits for it.
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    for number in FORWARDED:
        loop.add_signal_handler(number, forward, number)
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=output_fd)
        for missed in early:
            forward(missed)
        code = await process.wait()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{command[0]!r} cannot be run: {reason}") from error
    finally:
        for number in FORWARDED:
            loop.remove_signal_handler(number)
    return code if code >= 0 else 128 - code


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to this process, and so to the program."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
