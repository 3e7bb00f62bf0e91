"""Sensors that look only part of the time, average, repeat and err: are the intervals honest?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from traces import counter_trace, power_trace

from wattbench.core.energy import EnergyMeasurement, FloatArray, PowerTrace
from wattbench.energy import measure
from wattbench.energy.aliasing import alias_risk
from wattbench.energy.sensors import (
    characterise,
    measure_nvml,
    minimum_window_s,
    nvml_family,
    nvml_prior,
)
from wattbench.energy.uncertainty import budget
from wattbench.stats import additive_interval

Energy = Callable[[FloatArray], FloatArray]
QUARTER = {"update_period_s": 0.1, "averaging_window_s": 0.025, "coverage_fraction": 0.25}


def steps(edge_s: FloatArray, watts: FloatArray) -> Energy:
    """Cumulative energy of piecewise constant power."""
    total = np.concatenate([[0.0], np.cumsum(watts * np.diff(edge_s))])
    return lambda time_s: np.interp(time_s, edge_s, total)


def square(period_s: float, phase_s: float, duty: float = 0.5, levels: float = 300.0) -> Energy:
    """60 W up to 2 s and from 40 s on; between them a square wave of 100 W and 100 W + levels."""
    starts_s = np.arange(2.0 + phase_s, 40.0, period_s)
    edges = np.column_stack([starts_s, starts_s + duty * period_s]).ravel()
    watts = np.tile([100.0 + levels, 100.0], len(starts_s))
    edge_s = np.concatenate([[0.0, 1.0, 2.0], edges, [60.0]])
    # A second at full power lets the whole range be seen.
    return steps(edge_s, np.concatenate([[60.0, 100.0 + levels, 100.0], watts]))


def looks(energy: Energy, rng: np.random.Generator, until_s: float = 45.0) -> PowerTrace:
    """A sensor that looks at 25 of each 100 ms, at a random phase, and stamps its updates."""
    time_s = np.arange(0.1 * rng.random() + 0.1, until_s, 0.1)
    watts = (energy(time_s) - energy(time_s - 0.025)) / 0.025
    noise = rng.normal(0, 0.3, len(time_s))
    return power_trace(time_s, watts + noise, stamped_by="sensor", **QUARTER)


def true_joules(energy: Energy, start_s: float, end_s: float) -> float:
    low, high = energy(np.array([start_s, end_s]))
    return float(high - low)


def interval(energy: EnergyMeasurement) -> tuple[float, float]:
    widths = (
        *energy.gain_half_widths_joules,
        *energy.offset_half_widths_joules,
        energy.coverage_half_width_joules,
    )
    return additive_interval(
        energy.energy_joules, uniform_half_widths=widths, normal_sd=energy.edge_joules
    )


def covered(energy: EnergyMeasurement, truth: float) -> bool:
    low, high = interval(energy)
    return low <= truth <= high


def test_the_published_error_of_a_square_wave_comes_out() -> None:
    """300 ms, half on: about 12 % RMS, at most 17 % of a swing from 0, at 3 s and at 30 s alike."""
    rng = np.random.default_rng(5)
    for length_s in (3.0, 30.0):
        errors = []
        for _ in range(60):
            load = square(0.3, 0.3 * rng.random(), levels=1e5)
            truth = true_joules(load, 5.0, 5.0 + length_s)
            errors.append(measure(looks(load, rng), 5.0, 5.0 + length_s).energy_joules / truth - 1)
        # The swing is twice the mean here.
        assert np.sqrt(np.mean(np.square(errors))) / 2 == pytest.approx(0.13, abs=0.02)
        assert np.abs(errors).max() / 2 < 0.19


@pytest.mark.parametrize("known", [True, False])
def test_periodic_loads_are_covered(known: bool) -> None:
    """Periods of 20 ms to 1 s, duty cycles of 20 to 80 %, windows of 10 s, period told or not."""
    rng = np.random.default_rng(7)
    hits, widths = [], []
    for _ in range(150):
        period_s = rng.uniform(0.02, 1.0)
        load = square(period_s, period_s * rng.random(), rng.uniform(0.2, 0.8))
        found = measure(looks(load, rng), 5.0, 15.0, load_period_s=period_s if known else None)
        truth = true_joules(load, 5.0, 15.0)
        hits.append(covered(found, truth))
        widths.append(found.coverage_half_width_joules / truth)
    assert np.mean(hits) >= 0.95
    assert np.median(widths) < 0.12


@pytest.mark.parametrize("period_s", [0.03, 0.05, 0.1, 0.1005, 0.15, 0.2, 0.3, 0.4])
def test_locked_loads_are_covered_once_their_period_is_told(period_s: float) -> None:
    """A low-order ratio hides the same part of the load again and again."""
    rng = np.random.default_rng(11)
    hits, widths = [], []
    for _ in range(40):
        load = square(period_s, period_s * rng.random())
        found = measure(looks(load, rng), 5.0, 15.0, load_period_s=period_s)
        hits.append(covered(found, true_joules(load, 5.0, 15.0)))
        widths.append(found.coverage_half_width_joules / 10.0)
    assert np.mean(hits) >= 0.95
    # Never more than the hidden three quarters can hold between lowest and highest power seen.
    assert max(widths) <= 0.75 * 345.0


def test_a_beat_is_noticed_without_being_told() -> None:
    """104.3 ms on a sensor of 100 ms: a beat of 2.4 s that looks like a load of its own."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        load = square(0.1043, 0.1043 * rng.random())
        found = measure(looks(load, rng), 5.0, 13.9)
        assert covered(found, true_joules(load, 5.0, 13.9))
        assert 0.02 < found.coverage_half_width_joules / found.energy_joules < 0.3


