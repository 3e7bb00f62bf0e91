"""Checks of where the work is done: are the devices that are charged those that work?"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from wattbench.checks.finding import finding
from wattbench.core.result import Finding, Severity
from wattbench.core.run import RawRun
from wattbench.metrics import (
    PointFacts,
    charged_domains,
    foreign_process_ids,
    named_devices,
    top_domains,
    working_devices,
)

CONTENTION_FRACTION = 0.25
"""Share of all processors that wattbench takes from an engine beside it, from which both suffer."""


def elsewhere(point: PointFacts) -> Iterator[Finding]:
    """``meter_not_on_engine_host``: the meter watches a machine that may not do the work.

    An error if that is the machine of the load generator, a warning if it is another host than
    the one that answers: behind a router that may be right.
    """
    for run in point.runs:
        engine = run.raw.record.engine
        used = [d.domain for d in run.domains if d.used]
        local = [domain.name for domain in used if domain.on_client_host]
        if local and engine.on_client_host is False:
            message = (
                f"{', '.join(local)} was read on the machine that runs wattbench, but the engine "
                f"works elsewhere. Meter the machine that does the work: run `wattbench agent` "
                f"there, or read its exporter."
            )
            yield finding("meter_not_on_engine_host", "error", "energy", message)
            return
        answers = urlsplit(str(engine.detail.get("url", ""))).hostname
        addresses = _addresses(run.raw)
        other = {d.host for d in used if d.host and addresses.get(d.host, answers) != answers}
        if other and engine.on_client_host is False:
            message = (
                f"The energy is that of {', '.join(sorted(other))}, but {answers} answers the "
                f"requests. Right if it hands them on; else meter {answers}."
            )
            yield finding("meter_not_on_engine_host", "warning", "energy", message)
            return


def _addresses(raw: RawRun) -> dict[str, str]:
    """Network address of each host that has an agent, by the host's name in the run."""
    agents = [event.detail for event in raw.events if event.kind == "agent"]
    return {str(agent["host"]): str(agent["address"]) for agent in agents}


def neighbours(point: PointFacts) -> Iterator[Finding]:
    """``idle_neighbours``: devices were measured that did not work or were not named."""
    found, host = point.neighbours, point.host
    if found is None or host is None:
        return
    share = ""
    if found.gross.value is not None and host.gross.value:
        share = f" ({found.gross.value / host.gross.value:.0%} of the host's)"
    message = (
        f"{found.name} was measured and is not charged: its joules{share} stand apart, and those "
        f"of the whole host beside them."
    )
    yield finding("idle_neighbours", "info", "energy", message)


def left_out(point: PointFacts) -> Iterator[Finding]:
    """``working_device_left_out``, ``other_boundary``, ``measured_twice``: joules beside the sum.

    A device that works and is not named; domains at another boundary than the headline's, which
    are never added to it; a device that two meters measured, of which one is charged.
    """
    run = point.runs[0]
    charged = charged_domains(run.raw, run.domains)
    working = working_devices(run.raw)
    missed = sorted(working - {device for d in charged for device in d.domain.devices})
    if charged and missed and named_devices(run.raw) is not None:
        message = (
            f"The engine ran on {', '.join(missed)} too, which is not among the devices that were "
            f"named: its joules are not charged."
        )
        yield finding("working_device_left_out", "warning", "energy", message)
    boundary = charged[0].domain.boundary if charged else None
    top = top_domains(run.domains)
    other = [d.domain for d in top if d.used and charged and d.domain.boundary != boundary]
    if other:
        shown = ", ".join(f"{domain.name} ({domain.boundary})" for domain in other)
        message = (
            f"{shown} was measured too and is not in the headline, which is of boundary "
            f"{boundary}: joules of different boundaries are not added. Each stands under domains."
        )
        yield finding("other_boundary", "info", "energy", message)
    names = {d.domain.name for d in run.domains}
    twice = [
        d.domain.name
        for d in run.domains
        if d.used and d.domain.parent not in names and d not in top
    ]
    if twice:
        message = (
            f"{', '.join(twice)} measures a device that another meter measures too; it is shown "
            f"and not charged a second time."
        )
        yield finding("measured_twice", "info", "energy", message)


def unproven(point: PointFacts) -> Iterator[Finding]:
    """``devices_unproven``: several devices are charged, and of some nobody told if they work."""
    raw, headline = point.runs[0].raw, point.headline
    unknown = sorted(set(headline.devices) - working_devices(raw))
    several = len(headline.devices) > 1 and headline.kind != "nameplate"
    if several and unknown and named_devices(raw) is None:
        message = (
            f"{len(headline.devices)} devices are charged, and nothing tells whether "
            f"{', '.join(unknown[:4])}{' …' * (len(unknown) > 4)} did any of the work. Name the "
            f"ones that do with --devices if some are idle."
        )
        yield finding("devices_unproven", "info", "energy", message)


def foreign(point: PointFacts) -> Iterator[Finding]:
    """``foreign_process``: somebody else's process ran on a device that is charged."""
    for run in point.runs:
        found = foreign_process_ids(run.raw)
        if found:
            where = "; ".join(f"{device}: {len(ids)}" for device, ids in sorted(found.items()))
            message = (
                f"Processes that are not the engine's ran on charged devices ({where}). Their "
                f"energy is in the joules."
            )
            yield finding("foreign_process", "warning", "energy", message)
            return


def contention(point: PointFacts) -> Iterator[Finding]:
    """``client_on_engine_host``: load generator and engine share processors and their energy."""
    for run in point.runs:
        record = run.raw.record
        count = record.environment.get("cpu_count")
        lag = next((e.detail for e in run.raw.events if e.kind == "loop_lag"), None)
        if record.engine.on_client_host is not True or lag is None or not isinstance(count, int):
            continue
        cores = float(str(lag.get("client_cpu_cores") or 0.0))
        severity: Severity = "warning" if cores > CONTENTION_FRACTION * count else "info"
        message = (
            f"wattbench runs beside the engine and took {cores:.2g} of {count} processors; a "
            f"meter of this host's CPU counts that as the engine's. Run it on another machine "
            f"for figures of the engine alone."
        )
        yield finding("client_on_engine_host", severity, "both", message)
        return
