"""GuideLLM's files of both versions: TPOT by its right name, samples, and what is a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import called
from peer_files import (
    START_S,
    guidellm_benchmark,
    guidellm_metrics,
    guidellm_report,
    guidellm_request,
    old_guidellm_benchmark,
)
from result_files import imported, shown, write_json

import wattbench
from wattbench.core.run import stated
from wattbench.interchange.results import Measurement, read_results


def measured(path: Path, *benchmarks: dict[str, Any], **report: Any) -> Measurement:
    """The only measurement of a report."""
    file = write_json(path / "benchmarks.json", guidellm_report(*benchmarks, **report))
    ((_, name, found),) = read_results([file])
    assert name == "guidellm"
    assert isinstance(found, list), found
    (one,) = found
    return one


def notes(found: Measurement, field: str) -> str:
    """Why a field was converted or refused."""
    return " ".join(note.why for note in found.notes if note.field == field)


@pytest.mark.parametrize(
    ("benchmark", "version", "layout"),
    [(guidellm_benchmark(), 2, "v2"), (old_guidellm_benchmark(), 1, "v1")],
)
def test_either_version(
    tmp_path: Path, benchmark: dict[str, Any], version: int, layout: str
) -> None:
    """Latencies follow from the requests, on Unix time, in the measured window."""
    report = guidellm_report(benchmark, version=version, told="x")
    path = write_json(tmp_path / "b.json", report)
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert (run["layout"], run["alignment"]) == (layout, "aligned")
    assert (run["tool_version"], run["operating_point"]) == ("x", {"concurrency": 2})
    (point,) = shown(tmp_path / "db")
    requests = wattbench.load(tmp_path / "db").requests
    assert requests.ttft_s.tolist() == pytest.approx([0.1, 0.1], abs=1e-6)
    assert requests.tpot_s.tolist() == pytest.approx([0.05, 0.05], abs=1e-6)
    assert requests.e2e_s.tolist() == pytest.approx([0.2, 0.2], abs=1e-6)
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)
    assert point["window"]["start_unix_s"] == START_S
    assert point["window"]["duration_s"] == pytest.approx(2.0)
    assert point["requests"] == {"completed": 2, "failed": 0}


def test_figures_by_their_right_names(tmp_path: Path) -> None:
    """``time_per_output_token_ms`` includes TTFT, and ``tokens_per_second`` counts prompts."""
    found = measured(tmp_path, guidellm_benchmark())
    assert stated(found.reported, "tpot_s", "p50") == pytest.approx(0.05)
    assert stated(found.reported, "tpot_s", "p0.1") == pytest.approx(0.05)
    assert stated(found.reported, "ttft_s", "p99.9") == pytest.approx(0.1)
    assert stated(found.reported, "e2e_per_output_token_s", "mean") == pytest.approx(0.066)
    assert stated(found.reported, "e2e_s", "mean") == pytest.approx(0.2)
    assert stated(found.reported, "output_tokens_per_s") == 3.0
    assert stated(found.reported, "output_tokens_count") == 6
    assert stated(found.reported, "input_tokens_count") == 20
    assert stated(found.reported, "duration_s") == pytest.approx(2.0)
    assert "prompt" in notes(found, "metrics.tokens_per_second")
    assert "no TPOT" in notes(found, "metrics.time_per_output_token_ms.successful.mean")


def test_a_mean_gap_is_no_itl(tmp_path: Path) -> None:
    """No gap between two tokens is kept: quantiles of even ones would hide every stall."""
    requests = [guidellm_request(0) for _ in range(8)]
    path = write_json(
        tmp_path / "b.json",
        guidellm_report(guidellm_benchmark(successful=requests)),
    )
    imported(tmp_path / "db", path)
    (point,) = shown(tmp_path / "db")
    unknown = {"value": None, "reason": "gaps_not_kept"}
    assert point["metrics"]["itl_s"] == {**dict.fromkeys(["p50", "p95", "p99"], unknown), "n": 0}
    assert point["metrics"]["tpot_s"]["n"] == 8
    assert point["metrics"]["tpot_s"]["p50"]["value"] is not None
    for form in ("aiperf", "llm-d"):
        words = ("--format", form, "--runs", "latest", "--out", str(tmp_path / form))
        done = called("export", *words, "--db", str(tmp_path / "db"), "--json")
        for file in json.loads(done.stdout)["files"]:
            assert "inter_chunk_latency" not in Path(file).read_text()
            assert "inter_token_latency:" not in Path(file).read_text()


def test_the_old_version_changed_its_mind(tmp_path: Path) -> None:
    """What ``time_per_output_token_ms`` of version 1 means depends on the release: refused."""
    found = measured(tmp_path, old_guidellm_benchmark(), version=1)
    assert stated(found.reported, "e2e_per_output_token_s", "mean") is None
    assert "changed" in notes(found, "metrics.time_per_output_token_ms")
    assert found.model == "some/model"


def test_each_benchmark_is_a_run(tmp_path: Path) -> None:
    """A sweep lies in one file."""
    loads = [{"type_": "synchronous"}, {"type_": "constant", "rate": 2.5}, {"type_": "throughput"}]
    benchmarks = [guidellm_benchmark(strategy=load) for load in loads]
    path = write_json(tmp_path / "b.json", guidellm_report(*benchmarks))
    runs = imported(tmp_path / "db", path)["imports"][0]["runs"]
    points = [run["operating_point"] for run in runs]
    assert points == [{"concurrency": 1}, {"rate_per_s": 2.5}, {}]


def test_an_empty_sample_is_unknown(tmp_path: Path) -> None:
    """GuideLLM writes 0.0 where nothing succeeded."""
    error = guidellm_request(0, output_tokens=None)
    found = measured(tmp_path, guidellm_benchmark(successful=[], errored=[error]))
    assert stated(found.reported, "ttft_s", "p50") is None
    assert stated(found.reported, "output_tokens_per_s") is None
    assert "empty" in notes(found, "metrics.time_to_first_token_ms")
    assert (stated(found.reported, "completed_count"), stated(found.reported, "failed_count")) == (
        0,
        1,
    )


def test_a_sample_of_requests_gives_no_totals(tmp_path: Path) -> None:
    """With ``sample_size`` the lists are short: totals are those of ``metrics``, and it is said."""
    benchmark = guidellm_benchmark(sample_size=2)
    benchmark["metrics"] = guidellm_metrics(200)
    benchmark["metrics"]["request_totals"] = {"successful": 200, "errored": 0, "incomplete": 0}
    found = measured(tmp_path, benchmark)
    assert found.requests is None
    assert found.layout == "v2 sampled"
    assert "2 of 200 (sample_size 2)" in notes(found, "requests")
    imported(tmp_path / "db", tmp_path / "benchmarks.json")
    (point,) = shown(tmp_path / "db")
    assert point["requests"]["completed"] == 200
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(600 / 2)
    assert point["metrics"]["ttft_s"]["p50"]["value"] == pytest.approx(0.1)


def test_errored_and_incomplete_are_failures(tmp_path: Path) -> None:
    """Each with its class; one that was never sent has no chunks."""
    error = guidellm_request(1, output_tokens=None)
    error["info"] |= {"status": "errored", "error": "ReadTimeout('too slow')"}
    error["info"]["timings"] = {"request_start": None, "request_end": None, "token_iterations": 0}
    cut = guidellm_request(1, usage=False)
    cut["info"] |= {"status": "cancelled", "error": "Request was cancelled"}
    cut["info"]["timings"]["request_end"] = None
    found = measured(tmp_path, guidellm_benchmark(errored=[error], incomplete=[cut]))
    assert found.requests is not None
    *_, errored, incomplete = found.requests()
    assert (errored.error_class, errored.error_text) == ("ReadTimeout", "ReadTimeout('too slow')")
    assert (incomplete.error_class, len(errored.chunk_s)) == ("Incomplete", 0)
    assert len(incomplete.chunk_s) == 3
    assert stated(found.reported, "failed_count") == 2


def test_chunks_are_no_tokens(tmp_path: Path) -> None:
    """Without usage GuideLLM counts chunks: these are refused, and so is what rests on them."""
    requests = [guidellm_request(index, usage=False) for index in (0, 1)]
    found = measured(tmp_path, guidellm_benchmark(successful=requests))
    assert found.requests is not None
    assert [r.output_tokens for r in found.requests()] == [None, None]
    assert [r.tokens_source for r in found.requests()] == [None, None]
    for metric in ("output_tokens_count", "output_tokens_per_s"):
        assert stated(found.reported, metric) is None
    assert stated(found.reported, "tpot_s", "mean") is None
    assert stated(found.reported, "ttft_s", "mean") == pytest.approx(0.1)
    assert "chunk" in notes(found, "metrics.output_token_count")


def test_without_streaming_ttft_is_unknown(tmp_path: Path) -> None:
    """No TTFT, neither zero nor E2E; what the tool says of E2E and throughput stands."""
    backend = {"model": "some/model", "stream": False}
    path = write_json(tmp_path / "b.json", guidellm_report(guidellm_benchmark(backend=backend)))
    imported(tmp_path / "db", path)
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["ttft_s"]["p50"]["value"] is None
    assert point["metrics"]["tpot_s"]["p50"]["value"] is None
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(0.2)
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(3.0)


def test_outside_the_window_is_not_measured(tmp_path: Path) -> None:
    """Warm-up and cool-down are marked."""
    requests = [guidellm_request(index) for index in (-1, 0, 1, 3)]
    found = measured(tmp_path, guidellm_benchmark(successful=requests))
    assert found.requests is not None
    phases = [result.phase for result in found.requests()]
    assert phases == ["warmup", "measured", "measured", "warmup"]


@pytest.mark.parametrize(("kind", "waited_s"), [("constant", 0.5), ("concurrent", 0.0)])
def test_waiting_for_a_slot_counts_in_an_open_loop(
    tmp_path: Path, kind: str, waited_s: float
) -> None:
    """A load by rate wanted to send when it was targeted; users of a closed loop did not."""
    strategy = {"type_": kind, "rate": 1.0, "streams": 2}
    found = measured(tmp_path, guidellm_benchmark(strategy=strategy))
    assert found.requests is not None
    result = next(found.requests())
    assert result.sent_s - result.queued_s == pytest.approx(waited_s, abs=1e-6)


def test_chunks_that_bundle_tokens(tmp_path: Path) -> None:
    """The chunks that came are spread, not the tokens: TPOT rests on those after the first."""
    request = guidellm_request(0, output_tokens=6)
    found = measured(tmp_path, guidellm_benchmark(successful=[request]))
    assert found.requests is not None
    result = next(found.requests())
    assert (len(result.chunk_s), result.output_tokens) == (3, 6)
    assert "mean gap" in notes(found, "requests")


def test_a_version_to_come_is_refused(tmp_path: Path) -> None:
    """Nobody knows what its fields will mean."""
    path = write_json(tmp_path / "b.json", guidellm_report(version=3))
    (bad,) = read_results([path])
    assert "metadata.version is 3" in str(bad[2])


HOSTILE: dict[str, dict[str, Any]] = {
    "no times": {"info": {}, "request_start_time": None},
    "a text for a time": {"info": {}, "request_start_time": "now"},
    "an endless answer": {"output_tokens": 10**12, "output_metrics": {"total_tokens": 10**12}},
    "backwards": {"info": {}, "request_start_time": START_S, "request_end_time": START_S - 1},
    "a list for an object": {"info": [1]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_request_costs_the_file(tmp_path: Path, kind: str) -> None:
    """One sentence with file, benchmark and request, and nothing is stored."""
    requests = [guidellm_request(0), guidellm_request(1) | HOSTILE[kind]]
    report = guidellm_report(guidellm_benchmark(successful=requests))
    path = write_json(tmp_path / "b.json", report)
    (one,) = imported(tmp_path / "db", path, exit_code=1)["imports"]
    assert "benchmark 0, requests.successful[1]" in one["error"]
    assert not (tmp_path / "db").exists()
