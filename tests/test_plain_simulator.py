"""The plain simulator does what docs/simulator.md says: each rule on a case worked out by hand.

Unless a test says otherwise, a step takes one second and costs nothing, whatever is in it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from plain_machine import PARTS, Asked, Request, Seen
from plain_simulator import (
    Replay,
    Router,
    Trace,
    at_random,
    happen,
    least_outstanding,
    least_tokens,
    power_of_two,
    replicas,
    round_robin,
    simulate,
)

from wattbench.routing.fleet import Fleet, Machine, Pool, Series, Site
from wattbench.routing.step import Lane, StepModel, affine

INF = math.inf
SECOND = affine(base=1.0)


def _machine(**changes: Any) -> Machine:
    """A machine with room for everything."""
    values = {
        "name": "m",
        "step": StepModel(memory=SECOND),
        "max_batch": 100,
        "max_step_tokens": 10_000,
        "kv_capacity_tokens": 100_000,
        "idle_watts": 0.0,
    }
    return Machine(**{**values, **changes})


def _fleet(*machines: Machine, **site: Any) -> Fleet:
    """One machine of each kind at one site."""
    pools = tuple(Pool(machine=machine, count=1, site="s") for machine in machines)
    return Fleet(pools=pools, sites=(Site(name="s", **site),))


def _one(asked: Sequence[Asked], **changes: Any) -> Replay:
    """A trace on one machine."""
    return simulate(_fleet(_machine(**changes)), asked, least_outstanding)


def _sizes(replay: Replay, machine: int = 0) -> list[tuple[int, int, int, int]]:
    return [step.size for step in replay.machines[machine].steps]


def _ends(replay: Replay) -> list[float | None]:
    return [request.finish_s for request in replay.requests]


def _where(replay: Replay) -> list[int | None]:
    return [request.machine for request in replay.requests]


def test_a_request_alone_is_one_prompt_step_and_its_decode_steps() -> None:
    """Contexts L + 1 to L + n; the parts of the energy are those of the lanes."""
    lane = affine(base=1, per_request=0.5, per_prompt_token=0.25, per_context_token=0.125)
    energy = affine(base=10, per_request=2, per_prompt_token=3, per_attended_token=0.5)
    model = StepModel(memory=lane, energy=energy, busy_watts=100)
    replay = _one([Asked(1.0, 4, 3)], step=model)
    assert _sizes(replay) == [(0, 0, 4, 10), (1, 5, 0, 0), (1, 6, 0, 0)]
    # 1 + 4/4 = 2 s; 1 + 1/2 + 5/8 = 2.125 s; 1 + 1/2 + 6/8 = 2.25 s
    (request,) = replay.requests
    assert (request.first_token_s, request.finish_s) == (3.0, 7.375)
    (machine,) = replay.machines
    assert (machine.busy_s, len(machine.steps)) == (6.375, 3)
    assert machine.joules["overhead"] == 3 * 10 + 100 * 6.375
    assert (machine.joules["decode"], machine.joules["prefill"]) == (2 * 2, 4 * 3 + 10 * 0.5)


def test_a_curve_is_flat_before_its_first_knot_and_goes_on_after_its_last() -> None:
    """F(2) = 1, F(4) = 3: one token 1 s, three 2 s, six 5 s; with D(1) = 8 a decode step 9 s."""
    lane = Lane(tokens=((2, 1), (4, 3)), batch=((0, 0), (1, 8)))
    replay = _one([Asked(0, 3, 1), Asked(10, 6, 2)], step=StepModel(memory=lane))
    assert _ends(replay) == [2, 24]
    assert replay.requests[1].first_token_s == 15


def test_the_slower_lane_holds_and_changes_within_an_answer() -> None:
    """Memory K/4 s passes the 2 s of arithmetic at K = 8."""
    memory, arithmetic = Lane(per_context_token=0.25, tokens=((0, 1),)), affine(base=2)
    replay = _one([Asked(0, 2, 4)], step=StepModel(memory=memory, arithmetic=arithmetic))
    times_s = [step.end_s - step.start_s for step in replay.machines[0].steps]
    assert times_s == [2, 2, 2, 2.25]  # K = 3, 4, 5: 1.75 s, 2 s, 2.25 s


def test_a_capped_step_lasts_until_its_mean_power_is_the_cap() -> None:
    """100 J above 50 W in 1 s; a cap of 75 W: 100 / 25 = 4 s, and 300 J."""
    model = StepModel(memory=SECOND, energy=affine(base=100), busy_watts=50)
    replay = _one([Asked(0, 1, 1)], step=model, cap_watts=75)
    assert _ends(replay) == [4]
    assert replay.machines[0].joules["overhead"] == 300
    assert _ends(_one([Asked(0, 1, 1)], step=model, cap_watts=150)) == [1]


def test_a_site_s_cap_is_shared_by_peak_power_and_holds_from_the_next_boundary() -> None:
    """Peaks 100 and 300 W under 400 W, then 200 W from 2.5 s on, thus from 3 s: steps of 2 s."""
    kinds = [_machine(step=StepModel(memory=SECOND, energy=affine(base=j))) for j in (100, 300)]
    fleet = _fleet(*kinds, cap_watts=Series(at_s=(0, 2.5), values=(400, 200)))
    replay = simulate(fleet, [Asked(0, 1, 5), Asked(0, 1, 5)], round_robin())
    assert _ends(replay) == [7, 7]
    assert [step.cap_watts for step in replay.machines[1].steps] == [300, 300, 300, 150, 150]
    lower = _machine(step=kinds[0].step, cap_watts=50)  # its peak, and so its share, is 50 W
    fleet = _fleet(lower, kinds[1], cap_watts=Series(at_s=(0,), values=(700,)))
    replay = simulate(fleet, [Asked(0, 1, 1)], round_robin())
    assert replay.machines[0].steps[0].cap_watts == 50


def test_prompts_are_cut_to_what_a_step_can_take() -> None:
    """7 tokens by 3; what is left of the third step goes to the next prompt."""
    replay = _one([Asked(0, 7, 2), Asked(0, 2, 1)], max_batch=2, max_step_tokens=3)
    # Q: 3·0 + 6; 3·3 + 6; 1·6 + 1 and 2·0 + 3
    assert _sizes(replay) == [(0, 0, 3, 6), (0, 0, 3, 15), (0, 0, 3, 10), (1, 8, 0, 0)]
    assert _ends(replay) == [4, 3]


def test_decoding_requests_take_their_part_of_the_step_first() -> None:
    """One decodes: 2 of 3 tokens are left for a prompt of 4."""
    replay = _one([Asked(0, 1, 3), Asked(0.5, 4, 1)], max_batch=2, max_step_tokens=3)
    assert _sizes(replay) == [(0, 0, 1, 1), (1, 2, 2, 3), (1, 3, 2, 7)]


def test_places_are_for_prompts_under_way_too() -> None:
    """Two places: the third comes when the first two are done."""
    replay = _one([Asked(0, 1, 2), Asked(0, 1, 1), Asked(0, 1, 1)], max_batch=2)
    assert _sizes(replay) == [(0, 0, 2, 2), (1, 2, 1, 1)]
    assert _ends(replay) == [2, 1, 2]


def test_memory_runs_out_by_preempting_the_one_admitted_last() -> None:
    """13 tokens; A, B and C have 3 + 5; D, 1 + 1 and more urgent, comes at 1.5.

    0 and 1: 9 and 12 held. 2: 15, C goes (with 2 tokens); 10 are held, yet D is not admitted.
    3: A and B hold 12, D fits. 4: 14, B goes (4 tokens), to the front of C. 5: A is done; B with 7
    and C with 5 are computed again. B is done at 6, C at 8. Preempted ones have no patience.
    """
    asked = [Asked(0, 3, 5, 1, 2.0)] * 3 + [Asked(1.5, 1, 1)]
    replay = _one(asked, kv_capacity_tokens=13)
    assert _ends(replay) == [5, 6, 8, 4]
    assert [request.first_token_s for request in replay.requests] == [1, 1, 1, 4]
    assert [request.preemptions for request in replay.requests] == [0, 1, 1, 0]
    assert _sizes(replay) == [
        (0, 0, 9, 18),
        (3, 12, 0, 0),
        (2, 10, 0, 0),
        (2, 12, 1, 1),
        (1, 7, 0, 0),
        (0, 0, 12, 28 + 15),
        (1, 6, 0, 0),
        (1, 7, 0, 0),
    ]


def test_a_preempted_request_goes_to_the_front_of_the_queue() -> None:
    """At 3, 12 of 10 are due and B goes; C, of one token, waits behind it for a place until 5."""
    asked = [Asked(0, 3, 5), Asked(0, 3, 5), Asked(0.5, 1, 1)]
    assert _ends(_one(asked, max_batch=2, kv_capacity_tokens=10)) == [5, 7, 6]


def test_a_prompt_under_way_is_preempted_like_any_other() -> None:
    """A decodes, B's prompt of 6 gets 2 of 3 a step; its 2 + 6 fit in 9, 3 + 6 too, 4 + 6 not."""
    changes = {"max_batch": 2, "max_step_tokens": 3, "kv_capacity_tokens": 9}
    replay = _one([Asked(0, 1, 5), Asked(0.5, 6, 1)], **changes)
    assert _sizes(replay) == [
        (0, 0, 1, 1),
        (1, 2, 2, 3),
        (1, 3, 2, 7),
        (1, 4, 0, 0),
        (1, 5, 0, 0),
        (0, 0, 3, 6),
        (0, 0, 3, 15),
    ]
    assert [request.preemptions for request in replay.requests] == [0, 1]