def test_loads_without_a_rhythm_have_small_intervals() -> None:
    """Fresh power every 5 to 200 ms, a random telegraph, a random walk: 95 % and a few per cent."""
    rng = np.random.default_rng(9)
    hits, widths = [], []
    for case in range(120):
        kind = case % 3
        if kind == 0:
            edge_s = np.arange(0.0, 60.0, rng.choice([0.005, 0.03, 0.2]))
            watts = rng.uniform(100, 400, len(edge_s) - 1)
        elif kind == 1:
            edge_s = np.cumsum(rng.exponential(0.3, 300))
            watts = np.where(np.arange(299) % 2, 100.0, 400.0)
        else:
            edge_s = np.arange(0.0, 60.0, 0.02)
            watts = 250 + np.cumsum(rng.normal(0, 2, len(edge_s) - 1))
        load = steps(edge_s, watts)
        truth = true_joules(load, 5.0, 15.0)
        found = measure(looks(load, rng, 30.0), 5.0, 15.0)
        hits.append(covered(found, truth))
        widths.append(found.coverage_half_width_joules / truth)
    assert np.mean(hits) >= 0.93
    assert np.median(widths) < 0.05


@pytest.mark.parametrize(
    ("edge_s", "watts"),
    [
        ([0.0, 60.0], [300.0]),
        ([0.0, 9.3, 60.0], [100.0, 400.0]),
        ([0.0, 7.1, 12.2, 60.0], [60.0, 400.0, 60.0]),
    ],
)
def test_steady_power_a_step_and_a_pulse_are_no_rhythm(
    edge_s: list[float], watts: list[float]
) -> None:
    """What changes once or twice within 10 s costs no more than 3 %."""
    load = steps(np.array(edge_s), np.array(watts))
    found = measure(looks(load, np.random.default_rng(2), 30.0), 5.0, 15.0)
    assert covered(found, true_joules(load, 5.0, 15.0))
    assert found.coverage_half_width_joules < 0.03 * found.energy_joules


def test_a_sensor_that_sees_everything_has_no_such_term() -> None:
    """An unknown coverage counts as a quarter; samples of instants show nothing in between."""
    time_s = np.arange(0.0, 20.0, 0.1)
    watts = np.random.default_rng(1).uniform(100, 400, len(time_s))

    def width(**sensor: object) -> float:
        return measure(power_trace(time_s, watts, **sensor), 1.0, 19.0).coverage_half_width_joules

    assert width(averaging_window_s=0.1) == 0.0
    quarter = width(averaging_window_s=0.025, coverage_fraction=0.25)
    assert width(averaging_window_s=0.025, coverage_fraction=None) == quarter > 0
    assert width() > quarter
    assert width(interpolation="hold") == 0.0


