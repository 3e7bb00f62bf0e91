"""Runs of the emulated device in process, for tests that need its truth."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from wattbench.backends.emulated import EmulatedBackend, EmulatedOptions
from wattbench.core.run import RawRun, RunRecord
from wattbench.emulator import EmulatedMachine
from wattbench.hardware import load_profile
from wattbench.meters.emulated import EmulatedMeter, EmulatedMeterOptions
from wattbench.plugins import PluginContext
from wattbench.runner import LiveState, RunPlan, execute, run_async
from wattbench.store import StoreWriter, load_run
from wattbench.workload import Workload, load_workload


def varied_workload(**changes: object) -> Workload:
    """Random lengths over two orders of magnitude, so that requests straddle every edge."""
    base = load_workload("quickstart").model_dump(mode="json")
    base |= {
        "session": {
            "turns": {"kind": "uniform", "low": 1, "high": 3},
            "input_tokens": {"kind": "lognormal", "median": 400, "sigma": 1.0, "high": 4000},
            "output_tokens": {"kind": "lognormal", "median": 150, "sigma": 0.8, "high": 2000},
            "think_time_s": 0.3,
        },
        "measure": {"duration_s": 13.37},
    }
    return Workload.model_validate(base | changes)


def emulated_run(
    engine: sa.Engine,
    workload: Workload,
    *,
    concurrency: int | None,
    seed: int,
    run_id: str = "run",
    rate_per_s: float | None = None,
    virtual: bool = True,
    fault: str | None = None,
    sensor: EmulatedMeterOptions | None = None,
    options: EmulatedOptions | None = None,
    on_commit: Callable[[int], None] | None = None,
) -> tuple[RawRun, EmulatedMachine]:
    """Carry out one run; what was recorded of it, and the device that knows the truth."""
    context = PluginContext(hardware=load_profile("h100-sxm"), seed=seed)
    options = options or EmulatedOptions(fault=fault)
    backend = EmulatedBackend(options, context)
    writer = StoreWriter(engine, on_commit)

    async def carry_out() -> None:
        info = await backend.open()
        record = RunRecord(
            run_id=run_id,
            batch_id=run_id,
            point_index=0,
            repeat_index=0,
            started_unix_s=0.0,
            virtual_time=virtual,
            workload=workload.model_dump(mode="json"),
            backend={"name": "emulated"},
            engine=info,
            hardware=load_profile("h100-sxm").model_dump(mode="json"),
            meters=(),
            operating_point={"concurrency": concurrency},
            seed=seed,
            environment={},
        )
        meter_context = PluginContext(hardware=context.hardware, seed=seed, backend=backend)
        meter = EmulatedMeter(sensor or EmulatedMeterOptions(), meter_context)
        plan = RunPlan(
            record=record, workload=workload, concurrency=concurrency, rate_per_s=rate_per_s
        )
        await execute(plan, backend, [meter], writer, LiveState(), virtual=virtual)
        await backend.close()

    run_async(carry_out(), virtual=virtual)
    writer.close()
    return load_run(engine, run_id), backend.machine
