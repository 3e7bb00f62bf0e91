"""``wattbench.load``: what ``show`` says, as data frames; the example of the documentation runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from result_files import imported, vllm_details, vllm_result, write_json

import wattbench
from wattbench.cli.main import cli
from wattbench.core.errors import StoreError, UsageError
from wattbench.frames import POWER_TYPES, REQUEST_TYPES, RUN_TYPES

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
RUN = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--seed", "1")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the runs of the example."""
    path = tmp_path_factory.mktemp("frames") / "results.sqlite"
    words = [*RUN, "--concurrency", "1,8,64", "--db", str(path), "--quiet"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return path


def shown(database: Path) -> list[dict[str, Any]]:
    """The points of ``show --json``."""
    result = CliRunner().invoke(cli, ["show", "latest", "--db", str(database), "--json"])
    points: list[dict[str, Any]] = json.loads(result.stdout)["points"]
    return points


def test_points_say_what_show_says(database: Path) -> None:
    """Every metric with the ends of its interval, and every percentile."""
    frame = wattbench.load(database).points
    assert frame.concurrency.tolist() == [1, 8, 64]
    for index, point in enumerate(shown(database)):
        for name, estimate in point["metrics"].items():
            labels = ("p50", "p95", "p99") if "p50" in estimate else (None,)
            for label in labels:
                column = name if label is None else f"{name}_{label}"
                value = (estimate if label is None else estimate[label])["value"]
                found = frame[column].iloc[index]
                assert pd.isna(found) if value is None else found == pytest.approx(value)
        assert frame.energy_verdict.iloc[index] == point["verdict"]["energy"]


def test_columns_are_typed_and_sums_agree(database: Path) -> None:
    """Types as documented; requests of the runs, and samples of every domain."""
    frames = wattbench.load(database)
    for frame, types in (
        (frames.runs, RUN_TYPES),
        (frames.requests, REQUEST_TYPES),
        (frames.power, POWER_TYPES),
    ):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == types
    assert set(frames.requests.run_id) == set(frames.runs.run_id) == set(frames.power.run_id)
    counters = frames.power.dropna(subset=["energy_joules"])
    assert (counters.groupby(["run_id", "domain"]).energy_joules.diff().dropna() >= 0).all()
    assert frames.requests.ttft_s.le(frames.requests.e2e_s).all()


def test_unknown_is_missing(tmp_path: Path) -> None:
    """An imported load without energy has no energy, and a failed request no latency."""
    details = vllm_details()
    details["ttfts"][1], details["output_lens"][1], details["itls"][1] = 0.0, 0, []
    details["errors"][1] = "HTTP 500"
    imported(tmp_path / "db", write_json(tmp_path / "v.json", vllm_result() | details))
    frames = wattbench.load(tmp_path / "db")
    assert pd.isna(frames.points.energy_per_output_token_joules.iloc[0])
    assert frames.requests.ttft_s.isna().tolist() == [False, True]
    assert frames.requests.output_tokens.isna().tolist() == [False, True]
    assert frames.runs.tool.tolist() == ["vllm-bench"]
    assert frames.power.empty


def test_selected_and_missing(database: Path, tmp_path: Path) -> None:
    """A selector chooses; a wrong one and a missing store are errors that say so."""
    one = wattbench.load(database).runs.run_id.iloc[0]
    assert wattbench.load(database, one).runs.run_id.tolist() == [one]
    with pytest.raises(UsageError, match="nope"):
        wattbench.load(database, "nope")
    with pytest.raises(StoreError):
        wattbench.load(tmp_path / "nowhere.sqlite")


def test_the_example_of_the_documentation_runs(database: Path) -> None:
    """As a reader would run it."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=database.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "best: 64 users" in done.stdout
    assert "told apart from 8 users: yes" in done.stdout
