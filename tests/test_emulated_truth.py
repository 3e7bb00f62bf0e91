"""Joules per token of the emulated machine against a truth that uses none of the measuring code."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from emulation import emulated_run, varied_workload

from wattbench.emulator import EmulatedMachine
from wattbench.results import evaluate


def true_joules(machine: EmulatedMachine, start_s: float, end_s: float) -> float:
    """Sum power times overlap over the machine's own steps, one by one."""
    edge_s, watts = machine.timeline.steps()
    overlap_s = np.minimum(edge_s[1:], end_s) - np.maximum(edge_s[:-1], start_s)
    return float((watts * np.maximum(0.0, overlap_s)).sum())


@pytest.mark.parametrize(("concurrency", "seed"), [(1, 1), (3, 2), (16, 3), (64, 4), (200, 5)])
def test_joules_per_output_token_within_half_a_percent(
    engine: sa.Engine, concurrency: int, seed: int
) -> None:
    """Batch-dependent power, random lengths, requests astride both edges of the window."""
    raw, machine = emulated_run(engine, varied_workload(), concurrency=concurrency, seed=seed)
    (point,) = evaluate([raw])
    window = point.facts.runs[0].window
    assert window is not None
    # Loop and run begin together, so the machine's clock is the run clock.
    start_s, end_s = window.start_s, window.end_s
    emitted_s = np.array(machine.emission_s)
    tokens = int(((emitted_s >= start_s) & (emitted_s < end_s)).sum())
    truth = true_joules(machine, start_s, end_s) / tokens
    measured = point.facts.metrics["energy_per_output_token_joules"].value
    assert measured == pytest.approx(truth, rel=0.005)
    if concurrency > 1:
        astride = [
            r for r in raw.requests for edge in (start_s, end_s) if r.sent_s < edge < r.end_s
        ]
        assert len(astride) >= 2


def test_power_depends_on_batch(engine: sa.Engine) -> None:
    """The test above would be easy at constant power: it is not constant."""
    _, machine = emulated_run(engine, varied_workload(), concurrency=64, seed=1)
    _, watts = machine.timeline.steps()
    assert np.ptp(watts) > 200


def test_idle_and_busy_power_are_apart(engine: sa.Engine) -> None:
    """Net of loaded idle is gross minus the profile's idle power over the window."""
    raw, machine = emulated_run(engine, varied_workload(), concurrency=4, seed=9)
    (point,) = evaluate([raw])
    headline = point.facts.headline
    window = point.facts.runs[0].window
    assert window is not None
    assert headline.gross.value is not None
    idle_joules = machine.roofline.idle_watts * window.duration_s
    assert headline.net_loaded_idle.value == pytest.approx(
        headline.gross.value - idle_joules, rel=0.005
    )
