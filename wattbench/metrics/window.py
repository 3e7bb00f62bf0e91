"""What happened inside a window: tokens, requests and joules, counted from raw records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wattbench.core.energy import FloatArray
from wattbench.core.load import RequestResult
from wattbench.energy import CumulativeEnergy, attribute

STEP_GAP_S = 5e-4
"""Tokens that arrive within this of each other come from one engine step [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a run, on its clock and on the wall's."""

    kind: Literal["steady", "whole"]
    start_s: float
    end_s: float
    start_unix_s: float

    @property
    def duration_s(self) -> float:
        """Length [s]."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over a window, or over several: metrics are ratios of these.

    Attributes:
        duration_s: Length of the window [s].
        output_tokens: Answer tokens that arrived in it, of requests that succeeded.
        input_tokens: Prompt tokens of requests whose first token arrived in it; None if a prompt
            was not counted.
        request_count: Successful requests, each by the share of its time that lies in the window;
            None if a tool that only reports totals does not count them.
        good_count: Those of them that met every limit of the service level, in the same way; None
            if there is no service level.
        energy_joules: Energy of the window [J], None if unknown.
        request_joules: The part of it attributed to requests [J], None if unknown.
        energy_duration_s: Length of the stretch that the energy is of [s], where another tool's
            counts are of another one than the energy; None: the same.
    """

    duration_s: float
    output_tokens: float
    input_tokens: float | None
    request_count: float | None
    good_count: float | None = None
    energy_joules: float | None = None
    request_joules: float | None = None
    energy_duration_s: float | None = None

    @property
    def metered_s(self) -> float:
        """Length of the stretch that the energy is of [s]."""
        return self.duration_s if self.energy_duration_s is None else self.energy_duration_s


def pooled(parts: Sequence[Totals]) -> Totals:
    """Sum of several windows; unknown as soon as a part is unknown."""

    def total(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return Totals(
        duration_s=sum(part.duration_s for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        input_tokens=total([part.input_tokens for part in parts]),
        request_count=total([part.request_count for part in parts]),
        good_count=total([part.good_count for part in parts]),
        energy_joules=total([part.energy_joules for part in parts]),
        request_joules=total([part.request_joules for part in parts]),
        energy_duration_s=sum(part.metered_s for part in parts),
    )


class RequestLog:
    """The requests of a run as arrays, for counting in any window.

    Args:
        results: All requests of the run that got an answer or a failure.
        meets: Whether each of them met the service level; None if there is none.
    """

    def __init__(
        self, results: Sequence[RequestResult], meets: Sequence[bool] | None = None
    ) -> None:
        self.meets = None if meets is None else np.array(meets, dtype=bool)
        good = [r for r in results if r.succeeded]
        answered = [r for r in good if len(r.chunk_s)]
        self.sent_s = np.array([r.sent_s for r in results])
        self.end_s = np.array([r.end_s for r in results])
        self.good = np.array([r.succeeded for r in results], dtype=bool)
        self.token_s = _joined([r.chunk_s for r in answered])
        self.tokens = _joined([r.emitted_tokens for r in answered])
        self._ordered_s = np.sort(self.token_s)
        self.first_s = np.array([r.chunk_s[0] for r in answered])
        self.prompt_tokens = np.array(
            [np.nan if r.input_tokens is None else r.input_tokens for r in answered]
        )

    def step_count(self, start_s: float, end_s: float) -> int:
        """Engine steps that gave tokens in a window: arrivals that lie apart.

        A batching engine gives the tokens of a step at once; over a wire they arrive within a
        fraction of a millisecond of each other.
        """
        inside = (self._ordered_s >= start_s) & (self._ordered_s < end_s)
        return int(inside.sum() and 1 + (np.diff(self._ordered_s[inside]) > STEP_GAP_S).sum())

    def totals(
        self, start_s: float, end_s: float, energy: Sequence[CumulativeEnergy] | None
    ) -> Totals:
        """Count inside a window.

        Args:
            start_s: Window start, included [s, run clock].
            end_s: Window end, not included [s, run clock].
            energy: Domains to be charged, all covering the window; None if unknown.
        """
        begun = (self.first_s >= start_s) & (self.first_s < end_s)
        prompts = float(self.prompt_tokens[begun].sum())
        inside = (self.token_s >= start_s) & (self.token_s < end_s)
        overlap_s = np.clip(self.end_s, start_s, end_s) - np.clip(self.sent_s, start_s, end_s)
        fraction = overlap_s / np.maximum(self.end_s - self.sent_s, 1e-12)
        totals = Totals(
            duration_s=end_s - start_s,
            output_tokens=float(self.tokens[inside].sum()),
            input_tokens=None if np.isnan(prompts) else prompts,
            request_count=float(fraction[self.good].sum()),
            good_count=None if self.meets is None else float(fraction[self.meets].sum()),
        )
        if energy is None:
            return totals
        shares = [attribute(one, self.sent_s, self.end_s, start_s, end_s) for one in energy]
        attributed = sum(float(share.request_joules.sum()) for share in shares)
        idle = sum(share.idle_joules for share in shares)
        return replace(totals, energy_joules=attributed + idle, request_joules=attributed)


def _joined(parts: list[FloatArray]) -> FloatArray:
    return np.concatenate(parts) if parts else np.empty(0)
