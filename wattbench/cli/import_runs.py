"""This project's own files back into a store: exactly what was exported, each run once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from wattbench.core.errors import UsageError
from wattbench.core.files import why_irregular
from wattbench.core.run import RawRun
from wattbench.interchange import HEADER, read_runs, run_lines
from wattbench.interchange.results import BadDocument, Document, open_document
from wattbench.store import ImportedLoad, add_imported, connect, database_url, load_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of a file.

    Attributes:
        path: The file.
        run_ids: Its runs.
        new: Those that were not in the store.
        other: Those that are in the store with other content; what is stored was kept.
        error: Why it was refused as a whole.
    """

    path: Path
    run_ids: tuple[str, ...]
    new: frozenset[str] = frozenset()
    other: frozenset[str] = frozenset()
    error: BadDocument | None = None


def holds_runs(path: Path) -> bool:
    """Whether a file is of this project's own format."""
    beginning = f'{{"{HEADER}":'.encode()
    if why_irregular(path) is not None:
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(beginning)) == beginning
    except OSError:
        return False  # what is wrong is said by whoever reads it


def restore(path: Path, database: str | None, *, dry_run: bool) -> Restored:
    """Store the runs of a file, none if any of them is damaged."""
    document = open_document(path)
    try:
        run_ids = tuple(raw.record.run_id for raw in _runs(document))
    except BadDocument as error:
        return Restored(path=path, run_ids=(), error=error)
    if dry_run:
        return Restored(path=path, run_ids=run_ids)
    new, other = set(), set()
    engine = connect(database_url(database), create=True)
    try:
        for raw in _runs(document):
            run_id = raw.record.run_id
            if add_imported(engine, raw.record, _load(raw), raw.status, raw.error_text):
                new.add(run_id)
            elif list(run_lines([raw])) != list(run_lines([load_run(engine, run_id)])):
                other.add(run_id)
    finally:
        engine.dispose()
    return Restored(path=path, run_ids=run_ids, new=frozenset(new), other=frozenset(other))


def demand_own(paths: Sequence[Path], asked: Mapping[str, object]) -> None:
    """Say which options have no meaning for files of runs: they come back as they went.

    Args:
        paths: Files of this project's own format.
        asked: Options of ``wattbench import`` by their name.

    Raises:
        UsageError: If one of them says what the files are.
    """
    given = [name for name, value in asked.items() if value is not None]
    for path in paths:
        wrong = next((name for name in given if name in ("--map", "--format")), None)
        if wrong is not None:
            raise UsageError(
                f"{wrong}: {path} is in wattbench's own format, which tells itself what it holds; "
                f"import it without {wrong}"
            )
        if given:
            what = ", ".join(given)
            click.echo(f"wattbench: {path} comes back as it was exported, without {what}", err=True)


def _runs(document: Document) -> Iterator[RawRun]:
    return read_runs(document.json_lines(), str(document.path))


def _load(raw: RawRun) -> ImportedLoad:
    return ImportedLoad(
        requests=raw.requests,
        events=raw.events,
        reported=raw.reported,
        documents=(),
        traces=raw.traces,
    )
