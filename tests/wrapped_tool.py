"""A load generator for tests of ``wattbench wrap``: wrapped_tool.py URL SECONDS FILE [LOADS].

One user asks for streamed answers until the time is over, as often as LOADS says, and the file says
what happened, in the form of vLLM's benchmark with ``--save-detailed --append-result``.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

TOKENS = 40


def answer(url: str) -> list[float]:
    """When the request was sent and when each chunk came [s, monotonic]."""
    body = {"prompt": "word " * 50, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps(body | {"model": "llama-3.1-8b"}).encode(),
        {"Content-Type": "application/json"},
    )
    times_s = [time.perf_counter()]
    with urllib.request.urlopen(request) as stream:
        for line in stream:
            if line.startswith(b"data: {"):
                times_s.append(time.perf_counter())
    return times_s


def main() -> None:
    """Ask, and write the result."""
    url, seconds, place = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
    loads = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    time.sleep(1.5)  # as a tool starts up, outside of what it measures
    lines = [json.dumps(measured(url, seconds)) for _ in range(loads)]
    time.sleep(1.0)  # as it writes reports
    place.write_text("\n".join(lines), encoding="utf-8")


def measured(url: str, seconds: float) -> dict[str, object]:
    """The result of one load."""
    begin_s = time.perf_counter()
    runs = []
    while time.perf_counter() < begin_s + seconds:
        runs.append(answer(url))
    end_s = time.perf_counter()
    count = len(runs)
    sys.stdout.write(f"asked {count} times\n")
    return {
        "backend": "openai",
        "model_id": "llama-3.1-8b",
        "max_concurrency": 1,
        "duration": end_s - begin_s,
        "completed": count,
        "failed": 0,
        "total_input_tokens": 50 * count,
        "total_output_tokens": TOKENS * count,
        "request_throughput": count / (end_s - begin_s),
        "input_lens": [50] * count,
        "output_lens": [TOKENS] * count,
        "ttfts": [times[1] - times[0] for times in runs],
        "itls": [[b - a for a, b in pairwise(times[1:])][: TOKENS - 1] for times in runs],
        "start_times": [times[0] for times in runs],
        "errors": [""] * count,
    }


if __name__ == "__main__":
    main()
