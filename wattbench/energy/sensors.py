"""What a sensor is like: found out from its own readings, and known beforehand of NVML's.

Characterising. A sensor shows its update period by how long its values stand, and its quantum by
the steps between them. A trailing mean over a window of several updates shows by its answer to a
change of load: it climbs evenly for as long as its window, so it takes 0.8 of it from 10 to 90 %. A
sensor that takes a third of its whole range in one update has no such mean; one whose readings do
neither does not tell.

Priors of NVML's board power, by field and family:

    field      GA100, Hopper and later   GA10x, Ada, Turing     Volta, Pascal   Kepler, Maxwell
    instant    25 of each 100 ms         all of each 100 ms     10 of 20 ms     filtered, ≈ 0.3 s
    average    mean over 1 s             mean over 1 s          none            none
    draw       GA100: as instant         as average, or instant as instant      as instant
               Hopper: as average        on Turing and drivers 530

Gain and offset. Readings of 17 cards against an external meter lie on straight lines of gain 0.94
to 1.18 and offset −10 … +6 W; a wider survey has gains of 0.873 … 1.181 (median 0.994) and offsets
of −24 … +16 W, partly making up for each other. Uniform terms of ± 7 % and ± 8 W hold every one of
the 17 but a 40-W card at its lowest loads; the four Pascal cards lie within NVIDIA's own statement,
± 5 % and ± 5 W.

Sources: Yang, Adamek, Armour, *Part-time Power Measurements*, SC'24, arXiv 2312.02741, and its
result table (github.com/JimZeyuYang/GPU_Power_Benchmark); NVML API reference,
``nvmlDeviceGetPowerUsage``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wattbench.core.energy import (
    EnergyDomain,
    EnergyMeasurement,
    FloatArray,
    PowerTrace,
    Trace,
)
from wattbench.energy.cleaning import values_of
from wattbench.energy.integrate import measure
from wattbench.energy.readings import polling, power_updates, usable

NvmlField = Literal["draw", "average", "instant"]
Family = Literal["quarter", "full", "half", "filtered"]

MIN_WINDOW_S = 10.0
"""Shortest window whose energy is taken at face value [s]."""
EDGE_FRACTION = 0.005
"""Error at the window's edges that is tolerated, relative to its energy."""
RAW_EDGE_RATIO = 1 / 2.45
"""RMS error of two raw edges over T / W: √2 · T / √12 is T / √6."""
STEP_FRACTION = 0.3
"""Share of the whole range that one update takes at once, if it is no long mean."""
RISE_SHARE = 0.8
"""Time from 10 to 90 % of the answer of a trailing mean to a step, over its window."""
MIN_RISE_LOOKS = 4.0
"""Updates from 10 to 90 % below which a slow answer may be the load's own."""
LONG_MEAN_S = 1.0
"""Window of NVML's average field [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorBehaviour:
    """How a sensor behaves, as its own trace tells. None: the trace does not tell.

    Attributes:
        poll_period_s: Median time between two reads [s].
        update_period_s: Time between two updates [s]; None if every read was new (then it is at
            most the poll period), or if no value changed.
        duplicates_fraction: Share of reads that repeat the read before.
        quantum_watts: Step of a power reading [W]; None for a counter or without steps.
        quantum_joules: Step of a counter [J]; None for power or without steps.
        averaging_window_s: Trailing window over several updates of which a power reading is the
            mean [s]; 0 if there is none.
    """

    poll_period_s: float
    update_period_s: float | None
    duplicates_fraction: float
    quantum_watts: float | None
    quantum_joules: float | None
    averaging_window_s: float | None


def characterise(trace: Trace) -> SensorBehaviour:
    """Find out from a trace how its sensor behaves."""
    domain = replace(trace.domain, update_period_s=None)
    bare = replace(trace, domain=domain)
    polled = polling(bare)
    stamped = domain.stamped_by == "sensor" and len(trace.time_s) > 1
    update_s = polled.poll_period_s if stamped else polled.update_period_s
    quantum = _quantum(values_of(usable(trace)))
    power = isinstance(bare, PowerTrace)
    window_s = _long_mean_s(power_updates(bare, polled)) if isinstance(bare, PowerTrace) else None
    return SensorBehaviour(
        poll_period_s=polled.poll_period_s,
        update_period_s=update_s,
        duplicates_fraction=polled.duplicates_fraction,
        quantum_watts=quantum if power else None,
        quantum_joules=None if power else quantum,
        averaging_window_s=window_s,
    )


def _quantum(value: FloatArray) -> float | None:
    """Greatest common step of the values, in millionths of their unit; None if there is none."""
    levels = np.unique(value)
    if len(levels) < 3:
        return None
    steps = np.round(np.diff(levels) * 1e6).astype(np.int64)
    common = int(np.gcd.reduce(steps))
    return common / 1e6 if common >= 10 else None


def _long_mean_s(looks: PowerTrace) -> float | None:
    """Trailing window of several updates [s]; 0 if there is none, None if it does not show."""
    looks_watts = looks.power_watts
    if len(looks_watts) < 30:
        return None
    steps = np.diff(looks_watts)
    swing = float(np.ptp(looks_watts))
    if swing <= 0.02 * float(np.abs(looks_watts).mean()):
        return None
    if np.abs(steps).max() >= STEP_FRACTION * swing:
        return 0.0
    rises = [r for i in _crossings(looks_watts) if (r := _rise_looks(looks_watts, i)) is not None]
    if not rises or np.median(rises) < MIN_RISE_LOOKS:
        return None
    return float(np.median(rises)) / RISE_SHARE * float(np.median(np.diff(looks.time_s)))


def _crossings(looks_watts: FloatArray) -> list[int]:
    """Where the readings cross the middle of their range."""
    above = looks_watts > (looks_watts.min() + looks_watts.max()) / 2
    return (np.flatnonzero(np.diff(above.astype(int))) + 1).tolist()


def _rise_looks(looks_watts: FloatArray, crossing: int) -> float | None:
    """Updates from 10 to 90 % of a change between two settled levels; None if they are not."""
    before = looks_watts[max(0, crossing - 25) : max(0, crossing - 10)]
    after = looks_watts[crossing + 10 : crossing + 25]
    if len(before) < 5 or len(after) < 5:
        return None
    low, high = float(np.median(before)), float(np.median(after))
    height = high - low
    wobble = max(float(np.ptp(before)), float(np.ptp(after)))
    if abs(height) < np.ptp(looks_watts) / 2 or wobble > 0.1 * abs(height):
        return None
    share = (looks_watts[crossing - 10 : crossing + 10] - low) / height
    begun = np.flatnonzero(share < 0.1)
    done = np.flatnonzero(share > 0.9)
    if not len(begun) or not len(done) or done[0] <= begun[-1]:
        return None
    tenth = begun[-1] + (0.1 - share[begun[-1]]) / (share[begun[-1] + 1] - share[begun[-1]])
    ninth = done[0] - (share[done[0]] - 0.9) / (share[done[0]] - share[done[0] - 1])
    return float(ninth - tenth)


def minimum_window_s(update_period_s: float | None) -> float:
    """Shortest window whose raw edges cost at most half a per cent [s].

        W ≥ max(10 s, T / (2.45 · 0.5 %))

    Args:
        update_period_s: Time between two updates of the sensor [s]; None if unknown.
    """
    return max(MIN_WINDOW_S, (update_period_s or 0.0) * RAW_EDGE_RATIO / EDGE_FRACTION)


_FAMILIES: tuple[tuple[Family, str], ...] = (
    ("filtered", r"\b(K20|K40|K80|GTX TITAN|GTX [79]\d\d)"),
    ("half", r"\b(P100|P40|P4|P6|P[456]000|GTX 10\d\d|TITAN X|V100|TITAN V|GV100|M40|M60|M4)\b"),
    ("quarter", r"\b(A100|A30|A800|H100|H200|H800|H20|GH200|B[123]00|GB[123]00)"),
    ("full", r"\b(RTX|GTX 16\d\d|T4|T[46]00|T1000|A10|A10G|A16|A2|A40|L4|L40|L40S|L20|L2)\b"),
)
_PASCAL = r"\b(P100|P40|P4|P6|P[456]000|GTX 10\d\d|TITAN X \(Pascal\)|TITAN Xp)"
_GA100 = r"\b(A100|A30|A800)"


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmlPrior:
    """What is known of a driver field before a reading of it.

    Attributes:
        update_period_s: Time between two updates [s]; None if unknown.
        averaging_window_s: Trailing mean [s]; None if it may be long or short.
        coverage_fraction: Share of each update period looked at; None if unknown.
        gain_half_width_fraction: Uniform half-width of true/read − 1.
        offset_half_width_watts: Uniform half-width of true − read [W].
    """

    update_period_s: float | None
    averaging_window_s: float | None
    coverage_fraction: float | None
    gain_half_width_fraction: float = 0.07
    offset_half_width_watts: float = 8.0


def nvml_family(card: str | None, update_period_s: float | None = None) -> Family | None:
    """Which way a card's sensor looks at power, by its name, else by a short update period."""
    name = card or ""
    for family, pattern in _FAMILIES:
        if re.search(pattern, name, re.IGNORECASE):
            return family
    return "half" if update_period_s is not None and update_period_s < 0.05 else None


