"""A purchase as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from wattbench.cli.procure_text import LEGEND, banded, number
from wattbench.economics import FIGURES

STYLE = """body{font:16px/1.5 sans-serif;max-width:90rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{border:1px solid #999;padding:.3rem .6rem;text-align:left}"""


def page(shown: dict[str, Any]) -> str:
    """The whole page."""
    cases = dict.fromkeys(each["case"] for each in shown["outcomes"])
    body = "".join(part for case in cases for part in _case(shown, case))
    warnings = "".join(f"<p>Warning: {escape(each)}</p>" for each in shown["warnings"])
    notes = "".join(f"<li>{escape(note)}</li>" for note in shown["notes"])
    assumed = _table(
        ["number", "value", "low", "high", "kind", "source", "date"],
        [
            [each[k] for k in ("place", "value", "low", "high", "kind", "source", "date")]
            for each in shown["assumptions"]
        ],
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>wattbench procure: {escape(shown["scenario"])}</title>
<style>{STYLE}</style>
<h1>{escape(shown["scenario"])}</h1><p>{escape(shown["about"])}</p><p>{escape(LEGEND)}</p>
{warnings}{body}<h2>Taken from elsewhere</h2><ul>{notes}</ul><h2>Assumptions</h2>{assumed}"""


def _case(shown: dict[str, Any], case: str) -> Iterator[str]:
    outcomes = [each for each in shown["outcomes"] if each["case"] == case]
    yield f"<h2>{escape(case)}</h2>"
    titles = [spec.title for spec in FIGURES.values()]
    yield _table(
        ["option", "racks", "devices", "limited by", *titles, "why not"],
        [
            [
                each["option"],
                *(each["installed"] or dict.fromkeys(("racks", "devices", "limit"))).values(),
                *(banded(each["figures"][name]) for name in FIGURES),
                each["reason"],
            ]
            for each in outcomes
        ],
    )
    yield "<h3>Order of $/Mtoken</h3>"
    yield _table(
        ["cheaper", "dearer", "ratio", "verdict", "why not", "same cost at"],
        [
            [
                pair["cheaper"],
                pair["dearer"],
                banded(pair["ratio"]),
                "ranked" if pair["ranked"] else "not settled",
                pair["why"],
                f"{_shown(pair['break_even']['power_usd_per_kwh'])} $/kWh; utilisation "
                f"{_shown(pair['break_even']['utilisation_fraction'])}",
            ]
            for pair in shown["comparisons"]
            if pair["case"] == case
        ],
    )
    yield "<h3>What moves $/Mtoken</h3>"
    yield _table(
        ["option", "number", "low", "high"],
        [
            [
                each["option"],
                swing["name"],
                number(swing["low_usd_per_mtoken"]),
                number(swing["high_usd_per_mtoken"]),
            ]
            for each in outcomes
            for swing in each["tornado"]
        ],
    )


def _table(head: list[str], rows: list[list[Any]]) -> str:
    cells = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else str(value)
