"""Speed of the routing simulator on one core, beside DynoSim's: ``make bench-sim``.

Prints lines of JSON. Lengths are lognormal with the means that Azure published for its trace of
conversations (1,155 tokens in, 211 out); the machine's coefficients are invented, near to one H100
with a model of 8 billion parameters, so that eight of them carry what DynoSim's own eight do. All
lines are at seven tenths of the fleet's capacity. Rates are of this computer: compare within a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ["NUMBA_NUM_THREADS"] = "1"

import numpy as np

from wattbench.routing.fleet import Fleet, Machine, Pool, Series, Site
from wattbench.routing.layout import REQUEST
from wattbench.routing.policies import BuiltIn, LeastOutstanding, RoundRobin
from wattbench.routing.replay import RouterSettings, replay
from wattbench.routing.step import Lane, StepModel, affine
from wattbench.routing.world import Demand
from wattbench.traces import LognormalLengths, Talk, Trace, first, poisson_trace

REQUESTS, PEER_REQUESTS, ROUNDS = 1_000_000, 30_000, 3
GOAL_RATIO, GOAL_BYTES = 100, 100
LENGTHS = LognormalLengths(input_tokens=1155, output_tokens=211, sigma_ratio=1.0)
TALK = Talk(mean_turns_count=3, think_s=20, prefix_tokens=512, prefix_groups=32, block_tokens=512)
TURN_LENGTHS = LognormalLengths(input_tokens=150, output_tokens=211, sigma_ratio=1.0)
"""Sessions over a few system prompts, in blocks as large as Mooncake's."""
KEPT_TOKENS = 1_000_000
"""Of prompts, on each machine of the line with prefixes; some 120 GB of host memory."""
RATE_PER_S = 9.4
"""Arrivals per machine; with a backlog it completes 13.4 a second."""
PEER = Path(__file__).parents[1] / ".peers" / "dynosim"
SCRIPT = Path(__file__).parent / "peers" / "dynosim_replay.py"
PEER_MODELS = (
    "every token; continuous batching with chunked prefill, paged memory in blocks with "
    "preemption, steps whose time is a polynomial; no energy, one kind of machine"
)
OUR_MODELS = (
    "every token; continuous batching with chunked prefill, memory in tokens with preemption, "
    "steps as long as the larger of a memory and an arithmetic lane; energy of steps and of idling"
)
FEATURES = (
    "energy",
    "idle energy",
    "chunked prefill of 2048",
    "KV limit with preemption",
    "context-dependent roofline steps",
)
ALL = (
    "power cap that changes",
    "price series",
    "carbon series",
    "stale signals",
    "prefixes kept, least recently used first out",
)
MACHINE = Machine(
    name="machine",
    step=StepModel(
        memory=Lane(tokens=((0.0, 5e-3),), per_context_token=4e-8),
        arithmetic=affine(
            base=1e-3, per_request=5.3e-5, per_prompt_token=5.3e-5, per_attended_token=4e-10
        ),
        energy=affine(
            base=1.0,
            per_request=0.012,
            per_prompt_token=0.012,
            per_context_token=8e-6,
            per_attended_token=1e-7,
        ),
        busy_watts=120.0,
    ),
    max_batch=256,
    max_step_tokens=2048,
    kv_capacity_tokens=400_000,
    kv_request_tokens=32,
    idle_watts=70.0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the benchmark.

    Attributes:
        policy: The policy.
        instances: Machines.
        site: Where they stand.
        settings: The router's.
        features: What is simulated beyond ``FEATURES``.
        talk: What requests have in common, if anything; prefixes are kept then.
        turns_wait: Whether a turn waits for the answer before it, or comes when the trace says.
    """

    policy: type[BuiltIn]
    instances: int
    site: Site = field(default_factory=lambda: Site(name="site"))
    settings: RouterSettings = field(default_factory=RouterSettings)
    features: tuple[str, ...] = ()
    talk: Talk | None = None
    turns_wait: bool = False

    @property
    def fleet(self) -> Fleet:
        """Machines of one kind."""
        machine = replace(MACHINE, prefix_cache_tokens=KEPT_TOKENS if self.talk else 0)
        pool = Pool(machine=machine, count=self.instances, site=self.site.name)
        return Fleet(pools=(pool,), sites=(self.site,))


def busy_site(instances: int) -> Site:
    """A cap, a price and an intensity that change every five minutes; a machine draws 370 W."""
    at_s, rng = tuple(300.0 * n for n in range(96)), np.random.default_rng(1)

    def series(low: float, high: float) -> Series:
        return Series(at_s=at_s, values=tuple(rng.uniform(low, high, len(at_s)).tolist()))

    return Site(
        name="site",
        pue=1.2,
        cap_watts=series(320.0 * instances, 500.0 * instances),
        price_usd_per_kwh=series(0.05, 0.3),
        carbon_gco2e_per_kwh=series(50.0, 500.0),
    )


LINES = (
    Line(policy=RoundRobin, instances=8),
    Line(policy=LeastOutstanding, instances=8),
    Line(policy=LeastOutstanding, instances=64),
    Line(policy=LeastOutstanding, instances=1000),
    # All that the engine can do at once: whatever it learns is switched on here. Turns that wait
    # cost most: each machine's completions may bring an arrival, so none goes far at a time.
    Line(
        policy=LeastOutstanding,
        instances=64,
        site=busy_site(64),
        settings=RouterSettings(signals_every_s=0.1),
        features=ALL,
        talk=TALK,
    ),
    Line(
        policy=LeastOutstanding,
        instances=64,
        site=busy_site(64),
        settings=RouterSettings(signals_every_s=0.1),
        features=(*ALL, "sessions whose turns wait for answers"),
        talk=TALK,
        turns_wait=True,
    ),
)


def trace_for(instances: int, talk: Talk | None = None) -> Trace:
    lengths = TURN_LENGTHS if talk else LENGTHS
    return poisson_trace(RATE_PER_S * instances, REQUESTS, lengths, seed=1, talk=talk)


def measured(line: Line, trace: Trace) -> dict[str, Any]:
    """The shortest of several rounds after one that warms up, each from arrays to joules."""
    demand = Demand(
        arrival_s=trace.arrival_s,
        input_tokens=trace.input_tokens,
        output_tokens=trace.output_tokens,
        parent=trace.parent if line.turns_wait else None,
        think_s=trace.think_s if line.turns_wait else None,
        block_start=trace.block_start,
        blocks=trace.blocks,
        block_tokens=trace.block_tokens,
    )
    fleet = line.fleet
    walls_s = []
    for _ in range(1 + ROUNDS):
        policy = line.policy(line.policy.Options(), fleet, 1)
        started_s = time.perf_counter()
        run = replay(fleet, demand, policy, line.settings)
        run.close(run.end_s)
        joules = sum(run.energy_joules().values())
        walls_s.append(time.perf_counter() - started_s)
    hits = run.hit_tokens
    ttft_s = run.world.requests["first_s"] - run.world.requests["reach_s"]  # the way takes no time
    return {
        "policy": line.policy.__name__,
        "instances": line.instances,
        "requests": len(trace),
        "requests_per_s": round(len(trace) / min(walls_s[1:])),
        "input_tokens_mean": round(float(trace.input_tokens.mean())),
        "prefix_hit_fraction": None
        if hits is None
        else round(float(hits.sum() / trace.input_tokens.sum(dtype=np.int64)), 4),
        "features": [*FEATURES, *line.features],
        "ttft_p50_s": round(float(np.quantile(ttft_s, 0.5)), 4),
        "ttft_p99_s": round(float(np.quantile(ttft_s, 0.99)), 4),
        "joules_per_output_token": round(joules / int(trace.output_tokens.sum()), 4),
    }


def write_mooncake(trace: Trace, path: Path) -> None:
    """The columns of Mooncake's format that a replay needs; no two prompts share a block."""
    columns = (trace.arrival_s * 1e3, trace.input_tokens, trace.output_tokens)
    block, lines = 0, []
    for arrival_ms, prompt, answer in zip(*(each.tolist() for each in columns), strict=True):
        end = block + -(-prompt // 64)
        row = {"timestamp": arrival_ms, "input_length": prompt, "output_length": answer}
        lines.append(json.dumps({**row, "hash_ids": list(range(block, end))}))
        block = end
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def peer(trace: Trace, instances: int) -> dict[str, Any]:
    """DynoSim on the same requests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        write_mooncake(trace, path)
        command = [str(each) for each in (PEER / "bin" / "python", SCRIPT, path, instances, ROUNDS)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["requests"] == len(trace)
    return {
        "peer": "DynoSim",
        "policy": "round_robin",
        "instances": instances,
        "requests": len(trace),
        "requests_per_s": round(len(trace) / found["wall_s"]),
        "ttft_p50_s": round(found["ttft_p50_s"], 4),
        "ttft_p99_s": round(found["ttft_p99_s"], 4),
        "models": PEER_MODELS,
    }


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    """One line each: ours, the memory, ours and the peer's on the same requests, their ratio."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    traces = {count: trace_for(count) for count in (8, 64, 1000)}
    for line in LINES:
        trace = trace_for(line.instances, line.talk) if line.talk else traces[line.instances]
        say(measured(line, trace))
    per_request = REQUEST.itemsize + traces[8].bytes_per_request
    say({"bytes_per_request": per_request, "goal_below": GOAL_BYTES})
    if not (PEER / "bin" / "python").exists():
        sys.exit("DynoSim is not in .peers/dynosim: run make bench-sim, which installs it")
    part = first(traces[8], PEER_REQUESTS)
    ours, theirs = measured(LINES[0], part), peer(part, LINES[0].instances)
    say({**ours, "models": OUR_MODELS})
    say(theirs)
    ratio = ours["requests_per_s"] / theirs["requests_per_s"]
    say({"ratio": round(ratio), "goal_from": GOAL_RATIO, "reached": ratio >= GOAL_RATIO})


if __name__ == "__main__":
    main()
