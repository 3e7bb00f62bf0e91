"""What queueing theory knows of a machine and of a fleet, and the simulator has to find.

Where a law holds on every path, both sides are computed on one path and are equal. Where it holds
for means, the tolerance is three standard errors by batch means; the seeds are fixed.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from queues import (
    BUILT_IN,
    IntArray,
    arrivals_s,
    demand_of,
    fleet_of,
    machine,
    mean_and_error,
    served,
)

from wattbench.core.energy import FloatArray
from wattbench.routing.fleet import Series, Site
from wattbench.routing.policies import Arrival, FleetView
from wattbench.routing.step import affine

pytestmark = pytest.mark.kernels

STEP_S = 1e-4
MEAN_TOKENS = 500
COUNT = 400_000
SERVER = machine(affine(base=STEP_S), max_batch=1)
"""It serves one request at a time, each for as many steps as it has output tokens."""


def fixed(rng: np.random.Generator) -> IntArray:
    del rng
    return np.full(COUNT, MEAN_TOKENS, dtype=np.int32)


def geometric(rng: np.random.Generator) -> IntArray:
    return rng.geometric(1 / MEAN_TOKENS, COUNT).astype(np.int32)


def mixed(rng: np.random.Generator) -> IntArray:
    """Three in four are short, the others six times as long."""
    tokens = rng.choice([MEAN_TOKENS * 4 // 9, MEAN_TOKENS * 24 // 9], COUNT, p=[0.75, 0.25])
    return tokens.astype(np.int32)


MOMENTS: dict[Callable[[np.random.Generator], IntArray], tuple[float, float]] = {
    fixed: (MEAN_TOKENS, MEAN_TOKENS**2),
    geometric: (MEAN_TOKENS, MEAN_TOKENS * (2 * MEAN_TOKENS - 1)),
    mixed: (0.75 * 222 + 0.25 * 1333, 0.75 * 222**2 + 0.25 * 1333**2),
}
"""Mean length and mean square of it."""


def lindley_s(arrival_s: FloatArray, service_s: FloatArray) -> FloatArray:
    """Waits in a queue with one server, first come first served."""
    gaps_s = np.diff(arrival_s).tolist()
    waits_s = [0.0]
    for gap_s, before_s in zip(gaps_s, service_s.tolist(), strict=False):
        waits_s.append(max(0.0, waits_s[-1] + before_s - gap_s))
    return np.array(waits_s)


@pytest.mark.parametrize("lengths", MOMENTS, ids=["M/D/1", "M/M/1", "M/G/1"])
def test_one_server(lengths: Callable[[np.random.Generator], IntArray]) -> None:
    """Each wait is Lindley's, the mean is Pollaczek's and Khinchine's."""
    load_ratio = 0.7
    mean_s, square_s2 = (moment * STEP_S**p for p, moment in enumerate(MOMENTS[lengths], 1))
    rate_per_s = load_ratio / mean_s
    demand = demand_of(arrivals_s(rate_per_s, COUNT, 1), lengths(np.random.default_rng(2)))
    run = served(fleet_of(SERVER, 1), demand)
    waits_s = run.world.requests["first_s"] - STEP_S - demand.arrival_s
    expected_s = lindley_s(demand.arrival_s, demand.output_tokens * STEP_S)
    np.testing.assert_allclose(waits_s, expected_s, rtol=0, atol=1e-9)
    found_s, error_s = mean_and_error(waits_s)
    assert error_s < 0.03 * found_s
    assert found_s == pytest.approx(
        rate_per_s * square_s2 / (2 * (1 - load_ratio)), abs=3 * error_s
    )


class _LeastWork:
    """The server that is free first: with it, queues of their own act as one for all."""

    def __init__(self, count: int) -> None:
        self.free_s = [0.0] * count

    def choose(self, view: FleetView, arrival: Arrival) -> int:
        del view
        first = min(range(len(self.free_s)), key=self.free_s.__getitem__)
        begin_s = max(self.free_s[first], arrival.arrival_s)
        self.free_s[first] = begin_s + arrival.guess_tokens * STEP_S
        return first


def erlang_c_s(servers: int, rate_per_s: float, service_s: float) -> float:
    """Mean wait of M/M/c."""
    offered = rate_per_s * service_s
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    waits_ratio = blocked / (1 - offered / servers * (1 - blocked))
    return waits_ratio * service_s / (servers - offered)


