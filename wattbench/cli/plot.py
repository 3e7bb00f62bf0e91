"""``wattbench plot``: pictures of stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wattbench.cli.options import database_option, runs_option
from wattbench.cli.show import load_points
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.store import connect, database_url, load_simulation

PLOTS = ("frontier", "policies")
SUFFIXES = (".png", ".svg", ".pdf")


@click.command(name="plot")
@click.argument("name", type=click.Choice(PLOTS), metavar="|".join(PLOTS))
@runs_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Picture to write: .png, .svg or .pdf.",
)
@database_option
def command(name: str, selector: str, out: Path, database: str | None) -> None:
    """Draw stored runs, or a stored simulation.

    frontier: speed for one user against tokens per joule, one point per operating point, with
    intervals, kind and verdict.

    policies: joules per output token against p99 TTFT of each routing policy; --runs is then the id
    of a simulation, or latest.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {str(out)!r} must end in {', '.join(SUFFIXES)}")
    figure = _policies(selector, database) if name == "policies" else _frontier(selector, database)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)
    except OSError as error:
        raise WattbenchError(
            f"cannot write {out}: {error.strerror}; choose another --out"
        ) from error
    click.echo(f"Picture:  {out}")


def _frontier(selector: str, database: str | None) -> Any:
    points, _ = load_points(selector, database)
    from wattbench.plots import frontier

    return frontier(points)


def _policies(selector: str, database: str | None) -> Any:
    engine = connect(database_url(database), create=False)
    try:
        result = load_simulation(engine, selector).result
    finally:
        engine.dispose()
    from wattbench.plots import policies

    return policies(result)
