"""Machines of the simulator's scenarios: rooflines, coefficients, calibrations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from simulations import SMALL, scenario

from wattbench.core.errors import UsageError
from wattbench.hardware import load_model, load_profile, roofline
from wattbench.simulation import load_scenario
from wattbench.simulation.machines import modelled

PAIRS = [
    ("h100-sxm", "llama-3.1-8b", None),
    ("a100-sxm-80", "llama-3.1-70b", 8),
    ("cerebras-cs3", "llama-3.1-8b", None),
    ("b200-sxm", "mixtral-8x7b", None),
    ("h200-sxm", "deepseek-v3", None),
]


@pytest.mark.parametrize(("hardware", "model", "devices"), PAIRS)
def test_a_roofline_is_exact(hardware: str, model: str, devices: int | None) -> None:
    """Time and energy of any step are those of the roofline, where no limit binds."""
    line = roofline(load_profile(hardware), load_model(model), devices)
    step = modelled(load_profile(hardware), load_model(model), devices).step
    rng, free = np.random.default_rng(5), 0
    for _ in range(400):
        batch = int(rng.integers(0, 300))
        prompt = int(rng.choice([0, 1, 17, 900, 3000]))
        context = batch * int(rng.integers(1, 4000))
        attended = prompt * int(rng.integers(1, 9000)) if prompt else 0
        if batch + prompt == 0:
            continue
        cost = line.step(batch + prompt, context + attended, context)
        lanes = (batch, context, prompt, attended)
        assert step.time_s(lanes) == pytest.approx(cost.duration_s, rel=1e-9)
        watts = step.energy_joules(lanes) / step.time_s(lanes)
        if watts < line.limit_watts * (1 - 1e-12):
            free += 1
            assert watts == pytest.approx(cost.power_watts, rel=1e-9)
        else:
            assert cost.power_watts == pytest.approx(line.limit_watts, rel=1e-9)
    assert free > 20


def test_the_limit_of_a_device_stretches_its_steps() -> None:
    """A roofline clips the power at the limit; the simulator's step takes longer instead."""
    line = roofline(load_profile("a100-sxm-40"), load_model("llama-3.1-8b"))
    curve = modelled(load_profile("a100-sxm-40"), load_model("llama-3.1-8b"), None)
    assert curve.limits["cap_watts"] == line.limit_watts
    lanes = (250, 250_000, 1500, 1500 * 750)
    assert curve.step.energy_joules(lanes) / curve.step.time_s(lanes) > line.limit_watts
    capped_s = curve.step.time_s(lanes, line.limit_watts)
    assert capped_s > curve.step.time_s(lanes)
    capped_joules = curve.step.energy_joules(lanes, line.limit_watts)
    assert capped_joules / capped_s == pytest.approx(line.limit_watts)


def test_what_the_profile_knows_need_not_be_written(tmp_path: Path) -> None:
    """Memory, idle power, limit and a wafer's places are the profile's; a lower one may be set."""
    pools = SMALL[SMALL.index("pools:") : SMALL.index("router:")]
    wafer = """pools:
  - {name: wafer, site: north, hardware: cerebras-cs3, model: llama-3.1-8b, max_step_tokens: 99}
  - {name: gpu, site: north, hardware: h100-sxm, model: llama-3.1-8b, max_step_tokens: 512,
     max_batch: 64, cap_watts: 400, kv_capacity_tokens: 100000}
"""
    wafers, gpus = load_scenario(scenario(tmp_path, (pools, wafer))).pools
    line = roofline(load_profile("cerebras-cs3"), load_model("llama-3.1-8b"))
    machine = wafers.machine
    assert wafers.curve.kind == "modelled"
    assert (machine.max_batch, machine.idle_watts) == (16, line.idle_watts)
    assert machine.kv_capacity_tokens == line.kv_capacity_tokens
    assert machine.cap_watts == line.limit_watts
    assert (gpus.machine.cap_watts, gpus.machine.kv_capacity_tokens) == (400, 100_000)