@pytest.mark.parametrize(("capacity", "finish_s"), [(18, 5), (17, 10)])
def test_whole_answers_are_reserved_with_the_fixed_charge(capacity: int, finish_s: float) -> None:
    """3 + 5 + 1 each: 18 hold two at once, 17 one after the other."""
    changes = {"kv_rule": "whole", "kv_request_tokens": 1, "kv_capacity_tokens": capacity}
    assert _ends(_one([Asked(0, 3, 5), Asked(0, 3, 5)], **changes)) == [5, finish_s]


def test_the_fixed_charge_counts_in_rule_prompt() -> None:
    """Two prompts of 3 and their charges of 2 fit in 10, with their first tokens 12: one goes."""
    changes = {"kv_request_tokens": 2, "kv_capacity_tokens": 10}
    replay = _one([Asked(0, 3, 2), Asked(0, 3, 2)], **changes)
    assert _sizes(replay) == [(0, 0, 6, 12), (1, 4, 0, 0), (0, 0, 4, 10)]


def test_higher_priorities_go_first_and_first_come_first_served_within() -> None:
    """One place, taken until 2."""
    asked = [Asked(0, 1, 2), Asked(0.1, 1, 1, 1), Asked(0.2, 1, 1), Asked(0.3, 1, 1)]
    assert _ends(_one(asked, max_batch=1)) == [2, 5, 3, 4]


