"""``wattbench import``: result files of other tools into the store, each figure in one meaning."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from wattbench import __version__
from wattbench.cli.import_power import power_traces, read_power
from wattbench.cli.import_runs import Restored, demand_own, holds_runs, restore
from wattbench.cli.options import database_option, json_option
from wattbench.cli.progress import reading_bar
from wattbench.core.energy import Trace
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.hardware import load_profile
from wattbench.interchange import FORMATS as LOG_FORMATS
from wattbench.interchange.results import (
    FORMATS,
    BadDocument,
    BadMapping,
    Document,
    Fate,
    ImportedRun,
    Note,
    Watch,
    find_results,
    imported_runs,
    read_mapped,
    read_results,
)
from wattbench.store import (
    URL,
    ImportedLoad,
    KeptDocument,
    add_imported,
    connect,
    database_url,
    show_url,
)

MAX_FIELDS = 4
"""Of fields with one fate and one reason so many are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of files that belong together; ``new`` has the numbers of runs that were."""

    documents: tuple[Document, ...]
    format: str
    runs: tuple[ImportedRun, ...]
    error: BadDocument | None
    new: frozenset[int] = frozenset()


@click.command(name="import")
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "wanted",
    default="auto",
    show_default=True,
    metavar="NAME",
    help=f"Which tool wrote them: {', '.join(FORMATS)}; auto tells it from the content.",
)
@click.option(
    "--map",
    "map_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML that says what the columns or fields of your own files are: docs/importing.md.",
)
@click.option(
    "--hardware",
    metavar="NAME",
    help="Machine profile of the runs.  [default: what the files say]",
)
@click.option(
    "--power-log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Log of power during the runs, in Unix time; only for runs whose files tell when they "
    "were.",
)
@click.option(
    "--power-format",
    type=click.Choice(LOG_FORMATS),
    default="csv",
    show_default=True,
    help="Which program wrote the log.",
)
@click.option("--tag", help="A mark of your own.")
@click.option("--dry-run", is_flag=True, help="Say what would be imported, and store nothing.")
@database_option
@json_option
def command(
    *,
    paths: tuple[Path, ...],
    dry_run: bool,
    database: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Import result files of other load generators; a folder stands for all files in it.

    Every run becomes a run of the store, by this project's names and units: what was converted
    or refused is said. A joule out of a file is of kind `reported`. Importing twice is once. A
    file that cannot be read costs only itself; the exit code is 1 then.

    \b
    Examples:
      wattbench import results/vllm-*.json
      wattbench import artifacts/ --hardware h100-sxm --dry-run
      wattbench import mine.csv --map mine.yaml
    """  # noqa: D301 - click reads the backslash
    files = find_results(paths)
    own = [path for path in files if holds_runs(path)]
    log, form = asked.pop("power_log"), asked.pop("power_format")
    told = {"--map": asked["map_path"], "--hardware": asked["hardware"], "--tag": asked["tag"]}
    told |= {"--power-log": log, "--format": None if asked["wanted"] == "auto" else asked["wanted"]}
    demand_own(own, told)
    channels = read_power(log, form) if log else []
    with reading_bar() as watch:
        outcomes = _outcomes([path for path in files if path not in own], watch, **asked)
        traces = {
            run.record.run_id: power_traces(run, channels) for one in outcomes for run in one.runs
        }
    outcomes = _stored(outcomes, traces, None if dry_run else database_url(database))
    where = show_url(database_url(database))
    given = [name for name in ("--power-log", "--hardware", "--tag") if told[name] is not None]
    if not dry_run and given:
        attach = f"--log {log} --format {form} --db {where}" if log else ""
        for line in _ignored(outcomes, given, attach):
            click.echo(f"wattbench: {line}", err=True)
    restored = [restore(path, database, dry_run=dry_run) for path in own]
    if as_json:
        shown = _json(outcomes, restored, where, dry_run=dry_run)
        click.echo(json.dumps(shown, allow_nan=False))
    else:
        _print_restored(restored, dry_run=dry_run)
        _print(outcomes, where, dry_run=dry_run)
    errors = _errors(outcomes, restored)
    if not errors and not restored and not any(one.runs for one in outcomes):
        raise WattbenchError(_nothing(outcomes))
    if errors:
        for error in errors[1:]:
            click.echo(f"not imported: {error}", err=True)
        kind = UsageError if any(isinstance(e, BadMapping) for e in errors) else WattbenchError
        raise kind(f"not imported: {errors[0]}")


