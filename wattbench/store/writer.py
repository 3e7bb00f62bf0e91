"""Writing a run while it goes on: one thread, one connection, a commit at least twice a second.

The thread keeps disk waits out of the event loop that stamps tokens. What a call of ``begin`` or
``finish`` has returned from, and what ``on_commit`` has been told of, is durable.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from wattbench.core.energy import EnergyDomain, FloatArray, PowerTrace, Trace
from wattbench.core.errors import StoreError
from wattbench.core.load import RequestResult
from wattbench.core.run import Event, RunRecord, RunStatus
from wattbench.store import schema
from wattbench.store.database import explain
from wattbench.store.rows import block_row, domain_row, event_row, request_row, run_row

COMMIT_PERIOD_S = 0.5
COMMIT_ROWS = 1000
QUEUE_ROWS = 20_000
"""A producer that is this far ahead of the disk waits."""

Rows = list[tuple[sa.Table, Mapping[str, Any]]]
_Job = Callable[[], Rows]


class StoreWriter:
    """A ``RecordSink`` on a database.

    Args:
        engine: An open database.
        on_commit: Called in the writer's thread after each commit with the number of rows that
            became durable.
    """

    def __init__(self, engine: sa.Engine, on_commit: Callable[[int], None] | None = None) -> None:
        self._engine = engine
        self._on_commit = on_commit
        self._jobs: queue.Queue[_Job | threading.Event | None] = queue.Queue(QUEUE_ROWS)
        self._error: StoreError | None = None
        self._blocks: dict[tuple[str, str], int] = {}
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    def begin(self, record: RunRecord) -> None:
        """Open a run; returns once it is durable.

        Raises:
            StoreError: If it could not be written.
        """
        row = run_row(record)
        self._put(lambda: [(schema.runs, row)])
        self._flush()

    def request(self, run_id: str, result: RequestResult) -> None:
        """Keep one finished request."""
        self._put(lambda: [(schema.requests, request_row(run_id, result))])

    def domain(self, run_id: str, domain: EnergyDomain) -> None:
        """Keep the description of a domain."""
        row = domain_row(run_id, domain)
        self._put(lambda: [(schema.domains, row)])

    def samples(self, run_id: str, domain: str, time_s: FloatArray, value: FloatArray) -> None:
        """Keep a block of samples of a domain."""
        self._put(lambda: [(schema.trace_blocks, self._block_row(run_id, domain, time_s, value))])

    def event(self, run_id: str, event: Event) -> None:
        """Keep an event."""
        row = event_row(run_id, event)
        self._put(lambda: [(schema.events, row)])

    def finish(self, run_id: str, status: RunStatus, error_text: str | None) -> None:
        """Close a run; returns once everything is durable.

        Raises:
            StoreError: If anything could not be written.
        """
        self._flush()
        update = sa.update(schema.runs).where(schema.runs.c.run_id == run_id)
        try:
            with self._engine.begin() as connection:
                connection.execute(update.values(status=status, error_text=error_text))
        except sa.exc.SQLAlchemyError as error:
            raise store_error(error, self._engine) from error

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _put(self, job: _Job) -> None:
        if self._error is not None:
            raise self._error
        self._jobs.put(job)

    def _flush(self) -> None:
        done = threading.Event()
        self._jobs.put(done)
        done.wait()
        if self._error is not None:
            raise self._error

    def _block_row(
        self, run_id: str, domain: str, time_s: FloatArray, value: FloatArray
    ) -> dict[str, Any]:
        index = self._blocks.get((run_id, domain), 0)
        self._blocks[run_id, domain] = index + 1
        return block_row(run_id, domain, index, time_s, value)

    def _write(self) -> None:
        """The thread: gather rows, commit them, wake whoever waits for it."""
        running = True
        while running:
            rows, waiting, running = self._gather()
            if rows and self._error is None:
                try:
                    self._commit(rows)
                except (sa.exc.SQLAlchemyError, OverflowError, ValueError, TypeError) as error:
                    # A value that no column takes is as final as a full disk; whoever waits
                    # must hear of it.
                    self._error = store_error(error, self._engine)
            for event in waiting:
                event.set()

    def _gather(self) -> tuple[Rows, list[threading.Event], bool]:
        """Rows until a flush is asked for, the period is over or the batch is full."""
        rows: Rows = []
        deadline_s = time.monotonic() + COMMIT_PERIOD_S
        while len(rows) < COMMIT_ROWS:
            try:
                job = self._jobs.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return rows, [], False
            if isinstance(job, threading.Event):
                return rows, [job], True
            rows.extend(job())
        return rows, [], True

    def _commit(self, rows: Rows) -> None:
        """One transaction; parents before children, one statement per table."""
        grouped: dict[sa.Table, list[Mapping[str, Any]]] = {}
        for table, row in rows:
            grouped.setdefault(table, []).append(row)
        with self._engine.begin() as connection:
            for table in schema.metadata.sorted_tables:
                if table in grouped:
                    connection.execute(sa.insert(table), grouped[table])
        if self._on_commit is not None:
            self._on_commit(len(rows))


def add_traces(
    engine: sa.Engine, run_id: str, traces: Sequence[Trace], events: Sequence[Event]
) -> None:
    """Add domains with their samples, and events, to a run that has ended; all or nothing.

    Raises:
        StoreError: If the run has such a domain already, or the database cannot be written.
    """
    try:
        with engine.begin() as connection:
            for trace in traces:
                add_trace(connection, run_id, trace)
            for event in events:
                connection.execute(sa.insert(schema.events), event_row(run_id, event))
    except sa.exc.IntegrityError as error:
        names = ", ".join(trace.domain.name for trace in traces)
        raise StoreError(f"run {run_id} has one of the domains {names} already") from error
    except sa.exc.SQLAlchemyError as error:
        raise store_error(error, engine) from error


def add_trace(connection: sa.Connection, run_id: str, trace: Trace) -> None:
    """Insert a domain with its samples, in the transaction of a connection."""
    value = trace.power_watts if isinstance(trace, PowerTrace) else trace.energy_joules
    connection.execute(sa.insert(schema.domains), domain_row(run_id, trace.domain))
    if len(value):
        block = block_row(run_id, trace.domain.name, 0, trace.time_s, value)
        connection.execute(sa.insert(schema.trace_blocks), block)


def remove_domain(engine: sa.Engine, run_id: str, name: str, event: Event) -> None:
    """Take a domain and its samples out of a run that has ended, and keep the event that says so.

    Raises:
        StoreError: If the database cannot be written.
    """
    try:
        with engine.begin() as connection:
            for table in (schema.trace_blocks, schema.domains):
                of_run = sa.and_(table.c.run_id == run_id, table.c.domain == name)
                connection.execute(sa.delete(table).where(of_run))
            connection.execute(sa.insert(schema.events), event_row(run_id, event))
    except sa.exc.SQLAlchemyError as error:
        raise store_error(error, engine) from error


def store_error(error: Exception, engine: sa.Engine) -> StoreError:
    """What to say of an error in writing."""
    cause, path = getattr(error, "orig", None) or error, engine.url.database or ""
    if "readonly" in str(cause):  # from the start: nothing was acknowledged
        return StoreError(explain(Path(path), error))
    return StoreError(
        f"the database {path} cannot be written any more ({cause}); what was acknowledged before "
        f"is kept"
    )
