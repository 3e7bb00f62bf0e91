"""Facts of one run: its window, what it produced there, and the joules of each domain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wattbench.core.energy import (
    BOUNDARIES,
    KINDS,
    EnergyMeasurement,
    Unmeasured,
    worst_kind,
)
from wattbench.core.load import RequestResult
from wattbench.core.run import RawRun
from wattbench.core.slo import stored_objectives
from wattbench.energy import (
    CumulativeEnergy,
    PhaseEnergy,
    add,
    cleaned,
    cumulative,
    phase_energy,
)
from wattbench.energy.calibration import derived_cumulative
from wattbench.metrics.calibrated import calibration_of
from wattbench.metrics.domain_energy import (
    DomainEnergy,
    domain_energy,
    measured_energy,
    with_derived,
)
from wattbench.metrics.reported import (
    reported_domain,
    reported_totals,
    why_unmeasured,
    with_energy,
)
from wattbench.metrics.table import meets
from wattbench.metrics.window import RequestLog, Totals, Window

PHASE_S = 0.5
"""Length of the windows from which prefill and decode are told apart [s]."""
UUID = re.compile(r"^GPU-|^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-")
"""Names of devices that no other device has, on whatever host."""
PARTS = 10
"""A single run is cut into this many parts to see how much its ratios scatter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run, counted.

    Attributes:
        raw: The run.
        window: The steady window, from the end of warm-up to the last accepted request; the whole
            run if there is no such window; None if nothing was sent.
        measured: Successful measured requests with an answer.
        totals: Sums over the window.
        parts: Sums over equal parts of the window.
        whole: Sums from the first request sent to the last answer.
        domains: Energy by domain.
        headline: Energy charged to the load, or why there is none.
        phases: Energy of the window by phase, or why it cannot be told.
    """

    raw: RawRun
    window: Window | None
    measured: tuple[RequestResult, ...]
    totals: Totals | None
    parts: tuple[Totals, ...]
    whole: Totals | None
    domains: tuple[DomainEnergy, ...]
    headline: EnergyMeasurement | Unmeasured
    phases: PhaseEnergy | Unmeasured


def run_facts(raw: RawRun) -> RunFacts:
    """Count one run."""
    window, whole_window = _steady_window(raw), _whole_window(raw)
    window = window or whole_window
    domains = with_derived(raw, [domain_energy(raw, trace, window) for trace in raw.traces])
    reported = reported_domain(raw, _told_window_s(raw, window))
    if reported is not None and not domains:
        domains = (reported,)
    charged = charged_domains(raw, domains)
    objectives = stored_objectives(raw.record.workload.get("slo"))
    good = [meets(request, objectives) for request in raw.requests] if objectives else None
    log = RequestLog(raw.requests, good)
    measured = tuple(
        r for r in raw.requests if r.phase == "measured" and r.succeeded and len(r.chunk_s)
    )
    return RunFacts(
        raw=raw,
        window=window,
        measured=measured,
        totals=_totals(raw, log, window, charged),
        parts=_parts(raw, log, window, charged),
        whole=_totals(raw, log, whole_window, charged),
        domains=domains,
        headline=_headline(raw, charged),
        phases=_phases(raw, log, window, charged),
    )


def _steady_window(raw: RawRun) -> Window | None:
    start_s, end_s = raw.event_time_s("measure_start"), raw.event_time_s("measure_end")
    if start_s is None or end_s is None:
        return None
    enveloped = raw.record.backend.get("alignment") == "enveloped"
    return Window(
        kind="whole" if enveloped else "steady",
        start_s=start_s,
        end_s=end_s,
        start_unix_s=raw.record.started_unix_s + start_s,
    )


def _told_window_s(raw: RawRun, window: Window | None) -> float | None:
    """Length of the window of another tool whose files tell when it was [s]."""
    aligned = raw.record.backend.get("alignment") == "aligned"
    return window.duration_s if window is not None and aligned else None


def _whole_window(raw: RawRun) -> Window | None:
    if not raw.requests:
        return None
    start_s = min(r.sent_s for r in raw.requests)
    return Window(
        kind="whole",
        start_s=start_s,
        end_s=max(r.end_s for r in raw.requests),
        start_unix_s=raw.record.started_unix_s + start_s,
    )


def charged_domains(raw: RawRun, domains: tuple[DomainEnergy, ...]) -> list[DomainEnergy]:
    """The domains whose sum is the headline: one boundary, used devices, nothing twice.

    Of the boundaries measured, the one that the machine's profile states its power at; if that
    one is not measured, the one with the best kind, and of equals the widest.
    """
    top = [d for d in top_domains(domains) if d.used]
    groups = {b: [d for d in top if d.domain.boundary == b] for b in BOUNDARIES}
    groups = {boundary: group for boundary, group in groups.items() if group}
    if not groups:
        return []
    power = raw.record.hardware.get("power")
    preferred = power.get("boundary") if isinstance(power, dict) else None
    ranked = sorted(
        groups,
        key=lambda boundary: (
            boundary != preferred,
            KINDS.index(worst_kind([d.domain.kind for d in groups[boundary]])),
            -BOUNDARIES.index(boundary),
        ),
    )
    return groups[ranked[0]]


def top_domains(domains: Sequence[DomainEnergy]) -> list[DomainEnergy]:
    """The domains that are inside no other one, each device at each boundary once.

    What two meters say of one device is charged once: by the better kind, then by the first.
    """
    names = {d.domain.name for d in domains}
    top = [d for d in domains if d.domain.parent not in names]
    chosen: list[DomainEnergy] = []
    taken: set[tuple[str, str, str | None]] = set()
    for one in sorted(top, key=lambda d: KINDS.index(d.domain.kind)):
        keys = {_place(one, device) for device in one.domain.devices}
        if not keys & taken:
            taken |= keys
            chosen.append(one)
    return [d for d in top if d in chosen]


def _place(found: DomainEnergy, device: str) -> tuple[str, str, str | None]:
    """What a device is known by: a UUID is one of its kind, any other name one of its host's."""
    host = None if UUID.search(device) else found.domain.host
    return found.domain.boundary, device, host


