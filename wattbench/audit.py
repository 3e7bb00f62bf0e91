"""Do published figures agree with themselves, and which rankings survive their uncertainty?

What a file states several times over must be the same each time:

    mean power = energy / duration          J/token × tokens = J        J/request × requests = J
    mean power / (tokens/s) = J/token       power per device × devices = power

and what it states must be possible: no energy of zero, no device that idles in the sum of those
that work, no window of another length than the samples'. Then every pair of loads that may be
compared at all (one model, one boundary, one kind) is: a ranking survives if the 95 % interval of
the ratio of their joules per output token leaves out 1.

Source: the defects of published records are those that *TokenPowerBench*, arXiv 2512.03024, and
InferenceX's power validation gave rise to.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wattbench.core.energy import CounterTrace, Trace
from wattbench.core.result import Estimate, Finding, Severity
from wattbench.core.run import RawRun, stated
from wattbench.results import PointResult, evaluate
from wattbench.stats import combined_interval

HEADLINE = "energy_per_output_token_joules"
AGREEMENT_FRACTION = 0.02
"""Two statements of one figure that differ by more contradict each other; rounding is below."""
WINDOW_S = 0.5
WINDOW_FRACTION = 0.01
"""A duration may differ from another by the larger of the two (InferenceX's own rule)."""
DEFAULT_FRACTION = 0.05
"""Half-width of a joule whose source states none: NVIDIA's bound for the power of its boards."""
IDLE_FRACTION = 0.35
"""A device below this part of the busiest one's power idles beside it."""

Z95 = 1.959964
"""97.5 % point of a standard normal."""

_OF_ENERGY = re.compile(r"joule|energy|power|watt|_[jw]$", re.IGNORECASE)
"""Fields of a file that have to do with energy."""

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
        figures = _Figures(run.raw)
        for code, message in itertools.chain(
            _identities(figures), _impossible(figures), _devices(figures), _windows(figures)
        ):
            yield _finding(code, "error", message)
        yield from _refused(run.raw)
        for trace in run.raw.traces:
            yield from _samples(trace)


def _finding(code: str, severity: Severity, message: str) -> Finding:
    return Finding(code=code, severity=severity, scope="energy", message=message)


class _Figures:
    """What a tool states of a run, by name."""

    def __init__(self, raw: RawRun) -> None:
        self.all = raw.reported
        self.raw = raw

    def get(self, metric: str, statistic: str = "total") -> float | None:
        """One figure, None if it is not stated."""
        found = stated(self.all, metric, statistic)
        count = self.raw.record.backend.get("device_count") if metric == "device_count" else None
        return float(count) if found is None and isinstance(count, int | float) else found

    def by_device(self, metric: str) -> dict[str, float]:
        """A figure of each device that is told apart."""
        return {
            r.statistic.removeprefix("device:"): r.value
            for r in self.all
            if r.metric == metric and r.statistic.startswith("device:")
        }


_PRODUCTS = (
    ("energy_power_mismatch", "energy_joules", ("mean_power_watts", "duration_s")),
    (
        "energy_power_mismatch",
        "mean_power_watts",
        ("energy_per_output_token_joules", "output_tokens_per_s"),
    ),
    (
        "energy_token_mismatch",
        "energy_joules",
        ("energy_per_output_token_joules", "output_tokens_count"),
    ),
    (
        "energy_token_mismatch",
        "energy_joules",
        ("energy_per_input_token_joules", "input_tokens_count"),
    ),
    ("energy_request_mismatch", "energy_joules", ("energy_per_request_joules", "completed_count")),
    ("rate_mismatch", "output_tokens_count", ("output_tokens_per_s", "duration_s")),
    ("rate_mismatch", "completed_count", ("requests_per_s", "duration_s")),
    ("device_power_mismatch", "mean_power_watts", ("mean_power_per_device_watts", "device_count")),
)
"""Code, and a figure that is the product of two others."""


def _identities(figures: _Figures) -> Iterator[tuple[str, str]]:
    """A figure is not the product of two others that it must be.

    Codes: ``energy_power_mismatch``, ``energy_token_mismatch``, ``energy_request_mismatch``,
    ``rate_mismatch``, ``device_power_mismatch``.
    """
    for code, whole, parts in _PRODUCTS:
        stated = figures.get(whole)
        factors = [figures.get(part) for part in parts]
        if whole == "energy_joules" and parts[1] == "duration_s":
            factors[1] = figures.get("energy_duration_s") or factors[1]
        known = [factor for factor in factors if factor]
        if not stated or len(known) < len(parts):
            continue
        product = math.prod(known)
        if abs(math.log(product / stated)) > math.log1p(AGREEMENT_FRACTION):
            names = " × ".join(parts)
            yield (
                code,
                f"{names} is {product:.4g}, and {whole} is stated as {stated:.4g}: "
                f"{product / stated:.3g} times as much. One of them has another divisor or window.",
            )


def _impossible(figures: _Figures) -> Iterator[tuple[str, str]]:
    """``read_stored_as_zero``: a failed read stands as an energy or a power of zero."""
    zeros = [
        f"{r.metric} ({r.field})"
        for r in figures.all
        if r.value <= 0 and r.statistic != "sd" and r.metric.endswith(("_joules", "_watts"))
    ]
    if zeros:
        yield (
            "read_stored_as_zero",
            f"{', '.join(zeros)} is zero or less; no machine that is on draws nothing, so a failed "
            f"read was stored as a number. It must be missing, with a reason.",
        )


def _devices(figures: _Figures) -> Iterator[tuple[str, str]]:
    """``idle_devices_summed``, ``device_sum_mismatch``: devices that idle are in the sum."""
    for metric in ("energy_joules", "mean_power_watts"):
        found = figures.by_device(metric)
        busiest = max(found.values(), default=0.0)
        idle = sorted(name for name, value in found.items() if value < IDLE_FRACTION * busiest)
        total, expected = figures.get(metric), sum(found.values())
        if total and expected and abs(total / expected - 1) > AGREEMENT_FRACTION:
            yield (
                "device_sum_mismatch",
                f"the devices' {metric} add up to {expected:.4g}, and {total:.4g} is stated.",
            )
        elif idle and total:
            rest = sum(value for name, value in found.items() if name not in idle)
            yield (
                "idle_devices_summed",
                f"{', '.join(idle)} of {len(found)} devices idle, and are in the {metric} of "
                f"{total:.4g}; those that work have {rest:.4g}, {total / rest - 1:.0%} less.",
            )


def _windows(figures: _Figures) -> Iterator[tuple[str, str]]:
    """``window_mismatch``: energy and load are over windows of unlike length."""
    duration_s, energy_s = figures.get("duration_s"), figures.get("energy_duration_s")
    start_s, end_s = (figures.raw.event_time_s(k) for k in ("measure_start", "measure_end"))
    pairs = [("the energy was integrated over", energy_s)]
    placed = figures.raw.record.backend.get("alignment") != "enveloped"
    if placed and start_s is not None and end_s is not None:
        pairs.append(("its first and last stamps are apart", end_s - start_s))
    for what, other_s in pairs:
        if duration_s and other_s:
            limit_s = max(WINDOW_S, WINDOW_FRACTION * duration_s)
            if abs(other_s - duration_s) > limit_s:
                yield (
                    "window_mismatch",
                    f"the load lasted {duration_s:.4g} s, and {what} {other_s:.4g} s.",
                )


def _refused(raw: RawRun) -> Iterator[Finding]:
    """``energy_refused``: the reader of the file could not take a figure of energy."""
    fields: dict[str, list[str]] = {}
    for event in raw.events:
        if event.kind == "refused" and _OF_ENERGY.search(str(event.detail["field"])):
            fields.setdefault(str(event.detail["why"]), []).append(str(event.detail["field"]))
    for why, names in fields.items():
        yield _finding("energy_refused", "error", f"{', '.join(names)}: {why}")


def _samples(trace: Trace) -> Iterator[Finding]:
    """``period_mismatch``: samples do not come as often as the sensor is said to tick."""
    name = trace.domain.name
    if not isinstance(trace, CounterTrace):
        watts = trace.power_watts[np.isfinite(trace.power_watts)]
        zeros = int((watts == 0).sum())
        if zeros and watts.any():
            yield _finding(
                "read_stored_as_zero",
                "error",
                f"{zeros} of {len(watts)} samples of {name} are 0 W; a failed read is no zero.",
            )
    gaps_s = np.diff(trace.time_s)
    stated_s = trace.domain.update_period_s
    if stated_s and len(gaps_s) > 10 and float(np.median(gaps_s)) > 3 * stated_s:
        yield _finding(
            "period_mismatch",
            "warning",
            f"{name} is said to give a value every {stated_s:.3g} s, and was read every "
            f"{float(np.median(gaps_s)):.3g} s.",
        )


CHECKS = (_identities, _impossible, _devices, _windows, _refused, _samples)
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
