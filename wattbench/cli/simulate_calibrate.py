"""``wattbench simulate --calibrate-from``, ``--calibrate-runs``: a step model from measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from wattbench.cli.stored import load_runs
from wattbench.cli.tables import console
from wattbench.core.energy import EnergyMeasurement
from wattbench.core.errors import UsageError
from wattbench.core.load import RequestResult
from wattbench.core.run import RawRun
from wattbench.metrics import RunFacts, run_facts
from wattbench.routing.calibration import Episode
from wattbench.routing.energy_fit import EnergyFit, MeteredEpisode, fit_energy
from wattbench.simulation.calibrate import Calibration, as_json, calibrate, pool_text
from wattbench.simulation.engine_log import EngineLog, read_engine, read_engine_log
from wattbench.store import URL

MOST = 500
"""Requests of each run that are looked at: with more, a fit takes minutes and gains nothing."""


def calibrate_from_log(log: Path, engine: Path | None, out: Path | None) -> dict[str, Any]:
    """Fit an engine's log; what ``--json`` prints.

    Raises:
        UsageError: If a file cannot be meant.
    """
    requests = read_engine_log(log)
    found = calibrate([requests], read_engine(engine))
    about = f"{log.name}, {len(requests)} requests"
    _write(out, pool_text(found, None, None, about, "measured"))
    return {
        "schema_version": 1,
        "calibration": as_json(found),
        "energy": {"value": None, "reason": "no_power", "message": "the log has no power"},
        "model": found.engine.model or None,
        "file": None if out is None else str(out),
    }


def calibrate_from_runs(
    selector: str, database: URL, engine: Path | None, out: Path | None
) -> dict[str, Any]:
    """Fit stored runs, their joules too; what ``--json`` prints.

    Raises:
        UsageError: If the runs do not belong together, or lack token counts.
    """
    raws = load_runs(database, selector)
    facts = [run_facts(raw) for raw in raws]
    logs = [log_of(raw) for raw in raws]
    models = {raw.record.engine.model for raw in raws}
    if len(models) > 1:
        raise UsageError(f"runs of several models ({', '.join(sorted(models))}): choose one's")
    found = calibrate(logs, read_engine(engine, models.pop()), MOST)
    energy, idle_watts, reason = _energy(found, facts, logs)
    about = f"runs {', '.join(raw.record.run_id for raw in raws)}"
    kind = "modelled" if any(_is_modelled(fact) for fact in facts) else "measured"
    _write(out, pool_text(found, energy, idle_watts, about, kind))
    stated: dict[str, Any] = {"value": None, "reason": "no_joules", "message": reason}
    if energy is not None:
        stated = {
            "busy_watts": energy.busy_watts,
            "idle_watts": idle_watts,
            "residual_fraction": energy.residual_fraction,
            "windows": energy.window_count,
        }
    return {
        "schema_version": 1,
        "calibration": as_json(found),
        "energy": stated,
        "model": found.engine.model or None,
        "file": None if out is None else str(out),
    }


def _is_modelled(fact: RunFacts) -> bool:
    """Whether a run's device is emulated, or its joules rest on a model or a data sheet."""
    kind = fact.headline.kind if isinstance(fact.headline, EnergyMeasurement) else None
    emulated = fact.raw.record.backend.get("name") == "emulated"
    return emulated or kind in ("modelled", "nameplate")


def log_of(raw: RawRun) -> EngineLog:
    """The requests of a run as an engine's log; one that was cut off is known to have begun.

    Raises:
        UsageError: If the run has no requests or no token counts.
    """
    sent = sorted((r for r in raw.requests if len(r.chunk_s)), key=lambda each: each.sent_s)
    if not sent:
        raise UsageError(f"run {raw.record.run_id} has no answered requests; leave it out")
    rows = [_row(raw, request) for request in sent]
    table = np.array(rows)
    table[:, 2:] -= table[0, 2]
    return EngineLog(
        queued_s=table[:, 2],
        input_tokens=table[:, 0].astype(np.int64),
        output_tokens=table[:, 1].astype(np.int64),
        first_s=table[:, 3],
        last_s=table[:, 4],
        wait_s=None,
    )


def _row(raw: RawRun, request: RequestResult) -> tuple[float, float, float, float, float]:
    inputs = request.input_tokens
    outputs = request.output_tokens
    if outputs is None and not request.succeeded:
        outputs = int(np.nansum(request.chunk_tokens)) or len(request.chunk_s)
    if not inputs or not outputs:
        raise UsageError(
            f"run {raw.record.run_id}: a request has no count of its prompt's or answer's tokens, "
            f"without which nothing can be replayed; leave the run out"
        )
    last_s = float(request.chunk_s[-1]) if request.succeeded else np.nan
    return inputs, outputs, request.sent_s, float(request.chunk_s[0]), last_s


