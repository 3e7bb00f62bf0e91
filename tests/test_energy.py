"""The integrator and the attribution, held against the laws that they must obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import counter_trace, power_trace

from wattbench.core.energy import FloatArray
from wattbench.core.errors import InsufficientCoverage
from wattbench.energy import add, attribute, cumulative, measure, pool

SECOND_WATTS = st.lists(st.floats(0, 1000), min_size=11, max_size=11)


def joules(watts: list[float], start_s: float, end_s: float) -> float:
    return measure(power_trace(np.arange(11.0), watts), start_s, end_s).energy_joules


def test_constant_power_is_exact() -> None:
    """300 W for 10 s are 3000 J, though no two samples differ."""
    assert joules([300.0] * 11, 0.0, 10.0) == pytest.approx(3000.0, rel=1e-12)


def test_edges_are_interpolated() -> None:
    """A ramp of 10 W/s from 1.25 s to 7.75 s is 10·(7.75² − 1.25²)/2 J."""
    ramp = [10.0 * second for second in range(11)]
    assert joules(ramp, 1.25, 7.75) == pytest.approx(5 * (7.75**2 - 1.25**2), rel=1e-12)


@given(watts=SECOND_WATTS, cut_s=st.floats(1.0, 9.0))
def test_energy_is_additive(watts: list[float], cut_s: float) -> None:
    """Splitting a window changes nothing."""
    whole = joules(watts, 0.5, 9.5)
    assert joules(watts, 0.5, cut_s) + joules(watts, cut_s, 9.5) == pytest.approx(whole, abs=1e-6)


@given(watts=SECOND_WATTS, shift_s=st.floats(-1e4, 1e4))
def test_energy_is_shift_invariant(watts: list[float], shift_s: float) -> None:
    """The same trace later has the same energy."""
    moved = measure(power_trace(np.arange(11.0) + shift_s, watts), shift_s + 0.5, shift_s + 9.5)
    assert moved.energy_joules == pytest.approx(joules(watts, 0.5, 9.5), abs=1e-6)


@given(start_s=st.floats(0.3, 4.0), length_s=st.floats(1.0, 5.0), watts=st.floats(1, 1000))
def test_counter_at_constant_power_is_exact(start_s: float, length_s: float, watts: float) -> None:
    """Tick interpolation is exact where power is constant, though polls repeat old values."""
    polls_s = np.arange(0, 10, 0.02)
    ticks = np.floor(polls_s / 0.1 + 1e-9) * 0.1
    measured = measure(counter_trace(polls_s, watts * ticks), start_s, start_s + length_s)
    assert measured.energy_joules == pytest.approx(watts * length_s, rel=1e-9)


def piecewise_joules(time_s: FloatArray, watts: FloatArray, start_s: float, end_s: float) -> float:
    """Energy of power that is linear between knots, from the antiderivative of each piece."""
    total = 0.0
    for left, right, low, high in zip(time_s, time_s[1:], watts, watts[1:], strict=False):
        begin, end = max(left, start_s), min(right, end_s)
        if end > begin:
            slope = (high - low) / (right - left)
            middle = (begin + end) / 2
            total += (low + slope * (middle - left)) * (end - begin)
    return total


KNOTS = st.lists(st.tuples(st.floats(0.01, 2.5), st.floats(0, 1000)), min_size=3, max_size=30)
PART = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda p: abs(p[0] - p[1]) > 1e-3)


@given(knots=KNOTS, part=PART, window_s=st.sampled_from([0.0, 0.025, 0.1, 1.0]))
def test_power_that_is_linear_between_samples_is_exact(
    knots: list[tuple[float, float]], part: tuple[float, float], window_s: float
) -> None:
    """To 1e-9, wherever the window's edges fall; a known lag of the sensor is taken out."""
    time_s = np.cumsum([gap for gap, _ in knots])
    watts = np.array([power for _, power in knots])
    inner_s = time_s[-1] - window_s / 2 - time_s[0]
    start_s, end_s = (time_s[0] + share * inner_s for share in sorted(part))
    if inner_s <= 0:
        return
    late = power_trace(time_s + window_s / 2, watts, averaging_window_s=window_s or None)
    if start_s < late.time_s[0]:
        start_s = float(late.time_s[0])
    if end_s - start_s < 1e-3:
        return
    truth = piecewise_joules(time_s, watts, start_s, end_s)
    assert measure(late, start_s, end_s).energy_joules == pytest.approx(truth, rel=1e-9, abs=1e-6)


