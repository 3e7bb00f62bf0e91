"""Every option in every case: figures with bands, and what binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wattbench.core.errors import UsageError
from wattbench.economics.dials import DRAWS, Dials
from wattbench.economics.figures import FIGURES, figures_at
from wattbench.economics.money import COST
from wattbench.economics.offers import Option
from wattbench.economics.plans import Serving, installed_count, plan_for
from wattbench.economics.replicas import servings_of
from wattbench.economics.scenario import MIX, Scenario, Tier
from wattbench.economics.site import Plan
from wattbench.economics.supply import Line
from wattbench.tpf.bands import Band, from_draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An option in one case: a tier that the whole site serves, or the mix of all.

    Attributes:
        option: Its name.
        case: Name of the tier, or ``mix``.
        figures: Each of `FIGURES`, None where it is unknown.
        reasons: Why it is, and why the whole is; the key of that is empty.
        reached_fraction: Draws in which the promised speed is reached.
        binding: What limits tokens per second at the values.
        binding_fractions: In what part of the draws each limit binds.
        plan: Racks installed.
        device_count: Devices installed.
        servings: What was evaluated.
        draws: $/Mtoken draw by draw, for comparisons.
    """

    option: str
    case: str
    figures: Mapping[str, Band | None]
    reasons: Mapping[str, str]
    reached_fraction: float = 0.0
    binding: str | None = None
    binding_fractions: Mapping[str, float] = field(default_factory=dict)
    plan: Plan | None = None
    device_count: int = 0
    servings: tuple[Serving, ...] = ()
    draws: Any = None


def evaluate(
    scenario: Scenario, lines: Mapping[str, Line | str], seed: int = 0, draws_count: int = DRAWS
) -> list[Outcome]:
    """Every option in every case.

    Args:
        scenario: What is asked for.
        lines: Its machines, from `lines_of`.
        seed: Of the draws.
        draws_count: How many.
    """
    tiers = scenario.demand.tiers
    cases: list[tuple[str, tuple[Tier, ...]]] = [(tier.name, (tier,)) for tier in tiers]
    if len(tiers) > 1:
        cases.append((MIX, tiers))
    found = []
    for case, wanted in cases:
        for option in scenario.options:
            if not option.fleet or case == MIX:
                found.append(_outcome(scenario, option, case, wanted, lines, (seed, draws_count)))
    return found


def _outcome(
    scenario: Scenario,
    option: Option,
    case: str,
    wanted: Sequence[Tier],
    lines: Mapping[str, Line | str],
    drawn_as: tuple[int, int],
) -> Outcome:
    try:
        servings = _servings(scenario, option, wanted, lines)
        plan = plan_for(scenario, servings)
    except UsageError as error:
        return unknown(option.name, case, str(error))
    seed, draws_count = drawn_as
    at_values, drawn = Dials(), Dials(draws_count=draws_count, seed=seed)
    values, at = figures_at(scenario, servings, plan, at_values)
    draws, limits = figures_at(scenario, servings, plan, drawn)
    reached = np.isfinite(np.broadcast_to(draws["tokens_per_s"], (draws_count,)))
    if not (np.isfinite(values["tokens_per_s"]) and reached.any()):
        why = "the power of the site hardly keeps idle what is installed by its oversubscription"
        return unknown(option.name, case, why)
    figures, reasons = _bands(values, draws, drawn)
    names, binding = limits
    shares = {name: float(np.mean((binding == place)[reached])) for place, name in enumerate(names)}
    return Outcome(
        option=option.name,
        case=case,
        figures=figures,
        reasons=reasons,
        reached_fraction=float(np.mean(reached)),
        binding=at[0][int(at[1])],
        binding_fractions={name: share for name, share in shares.items() if share > 0},
        plan=plan,
        device_count=installed_count(servings, plan),
        servings=tuple(servings),
        draws=draws[COST],
    )


def unknown(option: str, case: str, why: str) -> Outcome:
    """An option of which nothing can be said, and why."""
    return Outcome(option=option, case=case, figures=dict.fromkeys(FIGURES), reasons={"": why})


def _servings(
    scenario: Scenario, option: Option, wanted: Sequence[Tier], lines: Mapping[str, Line | str]
) -> list[Serving]:
    total = sum(tier.share.value for tier in wanted)
    by_name = {tier.name: tier for tier in wanted}
    parts = [(part.option, part.tiers) for part in option.fleet] or [(option.name, tuple(by_name))]
    found: list[Serving] = []
    for name, tiers in parts:
        line = lines[name]
        if isinstance(line, str):
            raise UsageError(line)
        for tier in (by_name[each] for each in tiers):
            _check_quality(line, tier)
        served_tiers = [(by_name[t], by_name[t].share.value / total) for t in tiers]
        found += servings_of(scenario, line, served_tiers)
    return found


def _check_quality(line: Line, tier: Tier) -> None:
    floor = tier.quality_floor
    reached = line.option.quality.get(floor.metric) if floor else None
    if floor and reached and reached.value < floor.minimum.value:
        raise UsageError(
            f"{floor.metric} of {reached.value:g} is below the floor of {floor.minimum.value:g}"
        )


NOTHING = {
    "meter_joules": "the points are metered at the node, or at different boundaries",
    "users_per_replica": "each tier has its own",
    "interactivity_per_watt": "each tier has its own",
    "cost_over_price_ratio": "no price of tokens, or no cost, is stated",
    "embodied_gco2e_per_mtoken": "no embodied carbon is stated; the total is without it",
}
NONE_PAID = {
    "capital_usd_per_mtoken": "rented, not bought",
    "upkeep_usd_per_mtoken": "none is stated, or the machine is rented",
    "rent_usd_per_mtoken": "bought, not rented",
    "energy_usd_per_mtoken": "in the rent, or its price is stated as 0",
    "idle_joules": "no machine waits",
    "operational_gco2e_per_mtoken": "the carbon of the grid is stated as 0",
    "gco2e_per_mtoken": "the carbon of the grid is stated as 0, and that of making is unknown",
}
NO_COST = "neither capex_usd_per_device nor rent is stated"


def _bands(
    values: Mapping[str, Any], draws: Mapping[str, Any], dials: Dials
) -> tuple[dict[str, Band | None], dict[str, str]]:
    figures: dict[str, Band | None] = {}
    reasons: dict[str, str] = {}
    for name, spec in FIGURES.items():
        value = values[name]
        if value is None:
            figures[name], reasons[name] = None, NOTHING.get(name, NO_COST)
            continue
        finite = np.asarray(draws[name])[np.isfinite(draws[name])]
        if float(value) <= 0 or not len(finite):
            figures[name], reasons[name] = None, NONE_PAID.get(name, "is 0 by what is stated")
            continue
        # What is drawn just above 0 is 0 to rounding; a band is positive.
        drawn = np.maximum(finite, float(value) * 1e-9)
        figures[name] = from_draws(float(value), drawn, dials.kind(spec.groups))
    return figures, reasons
