"""``wattbench import --power-log``: samples join only what tells when it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from command import called
from result_files import shown, vllm_result, write_json
from test_import_inferencex import agg, sidecar

from wattbench.cli.main import cli

START_S = 1_790_000_000.0


def aligned_file(folder: Path) -> Path:
    """An InferenceX raw file: 20 s of load at a known time."""
    window = {"benchmark_start_time_unix": START_S, "benchmark_end_time_unix": START_S + 20}
    return write_json(folder / "run" / "raw.json", vllm_result(duration=20.0) | window)


def log(folder: Path, start_s: float, end_s: float, watts: float = 300.0) -> Path:
    """A reading of the same power every 0.1 s."""
    path = folder / "power.csv"
    count = round((end_s - start_s) * 10) + 1
    rows = [f"{start_s + index / 10:.3f},{watts}" for index in range(count)]
    path.write_text("time_unix_s,power_watts\n" + "\n".join(rows) + "\n")
    return path


def joined(folder: Path, path: Path, power: Path) -> Any:
    """The result of the command."""
    words = ["import", str(path), "--power-log", str(power), "--db", str(folder / "db")]
    return CliRunner().invoke(cli, words)


def test_power_joins_an_aligned_run(tmp_path: Path) -> None:
    """300 W over the 20 s that the file tells: 6 kJ, integrated from samples."""
    path, power = aligned_file(tmp_path), log(tmp_path, START_S - 30, START_S + 40)
    result = joined(tmp_path, path, power)
    assert result.exit_code == 0, result.exception
    (point,) = shown(tmp_path / "db")
    headline = point["energy"]["headline"]
    assert headline["kind"] == "integrated"
    assert headline["gross_joules"]["value"] == pytest.approx(6000, rel=0.01)
    assert point["metrics"]["energy_per_output_token_joules"]["value"] == pytest.approx(1000, 0.01)


@pytest.mark.parametrize(("begin", "end"), [(-30, 10), (5, 40), (100, 140)])
def test_a_log_that_does_not_cover_the_window_is_refused(
    tmp_path: Path, begin: float, end: float
) -> None:
    """It says what the log has, and nothing is stored."""
    power = log(tmp_path, START_S + begin, START_S + end)
    result = joined(tmp_path, aligned_file(tmp_path), power)
    assert "does not cover the window" in str(result.exception)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("column", ["timestamp_s", "time_s"])
def test_the_columns_of_time_are_named_at_once(tmp_path: Path, column: str) -> None:
    """No message leads to a column that the next one refuses."""
    power = log(tmp_path, START_S - 30, START_S + 40)
    power.write_text(power.read_text().replace("time_unix_s", column))
    message = str(joined(tmp_path, aligned_file(tmp_path), power).exception)
    for word in ("time_unix_s", "timestamp", "ISO 8601", "clock of its own"):
        assert word in message


def test_a_run_without_times_takes_no_power(tmp_path: Path) -> None:
    """VLLM's totals do not tell when they were measured; wrap is the way."""
    path = write_json(tmp_path / "run" / "vllm.json", vllm_result())
    result = joined(tmp_path, path, log(tmp_path, START_S, START_S + 40))
    assert "wattbench wrap" in str(result.exception)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(("watts", "clean"), [(2050.0, True), (1700.0, False)])
def test_an_audit_holds_what_is_stated_against_the_log(
    tmp_path: Path, watts: float, clean: bool
) -> None:
    """40 kJ of the boards are stated; a log of the node with less of it contradicts them."""
    folder = tmp_path / "run"
    write_json(folder / "agg_one.json", agg())
    write_json(folder / "power_validation_one.json", sidecar())
    power = log(tmp_path, START_S - 5, START_S + 25, watts)
    assert joined(tmp_path, folder, power).exit_code == 0
    done = called("audit", "--runs", "latest", "--db", str(tmp_path / "db"), "--json")
    shown = json.loads(done.stdout)
    assert shown["clean"] is clean
    codes = {finding["code"] for finding in shown["loads"][0]["findings"]}
    assert codes == (set() if clean else {"reported_off_samples"})