@given(rate=st.floats(-20, 20), length_s=st.floats(2.5, 8.5), window_s=st.floats(0.05, 2.0))
def test_a_ramp_through_a_trailing_mean_is_exact_up_to_the_last_sample(
    rate: float, length_s: float, window_s: float
) -> None:
    """A mean over the last w of a ramp is the ramp w/2 ago; the last mean reaches to its stamp."""
    time_s = np.linspace(0.0, 10.0, 101)
    trace = power_trace(time_s, 400 + rate * (time_s - window_s / 2), averaging_window_s=window_s)
    start_s = 10.0 - length_s
    truth = length_s * (400 + rate * (10.0 + start_s) / 2)
    assert measure(trace, start_s, 10.0).energy_joules == pytest.approx(truth, rel=1e-9)


@given(watts=SECOND_WATTS, part=PART)
def test_held_power_stands_until_the_next_sample(
    watts: list[float], part: tuple[float, float]
) -> None:
    """A last-value sensor: a sum of rectangles."""
    start_s, end_s = (10 * share for share in sorted(part))
    trace = power_trace(np.arange(11.0), watts, interpolation="hold")
    overlap_s = np.minimum(np.arange(1.0, 11.0), end_s) - np.maximum(np.arange(10.0), start_s)
    truth = float((np.array(watts[:-1]) * np.maximum(0.0, overlap_s)).sum())
    assert measure(trace, start_s, end_s).energy_joules == pytest.approx(truth, rel=1e-9, abs=1e-6)


def test_repeated_values_are_measurements() -> None:
    """A power that stands, steps and stands again: dropping repeats would make a ramp of it."""
    time_s = np.linspace(0.0, 10.0, 501)
    watts = np.where(time_s < 5.0, 100.0, 400.0)
    for period_s in (None, 0.1):
        trace = power_trace(time_s, watts, update_period_s=period_s)
        assert measure(trace, 0.0, 10.0).energy_joules == pytest.approx(2500.0, rel=0.01)


def polled_counter_error_joules(
    phase_s: float, poll_s: float, start_s: float, end_s: float, told: bool
) -> float:
    """Error for power that ramps from 0 by 50 W/s, counted every 0.1 s and read every poll_s."""
    polls_s = np.arange(phase_s, 15.0, poll_s)
    update_s = np.floor((polls_s - 0.0137) / 0.1) * 0.1 + 0.0137
    trace = counter_trace(polls_s, 25.0 * update_s**2, update_period_s=0.1 if told else None)
    truth = 25.0 * (end_s**2 - start_s**2)
    return measure(trace, start_s, end_s).energy_joules - truth


@given(phase_s=st.floats(0.02, 0.1), start_s=st.floats(1, 5), length_s=st.floats(1, 8))
def test_a_polled_counter_is_read_where_it_updated(
    phase_s: float, start_s: float, length_s: float
) -> None:
    """Half a poll in front of the first read of each value; half a period if polled slower."""
    end_s = start_s + length_s
    # Fast polling: an update is known to ± half a poll, 10 ms.
    for told in (False, True):
        error = polled_counter_error_joules(phase_s, 0.02, start_s, end_s, told)
        assert abs(error) <= 50 * (end_s + start_s) * 0.0101
    # Slow polling: to ± half a period.
    error = polled_counter_error_joules(phase_s, 0.37, start_s, end_s, True)
    assert abs(error) <= 50 * (end_s + start_s) * 0.0501 + 50 * 0.37**2 / 4


