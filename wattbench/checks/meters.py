"""Checks of the meters themselves, over raw samples: is this trace what a sound sensor gives?

One function per way to fail; each looks at one trace of one run. What a fault does to the energy
decides its severity: an ``error`` if the joules cannot be trusted, a ``warning`` if they can be
mended or are merely worse, an ``info`` if nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import CounterTrace, FloatArray, PowerTrace, Trace
from wattbench.core.errors import InsufficientCoverage
from wattbench.core.result import Finding, Severity
from wattbench.core.run import RawRun
from wattbench.energy import cleaned, cumulative, negative_reads, values_of, zero_reads
from wattbench.energy.integrate import MAX_GAP_S
from wattbench.metrics import PointFacts, power_limit_watts

LOST_FRACTION = 0.06
"""Share of reads without a value from which readings count as lost; jitter loses fewer."""
FROZEN_S = 1.0
"""A counter of a machine that is on moves at least this often [s]."""
QUANTUM_FRACTION = 0.03
"""Step of a sensor over mean power from which it is too coarse to tell loads apart."""
SPIKE_RATIO = 1.5
"""Power over the machine's limit that no machine draws."""
LAG_S = 0.5
"""Delay between load and power from which they are not of one time [s]."""
SKEW_S = 0.25
"""Difference between a sensor's clock and ours from which it matters [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A trace in the setting of its run.

    Attributes:
        raw: The run.
        trace: The trace as recorded.
        limit_watts: Most that a device can draw, None if unknown.
    """

    raw: RawRun
    trace: Trace
    limit_watts: float | None

    @property
    def name(self) -> str:
        """Name of the domain."""
        return self.trace.domain.name

    def good(self) -> tuple[FloatArray, FloatArray]:
        """Times [s] and values of the reads that are measurements."""
        trace = cleaned(self.trace)
        value = values_of(trace)
        keep = np.isfinite(value)
        return trace.time_s[keep], value[keep]

    def power(self) -> tuple[FloatArray, FloatArray]:
        """Times [s] and power [W]; of a counter, between its ticks."""
        time_s, value = self.good()
        if isinstance(self.trace, PowerTrace):
            return time_s, value
        ticks = np.concatenate([[True], np.diff(value) != 0])[: len(value)]
        time_s, value = time_s[ticks], value[ticks]
        # Of two updates that a late reader saw close together, each holds a period's energy.
        step_s = np.maximum(np.diff(time_s), self.trace.domain.update_period_s or 1e-9)
        return time_s[1:], np.diff(value) / step_s


MeterCheck = Callable[[_Watched], Iterator[tuple[str, Severity, str]]]


def check_meters(point: PointFacts) -> Iterator[Finding]:
    """Findings about the traces of a point's runs, each code once per domain."""
    seen: set[tuple[str, str | None]] = set()
    for run in point.runs:
        used = {d.domain.name for d in run.domains if d.used}
        for trace in run.raw.traces:
            if trace.domain.name not in used or run.raw.status == "interrupted":
                continue
            if trace.domain.kind == "nameplate":  # no sensor, so nothing to check
                continue
            watched = _Watched(raw=run.raw, trace=trace, limit_watts=power_limit_watts(run.raw))
            for check in METER_CHECKS:
                for code, severity, message in check(watched):
                    # A device's power says again what its counter said already.
                    said = {(code, trace.domain.name), (code, trace.domain.parent)}
                    if not said & seen:
                        seen.add((code, trace.domain.name))
                        text = f"{trace.domain.name}: {message}"
                        yield Finding(code=code, severity=severity, scope="energy", message=text)


def _gap_limit_s(watched: _Watched) -> float:
    return max(MAX_GAP_S, 3 * (watched.trace.domain.update_period_s or 0.0))


