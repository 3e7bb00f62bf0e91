"""Which load gives the most tokens per joule and still meets the service level, in few runs.

Tokens per joule rise with the load while idle power is shared by more, and stay or fall once the
engine is full; latencies rise with the load. So the best load that is allowed lies either at the
edge where the service level is first missed, or at a peak before it. The search goes up in steps
of four until it has passed one of them, then closes in:

    edge   secant on the worst of (latency / limit), kept off the ends of the bracket
    peak   the middle, by ratio, of the wider side of the best load so far

and ends when the bracket is two per cent wide, one user wide, or the runs are used up.

Source: regula falsi with a guard (Dowell and Jarratt, BIT 11 (1971) 168); golden section search
for the idea of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

STEP = 4
"""Factor between two loads while nothing is bracketed."""
START = 16
NARROW_FRACTION = 0.02
WIDE = 1.5
"""Ratio of two neighbouring loads between which a peak may hide."""
GUARD = 0.08
"""Share of a bracket, at both ends, that a secant does not enter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one load gave.

    Attributes:
        concurrency: The load [users].
        tokens_per_joule: What is to be largest; None: unknown.
        margin_fractions: Latency over limit of every objective; below 1 it is met.
    """

    concurrency: int
    tokens_per_joule: float | None
    margin_fractions: tuple[float, ...] = ()

    @property
    def worst_fraction(self) -> float:
        """The largest latency over its limit; 0 without a service level."""
        return max(self.margin_fractions, default=0.0)

    @property
    def allowed(self) -> bool:
        """Whether the service level is met and the energy known."""
        return self.worst_fraction < 1 and self.tokens_per_joule is not None


@dataclass(slots=True)
class LoadSearch:
    """Asks for loads, is told what they gave.

    Attributes:
        highest: Largest load that may be tried [users].
        most_runs: How many loads may be tried.
        trials: What was tried, in its order.
    """

    highest: int
    most_runs: int = 8
    trials: list[Trial] = field(default_factory=list)

    def best(self) -> Trial | None:
        """The best load so far that is allowed; None if none was."""
        allowed = [trial for trial in self.trials if trial.allowed]
        return max(allowed, key=_value, default=None)

    def tell(
        self, concurrency: int, tokens_per_joule: float | None, margin_fractions: Sequence[float]
    ) -> None:
        """Take in what a load gave."""
        self.trials.append(
            Trial(
                concurrency=concurrency,
                tokens_per_joule=tokens_per_joule,
                margin_fractions=tuple(margin_fractions),
            )
        )

    def ask(self) -> int | None:
        """The next load to try; None when there is nothing left to learn."""
        if len(self.trials) >= self.most_runs:
            return None
        tried = {trial.concurrency for trial in self.trials}
        if not tried:
            return min(START, self.highest)
        wanted = self._wanted()
        return wanted if wanted is not None and wanted not in tried else None

    def _wanted(self) -> int | None:
        order = sorted(self.trials, key=lambda trial: trial.concurrency)
        best = self.best()
        if best is None:
            lowest = order[0].concurrency
            return max(1, lowest // STEP) if lowest > 1 else None
        place = order.index(best)
        below = order[place - 1] if place else None
        above = order[place + 1] if place + 1 < len(order) else None
        if above is None:
            return min(best.concurrency * STEP, self.highest)
        if not above.allowed:
            edge = self._edge(best, above)
            return edge if edge is not None else self._inside(best, below)
        return self._peak(best, below, above)

    def _edge(self, best: Trial, above: Trial) -> int | None:
        """Where the service level is first missed, between the best load and one too high."""
        low, high = best.concurrency, above.concurrency
        if high - low <= max(1, NARROW_FRACTION * low):
            return None
        rise = above.worst_fraction - best.worst_fraction
        share = (1 - best.worst_fraction) / rise if rise > 0 and math.isfinite(rise) else 0.5
        # A latency that explodes says little about where: the middle is then the better guess.
        if above.worst_fraction > 3:
            share = max(share, 0.3)
        share = min(max(share, GUARD), 1 - GUARD)
        return min(max(low + 1, round(low + share * (high - low))), high - 1)

    def _inside(self, best: Trial, below: Trial | None) -> int | None:
        """A load between the edge and the next one below, where a peak might hide."""
        if below is None or best.concurrency < WIDE * below.concurrency:
            return None
        return round(math.sqrt(best.concurrency * below.concurrency))

    def _peak(self, best: Trial, below: Trial | None, above: Trial) -> int | None:
        """The middle of the wider side of a load that is better than both its neighbours."""
        up = above.concurrency / best.concurrency
        down = best.concurrency / below.concurrency if below else float(best.concurrency)
        if max(up, down) <= 1 + NARROW_FRACTION:
            return None
        if up >= down:
            wanted = round(math.sqrt(best.concurrency * above.concurrency))
        else:
            wanted = round(math.sqrt(best.concurrency * (below.concurrency if below else 1)))
        return max(1, wanted)


def _value(trial: Trial) -> float:
    return trial.tokens_per_joule or 0.0
