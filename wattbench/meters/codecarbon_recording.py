"""A recorded tracker of codecarbon: it hands out the energies of a file, in time.

The file is JSON. A trace repeats when it is over, and its energies go on. Everything but ``trace``
may be left out.

    {"version": "3.3.2", "cpu_model": "AMD EPYC", "hardware": ["RAM()", "CPU(Cpu Load)"],
     "ram_watts": 20.0,
     "fails_after_s": null,                # from then on it logs its error and hands out nothing
     "trace": {"time_s": […], "cpu_energy_kwh": […], "ram_energy_kwh": […]}}
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wattbench.meters.recordings import opened, played


class RecordedTracker:
    """What ``codecarbon.OfflineEmissionsTracker`` is to a machine, to a recording.

    Args:
        recording: What the file holds.
        output_handlers: Objects whose ``out`` is handed the energies so far, as codecarbon does.
    """

    def __init__(self, recording: dict[str, Any], output_handlers: Sequence[Any]) -> None:
        self._recording = recording
        self._handlers = output_handlers
        self._origin_s = 0.0
        self._hardware = recording.get("hardware", ())

    @classmethod
    def load(cls, path: Path, output_handlers: Sequence[Any]) -> RecordedTracker:
        """Open a recording.

        Raises:
            UsageError: If the file cannot be read or is no recording.
        """
        with opened(path, "codecarbon") as recording:
            columns = ("time_s", "cpu_energy_kwh", "ram_energy_kwh")
            rows = {name: len(recording["trace"][name]) for name in columns}
            if len(set(rows.values())) != 1 or not rows["time_s"]:
                raise ValueError(f"columns of the trace differ in length: {rows}")
        return cls(recording, output_handlers)

    @property
    def version(self) -> str:
        """Version of the codecarbon that was recorded."""
        return str(self._recording.get("version", "recorded"))

    def start(self) -> None:
        self._origin_s = time.monotonic()

    def flush(self) -> None:  # codecarbon swallows its own errors, and then calls no handler
        since_s, trace = time.monotonic() - self._origin_s, self._recording["trace"]
        if since_s > (self._recording.get("fails_after_s") or float("inf")):
            return
        row, lap = played(trace["time_s"], since_s)
        energies = {
            part: trace[f"{part}_kwh"][row]
            + lap * (trace[f"{part}_kwh"][-1] - trace[f"{part}_kwh"][0])
            for part in ("cpu_energy", "ram_energy")
        }
        total = SimpleNamespace(
            cpu_model=self._recording.get("cpu_model"),
            ram_power=self._recording.get("ram_watts", 20.0),
            **energies,
        )
        for handler in self._handlers:
            handler.out(total, total)

    def stop(self) -> None:
        self.flush()
