"""``wattbench audit``: each defect of published records on a constructed one, and clean ones pass.

The records are of the store, built from figures as readers of files give them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from command import called
from result_files import vllm_result, write_json

from wattbench.audit import audit
from wattbench.cli.main import cli
from wattbench.core.energy import EnergyDomain, PowerTrace
from wattbench.core.errors import UsageError
from wattbench.core.run import EngineInfo, Event, Mode, RawRun, ReportedFigure, RunRecord

CLEAN: Mapping[str, float] = {
    "duration_s": 100.0,
    "completed_count": 50.0,
    "output_tokens_count": 10_000.0,
    "input_tokens_count": 20_000.0,
    "output_tokens_per_s": 100.0,
    "requests_per_s": 0.5,
    "energy_joules": 30_000.0,
    "mean_power_watts": 300.0,
    "energy_per_output_token_joules": 3.0,
    "energy_per_input_token_joules": 1.5,
    "energy_per_request_joules": 600.0,
}


def load(
    changes: Mapping[str, float] | None = None,
    *,
    by_device: Mapping[str, float] | None = None,
    model: str = "some/model",
    boundary: str = "board",
    name: str = "a",
    samples_watts: list[float] | None = None,
) -> RawRun:
    """A load of another tool with the clean figures, some of them changed."""
    figures = dict(CLEAN) | dict(changes or {})
    reported = [
        ReportedFigure(metric=metric, statistic="total", value=value, field=metric)
        for metric, value in figures.items()
    ]
    reported += [
        ReportedFigure(
            metric="energy_joules", statistic=f"device:{device}", value=value, field=device
        )
        for device, value in (by_device or {}).items()
    ]
    record = RunRecord(
        run_id=f"import-{name}",
        batch_id=f"import-{name}",
        point_index=0,
        repeat_index=0,
        started_unix_s=0.0,
        virtual_time=False,
        workload={"name": "made"},
        backend={"name": "import", "tool": "made", "boundary": boundary},
        engine=EngineInfo(model=model, engine="made", tokens_source="usage", mode=Mode()),
        hardware={},
        meters=(),
        operating_point={},
        seed=0,
        environment={},
    )
    return RawRun(
        record=record,
        status="completed",
        error_text=None,
        requests=(),
        traces=tuple(_trace(samples_watts) for _ in range(samples_watts is not None)),
        events=(Event(kind="measure_start", time_s=0.0), Event(kind="measure_end", time_s=100.0)),
        reported=tuple(reported),
    )


def _trace(samples_watts: list[float] | None) -> PowerTrace:
    watts = np.array(samples_watts or [])
    domain = EnergyDomain(
        name="gpu:0",
        meter="made",
        quantity="power",
        kind="integrated",
        boundary="board",
        devices=("gpu:0",),
        method="made",
        update_period_s=0.01,
    )
    return PowerTrace(domain=domain, time_s=np.linspace(0, 100, len(watts)), power_watts=watts)


WORKLOAD = """
name: short
about: A few short answers.
session: {input_tokens: 20, output_tokens: 40}
arrivals: {kind: closed, concurrency: [2]}
measure: {duration_s: 12}
"""


def codes(raw: RawRun) -> set[str]:
    """Codes of what the audit finds in one load."""
    return {finding.code for one in audit([raw]).loads for finding in one.findings}


def test_clean_figures_pass() -> None:
    """Figures that agree, rounded as a file rounds them."""
    found = audit([load(), load({"energy_per_output_token_joules": 3.004}, name="b")])
    assert found.clean
    assert [one.findings for one in found.loads] == [(), ()]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"energy_joules": 0.0}, "read_stored_as_zero"),
        ({"mean_power_watts": 0.0}, "read_stored_as_zero"),
        ({"energy_per_request_joules": 691.0 * 3}, "energy_request_mismatch"),
        ({"energy_per_output_token_joules": 1.0}, "energy_token_mismatch"),
        ({"energy_per_input_token_joules": 3.0}, "energy_token_mismatch"),
        ({"mean_power_watts": 275.0}, "energy_power_mismatch"),
        ({"output_tokens_per_s": 12.5}, "rate_mismatch"),
        ({"requests_per_s": 0.6}, "rate_mismatch"),
        ({"energy_duration_s": 80.0, "mean_power_watts": 375.0}, "window_mismatch"),
        ({"mean_power_per_device_watts": 75.0, "device_count": 8.0}, "device_power_mismatch"),
    ],
)
def test_each_contradiction_is_named(changes: dict[str, float], code: str) -> None:
    """A divisor, a window or a failed read that does not fit the rest."""
    assert code in codes(load(changes))
    assert not audit([load(changes)]).clean


def test_idle_devices_in_the_sum_are_named() -> None:
    """Three devices at 61 W beside one that works: the load is charged 62 % too much."""
    devices = {"0": 29_900.0, "1": 6_100.0, "2": 6_100.0, "3": 6_300.0}
    figures = {"energy_joules": 48_400.0, "mean_power_watts": 484.0}
    assert "idle_devices_summed" in codes(load(figures, by_device=devices))
    even = {"0": 15_000.0, "1": 15_000.0}
    assert codes(load(by_device=even)) == set()
    assert "device_sum_mismatch" in codes(load(by_device={"0": 15_000.0, "1": 5_500.0}))


def test_mean_times_duration_of_cut_samples_is_named() -> None:
    """The edges and the peaks were cut off before the mean was taken: E is not P × t any more."""
    assert "energy_power_mismatch" in codes(load({"mean_power_watts": 270.0}))


def test_samples_of_zero_and_a_false_period_are_named() -> None:
    """A read that failed is no 0 W; a sensor said to tick every 10 ms was read every second."""
    watts = [300.0] * 101
    assert "period_mismatch" in codes(load(samples_watts=watts))
    watts[50] = 0.0
    assert "read_stored_as_zero" in codes(load(samples_watts=watts))


def test_a_stated_joule_beside_other_samples_is_named() -> None:
    """Our own samples say 300 W over the tool's 100 s: what it states must be their 30 kJ."""
    watts = [300.0] * 10_001
    assert codes(load(samples_watts=watts)) == set()
    high = {key: CLEAN[key] * 1.2 for key in CLEAN if "energy" in key or "power" in key}
    (one,) = audit([load(high, samples_watts=watts)]).loads
    (found,) = [f.message for f in one.findings if f.code == "reported_off_samples"]
    assert "energy_joules is stated as 36000 (energy_joules), 1.2 times the 30000" in found
    assert "mean_power_watts is stated as 360 (mean_power_watts), 1.2 times the 300" in found
    assert "the samples of gpu:0 (board)" in found


