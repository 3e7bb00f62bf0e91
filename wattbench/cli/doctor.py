"""``wattbench doctor``: what this machine can run and measure, and what to do about the rest."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape

from wattbench import plugins
from wattbench.cli.options import json_option
from wattbench.cli.tables import console
from wattbench.hardware.detect import cpu_title, is_virtual
from wattbench.plugins import Group


@click.command(name="doctor")
@json_option
def command(as_json: bool) -> None:
    """Tell what can be run and measured here, and why the rest cannot."""
    report = {
        "schema_version": 1,
        "machine": {"cpu": cpu_title(), "virtual_machine": is_virtual()},
        "backends": _examine("backends"),
        "meters": _examine("meters"),
        "advice": _advice(),
    }
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(report)


def _examine(group: Group) -> list[dict[str, Any]]:
    rows = []
    for name in plugins.names(group):
        plugin = plugins.find(group, name)
        reason = plugin.availability()
        about = (plugin.__doc__ or "").strip().partition("\n")[0].replace("``", "")
        rows.append({"name": name, "usable": reason is None, "reason": reason, "about": about})
    return rows


def _advice() -> list[str]:
    advice = [
        "No energy sensor is read yet: joules measured on this machine are modelled from CPU load "
        "and carry a wide interval. With the package's design power they get narrower: "
        "--meter cpu-load,tdp_watts=WATTS."
    ]
    if is_virtual():
        advice.append(
            "This is a virtual machine: it sees a share of a processor and none of its sensors. "
            "Measure on the host for anything that must be believed."
        )
    return advice


def _print(report: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]Machine[/]  {escape(report['machine']['cpu'])}")
    for group in ("backends", "meters"):
        out.print(f"\n[bold]{group.capitalize()}[/]")
        for row in report[group]:
            mark = "[green]✓[/]" if row["usable"] else "[red]✗[/]"
            text = row["about"] if row["usable"] else f"{row['about']} Not here: {row['reason']}"
            out.print(f" {mark} [bold]{row['name']}[/]: {escape(text)}")
    out.print("\n[bold]Advice[/]")
    for line in report["advice"]:
        out.print(f" · {escape(line)}")
