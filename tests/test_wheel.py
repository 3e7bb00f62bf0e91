"""The built wheel works by itself, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_runs_the_quickstart_in_an_empty_folder(tmp_path: Path) -> None:
    """Workloads, profiles, migrations and the JSON schema travel inside the wheel."""
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(tmp_path / "dist"),
    ]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = archive.namelist()
    assert "wattbench/result.schema.json" in names
    run = ["run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm"]
    done = subprocess.run(
        [sys.executable, "-m", "wattbench", *run, "--db", "runs.sqlite", "--json"],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["verdict"]["performance"] == "valid"
    where = "import wattbench; print(wattbench.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=empty,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in found.stdout
