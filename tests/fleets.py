"""Small fleets and traces drawn at random, in which every rule of the simulation comes to act.

Two simulators that round differently must still decide alike. So every time and rate here is a
whole number times the exponential of its own fraction: no sum of such numbers is another one, and
a request never reaches a machine within a rounding error of a boundary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hypothesis import strategies as st
from plain_machine import Asked
from plain_simulator import (
    Policy,
    Replay,
    at_random,
    least_outstanding,
    least_tokens,
    power_of_two,
    prefix_affinity,
    round_robin,
    simulate,
)

from wattbench.routing.fleet import Autoscale, Fleet, Machine, Pool, Role, Series, Site, Transfer
from wattbench.routing.step import Lane, StepModel, affine

POLICIES = (
    "round robin",
    "random",
    "least outstanding",
    "power of two",
    "least tokens",
    "prefix affinity",
)
MAX_INPUT, MAX_OUTPUT = 40, 30
SPREAD = 2
REQUESTS, KINDS, SITES = 60, 3, 2
PRIME = 503


def _odd(number: float, place: int) -> float:
    """The number times e^x, 1 ≤ e^x < e, with another x at each place."""
    return number * math.exp(place * 211 % PRIME / PRIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a simulator is given.

    Attributes:
        fleet: The machines.
        asked: The trace.
        policy: One of ``POLICIES``.
        draws: Two numbers in [0, 1) for each request: the first for ``random``.
        router_s: Delay of the router [s].
        horizon_s: Machines idle until then at least [s].
        signals_every_s: Period of the signals [s]; None: the router knows the moment.
        own_sends: Whether the router adds what it sent since the last signals.
        block_tokens: Text of a block of the prompts.
    """

    fleet: Fleet
    asked: tuple[Asked, ...]
    policy: str
    draws: tuple[tuple[float, float], ...]
    router_s: float
    horizon_s: float
    signals_every_s: float | None
    own_sends: bool
    block_tokens: int = 1

    def choose(self) -> Policy:
        """The policy of the plain simulator, as before its first request."""
        policies: dict[str, Policy] = {
            "round robin": round_robin(),
            "random": at_random([first for first, _ in self.draws]),
            "least outstanding": least_outstanding,
            "power of two": power_of_two(self.draws),
            "least tokens": least_tokens,
            "prefix affinity": prefix_affinity(SPREAD),
        }
        return policies[self.policy]

    def replay(self) -> Replay:
        """What the plain simulator makes of it."""
        return simulate(
            self.fleet,
            self.asked,
            self.choose(),
            router_s=self.router_s,
            horizon_s=self.horizon_s,
            signals_every_s=self.signals_every_s,
            own_sends=self.own_sends,
            block_tokens=self.block_tokens,
        )


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """A fleet of one to a dozen machines and a trace of 5 to 60 requests."""
    asked = draw(_traces())
    block_tokens = draw(st.sampled_from((1, 4, 7)))
    if draw(st.booleans()):
        asked = draw(_with_blocks(asked, block_tokens))
    numbers = st.integers(0, 10**6 - 1).map(lambda n: (n + 0.5) / 10**6)
    count = len(asked)
    return Scenario(
        fleet=draw(_fleets()),
        asked=asked,
        policy=draw(st.sampled_from(POLICIES)),
        draws=tuple(draw(st.lists(st.tuples(numbers, numbers), min_size=count, max_size=count))),
        router_s=_odd(1e-3 * draw(st.integers(0, 20)), 1),
        horizon_s=_odd(0.1 * draw(st.integers(0, 40)), 2),
        signals_every_s=draw(st.none() | st.integers(5, 200).map(lambda ms: _odd(1e-3 * ms, 3))),
        own_sends=draw(st.booleans()),
        block_tokens=block_tokens,
    )