@pytest.mark.parametrize("at_s", np.linspace(9.0, 9.1, 7).tolist())
def test_a_step_between_two_samples_is_in_the_interval(at_s: float) -> None:
    """Power that steps at an unknown instant between two samples of instants."""
    time_s = np.arange(0.0, 20.0, 0.1)
    found = measure(power_trace(time_s, np.where(time_s < at_s, 100.0, 400.0)), 5.0, 15.0)
    assert covered(found, 100 * (at_s - 5) + 400 * (15 - at_s))
    assert found.coverage_half_width_joules < 0.02 * found.energy_joules


def test_reading_seldom_is_partial_coverage_too() -> None:
    """A sensor of 0.1 s read once a second shows a tenth of the load, unless it averages."""
    time_s = np.arange(0.0, 60.0, 1.0)
    watts = np.random.default_rng(1).uniform(100, 400, len(time_s))
    alone = measure(power_trace(time_s, watts, update_period_s=0.1), 5.0, 55.0)
    mean = power_trace(time_s, watts, update_period_s=0.1, averaging_window_s=1.0)
    assert alone.coverage_half_width_joules > 0
    assert measure(mean, 5.0, 55.0).coverage_half_width_joules == 0


def test_the_budget_names_its_terms() -> None:
    """Gain, offset, edge and coverage, as standard deviations."""
    time_s = np.arange(0.0, 20.0, 0.1)
    trace = power_trace(
        time_s,
        np.full(len(time_s), 300.0),
        gain_half_width_fraction=0.05,
        offset_half_width_watts=5.0,
    )
    terms = {term.name: term for term in budget(measure(trace, 5.0, 15.0))}
    assert terms["gain"].standard_joules == pytest.approx(150 / 3**0.5)
    assert terms["offset"].standard_joules == pytest.approx(50 / 3**0.5)
    assert terms["edge"].distribution == "normal"
    assert terms["coverage"].standard_joules == 0


@pytest.mark.parametrize(
    ("load_period_s", "window_s", "ratio"),
    [
        (0.3, 10.0, (1, 3)),
        (0.3, 300.0, (1, 3)),
        (0.1005, 30.0, (1, 1)),
        (0.05, 10.0, (2, 1)),
        (0.15, 10.0, (2, 3)),
        (0.11, 10.0, None),
        (0.025, 10.0, None),
        (1.0, 10.0, None),
        (0.237, 10.0, None),
    ],
)
def test_alias_risk_is_a_low_order_ratio(
    load_period_s: float, window_s: float, ratio: tuple[int, int] | None
) -> None:
    """Few periods of the load in q ≤ 4 of the sensor, and a beat that the window does not hold."""
    risk = alias_risk(load_period_s, 0.1, 0.25, window_s)
    assert risk.at_risk is (ratio is not None)
    if ratio is not None:
        assert (risk.load_count, risk.sensor_count) == ratio
        assert risk.beat_s > window_s / 3
        assert risk.error_fraction > 0.05
    assert not alias_risk(load_period_s, 0.1, 1.0, window_s).at_risk


def test_alias_risk_refuses_nonsense() -> None:
    """A period of nothing is no period."""
    with pytest.raises(ValueError, match="above 0"):
        alias_risk(0.0, 0.1, 0.25, 10.0)


def polled(
    energy: Energy, rng: np.random.Generator, *, period_s: float, window_s: float, poll_s: float
) -> tuple[FloatArray, FloatArray]:
    """Times and powers of a sensor as a reader finds them: late, repeated, to 0.01 W."""
    time_s = np.cumsum(poll_s * rng.uniform(0.9, 1.1, int(20.0 / poll_s)))
    phase_s = period_s * rng.random()
    update_s = np.floor((time_s - phase_s) / period_s) * period_s + phase_s
    update_number = np.round((update_s - phase_s) / period_s).astype(int)
    watts = (energy(update_s) - energy(update_s - window_s)) / window_s
    noise = rng.normal(0, 0.4, update_number.max() + 2)[update_number]
    return time_s, np.round(np.maximum(watts + noise, 0), 2)