def _outcomes(
    paths: Sequence[Path],
    watch: Watch,
    *,
    wanted: str,
    map_path: Path | None,
    hardware: str | None,
    tag: str | None,
) -> list[_Outcome]:
    """Read everything, before anything is stored."""
    if map_path is not None and wanted != "auto":
        raise UsageError("--map says what the files are; leave --format out")
    profile = load_profile(hardware).model_dump(mode="json") if hardware else {}
    outcomes = []
    reads = read_mapped(paths, map_path) if map_path else read_results(paths, wanted, watch)
    for documents, name, read in reads:
        error = read if isinstance(read, BadDocument) else None
        runs = imported_runs(
            [] if isinstance(read, BadDocument) else read,
            documents,
            now_unix_s=time.time(),
            hardware=profile,
            environment={"wattbench": __version__},
            tag=tag,
        )
        outcomes.append(_Outcome(documents=documents, format=name, runs=tuple(runs), error=error))
    return outcomes


def _nothing(outcomes: Sequence[_Outcome]) -> str:
    """That no file had a run in it, though each is known."""
    beside = [str(d.path) for one in outcomes for d in one.documents]
    named = ", ".join(beside[:MAX_FIELDS]) or "the mapping alone"
    return f"nothing was imported: {named} has no run in it; give the results that lie beside it"


def _errors(outcomes: Sequence[_Outcome], restored: Sequence[Restored]) -> list[BadDocument]:
    told = [*(one.error for one in outcomes), *(one.error for one in restored)]
    return [error for error in told if error is not None]


def _stored(
    outcomes: Sequence[_Outcome], traces: Mapping[str, tuple[Trace, ...]], url: URL | None
) -> list[_Outcome]:
    """Store the runs, unless there is no place to, and note which were not there.

    Without a place every run is new but for copies of one file.
    """
    if not any(outcome.runs for outcome in outcomes):
        return list(outcomes)
    engine = connect(url, create=True) if url is not None else None
    known: set[str] = set()

    def is_new(outcome: _Outcome, run: ImportedRun) -> bool:
        run_id = run.record.run_id
        if engine is not None:
            load = replace(load_of(run, outcome.documents), traces=traces[run_id])
            return add_imported(engine, run.record, load)
        copied = run_id in known
        known.add(run_id)
        return not copied

    try:
        return [
            replace(
                outcome,
                new=frozenset(i for i, run in enumerate(outcome.runs) if is_new(outcome, run)),
            )
            for outcome in outcomes
        ]
    finally:
        if engine is not None:
            engine.dispose()


def _ignored(outcomes: Sequence[_Outcome], given: Sequence[str], attach: str) -> Iterator[str]:
    """That a load which is stored already stays as it is, whatever was asked of it."""
    runs = [
        (run.record.run_id, index in one.new)
        for one in outcomes
        for index, run in enumerate(one.runs)
    ]
    new = {run_id for run_id, is_new in runs if is_new}
    for run_id in dict.fromkeys(run_id for run_id, _ in runs if run_id not in new):
        ways = [f"`wattbench attach {run_id} {attach}` adds the log"] if attach else []
        if set(given) - {"--power-log"}:
            ways.append("for another machine or mark import it into another --db")
        yield (
            f"{run_id} is stored already and stays as it is, without {', '.join(given)}; "
            f"{'; '.join(ways)}"
        )


def load_of(run: ImportedRun, documents: Sequence[Document]) -> ImportedLoad:
    """What a run's files say, as the store takes it."""
    return ImportedLoad(
        requests=run.requests(),
        events=run.events,
        reported=run.reported,
        documents=[
            KeptDocument(name=d.path.name, sha256=d.sha256, size_bytes=d.size_bytes, read=d.kept)
            for d in documents
        ],
    )


