"""``wattbench procure``: figures against sums by hand, limits that hold, orders that are honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import called
from hypothesis import given, settings
from hypothesis import strategies as st
from purchases import exact, figures, option, procured, written

from wattbench.economics import (
    Footprint,
    Room,
    evaluate,
    lines_of,
    load_scenario,
    plan_racks,
)
from wattbench.economics.site import circuits_per_rack
from wattbench.tpf.ceilings import NODE_OVER_BOARDS, NODE_OVER_CHIPS


def test_exact_numbers_come_out_as_by_hand(tmp_path: Path) -> None:
    """20 racks of 16 at 40 kW in 800 kW of IT, half of the time at 1000 tokens/s and 2 J each."""
    shown = procured(written(tmp_path, option(embodied_kgco2e_per_device=200)))
    found = figures(shown)
    (outcome,) = shown["outcomes"]
    installed = {"racks": 20, "devices": 320, "limit": "provisioned power"}
    assert outcome["installed"] == installed | {"devices_per_replica": {"only": 1}}
    assert outcome["binding"].startswith("machines")
    rate = 320 * 1000 * 0.5
    # The profile says 112 W with a model loaded, at the board; the server is 1.8 times that.
    idle_watts = 320 * 0.5 * 112 * NODE_OVER_BOARDS.value
    facility_watts = 1.25 * (rate * 2 + idle_watts)
    seconds = 4 * 8766 * 3600
    expected = {
        "tokens_per_s": rate,
        "energy_tokens_per_s": 0.8e6 / 2,
        "tokens_per_s_per_mw": rate,
        "users_per_replica": 100,
        "interactivity_per_watt": 10 / 2000,
        "node_joules": 2.0,
        "facility_joules": 2.5,
        "idle_joules": 1.25 * idle_watts / rate,
        "capital_usd_per_mtoken": 320 * 10_000 / seconds / rate * 1e6,
        "energy_usd_per_mtoken": facility_watts / 3.6e6 * 0.1 / rate * 1e6,
        "operational_gco2e_per_mtoken": facility_watts / 3.6e6 * 400 / rate * 1e6,
        "embodied_gco2e_per_mtoken": 320 * 200e3 / seconds / rate * 1e6,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert found["usd_per_mtoken"] == pytest.approx(
        found["capital_usd_per_mtoken"] + found["energy_usd_per_mtoken"]
    )
    assert found["gco2e_per_mtoken"] == pytest.approx(
        found["operational_gco2e_per_mtoken"] + found["embodied_gco2e_per_mtoken"]
    )


def test_capital_upkeep_and_interest(tmp_path: Path) -> None:
    """The annuity of 8 % over 4 years, on 1.5 times the devices' price, and a tenth of upkeep."""
    finance = {
        "lifetime_years": 4,
        "discount_rate_fraction": 0.08,
        "capex_ratio": 1.5,
        "opex_fraction_per_year": 0.1,
    }
    found = figures(procured(written(tmp_path, option(), finance=finance)))
    per_year = 320 * 15_000 / (160_000 * 8766 * 3600) * 1e6
    annuity = 0.08 / (1 - 1.08**-4)
    assert found["capital_usd_per_mtoken"] == pytest.approx(annuity * per_year)
    assert found["upkeep_usd_per_mtoken"] == pytest.approx(0.1 * per_year)


