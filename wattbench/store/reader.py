"""Reading runs back: which there are, and one whole."""

from __future__ import annotations

import shlex
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from wattbench.core.energy import EnergyDomain, FloatArray, Trace, trace_of
from wattbench.core.errors import StoreError, UsageError
from wattbench.core.load import InferenceRequest, Message, RequestResult
from wattbench.core.run import (
    EngineInfo,
    Event,
    Mode,
    RawRun,
    ReportedFigure,
    RunRecord,
    RunStatus,
)
from wattbench.store import schema
from wattbench.store.codec import unpack
from wattbench.store.database import explain

_CONDITIONS = {
    "tag": schema.runs.c.tag,
    "workload": schema.runs.c.workload_name,
    "hardware": schema.runs.c.hardware_name,
    "backend": schema.runs.c.backend_name,
}


# What Python says when a column holds something else than what was written.
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line about a stored run."""

    run_id: str
    batch_id: str
    started_unix_s: float
    status: RunStatus
    workload: str
    backend: str
    hardware: str | None
    operating_point: Mapping[str, Any]
    repeat_index: int
    mode: Mode
    tag: str | None


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection on which whatever is wrong with the database is a ``StoreError``."""
    path = Path(engine.url.database or "")
    try:
        with engine.connect() as connection:
            yield connection
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(explain(path, error)) from error
    except _DAMAGE as error:
        raise StoreError(
            f"the database {path} is damaged: it holds a value that cannot be one "
            f"({type(error).__name__}: {str(error)[:100]}); take a copy from before"
        ) from error


def select_runs(engine: sa.Engine, selector: str | None) -> list[RunSummary]:
    """Stored runs, oldest first.

    Args:
        engine: An open database.
        selector: None for all; ``latest`` for the newest batch; ids of runs or batches with
            commas between (or); or conditions ``tag=…,workload=…,hardware=…,backend=…,since=…``
            (and), a value with commas in quotes.

    Raises:
        UsageError: If the selector means nothing, or an id is unknown.
        StoreError: If the database cannot be read.
    """
    table = schema.runs
    query = sa.select(table).order_by(table.c.started_unix_s, table.c.point_index, table.c.run_id)
    if selector is not None and selector != "latest":
        query = query.where(*_where(selector))
    with reading(engine) as connection:
        if selector == "latest":
            newest = sa.select(table.c.batch_id).order_by(table.c.started_unix_s.desc()).limit(1)
            query = query.where(table.c.batch_id == connection.scalar(newest))
        found = [_summary(row._mapping) for row in connection.execute(query)]
    if selector is not None and selector != "latest" and "=" not in selector:
        _refuse_unknown(selector, found)
    return found


