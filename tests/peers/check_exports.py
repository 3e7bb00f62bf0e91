"""Exported files read by the models of the tools whose formats they are.

A run of the emulator is exported, and each format is given to its tool's own Python code, in that
tool's environment below ``.peers``. A tool that is not installed is said to be so.

    PYTHONPATH=tests .venv/bin/python tests/peers/check_exports.py [FORMAT…]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner

from wattbench.cli.main import cli

PEERS = Path(__file__).parents[2] / ".peers"
OPEN_LOOP = """
name: open
about: Arrivals of a rate, with prompts and answers of one length each.
session:
  input_tokens: {kind: fixed, value: 64}
  output_tokens: {kind: fixed, value: 16}
arrivals: {kind: poisson, rate_per_s: [4]}
warmup: {duration_s: 1.0}
measure: {duration_s: 5.0}
"""
AIPERF = """
import json, pathlib, sys
from aiperf.common.models.export_models import JsonExportData
from aiperf.common.models.record_models import MetricRecordInfo
folder = pathlib.Path(sys.argv[1])
for path in folder.rglob("profile_export_aiperf.json"):
    read = JsonExportData.model_validate_json(path.read_bytes())
    told = json.loads(path.read_bytes())
    assert read.output_sequence_length.sum == told["total_osl"]["avg"], path
    print(path.parent.name, len(told), "keys")
for path in folder.rglob("profile_export.jsonl"):
    lines = path.read_bytes().splitlines()
    for line in lines:
        MetricRecordInfo.model_validate_json(line)
    print(path.parent.name, len(lines), "records")
"""
LLMD = """
import pathlib, sys
from llmd_benchmark_report import import_benchmark_report
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    read = import_benchmark_report(str(path))
    assert read.version == "0.2.1", path
    (power,) = read.results.observability.components
    assert power.component_label == read.scenario.stack[0].metadata.label
    print(path.name, type(read).__name__, power.aggregate.power_consumption.mean, "W")
"""
CHECKS = {"aiperf": ("aiperf", AIPERF), "llm-d": ("llmd-benchmark-report", LLMD)}
"""Format: the package that knows it, and what that package's Python runs."""


def main(names: list[str]) -> int:
    """Export and check; the exit code."""
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        database = _measured(Path(folder))
        for form, (package, code) in CHECKS.items():
            if names and form not in names:
                continue
            python = PEERS / package / "bin" / "python"
            if not python.exists():
                print(f"{form}: not installed: there is no {python}")
                failed = True
                continue
            out = Path(folder) / form
            words = ["--runs", "tag=exports", "--out", str(out), "--db", str(database)]
            _wattbench("export", "--format", form, *words)
            print(f"{form}, by {package}:", flush=True)
            done = subprocess.run([str(python), "-c", code, str(out)], check=False)
            failed |= done.returncode != 0
    return int(failed)


def _measured(folder: Path) -> Path:
    """A store with a closed and an open loop."""
    database, workload = folder / "results.sqlite", folder / "open.yaml"
    workload.write_text(OPEN_LOOP, encoding="utf-8")
    for load in (("quickstart", "--concurrency", "1,4"), (str(workload),)):
        words = ("--backend", "emulated", "--hardware", "h100-sxm", "--tag", "exports", "--quiet")
        _wattbench("run", *load, *words, "--db", str(database))
    return database


def _wattbench(*words: str) -> None:
    result = CliRunner().invoke(cli, list(words))
    if result.exit_code:
        sys.exit(f"wattbench {' '.join(words)}: {result.output}{result.exception}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
