"""Generated and derived traces: the laws that they keep, and the numbers that they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wattbench.traces import (
    FixedLengths,
    LengthsOf,
    LognormalLengths,
    Talk,
    Trace,
    diurnal_trace,
    first,
    gamma_trace,
    like,
    poisson_trace,
    scaled,
    sliced,
    trace_of,
)
from wattbench.traces.record import arrays

COUNT = 4000
FIXED = FixedLengths(input_tokens=100, output_tokens=10)
TALK = Talk(mean_turns_count=4, think_s=20, prefix_tokens=70, prefix_groups=3, block_tokens=16)
SEEDS = st.integers(0, 2**63 - 1)
RATES = st.floats(1e-3, 1e4)


def same(one: Trace, other: Trace) -> bool:
    first_arrays, others = arrays(one), arrays(other)
    return first_arrays.keys() == others.keys() and all(
        array.tobytes() == others[name].tobytes() for name, array in first_arrays.items()
    )


def dispersion(trace: Trace, windows: int = 200) -> float:
    """Index of dispersion of counts: variance over mean, 1 for a Poisson process."""
    counts = np.histogram(trace.arrival_s, windows)[0]
    return float(counts.var() / counts.mean())


@given(rate=RATES, seed=SEEDS)
def test_poisson_gaps_are_exponential(rate: float, seed: int) -> None:
    """Mean and variance of the gaps and the dispersion of counts, within six standard errors."""
    trace = poisson_trace(rate, COUNT, FIXED, seed)
    gaps = np.diff(trace.arrival_s) * rate
    assert gaps.mean() == pytest.approx(1, abs=6 / math.sqrt(COUNT))
    assert gaps.var() == pytest.approx(1, abs=7 * math.sqrt(8 / COUNT))
    assert dispersion(trace) == pytest.approx(1, abs=6 * math.sqrt(2 / 200))
    assert trace.mean_rate_per_s == pytest.approx(rate, rel=0.12)


@given(cv=st.floats(0.05, 5), seed=SEEDS)
def test_gamma_gaps_scatter_as_asked(cv: float, seed: int) -> None:
    """Mean and variance within standard errors; the kurtosis of a gamma variable is 3 + 6 cv²."""
    gaps = np.diff(gamma_trace(2.0, COUNT, FIXED, seed, cv_ratio=cv).arrival_s) * 2
    assert gaps.mean() == pytest.approx(1, abs=6 * cv / math.sqrt(COUNT))
    error = cv**2 * math.sqrt((2 + 6 * cv**2) / COUNT)
    assert gaps.var() == pytest.approx(cv**2, abs=8 * error)


@settings(max_examples=20)
@given(peak=st.floats(1, 6), seed=SEEDS)
def test_a_day_has_its_mean_and_its_peak(peak: float, seed: int) -> None:
    """Over whole days the mean is the rate; it is highest at noon, lowest at midnight."""
    days = 40
    trace = diurnal_trace(1.0, 1000 * days, FIXED, seed, peak_to_mean_ratio=peak, period_s=1000.0)
    assert trace.arrival_s[-1] == pytest.approx(1000 * days, abs=6 * math.sqrt(1000 * days) + 500)
    phase = trace.arrival_s[trace.arrival_s < 1000 * (days - 2)] % 1000
    noon = np.sum(np.abs(phase - 500) < 10)
    night = np.sum((phase < 10) | (phase > 990))
    expected = 20 * (days - 2)
    assert noon == pytest.approx(
        peak * expected, abs=0.02 * peak * expected + 6 * math.sqrt(peak * expected)
    )
    if peak == 1:
        assert night == pytest.approx(expected, abs=6 * math.sqrt(expected))
    if peak > 2:
        assert night < expected / 2


@given(mean=st.floats(20, 5000), sigma=st.floats(0, 1.5), seed=SEEDS)
def test_lognormal_lengths_have_their_mean(mean: float, sigma: float, seed: int) -> None:
    """The mean asked for is that of the lengths, not of their logarithm."""
    lengths = LognormalLengths(input_tokens=mean, output_tokens=mean / 10, sigma_ratio=sigma)
    prompt, answer = lengths.draw(np.random.default_rng(seed), COUNT)
    error = math.sqrt((math.exp(sigma**2) - 1) / COUNT)
    assert prompt.mean() == pytest.approx(mean, rel=10 * error, abs=0.6)
    assert answer.min() >= 1
    logs = np.log(prompt[prompt > 1])
    if mean > 2000 and sigma < 1:
        assert logs.std() == pytest.approx(sigma, abs=0.08)


MAKERS: list[Callable[[int], Trace]] = [
    lambda seed: poisson_trace(5.0, 500, FIXED, seed),
    lambda seed: gamma_trace(5.0, 500, FIXED, seed, cv_ratio=3.0, talk=TALK),
    lambda seed: diurnal_trace(5.0, 500, FIXED, seed, peak_to_mean_ratio=3.0, talk=TALK),
    lambda seed: like(poisson_trace(5.0, 500, FIXED, 1), 700, seed),
]


@pytest.mark.parametrize("make", MAKERS)
def test_equal_seeds_give_equal_bytes(make: Callable[[int], Trace]) -> None:
    """The same seed the same trace and source, another seed another one."""
    assert same(make(3), make(3))
    assert make(3).source == make(3).source
    assert not same(make(3), make(4))


def test_arrivals_do_not_depend_on_lengths() -> None:
    """Each kind of chance has a stream of its own: designs compare on the same arrivals."""
    other = LengthsOf(trace=trace_of([0.0, 1.0], [5, 9], [6, 10], "two"))
    one, two = poisson_trace(5.0, 300, FIXED, 3), poisson_trace(5.0, 300, other, 3)
    assert np.array_equal(one.arrival_s, two.arrival_s)
    pairs = set(zip(two.input_tokens.tolist(), two.output_tokens.tolist(), strict=True))
    assert pairs == {(5, 6), (9, 10)}
    assert "lengths of two (sha256 " in two.source.name


def known(trace: Trace) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The arrays of a trace with sessions and blocks."""
    assert trace.parent is not None
    assert trace.think_s is not None
    assert trace.block_start is not None
    assert trace.blocks is not None
    return trace.parent, trace.think_s, trace.block_start, trace.blocks


