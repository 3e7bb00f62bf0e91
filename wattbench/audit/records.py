"""Checks of a run's records: what samples say beside the figures, and what a reader refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from wattbench.audit.figures import AGREEMENT_FRACTION, WINDOW_FRACTION, WINDOW_S
from wattbench.core.energy import BOUNDARIES, CounterTrace, EnergyMeasurement, Trace
from wattbench.core.result import Finding, Severity
from wattbench.core.run import READ_AS_ZERO, RawRun, stated
from wattbench.energy import add
from wattbench.metrics import RunFacts, charged_domains, top_domains
from wattbench.stats import additive_interval

_OF_ENERGY = re.compile(r"joule|energy|power|watt|_[jw]$", re.IGNORECASE)
"""Fields of a file that have to do with energy."""


def make_finding(code: str, severity: Severity, message: str) -> Finding:
    """A finding of the audit."""
    return Finding(code=code, severity=severity, scope="energy", message=message)


def off_samples(run: RunFacts) -> Iterator[tuple[str, str]]:
    """``reported_off_samples``: a stated energy or power is not what the samples say.

    Samples of a wider boundary only bound it from above, those of a narrower one from below.
    """
    told, measured = run.raw.reported, _sampled(run)
    if measured is None:
        return
    energy_s = stated(told, "energy_duration_s")
    stated_s = energy_s or stated(told, "duration_s") or measured.duration_s
    limit_s = max(WINDOW_S, WINDOW_FRACTION * measured.duration_s)
    if abs(stated_s - measured.duration_s) > limit_s:
        return  # of another window, so not to be compared; ``window_mismatch`` says so
    low, high = additive_interval(
        measured.energy_joules,
        uniform_half_widths=measured.uniform_half_widths_joules,
        normal_sd=measured.edge_joules,
    )
    # Where a tool does not tell how long it integrated, it may have been longer than its load.
    slack_joules = 0.0 if energy_s else limit_s * measured.energy_joules / measured.duration_s
    least_joules = low * (1 - AGREEMENT_FRACTION) - slack_joules
    most_joules = high * (1 + AGREEMENT_FRACTION) + slack_joules
    off = []
    wider = BOUNDARIES.index(measured.boundary) - _boundary_rank(run)
    for metric, divisor in _divisors(run, stated_s):
        value = stated(told, metric)
        if not value or not divisor:
            continue
        scale = stated_s / measured.duration_s / divisor
        is_low, is_high = value < least_joules * scale, value > most_joules * scale
        if not (is_low and wider <= 0) and not (is_high and wider >= 0):
            continue
        found = measured.energy_joules * scale
        off.append(
            f"{metric} is stated as {value:.5g} ({_field(run, metric)}), {value / found:.3g} times "
            f"the {found:.5g} (95 % {low * scale:.5g} … {high * scale:.5g})"
        )
    if off:
        yield (
            "reported_off_samples",
            f"the samples of {', '.join(measured.domains)} ({measured.boundary}) over the same "
            f"window say otherwise: {'; '.join(off)}.",
        )


def _divisors(run: RunFacts, stated_s: float) -> Iterator[tuple[str, float | None]]:
    """Each figure of energy, and what it is energy over."""
    totals = run.totals

    def told(metric: str, counted: float | None) -> float | None:
        return stated(run.raw.reported, metric) or counted or None

    rate = stated(run.raw.reported, "output_tokens_per_s") or 0.0
    inputs = told("input_tokens_count", totals.input_tokens if totals else None)
    outputs = told("output_tokens_count", totals.output_tokens if totals else None)
    outputs = outputs or rate * stated_s
    yield "energy_joules", 1.0
    yield "mean_power_watts", stated_s
    yield "energy_per_output_token_joules", outputs
    yield "energy_per_input_token_joules", inputs
    yield "energy_per_total_token_joules", inputs + outputs if inputs and outputs else None
    requests = told("completed_count", totals.request_count if totals else None)
    yield "energy_per_request_joules", requests


def _sampled(run: RunFacts) -> EnergyMeasurement | None:
    """Energy of the samples over the tool's window, at the boundary of its joules if there is one.

    A log in CSV tells no boundary and counts as the node's.
    """
    told = run.raw.record.backend
    if told.get("alignment") == "enveloped" or told.get("boundary") not in BOUNDARIES:
        return None  # of an enveloped program the samples are of its whole life
    domains = [
        d
        for d in top_domains(run.domains)
        if d.used and d.domain.kind not in ("reported", "modelled", "nameplate")
    ]
    same = [d.gross for d in domains if d.domain.boundary == told.get("boundary")]
    charged = [d.gross for d in charged_domains(run.raw, tuple(domains))]
    parts = same or charged
    known = [part for part in parts if isinstance(part, EnergyMeasurement)]
    return add(known) if known and len(known) == len(parts) else None


def _boundary_rank(run: RunFacts) -> int:
    told = run.raw.record.backend.get("boundary")
    return next(rank for rank, boundary in enumerate(BOUNDARIES) if boundary == told)


def _field(run: RunFacts, metric: str) -> str:
    return next(r.field for r in run.raw.reported if (r.metric, r.statistic) == (metric, "total"))


def refused(raw: RawRun) -> Iterator[Finding]:
    """``energy_refused``: the reader of the file could not take a figure of energy.

    An error only where the file holds the figure for valid: one that says itself that its power is
    invalid, or modelled, contradicts nothing.
    """
    fields: dict[tuple[str, bool], list[str]] = {}
    for event in raw.events:
        if event.kind != "refused" or str(event.detail["why"]).startswith(READ_AS_ZERO):
            continue  # ``read_stored_as_zero`` says it
        if _OF_ENERGY.search(str(event.detail["field"])):
            key = str(event.detail["why"]), event.detail.get("claimed", True) is not False
            fields.setdefault(key, []).append(str(event.detail["field"]))
    for (why, claimed), names in fields.items():
        severity: Severity = "error" if claimed else "info"
        yield make_finding("energy_refused", severity, f"{', '.join(names)}: {why}")


def samples(trace: Trace) -> Iterator[Finding]:
    """``period_mismatch``: samples do not come as often as the sensor is said to tick."""
    name = trace.domain.name
    if not isinstance(trace, CounterTrace):
        watts = trace.power_watts[np.isfinite(trace.power_watts)]
        zeros = int((watts == 0).sum())
        if zeros and watts.any():
            yield make_finding(
                "read_stored_as_zero",
                "error",
                f"{zeros} of {len(watts)} samples of {name} are 0 W; a failed read is no zero.",
            )
    gaps_s = np.diff(trace.time_s)
    stated_s = trace.domain.update_period_s
    if stated_s and len(gaps_s) > 10 and float(np.median(gaps_s)) > 3 * stated_s:
        yield make_finding(
            "period_mismatch",
            "warning",
            f"{name} is said to give a value every {stated_s:.3g} s, and was read every "
            f"{float(np.median(gaps_s)):.3g} s.",
        )
