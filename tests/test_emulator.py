"""The emulated machine keeps its own laws, and its speeds are those published."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload
from hypothesis import given, settings
from hypothesis import strategies as st

from wattbench.backends.emulated import EmulatedOptions
from wattbench.core.errors import OptionError
from wattbench.emulator import FAULTS, Timeline, make_fault, truth
from wattbench.energy import Attribution, attribute, cumulative
from wattbench.hardware import load_model, load_profile, roofline
from wattbench.meters.emulated import EmulatedMeterOptions
from wattbench.results import document, evaluate

SEGMENTS = st.lists(
    st.tuples(
        st.floats(0.0, 2.0),
        st.floats(0.001, 2.0),
        st.floats(0.0, 1000.0),
        st.floats(0.0, 1.0),
        st.integers(0, 9),
    ),
    max_size=20,
)


@given(segments=SEGMENTS, low_s=st.floats(0.0, 20.0), length_s=st.floats(0.001, 20.0))
def test_truth_adds_up(
    segments: list[tuple[float, float, float, float, int]], low_s: float, length_s: float
) -> None:
    """Idle, prefill and decode are the energy, in any window of any history."""
    timeline, now_s = Timeline(0.0, 100.0), 0.0
    for gap_s, span_s, watts, fraction, count in segments:
        timeline.add(now_s + gap_s, now_s + gap_s + span_s, watts, fraction, count)
        now_s += gap_s + span_s
    high_s = low_s + length_s
    start, end = timeline.energy_joules(np.array([low_s, high_s]))
    phases = sum(timeline.phase_joules(phase, low_s, high_s) for phase in ("prefill", "decode"))
    assert phases + 100.0 * length_s == pytest.approx(end - start, rel=1e-9, abs=1e-6)


def test_requests_add_up_to_the_phases(engine: sa.Engine) -> None:
    """Over a whole run, the energies of all requests are prefill plus decode."""
    raw, machine = emulated_run(engine, varied_workload(), concurrency=9, seed=2)
    last_s = max(request.end_s for request in raw.requests)
    found = truth(machine, 0.0, last_s + 1)
    requests = sum(request.energy_joules for request in found.requests)
    phases = found.prefill_energy_joules + found.decode_energy_joules
    assert requests == pytest.approx(phases, rel=1e-9)
    assert sum(r.output_tokens for r in found.requests) == found.output_tokens


def test_measured_attribution_conserves_and_comes_near(engine: sa.Engine) -> None:
    """Requests plus idle are the window to 1e-9; each request's share is near the true one."""
    raw, machine = emulated_run(engine, varied_workload(), concurrency=9, seed=2)
    sent = np.array([r.sent_s for r in raw.requests])
    end = np.array([r.end_s for r in raw.requests])
    start_s, end_s = 2.0, 12.0
    energy = cumulative(raw.traces[0])
    shared: Attribution = attribute(energy, sent, end, start_s, end_s)
    low, high = energy.at_joules(np.array([start_s, end_s]))
    total = shared.request_joules.sum() + shared.idle_joules
    assert total == pytest.approx(high - low, rel=1e-9)
    found = truth(machine, start_s, end_s)
    above_idle = high - low - found.idle_energy_joules
    assert above_idle == pytest.approx(sum(r.energy_joules for r in found.requests), rel=0.005)


@pytest.mark.parametrize(("concurrency", "seed"), [(2, 1), (8, 2), (32, 3)])
def test_phases_are_told_apart(engine: sa.Engine, concurrency: int, seed: int) -> None:
    """Prefill and decode energies hold the truth in their intervals."""
    workload = varied_workload(measure={"duration_s": 20.0})
    raw, machine = emulated_run(engine, workload, concurrency=concurrency, seed=seed)
    points = evaluate([raw])
    window = points[0].facts.runs[0].window
    assert window is not None
    true = truth(machine, window.start_s, window.end_s)
    phases = document(points, "")["points"][0]["energy"]["phases"]
    for name in ("prefill_joules", "decode_joules"):
        expected = getattr(true, name.replace("_joules", "_energy_joules"))
        assert phases[name]["low"] <= expected <= phases[name]["high"], name


