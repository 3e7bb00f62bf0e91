"""What a client measured beside what the server wrote, as distributions of the same requests."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wire import get

from wattbench.core.energy import FloatArray
from wattbench.store import connect, database_url, load_run

WORKLOAD = """
name: latency
about: Short answers of many users.
session:
  input_tokens: {{kind: uniform, low: 20, high: 60}}
  output_tokens: {{kind: uniform, low: 32, high: 96}}
arrivals: {{kind: closed, concurrency: [{users}]}}
warmup: {{duration_s: 1.0}}
measure: {{duration_s: {duration_s}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Latencies of many requests [s], in no order."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    itl_s: FloatArray
    e2e_s: FloatArray


def measured(
    folder: Path, url: str, *, users: int, duration_s: float
) -> tuple[dict[str, Any], Latencies]:
    """One point of `wattbench run`, and the latencies of the requests of its window."""
    workload = folder / "latency.yaml"
    workload.write_text(WORKLOAD.format(users=users, duration_s=duration_s))
    database = folder / "latency.sqlite"
    command = [sys.executable, "-m", "wattbench", "run", str(workload), "--json"]
    command += ["--backend", f"openai,url={url}/v1", "--db", str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    data = load_run(connect(database_url(str(database)), create=False), point["run_ids"][0])
    results = [r for r in data.requests if r.phase == "measured" and r.succeeded]
    starts = np.array([r.queued_s for r in results])
    stamps = [r.chunk_s for r in results]
    tokens = np.array([r.output_tokens for r in results], np.float64)
    return point, _latencies(starts, stamps, tokens)


def true_latencies(url: str, point: dict[str, Any], tokens_per_chunk: int) -> Latencies:
    """The same from the server's own stamps, for the requests that it got in the window."""
    start, end = point["window"]["start_unix_s"], point["window"]["end_unix_s"]
    truth = get(f"{url}/truth?start={start}&end={end + 60}&emissions=1")
    requests = [
        request
        for request in truth["requests"]
        if request["received_unix_s"]
        and start <= request["received_unix_s"] < end
        and len(request["emission_unix_s"]) == -(-request["output_tokens"] // tokens_per_chunk)
    ]
    starts = np.array([request["received_unix_s"] for request in requests])
    stamps = [np.array(request["emission_unix_s"]) for request in requests]
    tokens = np.array([request["output_tokens"] for request in requests], np.float64)
    return _latencies(starts, stamps, tokens)


def _latencies(starts: FloatArray, stamps: list[FloatArray], tokens: FloatArray) -> Latencies:
    firsts = np.array([each[0] for each in stamps])
    lasts = np.array([each[-1] for each in stamps])
    first_tokens = tokens / np.array([len(each) for each in stamps])
    return Latencies(
        ttft_s=firsts - starts,
        tpot_s=(lasts - firsts) / (tokens - first_tokens),
        itl_s=np.concatenate([np.diff(each) for each in stamps]),
        e2e_s=lasts - starts,
    )
