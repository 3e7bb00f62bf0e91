"""What to measure where two options cannot be ranked: a pack that a vendor can run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wattbench.economics.compare import Comparison
from wattbench.economics.dials import Dials
from wattbench.economics.evaluate import Outcome
from wattbench.economics.figures import figures_at
from wattbench.economics.money import COST
from wattbench.economics.scenario import MIX, Scenario, Tier
from wattbench.economics.serve import Served, served
from wattbench.economics.supply import Line

DRAWS = 2_000
"""Enough for an end of a band, and asked for some forty times for each pair."""
GAIN = 0.01
"""Of the logarithm of the ratio's lower end: what a further measurement must bring."""
ROUNDING = 1e-3
"""Of a user."""
FACTOR_LIMIT = 64.0
"""Speeds are looked for between this part and this multiple of the stated ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a measured interval must do.

    Attributes:
        metric: As `wattbench run` names it.
        direction: Whether the interval must lie ``above`` threshold + guard, or ``below``
            threshold − guard.
        threshold: Where both options cost the same at the values of all other numbers.
        guard: Distance that those other numbers ask for, at 95 % on that side.
    """

    metric: str
    direction: str
    threshold: Any
    guard: Any

    @property
    def limit(self) -> Any:
        """Where the interval must begin or end: threshold and guard together."""
        return self.threshold + (self.guard if self.direction == "above" else -self.guard)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One operating point of one option, to be measured.

    Attributes:
        option: Its name.
        machine: Hardware profile.
        device_count: Devices of a replica.
        boundary: What the joules must include.
        concurrency: Users at once.
        criteria: All of which must hold.
    """

    option: str
    machine: str
    device_count: int
    boundary: str
    concurrency: int
    criteria: tuple[Criterion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What would show that one option is cheaper than the other.

    Attributes:
        cheaper: The one.
        dearer: The other.
        measurements: Of one of them, or of both; empty if measuring them shows nothing.
        why: Why it would not.
    """

    cheaper: str
    dearer: str
    measurements: tuple[Measurement, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What would settle one pair of options.

    Attributes:
        pair: The two.
        tier: Of the case.
        claims: Either order; the one that the values speak for comes first.
    """

    pair: Comparison
    tier: Tier
    claims: tuple[Claim, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Those of all claims."""
        return tuple(each for claim in self.claims for each in claim.measurements)

    @property
    def why(self) -> str:
        """Why no measurement settles it, empty if one does."""
        return "" if self.measurements else self.claims[0].why

    @property
    def folder(self) -> str:
        """Name of its folder in a pack."""
        return f"{self.pair.case}--{self.pair.first.option}--{self.pair.second.option}"


def requests_for(
    scenario: Scenario, pairs: Sequence[Comparison], seed: int = 0, draws_count: int = DRAWS
) -> list[Request]:
    """What would settle each pair of a tier that is not ranked.

    The speed of an option and its joules are measured together: a machine that is faster at the
    same power needs fewer joules. Measured is the cheaper option alone, else the dearer one alone,
    else both: the first of these that would settle the order if it came out as stated, or, if none
    would, that comes as near as the best.
    """
    tiers = {tier.name: tier for tier in scenario.demand.tiers}
    found = []
    for pair in pairs:
        if not pair.ranked and pair.case != MIX:
            found.append(_request(scenario, pair, tiers[pair.case], seed, draws_count))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """The order of a pair, were some of its options measured."""

    scenario: Scenario
    first: Outcome
    second: Outcome
    seed: int
    draws_count: int

    def factors(self, measured: Sequence[Outcome], log_ratio: float) -> dict[str, float]:
        """Speeds of what is measured over those stated: the first's up, the second's down."""
        return {o.option: math.exp(log_ratio if o is self.first else -log_ratio) for o in measured}

    def least(self, measured: Sequence[Outcome], log_ratio: float) -> float:
        """Log of the lower end of the ratio of costs."""
        factors = self.factors(measured, log_ratio)
        known: dict[str, float] = {}
        for outcome in measured:
            line = outcome.servings[0].line
            for what in ("speed", "joules", "users at once"):
                known[f"{line.known_as}: {what}"] = 0.0
            # An engine that an option runs which is not measured may still drift.
            if all(o in measured for o in self._both() if _engine(o) == line.option.engine):
                known[f"engine drift: {line.option.engine}"] = 0.0
        dials = [
            Dials(draws_count=self.draws_count, seed=self.seed, turned=known) for _ in range(2)
        ]
        costs = [self._cost(o, d, factors) for o, d in zip(self._both(), dials, strict=True)]
        drawn = np.broadcast_to(_ratio(*costs), (self.draws_count,))
        return float(np.log(np.quantile(drawn, 0.05)))

    def middle(self, measured: Sequence[Outcome], log_ratio: float) -> float:
        """Log of the ratio of costs at the values."""
        factors = self.factors(measured, log_ratio)
        first, second = (self._cost(o, Dials(), factors) for o in self._both())
        return math.log(float(_ratio(first, second)))

    def _both(self) -> tuple[Outcome, Outcome]:
        return self.first, self.second

    def _cost(self, outcome: Outcome, dials: Dials, factors: dict[str, float]) -> Any:
        assert outcome.plan is not None
        values, _ = figures_at(self.scenario, outcome.servings, outcome.plan, dials, factors)
        return values[COST]


def _engine(outcome: Outcome) -> str:
    return outcome.servings[0].line.option.engine


def _ratio(first: Any, second: Any) -> Any:
    """Cost of the second over the first; who misses the promised speed is never the cheaper."""
    ratio = np.where(np.isnan(second), 1e9, second / first)
    return np.where(np.isnan(first), 1e-9, ratio)


def _request(
    scenario: Scenario, pair: Comparison, tier: Tier, seed: int, draws_count: int
) -> Request:
    test = _Test(
        scenario=scenario,
        first=pair.first,
        second=pair.second,
        seed=seed,
        draws_count=draws_count,
    )
    choices = ([pair.first], [pair.second], [pair.first, pair.second])
    ends = [test.least(each, 0.0) for each in choices]
    enough = min(0.0, max(ends) - GAIN)
    measured = next(each for each, end in zip(choices, ends, strict=True) if end > enough)
    other = replace(test, first=pair.second, second=pair.first)
    claims = tuple(_claim(each, tier, measured) for each in (test, other))
    return Request(pair=pair, tier=tier, claims=claims)


def _claim(test: _Test, tier: Tier, measured: Sequence[Outcome]) -> Claim:
    claim = Claim(cheaper=test.first.option, dearer=test.second.option)
    guarded = _crossing(lambda x: test.least(measured, x))
    even = _crossing(lambda x: test.middle(measured, x))
    if guarded is None or even is None:
        why = "what else is uncertain hides the difference, whatever is measured"
        return replace(claim, why=why)
    at = test.factors(measured, even), test.factors(measured, guarded)
    measurements = []
    for outcome in measured:
        factors = at[0][outcome.option], at[1][outcome.option]
        found = _measurement(test.scenario, outcome, tier, *factors)
        if found is None:
            return replace(claim, why=f"{outcome.option} would have to miss the speed of the tier")
        measurements.append(found)
    return replace(claim, measurements=tuple(measurements))


def _crossing(function: Any) -> float | None:
    """Where a rising function crosses 0, within `FACTOR_LIMIT`."""
    low, high = -math.log(FACTOR_LIMIT), math.log(FACTOR_LIMIT)
    if function(high) <= 0 or function(low) > 0:
        return None
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return high


def _measurement(
    scenario: Scenario, outcome: Outcome, tier: Tier, even: float, guarded: float
) -> Measurement | None:
    line = outcome.servings[0].line
    at_even, at_guarded = (_at(scenario, line, tier, factor) for factor in (even, guarded))
    if not (np.isfinite(at_even.users) and np.isfinite(at_guarded.users)):
        return None
    up = guarded >= even
    users = float(at_guarded.users)
    return Measurement(
        option=outcome.option,
        machine=line.machine.name,
        device_count=line.device_count,
        boundary=line.boundary,
        concurrency=max(1, math.ceil(users - ROUNDING) if up else math.floor(users + ROUNDING)),
        criteria=(
            _criterion("output_tokens_per_s", at_even.tokens_per_s, at_guarded.tokens_per_s),
            _criterion(
                "energy_per_output_token_joules", at_even.meter_joules, at_guarded.meter_joules
            ),
        ),
    )


def _at(scenario: Scenario, line: Line, tier: Tier, factor: float) -> Served:
    return served(line.in_tier(tier), scenario, tier.tokens_per_s_per_user.value, Dials(), factor)


def _criterion(metric: str, even: Any, guarded: Any) -> Criterion:
    return Criterion(
        metric=metric,
        direction="above" if guarded >= even else "below",
        threshold=float(even),
        guard=abs(float(guarded) - float(even)),
    )
