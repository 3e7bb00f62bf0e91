"""Wiring of ``wattbench run``: from what was asked to the runs that are carried out."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
from rich.console import Console

from wattbench import plugins
from wattbench.cli.calibrate import calibration_json
from wattbench.cli.progress import ProgressView
from wattbench.cli.sensors import build_meter, demand_source, meter_spec
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.core.protocols import Backend
from wattbench.core.run import EngineInfo, Json, RunRecord
from wattbench.core.slo import parse_slo
from wattbench.hardware import MachineProfile, detect_cpu, load_profile
from wattbench.hardware.detect import NAME as LOCAL_CPU
from wattbench.plugins import PluginContext, PluginSpec, parse_options, parse_spec
from wattbench.runner import (
    LiveState,
    RunPlan,
    deep_idle,
    environment,
    execute,
    run_async,
)
from wattbench.store import (
    URL,
    StoreWriter,
    check_place,
    connect,
    database_url,
    load_calibration,
    show_url,
)
from wattbench.workload import ClosedLoop, Workload, load_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for, still as text."""

    workload: str
    backend: str
    hardware: str | None
    meters: tuple[str, ...]
    devices: tuple[str, ...] | None
    roles: Mapping[str, tuple[str, ...]]
    concurrency: tuple[int, ...] | None
    repeats: int
    seed: int | None
    tag: str | None
    slo: str | None = None
    calibration: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One operating point: its load."""

    concurrency: int | None
    rate_per_s: float | None

    @property
    def load(self) -> dict[str, Json]:
        """As stored: only what applies."""
        found = {"concurrency": self.concurrency, "rate_per_s": self.rate_per_s}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(slots=True, kw_only=True)
class Batch:
    """All runs of one ``wattbench run``."""

    batch_id: str
    url: URL
    workload: Workload
    points: list[_Point]
    repeats: int
    seed: int
    tag: str | None
    devices: tuple[str, ...] | None
    roles: Mapping[str, tuple[str, ...]]
    profile: MachineProfile | None
    backend_spec: PluginSpec
    backend: Backend
    backend_options: Any
    meter_specs: list[tuple[PluginSpec, Any]]
    run_ids: list[str] = field(default_factory=list)
    deep_idle: dict[str, Json] | None = None
    calibration: dict[str, Json] | None = None

    @property
    def database(self) -> str:
        """The database as printed."""
        return show_url(self.url)

    @property
    def virtual(self) -> bool:
        """Whether the backend's time is simulated."""
        return bool(getattr(self.backend, "virtual_time", False))

    def carry_out(self, console: Console | None) -> BaseException | None:
        """Do all runs; what stopped them early, if anything did."""
        try:
            run_async(self._all_runs(console), virtual=self.virtual)
        except (WattbenchError, KeyboardInterrupt, asyncio.CancelledError) as stopped:
            return stopped
        return None

    async def _all_runs(self, console: Console | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        view = ProgressView(console, self.workload, len(self.points) * self.repeats)
        try:
            await self._measure_deep_idle()
            with view.opening() if console else nullcontext():
                info = await self.backend.open()
            engine = connect(self.url, create=True)
            writer = StoreWriter(engine)
            try:
                for repeat in range(self.repeats):
                    for index, point in enumerate(self.points):
                        await self._one_run(index, point, repeat, info, writer, view)
            finally:
                writer.close()
                engine.dispose()
        finally:
            await self.backend.close()

    async def _measure_deep_idle(self) -> None:
        """Meter the machine before the engine is there, with the meters that can do without it."""
        duration_s = self.workload.deep_idle_s
        free = [
            build_meter(spec, options, self._context(self.seed))
            for spec, options in self.meter_specs
            if not getattr(plugins.find("meters", spec.name), "needs_engine", False)
        ]
        if duration_s and free:
            self.deep_idle = await deep_idle(free, duration_s)

    async def _one_run(
        self,
        index: int,
        point: _Point,
        repeat: int,
        info: EngineInfo,
        writer: StoreWriter,
        view: ProgressView,
    ) -> None:
        record = self._record(index, point, repeat, info)
        meters = [
            build_meter(spec, options, self._context(record.seed))
            for spec, options in self.meter_specs
        ]
        plan = RunPlan(
            record=record,
            workload=self.workload,
            concurrency=point.concurrency,
            rate_per_s=point.rate_per_s,
            deep_idle=self.deep_idle,
            calibration=self.calibration,
        )
        live = LiveState()
        with view.running(point.load, repeat, live):
            self.run_ids.append(record.run_id)
            await execute(plan, self.backend, meters, writer, live, virtual=self.virtual)

    def _record(self, index: int, point: _Point, repeat: int, info: EngineInfo) -> RunRecord:
        return RunRecord(
            run_id=f"{self.batch_id}-p{index:04d}-r{repeat:04d}",
            batch_id=self.batch_id,
            point_index=index,
            repeat_index=repeat,
            started_unix_s=0.0,
            virtual_time=self.virtual,
            workload=self.workload.model_dump(mode="json") | {"seed": self.seed},
            backend={"name": self.backend_spec.name, "options": _stored(self.backend_options)},
            engine=info,
            hardware=self.profile.model_dump(mode="json") if self.profile else {},
            meters=tuple(
                {"name": spec.name, "options": _stored(options)}
                for spec, options in self.meter_specs
            ),
            operating_point=point.load,
            seed=_run_seed(self.seed, index, repeat),
            environment=environment(),
            devices=self.devices,
            roles=self.roles,
            tag=self.tag,
        )

    def _context(self, seed: int) -> PluginContext:
        return PluginContext(hardware=self.profile, seed=seed, backend=self.backend)


def prepare(request: Request, database: str | None) -> Batch:
    """Check everything that can be checked without starting anything.

    Raises:
        UsageError: If a name, a file or an option means nothing.
        StoreError: If the database cannot be used.
    """
    workload = load_workload(request.workload)
    if request.slo is not None:
        parse_slo(request.slo)
        workload = workload.model_copy(update={"slo": request.slo})
    spec = parse_spec(request.backend)
    backend_class = plugins.find("backends", spec.name)
    options = parse_options(spec, backend_class.Options)
    reason = backend_class.availability()
    if reason is not None:
        raise WattbenchError(f"backend {spec.name} cannot work here: {reason}")
    hardware = request.hardware or getattr(backend_class, "default_hardware", None)
    profile = _profile(hardware)
    seed = workload.seed if request.seed is None else request.seed
    backend = backend_class(options, PluginContext(hardware=profile, seed=seed))
    default_meter = getattr(backend_class, "default_meter", None)
    texts = request.meters or ((default_meter,) if default_meter else ())
    context = PluginContext(hardware=profile, seed=seed, backend=backend)
    meter_specs = [meter_spec(text) for text in texts if text != "none"]
    for named, meter_options in meter_specs:
        demand_source(build_meter(named, meter_options, context))
    url = database_url(database)
    check_place(url)
    return Batch(
        batch_id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}",
        url=url,
        workload=workload,
        points=list(_points(workload, request.concurrency)),
        repeats=request.repeats,
        seed=seed,
        tag=request.tag,
        devices=request.devices,
        roles=request.roles,
        profile=profile,
        backend_spec=spec,
        backend=backend,
        backend_options=options,
        meter_specs=meter_specs,
        calibration=_calibration(url, request.calibration),
    )


