"""``wattbench procure``: devices of a replica, and operating points of stored runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from command import called
from purchases import figures, option, procured, written

from wattbench.core.errors import UsageError
from wattbench.economics import Footprint, Room, plan_racks
from wattbench.hardware import load_model, load_profile, roofline
from wattbench.tpf.operating import modelled_points

LARGE = load_model("llama-3.1-70b")


def tier(name: str, speed: float, share: float = 1.0) -> dict[str, Any]:
    """A tier of a speed."""
    return {"name": name, "tokens_per_s_per_user": speed, "share": share}


def replicas(shown: dict[str, Any], case: str, name: str = "m") -> dict[str, int]:
    """Devices of a replica by tier."""
    (found,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == (name, case))
    assert found["reason"] is None, found["reason"]
    return dict(found["installed"]["devices_per_replica"])


def test_more_devices_share_the_work_and_pay_for_hops() -> None:
    """Eight in place of two: four times each rate and watt, the weights once, the same hops."""
    machine = load_profile("h200-sxm")
    two, eight = roofline(machine, LARGE), roofline(machine, LARGE, 8)
    assert (two.device_count, eight.device_count) == (2, 8)
    for name in ("flops_per_s", "bytes_per_s", "idle_watts", "memory_watts", "limit_watts"):
        assert getattr(eight, name) == pytest.approx(4 * getattr(two, name)), name
    assert eight.overhead_s == pytest.approx(two.overhead_s)
    held_bytes = (8 - 2) * (141.0e9 - 14.1e9)
    more_tokens = eight.kv_capacity_tokens - two.kv_capacity_tokens
    assert more_tokens == pytest.approx(held_bytes / LARGE.kv_bytes_per_token, abs=1)
    small = load_model("llama-3.1-8b")
    hops_s = roofline(machine, small, 2).overhead_s - roofline(machine, small).overhead_s
    assert hops_s == pytest.approx(2 * small.layers * 8.0e-6)


def test_a_pipeline_of_more_devices_is_no_faster() -> None:
    """One works after the other: room grows, speed does not, and any number will do."""
    machine = load_profile("cerebras-cs3")
    four, five = roofline(machine, LARGE), roofline(machine, LARGE, 5)
    assert (four.device_count, five.device_count) == (4, 5)
    assert five.bytes_per_s == four.bytes_per_s
    assert five.overhead_s - four.overhead_s == pytest.approx(19.0e-6)
    assert five.kv_capacity_tokens > four.kv_capacity_tokens


@pytest.mark.parametrize("devices", [1, 6, 16])
def test_a_replica_that_cannot_be_names_its_limits(devices: int) -> None:
    """Too few, no power of two, beyond the link."""
    with pytest.raises(
        UsageError, match=f"{devices} devices of NVIDIA H200.* make no replica"
    ) as e:
        modelled_points(
            load_profile("h200-sxm"), LARGE, [1], input_tokens=64, output_tokens=64, devices=devices
        )
    for limit in ("2 or more hold", "a power of two", "at most the 8 that its link joins"):
        assert limit in str(e.value)


def test_ceilings_take_the_size_of_a_replica() -> None:
    """On eight devices a service level is met that two do not meet."""
    asked = (
        "tpf",
        "ceilings",
        "--hardware",
        "h200-sxm",
        "--model",
        "llama-3.1-70b",
        "--pue",
        "1.2",
    )
    site = ("--site-power-mw", "10", "--count", "8000", "--slo", "tpot<15ms")
    assert "no operating point meets TPOT" in called(*asked, *site).stderr
    done = called(*asked, *site, "--devices-per-replica", "8", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["devices_per_replica"], told["replicas"]) == (8, 1000)
    wrong = called(*asked, *site, "--devices-per-replica", "3")
    assert wrong.returncode == 2
    assert "make no replica" in wrong.stderr
    both = called(*asked, *site, "--devices-per-replica", "8", "--runs", "latest")
    assert "has its own devices and lengths" in both.stderr


def test_each_tier_takes_the_cheapest_size_that_reaches_it(tmp_path: Path) -> None:
    """As each size alone says; in the mix each size has racks of its own, and limits hold."""
    tiers = [tier("slow", 10, 0.8), tier("fast", 250, 0.2)]
    sizes = [1, 8]
    common = {
        "machine": "h200-sxm",
        "capex_usd_per_device": 10_000,
        "devices_available": 320,
    }
    alone = [common | {"name": f"m{size}", "devices_per_replica": size} for size in sizes]
    both = common | {"name": "m", "devices_per_replica": sizes}
    shown = procured(written(tmp_path, *alone, both, demand={"tiers": tiers}))
    slow = {size: figures(shown, f"m{size}", "slow")["usd_per_mtoken"] for size in sizes}
    cheapest = min(slow, key=lambda size: slow[size])
    assert replicas(shown, "slow") == {"slow": cheapest}
    assert figures(shown, "m", "slow")["usd_per_mtoken"] == pytest.approx(slow[cheapest])
    (small,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == ("m1", "fast"))
    assert "does not reach 250" in small["reason"]
    assert replicas(shown, "fast") == {"fast": 8}
    assert cheapest == 1
    assert replicas(shown, "mix") == {"slow": 1, "fast": 8}
    (mix,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == ("m", "mix"))
    assert mix["installed"]["devices"] <= 320
    assert "1, 8" in called("procure", str(tmp_path / "scenario.yaml")).stdout


def test_racks_of_one_option_share_what_can_be_had() -> None:
    """Also where its replicas are of two sizes."""
    footprints = [
        Footprint(
            rack_watts=1e4,
            devices_per_rack=8,
            devices_per_replica=size,
            available_count=40,
            option="one",
        )
        for size in (1, 8)
    ]
    plan = plan_racks(Room(it_watts=1e9), footprints, [1.0, 8.0])
    assert (sum(plan.racks), plan.limit) == (5, "devices to be had")


def test_a_size_that_cannot_be_is_the_reason(tmp_path: Path) -> None:
    """The option has no figures; the others have."""
    wrong = {"name": "m", "machine": "h200-sxm", "devices_per_replica": [1, 3]}
    shown = procured(written(tmp_path, option(), wrong))
    (outcome,) = (o for o in shown["outcomes"] if o["option"] == "m")
    assert "3 devices of NVIDIA H200" in outcome["reason"]
    assert figures(shown)["tokens_per_s"] > 0


@pytest.mark.parametrize(
    ("size", "node", "fits"), [(3, None, False), (12, None, False), (3, 6, True), (16, None, True)]
)
def test_replicas_do_not_share_nodes(
    tmp_path: Path, size: int, node: int | None, *, fits: bool
) -> None:
    """A replica divides the eight devices of a node or is whole nodes."""
    asked = option(devices_per_replica=size, devices_per_rack=None, devices_per_node=node)
    (outcome,) = procured(written(tmp_path, asked))["outcomes"]
    if fits:
        assert outcome["reason"] is None
    else:
        assert f"devices_per_replica {size} and the 8 devices of a node" in outcome["reason"]


def test_one_concurrency_twice_is_refused(tmp_path: Path) -> None:
    """Both places are named, written out or in a table."""
    point = option()["points"][0]
    other = copy.deepcopy(point) | {"concurrency": 50}
    done = called("procure", written(tmp_path, option(points=[point, other, copy.deepcopy(point)])))
    assert done.returncode == 2
    assert "points 0 and 2 (from 0) both have concurrency 100" in done.stderr
    (tmp_path / "runs.csv").write_text(
        "machine,model,concurrency,energy_per_output_token_joules,output_tokens_per_s\n"
        "H200,8B,100,2,900\nH200,8B,100,2,1000\n",
        encoding="utf-8",
    )
    table = {"csv": "runs.csv", "machine": "H200", "model": "8B", "boundary": "node"}
    (outcome,) = procured(written(tmp_path, option(points=None, measured=table)))["outcomes"]
    assert "concurrency 100 several times (900, 1000 tokens/s)" in outcome["reason"]


def test_points_that_draw_too_much_are_warned_of(tmp_path: Path) -> None:
    """3 J at 1000 tokens/s are above 2500 W of the node, 0.8 J above 700 W of the board."""
    board = option("b")["points"][0] | {
        "boundary": "board",
        "energy_per_output_token_joules": 0.8,
    }
    path = written(tmp_path, option(joules=3.0), option("b", points=[board]), option("c"))
    node, inside = procured(path)["warnings"]
    assert "a: 3 J/token at 1000 tokens/s" in node
    assert "3000 W per device at the node, above the 2500 W that it is provisioned with" in node
    assert "800 W per device at the board, above the 700 W that it has as its design" in inside
    printed = called("procure", path).stdout
    assert f"warning: {node}" in printed
    assert "<p>Warning: a: 3 J/token" in called("procure", path, "--html").stdout


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one emulated sweep of an H100."""
    path = str(tmp_path_factory.mktemp("store") / "r.sqlite")
    run = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", "--quiet")
    assert not called(*run, "--concurrency", "1,16", "--tag", "sweep", "--db", path).returncode
    return path


