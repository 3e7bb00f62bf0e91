"""``wattbench audit``: do figures agree with themselves, and which rankings survive?"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from html import escape as html
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from wattbench.audit import DEFAULT_FRACTION, HEADLINE, Audit, Audited, Ranking, audit
from wattbench.cli.import_runs import holds_runs
from wattbench.cli.options import FiniteRange, database_option, json_option
from wattbench.cli.stored import load_runs
from wattbench.cli.tables import MARKS, console
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.core.run import RawRun
from wattbench.interchange import read_runs
from wattbench.interchange.results import (
    BadDocument,
    find_results,
    imported_runs,
    open_document,
    read_results,
)
from wattbench.results import estimate_json
from wattbench.store import database_url


@click.command(name="audit")
@click.argument("paths", metavar="FILES…", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--runs", "selector", metavar="SELECTOR", help="Stored runs, beside the files or instead."
)
@click.option(
    "--uncertainty",
    "default_percent",
    type=FiniteRange(0, 100, min_open=True),
    default=100 * DEFAULT_FRACTION,
    show_default=True,
    metavar="PERCENT",
    help="Half-width of a joule whose source states none.",
)
@click.option("--page", type=click.Path(path_type=Path), help="Write a page of HTML there as well.")
@click.option(
    "--require-clean", is_flag=True, help="Exit with 1 if any figure contradicts another."
)
@database_option
@json_option
def command(
    paths: tuple[Path, ...],
    *,
    default_percent: float,
    page: Path | None,
    require_clean: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Audit result FILES, or stored runs, for figures that contradict each other.

    Power over throughput must be the joules per token, joules per token times tokens the joules,
    the devices' powers their sum, the window that of the samples, and no read zero. Then every
    pair of loads of one model and one boundary is ranked by joules per output token, and it is
    said which order survives the uncertainty that the sources state, or the default.
    """
    runs, files, errors = _runs(paths, **where)
    if not runs and not errors:
        raise UsageError("name result files, or stored runs with --runs")
    found = audit(runs, default_percent / 100)
    shown = _json(found, files, errors, default_percent)
    if as_json:
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        _print(found, files, errors)
    if page is not None:
        _write(page, _page(shown))
    if errors:
        raise WattbenchError(f"{len(errors)} files could not be read; the first: {errors[0]}")
    if require_clean and not found.clean:
        raise WattbenchError("--require-clean: figures contradict each other, as said above")


_Files = dict[str, list[str]]
"""Files that say a run, by its id, as they were named."""


def _runs(
    paths: Sequence[Path], *, selector: str | None, database: str | None
) -> tuple[list[RawRun], _Files, list[str]]:
    """The runs, the files of those out of files, and what could not be read."""
    runs = load_runs(database_url(database), selector) if selector else []
    files: _Files = {}
    errors = []
    found = find_results(paths)
    own = [path for path in found if holds_runs(path)]
    for path in own:
        try:
            exported = list(read_runs(open_document(path).json_lines(), str(path)))
        except BadDocument as error:
            errors.append(str(error))
            continue
        runs += exported
        files |= {raw.record.run_id: [str(path)] for raw in exported}
    for documents, _, read in read_results([path for path in found if path not in own]):
        if isinstance(read, BadDocument):
            errors.append(str(read))
            continue
        for run in imported_runs(
            read, documents, now_unix_s=time.time(), hardware={}, environment={}
        ):
            raw = RawRun(
                record=run.record,
                status="completed",
                error_text=None,
                requests=tuple(run.requests()),
                traces=(),
                events=run.events,
                reported=run.reported,
            )
            runs.append(raw)
            told = run.measurement.files
            named = [str(d.path) for d in documents if d.path.name in told or not told]
            files[run.record.run_id] = list(
                dict.fromkeys([*files.get(run.record.run_id, []), *named])
            )
    return runs, files, errors


def _json(
    found: Audit, files: _Files, errors: Sequence[str], default_percent: float
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "clean": found.clean and not errors,
        "errors": list(errors),
        "default_half_width_fraction": default_percent / 100,
        "loads": [_load_json(load, _named(load, files)) for load in found.loads],
        "rankings": [_ranking_json(ranking) for ranking in found.rankings],
        "fates": dict(Counter(ranking.fate for ranking in found.rankings)),
    }


def _named(load: Audited, files: _Files) -> list[str]:
    """The files that say a load, as the command line named them; of a stored run their names."""
    record = load.point.facts.runs[0].raw.record
    if record.run_id in files:
        return files[record.run_id]
    kept = record.backend.get("files")
    return (
        [str(f.get("name")) for f in kept if isinstance(f, dict)] if isinstance(kept, list) else []
    )


