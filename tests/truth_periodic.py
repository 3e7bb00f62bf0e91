"""Loads that repeat, seen by a sensor that looks at a part of each period."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
from emulation import emulated_run, varied_workload
from truth_sections import Coverage

from wattbench.core.energy import PowerTrace
from wattbench.emulator import truth
from wattbench.meters.emulated import EmulatedMeterOptions
from wattbench.results import evaluate
from wattbench.store import connect, database_url

STEP_S = 0.0075
"""About one decoding step of the machine [s]."""


def periodic_case(seed: int) -> tuple[bool, bool]:
    """One load in or near a low-order ratio p/q with a 25-of-100 ms sensor that has no counter.

    Returns:
        Whether the interval holds the true energy, and whether ``alias_risk`` is raised.
    """
    rng = np.random.default_rng((seed, 6))
    ratio = rng.integers(1, 4) / rng.integers(1, 3)
    period_s = 0.1 * ratio * (1 + 2e-4 * rng.standard_normal())
    rate_per_s = 1 / float(period_s)
    workload = varied_workload(
        arrivals={"kind": "constant", "rate_per_s": [rate_per_s]},
        session={
            "input_tokens": 50,
            "output_tokens": int(rng.integers(2, max(3, int(period_s / STEP_S) - 1))),
        },
        idle_s=1.0,
        warmup={"duration_s": 1.0, "requests_per_user": 0},
        measure={"duration_s": float(rng.uniform(10, 13))},
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(database_url(f"{folder}/runs.sqlite"), create=True)
        raw, machine = emulated_run(
            engine,
            workload,
            concurrency=None,
            rate_per_s=rate_per_s,
            seed=seed,
            sensor=EmulatedMeterOptions(window_s=0.025),
        )
        engine.dispose()
    power = tuple(
        replace(trace, domain=replace(trace.domain, parent=None))
        for trace in raw.traces
        if isinstance(trace, PowerTrace)
    )
    (point,) = evaluate([replace(raw, traces=power)])
    window, gross = point.facts.runs[0].window, point.facts.headline.gross
    assert window is not None
    assert gross.low is not None
    assert gross.high is not None
    true = truth(machine, window.start_s, window.end_s).energy_joules
    return gross.low <= true <= gross.high, "alias_risk" in {f.code for f in point.findings}


def periodic_coverage(seeds: range) -> Coverage:
    """Share of cases covered, and in ``width_ratio`` the share in which the risk was raised."""
    found = np.array([periodic_case(seed) for seed in seeds])
    return Coverage(covered=float(found[:, 0].mean()), width_ratio=float(found[:, 1].mean()))
