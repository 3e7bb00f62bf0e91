r"""Tokens, joules, dollars and carbon of an option at a site.

For a mix of tiers t with shares w_t, served by machines p with N_p replicas installed, each giving
R_t tokens/s at e_t joules per token (node) while it works and drawing I_p watts while it does not:

    Q_compute = U · min_p N_p / Σ_{t∈p} w_t / R_t
    P_IT      = P_grid / PUE
    Q_energy  = P_IT / Σ_t w_t e_t                         if that feeds every machine at work
              = (P_IT − Σ_p N_p I_p) / (Σ_t w_t e_t − Σ_p I_p Σ_{t∈p} w_t / R_t)    if not
    Q         = min(Q_compute, Q_energy, the same for cooling, demand)
    P_mean    = Σ_p [ Q Σ_{t∈p} w_t e_t + (N_p − Q Σ_{t∈p} w_t / R_t) · I_p ]
    P_fac     = PUE · P_mean

The PUE stands in these two places and nowhere else: grid to IT once, IT to facility once, and never
both on the way to one figure. N follows from provisioned power (`site`), P_mean from joules.

    $/Mtoken  = 10⁶ / Q · (Σ devices · [capex · ratio · (annuity + upkeep) or rent] + P_fac · price)
    gCO2e/Mtoken = 10⁶ / Q · (P_fac · grid + Σ devices · embodied / lifetime)

The annuity is 1 / lifetime, or r / (1 − (1 + r)^−lifetime) with a discount rate r.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.economics.dials import Dials
from wattbench.economics.draw import NARROW
from wattbench.economics.money import COST, carbon, money, over_price
from wattbench.economics.plans import Serving, demand_tokens_per_s, replica_count
from wattbench.economics.scenario import Scenario
from wattbench.economics.serve import Served, served
from wattbench.economics.site import Plan
from wattbench.economics.supply import Line

SPEED = frozenset({"speed"})
METER = SPEED | {"joules"}
NODE = METER | {"node"}
SITE = NODE | {"idle", "site", "pue"}
MONEY = SITE | {"money"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A figure: its title, and the groups of numbers that it is made of."""

    title: str
    groups: frozenset[str]


