"""``llama-bench``: tests of prompts and of answers are separate loads, in three forms of file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from result_files import imported, shown, write_json, write_lines

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def row(n_prompt: int, n_gen: int, **changes: Any) -> dict[str, Any]:
    """A test whose repeats took 2 s on average."""
    value: dict[str, Any] = {
        "build_commit": "1234e56",
        "build_number": 4000,
        "cpu_info": "Some CPU",
        "gpu_info": "",
        "model_filename": "model.gguf",
        "model_type": "some 1B Q4_0",
        "n_batch": 2048,
        "n_threads": 8,
        "n_gpu_layers": -1,
        "type_k": "f16",
        "type_v": "f16",
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": 0,
        "test_time": "2026-03-01T12:00:00Z",
        "avg_ns": 2_000_000_000,
        "stddev_ns": 10_000_000,
        "avg_ts": (n_prompt + n_gen) / 2,
        "stddev_ts": 0.5,
    }
    return value | changes


ROWS = [row(512, 0), row(0, 128), row(512, 128, n_depth=256)]


def write(path: Path, rows: list[dict[str, Any]], form: str) -> Path:
    """The rows in a form of llama-bench."""
    if form == "json":
        return write_json(path, rows)
    if form == "jsonl":
        return write_lines(path, rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_all(path: Path) -> list[Measurement]:
    """The measurements of a file."""
    ((_, name, found),) = read_results([path])
    assert name == "llama-bench"
    assert not isinstance(found, BadDocument), found
    return found


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_each_test_is_a_load(tmp_path: Path, form: str) -> None:
    """Tokens per second are of what the test did: a prompt's are never output tokens."""
    prompt, answer, both = read_all(write(tmp_path / f"l.{form}", ROWS, form))
    assert [one.layout for one in (prompt, answer, both)] == ["pp", "tg", "pg"]
    assert stated(prompt.reported, "input_tokens_per_s") == 256.0
    assert stated(prompt.reported, "output_tokens_per_s") is None
    assert stated(prompt.reported, "tpot_s", "mean") is None
    assert stated(answer.reported, "output_tokens_per_s") == 64.0
    assert stated(answer.reported, "output_tokens_per_s", "sd") == 0.5
    assert stated(answer.reported, "tpot_s", "mean") == pytest.approx(2 / 128)
    assert stated(both.reported, "total_tokens_per_s") == 320.0
    assert stated(both.reported, "output_tokens_per_s") is None
    assert both.operating_point["context_tokens"] == 256
    for one in (prompt, answer, both):
        assert stated(one.reported, "energy_joules") is None
        assert (one.boundary, one.clock) == (None, None)
        assert (one.hardware, one.tool_version) == ("Some CPU", "1234e56")
        assert one.operating_point["n_gpu_layers"] == -1


def test_show(tmp_path: Path) -> None:
    """Three points, of which only that of answers has output tokens per second."""
    imported(tmp_path / "db", write(tmp_path / "l.json", ROWS, "json"))
    points = shown(tmp_path / "db")
    values = [point["metrics"]["output_tokens_per_s"]["value"] for point in points]
    assert values == [None, pytest.approx(64.0), None]


def test_a_single_repeat_has_no_scatter(tmp_path: Path) -> None:
    """The 0 that stands for it is refused, as is a rate of 0."""
    rows = [row(0, 128, stddev_ts=0.0, stddev_ns=0, avg_ts=0.0)]
    (one,) = read_all(write(tmp_path / "l.json", rows, "json"))
    assert stated(one.reported, "output_tokens_per_s", "sd") is None
    assert stated(one.reported, "repeat_s", "sd") is None
    assert stated(one.reported, "output_tokens_per_s") is None


def test_a_test_of_nothing(tmp_path: Path) -> None:
    """The message names file and item."""
    path = write(tmp_path / "l.json", [row(512, 0), row(0, 0)], "json")
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert f"{path}, item 1: n_prompt is 0" in str(found)
