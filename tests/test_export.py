"""``wattbench export``: the own format comes back exactly, tables say what ``show`` says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from result_files import imported, shown, vllm_details, vllm_result, write_json

from wattbench.cli.main import cli
from wattbench.core.run import RawRun
from wattbench.store import connect, database_url, load_run, select_runs

RUN = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--seed", "1")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two measured runs and an imported one."""
    folder = tmp_path_factory.mktemp("export")
    path = folder / "results.sqlite"
    words = [*RUN, "--concurrency", "1,8", "--db", str(path), "--quiet"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    imported(path, write_json(folder / "v.json", vllm_result() | vllm_details()))
    return path


def export(database: Path, folder: Path, form: str, *more: str, selector: str = "") -> list[Path]:
    """The files that were written."""
    chosen = ["--runs", selector or ",".join(sorted(stored(database)))]
    words = ["export", "--format", form, *chosen, "--out", str(folder), "--db", str(database)]
    result = CliRunner().invoke(cli, [*words, "--json", *more])
    assert result.exit_code == 0, result.exception
    return [Path(path) for path in json.loads(result.stdout)["files"]]


def stored(database: Path) -> dict[str, RawRun]:
    """Every run of a store."""
    engine = connect(database_url(str(database)), create=False)
    found = {s.run_id: load_run(engine, s.run_id) for s in select_runs(engine, None)}
    engine.dispose()
    return found


def same(first: object, second: object) -> bool:
    """Equality of records with arrays in them, to the last bit."""
    if isinstance(first, np.ndarray):
        return np.array_equal(first, np.asarray(second), equal_nan=True)
    if hasattr(first, "__dataclass_fields__"):
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in first.__dataclass_fields__
        )
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_own_format_comes_back_exactly(database: Path, tmp_path: Path) -> None:
    """Every record, sample and event; twice is once."""
    (path,) = export(database, tmp_path, "wattbench")
    found = imported(tmp_path / "db", path)["imports"][0]
    assert found["format"] == "wattbench"
    assert all(run["new"] for run in found["runs"])
    before, after = stored(database), stored(tmp_path / "db")
    assert before.keys() == after.keys()
    for run_id, raw in before.items():
        assert same(raw, after[run_id])
    assert not any(run["new"] for run in imported(tmp_path / "db", path)["imports"][0]["runs"])
    selector = ",".join(before)
    assert shown(tmp_path / "db", selector) == shown(database, selector)


def test_a_known_run_of_other_content_is_said(database: Path, tmp_path: Path) -> None:
    """What is stored stays, and nobody is left to think that the file is in it."""
    (path,) = export(database, tmp_path, "wattbench")
    imported(database, path)
    path.write_text(path.read_text().replace('"tag":null', '"tag":"changed"', 1))
    runs = imported(database, path)["imports"][0]["runs"]
    assert [run["other_content"] for run in runs].count(True) == 1
    assert not any(run["new"] for run in runs)
    result = CliRunner().invoke(cli, ["import", str(path), "--db", str(database)])
    assert "known id, other content: kept what is stored" in result.stdout
    assert not any(raw.record.tag for raw in stored(database).values())


def test_options_that_own_files_do_not_take_are_said(database: Path, tmp_path: Path) -> None:
    """A mapping of a file that tells itself what it holds is a mistake; a tag is left out."""
    (path,) = export(database, tmp_path, "wattbench")
    words = ["import", str(path), "--db", str(tmp_path / "db")]
    for option, value in (("--map", "mine.yaml"), ("--format", "vllm-bench")):
        result = CliRunner().invoke(cli, [*words, option, value])
        assert str(path) in str(result.exception)
        assert option in str(result.exception)
    assert not (tmp_path / "db").exists()
    result = CliRunner().invoke(cli, [*words, "--tag", "mine"])
    assert result.exit_code == 0
    assert "without --tag" in result.stderr


@pytest.mark.parametrize("damage", ["cut off", "later version", "odd line"])
def test_a_damaged_file_leaves_the_store_untouched(
    database: Path, tmp_path: Path, damage: str
) -> None:
    """One error, and not even the whole runs before it."""
    (path,) = export(database, tmp_path, "wattbench")
    lines = path.read_text().splitlines(keepends=True)
    changed = {
        "cut off": lines[:-3],
        "later version": ['{"wattbench_runs": 2}\n', *lines[1:]],
        "odd line": [*lines[:-3], '{"request": {"phase": 3}}\n', *lines[-3:]],
    }[damage]
    path.write_text("".join(changed))
    found = imported(tmp_path / "db", path, exit_code=1)["imports"][0]
    assert str(path) in found["error"]
    assert not (tmp_path / "db").exists()


def test_tables_say_what_show_says(database: Path, tmp_path: Path) -> None:
    """CSV, parquet and JSON of the same points; unknown is empty."""
    (csv,) = export(database, tmp_path, "csv")
    (points, *_) = export(database, tmp_path, "parquet")
    (js,) = export(database, tmp_path, "json")
    frames = [pd.read_csv(csv), pd.read_parquet(io.BytesIO(points.read_bytes()))]
    told = json.loads(js.read_text())["points"]
    for frame in frames:
        for index, point in enumerate(told):
            value = point["metrics"]["energy_per_output_token_joules"]["value"]
            found = frame.energy_per_output_token_joules.iloc[index]
            assert pd.isna(found) if value is None else found == pytest.approx(value)


def test_files_are_not_overwritten(database: Path, tmp_path: Path) -> None:
    """Unless it is asked for."""
    export(database, tmp_path, "csv")
    words = ["export", "--format", "csv", "--out", str(tmp_path), "--db", str(database), "--json"]
    result = CliRunner().invoke(cli, words)
    assert "--force" in str(result.exception)
    assert result.stdout == ""
    export(database, tmp_path, "csv", "--force")
