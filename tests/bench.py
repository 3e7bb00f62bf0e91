"""Speed of wattbench itself: ``make bench``. Rates are of this machine; compare within one run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from emulation import emulated_run, varied_workload

from wattbench.store import connect, database_url

GOAL_TOKENS_PER_S = 150_000
START_UPS = 15


def runner_tokens_per_s(concurrency: int) -> float:
    """Virtual traffic through the unmodified runner and store, per second of real time."""
    workload = varied_workload(
        session={
            "input_tokens": {"kind": "uniform", "low": 100, "high": 1000},
            "output_tokens": {"kind": "uniform", "low": 50, "high": 400},
        },
        measure={"duration_s": 60.0},
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(database_url(f"{folder}/bench.sqlite"), create=True)
        started_s = time.perf_counter()
        raw, _ = emulated_run(engine, workload, concurrency=concurrency, seed=1)
        elapsed_s = time.perf_counter() - started_s
        engine.dispose()
    return sum(len(request.chunk_s) for request in raw.requests) / elapsed_s


def start_up_s(*code: str) -> float:
    """Shortest of several starts of a Python process."""

    def once() -> float:
        started_s = time.perf_counter()
        subprocess.run([sys.executable, *code], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started_s

    return min(once() for _ in range(START_UPS))


def main() -> None:
    """Print one line per figure."""
    print(f"wattbench bench on {os.cpu_count()} logical processors")
    for concurrency in (8, 64, 256):
        rate = runner_tokens_per_s(concurrency)
        print(
            f"runner, emulated device, {concurrency:4d} users: {rate:10,.0f} tokens/s of virtual "
            f"traffic, stored (goal {GOAL_TOKENS_PER_S:,})"
        )
    click, ours = start_up_s("-c", "import click"), start_up_s("-m", "wattbench", "--help")
    print(f"wattbench --help: {ours * 1e3:.0f} ms, {ours / click:.2f} × a bare import of click")


if __name__ == "__main__":
    main()