def _zero(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``zero_reading``: failed reads came as 0; they are left out, not integrated."""
    count = int(zero_reads(watched.trace).sum())
    if count:
        yield "zero_reading", "warning", f"{count} reads say exactly 0; they are left out."


def _negative(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``negative_reading``: reads below zero are left out."""
    count = int(negative_reads(watched.trace).sum())
    if count:
        yield "negative_reading", "warning", f"{count} reads are below 0; they are left out."


def _dropout(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``dropout``: many reads gave nothing, though never for long."""
    missing = np.isnan(values_of(watched.trace))
    if not missing.any():
        return
    time_s = watched.trace.time_s
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]]).astype(int)))
    long = np.zeros(len(missing), bool)
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        stretch_s = time_s[min(end, len(time_s) - 1)] - time_s[max(0, start - 1)]
        long[start:end] = stretch_s > 1.0
    lost = missing & ~long
    share = lost.sum() / max(1, (~long).sum())
    if share > LOST_FRACTION:
        yield "dropout", "warning", f"{share:.0%} of the reads gave nothing."


def _gap(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``gap``: nothing for longer than energy can be told, and then again something."""
    time_s, _ = watched.good()
    gaps_s = np.diff(time_s)
    if len(gaps_s) and gaps_s.max() > _gap_limit_s(watched):
        yield "gap", "error", f"no reading for {gaps_s.max():.1f} s."


def _missing(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``missing_device``: a device stopped reporting though its meter went on."""
    events = {event.kind for event in watched.raw.events}
    time_s, _ = watched.good()
    if "meter_failed" in events or not len(watched.trace.time_s):
        return
    ends_s = watched.trace.time_s[-1]
    last_s = time_s[-1] if len(time_s) else watched.trace.time_s[0]
    if ends_s - last_s > _gap_limit_s(watched):
        message = f"it is not reported from {last_s:.1f} s of the run on, others are."
        yield "missing_device", "error", message


def _stale(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``stale_counter``: readings stand still while the machine works."""
    time_s, value = watched.good()
    if len(time_s) < 3:
        return
    limit_s = max(FROZEN_S, 5 * (watched.trace.domain.update_period_s or 0.0))
    changed = np.concatenate([[True], np.diff(value) != 0])
    moved_s = time_s[changed]
    stand_s = np.diff(np.concatenate([moved_s, time_s[-1:]]))
    # Power of an idle machine may stand, and so may power at a limit; only what stands under load
    # without either, and without a counter that would show it, is stuck.
    if isinstance(watched.trace, PowerTrace):
        events = {event.kind for event in watched.raw.events}
        if watched.trace.domain.parent is not None or "throttled" in events:
            return
        stand_s = np.where(_under_load(watched, moved_s), stand_s, 0.0)
        limit_s = np.inf if _coarse_quantum(watched) else max(2.5, limit_s)
    gaps = np.diff(time_s).max() > _gap_limit_s(watched)
    if stand_s.max() > limit_s and not gaps:
        yield "stale_counter", "error", f"it shows one value for {stand_s.max():.1f} s."


def _under_load(watched: _Watched, time_s: FloatArray) -> FloatArray:
    """Whether requests were under way at instants of the run."""
    sent = np.sort([r.sent_s for r in watched.raw.requests])
    end = np.sort([r.end_s for r in watched.raw.requests])
    begun = np.searchsorted(sent, time_s, "right")
    return np.asarray(begun > np.searchsorted(end, time_s, "right"))


def _restart(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``counter_wrap``, ``counter_reset``: a counter began again, with or without a known range."""
    if not isinstance(watched.trace, CounterTrace):
        return
    _, value = watched.good()
    if not (np.diff(value) < 0).any():
        return
    try:
        cumulative(cleaned(watched.trace))
    except InsufficientCoverage as error:
        if error.reason == "counter_reset":
            yield "counter_reset", "error", "it fell back and nothing tells by how much."
        return
    yield "counter_wrap", "info", "it went round its range; that is accounted for."


def _spike(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``spike``: power that the machine cannot draw."""
    if watched.limit_watts is None:
        return
    time_s, watts = watched.power()
    quantum = _coarse_quantum(watched)
    if quantum is not None and isinstance(watched.trace, CounterTrace):
        # A coarse counter jumps by its step, however little power that was.
        watts = watts[1:] - quantum / np.maximum(np.diff(time_s), 1e-9)
    high = watts[watts > SPIKE_RATIO * watched.limit_watts]
    if len(high):
        message = f"{len(high)} reads up to {high.max():.0f} W, limit {watched.limit_watts:.0f} W."
        yield "spike", "error", message


def _coarse(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``quantised``: the sensor's steps are too coarse for the load."""
    quantum = _coarse_quantum(watched)
    if quantum is not None:
        unit = "W" if isinstance(watched.trace, PowerTrace) else "J"
        yield "quantised", "warning", f"it moves in steps of {quantum:.3g} {unit}."


def _coarse_quantum(watched: _Watched) -> float | None:
    """Step of the values, if all are multiples of one that is large beside the power."""
    _, value = watched.good()
    _, watts = watched.power()
    levels = np.unique(value)
    steps = np.diff(levels)
    steps = steps[steps > 1e-6]
    busy = watts[watts > 0]
    if not len(steps) or not len(busy):
        return None
    # The smallest step, made precise over the whole range: an exporter rounds each value.
    if isinstance(watched.trace, CounterTrace) and _steady_steps(watched, float(steps.min())):
        return None
    count = np.round((levels[-1] - levels[0]) / steps.min())
    quantum = float((levels[-1] - levels[0]) / count)
    off = np.abs((value - levels[0]) / quantum - np.round((value - levels[0]) / quantum))
    coarse = quantum > QUANTUM_FRACTION * float(np.median(busy))
    return quantum if coarse and np.mean(off < 1e-3) > 0.99 else None


def _steady_steps(watched: _Watched, quantum_joules: float) -> bool:
    """Whether a counter moves by one and the same step at every update: that is steady power."""
    time_s, value = watched.good()
    ticks = np.concatenate([[True], np.diff(value) != 0])
    spacing_s, steps = np.diff(time_s[ticks]), np.diff(value[ticks])
    regular = bool(np.std(spacing_s) < 0.15 * spacing_s.mean())
    return regular and bool(np.mean(steps < 1.5 * quantum_joules) > 0.9)


def _lag(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``meter_lag``: power follows the load late, so a window catches the wrong part of it."""
    delay_s = _onset_delay_s(watched)
    domain = watched.trace.domain
    known_s = (domain.averaging_window_s or 0.0) / 2 + 2 * (domain.update_period_s or 0.0)
    if delay_s is not None and delay_s > LAG_S + known_s:
        yield "meter_lag", "error", f"power follows the load {delay_s:.1f} s late."


def _onset_delay_s(watched: _Watched) -> float | None:
    """Time from the first request to the power's rise out of idle; None if it cannot be told."""
    if not watched.raw.requests:
        return None
    begun_s = min(r.sent_s for r in watched.raw.requests)
    first_end_s = max(r.end_s for r in watched.raw.requests)
    time_s, watts = watched.power()
    before = watts[(time_s > begun_s - 2.0) & (time_s <= begun_s)]
    busy = watts[(time_s > begun_s) & (time_s <= first_end_s)]
    if len(before) < 3 or len(busy) < 3:
        return None
    idle, level = float(np.median(before)), float(np.quantile(busy, 0.7))
    if level < 1.3 * idle or np.ptp(before) > 0.3 * (level - idle):
        return None
    risen = time_s[(time_s > begun_s) & (watts > (idle + level) / 2)]
    return float(risen[0] - begun_s) if len(risen) else None


def _skew(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``clock_skew``: the sensor's clock is not ours."""
    for event in watched.raw.events:
        if event.kind == "sensor_clock" and event.detail.get("domain") == watched.name:
            offset_s = float(str(event.detail["offset_s"]))
            if abs(offset_s) > SKEW_S:
                yield "clock_skew", "error", f"its clock is {offset_s:+.2f} s off."
                return


def _throttled(watched: _Watched) -> Iterator[tuple[str, Severity, str]]:
    """``throttled``: the machine was held back by a power or thermal limit."""
    events = [e for e in watched.raw.events if e.kind == "throttled"]
    if events:
        message = f"clocks were held back from {events[0].time_s:.1f} s of the run on."
        yield "throttled", "warning", message


METER_CHECKS: tuple[MeterCheck, ...] = (
    _zero,
    _negative,
    _dropout,
    _gap,
    _missing,
    _stale,
    _restart,
    _spike,
    _coarse,
    _lag,
    _skew,
    _throttled,
)
