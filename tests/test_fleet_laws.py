"""What holds of a fleet's energy whatever the routing, and what must not change it at all."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from queues import BUILT_IN, arrivals_s, built_in, demand_of, fleet_of, machine, served

from wattbench.core.energy import FloatArray
from wattbench.routing.fleet import Fleet, Machine, Series, Site
from wattbench.routing.replay import PARTS, Replay, RouterSettings, replay
from wattbench.routing.step import affine
from wattbench.routing.world import JOULES_PER_KWH, Demand

pytestmark = pytest.mark.kernels

every_policy = pytest.mark.parametrize("policy", BUILT_IN)
BASE, REQUEST, PROMPT, CONTEXT, ATTENDED = 2.0, 0.3, 0.05, 1e-4, 1e-6  # joules
ENERGY = affine(
    base=BASE,
    per_request=REQUEST,
    per_prompt_token=PROMPT,
    per_context_token=CONTEXT,
    per_attended_token=ATTENDED,
)
TIME = affine(
    base=5e-3,
    per_request=1e-4,
    per_prompt_token=2e-5,
    per_context_token=2e-8,
    per_attended_token=1e-9,
)
BUSY_WATTS = 80.0
KIND = machine(
    TIME,
    max_batch=16,
    max_step_tokens=2048,
    kv_capacity_tokens=20_000,
    energy=ENERGY,
    busy_watts=BUSY_WATTS,
)
SLEEPY = dataclasses.replace(
    KIND, sleep_after_s=0.5, sleep_watts=3.0, wake_s=0.25, wake_joules=20.0
)


def flat(value: float) -> Series:
    return Series(at_s=(0.0,), values=(value,))


def site(name: str, carbon: Series, pue: float = 1.0) -> Site:
    return Site(
        name=name,
        price_usd_per_kwh=flat(JOULES_PER_KWH),
        carbon_gco2e_per_kwh=carbon,
        pue=pue,
    )


def two_sites(kind: Machine, count: int = 2) -> Fleet:
    """As many machines at each of two sites; a joule costs 1 USD at both."""
    return fleet_of(kind, count, site("here", flat(100.0)), site("there", flat(400.0)))


def traffic(rate_per_s: float, count: int = 5000, seed: int = 1) -> Demand:
    """Prompts of up to 800 tokens and answers of up to 200."""
    rng = np.random.default_rng((seed, 1))
    prompts, answers = (rng.integers(1, n, count, dtype=np.int32) for n in (800, 200))
    return demand_of(arrivals_s(rate_per_s, count, seed), answers, prompts)


def bytes_of(run: Replay) -> tuple[bytes, bytes]:
    return run.world.requests.tobytes(), run.world.machines.tobytes()


def machine_joules(run: Replay) -> float:
    """Sum over the machines' own records."""
    machines = run.world.machines
    busy = run.world.kinds["busy_watts"][machines["kind"]] * machines["busy_s"]
    return math.fsum([*machines["fixed"], *busy, *(x for p in PARTS[1:] for x in machines[p])])


