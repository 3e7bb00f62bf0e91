"""``wattbench procure``: which order is honest, what would settle it, and what is said."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from command import called
from purchases import exact, figures, option, procured, written

from wattbench.economics import (
    compare,
    evaluate,
    lines_of,
    load_scenario,
)
from wattbench.workload import load_workload

DOC = Path(__file__).parents[1] / "docs" / "procurement.md"


def test_break_evens_are_where_the_costs_meet(tmp_path: Path) -> None:
    """Evaluated again at its price of energy, or at its utilisation, the pair costs the same."""
    thrifty = option("thrifty", joules=1.0, capex_usd_per_device=11_000)
    greedy = option("greedy", joules=3.0)
    (pair,) = procured(written(tmp_path, thrifty, greedy))["comparisons"]
    even = pair["break_even"]
    price = even["power_usd_per_kwh"]
    again = procured(written(tmp_path, thrifty, greedy, site__power_usd_per_kwh=price))
    costs = [figures(again, name)["usd_per_mtoken"] for name in ("thrifty", "greedy")]
    assert costs[0] == pytest.approx(costs[1], rel=1e-6)
    busy = even["utilisation_fraction"]
    dearer = figures(procured(written(tmp_path, thrifty, greedy)), pair["dearer"])
    idle = figures(
        procured(written(tmp_path, thrifty, greedy, site__utilisation_fraction=busy)),
        pair["cheaper"],
    )
    assert idle["usd_per_mtoken"] == pytest.approx(dearer["usd_per_mtoken"], rel=1e-3)


def test_the_tornado_is_in_order_and_has_the_drift(tmp_path: Path) -> None:
    """Widest first, each with the two ends of its own band."""
    price = exact(10_000, 1.5)
    drift = {"value": 1, "low": 0.6, "high": 1.1}
    path = written(tmp_path, option(capex_usd_per_device=price), engine_drift_ratio=drift)
    (outcome,) = procured(path)["outcomes"]
    names = [swing["name"] for swing in outcome["tornado"]]
    assert names[:2] == ["engine drift: its own engine", "a: price"]
    swings = [s["high_usd_per_mtoken"] / s["low_usd_per_mtoken"] for s in outcome["tornado"]]
    assert swings == sorted(swings, reverse=True)
    value = outcome["figures"]["capital_usd_per_mtoken"]["value"]
    total = outcome["figures"]["usd_per_mtoken"]["value"]
    assert outcome["tornado"][1]["high_usd_per_mtoken"] == pytest.approx(total + 0.5 * value)


def test_inferencex_is_apart_and_by_its_own_formula(tmp_path: Path) -> None:
    """1000 tokens/s of a device provisioned with 2.5 kW."""
    path = written(tmp_path, option(), conventions=["inferencex-provisioned"])
    (outcome,) = procured(path)["outcomes"]
    theirs = outcome["inferencex_provisioned"]
    assert theirs["tokens_per_s_per_mw"]["value"] == pytest.approx(1000 * 1000 / 2.5)
    assert theirs["joules_per_token"]["value"] == pytest.approx(2.5 * 1000 / 1000)
    (plain,) = procured(written(tmp_path, option()))["outcomes"]
    assert plain["inferencex_provisioned"] is None
    assert plain["figures"] == outcome["figures"]


def test_a_rent_may_hold_the_energy(tmp_path: Path) -> None:
    """Then none is billed twice; the carbon stays."""
    rent = {"usd_per_device_hour": 1.8, "includes_energy": True}
    shown = procured(written(tmp_path, option(capex_usd_per_device=None, rent=rent)))
    found = figures(shown)
    assert found["usd_per_mtoken"] == pytest.approx(320 * 1.8 / 3600 / 160_000 * 1e6)
    assert shown["outcomes"][0]["reasons"]["energy_usd_per_mtoken"].startswith("in the rent")
    assert found["operational_gco2e_per_mtoken"] > 0


def test_quality_below_the_floor_is_out_and_unstated_is_said(tmp_path: Path) -> None:
    """A floor is judged by what is stated, and not assumed to be met."""
    floor = {"metric": "mmlu", "minimum": 0.8}
    tiers = [{"name": "only", "tokens_per_s_per_user": 10, "quality_floor": floor}]
    options = [
        option("good", quality={"mmlu": 0.82}),
        option("bad", quality={"mmlu": 0.7}),
        option(),
    ]
    shown = procured(written(tmp_path, *options, demand={"tiers": tiers}))
    reasons = {o["option"]: o["reason"] for o in shown["outcomes"]}
    assert reasons["good"] is None
    assert "below the floor of 0.8" in reasons["bad"]
    assert [note for note in shown["notes"] if "not stated" in note and note.startswith("a: ")]


def test_a_pack_settles_what_it_says(tmp_path: Path) -> None:
    """At its limit a vendor makes the order a ranked one; at the threshold it is even."""
    wide = option("wide", spread=2.0)
    pricey = option("known", rate=900, capex_usd_per_device=exact(10_000, 1.2))
    pack = tmp_path / "pack"
    shown = procured(written(tmp_path, wide, pricey), "--rfp", str(pack))
    assert not shown["comparisons"][0]["ranked"]
    (folder,) = pack.iterdir()
    stated = json.loads((folder / "rfp.json").read_text())
    claims = stated["claims"]
    assert [claim["cheaper"] for claim in claims] == ["wide", "known"]
    (asked,), (against,) = (claim["measurements"] for claim in claims)
    assert (stated["schema_version"], asked["option"], against["option"]) == (1, "wide", "wide")
    workload = load_workload(str(folder / asked["workload"]))
    users = {each["operating_point"]["concurrency"] for each in (asked, against)}
    assert set(workload.arrivals.model_dump()["concurrency"]) == users
    assert "wide" in (folder / "README.md").read_text()
    sides = [each["interval_must_lie"] for each in asked["criteria"] + against["criteria"]]
    assert sides == ["above", "below", "below", "above"]

    def judged(measurement: dict[str, Any], place: str) -> dict[str, Any]:
        rate, joules = (criterion[place] for criterion in measurement["criteria"])
        measured = option("wide", rate=rate, joules=joules)
        (pair,) = procured(written(tmp_path, measured, pricey))["comparisons"]
        return dict(pair)

    for measurement, cheaper in ((asked, "wide"), (against, "known")):
        pair = judged(measurement, "limit")
        assert pair["cheaper"] == cheaper
        assert pair["ratio"]["low"] == pytest.approx(1, abs=0.02)
        assert judged(measurement, "threshold")["ratio"]["value"] == pytest.approx(1, abs=2e-3)


def test_tiers_may_have_lengths_of_their_own(tmp_path: Path) -> None:
    """Longer prompts give fewer tokens; points of one load do not stand for another."""
    own = {"input_tokens": 8000, "output_tokens": 100}
    tiers = [
        {"name": "short", "tokens_per_s_per_user": 20, "share": 0.5},
        {"name": "long", "tokens_per_s_per_user": 20, "share": 0.5, "load": own},
    ]
    modelled = {"name": "m", "machine": "h200-sxm"}
    shown = procured(written(tmp_path, modelled, option(), demand={"tiers": tiers}))
    short, long, both = (
        figures(shown, "m", case)["tokens_per_s"] for case in ("short", "long", "mix")
    )
    assert long < both < short
    (measured,) = (o for o in shown["outcomes"] if (o["option"], o["case"]) == ("a", "long"))
    assert "the tier has one of its own" in measured["reason"]


def test_workloads_of_a_pack_load_for_any_name_and_speed(tmp_path: Path) -> None:
    """Also a name with a plus, and a speed far below a token per second."""
    tiers = [{"name": "only", "tokens_per_s_per_user": 0.02}]
    pair = option("a+b", spread=2), option("c", rate=1100, spread=2)
    path = written(tmp_path, *pair, demand={"tiers": tiers})
    assert called("procure", path, "--rfp", str(tmp_path / "pack")).returncode == 0
    found = [load_workload(str(each)) for each in (tmp_path / "pack").rglob("workload-*.yaml")]
    assert {each.slo for each in found} == {"tpot:p50<50.000000s"}


def test_a_pack_does_not_overwrite(tmp_path: Path) -> None:
    """A folder that holds something is refused before anything is printed."""
    (tmp_path / "kept.txt").write_text("mine")
    path = written(tmp_path, option())
    done = called("procure", path, "--rfp", str(tmp_path))
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert not done.stdout


def test_a_pack_of_nothing_says_so(tmp_path: Path) -> None:
    """Where every order is settled no folder is made, and a file is called one."""
    path = written(tmp_path, option(), option("b", rate=500))
    pack = tmp_path / "pack"
    done = called("procure", path, "--rfp", str(pack))
    assert "nothing is open" in done.stdout
    assert not pack.exists()
    pack.write_text("mine")
    assert "is a file; name a new folder" in called("procure", path, "--rfp", str(pack)).stderr


WRONG = [
    ({"site__pue": 0.9}, "site.pue", "1 or more"),
    ({"site__pue": {"value": 1.2, "low": 1.3, "high": 1.4}}, "site.pue", "outside"),
    ({"site__utilisation_fraction": 1.5}, "site.utilisation_fraction", "at most 1"),
    ({"site__power_usd_per_kwh": "cheap"}, "site.power_usd_per_kwh", "must be a number"),
    ({"site__powr": 1}, "site.powr", "unknown key"),
    ({"finance": {}}, "finance.lifetime_years", "required; add `finance: {lifetime_years: …}`"),
    ({"model": "llama-3.1-8"}, "model", "'llama-3.1-8'; did you mean 'llama-3.1-8b'"),
    ({"options": []}, "options", "must have at least one option"),
    ({"site__delivered_at": "gird"}, "site.delivered_at", "did you mean 'grid'"),
    ({"site__pue": exact(1.2) | {"kind": "measurd"}}, "pue.kind", "did you mean 'measured'"),
    ({"demand__output_tokens_per_s": 0}, "demand.output_tokens_per_s", "above 0"),
]


@pytest.mark.parametrize(("changes", "key", "message"), WRONG)
def test_a_wrong_scenario_names_line_and_key(
    tmp_path: Path, changes: dict[str, Any], key: str, message: str
) -> None:
    """File, line, key, and what would be right."""
    done = called("procure", written(tmp_path, option(), **changes))
    assert done.returncode == 2
    assert "scenario.yaml:" in done.stderr
    assert key in done.stderr
    assert message in done.stderr


WRONG_OPTIONS = [
    (option(machine=None), "options.0 ('a'): needs either machine or fleet"),
    (option(rent={"usd_per_device_hour": 1, "includes_energy": True}), "bought or rented"),
    (option(devices_per_replica=None), "devices_per_replica"),
    (option(points=[option()["points"][0] | {"boundary": "facility"}]), "PUE inside"),
    (option(machine="h20"), "options.0.machine = 'h20': unknown hardware profile"),
    ({"name": "f", "fleet": [{"option": "g", "tiers": ["only"]}]}, "names 'g', no machine"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_OPTIONS)
def test_a_wrong_option_says_what_to_change(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """What contradicts itself is refused, above all a PUE that would count twice."""
    done = called("procure", written(tmp_path, wrong))
    assert done.returncode == 2
    assert message in done.stderr


def test_a_scenario_needs_neither_name_nor_sentence(tmp_path: Path) -> None:
    """It is called as its file; of a missing section the keys that it needs are said."""
    path = Path(written(tmp_path, option()))
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("name:", "about:"))]
    bare = tmp_path / "my purchase.yaml"
    bare.write_text("\n".join(kept))
    shown = procured(str(bare))
    assert (shown["scenario"], shown["about"]) == ("my-purchase", "")
    assert called("procure", str(bare)).stdout.startswith("my-purchase\n")
    bare.write_text(
        "\n".join(line for line in kept if "lifetime" not in line and line != "finance:")
    )
    assert (
        "finance: Field required; add `finance: {lifetime_years: …}`"
        in called("procure", str(bare)).stderr
    )


def test_a_rack_too_small_is_said(tmp_path: Path) -> None:
    """A rack's limit is that of the site; the option says why it has no figures."""
    (outcome,) = procured(written(tmp_path, option(devices_per_rack=17)))["outcomes"]
    assert "a rack takes rack_kw = 40 kW" in outcome["reason"]


