"""Files of AIPerf and GuideLLM, constructed, with figures that can be followed.

Two answers of 3 tokens, one second apart: 0.1 s to the first token and 0.05 s between tokens.
"""

from __future__ import annotations

from typing import Any

START_NS = 1_790_000_000_000_000_000
START_S = 1_790_000_000.0


def block(unit: str, value: float, **more: float) -> dict[str, Any]:
    """A metric of AIPerf: its unit, and statistics of a sample of two."""
    return {"unit": unit, "avg": value, "p50": value, "p99": value, "count": 2, **more}


def aiperf_totals(**changes: Any) -> dict[str, Any]:
    """``profile_export_aiperf.json``; None takes a key away."""
    totals: dict[str, Any] = {
        "schema_version": "1.4",
        "aiperf_version": "0.13.0",
        "benchmark_id": "b1",
        "request_throughput": {"unit": "requests/sec", "avg": 1.0},
        "request_latency": block("ms", 200.0, std=0.0),
        "request_count": {"unit": "requests", "avg": 2.0},
        "time_to_first_token": block("ms", 100.0),
        "inter_token_latency": block("ms", 50.0),
        "inter_chunk_latency": block("ms", 50.0),
        "output_token_throughput": {"unit": "tokens/sec", "avg": 3.0},
        "output_token_throughput_per_user": block("tokens/sec/user", 20.0),
        "benchmark_duration": {"unit": "sec", "avg": 2.0},
        "total_isl": {"unit": "tokens", "avg": 20.0},
        "total_osl": {"unit": "tokens", "avg": 6.0},
        "input_config": {
            "models": {"items": [{"name": "some/model"}]},
            "phases": [
                {"name": "warmup", "kind": "warmup", "type": "concurrency", "concurrency": 1},
                {"name": "profiling", "kind": "profiling", "concurrency": 2},
            ],
        },
        "was_cancelled": False,
        "start_time": "2026-09-21T12:00:00",
        "end_time": "2026-09-21T12:00:02",
    }
    return {key: value for key, value in (totals | changes).items() if value is not None}


def energy(vendor: str = "nvidia") -> dict[str, Any]:
    """Blocks of GPU telemetry: 60 J, so 10 J per output token, which AIPerf writes in mJ."""
    return {
        f"{vendor}_total_gpu_energy": {"unit": "J", "avg": 60.0},
        f"{vendor}_total_gpu_power": {"unit": "W", "avg": 30.0},
        f"{vendor}_energy_per_output_token": {"unit": "mJ/token", "avg": 10_000.0},
        f"{vendor}_output_tokens_per_joule": {"unit": "tokens/J", "avg": 0.1},
        "telemetry_data": {
            "endpoints": {
                "http://localhost:9400": {
                    "gpus": {"gpu_0": {"gpu_uuid": "GPU-1", "gpu_name": "Some GPU"}}
                }
            }
        },
    }


def aiperf_record(index: int = 0, *, phase: str = "profiling", **metrics: Any) -> dict[str, Any]:
    """A line of ``profile_export.jsonl``; a metric of None is left out."""
    start_ns = START_NS + index * 1_000_000_000
    found = {
        "time_to_first_token": {"value": 100.0, "unit": "ms"},
        "request_latency": {"value": 200.0, "unit": "ms"},
        "inter_chunk_latency": {"value": [50.0, 50.0], "unit": "ms"},
        "output_sequence_length": {"value": 3, "unit": "tokens"},
        "input_sequence_length": {"value": 10, "unit": "tokens"},
        "usage_completion_tokens": {"value": 3, "unit": "tokens"},
    } | metrics
    return {
        "metadata": {
            "session_num": index,
            "turn_index": 0,
            "credit_issued_ns": start_ns - 500_000_000,
            "request_start_ns": start_ns,
            "request_end_ns": start_ns + 200_000_000,
            "benchmark_phase": phase,
            "was_cancelled": False,
        },
        "metrics": {name: metric for name, metric in found.items() if metric is not None},
        "error": None,
    }


def failed_record(index: int) -> dict[str, Any]:
    """A line of a request that the server refused."""
    record = aiperf_record(index)
    error = {"code": 503, "type": "ServiceUnavailable", "message": "no slot is free"}
    return record | {"metrics": {}, "error": error}