def test_many_servers() -> None:
    """M/M/8: each wait is Kiefer's and Wolfowitz's, the mean is Erlang's."""
    servers, count, mean_tokens = 8, 120_000, 2000
    rate_per_s = 0.8 * servers / (mean_tokens * STEP_S)
    tokens = np.random.default_rng(3).geometric(1 / mean_tokens, count).astype(np.int32)
    demand = demand_of(arrivals_s(rate_per_s, count, 4), tokens)
    run = served(fleet_of(SERVER, servers), demand, _LeastWork(servers))
    waits_s = run.world.requests["first_s"] - STEP_S - demand.arrival_s
    free_s, expected_s = [0.0] * servers, []
    for now_s, service_s in zip(demand.arrival_s.tolist(), (tokens * STEP_S).tolist(), strict=True):
        expected_s.append(max(0.0, free_s[0] - now_s))
        heapq.heapreplace(free_s, max(free_s[0], now_s) + service_s)
    np.testing.assert_allclose(waits_s, expected_s, rtol=0, atol=1e-9)
    found_s, error_s = mean_and_error(waits_s)
    assert error_s < 0.05 * found_s
    assert found_s == pytest.approx(
        erlang_c_s(servers, rate_per_s, mean_tokens * STEP_S), abs=3 * error_s
    )


@pytest.mark.parametrize("shape", [fixed, mixed])
def test_shared_server(shape: Callable[[np.random.Generator], IntArray]) -> None:
    """M/G/1-PS: where a step takes as long as its batch is, only the mean length matters."""
    load_ratio = 0.7
    sharing = machine(affine(base=1e-12, per_request=STEP_S), max_batch=4096)
    steps = shape(np.random.default_rng(5))  # of decoding; the first token is free
    mean_s = MOMENTS[shape][0] * STEP_S
    demand = demand_of(arrivals_s(load_ratio / mean_s, COUNT, 6), steps + np.int32(1))
    run = served(fleet_of(sharing, 1), demand)
    found_s, error_s = mean_and_error(run.world.requests["finish_s"] - demand.arrival_s)
    assert error_s < 0.02 * found_s
    assert found_s == pytest.approx(mean_s / (1 - load_ratio), abs=3 * error_s)


TWO_SITES = tuple(
    Site(
        name=name,
        price_usd_per_kwh=Series(at_s=(0.0,), values=(value,)),
        carbon_gco2e_per_kwh=Series(at_s=(0.0,), values=(value,)),
    )
    for name, value in (("here", 0.1), ("there", 0.3))
)


@pytest.mark.parametrize("policy", BUILT_IN)
def test_little(policy: str) -> None:
    """The mean number there is is the rate times the mean time, on every path.

    Of all that are in the system by their arrivals and completions; of those that decode by the
    simulator's own integral: where a step takes a constant time and costs 1 J for each request,
    the energy of decoding counts them.
    """
    kind = machine(affine(base=STEP_S), max_batch=16, energy=affine(base=0.0, per_request=1.0))
    rng = np.random.default_rng(7)
    demand = demand_of(
        arrivals_s(300.0, 20_000, 8), rng.geometric(1 / MEAN_TOKENS, 20_000).astype(np.int32)
    )
    run = served(fleet_of(kind, 2, *TWO_SITES), demand, policy)
    first_s, finish_s = (run.world.requests[name] for name in ("first_s", "finish_s"))
    events = sorted([(t, 1) for t in demand.arrival_s] + [(t, -1) for t in finish_s])
    inside, area_s = 0, []
    for (now_s, change), (next_s, _) in pairwise(events):
        inside += change
        area_s.append(inside * (next_s - now_s))
    assert math.fsum(area_s) == pytest.approx(math.fsum(finish_s - demand.arrival_s), rel=1e-9)
    decoding_s = run.energy_joules()["decode"] * STEP_S
    assert decoding_s == pytest.approx(math.fsum(finish_s - first_s), rel=1e-9)


@pytest.mark.parametrize("batch", [8, 32, 64])
def test_saturated(batch: int) -> None:
    """A backlog is worked off at the capacity that the step's time gives.

    Each of the ``batch`` places takes a step for the prompt and one for each further token, so a
    request takes (E[n] + 1) / batch of the steps' base, and what is its own in full. The contexts
    of long answers weigh more: K̄ = E[n(L + 1) + n(n − 1)/2] / E[n].
    """
    base_s, request_s, prompt_s, context_s = 5e-3, 1e-4, 2e-5, 2e-8
    kind = machine(
        affine(
            base=base_s,
            per_request=request_s,
            per_prompt_token=prompt_s,
            per_context_token=context_s,
        ),
        max_batch=batch,
    )
    count, rng = 100_000, np.random.default_rng(9)
    prompts = rng.integers(1, 800, count, dtype=np.int32)
    answers = rng.integers(1, 400, count, dtype=np.int32)
    run = served(fleet_of(kind, 1), demand_of(np.zeros(count), answers, prompts))
    n, length = answers.astype(float) - 1, prompts.astype(float)
    context_tokens = (n * (length + 1) + n * (n - 1) / 2).mean() / n.mean()
    expected_s = base_s / batch + prompt_s * length.mean()
    expected_s += (
        n.mean() * (base_s + request_s * batch + context_s * batch * context_tokens) / (batch)
    )
    assert run.end_s / count == pytest.approx(expected_s, rel=2e-3)
