"""What a result file of another tool says, in this project's names and units.

One file may hold several loads, and one load may lie in several files. Whatever the format, a
reader gives measurements; what becomes of them (a run in the store, an audit) is not its concern.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from wattbench.core.energy import Boundary
from wattbench.core.load import RequestResult
from wattbench.core.run import Json, Mode, ReportedFigure

Clock = Literal["unix", "monotonic"]
Fate = Literal["taken", "converted", "refused", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What became of a field of a file.

    Attributes:
        fate: ``taken`` as it stands, ``converted`` to another unit or meaning, ``refused`` as
            meaningless, or only ``kept`` with the document because it is not known.
        field: Name or path of the field.
        why: What was converted to what, or why it was refused; empty where there is nothing to say.
        claimed: Whether the file holds the field for a valid figure; one that says itself that it
            is not, or not a measured one, does not contradict itself.
    """

    fate: Fate
    field: str
    why: str = ""
    claimed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured load.

    Attributes:
        tool: Who measured: ``vllm-bench``, ``aiperf``, …
        tool_version: As the file tells it.
        layout: Which form of the tool's files this is, such as ``detailed``.
        files: Names of the files that say it, of those read together; empty: all of them.
        model: Name of the model, None if the file does not tell.
        engine: Name and version of what was measured, None if the file does not tell.
        mode: How the engine computed.
        hardware: Name of the machine, as the file tells it.
        device_count: Devices that worked, None if the file does not tell.
        operating_point: The load, such as ``{"concurrency": 4}``; a swept setting as well.
        workload: What was asked for, beside its name.
        clock: What the times of window and requests are on: Unix time, or the monotonic clock of
            the host; None: from the start of the window, at an instant that nobody kept.
        window_s: Start and end of the measured phase on that clock [s]; None if unknown.
        requests: Gives the requests anew at each call, in the order of the file, with times on
            that clock; None if the file holds only totals. Warm-up is marked by its phase.
        gaps_spread: Whether chunks were spread evenly between first and last, so that a gap between
            two is none that was measured.
        reported: Figures that the tool computed.
        boundary: What a reported energy includes; None if there is none.
        energy_method: How a reported energy came about, for a reader.
        notes: What became of each field.
    """

    tool: str
    layout: str
    files: tuple[str, ...] = ()
    tool_version: str | None = None
    model: str | None = None
    engine: str | None = None
    mode: Mode = field(default_factory=Mode)
    hardware: str | None = None
    device_count: int | None = None
    operating_point: Mapping[str, Json] = field(default_factory=dict)
    workload: Mapping[str, Json] = field(default_factory=dict)
    clock: Clock | None = None
    window_s: tuple[float, float] | None = None
    requests: Callable[[], Iterator[RequestResult]] | None = None
    gaps_spread: bool = False
    reported: tuple[ReportedFigure, ...] = ()
    boundary: Boundary | None = None
    energy_method: str = ""
    notes: tuple[Note, ...] = ()
