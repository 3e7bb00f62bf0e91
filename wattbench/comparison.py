"""Two operating points beside each other: is a difference real, and could one have been seen?

    ln(B / A) = mean ln b_i − mean ln a_i,      b_i, a_i the repeats (of a single run, its parts)

The scatter of both sides gives a standard error with Welch's degrees of freedom. For metrics with
joules in them the error terms of the ratio of two energies are added, on one device without the
gain that is common to both (``wattbench.energy.relative``). Percentiles of latency have their
order-statistic intervals, taken as log-normal, or the scatter over repeats if that is wider:
requests of one run are not independent. A difference is real if the 95 % interval of the ratio
leaves out 1.

The smallest difference that could have been seen is half that interval: what lies below it is not
shown to be absent, only not shown.

Source: Welch, Biometrika 34 (1947) 28, for the degrees of freedom.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from wattbench.core.energy import EnergyMeasurement, Unmeasured
from wattbench.core.errors import UsageError, did_you_mean
from wattbench.core.result import Estimate
from wattbench.energy import relative_error_fractions
from wattbench.metrics import (
    LATENCIES,
    METRICS,
    QUANTILES,
    RATIOS,
    LatencySpec,
    MetricSpec,
    RunFacts,
    pooled,
    pooled_energy,
)
from wattbench.results import PointResult
from wattbench.stats import Spread, combined_interval, spread_of

GATE = re.compile(r"^([\w.]+)\s*([<>])\s*([+-]?[\d.]+)\s*%$")
Z95 = 1.959964
"""97.5 % point of a standard normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of two operating points.

    Attributes:
        metric: Its name; of a latency with the percentile, as ``ttft_s.p95``.
        unit: Unit of the values.
        better: Which direction is better.
        first: Its value at the first point.
        second: Its value at the second point.
        ratio: Second over first, with its interval; without a value there is a reason.
        real: Whether the interval of the ratio leaves out 1; None if there is none.
        smallest_fraction: Smallest relative difference that could have been seen.
    """

    metric: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    first: float | None
    second: float | None
    ratio: Estimate
    real: bool | None
    smallest_fraction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A difference that must not be: ``METRIC>+2%`` or ``METRIC<-5%``."""

    metric: str
    above: bool
    limit_fraction: float

    def crossed(self, differences: Sequence[Difference]) -> bool:
        """Whether the metric's difference is real and beyond the limit."""
        found = next(d for d in differences if d.metric == self.metric)
        if not found.real or found.ratio.value is None:
            return False
        change = found.ratio.value - 1
        return change > self.limit_fraction if self.above else change < self.limit_fraction


def metric_names() -> list[str]:
    """Names that a comparison has, and a gate may name."""
    latencies = [f"{spec.name}.{label}" for spec in LATENCIES for label in QUANTILES]
    return [spec.name for spec in METRICS] + latencies


def parse_gate(text: str) -> Gate:
    """A gate from ``METRIC>+2%``.

    Raises:
        UsageError: If it means nothing, with the nearest metric.
    """
    match = GATE.match(text.strip())
    if match is None:
        raise UsageError(
            f"{text!r} is no gate: write METRIC>+PERCENT% or METRIC<-PERCENT%, as in "
            f"energy_per_output_token_joules>+2%"
        )
    metric, sign, number = match.groups()
    if metric not in metric_names():
        raise UsageError(f"{text!r}: no metric {metric!r}{did_you_mean(metric, metric_names())}")
    try:
        limit_fraction = float(number) / 100
    except ValueError:
        raise UsageError(f"{text!r}: {number!r} is no number") from None
    return Gate(metric=metric, above=sign == ">", limit_fraction=limit_fraction)