PULSE = steps(np.array([-5.0, 6.0, 12.0, 60.0]), np.array([60.0, 300.0, 60.0]))


@pytest.mark.parametrize(
    ("period_s", "window_s", "poll_s", "mean_s"),
    [(0.1012, 0.025, 0.013, 0.0), (0.1, 0.1, 0.007, 0.0), (0.1, 1.0, 0.007, 1.0)],
)
def test_a_sensor_is_characterised_by_its_readings(
    period_s: float, window_s: float, poll_s: float, mean_s: float
) -> None:
    """Update period to 1 %, quantum, poll period, and whether it is a long mean."""
    rng = np.random.default_rng(4)
    time_s, watts = polled(PULSE, rng, period_s=period_s, window_s=window_s, poll_s=poll_s)
    found = characterise(power_trace(time_s, watts))
    assert found.update_period_s == pytest.approx(period_s, rel=0.01)
    assert found.poll_period_s == pytest.approx(poll_s, rel=0.05)
    assert found.quantum_watts == pytest.approx(0.01)
    assert found.duplicates_fraction == pytest.approx(1 - poll_s / period_s, abs=0.03)
    assert found.averaging_window_s == pytest.approx(mean_s, abs=0.2)


def test_what_a_trace_does_not_tell_is_none() -> None:
    """Steady power tells neither update period nor mean; a counter has no quantum in watts."""
    time_s = np.arange(0.0, 10.0, 0.02)
    still = characterise(power_trace(time_s, np.full(len(time_s), 300.0)))
    assert (still.update_period_s, still.averaging_window_s) == (None, None)
    counter = characterise(counter_trace(time_s, np.floor(time_s / 0.1 + 1e-9) * 30.0))
    assert counter.update_period_s == pytest.approx(0.1)
    assert (counter.quantum_joules, counter.quantum_watts) == (30.0, None)
    fresh = characterise(power_trace(time_s, 300.0 + np.sin(time_s)))
    assert fresh.update_period_s is None


def test_the_window_grows_with_the_update_period() -> None:
    """Raw edges cost at most 0.5 %: ten seconds, or 82 update periods."""
    assert minimum_window_s(0.1) == minimum_window_s(None) == 10.0
    assert minimum_window_s(1.0) == pytest.approx(1 / (2.45 * 0.005), rel=1e-3)


@pytest.mark.parametrize(
    ("card", "family"),
    [
        ("NVIDIA A100-SXM4-80GB", "quarter"),
        ("NVIDIA H100 80GB HBM3", "quarter"),
        ("GeForce RTX 3090", "full"),
        ("NVIDIA RTX A5000", "full"),
        ("GeForce RTX 2080 Ti", "full"),
        ("NVIDIA A10", "full"),
        ("Tesla V100-SXM2-16GB", "half"),
        ("Tesla P100-PCIE-16GB", "half"),
        ("GeForce GTX 1080 Ti", "half"),
        ("TITAN X (Pascal)", "half"),
        ("Tesla K40m", "filtered"),
        ("GeForce GTX TITAN X", "filtered"),
        ("a card of tomorrow", None),
        (None, None),
    ],
)
def test_cards_are_known_by_their_names(card: str | None, family: str | None) -> None:
    """An unknown card has an unknown coverage, and wide priors."""
    assert nvml_family(card) == family
    prior = nvml_prior("instant", card)
    expected = {"quarter": 0.25, "full": 1.0, "half": 0.5, "filtered": 1.0, None: None}
    assert prior.coverage_fraction == expected[family]
    assert prior.gain_half_width_fraction >= 0.05


