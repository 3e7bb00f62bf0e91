"""How users come: in a closed loop, or by the clock.

By the clock there are two families. ``constant``, ``poisson`` and ``gamma`` go on the same way for
ever, at one rate for each operating point. ``ramp``, ``stages`` and ``trace`` are schedules: they
begin with the measured phase and have one operating point, their mean rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from wattbench.documents import Document
from wattbench.workload.files import DataFile
from wattbench.workload.lengths import MAX_DURATION_S, PositiveDuration, Rate, Real, Users
from wattbench.workload.traces import Trace, TraceFormat, read_trace

MAX_STAGES = 10_000


def _listed(value: Any) -> Any:
    """One number stands for a list of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of numbers such as [1, 4]")
    return value


def _points(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("needs at least one value")
    if len(set(values)) < len(values):
        raise ValueError("each value once")
    return values


_OPERATING_POINTS = (BeforeValidator(_listed), AfterValidator(_points))


class ClosedLoop(Document):
    """A fixed number of users, each sending the next request when the last is answered."""

    kind: Literal["closed"]
    concurrency: Annotated[tuple[Users, ...], *_OPERATING_POINTS] = (1,)


class OpenLoop(Document):
    """Sessions arrive by the clock, whether or not the engine keeps up.

    Attributes:
        kind: ``constant`` gaps, or a ``poisson`` process.
        rate_per_s: Sessions per second, one operating point each.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["constant", "poisson"]
    rate_per_s: Annotated[tuple[Rate, ...], *_OPERATING_POINTS]
    max_concurrency: Users | None = None

    def gap_s(self, rate_per_s: float, rng: np.random.Generator) -> float:
        """Time between two arrivals [s]."""
        return 1 / rate_per_s if self.kind == "constant" else float(rng.exponential(1 / rate_per_s))


class GammaLoop(Document):
    """Sessions arrive by the clock, with gaps of a gamma distribution.

    Attributes:
        kind: ``gamma``.
        rate_per_s: Sessions per second, one operating point each.
        burstiness: Shape k of the distribution: the gaps scatter by 1/√k of their mean. Below 1
            arrivals come in bursts, 1 is Poisson, and a large one is nearly constant.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["gamma"]
    rate_per_s: Annotated[tuple[Rate, ...], *_OPERATING_POINTS]
    burstiness: Annotated[Real, Field(ge=0.01, le=1e4)]
    max_concurrency: Users | None = None

    def gap_s(self, rate_per_s: float, rng: np.random.Generator) -> float:
        """Time between two arrivals [s]."""
        return float(rng.gamma(self.burstiness, 1 / (rate_per_s * self.burstiness)))


class Ramp(Document):
    """A Poisson process whose rate changes evenly over ``measure.duration_s``.

    Attributes:
        kind: ``ramp``.
        from_rate_per_s: Rate during the warm-up and at the start of the measured phase [1/s].
        to_rate_per_s: Rate at its end [1/s].
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["ramp"]
    from_rate_per_s: Rate
    to_rate_per_s: Rate
    max_concurrency: Users | None = None

    @property
    def mean_rate_per_s(self) -> float:
        """Over the whole schedule."""
        return (self.from_rate_per_s + self.to_rate_per_s) / 2

    @property
    def warmup_rate_per_s(self) -> float:
        """Rate of the Poisson process before the schedule begins."""
        return self.from_rate_per_s

    def duration_s(self, measure_s: float | None) -> float:
        """How long the schedule is [s]."""
        assert measure_s is not None, "the workload demands it of a ramp"
        return measure_s

    def times_s(self, measure_s: float | None, rng: np.random.Generator) -> Iterator[float]:
        """Arrivals from the start of the schedule on [s]."""
        length_s, start = self.duration_s(measure_s), self.from_rate_per_s
        slope = (self.to_rate_per_s - start) / length_s
        expected = 0.0
        while (expected := expected + float(rng.exponential())) < self.mean_rate_per_s * length_s:
            # The root of start·t + slope·t²/2 = expected that also holds for a slope of 0.
            root = np.sqrt(max(0.0, start**2 + 2 * slope * expected))
            yield float(2 * expected / (start + root))


class Stage(Document):
    """A stretch of constant rate.

    Attributes:
        rate_per_s: Sessions per second, at random [1/s].
        duration_s: How long [s].
    """

    rate_per_s: Rate
    duration_s: PositiveDuration


class Stages(Document):
    """A Poisson process whose rate changes in steps.

    Attributes:
        kind: ``stages``.
        stages: One after the other; the first one's rate is also that of the warm-up.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["stages"]
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)]
    max_concurrency: Users | None = None

    @property
    def mean_rate_per_s(self) -> float:
        """Over the whole schedule."""
        expected = sum(stage.rate_per_s * stage.duration_s for stage in self.stages)
        return expected / self.duration_s(None)

    @property
    def warmup_rate_per_s(self) -> float:
        """Rate of the Poisson process before the schedule begins."""
        return self.stages[0].rate_per_s

    def duration_s(self, measure_s: float | None) -> float:
        """How long the schedule is [s]."""
        return sum(stage.duration_s for stage in self.stages)

    def times_s(self, measure_s: float | None, rng: np.random.Generator) -> Iterator[float]:
        """Arrivals from the start of the schedule on [s]."""
        begin_s = 0.0
        for stage in self.stages:
            # A Poisson process has no memory: each stage may begin to draw anew.
            time_s = float(rng.exponential(1 / stage.rate_per_s))
            while time_s < stage.duration_s:
                yield begin_s + time_s
                time_s += float(rng.exponential(1 / stage.rate_per_s))
            begin_s += stage.duration_s


