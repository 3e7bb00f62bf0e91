"""``wattbench calibrate``: a wall meter as a line in what the devices' meters say."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import click
import numpy as np

from wattbench.cli.options import FiniteRange, database_option, json_option, runs_option
from wattbench.cli.stored import load_runs
from wattbench.core.energy import BOUNDARIES, EnergyDomain, EnergyMeasurement, Unmeasured
from wattbench.core.errors import UsageError
from wattbench.core.run import Event, RawRun
from wattbench.energy.calibration import Level, WallFit, fit_wall
from wattbench.metrics import RunFacts, run_facts
from wattbench.metrics.calibrated import EVENT
from wattbench.store import (
    StoredCalibration,
    connect,
    database_url,
    save_calibration,
    show_url,
)

DAY_S = 86_400.0
IDLE = "idle"


@click.command(name="calibrate")
@runs_option
@click.option("--wall", required=True, metavar="DOMAIN", help="The wall meter's domain.")
@click.option(
    "--meters",
    metavar="DOMAIN,…",
    help="The devices' domains.  [default: all that are charged, within a narrower boundary]",
)
@click.option(
    "--valid-days",
    type=FiniteRange(min=0, min_open=True),
    default=90.0,
    show_default=True,
    help="From when on the calibration is doubted.",
)
@click.option("--dry-run", is_flag=True, help="Fit, and keep nothing.")
@database_option
@json_option
def command(  # noqa: PLR0913 - one argument per option
    *,
    selector: str,
    wall: str,
    meters: str | None,
    valid_days: float,
    dry_run: bool,
    database: str | None,
    as_json: bool,
) -> None:
    """Fit wall = g · Σ meters + o over the operating points and idle stretches of stored runs.

    It takes five load levels, idle among them, whose power ranges over a fifth of its mean.
    `wattbench run --calibration ID` and `wattbench show --calibration ID` apply the line to runs
    without a wall meter; their result has a domain `wall`, derived, with the line's own interval.
    """
    url = database_url(database)
    runs = load_runs(url, selector)
    fit, levels = _fitted(runs, wall, meters)
    stored = _stored(fit, valid_days)
    if not dry_run:
        engine = connect(url, create=True)
        try:
            save_calibration(engine, stored)
        finally:
            engine.dispose()
    if as_json:
        shown = {"schema_version": 1, "db": show_url(url)} | calibration_json(stored)
        click.echo(json.dumps(shown | {"levels": [_level_json(level) for level in levels]}))
    else:
        click.echo(_text(stored, fit, levels))


def _stored(fit: WallFit, valid_days: float) -> StoredCalibration:
    now_s = time.time()
    date = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now_s))
    return StoredCalibration(
        calibration_id=f"cal-{date}-{secrets.token_hex(2)}",
        created_unix_s=now_s,
        expires_unix_s=now_s + valid_days * DAY_S,
        fit=fit.as_json(),
    )


def _fitted(runs: Sequence[RawRun], wall: str, meters: str | None) -> tuple[WallFit, list[Level]]:
    # A calibration that the runs were given would be a second wall.
    plain = [replace(r, events=tuple(e for e in r.events if e.kind != EVENT)) for r in runs]
    facts = [run_facts(raw) for raw in plain]
    names = None if meters is None else [name.strip() for name in meters.split(",")]
    first, chosen = _domains(facts[0], wall, names)
    gathered: dict[str, list[tuple[float, float, float, float]]] = {}
    for run in facts:
        found = _domains(run, wall, [domain.name for domain in chosen])[1]
        # What a meter found out of its sensor, such as the update period, differs a little.
        if [_identity(domain) for domain in found] != [_identity(domain) for domain in chosen]:
            raise UsageError(
                f"run {run.raw.record.run_id} measured other devices than "
                f"{facts[0].raw.record.run_id}; a calibration is of one machine"
            )
        for label, seen in _observations(run, wall, [domain.name for domain in chosen]):
            gathered.setdefault(label, []).append(seen)
    levels = [_level(label, found) for label, found in gathered.items()]
    return fit_wall(levels, chosen, first), levels


def _identity(domain: EnergyDomain) -> tuple[object, ...]:
    return domain.name, domain.devices, domain.boundary, domain.quantity, domain.host


def _domains(
    run: RunFacts, wall: str, meters: Sequence[str] | None
) -> tuple[EnergyDomain, list[EnergyDomain]]:
    """The wall's domain, and those of the meters."""
    domains = {d.domain.name: d.domain for d in run.domains}
    for name in (wall, *(meters or ())):
        if name not in domains:
            known = ", ".join(domains) or "none"
            raise UsageError(f"run {run.raw.record.run_id} has no domain {name!r} (it has {known})")
    if meters is not None:
        if wall in meters:
            raise UsageError(f"--wall {wall} is among --meters; a line of itself tells nothing")
        return domains[wall], [domains[name] for name in meters]
    limit = BOUNDARIES.index(domains[wall].boundary)
    charged = [
        d.domain
        for d in run.domains
        if d.used
        and d.domain.name != wall
        and d.domain.parent not in domains
        and BOUNDARIES.index(d.domain.boundary) < limit
    ]
    if not charged:
        raise UsageError(
            f"run {run.raw.record.run_id} has no meter within the boundary of {wall} "
            f"({domains[wall].boundary}); name them with --meters"
        )
    return domains[wall], charged


