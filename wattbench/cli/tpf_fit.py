"""``wattbench tpf fit``: one function over many sweeps, and how far off it is elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape
from rich.table import Table as Printed

from wattbench.cli.options import database_option, json_option
from wattbench.cli.tables import console
from wattbench.cli.tpf_points import point_options, points_table
from wattbench.core.errors import UsageError
from wattbench.tpf.forms import best_form, form_errors, formula_of
from wattbench.tpf.function import Prediction, TokenProductionFunction, fit
from wattbench.tpf.table import ENERGY, Table
from wattbench.tpf.validate import Validation, leave_group_out, leave_one_out, rank_pairs

Told = Callable[[str], None]


@click.command(name="fit")
@point_options
@click.option(
    "--validate",
    "scheme",
    metavar="loo|leave-group-out:COL[,COL…]",
    help="Predict points that nothing fitted has seen: each interior point of the sweeps of five "
    "or more, or all of each combination of some columns.",
)
@database_option
@json_option
def command(
    selector: str | None,
    file: Path | None,
    by: str | None,
    *,
    scheme: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Fit joules per output token against concurrency, over every sweep at once.

    Sweeps lend each other their shape: three points of a new one give a usable curve with an
    honest band. Simple formulas are fitted to each sweep alone beside it, and what is off least on
    left-out points is named.

    \b
    Examples:
      wattbench tpf fit --runs tag=sweep
      wattbench tpf fit --csv points.csv --by machine,model --validate loo
      wattbench tpf fit --csv points.csv --by machine,machine_count,model,precision,task \\
        --validate leave-group-out:machine,model --json
    """  # noqa: D301 - click reads the backslash
    table = points_table(selector, file, by, database)
    out = console(to_stderr=True)
    with out.status("fitting …") if out.is_terminal else nullcontext() as status:

        def told(text: str) -> None:
            if status is not None:
                status.update(f"validating, {text} …")

        function = fit(table)
        found = _validation(table, scheme, told) if scheme else None
    shown = _json(function) | (_validation_json(found, str(scheme)) if found else {})
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        _print(shown)


def _validation(table: Table, scheme: str, told: Told) -> Validation:
    name, _, columns = scheme.partition(":")
    if name == "loo" and not columns:
        return leave_one_out(table, told)
    if name == "leave-group-out" and columns:
        return leave_group_out(table, [each.strip() for each in columns.split(",")], told)
    raise UsageError(
        f"--validate {scheme!r}: it is loo, or leave-group-out:COL[,COL…] with columns of the table"
    )


def _json(function: TokenProductionFunction) -> dict[str, Any]:
    table = function.table
    errors = form_errors(table, function.energy)
    curve = function.predict(table)
    groups = table.groups().items()
    return {
        "schema_version": 1,
        "by": list(table.by),
        "points": len(table),
        "energy_boundary": table.boundary or None,
        "form": best_form(errors),
        "form_errors": {name: _errors(off) for name, off in errors.items()},
        "groups": [_group_json(table, key, rows, errors, curve) for key, rows in groups],
        "parts": function.energy.explained(),
    }


def _group_json(
    table: Table,
    key: tuple[str, ...],
    rows: np.ndarray,
    errors: dict[str, np.ndarray],
    curve: Sequence[Prediction],
) -> dict[str, Any]:
    own = {name: off[rows] for name, off in errors.items()}
    points = table.take(rows)
    return {
        "group": dict(zip(table.by, key, strict=True)),
        "points": len(rows),
        "concurrency": [float(points.concurrency_count[0]), float(points.concurrency_count[-1])],
        "form": best_form(own),
        "parameters": formula_of(points, own),
        "errors": {name: _errors(off) for name, off in own.items()},
        "curve": [
            {
                "concurrency": float(table.concurrency_count[row]),
                "measured_joules": float(table.energy_per_output_token_joules[row]),
                ENERGY: curve[row].energy_per_output_token_joules.as_json(),
            }
            for row in rows
        ],
    }


def _errors(off: np.ndarray) -> dict[str, Any]:
    """Absolute relative errors of left-out interior points, in a few numbers."""
    known = np.abs(off[np.isfinite(off)])
    if not len(known):
        return {"median": None, "p90": None, "p95": None, "n": 0, "reason": "too_few_points"}
    median, p90, p95 = (float(v) for v in np.quantile(known, [0.5, 0.9, 0.95]))
    return {"median": median, "p90": p90, "p95": p95, "n": len(known)}


def _validation_json(found: Validation, scheme: str) -> dict[str, Any]:
    pairs = rank_pairs(found)
    return {
        "validation": {
            "scheme": scheme,
            **_errors(found.error_fractions),
            "band_coverage_90": float(found.inside.mean()),
            "band_median_half_width": float(np.median(found.half_width_fractions)),
        },
        "pairs": {
            "declared_fraction": pairs.declared / pairs.count if pairs.count else None,
            "ordered_right_fraction": pairs.right / pairs.declared if pairs.declared else None,
            "n": pairs.count,
        },
    }


def _print(shown: dict[str, Any]) -> None:
    out = console()
    groups = shown["groups"]
    boundary = shown["energy_boundary"] or "not told in the table"
    out.print(
        f"{shown['points']} points of {len(groups)} sweeps by {', '.join(shown['by'])}; boundary "
        f"of the joules: {boundary}",
        soft_wrap=True,
    )
    table = Printed("sweep", "points", "concurrency", "J / output token", "form", "off (median)")
    for group in groups:
        ends = [group["curve"][0], group["curve"][-1]]
        off = group["errors"][group["form"]]["median"]
        table.add_row(
            escape(" ".join(text for text in group["group"].values() if text)),
            str(group["points"]),
            " to ".join(f"{c:.4g}" for c in dict.fromkeys(group["concurrency"])),
            " to ".join(f"{e['energy_per_output_token_joules']['value']:.4g}" for e in ends),
            escape(group["form"]),
            "too few points" if off is None else f"{off:.1%}",
        )
    out.print(table)
    table = Printed("form", "left-out points", "median", "p90", "p95")
    for name, off in shown["form_errors"].items():
        texts = ["–" if off[key] is None else f"{off[key]:.1%}" for key in ("median", "p90", "p95")]
        table.add_row(escape(name), str(off["n"]), *texts)
    out.print(table)
    if "validation" in shown:
        _print_validation(shown)


def _print_validation(shown: dict[str, Any]) -> None:
    out, found, pairs = console(), shown["validation"], shown["pairs"]
    out.print(
        f"{found['scheme']}: {found['n']} points that nothing fitted has seen are off by "
        f"{found['median']:.1%} (median), {found['p90']:.1%} (p90), {found['p95']:.1%} (p95); "
        f"{found['band_coverage_90']:.0%} lie in their 90 % band, "
        f"± {found['band_median_half_width']:.1%} at the median.",
        soft_wrap=True,
    )
    if pairs["n"]:
        right = pairs["ordered_right_fraction"]
        order = "" if right is None else f", {right:.1%} of them in the right order"
        out.print(
            f"Of {pairs['n']} pairs at one task and concurrency {pairs['declared_fraction']:.0%} "
            f"are told apart{order}.",
            soft_wrap=True,
        )
