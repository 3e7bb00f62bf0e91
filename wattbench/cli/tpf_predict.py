"""``wattbench tpf predict``: the fitted function at a point, measured or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table as Printed

from wattbench.cli.options import database_option, json_option
from wattbench.cli.tables import console
from wattbench.cli.tpf_points import point_options, points_table, sizes_of
from wattbench.core.errors import UsageError, did_you_mean
from wattbench.tpf.function import Prediction, fit
from wattbench.tpf.table import CONCURRENCY, ENERGY, POWER, RATE, Table, table_of


@click.command(name="predict")
@point_options
@click.option(
    "--at",
    "asked",
    multiple=True,
    required=True,
    metavar="concurrency=N[,COL=VALUE…]",
    help="A point; columns that the table has one value of may be left out. May be repeated.",
)
@database_option
@json_option
def command(
    selector: str | None,
    file: Path | None,
    by: str | None,
    *,
    asked: tuple[str, ...],
    database: str | None,
    as_json: bool,
) -> None:
    """Predict joules per output token, tokens per second and power, with a 90 % band.

    A point of a measured sweep is read off its curve. A machine with a model that was not measured
    with it is carried over from the machine, the model and their neighbours in size and count,
    with the band that such points had when they were left out. Outside of the concurrencies that
    were measured the command refuses.

    \b
    Examples:
      wattbench tpf predict --runs tag=sweep --at concurrency=24
      wattbench tpf predict --csv points.csv --by machine,model,task \\
        --at machine=H100,model=llama-3.1-70b,task=chat,concurrency=96
    """  # noqa: D301 - click reads the backslash
    table = points_table(selector, file, by, database)
    rows = [_row(table, text) for text in asked]
    function = fit(table)
    found = function.predict(table_of(rows, table.by))
    shown = [_json(row, each) for row, each in zip(rows, found, strict=True)]
    if as_json:
        told = {"schema_version": 1, "band_fraction": 0.9}
        click.echo(json.dumps({**told, "energy_boundary": table.boundary or None, "points": shown}))
    else:
        _print(shown, table.boundary or "not told in the table")


def _row(table: Table, text: str) -> dict[str, str | float]:
    """A point as asked for, completed from the table."""
    row: dict[str, str | float] = {}
    known = [CONCURRENCY, *table.words, *table.numbers]
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or name not in known:
            raise UsageError(
                f"--at {text!r}: {part!r} is not COL=VALUE of one of {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
        if name in row:
            raise UsageError(f"--at {text!r}: {name} stands there twice")
        row[name] = value
    if CONCURRENCY not in row:
        raise UsageError(f"--at {text!r}: it has no concurrency=N")
    for name in (CONCURRENCY, *table.numbers):
        if name in row:
            row[name] = _positive(f"--at {text!r}: {name}", str(row[name]))
    return _completed(table, text, row)


def _positive(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{place} is {text!r}; it must be a number above 0")
    return value


def _completed(table: Table, text: str, row: dict[str, str | float]) -> dict[str, str | float]:
    for name in table.words:
        values = list(dict.fromkeys(table.words[name]))
        if name in row:
            continue
        if name in table.by and len(values) > 1:
            raise UsageError(f"--at {text!r}: it has no {name}; one of {', '.join(values)}")
        row[name] = values[0] if len(values) == 1 else ""
    model = str(row.get("model", ""))
    if model not in table.words.get("model", ()):
        row = {**{k: v for k, v in sizes_of(model).items() if k in table.numbers}, **row}
    for name in table.numbers:
        if name not in row and name in table.by:
            row |= _only(table, name, text)
    return row


def _only(table: Table, name: str, text: str) -> dict[str, float]:
    """A number that names a sweep, if the table has one value of it."""
    values = set(table.numbers[name])
    if len(values) > 1:
        known = ", ".join(f"{value:g}" for value in sorted(values))
        raise UsageError(f"--at {text!r}: it has no {name}; one of {known}")
    return {name: float(values.pop())}


def _json(row: Mapping[str, str | float], found: Prediction) -> dict[str, Any]:
    bands = {RATE: found.output_tokens_per_s, POWER: found.mean_power_watts}
    unknown = {"value": None, "reason": "too_few_rates"}
    return {
        "point": dict(row),
        "measured_points": found.measured_points,
        "unseen": list(found.unseen),
        ENERGY: found.energy_per_output_token_joules.as_json(),
        **{name: band.as_json() if band else unknown for name, band in bands.items()},
    }


def _print(shown: list[dict[str, Any]], boundary: str) -> None:
    table = Printed("point", "J / output token", "output tokens/s", "W", "from")
    for each in shown:
        point = ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in each["point"].items()
            if value
        )
        count = each["measured_points"]
        source = f"{count} points of this sweep" if count else "other sweeps"
        if each["unseen"]:
            source += f"; nothing is known of {', '.join(each['unseen'])}"
        cells = [_cell(each[name]) for name in (ENERGY, RATE, POWER)]
        table.add_row(escape(point), *cells, source)
    console().print(table)
    console().print(
        f"Boundary of the joules: {boundary}. All figures are modelled. Bands hold nine of ten "
        f"points that were left out; what nothing is known of widens them by an assumption.",
        soft_wrap=True,
    )


def _cell(number: Mapping[str, Any]) -> str:
    if number["value"] is None:
        return "unknown"
    return f"{number['value']:.4g} \\[{number['low']:.4g}, {number['high']:.4g}]"
