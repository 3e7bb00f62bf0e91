"""Devices of a replica: of the sizes that an option offers, the cheapest that reaches a tier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.economics.dials import Dials
from wattbench.economics.figures import figures_at
from wattbench.economics.money import COST
from wattbench.economics.plans import Serving, installed_count, plan_for
from wattbench.economics.scenario import Scenario, Tier
from wattbench.economics.supply import Line


def servings_of(
    scenario: Scenario, line: Line, tier_fractions: Sequence[tuple[Tier, float]]
) -> list[Serving]:
    """What serves some tiers: one kind of replica, or one for each size that some tier takes.

    Raises:
        UsageError: If a tier is reached by no size.
    """
    by_size: dict[int, Serving] = {}
    for tier, fraction in tier_fractions:
        sized = _cheapest(scenario, line, tier)
        before = by_size.get(sized.device_count)
        taken = before.tier_fractions if before else ()
        serving = Serving(line=sized, tier_fractions=(*taken, (tier, fraction)))
        by_size[sized.device_count] = serving
    return list(by_size.values())


def _cheapest(scenario: Scenario, line: Line, tier: Tier) -> Line:
    """The size with the lowest $/Mtoken at the values; without prices, the fewest devices."""
    if not line.others:
        return line
    costs: list[tuple[float, Line]] = []
    why: UsageError | None = None
    for sized in (line, *line.others):
        serving = Serving(line=sized, tier_fractions=((tier, 1.0),))
        try:
            plan = plan_for(scenario, [serving])
        except UsageError as error:
            why = error
            continue
        values, _ = figures_at(scenario, [serving], plan, Dials())
        cost = values[COST]
        if cost is None:
            cost = installed_count([serving], plan) / values["machines_tokens_per_s"]
        costs.append((float(cost) if np.isfinite(cost) else np.inf, sized))
    if not costs and why is not None:
        raise why
    return min(costs, key=lambda each: each[0])[1]
