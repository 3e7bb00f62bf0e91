"""Do published figures agree with themselves, and which rankings survive their uncertainty?

What a file states several times over must be the same each time:

    mean power = energy / duration          J/token × tokens = J        J/request × requests = J
    mean power / (tokens/s) = J/token       power per device × devices = power

and what it states must be possible: no energy of zero, no device that idles in the sum of those
that work, no window of another length than the samples', no p99 below a p90. Where samples lie
beside a stated joule, it must be theirs. Then every pair of loads that may be
compared at all (one model, one boundary, one kind) is: a ranking survives if the 95 % interval of
the ratio of their joules per output token leaves out 1.

Source: the defects of published records are those that *TokenPowerBench*, arXiv 2512.03024, and
InferenceX's power validation gave rise to.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from wattbench.audit.figures import (
    devices,
    identities,
    impossible,
    statistics,
    windows,
)
from wattbench.audit.records import make_finding, off_samples, refused, samples
from wattbench.core.result import Estimate, Finding
from wattbench.core.run import RawRun
from wattbench.results import PointResult, evaluate
from wattbench.stats import combined_interval

HEADLINE = "energy_per_output_token_joules"
DEFAULT_FRACTION = 0.05
"""Half-width of a joule whose source states none: NVIDIA's bound for the power of its boards."""

Z95 = 1.959964
"""97.5 % point of a standard normal."""


Fate = Literal["survives", "does not survive", "not comparable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One load, and what is wrong with its figures.

    Attributes:
        point: The load.
        name: What it is called in the audit.
        findings: Contradictions and impossible figures, beside those of every result.
    """

    point: PointResult
    name: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Two loads beside each other.

    Attributes:
        first: Name of the first load.
        second: Name of the second one.
        ratio: Joules per output token of the second over the first, with interval.
        fate: Whether the order of the two survives.
        why: Why they cannot be compared, empty if they can.
    """

    first: str
    second: str
    ratio: Estimate
    fate: Fate
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The loads and their rankings.

    Attributes:
        loads: Each load, in the order given.
        rankings: Every pair.
    """

    loads: tuple[Audited, ...]
    rankings: tuple[Ranking, ...]

    @property
    def clean(self) -> bool:
        """Whether no figure contradicts another."""
        return not any(f.severity == "error" for load in self.loads for f in load.findings)


def audit(runs: Sequence[RawRun], default_fraction: float = DEFAULT_FRACTION) -> Audit:
    """Audit runs, imported or measured.

    Args:
        runs: The runs.
        default_fraction: Half-width taken for a joule whose source states none.
    """
    points = evaluate(runs)
    loads = tuple(
        Audited(point=point, name=_name(point), findings=tuple(_findings(point)))
        for point in points
    )
    pairs = itertools.combinations(loads, 2)
    return Audit(
        loads=loads,
        rankings=tuple(_ranking(first, second, default_fraction) for first, second in pairs),
    )


def _name(point: PointResult) -> str:
    record = point.facts.runs[0].raw.record
    load = " ".join(f"{key} {value}" for key, value in record.operating_point.items())
    return " · ".join(filter(None, [record.run_id, load]))


def _findings(point: PointResult) -> Iterator[Finding]:
    for run in point.facts.runs:
        told = [check(run.raw) for check in OF_FIGURES]
        for code, message in itertools.chain(*told, off_samples(run)):
            yield make_finding(code, "error", message)
        yield from refused(run.raw)
        for trace in run.raw.traces:
            yield from samples(trace)


OF_FIGURES = (identities, impossible, devices, windows, statistics)
CHECKS = (*OF_FIGURES, off_samples, refused, samples)
"""Every check of one load, for the reference."""


def _ranking(first: Audited, second: Audited, default_fraction: float) -> Ranking:
    why = _incomparable(first.point, second.point)
    names = {"first": first.name, "second": second.name}
    sides = [side.point.facts.metrics[HEADLINE] for side in (first, second)]
    values = [side.value for side in sides]
    if why or not all(values):
        reason = why or "the joules per output token of one are unknown"
        unknown = Estimate(value=None, reason="not_comparable")
        return Ranking(**names, ratio=unknown, fate="not comparable", why=reason)
    ratio = float(values[1] or 0.0) / float(values[0] or 1.0)
    stated = [_half_width_fraction(side) for side in sides]
    low, high = combined_interval(
        ratio,
        uniform_half_width_fractions=[default_fraction for width in stated if width is None],
        normal_sd_fraction=math.hypot(*(width or 0.0 for width in stated)) / Z95,
    )
    fate: Fate = "does not survive" if low <= 1 <= high else "survives"
    return Ranking(**names, ratio=Estimate(value=ratio, low=low, high=high), fate=fate)


def _half_width_fraction(estimate: Estimate) -> float | None:
    """The stated uncertainty of a value; None if none is stated."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2 / estimate.value


def _incomparable(first: PointResult, second: PointResult) -> str:
    """Why two loads must not be ranked by joules per token; empty if they may."""
    records = [side.facts.runs[0].raw.record for side in (first, second)]
    models = [record.engine.model for record in records]
    if models[0] != models[1]:
        return f"unlike models, so unlike tokens ({models[0]}, {models[1]})"
    heads = [side.facts.headline for side in (first, second)]
    boundaries = [head.domain.boundary if head.domain else None for head in heads]
    if None not in boundaries and boundaries[0] != boundaries[1]:
        return f"unlike boundaries ({boundaries[0]}, {boundaries[1]})"
    modelled = [head.kind in ("modelled", "nameplate") for head in heads]
    if modelled[0] != modelled[1]:
        return f"one is measured, the other {heads[modelled.index(True)].kind}"
    return ""
