"""``wattbench attach``: the log of another meter, put on the clock of stored runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np

from wattbench.cli.log_options import (
    boundary_option,
    clocked_log_options,
    log_options,
    prior_options,
    read_channels,
)
from wattbench.cli.options import FiniteRange, database_option, json_option
from wattbench.cli.stored import load_runs
from wattbench.core.energy import EnergyDomain, FloatArray, Trace, trace_of
from wattbench.core.errors import InsufficientCoverage, UsageError, WattbenchError
from wattbench.core.run import Event, Json, RawRun
from wattbench.energy import cleaned, cumulative, values_of
from wattbench.energy.alignment import Alignment, NotAligned, align
from wattbench.interchange import (
    LoggedChannel,
    Wishes,
    choose,
    disagreement_s,
    domains_of,
    logged_run_s,
    stretch,
)
from wattbench.store import add_traces, connect, database_url, show_url

MARGIN_S = 5.0
"""What a log has this long before and after a run goes into the store with it [s]."""
FROM_LOGS = ("attached", "external")
GRID_S = 0.05
"""Step at which the load of a run is looked at [s]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attachment:
    """What one run gets."""

    raw: RawRun
    traces: tuple[Trace, ...]
    alignment: Alignment | None
    covers_window: bool
    detail: dict[str, Json]


