"""AIPerf: ``profile_export_aiperf.json`` (totals) and ``profile_export.jsonl`` (each request).

A folder for each run, named after it. Sums and latencies are of the measured requests, from the
first one sent to the last answer; those of warm-up are in the records alone, as there.

Source: AIPerf 0.13.0, schema 1.4: names, units, and which metric has which statistics.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from wattbench.core.energy import FloatArray, Unmeasured
from wattbench.core.load import RequestResult
from wattbench.core.run import Json, RawRun, RunRecord
from wattbench.exports.client import Counts, boards, client_runs, counted
from wattbench.metrics import RunFacts, keeps_gaps

SCHEMA = "1.4"
VERSION = "0.13.0"
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
VENDORS: Mapping[str, str] = {"nvidia": "nvidia_", "amd": "amd_"}
"""Prefix of the energy blocks by the vendor of the machine; of others AIPerf knows no energy."""
_LATENCIES = (
    "request_latency",
    "time_to_first_token",
    "inter_token_latency",
    "inter_chunk_latency",
)
_PER_REQUEST: Mapping[str, str] = {
    **dict.fromkeys(_LATENCIES, "ms"),
    "output_token_throughput_per_user": "tokens/sec/user",
    "input_sequence_length": "tokens",
    "output_sequence_length": "tokens",
}
"""Blocks with a distribution, and their units."""
_Metrics = dict[str, float | list[float]]


def aiperf_files(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """Totals and records of each run, in a folder of its own."""
    for run in client_runs(runs, "aiperf"):
        folder = run.raw.record.run_id
        totals = json.dumps(_totals(run), indent=2, allow_nan=False)
        yield f"{folder}/profile_export_aiperf.json", totals.encode()
        lines = [json.dumps(_record(run.raw, one), allow_nan=False) for one in run.raw.requests]
        yield f"{folder}/profile_export.jsonl", "".join(f"{line}\n" for line in lines).encode()


def _metrics(raw: RawRun, request: RequestResult) -> _Metrics:
    """What AIPerf computes of a request that succeeded; times from when it was sent [ms]."""
    found: _Metrics = {}
    if request.input_tokens is not None:
        found["input_sequence_length"] = request.input_tokens
    tokens = request.output_tokens
    if tokens is not None:
        found["output_sequence_length"] = tokens
    if not len(request.chunk_s):
        return found
    chunks_ms = (request.chunk_s - request.sent_s) * 1e3
    found["request_latency"] = float(chunks_ms[-1])
    found["time_to_first_token"] = float(chunks_ms[0])
    if len(chunks_ms) > 1 and keeps_gaps(raw):
        found["inter_chunk_latency"] = np.diff(chunks_ms).tolist()
    if tokens is not None and tokens > 1 and len(chunks_ms) > 1:
        gap_ms = float(chunks_ms[-1] - chunks_ms[0]) / (tokens - 1)
        found["inter_token_latency"] = gap_ms
        if gap_ms > 0:
            found["output_token_throughput_per_user"] = 1e3 / gap_ms
    return found


def _record(raw: RawRun, request: RequestResult) -> dict[str, Json]:
    metrics: dict[str, Json] = {}
    if request.succeeded:
        found = _metrics(raw, request)
        metrics = {
            name: {"value": _json(value), "unit": _PER_REQUEST[name]}
            for name, value in found.items()
        }
        if request.tokens_source == "usage":
            metrics |= {
                name: {"value": count, "unit": "tokens"}
                for name, count in (
                    ("usage_prompt_tokens", request.input_tokens),
                    ("usage_completion_tokens", request.output_tokens),
                    ("usage_prompt_cache_read_tokens", request.cached_tokens),
                )
                if count is not None
            }
    return {
        "metadata": {
            "session_num": request.request.session_index,
            "conversation_id": f"session_{request.request.session_index}",
            "turn_index": request.request.turn_index,
            "credit_issued_ns": _unix_ns(raw, request.queued_s),
            "request_start_ns": _unix_ns(raw, request.sent_s),
            "request_end_ns": _unix_ns(raw, request.end_s),
            "worker_id": "wattbench",
            "record_processor_id": "wattbench",
            "benchmark_phase": "profiling" if request.phase == "measured" else "warmup",
            "was_cancelled": False,
        },
        "metrics": metrics,
        "error": None
        if request.succeeded
        else {"type": request.error_class, "message": request.error_text or "no message"},
    }


def _json(value: float | list[float]) -> Json:
    return list(value) if isinstance(value, list) else value


def _unix_ns(raw: RawRun, time_s: float) -> int:
    """Unix time [ns]; each part by itself, as their sum in a float is good to 0.2 µs only."""
    return round(raw.record.started_unix_s * 1e9) + round(time_s * 1e9)


def _instant(raw: RawRun, time_s: float) -> str:
    return datetime.fromtimestamp(raw.record.started_unix_s + time_s, UTC).isoformat()


def _totals(run: RunFacts) -> dict[str, Json]:
    raw, record = run.raw, run.raw.record
    measured = [request for request in raw.requests if request.phase == "measured"]
    counts = counted(measured)
    good = [request for request in measured if request.succeeded]
    found: dict[str, Json] = {
        "schema_version": SCHEMA,
        "aiperf_version": VERSION,
        "benchmark_id": record.run_id,
        **_sums(counts),
        **_distributions(raw, good),
        **_energy(run, counts, good),
    }
    return found | {
        "input_config": _config(record, len(measured)),
        "run_info": {
            "benchmark_id": record.run_id,
            "random_seed": record.seed,
            "trial": record.repeat_index,
            "run_label": record.tag,
        },
        "was_cancelled": raw.status == "interrupted",
        "start_time": _instant(raw, counts.start_s),
        "end_time": _instant(raw, counts.end_s),
    }


def _sums(counts: Counts) -> dict[str, Json]:
    """Totals of the run, as a block with nothing but their value."""
    duration_s = counts.duration_s
    found: dict[str, tuple[str, float | None]] = {
        "benchmark_duration": ("sec", duration_s),
        "request_count": ("requests", counts.completed),
        "error_request_count": ("requests", counts.failed or None),
        "request_throughput": ("requests/sec", counts.completed / duration_s),
        "total_isl": ("tokens", counts.input_tokens),
        "total_osl": ("tokens", counts.output_tokens),
    }
    if counts.output_tokens is not None:
        found["output_token_throughput"] = ("tokens/sec", counts.output_tokens / duration_s)
    return _blocks(found)


def _blocks(found: Mapping[str, tuple[str, float | None]]) -> dict[str, Json]:
    return {
        name: {"unit": unit, "avg": value}
        for name, (unit, value) in found.items()
        if value is not None
    }


def _distributions(raw: RawRun, good: Sequence[RequestResult]) -> dict[str, Json]:
    each = [_metrics(raw, request) for request in good]
    blocks: dict[str, Json] = {}
    for name, unit in _PER_REQUEST.items():
        values = [np.atleast_1d(metrics[name]) for metrics in each if name in metrics]
        if values:
            blocks[name] = _statistics(unit, np.concatenate(values).astype(np.float64))
    return blocks


def _statistics(unit: str, values: FloatArray) -> dict[str, Json]:
    shares = np.percentile(values, PERCENTILES).tolist()
    return {
        "unit": unit,
        "avg": float(values.mean()),
        **{f"p{share}": value for share, value in zip(PERCENTILES, shares, strict=True)},
        "min": float(values.min()),
        "max": float(values.max()),
        "std": float(values.std()),
        "count": len(values),
        "sum": float(values.sum()),
    }


def _energy(run: RunFacts, counts: Counts, good: Sequence[RequestResult]) -> dict[str, Json]:
    """Energy of measured boards over the window of the measured requests; else no block."""
    vendor = str(run.raw.record.hardware.get("vendor")).lower()
    parts = boards(run, counts.start_s, counts.end_s)
    if vendor not in VENDORS or isinstance(parts, Unmeasured) or not counts.completed:
        return {}
    joules = sum(part.energy_joules for part in parts)
    if joules <= 0:
        return {}
    watts, duration_s = joules / counts.duration_s, counts.duration_s
    per_request = joules / counts.completed
    latencies_ms = [_metrics(run.raw, request).get("request_latency") for request in good]
    known_s = [float(value) / 1e3 for value in latencies_ms if isinstance(value, float)]
    users = run.raw.record.operating_point.get("concurrency")
    found: dict[str, tuple[str, float | None]] = {
        "total_gpu_power": ("W", watts),
        "average_gpu_power": ("W", watts),
        "total_gpu_energy": ("J", joules),
        "energy_per_request": ("joules/request", per_request),
        "energy_per_user": ("joules/user", joules / users if isinstance(users, int) else None),
        "energy_delay_product": ("J*s", per_request * float(np.mean(known_s)) if known_s else None),
        "performance_per_watt": ("requests/sec/W", counts.completed / duration_s / watts),
    }
    answers, prompts = counts.output_tokens, counts.input_tokens
    if answers:
        found["output_tokens_per_joule"] = ("tokens/J", answers / joules)
        found["energy_per_output_token"] = ("mJ/token", joules * 1e3 / answers)
        found["output_tps_per_watt"] = ("tokens/sec/W", answers / duration_s / watts)
    if answers is not None and prompts is not None and answers + prompts:
        found["energy_per_total_token"] = ("mJ/token", joules * 1e3 / (answers + prompts))
    return _blocks({VENDORS[vendor] + name: block for name, block in found.items()})


def _config(record: RunRecord, requests: int) -> dict[str, Json]:
    """The load, as much of it as AIPerf's own configuration asks for.

    It must have an address: that of an engine without one ends in ``.invalid``, which by RFC 2606
    no host does.
    """
    url = _inside(record.backend, "options", "url")
    load: dict[str, Json] = {"name": "profiling", "kind": "profiling", "requests": requests}
    config: dict[str, Json] = {
        "models": {"items": [{"name": record.engine.model}]},
        "endpoint": {"urls": [url or f"http://{record.backend.get('name') or 'engine'}.invalid"]},
        "phases": [load | _load(record)],
    }
    if _inside(record.workload, "session", "prompts") is None:
        config["datasets"] = [{"name": str(record.workload.get("name")), "type": "synthetic"}]
    return config


def _load(record: RunRecord) -> dict[str, Json]:
    """Users of a closed loop, a rate, or arrivals at instants that were fixed before."""
    users, rate = (record.operating_point.get(name) for name in ("concurrency", "rate_per_s"))
    if users is not None:
        return {"type": "concurrency", "concurrency": users}
    kind = _inside(record.workload, "arrivals", "kind")
    if rate is not None and kind in ("constant", "poisson", "gamma"):
        return {"type": kind, "rate": rate}
    return {"type": "fixed_schedule"}


def _inside(values: Mapping[str, Json], name: str, inner: str) -> Json:
    found = values.get(name)
    return found.get(inner) if isinstance(found, dict) else None
