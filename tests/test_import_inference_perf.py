"""inference-perf: stages and requests of one folder, on the monotonic clock of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from result_files import imported, shown, write_json

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def stage(rate: float | None, **changes: Any) -> dict[str, Any]:
    """Two successes of 4 tokens in 2 s."""
    statistics = {"mean": 0.25, "min": 0.2, "p0.1": 0.2, "median": 0.25, "p99.9": 0.3, "max": 0.3}
    load: dict[str, Any] = {"count": 2, "schedule_delay": {"mean": 0.001, "median": 0.001}}
    if rate is not None:
        load |= {"send_duration": 1.0, "requested_rate": rate, "achieved_rate": 2.0}
    value = {
        "benchmark_time_seconds": 2.0,
        "load_summary": load,
        "successes": {
            "count": 2,
            "latency": {
                "request_latency": statistics,
                "normalized_time_per_output_token": {"mean": 0.0625, "min": 0.0},
                "time_per_output_token": {"mean": 0.05},
                "time_to_first_token": {"median": 0.1},
                "inter_token_latency": {"mean": 0.05, "min": 0.0},
            },
            "throughput": {
                "input_tokens_per_sec": 10.0,
                "output_tokens_per_sec": 4.0,
                "total_tokens_per_sec": 14.0,
                "requests_per_sec": 1.0,
            },
            "prompt_tokens": {"total": 20, "cached": 0, "uncached": 20},
            "output_tokens": {"total": 8},
        },
        "failures": {"count": 0},
        "goodput_metrics": {"request_goodput": 0.5, "good_requests": 1},
    }
    return value | changes


def request(start_s: float, *, error: bool = False) -> dict[str, Any]:
    """An answer of 4 tokens in three chunks, the second of two tokens."""
    times = [start_s + 0.1, start_s + 0.2, start_s + 0.2, start_s + 0.3]
    answer = {
        "output_tokens": 5,
        "server_usage": {"prompt_tokens": 10, "completion_tokens": 4},
        "chunk_times": [start_s + 0.01, *times],
        "output_token_times": times,
    }
    failure = {"error_type": "HTTP Error 500", "error_msg": "no"}
    return {
        "scheduled_time": start_s - 0.001,
        "start_time": start_s,
        "end_time": start_s + 0.3,
        "request": "{}",
        "response": "…",
        "info": {
            "request_metrics": {"text": {"input_tokens": 11}},
            "response_metrics": None if error else answer,
        },
        "error": failure if error else None,
    }


def read_all(folder: Path) -> list[Measurement]:
    """The measurements of a folder."""
    ((_, name, found),) = read_results(sorted(folder.iterdir()))
    assert name == "inference-perf"
    assert not isinstance(found, BadDocument), found
    return found


def test_a_stage(tmp_path: Path) -> None:
    """Seconds stay seconds; the normalised time includes the first token and has its own name."""
    path = write_json(tmp_path / "stage_0_lifecycle_metrics.json", stage(2.0))
    (one,) = read_all(tmp_path)
    assert (one.layout, one.operating_point, one.clock) == ("stage", {"rate_per_s": 2.0}, None)
    assert stated(one.reported, "e2e_s", "p50") == 0.25
    assert stated(one.reported, "e2e_s", "p99.9") == 0.3
    assert stated(one.reported, "tpot_s", "mean") == 0.05
    assert stated(one.reported, "e2e_per_output_token_s", "mean") == 0.0625
    assert stated(one.reported, "e2e_per_output_token_s", "min") is None
    assert stated(one.reported, "itl_s", "min") == 0.0
    assert stated(one.reported, "good_count") == 1
    (run,) = imported(tmp_path / "db", path)["imports"][0]["runs"]
    assert run["alignment"] == "unaligned"
    (point,) = shown(tmp_path / "db")
    assert point["metrics"]["output_tokens_per_s"]["value"] == pytest.approx(4.0)
    assert point["metrics"]["energy_per_output_token_joules"]["value"] is None


def test_requests_of_stages(tmp_path: Path) -> None:
    """Stages follow each other, also 2 and 10; the summary that mixes them is only kept."""
    write_json(tmp_path / "summary_lifecycle_metrics.json", stage(None))
    for number in (2, 10):
        write_json(tmp_path / f"stage_{number}_lifecycle_metrics.json", stage(float(number)))
    rows = [request(start_s) for start_s in (1011.0, 1000.0, 1001.0, 1010.0)]
    write_json(tmp_path / "per_request_lifecycle_metrics.json", rows)
    first, second = read_all(tmp_path)
    assert first.operating_point == {"rate_per_s": 2.0}
    assert first.window_s == pytest.approx((1000.0, 1001.3))
    assert second.window_s == pytest.approx((1010.0, 1011.3))
    assert first.clock == "monotonic"
    assert (
        "mixes" in {note.field: note.why for note in first.notes}["summary_lifecycle_metrics.json"]
    )


def test_requests_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """A list that does not hold as many as the stages say belongs to none of them."""
    for number in (0, 1):
        write_json(tmp_path / f"stage_{number}_lifecycle_metrics.json", stage(float(number + 1)))
    write_json(tmp_path / "per_request_lifecycle_metrics.json", [request(1000.0)])
    assert [one.requests for one in read_all(tmp_path)] == [None, None]


def test_a_request(tmp_path: Path) -> None:
    """Counts of the server, chunks with text only, tokens of one chunk together."""
    rows = [request(1000.0), request(1001.0, error=True)]
    write_json(tmp_path / "per_request_lifecycle_metrics.json", rows)
    (one,) = read_all(tmp_path)
    assert one.requests is not None
    good, bad = one.requests()
    assert good.chunk_s.tolist() == pytest.approx([1000.1, 1000.2, 1000.3])
    assert good.chunk_tokens.tolist() == [1, 2, 1]
    assert (good.input_tokens, good.output_tokens, good.tokens_source) == (10, 4, "usage")
    assert good.queued_s == pytest.approx(999.999)
    assert (bad.error_class, bad.output_tokens) == ("HTTP Error 500", None)


def test_requests_become_points(tmp_path: Path) -> None:
    """A closed loop's summary with its requests gives latencies with samples behind them."""
    value = stage(None)
    value["load_summary"]["concurrency"] = 2
    write_json(tmp_path / "in" / "summary_lifecycle_metrics.json", value)
    rows = [request(1000.0), request(1001.0)]
    write_json(tmp_path / "in" / "per_request_lifecycle_metrics.json", rows)
    (run,) = imported(tmp_path / "db", tmp_path / "in")["imports"][0]["runs"]
    assert run["operating_point"] == {"concurrency": 2}
    assert run["has_requests"]
    (point,) = shown(tmp_path / "db")
    assert point["requests"] == {"completed": 2, "failed": 0}


def test_nothing_succeeded(tmp_path: Path) -> None:
    """Without a success there is no latency and no rate, and none is 0."""
    value = stage(1.0, failures={"count": 2})
    value["successes"] |= {"count": 0, "throughput": {"output_tokens_per_sec": 0.0}}
    write_json(tmp_path / "stage_0_lifecycle_metrics.json", value)
    (one,) = read_all(tmp_path)
    assert stated(one.reported, "failed_count") == 2
    assert stated(one.reported, "ttft_s", "p50") is None
    assert stated(one.reported, "output_tokens_per_s") is None


def test_a_request_without_a_time(tmp_path: Path) -> None:
    """The message names file and item."""
    row = request(1000.0) | {"start_time": None}
    write_json(tmp_path / "r.json", [row])
    ((_, _, found),) = read_results([tmp_path / "r.json"])
    assert isinstance(found, BadDocument)
    assert "item 0: start_time" in str(found)
