"""The meter for a log that another program writes, with a thread as the other program."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from wattbench.backends.emulated import EmulatedBackend, EmulatedOptions
from wattbench.core.energy import CounterTrace, PowerTrace
from wattbench.core.errors import MeterError, UsageError
from wattbench.hardware import load_profile
from wattbench.meters.external import ExternalMeter, ExternalOptions
from wattbench.plugins import PluginContext
from wattbench.testing import MemorySink, check_meter

Line = Callable[[float], str]


@contextmanager
def writer(
    path: Path, header: str, line: Line, *, late_s: float = 0.0
) -> Iterator[threading.Event]:
    """A program that writes a line every 50 ms, its first after a while, until told to stop."""
    stopped = threading.Event()

    def write() -> None:
        time.sleep(late_s)
        with path.open("w", buffering=1) as log:
            log.write(header)
            while not stopped.wait(0.05):
                log.write(line(time.time()))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield stopped
    finally:
        stopped.set()
        thread.join()


def ptdaemon_line(unix_s: float) -> str:
    whole, thousandths = divmod(int(unix_s * 1000), 1000)
    stamp = time.strftime("%m-%d-%Y %H:%M:%S", time.gmtime(whole))
    return f"Time,{stamp}.{thousandths:03d},Watts,250.5,Volts,230,Amps,1.1,PF,0.99,Mark,x\n"


def test_it_keeps_the_contract_and_waits_for_the_log(tmp_path: Path) -> None:
    """The file comes a moment later; power is that of the lines, node and alternating current."""
    path = tmp_path / "ptd.log"
    options = ExternalOptions(file=str(path), format="ptdaemon", utc_offset_hours=0.0)
    with writer(path, "", ptdaemon_line, late_s=0.4):
        (trace,) = check_meter(ExternalMeter, options).values()
    assert isinstance(trace, PowerTrace)
    assert set(trace.power_watts) == {250.5}
    assert (trace.domain.boundary, trace.domain.current) == ("node", "ac")
    assert trace.domain.clock_half_width_s == pytest.approx(0.5 + 0.0005 + 0.05)


def test_a_counter_in_csv_with_a_clock_that_is_off(tmp_path: Path) -> None:
    """An hour of offset is taken out; name, boundary and half-width are the user's."""
    path = tmp_path / "plug.csv"
    options = ExternalOptions(
        file=str(path),
        name="plug",
        boundary="rack",
        offset_s=3600.0,
        clock_half_width_s=0.2,
    )
    origin_s = time.time()

    def line(unix_s: float) -> str:
        return f"{unix_s + 3600.0:.6f},{100.0 * (unix_s - origin_s):.4f}\n"

    with writer(path, "time_unix_s,energy_joules\n", line):
        traces = check_meter(ExternalMeter, options)
    trace = traces["plug"]
    assert isinstance(trace, CounterTrace)
    assert np.ptp(trace.energy_joules) / np.ptp(trace.time_s) == pytest.approx(100.0, rel=1e-3)
    domain = trace.domain
    assert (domain.kind, domain.boundary, domain.clock_half_width_s) == ("counter", "rack", 0.2)


def test_a_log_that_stops_is_a_failed_meter(tmp_path: Path) -> None:
    """What it had is kept, and the error says how much is missing."""
    path = tmp_path / "plug.csv"
    options = ExternalOptions(file=str(path))

    async def measure(stopped: threading.Event) -> MemorySink:
        sink, meter = MemorySink(), ExternalMeter(options, PluginContext(hardware=None, seed=0))
        await meter.start(sink)
        await asyncio.sleep(0.3)
        stopped.set()
        await asyncio.sleep(0.5)
        with pytest.raises(MeterError, match="before the run does"):
            await meter.stop()
        return sink

    with writer(path, "time_unix_s,power_watts\n", lambda s: f"{s:.6f},7\n") as stopped:
        sink = asyncio.run(measure(stopped))
    assert set(sink.values["power_watts"]) == {7.0}


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (None, {}, "cannot be read"),
        ("time_unix_s,power_watts\n1,much\n", {}, "line 2"),
        ("time_s,power_watts\n1,2\n", {}, "time_unix_s"),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, text: str | None, options: dict[str, str], reason: str
) -> None:
    path = tmp_path / "plug.csv"
    if text is not None:
        path.write_text(text)

    async def start() -> None:
        meter = ExternalMeter(ExternalOptions(file=str(path)), PluginContext(hardware=None, seed=0))
        await meter.start(MemorySink())

    with pytest.raises(MeterError, match=reason):
        asyncio.run(start())


def test_simulated_time_has_no_log() -> None:
    """A log in real time cannot tell about a run in virtual time."""
    context = PluginContext(hardware=load_profile("h100-sxm"), seed=1)
    backend = EmulatedBackend(EmulatedOptions(), context)
    with pytest.raises(UsageError, match="time=real"):
        ExternalMeter(
            ExternalOptions(file="log.csv"), PluginContext(hardware=None, seed=1, backend=backend)
        )
