"""Carrying out what was asked: settings opened one after the other, runs recorded as they go."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from wattbench.backends.server_process import ServerProcess
from wattbench.cli.calibrate import calibration_json
from wattbench.cli.progress import ProgressView
from wattbench.cli.schedule import Blocks, Results, Schedule
from wattbench.cli.selftest import last_selftest
from wattbench.cli.setting import Load, Request, Setting, settings
from wattbench.cli.stored import calibration_of, load_runs
from wattbench.core.errors import (
    BackendError,
    EngineDied,
    MeterError,
    UsageError,
    WattbenchError,
)
from wattbench.core.redaction import without_credentials
from wattbench.core.run import EngineInfo, Json, RunRecord
from wattbench.results import PointResult, evaluate
from wattbench.runner import LiveState, RunPlan, deep_idle, environment, execute, run_async
from wattbench.store import (
    URL,
    StoreWriter,
    check_place,
    connect,
    database_url,
    load_run,
    show_url,
)

MakeSchedule = Callable[[Setting, Results], Schedule]
Place = tuple[int, int]
"""Number of the operating point and of the repeat."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """All runs of one command.

    Attributes:
        batch_id: What the runs are called after.
        url: Where they are stored.
        request: What was asked.
        settings: What is opened, one after the other.
        make_schedule: Chooses the runs of a setting.
        run_ids: Runs that were begun, those of a batch that is resumed included.
        done: Runs that a resumed batch has already.
        attempts: How often a run was begun before without coming to its end.
        failures: What went wrong with runs, in their order.
    """

    batch_id: str
    url: URL
    request: Request
    settings: list[Setting]
    make_schedule: MakeSchedule
    calibration: dict[str, Json] | None = None
    run_ids: list[str] = field(default_factory=list)
    done: set[Place] = field(default_factory=set)
    attempts: dict[Place, int] = field(default_factory=dict)
    failures: list[WattbenchError] = field(default_factory=list)
    _points: dict[tuple[str, Load], int] = field(default_factory=dict)
    _deep_idle: dict[str, Json] | None = None

    @property
    def database(self) -> str:
        """The database as printed."""
        return show_url(self.url)

    def planned(self) -> list[dict[str, Json]]:
        """Every operating point that is known beforehand."""
        return [
            dict(setting.swept) | load.stored for setting in self.settings for load in setting.loads
        ]

    def carry_out(self, console: Console | None) -> BaseException | None:
        """Do all runs; what stopped them early, or the first failure, if anything did."""
        try:
            virtual = self.settings[0].virtual
            run_async(self._all_settings(console), virtual=virtual)
        except (WattbenchError, KeyboardInterrupt, asyncio.CancelledError) as stopped:
            return stopped
        if not self.failures:
            return None
        first, several = self.failures[0], len(self.failures) > 1
        if not several:
            return first
        return WattbenchError(f"{len(self.failures)} runs failed; the first said: {first}")

    def results(self) -> list[PointResult]:
        """What can be concluded from the runs begun, computed from what lies in the database."""
        if not self.run_ids:
            return []
        engine = connect(self.url, create=False)
        try:
            return evaluate(load_run(engine, run_id) for run_id in sorted(self.run_ids))
        finally:
            engine.dispose()

    async def _all_settings(self, console: Console | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        count = len(self.planned()) * self.request.repeats
        view = ProgressView(console, self.settings[0].workload, count)
        engine = None
        writer = None
        try:
            for setting in self.settings:
                await self._measure_deep_idle(setting)
                server = self._server(setting)
                try:
                    with view.opening() if console else nullcontext():
                        info = await _opened(setting, server)
                    if writer is None:
                        engine = connect(self.url, create=True)
                        writer = StoreWriter(engine)
                    await self._runs_of(setting, info, writer, view)
                except (BackendError, MeterError) as error:
                    self._give_up(setting, error)
                finally:
                    await setting.backend.close()
                    if server is not None:
                        await server.stop()
        finally:
            if writer is not None and engine is not None:
                writer.close()
                engine.dispose()

    def _server(self, setting: Setting) -> ServerProcess | None:
        """The server of a setting, not started; its log lies beside the database."""
        if setting.serve is None:
            return None
        tell = getattr(setting.backend, "address", None)
        if tell is None:
            raise UsageError("--serve starts a server: add --backend openai,url=http://…/v1")
        host, port = tell()
        folder = Path(self.url.database or ".").parent / "wattbench-logs"
        log = folder / f"{self.batch_id}-{self.settings.index(setting)}.log"
        url = f"http://{host}:{port}/v1/models"
        return ServerProcess(setting.serve, url, log, self.request.serve_timeout_s)

    def _give_up(self, setting: Setting, error: WattbenchError) -> None:
        """A setting that cannot be opened costs its own points, if there are others.

        Raises:
            WattbenchError: If there are none.
        """
        if len(self.settings) == 1:
            raise error
        swept = ", ".join(f"{key}={value}" for key, value in setting.swept.items())
        self.failures.append(WattbenchError(f"{swept}: {error}"))
        for load in setting.loads:  # what is not measured keeps its number
            self._point_index(setting, load)

    async def _runs_of(
        self, setting: Setting, info: EngineInfo, writer: StoreWriter, view: ProgressView
    ) -> None:
        for load in setting.loads:
            self._point_index(setting, load)
        schedule = self.make_schedule(setting, lambda: self._results_of(setting))
        while (chosen := schedule.next()) is not None:
            load, repeat = chosen
            place = (self._point_index(setting, load), repeat)
            if place in self.done:
                continue
            try:
                await self._one_run(setting, load, place, info, writer, view)
            except EngineDied:
                raise
            except (BackendError, MeterError) as error:
                if len(self.planned()) * self.request.repeats == 1:
                    raise
                self.failures.append(error)

    def _results_of(self, setting: Setting) -> list[PointResult]:
        wanted = setting.swept.items()
        return [
            point
            for point in self.results()
            if wanted <= point.facts.runs[0].raw.record.operating_point.items()
        ]

    def _point_index(self, setting: Setting, load: Load) -> int:
        key = (str(dict(setting.swept)), load)
        return self._points.setdefault(key, len(self._points))

    async def _measure_deep_idle(self, setting: Setting) -> None:
        """Meter the machine before the engine is there, with the meters that can do without it."""
        duration_s = setting.workload.deep_idle_s
        free = setting.meters(setting.seed, without_engine=True)
        if duration_s and free:
            self._deep_idle = await deep_idle(free, duration_s)

    async def _one_run(
        self,
        setting: Setting,
        load: Load,
        place: Place,
        info: EngineInfo,
        writer: StoreWriter,
        view: ProgressView,
    ) -> None:
        record = self._record(setting, load, place, info)
        plan = RunPlan(
            record=record,
            workload=setting.workload,
            concurrency=load.concurrency,
            rate_per_s=load.rate_per_s,
            deep_idle=self._deep_idle,
            calibration=self.calibration,
        )
        live = LiveState()
        meters = setting.meters(record.seed)
        with view.running(record.operating_point, place[1], live):
            self.run_ids.append(record.run_id)
            await execute(plan, setting.backend, meters, writer, live, virtual=setting.virtual)

    def _record(self, setting: Setting, load: Load, place: Place, info: EngineInfo) -> RunRecord:
        index, repeat = place
        again = f"-a{self.attempts[place]}" if place in self.attempts else ""
        return RunRecord(
            run_id=f"{self.batch_id}-p{index:04d}-r{repeat:04d}{again}",
            batch_id=self.batch_id,
            point_index=index,
            repeat_index=repeat,
            started_unix_s=0.0,
            virtual_time=setting.virtual,
            workload=setting.workload.model_dump(mode="json") | {"seed": setting.seed},
            backend={
                "name": setting.backend_spec.name,
                "options": stored_options(setting.backend_options),
            },
            engine=info,
            hardware=setting.profile.model_dump(mode="json") if setting.profile else {},
            meters=tuple(
                {"name": spec.name, "options": stored_options(options)}
                for spec, options in setting.meter_specs
            ),
            operating_point=dict(setting.swept) | load.stored,
            seed=_run_seed(setting.seed, index, repeat),
            environment=environment() | {"selftest": last_selftest()},
            devices=self.request.devices,
            roles=self.request.roles,
            tag=self.request.tag,
        )


def prepare(
    request: Request,
    database: str | None,
    make_schedule: MakeSchedule | None = None,
    resume: str | None = None,
) -> Batch:
    """Check everything that can be checked without starting anything.

    Args:
        request: What was asked.
        database: Where to store it; None: the usual place.
        make_schedule: Chooses the runs; None: every load so often.
        resume: A batch that was begun before with the same request.

    Raises:
        UsageError: If a name, a file or an option means nothing, or the batch to resume is none
            or another.
        StoreError: If the database cannot be used.
    """
    planned = settings(request)
    url = database_url(database)
    check_place(url)
    named = request.calibration
    batch = Batch(
        batch_id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}",
        url=url,
        request=request,
        settings=planned,
        make_schedule=make_schedule
        or (lambda setting, _: Blocks(setting.loads, request.repeats, setting.seed)),
        calibration=None if named is None else calibration_json(calibration_of(url, named)),
    )
    if resume is not None:
        _resume(batch, resume)
    return batch


async def _opened(setting: Setting, server: ServerProcess | None) -> EngineInfo:
    """What the engine says of itself, once its server, if it has one to start, answers."""
    if server is None:
        return await setting.backend.open()
    start_s = await server.start_s()
    info = await setting.backend.open()
    served: dict[str, Json] = {"serve": server.command, "start_s": start_s}
    return dataclasses.replace(info, detail={**info.detail, **served})


def _resume(batch: Batch, batch_id: str) -> None:
    """Take over the runs that an earlier start of the same batch completed."""
    runs = load_runs(batch.url, batch_id)
    batch.batch_id = runs[0].record.batch_id
    planned = batch.planned()
    for run in runs:
        record = run.record
        place = (record.point_index, record.repeat_index)
        point = dict(record.operating_point)
        if record.batch_id != batch.batch_id or planned[
            record.point_index : record.point_index + 1
        ] != [point]:
            raise UsageError(
                f"--resume {batch_id}: run {record.run_id} is of {point}, which is not what is "
                f"planned now; resume with the command that began the batch"
            )
        if run.status == "completed":
            batch.done.add(place)
            batch.run_ids.append(record.run_id)
        else:
            batch.attempts[place] = batch.attempts.get(place, 0) + 1


def stored_options(options: Any) -> dict[str, Json]:
    """Options as recorded: user and query of a URL may hold a key and are left out."""
    found: Mapping[str, Json] = dataclasses.asdict(options)
    return {
        key: without_credentials(value).partition("?")[0]
        if isinstance(value, str) and "://" in value
        else value
        for key, value in found.items()
    }


def _run_seed(seed: int, point: int, repeat: int) -> int:
    """A seed of its own for every run, so that no prompt is met twice in a prefix cache."""
    return int(np.random.SeedSequence((seed, point, repeat)).generate_state(1)[0])