def _parts(selector: str) -> list[str]:
    lexer = shlex.shlex(selector, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    try:
        return [part.strip() for part in lexer if part.strip()]
    except ValueError as error:
        raise UsageError(f"selector {selector!r}: {error}") from error


def _where(selector: str) -> list[sa.ColumnElement[bool]]:
    parts = _parts(selector)
    if "=" not in selector:
        ids = [schema.runs.c.run_id.in_(parts), schema.runs.c.batch_id.in_(parts)]
        return [sa.or_(*ids)]
    conditions: list[sa.ColumnElement[bool]] = []
    for part in parts:
        key, _, value = part.partition("=")
        if key == "since":
            conditions.append(schema.runs.c.started_unix_s >= _unix_s(value))
        elif key in _CONDITIONS:
            conditions.append(_CONDITIONS[key] == value)
        else:
            known = ", ".join([*_CONDITIONS, "since"])
            raise UsageError(f"selector {selector!r}: {key!r} is not one of {known}")
    return conditions


def _unix_s(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"selector since={text!r} is no date such as 2026-03-31 or 2026-03-31T12:00"
        ) from error


def _refuse_unknown(selector: str, runs: list[RunSummary]) -> None:
    found = {run.run_id for run in runs} | {run.batch_id for run in runs}
    unknown = [part for part in _parts(selector) if part not in found]
    if unknown:
        raise UsageError(
            f"no run or batch {unknown[0]!r}; `wattbench list runs` shows what there is"
        )


def _summary(row: RowMapping) -> RunSummary:
    return RunSummary(
        run_id=row["run_id"],
        batch_id=row["batch_id"],
        started_unix_s=row["started_unix_s"],
        status=_status(row),
        workload=row["workload_name"],
        backend=row["backend_name"],
        hardware=row["hardware_name"],
        operating_point=row["operating_point"],
        repeat_index=row["repeat_index"],
        mode=Mode(**row["engine"]["mode"]),
        tag=row["tag"],
    )


def _status(row: RowMapping) -> RunStatus:
    """The stored status; a run whose writer is gone without closing it was interrupted."""
    status: RunStatus = row["status"]
    if status != "running":
        return status
    writer = row["writer"]
    if writer["host"] != socket.gethostname():
        return status
    try:
        process = psutil.Process(writer["pid"])
        # The process number may have been given to somebody else since.
        same = abs(process.create_time() - writer["started_unix_s"]) < 1.0
        alive = same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        alive = False
    return status if alive else "interrupted"


def load_run(engine: sa.Engine, run_id: str) -> RawRun:
    """One run, whole.

    Raises:
        StoreError: If there is none, or the database or a packed array is damaged.
    """
    with reading(engine) as connection:
        row = connection.execute(_of(schema.runs, run_id)).mappings().first()
        if row is None:
            raise StoreError(
                f"there is no run {run_id!r}; `wattbench list runs` shows what there is"
            )
        requests = connection.execute(
            _of(schema.requests, run_id).order_by(schema.requests.c.request_index)
        ).mappings()
        events = connection.execute(
            _of(schema.events, run_id).order_by(schema.events.c.event_id)
        ).mappings()
        reported = connection.execute(
            _of(schema.reported, run_id).order_by(schema.reported.c.reported_id)
        ).mappings()
        return RawRun(
            record=_record(row),
            status=_status(row),
            error_text=row["error_text"],
            requests=tuple(_request(request) for request in requests),
            traces=tuple(_traces(connection, run_id)),
            events=tuple(
                Event(kind=e["kind"], time_s=e["time_s"], detail=e["detail"]) for e in events
            ),
            reported=tuple(
                ReportedFigure(
                    metric=r["metric"], statistic=r["statistic"], value=r["value"], field=r["field"]
                )
                for r in reported
            ),
        )


def _of(table: sa.Table, run_id: str) -> sa.Select[Any]:
    return sa.select(table).where(table.c.run_id == run_id)


def _record(row: RowMapping) -> RunRecord:
    engine = dict(row["engine"])
    engine["mode"] = Mode(**engine["mode"])
    engine["process_ids"] = tuple(engine["process_ids"])
    return RunRecord(
        run_id=row["run_id"],
        batch_id=row["batch_id"],
        point_index=row["point_index"],
        repeat_index=row["repeat_index"],
        started_unix_s=row["started_unix_s"],
        virtual_time=row["virtual_time"],
        workload=row["workload"],
        backend=row["backend"],
        engine=EngineInfo(**engine),
        hardware=row["hardware"],
        meters=tuple(row["meters"]),
        operating_point=row["operating_point"],
        seed=row["seed"],
        environment=row["environment"],
        devices=None if row["devices"] is None else tuple(row["devices"]),
        roles={role: tuple(devices) for role, devices in row["roles"].items()},
        tag=row["tag"],
    )


def _request(row: RowMapping) -> RequestResult:
    return RequestResult(
        request=InferenceRequest(
            index=row["request_index"],
            session_index=row["session_index"],
            turn_index=row["turn_index"],
            messages=(
                Message(role="user", tokens=row["requested_input_tokens"], seed=row["seed"]),
            ),
            max_output_tokens=row["requested_output_tokens"],
            ignore_eos=row["ignore_eos"],
            seed=row["seed"],
        ),
        phase=row["phase"],
        queued_s=row["queued_s"],
        sent_s=row["sent_s"],
        end_s=row["end_s"],
        chunk_s=unpack(row["time_codec"], row["chunk_s"]),
        chunk_tokens=unpack(row["value_codec"], row["chunk_tokens"]),
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        tokens_source=row["tokens_source"],
        output_bytes=row["output_bytes"],
        finish_reason=row["finish_reason"],
        error_class=row["error_class"],
        error_text=row["error_text"],
    )


def _traces(connection: sa.Connection, run_id: str) -> list[Trace]:
    blocks = schema.trace_blocks
    query = _of(blocks, run_id).order_by(blocks.c.domain, blocks.c.block_index)
    times: dict[str, list[FloatArray]] = {}
    values: dict[str, list[FloatArray]] = {}
    for block in connection.execute(query).mappings():
        times.setdefault(block["domain"], []).append(unpack(block["time_codec"], block["time_s"]))
        values.setdefault(block["domain"], []).append(unpack(block["value_codec"], block["value"]))
    described = _of(schema.domains, run_id).order_by(schema.domains.c.domain)
    traces: list[Trace] = []
    for row in connection.execute(described).mappings():
        domain = _domain(row)
        time_s = np.concatenate([np.empty(0), *times.get(domain.name, [])])
        value = np.concatenate([np.empty(0), *values.get(domain.name, [])])
        traces.append(trace_of(domain, time_s, value))
    return traces


def _domain(row: RowMapping) -> EnergyDomain:
    fields = {key: value for key, value in row.items() if key not in ("run_id", "domain")}
    return EnergyDomain(name=row["domain"], **fields | {"devices": tuple(row["devices"])})