def test_a_head_that_does_not_fit_stops_lower_priorities_too() -> None:
    """6 of 10 are held at 1; a head of 8 waits until 2, and one of 1 behind it."""
    asked = [Asked(0, 5, 2), Asked(0.5, 1, 1, 1), Asked(0.6, 8, 1)]
    assert _ends(_one(asked, kv_capacity_tokens=10)) == [2, 3, 3]


def test_patience_ends_after_its_time_in_the_queue() -> None:
    """At 3 one has waited 2.5: with a patience of 2 it is cancelled, with 2.6 it is served."""
    asked = [Asked(0, 1, 3), Asked(0.5, 1, 1, 0, 2.0), Asked(0.5, 1, 1, 0, 2.6)]
    replay = _one(asked, max_batch=1)
    assert [request.status for request in replay.requests] == ["served", "cancelled", "served"]
    assert _ends(replay) == [3, None, 4]


def test_a_turn_follows_its_parent_and_is_cancelled_with_it() -> None:
    """The first is served at 2, its turn arrives at 3.5; the third waits from 3.6 to 5.5."""
    asked = [
        Asked(0, 1, 2),
        Asked(0.1, 1, 2, parent=0, think_s=1.5),
        Asked(3.6, 1, 1, patience_s=1.0),
        Asked(0, 1, 1, parent=2),
    ]
    replay = _one(asked, max_batch=1)
    assert replay.requests[1].arrival_s == 3.5
    assert _ends(replay) == [2, 5.5, None, None]
    assert [request.status for request in replay.requests[2:]] == ["cancelled"] * 2
    assert _where(replay) == [0, 0, 0, None]


def test_machines_idle_sleep_and_wake() -> None:
    """Idle 0–1, 2–7 and 13–18, asleep 7–10 and 18–20, waking 10–12."""
    changes = {"idle_watts": 100, "sleep_watts": 10, "sleep_after_s": 5, "wake_s": 2}
    machine = _machine(**changes, wake_joules=300)
    asked = [Asked(1, 1, 1), Asked(10, 1, 1), Asked(11, 1, 1)]
    replay = simulate(_fleet(machine), asked, least_outstanding, horizon_s=20)
    assert _ends(replay) == [2, 13, 13]
    joules = replay.machines[0].joules
    assert (joules["idle"], joules["sleep"], joules["wake"]) == (1100, 50, 300)
    assert replay.horizon_s == 20
    # At the very moment of falling asleep it is still awake.
    assert _ends(_one([Asked(1, 1, 1), Asked(7, 1, 1)], **changes)) == [2, 8]