def nvml_prior(
    field: NvmlField, card: str | None = None, update_period_s: float | None = None
) -> NvmlPrior:
    """Prior of one of NVML's power fields.

    Args:
        field: ``draw`` is ``nvmlDeviceGetPowerUsage``; the others are field values 185 and 186.
        card: Product name as the driver tells it; None if unknown.
        update_period_s: As found out from readings [s]; None if unknown.
    """
    family, name = nvml_family(card, update_period_s), card or ""
    pascal = re.search(_PASCAL, name, re.IGNORECASE) is not None
    ga100 = re.search(_GA100, name, re.IGNORECASE) is not None
    long_mean = field == "average" or (field == "draw" and family == "quarter" and not ga100)
    either = field == "draw" and family in ("full", None)
    known: dict[Family | None, tuple[float | None, float | None, float | None]] = {
        "quarter": (0.1, 0.025, 0.25),
        "full": (0.1, 0.1, 1.0),
        "half": (0.02, 0.01, 0.5),
        "filtered": (None, 0.3, 1.0),
        None: (None, (update_period_s or 0.1) / 2, None),
    }
    period_s, window_s, coverage_fraction = known[family]
    if long_mean and family != "half":
        # Whether a mean over 1 s is one of quarters or of everything is not published.
        window_s = LONG_MEAN_S
        coverage_fraction = None if family == "quarter" else coverage_fraction
    return NvmlPrior(
        update_period_s=update_period_s or period_s,
        averaging_window_s=None if either else window_s,
        coverage_fraction=coverage_fraction,
        gain_half_width_fraction=0.05 if pascal else 0.07,
        offset_half_width_watts=5.0 if pascal else 8.0,
    )


