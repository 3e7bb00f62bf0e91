"""What a simulation says, as JSON: each figure over the seeds, with its interval or the reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

import numpy as np
from scipy.special import stdtrit

from wattbench.core.result import Estimate
from wattbench.core.slo import Objective
from wattbench.simulation.figures import nested, reason_of
from wattbench.simulation.parts import Kind
from wattbench.simulation.plan import Plan
from wattbench.simulation.run import Outcome, Played, same_traces
from wattbench.stats import CONFIDENCE
from wattbench.traces import Trace

SCHEMA_VERSION = 1
NO_ENERGY = "the first policy used no energy"
ONE_SEED = "one seed has no scatter"
ORACLE = "the router sees every machine at the moment of each arrival: an oracle of the moment"
UNSAID = "assumed"
KINDS = get_args(Kind)
"""The best known first."""


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything of a plan that was replayed."""
    plan = outcome.plan
    return {
        "scenario": plan.name,
        "horizon_s": outcome.horizon_s,
        "seeds": list(plan.seeds),
        "energy_kind": _worst_kind(plan),
        "pools": _pools(plan),
        "transfer": None if plan.fleet.transfer is None else asdict(plan.fleet.transfer),
        "router": _router(plan),
        "traces": [_trace(trace) for trace in outcome.traces],
        "policies": [_policy(outcome, text) for text in plan.policies],
        "notes": notes(outcome),
    }


def _pools(plan: Plan) -> list[dict[str, Any]]:
    origins = plan.origins or (None,) * len(plan.fleet.pools)
    return [
        {
            "name": pool.machine.name,
            "site": pool.site,
            "count": pool.count,
            "role": pool.role,
            "model": pool.machine.model or None,
            "devices": pool.machine.device_count,
            "kind": UNSAID if origin is None else origin.kind,
            "source": None if origin is None else origin.source,
            "fit": None if origin is None else dict(origin.fit) or None,
            "peak_watts": pool.machine.peak_watts,
            "idle_watts": pool.machine.idle_watts,
            "autoscale": None if pool.autoscale is None else asdict(pool.autoscale),
        }
        for pool, origin in zip(plan.fleet.pools, origins, strict=True)
    ]


def _worst_kind(plan: Plan) -> str:
    """How the joules are known: as the least known curve of the fleet."""
    kinds: list[str] = [each["kind"] for each in _pools(plan)]
    return max(kinds, key=KINDS.index)


def _router(plan: Plan) -> dict[str, Any]:
    settings = plan.settings
    return {
        "signals_every_s": settings.signals_every_s,
        "signals": signals(plan),
        "lengths_known": plan.lengths_text,
        "decision_s": settings.decision_s,
        "decision_joules": settings.decision_joules,
        "queue_limit": settings.queue_limit,
    }


def signals(plan: Plan) -> str:
    """How old what the router sees is, in words."""
    period_s = plan.settings.signals_every_s
    if period_s is None:
        return ORACLE
    own = "its own sends since then counted" if plan.settings.own_sends else "its own sends not"
    return f"the router sees every machine as it was up to {period_s:g} s ago, {own}"


def _trace(trace: Trace) -> dict[str, Any]:
    source = trace.source
    return {
        "name": source.name,
        "format": source.format,
        "sha256": source.sha256,
        "licence": source.licence,
        "changes": list(source.changes),
        "doubts": list(source.doubts),
        "requests": len(trace),
        "mean_rate_per_s": trace.mean_rate_per_s,
    }


def notes(outcome: Outcome) -> list[str]:
    """What a reader must know to believe the figures."""
    plan = outcome.plan
    found = [signals(plan)]
    if plan.lengths_text == "exact":
        found.append("the router knows the length of every answer beforehand (lengths_known)")
    if len(plan.seeds) > 1 and same_traces(outcome):
        found.append(
            "every seed replays the same requests: intervals tell the scatter of the policies' "
            "draws alone; write like: for others"
        )
    for trace in outcome.traces[:1]:
        found += [f"trace {trace.source.name}: {doubt}" for doubt in trace.source.doubts]
    return found


def _policy(outcome: Outcome, text: str) -> dict[str, Any]:
    played = [each for each in outcome.played if each.policy == text]
    figures = {
        name: _possible(
            name, over_seeds([each.figures[name] for each in played], reason_of(name, outcome.plan))
        )
        for name in played[0].figures
    }
    shown = nested({name: estimate_json(each) for name, each in figures.items()})
    shown["objectives"] = [
        _objective(each, figures[f"{each.latency}.{each.label}"])
        for each in outcome.plan.objectives
    ]
    requests = sum(each.figures["requests.arrived"] or 0.0 for each in played)
    return {
        "policy": text,
        **shown,
        "energy_ratio_to_first": estimate_json(_ratio(outcome, played)),
        "simulated_requests_per_s": requests / sum(each.wall_s for each in played),
        "per_seed": [_of_seed(each) for each in played],
    }


def _possible(name: str, estimate: Estimate) -> Estimate:
    """No share is above 1."""
    if name.endswith("_fraction") and estimate.high is not None:
        return replace(estimate, high=min(1.0, estimate.high))
    return estimate


def _ratio(outcome: Outcome, played: Sequence[Played]) -> Estimate:
    """Energy over that of the first policy, seed by seed: what both share cancels."""
    first = [each for each in outcome.played if each.policy == outcome.plan.policies[0]]
    pairs = [
        (each.figures["energy_joules"], of_first.figures["energy_joules"])
        for each, of_first in zip(played, first, strict=True)
    ]
    return over_seeds([a / b if b else None for a, b in pairs], NO_ENERGY)


def _of_seed(played: Played) -> dict[str, Any]:
    return {"seed": played.seed, "end_s": played.end_s, **nested(played.figures)}


def _objective(objective: Objective, reached: Estimate) -> dict[str, Any]:
    met = None if reached.value is None else reached.value < objective.limit_s
    return {"objective": str(objective), "limit_s": objective.limit_s, "met": met}


def over_seeds(values: Sequence[Any], reason: str) -> Estimate:  # noqa: D417
    """The mean over seeds, with Student's interval for it, cut at 0: no figure is below it.

    Args:
        reason: Why a value is not known, where one is not.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return Estimate(value=None, n=len(values), reason=reason)
    mean = float(np.mean(known))
    if len(known) < 2:
        return Estimate(value=mean, n=1, reason=ONE_SEED)
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    half = float(stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2)) * error
    low = max(0.0, mean - half) if min(known) >= 0 else mean - half
    return Estimate(value=mean, low=low, high=mean + half, n=len(known))


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """As JSON: what is unknown is null, with the reason."""
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        **({} if estimate.reason is None else {"reason": estimate.reason}),
    }
