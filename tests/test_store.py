"""The store: what goes in comes out, old databases open, foreign and newer ones are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload
from hypothesis import given
from hypothesis import strategies as st

from wattbench.core.errors import StoreError, UsageError
from wattbench.core.load import InferenceRequest, Message, RequestResult
from wattbench.results import document, evaluate
from wattbench.store import connect, database_url, load_run, select_runs
from wattbench.store.codec import TIMES, VALUES, pack_times, pack_values, unpack

KEPT = Path(__file__).parent / "data"


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_times_survive_to_the_nanosecond(times: list[float]) -> None:
    """Half a nanosecond is all that packing costs, and float precision at a million seconds."""
    time_s = np.sort(np.array(times))
    assert np.allclose(unpack(TIMES, pack_times(time_s)), time_s, rtol=0, atol=0.7e-9)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_values_survive_exactly(values: list[float]) -> None:
    """Every bit, failed reads (NaN) included."""
    packed = pack_values(np.array(values))
    assert np.array_equal(unpack(VALUES, packed), np.array(values), equal_nan=True)


@pytest.mark.parametrize(
    ("codec", "blob"), [("zstd", b""), (TIMES, b"rubbish"), (VALUES, pack_values(np.ones(2))[:-3])]
)
def test_damaged_blobs_are_refused(codec: str, blob: bytes) -> None:
    """An unknown codec or a damaged blob is an error, not an empty trace."""
    with pytest.raises(StoreError):
        unpack(codec, blob)


def test_failures_are_stored_as_failures() -> None:
    """A request without an answer has no token count, not 0."""
    result = RequestResult(
        request=InferenceRequest(
            index=0,
            session_index=0,
            turn_index=0,
            messages=(Message(role="user", tokens=3),),
            max_output_tokens=5,
        ),
        phase="measured",
        queued_s=0.0,
        sent_s=0.0,
        end_s=1.0,
        chunk_s=np.empty(0),
        chunk_tokens=np.empty(0),
        input_tokens=None,
        output_tokens=None,
        error_class="HttpStatusError",
        error_text="503",
    )
    assert not result.succeeded
    assert len(result.emitted_tokens) == 0


def test_a_run_reads_back_as_it_was(engine: sa.Engine) -> None:
    """Requests, traces, events and the record itself."""
    raw, device = emulated_run(engine, varied_workload(), concurrency=4, seed=1)
    assert raw.status == "completed"
    assert raw.record.operating_point == {"concurrency": 4}
    assert [event.kind for event in raw.events if "_start" in event.kind] == [
        "idle_start",
        "warmup_start",
        "measure_start",
    ]
    emitted = sum(len(request.chunk_s) for request in raw.requests)
    assert emitted == len(device.emission_s)
    assert all(r.output_tokens == r.request.max_output_tokens for r in raw.requests)
    trace, power = raw.traces
    assert trace.domain.kind == "counter"
    assert power.domain.parent == trace.domain.name
    assert np.allclose(np.diff(trace.time_s), 0.1, atol=2e-9)


def test_selectors(engine: sa.Engine) -> None:
    """Ids, batches, conditions, latest; what is unknown is an error."""
    for seed, run_id in ((1, "a"), (2, "b")):
        emulated_run(
            engine,
            varied_workload(measure={"requests": 3}),
            concurrency=1,
            seed=seed,
            run_id=run_id,
        )
    ids = [run.run_id for run in select_runs(engine, None)]
    assert ids == ["a", "b"]
    assert [run.run_id for run in select_runs(engine, "latest")] == ["b"]
    assert [run.run_id for run in select_runs(engine, "b,a")] == ["a", "b"]
    assert len(select_runs(engine, "workload='quickstart',since=2020-01-01")) == 2
    assert select_runs(engine, "workload=chat") == []
    for wrong, message in (
        ("c", "no run or batch 'c'"),
        ("colour=red", "'colour' is not one of"),
        ("since=yesterday", "is no date"),
        ("tag='x", "No closing quotation"),
    ):
        with pytest.raises(UsageError, match=message):
            select_runs(engine, wrong)


def test_text_and_other_databases_are_refused(tmp_path: Path) -> None:
    """A text file, somebody else's database, a missing one: one clear sentence each."""
    text = tmp_path / "notes.sqlite"
    text.write_text("this is not a database, but it is long enough to look at")
    foreign = tmp_path / "foreign.sqlite"
    other = sa.create_engine(f"sqlite:///{foreign}")
    with other.begin() as connection:
        connection.execute(sa.text("CREATE TABLE cakes (name TEXT)"))
    other.dispose()
    for path, message in (
        (text, "not a readable SQLite database"),
        (foreign, "database of something else"),
        (tmp_path / "absent.sqlite", "there is no database"),
    ):
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(StoreError, match=message):
            connect(database_url(str(path)), create=False)
        assert (path.read_bytes() if path.exists() else None) == before


def test_newer_schema_is_refused(tmp_path: Path, engine: sa.Engine) -> None:
    """A database that a later wattbench migrated is left alone."""
    path = engine.url.database
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer wattbench"):
        connect(database_url(path), create=True)


@pytest.mark.parametrize("kept", sorted(KEPT.glob("store_*.sqlite")), ids=lambda path: path.stem)
def test_databases_of_every_schema_open(kept: Path, tmp_path: Path) -> None:
    """A kept database of each schema that ever landed migrates and concludes as it did."""
    copy = tmp_path / kept.name
    shutil.copy(kept, copy)
    engine = connect(database_url(str(copy)), create=False)
    runs = [load_run(engine, run.run_id) for run in select_runs(engine, None)]
    shown = document(evaluate(runs), "kept")
    engine.dispose()
    assert len(shown["points"]) == 2
    for point in shown["points"]:
        assert point["verdict"]["performance"] == "valid"
        assert point["metrics"]["energy_per_output_token_joules"]["value"] > 0


def test_there_is_a_kept_database_of_the_current_schema() -> None:
    """Whoever adds a migration keeps a database of the schema it creates."""
    from wattbench.store import database

    newest = sorted(path.name[:4] for path in (database._MIGRATIONS / "versions").glob("0*.py"))
    assert sorted(path.stem[-4:] for path in KEPT.glob("store_*.sqlite")) == newest
