"""What an option installs at a site: its machines, planned at the stated values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.economics.dials import Dials
from wattbench.economics.scenario import Scenario, Tier
from wattbench.economics.serve import served
from wattbench.economics.site import Plan, Room, plan_racks
from wattbench.economics.supply import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A line, and the tiers that it serves with their shares of the tokens."""

    line: Line
    tier_fractions: tuple[tuple[Tier, float], ...]


def room_of(scenario: Scenario) -> Room:
    """What the site holds, at its stated values."""
    site = scenario.site
    it_watts = 1e6 * site.delivered_mw.value
    if site.delivered_at == "grid":
        it_watts /= site.pue.value
    return Room(
        it_watts=it_watts,
        cooling_watts=1e3 * site.cooling_kw.value if site.cooling_kw else None,
        rack_count=site.racks,
        circuit_count=site.circuits.count if site.circuits else None,
        circuit_watts=1e3 * site.circuits.kw.value if site.circuits else math.inf,
        oversubscription_ratio=site.oversubscription_ratio.value,
    )


def plan_for(scenario: Scenario, servings: Sequence[Serving]) -> Plan:
    """Racks of each machine, planned at the stated values.

    Raises:
        UsageError: If a tier is not reached, or not one replica fits.
    """
    dials, seconds = Dials(), []
    for serving in servings:
        rates = []
        for tier, _ in serving.tier_fractions:
            speed = tier.tokens_per_s_per_user.value
            rate = served(serving.line.in_tier(tier), scenario, speed, dials).tokens_per_s
            if not np.isfinite(rate):
                raise UsageError(_unreached(serving.line.in_tier(tier), scenario, tier))
            rates.append(float(rate))
        weights = [weight for _, weight in serving.tier_fractions]
        seconds.append(sum(w / r for w, r in zip(weights, rates, strict=True)))
    wanted = demand_tokens_per_s(scenario, servings) / scenario.site.utilisation_fraction.value
    footprints = [serving.line.footprint for serving in servings]
    plan = plan_racks(room_of(scenario), footprints, seconds, wanted)
    for serving, racks in zip(servings, plan.racks, strict=True):
        if not replica_count(serving.line, racks):
            needed = serving.line.device_count
            raise UsageError(
                f"{racks} racks of {serving.line.option.name} fit and a replica takes {needed} "
                f"devices; what keeps the next rack out is {plan.limit}"
            )
    return plan


def _unreached(line: Line, scenario: Scenario, tier: Tier) -> str:
    speed = tier.tokens_per_s_per_user.value
    fewest = line.points[0]
    best = fewest.interactivity_tokens_per_s_per_user
    users, devices = fewest.concurrency_count, line.device_count
    who = "one user" if users == 1 else f"{users:g} users"
    where = "one device" if devices == 1 else f"{devices} devices"
    return (
        f"does not reach {speed:g} tokens/s per user: {best.value:.3g} ({best.low:.3g} … "
        f"{best.high:.3g}) with {who} on {where}"
    )


def demand_tokens_per_s(scenario: Scenario, servings: Sequence[Serving]) -> float:
    """What is asked of some tiers; infinite where nothing is said."""
    wanted = scenario.demand.output_tokens_per_s
    if wanted is None:
        return math.inf
    return wanted.value * sum(tier.share.value for s in servings for tier, _ in s.tier_fractions)


def replica_count(line: Line, racks: int) -> int:
    """Whole replicas on some racks."""
    return racks * line.footprint.devices_per_rack // line.device_count


def installed_count(servings: Sequence[Serving], plan: Plan) -> int:
    """Devices on all racks, those without a replica included."""
    return sum(
        racks * s.line.footprint.devices_per_rack
        for s, racks in zip(servings, plan.racks, strict=True)
    )
