"""What comes of a simulation: figures that add up, intervals, one horizon, frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import BY_HAND, SMALL, scenario

import wattbench
from wattbench.core.errors import UsageError
from wattbench.routing.fleet import Fleet, Machine, Pool
from wattbench.routing.step import StepModel, affine
from wattbench.simulation import as_json, load_scenario, plan_of, play
from wattbench.simulation.figures import STATUS
from wattbench.traces import trace_from_spec

pytestmark = pytest.mark.kernels

STUDENT_97_5 = {1: 12.7062, 2: 4.3027}
"""Quantiles of Student's distribution, by degrees of freedom, from a printed table."""


def said(folder: Path, *changes: tuple[str, str], **keywords: Any) -> dict[str, Any]:
    outcome = play(plan_of(load_scenario(scenario(folder, *changes))), **keywords)
    return as_json(outcome)


def without_speed(shown: dict[str, Any]) -> dict[str, Any]:
    for policy in shown["policies"]:
        assert policy.pop("simulated_requests_per_s") > 0
    return shown


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return said(tmp_path_factory.mktemp("small"))


def test_figures_add_up(small: dict[str, Any]) -> None:
    """Parts make the whole; ratios are of their parts; every request has one end."""
    assert [each["policy"] for each in small["policies"]] == [
        "round_robin",
        "least_outstanding",
        "cost,ttft_s=1",
    ]
    for policy in small["policies"]:
        for each in policy["per_seed"]:
            parts = dict(each["energy_breakdown_joules"])
            assert parts.pop("transfer") is None
            assert sum(parts.values()) == pytest.approx(each["energy_joules"])
            assert parts["router"] == pytest.approx(0.2 * 200)
            pools = each["pools"].values()
            of_machines = sum(pool["energy_joules"] for pool in pools)
            assert of_machines + parts["router"] == pytest.approx(each["energy_joules"])
            assert sum(pool["served"] for pool in pools) == each["requests"]["served"] == 200
            facility = 1.5 * each["pools"]["large"]["energy_joules"]
            facility += each["pools"]["small"]["energy_joules"] + parts["router"]
            assert each["facility_energy_joules"] == pytest.approx(facility)
            tokens = each["output_tokens"]
            assert each["tokens_per_joule"] == pytest.approx(tokens / each["energy_joules"])
            per_token = each["energy_per_output_token_joules"]
            assert per_token == pytest.approx(1 / each["tokens_per_joule"])
            assert each["energy_per_request_joules"] == pytest.approx(each["energy_joules"] / 200)
            for name in ("ttft_s", "tpot_s", "e2e_s"):
                assert each[name]["p50"] <= each[name]["p95"] <= each[name]["p99"]
        assert policy["energy_breakdown_joules"]["transfer"]["value"] is None
        assert "network" in policy["energy_breakdown_joules"]["transfer"]["reason"]


def test_intervals_are_students(small: dict[str, Any]) -> None:
    """Mean over the seeds and t·s/√n, computed here by hand."""
    for policy in small["policies"]:
        values = [each["energy_joules"] for each in policy["per_seed"]]
        mean, half = sum(values) / 2, STUDENT_97_5[1] * abs(values[0] - values[1]) / 2
        shown = policy["energy_joules"]
        assert (shown["value"], shown["n"]) == (pytest.approx(mean), 2)
        assert shown["high"] - shown["value"] == pytest.approx(half, rel=1e-5)
        assert shown["value"] - shown["low"] == pytest.approx(half, rel=1e-5)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    """Nothing is invented: the ends are null, with the reason."""
    (policy, *_) = said(tmp_path, ("seeds: 2", "seeds: [7]"))["policies"]
    shown = policy["energy_joules"]
    assert (shown["low"], shown["high"], shown["n"]) == (None, None, 1)
    assert shown["reason"] == "one seed has no scatter"


def test_results_do_not_depend_on_processes(tmp_path: Path, small: dict[str, Any]) -> None:
    """Two processes give, to the last bit, what one gives."""
    apart = without_speed(said(tmp_path, workers=2))
    assert apart == without_speed(said(tmp_path, workers=1))
    assert apart["horizon_s"] == small["horizon_s"]


def test_machines_idle_to_one_horizon(tmp_path: Path) -> None:
    """The latest end of any policy and seed, or later if that is asked for."""
    shown = said(tmp_path)
    ends = [each["end_s"] for policy in shown["policies"] for each in policy["per_seed"]]
    assert shown["horizon_s"] == max(ends)
    later = said(tmp_path, ("seeds: 2", "seeds: 2\nhorizon_s: 100"))
    assert later["horizon_s"] == 100
    more_s = 100 - shown["horizon_s"]
    for before, after in zip(shown["policies"], later["policies"], strict=True):
        more = {
            part: after["energy_breakdown_joules"][part]["value"]
            - before["energy_breakdown_joules"][part]["value"]
            for part in ("decode", "prefill", "idle")
        }
        assert (more["decode"], more["prefill"]) == (0, 0)
        assert more["idle"] >= 80 * more_s  # the large one never sleeps


