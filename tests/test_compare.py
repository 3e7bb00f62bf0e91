"""Comparing two results: false alarms are rare, real differences are seen, gates close."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload

from wattbench.cli.main import main
from wattbench.comparison import compare, metric_names, parse_gate
from wattbench.core.errors import UsageError
from wattbench.meters.emulated import EmulatedMeterOptions
from wattbench.results import PointResult, evaluate
from wattbench.store import connect, database_url

LENGTHS = {"kind": "uniform", "low": 80, "high": 120}
WORKLOAD = varied_workload(
    session={"input_tokens": LENGTHS, "output_tokens": LENGTHS},
    idle_s=0.5,
    measure={"duration_s": 10.3},
)


def point(
    engine: sa.Engine, name: str, seeds: range, concurrency: int = 8, **sensor: float
) -> PointResult:
    """Three repeats of one operating point, under a name of their own."""
    runs = [
        emulated_run(
            engine,
            WORKLOAD,
            concurrency=concurrency,
            seed=seed,
            run_id=f"{name}-{seed}",
            sensor=EmulatedMeterOptions(**sensor),
        )[0]
        for seed in seeds
    ]
    joined = [
        dataclasses.replace(run, record=dataclasses.replace(run.record, batch_id=name))
        for run in runs
    ]
    (found,) = evaluate(joined)
    return found


SAME = 7
"""Points that differ in nothing but the seed."""


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> list[PointResult]:
    """The same point ten times over, other seeds; the last one at another load."""
    place = tmp_path_factory.mktemp("compare") / "runs.sqlite"
    engine = connect(database_url(str(place)), create=True)
    found = [point(engine, f"a{n}", range(10 * n, 10 * n + 3)) for n in range(SAME)]
    found.append(point(engine, "other", range(200, 203), concurrency=12))
    found.append(point(engine, "gain", range(300, 303), gain=1.04, gain_half_width_fraction=0.05))
    engine.dispose()
    return found


def ratio(first: PointResult, second: PointResult, metric: str) -> Any:
    return next(d for d in compare(first, second) if d.metric == metric)


def test_the_same_is_seldom_called_different(points: list[PointResult]) -> None:
    """At 95 % a metric is a false alarm in one comparison of twenty."""
    same = points[:SAME]
    metric = "energy_per_output_token_joules"
    alarms = [ratio(a, b, metric).real for n, a in enumerate(same) for b in same[n + 1 :]]
    assert np.mean(alarms) <= 0.12


def test_another_load_is_seen(points: list[PointResult]) -> None:
    found = ratio(points[0], points[SAME], "energy_per_output_token_joules")
    assert found.real
    assert found.ratio.value < 0.9
    assert found.smallest_fraction < 0.05
    assert ratio(points[0], points[SAME], "output_tokens_per_s").ratio.value > 1.3


def test_an_unknown_gain_of_one_device_does_not_blur_its_ratio(
    points: list[PointResult],
) -> None:
    """± 5 % of scale on both sides: the ratio of the same device is far better known."""
    gain = points[SAME + 1]
    found = ratio(gain, gain, "energy_per_output_token_joules")
    assert found.ratio.value == pytest.approx(1.0)
    metrics = gain.facts.metrics["energy_per_output_token_joules"]
    assert metrics.low is not None
    assert metrics.high is not None
    assert metrics.value is not None
    assert (metrics.high - metrics.low) / metrics.value > 0.08
    assert found.ratio.high - found.ratio.low < 0.08


def test_gates() -> None:
    gate = parse_gate(" energy_per_output_token_joules > +2% ")
    assert (gate.metric, gate.above) == ("energy_per_output_token_joules", True)
    assert gate.limit_fraction == pytest.approx(0.02)
    assert parse_gate("ttft_s.p95<-5.5%").limit_fraction == pytest.approx(-0.055)
    assert {parse_gate(f"{name}>1%").metric for name in metric_names()} == set(metric_names())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("energy>2%", "no metric 'energy'; did you mean"),
        ("energy_per_output_token_joules=2%", "is no gate"),
        ("energy_per_output_token_joules>2", "is no gate"),
        ("ttft_s.p95>1.2.3%", "is no number"),
    ],
)
def test_what_is_no_gate(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(text)


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 3 only where the difference is real and beyond the gate; JSON has every metric."""
    place = ("--db", str(tmp_path / "x.sqlite"))
    base = ("run", "quickstart", "--backend", "emulated", "--hardware", "h100-sxm", *place)
    for tag, users in (("a", "8"), ("b", "16")):
        assert exit_code(*base, "--concurrency", users, "--repeats", "2", "--tag", tag) == 0
    worse, better = "ttft_s.p50<-50%", "energy_per_output_token_joules<-20%"
    assert exit_code("compare", "tag=a", "tag=b", *place, "--fail-if", worse) == 0
    capsys.readouterr()
    assert exit_code("compare", "tag=a", "tag=b", *place, "--fail-if", better, "--json") == 3
    shown = json.loads(capsys.readouterr().out)
    assert shown["crossed"] == [{"operating_point": {"concurrency": 16}, "gate": better}]
    (pair,) = shown["points"]
    assert [d["metric"] for d in pair["differences"]] == metric_names()
    tokens = pair["differences"][0]
    assert tokens["real"] is True
    assert tokens["ratio"]["low"] <= tokens["ratio"]["value"] <= tokens["ratio"]["high"]
    assert exit_code("compare", "tag=a", "tag=nothing", *place) == 2
