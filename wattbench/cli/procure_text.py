"""A purchase as text: figures down, options across, then what can and cannot be said."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wattbench.cli.tables import console
from wattbench.economics import FIGURES

SWINGS = 5
"""Numbers of a tornado that are shown."""
ACROSS = 3
"""Options beside each other."""
COST = "usd_per_mtoken"
LETTERS = {"measured": "m", "modelled": "d", "nameplate": "n", "assumed": "a"}
LEGEND = (
    "Value, 90 % band, and how it is known at worst: m measured, d modelled, n nameplate, "
    "a assumed."
)


def print_text(shown: dict[str, Any]) -> None:
    """Print everything of a purchase."""
    out = console()
    about = f": {escape(shown['about'])}" if shown["about"] else ""
    out.print(f"[bold]{escape(shown['scenario'])}[/]{about}", soft_wrap=True)
    out.print(LEGEND, soft_wrap=True)
    for warning in shown["warnings"]:
        out.print(f"[yellow]warning[/]: {escape(warning)}", soft_wrap=True)
    for case in dict.fromkeys(each["case"] for each in shown["outcomes"]):
        _print_case(out, shown, case)
    if shown["notes"]:
        out.print("\n[bold]Taken from elsewhere[/]")
    for note in shown["notes"]:
        out.print(f"  {escape(note)}", soft_wrap=True)
    out.print("\n[bold]Assumptions[/]")
    for each in shown["assumptions"]:
        out.print(f"  {escape(_assumption(each))}", soft_wrap=True)
    if "rfp" in shown:
        _print_rfp(out, shown["rfp"])


def number(value: float) -> str:
    """Three figures, in thousands or millions where it is large."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= 10 * size or (size == 1e6 and value >= size):
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}" if value < 1e3 else f"{value:.0f}"


def banded(band: dict[str, Any] | None) -> str:
    """Value, band and kind; a dash where nothing is known."""
    if band is None:
        return "–"
    ends = f"{number(band['low'])}…{number(band['high'])}"
    return f"{number(band['value'])} {ends} {LETTERS[band['kind']]}"


def _print_case(out: Console, shown: dict[str, Any], case: str) -> None:
    outcomes = [each for each in shown["outcomes"] if each["case"] == case]
    known = [each for each in outcomes if each["reason"] is None]
    title = "all tiers together" if case == "mix" else f"tier {case}"
    out.print(f"\n[bold]If the site serves {escape(title)}[/]")
    for start in range(0, len(known), ACROSS):
        out.print(_table(known[start : start + ACROSS]))
    for each in outcomes:
        if each["reason"] is not None:
            out.print(f"  {escape(each['option'])}: {escape(each['reason'])}", soft_wrap=True)
    _print_ranking(out, [each for each in shown["comparisons"] if each["case"] == case])
    _print_tornado(out, known)


def _table(outcomes: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for each in outcomes:
        table.add_column(each["option"])
    table.add_row("racks, devices", *(_installed(each) for each in outcomes))
    table.add_row("devices per replica", *(_replica(each) for each in outcomes))
    table.add_row("the next is kept out by", *(e["installed"]["limit"] for e in outcomes))
    table.add_row("tok/s limited by (of draws)", *(_binding(each) for each in outcomes))
    if any(each["reached_fraction"] < 0.9995 for each in outcomes):
        shares = (f"{each['reached_fraction']:.1%}" for each in outcomes)
        table.add_row("speed reached (of draws)", *shares)
    for name, spec in FIGURES.items():
        if any(each["figures"][name] for each in outcomes):
            bands = (banded(each["figures"][name]) for each in outcomes)
            table.add_row(spec.title, *bands, style="bold" if name == COST else None)
    theirs = [each["inferencex_provisioned"] for each in outcomes]
    if any(theirs):
        for title, key in (("tok/s/MW", "tokens_per_s_per_mw"), ("J/tok", "joules_per_token")):
            bands = (banded(each[key] if each else None) for each in theirs)
            table.add_row(f"InferenceX {title}, provisioned", *bands)
    return table


def _installed(outcome: dict[str, Any]) -> str:
    return f"{outcome['installed']['racks']}, {outcome['installed']['devices']}"


def _replica(outcome: dict[str, Any]) -> str:
    sizes = outcome["installed"]["devices_per_replica"].values()
    return ", ".join(str(size) for size in dict.fromkeys(sizes))


def _binding(outcome: dict[str, Any]) -> str:
    name = outcome["binding"]
    share = outcome["binding_fractions"].get(name, 0.0)
    return f"{name.partition(',')[0]} ({share:.0%})"


def _print_ranking(out: Console, pairs: Sequence[dict[str, Any]]) -> None:
    if not pairs:
        return
    out.print("\n  $/Mtoken of the second over the first:")
    for pair in pairs:
        ratio = pair["ratio"]
        verdict = "[green]ranked[/]" if pair["ranked"] else "[yellow]not settled[/]"
        why = "" if pair["ranked"] else f": {pair['why']}"
        out.print(
            f"    {escape(pair['cheaper'])} → {escape(pair['dearer'])}: {banded(ratio)}, "
            f"{verdict}{escape(why)}",
            soft_wrap=True,
        )
    out.print("  Where neighbours cost the same, all else at its value:")
    order = list(dict.fromkeys([pairs[0]["cheaper"], *(pair["dearer"] for pair in pairs)]))
    for first, second in itertools.pairwise(order):
        pair = next(p for p in pairs if (p["cheaper"], p["dearer"]) == (first, second))
        out.print(f"    {escape(first)}, {escape(second)}: {escape(_even(pair))}", soft_wrap=True)


def _even(pair: dict[str, Any]) -> str:
    even = pair["break_even"]
    price, busy = even["power_usd_per_kwh"], even["utilisation_fraction"]
    power = even["power_why"]
    if price is not None:
        power = f"at {price:.3g} $/kWh ({power})"
    used = even["utilisation_why"]
    if busy is not None:
        used = f"at {busy:.0%} utilisation ({used})"
    return f"{power}; {used}"


def _print_tornado(out: Console, outcomes: Sequence[dict[str, Any]]) -> None:
    rows = [each for each in outcomes if each["tornado"]]
    if rows:
        out.print("  What moves $/Mtoken most, each from one end of its band to the other:")
    for each in rows:
        swings = "; ".join(
            f"{swing['name']} "
            f"{number(swing['low_usd_per_mtoken'])} … {number(swing['high_usd_per_mtoken'])}"
            for swing in each["tornado"][:SWINGS]
        )
        out.print(f"    {escape(each['option'])}: {escape(swings)}", soft_wrap=True)


def _assumption(each: dict[str, Any]) -> str:
    ends = "" if each["low"] is None else f" ({each['low']:g} … {each['high']:g})"
    source = each["source"] or "no source"
    date = f", {each['date']}" if each["date"] else ""
    return f"{each['place']} = {each['value']:g}{ends}, {each['kind']}: {source}{date}"


def _print_rfp(out: Console, rfp: dict[str, Any]) -> None:
    out.print("\n[bold]Requests for measurement[/]")
    for folder in rfp["folders"]:
        out.print(f"  {escape(folder)}", soft_wrap=True)
    if not rfp["folders"] and not rfp["unanswerable"]:
        why = "no pair of options of a tier is unsettled; no folder is made"
        out.print(f"  nothing is open: {why}", soft_wrap=True)
    for name, why in rfp["unanswerable"].items():
        out.print(f"  none for {escape(name)}: {escape(why)}", soft_wrap=True)
