"""Every fault of a meter is recognised, and a sound meter is left in peace."""

from __future__ import annotations

import numpy as np
import pytest
from fault_runs import FAULT_CODES, codes_of_idle_machine, codes_of_run, recognised
from traces import counter_trace
from truth_periodic import periodic_coverage
from truth_sections import absolute_coverage, accuracy, relative_coverage

from wattbench.checks import meters
from wattbench.core.energy import FloatArray
from wattbench.emulator import FAULTS

SEEDS = range(1000, 1002)


@pytest.mark.parametrize("kind", list(FAULTS))
def test_fault_is_recognised(kind: str) -> None:
    """The finding carries the code that the table of faults names."""
    assert list(recognised(kind, SEEDS)) == []


def test_sound_sensors_carry_no_fault_code() -> None:
    """Over different loads and seeds."""
    for seed in range(2000, 2006):
        assert codes_of_run(None, seed) & FAULT_CODES == set()


def test_accuracy_of_joules_per_token() -> None:
    """A sample of the bench: median 0.05 %, worst 0.3 % with 100 ms counters."""
    errors = accuracy(range(12))
    assert np.median(errors) < 0.0005
    assert errors.max() < 0.003


def test_intervals_cover() -> None:
    """A sample of the bench; 24 intervals of 95 % miss at most 5 with odds of 200 to 1."""
    absolute = absolute_coverage(range(24))
    assert absolute.covered >= 19 / 24
    assert absolute.width_ratio < 1.3
    relative = relative_coverage(range(10))
    assert relative.covered >= 7 / 10
    assert relative.width_ratio < 1.3


def test_periodic_loads_are_covered_and_named() -> None:
    """A sensor that looks at a quarter of the time, on loads in step with it."""
    found = periodic_coverage(range(10))
    assert found.covered >= 0.8
    assert found.width_ratio == 1.0


def test_a_meter_on_another_machine_is_doubted() -> None:
    """Power that stays at idle under load is not the power of the machine that works."""
    assert "power_ignores_load" in codes_of_idle_machine()


def test_a_late_reader_is_no_spike() -> None:
    """Two updates of a 100 ms counter seen 6 ms apart hold a period's energy each."""
    time_s = np.arange(0.0, 20.0, 0.02)
    time_s = np.sort(np.append(time_s[(time_s < 9.895) | (time_s > 9.99)], 9.994))
    joules = 65.0 * np.floor(time_s / 0.1 + 1e-6)
    assert spikes(time_s, joules) == []
    assert spikes(time_s, joules + 200.0 * (time_s > 12.05)) == ["spike"]


def spikes(time_s: FloatArray, joules: FloatArray) -> list[str]:
    trace = counter_trace(time_s, joules, update_period_s=0.1)
    watched = meters._Watched(raw=None, trace=trace, limit_watts=700.0)  # type: ignore[arg-type]
    return [code for code, _, _ in meters._spike(watched)]
