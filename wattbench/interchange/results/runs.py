"""A measurement of another tool as a run of the store."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wattbench.core.load import RequestResult
from wattbench.core.run import EngineInfo, Event, Json, ReportedFigure, RunRecord, stated
from wattbench.interchange.results.document import Document
from wattbench.interchange.results.measurement import Measurement
from wattbench.interchange.results.secrets import measurement_without_secrets

Alignment = Literal["aligned", "enveloped", "unaligned"]
SLACK_S = 2.0
"""A tool may round the ends of its window by this [s]."""
BACKEND = "import"
"""What stands as backend of an imported run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """A run that another tool carried out.

    Attributes:
        record: The run; equal files give equal ids, so that twice is once, also in one folder.
        measurement: What the files say.
        alignment: ``aligned`` if its times are absolute, so that a power log can be joined.
        events: Start and end of the tool's measured phase.
        origin_s: Origin of the run clock, on the clock of the measurement [s].
    """

    record: RunRecord
    measurement: Measurement
    alignment: Alignment
    events: tuple[Event, ...]
    origin_s: float

    def requests(self) -> Iterator[RequestResult]:
        """The requests, on the run clock."""
        if self.measurement.requests is not None and self.alignment != "enveloped":
            for result in self.measurement.requests():
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
    content = "".join(sorted({document.sha256 for document in documents}))
    batch_id = f"import-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    runs = []
    for index, told in zip(_indices(measurements, documents), measurements, strict=True):
        measurement = measurement_without_secrets(told)
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


def _indices(measurements: Sequence[Measurement], documents: Sequence[Document]) -> Iterator[int]:
    """A number for each measurement; copies of one file say the same measurements."""
    sha256 = {document.path.name: document.sha256 for document in documents}
    known: dict[tuple[tuple[str, ...], int], int] = {}
    earlier: Counter[tuple[str, ...]] = Counter()
    for measurement in measurements:
        content = tuple(sorted(sha256[name] for name in measurement.files))
        place = content, earlier[measurement.files]
        earlier[measurement.files] += 1
        yield known.setdefault(place, len(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The life of a program that was wrapped.

    Attributes:
        start_s: When it was started [s, run clock].
        end_s: When it had ended [s, run clock].
        origin_unix_s: Origin of the run clock [Unix s].
        origin_monotonic_s: Origin of the run clock on the monotonic clock of the host [s].
    """

    start_s: float
    end_s: float
    origin_unix_s: float
    origin_monotonic_s: float

    def holds(self, measurement: Measurement) -> bool:
        """Whether a measurement can have been made by the program: its window lies inside."""
        origin_s = self._origin_s(measurement)
        if origin_s is None or measurement.window_s is None:
            duration_s = stated(measurement.reported, "duration_s") or 0.0
            return duration_s <= self.end_s - self.start_s + SLACK_S
        start_s, end_s = (time_s - origin_s for time_s in measurement.window_s)
        return self.start_s - SLACK_S <= start_s and end_s <= self.end_s + SLACK_S

    def joined(
        self,
        record: RunRecord,
        measurement: Measurement,
        documents: Sequence[Document],
        *,
        alone: bool,
    ) -> ImportedRun:
        """The run of the program, with what its files say on the clock of the run.

        Without times of its own the tool's whole life is its window: the run is *enveloped*.

        Args:
            record: The run as it was begun.
            measurement: What the files say.
            documents: The files.
            alone: Whether this is the program's only load. Of several without times of their
                own none has a window: the joules of the program's life cannot be divided.
        """
        measurement = measurement_without_secrets(measurement)
        origin_s = self._origin_s(measurement)
        window = window_events(self.start_s, self.end_s)
        if not alone:
            window = (Event(kind="shared_envelope", time_s=self.start_s),)
        alignment: Alignment = "enveloped"
        if origin_s is not None and measurement.window_s is not None:
            start_s, end_s = measurement.window_s
            window, alignment = window_events(start_s - origin_s, end_s - origin_s), "aligned"
        backend = _backend(measurement, documents, alignment)
        return ImportedRun(
            record=dataclasses.replace(
                record,
                workload={"name": measurement.tool, **measurement.workload},
                backend=backend | dict(record.backend) | {"alignment": alignment},
                engine=dataclasses.replace(
                    _engine(measurement), on_client_host=record.engine.on_client_host
                ),
                hardware=dict(record.hardware) or _named(measurement),
                operating_point=dict(measurement.operating_point),
            ),
            measurement=measurement,
            alignment=alignment,
            events=(*window, *_refusals(measurement)),
            origin_s=origin_s or 0.0,
        )

    def _origin_s(self, measurement: Measurement) -> float | None:
        """Origin of the run clock on the clock of a measurement [s]; None if it has none."""
        origins = {"unix": self.origin_unix_s, "monotonic": self.origin_monotonic_s}
        return None if measurement.clock is None else origins[measurement.clock]


def window_events(start_s: float, end_s: float) -> tuple[Event, ...]:
    """The measured phase of a tool as events.

    Args:
        start_s: Its start [s, run clock].
        end_s: Its end [s, run clock].
    """
    return (
        Event(kind="measure_start", time_s=start_s),
        Event(kind="measure_end", time_s=end_s),
    )


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
        "files": [
            {"name": d.path.name, "sha256": d.sha256}
            for d in documents
            if d.path.name in measurement.files or not measurement.files
        ],
        "device_count": measurement.device_count,
        "boundary": measurement.boundary,
        **({"gaps": "spread"} if measurement.gaps_spread else {}),
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
    return (*_window(measurement, alignment), *_refusals(measurement))


def _refusals(measurement: Measurement) -> Iterator[Event]:
    """What could not be taken travels with the run: an audit must know of it."""
    for note in measurement.notes:
        if note.fate == "refused":
            detail: dict[str, Json] = {"field": note.field, "why": note.why}
            detail |= {} if note.claimed else {"claimed": False}
            yield Event(kind="refused", time_s=0.0, detail=detail)


def _window(measurement: Measurement, alignment: Alignment) -> tuple[Event, ...]:
    if measurement.window_s is None:
        return ()
    start_s, end_s = measurement.window_s
    events = window_events(0.0, end_s - start_s)
    if alignment != "aligned":
        return events
    # A tool that tells Unix seconds keeps its own clock: the two agree by definition.
    return (Event(kind="clock_anchor", time_s=0.0, detail={"unix_s": start_s}), *events)
