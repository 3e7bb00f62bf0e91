"""Operating points for the Token Production Function: a CSV file, or stored runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from wattbench.cli.options import together
from wattbench.cli.stored import load_runs
from wattbench.core.errors import UsageError
from wattbench.core.result import Estimate
from wattbench.hardware import load_model, model_names
from wattbench.results import PointResult, evaluate
from wattbench.store import database_url
from wattbench.tpf.table import (
    BOUNDARIES,
    CONCURRENCY,
    ENERGY,
    POWER,
    RATE,
    WIDTH,
    Table,
    read_table,
    table_of,
)

RUN_COLUMNS = ("machine", "machine_count", "model", "precision", "engine", "task")
"""What names a sweep among stored runs."""
CSV_COLUMNS = ("group",)
WORSE = ("modelled", "nameplate")
"""Kinds of joules that are never fitted together with measured ones."""

_OPTIONS = (
    click.option("--runs", "selector", metavar="SELECTOR", help="Stored runs, such as tag=sweep."),
    click.option(
        "--csv",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A table: the columns of --by, concurrency and energy_per_output_token_joules; "
        "output_tokens_per_s, mean_power_watts, energy_half_width_fraction and descriptors where "
        "they are known.",
    ),
    click.option(
        "--by",
        metavar="COL,…",
        help=f"Columns that together name a sweep.  [default: {','.join(CSV_COLUMNS)} of a table, "
        f"{','.join(RUN_COLUMNS)} of runs]",
    ),
)


def point_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--runs``, ``--csv`` and ``--by``."""
    return together(*_OPTIONS)(command)


def points_table(
    selector: str | None, file: Path | None, by: str | None, database: str | None
) -> Table:
    """The operating points asked for.

    Raises:
        UsageError: If none or both sources are named, or runs cannot be fitted together.
    """
    if (selector is None) == (file is None):
        raise UsageError("name operating points by --csv FILE or by --runs SELECTOR, one of them")
    columns = tuple(name.strip() for name in by.split(",") if name.strip()) if by else None
    if file is not None:
        return read_table(file, columns or CSV_COLUMNS)
    points = evaluate(load_runs(database_url(database), str(selector)))
    return table_of(rows_of(points), columns or RUN_COLUMNS)


def rows_of(points: Sequence[PointResult]) -> list[dict[str, str | float]]:
    """A row for each operating point that has joules per output token.

    Raises:
        UsageError: If joules of unlike boundaries, or measured and modelled ones, would be mixed,
            or no point has any.
    """
    known = [p for p in points if p.facts.metrics[ENERGY].value]
    if not known:
        raise UsageError("none of these runs has joules per output token; wattbench check says why")
    _alike([str(_boundary(p)) for p in known], "boundary")
    _alike(["modelled" if p.facts.headline.kind in WORSE else "measured" for p in known], "kind")
    return [_row(point) for point in known]


def _alike(values: Sequence[str], what: str) -> None:
    if len(set(values)) > 1:
        raise UsageError(
            f"joules of unlike {what} ({', '.join(sorted(set(values)))}) cannot be fitted "
            f"together; choose runs of one {what} with --runs"
        )


def _boundary(point: PointResult) -> str | None:
    domain = point.facts.headline.domain
    return domain.boundary if domain else None


def _row(point: PointResult) -> dict[str, str | float]:
    record = point.facts.runs[0].raw.record
    metrics = point.facts.metrics
    row: dict[str, str | float] = {
        "machine": str(record.hardware.get("name") or "unknown"),
        "machine_count": float(len(point.facts.headline.devices) or 1),
        "model": record.engine.model,
        "precision": record.engine.mode.precision or "",
        "engine": record.engine.engine,
        "task": str(record.workload.get("name") or ""),
        CONCURRENCY: _concurrency(point),
        BOUNDARIES[0]: str(_boundary(point) or ""),
        **sizes_of(record.engine.model),
    }
    for name in (ENERGY, RATE, POWER):
        row[name] = _value(metrics[name])
    context_tokens = _context_tokens(point)
    if context_tokens is not None:
        row["context_tokens"] = context_tokens
    energy = metrics[ENERGY]
    if energy.value and energy.low is not None and energy.high is not None:
        row[WIDTH] = (energy.high - energy.low) / 2 / energy.value
    return row


def _context_tokens(point: PointResult) -> float | None:
    """What a request looks back on at the middle of its answer: prompt and half of the answer."""
    totals = point.facts.totals
    if totals is None or not totals.request_count or totals.input_tokens is None:
        return None
    return (totals.input_tokens + totals.output_tokens / 2) / totals.request_count


def _value(estimate: Estimate) -> float:
    return math.nan if estimate.value is None else estimate.value


def _concurrency(point: PointResult) -> float:
    """As it was set, else by Little's law: requests per second times their mean time."""
    stated = point.facts.runs[0].raw.record.operating_point.get("concurrency")
    if isinstance(stated, int | float):
        return float(stated)
    times_s = [
        request.end_s - request.sent_s for run in point.facts.runs for request in run.raw.requests
    ]
    rate = _value(point.facts.metrics["requests_per_s"])
    if not times_s or math.isnan(rate):
        raise UsageError(
            f"run {point.facts.runs[0].raw.record.run_id} has no concurrency, and none follows "
            f"from its requests; leave it out of --runs"
        )
    return rate * sum(times_s) / len(times_s)


def sizes_of(model: str) -> dict[str, float]:
    """Parameters of a model that a descriptor of its name tells."""
    name = model.rpartition("/")[2].lower()
    if name not in model_names():
        return {}
    found = load_model(name)
    return {
        "active_params_billions": found.active_parameters / 1e9,
        "total_params_billions": found.parameters / 1e9,
    }
