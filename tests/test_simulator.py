"""The compiled simulator beside the plain one: the same choices, times and joules."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from fleets import SPREAD, Scenario, scenarios
from hypothesis import given, settings
from plain_simulator import Replay as Plain

from wattbench.routing import choice
from wattbench.routing.layout import CANCELLED, SERVED
from wattbench.routing.policies import (
    Arrival,
    BuiltIn,
    FleetView,
    LeastOutstanding,
    NoOptions,
    PowerOfTwo,
    PrefixAffinity,
    PrefixOptions,
    Random,
    RoundRobin,
    TokenJsq,
)
from wattbench.routing.replay import PARTS, Replay, RouterSettings, replay
from wattbench.routing.world import Demand

pytestmark = pytest.mark.kernels
SEED = 7
BUILT_IN: dict[str, type[BuiltIn]] = {
    "round robin": RoundRobin,
    "random": Random,
    "least outstanding": LeastOutstanding,
    "power of two": PowerOfTwo,
    "least tokens": TokenJsq,
    "prefix affinity": PrefixAffinity,
}


def demand_of(scenario: Scenario) -> Demand:
    asked = scenario.asked
    return Demand(
        arrival_s=np.array([each.arrival_s for each in asked]),
        input_tokens=np.array([each.input_tokens for each in asked], dtype=np.int32),
        output_tokens=np.array([each.output_tokens for each in asked], dtype=np.int32),
        priority=np.array([each.priority for each in asked], dtype=np.int8),
        patience_s=np.array([each.patience_s for each in asked]),
        parent=np.array([each.parent for each in asked], dtype=np.int32)
        if any(each.parent >= 0 for each in asked)
        else None,
        think_s=np.array([each.think_s for each in asked]),
        block_start=np.cumsum([0, *(len(each.blocks) for each in asked)]),
        blocks=np.array([b for each in asked for b in each.blocks], dtype=np.int32),
        block_tokens=scenario.block_tokens,
    )


def compiled(scenario: Scenario) -> Replay:
    kind = BUILT_IN[scenario.policy]
    options = PrefixOptions(spread=SPREAD) if kind is PrefixAffinity else NoOptions()
    policy = kind(options, scenario.fleet, SEED)
    router = RouterSettings(
        decision_s=scenario.router_s,
        signals_every_s=scenario.signals_every_s,
        own_sends=scenario.own_sends,
    )
    run = replay(scenario.fleet, demand_of(scenario), policy, router)
    run.close(max(run.end_s, scenario.horizon_s))
    return run


def with_draws(scenario: Scenario) -> Scenario:
    """The scenario with the numbers that the compiled policies draw."""
    count = len(scenario.asked)
    draws = [(choice.uniform(SEED, r, 0), choice.uniform(SEED, r, 1)) for r in range(count)]
    return dataclasses.replace(scenario, draws=tuple(draws))


@settings(max_examples=150)
@given(scenarios())
def test_both_simulators_agree(drawn: Scenario) -> None:
    """Choices and preemptions are equal, times to 1e-9 s, energies to 1e-9 of their sum."""
    scenario = with_draws(drawn)
    plain, run = scenario.replay(), compiled(scenario)
    requests = run.world.requests
    machines = [-1 if each.machine is None else each.machine for each in plain.requests]
    assert requests["machine"].tolist() == machines
    if scenario.fleet.transfer is not None:
        first = [-1 if r.prefill_machine is None else r.prefill_machine for r in plain.requests]
        assert run.world.legs["machine"].tolist() == first
    status = [SERVED if each.status == "served" else CANCELLED for each in plain.requests]
    assert requests["status"].tolist() == status
    assert requests["preempted"].tolist() == [each.preemptions for each in plain.requests]
    if run.hit_tokens is not None:
        assert run.hit_tokens.tolist() == [each.hit_tokens for each in plain.requests]
    else:
        assert not any(each.hit_tokens for each in plain.requests)
    for name, times in (
        ("first_s", [each.first_token_s for each in plain.requests]),
        ("finish_s", [each.finish_s for each in plain.requests]),
    ):
        expected = np.array([math.nan if each is None else each for each in times])
        np.testing.assert_allclose(requests[name], expected, rtol=0, atol=1e-9)
    waits = np.array([math.nan if r.wait_s is None else r.wait_s for r in plain.requests])
    np.testing.assert_allclose(run.queue_waits_s(), waits, rtol=0, atol=1e-9)
    _same_energy(run, plain)


def _same_energy(run: Replay, plain: Plain) -> None:
    busy = run.world.kinds["busy_watts"][run.world.machines["kind"]]
    for m, (record, machine) in enumerate(zip(run.world.machines, plain.machines, strict=True)):
        whole = sum(machine.joules.values())
        for part in PARTS:
            expected = machine.joules[part]  # type: ignore[index]
            value = (
                record[part] if part != "overhead" else record["fixed"] + busy[m] * record["busy_s"]
            )
            assert value == pytest.approx(expected, rel=0, abs=1e-9 * whole + 1e-12), part
    for s, bill in enumerate(plain.sites):
        here = run.world.machines[run.world.machines["site"] == s]
        for mine, theirs in ((here["usd"], bill.cost_usd), (here["gco2e"], bill.emissions_gco2e)):
            assert mine.sum() == pytest.approx(theirs or 0.0, rel=1e-9)


class _InPython:
    """Least outstanding, as a plug-in in Python would have it."""

    def choose(self, view: FleetView, arrival: Arrival) -> int:
        return int(np.where(view.candidates(arrival), view.outstanding, 1 << 30).argmin())


@settings(max_examples=30)
@given(scenarios())
def test_a_policy_in_python_routes_as_the_compiled_one(drawn: Scenario) -> None:
    """Whatever the router may see, both see it."""
    router = RouterSettings(
        decision_s=drawn.router_s,
        signals_every_s=drawn.signals_every_s,
        own_sends=drawn.own_sends,
    )
    built_in = LeastOutstanding(NoOptions(), drawn.fleet, 0)
    both = [replay(drawn.fleet, demand_of(drawn), each, router) for each in (built_in, _InPython())]
    first, second = (run.world.requests for run in both)
    assert first["machine"].tolist() == second["machine"].tolist()
    assert first["finish_s"].tobytes() == second["finish_s"].tobytes()
