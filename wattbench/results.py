"""Raw runs in, results out: points with metrics, energy, findings and verdict, and their JSON.

The JSON Schema of the document ships as ``result.schema.json``; later versions only add to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wattbench.checks import check_point, verdict
from wattbench.core.energy import Unmeasured
from wattbench.core.result import Estimate, Finding, Verdict
from wattbench.core.run import RawRun
from wattbench.energy import PhaseEnergy
from wattbench.metrics import PointFacts, PooledDomain, Window, point_facts, run_facts, server_means
from wattbench.stats import CONFIDENCE, additive_interval

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PointResult:
    """An operating point, concluded from its raw runs."""

    facts: PointFacts
    findings: tuple[Finding, ...]
    performance: Verdict
    energy: Verdict


def evaluate(runs: Iterable[RawRun]) -> list[PointResult]:
    """Conclude from raw runs, one result per operating point, in the order of the points."""
    groups: dict[tuple[str, int], dict[int, RawRun]] = {}
    for run in runs:
        record = run.record
        repeats = groups.setdefault((record.batch_id, record.point_index), {})
        earlier = repeats.get(record.repeat_index)
        # Of a repeat that was begun again when its batch was resumed, the last one counts.
        if earlier is None or earlier.record.run_id < record.run_id:
            repeats[record.repeat_index] = run
    results = []
    for repeats in groups.values():
        facts = point_facts([run_facts(run) for run in repeats.values()])
        findings = check_point(facts)
        results.append(
            PointResult(
                facts=facts,
                findings=findings,
                performance=verdict(findings, "performance"),
                energy=verdict(findings, "energy"),
            )
        )
    return results


def document(points: Sequence[PointResult], database: str) -> dict[str, Any]:
    """The object that ``--json`` prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "db": database,
        "points": [_point(point) for point in points],
    }


def _point(point: PointResult) -> dict[str, Any]:
    facts = point.facts
    record = facts.runs[0].raw.record
    return {
        "run_ids": [run.raw.record.run_id for run in facts.runs],
        "workload": record.workload.get("name"),
        "backend": record.backend.get("name"),
        "model": record.engine.model,
        "random_weights": record.engine.random_weights,
        "hardware": record.hardware.get("name"),
        "operating_point": dict(record.operating_point),
        "mode": dataclasses.asdict(record.engine.mode),
        "tag": record.tag,
        "seed": record.workload.get("seed"),
        "verdict": {"performance": point.performance, "energy": point.energy},
        "window": _window([run.window for run in facts.runs if run.window]),
        "windows": [_one_window(run.window) for run in facts.runs if run.window],
        "confidence": CONFIDENCE,
        "metrics": {
            **{name: estimate_json(value) for name, value in facts.metrics.items()},
            **{
                name: {label: estimate_json(value, count=False) for label, value in found.items()}
                | {"n": facts.latency_counts[name]}
                for name, found in facts.latencies.items()
            },
        },
        "slo": [
            {
                "objective": str(one.objective),
                "limit_s": one.objective.limit_s,
                "found_s": estimate_json(one.found),
                "met": one.met,
            }
            for one in facts.slo
        ],
        "whole_run": {
            name: value.value if value.value is not None else None
            for name, value in facts.whole_run.items()
        },
        "energy": {
            "headline": _domain(facts.headline),
            "domains": [_domain(domain) for domain in facts.domains],
            "phases": _phases(facts),
            "idle_neighbours": _domain(facts.neighbours) if facts.neighbours else None,
            "host_total": _domain(facts.host) if facts.host else None,
            "roles": {role: _domain(found) for role, found in facts.roles.items()},
        },
        "tokens": _tokens(facts),
        "requests": _requests(facts),
        "server": _server(facts),
        "reported": [
            dataclasses.asdict(figure) for run in facts.runs for figure in run.raw.reported
        ],
        "quality": {"value": None, "reason": "no_quality_task"},
        "findings": [
            {"code": f.code, "severity": f.severity, "scope": f.scope, "message": f.message}
            for f in point.findings
        ],
    }


