"""Time and energy of a machine's step: three lanes of one form (docs/simulator.md).

lane(B, K, P, Q) = F(B + P) + D(B) + c·K + d·Q
t = max(memory, arithmetic, energy / (cap − W))      e = energy + W·t
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from wattbench.core.errors import UsageError

Knots = tuple[tuple[float, float], ...]
"""Points (x, y) of a piecewise linear function, x rising; no points: zero everywhere."""


def knots(points: Sequence[Sequence[float]]) -> Knots:
    """Check the points of a piecewise linear function.

    Raises:
        UsageError: If they are not finite or not rising in x from 0 on.
    """
    checked = tuple((float(x), float(y)) for x, y in points)
    for place, (x, y) in enumerate(checked):
        if not (math.isfinite(x) and math.isfinite(y) and x >= 0):
            raise UsageError(f"point {place + 1} is ({x:g}, {y:g}); x must be 0 or more, y finite")
        if place and x <= checked[place - 1][0]:
            raise UsageError(
                f"point {place + 1} has x = {x:g} after {checked[place - 1][0]:g}; x must rise"
            )
    return checked


def interpolated(points: Knots, at: float) -> float:
    """The function's value: constant before its first point, the last slope beyond the last."""
    if not points:
        return 0.0
    right = bisect_right([x for x, _ in points], at)
    if right == 0 or len(points) == 1:
        return points[0][1]
    left = min(right, len(points) - 1) - 1
    (x0, y0), (x1, y1) = points[left], points[left + 1]
    return y0 + (y1 - y0) / (x1 - x0) * (at - x0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One lane: what a step's tokens, batch and contexts cost, in seconds or in joules.

    Attributes:
        tokens: F, over all tokens computed in the step.
        batch: D, over the decoding requests.
        per_context_token: c, for each token of the decoding requests' contexts.
        per_attended_token: d, for each token that a prompt's token attends to.
    """

    tokens: Knots = ()
    batch: Knots = ()
    per_context_token: float = 0.0
    per_attended_token: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a step that would cost less the more it does: the engine's bounds rest on it."""
        places = sorted({0.0, 1e6, *(x for x, _ in (*knots(self.tokens), *knots(self.batch)))})
        prompts = [interpolated(self.tokens, x) for x in places]
        answers = [f + interpolated(self.batch, x) for f, x in zip(prompts, places, strict=True)]
        for costs in (prompts, answers):
            for x, lower, higher in zip(places, [0.0, *costs], costs, strict=False):
                if higher < lower - 1e-9 * max(prompts):
                    raise UsageError(
                        f"a curve falls from {lower:g} to {higher:g} at {x:g}; it must not fall"
                    )
        for name in ("per_context_token", "per_attended_token"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value:g}; it must be 0 or more")

    def cost(
        self, batch: int, context_tokens: int, prompt_tokens: int, attended_tokens: int
    ) -> float:
        """The lane's value for a step; arguments B, K, P, Q of the module's equation."""
        return (
            interpolated(self.tokens, batch + prompt_tokens)
            + interpolated(self.batch, batch)
            + self.per_context_token * context_tokens
            + self.per_attended_token * attended_tokens
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepModel:
    """What a step takes and draws.

    Attributes:
        memory: Time of moving weights and caches [s]; an affine model has this lane only.
        arithmetic: Time of computing [s].
        energy: Energy above ``busy_watts`` [J].
        busy_watts: What the machine draws while it is busy, whatever it does [W].
    """

    memory: Lane
    arithmetic: Lane = field(default_factory=Lane)
    energy: Lane = field(default_factory=Lane)
    busy_watts: float = 0.0

    def __post_init__(self) -> None:
        """A step takes time: one that did not would never end a run."""
        if not (math.isfinite(self.busy_watts) and self.busy_watts >= 0):
            raise UsageError(f"busy_watts is {self.busy_watts:g}; it must be 0 W or more")
        if max(lane.cost(1, 1, 0, 0) for lane in (self.memory, self.arithmetic)) <= 0:
            raise UsageError("a step of one request takes no time; give the step model a base time")

    def time_s(self, step: tuple[int, int, int, int], cap_watts: float | None = None) -> float:
        """Duration of a step (B, K, P, Q), under a cap above ``busy_watts`` if one is given [s]."""
        time_s = max(self.memory.cost(*step), self.arithmetic.cost(*step))
        if cap_watts is not None:
            time_s = max(time_s, self.energy.cost(*step) / (cap_watts - self.busy_watts))
        return time_s

    def energy_joules(
        self, step: tuple[int, int, int, int], cap_watts: float | None = None
    ) -> float:
        """Energy of the same step [J]."""
        return self.energy.cost(*step) + self.busy_watts * self.time_s(step, cap_watts)


def affine(
    *,
    base: float,
    per_request: float = 0.0,
    per_prompt_token: float = 0.0,
    per_context_token: float = 0.0,
    per_attended_token: float = 0.0,
) -> Lane:
    """A lane a + b·B + p·P + c·K + d·Q, in seconds or joules: F(n) = a + p·n, D(B) = (b − p)·B."""
    return Lane(
        tokens=((0.0, base), (1.0, base + per_prompt_token)),
        batch=((0.0, 0.0), (1.0, per_request - per_prompt_token)),
        per_context_token=per_context_token,
        per_attended_token=per_attended_token,
    )