def test_samples_of_another_window_or_boundary_refute_nothing() -> None:
    """Joules of the node are no less than those of its boards; 80 s are not 100 s."""
    watts = [150.0] * 10_001
    code = "reported_off_samples"
    assert code in codes(load(samples_watts=watts))
    assert code not in codes(load(samples_watts=watts, boundary="node"))
    assert code in codes(load(samples_watts=watts, boundary="chip"))
    assert code in codes(load(samples_watts=[450.0] * 10_001, boundary="node"))
    assert code not in codes(load(samples_watts=[450.0] * 10_001, boundary="chip"))
    assert code not in codes(load({"energy_duration_s": 80.0}, samples_watts=watts))
    raw = load(samples_watts=watts)
    backend = dict(raw.record.backend) | {"alignment": "enveloped"}
    record = dataclasses.replace(raw.record, backend=backend)
    assert code not in codes(dataclasses.replace(raw, record=record))


@pytest.mark.parametrize(
    "statistics",
    [
        {"p99": 0.2, "p90": 0.3},
        {"p50": 0.2, "p99": 0.1},
        {"min": 0.2, "mean": 0.1},
        {"p99": 0.3, "max": 0.2},
        {"mean": 0.3, "max": 0.2},
    ],
)
def test_statistics_out_of_order_are_named(statistics: dict[str, float]) -> None:
    """Whatever the sample, its p99 is not below its p90, nor its mean outside its range."""

    def stating(statistics: Mapping[str, float]) -> RawRun:
        raw = load()
        figures = [
            ReportedFigure(metric="ttft_s", statistic=name, value=value, field=name)
            for name, value in statistics.items()
        ]
        return dataclasses.replace(raw, reported=(*raw.reported, *figures))

    assert codes(stating(statistics)) == {"statistics_disordered"}
    names, values = list(statistics), list(statistics.values())
    assert codes(stating(dict(zip(names, reversed(values), strict=True)))) == set()


def test_rankings_survive_their_uncertainty_or_not() -> None:
    """20 % apart survives ± 5 % each, 3 % does not."""

    def at(joules: float, name: str, **more: Any) -> RawRun:
        scale = joules / 3.0
        energy = {
            key: value * scale
            for key, value in CLEAN.items()
            if key.startswith(("energy", "mean_power"))
        }
        return load(energy, name=name, **more)

    found = audit([at(3.0, "a"), at(3.6, "b"), at(3.09, "c")])
    fates = {(r.first[-1], r.second[-1]): r.fate for r in found.rankings}
    assert fates == {
        ("a", "b"): "survives",
        ("a", "c"): "does not survive",
        ("b", "c"): "survives",
    }
    assert found.rankings[0].ratio.value == pytest.approx(1.2)
    wide = audit([at(3.0, "a"), at(3.6, "b")], 0.2)
    assert wide.rankings[0].fate == "does not survive"


@pytest.mark.parametrize("change", [{"model": "other"}, {"boundary": "node"}])
def test_unlike_things_are_not_ranked(change: dict[str, str]) -> None:
    """Another tokenizer, another boundary: no order is claimed, and the reason is."""
    found = audit([load(), load(name="b", **change)])  # type: ignore[arg-type]
    assert found.rankings[0].fate == "not comparable"
    assert "unlike" in found.rankings[0].why


