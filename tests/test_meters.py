"""Meters without a sensor of their own: modelled, nameplate, and the replay of a stored run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from wattbench.core.energy import CounterTrace, PowerTrace
from wattbench.core.errors import MeterError, OptionError, UsageError
from wattbench.energy import measure
from wattbench.hardware import load_profile
from wattbench.meters.cpu_load import CpuLoadMeter, CpuLoadOptions
from wattbench.meters.nameplate import NameplateMeter, NameplateOptions
from wattbench.meters.redfish import RedfishOptions
from wattbench.meters.replay import ReplayMeter, ReplayOptions
from wattbench.metrics.domains import energy_estimate
from wattbench.plugins import PluginContext, parse_options, parse_spec
from wattbench.store import connect, database_url, load_run, select_runs
from wattbench.testing import check_meter, record_meter
from wattbench.workload import load_workload

BARE = PluginContext(hardware=None, seed=0)


def run(database: Path, *arguments: str) -> dict[str, Any]:
    # Short: what is asked here does not need the lengths of a real measurement.
    workload = load_workload("quickstart").model_dump(mode="json")
    path = database.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(workload | {"measure": {"duration_s": 4.0}}))
    command = [sys.executable, "-m", "wattbench", "run", str(path), "--backend", "emulated"]
    command += ["--concurrency", "4", "--db", str(database), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    return dict(point)


def test_cpu_load_keeps_the_contract() -> None:
    (trace,) = check_meter(CpuLoadMeter, CpuLoadOptions(tdp_watts=100.0), duration_s=0.6).values()
    assert isinstance(trace, CounterTrace)
    watts = np.diff(trace.energy_joules)[[0, -1]] / np.diff(trace.time_s)[[0, -1]]
    assert watts.min() >= 100.0 * 0.3 * 0.5
    assert trace.energy_joules[-1] / trace.time_s[-1] == pytest.approx(65.0, abs=40.0)


def test_a_nameplate_is_an_interval_from_idle_to_the_limit() -> None:
    context = PluginContext(hardware=load_profile("cerebras-cs3"), seed=0)
    options = NameplateOptions(devices=4)
    (trace,) = check_meter(NameplateMeter, options, duration_s=0.4, context=context).values()
    assert isinstance(trace, PowerTrace)
    assert trace.domain.kind == "nameplate"
    assert trace.domain.boundary == "node"
    found = energy_estimate(measure(trace, trace.time_s[0], trace.time_s[-1]))
    length_s = trace.time_s[-1] - trace.time_s[0]
    # 4 x (4600 … 23000 W); the central 95 % of a uniform term.
    assert found.low == pytest.approx(4 * (13800 - 0.95 * 9200) * length_s, rel=0.01)
    assert found.high == pytest.approx(4 * (13800 + 0.95 * 9200) * length_s, rel=0.01)


def test_a_nameplate_run_says_what_it_is(tmp_path: Path) -> None:
    """In virtual time too; net energy is unknown, nothing accuses a sensor that is none."""
    point = run(tmp_path / "x.db", "--hardware", "cerebras-cs3", "--meter", "nameplate")
    per_token = point["metrics"]["energy_per_output_token_joules"]
    assert per_token["low"] < per_token["value"] / 2
    assert point["energy"]["headline"]["net_loaded_idle_joules"]["value"] is None
    assert point["verdict"]["energy"] == "doubtful"
    codes = {finding["code"] for finding in point["findings"]}
    assert "modelled_only" in codes
    assert not codes & {"stale_counter", "power_ignores_load", "no_idle_baseline"}


def test_a_nameplate_needs_a_profile() -> None:
    with pytest.raises(UsageError, match="add --hardware NAME"):
        NameplateMeter(NameplateOptions(), BARE)


def test_a_stored_run_plays_again(tmp_path: Path) -> None:
    """Sample for sample, at the same distances, as reported joules."""
    database = tmp_path / "runs.db"
    first = run(database, "--hardware", "h100-sxm")
    options = ReplayOptions(run=first["run_ids"][0], db=str(database))
    traces = check_meter(ReplayMeter, options, duration_s=0.7)
    engine = connect(database_url(str(database)), create=False)
    stored = {t.domain.name: t for t in load_run(engine, first["run_ids"][0]).traces}
    engine.dispose()
    counter, power = traces["gpu:0"], traces["gpu:0/power"]
    assert isinstance(counter, CounterTrace)
    assert isinstance(power, PowerTrace)
    assert counter.domain.kind == "reported"
    assert power.domain.parent == "gpu:0"
    origin = stored["gpu:0"]
    assert isinstance(origin, CounterTrace)
    count = len(counter.time_s)
    assert counter.energy_joules == pytest.approx(origin.energy_joules[:count])
    assert np.diff(counter.time_s) == pytest.approx(np.diff(origin.time_s[:count]), abs=1e-9)
    again = run(
        database,
        "--hardware",
        "h100-sxm",
        "--meter",
        f"replay,run={first['run_ids'][0]},db={database}",
    )
    assert again["energy"]["headline"]["kind"] == "reported"
    assert again["energy"]["headline"]["gross_joules"]["value"] == pytest.approx(
        first["energy"]["headline"]["gross_joules"]["value"], rel=0.05
    )
    engine = connect(database_url(str(database)), create=False)
    assert len(select_runs(engine, None)) == 2
    engine.dispose()


def test_a_replay_makes_no_joule_better_than_it_was(tmp_path: Path) -> None:
    """A nameplate that is played again is one, without idle, and said to be of another run."""
    place = tmp_path / "x.db"
    first = run(place, "--hardware", "cerebras-cs3", "--meter", "nameplate")
    played = f"replay,run={first['run_ids'][0]},db={place}"
    again = run(place, "--hardware", "cerebras-cs3", "--meter", played)
    headline = again["energy"]["headline"]
    assert headline["kind"] == "nameplate"
    assert headline["net_loaded_idle_joules"]["reason"] == "nameplate_has_no_idle"
    codes = {finding["code"] for finding in again["findings"]}
    assert {"modelled_only", "replayed_energy"} <= codes
    assert again["verdict"]["energy"] == "doubtful"


def test_an_option_that_may_be_none_takes_its_choices() -> None:
    """``boundary`` is one of a few words, or left out; both are told apart from a slip."""
    options = parse_options(parse_spec("redfish,url=https://bmc,boundary=rack"), RedfishOptions)
    assert options.boundary == "rack"
    none = parse_spec("redfish,url=https://bmc,boundary=none")
    assert parse_options(none, RedfishOptions).boundary is None
    with pytest.raises(OptionError, match="boundary='racks' is not one of chip"):
        parse_options(parse_spec("redfish,url=https://bmc,boundary=racks"), RedfishOptions)


def test_a_run_without_meter_cannot_be_played(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    point = run(database, "--hardware", "h100-sxm", "--meter", "none")
    options = ReplayOptions(run=point["run_ids"][0], db=str(database))
    with pytest.raises(MeterError, match="without a meter"):
        record_meter(ReplayMeter(options, BARE), 0.1)
    with pytest.raises(UsageError, match="no run or batch"):
        record_meter(ReplayMeter(ReplayOptions(run="x", db=str(database)), BARE), 0.1)