@given(
    it_kw=st.floats(1, 5000),
    cooling_kw=st.none() | st.floats(1, 5000),
    places=st.none() | st.integers(1, 300),
    circuits=st.integers(1, 400),
    circuit_kw=st.floats(2, 60),
    over=st.sampled_from([1.0, 1.2]),
    racks=st.lists(
        st.tuples(st.floats(5, 130), st.integers(1, 72), st.integers(1, 16)), min_size=1, max_size=3
    ),
    wanted=st.floats(1, 1e7),
)
def test_what_is_installed_keeps_every_limit(  # noqa: PLR0917
    it_kw: float,
    cooling_kw: float | None,
    places: int | None,
    circuits: int,
    circuit_kw: float,
    over: float,
    racks: list[tuple[float, int, int]],
    wanted: float,
) -> None:
    """Circuits, provisioned power, cooling and places hold, whatever the machines are."""
    room = Room(
        it_watts=1e3 * it_kw,
        cooling_watts=None if cooling_kw is None else 1e3 * cooling_kw,
        rack_count=places,
        circuit_count=circuits,
        circuit_watts=1e3 * circuit_kw,
        oversubscription_ratio=over,
    )
    footprints = [
        Footprint(rack_watts=1e3 * kw, devices_per_rack=devices, devices_per_replica=replica)
        for kw, devices, replica in racks
    ]
    plan = plan_racks(room, footprints, [1e-3] * len(footprints), wanted)
    used = [n * circuits_per_rack(room, f) for n, f in zip(plan.racks, footprints, strict=True)]
    for count, footprint in zip(plan.racks, footprints, strict=True):
        fed = circuits_per_rack(room, footprint) * room.circuit_watts
        assert fed >= footprint.rack_watts * (1 - 1e-6), count
    watts = sum(n * f.rack_watts for n, f in zip(plan.racks, footprints, strict=True))
    assert sum(used) <= circuits
    assert watts <= room.it_watts * over * (1 + 1e-6)
    assert cooling_kw is None or watts <= 1e3 * cooling_kw * over * (1 + 1e-6)
    assert places is None or sum(plan.racks) <= places


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    times=st.integers(2, 6),
    racks=st.integers(1, 30),
    mw=st.floats(0.05, 3),
    joules=st.floats(0.5, 20),
)
def test_power_and_machines_scaled_together_scale_the_rate(
    tmp_path_factory: pytest.TempPathFactory, times: int, racks: int, mw: float, joules: float
) -> None:
    """So do its power and its devices, and nothing that is per token changes."""
    folder = tmp_path_factory.mktemp("scaled")
    rates = []
    for factor in (1, times):
        path = written(
            folder,
            option(joules=joules, devices_available=16 * racks * factor),
            site__delivered_mw=mw * factor,
            site__oversubscription_ratio=1000,
            site__utilisation_fraction=1,
        )
        scenario = load_scenario(path)
        (outcome,) = evaluate(scenario, lines_of(scenario), draws_count=50)
        rates.append(outcome.figures)
    one, many = rates
    if one["tokens_per_s"] is None:
        # The power does not even keep the machines idle.
        assert many["tokens_per_s"] is None
        return
    for name, band in one.items():
        other = many[name]
        if band is not None:
            assert other is not None
            scale = times if name.endswith("tokens_per_s") else 1
            assert other.value == pytest.approx(scale * band.value, rel=1e-6), name


@pytest.mark.parametrize("pue", [1.0, 1.1, 1.6, 2.0])
def test_the_pue_enters_once(tmp_path: Path, pue: float) -> None:
    """Power at the grid is the same as what is left of it at IT; joules and bill take it once."""
    changes = {"site__pue": pue, "site__oversubscription_ratio": 100}
    some = option(devices_available=160)
    grid = figures(procured(written(tmp_path, some, site__delivered_mw=1, **changes)))
    at_it = figures(
        procured(
            written(
                tmp_path,
                some,
                site__delivered_mw=1 / pue,
                site__delivered_at="it",
                **changes,
            )
        )
    )
    del grid["tokens_per_s_per_mw"], at_it["tokens_per_s_per_mw"]
    assert at_it == pytest.approx(grid)
    assert grid["facility_joules"] == pytest.approx(pue * grid["node_joules"])
    assert grid["energy_tokens_per_s"] == pytest.approx(1e6 / pue / 2)
    per_joule = 0.1 / 3.6e6 * 1e6
    spent_joules = grid["facility_joules"] + grid["idle_joules"]
    assert grid["energy_usd_per_mtoken"] == pytest.approx(spent_joules * per_joule)


def test_the_energy_ceiling_feeds_idle_machines(tmp_path: Path) -> None:
    """With more machines than power, mean power is all the power of IT, and no more."""
    changes = {"site__oversubscription_ratio": 100, "site__utilisation_fraction": 1}
    a = option(devices_available=1600)
    shown = procured(written(tmp_path, a, **changes))
    found = figures(shown)
    assert shown["outcomes"][0]["binding"] == "energy"
    facility_joules = found["facility_joules"] + found["idle_joules"]
    assert found["tokens_per_s"] * facility_joules == pytest.approx(1e6)
    assert found["tokens_per_s"] < 0.8e6 / 2


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"site__racks": 7}, "rack places"),
        ({"site__circuits": {"count": 9, "kw": 40}}, "circuits"),
        ({"site__circuits": {"count": 9, "kw": 20}}, "circuits"),
        ({"site__cooling_kw": 300}, "cooling"),
        ({"demand__output_tokens_per_s": 30_000}, "demand"),
    ],
)
def test_each_limit_is_named(tmp_path: Path, changes: dict[str, Any], limit: str) -> None:
    """Whole racks, and the name of what keeps the next one out."""
    shown = procured(written(tmp_path, option(), **changes))
    installed = shown["outcomes"][0]["installed"]
    racks = {"rack places": 7, "circuits": 9, "cooling": 7, "demand": 4}[limit]
    if changes.get("site__circuits", {}).get("kw") == 20:
        racks = 4
    assert (installed["racks"], installed["limit"]) == (racks, limit)


