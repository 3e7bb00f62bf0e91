"""A simulation as text: joules beside latency and service level, and what they rest on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattbench.cli.tables import console
from wattbench.store import connect, database_url, load_simulation, show_url

JOULES_PER_KWH = 3.6e6
LEGEND = (
    "Means over the seeds, ± half a 95 % interval where there are several; – is not known, and the "
    "lines below say why."
)
Cell = Callable[[dict[str, Any]], str]


def show_simulation(simulation_id: str, database: str | None, *, as_json: bool) -> None:
    """Print a stored simulation.

    Raises:
        UsageError: If there is none of that name.
        StoreError: If the database cannot be read.
    """
    url = database_url(database)
    engine = connect(url, create=False)
    try:
        stored = load_simulation(engine, simulation_id)
    finally:
        engine.dispose()
    shown = {**stored.result, "database": show_url(url)}
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        print_simulation(shown)


def print_simulation(shown: dict[str, Any]) -> None:
    """Print every case of a simulation."""
    out = console()
    about = f": {escape(shown['about'])}" if shown["about"] else ""
    out.print(f"[bold]{escape(shown['scenario'])}[/]{about}", soft_wrap=True)
    if shown["set"]:
        changed = ", ".join(f"{key} = {value}" for key, value in shown["set"].items())
        out.print(f"with {escape(changed)}", soft_wrap=True)
    out.print(LEGEND, soft_wrap=True)
    for case in shown["cases"]:
        _print_case(out, case)
    for note in dict.fromkeys(note for case in shown["cases"] for note in _basis(case)):
        out.print(f"  {escape(note)}", soft_wrap=True)
    out.print(f"kept as {shown['simulation_id']} in {escape(shown['database'])}", soft_wrap=True)


def _print_case(out: Console, case: dict[str, Any]) -> None:
    if case["sweep"]:
        out.print(f"\n[bold]{escape(_values(case['sweep']))}[/]", soft_wrap=True)
    for columns in (SERVICE, BILL):
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("policy", overflow="fold")
        for title, _ in columns:
            table.add_column(title, no_wrap=True)
        for each in case["policies"]:
            table.add_row(escape(each["policy"]), *(cell(each) for _, cell in columns))
        out.print(table)


def _ranged(path: str, scale: float = 1.0, unit: str = "") -> Cell:
    """A cell with the figure at a dotted path, and its interval's half-width."""

    def cell(policy: dict[str, Any]) -> str:
        estimate: Any = policy
        for part in path.split("."):
            estimate = estimate[part]
        if estimate["value"] is None:
            return "–"
        text = _number(estimate["value"] * scale)
        if estimate["low"] is None:
            return text + unit
        return f"{text} ± {_number((estimate['high'] - estimate['value']) * scale)}{unit}"

    return cell


def _lost(policy: dict[str, Any]) -> str:
    counts = {key: each["value"] for key, each in policy["requests"].items()}
    lost = (counts["cancelled"] + counts["refused"]) / counts["arrived"]
    return f"{lost:.2%}" if lost else "none"


def _resting(policy: dict[str, Any]) -> str:
    """The part of all energy in which nothing is computed."""
    parts = policy["energy_breakdown_joules"]
    resting = [name for name in ("idle", "sleep", "wake", "off") if name in parts]
    joules = sum(parts[name]["value"] for name in resting)
    return f"{joules / policy['energy_joules']['value']:.0%}"


SERVICE: tuple[tuple[str, Cell], ...] = (
    ("J/output token", _ranged("energy_per_output_token_joules")),
    ("TTFT p99 ms", _ranged("ttft_s.p99", 1e3)),
    ("SLO met", _ranged("slo_attainment_fraction", 100, "%")),
    ("TPOT p99 ms", _ranged("tpot_s.p99", 1e3)),
    ("not served", _lost),
)
BILL: tuple[tuple[str, Cell], ...] = (
    ("energy / first", _ranged("energy_ratio_to_first")),
    ("J/request", _ranged("energy_per_request_joules")),
    ("kWh, facility", _ranged("facility_energy_joules", 1 / JOULES_PER_KWH)),
    ("$", _ranged("cost_usd")),
    ("gCO2e", _ranged("emissions_gco2e")),
    ("idle, asleep", _resting),
)
"""Columns of the two tables: joules stand beside latency and service level, never alone."""


def _role(pool: dict[str, Any]) -> str:
    """Of a pool that does only a part; kept results may know none."""
    role = pool.get("role", "both")
    return "" if role == "both" else f", {role}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())


def _basis(case: dict[str, Any]) -> list[str]:
    """What the figures of a case rest on."""
    found = [
        f"pool {each['name']}: {each['count']} at {each['site']}{_role(each)}, {each['kind']}"
        + (f" ({each['source']})" if each["source"] else "")
        for each in case["pools"]
    ]
    found.append(f"joules are {case['energy_kind']}, as the least known curve of the fleet")
    found += [f"trace {each['name']}: {each['requests']} requests" for each in case["traces"][:1]]
    found += case["notes"]
    policy = case["policies"][0]
    figures = ("cost_usd", "emissions_gco2e", "slo_attainment_fraction")
    found += [
        f"{name} is not known: {policy[name]['reason']}"
        for name in figures
        if policy[name]["value"] is None
    ]
    if policy["energy_joules"]["n"] == 1:
        found.append(f"no intervals: {policy['energy_joules']['reason']}; --seeds 5 shows it")
    return found
