"""The zeus meter on recorded GPUs: the counters it hands on, and the silence it does not take."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributions import doctor, install

from wattbench.core.energy import CounterTrace
from wattbench.core.errors import InsufficientCoverage, MeterError, UsageError
from wattbench.energy import cleaned, measure
from wattbench.meters.zeus import ZeusMeter, ZeusOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter, record_meter

TIME_S = np.arange(0.0, 60.0, 0.1)


def gpu(watts: float = 300.0, **told: Any) -> dict[str, Any]:
    """A recorded H100 at a steady power, the case in which zeus' own integral is 0."""
    trace = {"time_s": TIME_S.tolist(), "energy_joules": (5e6 + watts * TIME_S).tolist()}
    return {"name": "NVIDIA H100 80GB HBM3", "trace": trace} | told


def recording(tmp_path: Path, *devices: dict[str, Any], **told: Any) -> ZeusOptions:
    path = tmp_path / "zeus.json"
    path.write_text(json.dumps({"version": "0.16.0", "devices": devices, **told}))
    return ZeusOptions(recording=str(path))


def meter(options: ZeusOptions) -> ZeusMeter:
    return ZeusMeter(options, PluginContext(hardware=None, seed=0))


def test_counters_of_two_gpus_keep_the_contract(tmp_path: Path) -> None:
    options = recording(tmp_path, gpu(uuid="GPU-a", mig=False), gpu(90.0))
    traces = check_meter(ZeusMeter, options, duration_s=1.6)
    assert list(traces) == ["gpu:0", "gpu:1"]
    for name, watts in (("gpu:0", 300.0), ("gpu:1", 90.0)):
        trace = traces[name]
        assert isinstance(trace, CounterTrace)
        start_s = float(trace.time_s[0]) + 0.3
        found = measure(trace, start_s, start_s + 1.2).energy_joules
        assert found == pytest.approx(1.2 * watts, rel=0.12)
    domain = traces["gpu:0"].domain
    assert (domain.kind, domain.boundary, domain.devices) == ("counter", "board", ("GPU-a",))
    assert "by zeus 0.16.0" in domain.method
    assert (domain.gain_half_width_fraction, domain.offset_half_width_watts) == (0.07, 8.0)
    assert traces["gpu:1"].domain.devices == ("gpu:1",)


def test_the_number_is_the_drivers(tmp_path: Path) -> None:
    """With CUDA_VISIBLE_DEVICES=2, the first GPU of zeus is gpu:2, as nvml calls it."""
    (domain,) = meter(recording(tmp_path, gpu(gpu_index=2))).open_source().domains
    assert domain.name == "gpu:2"


def test_a_module_is_called_one(tmp_path: Path) -> None:
    (domain,) = meter(recording(tmp_path, gpu(name="NVIDIA GH200 480GB"))).open_source().domains
    assert (domain.name, domain.boundary) == ("module:0", "module")


def test_the_frozen_package_is_read_by_its_older_names(tmp_path: Path) -> None:
    options = recording(tmp_path, gpu(), distribution="zeus-ml", version="0.11.0.post1")
    source = meter(options).open_source()
    assert "zeus-ml 0.11.0.post1, the frozen name of zeus" in source.domains[0].method
    (reading,) = source.read(lambda: 0.0)
    assert reading.value >= 5e6


@pytest.mark.parametrize(
    ("devices", "reason", "fix"),
    [
        ([], "shows no GPU", "--gpus all"),
        ([gpu(supported=False)], "cannot read the energy of GPU 0", "nvml"),
        ([gpu(), gpu(supported=False)], "cannot read the energy of GPU 1", "nvml"),
        ([gpu(uuid="GPU-a", mig=True)], "GPU-a.*MIG mode", "mig=whole"),
        ([gpu(trace={"time_s": [0, 9], "energy_joules": [0, 0]})], "gives 0 J", "nvml"),
    ],
)
def test_what_would_be_a_silent_zero_is_refused(
    tmp_path: Path, devices: list[dict[str, Any]], reason: str, fix: str
) -> None:
    with pytest.raises(MeterError, match=reason) as refused:
        meter(recording(tmp_path, *devices)).open_source()
    assert fix in (refused.value.fix or "")


def test_a_lost_gpu_is_a_failed_read_beside_others(tmp_path: Path) -> None:
    source = meter(recording(tmp_path, gpu(lost_after_s=0.2), gpu())).open_source()
    time.sleep(0.3)
    lost, other = source.read(lambda: 0.0)
    assert math.isnan(lost.value)
    assert other.value >= 5e6


def test_the_last_gpu_lost_is_a_failed_meter(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="no energy any more: GPU is lost"):
        record_meter(meter(recording(tmp_path, gpu(lost_after_s=1.7))), 0.6)


def test_a_driver_reload_resets_the_counter(tmp_path: Path) -> None:
    device = gpu()
    joules = np.array(device["trace"]["energy_joules"])
    joules[20:] -= joules[20] - 1.0
    device["trace"]["energy_joules"] = joules.tolist()
    trace = check_meter(ZeusMeter, recording(tmp_path, device), duration_s=1.2)["gpu:0"]
    with pytest.raises(InsufficientCoverage) as refused:
        measure(cleaned(trace), trace.time_s[0] + 0.1, trace.time_s[-1] - 0.1)
    assert refused.value.reason == "counter_reset"


@pytest.mark.parametrize("text", ["{", '{"devices": [{"name": "x"}]}', '{"devices": 3}'])
def test_a_file_that_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.json: is no recording"):
        meter(ZeusOptions(recording=str(path))).open_source()


PLAYED = """
from pathlib import Path
from wattbench.meters.zeus_recording import RecordedZeusGpus

def get_gpus():
    return RecordedZeusGpus.load(Path({path!r}))
"""


@pytest.mark.parametrize(
    ("error", "reason", "fix"),
    [
        ("RuntimeError('NVML unavailable')", "zeus finds no GPU: NVML unavailable", "--gpus all"),
        ("ImportError('no httpx')", "zeus cannot be imported: no httpx", "wattbench[zeus]"),
        ("ImportError('Unofficial pynvml')", "zeus cannot be imported: Unof", "nvidia-ml-py"),
    ],
)
def test_an_installed_package_that_shows_no_gpu(
    tmp_path: Path, error: str, reason: str, fix: str
) -> None:
    calls = f"def get_gpus():\n    raise {error}\n"
    modules = {"zeus/__init__.py": "", "zeus/device/__init__.py": calls}
    (row,) = doctor("zeus", install(tmp_path, "zeus", "0.16.0", modules))["meters"]
    assert row["usable"] is False
    assert row["reason"].startswith(reason)
    assert fix in row["fix"]


def test_two_packages_of_one_module_are_refused(tmp_path: Path) -> None:
    places = [install(tmp_path / n, n, v) for n, v in (("zeus", "0.16.0"), ("zeus-ml", "0.11.0"))]
    report = doctor("zeus", *places)
    (row,) = report["meters"]
    assert "both installed" in row["reason"]
    assert row["fix"] == "pip uninstall -y zeus zeus-ml && pip install zeus"
    assert row["fix"] == report["module_clashes"][0]["fix"]


def test_the_doctor_advises_one_of_two_that_measure_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    specs = [f"zeus,recording={recording(f, gpu()).recording}" for f in (first, second)]
    (advice,) = doctor(specs[0], more=["--meter", specs[1]])["advice"]
    assert advice.endswith(f"--meter {specs[0]}")
