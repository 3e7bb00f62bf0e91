"""Pools that scale by themselves, and pools that do a part of the work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from simulations import BY_HAND, scenario

from wattbench import simulate
from wattbench.core.errors import UsageError
from wattbench.simulation import load_scenario, plan_of, play

DOC = Path(__file__).parents[1] / "docs" / "simulation.md"
pytestmark = pytest.mark.kernels


def test_a_pool_that_scales_by_hand(tmp_path: Path) -> None:
    """At 1 s two requests want two machines; the second is ready at 2.5 s, down at 3 s."""
    (tmp_path / "one.csv").write_text(
        "time_s,input_tokens,output_tokens\n0,10,3\n0,10,3\n2.6,10,1\n"
    )
    scaling = (
        "    count: 2\n    autoscale: {min_count: 1, outstanding_per_machine: 1, every_s: 1, "
        "provision_s: 1.5, provision_joules: 6, off_watts: 0.5}\n    max_batch: 2\n"
    )
    changes = (("    max_batch: 2\n", scaling), ("[round_robin]", "[least_outstanding]"))
    outcome = play(plan_of(load_scenario(scenario(tmp_path, *changes, text=BY_HAND))))
    found = outcome.played[0].figures
    # The second machine serves the third request from 2.9 s to 3.5 s.
    assert found["energy_breakdown_joules.off"] == pytest.approx(0.5 * (1 + 0.5))
    assert found["energy_breakdown_joules.wake"] == pytest.approx(6)
    assert found["energy_breakdown_joules.idle"] == pytest.approx(4 * (0.3 + 1.1 + 0.4))


APART = """\
transfer: {fixed_s: 0.1, s_per_token: 0.01, joules_per_token: 2}
pools:
  - name: first
    role: prefill
"""


def test_prefill_and_decode_apart_by_hand(tmp_path: Path) -> None:
    """A prompt step of 0.6 s, 0.21 s of transfer, the way, and two decode steps of 0.6 s."""
    (tmp_path / "one.csv").write_text("time_s,input_tokens,output_tokens\n0,10,3\n")
    machine = BY_HAND[BY_HAND.index("    step:") : BY_HAND.index("router:")]
    second = f"  - name: second\n    role: decode\n{machine}"
    changes = (("pools:\n  - name: one\n", APART), ("router:", f"{second}router:"))
    outcome = play(plan_of(load_scenario(scenario(tmp_path, *changes, text=BY_HAND))))
    found = outcome.played[0].figures
    expected = {
        "energy_breakdown_joules.prefill": 0.5 * 10,
        "energy_breakdown_joules.decode": 2 * 1,
        "energy_breakdown_joules.batching_overhead": 3 * (10 + 20 * 0.6),
        "energy_breakdown_joules.transfer": 2 * 11,
        "energy_breakdown_joules.idle": 4 * (4 - 0.6 + 4 - 1.2),
        "ttft_s.p50": 0.9,
        "queue_wait_s.p99": 0.0,
        "tpot_s.p50": (0.21 + 0.3 + 1.2) / 2,
        "pools.first.served": 0,
        "pools.second.output_tokens": 3,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("role: prefill", "role: decode", "role decode, but no pool has role prefill; add one"),
        ("role: prefill", "role: both", "transfer means nothing without a pool of role prefill"),
        ("role: prefill", "role: prefill", "role prefill, but no pool has role decode; add one"),
        ("role: prefill", "role: first", "Input should be 'both', 'prefill' or 'decode'"),
        ("fixed_s: 0.1, ", "", "fixed_s"),
    ],
)
def test_roles_that_do_not_go_together_are_refused(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    """With what is to be added or left out."""
    changes = (("pools:\n  - name: one\n", APART), (before, after))
    with pytest.raises(UsageError, match=r"small.yaml") as refused:
        load_scenario(scenario(tmp_path, *changes, text=BY_HAND))
    assert message in str(refused.value)


def test_prefill_without_a_transfer_is_refused(tmp_path: Path) -> None:
    """What it takes is not known, so it is not nothing."""
    changes = (("pools:\n  - name: one\n", APART.partition("\n")[2]),)
    machine = BY_HAND[BY_HAND.index("    step:") : BY_HAND.index("router:")]
    second = ("router:", f"  - name: second\n    role: decode\n{machine}router:")
    with pytest.raises(UsageError, match=r"role prefill, but transfer is missing"):
        load_scenario(scenario(tmp_path, *changes, second, text=BY_HAND))


def test_the_docs_example_of_roles_runs(tmp_path: Path) -> None:
    """As it stands, but for a shorter trace; every request meets both pools."""
    block = re.search(r"```\n(transfer:.*?)```", DOC.read_text(), re.DOTALL)
    assert block is not None
    path = tmp_path / "apart.yaml"
    path.write_text(block[1])
    frames = simulate(path, "poisson,rate=40,count=100,input=1500,output=50", "least_outstanding")
    assert set(frames.requests["pool"]) == {"answers"}
    assert set(frames.requests["first_token_pool"]) == {"prompts"}
    assert frames.machines["transfer_joules"].sum() > 0