def _headline(raw: RawRun, charged: list[DomainEnergy]) -> EnergyMeasurement | Unmeasured:
    if not charged:
        return why_unmeasured(raw)
    known = [d.gross for d in charged if isinstance(d.gross, EnergyMeasurement)]
    if len(known) < len(charged):
        return next(d.gross for d in charged if isinstance(d.gross, Unmeasured))
    return add(known)


def _charged_energy(
    raw: RawRun, charged: list[DomainEnergy], window: Window
) -> list[CumulativeEnergy] | None:
    """Cumulative energy of the charged domains, None if one does not cover the window."""
    names = {d.domain.name for d in charged}
    found = calibration_of(raw) if any(d.domain.kind == "derived" for d in charged) else None
    if found is not None:
        names = set(found.fit.meters)
    traces = [trace for trace in raw.traces if trace.domain.name in names]
    covered = [
        isinstance(measured_energy(trace, window.start_s, window.end_s), EnergyMeasurement)
        for trace in traces
    ]
    if not covered or not all(covered):
        return None
    parts = [cumulative(cleaned(trace)) for trace in traces]
    return parts if found is None else [derived_cumulative(found.fit, found.domain, parts)]


def _totals(
    raw: RawRun, log: RequestLog, window: Window | None, charged: list[DomainEnergy]
) -> Totals | None:
    metered = _headline(raw, charged)
    window_s = _told_window_s(raw, window)
    stated = None if raw.requests else reported_totals(raw, metered, window_s)
    if window is None or stated is not None:
        return stated
    totals = log.totals(window.start_s, window.end_s, _charged_energy(raw, charged, window))
    return with_energy(raw, totals)


def _parts(
    raw: RawRun, log: RequestLog, window: Window | None, charged: list[DomainEnergy]
) -> tuple[Totals, ...]:
    if window is None or not raw.requests:
        return ()
    energy = _charged_energy(raw, charged, window)
    edges = np.linspace(window.start_s, window.end_s, PARTS + 1).tolist()
    return tuple(log.totals(start_s, end_s, energy) for start_s, end_s in pairwise(edges))


def _phases(
    raw: RawRun, log: RequestLog, window: Window | None, charged: list[DomainEnergy]
) -> PhaseEnergy | Unmeasured:
    """Prefill and decode of the window, from stretches of half a second."""
    energy = _charged_energy(raw, charged, window) if window else None
    idles = [d.idle for d in charged]
    known = [idle for idle in idles if isinstance(idle, EnergyMeasurement)]
    if window is None or energy is None or len(known) < len(idles):
        message = "the phases need the energy of the window and of loaded idle"
        return Unmeasured(reason="no_idle_baseline", message=message)
    idle_watts = sum(idle.energy_joules / idle.duration_s for idle in known)
    edges = np.linspace(window.start_s, window.end_s, int(window.duration_s / PHASE_S) + 1)
    spans = list(pairwise(edges.tolist()))
    parts = [log.totals(start_s, end_s, energy) for start_s, end_s in spans]
    return phase_energy(
        np.array([(p.energy_joules or 0.0) - idle_watts * p.duration_s for p in parts]),
        np.array([p.input_tokens or 0.0 for p in parts]),
        np.array([p.output_tokens for p in parts]),
        np.array([float(log.step_count(start_s, end_s)) for start_s, end_s in spans]),
    )
