"""The NVML meter on recorded drivers: what it reads, what it refuses, what it survives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattbench.core.energy import CounterTrace, PowerTrace
from wattbench.core.errors import InsufficientCoverage, MeterError, UsageError
from wattbench.energy import cleaned, measure
from wattbench.meters.nvml import NvmlMeter, NvmlOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter, record_meter

UPDATE_S = 0.1
TIME_S = np.arange(0.0, 60.0, UPDATE_S)


def gpu(watts: float = 300.0, **told: Any) -> dict[str, Any]:
    """A recorded H100 at a power that wavers by 10 %."""
    power = watts * (1 + 0.1 * np.sin(TIME_S * 3.0))
    joules = 5e6 + np.concatenate([[0.0], np.cumsum(power[1:]) * UPDATE_S])
    trace = {"time_s": TIME_S, "energy_joules": joules}
    trace |= {"instant_watts": power, "average_watts": power}
    device = {"uuid": "GPU-0", "name": "NVIDIA H100 80GB HBM3", "power_limit_watts": 700}
    device |= {"trace": {name: np.asarray(c).tolist() for name, c in trace.items()}} | told
    return device


def recording(tmp_path: Path, *devices: dict[str, Any], **told: Any) -> str:
    path = tmp_path / "nvml.json"
    path.write_text(json.dumps({"driver": "550.54.15", "devices": devices, **told}))
    return str(path)


def meter(**options: Any) -> NvmlMeter:
    return NvmlMeter(NvmlOptions(**options), PluginContext(hardware=None, seed=0))


def opened(path: str, **options: Any) -> list[str]:
    """Names of the domains that the meter declares."""
    options = {"recording": path} | options
    return [d.name for d in meter(**options).open_source().domains]


def test_counter_and_power_agree_and_keep_the_contract(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(), gpu(90.0, uuid="GPU-1"))
    traces = check_meter(NvmlMeter, NvmlOptions(recording=path), duration_s=2.5)
    assert set(traces) == {
        f"gpu:{n}{part}" for n in (0, 1) for part in ("", "/instant", "/average")
    }
    for index, watts in ((0, 300.0), (1, 90.0)):
        counter, power = traces[f"gpu:{index}"], traces[f"gpu:{index}/instant"]
        assert isinstance(counter, CounterTrace)
        assert isinstance(power, PowerTrace)
        assert counter.domain.devices == (f"GPU-{index}",)
        assert counter.domain.update_period_s == pytest.approx(UPDATE_S, rel=0.3)
        start_s = float(counter.time_s[0]) + 0.3
        found = measure(counter, start_s, start_s + 2.0)
        assert found.energy_joules == pytest.approx(2.0 * watts, rel=0.12)
        assert power.domain.parent == f"gpu:{index}"
        # The instant field looks at a quarter of each period, by the prior of its family.
        assert power.domain.coverage_fraction == 0.25
        assert power.domain.averaging_window_s == 0.025
        again = measure(power, start_s, start_s + 2.0).energy_joules
        assert again == pytest.approx(found.energy_joules, rel=0.05)


def test_stamps_of_the_driver_are_the_samples_times(tmp_path: Path) -> None:
    """One sample per update, and none twice, when the driver stamps its updates."""
    options = NvmlOptions(recording=recording(tmp_path, gpu()), samples=True)
    traces = check_meter(NvmlMeter, options, duration_s=2.0)
    for name in ("gpu:0/instant", "gpu:0/samples"):
        trace = traces[name]
        assert trace.domain.stamped_by == "sensor"
        assert np.diff(trace.time_s).min() > 0.9 * UPDATE_S
    # The buffer misses no update, whoever was late in reading it.
    assert np.diff(traces["gpu:0/samples"].time_s).max() < 1.1 * UPDATE_S


def test_stamps_of_reads_are_not_taken_for_updates(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(stamps="read"))
    trace = check_meter(NvmlMeter, NvmlOptions(recording=path))["gpu:0/instant"]
    assert trace.domain.stamped_by == "reader"


def test_a_gpu_without_counter_is_read_by_its_power(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(codes={"energy": 3}))
    trace = check_meter(NvmlMeter, NvmlOptions(recording=path))["gpu:0"]
    assert isinstance(trace, PowerTrace)
    assert trace.domain.kind == "integrated"
    assert opened(recording(tmp_path, gpu(codes={"energy": 3, "instant": 3, "average": 3}))) == [
        "gpu:0"
    ]


def test_a_module_contains_its_gpu(tmp_path: Path) -> None:
    """On a Grace-Hopper module the counter is the module's, and the GPU's power is part of it."""
    device = gpu(600.0, name="NVIDIA GH200 480GB")
    device["trace"]["module_watts"] = device["trace"]["instant_watts"]
    device["trace"]["memory_watts"] = [40.0] * len(TIME_S)
    path = recording(tmp_path, device)
    domains = {d.name: d for d in _source(path).domains}
    assert domains["module:0"].boundary == "module"
    assert domains["module:0"].quantity == "energy_counter"
    assert domains["gpu:0"].parent == "module:0"
    assert domains["gpu:0/memory"].parent == "module:0"


def _source(path: str) -> Any:
    return meter(recording=path).open_source()


@pytest.mark.parametrize(
    ("told", "device", "reason", "fix"),
    [
        ({"refused": 12}, {}, "no NVIDIA driver", "--gpus all"),
        ({"refused": 9}, {}, "not loaded", "modprobe nvidia"),
        ({"refused": 4}, {}, "refuses to be read", "video"),
        ({}, {"codes": {"energy": 4}}, "refuses to be read", "video"),
        ({}, {"mig": True}, "MIG mode", "mig=whole"),
        (
            {},
            {"codes": {"energy": 3, "instant": 3, "average": 3, "draw": 3}},
            "no power sensor",
            "",
        ),
    ],
)
def test_what_cannot_be_read_says_why(
    tmp_path: Path, told: dict[str, Any], device: dict[str, Any], reason: str, fix: str
) -> None:
    with pytest.raises(MeterError, match=reason) as refused:
        opened(recording(tmp_path, gpu(**device), **told))
    assert fix in (refused.value.fix or "")


def test_all_slices_together_if_asked_for(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(mig=True))
    (first, *_) = meter(recording=path, mig="whole").open_source().domains
    assert "all MIG slices" in first.method


def test_no_gpu_is_no_meter(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="shows no GPU"):
        opened(recording(tmp_path))


def test_a_lost_gpu_is_a_failed_read_beside_others(tmp_path: Path) -> None:
    """One of two GPUs falls off the bus: its reads are NaN, the other's energy is whole."""
    path = recording(tmp_path, gpu(lost_after_s=2.2), gpu(uuid="GPU-1"))
    traces = check_meter(NvmlMeter, NvmlOptions(recording=path), duration_s=2.0)
    lost, other = traces["gpu:0"], traces["gpu:1"]
    assert isinstance(lost, CounterTrace)
    assert isinstance(other, CounterTrace)
    assert np.isnan(lost.energy_joules[-1])
    assert (lost.energy_joules[np.isfinite(lost.energy_joules)] > 0).all()
    assert np.isfinite(other.energy_joules).all()


