"""The scenarios drawn at random reach what they are for, and hold no ties."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest
from fleets import Scenario, scenarios
from hypothesis import given, settings
from plain_machine import PARTS, Part, Replica, Step
from plain_simulator import Replay

EXAMPLES, LEAST = 150, 15
REST: tuple[Part, ...] = ("idle", "sleep", "wake", "off", "transfer")
FEATURES = {
    "a request is preempted",
    "a prompt is cut",
    "all places are taken",
    "a request is never admitted, for want of patience",
    "a turn is served",
    "a turn goes with its cancelled parent",
    "a request overtakes another",
    "whole answers are reserved",
    "a machine cannot hold a request",
    "the cap holds a step",
    "the cap comes to hold, or stops, within an answer",
    "another lane comes to hold within an answer",
    "the cap changes within an answer",
    "a price changes within a step",
    "a price changes while a machine is idle",
    "a machine wakes",
    "a machine sleeps at the end",
    "several machines at one site with a cap",
    "part of a prompt is kept",
    "two sites",
    "the router is late",
    "the signals are old",
    "the signals are old, with own sends",
}


def _of_requests(scenario: Scenario, replay: Replay) -> Iterator[str]:
    for request in replay.requests:
        if request.preemptions:
            yield "a request is preempted"
        if request.hit_tokens:
            yield "part of a prompt is kept"
        if request.status == "cancelled":
            sent = request.machine is not None
            yield (
                "a request is never admitted, for want of patience"
                if sent
                else "a turn goes with its cancelled parent"
            )
        elif request.asked.parent >= 0:
            yield "a turn is served"
        if not all(pool.machine.holds(request.total_tokens) for pool in scenario.fleet.pools):
            yield "a machine cannot hold a request"
    served = [r for r in replay.requests if r.first_token_s is not None]
    for one in served:
        for other in served:
            if (
                one.machine == other.machine
                and one.reach_s < other.reach_s
                and (one.first_token_s or 0) > (other.first_token_s or 0)
            ):
                yield "a request overtakes another"


def _holding(replica: Replica, step: Step) -> str:
    """The lane that gives the step its time."""
    model = replica.pool.machine.step
    lanes = {
        "memory": model.memory.cost(*step.size),
        "arithmetic": model.arithmetic.cost(*step.size),
        "cap": model.energy.cost(*step.size) / (step.cap_watts - model.busy_watts),
    }
    return max(lanes, key=lambda name: lanes[name])


def _of_steps(replica: Replica) -> Iterator[str]:
    machine, site = replica.pool.machine, replica.bill.site
    for step in replica.steps:
        batch, _, prompt, _ = step.size
        if batch + prompt == machine.max_step_tokens:
            yield "a prompt is cut"
        if batch == machine.max_batch:
            yield "all places are taken"
        if _holding(replica, step) == "cap":
            yield "the cap holds a step"
        if site.price_usd_per_kwh and any(
            step.start_s < at_s < step.end_s for at_s in site.price_usd_per_kwh.at_s
        ):
            yield "a price changes within a step"
    for step, after in pairwise(replica.steps):
        same = step.size[0] == after.size[0] and step.size[2] == after.size[2] == 0
        if same and step.end_s == after.start_s:
            lanes = {_holding(replica, step), _holding(replica, after)}
            if step.cap_watts != after.cap_watts:
                yield "the cap changes within an answer"
            elif len(lanes) == 2:
                yield (
                    "the cap comes to hold, or stops, within an answer"
                    if "cap" in lanes
                    else "another lane comes to hold within an answer"
                )


def _of_machines(scenario: Scenario, replay: Replay) -> Iterator[str]:
    for replica in replay.machines:
        machine, site = replica.pool.machine, replica.bill.site
        yield from _of_steps(replica)
        if machine.kv_rule == "whole" and replica.steps:
            yield "whole answers are reserved"
        if replica.joules["wake"]:
            yield "a machine wakes"
        if replica.seen(replay.horizon_s).asleep:
            yield "a machine sleeps at the end"
        ends = [0.0, *(step.end_s for step in replica.steps)]
        starts = [*(step.start_s for step in replica.steps), replay.horizon_s]
        price = site.price_usd_per_kwh
        if price and any(
            end_s < at_s < start_s
            for end_s, start_s in zip(ends, starts, strict=True)
            for at_s in price.at_s[1:]
        ):
            yield "a price changes while a machine is idle"
        others = [each for each in replay.machines if each.bill is replica.bill]
        if site.cap_watts and len(others) > 1:
            yield "several machines at one site with a cap"


def _of_router(scenario: Scenario) -> Iterator[str]:
    if len({pool.site for pool in scenario.fleet.pools}) == 2:
        yield "two sites"
    if scenario.router_s:
        yield "the router is late"
    if scenario.signals_every_s is not None:
        yield "the signals are old"
        if scenario.own_sends:
            yield "the signals are old, with own sends"


def test_the_scenarios_reach_every_rule() -> None:
    """Each feature is in at least a tenth of them."""
    found: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, derandomize=True, database=None)
    @given(scenarios())
    def look(scenario: Scenario) -> None:
        replay = scenario.replay()
        features = {*_of_requests(scenario, replay), *_of_machines(scenario, replay)}
        found.update(features | {*_of_router(scenario)})
        _check_ties(replay)
        _check_energy(replay)

    look()
    assert not set(found) - FEATURES
    assert {name: found[name] for name in FEATURES if found[name] < LEAST} == {}


def _check_ties(replay: Replay) -> None:
    """No request reaches a machine within a rounding error of a boundary."""
    for replica in replay.machines:
        moments = sorted({m for step in replica.steps for m in (step.start_s, step.end_s)})
        for request in replay.requests:
            if request.machine == replica.number:
                place = bisect_left(moments, request.reach_s)
                gaps_s = [abs(m - request.reach_s) for m in moments[max(place - 1, 0) : place + 1]]
                assert all(gap_s == 0 or gap_s > 1e-10 for gap_s in gaps_s)


def _check_energy(replay: Replay) -> None:
    """The parts are the steps and the rest, and every request came to an end."""
    assert all(request.status for request in replay.requests)
    for replica in replay.machines:
        rest = sum(replica.joules[part] for part in REST)
        total = sum(step.joules for step in replica.steps) + rest
        assert sum(replica.joules[part] for part in PARTS) == pytest.approx(total, rel=1e-12)
        for step in replica.steps:
            assert step.joules <= step.cap_watts * (step.end_s - step.start_s) * (1 + 1e-9)
