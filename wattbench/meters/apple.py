"""Energy counters of Apple silicon, through the optional package ``zeus-apple-silicon``.

The counters are those of the "Energy Model" of macOS: CPU, GPU, neural engine and DRAM, in
millijoules. The chip computes them from activity, voltage and frequency rather than measure a
current; Apple calls them estimates and warns against comparing devices. They leave out display,
storage and power supply. What there is of them is summed as ``soc:0``, which is the headline, and
each is a part of it: the neural engine's stands still while it is not used.

Prior on readings, an assumption: a gain within ± 20 %; nothing is published.

``recording=FILE`` replays a record instead of reading the machine:

    {"chip": "Apple M2", "samples": [{"time_s": 0.0, "cpu_total_mj": 5, "gpu_mj": 7}, …]}

Source: README of zeus-apple-silicon 1.1 (fields, units, cumulative energy); macOS manual page
powermetrics(1), on its power figures.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.hardware.detect import cpu_title
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.plugins import PluginContext, option

PACKAGE = "zeus_apple_silicon"
INSTALL = "pip install -U 'wattbench[apple]'"
GAIN = 0.2
FIELDS = {"cpu": "cpu_total_mj", "gpu": "gpu_mj", "ane": "ane_mj", "dram": "dram_mj"}
"""Parts of the chip, and the field of each. The GPU's SRAM is left out: whether ``gpu_mj`` holds
it is not documented."""
TOTAL = "soc:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppleOptions:
    """Options of ``--meter apple``."""

    period_s: float | None = option(None, "time between two reads [s]; none: found out")
    recording: str | None = option(None, "JSON record to replay; none: this Mac")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.period_s is not None and not 0.005 <= self.period_s <= 60.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.005 to 60 s")


class RecordedAppleMonitor:
    """Answers as ``zeus_apple_silicon.AppleEnergyMonitor`` did while a record was made.

    Args:
        record: The record; its first sample is shown from now on, each other when its time comes.

    Raises:
        MeterError: If the record has no samples.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        samples = record.get("samples")
        if not isinstance(samples, list) or not samples:
            raise MeterError("the record has no samples", "It needs a list called samples.")
        self._samples = sorted(samples, key=lambda sample: float(sample["time_s"]))
        self._begin_s = time.monotonic() - float(self._samples[0]["time_s"])

    def get_cumulative_energy(self) -> Any:
        """The sample that was current at this time of the record.

        Raises:
            RuntimeError: If the record is over.
        """
        elapsed_s = time.monotonic() - self._begin_s
        if elapsed_s > float(self._samples[-1]["time_s"]):
            raise RuntimeError("the record is over")
        past = [sample for sample in self._samples if float(sample["time_s"]) <= elapsed_s]
        return SimpleNamespace(**past[-1])


class AppleMeter(PolledMeter):
    """Reads the energy counters of Apple silicon (macOS, package zeus-apple-silicon)."""

    Options = AppleOptions

    def __init__(self, options: AppleOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Open the counters of this Mac, or a record.

        Raises:
            MeterError: If there are none, with the way out.
        """
        if self._options.recording is not None:
            record = _record(Path(self._options.recording))
            return _Counters(RecordedAppleMonitor(record), str(record.get("chip", "recorded")))
        if sys.platform != "darwin":
            raise MeterError("this is not a Mac")
        try:
            monitor = importlib.import_module(PACKAGE).AppleEnergyMonitor()
        except (ImportError, AttributeError, RuntimeError) as error:
            raise MeterError(f"{PACKAGE} cannot be used: {error}", INSTALL) from error
        return _Counters(monitor, cpu_title())


class _Counters(Source):
    updates_together = True

    def __init__(self, monitor: Any, chip: str) -> None:
        read = getattr(monitor, "get_cumulative_energy", None)
        if read is None:
            raise MeterError(f"{PACKAGE} has no get_cumulative_energy: it is too old", INSTALL)
        self._read: Callable[[], Any] = read
        shown = self._shown()
        self._parts = [part for part, field in FIELDS.items() if _number(shown, field) is not None]
        if not self._parts:
            raise MeterError(f"{PACKAGE} knows no energy counter of {chip}", INSTALL)
        total = _domain(TOTAL, chip, f"sum of {', '.join(self._parts)}", None)
        parts = [_domain(f"{p}:0", chip, FIELDS[p], TOTAL) for p in self._parts]
        self.domains = (total, *parts)

    def _shown(self) -> Any:
        try:
            return self._read()
        except Exception as error:  # native code; what it raises is documented nowhere
            raise MeterError(f"{PACKAGE} gives no energy any more: {error}") from error

    def read(self, now_s: Clock) -> list[Reading]:
        before_s = now_s()
        shown = self._shown()
        time_s = (before_s + now_s()) / 2
        joules = {part: _number(shown, FIELDS[part]) for part in self._parts}
        found = [
            Reading(f"{part}:0", time_s, value)
            for part, value in joules.items()
            if value is not None
        ]
        if len(found) == len(joules):  # a sum of some of its parts would be another counter
            found.append(Reading(TOTAL, time_s, sum(reading.value for reading in found)))
        return found


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MeterError(f"recording={str(path)!r} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise MeterError(f"recording={str(path)!r} is no JSON object")
    return record


def _number(shown: Any, field: str) -> float | None:
    """One counter [J], None where the chip has none."""
    millijoules = getattr(shown, field, None)
    return None if millijoules is None else float(millijoules) * 1e-3


def _domain(name: str, chip: str, what: str, parent: str | None) -> EnergyDomain:
    return EnergyDomain(
        name=name,
        meter="apple",
        quantity="energy_counter",
        kind="counter",
        boundary="chip",
        devices=(chip if parent is None else f"{chip}/{name.partition(':')[0]}",),
        parent=parent,
        method=f"energy model of macOS, estimated by the chip: {what}",
        gain_half_width_fraction=GAIN,
        on_client_host=True,
    )
