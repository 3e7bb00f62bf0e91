"""``wattbench energy``: joules of a window from a log of power or of an energy counter."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click
import numpy as np

from wattbench.cli.log_options import (
    boundary_option,
    clocked_log_options,
    instant,
    log_options,
    prior_options,
    read_channels,
)
from wattbench.cli.options import FiniteRange, json_option
from wattbench.core.energy import (
    CounterTrace,
    EnergyDomain,
    EnergyMeasurement,
    FloatArray,
    PowerTrace,
    Trace,
    trace_of,
)
from wattbench.core.errors import InsufficientCoverage, UsageError, WattbenchError
from wattbench.core.result import Finding, Severity
from wattbench.energy import measure
from wattbench.energy.integrate import MAX_GAP_S
from wattbench.energy.sensors import minimum_window_s
from wattbench.energy.uncertainty import budget
from wattbench.interchange import LoggedChannel, choose
from wattbench.stats import additive_interval

FROZEN_RATIO = 20
"""A value that stands this many times as long as values do, and above 3 s, is stuck."""
MIN_CHANGES = 10
"""Changes of a power log from which it shows how long values stand."""
SPIKE_RATIO = 4
"""A power this many times all others near it, and most of the log, may be a misreading."""
AVERAGES_PER_WINDOW = 3
"""Fewest trailing averages that a window must hold."""
_OF_FORMAT = (
    "boundary",
    "averaging_window_s",
    "coverage_fraction",
    "gain_half_width_fraction",
    "offset_half_width_watts",
)
"""Options that the format fills in where they are not given."""
_POSITIVE = FiniteRange(min=0, min_open=True)


@click.command(name="energy")
@log_options(
    "Log; as csv with a header and the columns time_s and power_watts or energy_joules.",
    "Which program wrote the log.",
)
@clocked_log_options
@click.option(
    "--start",
    "start_s",
    callback=instant,
    required=True,
    help="Window start, log's clock [s]; or a date and time.",
)
@click.option(
    "--end",
    "end_s",
    callback=instant,
    required=True,
    help="Window end, log's clock [s]; or a date and time.",
)
@click.option(
    "--hold", is_flag=True, help="A power stands until the next sample. [default: linear]"
)
@click.option("--update-period-s", type=_POSITIVE, help="Time between two updates of the sensor.")
@click.option("--averaging-window-s", type=_POSITIVE, help="A power is the mean over this long.")
@click.option(
    "--coverage-fraction",
    type=FiniteRange(0, 1, min_open=True),
    help="Share of each update period that the sensor looks at.  [default: the format's; csv: 1]",
)
@click.option("--load-period-s", type=_POSITIVE, help="Period of the load, if it has one.")
@click.option("--wrap-joules", type=_POSITIVE, help="Range of a counter that wraps.")
@prior_options("the format's; csv: 0")
@boundary_option("the format's")
@click.option("--require-valid", "must_be_valid", is_flag=True, help="Exit with 1 if in doubt.")
@json_option
def command(as_json: bool, must_be_valid: bool, **options: Any) -> None:
    """Integrate a log of power, or read an energy counter's log, over a window.

    Power is linear between samples. Nothing is repaired: a log that does not carry the energy of
    the window gives no value, and says why. The interval holds the priors that are given, and
    what the samples leave open.

    No value: no_samples, not_bracketed, gap, counter_reset, time_backwards, failed_read,
    negative_reading, zero_reading (all of them), stale_sensor or stale_counter (one value stands
    for too long). Doubt: zero_reading (some), spike, window_too_short. To know: boundary_unknown,
    no_prior.
    """
    start_s, end_s = options["start_s"], options["end_s"]
    if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s < end_s):
        raise UsageError(f"--start {start_s:g} --end {end_s:g}: the end must come after the start")
    log = choose(read_channels(options), options["column"], options["device"])
    if options["hold"] and log.quantity != "power":
        raise UsageError(f"--hold is for power; column {log.column} of {log.path} is a counter")
    options |= {key: getattr(log, key) for key in _OF_FORMAT if options[key] is None}
    result = _result(_trace(log, options), options) | {"column": log.column}
    click.echo(json.dumps(result, allow_nan=False) if as_json else _text(result))
    doubts = [f["code"] for f in result["findings"] if f["severity"] != "info"]
    if must_be_valid and doubts:
        raise WattbenchError(f"--require-valid: {', '.join(doubts)}")


def _trace(log: LoggedChannel, options: dict[str, Any]) -> Trace:
    domain = EnergyDomain(
        name=f"{log.path.name}: {log.column}",
        meter="log",
        quantity=log.quantity,
        kind="integrated" if log.quantity == "power" else "counter",
        # Of a single trace nothing is added, so what stands in for an unknown one is not used.
        boundary=options["boundary"] or "node",
        devices=(log.device,),
        method=f"column {log.column} of a log",
        interpolation="hold" if options["hold"] else "linear",
        update_period_s=options["update_period_s"],
        averaging_window_s=options["averaging_window_s"],
        coverage_fraction=options["coverage_fraction"],
        wrap_joules=options["wrap_joules"],
        gain_half_width_fraction=options["gain_half_width_fraction"],
        offset_half_width_watts=options["offset_half_width_watts"],
    )
    return trace_of(domain, log.time_s, log.value)


def _result(trace: Trace, options: dict[str, Any]) -> dict[str, Any]:
    """The object that is printed."""
    start_s, end_s = options["start_s"], options["end_s"]
    findings = list(_spoilt(trace, start_s, end_s))
    energy = None
    if not any(f.code == "time_backwards" for f in findings):
        try:
            energy = measure(trace, start_s, end_s, load_period_s=options["load_period_s"])
        except InsufficientCoverage as error:
            findings.append(_doubt(error.reason, "error", f"No energy: {error}."))
    if any(f.severity == "error" for f in findings):
        energy = None
    findings += _remarks(trace.domain, options, end_s - start_s)
    order: list[Severity] = ["error", "warning", "info"]
    findings.sort(key=lambda finding: order.index(finding.severity))
    return {
        "energy_joules": _estimate(energy),
        "mean_power_watts": energy and energy.energy_joules / energy.duration_s,
        "duration_s": end_s - start_s,
        "kind": trace.domain.kind,
        "boundary": options["boundary"],
        "budget": [
            {"name": t.name, "distribution": t.distribution, "standard_joules": t.standard_joules}
            for t in (budget(energy) if energy else ())
        ],
        "findings": [
            {"code": f.code, "severity": f.severity, "message": f.message} for f in findings
        ],
    }


def _estimate(energy: EnergyMeasurement | None) -> dict[str, float | None]:
    if energy is None:
        return {"value": None, "low": None, "high": None}
    low, high = additive_interval(
        energy.energy_joules,
        uniform_half_widths=energy.uniform_half_widths_joules,
        normal_sd=energy.edge_joules,
    )
    return {"value": energy.energy_joules, "low": max(0.0, low), "high": high}


def _doubt(code: str, severity: Severity, message: str) -> Finding:
    return Finding(code=code, severity=severity, scope="energy", message=message)


def _spoilt(trace: Trace, start_s: float, end_s: float) -> Iterator[Finding]:
    """What is wrong with the samples between which the window lies."""
    backwards = np.flatnonzero(np.diff(trace.time_s) < 0)
    if len(backwards):
        before_s = trace.time_s[backwards[0]]
        message = f"The time goes back after {before_s:.3f} s; the order of samples is not known."
        yield _doubt("time_backwards", "error", message)
        return
    inside = _between(trace, start_s, end_s)
    value = inside.power_watts if isinstance(inside, PowerTrace) else inside.energy_joules
    failed = int((~np.isfinite(value)).sum())
    if failed:
        message = f"{failed} of {len(value)} samples have no value."
        yield _doubt("failed_read", "error", message)
    negative = int((value < 0).sum())
    if negative:
        yield _doubt("negative_reading", "error", f"{negative} samples are below 0.")
    zeros = int((value == 0).sum())
    if zeros and zeros == len(value) - failed:
        message = "Every sample is exactly 0: the sensor is dead, or nothing is connected to it."
        yield _doubt("zero_reading", "error", message)
    elif zeros and isinstance(trace, PowerTrace):
        message = f"{zeros} of {len(value)} samples are exactly 0; they count as they are."
        yield _doubt("zero_reading", "warning", message)
    high_watts = _spike_watts(trace, start_s, end_s)
    if high_watts is not None:
        message = f"{high_watts:.4g} W stands alone among much lower powers; it counts as it is."
        yield _doubt("spike", "warning", message)
    stale_s = _stale_s(trace, start_s, end_s)
    if stale_s is not None:
        code = "stale_sensor" if isinstance(trace, PowerTrace) else "stale_counter"
        yield _doubt(code, "error", f"It shows one value for {stale_s:.1f} s.")


def _between(trace: Trace, start_s: float, end_s: float) -> Trace:
    """The samples inside a window and the nearest one on either side."""
    first = max(0, int(np.searchsorted(trace.time_s, start_s, side="right")) - 1)
    last = int(np.searchsorted(trace.time_s, end_s, side="left")) + 1
    time_s = trace.time_s[first:last]
    if isinstance(trace, PowerTrace):
        return replace(trace, time_s=time_s, power_watts=trace.power_watts[first:last])
    return replace(trace, time_s=time_s, energy_joules=trace.energy_joules[first:last])


def _stale_s(trace: Trace, start_s: float, end_s: float) -> float | None:
    """How long a value stands that should not, in or into a window [s]; None if none does.

    A counter must move. A power may stand where it is lowest (idle), and in a log whose power
    moves in straight lines, as a made one does; a sensor that flickers does not stop of itself.
    """
    counter = isinstance(trace, CounterTrace)
    value = trace.energy_joules if isinstance(trace, CounterTrace) else trace.power_watts
    good = np.isfinite(value)
    time_s, value = trace.time_s[good], value[good]
    if len(value) < 2 or (not counter and not value.any()):
        return None
    starts = np.flatnonzero(np.concatenate([[True], np.diff(value) != 0]))
    ends_s = np.append(time_s[starts[1:] - 1], time_s[-1])
    within = (ends_s > start_s) & (time_s[starts] < end_s)
    stand_s = np.where(within, ends_s - time_s[starts], 0.0)
    limit_s = max(MAX_GAP_S, 3 * (trace.domain.update_period_s or 0.0))
    if not counter:
        levels = value[starts]
        if len(starts) <= MIN_CHANGES or not _flickers(levels):
            return None
        spacing_s = float(np.median(np.diff(time_s[starts])))
        limit_s = max(limit_s, FROZEN_RATIO * spacing_s)
        stand_s = np.where(levels > levels.min() + 0.1 * np.ptp(levels), stand_s, 0.0)
    longest_s = float(stand_s.max())
    return longest_s if longest_s > limit_s else None


def _spike_watts(trace: Trace, start_s: float, end_s: float) -> float | None:
    """The highest power of a window that stands alone [W], None if there is none."""
    value = trace.energy_joules if isinstance(trace, CounterTrace) else trace.power_watts
    good = np.isfinite(value)
    time_s, watts = trace.time_s[good], value[good]
    if isinstance(trace, CounterTrace):
        ticks = np.concatenate([[True], np.diff(watts) != 0])[: len(watts)]
        time_s, watts = time_s[ticks], watts[ticks]
        watts = np.diff(watts) / np.maximum(np.diff(time_s), 1e-9)
        time_s = time_s[1:]
    if len(watts) < MIN_CHANGES:
        return None
    padded = np.pad(watts, 2)
    near = np.max([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]], axis=0)
    usual = np.maximum(near, np.quantile(watts, 0.9))
    alone = (watts > SPIKE_RATIO * usual) & (time_s >= start_s) & (time_s <= end_s) & (usual > 0)
    return float(watts[alone].max()) if alone.any() else None


def _flickers(levels_watts: FloatArray) -> bool:
    """Whether a power bends at most of its values."""
    bends = np.abs(np.diff(levels_watts, 2))
    return bool(np.mean(bends > 1e-6 * np.ptp(levels_watts)) > 0.5)


def _remarks(domain: EnergyDomain, options: dict[str, Any], length_s: float) -> Iterator[Finding]:
    """What a reader must know about a value that is there."""
    if options["boundary"] is None:
        message = "Nobody said what the meter includes; name it with --boundary."
        yield _doubt("boundary_unknown", "info", message)
    if not (domain.gain_half_width_fraction or domain.offset_half_width_watts):
        message = (
            "No prior on gain or offset is given: the interval holds what the samples leave open, "
            "not how right the meter is."
        )
        yield _doubt("no_prior", "info", message)
    needed_s = minimum_window_s(domain.update_period_s)
    blurred_s = AVERAGES_PER_WINDOW * (domain.averaging_window_s or 0.0)
    if length_s < blurred_s:
        message = f"The window of {length_s:.3g} s holds less than three averages of the sensor."
        yield _doubt("window_too_short", "warning", message)
    elif length_s < needed_s:
        message = f"The window of {length_s:.3g} s is below the {needed_s:.3g} s that is advised."
        yield _doubt("window_too_short", "info", message)


def _text(result: dict[str, Any]) -> str:
    """The same for a reader."""
    energy, boundary = result["energy_joules"], result["boundary"] or "unknown"
    about = f"{result['kind']}, boundary {boundary}, {result['duration_s']:.6g} s"
    if energy["value"] is None:
        lines = [f"no energy  ({about})"]
    else:
        span = f"{energy['low']:.6g} … {energy['high']:.6g}"
        mean = f"mean {result['mean_power_watts']:.5g} W"
        lines = [f"{energy['value']:.6g} J  95 % {span}  ({about}, {mean})"]
    marks = {"error": "✗", "warning": "!", "info": "i"}
    lines += [f" {marks[f['severity']]} {f['code']}: {f['message']}" for f in result["findings"]]
    return "\n".join(lines)