def test_phases_are_refused_where_they_cannot_be_told(engine: sa.Engine) -> None:
    """Prompts of one token carry no information: no answer, and the reason."""
    session = {"input_tokens": 1, "output_tokens": 40}
    raw, _ = emulated_run(engine, varied_workload(session=session), concurrency=4, seed=1)
    phases = document(evaluate([raw]), "")["points"][0]["energy"]["phases"]
    assert phases["prefill_joules"] == {"value": None, "reason": "collinear"}


def test_a_wafer_is_not_limited_by_its_bandwidth() -> None:
    """Llama 3.1 70B on four systems: by bandwidth alone seventy times the 2,100 tokens/s served."""
    profile = load_profile("cerebras-cs3")
    wafer = roofline(profile, load_model("llama-3.1-70b"))
    assert wafer.device_count == 4
    assert profile.need("memory", "bandwidth") / wafer.weight_bytes == pytest.approx(
        71 * 2100, rel=0.02
    )


@settings(max_examples=30)
@given(limit=st.floats(150, 690), tokens=st.integers(1, 256))
def test_a_power_limit_slows_and_never_costs_more_power(limit: float, tokens: int) -> None:
    """Under a limit a step draws at most the limit, and takes at least as long."""
    machine = roofline(load_profile("h100-sxm"), load_model("llama-3.1-8b"))
    free = machine.step(tokens, tokens * 500, tokens * 500)
    held = machine.step(tokens, tokens * 500, tokens * 500, limit)
    assert held.power_watts <= max(limit, machine.floor_watts) * 1.001
    assert held.duration_s >= free.duration_s


def test_ripple_drift_and_noise_keep_the_books(engine: sa.Engine) -> None:
    """With all of them on, a counter still measures the exact energy."""
    options = EmulatedOptions(
        ripple_fraction=0.3, ripple_period_s=0.013, drift_fraction=0.1, noise_fraction=0.02
    )
    raw, machine = emulated_run(engine, varied_workload(), concurrency=5, seed=3, options=options)
    (point,) = evaluate([raw])
    window = point.facts.runs[0].window
    assert window is not None
    true = truth(machine, window.start_s, window.end_s).energy_joules
    assert point.facts.headline.gross.value == pytest.approx(true, rel=0.005)


def test_same_seed_same_bytes(engine: sa.Engine) -> None:
    """Stamps and samples of two runs with one seed are equal to the last bit."""
    runs = [
        emulated_run(engine, varied_workload(), concurrency=7, seed=5, run_id=name)[0]
        for name in ("first", "second")
    ]
    for one, other in zip(runs[0].traces, runs[1].traces, strict=True):
        assert np.array_equal(one.time_s, other.time_s)
    first, second = (np.concatenate([r.chunk_s for r in raw.requests]) for raw in runs)
    assert np.array_equal(first, second)


def test_sensors_scale_offset_and_average(engine: sa.Engine) -> None:
    """Gain, offset and a trailing mean act as said; the integral is moved accordingly."""
    sensor = EmulatedMeterOptions(gain=1.1, offset_watts=7.0, window_s=0.025)
    raw, machine = emulated_run(engine, varied_workload(), concurrency=4, seed=1, sensor=sensor)
    (point,) = evaluate([raw])
    window = point.facts.runs[0].window
    assert window is not None
    true = truth(machine, window.start_s, window.end_s).energy_joules
    expected = 1.1 * true + 7.0 * window.duration_s
    assert point.facts.headline.gross.value == pytest.approx(expected, rel=0.005)
    assert raw.traces[1].domain.coverage_fraction == 0.25


@pytest.mark.parametrize("kind", list(FAULTS))
def test_faults_take_their_parameters(kind: str) -> None:
    """Drawn inside the documented range, or as given; an unknown one is refused."""
    drawn = make_fault(kind, {}, seed=1)
    for name, (low, high) in FAULTS[kind].ranges.items():
        assert low <= drawn[name] <= high
        assert make_fault(kind, {name: "0.5"}, seed=1)[name] == 0.5
    with pytest.raises(OptionError, match="unknown parameter"):
        make_fault(kind, {"colour": "1"}, seed=1)


def test_unknown_faults_are_refused() -> None:
    """With the nearest name."""
    with pytest.raises(OptionError, match="did you mean 'quantised'"):
        make_fault("quantized", {}, seed=1)
