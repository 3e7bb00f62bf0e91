"""``wattbench wrap``: a program under meters, its results joined, all else passed through."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import called
from result_files import vllm_result, write_json
from wire import emulated, get

WATTBENCH = [sys.executable, "-m", "wattbench"]
TOOL = [sys.executable, str(Path(__file__).parent / "wrapped_tool.py")]


@pytest.fixture(scope="module")
def machine() -> Iterator[str]:
    """An emulated machine behind an API; its address."""
    with emulated("h100-sxm") as (url, _):
        yield url


def words(folder: Path, meter: str) -> list[str]:
    """The command up to what it is asked."""
    return ["wrap", "--meter", meter, "--db", str(folder / "db")]


def wrap(folder: Path, *asked: str, meter: str = "cpu-load") -> subprocess.CompletedProcess[str]:
    """Carry out ``wattbench wrap`` in a folder; the program's own output is not in what it says."""
    with contextlib.chdir(folder):
        return called(*words(folder, meter), *asked)


def wrap_apart(
    folder: Path, *asked: str, meter: str = "cpu-load"
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, whose output the program shares."""
    command = [*WATTBENCH, *words(folder, meter), *asked]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def show(folder: Path) -> dict[str, Any]:
    """The only point in the store of a folder."""
    done = called("show", "latest", "--db", str(folder / "db"), "--json")
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert isinstance(point, dict)
    return point


def codes(point: dict[str, Any]) -> set[str]:
    """Codes of the findings."""
    return {finding["code"] for finding in point["findings"]}


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


def test_a_tool_without_times_is_enveloped(tmp_path: Path) -> None:
    """Its rates are over its own duration, the power over the life that was metered."""
    result = vllm_result(duration=0.5, output_throughput=12.0, request_throughput=4.0)
    source = write_json(tmp_path / "source" / "v.json", result)
    script = f"sleep 1; cp {source} {tmp_path / 'out.json'}"
    done = wrap(tmp_path, "--idle-s", "0", "--json", "--", "sh", "-c", script)
    (point,) = json.loads(done.stdout)["points"]
    assert "enveloped" in codes(point)
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(12.0)
    joules = point["energy"]["headline"]["gross_joules"]["value"]
    life_s = point["window"]["duration_s"]
    assert life_s > 1.0
    assert point["metrics"]["mean_power_watts"]["value"] == pytest.approx(joules / life_s)


def test_loads_that_share_a_life_have_no_joules(tmp_path: Path) -> None:
    """Two loads without times in one program: its joules are charged to neither."""
    for name, users in (("a", 1), ("b", 2)):
        write_json(
            tmp_path / "source" / f"{name}.json", vllm_result(max_concurrency=users, duration=0.5)
        )
    script = f"sleep 1; cp {tmp_path / 'source'}/*.json {tmp_path}"
    done = wrap(tmp_path, "--idle-s", "0", "--json", "--", "sh", "-c", script)
    points = json.loads(done.stdout)["points"]
    assert len(points) == 2
    for point in points:
        assert "shared_envelope" in codes(point)
        assert point["verdict"]["energy"] == "invalid"
        assert point["metrics"]["energy_per_output_token_joules"]["value"] is None
        assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(6 / 0.5)


def test_a_load_longer_than_the_program_is_not_its_own(tmp_path: Path) -> None:
    """Fifty seconds of load in a program of one second: another program's file."""
    source = write_json(tmp_path / "source" / "v.json", vllm_result(duration=50.0))
    wrap(tmp_path, "--idle-s", "0", "--", "sh", "-c", f"sleep 1; cp {source} {tmp_path}")
    assert "nothing_measured" in codes(show(tmp_path))


def test_output_and_exit_code_pass_through(tmp_path: Path) -> None:
    """Standard output is the program's own; the table comes after, on standard error."""
    done = wrap_apart(tmp_path, "--idle-s", "0", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.returncode == 7
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert "no result file" in done.stderr
    point = show(tmp_path)
    assert point["metrics"]["mean_power_watts"]["value"] > 0
    assert {"enveloped", "nothing_measured", "program_failed"} <= codes(point)
    assert point["verdict"] == {"performance": "invalid", "energy": "doubtful"}


def test_signals_pass_through(tmp_path: Path) -> None:
    """The program hears of the signal, ends in its own way, and the run is kept."""
    script = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    command = [*WATTBENCH, "wrap", "--idle-s", "0", "--meter", "cpu-load"]
    command += ["--db", str(tmp_path / "db"), "--", "sh", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "heard\n"
        assert process.wait(30) == 5
    assert show(tmp_path)["metrics"]["mean_power_watts"]["value"] > 0


def test_ctrl_c_while_idle_ends_at_once(tmp_path: Path) -> None:
    """130, as of a program that Ctrl-C ended; the program is not begun, and the run is kept."""
    command = [*WATTBENCH, "wrap", "--idle-s", "60", "--meter", "cpu-load", "--json"]
    command += ["--db", str(tmp_path / "db"), "--", "touch", str(tmp_path / "ran")]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert "idle" in process.stderr.readline()
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err
    assert not (tmp_path / "ran").exists()


def test_a_signal_that_ends_the_program_is_its_exit_code(tmp_path: Path) -> None:
    """128 and the number, as a shell says it."""
    done = wrap(tmp_path, "--idle-s", "0", "--", "sh", "-c", "kill -9 $$")
    assert done.returncode == 137


def test_nothing_is_run_that_cannot_be_measured(tmp_path: Path) -> None:
    """No such program, no such meter: said before anything is done."""
    done = wrap(tmp_path, "--json", "--", "no-such-program")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such-program" in done.stderr
    ran = tmp_path / "ran"
    done = wrap(tmp_path, "--", "touch", str(ran), meter="prometheus,url=http://127.0.0.1:9/x")
    assert done.returncode != 0
    assert not ran.exists()
    done = wrap(tmp_path, "--meter", "auto", "--", "echo", "http://gpu.example.org:8000")
    assert done.returncode == 2
    assert "another machine" in done.stderr


def test_files_from_before_are_not_results(tmp_path: Path, machine: str) -> None:
    """An old result beside the new program is not taken for its own."""
    command = [*TOOL, machine, "0.2", str(tmp_path / "old.json")]
    subprocess.run(command, check=True, capture_output=True)
    time.sleep(1.1)
    wrap(tmp_path, "--idle-s", "0", "--", "sleep", "0.2")
    assert "nothing_measured" in codes(show(tmp_path))


def test_results_that_are_not_there_cost_no_sample(tmp_path: Path) -> None:
    """The place that was named is empty: said, and the run is kept whole."""
    done = wrap(tmp_path, "--idle-s", "0", "--results", "nowhere.json", "--", "sleep", "0.3")
    assert done.returncode == 0
    assert "nothing was written at nowhere.json" in done.stderr
    assert show(tmp_path)["metrics"]["mean_power_watts"]["value"] > 0


def test_keys_of_the_command_are_not_kept(tmp_path: Path) -> None:
    """Neither the store nor what is printed holds a key that the command was given."""
    done = wrap(tmp_path, "--idle-s", "0", "--", "true", "--api-key", "sk-very-secret")
    assert "sk-very-secret" not in done.stdout + done.stderr
    for path in tmp_path.iterdir():
        if path.is_file():
            assert b"sk-very-secret" not in path.read_bytes()
