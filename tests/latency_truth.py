"""What a client measured beside what the server wrote, as distributions of the same requests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from wire import get

from wattbench.core.energy import FloatArray
from wattbench.core.load import RequestResult
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a client recorded of the requests of its window; times are Unix seconds."""

    point: dict[str, Any]
    started_unix_s: float
    requests: list[RequestResult]

    def latencies(self) -> Latencies:
        """By the client's own stamps."""
        starts = np.array([each.queued_s for each in self.requests])
        return _latencies(starts, [each.chunk_s for each in self.requests], self._tokens())

    def _tokens(self) -> FloatArray:
        return np.array([each.output_tokens for each in self.requests], np.float64)

    def true_latencies(self, url: str) -> tuple[Latencies, FloatArray]:
        """The same requests by the server's stamps, and how long each took to reach its handler.

        A request begins when the client wants to send it, in both. Requests are told apart by
        their two lengths, and among those of equal lengths by their order.
        """
        end_unix_s = self.point["window"]["end_unix_s"]
        truth = get(f"{url}/truth?start=0&end={end_unix_s + 60}&emissions=1")
        written = defaultdict(list)
        for each in truth["requests"]:
            if each["emission_unix_s"]:
                written[each["input_tokens"], each["output_tokens"]].append(each)
        starts, stamps, transit_s = [], [], []
        for result in self.requests:
            begin = result.queued_s + self.started_unix_s
            first = float(result.chunk_s[0]) + self.started_unix_s
            there = min(
                written[result.input_tokens, result.output_tokens],
                key=lambda each: abs(each["emission_unix_s"][0] - first),
            )
            starts.append(begin)
            stamps.append(np.array(there["emission_unix_s"]))
            transit_s.append(there["received_unix_s"] - begin)
        true = _latencies(np.array(starts), stamps, self._tokens())
        return true, np.array(transit_s)


def measured(folder: Path, url: str, *, users: int, duration_s: float) -> Measured:
    """One point of `wattbench run`."""
    workload = folder / "latency.yaml"
    workload.write_text(WORKLOAD.format(users=users, duration_s=duration_s))
    database = folder / "latency.sqlite"
    command = [sys.executable, "-m", "wattbench", "run", str(workload), "--json"]
    command += ["--backend", f"openai,url={url}/v1", "--db", str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    data = load_run(connect(database_url(str(database)), create=False), point["run_ids"][0])
    return Measured(
        point=point,
        started_unix_s=data.record.started_unix_s,
        requests=[r for r in data.requests if r.phase == "measured" and r.succeeded],
    )


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
