"""``wattbench show``: results of stored runs, concluded again; machine profiles and models."""

from __future__ import annotations

import json

import click

from wattbench.cli.calibrate import with_calibration
from wattbench.cli.machines import show_hardware, show_model
from wattbench.cli.options import (
    calibration_option,
    database_option,
    json_option,
    require_valid_option,
)
from wattbench.cli.simulate_text import show_simulation
from wattbench.cli.stored import calibration_of, load_runs
from wattbench.cli.tables import print_points, require_valid
from wattbench.core.errors import UsageError
from wattbench.results import PointResult, document, evaluate
from wattbench.store import database_url, show_url


@click.command(name="show")
@click.argument("selector", metavar="[RUN|hardware|model|simulation]", default="latest")
@click.argument("name", metavar="[NAME]", required=False)
@calibration_option
@require_valid_option
@database_option
@json_option
def command(
    *,
    selector: str,
    name: str | None,
    calibration: str | None,
    must_be_valid: bool,
    database: str | None,
    as_json: bool,
) -> None:
    """Show RUN: the id of a run or a batch, conditions such as tag=a, or latest.

    Nothing that was concluded before is trusted: metrics, intervals and verdicts are computed
    from the raw records every time.

    `show hardware NAME` and `show model NAME` print every figure of a machine profile or model
    descriptor, by its shipped name or path, with how it is known, its source and its date.
    `show simulation ID` prints a stored simulation again; latest is the last one.
    """
    if selector == "simulation":
        show_simulation(name or "latest", database, as_json=as_json)
        return
    if selector in ("hardware", "model"):
        if name is None:
            topic = "hardware" if selector == "hardware" else "models"
            raise UsageError(f"show {selector} needs a NAME; `wattbench list {topic}` has them")
        show = show_hardware if selector == "hardware" else show_model
        show(name, as_json=as_json)
        return
    if name is not None:
        raise UsageError(f"{name!r} after {selector!r}: one selector; commas stand between runs")
    points, where = load_points(selector, database, calibration)
    if as_json:
        click.echo(json.dumps(document(points, where), allow_nan=False))
    else:
        print_points(points)
    if must_be_valid:
        require_valid(points)


def load_points(
    selector: str, database: str | None, calibration: str | None = None
) -> tuple[list[PointResult], str]:
    """Results of the selected runs, and the name of their database.

    A calibration is applied as if it had travelled with the runs; nothing is stored.

    Raises:
        UsageError: If the selector means nothing or selects nothing.
        StoreError: If the database cannot be read.
    """
    url = database_url(database)
    runs = load_runs(url, selector)
    if calibration is not None:
        stored = calibration_of(url, calibration)
        runs = [with_calibration(raw, stored) for raw in runs]
    return evaluate(runs), show_url(url)
