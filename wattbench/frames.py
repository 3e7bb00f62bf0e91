"""Stored runs as pandas data frames: typed, one unit per column, which its name ends in.

    import wattbench
    frames = wattbench.load("results.sqlite")
    frames.points[["concurrency", "energy_per_output_token_joules", "ttft_s_p95"]]

An unknown value is missing (NaN or NA), never zero. The frames are computed anew from raw records,
as ``wattbench show`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wattbench.core.energy import CounterTrace, Trace
from wattbench.core.load import RequestResult
from wattbench.core.result import Estimate
from wattbench.core.run import RawRun
from wattbench.metrics import LATENCIES
from wattbench.results import PointResult, evaluate
from wattbench.store import connect, database_url, load_run, select_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Runs of a store.

    Attributes:
        runs: A row per run, by ``run_id``: what was run, where, and how it ended.
        points: A row per operating point: verdicts, and each metric with ``_low`` and ``_high``
            of its 95 % interval; a percentile is ``ttft_s_p95``.
        requests: A row per request: times on the run clock [s], tokens, latencies [s], failures.
        power: A row per sample of a meter: ``power_watts``, or ``energy_joules`` of a counter.
    """

    runs: pd.DataFrame
    points: pd.DataFrame
    requests: pd.DataFrame
    power: pd.DataFrame


def load_frames(database: str | Path | None = None, runs: str | None = None) -> Frames:
    """Read a store.

    Args:
        database: Path or URL; None: ``WATTBENCH_DB``, else the usual place.
        runs: Which runs: ids with commas between, conditions such as ``tag=a,workload=chat``, or
            ``latest``; None for all.

    Raises:
        UsageError: If the selector means nothing.
        StoreError: If the database cannot be read.
    """
    engine = connect(database_url(None if database is None else str(database)), create=False)
    try:
        raws = [load_run(engine, summary.run_id) for summary in select_runs(engine, runs)]
    finally:
        engine.dispose()
    return frames_of(raws)


def frames_of(raws: Sequence[RawRun]) -> Frames:
    """The frames of runs that were read already."""
    return Frames(
        runs=_typed([_run(raw) for raw in raws], RUN_TYPES),
        points=_points(evaluate(raws)),
        requests=_typed([_request(raw, r) for raw in raws for r in raw.requests], REQUEST_TYPES),
        power=_power((raw.record.run_id, trace) for raw in raws for trace in raw.traces),
    )


RUN_TYPES = {
    "run_id": "string",
    "batch_id": "string",
    "started_utc": "datetime64[ns, UTC]",
    "status": "string",
    "workload": "string",
    "backend": "string",
    "tool": "string",
    "model": "string",
    "engine": "string",
    "hardware": "string",
    "precision": "string",
    "concurrency": "Int64",
    "rate_per_s": "float64",
    "repeat_index": "Int64",
    "tag": "string",
    "error_text": "string",
}
"""Columns of ``runs`` and their types."""

REQUEST_TYPES = {
    "run_id": "string",
    "request_index": "Int64",
    "session_index": "Int64",
    "turn_index": "Int64",
    "phase": "string",
    "queued_s": "float64",
    "sent_s": "float64",
    "first_chunk_s": "float64",
    "end_s": "float64",
    "ttft_s": "float64",
    "tpot_s": "float64",
    "e2e_s": "float64",
    "input_tokens": "Int64",
    "output_tokens": "Int64",
    "cached_tokens": "Int64",
    "reasoning_tokens": "Int64",
    "finish_reason": "string",
    "error_class": "string",
    "error_text": "string",
}
"""Columns of ``requests`` and their types."""

POWER_TYPES = {
    "run_id": "string",
    "domain": "string",
    "kind": "string",
    "boundary": "string",
    "time_s": "float64",
    "power_watts": "float64",
    "energy_joules": "float64",
}
"""Columns of ``power`` and their types."""