@st.composite
def _with_blocks(draw: st.DrawFn, asked: tuple[Asked, ...], block_tokens: int) -> tuple[Asked, ...]:
    """Prompts of a few texts: a block stands for its text and all before it, so for one place."""
    texts = draw(st.lists(st.integers(0, 3), min_size=len(asked), max_size=len(asked)))
    fork = draw(st.integers(0, 4))  # so many blocks are common to all texts
    found = []
    for each, text in zip(asked, texts, strict=True):
        count = -(-each.input_tokens // block_tokens)
        blocks = tuple(n if n < fork else n + MAX_INPUT * (text + 1) for n in range(count))
        found.append(replace(each, blocks=blocks))
    return tuple(found)


@st.composite
def _traces(draw: st.DrawFn) -> tuple[Asked, ...]:
    """Requests in bursts; some with priority, with little patience, some turns of a session."""
    mostly = st.sampled_from((False, False, True))
    each = st.tuples(
        st.integers(1, 25) | st.sampled_from((3, 8, 150, 400)),  # since the last one [ms]
        st.integers(1, MAX_INPUT),
        st.integers(1, MAX_OUTPUT),
        st.sampled_from((0, 0, 0, 1, 2)),
        mostly.flatmap(lambda yes: st.integers(5, 400) if yes else st.none()),  # patience [ms]
        mostly.flatmap(lambda yes: st.integers(1, 10) if yes else st.none()),  # the parent before
        st.integers(0, 300),  # time to think [ms]
    )
    asked: list[Asked] = []
    now_s, count = 0.0, draw(st.integers(5, REQUESTS))
    for number, drawn in enumerate(draw(st.lists(each, min_size=count, max_size=count))):
        gap_ms, input_tokens, output_tokens, priority, patience_ms, back, think_ms = drawn
        now_s += _odd(1e-3 * gap_ms, 10 + number)
        patience_s = _odd(1e-3 * patience_ms, 80 + number) if patience_ms else math.inf
        parent = number - back if back and back <= number else -1
        think_s = _odd(1e-3 * think_ms, 150 + number) if parent >= 0 else 0.0
        asked.append(
            Asked(now_s, input_tokens, output_tokens, priority, patience_s, parent, think_s)
        )
    return tuple(asked)


@st.composite
def _fleets(draw: st.DrawFn) -> Fleet:
    """One to three kinds of machines at one or two sites."""
    sites = [draw(_sites(number)) for number in range(draw(st.integers(1, SITES)))]
    pools = []
    transfer = draw(st.one_of(st.none(), st.none(), _transfers()))
    roles: tuple[Role, ...] = ("both", "both", "both")
    if transfer is not None:
        roles = ("decode", "prefill", draw(st.sampled_from(("both", "prefill", "decode"))))
    for kind in range(draw(st.integers(1 if transfer is None else 2, KINDS))):
        rule = draw(st.none() | _autoscales(kind))
        most = 2 if kind == 0 else 1
        count = draw(st.integers(1, most) if rule is None else st.integers(rule.min_count, 4))
        site = sites[(kind + 1) % len(sites)]
        machine = draw(_machines(kind, is_roomy=kind == 0 or (kind == 1 and transfer is not None)))
        role = roles[kind]
        pools.append(Pool(machine=machine, count=count, site=site.name, autoscale=rule, role=role))
    fleet = Fleet(pools=tuple(pools), sites=tuple(sites), transfer=transfer)
    capped = [draw(_capped(fleet, site, number)) for number, site in enumerate(sites)]
    return replace(fleet, sites=tuple(capped))


@st.composite
def _transfers(draw: st.DrawFn) -> Transfer:
    """From nothing to a few steps' time."""
    return Transfer(
        fixed_s=_odd(1e-3 * draw(st.integers(0, 30)), 490),
        s_per_token=_odd(1e-5 * draw(st.integers(0, 100)), 491),
        joules_per_token=_odd(1e-2 * draw(st.integers(0, 10)), 492),
    )


@st.composite
def _autoscales(draw: st.DrawFn, kind: int) -> Autoscale:
    """From one or two machines on, with a target that a burst is above."""
    place = 470 + 5 * kind
    return Autoscale(
        min_count=draw(st.sampled_from((1, 1, 2))),
        outstanding_per_machine=0.5 * draw(st.integers(1, 8)),
        every_s=_odd(1e-3 * draw(st.integers(5, 300)), place),
        provision_s=_odd(1e-3 * draw(st.integers(0, 300)), place + 1),
        provision_joules=_odd(draw(st.integers(0, 20)), place + 2),
        off_watts=_odd(draw(st.integers(0, 5)), place + 3),
    )


@st.composite
def _machines(draw: st.DrawFn, kind: int, *, is_roomy: bool) -> Machine:
    """A small machine; one with room can hold any request."""
    place = 230 + 30 * kind
    max_batch = draw(st.integers(1, 6))
    least = MAX_INPUT + MAX_OUTPUT + 3 if is_roomy else MAX_OUTPUT
    step = draw(_steps(place))
    idle_watts = _odd(draw(st.integers(0, 40)), place)
    machine = Machine(
        name=f"kind {kind}",
        step=step,
        max_batch=max_batch,
        max_step_tokens=max_batch + draw(st.integers(1, 24)),
        kv_capacity_tokens=draw(st.integers(least, 160)),
        kv_request_tokens=draw(st.sampled_from((0, 0, 3))),
        prefix_cache_tokens=draw(st.sampled_from((0, 10, 60))),
        kv_rule=draw(st.sampled_from(("prompt", "prompt", "whole"))),
        idle_watts=idle_watts,
        sleep_watts=_odd(draw(st.integers(0, 10)), place + 1),
        sleep_after_s=draw(
            st.just(math.inf) | st.integers(0, 200).map(lambda ms: _odd(1e-3 * ms, place + 2))
        ),
        wake_s=_odd(1e-3 * draw(st.integers(0, 80)), place + 3),
        wake_joules=_odd(draw(st.integers(0, 20)), place + 4),
    )
    if draw(st.booleans()):  # a cap that binds from some batch and some context on
        size = (draw(st.integers(1, max_batch)), draw(st.integers(10, 160)), 0, 0)
        cap_watts = step.busy_watts + step.energy.cost(*size) / step.time_s(size)
        lowest_watts = 1.1 * max(idle_watts, step.busy_watts)
        machine = replace(machine, cap_watts=max(cap_watts, lowest_watts))
    return machine


@st.composite
def _steps(draw: st.DrawFn, place: int) -> StepModel:
    """Lanes that are near each other, so that now one holds, now another; some with knots."""
    milli = [1e-3 * draw(st.integers(1, 12)) for _ in range(4)]
    base_s, slope_s = _odd(milli[0], place + 5), _odd(milli[1] / 10, place + 6)
    batch_s, bend = _odd(milli[2] / 4, place + 7), draw(st.integers(2, 12))
    arithmetic = Lane(
        tokens=(
            (1.0, base_s),
            (bend + 0.0, base_s + slope_s * bend),
            (2.0 * bend, base_s + 4 * slope_s * bend),
        ),
        batch=((0.0, 0.0), (2.0, 2 * batch_s), (4.0, 2 * batch_s + milli[3] / 2)),
    )
    batch, context = draw(st.integers(1, 6)), draw(st.integers(10, 120))  # where memory takes over
    context_s = _odd(2e-5 * draw(st.integers(1, 10)), place + 8)
    memory_s = arithmetic.cost(batch, 0, 0, 0) - context_s * context
    memory = Lane(
        tokens=((0.0, max(memory_s, _odd(1e-3, place + 9))),),
        per_context_token=context_s,
        per_attended_token=_odd(1e-6 * draw(st.integers(0, 10)), place + 10),
    )
    energy = affine(
        base=_odd(0.5 + 0.1 * draw(st.integers(0, 10)), place + 11),
        per_request=_odd(0.1 * draw(st.integers(0, 5)), place + 12),
        per_prompt_token=_odd(0.02, place + 13),
        per_context_token=_odd(2e-3 * draw(st.integers(0, 15)), place + 14),
        per_attended_token=_odd(1e-4, place + 15),
    )
    if draw(st.sampled_from((False, False, True))):  # an affine model has one lane of time
        memory, arithmetic = affine(base=memory.tokens[0][1], per_request=batch_s), Lane()
    busy_watts = _odd(draw(st.integers(0, 40)), place + 16)
    return StepModel(memory=memory, arithmetic=arithmetic, energy=energy, busy_watts=busy_watts)


@st.composite
def _sites(draw: st.DrawFn, number: int) -> Site:
    """A site without a cap."""
    place = 340 + 60 * number
    levels = st.integers(0, 50).map(float)
    return Site(
        name=f"site {number}",
        pue=1 + 0.05 * draw(st.integers(0, 10)),
        network_s=_odd(1e-3 * draw(st.integers(0, 20)), place),
        price_usd_per_kwh=draw(st.none() | _series(levels, place + 1)),
        carbon_gco2e_per_kwh=draw(st.none() | _series(levels, place + 11)),
    )


@st.composite
def _series(draw: st.DrawFn, levels: st.SearchStrategy[float], place: int) -> Series:
    """One to six values."""
    at_s, values = [0.0], [draw(levels)]
    for number in range(draw(st.integers(0, 5))):
        at_s.append(at_s[-1] + _odd(1e-3 * draw(st.integers(10, 400)), place + number))
        values.append(draw(levels))
    return Series(at_s=tuple(at_s), values=tuple(values))


@st.composite
def _capped(draw: st.DrawFn, fleet: Fleet, site: Site, number: int) -> Site:
    """A site with a cap that its machines can obey, now below and now above what they draw."""
    pools = list(fleet.pools_at(site))
    if not pools or draw(st.sampled_from((True, False, False))):
        return site
    peak_watts = sum(pool.count * pool.machine.peak_watts for pool in pools)
    shares = [(pool.machine, pool.machine.peak_watts / peak_watts) for pool in pools]
    lowest_watts = max(max(m.idle_watts, m.step.busy_watts) / share for m, share in shares)
    levels = st.integers(5, 110).map(lambda c: 1.01 * lowest_watts + 0.01 * c * peak_watts)
    return replace(site, cap_watts=draw(_series(levels, 340 + 60 * number + 21)))
