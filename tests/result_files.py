"""Result files of other tools, constructed: the form of each, with figures that can be followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from wattbench.cli.main import cli


def write_json(path: Path, value: object) -> Path:
    """A JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, values: list[Any]) -> Path:
    """A JSON value per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def imported(database: Path, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
    """What ``wattbench import … --json`` prints."""
    words = ["import", *map(str, arguments), "--db", str(database), "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == exit_code, (result.output, result.exception)
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


def shown(database: Path, selector: str = "latest") -> list[dict[str, Any]]:
    """The points that ``wattbench show … --json`` prints."""
    result = CliRunner().invoke(cli, ["show", selector, "--db", str(database), "--json"])
    assert result.exit_code == 0, result.output
    points: list[dict[str, Any]] = json.loads(result.stdout)["points"]
    return points


def vllm_result(**changes: Any) -> dict[str, Any]:
    """Of two requests, one per second: 3 tokens each, 0.1 s to the first and 0.05 s between."""
    result: dict[str, Any] = {
        "date": "20260331-120000",
        "backend": "vllm",
        "model_id": "some/model",
        "num_prompts": 2,
        "request_rate": "inf",
        "max_concurrency": 2,
        "duration": 2.0,
        "completed": 2,
        "failed": 0,
        "total_input_tokens": 20,
        "total_output_tokens": 6,
        "request_throughput": 1.0,
        "output_throughput": 3.0,
        "total_token_throughput": 13.0,
        "max_output_tokens_per_s": 3.0,
        "mean_ttft_ms": 100.0,
        "median_ttft_ms": 100.0,
        "std_ttft_ms": 0.0,
        "p99_ttft_ms": 100.0,
        "mean_tpot_ms": 50.0,
        "median_tpot_ms": 50.0,
        "p99_tpot_ms": 50.0,
    }
    return result | changes


def vllm_details() -> dict[str, Any]:
    """The lists of ``--save-detailed`` that go with ``vllm_result``."""
    return {
        "input_lens": [10, 10],
        "output_lens": [3, 3],
        "ttfts": [0.1, 0.1],
        "itls": [[0.05, 0.05], [0.05, 0.05]],
        "start_times": [1000.0, 1001.0],
        "generated_texts": ["a", "b"],
        "errors": ["", ""],
    }
