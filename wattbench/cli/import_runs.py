"""This project's own files back into a store: exactly what was exported, each run once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wattbench.core.run import RawRun
from wattbench.interchange import HEADER, read_runs
from wattbench.interchange.results import BadDocument, Document, open_document
from wattbench.store import ImportedLoad, add_imported, connect, database_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of a file.

    Attributes:
        path: The file.
        run_ids: Its runs.
        new: Those that were not in the store.
        error: Why it was refused as a whole.
    """

    path: Path
    run_ids: tuple[str, ...]
    new: frozenset[str]
    error: BadDocument | None = None


def holds_runs(path: Path) -> bool:
    """Whether a file is of this project's own format."""
    beginning = f'{{"{HEADER}":'.encode()
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
        return Restored(path=path, run_ids=(), new=frozenset(), error=error)
    if dry_run:
        return Restored(path=path, run_ids=run_ids, new=frozenset())
    engine = connect(database_url(database), create=True)
    try:
        new = [
            raw.record.run_id
            for raw in _runs(document)
            if add_imported(engine, raw.record, _load(raw), raw.status, raw.error_text)
        ]
    finally:
        engine.dispose()
    return Restored(path=path, run_ids=run_ids, new=frozenset(new))


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
