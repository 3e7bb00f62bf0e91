"""One trace, one fleet and one way to call a policy, for tests of what queueing theory knows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wattbench.core.energy import FloatArray
from wattbench.routing import policies
from wattbench.routing.fleet import Fleet, Machine, Pool, Site
from wattbench.routing.policies import BuiltIn, RoutingPolicy, ThresholdOptions
from wattbench.routing.replay import Replay, RouterSettings, replay
from wattbench.routing.step import Lane, StepModel, affine
from wattbench.routing.world import Demand

IntArray = NDArray[np.int32]
BUILT_IN: dict[str, type[BuiltIn]] = {
    each.__name__: each
    for each in vars(policies).values()
    if isinstance(each, type) and issubclass(each, BuiltIn) and hasattr(each, "code")
}
"""Every policy that the package brings."""


def machine(memory: Lane, *, max_batch: int, **fields: Any) -> Machine:
    """A machine with room for everything, whose steps take ``memory`` seconds."""
    step = StepModel(
        memory=memory,
        energy=fields.pop("energy", affine(base=1.0)),
        busy_watts=fields.pop("busy_watts", 0.0),
    )
    room = {"max_step_tokens": 2**24, "kv_capacity_tokens": 2**30, "idle_watts": 10.0}
    return Machine(name="machine", step=step, max_batch=max_batch, **{**room, **fields})


def fleet_of(kind: Machine, count: int, *sites: Site) -> Fleet:
    """Machines of one kind, as many at each site."""
    places = sites or (Site(name="site"),)
    return Fleet(
        pools=tuple(Pool(machine=kind, count=count, site=site.name) for site in places),
        sites=places,
    )


def arrivals_s(rate_per_s: float, count: int, seed: int) -> FloatArray:
    """A Poisson process."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, count))


def demand_of(
    arrival_s: FloatArray, output_tokens: IntArray, input_tokens: IntArray | None = None
) -> Demand:
    """Requests with prompts of one token, unless they are given."""
    if input_tokens is None:
        input_tokens = np.ones(len(arrival_s), dtype=np.int32)
    return Demand(arrival_s=arrival_s, input_tokens=input_tokens, output_tokens=output_tokens)


def built_in(name: str, fleet: Fleet, seed: int = 1) -> BuiltIn:
    """A policy with its defaults; in a fleet of one pool short requests and long ones go there."""
    one_pool = len(fleet.pools) == 1 and BUILT_IN[name].Options is ThresholdOptions
    options = ThresholdOptions(long=0) if one_pool else BUILT_IN[name].Options()
    return BUILT_IN[name](options, fleet, seed)


def served(
    fleet: Fleet,
    demand: Demand,
    policy: RoutingPolicy | BuiltIn | str = "RoundRobin",
    settings: RouterSettings | None = None,
    *,
    seed: int = 1,
) -> Replay:
    """A replay up to its last completion, in which every request was answered."""
    if isinstance(policy, str):
        policy = built_in(policy, fleet, seed)
    run = replay(fleet, demand, policy, settings)
    run.close(run.end_s)
    assert np.isfinite(run.world.requests["finish_s"]).all()
    return run


def mean_and_error(values: FloatArray, batches: int = 40) -> tuple[float, float]:
    """The mean of a stationary sequence, and its standard error by batch means."""
    means = values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1)) / math.sqrt(batches)
