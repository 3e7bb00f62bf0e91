"""``wattbench tpf levers``: published what-ifs, each with its source."""

from __future__ import annotations

import json

import click
from rich.markup import escape
from rich.table import Table as Printed

from wattbench.cli.options import json_option
from wattbench.cli.tables import console
from wattbench.tpf.bands import Band
from wattbench.tpf.levers import LEVERS


@click.command(name="levers")
@json_option
def command(as_json: bool) -> None:
    """List what-ifs for ``tpf ceilings --lever``: multipliers, cost in quality, source."""
    if as_json:
        levers = [
            {
                "name": lever.name,
                "about": lever.about,
                "energy_ratio": lever.energy_ratio.as_json(),
                "flops_ratio": lever.flops_ratio.as_json(),
                "quality_change_fraction": lever.quality_change_fraction,
                "source": lever.source,
            }
            for lever in LEVERS
        ]
        click.echo(json.dumps({"schema_version": 1, "levers": levers}))
        return
    table = Printed("lever", "joules ×", "FLOP ×", "quality", "what and where")
    for lever in LEVERS:
        change = lever.quality_change_fraction
        table.add_row(
            lever.name,
            _cell(lever.energy_ratio),
            _cell(lever.flops_ratio),
            "unknown" if change is None else f"{change:+.2f}",
            escape(f"{lever.about}. {lever.source}"),
        )
    console().print(table)


def _cell(band: Band) -> str:
    guess = ", assumed" if band.kind == "assumed" else ""
    return f"{band.value:.3g} ({band.low:.3g} to {band.high:.3g}{guess})"
