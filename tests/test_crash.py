"""SIGKILL at random moments: the store opens, and what was acknowledged is there."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload

from wattbench.results import evaluate
from wattbench.store import connect, database_url, load_run

KILLS = 24
PRELOADED = [
    "wattbench.backends.emulated",
    "wattbench.runner",
    "wattbench.store",
    "alembic.command",
]
TABLES = ("runs", "requests", "domains", "trace_blocks", "events")


def _victim(path: str, acknowledgements: Connection) -> None:
    """Run in real time, far longer than it will live, and tell of every commit."""
    engine = connect(database_url(path), create=True)
    short = {"kind": "uniform", "low": 2, "high": 12}
    workload = varied_workload(
        session={"input_tokens": 50, "output_tokens": short},
        idle_s=0.2,
        measure={"duration_s": 60.0},
    )
    emulated_run(
        engine,
        workload,
        concurrency=8,
        seed=1,
        virtual=False,
        on_commit=acknowledgements.send,
    )


def _kill_one(path: str, lifetime_s: float) -> int:
    """Start a victim, kill it ``lifetime_s`` after its first commit; rows acknowledged."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_victim, args=(path, send))
    process.start()
    send.close()
    acknowledged = receive.recv()
    deadline_s = time.monotonic() + lifetime_s
    while time.monotonic() < deadline_s:
        if receive.poll(max(0.0, deadline_s - time.monotonic())):
            acknowledged += receive.recv()
    process.kill()
    process.join()
    try:
        while receive.poll(0):
            acknowledged += receive.recv()
    except EOFError:
        pass
    return int(acknowledged)


@pytest.mark.timeout(180)
def test_sigkill_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """At 24 random moments within the first two seconds of a run."""
    rng = random.Random(4)
    survived = []
    for kill in range(KILLS):
        path = str(tmp_path / f"{kill}.sqlite")
        acknowledged = _kill_one(path, rng.uniform(0.0, 1.5))
        engine = connect(database_url(path), create=False)
        with engine.connect() as connection:
            stored = sum(
                connection.scalar(sa.select(sa.func.count()).select_from(sa.table(name))) or 0
                for name in TABLES
            )
            assert connection.scalar(sa.text("PRAGMA integrity_check")) == "ok"
        assert stored >= acknowledged >= 1
        raw = load_run(engine, "run")
        engine.dispose()
        assert raw.status == "interrupted"
        (point,) = evaluate([raw])
        assert point.performance == point.energy == "invalid"
        assert "interrupted" in {finding.code for finding in point.findings}
        survived.append(len(raw.requests))
    assert max(survived) > 10, "the victims did not live long enough to prove anything"
