"""``wattbench list``: what there is to run, to measure with, and to look at."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, cast

import click
from rich.markup import escape
from rich.table import Table

from wattbench import plugins
from wattbench.cli.machines import attention
from wattbench.cli.options import database_option, json_option
from wattbench.cli.tables import console, fits
from wattbench.economics import load_scenario, scenario_names
from wattbench.energy.calibration import fit_from_json
from wattbench.hardware import load_model, load_profile, model_names, profile_names
from wattbench.hardware.detect import NAME as LOCAL_CPU
from wattbench.hardware.detect import cpu_title
from wattbench.plugins import Group, describe_options
from wattbench.store import (
    RunSummary,
    StoredCalibration,
    StoredSimulation,
    connect,
    database_url,
    list_calibrations,
    list_simulations,
    select_runs,
)
from wattbench.workload import load_workload, workload_names

TOPICS = (
    "runs",
    "calibrations",
    "simulations",
    "backends",
    "meters",
    "policies",
    "workloads",
    "hardware",
    "models",
    "scenarios",
)


@click.command(name="list")
@click.argument("topic", type=click.Choice(TOPICS), metavar="|".join(TOPICS))
@click.option(
    "--runs",
    "selector",
    metavar="SELECTOR",
    help="With `list runs`: only these; ids, conditions such as tag=a,since=2026-03-31, or latest.",
)
@database_option
@json_option
def command(topic: str, selector: str | None, database: str | None, as_json: bool) -> None:
    """List what is stored, and what there is to run, to measure with, to buy and to simulate.

    Of a machine it says how its power under load is known: measured on that device, modelled,
    nameplate, or assumed. Of a model it gives billions of weights.
    """
    if topic == "runs":
        rows = _run_rows(selector, database)
    elif topic == "calibrations":
        rows = _calibration_rows(database)
    elif topic == "simulations":
        rows = _simulation_rows(database)
    elif topic == "workloads":
        rows = [{"name": n, "about": load_workload(n).about} for n in workload_names()]
    elif topic == "scenarios":
        rows = _scenario_rows()
    elif topic == "hardware":
        rows = _hardware_rows()
    elif topic == "models":
        rows = [_model_row(name) for name in model_names()]
    else:
        rows = _plugin_rows(cast(Group, topic))
    if as_json:
        click.echo(json.dumps({"schema_version": 1, topic: rows}))
    else:
        _print(topic, rows)


def _run_rows(selector: str | None, database: str | None) -> list[dict[str, Any]]:
    engine = connect(database_url(database), create=False)
    try:
        return [_run_row(run) for run in select_runs(engine, selector)]
    finally:
        engine.dispose()


def _run_row(run: RunSummary) -> dict[str, Any]:
    started = datetime.fromtimestamp(run.started_unix_s).astimezone()
    return {
        "run_id": run.run_id,
        "started": started.isoformat(timespec="seconds"),
        "status": run.status,
        "workload": run.workload,
        "backend": run.backend,
        "hardware": run.hardware,
        "operating_point": dict(run.operating_point),
        "mode": run.mode.text,
        "repeat": run.repeat_index,
        "tag": run.tag,
    }


def _calibration_rows(database: str | None) -> list[dict[str, Any]]:
    engine = connect(database_url(database), create=False)
    try:
        return [_calibration_row(one) for one in list_calibrations(engine)]
    finally:
        engine.dispose()


def _calibration_row(stored: StoredCalibration) -> dict[str, Any]:
    fit = fit_from_json(stored.fit)
    dates = {
        name: datetime.fromtimestamp(time_s).astimezone().isoformat(timespec="seconds")
        for name, time_s in (
            ("created", stored.created_unix_s),
            ("expires", stored.expires_unix_s),
        )
    }
    return {
        "calibration_id": stored.calibration_id,
        **dates,
        "wall": fit.wall,
        "meters": ", ".join(fit.meters),
        "gain": round(fit.gain_ratio, 5),
        "offset_watts": round(fit.offset_watts, 3),
        "r2": round(fit.r2_fraction, 6),
        "from_watts": round(fit.low_watts, 2),
        "to_watts": round(fit.high_watts, 2),
    }


def _simulation_rows(database: str | None) -> list[dict[str, Any]]:
    engine = connect(database_url(database), create=False)
    try:
        return [_simulation_row(one) for one in list_simulations(engine)]
    finally:
        engine.dispose()


def _simulation_row(stored: StoredSimulation) -> dict[str, Any]:
    created = datetime.fromtimestamp(stored.created_unix_s).astimezone()
    cases: Any = stored.result["cases"]
    return {
        "simulation_id": stored.simulation_id,
        "created": created.isoformat(timespec="seconds"),
        "scenario": stored.result["scenario"],
        "policies": ", ".join(each["policy"] for each in cases[0]["policies"]),
        "cases": len(cases),
        "seeds": len(cases[0]["seeds"]),
    }


def _scenario_rows() -> list[dict[str, Any]]:
    from wattbench import simulation

    bought = [
        {"name": n, "command": "procure", "about": load_scenario(n).about} for n in scenario_names()
    ]
    return bought + [
        {"name": n, "command": "simulate", "about": simulation.load_scenario(n).about}
        for n in simulation.scenario_names()
    ]


def _hardware_rows() -> list[dict[str, Any]]:
    here = f"this machine: {cpu_title()}"
    rows: list[dict[str, Any]] = [
        {"name": LOCAL_CPU, "title": here, "class": "cpu", "power": "assumed"}
    ]
    for name in profile_names():
        profile = load_profile(name)
        row = {"name": name, "title": profile.title, "class": profile.device_class}
        rows.append(row | {"power": profile.power_evidence})
    return rows


def _model_row(name: str) -> dict[str, Any]:
    model = load_model(name)
    return {
        "name": name,
        "title": model.title,
        "parameters_1e9": round(model.parameters / 1e9, 1),
        "active_1e9": round(model.active_parameters / 1e9, 1),
        "precision": model.precision,
        "kind": attention(model),
    }


def _plugin_rows(group: Group) -> list[dict[str, Any]]:
    rows = []
    for name in plugins.names(group):
        plugin = plugins.find(group, name)
        rows.append(
            {
                "name": name,
                "about": _plain((plugin.__doc__ or "").strip().partition("\n")[0]),
                "unavailable": plugin.availability(),
                "options": [
                    option | {"help": _plain(option["help"])}
                    for option in describe_options(plugin.Options)
                ],
            }
        )
    return rows


def _plain(docstring: str) -> str:
    """Without the marks of the documentation tool that docstrings are written for."""
    return docstring.replace("``", "")


def _print(topic: str, rows: list[dict[str, Any]]) -> None:
    out = console()
    if not rows:
        click.echo(f"no {topic} match")
        return
    if "options" in rows[0]:
        for row in rows:
            state = (
                ""
                if row["unavailable"] is None
                else f" [red]not here: {escape(row['unavailable'])}[/]"
            )
            out.print(f"[bold]{row['name']}[/] {escape(row['about'])}{state}")
            for option in row["options"]:
                named = f"{option['name']}=<{option['type']}>"
                out.print(
                    f"    {escape(named)}  {escape(option['help'])} [dim]({option['default']})[/]"
                )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for key in rows[0]:
        table.add_column(key)
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row.values()))
    if fits(out, table):
        out.print(table)
        return
    for row in rows:
        name, *others = ((key, _text(value)) for key, value in row.items())
        about = " · ".join(f"[dim]{key}[/] {escape(text)}" for key, text in others if text)
        out.print(f"[bold]{escape(name[1])}[/]\n    {about}", soft_wrap=True)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {inner}" for key, inner in value.items())
    return "" if value is None else str(value)
