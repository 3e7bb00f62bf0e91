"""Which run comes next: a fixed plan, one that ends when it knows enough, or a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from wattbench.cli.setting import Load
from wattbench.comparison import scatter_fraction
from wattbench.results import PointResult

Results = Callable[[], list[PointResult]]
"""What was measured so far of this setting."""
MIN_REPEATS = 3
"""Repeats from which their scatter says how narrow an interval is."""


class Schedule(Protocol):
    """Chooses the runs of one setting, one after the other."""

    def next(self) -> tuple[Load, int] | None:
        """Load and number of the repeat of the next run; None when it is enough."""
        ...


class Blocks:
    """Each repeat takes all loads once, in an order of its own.

    A drift of the machine then spreads over all operating points and is no trend along them.
    """

    def __init__(self, loads: Sequence[Load], repeats: int, seed: int) -> None:
        self._loads = loads
        self._repeats = repeats
        self._rng = np.random.default_rng((seed, 0xB10C))
        self._repeat = -1
        self._queue: list[Load] = []

    def next(self) -> tuple[Load, int] | None:
        """The next of the block; a new block when one is through."""
        if not self._queue:
            self._repeat += 1
            if self._repeat >= self._repeats:
                return None
            self._queue = self.block(self._repeat)
            if not self._queue:
                return None
        return self._queue.pop(0), self._repeat

    def block(self, repeat: int) -> list[Load]:
        """The loads of a block; the first one as they were given, so that they are seen early."""
        if repeat == 0:
            return list(self._loads)
        return [self._loads[index] for index in self._rng.permutation(len(self._loads))]


class UntilNarrow(Blocks):
    """Repeats each load until a metric's scatter over repeats is narrow enough.

    Args:
        loads: Operating points.
        most: Most repeats of each.
        seed: Seed of the order.
        metric: Which metric.
        half_width_fraction: How narrow: half of the 95 % interval of its mean, relative.
        results: What was measured so far.
    """

    def __init__(
        self,
        loads: Sequence[Load],
        most: int,
        seed: int,
        metric: str,
        half_width_fraction: float,
        results: Results,
    ) -> None:
        super().__init__(loads, most, seed)
        self._metric = metric
        self._half_width_fraction = half_width_fraction
        self._results = results

    def block(self, repeat: int) -> list[Load]:
        """The loads that are not narrow yet."""
        loads = super().block(repeat)
        if repeat < MIN_REPEATS:
            return loads
        wide = []
        for point in self._results():
            found = scatter_fraction(point, self._metric)
            if found is None or found > self._half_width_fraction:
                wide.append(dict(point.facts.runs[0].raw.record.operating_point))
        return [load for load in loads if any(_is(load, point) for point in wide)]


def _is(load: Load, point: Mapping[str, object]) -> bool:
    return all(point.get(key) == value for key, value in load.stored.items())


class Budgeted:
    """Begins no further run when the time is up; each load is measured once at least.

    Args:
        schedule: What to run.
        limit_s: How long runs may begin [s].
    """

    def __init__(self, schedule: Schedule, limit_s: float) -> None:
        self._schedule = schedule
        self._end_s = time.monotonic() + limit_s

    def next(self) -> tuple[Load, int] | None:
        """The next run, if there is time for one."""
        found = self._schedule.next()
        if found is not None and found[1] > 0 and time.monotonic() > self._end_s:
            return None
        return found
