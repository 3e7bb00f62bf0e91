"""From what was asked to what is opened: workload, engine, meters, for every swept value."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from wattbench import plugins
from wattbench.backends.server_process import filled, free_port
from wattbench.cli.sensors import auto_meters, build_meter, demand_source, meter_spec
from wattbench.core.errors import UsageError, WattbenchError
from wattbench.core.protocols import Backend, Meter
from wattbench.core.run import Json
from wattbench.core.slo import parse_slo
from wattbench.hardware import MachineProfile, detect_cpu, load_profile
from wattbench.hardware.detect import NAME as LOCAL_CPU
from wattbench.plugins import PluginContext, PluginSpec, parse_options, parse_spec
from wattbench.workload import (
    ClosedLoop,
    Schedule,
    Workload,
    load_workload,
    with_value,
)

MAX_POINTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for, still as text."""

    workload: str
    backend: str
    hardware: str | None = None
    meters: tuple[str, ...] = ()
    devices: tuple[str, ...] | None = None
    roles: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    concurrency: tuple[int, ...] | None = None
    repeats: int = 1
    seed: int | None = None
    tag: str | None = None
    slo: str | None = None
    calibration: str | None = None
    serve: str | None = None
    serve_timeout_s: float = 600.0
    sweep: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is asked of an engine at once."""

    concurrency: int | None
    rate_per_s: float | None = None

    @property
    def stored(self) -> dict[str, Json]:
        """As stored: only what applies."""
        found = {"concurrency": self.concurrency, "rate_per_s": self.rate_per_s}
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What must be opened anew when it changes.

    Attributes:
        swept: Values of the swept keys; empty if nothing is swept.
        workload: The workload, validated.
        seed: Seed of the batch.
        profile: Machine profile, None if the user named none.
        backend_spec: Name and options of the engine, as text.
        backend_options: The options, typed.
        backend: The engine, not opened.
        meter_specs: Names and typed options of the meters.
        loads: Operating points.
        serve: Command that starts the engine's server, None if it runs already.
    """

    swept: Mapping[str, Json]
    workload: Workload
    seed: int
    profile: MachineProfile | None
    backend_spec: PluginSpec
    backend_options: Any
    backend: Backend
    meter_specs: tuple[tuple[PluginSpec, Any], ...]
    loads: tuple[Load, ...]
    serve: str | None = None

    @property
    def virtual(self) -> bool:
        """Whether the backend's time is simulated."""
        return bool(getattr(self.backend, "virtual_time", False))

    def meters(self, seed: int, *, without_engine: bool = False) -> list[Meter]:
        """The meters, not started."""
        context = PluginContext(hardware=self.profile, seed=seed, backend=self.backend)
        return [
            build_meter(spec, options, context)
            for spec, options in self.meter_specs
            if not (without_engine and _needs_engine(spec))
        ]


def _needs_engine(spec: PluginSpec) -> bool:
    return bool(getattr(plugins.find("meters", spec.name), "needs_engine", False))


def settings(request: Request) -> list[Setting]:
    """Every setting that was asked for, checked as far as that goes without starting anything.

    Raises:
        UsageError: If a name, a file, a swept key or an option means nothing.
        WattbenchError: If a backend or a meter cannot work here.
    """
    if request.devices is not None and request.roles:
        raise UsageError("--devices and --role exclude each other: roles name the devices already")
    keys = list(request.sweep)
    combinations = list(itertools.product(*(request.sweep[key] for key in keys)))
    found = [_setting(request, dict(zip(keys, values, strict=True))) for values in combinations]
    count = sum(len(setting.loads) for setting in found) * request.repeats
    if count > MAX_POINTS:
        raise UsageError(f"{count} runs are asked for; more than {MAX_POINTS} is a slip of the pen")
    for setting in found:
        # What a server that is yet to be started tells cannot be asked for now.
        for meter in () if setting.serve else setting.meters(setting.seed):
            demand_source(meter)
    return found


def _setting(request: Request, swept: Mapping[str, str]) -> Setting:
    named = {key.partition(".")[2]: v for key, v in swept.items() if key.startswith("serve.")}
    named |= {"port": str(free_port())} if request.serve else {}
    serve = filled(request.serve, named) if request.serve else None

    def place(text: str) -> str:
        return text.replace("{port}", named["port"]) if serve else text

    spec = parse_spec(place(request.backend))
    workload = load_workload(request.workload)
    if request.slo is not None:
        parse_slo(request.slo)
        workload = workload.model_copy(update={"slo": request.slo})
    for key, text in swept.items():
        where, _, path = key.partition(".")
        if where == "backend" and path:
            spec = PluginSpec(spec.name, {**spec.values, path: text})
        elif where == "serve" and path and serve:
            continue
        elif where == "workload" and path:
            workload = with_value(workload, path, text)
        else:
            raise UsageError(
                f"--sweep {key}=…: sweep backend.KEY, workload.KEY or serve.KEY, as in "
                f"backend.precision=bf16,int8 or workload.session.output_tokens=64,256"
            )
    backend_class = plugins.find("backends", spec.name)
    options = parse_options(spec, backend_class.Options)
    reason = backend_class.availability()
    if reason is not None:
        raise WattbenchError(f"backend {spec.name} cannot work here: {reason}")
    profile = _profile(request.hardware or getattr(backend_class, "default_hardware", None))
    seed = workload.seed if request.seed is None else request.seed
    default_meter = getattr(backend_class, "default_meter", None)
    texts = request.meters or ((default_meter,) if default_meter else ())
    backend = backend_class(options, PluginContext(hardware=profile, seed=seed))
    if "auto" in texts:
        texts = tuple(dict.fromkeys([t for t in texts if t != "auto"] + auto_meters(backend)))
    return Setting(
        swept=dict(swept),
        workload=workload,
        seed=seed,
        profile=profile,
        backend_spec=spec,
        backend_options=options,
        backend=backend,
        meter_specs=tuple(meter_spec(place(text)) for text in texts if text != "none"),
        loads=tuple(_loads(workload, request.concurrency)),
        serve=serve,
    )


def _profile(name: str | None) -> MachineProfile | None:
    if name is None:
        return None
    return detect_cpu(date.today().isoformat()) if name == LOCAL_CPU else load_profile(name)


def _loads(workload: Workload, concurrency: tuple[int, ...] | None) -> Iterator[Load]:
    arrivals = workload.arrivals
    if isinstance(arrivals, ClosedLoop):
        for users in concurrency or arrivals.concurrency:
            yield Load(concurrency=users)
        return
    if concurrency is not None:
        raise UsageError(
            f"--concurrency is for closed loops; workload {workload.name!r} has "
            f"{arrivals.kind} arrivals: set arrivals.max_concurrency in its file"
        )
    if isinstance(arrivals, Schedule):
        # Its name among operating points, not what is sent: six digits are enough.
        mean_per_s = float(f"{arrivals.mean_rate_per_s:.6g}")
        yield Load(concurrency=arrivals.max_concurrency, rate_per_s=mean_per_s)
        return
    for rate in arrivals.rate_per_s:
        yield Load(concurrency=arrivals.max_concurrency, rate_per_s=rate)
