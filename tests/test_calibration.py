"""A wall meter fitted to the devices' meters: known lines found again, and their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload

from wattbench.cli.main import main
from wattbench.core.energy import EnergyDomain, EnergyMeasurement, PowerTrace, Unmeasured
from wattbench.core.errors import WattbenchError
from wattbench.core.run import Event, RawRun
from wattbench.energy import add, measure, pool
from wattbench.energy.calibration import (
    Level,
    WallFit,
    derived_cumulative,
    derived_domain,
    derived_energy,
    fit_from_json,
    fit_wall,
)
from wattbench.energy.integrate import cumulative
from wattbench.meters.emulated import EmulatedMeterOptions
from wattbench.metrics.domains import energy_estimate
from wattbench.results import document, evaluate
from wattbench.store import add_traces

GAIN, OFFSET_WATTS = 1.1, 80.0
BOARD = EnergyDomain(
    name="gpu:0",
    meter="x",
    quantity="energy_counter",
    kind="counter",
    boundary="board",
    devices=("GPU-aa",),
    method="x",
    gain_half_width_fraction=0.05,
    offset_half_width_watts=5.0,
)
WALL = replace(
    BOARD,
    name="plug",
    quantity="power",
    kind="integrated",
    boundary="node",
    current="ac",
    devices=("plug",),
    gain_half_width_fraction=0.0,
    offset_half_width_watts=0.0,
)


def levels(
    rng: np.random.Generator, count: int = 6, scatter_watts: float = 4.0, low: float = 100.0
) -> list[Level]:
    found = []
    for index, watts in enumerate(np.linspace(low, 600.0, count)):
        wall = GAIN * watts + OFFSET_WATTS + scatter_watts * float(rng.normal())
        found.append(
            Level(label=str(index), meters_watts=float(watts), wall_watts=wall, sd_watts=0.5)
        )
    return found


def window(watts: float, length_s: float = 60.0) -> EnergyMeasurement:
    return EnergyMeasurement(
        energy_joules=watts * length_s,
        duration_s=length_s,
        kind="counter",
        boundary="board",
        devices=("GPU-aa",),
        domains=("gpu:0",),
        method="x",
        gain_half_widths_joules=(0.05 * watts * length_s,),
        offset_half_widths_joules=(5.0 * length_s,),
        edge_joules=0.0,
    )


def derived(fit: WallFit, *parts: EnergyMeasurement) -> EnergyMeasurement:
    found = derived_energy(fit, derived_domain(fit, "cal"), parts)
    assert isinstance(found, EnergyMeasurement)
    return found


def test_a_line_without_scatter_is_found() -> None:
    """Gain and offset, whatever the weights, and nothing of the board's own priors."""
    plain = levels(np.random.default_rng(1), scatter_watts=0.0)
    fit = fit_wall([replace(one, sd_watts=0.1 + k) for k, one in enumerate(plain)], [BOARD], WALL)
    assert (fit.gain_ratio, fit.offset_watts) == pytest.approx((GAIN, OFFSET_WATTS))
    assert fit.r2_fraction == pytest.approx(1.0)
    assert (fit.boundary, fit.current, fit.levels_count) == ("node", "ac", 6)
    energy = derived(fit, window(300.0))
    assert energy.energy_joules == pytest.approx((GAIN * 300 + OFFSET_WATTS) * 60)
    assert energy_estimate(energy).high == pytest.approx(energy.energy_joules, rel=1e-6)
    assert fit_from_json(json.loads(json.dumps(fit.as_json()))) == fit


@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("count", [5, 9])
def test_intervals_hold_95_percent(count: int, repeats: int) -> None:
    """Over 300 lines and windows of their own: nineteen of twenty, and not all of them."""
    rng, hits, draws = np.random.default_rng(7), 0, 300
    for _ in range(draws):
        fit = fit_wall(levels(rng, count), [BOARD], WALL)
        watts = rng.uniform(100.0, 600.0, repeats)
        truth = GAIN * watts + OFFSET_WATTS + 4.0 * rng.normal(size=repeats)
        energy = pool([derived(fit, window(float(one))) for one in watts])
        estimate = energy_estimate(energy)
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 60.0 * truth.sum() <= estimate.high
    assert 0.93 <= hits / draws <= 0.985


def test_what_two_windows_share_cancels() -> None:
    """Net of an idle stretch, the height drops out and the slope counts the difference only."""
    fit = fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL)
    load, idle = derived(fit, window(500.0)), derived(fit, window(120.0, 6.0))
    slope = load.gain_half_widths_joules[0] - 10 * idle.gain_half_widths_joules[0]
    assert load.offset_half_widths_joules[0] == pytest.approx(
        10 * idle.offset_half_widths_joules[0]
    )
    again = derived(fit, window(500.0 - 120.0 + fit.mean_watts))
    assert slope == pytest.approx(again.gain_half_widths_joules[0])


def test_beyond_its_powers_the_line_is_doubted() -> None:
    """Half of the way that it goes there; within them nothing is added."""
    fit = fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL)
    assert derived(fit, window(400.0)).coverage_half_width_joules == 0.0
    beyond = derived(fit, window(700.0)).coverage_half_width_joules
    assert beyond == pytest.approx(0.5 * fit.gain_ratio * 100.0 * 60.0)


