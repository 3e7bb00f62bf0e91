"""Replay a trace with DynoSim, in an environment of its own: prints one line of JSON.

Usage: ``python dynosim_replay.py TRACE.jsonl WORKERS ROUNDS``. Its limits are those of the machine
in ``bench_sim.py``; prefix caching is off, for no two prompts of the trace have anything in common.
"""

import json
import sys

from dynamo.replay import run_trace_replay  # type: ignore[import-not-found]

BLOCK_TOKENS = 64
ENGINE = {
    "backend": "vllm",
    "block_size": BLOCK_TOKENS,
    "num_gpu_blocks": 400_000 // BLOCK_TOKENS,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 2048,
    "enable_chunked_prefill": True,
    "enable_prefix_caching": False,
    "timing_model": {"type": "polynomial"},
}


def main(trace: str, workers: str, rounds: str) -> None:
    """The shortest of several rounds after one that warms up, by DynoSim's own clock."""
    found = [
        run_trace_replay(
            trace,
            extra_engine_args={"engine": ENGINE},
            num_workers=int(workers),
            router_mode="round_robin",
            trace_block_size=BLOCK_TOKENS,
        ).summary
        for _ in range(1 + int(rounds))
    ][1:]
    best = min(found, key=lambda summary: float(summary["wall_time_ms"]))
    print(
        json.dumps(
            {
                "requests": best["completed_requests"],
                "wall_s": best["wall_time_ms"] / 1e3,
                "ttft_p50_s": best["median_ttft_ms"] / 1e3,
                "ttft_p99_s": best["p99_ttft_ms"] / 1e3,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