def test_demand_binds_where_it_is_small(tmp_path: Path) -> None:
    """No more is served than is asked for, and idle machines are paid by those tokens."""
    shown = procured(written(tmp_path, option(), demand__output_tokens_per_s=30_000))
    assert shown["outcomes"][0]["binding"] == "demand"
    assert figures(shown)["tokens_per_s"] == pytest.approx(30_000)


def test_unknown_power_is_no_zero(tmp_path: Path) -> None:
    """A machine of no published power has no figure, and says why; the others have."""
    npu = {"name": "npu", "machine": "intel-lunar-lake-npu", "devices_per_node": 1}
    shown = procured(written(tmp_path, option(), npu))
    (outcome,) = (o for o in shown["outcomes"] if o["option"] == "npu")
    assert "intel-lunar-lake-npu" in outcome["reason"]
    assert set(outcome["figures"].values()) == {None}
    assert figures(shown)["tokens_per_s"] > 0


def test_power_that_nobody_measured_is_an_interval(tmp_path: Path) -> None:
    """A design power alone gives a nameplate figure, at least fivefold from end to end."""
    amd = {"name": "b", "machine": "mi355x", "like": "h200-sxm", "devices_per_node": 8}
    shown = procured(written(tmp_path, amd))
    (outcome,) = shown["outcomes"]
    band = outcome["figures"]["meter_joules"]
    assert band["kind"] == "nameplate"
    assert band["high"] > 5 * band["low"]
    assert outcome["figures"]["usd_per_mtoken"] is None
    assert "capex_usd_per_device" in outcome["reasons"]["usd_per_mtoken"]
    assert any("as h200-sxm" in note for note in shown["notes"])


def test_what_two_options_share_cancels(tmp_path: Path) -> None:
    """The same modelled machine at two prices is ranked, although each cost is a decade wide."""
    same = {"machine": "h200-sxm"}
    dear = {**same, "name": "dear", "capex_usd_per_device": 12_000}
    cheap = {**same, "name": "cheap", "capex_usd_per_device": 10_000}
    shown = procured(written(tmp_path, dear, cheap))
    cost = next(o for o in shown["outcomes"])["figures"]["usd_per_mtoken"]
    assert cost["high"] > 3 * cost["low"]
    (pair,) = shown["comparisons"]
    assert (pair["cheaper"], pair["dearer"], pair["ranked"]) == ("cheap", "dear", True)
    assert pair["ratio"]["high"] < 1.21


def test_wide_bands_are_not_ranked_and_narrow_ones_are(tmp_path: Path) -> None:
    """An order is declared where the band of the ratio leaves out 1, and only there."""
    for spread, ranked in ((1.5, False), (1.02, True)):
        a, b = option("a", spread=spread), option("b", rate=800, spread=spread)
        (pair,) = procured(written(tmp_path, a, b))["comparisons"]
        assert (pair["cheaper"], pair["ranked"]) == ("a", ranked), spread
        assert (pair["ratio"]["low"] > 1) == ranked


def test_a_tier_that_nobody_reaches_is_said(tmp_path: Path) -> None:
    """Between points users are found in logarithms; beyond the last there is nothing."""
    tiers = [{"name": "fast", "tokens_per_s_per_user": 11}]
    scenario = written(tmp_path, option(), demand={"tiers": tiers})
    (outcome,) = procured(scenario)["outcomes"]
    assert outcome["reason"].startswith("does not reach 11 tokens/s per user: 10 ")
    assert "fast" in called("procure", scenario).stdout


def test_users_lie_between_points_in_logarithms(tmp_path: Path) -> None:
    """From 40 tokens/s at 10 users to 10 at 160: 20 at 40."""
    ends = [(10, 400.0), (160, 1600.0)]
    points = [
        {
            "concurrency": users,
            "output_tokens_per_s": exact(rate),
            "energy_per_output_token_joules": exact(2.0),
            "boundary": "node",
        }
        for users, rate in ends
    ]
    tiers = [{"name": "only", "tokens_per_s_per_user": 20}]
    found = figures(procured(written(tmp_path, option(points=points), demand={"tiers": tiers})))
    assert found["users_per_replica"] == pytest.approx(40)
    assert found["tokens_per_s"] == pytest.approx(800 * 320 * 0.5)


def test_board_joules_become_node_joules_with_their_interval(tmp_path: Path) -> None:
    """1.5 to 1.9 times, assumed; the meter's own figure stays measured."""
    point = option()["points"][0] | {"boundary": "board"}
    (outcome,) = procured(written(tmp_path, option(points=[point])))["outcomes"]
    board, node = (outcome["figures"][f"{name}_joules"] for name in ("meter", "node"))
    assert (board["value"], board["kind"]) == (2.0, "measured")
    assert (node["value"], node["kind"]) == (pytest.approx(2 * NODE_OVER_BOARDS.value), "assumed")
    assert (node["low"], node["high"]) == (
        pytest.approx(3.0, rel=0.01),
        pytest.approx(3.8, rel=0.01),
    )