def test_the_walls_own_prior_stays() -> None:
    """What the wall meter leaves open is not calibrated by it."""
    wall = replace(WALL, gain_half_width_fraction=0.01, offset_half_width_watts=2.0)
    fit = fit_wall(levels(np.random.default_rng(3)), [BOARD], wall)
    energy = derived(fit, window(400.0))
    assert energy.gain_half_widths_joules[1] == pytest.approx(0.01 * energy.energy_joules)
    assert energy.offset_half_widths_joules[1] == pytest.approx(120.0)


def test_a_missing_part_has_no_sum() -> None:
    fit = fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL)
    lost = Unmeasured(reason="gap", message="no sample")
    assert derived_energy(fit, derived_domain(fit, "cal"), [lost]) is lost


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (levels(np.random.default_rng(1), 4), "have 4"),
        (levels(np.random.default_rng(1), low=550.0), "9% of their mean"),
        (levels(np.random.default_rng(1), scatter_watts=200.0), "R² is"),
        (
            [
                Level(label="a", meters_watts=x, wall_watts=900.0 - x)
                for x in np.linspace(100, 600, 6)
            ],
            "collinear",
        ),
    ],
)
def test_what_is_no_line_is_refused(found: list[Level], reason: str) -> None:
    """With the numbers."""
    with pytest.raises(WattbenchError, match=reason):
        fit_wall(found, [BOARD], WALL)


def with_wall(raw: RawRun, seed: int) -> PowerTrace:
    """The run's board behind a wall: 1.1 P + 80 W and noise, ten times a second."""
    power = next(t for t in raw.traces if isinstance(t, PowerTrace))
    rng = np.random.default_rng(seed)
    watts = GAIN * power.power_watts + OFFSET_WATTS + rng.normal(0, 3.0, len(power.time_s))
    domain = replace(
        WALL,
        gain_half_width_fraction=0.002,
        averaging_window_s=power.domain.averaging_window_s,
        stamped_by="sensor",
        update_period_s=0.1,
    )
    return replace(power, domain=domain, power_watts=watts)


@pytest.fixture
def database(engine: sa.Engine, tmp_path: Path) -> Path:
    """Runs at five loads, each with a wall meter, and one without."""
    sensor = EmulatedMeterOptions(gain_half_width_fraction=0.05, offset_half_width_watts=5.0)
    workload = varied_workload(idle_s=3.0)
    for seed, users in enumerate((1, 4, 16, 48, 128)):
        raw, _ = emulated_run(
            engine, workload, concurrency=users, seed=seed, run_id=f"w{users}", sensor=sensor
        )
        add_traces(engine, raw.record.run_id, [with_wall(raw, seed)], [])
    emulated_run(engine, workload, concurrency=24, seed=9, run_id="plain", sensor=sensor)
    return tmp_path / "runs.sqlite"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    found: dict[str, Any] = json.loads(out)
    return found


def domains(found: Mapping[str, Any]) -> dict[str, Any]:
    return {d["domain"]: d for d in found["points"][0]["energy"]["domains"]}


def test_from_runs_to_joules_at_the_wall(
    capsys: pytest.CaptureFixture[str], database: Path
) -> None:
    """Fit over stored runs, apply to one without a wall meter; the headline stays the board's."""
    db = ("--db", str(database))
    walls = ("--runs", "w1,w4,w16,w48,w128", "--wall", "plug")
    made = shown(capsys, "calibrate", *walls, *db)
    fit = made["fit"]
    assert fit["gain_ratio"] == pytest.approx(GAIN, abs=4 * fit["gain_sd_ratio"])
    assert fit["offset_watts"] == pytest.approx(OFFSET_WATTS, abs=4 * fit["offset_sd_watts"])
    assert fit["levels_count"] == 6
    assert made["expires_unix_s"] - made["created_unix_s"] == pytest.approx(90 * 86400)
    (listed,) = shown(capsys, "list", "calibrations", *db)["calibrations"]
    assert listed["calibration_id"] == made["calibration_id"]
    before = shown(capsys, "show", "plain", *db)
    assert "wall" not in domains(before)
    after = shown(capsys, "show", "plain", *db, "--calibration", "latest")
    wall, board = domains(after)["wall"], domains(after)["gpu:0"]
    assert (wall["kind"], wall["boundary"], wall["current"]) == ("derived", "node", "ac")
    assert after["points"][0]["energy"]["headline"] == before["points"][0]["energy"]["headline"]
    length_s = after["points"][0]["window"]["duration_s"]
    truth = GAIN * board["gross_joules"]["value"] + OFFSET_WATTS * length_s
    assert wall["gross_joules"]["low"] < truth < wall["gross_joules"]["high"]
    # The board's ± 5 % is calibrated away.
    spread = (wall["gross_joules"]["high"] - wall["gross_joules"]["low"]) / truth
    assert spread < 0.02
    net = wall["net_loaded_idle_joules"]
    assert net["low"] < GAIN * board["net_loaded_idle_joules"]["value"] < net["high"]
    assert not {f["code"] for f in after["points"][0]["findings"]} & {
        "calibration_expired",
        "calibration_extrapolated",
        "calibration_not_applied",
    }