@click.command(name="attach")
@click.argument("selector", metavar="RUN")
@log_options("Log that another program wrote during the run.", "Which program wrote it.")
@click.option("--name", help="Name of the new domain.  [default: the channel's]")
@boundary_option("the format's, else node")
@clocked_log_options
@click.option(
    "--align",
    "how",
    type=click.Choice(["wall", "load"]),
    default="wall",
    show_default=True,
    help="By the stamps of both clocks, or by the load that both saw.",
)
@click.option(
    "--offset-s", type=float, default=0.0, help="Clock of the log minus clock of the run's host."
)
@click.option(
    "--clock-half-width-s",
    type=FiniteRange(min=0),
    help="How far the log's clock may be off.  [default: half its last digit and 0.05 s; with "
    "--align load what the load leaves open]",
)
@prior_options("the format's")
@click.option("--dry-run", is_flag=True, help="Say what would be added, and add nothing.")
@database_option
@json_option
def command(
    *, selector: str, database: str | None, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Add a log to RUN as a domain of its own: the id of a run or a batch, or latest.

    The samples are put on the run clock by the pairs of run clock and wall clock that the run
    kept. With --align load the offset of the log's clock is estimated from the load, within two
    minutes, and refused where it is not unique. Without --column and --device every channel of
    the log is added.
    """
    channels = _channels(options)
    url = database_url(database)
    runs = load_runs(url, selector)
    attachments = [_attachment(raw, channels, options) for raw in runs]
    if not dry_run:
        engine = connect(url, create=True)
        try:
            for one in attachments:
                event = Event(kind="log_attached", time_s=0.0, detail=one.detail)
                add_traces(engine, one.raw.record.run_id, one.traces, [event])
        finally:
            engine.dispose()
    shown = [_shown(one) for one in attachments]
    if as_json:
        found = {"schema_version": 1, "db": show_url(url), "dry_run": dry_run, "runs": shown}
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_text(run, dry_run) for run in shown))


def _channels(options: dict[str, Any]) -> list[LoggedChannel]:
    channels = read_channels(options)
    if options["column"] is not None or options["device"] is not None:
        channels = [choose(channels, options["column"], options["device"])]
    for channel in channels:
        if channel.time_base == "file" and options["how"] == "wall":
            raise UsageError(
                f"{channel.path}: its times are seconds of a clock of its own; write Unix seconds "
                f"in a column time_unix_s, or let --align load find the offset"
            )
        if (np.diff(channel.time_s) < 0).any():
            raise UsageError(f"{channel.path}: the times of {channel.column} go back")
    return channels


def _attachment(
    raw: RawRun, channels: Sequence[LoggedChannel], options: dict[str, Any]
) -> _Attachment:
    """What a run gets, refused if it cannot be put on its clock."""
    run_id = raw.record.run_id
    if raw.status == "running":
        raise UsageError(f"run {run_id} still goes on; attach the log when it has ended")
    anchors_s = _anchors_s(raw)
    times_s = [_base_s(channel, anchors_s, options["offset_s"]) for channel in channels]
    found = None
    if options["how"] == "load":
        found = _aligned(raw, channels[0], times_s[0])
        times_s = [time_s - found.offset_s for time_s in times_s]
    half_width_s = options["clock_half_width_s"]
    if half_width_s is None and found is not None:
        half_width_s = found.half_width_s
    wishes = Wishes(
        name=options["name"],
        boundary=options["boundary"],
        clock_half_width_s=half_width_s,
        gain_half_width_fraction=options["gain_half_width_fraction"],
        offset_half_width_watts=options["offset_half_width_watts"],
    )
    moved_s = 0.0 if options["how"] == "load" else disagreement_s(anchors_s)
    known = {trace.domain.name for trace in raw.traces}
    traces = []
    for channel, time_s, domain in zip(
        channels, times_s, domains_of(channels, wishes, "attached"), strict=True
    ):
        if domain.name in known:
            raise UsageError(
                f"run {run_id} has a domain {domain.name!r} already; name this one with --name"
            )
        wider = replace(
            domain,
            clock_half_width_s=domain.clock_half_width_s + moved_s,
            parent=domain.parent or _same_device(raw, domain),
        )
        traces.append(_cut(raw, trace_of(wider, time_s, channel.value)))
    detail: dict[str, Json] = {
        "file": options["path"].name,
        "format": options["log_format"],
        "domains": [trace.domain.name for trace in traces],
        "align": options["how"],
        "offset_s": options["offset_s"] + (found.offset_s if found else 0.0),
        "clock_half_width_s": traces[0].domain.clock_half_width_s,
    }
    return _Attachment(
        raw=raw,
        traces=tuple(traces),
        alignment=found,
        covers_window=_covers_window(raw, traces),
        detail=detail,
    )


def _same_device(raw: RawRun, domain: EnergyDomain) -> str | None:
    """The domain of the run that has this device already, so that it is charged once."""
    for trace in raw.traces:
        other = trace.domain
        if other.boundary == domain.boundary and any(map(other.covers, domain.devices)):
            return other.parent or other.name
    return None


def _beside(raw: RawRun, traces: Sequence[Trace]) -> list[str]:
    """Domains of the run whose energy will be added to the new one's, being of its boundary."""
    added = {trace.domain.boundary for trace in traces if trace.domain.parent is None}
    domains = [trace.domain for trace in raw.traces]
    return [d.name for d in domains if d.parent is None and d.boundary in added]


def _anchors_s(raw: RawRun) -> list[tuple[float, float]]:
    """Pairs of run clock [s] and wall clock [Unix s] that the run kept."""
    kept = [
        (event.time_s, float(str(event.detail["unix_s"])))
        for event in raw.events
        if event.kind == "clock_anchor"
    ]
    return kept or [(0.0, raw.record.started_unix_s)]


def _base_s(
    channel: LoggedChannel, anchors_s: Sequence[tuple[float, float]], offset_s: float
) -> FloatArray:
    """Times of a channel on the run clock [s]; of a clock of its own, as if it began with it."""
    if channel.time_base == "unix":
        return logged_run_s(channel, anchors_s, offset_s)
    return np.asarray(channel.time_s - channel.time_s[0] - offset_s, np.float64)


def _aligned(raw: RawRun, channel: LoggedChannel, time_s: FloatArray) -> Alignment:
    run_s, load = _load(raw)
    if channel.quantity == "power":
        log_s, watts = time_s, channel.value
    else:
        good = np.isfinite(channel.value)
        log_s, watts = _mean_power(time_s[good], channel.value[good])
    try:
        return align(log_s, watts, run_s, load)
    except NotAligned as error:
        raise WattbenchError(
            f"{channel.path}: the clock of the log cannot be found from the load of run "
            f"{raw.record.run_id} ({error.reason}): {error}; tell it with --offset-s"
        ) from error


def _load(raw: RawRun) -> tuple[FloatArray, FloatArray]:
    """What a run knows of its load: power where it was metered, else requests in flight."""
    # Another log may have a wrong clock of its own.
    for trace in (t for t in raw.traces if t.domain.meter not in FROM_LOGS):
        try:
            energy = cumulative(cleaned(trace))
        except InsufficientCoverage:
            continue
        span_s = float(energy.time_s[-1] - energy.time_s[0])
        edges_s = np.linspace(energy.time_s[0], energy.time_s[-1], max(2, int(span_s / GRID_S)))
        return _mean_power(edges_s, energy.at_joules(edges_s))
    sent_s = np.sort([r.sent_s for r in raw.requests])
    end_s = np.sort([r.end_s for r in raw.requests])
    time_s = np.arange(0.0, _end_s(raw), GRID_S)
    in_flight = np.searchsorted(sent_s, time_s, "right") - np.searchsorted(end_s, time_s, "right")
    return time_s, in_flight.astype(np.float64)


def _mean_power(time_s: FloatArray, energy_joules: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean power between instants at which the energy is known, at their middle [s, W]."""
    step_s = np.diff(time_s)
    moved = step_s > 0
    watts = np.diff(energy_joules)[moved] / step_s[moved]
    return ((time_s[1:] + time_s[:-1]) / 2)[moved], watts


def _end_s(raw: RawRun) -> float:
    """When the last thing happened that a run knows of [s, run clock]."""
    ends_s = [event.time_s for event in raw.events] + [r.end_s for r in raw.requests]
    return max(ends_s, default=0.0)


def _cut(raw: RawRun, trace: Trace) -> Trace:
    """The samples of the run and of a moment on either side."""
    time_s, end_s = trace.time_s, _end_s(raw)
    if not ((time_s >= 0.0) & (time_s <= end_s)).any():
        span = f"{time_s[0]:.1f} … {time_s[-1]:.1f} s" if len(time_s) else "nothing"
        raise UsageError(
            f"the log does not overlap run {raw.record.run_id}: on the run's clock it covers "
            f"{span}, the run 0 … {end_s:.1f} s; look at --utc-offset-hours and --offset-s"
        )
    inside = stretch(time_s, -MARGIN_S, end_s + MARGIN_S)
    return trace_of(trace.domain, time_s[inside], values_of(trace)[inside])


def _covers_window(raw: RawRun, traces: Sequence[Trace]) -> bool:
    start_s, end_s = raw.event_time_s("measure_start"), raw.event_time_s("measure_end")
    if start_s is None or end_s is None:
        return False
    return all(t.time_s[0] <= start_s and t.time_s[-1] >= end_s for t in traces)


def _shown(one: _Attachment) -> dict[str, Any]:
    found = one.alignment
    return {
        "run_id": one.raw.record.run_id,
        "domains": [
            {
                "domain": trace.domain.name,
                "quantity": trace.domain.quantity,
                "kind": trace.domain.kind,
                "boundary": trace.domain.boundary,
                "current": trace.domain.current,
                "samples": len(trace.time_s),
                "start_s": float(trace.time_s[0]),
                "end_s": float(trace.time_s[-1]),
                "clock_half_width_s": trace.domain.clock_half_width_s,
            }
            for trace in one.traces
        ],
        "offset_s": one.detail["offset_s"],
        "alignment": None
        if found is None
        else {
            "offset_s": found.offset_s,
            "half_width_s": found.half_width_s,
            "correlation": found.correlation_ratio,
        },
        "covers_window": one.covers_window,
        "added_to": _beside(one.raw, one.traces),
    }


def _text(run: dict[str, Any], dry_run: bool) -> str:
    lines = [f"{'would attach to' if dry_run else 'attached to'} {run['run_id']}"]
    for domain in run["domains"]:
        about = " ".join(filter(None, (domain["kind"], domain["boundary"], domain["current"])))
        lines.append(
            f"  {domain['domain']} ({about}): {domain['samples']} samples, "
            f"{domain['start_s']:.1f} … {domain['end_s']:.1f} s of the run, clock "
            f"± {domain['clock_half_width_s']:.2g} s"
        )
    if run["alignment"]:
        found = run["alignment"]
        lines.append(
            f"  clock of the log {found['offset_s']:+.2f} ± {found['half_width_s']:.2f} s by the "
            f"load (correlation {found['correlation']:.3f})"
        )
    if not run["covers_window"]:
        lines.append("  it does not cover the measurement window: there will be no energy")
    if run["added_to"]:
        lines.append(
            f"  of the boundary of {', '.join(run['added_to'])}: their joules will be added; if "
            f"both see the same device, choose one with --devices when you measure"
        )
    return "\n".join(lines)
