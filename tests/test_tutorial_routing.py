"""The tutorial from measurement to decision runs as it stands, and its claims hold."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command import called

PAGE = Path(__file__).parents[1] / "docs" / "tutorial-routing.md"
pytestmark = pytest.mark.kernels


def _steps() -> list[tuple[str, str]]:
    """Fenced blocks: what their first line names, and what they hold."""
    parts = PAGE.read_text(encoding="utf-8").split("```")[1::2]
    return [(head, body) for head, _, body in (part.partition("\n") for part in parts)]


def _run(line: str, *more: str) -> str:
    words = shlex.split(line)
    assert words[0] == "wattbench"
    done = called(*words[1:], *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tutorial_runs_and_foretells_the_run_that_it_has_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J/token within 3 %, median TTFT and TPOT within 5 % of the measured run."""
    monkeypatch.chdir(tmp_path)
    shown: dict[str, str] = {}
    for head, body in _steps():
        if head != "bash":
            Path(head.split()[1]).write_text(body, encoding="utf-8")
            continue
        for line in body.strip().splitlines():
            shown[line] = _run(line)
    assert Path("policies.png").stat().st_size > 10_000
    (simulated,) = [line for line in shown if "--trace runs:" in line]
    (measured,) = [line for line in shown if "show tag=check" in line]
    policy = json.loads(_run(simulated, "--json"))["cases"][0]["policies"][0]
    metrics: dict[str, Any] = json.loads(_run(measured, "--json"))["points"][0]["metrics"]
    joules = policy["energy_per_output_token_joules"]["value"]
    assert joules == pytest.approx(metrics["energy_per_output_token_joules"]["value"], rel=0.03)
    for name in ("ttft_s", "tpot_s"):
        assert policy[name]["p50"]["value"] == pytest.approx(
            metrics[name]["p50"]["value"], rel=0.05
        )
    (decision,) = [
        text for line, text in shown.items() if line.endswith("fleet.yaml --db study.sqlite")
    ]
    assert "consolidate" in decision
    assert "8 at here, modelled" in decision, "the machine is emulated"
