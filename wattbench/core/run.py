"""Records about a run: one repeat of one operating point, as it was carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from wattbench.core.energy import Trace
from wattbench.core.load import RequestResult, TokenSource

RunStatus = Literal["running", "completed", "failed", "interrupted"]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How the engine computes; None means that the engine does not tell.

    Attributes:
        precision: Of the weights if they are quantised, else of the arithmetic.
        kv_precision: Of keys and values.
        speculative: Where guessed tokens come from and how many; ``none`` without any.
        prefix_cache: Whether equal beginnings of prompts are computed once.
        adapter: Adapter on top of the model.
        power_limit_watts: Power limit that the user set [W].
        clock_hz: Clock that the user set [Hz].
    """

    precision: str | None = None
    kv_precision: str | None = None
    speculative: str | None = None
    prefix_cache: bool | None = None
    adapter: str | None = None
    power_limit_watts: float | None = None
    clock_hz: float | None = None

    @property
    def text(self) -> str:
        """What tells one mode from another, in a few words."""
        parts = [self.precision or "precision not told"]
        if self.kv_precision:
            parts.append(f"KV {self.kv_precision}")
        if self.speculates:
            parts.append(str(self.speculative))
        if self.prefix_cache:
            parts.append("prefix cache")
        if self.adapter:
            parts.append(f"adapter {self.adapter}")
        return ", ".join(parts)

    @property
    def speculates(self) -> bool:
        """Whether tokens are guessed ahead, as far as is known."""
        return self.speculative not in (None, "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What a backend says about itself once it is open.

    Attributes:
        model: Name of the model served.
        engine: Name and version of the engine.
        tokens_source: Who counts answer tokens.
        mode: How it computes.
        random_weights: True if answers mean nothing because the weights are random.
        on_client_host: Whether the machine that runs wattbench does the work; None if unknown.
        process_ids: Processes of this machine that do the work; empty if elsewhere.
        detail: Anything else worth keeping with the run, as JSON.
    """

    model: str
    engine: str
    tokens_source: TokenSource
    mode: Mode
    random_weights: bool = False
    on_client_host: bool | None = None
    process_ids: tuple[int, ...] = ()
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What was to be run, resolved as it was executed.

    Attributes:
        run_id: Unique name.
        batch_id: Common to all runs of one ``wattbench run``.
        point_index: Number of the operating point within the batch.
        repeat_index: Number of the repeat of that point, from 0.
        started_unix_s: Wall clock at the origin of the run clock [s].
        virtual_time: Whether the run clock is simulated.
        workload: The workload as executed.
        backend: Name and options.
        engine: What the opened backend said about itself.
        hardware: Machine profile as used.
        meters: Names and options.
        operating_point: The load, for example ``{"concurrency": 4}``.
        seed: Seed of the run's randomness.
        environment: Machine, software and versions.
        devices: Devices or domains whose energy is charged to the load; None for ``auto``.
        roles: Devices by what they do, such as ``prefill`` and ``decode`` of a split deployment.
        tag: The user's own mark.
    """

    run_id: str
    batch_id: str
    point_index: int
    repeat_index: int
    started_unix_s: float
    virtual_time: bool
    workload: Mapping[str, Json]
    backend: Mapping[str, Json]
    engine: EngineInfo
    hardware: Mapping[str, Json]
    meters: tuple[Mapping[str, Json], ...]
    operating_point: Mapping[str, Json]
    seed: int
    environment: Mapping[str, Json]
    devices: tuple[str, ...] | None = None
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a server says about its own state at one instant; None where it does not tell.

    Attributes:
        requests_running_count: Requests that it works on.
        requests_waiting_count: Requests that it has accepted and not begun.
        kv_cache_used_fraction: Part of its KV cache that is in use.
        prefix_cache_hit_fraction: Prompt tokens that a prefix cache served, of those looked up.
        spec_decode_acceptance_fraction: Draft tokens that were accepted, of those proposed.
    """

    requests_running_count: float | None = None
    requests_waiting_count: float | None = None
    kv_cache_used_fraction: float | None = None
    prefix_cache_hit_fraction: float | None = None
    spec_decode_acceptance_fraction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run at an instant of its clock.

    Attributes:
        kind: ``idle_start``, ``idle_end``, ``warmup_start``, ``measure_start``,
            ``measure_end``, ``drain_end``, ``clock_anchor``, ``loop_lag``, ``meter_failed``,
            ``server_state``, ``refused``, …
        time_s: When [s, run clock].
        detail: What else is known, as JSON.
    """

    kind: str
    time_s: float
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFigure:
    """A figure that another tool states about a run; wattbench did not compute it.

    Attributes:
        metric: What it is, by this project's name, which ends in the unit: ``ttft_s``,
            ``output_tokens_per_s``, ``output_tokens_count``, ``energy_joules``, ``duration_s``.
        statistic: ``total`` for a figure of the whole run; else ``mean``, ``sd``, ``min``,
            ``max``, a percentile such as ``p50`` or ``p99.9``, or ``device:ID`` of one device.
        value: In that unit.
        field: Where it stood in the file.
    """

    metric: str
    statistic: str
    value: float
    field: str


READ_AS_ZERO = "a failed read stored as zero"
"""Why a stated energy or power of zero or less was refused when its file was read."""
NOT_A_NUMBER = "not a number"
"""Why a figure was refused that stands as ``nan`` or ``inf``."""


def stated(
    figures: Sequence[ReportedFigure], metric: str, statistic: str = "total"
) -> float | None:
    """The figure of a metric that a tool states, None if it states none.

    Args:
        figures: What the tool states.
        metric: Name of the metric.
        statistic: Which statistic of it.
    """
    found = (f.value for f in figures if (f.metric, f.statistic) == (metric, statistic))
    return next(found, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRun:
    """A run as it lies in the store: facts only.

    Attributes:
        record: What was to be run.
        status: How it ended.
        error_text: Why, if it did not end well.
        requests: What was asked and answered.
        traces: Samples of the meters.
        events: What else happened.
        reported: Figures that another tool states; only of an imported run.
    """

    record: RunRecord
    status: RunStatus
    error_text: str | None
    requests: tuple[RequestResult, ...]
    traces: tuple[Trace, ...]
    events: tuple[Event, ...]
    reported: tuple[ReportedFigure, ...] = ()

    def event_time_s(self, kind: str) -> float | None:
        """Time of the first event of a kind [s, run clock], None if there is none."""
        return next((event.time_s for event in self.events if event.kind == kind), None)