def compare(first: PointResult, second: PointResult) -> list[Difference]:
    """Every metric of two operating points, the second over the first."""
    sides = (first, second)
    found = [_metric(spec, sides) for spec in METRICS]
    for latency in LATENCIES:
        for label in QUANTILES:
            estimates = [side.facts.latencies[latency.name][label] for side in sides]
            name = f"{latency.name}.{label}"
            samples = [_quantiles(side.facts.runs, latency, QUANTILES[label]) for side in sides]
            spread = _wider(_widths(estimates), samples)
            found.append(_difference(name, "s", "lower", estimates, spread, (), 0.0))
    return found


def _metric(spec: MetricSpec, sides: tuple[PointResult, PointResult]) -> Difference:
    estimates = [side.facts.metrics[spec.name] for side in sides]
    if spec.energy_power and any(side.energy == "invalid" for side in sides):
        invalid = [Estimate(value=None, reason="energy_invalid")] * 2
        return _difference(spec.name, spec.unit, spec.better, invalid, Spread(), (), 0.0)
    uniform, sd = _energy_terms(spec, sides)
    if spec in RATIOS:
        spread = _welch([_samples(spec, side.facts.runs) for side in sides])
    else:
        samples = [_interactivity(spec, side.facts.runs) for side in sides]
        spread = _wider(_widths(estimates), samples)
    return _difference(spec.name, spec.unit, spec.better, estimates, spread, uniform, sd)


def _difference(  # noqa: PLR0913, PLR0917 - one table row
    name: str,
    unit: str,
    better: Literal["higher", "lower", "neither"],
    estimates: Sequence[Estimate],
    spread: Spread | None,
    uniform: Sequence[float],
    sd: float,
) -> Difference:
    a, b = (estimate.value for estimate in estimates)
    reason = next((e.reason or "unknown" for e in estimates if not e.value), None)
    if reason is None and spread is None:
        reason = "no_interval"
    ratio = Estimate(value=None, reason=reason)
    real = smallest = None
    if reason is None and a and b and spread is not None:
        low, high = combined_interval(
            b / a, uniform_half_width_fractions=uniform, normal_sd_fraction=sd, spread=spread
        )
        ratio = Estimate(value=b / a, low=low, high=high)
        real = not low <= 1 <= high
        smallest = math.sqrt(high / low) - 1
    return Difference(
        metric=name,
        unit=unit,
        better=better,
        first=a,
        second=b,
        ratio=ratio,
        real=real,
        smallest_fraction=smallest,
    )


def _welch(sides: Sequence[Sequence[float]]) -> Spread | None:
    """Scatter of the ratio of two means: both sides' own, with Welch's degrees of freedom."""
    errors, parts = [], []
    for values in sides:
        if len(values) < 2:
            return None
        square = float(np.var(np.log(values), ddof=1)) / len(values)
        errors.append(square)
        parts.append(square**2 / (len(values) - 1))
    if not sum(errors):
        return Spread()
    return Spread(scale=math.sqrt(sum(errors)), degrees=max(1, int(sum(errors) ** 2 / sum(parts))))


def _wider(widths: Spread | None, sides: Sequence[Sequence[float]]) -> Spread | None:
    """The scatter over repeats, if there are any and it is wider than the intervals say."""
    repeats = _welch(sides)
    if widths is None or repeats is None or repeats.scale < widths.scale:
        return widths
    return repeats


def _interactivity(spec: MetricSpec, runs: Sequence[RunFacts]) -> list[float]:
    """What one user sees in each repeat, over its mean power if the metric is per watt."""
    tpot = next(latency for latency in LATENCIES if latency.name == "tpot_s")
    users = [1 / value for value in _quantiles(runs, tpot, QUANTILES["p50"])]
    watts = [
        run.totals.energy_joules / run.totals.duration_s
        for run in runs
        if run.totals is not None and run.totals.energy_joules
    ]
    if spec.energy_power and len(watts) == len(users):
        return [user / power for user, power in zip(users, watts, strict=True)]
    return users


