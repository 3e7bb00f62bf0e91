"""RAPL: zones of a powercap tree, wraps, resets, and what is in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sysfs_tree import plant, refused_to_read, running, write

from wattbench.core.energy import CounterTrace, EnergyDomain, Trace
from wattbench.core.errors import InsufficientCoverage, MeterError
from wattbench.energy import measure
from wattbench.meters.rapl import RaplMeter, RaplOptions
from wattbench.plugins import PluginContext
from wattbench.testing import check_meter

CONTEXT = PluginContext(hardware=None, seed=0)
RANGE_UJ = 262143328850


def zone(root: Path, zone_id: str, name: str, energy_uj: int = 5_000_000, **files: object) -> Path:
    """Plant one zone."""
    known = {"name": name, "energy_uj": energy_uj, "max_energy_range_uj": RANGE_UJ}
    return plant(root / "sys/class/powercap" / zone_id, known | files)


def server(root: Path) -> Path:
    """Two packages with DRAM, one of them with its parts, and a mirror of the first."""
    zone(root, "intel-rapl:0", "package-0")
    zone(root, "intel-rapl:0:0", "core")
    zone(root, "intel-rapl:0:1", "uncore", energy_uj=0)
    zone(root, "intel-rapl:0:2", "dram")
    zone(root, "intel-rapl:1", "package-1")
    zone(root, "intel-rapl:1:0", "dram")
    zone(root, "intel-rapl:2", "psys")
    zone(root, "intel-rapl-mmio:0", "package-0")
    zone(root, "intel-rapl-mmio:0:0", "dram")
    (root / "sys/class/powercap/intel-rapl").mkdir()
    return root


def domains(root: Path, **options: bool) -> dict[str, EnergyDomain]:
    """What the meter would measure."""
    source = RaplMeter(RaplOptions(root=str(root), **options), CONTEXT).open_source()
    return {domain.name: domain for domain in source.domains}


def test_nothing_counts_twice(tmp_path: Path) -> None:
    """Parts hang below their package, DRAM adds, mirrors and psys are left out."""
    found = domains(server(tmp_path))
    top = {name for name, domain in found.items() if domain.parent is None}
    assert top == {"cpu_package:0", "cpu_package:1", "dram:0", "dram:1"}
    assert {n: d.parent for n, d in found.items() if d.parent} == {
        "core:0": "cpu_package:0",
        "uncore:0": "cpu_package:0",
    }
    assert {domain.boundary for domain in found.values()} == {"package"}
    assert all(domain.on_client_host for domain in found.values())
    assert found["cpu_package:1"].devices == ("package-1",)
    assert found["cpu_package:0"].wrap_joules == pytest.approx(RANGE_UJ * 1e-6 + 61e-6)
    assert found["dram:0"].gain_half_width_fraction > found["core:0"].gain_half_width_fraction


def test_psys_holds_all_the_rest(tmp_path: Path) -> None:
    found = domains(server(tmp_path), psys=True)
    assert [name for name, domain in found.items() if domain.parent is None] == ["psys"]
    assert (found["psys"].boundary, found["psys"].current) == ("node", "dc")
    assert found["dram:1"].parent == found["cpu_package:1"].parent == "psys"
    assert found["core:0"].parent == "cpu_package:0"


def test_dies_of_one_package_are_told_apart(tmp_path: Path) -> None:
    """A package of two dies has a counter for each."""
    zone(tmp_path, "intel-rapl:0", "package-0-die-0")
    zone(tmp_path, "intel-rapl:1", "package-0-die-1")
    zone(tmp_path, "intel-rapl:1:0", "dram")
    assert list(domains(tmp_path)) == ["cpu_package:0-die-0", "cpu_package:0-die-1", "dram:0-die-1"]


def test_zones_only_of_the_memory_mapped_type_count(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    assert list(domains(tmp_path)) == ["cpu_package:0"]


def measured_joules(trace: Trace, margin_s: float = 0.1) -> tuple[float, float]:
    """Energy and length of nearly the whole trace."""
    start_s, end_s = trace.time_s[0] + margin_s, trace.time_s[-1] - margin_s
    return measure(trace, start_s, end_s).energy_joules, end_s - start_s


def test_known_power_over_wraps_though_a_part_disappears(tmp_path: Path) -> None:
    """At 100 W a counter wraps every 300 ms; DRAM goes half-way: NaN, not 0, and the end comes."""
    range_uj = 30_000_000
    package = zone(tmp_path, "intel-rapl:0", "package-0", max_energy_range_uj=range_uj - 1)
    dram = zone(tmp_path, "intel-rapl:0:0", "dram")
    with running({package / "energy_uj": lambda t: int(100e6 * t) % range_uj}):
        traces = check_meter(
            RaplMeter,
            RaplOptions(root=str(tmp_path)),
            duration_s=2.0,
            on_half=lambda: shutil.rmtree(dram),
        )
    gone, whole = traces["dram:0"], traces["cpu_package:0"]
    assert isinstance(gone, CounterTrace)
    assert isinstance(whole, CounterTrace)
    assert np.isfinite(whole.energy_joules).all()
    assert np.sum(np.diff(whole.energy_joules) < 0) >= 4
    joules, length_s = measured_joules(whole)
    assert joules == pytest.approx(100.0 * length_s, rel=0.1)
    assert np.isnan(gone.energy_joules[-1])
    assert set(gone.energy_joules[np.isfinite(gone.energy_joules)]) == {5.0}


def test_a_reset_is_no_wrap(tmp_path: Path) -> None:
    """A counter that begins again without having reached its end has no energy."""
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    reset = threading.Event()
    counter = {package / "energy_uj": lambda t: int((0 if reset.is_set() else 1e9) + 50e6 * t)}
    options = RaplOptions(root=str(tmp_path))
    with running(counter):
        traces = check_meter(RaplMeter, options, duration_s=0.8, on_half=reset.set)
    with pytest.raises(InsufficientCoverage) as refused:
        measured_joules(traces["cpu_package:0"])
    assert refused.value.reason == "counter_reset"


def test_a_tree_that_disappears_ends_the_run_at_once(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0")
    began_s = time.monotonic()
    options = RaplOptions(root=str(tmp_path))
    (trace,) = check_meter(
        RaplMeter, options, on_half=lambda: shutil.rmtree(package.parent)
    ).values()
    assert time.monotonic() - began_s < 5.0
    assert isinstance(trace, CounterTrace)
    assert (trace.energy_joules == 5.0).all()


def test_without_powercap_the_way_out_is_named(tmp_path: Path) -> None:
    """No folder, an empty one, and links that lead nowhere, as in a container."""
    for _ in range(2):
        with pytest.raises(MeterError, match="has no RAPL zone") as refused:
            domains(tmp_path)
        assert "modprobe" in (refused.value.fix or "")
        assert "--meter cpu-load" in (refused.value.fix or "")
        place = tmp_path / "sys/class/powercap"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "intel-rapl:0").is_symlink():
            (place / "intel-rapl:0").symlink_to("../../devices/virtual/powercap/nowhere")


def test_without_permission_the_exact_command_is_named(tmp_path: Path) -> None:
    server(tmp_path)
    for path in (tmp_path / "sys/class/powercap").glob("*/energy_uj"):
        path.chmod(0o000)
    said = refused_to_read(f"rapl:Rapl root={str(tmp_path)!r}")
    assert f"sudo chmod a+r {tmp_path}/sys/class/powercap/intel-rapl:*/energy_uj" in said
    assert "CVE-2020-8694" in said


def test_a_zone_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0")
    write(folder / "energy_uj", "")
    with pytest.raises(MeterError, match="energy_uj cannot be read"):
        domains(tmp_path)


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        RaplOptions(root=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="period_s=0 must be"):
        RaplOptions(period_s=0.0)


def test_a_tree_that_is_named_is_not_refused_for_want_of_another(tmp_path: Path) -> None:
    """The command line asks what this machine has only if no root is named."""
    zone(tmp_path, "intel-rapl:0", "package-0")
    run = [
        "-m",
        "wattbench",
        "run",
        "quickstart",
        "--backend",
        "emulated",
        "--hardware",
        "h100-sxm",
    ]
    place = ["--db", str(tmp_path / "runs.sqlite"), "--meter", f"rapl,root={tmp_path}"]
    command = [sys.executable, *run, *place, "--devices", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cpu_package:0 (package-0)" in done.stderr
