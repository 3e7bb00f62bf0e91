"""Energy counters of the processor: RAPL, through the powercap tree of Linux (Intel and AMD).

    <root>/sys/class/powercap/intel-rapl:0        package-0, with energy_uj [µJ]
    <root>/sys/class/powercap/intel-rapl:0:0      core, uncore or dram of that package
    <root>/sys/class/powercap/intel-rapl:1        the next package, or psys

A package contains its cores and its uncore; DRAM lies outside and adds. ``psys``, which some client
processors have, is the whole platform and contains both; it is read only if asked for. The same
package is often shown twice, by registers and by memory (``intel-rapl-mmio``): the first counts.

A counter runs from 0 to ``max_energy_range_uj`` and begins again. It is new every millisecond.

Prior on readings, an assumption: a gain within ± 5 % for package, core, uncore and psys, since
package readings follow a plug meter closely from Haswell on, and within ± 10 % for DRAM, whose
energy some processors model rather than measure. No maker states an accuracy.

Source: Linux, Documentation/power/powercap; Intel SDM volume 3B, section 15.10 (period, domains);
Hähnel et al., *Measuring Energy Consumption for Short Code Paths Using RAPL*, 2012; Desrochers et
al., *A Validation of DRAM RAPL Power Measurements*, MEMSYS 2016.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wattbench.core.energy import EnergyDomain
from wattbench.core.errors import MeterError
from wattbench.meters.polling import Clock, PolledMeter, Reading, Source
from wattbench.meters.sysfs import check_root, read_int, read_text, readings
from wattbench.plugins import PluginContext, option

UPDATE_S = 0.001
"""Time between two updates of a counter [s]."""
GAIN, DRAM_GAIN = 0.05, 0.1
COUNTS = 2**32
"""The registers have 32 bits, whatever energy one count stands for."""

_ZONE = re.compile(r"(intel-rapl[a-z-]*):(\d+)(?::(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplOptions:
    """Options of ``--meter rapl``."""

    root: str = option("/", "folder that stands for the root of the file system")
    period_s: float | None = option(None, "time between two reads [s]; none: 0.05")
    psys: bool = option(False, "read the whole platform too; packages are then part of it")

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        check_root(self.root, self.period_s)


@dataclass(frozen=True, slots=True)
class _Zone:
    """One zone: its folder, its own name, and that of the zone at the top."""

    folder: Path
    name: str
    top: str


class RaplMeter(PolledMeter):
    """Reads the energy counters of the processor and its memory (Intel and AMD, Linux)."""

    Options = RaplOptions

    def __init__(self, options: RaplOptions, context: PluginContext) -> None:
        super().__init__(options.period_s)
        self._options = options

    def open_source(self) -> Source:
        """Find the zones.

        Raises:
            MeterError: If there are none, or they must not be read, with the way out.
        """
        return _Counters(self._options)


class _Counters(Source):
    def __init__(self, options: RaplOptions) -> None:
        self._place = Path(options.root) / "sys/class/powercap"
        zones = [zone for zone in _zones(self._place) if options.psys or zone.top != "psys"]
        if not zones:
            raise MeterError(
                f"{self._place} has no RAPL zone that can be seen: a virtual machine, most "
                f"containers and processors other than Intel's and AMD's have none",
                "On the host itself: sudo modprobe -a intel_rapl_common intel_rapl_msr; elsewhere "
                "measure on the host, or use --meter cpu-load.",
            )
        for zone in zones:
            _demand_readable(zone, self._place)
        psys = any(zone.top == "psys" for zone in zones)
        domains = [_domain(zone, psys) for zone in zones]
        self.domains = domains
        self._reads = [
            (domain.name, partial(_energy_joules, zone.folder / "energy_uj"))
            for domain, zone in zip(domains, zones, strict=True)
        ]

    def read(self, now_s: Clock) -> list[Reading]:
        return readings(now_s, self._reads, self._place)


def _zones(place: Path) -> list[_Zone]:
    """Packages, their parts and psys, each once."""
    found = [
        (match, folder) for folder in place.glob("*") if (match := _ZONE.fullmatch(folder.name))
    ]
    # Zones of the plain control type come first: those of the others mirror them.
    found.sort(key=lambda each: (each[0][1], int(each[0][2]), int(each[0][3] or -1)))
    names = {match[0]: read_text(folder / "name") for match, folder in found}
    zones: dict[tuple[str, str], _Zone] = {}
    for match, folder in found:
        top, name = names.get(f"{match[1]}:{match[2]}", ""), names[match[0]]
        known = name in ("core", "uncore", "dram") if match[3] else name == top
        if known and (top.startswith("package-") or top == "psys"):
            zones.setdefault((top, name), _Zone(folder, name, top))
    return list(zones.values())


def _demand_readable(zone: _Zone, place: Path) -> None:
    path = zone.folder / "energy_uj"
    try:
        read_int(path)
    except PermissionError as error:
        raise MeterError(
            f"{path} must not be read by this user: since Linux 5.10 only by root, for "
            f"CVE-2020-8694",
            f"sudo chmod a+r {place}/{zone.folder.name.partition(':')[0]}:*/energy_uj",
        ) from error
    except (OSError, ValueError) as error:
        raise MeterError(
            f"{path} cannot be read: {error}",
            "See whether `sudo cat` can read it; if not, use --meter cpu-load.",
        ) from error


def _energy_joules(path: Path) -> float:
    return read_int(path) * 1e-6


def _range_joules(folder: Path) -> float | None:
    """Where the counter begins again [J]: one count above the highest energy it shows."""
    try:
        highest = read_int(folder / "max_energy_range_uj")
    except (OSError, ValueError):
        return None
    return highest * 1e-6 * COUNTS / (COUNTS - 1) if highest > 0 else None


def _domain(zone: _Zone, psys: bool) -> EnergyDomain:
    number = zone.top.removeprefix("package-")
    platform = "psys" if psys and zone.top != "psys" else None
    if zone.name == zone.top:
        name, parent = ("psys", None) if zone.top == "psys" else (f"cpu_package:{number}", platform)
    elif zone.name == "dram":
        name, parent = f"dram:{number}", platform
    else:
        name, parent = f"{zone.name}:{number}", f"cpu_package:{number}"
    device = zone.top if zone.name == zone.top else f"{zone.top}/{zone.name}"
    return EnergyDomain(
        name=name,
        meter="rapl",
        quantity="energy_counter",
        kind="counter",
        boundary="node" if name == "psys" else "package",
        current="dc" if name == "psys" else None,
        devices=(device,),
        parent=parent,
        method=f"RAPL counter of {device} ({zone.folder.name})",
        update_period_s=UPDATE_S,
        wrap_joules=_range_joules(zone.folder),
        gain_half_width_fraction=DRAM_GAIN if zone.name == "dram" else GAIN,
        on_client_host=True,
    )