def estimate_json(estimate: Estimate, *, count: bool = True) -> dict[str, Any]:
    """An estimate as JSON: what is unknown is null, with the reason."""
    shown: dict[str, Any] = {"value": estimate.value}
    if estimate.value is not None:
        shown |= {"low": estimate.low, "high": estimate.high}
    if count and estimate.n is not None:
        shown["n"] = estimate.n
    if estimate.reason is not None:
        shown["reason"] = estimate.reason
    return shown


def _window(windows: Sequence[Window]) -> dict[str, Any] | None:
    """From the first window's start to the last one's end; the duration is the sum of all."""
    if not windows:
        return None
    last = windows[-1]
    kinds = {window.kind for window in windows}
    return {
        "start_unix_s": windows[0].start_unix_s,
        "end_unix_s": last.start_unix_s + last.duration_s,
        "duration_s": sum(window.duration_s for window in windows),
        "kind": kinds.pop() if len(kinds) == 1 else "whole",
    }


def _one_window(window: Window) -> dict[str, Any]:
    return {
        "start_unix_s": window.start_unix_s,
        "end_unix_s": window.start_unix_s + window.duration_s,
        "duration_s": window.duration_s,
        "kind": window.kind,
    }


def _domain(domain: PooledDomain) -> dict[str, Any]:
    described = domain.domain
    return {
        "domain": domain.name,
        "boundary": described.boundary if described else None,
        "current": described.current if described else None,
        "kind": domain.kind,
        "devices": list(domain.devices),
        "used": domain.used,
        "meter": described.meter if described else None,
        "method": domain.method,
        "gross_joules": estimate_json(domain.gross),
        "net_loaded_idle_joules": estimate_json(domain.net_loaded_idle),
        "net_deep_idle_joules": estimate_json(domain.net_deep_idle),
    }


def _phases(facts: PointFacts) -> dict[str, Any]:
    """Prefill and decode above loaded idle, all runs together."""
    missing = [run.phases for run in facts.runs if isinstance(run.phases, Unmeasured)]
    known = [run.phases for run in facts.runs if isinstance(run.phases, PhaseEnergy)]
    if missing or not known:
        reason = missing[0].reason if missing else "no_window"
        unknown = {"value": None, "reason": reason}
        return {"prefill_joules": unknown, "decode_joules": unknown, "method": None}
    half_width = sum(phases.model_half_width_joules for phases in known)
    sd = sum(phases.sd_joules**2 for phases in known) ** 0.5
    shown: dict[str, Any] = {"method": "regression over half-second windows"}
    for name in ("prefill_joules", "decode_joules"):
        value = sum(getattr(phases, name) for phases in known)
        low, high = additive_interval(value, uniform_half_widths=[half_width], normal_sd=sd)
        shown[name] = {"value": value, "low": low, "high": high}
    return shown


def _tokens(facts: PointFacts) -> dict[str, Any]:
    sources = {r.tokens_source for run in facts.runs for r in run.measured if r.tokens_source}
    return {
        "input": facts.totals.input_tokens if facts.totals else None,
        "output": facts.totals.output_tokens if facts.totals else None,
        "source": sources.pop() if len(sources) == 1 else None,
    }


def _server(facts: PointFacts) -> dict[str, Any] | None:
    means = server_means(facts.runs)
    return dataclasses.asdict(means) if means else None


def _count(facts: PointFacts, counted: int, metric: str) -> int | None:
    """Requests counted; of runs with totals only, what their tool reports: None if nothing."""
    raws = [run.raw for run in facts.runs]
    if any(raw.requests for raw in raws) or not any(raw.reported for raw in raws):
        return counted
    told = [figure.value for raw in raws for figure in raw.reported if figure.metric == metric]
    return int(sum(told)) if told else None


def _requests(facts: PointFacts) -> dict[str, Any]:
    measured = [r for run in facts.runs for r in run.raw.requests if r.phase == "measured"]
    return {
        "completed": _count(facts, sum(r.succeeded for r in measured), "completed_count"),
        "failed": _count(facts, sum(not r.succeeded for r in measured), "failed_count"),
    }
