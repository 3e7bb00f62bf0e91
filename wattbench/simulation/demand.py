"""From a trace to what the engine is asked: what the router knows of lengths, and classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from wattbench.core.errors import UsageError, did_you_mean
from wattbench.core.slo import Objective
from wattbench.plugins import option, parse_options, parse_spec
from wattbench.routing.world import Demand
from wattbench.traces import Trace
from wattbench.traces.record import MAX_LENGTH_TOKENS

STREAM = 0x6E0155
"""Of the random numbers of guesses, apart from those of the trace."""


class Lengths(Protocol):
    """What the router takes answers' lengths for."""

    def guess(self, output_tokens: Any, seed: int) -> Any:
        """The guesses, or None where they are exact [tokens]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exact:
    """The router knows every length: an oracle."""

    def guess(self, output_tokens: Any, seed: int) -> Any:
        """None: exact."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mean:
    """The router takes every answer for the mean one of the trace."""

    def guess(self, output_tokens: Any, seed: int) -> Any:
        """The mean for all."""
        return np.full(len(output_tokens), max(1, round(float(output_tokens.mean()))), np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noisy:
    """The router guesses each length, off by a factor whose logarithm is normal with mean 0."""

    sigma: float = option(0.5, "standard deviation of the factor's logarithm")

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 10:
            raise ValueError(f"sigma={self.sigma:g} is not above 0 and at most 10")

    def guess(self, output_tokens: Any, seed: int) -> Any:
        """Drawn anew for each seed."""
        rng = np.random.default_rng([STREAM, seed])
        guesses = output_tokens * np.exp(self.sigma * rng.standard_normal(len(output_tokens)))
        return np.clip(np.rint(guesses), 1, MAX_LENGTH_TOKENS).astype(np.int32)


KNOWN: Mapping[str, type[Any]] = {"exact": _Exact, "mean": _Mean, "noisy": _Noisy}


def lengths_known(text: str) -> Lengths:
    """What a text means: ``exact``, ``mean`` or ``noisy,sigma=…``.

    Raises:
        UsageError: If it means nothing.
    """
    spec = parse_spec(text)
    if spec.name not in KNOWN:
        hint = did_you_mean(spec.name, list(KNOWN))
        raise UsageError(f"{spec.name!r} is none of exact, mean and noisy,sigma=0.5{hint}")
    found: Lengths = parse_options(spec, KNOWN[spec.name])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What requests of a class are promised.

    Attributes:
        priority: Their queue, 0 the most urgent.
        patience_s: How long they wait to be admitted [s]; infinite: for ever.
        objectives: Their service level; empty: none.
    """

    priority: int = 0
    patience_s: float = math.inf
    objectives: tuple[Objective, ...] = ()


def demand_of(trace: Trace, promises: Mapping[str, Promise], lengths: Lengths, seed: int) -> Demand:
    """What the engine is asked.

    Raises:
        UsageError: If a class is promised something that the trace does not have.
    """
    unknown = [name for name in promises if name not in trace.class_names]
    if unknown:
        has = ", ".join(trace.class_names) or "none"
        raise UsageError(
            f"classes: trace {trace.source.name} has no class {unknown[0]!r} (it has {has}); leave "
            f"it out, or give requests a class"
        )
    priority = patience_s = None
    if promises:
        each = [promises.get(name, Promise()) for name in trace.class_names]
        priority = np.array([p.priority for p in each], dtype=np.int8)[trace.slo_class]
        patience_s = np.array([p.patience_s for p in each])[trace.slo_class]
    return Demand(
        arrival_s=trace.arrival_s,
        input_tokens=trace.input_tokens,
        output_tokens=trace.output_tokens,
        guess_tokens=lengths.guess(trace.output_tokens, seed),
        priority=priority,
        patience_s=patience_s,
        parent=trace.parent,
        think_s=trace.think_s,
        block_start=trace.block_start,
        blocks=trace.blocks,
        block_tokens=trace.block_tokens,
    )
