"""Apple silicon: a record replayed through the calls of the library, and what is in the way."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattbench.core.energy import CounterTrace
from wattbench.core.errors import InsufficientCoverage, MeterError
from wattbench.energy import measure
from wattbench.meters.apple import AppleMeter, AppleOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter

CONTEXT = PluginContext(hardware=None, seed=0)


def record(path: Path, length_s: float = 30.0, **fields: object) -> AppleOptions:
    """Write 20 samples a second: a start [mJ] and a power [W] per field, or a value that stands."""
    samples = []
    for time_s in np.arange(0, length_s, 0.05).tolist():
        sample: dict[str, object] = {"time_s": time_s}
        for name, given in fields.items():
            moves = isinstance(given, tuple)
            sample[name] = round(given[0] + 1000 * given[1] * time_s) if moves else given  # type: ignore[index]
        samples.append(sample)
    path.write_text(json.dumps({"chip": "Apple M2", "samples": samples}))
    return AppleOptions(recording=str(path))


M2: dict[str, Any] = {
    "cpu_total_mj": (5000.0, 8.0),
    "gpu_mj": (9000.0, 20.0),
    "dram_mj": (100.0, 2.0),
}


def test_known_power_of_the_whole_though_a_part_is_idle(tmp_path: Path) -> None:
    """The headline is the sum; a neural engine that was never used is part of it, at 0."""
    options = record(tmp_path / "m2.json", **M2, ane_mj=0, gpu_sram_mj=None)
    traces = check_meter(AppleMeter, options, duration_s=2.0)
    assert set(traces) == {"soc:0", "cpu:0", "gpu:0", "ane:0", "dram:0"}
    assert {name: t.domain.parent for name, t in traces.items() if t.domain.parent is None} == {
        "soc:0": None
    }
    assert traces["soc:0"].domain.devices == ("Apple M2",)
    assert traces["gpu:0"].domain.boundary == "chip"
    for name, watts in (("soc:0", 30.0), ("gpu:0", 20.0)):
        start_s, end_s = traces[name].time_s[0] + 0.2, traces[name].time_s[-1] - 0.2
        found = measure(traces[name], start_s, end_s).energy_joules
        assert found == pytest.approx(watts * (end_s - start_s), rel=0.1)


def test_a_chip_without_a_counter_has_no_such_domain(tmp_path: Path) -> None:
    options = record(tmp_path / "m1.json", cpu_total_mj=1, gpu_mj=2, dram_mj=None)
    source = AppleMeter(options, CONTEXT).open_source()
    assert [domain.name for domain in source.domains] == ["soc:0", "cpu:0", "gpu:0"]
    assert [reading.value for reading in source.read(lambda: 0.0)] == [0.001, 0.002, 0.003]


def test_a_counter_that_disappears_has_no_value(tmp_path: Path) -> None:
    """A sum of fewer parts would be another counter: it has no value either."""
    path = tmp_path / "m2.json"
    whole = {"time_s": 0.0, "cpu_total_mj": 1, "gpu_mj": 2}
    samples = [whole, {"time_s": 0.3, "cpu_total_mj": 1}, {"time_s": 60.0}]
    path.write_text(json.dumps({"samples": samples}))
    source = AppleMeter(AppleOptions(recording=str(path)), CONTEXT).open_source()
    assert len(source.domains) == 3
    time.sleep(0.4)
    assert [reading.domain for reading in source.read(lambda: 0.0)] == ["cpu:0"]


def test_a_library_that_fails_half_way_ends_the_run(tmp_path: Path) -> None:
    """What was read stays; nothing is read as 0."""
    options = record(tmp_path / "short.json", length_s=2.6, **M2)
    traces = check_meter(AppleMeter, options, duration_s=2.6)
    for trace in traces.values():
        assert isinstance(trace, CounterTrace)
        assert (trace.energy_joules > 0).all()


def test_a_reset_has_no_energy(tmp_path: Path) -> None:
    path = tmp_path / "reset.json"
    options = record(path, **M2)
    written = json.loads(path.read_text())
    for sample in written["samples"]:
        if sample["time_s"] > 2.0:
            sample["gpu_mj"] -= 40_000
    path.write_text(json.dumps(written))
    trace = check_meter(AppleMeter, options, duration_s=1.5)["gpu:0"]
    with pytest.raises(InsufficientCoverage) as refused:
        measure(trace, trace.time_s[0] + 0.1, trace.time_s[-1] - 0.1)
    assert refused.value.reason == "counter_reset"


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_elsewhere_it_says_that_this_is_no_mac() -> None:
    with pytest.raises(MeterError, match="not a Mac"):
        AppleMeter(AppleOptions(), CONTEXT).open_source()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cannot be read"),
        ("[]", "no JSON object"),
        ("{}", "no samples"),
        ('{"samples": [{"time_s": 0}, {"time_s": 9}]}', "knows no energy counter"),
    ],
)
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(MeterError, match=complaint):
        AppleMeter(AppleOptions(recording=str(path)), CONTEXT).open_source()
    with pytest.raises(MeterError, match="cannot be read"):
        AppleMeter(AppleOptions(recording=str(path) + "x"), CONTEXT).open_source()
