"""Options about logs of other programs that several commands share."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import click

from wattbench.cli.options import Decorator, together
from wattbench.core.energy import Boundary
from wattbench.interchange import FORMATS, LoggedChannel, LogOptions, read_log


def log_options(log_help: str, format_help: str) -> Decorator:
    """Options that tell which log is meant, and what of it."""
    return together(
        click.option(
            "--log",
            "path",
            required=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=log_help,
        ),
        click.option(
            "--format",
            "log_format",
            type=click.Choice(FORMATS),
            default="csv",
            show_default=True,
            help=format_help,
        ),
        click.option("--column", metavar="NAME", help="Which column, if several can be meant."),
        click.option(
            "--device",
            metavar="ID",
            help="Which device, if the log has several: its index or its id.",
        ),
    )


def boundary_option(default: str) -> Decorator:
    """What the meter includes; the default is told in words."""
    return click.option(
        "--boundary",
        type=click.Choice(get_args(Boundary)),
        help=f"What the meter includes.  [default: {default}]",
    )


def prior_options(default: str) -> Decorator:
    """Priors on the meter's gain and offset; the default is told in words."""
    return together(
        click.option(
            "--gain-half-width-fraction",
            type=click.FloatRange(min=0),
            help=f"Prior on true/read − 1: uniform within ± this.  [default: {default}]",
        ),
        click.option(
            "--offset-half-width-watts",
            type=click.FloatRange(min=0),
            help=f"Prior on true − read: uniform within ± this [W].  [default: {default}]",
        ),
    )


def instant(_context: click.Context, _option: click.Parameter, text: str) -> float:
    """Seconds of the log's clock, or a date and time as Unix seconds."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither seconds nor a time such as 2026-03-31T14:05:12"
        ) from None


def _offset_s(
    _context: click.Context, _option: click.Parameter, hours: float | None
) -> float | None:
    return None if hours is None else 3600.0 * hours


clocked_log_options = together(
    click.option(
        "--utc-offset-hours",
        "utc_offset_s",
        type=click.FloatRange(-24, 24, min_open=True, max_open=True),
        callback=_offset_s,
        help="Local time of the log minus UTC.  [default: this machine's zone]",
    ),
    click.option(
        "--start-unix-s",
        type=float,
        help="Time of the first row of a log without times (dcgm).",
    ),
    click.option(
        "--period-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Time between two rows of a log without times (dcgm).",
    ),
)
"""Options that tell what the times of a log mean."""


def read_channels(options: dict[str, Any]) -> list[LoggedChannel]:
    """The channels of the log that ``log_options`` and ``clocked_log_options`` tell of.

    Raises:
        UsageError: If it cannot be read, or says something that cannot be meant.
    """
    known = LogOptions(
        column=options["column"],
        utc_offset_s=options["utc_offset_s"],
        start_unix_s=options["start_unix_s"],
        period_s=options["period_s"],
    )
    return read_log(options["path"], options["log_format"], known)
