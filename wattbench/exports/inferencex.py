"""InferenceX: ``agg_<run>.json`` and the sidecar of its power, ``power_validation_<run>.json``.

A pair for each run. Sums are over the whole client window, ramp and drain included; latencies are
of the measured requests. What wattbench does not know is null.

Source: InferenceX 843c6254, power_metric_schema_version 2 and power validation schema 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from wattbench.core.energy import Unmeasured
from wattbench.core.run import Json, RawRun
from wattbench.exports.client import (
    BoardEnergy,
    Counts,
    boards,
    charged_devices,
    client_runs,
    counted,
    latency_s,
)
from wattbench.metrics import RunFacts

MAX_GAP_S = 3.0
"""A longer time between two samples makes the power invalid, by InferenceX's rule."""
_LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_PERCENTILES = (75, 90, 95, 99, 99.9)
_REASONS: Mapping[str, str] = {
    "no_meter": "telemetry_file_missing",
    "not_a_measured_board": "power_column_missing",
    "no_samples": "insufficient_power_samples",
    "not_bracketed": "benchmark_window_not_bracketed",
    "gap": "sampling_gap_exceeded",
    "counter_reset": "invalid_power_sample",
}
"""InferenceX's words for why there is no energy."""


def inferencex_files(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """Aggregate and power validation of each run, as InferenceX names and rounds them."""
    for run in client_runs(runs, "inferencex"):
        name = run.raw.record.run_id
        counts = counted(run.raw.requests)
        found = boards(run, counts.start_s, counts.end_s)
        reasons = _reasons(counts, found)
        parts = [] if isinstance(found, Unmeasured) else found
        power = {} if reasons else _power(counts, parts)
        valid: dict[str, Json] = {"power_valid": 0 if reasons else 1}
        agg = _described(run) | _rates(run, counts) | _latencies(run)
        agg |= {"power_metric_schema_version": 2} | valid | power
        sidecar = {"schema_version": 1} | valid | {"reasons": reasons}
        sidecar |= _telemetry(run, counts, parts) | {"metrics": power}
        yield f"agg_{name}.json", _text(agg)
        yield f"power_validation_{name}.json", _text(sidecar)


def _text(value: dict[str, Json]) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode()


def _reasons(counts: Counts, found: list[BoardEnergy] | Unmeasured) -> list[Json]:
    reasons: list[Json] = []
    if isinstance(found, Unmeasured):
        reasons.append(_REASONS.get(found.reason, "aggregation_internal_error"))
    else:
        if any(part.largest_gap_s > MAX_GAP_S for part in found):
            reasons.append("sampling_gap_exceeded")
        if any(part.energy_joules <= 0 for part in found):
            reasons.append("invalid_power_sample")
    for name, count in (
        ("successful_query", counts.completed),
        ("input_token", counts.input_tokens),
        ("output_token", counts.output_tokens),
    ):
        if not count:
            reasons.append(f"invalid_{name}_count")
    return reasons


def _power(counts: Counts, parts: Sequence[BoardEnergy]) -> dict[str, Json]:
    """Ratios of the rounded energy, so that they fit it to their last place."""
    joules = round(sum(part.energy_joules for part in parts), 3)
    total_watts = joules / round(counts.duration_s, 6)
    devices = sum(len(part.devices) for part in parts)
    prompts, answers = counts.input_tokens or 0, counts.output_tokens or 0
    return {
        "avg_power_w": round(total_watts / devices, 3),
        "avg_total_gpu_power_w": round(total_watts, 3),
        "total_gpu_energy_j": joules,
        "joules_per_successful_query": round(joules / counts.completed, 6),
        "joules_per_input_token": round(joules / prompts, 6),
        "joules_per_output_token": round(joules / answers, 6),
        "joules_per_total_token": round(joules / (prompts + answers), 6),
    }


def _described(run: RunFacts) -> dict[str, Json]:
    """What ran; how its engine is spread over devices is not known."""
    record = run.raw.record
    unknown: dict[str, Json] = dict.fromkeys(
        ("image", "recipe_fingerprint", "is_multinode", "tp", "pp", "dcp_size", "pcp_size", "ep")
    )
    return {
        "hw": record.hardware.get("name"),
        "conc": record.operating_point.get("concurrency"),
        "model": record.engine.model,
        "infmax_model_prefix": None,
        "framework": record.engine.engine,
        "precision": record.engine.mode.precision,
        "spec_decoding": record.engine.mode.speculative,
        "disagg": True if {"prefill", "decode"} <= record.roles.keys() else None,
        "isl": _only({r.request.synthetic_input_tokens for r in run.measured}),
        "osl": _only({r.request.max_output_tokens for r in run.measured if r.request.ignore_eos}),
        **unknown,
        "dp_attention": None,
    }


def _only(values: set[int]) -> int | None:
    """The length of all, None if they differ or nobody chose one."""
    return (min(values) or None) if len(values) == 1 else None


def _rates(run: RunFacts, counts: Counts) -> dict[str, Json]:
    devices = len(charged_devices(run))
    prompts, answers = counts.input_tokens, counts.output_tokens
    both = None if prompts is None or answers is None else prompts + answers

    def per_device(tokens: int | None) -> float | None:
        known = tokens is not None and devices and counts.duration_s > 0
        return (tokens or 0) / counts.duration_s / devices if known else None

    return {
        "tput_per_gpu": per_device(both),
        "output_tput_per_gpu": per_device(answers),
        "input_tput_per_gpu": per_device(prompts),
    }


def _latencies(run: RunFacts) -> dict[str, Json]:
    """Seconds; ``intvty`` is one over the same statistic of TPOT [tokens/s/user]."""
    found: dict[str, Json] = {}
    for name, ours in _LATENCIES.items():
        values = latency_s(run, ours)
        if not len(values):
            continue
        statistics = {"mean": np.mean(values), "median": np.median(values), "std": np.std(values)}
        statistics |= {f"p{share:g}": np.percentile(values, share) for share in _PERCENTILES}
        found |= {f"{statistic}_{name}": float(value) for statistic, value in statistics.items()}
        if name == "tpot":
            found |= {
                f"{statistic}_intvty": float(1 / value)
                for statistic, value in statistics.items()
                if statistic != "std" and value > 0
            }
    return found


def _telemetry(run: RunFacts, counts: Counts, parts: Sequence[BoardEnergy]) -> dict[str, Json]:
    start_unix_s = run.raw.record.started_unix_s + counts.start_s
    by_name = {"+".join(part.devices): part for part in parts}
    known = sorted({part.meter for part in parts})
    methods = sorted({part.method for part in parts})
    devices: list[Json] = list(charged_devices(run))
    return {
        "telemetry_source": "+".join(known) or None,
        "benchmark_result": None,
        "benchmark_window": {
            "start_time_unix": round(start_unix_s, 6),
            "end_time_unix": round(start_unix_s + counts.duration_s, 6),
            "reported_duration_s": round(counts.duration_s, 6),
            "integration_duration_s": round(counts.duration_s, 6),
            "completed": counts.completed,
            "total_input_tokens": counts.input_tokens,
            "total_output_tokens": counts.output_tokens,
        },
        "integration_method": "; ".join(methods) or None,
        "expected_gpu_count": len(devices) or None,
        "observed_gpu_count": sum(len(part.devices) for part in parts),
        "observed_gpu_ids": [device for part in parts for device in part.devices],
        "per_gpu_sample_counts": {name: part.sample_count for name, part in by_name.items()},
        "per_gpu_max_sample_gap_s": {n: round(p.largest_gap_s, 6) for n, p in by_name.items()},
        "per_gpu_energy_j": {name: round(p.energy_joules, 3) for name, p in by_name.items()},
        "device_issues": {},
        "accumulator_check": None,
    }
