"""Options about logs of other programs that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

column_option = click.option(
    "--column", metavar="NAME", help="Which column, if several can be meant."
)
device_option = click.option(
    "--device", metavar="ID", help="Which device, if the log has several: its index or its id."
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


def clocked_log_options(command: F) -> F:
    """Options that tell what the times of a log mean."""
    for add in (
        click.option(
            "--period-s",
            type=click.FloatRange(min=0, min_open=True),
            help="Time between two rows of a log without times (dcgm).",
        ),
        click.option(
            "--start-unix-s",
            type=float,
            help="Time of the first row of a log without times (dcgm).",
        ),
        click.option(
            "--utc-offset-hours",
            "utc_offset_s",
            type=click.FloatRange(-24, 24, min_open=True, max_open=True),
            callback=_offset_s,
            help="Local time of the log minus UTC.  [default: this machine's zone]",
        ),
    ):
        command = add(command)
    return command
