"""Sweeps, repeats that end when they know enough, batches that are resumed, and the search."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called
from wire import emulated, workload_file

from wattbench.hardware import Roofline, load_model, load_profile, roofline
from wattbench.search import LoadSearch

EMULATED = ("quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--json")


def wattbench(*arguments: str, code: int = 0) -> tuple[Any, str]:
    """What a command prints as JSON, and its errors."""
    done = called(*arguments)
    assert done.returncode == code, done.stderr
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def test_a_sweep_opens_each_value_and_keeps_it_with_the_point(tmp_path: Path) -> None:
    place = ("--db", str(tmp_path / "x.db"), "--concurrency", "2,4", "--repeats", "2")
    axes = [*("--sweep", "backend.model=llama-3.1-8b,llama-3.1-70b")]
    axes += ["--sweep", "workload.session.output_tokens=8,16"]
    plan, _ = wattbench("run", *EMULATED, *place, *axes, "--dry-run")
    assert len(plan["points"]) == 8
    assert not (tmp_path / "x.db").exists()
    shown, _ = wattbench("run", *EMULATED, *place, *axes)
    assert [point["operating_point"] for point in shown["points"]] == plan["points"]
    assert {len(point["run_ids"]) for point in shown["points"]} == {2}
    models = [point["model"] for point in shown["points"]]
    assert models == ["llama-3.1-8b"] * 4 + ["llama-3.1-70b"] * 4
    for point in shown["points"]:
        wanted = int(point["operating_point"]["workload.session.output_tokens"])
        tokens = point["tokens"]["output"] / point["requests"]["completed"]
        assert tokens == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("backend.modell=a,b", "did you mean 'model'?"),
        ("workload.session.outputs=1,2", "there is no such key; did you mean 'output_tokens'?"),
        ("workload.measure.duration_s=-1,2", "workload.measure.duration_s=-1"),
        ("meter=a,b", "sweep backend.KEY, workload.KEY or serve.KEY"),
        ("backend.model=a,a", "each value once"),
        ("backend.model", "is not KEY=V1,V2"),
    ],
)
def test_an_axis_that_means_nothing(tmp_path: Path, axis: str, message: str) -> None:
    place = ("--db", str(tmp_path / "x.db"))
    _, error = wattbench("run", *EMULATED, *place, "--sweep", axis, code=2)
    assert message in error


def test_a_server_that_is_not_there_costs_its_point_only(tmp_path: Path) -> None:
    workload = str(workload_file(tmp_path, 1.0, 0.0))
    with emulated("h100-sxm") as (url, _):
        shown, error = wattbench(
            *("run", workload, "--json", "--db", str(tmp_path / "x.db"), "--meter", "none"),
            *("--backend", "openai", "--sweep", f"backend.url=http://127.0.0.1:9/v1,{url}/v1"),
            code=1,
        )
    (point,) = shown["points"]
    assert point["requests"]["completed"] > 0
    assert "127.0.0.1:9" in error


def test_a_killed_sweep_resumes_to_exactly_its_points(tmp_path: Path) -> None:
    """SIGKILL in the middle of a run: what was done is kept, what was begun is done again."""
    database = tmp_path / "x.db"
    workload = str(workload_file(tmp_path, 0.8, 0.0))
    with emulated("h100-sxm") as (url, _):
        command = ["run", workload, "--json", "--db", str(database), "--meter", "none"]
        command += ["--backend", f"openai,url={url}/v1", "--concurrency", "1,2,3"]
        command += ["--sweep", "workload.session.output_tokens=5,9"]
        killed = subprocess.Popen(
            [sys.executable, "-m", "wattbench", *command],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        while _count(database, "completed") < 2:
            time.sleep(0.05)
        time.sleep(0.4)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        done_before = _count(database, "completed")
        with closing(sqlite3.connect(database)) as connection:
            (batch_id,) = connection.execute("SELECT DISTINCT batch_id FROM runs").fetchone()
        _, error = wattbench(*command, "--resume", batch_id, "--concurrency", "1,2", code=2)
        assert "not what is planned now" in error
        shown, _ = wattbench(*command, "--resume", batch_id)
    assert 2 <= done_before < 6
    loads = [tuple(point["operating_point"].values()) for point in shown["points"]]
    assert sorted(loads) == [(size, users) for size in ("5", "9") for users in (1, 2, 3)]
    assert all(point["verdict"]["performance"] != "invalid" for point in shown["points"])
    assert _count(database, "completed") == 6


def _count(database: Path, status: str) -> int:
    if not database.exists():
        return 0
    with closing(sqlite3.connect(database)) as connection:
        try:
            query = "SELECT count(*) FROM runs WHERE status = ?"
            return int(connection.execute(query, (status,)).fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_repeats_end_when_the_metric_is_known_well_enough(tmp_path: Path) -> None:
    """A wide target takes three repeats, a narrow one more; the wide points stop first."""
    place = ("--db", str(tmp_path / "x.db"), "--concurrency", "4")
    easy, _ = wattbench("run", *EMULATED, *place, "--target-half-width", "20%")
    assert len(easy["points"][0]["run_ids"]) == 3
    metric = ("--metric", "energy_per_input_token_joules")
    hard, _ = wattbench("run", *EMULATED, *place, *metric, "--target-half-width", "4%")
    assert 3 < len(hard["points"][0]["run_ids"]) <= 20
    capped, _ = wattbench(
        "run", *EMULATED, *place, *metric, "--target-half-width", "0.01%", "--repeats", "4"
    )
    assert len(capped["points"][0]["run_ids"]) == 4
    _, error = wattbench("run", *EMULATED, *place, "--metric", "watts", code=2)
    assert "no metric 'watts'" in error


def test_time_ends_repeats_but_not_points(tmp_path: Path) -> None:
    place = ("--db", str(tmp_path / "x.db"), "--concurrency", "1,2")
    shown, _ = wattbench("run", *EMULATED, *place, "--repeats", "9", "--max-time", "0.001s")
    assert [len(point["run_ids"]) for point in shown["points"]] == [1, 1]


def test_the_search_finds_what_the_whole_grid_finds() -> None:
    """On ten machines, by their rooflines: within 2 % of the best of every load, in 8 runs."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        model = str(rng.choice(["llama-3.1-8b", "llama-3.1-70b"]))
        context = int(rng.uniform(200, 4000))
        line = roofline(load_profile("h100-sxm"), load_model(model))
        limit = float(rng.uniform(1.05, 4.0))

        def trial(
            users: int, line: Roofline = line, context: int = context, limit: float = limit
        ) -> tuple[float, float]:
            cost, alone = (line.step(n, n * context, n * context) for n in (users, 1))
            energy_joules = cost.duration_s * cost.power_watts
            return users / energy_joules, cost.duration_s / (limit * alone.duration_s)

        grid = [trial(users) for users in range(1, 513)]
        best = max(value for value, margin in grid if margin < 1)
        search = LoadSearch(highest=512)
        while (users := search.ask()) is not None:
            value, margin = trial(users)
            search.tell(users, value, [margin])
        assert len(search.trials) <= 8
        found = search.best()
        assert found is not None
        assert found.tokens_per_joule is not None
        assert found.tokens_per_joule >= 0.98 * best


def test_the_search_command(tmp_path: Path) -> None:
    place = ("--db", str(tmp_path / "x.db"), "--max-concurrency", "40", "--max-runs", "4")
    shown, _ = wattbench("search", *EMULATED, *place, "--slo", "tpot:p95<7.35ms")
    best = shown["points"][shown["best"]]
    assert 16 <= best["operating_point"]["concurrency"] <= 40
    assert all(one["met"] for one in best["slo"])
    values = [point["metrics"]["tokens_per_joule"]["value"] for point in shown["points"]]
    assert len(values) <= 4
    _, error = wattbench("search", *EMULATED, *place, "--slo", "ttft<1ms", code=1)
    assert "no load met the service level" in error


def test_a_level_that_nothing_meets_goes_down_to_one_user() -> None:
    search = LoadSearch(highest=512)
    while (users := search.ask()) is not None:
        search.tell(users, 1.0, [2.0])
    assert min(trial.concurrency for trial in search.trials) == 1
    assert search.best() is None
