"""``wattbench wrap`` around a load generator: its windows, and the joules within them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire import emulated, get
from wrapping import codes, show, wrap, wrap_apart

TOOL = [sys.executable, str(Path(__file__).parent / "wrapped_tool.py")]


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    """An emulated machine behind an API; its address."""
    with emulated("h100-sxm") as (url, _):
        yield url


def test_energy_is_that_of_the_measured_phase(machine: str, tmp_path: Path) -> None:
    """The window is the tool's own, and its joules hold the truth of the machine in them."""
    meter = f"prometheus,url={machine}/metrics"
    options = ("--idle-s", "2", "--hardware", "h100-sxm", "--json")
    done = wrap_apart(tmp_path, *options, "--", *TOOL, machine, "10", "result.json", meter=meter)
    assert done.returncode == 0, done.stderr
    assert "asked" in done.stderr
    (point,) = json.loads(done.stdout)["points"]
    window = point["window"]
    assert 10 <= window["duration_s"] < 11.5
    place = f"/truth?start={window['start_unix_s']}&end={window['end_unix_s']}"
    truth = get(machine + place)
    energy = point["energy"]["headline"]
    assert energy["kind"] == "counter"
    gross = energy["gross_joules"]
    assert gross["low"] <= truth["energy_joules"] <= gross["high"]
    assert energy["net_loaded_idle_joules"]["value"] is not None
    assert point["requests"]["failed"] == 0
    assert point["tokens"]["output"] == pytest.approx(40 * point["requests"]["completed"], rel=0.1)
    assert point["metrics"]["energy_per_output_token_joules"]["low"] is not None
    assert "enveloped" not in codes(point)
    assert point["verdict"]["energy"] == "valid"


def test_each_load_of_a_program_is_a_run(machine: str, tmp_path: Path) -> None:
    """Two loads one after the other: two points, each with the joules of its own window."""
    meter = f"prometheus,url={machine}/metrics"
    options = ("--idle-s", "0", "--hardware", "h100-sxm", "--json")
    done = wrap(tmp_path, *options, "--", *TOOL, machine, "2", "result.json", "2", meter=meter)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)["points"]
    assert first["window"]["end_unix_s"] <= second["window"]["start_unix_s"] + 0.1
    for point in (first, second):
        window = point["window"]
        place = f"/truth?start={window['start_unix_s']}&end={window['end_unix_s']}"
        gross = point["energy"]["headline"]["gross_joules"]
        assert gross["low"] <= get(machine + place)["energy_joules"] <= gross["high"]


def test_files_from_before_are_not_results(tmp_path: Path, machine: str) -> None:
    """An old result beside the new program is not taken for its own."""
    command = [*TOOL, machine, "0.2", str(tmp_path / "old.json")]
    subprocess.run(command, check=True, capture_output=True)
    time.sleep(1.1)
    wrap(tmp_path, "--idle-s", "0", "--", "sleep", "0.2")
    assert "nothing_measured" in codes(show(tmp_path))
