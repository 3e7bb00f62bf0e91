"""From a log to a domain of a run, and from its wall clock to the clock of the run.

A stamp says when a value was written, cut off at the last digit: half a digit is added. What is
then left in doubt is part of the interval of every energy (``EnergyDomain.clock_half_width_s``):

    half-width  =  half the last digit  +  0.05 s  +  what the format leaves open

with 0.05 s for two hosts whose clocks are held by NTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import Boundary, EnergyDomain, FloatArray
from wattbench.interchange.channel import LoggedChannel

NTP_HALF_WIDTH_S = 0.05
"""How far the clock of the log's host may be off [s], if nobody says better."""
USUAL_PERIOD_S = 1.0
"""A log that is written less often says so in its domain, so that it does not count as gaps [s]."""
MIN_SPAN_S = 1.0
"""Anchors nearer than this do not tell how fast the clocks go [s]."""


def run_times_s(time_unix_s: FloatArray, anchors_s: Sequence[tuple[float, float]]) -> FloatArray:
    """Instants on the run clock [s].

    Linear between two anchors; before the first and after the last the clocks go equally fast.

    Args:
        time_unix_s: Shape (n,) [Unix s].
        anchors_s: Pairs of run clock [s] and wall clock [Unix s]; one at least.
    """
    pairs = sorted(anchors_s, key=lambda pair: pair[1])
    run_s, unix_s = (np.array(column) for column in zip(*pairs, strict=True))
    if unix_s[-1] - unix_s[0] < MIN_SPAN_S:
        return np.asarray(time_unix_s - float(np.mean(unix_s - run_s)), np.float64)
    offset_s = np.interp(time_unix_s, unix_s, unix_s - run_s)
    return np.asarray(time_unix_s - offset_s, np.float64)


def disagreement_s(anchors_s: Sequence[tuple[float, float]]) -> float:
    """By how much the wall clock moved against the run clock from anchor to anchor [s]."""
    offsets_s = [unix_s - run_s for run_s, unix_s in anchors_s]
    return max(offsets_s) - min(offsets_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the user knows better than the format.

    Attributes:
        name: Name of the domain; of several channels, what stands before their own.
        boundary: What the values include.
        offset_s: Clock of the log minus wall clock of the run [s].
        clock_half_width_s: How far the log's clock may be off [s].
        gain_half_width_fraction: Prior on true/read − 1.
        offset_half_width_watts: Prior on true − read [W].
    """

    name: str | None = None
    boundary: Boundary | None = None
    offset_s: float = 0.0
    clock_half_width_s: float | None = None
    gain_half_width_fraction: float | None = None
    offset_half_width_watts: float | None = None


def domains_of(channels: Sequence[LoggedChannel], wishes: Wishes, meter: str) -> list[EnergyDomain]:
    """A domain for each channel; what a device tells in several ways is charged once."""
    names = [
        (wishes.name if len(channels) == 1 else f"{wishes.name}:{c.name}")
        if wishes.name
        else c.name
        for c in channels
    ]
    first: dict[str, str] = {}
    for channel, name in sorted(
        zip(channels, names, strict=True), key=lambda pair: pair[0].quantity
    ):
        first.setdefault(channel.device, name)
    return [
        _domain(channel, name, wishes, meter, first[channel.device])
        for channel, name in zip(channels, names, strict=True)
    ]


def _domain(
    channel: LoggedChannel, name: str, wishes: Wishes, meter: str, first: str
) -> EnergyDomain:
    def known(wish: float | None, given: float) -> float:
        return given if wish is None else wish

    boundary = wishes.boundary or channel.boundary or "node"
    half_width_s = channel.resolution_s / 2 + NTP_HALF_WIDTH_S + channel.late_s
    gaps_s = np.diff(channel.time_s)
    period_s = float(np.median(gaps_s)) if len(gaps_s) else 0.0
    return EnergyDomain(
        name=name,
        meter=meter,
        quantity=channel.quantity,
        kind="integrated" if channel.quantity == "power" else "counter",
        boundary=boundary,
        current=channel.current if boundary == channel.boundary else None,
        devices=(channel.device,),
        parent=None if name == first else first,
        method=f"{channel.sensor} ({channel.path.name})",
        update_period_s=period_s if period_s > USUAL_PERIOD_S else None,
        averaging_window_s=channel.averaging_window_s,
        coverage_fraction=channel.coverage_fraction,
        gain_half_width_fraction=known(
            wishes.gain_half_width_fraction, channel.gain_half_width_fraction
        ),
        offset_half_width_watts=known(
            wishes.offset_half_width_watts, channel.offset_half_width_watts
        ),
        clock_half_width_s=known(wishes.clock_half_width_s, half_width_s),
    )


def logged_run_s(
    channel: LoggedChannel, anchors_s: Sequence[tuple[float, float]], offset_s: float
) -> FloatArray:
    """Times of a channel on the run clock [s].

    Args:
        channel: A channel in Unix time.
        anchors_s: Pairs of run clock [s] and wall clock [Unix s].
        offset_s: Clock of the log minus wall clock of the run [s].
    """
    return run_times_s(channel.time_s + channel.resolution_s / 2 - offset_s, anchors_s)


def stretch(time_s: FloatArray, start_s: float, end_s: float) -> slice:
    """The samples from one before a start to one after an end."""
    first = max(0, int(np.searchsorted(time_s, start_s, side="right")) - 1)
    return slice(first, int(np.searchsorted(time_s, end_s, side="left")) + 1)
