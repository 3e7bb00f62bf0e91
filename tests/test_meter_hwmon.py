"""Driver files: what each machine's channels mean, and what is in the way."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from sysfs_tree import plant, refused_to_read, running, write

from wattbench.core.energy import CounterTrace, EnergyDomain, PowerTrace
from wattbench.core.errors import InsufficientCoverage, MeterError
from wattbench.energy import measure
from wattbench.meters.hwmon import HwmonMeter, HwmonOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter

CONTEXT = PluginContext(hardware=None, seed=0)


def driver(root: Path, number: int, name: str, device: object = "", **files: object) -> Path:
    """Plant one driver; ``device`` is what it drives."""
    folder = plant(root / f"sys/class/hwmon/hwmon{number}", {"name": name, **files})
    if device:
        driven = root / "sys/devices" / str(device)
        driven.mkdir(parents=True, exist_ok=True)
        (folder / "device").symlink_to(driven)
    return folder


def battery(root: Path, **files: object) -> Path:
    known = {"type": "Battery", "status": "Discharging"}
    return plant(root / "sys/class/power_supply/BAT0", known | files)


def domains(root: Path, **options: str) -> dict[str, EnergyDomain]:
    """What the meter would measure."""
    source = HwmonMeter(HwmonOptions(root=str(root), **options), CONTEXT).open_source()  # type: ignore[arg-type]
    return {domain.name: domain for domain in source.domains}


def values(root: Path, **options: str) -> dict[str, float]:
    """What it reads once."""
    source = HwmonMeter(HwmonOptions(root=str(root), **options), CONTEXT).open_source()  # type: ignore[arg-type]
    return {reading.domain: reading.value for reading in source.read(lambda: 0.0)}


def parents(found: dict[str, EnergyDomain]) -> dict[str, str | None]:
    return {name: domain.parent for name, domain in found.items()}


def test_intel_arc(tmp_path: Path) -> None:
    """One counter per card, in the order of the drivers; a tile is part of its card."""
    driver(tmp_path, 2, "i915", "0000:03:00.0", energy1_input=2_500_000, power1_max=190_000_000)
    driver(tmp_path, 10, "i915", "0000:07:00.0", energy1_input=1)
    driver(tmp_path, 3, "i915_gt0", "0000:03:00.0", energy1_input=2_000_000)
    driver(tmp_path, 0, "nvme", temp1_input=40_000)
    found = domains(tmp_path)
    assert parents(found) == {"gpu:0": None, "gpu:0/i915_gt0": "gpu:0", "gpu:1": None}
    assert found["gpu:0"].devices == ("0000:03:00.0",)
    assert found["gpu:0/i915_gt0"].devices == ("0000:03:00.0/i915_gt0",)
    assert (found["gpu:0"].quantity, found["gpu:0"].kind) == ("energy_counter", "counter")
    assert found["gpu:0"].boundary == "chip"
    assert values(tmp_path) == {"gpu:0": 2.5, "gpu:0/i915_gt0": 2.0, "gpu:1": 1e-6}


def test_xe(tmp_path: Path) -> None:
    """The card contains the package; an old kernel shows the package only, without a label."""
    labelled = {"energy1_label": "card", "energy2_label": "pkg"}
    driver(tmp_path, 0, "xe", "0000:03:00.0", energy1_input=9, energy2_input=7, **labelled)
    driver(tmp_path, 1, "xe", "0000:04:00.0", energy1_input=9)
    found = domains(tmp_path)
    assert parents(found) == {"gpu:0": None, "gpu:0/pkg": "gpu:0", "gpu:1/pkg": None}
    assert found["gpu:0"].boundary == "board"
    assert found["gpu:0/pkg"].boundary == found["gpu:1/pkg"].boundary == "chip"


def test_grace(tmp_path: Path) -> None:
    """Names stand in oem_info; the module contains Grace, and Grace its CPU and its IO."""
    watts = {"Module": 500, "Grace": 200, "CPU": 120, "SysIO": 10}
    for number, (rail, power) in enumerate(watts.items()):
        device = plant(
            tmp_path / f"sys/devices/ACPI000D:0{number}",
            {
                "power1_average": power * 1_000_000,
                "power1_average_interval": 50,
                "power1_oem_info": f"{rail} Power Socket 0",
            },
        )
        driver(tmp_path, number, "power_meter", device.name)
    found = domains(tmp_path)
    assert parents(found) == {
        "module:0": None,
        "grace:0": "module:0",
        "cpu:0": "grace:0",
        "sysio:0": "grace:0",
    }
    assert found["module:0"].boundary == "module"
    assert found["cpu:0"].averaging_window_s == 0.05
    assert found["cpu:0"].coverage_fraction == 1.0
    assert values(tmp_path)["grace:0"] == 200.0
    shutil.rmtree(tmp_path / "sys/class/hwmon/hwmon1")
    assert parents(domains(tmp_path))["cpu:0"] == "module:0"


def test_a_server_with_an_acpi_meter(tmp_path: Path) -> None:
    driver(tmp_path, 0, "power_meter", power1_average=300_000_000, power1_average_interval=1000)
    (node,) = domains(tmp_path).values()
    assert (node.name, node.boundary, node.averaging_window_s) == ("node:0", "node", 1.0)


def rails(*names: str) -> dict[str, object]:
    """Channels of an INA3221, 5 V and 1000 mA each."""
    files: dict[str, object] = {"in4_input": 40, "curr4_input": 3000, "in4_label": "sum"}
    for number, name in enumerate(names, start=1):
        files |= {f"in{number}_label": name, f"in{number}_input": 5000}
        files |= {f"curr{number}_input": 1000}
    return files


def test_jetson_orin_nx(tmp_path: Path) -> None:
    """Current times voltage per rail; the input rail contains the others."""
    driver(tmp_path, 0, "ina3221", **rails("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"))
    found = domains(tmp_path)
    assert parents(found) == {
        "module:0": None,
        "rail:VDD_CPU_GPU_CV": "module:0",
        "rail:VDD_SOC": "module:0",
    }
    assert {domain.boundary for domain in found.values()} == {"module"}
    assert values(tmp_path) == dict.fromkeys(found, 5.0)


def test_jetson_agx_orin(tmp_path: Path) -> None:
    """No input rail: three rails add, the memory hangs on one of them, unused channels are out."""
    driver(tmp_path, 0, "ina3221", "1-0040", **rails("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
    driver(tmp_path, 1, "ina3221", "1-0041", **rails("NC", "VDDQ_VDD2_1V8AO"))
    assert parents(domains(tmp_path)) == {
        "rail:VDD_GPU_SOC": None,
        "rail:VDD_CPU_CV": None,
        "rail:VIN_SYS_5V0": None,
        "rail:VDDQ_VDD2_1V8AO": "rail:VIN_SYS_5V0",
    }


def test_amdgpu(tmp_path: Path) -> None:
    """A mean is preferred to an instant; of its window nothing is known."""
    driver(
        tmp_path, 0, "amdgpu", "0000:c1:00.0", power1_average=90_000_000, power1_input=95_000_000
    )
    driver(tmp_path, 1, "amdgpu", "0000:c2:00.0", power1_input=15_000_000)
    found = domains(tmp_path)
    assert values(tmp_path) == {"gpu:0": 90.0, "gpu:1": 15.0}
    assert found["gpu:0"].coverage_fraction is None
    assert (found["gpu:0"].quantity, found["gpu:0"].kind) == ("power", "integrated")


def test_amd_energy(tmp_path: Path) -> None:
    """Sockets; cores only for who asks, since reading one wakes it."""
    files: dict[str, object] = {}
    for number, label in enumerate(("Ecore000", "Ecore001", "Esocket0"), start=1):
        files |= {f"energy{number}_label": label, f"energy{number}_input": number * 1_000_000}
    driver(tmp_path, 0, "amd_energy", **files)
    assert values(tmp_path) == {"cpu_package:0": 3.0}
    assert parents(domains(tmp_path, chip="E*")) == {
        "core:0": "cpu_package:0",
        "core:1": "cpu_package:0",
        "cpu_package:0": None,
    }


def test_a_battery_gives_the_power_of_the_machine(tmp_path: Path) -> None:
    """Power, else current times voltage, else what has been drawn since it was full."""
    folder = battery(tmp_path, current_now=-1_500_000, voltage_now=12_000_000)
    (domain,) = domains(tmp_path).values()
    assert (domain.name, domain.boundary, domain.current) == ("battery:BAT0", "node", "dc")
    assert values(tmp_path) == {"battery:BAT0": pytest.approx(18.0)}
    write(folder / "power_now", 17_000_000)
    assert values(tmp_path) == {"battery:BAT0": 17.0}
    for name in ("power_now", "current_now"):
        (folder / name).unlink()
    plant(folder, {"energy_now": 40_000_000, "energy_full": 50_000_000})
    assert values(tmp_path) == {"battery:BAT0": 36_000.0}
    assert domains(tmp_path)["battery:BAT0"].quantity == "energy_counter"


def test_a_battery_at_rest_is_no_meter(tmp_path: Path) -> None:
    battery(tmp_path, status="Charging", power_now=30_000_000)
    with pytest.raises(MeterError, match="BAT0 is Charging") as refused:
        domains(tmp_path)
    assert "unplug" in (refused.value.fix or "")


def test_only_known_drivers_are_read_unless_one_is_named(tmp_path: Path) -> None:
    """An unknown one needs the boundary with its name."""
    driver(tmp_path, 0, "corsairpsu", power1_input=300_000_000, power1_label="power total")
    with pytest.raises(MeterError, match="whose meaning is known \\(there is corsairpsu"):
        domains(tmp_path)
    with pytest.raises(MeterError, match="is not known") as refused:
        domains(tmp_path, chip="corsair*")
    assert "boundary=" in (refused.value.fix or "")
    (domain,) = domains(tmp_path, chip="corsair*", boundary="node").values()
    assert (domain.name, domain.boundary) == ("corsairpsu:power total", "node")
    driver(tmp_path, 1, "amdgpu", power1_average=1)
    assert list(domains(tmp_path)) == ["gpu:0"]
    assert domains(tmp_path, boundary="board")["gpu:0"].boundary == "board"


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="no driver at all"):
        domains(tmp_path)


def test_without_permission_the_exact_command_is_named(tmp_path: Path) -> None:
    folder = driver(tmp_path, 0, "amd_energy", energy1_label="Esocket0", energy1_input=1)
    (folder / "energy1_input").chmod(0o000)
    said = refused_to_read(f"hwmon:Hwmon root={str(tmp_path)!r}")
    assert f"sudo chmod a+r {folder}/*_input" in said


def test_a_channel_without_a_value_is_left_out(tmp_path: Path) -> None:
    driver(tmp_path, 0, "amdgpu", power1_average=1_000_000)
    (driver(tmp_path, 1, "amdgpu") / "power1_average").mkdir()
    assert list(domains(tmp_path)) == ["gpu:0"]


def test_known_power_though_a_rail_disappears(tmp_path: Path) -> None:
    """A counter at 60 W, a board at 25 W that steps to 75 W, and a rail that goes half-way."""
    card = driver(tmp_path, 0, "i915", "0000:03:00.0", energy1_input=1)
    board = driver(tmp_path, 1, "amdgpu", "0000:04:00.0", power1_average=1)
    jetson = driver(tmp_path, 2, "ina3221", **rails("VDD_IN"))
    half = threading.Event()

    def on_half() -> None:
        half.set()
        shutil.rmtree(jetson)

    files = {
        card / "energy1_input": lambda t: int(1e6 + 60e6 * t),
        board / "power1_average": lambda t: int(
            (75e6 if half.is_set() else 25e6) + 1e5 * (t % 0.02)
        ),
    }
    with running(files, period_s=0.02):
        traces = check_meter(
            HwmonMeter, HwmonOptions(root=str(tmp_path)), duration_s=1.4, on_half=on_half
        )
    counter, power, gone = (traces[name] for name in ("gpu:0", "gpu:1", "module:0"))
    assert isinstance(power, PowerTrace)
    assert isinstance(gone, PowerTrace)
    start_s, end_s = counter.time_s[0] + 0.1, counter.time_s[-1] - 0.1
    found = measure(counter, start_s, end_s).energy_joules
    assert found == pytest.approx(60.0 * (end_s - start_s), rel=0.1)
    step_s = float(power.time_s[np.argmax(power.power_watts > 50)])
    truth = 25.0 * (step_s - start_s) + 75.0 * (end_s - step_s)
    assert measure(power, start_s, end_s).energy_joules == pytest.approx(truth, rel=0.1)
    assert np.isnan(gone.power_watts[-1])
    assert set(gone.power_watts[np.isfinite(gone.power_watts)]) == {5.0}


def test_wraps_are_mended_and_resets_are_not(tmp_path: Path) -> None:
    """A counter that no driver extends wraps at a power of two; a reset is another matter."""
    card = driver(tmp_path, 0, "i915", "0000:03:00.0", energy1_input=1)
    other = driver(tmp_path, 1, "i915", "0000:04:00.0", energy1_input=1)
    half = threading.Event()
    files = {
        card / "energy1_input": lambda t: int(200e6 * t) % 2**27,
        other / "energy1_input": lambda t: int((0 if half.is_set() else 3e9) + 40e6 * t),
    }
    with running(files):
        traces = check_meter(
            HwmonMeter, HwmonOptions(root=str(tmp_path)), duration_s=1.5, on_half=half.set
        )
    wrapped, reset = traces["gpu:0"], traces["gpu:1"]
    assert isinstance(wrapped, CounterTrace)
    assert np.sum(np.diff(wrapped.energy_joules) < 0) >= 2
    start_s, end_s = wrapped.time_s[0] + 0.1, wrapped.time_s[-1] - 0.1
    found = measure(wrapped, start_s, end_s).energy_joules
    assert found == pytest.approx(200.0 * (end_s - start_s), rel=0.15)
    with pytest.raises(InsufficientCoverage, match="reset"):
        measure(reset, start_s, end_s)
