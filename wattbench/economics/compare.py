"""Which option is cheaper, where that can be said; at what price it turns; what moves it most."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wattbench.economics.dials import Dials
from wattbench.economics.evaluate import Outcome
from wattbench.economics.figures import figures_at
from wattbench.economics.money import COST
from wattbench.economics.quantity import Quantity
from wattbench.economics.scenario import Scenario
from wattbench.tpf.bands import Z90, Band, from_draws, worst

SURE = 0.95
"""Of the draws an option must reach the promised speed to be ranked."""
ENERGY = f"energy_{COST}"
BUSY_BAND = Band(value=0.1, low=0.01, high=1.0)
"""Utilisations among which a break-even is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two options in one case, the cheaper first.

    Attributes:
        case: Tier, or mix.
        first: Cheaper at the values.
        second: Dearer.
        ratio: $/Mtoken of the second over the first.
        ranked: Whether the band of the ratio leaves out 1, and both reach the promised speed.
        why: Why not.
    """

    case: str
    first: Outcome
    second: Outcome
    ratio: Band
    ranked: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """What one uncertain number does to $/Mtoken, all others at their values.

    Attributes:
        name: The number.
        low_usd_per_mtoken: The smaller result of its two ends.
        high_usd_per_mtoken: The larger.
    """

    name: str
    low_usd_per_mtoken: float
    high_usd_per_mtoken: float

    @property
    def swing_ratio(self) -> float:
        """Larger over smaller."""
        return self.high_usd_per_mtoken / self.low_usd_per_mtoken


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """Where two options cost the same, at the values of all other numbers.

    Attributes:
        power_usd_per_kwh: Price of energy; None: at none above 0.
        power_why: What that means.
        utilisation_fraction: Down to which the cheaper one may fall while the other stays.
        utilisation_why: What that means.
    """

    power_usd_per_kwh: float | None
    power_why: str
    utilisation_fraction: float | None
    utilisation_why: str


def compare(outcomes: Sequence[Outcome]) -> list[Comparison]:
    """Every pair of options of one case whose costs are known, in the order of cost."""
    found = []
    for case in dict.fromkeys(outcome.case for outcome in outcomes):
        known = [o for o in outcomes if o.case == case and o.figures[COST] is not None]
        known.sort(key=lambda o: cost_of(o).value)
        found += [_compared(case, *pair) for pair in itertools.combinations(known, 2)]
    return found


def cost_of(outcome: Outcome) -> Band:
    """$/Mtoken of an outcome that has it."""
    cost = outcome.figures[COST]
    assert cost is not None
    return cost


def _compared(case: str, first: Outcome, second: Outcome) -> Comparison:
    costs = cost_of(first), cost_of(second)
    ratio = ratio_band(first.draws, second.draws, *costs)
    slow = [o for o in (first, second) if o.reached_fraction < SURE]
    why = ""
    if ratio.low <= 1:
        why = "the 90 % band of the ratio holds 1"
    if slow:
        why = f"{slow[0].option} reaches the speed in {slow[0].reached_fraction:.0%} of the draws"
    return Comparison(case=case, first=first, second=second, ratio=ratio, ranked=not why, why=why)


def ratio_band(first: Any, second: Any, cost_first: Band, cost_second: Band) -> Band:
    """Draw by draw, so that what both share cancels."""
    drawn = np.asarray(second / first)
    drawn = drawn[np.isfinite(drawn)]
    value = cost_second.value / cost_first.value
    return from_draws(
        value, drawn if len(drawn) else np.array([value]), worst(*(cost_first, cost_second))
    )


def tornado(scenario: Scenario, outcome: Outcome) -> list[Swing]:
    """Each uncertain number at its two ends; the largest swing first."""
    plan = outcome.plan
    if plan is None or outcome.figures[COST] is None:
        return []
    at_values = Dials()
    figures_at(scenario, outcome.servings, plan, at_values)
    found = []
    for name, read in at_values.read.items():
        if read.band.low == read.band.high:
            continue
        ends = np.array([-Z90, Z90])
        dials = Dials(turned={name: ends})
        values, _ = figures_at(scenario, outcome.servings, plan, dials)
        costs = np.broadcast_to(values[COST], ends.shape)
        if np.all(np.isfinite(costs)) and costs[0] != costs[1]:
            low, high = sorted(float(cost) for cost in costs)
            found.append(Swing(name=name, low_usd_per_mtoken=low, high_usd_per_mtoken=high))
    return sorted(found, key=lambda swing: -swing.swing_ratio)


def break_even(scenario: Scenario, first: Outcome, second: Outcome) -> BreakEven:
    """Where the dearer option comes to cost what the cheaper one does."""
    price, price_why = _power_price(scenario, first, second)
    busy, busy_why = _utilisation(scenario, first, second)
    return BreakEven(
        power_usd_per_kwh=price,
        power_why=price_why,
        utilisation_fraction=busy,
        utilisation_why=busy_why,
    )


def _power_price(scenario: Scenario, first: Outcome, second: Outcome) -> tuple[float | None, str]:
    now = scenario.site.power_usd_per_kwh.value
    if now == 0:
        return None, "energy costs nothing here"
    per_price, fixed = [], []
    for outcome in (first, second):
        energy = outcome.figures[ENERGY]
        spent = energy.value if energy else 0.0
        per_price.append(spent / now)
        fixed.append(cost_of(outcome).value - spent)
    gap = per_price[0] - per_price[1]
    price = (fixed[1] - fixed[0]) / gap if gap else -1.0
    if price <= 0:
        return None, f"{first.option} is cheaper at every price of energy"
    side = "below" if price > now else "above"
    return price, f"{first.option} is cheaper {side} that price"


def _utilisation(scenario: Scenario, first: Outcome, second: Outcome) -> tuple[float | None, str]:
    busy, costs = costs_by_utilisation(scenario, first)
    same = cost_of(second).value
    if costs[0] <= same:
        return None, f"{first.option} is cheaper at {busy[0]:.0%} of the time and more"
    below = int(np.argmax(costs <= same))
    part = np.log(costs[below - 1] / same) / np.log(costs[below - 1] / costs[below])
    found = float(busy[below - 1] * (busy[below] / busy[below - 1]) ** part)
    return found, f"down to that {first.option} costs no more than {second.option} as stated"


def costs_by_utilisation(scenario: Scenario, outcome: Outcome) -> tuple[Any, Any]:
    """$/Mtoken of what is installed, over the part of the time that it works."""
    assert outcome.plan is not None
    wide = Quantity(value=BUSY_BAND.value, low=BUSY_BAND.low, high=BUSY_BAND.high)
    site = scenario.site.model_copy(update={"utilisation_fraction": wide})
    ends = np.linspace(-Z90, Z90, 401)
    dials = Dials(turned={"utilisation": ends})
    # What is installed stays as it was planned: only its use changes.
    changed = scenario.model_copy(update={"site": site})
    values, _ = figures_at(changed, outcome.servings, outcome.plan, dials)
    return BUSY_BAND.at(ends), np.broadcast_to(values[COST], ends.shape)