def stored(name: str = "a", selector: str = "tag=sweep") -> dict[str, Any]:
    """An option whose operating points are stored runs."""
    return option(
        name,
        machine="h100-sxm",
        points=None,
        devices_per_replica=None,
        measured={"runs": selector},
    )


def test_stored_runs_are_operating_points(tmp_path: Path, database: str) -> None:
    """Their joules and rate at their boundary, with their own intervals and kinds."""
    point = json.loads(called("show", "latest", "--db", database, "--json").stdout)["points"][-1]
    energy, rate = (
        point["metrics"][name] for name in ("energy_per_output_token_joules", "output_tokens_per_s")
    )
    scenario = written(tmp_path, stored(), demand={"tiers": [tier("only", rate["value"] / 16)]})
    shown = procured(scenario, "--db", database)
    (outcome,) = shown["outcomes"]
    assert outcome["figures"]["users_per_replica"]["value"] == pytest.approx(16)
    assert outcome["figures"]["users_per_replica"]["kind"] == "measured"
    board = outcome["figures"]["meter_joules"]
    assert board["value"] == pytest.approx(energy["value"])
    assert board["low"] == pytest.approx(energy["low"], rel=0.02)
    assert replicas(shown, "only", "a") == {"only": 1}
    printed = called("procure", scenario, "--db", database).stdout
    (row,) = (line for line in printed.splitlines() if line.startswith("users per replica"))
    assert row.rstrip().endswith(" m")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (stored(selector="tag=none"), "no run matches 'tag=none'"),
        (stored() | {"machine": "h200-sxm"}, "no run of h200-sxm with llama-3.1-8b; there is h100"),
        (stored() | {"devices_per_replica": 2}, "the devices that they had"),
        (stored() | {"measured": {"runs": "x", "csv": "y"}}, "either csv or runs"),
        (stored() | {"measured": {"runs": "x", "boundary": "node"}}, "drop the rest"),
        (option(points=None, measured={"csv": "x"}), "needs machine, model, boundary too"),
        (option(devices_per_replica=[1, 2]), "one devices_per_replica"),
    ],
)
def test_runs_that_do_not_fit_are_refused(
    tmp_path: Path, database: str, wrong: dict[str, Any], message: str
) -> None:
    """Another machine, nothing at all, or what contradicts a run."""
    done = called("procure", written(tmp_path, wrong), "--db", database)
    assert done.returncode == 2
    assert message in done.stderr
