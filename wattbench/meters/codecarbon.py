"""The last resort: what the model of codecarbon says of CPU and memory. Every joule is modelled.

    cpu_package:0   P = TDP · (0.1 + 0.9 · load³) over the load of the whole machine; the TDP is
                    looked up by the CPU's name, else guessed (4 W a thread, or 85 W)
    ram:0           a constant by the size of the memory, 5 W a module that it guesses

Its numbers look the same whether there is a meter behind them or not. A Xeon that it did not know
got 8 W for the CPU and a flat 20 W for the memory; in a virtual machine the load is that of the
guest and the TDP that of the host. So the priors are wide, both uniform: a gain of ± 67 % on the
CPU, as for ``cpu-load``, and on the memory an offset of ± all of the constant. Where codecarbon
reads RAPL, the method says so, and the joules still count as modelled: ``rapl`` reads it better.
Its GPUs are left out for ``nvml`` and ``amdsmi``.

The tracker works offline and writes no file; of its settings and those of its environment none
reaches it. The energies so far come through an output handler, at each of our reads.

Source: codecarbon 3.0.0 and 3.3.2, ``external/hardware.py``, ``external/ram.py`` and
``emissions_tracker.py``.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.hardware.detect import cpu_title
from wattbench.meters.codecarbon_recording import RecordedTracker
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.plugins import PluginContext, option

CPU, RAM = "cpu_package:0", "ram:0"
GAIN = 0.67
JOULES_PER_KWH = 3.6e6
NEVER_S = 1e7
"""How often codecarbon measures by itself [s]: we do it."""
FIRST_S = 0.1
"""Time from its start to its first energy [s]; it ignores reads within half of that."""
INSTEAD = "--meter cpu-load, which models the CPU without a library."
INSTALL = f"pip install 'wattbench[codecarbon]', or {INSTEAD}"
SETTINGS: dict[str, Any] = {
    "country_iso_code": "FRA",
    "cloud_provider": None,
    "cloud_region": None,
    "region": None,
    "electricitymaps_api_token": "",
    "emissions_endpoint": None,
    "output_dir": ".",
    "output_methods": [],
    "log_level": "critical",
    "tracking_mode": "machine",
    "gpu_ids": [],
    "force_cpu_power": None,
    "force_ram_power": None,
    "force_mode_cpu_load": False,
    "rapl_include_dram": False,
    "rapl_prefer_psys": False,
    "pue": 1.0,
    "measure_power_secs": NEVER_S,
    "api_call_interval": -1,
    "allow_multiple_runs": True,  # else it takes the signal handlers and a lock
}
"""What it is told, so that no file or variable of its own decides."""
OLDER: dict[str, dict[str, Any]] = {
    "electricitymaps_api_token": {"co2_signal_api_token": ""},
    "output_methods": {
        f"save_to_{where}": False for where in ("file", "api", "logger", "prometheus", "logfire")
    },
}
"""What stood for a setting before it was there; newer versions warn of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecarbonOptions:
    """Options of ``--meter codecarbon``."""

    period_s: float = option(0.2, "time between two reads [s]; the load is a mean over it")
    recording: str | None = option(None, "JSON file of a recorded tracker, played instead of one")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if not 0.1 <= self.period_s <= 1.0:
            raise ValueError(f"period_s={self.period_s:g} must be from 0.1 to 1 s")


class CodecarbonMeter(PolledMeter):
    """Hands on what codecarbon's model says of CPU and memory: the last resort."""

    Options = CodecarbonOptions

    def __init__(self, options: CodecarbonOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Start a tracker, or a recorded one.

        Raises:
            MeterError: If codecarbon is missing, or gives no energy.
        """
        told = _Totals()
        if self._options.recording is not None:
            played = RecordedTracker.load(Path(self._options.recording), [told])
            return _Tracker(played, told, played.version, self._options.period_s)
        try:
            tracker = _real_tracker(told)
            version = importlib.metadata.version("codecarbon")
        except ImportError as error:
            raise MeterError("the package codecarbon is not installed", INSTALL) from error
        return _Tracker(tracker, told, version, self._options.period_s)


class _Totals:
    """An output handler of codecarbon that keeps the last totals."""

    def __init__(self) -> None:
        self.total: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.total = total

    def live_out(self, total: Any, delta: Any) -> None:
        """Not called: its own measurements are switched off."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Not called: there are no tasks."""

    def exit(self) -> None:
        """Nothing is held open."""


def _real_tracker(totals: _Totals) -> Any:
    """A tracker of codecarbon, not started and silent."""
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # it speaks before it is told
    known: set[str] = set()
    for each in OfflineEmissionsTracker.__mro__:
        known |= set(inspect.signature(each.__init__).parameters)
    settings = dict(SETTINGS)
    for name, before in OLDER.items():
        settings |= {} if name in known else before
    settings = {name: value for name, value in settings.items() if name in known}
    return OfflineEmissionsTracker(output_handlers=[totals], **settings)


class _Tracker(Source):
    """A tracker that is asked at each read.

    Args:
        tracker: Of codecarbon, or what answers the same calls; it reports to ``totals``.
        totals: Where its energies arrive.
        version: Version of codecarbon.
        period_s: Time between two reads [s].
    """

    def __init__(self, tracker: Any, totals: _Totals, version: str, period_s: float) -> None:
        self._tracker, self._totals = tracker, totals
        tracker.start()
        time.sleep(FIRST_S)
        try:
            first = self._asked()
            if not first.cpu_energy > 0:
                raise MeterError("codecarbon gives no energy of the CPU", INSTEAD)
        except MeterError:
            self.close()
            raise
        cpu = str(first.cpu_model or cpu_title())
        ways = getattr(tracker, "_hardware", ())  # nothing public says which way it goes
        way = next((w for w in map(str, ways) if "RAM" not in w and "GPU" not in w), "")
        ram_watts = float(first.ram_power)
        common: dict[str, Any] = {
            "meter": "codecarbon",
            "quantity": "energy_counter",
            "kind": "modelled",
            "boundary": "package",
            "update_period_s": period_s,
            "on_client_host": True,
        }
        self.domains = (
            EnergyDomain(
                name=CPU,
                devices=(cpu,),
                method=f"codecarbon {version}, {_told(way)}",
                gain_half_width_fraction=GAIN,
                **common,
            ),
            EnergyDomain(
                name=RAM,
                devices=(RAM,),
                method=f"codecarbon {version}, a constant {ram_watts:g} W by the memory's size",
                offset_half_width_watts=ram_watts,
                **common,
            ),
        )[: 2 if ram_watts > 0 else 1]

    def _asked(self) -> Any:
        """The totals now; codecarbon swallows its own errors, and then there are none."""
        self._totals.total = None
        self._tracker.flush()
        if self._totals.total is None:
            raise MeterError("codecarbon gives no energy", INSTEAD)
        return self._totals.total

    def read(self, now_s: Clock) -> list[Reading]:
        before_s = now_s()
        total = self._asked()
        time_s = (before_s + now_s()) / 2
        kwh = {CPU: total.cpu_energy, RAM: total.ram_energy}
        return [
            Reading(domain.name, time_s, float(kwh[domain.name]) * JOULES_PER_KWH)
            for domain in self.domains
        ]

    def close(self) -> None:
        self._tracker.stop()


def _told(way: str) -> str:
    """Its way of measuring, in words."""
    if not way:
        return "which does not tell how"
    if "rapl" in way.lower():
        return f"by {way}: it reads RAPL, as --meter rapl does better"
    return f"by {way}: a model of load and design power, no measurement"
