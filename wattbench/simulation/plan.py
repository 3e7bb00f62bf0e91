"""What is to be replayed: a fleet, traces by seed, policies, and what is promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wattbench.core.errors import UsageError
from wattbench.core.slo import Objective
from wattbench.routing.fleet import Fleet, Site
from wattbench.routing.replay import RouterSettings
from wattbench.simulation.demand import Lengths, Promise, lengths_known
from wattbench.simulation.scenario import Scenario, objectives
from wattbench.traces import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveOrigin:
    """How a pool's curve is known, from where, and how well it fits if it was fitted."""

    kind: str
    source: str
    fit: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is replayed.

    Attributes:
        name: What results call it.
        fleet: The machines.
        origins: Of each pool's curve; empty: a fleet made in Python, of which nobody said.
        traces: The requests under a seed.
        policies: Names with options.
        settings: The router's.
        router_site: Where the router stands.
        lengths: What the router knows of answers' lengths.
        lengths_text: The same in words.
        objectives: Service level of requests without a promise of their own.
        promises: By class of the trace.
        class_names: Classes of the trace; filled in from it.
        horizon_s: Machines idle until then at least [s].
        seeds: Each is replayed under each policy.
    """

    name: str
    fleet: Fleet
    origins: tuple[CurveOrigin, ...] = ()
    traces: Callable[[int], Trace]
    policies: tuple[str, ...]
    settings: RouterSettings = field(default_factory=RouterSettings)
    router_site: Site
    lengths: Lengths = field(default_factory=lambda: lengths_known("exact"))
    lengths_text: str = "exact"
    objectives: tuple[Objective, ...] = ()
    promises: Mapping[str, Promise] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    horizon_s: float = 0.0
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Refuse what gives no result.

        Raises:
            UsageError: If nothing is left to replay.
        """
        if not self.policies:
            raise UsageError("no policy to replay; name one, such as least_outstanding")
        if not self.seeds:
            raise UsageError("no seed to replay; name one, such as 0")


def plan_of(scenario: Scenario) -> Plan:
    """The plan of a scenario's file."""
    fleet, router = scenario.fleet(), scenario.router
    default = objectives(scenario.slo)
    places = {site.name: site for site in fleet.sites}
    return Plan(
        name=scenario.name,
        fleet=fleet,
        origins=tuple(
            CurveOrigin(kind=pool.curve.kind, source=pool.curve.source, fit=pool.curve.fit)
            for pool in scenario.pools
        ),
        traces=lambda seed: scenario.trace.trace(seed, scenario.folder),
        policies=scenario.policies,
        settings=router.settings(),
        router_site=places[router.site] if router.site else fleet.sites[0],
        lengths=router.lengths(),
        lengths_text=router.lengths_known,
        objectives=default,
        promises={
            name: Promise(
                priority=each.priority,
                patience_s=float("inf") if each.patience_s is None else each.patience_s,
                objectives=objectives(each.slo) or default,
            )
            for name, each in scenario.classes.items()
        },
        horizon_s=scenario.horizon_s or 0.0,
        seeds=scenario.seed_list(),
    )