def nvml_domains(
    trace: PowerTrace, field: NvmlField, card: str | None = None
) -> tuple[EnergyDomain, ...]:
    """A trace's domain with the prior of its field, once for every averaging window it may have.

    Args:
        trace: Readings of the field.
        field: Which field.
        card: Product name as the driver tells it; None if unknown.
    """
    seen = characterise(trace)
    prior = nvml_prior(field, card, seen.update_period_s)
    short_s = nvml_prior("instant", card, seen.update_period_s).averaging_window_s
    window_s, seen_s = prior.averaging_window_s, seen.averaging_window_s
    windows: tuple[float | None, ...] = (window_s,)
    if seen_s is not None and seen_s > LONG_MEAN_S / 2:
        windows = (LONG_MEAN_S,)
    elif window_s is None or field == "draw":
        windows = (short_s,) if seen_s == 0.0 else (window_s,)
        windows = windows if windows[0] is not None else (short_s, LONG_MEAN_S)
    return tuple(
        replace(
            trace.domain,
            update_period_s=prior.update_period_s,
            averaging_window_s=window,
            coverage_fraction=prior.coverage_fraction,
            gain_half_width_fraction=prior.gain_half_width_fraction,
            offset_half_width_watts=prior.offset_half_width_watts,
        )
        for window in windows
    )


def measure_nvml(
    trace: PowerTrace,
    field: NvmlField,
    start_s: float,
    end_s: float,
    *,
    card: str | None = None,
    load_period_s: float | None = None,
) -> EnergyMeasurement:
    """Energy of a board between two instants from one of NVML's power fields.

    Where neither the field's name nor its readings tell whether it is a mean over 1 s, the value
    is midway and half the difference a uniform term.

    Args:
        trace: Readings of the field; of its domain, what the prior does not know is kept.
        field: Which field.
        start_s: Window start [s, run clock].
        end_s: Window end [s, run clock].
        card: Product name as the driver tells it; None if unknown.
        load_period_s: Period of the load [s]; None if unknown.

    Raises:
        InsufficientCoverage: As ``measure``.
    """
    found = [
        measure(replace(trace, domain=domain), start_s, end_s, load_period_s=load_period_s)
        for domain in nvml_domains(trace, field, card)
    ]
    joules = [one.energy_joules for one in found]
    widest = max(found, key=lambda one: (one.coverage_half_width_joules, one.edge_joules))
    return replace(
        widest,
        energy_joules=(min(joules) + max(joules)) / 2,
        edge_joules=max(one.edge_joules for one in found),
        coverage_half_width_joules=float(
            np.hypot(widest.coverage_half_width_joules, (max(joules) - min(joules)) / 2)
        ),
    )