def _energy(
    found: Calibration, facts: list[RunFacts], logs: list[EngineLog]
) -> tuple[EnergyFit | None, float | None, str]:
    """The energy of the steps and the idle power, or why there is none."""
    idle_watts = _idle_watts(facts)
    if idle_watts is None:
        return None, None, "no run has measured idle power; give the workload idle_s"
    metered = []
    for fact, log in zip(facts, logs, strict=True):
        if fact.window is None or not isinstance(fact.headline, EnergyMeasurement):
            continue
        start_s = min(each.sent_s for each in fact.raw.requests if len(each.chunk_s))
        metered.append(
            MeteredEpisode(
                episode=_whole(log),
                start_s=fact.window.start_s - start_s,
                end_s=fact.window.end_s - start_s,
                energy_joules=fact.headline.energy_joules,
            )
        )
    try:
        return fit_energy(found.fit.machine, metered, idle_watts), idle_watts, ""
    except UsageError as error:
        return None, idle_watts, str(error)


def _whole(log: EngineLog) -> Episode:
    return Episode(
        arrival_s=log.queued_s,
        input_tokens=log.input_tokens,
        output_tokens=log.output_tokens,
        first_s=log.first_s,
        last_s=log.last_s,
        known=np.isfinite(log.last_s),
    )


def _idle_watts(facts: list[RunFacts]) -> float | None:
    """Mean over the runs of the power with the model loaded and nothing to do [W]."""
    watts = []
    for fact in facts:
        names = fact.headline.domains if isinstance(fact.headline, EnergyMeasurement) else ()
        used = [domain.idle for domain in fact.domains if domain.domain.name in names]
        known = [idle for idle in used if isinstance(idle, EnergyMeasurement)]
        if used and len(known) == len(used):
            watts.append(sum(idle.energy_joules / idle.duration_s for idle in known))
    return float(np.mean(watts)) if watts else None


def check_out(out: Path | None) -> None:
    """Before anything is fitted: only what a calibration wrote is written over.

    Raises:
        UsageError: If something else lies there, or there is no such folder.
    """
    if out is None:
        return
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: cannot be written: there is no such folder")
    if out.exists() and not _is_calibration(out):
        raise UsageError(f"--out {out}: a file lies there that no calibration wrote; name another")


def _is_calibration(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "step" in found


def _write(out: Path | None, text: Mapping[str, Any]) -> None:
    if out is None:
        return
    try:
        out.write_text(json.dumps(text, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from error


def _capacity_line(found: Mapping[str, Any]) -> str:
    effective = f"{found['kv_capacity_tokens']:,} tokens"
    if found["kv_capacity_from"] != "told":
        return f"KV capacity: {effective}, {found['kv_capacity_from']}."
    told = f"{found['kv_capacity_told_tokens']:,} tokens told"
    return f"KV capacity: {told}, {effective} effective, as blocks are charged."


def print_calibration(shown: Mapping[str, Any]) -> None:
    """The table for people."""
    found = shown["calibration"]
    table = Table(title="Simulated against measured", title_justify="left")
    table.add_column("")
    for head in ("scored", "fitted"):
        table.add_column(head, justify="right")
    for name, text in (
        ("tpot_median", "TPOT, median"),
        ("e2e_mean", "E2E, mean"),
        ("ttft_p99", "TTFT, p99"),
        ("ttft_mean", "TTFT, mean"),
    ):
        key = f"{name}_bias"
        table.add_row(text, f"{found[key]:+.1%}", f"{found['on_the_fitted'][key]:+.1%}")
    out = console()
    out.print(table)
    wait = found["queue_wait_s"]
    real = "unknown" if wait["measured_mean"] is None else f"{wait['measured_mean']:.3g} s"
    lines = [
        f"Fitted on {found['fitted_on']}; scored on {found['scored_on']}.",
        f"Queue wait, mean: {wait['simulated_mean']:.3g} s simulated, {real} measured.",
        f"At once: {found['max_batch']} requests, {found['max_batch_from']}.",
        _capacity_line(found),
        *(f"Assumed: {each}." for each in found["assumed"]),
    ]
    energy = shown["energy"]
    if "busy_watts" in energy:
        lines.append(
            f"Energy: {energy['windows']} windows, residual {energy['residual_fraction']:.1%}; "
            f"idle {energy['idle_watts']:.0f} W, busy {energy['busy_watts']:.0f} W, and what "
            "tokens add."
        )
    else:
        lines.append(f"Energy: unknown, {energy['message']}.")
    if shown["file"]:
        lines.append(f"Written to {shown['file']}: a pool names it under calibration:.")
        if "busy_watts" not in energy:
            lines.append("Add step.energy and step.busy_watts to it first: no pool goes without.")
    for line in lines:
        click.echo(line)
