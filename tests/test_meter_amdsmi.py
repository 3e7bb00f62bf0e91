"""The amdsmi meter on recorded drivers: what it reads, what it refuses, what it survives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wattbench.core.energy import CounterTrace, PowerTrace
from wattbench.core.errors import InsufficientCoverage, MeterError
from wattbench.energy import cleaned, measure
from wattbench.meters.amdsmi import AmdsmiMeter, AmdsmiOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter, record_meter

UPDATE_S = 0.001
TIME_S = np.arange(0.0, 20.0, UPDATE_S)


def gpu(watts: float = 500.0, **told: Any) -> dict[str, Any]:
    """A recorded MI300X whose counter is new every millisecond."""
    joules = 1e6 + watts * TIME_S
    trace = {"time_s": TIME_S.tolist(), "energy_joules": joules.tolist()}
    trace["power_watts"] = [watts] * len(TIME_S)
    return {"uuid": "amd-0", "name": "AMD Instinct MI300X", "trace": trace} | told


def meter(tmp_path: Path, *devices: dict[str, Any], **told: Any) -> AmdsmiMeter:
    return AmdsmiMeter(options(tmp_path, *devices, **told), PluginContext(hardware=None, seed=0))


def options(tmp_path: Path, *devices: dict[str, Any], **told: Any) -> AmdsmiOptions:
    path = tmp_path / "amdsmi.json"
    path.write_text(json.dumps({"devices": devices, **told}))
    return AmdsmiOptions(recording=str(path))


def test_counter_and_power_keep_the_contract(tmp_path: Path) -> None:
    traces = check_meter(AmdsmiMeter, options(tmp_path, gpu(), gpu(130.0, uuid="amd-1")))
    assert set(traces) == {"gpu:0", "gpu:0/power", "gpu:1", "gpu:1/power"}
    counter = traces["gpu:0"]
    assert isinstance(counter, CounterTrace)
    span = float(counter.time_s[0]) + 0.1, float(counter.time_s[-1]) - 0.1
    wanted = 500.0 * (span[1] - span[0])
    assert measure(counter, *span).energy_joules == pytest.approx(wanted, rel=0.03)
    assert traces["gpu:1/power"].domain.parent == "gpu:1"


def test_fields_that_a_card_lacks_are_not_read_as_numbers(tmp_path: Path) -> None:
    """UINT32_MAX is no power of four gigawatts."""
    source = meter(tmp_path, gpu(absent_watts=True)).open_source()
    assert [domain.name for domain in source.domains] == ["gpu:0"]


def test_a_card_without_counter_is_read_by_its_power(tmp_path: Path) -> None:
    traces = check_meter(AmdsmiMeter, options(tmp_path, gpu(codes={"energy": 2})), duration_s=0.5)
    trace = traces["gpu:0"]
    assert isinstance(trace, PowerTrace)
    assert (trace.power_watts == 500.0).all()


@pytest.mark.parametrize(
    ("told", "device", "reason", "fix"),
    [
        ({"refused": 34}, {}, "not loaded", "modprobe amdgpu"),
        ({"refused": 10}, {}, "refuses to be read", "render"),
        ({}, {"codes": {"energy": 10}}, "refuses to be read", "render"),
        ({}, {"codes": {"energy": 2, "power": 2}}, "none with power", "/dev/kfd"),
    ],
)
def test_what_cannot_be_read_says_why(
    tmp_path: Path, told: dict[str, Any], device: dict[str, Any], reason: str, fix: str
) -> None:
    with pytest.raises(MeterError, match=reason) as refused:
        meter(tmp_path, gpu(**device), **told).open_source()
    assert fix in (refused.value.fix or "")


def test_without_a_library_it_says_where_to_get_it() -> None:
    """The real import fails on a machine without ROCm."""
    try:
        import amdsmi  # noqa: F401
    except (ImportError, OSError, KeyError, AttributeError):
        context = PluginContext(hardware=None, seed=0)
        with pytest.raises(MeterError, match="no AMD SMI library"):
            AmdsmiMeter(AmdsmiOptions(), context).open_source()


def test_a_lost_card_is_a_failed_read_and_the_last_one_a_failed_meter(tmp_path: Path) -> None:
    two = options(tmp_path, gpu(lost_after_s=1.8), gpu(uuid="amd-1"))
    lost = check_meter(AmdsmiMeter, two, duration_s=1.2)["gpu:0"]
    assert isinstance(lost, CounterTrace)
    assert np.isnan(lost.energy_joules[-1])
    with pytest.raises(MeterError, match="status 30"):
        record_meter(meter(tmp_path, gpu(lost_after_s=1.6)), 1.0)


def test_a_reset_has_no_energy(tmp_path: Path) -> None:
    device = gpu()
    joules = np.array(device["trace"]["energy_joules"])
    joules[1800:] -= joules[1800]
    device["trace"]["energy_joules"] = joules.tolist()
    trace = check_meter(AmdsmiMeter, options(tmp_path, device), duration_s=1.2)["gpu:0"]
    with pytest.raises(InsufficientCoverage) as refused:
        measure(cleaned(trace), trace.time_s[0] + 0.1, trace.time_s[-1] - 0.1)
    assert refused.value.reason == "counter_reset"


def test_events_tell_limit_and_processes(tmp_path: Path) -> None:
    device = gpu(power_limit_watts=750, process_ids=[9])
    events = record_meter(meter(tmp_path, device), 0.2).events
    details = {event.kind: event.detail for event in events}
    assert details["device"]["power_limit_watts"] == 750
    assert details["device_processes"] == {"domain": "gpu:0", "process_ids": [9]}