def sample(value: float, count: int = 2, total: float | None = None) -> dict[str, Any]:
    """Statistics of GuideLLM; of an empty sample it writes zeros."""
    value = value if count else 0.0
    statistics = {"mean": value, "median": value, "std_dev": 0.0, "min": value, "max": value}
    percentiles = dict.fromkeys(("p001", "p01", "p50", "p99", "p999"), value)
    total_sum = value * count if total is None else total
    one = {**statistics, "count": count, "total_sum": total_sum, "percentiles": percentiles}
    empty = one | {"count": 0}
    return {"successful": one, "errored": empty, "incomplete": empty, "total": None}


def guidellm_metrics(count: int = 2) -> dict[str, Any]:
    """``metrics`` of a benchmark."""
    return {
        "requests_per_second": sample(1.0, count),
        "request_latency": sample(0.2, count),
        "prompt_token_count": sample(10.0, count),
        "output_token_count": sample(3.0, count),
        "output_tokens_per_second": sample(3.0, 3 * count) | {},
        "tokens_per_second": sample(13.0, count),
        "time_to_first_token_ms": sample(100.0, count),
        "inter_token_latency_ms": sample(50.0, 2 * count),
        "time_per_output_token_ms": sample(66.0, 3 * count),
    }


def guidellm_request(index: int = 0, *, usage: bool = True, **changes: Any) -> dict[str, Any]:
    """A request of version 2."""
    start_s = START_S + index
    timings = {
        "targeted_start": start_s - 0.5,
        "request_start": start_s,
        "first_token_iteration": start_s + 0.1,
        "last_token_iteration": start_s + 0.2,
        "token_iterations": 3,
        "request_end": start_s + 0.21,
    }
    request = {
        "info": {"turn_index": 0, "status": "completed", "error": None, "timings": timings},
        "output_metrics": {"total_tokens": 3 if usage else None},
        "request_start_time": start_s,
        "request_end_time": start_s + 0.21,
        "prompt_tokens": 10,
        "output_tokens": 3,
    }
    return request | changes


def guidellm_report(
    *benchmarks: dict[str, Any], version: int = 2, told: str = "0.8.1"
) -> dict[str, Any]:
    """``benchmarks.json``."""
    return {
        "metadata": {"version": version, "guidellm_version": told},
        "config": {},
        "benchmarks": list(benchmarks or [guidellm_benchmark()]),
    }


def guidellm_benchmark(
    successful: list[dict[str, Any]] | None = None,
    errored: list[dict[str, Any]] | None = None,
    incomplete: list[dict[str, Any]] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """A benchmark of version 2 over two seconds; its totals count the lists."""
    lists = {
        "successful": [guidellm_request(0), guidellm_request(1)]
        if successful is None
        else successful,
        "errored": errored or [],
        "incomplete": incomplete or [],
    }
    totals = {state: len(requests) for state, requests in lists.items()}
    totals["total"] = sum(totals.values())
    return {
        "type_": "generative_benchmark",
        "config": {
            "strategy": {"type_": "concurrent", "streams": 2},
            "backend": {"model": "some/model", "stream": True},
            "sample_size": None,
        }
        | config,
        "scheduler_metrics": {
            "start_time": START_S - 5,
            "measure_start_time": START_S,
            "measure_end_time": START_S + 2,
            "end_time": START_S + 5,
        },
        "metrics": guidellm_metrics(totals["successful"]) | {"request_totals": totals},
        "requests": lists | {"total": None},
    }


def old_guidellm_benchmark() -> dict[str, Any]:
    """A benchmark of version 1: times lie beside each other, and totals outside of the metrics."""
    requests = [
        {
            "scheduler_info": {"targeted_start_time": START_S + index},
            "prompt_tokens": 10,
            "output_tokens": 3,
            "start_time": START_S + index,
            "end_time": START_S + index + 0.21,
            "first_token_time": START_S + index + 0.1,
            "last_token_time": START_S + index + 0.2,
        }
        for index in (0, 1)
    ]
    return {
        "type_": "generative_benchmark",
        "args": {"strategy": {"type_": "concurrent", "streams": 2}},
        "run_stats": {"start_time": START_S - 1, "end_time": START_S + 3},
        "worker": {"backend_model": "some/model"},
        "metrics": guidellm_metrics(),
        "request_totals": {"successful": 2, "errored": 0, "incomplete": 0, "total": 2},
        "requests": {"successful": requests, "errored": [], "incomplete": []},
        "start_time": START_S,
        "end_time": START_S + 2,
    }
