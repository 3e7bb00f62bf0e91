"""Which faults of a meter are recognised: shared by a test and by the bench."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from emulation import emulated_run, varied_workload

from wattbench.core.energy import CounterTrace
from wattbench.emulator import FAULTS
from wattbench.results import evaluate
from wattbench.store import connect, database_url

CLEAN = None
FAULT_CODES = {kind.code for kind in FAULTS.values()}


def codes_of_run(fault: str | None, seed: int) -> set[str]:
    """Codes of the findings of one emulated run with a fault, or without one."""
    workload = varied_workload(
        session={
            "input_tokens": {"kind": "uniform", "low": 20, "high": 400},
            "output_tokens": {"kind": "uniform", "low": 10, "high": 200},
        },
        idle_s=1.0,
        measure={"duration_s": 10.0 + (seed % 7) / 3},
    )
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(database_url(f"{folder}/run.sqlite"), create=True)
        try:
            raw, _ = emulated_run(
                engine, workload, concurrency=1 + seed % 24, seed=seed, fault=fault
            )
        finally:
            engine.dispose()
    (point,) = evaluate([raw])
    return {finding.code for finding in point.findings}


def recognised(kind: str, seeds: range) -> Iterator[tuple[int, set[str]]]:
    """Seeds whose run does not carry the code of its fault, with the codes it carries."""
    for seed in seeds:
        codes = codes_of_run(kind, seed)
        if FAULTS[kind].code not in codes:
            yield seed, codes


def codes_of_idle_machine() -> set[str]:
    """Codes of a run whose counter is that of a machine that idles at 112 W all along."""
    with tempfile.TemporaryDirectory() as folder:
        engine = connect(database_url(f"{folder}/run.sqlite"), create=True)
        raw, _ = emulated_run(engine, varied_workload(), concurrency=4, seed=1)
        engine.dispose()
    counter = raw.traces[0]
    assert isinstance(counter, CounterTrace)
    idle = replace(counter, energy_joules=np.round(112.0 * counter.time_s, 3))
    (point,) = evaluate([replace(raw, traces=(idle,))])
    codes = {finding.code for finding in point.findings}
    assert not codes & FAULT_CODES, "steady power is no fault of the sensor"
    return codes