def test_moving_updates_back_takes_out_the_bias() -> None:
    """Over all phases the error averages out; stamps of the reader as they are would be late."""
    phases = np.linspace(0.02, 0.12, 41)
    for poll_s, bias_s in ((0.02, 0.01), (0.37, 0.05)):
        errors = [polled_counter_error_joules(p, poll_s, 2.5, 9.7, True) for p in phases]
        late = 50 * (9.7 - 2.5) * bias_s
        assert abs(np.mean(errors)) < 0.15 * late, poll_s


def test_a_sensor_that_stamps_its_updates_is_taken_at_its_word() -> None:
    """No correction of stamps that are the sensor's own, though values repeat."""
    time_s = np.arange(0.0, 10.01, 0.1)
    energy = np.repeat(25.0 * time_s[::5] ** 2, 5)[: len(time_s)]
    trace = counter_trace(time_s, energy, update_period_s=0.5, stamped_by="sensor")
    assert measure(trace, 1.0, 9.0).energy_joules == pytest.approx(25.0 * 80.0, rel=1e-9)


@pytest.mark.parametrize("missing_s", [2.2, 2.9])
def test_a_counter_that_may_have_gone_round_unseen_is_refused(missing_s: float) -> None:
    """100 W on a counter of 150 J, not read for a while: whether it fell or not says nothing."""
    time_s = np.concatenate([np.arange(0.0, 5.0, 0.1), np.arange(5.0 + missing_s, 12.0, 0.1)])
    trace = counter_trace(time_s, (5.0 + 100.0 * time_s) % 150.0, wrap_joules=150.0)
    with pytest.raises(InsufficientCoverage, match="once more") as caught:
        measure(trace, 0.5, 9.5)
    assert caught.value.reason == "counter_reset"


@given(
    watts=st.floats(20, 700),
    begin=st.floats(0, 1),
    window=st.tuples(st.floats(0.5, 20.0), st.floats(21.0, 39.0)),
)
def test_a_wrap_anywhere_changes_nothing(
    watts: float, begin: float, window: tuple[float, float]
) -> None:
    """A counter with a range of 5000 J gives what one without gives."""
    time_s = np.arange(0.0, 40.05, 0.1)
    energy = 5000.0 * begin + watts * time_s
    plain = measure(counter_trace(time_s, energy), *window)
    wrapped = measure(counter_trace(time_s, energy % 5000.0, wrap_joules=5000.0), *window)
    assert wrapped.energy_joules == pytest.approx(plain.energy_joules, rel=1e-9)


def test_wrap_is_mended_only_when_unambiguous() -> None:
    """A counter that wraps at 1000 J goes on; one that falls without a range is a reset."""
    time_s = np.arange(11.0)
    energy = (950.0 + 100.0 * time_s) % 1000
    mended = measure(counter_trace(time_s, energy, wrap_joules=1000.0), 0.5, 9.5)
    assert mended.energy_joules == pytest.approx(900.0)
    with pytest.raises(InsufficientCoverage, match="fell by") as caught:
        measure(counter_trace(time_s, energy), 0.5, 9.5)
    assert caught.value.reason == "counter_reset"


@pytest.mark.parametrize(
    ("start_s", "end_s", "reason"),
    [(-0.1, 5.0, "not_bracketed"), (1.0, 10.1, "not_bracketed"), (5.0, 5.0, "empty_window")],
)
def test_nothing_is_extrapolated(start_s: float, end_s: float, reason: str) -> None:
    """A window outside the samples has no energy, and says why."""
    with pytest.raises(InsufficientCoverage) as caught:
        joules([100.0] * 11, start_s, end_s)
    assert caught.value.reason == reason


