"""Other people's figures, by their names, computed as they do and never mixed with ours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wattbench.economics.dials import DRAWS, Dials
from wattbench.economics.evaluate import Outcome
from wattbench.economics.scenario import Scenario
from wattbench.economics.serve import served
from wattbench.tpf.bands import Band, from_draws, worst


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceX:
    """Provisioned power over the tokens of one device, without PUE, idle time or site.

        tok/s/MW = tokens/s per device · 1000 / kW      J/tok = kW · 1000 / tokens/s per device

    Attributes:
        tokens_per_s_per_provisioned_mw: The first.
        provisioned_joules: The second: joules that were provisioned, not drawn.
    """

    tokens_per_s_per_provisioned_mw: Band
    provisioned_joules: Band


def inferencex(scenario: Scenario, outcome: Outcome, seed: int = 0) -> InferenceX | None:
    """InferenceX's provisioned convention for one machine in one tier; None for what is neither."""
    if len(outcome.servings) != 1 or len(outcome.servings[0].tier_fractions) != 1:
        return None
    serving = outcome.servings[0]
    tier = serving.tier_fractions[0][0]
    line = serving.line.in_tier(tier)
    per_mw, joules = [], []
    for dials in (Dials(), Dials(draws_count=DRAWS, seed=seed)):
        rate = served(line, scenario, tier.tokens_per_s_per_user.value, dials).tokens_per_s
        each = rate / line.device_count
        watts = dials.at(f"{line.machine.name}: provisioned", line.provisioned, "site")
        per_mw.append(each * 1e6 / watts)
        joules.append(watts / each)
    kind = worst(line.provisioned, *(point.output_tokens_per_s for point in line.points))
    bands = []
    for value, drawn in (per_mw, joules):
        finite = np.asarray(drawn)[np.isfinite(drawn)]
        bands.append(from_draws(float(value), finite, kind))
    return InferenceX(tokens_per_s_per_provisioned_mw=bands[0], provisioned_joules=bands[1])
