"""The codecarbon meter: modelled whatever it says, wide, and silent only in its log."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattbench.core.energy import CounterTrace
from wattbench.core.errors import MeterError, UsageError
from wattbench.energy import measure
from wattbench.meters.codecarbon import CodecarbonMeter, CodecarbonOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter, record_meter

TIME_S = np.arange(0.0, 30.0, 0.05)


def recording(tmp_path: Path, cpu_watts: float = 8.0, **told: Any) -> CodecarbonOptions:
    """What it said of a Xeon that it does not know: 8 W, and 20 W for the memory."""
    trace = {
        "time_s": TIME_S.tolist(),
        "cpu_energy_kwh": ((0.1 + TIME_S) * cpu_watts / 3.6e6).tolist(),
        "ram_energy_kwh": ((0.1 + TIME_S) * told.get("ram_watts", 20.0) / 3.6e6).tolist(),
    }
    path = tmp_path / "codecarbon.json"
    told = {"version": "3.3.2", "cpu_model": "Intel Xeon", "trace": trace} | told
    path.write_text(json.dumps(told))
    return CodecarbonOptions(recording=str(path))


def meter(options: CodecarbonOptions) -> CodecarbonMeter:
    return CodecarbonMeter(options, PluginContext(hardware=None, seed=0))


def test_two_modelled_domains_keep_the_contract(tmp_path: Path) -> None:
    options = recording(tmp_path, hardware=["RAM()", "CPU(Cpu Load)"])
    traces = check_meter(CodecarbonMeter, options, duration_s=2.0)
    assert list(traces) == ["cpu_package:0", "ram:0"]
    for name, watts in (("cpu_package:0", 8.0), ("ram:0", 20.0)):
        trace = traces[name]
        assert trace.domain.kind == "modelled"
        assert trace.domain.parent is None
        start_s, end_s = float(trace.time_s[0]) + 0.1, float(trace.time_s[-1]) - 0.1
        found = measure(trace, start_s, end_s)
        assert found.energy_joules == pytest.approx(watts * (end_s - start_s), rel=0.1)
        # The memory's constant may be all wrong; the CPU's two thirds.
        wide = sum(found.uniform_half_widths_joules) / found.energy_joules
        assert wide == pytest.approx(0.67 if watts == 8.0 else 1.0, rel=0.1)
    assert traces["cpu_package:0"].domain.devices == ("Intel Xeon",)
    assert "no measurement" in traces["cpu_package:0"].domain.method
    assert "a constant 20 W" in traces["ram:0"].domain.method


def test_rapl_behind_it_is_said_and_stays_modelled(tmp_path: Path) -> None:
    options = recording(tmp_path, hardware=["GPU()", "RAM()", "CPU(Intel Rapl)"])
    domain = meter(options).open_source().domains[0]
    assert domain.kind == "modelled"
    assert "it reads RAPL, as --meter rapl does better" in domain.method


def test_a_tracker_that_does_not_tell_how(tmp_path: Path) -> None:
    options = recording(tmp_path, ram_watts=0.0)
    (domain,) = meter(options).open_source().domains
    assert domain.method == "codecarbon 3.3.2, which does not tell how"


def test_an_error_that_it_swallows_is_no_zero(tmp_path: Path) -> None:
    """Half-way it hands out nothing more: what was read stays, and the meter has failed."""
    options = recording(tmp_path, fails_after_s=1.0)
    traces = check_meter(CodecarbonMeter, options, duration_s=1.5)
    for trace in traces.values():
        assert isinstance(trace, CounterTrace)
        assert (trace.energy_joules > 0).all()
    with pytest.raises(MeterError, match=r"codecarbon gives no energy.*cpu-load"):
        record_meter(meter(options), 1.2)


@pytest.mark.parametrize(
    ("told", "reason"),
    [({"fails_after_s": 0.001}, "gives no energy"), ({"cpu_watts": 0.0}, "no energy of the CPU")],
)
def test_no_energy_at_all_is_refused(tmp_path: Path, told: dict[str, Any], reason: str) -> None:
    with pytest.raises(MeterError, match=reason) as refused:
        meter(recording(tmp_path, **told)).open_source()
    assert "--meter cpu-load" in (refused.value.fix or "")


@pytest.mark.parametrize(
    "text", ["[]", '{"trace": {"time_s": []}}', '{"trace": {"time_s": [0], "cpu_energy_kwh": []}}']
)
def test_a_file_that_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.json: is no recording"):
        meter(CodecarbonOptions(recording=str(path))).open_source()


def test_the_real_one(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It keeps to what it is told, says nothing, and leaves threads and signals as they were."""
    pytest.importorskip("codecarbon")
    for name, value in {"PUE": "3", "FORCE_RAM_POWER": "77", "OUTPUT_DIR": "/nowhere"}.items():
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    traces = check_meter(CodecarbonMeter, CodecarbonOptions(), duration_s=1.0)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert {trace.domain.kind for trace in traces.values()} == {"modelled"}
    ram = traces["ram:0"]
    assert ram.domain.offset_half_width_watts != 77
    found = measure(ram, float(ram.time_s[0]), float(ram.time_s[-1]))
    watts = found.energy_joules / found.duration_s
    assert watts == pytest.approx(ram.domain.offset_half_width_watts, rel=0.3)
    assert capfd.readouterr() == ("", "")
