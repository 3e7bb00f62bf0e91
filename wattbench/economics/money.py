"""Dollars and carbon for each million tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wattbench.economics.dials import Dials
from wattbench.economics.plans import Serving
from wattbench.economics.scenario import Scenario
from wattbench.economics.supply import Line

HOURS_PER_YEAR = 8766.0
J_PER_KWH = 3.6e6
COST = "usd_per_mtoken"
PARTS = ("capital", "rent", "upkeep", "energy")

Installed = Sequence[tuple[Line, int]]
"""Machines, and how many devices of each stand there."""


def money(
    scenario: Scenario, installed: Installed, dials: Dials, rate: Any, watts: Sequence[Any]
) -> dict[str, Any]:
    """Dollars per million tokens, by what they are for."""
    finance = scenario.finance
    annuity = annuity_per_year(scenario, dials)
    per_second = HOURS_PER_YEAR * 3600
    upkeep = dials.at("upkeep", finance.opex_fraction_per_year, "money")
    ratio = dials.at("capex ratio", finance.capex_ratio, "money")
    price = dials.at("power price", scenario.site.power_usd_per_kwh, "power price")
    capital, kept, rent, energy = 0.0, 0.0, 0.0, 0.0
    for (line, devices), power in zip(installed, watts, strict=True):
        option = line.option
        if option.rent is not None:
            hourly = dials.at(f"{option.name}: rent", option.rent.usd_per_device_hour, "money")
            rent = rent + devices * hourly / 3600
        elif option.capex_usd_per_device is not None:
            each = dials.at(f"{option.name}: price", option.capex_usd_per_device, "money")
            capital = capital + devices * each * ratio * annuity / per_second
            kept = kept + devices * each * ratio * upkeep / per_second
        else:
            return dict.fromkeys([*(f"{part}_{COST}" for part in PARTS), COST])
        if option.rent is None or not option.rent.includes_energy:
            energy = energy + power / J_PER_KWH * price
    per_mtoken = 1e6 / rate
    parts = zip(PARTS, (capital, rent, kept, energy), strict=True)
    found = {f"{name}_{COST}": value * per_mtoken for name, value in parts}
    return found | {COST: sum(found.values())}


def annuity_per_year(scenario: Scenario, dials: Dials) -> Any:
    """Part of the capital that each year of its life pays."""
    years = dials.at("lifetime", scenario.finance.lifetime_years, "money")
    interest = dials.at("discount rate", scenario.finance.discount_rate_fraction, "money")
    if np.all(np.asarray(interest) == 0):
        return 1 / years
    return interest / (1 - (1 + interest) ** -years)


def carbon(
    scenario: Scenario, installed: Installed, dials: Dials, rate: Any, facility_watts: Any
) -> dict[str, Any]:
    """Grams for each million tokens, of running and of making."""
    grid = dials.at("grid carbon", scenario.site.grid_gco2e_per_kwh, "grid")
    running = facility_watts / J_PER_KWH * grid / rate * 1e6
    years = dials.at("lifetime", scenario.finance.lifetime_years, "money")
    embodied: Any = 0.0
    for line, devices in installed:
        stated = line.option.embodied_kgco2e_per_device
        if stated is None:
            embodied = None
            break
        each = dials.at(f"{line.option.name}: embodied carbon", stated, "embodied")
        embodied = embodied + devices * 1e3 * each / (years * HOURS_PER_YEAR * 3600)
    made = None if embodied is None else embodied / rate * 1e6
    return {
        "operational_gco2e_per_mtoken": running,
        "embodied_gco2e_per_mtoken": made,
        "gco2e_per_mtoken": running if made is None else running + made,
    }


def over_price(servings: Sequence[Serving], dials: Dials, cost: Any) -> Any:
    """Cost over what the tokens of the mix sell for."""
    income = 0.0
    for serving in servings:
        for tier, weight in serving.tier_fractions:
            if tier.price_usd_per_mtoken is None:
                return None
            name = f"price of {tier.name}"
            income = income + weight * dials.at(name, tier.price_usd_per_mtoken, "price")
    return None if cost is None else cost / income
