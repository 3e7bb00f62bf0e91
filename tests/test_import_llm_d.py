"""llm-d's benchmark report 0.2: what ``wattbench export`` writes comes back, and that of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import called
from result_files import imported, shown, vllm_details, vllm_result, write_json

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def report(**changes: Any) -> dict[str, Any]:
    """A report of another tool: 20 requests of 100 tokens at 50 tokens/s, one failed."""
    latency = {"units": "ms", "mean": 110.0, "stddev": 5.0, "p50": 100.0, "p99p9": 200.0}
    value: dict[str, Any] = {
        "version": "0.2.1",
        "run": {
            "uid": "x",
            "time": {
                "start": "2026-03-31T12:00:00+00:00",
                "end": "2026-03-31T12:00:40+00:00",
                "duration": "PT40.0S",
            },
        },
        "scenario": {
            "stack": [
                {"standardized": {"kind": "generic", "tool": "router"}},
                {
                    "standardized": {
                        "kind": "inference_engine",
                        "tool": "vllm",
                        "model": {"name": "some/model"},
                        "accelerator": {"model": "H100", "count": 2},
                    }
                },
            ],
            "load": {"standardized": {"tool": "guidellm", "tool_version": "1.0", "concurrency": 4}},
        },
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": {"total": 21, "failures": 1},
                    "latency": {"time_to_first_token": latency},
                    "throughput": {"output_token_rate": {"units": "tokens/s", "mean": 50.0}},
                }
            },
            "observability": {"components": [{"component_label": "engine"}]},
        },
    }
    return value | changes


def read_one(path: Path) -> Measurement:
    """The only measurement of a file."""
    ((_, name, found),) = read_results([path])
    assert name == "llm-d"
    assert not isinstance(found, BadDocument), found
    (one,) = found
    return one


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_report_of_another_tool(tmp_path: Path, form: str) -> None:
    """Units of each block, percentiles with their point, and a window on Unix time."""
    path = tmp_path / f"report.{form}"
    dump = yaml.safe_dump if form == "yaml" else json.dumps
    path.write_text(dump(report()), encoding="utf-8")
    one = read_one(path)
    assert (one.layout, one.clock, one.model, one.engine) == (
        *("0.2.1", "unix", "some/model"),
        "vllm",
    )
    assert (one.hardware, one.device_count, one.boundary) == ("H100", 2, None)
    assert (one.operating_point, one.workload) == ({"concurrency": 4}, {"name": "guidellm"})
    assert one.window_s is not None
    assert one.window_s[1] - one.window_s[0] == 40.0
    assert stated(one.reported, "ttft_s", "p50") == pytest.approx(0.1)
    assert stated(one.reported, "ttft_s", "p99.9") == pytest.approx(0.2)
    assert stated(one.reported, "ttft_s", "sd") == pytest.approx(0.005)
    assert stated(one.reported, "output_tokens_per_s") == 50.0
    assert stated(one.reported, "completed_count") == 20
    refused = {note.field: note.why for note in one.notes if note.fate == "refused"}
    assert "no boundary" in refused["results.observability"]


def test_what_is_exported_comes_back(tmp_path: Path) -> None:
    """Rates, latencies and joules per token of our own report, and an audit finds nothing."""
    database, again = tmp_path / "db", tmp_path / "again"
    words = ("--backend", "emulated", "--hardware", "h100-sxm", "--concurrency", "4", "--quiet")
    assert called("run", "quickstart", *words, "--db", str(database)).returncode == 0
    out = ("--out", str(tmp_path / "out"), "--db", str(database), "--json")
    done = called("export", "--format", "llm-d", *out)
    (path,) = json.loads(done.stdout)["files"]
    (run,) = imported(again, path)["imports"][0]["runs"]
    assert run["operating_point"] == {"concurrency": 4}
    (before,), (after,) = shown(database), shown(again)
    for name in ("output_tokens_per_s", "energy_per_output_token_joules", "mean_power_watts"):
        expected = before["metrics"][name]["value"]
        assert after["metrics"][name]["value"] == pytest.approx(expected, rel=1e-6), name
    expected = before["metrics"]["ttft_s"]["p50"]["value"]
    assert after["metrics"]["ttft_s"]["p50"]["value"] == pytest.approx(expected)
    assert after["energy"]["headline"]["boundary"] == before["energy"]["headline"]["boundary"]
    assert after["energy"]["headline"]["kind"] == "reported"
    audit = json.loads(called("audit", path, "--json").stdout)
    assert audit["clean"] is True, audit


def test_a_report_without_requests_comes_back(tmp_path: Path) -> None:
    """An import that has totals alone is exported and read as such."""
    imported(tmp_path / "db", write_json(tmp_path / "v.json", vllm_result() | vllm_details()))
    out = ("--out", str(tmp_path / "out"), "--db", str(tmp_path / "db"), "--json")
    (path,) = json.loads(called("export", "--format", "llm-d", *out).stdout)["files"]
    one = read_one(Path(path))
    assert stated(one.reported, "output_tokens_count") == 6
    assert one.boundary is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(report(version="0.1")), "version is 0.1"),
        ("version: '0.2.1'\nrun: {uid: x}\nscenario: [\n", "is not YAML"),
        ("version: '0.2.1'\nrun: &a {uid: x}\nscenario: *a\n", "aliases"),
        ("version: '0.2.1'\nrun: {time: {start: noon}}\n", "ISO 8601"),
    ],
)
def test_a_wrong_report(tmp_path: Path, text: str, said: str) -> None:
    """One sentence that names the file."""
    path = tmp_path / "report.yaml"
    path.write_text(text, encoding="utf-8")
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert said in str(found)
    assert str(path) in str(found)


def test_a_gap_of_nothing_in_a_sample_is_taken(tmp_path: Path) -> None:
    """Two tokens of one packet: the minimum is 0; without any sample it is no figure."""
    for block, found in (
        ({"units": "ms", "mean": 7.0, "min": 0.0}, 0.0),
        ({"units": "ms", "mean": 0.0, "min": 0.0}, None),
    ):
        value = report()
        aggregate = value["results"]["request_performance"]["aggregate"]
        aggregate["latency"]["inter_token_latency"] = block
        one = read_one(write_json(tmp_path / "r.json", value))
        assert stated(one.reported, "itl_s", "min") == found
