"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range of numbers that NaN is not in, whose comparisons all fail."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number.

        Raises:
            click.BadParameter: If it is none, or outside.
        """
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which ``--help`` shows them."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


database_option = click.option(
    "--db",
    "database",
    metavar="URL",
    help="Database: a path or an SQLite URL.  [default: WATTBENCH_DB, else a file in the user's "
    "data folder]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)
require_valid_option = click.option(
    "--require-valid",
    "must_be_valid",
    is_flag=True,
    help="Exit with 1 unless both verdicts of every operating point are valid.",
)
calibration_option = click.option(
    "--calibration",
    metavar="ID|latest",
    help="A calibration from `wattbench calibrate`, for joules at the wall.",
)
runs_option = click.option(
    "--runs",
    "selector",
    default="latest",
    show_default=True,
    metavar="SELECTOR",
    help="Which runs: ids with commas between, conditions such as tag=a,workload=chat,"
    "hardware=…,backend=…,since=2026-03-31, or latest.",
)
