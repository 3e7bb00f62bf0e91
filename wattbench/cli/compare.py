"""``wattbench compare``: is the difference between two stored results real?"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from wattbench.cli.options import database_option, json_option
from wattbench.cli.show import load_points
from wattbench.cli.tables import console, number
from wattbench.comparison import Difference, Gate, caveats, compare, parse_gate
from wattbench.core.errors import UsageError
from wattbench.core.run import Mode
from wattbench.results import PointResult

CROSSED = 3
"""Exit code when a difference is real and crosses a gate."""
Pair = tuple[PointResult, PointResult]


@click.command(name="compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="METRIC>+N%",
    help="Exit with 3 if this difference is real and larger; may be repeated.",
)
@database_option
@json_option
def command(
    first: str, second: str, gates: tuple[str, ...], database: str | None, as_json: bool
) -> None:
    """Say for each metric whether B differs from A, and how small a difference could be seen.

    A and B are ids of runs or batches, or conditions such as tag=before. Operating points with the
    same load are compared; if each side has one only, these two.

    \b
    Examples:
      wattbench compare tag=before tag=after
      wattbench compare 20260330-101500-a1b2c3 latest \\
        --fail-if 'energy_per_output_token_joules>+2%' --fail-if 'ttft_s.p95>+10%'
    """  # noqa: D301 - click reads the backslash
    limits = [parse_gate(text) for text in gates]
    points_a, where = load_points(first, database)
    points_b, _ = load_points(second, database)
    pairs = _pairs(points_a, points_b)
    rows = [(pair, compare(*pair)) for pair in pairs]
    crossed = [
        {"operating_point": _load(pair[1]), "gate": text}
        for pair, differences in rows
        for gate, text in zip(limits, gates, strict=True)
        if gate.crossed(differences)
    ]
    if as_json:
        click.echo(json.dumps(_document(rows, crossed, where), allow_nan=False))
    else:
        _print(rows, limits, crossed)
    if crossed:
        raise SystemExit(CROSSED)


def _pairs(first: list[PointResult], second: list[PointResult]) -> list[Pair]:
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    by_load = {json.dumps(_load(point), sort_keys=True): point for point in second}
    pairs = [
        (point, by_load[key])
        for point in first
        if (key := json.dumps(_load(point), sort_keys=True)) in by_load
    ]
    if not pairs:
        loads = [", ".join(str(_load(point)) for point in side) for side in (first, second)]
        raise UsageError(f"no operating point is on both sides: A has {loads[0]}; B has {loads[1]}")
    return pairs


def _load(point: PointResult) -> dict[str, Any]:
    return dict(point.facts.runs[0].raw.record.operating_point)


def _mode(point: PointResult) -> Mode:
    return point.facts.runs[0].raw.record.engine.mode


def _document(
    rows: list[tuple[Pair, list[Difference]]], crossed: list[dict[str, Any]], where: str
) -> dict[str, Any]:
    def shown(difference: Difference) -> dict[str, Any]:
        found = dataclasses.asdict(difference)
        ratio = difference.ratio
        found["ratio"] = {"value": ratio.value, "low": ratio.low, "high": ratio.high}
        return found | ({"reason": ratio.reason} if ratio.value is None else {})

    return {
        "schema_version": 1,
        "db": where,
        "points": [
            {
                "operating_points": [_load(point) for point in pair],
                "modes": [dataclasses.asdict(_mode(point)) for point in pair],
                "run_ids": [[run.raw.record.run_id for run in p.facts.runs] for p in pair],
                "caveats": caveats(*pair),
                "differences": [shown(one) for one in differences],
            }
            for pair, differences in rows
        ],
        "crossed": crossed,
    }


def _print(
    rows: list[tuple[Pair, list[Difference]]], gates: list[Gate], crossed: list[dict[str, Any]]
) -> None:
    out = console()
    for pair, differences in rows:
        loads = [" ".join(f"{k} {v}" for k, v in _load(point).items()) for point in pair]
        modes = [_mode(point).text for point in pair]
        title = " · ".join(" → ".join(dict.fromkeys(names)) for names in (loads, modes))
        out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
        table = Table(box=None, padding=(0, 2, 0, 0))
        for title in ("", "A", "B", "B / A − 1", "95 %", "verdict"):
            table.add_column(title)
        for one in differences:
            if one.first is not None or one.second is not None:
                table.add_row(*_cells(one, gates))
        out.print(table)
        for line in caveats(*pair):
            out.print(f" [yellow]![/] {escape(line)}", soft_wrap=True)
    for gate in crossed:
        load = " ".join(f"{key} {value}" for key, value in gate["operating_point"].items())
        out.print(f"[red]✗[/] {escape(gate['gate'])} at {escape(load or 'the point')}")


def _cells(one: Difference, gates: list[Gate]) -> tuple[str, ...]:
    marks = "*" if any(gate.metric == one.metric for gate in gates) else ""
    values = tuple("–" if v is None else number(v) for v in (one.first, one.second))
    ratio = one.ratio
    if ratio.value is None or ratio.low is None or ratio.high is None:
        return (one.metric + marks, *values, "–", "", f"[dim]{ratio.reason}[/]")
    span = f"{ratio.low - 1:+.1%} … {ratio.high - 1:+.1%}"
    change = f"{ratio.value - 1:+.1%}"
    return (one.metric + marks, *values, change, f"[dim]{span}[/]", _verdict(one))


def _verdict(one: Difference) -> str:
    if not one.real:
        return f"no difference seen [dim](one of {one.smallest_fraction:.1%} would have been)[/]"
    assert one.ratio.value is not None
    if one.better == "neither":
        return "different"
    gain = (one.ratio.value > 1) == (one.better == "higher")
    return "[green]better[/]" if gain else "[red]worse[/]"