class TraceLoop(DataFile):
    """Recorded arrivals, with the lengths of each where the record has them.

    Attributes:
        kind: ``trace``.
        format: What the file is.
        time_scale: Times are multiplied by this: 0.5 replays twice as fast.
        max_concurrency: Slots; an arrival without a slot waits, and the wait counts as latency.
    """

    kind: Literal["trace"]
    format: TraceFormat
    time_scale: Annotated[Real, Field(gt=0, le=1e6)] = 1.0
    max_concurrency: Users | None = None
    _trace: Trace = PrivateAttr()

    def _take(self, text: str) -> None:
        self._trace = read_trace(text, self.format, self.file)
        if not 1e-6 < self.duration_s(None) <= MAX_DURATION_S:
            raise ValueError(
                f"{self.file} lasts {self.duration_s(None):g} s; from 1e-06 to {MAX_DURATION_S:g} "
                f"s can be replayed"
            )

    @property
    def trace(self) -> Trace:
        """What the file holds, before ``time_scale``."""
        return self._trace

    @property
    def mean_rate_per_s(self) -> float:
        """Over the whole schedule."""
        return self._trace.mean_rate_per_s / self.time_scale

    @property
    def warmup_rate_per_s(self) -> float:
        """Rate of the Poisson process before the schedule begins."""
        return self.mean_rate_per_s

    def duration_s(self, measure_s: float | None) -> float:
        """How long the schedule is [s]."""
        return self._trace.duration_s * self.time_scale

    def times_s(self, measure_s: float | None, rng: np.random.Generator) -> Iterator[float]:
        """Arrivals from the start of the schedule on [s]."""
        return iter((self._trace.time_s * self.time_scale).tolist())


Steady = OpenLoop | GammaLoop
Schedule = Ramp | Stages | TraceLoop
Arrivals = Annotated[
    ClosedLoop | OpenLoop | GammaLoop | Ramp | Stages | TraceLoop, Field(discriminator="kind")
]


def arrival_times_s(arrivals: Steady | Schedule, rate_per_s: float, seed: int) -> Iterator[float]:
    """Instants at which sessions arrive [s from the start of the load], without end.

    Before a schedule begins, they come at random at the rate that it begins with.
    """
    rng = np.random.default_rng((seed, 0xA1))
    now_s = 0.0
    while True:
        if isinstance(arrivals, Steady):
            now_s += arrivals.gap_s(rate_per_s, rng)
        else:
            now_s += float(rng.exponential(1 / arrivals.warmup_rate_per_s))
        yield now_s


def schedule_times_s(arrivals: Schedule, measure_s: float | None, seed: int) -> Iterator[float]:
    """Instants at which the sessions of a schedule arrive [s from its start].

    Args:
        arrivals: The schedule.
        measure_s: Longest measured phase, which a ramp fills [s].
        seed: Makes them; a trace is as it was recorded.
    """
    return arrivals.times_s(measure_s, np.random.default_rng((seed, 0xA2)))
