"""A step model from an engine's log: what made the log is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import called

from wattbench.routing.calibration import replayed, step_model
from wattbench.routing.fleet import Machine
from wattbench.routing.step import StepModel
from wattbench.routing.world import Demand

pytestmark = pytest.mark.kernels
TRUE = np.array([3e-3, 1.2e-2, 6e-5, 1e-5, 9e-8])
ENGINE: dict[str, Any] = {
    "engine_kwargs": {"max_num_seqs": 64, "max_num_batched_tokens": 2048},
    "kv_cache": {"num_kv_tokens": 30_000, "block_size": 16},
}


def engine(step: StepModel, **limits: Any) -> Machine:
    return Machine(
        name="engine",
        step=step,
        max_step_tokens=2048,
        idle_watts=0.0,
        kv_request_tokens=8,
        **limits,
    )


def log_of(machine: Machine, count: int = 200, rate: float = 6.0) -> list[dict[str, float]]:
    """What the machine would log of requests that overload it, on a clock of its own."""
    rng = np.random.default_rng(5)
    demand = Demand(
        arrival_s=np.cumsum(rng.exponential(1 / rate, count)),
        input_tokens=rng.integers(100, 2500, count).astype(np.int32),
        output_tokens=rng.integers(100, 500, count).astype(np.int32),
    )
    found, admitted_s = replayed(machine, demand)
    noise = 1 + 0.002 * rng.standard_normal(count)
    return [
        {
            "input_toks": int(demand.input_tokens[r]),
            "output_toks": int(demand.output_tokens[r]),
            "queued_ts": 5000 + demand.arrival_s[r],
            "scheduled_ts": 5000 + admitted_s[r],
            "first_token_ts": 5000 + found["first_s"][r],
            "last_token_ts": 5000
            + found["first_s"][r]
            + noise[r] * (found["finish_s"][r] - found["first_s"][r]),
        }
        for r in range(count)
    ]


def written(folder: Path, rows: list[dict[str, float]], facts: dict[str, Any] | None) -> list[str]:
    """The arguments of the command, with the log in any order."""
    log, meta = folder / "requests.jsonl", folder / "meta.json"
    log.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)), encoding="utf-8")
    arguments = ["simulate", "--calibrate-from", str(log), "--json"]
    if facts is None:
        return arguments
    meta.write_text(json.dumps(facts), encoding="utf-8")
    return [*arguments, "--engine", str(meta)]


def calibrated(*arguments: str) -> dict[str, Any]:
    done = called(*arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["calibration"]
    return found


@pytest.mark.parametrize("form", ["sum", "max"])
def test_the_model_that_made_a_log_foretells_its_second_half(tmp_path: Path, form: str) -> None:
    """Preemption and full memory among it; errors within two percent, the wait apart."""
    machine = engine(step_model(TRUE, 4e-5, form), max_batch=64, kv_capacity_tokens=30_000)
    rows = log_of(machine)
    out = tmp_path / "pool.json"
    found = calibrated(*written(tmp_path, rows, ENGINE), "--out", str(out))
    assert found["tpot_median_error"] < 0.02
    assert found["e2e_mean_error"] < 0.02
    assert found["ttft_p99_error"] < 0.02
    assert found["preemptions"] > 0
    assert found["kv_capacity_from"] == found["max_batch_from"] == "told"
    wait = found["queue_wait_s"]
    assert wait["simulated_mean"] == pytest.approx(wait["measured_mean"], rel=0.02)
    text = json.loads(out.read_text(encoding="utf-8"))
    assert text["max_batch"] == 64
    assert "energy" not in text["step"], "the log has no joules"


def test_what_the_engine_does_not_tell_is_inferred_and_said_to_be(tmp_path: Path) -> None:
    """The KV capacity within some percent; and the places, where these are what binds."""
    step = step_model(TRUE, 4e-5, "sum")
    tight = engine(step, max_batch=256, kv_capacity_tokens=30_000)
    found = calibrated(*written(tmp_path, log_of(tight), None))
    assert found["kv_capacity_from"] == "inferred"
    assert found["kv_capacity_tokens"] == pytest.approx(30_000, rel=0.03)
    assert found["max_batch_from"] == "assumed"
    assert any("max_num_batched_tokens" in each for each in found["assumed"])
    narrow = engine(step, max_batch=12, kv_capacity_tokens=10**6)
    found = calibrated(*written(tmp_path, log_of(narrow), None))
    assert (found["max_batch"], found["max_batch_from"]) == (12, "inferred")
    assert found["kv_capacity_from"] == "not binding"
    assert found["ttft_p99_error"] < 0.02


def test_a_pool_cannot_take_a_curve_without_joules(tmp_path: Path) -> None:
    """Unknown energy is an error with the way out, never 0 J."""
    step = {"memory": {"base": 0.01}}
    curve = {"step": step, "max_batch": 8, "max_step_tokens": 64, "kv_capacity_tokens": 1000}
    (tmp_path / "pool.json").write_text(json.dumps(curve), encoding="utf-8")
    scenario = tmp_path / "one.yaml"
    scenario.write_text(
        "name: one\nabout: one\nsites: [{name: a}]\n"
        "pools: [{name: p, site: a, count: 1, calibration: pool.json, idle_watts: 1}]\n"
        'trace: {spec: "poisson,rate=1,count=10,input=4,output=4"}\npolicies: [round_robin]\n',
        encoding="utf-8",
    )
    done = called("simulate", str(scenario), "--db", str(tmp_path / "a.sqlite"))
    assert done.returncode == 2
    assert "energy" in done.stderr


ROW = {
    "input_toks": 5,
    "output_toks": 3,
    "queued_ts": 1.0,
    "first_token_ts": 2.0,
    "last_token_ts": 3.0,
}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no requests"),
        ("[1]\n", "line 1: no JSON object"),
        ("{\n", "line 1: no JSON object"),
        (json.dumps({**ROW, "input_toks": -4}) + "\n", "input_toks is -4"),
        (json.dumps({**ROW, "output_toks": 10**9}) + "\n", "output_toks is 1e+09"),
        (json.dumps({**ROW, "queued_ts": "now"}) + "\n", "queued_ts is 'now'"),
        (json.dumps({**ROW, "last_token_ts": 1.5}) + "\n", "follow one another"),
        (json.dumps({k: v for k, v in ROW.items() if k != "output_toks"}) + "\n", "neither"),
        (json.dumps(ROW) + "\n", "too few"),
    ],
)
def test_a_log_that_is_none_is_one_error(tmp_path: Path, text: str, complaint: str) -> None:
    """It names the file, the line, the value and the way out."""
    log = tmp_path / "requests.jsonl"
    log.write_text(text, encoding="utf-8")
    done = called("simulate", "--calibrate-from", str(log))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_calibration_never_replaces_its_own_log(tmp_path: Path) -> None:
    """It is refused before anything is fitted."""
    log = tmp_path / "requests.jsonl"
    log.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    done = called("simulate", "--calibrate-from", str(log), "--out", str(log))
    assert done.returncode == 2
    assert "no calibration wrote" in done.stderr
    assert json.loads(log.read_text(encoding="utf-8")) == ROW


def test_an_engine_s_file_that_cannot_be_true_is_one_error(tmp_path: Path) -> None:
    """A request was served that it would not hold; a limit is no number."""
    machine = engine(step_model(TRUE, 4e-5, "sum"), max_batch=64, kv_capacity_tokens=30_000)
    rows = log_of(machine, 40)
    for facts, complaint in (
        ({"num_kv_tokens": 1000}, "correct num_kv_tokens"),
        ({"max_num_seqs": 0}, "max_num_seqs is '0'"),
        ({"kv_rule": "half"}, "kv_rule is 'half'"),
    ):
        done = called(*written(tmp_path, rows, facts))
        assert done.returncode == 2
        assert complaint in done.stderr
