"""``wattbench wrap`` carried out in a folder, and the point that it leaves there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import called

WATTBENCH = [sys.executable, "-m", "wattbench"]


def words(folder: Path, meter: str) -> list[str]:
    """The command up to what it is asked."""
    return ["wrap", "--meter", meter, "--db", str(folder / "db")]


def wrap(folder: Path, *asked: str, meter: str = "cpu-load") -> subprocess.CompletedProcess[str]:
    """Carry out ``wattbench wrap`` in a folder; the program's own output is not in what it says."""
    with contextlib.chdir(folder):
        return called(*words(folder, meter), *asked)


def wrap_apart(
    folder: Path, *asked: str, meter: str = "cpu-load"
) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, whose output the program shares."""
    command = [*WATTBENCH, *words(folder, meter), *asked]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def show(folder: Path) -> dict[str, Any]:
    """The only point in the store of a folder."""
    done = called("show", "latest", "--db", str(folder / "db"), "--json")
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert isinstance(point, dict)
    return point


def codes(point: dict[str, Any]) -> set[str]:
    """Codes of the findings."""
    return {finding["code"] for finding in point["findings"]}
