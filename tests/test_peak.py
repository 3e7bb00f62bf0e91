"""The peak power of a machine: no step draws more, and there is one that draws as much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pytest
from fleets import Scenario, scenarios
from hypothesis import given, settings

from wattbench.hardware import load_model, load_profile, roofline
from wattbench.routing.fleet import Fleet, Machine
from wattbench.routing.step import Lane, StepModel, affine
from wattbench.simulation.machines import step_of

pytestmark = pytest.mark.kernels

CAPACITY = 160


def machine(step: StepModel, **fields: Any) -> Machine:
    limits: dict[str, Any] = {
        "max_batch": 8,
        "max_step_tokens": 32,
        "kv_capacity_tokens": CAPACITY,
        **fields,
    }
    return Machine(name="machine", step=step, idle_watts=1.0, **limits)


def watts(step: StepModel, size: tuple[int, int, int, int]) -> float:
    return step.energy_joules(size) / step.time_s(size)


def uncapped(fleet: Fleet) -> Fleet:
    pools = [
        dataclasses.replace(p, machine=dataclasses.replace(p.machine, cap_watts=math.inf))
        for p in fleet.pools
    ]
    sites = tuple(dataclasses.replace(site, cap_watts=None) for site in fleet.sites)
    return dataclasses.replace(fleet, pools=tuple(pools), sites=sites)


@settings(max_examples=60)
@given(scenarios())
def test_no_step_draws_more(drawn: Scenario) -> None:
    """Neither those of a replay, nor any size that the limits allow."""
    scenario = dataclasses.replace(drawn, fleet=uncapped(drawn.fleet))
    for replica in scenario.replay().machines:
        kind = replica.pool.machine
        peak_watts = kind.peak_watts * (1 + 1e-9)
        for step in replica.steps:
            assert step.joules <= peak_watts * (step.end_s - step.start_s)
        for size in sizes(kind):
            assert watts(kind.step, size) <= peak_watts, size


def sizes(kind: Machine) -> Iterator[tuple[int, int, int, int]]:
    """Steps (B, K, P, Q) that the limits allow."""
    most = kind.kv_capacity_tokens
    for batch in range(kind.max_batch + 1):
        for prompt in {0, 1, 2, 5, kind.max_step_tokens - batch}:
            for context in {batch, min(batch * 10, most), most if batch else 0}:
                for attended in {prompt, prompt * min(most, (prompt + 1) // 2), prompt * most}:
                    if 0 < batch + prompt <= kind.max_step_tokens:
                        yield batch, context, prompt, attended


def test_a_mixed_step_may_be_the_dearest() -> None:
    """Decoding fills the memory lane and a prompt the arithmetic one: both at once draw most."""
    step = StepModel(
        memory=Lane(tokens=((0.0, 0.001),), per_context_token=1e-4),
        arithmetic=affine(base=0.0, per_request=1e-3, per_prompt_token=1e-3),
        energy=affine(base=0.1, per_prompt_token=0.1, per_request=0.1, per_context_token=0.01),
    )
    kind = machine(step)
    pure = max(watts(step, (8, CAPACITY, 0, 0)), watts(step, (0, 0, 32, 528)))
    mixed = watts(step, (8, CAPACITY, 9, 45))
    assert mixed > 1.2 * pure
    assert mixed <= kind.peak_watts == pytest.approx(200.0)


def test_a_roofline_draws_most_where_both_lanes_are_full() -> None:
    """Memory and arithmetic at their full power at once, also over hundreds of knots."""
    model = load_model("gpt-oss-120b")
    line = roofline(load_profile("h100-sxm"), model, None)
    kind = machine(step_of(line), max_batch=256, max_step_tokens=8192, kv_capacity_tokens=10**6)
    full_watts = line.memory_watts + line.compute_watts - line.floor_watts
    assert len(kind.step.memory.tokens) > 100
    assert 0.95 * full_watts < kind.peak_watts <= full_watts * (1 + 1e-9)
