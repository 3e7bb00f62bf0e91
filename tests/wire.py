"""Real time over loopback: an emulated machine in another process, and runs against it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command import called

WORKLOAD = """
name: wire
about: Short answers over loopback.
session:
  input_tokens: {{kind: uniform, low: 20, high: 200}}
  output_tokens: {{kind: uniform, low: 8, high: 60}}
arrivals: {{kind: closed, concurrency: [4]}}
idle_s: {idle_s}
warmup: {{duration_s: 0.5}}
request_timeout_s: {timeout_s}
measure: {{duration_s: {duration_s}}}
"""


def workload_file(
    folder: Path, duration_s: float, idle_s: float = 1.0, timeout_s: float = 600.0
) -> Path:
    """A workload of four users whose measured phase takes so long."""
    path = folder / "wire.yaml"
    path.write_text(WORKLOAD.format(duration_s=duration_s, idle_s=idle_s, timeout_s=timeout_s))
    return path


@contextlib.contextmanager
def emulated(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`wattbench emulate` on a free port: its URL and its process."""
    command = [sys.executable, "-m", "wattbench", "emulate", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        word, url = server.stdout.readline().split()
        assert word == "ready"
        yield url, server
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def post(url: str, body: dict[str, Any]) -> str:
    """The body of an answer to a JSON body."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def run_point(
    folder: Path,
    engine: str,
    *meters: str,
    duration_s: float = 6.3,
    idle_s: float = 1.0,
    timeout_s: float = 600.0,
    more: tuple[str, ...] = (),
) -> dict[str, Any]:
    """One operating point of `wattbench run` against an engine's URL, with meters."""
    workload = workload_file(folder, duration_s, idle_s, timeout_s)
    arguments = [
        *("--backend", f"openai,url={engine}/v1", *(a for m in meters for a in ("--meter", m))),
        *("--hardware", "h100-sxm", "--db", str(folder / "runs.sqlite"), "--json", *more),
    ]
    done = called("run", str(workload), *arguments)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    found: dict[str, Any] = point
    return found


def codes(point: dict[str, Any]) -> set[str]:
    """Codes of a point's findings."""
    return {finding["code"] for finding in point["findings"]}


def performance_doubts(point: dict[str, Any]) -> set[str]:
    """Codes that speak against a point's latencies; on a loaded machine the client is late."""
    return {
        finding["code"]
        for finding in point["findings"]
        if finding["scope"] != "energy" and finding["severity"] != "info"
    }


def true_joules(url: str, point: dict[str, Any]) -> float:
    """What the emulated machine knows of a point's window [J]."""
    window = point["window"]
    query = f"start={window['start_unix_s']}&end={window['end_unix_s']}"
    return float(get(f"{url}/truth?{query}")["energy_joules"])
