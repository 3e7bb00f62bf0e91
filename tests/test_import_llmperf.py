"""LLMPerf: its inter-token latency is refused with the reason, its other figures are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from result_files import imported, shown, write_json

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def response(ttft_s: float, **changes: Any) -> dict[str, Any]:
    """A response of ten tokens in two seconds."""
    value: dict[str, Any] = {
        "error_code": None,
        "error_msg": "",
        "ttft_s": ttft_s,
        "end_to_end_latency_s": 2.0,
        "inter_token_latency_s": 0.2,
        "request_output_throughput_token_per_s": 5.0,
        "number_total_tokens": 30,
        "number_output_tokens": 10,
        "number_input_tokens": 20,
    }
    return value | changes


def read_one(path: Path) -> Measurement:
    """The only measurement of a file."""
    ((_, name, found),) = read_results([path])
    assert name == "llmperf"
    assert not isinstance(found, BadDocument), found
    (one,) = found
    return one


def refused(one: Measurement) -> dict[str, str]:
    """Why, of each refused field."""
    return {note.field: note.why for note in one.notes if note.fate == "refused"}


def test_responses(tmp_path: Path) -> None:
    """Failures are counted and left out; there is no gap between tokens."""
    failed = response(0.0, error_code=500, number_output_tokens=0, end_to_end_latency_s=0.0)
    path = write_json(tmp_path / "r.json", [response(0.1), response(0.3), failed])
    one = read_one(path)
    assert stated(one.reported, "ttft_s", "mean") == pytest.approx(0.2)
    assert stated(one.reported, "ttft_s", "p50") == pytest.approx(0.2)
    assert stated(one.reported, "output_tokens_count") == 20
    assert (stated(one.reported, "completed_count"), stated(one.reported, "failed_count")) == (2, 1)
    assert {figure.metric for figure in one.reported} & {"itl_s", "tpot_s"} == set()
    assert "sum" in refused(one)["inter_token_latency_s"]
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert (run["alignment"], run["has_requests"]) == ("unaligned", False)
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["e2e_s"]["p50"]["value"] == pytest.approx(2.0)


def test_summary(tmp_path: Path) -> None:
    """Flat names; per minute becomes per second; p05 is p5."""
    value = {
        "model": "some/model",
        "num_concurrent_requests": 4,
        "results_ttft_s_quantiles_p05": 0.05,
        "results_ttft_s_quantiles_p50": 0.1,
        "results_ttft_s_stddev": 0.02,
        "results_end_to_end_latency_s_mean": 2.0,
        "results_inter_token_latency_s_mean": 0.2,
        "results_inter_token_latency_s_quantiles_p99": 0.3,
        "results_number_errors": 1,
        "results_num_completed_requests": 10,
        "results_num_completed_requests_per_min": 30.0,
        "results_mean_output_throughput_token_per_s": 15.0,
    }
    one = read_one(write_json(tmp_path / "s.json", value))
    assert one.operating_point == {"concurrency": 4}
    assert stated(one.reported, "ttft_s", "p5") == 0.05
    assert stated(one.reported, "ttft_s", "sd") == 0.02
    assert stated(one.reported, "requests_per_s") == pytest.approx(0.5)
    assert stated(one.reported, "output_tokens_per_s") == 15.0
    assert set(refused(one)) == {name for name in value if "inter_token" in name}


def test_a_success_without_a_time(tmp_path: Path) -> None:
    """The message names file and item."""
    ((_, _, found),) = read_results(
        [write_json(tmp_path / "r.json", [response(0.1) | {"ttft_s": None}])]
    )
    assert isinstance(found, BadDocument)
    assert "item 0: ttft_s is missing" in str(found)


def test_only_failures(tmp_path: Path) -> None:
    """No latency is told of responses that all failed."""
    one = read_one(write_json(tmp_path / "r.json", [response(0.0, error_code=500)]))
    assert stated(one.reported, "ttft_s", "mean") is None
    assert stated(one.reported, "failed_count") == 1