def test_gap_spoils_the_window_that_holds_it() -> None:
    """A gap of more than 3 s is refused inside a window and harmless outside."""
    trace = power_trace([0, 1, 2, 6, 7, 8], [100.0] * 6)
    assert measure(trace, 6.0, 8.0).energy_joules == pytest.approx(200.0)
    with pytest.raises(InsufficientCoverage, match="no sample for 4 s"):
        measure(trace, 1.0, 7.0)


def test_a_slow_sensor_has_longer_gaps() -> None:
    """Three update periods are no gap."""
    trace = power_trace([0.0, 5, 10, 15, 29, 34], [100.0] * 6, update_period_s=5.0)
    assert measure(trace, 0.0, 34.0).energy_joules == pytest.approx(3400.0)
    with pytest.raises(InsufficientCoverage, match="limit 12 s"):
        measure(power_trace(trace.time_s, trace.power_watts, update_period_s=4.0), 0.0, 34.0)


def test_failed_reads_are_not_zero() -> None:
    """NaN samples are left out; a trace of nothing else has no energy."""
    trace = power_trace([0, 1, 2, 3], [100.0, np.nan, 100.0, 100.0])
    assert measure(trace, 0.0, 3.0).energy_joules == pytest.approx(300.0)
    with pytest.raises(InsufficientCoverage) as caught:
        cumulative(power_trace([0, 1], [np.nan, np.nan]))
    assert caught.value.reason == "no_samples"


def test_sums_inherit_the_worst_kind_and_one_boundary() -> None:
    """A counter plus a model is modelled; a board plus a package is refused."""
    time_s = np.arange(11.0)
    counter = measure(counter_trace(time_s, 100 * time_s), 1.0, 9.0)
    model = measure(power_trace(time_s, [50.0] * 11, name="gpu:1", kind="modelled"), 1.0, 9.0)
    total = add([counter, model])
    assert total.energy_joules == pytest.approx(1200.0)
    assert total.kind == "modelled"
    package = measure(power_trace(time_s, [50.0] * 11, boundary="package"), 1.0, 9.0)
    with pytest.raises(ValueError, match="boundaries"):
        add([counter, package])


def test_scale_errors_of_repeats_add_up_and_edges_do_not() -> None:
    """Over repeats a gain is common (adds), an edge error is independent (adds in squares)."""
    trace = power_trace(np.arange(11.0), [100.0, 200.0] * 5 + [100.0], gain_half_width_fraction=0.1)
    one = measure(trace, 1.3, 8.3)
    both = pool([one, one])
    assert both.gain_half_widths_joules[0] == pytest.approx(2 * one.gain_half_widths_joules[0])
    assert both.edge_joules == pytest.approx(one.edge_joules * 2**0.5)


INTERVALS = st.lists(
    st.tuples(st.floats(-2.0, 12.0), st.floats(0.01, 8.0)), min_size=0, max_size=12
)


@given(watts=SECOND_WATTS, intervals=INTERVALS)
def test_attribution_conserves_energy(
    watts: list[float], intervals: list[tuple[float, float]]
) -> None:
    """Requests and idle together are the window, whatever overlaps."""
    energy = cumulative(power_trace(np.arange(11.0), watts))
    sent = np.array([start for start, _ in intervals])
    end = sent + np.array([length for _, length in intervals])
    shared = attribute(energy, sent, end, 0.5, 9.5)
    total = joules(watts, 0.5, 9.5)
    assert shared.request_joules.sum() + shared.idle_joules == pytest.approx(
        total, rel=1e-9, abs=1e-9
    )
    assert (shared.request_joules >= -1e-9).all()


def test_attribution_splits_equally_among_those_under_way() -> None:
    """At 100 W: alone a request pays all, with another half; nobody pays for idle."""
    energy = cumulative(power_trace(np.arange(11.0), [100.0] * 11))
    shared = attribute(energy, np.array([0.0, 2.0]), np.array([4.0, 6.0]), 0.0, 10.0)
    assert shared.request_joules == pytest.approx([300.0, 300.0])
    assert shared.idle_joules == pytest.approx(400.0)
