"""``wattbench tpf checklist``: what a benchmark should report of each run, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click
from rich.markup import escape
from rich.table import Table as Printed

from wattbench.cli.options import FiniteRange, database_option, json_option
from wattbench.cli.show import load_points
from wattbench.cli.tables import console
from wattbench.core.errors import UsageError
from wattbench.core.result import Estimate
from wattbench.hardware import load_model, load_profile
from wattbench.results import PointResult, estimate_json
from wattbench.tpf.bands import Band
from wattbench.tpf.ceilings import node_energy
from wattbench.tpf.table import ENERGY, POWER, RATE


@click.command(name="checklist")
@click.option("--runs", "selector", required=True, metavar="SELECTOR", help="Stored runs.")
@click.option(
    "--pue", type=FiniteRange(1), help="Grid power over IT power of the site; none: power as it is."
)
@click.option(
    "--utilisation",
    type=FiniteRange(0, 1, min_open=True),
    help="Part of the time that the site has work, for the output over a day.",
)
@database_option
@json_option
def command(
    selector: str,
    *,
    pue: float | None,
    utilisation: float | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Joules per token, binding constraint, PUE-adjusted power, utilisation-adjusted output.

    With quality and latency, as a position paper asks of every benchmark (arXiv 2605.11733). What
    a run or the caller does not tell is unknown, with the reason.

    \b
    Example:
      wattbench tpf checklist --runs tag=sweep --pue 1.2 --utilisation 0.6
    """  # noqa: D301 - click reads the backslash
    points, _ = load_points(selector, database)
    rows = [_row(point, pue, utilisation) for point in points]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "points": rows}, allow_nan=False))
    else:
        _print(rows)


def _row(point: PointResult, pue: float | None, utilisation: float | None) -> dict[str, Any]:
    facts = point.facts
    record = facts.runs[0].raw.record
    domain = facts.headline.domain
    return {
        "run_id": record.run_id,
        "hardware": record.hardware.get("name"),
        "model": record.engine.model,
        "operating_point": dict(record.operating_point),
        ENERGY: estimate_json(facts.metrics[ENERGY]),
        "energy_boundary": domain.boundary if domain else None,
        "energy_kind": facts.headline.kind,
        "binding_constraint": _binding(point),
        "pue_adjusted_power_watts": _facility(point, pue),
        "utilisation_adjusted_output_tokens_per_s": _scaled(
            facts.metrics[RATE], utilisation, "utilisation_not_given"
        ),
        "quality": {"value": None, "reason": "not_measured"},
        "ttft_p95_s": estimate_json(facts.latencies["ttft_s"]["p95"]),
        "tpot_p95_s": estimate_json(facts.latencies["tpot_s"]["p95"]),
        "verdict": {"performance": point.performance, "energy": point.energy},
    }


def _facility(point: PointResult, pue: float | None) -> dict[str, Any]:
    """Power drawn from the grid: brought to the node, then times the PUE; modelled."""
    watts, domain = point.facts.metrics[POWER], point.facts.headline.domain
    if pue is None or watts.value is None or domain is None:
        reason = "pue_not_given" if pue is None else watts.reason or "power_unknown"
        return {"value": None, "reason": reason}
    ends = watts.low or watts.value, watts.high or watts.value
    band = Band(value=watts.value, low=ends[0], high=ends[1], kind="measured")
    return node_energy(band, domain.boundary).times(pue).as_json()


def _scaled(estimate: Estimate, factor: float | None, reason: str) -> dict[str, Any]:
    if factor is None:
        return {"value": None, "reason": reason}
    ends = [estimate.value, estimate.low, estimate.high]
    value, low, high = (None if end is None else end * factor for end in ends)
    return estimate_json(Estimate(value=value, low=low, high=high, reason=estimate.reason))


def _binding(point: PointResult) -> dict[str, Any]:
    """Whether the devices were nearer to their compute or to their power limit, and how near."""
    record, metrics = point.facts.runs[0].raw.record, point.facts.metrics
    watts, rate = metrics[POWER].value, metrics[RATE].value
    name, model = record.hardware.get("name"), record.engine.model.rpartition("/")[2].lower()
    devices = len(point.facts.headline.devices) or 1
    try:
        machine, descriptor = load_profile(str(name)), load_model(model)
        limit_watts = devices * machine.need("power", "tdp")
        peak_flops = devices * machine.need("compute", "dense_peak", descriptor.arithmetic)
    except UsageError:
        return {"value": None, "reason": "no_profile_of_machine_or_model"}
    if watts is None or rate is None:
        return {"value": None, "reason": "power_or_rate_unknown"}
    used = {
        "energy": watts / limit_watts,
        "compute": rate * 2.0 * descriptor.active_parameters / peak_flops,
    }
    return {"value": max(used, key=lambda each: used[each]), "used_fraction": used}


def _print(rows: list[dict[str, Any]]) -> None:
    out = console()
    table = Printed("", *(escape(_title(row)) for row in rows[:6]))
    for label, key in _LINES:
        table.add_row(label, *(_cell(row[key]) for row in rows[:6]))
    out.print(table)
    if len(rows) > 6:
        out.print(f"{len(rows) - 6} more with --json.")


_LINES = (
    ("J / output token", ENERGY),
    ("boundary", "energy_boundary"),
    ("kind", "energy_kind"),
    ("binds", "binding_constraint"),
    ("node power × PUE, W", "pue_adjusted_power_watts"),
    ("output × U, tok/s", "utilisation_adjusted_output_tokens_per_s"),
    ("quality", "quality"),
    ("TTFT p95, s", "ttft_p95_s"),
    ("TPOT p95, s", "tpot_p95_s"),
    ("verdicts", "verdict"),
)


def _title(row: Mapping[str, Any]) -> str:
    load = " ".join(f"{key} {value}" for key, value in row["operating_point"].items())
    return f"{row['hardware']} {row['model']} {load}"


def _cell(shown: Any) -> str:
    if not isinstance(shown, dict):
        return str(shown or "unknown")
    if "performance" in shown:
        return f"{shown['performance']}, energy {shown['energy']}"
    if shown.get("value") is None:
        return f"unknown: {str(shown.get('reason')).replace('_', ' ')}"
    if "used_fraction" in shown:
        used = shown["used_fraction"]
        return f"{shown['value']} (power {used['energy']:.0%}, compute {used['compute']:.0%})"
    ends = shown.get("low"), shown.get("high")
    span = "" if None in ends else f" \\[{ends[0]:.4g}, {ends[1]:.4g}]"
    return f"{shown['value']:.4g}{span}"
