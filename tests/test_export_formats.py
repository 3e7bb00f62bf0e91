"""``wattbench export`` in the formats of other tools: their own rules hold, and it comes back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from result_files import imported, shown, vllm_result, write_json

from wattbench.cli.main import cli

PROFILES = Path(__file__).parents[1] / "hardware_profiles"
RUN = ("run", "quickstart", "--backend", "emulated", "--seed", "1", "--quiet")


def measured(folder: Path, *words: str) -> Path:
    """A store with a measured run."""
    path = folder / "results.sqlite"
    result = CliRunner().invoke(cli, [*RUN, *words, "--concurrency", "4", "--db", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured run of a board whose counter is read."""
    return measured(tmp_path_factory.mktemp("measured"), "--hardware", "h100-sxm")


@pytest.fixture(scope="module")
def unmetered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same without a meter."""
    folder = tmp_path_factory.mktemp("unmetered")
    return measured(folder, "--hardware", "h100-sxm", "--meter", "none")


def export(database: Path, folder: Path, form: str) -> list[Path]:
    """The files that were written."""
    words = ["export", "--format", form, "--out", str(folder), "--db", str(database), "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.exception
    return [Path(path) for path in json.loads(result.stdout)["files"]]


def audit_clean(*files: Path) -> bool:
    """Whether ``wattbench audit`` finds nothing that contradicts anything."""
    result = CliRunner().invoke(cli, ["audit", *map(str, files), "--require-clean", "--json"])
    return result.exit_code == 0


def test_inferencex_keeps_its_identities(database: Path, tmp_path: Path) -> None:
    """Energy over counts, over time, and the same in both files."""
    agg, sidecar = (json.loads(p.read_text()) for p in export(database, tmp_path, "inferencex"))
    window, joules = sidecar["benchmark_window"], agg["total_gpu_energy_j"]
    for name, counts in {
        "successful_query": ("completed",),
        "input_token": ("total_input_tokens",),
        "output_token": ("total_output_tokens",),
        "total_token": ("total_input_tokens", "total_output_tokens"),
    }.items():
        assert all(isinstance(window[count], int) for count in counts)
        expected = joules / sum(window[count] for count in counts)
        assert abs(agg[f"joules_per_{name}"] - expected) <= 5.01e-7
    watts = agg["avg_total_gpu_power_w"]
    off_watts = abs(joules / window["integration_duration_s"] - watts)
    assert off_watts <= max(5.01e-4, 2e-6 * watts)
    assert agg["avg_power_w"] == watts
    assert (agg["power_metric_schema_version"], agg["power_valid"]) == (2, 1)
    assert (sidecar["schema_version"], sidecar["power_valid"], sidecar["reasons"]) == (1, 1, [])
    assert sidecar["metrics"] == {name: agg[name] for name in sidecar["metrics"]}
    assert sum(sidecar["per_gpu_energy_j"].values()) == pytest.approx(joules, abs=5.01e-4)
    assert agg["tput_per_gpu"] == pytest.approx(
        agg["input_tput_per_gpu"] + agg["output_tput_per_gpu"]
    )
    assert agg["p99_intvty"] == pytest.approx(1 / agg["p99_tpot"])
    assert agg["conc"] == 4
    assert agg["tp"] is agg["image"] is agg["isl"] is None


def test_inferencex_divides_by_the_devices_that_work(tmp_path: Path) -> None:
    """A model on several boards: figures per GPU, and the energy of each."""
    words = ("--hardware", "h100-sxm", "--backend", "emulated,model=llama-3.1-70b")
    database = measured(tmp_path, *words)
    paths = export(database, tmp_path / "out", "inferencex")
    agg, sidecar = (json.loads(path.read_text()) for path in paths)
    count = sidecar["observed_gpu_count"]
    assert count == sidecar["expected_gpu_count"] == len(sidecar["per_gpu_energy_j"]) > 1
    assert agg["avg_power_w"] == pytest.approx(agg["avg_total_gpu_power_w"] / count, abs=1e-3)
    window = sidecar["benchmark_window"]
    tokens_per_s = window["total_output_tokens"] / window["reported_duration_s"]
    assert agg["output_tput_per_gpu"] == pytest.approx(tokens_per_s / count)
    assert audit_clean(*paths)


def test_inferencex_comes_back(database: Path, tmp_path: Path) -> None:
    """Whole-run figures and the latencies; nothing contradicts anything."""
    paths = export(database, tmp_path, "inferencex")
    imported(tmp_path / "db", *paths)
    (before,), (after,) = shown(database), shown(tmp_path / "db")
    for name in (
        *("energy_per_output_token_joules", "energy_per_input_token_joules"),
        *("energy_per_total_token_joules", "output_tokens_per_s", "mean_power_watts"),
    ):
        # The last token of a run arrives at the edge of its window, and InferenceX counts it.
        assert after["metrics"][name]["value"] == pytest.approx(before["whole_run"][name], rel=2e-3)
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        found = after["metrics"][name]["p50"]["value"]
        assert found == pytest.approx(before["metrics"][name]["p50"]["value"])
    assert after["model"] == before["model"]
    assert after["operating_point"] == before["operating_point"]
    assert after["energy"]["headline"]["boundary"] == "board"
    assert not [f for f in after["findings"] if f["severity"] == "error"]
    assert audit_clean(*paths)


def test_inferencex_without_a_meter_is_invalid_by_its_own_word(
    unmetered: Path, tmp_path: Path
) -> None:
    """No key of power but the two that say so, and nothing is taken for measured."""
    agg, sidecar = (json.loads(p.read_text()) for p in export(unmetered, tmp_path, "inferencex"))
    assert (agg["power_valid"], sidecar["power_valid"]) == (0, 0)
    assert sidecar["reasons"][0] in ("telemetry_file_missing", "power_column_missing")
    assert sidecar["metrics"] == sidecar["per_gpu_energy_j"] == {}
    assert not [key for key in agg if key.startswith("joules_") or key.endswith(("_w", "_j"))]
    imported(tmp_path / "db", *sorted(tmp_path.glob("*.json")))
    (after,) = shown(tmp_path / "db")
    assert after["metrics"]["energy_per_output_token_joules"]["value"] is None
    assert after["metrics"]["output_tokens_per_s"]["value"] > 0


def test_aiperf_blocks_follow_from_its_records(database: Path, tmp_path: Path) -> None:
    """Each statistic in the unit that stands beside it, of profiling alone; energy in mJ."""
    totals_path, records_path = export(database, tmp_path, "aiperf")
    totals = json.loads(totals_path.read_text())
    records = [json.loads(line) for line in records_path.read_text().splitlines()]
    phases = {record["metadata"]["benchmark_phase"] for record in records}
    assert phases == {"profiling", "warmup"}
    records = [r for r in records if r["metadata"]["benchmark_phase"] == "profiling"]
    for name, unit in (
        *(("time_to_first_token", "ms"), ("request_latency", "ms"), ("inter_token_latency", "ms")),
        *(("output_sequence_length", "tokens"), ("input_sequence_length", "tokens")),
    ):
        values = [record["metrics"][name]["value"] for record in records]
        block = totals[name]
        assert block["unit"] == records[0]["metrics"][name]["unit"] == unit
        assert block["count"] == len(values) == totals["request_count"]["avg"]
        assert block["sum"] == pytest.approx(sum(values))
        assert block["avg"] == pytest.approx(np.mean(values))
        assert block["p99"] == pytest.approx(np.percentile(values, 99))
        assert (block["min"], block["max"]) == (min(values), max(values))
    start_ns = min(record["metadata"]["request_start_ns"] for record in records)
    end_ns = max(record["metadata"]["request_end_ns"] for record in records)
    duration_s = (end_ns - start_ns) / 1e9
    assert totals["benchmark_duration"] == {"unit": "sec", "avg": pytest.approx(duration_s)}
    joules = totals["nvidia_total_gpu_energy"]["avg"]
    assert totals["nvidia_energy_per_output_token"] == {
        "unit": "mJ/token",
        "avg": pytest.approx(1e3 * joules / totals["total_osl"]["avg"]),
    }
    assert totals["nvidia_total_gpu_power"]["avg"] == pytest.approx(joules / duration_s)


def test_aiperf_comes_back(database: Path, tmp_path: Path) -> None:
    """The latencies of wattbench, its load, and joules per token of whole requests."""
    paths = export(database, tmp_path, "aiperf")
    found = imported(tmp_path / "db", paths[0].parent)["imports"]
    assert [one["format"] for one in found] == ["aiperf"]
    (before,), (after,) = shown(database), shown(tmp_path / "db")
    for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
        p50_s = after["metrics"][name]["p50"]["value"]
        assert p50_s == pytest.approx(before["metrics"][name]["p50"]["value"], rel=1e-3)
    for name in ("model", "operating_point"):
        assert after[name] == before[name]
    for name in ("energy_per_output_token_joules", "output_tokens_per_s"):
        assert after["metrics"][name]["value"] == pytest.approx(before["whole_run"][name], rel=0.1)
    assert after["requests"] == before["requests"]
    assert after["energy"]["headline"]["boundary"] == "board"
    assert audit_clean(*paths)


@pytest.mark.parametrize("why", ["no meter", "another vendor"])
def test_aiperf_has_no_energy_that_it_could_not_have_measured(
    unmetered: Path, tmp_path: Path, why: str
) -> None:
    """Without a meter, and of boards that AIPerf does not know; no block is zero instead."""
    path = unmetered
    if why == "another vendor":
        told = (PROFILES / "h100-sxm.yaml").read_text(encoding="utf-8")
        profile = tmp_path / "other.yaml"
        profile.write_text(told.replace("vendor: NVIDIA", "vendor: Another"), encoding="utf-8")
        path = measured(tmp_path, "--hardware", str(profile))
    totals = json.loads(export(path, tmp_path / "out", "aiperf")[0].read_text())
    assert not [name for name in totals if "gpu" in name or "joule" in name or "energy" in name]
    assert totals["output_token_throughput"]["avg"] > 0


@pytest.mark.parametrize("form", ["inferencex", "aiperf"])
def test_a_run_without_requests_is_refused(tmp_path: Path, form: str) -> None:
    """Figures that were imported alone have no requests to count."""
    database = tmp_path / "db"
    imported(database, write_json(tmp_path / "v.json", vllm_result()))
    words = ["export", "--format", form, "--out", str(tmp_path / "out"), "--db", str(database)]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code != 0
    assert "needs records of requests" in str(result.exception)


def test_llmd_report_says_what_show_says(database: Path, tmp_path: Path) -> None:
    """Rates, latencies and power of the steady window; joules with their intervals beside."""
    (path,) = export(database, tmp_path, "llm-d")
    assert path.name == "report_v0.2.1_0.yaml"
    report, (told,) = yaml.safe_load(path.read_text()), shown(database)
    results, metrics = report["results"], told["metrics"]
    assert (report["version"], report["run"]["uid"]) == ("0.2.1", told["run_ids"][0])
    aggregate = results["request_performance"]["aggregate"]
    rate = aggregate["throughput"]["output_token_rate"]
    assert rate == {
        "units": "tokens/s",
        "mean": pytest.approx(metrics["output_tokens_per_s"]["value"]),
    }
    for name, ours, units in (
        ("time_to_first_token", "ttft_s", "s"),
        ("time_per_output_token", "tpot_s", "s/token"),
        ("inter_token_latency", "itl_s", "s/token"),
        ("request_latency", "e2e_s", "s"),
    ):
        block = aggregate["latency"][name]
        assert (block["units"], block["p50"]) == (
            units,
            pytest.approx(metrics[ours]["p50"]["value"]),
        )
    assert aggregate["requests"]["total"] == sum(told["requests"].values())
    (component,) = results["observability"]["components"]
    assert component["component_label"] == report["scenario"]["stack"][0]["metadata"]["label"]
    power = component["aggregate"]["power_consumption"]
    assert power == {"units": "Watts", "mean": pytest.approx(metrics["mean_power_watts"]["value"])}
    series = component["time_series"]["power_consumption"]["series"]
    assert np.mean([one["mean"] for one in series]) == pytest.approx(power["mean"])
    assert results["profiling"]["wattbench"]["energy"] == told["energy"]
    assert report["scenario"]["load"]["standardized"]["concurrency"] == 4


def test_llmd_report_leaves_power_out_where_nothing_measured_it(
    unmetered: Path, tmp_path: Path
) -> None:
    """Also for figures that were imported alone, of which no request is known."""
    imported(tmp_path / "db", write_json(tmp_path / "v.json", vllm_result()))
    for number, database in enumerate((unmetered, tmp_path / "db")):
        (path,) = export(database, tmp_path / str(number), "llm-d")
        report = yaml.safe_load(path.read_text())
        assert "observability" not in report["results"]
        assert report["results"]["request_performance"]["aggregate"]["throughput"]
        assert ("load" in report["scenario"]) == (database == unmetered)
