"""``wattbench plot``: pictures of stored runs."""

from __future__ import annotations

from pathlib import Path

import click

from wattbench.cli.options import database_option, runs_option
from wattbench.cli.show import load_points
from wattbench.core.errors import UsageError, WattbenchError

PLOTS = ("frontier",)
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
    """Draw stored runs.

    frontier: speed for one user against tokens per joule, one point per operating point, with
    intervals, kind and verdict.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {str(out)!r} must end in {', '.join(SUFFIXES)}")
    points, _ = load_points(selector, database)
    from wattbench.plots import frontier

    figure = frontier(points)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out)
    except OSError as error:
        raise WattbenchError(
            f"cannot write {out}: {error.strerror}; choose another --out"
        ) from error
    click.echo(f"Picture:  {out}")
