"""Rows of the ML.ENERGY leaderboard: ratios by definition, of all boards together."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from result_files import imported, shown, write_json

from wattbench.core.run import stated
from wattbench.interchange.results import BadDocument, Measurement, read_results


def row(**changes: Any) -> dict[str, Any]:
    """300 J for 150 tokens, 400 tokens per second: 2 J per token and 800 W of four boards."""
    value: dict[str, Any] = {
        "task": "chat",
        "model_id": "some/model",
        "config_file": "bs16.json",
        "Model": "some/model",
        "GPU": "Some GPU",
        "TP": 2,
        "PP": 2,
        "Energy/req (J)": 300.0,
        "Avg TPOT (s)": 0.04,
        "Token tput (tok/s)": 400.0,
        "Avg Output Tokens": 150.0,
        "Avg BS (reqs)": 15.5,
        "Max BS (reqs)": 16,
    }
    return value | changes


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows under a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_all(path: Path) -> list[Measurement]:
    """The measurements of a file."""
    ((_, name, found),) = read_results([path])
    assert name == "mlenergy"
    assert not isinstance(found, BadDocument), found
    return found


@pytest.mark.parametrize("form", ["csv", "json"])
def test_ratios(tmp_path: Path, form: str) -> None:
    """Joules per token, request and second, as JSON or CSV; nothing that the row does not tell."""
    rows = [row(), row(**{"Max BS (reqs)": 32})]
    path = tmp_path / f"rows.{form}"
    write_csv(path, rows) if form == "csv" else write_json(path, rows)
    found = read_all(path)
    assert [one.operating_point["max_batch_size"] for one in found] == [16, 32]
    one = found[0]
    assert stated(one.reported, "energy_per_output_token_joules") == pytest.approx(2.0)
    assert stated(one.reported, "energy_per_request_joules") == pytest.approx(300.0)
    assert stated(one.reported, "mean_power_watts") == pytest.approx(800.0)
    assert stated(one.reported, "tpot_s", "mean") == pytest.approx(0.04)
    assert (one.device_count, one.boundary, one.layout) == (4, "board", form)
    assert stated(one.reported, "energy_joules") is None
    assert stated(one.reported, "input_tokens_count") is None


def test_show(tmp_path: Path) -> None:
    """The ratio stands without interval, with the reason."""
    imported(tmp_path / "db", write_csv(tmp_path / "rows.csv", [row()]))
    (point,) = shown(tmp_path / "db")
    found = point["metrics"]["energy_per_output_token_joules"]
    assert (found["value"], found["reason"]) == (pytest.approx(2.0), "reported_without_interval")


def test_unknown_is_not_zero(tmp_path: Path) -> None:
    """An empty cell leaves its figures out."""
    (one,) = read_all(write_csv(tmp_path / "rows.csv", [row(**{"Avg Output Tokens": ""})]))
    assert stated(one.reported, "energy_per_output_token_joules") is None
    assert stated(one.reported, "mean_power_watts") is None
    assert stated(one.reported, "energy_per_request_joules") == 300.0


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"Energy/req (J)": "much"}, "line 2: Energy/req (J) is 'much'"),
        ({"Avg Output Tokens": 0}, "line 2: Avg Output Tokens is 0"),
        ({"TP": 1.5}, "line 2: TP is 1.5"),
    ],
)
def test_bad_cells(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    """The message names file, line and column."""
    path = write_csv(tmp_path / "rows.csv", [row(**changes)])
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert f"{path}, {place}" in str(found)


def test_a_row_that_is_cut_off(tmp_path: Path) -> None:
    """A row of fewer cells is an error, not a row of unknowns."""
    path = write_csv(tmp_path / "rows.csv", [row()])
    path.write_text(path.read_text(encoding="utf-8")[:-12], encoding="utf-8")
    ((_, _, found),) = read_results([path])
    assert isinstance(found, BadDocument)
    assert "cells under" in str(found)
