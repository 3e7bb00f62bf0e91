"""What the doctor says: of a bare machine, of sensors in fake trees, of an agent's host.

The golden files lie in ``tests/data``; what differs from machine to machine is masked.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called
from sysfs_tree import plant, running
from test_agent import agent

from wattbench.hardware.detect import is_virtual

DATA = Path(__file__).parent / "data"
MASKS = (
    (r"Machine  .*", "Machine  …"),
    (r"\d[\d.]* ms of CPU", "… ms of CPU"),
    (r"new every \d[\d.]* ms", "new every … ms"),
    (r"± \d[\d.]* W", "± … W"),
    (r"127\.0\.0\.1:\d{5}", "127.0.0.1:PORT"),
)


def doctor(*arguments: str, code: int = 0) -> str:
    done = called("doctor", *arguments)
    assert done.returncode == code, done.stderr
    return done.stdout


def masked(text: str, **places: Path) -> str:
    """Without what differs from machine to machine; lines unwrapped."""
    for name, place in places.items():
        text = text.replace(str(place), name)
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text)
    return text


def golden(name: str, text: str) -> None:
    assert text == (DATA / f"doctor_{name}.txt").read_text(), text


SENSORS = [Path("/sys/class/powercap/intel-rapl"), Path("/dev/nvidiactl"), Path("/dev/kfd")]


@pytest.mark.skipif(
    any(place.exists() for place in SENSORS)
    or any(Path("/sys/class/hwmon").glob("*"))
    or any(importlib.util.find_spec(name) for name in ("amdsmi", "zeus", "codecarbon", "torch"))
    or shutil.which("ipmitool") is not None
    or not is_virtual(),
    reason="this machine has sensors of its own",
)
def test_a_bare_virtual_machine() -> None:
    """Every meter says why it is not there and what to do; modelled joules are called so."""
    text = masked(doctor())
    golden("bare", text)
    for name in ("nvml", "amdsmi", "rapl", "hwmon", "ipmi", "agent", "prometheus"):
        lines = text.split(f" ✗ {name}:")[1].split(" ✗ ")[0]
        assert "not here: " in lines, name
        assert "→ " in lines, name
    assert "✓ cpu-load" in text
    assert "--meter cpu-load,tdp_watts=WATTS" in text


def rapl_tree(root: Path) -> Path:
    zones = root / "sys/class/powercap"
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        plant(zones / zone, {"name": name, "max_energy_range_uj": 262143328850})
    return zones


def test_sensors_in_a_fake_tree(tmp_path: Path) -> None:
    """Counters and a power that a newcomer can use, and the line that uses them."""
    zones = rapl_tree(tmp_path)
    card = plant(tmp_path / "sys/class/hwmon/hwmon0", {"name": "i915"})
    joules: dict[Path, Callable[[float], object]] = {
        zones / "intel-rapl:0/energy_uj": lambda s: int(40e6 * s),
        zones / "intel-rapl:0:0/energy_uj": lambda s: int(5e6 * s),
        card / "energy1_input": lambda s: int(75e6 * s),
    }
    with running(joules):
        text = doctor("--meter", f"rapl,root={tmp_path}", "--meter", f"hwmon,root={tmp_path}")
    golden("fake_tree", masked(text, ROOT=tmp_path))


def recording(folder: Path) -> Path:
    time_s = np.arange(0.0, 60.0, 0.1)
    trace = {"time_s": time_s.tolist(), "energy_joules": (300 * time_s).tolist()}
    trace |= {name: [300.0] * len(time_s) for name in ("instant_watts", "average_watts")}
    device = {"uuid": "GPU-0", "name": "NVIDIA H100 80GB HBM3", "trace": trace}
    path = folder / "nvml.json"
    path.write_text(json.dumps({"devices": [device]}))
    return path


def test_the_host_of_an_agent(tmp_path: Path) -> None:
    path = recording(tmp_path)
    with agent("--meter", f"nvml,recording={path}") as (url, _):
        text = doctor("--meter", f"agent,url={url},name=node1")
    golden("agent", masked(text))


def test_json_has_what_the_table_has(tmp_path: Path) -> None:
    path = recording(tmp_path)
    asked = ("--meter", f"nvml,recording={path}", "--meter", f"rapl,root={tmp_path}")
    # One of the two that were asked for does not work.
    report: dict[str, Any] = json.loads(doctor(*asked, "--json", code=1))
    sensed, absent = report["meters"]
    assert sensed["usable"] is True
    assert sensed["read_cost_s"] > 0
    by_name = {domain["domain"]: domain for domain in sensed["domains"]}
    assert by_name["gpu:0"]["kind"] == "counter"
    assert by_name["gpu:0"]["update_period_s"] == pytest.approx(0.1, rel=0.3)
    assert by_name["gpu:0/instant"]["coverage_fraction"] == 0.25
    assert absent["usable"] is False
    assert "no RAPL zone" in absent["reason"]
    assert absent["fix"]
    assert report["advice"] == [
        f"Measure with what is here: wattbench run WORKLOAD --meter nvml,recording={path}"
    ]


def test_a_bad_option_is_a_line_of_its_own(tmp_path: Path) -> None:
    done = called("doctor", "--meter", "nvml,perod_s=1")
    assert done.returncode == 2
    assert "did you mean 'period_s'?" in done.stderr


def test_characterising_loads_the_machine_and_finds_the_sensor(tmp_path: Path) -> None:
    """Under a square wave the CPU's modelled energy moves; the load is named."""
    report = json.loads(doctor("--meter", "cpu-load", "--characterise", "--json"))
    assert "processors" in report["machine"]["loaded"][0]
    (domain,) = report["meters"][0]["domains"]
    assert domain["kind"] == "modelled"
    assert domain["quantum_joules"] is None or domain["quantum_joules"] > 0