def test_the_command_reads_files_and_writes_a_page(tmp_path: Path) -> None:
    """Text, JSON and a page; what a file states wrongly makes --require-clean fail."""
    good = write_json(tmp_path / "good" / "v.json", vllm_result())
    bad = write_json(tmp_path / "bad" / "v.json", vllm_result(output_throughput=13.0))
    page = tmp_path / "page.html"
    run = CliRunner().invoke
    result = run(cli, ["audit", str(good), "--json", "--require-clean"])
    assert (result.exit_code, json.loads(result.stdout)["clean"]) == (0, True)
    result = run(cli, ["audit", str(good), str(bad), "--page", str(page)])
    assert result.exit_code == 0, result.output
    assert "rate_mismatch" in result.stdout
    assert "rate_mismatch" in page.read_text()
    assert "<script" not in page.read_text()
    assert run(cli, ["audit", str(bad), "--require-clean"]).exit_code == 1
    assert isinstance(run(cli, ["audit"]).exception, UsageError)


def test_the_page_names_the_file_of_each_load(tmp_path: Path) -> None:
    """Two files of one tool in one folder: each load is of its own."""
    for name, rate in (("one", 3.0), ("two", 13.0)):
        write_json(tmp_path / "in" / f"{name}.json", vllm_result(output_throughput=rate))
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["audit", str(tmp_path / "in"), "--page", str(page), "--json"])
    assert [load["files"] for load in json.loads(result.stdout)["loads"]] == [
        [str(tmp_path / "in" / "one.json")],
        [str(tmp_path / "in" / "two.json")],
    ]
    assert "one.json, " not in page.read_text()
    assert str(tmp_path / "in" / "one.json") in page.read_text()
    told = called("audit", str(tmp_path / "in")).stdout
    assert f"({tmp_path / 'in' / 'one.json'}): unknown per output token" in told


def test_energy_that_a_reader_refused_is_named() -> None:
    """What a file says of its own energy and does not hold is a defect of the file."""
    raw = load()
    event = Event(kind="refused", time_s=0.0, detail={"field": "total_gpu_energy_j", "why": "no"})
    assert "energy_refused" in codes(dataclasses.replace(raw, events=(*raw.events, event)))
    event = Event(kind="refused", time_s=0.0, detail={"field": "generated_texts", "why": "no"})
    assert codes(dataclasses.replace(raw, events=(*raw.events, event))) == set()


def test_what_could_not_be_read_is_not_clean(tmp_path: Path) -> None:
    """Neither in JSON nor on the page; a page that cannot be written costs no result."""
    bad = write_json(tmp_path / "bad.json", {"hello": "world"})
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["audit", str(bad), "--page", str(page), "--json"])
    assert json.loads(result.stdout)["clean"] is False
    assert "bad.json" in page.read_text()
    good = write_json(tmp_path / "v.json", vllm_result())
    result = CliRunner().invoke(cli, ["audit", str(good), "--page", str(tmp_path / "no" / "p")])
    assert "no contradiction" in result.stdout
    assert "cannot be written" in str(result.exception)
    assert CliRunner().invoke(cli, ["audit", str(good), "--uncertainty", "nan"]).exit_code == 2


def test_what_a_file_does_not_claim_is_no_contradiction() -> None:
    """Power that its file holds invalid itself is said, and the audit stays clean."""
    raw = load()
    detail: dict[str, Any] = {"field": "power_valid", "why": "modelled", "claimed": False}
    event = Event(kind="refused", time_s=0.0, detail=detail)
    found = audit([dataclasses.replace(raw, events=(*raw.events, event))])
    assert [f.severity for f in found.loads[0].findings] == ["info"]
    assert found.clean


@pytest.mark.parametrize("form", ["inferencex", "llm-d", "wattbench", "csv", "json"])
def test_exports_of_our_own(tmp_path: Path, form: str) -> None:
    """Modelled joules are told as such and contradict nothing; tables are no records."""
    database, out = str(tmp_path / "db"), tmp_path / "out"
    workload = tmp_path / "w.yaml"
    workload.write_text(WORKLOAD, encoding="utf-8")
    words = ("--backend", "emulated", "--hardware", "h100-sxm", "--meter", "nameplate")
    done = called("run", str(workload), *words, "--db", database, "--quiet")
    assert done.returncode == 0, done.stderr
    where = ("--format", form, "--runs", "latest", "--db", database, "--out", str(out))
    assert called("export", *where).returncode == 0
    done = called("audit", str(out), "--require-clean")
    if form in ("csv", "json"):
        assert "wattbench export --format wattbench" in done.stderr
        done = called("import", str(out), "--db", str(tmp_path / "other"))
        assert done.returncode == 1
        assert "wattbench export --format wattbench" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(out) in done.stdout
    assert ("energy_refused" in done.stdout) == (form != "wattbench")
