"""What formats of other tools have in common: their window, counts, and energy of boards in it.

Other load generators count whole requests from the first one sent to the last answer, ramp and
drain included, where wattbench counts what happened inside its steady window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wattbench.core.energy import EnergyMeasurement, FloatArray, Kind, Unmeasured
from wattbench.core.errors import UsageError
from wattbench.core.load import RequestResult
from wattbench.core.run import RawRun
from wattbench.metrics import RunFacts, charged_domains, latencies_s
from wattbench.metrics.domain_energy import measured_energy
from wattbench.results import evaluate

MEASURED: tuple[Kind, ...] = ("counter", "integrated")
"""Kinds of energy that another tool may take for measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Whole requests and their tokens.

    Attributes:
        start_s: First request sent [s, run clock].
        end_s: Last answer or failure [s, run clock].
        completed: Successful requests.
        failed: Others.
        input_tokens: Prompt tokens of successes, None if one was not counted.
        output_tokens: Answer tokens of successes, None if one was not counted.
    """

    start_s: float
    end_s: float
    completed: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None

    @property
    def duration_s(self) -> float:
        """From the first request to the last answer [s]."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEnergy:
    """Energy of one board, or of boards that are measured as one.

    Attributes:
        devices: What it covers.
        meter: Which meter.
        method: How the samples come about.
        energy_joules: Over the window [J].
        sample_count: Samples inside the window.
        largest_gap_s: Longest time between two samples of the window and its neighbours [s].
    """

    devices: tuple[str, ...]
    meter: str
    method: str
    energy_joules: float
    sample_count: int
    largest_gap_s: float


def client_runs(runs: Sequence[RawRun], form: str) -> Iterator[RunFacts]:
    """Runs of which there is a record of each request, a repeat after the other.

    Raises:
        UsageError: If there is none.
    """
    found = [run for point in evaluate(runs) for run in point.facts.runs if run.measured]
    if not found:
        raise UsageError(
            f"{form} needs records of requests, and no selected run has a successful one; "
            f"choose other runs, or --format json for what is known of these"
        )
    yield from found


def counted(requests: Sequence[RequestResult]) -> Counts:
    """Count requests, of which there is one at least."""
    good = [request for request in requests if request.succeeded]
    return Counts(
        start_s=min(request.sent_s for request in requests),
        end_s=max(request.end_s for request in requests),
        completed=len(good),
        failed=len(requests) - len(good),
        input_tokens=_sum([request.input_tokens for request in good]),
        output_tokens=_sum([request.output_tokens for request in good]),
    )


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def latency_s(run: RunFacts, name: str) -> FloatArray:
    """Values of a latency over the measured requests that succeeded, shape (n,) [s]."""
    return latencies_s(name, run.raw, run.measured)


def charged_devices(run: RunFacts) -> tuple[str, ...]:
    """Devices whose energy is charged to the load; empty if no meter tells of one."""
    charged = charged_domains(run.raw, run.domains)
    return tuple(dict.fromkeys(device for one in charged for device in one.domain.devices))


def boards(run: RunFacts, start_s: float, end_s: float) -> list[BoardEnergy] | Unmeasured:
    """Measured energy of the boards that work, between two instants, or why there is none.

    Args:
        run: The run.
        start_s: Window start [s, run clock].
        end_s: Window end [s, run clock].
    """
    charged = charged_domains(run.raw, run.domains)
    if not charged:
        return Unmeasured(reason="no_meter", message="no meter measured the devices that work")
    found = []
    for one in charged:
        domain = one.domain
        trace = next((t for t in run.raw.traces if t.domain.name == domain.name), None)
        if domain.boundary != "board" or domain.kind not in MEASURED or trace is None:
            what = f"{domain.name} is {domain.kind} at the boundary {domain.boundary}"
            return Unmeasured(reason="not_a_measured_board", message=what)
        energy = measured_energy(trace, start_s, end_s)
        if not isinstance(energy, EnergyMeasurement):
            return energy
        first = max(0, int(np.searchsorted(trace.time_s, start_s, "right")) - 1)
        last = int(np.searchsorted(trace.time_s, end_s, "left"))
        inside = (trace.time_s >= start_s) & (trace.time_s <= end_s)
        found.append(
            BoardEnergy(
                devices=domain.devices,
                meter=domain.meter,
                method=domain.method,
                energy_joules=energy.energy_joules,
                sample_count=int(inside.sum()),
                largest_gap_s=float(np.diff(trace.time_s[first : last + 1]).max(initial=0.0)),
            )
        )
    return found
