"""Records about conclusions: a number with its interval, and reasons to doubt it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]
Scope = Literal["performance", "energy", "both"]
Verdict = Literal["valid", "doubtful", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, or the reason why there is none.

    Attributes:
        value: The number in the unit that its name says; None if unknown.
        low: Lower end of the interval; None if there is no interval.
        high: Upper end of the interval; None if there is no interval.
        n: How many observations it rests on.
        reason: Reason code where ``value`` or the interval is missing.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A reason to doubt a run, or something that its reader must know.

    Attributes:
        code: Stable name of the reason.
        severity: ``error`` makes the verdict of its scope invalid, ``warning`` doubtful.
        scope: Which verdict it touches.
        message: One sentence in plain words, with the figures.
    """

    code: str
    severity: Severity
    scope: Scope
    message: str
