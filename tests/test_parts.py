"""Domains inside others: parts of a machine, or a second path to the same energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from emulation import emulated_run, varied_workload

from wattbench.core.energy import PowerTrace
from wattbench.results import evaluate
from wattbench.store import connect, database_url


@pytest.mark.parametrize(("devices", "doubted"), [(None, True), (("core 0",), False)])
def test_only_two_paths_to_one_device_must_agree(
    tmp_path: Path, devices: tuple[str, ...] | None, doubted: bool
) -> None:
    """Half the power is wrong for the same device, and right for a part of it."""
    engine = connect(database_url(str(tmp_path / "run.sqlite")), create=True)
    raw, _ = emulated_run(engine, varied_workload(), concurrency=4, seed=1)
    engine.dispose()
    power = next(trace for trace in raw.traces if isinstance(trace, PowerTrace))
    inner = replace(power.domain, devices=devices or power.domain.devices)
    halved = replace(power, domain=inner, power_watts=power.power_watts / 2)
    traces = tuple(halved if trace is power else trace for trace in raw.traces)
    (point,) = evaluate([replace(raw, traces=traces)])
    codes = {finding.code for finding in point.findings}
    assert ("counter_vs_integral_residual" in codes) == doubted