def test_energy_is_priced_when_it_flows() -> None:
    """1 kWh idle 0–1, 1 kWh in the step 1–2; 0.1 USD/kWh until 1.5, 0.3 after it; PUE 1.5."""
    model = StepModel(memory=SECOND, energy=affine(base=3.6e6))
    price = Series(at_s=(0, 1.5), values=(0.1, 0.3))
    fleet = _fleet(_machine(step=model, idle_watts=3.6e6), pue=1.5, price_usd_per_kwh=price)
    (site,) = simulate(fleet, [Asked(1, 1, 1)], least_outstanding).sites
    assert site.cost_usd == pytest.approx(1.5 * (0.1 + 0.2), rel=1e-12)
    assert site.emissions_gco2e is None
    fleet = _fleet(_machine(step=model), carbon_gco2e_per_kwh=Series(at_s=(0, 1.5), values=(0, 8)))
    (site,) = simulate(fleet, [Asked(1, 1, 1)], least_outstanding).sites
    assert site.cost_usd is None
    assert site.emissions_gco2e == pytest.approx(4, rel=1e-12)


def test_requests_are_late_by_router_and_network() -> None:
    """Sent at 1, there at 1.75."""
    fleet = _fleet(_machine(), network_s=0.5)
    replay = simulate(fleet, [Asked(1, 1, 1)], least_outstanding, router_s=0.25)
    assert _ends(replay) == [2.75]


def test_the_router_does_not_see_a_step_end_early() -> None:
    """Machine 0: a step 0–1, then 1–2; machine 1: a step 0.1–1.1, unfinished at 1.05."""
    asked = [Asked(at_s, 1, 1) for at_s in (0, 0.1, 0.2, 1.05, 1.15)]
    replay = simulate(_fleet(_machine(), _machine()), asked, least_outstanding)
    assert _where(replay) == [0, 1, 0, 0, 1]


def test_the_router_sees_what_it_sent_and_what_has_ended_at_the_moment() -> None:
    """Network 0.5: the first is there at 0.5 and done at 1.5, the second at 2.75."""
    views: list[list[Seen]] = []

    def choose(view: Sequence[Seen], request: Request) -> int:
        views.append(list(view))
        return 0

    asked = [Asked(at_s, 1, 1) for at_s in (0, 0.25, 1.5, 4, 7)]
    fleet = _fleet(_machine(sleep_after_s=1), network_s=0.5)
    simulate(fleet, asked, choose)
    # 0.25: on its way; 1.5: the first is done, the second waits; 4: the third was done at 3.5;
    # 7: the fourth at 5.5.
    assert [(v.waiting, v.running, v.outstanding_tokens) for (v,) in views] == [
        (0, 0, 0),
        (1, 0, 2),
        (1, 0, 2),
        (0, 0, 0),
        (0, 0, 0),
    ]
    assert [(v.idle, v.asleep) for (v,) in views] == [
        (True, False),
        (True, False),
        (False, False),
        (True, False),
        (True, True),
    ]


@pytest.mark.parametrize(("own_sends", "machines"), [(False, [0, 0, 0, 1]), (True, [0, 1, 2, 1])])
def test_signals_are_as_old_as_their_period(own_sends: bool, machines: list[int]) -> None:
    """State at 0, then at 10: the first request runs on until 20."""
    asked = [Asked(0.1, 1, 20), Asked(0.2, 1, 1), Asked(0.3, 1, 1), Asked(10.5, 1, 1)]
    fleet = _fleet(_machine(), _machine(), _machine())
    replay = simulate(fleet, asked, least_outstanding, signals_every_s=10, own_sends=own_sends)
    assert _where(replay) == machines


def test_policies_leave_out_machines_that_can_never_hold_a_request() -> None:
    """Machine 1 of three holds 4 tokens."""
    fleet = _fleet(_machine(), _machine(kv_capacity_tokens=4), _machine())
    asked = [Asked(t, *size) for t, size in enumerate([(1, 1), (4, 1), (1, 1), (2, 2)])]
    assert _where(simulate(fleet, asked, round_robin())) == [0, 2, 0, 1]
    replay = simulate(fleet, asked, at_random([0.4, 0.4, 0.6, 0.99]))
    assert _where(replay) == [1, 0, 1, 2]
    # Pairs (1, 0), (2, 0), (0, 1), (0, 0 → 1); idle ones tie, and the lowest number wins.
    draws = [(0.4, 0.0), (0.6, 0.0), (0.0, 0.2), (0.1, 0.1)]
    assert _where(simulate(fleet, asked, power_of_two(draws))) == [0, 0, 0, 0]