@every_policy
@pytest.mark.parametrize("max_step_tokens", [2048, 100], ids=["whole", "chunked"])
def test_routing_changes_the_base_alone(policy: str, max_step_tokens: int) -> None:
    """On machines of one kind the energy beyond steps' bases, W and idling is the requests' own."""
    fleet = two_sites(dataclasses.replace(KIND, max_step_tokens=max_step_tokens))
    demand = traffic(20.0)
    run = served(fleet, demand, policy)
    own = []
    for length, answer in zip(demand.input_tokens, demand.output_tokens, strict=True):
        prompt, n = int(length), int(answer) - 1
        own.append(PROMPT * prompt)
        own.append(ATTENDED * (prompt * (prompt + 1) // 2))
        own.append(REQUEST * n)
        own.append(CONTEXT * (n * (prompt + 1) + n * (n - 1) // 2))
    parts, machines = run.energy_joules(), run.world.machines
    assert parts["decode"] + parts["prefill"] == pytest.approx(math.fsum(own), rel=1e-12)
    overhead = BASE * int(machines["steps"].sum()) + BUSY_WATTS * math.fsum(machines["busy_s"])
    assert parts["overhead"] == pytest.approx(overhead, rel=1e-12)


@every_policy
def test_nothing_is_lost(policy: str) -> None:
    """Parts, machines and the bill at 1 USD a joule sum up alike; every second is accounted for."""
    run = served(two_sites(SLEEPY), traffic(4.0, 1000), policy)
    run.close(run.end_s + 7.0)
    machines, parts = run.world.machines, run.energy_joules()
    whole = math.fsum(parts.values())
    assert machine_joules(run) == pytest.approx(whole, rel=1e-12)
    assert math.fsum(machines["usd"]) == pytest.approx(whole, rel=1e-12)
    assert parts["wake"] > 0
    spent_s = machines["busy_s"] + machines["idle"] / KIND.idle_watts
    spent_s += machines["sleep"] / SLEEPY.sleep_watts
    spent_s += machines["wake"] / SLEEPY.wake_joules * SLEEPY.wake_s
    assert machines["now_s"].tolist() == [run.end_s] * len(machines)
    np.testing.assert_allclose(spent_s, run.end_s, rtol=1e-12)


@every_policy
def test_equal_seeds_give_equal_bytes(policy: str) -> None:
    """Also in one process, one after the other, with signals that are late."""
    fleet, demand = two_sites(SLEEPY), traffic(20.0, 2000)
    for settings in (None, RouterSettings(signals_every_s=0.1)):
        first, second = (served(fleet, demand, policy, settings) for _ in range(2))
        assert bytes_of(first) == bytes_of(second)


@pytest.mark.parametrize("policy", ["Random", "PowerOfTwo"])
def test_another_seed_chooses_otherwise(policy: str) -> None:
    """A seed that changed nothing would make an interval over seeds a point."""
    first, second = (served(two_sites(KIND), traffic(20.0), policy, seed=seed) for seed in (1, 2))
    chosen, other = (run.world.requests["machine"] for run in (first, second))
    assert 0.15 < (chosen == other).mean() < 0.5  # of four machines


@pytest.mark.parametrize("policy", [name for name in BUILT_IN if name != "PowerCapped"])
def test_a_cap_that_never_binds_changes_nothing(policy: str) -> None:
    """A machine's own, its site's, and none: bit for bit, unless the policy looks at the cap."""
    demand, free = traffic(20.0), two_sites(KIND)
    high_watts = 10 * KIND.peak_watts
    own = two_sites(dataclasses.replace(KIND, cap_watts=high_watts))
    whole = dataclasses.replace(
        free,
        sites=tuple(dataclasses.replace(s, cap_watts=flat(2 * high_watts)) for s in free.sites),
    )
    without, *capped = (served(fleet, demand, policy) for fleet in (free, own, whole))
    for run in capped:
        assert run.world.requests.tobytes() == without.world.requests.tobytes()
        assert run.energy_joules() == without.energy_joules()


def test_a_cap_that_binds_slows_and_holds() -> None:
    """The same requests take longer, and no machine draws more than its cap while it is busy."""
    cap_watts = 450.0
    capped = two_sites(dataclasses.replace(KIND, cap_watts=cap_watts))
    free, slow = (served(fleet, traffic(20.0), "RoundRobin") for fleet in (two_sites(KIND), capped))
    assert (busy_watts(free) > cap_watts).all()
    np.testing.assert_allclose(busy_watts(slow), cap_watts, rtol=1e-12)
    longer_s = slow.world.requests["finish_s"] - free.world.requests["finish_s"]
    assert (longer_s > 0).all()


def busy_watts(run: Replay) -> FloatArray:
    """Each machine's mean power while it is busy."""
    machines = run.world.machines
    drawn = machines["fixed"] + machines["decode"] + machines["prefill"]
    return np.asarray(drawn / machines["busy_s"] + BUSY_WATTS)


@every_policy
def test_carbon_without_spread_is_energy(policy: str) -> None:
    """One intensity at all places and hours: grams are joules times it, changes of it included."""
    steady = Series(at_s=(0.0, 1.7, 40.0, 41.0), values=(250.0,) * 4)
    fleet = fleet_of(SLEEPY, 2, site("here", steady, pue=1.2), site("there", flat(250.0), pue=1.2))
    run = served(fleet, traffic(20.0), policy)
    expected = math.fsum(run.energy_joules().values()) * 1.2 * 250.0 / JOULES_PER_KWH
    assert math.fsum(run.world.machines["gco2e"]) == pytest.approx(expected, rel=1e-12)


def test_without_spread_carbon_cost_and_energy_choose_alike() -> None:
    """Three policies with one aim then are one policy.

    A power of two per joule scales exactly: what is equal but for rounding stays as it was.
    """
    carbon = flat(JOULES_PER_KWH / 2**14)
    fleet = fleet_of(KIND, 2, site("here", carbon), site("there", carbon))
    names = ("MarginalEnergy", "CarbonAware", "Cost")
    first, *others = (served(fleet, traffic(20.0), name).world.requests for name in names)
    for each in others:
        assert each.tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("here", "chosen"),
    [
        (flat(100.0), [0, 0, 0, 0, 0]),
        (Series(at_s=(0.0, 100.0), values=(100.0, 1000.0)), [0, 0, 0, 1, 1]),
        (Series(at_s=(0.0, 100.0), values=(1000.0, 100.0)), [1, 1, 1, 0, 0]),
    ],
    ids=["steady", "rises", "falls"],
)
def test_carbon_aware_goes_by_the_hour(here: Series, chosen: list[int]) -> None:
    """It knows the intensity of the moment, also of a machine that has never worked or is idle."""
    fleet = fleet_of(KIND, 1, site("here", here), site("there", flat(400.0)))
    demand = demand_of(np.array([0.0, 0.5, 1.0, 200.0, 300.0]), np.full(5, 200, dtype=np.int32))
    run = served(fleet, demand, "CarbonAware")
    assert run.world.requests["machine"].tolist() == chosen


@pytest.mark.parametrize("policy", ["PredictedLatency", "MarginalEnergy", "Cost", "CarbonAware"])
def test_equal_but_for_rounding_goes_to_who_has_least(policy: str) -> None:
    """A request adds the same everywhere; sums over what is there round it to this side or that."""
    energy = affine(base=0.0, per_request=0.1, per_context_token=1e-3 / 3)
    lane = affine(base=5e-3)
    kind = machine(lane, max_batch=64, energy=energy, idle_watts=0.0)
    fleet = fleet_of(kind, 3, site("here", flat(3.0)))
    prompts = np.random.default_rng(1).integers(1, 500, 20, dtype=np.int32)
    demand = demand_of(np.arange(20) / 100, np.full(20, 2000, dtype=np.int32), prompts)
    run = served(fleet, demand, policy)
    assert run.world.requests["machine"].tolist() == ([0, 1, 2] * 7)[:20]


def test_with_one_machine_all_policies_are_one() -> None:
    """There is nothing to choose, whether a policy is dealt out beforehand or looks."""
    fleet = fleet_of(KIND, 1, site("here", flat(1.0)))
    demand = traffic(8.0)
    first, *others = (served(fleet, demand, policy).world.requests for policy in BUILT_IN)
    for each in others:
        assert each.tobytes() == first.tobytes()


def test_twice_the_fleet_at_twice_the_rate() -> None:
    """Random routing: each machine sees the same traffic, so a token costs the same."""

    def joules_per_token(count: int, seed: int) -> float:
        demand = traffic(3.0 * count, 2000 * count, seed)
        run = served(fleet_of(KIND, count), demand, "Random", seed=seed)
        return sum(run.energy_joules().values()) / int(demand.output_tokens.sum())

    small, large = (
        np.array([joules_per_token(count, 10 * count + seed) for seed in range(10)])
        for count in (4, 8)
    )
    errors = [each.std(ddof=1) / math.sqrt(len(each)) for each in (small, large)]
    assert max(errors) < 0.005 * small.mean()
    assert small.mean() == pytest.approx(large.mean(), abs=3 * math.hypot(*errors))


def test_load_that_comes_later_slows_those_that_run() -> None:
    """A request's time is not fixed when it is admitted."""
    alone = demand_of(np.zeros(1), np.array([1000], dtype=np.int32))
    after = np.concatenate([np.zeros(1), np.full(10, 2.0)])
    crowded = demand_of(after, np.full(11, 1000, dtype=np.int32))
    quiet, busy = (
        served(fleet_of(KIND, 1), demand).world.requests[0] for demand in (alone, crowded)
    )
    assert quiet["first_s"] == busy["first_s"]
    assert busy["finish_s"] > quiet["finish_s"] + 0.5


def test_least_outstanding_counts_those_that_run() -> None:
    """While hardly anything waits, the machines still share the requests evenly."""
    kind = machine(affine(base=5e-3), max_batch=64)
    demand = demand_of(arrivals_s(100.0, 20_000, 1), np.full(20_000, 80, dtype=np.int32))
    requests = served(fleet_of(kind, 8), demand, "LeastOutstanding").world.requests
    assert (requests["first_s"] - requests["reach_s"]).max() <= 0.01 + 1e-9  # two steps: no queue
    shares = np.bincount(requests["machine"], minlength=8) / len(requests)
    assert 0.9 / 8 < shares.min() <= shares.max() < 1.1 / 8


def test_always_busiest_is_the_worst() -> None:
    """The policy that must lose does, or the others' numbers mean nothing."""
    fleet, demand = two_sites(KIND), traffic(25.0)
    worst_s = {
        policy: float(np.quantile(requests["first_s"] - requests["reach_s"], 0.99))
        for policy in BUILT_IN
        for requests in [replay(fleet, demand, built_in(policy, fleet)).world.requests]
    }
    busiest_s = worst_s.pop("AlwaysBusiest")
    assert busiest_s > max(worst_s.values())