def test_a_calibration_is_read_from_its_file(tmp_path: Path) -> None:
    """The same keys as in a pool; measured; limits of the pool win over those of the file."""
    step = {
        "memory": {"base": 0.01, "per_request": 1e-5, "per_context_token": 1.5e-08},
        "energy": {"tokens": [[1, 2.0], [512, 9.5]]},
        "busy_watts": 90.0,
    }
    fitted = {"step": step, "max_batch": 32, "idle_watts": 40, "about": "runs a and b"}
    (tmp_path / "fit.json").write_text(json.dumps({**fitted, "fit": {"r2": 0.99}}))
    pools = SMALL[SMALL.index("pools:") : SMALL.index("router:")]
    pool = """pools:
  - {name: ours, site: north, calibration: fit.json, max_batch: 16, max_step_tokens: 99,
     kv_capacity_tokens: 5000}
"""
    (ours,) = load_scenario(scenario(tmp_path, (pools, pool))).pools
    assert (ours.curve.kind, ours.curve.source) == ("measured", "runs a and b")
    assert ours.curve.fit == {"r2": 0.99}
    assert (ours.machine.max_batch, ours.machine.idle_watts) == (16, 40)
    assert ours.machine.step.time_s((2, 1000, 0, 0)) == pytest.approx(0.01 + 2e-5 + 1.5e-5)
    (tmp_path / "fit.json").write_text(json.dumps({**fitted, "max_bach": 1}))
    with pytest.raises(UsageError, match=r"fit.json:1: unknown key 'max_bach'; did you mean"):
        load_scenario(str(tmp_path / "small.yaml"))


SCALING = """\
    autoscale: {{min_count: {}, outstanding_per_machine: 2, every_s: 1,
                provision_s: 3, provision_joules: 9}}
"""
NO_STEP = SMALL.index("    step:\n"), SMALL.index("    max_batch: 4\n")
STEP = SMALL[NO_STEP[0] : NO_STEP[1]]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (STEP, "", "has nothing to say what a step costs; write one of step:"),
        (STEP, f"{STEP}    hardware: h100-sxm\n", "has step and hardware"),
        (STEP, "    hardware: h100-sxm\n", "hardware needs a model"),
        (STEP, f"{STEP}    model: llama-3.1-8b\n", "model belongs to hardware:"),
        (STEP, "    hardware: h100-sxn\n    model: x\n", "did you mean 'h100-sxm'?"),
        (STEP, "    hardware: h100-sxm\n    model: llama\n", "did you mean 'llama-3.1"),
        (STEP, "    hardware: l4\n    model: llama-3.1-8b\n", "no power anchors"),
        (STEP, "    calibration: none.json\n", "none.json does not exist"),
        ("    idle_watts: 10\n", "", "idle_watts is missing: the scenario does not say it; add"),
        ("    sleep_after_s: 2\n", "", "sleep_watts means nothing to a machine without sleep"),
        ("    sleep_watts: 1\n", "", "sleep_watts is missing"),
        ("{base: 0.02, per_request", "{per_request", "needs base, or tokens with points"),
        ("{tokens: [[1, 2]", "{base: 1, tokens: [[1, 2]", "has tokens and base"),
        ("[[1, 2], [256, 20]]", "[[1, 2], [1, 20]]", "x must rise"),
        ("[[1, 2], [256, 20]]", "[[1, 20], [256, 2]]", "it must not fall"),
        ("base: 0.02", "base: -0.02", "greater than or equal to 0"),
        ("max_step_tokens: 64", "max_step_tokens: 3", "must be above max_batch 4"),
        ("    count: 2\n", f"    count: 2\n{SCALING.format(0)}", "greater than or equal to 1"),
    ],
)
def test_a_machine_that_is_none_is_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    """With the file, the line and what is to be written."""
    path = scenario(tmp_path, (before, after))
    with pytest.raises(UsageError, match=r"small.yaml:\d+: pools\.[01]") as refused:
        load_scenario(path)
    assert message in str(refused.value)


def test_a_pool_cannot_keep_more_machines_on_than_it_has(tmp_path: Path) -> None:
    """The most that can be on is its count."""
    path = scenario(tmp_path, ("    count: 2\n", f"    count: 2\n{SCALING.format(3)}"))
    with pytest.raises(UsageError, match=r"min_count 3 is above the pool's count of 2"):
        load_scenario(path)