@settings(max_examples=25)
@given(
    turns=st.floats(1.01, 20),
    think=st.floats(0, 1e3),
    prefix=st.integers(0, 100),
    groups=st.integers(1, 4),
    size=st.integers(1, 40),
    seed=SEEDS,
)
def test_sessions_grow_and_share_their_blocks(
    turns: float, think: float, prefix: int, groups: int, size: int, seed: int
) -> None:
    """A prompt carries what was said before, and begins with the blocks of the turn before."""
    talk = Talk(
        mean_turns_count=turns,
        think_s=think,
        prefix_tokens=prefix,
        prefix_groups=groups,
        block_tokens=size,
    )
    lengths = LognormalLengths(input_tokens=30, output_tokens=20, sigma_ratio=0.5)
    trace = poisson_trace(3.0, 300, lengths, seed, talk=talk)
    parent, think_s, start, blocks = known(trace)
    shared = prefix // size
    assert np.array_equal(np.diff(start), trace.input_tokens // size)
    for index in range(300):
        own = blocks[start[index] : start[index + 1]]
        assert len(set(own.tolist())) == len(own)
        before = parent[index]
        if before < 0:
            assert trace.input_tokens[index] > prefix
            assert think_s[index] == 0
            assert np.all(own[:shared] < shared * groups)
            assert np.all(own[shared:] >= shared * groups)
            continue
        said = trace.input_tokens[before] + trace.output_tokens[before]
        assert trace.input_tokens[index] > said
        earlier = blocks[start[before] : start[before + 1]]
        assert np.array_equal(own[: len(earlier)], earlier)
        assert trace.arrival_s[index] == pytest.approx(trace.arrival_s[before] + think_s[index])
    roots = {tuple(blocks[start[i] + shared : start[i + 1]]) for i in range(300) if parent[i] < 0}
    numbers = [number for root in roots for number in root]
    assert len(set(numbers)) == len(numbers), "sessions share nothing but the system prompt"


def test_sessions_keep_rate_turns_and_pauses() -> None:
    """In the long run all turns together come at the rate, also at the end of the trace."""
    trace = poisson_trace(50.0, 60_000, FIXED, 1, talk=TALK)
    parent, think_s, _, _ = known(trace)
    late = trace.arrival_s > 300
    assert np.mean(parent[late] < 0) == pytest.approx(1 / 4, abs=0.02)
    assert think_s[parent >= 0].mean() == pytest.approx(20, rel=0.1)
    counts = np.histogram(trace.arrival_s, np.arange(300, trace.arrival_s[-1], 100))[0]
    assert counts == pytest.approx(50 * 100, rel=0.12)
    assert trace.source.changes == ("later turns are written as if answers took no time",)


@given(seed=SEEDS)
@settings(max_examples=15)
def test_like_keeps_rate_lengths_and_bursts(seed: int) -> None:
    """Mean rate and lengths within standard errors; bursts stay, as they would not alone."""
    rng = np.random.default_rng(7)
    busy = np.repeat(rng.random(150) < 0.4, 40)
    gaps_s = rng.exponential(np.where(busy, 0.01, 1.0))
    lengths = np.where(busy, 50, 500) + rng.integers(0, 20, len(gaps_s))
    bursty = trace_of(np.cumsum(gaps_s), lengths, lengths // 2, "bursty")
    made = like(bursty, 6000, seed)
    for found, values in (
        (made.duration_s / 5999, gaps_s),
        (float(made.input_tokens.mean()), lengths),
    ):
        stretch_means = np.add.reduceat(values, np.arange(0, 6000, 78)) / 78
        error = 6 * float(np.std(stretch_means)) / math.sqrt(6000 / 78)
        assert found == pytest.approx(values.mean(), abs=error)
    assert dispersion(bursty) > 10
    assert dispersion(made) > 5
    pairs = set(zip(bursty.input_tokens, bursty.output_tokens, strict=True))
    assert set(zip(made.input_tokens, made.output_tokens, strict=True)) <= pairs
    short = made.input_tokens < 100
    assert np.diff(made.arrival_s)[short[1:]].mean() < 0.05, "lengths stay with their gaps"
    once = like(bursty, 5999, seed)
    assert sorted(once.input_tokens) == sorted(bursty.input_tokens[1:])
    longest_s = float(gaps_s.max())
    assert once.duration_s == pytest.approx(bursty.duration_s, abs=longest_s)
    (change,) = made.source.changes
    assert change == f"6000 requests resampled from 6000 in stretches of 78, seed {seed}"


@given(rate=st.floats(1e-3, 1e3), stretch=st.floats(1e-3, 1e3))
def test_scaling_is_exact_and_said(rate: float, stretch: float) -> None:
    """Rates multiply, pauses follow only the clock, nothing else moves."""
    trace = poisson_trace(5.0, 200, FIXED, 3, talk=TALK)
    made = scaled(trace, rate_ratio=rate, time_ratio=stretch)
    assert made.mean_rate_per_s == pytest.approx((trace.mean_rate_per_s or 0) * rate / stretch)
    assert known(made)[1] == pytest.approx(known(trace)[1] * stretch)
    assert np.array_equal(made.input_tokens, trace.input_tokens)
    assert len(made.source.changes) == 1 + (rate != 1) + (stretch != 1)
    assert same(scaled(trace), trace)
    assert scaled(trace, rate_ratio=2.0).source.changes[-1] == (
        "arrivals 2 times as fast, pauses left as they were"
    )


@given(cut=st.integers(1, 199), low=st.floats(0, 30), width=st.floats(0.5, 30))
def test_slices_keep_what_is_inside(cut: int, low: float, width: float) -> None:
    """A turn whose parent is left out comes alone; blocks stay shared among those that are left."""
    trace = poisson_trace(5.0, 200, FIXED, 3, talk=TALK)
    parent, _, start, blocks = known(trace)
    made = first(trace, cut)
    assert np.array_equal(made.arrival_s, trace.arrival_s[:cut])
    assert np.array_equal(known(made)[0], parent[:cut])
    assert made.source.changes[-1] == f"cut to the first {cut} of 200 requests"
    inside = np.flatnonzero((trace.arrival_s >= low) & (trace.arrival_s < low + width))
    if not len(inside):
        return
    made = sliced(trace, low, low + width)
    assert made.arrival_s == pytest.approx(trace.arrival_s[inside] - low)
    expected = np.where(parent[inside] >= inside[0], parent[inside] - inside[0], -1)
    assert np.array_equal(known(made)[0], expected)
    orphans = int(np.sum((parent[inside] >= 0) & (expected < 0)))
    said = f"{orphans} turns whose earlier turn was cut off come alone"
    assert (said in made.source.changes) == (orphans > 0)
    kept = blocks[start[inside[0]] : start[inside[-1] + 1]]
    renumbered = known(made)[3]
    assert len(set(zip(kept, renumbered, strict=True))) == len(set(kept)) == renumbered.max() + 1


def test_ten_million_requests_would_be_small_and_quick() -> None:
    """Sixteen bytes for each, and no loop over them in Python."""
    trace = poisson_trace(
        20.0, 300_000, LognormalLengths(input_tokens=1000, output_tokens=200, sigma_ratio=1.0), 1
    )
    assert trace.bytes_per_request == 16
    assert (
        gamma_trace(
            9.0, 100_000, FIXED, 1, cv_ratio=2.0, talk=Talk(mean_turns_count=2, block_tokens=1000)
        ).bytes_per_request
        < 60
    )


def test_too_many_blocks_are_refused() -> None:
    """Before memory is asked for."""
    lengths = FixedLengths(input_tokens=10**6, output_tokens=1)
    talk = Talk(prefix_tokens=10**6, block_tokens=1)
    with pytest.raises(
        ValueError, match=r"blocks of 1 tokens are more than .* larger block_tokens"
    ):
        poisson_trace(1.0, 2000, lengths, talk=talk)


def test_like_leaves_sessions_out() -> None:
    """A resampled request has no earlier turn, and the source says so."""
    made = like(poisson_trace(5.0, 200, FIXED, 3, talk=TALK), 100)
    assert (made.parent, made.think_s, made.blocks, made.block_tokens) == (None,) * 4
    assert made.source.changes[-1] == "sessions and prefix blocks left out"
    with pytest.raises(ValueError, match="count = 0 is below 1"):
        like(poisson_trace(5.0, 200, FIXED, 3), 0)
