"""Runs that were imported from files: whole and in one transaction, or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import sqlalchemy as sa

from wattbench.core.energy import Trace
from wattbench.core.errors import StoreError
from wattbench.core.load import RequestResult
from wattbench.core.run import Event, ReportedFigure, RunRecord, RunStatus
from wattbench.store import schema
from wattbench.store.reader import reading
from wattbench.store.rows import event_row, request_row, run_row
from wattbench.store.writer import add_trace, store_error

MAX_KEPT_BYTES = 64 * 1024**2
"""A file that is larger is known by its hash alone [B]."""
ROWS_AT_ONCE = 1000
_OF_THE_WRITER = ("run_id", "status", "writer", "error_text")
"""Columns of a run that a tool has no say in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDocument:
    """A file that runs are imported from.

    Attributes:
        name: Its name, without the folder.
        sha256: Hash of its bytes.
        size_bytes: Their number.
        read: Gives what of it may be kept.
    """

    name: str
    sha256: str
    size_bytes: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedLoad:
    """What another tool did in a run.

    Attributes:
        requests: Its requests, taken once, one after the other.
        events: Its events.
        reported: Figures that the tool states.
        documents: The files that say so; kept with the run.
        traces: Samples of meters.
    """

    requests: Iterable[RequestResult]
    events: Sequence[Event]
    reported: Sequence[ReportedFigure]
    documents: Sequence[KeptDocument]
    traces: Sequence[Trace] = ()


def add_imported(
    engine: sa.Engine,
    record: RunRecord,
    load: ImportedLoad,
    status: RunStatus = "completed",
    error_text: str | None = None,
) -> bool:
    """Add a run that another tool carried out; an error of any kind leaves the store as it was.

    Args:
        engine: An open database.
        record: The run; its id follows from the content of the files.
        load: What the tool did.
        status: How the run ended.
        error_text: Why, if it did not end well.

    Returns:
        False if the run is there already; nothing is done then.

    Raises:
        StoreError: If the database cannot be written.
    """
    if has_run(engine, record.run_id):
        return False
    try:
        with engine.begin() as connection:
            row = run_row(record) | {"status": status, "error_text": error_text}
            connection.execute(sa.insert(schema.runs), row)
            _add(connection, record.run_id, load)
    except (sa.exc.SQLAlchemyError, OverflowError) as error:
        raise store_error(error, engine) from error
    return True


def join_imported(engine: sa.Engine, record: RunRecord, load: ImportedLoad) -> None:
    """Give a run that was metered while another tool made the load what that tool says.

    Args:
        engine: An open database.
        record: The run as it is now known; it was begun under the same id.
        load: What the tool says.

    Raises:
        StoreError: If the database cannot be written.
    """
    known = {key: value for key, value in run_row(record).items() if key not in _OF_THE_WRITER}
    try:
        with engine.begin() as connection:
            of_run = schema.runs.c.run_id == record.run_id
            connection.execute(sa.update(schema.runs).where(of_run).values(**known))
            _add(connection, record.run_id, load)
    except (sa.exc.SQLAlchemyError, OverflowError) as error:
        raise store_error(error, engine) from error


def _add(connection: sa.Connection, run_id: str, load: ImportedLoad) -> None:
    for document in load.documents:
        _keep(connection, document)
    rows = (request_row(run_id, result) for result in load.requests)
    while block := list(islice(rows, ROWS_AT_ONCE)):
        connection.execute(sa.insert(schema.requests), block)
    for trace in load.traces:
        add_trace(connection, run_id, trace)
    for event in load.events:
        connection.execute(sa.insert(schema.events), event_row(run_id, event))
    for figure in load.reported:
        connection.execute(sa.insert(schema.reported), reported_row(run_id, figure))


def has_run(engine: sa.Engine, run_id: str) -> bool:
    """Whether a run of that id is there.

    Raises:
        StoreError: If the database cannot be read.
    """
    query = sa.select(schema.runs.c.run_id).where(schema.runs.c.run_id == run_id)
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def document_content(engine: sa.Engine, sha256: str) -> bytes:
    """The bytes of a file that a run was imported from.

    Raises:
        StoreError: If it is not kept.
    """
    query = sa.select(schema.documents.c.content).where(schema.documents.c.sha256 == sha256)
    with reading(engine) as connection:
        packed = connection.scalar(query)
    if packed is None:
        raise StoreError(f"the file with hash {sha256[:12]}… is not kept in this database")
    return zlib.decompress(packed)


def _keep(connection: sa.Connection, document: KeptDocument) -> None:
    table = schema.documents
    known = sa.select(table.c.sha256).where(table.c.sha256 == document.sha256)
    if connection.execute(known).first() is not None:
        return
    content = None
    if document.size_bytes <= MAX_KEPT_BYTES:
        content = zlib.compress(document.read())
    row = {
        "sha256": document.sha256,
        "file_name": document.name,
        "size_bytes": document.size_bytes,
        "content": content,
    }
    connection.execute(sa.insert(table), row)


def reported_row(run_id: str, figure: ReportedFigure) -> dict[str, str | float]:
    """A figure as a row of its table."""
    return {
        "run_id": run_id,
        "metric": figure.metric,
        "statistic": figure.statistic,
        "value": figure.value,
        "field": figure.field,
    }