def test_tokens_or_requests_are_counted() -> None:
    """One request of 100 tokens on machine 0, two of 2 tokens on machine 1."""
    asked = [Asked(0, 90, 10), Asked(0.1, 1, 1), Asked(0.2, 1, 1), Asked(0.3, 1, 1)]
    fleet = _fleet(_machine(), _machine())
    assert _where(simulate(fleet, asked, least_tokens)) == [0, 1, 1, 1]
    assert _where(simulate(fleet, asked, least_outstanding)) == [0, 1, 0, 1]


def _trace(count: int, seed: int = 1) -> list[Asked]:
    """Requests at random moments."""
    draw, now_s, asked = random.Random(seed), 0.0, []
    for _ in range(count):
        now_s += draw.expovariate(0.5)
        asked.append(Asked(now_s, draw.randint(1, 40), draw.randint(1, 12)))
    return asked


def test_energy_is_that_of_the_steps_and_of_the_rest_and_no_routing_changes_a_token_s() -> None:
    """Without preemption, prompts and answers cost the same wherever and however they are cut."""
    energy = affine(
        base=7, per_request=2, per_prompt_token=3, per_context_token=0.1, per_attended_token=0.01
    )
    step = StepModel(memory=affine(base=0.3, per_request=0.1), energy=energy, busy_watts=20)
    changes = {"max_batch": 4, "max_step_tokens": 16, "idle_watts": 11}
    fleet = _fleet(*[_machine(step=step, **changes)] * 3)
    asked = _trace(200)
    for choose in (round_robin(), least_tokens):
        replay = simulate(fleet, asked, choose)
        for machine in replay.machines:
            idle_s = replay.horizon_s - machine.busy_s
            total = sum(each.joules for each in machine.steps) + 11 * idle_s
            assert sum(machine.joules[part] for part in PARTS) == pytest.approx(total, rel=1e-12)
        decode = prefill = 0.0
        for each in asked:
            length, n = each.input_tokens, each.output_tokens - 1
            decode += 2 * n + 0.1 * (n * (length + 1) + n * (n - 1) / 2)
            prefill += 3 * length + 0.01 * length * (length + 1) / 2
        drawn = [machine.joules for machine in replay.machines]
        assert sum(each["decode"] for each in drawn) == pytest.approx(decode, rel=1e-12)
        assert sum(each["prefill"] for each in drawn) == pytest.approx(prefill, rel=1e-12)


def test_little_s_law_holds_on_the_path() -> None:
    """Requests counted in the machines at every moment, against their times there."""
    fleet = _fleet(*[_machine(max_batch=3, kv_capacity_tokens=80)] * 2)
    machines, _ = replicas(fleet)
    router = Router(machines=machines, choose=least_outstanding)
    trace, now_s, area = Trace(_trace(200)), 0.0, 0.0
    while trace.next_s() < INF or any(machine.next_s() < INF for machine in machines):
        next_s = min(trace.next_s(), *(machine.next_s() for machine in machines))
        area += (next_s - now_s) * sum(each.seen(now_s).outstanding for each in machines)
        now_s = next_s
        happen(now_s, machines, router, trace)
    stays_s = [(r.finish_s or INF) - r.arrival_s for r in trace.requests]
    assert area == pytest.approx(sum(stays_s), rel=1e-9)
    assert sum(request.preemptions for request in trace.requests) > 0


def test_a_queue_with_one_server_follows_lindley_s_recursion() -> None:
    """M/D/1: three steps of 0.6 s each, one request at a time."""
    asked = [Asked(each.arrival_s, 1, 3) for each in _trace(1000)]
    replay = _one(asked, max_batch=1, step=StepModel(memory=affine(base=0.6)))
    wait_s, before_s = 0.0, asked[0].arrival_s
    for request in replay.requests:
        wait_s = max(0.0, wait_s + 1.8 * (request.number > 0) - (request.arrival_s - before_s))
        before_s = request.arrival_s
        assert request.finish_s == pytest.approx(request.arrival_s + wait_s + 1.8, abs=1e-9)
