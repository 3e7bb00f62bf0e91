"""``wattbench simulate``: what it prints, keeps and refuses."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import called
from simulations import SMALL, scenario

pytestmark = pytest.mark.kernels

ROOT = Path(__file__).parents[1]
DOC, README = ROOT / "docs" / "simulation.md", ROOT / "README.md"
SHIPPED = ("eight-h100", "unlike-machines")
TRACE = "poisson,rate=20,count=200,input=40,output=12,sigma=0.5"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "kept.sqlite")


def simulated(path: str, database: str, *arguments: str) -> dict[str, Any]:
    done = called("simulate", path, "--db", database, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def refused(path: str, database: str, *arguments: str) -> str:
    done = called("simulate", path, "--db", database, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert not Path(database).exists(), "nothing is kept of what was refused"
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_the_table_has_joules_beside_latency_and_service(tmp_path: Path, database: str) -> None:
    """And what they rest on: curves, trace, how old the signals are."""
    done = called("simulate", scenario(tmp_path), "--db", database)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (header,) = [line for line in lines if "J/output token" in line]
    assert re.search(r"J/output token +TTFT p99 ms +SLO met +TPOT p99 ms +not served", header)
    (row,) = [each for each in lines if each.startswith("round_robin") and "none" in each]
    assert row.count("±") == 4
    for said in (
        "pool small: 2 at south, assumed (the scenario)",
        "pool large: 1 at north, measured (the scenario)",
        "the router sees every machine as it was up to 0.1 s ago, its own sends since then counted",
        "the router knows the length of every answer beforehand",
        f"trace {TRACE}",
    ):
        assert said.split(",seed")[0].replace("count=200,", "") in done.stdout.replace(
            "count=200,", ""
        )
    alone = called("simulate", scenario(tmp_path, (", signals_every_s: 0.1", "")), "--db", database)
    assert "an oracle of the moment" in alone.stdout


def test_a_result_is_kept_listed_and_shown_again(tmp_path: Path, database: str) -> None:
    """With the text of its scenario; by its id, or the latest."""
    path = scenario(tmp_path)
    printed = called("simulate", path, "--db", database).stdout
    shown = simulated(path, database, "--seeds", "1")
    listed = json.loads(called("list", "simulations", "--db", database, "--json").stdout)
    first, second = listed["simulations"]
    assert second["simulation_id"] == shown["simulation_id"]
    assert (first["scenario"], first["seeds"], second["seeds"]) == ("small", 2, 1)
    again = called("show", "simulation", first["simulation_id"], "--db", database)
    assert again.stdout == printed
    assert json.loads(called("show", "simulation", "--db", database, "--json").stdout) == shown
    unknown = called("show", "simulation", "x", "--db", database)
    assert unknown.returncode == 2
    assert "there is no simulation 'x'" in unknown.stderr
    assert "policy" in called("list", "simulations", "--db", database).stdout or first


def test_values_are_set_and_swept(tmp_path: Path, database: str) -> None:
    """By dotted keys, list entries by name; each case is the scenario with that value."""
    path = scenario(tmp_path)
    swept = simulated(path, database, "--sweep", "pools.small.count=1,3", "--seeds", "1")
    counts = [case["pools"][0]["count"] for case in swept["cases"]]
    assert counts == [1, 3]
    assert [case["sweep"] for case in swept["cases"]] == [
        {"pools.small.count": 1},
        {"pools.small.count": 3},
    ]
    alone = simulated(path, database, "--set", "pools.small.count=3", "--seeds", "1")
    assert alone["set"] == {"pools.small.count": 3, "seeds": 1}
    for policy in (*alone["cases"][0]["policies"], *swept["cases"][1]["policies"]):
        del policy["simulated_requests_per_s"]
    assert alone["cases"][0]["policies"] == swept["cases"][1]["policies"]
    faster = simulated(path, database, "--set", "trace.rate=2", "--policy", "random")
    rates = [case["cases"][0]["traces"][0]["mean_rate_per_s"] for case in (faster, alone)]
    assert rates[0] == pytest.approx(2 * rates[1])


def test_trace_and_policies_of_the_command_line(tmp_path: Path, database: str) -> None:
    """Options follow a policy's name; a file is one of this folder, not of the scenario's."""
    (tmp_path / "rows.csv").write_text("time_s,input_tokens,output_tokens\n0,9,3\n0.7,20,4\n")
    arguments = ("--trace", str(tmp_path / "rows.csv"), "--trace-format", "csv")
    policies = ("--policy", "threshold,input=10,short=1,long=0,random", "--policy", "carbon")
    (tmp_path / "elsewhere").mkdir()
    path = scenario(tmp_path / "elsewhere")
    (case,) = simulated(path, database, *arguments, *policies)["cases"]
    names = [each["policy"] for each in case["policies"]]
    assert names == ["threshold,input=10,short=1,long=0", "random", "carbon"]
    assert case["traces"][0]["requests"] == 2
    by_pool = {name: pool["served"]["value"] for name, pool in case["policies"][0]["pools"].items()}
    assert by_pool == {"small": 1, "large": 1}


def test_requests_never_replace_what_no_simulation_wrote(tmp_path: Path, database: str) -> None:
    """Not a database, a trace or a scenario; nor a table of requests before the run is done."""
    path, trace = scenario(tmp_path), tmp_path / "trace.csv"
    trace.write_text("time_s,input_tokens,output_tokens\n0,4,4\n1,4,4\n", encoding="utf-8")
    before = trace.read_bytes()
    simulated(path, database, "--seeds", "1")
    kept = Path(database).read_bytes()
    for out in (str(trace), database, path):
        done = called("simulate", path, "--db", database, "--seeds", "1", "--requests", out)
        assert done.returncode == 2
        assert "--requests" in done.stderr
    assert trace.read_bytes() == before
    assert Path(database).read_bytes() == kept
    table = tmp_path / "table.csv"
    simulated(path, database, "--seeds", "1", "--requests", str(table))
    written = table.read_bytes()
    done = called("simulate", path, "--db", database, "--trace", path, "--requests", str(table))
    assert done.returncode == 2
    assert table.read_bytes() == written


def test_requests_are_written(tmp_path: Path, database: str) -> None:
    """One row per request, policy and seed, under one header, with the swept keys before."""
    path, out = scenario(tmp_path), tmp_path / "requests.csv"
    sweep = ("--sweep", "router.decision_s=0,0.5", "--seeds", "1", "--requests", str(out))
    shown = simulated(path, database, *sweep)
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 200
    slow = [row for row in rows if row["router.decision_s"] == "0.5"]
    ttft_s = sorted(float(row["ttft_s"]) for row in slow if row["policy"] == "round_robin")
    assert ttft_s[0] > 0.5
    median_s = shown["cases"][1]["policies"][0]["ttft_s"]["p50"]["value"]
    assert (ttft_s[99] + ttft_s[100]) / 2 == pytest.approx(median_s)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios_run(name: str, database: str) -> None:
    """In seconds, every request served, and the simple policies told apart."""
    (case,) = simulated(name, database)["cases"]
    assert all(each["requests"]["served"]["value"] > 0 for each in case["policies"])
    assert all(each["cost_usd"]["value"] > 0 for each in case["policies"])
    assert all(each["simulated_requests_per_s"] > 10_000 for each in case["policies"])


def test_scenarios_are_listed_with_their_command() -> None:
    """Those to buy and those to simulate; an unknown name gives the nearest."""
    rows = json.loads(called("list", "scenarios", "--json").stdout)["scenarios"]
    commands = {row["name"]: row["command"] for row in rows}
    assert commands["purchase-70b-chat"] == "procure"
    assert all(commands[name] == "simulate" for name in SHIPPED)
    assert "did you mean 'eight-h100'" in called("simulate", "eight-h10").stderr
    assert "cost" in called("list", "policies").stdout


PRICED = "    price_usd_per_kwh: {at_s: [0, 5], values: [0.3, 0.05]}\n"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("count: 2", "count: 0", r"small.yaml:10: pools.0.count = 0: .*greater than or equal to 1"),
        (
            "count: 2",
            "cuont: 2",
            r"small.yaml:10: unknown key 'pools.0.cuont'; did you",
        ),
        (
            "idle_watts: 80",
            "idle_watts: 80\n    cap_watts: 70",
            r"yaml:\d+: pools.1.*70 W is",
        ),
        (PRICED, f"{PRICED}    cap_watts: 25\n", r"small.yaml:8: pools: .*25 W cap of site"),
        (PRICED, f"{PRICED}    cap_watts: 0\n", r"small.yaml:6: sites.1.cap_watts.*is no cap"),
        (PRICED, PRICED.replace("[0, 5]", "[5, 0]"), r"small.yaml:5: sites.1.price.*must be 0"),
        (PRICED, PRICED.replace("[0, 5]", "[0]"), r"small.yaml:5: .*1 instants and 2 values"),
        (PRICED, "", r"small.yaml:34: policies.2 = .*policy cost needs price.*site south has none"),
        ("network_s: 0.01", "network_s: -1", r"small.yaml:3: sites.0.network_s = -1: "),
        ("pue: 1.5", "pue: 0.9", r"small.yaml:3: sites.0.pue = 0.9: "),
        (
            "site: south\n    count",
            "site: east\n    count",
            r"yaml:8: pools.0 .*'east' is none of",
        ),
        ("    site: south\n    count", "    count", r"pool small stands nowhere; add site: one of"),
        ("name: large", "name: small", r"small.yaml:7: pools: 'small' stands there twice"),
        (
            "round_robin,",
            "rund_robin,",
            r"yaml:35: policies.0 = .*did you mean 'round_",
        ),
        (
            "ttft_s=1",
            "tfft_s=1",
            r"yaml:35: policies.2 = .*unknown option 'tfft_s'; did",
        ),
        ("ttft:p95<500ms", "tftt:p95<500ms", r"small.yaml:\d+: slo = .*no latency 'tftt'"),
        ("ttft:p95<500ms", "itl:p95<500ms", r"small.yaml:\d+: slo = .*itl is not simulated"),
        (
            ", signals_every_s: 0.1",
            ", own_sends: false",
            r"own_sends means nothing without",
        ),
        ("site: south, sig", "site: east, sig", r"router.*site 'east' is none of north, south"),
        ("0.1}", "0.1, lengths_known: guess}", r"router.lengths_known.*none of exact, mean and"),
        ("seeds: 2", "seeds: 0", r"small.yaml:\d+: seeds = 0"),
        (
            "seeds: 2",
            "seeds: 2\nclasses: {vip: {priority: 3}}",
            r"classes.vip.priority = 3: ",
        ),
        ("seeds: 2", "seeds: 2\nclasses: {vip: {}}", r"classes: trace .* has no class 'vip'"),
        ("rate=20", "rate=-20", r"poisson: .*-20"),
        ("input=40", "input=-40", r"poisson: .*-40"),
        ("input=40,output=12,sigma=0.5", "input=1000000000,output=9", r"1000000000.*10000000"),
        ("input=40", "input=4000", r"request \d+ needs \d+ tokens.*no machine of the fleet holds"),
        (
            f"trace: {TRACE}",
            "trace: poison,rate=1",
            r"'poison' is no trace.*did you mean 'poi",
        ),
    ],
)
def test_a_bad_scenario_is_refused(
    tmp_path: Path, database: str, before: str, after: str, message: str
) -> None:
    """In one line: the file, the line, the key, and what to do; nothing is kept."""
    said = refused(scenario(tmp_path, (before, after)), database)
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,9,3\n0.5,9,3\n", r"rows.csv line 3: .*0.5"),
        ("0,-9,3\n", r"rows.csv line 2: .*-9"),
        ("0,1000000000,3\n", r"rows.csv line 2: .*1000000000"),
        ("0,9,0\n", r"rows.csv line 2: .*0"),
        ("", r"rows.csv"),
    ],
)
def test_a_bad_trace_is_refused(tmp_path: Path, database: str, rows: str, message: str) -> None:
    """With its own file and line, also where the scenario names it."""
    (tmp_path / "rows.csv").write_text(f"time_s,input_tokens,output_tokens\n{rows}")
    said = refused(scenario(tmp_path, (TRACE, "rows.csv")), database)
    assert re.search(message, said), said


def test_a_series_may_lie_in_a_file(tmp_path: Path, database: str) -> None:
    """Beside the scenario; a line that is no number is named."""
    path = scenario(tmp_path, (PRICED, "    price_usd_per_kwh: {file: price.csv}\n"))
    (tmp_path / "price.csv").write_text("at_s,value\n0,0.3\n5,0.05\n")
    in_file = simulated(path, database)["cases"][0]["policies"]
    written = simulated(scenario(tmp_path), database)["cases"][0]["policies"]
    assert [p["cost_usd"] for p in in_file] == [p["cost_usd"] for p in written]
    (tmp_path / "price.csv").write_text("at_s,value\n0,0.3\n5,x\n")
    path = scenario(tmp_path, (PRICED, "    price_usd_per_kwh: {file: price.csv}\n"))
    said = called("simulate", path).stderr
    assert re.search(r"small.yaml:5: sites.1.price_usd_per_kwh.*price.csv:3: value = 'x'", said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "seeds"), "--set seeds: write KEY=VALUE"),
        (("--set", "pools.tiny.count=3"), "there is no 'tiny' (there are small, large)"),
        (("--set", "pools.small.cuont=3"), "unknown key 'pools.0.cuont'; did you mean 'count'?"),
        (("--set", "about.x=3"), "about.x: about is a plain value"),
        (("--sweep", "seeds="), "--sweep seeds=: write KEY=V1,V2"),
        (("--sweep", "seeds=1,2", "--seeds", "3"), "and seeds set as well"),
        (("--trace-format", "azure"), "--trace-format says what the file of --trace is"),
        (("--trace", "absent.csv"), "'absent.csv' is no trace file"),
        (("--policy", "random,random"), "'random' stands there twice"),
        (("--requests", "/absent/requests.csv"), "--requests /absent/requests.csv: cannot be"),
    ],
)
def test_bad_options_are_refused(
    tmp_path: Path, database: str, arguments: tuple[str, ...], message: str
) -> None:
    """Each in one line that says what to write."""
    assert message in refused(scenario(tmp_path), database, *arguments)


def test_there_must_be_machines(tmp_path: Path, database: str) -> None:
    """A scenario without any is refused before anything runs."""
    pools = SMALL[SMALL.index("pools:") : SMALL.index("router:")]
    said = refused(scenario(tmp_path, (pools, "pools: []\n")), database)
    assert "pools = []: must have at least one pool" in said
    said = refused(scenario(tmp_path, (pools, "")), database)
    assert "pools: Field required; add `pools: " in said


def test_a_kept_simulation_is_read(tmp_path: Path) -> None:
    """One that an earlier version stored is listed and shown."""
    kept = str(shutil.copy(Path(__file__).parent / "data" / "store_0006.sqlite", tmp_path))
    shown = called("show", "simulation", "--db", kept)
    assert shown.returncode == 0, shown.stderr
    assert "least_outstanding" in shown.stdout
    assert "small" in called("list", "simulations", "--db", kept).stdout


@pytest.mark.parametrize(("page", "name"), [(DOC, SHIPPED[1]), (README, SHIPPED[0])])
def test_the_tables_of_the_docs_are_what_the_command_prints(
    page: Path, name: str, database: str
) -> None:
    """Every line of the block below the command."""
    (block,) = re.findall(
        rf"wattbench simulate {name}\n```\n\n```text\n(.*?)\n```", page.read_text(), re.DOTALL
    )
    printed = called("simulate", name, "--db", database).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    assert [line for line in block.splitlines() if line not in lines] == []


def test_the_scenario_of_the_docs_is_one(tmp_path: Path, database: str) -> None:
    """The file that docs/simulation.md shows runs as it stands."""
    (block,) = re.findall(r"```yaml\n(.*?)```", DOC.read_text(), re.DOTALL)
    path = scenario(tmp_path, text=block)
    assert called("simulate", path, "--db", database, "--seeds", "1").returncode == 0


PLUGIN = """
from dataclasses import dataclass
from wattbench.plugins import option

@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    place: int = option(0, "the machine")

class Always:
    "Always the same machine."
    Options = Options

    def __init__(self, options, fleet, seed):
        self.place = options.place

    @staticmethod
    def availability():
        return None

    def choose(self, view, arrival):
        return self.place
"""


def test_a_policy_of_ones_own(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package offers it by an entry point; what it chooses wrongly is refused."""
    (tmp_path / "own_policy.py").write_text(PLUGIN)
    package = tmp_path / "own_policy-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own-policy\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[wattbench.policies]\nalways = own_policy:Always\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "Always the same machine." in called("list", "policies").stdout
    path = scenario(tmp_path, (TRACE, "poisson,rate=5,count=20,input=40,output=12"))
    (case,) = simulated(path, database, "--policy", "always,place=2")["cases"]
    (policy,) = case["policies"]
    assert policy["pools"]["large"]["served"]["value"] == 20
    done = called("simulate", path, "--db", database, "--policy", "always,place=3")
    assert done.returncode == 2
    assert "chose machine 3 for request 1; there are 3, numbered from 0" in done.stderr
