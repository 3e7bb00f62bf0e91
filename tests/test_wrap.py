"""``wattbench wrap``: a program under meters, its results joined, all else passed through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from result_files import vllm_result, write_json
from wrapping import WATTBENCH, codes, show, wrap, wrap_apart


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


@pytest.mark.parametrize("file", [True, False])
def test_times_that_were_refused_are_not_said_to_be_untold(tmp_path: Path, file: bool) -> None:
    """The file tells times of another year: the finding says that it was refused."""
    window = {"benchmark_start_time_unix": 1.7e9, "benchmark_end_time_unix": 1.7e9 + 1}
    source = write_json(tmp_path / "source" / "raw.json", vllm_result(duration=1.0) | window)
    script = f"cp {source} {tmp_path / 'out.json'}" if file else "true"
    done = wrap(tmp_path, "--idle-s", "0", "--json", "--", "sh", "-c", script)
    assert ("its times lie outside of the life of the program" in done.stderr) is file
    (point,) = json.loads(done.stdout)["points"]
    (message,) = [f["message"] for f in point["findings"] if f["code"] == "enveloped"]
    assert ("were refused" in message) is file
    assert ("tells when" in message) is not file


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


def test_a_signal_to_all_is_130(tmp_path: Path) -> None:
    """As a shell without a terminal stops a group: both hear of it, whoever ends first."""
    command = [*WATTBENCH, "wrap", "--idle-s", "0", "--meter", "cpu-load"]
    for turn in range(2):
        line = [*command, "--db", str(tmp_path / "db"), "--", "sh", "-c", "echo on; exec sleep 30"]
        with subprocess.Popen(
            line,
            cwd=tmp_path,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            time.sleep(0.02 * turn)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Unknown child" not in err


@pytest.mark.parametrize("words", [("wrap", "--idle-s", "60", "--", "true"), ("doctor",)])
def test_ctrl_c_while_starting_is_130(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Whatever it was about to do, and without a traceback."""
    with subprocess.Popen(
        [*WATTBENCH, *words],
        cwd=tmp_path,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        status = Path(f"/proc/{process.pid}/maps")
        while "msgspec" not in status.read_text() and process.poll() is None:
            time.sleep(0.002)  # its own imports have begun
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_file_that_was_not_taken_is_named(tmp_path: Path) -> None:
    """Each candidate with its reason: not of a known tool, of another time, no file at all."""
    long = write_json(tmp_path / "source" / "v.json", vllm_result(duration=50.0))
    script = f"cp {long} long.json; echo '{{\"a\": 1}}' > other.json; echo x > notes.txt"
    done = wrap(tmp_path, "--idle-s", "0", "--", "sh", "-c", script)
    assert f"not taken: {tmp_path / 'long.json'}: it lasted longer than the life" in done.stderr
    assert f"not taken: {tmp_path / 'other.json'}: not a result of any known tool" in done.stderr
    assert "notes.txt" not in done.stderr
    assert "no result file could be taken" in done.stderr
    done = wrap(tmp_path, "--idle-s", "0", "--results", "pipe", "--", "mkfifo", "pipe")
    assert "not taken: pipe: not a regular file" in done.stderr