def test_csv_and_page_hold_every_figure(tmp_path: Path) -> None:
    """A row for each figure, with the reason where it is unknown; a page with its table."""
    path = written(tmp_path, option(), about="Less <b>than</b> half.")
    rows = list(csv.DictReader(io.StringIO(called("procure", path, "--csv").stdout)))
    by_figure = {row["figure"]: row for row in rows}
    assert float(by_figure["node_joules"]["value"]) == pytest.approx(2)
    assert "no embodied carbon" in by_figure["embodied_gco2e_per_mtoken"]["reason"]
    page = called("procure", path, "--html").stdout
    assert page.startswith("<!doctype html>")
    assert "site.power_usd_per_kwh" in page
    assert "<b>" not in page
    assert called("procure", path, "--html", "--csv").returncode == 2


def test_seeds_agree_on_values_and_repeat(tmp_path: Path) -> None:
    """A seed gives the same bands again; another one other bands about the same values."""
    path = written(tmp_path, option(spread=1.3))
    first, again, other = (procured(path, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again
    ends = [o["outcomes"][0]["figures"]["usd_per_mtoken"] for o in (first, other)]
    assert ends[0]["value"] == ends[1]["value"]
    assert ends[0]["low"] != ends[1]["low"]
    assert math.isclose(ends[0]["low"], ends[1]["low"], rel_tol=0.03)


def test_the_worked_purchase_says_what_can_be_said() -> None:
    """Every number but a default has its source; some orders are ranked, others are not."""
    scenario = load_scenario("purchase-70b-chat")
    without = [place for place, number in scenario.numbers() if number.source is None]
    assert without == ["site.oversubscription_ratio"]
    pairs = compare(evaluate(scenario, lines_of(scenario)))
    assert {pair.ranked for pair in pairs} == {True, False}
    assert all(pair.second.option == "cs3" for pair in pairs if pair.ranked)


def test_shipped_scenarios_are_listed() -> None:
    """With what they are about; an unknown name gives the nearest."""
    assert "purchase-70b-chat" in called("list", "scenarios").stdout
    assert "did you mean 'purchase-70b-chat'" in called("procure", "purchase-70b").stderr


def test_the_page_of_the_docs_is_what_the_command_prints(tmp_path: Path) -> None:
    """Each block of docs/procurement.md is in what its command prints, or in its pack."""
    page = DOC.read_text(encoding="utf-8")
    assert "wattbench procure purchase-70b-chat --rfp requests" in page
    pack = tmp_path / "requests"
    done = called("procure", "purchase-70b-chat", "--rfp", str(pack))
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    asked = "\n".join(path.read_text(encoding="utf-8") for path in pack.glob("*/README.md"))
    for kind, source, least in (("text", printed, 5), ("markdown", asked, 1)):
        blocks = page.split(f"```{kind}\n")[1:]
        assert len(blocks) >= least
        for block in blocks:
            assert block.split("```")[0].strip() in source, block
    for path in pack.glob("*/workload-*.yaml"):
        assert load_workload(str(path)).name.startswith("rfp-")
