"""Records as rows of their tables."""

from __future__ import annotations

import dataclasses
import os
import socket
from typing import Any

import psutil

from wattbench.core.energy import EnergyDomain, FloatArray
from wattbench.core.load import RequestResult
from wattbench.core.run import Event, RunRecord
from wattbench.store.codec import TIMES, VALUES, pack_times, pack_values


def writer_identity() -> dict[str, Any]:
    """Who is writing, so that a reader can tell a dead writer from a living one."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_unix_s": process.create_time(),
    }


def run_row(record: RunRecord) -> dict[str, Any]:
    """A run, as running by this process."""
    row = dataclasses.asdict(record)
    row["engine"]["process_ids"] = list(record.engine.process_ids)
    return row | {
        "status": "running",
        "meters": [dict(meter) for meter in record.meters],
        "devices": None if record.devices is None else list(record.devices),
        "roles": {role: list(devices) for role, devices in record.roles.items()},
        "workload_name": record.workload.get("name"),
        "backend_name": record.backend.get("name"),
        "hardware_name": record.hardware.get("name"),
        "writer": writer_identity(),
    }


def request_row(run_id: str, result: RequestResult) -> dict[str, Any]:
    """A request with its chunks."""
    request = result.request
    return {
        "run_id": run_id,
        "request_index": request.index,
        "session_index": request.session_index,
        "turn_index": request.turn_index,
        "phase": result.phase,
        "requested_input_tokens": request.synthetic_input_tokens,
        "requested_output_tokens": request.max_output_tokens,
        "ignore_eos": request.ignore_eos,
        "seed": request.seed,
        "queued_s": result.queued_s,
        "sent_s": result.sent_s,
        "end_s": result.end_s,
        "input_tokens": result.input_tokens,
        "output_tokens": result.output_tokens,
        "cached_tokens": result.cached_tokens,
        "reasoning_tokens": result.reasoning_tokens,
        "tokens_source": result.tokens_source,
        "output_bytes": result.output_bytes,
        "finish_reason": result.finish_reason,
        "error_class": result.error_class,
        "error_text": result.error_text,
        "chunk_count": len(result.chunk_s),
        "time_codec": TIMES,
        "chunk_s": pack_times(result.chunk_s),
        "value_codec": VALUES,
        "chunk_tokens": pack_values(result.chunk_tokens),
    }


def domain_row(run_id: str, domain: EnergyDomain) -> dict[str, Any]:
    """The description of a domain."""
    row = dataclasses.asdict(domain) | {"run_id": run_id, "domain": domain.name}
    row["devices"] = list(domain.devices)
    del row["name"]
    return row


def block_row(
    run_id: str, domain: str, index: int, time_s: FloatArray, watts_or_joules: FloatArray
) -> dict[str, Any]:
    """A block of samples of a domain."""
    return {
        "run_id": run_id,
        "domain": domain,
        "block_index": index,
        "sample_count": len(time_s),
        "start_s": float(time_s[0]),
        "end_s": float(time_s[-1]),
        "time_codec": TIMES,
        "time_s": pack_times(time_s),
        "value_codec": VALUES,
        "value": pack_values(watts_or_joules),
    }


def event_row(run_id: str, event: Event) -> dict[str, Any]:
    """An event."""
    return {
        "run_id": run_id,
        "kind": event.kind,
        "time_s": event.time_s,
        "detail": dict(event.detail),
    }