def test_refusals_of_the_command(capsys: pytest.CaptureFixture[str], database: Path) -> None:
    """Too few levels, and domains that are not there."""
    for arguments, code, part in (
        (("--runs", "w1,w4", "--wall", "plug"), 1, "have 3"),
        (("--runs", "w1", "--wall", "plugs"), 2, "no domain 'plugs'"),
        (("--runs", "w1", "--wall", "plug", "--meters", "plug"), 2, "among --meters"),
        (("--runs", "w1,plain", "--wall", "plug"), 2, "plain has no domain 'plug'"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", *arguments, "--db", str(database)])
        assert ended.value.code == code
        assert part in capsys.readouterr().err


def given(raw: RawRun, fit: WallFit, expires_unix_s: float = 1e12) -> RawRun:
    detail: dict[str, Any] = {
        "calibration_id": "cal",
        "created_unix_s": 0.0,
        "expires_unix_s": expires_unix_s,
        "fit": fit.as_json(),
    }
    return replace(raw, events=(*raw.events, Event(kind="calibration", time_s=0.0, detail=detail)))


def test_when_a_calibration_is_doubted(engine: sa.Engine) -> None:
    """Old, out of range, of other devices; and what it needs is not there."""
    raw, _ = emulated_run(engine, varied_workload(idle_s=2.0), concurrency=8, seed=1)
    (gpu,) = {t.domain.devices for t in raw.traces}
    fit = replace(
        fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL), devices=gpu, high_watts=2000.0
    )

    def codes(*runs: RawRun) -> set[str]:
        (point,) = evaluate(runs)
        return {f.code for f in point.findings if f.code.startswith("calibration")}

    assert codes(given(raw, fit)) == set()
    assert codes(given(raw, fit, expires_unix_s=1.0)) == {"calibration_expired"}
    assert codes(given(raw, replace(fit, high_watts=110.0))) == {"calibration_extrapolated"}
    other = replace(fit, devices=("GPU-other",))
    assert codes(given(raw, other)) == {"calibration_not_applied"}
    assert codes(given(raw, replace(fit, meters=("gpu:7",)))) == {"calibration_not_applied"}


def test_a_node_profile_takes_the_derived_joules(engine: sa.Engine) -> None:
    """Where the profile states its power at the node, and only boards were metered."""
    raw, _ = emulated_run(engine, varied_workload(idle_s=2.0), concurrency=8, seed=1)
    (gpu,) = {t.domain.devices for t in raw.traces}
    fit = replace(fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL), devices=gpu)
    power: Any = raw.record.hardware["power"]
    node = replace(
        raw.record, hardware={**raw.record.hardware, "power": {**power, "boundary": "node"}}
    )
    (point,) = document(evaluate([given(replace(raw, record=node), fit)]), "db")["points"]
    headline, found = point["energy"]["headline"], domains({"points": [point]})["wall"]
    assert headline["domain"] == "wall"
    assert headline["gross_joules"] == found["gross_joules"]
    watts = point["metrics"]["mean_power_watts"]["value"]
    length_s = point["window"]["duration_s"]
    assert watts * length_s == pytest.approx(found["gross_joules"]["value"], rel=1e-9)


def test_cumulative_energy_of_power_and_counter(engine: sa.Engine) -> None:
    """The line applied to each instant is the line applied to the window."""
    raw, _ = emulated_run(engine, varied_workload(), concurrency=8, seed=1)
    fit = fit_wall(levels(np.random.default_rng(3)), [BOARD], WALL)
    for traces in (raw.traces[:1], raw.traces[1:2], raw.traces[:2]):
        parts = [cumulative(trace) for trace in traces]
        whole = derived_cumulative(fit, derived_domain(fit, "cal"), parts)
        edges = np.diff(whole.at_joules(np.array([3.21, 9.87])))[0]
        joules = add([measure(trace, 3.21, 9.87) for trace in traces]).energy_joules
        expected = fit.gain_ratio * joules + fit.offset_watts * 6.66
        assert edges == pytest.approx(expected, rel=2e-4)


def test_a_run_carries_its_calibration(capsys: pytest.CaptureFixture[str], database: Path) -> None:
    """`run --calibration` keeps the line with the run, so `show` needs nothing else."""
    db = ("--db", str(database))
    shown(capsys, "calibrate", "--runs", "w1,w4,w16,w48,w128", "--wall", "plug", *db)
    machine = ("--backend", "emulated", "--hardware", "h100-sxm", "--concurrency", "16")
    asked = ("run", "quickstart", *machine, "--repeats", "2", *db)
    made = shown(capsys, *asked, "--calibration", "latest")
    assert domains(made)["wall"]["kind"] == "derived"
    assert shown(capsys, "show", "latest", *db) == made
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--calibration", "cal-0"])
    assert ended.value.code == 2
    assert "no calibration 'cal-0'" in capsys.readouterr().err