def test_what_is_not_known_is_null_with_the_reason(tmp_path: Path) -> None:
    """No price, no service level, one-token answers: no zero stands for them."""
    shown = said(
        tmp_path,
        ("    price_usd_per_kwh: {at_s: [0, 5], values: [0.3, 0.05]}\n", ""),
        ("slo: ttft:p95<500ms,tpot:p95<50ms\n", ""),
        (', "cost,ttft_s=1"', ""),
        ("output=12,sigma=0.5", "output=1"),
    )
    for policy in shown["policies"]:
        for name, reason in (
            ("cost_usd", "site south has no price_usd_per_kwh"),
            ("slo_attainment_fraction", "no service level is stated (slo:)"),
        ):
            assert (policy[name]["value"], policy[name]["reason"]) == (None, reason)
        assert policy["tpot_s"]["p50"]["reason"] == "no answer had a second token"
        assert policy["emissions_gco2e"]["value"] > 0


def test_money_and_carbon_of_constant_prices(tmp_path: Path) -> None:
    """At constant prices they are joules at the site's meter, converted."""
    shown = said(tmp_path, ("{at_s: [0, 5], values: [0.3, 0.05]}", "0.2"))
    for policy in shown["policies"]:
        for each in policy["per_seed"]:
            north = 1.5 * each["pools"]["large"]["energy_joules"] / 3.6e6
            south = each["pools"]["small"]["energy_joules"] + 0.2 * 200
            south /= 3.6e6
            assert each["cost_usd"] == pytest.approx(0.1 * north + 0.2 * south)
            assert each["emissions_gco2e"] == pytest.approx(400 * north + 50 * south)


def test_service_level_counts_requests_by_all_their_latencies(tmp_path: Path) -> None:
    """Recomputed from the requests: each must be served, and within every limit."""
    path = scenario(tmp_path, ("ttft:p95<500ms", "ttft:p95<30ms"))
    outcome = play(plan_of(load_scenario(path)), keep_requests=True)
    for played in outcome.played:
        times = played.times
        assert times is not None
        good = (times.ttft_s < 0.03) & ~(times.tpot_s >= 0.05)
        assert played.figures["slo_attainment_fraction"] == good.mean()
        assert 0 < good.mean() < 1


CLASSES = """classes:
  fast: {priority: 0, slo: "ttft:p95<50ms"}
  slow: {priority: 2, patience_s: 0.05}
"""


def test_classes_have_priority_patience_and_service_level(tmp_path: Path) -> None:
    """Urgent ones overtake; who has no patience is cancelled, and has no latency."""
    rows = ["time_s,input_tokens,output_tokens,class"]
    rows += [f"{0.01 * n},40,20,{'fast' if n % 4 == 0 else 'slow'}" for n in range(200)]
    (tmp_path / "classes.csv").write_text("\n".join(rows))
    trace = "poisson,rate=20,count=200,input=40,output=12,sigma=0.5"
    path = scenario(tmp_path, (trace, "classes.csv"), ("seeds: 2", f"seeds: 1\n{CLASSES}"))
    outcome = play(plan_of(load_scenario(path)), keep_requests=True)
    for played in outcome.played:
        requests, times = played.run.world.requests, played.times
        assert times is not None
        fast = np.arange(200) % 4 == 0
        served = requests["status"] == 1
        assert served[fast].all()
        assert 0 < served[~fast].sum() < 150
        assert np.isnan(times.e2e_s[~served]).all()
        good = served & np.where(fast, times.ttft_s < 0.05, times.ttft_s < 0.5)
        good &= fast | ~(times.tpot_s >= 0.05)
        assert played.figures["slo_attainment_fraction"] == good.mean()
        counts = {name: played.figures[f"requests.{name}"] for name in STATUS.values()}
        assert counts["cancelled"] == (~served).sum()
        assert sum(counts.values()) == played.figures["requests.arrived"] == 200


def test_a_later_turn_arrives_after_the_answer_before_it(tmp_path: Path) -> None:
    """Latency counts from when a turn really came, not from its recorded arrival."""
    spec = "poisson,rate=5,count=60,turns=4,think_s=1,input=20,output=8"
    trace = trace_from_spec(spec, seed=3)
    assert trace.parent is not None
    assert trace.think_s is not None
    frames = wattbench.simulate(scenario(tmp_path), trace, "least_outstanding")
    finish = frames.requests["finish_s"].to_numpy()
    arrival = frames.requests["arrival_s"].to_numpy()
    later = trace.parent >= 0
    assert later.any()
    expected = finish[trace.parent[later]] + trace.think_s[later]
    np.testing.assert_allclose(arrival[later], expected)
    np.testing.assert_allclose(arrival[~later], trace.arrival_s[~later])
    assert (frames.requests["ttft_s"] > 0.011).all()


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    """Refused requests are counted, and are no part of latency."""
    shown = said(tmp_path, ("signals_every_s: 0.1", "signals_every_s: 0.1, queue_limit: 1"))
    for policy in shown["policies"]:
        for each in policy["per_seed"]:
            counts = each["requests"]
            assert counts["refused"] > 0
            assert counts["served"] + counts["refused"] == counts["arrived"] == 200
        assert policy["slo_attainment_fraction"]["value"] <= 1 - counts["refused"] / 400