@pytest.mark.parametrize("window_s", [0.1, 1.0])
def test_a_mean_over_a_second_is_recognised_and_taken_back(window_s: float) -> None:
    """``draw`` of an RTX 3090 is one or the other; a window that cuts the pulse shows which."""
    rng = np.random.default_rng(8)
    time_s, watts = polled(PULSE, rng, period_s=0.1, window_s=window_s, poll_s=0.007)
    trace = power_trace(time_s, watts)
    found = measure_nvml(trace, "draw", 4.0, 9.0, card="GeForce RTX 3090")
    truth = true_joules(PULSE, 4.0, 9.0)
    assert found.energy_joules == pytest.approx(truth, rel=0.01)
    plain = measure(trace, 4.0, 9.0).energy_joules
    assert abs(plain - truth) > (80 if window_s == 1.0 else 10)


def test_what_cannot_be_told_is_in_the_interval() -> None:
    """A slow ramp may be either; the value lies midway and the interval holds both."""
    time_s = np.arange(0.0, 30.0, 0.1)
    trace = power_trace(time_s, 100.0 + 10.0 * time_s, stamped_by="sensor")
    found = measure_nvml(trace, "draw", 5.0, 25.0, card="GeForce RTX 3090")
    # Late by 50 ms or by 500 ms, at 10 W/s over 20 s: 90 J between them.
    assert found.coverage_half_width_joules == pytest.approx(45.0, rel=1e-6)


def write_record(
    folder: Path, rng: np.random.Generator, fields: dict[str, FloatArray], **meta: Any
) -> None:
    """A record of a pulse, with the meter that saw it."""
    folder.mkdir()
    external_s = np.sort(np.concatenate([np.arange(0.0, 19.0, 0.002), rng.uniform(0, 19, 100)]))
    watts = np.where((external_s > 6.0) & (external_s < 12.0), 300.0, 60.0)
    keep = (external_s < 14.0) | (external_s > 14.0 + meta.pop("gap_s", 0.1))
    external = pd.DataFrame({"time_s": external_s, "power_watts": watts})[keep]
    external.to_csv(folder / "external.csv.gz", index=False)
    pd.DataFrame(fields).to_csv(folder / "sensor.csv", index=False)
    (folder / "meta.json").write_text(json.dumps({"card": "some card", **meta}))


def test_bench_truth_runs_on_any_folder(tmp_path: Path) -> None:
    """JSON lines alone on stdout; blank and missing columns, gaps and broken records survive."""
    rng = np.random.default_rng(6)
    time_s, watts = polled(PULSE, rng, period_s=0.1, window_s=0.1, poll_s=0.01)
    read = np.round(0.95 * watts - 2.0, 2)
    blank = np.full(len(time_s), np.nan)
    fields = {"time_s": time_s, "power_average_watts": blank, "power_instant_watts": read}
    card = {"card_id": "GPU-1234", "driver_version": "1.0"}
    write_record(tmp_path / "a", rng, fields, energy={"window_s": [5.0, 13.5]}, **card)
    write_record(tmp_path / "b", rng, fields, window_s=[5.0, 15.5], gap_s=1.0)
    write_record(tmp_path / "c", rng, {"time_s": time_s}, load_s=[[6.0, 12.0]])
    write_record(tmp_path / "d", rng, fields)
    write_record(tmp_path / "e", rng, fields, window_s=[5.0, 30.0])
    cards = {"card_id": "GPU-1234-5", "option": "instant", "gain": [0.95], "offset_w": -2.0}
    pd.DataFrame(cards).to_csv(tmp_path / "cards.csv", index=False)
    script = Path(__file__).parent / "bench_truth.py"
    command = [sys.executable, str(script), "--truth", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert list(lines) == ["a", "b", "e"]
    truth = true_joules(PULSE, 5.0, 13.5)
    a = lines["a"]
    assert a["field"] == "instant"
    assert a["external_joules"] == pytest.approx(truth, rel=1e-3)
    assert a["covered"] is True
    assert a["low"] < a["value"] < a["external_joules"] < a["high"]
    assert a["calibrated_value"] == pytest.approx(truth, rel=0.005)
    assert a["calibrated_high"] - a["calibrated_low"] < (a["high"] - a["low"]) / 2
    assert (lines["b"]["external_joules"], lines["b"]["covered"]) == (None, None)
    assert (lines["e"]["value"], lines["e"]["reason"]) == (None, "not_bracketed")
    assert "d: cannot be read" in done.stderr
