"""Service levels: latencies that requests are to meet, and the grammar that names them.

    ttft:p95<500ms,tpot:p95<50ms,e2e:p99<20s

An objective is met at an operating point if that percentile of its latency lies below the limit. A
request is *good* if each of its own latencies lies below its limit; goodput counts good requests.

Source: goodput as in DistServe (OSDI'24) and vLLM bench serve ``--goodput``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wattbench.core.errors import UsageError, did_you_mean

LATENCY_NAMES = ("ttft", "tpot", "itl", "e2e")
LABELS = ("p50", "p95", "p99")
DEFAULT_LABEL = "p95"
_GRAMMAR = re.compile(r"^(\w+)(?::(p\d+))?\s*<=?\s*([\d.]+(?:e-?\d+)?)\s*(ms|s)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One limit.

    Attributes:
        latency: Name of the latency, such as ``ttft_s``.
        label: Percentile that must meet it, such as ``p95``.
        limit_s: The limit [s].
    """

    latency: str
    label: str
    limit_s: float

    def __str__(self) -> str:
        return f"{self.latency.removesuffix('_s')}:{self.label}<{self.limit_s * 1e3:g}ms"


def parse_slo(text: str) -> tuple[Objective, ...]:
    """Objectives from ``NAME:pNN<LIMIT(ms|s),…``.

    Raises:
        UsageError: If a part means nothing, with what it could be.
    """
    found = [_objective(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"{text!r} has no objective, such as ttft:p95<500ms")
    names = [(one.latency, one.label) for one in found]
    if len(set(names)) < len(names):
        raise UsageError(f"{text!r} limits the same percentile twice")
    return tuple(found)


def _objective(part: str) -> Objective:
    match = _GRAMMAR.match(part)
    if match is None:
        raise UsageError(f"{part!r} is no objective: write NAME:pNN<LIMIT, as in ttft:p95<500ms")
    name, label, number, unit = match.groups()
    if name not in LATENCY_NAMES:
        hint = did_you_mean(name, LATENCY_NAMES)
        raise UsageError(
            f"{part!r}: no latency {name!r}{hint} (there are {', '.join(LATENCY_NAMES)})"
        )
    label = label or DEFAULT_LABEL
    if label not in LABELS:
        raise UsageError(f"{part!r}: percentile {label} is not one of {', '.join(LABELS)}")
    try:
        limit_s = float(number) * (1e-3 if unit == "ms" else 1.0)
    except ValueError:
        raise UsageError(f"{part!r}: {number!r} is no number") from None
    if limit_s <= 0:
        raise UsageError(f"{part!r}: the limit must be above 0")
    return Objective(latency=f"{name}_s", label=label, limit_s=limit_s)


def stored_objectives(slo: Any) -> tuple[Objective, ...]:
    """Objectives as a workload keeps them: a text of the grammar, or limits by latency [s]."""
    if isinstance(slo, str):
        return parse_slo(slo)
    if not isinstance(slo, Mapping):
        return ()
    limits: Sequence[tuple[str, Any]] = [(k, v) for k, v in slo.items() if v is not None]
    return tuple(
        Objective(latency=name, label=DEFAULT_LABEL, limit_s=float(limit)) for name, limit in limits
    )