def _quantiles(runs: Sequence[RunFacts], spec: LatencySpec, share: float) -> list[float]:
    """A percentile of each repeat."""
    found = []
    for run in runs:
        values = np.concatenate([spec.values(r) for r in run.measured] or [np.empty(0)])
        if len(values):
            found.append(float(np.quantile(values, share)))
    return [value for value in found if value > 0]


def _samples(spec: MetricSpec, runs: Sequence[RunFacts]) -> list[float]:
    """A metric's values over repeats; of a single run, over its parts, small ones joined."""
    repeats = [spec.of(run.totals) for run in runs if run.totals is not None]
    if len(repeats) > 1:
        return [value for value in repeats if value]
    for size in (1, 2, 5):
        parts = runs[0].parts
        merged = [spec.of(pooled(parts[i : i + size])) for i in range(0, len(parts), size)]
        if len(merged) > 1 and all(merged):
            return [value for value in merged if value]
    return []


def _widths(estimates: Sequence[Estimate]) -> Spread | None:
    """Scatter of a ratio from two intervals, each taken as log-normal."""
    squares = []
    for estimate in estimates:
        if not estimate.low or not estimate.high:
            return None
        squares.append((math.log(estimate.high / estimate.low) / (2 * Z95)) ** 2)
    return Spread(scale=math.sqrt(sum(squares)))


def _energy_terms(
    spec: MetricSpec, sides: tuple[PointResult, PointResult]
) -> tuple[tuple[float, ...], float]:
    if not spec.energy_power:
        return (), 0.0
    energies = [pooled_energy([run.headline for run in side.facts.runs]) for side in sides]
    known = [one for one in energies if isinstance(one, EnergyMeasurement)]
    if len(known) < 2 or any(isinstance(one, Unmeasured) for one in energies):
        return (), 0.0
    return relative_error_fractions(known[1], known[0])


def scatter_fraction(point: PointResult, metric: str) -> float | None:
    """Half of the 95 % interval of a metric's mean over repeats, relative; None: unknown.

    What repeats cannot narrow, such as a meter's unknown gain, is not in it.
    """
    runs = point.facts.runs
    name, _, label = metric.partition(".")
    spec = next((s for s in METRICS if s.name == name), None)
    if spec is None:
        latency = next(s for s in LATENCIES if s.name == name)
        values = _quantiles(runs, latency, QUANTILES[label])
    elif spec in RATIOS:
        values = [v for run in runs if run.totals is not None and (v := spec.of(run.totals))]
    else:
        values = _interactivity(spec, runs)
    spread = spread_of(values)
    if spread is None or spread.degrees is None:
        return None
    return float(stdtrit(spread.degrees, 0.975) * spread.scale)


def caveats(first: PointResult, second: PointResult) -> list[str]:
    """What makes two points unequal besides what was meant to differ."""
    found = []
    a, b = (side.facts.runs[0].raw.record for side in (first, second))
    if a.engine.model != b.engine.model:
        found.append(
            f"The models differ ({a.engine.model}, {b.engine.model}): joules per token of "
            f"different tokenizers are not comparable; joules per request may be."
        )
    if {**a.workload, "seed": 0} != {**b.workload, "seed": 0}:
        found.append("The workloads differ; so does what a request asks for.")
    kinds = [side.facts.headline.kind for side in (first, second)]
    if kinds[0] != kinds[1]:
        found.append(f"The energies are of different kinds ({kinds[0]}, {kinds[1]}).")
    bounds = [side.facts.headline.domain for side in (first, second)]
    shown = [domain.boundary if domain else None for domain in bounds]
    if shown[0] != shown[1]:
        found.append(f"The energies have different boundaries ({shown[0]}, {shown[1]}).")
    for name, side in (("first", first), ("second", second)):
        for scope, verdict in (("performance", side.performance), ("energy", side.energy)):
            if verdict == "invalid":
                found.append(f"The {scope} verdict of the {name} point is invalid.")
    return found
