"""One replay: a trace through a fleet under one policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.routing import choice, router, scaling
from wattbench.routing.fleet import Fleet
from wattbench.routing.layout import (
    BY_TREE,
    CANCELLED,
    MOVED,
    ON,
    OPTION,
    OWN_SENDS,
    QUEUE_LIMIT,
    SEED,
    SERVED,
    SIGNALS_S,
    World,
)
from wattbench.routing.policies import Arrival, BuiltIn, FleetView, RoutingPolicy
from wattbench.routing.prefixes import HIT
from wattbench.routing.world import Demand, build

PARTS = ("overhead", "decode", "prefill", "idle", "sleep", "wake", "off", "transfer")
CHUNK = 200_000
"""Arrivals between two reports of progress."""

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """What the router takes, and how old what it sees is.

    Attributes:
        decision_s: Time of a decision, added to every request's way [s].
        decision_joules: Energy of a decision [J].
        signals_every_s: Period of the machines' signals [s]; None: the router sees everything at
            once, which no real one does.
        own_sends: Whether it adds what it has sent since the last signal.
        queue_limit: A machine with so many outstanding requests is sent no more: what would go
            there is refused; None: no limit.
    """

    decision_s: float = 0.0
    decision_joules: float = 0.0
    signals_every_s: float | None = None
    own_sends: bool = True
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no router has."""
        for name in ("decision_s", "decision_joules"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"router: {name} is {getattr(self, name):g}; 0 or more is due")
        if self.signals_every_s is not None and not 0 < self.signals_every_s < math.inf:
            raise UsageError(
                f"router: signals_every_s is {self.signals_every_s:g}; give a period above 0 s, or "
                f"leave it out"
            )
        if self.queue_limit is not None and self.queue_limit < 1:
            raise UsageError(f"router: queue_limit is {self.queue_limit}; 1 or more is due")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What came of it, machines not yet idled to a horizon.

    Attributes:
        fleet: The fleet.
        demand: The trace.
        settings: The router's.
        world: The kernels' arrays.
    """

    fleet: Fleet
    demand: Demand
    settings: RouterSettings
    world: World

    @property
    def end_s(self) -> float:
        """The last completion, or the last boundary of any machine [s]."""
        return float(self.world.machines["now_s"].max())

    @property
    def hit_tokens(self) -> Any:
        """Tokens of each prompt that were found kept (n,); None: no machine keeps any."""
        world = self.world
        return world.prompts[:-1, HIT] if len(world.shelves) else None

    def queue_waits_s(self) -> Any:
        """From reaching its first machine to its admission there (n,); NaN: not served [s]."""
        requests, legs = self.world.requests, self.world.legs
        wait_s = np.where(requests["status"] == SERVED, requests["wait_s"], np.nan)
        if len(legs):
            wait_s = np.where(legs["machine"] >= 0, legs["wait_s"], wait_s)
        return wait_s

    def energy_joules(self) -> dict[str, float]:
        """Energy by its parts [J], up to the horizon."""
        machines = self.world.machines
        busy = self.world.kinds["busy_watts"][machines["kind"]] * machines["busy_s"]
        parts = {name: float(machines[name].sum()) for name in PARTS if name != "overhead"}
        return {"overhead": float((machines["fixed"] + busy).sum()), **parts}

    def close(self, horizon_s: float) -> None:
        """Let all machines idle until one horizon, common to all policies compared [s]."""
        scaling.close(self.world, horizon_s)


def replay(
    fleet: Fleet,
    demand: Demand,
    policy: BuiltIn | RoutingPolicy,
    settings: RouterSettings | None = None,
    progress: Progress | None = None,
) -> Replay:
    """Route a trace over a fleet.

    Args:
        fleet: Machines, pools, sites.
        demand: The trace's arrays.
        policy: Built in, or one of Python.
        settings: The router's; None: it takes nothing and sees everything.
        progress: Called with the arrivals routed so far.

    Raises:
        UsageError: If a request fits no machine, or the policy chose none that there is.
    """
    settings = settings or RouterSettings()
    world = build(fleet, demand)
    run = Replay(fleet=fleet, demand=demand, settings=settings, world=world)
    delays_s = np.array([settings.decision_s + site.network_s for site in fleet.sites])
    dials = _dials(policy, settings, fleet, demand)
    if isinstance(policy, BuiltIn):
        _compiled(run, policy, dials, delays_s, progress)
    else:
        _in_python(run, policy, dials, delays_s, progress)
    requests = world.requests
    requests["status"][requests["machine"] < 0] = CANCELLED  # turns whose parent was not served
    return run


def _dials(
    policy: BuiltIn | RoutingPolicy, settings: RouterSettings, fleet: Fleet, demand: Demand
) -> Any:
    dials = np.zeros(OPTION + 4)
    limit = settings.queue_limit
    dials[QUEUE_LIMIT] = math.inf if limit is None else limit
    dials[SIGNALS_S] = settings.signals_every_s or 0.0
    dials[OWN_SENDS] = settings.signals_every_s is not None and settings.own_sends
    longest = int((demand.input_tokens.astype(np.int64) + demand.output_tokens).max())
    fits_all = all(pool.machine.holds(longest) for pool in fleet.pools)
    dials[BY_TREE] = fits_all and fleet.transfer is None
    if isinstance(policy, BuiltIn):
        dials[SEED] = policy.seed
        own = policy.dials()
        dials[OPTION : OPTION + len(own)] = own
    return dials


def _compiled(
    run: Replay, policy: BuiltIn, dials: Any, delays_s: Any, progress: Progress | None
) -> None:
    world, count = run.world, run.demand.count
    moves = run.fleet.transfer is not None
    by_number = run.demand.parent is None and not (
        moves or any(pool.autoscale for pool in run.fleet.pools)
    )
    if not policy.looks and by_number and run.settings.queue_limit is None:
        router.deal(world, policy.code, dials, delays_s)
        return
    seen = world.machines if run.settings.signals_every_s is None else world.machines.copy()
    legs = 2 * count if moves else count
    for done in range(0, legs, CHUNK):
        router.route(world, seen, policy.code, dials, delays_s, min(CHUNK, legs - done))
        if progress is not None:
            progress(min(done + CHUNK, count))
    router.drain(world)


def _in_python(
    run: Replay, policy: RoutingPolicy, dials: Any, delays_s: Any, progress: Progress | None
) -> None:
    world = run.world
    seen = world.machines if run.settings.signals_every_s is None else world.machines.copy()
    view, requests = FleetView(world, seen), world.requests
    for done in range(2 * run.demand.count):
        r = router.look(world, seen, dials)
        if r < 0:
            break
        q = requests[r]
        arrival = Arrival(
            number=r,
            arrival_s=float(q["reach_s"]),
            input_tokens=int(q["input"]),
            guess_tokens=int(q["guess"]),
            moved=bool(q["status"] == MOVED),
        )
        i = policy.choose(view, arrival)
        _check_choice(run, policy, r, i)
        router.place(world, seen, r, i, dials, delays_s)
        if progress is not None and done % CHUNK == 0:
            progress(min(done, run.demand.count))
    router.drain(world)


def _check_choice(run: Replay, policy: RoutingPolicy, r: int, i: int) -> None:
    count = run.fleet.count
    if not 0 <= i < count:
        raise UsageError(
            f"policy {type(policy).__name__} chose machine {i} for request {r + 1}; there are "
            f"{count}, numbered from 0"
        )
    if not choice.holds(run.world, run.world.machines[i], r):
        on = run.world.machines["power"][i] == ON
        why = "whose memory or role is not for it" if on else "that is not on"
        raise UsageError(
            f"policy {type(policy).__name__} chose machine {i} for request {r + 1}, {why}; let it "
            f"choose among view.candidates(arrival)"
        )