def _load_json(load: Audited, files: list[str]) -> dict[str, Any]:
    record = load.point.facts.runs[0].raw.record
    return {
        "name": load.name,
        "files": files,
        "model": record.engine.model,
        "hardware": record.hardware.get("name"),
        "kind": load.point.facts.headline.kind,
        HEADLINE: estimate_json(load.point.facts.metrics[HEADLINE]),
        "findings": [
            {"code": f.code, "severity": f.severity, "message": f.message} for f in load.findings
        ],
    }


def _ranking_json(ranking: Ranking) -> dict[str, Any]:
    return {
        "first": ranking.first,
        "second": ranking.second,
        "ratio": estimate_json(ranking.ratio),
        "fate": ranking.fate,
        "why": ranking.why,
    }


def _print(found: Audit, files: _Files, errors: Sequence[str]) -> None:
    out = console()
    for load in found.loads:
        energy = load.point.facts.metrics[HEADLINE]
        value = "unknown" if energy.value is None else f"{energy.value:.4g} J"
        said = ", ".join(_named(load, files))
        place = f" ({escape(said)})" if said else ""
        title = f"[bold]{escape(load.name)}[/]{place}: {value} per output token"
        out.print(title if load.findings else f"{title}, no contradiction", soft_wrap=True)
        for one in load.findings:
            out.print(f"  {MARKS[one.severity]} [bold]{one.code}[/]: {escape(one.message)}")
    for error in errors:
        out.print(f"{MARKS['error']} {escape(error)}", soft_wrap=True)
    fates = Counter(ranking.fate for ranking in found.rankings)
    compared = fates["survives"] + fates["does not survive"]
    if found.rankings:
        out.print(
            f"\n{fates['survives']} of {compared} rankings survive their uncertainty; "
            f"{fates['not comparable']} pairs must not be compared."
        )
    for ranking in found.rankings:
        if ranking.fate == "does not survive":
            ratio = ranking.ratio
            out.print(
                f"  {escape(ranking.second)} / {escape(ranking.first)} = {ratio.value:.3f}, "
                f"95 % {ratio.low:.3f} … {ratio.high:.3f}",
                soft_wrap=True,
            )
    for why, count in Counter(r.why for r in found.rankings if r.why).most_common(5):
        out.print(f"  {count} not compared: {escape(why)}", soft_wrap=True)


def _page(shown: dict[str, Any]) -> str:
    """The audit as one page that needs nothing else."""
    loads = "".join(_page_load(load) for load in shown["loads"])
    rankings = "".join(
        f"<tr><td>{html(r['first'])}</td><td>{html(r['second'])}</td>"
        f"<td>{_page_ratio(r['ratio'])}</td><td>{html(r['fate'])}</td><td>{html(r['why'])}</td></tr>"
        for r in shown["rankings"]
    )
    unread = "".join(f'<li class="error">{html(error)}</li>' for error in shown["errors"])
    state = (
        "No figure contradicts another."
        if shown["clean"]
        else "Figures contradict each other, or could not be read."
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>wattbench audit</title>
<style>body{{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{border:1px solid #999;padding:.3rem .6rem;text-align:left}}
.error{{color:#a00}}.warning{{color:#850}}</style>
<h1>Audit</h1><p>{state}</p><ul>{unread}</ul><h2>Loads</h2>{loads}
<h2>Rankings</h2><p>Joules per output token of the second over the first, with 95 % interval.</p>
<table><tr><th>first</th><th>second</th><th>ratio</th><th>fate</th><th>why</th></tr>{rankings}</table>
"""


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WattbenchError(f"--page {path}: cannot be written ({error.strerror})") from error


def _page_load(load: dict[str, Any]) -> str:
    items = "".join(
        f'<li class="{html(f["severity"])}"><b>{html(f["code"])}</b>: {html(f["message"])}</li>'
        for f in load["findings"]
    )
    value = load[HEADLINE]["value"]
    joules = "unknown" if value is None else f"{value:.4g} J"
    files = ", ".join(map(str, load["files"]))
    return (
        f"<h3>{html(load['name'])}</h3><p>{html(files)} {joules} per output token</p>"
        f"<ul>{items or '<li>no contradiction</li>'}</ul>"
    )


def _page_ratio(ratio: dict[str, Any]) -> str:
    if ratio["value"] is None:
        return "–"
    return f"{ratio['value']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"
