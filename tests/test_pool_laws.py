"""What holds of pools that scale and of pools with a role, under every built-in policy."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from queues import BUILT_IN, demand_of, machine, served

from wattbench.routing.fleet import Autoscale, Fleet, Pool, Series, Site, Transfer
from wattbench.routing.replay import RouterSettings
from wattbench.routing.step import affine
from wattbench.routing.world import JOULES_PER_KWH, Demand

pytestmark = pytest.mark.kernels
REQUEST, PROMPT, CONTEXT = 0.3, 0.05, 1e-4  # joules
KIND = machine(
    affine(base=5e-3, per_request=1e-4, per_prompt_token=2e-5, per_context_token=2e-8),
    max_batch=16,
    max_step_tokens=2048,
    kv_capacity_tokens=200_000,
    energy=affine(
        base=2.0, per_request=REQUEST, per_prompt_token=PROMPT, per_context_token=CONTEXT
    ),
    busy_watts=80.0,
)
SCALING = Autoscale(
    min_count=1,
    outstanding_per_machine=6,
    every_s=0.7,
    provision_s=1.9,
    provision_joules=50.0,
    off_watts=2.0,
)
TRANSFER = Transfer(fixed_s=0.004, s_per_token=1e-5, joules_per_token=0.01)


def a_day(count: int = 1500) -> Demand:
    """A rate that rises and falls twice."""
    rng = np.random.default_rng(5)
    rate_per_s = 12 + 11 * np.sin(np.linspace(0, 4 * math.pi, count))
    arrival_s = np.cumsum(rng.exponential(1, count) / rate_per_s)
    prompts, answers = (rng.integers(1, most, count, dtype=np.int32) for most in (800, 200))
    return demand_of(arrival_s, answers, prompts)


def fleet(*, apart: bool) -> Fleet:
    """Two pools of six at one site where a joule costs 1 USD and emits 1 g."""
    price = Series(at_s=(0.0,), values=(JOULES_PER_KWH,))
    place = Site(name="site", price_usd_per_kwh=price, carbon_gco2e_per_kwh=price)
    first = Pool(machine=KIND, count=6, site="site", autoscale=SCALING)
    pools = (first, first)
    if apart:
        pools = (
            dataclasses.replace(first, role="prefill"),
            dataclasses.replace(first, role="decode"),
        )
    return Fleet(pools=pools, sites=(place,), transfer=TRANSFER if apart else None)


@pytest.mark.parametrize("apart", [False, True], ids=["both", "apart"])
@pytest.mark.parametrize("signals_every_s", [None, 0.3])
@pytest.mark.parametrize("policy", BUILT_IN)
def test_nothing_is_lost(policy: str, apart: bool, signals_every_s: float | None) -> None:
    """Every request is served; energy beyond the steps' bases is its own; every second counts."""
    demand = a_day()
    settings = RouterSettings(signals_every_s=signals_every_s)
    run = served(fleet(apart=apart), demand, policy, settings)
    prompts, more = demand.input_tokens.astype(float), demand.output_tokens - 1.0
    own = PROMPT * prompts + REQUEST * more + CONTEXT * (more * (prompts + 1 + (more - 1) / 2))
    parts, machines = run.energy_joules(), run.world.machines
    assert parts["decode"] + parts["prefill"] == pytest.approx(own.sum(), rel=1e-9)
    moved = (prompts + 1)[more > 0].sum() if apart else 0.0
    assert parts["transfer"] == pytest.approx(moved * TRANSFER.joules_per_token, rel=1e-9)
    assert math.fsum(machines["usd"]) == pytest.approx(math.fsum(parts.values()), rel=1e-9)
    spent_s = machines["busy_s"] + machines["idle"] / KIND.idle_watts
    spent_s += machines["off"] / SCALING.off_watts
    spent_s += machines["wake"] / SCALING.provision_joules * SCALING.provision_s
    np.testing.assert_allclose(spent_s, run.end_s, rtol=1e-9)
    assert parts["off"] > 0


def test_a_transfer_of_no_time_to_one_machine_adds_nothing_but_the_handover() -> None:
    """One request alone takes as long on two machines as on one."""
    demand = demand_of(np.zeros(1), np.array([50], np.int32), np.array([700], np.int32))
    pools = [Pool(machine=KIND, count=1, site="site", role=r) for r in ("prefill", "decode")]
    free = Transfer(fixed_s=0, s_per_token=0, joules_per_token=0)
    apart = served(Fleet(pools=tuple(pools), transfer=free), demand, "LeastOutstanding")
    one = served(Fleet(pools=(Pool(machine=KIND, count=1, site="site"),)), demand)
    for name in ("first_s", "finish_s"):
        assert apart.world.requests[name] == pytest.approx(one.world.requests[name], rel=1e-12)
