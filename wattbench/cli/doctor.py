"""``wattbench doctor``: what this machine can run and measure, and what to do about the rest."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from wattbench.cli import examine
from wattbench.cli.options import json_option
from wattbench.cli.tables import console, number
from wattbench.hardware.detect import cpu_title, is_virtual

CHARACTERISE_S = 12.0
"""How long ``--characterise`` looks [s]."""
QUANTITIES = {"power": "power", "energy_counter": "energy counter"}


@click.command(name="doctor")
@click.option(
    "--meter",
    "meters",
    multiple=True,
    metavar="NAME[,KEY=VALUE…]",
    help="Look at this meter only; may be repeated.  [default: all, with their defaults]",
)
@click.option(
    "--characterise",
    is_flag=True,
    help="Load CPU and GPU every other half second meanwhile, and tell what sensors make of it.",
)
@json_option
def command(*, meters: tuple[str, ...], characterise: bool, as_json: bool) -> None:
    """Tell what can be run and measured here, and what to do about the rest.

    Each meter is started for a moment: what it measures, how often that is new and what a read
    costs are measured here and now. A meter that does not work says why, and the line that helps.
    With --meter the exit code is 1 unless all of them work.

    \b
    Examples:
      wattbench doctor
      wattbench doctor --meter redfish,url=https://BMC --meter agent,url=http://HOST:9467
      wattbench doctor --meter rapl,root=/host --characterise
    """  # noqa: D301 - click reads the backslash
    from wattbench.cli.square_wave import square_wave

    progress = Console(stderr=True)
    look_s = CHARACTERISE_S if characterise else examine.LOOK_S
    shown = progress.is_terminal and not as_json
    loads: list[str] = []
    with ExitStack() as meanwhile:
        if shown:
            meanwhile.enter_context(progress.status(f"looking for {look_s + 2:.0f} s …"))
        if characterise:
            loads = meanwhile.enter_context(square_wave())
        rows = examine.meters(meters, look_s)
    report = {
        "schema_version": 1,
        "machine": {
            "cpu": cpu_title(),
            "virtual_machine": is_virtual(),
            "container": _in_container(),
            "loaded": [*loads],
        },
        "backends": [] if meters else examine.backends(),
        "meters": rows,
        "module_clashes": examine.module_clashes(),
        "advice": _advice(rows, asked=bool(meters)),
    }
    if as_json:
        click.echo(json.dumps(report, allow_nan=False))
    else:
        _print(report)
    if meters and not all(row["usable"] for row in rows):
        raise SystemExit(1)


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(Path(mark).exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


def _advice(rows: list[dict[str, Any]], *, asked: bool) -> list[str]:
    """The one thing to do next."""
    sensed = [row for row in rows if row["usable"] and _kinds(row) & {"counter", "integrated"}]
    if sensed:
        meters = " ".join(f"--meter {row['spec']}" for row in _apart(sensed))
        return [f"Measure with what is here: wattbench run WORKLOAD {meters}"]
    if asked:
        usable = [row["spec"] for row in rows if row["usable"]]
        if usable:
            return [f"No sensor among them, but usable: {', '.join(usable)}."]
        return ["None of them can be used as it was given; see above for each."]
    advice = [
        "No sensor can be read here: joules are modelled from CPU load and carry a wide interval. "
        "With the package's design power they get narrower: --meter cpu-load,tdp_watts=WATTS."
    ]
    if is_virtual():
        advice.append(
            "This is a virtual machine: it sees a share of a processor and none of its sensors. "
            "For joules to be believed, run `wattbench agent` on the host, or meter it from "
            "outside with redfish, ipmi or external."
        )
    return advice


def _apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without those that measure what another one measures too: a run refuses the two of them."""
    chosen: list[dict[str, Any]] = []
    names: set[str] = set()
    for row in rows:
        own = {domain["domain"] for domain in row["domains"]}
        if not own & names:
            chosen.append(row)
            names |= own
    return chosen


def _kinds(row: dict[str, Any]) -> set[str]:
    return {domain["kind"] for domain in row["domains"]}


def _print(report: dict[str, Any]) -> None:
    out = console()
    machine = report["machine"]
    where = " (virtual machine)" if machine["virtual_machine"] else ""
    where += " (container)" if machine["container"] else ""
    _say(out, f"[bold]Machine[/]  {escape(machine['cpu'])}{where}")
    if report["backends"]:
        _say(out, "\n[bold]Backends[/]")
    for row in report["backends"]:
        _print_row(out, row)
    _say(out, "\n[bold]Meters[/]")
    for row in sorted(report["meters"], key=_order):
        _print_row(out, row)
        for domain in row["domains"]:
            _say(out, f"     {_domain_line(domain)}")
    for clash in report["module_clashes"]:
        _say(out, f" [red]✗[/] [bold]module {clash['module']}[/]: {escape(clash['reason'])}")
        _say(out, f"     → {escape(clash['fix'])}")
    _say(out, "\n[bold]Next[/]")
    for line in report["advice"]:
        _say(out, f" · {escape(line)}")


def _order(row: dict[str, Any]) -> int:
    """What works first, then what has to be told more, then what is not here."""
    return {True: 0, None: 1, False: 2}[row["usable"]]


def _print_row(out: Console, row: dict[str, Any]) -> None:
    mark = {True: "[green]✓[/]", None: "[blue]·[/]", False: "[red]✗[/]"}[row["usable"]]
    cost_s = row.get("read_cost_s")
    cost = f" [dim]({number(cost_s * 1e3)} ms of CPU a read)[/]" if cost_s else ""
    _say(
        out,
        f" {mark} [bold]{escape(row.get('spec', row['name']))}[/]: {escape(row['about'])}{cost}",
    )
    if row["reason"]:
        _say(out, f"     {'not here: ' if row['usable'] is False else ''}{escape(row['reason'])}")
    if row["fix"]:
        _say(out, f"     → {escape(row['fix'])}")


def _domain_line(domain: dict[str, Any]) -> str:
    """One domain: what, of what, how often, how sure."""
    current = f" {domain['current'].upper()}" if domain["current"] else ""
    parts = [QUANTITIES[domain["quantity"]], f"{domain['kind']}, {domain['boundary']}{current}"]
    if domain["update_period_s"]:
        parts.append(f"new every {number(domain['update_period_s'] * 1e3)} ms")
    if domain["averaging_window_s"]:
        parts.append(f"mean over {number(domain['averaging_window_s'] * 1e3)} ms")
    if domain["coverage_fraction"] not in (1.0, None):
        parts.append(f"sees {domain['coverage_fraction']:.0%} of the time")
    gain, offset = domain["gain_half_width_fraction"], domain["offset_half_width_watts"]
    doubts = [f"± {gain:.0%}"] * bool(gain) + [f"± {number(offset)} W"] * bool(offset)
    if doubts:
        parts.append(" ".join(doubts))
    return f"[cyan]{escape(domain['domain'])}[/]  {' · '.join(parts)}"


def _say(out: Console, line: str) -> None:
    """One line, unbroken, so that it can be copied."""
    out.print(line, soft_wrap=True)