FIGURES: Mapping[str, Spec] = {
    "tokens_per_s": Spec(title="tok/s of the site", groups=SITE),
    "machines_tokens_per_s": Spec(title="tok/s that machines can", groups=SITE),
    "energy_tokens_per_s": Spec(title="tok/s that energy allows", groups=SITE),
    "tokens_per_s_per_mw": Spec(title="tok/s per MW delivered", groups=SITE),
    "users_per_replica": Spec(title="users per replica", groups=SPEED),
    "interactivity_per_watt": Spec(title="tok/s/user per W of node", groups=NODE),
    "meter_joules": Spec(title="J/token, board or chip", groups=METER),
    "node_joules": Spec(title="J/token, node", groups=NODE),
    "facility_joules": Spec(title="J/token, facility", groups=NODE | {"pue"}),
    "idle_joules": Spec(title="idle J/token, facility", groups=SITE),
    "capital_usd_per_mtoken": Spec(title="$/Mtoken capital", groups=MONEY),
    "rent_usd_per_mtoken": Spec(title="$/Mtoken rent", groups=MONEY),
    "upkeep_usd_per_mtoken": Spec(title="$/Mtoken upkeep", groups=MONEY),
    "energy_usd_per_mtoken": Spec(title="$/Mtoken energy", groups=SITE | {"power price"}),
    COST: Spec(title="$/Mtoken", groups=MONEY | {"power price"}),
    "cost_over_price_ratio": Spec(title="cost / price", groups=MONEY | {"power price", "price"}),
    "operational_gco2e_per_mtoken": Spec(title="gCO2e/Mtoken, energy", groups=SITE | {"grid"}),
    "embodied_gco2e_per_mtoken": Spec(title="gCO2e/Mtoken, making", groups=SITE | {"embodied"}),
    "gco2e_per_mtoken": Spec(title="gCO2e/Mtoken", groups=SITE | {"grid", "embodied"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """One machine of a mix at the dials' settings; sums are weighed by shares of the mix."""

    line: Line
    devices: int
    replicas: int
    replica_seconds: Any
    meter_joules: Any
    node_joules: Any
    idle_watts: Any
    at: tuple[Served, ...]


def figures_at(
    scenario: Scenario,
    servings: Sequence[Serving],
    plan: Plan,
    dials: Dials,
    speed_up_ratio: Mapping[str, float] | None = None,
) -> tuple[dict[str, Any], tuple[list[str], Any]]:
    """Every figure at the dials' settings, and which limit binds.

    Args:
        scenario: Site, finance, lengths.
        servings: What serves what.
        plan: Racks of each.
        dials: Numbers, or draws.
        speed_up_ratio: Speed of an option over what its points say, by its name.
    """
    faster = speed_up_ratio or {}
    groups = [
        _group(scenario, serving, racks, dials, faster.get(serving.line.option.name, 1.0))
        for serving, racks in zip(servings, plan.racks, strict=True)
    ]
    pue = dials.at("PUE", scenario.site.pue, "pue")
    ceilings = _ceilings(scenario, servings, groups, plan, dials, pue)
    rate, limits = _lowest(ceilings)
    idle = [_idle_watts(g, rate) for g in groups]
    powers = [rate * g.node_joules + watts for g, watts in zip(groups, idle, strict=True)]
    node = sum(g.node_joules for g in groups)
    facility_watts = pue * sum(powers)
    installed = [(g.line, g.devices) for g in groups]
    found = {
        "tokens_per_s": rate,
        "machines_tokens_per_s": next(iter(ceilings.values())),
        "energy_tokens_per_s": ceilings["energy"],
        "tokens_per_s_per_mw": rate / scenario.site.delivered_mw.value,
        "meter_joules": _metered(groups),
        "node_joules": node,
        "facility_joules": pue * node,
        "idle_joules": pue * sum(idle) / rate,
        **_speeds(groups, servings),
        **money(scenario, installed, dials, rate, [pue * power for power in powers]),
        **carbon(scenario, installed, dials, rate, facility_watts),
    }
    found["cost_over_price_ratio"] = over_price(servings, dials, found[COST])
    return found, limits


def _group(
    scenario: Scenario, serving: Serving, racks: int, dials: Dials, speed_up_ratio: float
) -> _Group:
    at = []
    dials.note(f"{serving.line.machine.name}: provisioned", serving.line.provisioned, "site")
    for tier, _ in serving.tier_fractions:
        speed = dials.at(f"speed of {tier.name}", tier.tokens_per_s_per_user, "given")
        at.append(served(serving.line.in_tier(tier), scenario, speed, dials, speed_up_ratio))
    weights = [weight for _, weight in serving.tier_fractions]

    def mixed(values: Sequence[Any]) -> Any:
        return sum(w * v for w, v in zip(weights, values, strict=True))

    return _Group(
        line=serving.line,
        devices=racks * serving.line.footprint.devices_per_rack,
        replicas=replica_count(serving.line, racks),
        replica_seconds=mixed([1 / s.tokens_per_s for s in at]),
        meter_joules=mixed([s.meter_joules for s in at]),
        node_joules=mixed([s.node_joules for s in at]),
        idle_watts=_least([s.idle_watts for s in at]),
        at=tuple(at),
    )


def _idle_watts(group: _Group, rate: Any) -> Any:
    waiting = group.replicas - rate * group.replica_seconds
    return np.where(waiting > 1e-9 * group.replicas, waiting, 0) * group.idle_watts


def _least(values: Sequence[Any]) -> Any:
    """Element by element, of numbers and draws alike."""
    return functools.reduce(np.minimum, values)


def _ceilings(
    scenario: Scenario,
    servings: Sequence[Serving],
    groups: Sequence[_Group],
    plan: Plan,
    dials: Dials,
    pue: Any,
) -> dict[str, Any]:
    """Tokens per second that each limit allows; the machines' own comes first."""
    site = scenario.site
    busy = dials.at("utilisation", site.utilisation_fraction, "site")
    all_busy = _least([g.replicas / g.replica_seconds for g in groups])
    delivered = 1e6 * dials.at("delivered power", site.delivered_mw, "given")
    it_watts = delivered / pue if site.delivered_at == "grid" else delivered
    resting = sum(g.replicas * g.idle_watts for g in groups)
    loaded = sum(g.node_joules for g in groups)
    more = loaded - sum(g.idle_watts * g.replica_seconds for g in groups)
    more = np.maximum(more, 1e-9 * loaded)
    full_watts = resting + all_busy * more

    def fed(watts: Any) -> Any:
        # Power for every machine at work allows what that power makes; less must feed idle ones.
        rest = np.maximum(watts - resting, 0) / np.where(full_watts > watts, more, 1)
        return np.where(full_watts > watts, rest, watts / loaded)

    ceilings = {f"machines, held by {plan.limit}": busy * all_busy, "energy": fed(it_watts)}
    if site.cooling_kw is not None:
        ceilings["cooling"] = fed(1e3 * dials.at("cooling", site.cooling_kw, "given"))
    wanted = demand_tokens_per_s(scenario, servings)
    if math.isfinite(wanted):
        ceilings["demand"] = np.full_like(all_busy, wanted)
    return ceilings


def _lowest(ceilings: Mapping[str, Any]) -> tuple[Any, tuple[list[str], Any]]:
    stacked = np.array(np.broadcast_arrays(*ceilings.values()))
    rate = np.where(np.all(np.isfinite(stacked), axis=0), stacked.min(axis=0), np.nan)
    # Machines that the power hardly keeps idle give nothing that could be divided by.
    return np.where(rate > 1e-6 * stacked[0], rate, np.nan), (
        list(ceilings),
        stacked.argmin(axis=0),
    )


def _metered(groups: Sequence[_Group]) -> Any:
    boundaries = {g.line.boundary for g in groups}
    if len(boundaries) == 1 and boundaries <= set(NARROW):
        return sum(g.meter_joules for g in groups)
    return None


def _speeds(groups: Sequence[_Group], servings: Sequence[Serving]) -> dict[str, Any]:
    if len(groups) > 1 or len(servings[0].tier_fractions) > 1:
        return {"users_per_replica": None, "interactivity_per_watt": None}
    one = groups[0].at[0]
    watts = one.node_joules * one.tokens_per_s
    return {
        "users_per_replica": one.users,
        "interactivity_per_watt": one.tokens_per_s / one.users / watts,
    }
