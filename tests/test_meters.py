"""The meters that poll, by the contract that third parties' meters keep too."""

from __future__ import annotations

import numpy as np
import pytest

from wattbench.core.energy import CounterTrace
from wattbench.meters.cpu_load import CpuLoadMeter, CpuLoadOptions
from wattbench.testing import check_meter


def test_cpu_load_keeps_the_contract() -> None:
    (trace,) = check_meter(CpuLoadMeter, CpuLoadOptions(tdp_watts=100.0), duration_s=0.6).values()
    assert isinstance(trace, CounterTrace)
    watts = np.diff(trace.energy_joules)[[0, -1]] / np.diff(trace.time_s)[[0, -1]]
    assert watts.min() >= 100.0 * 0.3 * 0.5
    assert trace.energy_joules[-1] / trace.time_s[-1] == pytest.approx(65.0, abs=40.0)
