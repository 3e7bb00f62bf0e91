"""Packages that seem to be installed: folders with metadata, and modules where they are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def install(folder: Path, name: str, version: str, modules: Mapping[str, str] | None = None) -> str:
    """Make a folder in which a package seems to be installed; returns it, for ``PYTHONPATH``."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, source in (modules or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source)
    return str(folder)


def doctor(meter: str, *places: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """What the doctor says of one meter, with these folders before all others."""
    command = [sys.executable, "-m", "wattbench", "doctor", "--meter", meter, *more, "--json"]
    path = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=90, env=environment
    )
    assert done.returncode in (0, 1), done.stderr  # 1: the meter does not work, as may be meant
    report: dict[str, Any] = json.loads(done.stdout)
    return report
