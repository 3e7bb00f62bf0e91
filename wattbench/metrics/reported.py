"""What another tool reports of a run that was imported, where no raw record tells it.

A reported joule is of kind ``reported`` and carries an assumed error, because no file states one.
A ratio follows from reported sums by the same table as from raw records; where a sum is missing,
the reported ratio itself stands, without interval. Where a meter was there, no joule of a file is
taken: a ratio is of metered joules, or it is withheld.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from wattbench.core.energy import BOUNDARIES, Boundary, EnergyDomain, EnergyMeasurement, Unmeasured
from wattbench.core.result import Estimate
from wattbench.core.run import NOT_A_NUMBER, READ_AS_ZERO, RawRun, ReportedFigure, stated
from wattbench.metrics.domain_energy import DomainEnergy
from wattbench.metrics.window import Totals

ASSUMED_GAIN_FRACTION = 0.05
"""Half-width assumed for a reported energy: what NVIDIA states for the power of its boards."""
REASON = "reported_without_interval"
_NO_NUMBER = re.compile(rf"{NOT_A_NUMBER}: \w+_(joules|watts)\b")
_NOT_COUNTED = ("nothing_in_window", "no_window", "token_count_missing")


def reported_domain(raw: RawRun, window_s: float | None) -> DomainEnergy | None:
    """The energy that the tool reports, as a domain of its own; None if it reports none.

    Where it states a ratio or a power alone, or its joules were refused, the domain says what kind
    these figures are of, and the energy is unknown.

    Args:
        raw: The run.
        window_s: Length of the tool's window, where its files tell when it was [s].
    """
    energy_joules, boundary = _energy_joules(raw), _boundary(raw)
    if boundary is None or not any(map(_is_of_energy, raw.reported)):
        return None
    method = str(raw.record.backend.get("energy_method") or "")
    method = f"{method or 'reported by the tool'}; ± {ASSUMED_GAIN_FRACTION:.0%} assumed"
    domain = EnergyDomain(
        name="reported",
        meter=str(raw.record.backend.get("tool")),
        quantity="energy_counter",
        kind="reported",
        boundary=boundary,
        devices=("reported",),
        method=method,
        gain_half_width_fraction=ASSUMED_GAIN_FRACTION,
    )
    duration_s = stated(raw.reported, "energy_duration_s") or stated(raw.reported, "duration_s")
    duration_s = duration_s or window_s
    gross: EnergyMeasurement | Unmeasured = Unmeasured(
        reason="no_window", message="the file does not tell how long it measured"
    )
    if energy_joules is None:
        gross = why_unmeasured(raw)
    elif duration_s:
        gross = EnergyMeasurement(
            energy_joules=energy_joules,
            duration_s=duration_s,
            kind="reported",
            boundary=boundary,
            devices=domain.devices,
            domains=(domain.name,),
            method=method,
            gain_half_widths_joules=(ASSUMED_GAIN_FRACTION * energy_joules,),
            offset_half_widths_joules=(0.0,),
            edge_joules=0.0,
        )
    idle = Unmeasured(reason="no_idle_baseline", message="the file tells no idle energy")
    return DomainEnergy(domain=domain, used=True, gross=gross, idle=idle, deep_idle=idle)


def why_unmeasured(raw: RawRun) -> Unmeasured:
    """Why there is no energy at all: neither of a meter nor of a file."""
    zeros = [r.field for r in raw.reported if r.metric == "energy_joules" and r.value <= 0]
    refused = [event.detail for event in raw.events if event.kind == "refused"]
    zeros += [str(r["field"]) for r in refused if str(r["why"]).startswith(READ_AS_ZERO)]
    if zeros and not raw.traces:
        told = f"the file states an energy or power of zero or less ({', '.join(zeros)})"
        return Unmeasured(reason="read_stored_as_zero", message=f"{told}: {READ_AS_ZERO}")
    wrong = [str(r["field"]) for r in refused if _NO_NUMBER.match(str(r["why"]))]
    if wrong and not raw.traces:
        told = f"the energy or power that the file states ({', '.join(wrong)}) is {NOT_A_NUMBER}"
        return Unmeasured(reason="not_a_number", message=told)
    return Unmeasured(reason="no_meter", message="no meter measured the devices that work")


def reported_totals(
    raw: RawRun, metered: EnergyMeasurement | Unmeasured, window_s: float | None
) -> Totals | None:
    """Sums of the tool's own window; None if it does not tell enough of them.

    Args:
        raw: The run.
        metered: Energy of its meters over the window of the run.
        window_s: Length of the tool's window, where its files tell when it was [s].
    """
    duration_s = stated(raw.reported, "duration_s") or window_s
    output_tokens = stated(raw.reported, "output_tokens_count")
    rate = stated(raw.reported, "output_tokens_per_s")
    if output_tokens is None and rate and duration_s:
        output_tokens = rate * duration_s
    if not duration_s or output_tokens is None:
        return None
    totals = Totals(
        duration_s=duration_s,
        output_tokens=output_tokens,
        input_tokens=stated(raw.reported, "input_tokens_count"),
        request_count=stated(raw.reported, "completed_count"),
        good_count=stated(raw.reported, "good_count"),
    )
    if isinstance(metered, EnergyMeasurement):
        joules = metered.energy_joules
        totals = replace(
            totals,
            energy_joules=joules,
            request_joules=joules,
            energy_duration_s=metered.duration_s,
        )
    return with_energy(raw, totals)


def with_energy(raw: RawRun, totals: Totals) -> Totals:
    """Sums with the energy that the tool reports, where no meter was there to tell it."""
    energy_joules = None if raw.traces else _energy_joules(raw)
    if totals.energy_joules is not None or energy_joules is None or _boundary(raw) is None:
        return totals
    return replace(
        totals,
        energy_joules=energy_joules,
        request_joules=energy_joules,
        energy_duration_s=stated(raw.reported, "energy_duration_s"),
    )


def or_reported(
    found: Estimate, raw: RawRun, metric: str, statistic: str = "total", *, of_energy: bool = False
) -> Estimate:
    """An estimate, or where it is unknown what the tool reports, with the reason.

    Args:
        found: What follows from the records.
        raw: The only run of the point.
        metric: Name of the metric.
        statistic: Which statistic of it.
        of_energy: Whether joules stand in it, which are never a file's where there was a meter.
    """
    # A sample that is there and too small stays withheld, whatever the tool made of it.
    if found.value is not None or (found.reason == "too_few_samples" and found.n):
        return found
    value = stated(raw.reported, metric, statistic)
    if not raw.requests and found.reason in _NOT_COUNTED:
        found = replace(found, reason="count_not_told")
        if of_energy and raw.traces and value:
            found = replace(found, reason="stated_beside_a_meter")
    if of_energy and (raw.traces or _boundary(raw) is None or (value or 0.0) <= 0):
        return found
    # A rate, a latency or a joule of zero is a failed read, not a figure.
    return found if not value else Estimate(value=value, n=found.n, reason=REASON)


def _energy_joules(raw: RawRun) -> float | None:
    """The energy that the tool states; none of zero or less, which an older import took."""
    energy_joules = stated(raw.reported, "energy_joules")
    return energy_joules if energy_joules and energy_joules > 0 else None


def _is_of_energy(figure: ReportedFigure) -> bool:
    """Whether a figure is joules or watts of the whole run, and was read."""
    total = figure.statistic == "total" and figure.value > 0
    return total and figure.metric.endswith(("_joules", "_watts"))


def _boundary(raw: RawRun) -> Boundary | None:
    """What the reported energy includes; one that tells nothing is not charged."""
    told: Mapping[str, object] = raw.record.backend
    return next((b for b in BOUNDARIES if b == told.get("boundary")), None)
