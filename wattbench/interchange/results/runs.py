"""A measurement of another tool as a run of the store."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wattbench.core.load import RequestResult
from wattbench.core.run import EngineInfo, Event, Json, ReportedFigure, RunRecord
from wattbench.interchange.results.document import Document
from wattbench.interchange.results.measurement import Measurement

Alignment = Literal["aligned", "enveloped", "unaligned"]
BACKEND = "import"
"""What stands as backend of an imported run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """A run that another tool carried out.

    Attributes:
        record: The run; equal files give equal ids, so that twice is once.
        measurement: What the files say.
        alignment: ``aligned`` if its times are absolute, so that a power log can be joined.
        events: Start and end of the tool's measured phase.
    """

    record: RunRecord
    measurement: Measurement
    alignment: Alignment
    events: tuple[Event, ...]
    origin_s: float

    def requests(self) -> Iterator[RequestResult]:
        """The requests, on the run clock."""
        for result in self.measurement.requests() if self.measurement.requests else ():
            yield moved(result, -self.origin_s)

    @property
    def reported(self) -> tuple[ReportedFigure, ...]:
        """Figures that the tool states."""
        return self.measurement.reported


def imported_runs(
    measurements: Sequence[Measurement],
    documents: Sequence[Document],
    *,
    now_unix_s: float,
    hardware: Mapping[str, Json],
    environment: Mapping[str, Json],
    tag: str | None = None,
) -> list[ImportedRun]:
    """The runs of files that belong together.

    Args:
        measurements: What they say.
        documents: The files.
        now_unix_s: When they are imported [Unix s]; stands for the start of a run that tells none.
        hardware: Machine profile, empty if nobody named one.
        environment: Machine and software that imports.
        tag: The user's own mark.
    """
    content = "".join(sorted(document.sha256 for document in documents))
    batch_id = f"import-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    runs = []
    for index, measurement in enumerate(measurements):
        window_s = measurement.window_s or (0.0, 0.0)
        unix = measurement.clock == "unix"
        alignment: Alignment = "aligned" if unix and measurement.window_s else "unaligned"
        record = RunRecord(
            run_id=f"{batch_id}-{index:04d}",
            batch_id=batch_id,
            point_index=index,
            repeat_index=0,
            started_unix_s=window_s[0] if alignment == "aligned" else now_unix_s,
            virtual_time=False,
            workload={"name": measurement.tool, **measurement.workload},
            backend=_backend(measurement, documents, alignment),
            engine=_engine(measurement),
            hardware=dict(hardware) or _named(measurement),
            meters=(),
            operating_point=dict(measurement.operating_point),
            seed=0,
            environment=dict(environment),
            tag=tag,
        )
        run = ImportedRun(
            record=record,
            measurement=measurement,
            alignment=alignment,
            events=_events(measurement, alignment),
            origin_s=window_s[0],
        )
        runs.append(run)
    return runs


def moved(result: RequestResult, by_s: float) -> RequestResult:
    """A request on another clock.

    Args:
        result: The request.
        by_s: What is added to its times [s].
    """
    return dataclasses.replace(
        result,
        queued_s=result.queued_s + by_s,
        sent_s=result.sent_s + by_s,
        end_s=result.end_s + by_s,
        chunk_s=result.chunk_s + by_s,
    )


def _backend(
    measurement: Measurement, documents: Sequence[Document], alignment: Alignment
) -> dict[str, Json]:
    return {
        "name": BACKEND,
        "tool": measurement.tool,
        "tool_version": measurement.tool_version,
        "layout": measurement.layout,
        "alignment": alignment,
        "files": [{"name": d.path.name, "sha256": d.sha256} for d in documents],
        "device_count": measurement.device_count,
        "boundary": measurement.boundary,
        "energy_method": measurement.energy_method,
    }


def _engine(measurement: Measurement) -> EngineInfo:
    return EngineInfo(
        model=measurement.model or "not told",
        engine=measurement.engine or "not told",
        tokens_source="usage",
        mode=measurement.mode,
    )


def _named(measurement: Measurement) -> dict[str, Json]:
    return {"name": measurement.hardware} if measurement.hardware else {}


def _events(measurement: Measurement, alignment: Alignment) -> tuple[Event, ...]:
    if measurement.window_s is None:
        return ()
    start_s, end_s = measurement.window_s
    events = [
        Event(kind="measure_start", time_s=0.0),
        Event(kind="measure_end", time_s=end_s - start_s),
    ]
    if alignment == "aligned":
        # A tool that tells Unix seconds keeps its own clock: the two agree by definition.
        events.insert(0, Event(kind="clock_anchor", time_s=0.0, detail={"unix_s": start_s}))
    return tuple(events)