def _calibration(url: URL, calibration_id: str | None) -> dict[str, Json] | None:
    if calibration_id is None:
        return None
    engine = connect(url, create=False)
    try:
        return calibration_json(load_calibration(engine, calibration_id))
    finally:
        engine.dispose()


def _profile(name: str | None) -> MachineProfile | None:
    if name is None:
        return None
    return detect_cpu(date.today().isoformat()) if name == LOCAL_CPU else load_profile(name)


def _points(workload: Workload, concurrency: tuple[int, ...] | None) -> Iterator[_Point]:
    arrivals = workload.arrivals
    if isinstance(arrivals, ClosedLoop):
        for users in concurrency or arrivals.concurrency:
            yield _Point(concurrency=users, rate_per_s=None)
        return
    if concurrency is not None:
        raise UsageError(
            f"--concurrency is for closed loops; workload {workload.name!r} has "
            f"{arrivals.kind} arrivals: set arrivals.rate_per_s in its file"
        )
    for rate in arrivals.rate_per_s:
        yield _Point(concurrency=arrivals.max_concurrency, rate_per_s=rate)


def _stored(options: Any) -> dict[str, Json]:
    """Options as recorded: the query of a URL may hold a key and is left out."""
    found: dict[str, Json] = dataclasses.asdict(options)
    return {
        key: value.partition("?")[0] if isinstance(value, str) and "://" in value else value
        for key, value in found.items()
    }


def _run_seed(seed: int, point: int, repeat: int) -> int:
    """A seed of its own for every run, so that no prompt is met twice in a prefix cache."""
    return int(np.random.SeedSequence((seed, point, repeat)).generate_state(1)[0])
