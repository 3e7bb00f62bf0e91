"""What the documentation says is executed."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wattbench.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
QUANTILES = ("p50", "p95", "p99")


def wattbench(*arguments: str) -> str:
    command = [sys.executable, "-m", "wattbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def script() -> str:
    page = (ROOT / "docs" / "raw-data.md").read_text()
    (found,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    return str(found)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any], what: str) -> None:
    """Values agree to rounding, intervals to 3 % of their width (both are drawn)."""
    if ours["value"] is None:
        assert theirs["value"] is None, what
        return
    assert theirs["value"] == pytest.approx(ours["value"], rel=1e-9), what
    width = ours["high"] - ours["low"]
    for end in ("low", "high"):
        assert math.isclose(theirs[end], ours[end], abs_tol=0.03 * width + 1e-12), (what, end)


@pytest.mark.parametrize(("repeats", "users"), [(1, "1,16"), (3, "16")])
def test_pandas_recomputes_every_figure(tmp_path: Path, repeats: int, users: str) -> None:
    """The script of docs/raw-data.md gives what `show --json` gives."""
    database = str(tmp_path / "runs.sqlite")
    arguments = ["--backend", "emulated", "--hardware", "h100-sxm", "--concurrency", users]
    wattbench("run", "quickstart", *arguments, "--repeats", str(repeats), "--db", database)
    points = json.loads(wattbench("show", "latest", "--db", database, "--json"))["points"]
    (tmp_path / "recompute.py").write_text(script())
    for index, point in enumerate(points):
        batch = point["run_ids"][0].rpartition("-p")[0]
        command = [sys.executable, str(tmp_path / "recompute.py"), database, batch, str(index)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        theirs = json.loads(done.stdout)
        for name, ours in point["metrics"].items():
            if "p50" not in ours:
                assert_same(ours, theirs[name], name)
                continue
            assert theirs[name]["n"] == ours["n"]
            for label in QUANTILES:
                assert_same(ours[label], theirs[name][label], f"{name} {label}")
        headline = point["energy"]["headline"]
        for name in ("gross_joules", "net_loaded_idle_joules"):
            assert_same(headline[name], theirs[name], name)
        assert theirs["tokens"]["output"] == pytest.approx(point["tokens"]["output"])
        assert theirs["tokens"]["input"] == pytest.approx(point["tokens"]["input"])
        assert theirs["duration_s"] == pytest.approx(point["window"]["duration_s"])


def test_readme_names_every_command_and_the_two_that_start() -> None:
    """A newcomer finds every command in the README, and how to begin."""
    readme = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"wattbench {name}" in readme, name
    assert "make quickstart" in readme
    assert "make test" in readme


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/*.md")))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page has its file."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