def test_what_the_router_knows_of_lengths(tmp_path: Path) -> None:
    """The mean hides what the exact lengths tell; noise differs from seed to seed."""
    texts = ("exact", "mean", '"noisy,sigma=1"')
    found = {}
    for text in texts:
        change = ("signals_every_s: 0.1", f"signals_every_s: 0.1, lengths_known: {text}")
        shown = said(tmp_path, change, ("round_robin, least_outstanding", "token_jsq"))
        found[text] = shown["policies"][0]["e2e_s"]["p95"]["value"]
    assert len(set(found.values())) == 3


def test_frames_of_a_fleet_made_in_python() -> None:
    """A fleet needs no file; the frames agree with each other."""
    machine = Machine(
        name="one",
        step=StepModel(memory=affine(base=0.01), energy=affine(base=1.0), busy_watts=5.0),
        max_batch=4,
        max_step_tokens=64,
        kv_capacity_tokens=500,
        idle_watts=2.0,
    )
    fleet = Fleet(pools=(Pool(machine=machine, count=3, site="site"),))
    frames = wattbench.simulate(
        fleet, "poisson,rate=50,count=90,input=20,output=5", ["round_robin", "random"], seed=[1, 2]
    )
    assert len(frames.requests) == 2 * 2 * 90
    assert len(frames.machines) == 2 * 2 * 3
    assert frames.machines["cost_usd"].isna().all()
    total = frames.machines.groupby(["policy", "seed"])["energy_joules"].sum()
    means = total.groupby("policy").mean()
    policies = frames.policies.set_index("policy")
    for name in ("round_robin", "random"):
        low, value, high = (policies[f"energy_joules{end}"][name] for end in ("_low", "", "_high"))
        assert value == pytest.approx(means[name])
        assert low <= value <= high
        assert math.isnan(policies["cost_usd"][name])
    with pytest.raises(UsageError, match="a fleet needs a trace"):
        wattbench.simulate(fleet)


def test_seeds_that_replay_the_same_requests_are_told(tmp_path: Path) -> None:
    """Their intervals say little; the notes say so, and what the router was."""
    trace = "poisson,rate=20,count=200,input=40,output=12,sigma=0.5"
    (tmp_path / "rows.csv").write_text(
        "time_s,input_tokens,output_tokens\n" + "".join(f"{n * n / 40},9,3\n" for n in range(20))
    )
    shown = said(tmp_path, (trace, "rows.csv"), (", signals_every_s: 0.1", ""))
    notes = " ".join(shown["notes"])
    assert "every seed replays the same requests" in notes
    assert "an oracle of the moment" in notes
    like = said(tmp_path, (trace, "{spec: rows.csv, like: 40}"))
    assert "same requests" not in " ".join(like["notes"])
    assert like["traces"][0]["requests"] == 40
    assert "as it was up to 0.1 s ago" in like["notes"][0]
    assert SMALL.count("signals_every_s") == 1


def test_one_request_by_hand(tmp_path: Path) -> None:
    """Reaches the machine at 0.3 s; a prompt step and two decode steps of 0.6 s; idle until 4 s."""
    (tmp_path / "one.csv").write_text("time_s,input_tokens,output_tokens\n0,10,3\n")
    outcome = play(plan_of(load_scenario(scenario(tmp_path, text=BY_HAND))))
    found = outcome.played[0].figures
    expected = {
        "energy_breakdown_joules.idle": 4 * (0.3 + 1.9),
        "energy_breakdown_joules.prefill": 0.5 * 10,
        "energy_breakdown_joules.decode": 2 * 1,
        "energy_breakdown_joules.batching_overhead": 3 * (10 + 20 * 0.6),
        "energy_breakdown_joules.router": 3,
        "energy_joules": 84.8,
        "facility_energy_joules": 2 * 84.8,
        "energy_per_output_token_joules": 84.8 / 3,
        "energy_per_request_joules": 84.8,
        "tokens_per_joule": 3 / 84.8,
        "cost_usd": 2 * (80.8 * 1 + 4 * 2) / 3.6e6,  # 4 J of idling come after 3 s
        "emissions_gco2e": 2 * 84.8,
        "ttft_s.p99": 0.9,
        "tpot_s.p50": 0.6,
        "e2e_s.p95": 2.1,
        "pools.one.busy_fraction": 1.8 / 4,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
