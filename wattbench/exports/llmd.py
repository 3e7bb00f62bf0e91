"""llm-d-benchmark: a benchmark report 0.2.1 for each operating point, its power slot filled.

Unlike those of other formats, its figures are those of ``wattbench show``: of the steady window,
repeats together. The report has no unit for joules, so energy, intervals, kind and boundary stand
in ``results.profiling``, which may hold anything.

Source: llmd-benchmark-report 0.2.1, which refuses a field that it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import yaml

from wattbench.core.energy import FloatArray
from wattbench.core.load import RequestResult
from wattbench.core.run import RawRun, RunRecord
from wattbench.exports.client import MEASURED
from wattbench.metrics import LATENCIES, PointFacts, latencies_s
from wattbench.results import PointResult, document, evaluate

VERSION = "0.2.1"
LABEL = "engine"
"""Name of the only component, under which its power stands as well."""
_LATENCIES = {
    "ttft_s": ("time_to_first_token", "s"),
    "tpot_s": ("time_per_output_token", "s/token"),
    "itl_s": ("inter_token_latency", "s/token"),
    "e2e_s": ("request_latency", "s"),
}
_PERCENTILES = {
    **{f"p{share}": share for share in (1, 5, 10, 25, 50, 75, 90, 95, 99)},
    "p0p1": 0.1,
    "p99p9": 99.9,
}
_PROFILING = (
    *("run_ids", "verdict", "windows", "confidence", "metrics", "whole_run", "energy"),
    *("tokens", "findings"),
)
"""What of ``wattbench show --json`` goes into ``results.profiling``."""


class _Plain(yaml.SafeDumper):
    """Writes a value twice rather than an alias to it, which many readers refuse."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def llmd_files(runs: Sequence[RawRun]) -> Iterator[tuple[str, bytes]]:
    """A report for each operating point, numbered in their order."""
    for number, point in enumerate(evaluate(runs)):
        text = yaml.dump(_report(point), Dumper=_Plain, sort_keys=False, allow_unicode=True)
        yield f"report_v{VERSION}_{number}.yaml", text.encode()


def _report(point: PointResult) -> dict[str, Any]:
    facts = point.facts
    record = facts.runs[0].raw.record
    load = _load(facts)
    performance = {
        "requests": _requests(facts),
        "latency": _latencies(facts),
        "throughput": _throughput(facts),
    }
    shown = document([point], "export")["points"][0]
    results: dict[str, Any] = {
        "request_performance": {"aggregate": _known(performance)},
        "profiling": {"wattbench": {name: shown[name] for name in _PROFILING}},
    }
    power = _power(facts)
    if power:
        results["observability"] = {"components": [{"component_label": LABEL, **power}]}
    run = {
        "uid": record.run_id,
        "eid": record.batch_id,
        "time": _time(facts),
        "keywords": [record.tag] if record.tag else None,
    }
    return {
        "version": VERSION,
        "run": _known(run),
        "scenario": _known({"stack": [_component(facts)], "load": load}),
        "results": results,
    }


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {})}


def _hash(value: object) -> str:
    """A configuration ID: equal for equal configurations."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _instant(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def _time(facts: PointFacts) -> dict[str, Any] | None:
    windows = [run.window for run in facts.runs if run.window]
    if not windows:
        return None
    return {
        "start": _instant(windows[0].start_unix_s),
        "end": _instant(windows[-1].start_unix_s + windows[-1].duration_s),
        "duration": f"PT{sum(window.duration_s for window in windows):.6f}S",
    }


def _component(facts: PointFacts) -> dict[str, Any]:
    """The engine as a component of no formal kind: the formal one needs its parallelism told."""
    record = facts.runs[0].raw.record
    mode, hardware = record.engine.mode, record.hardware.get("name")
    accelerator = {"model": hardware, "count": len(facts.headline.devices) or None}
    standardized = {
        "kind": "generic",
        "tool": record.engine.engine,
        "tool_version": _version(record),
        "model": {"name": record.engine.model},
        "accelerator": _known(accelerator),
        "precision": mode.precision,
        "speculative": mode.speculative,
    }
    identity = [record.engine.engine, record.engine.model, mode.text, hardware]
    return {
        "metadata": {"label": LABEL, "cfg_id": _hash(identity)},
        "standardized": _known(standardized),
        "native": {},
    }


def _version(record: RunRecord) -> str:
    """The last word of the engine's name where that is a version; the report wants one."""
    last = record.engine.engine.rpartition(" ")[2]
    return last if any(letter.isdigit() for letter in last) else "unknown"


def _measured(facts: PointFacts) -> list[RequestResult]:
    return [request for run in facts.runs for request in run.measured]


