"""MLPerf: LoadGen's summary with its detail, and the summary of mlcommons/endpoints."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from result_files import imported, shown, write_json

from wattbench.cli.main import cli
from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results

BEGIN_S = datetime(2026, 3, 30, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()


def write_summary(path: Path, *, mode: str = "PerformanceOnly", result: str = "VALID") -> Path:
    """A run of the Server scenario with tokens."""
    path.write_text(
        f"""================================================
MLPerf Results Summary
================================================
SUT name : Some: SUT
Scenario : Server
Mode     : {mode}
Completed samples per second    : 5.00
Result is : {result}
  Performance constraints satisfied : Yes
================================================
Additional Stats
================================================
Scheduled samples per second : 5.50
Min latency (ns)                : 100000000
Mean latency (ns)               : 200000000
50.00 percentile latency (ns)   : 190000000
99.90 percentile latency (ns)   : 900000000

Completed tokens per second                 : 250.00
Tokens per second (inferred)                : 300.00
99.00 percentile first token latency (ns)   : 50000000
Mean Time to Output Token (ns)               : 4000000
Max Time to Output Token (ns)               : 0
================================================
Test Parameters Used
================================================
target_qps : 5.5
""",
        encoding="utf-8",
    )
    return path


def write_detail(path: Path, *, zone_h: float = 2, started: str = "2026-03-30T12:00:00Z") -> Path:
    """Power from a quarter of a second after noon UTC, for a minute, in local time."""
    zone_s = zone_h * 3600
    stamps = [
        datetime.fromtimestamp(BEGIN_S + zone_s + after_s, UTC).strftime("%m-%d-%Y %H:%M:%S.%f")
        for after_s in (0.0, 60.0)
    ]
    values = [
        ("loadgen_version", "5.1", 0.01),
        ("test_datetime", started, 0.02),
        ("power_begin", stamps[0][:-3], 300.0),
        ("power_end", stamps[1][:-3], 60_300.0),
    ]
    lines = [f":::MLLOG {json.dumps({'key': k, 'value': v, 'time_ms': t})}" for k, v, t in values]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_one(folder: Path) -> Measurement:
    """The only measurement of a folder."""
    ((_, _, found),) = read_results(sorted(folder.iterdir()))
    assert not isinstance(found, BadDocument), found
    (one,) = found
    return one


def error_of(path: Path) -> str:
    """Why a file is refused."""
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    return str(found)


def fates(one: Measurement, fate: str) -> dict[str, str]:
    """Why, of each field of a fate."""
    return {note.field: note.why for note in one.notes if note.fate == fate}


def test_summary(tmp_path: Path) -> None:
    """Nanoseconds become seconds; samples are requests; what is inferred or 0 is refused."""
    path = write_summary(tmp_path / "mlperf_log_summary.txt")
    one = read_one(tmp_path)
    assert (one.engine, one.layout, one.clock) == ("Some: SUT", "summary", None)
    assert one.operating_point == {"rate_per_s": 5.5}
    assert stated(one.reported, "requests_per_s") == 5.0
    assert stated(one.reported, "scheduled_requests_per_s") == 5.5
    assert stated(one.reported, "output_tokens_per_s") == 250.0
    assert stated(one.reported, "e2e_s", "p99.9") == pytest.approx(0.9)
    assert stated(one.reported, "ttft_s", "p99") == pytest.approx(0.05)
    assert stated(one.reported, "tpot_s", "mean") == pytest.approx(0.004)
    assert stated(one.reported, "tpot_s", "max") is None
    assert stated(one.reported, "energy_joules") is None
    assert "inferred" in fates(one, "refused")["Tokens per second (inferred)"]
    assert "--format ptdaemon" in fates(one, "kept")["power"]
    imported(tmp_path / "db", path)
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(250.0)
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.19)


@pytest.mark.parametrize("zone_h", [2, -7, 5.75])
def test_window_of_power(tmp_path: Path, zone_h: float) -> None:
    """Local stamps become Unix time, by the start in UTC."""
    write_summary(tmp_path / "in_mlperf_log_summary.txt")
    write_detail(tmp_path / "in_mlperf_log_detail.txt", zone_h=zone_h)
    one = read_one(tmp_path)
    assert (one.layout, one.clock, one.tool_version) == ("summary and detail", "unix", "5.1")
    assert one.window_s == pytest.approx((BEGIN_S, BEGIN_S + 60.0), abs=1e-6)
    assert f"{zone_h:+g} h from UTC" in fates(one, "converted")["power_begin"]


def test_power_log_beside_it(tmp_path: Path) -> None:
    """The run is aligned, so that a log of power can be attached."""
    write_summary(tmp_path / "in_summary.txt")
    write_detail(tmp_path / "in_detail.txt")
    paths = [tmp_path / "in_summary.txt", tmp_path / "in_detail.txt"]
    (run,) = imported(tmp_path / "db", *paths)["imports"][0]["runs"]
    assert run["alignment"] == "aligned"
    log = tmp_path / "spl.txt"
    stamps = [datetime.fromtimestamp(BEGIN_S + 7200 + after_s, UTC) for after_s in range(-5, 66)]
    lines = [f"Time,{s:%m-%d-%Y %H:%M:%S.%f},Watts,400.0,Volts,230.0" for s in stamps]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["attach", run["run_id"], "--log", str(log), "--format", "ptdaemon"]
    words += ["--utc-offset-hours", "2", "--db", str(tmp_path / "db")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, (result.output, result.exception)
    (point,) = shown(tmp_path / "db")
    headline = point["energy"]["headline"]
    assert (headline["boundary"], headline["kind"]) == ("node", "integrated")
    assert headline["gross_joules"]["value"] == pytest.approx(24_000.0, rel=1e-6)


@pytest.mark.parametrize("started", ["2026-03-30T12:00:00", "2026-03-30T12:06:00Z", "nonsenseZ"])
def test_a_zone_that_cannot_be_told(tmp_path: Path, started: str) -> None:
    """Without a start in UTC that fits, the local stamps are refused, not guessed."""
    write_detail(tmp_path / "detail.txt", started=started)
    one = read_one(tmp_path)
    assert (one.clock, one.window_s) == (None, None)
    assert "zone" in fates(one, "refused")["power_begin"]


def test_what_is_not_a_valid_performance_run(tmp_path: Path) -> None:
    """An accuracy run is an error; a run that LoadGen calls invalid says so."""
    path = write_summary(tmp_path / "a.txt", mode="AccuracyOnly")
    assert "AccuracyOnly" in error_of(path)
    write_summary(path, result="INVALID")
    assert "INVALID" in fates(read_one(tmp_path), "refused")["Result is"]


def test_a_broken_detail(tmp_path: Path) -> None:
    """The message names file and line."""
    path = write_detail(tmp_path / "detail.txt")
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert f"{path}, line 4" in error_of(path)


def endpoints(**changes: Any) -> dict[str, Any]:
    """Ten samples in 2 s."""
    block = {
        "total": 10,
        "min": 1e8,
        "max": 4e8,
        "avg": 2e8,
        "median": 1.9e8,
        "std_dev": 1e7,
        "percentiles": {"50.0": 1.9e8, "99.9": 3.9e8},
    }
    value: dict[str, Any] = {
        "version": "0.1",
        "git_sha": "ea33275",
        "test_started_at": 0,
        "n_samples_issued": 10,
        "n_samples_completed": 10,
        "n_samples_failed": 0,
        "duration_ns": 2_000_000_000,
        "state": "complete",
        "complete": True,
        "ttft": block,
        "tpot": {"max": 0, "avg": 0.0},
        "latency": block,
        "output_sequence_lengths": {"total": 500},
        "input_sequence_lengths": {"total": 1000},
        "legacy_loadgen_window_duration_ns": None,
        "qps": 5.0,
        "tps": 250.0,
        "run_config": {"load_pattern": {"type": "concurrency", "target_concurrency": 4}},
    }
    return value | changes


def test_endpoints(tmp_path: Path) -> None:
    """Nanoseconds become seconds; a start that is always 0 is no instant; empty is not 0."""
    path = write_json(tmp_path / "in" / "result_summary.json", endpoints())
    one = read_one(tmp_path / "in")
    assert (one.clock, one.window_s, one.operating_point) == (None, None, {"concurrency": 4})
    assert stated(one.reported, "ttft_s", "p99.9") == pytest.approx(0.39)
    assert stated(one.reported, "e2e_s", "sd") == pytest.approx(0.01)
    assert stated(one.reported, "tpot_s", "mean") is None
    assert "always 0" in fates(one, "refused")["test_started_at"]
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert (run["tool"], run["alignment"]) == ("mlperf-endpoints", "unaligned")
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(250.0)


def test_rates_of_another_window(tmp_path: Path) -> None:
    """With LoadGen's window the rates are of that window, and named so."""
    value = endpoints(legacy_loadgen_window_duration_ns=1_000_000_000, qps=9.0, tps=490.0)
    write_json(tmp_path / "result_summary.json", value)
    one = read_one(tmp_path)
    assert stated(one.reported, "output_tokens_per_s") is None
    assert stated(one.reported, "loadgen_window_output_tokens_per_s") == 490.0
    assert stated(one.reported, "loadgen_window_s") == 1.0
    assert stated(one.reported, "duration_s") == 2.0


@pytest.mark.parametrize("complete", [False, None, "true"])
def test_only_complete_runs(tmp_path: Path, complete: object) -> None:
    """Anything but ``true`` is an error."""
    value = endpoints(complete=complete, state="interrupted")
    path = write_json(tmp_path / "result_summary.json", value)
    assert "'interrupted'" in error_of(path)