def _json(
    outcomes: Sequence[_Outcome], restored: Sequence[Restored], where: str, *, dry_run: bool
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "db": where,
        "dry_run": dry_run,
        "errors": [str(error) for error in _errors(outcomes, restored)],
        "imports": [
            *(_outcome_json(outcome, dry_run=dry_run) for outcome in outcomes),
            *(_restored_json(one) for one in restored),
        ],
    }


def _outcome_json(outcome: _Outcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "files": [str(d.path) for d in outcome.documents],
        "format": outcome.format or None,
        "error": str(outcome.error) if outcome.error else None,
        "runs": [
            _run_json(run) | {"new": index in outcome.new and not dry_run}
            for index, run in enumerate(outcome.runs)
        ],
    }


def _restored_json(one: Restored) -> dict[str, Any]:
    return {
        "files": [str(one.path)],
        "format": "wattbench",
        "error": str(one.error) if one.error else None,
        "runs": [
            {"run_id": run_id, "new": run_id in one.new, "other_content": run_id in one.other}
            for run_id in one.run_ids
        ],
    }


def _print_restored(restored: Sequence[Restored], *, dry_run: bool) -> None:
    for one in restored:
        if one.error is not None:
            continue
        count = "" if dry_run else f", {len(one.new)} of them new"
        click.echo(f"{one.path}: wattbench, {len(one.run_ids)} runs{count}")
        for run_id in (run_id for run_id in one.run_ids if run_id in one.other):
            click.echo(f"  {run_id}: known id, other content: kept what is stored")


def _run_json(run: ImportedRun) -> dict[str, Any]:
    found = run.measurement
    return {
        "run_id": run.record.run_id,
        "tool": found.tool,
        "tool_version": found.tool_version,
        "layout": found.layout,
        "alignment": run.alignment,
        "operating_point": dict(run.record.operating_point),
        "has_requests": found.requests is not None,
        "reported_count": len(found.reported),
        "notes": [{"fate": n.fate, "field": n.field, "why": n.why} for n in found.notes],
    }


def _print(outcomes: Sequence[_Outcome], where: str, *, dry_run: bool) -> None:
    for outcome in outcomes:
        names = ", ".join(str(d.path) for d in outcome.documents)
        if outcome.error is not None:
            continue
        nothing = "" if outcome.runs else ", beside its results; nothing to import"
        click.echo(f"{names}: {outcome.format}{nothing}")
        for index, run in enumerate(outcome.runs):
            state = "would be new" if dry_run else "new"
            state = state if index in outcome.new else "there already"
            click.echo(f"  {run.record.run_id} ({state}): {_line(run)}")
            for line in _reasons(run.measurement.notes):
                click.echo(f"    {line}")
    ids = [run.record.batch_id for outcome in outcomes for run in outcome.runs]
    if ids and not dry_run:
        click.echo(f"\nDatabase: {where}\nShow:     wattbench show {ids[-1]} --db {where}")


def _reasons(notes: Sequence[Note]) -> Iterator[str]:
    """What was converted or refused, fields with one reason on one line."""
    groups: dict[tuple[Fate, str], list[str]] = {}
    for note in notes:
        if note.fate in ("converted", "refused") and note.why:
            groups.setdefault((note.fate, note.why), []).append(note.field)
    for (fate, why), fields in groups.items():
        more = f" and {len(fields) - MAX_FIELDS} more" if len(fields) > MAX_FIELDS else ""
        yield f"{fate} {', '.join(fields[:MAX_FIELDS])}{more}: {why}"


def _line(run: ImportedRun) -> str:
    found = run.measurement
    load = " ".join(f"{key} {value}" for key, value in found.operating_point.items())
    fates = Counter(note.fate for note in found.notes)
    counts = ", ".join(
        f"{fates[fate]} {fate}" for fate in ("taken", "converted", "refused", "kept")
    )
    detail = "each request" if found.requests else "totals only"
    return f"{load or 'load not told'}, {found.layout}, {detail}, {run.alignment}; fields: {counts}"
