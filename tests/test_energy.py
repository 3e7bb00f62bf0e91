"""The integrator and the attribution, held against the laws that they must obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import counter_trace, power_trace

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