def test_joules_of_a_chip_take_the_factor_of_chips(tmp_path: Path) -> None:
    """The one that ceilings take, so that both commands say the same of one reading."""
    point = option()["points"][0] | {"boundary": "chip"}
    found = figures(procured(written(tmp_path, option(points=[point]))))
    assert found["node_joules"] == pytest.approx(2 * NODE_OVER_CHIPS.value)


def test_the_band_of_a_plain_point_is_listed(tmp_path: Path) -> None:
    """Ten per cent that nobody wrote are an assumption like any other; exact is to be written."""
    plain = {"output_tokens_per_s": 1000, "energy_per_output_token_joules": 2}
    path = written(tmp_path, option(points=[option()["points"][0] | plain]), option("b"))
    shown = procured(path)
    joules = shown["outcomes"][0]["figures"]["node_joules"]
    assert joules["high"] == pytest.approx(2.2, rel=0.01)
    stated = {each["place"]: each for each in shown["assumptions"]}
    band = stated["points of a: band_fraction"]
    assert (band["value"], band["kind"], band["source"]) == (0.1, "assumed", "default")
    assert stated["options.a.points.0.output_tokens_per_s"]["kind"] == "measured"
    assert "points of b: band_fraction" not in stated
    assert "points of a: band_fraction = 0.1, assumed: default" in called("procure", path).stdout


def test_a_table_of_measured_points(tmp_path: Path) -> None:
    """Rows of one machine and model; the rate follows from the power where it is left out."""
    (tmp_path / "runs.csv").write_text(
        "machine,model,concurrency,energy_per_output_token_joules,output_tokens_per_s,"
        "mean_power_watts\n"
        "H200,8B,100,2,,2000\nH200,8B,50,3,,1800\nH100,8B,100,5,100,\n",
        encoding="utf-8",
    )
    table = {"csv": "runs.csv", "machine": "H200", "model": "8B", "boundary": "node"}
    (outcome,) = procured(written(tmp_path, option(points=None, measured=table)))["outcomes"]
    node = outcome["figures"]["node_joules"]
    assert node["value"] == pytest.approx(2.0)
    assert node["kind"] == "measured"
    assert node["high"] == pytest.approx(2.2, rel=0.01)
    assert "csv of a: band_fraction" in called("procure", str(tmp_path / "scenario.yaml")).stdout
    wrong = called(
        "procure", written(tmp_path, option(points=None, measured=table | {"model": "9B"}))
    )
    assert wrong.returncode == 2
    assert "no row of H200 with 9B (there is H200 with 8B" in wrong.stderr
    with (tmp_path / "runs.csv").open("a", encoding="utf-8") as file:
        file.write("\nH200,8B,10,4,,\n")
    bare = called("procure", written(tmp_path, option(points=None, measured=table)))
    assert bare.returncode == 2
    assert "runs.csv: line 6: has neither output_tokens_per_s nor mean_power" in bare.stderr
    device = option(points=None, measured=table | {"csv": "/dev/zero"})
    wrong = called("procure", written(tmp_path, device))
    assert wrong.returncode == 2
    assert "/dev/zero: not a regular file" in wrong.stderr


def test_a_fleet_serves_each_tier_with_its_own_machine(tmp_path: Path) -> None:
    """Replicas stand in proportion to the time that a token of the mix takes of each."""
    tiers = [
        {"name": "slow", "tokens_per_s_per_user": 10, "share": 0.75},
        {"name": "fast", "tokens_per_s_per_user": 40, "share": 0.25},
    ]
    quick = option("quick", rate=4000, joules=8)
    parts = [{"option": "a", "tiers": ["slow"]}, {"option": "quick", "tiers": ["fast"]}]
    fleet = {"name": "both", "fleet": parts}
    shown = procured(written(tmp_path, option(), quick, fleet, demand={"tiers": tiers}))
    (both,) = (o for o in shown["outcomes"] if o["option"] == "both")
    assert both["case"] == "mix"
    found = figures(shown, "both", "mix")
    assert found["node_joules"] == pytest.approx(0.75 * 2 + 0.25 * 8)
    # 0.75/1000 to 0.25/4000 is 12 to 1: of 20 racks 18 and 1, and one more where it is needed.
    assert found["machines_tokens_per_s"] == pytest.approx(0.5 * 16 * 1000 * 18 / 0.75, rel=0.06)
    (alone,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == ("a", "mix"))
    assert "does not reach 40" in alone["reason"]