def test_the_last_gpu_lost_is_a_failed_meter(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(lost_after_s=2.0))
    with pytest.raises(MeterError, match="lost to the driver"):
        record_meter(meter(recording=path), 1.5)


def test_a_driver_reload_resets_the_counter(tmp_path: Path) -> None:
    device = gpu()
    joules = np.array(device["trace"]["energy_joules"])
    joules[28:] -= joules[28]
    device["trace"]["energy_joules"] = joules.tolist()
    path = recording(tmp_path, device)
    trace = check_meter(NvmlMeter, NvmlOptions(recording=path), duration_s=2.5)["gpu:0"]
    with pytest.raises(InsufficientCoverage) as refused:
        measure(cleaned(trace), trace.time_s[0] + 0.1, trace.time_s[-1] - 0.1)
    assert refused.value.reason == "counter_reset"


def test_events_tell_the_device_its_processes_and_throttling(tmp_path: Path) -> None:
    path = recording(tmp_path, gpu(process_ids=[7, 3], throttle_reasons=0x4, clock_hz=1.2e9))
    events = record_meter(meter(recording=path), 0.2).events
    details = {event.kind: event.detail for event in events}
    assert details["device"]["power_limit_watts"] == 700
    assert details["device"]["driver"] == "550.54.15"
    assert details["device_processes"] == {"domain": "gpu:0", "process_ids": [3, 7]}
    assert details["throttled"]["reasons"] == "0x4"
    assert details["throttled"]["clock_hz"] == 1.2e9


@pytest.mark.parametrize("text", ["{", '{"devices": [{"uuid": "x"}]}', '{"devices": 3}'])
def test_a_file_that_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.json: is no recording"):
        opened(str(path))