def _observations(
    run: RunFacts, wall: str, meters: Sequence[str]
) -> Iterable[tuple[str, tuple[float, float, float, float]]]:
    """Load level, and duration [s], meters and wall [W] and what they disagree by anyway [W]."""
    load = " ".join(f"{k} {v}" for k, v in run.raw.record.operating_point.items())
    label = f"{run.raw.record.workload.get('name')} {load}"
    for level, part in ((label, "gross"), (IDLE, "idle")):
        energies = {d.domain.name: getattr(d, part) for d in run.domains}
        at_wall, inside = energies[wall], [energies[name] for name in meters]
        known = [one for one in inside if isinstance(one, EnergyMeasurement)]
        if isinstance(at_wall, Unmeasured) or len(known) < len(inside):
            continue
        length_s = at_wall.duration_s
        terms = [at_wall.edge_joules, at_wall.alignment_half_width_joules / np.sqrt(3)]
        terms += [one.edge_joules for one in known]
        inside_watts = sum(one.energy_joules / one.duration_s for one in known)
        sd_watts = float(np.hypot.reduce(terms)) / length_s
        yield level, (length_s, inside_watts, at_wall.energy_joules / length_s, sd_watts)


def _level(label: str, found: Sequence[tuple[float, float, float, float]]) -> Level:
    """One level: its repeats weighted by their length."""
    length_s, meters, wall, sd = np.array(found).T
    share = length_s / length_s.sum()
    return Level(
        label=label,
        meters_watts=float(share @ meters),
        wall_watts=float(share @ wall),
        sd_watts=float(np.sqrt((share**2) @ (sd**2))),
    )


def calibration_json(stored: StoredCalibration) -> dict[str, Any]:
    """A stored calibration as one object."""
    return {
        "calibration_id": stored.calibration_id,
        "created_unix_s": stored.created_unix_s,
        "expires_unix_s": stored.expires_unix_s,
        "fit": dict(stored.fit),
    }


def with_calibration(raw: RawRun, stored: StoredCalibration) -> RawRun:
    """A run as if it had been given a calibration."""
    event = Event(kind=EVENT, time_s=0.0, detail=calibration_json(stored))
    return replace(raw, events=(*raw.events, event))


def _level_json(level: Level) -> dict[str, Any]:
    return {
        "label": level.label,
        "meters_watts": level.meters_watts,
        "wall_watts": level.wall_watts,
        "sd_watts": level.sd_watts,
    }


def _text(stored: StoredCalibration, fit: WallFit, levels: Sequence[Level]) -> str:
    lines = [
        f"{stored.calibration_id}: {fit.wall} = g · ({' + '.join(fit.meters)}) + o",
        f"  g {fit.gain_ratio:.4f} ± {fit.gain_sd_ratio:.4f}   o {fit.offset_watts:.2f} ± "
        f"{fit.offset_sd_watts:.2f} W   (standard errors)",
        f"  scatter {fit.residual_sd_watts:.2f} W, R² {fit.r2_fraction:.5f}, {fit.levels_count} "
        f"levels from {fit.low_watts:.4g} to {fit.high_watts:.4g} W",
        f"  good until {time.strftime('%Y-%m-%d', time.gmtime(stored.expires_unix_s))}",
    ]
    for level in sorted(levels, key=lambda level: level.meters_watts):
        line = fit.gain_ratio * level.meters_watts + fit.offset_watts
        lines.append(
            f"    {level.label}: meters {level.meters_watts:.2f} W, wall {level.wall_watts:.2f} W, "
            f"{level.wall_watts - line:+.2f} W off the line"
        )
    return "\n".join(lines)
