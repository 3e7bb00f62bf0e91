"""The seams: what a backend, a meter and a store must do, and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from wattbench.core.energy import EnergyDomain, FloatArray
    from wattbench.core.load import InferenceRequest, RequestResult, TokenChunk
    from wattbench.core.run import EngineInfo, Event, Json, RunRecord, RunStatus, ServerState


class Backend(Protocol):
    """An engine that turns requests into tokens.

    It times nothing; one with a socket passes on when bytes arrived (``TokenChunk.arrived_s``).
    """

    async def open(self) -> EngineInfo:
        """Start or reach the engine.

        Raises:
            BackendError: If it cannot be reached, loaded or understood.
        """
        ...

    def generate(self, request: InferenceRequest) -> AsyncIterator[TokenChunk]:
        """Answer one request; many run at once.

        Yields chunks as the engine produces them; the last one carries ``usage``.

        Raises:
            BackendError: If the request fails; the runner records it and goes on.
            EngineDied: If no further request can succeed.
        """
        ...

    async def close(self) -> None:
        """Stop or leave the engine; called once, also after a failure."""
        ...


@runtime_checkable
class ObservableBackend(Protocol):
    """A backend whose engine tells how busy it is."""

    async def state(self) -> ServerState | None:
        """The state now, None if it cannot be had; never raises."""
        ...


@runtime_checkable
class PreparingBackend(Protocol):
    """A backend that can do the work of a request that needs no engine before it is due."""

    def prepare(self, request: InferenceRequest) -> None:
        """Make what ``generate`` will send, so that it is not made on the request's time."""
        ...


class TraceSink(Protocol):
    """Where a meter's samples go, and the clock that stamps them. Safe to call in any thread."""

    def now_s(self) -> float:
        """The run clock [s]."""
        ...

    def declare(self, domain: EnergyDomain) -> None:
        """Announce a domain before its first sample."""
        ...

    def sample(
        self,
        domain: str,
        time_s: Sequence[float] | FloatArray,
        value: Sequence[float] | FloatArray,
    ) -> None:
        """Keep samples of a domain, in order of time.

        Args:
            domain: Name of a declared domain.
            time_s: Shape (n,), when each was taken [s, run clock].
            value: Shape (n,), power [W] or counter [J]; NaN for a failed read.
        """
        ...

    def note(self, kind: str, **detail: Json) -> None:
        """Keep an event that a meter saw: ``throttled``, ``device_missing``, ``sensor_clock``."""
        ...


class Meter(Protocol):
    """A source of power or energy samples."""

    async def start(self, sink: TraceSink) -> None:
        """Declare the domains and let samples flow until ``stop``.

        Raises:
            MeterError: If the source cannot be opened.
        """
        ...

    async def stop(self) -> None:
        """Take a last sample and end; called once after ``start``.

        Raises:
            MeterError: If the source failed since ``start``; what came before is kept.
        """
        ...


class RecordSink(Protocol):
    """Where a run is written while it goes on. Safe to call in any thread."""

    def begin(self, record: RunRecord) -> None:
        """Open a run; returns once it is durable."""
        ...

    def request(self, run_id: str, result: RequestResult) -> None:
        """Keep one finished request."""
        ...

    def domain(self, run_id: str, domain: EnergyDomain) -> None:
        """Keep the description of a domain."""
        ...

    def samples(self, run_id: str, domain: str, time_s: FloatArray, value: FloatArray) -> None:
        """Keep a block of samples of a domain."""
        ...

    def event(self, run_id: str, event: Event) -> None:
        """Keep an event."""
        ...

    def finish(self, run_id: str, status: RunStatus, error_text: str | None) -> None:
        """Close a run; returns once everything is durable.

        Raises:
            StoreError: If anything could not be written.
        """
        ...