def _load(facts: PointFacts) -> dict[str, Any] | None:
    """The workload; None if nobody knows how long its prompts are, which a report must tell."""
    record = facts.runs[0].raw.record
    lengths = [r.input_tokens for r in _measured(facts) if r.input_tokens is not None]
    answers = {r.request.max_output_tokens for r in _measured(facts) if r.request.ignore_eos}
    if not lengths:
        return None
    session = record.workload.get("session")
    session = session if isinstance(session, dict) else None
    turns = session.get("turns") if session else None
    prompts = session.get("prompts") if session else None
    source = "unknown" if session is None else "random" if prompts is None else "sampled"
    single = turns == {"kind": "fixed", "value": 1}
    standardized = {
        "tool": "wattbench",
        "tool_version": str(record.environment.get("wattbench") or "unknown"),
        "source": source,
        "input_seq_len": _length(lengths),
        "output_seq_len": _length(sorted(answers)) if len(answers) == 1 else None,
        "rate_qps": record.operating_point.get("rate_per_s") if single else None,
        "concurrency": record.operating_point.get("concurrency"),
        "multi_turn": {"enabled": True} if session and not single else None,
    }
    workload = dict(record.workload)
    return {
        "metadata": _known(
            {"cfg_id": _hash(workload), "description": record.workload.get("about")}
        ),
        "standardized": _known(standardized),
        "native": {"config": workload},
    }


def _length(tokens: Sequence[int]) -> dict[str, Any]:
    """Lengths as they were, not as they were drawn."""
    low, high = min(tokens), max(tokens)
    if low == high:
        return {"distribution": "fixed", "value": low}
    return {"distribution": "other", "value": float(np.mean(tokens)), "min": low, "max": high}


def _statistics(units: str, values: FloatArray) -> dict[str, Any] | None:
    if not len(values):
        return None
    return {
        "units": units,
        "mean": float(values.mean()),
        "stddev": float(values.std()),
        "min": float(values.min()),
        **{name: float(np.percentile(values, share)) for name, share in _PERCENTILES.items()},
        "max": float(values.max()),
    }


def _requests(facts: PointFacts) -> dict[str, Any] | None:
    """Of the measured phase."""
    sent = [r for run in facts.runs for r in run.raw.requests if r.phase == "measured"]
    if not sent:
        return None
    found = {
        "total": len(sent),
        "failures": sum(not request.succeeded for request in sent),
        "input_length": _tokens([request.input_tokens for request in _measured(facts)]),
        "output_length": _tokens([request.output_tokens for request in _measured(facts)]),
    }
    return _known(found)


def _tokens(counts: Sequence[int | None]) -> dict[str, Any] | None:
    known = [count for count in counts if count is not None]
    return _statistics("count", np.array(known, np.float64))


def _latencies(facts: PointFacts) -> dict[str, Any]:
    measured, found = _measured(facts), {}
    for spec in LATENCIES if measured else ():
        name, units = _LATENCIES[spec.name]
        values = [latencies_s(spec.name, run.raw, run.measured) for run in facts.runs]
        found[name] = _statistics(units, np.concatenate(values))
    normalized = [
        float(request.chunk_s[-1] - request.queued_s) / request.output_tokens
        for request in measured
        if request.output_tokens
    ]
    found["normalized_time_per_output_token"] = _statistics("s/token", np.array(normalized))
    return _known(found)


def _throughput(facts: PointFacts) -> dict[str, Any]:
    """Rates of the window, each a mean and nothing else."""
    totals = facts.totals
    if totals is None or totals.duration_s <= 0:
        return {}
    prompts, answers = totals.input_tokens, totals.output_tokens
    rates = {
        "output_token_rate": ("tokens/s", answers),
        "input_token_rate": ("tokens/s", prompts),
        "total_token_rate": ("tokens/s", None if prompts is None else prompts + answers),
        "request_rate": ("queries/s", totals.request_count),
    }
    return {
        name: {"units": units, "mean": float(count / totals.duration_s)}
        for name, (units, count) in rates.items()
        if count is not None
    }


def _power(facts: PointFacts) -> dict[str, Any] | None:
    """Mean power of the devices that work, and of each tenth of a window; measured power only."""
    watts = facts.metrics["mean_power_watts"].value
    if watts is None or facts.headline.kind not in MEASURED:
        return None
    series = []
    for run in facts.runs:
        start_s = run.window.start_unix_s if run.window else 0.0
        for part in run.parts:
            if part.energy_joules is not None:
                mean_watts = float(part.energy_joules / part.duration_s)
                series.append({"ts": _instant(start_s), "mean": mean_watts})
            start_s += part.duration_s
    found = {"aggregate": {"power_consumption": {"units": "Watts", "mean": float(watts)}}}
    if not series:
        return found
    return found | {"time_series": {"power_consumption": {"units": "Watts", "series": series}}}
