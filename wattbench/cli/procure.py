"""``wattbench procure``: what to buy for a site, and what to measure before."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import click

from wattbench.cli.options import database_option, json_option
from wattbench.cli.procure_page import page
from wattbench.cli.procure_text import print_text
from wattbench.cli.tpf_measured import measured_points
from wattbench.core.errors import UsageError
from wattbench.economics import (
    Comparison,
    Line,
    Outcome,
    Scenario,
    break_even,
    compare,
    evaluate,
    inferencex,
    lines_of,
    load_scenario,
    requests_for,
    tornado,
    write_pack,
)
from wattbench.hardware import load_model, load_profile
from wattbench.tpf.operating import OperatingPoint


@click.command(name="procure")
@click.argument("scenario", metavar="SCENARIO")
@click.option("--csv", "as_csv", is_flag=True, help="Print every figure as a row of CSV.")
@click.option("--html", "as_html", is_flag=True, help="Print one page of HTML.")
@click.option(
    "--rfp",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="For each pair that cannot be ranked leave there what a vendor is to measure.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Of the draws.")
@database_option
@json_option
def command(
    scenario: str,
    *,
    folder: Path | None,
    seed: int,
    database: str | None,
    **formats: bool,
) -> None:
    """Compare what may be bought for a site: tokens, joules, dollars and carbon.

    SCENARIO is a shipped name or a YAML file (docs/procurement.md): what is asked for, where, and
    the options. Machines are installed by provisioned power and run by mean power. Every figure
    has a 90 % band; two options are ranked only where that of their ratio leaves out 1.
    """
    if sum(formats.values()) > 1:
        raise UsageError("--json, --csv and --html: choose one")
    asked = load_scenario(scenario)
    lines = lines_of(asked, _stored(asked, database))
    outcomes = evaluate(asked, lines, seed)
    pairs = compare(outcomes)
    shown = as_shown(asked, lines, outcomes, pairs, seed)
    if folder is not None:
        requests = requests_for(asked, pairs, seed)
        written = write_pack(folder, asked, requests)
        shown["rfp"] = {
            "folders": [str(each) for each in written],
            "unanswerable": {each.folder: each.why for each in requests if each.why},
        }
    if formats["as_json"]:
        click.echo(json.dumps(shown, allow_nan=False))
    elif formats["as_csv"]:
        click.echo(_csv(shown), nl=False)
    elif formats["as_html"]:
        click.echo(page(shown))
    else:
        print_text(shown)


def _stored(scenario: Scenario, database: str | None) -> dict[str, list[OperatingPoint]]:
    """Operating points of the options that name stored runs."""
    model, found = load_model(scenario.model).name, {}
    for option in scenario.options:
        if option.measured is not None and option.measured.runs is not None:
            machine = load_profile(str(option.machine)).name
            try:
                found[option.name] = measured_points(option.measured.runs, database, machine, model)
            except UsageError as error:
                raise UsageError(f"option {option.name}: measured: {error}") from error
    return found


def as_shown(
    scenario: Scenario,
    lines: dict[str, Line | str],
    outcomes: list[Outcome],
    pairs: list[Comparison],
    seed: int,
) -> dict[str, Any]:
    """Everything that is to be said, as JSON; the text and the page are made from it."""
    return {
        "schema_version": 1,
        "scenario": scenario.name,
        "about": scenario.about,
        "model": scenario.model,
        "seed": seed,
        "outcomes": [_outcome(scenario, each, seed) for each in outcomes],
        "comparisons": [_comparison(scenario, each) for each in pairs],
        "warnings": [
            each for line in lines.values() if isinstance(line, Line) for each in line.warnings
        ],
        "assumptions": _assumptions(scenario),
        "notes": _notes(scenario, lines),
    }


def _outcome(scenario: Scenario, outcome: Outcome, seed: int) -> dict[str, Any]:
    wanted = "inferencex-provisioned" in scenario.conventions
    theirs = inferencex(scenario, outcome, seed) if wanted else None
    return {
        "case": outcome.case,
        "option": outcome.option,
        "reason": outcome.reasons.get(""),
        "installed": None
        if outcome.plan is None
        else {
            "racks": sum(outcome.plan.racks),
            "devices": outcome.device_count,
            "devices_per_replica": {
                tier.name: each.line.device_count
                for each in outcome.servings
                for tier, _ in each.tier_fractions
            },
            "limit": outcome.plan.limit,
        },
        "binding": outcome.binding,
        "binding_fractions": dict(outcome.binding_fractions),
        "reached_fraction": outcome.reached_fraction,
        "figures": {
            name: None if band is None else band.as_json() for name, band in outcome.figures.items()
        },
        "reasons": {name: why for name, why in outcome.reasons.items() if name},
        "tornado": [
            {
                "name": each.name,
                "low_usd_per_mtoken": each.low_usd_per_mtoken,
                "high_usd_per_mtoken": each.high_usd_per_mtoken,
            }
            for each in tornado(scenario, outcome)
        ],
        "inferencex_provisioned": None
        if theirs is None
        else {
            "tokens_per_s_per_mw": theirs.tokens_per_s_per_provisioned_mw.as_json(),
            "joules_per_token": theirs.provisioned_joules.as_json(),
        },
    }


def _comparison(scenario: Scenario, pair: Comparison) -> dict[str, Any]:
    even = break_even(scenario, pair.first, pair.second)
    return {
        "case": pair.case,
        "cheaper": pair.first.option,
        "dearer": pair.second.option,
        "ratio": pair.ratio.as_json(),
        "ranked": pair.ranked,
        "why": pair.why,
        "break_even": {
            "power_usd_per_kwh": even.power_usd_per_kwh,
            "power_why": even.power_why,
            "utilisation_fraction": even.utilisation_fraction,
            "utilisation_why": even.utilisation_why,
        },
    }


def _assumptions(scenario: Scenario) -> list[dict[str, Any]]:
    return [
        {
            "place": place,
            "value": number.value,
            "low": number.low,
            "high": number.high,
            "kind": number.kind,
            "source": number.source,
            "date": number.date,
        }
        for place, number in scenario.numbers()
    ]


def _notes(scenario: Scenario, lines: dict[str, Line | str]) -> list[str]:
    found: list[str] = []
    for name, line in lines.items():
        if isinstance(line, str):
            continue
        found += line.notes
        found += [
            f"{name}: {tier.quality_floor.metric} as served is not stated, so it is not known "
            f"whether it meets the floor of tier {tier.name}"
            for tier in scenario.demand.tiers
            if tier.quality_floor and tier.quality_floor.metric not in line.option.quality
        ]
    if scenario.engine_drift_ratio is None:
        found.append("engine_drift_ratio is not stated: the engine is taken as the one measured")
    if scenario.site.oversubscription_ratio.value > 1:
        ratio = scenario.site.oversubscription_ratio.value
        found.append(f"provisioned power may be {ratio:g} times the power of IT, as stated")
    return found


def _csv(shown: dict[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "option", "figure", "value", "low", "high", "kind", "reason"])
    for each in shown["outcomes"]:
        for name, band in each["figures"].items():
            values = (
                [""] * 4 if band is None else [band[k] for k in ("value", "low", "high", "kind")]
            )
            why = "" if band else each["reason"] or each["reasons"].get(name, "")
            writer.writerow([each["case"], each["option"], name, *values, why])
    return out.getvalue()
