"""``wattbench check``: may the numbers of a stored run be trusted?"""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape

from wattbench.cli.options import database_option, json_option, require_valid_option
from wattbench.cli.show import load_points
from wattbench.cli.tables import MARKS, STYLES, console, require_valid
from wattbench.results import PointResult


@click.command(name="check")
@click.argument("selector", metavar="[RUN]", default="latest")
@require_valid_option
@database_option
@json_option
def command(selector: str, must_be_valid: bool, database: str | None, as_json: bool) -> None:
    """Check RUN again from its raw samples: the id of a run or batch, conditions, or latest.

    The performance verdict and the energy verdict are separate. Codes are explained in the
    reference.
    """
    points, where = load_points(selector, database)
    if as_json:
        shown = {"schema_version": 1, "db": where, "points": [_point(point) for point in points]}
        click.echo(json.dumps(shown))
    else:
        _print(points)
    if must_be_valid:
        require_valid(points)


def _point(point: PointResult) -> dict[str, Any]:
    return {
        "run_ids": [run.raw.record.run_id for run in point.facts.runs],
        "operating_point": dict(point.facts.runs[0].raw.record.operating_point),
        "verdict": {"performance": point.performance, "energy": point.energy},
        "findings": [
            {"code": f.code, "severity": f.severity, "scope": f.scope, "message": f.message}
            for f in point.findings
        ],
    }


def _print(points: list[PointResult]) -> None:
    out = console()
    for point in points:
        runs = ", ".join(run.raw.record.run_id for run in point.facts.runs)
        load = point.facts.runs[0].raw.record.operating_point
        shown = " ".join(f"{key} {value}" for key, value in load.items())
        out.print(f"[bold]{escape(shown)}[/]  [dim]{escape(runs)}[/]", soft_wrap=True)
        for scope, verdict in (("performance", point.performance), ("energy", point.energy)):
            out.print(f"  {scope} [{STYLES[verdict]}]{verdict}[/]")
        for finding in point.findings:
            mark = MARKS[finding.severity]
            out.print(f"  {mark} [bold]{finding.code}[/]: {escape(finding.message)}")