def _typed(rows: list[dict[str, Any]], types: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _run(raw: RawRun) -> dict[str, Any]:
    record = raw.record
    point = record.operating_point
    return {
        "run_id": record.run_id,
        "batch_id": record.batch_id,
        "started_utc": pd.Timestamp(record.started_unix_s, unit="s", tz="UTC"),
        "status": raw.status,
        "workload": record.workload.get("name"),
        "backend": record.backend.get("name"),
        "tool": record.backend.get("tool"),
        "model": record.engine.model,
        "engine": record.engine.engine,
        "hardware": record.hardware.get("name"),
        "precision": record.engine.mode.precision,
        "concurrency": point.get("concurrency"),
        "rate_per_s": point.get("rate_per_s"),
        "repeat_index": record.repeat_index,
        "tag": record.tag,
        "error_text": raw.error_text,
    }


def _request(raw: RawRun, result: RequestResult) -> dict[str, Any]:
    latencies = {}
    if result.succeeded and len(result.chunk_s):
        for spec in LATENCIES:
            values = spec.values(result)
            if spec.name != "itl_s" and len(values):
                latencies[spec.name] = float(values[0])
    return latencies | {
        "run_id": raw.record.run_id,
        "request_index": result.request.index,
        "session_index": result.request.session_index,
        "turn_index": result.request.turn_index,
        "phase": result.phase,
        "queued_s": result.queued_s,
        "sent_s": result.sent_s,
        "first_chunk_s": float(result.chunk_s[0]) if len(result.chunk_s) else np.nan,
        "end_s": result.end_s,
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
        "cached_tokens": result.cached_tokens,
        "reasoning_tokens": result.reasoning_tokens,
        "finish_reason": result.finish_reason,
        "error_class": result.error_class,
        "error_text": result.error_text,
    }


def _points(points: Sequence[PointResult]) -> pd.DataFrame:
    rows = [_point(point) for point in points]
    frame = pd.DataFrame(rows)
    texts = ("batch_id", "workload", "backend", "model", "hardware", "precision", "tag")
    names = [*texts, "performance_verdict", "energy_verdict", "energy_kind", "energy_boundary"]
    return frame.astype(dict.fromkeys(names, "string")) if rows else frame


def _point(point: PointResult) -> dict[str, Any]:
    facts = point.facts
    record = facts.runs[0].raw.record
    domain = facts.headline.domain
    row: dict[str, Any] = {
        "batch_id": record.batch_id,
        "point_index": record.point_index,
        "run_count": len(facts.runs),
        "workload": record.workload.get("name"),
        "backend": record.backend.get("name"),
        "model": record.engine.model,
        "hardware": record.hardware.get("name"),
        "precision": record.engine.mode.precision,
        "tag": record.tag,
        "performance_verdict": point.performance,
        "energy_verdict": point.energy,
        "energy_kind": facts.headline.kind,
        "energy_boundary": domain.boundary if domain else None,
    }
    row |= {key: value for key, value in record.operating_point.items() if key not in row}
    row |= _columns("energy_joules", facts.headline.gross)
    for name, estimate in facts.metrics.items():
        row |= _columns(name, estimate)
    for name, quantiles in facts.latencies.items():
        for label, estimate in quantiles.items():
            row |= _columns(f"{name}_{label}", estimate)
    return row


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    """A value and the ends of its interval; NaN where unknown."""
    ends = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: np.nan if value is None else value for key, value in ends.items()}


def _power(traces: Iterable[tuple[str, Trace]]) -> pd.DataFrame:
    parts = [_trace(run_id, trace) for run_id, trace in traces]
    whole = pd.concat(parts, ignore_index=True) if parts else _typed([], POWER_TYPES)
    return whole.astype(POWER_TYPES)


def _trace(run_id: str, trace: Trace) -> pd.DataFrame:
    watts = joules = np.full(len(trace.time_s), np.nan)
    if isinstance(trace, CounterTrace):
        joules = trace.energy_joules
    else:
        watts = trace.power_watts
    return pd.DataFrame(
        {
            "run_id": run_id,
            "domain": trace.domain.name,
            "kind": trace.domain.kind,
            "boundary": trace.domain.boundary,
            "time_s": trace.time_s,
            "power_watts": watts,
            "energy_joules": joules,
        }
    )
