"""``wattbench export``: stored runs as files, for other tools and other stores."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wattbench.cli.options import database_option, json_option, runs_option
from wattbench.cli.stored import load_runs
from wattbench.core.errors import WattbenchError
from wattbench.exports import FORMATS
from wattbench.store import database_url


@click.command(name="export")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="wattbench: all records of the runs, for `wattbench import`; parquet needs the extra "
    "wattbench[parquet].",
)
@runs_option
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("export"),
    show_default=True,
    help="Folder for the files; one that is there already is not overwritten.",
)
@click.option("--force", is_flag=True, help="Overwrite files.")
@database_option
@json_option
def command(
    form: str, selector: str, folder: Path, *, force: bool, database: str | None, as_json: bool
) -> None:
    """Write stored runs as files of another tool's format, or of this project's own.

    What a format has no place for is left out; what is unknown is missing in it, never zero.

    \b
    Examples:
      wattbench export --format csv --runs tag=night --out night/
      wattbench export --format wattbench --runs latest
    """  # noqa: D301 - click reads the backslash
    runs = load_runs(database_url(database), selector)
    paths = []
    for name, content in FORMATS[form](runs):
        path = folder / name
        if path.exists() and not force:
            raise WattbenchError(f"{path} is there already; --force overwrites it")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise WattbenchError(f"{path}: cannot be written ({error.strerror})") from error
        paths.append(str(path))
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "format": form, "files": paths}))
    else:
        click.echo("\n".join(paths))
